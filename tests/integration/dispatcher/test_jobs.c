/* test_jobs.c - reading, listing, waiting for and canceling jobs; accounts, grants, ledger; who may. */
#include "tests/integration/dispatcher/front.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "common/base/clock.h"
#include "common/base/text.h"

SUPPORT_SERVICES();

Test(jobs, an_etag_names_the_version)
{
    struct front f;
    struct reply r;
    char *id, path[80];
    struct request_spec spec = { .method = "GET", .headers = { "If-None-Match: \"1\"" } };

    front_open(&f, NULL);
    front_grant(&f, "default", "100");
    id = front_job(&f, NULL);
    snprintf(path, sizeof(path), "/v1/jobs/%s", id);
    spec.path = path;
    r = front_ask(&f, &spec);
    cr_expect_eq(r.status, 304);
    cr_expect_eq(r.len, 0);
    reply_done(&r);
    spec.headers[0] = "If-None-Match: \"0\", W/\"1\"";
    r = front_ask(&f, &spec);
    cr_expect_eq(r.status, 304);
    reply_done(&r);
    spec.headers[0] = "If-None-Match: \"2\"";
    r = front_ask(&f, &spec);
    cr_expect_eq(r.status, 200);
    cr_expect_str_eq(reply_header(&r, "ETag"), "\"1\"");
    reply_done(&r);
    free(id);
    front_close(&f);
}

Test(jobs, another_apps_ids_and_absent_ones_get_the_same_404)
{
    struct front f;
    struct reply foreign, absent;
    char *id, path[120];
    static const char *const suffix[] = { "", "/cancel" };

    front_open(&f, NULL);
    front_grant(&f, "default", "100");
    id = front_job(&f, NULL);
    for (size_t i = 0; i < ARRAY_LEN(suffix); i++) {
        struct request_spec spec = { .method = i == 0 ? "GET" : "POST", .path = path, .key = f.other_key };

        snprintf(path, sizeof(path), "/v1/jobs/%s%s", id, suffix[i]);
        foreign = front_ask(&f, &spec);
        snprintf(path, sizeof(path), "/v1/jobs/%s%s", f.app, suffix[i]);
        absent = front_ask(&f, &spec);
        cr_expect_eq(foreign.status, 404);
        cr_expect_eq(absent.status, 404);
        cr_expect_str_eq(reply_text(&foreign, "detail"), reply_text(&absent, "detail"));
        reply_done(&foreign);
        reply_done(&absent);
    }
    absent = front_get(&f, "/v1/jobs/no-uuid");
    cr_expect_eq(absent.status, 404);
    reply_done(&absent);
    cr_expect_eq(front_count(&f, "select count(*) from jobs where state = 'queued'"), 1);
    free(id);
    front_close(&f);
}

Test(jobs, cancel_releases_and_is_200_again_on_an_ended_job)
{
    struct front f;
    struct reply r;
    char *id, path[120];
    struct request_spec spec = { .method = "POST", .path = path };

    front_open(&f, NULL);
    front_grant(&f, "default", "100");
    id = front_job(&f, NULL);
    snprintf(path, sizeof(path), "/v1/jobs/%s/cancel", id);
    for (int i = 0; i < 2; i++) {
        r = front_ask(&f, &spec);
        cr_expect_eq(r.status, 200);
        cr_expect_str_eq(reply_text(&r, "state"), "canceled");
        reply_done(&r);
    }
    cr_expect_eq(front_count(&f, "select held from accounts"), 0);
    cr_expect_eq(front_count(&f, "select balance from accounts"), 100000);
    cr_expect_eq(front_count(&f, "select count(*) from kiln_audit()"), 0);
    free(id);
    front_close(&f);
}

Test(jobs, lists_go_on_at_the_cursor_and_filter)
{
    enum { N = 7 };
    struct front f;
    struct reply r;
    char *ids[N], path[400] = "/v1/jobs?limit=3&account=default";
    size_t seen = 0;

    front_open(&f, NULL);
    front_grant(&f, "default", "1000");
    front_grant(&f, "other", "1000");
    for (size_t i = 0; i < N; i++)
        ids[i] = front_job(&f, NULL);
    free(front_job(&f, "\"account\":\"other\""));
    while (path[0] != '\0') {
        size_t i;
        json_t *one;

        r = front_get(&f, path);
        cr_assert_eq(r.status, 200, "%s", r.body);
        cr_expect_str_eq(reply_text(&r, "object"), "list");
        json_array_foreach(json_object_get(r.json, "data"), i, one)
        {
            cr_assert_lt(seen, N);
            cr_expect_str_eq(json_text(one, "id"), ids[N - 1 - seen], "newest first, nothing twice");
            seen++;
        }
        cr_expect_eq(json_is_true(json_object_get(r.json, "has_more")), reply_text(&r, "next")[0] != '\0');
        snprintf(path, sizeof(path), "%s", reply_text(&r, "next"));
        reply_done(&r);
    }
    cr_expect_eq(seen, N);
    r = front_get(&f, "/v1/jobs?state=succeeded");
    cr_expect_eq(json_array_size(json_object_get(r.json, "data")), 0);
    reply_done(&r);
    r = front_get(&f, "/v1/jobs?operation=openai.images.generate&limit=100");
    cr_expect_eq(json_array_size(json_object_get(r.json, "data")), N + 1);
    reply_done(&r);
    {
        static const char *const bad[][2] = {
            { "/v1/jobs?limit=0", "limit" },         { "/v1/jobs?limit=101", "limit" },
            { "/v1/jobs?state=done", "state" },      { "/v1/jobs?cursor=x", "cursor" },
            { "/v1/jobs?account=a%20b", "account" }, { "/v1/jobs?operation=x", "operation" },
            { "/v1/jobs?account=%zz", "account" }
        };

        for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
            r = front_get(&f, bad[i][0]);
            cr_expect_eq(r.status, 422, "%s: %ld", bad[i][0], r.status);
            cr_expect_str_eq(reply_field(&r), bad[i][1]);
            reply_done(&r);
        }
    }
    for (size_t i = 0; i < N; i++)
        free(ids[i]);
    front_close(&f);
}

struct later {
    struct front *front;
    const char *job;
    int ms;
};

static void *cancel_later(void *arg)
{
    struct later *l = arg;
    struct timespec wait = { l->ms / 1000, l->ms % 1000 * 1000000L };
    char path[120];
    struct reply r;

    (void)nanosleep(&wait, NULL); /* the waiter has to be waiting: this is the event it waits for */
    snprintf(path, sizeof(path), "/v1/jobs/%s/cancel", l->job);
    r = front_ask(l->front, &(struct request_spec){ .method = "POST", .path = path });
    reply_done(&r);
    return NULL;
}

Test(jobs, a_long_poll_ends_with_the_job_and_not_before)
{
    struct front f;
    struct reply r;
    char *id, path[120];
    pthread_t thread;
    struct later later;
    struct request_spec spec = { .method = "GET", .path = path, .headers = { "Prefer: wait=20" } };

    front_open(&f, NULL);
    front_grant(&f, "default", "100");
    id = front_job(&f, NULL);
    snprintf(path, sizeof(path), "/v1/jobs/%s", id);
    later = (struct later){ &f, id, 700 };
    pthread_create(&thread, NULL, cancel_later, &later);
    r = front_ask(&f, &spec);
    pthread_join(thread, NULL);
    cr_expect_eq(r.status, 200);
    cr_expect_str_eq(reply_text(&r, "state"), "canceled");
    cr_expect_str_eq(reply_header(&r, "Preference-Applied"), "wait=20");
    cr_expect(r.seconds > 0.5 && r.seconds < 3, "woken by the event, not by the safety look: %.1f s", r.seconds);
    reply_done(&r);
    free(id);
    spec.headers[0] = "Prefer: respond-async, wait=1";
    id = front_job(&f, NULL);
    snprintf(path, sizeof(path), "/v1/jobs/%s", id);
    r = front_ask(&f, &spec);
    cr_expect_eq(r.status, 200);
    cr_expect_str_eq(reply_text(&r, "state"), "queued");
    cr_expect(r.seconds > 0.9 && r.seconds < 3, "%.1f s", r.seconds);
    reply_done(&r);
    spec.headers[1] = "If-None-Match: \"77\"";
    spec.headers[0] = "Prefer: wait=20";
    r = front_ask(&f, &spec);
    cr_expect_lt(r.seconds, 2, "another version is there already");
    reply_done(&r);
    free(id);
    front_close(&f);
}

Test(jobs, a_post_that_waits_is_200_at_the_end_and_202_before)
{
    struct front f;
    struct reply r;
    struct request_spec spec = { .method = "POST",
                                 .path = "/v1/jobs",
                                 .type = "application/json",
                                 .body = "{\"operation\":\"openai.images.generate\",\"params\":{\"prompt\":\"x\"},"
                                         "\"deadline_s\":3}",
                                 .headers = { "Prefer: wait=1" } };

    front_open(&f, NULL);
    front_grant(&f, "default", "100");
    r = front_ask(&f, &spec);
    cr_expect_eq(r.status, 202);
    cr_expect_str_eq(reply_text(&r, "state"), "queued");
    reply_done(&r);
    spec.headers[0] = "Prefer: wait=30"; /* expire ends it: the deadline is three seconds away, the look each five */
    r = front_ask(&f, &spec);
    cr_expect_eq(r.status, 200, "%s", r.body);
    cr_expect_str_eq(reply_text(&r, "state"), "failed");
    cr_expect_not_null(strstr(r.body, "\"code\":\"expired\""));
    cr_expect_lt(r.seconds, 14);
    reply_done(&r);
    cr_expect_eq(front_count(&f, "select held from accounts"), 0, "every hold closes");
    front_close(&f);
}

Test(jobs, the_house_does_not_spin_while_a_hundred_wait)
{
    enum { N = 100 };
    static long statuses[N];
    struct front f;
    char *id, path[120];
    int64_t before;

    front_open(&f, NULL);
    front_grant(&f, "default", "100");
    id = front_job(&f, NULL);
    snprintf(path, sizeof(path), "/v1/jobs/%s", id);
    before = front_count(&f, "select sum(calls) from (select 0 as calls) x");
    cr_expect_eq(before, 0);
    front_storm(&f, &(struct request_spec){ .method = "GET", .path = path, .headers = { "Prefer: wait=3" } }, N, N,
                statuses, NULL);
    for (size_t i = 0; i < N; i++)
        cr_expect_eq(statuses[i], 200);
    {
        struct reply r = front_get(&f, "/metrics");
        const char *line = strstr(r.body, "kiln_db_seconds_count{call=\"job_look\"}");

        cr_assert_not_null(line);
        cr_expect_lt(strtol(strchr(line, '}') + 1, NULL, 10), 120, "reads of waiters are gathered: %s",
                     strtok((char *)(uintptr_t)line, "\n"));
        reply_done(&r);
    }
    free(id);
    front_close(&f);
}

Test(jobs, attempts_are_listed_when_asked_for)
{
    struct front f;
    struct reply r;
    char *id, *artifact, path[120];

    front_open(&f, NULL);
    front_grant(&f, "default", "100");
    id = front_job(&f, NULL);
    artifact = front_finish(&f, id, front_png, front_png_len, "image/png");
    snprintf(path, sizeof(path), "/v1/jobs/%s?expand=attempts", id);
    r = front_get(&f, path);
    cr_expect_eq(r.status, 200);
    cr_expect_eq(json_array_size(json_object_get(r.json, "attempts")), 1, "%s", r.body);
    cr_expect_str_eq(reply_text(&r, "state"), "succeeded");
    cr_expect_eq(json_array_size(json_object_get(r.json, "artifacts")), 1);
    reply_done(&r);
    snprintf(path, sizeof(path), "/v1/jobs/%s?expand=all", id);
    r = front_get(&f, path);
    cr_expect_eq(r.status, 422);
    cr_expect_str_eq(reply_field(&r), "expand");
    reply_done(&r);
    free(id);
    free(artifact);
    front_close(&f);
}

/* ---- credits ---- */

Test(accounts, one_reference_grants_once_however_often_it_comes)
{
    enum { N = 40 };
    static long statuses[N];
    struct front f;
    struct reply r;
    struct request_spec spec = { .method = "POST",
                                 .path = "/v1/accounts/a/grants",
                                 .type = "application/json",
                                 .body = "{\"credits\":12.345,\"reference\":\"pay_1\"}" };

    front_open(&f, NULL);
    front_storm(&f, &spec, N, 20, statuses, NULL);
    for (size_t i = 0; i < N; i++)
        cr_expect_eq(statuses[i], 200);
    r = front_get(&f, "/v1/accounts/a");
    cr_expect_str_eq(r.body, "{\"account\":\"a\",\"balance\":12.345,\"held\":0,\"available\":12.345}");
    reply_done(&r);
    r = front_ask(&f, &spec);
    cr_expect_str_eq(reply_header(&r, "Idempotent-Replayed"), "true");
    reply_done(&r);
    spec.body = "{\"credits\":12,\"reference\":\"pay_1\"}";
    r = front_ask(&f, &spec);
    cr_expect_eq(r.status, 409);
    cr_expect_str_eq(reply_field(&r), "reference");
    reply_done(&r);
    front_close(&f);
}

Test(accounts, wrong_grants_name_their_field_and_write_nothing)
{
    static const struct {
        const char *body, *field;
    } bad[] = {
        { "{\"reference\":\"x\"}", "credits" },
        { "{\"credits\":0,\"reference\":\"x\"}", "credits" },
        { "{\"credits\":-1,\"reference\":\"x\"}", "credits" },
        { "{\"credits\":\"1\",\"reference\":\"x\"}", "credits" },
        { "{\"credits\":0.0001,\"reference\":\"x\"}", "credits" },
        { "{\"credits\":1e18,\"reference\":\"x\"}", "credits" },
        { "{\"credits\":1}", "reference" },
        { "{\"credits\":1,\"reference\":\"\"}", "reference" },
        { "{\"credits\":1,\"reference\":\"x\",\"balance\":1}", "balance" },
    };
    struct front f;
    struct reply r;

    front_open(&f, NULL);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        r = front_post(&f, "/v1/accounts/a/grants", bad[i].body);
        cr_expect_eq(r.status, 422, "%zu: %s", i, r.body);
        cr_expect_str_eq(reply_field(&r), bad[i].field, "%zu: %s", i, r.body);
        reply_done(&r);
    }
    r = front_post(&f, "/v1/accounts/a%20b/grants", "{\"credits\":1,\"reference\":\"x\"}");
    cr_expect_eq(r.status, 422);
    cr_expect_str_eq(reply_field(&r), "account");
    reply_done(&r);
    cr_expect_eq(front_count(&f, "select count(*) from accounts"), 0);
    cr_expect_eq(front_count(&f, "select count(*) from ledger"), 0);
    front_close(&f);
}

Test(accounts, the_ledger_pages_and_another_apps_account_is_not_there)
{
    struct front f;
    struct reply r;
    char path[400];

    front_open(&f, NULL);
    front_grant(&f, "default", "100");
    free(front_job(&f, NULL));
    free(front_job(&f, NULL));
    r = front_get(&f, "/v1/accounts/default/ledger?limit=2");
    cr_expect_eq(json_array_size(json_object_get(r.json, "data")), 2);
    cr_expect_not_null(strstr(r.body, "\"kind\":\"hold\""));
    snprintf(path, sizeof(path), "%s", reply_text(&r, "next"));
    reply_done(&r);
    r = front_get(&f, path);
    cr_expect_eq(json_array_size(json_object_get(r.json, "data")), 1);
    cr_expect_not_null(strstr(r.body, "\"kind\":\"grant\""));
    reply_done(&r);
    r = front_ask(&f, &(struct request_spec){ .method = "GET", .path = "/v1/accounts/default", .key = f.other_key });
    cr_expect_eq(r.status, 404);
    reply_done(&r);
    front_close(&f);
}

/* ---- who may ---- */

Test(auth, scopes_are_kept_apart_and_a_revoked_key_dies_within_seconds)
{
    struct front f;
    struct reply r;
    int64_t until;
    char sql[256];

    front_open(&f, NULL);
    r = front_ask(&f, &(struct request_spec){ .method = "POST",
                                              .path = "/v1/accounts/a/grants",
                                              .key = f.jobs_key,
                                              .type = "application/json",
                                              .body = "{\"credits\":1,\"reference\":\"x\"}" });
    cr_expect_eq(r.status, 403);
    cr_expect_str_eq(reply_text(&r, "code"), "forbidden");
    reply_done(&r);
    r = front_ask(&f, &(struct request_spec){ .method = "GET", .path = "/v1/jobs", .key = f.credits_key });
    cr_expect_eq(r.status, 403);
    reply_done(&r);
    r = front_ask(&f, &(struct request_spec){ .method = "GET", .path = "/v1/jobs", .key = f.jobs_key });
    cr_expect_eq(r.status, 200);
    reply_done(&r);
    snprintf(sql, sizeof(sql), "update api_keys set revoked_at = now() where hash = sha256('%s'::bytea) returning 1",
             f.jobs_key);
    free(support_sql(f.db, sql));
    until = clock_mono_ms() + 5000;
    do {
        r = front_ask(&f, &(struct request_spec){ .method = "GET", .path = "/v1/jobs", .key = f.jobs_key });
        if (r.status == 401)
            break;
        reply_done(&r);
    } while (clock_mono_ms() < until);
    cr_expect_eq(r.status, 401, "revoked, and still %ld", r.status);
    reply_done(&r);
    front_close(&f);
}

Test(auth, every_kind_of_bad_key_gets_the_same_answer)
{
    static const char *const lines[] = {
        "Authorization: Bearer kiln_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "Authorization: Bearer kiln_short",
        "Authorization: Bearer ' or 1=1 --",
        "Authorization: Basic a2lsbjp4",
        "Authorization: Bearer",
        "X-Nothing: x",
    };
    struct front f;
    char first[400] = "";

    front_open(&f, NULL);
    for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
        struct reply r = front_ask(
            &f, &(struct request_spec){ .method = "GET", .path = "/v1/jobs", .key = "", .headers = { lines[i] } });

        cr_expect_eq(r.status, 401, "%s", lines[i]);
        cr_expect_str_eq(reply_text(&r, "code"), "unauthorized");
        if (i == 0)
            snprintf(first, sizeof(first), "%s", reply_text(&r, "detail"));
        cr_expect_str_eq(reply_text(&r, "detail"), first);
        reply_done(&r);
    }
    front_close(&f);
}
