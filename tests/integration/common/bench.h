/* bench.h - what test_db.c and test_db_outage.c share: a connection, one gather, and what came back for each row. */
#ifndef KILN_TEST_BENCH_H
#define KILN_TEST_BENCH_H
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>
#include "common/base/text.h"
#include "common/io/db.h"
#include "tests/support/support.h"

/* "add" keeps a row and says its value back; refuses 13, says nothing about 14, waits before the first 15, raises
 * on 16, and does not come back from 19999. */
static const char add_function[] =
    "create function add(tag text, ids int[], texts text[], flags bool[]) returns table (ord int, said text, known bool) "
    "language plpgsql as $$ begin "
    "  insert into calls (rows) values (cardinality(ids));"
    "  if 13 = any (ids) then perform 'x'::int; end if;"
    "  if 15 = any (ids) and nextval('slow') = 1 then perform pg_sleep(0.3); end if;"
    "  if 19999 = any (ids) then perform pg_sleep(3600); end if;"
    "  if 16 = any (ids) then raise exception 'no sixteen'; end if;"
    "  insert into kept select a, b from unnest(ids, texts) as t(a, b) on conflict (id) do update set calls = kept.calls + 1;"
    "  return query select o::int, tag || ':' || coalesce(b, '-'), f from unnest(ids, texts, flags) with ordinality as t(a, b, f, o)"
    "  where a <> 14 order by o desc;"
    "end $$";
static const struct db_call add_call = { .name = "add",
                                         .sql = "select * from add($1, $2::int[], $3::text[], $4::bool[])",
                                         .columns = 3 };

enum { SAID_MAX = 4096, ROWS_MAX = 20000 };

struct said { /* by row */
    int calls;
    enum err err;
    bool known;
    char text[64];
};

struct bench {
    uv_loop_t loop;
    char *url;
    struct db *db;
    struct db_gather *gather;
    int answered, observed, ups, downs, closed;
    size_t sizes[SAID_MAX];
    struct said said[ROWS_MAX];
};
static struct bench bench; /* one test, one process */

static inline void on_row(void *ctx, enum err err, const struct db_result *result, int row)
{
    struct said *s = ctx;
    s->calls++;
    s->err = err;
    cr_expect_eq(err == ERR_OK, result != NULL);
    if (result) {
        (void)snprintf(s->text, sizeof s->text, "%s", db_col(result, row, "said"));
        s->known = db_col_bool(result, row, "known");
    }
    bench.answered++;
}

static inline void on_observed(void *ctx, const char *name, size_t rows, int64_t us)
{
    (void)ctx;
    cr_expect_geq(us, 0);
    if (strcmp(name, "add") == 0 && bench.observed < SAID_MAX)
        bench.sizes[bench.observed++] = rows;
}

static inline void on_state(void *ctx, bool is_up)
{
    (void)ctx;
    if (is_up)
        bench.ups++;
    else
        bench.downs++;
}

static inline void on_closed(void *ctx)
{
    (void)ctx;
    bench.closed++;
}

static inline void set_up_with(const struct db_config *like, int patience_ms, size_t max_rows)
{
    struct db_call call = add_call;

    call.patience_ms = patience_ms;
    call.max_rows = max_rows;
    uv_loop_init(&bench.loop);
    bench.url = support_database_empty();
    /* The servers of tests run without durability; what these tests count has to outlive a kill. */
    free(support_sql(
        bench.url,
        "do $$ begin execute format('alter database %I set synchronous_commit = on', current_database()); end $$"));
    free(support_sql(bench.url, "create table kept (id int primary key, said text, calls int not null default 1)"));
    free(support_sql(bench.url, "create table calls (no bigint generated always as identity, rows int)"));
    free(support_sql(bench.url, "create sequence slow"));
    free(support_sql(bench.url, add_function));
    struct db_config config = { .url = bench.url, .name = "test", .on_state = on_state, .answer_ms = like->answer_ms };
    bench.db = db_new(&bench.loop, &config);
    cr_assert_not_null(bench.db);
    bench.gather = db_gather_new(bench.db, &call, (const char *const[]){ "tag" }, 1);
    cr_assert_not_null(bench.gather);
    db_observe(bench.db, on_observed, NULL);
}

static inline void set_up(int patience_ms, size_t max_rows)
{
    set_up_with(&(struct db_config){ 0 }, patience_ms, max_rows);
}

static inline void tear_down(void)
{
    db_gather_free(bench.gather);
    db_close(bench.db, on_closed, NULL);
    support_loop_done(&bench.loop);
    cr_expect_eq(bench.closed, 1);
    free(bench.url);
}

static inline enum err add(int id, const char *text, bool flag)
{
    struct db_value row[] = { db_int(id), db_text(text), db_bool(flag) };
    return db_gather_add(bench.gather, row, on_row, &bench.said[id]);
}

static inline void until_up(void)
{
    int want = bench.downs + 1;
    cr_assert(support_run_count(&bench.loop, &bench.ups, want, 5000));
}

static inline void until_answered(int want)
{
    cr_assert(support_run_count(&bench.loop, &bench.answered, want, 20000), "answered %d of %d", bench.answered, want);
}

#endif
