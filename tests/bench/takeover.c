/* takeover.c - kills a worker and watches PostgreSQL until others hold all of its jobs.
 *
 *   bench_takeover PID FILE      (KILN_DATABASE_URL in the environment)
 *
 * PID is the worker's process. The time from SIGKILL to the dead mark, and until each job that it held had another
 * holder, is seen by asking every 10 ms. Prints one line; FILE gets a line "MS COUNT" for each time at which jobs had
 * changed hands, so that percentiles can be taken over many kills. Exit 1: it did not end within a minute. */
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <libpq-fe.h>
#include "common/base/clock.h"

enum { LOOK_MS = 10, GIVE_UP_MS = 60000, ID_BYTES = 40 };

struct look {
    bool is_dead;
    long held;
};

static bool look_at(PGconn *pg, const char *id, struct look *out)
{
    const char *values[] = { id };
    PGresult *r = PQexecParams(pg,
                               "select (select dead_at is not null from workers where id = $1::uuid), "
                               "(select count(*) from jobs where holder = $1::uuid)",
                               1, NULL, values, NULL, NULL, 0);
    bool ok = PQresultStatus(r) == PGRES_TUPLES_OK;

    if (ok)
        *out = (struct look){ .is_dead = PQgetvalue(r, 0, 0)[0] == 't', .held = strtol(PQgetvalue(r, 0, 1), NULL, 10) };
    else
        (void)fprintf(stderr, "%s", PQerrorMessage(pg));
    PQclear(r);
    return ok;
}

static bool find_worker(PGconn *pg, const char *pid, char id[ID_BYTES])
{
    const char *values[] = { pid };
    PGresult *r = PQexecParams(pg,
                               "select id from workers where info ->> 'pid' = $1 and dead_at is null "
                               "order by started_at desc limit 1",
                               1, NULL, values, NULL, NULL, 0);
    bool ok = PQresultStatus(r) == PGRES_TUPLES_OK && PQntuples(r) == 1;

    if (ok)
        (void)snprintf(id, ID_BYTES, "%s", PQgetvalue(r, 0, 0));
    PQclear(r);
    return ok;
}

/* Looks until nothing is held any more and the mark is there. */
static bool watch(PGconn *pg, const char *id, long held, FILE *file)
{
    const struct timespec pause = { 0, LOOK_MS * 1000000L };
    int64_t began = clock_mono_ms(), dead_ms = -1, first_ms = -1, last_ms = 0;
    long all = held;

    while (held > 0 || dead_ms < 0) {
        struct look now;
        int64_t ms;

        (void)nanosleep(&pause, NULL);
        if (!look_at(pg, id, &now))
            return false;
        ms = clock_mono_ms() - began;
        if (ms > GIVE_UP_MS) {
            (void)fprintf(stderr, "after a minute %ld jobs are held and it is %sdead\n", now.held,
                          now.is_dead ? "" : "not ");
            return false;
        }
        if (now.is_dead && dead_ms < 0)
            dead_ms = ms;
        if (now.held < held) {
            (void)fprintf(file, "%lld %ld\n", (long long)ms, held - now.held);
            first_ms = first_ms < 0 ? ms : first_ms;
            last_ms = ms;
            held = now.held;
        }
    }
    (void)printf("dead_ms=%lld first_ms=%lld last_ms=%lld jobs=%ld\n", (long long)dead_ms, (long long)first_ms,
                 (long long)last_ms, all);
    return true;
}

int main(int argc, char **argv)
{
    const char *url = getenv("KILN_DATABASE_URL");
    long pid = argc == 3 ? strtol(argv[1], NULL, 10) : 0;
    char id[ID_BYTES];
    struct look before;
    FILE *file = NULL;
    PGconn *pg = NULL;
    int status = 2;

    if (!url || pid <= 1) {
        (void)fprintf(stderr, "usage: KILN_DATABASE_URL=... bench_takeover PID FILE\n");
        return 2;
    }
    pg = PQconnectdb(url);
    file = fopen(argv[2], "a");
    if (!file || PQstatus(pg) != CONNECTION_OK || !find_worker(pg, argv[1], id) || !look_at(pg, id, &before))
        goto out;
    if (kill((pid_t)pid, SIGKILL) != 0)
        goto out;
    status = watch(pg, id, before.held, file) ? 0 : 1;
out:
    if (status == 2)
        (void)fprintf(stderr, "bench_takeover: no such file, database or worker\n");
    if (file)
        (void)fclose(file);
    PQfinish(pg);
    return status;
}
