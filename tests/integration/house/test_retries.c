/* test_retries.c - what is asked again: refusals that pass, polls and downloads that go wrong, and for how long. A
 * retry is free: the job is charged once, when it is delivered. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/integration/house/cases.h"

SUPPORT_SERVICES();

enum { LIMIT_MS = 90000 };

#define CASES(list) (list), sizeof(list) / sizeof((list)[0])
#define DALLE       ",\"model\":\"dall-e-2\",\"size\":\"256x256\""

Test(retries, a_refusal_that_passes_is_asked_again)
{
    static const struct want list[] = {
        { "gpt503", GPT, "status=503,times=2", NULL, NULL, false, GPT_LOW, 3, 1, 3, 0, NULL },
        { "gpt500", GPT, "status=500,times=1", NULL, NULL, false, GPT_LOW, 2, 1, 2, 0, NULL },
        { "gpt409", GPT, "status=409,times=1", NULL, NULL, false, GPT_LOW, 2, 1, 2, 0, NULL },
        { "gpt400again", GPT, "status=400,should_retry=1,times=1", NULL, NULL, false, GPT_LOW, 2, 1, 2, 0, NULL },
        { "core502", CORE, "html,times=1", NULL, NULL, false, 3, 2, 1, 2, 0, NULL },
        { "core521", CORE, "status=521,times=1", NULL, NULL, false, 3, 2, 1, 2, 0, NULL },
        { "core529", CORE, "status=529,times=1", NULL, NULL, false, 3, 2, 1, 2, 0, NULL },
        { "corefail", CORE, "fail,times=1", NULL, NULL, false, 3, 2, 1, 2, 0, NULL },
        { "leo500", LEO, "status=500,times=1", NULL, NULL, false, LEO_SMALL, 2, 1, 2, 0, NULL },
        { "crea503", CREATIVE, "status=503,times=1", NULL, NULL, false, 60, 2, 1, 2, 0, NULL },
    };
    static const struct house_options options = { .catalog = CATALOG_LEO("") };
    struct house *h = house_open(&options);

    cases_run(h, CASES(list), LIMIT_MS);
    house_close(h);
}

Test(retries, five_tries_are_all)
{
    static const struct want list[] = {
        { "gpt503", GPT, "html,status=503", NULL, "provider_unavailable", true, 0, 5, 0, 5, 503, NULL },
        { "core500", CORE, "status=500", NULL, "provider_error", true, 0, 5, 0, 5, 500, NULL },
        { "leo502", LEO, "html", NULL, "provider_unavailable", true, 0, 5, 0, 5, 502, NULL },
    };
    static const struct house_options options = { .catalog = CATALOG_LEO("") };
    struct house *h = house_open(&options);

    cases_run(h, CASES(list), LIMIT_MS);
    house_close(h);
}

Test(retries, a_wait_that_the_provider_names_is_kept)
{
    static const struct want list[] = {
        { "seconds", GPT, "status=503,retry_after=4,times=1", NULL, NULL, false, GPT_LOW, 2, 1, 2, 0, NULL },
        { "date", CORE, "status=503,retry_after_date=5,times=1", NULL, NULL, false, 3, 2, 1, 2, 0, NULL },
        { "millis", GPT, "status=503,retry_after_ms=2500,times=1", NULL, NULL, false, GPT_LOW, 2, 1, 2, 0, NULL },
    };
    static const int64_t waits_ms[] = { 4000, 4000, 3000 }; /* a date is cut to its second */
    struct house *h = house_open(NULL);

    cases_run(h, CASES(list), LIMIT_MS);
    for (size_t i = 0; i < 3; i++) {
        int64_t gap = cases_at_ms(h, list[i].tag, "submit", 1) - cases_at_ms(h, list[i].tag, "submit", 0);

        cr_expect_geq(gap, waits_ms[i] - 5, "%s: asked again after %lld ms", list[i].tag, (long long)gap);
    }
    house_close(h);
}

/* A reference is on record: the paid request stays one, whatever happens to polls and downloads. */
Test(retries, polls_and_downloads_are_asked_again)
{
    static const struct want list[] = {
        { "poll500", LEO, "poll_status=500,times=2", NULL, NULL, false, LEO_SMALL, 1, 1, 1, 0, NULL },
        { "poll503", LEO, "poll_status=503,times=2", NULL, NULL, false, LEO_SMALL, 1, 1, 1, 0, NULL },
        { "pollhtml", LEO, "html,at=poll,times=2", NULL, NULL, false, LEO_SMALL, 1, 1, 1, 0, NULL },
        { "polljson", LEO, "bad_json,at=poll,times=2", NULL, NULL, false, LEO_SMALL, 1, 1, 1, 0, NULL },
        { "pollempty", LEO, "empty_body,at=poll,times=2", NULL, NULL, false, LEO_SMALL, 1, 1, 1, 0, NULL },
        { "polldrop", LEO, "drop_after,at=poll,times=2", NULL, NULL, false, LEO_SMALL, 1, 1, 1, 0, NULL },
        { "pollcut", LEO, "drop_mid=20,at=poll,times=2", NULL, NULL, false, LEO_SMALL, 1, 1, 1, 0, NULL },
        { "down500", LEO, "download_status=500,times=2", NULL, NULL, false, LEO_SMALL, 1, 1, 1, 0, NULL },
        { "downhtml", LEO, "html,status=200,at=download,times=1", NULL, NULL, false, LEO_SMALL, 1, 1, 1, 0, NULL },
        { "downdrop", LEO, "drop_mid=500,at=download,times=2", NULL, NULL, false, LEO_SMALL, 1, 1, 1, 0, NULL },
        { "downtrunc", LEO, "truncate=500,at=download,times=1", NULL, NULL, false, LEO_SMALL, 1, 1, 1, 0, NULL },
        { "downempty", LEO, "empty_body,at=download,times=1", NULL, NULL, false, LEO_SMALL, 1, 1, 1, 0, NULL },
        { "dalle503", GPT, "download_status=503,times=2", DALLE, NULL, false, DALLE_SMALL, 1, 1, 1, 0, NULL },
        { "dallemid", GPT, "drop_mid=500,at=download,times=2", DALLE, NULL, false, DALLE_SMALL, 1, 1, 1, 0, NULL },
        { "creapoll", CREATIVE, "poll_status=503,times=1", NULL, NULL, false, 60, 1, 1, 1, 0, NULL },
        { "creamid", CREATIVE, "drop_mid=2000,at=poll,times=1", NULL, NULL, false, 60, 1, 1, 1, 0, NULL },
        { "creatrunc", CREATIVE, "truncate=2000,at=poll,times=2", NULL, NULL, false, 60, 1, 1, 1, 0, NULL },
    };
    static const struct house_options options = { .catalog = CATALOG_LEO("") };
    struct house *h = house_open(&options);

    cases_run(h, CASES(list), LIMIT_MS);
    house_close(h);
}

Test(retries, a_download_that_stays_broken_ends_the_job_uncharged)
{
    static const struct want list[] = {
        { "leocut", LEO, "cut_image", NULL, "bad_response", false, 0, 1, 1, 1, 0, NULL },
        { "down500", LEO, "download_status=500", NULL, "provider_error", true, 0, 1, 1, 1, 0,
          "could not be downloaded" },
        { "dalledrop", GPT, "drop_mid=500,at=download", DALLE, "bad_response", false, 0, 1, 1, 1, 0,
          "could not be downloaded" },
    };
    static const struct house_options options = { .catalog = CATALOG_LEO("") };
    struct house *h = house_open(&options);

    cases_run(h, CASES(list), LIMIT_MS);
    house_close(h);
}

/* A failed upscale is a 500 at each poll, which its page does not tell from any other 500: asked until the end. */
Test(retries, a_failure_that_looks_like_an_outage_is_asked_until_the_deadline)
{
    static const struct want list[] = {
        { "creafail", CREATIVE, "fail", NULL, "timeout", true, 0, 1, 1, 1, 500, NULL },
        { "creastuck", CREATIVE, "stuck", NULL, "timeout", true, 0, 1, 1, 1, 202, NULL },
    };
    static const struct house_options options = {
        .catalog =
            "{\"provider\":\"stability\",\"operations\":{\"stability.upscale.creative\":{\"poll\":{\"first_ms\":500,"
            "\"every_ms\":500},\"deadline_s\":6}}}",
    };
    struct house *h = house_open(&options);

    cases_run(h, CASES(list), LIMIT_MS);
    house_close(h);
}

Test(retries, work_that_never_ends_is_given_up_at_the_deadline)
{
    static const struct want list[] = {
        { "stuck", LEO, "stuck", NULL, "timeout", true, 0, 1, 1, 1, 0, NULL },
        { "pollbad", LEO, "poll_status=503", NULL, "timeout", true, 0, 1, 1, 1, 0, NULL },
        { "pollhang", LEO, "hang,at=poll", NULL, "timeout", true, 0, 1, 1, 1, 0, NULL },
        { "word", LEO, "unknown_status=1000", NULL, "timeout", true, 0, 1, 1, 1, 0, NULL },
    };
    static const struct house_options options = {
        .catalog = "{\"provider\":\"leonardo\",\"operations\":{\"leonardo.generate\":{\"poll\":{\"first_ms\":200,"
                   "\"every_ms\":200,\"timeout_ms\":1500},\"deadline_s\":4}}}",
    };
    struct house *h = house_open(&options);
    int64_t began = cases_now_ms();

    cases_run(h, CASES(list), 30000);
    cr_expect_geq(cases_now_ms() - began, 3900, "not before its time");
    house_close(h);
}
