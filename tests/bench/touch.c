/* touch.c - bench_touch: what memory costs that this machine has not used for a while.
 *
 *   bench_touch MIB
 *
 * Touches MIB mebibytes, on huge pages where programs may ask for them (as a worker's heap does), gives them back to
 * the kernel and touches as many again. Under a hypervisor that takes free memory away within seconds the first time
 * may cost forty times the second, and what starts right afterwards finds warm memory. Prints first_us=… again_us=…,
 * microseconds for each MiB. */
#define _DEFAULT_SOURCE /* madvise */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include "common/base/clock.h"
#include "common/base/text.h"

enum { MIB = 1 << 20, MIB_MAX = 1 << 16, PAGE_BYTES = 4096 };

static double touch_us(volatile char *memory, size_t bytes)
{
    int64_t began_us = clock_mono_us();

    for (size_t i = 0; i < bytes; i += PAGE_BYTES)
        memory[i] = 1;
    return (double)(clock_mono_us() - began_us) / (double)(bytes / MIB);
}

int main(int argc, char **argv)
{
    int64_t mib = 0;
    size_t bytes;
    void *memory;
    double first_us, again_us;

    if (argc != 2 || parse_i64(argv[1], 1, MIB_MAX, &mib) != ERR_OK) {
        (void)fprintf(stderr, "usage: bench_touch MIB\n");
        return 2;
    }
    bytes = (size_t)mib * MIB;
    memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        (void)fprintf(stderr, "bench_touch: no %d MiB: %s\n", (int)mib, strerror(errno));
        return 2;
    }
    (void)madvise(memory, bytes, MADV_HUGEPAGE); /* refused: ordinary pages, which are touched as well */
    first_us = touch_us(memory, bytes);
    (void)madvise(memory, bytes, MADV_DONTNEED);
    again_us = touch_us(memory, bytes);
    (void)printf("first_us=%.1f again_us=%.1f\n", first_us, again_us);
    return 0;
}
