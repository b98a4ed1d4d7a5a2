/* clock.h - the one clock. Everything that asks for the time asks here, so that tests can set it.
 *
 * clock_mono_ms is for waits and ages within one process; clock_wall_ms is for what people and signatures see.
 * Deadlines of jobs are PostgreSQL's business (protocol.md, rule 4). */
#ifndef KILN_CLOCK_H
#define KILN_CLOCK_H
#include <stdint.h>

int64_t clock_mono_ms(void); /* milliseconds of a monotonic clock; never goes back */
int64_t clock_mono_us(void);
int64_t clock_wall_ms(void); /* milliseconds since 1970 UTC */

void clock_test_shift_ms(int64_t mono, int64_t wall); /* tests only: added to all later readings */
#endif
