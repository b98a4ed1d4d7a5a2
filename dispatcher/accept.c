/* accept.c - POST /v1/jobs.
 *
 * One request is one struct in its arena that walks: order read -> (accept_one.c) -> kiln_accept (gathered
 * with all others, one round trip) -> committed: queued for publishing, answered. Published is by one script call at
 * the end of the loop's turn, or, where the last one was less than PUBLISH_PACE_MS ago, by then: one that comes alone
 * waits for nobody, and where many come, a call has several, which one worker claims, starts and, as their calls are,
 * ends together, however many workers there are. If a call is lost, the reconciler publishes. */
#include "dispatcher/accept.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/clock.h"
#include "common/base/failpoint.h"
#include "common/base/log.h"
#include "common/core/job.h"
#include "dispatcher/accept_one.h"
#include "dispatcher/cache.h"
#include "dispatcher/dispatcher.h"
#include "dispatcher/inputs.h"
#include "dispatcher/jobs.h"
#include "dispatcher/known.h"
#include "dispatcher/problem.h"
#include "dispatcher/reply.h"
#include "dispatcher/watch.h"

enum {
    PUBLISH_MAX = 500,
    PUBLISH_WORTH = 32, /* so many wait for no more */
    PUBLISH_PACE_MS = 20,
    RETRY_AFTER_S = 1,
    FULL_PLACES = 256,
    FULL_MS = 500, /* a full queue is believed to be full for this long, at the cost of no question */
    LATE_PATIENCE_MS = 3000,
};

const char accept_queue_full[] = "as many jobs of this app as may wait for this provider are waiting already";

struct publish { /* committed, to be published */
    char job[UUID_TEXT], app[UUID_TEXT], account[129];
    const char *lane; /* the catalogue's */
    char *envelope;
    int64_t priority, created_ms, delay_ms;
};

struct published { /* one script call under way */
    struct accept *accept;
    size_t count;
    char ids[][UUID_TEXT];
};

struct accept {
    struct dispatcher *d;
    uv_check_t check;
    uv_timer_t pace;
    uint64_t flushed_ms; /* the loop's time */
    int open;            /* handles, and script calls: what it waits for before it is closed */
    struct publish pending[PUBLISH_MAX];
    size_t count;
    struct full { /* PostgreSQL said lately that this app's queue for this lane is full */
        char app[UUID_TEXT];
        const struct catalog_provider *lane;
        int64_t until_ms;
    } full[FULL_PLACES];
    struct known *known; /* published lately */
    void (*on_closed)(void *ctx);
    void *closed_ctx;
};

/* ---- publishing ---- */

bool accept_was_published(const struct accept *a, const char *job)
{
    return known_has(a->known, job);
}

static void accept_on_ended(struct accept *a)
{
    if (--a->open == 0)
        a->on_closed(a->closed_ctx);
}

static void accept_on_published(void *ctx, enum err err, size_t count)
{
    struct published *p = ctx;
    struct accept *a = p->accept;

    (void)count;
    for (size_t i = 0; err == ERR_OK && i < p->count; i++)
        known_add(a->known, p->ids[i]);
    if (err != ERR_OK)
        metric_add(metrics_counter(a->d->metrics, "kiln_publish_failed_total",
                                   "Script calls that did not publish; the reconciler does.", NULL),
                   1);
    free(p);
    accept_on_ended(a);
}

static void accept_flush(struct accept *a)
{
    struct queue_item items[PUBLISH_MAX];
    struct published *call;

    if (a->count == 0)
        return;
    a->flushed_ms = uv_now(a->d->loop);
    uv_timer_stop(&a->pace);
    call = queue_is_up(a->d->queue) ? malloc(sizeof(*call) + a->count * UUID_TEXT) : NULL; /* NULL: the reconciler's */
    for (size_t i = 0; i < a->count; i++) {
        const struct publish *p = &a->pending[i];

        if (call != NULL)
            memcpy(call->ids[i], p->job, UUID_TEXT);
        items[i] = (struct queue_item){ .job = p->job,
                                        .lane = p->lane,
                                        .app = p->app,
                                        .account = p->account,
                                        .envelope = p->envelope,
                                        .priority = p->priority,
                                        .created_ms = p->created_ms,
                                        .delay_ms = p->delay_ms,
                                        .account_cap = -1, /* the reconciler knows it */
                                        .is_new = true };
    }
    if (call != NULL) {
        a->open++;
        call->accept = a;
        call->count = a->count;
        queue_publish(a->d->queue, items, a->count, accept_on_published, call);
    }
    for (size_t i = 0; i < a->count; i++)
        free(a->pending[i].envelope);
    a->count = 0;
}

static void accept_on_pace(uv_timer_t *pace)
{
    accept_flush(container_of(pace, struct accept, pace));
}

static void accept_on_check(uv_check_t *check)
{
    struct accept *a = container_of(check, struct accept, check);
    uint64_t since = uv_now(a->d->loop) - a->flushed_ms;

    if (since >= PUBLISH_PACE_MS || a->count >= PUBLISH_WORTH)
        accept_flush(a);
    else if (a->count > 0 && !uv_is_active((uv_handle_t *)&a->pace))
        uv_timer_start(&a->pace, accept_on_pace, PUBLISH_PACE_MS - since, 0);
}

void accept_publish_text(struct accept *a, const char *job, const char *app, const char *account, const char *provider,
                         char *envelope, int64_t priority, int64_t delay_ms, int64_t created_ms)
{
    const struct catalog_provider *lane = catalog_provider_find(a->d->catalog, provider);
    struct publish *p;

    if (lane == NULL) {
        free(envelope);
        return; /* the reconciler's */
    }
    if (a->count == PUBLISH_MAX)
        accept_flush(a);
    p = &a->pending[a->count++];
    *p = (struct publish){
        .lane = lane->name, .envelope = envelope, .priority = priority, .created_ms = created_ms, .delay_ms = delay_ms
    };
    snprintf(p->job, sizeof(p->job), "%s", job);
    snprintf(p->app, sizeof(p->app), "%s", app);
    snprintf(p->account, sizeof(p->account), "%s", account);
}

void accept_take_back(struct accept *a, const char *job)
{
    for (size_t i = 0; i < a->count; i++) {
        if (strcmp(a->pending[i].job, job) != 0)
            continue;
        free(a->pending[i].envelope);
        a->count--;
        memmove(&a->pending[i], &a->pending[i + 1], (a->count - i) * sizeof(a->pending[i]));
        return;
    }
}

size_t accept_publish_room(const struct accept *a)
{
    return PUBLISH_MAX - a->count;
}

static void publish(struct accept *a, const struct job_envelope *e, char *envelope, int64_t priority, int64_t delay_ms,
                    const char *created_at)
{
    int64_t created_ms;

    if (rfc3339_parse(created_at, &created_ms) != ERR_OK)
        created_ms = clock_wall_ms();
    accept_publish_text(a, e->id, e->app, e->account, e->provider, envelope, priority, delay_ms, created_ms);
}

void accept_publish(struct accept *a, const struct job_envelope *e, int64_t priority, const char *created_at)
{
    publish(a, e, accept_envelope(e, NULL, NULL), priority, 0, created_at);
}

static void one_publish(const struct accept_one *one, const char *created_at)
{
    struct job_envelope e = accept_one_envelope(one);

    publish(dispatcher_of(one->request)->accept, &e, accept_envelope(&e, one->params, one->inputs_text),
            one->order.priority, one->order.delay_ms, created_at);
}

struct accept *accept_new(struct dispatcher *d)
{
    struct accept *a = calloc(1, sizeof(*a));

    if (a == NULL)
        return NULL;
    a->d = d;
    a->known = known_new();
    if (a->known == NULL) {
        free(a);
        return NULL;
    }
    uv_check_init(d->loop, &a->check);
    uv_check_start(&a->check, accept_on_check);
    uv_timer_init(d->loop, &a->pace);
    a->check.data = a->pace.data = a;
    a->open = 2;
    return a;
}

static void accept_on_handle_closed(uv_handle_t *handle)
{
    accept_on_ended(handle->data);
}

void accept_free(struct accept *a)
{
    if (a == NULL)
        return;
    known_free(a->known);
    free(a);
}

void accept_close(struct accept *a, void (*on_closed)(void *ctx), void *ctx)
{
    accept_flush(a);
    a->on_closed = on_closed;
    a->closed_ctx = ctx;
    uv_close((uv_handle_t *)&a->pace, accept_on_handle_closed);
    uv_close((uv_handle_t *)&a->check, accept_on_handle_closed);
}

/* ---- answers ---- */

static void one_done(struct request *r)
{
    accept_one_done(r->data);
}

static void reply_head(struct accept_one *one, const char *id, int status, bool is_replay)
{
    struct request *r = one->request;
    char applied[32];

    request_add_header(r, "Location", arena_printf(r->arena, "/v1/jobs/%s", id));
    if (status == 202)
        reply_retry_after(r, RETRY_AFTER_S);
    if (is_replay)
        request_add_header(r, "Idempotent-Replayed", "true");
    if (one->wait_s > 0) {
        snprintf(applied, sizeof(applied), "wait=%lld", (long long)one->wait_s);
        request_add_header(r, "Preference-Applied", applied);
    }
}

static void reply_job(struct accept_one *one, const json_t *doc, bool is_replay)
{
    const char *state = json_text(doc, "state");
    bool is_final = state != NULL && job_state_is_final(state);
    int status = (one->wait_s > 0 || one->is_hit) && is_final ? 200 : 202;

    reply_head(one, json_text(doc, "id"), status, is_replay);
    jobs_reply(one->request, status, doc);
}

static void one_on_doc(struct accept_one *one, enum err err, json_t *doc, bool is_replay)
{
    if (err != ERR_OK || doc == NULL)
        problem_backend(one->request, err != ERR_OK ? ERR_LOST : ERR_UNAVAILABLE);
    else
        reply_job(one, doc, is_replay);
}

static void accepted_on_doc(void *ctx, enum err err, json_t *doc)
{
    one_on_doc(ctx, err, doc, false);
}

static void replayed_on_doc(void *ctx, enum err err, json_t *doc)
{
    one_on_doc(ctx, err, doc, true);
}

/* A fresh job as a read would show it, without asking for it. */
static void reply_fresh(struct accept_one *one, const char *created_at)
{
    const struct accept_order *o = &one->order;
    const struct job_fresh job = { .id = one->id,
                                   .operation = o->op->name,
                                   .provider = one->provider,
                                   .account = o->account,
                                   .created_at = created_at,
                                   .params = o->checked,
                                   .metadata = o->metadata,
                                   .notes = o->notes,
                                   .hold_mc = one->price.units * one->price.unit_mc };
    struct buf text = { 0 };
    bool ok = job_fresh_text(&job, &text);

    reply_head(one, one->id, 202, false);
    jobs_reply_text(one->request, 202, 1, ok ? &text : NULL);
    buf_done(&text);
}

static void one_accepted(struct accept_one *one, const struct ledger_accepted *got)
{
    struct request *r = one->request;
    struct dispatcher *d = dispatcher_of(r);

    metric_add(metrics_counter(d->metrics, "kiln_accepts_total", "Jobs accepted.", "provider", one->provider, NULL), 1);
    if (got->verdict == LEDGER_ACCEPTED)
        one_publish(one, got->created_at);
    if (one->order.is_cached)
        cache_count(d, got->verdict == LEDGER_WAITING ? "wait" : "lead", 1);
    if (one->wait_s > 0 && !d->is_draining &&
        watch_wait(d->watch, r, one->id, 0, one->wait_s * 1000, false, accepted_on_doc, one) == ERR_OK)
        return;
    reply_fresh(one, got->created_at);
}

/* Answered from the cache: it has ended, so PostgreSQL tells what there is. */
static void one_hit(struct accept_one *one)
{
    struct dispatcher *d = dispatcher_of(one->request);

    one->is_hit = true;
    metric_add(metrics_counter(d->metrics, "kiln_accepts_total", "Jobs accepted.", "provider", one->provider, NULL), 1);
    cache_count(d, "hit", 1);
    if (jobs_read(d->jobs, one->id, one->request->app, accepted_on_doc, one) != ERR_OK)
        problem_backend(one->request, ERR_LOST);
}

static void one_replayed(struct accept_one *one, const char *job)
{
    struct request *r = one->request;
    struct dispatcher *d = dispatcher_of(r);
    enum err e;

    metric_add(metrics_counter(d->metrics, "kiln_replays_total", "Requests answered with an earlier job.", NULL), 1);
    if (one->wait_s > 0 && !d->is_draining)
        e = watch_wait(d->watch, r, job, 0, one->wait_s * 1000, true, replayed_on_doc, one);
    else
        e = jobs_read(d->jobs, job, r->app, replayed_on_doc, one);
    if (e != ERR_OK)
        problem_backend(r, ERR_LOST);
}

/* ---- full queues ---- */

static struct full *full_place(struct accept *a, const struct accept_one *one)
{
    size_t h = (size_t)(uintptr_t)one->order.op->provider >> 4;

    for (const char *p = one->request->app; *p != '\0'; p++)
        h = h * 33 + (unsigned char)*p;
    return &a->full[h % FULL_PLACES]; /* a clash replaces: one question more */
}

static void full_note(struct accept *a, const struct accept_one *one)
{
    struct full *f = full_place(a, one);

    memcpy(f->app, one->request->app, UUID_TEXT);
    f->lane = one->order.op->provider;
    f->until_ms = clock_mono_ms() + FULL_MS;
}

static bool full_is_known(struct accept *a, const struct accept_one *one)
{
    const struct full *f = full_place(a, one);

    return f->lane == one->order.op->provider && f->until_ms > clock_mono_ms() &&
           strcmp(f->app, one->request->app) == 0;
}

void accept_refuse_mismatch(struct request *r)
{
    problem_field(r, ERR_IDEMPOTENCY_MISMATCH, "Idempotency-Key", "was used with another body in the last 24 hours");
}

/* ---- a run_at that is past: refused, unless the job was taken while it was ahead ---- */

static void late_on_key(void *ctx, enum err err, const struct db_result *result)
{
    struct accept_one *one = ctx;

    if (err != ERR_OK)
        problem_backend(one->request, err);
    else if (db_rows(result) == 0)
        problem_field(one->request, ERR_INVALID_REQUEST, "run_at", accept_late);
    else if (strcmp(db_col(result, 0, "body_hash"), one->hash) != 0)
        accept_refuse_mismatch(one->request);
    else
        one_replayed(one, db_col(result, 0, "job_id"));
}

static void one_late(struct accept_one *one)
{
    const char *values[] = { one->request->app, one->key };
    enum err e = db_query(dispatcher_of(one->request)->read,
                          "select job_id, body_hash from idempotency where app_id = $1::uuid and key = $2 "
                          "and expires_at > kiln_now()",
                          ARRAY_LEN(values), values, LATE_PATIENCE_MS, late_on_key, one);

    if (e != ERR_OK)
        problem_backend(one->request, e);
}

/* ---- money ---- */

void accept_refuse_insufficient(struct request *r, int64_t needed_mc, int64_t available_mc)
{
    json_t *extra = json_object();

    (void)json_object_set_new(extra, "credits_needed", json_credits(needed_mc));
    (void)json_object_set_new(extra, "credits_available", json_credits(available_mc));
    problem_extra(r, ERR_INSUFFICIENT_CREDITS, NULL, extra);
}

static enum err one_ask(struct accept_one *one);

static void one_on_verdict(void *ctx, enum err err, const struct ledger_accepted *got)
{
    struct accept_one *one = ctx;
    struct request *r = one->request;

    if (err == ERR_LOST && !one->is_asked_again && db_is_up(dispatcher_of(r)->write)) {
        one->is_asked_again = true; /* the same ids: what was committed is found */
        err = one_ask(one);
        if (err == ERR_OK)
            return;
        err = ERR_LOST;
    }
    if (err != ERR_OK) {
        if (err == ERR_REFUSED) {
            inputs_undo(one->set);
            log_error("accept_refused", log_str("job", one->id), log_str("operation", one->order.op->name));
            problem_reply(r, ERR_INVALID_REQUEST, "the database refused this job's values");
            return;
        }
        if (err != ERR_LOST)
            inputs_undo(one->set); /* lost: perhaps it was accepted and needs them */
        problem_backend(r, err);
        return;
    }
    if (got->verdict != LEDGER_ACCEPTED && got->verdict != LEDGER_CACHED && got->verdict != LEDGER_WAITING)
        inputs_undo(one->set);
    switch (got->verdict) {
    case LEDGER_ACCEPTED:
    case LEDGER_WAITING:
    case LEDGER_CACHED:
        if (FAILPOINT("accept.after_commit") != 0)
            problem_backend(r, ERR_LOST);
        else if (got->verdict == LEDGER_CACHED)
            one_hit(one);
        else
            one_accepted(one, got);
        return;
    case LEDGER_REPLAYED:
        one_replayed(one, got->job);
        return;
    case LEDGER_MISMATCH:
        accept_refuse_mismatch(r);
        return;
    case LEDGER_QUEUE_FULL:
        full_note(dispatcher_of(r)->accept, one);
        problem_reply(r, ERR_QUEUE_FULL, accept_queue_full);
        return;
    case LEDGER_INSUFFICIENT:
        accept_refuse_insufficient(r, got->needed_mc, got->available_mc);
        return;
    }
}

static enum err one_ask(struct accept_one *one)
{
    const struct accept_order *o = &one->order;
    struct dispatcher *d = dispatcher_of(one->request);
    struct ledger_accept row = { .job = one->id,
                                 .app = one->request->app,
                                 .account = o->account,
                                 .key = one->key,
                                 .hash = one->key != NULL ? one->hash : NULL,
                                 .operation = o->op->name,
                                 .provider = one->provider,
                                 .params = one->params,
                                 .inputs = one->inputs_text,
                                 .metadata = one->metadata,
                                 .extras = one->extras,
                                 .cache_key = o->is_cached ? one->cache_key : NULL,
                                 .units = one->price.units,
                                 .unit_mc = one->price.unit_mc,
                                 .price_version = one->price.version,
                                 .priority = o->priority,
                                 .deadline_s = one->deadline_s,
                                 .run_at = o->run_at,
                                 .on_unknown = one->on_unknown == UNKNOWN_RETRY ? "retry" : "fail" };

    return ledger_accept(d->ledger, &row, one_on_verdict, one);
}

/* What the job carries beyond its columns, as text; NULL: nothing (or no memory, then *failed). */
static char *extras_of(const struct accept_one *one, bool *failed)
{
    json_t *extras = accept_one_extras(one);
    char *text;

    if (extras == NULL && one->order.is_cached)
        extras = json_object();
    if (one->order.is_cached)
        (void)json_object_set_new(extras, "cache",
                                  json_pack("{s:I, s:I}", "ttl_s", (json_int_t)one->order.cache_ttl_s, "unit_mc",
                                            (json_int_t)one->price.cache_mc));
    text = extras != NULL ? json_print(extras) : NULL;
    *failed = extras != NULL && text == NULL;
    json_decref(extras);
    return text;
}

static void one_write(void *ctx)
{
    struct accept_one *one = ctx;
    struct request *r = one->request;
    bool is_short;
    enum err err;

    one->params = json_print(one->order.checked);
    one->inputs_text = one->inputs != NULL ? json_print(one->inputs) : NULL;
    one->metadata = one->order.metadata != NULL ? json_print(one->order.metadata) : NULL;
    one->extras = extras_of(one, &is_short);
    err =
        one->params == NULL || is_short || (one->inputs != NULL && one->inputs_text == NULL) ? ERR_NOMEM : one_ask(one);
    if (err != ERR_OK) {
        inputs_undo(one->set);
        if (err == ERR_ARGUMENT)
            problem_field(r, ERR_INVALID_REQUEST, "params", "holds a character that cannot be stored");
        else
            problem_backend(r, ERR_UNAVAILABLE);
    }
}

/* Priced: what is left is to ask. */
static void one_on_ready(struct accept_one *one)
{
    struct request *r = one->request;
    struct catalog_faults faults = { 0 };

    if (!one->order.is_cached) {
        one_write(one);
    } else if (cache_key(one->cache_key, &one->order, r->app, one->inputs, &faults)) {
        cache_look(r, r->app, one->cache_key, one_write, one);
    } else {
        inputs_undo(one->set);
        problem_faults(r, ERR_INVALID_REQUEST, &faults);
    }
}

static void one_on_refused(struct accept_one *one, enum err code, const struct catalog_faults *faults,
                           const char *detail)
{
    if (faults != NULL)
        problem_faults(one->request, code, faults);
    else if (detail != NULL)
        problem_reply(one->request, code, detail);
    else
        problem_backend(one->request, code);
}

/* ---- the request ---- */

bool accept_key(struct request *r, const char **key)
{
    *key = request_header(r, "Idempotency-Key");
    if (*key == NULL)
        return true;
    if ((*key)[0] == '\0' || strlen(*key) > 255) {
        problem_field(r, ERR_INVALID_REQUEST, "Idempotency-Key", "must have 1 to 255 characters");
        return false;
    }
    for (const char *p = *key; *p != '\0'; p++) {
        if (*p < ' ' || *p > '~') {
            problem_field(r, ERR_INVALID_REQUEST, "Idempotency-Key", "must be printable ASCII");
            return false;
        }
    }
    return true;
}

static bool one_key(struct accept_one *one)
{
    struct request *r = one->request;

    if (!accept_key(r, &one->key))
        return false;
    if (one->key == NULL || accept_hash(r, one->hash))
        return true;
    problem_backend(r, ERR_NOMEM);
    return false;
}

void accept_post(struct request *r)
{
    struct dispatcher *d = dispatcher_of(r);
    struct accept_one *one = arena_alloc(r->arena, sizeof(*one));
    bool bad;

    if (one == NULL) {
        problem_backend(r, ERR_NOMEM);
        return;
    }
    one->d = d;
    one->request = r;
    one->app = r->app;
    one->arena = r->arena;
    one->ready = one_on_ready;
    one->refused = one_on_refused;
    r->data = one;
    r->on_over = one_done;
    one->wait_s = reply_prefer_wait(r, &bad);
    if (bad) {
        problem_field(r, ERR_INVALID_REQUEST, "Prefer", "wait must be a number of seconds");
        return;
    }
    if (!accept_order_read(r, ACCEPT_JOB, &one->order) || !one_key(one))
        return;
    if (!db_is_up(d->write) || !db_is_up(d->read)) {
        problem_backend(r, ERR_UNAVAILABLE); /* at once: a queue of requests helps nobody */
        return;
    }
    if (one->order.is_late) {
        one_late(one);
        return;
    }
    if (one->key == NULL && !one->order.is_cached &&
        full_is_known(d->accept, one)) { /* with a key it may be a replay */
        problem_reply(r, ERR_QUEUE_FULL, accept_queue_full);
        return;
    }
    accept_one_go(one);
}
