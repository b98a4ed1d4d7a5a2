/* test_route.c - routed jobs: what moves on, what is charged, and whom routes leave in peace. */
#include "tests/schema/ask.h"

#include <criterion/criterion.h>

/* One routed job: `p` at 40, then `q` at 25, held at 100 (a third leg was dearer) for four units. */
static PGconn *with_routed(void)
{
    PGconn *c = test_db();

    DO(c, "select t_grant('a', 1000)");
    DO(c, "select t_accept(array[j(1)])");
    DO(c,
       "update jobs set extras = '{\"route\":[{\"provider\":\"p\",\"unit_mc\":40},{\"provider\":\"q\",\"unit_mc\":25},"
       "{\"provider\":\"x\",\"unit_mc\":100},{\"provider\":\"bad\",\"unit_mc\":999}]}'");
    DO(c, "select t_beat(1)");
    ANSWER(c, "go|p", "select verdict, provider from t_start(1, array[j(1)])");
    return c;
}

Test(route, what_delivered_is_what_is_charged)
{
    PGconn *c = with_routed();

    ANSWER(c, "requeued|queued",
           "select verdict, state from t_settle(1, array[j(1)], 1, 1, 'retry', code => 'region_blocked', "
           "class => 'refused', counts => false, provider => 'q')");
    ANSWER(c, "q|0", "select provider, tries from jobs");
    ANSWER(c, "go|q", "select verdict, provider from t_start(1, array[j(1)])");
    ANSWER(c, "committed", "select verdict from t_settle(1, array[j(1)], 2, 2, 'delivered', units => 3)");
    ANSWER(c, "75|400|3", "select captured_mc, hold_mc, delivered from jobs");
    ANSWER(c, "925|0", "select balance, held from accounts");
    ANSWER(c, "75|325",
           "select sum(amount) filter (where kind = 'capture'), sum(amount) filter (where kind = 'release') "
           "from ledger");
    ANSWER(c, "0", "select count(*) from kiln_audit()");
    test_done(c);
}

Test(route, a_leg_never_costs_more_than_was_held)
{
    PGconn *c = with_routed();

    DO(c, "select t_settle(1, array[j(1)], 1, 1, 'retry', code => 'auth', class => 'refused', counts => false, "
          "provider => 'bad')");
    DO(c, "select t_start(1, array[j(1)])");
    DO(c, "select t_settle(1, array[j(1)], 2, 2, 'delivered')");
    ANSWER(c, "400|600|0", "select j.captured_mc, a.balance, a.held from jobs j, accounts a");
    ANSWER(c, "0", "select count(*) from kiln_audit()");
    test_done(c);
}

Test(route, audit_sees_a_charge_at_another_legs_price)
{
    PGconn *c = with_routed();

    DO(c, "select t_settle(1, array[j(1)], 1, 1, 'delivered')");
    ANSWER(c, "0", "select count(*) from kiln_audit()");
    DO(c, "update jobs set provider = 'q'");
    ANSWER(c, "job.delivered",
           "select kind from kiln_audit() as x(kind, thing, due, found) where kind = 'job.delivered'");
    DO(c, "update jobs set provider = 'p'");
    test_done(c);
}

Test(route, who_refuses_everybody_is_shunned_until_a_probe_delivers)
{
    PGconn *c = with_routed();

    ANSWER(c, "0", "select count(*) from kiln_breakers('{p,q}')");
    DO(c, "select t_settle(1, array[j(1)], 1, 1, 'retry', code => 'insufficient_funds', class => 'refused', "
          "counts => false, provider => 'q')");
    ANSWER(c, "p|t", "select * from kiln_breakers('{p,q}')");
    ANSWER(c, "1|insufficient_funds", "select failures, code from breakers");
    DO(c, "update clock_shift set shift = '31 s'");
    ANSWER(c, "p|f", "select * from kiln_breakers('{p,q}')"); /* the probe */
    ANSWER(c, "p|t", "select * from kiln_breakers('{p,q}')"); /* one only */
    DO(c, "select t_beat(1)");
    DO(c, "select t_accept(array[j(2)], account => 'a')");
    DO(c, "select t_start(1, array[j(2)])");
    DO(c, "select t_settle(1, array[j(2)], 1, 1, 'failed', code => 'insufficient_funds', class => 'refused')");
    ANSWER(c, "2|t", "select failures, until - kiln_now() between '59 s' and '60 s' from breakers"); /* twice as long */
    DO(c, "select t_accept(array[j(3)], account => 'a')");
    DO(c, "select t_start(1, array[j(3)])");
    DO(c, "select t_settle(1, array[j(3)], 1, 1, 'delivered')");
    ANSWER(c, "0", "select count(*) from breakers");
    test_done(c);
}

Test(route, what_a_customer_did_wrong_shuns_nobody)
{
    PGconn *c = with_routed();

    DO(c, "select t_settle(1, array[j(1)], 1, 1, 'failed', code => 'content_filtered', class => 'answered')");
    ANSWER(c, "0", "select count(*) from breakers");
    test_done(c);
}
