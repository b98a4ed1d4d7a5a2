/* test_overload.c - poison: what one job or one file does hurts nobody else. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/text.h"
#include "tests/integration/house/cases.h"

SUPPORT_SERVICES();

enum { LIMIT_MS = 60000 };

#define SMALL_PICTURES "{\"image_size_cap\":64}"

/* --- hostile results --------------------------------------------------------------------------------------------- */

Test(overload, a_result_that_crashes_or_spins_the_decoder_fails_alone)
{
    static const struct house_options options = {
        .sandbox_config = SMALL_PICTURES,
        .worker_env = { "KILN_FAILPOINTS=decoder.webp.before=spin,decoder.jpg.before=crash" },
    };
    struct want good = { "good", CORE, NULL, NULL, NULL, false, 3, 1, 1, 1, 0, NULL };
    struct want spins = { "spins", CORE, NULL, ",\"output_format\":\"webp\"", "bad_result", false, 0, 1,
                          1,       1,    0,    "decoding it takes too long" };
    struct want crashes = { "crashes", CORE, NULL, ",\"output_format\":\"jpeg\"", "bad_result", false, 0, 1,
                            1,         1,    0,    "it crashes the decoder" };
    struct house *h = house_open(&options);
    char spinning[40], crashing[3][40], fine[8][40];
    pid_t worker = h->workers[0];
    char *state, sql[128];

    cases_submit(h, &spins, NULL, spinning);
    for (int i = 0; i < 8; i++) {
        if (i < 3)
            cases_submit(h, &crashes, NULL, crashing[i]);
        cases_submit(h, &good, NULL, fine[i]);
    }
    for (int i = 0; i < 8; i++) {
        struct reply job = house_wait(h, fine[i], LIMIT_MS);

        cr_expect_str_eq(reply_text(&job, "state"), "succeeded", "%s", job.text);
        reply_done(&job);
    }
    (void)snprintf(sql, sizeof(sql), "select state from jobs where id = '%s'", spinning);
    state = support_sql(h->db, sql);
    cr_expect_str_eq(state, "running", "the others did not wait for it");
    free(state);
    for (int i = 0; i < 3; i++) {
        struct reply job = house_wait(h, crashing[i], LIMIT_MS);

        cr_expect_str_eq(reply_text(&job, "error.code"), "bad_result", "%s", job.text);
        cr_expect_str_eq(reply_text(&job, "error.message"), "it crashes the decoder", "%s", job.text);
        cr_expect_float_eq(reply_number(&job, "credits.charged"), 0, 1e-9);
        reply_done(&job);
    }
    cases_expect(h, &spins, spinning, LIMIT_MS);
    cr_expect_eq(h->workers[0], worker);
    cr_expect_eq(house_wait_exit(&h->workers[0], 0), -1, "the worker lives");
    house_close(h);
}

/* The poison kills each worker that collects it; jobs of the same account and lane go on with those that live. */
Test(overload, a_job_that_kills_three_workers_holds_nobody_up)
{
    static const char *const poison[] = { "KILN_FAILPOINTS=worker.creative.collecting=crash", NULL };
    static const struct house_options options = {
        .catalog = "{\"provider\":\"stability\",\"lane\":{},\"operations\":{\"stability.upscale.creative\":"
                   "{\"poll\":{\"first_ms\":200,\"every_ms\":500}}}}",
        .sandbox_config = "{\"image_size_cap\":64,\"stability_limit\":{\"requests\":0},"
                          "\"delay_ms\":{\"stability_creative\":300}}",
        .credits = 10000,
        .no_worker = true,
    };
    struct want bad = { "poison", CREATIVE, NULL, NULL, "worker_lost", false, 0, 1, 1, NOT_ASKED, 0, NULL };
    struct want good = { "good", CORE, NULL, NULL, NULL, false, 3, 1, 1, 1, 0, NULL };
    struct house *h = house_open(&options);
    char *upload = house_upload(h, 64, 64), id[40], other[40];
    int deaths = 0;

    (void)house_worker_start(h, poison);
    (void)house_worker_start(h, poison);
    (void)house_worker_start(h, poison);
    cases_submit(h, &bad, upload, id);
    while (deaths < 3) {
        int64_t began = cases_now_ms();
        struct reply job;

        cases_submit(h, &good, NULL, other); /* one after the other, all the time */
        job = house_wait(h, other, LIMIT_MS);
        cr_expect_str_eq(reply_text(&job, "state"), "succeeded", "%s", job.text);
        reply_done(&job);
        cr_expect_lt(cases_now_ms() - began, 12000, "at worst it was with a worker that died, and was taken over");
        for (int i = 0; i < 4; i++) {
            if (h->workers[i] && house_wait_exit(&h->workers[i], 0) != -1 && ++deaths == 2)
                (void)house_worker_start(h, poison); /* somebody is always there for the others */
        }
        cr_assert_lt(deaths, 4);
    }
    (void)house_worker_start(h, NULL);
    cases_expect(h, &bad, id, LIMIT_MS);
    cr_expect_eq(support_sql_int(h->db, "select count(*) from jobs where state = 'failed'"), 1, "it alone failed");
    free(upload);
    house_close(h);
}
