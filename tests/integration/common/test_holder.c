/* test_holder.c - every verdict of start, checkpoint, hand back and lost; what is mine; the beat. */
#include "common/base/clock.h"
#include "tests/integration/common/money.h"

SUPPORT_SERVICES();

static void one_job(void)
{
    bank_open(0);
    grant(10000000, "r");
    new_job();
}

Test(holder, start_says_go_once_and_again_to_who_sent_nothing)
{
    one_job();
    cr_expect_str_eq(start(bank.mine, bank.job), "go");
    cr_expect_eq(bank.started.fence, 1);
    cr_expect_eq(bank.started.attempt, 1);
    cr_expect(bank.started.remaining_ms > 3590000 && bank.started.remaining_ms <= 3600000);
    cr_expect_str_eq(start_noted(bank.mine, bank.job, true, 0, NULL), "go");
    cr_expect_eq(bank.started.fence, 1, "the same attempt, still mine");
    cr_expect_str_eq(start(bank.others, bank.job), "busy");
    cr_expect_str_eq(start(bank.mine, bank.job), "unknown", "me without memory of it");
    cr_expect_eq(bank.started.fence, 2);
    cr_expect_eq(bank.started.attempt, 1);
    bank_close();
}

Test(holder, start_resumes_what_has_a_reference_on_disk_or_noted)
{
    one_job();
    cr_assert_str_eq(start(bank.mine, bank.job), "go");
    cr_expect_str_eq(start_noted(bank.mine, bank.job, false, 1, "{\"ref\":\"noted\"}"), "resume");
    cr_expect_str_eq(bank.started.ref, "noted");
    cr_expect_geq(bank.started.attempt_age_ms, 0);
    cr_expect_str_eq(start(bank.mine, bank.job), "resume", "adopted: on disk now");
    cr_expect_str_eq(bank.started.ref, "noted");

    new_job();
    cr_assert_str_eq(start(bank.mine, bank.job), "go");
    cr_expect_str_eq(start_noted(bank.mine, bank.job, false, 1, "{\"outcome\":{\"units\":1}}"), "settle");
    cr_expect_str_eq(start_noted(bank.mine, bank.job, false, 7, "{\"ref\":\"of another attempt\"}"), "unknown");
    bank_close();
}

Test(holder, start_puts_off_what_is_early_finished_or_asked_by_the_dead)
{
    char job[UUID_TEXT], early[UUID_TEXT], at[RFC3339_TEXT];

    one_job();
    uuid_v7(job);
    cr_expect_str_eq(start(bank.mine, job), "finished", "nobody knows it");
    cr_expect_eq(cancel(bank.job, app), CANCEL_CANCELED);
    cr_expect_str_eq(start(bank.mine, bank.job), "finished");
    uuid_v7(early);
    rfc3339_ms(at, clock_wall_ms() + 600000);
    struct ledger_accept row = order(early);
    row.run_at = at;
    cr_assert_eq(accept_row(&row), LEDGER_ACCEPTED);
    cr_expect_str_eq(start(bank.mine, early), "later");
    cr_expect(bank.started.remaining_ms > 500000 && bank.started.remaining_ms <= 600000);
    free(support_sql(bank.url, "update workers set dead_at = kiln_now()"));
    cr_expect_str_eq(start(bank.mine, early), "dead");
    alive(me);
    cr_expect_str_eq(start(bank.mine, early), "later");
    bank_close();
}

Test(holder, a_checkpoint_is_saved_by_the_holder_only)
{
    one_job();
    cr_assert_str_eq(start(bank.mine, bank.job), "go");
    cr_expect_eq(verdict_of(holder_checkpoint(bank.mine, bank.job, 1, 1, "r", "req", on_verdict, NULL)), HOLDER_DONE);
    cr_expect_eq(verdict_of(holder_checkpoint(bank.mine, bank.job, 1, 1, "r", "req", on_verdict, NULL)), HOLDER_DONE);
    cr_expect_eq(verdict_of(holder_checkpoint(bank.others, bank.job, 1, 1, "x", NULL, on_verdict, NULL)), HOLDER_STALE);
    cr_expect_eq(cancel(bank.job, app), CANCEL_CANCELED);
    cr_expect_eq(verdict_of(holder_checkpoint(bank.mine, bank.job, 1, 1, "r", NULL, on_verdict, NULL)),
                 HOLDER_FINISHED);
    char *ref = support_sql(bank.url, "select ref from attempts");
    cr_expect_str_eq(ref, "r");
    free(ref);
    bank_close();
}

Test(holder, a_job_is_handed_back_with_its_reference_or_if_it_was_never_sent)
{
    one_job();
    cr_assert_str_eq(start(bank.mine, bank.job), "go");
    cr_expect_eq(verdict_of(holder_handback(bank.mine, bank.job, 1, false, on_verdict, NULL)), HOLDER_OPEN);
    cr_expect_eq(verdict_of(holder_handback(bank.mine, bank.job, 9, true, on_verdict, NULL)), HOLDER_STALE);
    cr_expect_eq(verdict_of(holder_handback(bank.mine, bank.job, 1, true, on_verdict, NULL)), HOLDER_DONE);
    cr_expect_str_eq(start(bank.others, bank.job), "go");
    verdict_of(holder_checkpoint(bank.others, bank.job, 2, 2, "r", NULL, on_verdict, NULL));
    cr_expect_eq(verdict_of(holder_handback(bank.others, bank.job, 2, false, on_verdict, NULL)), HOLDER_DONE);
    cr_expect_str_eq(start(bank.mine, bank.job), "resume");
    cr_expect_eq(cancel(bank.job, app), CANCEL_CANCELED);
    cr_expect_eq(verdict_of(holder_handback(bank.mine, bank.job, 3, false, on_verdict, NULL)), HOLDER_FINISHED);
    bank_close();
}

Test(holder, the_third_worker_lost_ends_the_job)
{
    one_job();
    for (int i = 1; i <= 3; i++) {
        start(bank.mine, bank.job);
        enum holder_verdict want = i < 3 ? HOLDER_DONE : HOLDER_FINISHED;
        cr_expect_eq(verdict_of(holder_lost(bank.mine, bank.job, i + 7, on_verdict, NULL)), HOLDER_STALE);
        cr_expect_eq(verdict_of(holder_lost(bank.mine, bank.job, i, on_verdict, NULL)), want);
        cr_expect_eq(verdict_of(holder_lost(bank.mine, bank.job, i, on_verdict, NULL)), want, "asked again");
    }
    cr_expect_eq(support_sql_int(bank.url, "select count(*) from jobs where error_code = 'worker_lost'"), 1);
    bank_close();
}

static int mine_jobs;
static int64_t mine_fences;

static void on_mine(void *ctx, enum err err, const char *job, int64_t fence)
{
    (void)ctx;
    cr_assert_eq(err, ERR_OK);
    if (job) {
        mine_jobs++;
        mine_fences += fence;
    } else {
        bank.answers++;
    }
}

Test(holder, mine_is_told_in_full_also_when_it_is_much)
{
    static char jobs[2499][UUID_TEXT]; /* pages of 1000, and the last one partly filled */

    one_job();
    cr_assert_str_eq(start(bank.mine, bank.job), "go");
    new_job();
    cr_assert_str_eq(start(bank.others, bank.job), "go");
    answered(holder_mine(bank.mine, bank.db, on_mine, NULL));
    cr_expect_eq(mine_jobs, 1);
    cr_expect_eq(mine_fences, 1);
    mine_jobs = 0;
    for (size_t i = 0; i < ARRAY_LEN(jobs); i++) {
        uuid_v7(jobs[i]);
        struct ledger_accept row = order(jobs[i]);
        row.units = 1;
        cr_assert_eq(ledger_accept(bank.ledger, &row, on_accepted, NULL), ERR_OK);
    }
    cr_assert(support_run_count(&bank.loop, &bank.answers, ARRAY_LEN(jobs), WAIT_MS));
    bank.answers = 0;
    for (size_t i = 0; i < ARRAY_LEN(jobs); i++)
        cr_assert_eq(holder_start(bank.mine, jobs[i], false, 0, NULL, on_started, NULL), ERR_OK);
    cr_assert(support_run_count(&bank.loop, &bank.answers, ARRAY_LEN(jobs), WAIT_MS));
    bank.answers = 0;
    answered(holder_mine(bank.mine, bank.db, on_mine, NULL));
    cr_expect_eq(mine_jobs, 1 + (int)ARRAY_LEN(jobs));
    bank_close();
}

/* --- the beat --- */

static int beats, dead_seen, left;
static int64_t began[16];
static const char *wanted_dead;

static void on_beat(void *ctx, int64_t began_ms)
{
    (void)ctx;
    if (beats < 16)
        began[beats] = began_ms;
    beats++;
}

static void on_dead(void *ctx, const char *const *workers, size_t count)
{
    (void)ctx;
    for (size_t i = 0; i < count; i++)
        dead_seen += wanted_dead && strcmp(workers[i], wanted_dead) == 0;
}

static void on_left(void *ctx)
{
    (void)ctx;
    left++;
}

static struct beat *beat_of(const char *worker, struct db *db)
{
    return beat_new(&(struct beat_config){ .db = db,
                                           .loop = &bank.loop,
                                           .worker = worker,
                                           .info = "{\"host\":\"here\"}",
                                           .on_beat = on_beat,
                                           .on_dead = on_dead });
}

Test(holder, a_beat_comes_each_second_and_whoever_is_silent_is_dead_after_two_looks)
{
    bank_open(0);
    struct beat *b = beat_of(me, bank.db);
    cr_assert(support_run_count(&bank.loop, &beats, 3, WAIT_MS));
    for (int i = 1; i < 3; i++)
        cr_expect(began[i] - began[i - 1] >= 900 && began[i] - began[i - 1] < 1900, "%d ms",
                  (int)(began[i] - began[i - 1]));
    cr_expect_geq(support_sql_int(bank.url, "select beat from workers where info is not null"), 3);
    cr_expect_eq(dead_seen, 0);
    wanted_dead = other; /* beat once, when the bank opened */
    cr_assert(support_run_count(&bank.loop, &dead_seen, 1, WAIT_MS));
    cr_expect_geq(beats, 5, "not before two looks 2.5 s apart");
    beat_free(b, NULL, NULL);
    bank_close();
}

Test(holder, who_leaves_is_dead_at_once_and_stays_so)
{
    bank_open(0);
    wanted_dead = me;
    struct db *second = db_new(&bank.loop, &(struct db_config){ .url = bank.url, .name = "second" });
    struct beat *mine = beat_of(me, bank.db), *looking = beat_of(NULL, second);
    cr_assert(support_run_count(&bank.loop, &beats, 2, WAIT_MS));
    cr_expect_eq(dead_seen, 0);
    beat_leave(mine, on_left, NULL);
    cr_assert(support_run_count(&bank.loop, &left, 1, WAIT_MS));
    cr_expect_eq(support_sql_int(bank.url, "select count(*) from workers where dead_at is not null"), 1);
    cr_assert(support_run_count(&bank.loop, &dead_seen, 2, WAIT_MS));
    beat_free(mine, NULL, NULL);
    beat_free(looking, NULL, NULL);
    db_close(second, NULL, NULL);
    bank_close();
}
