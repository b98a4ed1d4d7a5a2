/* test_settle.c - checkpoint, settle, hand back, losses: what the holder of a job may write, and what a repeated, a
 * late or a stale call does. */
#include "tests/schema/ask.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#define MONEY                                                                                                          \
    "select state, captured_mc, (select sum(amount) from ledger where job_id = j.id and kind = 'capture'), "           \
    "(select sum(amount) from ledger where job_id = j.id and kind = 'release'), error_code from jobs j where id = "
#define SETTLE "select verdict, state from "

static PGconn *running(void) /* jobs 1 to 4 (on_unknown retry) and 5 (fail) run at worker 1; a hold of 400 each */
{
    PGconn *c = test_db();

    DO(c, "select t_grant('a', 100000)");
    DO(c, "select t_accept(array[j(1), j(2), j(3), j(4)])");
    DO(c, "select t_accept(array[j(5)], on_unknown => 'fail')");
    DO(c, "select t_beat(1), t_beat(2)");
    ANSWER(c, "5", "select count(*) from t_start(1, array[j(1), j(2), j(3), j(4), j(5)]) where verdict = 'go'");
    return c;
}

Test(checkpoint, saves_the_reference_once_and_again_the_same)
{
    PGconn *c = running();

    ANSWER(c, "saved", "select t_checkpoint(1, j(1), 1, 1, 'ref')");
    ANSWER(c, "ref|accepted|rq|open", "select ref, class, request_id, state from attempts where job_id = j(1)");
    ANSWER(c, "saved", "select t_checkpoint(1, j(1), 1, 1, 'ref')");
    ANSWER(c, "stale", "select t_checkpoint(1, j(1), 1, 1, 'another')");
    ANSWER(c, "stale", "select t_checkpoint(1, j(2), 1, 1, '')");
    ANSWER(c, "stale", "select t_checkpoint(1, j(2), 2, 1, 'x')");
    ANSWER(c, "stale", "select t_checkpoint(2, j(2), 1, 1, 'x')");
    ANSWER(c, "stale", "select t_checkpoint(1, j(2), 1, 2, 'x')");
    ANSWER(c, "ref", "select ref from attempts where job_id = j(1)");
    test_done(c);
}

Test(checkpoint, of_a_job_that_has_ended_is_kept_as_evidence)
{
    PGconn *c = running();

    DO(c, "select t_cancel(j(1))");
    ANSWER(c, "finished", "select t_checkpoint(1, j(1), 1, 1, 'ref')");
    ANSWER(c, "finished", "select t_checkpoint(1, j(99), 1, 1, 'ref')");
    ANSWER(c, "|ref", "select ref, evidence #>> '{late_ref_1,ref}' from attempts where job_id = j(1)");
    test_done(c);
}

Test(settle, delivered_captures_all_and_keeps_the_artifacts)
{
    PGconn *c = running();

    ANSWER(c, "committed|succeeded|3",
           "select verdict, state, version from t_settle(1, array[j(1)], 1, 1, 'delivered', cost => 160000)");
    ANSWER(c, "succeeded|400|400||", MONEY "j(1)");
    ANSWER(c, "closed|answered|rq|160000|t|1",
           "select state, class, request_id, cost_microusd, closed_by = w(1), closed_fence "
           "from attempts where job_id = j(1)");
    ANSWER(c, "4|0|3|t", "select count(*), min(idx), max(idx), bool_and(charged) from artifacts");
    ANSWER(c, "99600|1600", "select balance, held from accounts");
    ANSWER(c, "|t|0",
           "select holder, finished_at is not null, (select count(*) from outbox) from jobs where id = j(1)");
    test_done(c);
}

Test(settle, part_of_it_captures_part_and_releases_the_rest)
{
    PGconn *c = running();

    ANSWER(c, "committed|succeeded", SETTLE "t_settle(1, array[j(1)], 1, 1, 'delivered', 3)");
    ANSWER(c, "succeeded|300|300|100|", MONEY "j(1)");
    ANSWER(
        c, "capture|300|99700|1700 release|100|99700|1600",
        "select kind, amount, balance_after, held_after from ledger where job_id = j(1) and kind <> 'hold' order by id");
    test_done(c);
}

Test(settle, more_than_was_asked_captures_the_hold_and_no_more)
{
    PGconn *c = running();

    ANSWER(c, "committed|succeeded", SETTLE "t_settle(1, array[j(1)], 1, 1, 'delivered', 9)");
    ANSWER(c, "succeeded|400|400||", MONEY "j(1)");
    test_done(c);
}

Test(settle, failed_releases_all_and_says_why)
{
    PGconn *c = running();

    ANSWER(c, "committed|failed", SETTLE "t_settle(1, array[j(1)], 1, 1, 'failed', code => 'content_filtered')");
    ANSWER(c, "failed|0||400|content_filtered", MONEY "j(1)");
    ANSWER(
        c, "message|200|content_filtered|answered",
        "select j.error_message, j.provider_status, a.error_code, a.class from jobs j join attempts a on a.job_id = j.id where j.id = j(1)");
    test_done(c);
}

Test(settle, a_webhook_gets_its_event_in_the_same_statement)
{
    PGconn *c = running();

    DO(c, "update jobs set webhook = '{\"url\":\"https://x\"}' where id in (j(1), j(2))");
    DO(c, "select t_settle(1, array[j(1)], 1, 1, 'delivered'), t_settle(1, array[j(3)], 1, 1, 'delivered')");
    DO(c, "select t_cancel(j(2))");
    DO(c, "select t_settle(1, array[j(1)], 1, 1, 'delivered'), t_cancel(j(2))");
    ANSWER(c, "t|job.succeeded f|job.canceled", "select job_id = j(1), kind from outbox order by id");
    test_done(c);
}

Test(settle, a_retry_waits_keeps_its_money_and_may_move_to_another_lane)
{
    PGconn *c = running();

    ANSWER(c, "requeued|queued|3|5000",
           "select verdict, state, version, run_delay_ms from "
           "t_settle(1, array[j(1)], 1, 1, 'retry', code => 'rate_limited', class => 'refused', delay_ms => 5000)");
    ANSWER(c, "||1|1|p", "select holder, captured_mc, tries, attempt, provider from jobs where id = j(1)");
    ANSWER(c, "closed|refused|rate_limited", "select state, class, error_code from attempts where job_id = j(1)");
    ANSWER(c, "later", "select verdict from t_start(1, array[j(1)])");
    DO(c, "select t_clock('6 s')");
    DO(c, "select t_beat(1)");
    ANSWER(c, "go|2|2|1", "select verdict, fence, attempt, tries from t_start(1, array[j(1)])");
    ANSWER(c, "requeued|queued", SETTLE "t_settle(1, array[j(1)], 2, 2, 'retry', provider => 'q')");
    ANSWER(
        c, "q|p",
        "select provider, (select string_agg(provider, '' order by no) from attempts where job_id = j(1) and no = 1) from jobs where id = j(1)");
    ANSWER(c, "go", "select verdict from t_start(1, array[j(1)])");
    ANSWER(c, "q", "select provider from attempts where job_id = j(1) and state = 'open'");
    test_done(c);
}

Test(settle, the_fifth_attempt_is_the_last)
{
    PGconn *c = running();

    for (int i = 1; i <= 4; i++) {
        char n[2] = { (char)('0' + i), 0 };

        ANSWER(c, "requeued|queued", SETTLE "t_settle(1, array[j(1)], $1::int, $1::int, 'retry')", n);
        ANSWER(c, "go", "select verdict from t_start(1, array[j(1)])");
    }
    ANSWER(c, "committed|failed", SETTLE "t_settle(1, array[j(1)], 5, 5, 'retry', code => 'provider_unavailable')");
    ANSWER(c, "failed|0||400|provider_unavailable", MONEY "j(1)");
    ANSWER(c, "5|5", "select tries, attempt from jobs where id = j(1)");
    test_done(c);
}

Test(settle, a_retry_that_does_not_count_never_runs_out)
{
    PGconn *c = running();

    for (int i = 1; i <= 9; i++) {
        char n[2] = { (char)('0' + i), 0 };

        ANSWER(c, "requeued|queued", SETTLE "t_settle(1, array[j(1)], $1::int, $1::int, 'retry', counts => false)", n);
        ANSWER(c, "go|0", "select verdict, tries from t_start(1, array[j(1)])");
    }
    test_done(c);
}

Test(settle, an_unknown_fate_is_tried_once_more_where_the_operation_allows_it)
{
    PGconn *c = running();

    ANSWER(c, "requeued|queued", SETTLE "t_settle(1, array[j(1)], 1, 1, 'unknown')");
    ANSWER(c, "closed|unknown", "select state, class from attempts where job_id = j(1)");
    ANSWER(c, "go|1|0", "select verdict, unknowns, tries from t_start(1, array[j(1)])");
    ANSWER(c, "committed|failed", SETTLE "t_settle(1, array[j(1)], 2, 2, 'unknown')");
    ANSWER(c, "failed|0||400|outcome_unknown", MONEY "j(1)");
    ANSWER(c, "committed|failed", SETTLE "t_settle(1, array[j(5)], 1, 1, 'unknown')");
    ANSWER(c, "failed|0||400|outcome_unknown", MONEY "j(5)");
    test_done(c);
}

Test(settle, my_own_commit_answers_mine_whatever_became_of_the_job)
{
    PGconn *c = running();
    char *before;

    DO(c, "select t_settle(1, array[j(1)], 1, 1, 'delivered'), t_settle(1, array[j(2)], 1, 1, 'failed'), "
          "t_settle(1, array[j(3)], 1, 1, 'retry'), t_settle(1, array[j(4)], 1, 1, 'unknown')");
    DO(c, "select t_start(2, array[j(4)])");
    before = ASK(c, "select t_state()");
    ANSWER(c, "mine|succeeded|3", "select verdict, state, version from t_settle(1, array[j(1)], 1, 1, 'delivered')");
    ANSWER(c, "mine|failed", SETTLE "t_settle(1, array[j(2)], 1, 1, 'failed')");
    ANSWER(c, "mine|queued|0", "select verdict, state, run_delay_ms from t_settle(1, array[j(3)], 1, 1, 'retry')");
    ANSWER(c, "mine|running", SETTLE "t_settle(1, array[j(4)], 1, 1, 'unknown')");
    ANSWER(c, "finished|succeeded", SETTLE "t_settle(1, array[j(1)], 9, 1, 'delivered')");
    ANSWER(c, before, "select t_state()");
    free(before);
    test_done(c);
}

Test(settle, a_mixed_batch_is_answered_row_by_row_and_a_twin_changes_nothing)
{
    PGconn *c = running();

    DO(c, "select t_cancel(j(3))");
    ANSWER(c, "1|committed|succeeded 2|mine|succeeded 3|finished|canceled 4|finished| 5|committed|succeeded",
           "select ord, verdict, state from t_settle(1, array[j(1), j(1), j(3), j(88), j(2)], 1, 1, 'delivered')");
    ANSWER(c, "8", "select count(*) from artifacts");
    test_done(c);
}

Test(settle, an_outcome_without_a_name_is_refused)
{
    PGconn *c = running();

    ANSWER(c, "ERROR 22023", "select t_settle(1, array[j(1)], 1, 1, 'perhaps')");
    ANSWER(c, "ERROR 22023", "select t_settle(1, array[j(1)], 1, 1, null)");
    test_done(c);
}

Test(settle, a_result_after_kiln_gave_up_is_shown_free) /* M8, invariant 7 */
{
    PGconn *c = running();

    DO(c, "select t_checkpoint(1, j(1), 1, 1, 'ref')");
    DO(c, "select t_clock('11 min')");
    ANSWER(c, "timeout outcome_unknown", "select error_code from kiln_expire(2) order by 1 desc");
    ANSWER(c, "finished|failed", SETTLE "t_settle(1, array[j(1)], 1, 1, 'delivered', 2, cost => 80000)");
    ANSWER(c, "failed|0||400|timeout", MONEY "j(1)");
    ANSWER(c, "2|f|4", "select count(*), bool_or(charged), (select version from jobs where id = j(1)) from artifacts");
    ANSWER(c, "80000|accepted", "select cost_microusd, class from attempts where job_id = j(1)");
    ANSWER(c, "finished|failed|4",
           "select verdict, state, version from t_settle(1, array[j(1)], 1, 1, 'delivered', 2)");
    ANSWER(c, "2", "select count(*) from artifacts"); /* told twice, stored once */
    test_done(c);
}

Test(settle, a_result_after_the_customers_cancel_is_evidence_only)
{
    PGconn *c = running();

    DO(c, "select t_cancel(j(1))");
    ANSWER(c, "finished|canceled", SETTLE "t_settle(1, array[j(1)], 1, 1, 'delivered', 4, cost => 160000)");
    ANSWER(c, "canceled|0||400|canceled", MONEY "j(1)");
    ANSWER(c, "0|160000|delivered|4",
           "select (select count(*) from artifacts), cost_microusd, evidence #>> '{late_1,outcome}', "
           "jsonb_array_length(evidence #> '{late_1,artifacts}') from attempts where job_id = j(1)");
    test_done(c);
}

Test(settle, the_late_result_of_a_worker_that_was_given_up_is_shown_free)
{
    PGconn *c = running();

    DO(c, "select t_kill(1)");
    ANSWER(c, "unknown", "select verdict from t_start(2, array[j(5)])");
    ANSWER(c, "committed|failed", SETTLE "t_settle(2, array[j(5)], 2, 1, 'unknown')");
    ANSWER(c, "finished|failed", SETTLE "t_settle(1, array[j(5)], 1, 1, 'delivered', 4, cost => 7)");
    ANSWER(c, "4|f|failed|0|7",
           "select count(*), bool_or(charged), min(j.state), min(captured_mc), min(t.cost_microusd) "
           "from artifacts a join jobs j on j.id = a.job_id join attempts t on t.job_id = j.id");
    test_done(c);
}

Test(settle, children_are_unblocked_by_the_end_of_their_parents)
{
    PGconn *c = running();

    DO(c, "select t_accept(array[j(10), j(11)])");
    DO(c, "update jobs set blocked_by = array[j(1), j(2)] where id = j(10)");
    DO(c, "update jobs set blocked_by = array[j(2)] where id = j(11)");
    DO(c, "select t_settle(1, array[j(1)], 1, 1, 'delivered')");
    ANSWER(c, "t|2", "select blocked_by = array[j(2)], version from jobs where id = j(10)");
    ANSWER(c, "later later", "select verdict from t_start(1, array[j(10), j(11)])");
    DO(c, "select t_settle(1, array[j(2)], 1, 1, 'failed')");
    ANSWER(c, "go go", "select verdict from t_start(1, array[j(10), j(11)])");
    test_done(c);
}

/* M4: the process or the statement dies in the middle of the finish. */
Test(settle, half_a_finish_does_not_exist)
{
    PGconn *c = running();
    char *before = ASK(c, "select t_state()");

    DO(c, "create function boom() returns trigger language plpgsql as $$ begin raise exception 'boom'; end $$");
    DO(c, "create trigger boom before update on accounts for each row execute function boom()");
    ANSWER(c, "ERROR P0001", "select t_settle(1, array[j(1)], 1, 1, 'delivered')");
    ANSWER(c, "ERROR P0001", "select t_cancel(j(2))");
    DO(c, "drop trigger boom on accounts");
    ANSWER(c, before, "select t_state()");
    ANSWER(c, "committed|succeeded", SETTLE "t_settle(1, array[j(1)], 1, 1, 'delivered')");
    free(before);
    test_done(c);
}

/* Its callers look first; this is what stands when one of them forgets to. */
Test(settle, a_job_that_has_ended_cannot_be_finished_again_by_anybody)
{
    static const char *const again =
        "select kiln_finish(array[j(1)], array['%s'], array[null::int], array[null::text], "
        "array[null::text], array[null::int])";
    static const char *const states[] = { "succeeded", "failed", "canceled" };
    PGconn *c = running();
    char *before, sql[256];

    ANSWER(c, "committed|failed", SETTLE "t_settle(1, array[j(1)], 1, 1, 'failed')");
    before = ASK(c, "select t_state()");
    for (size_t i = 0; i < 3; i++) {
        snprintf(sql, sizeof sql, again, states[i]);
        ANSWER(c, "ERROR XX000", sql);
        ANSWER(c, before, "select t_state()");
    }
    free(before);
    test_done(c);
}

Test(handback, a_waiting_job_keeps_its_attempt_and_loses_its_holder)
{
    PGconn *c = running();

    DO(c, "select t_checkpoint(1, j(1), 1, 1, 'ref')");
    ANSWER(c, "returned", "select t_handback(1, j(1), 1)");
    ANSWER(c, "running||1|2", "select state, holder, fence, version from jobs where id = j(1)");
    ANSWER(c, "returned", "select t_handback(1, j(1), 1)"); /* the reply was lost */
    ANSWER(c, "resume|2|1|ref", "select verdict, fence, attempt, ref from t_start(2, array[j(1)])");
    ANSWER(c, "stale", "select t_handback(1, j(1), 1)");
    test_done(c);
}

Test(handback, what_may_have_been_sent_stays)
{
    PGconn *c = running();
    char *before = ASK(c, "select t_state()");

    ANSWER(c, "open", "select t_handback(1, j(1), 1)");
    ANSWER(c, "stale", "select t_handback(2, j(1), 1, true)");
    ANSWER(c, "stale", "select t_handback(1, j(1), 2, true)");
    ANSWER(c, "finished", "select t_handback(1, j(99), 1, true)");
    ANSWER(c, before, "select t_state()");
    free(before);
    test_done(c);
}

Test(handback, what_was_surely_not_sent_goes_back_to_the_queue_and_burns_nothing)
{
    PGconn *c = running();

    ANSWER(c, "returned", "select t_handback(1, j(1), 1, true)");
    ANSWER(c, "queued||0|0", "select state, holder, tries, unknowns from jobs where id = j(1)");
    ANSWER(c, "closed|not_sent", "select state, class from attempts where job_id = j(1)");
    ANSWER(c, "returned", "select t_handback(1, j(1), 1, true)");
    ANSWER(c, "go|2|2", "select verdict, fence, attempt from t_start(2, array[j(1)])");
    DO(c, "select t_checkpoint(1, j(2), 1, 1, 'ref')"); /* unsent is not believed over a reference */
    ANSWER(c, "returned", "select t_handback(1, j(2), 1, true)");
    ANSWER(c, "running|ref", "select j.state, a.ref from jobs j join attempts a on a.job_id = j.id where j.id = j(2)");
    test_done(c);
}

Test(lost, the_third_worker_lost_in_storing_ends_the_job)
{
    PGconn *c = running();

    DO(c, "select t_checkpoint(1, j(1), 1, 1, 'ref')");
    ANSWER(c, "counted", "select t_lost(1, j(1), 1)");
    ANSWER(c, "counted", "select t_lost(1, j(1), 1)"); /* once a fence */
    ANSWER(c, "1", "select losses from jobs where id = j(1)");
    ANSWER(c, "stale", "select t_lost(2, j(1), 1)");
    DO(c, "select t_start(1, array[j(1)])");
    ANSWER(c, "counted", "select t_lost(1, j(1), 2)");
    DO(c, "select t_start(1, array[j(1)])");
    ANSWER(c, "worker_lost", "select t_lost(1, j(1), 3)");
    ANSWER(c, "worker_lost", "select t_lost(1, j(1), 3)");
    ANSWER(c, "failed|0||400|worker_lost", MONEY "j(1)");
    test_done(c);
}
