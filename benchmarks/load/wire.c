/* Sockets, handshakes and frames: the client's half of RFC 6455, and what a server may not do. */
#include "load.h"
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    READ_SIZE = 256 * 1024,
    WRITE_SIZE = 256 * 1024,
    PORTS = 20000,              /* connections from one loopback address; one address has some 28,000 ports */
};

/* The key of RFC 6455's own example and its answer: checking the server's accept header needs no SHA-1 here. */
static const char KEY[] = "dGhlIHNhbXBsZSBub25jZQ==", ACCEPT[] = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
static const char OFFER[] = "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; "
                            "client_no_context_takeover\r\n";
static unsigned char read_buffer[READ_SIZE], write_buffer[WRITE_SIZE];

void drop(Connection *c) {
    if (c->state == CLOSED)
        return;
    if (c->state != OPEN)
        connecting--;
    else
        alive--;
    close(c->fd);
    c->state = CLOSED;
}

/* ---- sending ----------------------------------------------------------------------------------------------------- */

static void watch(Connection *c, bool out) {
    if (c->waits_out == out)
        return;
    struct epoll_event e = {.events = out ? EPOLLIN | EPOLLOUT : EPOLLIN, .data.ptr = c};
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &e);
    c->waits_out = out;
}

/* What to write next.  Small messages are put side by side, so that a pipeline of D messages is one write. */
static size_t next_bytes(Connection *c, const unsigned char **bytes) {
    if (c->control_len && !c->offset) {     /* a control frame may stand between messages, not in a frame of one */
        *bytes = c->control + c->control_off;
        return c->control_len - c->control_off;
    }
    size_t count = c->due - c->sent;
    if (count > WRITE_SIZE / message_len)
        count = WRITE_SIZE / message_len;
    if (count <= 1) {
        put_tag(c, c->frames, c->sent);
        *bytes = c->frames + c->offset;
        return message_len - c->offset;
    }
    for (size_t i = 0; i < count; i++) {
        memcpy(write_buffer + i * message_len, c->frames, message_len);
        put_tag(c, write_buffer + i * message_len, c->sent + (uint32_t)i);
    }
    *bytes = write_buffer + c->offset;
    return count * message_len - c->offset;
}

static void written(Connection *c, size_t n) {
    if (c->control_len && !c->offset) {
        c->control_off += n;
        if (c->control_off == c->control_len)
            c->control_len = c->control_off = 0;
        return;
    }
    c->offset += n;
    c->sent += (uint32_t)(c->offset / message_len);
    c->offset %= message_len;
}

void pump(Connection *c) {
    while (c->state == OPEN && (c->sent != c->due || c->control_len)) {
        const unsigned char *bytes;
        size_t len = next_bytes(c, &bytes);
        ssize_t n = send(c->fd, bytes, len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            watch(c, true);
            return;
        }
        if (n < 0)
            FAIL(c, "send: %s", strerror(errno));
        written(c, (size_t)n);
    }
    if (c->state == OPEN)
        watch(c, false);
}

void send_control(Connection *c, int opcode, const unsigned char *payload, size_t len) {
    if (c->control_off)
        return;                             /* one is half out: an unanswered ping is allowed, a torn frame is not */
    unsigned char *p = c->control;
    p[0] = (unsigned char)(0x80 | opcode);
    p[1] = (unsigned char)(0x80 | len);
    memcpy(p + 2, c->mask, 4);
    for (size_t i = 0; i < len; i++)
        p[6 + i] = payload[i] ^ c->mask[i & 3];
    c->control_len = 6 + len;
    pump(c);
}

/* ---- receiving --------------------------------------------------------------------------------------------------- */

static void frame_done(Connection *c, uint64_t now) {
    int opcode = c->head[0] & 15;
    c->head_len = 0;
    c->in_payload = false;
    if (opcode == 8) {
        c->close_seen = true;
        if (phase != CLOSING && option.mode != CONNECT)
            FAIL(c, "connection %u: server closed with code %d", c->id,
                 c->ping_len >= 2 ? c->ping[0] << 8 | c->ping[1] : 0);
        return;
    }
    if (opcode == 9) {
        pings++;
        send_control(c, 10, c->ping, c->ping_len);
    }
    if (opcode >= 8)
        return;
    c->in_message = !(c->head[0] & 0x80);
    if (c->in_message)
        return;
    data_end(c);
    if (c->state == OPEN)
        message_done(c, now);
}

static size_t head_size(const Connection *c) {
    if (c->head_len < 2)
        return 2;
    int len = c->head[1] & 127;
    return len == 126 ? 4 : len == 127 ? 10 : 2;
}

static bool is_allowed(const Connection *c) {
    int first = c->head[0], opcode = first & 15, data = c->greeted && option.binary ? 2 : 1;
    if (opcode >= 8)
        return opcode <= 10 && first & 0x80 && (c->head[1] & 127) <= 125;
    return opcode == (c->in_message ? 0 : data);
}

static void head_done(Connection *c, uint64_t now) {
    const unsigned char *h = c->head;
    int opcode = h[0] & 15, reserved = option.deflate && opcode < 8 && !c->in_message ? 0x30 : 0x70;
    if (h[0] & reserved || h[1] & 0x80)
        FAIL(c, "connection %u: reserved bit or mask bit set by the server (%02x %02x)", c->id, h[0], h[1]);
    if (!is_allowed(c))
        FAIL(c, "connection %u: unexpected frame (%02x %02x)", c->id, h[0], h[1]);
    c->left = h[1] & 127;
    if (c->left > 125) {
        size_t end = c->left == 126 ? 4 : 10;
        c->left = 0;
        for (size_t i = 2; i < end; i++)
            c->left = c->left << 8 | h[i];
    }
    if (opcode >= 8)
        c->ping_len = 0;
    else if (!c->in_message)
        c->compressed = h[0] & 0x40;
    c->in_payload = true;
    if (!c->left)
        frame_done(c, now);
}

static void parse(Connection *c, const unsigned char *p, size_t n, uint64_t now) {
    while (n && c->state == OPEN && !c->close_seen) {
        if (!c->in_payload) {
            c->head[c->head_len++] = *p++;
            n--;
            if (c->head_len >= 2 && c->head_len == head_size(c))
                head_done(c, now);
            continue;
        }
        size_t take = n < c->left ? n : (size_t)c->left;
        if ((c->head[0] & 15) < 8) {
            data_bytes(c, p, take);
        } else {
            memcpy(c->ping + c->ping_len, p, take);
            c->ping_len += take;
        }
        p += take;
        n -= take;
        c->left -= take;
        if (c->state == OPEN && !c->left)
            frame_done(c, now);
    }
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

/* One loopback address has too few ports for many connections, or for many one after the other. */
static void take_address(const Connection *c) {
    const struct sockaddr_in *to = (const struct sockaddr_in *)address->ai_addr;
    uint32_t serial = option.first + c->id, host = 2 + serial / PORTS % 200;
    if (serial < PORTS || to->sin_family != AF_INET || ntohl(to->sin_addr.s_addr) >> 24 != 127)
        return;
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK - 1 + host)};
    int yes = 1;
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes);
    if (bind(c->fd, (struct sockaddr *)&from, sizeof from))
        note_error("bind: %s", strerror(errno));
}

static void prepare(Connection *c, uint32_t id) {
    Connection fresh = {.id = id, .state = CONNECTING, .frames = c->frames, .stamps = c->stamps,
                        .response = c->response, .inflater = c->inflater, .greeted = true};
    *c = fresh;
    if (option.mode == FANOUT && id != publisher_id())
        c->greeted = false;
    else if (option.mode != HOLD)
        make_message(c);
    c->stamps = c->stamps ? c->stamps : calloc((size_t)option.depth, sizeof *c->stamps);
    c->response = c->response ? c->response : malloc(RESPONSE_MAX + 1);
    if (!c->stamps || !c->response)
        abort();
    expect(c);
}

void start_connection(Connection *c, uint32_t id) {
    int yes = 1;
    prepare(c, id);
    connecting++;
    c->born = now_ns();
    c->fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        FAIL(c, "socket: %s", strerror(errno));
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    take_address(c);
    if (connect(c->fd, address->ai_addr, address->ai_addrlen) && errno != EINPROGRESS)
        FAIL(c, "connect: %s", strerror(errno));
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &e);
    c->waits_out = true;
}

void send_request(Connection *c) {
    char request[1024];
    int failure = 0;
    socklen_t size = sizeof failure;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &failure, &size);
    if (failure)
        FAIL(c, "connect: %s", strerror(failure));
    int n = snprintf(request, sizeof request,
                     "GET %s HTTP/1.1\r\nHost: %s:%s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     "Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n%s\r\n",
                     option.mode == FANOUT && c->id == publisher_id() ? "/publish" : option.path, option.host,
                     option.port, KEY, option.deflate ? OFFER : "");
    if (n >= (int)sizeof request || send(c->fd, request, (size_t)n, MSG_NOSIGNAL) != n)
        FAIL(c, "request not sent: %s", strerror(errno));
    c->state = HANDSHAKE;
    watch(c, false);
}

static bool has_header(const char *head, const char *name, const char *value, bool exact) {
    size_t len = strlen(name);
    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line + 2, "\r\n")) {
        if (strncasecmp(line + 2, name, len) || line[2 + len] != ':')
            continue;
        const char *start = line + 3 + len;
        start += strspn(start, " \t");
        size_t length = strcspn(start, "\r\n");
        if (length == strlen(value) && !(exact ? strncmp : strncasecmp)(start, value, length))
            return true;
    }
    return false;
}

static const char *refusal(const char *head) {
    if (!has_header(head, "Upgrade", "websocket", false) || !has_header(head, "Connection", "upgrade", false) ||
        !has_header(head, "Sec-WebSocket-Accept", ACCEPT, true))
        return "handshake answered without a right Upgrade, Connection or Sec-WebSocket-Accept";
    if (option.deflate && !strcasestr(head, "permessage-deflate"))
        return "permessage-deflate was not agreed to";
    if (option.deflate && !strcasestr(head, "server_no_context_takeover"))
        return "server_no_context_takeover was not agreed to";
    return NULL;
}

static void read_response(Connection *c, const unsigned char *p, size_t n, uint64_t now) {
    size_t before = c->response_len, take = n < RESPONSE_MAX - before ? n : RESPONSE_MAX - before;
    memcpy(c->response + before, p, take);
    c->response_len += take;
    c->response[c->response_len] = 0;
    char *end = strstr(c->response, "\r\n\r\n");
    if (!end && c->response_len == RESPONSE_MAX)
        FAIL(c, "answer to the handshake is too long");
    if (!end)
        return;
    end[2] = 0;
    if (strncmp(c->response, "HTTP/1.1 101 ", 13))
        FAIL(c, "handshake refused: %.*s", (int)strcspn(c->response, "\r"), c->response);
    if (refusal(c->response))
        FAIL(c, "%s", refusal(c->response));
    size_t used = (size_t)(end + 4 - c->response) - before;
    free(c->response);
    c->response = NULL;
    c->state = OPEN;
    connecting--;
    opened++;
    alive++;
    opened_one(c, now);
    parse(c, p + used, n - used, now);
}

static void lost(Connection *c, ssize_t n, uint64_t now) {
    if (option.mode == CONNECT && c->close_seen) {
        drop(c);
        life_over(c, now);
        return;
    }
    if (phase == CLOSING || (c->state == OPEN && c->close_seen)) {
        closed_cleanly += c->close_seen;
        drop(c);
        return;
    }
    FAIL(c, "connection %u lost: %s", c->id, n ? strerror(errno) : "end of stream");
}

void readable(Connection *c, uint64_t now) {
    ssize_t n = recv(c->fd, read_buffer, READ_SIZE, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        lost(c, n, now);
        return;
    }
    if (c->state == HANDSHAKE)
        read_response(c, read_buffer, (size_t)n, now);
    else
        parse(c, read_buffer, (size_t)n, now);
    pump(c);
}
