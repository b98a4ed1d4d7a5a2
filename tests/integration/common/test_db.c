/* test_db.c - rows go out together, come back once, and survive whatever happens to the connection. */
#include "common/base/clock.h"
#include "tests/integration/common/bench.h"

SUPPORT_SERVICES();

Test(support, a_fresh_database_has_the_schema)
{
    char *url = support_database(), *redis = support_redis();
    cr_expect_gt(support_sql_int(url, "select count(*) from migrations"), 0);
    cr_expect_eq(support_sql_int(url, "select count(*) from jobs"), 0);
    cr_expect_neq(strstr(redis, "?db="), NULL);
    free(url);
    free(redis);
}

Test(db, what_is_added_in_one_turn_goes_out_in_one_call_and_the_rest_with_the_next)
{
    set_up(0, 100);
    until_up();
    for (int i = 100; i < 105; i++)
        cr_assert_eq(add(i, "a", true), ERR_OK);
    cr_expect_eq(bench.answered, 0, "no callback from inside add");
    cr_expect_eq(db_waiting(bench.db), 5);
    until_answered(5);
    cr_expect_eq(bench.observed, 1);
    cr_expect_eq(bench.sizes[0], 5);

    cr_assert_eq(add(15, "slow", true), ERR_OK); /* a call of 300 ms */
    uv_run(&bench.loop, UV_RUN_NOWAIT);
    for (int i = 200; i < 450; i++) {
        cr_assert_eq(add(i, "b", i % 2), ERR_OK);
        uv_run(&bench.loop, UV_RUN_NOWAIT); /* turns of the loop in which the call is under way */
    }
    until_answered(5 + 1 + 250);
    cr_expect_eq(bench.observed, 5);
    cr_expect_eq(bench.sizes[1], 1);
    cr_expect_eq(bench.sizes[2], 100, "at most max_rows a call, it was %zu", bench.sizes[2]);
    cr_expect_eq(bench.sizes[3], 100);
    cr_expect_eq(bench.sizes[4], 50);
    for (int i = 200; i < 450; i++) {
        cr_expect_eq(bench.said[i].calls, 1);
        cr_expect_str_eq(bench.said[i].text, "tag:b");
        cr_expect_eq(bench.said[i].known, i % 2);
    }
    tear_down();
}

Test(db, text_arrives_as_it_was_whatever_is_in_it)
{
    static const char *const texts[] = { "",
                                         "NULL",
                                         "null",
                                         "{}",
                                         "a,b",
                                         "\"",
                                         "\\",
                                         "\\\"",
                                         "line\nline",
                                         "\t",
                                         "{\"a\":\"b\\\"c\"}",
                                         "caf\xc3\xa9",
                                         "\xf0\x9f\x94\xa5",
                                         " x ",
                                         "'" };
    char want[64];

    set_up(0, 0);
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        cr_assert_eq(add(100 + (int)i, texts[i], false), ERR_OK);
    cr_assert_eq(add(99, NULL, false), ERR_OK);
    until_answered((int)ARRAY_LEN(texts) + 1);
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        (void)snprintf(want, sizeof want, "tag:%s", texts[i]);
        cr_expect_str_eq(bench.said[100 + i].text, want);
    }
    cr_expect_str_eq(bench.said[99].text, "tag:-", "NULL is NULL");
    cr_expect_eq(add(98, "\xff", false), ERR_ARGUMENT);
    cr_expect_eq(add(98, "\xc0\x80", false), ERR_ARGUMENT, "a NUL in disguise");
    cr_expect_eq(add(98, "\xed\xa0\x80", false), ERR_ARGUMENT, "half a surrogate pair");
    cr_expect_eq(db_waiting(bench.db), 0);
    tear_down();
}

Test(db, one_bad_row_fails_alone)
{
    set_up(0, 0);
    for (int i = 1; i <= 64; i++)
        if (i != 15)
            cr_assert_eq(add(i, "x", true), ERR_OK);
    until_answered(63);
    for (int i = 1; i <= 64; i++) {
        if (i == 15)
            continue;
        enum err want = i == 13 || i == 14 || i == 16 ? ERR_REFUSED : ERR_OK;
        cr_expect_eq(bench.said[i].err, want, "row %d: %s", i, err_word(bench.said[i].err));
        cr_expect_eq(bench.said[i].calls, 1);
    }
    cr_expect_eq(support_sql_int(bench.url, "select count(*) from kept where id in (13, 16)"), 0);
    cr_expect_eq(support_sql_int(bench.url, "select count(*) from kept"), 61);
    cr_expect_eq(support_sql_int(bench.url, "select max(calls) from kept"), 1, "the good halves ran once");
    tear_down();
}

Test(db, a_connection_killed_in_mid_call_loses_nothing_and_answers_once)
{
    set_up(0, 50);
    until_up();
    for (int i = 100; i < 200; i++)
        cr_assert_eq(add(i, "x", true), ERR_OK);
    cr_assert_eq(add(15, "slow", true), ERR_OK);
    until_answered(100);
    /* The slow one is under way now, or about to be. */
    while (support_sql_int(bench.url, "select count(pg_terminate_backend(pid)) from pg_stat_activity where "
                                      "application_name = 'test' and datname = current_database() and "
                                      "wait_event = 'PgSleep'") == 0)
        uv_run(&bench.loop, UV_RUN_NOWAIT);
    until_answered(101);
    cr_expect_eq(bench.downs, 1);
    cr_expect_eq(bench.said[15].err, ERR_OK);
    for (int i = 100; i < 200; i++)
        cr_expect_eq(bench.said[i].calls, 1);
    cr_expect_eq(support_sql_int(bench.url, "select count(*) from kept"), 101);
    cr_expect_eq(support_sql_int(bench.url, "select calls from kept where id = 15"), 1);
    tear_down();
}

Test(db, closing_answers_everything)
{
    set_up(0, 10);
    for (int i = 100; i < 200; i++)
        cr_assert_eq(add(i, "x", true), ERR_OK);
    tear_down();
    cr_expect_eq(bench.answered, 100);
    for (int i = 100; i < 200; i++)
        cr_expect_eq(bench.said[i].err, ERR_CLOSED);
}

/* --- single statements --- */

static int query_answers;
static enum err query_err;
static char query_text[64], query_state[8];

static void on_query(void *ctx, enum err err, const struct db_result *result)
{
    (void)ctx;
    query_err = err;
    if (err == ERR_OK && db_rows(result) > 0)
        (void)snprintf(query_text, sizeof query_text, "%s|%d|%d|%s", db_col(result, 0, "a"),
                       (int)db_col_int(result, 0, "b"), db_is_null(result, 0, "c"), db_col(result, 0, "nothing"));
    (void)snprintf(query_state, sizeof query_state, "%s", db_sqlstate(result));
    query_answers++;
}

static void query(const char *sql, const char *a, const char *b, int patience_ms)
{
    cr_assert_eq(db_query(bench.db, sql, 2, (const char *const[]){ a, b }, patience_ms, on_query, NULL), ERR_OK);
}

Test(db, a_query_answers_once_with_its_rows_or_its_sqlstate)
{
    set_up(0, 0);
    query("select $1::text as a, $2::bigint as b, null as c", "x'\"\\", "-12", 0);
    cr_expect_eq(query_answers, 0, "not from inside");
    cr_assert(support_run_count(&bench.loop, &query_answers, 1, 5000));
    cr_expect_eq(query_err, ERR_OK);
    cr_expect_str_eq(query_text, "x'\"\\|-12|1|");
    query("select $1::text, 1 / $2::int", "x", "0", 0);
    cr_assert(support_run_count(&bench.loop, &query_answers, 2, 5000));
    cr_expect_eq(query_err, ERR_REFUSED);
    cr_expect_str_eq(query_state, "22012");
    query("select $1::text, $2::text from no_such_table", "x", "0", 0);
    cr_assert(support_run_count(&bench.loop, &query_answers, 3, 5000));
    cr_expect_eq(query_err, ERR_REFUSED);
    cr_expect_str_eq(query_state, "42P01");
    cr_expect_eq(db_query(bench.db, "select $1", 1, (const char *const[]){ "\xff" }, 0, on_query, NULL), ERR_ARGUMENT);
    tear_down();
}

Test(db, queries_and_gathers_of_one_connection_take_turns)
{
    static int sql_at[8];

    set_up(0, 10);
    until_up();
    cr_assert_eq(add(15, "slow", true), ERR_OK);
    uv_run(&bench.loop, UV_RUN_NOWAIT);
    for (int i = 100; i < 200; i++) /* ten calls */
        cr_assert_eq(add(i, "x", true), ERR_OK);
    for (size_t i = 0; i < ARRAY_LEN(sql_at); i++)
        query("select $1::text as a, $2::int as b", "x", "1", 0);
    cr_assert(support_run_count(&bench.loop, &query_answers, (int)ARRAY_LEN(sql_at), 5000));
    cr_expect(bench.observed >= 8 && bench.observed <= 9, "eight queries, and as many calls beside them: %d",
              bench.observed);
    until_answered(101);
    tear_down();
}

/* --- forgetting, closing, patience --- */

Test(db, what_is_forgotten_is_not_called_back_but_takes_effect)
{
    set_up(0, 0);
    cr_assert_eq(add(100, "x", true), ERR_OK);
    cr_assert_eq(add(101, "x", true), ERR_OK);
    query("insert into kept (id, said) values ($2::int, $1)", "by query", "102", 0);
    db_forget(bench.db, &bench.said[100]);
    db_forget(bench.db, NULL); /* the query's ctx */
    until_answered(1);
    while (db_waiting(bench.db) > 0)
        uv_run(&bench.loop, UV_RUN_ONCE);
    cr_expect_eq(bench.said[100].calls, 0);
    cr_expect_eq(bench.said[101].calls, 1);
    cr_expect_eq(query_answers, 0);
    cr_expect_eq(support_sql_int(bench.url, "select count(*) from kept"), 3);
    tear_down();
}

static void on_row_adds(void *ctx, enum err err, const struct db_result *result, int row)
{
    on_row(ctx, err, result, row);
    if (bench.answered < 50)
        cr_expect_eq(add(300 + bench.answered, "from a callback", true), ERR_OK);
}

static void on_row_frees(void *ctx, enum err err, const struct db_result *result, int row)
{
    on_row(ctx, err, result, row);
    if (bench.gather)
        db_gather_free(bench.gather);
    bench.gather = NULL;
}

Test(db, a_callback_may_add_rows_and_free_its_gather)
{
    struct db_value row[] = { db_int(100), db_text("x"), db_bool(true) };

    set_up(0, 3);
    cr_assert_eq(db_gather_add(bench.gather, row, on_row_adds, &bench.said[100]), ERR_OK);
    for (int i = 101; i < 120; i++) {
        row[0] = db_int(i);
        cr_assert_eq(db_gather_add(bench.gather, row, on_row_adds, &bench.said[i]), ERR_OK);
    }
    until_answered(40);
    for (int i = 200; i < 210; i++) {
        row[0] = db_int(i);
        cr_assert_eq(db_gather_add(bench.gather, row, on_row_frees, &bench.said[i]), ERR_OK);
    }
    until_answered(50);
    cr_expect_eq(bench.said[200].err, ERR_OK);
    cr_expect_eq(bench.said[209].err, ERR_CLOSED);
    tear_down();
    cr_expect_eq(bench.answered, 50);
}

/* The first callback of an answer: by then the next call has been sent, and PostgreSQL is at it or through. */
static void on_row_lingers(void *ctx, enum err err, const struct db_result *result, int row)
{
    int64_t until = clock_mono_ms() + 5000;

    on_row(ctx, err, result, row);
    while (support_sql_int(bench.url, "select count(*) from calls") < 2 && clock_mono_ms() < until)
        continue;
    cr_expect_eq(support_sql_int(bench.url, "select count(*) from calls"), 2);
    db_forget(bench.db, &bench.said[101]); /* of the same answer */
    db_forget(bench.db, &bench.said[103]); /* of the call under way */
    (void)support_sql_int(bench.url, "select count(pg_terminate_backend(pid)) from pg_stat_activity where "
                                     "application_name = 'test' and datname = current_database()");
    cr_expect_eq(add(106, "from a callback", true), ERR_OK);
}

Test(db, the_next_call_leaves_before_the_callbacks_and_neither_disturbs_the_other)
{
    struct db_value row[] = { db_int(100), db_text("x"), db_bool(true) };

    set_up(0, 3);
    until_up();
    cr_assert_eq(db_gather_add(bench.gather, row, on_row_lingers, &bench.said[100]), ERR_OK);
    for (int i = 101; i < 106; i++)
        cr_assert_eq(add(i, "x", true), ERR_OK);
    until_answered(5);
    for (int i = 100; i < 107; i++) {
        bool is_forgotten = i == 101 || i == 103;

        cr_expect_eq(bench.said[i].calls, !is_forgotten, "row %d", i);
        cr_expect_eq(bench.said[i].err, ERR_OK);
    }
    cr_expect_eq(bench.downs, 1);
    cr_expect_eq(support_sql_int(bench.url, "select count(*) from kept"), 7);
    tear_down();
}

Test(db, closing_in_mid_call_answers_everything)
{
    set_up(0, 10);
    until_up();
    cr_assert_eq(add(15, "slow", true), ERR_OK);
    uv_run(&bench.loop, UV_RUN_NOWAIT);
    for (int i = 100; i < 200; i++)
        cr_assert_eq(add(i, "x", true), ERR_OK);
    query("select $1::text, $2::int", "x", "1", 0);
    tear_down();
    cr_expect_eq(bench.answered, 101);
    cr_expect_eq(bench.said[15].err, ERR_CLOSED);
    cr_expect_eq(query_answers, 1);
    cr_expect_eq(query_err, ERR_CLOSED);
}

Test(db, patience_tells_what_was_sent_from_what_was_not)
{
    set_up(200, 1);
    until_up();
    cr_assert_eq(add(15, "slow", true), ERR_OK); /* 300 ms */
    cr_assert_eq(add(100, "x", true), ERR_OK);
    until_answered(2);
    cr_expect_eq(bench.said[15].err, ERR_LOST);
    cr_expect_eq(bench.said[100].err, ERR_UNAVAILABLE);
    query("select $1::text, $2::int", "x", "1", 0); /* comes after the slow one */
    cr_assert(support_run_count(&bench.loop, &query_answers, 1, 5000));
    cr_expect_eq(support_sql_int(bench.url, "select count(*) from kept"), 1, "what was never sent never happens");
    tear_down();
    cr_expect_eq(bench.answered, 2);
}

Test(db, an_answer_that_does_not_come_costs_the_connection_not_the_row)
{
    set_up_with(&(struct db_config){ .answer_ms = 150 }, 0, 0);
    until_up();
    query("select set_config('statement_timeout', $2, false) as a, $1::text as b", "0", "0", 0);
    cr_assert(support_run_count(&bench.loop, &query_answers, 1, 5000));
    cr_assert_eq(add(15, "slow, the first time", true), ERR_OK);
    until_answered(1);
    cr_expect_eq(bench.downs, 1);
    cr_expect_eq(bench.said[15].err, ERR_OK);
    cr_expect_eq(support_sql_int(bench.url, "select count(*) from kept"), 1);
    tear_down();
}

/* Of a call that may be done once a row in doubt says so, and the next one goes on. */
Test(db, a_row_of_a_call_that_is_not_to_be_repeated_ends_when_it_is_cut_off)
{
    set_up(0, 0);
    until_up();
    free(support_sql(bench.url, "create table counted (n int)"));
    free(support_sql(
        bench.url,
        "create function count_once(ids int[]) returns table (ord int) language plpgsql as $$ begin "
        "insert into counted select unnest(ids); perform pg_sleep(case when 1 = any(ids) then 30 else 0 end); "
        "return query select o::int from unnest(ids) with ordinality t(i, o); end $$"));
    struct db_call call = {
        .name = "once", .sql = "select * from count_once($1::int[])", .columns = 1, .is_once = true
    };
    struct db_gather *once = db_gather_new(bench.db, &call, NULL, 0);
    struct db_value first[] = { db_int(1) }, second[] = { db_int(2) };
    cr_assert_eq(db_gather_add(once, first, on_row, &bench.said[1]), ERR_OK);
    while (support_sql_int(bench.url, "select count(*) from pg_stat_activity where application_name = 'test' and "
                                      "datname = current_database() and wait_event = 'PgSleep'") == 0)
        uv_run(&bench.loop, UV_RUN_NOWAIT);
    cr_expect_gt(db_owed_ms(bench.db), 0);
    cr_assert_eq(db_gather_add(once, second, on_row, &bench.said[2]), ERR_OK);
    (void)support_sql_int(bench.url, "select count(pg_terminate_backend(pid)) from pg_stat_activity where "
                                     "application_name = 'test' and datname = current_database()");
    until_answered(2);
    cr_expect_eq(bench.said[1].err, ERR_LOST);
    cr_expect_eq(bench.said[2].err, ERR_OK);
    cr_expect_eq(db_owed_ms(bench.db), 0);
    cr_expect_eq(support_sql_int(bench.url, "select sum(n) from counted"), 2, "it was not asked again");
    db_gather_free(once);
    tear_down();
}

Test(db, what_the_server_gave_up_for_a_lock_is_repeated)
{
    set_up(0, 0);
    until_up();
    free(support_sql(bench.url, "create sequence tries"));
    free(support_sql(bench.url,
                     "create function pick(ids int[]) returns table (ord int) language plpgsql as $$ begin "
                     "if nextval('tries') < 4 then raise exception 'locked' using errcode = '55P03'; end if; "
                     "return query select o::int from unnest(ids) with ordinality t(i, o); end $$"));
    struct db_call call = { .name = "pick", .sql = "select * from pick($1::int[])", .columns = 1 };
    struct db_gather *pick = db_gather_new(bench.db, &call, NULL, 0);
    struct db_value row[] = { db_int(7) };
    cr_assert_eq(db_gather_add(pick, row, on_row, &bench.said[7]), ERR_OK);
    until_answered(1);
    cr_expect_eq(bench.said[7].err, ERR_OK);
    cr_expect_eq(support_sql_int(bench.url, "select last_value from tries"), 4);
    db_gather_free(pick);
    tear_down();
}

Test(db, a_bad_url_is_refused_and_an_unknown_host_is_asked_again)
{
    cr_expect_eq(db_url_check("postgresql://u:p@h/d"), ERR_OK);
    cr_expect_eq(db_url_check("host=/tmp dbname=x"), ERR_OK);
    cr_expect_eq(db_url_check("postgresql://u:p@h:bad port/d?x"), ERR_ARGUMENT);
    cr_expect_eq(db_url_check("nonsense"), ERR_ARGUMENT);
    uv_loop_init(&bench.loop);
    cr_expect_null(db_new(&bench.loop, &(struct db_config){ .url = "nonsense", .name = "test" }));
    static const char *const urls[] = { "postgresql://nobody@localhost:1/x",
                                        "postgresql://nobody@no-such-host.invalid/x",
                                        "postgresql:///x?host=/no/such/folder" };
    for (size_t i = 0; i < ARRAY_LEN(urls); i++) {
        bench.db = db_new(&bench.loop, &(struct db_config){ .url = urls[i], .name = "test", .on_state = on_state });
        query("select $1::text, $2::text", "x", "x", 400);
        cr_assert(support_run_count(&bench.loop, &query_answers, (int)i + 1, 10000));
        cr_expect_eq(query_err, ERR_UNAVAILABLE);
        cr_expect_eq(bench.ups + bench.downs, 0);
        db_close(bench.db, NULL, NULL);
    }
    support_loop_done(&bench.loop);
}

/* --- without a loop --- */

static int reports;

static void on_report(void *ctx, const char *line)
{
    (void)ctx;
    cr_expect_eq(strncmp(line, "applied ", 8), 0, "%s", line);
    reports++;
}

Test(db, migrations_are_applied_once_whole_and_never_changed)
{
    static const struct db_migration first[] = { { 1, "0001_a.sql",
                                                   "create table a (n int); insert into a values (1)" } };
    static const struct db_migration both[] = { { 1, "0001_a.sql", "create table a (n int); insert into a values (1)" },
                                                { 2, "0002_b.sql", "insert into a values (2)" } };
    static const struct db_migration broken[] = { { 3, "0003_c.sql", "insert into a values (3); select 1/0" } };
    static const struct db_migration changed[] = { { 1, "0001_a.sql", "create table a (n bigint)" } };
    char message[256] = "", *url = support_database_empty();

    cr_expect_eq(db_migrate(url, first, 1, on_report, NULL, message, sizeof message), ERR_OK, "%s", message);
    cr_expect_eq(db_migrate(url, both, 2, on_report, NULL, message, sizeof message), ERR_OK, "%s", message);
    cr_expect_eq(db_migrate(url, both, 2, on_report, NULL, message, sizeof message), ERR_OK, "%s", message);
    cr_expect_eq(reports, 2);
    cr_expect_eq(support_sql_int(url, "select sum(n) from a"), 3);
    cr_expect_eq(db_migrate(url, broken, 1, on_report, NULL, message, sizeof message), ERR_REFUSED);
    cr_expect_not_null(strstr(message, "0003_c.sql"), "%s", message);
    cr_expect_not_null(strstr(message, "division by zero"), "%s", message);
    cr_expect_eq(support_sql_int(url, "select sum(n) from a"), 3, "all of a migration or nothing");
    cr_expect_eq(db_migrate(url, changed, 1, on_report, NULL, message, sizeof message), ERR_CONFLICT);
    cr_expect_not_null(strstr(message, "0001_a.sql was changed"), "%s", message);
    cr_expect_eq(db_migrate("postgresql:///x?host=/no/such/folder", first, 1, NULL, NULL, message, sizeof message),
                 ERR_UNAVAILABLE);
    cr_expect_eq(db_migrate("nonsense", first, 1, NULL, NULL, message, sizeof message), ERR_ARGUMENT);
    free(url);
}
