/* test_accept.c - kiln_accept: who gets in, what is written, what is not; idempotency keys; money under concurrency. */
#include "tests/schema/ask.h"
#include "tests/schema/crowd.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WRITTEN                                                                                                        \
    "select (select count(*) from jobs), (select count(*) from ledger where kind = 'hold'), "                          \
    "(select count(*) from idempotency), (select held from accounts where name = 'a')"

Test(accept, writes_job_hold_and_ledger_together)
{
    PGconn *c = test_db();

    DO(c, "select t_grant('a', 1000)");
    ANSWER(c, "1|accepted|t|400|", "select ord, verdict, job = j(1), needed, available from t_accept(array[j(1)])");
    ANSWER(
        c, "queued|0|0|1|400||t||1",
        "select state, fence, attempt, version, hold_mc, captured_mc, "
        "deadline_at = created_at + interval '600 s', holder, (select count(*) from ledger where job_id = j(1)) from jobs");
    ANSWER(c, "hold|400|1000|400", "select kind, amount, balance_after, held_after from ledger where job_id = j(1)");
    ANSWER(c, "1000|400", "select balance, held from accounts");
    test_done(c);
}

Test(accept, a_deadline_counts_from_run_at)
{
    PGconn *c = test_db();

    DO(c, "select t_grant('a', 1000)");
    ANSWER(c, "accepted", "select verdict from t_accept(array[j(1)], run_at => kiln_now() + interval '1 h')");
    ANSWER(c, "t", "select deadline_at = run_at + interval '600 s' from jobs");
    test_done(c);
}

Test(accept, an_account_never_granted_has_nothing)
{
    PGconn *c = test_db();

    ANSWER(c, "insufficient||400|0",
           "select verdict, job, needed, available from t_accept(array[j(1)], keys => '{k}')");
    ANSWER(c, "0|0|0|", WRITTEN);
    test_done(c);
}

Test(accept, a_refusal_writes_nothing_and_says_what_is_missing)
{
    PGconn *c = test_db();

    DO(c, "select t_grant('a', 399)");
    ANSWER(c, "insufficient|400|399", "select verdict, needed, available from t_accept(array[j(1)], keys => '{k}')");
    ANSWER(c, "0|0|0|0", WRITTEN);
    DO(c, "select t_grant('a', 1)");
    ANSWER(c, "accepted", "select verdict from t_accept(array[j(1)], keys => '{k}')");
    ANSWER(c, "insufficient|400|0", "select verdict, needed, available from t_accept(array[j(2)])");
    test_done(c);
}

Test(accept, the_same_call_again_answers_the_same)
{
    PGconn *c = test_db();
    char *first;

    DO(c, "select t_grant('a', 1000)");
    first = ASK(c, "select job, created_at, verdict from t_accept(array[j(1), j(2)], keys => '{k1,k2}')");
    ANSWER(c, first, "select job, created_at, verdict from t_accept(array[j(1), j(2)], keys => '{k1,k2}')");
    ANSWER(c, first, "select job, created_at, verdict from t_accept(array[j(1), j(2)])");
    ANSWER(c, "2|2|2|800", WRITTEN);
    free(first);
    test_done(c);
}

Test(accept, a_key_replays_its_job_and_refuses_another_body)
{
    PGconn *c = test_db();

    DO(c, "select t_grant('a', 1000)");
    DO(c, "select t_accept(array[j(1)], keys => '{k}')");
    ANSWER(c, "replayed|t|t",
           "select verdict, a.job = j(1), a.created_at = (select created_at from jobs) "
           "from t_accept(array[j(2)], keys => '{k}') a");
    ANSWER(c, "mismatch|", "select verdict, job from t_accept(array[j(3)], keys => '{k}', hashes => '{other}')");
    ANSWER(c, "1|1|1|400", WRITTEN);
    test_done(c);
}

Test(accept, a_key_is_the_apps_own)
{
    PGconn *c = test_db();

    DO(c, "insert into apps (id, name) values (w(1), 'other')");
    DO(c, "select kiln_grant(array[w(1), app()], '{a,a}', '{1000,1000}', '{r,r}')");
    DO(c, "select t_accept(array[j(1)], keys => '{k}')");
    ANSWER(c, "accepted",
           "select verdict from kiln_accept(array[j(2)], array[w(1)], '{a}', '{k}', '{h}', '{op}', '{p}', "
           "array['{}'::jsonb], array[null::jsonb], '{1}', '{1}', '{v}', '{0}', '{null}', '{60}', '{fail}', "
           "array[null::jsonb], '{null}', '{null}', null)");
    test_done(c);
}

Test(accept, twins_in_one_call_make_one_job)
{
    PGconn *c = test_db();

    DO(c, "select t_grant('a', 10000)");
    ANSWER(c, "accepted|1 replayed|1 mismatch| accepted|4",
           "select verdict, right(job::text, 1) from t_accept(array[j(1), j(2), j(3), j(4)], keys => '{k,k,k,null}', "
           "hashes => '{h,h,x,h}')");
    ANSWER(c, "accepted|5 accepted|5", "select verdict, right(job::text, 1) from t_accept(array[j(5), j(5)])");
    ANSWER(c, "3|3|1|1200", WRITTEN);
    test_done(c);
}

Test(accept, a_refused_first_twin_leaves_its_key_to_the_next)
{
    PGconn *c = test_db();

    DO(c, "select t_grant('a', 10000)");
    ANSWER(c, "insufficient| accepted|2 replayed|2 mismatch|",
           "select verdict, right(job::text, 1) from t_accept(array[j(1), j(2), j(3), j(4)], keys => '{k,k,k,k}', "
           "hashes => '{x,h,h,x}', accounts => '{poor,a,a,poor}')");
    ANSWER(c, "t|h", "select job_id = j(2), body_hash from idempotency");
    test_done(c);
}

Test(accept, an_expired_key_is_free_again)
{
    PGconn *c = test_db();

    DO(c, "select t_grant('a', 10000)");
    DO(c, "select t_accept(array[j(1)], keys => '{k}', deadline_s => 1000000)");
    DO(c, "select t_clock('23 h 59 min')");
    ANSWER(c, "replayed", "select verdict from t_accept(array[j(2)], keys => '{k}')");
    DO(c, "select t_clock('2 min')");
    ANSWER(c, "accepted", "select verdict from t_accept(array[j(2)], keys => '{k}', hashes => '{new}')");
    ANSWER(c, "t|new", "select job_id = j(2), body_hash from idempotency");
    test_done(c);
}

Test(accept, an_expired_key_stays_with_its_job_when_the_new_one_is_refused_or_is_free)
{
    PGconn *c = test_db();

    DO(c, "select t_grant('a', 400)");
    DO(c, "select t_accept(array[j(1)], keys => '{k}', deadline_s => 1000000)");
    DO(c, "select t_clock('25 h')");
    ANSWER(c, "insufficient", "select verdict from t_accept(array[j(2)], keys => '{k}')");
    DO(c, "select t_grant('a', 400)");
    ANSWER(c, "accepted", "select verdict from t_accept(array[j(2)], keys => '{k}')");
    test_done(c);
}

Test(accept, a_full_queue_is_counted_by_app_and_provider)
{
    PGconn *c = test_db();

    DO(c, "select t_grant('a', 100000)");
    ANSWER(c, "accepted accepted queue_full",
           "select verdict from t_accept(array[j(1), j(2), j(3)], max_queued => 2, keys => '{k,null,null}')");
    ANSWER(c, "accepted", "select verdict from t_accept(array[j(4)], max_queued => 2, provider => 'q')");
    ANSWER(c, "queue_full", "select verdict from t_accept(array[j(5)], max_queued => 2, keys => '{k5}')");
    ANSWER(c, "replayed", "select verdict from t_accept(array[j(6)], max_queued => 2, keys => '{k}')");
    DO(c, "select t_cancel(j(1))");
    ANSWER(c, "accepted queue_full", "select verdict from t_accept(array[j(5), j(7)], max_queued => 2)");
    test_done(c);
}

Test(accept, a_batch_is_all_or_none) /* M15 */
{
    PGconn *c = test_db();

    DO(c, "select t_grant('a', 60000)");
    ANSWER(c, "1000|insufficient|100000|100000",
           "select count(*), min(verdict), min(needed), max(needed) from t_accept((select array_agg(j(i)) from "
           "generate_series(1, 1000) i), units => 1, batch => w(9))");
    ANSWER(c, "0|0|0|0", WRITTEN);
    ANSWER(c, "1|accepted", /* all of them: one row says so */
           "select count(*), min(verdict) from t_accept((select array_agg(j(i)) from "
           "generate_series(1, 600) i), units => 1, batch => w(9))");
    ANSWER(c, "600|60000", "select count(*), sum(hold_mc) from jobs where batch_id = w(9)");
    DO(c, "insert into batches values (w(9), app(), j(1), j(600))"); /* as kiln_accept_batch does */
    test_done(c);
}

Test(accept, a_batch_is_its_jobs_and_none_that_came_between_them)
{
    PGconn *c = test_db();

    DO(c, "select t_grant('a', 2000)");
    ANSWER(c, "accepted", "select verdict from t_batch(w(1), array[j(1), j(3), j(5)], key => 'k')");
    ANSWER(c, "accepted", "select verdict from t_batch(w(2), array[j(2), j(4), j(6)])");
    ANSWER(c, "accepted", "select verdict from t_accept(array[j(7)])");
    ANSWER(c, "3|300", "select d ->> 'total', d ->> 'held_mc' from kiln_batch_json(w(1), app(), false) d");
    ANSWER(c, "t",
           "select d -> 'job_ids' = to_jsonb(array[j(2), j(4), j(6)]) from kiln_batch_json(w(2), app(), true) d");
    ANSWER(c, "t", "select kiln_batch_json(w(2), w(3), true) is null"); /* of another app */
    ANSWER(c, "3 1", "select substr(doc ->> 'id', 36) from kiln_batch_page(app(), null, null, null, j(5), 10, w(1))");
    ANSWER(c, "replayed|t", "select verdict, batch_id = w(1) from t_batch(w(4), array[j(8)], key => 'k')");
    ANSWER(c, "mismatch", "select verdict from t_batch(w(4), array[j(8)], key => 'k', hash => 'other')");
    ANSWER(c, "insufficient", "select verdict from t_batch(w(4), array[j(8)], unit_mc => 5000)");
    ANSWER(c, "accepted", "select verdict from t_batch(w(2), array[j(2), j(4), j(6)])"); /* a reply was lost */
    ANSWER(c, "2", "select count(*) from batches");
    ANSWER(
        c, "accepted", /* as dispatchers from before 0022_lean_batches.sql ask */
        "select verdict from kiln_accept_batch(w(3), app(), null, null, (select jsonb_agg(jsonb_build_object('id', j(i), "
        "'account', 'a', 'operation', 'op', 'provider', 'p', 'params', '{}'::jsonb, 'units', 1, 'unit_mc', 100, "
        "'price_version', 'v', 'priority', 0, 'deadline_s', 600, 'on_unknown', 'retry')) from generate_series(8, 9) i), "
        "null)");
    ANSWER(c, "2", "select d ->> 'total' from kiln_batch_json(w(3), app(), false) d");
    DO(c, "create table before as select * from batches");
    DO(c, "delete from batches where id <> w(2)");
    ANSWER(c, "2 0", "select kiln_batches_fill() from generate_series(1, 2)");
    ANSWER(c, "0", "select count(*) from (table before except table batches) x");
    DO(c, "drop table before");
    test_done(c);
}

/* Dispatchers say once what all jobs of a batch share; what is said for each is for each. */
Test(accept, what_a_batch_has_in_common_comes_once)
{
    PGconn *c = test_db();

    DO(c, "select t_grant('a', 2000), t_grant('b', 2000)");
    ANSWER(
        c, "accepted",
        "select verdict from kiln_accept_batch(w(1), app(), null, null, null, array[j(1), j(2), j(3)], array['a'], "
        "array['op'], array['p'], '[{\"n\":1},{\"n\":2},{\"n\":3}]', null, array[2], array[100::bigint], array['v'], "
        "array[7], array[kiln_now() + interval '1 hour'], array[600], array['retry'], null, null)");
    ANSWER(c, "accepted",
           "select verdict from kiln_accept_batch(w(2), app(), null, null, null, array[j(4), j(5)], array['a', 'b'], "
           "array['op'], array['p'], '[{\"n\":4},{\"n\":5}]', null, array[1, 2], array[100::bigint], array['v'], "
           "array[7, -7], array[null::timestamptz], array[600], array['fail'], null, null)");
    ANSWER(c, "1a220071|2a220071|3a220071|4a110070|5b2200-70",
           "select string_agg(concat(params ->> 'n', account, units, hold_mc, priority, "
           "round(extract(epoch from deadline_at - created_at) / 3600)), '|' order by id) from jobs");
    ANSWER(c, "5|5", "select count(*), count(distinct (job_id, amount)) from ledger where kind = 'hold'");
    ANSWER(c, "700|200", "select string_agg(held::text, '|' order by name) from accounts");
    test_done(c);
}

Test(accept, a_refused_batch_leaves_its_money_to_the_others)
{
    PGconn *c = test_db();

    DO(c, "select t_grant('a', 1000)");
    ANSWER(c, "insufficient insufficient insufficient accepted accepted",
           "select verdict from kiln_accept(array[j(1), j(2), j(3), j(4), j(5)], fill(app(), 5), fill('a'::text, 5), "
           "fill(null::text, 5), fill('h'::text, 5), fill('op'::text, 5), fill('p'::text, 5), fill('{}'::jsonb, 5), "
           "fill(null::jsonb, 5), fill(1, 5), fill(400::bigint, 5), fill('v'::text, 5), fill(0, 5), "
           "fill(null::timestamptz, 5), fill(60, 5), fill('fail'::text, 5), fill(null::jsonb, 5), fill(null::uuid, 5), "
           "array[w(1), w(1), w(1), null, null], null)");
    test_done(c);
}

Test(accept, nothing_to_pay_is_nothing_in_the_ledger)
{
    PGconn *c = test_db();

    DO(c, "select t_grant('a', 1)");
    ANSWER(c, "accepted", "select verdict from t_accept(array[j(1)], unit_mc => 0)");
    DO(c, "select t_beat(1)");
    ANSWER(c, "go", "select verdict from t_start(1, array[j(1)])");
    ANSWER(c, "committed|succeeded", "select verdict, state from t_settle(1, array[j(1)], 1, 1, 'delivered')");
    ANSWER(c, "0|0", "select captured_mc, (select count(*) from ledger where job_id is not null) from jobs");
    test_done(c);
}

Test(accept, large_amounts_stay_exact) /* M25 */
{
    static const char *const amounts[] = { "2147483648", "9007199254740993", "4611686018427387904" };
    PGconn *c = test_db();

    DO(c, "select t_beat(1)");
    for (int i = 0; i < 3; i++) {
        char n[16], want[96];

        snprintf(n, sizeof n, "%d", i + 1);
        snprintf(want, sizeof want, "%s|0|%s", amounts[i], amounts[i]);
        DO(c, "select t_grant('a' || $1, $2)", n, amounts[i]);
        ANSWER(c, "accepted", "select verdict from t_accept(array[j($1)], 'a' || $1, 1, $2)", n, amounts[i]);
        ANSWER(c, want, "select balance, balance - held, held from accounts where name = 'a' || $1", n);
        ANSWER(c, "insufficient", "select verdict from t_accept(array[j($1 + 10)], 'a' || $1, 1, 1)", n);
        DO(c, "select t_start(1, array[j($1)])", n);
        ANSWER(c, "succeeded", "select state from t_settle(1, array[j($1)], 1, 1, 'delivered', 1)", n);
        ANSWER(c, "0|0", "select balance, held from accounts where name = 'a' || $1", n);
    }
    DO(c, "select t_grant('a3', 4611686018427387904)");
    ANSWER(c, "ERROR 22003", "select t_grant('a3', 4611686018427387904)"); /* 2^63 has no bigint */
    ANSWER(c, "ERROR 22003", "select t_accept(array[j(20)], 'a3', 4, 4611686018427387904)");
    ANSWER(c, "4611686018427387904|0", "select balance, held from accounts where name = 'a3'");
    test_done(c);
}

Test(accept, a_row_that_breaks_a_rule_fails_the_call_and_nothing_stays)
{
    PGconn *c = test_db();

    DO(c, "select t_grant('a', 1000)");
    ANSWER(c, "ERROR 23514", "select t_accept(array[j(1)], on_unknown => 'perhaps', keys => '{k}')");
    ANSWER(c, "0|0|0|0", WRITTEN);
    test_done(c);
}

struct spend {
    const char *sql;
    int rounds;
    int accepted[64];
};

static int spend(PGconn *c, int number, void *arg)
{
    struct spend *s = arg;
    int wrong = 0;

    for (int i = 0; i < s->rounds; i++) {
        char id[16];
        char *got;

        snprintf(id, sizeof id, "%d", number * 1000 + i + 1);
        got = ASK(c, s->sql, id);
        if (strcmp(got, "accepted") == 0)
            s->accepted[number]++;
        else if (strcmp(got, "insufficient") != 0)
            wrong++, fprintf(stderr, "%s\n", got);
        free(got);
    }
    return wrong;
}

static int sum(const int *n, int count)
{
    int s = 0;

    for (int i = 0; i < count; i++)
        s += n[i];
    return s;
}

Test(accept, sixty_four_at_once_spend_a_balance_for_ten_ten_times) /* M1 */
{
    PGconn *c = test_db();
    struct spend s = { .sql = "select verdict from t_accept(array[j($1)])", .rounds = 1 };

    DO(c, "select t_grant('a', 4000)");
    cr_assert_eq(crowd_run(64, spend, &s), 0);
    cr_assert_eq(sum(s.accepted, 64), 10);
    ANSWER(c, "10|10|0|4000", WRITTEN);
    test_done(c);
}

Test(accept, a_rich_account_is_counted_like_a_poor_one) /* M2 */
{
    PGconn *c = test_db();
    struct spend s = { .sql = "select verdict from t_accept(array[j($1)], unit_mc => 25000000)", .rounds = 40 };

    DO(c, "select t_grant('a', 100000000000)"); /* for 1,000 of 1,280 */
    cr_assert_eq(crowd_run(32, spend, &s), 0);
    cr_assert_eq(sum(s.accepted, 64), 1000);
    test_done(c);
}

static int twin(PGconn *c, int number, void *arg)
{
    struct spend *s = arg;
    int wrong = 0;

    for (int i = 0; i < 10; i++) {
        char id[16];
        char *got;

        snprintf(id, sizeof id, "%d", number * 10 + i + 1);
        got = ASK(c, "select verdict, job from t_accept(array[j($1)], keys => '{one}')", id);
        if (strncmp(got, "accepted|", 9) == 0)
            s->accepted[number]++;
        else if (strncmp(got, "replayed|0", 10) != 0)
            wrong++, fprintf(stderr, "%s\n", got);
        free(got);
    }
    return wrong;
}

Test(accept, five_hundred_twins_make_one_job)
{
    PGconn *c = test_db();
    struct spend s = { .rounds = 10 };

    DO(c, "select t_grant('a', 1000000)");
    cr_assert_eq(crowd_run(50, twin, &s), 0);
    cr_assert_eq(sum(s.accepted, 64), 1);
    ANSWER(c, "1|1|1|400", WRITTEN);
    test_done(c);
}

/* Batches that share keys and accounts, in opposite orders. */
static int crossing(PGconn *c, int number, void *arg)
{
    int wrong = 0;

    (void)arg;
    for (int i = 0; i < 60; i++) {
        char base[16], down[4], round[16];
        char *got;

        snprintf(base, sizeof base, "%d", (number * 60 + i) * 20);
        snprintf(round, sizeof round, "%d", i);
        snprintf(down, sizeof down, "%s", number % 2 == 0 ? "1" : "-1");
        got = ASK(
            c,
            "select count(*) from t_accept((select array_agg(j($1::int + k)) from generate_series(1, 20) k), "
            "keys => (select array_agg($3 || '-' || case when $2::int > 0 then k else 21 - k end) from generate_series(1, 20) k), "
            "accounts => (select array_agg('a' || (case when $2::int > 0 then k else 21 - k end) % 7) "
            "from generate_series(1, 20) k))",
            base, down, round);
        if (strcmp(got, "20") != 0)
            wrong++, fprintf(stderr, "%s\n", got);
        free(got);
    }
    return wrong;
}

Test(accept, batches_that_cross_do_not_deadlock)
{
    PGconn *c = test_db();

    DO(c, "select t_grant('a' || i, 1000000) from generate_series(0, 6) i");
    cr_assert_eq(crowd_run(8, crossing, NULL), 0);
    ANSWER(c, "1200|1200", "select (select count(*) from jobs), (select count(*) from idempotency)");
    test_done(c);
}
