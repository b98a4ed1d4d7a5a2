/* support.h - what tests of several rooms need: real servers, fresh databases, a loop that runs until something holds.
 *
 * Link `kiln_support` and include this file. The first line of a test program that needs servers is
 *
 *     SUPPORT_SERVICES();
 *
 * outside any function: before the first test, Criterion's parent process starts one private PostgreSQL and one private
 * Redis in a folder of its own (`scripts/services start --fast`), and stops and deletes both after the last test. All
 * tests of the program, each a process of its own, share them: so each takes a database of its own, and a number of its
 * own in Redis. Where a failing helper leaves nothing to test, it says why and ends the test. */
#ifndef KILN_SUPPORT_H
#define KILN_SUPPORT_H
#include <criterion/criterion.h>
#include <criterion/hooks.h>
#include <criterion/options.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#define SUPPORT_SERVICES()                                                                                             \
    ReportHook(PRE_ALL)(struct criterion_test_set * set)                                                               \
    {                                                                                                                  \
        (void)set;                                                                                                     \
        support_services_start();                                                                                      \
    }                                                                                                                  \
    struct support_semicolon
/* The same for a program whose tests stop or restart a server: they run one after the other. */
#define SUPPORT_SERVICES_ALONE()                                                                                       \
    ReportHook(PRE_ALL)(struct criterion_test_set * set)                                                               \
    {                                                                                                                  \
        (void)set;                                                                                                     \
        criterion_options.jobs = 1;                                                                                    \
        support_services_start();                                                                                      \
    }                                                                                                                  \
    struct support_semicolon

void support_services_start(void); /* sets KILN_DATABASE_URL, KILN_REDIS_URL, KILN_TEST_SERVICES for the tests */
/* A verb of scripts/services: "stop-postgres", "start-redis", "kill-postgres", … Blocks. Other tests of the program
 * would feel it too: SUPPORT_SERVICES_ALONE. */
void support_service(const char *verb);

/* The URL of a fresh database with the embedded schema, or of an empty one. free() it; never dropped before the server
 * goes. Made from a template: about 50 ms. */
char *support_database(void);
char *support_database_empty(void);
/* The URL of a Redis database with a number of its own (0…255, by turns), empty. free() it. */
char *support_redis(void);

/* A TCP port of 127.0.0.1 for a server that the test starts, its own until the process ends. It lies below the range
 * from which the kernel takes ports for outgoing connections: a free port out of that range may be some connection's
 * before the server has bound it, or while it is being started again. */
int support_port(void);

/* SQL as the tests' own hand, blocking. support_sql: one value as text, "" for none or NULL; free() it. */
char *support_sql(const char *url, const char *sql);
int64_t support_sql_int(const char *url, const char *sql);

/* A program that a test started said this: where a sanitizer speaks in it, the test fails and shows the report. NULL is
 * fine. Every harness that starts programs asks this of every one of their logs, also of those that were killed. */
void support_log_is_clean(const char *program, const char *log);

/* Runs the loop until cond(ctx) is true (looked at after every turn) or the limit passed. Returns what cond says last.
 * Leaves no handle behind. */
bool support_run_until(uv_loop_t *loop, bool (*cond)(void *ctx), void *ctx, int limit_ms);
/* The same for an int that callbacks count up. */
bool support_run_count(uv_loop_t *loop, const int *count, int want, int limit_ms);
/* Runs the loop until nothing is left to do, closes it, and fails the test when a handle is still open. */
void support_loop_done(uv_loop_t *loop);
#endif
