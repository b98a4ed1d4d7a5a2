/* test_cache.c - jobs with `cache` through the whole house: one call of the provider for a hundred identical jobs, what
 * they are charged, who leads when the leader ends badly, and what is never answered from the cache. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/text.h"
#include "tests/integration/house/cases.h"

SUPPORT_SERVICES();

enum { LIMIT_MS = 60000, MANY = 100 };

#define SLOW  "{\"delay_ms\":{\"openai\":1500}}"
#define SMALL "\"model\":\"dall-e-2\",\"size\":\"256x256\""

static struct reply post(const struct house *h, const char *prompt, const char *more)
{
    char body[512];

    (void)snprintf(body, sizeof(body),
                   "{\"operation\":\"openai.images.generate\",\"cache\":true%s,\"params\":{\"prompt\":\"%s\"," SMALL
                   "}}",
                   more, prompt);
    return house_call(h, "POST", "/v1/jobs", body, NULL);
}

static void submit(const struct house *h, const char *prompt, const char *more, char id[40])
{
    struct reply r = post(h, prompt, more);

    cr_assert_eq(r.status, 202, "%ld %s", r.status, r.text);
    (void)snprintf(id, 40, "%s", reply_text(&r, "id"));
    reply_done(&r);
}

static struct reply expect_end(const struct house *h, const char *id, const char *state, double charged)
{
    struct reply r = house_wait(h, id, LIMIT_MS);

    cr_expect_str_eq(reply_text(&r, "state"), state, "%s", r.text);
    cr_expect_float_eq(reply_number(&r, "credits.charged"), charged, 1e-9, "%s", r.text);
    return r;
}

static void expect_only_end(const struct house *h, const char *id, const char *state, double charged)
{
    struct reply r = expect_end(h, id, state, charged);

    reply_done(&r);
}

static void expect_number(const struct house *h, const char *sql, const char *want)
{
    char *found = support_sql(h->db, sql);

    cr_expect_str_eq(found, want, "%s: %s", sql, found);
    free(found);
}

/* It was answered at once, by the job `of`. */
static void expect_hit(const struct house *h, const char *prompt, const char *of, double charged)
{
    struct reply r = post(h, prompt, "");

    cr_expect_eq(r.status, 200, "%ld %s", r.status, r.text);
    cr_expect_str_eq(reply_text(&r, "state"), "succeeded", "%s", r.text);
    cr_expect_str_eq(reply_text(&r, "cached_of"), of, "%s", r.text);
    cr_expect_float_eq(reply_number(&r, "credits.charged"), charged, 1e-9, "%s", r.text);
    cr_expect_eq(reply_int(&r, "attempts"), 0, "%s", r.text);
    reply_done(&r);
}

Test(cache, a_hundred_identical_jobs_make_one_call_and_cost_one_price)
{
    static const struct house_options options = { .sandbox_config = SLOW };
    struct house *h = house_open(&options);
    static char ids[MANY][40];
    struct reply r, file;
    char path[128];
    int cached = 0;

    for (int i = 0; i < MANY; i++)
        submit(h, "a hundred [[job:many]]", "", ids[i]);
    for (int i = 0; i < MANY; i++) {
        r = house_wait(h, ids[i], LIMIT_MS);
        cr_expect_str_eq(reply_text(&r, "state"), "succeeded", "%s", r.text);
        cached += strcmp(reply_text(&r, "cached_of"), ids[0]) == 0;
        if (i == MANY - 1) {
            (void)snprintf(path, sizeof(path), "/v1/artifacts/%s/content", reply_text(&r, "artifacts.0.id"));
            file = house_call(h, "GET", path, NULL, NULL);
            cr_expect_eq(file.status, 200, "%ld", file.status);
            cr_expect_eq((int64_t)file.len, reply_int(&r, "artifacts.0.bytes"));
            reply_done(&file);
        }
        reply_done(&r);
    }
    cr_expect_eq(cached, MANY - 1);
    cr_expect_eq(house_counter(h, "many", "requests"), 1);
    cr_expect_eq(house_counter(h, "many", "paid"), 1);
    cr_expect_float_eq(house_balance(h, "default"), 1000 - DALLE_SMALL, 1e-9);
    cr_expect_float_eq(house_held(h, "default"), 0, 1e-9);

    expect_hit(h, "a hundred [[job:many]]", ids[0], 0);
    expect_number(h,
                  "select count(*) from jobs j where hold_mc = 0 and not exists (select 1 from ledger l where "
                  "l.job_id = j.id)",
                  "1");
    cr_expect_eq(house_counter(h, "many", "requests"), 1);
    house_close(h);
}

Test(cache, when_the_leader_fails_or_is_canceled_one_other_asks_again)
{
    static const struct house_options options = { .sandbox_config = SLOW };
    struct house *h = house_open(&options);
    char ids[4][40], path[80];
    struct reply r;

    for (int i = 0; i < 4; i++)
        submit(h, "fails [[job:fails]] [[fault:status=400,times=1]]", "", ids[i]);
    for (int i = 0; i < 4; i++) {
        r = expect_end(h, ids[i], i == 0 ? "failed" : "succeeded", i == 1 ? DALLE_SMALL : 0);
        cr_expect_str_eq(reply_text(&r, "cached_of"), i > 1 ? ids[1] : "", "%s", r.text);
        reply_done(&r);
    }
    cr_expect_eq(house_counter(h, "fails", "requests"), 2);
    cr_expect_eq(house_counter(h, "fails", "paid"), 1);

    for (int i = 0; i < 3; i++)
        submit(h, "goes [[job:goes]] [[fault:delay_ms=20000,times=1]]", "", ids[i]);
    cr_assert(house_wait_sql(h, "select count(*) from jobs where state = 'running'", 1, LIMIT_MS));
    (void)snprintf(path, sizeof(path), "/v1/jobs/%s/cancel", ids[0]);
    r = house_call(h, "POST", path, NULL, NULL);
    cr_expect_eq(r.status, 200, "%s", r.text);
    reply_done(&r);
    for (int i = 0; i < 3; i++) {
        r = expect_end(h, ids[i], i == 0 ? "canceled" : "succeeded", i == 1 ? DALLE_SMALL : 0);
        reply_done(&r);
    }
    cr_expect_float_eq(house_held(h, "default"), 0, 1e-9);
    house_close(h);
}

Test(cache, a_dispatcher_that_died_leaves_nobody_waiting)
{
    static const struct house_options options = { .sandbox_config = SLOW };
    struct house *h = house_open(&options);
    char ids[3][40];

    for (int i = 0; i < 3; i++)
        submit(h, "orphans [[job:orphans]]", "", ids[i]);
    house_kill(&h->dispatcher, SIGKILL);
    cr_assert(house_wait_sql(h, "select count(*) from jobs where state = 'succeeded'", 1, LIMIT_MS));
    expect_number(h, "select count(*) from jobs where state = 'queued'", "2");
    house_dispatcher_start(h, NULL);
    for (int i = 0; i < 3; i++)
        expect_only_end(h, ids[i], "succeeded", i == 0 ? DALLE_SMALL : 0);
    cr_expect_eq(house_counter(h, "orphans", "paid"), 1);
    house_close(h);
}

/* A second app of the same house, with credits. */
static void other_app(const struct house *h, struct house *other)
{
    char sql[512], hash[SHA256_HEX];

    *other = *h;
    uuid_v7(other->app);
    (void)snprintf(other->key, sizeof(other->key), "kiln_%s", "0123456789012345678901234567890123456789012");
    sha256_hex(hash, other->key, strlen(other->key));
    (void)snprintf(sql, sizeof(sql), "insert into apps (id, name) values ('%s', 'other')", other->app);
    free(support_sql(h->db, sql));
    (void)snprintf(sql, sizeof(sql),
                   "insert into api_keys (id, app_id, hash, prefix, scopes) values (gen_random_uuid(), '%s', "
                   "decode('%s', 'hex'), '%.12s', '{jobs,credits,admin}')",
                   other->app, hash, other->key);
    free(support_sql(h->db, sql));
    house_grant(other, "default", 100);
}

/* As an operator may: the objects of this job are gone from the storage. */
static void lose_files(const struct house *h, const char *job)
{
    char command[256];

    (void)snprintf(command, sizeof(command), "find '%s/storage/obj' -name '%s*' -type f -delete -print | grep -q .",
                   h->dir, job);
    cr_assert_eq(system(command), 0, "%s", command);
}

Test(cache, costs_what_the_catalogue_says_never_crosses_apps_and_ends_with_its_time_or_its_file)
{
    static const struct house_options options = {
        .catalog = "{\"provider\":\"openai\",\"operations\":{\"openai.images.generate\":{\"cache_price\":0.5}}}",
    };
    struct house *h = house_open(&options), other;
    char id[40], again[40];

    submit(h, "priced [[job:priced]]", "", id);
    expect_only_end(h, id, "succeeded", DALLE_SMALL);
    expect_hit(h, "priced [[job:priced]]", id, 0.5);
    expect_hit(h, "priced [[job:priced]]", id, 0.5);
    cr_expect_float_eq(house_balance(h, "default"), 1000 - DALLE_SMALL - 1, 1e-9);
    expect_number(h,
                  "select string_agg(kind || ' ' || amount, ',' order by l.id) from ledger l join jobs j on "
                  "j.id = l.job_id where j.extras ? 'cached'",
                  "hold 500,capture 500,hold 500,capture 500");

    other_app(h, &other);
    submit(&other, "priced [[job:priced]]", "", again);
    expect_only_end(&other, again, "succeeded", DALLE_SMALL);
    cr_expect_eq(house_counter(h, "priced", "requests"), 2);

    submit(h, "priced too [[job:priced]]", "", again); /* other parameters */
    expect_only_end(h, again, "succeeded", DALLE_SMALL);
    free(support_sql(h->db, "update clock_shift set shift = shift + interval '100 seconds'"));
    submit(h, "priced [[job:priced]]", ",\"cache_ttl_s\":60", again);
    expect_only_end(h, again, "succeeded", DALLE_SMALL);

    lose_files(h, again);
    expect_hit(h, "priced [[job:priced]]", id, 0.5); /* the one before it is whole */
    lose_files(h, id);
    submit(h, "priced [[job:priced]]", "", again);
    expect_only_end(h, again, "succeeded", DALLE_SMALL);
    house_close(h);
}

static void expect_refused(const struct house *h, const char *body, const char *field)
{
    struct reply r = house_call(h, "POST", "/v1/jobs", body, NULL);

    cr_expect_eq(r.status, 422, "%ld %s", r.status, r.text);
    cr_expect_not_null(strstr(r.text, field), "%s", r.text);
    reply_done(&r);
}

Test(cache, knows_files_by_their_content_and_refuses_what_has_none)
{
    struct house *h = house_open(NULL);
    char *one = house_upload(h, 64, 64), *two = house_upload(h, 64, 64), body[512], id[40] = "";
    const char *const files[] = { one, two };

    for (int i = 0; i < 2; i++) {
        struct reply r;

        (void)snprintf(body, sizeof(body),
                       "{\"operation\":\"stability.upscale.fast\",\"cache\":true,\"params\":{\"image\":\"%s\"}}",
                       files[i]);
        r = house_call(h, "POST", "/v1/jobs", body, NULL);
        cr_expect_eq(r.status, i == 0 ? 202 : 200, "%ld %s", r.status, r.text);
        cr_expect_str_eq(reply_text(&r, "cached_of"), id, "%s", r.text);
        (void)snprintf(id, sizeof(id), "%s", reply_text(&r, "id"));
        reply_done(&r);
        if (i == 0)
            cr_assert(house_wait_sql(h, "select count(*) from jobs where state = 'succeeded'", 1, LIMIT_MS));
    }
    cr_expect_eq(house_counter(h, NULL, "paid"), 1);
    expect_refused(
        h,
        "{\"operation\":\"stability.upscale.fast\",\"cache\":true,\"params\":{\"image\":\"https://example.com/a.png\"}}",
        "params.image");
    expect_refused(h,
                   "{\"operation\":\"openai.images.generate\",\"cache\":true,\"run_at\":\"2099-01-01T00:00:00Z\","
                   "\"params\":{\"prompt\":\"x\"}}",
                   "run_at");
    expect_refused(h, "{\"operation\":\"openai.images.generate\",\"cache\":1,\"params\":{\"prompt\":\"x\"}}", "cache");
    expect_refused(h, "{\"operation\":\"openai.images.generate\",\"cache_ttl_s\":60,\"params\":{\"prompt\":\"x\"}}",
                   "cache_ttl_s");
    expect_refused(
        h,
        "{\"operation\":\"openai.images.generate\",\"cache\":true,\"cache_ttl_s\":2592001,\"params\":{\"prompt\":\"x\"}}",
        "cache_ttl_s");
    free(one);
    free(two);
    house_close(h);
}

Test(cache, answers_routed_jobs_too)
{
    struct house *h = house_open(NULL);
    static const char body[] = "{\"operation\":\"image.generate\",\"cache\":true,\"provider\":\"openai\",\"params\":{"
                               "\"prompt\":\"routed [[job:routed]]\"}}";
    struct reply r = house_call(h, "POST", "/v1/jobs", body, NULL);
    char id[40];

    cr_assert_eq(r.status, 202, "%ld %s", r.status, r.text);
    (void)snprintf(id, sizeof(id), "%s", reply_text(&r, "id"));
    reply_done(&r);
    r = house_wait(h, id, LIMIT_MS);
    cr_expect_str_eq(reply_text(&r, "state"), "succeeded", "%s", r.text);
    reply_done(&r);
    r = house_call(h, "POST", "/v1/jobs", body, NULL);
    cr_expect_eq(r.status, 200, "%ld %s", r.status, r.text);
    cr_expect_str_eq(reply_text(&r, "cached_of"), id, "%s", r.text);
    cr_expect_float_eq(reply_number(&r, "credits.charged"), 0, 1e-9, "%s", r.text);
    reply_done(&r);
    cr_expect_eq(house_counter(h, "routed", "paid"), 1);
    house_close(h);
}
