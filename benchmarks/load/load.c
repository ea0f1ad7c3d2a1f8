/* load: a WebSocket load generator that checks what it measures.
 *
 *   load HOST PORT PATH --connections N --depth D --size S --seconds T --warmup W [--binary] [--rate R]
 *
 * Opens N connections, then keeps D messages of S bytes in flight on each (closed loop), or sends R messages a second
 * in all, evenly spread (open loop: latency then counts from the moment a message was due, so a slow server cannot hide
 * by slowing the schedule).  Every message carries its connection and number, and every echoed byte is compared: a lost,
 * doubled, reordered, swapped or damaged echo is an error.  Prints one line of JSON; exit status 0 only without errors.
 *
 * The measured window opens at the first completed message after the warm-up and closes at the first one T seconds
 * later, so the rate is exact even where a message takes a second.  "measuring" and "measured" are written to standard
 * error at these two moments, for a caller who reads the server's CPU clock.
 *
 * One thread, one epoll loop, no dependencies:  cc -O2 -o load load.c
 */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum {
    TAG = 16,                   /* hex digits that name a message: 8 for its number, 8 for its connection */
    HEAD_MAX = 14,              /* longest frame header: 2 + 8 length + 4 mask */
    RESPONSE_MAX = 8192,        /* longest answer to the handshake */
    READ_SIZE = 256 * 1024,
    WRITE_SIZE = 256 * 1024,
    EVENTS = 512,
    CONNECTING_AT_ONCE = 64,    /* below every server's listen backlog: a dropped SYN would cost a second */
};
static const double CONNECT_LIMIT = 60, GRACE = 20, DRAIN_LIMIT = 10, CLOSE_LIMIT = 3;

/* The key of RFC 6455's own example and its answer: checking the server's accept header needs no SHA-1 here. */
static const char KEY[] = "dGhlIHNhbXBsZSBub25jZQ==", ACCEPT[] = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

typedef enum { CONNECTING, HANDSHAKE, OPEN, CLOSED } State;
typedef enum { OPENING, WARMUP, MEASURE, DRAIN, CLOSING, DONE } Phase;

typedef struct {
    int fd;
    State state;
    uint32_t id;
    bool waits_out;             /* EPOLLOUT is registered */
    bool close_seen;
    unsigned char mask[4];
    unsigned char *frame;       /* header and masked payload; only the tag changes from message to message */
    uint64_t *stamps;           /* closed loop: when each message in flight was handed to the socket */
    uint32_t due, sent, received;   /* message numbers: allowed to leave, left, come back */
    size_t offset;              /* bytes of frame number `sent` that have left */
    unsigned char control[HEAD_MAX + 125];
    size_t control_len, control_off;
    /* receiving */
    char *response;
    size_t response_len;
    unsigned char head[HEAD_MAX];
    size_t head_len;
    bool in_payload, in_message;
    uint64_t left;              /* payload bytes of this frame still to come */
    size_t position;            /* in the message, over all its frames */
    char expected[TAG];
    unsigned char ping[125];
    size_t ping_len;
    uint64_t in_window;
} Connection;

static struct {
    const char *host, *port, *path;
    int connections, depth;
    size_t size;
    double seconds, warmup, rate;
    bool binary;
} option = {.path = "/", .connections = 1, .depth = 1, .size = 32, .seconds = 3, .warmup = 1};

static Connection *connections;
static unsigned char *text;             /* the payload every message has behind its tag */
static size_t frame_len, frame_head;
static int epoll_fd, timer_fd = -1;
static struct addrinfo *address;
static unsigned char read_buffer[READ_SIZE], write_buffer[WRITE_SIZE];

static Phase phase = OPENING;
static uint64_t phase_start, connect_start, connect_end;
static int started, connecting, opened, alive, closed_cleanly;
static uint64_t schedule_start, scheduled;          /* open loop */
static uint64_t messages, window_start, window_end, errors;
static double window_cpu;
static char error_text[200];

/* ---- clock, latencies, errors ------------------------------------------------------------------------------------ */

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static double since(uint64_t start, uint64_t now) { return now <= start ? 0 : (double)(now - start) / 1e9; }

static double cpu_seconds(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* Log-linear histogram: exact below 128 ns, then 64 steps per power of two (error below 0.8 %). */
static uint64_t histogram[128 + 57 * 64], latency_max;

static void record(uint64_t ns) {
    if (ns > latency_max)
        latency_max = ns;
    if (ns < 128) {
        histogram[ns]++;
        return;
    }
    int shift = 63 - __builtin_clzll(ns) - 6;
    histogram[128 + (size_t)(shift - 1) * 64 + (ns >> shift) - 64]++;
}

static double percentile_us(double share) {
    uint64_t wanted = (uint64_t)(share * (double)messages), seen = 0;
    if (wanted >= messages)
        return (double)latency_max / 1e3;
    for (size_t i = 0; i < sizeof histogram / sizeof *histogram; i++) {
        seen += histogram[i];
        if (seen <= wanted)
            continue;
        if (i < 128)
            return (double)i / 1e3;
        size_t shift = (i - 128) / 64 + 1;
        double middle = (double)((64 + (i - 128) % 64) << shift) + (double)(1ull << shift) / 2;
        return (middle < (double)latency_max ? middle : (double)latency_max) / 1e3;
    }
    return (double)latency_max / 1e3;
}

static void note_error(const char *format, ...) {
    if (errors++)
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(error_text, sizeof error_text, format, args);
    va_end(args);
}

static void enter(Phase next, uint64_t now) {
    phase = next;
    phase_start = now;
}

static void drop(Connection *c) {
    if (c->state == CLOSED)
        return;
    if (c->state != OPEN)
        connecting--;
    else
        alive--;
    close(c->fd);
    c->state = CLOSED;
}

/* An error of one connection ends that connection; the others go on, so that the count says how many are affected. */
#define FAIL(c, ...) do { note_error(__VA_ARGS__); drop(c); return; } while (0)

/* ---- sending ----------------------------------------------------------------------------------------------------- */

static void write_tag(char *out, uint32_t number, uint32_t id) {
    static const char digits[] = "0123456789abcdef";
    for (int i = 0; i < 8; i++, number >>= 4, id >>= 4) {
        out[i] = digits[number & 15];       /* lowest digit first: a payload of 2 bytes still tells 256 messages apart */
        out[8 + i] = digits[id & 15];
    }
}

static void put_tag(const Connection *c, unsigned char *frame, uint32_t number) {
    char tag[TAG];
    size_t n = option.size < TAG ? option.size : TAG;
    write_tag(tag, number, c->id);
    for (size_t i = 0; i < n; i++)
        frame[frame_head + i] = (unsigned char)tag[i] ^ c->mask[i & 3];
}

static void watch(Connection *c, bool out) {
    if (c->waits_out == out)
        return;
    struct epoll_event e = {.events = out ? EPOLLIN | EPOLLOUT : EPOLLIN, .data.ptr = c};
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &e);
    c->waits_out = out;
}

/* What to write next.  Small frames are put side by side, so that a pipeline of D messages is one write. */
static size_t next_bytes(Connection *c, const unsigned char **bytes) {
    if (c->control_len && !c->offset) {     /* a control frame may stand between messages' frames, not in one */
        *bytes = c->control + c->control_off;
        return c->control_len - c->control_off;
    }
    size_t count = c->due - c->sent;
    if (count > WRITE_SIZE / frame_len)
        count = WRITE_SIZE / frame_len;
    if (count <= 1) {
        put_tag(c, c->frame, c->sent);
        *bytes = c->frame + c->offset;
        return frame_len - c->offset;
    }
    for (size_t i = 0; i < count; i++) {
        memcpy(write_buffer + i * frame_len, c->frame, frame_len);
        put_tag(c, write_buffer + i * frame_len, c->sent + (uint32_t)i);
    }
    *bytes = write_buffer + c->offset;
    return count * frame_len - c->offset;
}

static void written(Connection *c, size_t n) {
    if (c->control_len && !c->offset) {
        c->control_off += n;
        if (c->control_off == c->control_len)
            c->control_len = c->control_off = 0;
        return;
    }
    c->offset += n;
    c->sent += (uint32_t)(c->offset / frame_len);
    c->offset %= frame_len;
}

static void pump(Connection *c) {
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

static void send_control(Connection *c, int opcode, const unsigned char *payload, size_t len) {
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

/* ---- the measured window ----------------------------------------------------------------------------------------- */

static void open_window(uint64_t now) {
    enter(MEASURE, now);
    window_start = now;
    window_cpu = cpu_seconds();
    fputs("measuring\n", stderr);
}

static void close_window(uint64_t now) {
    enter(DRAIN, now);
    window_end = now;
    window_cpu = cpu_seconds() - window_cpu;
    fputs("measured\n", stderr);
}

static uint64_t sent_at(const Connection *c, uint32_t number) {
    if (!option.rate)
        return c->stamps[number % (uint32_t)option.depth];
    double index = (double)number * option.connections + c->id;
    return schedule_start + (uint64_t)(index * 1e9 / option.rate);
}

static void message_done(Connection *c, uint64_t now) {
    if (c->received == c->due)
        FAIL(c, "connection %u got an echo of nothing", c->id);
    if (phase == MEASURE) {
        uint64_t start = sent_at(c, c->received);
        record(now > start ? now - start : 0);
        messages++;
        c->in_window++;
        if (since(window_start, now) >= option.seconds)
            close_window(now);
    } else if (phase == WARMUP && since(phase_start, now) >= option.warmup) {
        open_window(now);
    }
    c->received++;
    write_tag(c->expected, c->received, c->id);
    if (!option.rate && (phase == WARMUP || phase == MEASURE)) {
        c->stamps[c->due % (uint32_t)option.depth] = now;
        c->due++;
    }
}

/* ---- receiving --------------------------------------------------------------------------------------------------- */

static void data_bytes(Connection *c, const unsigned char *p, size_t n) {
    if (n > option.size - c->position)
        FAIL(c, "connection %u: echo of message %u is longer than what was sent", c->id, c->received);
    size_t tag = option.size < TAG ? option.size : TAG, in_tag = 0;
    if (c->position < tag) {
        in_tag = n < tag - c->position ? n : tag - c->position;
        if (memcmp(p, c->expected + c->position, in_tag))
            FAIL(c, "connection %u: not the echo of message %u", c->id, c->received);
    }
    if (memcmp(p + in_tag, text + c->position + in_tag, n - in_tag))
        FAIL(c, "connection %u: damaged echo of message %u near byte %zu", c->id, c->received, c->position);
    c->position += n;
}

static void frame_done(Connection *c, uint64_t now) {
    int opcode = c->head[0] & 15;
    c->head_len = 0;
    c->in_payload = false;
    if (opcode == 8) {
        c->close_seen = true;
        if (phase != CLOSING)
            FAIL(c, "connection %u: server closed with code %d", c->id,
                 c->ping_len >= 2 ? c->ping[0] << 8 | c->ping[1] : 0);
        return;
    }
    if (opcode == 9)
        send_control(c, 10, c->ping, c->ping_len);
    if (opcode >= 8)
        return;
    c->in_message = !(c->head[0] & 0x80);
    if (c->in_message)
        return;
    if (c->position != option.size)
        FAIL(c, "connection %u: echo of message %u has %zu bytes, not %zu", c->id, c->received, c->position, option.size);
    c->position = 0;
    message_done(c, now);
}

static size_t head_size(const Connection *c) {
    if (c->head_len < 2)
        return 2;
    int len = c->head[1] & 127;
    return len == 126 ? 4 : len == 127 ? 10 : 2;
}

static void head_done(Connection *c, uint64_t now) {
    const unsigned char *h = c->head;
    int opcode = h[0] & 15;
    int data = option.binary ? 2 : 1;
    if (h[0] & 0x70 || h[1] & 0x80)
        FAIL(c, "connection %u: reserved bit or mask bit set by the server (%02x %02x)", c->id, h[0], h[1]);
    if (opcode >= 8 ? opcode > 10 || !(h[0] & 0x80) || (h[1] & 127) > 125 : opcode != (c->in_message ? 0 : data))
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

static void prepare(Connection *c) {
    int opcode = option.binary ? 2 : 1;
    if (getrandom(c->mask, sizeof c->mask, 0) != sizeof c->mask)
        abort();
    c->frame = malloc(frame_len);
    c->stamps = calloc((size_t)option.depth, sizeof *c->stamps);
    c->response = malloc(RESPONSE_MAX + 1);
    if (!c->frame || !c->stamps || !c->response)
        abort();
    unsigned char *p = c->frame;
    *p++ = (unsigned char)(0x80 | opcode);
    *p++ = (unsigned char)(0x80 | (option.size < 126 ? option.size : option.size < 65536 ? 126 : 127));
    for (int bytes = option.size < 126 ? 0 : option.size < 65536 ? 2 : 8; bytes--;)
        *p++ = (unsigned char)(option.size >> 8 * bytes);
    memcpy(p, c->mask, 4);
    for (size_t i = 0; i < option.size; i++)
        c->frame[frame_head + i] = text[i] ^ c->mask[i & 3];
    write_tag(c->expected, 0, c->id);
}

static void start_connection(Connection *c, uint32_t id) {
    int yes = 1;
    c->id = id;
    c->state = CONNECTING;
    connecting++;
    prepare(c);
    c->fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        FAIL(c, "socket: %s", strerror(errno));
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (connect(c->fd, address->ai_addr, address->ai_addrlen) && errno != EINPROGRESS)
        FAIL(c, "connect: %s", strerror(errno));
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &e);
    c->waits_out = true;
}

static void start_more(void) {
    while (started < option.connections && connecting < CONNECTING_AT_ONCE && !errors) {
        start_connection(connections + started, (uint32_t)started);
        started++;
    }
}

static void send_request(Connection *c) {
    char request[1024];
    int failure = 0;
    socklen_t size = sizeof failure;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &failure, &size);
    if (failure)
        FAIL(c, "connect: %s", strerror(failure));
    int n = snprintf(request, sizeof request,
                     "GET %s HTTP/1.1\r\nHost: %s:%s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     "Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n\r\n",
                     option.path, option.host, option.port, KEY);
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
    if (!has_header(c->response, "Upgrade", "websocket", false) ||
        !has_header(c->response, "Connection", "upgrade", false) ||
        !has_header(c->response, "Sec-WebSocket-Accept", ACCEPT, true))
        FAIL(c, "handshake answered without a right Upgrade, Connection or Sec-WebSocket-Accept");
    size_t used = (size_t)(end + 4 - c->response) - before;
    free(c->response);
    c->response = NULL;
    c->state = OPEN;
    connecting--;
    opened++;
    alive++;
    parse(c, p + used, n - used, now);
}

/* ---- the loop ---------------------------------------------------------------------------------------------------- */

static void readable(Connection *c, uint64_t now) {
    ssize_t n = recv(c->fd, read_buffer, READ_SIZE, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        if (phase == CLOSING || (c->state == OPEN && c->close_seen)) {
            closed_cleanly += c->close_seen;
            drop(c);
            return;
        }
        FAIL(c, "connection %u lost: %s", c->id, n ? strerror(errno) : "end of stream");
    }
    if (c->state == HANDSHAKE)
        read_response(c, read_buffer, (size_t)n, now);
    else
        parse(c, read_buffer, (size_t)n, now);
    pump(c);
}

static void handle(const struct epoll_event *e) {
    Connection *c = e->data.ptr;
    uint64_t expirations;
    if (!c && read(timer_fd, &expirations, sizeof expirations) < 0)
        return;                             /* the timer only has to wake us, but reading is what makes it go on */
    if (!c || c->state == CLOSED)
        return;
    if (c->state == CONNECTING)
        send_request(c);
    else if (e->events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        readable(c, now_ns());
    if (e->events & EPOLLOUT && c->state == OPEN)
        pump(c);
}

static void begin_messages(uint64_t now) {
    connect_end = schedule_start = now;
    enter(WARMUP, now);
    for (int i = 0; i < option.connections && !option.rate; i++) {
        Connection *c = connections + i;
        uint64_t stamp = now_ns();
        for (int d = 0; d < option.depth; d++)
            c->stamps[d] = stamp;
        c->due = (uint32_t)option.depth;
        pump(c);
    }
    if (!option.rate)
        return;
    uint64_t period = (uint64_t)(1e9 / option.rate) < 100000 ? 100000 : (uint64_t)(1e9 / option.rate);
    struct timespec step = {(time_t)(period / 1000000000u), (long)(period % 1000000000u)};
    struct itimerspec timer = {step, step};
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL};
    timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    timerfd_settime(timer_fd, 0, &timer, NULL);
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer_fd, &e);
}

static void send_scheduled(uint64_t now) {
    uint64_t wanted = (uint64_t)(since(schedule_start, now) * option.rate) + 1;
    for (; scheduled < wanted; scheduled++) {
        Connection *c = connections + scheduled % (uint64_t)option.connections;
        c->due++;
        if (!c->waits_out)
            pump(c);
    }
}

static uint64_t unanswered(void) {
    uint64_t n = 0;
    for (int i = 0; i < option.connections; i++)
        n += connections[i].due - connections[i].received;
    return n;
}

static void say_goodbye(uint64_t now) {
    static const unsigned char code[] = {1000 >> 8, 1000 & 255};
    if (unanswered())
        note_error("%llu messages were never echoed", (unsigned long long)unanswered());
    enter(CLOSING, now);
    for (int i = 0; i < option.connections; i++)
        if (connections[i].state == OPEN)
            send_control(connections + i, 8, code, sizeof code);
}

/* What time alone decides; completed messages move the phases in message_done(). */
static void tick(uint64_t now) {
    double age = since(phase_start, now);
    if (phase == OPENING) {
        if (opened == option.connections)
            begin_messages(now);
        else if (errors || age > CONNECT_LIMIT) {
            note_error("only %d of %d connections opened in %.0f s", opened, option.connections, age);
            enter(DONE, now);
        }
    } else if (phase == WARMUP || phase == MEASURE) {
        double limit = GRACE + option.seconds + (phase == WARMUP ? option.warmup : 0);
        if (option.rate)
            send_scheduled(now);
        if (!alive || age > limit) {
            note_error("no message came back for %.0f s", GRACE);
            say_goodbye(now);
        }
    } else if (phase == DRAIN && (!alive || !unanswered() || age > DRAIN_LIMIT)) {
        say_goodbye(now);
    } else if (phase == CLOSING && (!alive || age > CLOSE_LIMIT)) {
        enter(DONE, now);
    }
}

static void run(void) {
    struct epoll_event events[EVENTS];
    connect_start = now_ns();
    enter(OPENING, connect_start);
    while (phase != DONE) {
        if (phase == OPENING)
            start_more();
        int n = epoll_wait(epoll_fd, events, EVENTS, 20);
        for (int i = 0; i < n; i++)
            handle(events + i);
        tick(now_ns());
    }
}

/* ---- start and result -------------------------------------------------------------------------------------------- */

static void usage(void) {
    fputs("usage: load HOST PORT PATH [--connections N] [--depth D] [--size S] [--seconds T] [--warmup W]\n"
          "            [--binary] [--rate R]\n", stderr);
    exit(2);
}

static void read_options(int argc, char **argv) {
    static const struct option known[] = {
        {"connections", 1, 0, 'c'}, {"depth", 1, 0, 'd'}, {"size", 1, 0, 's'}, {"seconds", 1, 0, 't'},
        {"warmup", 1, 0, 'w'}, {"binary", 0, 0, 'b'}, {"rate", 1, 0, 'r'}, {0, 0, 0, 0}};
    for (int o; (o = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        switch (o) {
        case 'c': option.connections = atoi(optarg); break;
        case 'd': option.depth = atoi(optarg); break;
        case 's': option.size = strtoull(optarg, NULL, 10); break;
        case 't': option.seconds = atof(optarg); break;
        case 'w': option.warmup = atof(optarg); break;
        case 'b': option.binary = true; break;
        case 'r': option.rate = atof(optarg); break;
        default: usage();
        }
    }
    if (argc - optind != 3 || option.connections < 1 || option.depth < 1 || option.seconds <= 0 || option.rate < 0)
        usage();
    option.host = argv[optind];
    option.port = argv[optind + 1];
    option.path = argv[optind + 2];
}

static void make_text(void) {
    uint32_t x = 12345;
    frame_head = 6 + (option.size < 126 ? 0 : option.size < 65536 ? 2 : 8);
    frame_len = frame_head + option.size;
    text = malloc(option.size + 1);
    if (!text)
        abort();
    for (size_t i = 0; i < option.size; i++) {
        x = x * 1664525u + 1013904223u;
        text[i] = option.binary ? (unsigned char)(x >> 24) : (unsigned char)(' ' + (x >> 24) % 95);
    }
}

static void print_string(const char *s) {
    putchar('"');
    for (; *s; s++)
        if ((unsigned char)*s >= ' ' && (unsigned char)*s < 127)
            printf(*s == '"' || *s == '\\' ? "\\%c" : "%c", *s);
    putchar('"');
}

static void print_result(void) {
    double seconds = since(window_start, window_end);
    int silent = 0;
    for (int i = 0; i < option.connections; i++)
        silent += !connections[i].in_window;
    printf("{\"connections\": %d, \"depth\": %d, \"size\": %zu, \"binary\": %s, \"rate\": %.10g, ", option.connections,
           option.depth, option.size, option.binary ? "true" : "false", option.rate);
    printf("\"messages\": %llu, \"seconds\": %.6f, \"msg_per_s\": %.3f, ", (unsigned long long)messages, seconds,
           seconds > 0 ? (double)messages / seconds : 0);
    printf("\"p50_us\": %.1f, \"p90_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f, \"max_us\": %.1f, ",
           percentile_us(.5), percentile_us(.9), percentile_us(.99), percentile_us(.999), (double)latency_max / 1e3);
    printf("\"cpu_s\": %.6f, \"connect_s\": %.6f, \"opened\": %d, \"silent\": %d, \"closed_cleanly\": %d, ",
           window_end ? window_cpu : 0, since(connect_start, connect_end), opened, silent, closed_cleanly);
    printf("\"errors\": %llu, \"error\": ", (unsigned long long)errors);
    print_string(error_text);
    puts("}");
}

int main(int argc, char **argv) {
    struct rlimit files;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    read_options(argc, argv);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    int failure = getaddrinfo(option.host, option.port, &hints, &address);
    if (failure) {
        fprintf(stderr, "load: %s: %s\n", option.host, gai_strerror(failure));
        return 2;
    }
    make_text();
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    connections = calloc((size_t)option.connections, sizeof *connections);
    if (!connections || epoll_fd < 0)
        abort();
    run();
    print_result();
    return errors ? 1 : 0;
}
