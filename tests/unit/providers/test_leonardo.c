/* test_leonardo.c - the Leonardo adapter against every answer that its page describes, to a submit and to a poll. */
#include "tests/unit/providers/fixture.h"

#define REF                 "b7b0f3a2-6a3e-4d55-8a52-0f7d1c1f9e10"
#define OP                  "leonardo.generate"
#define PARAMS              "{\"prompt\":\"a teal enamel kettle on slate, north light\",\"num_images\":2}"
#define BOTH(outcome, code) outcome, code, outcome, code
#define BAD                 OUT_FAIL, ERR_BAD_RESPONSE, OUT_RETRY, ERR_BAD_RESPONSE
#define POLL(outcome, code) OUT_FAIL, ERR_BAD_RESPONSE, outcome, code

static const struct expectation rows[] = {
    { "submit", OUT_PENDING, ERR_OK, OUT_RETRY, ERR_BAD_RESPONSE, 0, 0 },
    { "submit_dollars", OUT_PENDING, ERR_OK, OUT_RETRY, ERR_BAD_RESPONSE, 0, 0 },
    { "submit_null", BAD, 0, 0 },
    { "submit_hostile_id", BAD, 0, 0 },
    { "pending", POLL(OUT_PENDING, ERR_OK), 0, 0 },
    { "complete", POLL(OUT_DONE, ERR_OK), 0, 2 },
    { "complete_some_missing", POLL(OUT_DONE, ERR_OK), 0, 1 },
    { "complete_empty", POLL(OUT_FAIL, ERR_BAD_RESPONSE), 0, 0 },
    { "complete_null", POLL(OUT_FAIL, ERR_BAD_RESPONSE), 0, 0 },
    { "failed", POLL(OUT_FAIL, ERR_PROVIDER_ERROR), 0, 0 },
    { "unknown_word", POLL(OUT_PENDING, ERR_OK), 0, 0 },
    { "unknown_id", POLL(OUT_FAIL, ERR_NOT_FOUND), 0, 0 },
    { "no_generation", BAD, 0, 0 },
    { "cut", BAD, 0, 0 },
    { "html_200", BAD, 0, 0 },
    { "broken_key", BOTH(OUT_FAIL, ERR_AUTH), 0, 0 },
    { "unauthorized", BOTH(OUT_FAIL, ERR_AUTH), 0, 0 },
    { "no_tokens", BOTH(OUT_FAIL, ERR_INSUFFICIENT_FUNDS), 0, 0 },
    { "moderation_400", BOTH(OUT_FAIL, ERR_CONTENT_FILTERED), 0, 0 },
    { "moderation_403", BOTH(OUT_FAIL, ERR_CONTENT_FILTERED), 0, 0 },
    { "wrong_type", BOTH(OUT_FAIL, ERR_INVALID_REQUEST), 0, 0 },
    { "unexpected_variable", BOTH(OUT_FAIL, ERR_INVALID_REQUEST), 0, 0 },
    { "missing_prompt", BOTH(OUT_FAIL, ERR_INVALID_REQUEST), 0, 0 },
    { "invalid_dimensions", BOTH(OUT_FAIL, ERR_INVALID_REQUEST), 0, 0 },
    { "limited", BOTH(OUT_RETRY, ERR_RATE_LIMITED), 3, 0 },
    { "service_error", BOTH(OUT_RETRY, ERR_PROVIDER_ERROR), 0, 0 },
    { "html_502", BOTH(OUT_RETRY, ERR_PROVIDER_UNAVAILABLE), 0, 0 },
    { "error_under_200", BOTH(OUT_FAIL, ERR_INSUFFICIENT_FUNDS), 0, 0 },
    { "odd_error_under_200", BAD, 0, 0 },
};

Test(leonardo, judges_every_recorded_answer_as_the_page_does)
{
    struct bench b;

    bench_open(&b, OP, PARAMS, NULL);
    expect_all(&b, "leonardo", rows, ARRAY_LEN(rows));
    cr_expect_eq(ARRAY_LEN(rows), fixture_count("leonardo"), "a fixture that no row of the table judges");
    bench_done(&b);
}

/* "Whether a job was created is unknown", says the page of a 500 that it does not explain. */
Test(leonardo, leaves_a_submit_open_after_a_500_without_a_reason_and_after_nothing_else)
{
    struct bench b;

    bench_open(&b, OP, PARAMS, NULL);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        bool is_it = !strcmp(rows[i].file, "service_error");
        struct fixture f;

        fixture_open(&f, "leonardo", rows[i].file);
        cr_expect_eq(b.provider->on_submit(b.arena, &b.spec, &f.answer).leaves_open, is_it, "%s", rows[i].file);
        cr_expect_not(b.provider->on_poll(b.arena, &b.spec, &f.answer).leaves_open, "%s", rows[i].file);
        fixture_done(&f);
    }
    bench_done(&b);
}

Test(leonardo, sends_num_images_and_public_though_nobody_gave_them)
{
    struct bench b;
    struct http_req req;

    bench_open(&b, OP, "{\"prompt\":\"a kettle\"}", NULL);
    req = b.provider->submit(b.arena, &b.spec);
    cr_assert_not_null(req.path);
    cr_expect_str_eq(req.path, "/generations");
    cr_expect_eq(json_integer_value(json_object_get(req.body, "num_images")), 1, "left out, one pays for four");
    cr_expect(json_is_false(json_object_get(req.body, "public")));
    cr_expect_str_eq(json_text(req.body, "modelId"), "b24e16ff-06e3-43eb-8d33-4416c2d75876");
    json_decref(req.body);
    bench_done(&b);
}

Test(leonardo, polls_a_uuid_and_nothing_else)
{
    static const char *const hostile[] = { "", "../me", "b7b0f3a2", REF "/x", REF "0" };
    struct bench b;
    struct fixture f;
    struct answer got;

    bench_open(&b, OP, PARAMS, NULL);
    fixture_open(&f, "leonardo", "submit");
    got = b.provider->on_submit(b.arena, &b.spec, &f.answer);
    cr_assert_str_eq(got.ref, REF);
    cr_expect_str_eq(got.request_id, "7e1");
    cr_expect_eq(got.cost_microusd, -1, "their credits have no fixed price");
    cr_expect_str_eq(b.provider->poll(b.arena, &b.spec, got.ref).path, "/generations/" REF);
    for (size_t i = 0; i < ARRAY_LEN(hostile); i++)
        cr_expect_null(b.provider->poll(b.arena, &b.spec, hostile[i]).path, "%s", hostile[i]);
    cr_expect_null(b.provider->poll(b.arena, &b.spec, NULL).path);
    fixture_done(&f);
    bench_done(&b);
}

Test(leonardo, books_a_cost_in_dollars)
{
    struct bench b;
    struct fixture f;

    bench_open(&b, OP, PARAMS, NULL);
    fixture_open(&f, "leonardo", "submit_dollars");
    cr_expect_eq(b.provider->on_submit(b.arena, &b.spec, &f.answer).cost_microusd, 4500);
    fixture_done(&f);
    bench_done(&b);
}

Test(leonardo, delivers_flagged_images_with_their_flag_and_seed)
{
    struct bench b;
    struct fixture f;
    struct answer got;

    bench_open(&b, OP, PARAMS, NULL);
    fixture_open(&f, "leonardo", "complete");
    got = b.provider->on_poll(b.arena, &b.spec, &f.answer);
    cr_assert_eq(got.output_count, 2);
    cr_expect_not(got.outputs[0].is_flagged);
    cr_expect(got.outputs[1].is_flagged);
    cr_expect_str_eq(got.outputs[0].url, "https://cdn.leonardo.ai/users/1a2b/generations/b7b0/Kettle_0.jpg");
    cr_expect_str_eq(got.outputs[1].seed, "465788672");
    fixture_done(&f);
    fixture_open(&f, "leonardo", "complete_some_missing");
    got = b.provider->on_poll(b.arena, &b.spec, &f.answer);
    cr_expect_str_eq(got.outputs[0].seed, "9999999998", "seeds exceed 32 bits and may come as text");
    fixture_done(&f);
    bench_done(&b);
}

Test(leonardo, a_word_nobody_documented_keeps_the_job_waiting)
{
    struct bench b;
    struct fixture f;
    struct answer got;

    bench_open(&b, OP, PARAMS, NULL);
    fixture_open(&f, "leonardo", "unknown_word");
    got = b.provider->on_poll(b.arena, &b.spec, &f.answer);
    cr_expect(got.is_unknown_word);
    cr_expect_null(strchr(got.message, '\x1b'));
    fixture_done(&f);
    fixture_open(&f, "leonardo", "pending");
    cr_expect_not(b.provider->on_poll(b.arena, &b.spec, &f.answer).is_unknown_word);
    fixture_done(&f);
    bench_done(&b);
}

Test(leonardo, only_what_the_provider_says_of_the_job_is_terminal)
{
    static const struct {
        const char *file;
        bool is_terminal;
    } table[] = { { "failed", true },   { "unknown_id", true },    { "complete_empty", true },
                  { "pending", false }, { "unauthorized", false }, { "limited", false },
                  { "cut", false } };
    struct bench b;

    bench_open(&b, OP, PARAMS, NULL);
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        struct fixture f;

        fixture_open(&f, "leonardo", table[i].file);
        cr_expect_eq(b.provider->on_poll(b.arena, &b.spec, &f.answer).is_terminal, table[i].is_terminal, "%s",
                     table[i].file);
        fixture_done(&f);
    }
    bench_done(&b);
}

/* --- variations */

static const struct expectation variations[] = {
    { "upscale", OUT_PENDING, ERR_OK, OUT_RETRY, ERR_BAD_RESPONSE, 0, 0 },
    { "nobg", OUT_PENDING, ERR_OK, OUT_RETRY, ERR_BAD_RESPONSE, 0, 0 },
    { "unzoom_other_key", OUT_PENDING, ERR_OK, OUT_RETRY, ERR_BAD_RESPONSE, 0, 0 },
    { "universal", OUT_PENDING, ERR_OK, OUT_RETRY, ERR_BAD_RESPONSE, 0, 0 },
    { "null_job", BAD, 0, 0 },
    { "hostile_id", BAD, 0, 0 },
    { "pending", POLL(OUT_PENDING, ERR_OK), 0, 0 },
    { "complete", POLL(OUT_DONE, ERR_OK), 0, 1 },
    { "complete_null", POLL(OUT_FAIL, ERR_BAD_RESPONSE), 0, 0 },
    { "failed", POLL(OUT_FAIL, ERR_PROVIDER_ERROR), 0, 0 },
    { "unknown_word", POLL(OUT_PENDING, ERR_OK), 0, 0 },
    { "empty_list", POLL(OUT_PENDING, ERR_OK), 0, 0 },
    { "null_list", POLL(OUT_FAIL, ERR_NOT_FOUND), 0, 0 },
    { "failed_to_find", BOTH(OUT_FAIL, ERR_INVALID_REQUEST), 0, 0 },
    { "service_error", BOTH(OUT_RETRY, ERR_PROVIDER_ERROR), 0, 0 },
};

Test(leonardo, judges_answers_of_variations_as_the_page_does)
{
    struct bench b;

    bench_open(&b, "leonardo.upscale", "{\"id\":\"" REF "\"}", NULL);
    expect_all(&b, "leonardo_variation", variations, ARRAY_LEN(variations));
    cr_expect_eq(ARRAY_LEN(variations), fixture_count("leonardo_variation"), "a fixture that no row judges");
    bench_done(&b);
}

Test(leonardo, each_variation_goes_to_its_own_path_with_its_own_members)
{
    static const struct {
        const char *params, *path, *body;
    } table[] = {
        { "{\"id\":\"" REF "\"}", "/variations/upscale", "{\"id\":\"" REF "\"}" },
        { "{\"id\":\"" REF "\",\"variation\":\"nobg\"}", "/variations/nobg",
          "{\"id\":\"" REF "\",\"isVariation\":false}" },
        { "{\"generatedImageId\":\"" REF "\",\"upscaleMultiplier\":1.5,\"upscalerStyle\":\"2D ART & ILLUSTRATION\"}",
          "/variations/universal-upscaler",
          "{\"generatedImageId\":\"" REF "\",\"upscaleMultiplier\":1.5,\"upscalerStyle\":\"2D ART & ILLUSTRATION\"}" },
    };

    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        struct bench b;
        struct http_req req;
        char *body;

        bench_open(&b, "leonardo.upscale", table[i].params, NULL);
        req = b.provider->submit(b.arena, &b.spec);
        body = json_print(req.body);
        cr_expect_str_eq(req.path, table[i].path);
        cr_expect_str_eq(body, table[i].body);
        cr_expect_str_eq(b.provider->poll(b.arena, &b.spec, REF).path, "/variations/" REF);
        free(body);
        json_decref(req.body);
        bench_done(&b);
    }
}

/* --- input files */

#define IMAGE_ID "0d5e1111-2222-4333-8444-555555555555"

static const struct job_input input = { .field = "init_image", .path = "/tmp/x", .mime = "image/png", .bytes = 9 };

static void upload_open(struct bench *b, json_t **kept)
{
    bench_open(b, OP, "{\"prompt\":\"a kettle\",\"init_image\":\"https://example.org/a.png\"}", NULL);
    b->spec.inputs = &input;
    b->spec.input_count = 1;
    *kept = json_object();
    b->spec.kept = *kept;
}

static struct answer step(struct bench *b, const char *name, json_t *kept)
{
    struct fixture f;
    struct answer got;

    fixture_open(&f, "leonardo_upload", name);
    got = b->provider->on_prepare(b->arena, &b->spec, &f.answer, kept);
    fixture_done(&f);
    return got;
}

Test(leonardo, brings_an_input_file_there_before_it_submits)
{
    struct http_req req = { .path = NULL };
    struct bench b;
    json_t *kept;

    upload_open(&b, &kept);
    cr_expect_null(b.provider->submit(b.arena, &b.spec).path, "its file is not there yet");
    cr_assert(b.provider->prepare(b.arena, &b.spec, &req));
    cr_expect_str_eq(req.path, "/init-image");
    cr_expect_str_eq(json_text(req.body, "extension"), "png");
    json_decref(req.body);
    cr_expect_eq(step(&b, "form", kept).outcome, OUT_DONE);
    cr_assert(b.provider->prepare(b.arena, &b.spec, &req));
    cr_expect_null(req.path, "a path would get the key");
    cr_expect_null(req.body);
    cr_expect_str_eq(req.url, "https://image-generation-bucket.s3.amazonaws.com/");
    cr_assert_eq(req.part_count, 6);
    cr_expect_str_eq(req.parts[0].name, "Content-Type");
    cr_expect_str_eq(req.parts[5].name, "file", "the file comes last");
    cr_expect_str_eq(req.parts[5].path, "/tmp/x");
    cr_expect_eq(step(&b, "stored", kept).outcome, OUT_DONE);
    cr_expect_not(b.provider->prepare(b.arena, &b.spec, &req));
    req = b.provider->submit(b.arena, &b.spec);
    cr_assert_not_null(req.path);
    cr_expect_str_eq(json_text(req.body, "init_image_id"), IMAGE_ID);
    cr_expect_null(json_object_get(req.body, "init_image"));
    json_decref(req.body);
    json_decref(kept);
    bench_done(&b);
}

Test(leonardo, judges_the_answers_to_uploads_and_asks_for_a_new_form_after_trouble)
{
    static const struct {
        const char *file;
        bool is_second;
        enum outcome outcome;
        enum err code;
    } table[] = {
        { "form", false, OUT_DONE, ERR_OK },
        { "form_null", false, OUT_RETRY, ERR_BAD_RESPONSE },
        { "form_odd_fields", false, OUT_RETRY, ERR_BAD_RESPONSE },
        { "form_plain_url", false, OUT_RETRY, ERR_BAD_RESPONSE },
        { "invalid_extension", false, OUT_FAIL, ERR_INVALID_REQUEST },
        { "broken_key", false, OUT_FAIL, ERR_AUTH },
        { "limited", false, OUT_RETRY, ERR_RATE_LIMITED },
        { "service_error", false, OUT_RETRY, ERR_PROVIDER_ERROR },
        { "stored", true, OUT_DONE, ERR_OK },
        { "refused", true, OUT_RETRY, ERR_PROVIDER_ERROR },
        { "too_large", true, OUT_FAIL, ERR_INVALID_REQUEST },
        { "slow_down", true, OUT_RETRY, ERR_PROVIDER_UNAVAILABLE },
    };

    cr_expect_eq(ARRAY_LEN(table), fixture_count("leonardo_upload"), "a fixture that no row judges");
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        struct http_req req = { .path = NULL };
        struct answer got;
        struct bench b;
        json_t *kept;

        upload_open(&b, &kept);
        if (table[i].is_second)
            (void)step(&b, "form", kept);
        got = step(&b, table[i].file, kept);
        cr_expect_eq(got.outcome, table[i].outcome, "%s: %d", table[i].file, got.outcome);
        cr_expect_eq(got.code, table[i].code, "%s: %s", table[i].file, err_word(got.code));
        if (got.outcome != OUT_DONE) {
            cr_assert(b.provider->prepare(b.arena, &b.spec, &req));
            cr_expect_str_eq(req.path, "/init-image", "%s", table[i].file);
            json_decref(req.body);
        }
        json_decref(kept);
        bench_done(&b);
    }
}
