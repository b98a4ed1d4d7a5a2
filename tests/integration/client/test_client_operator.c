/* test_client_operator.c - what an operator does with kiln against a whole kiln: failed jobs are listed, retried in
 * bulk at a rate and once each, and charged once; lanes are limited and paused; exposure is shown. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/clock.h"
#include "common/base/json.h"
#include "common/base/text.h"
#include "tests/integration/client/run.h"
#include "tests/integration/house/house.h"

SUPPORT_SERVICES();

enum { JOBS = 12 };
static const char soon[] = "{\"provider\":\"leonardo\",\"lane\":{},\"operations\":{\"leonardo.generate\":{\"poll\":{"
                           "\"first_ms\":200,\"every_ms\":200},\"deadline_s\":3}}}";
#define BOAT                                                                                                           \
    "{\"prompt\":\"a boat [[job:boat]]%s\",\"num_images\":1,\"width\":64,\"height\":64,\"alchemy\":false,"             \
    "\"presetStyle\":\"LEONARDO\"}"

struct desk {
    struct house *house;
    char url[96], key[96];
    struct run run;
};

static void open_desk(struct desk *d, const struct house_options *options)
{
    *d = (struct desk){ .house = house_open(options) };
    (void)snprintf(d->url, sizeof d->url, "KILN_URL=http://127.0.0.1:%d", d->house->port);
    (void)snprintf(d->key, sizeof d->key, "KILN_API_KEY=%s", d->house->key);
    d->run.env[0] = d->url;
    d->run.env[1] = d->key;
}

static void close_desk(struct desk *d)
{
    run_done(&d->run);
    house_close(d->house);
}

#define RUN(d, want, ...)                                                                                              \
    do {                                                                                                               \
        run_kiln(&(d)->run, __VA_ARGS__, NULL);                                                                        \
        cr_assert_eq((d)->run.status, want, "%d: %s%s", (d)->run.status, (d)->run.out, (d)->run.err);                  \
    } while (0)
#define SAYS(text, part) cr_expect(run_says(text, part), "\"%s\" is not in: %s", part, text)

static int64_t sql(const struct desk *d, const char *text)
{
    return support_sql_int(d->house->db, text);
}

/* M5, M9, protocol.md invariant 1: the failed job's hold was released, the retry's is captured, once. */
Test(operator, jobs_that_timed_out_are_retried_in_bulk_and_charged_once)
{
    static const struct house_options options = { .catalog = soon };
    struct desk d;
    char params[300], id[40], *one;
    int64_t began;

    open_desk(&d, &options);
    house_sandbox_config(d.house, "{\"delay_ms\":{\"leonardo\":60000}}");
    (void)snprintf(params, sizeof params, BOAT, "");
    for (int i = 0; i < JOBS; i++)
        house_submit(d.house, id, "leonardo.generate", params);
    cr_assert(house_wait_sql(d.house, "select count(*) from jobs where error_code = 'timeout'", JOBS, 60000));
    cr_expect_eq(house_balance(d.house, "default"), 1000, "a failure costs nothing");
    RUN(&d, 0, "jobs", "list", "--state", "failed", "--code", "timeout", "--json");
    SAYS(d.run.out, "\"retried_by\":null");
    RUN(&d, 0, "jobs", "show", id);
    SAYS(d.run.out, "timeout");
    SAYS(d.run.out, "accepted");
    house_sandbox_config(d.house, "{\"delay_ms\":{\"leonardo\":200}}");
    began = clock_mono_ms();
    RUN(&d, 0, "jobs", "retry", "--state", "failed", "--code", "timeout", "--rate", "4");
    SAYS(d.run.out, "12 retried, 0 refused");
    cr_expect_geq(clock_mono_ms() - began, 1900, "12 at 4 a second: the last four may go after two seconds");
    RUN(&d, 0, "jobs", "retry", "--state", "failed", "--code", "timeout");
    SAYS(d.run.out, "0 retried, 0 refused");
    cr_assert(house_wait_sql(d.house, "select count(*) from jobs where state = 'succeeded'", JOBS, 60000));
    cr_expect_eq(sql(&d, "select count(distinct retry_of) from jobs where state = 'succeeded'"), JOBS);
    cr_expect_eq(sql(&d, "select count(*) from ledger where kind = 'capture'"), JOBS);
    cr_expect_float_eq(house_balance(d.house, "default"), 1000 - JOBS * 0.2, 1e-6);
    cr_expect_eq(house_held(d.house, "default"), 0);
    cr_expect_eq(house_counter(d.house, "boat", "paid"), 2 * JOBS, "the first were paid for, too");
    one = support_sql(d.house->db, "select id from jobs where retry_of is not null limit 1");
    RUN(&d, 0, "get", one, "--json");
    SAYS(d.run.out, "\"retry_of\":\"");
    free(one);
    RUN(&d, 2, "jobs", "retry", "--state", "queued");
    RUN(&d, 2, "jobs", "retry");
    RUN(&d, 0, "jobs", "retry", id);
    SAYS(d.run.out, "has its retry:");
    close_desk(&d);
}

Test(operator, a_bulk_retry_that_was_cut_off_goes_on)
{
    static const struct house_options options = { .catalog = soon, .no_worker = true };
    struct desk d;
    char params[300], id[40];

    open_desk(&d, &options);
    (void)snprintf(params, sizeof params, BOAT, "");
    for (int i = 0; i < JOBS; i++)
        house_submit(d.house, id, "leonardo.generate", params);
    free(support_sql(d.house->db, "update jobs set deadline_at = kiln_now() - interval '1 second' returning 1"));
    cr_assert(house_wait_sql(d.house, "select count(*) from jobs where error_code = 'expired'", JOBS, 30000));
    run_start(&d.run, "jobs", "retry", "--state", "failed", "--rate", "1", NULL);
    cr_assert(house_wait_sql(d.house, "select least(2, count(*)) from jobs where retry_of is not null", 2, 30000));
    cr_assert_eq(kill(d.run.pid, SIGINT), 0);
    run_end(&d.run);
    cr_expect_eq(d.run.status, 128 + SIGINT, "%d: %s%s", d.run.status, d.run.out, d.run.err);
    SAYS(d.run.err, "to go on: kiln jobs retry --state failed --until 20");
    cr_expect_lt(sql(&d, "select count(*) from jobs where retry_of is not null"), JOBS);
    RUN(&d, 0, "jobs", "retry", "--state", "failed");
    cr_expect_eq(sql(&d, "select count(*) from jobs where retry_of is not null"), JOBS);
    cr_expect_eq(sql(&d, "select count(distinct retry_of) from jobs"), JOBS);
    close_desk(&d);
}

Test(operator, what_cannot_be_retried_is_said_and_escaped) /* S15 */
{
    static const struct house_options options = { .no_worker = true, .credits = 1 };
    struct desk d;
    char params[300], id[40];

    open_desk(&d, &options);
    (void)snprintf(params, sizeof params, BOAT, "");
    house_submit(d.house, id, "leonardo.generate", params);
    free(support_sql(d.house->db, "update jobs set deadline_at = kiln_now() - interval '1 second' returning 1"));
    cr_assert(house_wait_sql(d.house, "select count(*) from jobs where error_code = 'expired'", 1, 30000));
    free(support_sql(d.house->db,
                     "update jobs set operation = E'gone\\x1b[31m', error_message = E'\\x1b[2Jhello' returning 1"));
    RUN(&d, 2, "jobs", "retry", "--state", "failed");
    SAYS(d.run.out, "is not retried:");
    SAYS(d.run.out, "(unknown_operation)");
    RUN(&d, 0, "jobs", "list");
    SAYS(d.run.out, "gone\\u001b[31m");
    RUN(&d, 0, "jobs", "show", id);
    SAYS(d.run.out, "\\u001b[2Jhello");
    cr_expect(!run_says(d.run.out, "\x1b[2J"));
    close_desk(&d);
}

Test(operator, lanes_and_exposure)
{
    static const struct house_options options = { .no_worker = true };
    struct desk d;

    open_desk(&d, &options);
    RUN(&d, 0, "lane", "set", "leonardo", "--concurrency", "7", "--budget", "150/10");
    SAYS(d.run.out, "150 in 10 s");
    RUN(&d, 0, "lane", "pause", "leonardo");
    SAYS(d.run.out, "until it is resumed");
    RUN(&d, 0, "lane", "resume", "leonardo");
    RUN(&d, 0, "lane", "set", "leonardo", "--concurrency", "default", "--budget", "default", "--json");
    RUN(&d, 0, "lanes");
    SAYS(d.run.out, "stability");
    cr_expect(!run_says(d.run.out, "until it is resumed"));
    cr_expect_eq(sql(&d, "select count(*) from lanes where concurrency is null and budget_count is null"), 1);
    RUN(&d, 2, "lane", "set", "leonardo");
    RUN(&d, 2, "lane", "set", "leonardo", "--budget", "150");
    RUN(&d, 2, "lane", "pause", "nobody");
    RUN(&d, 0, "exposure", "--json");
    SAYS(d.run.out, "\"totals\":[]");
    free(support_sql(d.house->db, "update api_keys set scopes = '{jobs}' returning 1"));
    for (int i = 0; i < 100; i++) { /* a key is believed for two seconds */
        run_kiln(&d.run, "lanes", NULL);
        if (d.run.status != 0)
            break;
    }
    cr_expect_eq(d.run.status, 2);
    SAYS(d.run.err, "--scopes admin");
    close_desk(&d);
}

Test(operator, providers_are_listed_and_checked_without_showing_a_key)
{
    static const struct house_options options = {
        .no_worker = true, .dispatcher_env = { "STABILITY_API_KEY=canary-good-one,bad-canary-two" }
    };
    struct desk d;

    open_desk(&d, &options);
    RUN(&d, 0, "providers");
    SAYS(d.run.out, "stability");
    cr_expect_not(run_says(d.run.out, "canary"), "%s", d.run.out);
    RUN(&d, 2, "providers", "check"); /* one key is refused */
    SAYS(d.run.out, "10000 credits");
    SAYS(d.run.out, "auth");
    cr_expect_not(run_says(d.run.out, "canary"), "%s", d.run.out);
    close_desk(&d);
}
