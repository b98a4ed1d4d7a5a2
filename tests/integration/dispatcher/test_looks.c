/* test_looks.c - GET /v1/jobs/{id}: the same as a list shows, made another way; and 304 without PostgreSQL. */
#include "tests/integration/dispatcher/front.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <hiredis/hiredis.h>
#include "common/base/clock.h"
#include "common/base/text.h"

SUPPORT_SERVICES();

static void sql(struct front *f, const char *statement)
{
    free(support_sql(f->db, statement));
}

/* The links say when they were made. */
static void without_links(json_t *job)
{
    json_t *artifact;
    size_t i;

    json_array_foreach(json_object_get(job, "artifacts"), i, artifact)
    {
        cr_expect_not_null(json_text(artifact, "url"));
        cr_expect_not_null(json_text(artifact, "expires_at"));
        json_object_del(artifact, "url");
        json_object_del(artifact, "expires_at");
    }
}

static void expect_same(struct front *f, const char *id, const char *what)
{
    char path[80];
    struct reply one, list;
    json_t *of_list = NULL, *job;
    size_t i;
    char *a, *b;

    snprintf(path, sizeof(path), "/v1/jobs/%s", id);
    one = front_get(f, path);
    list = front_get(f, "/v1/jobs");
    json_array_foreach(json_object_get(list.json, "data"), i, job)
    {
        if (strcmp(json_text(job, "id"), id) == 0)
            of_list = job;
    }
    cr_assert_eq(one.status, 200, "%s", what);
    cr_assert_not_null(one.json, "%s: %s", what, one.body);
    without_links(one.json);
    without_links(of_list);
    a = json_print(one.json);
    b = json_print(of_list);
    cr_expect_str_eq(a, b, "%s", what);
    free(a);
    free(b);
    reply_done(&one);
    reply_done(&list);
}

Test(looks, show_what_a_list_shows_in_every_state)
{
    struct front f;
    char *id;

    front_open(&f, NULL);
    front_grant(&f, "default", "100");
    id = front_job(&f, "\"metadata\":{\"a b\":\" : , \\\" \\\\ \",\"n\":[1,2.50,{\"x\":null}],\"e\":\"\\u00e9\\n\"}");
    expect_same(&f, id, "queued");
    sql(&f, "update jobs set extras = '{\"notes\":[\"one, two: three\"],\"cached\":{\"of\":"
            "\"0193abcd-0000-7000-8000-00000000000f\"}}', retry_of = gen_random_uuid(), batch_id = gen_random_uuid(), "
            "state = 'running', started_at = '2026-01-02 03:04:05.9999+00', holder = gen_random_uuid() returning 1");
    expect_same(&f, id, "running");
    sql(&f, "update jobs set state = 'failed', holder = null, captured_mc = 0, delivered = 0, finished_at = now(), "
            "error_code = 'provider_error', error_message = E'a \"b\"\\n\\t\\\\ c', provider_status = 500 returning 1");
    expect_same(&f, id, "failed");
    sql(&f, "update jobs set error_code = 'timeout', error_message = null, provider_status = null returning 1");
    expect_same(&f, id, "failed with our own words");
    sql(&f, "update jobs set state = 'succeeded', error_code = null, captured_mc = 10, hold_mc = 12345, units = 1, "
            "unit_mc = 12345, extras = null returning 1");
    sql(&f,
        "insert into artifacts (id, job_id, idx, attempt, fence, kind, mime, bytes, width, height, sha256, object, seed, "
        "revised_prompt, blurhash, color, created_at) select gen_random_uuid(), j.id, 2 - i, 1, 1, 'image', "
        "'image/png', 100 * i, i, null, repeat('ab', 32), 'job/' || i, i::text, E'\"quoted\" \\\\', 'L00', '#abc', now() "
        "from jobs j, generate_series(0, 2) i returning 1");
    expect_same(&f, id, "with three artifacts");
    sql(&f, "update jobs set state = 'canceled' returning 1");
    expect_same(&f, id, "canceled, with evidence");
    free(id);
    front_close(&f);
}

/* Rows read by id so far. */
static double rows_read(struct front *f)
{
    static const char series[] = "\nkiln_db_rows_sum{call=\"job_look\"} ";
    struct reply r = front_ask(f, &(struct request_spec){ .method = "GET", .path = "/metrics", .key = "" });
    const char *at = strstr(r.body, series);
    double value = at != NULL ? strtod(at + sizeof(series) - 1, NULL) : 0;

    reply_done(&r);
    return value;
}

static long ask(struct front *f, const char *id, const char *match, const char *key)
{
    char path[80], header[64];
    struct request_spec spec = { .method = "GET", .path = path, .key = key, .headers = { header } };
    struct reply r;
    long status;

    snprintf(path, sizeof(path), "/v1/jobs/%s", id);
    snprintf(header, sizeof(header), "If-None-Match: %s", match);
    r = front_ask(f, &spec);
    status = r.status;
    if (status == 304)
        cr_expect_str_eq(reply_header(&r, "ETag"), match);
    reply_done(&r);
    return status;
}

Test(looks, a_known_version_is_304_without_a_read_and_an_event_is_seen_at_once)
{
    enum { N = 50 };
    struct front f;
    char *id;
    int64_t began;
    double before;
    redisContext *redis;

    front_open(&f, NULL);
    front_grant(&f, "default", "100");
    id = front_job(&f, NULL);
    before = rows_read(&f);
    began = clock_mono_ms();
    for (int i = 0; i < N; i++)
        cr_expect_eq(ask(&f, id, "\"1\"", NULL), 304);
    cr_expect_leq(rows_read(&f) - before, (double)(1 + (clock_mono_ms() - began) / 1000), "one a second");
    cr_expect_geq(rows_read(&f) - before, 1);
    cr_expect_eq(ask(&f, id, "\"1\"", f.other_key), 404, "another app's");

    /* Changed behind its back, and told by an event, as a worker's settle is. */
    redis = redisConnectUnix(getenv("KILN_REDIS_URL") + 5);
    cr_expect_eq(ask(&f, id, "\"1\"", NULL), 304);
    sql(&f, "update jobs set version = 2, state = 'running', holder = gen_random_uuid() returning 1");
    freeReplyObject(
        redisCommand(redis, "PUBLISH kiln:{0}:events {\"job\":\"%s\",\"version\":2,\"state\":\"running\"}", id));
    began = clock_mono_ms();
    while (ask(&f, id, "\"1\"", NULL) == 304 && clock_mono_ms() < began + 5000)
        continue;
    cr_expect_lt(clock_mono_ms() - began, 500);
    cr_expect_eq(ask(&f, id, "\"2\"", NULL), 304);

    /* … and without an event, within a second and what a request takes. */
    sql(&f, "update jobs set version = 3 returning 1");
    began = clock_mono_ms();
    while (ask(&f, id, "\"2\"", NULL) == 304 && clock_mono_ms() < began + 5000)
        continue;
    cr_expect_lt(clock_mono_ms() - began, 1500);
    redisFree(redis);
    free(id);
    front_close(&f);
}
