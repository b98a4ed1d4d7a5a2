/* test_start.c - kiln_start decides everything: each case of the protocol alone, then with two who want the same job.
 */
#include "tests/schema/ask.h"
#include "tests/schema/crowd.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VERDICT "select verdict, fence, attempt, ref from "

static PGconn *with_jobs(void) /* five queued jobs, workers 1 and 2 alive */
{
    PGconn *c = test_db();

    DO(c, "select t_grant('a', 1000000)");
    DO(c, "select t_accept(array[j(1), j(2), j(3), j(4), j(5)])");
    DO(c, "select t_beat(1), t_beat(2)");
    return c;
}

Test(start, case_0_who_never_beat_or_is_marked_dead_starts_nothing)
{
    PGconn *c = with_jobs();

    ANSWER(c, "dead||| dead|||", VERDICT "t_start(7, array[j(1), j(99)])");
    DO(c, "select t_kill(1)");
    ANSWER(c, "dead|||", VERDICT "t_start(1, array[j(1)])");
    ANSWER(c, "5", "select count(*) from jobs where state = 'queued' and fence = 0");
    DO(c, "select t_beat(1)");
    ANSWER(c, "go|1|1|", VERDICT "t_start(1, array[j(1)])");
    test_done(c);
}

Test(start, case_1_finished_and_unknown_jobs_are_finished)
{
    PGconn *c = with_jobs();

    DO(c, "select t_cancel(j(1))");
    ANSWER(c, "finished||| finished|||", VERDICT "t_start(1, array[j(1), j(99)])");
    test_done(c);
}

Test(start, case_1_a_job_whose_time_has_not_come_is_later)
{
    PGconn *c = with_jobs();

    DO(c, "select t_accept(array[j(6)], run_at => kiln_now() + interval '10 s')");
    ANSWER(c, "later|||t",
           "select verdict, fence, attempt, remaining_ms between 9000 and 10000 from t_start(1, array[j(6)])");
    DO(c, "select t_clock('11 s')");
    ANSWER(c, "go|1|1|", VERDICT "t_start(1, array[j(6)])");
    DO(c, "update jobs set blocked_by = array[j(2)] where id = j(1)");
    ANSWER(c, "later|t", "select verdict, remaining_ms > 0 from t_start(1, array[j(1)])");
    test_done(c);
}

Test(start, case_2_a_queued_job_goes_with_its_attempt_on_disk)
{
    PGconn *c = with_jobs();

    ANSWER(c, "go|1|1||0|0|t",
           "select verdict, fence, attempt, ref, unknowns, tries, remaining_ms between 599000 and 600000 "
           "from t_start(1, array[j(1)])");
    ANSWER(c, "running|1|1|2|t|t",
           "select state, fence, attempt, version, holder = w(1), started_at is not null from jobs where id = j(1)");
    ANSWER(c, "1|1|open||p", "select no, fence, state, class, provider from attempts");
    test_done(c);
}

Test(start, case_3_unsent_and_mine_goes_on_with_the_same_attempt)
{
    PGconn *c = with_jobs();

    DO(c, "select t_start(1, array[j(1)])");
    ANSWER(c, "go|1|1|", VERDICT "t_start(1, array[j(1)], true)");
    ANSWER(c, "go|1|1|", VERDICT "t_start(1, array[j(1)], true)");
    ANSWER(c, "1", "select count(*) from attempts");
    test_done(c);
}

Test(start, case_3_unsent_is_not_believed_of_an_attempt_that_another_opened)
{
    PGconn *c = with_jobs();

    DO(c, "select t_start(1, array[j(1)])");
    DO(c, "select t_kill(1)");
    ANSWER(c, "unknown|2|1|", VERDICT "t_start(2, array[j(1)], true)");
    ANSWER(c, "unknown|3|1|", VERDICT "t_start(2, array[j(1)], true)"); /* holder is 2, the attempt carries fence 1 */
    DO(c, "select t_beat(1)");
    ANSWER(c, "busy|||", VERDICT "t_start(1, array[j(1)], true)");
    test_done(c);
}

Test(start, case_3_unsent_is_not_believed_when_a_reference_is_on_disk)
{
    PGconn *c = with_jobs();

    DO(c, "select t_start(1, array[j(1)])");
    DO(c, "select t_checkpoint(1, j(1), 1, 1, 'ref')");
    ANSWER(c, "resume|2|1|ref", VERDICT "t_start(1, array[j(1)], true)");
    test_done(c);
}

Test(start, case_4_a_living_holder_keeps_its_job)
{
    PGconn *c = with_jobs();

    DO(c, "select t_start(1, array[j(1), j(2)])");
    DO(c, "select t_checkpoint(1, j(2), 1, 1, 'ref')");
    ANSWER(c, "busy||| busy|||", VERDICT "t_start(2, array[j(1), j(2)])");
    ANSWER(c, "busy||| busy|||", VERDICT "t_start(2, array[j(1), j(2)], false, 1, '{\"ref\":\"x\"}')");
    ANSWER(c, "1 1", "select fence from jobs where state = 'running'");
    test_done(c);
}

Test(start, case_5_a_reference_on_disk_resumes_from_a_dead_a_vanished_or_no_holder_or_from_oneself)
{
    PGconn *c = with_jobs();

    DO(c, "select t_start(1, array[j(1)])");
    DO(c, "select t_checkpoint(1, j(1), 1, 1, 'ref')");
    DO(c, "select t_kill(1)");
    ANSWER(c, "resume|2|1|ref", VERDICT "t_start(2, array[j(1)])");
    ANSWER(c, "resume|3|1|ref", VERDICT "t_start(2, array[j(1)])"); /* me, without memory of it */
    ANSWER(c, "returned", "select t_handback(2, j(1), 3)");
    ANSWER(c, "resume|4|1|ref", VERDICT "t_start(2, array[j(1)])");
    DO(c, "delete from workers where id = w(2)");
    DO(c, "select t_beat(1)");
    ANSWER(c, "resume|5|1|ref", VERDICT "t_start(1, array[j(1)])");
    ANSWER(c, "1|1|accepted", "select no, fence, class from attempts");
    test_done(c);
}

Test(start, case_5_a_note_of_this_attempt_is_adopted)
{
    PGconn *c = with_jobs();

    DO(c, "select t_start(1, array[j(1)])");
    DO(c, "select t_kill(1)");
    ANSWER(c, "resume|2|1|noted",
           VERDICT "t_start(2, array[j(1)], false, 1, '{\"ref\":\"noted\",\"request_id\":\"rq9\"}')");
    ANSWER(c, "noted|rq9|accepted|open", "select ref, request_id, class, state from attempts");
    ANSWER(c, "resume|3|1|noted", VERDICT "t_start(2, array[j(1)], false, 1, '{\"ref\":\"later\"}')"); /* disk wins */
    test_done(c);
}

Test(start, case_5_a_noted_outcome_is_settled_without_asking_the_provider)
{
    PGconn *c = with_jobs();

    DO(c, "select t_start(1, array[j(1)])");
    DO(c, "select t_kill(1)");
    ANSWER(c, "settle|2|1|", VERDICT "t_start(2, array[j(1)], false, 1, '{\"outcome\":{\"verdict\":\"delivered\"}}')");
    ANSWER(c, "committed|succeeded", "select verdict, state from t_settle(2, array[j(1)], 2, 1, 'delivered')");
    test_done(c);
}

Test(start, case_5_a_note_of_another_attempt_or_without_content_is_ignored)
{
    PGconn *c = with_jobs();

    DO(c, "select t_start(1, array[j(1)])");
    ANSWER(c, "requeued", "select verdict from t_settle(1, array[j(1)], 1, 1, 'retry')");
    ANSWER(c, "go|2|2|", VERDICT "t_start(1, array[j(1)])");
    DO(c, "select t_kill(1)");
    ANSWER(c, "unknown|3|2|", VERDICT "t_start(2, array[j(1)], false, 1, '{\"ref\":\"old\"}')");
    ANSWER(c, "unknown|4|2|", VERDICT "t_start(2, array[j(1)], false, 1, '{\"outcome\":{}}')");
    ANSWER(c, "unknown|5|2|", VERDICT "t_start(2, array[j(1)], false, 2, '{\"ref\":\"\"}')");
    ANSWER(c, "unknown|6|2|", VERDICT "t_start(2, array[j(1)], false, null, '{\"ref\":\"x\"}')");
    ANSWER(c, "", "select ref from attempts where ref is not null");
    test_done(c);
}

Test(start, a_take_over_is_no_new_attempt_and_shows_its_age)
{
    PGconn *c = with_jobs();

    DO(c, "select t_start(1, array[j(1)])");
    DO(c, "select t_kill(1)");
    DO(c, "select t_clock('30 s')");
    DO(c, "select t_beat(2)");
    ANSWER(
        c, "unknown|1|t|2",
        "select verdict, attempt, attempt_age_ms between 30000 and 40000, (select version from jobs where id = j(1)) "
        "from t_start(2, array[j(1)])");
    test_done(c);
}

Test(start, the_same_job_twice_in_one_call_goes_once)
{
    PGconn *c = with_jobs();

    ANSWER(c, "go|1|1| busy||| go|1|1|", VERDICT "t_start(1, array[j(1), j(1), j(2)])");
    test_done(c);
}

Test(start, rows_of_one_call_are_answered_in_their_order_each_by_its_own_case)
{
    PGconn *c = with_jobs();

    DO(c, "select t_start(2, array[j(1), j(2), j(3)])");
    DO(c, "select t_checkpoint(2, j(2), 1, 1, 'r2')");
    DO(c, "select t_handback(2, j(2), 1)");
    DO(c, "select t_cancel(j(4))");
    ANSWER(c, "1|finished| 2|go|1 3|busy| 4|resume|2 5|finished|",
           "select ord, verdict, fence from t_start(1, array[j(4), j(5), j(1), j(2), j(77)])");
    test_done(c);
}

/* Whoever is overtaken may not write any more: nothing but evidence changes. */
Test(start, a_stale_fence_changes_nothing)
{
    PGconn *c = with_jobs();
    char *before;

    DO(c, "select t_start(1, array[j(1), j(2)])");
    DO(c, "select t_checkpoint(1, j(2), 1, 1, 'ref')");
    DO(c, "select t_kill(1)");
    DO(c, "select t_start(2, array[j(1), j(2)])");
    DO(c, "select t_beat(1)");
    before = ASK(
        c,
        "select md5(string_agg(j::text, '')) || (select string_agg(a.state || coalesce(a.ref, '') || coalesce(a.class, ''), '') "
        "from attempts a) || (select count(*) from ledger) from jobs j");
    ANSWER(c, "stale", "select t_checkpoint(1, j(1), 1, 1, 'mine')");
    ANSWER(c, "stale stale", "select verdict from t_settle(1, array[j(1), j(2)], 1, 1, 'delivered')");
    ANSWER(c, "stale",
           "select verdict from t_settle(1, array[j(1)], 2, 1, 'delivered')"); /* the fence, not the holder */
    ANSWER(c, "stale", "select verdict from t_settle(2, array[j(1)], 1, 1, 'delivered')");
    ANSWER(c, "stale", "select verdict from t_settle(2, array[j(1)], 2, 2, 'delivered')"); /* no such attempt */
    ANSWER(c, "stale stale", "select verdict from t_settle(1, array[j(1), j(2)], 1, 1, 'retry')");
    ANSWER(c, "stale", "select t_handback(1, j(2), 1)");
    ANSWER(c, "stale", "select t_handback(1, j(1), 1, true)");
    ANSWER(c, "stale", "select t_lost(1, j(2), 1)");
    ANSWER(
        c, before,
        "select md5(string_agg(j::text, '')) || (select string_agg(a.state || coalesce(a.ref, '') || coalesce(a.class, ''), '') "
        "from attempts a) || (select count(*) from ledger) from jobs j");
    ANSWER(c, "t|t", "select evidence ? 'late_1', evidence ? 'late_ref_1' from attempts where job_id = j(1)");
    ANSWER(c, "t", "select evidence #>> '{late_1,outcome}' = 'retry' from attempts where job_id = j(1)");
    free(before);
    test_done(c);
}

struct race {
    int rounds;
    int won[8], lost[8];
    const char *win, *lose;
};

/* Everybody asks for the jobs 1…rounds, one after the other. */
static int want_all(PGconn *c, int number, void *arg)
{
    struct race *r = arg;
    int wrong = 0;

    for (int i = 1; i <= r->rounds; i++) {
        char me[16], id[16];
        char *got;

        snprintf(me, sizeof me, "%d", number + 1);
        snprintf(id, sizeof id, "%d", i);
        got = ASK(c, "select verdict from t_start($1, array[j($2)])", me, id);
        if (strcmp(got, r->win) == 0)
            r->won[number]++;
        else if (strcmp(got, r->lose) == 0)
            r->lost[number]++;
        else
            wrong++, fprintf(stderr, "%s\n", got);
        free(got);
    }
    return wrong;
}

static int total(const int n[8])
{
    int s = 0;

    for (int i = 0; i < 8; i++)
        s += n[i];
    return s;
}

Test(start, of_workers_that_race_for_a_job_one_goes)
{
    PGconn *c = test_db();
    struct race r = { .rounds = 500, .win = "go", .lose = "busy" };

    DO(c, "select t_grant('a', 1000000)");
    DO(c, "select t_accept((select array_agg(j(i)) from generate_series(1, 500) i), deadline_s => 3600)");
    DO(c, "select t_beat(i) from generate_series(1, 4) i");
    cr_assert_eq(crowd_run(4, want_all, &r), 0);
    cr_assert_eq(total(r.won), 500);
    cr_assert_eq(total(r.lost), 1500);
    ANSWER(c, "500|500|1", "select count(*), count(distinct job_id), max(fence) from attempts");
    test_done(c);
}

Test(start, of_workers_that_race_for_the_jobs_of_a_dead_one_takes_over)
{
    PGconn *c = test_db();
    struct race r = { .rounds = 500, .win = "resume", .lose = "busy" };

    DO(c, "select t_grant('a', 1000000)");
    DO(c, "select t_accept((select array_agg(j(i)) from generate_series(1, 500) i), deadline_s => 3600)");
    DO(c, "select t_beat(i) from generate_series(1, 4) i");
    DO(c, "select t_beat(9)");
    DO(c, "select t_start(9, (select array_agg(j(i)) from generate_series(1, 500) i))");
    DO(c, "select kiln_checkpoint(w(9), (select array_agg(j(i)) from generate_series(1, 500) i), fill(1::bigint, 500), "
          "fill(1, 500), fill('ref'::text, 500), fill('rq'::text, 500))");
    DO(c, "select t_kill(9)");
    cr_assert_eq(crowd_run(4, want_all, &r), 0);
    cr_assert_eq(total(r.won), 500);
    ANSWER(c, "500|2|2", "select count(*), min(fence), max(fence) from jobs");
    test_done(c);
}

/* Of each column that start writes no index may speak: else each start makes an entry in all of them. */
Test(start, its_update_of_jobs_touches_no_index)
{
    PGconn *c = with_jobs();

    DO(c, "begin");
    DO(c, "select t_start(1, array[j(1), j(2), j(3)])");
    ANSWER(c, "3|3", "select n_tup_upd, n_tup_hot_upd from pg_stat_xact_user_tables where relname = 'jobs'");
    DO(c, "commit");
    test_done(c);
}

/* Locked and read in one statement: what is read is what the lock was waited for. */
Test(start, who_waited_for_the_lock_sees_what_the_first_has_left)
{
    PGconn *c = with_jobs(), *other = test_connect();

    DO(c, "begin");
    DO(c, "select t_start(1, array[j(1), j(2)])");
    cr_assert_eq(PQsendQuery(other, "select string_agg(verdict, ' ' order by ord) from t_start(2, array[j(3), j(2)])"),
                 1);
    while (ask_number(c, "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and pid <> "
                         "pg_backend_pid() and datname = current_database()") == 0)
        DO(c, "select pg_sleep(0.01)");
    DO(c, "commit");

    PGresult *r = PQgetResult(other);
    cr_expect_str_eq(PQgetvalue(r, 0, 0), "go busy");
    PQclear(r);
    PQfinish(other);
    test_done(c);
}
