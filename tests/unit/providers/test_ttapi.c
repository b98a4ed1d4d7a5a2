/* test_ttapi.c - Midjourney through TTAPI: every answer that the page describes, to a submit and to a fetch. */
#include "tests/unit/providers/fixture.h"

#define REF    "afa774a3-1aee-4aba-9510-14818d6875e4"
#define OP     "midjourney.imagine"
#define PARAMS "{\"prompt\":\"a heron in ink wash --ar 2:3 --v 6.1\"}"

static const struct expectation rows[] = {
    { "submit", OUT_PENDING, ERR_OK, OUT_FAIL, ERR_BAD_RESPONSE, 0, 0 },
    { "submit_job_id", OUT_PENDING, ERR_OK, OUT_FAIL, ERR_BAD_RESPONSE, 0, 0 },
    { "submit_top_id", OUT_PENDING, ERR_OK, OUT_FAIL, ERR_BAD_RESPONSE, 0, 0 },
    { "submit_number_id", OUT_PENDING, ERR_OK, OUT_FAIL, ERR_BAD_RESPONSE, 0, 0 },
    { "submit_no_id", OUT_FAIL, ERR_BAD_RESPONSE, OUT_FAIL, ERR_BAD_RESPONSE, 0, 0 },
    { "submit_hostile_id", OUT_FAIL, ERR_BAD_RESPONSE, OUT_FAIL, ERR_BAD_RESPONSE, 0, 0 },
    { "queued", OUT_PENDING, ERR_OK, OUT_PENDING, ERR_OK, 0, 0 },
    { "running", OUT_PENDING, ERR_OK, OUT_PENDING, ERR_OK, 0, 0 },
    { "unknown_word", OUT_PENDING, ERR_OK, OUT_PENDING, ERR_OK, 0, 0 },
    { "done_four", OUT_PENDING, ERR_OK, OUT_DONE, ERR_OK, 0, 4 },
    { "done_grid", OUT_PENDING, ERR_OK, OUT_DONE, ERR_OK, 0, 1 },
    { "done_hollow", OUT_PENDING, ERR_OK, OUT_DONE, ERR_OK, 0, 1 },
    { "done_discord", OUT_PENDING, ERR_OK, OUT_DONE, ERR_OK, 0, 1 },
    { "done_nothing", OUT_PENDING, ERR_OK, OUT_FAIL, ERR_BAD_RESPONSE, 0, 0 },
    { "done_no_data", OUT_PENDING, ERR_OK, OUT_FAIL, ERR_BAD_RESPONSE, 0, 0 },
    { "failed_banned", OUT_FAIL, ERR_CONTENT_FILTERED, OUT_FAIL, ERR_CONTENT_FILTERED, 0, 0 },
    { "failed_denied", OUT_FAIL, ERR_CONTENT_FILTERED, OUT_FAIL, ERR_CONTENT_FILTERED, 0, 0 },
    { "failed_moderator", OUT_FAIL, ERR_CONTENT_FILTERED, OUT_FAIL, ERR_CONTENT_FILTERED, 0, 0 },
    { "failed_nsfw", OUT_FAIL, ERR_CONTENT_FILTERED, OUT_FAIL, ERR_CONTENT_FILTERED, 0, 0 },
    { "failed_violation", OUT_FAIL, ERR_CONTENT_FILTERED, OUT_FAIL, ERR_CONTENT_FILTERED, 0, 0 },
    { "failed_timeout", OUT_FAIL, ERR_TIMEOUT, OUT_FAIL, ERR_TIMEOUT, 0, 0 },
    { "failed_parameter", OUT_FAIL, ERR_INVALID_REQUEST, OUT_FAIL, ERR_INVALID_REQUEST, 0, 0 },
    { "failed_link", OUT_FAIL, ERR_INVALID_REQUEST, OUT_FAIL, ERR_INVALID_REQUEST, 0, 0 },
    { "failed_quota", OUT_FAIL, ERR_INSUFFICIENT_FUNDS, OUT_FAIL, ERR_INSUFFICIENT_FUNDS, 0, 0 },
    { "failed_balance", OUT_FAIL, ERR_INSUFFICIENT_FUNDS, OUT_FAIL, ERR_INSUFFICIENT_FUNDS, 0, 0 },
    { "failed_internal", OUT_FAIL, ERR_PROVIDER_UNAVAILABLE, OUT_FAIL, ERR_PROVIDER_UNAVAILABLE, 0, 0 },
    { "failed_internal_server", OUT_FAIL, ERR_PROVIDER_UNAVAILABLE, OUT_FAIL, ERR_PROVIDER_UNAVAILABLE, 0, 0 },
    { "failed_execution", OUT_FAIL, ERR_PROVIDER_UNAVAILABLE, OUT_FAIL, ERR_PROVIDER_UNAVAILABLE, 0, 0 },
    { "failed_command", OUT_FAIL, ERR_PROVIDER_UNAVAILABLE, OUT_FAIL, ERR_PROVIDER_UNAVAILABLE, 0, 0 },
    { "failed_integration", OUT_FAIL, ERR_PROVIDER_UNAVAILABLE, OUT_FAIL, ERR_PROVIDER_UNAVAILABLE, 0, 0 },
    { "failed_message", OUT_FAIL, ERR_PROVIDER_UNAVAILABLE, OUT_FAIL, ERR_PROVIDER_UNAVAILABLE, 0, 0 },
    { "failed_message_zh", OUT_FAIL, ERR_PROVIDER_UNAVAILABLE, OUT_FAIL, ERR_PROVIDER_UNAVAILABLE, 0, 0 },
    { "failed_integration_zh", OUT_FAIL, ERR_PROVIDER_UNAVAILABLE, OUT_FAIL, ERR_PROVIDER_UNAVAILABLE, 0, 0 },
    { "failed_other", OUT_FAIL, ERR_PROVIDER_ERROR, OUT_FAIL, ERR_PROVIDER_ERROR, 0, 0 },
    { "failed_empty", OUT_FAIL, ERR_PROVIDER_ERROR, OUT_FAIL, ERR_PROVIDER_ERROR, 0, 0 },
    { "failed_null", OUT_FAIL, ERR_PROVIDER_ERROR, OUT_FAIL, ERR_PROVIDER_ERROR, 0, 0 },
    { "cancelled", OUT_PENDING, ERR_OK, OUT_FAIL, ERR_PROVIDER_ERROR, 0, 0 },
    { "400_field", OUT_FAIL, ERR_INVALID_REQUEST, OUT_FAIL, ERR_INVALID_REQUEST, 0, 0 },
    { "400_banned", OUT_FAIL, ERR_CONTENT_FILTERED, OUT_FAIL, ERR_CONTENT_FILTERED, 0, 0 },
    { "400_moderat", OUT_FAIL, ERR_CONTENT_FILTERED, OUT_FAIL, ERR_CONTENT_FILTERED, 0, 0 },
    { "400_nsfw", OUT_FAIL, ERR_CONTENT_FILTERED, OUT_FAIL, ERR_CONTENT_FILTERED, 0, 0 },
    { "400_violat", OUT_FAIL, ERR_CONTENT_FILTERED, OUT_FAIL, ERR_CONTENT_FILTERED, 0, 0 },
    { "400_sensitive", OUT_FAIL, ERR_CONTENT_FILTERED, OUT_FAIL, ERR_CONTENT_FILTERED, 0, 0 },
    { "401", OUT_FAIL, ERR_AUTH, OUT_FAIL, ERR_AUTH, 0, 0 },
    { "402", OUT_FAIL, ERR_INSUFFICIENT_FUNDS, OUT_FAIL, ERR_INSUFFICIENT_FUNDS, 0, 0 },
    { "403", OUT_FAIL, ERR_AUTH, OUT_FAIL, ERR_AUTH, 0, 0 },
    { "404", OUT_FAIL, ERR_NOT_FOUND, OUT_FAIL, ERR_NOT_FOUND, 0, 0 },
    { "429", OUT_RETRY, ERR_RATE_LIMITED, OUT_RETRY, ERR_RATE_LIMITED, 7, 0 },
    { "499", OUT_RETRY, ERR_RATE_LIMITED, OUT_RETRY, ERR_RATE_LIMITED, 0, 0 },
    { "500", OUT_RETRY, ERR_PROVIDER_ERROR, OUT_RETRY, ERR_PROVIDER_ERROR, 0, 0 },
    { "504", OUT_RETRY, ERR_TIMEOUT, OUT_RETRY, ERR_TIMEOUT, 0, 0 },
    { "html_502", OUT_RETRY, ERR_PROVIDER_UNAVAILABLE, OUT_RETRY, ERR_PROVIDER_UNAVAILABLE, 0, 0 },
    { "html_200", OUT_FAIL, ERR_BAD_RESPONSE, OUT_RETRY, ERR_BAD_RESPONSE, 0, 0 },
    { "cut", OUT_FAIL, ERR_BAD_RESPONSE, OUT_RETRY, ERR_BAD_RESPONSE, 0, 0 },
    { "empty", OUT_FAIL, ERR_BAD_RESPONSE, OUT_RETRY, ERR_BAD_RESPONSE, 0, 0 },
};

Test(ttapi, judges_every_answer_as_the_page_does)
{
    struct bench b;

    bench_open(&b, OP, PARAMS, NULL);
    expect_all(&b, "ttapi", rows, ARRAY_LEN(rows));
    cr_expect_eq(ARRAY_LEN(rows), fixture_count("ttapi"), "a fixture that no row of the table judges");
    bench_done(&b);
}

Test(ttapi, only_what_is_said_of_the_job_is_terminal)
{
    static const struct {
        const char *file;
        bool is_terminal;
    } table[] = { { "failed_timeout", true },
                  { "failed_internal", true },
                  { "cancelled", true },
                  { "done_nothing", true },
                  { "404", true },
                  { "401", false },
                  { "402", false },
                  { "429", false },
                  { "499", false },
                  { "cut", false },
                  { "running", false } };
    struct bench b;

    bench_open(&b, OP, PARAMS, NULL);
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        struct fixture f;

        fixture_open(&f, "ttapi", table[i].file);
        cr_expect_eq(b.provider->on_poll(b.arena, &b.spec, &f.answer).is_terminal, table[i].is_terminal, "%s",
                     table[i].file);
        fixture_done(&f);
    }
    bench_done(&b);
}

Test(ttapi, the_job_s_id_is_what_is_asked_for_and_what_an_action_names)
{
    static const char *const files[] = { "submit", "submit_job_id", "submit_top_id" };
    struct bench b;
    struct http_req req;

    bench_open(&b, OP, PARAMS, NULL);
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        struct fixture f;
        struct answer got;

        fixture_open(&f, "ttapi", files[i]);
        got = b.provider->on_submit(b.arena, &b.spec, &f.answer);
        cr_expect_str_eq(got.ref, REF, "%s", files[i]);
        cr_expect_str_eq(got.request_id, REF, "%s", files[i]);
        cr_expect_str_eq(b.provider->poll(b.arena, &b.spec, got.ref).path, "/fetch?jobId=" REF);
        fixture_done(&f);
    }
    cr_expect_null(b.provider->poll(b.arena, &b.spec, "a&b").path);
    bench_done(&b);
    bench_open(&b, "midjourney.action", "{\"jobId\":\"" REF "\",\"action\":\"upsample2\"}", NULL);
    req = b.provider->submit(b.arena, &b.spec);
    cr_expect_str_eq(req.path, "/action");
    cr_expect_str_eq(json_text(req.body, "jobId"), REF);
    cr_expect_str_eq(json_text(req.body, "action"), "upsample2");
    json_decref(req.body);
    bench_done(&b);
}

Test(ttapi, tells_how_far_it_is_and_the_seed)
{
    struct bench b;
    struct fixture f;
    struct answer got;

    bench_open(&b, OP, PARAMS, NULL);
    fixture_open(&f, "ttapi", "running");
    cr_expect_eq(b.provider->on_poll(b.arena, &b.spec, &f.answer).percent, 46);
    fixture_done(&f);
    fixture_open(&f, "ttapi", "unknown_word");
    cr_expect(b.provider->on_poll(b.arena, &b.spec, &f.answer).is_unknown_word);
    fixture_done(&f);
    fixture_open(&f, "ttapi", "done_grid");
    got = b.provider->on_poll(b.arena, &b.spec, &f.answer);
    cr_expect_str_eq(got.outputs[0].seed, "3571");
    fixture_done(&f);
    bench_done(&b);
}

/* What the request's prompt becomes; "" when the job is refused before it is sent. */
static char *prompt_of(const char *params)
{
    struct bench b;
    struct http_req req;
    char *text;

    bench_open(&b, OP, params, NULL);
    req = b.provider->submit(b.arena, &b.spec);
    text = strdup(req.path != NULL ? json_text(req.body, "prompt") : "");
    cr_expect(req.path != NULL || req.body == NULL);
    cr_expect_null(json_object_get(req.body, "cref"));
    cr_expect_null(json_object_get(req.body, "cw"));
    json_decref(req.body);
    bench_done(&b);
    return text;
}

Test(ttapi, character_references_become_flags_of_a_prompt_that_can_have_them)
{
#define A "https://example.org/a.png"
    static const struct {
        const char *params, *prompt;
    } table[] = {
        { "{\"prompt\":\"a knight\"}", "a knight" },
        { "{\"prompt\":\"a knight --v 6.1\",\"cref\":[\"" A "\"]}", "a knight --v 6.1 --cref " A },
        { "{\"prompt\":\"a knight\",\"cref\":[\"" A "\",\"" A "\"],\"cw\":40}",
          "a knight --v 6.0 --cref " A " " A " --cw 40" },
        { "{\"prompt\":\"a knight --niji 6\",\"cref\":[\"" A "\"],\"cw\":0}", "a knight --niji 6 --cref " A " --cw 0" },
        { "{\"prompt\":\"a knight --v 5.2\",\"cref\":[\"" A "\"]}", "" },
        { "{\"prompt\":\"a knight --version 5\",\"cref\":[\"" A "\"]}", "" },
        { "{\"prompt\":\"a knight\",\"cref\":[\"http://example.org/a.png\"]}", "" },
        { "{\"prompt\":\"a knight\",\"cref\":[\"" A " --turbo\"]}", "" },
    };

    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        char *got = prompt_of(table[i].params);

        cr_expect_str_eq(got, table[i].prompt, "%s: %s", table[i].params, got);
        free(got);
    }
}

Test(ttapi, relax_has_patience_of_its_own_and_modes_are_always_sent)
{
    struct bench b;
    struct http_req req;

    bench_open(&b, OP, "{\"prompt\":\"a\",\"mode\":\"relax\"}", NULL);
    req = b.provider->submit(b.arena, &b.spec);
    cr_expect_eq(json_integer_value(json_object_get(req.body, "timeout")), 600);
    json_decref(req.body);
    bench_done(&b);
    bench_open(&b, OP, "{\"prompt\":\"a\"}", NULL);
    req = b.provider->submit(b.arena, &b.spec);
    cr_expect_str_eq(json_text(req.body, "mode"), "fast");
    cr_expect_eq(json_integer_value(json_object_get(req.body, "timeout")), 300);
    cr_expect(json_is_false(json_object_get(req.body, "getUImages")));
    cr_expect_null(json_object_get(req.body, "translation"));
    json_decref(req.body);
    bench_done(&b);
}
