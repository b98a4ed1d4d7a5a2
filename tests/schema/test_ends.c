/* test_ends.c - cancel, expire, the beat by which workers live and die, and the reconciler's lease. */
#include "tests/schema/ask.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

static PGconn *with_jobs(void)
{
    PGconn *c = test_db();

    DO(c, "select t_grant('a', 100000)");
    DO(c, "select t_accept(array[j(1), j(2), j(3), j(4)])");
    DO(c, "select t_beat(1), t_beat(2)");
    return c;
}

Test(cancel, releases_all_and_names_the_holder_and_the_reference)
{
    PGconn *c = with_jobs();

    DO(c, "select t_start(1, array[j(1)])");
    DO(c, "select t_checkpoint(1, j(1), 1, 1, 'ref')");
    ANSWER(
        c, "1|canceled|t|p|ref|3 2|canceled||p||2",
        "select ord, verdict, holder = w(1), provider, ref, version from kiln_cancel(array[j(1), j(2)], array[app(), app()])");
    ANSWER(c, "canceled|400 canceled|400",
           "select j.state, l.amount from jobs j join ledger l on l.job_id = j.id and l.kind = 'release'");
    ANSWER(c, "closed|accepted", "select state, class from attempts");
    test_done(c);
}

Test(cancel, again_or_of_an_ended_job_says_finished)
{
    PGconn *c = with_jobs();

    ANSWER(c, "canceled finished", "select verdict from kiln_cancel(array[j(1), j(1)], array[app(), app()])");
    ANSWER(c, "finished||p||2",
           "select verdict, holder, provider, ref, version from kiln_cancel(array[j(1)], array[app()])");
    test_done(c);
}

Test(cancel, of_another_apps_or_no_job_finds_nothing)
{
    PGconn *c = with_jobs();

    ANSWER(c, "not_found|| not_found||",
           "select verdict, provider, version from kiln_cancel(array[j(1), j(99)], array[w(1), app()])");
    ANSWER(c, "queued", "select state from jobs where id = j(1)");
    ANSWER(c, "canceled", "select verdict from kiln_cancel(array[j(1)], array[null::uuid])"); /* an operator */
    test_done(c);
}

Test(expire, ends_what_is_past_its_deadline_by_what_is_known)
{
    PGconn *c = with_jobs();

    DO(c, "select t_start(1, array[j(2), j(3), j(4)])");
    DO(c, "select t_checkpoint(1, j(3), 1, 1, 'ref')");
    ANSWER(c, "", "select * from kiln_expire(10)");
    DO(c, "select t_clock('601 s')");
    ANSWER(c, "1|t|p|failed|expired|",
           "select right(job::text, 1), app = app(), provider, state, error_code, holder from kiln_expire(10)");
    DO(c, "select t_clock('60 s')");
    ANSWER(c, "2|outcome_unknown|t 3|timeout|t 4|outcome_unknown|t",
           "select right(job::text, 1), error_code, holder = w(1) from kiln_expire(10) order by 1");
    ANSWER(c, "0|100000|4", "select held, balance, (select count(*) from ledger where kind = 'release') from accounts");
    ANSWER(c, "unknown accepted unknown", "select class from attempts order by job_id");
    ANSWER(c, "", "select * from kiln_expire(10)");
    test_done(c);
}

Test(expire, takes_the_oldest_first_and_no_more_than_asked)
{
    PGconn *c = with_jobs();

    DO(c, "update jobs set deadline_at = deadline_at - interval '1 s' where id = j(3)");
    DO(c, "select t_clock('1 h')");
    ANSWER(c, "3", "select right(job::text, 1) from kiln_expire(1)");
    ANSWER(c, "2", "select count(*) from kiln_expire(2)");
    ANSWER(c, "1", "select count(*) from kiln_expire(2)");
    test_done(c);
}

Test(expire, does_not_wait_for_a_job_that_somebody_is_at)
{
    PGconn *c = with_jobs();
    PGconn *other = test_connect();

    DO(c, "select t_clock('1 h')");
    DO(other, "begin");
    DO(other, "select 1 from jobs where id = j(2) for no key update");
    DO(c, "set lock_timeout = '2s'");
    ANSWER(c, "1 3 4", "select right(job::text, 1) from kiln_expire(10) order by 1");
    DO(other, "rollback");
    ANSWER(c, "2", "select right(job::text, 1) from kiln_expire(10)");
    PQfinish(other);
    test_done(c);
}

#define DEAD(worker)                                                                                                   \
    "select string_agg(right(dead::text, 1), '' order by dead) from kiln_beat(" worker ", null, false) dead"

Test(beat, two_looks_at_the_same_silence_mark_dead)
{
    PGconn *c = with_jobs();

    DO(c, "select t_clock('2.1 s')");
    ANSWER(c, "", DEAD("w(2)"));
    ANSWER(c, "t|t", "select suspect_beat = beat, dead_at is null from workers where id = w(1)");
    DO(c, "select t_clock('2.4 s')");
    DO(c, "select t_beat(2)");
    ANSWER(c, "", DEAD("null"));
    DO(c, "select t_clock('0.2 s')");
    ANSWER(c, "1", DEAD("null"));
    ANSWER(c, "1", DEAD("w(2)"));
    ANSWER(c, "dead", "select verdict from t_start(1, array[j(1)])");
    ANSWER(c, "", DEAD("w(1)")); /* it beats again: its marks are gone */
    ANSWER(c, "go", "select verdict from t_start(1, array[j(1)])");
    DO(c, "select t_clock('11 min')");
    test_done(c);
}

Test(beat, whoever_beats_between_the_looks_lives)
{
    PGconn *c = with_jobs();

    for (int i = 0; i < 6; i++) {
        DO(c, "select t_clock('2.4 s')");
        ANSWER(c, "", DEAD("null"));
        DO(c, "select t_beat(1), t_beat(2)");
    }
    test_done(c);
}

Test(beat, a_jump_of_the_clock_kills_nobody)
{
    static const char *const jumps[] = { "1 hour", "-1 hour", "10 s", "-10 s", "400 days", "-400 days", "3 s", "-2 s" };
    PGconn *c = with_jobs();

    for (size_t i = 0; i < sizeof jumps / sizeof *jumps; i++) {
        DO(c, "select t_clock($1::interval)", jumps[i]);
        ANSWER(c, "", DEAD("null")); /* everybody looks, nobody has beaten since */
        ANSWER(c, "", DEAD("null"));
        ANSWER(c, "", DEAD("w(1)"));
        DO(c, "select t_clock('0.9 s')");
        ANSWER(c, "", DEAD("w(2)"));
        ANSWER(c, "", DEAD("w(1)"));
        ANSWER(c, "2", "select count(*) from workers");
    }
    test_done(c);
}

Test(beat, a_pause_between_the_looks_is_no_silence)
{
    PGconn *c = with_jobs();

    DO(c, "select t_clock('2.1 s')");
    ANSWER(c, "", DEAD("null"));
    DO(c, "select t_clock('20 s')"); /* nobody could beat, nobody looked */
    ANSWER(c, "", DEAD("null"));
    DO(c, "select t_clock('2.6 s')");
    ANSWER(c, "12", DEAD("null"));
    test_done(c);
}

Test(beat, the_dead_are_still_found_after_the_clock_went_back)
{
    PGconn *c = with_jobs();

    DO(c, "select t_clock('-1 hour')");
    ANSWER(c, "", DEAD("w(2)"));
    DO(c, "select t_clock('2.6 s')");
    ANSWER(c, "1", DEAD("w(2)"));
    test_done(c);
}

Test(beat, who_leaves_is_dead_at_once)
{
    PGconn *c = with_jobs();

    DO(c, "select t_start(1, array[j(1)])");
    DO(c, "select t_checkpoint(1, j(1), 1, 1, 'ref')");
    DO(c, "select kiln_beat(w(1), null, true)");
    ANSWER(c, "1", DEAD("w(2)"));
    ANSWER(c, "resume", "select verdict from t_start(2, array[j(1)])");
    test_done(c);
}

Test(beat, the_dead_are_told_of_for_ten_minutes_and_forgotten_after_a_day)
{
    PGconn *c = with_jobs();

    DO(c, "select t_start(1, array[j(1)])");
    DO(c, "select t_beat(3)");
    DO(c, "select t_kill(1), t_kill(3)");
    ANSWER(c, "13", DEAD("w(2)"));
    DO(c, "select t_clock('11 min')");
    ANSWER(c, "", DEAD("w(2)"));
    DO(c, "select t_clock('1 day')");
    ANSWER(c, "", DEAD("w(2)"));
    ANSWER(c, "12", "select string_agg(right(id::text, 1), '' order by id) from workers"); /* 1 still holds a job */
    test_done(c);
}

Test(beat, does_not_wait_for_a_row_that_another_look_has_locked)
{
    PGconn *c = with_jobs();
    PGconn *other = test_connect();

    DO(c, "select t_clock('10 s')");
    DO(other, "begin");
    DO(other, "select 1 from workers where id = w(1) for update");
    DO(c, "set lock_timeout = '2s'");
    ANSWER(c, "", DEAD("w(2)"));
    ANSWER(c, "", DEAD("null"));
    DO(other, "rollback");
    PQfinish(other);
    test_done(c);
}

Test(beat, keeps_what_the_worker_says_of_itself)
{
    PGconn *c = test_db();

    DO(c, "select kiln_beat(w(1), '{\"host\":\"x\"}', false)");
    DO(c, "select kiln_beat(w(1), null, false)");
    ANSWER(c, "2|x", "select beat, info ->> 'host' from workers");
    test_done(c);
}

Test(lease, one_owner_at_a_time)
{
    PGconn *c = test_db();

    ANSWER(c, "t|f|t",
           "select kiln_lease('r', w(1), 10000), kiln_lease('r', w(2), 10000), kiln_lease('r', w(1), 10000)");
    ANSWER(c, "f|t", "select kiln_lease_note('r', w(2), 'run', 'mark'), kiln_lease_note('r', w(1), 'run', 'mark')");
    DO(c, "select t_clock('11 s')");
    ANSWER(c, "f", "select kiln_lease_note('r', w(1), 'late', 'late')");
    ANSWER(c, "t|f", "select kiln_lease('r', w(2), 10000), kiln_lease('r', w(1), 10000)");
    ANSWER(c, "run|mark|t", "select redis_run_id, redis_marker, owner = w(2) from kiln_lease_read('r')");
    ANSWER(c, "t", "select kiln_lease('r', w(2), 0)"); /* given back */
    ANSWER(c, "t", "select kiln_lease('r', w(1), 1000)");
    test_done(c);
}
