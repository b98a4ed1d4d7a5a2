/* test_volcengine.c - the Volcengine Ark adapter against every answer that its page describes. */
#include "tests/unit/providers/fixture.h"

#define OP                                        "volcengine.images.generate"
#define SEEDEDIT                                  "doubao-seededit-3-0-i2i-250628"
#define SUBMIT_ONLY(outcome, code, wait, outputs) outcome, code, OUT_DONE, ERR_OK, wait, outputs

static const struct expectation rows[] = {
    { "url", SUBMIT_ONLY(OUT_DONE, ERR_OK, 0, 1) },
    { "url_none_revised", SUBMIT_ONLY(OUT_DONE, ERR_OK, 0, 1) },
    { "base64", SUBMIT_ONLY(OUT_DONE, ERR_OK, 0, 1) },
    { "group", SUBMIT_ONLY(OUT_DONE, ERR_OK, 0, 3) },
    { "group_mixed", SUBMIT_ONLY(OUT_DONE, ERR_OK, 0, 2) },
    { "group_and_error", SUBMIT_ONLY(OUT_DONE, ERR_OK, 0, 1) },
    { "group_all_filtered", SUBMIT_ONLY(OUT_FAIL, ERR_CONTENT_FILTERED, 0, 0) },
    { "group_all_failed", SUBMIT_ONLY(OUT_RETRY, ERR_PROVIDER_ERROR, 0, 0) },
    { "error_under_200", SUBMIT_ONLY(OUT_FAIL, ERR_CONTENT_FILTERED, 0, 0) },
    { "odd_error_under_200", SUBMIT_ONLY(OUT_FAIL, ERR_BAD_RESPONSE, 0, 0) },
    { "data_null", SUBMIT_ONLY(OUT_FAIL, ERR_BAD_RESPONSE, 0, 0) },
    { "data_empty", SUBMIT_ONLY(OUT_FAIL, ERR_BAD_RESPONSE, 0, 0) },
    { "items_empty", SUBMIT_ONLY(OUT_FAIL, ERR_BAD_RESPONSE, 0, 0) },
    { "cut", SUBMIT_ONLY(OUT_FAIL, ERR_BAD_RESPONSE, 0, 0) },
    { "html_200", SUBMIT_ONLY(OUT_FAIL, ERR_BAD_RESPONSE, 0, 0) },
    { "rate_limit_after", SUBMIT_ONLY(OUT_RETRY, ERR_RATE_LIMITED, 3, 0) },
    { "code_missingparameter", SUBMIT_ONLY(OUT_FAIL, ERR_INVALID_REQUEST, 0, 0) },
    { "code_invalidparameter", SUBMIT_ONLY(OUT_FAIL, ERR_INVALID_REQUEST, 0, 0) },
    { "code_invalidparameter_unsupportedimageformat", SUBMIT_ONLY(OUT_FAIL, ERR_INVALID_REQUEST, 0, 0) },
    { "code_invalidargumenterror", SUBMIT_ONLY(OUT_FAIL, ERR_INVALID_REQUEST, 0, 0) },
    { "code_invalidimageurl", SUBMIT_ONLY(OUT_FAIL, ERR_INVALID_REQUEST, 0, 0) },
    { "code_inputtextsensitivecontentdetected", SUBMIT_ONLY(OUT_FAIL, ERR_CONTENT_FILTERED, 0, 0) },
    { "code_inputimagesensitivecontentdetected", SUBMIT_ONLY(OUT_FAIL, ERR_CONTENT_FILTERED, 0, 0) },
    { "code_outputimagesensitivecontentdetected", SUBMIT_ONLY(OUT_FAIL, ERR_CONTENT_FILTERED, 0, 0) },
    { "code_sensitivecontentdetected", SUBMIT_ONLY(OUT_FAIL, ERR_CONTENT_FILTERED, 0, 0) },
    { "code_sensitivecontentdetected_severeviolation", SUBMIT_ONLY(OUT_FAIL, ERR_CONTENT_FILTERED, 0, 0) },
    { "code_sensitivecontentdetected_violence", SUBMIT_ONLY(OUT_FAIL, ERR_CONTENT_FILTERED, 0, 0) },
    { "code_inputtextriskdetection", SUBMIT_ONLY(OUT_FAIL, ERR_CONTENT_FILTERED, 0, 0) },
    { "code_inputimageriskdetection", SUBMIT_ONLY(OUT_FAIL, ERR_CONTENT_FILTERED, 0, 0) },
    { "code_outputimageriskdetection", SUBMIT_ONLY(OUT_FAIL, ERR_CONTENT_FILTERED, 0, 0) },
    { "code_policyviolation", SUBMIT_ONLY(OUT_FAIL, ERR_CONTENT_FILTERED, 0, 0) },
    { "code_privacyinformation", SUBMIT_ONLY(OUT_FAIL, ERR_CONTENT_FILTERED, 0, 0) },
    { "code_contentsecuritydetectionerror", SUBMIT_ONLY(OUT_RETRY, ERR_PROVIDER_ERROR, 0, 0) },
    { "code_authenticationerror", SUBMIT_ONLY(OUT_FAIL, ERR_AUTH, 0, 0) },
    { "code_accountoverdueerror", SUBMIT_ONLY(OUT_FAIL, ERR_INSUFFICIENT_FUNDS, 0, 0) },
    { "code_serviceoverdue", SUBMIT_ONLY(OUT_FAIL, ERR_INSUFFICIENT_FUNDS, 0, 0) },
    { "code_accessdenied", SUBMIT_ONLY(OUT_FAIL, ERR_AUTH, 0, 0) },
    { "code_permissiondenied", SUBMIT_ONLY(OUT_FAIL, ERR_AUTH, 0, 0) },
    { "code_invalidaccountstatus", SUBMIT_ONLY(OUT_FAIL, ERR_AUTH, 0, 0) },
    { "code_modelnotopen", SUBMIT_ONLY(OUT_FAIL, ERR_AUTH, 0, 0) },
    { "code_servicenotopen", SUBMIT_ONLY(OUT_FAIL, ERR_AUTH, 0, 0) },
    { "code_unsupportedmodel", SUBMIT_ONLY(OUT_FAIL, ERR_AUTH, 0, 0) },
    { "code_invalidendpointormodel_notfound", SUBMIT_ONLY(OUT_FAIL, ERR_NOT_FOUND, 0, 0) },
    { "code_invalidendpoint_closedendpoint", SUBMIT_ONLY(OUT_FAIL, ERR_NOT_FOUND, 0, 0) },
    { "code_quotaexceeded", SUBMIT_ONLY(OUT_FAIL, ERR_INSUFFICIENT_FUNDS, 0, 0) },
    { "code_setlimitexceeded", SUBMIT_ONLY(OUT_FAIL, ERR_INSUFFICIENT_FUNDS, 0, 0) },
    { "code_ratelimitexceeded_endpointrpmexceeded", SUBMIT_ONLY(OUT_RETRY, ERR_RATE_LIMITED, 0, 0) },
    { "code_accountratelimitexceeded", SUBMIT_ONLY(OUT_RETRY, ERR_RATE_LIMITED, 0, 0) },
    { "code_requestbursttoofast", SUBMIT_ONLY(OUT_RETRY, ERR_RATE_LIMITED, 0, 0) },
    { "code_inflightbatchsizeexceeded", SUBMIT_ONLY(OUT_RETRY, ERR_RATE_LIMITED, 0, 0) },
    { "code_serveroverloaded", SUBMIT_ONLY(OUT_RETRY, ERR_PROVIDER_UNAVAILABLE, 0, 0) },
    { "code_internalserviceerror", SUBMIT_ONLY(OUT_RETRY, ERR_PROVIDER_ERROR, 0, 0) },
    { "code_internalerror", SUBMIT_ONLY(OUT_RETRY, ERR_PROVIDER_ERROR, 0, 0) },
    { "code_unknownerror", SUBMIT_ONLY(OUT_RETRY, ERR_PROVIDER_ERROR, 0, 0) },
    { "code_quota_under_400", SUBMIT_ONLY(OUT_FAIL, ERR_INSUFFICIENT_FUNDS, 0, 0) },
    { "code_filtered_under_451", SUBMIT_ONLY(OUT_FAIL, ERR_CONTENT_FILTERED, 0, 0) },
    { "unknown_code_400", SUBMIT_ONLY(OUT_FAIL, ERR_INVALID_REQUEST, 0, 0) },
    { "not_a_prefix", SUBMIT_ONLY(OUT_FAIL, ERR_INVALID_REQUEST, 0, 0) },
    { "code_in_header", SUBMIT_ONLY(OUT_FAIL, ERR_INSUFFICIENT_FUNDS, 0, 0) },
    { "gateway", SUBMIT_ONLY(OUT_RETRY, ERR_PROVIDER_UNAVAILABLE, 0, 0) },
    { "timeout", SUBMIT_ONLY(OUT_RETRY, ERR_TIMEOUT, 0, 0) },
    { "expired_link", SUBMIT_ONLY(OUT_FAIL, ERR_AUTH, 0, 0) },
};

Test(volcengine, judges_every_recorded_answer_as_the_page_does)
{
    struct bench b;

    bench_open(&b, OP, "{\"prompt\":\"a room\"}", NULL);
    expect_all(&b, "volcengine", rows, ARRAY_LEN(rows));
    cr_expect_eq(ARRAY_LEN(rows), fixture_count("volcengine"), "a fixture that no row of the table judges");
    bench_done(&b);
}

Test(volcengine, one_picture_is_sent_as_a_text_and_several_as_a_list)
{
    struct bench b;
    struct http_req req;
    const struct job_input images[] = {
        { .field = "image", .mime = "image/png", .text = "data:image/png;base64,AAAA" },
        { .field = "image", .mime = "image/jpeg", .text = "data:image/jpeg;base64,BBBB" }
    };

    bench_open(&b, OP, "{\"prompt\":\"a room\",\"model\":\"" SEEDEDIT "\",\"image\":[\"https://x.org/a\"],\"seed\":21}",
               NULL);
    b.spec.inputs = images;
    b.spec.input_count = 1;
    req = b.provider->submit(b.arena, &b.spec);
    cr_assert_not_null(req.path);
    cr_expect_str_eq(json_text(req.body, "image"), "data:image/png;base64,AAAA");
    cr_expect_str_eq(json_text(req.body, "size"), "adaptive");
    cr_expect_null(json_object_get(req.body, "max_images"));
    cr_expect_null(json_object_get(req.body, "sequential_image_generation_options"), "it asks for no group");
    json_decref(req.body);
    bench_done(&b);

    bench_open(&b, OP,
               "{\"prompt\":\"a room\",\"image\":[\"https://x.org/a\",\"https://x.org/b\"],"
               "\"sequential_image_generation\":\"auto\",\"max_images\":4}",
               NULL);
    b.spec.inputs = images;
    b.spec.input_count = 2;
    req = b.provider->submit(b.arena, &b.spec);
    cr_assert_not_null(req.path);
    cr_expect_eq(json_array_size(json_object_get(req.body, "image")), 2);
    cr_expect_eq(json_integer_value(
                     json_object_get(json_object_get(req.body, "sequential_image_generation_options"), "max_images")),
                 4);
    cr_expect_str_eq(json_text(req.body, "size"), "2K");
    json_decref(req.body);
    bench_done(&b);
}

Test(volcengine, sizes_are_prices)
{
    static const struct {
        const char *params;
        int64_t mc, units;
    } table[] = {
        { "{\"prompt\":\"a\",\"model\":\"" SEEDEDIT "\",\"image\":[\"https://x.org/a\"]}", 20000, 1 },
        { "{\"prompt\":\"a\",\"model\":\"doubao-seedream-3-0-t2i-250415\"}", 20000, 1 },
        { "{\"prompt\":\"a\",\"size\":\"1K\"}", 15000, 1 },
        { "{\"prompt\":\"a\"}", 25000, 1 },
        { "{\"prompt\":\"a\",\"size\":\"4K\",\"sequential_image_generation\":\"auto\",\"max_images\":3}", 40000, 3 },
        { "{\"prompt\":\"a\",\"size\":\"2304x1728\"}", 40000, 1 },
    };

    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        struct bench b;
        struct catalog_price p;

        bench_open(&b, OP, table[i].params, NULL);
        cr_assert_eq(catalog_price(b.op, b.params, &p), ERR_OK);
        cr_expect_eq(p.unit_mc, table[i].mc, "%s: %lld", table[i].params, (long long)p.unit_mc);
        cr_expect_eq(p.units, table[i].units, "%s", table[i].params);
        bench_done(&b);
    }
}

Test(volcengine, what_a_model_does_not_take_is_refused)
{
    static const struct {
        const char *params, *field;
    } table[] = {
        { "{\"prompt\":\"a\",\"model\":\"" SEEDEDIT "\"}", "params.image" },
        { "{\"prompt\":\"a\",\"model\":\"" SEEDEDIT "\",\"image\":[\"https://x.org/a\",\"https://x.org/b\"]}",
          "params.image" },
        { "{\"prompt\":\"a\",\"model\":\"" SEEDEDIT "\",\"image\":[\"https://x.org/a\"],\"size\":\"2K\"}",
          "params.size" },
        { "{\"prompt\":\"a\",\"model\":\"doubao-seedream-3-0-t2i-250415\",\"size\":\"4K\"}", "params.size" },
        { "{\"prompt\":\"a\",\"model\":\"doubao-seedream-3-0-t2i-250415\",\"image\":[\"https://x.org/a\"]}",
          "params.image" },
        { "{\"prompt\":\"a\",\"seed\":4}", "params.seed" },
        { "{\"prompt\":\"a\",\"max_images\":2}", "params.max_images" },
        { "{\"prompt\":\"a\",\"sequential_image_generation\":\"auto\",\"max_images\":11}", "params.max_images" },
    };
    struct bench b;

    bench_open(&b, OP, "{\"prompt\":\"a\"}", NULL);
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        json_t *given = json_parse(table[i].params, strlen(table[i].params), NULL);
        struct catalog_faults faults;

        cr_assert_null(catalog_validate(b.op, given, &faults), "took %s", table[i].params);
        cr_expect_str_eq(faults.items[0].field, table[i].field, "%s: %s", table[i].params, faults.items[0].message);
        json_decref(given);
    }
    bench_done(&b);
}

Test(volcengine, keeps_the_signed_url_and_drops_the_word_none)
{
    struct bench b;
    struct fixture f;
    struct answer got;

    bench_open(&b, OP, "{\"prompt\":\"a room\"}", NULL);
    fixture_open(&f, "volcengine", "url_none_revised");
    got = b.provider->on_submit(b.arena, &b.spec, &f.answer);
    cr_expect_str_eq(got.outputs[0].url, json_text(json_array_get(json_object_get(f.answer.json, "data"), 0), "url"));
    cr_expect_null(got.outputs[0].revised_prompt);
    cr_expect_str_eq(got.request_id, "021753847978");
    fixture_done(&f);
    fixture_open(&f, "volcengine", "base64");
    got = b.provider->on_submit(b.arena, &b.spec, &f.answer);
    cr_expect_str_eq(got.outputs[0].revised_prompt, "a room in watercolour");
    fixture_done(&f);
    fixture_open(&f, "volcengine", "expired_link");
    got = b.provider->on_download(b.arena, &b.spec, &f.answer);
    cr_expect_eq(got.outcome, OUT_FAIL);
    cr_expect_eq(got.code, ERR_NOT_FOUND);
    fixture_done(&f);
    bench_done(&b);
}
