/* room.c - the sums of a worker: who stands in line, how many jobs may be in the air, when one is polled next. No I/O.
 */
#include <assert.h>
#include "worker/actions.h"

enum { SETTLE_FINE_MS = 1000, SETTLE_STOP_MS = 5000, STORE_FINE_MS = 1000, STORE_STOP_MS = 5000 };

/* --- lines ------------------------------------------------------------------------------------------------------- */

void line_push(struct flight_line *line, struct flight *f)
{
    assert(!f->line);
    f->line = line;
    f->line_prev = line->last;
    f->line_next = NULL;
    if (line->last)
        line->last->line_next = f;
    else
        line->first = f;
    line->last = f;
}

void line_remove(struct flight *f)
{
    struct flight_line *line = f->line;

    if (!line)
        return;
    if (f->line_prev)
        f->line_prev->line_next = f->line_next;
    else
        line->first = f->line_next;
    if (f->line_next)
        f->line_next->line_prev = f->line_prev;
    else
        line->last = f->line_prev;
    f->line = NULL;
    f->line_prev = f->line_next = NULL;
}

struct flight *line_pop(struct flight_line *line)
{
    struct flight *f = line->first;

    if (f)
        line_remove(f);
    return f;
}

/* --- how many ---------------------------------------------------------------------------------------------------- */

/* KILN_CONCURRENCY is shared by calls (from claim to settled) and results (polls on the wire, and collecting). Each may
 * always have a quarter of it, so that neither starves the other; results claim theirs while jobs wait. A job that only
 * waits for its poll, or for its turn to be polled, counts as neither. */
size_t flight_env_quarter(const struct flight_env *env)
{
    return env->concurrency < 4 ? 1 : env->concurrency / 4;
}

size_t flight_env_results(const struct flight_env *env)
{
    return env->polls_active + env->in_state[JOB_COLLECTING];
}

static size_t flight_env_live(const struct flight_env *env)
{
    size_t n = 0;

    for (int s = 0; s < JOB_CLOSED; s++)
        n += env->in_state[s];
    return n;
}

size_t flight_env_calls(const struct flight_env *env)
{
    return flight_env_live(env) - env->in_state[JOB_WAITING] - env->in_state[JOB_POLLING] -
           env->in_state[JOB_COLLECTING] - env->in_state[JOB_RETURNING];
}

size_t flight_env_reserve(const struct flight_env *env)
{
    size_t waiting = env->in_state[JOB_WAITING] + env->in_state[JOB_POLLING], quarter = flight_env_quarter(env);
    size_t results = flight_env_results(env), wanted = waiting < quarter ? waiting : quarter;
    size_t reserve = results > wanted ? results : wanted, most = env->concurrency - quarter;

    return reserve < most ? reserve : most;
}

/* --- how much less ------------------------------------------------------------------------------------------------ */

const char *const pressure_name[PRESSURE_COUNT] = { "postgres", "storage", "memory" };

/* 0 up to `from`, 100 from `to` on. */
static unsigned share(int64_t value, int64_t from, int64_t to)
{
    if (value <= from)
        return 0;
    return value >= to ? 100 : (unsigned)((value - from) * 100 / (to - from));
}

/* The oldest that has no thread yet: one that has one may be a hostile file, and no sign of a slow disk. */
static int64_t store_wait_ms(struct flight_env *env, int64_t now_ms)
{
    struct flight *f;

    while ((f = env->for_store.first) && (!f->sortie || atomic_load(&f->sortie->has_begun)))
        line_remove(f);
    return f ? now_ms - f->sortie->work_queued_ms : 0;
}

unsigned flight_env_pressure(struct flight_env *env, enum pressure cause, int64_t now_ms)
{
    const struct flight *settling = env->for_settle.first;
    int64_t owed;

    switch (cause) {
    case PRESSURE_POSTGRES:
        owed = db_owed_ms(env->db); /* starts and checkpoints have a connection of their own */
        if (settling && now_ms - settling->settle_began_ms > owed)
            owed = now_ms - settling->settle_began_ms;
        return share(owed, SETTLE_FINE_MS, SETTLE_STOP_MS);
    case PRESSURE_STORAGE:
        return share(store_wait_ms(env, now_ms), STORE_FINE_MS, STORE_STOP_MS);
    case PRESSURE_MEMORY:
        return env->memory_limit ? share((int64_t)(env->held_bytes + env->received_bytes),
                                         (int64_t)env->memory_limit / 2, (int64_t)env->memory_limit)
                                 : 0;
    case PRESSURE_COUNT:
        break;
    }
    return 0;
}

/* --- when ------------------------------------------------------------------------------------------------------- */

/* When a job was polled last by who had it before, nobody knows: a whole interval is waited then. The last poll comes
 * at the end of the patience, or an interval from now if that is later: a hint may not put it off for ever. */
int64_t flight_poll_delay_ms(const struct operation *op, int64_t age_ms, int64_t retry_after_s, int64_t left_ms)
{
    int64_t every = op->poll_every_ms, delay, most;

    if (age_ms / 4 > every && op->poll_grow_to_ms > every)
        every = age_ms / 4 < op->poll_grow_to_ms ? age_ms / 4 : op->poll_grow_to_ms;
    delay = age_ms < op->poll_first_ms ? op->poll_first_ms - age_ms : every;
    most = left_ms > op->poll_every_ms ? left_ms : op->poll_every_ms;

    if (delay < retry_after_s * INT64_C(1000))
        delay = retry_after_s * INT64_C(1000);
    return delay > most ? most : delay;
}
