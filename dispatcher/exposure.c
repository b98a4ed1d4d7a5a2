/* exposure.c - what the house may have paid for nothing: a list with totals, and two counters.
 *
 * The counters grow by what has closed since the last look (a scrape, at most every ten seconds), so that a look costs
 * as much as there is news, whatever the tables hold. They begin at nought with the process: each dispatcher counts the
 * same, take the maximum. The list is the truth. */
#include <stdio.h>
#include <string.h>
#include "common/base/clock.h"
#include "common/base/metrics.h"
#include "dispatcher/admin.h"
#include "dispatcher/dispatcher.h"
#include "dispatcher/problem.h"
#include "dispatcher/reply.h"

enum { PATIENCE_MS = 5000, COUNT_PATIENCE_MS = 2000 };

/* ---- the list ---- */

struct exposure {
    struct request *request;
    const char *provider, *since, *until, *at[3], *cursor;
    int64_t limit;
    json_t *data;
};

static void exposure_done(struct request *r)
{
    struct exposure *x = r->data;

    json_decref(x->data);
}

static void exposure_on_totals(void *ctx, enum err err, const struct db_result *result)
{
    struct exposure *x = ctx;
    struct request *r = x->request;
    json_t *body, *totals;

    if (err != ERR_OK) {
        problem_backend(r, err);
        return;
    }
    totals = json_array();
    for (int i = 0; i < db_rows(result); i++)
        (void)json_array_append_new(
            totals, json_pack("{s:s, s:s, s:I, s:f, s:I}", "provider", db_col(result, i, "provider"), "reason",
                              db_col(result, i, "reason"), "attempts", (json_int_t)db_col_int(result, i, "attempts"),
                              "cost_usd", (double)db_col_int(result, i, "cost_microusd") / 1e6, "without_cost",
                              (json_int_t)db_col_int(result, i, "without_cost")));
    body = reply_list_body(r, x->data, x->cursor);
    x->data = NULL;
    (void)json_object_set_new(body, "totals", totals);
    (void)json_set_text(body, "since", x->since);
    reply_json(r, 200, body);
}

static void exposure_on_page(void *ctx, enum err err, const struct db_result *result)
{
    struct exposure *x = ctx;
    const char *values[] = { x->provider, x->since, x->until };
    int rows;

    if (err != ERR_OK) {
        problem_backend(x->request, err);
        return;
    }
    rows = db_rows(result);
    x->data = json_array();
    for (int i = 0; i < rows && i < x->limit; i++) {
        const char *text = db_col(result, i, "doc");

        (void)json_array_append_new(x->data, json_parse(text, strlen(text), NULL));
        if (rows > x->limit && i == x->limit - 1)
            x->cursor = arena_strdup(x->request->arena, db_col(result, i, "cursor"));
    }
    if (db_query(dispatcher_of(x->request)->operators_db,
                 "select * from kiln_exposure_totals($1::text, $2::timestamptz, $3::timestamptz)", ARRAY_LEN(values),
                 values, PATIENCE_MS, exposure_on_totals, x) != ERR_OK)
        problem_backend(x->request, ERR_UNAVAILABLE);
}

void exposure_list(struct request *r)
{
    static const char sql[] = "select doc, cursor from kiln_exposure_page($1::text, $2::timestamptz, $3::timestamptz, "
                              "$4::bigint, $5::uuid, $6::int, $7::int)";
    struct exposure *x = arena_alloc(r->arena, sizeof(*x));
    struct catalog_faults faults = { 0 };
    char month_ago[RFC3339_TEXT];

    if (x == NULL) {
        problem_backend(r, ERR_NOMEM);
        return;
    }
    x->request = r;
    r->data = x;
    r->on_over = exposure_done;
    rfc3339_ms(month_ago, clock_wall_ms() - INT64_C(30) * 86400 * 1000);
    x->provider = request_query(r, "provider", NULL);
    x->since = request_query(r, "since", NULL);
    x->until = request_query(r, "until", NULL);
    admin_check_time(x->since, "since", &faults);
    admin_check_time(x->until, "until", &faults);
    if (x->since == NULL) /* the totals are of this time too: a bounded part of an index */
        x->since = arena_strdup(r->arena, month_ago);
    if (!admin_cursor(r, request_query(r, "cursor", NULL), 3, x->at))
        faults_add(&faults, "cursor", "is none that a page's `next` had");
    if (faults.count > 0) {
        problem_faults(r, ERR_INVALID_REQUEST, &faults);
        return;
    }
    if (!reply_limit(r, &x->limit) || !admin_db(r))
        return;
    {
        const char *max = arena_printf(r->arena, "%lld", (long long)x->limit + 1);
        const char *values[] = { x->provider, x->since, x->until, x->at[0], x->at[1], x->at[2], max };

        if (db_query(dispatcher_of(r)->operators_db, sql, ARRAY_LEN(values), values, PATIENCE_MS, exposure_on_page,
                     x) != ERR_OK)
            problem_backend(r, ERR_UNAVAILABLE);
    }
}

/* ---- the counters ---- */

struct exposure_look {
    struct request *request;
    void (*then)(struct request *r);
};

static void count(struct dispatcher *d, const char *provider, const char *reason, double attempts, double usd)
{
    metric_add(metrics_counter(d->metrics, "kiln_exposure_attempts_total",
                               "Attempts that may have been paid for nothing.", "provider", provider, "reason", reason,
                               NULL),
               attempts);
    metric_add(metrics_counter(d->metrics, "kiln_exposure_usd_total", "What these cost, as far as it is known.",
                               "provider", provider, "reason", reason, NULL),
               usd);
}

static void look_on_rows(void *ctx, enum err err, const struct db_result *result)
{
    struct exposure_look *look = ctx;
    struct dispatcher *d = dispatcher_of(look->request);

    /* another look may have come between: its rows are counted once, by who finds the mark where it left it */
    for (int i = 0; err == ERR_OK && i < db_rows(result) && db_col_int(result, i, "from_us") == d->exposure_us; i++) {
        if (!db_is_null(result, i, "provider"))
            count(d, db_col(result, i, "provider"), db_col(result, i, "reason"),
                  (double)db_col_int(result, i, "attempts"), (double)db_col_int(result, i, "cost_microusd") / 1e6);
    }
    if (err == ERR_OK && db_rows(result) > 0 && db_col_int(result, 0, "from_us") == d->exposure_us)
        d->exposure_us = db_col_int(result, 0, "upto_us");
    look->then(look->request);
}

/* Rows younger than ten seconds are left for the next look: an attempt's end is stamped before its commit. */
void exposure_count(struct request *r, void (*then)(struct request *r))
{
    static const char sql[] =
        "with t as (select (extract(epoch from kiln_now()) * 1000000)::bigint - 10000000 as upto_us), "
        "b as (select upto_us, case when $1::bigint = 0 then upto_us else $1::bigint end as from_us from t) "
        "select $1::bigint as from_us, b.upto_us, x.* from b left join lateral kiln_exposure_totals(null, "
        "'epoch'::timestamptz + b.from_us * interval '1 microsecond', "
        "'epoch'::timestamptz + b.upto_us * interval '1 microsecond') x on b.upto_us > b.from_us";
    static const char *const reasons[] = { "unknown", "accepted", "uncharged", "marked" };
    struct dispatcher *d = dispatcher_of(r);
    struct exposure_look *look = arena_alloc(r->arena, sizeof(*look));
    char from[24];
    const char *values[] = { from };

    if (d->exposure_us == 0) { /* so that the first one is an increase */
        for (size_t i = 0; i < catalog_provider_count(d->catalog); i++) {
            for (size_t k = 0; k < ARRAY_LEN(reasons); k++)
                count(d, catalog_provider_at(d->catalog, i)->name, reasons[k], 0, 0);
        }
    }
    snprintf(from, sizeof(from), "%lld", (long long)d->exposure_us);
    if (look != NULL) {
        *look = (struct exposure_look){ r, then };
        if (db_query(d->read, sql, 1, values, COUNT_PATIENCE_MS, look_on_rows, look) == ERR_OK)
            return;
    }
    then(r);
}
