/* test_a1111.c - the adapter of AUTOMATIC1111's webui against every answer that its page describes. */
#include "tests/unit/providers/fixture.h"

#define NO_POLL OUT_FAIL, ERR_OK
#define OP      "a1111.txt2img"
#define PARAMS  "{\"prompt\":\"oak door, moss\",\"batch_size\":2}"

static const struct expectation rows[] = {
    { "done", OUT_DONE, ERR_OK, NO_POLL, 0, 1 },
    { "two", OUT_DONE, ERR_OK, NO_POLL, 0, 2 },
    { "data_uri", OUT_DONE, ERR_OK, NO_POLL, 0, 1 },
    { "some_missing", OUT_DONE, ERR_OK, NO_POLL, 0, 1 },
    { "images_null", OUT_FAIL, ERR_BAD_RESPONSE, NO_POLL, 0, 0 },
    { "images_empty", OUT_FAIL, ERR_BAD_RESPONSE, NO_POLL, 0, 0 },
    { "html_200", OUT_FAIL, ERR_BAD_RESPONSE, NO_POLL, 0, 0 },
    { "cut", OUT_FAIL, ERR_BAD_RESPONSE, NO_POLL, 0, 0 },
    { "array", OUT_FAIL, ERR_BAD_RESPONSE, NO_POLL, 0, 0 },
    { "unauthorized", OUT_FAIL, ERR_AUTH, NO_POLL, 0, 0 },
    { "not_enabled", OUT_FAIL, ERR_NOT_FOUND, NO_POLL, 0, 0 },
    { "sampler", OUT_FAIL, ERR_INVALID_REQUEST, NO_POLL, 0, 0 },
    { "init_image", OUT_FAIL, ERR_INVALID_REQUEST, NO_POLL, 0, 0 },
    { "html_404", OUT_FAIL, ERR_NOT_FOUND, NO_POLL, 0, 0 },
    { "validation", OUT_FAIL, ERR_INVALID_REQUEST, NO_POLL, 0, 0 },
    { "script", OUT_FAIL, ERR_INVALID_REQUEST, NO_POLL, 0, 0 },
    { "out_of_memory", OUT_RETRY, ERR_PROVIDER_ERROR, NO_POLL, 0, 0 },
    { "nans", OUT_RETRY, ERR_PROVIDER_ERROR, NO_POLL, 0, 0 },
    { "html_502", OUT_RETRY, ERR_PROVIDER_UNAVAILABLE, NO_POLL, 0, 0 },
    { "restarting", OUT_RETRY, ERR_PROVIDER_UNAVAILABLE, NO_POLL, 4, 0 },
    { "gateway_timeout", OUT_RETRY, ERR_TIMEOUT, NO_POLL, 0, 0 },
};

static struct answer judged(struct bench *b, struct fixture *f, const char *name)
{
    fixture_open(f, "a1111", name);
    return b->provider->on_submit(b->arena, &b->spec, &f->answer);
}

Test(a1111, judges_every_answer_of_the_page)
{
    struct bench b;

    bench_open(&b, OP, PARAMS, NULL);
    expect_all(&b, "a1111", rows, ARRAY_LEN(rows));
    cr_expect_eq(ARRAY_LEN(rows), fixture_count("a1111"), "a fixture that no row of the table judges");
    bench_done(&b);
}

Test(a1111, says_what_the_server_says_and_that_it_costs_nothing)
{
    static const struct {
        const char *file, *message;
        bool is_once;
    } said[] = {
        { "validation", "value is not a valid integer", false },
        { "script", "Script not found", false },
        { "sampler", "Sampler not found", false },
        { "out_of_memory", "CUDA out of memory. Tried to allocate 9.00 GiB", true },
        { "unauthorized", "Incorrect username or password", false },
        { "not_enabled", "the server does not offer its API (is it started with --api?)", false },
    };
    struct bench b;
    struct fixture f;

    bench_open(&b, OP, PARAMS, NULL);
    for (size_t i = 0; i < ARRAY_LEN(said); i++) {
        struct answer out = judged(&b, &f, said[i].file);

        cr_expect_str_eq(out.message, said[i].message, "%s", said[i].file);
        cr_expect(out.is_free, "%s", said[i].file);
        cr_expect_eq(out.is_once, said[i].is_once, "%s", said[i].file);
        fixture_done(&f);
    }
    bench_done(&b);
}

Test(a1111, reads_each_picture_s_seed_out_of_the_text_that_is_json)
{
    struct bench b;
    struct fixture f;
    struct answer out;

    bench_open(&b, OP, PARAMS, NULL);
    out = judged(&b, &f, "two");
    cr_assert_eq(out.output_count, 2);
    cr_expect_str_eq(out.outputs[0].seed, "7");
    cr_expect_str_eq(out.outputs[1].seed, "8");
    cr_expect_eq(out.cost_microusd, 0);
    fixture_done(&f);
    out = judged(&b, &f, "data_uri");
    cr_assert_eq(out.output_count, 1);
    cr_expect_null(out.outputs[0].seed);
    cr_expect_eq(strncmp(out.outputs[0].base64, "iVBOR", 5), 0, "without its data: prefix");
    fixture_done(&f);
    bench_done(&b);
}

Test(a1111, asks_for_no_grid_and_sends_what_the_page_s_own_defaults_leave_open)
{
    struct bench b;
    struct http_req req;

    bench_open(&b, OP, "{\"prompt\":\"oak\",\"sd_model_checkpoint\":\"xl.safetensors\"}", NULL);
    req = b.provider->submit(b.arena, &b.spec);
    cr_assert_not_null(req.path);
    cr_expect_str_eq(req.path, "/sdapi/v1/txt2img");
    cr_expect(json_is_false(json_object_get(req.body, "save_images")), "else the first image may be the grid");
    cr_expect(json_is_true(json_object_get(req.body, "send_images")));
    cr_expect_eq(json_integer_value(json_object_get(req.body, "n_iter")), 1);
    cr_expect_eq(json_integer_value(json_object_get(req.body, "steps")), 20);
    cr_expect_str_eq(json_text(json_object_get(req.body, "override_settings"), "sd_model_checkpoint"),
                     "xl.safetensors");
    json_decref(req.body);
    bench_done(&b);
}

Test(a1111, sends_the_init_image_as_a_list_of_base64)
{
    static const struct job_input inputs[] = {
        { .field = "init_images", .path = "/x", .mime = "image/png", .bytes = 3, .text = "aW1n" },
        { .field = "mask", .path = "/y", .mime = "image/png", .bytes = 3, .text = "bWFz" },
    };
    struct bench b;
    struct http_req req;

    bench_open(
        &b, "a1111.img2img",
        "{\"prompt\":\"oak\",\"init_images\":[\"https://example.org/a.png\"],\"mask\":\"https://example.org/b.png\"}",
        NULL);
    b.spec.inputs = inputs;
    b.spec.input_count = 2;
    req = b.provider->submit(b.arena, &b.spec);
    cr_assert_not_null(req.path);
    cr_expect_str_eq(json_string_value(json_array_get(json_object_get(req.body, "init_images"), 0)), "aW1n");
    cr_expect_str_eq(json_text(req.body, "mask"), "bWFz");
    json_decref(req.body);
    bench_done(&b);
}
