/* test_retry.c - kiln_retry: a failed job becomes one new job, once, with a hold of its own, however many ask. */
#include "tests/schema/ask.h"
#include "tests/schema/crowd.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* t_retry(new, failed): one row each, priced at `units` of `unit_mc`. */
static const char helper[] =
    "create function t_retry(ids uuid[], failed uuid[], units int default 4, unit_mc bigint default 100, "
    "max_queued int default null) returns table (ord int, verdict text, job uuid, created_at timestamptz, needed bigint, "
    "available bigint) language sql as $$ select kiln_retry.* from (select cardinality(ids) as n) s, kiln_retry(ids, failed, "
    "fill('p'::text, n), fill('{\"prompt\":\"y\"}'::jsonb, n), fill(null::jsonb, n), fill(units, n), fill(unit_mc, n), "
    "fill('v2'::text, n), fill('fail'::text, n), max_queued) $$";

/* Jobs 1 to n of account `a`, failed by a time-out. */
static PGconn *with_failed(int n, const char *credits)
{
    PGconn *c = test_db();
    char count[16];

    snprintf(count, sizeof count, "%d", n);
    DO(c, helper);
    DO(c, "select t_grant('a', $1::bigint)", credits);
    DO(c, "select count(*) from t_accept((select array_agg(j(i)) from generate_series(1, $1::int) i))", count);
    DO(c, "select t_beat(1)");
    DO(c, "select count(*) from t_start(1, (select array_agg(j(i)) from generate_series(1, $1::int) i))", count);
    DO(c,
       "select count(*) from t_settle(1, (select array_agg(j(i)) from generate_series(1, $1::int) i), 1, 1, 'failed', "
       "code => 'timeout', class => 'refused')",
       count);
    return c;
}

Test(retry, is_a_new_job_with_a_hold_of_its_own_at_todays_price)
{
    PGconn *c = with_failed(1, "1000");

    ANSWER(c, "1|accepted|t",
           "select ord, verdict, job = j(101) from t_retry(array[j(101)], array[j(1)], unit_mc => 150)");
    ANSWER(c, "queued|600|v2|a|t|{}|600|fail",
           "select state, hold_mc, price_version, account, retry_of = j(1), metadata, "
           "extract(epoch from deadline_at - created_at)::int, on_unknown from jobs where id = j(101)");
    ANSWER(c, "failed|0", "select state, captured_mc from jobs where id = j(1)");
    ANSWER(c, "1000|600", "select balance, held from accounts");
    ANSWER(c, "accepted", "select verdict from t_retry(array[j(101)], array[j(1)], unit_mc => 150)"); /* a lost reply */
    ANSWER(c, "replayed|t", "select verdict, job = j(101) from t_retry(array[j(102)], array[j(1)])");
    ANSWER(c, "2", "select count(*) from jobs");
    DO(c, "select count(*) from t_start(1, array[j(101)])");
    DO(c, "select count(*) from t_settle(1, array[j(101)], 1, 1, 'delivered')");
    ANSWER(c, "400|0", "select balance, held from accounts");
    ANSWER(c, "replayed", "select verdict from t_retry(array[j(103)], array[j(1)])");
    ANSWER(c, "not_failed", "select verdict from t_retry(array[j(103)], array[j(101)])");
    test_done(c);
}

Test(retry, of_a_retry_that_failed_goes_on_from_the_last)
{
    PGconn *c = with_failed(1, "1000");

    DO(c, "select verdict from t_retry(array[j(101)], array[j(1)])");
    DO(c, "select count(*) from t_start(1, array[j(101)])");
    DO(c, "select count(*) from t_settle(1, array[j(101)], 1, 1, 'failed', code => 'timeout', class => 'refused')");
    ANSWER(c, "replayed|t", "select verdict, job = j(101) from t_retry(array[j(102)], array[j(1)])");
    ANSWER(c, "accepted", "select verdict from t_retry(array[j(102)], array[j(101)])");
    test_done(c);
}

Test(retry, without_credits_writes_nothing_and_the_others_go_on)
{
    PGconn *c = with_failed(3, "1200");

    DO(c, "select t_retry(array[j(101)], array[j(1)])"); /* 400 of 1,200 */
    ANSWER(c, "1|accepted 2|insufficient",
           "select ord, verdict from t_retry(array[j(102), j(103)], array[j(2), j(3)], unit_mc => 200)");
    ANSWER(c, "800|0", "select needed, available from t_retry(array[j(104)], array[j(3)], unit_mc => 200)");
    ANSWER(c, "5|1200|1200", "select (select count(*) from jobs), balance, held from accounts");
    ANSWER(c, "queue_full", "select verdict from t_retry(array[j(105)], array[j(3)], unit_mc => 0, max_queued => 2)");
    test_done(c);
}

Test(retry, only_of_what_failed_and_came_to_nothing)
{
    PGconn *c = with_failed(2, "10000");

    DO(c, "select count(*) from t_accept(array[j(3), j(4)])");
    DO(c, "select t_cancel(j(3))");
    DO(c,
       "insert into artifacts (id, job_id, idx, attempt, fence, kind, mime, bytes, object, charged, created_at) values "
       "(gen_random_uuid(), j(2), 0, 1, 1, 'image', 'image/png', 1, 'o/1', false, kiln_now()) returning 1");
    DO(c, "update jobs set error_code = 'timeout' where id = j(2) returning 1");
    ANSWER(
        c, "accepted delivered not_failed not_failed not_found",
        "select verdict from t_retry(array[j(101), j(102), j(103), j(104), j(105)], array[j(1), j(2), j(3), j(4), j(9)])");
    test_done(c);
}

Test(retry, twins_in_one_call_make_one_job)
{
    PGconn *c = with_failed(1, "1000");

    ANSWER(c, "accepted|t replayed|t",
           "select verdict, job = j(101) from t_retry(array[j(101), j(102)], array[j(1), j(1)])");
    ANSWER(c, "2", "select count(*) from jobs");
    test_done(c);
}

enum { CROWD = 8, FAILED = 200 };

/* Each asks for all of them, in its own order, with ids of its own. */
static int everybody(PGconn *c, int number, void *arg)
{
    char base[16], *got;
    int wrong = 0;

    (void)arg;
    snprintf(base, sizeof base, "%d", (number + 1) * 1000);
    for (int i = 0; i < FAILED / 20; i++) {
        char page[16];

        snprintf(page, sizeof page, "%d", (number % 2 != 0 ? i : FAILED / 20 - 1 - i) * 20);
        got = ASK(c,
                  "select count(*) filter (where verdict in ('accepted', 'replayed') and job is not null) from t_retry("
                  "(select array_agg(j($1::int + $2::int + i)) from generate_series(1, 20) i), "
                  "(select array_agg(j($2::int + i) order by random()) from generate_series(1, 20) i))",
                  base, page);
        if (strcmp(got, "20") != 0)
            wrong++, fprintf(stderr, "%s\n", got);
        free(got);
    }
    return wrong;
}

Test(retry, of_one_job_by_many_at_once_is_one_new_job)
{
    PGconn *c = with_failed(FAILED, "1000000");

    cr_assert_eq(crowd_run(CROWD, everybody, NULL), 0);
    ANSWER(c, "200|200", "select count(*), count(distinct retry_of) from jobs where retry_of is not null");
    ANSWER(c, "80000", "select held from accounts");
    test_done(c);
}

Test(retry, a_walk_over_failed_jobs_meets_each_once_and_not_its_own_retries)
{
    PGconn *c = with_failed(5, "100000");

    ANSWER(c, "3|t",
           "select count(*), count(distinct cursor) = 3 from kiln_failed_page(null, null, 'timeout', null, null, "
           "null, null, false, null, null, false, 3)");
    DO(c, "select t_retry(array[j(101)], array[j(5)])");
    ANSWER(c, "1 4",
           "select count(*) from (select kiln_failed_page('tests', 'a', 'timeout', 'op', 'p', null, null, x, null, "
           "null, true, 100), x from (values (true), (false)) v(x)) s group by x order by 1");
    ANSWER(c, "t|tests",
           "select doc->>'retried_by' = j(101)::text, doc->>'app_name' from kiln_failed_page(null, null, null, "
           "null, null, null, null, true, null, null, false, 9)");
    ANSWER(
        c, "2",
        "select count(*) from (select split_part(cursor, '.', 1)::bigint as us, split_part(cursor, '.', 2)::uuid "
        "as id from kiln_failed_page(null, null, null, null, null, null, null, null, null, null, false, 3) offset 2) "
        "x, kiln_failed_page(null, null, null, null, null, null, null, null, x.us, x.id, false, 100)");
    ANSWER(c, "0",
           "select count(*) from kiln_failed_page('nobody', null, null, null, null, null, null, null, null, null, "
           "false, 9)");
    test_done(c);
}

Test(exposure, is_listed_page_by_page_and_summed_by_provider_and_reason)
{
    PGconn *c = test_db();

    DO(c, "select t_grant('a', 100000)");
    DO(c, "select count(*) from t_accept((select array_agg(j(i)) from generate_series(1, 6) i), on_unknown => 'fail')");
    DO(c, "select t_beat(1)");
    DO(c, "select count(*) from t_start(1, (select array_agg(j(i)) from generate_series(1, 6) i))");
    DO(c, "select count(*) from t_settle(1, array[j(1), j(2)], 1, 1, 'unknown', class => 'unknown', cost => 40000)");
    DO(c, "select count(*) from t_settle(1, array[j(3)], 1, 1, 'unknown', class => 'unknown')");
    DO(c, "select count(*) from t_settle(1, array[j(4)], 1, 1, 'failed', code => 'bad_response', class => 'answered', "
          "cost => 30000)");
    DO(c,
       "select count(*) from t_settle(1, array[j(5)], 1, 1, 'failed', code => 'invalid_request', class => 'refused')");
    DO(c, "select count(*) from t_settle(1, array[j(6)], 1, 1, 'delivered', cost => 50000)");
    ANSWER(c, "p|uncharged|1|30000|0 p|unknown|3|80000|1",
           "select * from kiln_exposure_totals(null, '-infinity', null)");
    ANSWER(c, "", "select * from kiln_exposure_totals('q', '-infinity', null)");
    ANSWER(c, "4|4",
           "select (select count(*) from kiln_exposure(100)), count(*) from kiln_exposure_page(null, '-infinity', "
           "null, null, null, null, 100)");
    ANSWER(c, "1",
           "select count(*) from (select split_part(cursor, '.', 1)::bigint as us, split_part(cursor, '.', 2)::uuid "
           "as id, split_part(cursor, '.', 3)::int as no from kiln_exposure_page('p', '-infinity', null, null, null, "
           "null, 3) offset 2) x, kiln_exposure_page('p', '-infinity', null, x.us, x.id, x.no, 100)");
    test_done(c);
}

Test(lanes, what_a_change_does_not_name_stays)
{
    PGconn *c = test_db();

    DO(c, "select kiln_lane_set('p', '{\"concurrency\":5}')");
    DO(c, "select kiln_lane_set('p', '{\"budget\":{\"count\":10,\"window_ms\":1000}}')");
    DO(c, "select kiln_lane_set('p', '{\"paused_until\":\"infinity\"}')");
    ANSWER(c, "5|10|1000|infinity", "select concurrency, budget_count, budget_window_ms, paused_until from lanes");
    DO(c, "select kiln_lane_set('p', '{\"pause_s\":60}')");
    ANSWER(c, "t", "select paused_until between kiln_now() and kiln_now() + interval '60 seconds' from lanes");
    DO(c, "select kiln_lane_set('p', '{\"paused_until\":null,\"budget\":null}')");
    ANSWER(c, "5|||", "select concurrency, budget_count, budget_window_ms, paused_until from lanes");
    test_done(c);
}
