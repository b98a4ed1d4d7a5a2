/* test_comfyui.c - the ComfyUI adapter against every answer that its page describes, to a submit and to a poll; slots,
 * uploads, and what the queue says of a submit whose answer was lost. */
#include "tests/unit/providers/fixture.h"

#define OP     "comfyui.prompt"
#define REF    "0e4c2b1a-7f6d-4e55-9a11-3c2b1a0f9e8d"
#define FLOW   "{\"4\":{\"class_type\":\"CheckpointLoaderSimple\",\"inputs\":{\"ckpt_name\":\"a\"}}}"
#define PARAMS "{\"workflow\":" FLOW ",\"batch_size\":2}"
#define BASE   "http://127.0.0.1:8188"

#define BOTH(outcome, code) outcome, code, outcome, code
#define BAD                 OUT_FAIL, ERR_BAD_RESPONSE, OUT_RETRY, ERR_BAD_RESPONSE
#define POLL(outcome, code) OUT_FAIL, ERR_BAD_RESPONSE, outcome, code

static const struct expectation rows[] = {
    { "submit", OUT_PENDING, ERR_OK, OUT_RETRY, ERR_BAD_RESPONSE, 0, 0 },
    { "submit_node_errors", OUT_PENDING, ERR_OK, OUT_RETRY, ERR_BAD_RESPONSE, 0, 0 },
    { "submit_no_id", BAD, 0, 0 },
    { "submit_hostile_id", BAD, 0, 0 },
    { "submit_text", BAD, 0, 0 },
    { "failed_validation", BOTH(OUT_FAIL, ERR_INVALID_REQUEST), 0, 0 },
    { "input_missing", BOTH(OUT_FAIL, ERR_INVALID_REQUEST), 0, 0 },
    { "no_outputs", BOTH(OUT_FAIL, ERR_INVALID_REQUEST), 0, 0 },
    { "invalid_prompt", BOTH(OUT_FAIL, ERR_INVALID_REQUEST), 0, 0 },
    { "no_prompt", BOTH(OUT_FAIL, ERR_INVALID_REQUEST), 0, 0 },
    { "trouble", BOTH(OUT_RETRY, ERR_PROVIDER_ERROR), 0, 0 },
    { "trouble_json", BOTH(OUT_RETRY, ERR_PROVIDER_ERROR), 0, 0 },
    { "plain_text", BOTH(OUT_RETRY, ERR_PROVIDER_ERROR), 2, 0 },
    { "html_502", BOTH(OUT_RETRY, ERR_PROVIDER_UNAVAILABLE), 0, 0 },
    { "gateway_timeout", BOTH(OUT_RETRY, ERR_TIMEOUT), 0, 0 },
    { "waiting", POLL(OUT_PENDING, ERR_OK), 0, 0 },
    { "listed", POLL(OUT_PENDING, ERR_OK), 0, 0 },
    { "not_listed", POLL(OUT_PENDING, ERR_OK), 0, 0 },
    { "success", POLL(OUT_DONE, ERR_OK), 0, 1 },
    { "success_two", POLL(OUT_DONE, ERR_OK), 0, 2 },
    { "no_status", POLL(OUT_DONE, ERR_OK), 0, 1 },
    { "status_null", POLL(OUT_DONE, ERR_OK), 0, 1 },
    { "cached", POLL(OUT_DONE, ERR_OK), 0, 1 },
    { "previews_only", POLL(OUT_FAIL, ERR_BAD_RESPONSE), 0, 0 },
    { "no_images", POLL(OUT_FAIL, ERR_BAD_RESPONSE), 0, 0 },
    { "execution_error", POLL(OUT_FAIL, ERR_PROVIDER_ERROR), 0, 0 },
    { "interrupted", POLL(OUT_FAIL, ERR_PROVIDER_ERROR), 0, 0 },
    { "unknown_word", POLL(OUT_PENDING, ERR_OK), 0, 0 },
    { "odd", BAD, 0, 0 },
    { "cut", BAD, 0, 0 },
    { "array", BAD, 0, 0 },
};

Test(comfyui, judges_every_answer_of_the_page)
{
    struct bench b;

    bench_open(&b, OP, PARAMS, BASE);
    expect_all(&b, "comfyui", rows, ARRAY_LEN(rows));
    cr_expect_eq(ARRAY_LEN(rows), fixture_count("comfyui"), "a fixture that no row of the table judges");
    bench_done(&b);
}

static struct answer asked(struct bench *b, const char *name, bool is_poll)
{
    struct fixture f;
    struct answer out;

    fixture_open(&f, "comfyui", name);
    out = (is_poll ? b->provider->on_poll : b->provider->on_submit)(b->arena, &b->spec, &f.answer);
    fixture_done(&f);
    return out;
}

Test(comfyui, names_what_is_wrong_with_the_workflow)
{
    struct bench b;

    bench_open(&b, OP, PARAMS, BASE);
    cr_expect_str_eq(
        asked(&b, "failed_validation", false).message,
        "Prompt outputs failed validation; node 4: Value not in list: ckpt_name: 'x.safetensors' not in ['a']");
    cr_expect_str_eq(asked(&b, "no_prompt", false).message, "no prompt");
    cr_expect_str_eq(asked(&b, "execution_error", true).message, "Allocation on device 0 would exceed allowed memory.");
    cr_expect_str_eq(asked(&b, "interrupted", true).message, "the workflow was interrupted at the server");
    cr_expect(asked(&b, "trouble", false).is_free);
    cr_expect_str_eq(asked(&b, "submit", false).ref, REF);
    bench_done(&b);
}

Test(comfyui, fetches_output_images_and_no_previews_with_every_part_escaped)
{
    struct bench b;
    struct answer out;

    bench_open(&b, OP, PARAMS, BASE);
    out = asked(&b, "success_two", true);
    cr_assert_eq(out.output_count, 2);
    cr_expect_str_eq(out.outputs[0].url, BASE "/view?filename=a%20b%26c.png&subfolder=x%2Fy&type=output");
    cr_expect_str_eq(out.outputs[1].url, BASE "/view?filename=c.png&subfolder=&type=output");
    cr_expect_eq(out.cost_microusd, 0);
    bench_done(&b);
}

/* An empty history is a workflow that waits, or one that nobody knows: in neither place three times, it is gone. */
Test(comfyui, looks_into_the_queue_now_and_then_and_gives_up_after_the_third_time_in_neither)
{
    struct bench b;
    int looks = 0;

    bench_open(&b, OP, PARAMS, BASE);
    for (b.spec.blanks = 0;; b.spec.blanks++) {
        struct http_req req = b.provider->poll(b.arena, &b.spec, REF);
        bool is_look = strcmp(req.path, "/queue") == 0;
        struct answer out = asked(&b, is_look ? "not_listed" : "waiting", true);

        looks += is_look;
        cr_expect(is_look || strcmp(req.path, "/history/" REF) == 0, "%s", req.path);
        if (out.outcome == OUT_FAIL) {
            cr_expect(out.code == ERR_NOT_FOUND && out.is_terminal);
            break;
        }
        cr_expect(out.outcome == OUT_PENDING && out.is_blank);
        cr_assert_lt(b.spec.blanks, 20u);
    }
    cr_expect_eq(looks, 3);
    cr_expect_not(asked(&b, "listed", true).is_blank, "it waits: counting begins anew");
    bench_done(&b);
}

Test(comfyui, fills_slots_with_their_types_and_sends_the_job_as_client)
{
    struct bench b;
    struct http_req req;
    const json_t *inputs;

    bench_open(
        &b, OP,
        "{\"workflow\":{\"6\":{\"class_type\":\"T\",\"inputs\":{\"text\":\"a {{prompt}}, {{mood}} x{{batch_size}}\","
        "\"seed\":\"{{seed}}\",\"own\":\"{{n}}\",\"clip\":[\"4\",1],\"no\":\"{{negative_prompt}}\",\"on\":\"{{on}}\",\"brace\":\"}}{{\"}}},"
        "\"prompt\":\"{{mood}}\",\"values\":{\"mood\":\"calm\",\"n\":2.5,\"on\":true}}",
        BASE);
    req = b.provider->submit(b.arena, &b.spec);
    cr_assert_not_null(req.path);
    cr_expect_str_eq(req.path, "/prompt");
    cr_expect_str_eq(json_text(req.body, "client_id"), b.spec.job_id);
    inputs = json_object_get(json_object_get(json_object_get(req.body, "prompt"), "6"), "inputs");
    cr_expect_str_eq(json_text(inputs, "text"), "a {{mood}}, calm x1", "a value is not looked through again");
    cr_expect(json_is_integer(json_object_get(inputs, "seed")), "nobody gave one: from the job's id");
    cr_expect_float_eq(json_real_value(json_object_get(inputs, "own")), 2.5, 1e-9);
    cr_expect_str_eq(json_text(inputs, "no"), "");
    cr_expect(json_is_true(json_object_get(inputs, "on")));
    cr_expect_str_eq(json_text(inputs, "brace"), "}}{{");
    cr_expect_eq(json_object_size(req.body), 2, "parameters are slots, not members of the body");
    json_decref(req.body);
    bench_done(&b);
}

Test(comfyui, sends_nothing_with_a_slot_that_nothing_fills)
{
    struct bench b;

    bench_open(&b, OP, "{\"workflow\":{\"6\":{\"class_type\":\"T\",\"inputs\":{\"text\":\"{{nobody}}\"}}}}", BASE);
    cr_expect_null(b.provider->submit(b.arena, &b.spec).path);
    bench_done(&b);
}

Test(comfyui, uploads_each_file_once_and_puts_its_name_there_into_the_slot)
{
    static const struct job_input inputs[] = {
        { .field = "image", .path = "/x", .mime = "image/png", .bytes = 3 },
        { .field = "mask", .path = "/y", .mime = "image/webp", .bytes = 3 },
    };
    static const char *const answers[] = { "{\"name\":\"a.png\",\"subfolder\":\"\",\"type\":\"input\"}",
                                           "{\"name\":\"m.webp\",\"subfolder\":\"in\",\"type\":\"input\"}" };
    struct bench b;
    struct http_req req;
    json_t *kept = json_object();

    bench_open(
        &b, OP,
        "{\"workflow\":{\"1\":{\"class_type\":\"LoadImage\",\"inputs\":{\"image\":\"{{image}}\",\"mask\":\"{{mask}}\"}}},"
        "\"image\":\"https://example.org/a.png\",\"mask\":\"https://example.org/b.webp\"}",
        BASE);
    b.spec.inputs = inputs;
    b.spec.input_count = 2;
    b.spec.kept = kept;
    for (size_t i = 0; i < 2; i++) {
        struct http_answer in = { .status = 200, .data = answers[i], .len = strlen(answers[i]) };

        cr_assert(b.provider->prepare(b.arena, &b.spec, &req));
        cr_expect_str_eq(req.path, "/upload/image");
        cr_assert_eq(req.part_count, 3);
        cr_expect_str_eq(req.parts[0].path, inputs[i].path);
        in.json = json_parse(in.data, in.len, NULL);
        cr_expect_eq(b.provider->on_prepare(b.arena, &b.spec, &in, kept).outcome, OUT_DONE);
        json_decref((json_t *)in.json);
    }
    cr_expect_not(b.provider->prepare(b.arena, &b.spec, &req), "both are there");
    req = b.provider->submit(b.arena, &b.spec);
    cr_assert_not_null(req.path);
    cr_expect_str_eq(
        json_text(json_object_get(json_object_get(json_object_get(req.body, "prompt"), "1"), "inputs"), "mask"),
        "in/m.webp");
    json_decref(req.body);
    json_decref(kept);
    bench_done(&b);
}

Test(comfyui, finds_a_lost_submit_in_the_queue_by_its_client_and_takes_nobody_else_s)
{
    static const char *const others[] = { "not_listed", "waiting", "trouble", "submit_text", "array", "success" };
    struct bench b;
    struct fixture f;
    struct answer out;

    bench_open(&b, OP, PARAMS, BASE);
    cr_expect_str_eq(b.provider->reconcile(b.arena, &b.spec).path, "/queue");
    fixture_open(&f, "comfyui", "listed");
    out = b.provider->on_reconcile(b.arena, &b.spec, &f.answer);
    cr_expect_eq(out.outcome, OUT_PENDING);
    cr_expect_str_eq(out.ref, REF);
    b.spec.job_id = "0198d4c2-0000-7000-8000-000000000002";
    cr_expect_neq(b.provider->on_reconcile(b.arena, &b.spec, &f.answer).outcome, OUT_PENDING, "another job's");
    fixture_done(&f);
    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        fixture_open(&f, "comfyui", others[i]);
        cr_expect_neq(b.provider->on_reconcile(b.arena, &b.spec, &f.answer).outcome, OUT_PENDING, "%s", others[i]);
        fixture_done(&f);
    }
    bench_done(&b);
}
