/* test_google.c - the Google adapter against every answer that its page describes, Gemini's and Imagen's. */
#include "tests/unit/providers/fixture.h"

#define GEMINI                                    "google.gemini_image"
#define IMAGEN                                    "google.imagen"
#define SUBMIT_ONLY(outcome, code, wait, outputs) outcome, code, OUT_DONE, ERR_OK, wait, outputs
#define FILTERED(file)                                                                                                 \
    {                                                                                                                  \
        file, SUBMIT_ONLY(OUT_FAIL, ERR_CONTENT_FILTERED, 0, 0)                                                        \
    }
#define UNLUCKY(file)                                                                                                  \
    {                                                                                                                  \
        file, SUBMIT_ONLY(OUT_FAIL, ERR_PROVIDER_ERROR, 0, 0)                                                          \
    }

static const struct expectation rows[] = {
    { "picture", SUBMIT_ONLY(OUT_DONE, ERR_OK, 0, 1) },
    { "picture_first", SUBMIT_ONLY(OUT_DONE, ERR_OK, 0, 1) },
    { "picture_odd_finish", SUBMIT_ONLY(OUT_DONE, ERR_OK, 0, 1) },
    { "picture_blocked_too", SUBMIT_ONLY(OUT_DONE, ERR_OK, 0, 1) },
    { "two_pictures", SUBMIT_ONLY(OUT_DONE, ERR_OK, 0, 2) },
    { "draft", SUBMIT_ONLY(OUT_DONE, ERR_OK, 0, 1) },
    { "snake", SUBMIT_ONLY(OUT_DONE, ERR_OK, 0, 1) },
    { "only_draft", SUBMIT_ONLY(OUT_FAIL, ERR_BAD_RESPONSE, 0, 0) },
    FILTERED("blocked_safety"),
    FILTERED("blocked_other"),
    FILTERED("blocked_blocklist"),
    FILTERED("blocked_prohibited_content"),
    FILTERED("blocked_image_safety"),
    FILTERED("blocked_model_armor"),
    FILTERED("blocked_jailbreak"),
    FILTERED("finish_safety"),
    FILTERED("finish_image_safety"),
    FILTERED("finish_prohibited_content"),
    FILTERED("finish_image_prohibited_content"),
    FILTERED("finish_blocklist"),
    FILTERED("finish_spii"),
    FILTERED("finish_recitation"),
    FILTERED("finish_image_recitation"),
    UNLUCKY("finish_no_image"),
    UNLUCKY("finish_image_other"),
    UNLUCKY("finish_other"),
    UNLUCKY("finish_language"),
    UNLUCKY("finish_max_tokens"),
    UNLUCKY("finish_malformed_function_call"),
    UNLUCKY("finish_unexpected_tool_call"),
    UNLUCKY("finish_too_many_tool_calls"),
    { "only_text", SUBMIT_ONLY(OUT_FAIL, ERR_BAD_RESPONSE, 0, 0) },
    { "only_text_unknown", SUBMIT_ONLY(OUT_FAIL, ERR_BAD_RESPONSE, 0, 0) },
    { "no_candidates", SUBMIT_ONLY(OUT_FAIL, ERR_BAD_RESPONSE, 0, 0) },
    { "nothing", SUBMIT_ONLY(OUT_FAIL, ERR_BAD_RESPONSE, 0, 0) },
    { "broken_base64", SUBMIT_ONLY(OUT_FAIL, ERR_BAD_RESPONSE, 0, 0) },
    { "cut", SUBMIT_ONLY(OUT_FAIL, ERR_BAD_RESPONSE, 0, 0) },
    { "html_200", SUBMIT_ONLY(OUT_FAIL, ERR_BAD_RESPONSE, 0, 0) },
    { "region", SUBMIT_ONLY(OUT_FAIL, ERR_REGION_BLOCKED, 0, 0) },
    { "country", SUBMIT_ONLY(OUT_FAIL, ERR_REGION_BLOCKED, 0, 0) },
    { "bad_key", SUBMIT_ONLY(OUT_FAIL, ERR_AUTH, 0, 0) },
    { "bad_key_by_reason", SUBMIT_ONLY(OUT_FAIL, ERR_AUTH, 0, 0) },
    { "expired_key", SUBMIT_ONLY(OUT_FAIL, ERR_AUTH, 0, 0) },
    { "no_key", SUBMIT_ONLY(OUT_FAIL, ERR_AUTH, 0, 0) },
    { "denied", SUBMIT_ONLY(OUT_FAIL, ERR_AUTH, 0, 0) },
    { "invalid", SUBMIT_ONLY(OUT_FAIL, ERR_INVALID_REQUEST, 0, 0) },
    { "wrapped", SUBMIT_ONLY(OUT_FAIL, ERR_INVALID_REQUEST, 0, 0) },
    { "no_model", SUBMIT_ONLY(OUT_FAIL, ERR_NOT_FOUND, 0, 0) },
    { "per_minute", SUBMIT_ONLY(OUT_RETRY, ERR_RATE_LIMITED, 38, 0) },
    { "per_minute_fraction", SUBMIT_ONLY(OUT_RETRY, ERR_RATE_LIMITED, 36, 0) },
    { "per_minute_in_words", SUBMIT_ONLY(OUT_RETRY, ERR_RATE_LIMITED, 36, 0) },
    { "per_minute_header", SUBMIT_ONLY(OUT_RETRY, ERR_RATE_LIMITED, 4, 0) },
    { "no_violations", SUBMIT_ONLY(OUT_RETRY, ERR_RATE_LIMITED, 0, 0) },
    { "limit_not_zero", SUBMIT_ONLY(OUT_RETRY, ERR_RATE_LIMITED, 30, 0) },
    { "per_day", SUBMIT_ONLY(OUT_FAIL, ERR_INSUFFICIENT_FUNDS, 0, 0) },
    { "per_day_long", SUBMIT_ONLY(OUT_FAIL, ERR_INSUFFICIENT_FUNDS, 0, 0) },
    { "limit_zero", SUBMIT_ONLY(OUT_FAIL, ERR_INSUFFICIENT_FUNDS, 0, 0) },
    { "depleted", SUBMIT_ONLY(OUT_FAIL, ERR_INSUFFICIENT_FUNDS, 0, 0) },
    { "cancelled", SUBMIT_ONLY(OUT_RETRY, ERR_PROVIDER_ERROR, 0, 0) },
    { "internal", SUBMIT_ONLY(OUT_RETRY, ERR_PROVIDER_ERROR, 0, 0) },
    { "overloaded", SUBMIT_ONLY(OUT_RETRY, ERR_PROVIDER_UNAVAILABLE, 0, 0) },
    { "error_under_200", SUBMIT_ONLY(OUT_RETRY, ERR_PROVIDER_UNAVAILABLE, 0, 0) },
    { "deadline", SUBMIT_ONLY(OUT_RETRY, ERR_TIMEOUT, 0, 0) },
    { "gateway", SUBMIT_ONLY(OUT_RETRY, ERR_PROVIDER_UNAVAILABLE, 0, 0) },
};

static const struct expectation imagen_rows[] = {
    { "all", SUBMIT_ONLY(OUT_DONE, ERR_OK, 0, 4) },
    { "some", SUBMIT_ONLY(OUT_DONE, ERR_OK, 0, 1) },
    { "fewer", SUBMIT_ONLY(OUT_DONE, ERR_OK, 0, 1) },
    { "snake", SUBMIT_ONLY(OUT_DONE, ERR_OK, 0, 1) },
    FILTERED("all_filtered"),
    FILTERED("empty"),
    FILTERED("missing"),
    FILTERED("null"),
    { "broken", SUBMIT_ONLY(OUT_FAIL, ERR_BAD_RESPONSE, 0, 0) },
    { "cut", SUBMIT_ONLY(OUT_FAIL, ERR_BAD_RESPONSE, 0, 0) },
    { "retired", SUBMIT_ONLY(OUT_FAIL, ERR_NOT_FOUND, 0, 0) },
};

Test(google, judges_every_recorded_answer_as_the_page_does)
{
    struct bench b;

    bench_open(&b, GEMINI, "{\"prompt\":\"a fox\"}", NULL);
    expect_all(&b, "google", rows, ARRAY_LEN(rows));
    cr_expect_eq(ARRAY_LEN(rows), fixture_count("google"), "a fixture that no row of the table judges");
    bench_done(&b);
}

Test(google, an_imagen_answer_without_images_is_filtered_and_a_shorter_one_is_fine)
{
    struct bench b;

    bench_open(&b, IMAGEN, "{\"prompt\":\"a bakery\",\"sampleCount\":4}", NULL);
    expect_all(&b, "google_imagen", imagen_rows, ARRAY_LEN(imagen_rows));
    cr_expect_eq(ARRAY_LEN(imagen_rows), fixture_count("google_imagen"), "a fixture that no row of the table judges");
    bench_done(&b);
}

Test(google, sends_the_prompt_first_and_then_the_pictures)
{
    struct bench b;
    struct http_req req;
    struct job_input images[] = { { .field = "image", .mime = "image/png", .text = "AAAA" },
                                  { .field = "image", .mime = "image/jpeg", .text = "BBBB" } };
    const json_t *content, *parts, *config;

    bench_open(
        &b, GEMINI,
        "{\"prompt\":\"a fox\",\"aspectRatio\":\"4:3\",\"seed\":5,\"image\":[\"https://x.org/a\","
        "\"https://x.org/b\"],\"safetySettings\":[{\"category\":\"HARM_CATEGORY_HARASSMENT\",\"threshold\":\"OFF\"}]}",
        NULL);
    b.spec.inputs = images;
    b.spec.input_count = ARRAY_LEN(images);
    req = b.provider->submit(b.arena, &b.spec);
    cr_assert_not_null(req.path);
    cr_expect_str_eq(req.path, "/models/gemini-2.5-flash-image:generateContent");
    cr_expect_eq(json_object_size(req.body), 3, "generationConfig, safetySettings, contents");
    content = json_array_get(json_object_get(req.body, "contents"), 0);
    cr_expect_str_eq(json_text(content, "role"), "user");
    parts = json_object_get(content, "parts");
    cr_assert_eq(json_array_size(parts), 3);
    cr_expect_str_eq(json_text(json_array_get(parts, 0), "text"), "a fox");
    cr_expect_str_eq(json_text(json_object_get(json_array_get(parts, 2), "inlineData"), "mimeType"), "image/jpeg");
    cr_expect_str_eq(json_text(json_object_get(json_array_get(parts, 2), "inlineData"), "data"), "BBBB");
    config = json_object_get(req.body, "generationConfig");
    cr_expect_str_eq(json_text(json_object_get(config, "imageConfig"), "aspectRatio"), "4:3");
    cr_expect_eq(json_array_size(json_object_get(config, "responseModalities")), 2);
    cr_expect_eq(json_integer_value(json_object_get(config, "seed")), 5);
    json_decref(req.body);
    images[1].text = NULL;
    req = b.provider->submit(b.arena, &b.spec);
    cr_expect_null(req.path, "a file that cannot be read is no request");
    bench_done(&b);
}

Test(google, sends_imagen_its_instances_and_parameters)
{
    struct bench b;
    struct http_req req;

    bench_open(&b, IMAGEN, "{\"prompt\":\"a bakery\",\"sampleCount\":2,\"aspectRatio\":\"16:9\"}", NULL);
    req = b.provider->submit(b.arena, &b.spec);
    cr_assert_not_null(req.path);
    cr_expect_str_eq(req.path, "/models/imagen-4.0-generate-001:predict");
    cr_expect_str_eq(json_text(json_array_get(json_object_get(req.body, "instances"), 0), "prompt"), "a bakery");
    cr_expect_eq(json_integer_value(json_object_get(json_object_get(req.body, "parameters"), "sampleCount")), 2);
    cr_expect_eq(json_object_size(req.body), 2);
    json_decref(req.body);
    bench_done(&b);
}

Test(google, books_the_tokens_and_keeps_what_a_refusal_says)
{
    struct bench b;
    struct fixture f;
    struct answer got;

    bench_open(&b, GEMINI, "{\"prompt\":\"a fox\"}", NULL);
    fixture_open(&f, "google", "picture");
    got = b.provider->on_submit(b.arena, &b.spec, &f.answer);
    cr_expect_eq(got.cost_microusd, 1290 * 30, "got %lld", (long long)got.cost_microusd);
    cr_expect_str_eq(got.request_id, "q1k2aJmZB8y0");
    cr_expect_null(got.ref);
    fixture_done(&f);
    fixture_open(&f, "google", "only_text");
    got = b.provider->on_submit(b.arena, &b.spec, &f.answer);
    cr_expect_str_eq(got.message, "I can't help with that.");
    fixture_done(&f);
    fixture_open(&f, "google", "blocked_safety");
    got = b.provider->on_submit(b.arena, &b.spec, &f.answer);
    cr_expect_str_eq(got.message, "no image: SAFETY");
    fixture_done(&f);
    fixture_open(&f, "google", "wrapped");
    got = b.provider->on_submit(b.arena, &b.spec, &f.answer);
    cr_expect_str_eq(got.message, "Request contains an invalid argument.");
    fixture_done(&f);
    bench_done(&b);
}
