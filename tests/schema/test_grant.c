/* test_grant.c - credits come in once, and the ledger keeps what it was told. */
#include "tests/schema/ask.h"
#include "tests/schema/crowd.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

Test(grant, creates_the_account_and_answers_its_balance)
{
    PGconn *c = test_db();

    ANSWER(c, "1|granted|500|0", "select * from t_grant('ann', 500, 'r1')");
    ANSWER(c, "1|granted|700|0", "select * from t_grant('ann', 200, 'r2')");
    ANSWER(c, "grant|500|500|r1 grant|200|700|r2",
           "select kind, amount, balance_after, reference from ledger order by id");
    test_done(c);
}

Test(grant, a_reference_grants_once_and_stands_for_what_it_granted)
{
    PGconn *c = test_db();

    DO(c, "select t_grant('ann', 500, 'r')");
    ANSWER(c, "replayed|500|0", "select verdict, balance, held from t_grant('ann', 500, 'r')");
    ANSWER(c, "mismatch|500", "select verdict, balance from t_grant('ann', 501, 'r')");
    ANSWER(c, "mismatch|0", "select verdict, balance from t_grant('bob', 500, 'r')");
    ANSWER(c, "1", "select count(*) from accounts"); /* bob's account was not made by a refusal */
    test_done(c);
}

Test(grant, twins_in_one_call_grant_once)
{
    PGconn *c = test_db();

    ANSWER(c, "granted|8 replayed|8 granted|8 mismatch|8 mismatch|0",
           "select verdict, balance from kiln_grant(fill(app(), 5), '{a,a,a,a,b}', '{5,5,3,4,5}', '{r,r,s,r,r}')");
    test_done(c);
}

Test(grant, references_are_the_apps_own)
{
    PGconn *c = test_db();

    DO(c, "insert into apps (id, name) values (w(1), 'other')");
    ANSWER(c, "granted granted", "select verdict from kiln_grant(array[app(), w(1)], '{a,a}', '{5,7}', '{r,r}')");
    test_done(c);
}

Test(grant, what_is_no_grant_is_refused)
{
    PGconn *c = test_db();

    ANSWER(c, "ERROR 23514", "select t_grant('a', 0)");
    ANSWER(c, "ERROR 23514", "select t_grant('a', -5)");
    ANSWER(c, "ERROR 23514", "select t_grant('no spaces', 5)");
    ANSWER(c, "ERROR 22023", "select t_grant('a', 5, null)");
    ANSWER(c, "ERROR 23503", "select kiln_grant(array[w(1)], '{a}', '{5}', '{r}')");
    ANSWER(c, "0|0", "select (select count(*) from accounts), (select count(*) from ledger)");
    test_done(c);
}

struct seen {
    int granted[32];
};

static int same_payment(PGconn *c, int number, void *arg)
{
    struct seen *s = arg;
    int wrong = 0;

    for (int i = 0; i < 50; i++) {
        char ref[16], account[16];
        char *got;

        snprintf(ref, sizeof ref, "pay-%d", i);
        snprintf(account, sizeof account, "new%d", i % 5);
        got = ASK(c, "select verdict from t_grant($2, 100, $1)", ref, account);
        if (strcmp(got, "granted") == 0)
            s->granted[number]++;
        else if (strcmp(got, "replayed") != 0)
            wrong++, fprintf(stderr, "%s\n", got);
        free(got);
    }
    return wrong;
}

Test(grant, a_payment_told_by_twenty_at_once_is_granted_once) /* M19 */
{
    PGconn *c = test_db();
    struct seen s = { 0 };
    int granted = 0;

    cr_assert_eq(crowd_run(20, same_payment, &s), 0);
    for (int i = 0; i < 32; i++)
        granted += s.granted[i];
    cr_assert_eq(granted, 50);
    ANSWER(c, "5|5000", "select count(*), sum(balance) from accounts");
    test_done(c);
}

static int same_payment_for_another(PGconn *c, int number, void *arg)
{
    struct seen *s = arg;
    int wrong = 0;

    for (int i = 0; i < 50; i++) {
        char ref[16], account[16];
        char *got;

        snprintf(ref, sizeof ref, "pay-%d", i);
        snprintf(account, sizeof account, "mine%d", number);
        got = ASK(c, "select verdict from t_grant($2, 100, $1)", ref, account);
        if (strcmp(got, "granted") == 0)
            s->granted[number]++;
        else if (strcmp(got, "mismatch") != 0)
            wrong++, fprintf(stderr, "%s\n", got);
        free(got);
    }
    return wrong;
}

Test(grant, of_accounts_that_claim_the_same_payment_at_once_one_gets_it)
{
    PGconn *c = test_db();
    struct seen s = { 0 };

    cr_assert_eq(crowd_run(10, same_payment_for_another, &s), 0);
    ANSWER(c, "5000", "select sum(balance) from accounts");
    test_done(c);
}

Test(ledger, refuses_update_delete_and_truncate)
{
    PGconn *c = test_db();

    DO(c, "select t_grant('a', 500)");
    ANSWER(c, "ERROR 0A000", "update ledger set amount = 1");
    ANSWER(c, "ERROR 0A000", "delete from ledger");
    ANSWER(c, "ERROR 0A000", "delete from ledger where false");
    ANSWER(c, "ERROR 0A000", "truncate ledger");
    ANSWER(c, "500", "select amount from ledger");
    test_done(c);
}

Test(ledger, an_account_cannot_owe_or_hold_what_it_has_not) /* M28 */
{
    PGconn *c = test_db();

    DO(c, "select t_grant('a', 500)");
    ANSWER(c, "ERROR 23514", "update accounts set held = 501");
    ANSWER(c, "ERROR 23514", "update accounts set held = -1");
    ANSWER(c, "ERROR 23514", "update accounts set balance = -1");
    test_done(c);
}

Test(ledger, a_job_has_one_row_of_each_kind)
{
    PGconn *c = test_db();

    DO(c, "select t_grant('a', 500)");
    DO(c, "select t_accept(array[j(1)])");
    ANSWER(c, "ERROR 23505",
           "insert into ledger (account_id, job_id, kind, amount, balance_after, held_after) "
           "values (1, j(1), 'hold', 400, 500, 800)");
    test_done(c);
}
