/* test_ledger.c - every verdict of what moves money, against the real schema. */
#include "tests/integration/common/money.h"

SUPPORT_SERVICES();

Test(ledger, a_grant_counts_once_for_its_reference)
{
    struct ledger_granted granted;
    char message[256] = "";

    bank_open(0);
    cr_expect_eq(grant(5000, "paid-1"), GRANT_GRANTED);
    cr_expect_eq(bank.granted.balance_mc, 5000);
    cr_expect_eq(grant(5000, "paid-1"), GRANT_REPLAYED);
    cr_expect_eq(grant(6000, "paid-1"), GRANT_MISMATCH);
    cr_expect_eq(bank.granted.balance_mc, 5000);
    cr_expect_eq(ledger_grant_sync(bank.url, app, "default", 1500, "paid-2", &granted, message, sizeof message), ERR_OK,
                 "%s", message);
    cr_expect_eq(granted.verdict, GRANT_GRANTED);
    cr_expect_eq(granted.balance_mc, 6500);
    cr_expect_eq(ledger_grant_sync(bank.url, app, "no such name", 1, "paid-3", &granted, message, sizeof message),
                 ERR_REFUSED);
    cr_expect_neq(message[0], '\0');
    answered(ledger_grant(bank.ledger, app, "no such name", 1, "paid-4", on_granted, NULL));
    cr_expect_eq(bank.err, ERR_REFUSED);
    bank_close();
}

Test(ledger, an_accepted_job_is_held_and_the_same_key_finds_it_again)
{
    char first[UUID_TEXT], second[UUID_TEXT];
    struct ledger_accept row;
    int64_t ms;

    bank_open(0);
    grant(10000, "r");
    uuid_v7(first);
    uuid_v7(second);
    row = order(first);
    row.key = "k";
    row.hash = hash_a;
    row.metadata = "{\"a\":[1,2]}";
    cr_expect_eq(accept_row(&row), LEDGER_ACCEPTED);
    cr_expect_str_eq(bank.accepted.job, first);
    cr_expect_eq(rfc3339_parse(bank.accepted.created_at, &ms), ERR_OK, "%s", bank.accepted.created_at);
    cr_expect_eq(accept_row(&row), LEDGER_ACCEPTED, "the same row again: its reply was lost");
    row.job = second;
    cr_expect_eq(accept_row(&row), LEDGER_REPLAYED);
    cr_expect_str_eq(bank.accepted.job, first);
    row.hash = hash_b;
    cr_expect_eq(accept_row(&row), LEDGER_MISMATCH);
    row = order(second);
    row.units = 7;
    cr_expect_eq(accept_row(&row), LEDGER_INSUFFICIENT);
    cr_expect_eq(bank.accepted.needed_mc, 7000);
    cr_expect_eq(bank.accepted.available_mc, 6000);
    cr_expect_eq(support_sql_int(bank.url, "select count(*) from jobs"), 1);
    cr_expect_eq(support_sql_int(bank.url, "select held from accounts"), 4000);
    bank_close();
}

Test(ledger, a_full_queue_refuses)
{
    char job[UUID_TEXT];

    bank_open(1);
    grant(10000, "r");
    new_job();
    uuid_v7(job);
    struct ledger_accept row = order(job);
    cr_expect_eq(accept_row(&row), LEDGER_QUEUE_FULL);
    bank_close();
}

static int taken, poor;

static void on_one_of_many(void *ctx, enum err err, const struct ledger_accepted *accepted)
{
    (void)ctx;
    cr_assert_eq(err, ERR_OK);
    taken += accepted->verdict == LEDGER_ACCEPTED;
    poor += accepted->verdict == LEDGER_INSUFFICIENT;
    bank.answers++;
}

Test(ledger, an_account_that_can_pay_for_100_gets_100_of_1000)
{
    char job[UUID_TEXT];

    bank_open(0);
    grant(400000, "r");
    for (int i = 0; i < 1000; i++) {
        uuid_v7(job);
        struct ledger_accept row = order(job);
        cr_assert_eq(ledger_accept(bank.ledger, &row, on_one_of_many, NULL), ERR_OK);
        uv_run(&bank.loop, UV_RUN_NOWAIT);
    }
    cr_assert(support_run_count(&bank.loop, &bank.answers, 1000, WAIT_MS));
    cr_expect_eq(taken, 100);
    cr_expect_eq(poor, 900);
    cr_expect_eq(support_sql_int(bank.url, "select held from accounts"), 400000);
    bank_close();
}

Test(ledger, a_delivered_job_is_captured_once)
{
    struct ledger_settle row;

    bank_open(0);
    grant(10000, "r");
    new_job();
    cr_assert_str_eq(start(bank.mine, bank.job), "go");
    row = outcome(bank.job, OUTCOME_DELIVERED);
    row.units = 3;
    row.cost_microusd = 40000;
    row.request_id = "req-1";
    row.artifacts = "[{\"id\":\"00000000-0000-4000-8000-0000000000f1\",\"idx\":0,\"kind\":\"image\","
                    "\"mime\":\"image/png\",\"bytes\":12,\"object\":\"job/x\"}]";
    row.evidence = "{\"usage\":{\"tokens\":12}}";
    cr_expect_eq(settle_row(&row), SETTLE_COMMITTED);
    cr_expect_str_eq(bank.settled.state, "succeeded");
    cr_expect_gt(bank.settled.version, 1);
    cr_expect_eq(settle_row(&row), SETTLE_MINE);
    row.fence++;
    cr_expect_eq(settle_row(&row), SETTLE_FINISHED);
    cr_expect_eq(support_sql_int(bank.url, "select balance from accounts"), 7000);
    cr_expect_eq(support_sql_int(bank.url, "select held from accounts"), 0);
    cr_expect_eq(support_sql_int(bank.url, "select count(*) from artifacts"), 1);
    cr_expect_eq(support_sql_int(bank.url, "select cost_microusd from attempts"), 40000);
    bank_close();
}

Test(ledger, a_retry_goes_back_to_the_queue_and_a_stale_one_changes_nothing)
{
    struct ledger_settle row;

    bank_open(0);
    grant(10000, "r");
    new_job();
    cr_assert_str_eq(start(bank.mine, bank.job), "go");
    row = outcome(bank.job, OUTCOME_RETRY);
    row.klass = CLASS_REFUSED;
    row.provider_status = 429;
    row.delay_ms = 60000;
    row.fence--;
    cr_expect_eq(settle_row(&row), SETTLE_STALE);
    row.fence++;
    cr_expect_eq(settle_row(&row), SETTLE_REQUEUED);
    cr_expect_str_eq(bank.settled.state, "queued");
    cr_expect(bank.settled.delay_ms > 50000 && bank.settled.delay_ms <= 60000);
    cr_expect_eq(support_sql_int(bank.url, "select provider_status from attempts"), 429);
    cr_expect_str_eq(start(bank.mine, bank.job), "later");
    cr_expect(bank.started.remaining_ms > 50000 && bank.started.remaining_ms <= 60000);
    bank_close();
}

Test(ledger, a_settle_that_postgresql_refuses_fails_alone)
{
    struct ledger_settle row;

    bank_open(0);
    grant(10000, "r");
    new_job();
    cr_assert_str_eq(start(bank.mine, bank.job), "go");
    row = outcome(bank.job, OUTCOME_FAILED);
    row.evidence = "{\"said\":\"\\u0000\"}"; /* jsonb takes no NUL */
    cr_expect_eq(settle_row(&row), -1);
    cr_expect_eq(bank.err, ERR_REFUSED);
    row.evidence = NULL;
    cr_expect_eq(settle_row(&row), SETTLE_COMMITTED);
    cr_expect_str_eq(bank.settled.state, "failed");
    bank_close();
}

Test(ledger, a_cancel_releases_and_says_who_held_the_job)
{
    static const char stranger[] = "00000000-0000-4000-8000-00000000000b";

    bank_open(0);
    grant(10000, "r");
    new_job();
    cr_assert_str_eq(start(bank.mine, bank.job), "go");
    verdict_of(holder_checkpoint(bank.mine, bank.job, 1, 1, "ref-1", NULL, on_verdict, NULL));
    cr_expect_eq(cancel(bank.job, stranger), CANCEL_NOT_FOUND);
    cr_expect_eq(cancel(bank.job, app), CANCEL_CANCELED);
    cr_expect_str_eq(bank.canceled.holder, me);
    cr_expect_str_eq(bank.canceled.provider, "lumen");
    cr_expect_str_eq(bank.canceled.ref, "ref-1");
    cr_expect_eq(cancel(bank.job, NULL), CANCEL_FINISHED, "an operator");
    cr_expect_eq(support_sql_int(bank.url, "select held from accounts"), 0);
    bank_close();
}

static size_t expired_count;
static int expired_jobs;
static char expired_last[UUID_TEXT + 16];

static void on_expired(void *ctx, enum err err, const char *job, const char *state, const char *holder, size_t count)
{
    (void)ctx;
    cr_assert_eq(err, ERR_OK);
    if (job) {
        expired_jobs++;
        (void)snprintf(expired_last, sizeof expired_last, "%s %s%s", job, state, holder);
        return;
    }
    expired_count = count;
    bank.answers++;
}

Test(ledger, what_is_past_its_deadline_ends)
{
    char want[UUID_TEXT + 16];

    bank_open(0);
    grant(10000, "r");
    new_job();
    answered(ledger_expire(bank.ledger, 10, on_expired, NULL));
    cr_expect_eq(expired_count, 0);
    shift_clock("2 hours");
    answered(ledger_expire(bank.ledger, 10, on_expired, NULL));
    cr_expect_eq(expired_count, 1);
    cr_expect_eq(expired_jobs, 1);
    (void)snprintf(want, sizeof want, "%s failed", bank.job);
    cr_expect_str_eq(expired_last, want);
    cr_expect_eq(support_sql_int(bank.url, "select held from accounts"), 0);
    bank_close();
}
