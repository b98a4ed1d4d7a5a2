/* clock.c - readings of the two system clocks, with a shift that only tests set. */
#include "common/base/clock.h"
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Atomic because the thread pool reads clocks too (file times, log lines). */
static _Atomic int64_t mono_shift_ms, wall_shift_ms;

static int64_t clock_read_us(clockid_t id)
{
    struct timespec ts = { 0 };
    (void)clock_gettime(id, &ts); /* cannot fail for these two clocks */
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

int64_t clock_mono_us(void)
{
    return clock_read_us(CLOCK_MONOTONIC) + atomic_load_explicit(&mono_shift_ms, memory_order_relaxed) * 1000;
}

int64_t clock_mono_ms(void)
{
    return clock_mono_us() / 1000;
}

#ifdef KILN_FAILPOINTS
enum { STEP_EVERY_MS = 200 };

/* KILN_FAILPOINTS="clock=FILE,…": the wall clock of a running process is wrong by as many milliseconds as FILE says. */
static void clock_step(void)
{
    static _Atomic int64_t looked_ms;
    const char *at = getenv("KILN_FAILPOINTS");
    int64_t now = clock_mono_ms();
    char path[256];
    long long shift;
    FILE *file;

    if (at == NULL || strncmp(at, "clock=", 6) != 0 || now - atomic_load(&looked_ms) < STEP_EVERY_MS)
        return;
    atomic_store(&looked_ms, now);
    (void)snprintf(path, sizeof(path), "%.*s", (int)strcspn(at + 6, ","), at + 6);
    file = fopen(path, "re");
    if (file != NULL && fscanf(file, "%lld", &shift) == 1)
        atomic_store(&wall_shift_ms, shift);
    if (file != NULL)
        (void)fclose(file);
}
#else
static void clock_step(void) {}
#endif

int64_t clock_wall_ms(void)
{
    clock_step();
    return clock_read_us(CLOCK_REALTIME) / 1000 + atomic_load_explicit(&wall_shift_ms, memory_order_relaxed);
}

void clock_test_shift_ms(int64_t mono, int64_t wall)
{
    atomic_store(&mono_shift_ms, mono);
    atomic_store(&wall_shift_ms, wall);
}
