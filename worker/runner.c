/* runner.c - claims while there is room, beats each second, resyncs each ten, looks whether the storage takes bytes,
 * hands everything back when told to go. */
#define _XOPEN_SOURCE 700 /* tsearch */
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "common/base/clock.h"
#include "common/base/config.h"
#include "common/base/log.h"
#include "worker/actions.h"
#include "worker/runner.h"
#include "worker/stats.h"

enum {
    CLAIM_MAX = 256,
    CLAIM_SAFETY_MS = 2000, /* wake tokens may be lost */
    RESYNC_MS = 10000,
    STORAGE_MS = 1000, /* while it fails; else each fifth time */
    STORAGE_EVERY = 5,
    GAP_MS = 3000,
    ENDING_PARTS = 6,
    BEAT_ANSWER_MS = 2000 /* holder.h: a hung connection is replaced before others take me for dead */
};

struct runner {
    struct flight_env env; /* first: found again from it */
    struct runner_config config;
    struct worker_stats stats;
    char id[UUID_TEXT], info[256];
    struct db *db, *settle_db, *beat_db; /* what begins, what ends, and that I live: none waits for the other */
    struct beat *beat;
    struct flight *first;
    size_t count;
    void *by_id; /* tsearch tree over flights, by job id */
    uv_timer_t claim_timer, resync_timer, storage_timer, end_timer;
    uv_work_t storage_work;
    unsigned storage_ticks;
    int64_t drain_began_ms;
    size_t asked; /* by the claim under way */
    bool is_claiming, is_dirty, queue_up, was_db_up, is_resyncing, is_ending, drain_logged, is_closed;
    bool is_looking, is_writable; /* storage: a look is under way; what it saw */
    int to_close;
    struct metric *pressure[PRESSURE_COUNT], *pace, *bytes, *decoded, *decoder_deaths, *decoder_timeouts;
    struct decoder_stats seen; /* counted already */
    struct metric *in_state[JOB_STATE_COUNT], *parked, *up_postgres, *up_redis, *up_storage;
};

static struct runner *runner_of(struct flight_env *env)
{
    return container_of(env, struct runner, env);
}

/* --- who is in the air ------------------------------------------------------------------------------------------- */

static int flight_compare(const void *a, const void *b)
{
    return strcmp(((const struct flight *)a)->job.id, ((const struct flight *)b)->job.id);
}

static struct flight *runner_find(const struct runner *r, const char *job)
{
    struct flight probe = { 0 };
    void *const *node;

    if (!uuid_lower(probe.job.id, job))
        return NULL;
    node = tfind(&probe, &r->by_id, flight_compare);
    return node ? *(struct flight *const *)node : NULL;
}

static void runner_add(struct runner *r, struct flight *f)
{
    f->next = r->first;
    if (r->first)
        r->first->prev = f;
    r->first = f;
    (void)tsearch(f, &r->by_id, flight_compare);
    r->count++;
}

static void runner_end_if_empty(struct runner *r);

static void runner_on_over(struct flight_env *env, struct flight *f)
{
    struct runner *r = runner_of(env);

    (void)tdelete(f, &r->by_id, flight_compare);
    if (f->prev)
        f->prev->next = f->next;
    else
        r->first = f->next;
    if (f->next)
        f->next->prev = f->prev;
    f->prev = f->next = NULL;
    r->count--;
    runner_end_if_empty(r);
}

/* --- claims ------------------------------------------------------------------------------------------------------ */

static void runner_claim(struct runner *r);
static void runner_on_claim_timer(uv_timer_t *t);

static size_t runner_waiting(const struct runner *r)
{
    return r->env.in_state[JOB_WAITING];
}

static bool runner_db_is_up(const struct runner *r)
{
    return db_is_up(r->db) && db_is_up(r->settle_db);
}

/* Why nothing may be claimed, however little there is in the air; "": no reason. */
static const char *runner_stopped(const struct runner *r)
{
    if (r->env.is_draining)
        return "draining";
    if (r->is_closed || !runner_db_is_up(r) || !flight_beat_is_fresh(&r->env))
        return "postgres away";
    if (!r->queue_up)
        return "redis away";
    if (r->env.is_storage_failing)
        return "storage failing";
    return r->env.parked ? "outcomes parked" : "";
}

/* What of the concurrency may be used while PostgreSQL, storage or memory are short, in percent; and the tightest. */
static unsigned runner_pace(struct runner *r, enum pressure *tightest)
{
    int64_t now = clock_mono_ms();
    unsigned most = 0;

    r->env.received_bytes = r->is_closed ? 0 : httpc_body_bytes(r->env.httpc);
    for (int i = 0; i < PRESSURE_COUNT; i++) {
        unsigned pressure = flight_env_pressure(&r->env, (enum pressure)i, now);

        if (pressure > most) {
            most = pressure;
            *tightest = (enum pressure)i;
        }
    }
    return 100 - most;
}

static size_t runner_room(struct runner *r)
{
    enum pressure tightest = PRESSURE_COUNT;
    size_t taken = flight_env_calls(&r->env) + flight_env_reserve(&r->env);
    size_t most = (size_t)r->config.concurrency * runner_pace(r, &tightest) / 100;
    size_t most_waiting = (size_t)r->config.max_waiting, room;

    if (*runner_stopped(r))
        return 0;
    if (r->env.may_wait >= most_waiting || taken >= most)
        return 0;
    room = most - taken;
    if (room > most_waiting - r->env.may_wait) /* any of them may come to wait */
        room = most_waiting - r->env.may_wait;
    return room < CLAIM_MAX ? room : CLAIM_MAX;
}

static void runner_on_claimed(void *ctx, enum err err, const struct queue_claim *claims, size_t count, int64_t next_ms)
{
    struct runner *r = ctx;

    r->is_claiming = false;
    for (size_t i = 0; err == ERR_OK && i < count; i++) {
        struct flight *f;

        if (runner_find(r, claims[i].job))
            continue; /* protocol.md, step 3: already in my memory */
        f = flight_new(&r->env, &claims[i]);
        if (f)
            runner_add(r, f);
        else
            queue_put_back(r->env.queue, claims[i].job, NULL, 1000, true, NULL, NULL);
    }
    metric_add(r->stats.claims, (double)count);
    if (err == ERR_OK && (count == r->asked || r->is_dirty)) { /* less: next_ms or a wake */
        r->is_dirty = false;
        runner_claim(r);
    } else {
        int64_t wait = next_ms >= 0 && next_ms < CLAIM_SAFETY_MS ? next_ms : CLAIM_SAFETY_MS;

        (void)uv_timer_start(&r->claim_timer, runner_on_claim_timer, (uint64_t)(wait > 0 ? wait : 1), 0);
    }
}

static void runner_claim(struct runner *r)
{
    size_t room = runner_room(r);

    if (r->is_claiming) {
        r->is_dirty = true; /* a wake during a claim means one more claim, or it is lost */
        return;
    }
    if (!room || r->is_ending) {
        r->is_dirty = room == 0; /* on_change claims again when there is room */
        if (!r->is_ending)
            (void)uv_timer_start(&r->claim_timer, runner_on_claim_timer, CLAIM_SAFETY_MS, 0);
        return;
    }
    r->is_claiming = true;
    r->is_dirty = false;
    r->asked = room;
    queue_claim(r->env.queue, room, runner_on_claimed, r);
}

static void runner_on_claim_timer(uv_timer_t *t)
{
    runner_claim(container_of(t, struct runner, claim_timer));
}

static void runner_on_wake(void *ctx)
{
    runner_claim(ctx);
}

static void runner_on_change(struct flight_env *env)
{
    struct runner *r = runner_of(env);

    /* Claim again only once a good piece of room has come, so that claims stay batches. */
    if (r->is_dirty && !r->is_claiming && !env->is_draining) {
        int64_t most = r->config.concurrency < r->config.max_waiting ? r->config.concurrency : r->config.max_waiting;
        size_t room = runner_room(r), piece = (size_t)most / 16;

        if (room && room >= (piece < CLAIM_MAX / 4 ? piece : CLAIM_MAX / 4))
            runner_claim(r);
    }
}

static void runner_on_hint(void *ctx, const char *job)
{
    struct flight *f = runner_find(ctx, job);

    if (f)
        flight_canceled(f);
}

/* --- living ------------------------------------------------------------------------------------------------------ */

static void runner_on_beat(void *ctx, int64_t began_ms)
{
    struct runner *r = ctx;

    if (r->env.beat_began_ms && began_ms - r->env.beat_began_ms >= GAP_MS) {
        r->env.gap++;
        metric_add(r->stats.gaps, 1);
        log_warn("heartbeat_gap", log_int("ms", began_ms - r->env.beat_began_ms));
    }
    if (!r->env.beat_began_ms)
        log_info("alive", log_str("worker", r->id));
    r->env.beat_began_ms = began_ms;
    flight_beat(&r->env);
    if (r->is_dirty) /* there was no room while heartbeats were late */
        runner_claim(r);
}

static void runner_on_buried(void *ctx, enum err err, size_t count)
{
    (void)ctx;
    if (err == ERR_OK && count)
        log_info("buried", log_int("claims", (int64_t)count));
}

static void runner_on_dead(void *ctx, const char *const *workers, size_t count)
{
    struct runner *r = ctx;

    if (r->queue_up)
        queue_bury(r->env.queue, workers, count, runner_on_buried, r);
}

/* --- resync: Redis and PostgreSQL hear what I hold, and say what I do not --------------------------------------- */

struct stray { /* a job that PostgreSQL says is mine, and that I do not hold */
    struct runner *runner;
    char job[UUID_TEXT];
};

/* Repeated by the next resync if it failed. `open`: it may have been sent, and only its holder can ask kiln_start about
 * it while he lives. That is me, so it is taken up like any claim. */
static void stray_on_returned(void *ctx, enum err err, enum holder_verdict verdict)
{
    struct stray *s = ctx;
    struct runner *r = s->runner;

    if (err == ERR_OK && verdict == HOLDER_OPEN && !r->env.is_draining && !runner_find(r, s->job)) {
        struct flight *f = flight_new(&r->env, &(struct queue_claim){ .job = s->job });

        log_warn("taken_up", log_str("job", s->job));
        if (f)
            runner_add(r, f);
    }
    free(s);
}

/* What waits here, was mine before the question, and is not in the answer: taken over while this process was stopped,
 * or ended without a hint. Polling on would spend the budget for nothing. */
static void runner_drop_lost(struct runner *r)
{
    struct flight *next;

    for (struct flight *f = r->first; f; f = next) {
        flight_hold(f); /* stays in the list while we look at it */
        if (f->fence && f->taken_resync < r->env.resync && f->seen_resync < r->env.resync && flight_is_at_rest(f)) {
            log_warn("lost", log_str("job", f->job.id));
            flight_lost(f);
        }
        next = f->next;
        flight_release(f);
    }
}

static void runner_on_mine(void *ctx, enum err err, const char *job, int64_t fence)
{
    struct runner *r = ctx;
    struct flight *f;
    struct stray *s;

    if (!job) {
        r->is_resyncing = false;
        if (err == ERR_OK)
            runner_drop_lost(r);
        return;
    }
    if ((f = runner_find(r, job)))
        f->seen_resync = r->env.resync;
    if (err != ERR_OK || f)
        return;
    log_warn("not_held", log_str("job", job));
    s = calloc(1, sizeof(*s));
    if (!s)
        return;
    s->runner = r;
    (void)snprintf(s->job, sizeof(s->job), "%s", job);
    if (holder_handback(r->env.holder, job, fence, false, stray_on_returned, s) != ERR_OK)
        free(s);
}

static void runner_resync(struct runner *r)
{
    const char **jobs, **lanes;
    size_t n = 0;

    if (r->is_ending || !r->queue_up)
        return;
    jobs = malloc((r->count + 1) * sizeof(*jobs));
    lanes = malloc((r->count + 1) * sizeof(*lanes));
    if (jobs && lanes) {
        for (struct flight *f = r->first; f; f = f->next) {
            if (job_is_over(&f->job))
                continue;
            jobs[n] = f->job.id;
            lanes[n++] = f->lane;
        }
        queue_resync(r->env.queue, jobs, lanes, n, NULL, NULL);
    }
    free(jobs);
    free(lanes);
    if (!r->is_resyncing && !r->env.is_draining && runner_db_is_up(r) && r->env.beat_began_ms) {
        r->env.resync++;
        r->is_resyncing = holder_mine(r->env.holder, r->settle_db, runner_on_mine, r) == ERR_OK;
    }
}

static void runner_on_resync(uv_timer_t *t)
{
    runner_resync(container_of(t, struct runner, resync_timer));
}

static void runner_on_queue_state(void *ctx, bool is_up, const char *run_id)
{
    struct runner *r = ctx;

    log_info("redis", log_str("state", is_up ? "up" : "down"), log_str("run_id", run_id));
    r->queue_up = is_up;
    if (is_up) {
        runner_resync(r);
        runner_claim(r);
    }
}

static void runner_on_db_state(void *ctx, bool is_up)
{
    struct runner *r = ctx;

    (void)is_up; /* of one; both count */
    if (runner_db_is_up(r) == r->was_db_up)
        return;
    r->was_db_up = !r->was_db_up;
    log_info("postgres", log_str("state", r->was_db_up ? "up" : "down"));
    if (r->was_db_up) {
        runner_resync(r);
        runner_claim(r);
    }
}

/* --- storage: while it takes no bytes, nothing new is claimed ---------------------------------------------------- */

static void storage_on_thread(uv_work_t *w)
{
    struct runner *r = container_of(w, struct runner, storage_work);

    r->is_writable = store_is_writable(r->env.store);
}

static void storage_on_looked(uv_work_t *w, int status)
{
    struct runner *r = container_of(w, struct runner, storage_work);

    bool was_failing = r->env.is_storage_failing; /* a flight may have found it out first */

    (void)status; /* never canceled */
    r->is_looking = false;
    r->env.is_storage_failing = !r->is_writable;
    if (r->is_closed || was_failing == r->env.is_storage_failing)
        return;
    log_info("storage", log_str("state", r->env.is_storage_failing ? "failing" : "ok"));
    if (was_failing)
        runner_claim(r);
}

static void runner_on_storage(uv_timer_t *t)
{
    struct runner *r = container_of(t, struct runner, storage_timer);

    if (r->is_looking || (!r->env.is_storage_failing && r->storage_ticks++ % STORAGE_EVERY))
        return;
    r->is_looking = uv_queue_work(r->env.loop, &r->storage_work, storage_on_thread, storage_on_looked) == 0;
}

/* --- leaving ----------------------------------------------------------------------------------------------------- */

static void runner_on_closed_part(struct runner *r)
{
    if (--r->to_close == 0)
        r->config.on_ended(r->config.ctx, true);
}

static void runner_on_part(void *ctx)
{
    runner_on_closed_part(ctx);
}

static void runner_on_handle(uv_handle_t *h)
{
    runner_on_closed_part(h->data);
}

static void runner_close(void *ctx)
{
    struct runner *r = ctx;
    uv_handle_t *handles[] = { (uv_handle_t *)&r->claim_timer, (uv_handle_t *)&r->resync_timer,
                               (uv_handle_t *)&r->storage_timer, (uv_handle_t *)&r->end_timer,
                               (uv_handle_t *)&r->env.phases.timer };

    if (r->is_closed)
        return; /* beat_leave answered after the end timer */
    r->is_closed = true;
    if (r->count) { /* hurried: open calls are cut by the end of the process, the dead mark gives them back */
        r->config.on_ended(r->config.ctx, false);
        return;
    }
    r->to_close = ENDING_PARTS + (int)ARRAY_LEN(handles);
    for (size_t i = 0; i < ARRAY_LEN(handles); i++) {
        handles[i]->data = r;
        uv_close(handles[i], runner_on_handle);
    }
    beat_free(r->beat, runner_on_part, r);
    holder_free(r->env.holder);
    ledger_free(r->env.ledger);
    httpc_close(r->env.httpc, runner_on_part, r);
    queue_close(r->env.queue, runner_on_part, r);
    db_close(r->db, runner_on_part, r);
    db_close(r->settle_db, runner_on_part, r);
    db_close(r->beat_db, runner_on_part, r);
}

static void runner_on_end_timer(uv_timer_t *t)
{
    runner_close(container_of(t, struct runner, end_timer));
}

static void runner_end(struct runner *r)
{
    if (r->is_ending)
        return;
    r->is_ending = true;
    log_info("drained", log_int("ms", clock_mono_ms() - r->drain_began_ms), log_int("left", (int64_t)r->count));
    (void)uv_timer_stop(&r->claim_timer);
    (void)uv_timer_stop(&r->resync_timer);
    (void)uv_timer_start(&r->end_timer, runner_on_end_timer, 2000, 0); /* PostgreSQL may be away */
    beat_leave(r->beat, runner_close, r);
}

static void runner_end_if_empty(struct runner *r)
{
    if (!r->env.is_draining)
        return;
    if (!r->drain_logged && !runner_waiting(r) && !r->env.in_state[JOB_RETURNING]) {
        r->drain_logged = true;
        log_info("handed_back", log_int("ms", clock_mono_ms() - r->drain_began_ms),
                 log_int("open_calls", (int64_t)r->count));
    }
    if (!r->count)
        runner_end(r);
}

void runner_drain(struct runner *r)
{
    struct flight *next;
    size_t waiting = runner_waiting(r);

    if (r->env.is_draining) {
        log_warn("hurried", log_int("open", (int64_t)r->count));
        runner_end(r);
        return;
    }
    r->env.is_draining = true;
    r->drain_began_ms = clock_mono_ms();
    log_info("draining", log_int("waiting", (int64_t)waiting), log_int("open_calls", (int64_t)(r->count - waiting)));
    for (struct flight *f = r->first; f; f = next) {
        flight_hold(f); /* stays in the list while we look at it */
        flight_drain(f);
        next = f->next;
        flight_release(f);
    }
    runner_end_if_empty(r);
}

/* --- life -------------------------------------------------------------------------------------------------------- */

static void runner_metrics(struct runner *r, struct metrics *m)
{
    for (int s = 0; s < JOB_CLOSED; s++)
        r->in_state[s] = metrics_gauge(m, "kiln_worker_jobs", "Jobs in this worker's hands, by phase", "phase",
                                       job_state_name[s], NULL);
    for (int i = 0; i < PRESSURE_COUNT; i++)
        r->pressure[i] = metrics_gauge(m, "kiln_worker_pressure", "Why less is claimed: 0 no reason, 1 claims nothing",
                                       "cause", pressure_name[i], NULL);
    r->pace = metrics_gauge(m, "kiln_worker_pace", "Part of the concurrency that may be used now, 0 to 1", NULL);
    r->bytes = metrics_gauge(m, "kiln_worker_bytes", "Requests and answers in memory", NULL);
    r->decoded = metrics_counter(m, "kiln_worker_decodes_total", "Results looked at by decoders, by what came of it",
                                 "outcome", "checked", NULL);
    r->decoder_deaths = metrics_counter(m, "kiln_worker_decodes_total",
                                        "Results looked at by decoders, by what came of it", "outcome", "death", NULL);
    r->decoder_timeouts =
        metrics_counter(m, "kiln_worker_decodes_total", "Results looked at by decoders, by what came of it", "outcome",
                        "timeout", NULL);
    r->parked = metrics_gauge(m, "kiln_worker_parked", "Outcomes waiting for PostgreSQL", NULL);
    r->up_postgres = metrics_gauge(m, "kiln_up", "Whether a dependency answers", "service", "postgres", NULL);
    r->up_redis = metrics_gauge(m, "kiln_up", "Whether a dependency answers", "service", "redis", NULL);
    r->up_storage = metrics_gauge(m, "kiln_up", "Whether a dependency answers", "service", "storage", NULL);
}

static void runner_name(struct runner *r)
{
    char host[64] = "";

    uuid_random(r->id);
    (void)gethostname(host, sizeof(host) - 1);
    for (char *at = host; *at; at++)
        if (*at == '"' || *at == '\\' || (unsigned char)*at < ' ')
            *at = '_';
    (void)snprintf(r->info, sizeof(r->info), "{\"host\":\"%s\",\"pid\":%ld,\"version\":\"%s\"}", host, (long)getpid(),
                   KILN_VERSION);
}

/* Some 250 calls on a multi handle: to find a connection curl walks all of the host's, and over HTTP/2 it carries no
 * more than its few connections have streams. */
static size_t runner_multis(int64_t concurrency)
{
    int64_t wanted = concurrency / 250 + 1;

    return wanted < 8 ? 8 : wanted > 256 ? 256 : (size_t)wanted;
}

static void runner_timers(struct runner *r, uv_loop_t *loop)
{
    (void)uv_timer_init(loop, &r->claim_timer);
    (void)uv_timer_init(loop, &r->resync_timer);
    (void)uv_timer_init(loop, &r->storage_timer);
    (void)uv_timer_init(loop, &r->end_timer);
    (void)uv_timer_start(&r->claim_timer, runner_on_claim_timer, 100, 0);
    (void)uv_timer_start(&r->resync_timer, runner_on_resync, RESYNC_MS, RESYNC_MS);
    (void)uv_timer_start(&r->storage_timer, runner_on_storage, 0, STORAGE_MS);
}

/* answer_ms 0: db.h's. The beat's state is not asked: its answers are. */
static struct db *runner_db(struct runner *r, uv_loop_t *loop, const char *name, int answer_ms)
{
    return db_new(loop, &(struct db_config){ .url = r->config.database_url,
                                             .name = name,
                                             .answer_ms = answer_ms,
                                             .on_state = answer_ms ? NULL : runner_on_db_state,
                                             .ctx = r });
}

struct runner *runner_new(uv_loop_t *loop, const struct runner_config *config)
{
    struct runner *r = calloc(1, sizeof(*r));

    if (!r)
        return NULL;
    r->config = *config;
    runner_name(r);
    stats_init(&r->stats, config->metrics);
    runner_metrics(r, config->metrics);
    runner_timers(r, loop);
    r->db = runner_db(r, loop, "kiln-worker", 0);
    r->settle_db = runner_db(r, loop, "kiln-worker-settle", 0);
    r->beat_db = runner_db(r, loop, "kiln-worker-beat", BEAT_ANSWER_MS);
    r->env = (struct flight_env){
        .loop = loop,
        .catalog = config->catalog,
        .store = config->store,
        .decoder = config->decoder,
        .db = r->db,
        .settle_db = r->settle_db,
        .stats = &r->stats,
        .allow_private = config->allow_private,
        .concurrency = (size_t)config->concurrency,
        .memory_limit = (size_t)config->memory_limit,
        .on_change = runner_on_change,
        .on_over = runner_on_over,
        .holder = holder_new(r->db, r->id),
        .ledger = ledger_new(r->settle_db, r->id, 0),
        .httpc = httpc_new(loop, &(struct httpc_config){ .multis = runner_multis(config->concurrency),
                                                         .allow_private = config->allow_private,
                                                         .ca_file = config->ca_file,
                                                         .user_agent = "User-Agent: kiln/" KILN_VERSION }),
        .queue = queue_new(loop, &(struct queue_config){ .redis_url = config->redis_url,
                                                         .worker = r->id,
                                                         .on_state = runner_on_queue_state,
                                                         .on_wake = runner_on_wake,
                                                         .on_hint = runner_on_hint,
                                                         .ctx = r }),
    };
    phase_open(&r->env);
    r->beat = beat_new(&(struct beat_config){ .db = r->beat_db,
                                              .loop = loop,
                                              .worker = r->id,
                                              .info = r->info,
                                              .on_beat = runner_on_beat,
                                              .on_dead = runner_on_dead,
                                              .ctx = r });
    return r;
}

void runner_free(struct runner *r)
{
    if (!r)
        return;
    free(r);
}

struct runner_status runner_status(struct runner *r)
{
    static const char *const slow[] = { "postgres is slow", "storage is slow", "memory is short" };
    size_t waiting = runner_waiting(r);
    enum pressure tightest = PRESSURE_COUNT;
    unsigned pace = runner_pace(r, &tightest);
    const char *why = runner_stopped(r), *claims = *why || !pace ? "none" : "all";

    if (!*why && pace < 100) {
        claims = pace ? "less" : "none";
        why = slow[tightest];
    } else if (!*why && !runner_room(r)) {
        claims = "none";
        why = "full";
    }

    return (struct runner_status){
        .id = r->id,
        .postgres = !r->is_closed && runner_db_is_up(r),
        .redis = r->queue_up,
        .storage = !r->env.is_storage_failing,
        .is_draining = r->env.is_draining,
        .active = r->count - waiting,
        .waiting = waiting,
        .parked = r->env.parked,
        .claims = claims,
        .why = why,
    };
}

void runner_refresh_metrics(struct runner *r)
{
    enum pressure tightest = PRESSURE_COUNT;
    struct decoder_stats now = decoder_stats(r->env.decoder);

    for (int s = 0; s < JOB_CLOSED; s++)
        metric_set(r->in_state[s], (double)r->env.in_state[s]);
    for (int i = 0; i < PRESSURE_COUNT; i++)
        metric_set(r->pressure[i], flight_env_pressure(&r->env, (enum pressure)i, clock_mono_ms()) / 100.0);
    metric_set(r->bytes, (double)(r->env.held_bytes + (r->is_closed ? 0 : httpc_body_bytes(r->env.httpc))));
    metric_set(r->pace, *runner_stopped(r) ? 0 : runner_pace(r, &tightest) / 100.0);
    metric_add(r->decoded, (double)(now.checks - r->seen.checks));
    metric_add(r->decoder_deaths, (double)(now.deaths - r->seen.deaths));
    metric_add(r->decoder_timeouts, (double)(now.timeouts - r->seen.timeouts));
    r->seen = now;
    metric_set(r->parked, (double)r->env.parked);
    metric_set(r->up_postgres, !r->is_closed && runner_db_is_up(r));
    metric_set(r->up_redis, r->queue_up);
    metric_set(r->up_storage, !r->env.is_storage_failing);
}
