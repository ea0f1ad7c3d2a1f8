/* load: a WebSocket load generator that checks what it measures.
 *
 *   load HOST PORT PATH --connections N --depth D --size S --seconds T --warmup W [--binary] [--fragments F] [--deflate]
 *   load HOST PORT PATH ... --rate R [--block]
 *   load HOST PORT PATH --fanout --connections N --size S ...
 *   load HOST PORT PATH --connect --connections C ...
 *   load HOST PORT PATH --hold --connections N [--first M]
 *
 * Echo: opens N connections, then keeps D messages of S bytes in flight on each (closed loop), or with --rate sends R
 * messages a second in all, evenly spread (open loop: latency then counts from the moment a message was due, so a slow
 * server cannot hide by slowing the schedule).  --block marks one message in a hundred with a "!" as its 17th character,
 * and a handler is expected to block; these have no part in the latencies.
 *
 * --fanout: N subscribers at PATH, each of which the server greets with "ready", and a publisher at /publish.  Its next
 * message leaves when the last subscriber has the one before; latency is from the one to the other.  --connect: C at a
 * time open a connection, have one message echoed, shake hands to close, wait for the end of the stream, and begin again.
 * --hold: opens N, says "ready" on standard error, and answers pings until its standard input ends; another process holds
 * M already, so that the ports of the first loopback address may be used up.
 *
 * Every message carries its connection and number, and every byte that comes back is compared: one that is lost, doubled,
 * reordered, swapped or damaged is an error.  Prints one line of JSON; exit status 0 only without errors.
 *
 * The measured window opens at the first completed message after the warm-up and closes at the first one T seconds
 * later, so the rate is exact even where a message takes a second.  "measuring" and "measured" are written to standard
 * error at these two moments, for a caller who reads the server's CPU clock.
 *
 * One thread, one epoll loop, zlib:  cc -O2 -o load load/[a-z]*.c -lz
 */
#include "load.h"
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 512 };

Options option = {.path = "/", .connections = 1, .depth = 1, .fragments = 1, .size = 32, .seconds = 3, .warmup = 1};
struct addrinfo *address;
int epoll_fd;
Connection *connections;
int total, started, connecting, opened, ready, alive, closed_cleanly;
static char input_marker;               /* stands for standard input in an event */

static void handle_input(void) {
    char some[256];
    if (read(STDIN_FILENO, some, sizeof some) > 0)
        return;
    epoll_ctl(epoll_fd, EPOLL_CTL_DEL, STDIN_FILENO, NULL);
    if (phase < DRAIN)
        say_goodbye(now_ns());
}

static void handle(const struct epoll_event *e) {
    if (e->data.ptr == &input_marker) {
        handle_input();
        return;
    }
    Connection *c = e->data.ptr;
    if (!c)
        timer_fired();
    if (!c || c->state == CLOSED)
        return;
    if (c->state == CONNECTING)
        send_request(c);
    else if (e->events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        readable(c, now_ns());
    if (e->events & EPOLLOUT && c->state == OPEN)
        pump(c);
}

static void run(void) {
    struct epoll_event events[EVENTS], e = {.events = EPOLLIN, .data.ptr = &input_marker};
    if (option.mode == HOLD)
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, STDIN_FILENO, &e);
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
    fputs("usage: load HOST PORT PATH [--connections N] [--depth D] [--size S] [--seconds T] [--warmup W] [--binary]\n"
          "            [--rate R] [--block] [--fragments F] [--deflate] [--fanout | --connect | --hold [--first N]]\n"
          "A fragment has 16 bytes at least, as have messages with --deflate, and those with --block one more.\n", stderr);
    exit(2);
}

static void check_options(void) {
    bool small = option.size / (size_t)option.fragments < TAG && (option.fragments > 1 || option.deflate);
    if (option.connections < 1 || option.depth < 1 || option.fragments < 1 || option.seconds <= 0 || option.rate < 0)
        usage();
    if (small || (option.block && (option.size < TAG_MAX || option.deflate || option.fragments > 1)))
        usage();
    if (option.deflate && (option.binary || option.fragments > 1))
        usage();
    if (option.mode != ECHO && (option.depth > 1 || option.rate > 0))
        usage();
    if (option.mode == CONNECT && option.connections > CONNECTING_AT_ONCE)
        usage();
}

static void read_options(int argc, char **argv) {
    static const struct option known[] = {
        {"connections", 1, 0, 'c'}, {"depth", 1, 0, 'd'}, {"size", 1, 0, 's'}, {"seconds", 1, 0, 't'},
        {"warmup", 1, 0, 'w'}, {"binary", 0, 0, 'b'}, {"rate", 1, 0, 'r'}, {"block", 0, 0, 'B'},
        {"fragments", 1, 0, 'f'}, {"deflate", 0, 0, 'z'}, {"fanout", 0, 0, 'F'}, {"connect", 0, 0, 'C'},
        {"hold", 0, 0, 'H'}, {"first", 1, 0, 'n'}, {0, 0, 0, 0}};
    for (int o; (o = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        switch (o) {
        case 'c': option.connections = atoi(optarg); break;
        case 'd': option.depth = atoi(optarg); break;
        case 's': option.size = strtoull(optarg, NULL, 10); break;
        case 't': option.seconds = atof(optarg); break;
        case 'w': option.warmup = atof(optarg); break;
        case 'b': option.binary = true; break;
        case 'r': option.rate = atof(optarg); break;
        case 'B': option.block = true; break;
        case 'f': option.fragments = atoi(optarg); break;
        case 'z': option.deflate = true; break;
        case 'F': option.mode = FANOUT; break;
        case 'C': option.mode = CONNECT; break;
        case 'H': option.mode = HOLD; break;
        case 'n': option.first = (uint32_t)strtoul(optarg, NULL, 10); break;
        default: usage();
        }
    }
    if (argc - optind != 3)
        usage();
    check_options();
    option.host = argv[optind];
    option.port = argv[optind + 1];
    option.path = argv[optind + 2];
}

static void print_string(const char *s) {
    putchar('"');
    for (; *s; s++)
        if ((unsigned char)*s >= ' ' && (unsigned char)*s < 127)
            printf(*s == '"' || *s == '\\' ? "\\%c" : "%c", *s);
    putchar('"');
}

static void print_result(void) {
    static const char *const modes[] = {"echo", "fanout", "connect", "hold"};
    double seconds = since(window_start, window_end);
    int silent = 0;
    for (int i = 0; i < option.connections && option.mode < CONNECT; i++)
        silent += !connections[i].in_window;
    printf("{\"mode\": \"%s\", \"connections\": %d, \"depth\": %d, \"size\": %zu, \"binary\": %s, \"deflate\": %s, ",
           modes[option.mode], option.connections, option.depth, option.size, option.binary ? "true" : "false",
           option.deflate ? "true" : "false");
    printf("\"rate\": %.10g, \"fragments\": %d, \"wire_bytes\": %zu, ", option.rate, option.fragments, message_len);
    printf("\"messages\": %llu, \"broadcasts\": %llu, \"timed\": %llu, \"seconds\": %.6f, \"msg_per_s\": %.3f, ",
           (unsigned long long)messages, (unsigned long long)broadcasts, (unsigned long long)recorded, seconds,
           seconds > 0 ? (double)messages / seconds : 0);
    printf("\"p50_us\": %.1f, \"p90_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f, \"max_us\": %.1f, ",
           percentile_us(.5), percentile_us(.9), percentile_us(.99), percentile_us(.999), (double)latency_max / 1e3);
    printf("\"cpu_s\": %.6f, \"connect_s\": %.6f, \"opened\": %d, \"silent\": %d, \"closed_cleanly\": %d, \"pings\": %llu, ",
           window_end ? window_cpu : 0, since(connect_start, connect_end), opened, silent, closed_cleanly,
           (unsigned long long)pings);
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
    total = option.connections + (option.mode == FANOUT);
    connections = calloc((size_t)total, sizeof *connections);
    if (!connections || epoll_fd < 0)
        abort();
    run();
    print_result();
    return errors ? 1 : 0;
}
