/* test_unknown.c - requests that left and were never answered: asked again once where that is cheap, never where it is
 * dear, and never by the HTTP library behind kiln's back. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/integration/house/cases.h"

SUPPORT_SERVICES();

enum { LIMIT_MS = 90000 };

#define CASES(list) (list), sizeof(list) / sizeof((list)[0])
#define DEAR        ",\"quality\":\"high\",\"n\":4" /* 0.53 USD a call: on_unknown is `fail` */

Test(unknown, a_dear_request_whose_answer_is_lost_is_not_sent_again)
{
    static const struct want list[] = {
        { "creadrop", CREATIVE, "drop_after", NULL, "outcome_unknown", false, 0, 1, 1, 1, 0, NULL },
        { "crea504", CREATIVE, "status=504,paid", NULL, "outcome_unknown", false, 0, 1, 1, 1, 504, NULL },
        { "crea408", CREATIVE, "status=408", NULL, "outcome_unknown", false, 0, 1, 0, 1, 408, NULL },
        { "crea524", CREATIVE, "status=524", NULL, "outcome_unknown", false, 0, 1, 0, 1, 524, NULL },
        { "gptdrop", GPT, "drop_after", DEAR, "outcome_unknown", false, 0, 1, 1, 1, 0, NULL },
        { "gpt504", GPT, "status=504", DEAR, "outcome_unknown", false, 0, 1, 0, 1, 504, NULL },
    };
    struct house *h = house_open(NULL);

    cases_run(h, CASES(list), LIMIT_MS);
    house_close(h);
}

Test(unknown, a_cheap_one_is_sent_once_more_and_no_oftener)
{
    static const struct want list[] = {
        { "gptdrop", GPT, "drop_after", NULL, "outcome_unknown", false, 0, 2, 2, 2, 0, NULL },
        { "gptonce", GPT, "drop_after,times=1", NULL, NULL, false, GPT_LOW, 2, 2, 2, 0, NULL },
        { "gpt504", GPT, "status=504", NULL, "outcome_unknown", false, 0, 2, 0, 2, 504, NULL },
        { "gpt524", GPT, "status=524,times=1", NULL, NULL, false, GPT_LOW, 2, 1, 2, 0, NULL },
        { "coredrop", CORE, "drop_after", NULL, "outcome_unknown", false, 0, 2, 2, 2, 0, NULL },
        { "coreonce", CORE, "drop_after,times=1", NULL, NULL, false, 3, 2, 2, 2, 0, NULL },
        { "core408", CORE, "status=408,times=1", NULL, NULL, false, 3, 2, 1, 2, 0, NULL },
        { "leodrop", LEO, "drop_after", NULL, "outcome_unknown", false, 0, 2, 2, 2, 0, NULL },
        { "leoonce", LEO, "drop_after,times=1", NULL, NULL, false, LEO_SMALL, 2, 2, 2, 0, NULL },
        { "leo500", LEO, "status=500,paid", NULL, "outcome_unknown", false, 0, 2, 2, 2, 500, NULL },
        { "leobefore", LEO, "drop_before,times=1", NULL, NULL, false, LEO_SMALL, 2, 1, 2, 0, NULL },
    };
    static const struct house_options options = { .catalog = CATALOG_LEO("") };
    struct house *h = house_open(&options);

    cases_run(h, CASES(list), LIMIT_MS);
    house_close(h);
}

/* 5xx are refusals, so free to repeat; but unless a page says that they cost nothing, they are listed. */
Test(unknown, server_errors_that_no_page_calls_free_are_listed_as_exposure_and_others_are_not)
{
#define SMALL ",\"model\":\"dall-e-2\",\"size\":\"256x256\""
    static const struct want list[] = {
        { "gpt500", GPT, "status=500,times=1", SMALL, NULL, false, DALLE_SMALL, 2, 1, 2, 0, NULL },
        { "gpt503", GPT, "status=503,times=1", SMALL, NULL, false, DALLE_SMALL, 2, 1, 2, 0, NULL },
        { "gpt429", GPT, "status=429,times=1", SMALL, NULL, false, DALLE_SMALL, 2, 1, 2, 0, NULL },
        { "core502", CORE, "html,times=1", NULL, NULL, false, 3, 2, 1, 2, 0, NULL },
        { "core500", CORE, "status=500,times=1", NULL, NULL, false, 3, 2, 1, 2, 0, NULL }, /* "not charged" */
        { "gpt400", GPT, "status=400", SMALL, "invalid_request", false, 0, 1, 0, 1, 400, NULL },
    };
    struct house *h = house_open(NULL);
    char *listed;

    cases_run(h, CASES(list), LIMIT_MS);
    listed = support_sql(h->db, "select string_agg(x.line, ', ' order by x.line) from (select substring(j.params ->> "
                                "'prompt' from 'job:([a-z0-9]+)') || ' ' || e.reason || ' ' || "
                                "coalesce(e.cost_microusd::text, '?') as line from kiln_exposure(100) e join jobs j on "
                                "j.id = e.job) x");
    cr_expect_str_eq(listed, "core502 marked ?, gpt500 marked ?, gpt503 marked ?", "%s", listed);
    free(listed);
    house_close(h);
}

Test(unknown, an_answer_that_takes_too_long_leaves_it_open)
{
    static const struct want list[] = {
        { "hang", CORE, "hang", NULL, "outcome_unknown", false, 0, 2, 2, 2, 0, NULL },
        { "hangonce", CORE, "hang,times=1", NULL, NULL, false, 3, 2, 2, 2, 0, NULL },
    };
    static const struct house_options options = {
        .sandbox_config = "{\"image_size_cap\":64}", /* not drawing is what may take long */
        .catalog =
            "{\"provider\":\"stability\",\"operations\":{\"stability.generate.core\":{\"submit\":{\"timeout_ms\":"
            "4000}}}}",
    };
    struct house *h = house_open(&options);

    cases_run(h, CASES(list), LIMIT_MS);
    house_close(h);
}

/* A reused connection that dies without an answer is what makes libcurl repeat a POST by itself. Wherever that strikes,
 * the provider sees as many requests as kiln has attempts on record. */
static void expect_no_resend(struct house *h, const char *operation, const char *extra, const char *kind)
{
    int struck = 0;

    for (int i = 0; i < 6; i++) {
        char tags[2][24];
        struct want warm = { tags[0], operation, NULL, extra, NULL, false, 0, 1, 1, 1, 0, NULL };
        struct want dies = { tags[1], operation, "reuse_close", extra, NULL, false, 0, 1, 1, 1, 0, NULL };
        char *upload = !strcmp(operation, CREATIVE) ? house_upload(h, 128, 128) : NULL, ids[2][40];
        struct reply job;

        (void)snprintf(tags[0], sizeof(tags[0]), "%swarm%d", kind, i);
        (void)snprintf(tags[1], sizeof(tags[1]), "%sdies%d", kind, i);
        cases_submit(h, &warm, upload, ids[0]);
        for (int64_t until = cases_now_ms() + 20000; cases_count(h, tags[0], "submit") == 0 && cases_now_ms() < until;)
            cases_pause_ms(20); /* its connection is free again */
        cases_submit(h, &dies, upload, ids[1]);
        job = house_wait(h, ids[1], LIMIT_MS);
        cr_expect_eq(house_counter(h, tags[1], "requests"), reply_int(&job, "attempts"), "%s: sent by libcurl too: %s",
                     tags[1], job.text);
        struck += house_counter(h, tags[1], "cut") > 0;
        reply_done(&job);
        job = house_wait(h, ids[0], LIMIT_MS);
        reply_done(&job);
        free(upload);
    }
    (void)struck; /* 0 where each paid request has a connection of its own: as good */
}

Test(unknown, libcurl_repeats_nothing_by_itself)
{
    struct house *h = house_open(NULL);

    expect_no_resend(h, GPT, NULL, "gpt");
    expect_no_resend(h, CORE, NULL, "core");
    cr_expect_float_eq(house_held(h, "default"), 0, 1e-9);
    house_close(h);
}
