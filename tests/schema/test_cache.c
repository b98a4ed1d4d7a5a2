/* test_cache.c - kiln_accept_cached and kiln_cache_settle: one leader a key, who waits is answered or leads, what it
 * costs, what is no entry. Each test ends with an empty audit. */
#include "tests/schema/ask.h"
#include "tests/schema/crowd.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* t_cached(ids, key): jobs of 4 units at 100, from the cache at `cache_mc`. */
static const char helper[] =
    "create function t_cached(ids uuid[], key text default 'k', account text default 'a', ttl_s int default 3600, "
    "cache_mc bigint default 0, app uuid default app(), units int default 4, max_queued int default null, "
    "keys text[] default null) returns table (ord int, verdict text, job uuid, created_at timestamptz, needed bigint, "
    "available bigint) language sql as $$ select kiln_accept_cached.* from (select cardinality(ids) as n) s, "
    "kiln_accept_cached(ids, fill(app, n), fill(account, n), coalesce(keys, fill(null::text, n)), fill('h'::text, n), "
    "fill('op'::text, n), fill('p'::text, n), fill('{\"prompt\":\"x\"}'::jsonb, n), fill(null::jsonb, n), "
    "fill(units, n), fill(100::bigint, n), fill('v1'::text, n), fill(0, n), fill(600, n), fill('retry'::text, n), "
    "fill('{}'::jsonb, n), max_queued, fill(jsonb_build_object('cache', jsonb_build_object('ttl_s', ttl_s, 'unit_mc', "
    "cache_mc)), n), fill(key, n)) $$";

static PGconn *with_cache(const char *credits)
{
    PGconn *c = test_db();

    DO(c, helper);
    DO(c, "select t_grant('a', $1::bigint)", credits);
    DO(c, "select t_beat(1)");
    return c;
}

/* Job n runs and delivers `units` of its four. */
static void deliver(PGconn *c, const char *n, const char *units)
{
    ANSWER(c, "go", "select verdict from t_start(1, array[j($1::int)])", n);
    ANSWER(c, "committed", "select verdict from t_settle(1, array[j($1::int)], 1, 1, 'delivered', units => $2::int)", n,
           units);
}

static void fail(PGconn *c, const char *n)
{
    ANSWER(c, "go", "select verdict from t_start(1, array[j($1::int)])", n);
    ANSWER(c, "committed",
           "select verdict from t_settle(1, array[j($1::int)], 1, 1, 'failed', code => 'provider_error', "
           "class => 'refused')",
           n);
}

Test(cache, a_later_job_is_answered_at_once_for_nothing_and_has_no_row_in_the_ledger)
{
    PGconn *c = with_cache("1000");

    ANSWER(c, "accepted", "select verdict from t_cached(array[j(1)])");
    deliver(c, "1", "4");
    ANSWER(c, "cached|t|0", "select verdict, job = j(2), needed from t_cached(array[j(2)])");
    ANSWER(c, "succeeded|0|0|4|0|",
           "select state, hold_mc, captured_mc, delivered, attempt, blocked_by from jobs where id = j(2)");
    ANSWER(c, "0", "select count(*) from ledger where job_id = j(2)");
    ANSWER(c, "600|0", "select balance, held from accounts");
    ANSWER(
        c, "4|0|t",
        "select count(*), max(f.attempt), bool_and(f.object = e.object and f.id <> e.id) from artifacts f join artifacts e "
        "on e.idx = f.idx and e.job_id = j(1) where f.job_id = j(2)");
    ANSWER(c, "t", "select kiln_job_doc(j)->>'cached_of' = j(1)::text from jobs j where id = j(2)");
    ANSWER(c, "cached", "select verdict from t_cached(array[j(2)])"); /* a lost reply */
    ANSWER(c, "4", "select count(*) from artifacts where job_id = j(2)");
    test_done(c);
}

Test(cache, a_price_of_the_cache_is_held_and_charged_once)
{
    PGconn *c = with_cache("1000");

    DO(c, "select t_cached(array[j(1)], cache_mc => 10)");
    DO(c, "select t_cached(array[j(2)], cache_mc => 10)"); /* waits */
    ANSWER(c, "800", "select held from accounts");
    deliver(c, "1", "4");
    ANSWER(c, "succeeded", "select state from kiln_cache_settle(100)");
    ANSWER(c, "cached|40", "select verdict, needed from t_cached(array[j(3)], cache_mc => 10)");
    ANSWER(c, "520|0", "select balance, held from accounts");
    ANSWER(c, "hold|400 capture|40 release|360", "select kind, amount from ledger where job_id = j(2) order by id");
    ANSWER(c, "hold|40 capture|40", "select kind, amount from ledger where job_id = j(3) order by id");
    ANSWER(c, "insufficient", "select verdict from t_cached(array[j(4)], cache_mc => 10, account => 'poor')");
    test_done(c);
}

Test(cache, waiters_hold_the_full_price_until_the_leader_has_delivered)
{
    PGconn *c = with_cache("4000");

    ANSWER(c, "accepted waiting waiting", "select verdict from t_cached(array[j(1), j(2), j(3)])");
    ANSWER(c, "waiting", "select verdict from t_cached(array[j(4)])");
    ANSWER(c, "waiting", "select verdict from t_cached(array[j(4)])"); /* a lost reply */
    ANSWER(c, "1600", "select held from accounts");
    ANSWER(c, "1", "select count(*) from kiln_unpublished(null, null, null, 100)");
    ANSWER(c, "later", "select verdict from t_start(1, array[j(2)])");
    ANSWER(c, "", "select * from kiln_cache_settle(100)"); /* it leads still */
    deliver(c, "1", "4");
    ANSWER(c, "3|succeeded", "select count(*), min(state) from kiln_cache_settle(100)");
    ANSWER(c, "3600|0", "select balance, held from accounts");
    ANSWER(c, "", "select * from kiln_cache_settle(100)");
    ANSWER(c, "1", "select count(*) from attempts");
    test_done(c);
}

Test(cache, when_the_leader_fails_or_is_canceled_the_oldest_leads_and_the_others_wait_for_it)
{
    PGconn *c = with_cache("4000");

    DO(c, "select count(*) from t_cached(array[j(1), j(2), j(3), j(4)])");
    fail(c, "1");
    ANSWER(c, "t|queued", "select job = j(2), state from kiln_cache_settle(100)");
    ANSWER(c, "", "select * from kiln_cache_settle(100)");
    ANSWER(c, "waiting", "select verdict from t_cached(array[j(5)])");
    ANSWER(c, "canceled", "select t_cancel(j(2))");
    ANSWER(c, "t|queued", "select job = j(3), state from kiln_cache_settle(100)");
    ANSWER(c, "canceled", "select t_cancel(j(4))"); /* it waited */
    deliver(c, "3", "4");
    ANSWER(c, "t|succeeded", "select job = j(5), state from kiln_cache_settle(100)");
    ANSWER(c, "3600|0", "select balance, held from accounts");
    test_done(c);
}

Test(cache, a_result_that_is_not_whole_answers_nobody)
{
    PGconn *c = with_cache("4000");

    DO(c, "select count(*) from t_cached(array[j(1), j(2)])");
    deliver(c, "1", "3");
    ANSWER(c, "queued", "select state from kiln_cache_settle(100)");
    deliver(c, "2", "4");
    ANSWER(c, "cached", "select verdict from t_cached(array[j(3)])");
    ANSWER(c, "t", "select kiln_job_doc(j)->>'cached_of' = j(2)::text from jobs j where id = j(3)");
    test_done(c);
}

Test(cache, a_result_is_as_old_as_both_allow_counted_from_its_end)
{
    PGconn *c = with_cache("4000");

    DO(c, "select t_cached(array[j(1)], ttl_s => 500)");
    DO(c, "select t_clock('400 seconds')");
    DO(c, "select t_beat(1)");
    deliver(c, "1", "4");
    DO(c, "select t_clock('400 seconds')");
    ANSWER(c, "cached", "select verdict from t_cached(array[j(2)])");
    ANSWER(c, "accepted", "select verdict from t_cached(array[j(3)], ttl_s => 300)");
    DO(c, "select t_cancel(j(3))");
    DO(c, "select t_clock('101 seconds')");
    ANSWER(c, "accepted", "select verdict from t_cached(array[j(4)])");
    DO(c, "select t_cancel(j(4))");
    ANSWER(c, "1", "select count(*) from jobs where cache_key is not null and state = 'succeeded'"); /* a hit is none */
    test_done(c);
}

Test(cache, of_another_app_or_key_answers_nobody)
{
    PGconn *c = with_cache("4000");

    DO(c, "insert into apps (id, name) values ('cccccccc-0000-7000-8000-000000000000', 'other') returning 1");
    DO(c,
       "select kiln_grant(array['cccccccc-0000-7000-8000-000000000000'::uuid], array['a'], array[4000], array['r'])");
    DO(c, "select t_cached(array[j(1)])");
    ANSWER(c, "accepted", "select verdict from t_cached(array[j(2)], app => 'cccccccc-0000-7000-8000-000000000000')");
    deliver(c, "1", "4");
    ANSWER(c, "", "select * from kiln_cache_settle(100)");
    ANSWER(c, "waiting", "select verdict from t_cached(array[j(3)], app => 'cccccccc-0000-7000-8000-000000000000')");
    ANSWER(c, "accepted", "select verdict from t_cached(array[j(4)], 'other key')");
    ANSWER(c, "cached", "select verdict from t_cached(array[j(5)])");
    ANSWER(c, "accepted", "select verdict from t_accept(array[j(6)])"); /* without cache: asked anew */
    test_done(c);
}

Test(cache, a_dropped_entry_answers_nobody)
{
    PGconn *c = with_cache("4000");

    DO(c, "select t_cached(array[j(1)])");
    deliver(c, "1", "4");
    ANSWER(c, "4", "select count(*) from kiln_cache_objects(app(), 'k', 64)");
    DO(c, "select kiln_cache_drop(array[j(1)])");
    ANSWER(c, "0", "select count(*) from kiln_cache_objects(app(), 'k', 64)");
    ANSWER(c, "accepted", "select verdict from t_cached(array[j(2)])");
    test_done(c);
}

Test(cache, keys_and_full_queues_are_kiln_accepts)
{
    PGconn *c = with_cache("4000");

    ANSWER(
        c, "accepted| replayed|t",
        "select verdict, case when ord = 2 then job = j(1) end from t_cached(array[j(1), j(2)], keys => array['x', 'x'])");
    ANSWER(c, "queue_full", "select verdict from t_cached(array[j(3)], max_queued => 1)");
    deliver(c, "1", "4");
    ANSWER(c, "replayed|t", "select verdict, job = j(1) from t_cached(array[j(4)], keys => array['x'])");
    ANSWER(c, "cached", "select verdict from t_cached(array[j(5)], max_queued => 0)"); /* it fills no queue */
    ANSWER(c, "2", "select count(*) from jobs");
    test_done(c);
}

Test(cache, the_first_that_can_pay_leads)
{
    PGconn *c = with_cache("400");

    DO(c, "select t_grant('b', 100)");
    ANSWER(c, "insufficient", "select verdict from t_cached(array[j(1)], account => 'b')");
    ANSWER(c, "accepted insufficient", "select verdict from t_cached(array[j(2), j(3)])");
    ANSWER(c, "t", "select job = j(2) from t_cached(array[j(2)])");
    test_done(c);
}

Test(cache, keeps_objects_that_an_answered_job_names_from_the_sweep)
{
    PGconn *c = with_cache("1000");
    static const char unnamed[] =
        "select count(*) from artifacts f, kiln_unnamed_results(array[f.object]) where f.job_id = j(2)";

    DO(c, "select t_cached(array[j(1)])");
    deliver(c, "1", "4");
    DO(c,
       "update artifacts set object = 'job/01/' || j(1) || '/1/' || idx || '/pack/20261201-05/x/' || idx + 1 returning 1");
    ANSWER(c, "cached", "select verdict from t_cached(array[j(2)])");
    DO(c, "select t_clock('2 hours')");
    ANSWER(c, "0", unnamed);
    ANSWER(c, "1", "select count(*) from kiln_unnamed_results(array['job/01/' || j(1) || '/9/0'])");
    ANSWER(c, "1",
           "select count(*) from kiln_unnamed_results(array['job/01/' || j(1) || '/1/0/pack/20261201-05/y/1'])");
    DO(c, "begin");
    DO(c, "delete from artifacts where job_id = j(1) returning 1");
    ANSWER(c, "0", unnamed);
    ANSWER(c, "1",
           "select count(*) from (select object from artifacts where job_id = j(2) and idx = 0) f, "
           "lateral (select 1 from kiln_unnamed_results(array[f.object || '9'])) u");
    DO(c, "rollback");
    test_done(c);
}

enum { CROWD = 8, EACH = 25, KEYS = 5 };

/* Submits its own jobs under a few keys, ends what leads (well, badly, by a cancel) and settles, all at once. */
static int everybody(PGconn *c, int number, void *arg)
{
    unsigned seed = (unsigned)number * 7919 + 1;
    int wrong = 0;

    (void)arg;
    for (int i = 0; i < EACH; i++) {
        char id[16], key[16], *got;

        snprintf(id, sizeof id, "%d", number * 1000 + i + 1);
        snprintf(key, sizeof key, "key%u", crowd_random(&seed) % KEYS);
        got = ASK(c, "select verdict from t_cached(array[j($1::int)], $2)", id, key);
        if (strcmp(got, "accepted") == 0) {
            const char *end = crowd_random(&seed) % 3 == 0 ? "select t_cancel(j($1::int))"
                              : crowd_random(&seed) % 2 == 0
                                  ? "select s.verdict || x.verdict from t_start(1, array[j($1::int)]) s, lateral "
                                    "t_settle(1, array[j($1::int)], s.fence, s.attempt, 'delivered') x"
                                  : "select t_start(1, array[j($1::int)]), t_settle(1, array[j($1::int)], 1, 1, "
                                    "'failed', code => 'timeout', class => 'refused')";
            char *ended = ASK(c, end, id);

            if (strncmp(ended, "ERROR", 5) == 0)
                wrong++, fprintf(stderr, "end: %s\n", ended);
            free(ended);
        } else if (strcmp(got, "waiting") != 0 && strcmp(got, "cached") != 0) {
            wrong++, fprintf(stderr, "accept: %s\n", got);
        }
        free(got);
        got = ASK(c, "select count(*) from kiln_cache_settle(50)");
        if (strncmp(got, "ERROR", 5) == 0 && strcmp(got, "ERROR 40P01") != 0)
            wrong++, fprintf(stderr, "settle: %s\n", got);
        free(got);
    }
    return wrong;
}

Test(cache, many_at_once_leave_one_leader_a_key_and_nobody_waiting_for_nobody)
{
    PGconn *c = with_cache("10000000");

    cr_assert_eq(crowd_run(CROWD, everybody, NULL), 0);
    ANSWER(c, "t", "select count(*) <= $1::int from jobs where state = 'queued' and blocked_by is null", "5");
    for (int i = 0; i < CROWD * EACH; i++) { /* whoever leads is canceled, until nobody is left */
        DO(c, "select count(*) from kiln_cache_settle(500)");
        if (ask_number(c,
                       "select count(*) from (select t_cancel(id) from jobs where state in ('queued', 'running') and "
                       "blocked_by is null) s") == 0)
            break;
    }
    ANSWER(c, "0", "select count(*) from jobs where state in ('queued', 'running')");
    ANSWER(c, "0", "select held from accounts");
    ANSWER(c, "t", "select count(*) > 0 from jobs where extras ? 'cached'");
    test_done(c);
}
