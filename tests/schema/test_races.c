/* test_races.c - everybody at once on the same jobs and accounts: one end, one closed hold, no deadlock. */
#include "tests/schema/ask.h"
#include "tests/schema/crowd.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { JOBS = 2000, BATCH = 20 };

/* Six who each want to end every job their own way: delivered, failed, unknown (by the holder), cancel twice, expire.
 * The batches of neighbours overlap and go up or down. */
static int ending(PGconn *c, int number, void *arg)
{
    static const char *const ways[] = {
        "select count(*) from t_settle(1, (select array_agg(j($1::int + i)) from generate_series(1, 20) i), 1, 1, 'delivered', 3)",
        "select count(*) from t_settle(1, (select array_agg(j($1::int + 21 - i)) from generate_series(1, 20) i), 1, 1, 'failed')",
        "select count(*) from t_settle(1, (select array_agg(j($1::int + i)) from generate_series(1, 20) i), 1, 1, 'unknown')",
        "select count(*) from kiln_cancel((select array_agg(j($1::int + 21 - i)) from generate_series(1, 20) i), fill(app(), 20))",
        "select count(*) from kiln_cancel((select array_agg(j($1::int + i)) from generate_series(1, 20) i), fill(app(), 20))",
        "select count(*) * 0 + 20 from kiln_expire(20 + $1::int * 0)",
    };
    int wrong = 0;

    (void)arg;
    for (int i = 0; i < JOBS / BATCH; i++) {
        char base[16];
        char *got;

        snprintf(base, sizeof base, "%d", i * BATCH);
        got = ASK(c, ways[number], base);
        if (strcmp(got, "20") != 0)
            wrong++, fprintf(stderr, "way %d: %s\n", number, got);
        free(got);
    }
    return wrong;
}

Test(races, a_job_ends_once_however_many_want_to_end_it) /* M5, M9 */
{
    PGconn *c = test_db();

    DO(c, "select t_grant('a' || i, 100000000) from generate_series(0, 4) i");
    for (int round = 0; round < 3; round++) {
        DO(c, "truncate jobs, attempts, artifacts, idempotency");
        DO(c, "begin");
        DO(c, "set local session_replication_role = replica"); /* a new world, without the old one's books */
        DO(c, "delete from ledger where job_id is not null");
        DO(c, "update accounts set balance = 100000000, held = 0");
        DO(c, "commit");
        DO(c,
           "select count(*) from t_accept((select array_agg(j(i)) from generate_series(1, 2000) i), on_unknown => 'fail', "
           "deadline_s => -100, accounts => (select array_agg('a' || i % 5) from generate_series(1, 2000) i))");
        DO(c, "select t_beat(1)");
        ANSWER(
            c, "2000",
            "select count(*) from t_start(1, (select array_agg(j(i)) from generate_series(1, 2000) i)) where verdict = 'go'");
        cr_assert_eq(crowd_run(6, ending, NULL), 0);
        ANSWER(c, "2000|2000", "select count(*), count(distinct job_id) from ledger where kind = 'release'");
        ANSWER(
            c, "t",
            "select (select count(*) from ledger where kind = 'capture') = count(*) from jobs where state = 'succeeded'");
        ANSWER(c, "0", "select sum(held) from accounts");
        ANSWER(c, "", "select \"check\", subject, expected, found from kiln_audit()");
    }
    test_done(c);
}

/* One job at a time, the narrowest window: settle, cancel and expire let go together. */
static int one_by_one(PGconn *c, int number, void *arg)
{
    static const char *const ways[] = {
        "select verdict from t_settle(1, array[j($1)], 1, 1, 'delivered')", "select t_cancel(j($1))",
        "select coalesce(string_agg(state, ''), 'none') from kiln_expire(1 + $1::int * 0)"
    };
    int wrong = 0;

    (void)arg;
    for (int i = 1; i <= 1500; i++) {
        char id[16];
        char *got;

        snprintf(id, sizeof id, "%d", i);
        got = ASK(c, ways[number], id);
        if (strncmp(got, "ERROR", 5) == 0)
            wrong++, fprintf(stderr, "%s\n", got);
        free(got);
    }
    return wrong;
}

Test(races, settle_cancel_and_expire_of_one_job_close_one_hold)
{
    PGconn *c = test_db();

    DO(c, "select t_grant('a', 100000000)");
    DO(c,
       "select count(*) from t_accept((select array_agg(j(i)) from generate_series(1, 1500) i), deadline_s => -100)");
    DO(c, "select t_beat(1)");
    DO(c, "select count(*) from t_start(1, (select array_agg(j(i)) from generate_series(1, 1500) i))");
    cr_assert_eq(crowd_run(3, one_by_one, NULL), 0);
    ANSWER(c, "1500|0",
           "select (select count(*) from ledger where kind in ('capture', 'release')), (select held from accounts)");
    test_done(c);
}

/* Accepts, starts, settles, retries, cancels, expires, beats and grants on five accounts: nothing may deadlock. */
static int bustle(PGconn *c, int number, void *arg)
{
    unsigned seed = 77u + (unsigned)number;
    int wrong = 0;

    (void)arg;
    for (int i = 0; i < 120; i++) {
        char me[16], base[16], turn[16];
        char *got = NULL;

        snprintf(me, sizeof me, "%d", number % 3 + 1);
        snprintf(base, sizeof base, "%u", crowd_random(&seed) % 60 * 10);
        snprintf(turn, sizeof turn, "%u", crowd_random(&seed) % 1000);
        switch (crowd_random(&seed) % 9) {
        case 0:
        case 1:
            got = ASK(
                c,
                "select count(*) from t_accept((select array_agg(j($1::int + i) order by md5(i || $2)) from generate_series(1, 20) i), "
                "accounts => (select array_agg('a' || i % 5 order by md5(i || $2)) from generate_series(1, 20) i), "
                "keys => (select array_agg('k' || ($1::int + i) order by md5(i || $2)) from generate_series(1, 20) i))",
                base, turn);
            break;
        case 2:
        case 3:
            got = ASK(
                c,
                "select count(*) from t_start($1, (select array_agg(j($2::int + i) order by md5(i || $3)) from generate_series(1, 30) i))",
                me, base, turn);
            break;
        case 4:
            got = ASK(
                c,
                "select count(*) from (select array_agg(id) ids, array_agg(fence) f, array_agg(attempt) a, count(*)::int n from "
                "(select * from kiln_held(w($1), null, 50) order by md5(id || $2)) h) h, lateral "
                "kiln_checkpoint(w($1), ids, f, a, fill('ref'::text, n), fill('rq'::text, n)) where n > 0",
                me, turn);
            break;
        case 5:
        case 6:
            got = ASK(
                c,
                "select count(*) from (select array_agg(id) ids, array_agg(fence) f, array_agg(attempt) a, count(*)::int n from "
                "(select * from kiln_held(w($1), null, 40) order by md5(id || $2)) h) h, lateral "
                "kiln_settle(w($1), ids, f, a, (select array_agg((array['delivered','failed','retry','unknown'])[1 + i % 4]) "
                "from generate_series(1, n) i), fill('c'::text, n), fill(null::text, n), fill('m'::text, n), fill(1, n), "
                "fill('r'::text, n), fill(3, n), fill(1::bigint, n), fill(0::bigint, n), fill(true, n), "
                "array(select t_artifacts(3) from generate_series(1, n)), fill(null::jsonb, n), fill(null::text, n)) where n > 0",
                me, turn);
            break;
        case 7:
            got = ASK(
                c,
                "select count(*) from kiln_cancel((select array_agg(j($1::int + i) order by md5(i || $2)) from generate_series(1, 5) i), "
                "fill(app(), 5))",
                base, turn);
            break;
        default:
            got = ASK(c, "select count(*) from t_beat($1), t_grant('a' || ($2::int % 5), 1000), kiln_expire(5)", me,
                      turn);
            break;
        }
        if (strncmp(got, "ERROR", 5) == 0)
            wrong++, fprintf(stderr, "%s\n", got);
        free(got);
    }
    return wrong;
}

Test(races, everything_at_once_on_the_same_accounts_does_not_deadlock)
{
    PGconn *c = test_db();

    DO(c, "select t_grant('a' || i, 60000) from generate_series(0, 4) i");
    DO(c, "select t_beat(i) from generate_series(1, 3) i");
    cr_assert_eq(crowd_run(8, bustle, NULL), 0);
    cr_assert_gt(ask_number(c, "select count(*) from jobs where captured_mc is not null"), 100);
    test_done(c);
}

/* Beats of many workers, each of which looks at all the others, after a pause that made all of them suspects. */
static int beating(PGconn *c, int number, void *arg)
{
    int wrong = 0;

    (void)arg;
    for (int i = 0; i < 100; i++) {
        char me[16];
        char *got;

        snprintf(me, sizeof me, "%d", number + 1);
        got = ASK(c, "select t_beat($1)", me);
        if (*got != '\0')
            wrong++, fprintf(stderr, "%s\n", got);
        free(got);
        if (i == 30 && number == 0)
            free(ASK(c, "select t_clock('1 hour')"));
    }
    return wrong;
}

Test(races, beats_neither_deadlock_nor_kill)
{
    PGconn *c = test_db();

    cr_assert_eq(crowd_run(8, beating, NULL), 0);
    ANSWER(c, "8", "select count(*) from workers where dead_at is null");
    test_done(c);
}
