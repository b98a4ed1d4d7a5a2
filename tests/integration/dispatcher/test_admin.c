/* test_admin.c - /v1/admin: dead letters and their retry, exposure, lanes, apps, keys, accounts; and who may not. */
#include "tests/integration/dispatcher/front.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "common/base/clock.h"
#include "common/base/text.h"
#include "dispatcher/auth.h"
#include "dispatcher/routes.h"

SUPPORT_SERVICES();

static int64_t data_count(const struct reply *r)
{
    return (int64_t)json_array_size(json_object_get(r->json, "data"));
}

static const json_t *data_at(const struct reply *r, const char *list, size_t i)
{
    return json_array_get(json_object_get(r->json, list), i);
}

static void fill(char *out, size_t size, const char *pattern)
{
    size_t n = 0;

    for (const char *p = pattern; *p != '\0' && n + 40 < size; p++) {
        if (*p == '{') {
            n += (size_t)snprintf(out + n, size - n, "openai");
            p += strcspn(p, "}");
        } else {
            out[n++] = *p;
        }
    }
    out[n] = '\0';
}

Test(admin, no_other_scope_opens_it_and_it_opens_nothing_else) /* S5 */
{
    struct front f;
    size_t seen = 0;

    front_open(&f, NULL);
    for (size_t i = 0; i < routes_count; i++) {
        const char *const keys[] = { f.key, f.jobs_key, f.credits_key };
        bool is_admin = strncmp(routes[i].pattern, "/v1/admin/", 10) == 0;
        char path[200];
        struct reply r;

        fill(path, sizeof(path), routes[i].pattern);
        cr_expect_eq((routes[i].scopes & SCOPE_ADMIN) != 0, is_admin, "%s", path);
        if (routes[i].auth == ROUTE_OPEN)
            continue;
        if (!is_admin) {
            r = front_ask(&f, &(struct request_spec){ .method = routes[i].method, .path = path, .key = f.admin_key });
            cr_expect_eq(r.status, 403, "%s %s: %ld", routes[i].method, path, r.status);
            reply_done(&r);
            continue;
        }
        seen++;
        cr_expect_eq(routes[i].scopes, SCOPE_ADMIN, "%s", path);
        for (size_t k = 0; k < ARRAY_LEN(keys); k++) {
            r = front_ask(&f, &(struct request_spec){ .method = routes[i].method,
                                                      .path = path,
                                                      .key = keys[k],
                                                      .body = routes[i].body == ROUTE_JSON ? "{}" : NULL,
                                                      .type = "application/json" });
            cr_expect_eq(r.status, 403, "%s %s: %ld", routes[i].method, path, r.status);
            cr_expect_str_eq(reply_header(&r, "Cache-Control"), "private, no-store"); /* S11 */
            reply_done(&r);
        }
    }
    cr_expect_geq(seen, 15);
    front_close(&f);
}

Test(admin, takes_no_member_that_it_does_not_know) /* S21 */
{
    static const char *const wrong[][4] = {
        { "POST", "/v1/admin/jobs/retry", "{\"state\":\"failed\",\"price\":1}", "price" },
        { "POST", "/v1/admin/jobs/retry", "{}", "state" },
        { "POST", "/v1/admin/jobs/retry", "{\"state\":\"failed\",\"code\":\"bad luck\"}", "code" },
        { "POST", "/v1/admin/jobs/retry", "{\"state\":\"failed\",\"limit\":101}", "limit" },
        { "POST", "/v1/admin/jobs/retry", "{\"state\":\"failed\",\"cursor\":\"1\"}", "cursor" },
        { "POST", "/v1/admin/jobs/retry", "{\"state\":\"failed\",\"app\":7}", "app" },
        { "POST", "/v1/admin/apps", "{\"name\":\"a\",\"id\":\"b\"}", "id" },
        { "POST", "/v1/admin/apps", "{\"name\":\"a b\"}", "name" },
        { "POST", "/v1/admin/apps/mine/keys", "{\"hash\":\"00\"}", "hash" },
        { "POST", "/v1/admin/apps/mine/keys", "{\"scopes\":[\"jobs\",\"root\"]}", "scopes" },
        { "POST", "/v1/admin/apps/mine/keys", "{\"scopes\":[]}", "scopes" },
        { "PATCH", "/v1/admin/apps/mine", "{\"disabled\":1}", "disabled" },
        { "PATCH", "/v1/admin/apps/mine", "{\"weight\":1001}", "weight" },
        { "PATCH", "/v1/admin/apps/mine", "{}", "body" },
        { "PATCH", "/v1/admin/accounts/mine/default", "{\"balance\":1}", "balance" },
        { "PATCH", "/v1/admin/accounts/mine/default", "{\"max_running\":0}", "max_running" },
        { "PATCH", "/v1/admin/accounts/mine/default", "{}", "body" },
        { "PATCH", "/v1/admin/lanes/openai", "{\"concurrency\":-1}", "concurrency" },
        { "PATCH", "/v1/admin/lanes/openai", "{\"budget\":{\"count\":1}}", "budget" },
        { "PATCH", "/v1/admin/lanes/openai", "{\"paused_until\":\"tomorrow\"}", "paused_until" },
        { "POST", "/v1/admin/lanes/openai/pause", "{\"for_s\":0}", "for_s" },
        { "GET", "/v1/admin/jobs?state=queued", NULL, "state" },
        { "GET", "/v1/admin/jobs?since=yesterday", NULL, "since" },
        { "GET", "/v1/admin/jobs?cursor=1.2", NULL, "cursor" },
        { "GET", "/v1/admin/jobs?page=2", NULL, "page" },
        { "GET", "/v1/admin/exposure?cursor=5.01a1fb42-f5ec-7001-bb2e-6cbfb859717b", NULL, "cursor" },
    };
    struct front f;

    front_open(&f, NULL);
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        struct reply r = front_admin(&f, wrong[i][0], wrong[i][1], wrong[i][2]);

        cr_expect_eq(r.status, 422, "%s %s: %ld %s", wrong[i][1], wrong[i][2], r.status, r.body);
        cr_expect_str_eq(reply_field(&r), wrong[i][3], "%s: %s", wrong[i][1], r.body);
        reply_done(&r);
    }
    front_close(&f);
}

static char *failed_job(struct front *f, const char *extra, const char *code)
{
    char *id = front_job(f, extra);

    front_fail(f, id, code, "refused", -1);
    return id;
}

Test(admin, failed_jobs_of_all_apps_are_listed_with_reason_and_attempts)
{
    struct front f;
    struct reply r;
    char *first, *second, path[200];
    const json_t *job;

    front_open(&f, NULL);
    front_grant(&f, "default", "100");
    front_grant(&f, "user:1", "100");
    first = failed_job(&f, NULL, "timeout");
    second = failed_job(&f, "\"account\":\"user:1\"", "provider_error");
    free(front_job(&f, NULL));
    r = front_admin(&f, "GET", "/v1/admin/jobs?expand=attempts", NULL);
    cr_assert_eq(r.status, 200, "%s", r.body);
    cr_assert_eq(data_count(&r), 2);
    job = data_at(&r, "data", 0);
    cr_expect_str_eq(json_text(job, "id"), second, "the last to end comes first");
    cr_expect_str_eq(json_text(json_object_get(job, "error"), "code"), "provider_error");
    cr_expect_str_eq(json_text(json_object_get(job, "app"), "name"), "mine");
    cr_expect_str_eq(json_text(json_array_get(json_object_get(job, "attempts"), 0), "message"), "it said so");
    cr_expect(json_is_null(json_object_get(job, "retried_by")));
    reply_done(&r);
    r = front_admin(&f, "GET", "/v1/admin/jobs?limit=1", NULL);
    cr_expect_eq(data_count(&r), 1);
    cr_expect(json_is_true(json_object_get(r.json, "has_more")));
    {
        char *next = strdup(reply_text(&r, "next"));

        reply_done(&r);
        r = front_admin(&f, "GET", next, NULL);
        cr_expect_str_eq(json_text(data_at(&r, "data", 0), "id"), first);
        cr_expect(json_is_false(json_object_get(r.json, "has_more")));
        free(next);
    }
    reply_done(&r);
    {
        static const struct {
            const char *query;
            int64_t count;
        } rows[] = {
            { "code=timeout", 1 },
            { "account=user:1", 1 },
            { "app=mine&state=failed&provider=openai&operation=openai.images.generate&retried=false", 2 },
            { "app=theirs", 0 },
            { "retried=true", 0 },
            { "since=2020-01-01T00:00:00Z&until=2020-01-02T00:00:00Z", 0 },
            { "since=2020-01-01T00:00:00Z", 2 },
        };

        for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
            snprintf(path, sizeof(path), "/v1/admin/jobs?%s", rows[i].query);
            r = front_admin(&f, "GET", path, NULL);
            cr_expect_eq(data_count(&r), rows[i].count, "%s: %s", rows[i].query, r.body);
            reply_done(&r);
        }
    }
    free(first);
    free(second);
    front_close(&f);
}

Test(admin, a_retry_is_a_new_job_once)
{
    struct front f;
    struct reply r;
    char *id, path[120], again[64];

    front_open(&f, NULL);
    front_grant(&f, "default", "100");
    id = failed_job(&f, "\"priority\":7,\"metadata\":{\"order\":1}", "timeout");
    snprintf(path, sizeof(path), "/v1/admin/jobs/%s/retry", id);
    r = front_admin(&f, "POST", path, NULL);
    cr_assert_eq(r.status, 202, "%s", r.body);
    cr_expect_str_eq(reply_text(&r, "retry_of"), id);
    cr_expect_str_eq(reply_text(&r, "state"), "queued");
    cr_expect_eq(json_integer_value(json_object_get(json_object_get(r.json, "metadata"), "order")), 1);
    cr_expect_eq(json_number_value(json_object_get(json_object_get(r.json, "credits"), "held")), 3.4);
    snprintf(again, sizeof(again), "%s", reply_text(&r, "id"));
    reply_done(&r);
    r = front_admin(&f, "POST", path, NULL);
    cr_expect_eq(r.status, 200);
    cr_expect_str_eq(reply_text(&r, "id"), again);
    cr_expect_str_eq(reply_header(&r, "Idempotent-Replayed"), "true");
    reply_done(&r);
    cr_expect_eq(front_count(&f, "select count(*) from jobs"), 2);
    cr_expect_eq(front_count(&f, "select priority from jobs where retry_of is not null"), 7);
    cr_expect_eq(front_count(&f, "select held from accounts"), 3400);
    snprintf(path, sizeof(path), "/v1/admin/jobs/%s", id);
    r = front_admin(&f, "GET", path, NULL);
    cr_expect_str_eq(reply_text(&r, "retried_by"), again);
    reply_done(&r);
    snprintf(path, sizeof(path), "/v1/jobs/%s", again);
    r = front_get(&f, path);
    cr_expect_str_eq(reply_text(&r, "retry_of"), id, "the customer sees what it stands for");
    reply_done(&r);
    snprintf(path, sizeof(path), "/v1/admin/jobs/%s/retry", again);
    r = front_admin(&f, "POST", path, NULL);
    cr_expect_eq(r.status, 409, "it has not failed");
    reply_done(&r);
    snprintf(path, sizeof(path), "/v1/admin/jobs/%s/retry", f.app);
    r = front_admin(&f, "POST", path, NULL);
    cr_expect_eq(r.status, 404);
    reply_done(&r);
    cr_expect_eq(front_count(&f, "select count(*) from kiln_audit()"), 0);
    free(id);
    front_close(&f);
}

Test(admin, a_retry_without_credits_is_402_and_writes_nothing)
{
    struct front f;
    struct reply r;
    char *id, path[120];

    front_open(&f, NULL);
    front_grant(&f, "default", "5");
    id = failed_job(&f, NULL, "timeout");
    free(front_job(&f, NULL)); /* 3.4 of 5 are held now */
    snprintf(path, sizeof(path), "/v1/admin/jobs/%s/retry", id);
    r = front_admin(&f, "POST", path, NULL);
    cr_expect_eq(r.status, 402);
    cr_expect_eq(json_number_value(json_object_get(r.json, "credits_available")), 1.6);
    reply_done(&r);
    cr_expect_eq(front_count(&f, "select count(*) from jobs"), 2);
    free(id);
    front_close(&f);
}

Test(admin, many_retries_of_one_job_at_once_make_one)
{
    struct front f;
    long statuses[16];
    char *id, path[120];
    int made = 0;

    front_open(&f, NULL);
    front_grant(&f, "default", "100");
    id = failed_job(&f, NULL, "timeout");
    snprintf(path, sizeof(path), "/v1/admin/jobs/%s/retry", id);
    front_storm(&f, &(struct request_spec){ .method = "POST", .path = path, .key = f.admin_key }, ARRAY_LEN(statuses),
                8, statuses, NULL);
    for (size_t i = 0; i < ARRAY_LEN(statuses); i++) {
        cr_expect(statuses[i] == 200 || statuses[i] == 202, "%ld", statuses[i]);
        made += statuses[i] == 202;
    }
    cr_expect_eq(made, 1);
    cr_expect_eq(front_count(&f, "select count(*) from jobs where retry_of is not null"), 1);
    free(id);
    front_close(&f);
}

Test(admin, a_page_of_retries_says_of_each_what_became_of_it)
{
    struct front f;
    struct reply r;
    char *ids[4], body[200];

    front_open(&f, NULL);
    front_grant(&f, "default", "100");
    front_grant(&f, "poor", "4");
    ids[0] = failed_job(&f, NULL, "timeout");
    ids[1] = failed_job(&f, "\"account\":\"poor\"", "timeout");
    free(front_job(&f, "\"account\":\"poor\""));
    ids[2] = failed_job(&f, NULL, "provider_error");
    ids[3] = failed_job(&f, NULL, "timeout");
    free(support_sql(f.db, "update jobs set operation = 'openai.images.gone' where id = (select id from jobs where "
                           "error_code = 'timeout' order by id desc limit 1) returning 1"));
    r = front_admin(&f, "POST", "/v1/admin/jobs/retry", "{\"state\":\"failed\",\"code\":\"timeout\",\"limit\":2}");
    cr_assert_eq(r.status, 200, "%s", r.body);
    cr_expect_eq(json_array_size(json_object_get(r.json, "retried")), 0);
    cr_assert_eq(json_array_size(json_object_get(r.json, "refused")), 2, "%s", r.body);
    cr_expect_str_eq(json_text(data_at(&r, "refused", 0), "id"), ids[3]);
    cr_expect_str_eq(json_text(data_at(&r, "refused", 0), "code"), "unknown_operation");
    cr_expect_str_eq(json_text(data_at(&r, "refused", 1), "code"), "insufficient_credits");
    cr_expect(json_is_true(json_object_get(r.json, "has_more")));
    snprintf(body, sizeof(body), "{\"state\":\"failed\",\"code\":\"timeout\",\"limit\":2,\"cursor\":\"%s\"}",
             reply_text(&r, "next"));
    reply_done(&r);
    r = front_admin(&f, "POST", "/v1/admin/jobs/retry", body);
    cr_assert_eq(json_array_size(json_object_get(r.json, "retried")), 1, "%s", r.body);
    cr_expect_str_eq(json_text(data_at(&r, "retried", 0), "retry_of"), ids[0]);
    cr_expect(json_is_false(json_object_get(r.json, "has_more")));
    reply_done(&r);
    r = front_admin(&f, "POST", "/v1/admin/jobs/retry", body); /* its answer was lost, say */
    cr_expect_eq(json_array_size(json_object_get(r.json, "retried")), 0);
    reply_done(&r);
    cr_expect_eq(front_count(&f, "select count(*) from jobs where retry_of is not null"), 1);
    cr_expect_eq(front_count(&f, "select count(*) from kiln_audit()"), 0);
    for (size_t i = 0; i < ARRAY_LEN(ids); i++)
        free(ids[i]);
    front_close(&f);
}

Test(admin, a_retry_whose_upload_has_expired_says_so)
{
    static const char body[] =
        "{\"operation\":\"stability.upscale.creative\",\"params\":{\"prompt\":\"" FRONT_PROMPT "\",\"image\":\""
        "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAAAAACPAi4CAAAAzklEQVR42tWXQRWDUBDEIgEJSEACEioBCZVQCUhAAhIqAQlIQALjIXOA3Bt45f/dGQhDGMMU5vAJS/iGX1jDFvbwD0c4wxVoCN7++0e8gHo+9v0LAvkHYj8A9gM2BO4EYU8g9gRXBOoKYa8g9gp7gZ0h2BmEnWEFgRyi2CGMHeINgdsi2C2E3WIVgVqj2DWMXeNeYHMENodgc0xBIIMUNohhg1xD4JIkNolik2xFoKI0Nopjo7wX2C6B7SLYLlMQyDKFLWPYMtcQuDaJbaM3wwSAasv7wnwAAAAASUVORK5CYII="
        "\"}}";
    struct front f;
    struct reply r;
    char *id, path[120];

    front_open(&f, NULL);
    front_grant(&f, "default", "1000");
    r = front_post(&f, "/v1/jobs", body);
    cr_assert_eq(r.status, 202, "%s", r.body);
    id = strdup(reply_text(&r, "id"));
    reply_done(&r);
    front_fail(&f, id, "timeout", "refused", -1);
    free(support_sql(f.db, "update uploads set expires_at = kiln_now() - interval '1 second' returning 1"));
    snprintf(path, sizeof(path), "/v1/admin/jobs/%s/retry", id);
    r = front_admin(&f, "POST", path, NULL);
    cr_expect_eq(r.status, 422, "%s", r.body);
    cr_expect_not_null(strstr(reply_text(&r, "detail"), "params.image"), "%s", r.body);
    reply_done(&r);
    free(support_sql(f.db, "update uploads set expires_at = kiln_now() + interval '1 hour' returning 1"));
    r = front_admin(&f, "POST", path, NULL);
    cr_expect_eq(r.status, 202, "%s", r.body);
    reply_done(&r);
    cr_expect_eq(front_count(&f, "select count(*) from jobs a, jobs b where b.retry_of = a.id and a.inputs = b.inputs"),
                 1);
    free(id);
    front_close(&f);
}

/* The value of a series in /metrics; -1: not there. */
static double metric(struct front *f, const char *series)
{
    struct reply r = front_ask(f, &(struct request_spec){ .method = "GET", .path = "/metrics", .key = "" });
    const char *at = strstr(r.body, series);
    double value = at != NULL ? strtod(at + strlen(series), NULL) : -1;

    reply_done(&r);
    return value;
}

Test(admin, exposure_is_listed_summed_and_counted)
{
    static const char series[] = "kiln_exposure_usd_total{provider=\"openai\",reason=\"unknown\"}";
    struct front f;
    struct reply r;
    char *id;
    int64_t until;

    front_open(&f, NULL);
    front_grant(&f, "default", "100");
    cr_expect_eq(metric(&f, series), 0);
    for (int i = 0; i < 2; i++) {
        id = front_job(&f, NULL);
        front_fail(&f, id, "outcome_unknown", "unknown", i == 0 ? 40000 : -1);
        free(id);
    }
    id = front_job(&f, NULL);
    front_fail(&f, id, "bad_response", "answered", 30000);
    free(id);
    r = front_admin(&f, "GET", "/v1/admin/exposure?limit=2", NULL);
    cr_assert_eq(r.status, 200, "%s", r.body);
    cr_expect_eq(data_count(&r), 2);
    cr_expect_str_eq(json_text(data_at(&r, "data", 0), "reason"), "uncharged");
    cr_expect_eq(json_number_value(json_object_get(data_at(&r, "data", 0), "cost_usd")), 0.03);
    cr_assert_eq(json_array_size(json_object_get(r.json, "totals")), 2, "%s", r.body);
    cr_expect_str_eq(json_text(data_at(&r, "totals", 1), "reason"), "unknown");
    cr_expect_eq(json_integer_value(json_object_get(data_at(&r, "totals", 1), "attempts")), 2);
    cr_expect_eq(json_integer_value(json_object_get(data_at(&r, "totals", 1), "without_cost")), 1);
    cr_expect_eq(json_number_value(json_object_get(data_at(&r, "totals", 1), "cost_usd")), 0.04);
    {
        char *next = strdup(reply_text(&r, "next"));

        reply_done(&r);
        r = front_admin(&f, "GET", next, NULL);
        cr_expect_eq(data_count(&r), 1);
        cr_expect_eq(json_number_value(json_object_get(data_at(&r, "data", 0), "cost_usd")), 0.04);
        free(next);
    }
    reply_done(&r);
    r = front_admin(&f, "GET", "/v1/admin/exposure?provider=stability", NULL);
    cr_expect_eq(data_count(&r), 0);
    reply_done(&r);
    free(support_sql(f.db,
                     "update clock_shift set shift = interval '20 seconds' returning 1")); /* not younger than ten */
    until = clock_mono_ms() + 40000; /* looked at each ten seconds */
    while (metric(&f, series) < 0.04 && clock_mono_ms() < until)
        (void)nanosleep(&(struct timespec){ 0, 200000000 }, NULL);
    cr_expect_eq(metric(&f, series), 0.04);
    cr_expect_eq(metric(&f, "kiln_exposure_attempts_total{provider=\"openai\",reason=\"unknown\"}"), 2);
    front_close(&f);
}

static bool lane_says(struct front *f, const char *member, const char *want, int limit_ms)
{
    int64_t until = clock_mono_ms() + limit_ms;
    bool ok = false;

    do {
        struct reply r = front_admin(f, "GET", "/v1/admin/lanes/openai", NULL);
        char *text = json_dumps(json_object_get(r.json, member), JSON_ENCODE_ANY | JSON_COMPACT | JSON_SORT_KEYS);

        ok = text != NULL && strcmp(text, want) == 0;
        free(text);
        reply_done(&r);
    } while (!ok && clock_mono_ms() < until && nanosleep(&(struct timespec){ 0, 50000000 }, NULL) == 0);
    return ok;
}

Test(admin, lanes_are_limited_paused_and_resumed)
{
    struct front f;
    struct reply r;

    front_open(&f, NULL);
    r = front_admin(&f, "GET", "/v1/admin/lanes", NULL);
    cr_expect_eq(r.status, 200);
    cr_expect_geq(data_count(&r), 3, "one for each provider of the catalogue: %s", r.body);
    reply_done(&r);
    r = front_admin(&f, "PATCH", "/v1/admin/lanes/openai",
                    "{\"concurrency\":5,\"budget\":{\"count\":10,\"window_ms\":1000}}");
    cr_expect_eq(r.status, 200, "%s", r.body);
    cr_expect_eq(json_integer_value(json_object_get(r.json, "concurrency")), 5);
    reply_done(&r);
    r = front_admin(&f, "PATCH", "/v1/admin/lanes/openai", "{\"budget\":null}");
    cr_expect_eq(json_integer_value(json_object_get(json_object_get(r.json, "set"), "concurrency")), 5,
                 "what is not named stays: %s", r.body);
    cr_expect(json_is_null(json_object_get(json_object_get(r.json, "set"), "budget")));
    reply_done(&r);
    r = front_admin(&f, "POST", "/v1/admin/lanes/openai/pause", "{}");
    cr_expect(json_is_true(json_object_get(r.json, "paused")), "%s", r.body);
    cr_expect(json_is_null(json_object_get(r.json, "paused_until")), "without an end");
    reply_done(&r);
    for (int64_t limit = clock_mono_ms() + 5000; lane_says(&f, "paused_s", "0.0", 0) && clock_mono_ms() < limit;)
        (void)nanosleep(&(struct timespec){ 0, 20000000 }, NULL);
    cr_expect_not(lane_says(&f, "paused_s", "0.0", 0), "Redis is told");
    r = front_admin(&f, "POST", "/v1/admin/lanes/openai/pause", "{\"for_s\":1}"); /* shorter than the one before */
    cr_expect_str_neq(reply_text(&r, "paused_until"), "");
    reply_done(&r);
    cr_expect(lane_says(&f, "paused_s", "0.0", 10000), "a pause can be shortened");
    r = front_admin(&f, "PATCH", "/v1/admin/lanes/openai", "{\"paused_until\":\"2030-01-01T00:00:00Z\"}");
    cr_expect_str_eq(reply_text(&r, "paused_until"), "2030-01-01T00:00:00.000Z");
    reply_done(&r);
    r = front_admin(&f, "POST", "/v1/admin/lanes/openai/resume", NULL);
    cr_expect(json_is_false(json_object_get(r.json, "paused")), "%s", r.body);
    reply_done(&r);
    cr_expect(lane_says(&f, "paused_s", "0.0", 10000));
    r = front_admin(&f, "GET", "/v1/admin/lanes/nobody", NULL);
    cr_expect_eq(r.status, 404);
    reply_done(&r);
    front_close(&f);
}

static long status_with(struct front *f, const char *key, const char *path)
{
    struct reply r = front_ask(f, &(struct request_spec){ .method = "GET", .path = path, .key = key });
    long status = r.status;

    reply_done(&r);
    return status;
}

static bool status_becomes(struct front *f, const char *key, const char *path, long want, int limit_ms)
{
    int64_t until = clock_mono_ms() + limit_ms;

    while (status_with(f, key, path) != want) {
        if (clock_mono_ms() > until)
            return false;
        (void)nanosleep(&(struct timespec){ 0, 50000000 }, NULL);
    }
    return true;
}

Test(admin, a_key_is_shown_once_logged_never_and_revoked_for_good) /* S7 */
{
    struct front f;
    struct reply r;
    char key[64], id[64], path[160], *log;

    front_open(&f, NULL);
    r = front_admin(&f, "POST", "/v1/admin/apps", "{\"name\":\"shop\"}");
    cr_assert_eq(r.status, 201, "%s", r.body);
    cr_expect_str_eq(reply_text(&r, "name"), "shop");
    reply_done(&r);
    r = front_admin(&f, "POST", "/v1/admin/apps", "{\"name\":\"shop\"}");
    cr_expect_eq(r.status, 409);
    reply_done(&r);
    r = front_admin(&f, "POST", "/v1/admin/apps/shop/keys", "{\"scopes\":[\"jobs\",\"credits\"]}");
    cr_assert_eq(r.status, 201, "%s", r.body);
    snprintf(key, sizeof(key), "%s", reply_text(&r, "key"));
    snprintf(id, sizeof(id), "%s", reply_text(&r, "id"));
    cr_assert_eq(strlen(key), AUTH_KEY_LENGTH);
    reply_done(&r);
    cr_expect_eq(status_with(&f, key, "/v1/jobs"), 200);
    r = front_admin(&f, "GET", "/v1/admin/apps/shop/keys", NULL);
    cr_expect_eq(data_count(&r), 1);
    cr_expect_null(strstr(r.body, key + 12), "a list shows no key");
    cr_expect_eq(strncmp(json_text(data_at(&r, "data", 0), "prefix"), key, 12), 0);
    reply_done(&r);
    snprintf(path, sizeof(path), "/v1/admin/apps/mine/keys/%s/revoke", id);
    r = front_admin(&f, "POST", path, NULL);
    cr_expect_eq(r.status, 404, "it is no key of that app");
    reply_done(&r);
    snprintf(path, sizeof(path), "/v1/admin/apps/shop/keys/%s/revoke", id);
    for (int i = 0; i < 2; i++) {
        r = front_admin(&f, "POST", path, NULL);
        cr_expect_eq(r.status, 200, "%s", r.body);
        cr_expect_str_neq(reply_text(&r, "revoked_at"), "");
        reply_done(&r);
    }
    cr_expect(status_becomes(&f, key, "/v1/jobs", 401, 5000));
    r = front_admin(&f, "POST", "/v1/admin/apps/nobody/keys", "{}");
    cr_expect_eq(r.status, 404);
    reply_done(&r);
    log = front_log(&f);
    cr_expect_null(strstr(log, key + 12), "the key is in the log");
    cr_expect_not_null(strstr(log, id), "who was given a key is in the log");
    free(log);
    front_close(&f);
}

Test(admin, a_disabled_apps_keys_are_refused_until_it_is_enabled)
{
    struct front f;
    struct reply r;

    front_open(&f, NULL);
    r = front_admin(&f, "PATCH", "/v1/admin/apps/theirs", "{\"disabled\":true}");
    cr_expect_eq(r.status, 200, "%s", r.body);
    cr_expect(json_is_true(json_object_get(r.json, "disabled")));
    reply_done(&r);
    cr_expect(status_becomes(&f, f.other_key, "/v1/jobs", 401, 5000));
    cr_expect_eq(status_with(&f, f.key, "/v1/jobs"), 200);
    r = front_admin(&f, "PATCH", "/v1/admin/apps/theirs", "{\"disabled\":false}");
    reply_done(&r);
    cr_expect(status_becomes(&f, f.other_key, "/v1/jobs", 200, 5000));
    r = front_admin(&f, "PATCH", "/v1/admin/apps/operators", "{\"disabled\":true}");
    cr_expect_eq(r.status, 404, "not the branch that one sits on");
    reply_done(&r);
    r = front_admin(&f, "GET", "/v1/admin/apps?limit=2", NULL);
    cr_expect_eq(data_count(&r), 2);
    cr_expect(json_is_true(json_object_get(r.json, "has_more")));
    reply_done(&r);
    front_close(&f);
}

Test(admin, accounts_get_a_cap_and_a_share)
{
    struct front f;
    struct reply r;

    front_open(&f, NULL);
    front_grant(&f, "user:42", "5");
    r = front_admin(&f, "PATCH", "/v1/admin/accounts/mine/user:42", "{\"max_running\":2,\"weight\":3}");
    cr_assert_eq(r.status, 200, "%s", r.body);
    cr_expect_eq(json_integer_value(json_object_get(r.json, "max_running")), 2);
    cr_expect_eq(json_number_value(json_object_get(r.json, "available")), 5);
    reply_done(&r);
    cr_expect_eq(front_count(&f, "select max_running from accounts"), 2);
    cr_expect_eq(front_count(&f, "select weight from accounts"), 3);
    r = front_admin(&f, "PATCH", "/v1/admin/accounts/mine/user:42", "{\"max_running\":null,\"weight\":null}");
    reply_done(&r);
    r = front_admin(&f, "GET", "/v1/admin/accounts/mine/user:42", NULL);
    cr_expect(json_is_null(json_object_get(r.json, "max_running")), "%s", r.body);
    cr_expect_eq(json_integer_value(json_object_get(r.json, "weight")), 1);
    reply_done(&r);
    r = front_admin(&f, "PATCH", "/v1/admin/apps/mine", "{\"weight\":5}");
    cr_expect_eq(json_integer_value(json_object_get(r.json, "weight")), 5, "%s", r.body);
    cr_expect(json_is_false(json_object_get(r.json, "disabled")), "what is not named stays");
    reply_done(&r);
    r = front_admin(&f, "GET", "/v1/admin/accounts/theirs/user:42", NULL);
    cr_expect_eq(r.status, 404);
    reply_done(&r);
    front_close(&f);
}
