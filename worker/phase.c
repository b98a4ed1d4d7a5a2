/* phase.c - what a job is at, told to who watches it (a hint, by Redis) once it has lasted for a while.
 *
 * Most phases of a quick job are over before anybody could read them, and each costs Redis and the dispatcher as much
 * as a step that counts. So flights stand in line with their new phase, all for the same time: the head is due first,
 * and one timer is enough. Who moves on meanwhile goes to the end of the line, who is over leaves it. */
#include "worker/actions.h"

enum { PHASE_LASTS_MS = 1500 };

void phase_over(struct flight *f)
{
    struct flight_phases *all = &f->env->phases;

    if (!f->phase_due_ms)
        return;
    *(f->phase_prev ? &f->phase_prev->phase_next : &all->first) = f->phase_next;
    *(f->phase_next ? &f->phase_next->phase_prev : &all->last) = f->phase_prev;
    f->phase_prev = f->phase_next = NULL;
    f->phase_due_ms = 0;
}

static void phase_on_timer(uv_timer_t *t)
{
    struct flight_env *env = t->data;
    uint64_t now = uv_now(env->loop);
    struct flight *f;

    while ((f = env->phases.first) && f->phase_due_ms <= now) {
        phase_over(f);
        if (!job_is_over(&f->job)) /* it may be held yet */
            queue_progress(env->queue, f->job.id, f->phase, -1);
    }
    if (f)
        (void)uv_timer_start(t, phase_on_timer, f->phase_due_ms - now, 0);
}

void phase_open(struct flight_env *env)
{
    (void)uv_timer_init(env->loop, &env->phases.timer); /* always 0 */
    env->phases.timer.data = env;
}

void phase_set(struct flight *f, const char *phase)
{
    struct flight_phases *all = &f->env->phases;

    if (f->phase == phase)
        return;
    phase_over(f);
    f->phase = phase;
    f->phase_due_ms = uv_now(f->env->loop) + PHASE_LASTS_MS;
    f->phase_prev = all->last;
    *(all->last ? &all->last->phase_next : &all->first) = f;
    all->last = f;
    if (!uv_is_active((uv_handle_t *)&all->timer))
        (void)uv_timer_start(&all->timer, phase_on_timer, PHASE_LASTS_MS, 0);
}
