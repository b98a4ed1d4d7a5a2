/* money.h - what test_ledger.c and test_holder.c share: a database with an app, a connection, calls that wait for their
 * answer. Inline, so that neither program misses what it does not use. */
#ifndef KILN_TEST_MONEY_H
#define KILN_TEST_MONEY_H
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/text.h"
#include "common/core/holder.h"
#include "common/core/ledger.h"
#include "tests/support/support.h"

enum { WAIT_MS = 10000 };
static const char app[] = "00000000-0000-4000-8000-00000000000a";
static const char me[] = "00000000-0000-4000-8000-000000000001", other[] = "00000000-0000-4000-8000-000000000002";
static const char hash_a[] = "aa", hash_b[] = "bb";

struct bank {
    uv_loop_t loop;
    char *url;
    struct db *db;
    struct ledger *ledger; /* of a dispatcher and of worker `me` at once: tests play both */
    struct holder *mine, *others;
    int answers; /* counted by every callback */
    enum err err;
    struct ledger_accepted accepted;
    struct ledger_settled settled;
    struct ledger_canceled canceled;
    struct ledger_granted granted;
    struct holder_started started;
    enum holder_verdict verdict;
    char job[UUID_TEXT], text[3][128]; /* the answers' texts, copied */
};
static struct bank bank;

static inline void alive(const char *worker)
{
    char sql[256];
    (void)snprintf(sql, sizeof sql, "select count(*) from kiln_beat('%s', null, false)", worker);
    free(support_sql(bank.url, sql));
}

static inline void shift_clock(const char *interval)
{
    char sql[256];
    (void)snprintf(sql, sizeof sql, "update clock_shift set shift = shift + interval '%s'", interval);
    free(support_sql(bank.url, sql));
}

static inline void bank_open(int64_t max_queued)
{
    char sql[256];

    uv_loop_init(&bank.loop);
    bank.url = support_database();
    (void)snprintf(sql, sizeof sql, "insert into apps (id, name) values ('%s', 'test')", app);
    free(support_sql(bank.url, sql));
    alive(me);
    alive(other);
    bank.db = db_new(&bank.loop, &(struct db_config){ .url = bank.url, .name = "test" });
    cr_assert_not_null(bank.db);
    bank.ledger = ledger_new(bank.db, me, max_queued);
    bank.mine = holder_new(bank.db, me);
    bank.others = holder_new(bank.db, other);
    cr_assert(bank.ledger && bank.mine && bank.others);
}

static inline void bank_close(void)
{
    char *wrong = support_sql(bank.url, "select string_agg(a::text, ' ') from kiln_audit() a");

    cr_expect_str_eq(wrong, "", "kiln audit finds: %s", wrong);
    free(wrong);
    ledger_free(bank.ledger);
    holder_free(bank.mine);
    holder_free(bank.others);
    db_close(bank.db, NULL, NULL);
    support_loop_done(&bank.loop);
    free(bank.url);
}

static inline const char *keep(size_t at, const char *text)
{
    (void)snprintf(bank.text[at], sizeof bank.text[at], "%s", text);
    return bank.text[at];
}

static inline void answered(enum err added)
{
    cr_assert_eq(added, ERR_OK);
    cr_assert(support_run_count(&bank.loop, &bank.answers, 1, WAIT_MS));
    bank.answers = 0;
}

static inline void on_granted(void *ctx, enum err err, const struct ledger_granted *granted)
{
    (void)ctx;
    bank.err = err;
    if (granted)
        bank.granted = *granted;
    bank.answers++;
}

static inline int grant(int64_t amount_mc, const char *reference)
{
    answered(ledger_grant(bank.ledger, app, "default", amount_mc, reference, on_granted, NULL));
    cr_expect_eq(bank.err, ERR_OK);
    return (int)bank.granted.verdict;
}

static inline void on_accepted(void *ctx, enum err err, const struct ledger_accepted *accepted)
{
    (void)ctx;
    bank.err = err;
    if (accepted) {
        bank.accepted = *accepted;
        bank.accepted.job = keep(0, accepted->job);
        bank.accepted.created_at = keep(1, accepted->created_at);
    }
    bank.answers++;
}

static inline struct ledger_accept order(const char *job)
{
    return (struct ledger_accept){ .job = job,
                                   .app = app,
                                   .account = "default",
                                   .operation = "lumen.render",
                                   .provider = "lumen",
                                   .params = "{\"prompt\":\"a \\\"kiln\\\"\"}",
                                   .units = 4,
                                   .unit_mc = 1000,
                                   .price_version = "1",
                                   .deadline_s = 3600,
                                   .on_unknown = "fail" };
}

static inline int accept_row(const struct ledger_accept *row)
{
    answered(ledger_accept(bank.ledger, row, on_accepted, NULL));
    cr_expect_eq(bank.err, ERR_OK, "%s", err_word(bank.err));
    return (int)bank.accepted.verdict;
}

/* A new job in bank.job, accepted. */
static inline const char *new_job(void)
{
    uuid_v7(bank.job);
    struct ledger_accept row = order(bank.job);
    cr_assert_eq(accept_row(&row), LEDGER_ACCEPTED);
    return bank.job;
}

static inline void on_started(void *ctx, enum err err, const struct holder_started *started)
{
    (void)ctx;
    bank.err = err;
    if (started) {
        bank.started = *started;
        bank.started.ref = keep(2, started->ref);
    }
    bank.answers++;
}

static inline const char *start_noted(struct holder *h, const char *job, bool unsent, int64_t attempt, const char *note)
{
    answered(holder_start(h, job, unsent, attempt, note, on_started, NULL));
    cr_expect_eq(bank.err, ERR_OK);
    return start_verdict_name[bank.started.verdict];
}

static inline const char *start(struct holder *h, const char *job)
{
    return start_noted(h, job, false, 0, NULL);
}

static inline void on_verdict(void *ctx, enum err err, enum holder_verdict verdict)
{
    (void)ctx;
    bank.err = err;
    bank.verdict = verdict;
    bank.answers++;
}

static inline int verdict_of(enum err added)
{
    answered(added);
    cr_expect_eq(bank.err, ERR_OK);
    return (int)bank.verdict;
}

static inline void on_settled(void *ctx, enum err err, const struct ledger_settled *settled)
{
    (void)ctx;
    bank.err = err;
    if (settled) {
        bank.settled = *settled;
        bank.settled.state = keep(0, settled->state);
    }
    bank.answers++;
}

static inline struct ledger_settle outcome(const char *job, enum ledger_outcome what)
{
    return (struct ledger_settle){ .job = job,
                                   .fence = bank.started.fence,
                                   .attempt = bank.started.attempt,
                                   .outcome = what,
                                   .code = what == OUTCOME_DELIVERED ? ERR_OK : ERR_PROVIDER_ERROR,
                                   .klass = CLASS_ANSWERED,
                                   .units = 4,
                                   .cost_microusd = -1,
                                   .counts = true };
}

static inline int settle_row(const struct ledger_settle *row)
{
    answered(ledger_settle(bank.ledger, row, on_settled, NULL));
    return bank.err == ERR_OK ? (int)bank.settled.verdict : -1;
}

static inline void on_canceled(void *ctx, enum err err, const struct ledger_canceled *canceled)
{
    (void)ctx;
    bank.err = err;
    if (canceled) {
        bank.canceled = *canceled;
        bank.canceled.holder = keep(0, canceled->holder);
        bank.canceled.provider = keep(1, canceled->provider);
        bank.canceled.ref = keep(2, canceled->ref);
    }
    bank.answers++;
}

static inline int cancel(const char *job, const char *of_app)
{
    answered(ledger_cancel(bank.ledger, job, of_app, on_canceled, NULL));
    cr_expect_eq(bank.err, ERR_OK);
    return (int)bank.canceled.verdict;
}
#endif
