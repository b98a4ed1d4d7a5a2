/* batches.c - see batches.h.
 *
 * A batch walks: parsed and hashed (thread pool) -> each of its orders read and prepared (accept_one.c) in slices of a
 * millisecond, a window of them at once -> printed as rows and envelopes (thread pool) -> kiln_accept_batch ->
 * published in slices -> answered. Its memory is its own and outlives the request: big trees are let go on the thread
 * pool, too. */
#include "dispatcher/batches.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/clock.h"
#include "common/base/failpoint.h"
#include "common/base/log.h"
#include "dispatcher/accept.h"
#include "dispatcher/accept_one.h"
#include "dispatcher/batch_rows.h"
#include "dispatcher/dispatcher.h"
#include "dispatcher/problem.h"
#include "dispatcher/reply.h"

enum {
    JOBS_MAX = 10000,
    WINDOW = 64,     /* orders prepared at once */
    SLICE_US = 1000, /* then the loop has its turn */
    PUBLISH_SLICE = 250,
    ITEM_ARENA_BYTES = 256 << 10,
    BREAKERS_MS = 2000,
    LOOK_MS = 5000,
    RETRY_AFTER_S = 2,
};

struct item {
    struct accept_one one;
    struct batch *batch;
    size_t index;
    struct item *next_over; /* prepared or refused: its arena can go */
    char *envelope;         /* until it is published; NULL: read it in PostgreSQL */
};

struct batch {
    struct dispatcher *d;
    struct request *request; /* NULL: over */
    char app[UUID_TEXT], id[UUID_TEXT];
    const char *key;     /* in the request's arena */
    const char *own_key; /* the caller's API key; must not be in the body */
    char hash[SHA256_HEX];
    uv_idle_t idle; /* runs while a slice is due; a timer of zero would run again in the same turn */
    uv_work_t work;
    bool is_working, is_pumping, is_waiting, is_late, is_bad_key, is_asked_again;
    json_t *body;
    struct json_fault fault;
    json_t *open_breakers;
    struct item *items, *over;
    size_t count, next, open, published;
    struct catalog_faults faults;
    enum err code; /* of the first refusal */
    const char *detail;
    struct batch_rows rows;
    bool is_printed;
    int64_t held_mc, created_ms;
    char created_at[RFC3339_TEXT];
};

static const char not_stored[] = "the database refused a value of this batch";

/* ---- the end */

static void trash_work(uv_work_t *work)
{
    struct batch *b = container_of(work, struct batch, work);

    for (size_t i = 0; i < b->count; i++) {
        accept_one_done(&b->items[i].one);
        arena_free(b->items[i].one.arena);
        free(b->items[i].envelope);
    }
    json_decref(b->body);
    json_decref(b->open_breakers);
    free(b->items);
    batch_rows_done(&b->rows);
}

static void trash_on_work(uv_work_t *work, int status)
{
    (void)status; /* never canceled */
    free(container_of(work, struct batch, work));
}

static void batch_on_closed(uv_handle_t *handle)
{
    struct batch *b = container_of((uv_idle_t *)handle, struct batch, idle);

    if (uv_queue_work(b->d->loop, &b->work, trash_work, trash_on_work) != 0) {
        trash_work(&b->work);
        free(b);
    }
}

static void batch_undo(struct batch *b)
{
    for (size_t i = 0; i < b->next; i++)
        inputs_undo(b->items[i].one.set);
}

/* Its request is over and nothing is under way. */
static void batch_release(struct batch *b)
{
    if (b->request == NULL && b->open == 0 && !b->is_working && !uv_is_closing((uv_handle_t *)&b->idle))
        uv_close((uv_handle_t *)&b->idle, batch_on_closed);
}

static void batch_on_over(struct request *r)
{
    struct batch *b = r->data;

    b->request = NULL;
    batch_release(b);
}

/* ---- the answer */

static json_t *view(const struct request *r, const json_t *doc)
{
    static const char *const states[] = { "queued", "running", "succeeded", "failed", "canceled" };
    static const char *const same[] = { "total", "account", "created_at", "finished_at" };
    json_t *batch = json_object(), *counts = json_object(), *links = json_object(), *ids;
    const char *id = json_text(doc, "id");
    int64_t held_mc = 0, captured_mc = 0;

    (void)json_set_text(batch, "id", id);
    (void)json_set_text(batch, "object", "batch");
    for (size_t i = 0; i < ARRAY_LEN(same); i++)
        (void)json_object_set(batch, same[i], json_object_get(doc, same[i]));
    for (size_t i = 0; i < ARRAY_LEN(states); i++)
        (void)json_object_set(counts, states[i], json_object_get(doc, states[i]));
    (void)json_object_set_new(batch, "counts", counts);
    (void)json_int(doc, "held_mc", &held_mc);
    (void)json_int(doc, "captured_mc", &captured_mc);
    (void)json_object_set_new(
        batch, "credits", json_pack("{s:o, s:o}", "held", json_credits(held_mc), "charged", json_credits(captured_mc)));
    (void)json_set_text(links, "self", arena_printf(r->arena, "/v1/batches/%s", id));
    (void)json_set_text(links, "jobs", arena_printf(r->arena, "/v1/jobs?batch=%s", id));
    (void)json_object_set_new(batch, "links", links);
    ids = json_object_get(doc, "job_ids");
    if (ids != NULL)
        (void)json_object_set(batch, "job_ids", ids);
    return batch;
}

static void reply_batch(struct request *r, const json_t *doc, bool is_replay)
{
    request_add_header(r, "Location", arena_printf(r->arena, "/v1/batches/%s", json_text(doc, "id")));
    reply_retry_after(r, RETRY_AFTER_S);
    if (is_replay)
        request_add_header(r, "Idempotent-Replayed", "true");
    reply_json(r, 202, view(r, doc));
}

static void batch_reply_fresh(struct batch *b)
{
    const char *account = b->items[0].one.order.account;
    json_t *ids = json_array(), *doc;

    for (size_t i = 0; i < b->count; i++) {
        if (account != NULL && strcmp(account, b->items[i].one.order.account) != 0)
            account = NULL;
        (void)json_array_append_new(ids, json_string(b->items[i].one.id));
    }
    doc = json_pack("{s:s, s:I, s:I, s:i, s:i, s:i, s:i, s:s?, s:I, s:i, s:s, s:n, s:o}", "id", b->id, "total",
                    (json_int_t)b->count, "queued", (json_int_t)b->count, "running", 0, "succeeded", 0, "failed", 0,
                    "canceled", 0, "account", account, "held_mc", (json_int_t)b->held_mc, "captured_mc", 0,
                    "created_at", b->created_at, "finished_at", "job_ids", ids);
    if (doc == NULL)
        problem_backend(b->request, ERR_LOST);
    else
        reply_batch(b->request, doc, false);
    json_decref(doc);
}

static void replay_on_doc(void *ctx, enum err err, const struct db_result *result)
{
    struct batch *b = ctx;
    const char *text = err == ERR_OK && db_rows(result) > 0 ? db_col(result, 0, "doc") : "";
    json_t *doc = text[0] != '\0' ? json_parse(text, strlen(text), NULL) : NULL;

    if (doc == NULL)
        problem_backend(b->request, ERR_LOST);
    else
        reply_batch(b->request, doc, true);
    json_decref(doc);
}

static void batch_replay(struct batch *b, const char *batch)
{
    const char *values[] = { batch, b->app };

    metric_add(metrics_counter(b->d->metrics, "kiln_replays_total", "Requests answered with an earlier job.", NULL), 1);
    if (db_query(b->d->read, "select kiln_batch_json($1::uuid, $2::uuid, true) as doc", ARRAY_LEN(values), values,
                 LOOK_MS, replay_on_doc, b) != ERR_OK)
        problem_backend(b->request, ERR_LOST);
}

/* ---- publishing */

static void publish_on_idle(uv_idle_t *idle)
{
    struct batch *b = container_of(idle, struct batch, idle);
    size_t room = accept_publish_room(b->d->accept), end;

    end = b->published + (room < PUBLISH_SLICE ? room : PUBLISH_SLICE);
    for (; b->published < b->count && b->published < end; b->published++) {
        struct item *it = &b->items[b->published];
        const struct accept_one *one = &it->one;
        char *envelope = it->envelope;

        it->envelope = NULL;
        metric_add(
            metrics_counter(b->d->metrics, "kiln_accepts_total", "Jobs accepted.", "provider", one->provider, NULL), 1);
        accept_publish_text(b->d->accept, one->id, b->app, one->order.account, one->provider, envelope,
                            one->order.priority, one->order.delay_ms, b->created_ms);
    }
    if (b->published < b->count) {
        uv_idle_start(&b->idle, publish_on_idle); /* nothing when it runs */
        return;
    }
    uv_idle_stop(&b->idle);
    batch_reply_fresh(b);
}

/* ---- money */

static enum err batch_ask(struct batch *b);

static void batch_on_verdict(void *ctx, enum err err, const struct ledger_batched *got)
{
    struct batch *b = ctx;
    struct request *r = b->request;

    if (err == ERR_LOST && !b->is_asked_again && db_is_up(b->d->batch_db)) {
        b->is_asked_again = true; /* the same ids: what was committed is found */
        if (batch_ask(b) == ERR_OK)
            return;
    }
    if ((err != ERR_OK && err != ERR_LOST) || (err == ERR_OK && got->verdict != LEDGER_ACCEPTED))
        batch_undo(b); /* lost: perhaps they were accepted and need their files */
    if (err == ERR_REFUSED) {
        log_error("batch_refused", log_str("batch", b->id));
        problem_reply(r, ERR_INVALID_REQUEST, not_stored);
        return;
    }
    if (err != ERR_OK) {
        problem_backend(r, err);
        return;
    }
    switch (got->verdict) {
    case LEDGER_ACCEPTED:
        if (FAILPOINT("batch.after_commit") != 0) {
            problem_backend(r, ERR_LOST);
            return;
        }
        snprintf(b->created_at, sizeof(b->created_at), "%s", got->created_at);
        if (rfc3339_parse(b->created_at, &b->created_ms) != ERR_OK)
            b->created_ms = clock_wall_ms();
        publish_on_idle(&b->idle);
        return;
    case LEDGER_REPLAYED:
        batch_replay(b, got->batch);
        return;
    case LEDGER_MISMATCH:
        accept_refuse_mismatch(r);
        return;
    case LEDGER_QUEUE_FULL:
        problem_reply(r, ERR_QUEUE_FULL, accept_queue_full);
        return;
    case LEDGER_INSUFFICIENT:
        accept_refuse_insufficient(r, got->needed_mc, got->available_mc);
        return;
    case LEDGER_CACHED: /* of jobs with `cache` alone */
    case LEDGER_WAITING:
        problem_backend(r, ERR_LOST);
        return;
    }
}

static enum err batch_ask(struct batch *b)
{
    struct ledger_batch row = { .id = b->id, .app = b->app, .key = b->key, .hash = b->key != NULL ? b->hash : NULL };

    batch_rows_fill(&b->rows, &row);
    return ledger_accept_batch(b->d->batch_ledger, &row, batch_on_verdict, b);
}

static void print_work(uv_work_t *work)
{
    struct batch *b = container_of(work, struct batch, work);
    bool ok = true;

    for (size_t i = 0; i < b->count; i++)
        uuid_v7(b->items[i].one.id); /* together, however long preparing took: see 0023_batches.sql */
    for (size_t i = 0; i < b->count && ok; i++) {
        ok = batch_rows_add(&b->rows, &b->items[i].one, &b->items[i].envelope);
        b->held_mc += b->items[i].one.price.units * b->items[i].one.price.unit_mc;
    }
    b->is_printed = ok && batch_rows_end(&b->rows);
}

static void print_on_work(uv_work_t *work, int status)
{
    struct batch *b = container_of(work, struct batch, work);

    (void)status; /* never canceled */
    b->is_working = false;
    if (b->is_printed && batch_ask(b) == ERR_OK)
        return;
    batch_undo(b);
    problem_backend(b->request, ERR_UNAVAILABLE);
}

/* ---- a run_at that is past: refused, unless the batch was taken while it was ahead */

static void late_on_key(void *ctx, enum err err, const struct db_result *result)
{
    struct batch *b = ctx;

    if (err != ERR_OK)
        problem_backend(b->request, err);
    else if (db_rows(result) == 0)
        problem_faults(b->request, ERR_INVALID_REQUEST, &b->faults);
    else if (strcmp(db_col(result, 0, "body_hash"), b->hash) != 0)
        accept_refuse_mismatch(b->request);
    else
        batch_replay(b, db_col(result, 0, "batch_id"));
}

static void batch_late(struct batch *b)
{
    const char *values[] = { b->app, b->key };

    if (db_query(b->d->read,
                 "select i.body_hash, j.batch_id from idempotency i join jobs j on j.id = i.job_id "
                 "where i.app_id = $1::uuid and i.key = $2 and i.expires_at > kiln_now()",
                 ARRAY_LEN(values), values, LOOK_MS, late_on_key, b) != ERR_OK)
        problem_backend(b->request, ERR_UNAVAILABLE);
}

/* ---- its orders, one after the other */

static bool is_stopped(const struct batch *b)
{
    return b->code != ERR_OK || b->is_late;
}

/* All are prepared, or it will not be. */
static void batch_decided(struct batch *b)
{
    if (b->request == NULL) {
        batch_undo(b);
        batch_release(b);
        return;
    }
    if (is_stopped(b))
        batch_undo(b);
    if (b->is_late) {
        batch_late(b);
    } else if (b->faults.count > 0) {
        problem_faults(b->request, b->code, &b->faults);
    } else if (b->code != ERR_OK && b->detail != NULL) {
        problem_reply(b->request, b->code, b->detail);
    } else if (b->code != ERR_OK) {
        problem_backend(b->request, b->code);
    } else {
        b->is_working = uv_queue_work(b->d->loop, &b->work, print_work, print_on_work) == 0;
        if (!b->is_working) {
            batch_undo(b);
            problem_backend(b->request, ERR_UNAVAILABLE);
        }
    }
}

static void batch_refuse(struct item *it, enum err code, const struct catalog_faults *faults, const char *detail)
{
    struct batch *b = it->batch;
    size_t kept = faults == NULL                             ? 0
                  : faults->count < ARRAY_LEN(faults->items) ? faults->count
                                                             : ARRAY_LEN(faults->items);
    char field[128];

    for (size_t i = 0; i < kept; i++) {
        if (strcmp(faults->items[i].field, "body") == 0)
            snprintf(field, sizeof(field), "jobs[%zu]", it->index);
        else
            snprintf(field, sizeof(field), "jobs[%zu].%s", it->index, faults->items[i].field);
        faults_add(&b->faults, field, "%s", faults->items[i].message);
    }
    if (b->code == ERR_OK || faults == NULL) { /* what is nobody's fault speaks first */
        b->code = code;
        b->detail = detail;
    }
    if (faults == NULL)
        b->faults.count = 0;
}

static void pump_on_idle(uv_idle_t *idle);

static void item_over(struct item *it)
{
    struct batch *b = it->batch;

    it->next_over = b->over;
    b->over = it;
    b->open--;
    if (!b->is_pumping)
        uv_idle_start(&b->idle, pump_on_idle);
}

static void item_on_ready(struct accept_one *one)
{
    struct item *it = container_of(one, struct item, one);

    item_over(it);
}

static void item_on_refused(struct accept_one *one, enum err code, const struct catalog_faults *faults,
                            const char *detail)
{
    struct item *it = container_of(one, struct item, one);

    batch_refuse(it, code, faults, detail);
    item_over(it);
}

/* The arenas of those that are over, but those that still have uploads to undo. */
static void batch_sweep(struct batch *b)
{
    struct item *it;

    while ((it = b->over) != NULL) {
        b->over = it->next_over;
        if (it->one.plan != NULL)
            catalog_plan_done(it->one.plan);
        it->one.plan = NULL;
        if (inputs_made(it->one.set))
            continue;
        it->one.set = NULL;
        arena_free(it->one.arena);
        it->one.arena = NULL;
    }
}

/* False: PostgreSQL is asked for a template; the same again then. */
static bool item_start(struct batch *b, size_t index)
{
    struct item *it = &b->items[index];
    struct catalog_faults faults; /* large, and mostly not asked for */
    enum err code;

    faults.count = 0;
    it->batch = b;
    it->index = index;
    it->one = (struct accept_one){
        .d = b->d, .app = b->app, .ready = item_on_ready, .refused = item_on_refused, .open_breakers = b->open_breakers
    };
    switch (accept_order_check(b->request, json_array_get(json_object_get(b->body, "jobs"), index), ACCEPT_JOB,
                               b->key != NULL, &it->one.order, &faults, &code)) {
    case ACCEPT_WAIT:
        return false;
    case ACCEPT_FAULTS:
        batch_refuse(it, code, &faults, NULL);
        return true;
    case ACCEPT_READ:
        break;
    }
    if (it->one.order.is_cached) { /* its own function decides about those (0012_cache.sql) */
        faults_add(&faults, "cache", "is not for jobs of a batch");
        batch_refuse(it, ERR_INVALID_REQUEST, &faults, NULL);
        return true;
    }
    if (it->one.order.is_late) {
        b->is_late = true;
        faults_add(&faults, "run_at", "%s", accept_late);
        batch_refuse(it, ERR_INVALID_REQUEST, &faults, NULL);
        return true;
    }
    it->one.arena = arena_new(ITEM_ARENA_BYTES);
    if (it->one.arena == NULL) {
        batch_refuse(it, ERR_NOMEM, NULL, NULL);
        return true;
    }
    b->open++;
    accept_one_go(&it->one);
    return true;
}

/* Faults are collected as long as there is room for them. */
static bool wants_more(const struct batch *b)
{
    return b->request != NULL && b->next < b->count && !b->is_late &&
           (b->code == ERR_OK || (b->faults.count > 0 && b->faults.count < ARRAY_LEN(b->faults.items)));
}

static void batch_pump(struct batch *b)
{
    int64_t began_us = clock_mono_us();

    if (b->is_waiting && b->request != NULL)
        return;
    b->is_pumping = true;
    while (wants_more(b) && b->open < WINDOW) {
        batch_sweep(b);
        if (clock_mono_us() - began_us > SLICE_US) {
            uv_idle_start(&b->idle, pump_on_idle);
            b->is_pumping = false;
            return;
        }
        if (!item_start(b, b->next)) {
            b->is_waiting = true;
            b->is_pumping = false;
            return;
        }
        b->next++;
    }
    b->is_pumping = false;
    batch_sweep(b);
    if (b->open == 0 && !wants_more(b))
        batch_decided(b);
}

static void pump_on_idle(uv_idle_t *idle)
{
    uv_idle_stop(idle);
    batch_pump(container_of(idle, struct batch, idle));
}

/* ---- the request */

static void breakers_on_rows(void *ctx, enum err err, const struct db_result *result)
{
    struct batch *b = ctx;

    b->is_working = false;
    for (int i = 0; err == ERR_OK && i < db_rows(result); i++) {
        if (db_col_bool(result, i, "is_open"))
            (void)json_object_set_new(b->open_breakers, db_col(result, i, "provider"), json_true());
    }
    batch_pump(b);
}

static bool check_body(struct batch *b)
{
    const json_t *jobs = json_object_get(b->body, "jobs");
    struct catalog_faults faults = { 0 };
    const char *member;
    json_t *value;

    if (!json_is_object(b->body)) {
        problem_field(b->request, ERR_INVALID_REQUEST, "body", "must be an object");
        return false;
    }
    json_object_foreach(b->body, member, value)
    {
        if (strcmp(member, "jobs") != 0)
            faults_add(&faults, member, "is no member of this request");
    }
    if (!json_is_array(jobs) || json_array_size(jobs) < 1 || json_array_size(jobs) > JOBS_MAX)
        faults_add(&faults, "jobs", "must be a list of 1 to %d jobs", JOBS_MAX);
    if (faults.count > 0)
        problem_faults(b->request, ERR_INVALID_REQUEST, &faults);
    return faults.count == 0;
}

static void parse_work(uv_work_t *work)
{
    struct batch *b = container_of(work, struct batch, work);
    const struct buf *body = &b->request->body;

    b->fault = (struct json_fault){ "the body is empty" };
    b->is_bad_key = b->own_key != NULL && body->data != NULL && strstr(body->data, b->own_key) != NULL;
    if (body->len == 0 || b->is_bad_key || (b->key != NULL && !accept_hash(b->request, b->hash)))
        return;
    b->body = json_parse(body->data, body->len, &b->fault);
}

static void parse_on_work(uv_work_t *work, int status)
{
    struct batch *b = container_of(work, struct batch, work);
    struct request *r = b->request;
    const char *values[] = { NULL };
    struct buf names = { 0 };

    (void)status; /* never canceled */
    b->is_working = false;
    buf_done(&r->body);
    if (b->is_bad_key) {
        problem_field(r, ERR_INVALID_REQUEST, "body", accept_own_key);
        return;
    }
    if (b->body == NULL) {
        problem_reply(r, ERR_INVALID_JSON, b->fault.message);
        return;
    }
    if (!check_body(b))
        return;
    b->open_breakers = json_object();
    b->count = json_array_size(json_object_get(b->body, "jobs"));
    b->items = calloc(b->count, sizeof(*b->items));
    if (b->items == NULL || b->open_breakers == NULL) {
        b->count = 0;
        problem_backend(r, ERR_UNAVAILABLE);
        return;
    }
    /* Which providers are shunned, once for all jobs that a route will plan. */
    for (size_t i = 0; i < catalog_provider_count(b->d->catalog); i++)
        (void)buf_printf(&names, "%s\"%s\"", i > 0 ? "," : "{", catalog_provider_at(b->d->catalog, i)->name);
    (void)buf_str(&names, "}");
    values[0] = names.data;
    b->is_working = catalog_route_count(b->d->catalog) > 0 &&
                    db_query(b->d->read, "select provider, is_open from kiln_breakers($1::text[])", 1, values,
                             BREAKERS_MS, breakers_on_rows, b) == ERR_OK;
    buf_done(&names);
    if (!b->is_working)
        batch_pump(b);
}

void batches_post(struct request *r)
{
    struct dispatcher *d = dispatcher_of(r);
    struct batch *b = r->data;
    const char *header = request_header(r, "Authorization"), *key;

    if (b != NULL) { /* templates are here */
        b->is_waiting = false;
        batch_pump(b);
        return;
    }
    if (!accept_key(r, &key))
        return;
    if (!db_is_up(d->batch_db) || !db_is_up(d->read)) {
        problem_backend(r, ERR_UNAVAILABLE);
        return;
    }
    b = calloc(1, sizeof(*b));
    if (b == NULL || uv_idle_init(d->loop, &b->idle) != 0) {
        free(b);
        problem_backend(r, ERR_UNAVAILABLE);
        return;
    }
    b->d = d;
    b->request = r;
    b->key = arena_strdup(r->arena, key);
    b->own_key =
        header != NULL && strstr(header, "kiln_") != NULL ? arena_strdup(r->arena, strstr(header, "kiln_")) : NULL;
    snprintf(b->app, sizeof(b->app), "%s", r->app);
    uuid_v7(b->id);
    r->data = b;
    r->on_over = batch_on_over;
    b->is_working = uv_queue_work(d->loop, &b->work, parse_work, parse_on_work) == 0;
    if (!b->is_working)
        problem_backend(r, ERR_UNAVAILABLE);
}

/* ---- GET /v1/batches/{id} */

static void get_on_doc(void *ctx, enum err err, const struct db_result *result)
{
    struct request *r = ctx;
    const char *text = err == ERR_OK && db_rows(result) > 0 ? db_col(result, 0, "doc") : "";
    json_t *doc = text[0] != '\0' ? json_parse(text, strlen(text), NULL) : NULL;

    if (err != ERR_OK)
        problem_backend(r, err);
    else if (doc == NULL)
        problem_reply(r, ERR_NOT_FOUND, "no such batch");
    else
        reply_json(r, 200, view(r, doc));
    json_decref(doc);
}

void batches_get(struct request *r)
{
    struct dispatcher *d = dispatcher_of(r);
    char id[UUID_TEXT];
    const char *values[] = { id, r->app };

    if (!uuid_lower(id, r->args[0]))
        problem_reply(r, ERR_NOT_FOUND, "no such batch");
    else if (!db_is_up(d->read) || db_query(d->read, "select kiln_batch_json($1::uuid, $2::uuid, false) as doc",
                                            ARRAY_LEN(values), values, LOOK_MS, get_on_doc, r) != ERR_OK)
        problem_backend(r, ERR_UNAVAILABLE);
}
