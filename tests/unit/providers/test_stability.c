/* test_stability.c - the Stability adapter against every answer that its page describes, to a submit and to a poll. */
#include <stdlib.h>
#include "tests/unit/providers/fixture.h"
#include "worker/providers/adapter.h"

#define REF                 "3f0c9a1d7be24856a0c1d2e3f405162738495a6b7c8d9e0f1a2b3c4d5e6f7081"
#define CREATIVE            "stability.upscale.creative"
#define CREATIVE_PARAMS     "{\"prompt\":\"a kettle\",\"image\":\"https://example.org/a.png\",\"creativity\":0.2}"
#define BOTH(outcome, code) outcome, code, outcome, code
#define BAD                 OUT_FAIL, ERR_BAD_RESPONSE, OUT_RETRY, ERR_BAD_RESPONSE

static const struct expectation rows[] = {
    { "core_json", BOTH(OUT_DONE, ERR_OK), 0, 1 },
    { "core_bytes", BOTH(OUT_DONE, ERR_OK), 0, 1 },
    { "result_json", BOTH(OUT_DONE, ERR_OK), 0, 1 },
    { "v1_mixed", BOTH(OUT_DONE, ERR_OK), 0, 1 },
    { "v1_all_error", BOTH(OUT_RETRY, ERR_PROVIDER_ERROR), 0, 0 },
    { "filtered_bytes", BOTH(OUT_FAIL, ERR_CONTENT_FILTERED), 0, 0 },
    { "filtered_json", BOTH(OUT_FAIL, ERR_CONTENT_FILTERED), 0, 0 },
    { "creative_submit", BOTH(OUT_PENDING, ERR_OK), 10, 0 },
    { "audio_submit", BOTH(OUT_PENDING, ERR_OK), 10, 0 },
    { "in_progress", BOTH(OUT_PENDING, ERR_OK), 10, 0 },
    { "hostile_id", OUT_FAIL, ERR_BAD_RESPONSE, OUT_PENDING, ERR_OK, 0, 0 },
    { "no_id", OUT_FAIL, ERR_BAD_RESPONSE, OUT_PENDING, ERR_OK, 0, 0 },
    { "in_progress_text", OUT_FAIL, ERR_BAD_RESPONSE, OUT_PENDING, ERR_OK, 0, 0 },
    { "in_progress_under_200", OUT_FAIL, ERR_BAD_RESPONSE, OUT_PENDING, ERR_OK, 0, 0 },
    { "broken_base64", BAD, 0, 0 },
    { "empty_artifacts", BAD, 0, 0 },
    { "html_200", BAD, 0, 0 },
    { "text_200", BAD, 0, 0 },
    { "empty_200", BAD, 0, 0 },
    { "cut_json", BAD, 0, 0 },
    { "odd_error_under_200", BAD, 0, 0 },
    { "redirect", BAD, 0, 0 },
    { "bad_request", BOTH(OUT_FAIL, ERR_INVALID_REQUEST), 0, 0 },
    { "v1_bad_request", BOTH(OUT_FAIL, ERR_INVALID_REQUEST), 0, 0 },
    { "v1_invalid_pixel_count", BOTH(OUT_FAIL, ERR_INVALID_REQUEST), 0, 0 },
    { "v1_invalid_prompts", BOTH(OUT_FAIL, ERR_CONTENT_FILTERED), 0, 0 },
    { "unauthorized", BOTH(OUT_FAIL, ERR_AUTH), 0, 0 },
    { "unauthorized_message", BOTH(OUT_FAIL, ERR_AUTH), 0, 0 },
    { "payment_required", BOTH(OUT_FAIL, ERR_INSUFFICIENT_FUNDS), 0, 0 },
    { "content_moderation", BOTH(OUT_FAIL, ERR_CONTENT_FILTERED), 0, 0 },
    { "permission_denied", BOTH(OUT_FAIL, ERR_AUTH), 0, 0 },
    { "not_found", BOTH(OUT_FAIL, ERR_NOT_FOUND), 0, 0 },
    { "plain_404", BOTH(OUT_FAIL, ERR_NOT_FOUND), 0, 0 },
    { "payload_too_large", BOTH(OUT_FAIL, ERR_INVALID_REQUEST), 0, 0 },
    { "invalid_language", BOTH(OUT_FAIL, ERR_INVALID_REQUEST), 0, 0 },
    { "public_figure", BOTH(OUT_FAIL, ERR_CONTENT_FILTERED), 0, 0 },
    { "copyrighted", BOTH(OUT_FAIL, ERR_CONTENT_FILTERED), 0, 0 },
    { "rate_limit", BOTH(OUT_RETRY, ERR_RATE_LIMITED), 60, 0 },
    { "rate_limit_seconds", BOTH(OUT_RETRY, ERR_RATE_LIMITED), 8, 0 },
    { "rate_limit_date", BOTH(OUT_RETRY, ERR_RATE_LIMITED), 33, 0 },
    { "rate_limit_html", BOTH(OUT_RETRY, ERR_RATE_LIMITED), 60, 0 },
    { "internal_error", BOTH(OUT_RETRY, ERR_PROVIDER_ERROR), 0, 0 },
    { "v1_server_error", BOTH(OUT_RETRY, ERR_PROVIDER_ERROR), 0, 0 },
    { "html_502", BOTH(OUT_RETRY, ERR_PROVIDER_UNAVAILABLE), 0, 0 },
    { "html_524", BOTH(OUT_RETRY, ERR_TIMEOUT), 0, 0 },
    { "name_beats_status", BOTH(OUT_FAIL, ERR_INSUFFICIENT_FUNDS), 0, 0 },
    { "error_under_200", BOTH(OUT_FAIL, ERR_CONTENT_FILTERED), 0, 0 },
};

Test(stability, judges_every_recorded_answer_as_the_page_does)
{
    struct bench b;

    bench_open(&b, CREATIVE, CREATIVE_PARAMS, NULL);
    expect_all(&b, "stability", rows, ARRAY_LEN(rows));
    cr_expect_eq(ARRAY_LEN(rows), fixture_count("stability"), "a fixture that no row of the table judges");
    bench_done(&b);
}

Test(stability, never_waits_for_a_synchronous_operation)
{
    struct bench b;
    struct fixture f;
    struct answer got;

    bench_open(&b, "stability.generate.core", "{\"prompt\":\"a\"}", NULL);
    fixture_open(&f, "stability", "creative_submit");
    got = b.provider->on_submit(b.arena, &b.spec, &f.answer);
    cr_expect_eq(got.outcome, OUT_FAIL);
    cr_expect_eq(got.code, ERR_BAD_RESPONSE);
    fixture_done(&f);
    bench_done(&b);
}

Test(stability, takes_the_reference_from_the_body_and_only_one_path_segment)
{
    static const char *const hostile[] = { "", "..", "a/b", "a?b", "a%2fb", "a b", "é", "a\nb" };
    struct bench b;
    struct fixture f;
    struct answer got;
    struct http_req req;

    bench_open(&b, CREATIVE, CREATIVE_PARAMS, NULL);
    fixture_open(&f, "stability", "creative_submit");
    got = b.provider->on_submit(b.arena, &b.spec, &f.answer);
    cr_assert_str_eq(got.ref, REF);
    cr_expect_null(got.request_id, "the reference is no request id");
    req = b.provider->poll(b.arena, &b.spec, got.ref);
    cr_expect_str_eq(req.path, "/v2beta/results/" REF);
    cr_expect_str_eq(req.method, "GET");
    cr_expect_str_eq(req.accept, "*/*");
    for (size_t i = 0; i < ARRAY_LEN(hostile); i++)
        cr_expect_null(b.provider->poll(b.arena, &b.spec, hostile[i]).path, "%s", hostile[i]);
    cr_expect_null(b.provider->poll(b.arena, &b.spec, NULL).path);
    fixture_done(&f);
    bench_done(&b);
}

Test(stability, sends_a_form_with_files_as_files_and_numbers_as_people_write_them)
{
    struct job_input image = { .field = "image", .path = "/tmp/in", .mime = "image/jpeg", .bytes = 10 };
    struct bench b;
    struct http_req req;
    size_t seen = 0;

    bench_open(&b, CREATIVE, "{\"prompt\":\"a kettle\",\"image\":\"https://x.org/a\",\"seed\":4294967294}", NULL);
    cr_expect_null(b.provider->submit(b.arena, &b.spec).path, "without its file a request is incomplete");
    b.spec.inputs = &image;
    b.spec.input_count = 1;
    req = b.provider->submit(b.arena, &b.spec);
    cr_assert_not_null(req.path);
    cr_expect_str_eq(req.path, "/v2beta/stable-image/upscale/creative");
    cr_expect_not_null(req.body, "the texts of the parts are its");
    for (size_t i = 0; i < req.part_count; i++) {
        const struct http_part *p = &req.parts[i];

        if (strcmp(p->name, "image") == 0) {
            cr_expect_str_eq(p->path, "/tmp/in");
            cr_expect_str_eq(p->mime, "image/jpeg");
            cr_expect_str_eq(p->filename, "image.jpg");
        } else if (strcmp(p->name, "creativity") == 0) {
            cr_expect_str_eq(p->value, "0.3");
        } else if (strcmp(p->name, "seed") == 0) {
            cr_expect_str_eq(p->value, "4294967294");
        } else if (strcmp(p->name, "prompt") == 0) {
            cr_expect_str_eq(p->value, "a kettle");
        } else {
            cr_expect_str_eq(p->name, "output_format");
        }
        seen++;
    }
    cr_expect_eq(seen, 5);
    json_decref(req.body);
    bench_done(&b);
}

Test(stability, hands_bytes_out_as_the_body_with_the_seed_of_the_header)
{
    struct bench b;
    struct fixture f;
    struct answer got;

    bench_open(&b, CREATIVE, CREATIVE_PARAMS, NULL);
    fixture_open(&f, "stability", "core_bytes");
    got = b.provider->on_poll(b.arena, &b.spec, &f.answer);
    cr_expect(got.outputs[0].is_body);
    cr_expect_str_eq(got.outputs[0].seed, "2871304551");
    cr_expect_str_eq(got.request_id, "5b1f0c7e2d9a4e0f8f6f5c1d2e3a4b5c");
    fixture_to_file(&f, "/tmp/somewhere");
    got = b.provider->on_poll(b.arena, &b.spec, &f.answer);
    cr_expect_eq(got.outcome, OUT_DONE);
    cr_expect(got.outputs[0].is_body);
    fixture_done(&f);
    fixture_open(&f, "stability", "filtered_bytes");
    fixture_to_file(&f, "/tmp/somewhere");
    got = b.provider->on_poll(b.arena, &b.spec, &f.answer);
    cr_expect_eq(got.code, ERR_CONTENT_FILTERED, "a blurred picture is no result, in a file neither");
    cr_expect(got.is_terminal);
    fixture_done(&f);
    bench_done(&b);
}

Test(stability, a_short_body_that_is_no_media_is_unreadable)
{
    static const char *const bodies[] = { "", "<html>", "{", "PNG", "\x89PNG" };
    struct bench b;

    bench_open(&b, "stability.generate.core", "{\"prompt\":\"a\"}", NULL);
    for (size_t i = 0; i < ARRAY_LEN(bodies); i++) {
        struct http_answer in = { .status = 200, .data = bodies[i], .len = strlen(bodies[i]) };

        cr_expect_eq(b.provider->on_submit(b.arena, &b.spec, &in).code, ERR_BAD_RESPONSE, "%s", bodies[i]);
    }
    bench_done(&b);
}

Test(stability, an_id_that_repeats_the_name_is_no_request_id)
{
    struct bench b;
    struct fixture f;
    struct answer got;

    bench_open(&b, CREATIVE, CREATIVE_PARAMS, NULL);
    fixture_open(&f, "stability", "rate_limit");
    got = b.provider->on_submit(b.arena, &b.spec, &f.answer);
    cr_expect_null(got.request_id);
    cr_expect_null(got.ref);
    fixture_done(&f);
    fixture_open(&f, "stability", "bad_request");
    got = b.provider->on_submit(b.arena, &b.spec, &f.answer);
    cr_expect_str_eq(got.request_id, "b9d1c05e7f6a4b3d9c2e1f0a8b7c6d5e");
    cr_expect_str_eq(got.message, "aspect_ratio: must be one of the listed values; seed: must be at most 4294967294");
    fixture_done(&f);
    bench_done(&b);
}

/* Section 7.2, row by row: both shapes of the body, to a submit and to a poll. */
static const struct table_row {
    long status;
    const char *name;
    enum outcome outcome;
    enum err code;
} errors_of_the_page[] = {
    { 400, "bad_request", OUT_FAIL, ERR_INVALID_REQUEST },
    { 400, "invalid_samples", OUT_FAIL, ERR_INVALID_REQUEST },
    { 400, "invalid_height_or_width", OUT_FAIL, ERR_INVALID_REQUEST },
    { 400, "invalid_file_size", OUT_FAIL, ERR_INVALID_REQUEST },
    { 400, "invalid_mime_type", OUT_FAIL, ERR_INVALID_REQUEST },
    { 400, "invalid_image_dimensions", OUT_FAIL, ERR_INVALID_REQUEST },
    { 400, "invalid_mask_image", OUT_FAIL, ERR_INVALID_REQUEST },
    { 400, "invalid_pixel_count", OUT_FAIL, ERR_INVALID_REQUEST },
    { 400, "invalid_sdxl_v222_dimensions", OUT_FAIL, ERR_INVALID_REQUEST },
    { 400, "invalid_sdxl_v1_dimensions", OUT_FAIL, ERR_INVALID_REQUEST },
    { 400, "invalid_prompts", OUT_FAIL, ERR_CONTENT_FILTERED },
    { 401, "unauthorized", OUT_FAIL, ERR_AUTH },
    { 402, "payment_required", OUT_FAIL, ERR_INSUFFICIENT_FUNDS },
    { 403, "content_moderation", OUT_FAIL, ERR_CONTENT_FILTERED },
    { 403, "permission_denied", OUT_FAIL, ERR_AUTH },
    { 404, "generation_not_found", OUT_FAIL, ERR_NOT_FOUND },
    { 404, "not_found", OUT_FAIL, ERR_NOT_FOUND },
    { 413, "payload_too_large", OUT_FAIL, ERR_INVALID_REQUEST },
    { 422, "invalid_language", OUT_FAIL, ERR_INVALID_REQUEST },
    { 422, "public_figure", OUT_FAIL, ERR_CONTENT_FILTERED },
    { 422, "copyrighted_content", OUT_FAIL, ERR_CONTENT_FILTERED },
    { 429, "rate_limit_exceeded", OUT_RETRY, ERR_RATE_LIMITED },
    { 500, "internal_error", OUT_RETRY, ERR_PROVIDER_ERROR },
    { 500, "server_error", OUT_RETRY, ERR_PROVIDER_ERROR },
    { 403, "insufficient_balance", OUT_FAIL, ERR_INSUFFICIENT_FUNDS }, /* under any status: it is unconfirmed */
    { 200, "content_moderation", OUT_FAIL, ERR_CONTENT_FILTERED },
    /* a name that nobody knows, or none: by the status */
    { 400, "x", OUT_FAIL, ERR_INVALID_REQUEST },
    { 409, "x", OUT_FAIL, ERR_INVALID_REQUEST },
    { 415, "x", OUT_FAIL, ERR_INVALID_REQUEST },
    { 418, "x", OUT_FAIL, ERR_INVALID_REQUEST },
    { 401, "x", OUT_FAIL, ERR_AUTH },
    { 403, "x", OUT_FAIL, ERR_AUTH },
    { 402, "x", OUT_FAIL, ERR_INSUFFICIENT_FUNDS },
    { 404, "x", OUT_FAIL, ERR_NOT_FOUND },
    { 410, "x", OUT_FAIL, ERR_NOT_FOUND },
    { 408, "x", OUT_RETRY, ERR_TIMEOUT },
    { 504, "x", OUT_RETRY, ERR_TIMEOUT },
    { 524, "x", OUT_RETRY, ERR_TIMEOUT },
    { 429, "x", OUT_RETRY, ERR_RATE_LIMITED },
    { 502, "x", OUT_RETRY, ERR_PROVIDER_UNAVAILABLE },
    { 503, "x", OUT_RETRY, ERR_PROVIDER_UNAVAILABLE },
    { 520, "x", OUT_RETRY, ERR_PROVIDER_UNAVAILABLE },
    { 523, "x", OUT_RETRY, ERR_PROVIDER_UNAVAILABLE },
    { 500, "x", OUT_RETRY, ERR_PROVIDER_ERROR },
    { 599, "x", OUT_RETRY, ERR_PROVIDER_ERROR },
};

Test(stability, judges_every_row_of_the_error_table_in_both_shapes)
{
    static const char *const shapes[] = { "{\"id\":\"i\",\"name\":\"%s\",\"errors\":[\"a reason\"]}",
                                          "{\"message\":\"a reason\",\"id\":\"i\",\"name\":\"%s\"}" };
    static const char *const operations[][2] = {
        { CREATIVE, CREATIVE_PARAMS },
        { "stability.v1.text_to_image", "{\"prompt\":\"a\"}" },
        { "stability.audio.text_to_audio", "{\"prompt\":\"a\",\"model\":\"stable-audio-3\"}" },
        { "stability.3d.fast", "{\"image\":\"https://x.org/a\"}" },
    };

    for (size_t o = 0; o < ARRAY_LEN(operations); o++) {
        struct bench b;

        bench_open(&b, operations[o][0], operations[o][1], NULL);
        for (size_t i = 0; i < ARRAY_LEN(errors_of_the_page) * ARRAY_LEN(shapes) * 2; i++) {
            const struct table_row *r = &errors_of_the_page[i / 4];
            char *text = arena_printf(b.arena, shapes[i % 2], r->name);
            json_t *json = json_parse(text, strlen(text), NULL);
            struct http_answer in = { .status = r->status, .data = text, .len = strlen(text), .json = json };
            struct answer got =
                i / 2 % 2 ? b.provider->on_poll(b.arena, &b.spec, &in) : b.provider->on_submit(b.arena, &b.spec, &in);

            cr_expect_eq(got.outcome, r->outcome, "%ld %s", r->status, r->name);
            cr_expect_eq(got.code, r->code, "%ld %s: %s", r->status, r->name, err_word(got.code));
            cr_expect_str_eq(got.message, "a reason");
            json_decref(json);
        }
        bench_done(&b);
    }
}

Test(stability, the_model_picks_path_and_way_of_answering)
{
    static const struct {
        const char *operation, *params, *path;
        bool is_async;
    } table[] = {
        { "stability.audio.text_to_audio", "{\"prompt\":\"a\"}", "/v2beta/audio/stable-audio-2/text-to-audio", false },
        { "stability.audio.text_to_audio", "{\"prompt\":\"a\",\"model\":\"stable-audio-2.5\"}",
          "/v2beta/audio/stable-audio-2/text-to-audio", false },
        { "stability.audio.text_to_audio", "{\"prompt\":\"a\",\"model\":\"stable-audio-3\"}",
          "/v2beta/audio/stable-audio/text-to-audio", true },
        { "stability.v1.text_to_image", "{\"prompt\":\"a\",\"engine_id\":\"stable-diffusion-v1-6\"}",
          "/v1/generation/stable-diffusion-v1-6/text-to-image", false },
    };

    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        struct http_answer accepted = { .status = 202, .data = "{}", .len = 2, .json = json_pack("{s:s}", "id", REF) };
        struct bench b;
        struct http_req req;

        bench_open(&b, table[i].operation, table[i].params, NULL);
        req = b.provider->submit(b.arena, &b.spec);
        cr_expect_str_eq(req.path, table[i].path);
        cr_expect_eq(request_is_async(&b.spec), table[i].is_async);
        cr_expect_eq(b.provider->on_submit(b.arena, &b.spec, &accepted).outcome,
                     table[i].is_async ? OUT_PENDING : OUT_FAIL, "%s", table[i].params);
        if (table[i].is_async)
            cr_expect_str_eq(b.provider->poll(b.arena, &b.spec, REF).path, "/v2beta/audio/results/" REF);
        else
            cr_expect_null(b.provider->poll(b.arena, &b.spec, REF).path);
        json_decref((json_t *)accepted.json);
        json_decref(req.body);
        bench_done(&b);
    }
}

static const char *part_of(const struct http_req *req, const char *name)
{
    for (size_t i = 0; i < req->part_count; i++) {
        if (strcmp(req->parts[i].name, name) == 0)
            return req->parts[i].value != NULL ? req->parts[i].value : req->parts[i].path;
    }
    return NULL;
}

Test(stability, v1_writes_prompts_as_a_list_with_weights_in_json_and_in_forms)
{
    struct job_input image = { .field = "init_image", .path = "/tmp/in", .mime = "image/png", .bytes = 10 };
    struct bench b;
    struct http_req req;
    char *text;

    bench_open(&b, "stability.v1.text_to_image", "{\"prompt\":\"an oak\",\"negative_prompt\":\"people\"}", NULL);
    req = b.provider->submit(b.arena, &b.spec);
    text = json_print(json_object_get(req.body, "text_prompts"));
    cr_expect_str_eq(text, "[{\"text\":\"an oak\",\"weight\":1},{\"text\":\"people\",\"weight\":-1}]");
    cr_expect_null(json_object_get(req.body, "engine_id"), "it is in the path");
    cr_expect_null(json_object_get(req.body, "negative_prompt"));
    free(text);
    json_decref(req.body);
    bench_done(&b);

    bench_open(&b, "stability.v1.image_to_image",
               "{\"text_prompts\":[{\"text\":\"a door\",\"weight\":0.5}],\"negative_prompt\":\"rain\",\"init_image\":"
               "\"https://x.org/a\"}",
               NULL);
    b.spec.inputs = &image;
    b.spec.input_count = 1;
    req = b.provider->submit(b.arena, &b.spec);
    cr_expect_str_eq(part_of(&req, "text_prompts[0][text]"), "a door");
    cr_expect_str_eq(part_of(&req, "text_prompts[0][weight]"), "0.5");
    cr_expect_str_eq(part_of(&req, "text_prompts[1][text]"), "rain");
    cr_expect_str_eq(part_of(&req, "text_prompts[1][weight]"), "-1");
    cr_expect_str_eq(part_of(&req, "image_strength"), "0.35");
    cr_expect_str_eq(part_of(&req, "init_image"), "/tmp/in");
    json_decref(req.body);
    bench_done(&b);
}

Test(stability, inpainting_with_generation_two_sends_no_model)
{
    struct job_input audio = { .field = "audio", .path = "/tmp/in", .mime = "audio/wav", .bytes = 10 };
    static const char *const params[] = {
        "{\"prompt\":\"a\",\"audio\":\"https://x.org/a\"}",
        "{\"prompt\":\"a\",\"audio\":\"https://x.org/a\",\"model\":\"stable-audio-3\"}"
    };

    for (size_t i = 0; i < ARRAY_LEN(params); i++) {
        struct bench b;
        struct http_req req;

        bench_open(&b, "stability.audio.inpaint", params[i], NULL);
        b.spec.inputs = &audio;
        b.spec.input_count = 1;
        req = b.provider->submit(b.arena, &b.spec);
        cr_expect_eq(part_of(&req, "model") != NULL, i == 1);
        cr_expect_eq(part_of(&req, "cfg_scale") != NULL, i == 1);
        cr_expect_str_eq(part_of(&req, "mask_end"), i == 1 ? "380" : "190");
        json_decref(req.body);
        bench_done(&b);
    }
}

Test(stability, a_check_says_whether_the_key_is_good_and_what_is_left)
{
    struct http_answer good = { .status = 200, .data = "{}", .len = 2, .json = json_pack("{s:f}", "credits", 12.5) };
    struct http_answer bad = { .status = 401, .data = "{}", .len = 2 };
    struct bench b;
    struct http_req req;
    struct provider_health got;

    bench_open(&b, CREATIVE, CREATIVE_PARAMS, NULL);
    req = provider_check(b.arena, b.op->provider);
    cr_expect_str_eq(req.path, "/v1/user/balance");
    got = provider_on_check(b.arena, b.op->provider, &good);
    cr_expect_eq(got.code, ERR_OK);
    cr_expect(got.has_balance);
    cr_expect_float_eq(got.balance, 12.5, 1e-9);
    cr_expect_str_eq(got.unit, "credits");
    got = provider_on_check(b.arena, b.op->provider, &bad);
    cr_expect_eq(got.code, ERR_AUTH);
    cr_expect_not(got.has_balance);
    json_decref((json_t *)good.json);
    bench_done(&b);
}
