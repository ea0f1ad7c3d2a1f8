/* What the files of load share: one connection, the options, and the state of the run. */
#ifndef LOAD_H
#define LOAD_H

#define _GNU_SOURCE
#include <netdb.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <zlib.h>

enum {
    TAG = 16,                   /* hex digits that name a message: 8 for its number, 8 for its connection */
    TAG_MAX = TAG + 1,          /* and with --block one character that says whether its handler blocks */
    HEAD_MAX = 14,              /* longest frame header: 2 + 8 length + 4 mask */
    RESPONSE_MAX = 8192,        /* longest answer to the handshake */
    CONNECTING_AT_ONCE = 64,    /* below every server's listen backlog: a dropped SYN would cost a second */
};

typedef enum { ECHO, FANOUT, CONNECT, HOLD } Mode;
typedef enum { CONNECTING, HANDSHAKE, OPEN, CLOSED } State;
typedef enum { OPENING, WARMUP, MEASURE, DRAIN, CLOSING, DONE } Phase;

typedef struct {
    int fd;
    State state;
    uint32_t id;
    bool waits_out;             /* EPOLLOUT is registered */
    bool close_seen;
    bool greeted;               /* fan-out: the server has said that it is subscribed */
    unsigned char mask[4];
    unsigned char *frames;      /* a whole message as it goes over the wire; only the tag changes between messages */
    uint64_t *stamps;           /* closed loop: when each message in flight was handed to the socket */
    uint64_t born;              /* connect mode: when this life began */
    uint32_t due, sent, received;   /* message numbers: allowed to leave, left, come back */
    size_t offset;              /* bytes of message number `sent` that have left */
    unsigned char control[HEAD_MAX + 125];
    size_t control_len, control_off;
    /* receiving */
    char *response;
    size_t response_len;
    unsigned char head[HEAD_MAX];
    size_t head_len;
    bool in_payload, in_message;
    uint64_t left;              /* payload bytes of this frame still to come */
    size_t position;            /* in the message, over all its frames, inflated */
    char expected[TAG_MAX];
    unsigned char ping[125];
    size_t ping_len;
    uint64_t in_window;
    bool compressed;            /* the message that is coming in */
    z_stream *inflater;         /* made for the first compressed message */
} Connection;

typedef struct {
    Mode mode;
    const char *host, *port, *path;
    int connections, depth, fragments;
    uint32_t first;             /* connections that another process holds: they have ports of their own */
    size_t size;
    double seconds, warmup, rate;
    bool binary, deflate, block;
} Options;

extern Options option;
extern struct addrinfo *address;
extern int epoll_fd;

/* ---- load.c: the run --------------------------------------------------------------------------------------------- */
extern Connection *connections;         /* with fan-out, the last one is the publisher's */
extern int total;                       /* of connections */
extern int started, connecting, opened, ready, alive, closed_cleanly;

/* ---- stats.c ----------------------------------------------------------------------------------------------------- */
extern uint64_t errors, recorded, latency_max;
extern char error_text[200];
uint64_t now_ns(void);
double since(uint64_t start, uint64_t now);
double cpu_seconds(void);
void record(uint64_t ns);
double percentile_us(double share);
__attribute__((format(printf, 1, 2))) void note_error(const char *format, ...);

/* ---- payload.c: what messages are made of, and whether one came back as it was ------------------------------------ */
extern size_t message_len;              /* bytes of a message on the wire */
void make_text(void);
void make_message(Connection *c);
void put_tag(const Connection *c, unsigned char *frames, uint32_t number);
void expect(Connection *c);
bool blocks(const Connection *c, uint32_t number);
void data_bytes(Connection *c, const unsigned char *p, size_t n);
void data_end(Connection *c);

/* ---- wire.c: sockets, handshakes, frames ------------------------------------------------------------------------- */
void start_connection(Connection *c, uint32_t id);
void send_request(Connection *c);
void readable(Connection *c, uint64_t now);
void pump(Connection *c);
void send_control(Connection *c, int opcode, const unsigned char *payload, size_t len);
void drop(Connection *c);

/* An error of one connection ends that connection; the others go on, so that the count says how many are affected. */
#define FAIL(c, ...) do { note_error(__VA_ARGS__); drop(c); return; } while (0)

/* ---- traffic.c: what is sent when, and the measured window -------------------------------------------------------- */
extern Phase phase;
extern uint64_t messages, broadcasts, window_start, window_end, connect_start, connect_end;
extern double window_cpu;
extern uint64_t pings;
void enter(Phase next, uint64_t now);
void start_more(void);
void opened_one(Connection *c, uint64_t now);
void message_done(Connection *c, uint64_t now);
void life_over(Connection *c, uint64_t now);
uint32_t publisher_id(void);
void timer_fired(void);
void tick(uint64_t now);
void say_goodbye(uint64_t now);

#endif
