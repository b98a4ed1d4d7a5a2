/* repair.c - reconciler, expire, lanes, bury, who waits for the cache: one tick each second.
 *
 * A pass pages through kiln_unpublished by id; while Redis takes one page, PostgreSQL reads the next:
 *   full   everything, as fast as pages go: when Redis lost data (its run id or the marker is not what PostgreSQL has)
 *   fresh  accepted 2 s ago or earlier, back to where the last fresh pass ended, so that it looks at each job once
 *          however many come; twenty seconds back each tenth time (commits come late), a whole minute when leading
 * begins and when Redis was away. From the id of one time to that of the other (UUIDv7), ids alone first: of what this
 * dispatcher itself published nothing is read. Its pages keep a distance, so that those who wait for an answer
 * meanwhile do not wait for all of them slow   everything, one page a tick, for ever A pass whose page could not be
 * published ends there and starts anew. Only a complete full pass writes the marker, and only over the one it began
 * with: so that an emptied Redis is seen also while it is being filled. */
#include "dispatcher/repair.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/core/holder.h"
#include "common/core/catalog_route.h"
#include "common/core/job.h"
#include "dispatcher/accept.h"
#include "dispatcher/cache.h"
#include "dispatcher/dispatcher.h"
#include "dispatcher/repair_inner.h"
#include "dispatcher/sweep.h"

enum {
    TICK_MS = 1000,
    LEASE_MS = 5000,
    PAGE = 500,
    AHEAD = 2, /* pages that Redis may have to answer */
    EXPIRE_EVERY_MS = 5000,
    EXPIRE_MAX = 500,
    FRESH_YOUNG_MS = 2000,  /* younger ones are still on their way */
    FRESH_OVERLAP_MS = 300, /* a commit comes later than its created_at; by more, and the slow pass finds it */
    FRESH_WHOLE_MS = 60000,
    FRESH_LATE_MS = 20000,
    FRESH_LATE_EVERY_MS = 10000,
    FRESH_APART_MS = 8, /* between two pages: 60,000 jobs a second are kept up with */
};
#define LEASE_NAME "reconciler"

static const char *const pass_name[] = { "full", "fresh", "slow" };

bool repair_can_publish(const struct repair *r)
{
    return r->is_redis_up && !r->is_closing && queue_is_up(r->d->queue);
}

/* ---- passes ---- */

static void pass_page(struct pass *p);

static void repair_on_noted(void *ctx, enum err err, const struct db_result *result)
{
    struct repair *r = ctx;

    (void)result;
    if (err == ERR_OK)
        log_info("redis_complete", log_str("run_id", r->run_id));
}

static void repair_on_marked(void *ctx, enum err err, size_t count)
{
    struct repair *r = ctx;
    const char *values[] = { LEASE_NAME, r->owner, r->run_id, r->new_marker };

    if (err != ERR_OK || count == 0 || r->is_closing)
        return; /* 0: emptied while the pass was under way; the next look passes again */
    (void)db_query(r->d->repair_db, "select kiln_lease_note($1, $2::uuid, $3, $4)", ARRAY_LEN(values), values,
                   REPAIR_PATIENCE_MS, repair_on_noted, r); /* lost: the next look sees a difference and passes again */
}

static void repair_on_begun(void *ctx, enum err err, size_t count)
{
    (void)ctx; /* not set: then the pass will not be noted as complete */
    (void)err;
    (void)count;
}

static void pass_end(struct pass *p, bool is_complete)
{
    struct repair *r = p->repair;

    p->is_active = false;
    p->after[0] = '\0';
    if (p->missing > 0)
        log_info("republished", log_str("pass", pass_name[p->kind]), log_int("rows", (int64_t)p->rows),
                 log_int("missing", (int64_t)p->missing));
    if (!is_complete)
        return;
    if (p->kind == PASS_FRESH)
        r->fresh_done_ms = p->began_ms;
    if (p->kind == PASS_FULL && repair_can_publish(r)) {
        uuid_random(r->new_marker);
        queue_set_marker(r->d->queue, r->pass_marker, r->new_marker, repair_on_marked, r);
    }
}

static void pass_on_apart(uv_timer_t *timer)
{
    struct pass *p = &container_of(timer, struct repair, apart)->passes[PASS_FRESH];

    if (p->is_active && p->has_more && !p->has_failed && !p->is_reading)
        pass_page(p);
}

static void pass_go_on(struct pass *p)
{
    bool may_read = p->has_more && !p->has_failed && !p->is_reading && p->publishing < AHEAD;

    if (may_read && p->is_calm)
        uv_timer_start(&p->repair->apart, pass_on_apart, FRESH_APART_MS, 0);
    else if (may_read && p->kind != PASS_SLOW)
        pass_page(p); /* the slow pass goes on at the next tick */
    else if (!p->publishing && !p->is_reading && (p->has_failed || !p->has_more))
        pass_end(p, !p->has_failed);
}

static void pass_on_published(void *ctx, enum err err, size_t count)
{
    struct pass *p = ctx;

    p->publishing--;
    p->has_failed = p->has_failed || err != ERR_OK || p->repair->is_closing;
    p->missing += count;
    metric_add(metrics_counter(p->repair->d->metrics, "kiln_republished_total",
                               "Jobs that Redis did not know, by the pass that found them.", "pass", pass_name[p->kind],
                               NULL),
               (double)count);
    pass_go_on(p);
}

static char *row_envelope(const struct dispatcher *d, const struct db_result *result, int i)
{
    const char *params = db_col(result, i, "params"), *inputs = db_col(result, i, "inputs");
    struct job_envelope e = { .id = db_col(result, i, "id"),
                              .app = db_col(result, i, "app"),
                              .account = db_col(result, i, "account"),
                              .operation = db_col(result, i, "operation"),
                              .provider = db_col(result, i, "provider"),
                              .units = db_col_int(result, i, "units") };
    char *text;

    if (strlen(params) + strlen(inputs) > JOB_ENVELOPE_MAX || catalog_route_find(d->catalog, e.operation) != NULL)
        return NULL; /* "read it in PostgreSQL": it is long, or has legs */
    text = job_envelope_text(&e, params, inputs[0] != '\0' ? inputs : NULL, NULL);
    if (text != NULL && strlen(text) > JOB_ENVELOPE_MAX) {
        free(text);
        text = NULL;
    }
    return text;
}

static void pass_on_rows(void *ctx, enum err err, const struct db_result *result)
{
    struct pass *p = ctx;
    struct queue_item items[PAGE];
    char *envelopes[PAGE];
    size_t n = 0;
    int rows = err == ERR_OK ? db_rows(result) : 0;
    int64_t now = clock_wall_ms();

    p->is_reading = false;
    if (p->kind != PASS_FRESH) { /* whose ids say it */
        p->has_more = rows == PAGE;
        if (rows > 0)
            snprintf(p->after, sizeof(p->after), "%s", db_col(result, rows - 1, "id"));
    }
    p->has_failed = p->has_failed || err != ERR_OK || !repair_can_publish(p->repair);
    if (p->has_failed || rows == 0) {
        pass_go_on(p);
        return;
    }
    for (int i = 0; i < rows; i++) {
        int64_t run_at = db_col_int(result, i, "run_at_ms");

        envelopes[n] = row_envelope(p->repair->d, result, i);
        items[n] = (struct queue_item){ .job = db_col(result, i, "id"),
                                        .lane = db_col(result, i, "provider"),
                                        .app = db_col(result, i, "app"),
                                        .account = db_col(result, i, "account"),
                                        .envelope = envelopes[n],
                                        .priority = db_col_int(result, i, "priority"),
                                        .created_ms = db_col_int(result, i, "created_at_ms"),
                                        .delay_ms = run_at > now ? run_at - now : 0,
                                        .account_cap = db_col_int(result, i, "max_running") };
        n++;
    }
    p->rows += (size_t)rows;
    p->publishing++;
    queue_publish(p->repair->d->queue, items, n, pass_on_published, p);
    for (size_t i = 0; i < n; i++)
        free(envelopes[i]);
    pass_go_on(p);
}

static void pass_ask(struct pass *p, const char *sql, size_t count, const char *const *values, db_query_fn *fn)
{
    p->is_reading = true;
    if (db_query(p->repair->d->repair_db, sql, count, values, REPAIR_PATIENCE_MS, fn, p) == ERR_OK)
        return;
    p->is_reading = false;
    p->has_failed = true;
    pass_go_on(p);
}

/* Of the fresh pass: what this process put into Redis a moment ago it need not ask for. */
static void pass_on_ids(void *ctx, enum err err, const struct db_result *result)
{
    struct pass *p = ctx;
    struct buf unknown = { .ceiling = (size_t)PAGE * UUID_TEXT + 8 };
    int rows = err == ERR_OK ? db_rows(result) : 0;

    p->is_reading = false;
    p->has_more = rows == PAGE;
    p->has_failed = p->has_failed || err != ERR_OK || !repair_can_publish(p->repair);
    for (int i = 0; i < rows && !p->has_failed; i++) {
        const char *id = db_col(result, i, "id");

        if (!accept_was_published(p->repair->d->accept, id))
            (void)buf_printf(&unknown, "%c%s", unknown.len == 0 ? '{' : ',', id);
    }
    if (rows > 0)
        snprintf(p->after, sizeof(p->after), "%s", db_col(result, rows - 1, "id"));
    if (unknown.len > 0 && !p->has_failed) {
        p->has_failed = !buf_add(&unknown, "}", 1);
        if (!p->has_failed)
            pass_ask(p, "select * from kiln_unpublished_of($1::uuid[])", 1, (const char *const[]){ unknown.data },
                     pass_on_rows);
    }
    buf_done(&unknown);
    if (!p->is_reading)
        pass_go_on(p);
}

static void pass_page(struct pass *p)
{
    char young[24], max[12];
    const char *after = p->after[0] != '\0' ? p->after : NULL;

    snprintf(young, sizeof(young), "%d", FRESH_YOUNG_MS);
    snprintf(max, sizeof(max), "%d", PAGE);
    if (p->kind == PASS_FRESH)
        pass_ask(p, "select id from kiln_open_ids($1::uuid, $2::uuid, $3::int)", 3,
                 (const char *const[]){ after, p->before, max }, pass_on_ids);
    else
        pass_ask(p,
                 "select * from kiln_unpublished(null, kiln_now() - make_interval(secs => $1::float8 / 1000), "
                 "$2::uuid, $3::int)",
                 3, (const char *const[]){ p->kind == PASS_FULL ? NULL : young, after, max }, pass_on_rows);
}

/* The least UUIDv7 of a time. */
static void id_of_time(char out[UUID_TEXT], int64_t wall_ms)
{
    unsigned long long ms = (unsigned long long)wall_ms;

    snprintf(out, UUID_TEXT, "%08llx-%04llx-7000-8000-000000000000", ms >> 16 & 0xffffffffu, ms & 0xffffu);
}

static void pass_start(struct repair *r, enum pass_kind kind, int64_t since_ms)
{
    struct pass *p = &r->passes[kind];

    if (p->is_active && !(kind == PASS_SLOW && p->has_more))
        return;
    if (!p->is_active) {
        *p = (struct pass){ .repair = r, .kind = kind, .is_active = true };
        p->began_ms = clock_mono_ms();
        if (since_ms > 0) {
            p->is_calm = since_ms < FRESH_WHOLE_MS;
            id_of_time(p->after, clock_wall_ms() - since_ms);
            id_of_time(p->before, clock_wall_ms() - FRESH_YOUNG_MS);
        }
    }
    p->has_more = false; /* until its page says so: a page under way is not asked for twice */
    pass_page(p);
}

/* What is to be published now; `is_lost`: Redis lost its data. */
static void repair_passes(struct repair *r, bool is_lost)
{
    int64_t now = clock_mono_ms(), since = now - r->fresh_done_ms + FRESH_YOUNG_MS + FRESH_OVERLAP_MS;

    if (!repair_can_publish(r))
        return;
    if (is_lost && !r->passes[PASS_FULL].is_active) {
        log_warn("redis_lost_data", log_str("run_id", r->run_id));
        r->limit_count = 0; /* lost with it; told before the jobs come, or the lanes would be stormed */
        repair_limits(r);
        uuid_random(r->pass_marker);
        queue_set_marker(r->d->queue, NULL, r->pass_marker, repair_on_begun, r);
    }
    if (is_lost)
        pass_start(r, PASS_FULL, 0);
    if (r->fresh_done_ms == 0 || since > FRESH_WHOLE_MS)
        since = FRESH_WHOLE_MS;
    if (now - r->fresh_late_ms >= FRESH_LATE_EVERY_MS) { /* for what committed long after its id was made */
        since = since > FRESH_LATE_MS ? since : FRESH_LATE_MS;
        r->fresh_late_ms = now;
    }
    pass_start(r, PASS_FRESH, since);
    if (!r->passes[PASS_FULL].is_active)
        pass_start(r, PASS_SLOW, 0);
}

/* ---- the lease, the marker ---- */

static void repair_on_marker(void *ctx, enum err err, const char *text)
{
    struct repair *r = ctx;

    r->is_asking = false;
    if (err != ERR_OK || !r->is_leader)
        return;
    repair_passes(r, text == NULL || strcmp(text, r->known_marker) != 0 || strcmp(r->run_id, r->known_run_id) != 0);
}

static void repair_on_lease(void *ctx, enum err err, const struct db_result *result)
{
    struct repair *r = ctx;
    bool was_leader = r->is_leader;

    r->is_asking = false;
    r->is_leader = err == ERR_OK && db_rows(result) == 1 && strcmp(db_col(result, 0, "owner"), r->owner) == 0;
    if (r->is_leader != was_leader)
        log_info("reconciler", log_int("leads", r->is_leader));
    if (r->is_leader && !was_leader)
        r->fresh_done_ms = 0;
    if (!r->is_leader || r->is_closing)
        return;
    snprintf(r->known_run_id, sizeof(r->known_run_id), "%s", db_col(result, 0, "redis_run_id"));
    snprintf(r->known_marker, sizeof(r->known_marker), "%s", db_col(result, 0, "redis_marker"));
    if (!repair_can_publish(r))
        return;
    r->is_asking = true;
    repair_limits(r);
    queue_marker(r->d->queue, repair_on_marker, r);
}

void repair_on_hint(void *ctx, enum err err, size_t count)
{
    (void)ctx;
    (void)err; /* a hint that was lost: the next tick, or the next look at the dead, tells again */
    (void)count;
}

/* ---- expire ---- */

static void repair_on_expired(void *ctx, enum err err, const char *job, const char *state, const char *holder,
                              size_t count)
{
    struct repair *r = ctx;

    if (job != NULL) {
        log_info("expired", log_str("job", job), log_str("state", state));
        metric_add(metrics_counter(r->d->metrics, "kiln_expired_total", "Jobs ended by their deadline.", NULL), 1);
        if (repair_can_publish(r)) {
            queue_cancel(r->d->queue, job, 0, holder != NULL && holder[0] != '\0' ? holder : NULL, repair_on_hint, r);
            queue_event(r->d->queue, job, 0, state);
        }
        return;
    }
    r->is_expiring = false;
    if (err == ERR_OK && count == EXPIRE_MAX)
        r->expire_ms = 0; /* more of them: at the next tick */
}

static void repair_expire(struct repair *r)
{
    int64_t now = clock_mono_ms();

    if (r->is_expiring || (r->expire_ms > 0 && now - r->expire_ms < EXPIRE_EVERY_MS))
        return;
    r->expire_ms = now;
    r->is_expiring = ledger_expire(r->ledger, EXPIRE_MAX, repair_on_expired, r) == ERR_OK;
}

/* ---- the tick ---- */

static void repair_on_timer(uv_timer_t *timer)
{
    struct repair *r = container_of(timer, struct repair, timer);
    static const char ttl[] = "5000"; /* LEASE_MS */
    const char *values[] = { LEASE_NAME, r->owner, ttl };

    if (!db_is_up(r->d->repair_db))
        return;
    if (r->limit_count == 0 && repair_can_publish(r))
        repair_limits(r); /* whoever leads: no lane is to be without its limits */
    if (!r->is_asking && db_query(r->d->repair_db,
                                  "with l as (select kiln_lease($1, $2::uuid, $3::int) as mine) "
                                  "select case when l.mine then $2::uuid end as owner, x.redis_run_id, x.redis_marker "
                                  "from l left join leases x on x.name = $1",
                                  ARRAY_LEN(values), values, LEASE_MS, repair_on_lease, r) == ERR_OK)
        r->is_asking = true;
    if (r->is_leader) {
        repair_expire(r);
        sweep_tick(r->sweep);
        if (r->cache != NULL)
            cache_tick(r->cache);
    }
}

static void repair_on_dead(void *ctx, const char *const *workers, size_t count)
{
    struct repair *r = ctx;

    metric_set(metrics_gauge(r->d->metrics, "kiln_workers_dead_lately", "Workers dead in the last ten minutes.", NULL),
               (double)count);
    if (repair_can_publish(r))
        queue_bury(r->d->queue, workers, count, repair_on_hint, r);
}

static void repair_on_policy(void *ctx, enum err err, const char *text)
{
    (void)ctx;
    if (err == ERR_OK && text != NULL && strcmp(text, "noeviction") != 0)
        log_error("redis_policy", log_str("maxmemory_policy", text), log_str("needed", "noeviction"));
}

void repair_redis(struct repair *r, bool is_up, const char *run_id)
{
    r->is_redis_up = is_up;
    if (is_up) {
        snprintf(r->run_id, sizeof(r->run_id), "%s", run_id != NULL ? run_id : "");
        r->limit_count = 0;
        r->fresh_done_ms = 0;
        repair_limits(r);
        queue_check_policy(r->d->queue, repair_on_policy, r);
    }
}

struct repair *repair_new(struct dispatcher *d)
{
    struct repair *r = calloc(1, sizeof(*r));

    if (r == NULL)
        return NULL;
    r->d = d;
    uuid_random(r->owner);
    r->ledger = ledger_new(d->repair_db, NULL, 0);
    r->sweep = sweep_new(d);
    r->cache = cache_new(d);
    r->beat = beat_new(&(struct beat_config){
        .db = d->repair_db, .loop = d->loop, .worker = NULL, .on_dead = repair_on_dead, .ctx = r });
    uv_timer_init(d->loop, &r->apart);
    uv_timer_init(d->loop, &r->timer);
    uv_timer_start(&r->timer, repair_on_timer, TICK_MS / 4, TICK_MS);
    return r;
}

static void repair_on_timer_closed(uv_handle_t *handle)
{
    struct repair *r = container_of((uv_timer_t *)handle, struct repair, timer);

    r->on_closed(r->closed_ctx);
}

static void repair_on_apart_closed(uv_handle_t *handle)
{
    struct repair *r = container_of((uv_timer_t *)handle, struct repair, apart);

    uv_close((uv_handle_t *)&r->timer, repair_on_timer_closed);
}

void repair_free(struct repair *r)
{
    free(r);
}

static void repair_on_swept(void *ctx)
{
    struct repair *r = ctx;

    uv_close((uv_handle_t *)&r->apart, repair_on_apart_closed);
}

static void repair_on_beat_closed(void *ctx)
{
    struct repair *r = ctx;

    sweep_close(r->sweep, repair_on_swept, r);
}

void repair_close(struct repair *r, void (*on_closed)(void *ctx), void *ctx)
{
    r->is_closing = true;
    r->on_closed = on_closed;
    r->closed_ctx = ctx;
    uv_timer_stop(&r->timer);
    uv_timer_stop(&r->apart);
    db_forget(r->d->repair_db, r);
    for (size_t i = 0; i < PASS_KINDS; i++)
        db_forget(r->d->repair_db, &r->passes[i]);
    ledger_free(r->ledger);
    cache_free(r->cache);
    r->cache = NULL;
    if (r->beat != NULL)
        beat_free(r->beat, repair_on_beat_closed, r);
    else
        repair_on_beat_closed(r);
}
