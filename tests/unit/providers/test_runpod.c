/* test_runpod.c - the RunPod adapter against every answer that its page describes, to a submit and to a poll; and the
 * requests that the catalogue makes of a job's parameters. */
#include "tests/unit/providers/fixture.h"

#define REF                 "60902e6c-08a1-426e-9cb9-9eaec90f5e2b-u1"
#define OP                  "runpod.run"
#define PARAMS              "{\"endpoint_id\":\"abc123xyz\",\"prompt\":\"a walled garden at dusk\",\"num_images\":2}"
#define BOTH(outcome, code) outcome, code, outcome, code
#define BAD                 OUT_FAIL, ERR_BAD_RESPONSE, OUT_RETRY, ERR_BAD_RESPONSE
#define DONE(count)         BOTH(OUT_DONE, ERR_OK), 0, count
#define FAILS(code)         BOTH(OUT_FAIL, code), 0, 0
#define RETRY(code, wait)   BOTH(OUT_RETRY, code), wait, 0
#define PENDING             BOTH(OUT_PENDING, ERR_OK), 0, 0

static const struct expectation rows[] = {
    { "queued", PENDING },
    { "queued_number_id", PENDING },
    { "no_id", OUT_FAIL, ERR_BAD_RESPONSE, OUT_PENDING, ERR_OK, 0, 0 },
    { "hostile_id", OUT_FAIL, ERR_BAD_RESPONSE, OUT_PENDING, ERR_OK, 0, 0 },
    { "in_progress", PENDING },
    { "in_progress_with_output", PENDING },
    { "running", PENDING },
    { "unknown_word", PENDING },
    { "completed_sdxl", DONE(1) },
    { "completed_two", DONE(2) },
    { "completed_image_url", DONE(1) },
    { "completed_image", DONE(1) },
    { "completed_comfy", DONE(1) },
    { "completed_objects", DONE(2) },
    { "completed_text", DONE(1) },
    { "completed_list", DONE(2) },
    { "completed_some_null", DONE(1) },
    { "completed_error_beside_image", DONE(1) },
    { "completed_true", FAILS(ERR_BAD_RESPONSE) },
    { "completed_number", FAILS(ERR_BAD_RESPONSE) },
    { "completed_absent", FAILS(ERR_BAD_RESPONSE) },
    { "completed_no_images", FAILS(ERR_BAD_RESPONSE) },
    { "completed_error", FAILS(ERR_PROVIDER_ERROR) },
    { "completed_error_should_be", FAILS(ERR_PROVIDER_ERROR) },
    { "completed_errors", FAILS(ERR_PROVIDER_ERROR) },
    { "completed_status_failed", FAILS(ERR_PROVIDER_ERROR) },
    { "completed_status_error", FAILS(ERR_PROVIDER_ERROR) },
    { "completed_nsfw", FAILS(ERR_CONTENT_FILTERED) },
    { "completed_safety", FAILS(ERR_CONTENT_FILTERED) },
    { "failed_json_text", FAILS(ERR_PROVIDER_ERROR) },
    { "failed_plain", FAILS(ERR_PROVIDER_ERROR) },
    { "failed_memory", FAILS(ERR_PROVIDER_ERROR) },
    { "failed_timeout", FAILS(ERR_TIMEOUT) },
    { "failed_type", FAILS(ERR_INVALID_REQUEST) },
    { "failed_type_as_text", FAILS(ERR_INVALID_REQUEST) },
    { "failed_option", FAILS(ERR_INVALID_REQUEST) },
    { "failed_required", FAILS(ERR_INVALID_REQUEST) },
    { "failed_constraints", FAILS(ERR_INVALID_REQUEST) },
    { "failed_nsfw", FAILS(ERR_CONTENT_FILTERED) },
    { "failed_without_words", FAILS(ERR_PROVIDER_ERROR) },
    { "canceled", FAILS(ERR_PROVIDER_ERROR) },
    { "timed_out", FAILS(ERR_TIMEOUT) },
    { "no_status", BAD, 0, 0 },
    { "list_200", BAD, 0, 0 },
    { "cut", BAD, 0, 0 },
    { "empty_200", BAD, 0, 0 },
    { "html_200", BAD, 0, 0 },
    { "bad_request", FAILS(ERR_INVALID_REQUEST) },
    { "unauthorized_empty", FAILS(ERR_AUTH) },
    { "unauthorized_text", FAILS(ERR_AUTH) },
    { "no_balance", FAILS(ERR_INSUFFICIENT_FUNDS) },
    { "not_found", FAILS(ERR_NOT_FOUND) },
    { "request_timeout", RETRY(ERR_TIMEOUT, 0) },
    { "limited", RETRY(ERR_RATE_LIMITED, 0) },
    { "limited_hint", RETRY(ERR_RATE_LIMITED, 7) },
    { "crash", RETRY(ERR_PROVIDER_ERROR, 0) },
    { "html_502", RETRY(ERR_PROVIDER_UNAVAILABLE, 0) },
    { "html_503", RETRY(ERR_PROVIDER_UNAVAILABLE, 0) },
    { "gateway_timeout", RETRY(ERR_TIMEOUT, 0) },
    { "redirect", BAD, 0, 0 },
};

Test(runpod, judges_every_recorded_answer_as_the_page_does)
{
    struct bench b;

    bench_open(&b, OP, PARAMS, NULL);
    expect_all(&b, "runpod", rows, ARRAY_LEN(rows));
    cr_expect_eq(ARRAY_LEN(rows), fixture_count("runpod"), "a fixture that no row of the table judges");
    bench_done(&b);
}

Test(runpod, the_endpoint_is_in_the_path_and_floats_stay_floats)
{
    static const struct {
        const char *params, *path, *body;
    } table[] = {
        { "{\"endpoint_id\":\"abc\",\"prompt\":\"x\",\"guidance_scale\":7}", "/abc/run",
          "{\"input\":{\"guidance_scale\":7.0,\"prompt\":\"x\"},\"policy\":{\"executionTimeout\":600000,\"ttl\":900000}}" },
        { PARAMS, "/abc123xyz/run",
          "{\"input\":{\"prompt\":\"a walled garden at dusk\",\"num_images\":2},\"policy\":{\"executionTimeout\":600000,"
          "\"ttl\":900000}}" },
        { "{\"endpoint_id\":\"../x\",\"input\":{\"workflow\":{\"3\":{}}},\"ttl\":60000,\"lowPriority\":true}",
          "/..%2Fx/run",
          "{\"input\":{\"workflow\":{\"3\":{}}},\"policy\":{\"executionTimeout\":600000,\"ttl\":60000,\"lowPriority\":true}}" },
    };

    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        json_t *body = json_parse(table[i].body, strlen(table[i].body), NULL);
        struct bench b;
        struct http_req req;

        bench_open(&b, OP, table[i].params, NULL);
        req = b.provider->submit(b.arena, &b.spec);
        cr_assert_not_null(req.path, "%s", table[i].params);
        cr_expect_str_eq(req.path, table[i].path);
        cr_expect(json_equal(req.body, body), "%s", table[i].params);
        json_decref(req.body);
        json_decref(body);
        bench_done(&b);
    }
}

Test(runpod, polls_and_cancels_at_the_jobs_endpoint)
{
    static const char *const hostile[] = { "", "../x", "a/b", "a?b" };
    struct bench b;
    struct http_req req;

    bench_open(&b, OP, PARAMS, NULL);
    cr_expect_str_eq(b.provider->poll(b.arena, &b.spec, REF).path, "/abc123xyz/status/" REF);
    req = b.provider->cancel(b.arena, &b.spec, REF);
    cr_expect_str_eq(req.path, "/abc123xyz/cancel/" REF);
    cr_expect_str_eq(req.method, "POST");
    for (size_t i = 0; i < ARRAY_LEN(hostile); i++) {
        cr_expect_null(b.provider->poll(b.arena, &b.spec, hostile[i]).path, "%s", hostile[i]);
        cr_expect_null(b.provider->cancel(b.arena, &b.spec, hostile[i]).path, "%s", hostile[i]);
    }
    bench_done(&b);
}

Test(runpod, parameters_outside_the_page_are_refused_in_words)
{
    static const struct {
        const char *params, *field, *message;
    } table[] = {
        { "{\"prompt\":\"x\"}", "params.endpoint_id", "is required" },
        { "{\"endpoint_id\":\"a\"}", "params", "needs at least one of prompt, image_url, input" },
        { "{\"endpoint_id\":\"a\",\"input\":{\"num_images\":2}}", "params.input.num_images",
          "is a parameter of its own: params.num_images" },
        { "{\"endpoint_id\":\"a\",\"prompt\":\"x\",\"num_images\":3}", "params.num_images",
          "must be between 1 and 2, got 3" },
        { "{\"endpoint_id\":\"a\",\"prompt\":\"x\",\"executionTimeout\":4999}", "params.executionTimeout",
          "must be between 5000 and 900000, got 4999" },
        { "{\"endpoint_id\":\"a\",\"prompt\":\"x\",\"scheduler\":\"EULER\"}", "params.scheduler",
          "must be one of PNDM, KLMS, DDIM, K_EULER, K_EULER_ANCESTRAL, DPMSolverMultistep, DPMSolverSinglestep, got "
          "\"EULER\"" },
    };
    struct bench b;

    bench_open(&b, OP, PARAMS, NULL);
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        json_t *given = json_parse(table[i].params, strlen(table[i].params), NULL);
        struct catalog_faults faults;

        cr_assert_null(catalog_validate(b.op, given, &faults), "took %s", table[i].params);
        cr_expect_str_eq(faults.items[0].field, table[i].field, "%s", table[i].params);
        cr_expect_str_eq(faults.items[0].message, table[i].message, "%s", table[i].params);
        json_decref(given);
    }
    bench_done(&b);
}

Test(runpod, tells_what_the_worker_said_and_never_its_traceback_or_host)
{
    static const struct {
        const char *file, *message;
    } table[] = {
        { "failed_json_text", "CUDA error: device-side assert triggered" },
        { "failed_type_as_text", "prompt should be <class 'str'> type, not <class 'int'>." },
        { "completed_errors", "first; second" },
        { "completed_status_failed", "the handler gave up" },
        { "failed_without_words", "the worker says that it failed, without a reason" },
    };
    struct bench b;
    struct fixture f;
    struct answer got;

    bench_open(&b, OP, PARAMS, NULL);
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        fixture_open(&f, "runpod", table[i].file);
        got = b.provider->on_poll(b.arena, &b.spec, &f.answer);
        cr_expect_str_eq(got.message, table[i].message, "%s", table[i].file);
        cr_expect(got.is_terminal, "%s", table[i].file);
        fixture_done(&f);
    }
    fixture_open(&f, "runpod", "completed_two");
    got = b.provider->on_poll(b.arena, &b.spec, &f.answer);
    cr_expect_str_eq(got.outputs[1].seed, "42");
    fixture_done(&f);
    fixture_open(&f, "runpod", "completed_image_url");
    got = b.provider->on_poll(b.arena, &b.spec, &f.answer);
    cr_expect_str_eq(got.outputs[0].url, "https://bucket.s3.example.org/sdxl/0.png?X-Amz-Signature=a%2Bb");
    fixture_done(&f);
    fixture_open(&f, "runpod", "unknown_word");
    got = b.provider->on_poll(b.arena, &b.spec, &f.answer);
    cr_expect(got.is_unknown_word);
    cr_expect_null(strchr(got.message, '\x1b'));
    fixture_done(&f);
    bench_done(&b);
}
