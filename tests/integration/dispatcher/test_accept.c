/* test_accept.c - POST /v1/jobs: what is taken, what is refused and leaves nothing behind, and what it costs. */
#include "tests/integration/dispatcher/front.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "common/base/text.h"

SUPPORT_SERVICES();

static const char order[] = "{\"operation\":\"openai.images.generate\",\"params\":{\"prompt\":\"" FRONT_PROMPT "\"}}";

static int64_t rows(struct front *f)
{
    return front_count(f, "select (select count(*) from jobs) + (select count(*) from idempotency) + (select count(*) "
                          "from uploads) + (select count(*) from ledger where kind <> 'grant')");
}

static size_t count_of(const long *statuses, size_t n, long want)
{
    size_t found = 0;

    for (size_t i = 0; i < n; i++)
        found += statuses[i] == want;
    return found;
}

Test(accept, a_job_is_taken_in_held_and_shown_the_same_everywhere)
{
    struct front f;
    struct reply made, shown;
    char path[80];

    front_open(&f, NULL);
    front_grant(&f, "default", "100");
    made = front_post(&f, "/v1/jobs", order);
    cr_assert_eq(made.status, 202, "%s", made.body);
    cr_expect_str_eq(reply_text(&made, "state"), "queued");
    cr_expect_str_eq(reply_header(&made, "Retry-After"), "1");
    cr_expect_str_eq(reply_header(&made, "Content-Type"), "application/json");
    cr_expect_str_eq(reply_header(&made, "Cache-Control"), "private, no-store");
    cr_expect(uuid_valid(reply_header(&made, "Request-Id")));
    snprintf(path, sizeof(path), "/v1/jobs/%s", reply_text(&made, "id"));
    cr_expect_str_eq(reply_header(&made, "Location"), path);
    shown = front_get(&f, path);
    cr_expect_eq(shown.status, 200);
    cr_expect(json_equal(shown.json, made.json), "the job that POST answers is the one that GET shows");
    cr_expect_eq(front_count(&f, "select held from accounts"), front_count(&f, "select hold_mc from jobs"));
    cr_expect_gt(front_count(&f, "select hold_mc from jobs"), 0);
    reply_done(&made);
    reply_done(&shown);
    front_close(&f);
}

/* One thing wrong at a time; the field it has to name; "" where no field can be named. */
static const struct {
    const char *body;
    long status;
    const char *code, *field;
} wrong[] = {
    { "", 400, "invalid_json", "" },
    { "{", 400, "invalid_json", "" },
    { "{\"operation\":\"a\",\"operation\":\"b\",\"params\":{}}", 400, "invalid_json", "" },
    { "[1]", 422, "invalid_request", "body" },
    { "{}", 422, "invalid_request", "operation" },
    { "{\"operation\":5,\"params\":{}}", 422, "invalid_request", "operation" },
    { "{\"operation\":\"openai.images.generate\"}", 422, "invalid_request", "params" },
    { "{\"operation\":\"openai.images.generate\",\"params\":[]}", 422, "invalid_request", "params" },
    { "{\"operation\":\"no.such\",\"params\":{}}", 422, "unknown_operation", "operation" },
    { "{\"operation\":\"leonardo.generate\",\"params\":{\"prompt\":\"x\"}}", 422, "provider_not_configured",
      "operation" },
    { "{\"operation\":\"openai.images.generate\",\"params\":{}}", 422, "invalid_request", "params.prompt" },
    { "{\"operation\":\"openai.images.generate\",\"params\":{\"prompt\":7}}", 422, "invalid_request", "params.prompt" },
    { "{\"operation\":\"openai.images.generate\",\"params\":{\"prompt\":\"x\",\"size\":\"1x1\"}}", 422,
      "invalid_request", "params.size" },
    { "{\"operation\":\"openai.images.generate\",\"params\":{\"prompt\":\"x\",\"price\":0}}", 422, "invalid_request",
      "params.price" },
    { "{\"operation\":\"openai.images.generate\",\"params\":{\"prompt\":\"x\"},\"webhook\":\"https://x\"}", 422,
      "invalid_request", "webhook" },
    { "{\"operation\":\"openai.images.generate\",\"params\":{\"prompt\":\"x\"},\"cache\":\"yes\"}", 422,
      "invalid_request", "cache" },
    { "{\"operation\":\"openai.images.generate\",\"params\":{\"prompt\":\"x\"},\"account_id\":1}", 422,
      "invalid_request", "account_id" },
    { "{\"operation\":\"openai.images.generate\",\"params\":{\"prompt\":\"x\"},\"account\":\"a b\"}", 422,
      "invalid_request", "account" },
    { "{\"operation\":\"openai.images.generate\",\"params\":{\"prompt\":\"x\"},\"account\":\"\"}", 422,
      "invalid_request", "account" },
    { "{\"operation\":\"openai.images.generate\",\"params\":{\"prompt\":\"x\"},\"priority\":101}", 422,
      "invalid_request", "priority" },
    { "{\"operation\":\"openai.images.generate\",\"params\":{\"prompt\":\"x\"},\"priority\":1.5}", 422,
      "invalid_request", "priority" },
    { "{\"operation\":\"openai.images.generate\",\"params\":{\"prompt\":\"x\"},\"deadline_s\":0}", 422,
      "invalid_request", "deadline_s" },
    { "{\"operation\":\"openai.images.generate\",\"params\":{\"prompt\":\"x\"},\"deadline_s\":604801}", 422,
      "invalid_request", "deadline_s" },
    { "{\"operation\":\"openai.images.generate\",\"params\":{\"prompt\":\"x\"},\"run_at\":\"tomorrow\"}", 422,
      "invalid_request", "run_at" },
    { "{\"operation\":\"openai.images.generate\",\"params\":{\"prompt\":\"x\"},\"run_at\":\"2020-01-01T00:00:00Z\"}",
      422, "invalid_request", "run_at" },
    { "{\"operation\":\"openai.images.generate\",\"params\":{\"prompt\":\"x\"},\"run_at\":\"2099-01-01T00:00:00Z\"}",
      422, "invalid_request", "run_at" },
    { "{\"operation\":\"openai.images.generate\",\"params\":{\"prompt\":\"x\"},\"metadata\":[]}", 422,
      "invalid_request", "metadata" },
    { "{\"operation\":\"openai.images.generate\",\"params\":{\"prompt\":\"\\u0000\"}}", 400, "invalid_json", "" },
    { "{\"operation\":\"stability.upscale.creative\",\"params\":{\"prompt\":\"x\"}}", 422, "invalid_request",
      "params.image" },
    { "{\"operation\":\"stability.upscale.creative\",\"params\":{\"prompt\":\"x\",\"image\":\"file:///etc/passwd\"}}",
      422, "invalid_request", "params.image" },
    { "{\"operation\":\"stability.upscale.creative\",\"params\":{\"prompt\":\"x\",\"image\":"
      "\"01a1fb42-f5ec-7001-bb2e-6cbfb859717b\"}}",
      422, "invalid_request", "params.image" },
    { "{\"operation\":\"stability.upscale.creative\",\"params\":{\"prompt\":\"x\",\"image\":\"data:image/png,abc\"}}",
      422, "invalid_request", "params.image" },
    { "{\"operation\":\"stability.upscale.creative\",\"params\":{\"prompt\":\"x\",\"image\":"
      "\"data:image/png;base64,????\"}}",
      422, "invalid_request", "params.image" },
    { "{\"operation\":\"stability.upscale.creative\",\"params\":{\"prompt\":\"x\",\"image\":"
      "\"data:image/png;base64,PHN2Zz48L3N2Zz4=\"}}",
      422, "invalid_request", "params.image" },
};

Test(accept, wrong_input_of_every_kind_names_its_field_and_leaves_no_row)
{
    struct front f;

    front_open(&f, NULL);
    front_grant(&f, "default", "100");
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        struct reply r = front_post(&f, "/v1/jobs", wrong[i].body);

        cr_expect_eq(r.status, wrong[i].status, "%zu: %ld %s", i, r.status, r.body);
        cr_expect_str_eq(reply_text(&r, "code"), wrong[i].code, "%zu: %s", i, r.body);
        cr_expect_str_eq(reply_field(&r), wrong[i].field, "%zu: %s", i, r.body);
        cr_expect_str_eq(reply_header(&r, "Content-Type"), "application/problem+json");
        reply_done(&r);
    }
    cr_expect_eq(rows(&f), 0, "refused requests leave rows");
    front_close(&f);
}

Test(accept, large_metadata_keys_and_headers_are_refused_with_their_name)
{
    struct front f;
    struct reply r;
    char body[8192], key[400];

    front_open(&f, NULL);
    front_grant(&f, "default", "100");
    snprintf(
        body, sizeof(body),
        "{\"operation\":\"openai.images.generate\",\"params\":{\"prompt\":\"x\"},\"metadata\":{\"x\":\"%05000d\"}}", 7);
    r = front_post(&f, "/v1/jobs", body);
    cr_expect_eq(r.status, 422);
    cr_expect_str_eq(reply_field(&r), "metadata");
    reply_done(&r);
    snprintf(key, sizeof(key), "Idempotency-Key: %0300d", 7);
    r = front_ask(
        &f, &(struct request_spec){
                .method = "POST", .path = "/v1/jobs", .body = order, .type = "application/json", .headers = { key } });
    cr_expect_eq(r.status, 422);
    cr_expect_str_eq(reply_field(&r), "Idempotency-Key");
    reply_done(&r);
    r = front_ask(&f, &(struct request_spec){ .method = "POST",
                                              .path = "/v1/jobs",
                                              .body = order,
                                              .type = "application/json",
                                              .headers = { "Prefer: wait=soon" } });
    cr_expect_eq(r.status, 422);
    cr_expect_str_eq(reply_field(&r), "Prefer");
    reply_done(&r);
    r = front_ask(&f,
                  &(struct request_spec){ .method = "POST", .path = "/v1/jobs", .body = order, .type = "text/plain" });
    cr_expect_eq(r.status, 415);
    reply_done(&r);
    snprintf(body, sizeof(body), "{\"operation\":\"openai.images.generate\",\"params\":{\"prompt\":\"my key is %s\"}}",
             f.key);
    r = front_post(&f, "/v1/jobs", body);
    cr_expect_eq(r.status, 422, "a key inside the input is refused");
    cr_expect_str_eq(reply_field(&r), "body");
    reply_done(&r);
    cr_expect_eq(rows(&f), 0);
    front_close(&f);
}

Test(accept, without_credits_it_says_how_many_and_writes_nothing)
{
    struct front f;
    struct reply r;

    front_open(&f, NULL);
    r = front_post(&f, "/v1/jobs", order); /* never granted */
    cr_expect_eq(r.status, 402);
    cr_expect_str_eq(reply_text(&r, "code"), "insufficient_credits");
    cr_expect_gt(json_number_value(json_object_get(r.json, "credits_needed")), 0);
    cr_expect_eq(json_number_value(json_object_get(r.json, "credits_available")), 0);
    reply_done(&r);
    front_grant(&f, "default", "0.5");
    r = front_ask(&f, &(struct request_spec){ .method = "POST",
                                              .path = "/v1/jobs",
                                              .body = order,
                                              .type = "application/json",
                                              .headers = { "Idempotency-Key: later" } });
    cr_expect_eq(r.status, 402);
    cr_expect_eq(json_number_value(json_object_get(r.json, "credits_available")), 0.5);
    reply_done(&r);
    cr_expect_eq(rows(&f), 0, "a refused request keeps no key either");
    front_grant(&f, "default", "100");
    r = front_ask(&f, &(struct request_spec){ .method = "POST",
                                              .path = "/v1/jobs",
                                              .body = order,
                                              .type = "application/json",
                                              .headers = { "Idempotency-Key: later" } });
    cr_expect_eq(r.status, 202, "topped up, the next request with that key passes (M17)");
    reply_done(&r);
    front_close(&f);
}

Test(accept, a_data_uri_becomes_an_upload_and_a_refused_one_leaves_none)
{
    struct front f;
    struct reply r;
    char body[2048];
    /* 2x1 pixels are too few for every operation, so the limit has to answer; an object would be left behind */
    static const char tiny[] =
        "iVBORw0KGgoAAAANSUhEUgAAAAIAAAABCAIAAAB7QOjdAAAAD0lEQVR4nGP4z8DA8B8AB/8C/gAAAAAASUVORK5CYII=";

    front_open(&f, NULL);
    front_grant(&f, "default", "1000");
    snprintf(body, sizeof(body),
             "{\"operation\":\"stability.upscale.creative\",\"params\":{\"prompt\":\"x\",\"image\":"
             "\"data:image/png;base64,%s\"}}",
             tiny);
    r = front_post(&f, "/v1/jobs", body);
    cr_expect_eq(r.status, 422, "%s", r.body);
    cr_expect_str_eq(reply_field(&r), "params.image");
    reply_done(&r);
    cr_expect_eq(rows(&f), 0);
    front_close(&f);
}

/* 256x256 pixels */
static const char picture[] =
    "iVBORw0KGgoAAAANSUhEUgAAAQAAAAEACAIAAADTED8xAAAHlUlEQVR42u3WgxIohgFE0Y1tNDZu1Ni27aRpbNu2bdt2Y7SNbdu2"
    "k8lPvHkze/cbzuzcBIaCEWEMGA8mhalhRpgD5ofFYFlYBdaGDWBz2A52hX3gYDgKToQz4Hy4DK6FW+AueBAehWfgZXgLPoQv4Hv4"
    "DQaDYWEUGAsmhClgOpgF5oaFYElYAVaHf8PGsBXsCHvA/nAYHAunwNlwEVwJN8DtcC/8H56A5+E1eBc+ga/hJ/gThoQRYHQYFyaB"
    "qWAGmB3mg0VhGVgZ1oL1YTPYFnaBveEgOBJOgNPhPLgUroGb4U54AB6Bp+EleBM+gM/hO/gVBoVhYGT4B0wAk8O0MDPMBQvCErA8"
    "rAbrwEawJewAu8N+cCgcAyfDWXAhXAHXw21wD/wPHofn4FV4Bz6Gr+BH+AOGgOFhNBgHJubvTQ+zwbywCCwNK8GasB5sCtvAzrAX"
    "HAhHwPFwGpwLl8DVcBPcAffDw/AUvAhvwPvwGXwLv8AgMDSMBGPC+DAZTAMzwZywACwOy8Gq8C/YELaA7WE32BcOgaPhJDgTLoDL"
    "4Tq4Fe6G/8Jj8Cy8Am/DR/Al/AC/w+AwHIwKY8NEMCX8E2aFeWBhWApWhDVgXdgEtoadYE84AA6H4+BUOAcuhqvgRvgP3AcPwZPw"
    "ArwO78Gn8A38DFGkIgcukQP2kaNIRQ5UIgfwI0eRimyu1ihSkc3VGkUqsrlao0hFNldrFKnI5mqNIhXZXK1RpCKbqzWKVGRztUaR"
    "imyu1ihSkc3VGkUqsrlao0hFNldrFKnI5mqNIhXZXK1RpCKbqzWKVGRztUaRimyu1ihSkc3VGkUqsrlao0hFNldrFKnI5mqNIhXZ"
    "XK1RpCKbqzWKVGRztUaRimyu1ihSkc3VGkUqsrlao0hFNldrFKnI5mqNIhXZXK1RpCKbqzWKVGRztUaRimyu1ihSkc3VGkUqsrla"
    "o0hFNldrFKnI5mqNIhXZXK1RpCKbqzWKVGRztUaRimyu1ihSkc3VGkUqsrlao0hFNldrFKnI5mqNIhXZXK1RpCKbqzWKVGRztUaR"
    "imyu1ihSkc3VGkUqsrlao0hFNldrFKnI5mqNIhXZXK1RpCKbqzWKVGRztUaRimyu1ihSkc3VGkUqsrlao0hFNldrFKnI5mqNIhXZ"
    "XK1RpCKbqzWKVGRztUaRimyu1ihSkc3VGkUqsrlao0hFNldrFKnI5mqNIhXZXK1RpCKbqzWKVGRztUaRimyu1ihSkc3VGkUqsrla"
    "o0hFNldrFKnI5mqNIhXZXK1RpCKbqzWKVGRztUaRimyu1ihSkc3VGkUqsrlao0hFNldrFKnI5mqNIhXZXK1RpCKbqzWKVGRztUaR"
    "imyu1ihSkc3VGkUqsrlao0hFNldrFKnI5mqNIhXZXK1RpCKbqzWKVGRztUaRimyu1ihSkc3VGkUqsrlao0hFNldrFKnI5mqNIhXZ"
    "XK1RpCKbqzWKVGRztUaRimyu1ihSkc3VGkUqsrlao0hFNldrFKnI5mqNIhXZXK1RpCKbqzWKVGRztUaRimyu1ihSkc3VGkUqsrla"
    "o0hFNldrFKnI5mqNIhXZXK1RpCKbqzWKVGRztUaRimyu1ihSkc3VGkUqsrlao0hFNldrFKnI5mqNIhXZXK1RpCKbqzWKVGRztUaR"
    "imyu1ihSkc3VGkUqsrlao0hFNldrFKnI5mqNIhXZXK1RpCKbqzWKVGRztUaRimyu1ihSkc3VGkUqsrlao0hFNldrFKnI5mqNIhXZ"
    "XK1RpCKbqzWKVGRztUaRimyu1ihSkc3VGkUqsrlao0hFNldrFKnI5mqNIhXZXK1RpCKbqzWKVGRztUaRimyu1ihSkc3VGkUqsrla"
    "o0hFNldrFKnI5mqNIhXZXK1RpCKbqzWKVGRztUaRimyu1ihSkc3VGkUqsrlao0hFNldrFKnI5mqNIhXZXK1RpCKbqzWKVGRztUaR"
    "imyu1ihSkc3VGkUqsrlao0hFNldrFKnI5mqNIhXZXK1RpCKbqzWKVGRztUaRimyu1ihSkc3VGkUqsrlao0hFNldrFKnI5mqNIhXZ"
    "XK1RpCKbqzWKVGRztUaRimyu1ihSkc3VGkUqsrlao0hFNldrFKnI5mqNIhXZXK1RpCKbqzWKVGRztUaRimyu1ihSkc3VGkUqsrla"
    "o0hFNldrFKnI5mqNIhXZXK1RpCKbqzWKVGRztUaRimyu1ihSkc3VGkUqsrlao0hFNldrFKnI5mqNIhXZXK1RpCKbqzWKVGRztUaR"
    "imyu1ihSkc3VGkUqsrlao0hFNldrFKnI5mqNIhXZXK1RpCKbqzWKVGRztUaRimyu1ihSkc3VGkUqsrlao0hFNldrFKnI5mqNIhXZ"
    "XK1RpCKbqzWKVGRztUaRimyu1ihSkc3VGkUqsrlao0hFNldrFKnI5mqNIhXZXK1RpCKbqzWKVGRztUaRimyu1ihSkc3VGkUqsrla"
    "o0hFNldrFKnI5mqNIhXZXK1RpCKbqzWKVGRztUaRimyu1ihSkc3VGkUqsrlao0hFNldrFKnI5mqNIhXZXK1RpCKbqzWKVGRztUaR"
    "imyu1ihSkc3VGkUqsrlao0hFNldrFKnI5mr9C2yCjCKNRgTmAAAAAElFTkSuQmCC";

static int64_t objects(struct front *f)
{
    char command[160];
    int64_t n = -1;
    FILE *p;

    snprintf(command, sizeof(command), "find '%s/store/obj/upload' -type f 2>/dev/null | wc -l", f->dir);
    p = popen(command, "r");
    cr_assert_not_null(p);
    cr_expect_eq(fscanf(p, "%ld", &n), 1);
    pclose(p);
    return n;
}

Test(accept, an_input_given_inline_is_kept_for_an_accepted_job_and_for_no_other)
{
    struct front f;
    struct reply r;
    struct timespec nap = { 0, 20000000 };
    static char body[sizeof(picture) + 300];

    front_open(&f, NULL);
    snprintf(body, sizeof(body),
             "{\"operation\":\"stability.upscale.creative\",\"params\":{\"prompt\":\"x\",\"image\":"
             "\"data:image/png;base64,%s\"}}",
             picture);
    r = front_post(&f, "/v1/jobs", body);
    cr_assert_eq(r.status, 402, "%s", r.body);
    reply_done(&r);
    for (int i = 0; i < 250 && rows(&f) + objects(&f) > 0; i++)
        (void)nanosleep(&nap, NULL); /* it is taken away after the answer */
    cr_expect_eq(rows(&f), 0, "a row of a refused job's input");
    cr_expect_eq(objects(&f), 0, "a file of a refused job's input");
    front_grant(&f, "default", "1000");
    r = front_post(&f, "/v1/jobs", body);
    cr_assert_eq(r.status, 202, "%s", r.body);
    cr_expect(uuid_valid(json_text(json_object_get(r.json, "params"), "image")), "%s", r.body);
    reply_done(&r);
    cr_expect_eq(front_count(&f, "select count(*) from uploads u, jobs j where u.width = 256 and u.id::text = "
                                 "j.params->>'image' and u.object = j.inputs->'image'->0->>'object'"),
                 1);
    cr_expect_eq(objects(&f), 1);
    front_close(&f);
}

Test(accept, a_thousand_at_once_on_an_account_for_a_hundred_accept_exactly_a_hundred)
{
    enum { N = 1000, PAID = 100 };
    static long statuses[N];
    struct front f;
    char credits[32];
    int64_t price;

    front_open(&f, NULL);
    front_grant(&f, "probe", "1000");
    free(front_job(&f, "\"account\":\"probe\""));
    price = front_count(&f, "select hold_mc from jobs");
    credits_format(credits, sizeof(credits), price * PAID + price - 1);
    front_grant(&f, "default", credits);
    front_storm(
        &f, &(struct request_spec){ .method = "POST", .path = "/v1/jobs", .body = order, .type = "application/json" },
        N, 64, statuses, NULL);
    cr_expect_eq(count_of(statuses, N, 202), PAID, "%zu accepted", count_of(statuses, N, 202));
    cr_expect_eq(count_of(statuses, N, 402), N - PAID, "%zu refused", count_of(statuses, N, 402));
    cr_expect_eq(front_count(&f, "select held from accounts where name = 'default'"), price * PAID);
    cr_expect_eq(front_count(&f, "select count(*) from jobs where account = 'default'"), PAID);
    cr_expect_eq(front_count(&f, "select count(*) from kiln_audit()"), 0);
    front_close(&f);
}

Test(accept, five_hundred_parallel_twins_make_one_job)
{
    enum { N = 500 };
    static long statuses[N];
    static char *bodies[N];
    struct front f;
    char *first = NULL;

    front_open(&f, NULL);
    front_grant(&f, "default", "10000");
    front_storm(&f,
                &(struct request_spec){ .method = "POST",
                                        .path = "/v1/jobs",
                                        .body = order,
                                        .type = "application/json",
                                        .headers = { "Idempotency-Key: twin" } },
                N, 64, statuses, bodies);
    cr_expect_eq(count_of(statuses, N, 202), N);
    for (size_t i = 0; i < N; i++) {
        json_t *doc = json_loads(bodies[i], 0, NULL);
        const char *id = json_string_value(json_object_get(doc, "id"));

        if (first == NULL)
            first = strdup(id);
        cr_expect_str_eq(id, first);
        json_decref(doc);
        free(bodies[i]);
    }
    free(first);
    cr_expect_eq(front_count(&f, "select count(*) from jobs"), 1);
    cr_expect_eq(front_count(&f, "select count(*) from ledger where kind = 'hold'"), 1);
    front_close(&f);
}

Test(accept, a_key_replays_the_job_and_refuses_another_body)
{
    struct front f;
    struct reply first, again, other;
    struct request_spec spec = { .method = "POST",
                                 .path = "/v1/jobs",
                                 .body = order,
                                 .type = "application/json",
                                 .headers = { "Idempotency-Key: k 1" } };

    front_open(&f, NULL);
    front_grant(&f, "default", "100");
    first = front_ask(&f, &spec);
    again = front_ask(&f, &spec);
    cr_expect_eq(again.status, 202);
    cr_expect_str_eq(reply_header(&first, "Idempotent-Replayed"), "");
    cr_expect_str_eq(reply_header(&again, "Idempotent-Replayed"), "true");
    cr_expect(json_equal(again.json, first.json), "%s", again.body);
    spec.body = "{\"operation\":\"openai.images.generate\",\"params\":{\"prompt\":\"another\"}}";
    other = front_ask(&f, &spec);
    cr_expect_eq(other.status, 422);
    cr_expect_str_eq(reply_text(&other, "code"), "idempotency_mismatch");
    reply_done(&other);
    spec.key = f.other_key; /* keys belong to the app: this one is new there, and has no credits */
    other = front_ask(&f, &spec);
    cr_expect_eq(other.status, 402);
    reply_done(&first);
    reply_done(&again);
    reply_done(&other);
    cr_expect_eq(front_count(&f, "select count(*) from jobs"), 1);
    front_close(&f);
}

Test(accept, a_full_queue_is_429_with_retry_after)
{
    static const char *const env[] = { "KILN_MAX_QUEUED=2", NULL };
    struct front f;
    struct reply r;

    front_open(&f, env);
    front_grant(&f, "default", "100");
    free(front_job(&f, NULL));
    free(front_job(&f, NULL));
    r = front_post(&f, "/v1/jobs", order);
    cr_expect_eq(r.status, 429);
    cr_expect_str_eq(reply_text(&r, "code"), "queue_full");
    cr_expect_str_neq(reply_header(&r, "Retry-After"), "");
    reply_done(&r);
    cr_expect_eq(front_count(&f, "select count(*) from jobs"), 2);
    front_close(&f);
}

Test(accept, every_member_reaches_the_job)
{
    struct front f;
    struct reply r;
    char *id, path[80];

    front_open(&f, NULL);
    front_grant(&f, "user@example.org", "100");
    id = front_job(&f, "\"account\":\"user@example.org\",\"priority\":-7,\"deadline_s\":600,\"metadata\":{\"a\":[1]}");
    snprintf(path, sizeof(path), "/v1/jobs/%s", id);
    r = front_get(&f, path);
    cr_expect_str_eq(reply_text(&r, "account"), "user@example.org");
    cr_expect_not_null(strstr(r.body, "\"metadata\":{\"a\":[1]}"));
    cr_expect_eq(front_count(&f, "select priority from jobs"), -7);
    cr_expect_eq(front_count(&f, "select extract(epoch from deadline_at - created_at)::int from jobs"), 600);
    reply_done(&r);
    free(id);
    front_close(&f);
}

/* M14: nothing is known of the account yet, and all of them ask at the same moment. */
Test(accept, eight_first_requests_at_once_for_a_new_account_spend_nothing_that_is_not_there)
{
    static const char body[] =
        "{\"operation\":\"openai.images.generate\",\"params\":{\"prompt\":\"" FRONT_PROMPT "\"},\"account\":\"%s\"}";
    struct front f;
    long statuses[8];
    char text[256];
    struct request_spec spec = { .method = "POST", .path = "/v1/jobs", .body = text, .type = "application/json" };

    front_open(&f, NULL);
    snprintf(text, sizeof(text), body, "never-seen");
    front_storm(&f, &spec, 8, 8, statuses, NULL);
    cr_expect_eq(count_of(statuses, 8, 402), 8);
    cr_expect_eq(rows(&f), 0);
    for (int round = 0; round < 5; round++) {
        char name[16];

        snprintf(name, sizeof(name), "new-%d", round);
        snprintf(text, sizeof(text), body, name);
        front_grant(&f, name, "3.4"); /* one picture's price */
        front_storm(&f, &spec, 8, 8, statuses, NULL);
        cr_expect_eq(count_of(statuses, 8, 202), 1, "one of eight in round %d", round);
        cr_expect_eq(count_of(statuses, 8, 402), 7);
    }
    cr_expect_eq(front_count(&f, "select count(*) from accounts where held = 3400 and balance = 3400"), 5);
    front_close(&f);
}

/* M17: no dispatcher remembers that there was nothing. */
Test(accept, a_top_up_through_one_dispatcher_counts_for_the_next_request_at_every_other)
{
    struct front nodes[2];
    struct reply r;

    front_open(&nodes[0], NULL);
    nodes[1] = nodes[0];
    nodes[1].port = support_port();
    front_start(&nodes[1]);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 2; i++) {
            r = front_post(&nodes[i], "/v1/jobs", order);
            cr_expect_eq(r.status, 402, "node %d, round %d: %s", i, round, r.body);
            reply_done(&r);
        }
        front_grant(&nodes[round % 2], "default", "6.8"); /* two pictures: one at each */
        for (int i = 1; i >= 0; i--) {
            r = front_post(&nodes[i], "/v1/jobs", order);
            cr_expect_eq(r.status, 202, "node %d, round %d: %s", i, round, r.body);
            reply_done(&r);
        }
    }
    cr_expect_eq(front_count(&nodes[0], "select balance - held from accounts"), 0);
    front_stop(&nodes[1]);
    front_close(&nodes[0]);
}

Test(accept, an_estimate_is_what_a_job_holds)
{
    struct front f;
    struct reply r;
    int64_t mc;
    bool ok;
    char text[32];

    front_open(&f, NULL);
    r = front_post(&f, "/v1/estimate", order);
    cr_assert_eq(r.status, 200, "%s", r.body);
    cr_expect_str_eq(reply_text(&r, "provider"), "openai");
    cr_expect_str_neq(reply_text(&r, "price_version"), "");
    snprintf(text, sizeof(text), "%.3f", json_number_value(json_object_get(r.json, "credits")));
    mc = credits_parse_mc(text, &ok);
    reply_done(&r);
    front_grant(&f, "default", "100");
    free(front_job(&f, NULL));
    cr_expect_eq(front_count(&f, "select hold_mc from jobs"), mc);
    r = front_post(&f, "/v1/estimate", "{\"operation\":\"openai.images.generate\",\"params\":{},\"account\":\"a\"}");
    cr_expect_eq(r.status, 422);
    cr_expect_str_eq(reply_field(&r), "account");
    reply_done(&r);
    front_close(&f);
}
