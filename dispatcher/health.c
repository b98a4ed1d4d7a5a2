/* health.c - liveness, readiness, metrics, contract.
 *
 * Whether storage takes writes is looked at every five seconds on a thread. Sums over the books cost PostgreSQL
 * something, so they are asked for by a scrape at most every ten seconds; captures are summed on from the last look. */
#include "dispatcher/health.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/clock.h"
#include "common/base/embedded.h"
#include "dispatcher/admin.h"
#include "dispatcher/dispatcher.h"
#include "dispatcher/problem.h"
#include "dispatcher/reply.h"
#include "dispatcher/watch.h"

enum { STORAGE_EVERY_MS = 5000, BOOKS_EVERY_MS = 10000, BOOKS_PATIENCE_MS = 2000 };

struct health {
    struct dispatcher *d;
    uv_timer_t timer;
    uv_work_t work;
    bool is_writable, result, is_working, is_closing;
    int64_t books_ms; /* when the sums were asked for last */
    int64_t captured_mc, captured_to;
    void (*on_closed)(void *ctx);
    void *closed_ctx;
};

static void health_on_handle_closed(uv_handle_t *handle)
{
    struct health *h = container_of((uv_timer_t *)handle, struct health, timer);

    if (h->on_closed != NULL)
        h->on_closed(h->closed_ctx);
    free(h);
}

static void storage_work(uv_work_t *work)
{
    struct health *h = container_of(work, struct health, work);

    h->result = store_is_writable(h->d->store);
}

static void storage_on_work(uv_work_t *work, int status)
{
    struct health *h = container_of(work, struct health, work);

    h->is_working = false;
    h->is_writable = status == 0 && h->result;
    if (h->is_closing)
        uv_close((uv_handle_t *)&h->timer, health_on_handle_closed);
}

static void health_on_timer(uv_timer_t *timer)
{
    struct health *h = container_of(timer, struct health, timer);

    if (!h->is_working)
        h->is_working = uv_queue_work(h->d->loop, &h->work, storage_work, storage_on_work) == 0;
}

struct health *health_new(struct dispatcher *d)
{
    struct health *h = calloc(1, sizeof(*h));

    if (h == NULL)
        return NULL;
    h->d = d;
    h->is_writable = store_is_writable(d->store); /* before the loop runs: nobody waits yet */
    uv_timer_init(d->loop, &h->timer);
    uv_timer_start(&h->timer, health_on_timer, STORAGE_EVERY_MS, STORAGE_EVERY_MS);
    return h;
}

void health_close(struct health *h, void (*on_closed)(void *ctx), void *ctx)
{
    h->on_closed = on_closed;
    h->closed_ctx = ctx;
    h->is_closing = true;
    uv_timer_stop(&h->timer);
    if (!h->is_working)
        uv_close((uv_handle_t *)&h->timer, health_on_handle_closed);
}

void health_on_db_call(void *ctx, const char *name, size_t rows, int64_t us)
{
    struct dispatcher *d = ctx;

    metric_observe(metrics_histogram(d->metrics, "kiln_db_seconds", "Round trips to PostgreSQL, by call.",
                                     metrics_seconds, metrics_seconds_count, "call", name, NULL),
                   (double)us / 1e6);
    metric_observe(metrics_histogram(d->metrics, "kiln_db_rows", "Rows a call carried: the batch sizes.", metrics_sizes,
                                     metrics_sizes_count, "call", name, NULL),
                   (double)rows);
}

void health_live(struct request *r)
{
    reply_json(r, 200, json_pack("{s:s}", "status", "ok"));
}

static bool postgres_is_up(const struct dispatcher *d)
{
    return db_is_up(d->write) && db_is_up(d->read);
}

void health_ready(struct request *r)
{
    const struct dispatcher *d = dispatcher_of(r);
    bool postgres = postgres_is_up(d), redis = queue_is_up(d->queue), storage = d->health->is_writable;
    bool ready = postgres && storage && !d->is_draining;
    const char *status = d->is_draining ? "draining" : !ready ? "unavailable" : redis ? "ok" : "degraded";

    if (!ready)
        reply_retry_after(r, 2);
    reply_json(r, ready ? 200 : 503,
               json_pack("{s:s, s:s, s:s, s:s, s:s}", "status", status, "postgres", postgres ? "ok" : "missing",
                         "redis", redis ? "ok" : "missing", "storage", storage ? "ok" : "missing", "load",
                         load_word(dispatcher_of(r))));
}

/* ---- metrics ---- */

static void gauge(struct dispatcher *d, const char *name, const char *help, double value)
{
    metric_set(metrics_gauge(d->metrics, name, help, NULL), value);
}

static void metrics_reply(struct request *r)
{
    struct dispatcher *d = dispatcher_of(r);
    struct buf out = { 0 };

    load_metrics(d);
    gauge(d, "kiln_http_in_flight", "Requests begun and not answered.", (double)httpd_in_flight(d->httpd));
    gauge(d, "kiln_http_connections", "Open connections.", (double)httpd_connections(d->httpd));
    gauge(d, "kiln_waiters", "Requests waiting for a job.", (double)watch_count(d->watch));
    gauge(d, "kiln_postgres_up", "1 while PostgreSQL answers.", postgres_is_up(d));
    gauge(d, "kiln_redis_up", "1 while Redis answers.", queue_is_up(d->queue));
    gauge(d, "kiln_storage_up", "1 while storage takes writes.", d->health->is_writable);
    gauge(
        d, "kiln_db_waiting", "Rows and queries not answered yet.",
        (double)(db_waiting(d->write) + db_waiting(d->read) + db_waiting(d->repair_db) + db_waiting(d->operators_db)));
    if (!metrics_print(d->metrics, &out)) {
        buf_done(&out);
        problem_backend(r, ERR_NOMEM);
        return;
    }
    request_reply(r, 200, "text/plain; version=0.0.4; charset=utf-8", &out);
}

enum { LANE_VALUES = 5 };

static void lane_set(struct dispatcher *d, const char *lane, const double values[LANE_VALUES])
{
    static const struct {
        const char *name, *help;
    } texts[LANE_VALUES] = {
        { "kiln_queue_ready", "Jobs ready to be claimed." },
        { "kiln_queue_delayed", "Jobs that wait for their time." },
        { "kiln_queue_claimed", "Jobs claimed by workers." },
        { "kiln_queue_oldest_seconds", "Age of the oldest ready job, less by up to ten seconds." },
        { "kiln_queue_paused_seconds", "How long the lane is still paused." },
    };

    for (size_t k = 0; k < LANE_VALUES; k++)
        metric_set(metrics_gauge(d->metrics, texts[k].name, texts[k].help, "lane", lane, NULL), values[k]);
}

static void metrics_on_queue(void *ctx, enum err err, const struct queue_lane_stats *lanes, size_t count)
{
    static const double nothing[LANE_VALUES];
    struct request *r = ctx;
    struct dispatcher *d = dispatcher_of(r);

    /* a lane that an emptied Redis does not name must not keep its old figures */
    for (size_t i = 0; err == ERR_OK && i < catalog_provider_count(d->catalog); i++)
        lane_set(d, catalog_provider_at(d->catalog, i)->name, nothing);
    for (size_t i = 0; err == ERR_OK && i < count; i++)
        lane_set(d, lanes[i].lane,
                 (const double[LANE_VALUES]){ (double)lanes[i].ready, (double)lanes[i].delayed,
                                              (double)lanes[i].claimed, (double)lanes[i].oldest_ms / 1000,
                                              (double)lanes[i].paused_ms / 1000 });
    metrics_reply(r);
}

static void metrics_queue(struct request *r)
{
    struct dispatcher *d = dispatcher_of(r);

    if (queue_is_up(d->queue))
        queue_stats(d->queue, metrics_on_queue, r);
    else
        metrics_reply(r);
}

static void metrics_on_books(void *ctx, enum err err, const struct db_result *result)
{
    struct request *r = ctx;
    struct dispatcher *d = dispatcher_of(r);
    struct health *h = d->health;

    if (err == ERR_OK && db_rows(result) == 1) {
        static const char *const workers[] = { "alive", "suspect", "dead" };

        gauge(d, "kiln_credits_held", "Credits held for open jobs.", (double)db_col_int(result, 0, "held") / 1000);
        gauge(d, "kiln_settle_lag_seconds", "How far the most overdue open job is past its deadline.",
              (double)db_col_int(result, 0, "lag_ms") / 1000);
        for (size_t i = 0; i < ARRAY_LEN(workers); i++)
            metric_set(metrics_gauge(d->metrics, "kiln_workers", "Workers by state, the dead of the last hour.",
                                     "state", workers[i], NULL),
                       (double)db_col_int(result, 0, workers[i]));
        if (db_col_int(result, 0, "upto") > h->captured_to) {
            h->captured_to = db_col_int(result, 0, "upto");
            h->captured_mc += db_col_int(result, 0, "captured");
        }
        gauge(d, "kiln_credits_captured", "Credits captured since the beginning.", (double)h->captured_mc / 1000);
    }
    exposure_count(r, metrics_queue);
}

/* Ledger ids are handed out before the commit: rows younger than ten seconds are left for the next look. */
static const char books_sql[] =
    "select (select coalesce(sum(held), 0)::bigint from accounts) as held, l.captured, l.upto, "
    "(select coalesce(greatest(0, extract(epoch from kiln_now() - min(deadline_at)) * 1000), 0)::bigint from jobs "
    " where finished_at is null) as lag_ms, w.* "
    "from (select coalesce(sum(amount) filter (where kind = 'capture'), 0)::bigint as captured, "
    "             coalesce(max(id), 0) as upto from ledger "
    "      where id > $1::bigint and created_at < kiln_now() - interval '10 seconds') l, "
    "     (select count(*) filter (where dead_at is null and suspect_at is null) as alive, "
    "             count(*) filter (where dead_at is null and suspect_at is not null) as suspect, "
    "             count(*) filter (where dead_at > kiln_now() - interval '1 hour') as dead from workers) w";

void health_metrics(struct request *r)
{
    struct dispatcher *d = dispatcher_of(r);
    struct health *h = d->health;
    char upto[24];
    const char *values[] = { upto };

    if (db_is_up(d->read) && (h->books_ms == 0 || clock_mono_ms() - h->books_ms >= BOOKS_EVERY_MS)) {
        h->books_ms = clock_mono_ms();
        snprintf(upto, sizeof(upto), "%lld", (long long)h->captured_to);
        if (db_query(d->read, books_sql, 1, values, BOOKS_PATIENCE_MS, metrics_on_books, r) == ERR_OK)
            return;
    }
    metrics_queue(r);
}

void health_openapi(struct request *r)
{
    struct buf out = { 0 };

    for (size_t i = 0; i < embedded_openapi_count; i++) {
        if (strcmp(embedded_openapi[i].name, "openapi.json") == 0 &&
            buf_add(&out, embedded_openapi[i].text, embedded_openapi[i].len)) {
            request_reply(r, 200, "application/json", &out);
            return;
        }
    }
    buf_done(&out);
    problem_backend(r, ERR_NOMEM);
}
