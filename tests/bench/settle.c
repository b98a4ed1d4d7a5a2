/* settle.c - the floor of scripts/bench settle: a worker's two statements, fed straight into PostgreSQL.
 *
 *   bench_settle_floor JOBS BATCH [ACCOUNTS]      (KILN_DATABASE_URL in the environment; an empty database of kiln's
 * schema)
 *
 * JOBS jobs are accepted first, which is not measured. Then one connection does what a worker's does, in calls of BATCH
 * jobs and with nothing in between: kiln_start, kiln_settle, the next ones. Statements and arguments are those of
 * common/core/holder.c and ledger.c for a job that delivered one file; prepared once, synchronous_commit as it is.
 * One line: microseconds a job of each, WAL bytes a job of each, the backend's own CPU. Exit 1: not every job
 * succeeded. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <libpq-fe.h>
#include "common/base/clock.h"
#include "common/base/text.h"

enum { JOBS_MAX = 1000000, BATCH_MAX = 10000, ACCEPT_BATCH = 1000, BEAT_MS = 1000, COLUMNS = 16 };

static const char accept_sql[] =
    "select count(*) filter (where verdict = 'accepted') from kiln_accept($1::uuid[], "
    "array_fill($2::uuid, array[$3::int]), (select array_agg('bench-' || i % $4::int) from generate_series(1, $3::int) i), "
    "array_fill(null::text, array[$3::int]), array_fill(null::text, array[$3::int]), "
    "array_fill('lean.call'::text, array[$3::int]), array_fill('lean'::text, array[$3::int]), "
    "array_fill('{\"prompt\":\"a bench\"}'::jsonb, array[$3::int]), array_fill(null::jsonb, array[$3::int]), "
    "array_fill(1, array[$3::int]), array_fill(1000::bigint, array[$3::int]), array_fill('bench'::text, array[$3::int]), "
    "array_fill(0, array[$3::int]), array_fill(null::timestamptz, array[$3::int]), array_fill(3600, array[$3::int]), "
    "array_fill('retry'::text, array[$3::int]), array_fill(null::jsonb, array[$3::int]), "
    "array_fill(null::uuid, array[$3::int]), array_fill(null::uuid, array[$3::int]), null)";

/* As holder.c and ledger.c have them. */
static const char start_sql[] =
    "select ord, verdict, fence, attempt, ref, remaining_ms, unknowns, tries, attempt_age_ms, provider "
    "from kiln_start($1::uuid, $2::uuid[], $3::boolean[], $4::int[], $5::jsonb[])";
static const char settle_sql[] =
    "select ord, verdict, state, version, run_delay_ms from kiln_settle($1::uuid, $2::uuid[], $3::bigint[], $4::int[], "
    "$5::text[], $6::text[], $7::text[], $8::text[], $9::int[], $10::text[], $11::int[], $12::bigint[], $13::bigint[], "
    "$14::boolean[], $15::jsonb[], $16::jsonb[], $17::text[])";

struct cost {
    int64_t us;
    double wal_bytes;
};

struct floor {
    PGconn *pg;
    char worker[UUID_TEXT], app[UUID_TEXT];
    char (*ids)[UUID_TEXT];
    long jobs, batch, accounts;
    struct buf columns[COLUMNS];
    int64_t beaten_ms;
    struct cost start, settle;
};

static PGresult *ask(struct floor *f, PGresult *r)
{
    if (PQresultStatus(r) == PGRES_TUPLES_OK || PQresultStatus(r) == PGRES_COMMAND_OK)
        return r;
    (void)fprintf(stderr, "bench_settle_floor: %s", PQerrorMessage(f->pg));
    exit(2);
}

static PGresult *ask_with(struct floor *f, const char *sql, int count, const char *const *values)
{
    return ask(f, PQexecParams(f->pg, sql, count, NULL, values, NULL, NULL, 0));
}

/* --- jobs to start with ------------------------------------------------------------------------------------------ */

static void open_books(struct floor *f)
{
    char accounts[24];
    const char *of_app[] = { f->app }, *of_grant[] = { f->app, accounts };

    (void)snprintf(accounts, sizeof(accounts), "%ld", f->accounts);
    PQclear(ask_with(f, "insert into apps (id, name) values ($1::uuid, $1)", 1, of_app));
    PQclear(ask_with(f,
                     "select kiln_grant(array_agg($1::uuid), array_agg('bench-' || i), array_agg(1000000000000), "
                     "array_agg('bench-' || i)) from generate_series(0, $2::int - 1) i",
                     2, of_grant));
    PQclear(ask(f, PQprepare(f->pg, "start", start_sql, 0, NULL)));
    PQclear(ask(f, PQprepare(f->pg, "settle", settle_sql, 0, NULL)));
}

static void ids_print(struct buf *out, char (*ids)[UUID_TEXT], long count)
{
    out->len = 0;
    for (long i = 0; i < count; i++)
        (void)buf_printf(out, "%c%s", i ? ',' : '{', ids[i]);
    (void)buf_str(out, "}");
}

static void accept_all(struct floor *f)
{
    for (long i = 0; i < f->jobs; i++)
        uuid_v7(f->ids[i]);
    for (long at = 0; at < f->jobs; at += ACCEPT_BATCH) {
        char count[24], accounts[24];
        const char *values[] = { NULL, f->app, count, accounts };
        long n = f->jobs - at < ACCEPT_BATCH ? f->jobs - at : ACCEPT_BATCH;

        ids_print(&f->columns[0], f->ids + at, n);
        values[0] = f->columns[0].data;
        (void)snprintf(count, sizeof(count), "%ld", n);
        (void)snprintf(accounts, sizeof(accounts), "%ld", f->accounts);
        PGresult *r = ask_with(f, accept_sql, 4, values);
        if (strtol(PQgetvalue(r, 0, 0), NULL, 10) != n) {
            (void)fprintf(stderr, "bench_settle_floor: not every job was accepted\n");
            exit(2);
        }
        PQclear(r);
    }
}

/* --- what a worker does ------------------------------------------------------------------------------------------ */

static void beat(struct floor *f) /* who is silent would be taken for dead */
{
    const char *values[] = { f->worker };

    if (f->beaten_ms && clock_mono_ms() - f->beaten_ms < BEAT_MS)
        return;
    f->beaten_ms = clock_mono_ms();
    PQclear(ask_with(f, "select dead from kiln_beat($1::uuid, '{}', false)", 1, values));
}

static double wal_at(struct floor *f)
{
    PGresult *r = ask_with(f, "select pg_current_wal_insert_lsn() - '0/0'", 0, NULL);
    double at = strtod(PQgetvalue(r, 0, 0), NULL);
    PQclear(r);
    return at;
}

static PGresult *timed(struct floor *f, struct cost *cost, const char *statement, int count)
{
    const char *values[COLUMNS + 1] = { f->worker };
    double wal = wal_at(f);
    int64_t began;

    for (int i = 0; i < count; i++)
        values[i + 1] = f->columns[i].data;
    began = clock_mono_us();
    PGresult *r = ask(f, PQexecPrepared(f->pg, statement, count + 1, values, NULL, NULL, 0));
    cost->us += clock_mono_us() - began;
    cost->wal_bytes += wal_at(f) - wal;
    return r;
}

static void columns_fill(struct floor *f, int from, int to, long count, const char *value) /* the same in each row */
{
    for (int c = from; c < to; c++) {
        f->columns[c].len = 0;
        for (long i = 0; i < count; i++)
            (void)buf_printf(&f->columns[c], "%c%s", i ? ',' : '{', value);
        (void)buf_str(&f->columns[c], "}");
    }
}

static void column_take(struct floor *f, int c, PGresult *r, int field)
{
    f->columns[c].len = 0;
    for (int i = 0; i < PQntuples(r); i++)
        (void)buf_printf(&f->columns[c], "%c%s", i ? ',' : '{', PQgetvalue(r, i, field));
    (void)buf_str(&f->columns[c], "}");
}

static void column_artifacts(struct floor *f, int c, char (*ids)[UUID_TEXT], long count)
{
    char id[UUID_TEXT], hash[SHA256_HEX];

    f->columns[c].len = 0;
    for (long i = 0; i < count; i++) {
        uuid_v7(id);
        sha256_hex(hash, id, UUID_TEXT);
        (void)buf_printf(&f->columns[c],
                         "%c\"[{\\\"blurhash\\\":null,\\\"bytes\\\":51200,\\\"color\\\":null,\\\"id\\\":\\\"%s\\\","
                         "\\\"idx\\\":0,\\\"kind\\\":\\\"file\\\",\\\"mime\\\":\\\"application/octet-stream\\\","
                         "\\\"object\\\":\\\"job/%.2s/%s/1/0\\\",\\\"revised_prompt\\\":null,\\\"seed\\\":null,"
                         "\\\"sha256\\\":\\\"%s\\\"}]\"",
                         i ? ',' : '{', id, ids[i] + UUID_TEXT - 3, ids[i], hash);
    }
    (void)buf_str(&f->columns[c], "}");
}

static long count_of(PGresult *r, int field, const char *word)
{
    long count = 0;

    for (int i = 0; i < PQntuples(r); i++)
        count += strcmp(PQgetvalue(r, i, field), word) == 0;
    return count;
}

/* The columns of kiln_settle, in its order. */
enum {
    ID,
    FENCE,
    ATTEMPT,
    OUTCOME,
    CODE,
    CLASS,
    MESSAGE,
    STATUS,
    REQUEST,
    UNITS,
    COST,
    DELAY,
    COUNTS,
    ARTIFACTS,
    EVIDENCE,
    PROVIDER
};

static long batch_run(struct floor *f, char (*ids)[UUID_TEXT], long count)
{
    PGresult *r;
    long settled;

    beat(f);
    ids_print(&f->columns[ID], ids, count);
    columns_fill(f, 1, 2, count, "f");
    columns_fill(f, 2, 4, count, "NULL");
    r = timed(f, &f->start, "start", 4);
    if (count_of(r, 1, "go") != count) {
        PQclear(r);
        return 0;
    }
    column_take(f, FENCE, r, 2);
    column_take(f, ATTEMPT, r, 3);
    PQclear(r);
    columns_fill(f, OUTCOME, CODE, count, "\"delivered\"");
    columns_fill(f, CODE, CLASS, count, "NULL");
    columns_fill(f, CLASS, MESSAGE, count, "\"answered\"");
    columns_fill(f, MESSAGE, STATUS, count, "NULL");
    columns_fill(f, STATUS, REQUEST, count, "200");
    columns_fill(f, REQUEST, UNITS, count, "NULL");
    columns_fill(f, UNITS, COST, count, "1");
    columns_fill(f, COST, DELAY, count, "1000");
    columns_fill(f, DELAY, COUNTS, count, "0");
    columns_fill(f, COUNTS, ARTIFACTS, count, "t");
    column_artifacts(f, ARTIFACTS, ids, count);
    columns_fill(f, EVIDENCE, COLUMNS, count, "NULL");
    r = timed(f, &f->settle, "settle", COLUMNS);
    settled = count_of(r, 2, "succeeded");
    PQclear(r);
    return settled;
}

static double cpu_ms_of(int pid)
{
    char path[64], text[1024], *at;
    unsigned long user = 0, sys = 0;
    FILE *file;
    size_t len;

    (void)snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    if (!(file = fopen(path, "r")))
        return 0;
    len = fread(text, 1, sizeof(text) - 1, file);
    (void)fclose(file);
    text[len] = '\0';
    at = strrchr(text, ')');
    if (!at || sscanf(at + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &sys) != 2)
        return 0;
    return 1000.0 * (double)(user + sys) / (double)sysconf(_SC_CLK_TCK);
}

static long run(struct floor *f)
{
    long settled = 0;

    for (long at = 0; at < f->jobs; at += f->batch)
        settled += batch_run(f, f->ids + at, f->jobs - at < f->batch ? f->jobs - at : f->batch);
    return settled;
}

int main(int argc, char **argv)
{
    static struct floor f;
    const char *url = getenv("KILN_DATABASE_URL");
    double cpu_ms;
    long settled;

    f.jobs = argc > 2 ? strtol(argv[1], NULL, 10) : 0;
    f.batch = argc > 2 ? strtol(argv[2], NULL, 10) : 0;
    f.accounts = argc > 3 ? strtol(argv[3], NULL, 10) : 1;
    if (!url || f.jobs < 1 || f.jobs > JOBS_MAX || f.batch < 1 || f.batch > BATCH_MAX || f.accounts < 1) {
        (void)fprintf(stderr, "usage: KILN_DATABASE_URL=... bench_settle_floor JOBS BATCH [ACCOUNTS]\n");
        return 2;
    }
    f.ids = calloc((size_t)f.jobs, sizeof(*f.ids));
    f.pg = PQconnectdb(url);
    if (!f.ids || PQstatus(f.pg) != CONNECTION_OK) {
        (void)fprintf(stderr, "bench_settle_floor: no database\n");
        return 2;
    }
    uuid_random(f.worker);
    uuid_v7(f.app);
    open_books(&f);
    accept_all(&f);
    cpu_ms = cpu_ms_of(PQbackendPID(f.pg));
    settled = run(&f);
    cpu_ms = cpu_ms_of(PQbackendPID(f.pg)) - cpu_ms;
    (void)printf("jobs=%ld batch=%ld start_us=%.2f settle_us=%.2f jobs_s=%.0f settle_s=%.0f cpu_us=%.2f "
                 "start_wal=%.0f settle_wal=%.0f\n",
                 settled, f.batch, (double)f.start.us / (double)f.jobs, (double)f.settle.us / (double)f.jobs,
                 1e6 * (double)f.jobs / (double)(f.start.us + f.settle.us), 1e6 * (double)f.jobs / (double)f.settle.us,
                 1000 * cpu_ms / (double)f.jobs, f.start.wal_bytes / (double)f.jobs,
                 f.settle.wal_bytes / (double)f.jobs);
    PQfinish(f.pg);
    for (int i = 0; i < COLUMNS; i++)
        buf_done(&f.columns[i]);
    free(f.ids);
    return settled == f.jobs ? 0 : 1;
}
