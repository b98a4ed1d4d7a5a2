/* test_keys.c - several keys of one provider: turns, a bad one, a paused one, budgets, and references that are bound to
 * the key that brought them. The sandbox, which limits, bills and judges by key, is the judge. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/text.h"
#include "tests/integration/house/cases.h"

SUPPORT_SERVICES();

enum { LIMIT_MS = 60000, MOST = 24 };

#define FREE_LANE "{\"provider\":\"stability\",\"lane\":{}}"
#define SMALL     "\"image_size_cap\":64,\"delay_ms\":{\"stability_generate\":100,\"stability_creative\":3000}"

static const struct want core = { "core", CORE, NULL, NULL, NULL, false, 3, NOT_ASKED, 1, NOT_ASKED, 0, NULL };

static json_t *sandbox_counters(const struct house *h)
{
    char url[128];
    struct reply r;
    json_t *all;

    (void)snprintf(url, sizeof(url), "%s/_sandbox/counters", h->sandbox);
    r = house_url("GET", url, NULL, NULL);
    all = json_incref(r.json);
    reply_done(&r);
    return all;
}

/* Of each of the provider's keys that the sandbox has seen: one counter. Returns how many keys. */
static size_t by_key(const struct house *h, const char *name, int64_t *out, size_t max)
{
    json_t *all = sandbox_counters(h), *one;
    const char *key;
    size_t n = 0;

    json_object_foreach(json_object_get(all, "keys"), key, one)
    {
        if (!strncmp(key, "stability:", 10) && n < max)
            out[n++] = json_integer_value(json_object_get(one, name));
    }
    json_decref(all);
    return n;
}

static void submit_some(const struct house *h, int count, char (*ids)[40])
{
    for (int i = 0; i < count; i++)
        cases_submit(h, &core, NULL, ids[i]);
}

static void expect_some(const struct house *h, int count, char (*ids)[40])
{
    for (int i = 0; i < count; i++) {
        struct reply job = house_wait(h, ids[i], LIMIT_MS);

        cr_expect_str_eq(reply_text(&job, "state"), "succeeded", "%s", job.text);
        cr_expect_float_eq(reply_number(&job, "credits.charged"), 3, 1e-9, "%s", job.text);
        reply_done(&job);
    }
}

static void expect_secret(const struct house *h, const char *const *keys, size_t count)
{
    static const char *const programs[] = { "dispatcher", "worker0" };

    for (size_t i = 0; i < ARRAY_LEN(programs); i++) {
        char *log = house_log(h, programs[i]);

        for (size_t k = 0; log && k < count; k++)
            cr_expect_null(strstr(log, keys[k]), "%s's log holds a key", programs[i]);
        free(log);
    }
}

Test(keys, a_bad_and_an_empty_one_beside_a_good_one_cost_no_job_anything)
{
    static const char *const secret[] = { "bad-canary-1", "broke-canary-2", "sk-canary-3" };
    static const struct house_options options = {
        .catalog = FREE_LANE,
        .sandbox_config = "{" SMALL "}",
        .worker_env = { "STABILITY_API_KEY=bad-canary-1, broke-canary-2,\nsk-canary-3" },
        .dispatcher_env = { "STABILITY_API_KEY=bad-canary-1,broke-canary-2,sk-canary-3" },
    };
    struct house *h = house_open(&options);
    char ids[MOST][40];
    int64_t refused, more;

    submit_some(h, 8, ids);
    expect_some(h, 8, ids);
    cr_expect_eq(house_counter(h, "core", "paid"), 8);
    refused = house_counter(h, "core", "refused");
    cr_expect_geq(refused, 2, "each of them was asked once at least: %lld", (long long)refused);
    cr_expect_eq(support_sql_int(h->db, "select sum(tries) from jobs"), 0, "another's key is no try");
    cr_expect_eq(support_sql_int(h->db,
                                 "select count(*) from attempts where error_code in ('auth', 'insufficient_funds') "
                                 "and class = 'refused'"),
                 refused);
    submit_some(h, 8, ids);
    expect_some(h, 8, ids);
    more = house_counter(h, "core", "refused") - refused;
    cr_expect_leq(more, 4, "they rest, save for a probe: %lld", (long long)more);
    cr_expect_eq(support_sql_int(h->db, "select count(*) from jobs where state = 'failed'"), 0);
    expect_secret(h, secret, ARRAY_LEN(secret));
    house_close(h);
}

Test(keys, when_all_are_refused_a_job_fails_as_with_one)
{
    static const struct house_options options = { .catalog = FREE_LANE,
                                                  .sandbox_config = "{" SMALL "}",
                                                  .worker_env = { "STABILITY_API_KEY=bad-one,bad-two" } };
    struct want denied = { "denied", CORE, NULL, NULL, "auth", false, 0, 2, 0, 2, 401, NULL };
    struct want again = { "again", CORE, NULL, NULL, "auth", false, 0, NOT_ASKED, 0, NOT_ASKED, 401, NULL };
    struct house *h = house_open(&options);
    char id[40];

    cases_submit(h, &denied, NULL, id);
    cases_expect(h, &denied, id, LIMIT_MS);
    cases_submit(h, &again, NULL, id);
    cases_expect(h, &again, id, LIMIT_MS);
    house_close(h);
}

Test(keys, a_429_rests_the_key_alone_that_got_it)
{
    static const struct house_options options = {
        .catalog = FREE_LANE,
        .sandbox_config =
            "{" SMALL
            ",\"stability_limit\":{\"requests\":16,\"window_ms\":10000,\"timeout_ms\":60000,\"retry_after\":1}}",
        .worker_env = { "STABILITY_API_KEY=sk-full,sk-free" },
        .no_worker = true,
    };
    static const char *const full[] = { "Authorization: Bearer sk-full", NULL };
    struct house *h = house_open(&options);
    char ids[MOST][40], url[128];
    int64_t began;
    struct reply r;

    (void)snprintf(url, sizeof(url), "%s/stability/v1/user/balance", h->sandbox);
    for (int i = 0; i < 17; i++) { /* somebody else has used it up: a minute of 429 */
        r = house_url("GET", url, NULL, full);
        cr_assert_eq(r.status, i < 16 ? 200 : 429, "%ld", r.status);
        reply_done(&r);
    }
    began = cases_now_ms();
    submit_some(h, 10, ids);
    (void)house_worker_start(h, NULL);
    expect_some(h, 10, ids);
    cr_expect_lt(cases_now_ms() - began, 40000, "the other key did not wait for it");
    cr_expect_geq(house_counter(h, "core", "refused"), 1, "it was asked");
    cr_expect_leq(house_counter(h, "core", "refused"), 9, "and then not again and again: %lld",
                  (long long)house_counter(h, "core", "refused"));
    cr_expect_eq(house_counter(h, "core", "paid"), 10);
    cr_expect_eq(support_sql_int(h->db, "select sum(tries) from jobs"), 0, "a pause is no try");
    house_close(h);
}

Test(keys, each_has_the_budget_for_itself_and_never_more)
{
    /* A window that counts too much would mean a minute of 429. The provider counts at arrival, which on a busy machine
     * is up to a second after kiln has counted. */
    static const struct house_options options = {
        .catalog = "{\"provider\":\"stability\",\"lane\":{\"budget\":{\"count\":4,\"window_ms\":3000}}}",
        .sandbox_config = "{" SMALL ",\"stability_limit\":{\"requests\":4,\"window_ms\":2000,\"timeout_ms\":60000}}",
        .worker_env = { "STABILITY_API_KEY=sk-one,sk-two" },
        .dispatcher_env = { "STABILITY_API_KEY=sk-one,sk-two" },
    };
    struct house *h = house_open(&options);
    char ids[MOST][40];
    int64_t paid[4] = { 0 }, began = cases_now_ms();
    json_t *all;

    (void)house_worker_start(h, NULL);
    submit_some(h, MOST, ids);
    expect_some(h, MOST, ids);
    printf("%d jobs, 2 keys of 4 in 3 s: %lld ms\n", MOST, (long long)(cases_now_ms() - began));
    cr_expect_eq(by_key(h, "paid", paid, 4), 2);
    cr_expect_eq(paid[0] + paid[1], MOST);
    cr_expect(paid[0] >= MOST / 3 && paid[1] >= MOST / 3, "they take turns: %lld and %lld", (long long)paid[0],
              (long long)paid[1]);
    all = sandbox_counters(h);
    cr_expect_eq(json_integer_value(json_object_get(json_object_get(all, "totals"), "rate_limited")), 0);
    json_decref(all);
    cr_expect_eq(house_counter(h, "core", "refused"), 0);
    house_close(h);
}

/* --- references ----------------------------------------------------------------------------------------------------
 */

enum { ASYNC = 6 };

static const struct want upscales[ASYNC] = {
    { "up0", CREATIVE, NULL, NULL, NULL, false, 60, 1, 1, 1, 0, NULL },
    { "up1", CREATIVE, NULL, NULL, NULL, false, 60, 1, 1, 1, 0, NULL },
    { "up2", CREATIVE, NULL, NULL, NULL, false, 60, 1, 1, 1, 0, NULL },
    { "up3", CREATIVE, NULL, NULL, NULL, false, 60, 1, 1, 1, 0, NULL },
    { "up4", CREATIVE, NULL, NULL, NULL, false, 60, 1, 1, 1, 0, NULL },
    { "up5", CREATIVE, NULL, NULL, NULL, false, 60, 1, 1, 1, 0, NULL },
};
#define SOON                                                                                                           \
    "{\"provider\":\"stability\",\"lane\":{},\"operations\":{\"stability.upscale.creative\":"                          \
    "{\"poll\":{\"first_ms\":500,\"every_ms\":300}}}}"

static const struct house_options async_options = { .catalog = SOON,
                                                    .sandbox_config = "{" SMALL "}",
                                                    .worker_env = { "STABILITY_API_KEY=sk-one,sk-two" } };

static void submit_async(struct house *h, char (*ids)[40])
{
    char *upload = house_upload(h, 128, 128);

    for (int i = 0; i < ASYNC; i++)
        cases_submit(h, &upscales[i], upload, ids[i]);
    free(upload);
    cr_assert(house_wait_sql(h, "select count(*) from attempts where ref is not null", ASYNC, 20000));
    cr_expect_eq(support_sql_int(h->db, "select count(distinct substr(ref, 1, 12)) from attempts"), 2,
                 "both keys were used, and stand with the references");
    house_kill(&h->workers[0], SIGKILL);
}

/* Whose requests the tag's were: one key for all of them. */
static void expect_one_key(const struct house *h, const char *tag)
{
    char url[192], key[64] = "";
    struct reply r;
    json_t *one;
    size_t i, polls = 0;

    (void)snprintf(url, sizeof(url), "%s/_sandbox/requests?tag=%s", h->sandbox, tag);
    r = house_url("GET", url, NULL, NULL);
    json_array_foreach(json_object_get(r.json, "requests"), i, one)
    {
        const char *is = json_string_value(json_object_get(one, "key"));

        cr_assert_not_null(is, "%s", r.text);
        if (!key[0])
            (void)snprintf(key, sizeof(key), "%s", is);
        cr_expect_str_eq(is, key, "%s: %s", tag, r.text);
        polls += i > 0;
    }
    cr_expect_geq(polls, 1, "%s was polled: %s", tag, r.text);
    reply_done(&r);
}

Test(keys, a_reference_is_polled_with_the_key_that_brought_it_also_by_another_worker)
{
    static const char *const turned[] = { "STABILITY_API_KEY=sk-three,sk-two,sk-one", NULL };
    struct house *h = house_open(&async_options);
    char ids[ASYNC][40];

    submit_async(h, ids);
    (void)house_worker_start(h, turned);
    for (int i = 0; i < ASYNC; i++) {
        cases_expect(h, &upscales[i], ids[i], LIMIT_MS);
        expect_one_key(h, upscales[i].tag);
    }
    house_close(h);
}

Test(keys, a_reference_whose_key_is_gone_fails_and_says_so)
{
    static const char *const one[] = { "STABILITY_API_KEY=sk-two", NULL };
    struct house *h = house_open(&async_options);
    char ids[ASYNC][40];
    int failed = 0, succeeded = 0;

    submit_async(h, ids);
    (void)house_worker_start(h, one);
    for (int i = 0; i < ASYNC; i++) {
        struct reply job = house_wait(h, ids[i], LIMIT_MS);

        if (!strcmp(reply_text(&job, "state"), "succeeded")) {
            succeeded++;
        } else {
            failed++;
            cr_expect_str_eq(reply_text(&job, "error.code"), "auth", "%s", job.text);
            cr_expect_str_eq(reply_text(&job, "error.message"),
                             "the key that sent it to the provider is not configured any more", "%s", job.text);
            cr_expect_float_eq(reply_number(&job, "credits.charged"), 0, 1e-9, "%s", job.text);
        }
        reply_done(&job);
    }
    cr_expect(failed > 0 && succeeded > 0, "%d failed, %d succeeded", failed, succeeded);
    house_close(h);
}
