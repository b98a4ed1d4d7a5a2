/* test_runpod_runs.c - RunPod through the whole house: whatever a handler returns, its failures under either status, an
 * operator's own mapping, and a cancel that stops the run there. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/integration/house/cases.h"

SUPPORT_SERVICES();

#define RUN           "runpod.run"
#define SDXL          ",\"endpoint_id\":\"sdxl1\",\"width\":96,\"height\":64"
#define SOON          "\"poll\":{\"first_ms\":200,\"every_ms\":200,\"grow_to_ms\":200}"
#define SMALL         "{\"image_size_cap\":128}"
#define CATALOG(more) "{\"provider\":\"runpod\",\"lane\":{},\"operations\":{\"runpod.run\":{" SOON more "}}}"

enum { LIMIT_MS = 60000 };

Test(runpod_runs, whatever_a_handler_returns_is_delivered_and_paid_once)
{
    static const struct house_options options = { .catalog = CATALOG(""), .sandbox_config = SMALL };
    static const struct want wants[] = {
        { "sdxl", RUN, NULL, SDXL ",\"guidance_scale\":7,\"seed\":42", NULL, false, 0.1, 1, 1, 1, 0, NULL },
        { "two", RUN, NULL, SDXL ",\"num_images\":2", NULL, false, 0.2, 1, 1, 1, 0, NULL },
        { "one", RUN, "partial=1", SDXL ",\"num_images\":2", NULL, false, 0.1, 1, 1, 1, 0, NULL },
        { "comfy", RUN, NULL, ",\"endpoint_id\":\"comfy1\",\"input\":{\"workflow\":{\"3\":{}}}", NULL, false, 0.1, 1, 1,
          1, 0, NULL },
        { "bare", RUN, NULL, ",\"endpoint_id\":\"bare1\"", NULL, false, 0.1, 1, 1, 1, 0, NULL },
        { "list", RUN, NULL, ",\"endpoint_id\":\"list1\"", NULL, false, 0.1, 1, 1, 1, 0, NULL },
        { "bucket", RUN, NULL, ",\"endpoint_id\":\"bucket1\"", NULL, false, 0.1, 1, 1, 1, 0, NULL },
        { "odd", RUN, "unknown_status=2", SDXL, NULL, false, 0.1, 1, 1, 1, 0, NULL },
        { "limited", RUN, "status=429,retry_after=1,times=1", SDXL, NULL, false, 0.1, 2, 1, 2, 0, NULL },
    };
    struct house *h = house_open(&options);

    cases_run(h, wants, sizeof(wants) / sizeof(wants[0]), LIMIT_MS);
    house_close(h);
}

Test(runpod_runs, failures_are_told_as_the_page_judges_them)
{
    static const struct house_options options = { .catalog = CATALOG(""), .sandbox_config = SMALL };
    static const struct want wants[] = {
        { "assert", RUN, "fail", SDXL, "provider_error", true, 0, 1, 1, 1, 200, "device-side assert" },
        { "memory", RUN, "fail,code=CUDA out of memory", SDXL, "provider_error", true, 0, 1, 1, 1, 200, "memory" },
        { "late", RUN, "fail,code=timeout", SDXL, "timeout", true, 0, 1, 1, 1, 200, NULL },
        { "wrong", RUN, NULL, SDXL ",\"input\":{\"steps\":3}", "invalid_request", false, 0, 1, 1, 1, 200,
          "steps is not a valid input option" },
        { "nsfw", RUN, "moderated", SDXL, "content_filtered", false, 0, 1, 1, 1, 200, "NSFW" },
        { "gaveup", RUN, "filtered", SDXL, "provider_error", true, 0, 1, 1, 1, 200, "gave up" },
        { "empty", RUN, "empty", SDXL, "bad_response", false, 0, 1, 1, 1, 200, NULL },
        { "noid", RUN, "missing_id", SDXL, "bad_response", false, 0, 1, 1, 1, 200, NULL },
        { "gone", RUN, "poll_status=404", SDXL, "not_found", false, 0, 1, 1, 1, 404, NULL },
        { "nobody", RUN, NULL, ",\"endpoint_id\":\"nobody\"", "not_found", false, 0, 1, 0, 1, 404, NULL },
        { "poor", RUN, "status=402", SDXL, "insufficient_funds", false, 0, 1, 0, 1, 402, NULL },
        { "slow", RUN, "stuck", SDXL ",\"executionTimeout\":5000", "timeout", true, 0, 1, 1, 1, 200, NULL },
    };
    struct house *h = house_open(&options);

    cases_run(h, wants, sizeof(wants) / sizeof(wants[0]), LIMIT_MS);
    house_close(h);
}

/* Another worker's output, read by a mapping of the operator's and no build. */
Test(runpod_runs, an_operators_mapping_says_where_the_output_lies)
{
    static const struct house_options options = {
        .catalog = CATALOG(",\"reads\":{\"ref\":\"/id\",\"outputs\":\"/output/message\"}"), .sandbox_config = SMALL
    };
    static const struct want wants[] = {
        { "mapped", RUN, NULL, ",\"endpoint_id\":\"comfy1\"", NULL, false, 0.1, 1, 1, 1, 0, NULL },
        { "unmapped", RUN, NULL, SDXL, "bad_response", false, 0, 1, 1, 1, 200, NULL },
    };
    struct house *h = house_open(&options);

    cases_run(h, wants, sizeof(wants) / sizeof(wants[0]), LIMIT_MS);
    house_close(h);
}

static bool wait_counter(const struct house *h, const char *tag, const char *name, int64_t at_least)
{
    for (int64_t until = cases_now_ms() + 30000; cases_now_ms() < until; cases_pause_ms(20))
        if (house_counter(h, tag, name) >= at_least)
            return true;
    return false;
}

Test(runpod_runs, a_canceled_run_is_stopped_there_and_a_finished_one_is_left_alone)
{
    static const struct house_options options = { .catalog = CATALOG(""), .sandbox_config = SMALL };
    struct want stops = { "stops", RUN, "stuck", SDXL, NULL, false, 0, 1, 1, 1, 0, NULL };
    struct want ends = { "ends", RUN, NULL, SDXL, NULL, false, 0.1, 1, 1, 1, 0, NULL };
    struct house *h = house_open(&options);
    char ids[2][40], path[80];

    cases_submit(h, &stops, NULL, ids[0]);
    cases_submit(h, &ends, NULL, ids[1]);
    cr_assert(wait_counter(h, "stops", "polls", 1));
    cases_expect(h, &ends, ids[1], LIMIT_MS);
    for (int i = 0; i < 2; i++) {
        struct reply r;

        (void)snprintf(path, sizeof(path), "/v1/jobs/%s/cancel", ids[i]);
        r = house_call(h, "POST", path, NULL, NULL);
        cr_expect_eq(r.status, 200);
        cr_expect_str_eq(reply_text(&r, "state"), i == 0 ? "canceled" : "succeeded", "%s", r.text);
        reply_done(&r);
    }
    cr_expect(wait_counter(h, "stops", "cancels", 1), "the provider was not told");
    cases_pause_ms(500);
    cr_expect_eq(house_counter(h, "stops", "cancels"), 1);
    cr_expect_eq(house_counter(h, "ends", "cancels"), 0);
    cr_expect_float_eq(house_held(h, "default"), 0, 1e-9);
    house_close(h);
}
