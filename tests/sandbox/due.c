/* due.c - binary heap of deadlines on one libuv timer (see due.h). */
#include "due.h"
#include "text.h"

#include <stdlib.h>

struct dues {
    uv_timer_t timer;
    struct due **heap; /* 1-based */
    size_t count, cap;
};

static void dues_set(struct dues *d, size_t slot, struct due *due)
{
    d->heap[slot] = due;
    due->slot = slot;
}

static void dues_up(struct dues *d, size_t slot, struct due *due)
{
    while (slot > 1 && d->heap[slot / 2]->at_ms > due->at_ms) {
        dues_set(d, slot, d->heap[slot / 2]);
        slot /= 2;
    }
    dues_set(d, slot, due);
}

static void dues_down(struct dues *d, size_t slot, struct due *due)
{
    for (;;) {
        size_t kid = slot * 2;
        if (kid > d->count)
            break;
        if (kid < d->count && d->heap[kid + 1]->at_ms < d->heap[kid]->at_ms)
            kid++;
        if (d->heap[kid]->at_ms >= due->at_ms)
            break;
        dues_set(d, slot, d->heap[kid]);
        slot = kid;
    }
    dues_set(d, slot, due);
}

static void dues_on_timer(uv_timer_t *t);

static void dues_schedule(struct dues *d)
{
    if (d->count == 0) {
        (void)uv_timer_stop(&d->timer); /* cannot fail */
        return;
    }
    uint64_t now = uv_now(d->timer.loop);
    uint64_t at = d->heap[1]->at_ms;
    (void)uv_timer_start(&d->timer, dues_on_timer, at > now ? at - now : 0, 0); /* fails only without a callback */
}

static void dues_on_timer(uv_timer_t *t)
{
    struct dues *d = container_of(t, struct dues, timer);
    uint64_t now = uv_now(t->loop);
    while (d->count > 0 && d->heap[1]->at_ms <= now) {
        struct due *due = d->heap[1];
        dues_disarm(d, due);
        due->fire(due);
    }
    dues_schedule(d);
}

struct dues *dues_new(uv_loop_t *loop)
{
    struct dues *d = text_alloc(sizeof *d);
    (void)uv_timer_init(loop, &d->timer); /* always 0 */
    return d;
}

static void dues_on_closed(uv_handle_t *h)
{
    struct dues *d = container_of(h, struct dues, timer);
    free(d->heap);
    free(d);
}

void dues_close(struct dues *d)
{
    if (d != NULL)
        uv_close((uv_handle_t *)&d->timer, dues_on_closed);
}

void dues_arm(struct dues *d, struct due *due, uint64_t delay_ms, void (*fire)(struct due *))
{
    dues_disarm(d, due);
    if (d->count + 2 > d->cap) {
        d->cap = d->cap == 0 ? 256 : d->cap * 2;
        d->heap = text_grow(d->heap, d->cap * sizeof(struct due *));
    }
    /* The loop's own time is as old as the callback it is in, and both clocks are cut to milliseconds: never early, or
     * what was to be ready by then is not. */
    uv_update_time(d->timer.loop);
    due->at_ms = uv_now(d->timer.loop) + delay_ms + (delay_ms > 0);
    due->fire = fire;
    dues_up(d, ++d->count, due);
    if (due->slot == 1)
        dues_schedule(d);
}

void dues_disarm(struct dues *d, struct due *due)
{
    size_t slot = due->slot;
    if (slot == 0)
        return;
    due->slot = 0;
    struct due *last = d->heap[d->count--];
    if (last == due)
        return;
    if (slot > 1 && d->heap[slot / 2]->at_ms > last->at_ms)
        dues_up(d, slot, last);
    else
        dues_down(d, slot, last);
}
