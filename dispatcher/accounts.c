/* accounts.c - credits of an app's accounts. */
#include "dispatcher/accounts.h"
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "dispatcher/dispatcher.h"
#include "dispatcher/jobs.h"
#include "dispatcher/problem.h"
#include "dispatcher/reply.h"

enum { REFERENCE_MAX = 200 };
#define GRANT_MAX_CREDITS 1e9

static bool account_arg(struct request *r)
{
    if (jobs_account_valid(r->args[0]))
        return true;
    problem_field(r, ERR_INVALID_REQUEST, "account", "must be 1 to 128 of A-Z a-z 0-9 . _ : @ -");
    return false;
}

static void reply_account(struct request *r, int64_t balance_mc, int64_t held_mc)
{
    reply_json(r, 200,
               json_pack("{s:s, s:o, s:o, s:o}", "account", r->args[0], "balance", json_credits(balance_mc), "held",
                         json_credits(held_mc), "available", json_credits(balance_mc - held_mc)));
}

static void get_on_result(void *ctx, enum err err, const struct db_result *result)
{
    struct request *r = ctx;

    if (err != ERR_OK)
        problem_backend(r, err);
    else if (db_rows(result) == 0)
        problem_reply(r, ERR_NOT_FOUND, "no such account; an account is created by its first grant");
    else
        reply_account(r, db_col_int(result, 0, "balance"), db_col_int(result, 0, "held"));
}

void accounts_get(struct request *r)
{
    struct dispatcher *d = dispatcher_of(r);
    const char *values[] = { r->app, r->args[0] };
    enum err e;

    if (!account_arg(r))
        return;
    e = db_is_up(d->read)
            ? db_query(d->read, "select balance, held from accounts where app_id = $1::uuid and name = $2",
                       ARRAY_LEN(values), values, 3000, get_on_result, r)
            : ERR_UNAVAILABLE;
    if (e != ERR_OK)
        problem_backend(r, e);
}

/* ---- grants ---- */

static void grant_on_verdict(void *ctx, enum err err, const struct ledger_granted *granted)
{
    struct request *r = ctx;

    if (err != ERR_OK) {
        problem_backend(r, err == ERR_REFUSED ? ERR_UNAVAILABLE : err);
        return;
    }
    switch (granted->verdict) {
    case GRANT_MISMATCH:
        problem_field(r, ERR_CONFLICT, "reference", "was used for another account or amount");
        return;
    case GRANT_REPLAYED:
        request_add_header(r, "Idempotent-Replayed", "true");
        break;
    case GRANT_GRANTED:
        break;
    }
    reply_account(r, granted->balance_mc, granted->held_mc);
}

/* Credits as JSON number -> millicredits; 0: not a positive number with at most three decimals. */
static int64_t grant_amount_mc(const json_t *value)
{
    double credits, mc;

    if (!json_is_number(value))
        return 0;
    credits = json_number_value(value);
    mc = round(credits * 1000);
    if (!(credits > 0) || credits > GRANT_MAX_CREDITS || fabs(credits * 1000 - mc) > 1e-3)
        return 0;
    return (int64_t)mc;
}

static bool reference_valid(const char *reference)
{
    size_t len = reference != NULL ? strlen(reference) : 0;

    if (len < 1 || len > REFERENCE_MAX)
        return false;
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)reference[i] < ' ' || reference[i] == 0x7f)
            return false;
    }
    return true;
}

void accounts_grant(struct request *r)
{
    struct dispatcher *d = dispatcher_of(r);
    struct catalog_faults faults = { 0 };
    struct json_fault fault = { "the body is empty" };
    json_t *body, *value;
    const char *key, *reference;
    int64_t mc;
    enum err e;

    if (!account_arg(r))
        return;
    body = r->body.len > 0 ? json_parse(r->body.data, r->body.len, &fault) : NULL;
    if (body == NULL) {
        problem_reply(r, ERR_INVALID_JSON, fault.message);
        return;
    }
    json_object_foreach(body, key, value)
    {
        if (strcmp(key, "credits") != 0 && strcmp(key, "reference") != 0)
            faults_add(&faults, key, "is no member of this request");
    }
    mc = grant_amount_mc(json_object_get(body, "credits"));
    reference = json_text(body, "reference");
    if (!json_is_object(body))
        faults_add(&faults, "body", "must be an object");
    if (mc == 0)
        faults_add(&faults, "credits", "must be a number above 0, at most 1e9, with at most three decimals");
    if (!reference_valid(reference))
        faults_add(&faults, "reference", "must be a text of 1 to %d bytes that names this payment once", REFERENCE_MAX);
    if (faults.count > 0)
        problem_faults(r, ERR_INVALID_REQUEST, &faults);
    else if ((e = db_is_up(d->write) ? ledger_grant(d->ledger, r->app, r->args[0], mc, reference, grant_on_verdict, r)
                                     : ERR_UNAVAILABLE) != ERR_OK)
        problem_backend(r, e);
    json_decref(body);
}

/* ---- ledger ---- */

struct ledger_page {
    struct request *request;
    int64_t limit;
};

static void ledger_on_result(void *ctx, enum err err, const struct db_result *result)
{
    struct ledger_page *p = ctx;
    const char *cursor = NULL;
    json_t *data;
    int rows;

    if (err != ERR_OK) {
        problem_backend(p->request, err);
        return;
    }
    data = json_array();
    rows = db_rows(result);
    for (int i = 0; i < rows && i < p->limit; i++) {
        json_t *one = json_object();

        (void)json_object_set_new(one, "id", json_integer(db_col_int(result, i, "id")));
        (void)json_set_text(one, "kind", db_col(result, i, "kind"));
        (void)json_object_set_new(one, "amount", json_credits(db_col_int(result, i, "amount")));
        (void)json_object_set_new(one, "balance", json_credits(db_col_int(result, i, "balance_after")));
        (void)json_object_set_new(one, "held", json_credits(db_col_int(result, i, "held_after")));
        (void)json_set_text(one, "job", db_is_null(result, i, "job_id") ? NULL : db_col(result, i, "job_id"));
        (void)json_set_text(one, "reference",
                            db_is_null(result, i, "reference") ? NULL : db_col(result, i, "reference"));
        (void)json_set_text(one, "created_at", db_col(result, i, "created"));
        (void)json_array_append_new(data, one);
        if (rows > p->limit && i == p->limit - 1)
            cursor = arena_strdup(p->request->arena, db_col(result, i, "id"));
    }
    reply_list(p->request, data, cursor);
}

void accounts_ledger(struct request *r)
{
    struct dispatcher *d = dispatcher_of(r);
    struct ledger_page *p = arena_alloc(r->arena, sizeof(*p));
    const char *cursor = request_query(r, "cursor", NULL);
    char max[24];
    const char *values[] = { r->app, r->args[0], cursor, max };
    int64_t before;
    enum err e;

    if (p == NULL) {
        problem_backend(r, ERR_NOMEM);
        return;
    }
    if (!account_arg(r) || !reply_limit(r, &p->limit))
        return;
    if (cursor != NULL && parse_i64(cursor, 1, INT64_MAX, &before) != ERR_OK) {
        problem_field(r, ERR_INVALID_REQUEST, "cursor", "is none that a page's `next` had");
        return;
    }
    p->request = r;
    snprintf(max, sizeof(max), "%lld", (long long)p->limit + 1);
    e = db_is_up(d->read)
            ? db_query(
                  d->read,
                  "select l.id, l.kind, l.amount, l.balance_after, l.held_after, l.job_id, l.reference, "
                  "kiln_time(l.created_at) as created from ledger l where l.account_id = (select a.id from accounts "
                  "a where a.app_id = $1::uuid and a.name = $2) and ($3::bigint is null or l.id < $3::bigint) "
                  "order by l.id desc limit $4::int",
                  ARRAY_LEN(values), values, 3000, ledger_on_result, p)
            : ERR_UNAVAILABLE;
    if (e != ERR_OK)
        problem_backend(r, e);
}
