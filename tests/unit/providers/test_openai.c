/* test_openai.c - the OpenAI adapter against every answer that its page describes. */
#include "tests/unit/providers/fixture.h"

#define OP                                        "openai.images.generate"
#define SUBMIT_ONLY(outcome, code, wait, outputs) outcome, code, OUT_DONE, ERR_OK, wait, outputs

static const struct expectation rows[] = {
    { "gpt_image", SUBMIT_ONLY(OUT_DONE, ERR_OK, 0, 1) },
    { "dalle_url", SUBMIT_ONLY(OUT_DONE, ERR_OK, 0, 1) },
    { "url_http", SUBMIT_ONLY(OUT_FAIL, ERR_BAD_RESPONSE, 0, 0) },
    { "url_other_scheme", SUBMIT_ONLY(OUT_FAIL, ERR_BAD_RESPONSE, 0, 0) },
    { "partial", SUBMIT_ONLY(OUT_DONE, ERR_OK, 0, 2) },
    { "success_with_steer", SUBMIT_ONLY(OUT_DONE, ERR_OK, 0, 1) },
    { "no_data", SUBMIT_ONLY(OUT_FAIL, ERR_BAD_RESPONSE, 0, 0) },
    { "empty_data", SUBMIT_ONLY(OUT_FAIL, ERR_BAD_RESPONSE, 0, 0) },
    { "null_data", SUBMIT_ONLY(OUT_FAIL, ERR_BAD_RESPONSE, 0, 0) },
    { "cut", SUBMIT_ONLY(OUT_FAIL, ERR_BAD_RESPONSE, 0, 0) },
    { "html_200", SUBMIT_ONLY(OUT_FAIL, ERR_BAD_RESPONSE, 0, 0) },
    { "empty_200", SUBMIT_ONLY(OUT_FAIL, ERR_BAD_RESPONSE, 0, 0) },
    { "array_200", SUBMIT_ONLY(OUT_FAIL, ERR_BAD_RESPONSE, 0, 0) },
    { "unknown_parameter", SUBMIT_ONLY(OUT_FAIL, ERR_INVALID_REQUEST, 0, 0) },
    { "wrong_media_type", SUBMIT_ONLY(OUT_FAIL, ERR_INVALID_REQUEST, 0, 0) },
    { "content_policy", SUBMIT_ONLY(OUT_FAIL, ERR_CONTENT_FILTERED, 0, 0) },
    { "moderation_blocked", SUBMIT_ONLY(OUT_FAIL, ERR_CONTENT_FILTERED, 0, 0) },
    { "billing_hard_limit", SUBMIT_ONLY(OUT_FAIL, ERR_INSUFFICIENT_FUNDS, 0, 0) },
    { "insufficient_quota", SUBMIT_ONLY(OUT_FAIL, ERR_INSUFFICIENT_FUNDS, 0, 0) },
    { "quota_by_type", SUBMIT_ONLY(OUT_FAIL, ERR_INSUFFICIENT_FUNDS, 0, 0) },
    { "invalid_api_key", SUBMIT_ONLY(OUT_FAIL, ERR_AUTH, 0, 0) },
    { "unverified", SUBMIT_ONLY(OUT_FAIL, ERR_AUTH, 0, 0) },
    { "model_not_found", SUBMIT_ONLY(OUT_FAIL, ERR_NOT_FOUND, 0, 0) },
    { "conflict", SUBMIT_ONLY(OUT_RETRY, ERR_PROVIDER_ERROR, 0, 0) },
    { "rate_limit_s", SUBMIT_ONLY(OUT_RETRY, ERR_RATE_LIMITED, 12, 0) },
    { "rate_limit_ms", SUBMIT_ONLY(OUT_RETRY, ERR_RATE_LIMITED, 1, 0) },
    { "rate_limit_m", SUBMIT_ONLY(OUT_RETRY, ERR_RATE_LIMITED, 62, 0) },
    { "rate_limit_header", SUBMIT_ONLY(OUT_RETRY, ERR_RATE_LIMITED, 2, 0) },
    { "rate_limit_zero", SUBMIT_ONLY(OUT_FAIL, ERR_RATE_LIMITED, 0, 0) },
    { "rate_limit_zero_used", SUBMIT_ONLY(OUT_FAIL, ERR_RATE_LIMITED, 0, 0) },
    { "cloudflare_ban", SUBMIT_ONLY(OUT_RETRY, ERR_RATE_LIMITED, 54749, 0) },
    { "server_error", SUBMIT_ONLY(OUT_RETRY, ERR_PROVIDER_ERROR, 0, 0) },
    { "server_error_no_retry", SUBMIT_ONLY(OUT_FAIL, ERR_PROVIDER_ERROR, 0, 0) },
    { "told_to_retry", SUBMIT_ONLY(OUT_RETRY, ERR_INVALID_REQUEST, 3, 0) },
    { "bad_gateway", SUBMIT_ONLY(OUT_RETRY, ERR_PROVIDER_UNAVAILABLE, 0, 0) },
    { "overloaded", SUBMIT_ONLY(OUT_RETRY, ERR_PROVIDER_UNAVAILABLE, 0, 0) },
    { "gateway_timeout", SUBMIT_ONLY(OUT_RETRY, ERR_TIMEOUT, 0, 0) },
    { "error_under_200", SUBMIT_ONLY(OUT_FAIL, ERR_CONTENT_FILTERED, 0, 0) },
    { "odd_error_under_200", SUBMIT_ONLY(OUT_FAIL, ERR_BAD_RESPONSE, 0, 0) },
    { "edit_image", SUBMIT_ONLY(OUT_DONE, ERR_OK, 0, 1) },
    { "variation_urls", SUBMIT_ONLY(OUT_DONE, ERR_OK, 0, 2) },
    { "null_members", SUBMIT_ONLY(OUT_DONE, ERR_OK, 0, 1) },
    { "revised_nul", SUBMIT_ONLY(OUT_DONE, ERR_OK, 0, 1) },
    { "any_size", SUBMIT_ONLY(OUT_DONE, ERR_OK, 0, 1) },
    { "invalid_value", SUBMIT_ONLY(OUT_FAIL, ERR_INVALID_REQUEST, 0, 0) },
    { "missing_parameter", SUBMIT_ONLY(OUT_FAIL, ERR_INVALID_REQUEST, 0, 0) },
    { "image_without_alpha", SUBMIT_ONLY(OUT_FAIL, ERR_INVALID_REQUEST, 0, 0) },
    { "image_not_png", SUBMIT_ONLY(OUT_FAIL, ERR_INVALID_REQUEST, 0, 0) },
    { "user_error_unknown", SUBMIT_ONLY(OUT_FAIL, ERR_INVALID_REQUEST, 0, 0) },
    { "moderation_details", SUBMIT_ONLY(OUT_FAIL, ERR_CONTENT_FILTERED, 0, 0) },
    { "billing_by_request_error", SUBMIT_ONLY(OUT_FAIL, ERR_INSUFFICIENT_FUNDS, 0, 0) },
    { "billing_by_quota", SUBMIT_ONLY(OUT_FAIL, ERR_INSUFFICIENT_FUNDS, 0, 0) },
    { "country", SUBMIT_ONLY(OUT_FAIL, ERR_AUTH, 0, 0) },
    { "model_not_found_400", SUBMIT_ONLY(OUT_FAIL, ERR_NOT_FOUND, 0, 0) }, /* its status is UNCONFIRMED */
    { "rate_limit_tokens", SUBMIT_ONLY(OUT_RETRY, ERR_RATE_LIMITED, 7, 0) },
    { "rate_limit_input_images", SUBMIT_ONLY(OUT_RETRY, ERR_RATE_LIMITED, 62, 0) },
    { "rate_limit_no_code", SUBMIT_ONLY(OUT_RETRY, ERR_RATE_LIMITED, 0, 0) },
    { "rate_limit_told_not_to", SUBMIT_ONLY(OUT_FAIL, ERR_RATE_LIMITED, 0, 0) },
    { "server_error_null_code", SUBMIT_ONLY(OUT_RETRY, ERR_PROVIDER_ERROR, 0, 0) },
    { "server_error_by_code", SUBMIT_ONLY(OUT_RETRY, ERR_PROVIDER_ERROR, 0, 0) },
    { "empty_500", SUBMIT_ONLY(OUT_RETRY, ERR_PROVIDER_ERROR, 0, 0) },
    { "cloudflare_522", SUBMIT_ONLY(OUT_RETRY, ERR_PROVIDER_UNAVAILABLE, 0, 0) },
    { "cloudflare_524", SUBMIT_ONLY(OUT_RETRY, ERR_TIMEOUT, 0, 0) },
    { "json_503", SUBMIT_ONLY(OUT_RETRY, ERR_PROVIDER_UNAVAILABLE, 0, 0) },
    { "expired_url", SUBMIT_ONLY(OUT_FAIL, ERR_AUTH, 0, 0) }, /* as a submit; as a download see below */
};

Test(openai, judges_every_recorded_answer_as_the_page_does)
{
    struct bench b;

    bench_open(&b, OP, "{\"prompt\":\"a lighthouse\"}", NULL);
    expect_all(&b, "openai", rows, ARRAY_LEN(rows));
    cr_expect_eq(ARRAY_LEN(rows), fixture_count("openai"), "a fixture that no row of the table judges");
    bench_done(&b);
}

Test(openai, judges_every_status_without_a_readable_body)
{
    static const struct {
        long first, last;
        enum outcome outcome;
        enum err code;
    } table[] = {
        { 300, 399, OUT_FAIL, ERR_BAD_RESPONSE },
        { 400, 400, OUT_FAIL, ERR_INVALID_REQUEST },
        { 401, 401, OUT_FAIL, ERR_AUTH },
        { 402, 402, OUT_FAIL, ERR_INSUFFICIENT_FUNDS },
        { 403, 403, OUT_FAIL, ERR_AUTH },
        { 404, 404, OUT_FAIL, ERR_NOT_FOUND },
        { 405, 407, OUT_FAIL, ERR_INVALID_REQUEST },
        { 408, 408, OUT_RETRY, ERR_TIMEOUT },
        { 409, 409, OUT_RETRY, ERR_PROVIDER_ERROR },
        { 410, 410, OUT_FAIL, ERR_NOT_FOUND },
        { 411, 428, OUT_FAIL, ERR_INVALID_REQUEST },
        { 429, 429, OUT_RETRY, ERR_RATE_LIMITED },
        { 430, 499, OUT_FAIL, ERR_INVALID_REQUEST },
        { 500, 501, OUT_RETRY, ERR_PROVIDER_ERROR },
        { 502, 503, OUT_RETRY, ERR_PROVIDER_UNAVAILABLE },
        { 504, 504, OUT_RETRY, ERR_TIMEOUT },
        { 505, 519, OUT_RETRY, ERR_PROVIDER_ERROR },
        { 520, 523, OUT_RETRY, ERR_PROVIDER_UNAVAILABLE },
        { 524, 524, OUT_RETRY, ERR_TIMEOUT },
        { 525, 599, OUT_RETRY, ERR_PROVIDER_ERROR },
    };
    struct bench b;

    bench_open(&b, OP, "{\"prompt\":\"a lighthouse\"}", NULL);
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        for (long status = table[i].first; status <= table[i].last; status++) {
            struct http_answer in = { .status = status, .data = "<html>", .len = 6 };
            struct answer got = b.provider->on_submit(b.arena, &b.spec, &in);

            cr_expect_eq(got.outcome, table[i].outcome, "%ld: outcome %d", status, got.outcome);
            cr_expect_eq(got.code, table[i].code, "%ld: %s", status, err_word(got.code));
            cr_expect_not_null(got.message);
        }
    }
    bench_done(&b);
}

Test(openai, sends_model_quality_size_and_n_though_nobody_gave_them)
{
    struct bench b;
    struct http_req req;

    bench_open(&b, OP, "{\"prompt\":\"a lighthouse\"}", NULL);
    req = b.provider->submit(b.arena, &b.spec);
    cr_assert_not_null(req.path);
    cr_expect_str_eq(req.method, "POST");
    cr_expect_str_eq(req.path, "/images/generations");
    cr_expect_null(req.parts);
    cr_expect_str_eq(json_text(req.body, "model"), "gpt-image-1.5");
    cr_expect_str_eq(json_text(req.body, "quality"), "medium");
    cr_expect_str_eq(json_text(req.body, "size"), "1024x1024");
    cr_expect_eq(json_integer_value(json_object_get(req.body, "n")), 1);
    cr_expect_eq(json_object_size(req.body), 5);
    json_decref(req.body);
    bench_done(&b);
}

Test(openai, sends_dalle_nothing_that_it_does_not_know)
{
    struct bench b;
    struct http_req req;

    bench_open(&b, OP, "{\"prompt\":\"a lighthouse\",\"model\":\"dall-e-2\"}", NULL);
    req = b.provider->submit(b.arena, &b.spec);
    cr_expect_eq(json_object_size(req.body), 4, "prompt, model, n, size");
    cr_expect_null(json_object_get(req.body, "quality"));
    json_decref(req.body);
    bench_done(&b);
}

Test(openai, books_the_usage_as_cost)
{
    struct bench b;
    struct fixture f;
    struct answer got;

    bench_open(&b, OP, "{\"prompt\":\"a\",\"size\":\"1024x1536\"}", NULL);
    fixture_open(&f, "openai", "gpt_image");
    got = b.provider->on_submit(b.arena, &b.spec, &f.answer);
    cr_expect_eq(got.cost_microusd, 17 * 5 + 1584 * 32, "got %lld", (long long)got.cost_microusd);
    cr_expect_not_null(got.usage);
    cr_expect_str_eq(got.request_id, "req_4c1d9a77e0b84f1fb2a6");
    cr_expect_null(got.ref, "nobody can poll it");
    cr_expect_eq(got.percent, -1);
    fixture_done(&f);
    bench_done(&b);
}

Test(openai, hands_the_signed_url_out_byte_for_byte_and_the_revised_prompt_cleaned)
{
    struct bench b;
    struct fixture f;
    struct answer got;

    bench_open(&b, OP, "{\"prompt\":\"a\",\"model\":\"dall-e-3\"}", NULL);
    fixture_open(&f, "openai", "dalle_url");
    got = b.provider->on_submit(b.arena, &b.spec, &f.answer);
    cr_assert_eq(got.output_count, 1);
    cr_expect_str_eq(got.outputs[0].url, json_text(json_array_get(json_object_get(f.answer.json, "data"), 0), "url"));
    cr_expect_null(strchr(got.outputs[0].revised_prompt, '\a'));
    cr_expect_not_null(strstr(got.outputs[0].revised_prompt, "\xf0\x9f\x8c\x85"));
    cr_expect_eq(got.cost_microusd, -1);
    fixture_done(&f);
    bench_done(&b);
}

Test(openai, takes_http_urls_only_from_a_base_url_that_is_http_itself)
{
    struct bench b;
    struct fixture f;
    struct answer got;

    bench_open(&b, OP, "{\"prompt\":\"a\"}", "http://127.0.0.1:8090/openai/v1/");
    cr_expect_str_eq(b.op->provider->base_url, "http://127.0.0.1:8090/openai/v1");
    fixture_open(&f, "openai", "url_http");
    got = b.provider->on_submit(b.arena, &b.spec, &f.answer);
    cr_expect_eq(got.outcome, OUT_DONE);
    cr_expect_eq(got.output_count, 1);
    fixture_done(&f);
    fixture_open(&f, "openai", "url_other_scheme");
    got = b.provider->on_submit(b.arena, &b.spec, &f.answer);
    cr_expect_eq(got.code, ERR_BAD_RESPONSE);
    fixture_done(&f);
    bench_done(&b);
}

Test(openai, an_expired_download_is_gone)
{
    static const long gone[] = { 403, 404, 410 };
    struct bench b;
    struct fixture f;

    bench_open(&b, OP, "{\"prompt\":\"a\"}", NULL);
    fixture_open(&f, "openai", "expired_url");
    for (size_t i = 0; i < ARRAY_LEN(gone); i++) {
        struct answer got;

        f.answer.status = gone[i];
        got = b.provider->on_download(b.arena, &b.spec, &f.answer);
        cr_expect_eq(got.outcome, OUT_FAIL);
        cr_expect_eq(got.code, ERR_NOT_FOUND);
    }
    fixture_done(&f);
    bench_done(&b);
}

/* Every operation has the same answers, so the same judge. */
Test(openai, edits_and_variations_are_judged_alike)
{
    static const struct {
        const char *operation, *params;
    } table[] = {
        { "openai.images.edit", "{\"prompt\":\"a\",\"image\":[\"https://x.org/a.png\"]}" },
        { "openai.images.variation", "{\"image\":\"https://x.org/a.png\"}" },
    };

    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        struct bench b;

        bench_open(&b, table[i].operation, table[i].params, NULL);
        expect_all(&b, "openai", rows, ARRAY_LEN(rows));
        bench_done(&b);
    }
}

Test(openai, books_the_pictures_that_went_in_as_cost_too)
{
    struct bench b;
    struct fixture f;
    struct answer got;

    bench_open(&b, "openai.images.edit", "{\"prompt\":\"a\",\"image\":[\"https://x.org/a.png\"]}", NULL);
    fixture_open(&f, "openai", "edit_image");
    got = b.provider->on_submit(b.arena, &b.spec, &f.answer);
    cr_expect_eq(got.cost_microusd, 17 * 5 + 323 * 8 + 1056 * 32, "got %lld", (long long)got.cost_microusd);
    fixture_done(&f);
    bench_done(&b);
}

static const struct job_input chair = { "image", "/tmp/a", "image/png", 5, NULL },
                              cloth = { "image", "/tmp/b", "image/jpeg", 6, NULL },
                              hole = { "mask", "/tmp/c", "image/png", 7, NULL };

static const struct http_part *part_of(const struct http_req *req, const char *name, size_t skip)
{
    for (size_t i = 0; i < req->part_count; i++)
        if (strcmp(req->parts[i].name, name) == 0 && skip-- == 0)
            return &req->parts[i];
    return NULL;
}

Test(openai, one_picture_goes_as_image_and_several_as_image_brackets)
{
    const struct job_input inputs[] = { chair, cloth, hole };
    struct bench b;
    struct http_req req;

    bench_open(&b, "openai.images.edit",
               "{\"prompt\":\"a\",\"model\":\"gpt-image-1\",\"image\":[\"https://x.org/a\",\"https://x.org/b\"],"
               "\"mask\":\"https://x.org/c\",\"input_fidelity\":\"high\"}",
               NULL);
    b.spec.inputs = inputs;
    b.spec.input_count = 3;
    req = b.provider->submit(b.arena, &b.spec);
    cr_assert_str_eq(req.path, "/images/edits");
    cr_expect_eq(req.part_count, 9, "%zu parts: model, prompt, n, size, quality, input_fidelity and three files",
                 req.part_count);
    cr_expect_str_eq(part_of(&req, "image[]", 0)->mime, "image/png");
    cr_expect_str_eq(part_of(&req, "image[]", 1)->mime, "image/jpeg", "its own type: octet-stream is a 400");
    cr_expect_str_eq(part_of(&req, "mask", 0)->path, "/tmp/c");
    cr_expect_str_eq(part_of(&req, "input_fidelity", 0)->value, "high");
    cr_expect_null(part_of(&req, "image", 0));
    json_decref(req.body);
    bench_done(&b);
    bench_open(&b, "openai.images.edit", "{\"prompt\":\"a\",\"model\":\"dall-e-2\",\"image\":[\"https://x.org/a\"]}",
               NULL);
    b.spec.inputs = inputs;
    b.spec.input_count = 1;
    req = b.provider->submit(b.arena, &b.spec);
    cr_expect_not_null(part_of(&req, "image", 0), "dall-e-2 does not understand image[]");
    cr_expect_null(part_of(&req, "image[]", 0));
    cr_expect_null(part_of(&req, "quality", 0));
    json_decref(req.body);
    bench_done(&b);
}

Test(openai, moderation_of_an_edit_needs_the_json_form)
{
    struct job_input inputs[] = { chair, cloth, hole };
    struct bench b;
    struct http_req req;
    const json_t *images;

    inputs[0].text = "data:image/png;base64,QQ==";
    inputs[1].text = "data:image/jpeg;base64,Qg==";
    inputs[2].text = "data:image/png;base64,Qw==";
    bench_open(&b, "openai.images.edit",
               "{\"prompt\":\"a\",\"image\":[\"https://x.org/a\",\"https://x.org/b\"],\"mask\":\"https://x.org/c\","
               "\"moderation\":\"low\"}",
               NULL);
    b.spec.inputs = inputs;
    b.spec.input_count = 3;
    req = b.provider->submit(b.arena, &b.spec);
    cr_assert_not_null(req.path);
    cr_expect_eq(req.part_count, 0);
    images = json_object_get(req.body, "images");
    cr_assert_eq(json_array_size(images), 2);
    cr_expect_str_eq(json_text(json_array_get(images, 1), "image_url"), "data:image/jpeg;base64,Qg==");
    cr_expect_str_eq(json_text(json_object_get(req.body, "mask"), "image_url"), "data:image/png;base64,Qw==");
    cr_expect_str_eq(json_text(req.body, "moderation"), "low");
    cr_expect_null(json_object_get(req.body, "image"));
    cr_expect_null(json_object_get(req.body, "image[]"));
    json_decref(req.body);
    bench_done(&b);
}
