/* floors.c - what this machine does without kiln: the floors of scripts/bench accept and latency.
 *
 *   bench_floors accept SECONDS            (KILN_DATABASE_URL)   kiln_accept by one connection, one call after the
 * other, with the newest job's values, SECONDS for each size of batch; a line size=N jobs_s=N for each bench_floors
 * fsync COUNT PAUSE_MS DIR                        8 KiB written in place and fdatasync, in DIR bench_floors commit
 * COUNT PAUSE_MS     (KILN_DATABASE_URL)   one row inserted bench_floors redis COUNT PAUSE_MS      (KILN_REDIS_URL) one
 * SET
 *
 * The last three do one thing at a time on a machine that is idle in between, as scripts/bench latency does its jobs,
 * and print p50_us=N p99_us=N. Exit 2: it could not be measured. */
#include <fcntl.h>
#include <hiredis/hiredis.h>
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "common/base/clock.h"
#include "common/base/text.h"

enum { COLUMNS = 20, BLOCK = 8192, FILE_BLOCKS = 64, DIGITS = 10, COUNT_MAX = 100000 };

static void die(const char *what, const char *why)
{
    (void)fprintf(stderr, "bench_floors: %s: %s\n", what, why);
    exit(2);
}

static PGconn *connect_postgres(void)
{
    const char *url = getenv("KILN_DATABASE_URL");
    PGconn *pg = PQconnectdb(url != NULL ? url : "");

    if (PQstatus(pg) != CONNECTION_OK)
        die("KILN_DATABASE_URL", PQerrorMessage(pg));
    return pg;
}

static PGresult *checked(PGconn *pg, PGresult *result)
{
    ExecStatusType status = PQresultStatus(result);

    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK)
        die("PostgreSQL", PQerrorMessage(pg));
    return result;
}

/* ---- kiln_accept, fed straight ---- */

/* As in common/core/ledger.c. */
static const char accept_sql[] =
    "select ord, verdict, job, kiln_time(created_at) as created_at, needed, available from "
    "kiln_accept($2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::jsonb[], "
    "$10::jsonb[], $11::int[], $12::bigint[], $13::text[], $14::int[], $15::timestamptz[], $16::int[], $17::text[], "
    "$18::jsonb[], $19::uuid[], $20::uuid[], $1::int, $21::jsonb[])";

/* The newest job, in the order of the function's arrays; what is not in it is null. */
static const char newest_sql[] =
    "select id, app_id, account, null, null, operation, provider, params, inputs, units, unit_mc, price_version, priority, "
    "null, extract(epoch from deadline_at - created_at)::int, on_unknown, metadata, null, null, extras "
    "from jobs order by id desc limit 1";
enum { ID_COLUMN = 0, PARAMS_COLUMN = 7 };

static void column_add(struct buf *column, const char *value, bool is_first)
{
    (void)buf_str(column, is_first ? "{" : ",");
    if (value == NULL) {
        (void)buf_str(column, "NULL");
        return;
    }
    (void)buf_str(column, "\"");
    for (const char *p = value; *p != '\0'; p++) {
        if (*p == '"' || *p == '\\')
            (void)buf_add(column, "\\", 1);
        (void)buf_add(column, p, 1);
    }
    (void)buf_str(column, "\"");
}

/* The first ten digits in a row are the prompt's number: each job its own. */
static char *number_in(char *params)
{
    for (char *p = params; *p != '\0'; p++) {
        if (strspn(p, "0123456789") == DIGITS)
            return p;
    }
    die("the newest job", "there is no number in its prompt");
    return NULL;
}

static void columns_fill(struct buf *columns, const PGresult *newest, char *params, long size, int64_t *number)
{
    char digits[DIGITS + 12], id[UUID_TEXT], *at = number_in(params);

    for (int c = 0; c < COLUMNS; c++)
        columns[c].len = 0;
    for (long i = 0; i < size; i++) {
        (void)snprintf(digits, sizeof(digits), "%010lld", (long long)(*number)++);
        memcpy(at, digits, DIGITS);
        uuid_v7(id);
        for (int c = 0; c < COLUMNS; c++) {
            const char *value = PQgetisnull(newest, 0, c) ? NULL : PQgetvalue(newest, 0, c);

            column_add(&columns[c], c == ID_COLUMN ? id : c == PARAMS_COLUMN ? params : value, i == 0);
        }
    }
    for (int c = 0; c < COLUMNS; c++)
        (void)buf_str(&columns[c], "}");
}

static long accepted_of(const PGresult *result)
{
    long accepted = 0;

    for (int i = 0; i < PQntuples(result); i++)
        accepted += strcmp(PQgetvalue(result, i, PQfnumber(result, "verdict")), "accepted") == 0;
    return accepted;
}

static void floor_accept(long seconds, long only)
{
    static const long sizes[] = { 50, 100, 200, 500, 1000 };
    PGconn *pg = connect_postgres();
    PGresult *newest = checked(pg, PQexec(pg, newest_sql));
    struct buf columns[COLUMNS] = { { 0 } };
    const char *values[COLUMNS + 1] = { NULL };
    int64_t number = 9000000000;
    char *params;

    if (PQntuples(newest) != 1 || !(params = strdup(PQgetvalue(newest, 0, PARAMS_COLUMN))))
        die("jobs", "there is none to copy");
    PQclear(checked(pg, PQprepare(pg, "accept", accept_sql, 0, NULL)));
    for (size_t s = 0; s < ARRAY_LEN(sizes); s++) {
        int64_t us = 0;
        long jobs = 0;

        if (only > 0 && sizes[s] != only)
            continue;
        while (us < seconds * 1000000) { /* making the arrays is not counted */
            PGresult *result;
            int64_t began;

            columns_fill(columns, newest, params, sizes[s], &number);
            for (int c = 0; c < COLUMNS; c++)
                values[c + 1] = columns[c].data;
            began = clock_mono_us();
            result = checked(pg, PQexecPrepared(pg, "accept", COLUMNS + 1, values, NULL, NULL, 0));
            us += clock_mono_us() - began;
            if (accepted_of(result) != sizes[s])
                die("kiln_accept", "it did not accept everything");
            jobs += sizes[s];
            PQclear(result);
        }
        (void)printf("size=%ld jobs_s=%lld jobs=%ld\n", sizes[s], (long long)(jobs * 1000000LL / us), jobs);
    }
    for (int c = 0; c < COLUMNS; c++)
        buf_done(&columns[c]);
    free(params);
    PQclear(newest);
    PQfinish(pg);
}

/* ---- one thing at a time ---- */

static int by_size(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

static void print_quantiles(int64_t *us, long count)
{
    qsort(us, (size_t)count, sizeof(*us), by_size);
    (void)printf("p50_us=%lld p99_us=%lld\n", (long long)us[(count - 1) / 2], (long long)us[(count - 1) * 99 / 100]);
}

struct thing {
    int fd;
    PGconn *pg;
    redisContext *redis;
};

static void do_fsync(struct thing *t, long i)
{
    static char block[BLOCK];

    memset(block, (int)i, sizeof(block));
    if (pwrite(t->fd, block, sizeof(block), i % FILE_BLOCKS * BLOCK) != BLOCK || fdatasync(t->fd) != 0)
        die("file", "it cannot be written");
}

static void do_commit(struct thing *t, long i)
{
    (void)i;
    PQclear(checked(t->pg, PQexecPrepared(t->pg, "one", 0, NULL, NULL, NULL, 0)));
}

static void do_redis(struct thing *t, long i)
{
    redisReply *reply = redisCommand(t->redis, "SET kiln-bench-floor %ld", i);

    if (reply == NULL || reply->type == REDIS_REPLY_ERROR)
        die("Redis", "no answer");
    freeReplyObject(reply);
}

static void measure(void (*one)(struct thing *t, long i), struct thing *t, long count, long pause_ms)
{
    const struct timespec pause = { pause_ms / 1000, pause_ms % 1000 * 1000000 };
    int64_t *us = calloc((size_t)count, sizeof(*us));

    if (us == NULL)
        die("memory", "there is none");
    for (long i = 0; i < count; i++) {
        int64_t began;

        (void)nanosleep(&pause, NULL);
        began = clock_mono_us();
        one(t, i);
        us[i] = clock_mono_us() - began;
    }
    print_quantiles(us, count);
    free(us);
}

static void floor_fsync(long count, long pause_ms, const char *dir)
{
    char path[4096];
    struct thing t = { 0 };

    (void)snprintf(path, sizeof(path), "%s/bench-floor", dir);
    t.fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (t.fd < 0)
        die(path, "it cannot be made");
    for (long i = 0; i < FILE_BLOCKS; i++) /* the blocks are there: in place, as WAL is written */
        do_fsync(&t, i);
    measure(do_fsync, &t, count, pause_ms);
    (void)close(t.fd);
    (void)unlink(path);
}

static void floor_commit(long count, long pause_ms)
{
    struct thing t = { .pg = connect_postgres() };

    PQclear(checked(t.pg, PQexec(t.pg, "create table bench_floor (n bigint)")));
    PQclear(checked(t.pg, PQprepare(t.pg, "one", "insert into bench_floor values (1)", 0, NULL)));
    measure(do_commit, &t, count, pause_ms);
    PQclear(checked(t.pg, PQexec(t.pg, "drop table bench_floor")));
    PQfinish(t.pg);
}

static void floor_redis(long count, long pause_ms)
{
    const char *url = getenv("KILN_REDIS_URL");
    struct thing t = { 0 };

    if (url == NULL || strncmp(url, "unix:", 5) != 0)
        die("KILN_REDIS_URL", "it must be unix:PATH");
    t.redis = redisConnectUnix(url + 5);
    if (t.redis == NULL || t.redis->err != 0)
        die("Redis", "no connection");
    measure(do_redis, &t, count, pause_ms);
    redisFree(t.redis);
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    long count = argc > 2 ? strtol(argv[2], NULL, 10) : 0, pause_ms = argc > 3 ? strtol(argv[3], NULL, 10) : -1;

    if (strcmp(what, "accept") == 0 && count >= 1 && argc <= 4)
        floor_accept(count, argc == 4 ? strtol(argv[3], NULL, 10) : 0);
    else if (count < 1 || count > COUNT_MAX || pause_ms < 0)
        die("usage",
            "bench_floors accept SECONDS [SIZE] | fsync COUNT PAUSE_MS DIR | commit COUNT PAUSE_MS | redis COUNT PAUSE_MS");
    else if (strcmp(what, "fsync") == 0 && argc == 5)
        floor_fsync(count, pause_ms, argv[4]);
    else if (strcmp(what, "commit") == 0)
        floor_commit(count, pause_ms);
    else if (strcmp(what, "redis") == 0)
        floor_redis(count, pause_ms);
    else
        die(what, "no such floor");
    return 0;
}
