/* Clocks, latencies, and the first error. */
#include "load.h"
#include <stdarg.h>
#include <stdio.h>
#include <sys/resource.h>
#include <time.h>

uint64_t errors, recorded, latency_max;
char error_text[200];

uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

double since(uint64_t start, uint64_t now) { return now <= start ? 0 : (double)(now - start) / 1e9; }

double cpu_seconds(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* Log-linear histogram: exact below 128 ns, then 64 steps per power of two (error below 0.8 %). */
static uint64_t histogram[128 + 57 * 64];

void record(uint64_t ns) {
    recorded++;
    if (ns > latency_max)
        latency_max = ns;
    if (ns < 128) {
        histogram[ns]++;
        return;
    }
    int shift = 63 - __builtin_clzll(ns) - 6;
    histogram[128 + (size_t)(shift - 1) * 64 + (ns >> shift) - 64]++;
}

double percentile_us(double share) {
    uint64_t wanted = (uint64_t)(share * (double)recorded), seen = 0;
    if (wanted >= recorded)
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

void note_error(const char *format, ...) {
    if (errors++)
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(error_text, sizeof error_text, format, args);
    va_end(args);
}
