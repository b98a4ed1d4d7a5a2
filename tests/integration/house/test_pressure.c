/* test_pressure.c - a worker whose database, disk or memory is short takes less until it can keep up again, and says
 * why. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/text.h"
#include "tests/integration/house/cases.h"

SUPPORT_SERVICES();

enum { LIMIT_MS = 60000 };

/* --- slow services ----------------------------------------------------------------------------------------------- */

static bool worker_says(const struct house *h, const char *part, int limit_ms)
{
    char url[64];
    int64_t until = cases_now_ms() + limit_ms;
    bool says = false;

    (void)snprintf(url, sizeof(url), "http://127.0.0.1:%d/readyz", h->worker_ports[0]);
    while (!says && cases_now_ms() < until) {
        struct reply r = house_url("GET", url, NULL, NULL);

        says = strstr(r.text, part) != NULL;
        reply_done(&r);
        if (!says)
            cases_pause_ms(50);
    }
    return says;
}

static double worker_metric(const struct house *h, const char *name)
{
    char url[64];
    struct reply r;
    const char *at;
    double value = -1;

    (void)snprintf(url, sizeof(url), "http://127.0.0.1:%d/metrics", h->worker_ports[0]);
    r = house_url("GET", url, NULL, NULL);
    at = strstr(r.text, name);
    if (at)
        (void)sscanf(at + strlen(name), " %lf", &value);
    reply_done(&r);
    return value;
}

static struct want small(const char *tag)
{
    return (struct want){ tag,  GPT,   NULL,        ",\"model\":\"dall-e-2\",\"size\":\"256x256\"",
                          NULL, false, DALLE_SMALL, 1,
                          1,    1,     0,           NULL };
}

static void submit_small(const struct house *h, const char *tag, int count, char (*ids)[40])
{
    struct want want = small(tag);

    for (int i = 0; i < count; i++)
        cases_submit(h, &want, NULL, ids[i]);
}

static void expect_succeeded(const struct house *h, int count, char (*ids)[40])
{
    for (int i = 0; i < count; i++) {
        struct reply job = house_wait(h, ids[i], LIMIT_MS);

        cr_expect_str_eq(reply_text(&job, "state"), "succeeded", "%s", job.text);
        reply_done(&job);
    }
}

struct lock { /* somebody who holds on to a table for a while */
    pthread_t thread;
    const char *db;
    atomic_bool is_over;
};

static void *lock_hold(void *ctx)
{
    struct lock *lock = ctx;

    free(support_sql(lock->db, "with l as materialized (select kiln_test_lock()) select pg_sleep(9) from l"));
    atomic_store(&lock->is_over, true);
    return NULL;
}

/* Until `lock` is over the SQL function of `body` holds what it has taken; `held` of pg_locks says that it has. */
static void lock_begin(const struct house *h, struct lock *lock, const char *body, const char *held)
{
    char sql[300];

    lock->db = h->db;
    (void)snprintf(sql, sizeof(sql),
                   "create function kiln_test_lock() returns int language plpgsql as 'begin %s; return 1; end'", body);
    free(support_sql(h->db, sql));
    cr_assert_eq(pthread_create(&lock->thread, NULL, lock_hold, lock), 0);
    (void)snprintf(sql, sizeof(sql), "select count(*) from pg_locks where granted and %s", held);
    cr_assert(house_wait_sql(h, sql, 1, 5000));
}

/* Whoever settles waits; who starts does not. */
Test(pressure, a_worker_whose_outcomes_wait_for_postgresql_claims_less_then_nothing_then_all)
{
    struct house *h = house_open(NULL);
    struct lock lock = { 0 };
    char ids[16][40];

    lock_begin(h, &lock, "lock table artifacts in exclusive mode",
               "relation = 'artifacts'::regclass and mode = 'ExclusiveLock'");
    submit_small(h, "first", 8, ids);
    cr_expect(worker_says(h, "\"claims\":\"less\",\"why\":\"postgres is slow\"", 8000), "it says so");
    cr_expect_gt(worker_metric(h, "kiln_worker_pressure{cause=\"postgres\"}"), 0);
    cr_expect(worker_says(h, "\"claims\":\"none\"", 8000), "down to nothing");
    submit_small(h, "second", 8, ids + 8);
    cr_expect_not(atomic_load(&lock.is_over), "the test was quick enough");
    cr_expect_eq(support_sql_int(h->db, "select count(*) from jobs where state = 'queued'"), 8, "they wait");
    (void)pthread_join(lock.thread, NULL);
    expect_succeeded(h, 16, ids);
    cr_expect(worker_says(h, "\"claims\":\"all\",\"why\":\"\"", 5000));
    cr_expect_eq(house_counter(h, NULL, "paid"), 16);
    house_close(h);
}

/* Starts have a connection of their own: outcomes go on while one start waits for a row that somebody holds. */
Test(pressure, a_worker_whose_starts_wait_for_postgresql_claims_less_then_nothing_then_all)
{
    struct house *h = house_open(&(struct house_options){ .no_worker = true });
    struct lock lock = { 0 };
    char ids[8][40];

    submit_small(h, "held", 8, ids);
    lock_begin(h, &lock, "perform 1 from jobs order by id limit 1 for update",
               "relation = 'jobs'::regclass and mode = 'RowShareLock'");
    (void)house_worker_start(h, NULL);
    cr_expect(worker_says(h, "\"why\":\"postgres is slow\"", 7000), "it says so");
    cr_expect(worker_says(h, "\"claims\":\"none\"", 7000), "down to nothing");
    cr_expect_not(atomic_load(&lock.is_over), "the test was quick enough");
    (void)pthread_join(lock.thread, NULL);
    expect_succeeded(h, 8, ids);
    cr_expect(worker_says(h, "\"claims\":\"all\",\"why\":\"\"", 5000));
    cr_expect_eq(house_counter(h, NULL, "paid"), 8);
    house_close(h);
}

static void cut(const struct house *h, const char *name)
{
    char sql[200];

    (void)snprintf(sql, sizeof(sql),
                   "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = '%s' "
                   "and datname = current_database()",
                   name);
    cr_expect_eq(support_sql_int(h->db, sql), 1, "%s", name);
}

/* Each of a worker's connections alone, in the middle of jobs: nothing is lost, and nothing is paid for twice. */
Test(pressure, a_worker_loses_one_of_its_connections_and_goes_on)
{
    static const char *const names[] = { "kiln-worker", "kiln-worker-settle", "kiln-worker-beat" };
    struct house *h = house_open(&(struct house_options){ .sandbox_config = "{\"delay_ms\":{\"openai\":150}}" });
    char ids[24][40];

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        submit_small(h, names[i], 8, ids + 8 * i);
        cr_assert(house_wait_sql(h, "select (count(*) > 0)::int from jobs where state = 'running'", 1, 5000));
        cut(h, names[i]);
    }
    expect_succeeded(h, 24, ids);
    cr_expect_eq(house_counter(h, NULL, "paid"), 24);
    cr_expect_eq(support_sql_int(h->db, "select count(*) from attempts where class = 'unknown'"), 0);
    cr_expect(worker_says(h, "\"claims\":\"all\",\"why\":\"\"", 5000));
    house_close(h);
}

Test(pressure, a_worker_whose_storage_is_slow_claims_less_and_goes_on)
{
    static const struct house_options options = { .worker_env = { "KILN_FAILPOINTS=store.before_rename=stall:1200",
                                                                  "UV_THREADPOOL_SIZE=1" } };
    struct house *h = house_open(&options);
    char ids[6][40];

    submit_small(h, "slow", 6, ids);
    cr_expect(worker_says(h, "\"why\":\"storage is slow\"", 8000));
    cr_expect_gt(worker_metric(h, "kiln_worker_pressure{cause=\"storage\"}"), 0);
    expect_succeeded(h, 6, ids);
    cr_expect(worker_says(h, "\"claims\":\"all\"", 5000));
    house_close(h);
}

/* A picture of 1024x1024 in base64 is more than the whole limit: one after the other they all come home. */
Test(pressure, memory_that_is_short_slows_a_worker_and_never_stops_it)
{
    static const struct house_options options = { .worker_env = { "KILN_MEMORY_LIMIT=1" } };
    struct want want = { "fat", GPT, NULL, NULL, NULL, false, GPT_LOW, 1, 1, 1, 0, NULL };
    struct house *h = house_open(&options);
    char ids[4][40];

    for (int i = 0; i < 4; i++)
        cases_submit(h, &want, NULL, ids[i]);
    expect_succeeded(h, 4, ids);
    cr_expect(worker_says(h, "\"claims\":\"all\"", 5000));
    cr_expect_float_eq(worker_metric(h, "\nkiln_worker_bytes"), 0, 0.5, "all of it is given back");
    house_close(h);
}
