/* test_huggingface.c - the Hugging Face adapter against every answer that its page describes. */
#include "tests/unit/providers/fixture.h"

#define OP                                        "huggingface.text_to_image"
#define PARAMS                                    "{\"model\":\"org/name\",\"prompt\":\"a sextant\"}"
#define SUBMIT_ONLY(outcome, code, wait, outputs) outcome, code, OUT_DONE, ERR_OK, wait, outputs

static const struct expectation rows[] = {
    { "picture", SUBMIT_ONLY(OUT_DONE, ERR_OK, 0, 1) },
    { "picture_cached", SUBMIT_ONLY(OUT_DONE, ERR_OK, 0, 1) },
    { "picture_untyped", SUBMIT_ONLY(OUT_DONE, ERR_OK, 0, 1) },
    { "fal", SUBMIT_ONLY(OUT_DONE, ERR_OK, 0, 1) },
    { "together", SUBMIT_ONLY(OUT_DONE, ERR_OK, 0, 1) },
    { "html_200", SUBMIT_ONLY(OUT_FAIL, ERR_BAD_RESPONSE, 0, 0) },
    { "empty_200", SUBMIT_ONLY(OUT_FAIL, ERR_BAD_RESPONSE, 0, 0) },
    { "json_without_image", SUBMIT_ONLY(OUT_FAIL, ERR_BAD_RESPONSE, 0, 0) },
    { "json_as_image", SUBMIT_ONLY(OUT_FAIL, ERR_BAD_RESPONSE, 0, 0) },
    { "cut_json", SUBMIT_ONLY(OUT_FAIL, ERR_BAD_RESPONSE, 0, 0) },
    { "error_under_200", SUBMIT_ONLY(OUT_FAIL, ERR_BAD_RESPONSE, 0, 0) },
    { "bad_width", SUBMIT_ONLY(OUT_FAIL, ERR_INVALID_REQUEST, 0, 0) },
    { "bad_request_text", SUBMIT_ONLY(OUT_FAIL, ERR_INVALID_REQUEST, 0, 0) },
    { "partner_error", SUBMIT_ONLY(OUT_FAIL, ERR_INVALID_REQUEST, 0, 0) },
    { "validation", SUBMIT_ONLY(OUT_FAIL, ERR_INVALID_REQUEST, 0, 0) },
    { "unsupported_model", SUBMIT_ONLY(OUT_FAIL, ERR_NOT_FOUND, 0, 0) },
    { "no_path", SUBMIT_ONLY(OUT_FAIL, ERR_NOT_FOUND, 0, 0) },
    { "deprecated", SUBMIT_ONLY(OUT_FAIL, ERR_NOT_FOUND, 0, 0) },
    { "old_host", SUBMIT_ONLY(OUT_FAIL, ERR_NOT_FOUND, 0, 0) },
    { "bad_token_400", SUBMIT_ONLY(OUT_FAIL, ERR_AUTH, 0, 0) },
    { "bad_token_401", SUBMIT_ONLY(OUT_FAIL, ERR_AUTH, 0, 0) },
    { "bad_password_400", SUBMIT_ONLY(OUT_FAIL, ERR_AUTH, 0, 0) },
    { "bad_password_401", SUBMIT_ONLY(OUT_FAIL, ERR_AUTH, 0, 0) },
    { "gated", SUBMIT_ONLY(OUT_FAIL, ERR_AUTH, 0, 0) },
    { "no_credits", SUBMIT_ONLY(OUT_FAIL, ERR_INSUFFICIENT_FUNDS, 0, 0) },
    { "rate_limit_after", SUBMIT_ONLY(OUT_RETRY, ERR_RATE_LIMITED, 7, 0) },
    { "rate_limit_window", SUBMIT_ONLY(OUT_RETRY, ERR_RATE_LIMITED, 55, 0) },
    { "rate_limit_bare", SUBMIT_ONLY(OUT_RETRY, ERR_RATE_LIMITED, 0, 0) },
    { "unknown_error", SUBMIT_ONLY(OUT_RETRY, ERR_PROVIDER_ERROR, 0, 0) },
    { "internal_error", SUBMIT_ONLY(OUT_RETRY, ERR_PROVIDER_ERROR, 0, 0) },
    { "out_of_memory", SUBMIT_ONLY(OUT_RETRY, ERR_PROVIDER_ERROR, 0, 0) },
    { "loading", SUBMIT_ONLY(OUT_RETRY, ERR_PROVIDER_UNAVAILABLE, 21, 0) },
    { "loading_untimed", SUBMIT_ONLY(OUT_RETRY, ERR_PROVIDER_UNAVAILABLE, 0, 0) },
    { "loading_null", SUBMIT_ONLY(OUT_RETRY, ERR_PROVIDER_UNAVAILABLE, 0, 0) },
    { "loading_long", SUBMIT_ONLY(OUT_RETRY, ERR_PROVIDER_UNAVAILABLE, 345, 0) },
    { "loading_legacy", SUBMIT_ONLY(OUT_RETRY, ERR_PROVIDER_UNAVAILABLE, 21, 0) },
    { "unavailable", SUBMIT_ONLY(OUT_RETRY, ERR_PROVIDER_UNAVAILABLE, 0, 0) },
    { "busy_500", SUBMIT_ONLY(OUT_RETRY, ERR_PROVIDER_UNAVAILABLE, 0, 0) },
    { "busy_503", SUBMIT_ONLY(OUT_RETRY, ERR_PROVIDER_UNAVAILABLE, 0, 0) },
    { "gateway", SUBMIT_ONLY(OUT_RETRY, ERR_PROVIDER_UNAVAILABLE, 0, 0) },
};

Test(huggingface, judges_every_recorded_answer_as_the_page_does)
{
    struct bench b;

    bench_open(&b, OP, PARAMS, NULL);
    expect_all(&b, "huggingface", rows, ARRAY_LEN(rows));
    cr_expect_eq(ARRAY_LEN(rows), fixture_count("huggingface"), "a fixture that no row of the table judges");
    bench_done(&b);
}

static struct answer read(struct bench *b, struct fixture *f, const char *file)
{
    fixture_open(f, "huggingface", file);
    return b->provider->on_submit(b->arena, &b->spec, &f->answer);
}

Test(huggingface, sends_the_prompt_as_inputs_and_the_rest_below_parameters)
{
    struct bench b;
    struct http_req req;
    const json_t *more;

    bench_open(&b, OP,
               "{\"model\":\"black-forest-labs/FLUX.1-schnell\",\"prompt\":\"a sextant\",\"width\":1024,"
               "\"negative_prompt\":\"rain\",\"seed\":77}",
               NULL);
    req = b.provider->submit(b.arena, &b.spec);
    cr_assert_not_null(req.path);
    cr_expect_str_eq(req.path, "/hf-inference/models/black-forest-labs/FLUX.1-schnell");
    cr_expect_str_eq(req.accept, "image/png");
    cr_expect_str_eq(json_text(req.body, "inputs"), "a sextant");
    cr_expect_eq(json_object_size(req.body), 2, "model is in the path alone");
    more = json_object_get(req.body, "parameters");
    cr_expect_eq(json_object_size(more), 3);
    cr_expect_str_eq(json_text(more, "negative_prompt"), "rain");
    cr_expect_eq(json_integer_value(json_object_get(more, "seed")), 77);
    cr_expect_null(req.headers, "a seed asks for this very picture: the cache may answer");
    json_decref(req.body);
    bench_done(&b);
}

Test(huggingface, without_a_seed_the_cache_is_bypassed)
{
    struct bench b;
    struct http_req req;

    bench_open(&b, OP, PARAMS, NULL);
    req = b.provider->submit(b.arena, &b.spec);
    cr_expect_str_eq(json_text(req.headers, "x-use-cache"), "false");
    json_decref(req.body);
    bench_done(&b);
}

Test(huggingface, a_model_s_name_cannot_leave_its_place_in_the_path)
{
    static const char *const names[] = { "org//name", "/name" };
    struct bench b;
    struct http_req req;

    bench_open(&b, OP, "{\"model\":\"../../x?y#z\",\"prompt\":\"a\"}", NULL);
    req = b.provider->submit(b.arena, &b.spec);
    cr_expect_str_eq(req.path, "/hf-inference/models/%2E%2E/%2E%2E/x%3Fy%23z");
    json_decref(req.body);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        (void)json_set_text(b.params, "model", names[i]);
        req = b.provider->submit(b.arena, &b.spec);
        cr_expect_null(req.path, "%s", names[i]);
    }
    bench_done(&b);
}

Test(huggingface, books_the_seconds_of_the_gpu)
{
    struct bench b;
    struct fixture f;
    struct answer got;

    bench_open(&b, OP, PARAMS, NULL);
    got = read(&b, &f, "picture");
    cr_expect_eq(got.cost_microusd, 254, "2.114 s at 0.00012 USD: %lld", (long long)got.cost_microusd);
    cr_expect(got.outputs[0].is_body);
    cr_expect_str_eq(got.request_id, "Root=1-67ae1483-597a845a6d53ff352daac813;2ae8c157");
    cr_expect_null(got.ref);
    fixture_done(&f);
    got = read(&b, &f, "picture_untyped");
    cr_expect_eq(got.cost_microusd, -1, "nobody said");
    fixture_done(&f);
    bench_done(&b);
}

Test(huggingface, a_picture_that_went_to_a_file_is_one_too)
{
    struct bench b;
    struct fixture f;
    struct answer got;

    bench_open(&b, OP, PARAMS, NULL);
    fixture_open(&f, "huggingface", "picture");
    fixture_to_file(&f, "/nonexistent");
    got = b.provider->on_submit(b.arena, &b.spec, &f.answer);
    cr_expect_eq(got.outcome, OUT_DONE);
    fixture_done(&f);
    fixture_open(&f, "huggingface", "html_200");
    fixture_to_file(&f, "/nonexistent");
    got = b.provider->on_submit(b.arena, &b.spec, &f.answer);
    cr_expect_eq(got.code, ERR_BAD_RESPONSE, "its type says what it is");
    fixture_done(&f);
    bench_done(&b);
}

Test(huggingface, a_model_that_loads_has_begun_nothing_and_other_server_errors_may_have)
{
    static const struct {
        const char *file;
        bool is_free;
    } table[] = {
        { "loading", true },      { "loading_untimed", true }, { "loading_legacy", true },
        { "unavailable", false }, { "busy_503", false },
    };
    struct bench b;

    bench_open(&b, OP, PARAMS, NULL);
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        struct fixture f;
        struct answer got = read(&b, &f, table[i].file);

        cr_expect_eq(got.is_free, table[i].is_free, "%s", table[i].file);
        cr_expect_not(got.leaves_open, "%s", table[i].file);
        fixture_done(&f);
    }
    cr_expect(b.op->failed_is_free, "else what an older path says under 200 would end the job");
    bench_done(&b);
}

Test(huggingface, shows_all_problems_and_marks_what_a_partner_flags)
{
    struct bench b;
    struct fixture f;
    struct answer got;

    bench_open(&b, OP, PARAMS, NULL);
    got = read(&b, &f, "bad_width");
    cr_expect_str_eq(got.message, "Input should be greater than 0: received `width` in `parameters`; "
                                  "Input should be a valid integer: received `height` in `parameters`");
    fixture_done(&f);
    got = read(&b, &f, "partner_error");
    cr_expect_str_eq(got.message, "height must be a multiple of 8");
    fixture_done(&f);
    got = read(&b, &f, "fal");
    cr_expect_str_eq(got.outputs[0].url, "https://v3.fal.media/files/zebra/abc.png");
    cr_expect_str_eq(got.outputs[0].seed, "42");
    cr_expect(got.outputs[0].is_flagged);
    fixture_done(&f);
    bench_done(&b);
}
