/* ledger.h - accept, retry, settle, cancel, expire, grant: the only one that moves money.
 *
 * Thin and typed: each call becomes one row of a gathered call of a schema function (db.h), and its answer one verdict.
 * A dispatcher uses all but settle, a worker settle. Text is copied; callbacks come once, from the
 * loop, with the caller's own ctx, so that db_forget finds them. A row that found no answer within five seconds ends as
 * ERR_UNAVAILABLE or ERR_LOST; who must not give up asks again. `err` other than ERR_OK: ERR_UNAVAILABLE
 * (certainly not done), ERR_LOST (unknown: ask again with the same arguments), ERR_REFUSED (PostgreSQL refuses this row
 * alone), ERR_CLOSED. */
#ifndef KILN_LEDGER_H
#define KILN_LEDGER_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/io/db.h"

struct ledger;
struct ledger *ledger_new(struct db *db, const char *worker /* NULL: a dispatcher */,
                          int64_t max_queued /* 0: no limit */);
void ledger_free(struct ledger *l); /* before its db closes */

struct ledger_accept {
    const char *job, *app, *account;
    const char *key, *hash; /* Idempotency-Key and hex SHA-256 of the body; NULL: none */
    const char *operation, *provider, *params, *inputs, *metadata; /* JSON texts; inputs, metadata NULL */
    int64_t units, unit_mc;
    const char *price_version;
    int64_t priority, deadline_s;
    const char *run_at;     /* RFC 3339; NULL: now */
    const char *on_unknown; /* "retry" "fail" */
    const char *retry_of;   /* NULL */
    const char *extras;     /* JSON object; NULL */
    const char *cache_key;  /* NULL: always asked of a provider; else extras hold {"cache": {ttl_s, unit_mc}} and run_at
                               and retry_of are NULL */
};
enum ledger_verdict {
    LEDGER_ACCEPTED,
    LEDGER_REPLAYED,
    LEDGER_MISMATCH,
    LEDGER_INSUFFICIENT,
    LEDGER_QUEUE_FULL,
    LEDGER_CACHED,  /* has succeeded already, with an earlier job's result */
    LEDGER_WAITING, /* for a job of the same key: not to be published */
};
struct ledger_accepted {
    enum ledger_verdict verdict;
    const char *job;        /* the job: mine, or the one replayed */
    const char *created_at; /* RFC 3339 */
    int64_t needed_mc, available_mc;
};
typedef void ledger_accept_fn(void *ctx, enum err err, const struct ledger_accepted *accepted);
enum err ledger_accept(struct ledger *l, const struct ledger_accept *row, ledger_accept_fn *fn, void *ctx);

/* Many jobs, all or none, in one call of its own; by column, each but the ids a PostgreSQL array literal or, of the
 * four that hold JSON, a JSON array. inputs, run_ats, metadata and extras: NULL where no job has any
 * (0022_lean_batches.sql). An array of one value, but for the ids and the JSON: each job has it
 * (0025_leaner_batches.sql). */
struct ledger_batch {
    const char *id, *app, *key, *hash;
    struct {
        const char *data; /* db_uuids_add */
        size_t len;
    } ids;
    const char *accounts, *operations, *providers, *params, *inputs, *units, *unit_mcs, *price_versions;
    const char *priorities, *run_ats, *deadlines_s, *on_unknowns, *metadata, *extras;
};
struct ledger_batched {
    enum ledger_verdict verdict;
    const char *batch; /* mine, or the one replayed */
    const char *created_at;
    int64_t needed_mc, available_mc;
};
typedef void ledger_batch_fn(void *ctx, enum err err, const struct ledger_batched *batched);
enum err ledger_accept_batch(struct ledger *l, const struct ledger_batch *batch, ledger_batch_fn *fn, void *ctx);

/* A new job in place of a failed one, for an operator: as it is checked and priced now; whose it is, priority, metadata
 * and the time it has come from the failed job. A job has one retry at most: then that one is the answer. */
struct ledger_retry {
    const char *job, *retry_of; /* the new one; the failed one */
    const char *provider, *params, *inputs;
    int64_t units, unit_mc;
    const char *price_version, *on_unknown;
    const char *extras; /* JSON object; NULL: the failed one's */
};
enum retry_verdict {
    RETRY_ACCEPTED,
    RETRY_REPLAYED,
    RETRY_INSUFFICIENT,
    RETRY_QUEUE_FULL,
    RETRY_NOT_FOUND,
    RETRY_NOT_FAILED,
    RETRY_DELIVERED, /* its result came late and is shown free */
};
struct ledger_retried {
    enum retry_verdict verdict;
    const char *job, *created_at;
    int64_t needed_mc, available_mc;
};
typedef void ledger_retry_fn(void *ctx, enum err err, const struct ledger_retried *retried);
enum err ledger_retry(struct ledger *l, const struct ledger_retry *row, ledger_retry_fn *fn, void *ctx);

enum ledger_outcome { OUTCOME_DELIVERED, OUTCOME_FAILED, OUTCOME_RETRY, OUTCOME_UNKNOWN };
enum attempt_class { CLASS_NOT_SENT, CLASS_REFUSED, CLASS_UNKNOWN, CLASS_ACCEPTED, CLASS_ANSWERED };
extern const char *const ledger_outcome_name[], *const attempt_class_name[];
struct ledger_settle {
    const char *job;
    int64_t fence, attempt;
    enum ledger_outcome outcome;
    enum err code; /* ERR_OK when delivered */
    enum attempt_class klass;
    const char *message;     /* NULL; cleaned text */
    int64_t provider_status; /* 0: none */
    const char *request_id;  /* NULL */
    int64_t units;           /* delivered */
    int64_t cost_microusd;   /* -1: not known */
    int64_t delay_ms;        /* of a retry */
    bool counts;             /* this retry counts as a try */
    const char *artifacts;   /* JSON array; NULL */
    const char *evidence;    /* JSON; NULL */
    const char *provider;    /* the next one, of a retry; NULL: stay */
};
enum settle_verdict { SETTLE_COMMITTED, SETTLE_REQUEUED, SETTLE_MINE, SETTLE_STALE, SETTLE_FINISHED };
struct ledger_settled {
    enum settle_verdict verdict;
    const char *state;         /* the job's now */
    int64_t version, delay_ms; /* until run_at, of a requeued one */
};
typedef void ledger_settle_fn(void *ctx, enum err err, const struct ledger_settled *settled);
enum err ledger_settle(struct ledger *l, const struct ledger_settle *row, ledger_settle_fn *fn, void *ctx);

struct ledger_canceled {
    enum { CANCEL_CANCELED, CANCEL_FINISHED, CANCEL_NOT_FOUND } verdict;
    const char *holder, *provider, *ref; /* what they were; "" none */
    int64_t version;
};
typedef void ledger_cancel_fn(void *ctx, enum err err, const struct ledger_canceled *canceled);
enum err ledger_cancel(struct ledger *l, const char *job, const char *app /* NULL: an operator */, ledger_cancel_fn *fn,
                       void *ctx);

/* Finishes what is past its deadline, at most `max` jobs. Called for each job ended, then once with job NULL and the
 * count. */
typedef void ledger_expire_fn(void *ctx, enum err err, const char *job, const char *state, const char *holder,
                              size_t count);
enum err ledger_expire(struct ledger *l, int64_t max, ledger_expire_fn *fn, void *ctx);

struct ledger_granted {
    enum { GRANT_GRANTED, GRANT_REPLAYED, GRANT_MISMATCH } verdict;
    int64_t balance_mc, held_mc;
};
typedef void ledger_grant_fn(void *ctx, enum err err, const struct ledger_granted *granted);
enum err ledger_grant(struct ledger *l, const char *app, const char *account, int64_t amount_mc, const char *reference,
                      ledger_grant_fn *fn, void *ctx);
/* The same, blocking, for the command line. */
enum err ledger_grant_sync(const char *url, const char *app, const char *account, int64_t amount_mc,
                           const char *reference, struct ledger_granted *out, char *message, size_t message_size);
#endif
