/* What is sent when, what a message that came back means, and the measured window; one part for each mode. */
#include "load.h"
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

static const double CONNECT_LIMIT = 120, GRACE = 20, DRAIN_LIMIT = 10, CLOSE_LIMIT = 3;

Phase phase = OPENING;
uint64_t messages, broadcasts, window_start, window_end, connect_start, connect_end, pings;
double window_cpu;
static uint64_t phase_start, schedule_start, scheduled, published, missing;
static uint32_t lives;                  /* connect mode: begun so far */
static int timer_fd = -1;

void enter(Phase next, uint64_t now) {
    phase = next;
    phase_start = now;
}

uint32_t publisher_id(void) { return (uint32_t)option.connections; }

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

/* `count` messages have been completed now, `start` being when the oldest of them was sent. */
static void completed(uint64_t count, uint64_t start, bool timed, uint64_t now) {
    if (phase == WARMUP && since(phase_start, now) >= option.warmup) {
        open_window(now);
    } else if (phase == MEASURE) {
        messages += count;
        if (timed)
            record(now > start ? now - start : 0);
        if (since(window_start, now) >= option.seconds)
            close_window(now);
    }
}

/* ---- echo -------------------------------------------------------------------------------------------------------- */

static uint64_t sent_at(const Connection *c, uint32_t number) {
    if (!option.rate)
        return c->stamps[number % (uint32_t)option.depth];
    double index = (double)number * option.connections + c->id;
    return schedule_start + (uint64_t)(index * 1e9 / option.rate);
}

/* A message whose handler was told to block is no example of how long the others wait. */
static void echoed(Connection *c, uint64_t now) {
    c->in_window += phase == MEASURE;
    completed(1, sent_at(c, c->received), !blocks(c, c->received), now);
    c->received++;
    expect(c);
    if (!option.rate && (phase == WARMUP || phase == MEASURE)) {
        c->stamps[c->due % (uint32_t)option.depth] = now;
        c->due++;
    }
}

static void begin_echo(void) {
    for (int i = 0; i < total && !option.rate; i++) {
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

void timer_fired(void) {
    uint64_t expirations;
    if (timer_fd >= 0 && read(timer_fd, &expirations, sizeof expirations) < 0)
        return;                             /* the timer only has to wake us, but reading is what makes it go on */
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

/* ---- fan-out: one message on its way to all ----------------------------------------------------------------------- */

static void publish(uint64_t now) {
    Connection *c = connections + publisher_id();
    missing = (uint64_t)option.connections;
    published = now;
    c->due++;
    pump(c);
}

static void delivered(Connection *c, uint64_t now) {
    c->in_window += phase == MEASURE;
    c->received++;
    expect(c);
    if (--missing)
        return;
    broadcasts += phase == MEASURE;
    completed((uint64_t)option.connections, published, true, now);
    if (phase == WARMUP || phase == MEASURE)
        publish(now_ns());
}

/* ---- connect: open, one echo, close, again ------------------------------------------------------------------------ */

static void say_close(Connection *c) {
    static const unsigned char code[] = {1000 >> 8, 1000 & 255};
    send_control(c, 8, code, sizeof code);
}

void life_over(Connection *c, uint64_t now) {
    closed_cleanly++;
    completed(1, c->born, true, now);
    if (phase == WARMUP || phase == MEASURE)
        start_connection(c, lives++);
}

/* ---- what has come in --------------------------------------------------------------------------------------------- */

void opened_one(Connection *c, uint64_t now) {
    ready += c->greeted;
    if (option.mode != CONNECT)
        return;
    c->stamps[0] = now;
    c->due = 1;
}

/* Messages that this connection may have got by now. */
static uint32_t expected(const Connection *c) {
    if (option.mode != FANOUT)
        return c->due;
    return c->id == publisher_id() ? 0 : connections[publisher_id()].due;
}

void message_done(Connection *c, uint64_t now) {
    if (!c->greeted) {
        c->greeted = true;
        ready++;
        return;
    }
    if (c->received == expected(c))
        FAIL(c, "connection %u got an echo of nothing", c->id);
    if (option.mode == FANOUT) {
        delivered(c, now);
    } else if (option.mode == CONNECT) {
        c->received++;
        say_close(c);
    } else {
        echoed(c, now);
    }
}

/* ---- phases ------------------------------------------------------------------------------------------------------ */

static uint64_t unanswered(void) {
    uint64_t n = 0;
    for (int i = 0; i < total && option.mode != CONNECT; i++)
        n += expected(connections + i) - connections[i].received;
    return n;
}

void say_goodbye(uint64_t now) {
    if (unanswered())
        note_error("%llu messages were never echoed", (unsigned long long)unanswered());
    enter(CLOSING, now);
    for (int i = 0; i < total; i++)
        if (connections[i].state == OPEN)
            say_close(connections + i);
}

void start_more(void) {
    while (started < total && connecting < CONNECTING_AT_ONCE && !errors) {
        start_connection(connections + started, (uint32_t)started);
        started++;
    }
    lives = (uint32_t)started;
}

static void all_open(uint64_t now) {
    connect_end = schedule_start = now;
    enter(WARMUP, now);
    if (option.mode == ECHO)
        begin_echo();
    else if (option.mode == FANOUT)
        publish(now);
    else
        fputs("ready\n", stderr);
}

static void tick_opening(uint64_t now) {
    double age = since(phase_start, now);
    if (option.mode == CONNECT && started == total && !errors)
        enter(WARMUP, now);
    else if (option.mode != CONNECT && ready == total)
        all_open(now);
    else if (errors || age > CONNECT_LIMIT) {
        note_error("only %d of %d connections opened in %.0f s", ready, total, age);
        enter(DONE, now);
    }
}

static void tick_running(uint64_t now) {
    double limit = GRACE + option.seconds + (phase == WARMUP ? option.warmup : 0);
    if (option.rate)
        send_scheduled(now);
    if (option.mode == CONNECT && errors)
        enter(DONE, now);
    else if (option.mode == FANOUT && errors)   /* the broadcast that it had no part in never ends */
        say_goodbye(now);
    else if (option.mode == HOLD ? !alive : (option.mode != CONNECT && !alive) || since(phase_start, now) > limit) {
        note_error("no message came back for %.0f s", GRACE);
        say_goodbye(now);
    }
}

/* What time alone decides; completed messages move the phases in completed(). */
void tick(uint64_t now) {
    double age = since(phase_start, now);
    bool quiet = option.mode == CONNECT ? !alive && !connecting : !alive || !unanswered();
    if (phase == OPENING)
        tick_opening(now);
    else if (phase == WARMUP || phase == MEASURE)
        tick_running(now);
    else if (phase == DRAIN && (quiet || age > DRAIN_LIMIT))
        say_goodbye(now);
    else if (phase == CLOSING && (!alive || age > CLOSE_LIMIT))
        enter(DONE, now);
}

