/* ledger.c - rows of kiln_accept (and kiln_accept_cached), kiln_retry, kiln_settle, kiln_cancel and kiln_grant, and
 * kiln_expire; verdicts out of the answers.
 *
 * Each kind of row has a gather of its own, made when it is first used, so that a worker prepares nothing of a
 * dispatcher's. The answers are read by the adapt functions, which know only the caller's function and ctx: a ledger
 * may be freed while rows are under way. */
#include "common/core/ledger.h"
#include <stdio.h>
#include <stdlib.h>
#include "common/base/text.h"

enum { PATIENCE_MS = 5000, EXPIRE_PATIENCE_MS = 4000, BATCH_PATIENCE_MS = 25000 }; /* a dispatcher expires each 5 s */

enum ledger_kind {
    LEDGER_ACCEPT,
    LEDGER_ACCEPT_CACHED,
    LEDGER_RETRY,
    LEDGER_SETTLE,
    LEDGER_CANCEL,
    LEDGER_GRANT,
    LEDGER_KINDS
};

static const struct db_call calls[LEDGER_KINDS] = {
    [LEDGER_ACCEPT] = { .name = "accept",
                        .sql = "select ord, verdict, job, kiln_time(created_at) as created_at, needed, available from "
                               "kiln_accept($2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[], "
                               "$8::text[], $9::jsonb[], $10::jsonb[], $11::int[], $12::bigint[], $13::text[], "
                               "$14::int[], $15::timestamptz[], $16::int[], $17::text[], $18::jsonb[], $19::uuid[], "
                               "$20::uuid[], $1::int, $21::jsonb[])",
                        .columns = 20,
                        .patience_ms = PATIENCE_MS },
    [LEDGER_ACCEPT_CACHED] = { .name = "accept_cached",
                               .sql = "select ord, verdict, job, kiln_time(created_at) as created_at, needed, "
                                      "available from kiln_accept_cached($2::uuid[], $3::uuid[], $4::text[], "
                                      "$5::text[], $6::text[], $7::text[], $8::text[], $9::jsonb[], $10::jsonb[], "
                                      "$11::int[], $12::bigint[], $13::text[], $14::int[], $15::int[], $16::text[], "
                                      "$17::jsonb[], $1::int, $18::jsonb[], $19::text[])",
                               .columns = 18,
                               .patience_ms = PATIENCE_MS },
    [LEDGER_RETRY] = { .name = "retry",
                       .sql = "select ord, verdict, job, kiln_time(created_at) as created_at, needed, available from "
                              "kiln_retry($2::uuid[], $3::uuid[], $4::text[], $5::jsonb[], $6::jsonb[], $7::int[], "
                              "$8::bigint[], $9::text[], $10::text[], $1::int, $11::jsonb[])",
                       .columns = 10,
                       .patience_ms = PATIENCE_MS },
    [LEDGER_SETTLE] = { .name = "settle",
                        .sql = "select ord, verdict, state, version, run_delay_ms from kiln_settle($1::uuid, "
                               "$2::uuid[], $3::bigint[], $4::int[], $5::text[], $6::text[], $7::text[], $8::text[], "
                               "$9::int[], $10::text[], $11::int[], $12::bigint[], $13::bigint[], $14::boolean[], "
                               "$15::jsonb[], $16::jsonb[], $17::text[])",
                        .columns = 16,
                        .patience_ms = PATIENCE_MS },
    [LEDGER_CANCEL] = { .name = "cancel",
                        .sql = "select ord, verdict, holder, provider, ref, version from kiln_cancel($1::uuid[], "
                               "$2::uuid[])",
                        .columns = 2,
                        .patience_ms = PATIENCE_MS },
    [LEDGER_GRANT] = { .name = "grant",
                       .sql = "select ord, verdict, balance, held from kiln_grant($1::uuid[], $2::text[], "
                              "$3::bigint[], $4::text[])",
                       .columns = 4,
                       .patience_ms = PATIENCE_MS },
};

const char *const ledger_outcome_name[] = { "delivered", "failed", "retry", "unknown" };
const char *const attempt_class_name[] = { "not_sent", "refused", "unknown", "accepted", "answered" };

/* In the order of their enums. */
static const char *const accept_words[] = { "accepted",   "replayed", "mismatch", "insufficient",
                                            "queue_full", "cached",   "waiting" };
static const char *const retry_words[] = { "accepted",  "replayed",   "insufficient", "queue_full",
                                           "not_found", "not_failed", "delivered" };
static const char *const settle_words[] = { "committed", "requeued", "mine", "stale", "finished" };
static const char *const cancel_words[] = { "canceled", "finished", "not_found" };
static const char *const grant_words[] = { "granted", "replayed", "mismatch" };

struct ledger {
    struct db *db;
    char worker[UUID_TEXT]; /* "": a dispatcher */
    char max_queued[24];    /* "": no limit */
    struct db_gather *gathers[LEDGER_KINDS];
};

struct ledger *ledger_new(struct db *db, const char *worker, int64_t max_queued)
{
    struct ledger *l = calloc(1, sizeof *l);

    if (!l)
        return NULL;
    l->db = db;
    if (worker)
        (void)snprintf(l->worker, sizeof l->worker, "%s", worker);
    if (max_queued > 0)
        (void)snprintf(l->max_queued, sizeof l->max_queued, "%lld", (long long)max_queued);
    return l;
}

void ledger_free(struct ledger *l)
{
    if (!l)
        return;
    for (size_t i = 0; i < LEDGER_KINDS; i++)
        db_gather_free(l->gathers[i]);
    free(l);
}

static enum err ledger_add(struct ledger *l, enum ledger_kind kind, const struct db_value *row, db_adapt_row_fn *adapt,
                           db_plain_fn *user, void *ctx)
{
    const char *of_accept = l->max_queued[0] ? l->max_queued : NULL, *of_settle = l->worker;

    if (!l->gathers[kind]) {
        bool has_limit = kind == LEDGER_ACCEPT || kind == LEDGER_ACCEPT_CACHED || kind == LEDGER_RETRY;
        l->gathers[kind] = db_gather_new(l->db, &calls[kind], has_limit ? &of_accept : &of_settle,
                                         has_limit || kind == LEDGER_SETTLE ? 1 : 0);
        if (!l->gathers[kind])
            return ERR_NOMEM;
    }
    return db_gather_add_as(l->gathers[kind], row, adapt, user, ctx);
}

/* --- accept --- */

static void accept_adapt(db_plain_fn *user, void *ctx, enum err err, const struct db_result *result, int row)
{
    ledger_accept_fn *fn = (ledger_accept_fn *)user;
    int verdict = err == ERR_OK ? db_col_word(result, row, "verdict", accept_words, ARRAY_LEN(accept_words)) : -1;

    if (verdict < 0) {
        fn(ctx, err == ERR_OK ? ERR_REFUSED : err, NULL);
        return;
    }
    fn(ctx, ERR_OK,
       &(struct ledger_accepted){
           .verdict = (enum ledger_verdict)verdict,
           .job = db_col(result, row, "job"),
           .created_at = db_col(result, row, "created_at"),
           .needed_mc = db_col_int(result, row, "needed"),
           .available_mc = db_col_int(result, row, "available"),
       });
}

enum err ledger_accept(struct ledger *l, const struct ledger_accept *row, ledger_accept_fn *fn, void *ctx)
{
    const struct db_value values[] = {
        db_text(row->job),      db_text(row->app),       db_text(row->account),   db_text(row->key),
        db_text(row->hash),     db_text(row->operation), db_text(row->provider),  db_text(row->params),
        db_text(row->inputs),   db_int(row->units),      db_int(row->unit_mc),    db_text(row->price_version),
        db_int(row->priority),  db_text(row->run_at),    db_int(row->deadline_s), db_text(row->on_unknown),
        db_text(row->metadata), db_text(row->retry_of),  db_text(NULL),           db_text(row->extras),
    };
    const struct db_value cached[] = {
        db_text(row->job),     db_text(row->app),       db_text(row->account),    db_text(row->key),
        db_text(row->hash),    db_text(row->operation), db_text(row->provider),   db_text(row->params),
        db_text(row->inputs),  db_int(row->units),      db_int(row->unit_mc),     db_text(row->price_version),
        db_int(row->priority), db_int(row->deadline_s), db_text(row->on_unknown), db_text(row->metadata),
        db_text(row->extras),  db_text(row->cache_key),
    };

    if (row->cache_key)
        return ledger_add(l, LEDGER_ACCEPT_CACHED, cached, accept_adapt, (db_plain_fn *)fn, ctx);
    return ledger_add(l, LEDGER_ACCEPT, values, accept_adapt, (db_plain_fn *)fn, ctx);
}

static void batch_adapt(db_plain_fn *user, void *ctx, enum err err, const struct db_result *result)
{
    ledger_batch_fn *fn = (ledger_batch_fn *)user;
    int verdict = err == ERR_OK ? db_col_word(result, 0, "verdict", accept_words, ARRAY_LEN(accept_words)) : -1;

    if (verdict < 0) {
        fn(ctx, err == ERR_OK ? ERR_REFUSED : err, NULL);
        return;
    }
    fn(ctx, ERR_OK,
       &(struct ledger_batched){
           .verdict = (enum ledger_verdict)verdict,
           .batch = db_col(result, 0, "batch_id"),
           .created_at = db_col(result, 0, "created_at"),
           .needed_mc = db_col_int(result, 0, "needed"),
           .available_mc = db_col_int(result, 0, "available"),
       });
}

enum err ledger_accept_batch(struct ledger *l, const struct ledger_batch *batch, ledger_batch_fn *fn, void *ctx)
{
    const char *values[] = { batch->id,
                             batch->app,
                             batch->key,
                             batch->hash,
                             l->max_queued[0] ? l->max_queued : NULL,
                             batch->ids.data,
                             batch->accounts,
                             batch->operations,
                             batch->providers,
                             batch->params,
                             batch->inputs,
                             batch->units,
                             batch->unit_mcs,
                             batch->price_versions,
                             batch->priorities,
                             batch->run_ats,
                             batch->deadlines_s,
                             batch->on_unknowns,
                             batch->metadata,
                             batch->extras };
    const size_t binary[ARRAY_LEN(values)] = { [5] = batch->ids.len };

    return db_query_as(l->db,
                       "select verdict, batch_id, kiln_time(created_at) as created_at, needed, available from "
                       "kiln_accept_batch($1::uuid, $2::uuid, $3::text, $4::text, $5::int, $6::uuid[], $7::text[], "
                       "$8::text[], $9::text[], $10::jsonb, $11::jsonb, $12::int[], $13::bigint[], $14::text[], "
                       "$15::int[], $16::timestamptz[], $17::int[], $18::text[], $19::jsonb, $20::jsonb)",
                       ARRAY_LEN(values), values, binary, BATCH_PATIENCE_MS, batch_adapt, (db_plain_fn *)fn, ctx);
}

/* --- retry --- */

static void retry_adapt(db_plain_fn *user, void *ctx, enum err err, const struct db_result *result, int row)
{
    ledger_retry_fn *fn = (ledger_retry_fn *)user;
    int verdict = err == ERR_OK ? db_col_word(result, row, "verdict", retry_words, ARRAY_LEN(retry_words)) : -1;

    if (verdict < 0) {
        fn(ctx, err == ERR_OK ? ERR_REFUSED : err, NULL);
        return;
    }
    fn(ctx, ERR_OK,
       &(struct ledger_retried){
           .verdict = (enum retry_verdict)verdict,
           .job = db_col(result, row, "job"),
           .created_at = db_col(result, row, "created_at"),
           .needed_mc = db_col_int(result, row, "needed"),
           .available_mc = db_col_int(result, row, "available"),
       });
}

enum err ledger_retry(struct ledger *l, const struct ledger_retry *row, ledger_retry_fn *fn, void *ctx)
{
    const struct db_value values[] = {
        db_text(row->job),        db_text(row->retry_of), db_text(row->provider), db_text(row->params),
        db_text(row->inputs),     db_int(row->units),     db_int(row->unit_mc),   db_text(row->price_version),
        db_text(row->on_unknown), db_text(row->extras),
    };
    return ledger_add(l, LEDGER_RETRY, values, retry_adapt, (db_plain_fn *)fn, ctx);
}

/* --- settle --- */

static void settle_adapt(db_plain_fn *user, void *ctx, enum err err, const struct db_result *result, int row)
{
    ledger_settle_fn *fn = (ledger_settle_fn *)user;
    int verdict = err == ERR_OK ? db_col_word(result, row, "verdict", settle_words, ARRAY_LEN(settle_words)) : -1;

    if (verdict < 0) {
        fn(ctx, err == ERR_OK ? ERR_REFUSED : err, NULL);
        return;
    }
    fn(ctx, ERR_OK,
       &(struct ledger_settled){
           .verdict = (enum settle_verdict)verdict,
           .state = db_col(result, row, "state"),
           .version = db_col_int(result, row, "version"),
           .delay_ms = db_col_int(result, row, "run_delay_ms"),
       });
}

enum err ledger_settle(struct ledger *l, const struct ledger_settle *row, ledger_settle_fn *fn, void *ctx)
{
    const struct db_value values[] = {
        db_text(row->job),
        db_int(row->fence),
        db_int(row->attempt),
        db_text(ledger_outcome_name[row->outcome]),
        db_text(row->code == ERR_OK ? NULL : err_word(row->code)),
        db_text(attempt_class_name[row->klass]),
        db_text(row->message),
        row->provider_status ? db_int(row->provider_status) : db_null(),
        db_text(row->request_id),
        db_int(row->units),
        row->cost_microusd >= 0 ? db_int(row->cost_microusd) : db_null(),
        db_int(row->delay_ms),
        db_bool(row->counts),
        db_text(row->artifacts),
        db_text(row->evidence),
        db_text(row->provider),
    };
    return ledger_add(l, LEDGER_SETTLE, values, settle_adapt, (db_plain_fn *)fn, ctx);
}

/* --- cancel --- */

static void cancel_adapt(db_plain_fn *user, void *ctx, enum err err, const struct db_result *result, int row)
{
    ledger_cancel_fn *fn = (ledger_cancel_fn *)user;
    int verdict = err == ERR_OK ? db_col_word(result, row, "verdict", cancel_words, ARRAY_LEN(cancel_words)) : -1;

    if (verdict < 0) {
        fn(ctx, err == ERR_OK ? ERR_REFUSED : err, NULL);
        return;
    }
    struct ledger_canceled canceled = {
        .holder = db_col(result, row, "holder"),
        .provider = db_col(result, row, "provider"),
        .ref = db_col(result, row, "ref"),
        .version = db_col_int(result, row, "version"),
    };
    canceled.verdict = verdict == 0 ? CANCEL_CANCELED : verdict == 1 ? CANCEL_FINISHED : CANCEL_NOT_FOUND;
    fn(ctx, ERR_OK, &canceled);
}

enum err ledger_cancel(struct ledger *l, const char *job, const char *app, ledger_cancel_fn *fn, void *ctx)
{
    const struct db_value values[] = { db_text(job), db_text(app) };
    return ledger_add(l, LEDGER_CANCEL, values, cancel_adapt, (db_plain_fn *)fn, ctx);
}

/* --- expire --- */

static void expire_adapt(db_plain_fn *user, void *ctx, enum err err, const struct db_result *result)
{
    ledger_expire_fn *fn = (ledger_expire_fn *)user;
    int rows = err == ERR_OK ? db_rows(result) : 0;

    for (int i = 0; i < rows; i++)
        fn(ctx, ERR_OK, db_col(result, i, "job"), db_col(result, i, "state"), db_col(result, i, "holder"), 0);
    fn(ctx, err, NULL, NULL, NULL, (size_t)rows);
}

enum err ledger_expire(struct ledger *l, int64_t max, ledger_expire_fn *fn, void *ctx)
{
    char text[24];

    (void)snprintf(text, sizeof text, "%lld", (long long)max);
    return db_query_as(l->db, "select job, state, holder from kiln_expire($1::int)", 1, (const char *const[]){ text },
                       NULL, EXPIRE_PATIENCE_MS, expire_adapt, (db_plain_fn *)fn, ctx);
}

/* --- grant --- */

static bool granted_read(struct ledger_granted *out, const struct db_result *result, int row)
{
    int verdict = db_col_word(result, row, "verdict", grant_words, ARRAY_LEN(grant_words));

    if (verdict < 0)
        return false;
    out->verdict = verdict == 0 ? GRANT_GRANTED : verdict == 1 ? GRANT_REPLAYED : GRANT_MISMATCH;
    out->balance_mc = db_col_int(result, row, "balance");
    out->held_mc = db_col_int(result, row, "held");
    return true;
}

static void grant_adapt(db_plain_fn *user, void *ctx, enum err err, const struct db_result *result, int row)
{
    ledger_grant_fn *fn = (ledger_grant_fn *)user;
    struct ledger_granted granted;

    if (err == ERR_OK && granted_read(&granted, result, row))
        fn(ctx, ERR_OK, &granted);
    else
        fn(ctx, err == ERR_OK ? ERR_REFUSED : err, NULL);
}

enum err ledger_grant(struct ledger *l, const char *app, const char *account, int64_t amount_mc, const char *reference,
                      ledger_grant_fn *fn, void *ctx)
{
    const struct db_value values[] = { db_text(app), db_text(account), db_int(amount_mc), db_text(reference) };
    return ledger_add(l, LEDGER_GRANT, values, grant_adapt, (db_plain_fn *)fn, ctx);
}

struct grant_sync {
    struct ledger_granted *out;
    bool is_read;
};

static void grant_sync_on_result(void *ctx, const struct db_result *result)
{
    struct grant_sync *g = ctx;
    g->is_read = granted_read(g->out, result, 0);
}

enum err ledger_grant_sync(const char *url, const char *app, const char *account, int64_t amount_mc,
                           const char *reference, struct ledger_granted *out, char *message, size_t message_size)
{
    char amount[24];
    const char *values[] = { app, account, amount, reference };
    struct grant_sync g = { .out = out };

    (void)snprintf(amount, sizeof amount, "%lld", (long long)amount_mc);
    enum err err = db_sync(url,
                           "select verdict, balance, held from kiln_grant(array[$1::uuid], array[$2::text], "
                           "array[$3::bigint], array[$4::text])",
                           4, values, grant_sync_on_result, &g, message, message_size);
    return err == ERR_OK && !g.is_read ? ERR_REFUSED : err;
}
