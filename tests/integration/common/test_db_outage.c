/* test_db_outage.c - PostgreSQL goes away and comes back, under rows in flight and rows that wait. */
#include "common/base/clock.h"
#include "common/core/holder.h"
#include "tests/integration/common/bench.h"

SUPPORT_SERVICES_ALONE();

Test(outage, rows_outlive_a_stop_and_a_kill_of_postgresql)
{
    static const char *const stops[] = { "stop-postgres", "kill-postgres" };
    int next = 100, want = 0;

    set_up(0, 20);
    until_up();
    for (size_t i = 0; i < ARRAY_LEN(stops); i++) {
        int downs = bench.downs;
        for (int n = 0; n < 200; n++, want++)
            cr_assert_eq(add(next++, "before", true), ERR_OK);
        uv_run(&bench.loop, UV_RUN_NOWAIT); /* one call is under way */
        support_service(stops[i]);
        for (int n = 0; n < 200; n++, want++)
            cr_assert_eq(add(next++, "while it is away", true), ERR_OK);
        cr_assert(support_run_count(&bench.loop, &bench.downs, downs + 1, 5000));
        cr_expect_not(db_is_up(bench.db));
        support_service("start-postgres");
        until_answered(want);
    }
    for (int id = 100; id < next; id++) {
        cr_expect_eq(bench.said[id].calls, 1);
        cr_expect_eq(bench.said[id].err, ERR_OK, "row %d: %s", id, err_word(bench.said[id].err));
    }
    cr_expect_eq(support_sql_int(bench.url, "select count(*) from kept"), want);
    tear_down();
}

Test(outage, patience_ends_while_it_is_away)
{
    set_up(200, 20);
    until_up();
    cr_assert_eq(add(19999, "under way", true), ERR_OK);
    while (support_sql_int(bench.url, "select count(*) from pg_stat_activity where wait_event = 'PgSleep'") == 0)
        uv_run(&bench.loop, UV_RUN_NOWAIT);
    support_service("kill-postgres");
    for (int id = 100; id < 150; id++)
        cr_assert_eq(add(id, "too late", true), ERR_OK);
    until_answered(51);
    cr_expect_eq(bench.said[19999].err, ERR_LOST);
    for (int id = 100; id < 150; id++)
        cr_expect_eq(bench.said[id].err, ERR_UNAVAILABLE);
    cr_expect_eq(db_waiting(bench.db), 0);
    support_service("start-postgres");
    cr_assert(support_run_count(&bench.loop, &bench.ups, 2, 10000));
    cr_assert_eq(add(200, "x", true), ERR_OK);
    until_answered(52);
    cr_expect_eq(bench.said[200].err, ERR_OK);
    cr_expect_eq(support_sql_int(bench.url, "select count(*) from kept where id between 100 and 149"), 0);
    tear_down();
}

static int beats;
static int64_t last_began_ms;

static void on_beat(void *ctx, int64_t began_ms)
{
    (void)ctx;
    cr_expect_gt(began_ms, last_began_ms);
    last_began_ms = began_ms;
    beats++;
}

static int64_t stopped_ms;

static bool second_has_passed(void *ctx)
{
    (void)ctx;
    return clock_mono_ms() - stopped_ms > 1500;
}

Test(outage, no_beat_counts_while_postgresql_is_away_and_the_next_one_comes_by_itself)
{
    uv_loop_t loop;
    char *url = support_database();

    uv_loop_init(&loop);
    struct db *db = db_new(&loop, &(struct db_config){ .url = url, .name = "beat", .answer_ms = 2000 });
    struct beat *beat = beat_new(&(struct beat_config){
        .db = db, .loop = &loop, .worker = "00000000-0000-4000-8000-000000000001", .on_beat = on_beat });
    cr_assert(support_run_count(&loop, &beats, 2, 10000));
    support_service("stop-postgres");
    stopped_ms = clock_mono_ms();
    int before = beats;
    (void)support_run_until(&loop, second_has_passed, NULL, 5000); /* a beat falls due, and one that waits gives up */
    cr_expect_eq(beats, before);
    support_service("start-postgres");
    int64_t back_ms = clock_mono_ms();
    cr_assert(support_run_count(&loop, &beats, before + 1, 10000));
    cr_expect_geq(last_began_ms, back_ms - 1500, "never an old one: it would count as life");
    beat_free(beat, NULL, NULL);
    db_close(db, NULL, NULL);
    support_loop_done(&loop);
    free(url);
}
