/* test_replicate.c - the Replicate adapter against every answer that its page describes, to a submit and to a poll; and
 * the requests that the catalogue makes of a job's parameters. */
#include "tests/unit/providers/fixture.h"

#define REF                 "k3x9tq2w5drm80cn4a7v1b6yse"
#define OP                  "replicate.predict"
#define SCHNELL             "black-forest-labs/flux-schnell"
#define HASH                "5c7d5dc6dd8bf75c1acaa8565735e7986bc5b66206b55cca93cb72c9bf15ccaa"
#define PARAMS              "{\"model\":\"" SCHNELL "\",\"prompt\":\"paper lanterns over a canal\",\"num_outputs\":2}"
#define BOTH(outcome, code) outcome, code, outcome, code
#define BAD                 OUT_FAIL, ERR_BAD_RESPONSE, OUT_RETRY, ERR_BAD_RESPONSE
#define FAILS(code)         BOTH(OUT_FAIL, code), 0, 0

static const struct expectation rows[] = {
    { "starting", BOTH(OUT_PENDING, ERR_OK), 0, 0 },
    { "starting_202", BOTH(OUT_PENDING, ERR_OK), 0, 0 },
    { "processing", BOTH(OUT_PENDING, ERR_OK), 0, 0 },
    { "processing_with_output", BOTH(OUT_PENDING, ERR_OK), 0, 0 },
    { "succeeded", BOTH(OUT_DONE, ERR_OK), 0, 2 },
    { "succeeded_one_text", BOTH(OUT_DONE, ERR_OK), 0, 1 },
    { "succeeded_object", BOTH(OUT_DONE, ERR_OK), 0, 2 },
    { "succeeded_nested", BOTH(OUT_DONE, ERR_OK), 0, 2 },
    { "succeeded_data_uri", BOTH(OUT_DONE, ERR_OK), 0, 1 },
    { "succeeded_some_null", BOTH(OUT_DONE, ERR_OK), 0, 1 },
    { "succeeded_empty", FAILS(ERR_BAD_RESPONSE) },
    { "succeeded_null", FAILS(ERR_BAD_RESPONSE) },
    { "succeeded_no_files", FAILS(ERR_BAD_RESPONSE) },
    { "succeeded_empty_nsfw", FAILS(ERR_CONTENT_FILTERED) },
    { "data_removed", FAILS(ERR_NOT_FOUND) },
    { "failed_nsfw", FAILS(ERR_CONTENT_FILTERED) },
    { "failed_sensitive", FAILS(ERR_CONTENT_FILTERED) },
    { "failed_e005", FAILS(ERR_CONTENT_FILTERED) },
    { "failed_e003", FAILS(ERR_PROVIDER_UNAVAILABLE) },
    { "failed_high_demand", FAILS(ERR_PROVIDER_UNAVAILABLE) },
    { "failed_e6716", FAILS(ERR_PROVIDER_UNAVAILABLE) },
    { "failed_e8765", FAILS(ERR_PROVIDER_UNAVAILABLE) },
    { "failed_e8367", FAILS(ERR_PROVIDER_UNAVAILABLE) },
    { "failed_e1000", FAILS(ERR_PROVIDER_UNAVAILABLE) },
    { "failed_e1001", FAILS(ERR_PROVIDER_ERROR) },
    { "failed_cuda", FAILS(ERR_PROVIDER_ERROR) },
    { "failed_other", FAILS(ERR_PROVIDER_ERROR) },
    { "failed_without_words", FAILS(ERR_PROVIDER_ERROR) },
    { "canceled", FAILS(ERR_PROVIDER_ERROR) },
    { "canceled_by_deadline", FAILS(ERR_TIMEOUT) },
    { "aborted", FAILS(ERR_TIMEOUT) },
    { "unknown_word", BOTH(OUT_PENDING, ERR_OK), 0, 0 },
    { "no_id", OUT_FAIL, ERR_BAD_RESPONSE, OUT_PENDING, ERR_OK, 0, 0 },
    { "hostile_id", OUT_FAIL, ERR_BAD_RESPONSE, OUT_PENDING, ERR_OK, 0, 0 },
    { "number_id", BOTH(OUT_PENDING, ERR_OK), 0, 0 },
    { "no_status", BAD, 0, 0 },
    { "list_200", BAD, 0, 0 },
    { "cut", BAD, 0, 0 },
    { "empty_200", BAD, 0, 0 },
    { "html_200", BAD, 0, 0 },
    { "unauthenticated", FAILS(ERR_AUTH) },
    { "no_credit", FAILS(ERR_INSUFFICIENT_FUNDS) },
    { "not_found_detail", FAILS(ERR_NOT_FOUND) },
    { "not_found_title", FAILS(ERR_NOT_FOUND) },
    { "invalid_input", FAILS(ERR_INVALID_REQUEST) },
    { "invalid_version", FAILS(ERR_INVALID_REQUEST) },
    { "throttled", BOTH(OUT_RETRY, ERR_RATE_LIMITED), 10, 0 },
    { "throttled_text", BOTH(OUT_RETRY, ERR_RATE_LIMITED), 30, 0 },
    { "throttled_older", BOTH(OUT_RETRY, ERR_RATE_LIMITED), 1, 0 },
    { "throttled_header", BOTH(OUT_RETRY, ERR_RATE_LIMITED), 4, 0 },
    { "throttled_no_hint", BOTH(OUT_RETRY, ERR_RATE_LIMITED), 0, 0 },
    { "server_error", BOTH(OUT_RETRY, ERR_PROVIDER_ERROR), 0, 0 },
    { "html_502", BOTH(OUT_RETRY, ERR_PROVIDER_UNAVAILABLE), 0, 0 },
    { "unavailable", BOTH(OUT_RETRY, ERR_PROVIDER_UNAVAILABLE), 0, 0 },
    { "gateway_timeout", BOTH(OUT_RETRY, ERR_TIMEOUT), 0, 0 },
    { "redirect", BAD, 0, 0 },
};

Test(replicate, judges_every_recorded_answer_as_the_page_does)
{
    struct bench b;

    bench_open(&b, OP, PARAMS, NULL);
    expect_all(&b, "replicate", rows, ARRAY_LEN(rows));
    cr_expect_eq(ARRAY_LEN(rows), fixture_count("replicate"), "a fixture that no row of the table judges");
    bench_done(&b);
}

Test(replicate, a_model_a_version_and_a_deployment_have_paths_of_their_own_and_closed_bodies)
{
    static const struct {
        const char *params, *path, *body;
    } table[] = {
        { PARAMS, "/models/" SCHNELL "/predictions",
          "{\"input\":{\"prompt\":\"paper lanterns over a canal\",\"num_outputs\":2}}" },
        { "{\"model\":\"a b/c\",\"input\":{\"text\":\"x\",\"n\":1.5}}", "/models/a%20b/c/predictions",
          "{\"input\":{\"text\":\"x\",\"n\":1.5}}" },
        { "{\"deployment\":\"me/mine\",\"prompt\":\"x\",\"megapixels\":\"0.25\"}", "/deployments/me/mine/predictions",
          "{\"input\":{\"prompt\":\"x\",\"megapixels\":\"0.25\"}}" },
        { "{\"deployment\":\"me/mine\",\"prompt\":\"x\",\"num_outputs\":3}", "/deployments/me/mine/predictions",
          "{\"input\":{\"prompt\":\"x\",\"num_outputs\":3}}" },
        { "{\"version\":\"" HASH "\",\"input\":{\"prompt\":\"y\",\"w\":1},\"prompt\":\"x\"}", "/predictions",
          "{\"version\":\"" HASH "\",\"input\":{\"prompt\":\"x\",\"w\":1}}" },
    };

    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        struct bench b;
        struct http_req req;
        json_t *body = json_parse(table[i].body, strlen(table[i].body), NULL);

        bench_open(&b, OP, table[i].params, NULL);
        req = b.provider->submit(b.arena, &b.spec);
        cr_assert_not_null(req.path, "%s", table[i].params);
        cr_expect_str_eq(req.path, table[i].path);
        cr_expect(json_equal(req.body, body), "%s", table[i].params);
        json_decref(body);
        json_decref(req.body);
        bench_done(&b);
    }
}

Test(replicate, a_name_cannot_leave_its_path)
{
    static const struct {
        const char *params, *path;
    } table[] = {
        { "{\"model\":\"../account\"}", "/models/%2E%2E/account/predictions" },
        { "{\"deployment\":\"a/b?c#d\"}", "/deployments/a/b%3Fc%23d/predictions" },
        { "{\"model\":\"a//b\"}", NULL },
    };

    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        struct bench b;
        struct http_req req;

        bench_open(&b, OP, table[i].params, NULL);
        req = b.provider->submit(b.arena, &b.spec);
        if (table[i].path != NULL)
            cr_expect_str_eq(req.path, table[i].path, "%s", req.path);
        else
            cr_expect_null(req.path, "%s", req.path);
        json_decref(req.body);
        bench_done(&b);
    }
}

Test(replicate, parameters_outside_the_page_are_refused_in_words)
{
    static const struct {
        const char *params, *field, *message;
    } table[] = {
        { "{\"prompt\":\"x\"}", "params", "needs at least one of model, version, deployment" },
        { "{\"model\":\"a/b\",\"version\":\"" HASH "\"}", "params.version", "is not taken with model" },
        { "{\"model\":\"" SCHNELL "\",\"prompt\":\"x\",\"num_inference_steps\":5}", "params.num_inference_steps",
          "must be at most 4 with model \"" SCHNELL "\", got 5" },
        { "{\"model\":\"" SCHNELL "\",\"prompt\":\"x\",\"guidance\":3}", "params.guidance",
          "is not taken with model \"" SCHNELL "\"" },
        { "{\"model\":\"a/b\",\"input\":{\"num_outputs\":4}}", "params.input.num_outputs",
          "is a parameter of its own: params.num_outputs" },
        { "{\"model\":\"a/b\",\"megapixels\":1}", "params.megapixels", "must be a text, got 1" },
        { "{\"model\":\"a/b\",\"num_outputs\":5}", "params.num_outputs", "must be between 1 and 4, got 5" },
        { "{\"model\":\"a/b\",\"prompt_strength\":0.5}", "params.image", "is required with prompt_strength" },
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

Test(replicate, polls_and_cancels_by_a_segment_and_nothing_else)
{
    static const char *const hostile[] = { "", "../x", "a/b", "a b", "k3x9?x" };
    struct bench b;
    struct http_req req;

    bench_open(&b, OP, PARAMS, NULL);
    cr_expect_str_eq(b.provider->poll(b.arena, &b.spec, REF).path, "/predictions/" REF);
    req = b.provider->cancel(b.arena, &b.spec, REF);
    cr_expect_str_eq(req.path, "/predictions/" REF "/cancel");
    cr_expect_str_eq(req.method, "POST");
    for (size_t i = 0; i < ARRAY_LEN(hostile); i++) {
        cr_expect_null(b.provider->poll(b.arena, &b.spec, hostile[i]).path, "%s", hostile[i]);
        cr_expect_null(b.provider->cancel(b.arena, &b.spec, hostile[i]).path, "%s", hostile[i]);
    }
    bench_done(&b);
}

Test(replicate, what_the_prediction_says_of_itself_is_terminal_and_a_refused_poll_is_not)
{
    static const struct {
        const char *file;
        bool is_terminal;
    } table[] = { { "failed_other", true },
                  { "canceled", true },
                  { "aborted", true },
                  { "data_removed", true },
                  { "succeeded_empty", true },
                  { "not_found_detail", true },
                  { "unauthenticated", false },
                  { "invalid_version", false },
                  { "throttled", false },
                  { "processing", false },
                  { "cut", false } };
    struct bench b;

    bench_open(&b, OP, PARAMS, NULL);
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        struct fixture f;

        fixture_open(&f, "replicate", table[i].file);
        cr_expect_eq(b.provider->on_poll(b.arena, &b.spec, &f.answer).is_terminal, table[i].is_terminal, "%s",
                     table[i].file);
        fixture_done(&f);
    }
    bench_done(&b);
}

Test(replicate, hands_on_urls_byte_for_byte_with_the_seed_of_the_logs)
{
    struct bench b;
    struct fixture f;
    struct answer got;

    bench_open(&b, OP, PARAMS, NULL);
    fixture_open(&f, "replicate", "succeeded");
    got = b.provider->on_poll(b.arena, &b.spec, &f.answer);
    cr_expect_str_eq(got.outputs[1].url, "https://replicate.delivery/xezq/AbC/out-1.png");
    cr_expect_str_eq(got.outputs[1].seed, "51203");
    fixture_done(&f);
    fixture_open(&f, "replicate", "number_id");
    cr_expect_str_eq(b.provider->on_submit(b.arena, &b.spec, &f.answer).ref, "81723");
    fixture_done(&f);
    fixture_open(&f, "replicate", "unknown_word");
    got = b.provider->on_poll(b.arena, &b.spec, &f.answer);
    cr_expect(got.is_unknown_word);
    cr_expect_null(strchr(got.message, '\x1b'));
    fixture_done(&f);
    fixture_open(&f, "replicate", "not_found_title");
    cr_expect_str_eq(b.provider->on_poll(b.arena, &b.spec, &f.answer).message, "Not found");
    fixture_done(&f);
    bench_done(&b);
}
