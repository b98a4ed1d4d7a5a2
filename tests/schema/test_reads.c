/* test_reads.c - what the daemons read: a job as JSON, pages, what Redis has to know, exposure, sweeps. */
#include "tests/schema/ask.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

static PGconn *with_jobs(void)
{
    PGconn *c = test_db();

    DO(c, "select t_grant('a', 100000), t_grant('b', 100000)");
    DO(c, "select t_accept(array[j(1), j(2), j(3)])");
    DO(c, "select t_accept(array[j(4), j(5)], 'b')");
    DO(c, "select t_beat(1)");
    return c;
}

Test(reads, a_job_as_json_has_everything_and_its_artifacts_in_order)
{
    PGconn *c = with_jobs();

    DO(c, "select t_start(1, array[j(1)])");
    DO(c, "select t_settle(1, array[j(1)], 1, 1, 'delivered', 3)");
    ANSWER(c, "1|t|succeeded|400|300|1|3|0,1,2 2||||||| 3|t|queued|400||0|1|",
           "select ord, app = app(), doc ->> 'state', doc ->> 'hold_mc', doc ->> 'captured_mc', doc ->> 'attempts', "
           "doc ->> 'version', (select string_agg(x ->> 'idx', ',') from jsonb_array_elements(doc -> 'artifacts') x) "
           "from kiln_job_json(array[j(1), j(99), j(2)])");
    ANSWER(
        c, "t|t|t",
        "select doc ->> 'created_at' ~ '^20\\d\\d-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d\\.\\d\\d\\dZ$', "
        "doc ->> 'finished_at' >= doc ->> 'started_at', (doc ->> 'created_at')::timestamptz <= now() from kiln_job_json(array[j(1)])");
    ANSWER(c, "1|answered|closed",
           "select x ->> 'no', x ->> 'class', x ->> 'state' from jsonb_array_elements(kiln_attempts_json(j(1))) x");
    ANSWER(c, "[]|[]", "select kiln_attempts_json(j(2)), kiln_attempts_json(j(99))");
    test_done(c);
}

Test(reads, only_jobs_of_another_version_have_moved)
{
    PGconn *c = with_jobs();

    DO(c, "select t_start(1, array[j(1)])");
    ANSWER(c, "t|t|f|t",
           "with m as (select id from kiln_moved(array[j(1), j(2), j(3), j(99)], array[1, 0, 1, 1])) "
           "select j(1) in (select id from m), j(2) in (select id from m), j(3) in (select id from m), "
           "j(99) in (select id from m)");
    test_done(c);
}

Test(reads, every_column_of_a_job_is_in_its_json)
{
    PGconn *c = with_jobs();

    ANSWER(
        c,
        "account_id,app_id,attempt,batch_id,cache_key,extras,lost_fence,webhook", /* internal, or under another name */
        "select string_agg(column_name, ',' order by column_name) from information_schema.columns, "
        "(select doc from kiln_job_json(array[j(1)])) d where table_name = 'jobs' and not doc ? column_name");
    test_done(c);
}

Test(reads, time_is_utc_whatever_the_session_thinks)
{
    PGconn *c = test_db();

    DO(c, "set timezone = 'Asia/Kolkata'");
    ANSWER(c, "2026-03-01T00:00:00.007Z", "select kiln_time('2026-03-01 00:00:00.007+00')");
    test_done(c);
}

Test(reads, pages_are_newest_first_filtered_and_joined_without_gaps)
{
    PGconn *c = with_jobs();

    DO(c, "insert into apps (id, name) values (w(1), 'other')");
    DO(c, "select t_cancel(j(2))");
    ANSWER(c, "5 4", "select right(doc ->> 'id', 1) from kiln_jobs_page(app(), null, null, null, null, 2)");
    ANSWER(c, "3 2 1", "select right(doc ->> 'id', 1) from kiln_jobs_page(app(), null, null, null, j(4), 5)");
    ANSWER(c, "3 2 1", "select right(doc ->> 'id', 1) from kiln_jobs_page(app(), 'a', null, null, null, 5)");
    ANSWER(c, "2", "select right(doc ->> 'id', 1) from kiln_jobs_page(app(), 'a', 'canceled', 'op', null, 5)");
    ANSWER(c, "", "select doc from kiln_jobs_page(app(), null, null, 'other', null, 5)");
    ANSWER(c, "", "select doc from kiln_jobs_page(w(1), null, null, null, null, 5)");
    ANSWER(c, "", "select doc from kiln_jobs_page(app(), 'nobody', null, null, null, 5)");
    test_done(c);
}

#define NUMBERS "select string_agg(right(id::text, 1), '' order by id) from kiln_unpublished"

Test(reads, redis_has_to_know_what_is_queued_and_what_runs_without_a_living_holder)
{
    PGconn *c = with_jobs();

    DO(c, "update accounts set max_running = 3 where name = 'b'");
    ANSWER(c, "12345", NUMBERS "(null, null, null, 10)");
    ANSWER(c, "34", NUMBERS "(null, null, j(2), 2)");
    DO(c, "select t_start(1, array[j(1), j(2)])");
    DO(c, "select t_checkpoint(1, j(2), 1, 1, 'r'), t_handback(1, j(2), 1)");
    DO(c, "select t_cancel(j(3))");
    ANSWER(c, "245", NUMBERS "(null, null, null, 10)");
    ANSWER(c, "245", NUMBERS "(kiln_now() - interval '1 min', null, null, 10)");
    ANSWER(c, "45", NUMBERS "(kiln_now() - interval '1 min', null, j(2), 10)");
    ANSWER(c, "", NUMBERS "(kiln_now() - interval '1 min', kiln_now() - interval '30 s', null, 10)");
    DO(c, "select t_kill(1)");
    ANSWER(c, "1245", NUMBERS "(null, null, null, 10)");
    DO(c, "update jobs set blocked_by = array[j(1)] where id = j(5)");
    ANSWER(c, "124", NUMBERS "(null, null, null, 10)");
    ANSWER(c, "124", NUMBERS "_of(array[j(5), j(4), j(3), j(2), j(1), j(9)])");
    ANSWER(c, "t",
           "select bool_and(o = u) from kiln_unpublished(null, null, null, 10) u "
           "join kiln_unpublished_of(array[j(1), j(2), j(4)]) o using (id)");
    ANSWER(c, "24", "select string_agg(right(id::text, 1), '') from kiln_open_ids(j(1), j(5), 10)");
    ANSWER(c, "2", "select string_agg(right(id::text, 1), '') from kiln_open_ids(j(1), j(5), 1)");
    ANSWER(
        c, "b|op|p|4|0|t|3",
        "select account, operation, provider, units, priority, "
        "abs(created_at_ms - extract(epoch from now()) * 1000) < 60000, max_running from kiln_unpublished(null, null, j(2), 10)");
    test_done(c);
}

Test(reads, a_page_for_redis_reads_no_more_than_its_rows_whatever_the_statistics_say)
{
    PGconn *c = test_db();

    DO(c, "select t_grant('a', 100000000)"); /* all within a second: no statistics yet */
    DO(c, "select t_accept(array(select j(i) from generate_series(1, 5000) i))");
    DO(c, "begin");
    ANSWER(c, "100", "select count(*) from kiln_unpublished(null, null, j(2000), 100)");
    ANSWER(c, "t",
           "select coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) between 100 and 120 "
           "from pg_stat_xact_user_tables where relname = 'jobs'");
    ANSWER(c, "100", "select count(*) from kiln_open_ids(j(2000), j(4000), 100)");
    ANSWER(c, "20", "select count(*) from kiln_unpublished_of(array(select j(i) from generate_series(1, 20) i))");
    ANSWER(c, "20", "select count(params) from kiln_jobs_shown(array(select j(i) from generate_series(1, 20) i))");
    ANSWER(c, "t",
           "select coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) between 240 and 270 "
           "from pg_stat_xact_user_tables where relname = 'jobs'");
    DO(c, "commit");
    test_done(c);
}

Test(reads, a_worker_finds_what_it_is_said_to_hold)
{
    PGconn *c = with_jobs();

    DO(c, "select t_start(1, array[j(1), j(2), j(3)])");
    DO(c, "select t_checkpoint(1, j(2), 1, 1, 'r')");
    ANSWER(c, "t|1|1| f|1|1|r", "select id = j(1), fence, attempt, ref from kiln_held(w(1), null, 2)");
    ANSWER(c, "t", "select id = j(3) from kiln_held(w(1), j(2), 2)");
    test_done(c);
}

Test(reads, exposure_lists_what_may_have_been_paid_for_nothing)
{
    PGconn *c = with_jobs();

    DO(c, "select t_start(1, array[j(1), j(2), j(3), j(4), j(5)])");
    DO(c, "select t_settle(1, array[j(1)], 1, 1, 'delivered', cost => 5)");
    DO(c, "select t_settle(1, array[j(2)], 1, 1, 'failed', code => 'bad_response')");
    DO(c, "select t_settle(1, array[j(3)], 1, 1, 'retry', code => 'rate_limited', class => 'refused')");
    DO(c, "select t_settle(1, array[j(4)], 1, 1, 'unknown')");
    DO(c, "select t_checkpoint(1, j(5), 1, 1, 'r'), t_cancel(j(5))");
    ANSWER(c, "2|uncharged|bad_response 4|unknown| 5|accepted|canceled",
           "select right(job::text, 1), reason, error_code from kiln_exposure(10) order by 1");
    DO(c, "update attempts set evidence = '{\"exposure\":true}' where job_id = j(3)");
    ANSWER(c, "marked", "select reason from kiln_exposure(10) where job = j(3)");
    ANSWER(c, "1", "select count(*) from kiln_exposure(1)");
    test_done(c);
}

Test(sweeps, uploads_go_after_their_objects)
{
    PGconn *c = test_db();

    DO(c,
       "insert into uploads (id, app_id, mime, bytes, sha256, object) values (j(1), app(), 'image/png', 1, 'x', 'u/1'), "
       "(j(2), app(), 'image/png', 1, 'x', 'u/2')");
    ANSWER(c, "", "select * from kiln_sweep_uploads('{}', 10)");
    DO(c, "select t_clock('25 h')");
    ANSWER(c, "u/1", "select object from kiln_sweep_uploads('{}', 1)");
    ANSWER(c, "u/2", "select object from kiln_sweep_uploads(array[j(1)], 10)");
    ANSWER(c, "u/2", "select object from kiln_sweep_uploads(array[j(1)], 10)");
    ANSWER(c, "", "select object from kiln_sweep_uploads(array[j(2)], 10)");
    test_done(c);
}

Test(sweeps, expired_keys_go)
{
    PGconn *c = with_jobs();

    DO(c, "select t_accept(array[j(11), j(12), j(13)], keys => '{x,y,z}')");
    ANSWER(c, "0", "select kiln_sweep_keys(10)");
    DO(c, "select t_clock('25 h')");
    ANSWER(c, "2", "select kiln_sweep_keys(2)");
    ANSWER(c, "1", "select kiln_sweep_keys(2)");
    test_done(c);
}
