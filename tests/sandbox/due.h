/* due.h - thousands of things that happen later, on one libuv timer.
 *
 * A struct due is embedded in what it wakes. A uv_timer_t for each waiting request would need a close
 * callback each; a heap of ours needs nothing. One set belongs to one loop. */
#ifndef SANDBOX_DUE_H
#define SANDBOX_DUE_H
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

struct due {
    uint64_t at_ms;             /* the heap's */
    size_t slot;                /* place in the heap, 0 = not armed */
    void (*fire)(struct due *); /* may arm again or free what it lies in */
};

struct dues;
struct dues *dues_new(uv_loop_t *loop);
void dues_close(struct dues *d); /* frees itself when the loop has let go of the timer */
void dues_arm(struct dues *d, struct due *due, uint64_t delay_ms, void (*fire)(struct due *));
void dues_disarm(struct dues *d, struct due *due); /* not armed is fine */
#endif
