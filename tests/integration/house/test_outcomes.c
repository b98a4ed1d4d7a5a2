/* test_outcomes.c - the path of each error code that ends a job at once: what the provider or kiln itself says for
 * good. Every one is asked for once, charged nothing, and says why. What is asked again is test_retries.c; what nobody
 * knows, test_unknown.c. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "tests/integration/house/cases.h"

SUPPORT_SERVICES();

enum { LIMIT_MS = 90000 };

#define CASES(list) (list), sizeof(list) / sizeof((list)[0])

Test(outcomes, what_a_content_filter_stops_is_final_and_free)
{
    static const struct want list[] = {
        { "gptmod", GPT, "moderated", NULL, "content_filtered", false, 0, 1, 0, 1, 400, NULL },
        { "dallemod", GPT, "moderated", ",\"model\":\"dall-e-2\",\"size\":\"256x256\"", "content_filtered", false, 0, 1,
          0, 1, 400, NULL },
        { "coremod", CORE, "moderated", NULL, "content_filtered", false, 0, 1, 0, 1, 403, NULL },
        { "coreblur", CORE, "filtered", NULL, "content_filtered", false, 0, 1, 1, 1, 200, "blurred" },
        { "creamod", CREATIVE, "moderated", NULL, "content_filtered", false, 0, 1, 0, 1, 403, NULL },
        { "creapoll", CREATIVE, "moderated,at=poll", NULL, "content_filtered", false, 0, 1, 1, NOT_ASKED, 403, NULL },
        { "creablur", CREATIVE, "filtered", NULL, "content_filtered", false, 0, 1, 1, NOT_ASKED, 200, NULL },
        { "leomod", LEO, "moderated", NULL, "content_filtered", false, 0, 1, 0, 1, 403, NULL },
        { "leomod400", LEO, "moderated=400", NULL, "content_filtered", false, 0, 1, 0, 1, 400, NULL },
    };
    static const struct house_options options = { .catalog = CATALOG_LEO("") };
    struct house *h = house_open(&options);

    cases_run(h, CASES(list), LIMIT_MS);
    house_close(h);
}

Test(outcomes, other_refusals_are_final_and_free)
{
    static const struct want list[] = {
        { "gpt400", GPT, "status=400", NULL, "invalid_request", false, 0, 1, 0, 1, 400, NULL },
        { "gpt404", GPT, "status=404,code=model_not_found", NULL, "not_found", false, 0, 1, 0, 1, 404, NULL },
        { "gpt402", GPT, "status=402", NULL, "insufficient_funds", false, 0, 1, 0, 1, 402, NULL },
        { "gpt403", GPT, "status=403", NULL, "auth", false, 0, 1, 0, 1, 403, NULL },
        { "gptquota", GPT, "status=429,code=insufficient_quota", NULL, "insufficient_funds", false, 0, 1, 0, 1, 429,
          NULL },
        { "gptnoretry", GPT, "html,status=503,should_retry=0", NULL, "provider_unavailable", true, 0, 1, 0, 1, 503,
          NULL },
        { "core413", CORE, "status=413", NULL, "invalid_request", false, 0, 1, 0, 1, 413, NULL },
        { "core422", CORE, "status=422", NULL, "invalid_request", false, 0, 1, 0, 1, 422, NULL },
        { "core402", CORE, "status=402", NULL, "insufficient_funds", false, 0, 1, 0, 1, 402, NULL },
        { "core401", CORE, "status=401", NULL, "auth", false, 0, 1, 0, 1, 401, NULL },
        { "core451", CORE, "status=451,code=geo", NULL, "invalid_request", false, 0, 1, 0, 1, 451,
          NULL },                                                                               /* its own page */
        { "core302", CORE, "status=302", NULL, "outcome_unknown", false, 0, 2, 0, 2, 0, NULL }, /* never followed */
        { "leo400", LEO, "status=400", NULL, "invalid_request", false, 0, 1, 0, 1, 400, NULL },
        { "leo451", LEO, "status=451", NULL, "region_blocked", false, 0, 1, 0, 1, 451, NULL },
        { "leo404", LEO, "status=404", NULL, "not_found", false, 0, 1, 0, 1, 404, NULL },
    };
    static const struct house_options options = { .catalog = CATALOG_LEO("") };
    struct house *h = house_open(&options);

    cases_run(h, CASES(list), LIMIT_MS);
    house_close(h);
}

/* A job may have been billed: it is never asked for again, and the customer pays nothing. */
Test(outcomes, an_answer_that_cannot_be_read_is_final_and_free)
{
    static const struct want list[] = {
        { "gpthtml", GPT, "html,status=200", NULL, "bad_response", false, 0, 1, 1, 1, 200, NULL },
        { "gptjson", GPT, "bad_json", NULL, "bad_response", false, 0, 1, 1, 1, 200, NULL },
        { "gptempty", GPT, "empty_body", NULL, "bad_response", false, 0, 1, 1, 1, 200, NULL },
        { "gpttrunc", GPT, "truncate=2000", NULL, "bad_response", false, 0, 1, 1, 1, 200, NULL },
        { "gptmid", GPT, "drop_mid=2000", NULL, "bad_response", false, 0, 1, 1, 1, 200, NULL },
        { "gptnone", GPT, "empty", NULL, "bad_response", false, 0, 1, 1, 1, 200, NULL },
        { "gptcut", GPT, "cut_image", NULL, "bad_response", false, 0, 1, 1, 1, 200, NULL },
        { "corehtml", CORE, "html,status=200", NULL, "bad_response", false, 0, 1, 1, 1, 200, NULL },
        { "corejson", CORE, "bad_json", NULL, "bad_response", false, 0, 1, 1, 1, 200, NULL },
        { "coreempty", CORE, "empty_body", NULL, "bad_response", false, 0, 1, 1, 1, 200, NULL },
        { "coretrunc", CORE, "truncate=2000", NULL, "bad_response", false, 0, 1, 1, 1, 200, NULL },
        { "coremid", CORE, "drop_mid=2000", NULL, "bad_response", false, 0, 1, 1, 1, 200, NULL },
        { "corecut", CORE, "cut_image", NULL, "bad_response", false, 0, 1, 1, 1, 200, NULL },
        { "leohtml", LEO, "html,status=200", NULL, "bad_response", false, 0, 1, 1, 1, 200, NULL },
        { "leojson", LEO, "bad_json", NULL, "bad_response", false, 0, 1, 1, 1, 200, NULL },
        { "leonull", LEO, "null_job", NULL, "bad_response", false, 0, 1, 1, 1, 200, NULL },
        { "leonoid", LEO, "missing_id", NULL, "bad_response", false, 0, 1, 1, 1, 200, NULL },
        { "leotrunc", LEO, "truncate=20", NULL, "bad_response", false, 0, 1, 1, 1, 200, NULL },
        { "leomid", LEO, "drop_mid=20", NULL, "bad_response", false, 0, 1, 1, 1, 200, NULL },
        { "creanoid", CREATIVE, "missing_id", NULL, "bad_response", false, 0, 1, 1, 1, 200, NULL },
        { "creajson", CREATIVE, "bad_json", NULL, "bad_response", false, 0, 1, 1, 1, 200, NULL },
    };
    static const struct house_options options = { .catalog = CATALOG_LEO("") };
    struct house *h = house_open(&options);

    cases_run(h, CASES(list), LIMIT_MS);
    house_close(h);
}

Test(outcomes, a_result_that_is_not_what_was_promised_is_final_and_free)
{
    static const struct want list[] = {
        { "gptblank", GPT, "blank", NULL, "bad_result", false, 0, 1, 1, 1, 0, NULL },
        { "gptformat", GPT, "wrong_format", ",\"quality\":\"low\",\"output_format\":\"png\"", "bad_result", false, 0, 1,
          1, 1, 0, "asked for png" },
        { "gptsize", GPT, "wrong_size", NULL, "bad_result", false, 0, 1, 1, 1, 0, "asked for 1024x1024" },
        { "dalleblank", GPT, "blank", ",\"model\":\"dall-e-2\",\"size\":\"256x256\"", "bad_result", false, 0, 1, 1, 1,
          0, NULL },
        { "coreblank", CORE, "blank", NULL, "bad_result", false, 0, 1, 1, 1, 0, NULL },
        { "coreformat", CORE, "wrong_format", NULL, "bad_result", false, 0, 1, 1, 1, 0, "asked for png" },
        { "leoblank", LEO, "blank", NULL, "bad_result", false, 0, 1, 1, 1, 0, NULL },
        { "leosize", LEO, "wrong_size", NULL, "bad_result", false, 0, 1, 1, 1, 0, "asked for 256x256" },
        { "creablank", CREATIVE, "blank", NULL, "bad_result", false, 0, 1, 1, 1, 0, NULL },
    };
    static const struct house_options options = { .catalog = CATALOG_LEO("") };
    struct house *h = house_open(&options);

    cases_run(h, CASES(list), LIMIT_MS);
    house_close(h);
}

Test(outcomes, a_failure_the_provider_reports_later_has_its_own_word)
{
    static const struct want list[] = {
        { "leofail", LEO, "fail", NULL, "provider_error", true, 0, 1, 1, 1, 200,
          "FAILED" }, /* failed work is not free */
        { "leonone", LEO, "empty", NULL, "bad_response", false, 0, 1, 1, 1, 200, "without an image" },
        { "leogone", LEO, "null_job,at=poll", NULL, "not_found", false, 0, 1, 1, 1, 200, NULL },
        { "leo404", LEO, "poll_status=404", NULL, "not_found", false, 0, 1, 1, 1, 404, NULL },
        { "leoword", LEO, "unknown_status=3", NULL, NULL, false, LEO_SMALL, 1, 1, 1, 0, NULL }, /* asked on */
        { "dallegone", GPT, "download_status=403", ",\"model\":\"dall-e-2\",\"size\":\"256x256\"", "not_found", false,
          0, 1, 1, 1, 0, NULL },
        { "dalle404", GPT, "download_status=404", ",\"model\":\"dall-e-2\",\"size\":\"256x256\"", "not_found", false, 0,
          1, 1, 1, 0, NULL },
        { "leodl404", LEO, "download_status=404", NULL, "not_found", false, 0, 1, 1, 1, 0, NULL },
    };
    static const struct house_options options = { .catalog = CATALOG_LEO("") };
    struct house *h = house_open(&options);

    cases_run(h, CASES(list), LIMIT_MS);
    house_close(h);
}

/* One worker after the other, each with other keys; the dispatcher, which never calls a provider, stays. */
static void run_with_keys(struct house *h, const char *const *env, const struct want *list, size_t count)
{
    (void)house_worker_start(h, env);
    cases_run(h, list, count, LIMIT_MS);
    house_kill(&h->workers[0], SIGTERM);
    cr_assert_eq(house_wait_exit(&h->workers[0], 30000), 0);
}

Test(outcomes, the_operators_keys_and_money_have_their_words)
{
    static const char *const bad[] = { "OPENAI_API_KEY=bad-key", "STABILITY_API_KEY=bad-key",
                                       "LEONARDO_API_KEY=malformed-key", NULL };
    static const struct want when_bad[] = {
        { "gptbad", GPT, NULL, NULL, "auth", false, 0, 1, 0, 1, 401, NULL },
        { "corebad", CORE, NULL, NULL, "auth", false, 0, 1, 0, 1, 401, NULL },
        { "leobad", LEO, NULL, NULL, "auth", false, 0, 1, 0, 1, 500, NULL }, /* the hook: body before status */
    };
    static const char *const denied[] = { "OPENAI_API_KEY=unverified-key", "LEONARDO_API_KEY=bad-key", NULL };
    static const struct want when_denied[] = {
        { "gptunv", GPT, NULL, NULL, "auth", false, 0, 1, 0, 1, 403, NULL },
        { "leodenied", LEO, NULL, NULL, "auth", false, 0, 1, 0, 1, 401, NULL },
    };
    static const char *const broke[] = { "OPENAI_API_KEY=broke-key", "STABILITY_API_KEY=broke-key",
                                         "LEONARDO_API_KEY=broke-key", NULL };
    static const struct want when_broke[] = {
        { "gptbroke", GPT, NULL, NULL, "insufficient_funds", false, 0, 1, 0, 1, 429, NULL },
        { "corebroke", CORE, NULL, NULL, "insufficient_funds", false, 0, 1, 0, 1, 402, NULL },
        { "leobroke", LEO, NULL, NULL, "insufficient_funds", false, 0, 1, 0, 1, 400, NULL },
    };
    static const char *const hard[] = { "OPENAI_API_KEY=hardlimit-key", NULL };
    static const struct want when_hard[] = {
        { "gpthard", GPT, NULL, NULL, "insufficient_funds", false, 0, 1, 0, 1, 400, NULL },
    };
    static const char *const zero[] = { "OPENAI_API_KEY=zero-key", NULL };
    static const struct want when_zero[] = {
        { "gptzero", GPT, NULL, NULL, "rate_limited", true, 0, 1, 0, 1, 429, NULL }, /* waiting would not help */
    };
    static const struct house_options options = { .catalog = CATALOG_LEO(""), .no_worker = true };
    struct house *h = house_open(&options);

    run_with_keys(h, bad, CASES(when_bad));
    run_with_keys(h, denied, CASES(when_denied));
    run_with_keys(h, broke, CASES(when_broke));
    run_with_keys(h, hard, CASES(when_hard));
    run_with_keys(h, zero, CASES(when_zero));
    house_close(h);
}

Test(outcomes, nobody_to_do_it_before_the_deadline_is_expired)
{
    static const struct house_options options = { .no_worker = true };
    struct house *h = house_open(&options);
    struct reply r = house_call(h, "POST", "/v1/jobs",
                                "{\"operation\":\"stability.generate.core\",\"params\":{\"prompt\":\"late "
                                "[[job:late]]\"},\"deadline_s\":1}",
                                NULL),
                 job;

    cr_assert_eq(r.status, 202, "%s", r.text);
    cr_expect_float_eq(house_held(h, "default"), 3, 1e-9);
    job = house_wait(h, reply_text(&r, "id"), 30000);
    cr_expect_str_eq(reply_text(&job, "state"), "failed", "%s", job.text);
    cr_expect_str_eq(reply_text(&job, "error.code"), "expired", "%s", job.text);
    cr_expect_str_eq(reply_text(&job, "error.message"), "the job's deadline passed before it could start");
    cr_expect_eq(reply_int(&job, "attempts"), 0, "%s", job.text);
    cr_expect_float_eq(house_held(h, "default"), 0, 1e-9);
    cr_expect_float_eq(house_balance(h, "default"), 1000, 1e-9);
    (void)house_worker_start(h, NULL); /* a worker that comes later leaves it alone */
    reply_done(&job);
    job = house_run(h, CORE, "{\"prompt\":\"next [[job:next]]\"}", LIMIT_MS);
    cr_expect_str_eq(reply_text(&job, "state"), "succeeded", "%s", job.text);
    cr_expect_eq(house_counter(h, "late", "requests"), 0);
    reply_done(&job);
    reply_done(&r);
    house_close(h);
}

/* As root no mode keeps a folder from being written to; a file in its place does. */
static void storage_swap(const struct house *h, bool is_broken)
{
    char command[400];

    (void)snprintf(command, sizeof(command),
                   is_broken ? "mv %s/storage/obj %s/storage/kept && touch %s/storage/obj"
                             : "rm %s/storage/obj && mv %s/storage/kept %s/storage/obj",
                   h->dir, h->dir, h->dir);
    cr_assert_eq(system(command), 0);
}

Test(outcomes, storage_that_fails_costs_the_customer_nothing)
{
    static const struct want list[] = {
        { "gptstore", GPT, NULL, NULL, "storage_error", true, 0, 1, 1, 1, 0, "could not be stored" },
        { "dallestore", GPT, NULL, ",\"model\":\"dall-e-2\",\"size\":\"256x256\"", "storage_error", true, 0, 1, 1, 1, 0,
          "could not be stored" },
        { "corestore", CORE, NULL, NULL, "storage_error", true, 0, 1, 1, 1, 0, "could not be stored" },
        { "leostore", LEO, NULL, NULL, "storage_error", true, 0, 1, 1, 1, 0, "could not be stored" },
    };
    static const struct house_options options = { .catalog = CATALOG_LEO("") };
    struct house *h = house_open(&options);

    storage_swap(h, true);
    cases_run(h, CASES(list), LIMIT_MS);
    storage_swap(h, false);
    house_close(h);
}

Test(outcomes, storage_that_comes_back_in_time_is_used)
{
    static const struct want list[] = {
        { "gptback", GPT, NULL, NULL, NULL, false, GPT_LOW, 1, 1, 1, 0, NULL },
        { "dalleback", GPT, NULL, ",\"model\":\"dall-e-2\",\"size\":\"256x256\"", NULL, false, DALLE_SMALL, 1, 1, 1, 0,
          NULL },
        { "coreback", CORE, NULL, NULL, NULL, false, 3, 1, 1, 1, 0, NULL },
        { "leoback", LEO, NULL, NULL, NULL, false, LEO_SMALL, 1, 1, 1, 0, NULL },
    };
    static const struct house_options options = { .catalog = CATALOG_LEO("") };
    struct house *h = house_open(&options);
    char ids[4][40];

    storage_swap(h, true);
    for (size_t i = 0; i < 4; i++)
        cases_submit(h, &list[i], NULL, ids[i]);
    for (size_t i = 0; i < 4; i++) /* the provider has answered: now it is about to be stored */
        for (int64_t until = cases_now_ms() + 30000;
             house_counter(h, list[i].tag, "paid") == 0 && cases_now_ms() < until;)
            cases_pause_ms(20);
    cases_pause_ms(2500); /* and was not, at least once */
    storage_swap(h, false);
    for (size_t i = 0; i < 4; i++)
        cases_expect(h, &list[i], ids[i], LIMIT_MS);
    cr_expect_float_eq(house_held(h, "default"), 0, 1e-9);
    house_close(h);
}
