/* test_audit.c - kiln_audit finds each kind of wrong row that somebody with all rights might plant, and nothing else.
 */
#include "tests/schema/ask.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One job of each kind: 1 succeeded in part, 2 failed, 3 canceled, 4 running with a reference, 5 queued for a retry,
 * 6 queued, 7 timed out with a late result, 8 free of charge. */
static PGconn *world(void)
{
    PGconn *c = test_db();

    DO(c, "select t_grant('a', 100000)");
    DO(c, "select t_accept(array[j(7)], deadline_s => 60)");
    DO(c, "select t_accept(array[j(1), j(2), j(3), j(4), j(5), j(6)], keys => '{k1,k2,k3,k4,k5,k6}')");
    DO(c, "select t_accept(array[j(8)], unit_mc => 0)");
    DO(c, "select t_beat(1)");
    DO(c, "select t_start(1, array[j(1), j(2), j(3), j(4), j(5), j(7), j(8)])");
    DO(c, "update jobs set webhook = '{}' where id = j(1)");
    DO(c, "select t_settle(1, array[j(1)], 1, 1, 'delivered', 3), t_settle(1, array[j(2)], 1, 1, 'failed')");
    DO(c, "select t_cancel(j(3)), t_checkpoint(1, j(4), 1, 1, 'ref'), t_settle(1, array[j(5)], 1, 1, 'retry')");
    DO(c, "select t_settle(1, array[j(8)], 1, 1, 'delivered', 4)");
    DO(c, "select t_clock('3 min'), kiln_expire(10)");
    DO(c, "select t_settle(1, array[j(7)], 1, 1, 'delivered', 2)");
    return c;
}

Test(audit, of_a_world_with_one_of_each_is_empty)
{
    test_done(world());
}

struct plant {
    const char *sql;  /* done with triggers off, and rolled back */
    const char *find; /* one of the checks that must see it */
};

static const struct plant plants[] = {
    { "update accounts set balance = balance + 1", "account.balance" },
    { "update accounts set balance = balance + 1", "total" },
    { "update accounts set held = held - 1", "account.held" },
    { "update accounts set held = held - 1", "account.open_holds" },
    { "update ledger set amount = amount + 1 where kind = 'grant'", "account.balance" },
    { "update ledger set amount = amount + 1 where kind = 'grant'", "ledger.chain" },
    { "update ledger set balance_after = balance_after + 1 where kind = 'capture'", "ledger.chain" },
    { "update ledger set held_after = held_after + 1 where id = (select min(id) from ledger where kind = 'hold')",
      "ledger.chain" },
    { "delete from ledger where kind = 'release' and job_id = j(2)", "job.closed" },
    { "delete from ledger where kind = 'capture'", "job.captured" },
    { "delete from ledger where kind = 'hold' and job_id = j(6)", "job.hold" },
    { "update ledger set account_id = 99 where kind = 'hold' and job_id = j(6)", "ledger.account" },
    { "update ledger set account_id = 99 where kind = 'hold' and job_id = j(6)", "job.account" },
    { "update ledger set job_id = j(77) where kind = 'hold' and job_id = j(6)", "ledger.job" },
    { "insert into ledger (account_id, job_id, kind, amount, balance_after, held_after) values (1, j(6), 'release', 400, 0, 0)",
      "job.open" },
    { "insert into ledger (account_id, job_id, kind, amount, balance_after, held_after) values (1, j(3), 'capture', 400, 0, 0)",
      "job.closed" },
    { "insert into ledger (account_id, job_id, kind, amount, balance_after, held_after) values (1, j(1), 'refund', 301, 0, 0)",
      "job.refund" },
    { "insert into ledger (account_id, job_id, kind, amount, balance_after, held_after) values (1, j(8), 'hold', 1, 0, 0)",
      "job.hold" },
    { "update jobs set units = 5, hold_mc = 500 where id = j(6)", "job.hold" },
    { "update jobs set units = 5, hold_mc = 500 where id = j(6)", "account.open_holds" },
    { "update jobs set captured_mc = 400 where id = j(1)", "job.captured" },
    { "update jobs set delivered = 4 where id = j(1)", "job.delivered" },
    { "update jobs set delivered = null where id = j(1)", "job.delivered" },
    { "update jobs set state = 'failed' where id = j(1)", "job.charged" },
    { "update jobs set state = 'succeeded', captured_mc = 0, finished_at = now() where id = j(6)", "job.closed" },
    { "update jobs set state = 'queued', holder = null where id = j(4)", "job.attempts" },
    { "update jobs set account = 'b' where id = j(6)", "job.account" },
    { "update jobs set state = 'running' where id = j(6)", "job.attempts" },
    { "update jobs set attempt = 2 where id = j(4)", "job.attempt_no" },
    { "update jobs set fence = 0 where id = j(4)", "job.fence" },
    { "update attempts set holder = null where job_id = j(4)", "attempt.holder" },
    { "insert into attempts (job_id, no, fence, state, class, provider, opened_at, closed_at) "
      "values (j(6), 1, 0, 'closed', 'unknown', 'p', now(), now())",
      "job.attempt_no" },
    { "insert into attempts (job_id, no, fence, state, provider, opened_at) values (j(4), 2, 1, 'open', 'p', now())",
      "job.attempts" },
    { "insert into attempts (job_id, no, fence, state, provider, opened_at) values (j(77), 1, 1, 'open', 'p', now())",
      "attempt.job" },
    { "update jobs set batch_id = j(9) where id = j(6)", "job.batch" },
    { "with b as (insert into batches values (j(9), app(), j(1), j(5))) update jobs set batch_id = j(9) where id = j(6)",
      "job.batch" },
    { "insert into attempts (job_id, no, fence, state, class, provider, opened_at, closed_at) "
      "select j(5), i, 1, 'closed', 'unknown', 'p', now(), now() from generate_series(2, 4) i",
      "job.unknowns" },
    { "delete from attempts where job_id = j(2)", "job.attempt_no" },
    { "delete from artifacts where job_id = j(1)", "artifact.missing" },
    { "update artifacts set job_id = j(6), attempt = 5 where job_id = j(7)", "artifact.early" },
    { "update artifacts set charged = true where job_id = j(7)", "artifact.charged" },
    { "update artifacts set charged = false, attempt = 5 where job_id = j(1)", "artifact.free" },
    { "update artifacts set job_id = j(77) where job_id = j(1)", "artifact.job" },
    { "update idempotency set job_id = j(77) where key = 'k1'", "key.job" },
    { "update idempotency set app_id = j(77) where key = 'k1'", "key.job" },
    { "insert into outbox (job_id, kind, payload, created_at) values (j(1), 'job.succeeded', '{}', now())", "outbox" },
    { "insert into outbox (job_id, kind, payload, created_at) values (j(6), 'job.succeeded', '{}', now())", "outbox" },
};

Test(audit, finds_every_planted_corruption)
{
    PGconn *c = world();

    for (size_t i = 0; i < sizeof plants / sizeof *plants; i++) {
        char *got;

        DO(c, "begin");
        DO(c, "set local session_replication_role = replica");
        DO(c, plants[i].sql);
        got = ASK(c, "select distinct \"check\" from kiln_audit()");
        cr_expect(strstr(got, plants[i].find) != NULL, "%s\n  expected: %s\n  found:    %s", plants[i].sql,
                  plants[i].find, got);
        free(got);
        DO(c, "rollback");
    }
    test_done(c);
}

Test(audit, says_what_it_expected_and_what_it_found)
{
    PGconn *c = world();

    DO(c, "begin");
    DO(c, "update accounts set balance = balance + 5");
    ANSWER(c, "account.balance|account 1|99700|99705 total|balance|99700|99705", "select * from kiln_audit()");
    DO(c, "rollback");
    test_done(c);
}
