/* test_limits.c - a lane's limits hold for all workers together: pauses by 429, concurrency, the request budget. The
 * sandbox, which counts for itself, is the judge. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/integration/house/cases.h"

SUPPORT_SERVICES();

enum { LIMIT_MS = 60000, REST = 12 };

#define SMALL_PICTURES "\"image_size_cap\":64"

static void submit_many(const struct house *h, const struct want *want, int count, char (*ids)[40])
{
    for (int i = 0; i < count; i++)
        cases_submit(h, want, NULL, ids[i]);
}

static void expect_many(const struct house *h, int count, char (*ids)[40])
{
    for (int i = 0; i < count; i++) {
        struct reply job = house_wait(h, ids[i], LIMIT_MS);

        cr_expect_str_eq(reply_text(&job, "state"), "succeeded", "%s", job.text);
        reply_done(&job);
    }
}

Test(limits, a_429_with_retry_after_pauses_the_lane_for_every_worker)
{
    struct want first = { "first", CORE, "status=429,retry_after=4,times=1", NULL, NULL, false, 3, 2, 1, 2, 0, NULL };
    struct want rest = { "rest", CORE, NULL, NULL, NULL, false, 3, 1, 1, 1, 0, NULL };
    struct want other = { "other", GPT,   NULL,        ",\"model\":\"dall-e-2\",\"size\":\"256x256\"",
                          NULL,    false, DALLE_SMALL, 1,
                          1,       1,     0,           NULL };
    struct house *h = house_open(NULL);
    char ids[REST][40], id[40], other_id[40];
    int64_t refused_at;

    (void)house_worker_start(h, NULL);
    cases_submit(h, &first, NULL, id);
    for (int64_t until = cases_now_ms() + 20000; house_counter(h, "first", "refused") == 0 && cases_now_ms() < until;)
        cases_pause_ms(10);
    refused_at = cases_at_ms(h, "first", "submit", 0);
    cr_assert(house_wait_sql(h, "select count(*) from jobs where state = 'queued'", 1, 5000));
    submit_many(h, &rest, REST, ids);
    cases_submit(h, &other, NULL, other_id);
    expect_many(h, REST, ids);
    cases_expect(h, &first, id, LIMIT_MS);
    cr_expect_eq(cases_count(h, "rest", "submit"), REST);
    for (int i = 0; i < REST; i++)
        cr_expect_geq(cases_at_ms(h, "rest", "submit", i) - refused_at, 3990, "asked %lld ms after the 429",
                      (long long)(cases_at_ms(h, "rest", "submit", i) - refused_at));
    cr_expect_geq(cases_at_ms(h, "first", "submit", 1) - refused_at, 3990);
    cr_expect_lt(cases_at_ms(h, "other", "submit", 0) - refused_at, 3000, "another lane goes on");
    cr_expect_eq(support_sql_int(h->db, "select sum(tries) from jobs"), 0, "a pause is no try");
    expect_many(h, 1, &other_id);
    cr_expect_float_eq(house_held(h, "default"), 0, 1e-9);
    house_close(h);
}

Test(limits, pauses_are_no_tries)
{
    /* more of them than the five tries that a job has */
    static const struct want list[] = {
        { "seven", GPT, "status=429,retry_after=1,times=7", NULL, NULL, false, GPT_LOW, 8, 1, 8, 0, NULL },
        { "poll", LEO, "poll_status=429,retry_after=1,times=2", NULL, NULL, false, LEO_SMALL, 1, 1, 1, 0, NULL },
    };
    static const struct house_options options = { .catalog = CATALOG_LEO("") };
    struct house *h = house_open(&options);

    cases_run(h, list, 2, LIMIT_MS);
    cr_expect_eq(support_sql_int(h->db, "select sum(tries) from jobs"), 0);
    house_close(h);
}

static int redis_cli(const struct house *h, const char *what) /* in this house's part of Redis alone; the exit status */
{
    const char *number = strstr(h->redis, "?db=");
    char command[400], path[200];

    (void)snprintf(path, sizeof(path), "%.*s", (int)strcspn(h->redis + 5, "?"), h->redis + 5);
    (void)snprintf(command, sizeof(command), "redis-cli -s %s -n %s %s", path, number ? number + 4 : "0", what);
    return system(command);
}

/* Once all jobs are in it: one that is published later would find no limits, nor would anybody know that they are lost.
 */
static void flush(const struct house *h, int jobs)
{
    char all_there[200];

    (void)snprintf(all_there, sizeof(all_there),
                   "--raw hvals 'kiln:{0}:ages:stability' | awk '{ n += $1 } END { exit n != %d }'", jobs);
    for (int i = 0; i < 200 && redis_cli(h, all_there) != 0; i++)
        cases_pause_ms(50);
    cr_assert_eq(redis_cli(h, "FLUSHDB >/dev/null"), 0, "%s", h->redis);
}

static void expect_two_at_once(bool loses_redis)
{
    static const struct house_options options = {
        .catalog = "{\"provider\":\"stability\",\"lane\":{\"concurrency\":2}}",
        .sandbox_config = "{" SMALL_PICTURES ",\"delay_ms\":{\"stability_generate\":{\"min\":150,\"max\":250}}}",
        .no_worker = true,
    };
    struct want want = { "lane", CORE, NULL, NULL, NULL, false, 3, 1, 1, 1, 0, NULL };
    struct house *h = house_open(&options);
    char ids[REST][40], url[128];
    struct reply r;
    int64_t most = 0, now;

    submit_many(h, &want, REST, ids);
    if (loses_redis)
        flush(h, REST);
    (void)house_worker_start(h, NULL);
    (void)house_worker_start(h, NULL);
    for (int64_t until = cases_now_ms() + LIMIT_MS; cases_now_ms() < until; cases_pause_ms(5)) {
        now = support_sql_int(h->db, "select count(*) from jobs where state = 'running'");
        most = now > most ? now : most;
        if (support_sql_int(h->db, "select count(*) from jobs where state = 'succeeded'") == REST)
            break;
    }
    expect_many(h, REST, ids);
    (void)snprintf(url, sizeof(url), "%s/_sandbox/counters", h->sandbox);
    r = house_url("GET", url, NULL, NULL);
    cr_expect_eq(reply_int(&r, "now.waiting_peak"), 2, "both places were used, and no third: %s", r.text);
    reply_done(&r);
    cr_expect_leq(most, 2, "%lld were running at once", (long long)most);
    cr_expect_eq(house_counter(h, "lane", "paid"), REST);
    house_close(h);
}

Test(limits, a_lanes_concurrency_holds_over_two_workers)
{
    expect_two_at_once(false);
}

/* The lanes' limits are gone with the jobs; they come back before them. */
Test(limits, a_lanes_concurrency_holds_when_redis_has_lost_its_data)
{
    expect_two_at_once(true);
}

/* The provider counts every request, polls included, by the same rule as kiln; it would shut the key out. */
Test(limits, eight_workers_never_send_more_than_the_budget_in_any_window)
{
    enum { CORES = 120, BUDGET = 40, WINDOW_MS = 4000 };
    /* The sandbox allows twice the budget and says the most that it saw: how far it was kept, not only that it was. */
    static const struct house_options options = {
        .catalog = "{\"provider\":\"stability\",\"lane\":{\"budget\":{\"count\":40,\"window_ms\":4000}}}",
        .sandbox_config =
            "{" SMALL_PICTURES ",\"stability_limit\":{\"requests\":80,\"window_ms\":4000,\"timeout_ms\":3000}}",
        .credits = 10000,
        .no_worker = true,
    };
    struct want core = { "core", CORE, NULL, NULL, NULL, false, 3, 1, 1, 1, 0, NULL };
    struct house *h = house_open(&options);
    char ids[CORES][40], url[128];
    int64_t peak;
    struct reply r;

    for (int i = 0; i < HOUSE_WORKERS; i++)
        (void)house_worker_start(h, NULL);
    submit_many(h, &core, CORES, ids);
    expect_many(h, CORES, ids);
    (void)snprintf(url, sizeof(url), "%s/_sandbox/counters", h->sandbox);
    r = house_url("GET", url, NULL, NULL);
    peak = reply_int(&r, "now.limit_peak");
    fprintf(stderr, "eight workers: at most %lld requests in %d ms, %d are allowed\n", (long long)peak, WINDOW_MS,
            BUDGET);
    /* counted where they arrive: one that was sent at the end of a window and held up by the machine is in the next */
    cr_expect_leq(peak, BUDGET + BUDGET / 20, "%lld requests in one window", (long long)peak);
    cr_expect_geq(peak, BUDGET / 2, "the limit was never near");
    cr_expect_eq(house_counter(h, NULL, "paid"), CORES);
    reply_done(&r);
    house_close(h);
}

Test(limits, the_request_budget_holds_with_polls_among_the_submits)
{
    enum { UPSCALES = 8, CORES = 40 };
    static const struct house_options options = {
        .catalog =
            "{\"provider\":\"stability\",\"lane\":{\"budget\":{\"count\":12,\"window_ms\":4000}},\"operations\":{"
            "\"stability.upscale.creative\":{\"poll\":{\"first_ms\":500,\"every_ms\":500}}}}",
        .sandbox_config =
            "{" SMALL_PICTURES ",\"stability_limit\":{\"requests\":12,\"window_ms\":4000,\"timeout_ms\":3000}}",
        .credits = 10000,
        .no_worker = true,
    };
    struct want up = { "up", CREATIVE, NULL, NULL, NULL, false, 60, 1, 1, 1, 0, NULL };
    struct want core = { "core", CORE, NULL, NULL, NULL, false, 3, 1, 1, 1, 0, NULL };
    struct house *h = house_open(&options);
    char ids[UPSCALES + CORES][40], *upload = house_upload(h, 64, 64);
    int64_t began = cases_now_ms();

    for (int i = 0; i < UPSCALES; i++)
        cases_submit(h, &up, upload, ids[i]);
    submit_many(h, &core, CORES, ids + UPSCALES);
    (void)house_worker_start(h, NULL);
    (void)house_worker_start(h, NULL);
    expect_many(h, UPSCALES + CORES, ids);
    cr_expect_eq(house_counter(h, NULL, "rate_limited"), 0, "the budget was exceeded");
    cr_expect_eq(house_counter(h, NULL, "paid"), UPSCALES + CORES);
    cr_expect_geq(house_counter(h, "up", "polls"), UPSCALES);
    cr_expect_geq(cases_now_ms() - began, 4000 * ((UPSCALES + CORES) / 12 - 1), "it was the limit that held");
    cr_expect_float_eq(house_held(h, "default"), 0, 1e-9);
    free(upload);
    house_close(h);
}
