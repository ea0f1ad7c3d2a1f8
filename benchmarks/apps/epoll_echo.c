/* The limit: a WebSocket echo that does as little as a correct one can.  One thread, one epoll loop, nothing allocated
 * but a few bytes per connection.
 *
 *   epoll_echo PORT
 *
 * A frame is echoed while it comes in: its header as soon as that is complete, its payload unmasked piece by piece.
 * What arrives on /publish goes to everybody on /subscribe.  It knows RFC 6455 as far as an honest client needs it: there
 * are no checks of UTF-8, fragments or reserved bits here.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CHUNK = 256 * 1024, EVENTS = 512, REQUEST_MAX = 4096, PUBLISH_MAX = 64 * 1024 };
typedef enum { REQUEST, ECHO, SUBSCRIBE, PUBLISH } Role;

typedef struct {
    int fd, place;              /* place among the subscribers */
    Role role;
    bool ending;                /* our close frame is written or waits */
    unsigned char head[14];
    unsigned char head_len, mask_at;
    uint64_t left;              /* payload bytes of this frame still to come */
    unsigned char *store;       /* request, or published message, as far as it came */
    size_t stored;
    unsigned char *waiting;     /* what the socket did not take */
    size_t waits;
} Connection;

static int epoll_fd;
static unsigned char input[CHUNK], output[CHUNK + 16];
static Connection **subscribers;
static int subscribed, room;

/* ---- SHA-1 (RFC 3174) of what fits into two blocks, and base64: only the handshake needs them ------------------- */

static uint32_t rotate(uint32_t x, int n) { return x << n | x >> (32 - n); }

static void sha1_block(uint32_t *h, const unsigned char *p) {
    uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
    for (int i = 0; i < 80; i++)
        w[i] = i < 16 ? (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 | (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3]
                      : rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    for (int i = 0; i < 80; i++) {
        uint32_t f = i < 20 ? ((b & c) | (~b & d)) + 0x5A827999 : i < 40 ? (b ^ c ^ d) + 0x6ED9EBA1
                   : i < 60 ? ((b & c) | (b & d) | (c & d)) + 0x8F1BBCDC : (b ^ c ^ d) + 0xCA62C1D6;
        uint32_t t = rotate(a, 5) + f + e + w[i];
        e = d, d = c, c = rotate(b, 30), b = a, a = t;
    }
    h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e;
}

static void accept_value(const char *key, char out[29]) {
    static const char base64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint32_t h[] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
    unsigned char block[128] = {0}, digest[21] = {0};
    memcpy(block, key, 24);
    memcpy(block + 24, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11", 36);
    block[60] = 0x80;
    block[126] = 60 * 8 >> 8, block[127] = (60 * 8) & 255;
    sha1_block(h, block);
    sha1_block(h, block + 64);
    for (int i = 0; i < 20; i++)
        digest[i] = (unsigned char)(h[i / 4] >> (24 - 8 * (i % 4)));
    for (int i = 0; i < 7; i++) {
        uint32_t three = (uint32_t)digest[3 * i] << 16 | (uint32_t)digest[3 * i + 1] << 8 | digest[3 * i + 2];
        for (int j = 0; j < 4; j++)
            out[4 * i + j] = base64[three >> (18 - 6 * j) & 63];
    }
    memcpy(out + 27, "=", 2);
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

static void watch(Connection *c, uint32_t events) {
    struct epoll_event e = {.events = events, .data.ptr = c};
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &e);
}

static void drop(Connection *c) {
    if (c->role == SUBSCRIBE) {
        subscribers[c->place] = subscribers[--subscribed];
        subscribers[c->place]->place = c->place;
    }
    close(c->fd);
    free(c->store);
    free(c->waiting);
    free(c);
}

/* While something waits nothing is read, so what waits is bounded; a subscriber's is not. */
static void put(Connection *c, const unsigned char *p, size_t n) {
    ssize_t sent = c->waits ? 0 : send(c->fd, p, n, MSG_NOSIGNAL);
    if (sent < 0)
        sent = 0;               /* not now, or never: then reading will tell */
    if ((size_t)sent == n)
        return;
    c->waiting = realloc(c->waiting, c->waits + n - (size_t)sent);
    if (!c->waiting)
        abort();
    memcpy(c->waiting + c->waits, p + sent, n - (size_t)sent);
    c->waits += n - (size_t)sent;
    watch(c, EPOLLOUT);
}

/* False if the connection is gone. */
static bool flush(Connection *c) {
    ssize_t sent = send(c->fd, c->waiting, c->waits, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) {
        drop(c);
        return false;
    }
    if (sent > 0) {
        c->waits -= (size_t)sent;
        memmove(c->waiting, c->waiting + sent, c->waits);
    }
    if (c->waits)
        return true;
    free(c->waiting);
    c->waiting = NULL;
    if (c->ending)
        shutdown(c->fd, SHUT_WR);
    watch(c, EPOLLIN);
    return true;
}

static size_t put_head(unsigned char *out, int first, uint64_t n) {
    int bytes = n < 126 ? 0 : n < 65536 ? 2 : 8;
    out[0] = (unsigned char)first;
    out[1] = (unsigned char)(n < 126 ? n : bytes == 2 ? 126 : 127);
    for (int i = 0; i < bytes; i++)
        out[2 + i] = (unsigned char)(n >> 8 * (bytes - 1 - i));
    return (size_t)(2 + bytes);
}

/* ---- frames ------------------------------------------------------------------------------------------------------ */

static size_t head_size(const Connection *c) {
    if (c->head_len < 2)
        return 2;
    int n = c->head[1] & 127;
    return n == 126 ? 8 : n == 127 ? 14 : 6;
}

static void publish(Connection *c) {
    unsigned char head[10];
    size_t n = put_head(head, c->head[0] & 15 ? c->head[0] : 0x81, c->stored);
    memmove(c->store + n, c->store, c->stored);
    memcpy(c->store, head, n);
    for (int i = 0; i < subscribed; i++)
        put(subscribers[i], c->store, c->stored + n);
    c->stored = 0;
}

/* Everything but text and binary is answered, also on /publish; there the rest is stored. */
static void unmask(Connection *c, unsigned char *out, const unsigned char *p, size_t n) {
    const unsigned char *mask = c->head + head_size(c) - 4;
    size_t i = 0;
    for (; i < n && (c->mask_at & 3); i++)
        out[i] = p[i] ^ mask[c->mask_at++ & 3];
    uint32_t word;
    memcpy(&word, mask, 4);
    uint64_t twice = (uint64_t)word << 32 | word, x;
    for (; i + 8 <= n; i += 8) {
        memcpy(&x, p + i, 8);
        x ^= twice;
        memcpy(out + i, &x, 8);
    }
    for (; i < n; i++)
        out[i] = p[i] ^ mask[c->mask_at++ & 3];
}

static bool stores(const Connection *c) { return c->role == PUBLISH && (c->head[0] & 15) < 8; }

static size_t begin_frame(Connection *c, unsigned char *out) {
    static const unsigned char answer[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 10, 11, 12, 13, 14, 15};
    int n = c->head[1] & 127;
    c->left = n < 126 ? (uint64_t)n : 0;
    for (int i = 2; n > 125 && i < (n == 126 ? 4 : 10); i++)
        c->left = c->left << 8 | c->head[i];
    c->mask_at = 0;
    return stores(c) ? 0 : put_head(out, (c->head[0] & 0xF0) | answer[c->head[0] & 15], c->left);
}

static void end_frame(Connection *c) {
    if (stores(c) && c->head[0] & 0x80)
        publish(c);
    c->ending |= (c->head[0] & 15) == 8;
    c->head_len = 0;
}

static void frames(Connection *c, const unsigned char *p, size_t n) {
    size_t out = 0;
    while (n && !c->ending) {
        if (!c->head_len || c->head_len < head_size(c)) {
            c->head[c->head_len++] = *p++;
            n--;
            if (c->head_len < 2 || c->head_len < head_size(c))
                continue;
            if (c->head_len == head_size(c))
                out += begin_frame(c, output + out);
        }
        size_t take = n < c->left ? n : (size_t)c->left;
        if (stores(c)) {
            if (c->stored + take > PUBLISH_MAX)
                abort();
            unmask(c, c->store + c->stored, p, take);
            c->stored += take;
        } else {
            unmask(c, output + out, p, take);
            out += take;
        }
        p += take;
        n -= take;
        c->left -= take;
        if (!c->left)
            end_frame(c);
    }
    if (out)
        put(c, output, out);
    if (c->ending && !c->waits)
        shutdown(c->fd, SHUT_WR);
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static void take_role(Connection *c, const char *path) {
    c->role = !strncmp(path, "/subscribe", 10) ? SUBSCRIBE : !strncmp(path, "/publish", 8) ? PUBLISH : ECHO;
    if (c->role == PUBLISH && !(c->store = malloc(PUBLISH_MAX + 16)))
        abort();
    if (c->role != SUBSCRIBE)
        return;
    if (subscribed == room && !(subscribers = realloc(subscribers, (size_t)(room = 2 * room + 64) * sizeof *subscribers)))
        abort();
    subscribers[c->place = subscribed++] = c;
}

/* False if the connection is gone. */
static bool request(Connection *c, const unsigned char *p, size_t n) {
    char answer[256], value[29];
    if (!c->store && !(c->store = malloc(REQUEST_MAX + 1)))
        abort();
    if (c->stored + n > REQUEST_MAX) {
        drop(c);
        return false;
    }
    memcpy(c->store + c->stored, p, n);
    c->stored += n;
    c->store[c->stored] = 0;
    char *text = (char *)c->store, *end = strstr(text, "\r\n\r\n"), *key = strcasestr(text, "\r\nsec-websocket-key: ");
    if (!end)
        return true;
    if (!key || end - key < 21 + 24 || strncmp(text, "GET /", 5)) {
        drop(c);
        return false;
    }
    accept_value(key + 21, value);
    int size = snprintf(answer, sizeof answer, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                        "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", value);
    char *rest = end + 4, *held = text;
    size_t more = c->stored - (size_t)(rest - text);
    c->store = NULL;
    c->stored = 0;
    take_role(c, held + 4);
    put(c, (unsigned char *)answer, (size_t)size);
    if (c->role == SUBSCRIBE)
        put(c, (const unsigned char *)"\x81\x05ready", 7);
    frames(c, (unsigned char *)rest, more);
    free(held);
    return true;
}

static void accept_all(int listener) {
    for (int fd, yes = 1; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
        Connection *c = calloc(1, sizeof *c);
        if (!c)
            abort();
        c->fd = fd;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e);
    }
}

static void handle(const struct epoll_event *event) {
    Connection *c = event->data.ptr;
    if (event->events & EPOLLOUT && !flush(c))
        return;
    if (!(event->events & (EPOLLIN | EPOLLHUP | EPOLLERR)) || c->waits)
        return;
    ssize_t n = recv(c->fd, input, CHUNK, 0);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0)
        drop(c);
    else if (c->role == REQUEST)
        request(c, input, (size_t)n);
    else
        frames(c, input, (size_t)n);
}

int main(int argc, char **argv) {
    struct epoll_event events[EVENTS], e = {.events = EPOLLIN, .data.ptr = NULL};
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), yes = 1;
    where.sin_port = htons((uint16_t)(argc > 1 ? atoi(argv[1]) : 0));
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&where, sizeof where) || listen(listener, 2048)) {
        perror("epoll_echo");
        return 1;
    }
    epoll_fd = epoll_create1(0);
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &e);
    for (;;) {
        int n = epoll_wait(epoll_fd, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr)
                handle(events + i);
            else
                accept_all(listener);
        }
    }
}
