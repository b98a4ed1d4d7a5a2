/* retry.c - operators retry failed jobs: one by its id, or a page of those that a filter names.
 *
 * Each is checked as a new order would be (operation, provider, parameters, inputs, price), then kiln_retry takes it: a
 * new job with a hold of its own, or its earlier retry. A page is bounded, and who asks for the next one sets the pace.
 * A page whose answer was lost is asked for again: what has its retry by then is not in it any more. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/log.h"
#include "common/core/catalog_route.h"
#include "common/core/job.h"
#include "common/core/ledger.h"
#include "dispatcher/accept.h"
#include "dispatcher/admin.h"
#include "dispatcher/dispatcher.h"
#include "dispatcher/inputs.h"
#include "dispatcher/problem.h"
#include "dispatcher/reply.h"

enum {
    PAGE_MAX = 100,
    PATIENCE_MS = 3000,
    KEEP_S = 86400 + 600, /* an input outlives the new job's wait, as far as is known before */
};

struct retry;
struct retry_item { /* one failed job */
    struct retry *retry;
    const json_t *doc;                 /* kiln_admin_doc; borrowed from retry->docs */
    const struct operation *op;        /* of a route: its vocabulary */
    const struct catalog_route *route; /* NULL: a plain operation */
    json_t *legs;                      /* owned: what the job carries of the route; NULL: none */
    const char *provider;              /* the first to be asked */
    enum operation_unknown on_unknown;
    json_t *params, *inputs;                       /* owned */
    char *params_text, *inputs_text, *extras_text; /* malloc'd */
    const char *app, *account;
    struct inputs_set *set;
    struct catalog_price price;
    char id[UUID_TEXT]; /* the new job's; of an earlier retry: that one's */
    enum err refusal;   /* ERR_OK: there is a new job */
    char message[512];
    int64_t needed_mc, available_mc;
    bool is_replayed, is_asked_again;
};

struct retry { /* one request */
    struct request *request;
    json_t *docs; /* owned */
    struct retry_item *items;
    size_t count, open;
    int64_t limit;
    bool is_one;
    enum err err; /* PostgreSQL's: nothing of the page is answered */
    const char *next;
};

static void retry_done(struct request *r)
{
    struct retry *t = r->data;

    for (size_t i = 0; i < t->count; i++) {
        struct retry_item *it = &t->items[i];

        json_decref(it->params);
        json_decref(it->inputs);
        free(it->params_text);
        free(it->inputs_text);
        free(it->extras_text);
        json_decref(it->legs);
    }
    json_decref(t->docs);
}

/* ---- the answer ---- */

static json_t *item_refused(const struct retry_item *it)
{
    json_t *one = json_object();

    (void)json_set_text(one, "id", json_text(it->doc, "id"));
    (void)json_set_text(one, "code", err_word(it->refusal));
    (void)json_set_text(one, "message", it->message[0] != '\0' ? it->message : err_text(it->refusal));
    if (it->refusal == ERR_INSUFFICIENT_CREDITS) {
        (void)json_object_set_new(one, "credits_needed", json_credits(it->needed_mc));
        (void)json_object_set_new(one, "credits_available", json_credits(it->available_mc));
    }
    return one;
}

static void reply_one(const struct retry_item *it)
{
    struct request *r = it->retry->request;
    const char *values[] = { it->id };

    if (it->refusal == ERR_INSUFFICIENT_CREDITS) {
        json_t *extra = json_object();

        (void)json_object_set_new(extra, "credits_needed", json_credits(it->needed_mc));
        (void)json_object_set_new(extra, "credits_available", json_credits(it->available_mc));
        problem_extra(r, it->refusal, NULL, extra);
        return;
    }
    if (it->refusal != ERR_OK) {
        problem_reply(r, it->refusal, it->message[0] != '\0' ? it->message : NULL);
        return;
    }
    request_add_header(r, "Location", arena_printf(r->arena, "/v1/admin/jobs/%s", it->id));
    if (it->is_replayed)
        request_add_header(r, "Idempotent-Replayed", "true");
    admin_one(r, it->is_replayed ? 200 : 202,
              "select kiln_admin_doc(j, false) as doc from jobs j where j.id = $1::uuid", values, 1, "no such job",
              admin_job_view);
}

static void reply_many(const struct retry *t)
{
    json_t *body = json_object(), *retried = json_array(), *refused = json_array();

    for (size_t i = 0; i < t->count; i++) {
        const struct retry_item *it = &t->items[i];

        if (it->refusal != ERR_OK)
            (void)json_array_append_new(refused, item_refused(it));
        else
            (void)json_array_append_new(retried, json_pack("{s:s, s:s, s:b}", "id", it->id, "retry_of",
                                                           json_text(it->doc, "id"), "replayed", it->is_replayed));
    }
    (void)json_set_text(body, "object", "retry");
    (void)json_object_set_new(body, "retried", retried);
    (void)json_object_set_new(body, "refused", refused);
    (void)json_object_set_new(body, "has_more", json_boolean(t->next != NULL));
    (void)json_set_text(body, "next", t->next);
    reply_json(t->request, 200, body);
}

static void retry_over(struct retry *t)
{
    if (--t->open > 0)
        return;
    if (t->err != ERR_OK)
        problem_backend(t->request, t->err);
    else if (t->is_one)
        reply_one(&t->items[0]);
    else
        reply_many(t);
}

static void item_refuse(struct retry_item *it, enum err code, const char *message)
{
    it->refusal = code;
    snprintf(it->message, sizeof(it->message), "%s", message);
    it->message[utf8_cut(it->message, strlen(it->message), sizeof(it->message) - 1)] = '\0';
}

/* ---- money ---- */

static void item_publish(const struct retry_item *it, const char *created_at)
{
    struct dispatcher *d = dispatcher_of(it->retry->request);
    struct job_envelope e = { .id = it->id,
                              .app = it->app,
                              .account = it->account,
                              .operation = it->op->name,
                              .provider = it->provider,
                              .params = it->params,
                              .inputs = it->inputs,
                              .route = it->legs,
                              .units = it->price.units };
    int64_t priority = 0;

    (void)json_int(it->doc, "priority", &priority);
    metric_add(metrics_counter(d->metrics, "kiln_accepts_total", "Jobs accepted.", "provider", e.provider, NULL), 1);
    metric_add(metrics_counter(d->metrics, "kiln_retries_total", "Failed jobs that operators had retried.", "provider",
                               e.provider, NULL),
               1);
    log_info("retried", log_str("job", it->id), log_str("retry_of", json_text(it->doc, "id")));
    accept_publish(d->accept, &e, priority, created_at);
}

static enum err item_ask(struct retry_item *it);

static void item_on_verdict(void *ctx, enum err err, const struct ledger_retried *got)
{
    struct retry_item *it = ctx;

    if (err == ERR_LOST && !it->is_asked_again) {
        it->is_asked_again = true; /* the same ids: what was committed is found */
        if (item_ask(it) == ERR_OK)
            return;
    }
    if (err == ERR_REFUSED)
        item_refuse(it, ERR_INVALID_REQUEST, "the database refused this job's values");
    else if (err != ERR_OK)
        it->retry->err = err;
    if (err != ERR_OK) {
        retry_over(it->retry);
        return;
    }
    it->needed_mc = got->needed_mc;
    it->available_mc = got->available_mc;
    switch (got->verdict) {
    case RETRY_ACCEPTED:
        item_publish(it, got->created_at);
        break;
    case RETRY_REPLAYED:
        it->is_replayed = true;
        snprintf(it->id, sizeof(it->id), "%s", got->job);
        break;
    case RETRY_INSUFFICIENT:
        it->refusal = ERR_INSUFFICIENT_CREDITS;
        break;
    case RETRY_QUEUE_FULL:
        it->refusal = ERR_QUEUE_FULL;
        break;
    case RETRY_NOT_FOUND:
        item_refuse(it, ERR_NOT_FOUND, "no such job");
        break;
    case RETRY_NOT_FAILED:
        item_refuse(it, ERR_CONFLICT, "only a failed job can be retried");
        break;
    case RETRY_DELIVERED:
        item_refuse(it, ERR_CONFLICT, "its result came late and is shown, uncharged");
        break;
    }
    retry_over(it->retry);
}

static enum err item_ask(struct retry_item *it)
{
    struct ledger_retry row = { .job = it->id,
                                .retry_of = json_text(it->doc, "id"),
                                .provider = it->provider,
                                .params = it->params_text,
                                .inputs = it->inputs_text,
                                .units = it->price.units,
                                .unit_mc = it->price.unit_mc,
                                .price_version = it->price.version,
                                .on_unknown = it->on_unknown == UNKNOWN_RETRY ? "retry" : "fail",
                                .extras = it->extras_text };

    return ledger_retry(dispatcher_of(it->retry->request)->ledger, &row, item_on_verdict, it);
}

/* ---- checks ---- */

static void item_refuse_faults(struct retry_item *it, const struct catalog_faults *faults)
{
    char text[400];

    snprintf(text, sizeof(text), "%s: %s", faults->items[0].field, faults->items[0].message);
    item_refuse(it, ERR_INVALID_REQUEST, text);
}

/* Price, provider and legs as of today; false: refused. */
static bool item_price(struct retry_item *it)
{
    struct catalog_faults faults = { 0 };
    struct catalog_plan plan;
    bool is_priced = true;

    if (it->route == NULL) {
        it->provider = it->op->provider->name;
        if (catalog_price(it->op, it->params, &it->price) == ERR_OK) {
            it->on_unknown = catalog_unknown(it->op, &it->price);
            return true;
        }
        item_refuse(it, ERR_INVALID_REQUEST, "these parameters have no price any more");
        return false;
    }
    if (catalog_plan_make(dispatcher_of(it->retry->request)->catalog, it->route, it->params, it->inputs, NULL, &plan,
                          &faults)) {
        json_t *extras;

        it->price = catalog_plan_price(&plan);
        it->on_unknown = catalog_plan_unknown(&plan);
        it->provider = plan.legs[0].op->provider->name;
        it->legs = catalog_plan_json(&plan);
        extras = json_pack("{s:O}", "route", it->legs);
        it->extras_text = extras != NULL ? json_print(extras) : NULL;
        json_decref(extras);
    } else {
        item_refuse_faults(it, &faults);
        is_priced = false;
    }
    catalog_plan_done(&plan);
    return is_priced;
}

static void item_on_inputs(void *ctx, enum err err, const struct catalog_faults *faults, json_t *inputs)
{
    struct retry_item *it = ctx;

    it->inputs = inputs;
    if (err == ERR_INVALID_REQUEST) { /* an upload that has expired, mostly */
        item_refuse_faults(it, faults);
    } else if (err != ERR_OK) {
        it->retry->err = err;
    } else if (item_price(it)) {
        it->params_text = json_print(it->params);
        it->inputs_text = inputs != NULL ? json_print(inputs) : NULL;
        if (it->params_text != NULL && (inputs == NULL || it->inputs_text != NULL) && item_ask(it) == ERR_OK)
            return;
        it->retry->err = ERR_NOMEM;
    }
    retry_over(it->retry);
}

/* True: it is on its way; false: refused. */
static bool item_start(struct retry_item *it)
{
    struct request *r = it->retry->request;
    struct dispatcher *d = dispatcher_of(r);
    struct catalog_faults faults = { 0 };
    const char *state = json_text(it->doc, "state"), *operation = json_text(it->doc, "operation");
    const char *earlier = json_text(it->doc, "retried_by");

    it->app = json_text(it->doc, "app");
    it->account = json_text(it->doc, "account");
    if (earlier != NULL) { /* before anything that may have changed since */
        it->is_replayed = true;
        snprintf(it->id, sizeof(it->id), "%s", earlier);
        return false;
    }
    if (state == NULL || strcmp(state, "failed") != 0) {
        item_refuse(it, ERR_CONFLICT, "only a failed job can be retried");
        return false;
    }
    it->route = catalog_route_find(d->catalog, operation);
    it->op = it->route != NULL ? &it->route->vocabulary : catalog_find(d->catalog, operation);
    if (it->op == NULL || (it->route == NULL && it->op->provider->key == NULL)) {
        it->refusal = it->op == NULL ? ERR_UNKNOWN_OPERATION : ERR_PROVIDER_NOT_CONFIGURED;
        return false;
    }
    it->params = catalog_validate(it->op, json_object_get(it->doc, "params"), &faults);
    if (it->params == NULL) {
        item_refuse_faults(it, &faults);
        return false;
    }
    uuid_v7(it->id);
    it->set = inputs_resolve(d->inputs, r->arena, it->op, it->app, it->account, it->params, it->op->deadline_s + KEEP_S,
                             item_on_inputs, it);
    if (it->set == NULL)
        it->retry->err = ERR_NOMEM;
    return it->set != NULL;
}

static void retry_on_rows(void *ctx, enum err err, const struct db_result *result)
{
    struct retry *t = ctx;
    struct request *r = t->request;
    int rows = err == ERR_OK ? db_rows(result) : 0;
    size_t count = (size_t)rows > (size_t)t->limit ? (size_t)t->limit : (size_t)rows;

    if (err != ERR_OK) {
        problem_backend(r, err);
        return;
    }
    if (t->is_one && count == 0) {
        problem_reply(r, ERR_NOT_FOUND, "no such job");
        return;
    }
    t->items = arena_alloc(r->arena, (count + 1) * sizeof(*t->items));
    if (t->items == NULL) {
        problem_backend(r, ERR_NOMEM);
        return;
    }
    if (rows > t->limit)
        t->next = arena_strdup(r->arena, db_col(result, (int)count - 1, "cursor"));
    t->docs = json_array();
    for (size_t i = 0; i < count; i++) {
        const char *text = db_col(result, (int)i, "doc");

        (void)json_array_append_new(t->docs, json_parse(text, strlen(text), NULL));
        t->items[i] = (struct retry_item){ .retry = t, .doc = json_array_get(t->docs, i) };
    }
    t->count = count;
    t->open = count + 1; /* and ourselves, so that nothing ends before all have started */
    for (size_t i = 0; i < count; i++) {
        if (!item_start(&t->items[i]))
            t->open--;
    }
    retry_over(t);
}

/* ---- the requests ---- */

static struct retry *retry_new(struct request *r)
{
    struct retry *t = arena_alloc(r->arena, sizeof(*t));

    if (t == NULL) {
        problem_backend(r, ERR_NOMEM);
        return NULL;
    }
    t->request = r;
    r->data = t;
    r->on_over = retry_done;
    return t;
}

void retry_one(struct request *r)
{
    char id[UUID_TEXT];
    const char *values[] = { id };
    struct retry *t = retry_new(r);

    if (t == NULL)
        return;
    if (!uuid_lower(id, r->args[0])) {
        problem_reply(r, ERR_NOT_FOUND, "no such job");
        return;
    }
    t->is_one = true;
    t->limit = 1;
    if (admin_db(r) && db_query(dispatcher_of(r)->operators_db,
                                "select kiln_admin_doc(j, false) as doc from jobs j where j.id = $1::uuid", 1, values,
                                PATIENCE_MS, retry_on_rows, t) != ERR_OK)
        problem_backend(r, ERR_UNAVAILABLE);
}

void retry_many(struct request *r)
{
    static const char *const members[] = { "state", "app",   "account", "code",   "operation", "provider",
                                           "since", "until", "limit",   "cursor", NULL };
    static const char sql[] =
        "select doc, cursor from kiln_failed_page($1::text, $2::text, $3::text, $4::text, $5::text, "
        "$6::timestamptz, $7::timestamptz, false, $8::bigint, $9::uuid, false, $10::int)";
    struct retry *t = retry_new(r);
    json_t *body = t != NULL ? admin_body(r, members) : NULL, *value;
    struct catalog_faults faults = { 0 };
    const char *at[3], *code, *key;

    if (body == NULL)
        return;
    t->limit = PAGE_MAX;
    json_object_foreach(body, key, value)
    {
        if (strcmp(key, "limit") != 0 && !json_is_string(value) && !json_is_null(value))
            faults_add(&faults, key, "must be a text");
    }
    if (json_text(body, "state") == NULL || strcmp(json_text(body, "state"), "failed") != 0)
        faults_add(&faults, "state", "must be failed: nothing is retried by an empty filter");
    code = json_text(body, "code");
    if (code != NULL && err_from_word(code) == ERR_COUNT)
        faults_add(&faults, "code", "is no error code");
    admin_check_time(json_text(body, "since"), "since", &faults);
    admin_check_time(json_text(body, "until"), "until", &faults);
    value = json_object_get(body, "limit");
    if (value != NULL &&
        (!json_is_integer(value) || json_integer_value(value) < 1 || json_integer_value(value) > PAGE_MAX))
        faults_add(&faults, "limit", "must be a number from 1 to %d", PAGE_MAX);
    else if (value != NULL)
        t->limit = json_integer_value(value);
    if (!admin_cursor(r, json_text(body, "cursor"), 2, at))
        faults_add(&faults, "cursor", "is none that `next` of an answer had");
    if (admin_faults(r, body, &faults))
        return;
    {
        const char *max = arena_printf(r->arena, "%lld", (long long)t->limit + 1);
        const char *values[] = { json_text(body, "app"),
                                 json_text(body, "account"),
                                 code,
                                 json_text(body, "operation"),
                                 json_text(body, "provider"),
                                 json_text(body, "since"),
                                 json_text(body, "until"),
                                 at[0],
                                 at[1],
                                 max };

        if (admin_db(r) && db_query(dispatcher_of(r)->operators_db, sql, ARRAY_LEN(values), values, PATIENCE_MS,
                                    retry_on_rows, t) != ERR_OK)
            problem_backend(r, ERR_UNAVAILABLE);
    }
    json_decref(body);
}
