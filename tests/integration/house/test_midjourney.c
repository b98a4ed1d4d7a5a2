/* test_midjourney.c - Midjourney through TTAPI, through the whole house: grids, cut images, a step on a finished job,
 * character references, and what the page says of failures. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/integration/house/house.h"

SUPPORT_SERVICES();

enum { LIMIT_MS = 60000 };

#define SOON "\"poll\":{\"first_ms\":200,\"every_ms\":200}"

static const struct house_options options = {
    .sandbox_config = "{\"delay_ms\":{\"ttapi\":300},\"image_size_cap\":128}",
    .catalog = "{\"provider\":\"ttapi\",\"lane\":{},\"operations\":{\"midjourney.imagine\":{" SOON
               "},\"midjourney.action\":{" SOON "}}}",
};

static const struct row {
    const char *tag, *words, *more; /* in the prompt; behind it */
    const char *code;               /* "": it succeeds */
    double charged;
    int paid, attempts, count;
} table[] = {
    { "grid", "--ar 2:1", "", "", 8, 1, 1, 1 },
    { "four", "", ",\"getUImages\":true,\"mode\":\"turbo\"", "", 8, 1, 1, 4 },
    { "relaxed", "", ",\"mode\":\"relax\",\"translation\":false", "", 8, 1, 1, 1 },
    { "cref", "", ",\"cref\":[\"https://example.org/knight.png\"],\"cw\":60", "", 8, 1, 1, 1 },
    { "crefold", "--v 5.2", ",\"cref\":[\"https://example.org/knight.png\"]", "invalid_request", 0, 0, 1, 0 },
    { "oldname", "[[fault:missing_id]]", "", "", 8, 1, 1, 1 },
    { "full", "[[fault:status=499,times=1]]", "", "", 8, 1, 2, 1 },
    { "word", "[[fault:unknown_status]]", "", "", 8, 1, 1, 1 },
    { "nojob", "[[fault:null_job]]", "", "bad_response", 0, 1, 1, 0 },
    { "slow", "[[fault:fail,code=timeout]]", "", "timeout", 0, 1, 1, 0 },
    { "denied", "[[fault:fail,code=denied]]", "", "content_filtered", 0, 1, 1, 0 },
    { "banned", "[[fault:moderated]]", "", "content_filtered", 0, 1, 1, 0 },
    { "refused", "[[fault:moderated=400]]", "", "content_filtered", 0, 0, 1, 0 },
    { "poor", "[[fault:status=402]]", "", "insufficient_funds", 0, 0, 1, 0 },
    { "nothing", "[[fault:empty]]", "", "bad_response", 0, 1, 1, 0 },
};

static void expect_row(const struct house *h, const struct row *want, const char *id)
{
    struct reply job = house_wait(h, id, LIMIT_MS);
    bool is_good = want->code[0] == '\0';
    char path[40];

    cr_expect_str_eq(reply_text(&job, "state"), is_good ? "succeeded" : "failed", "%s: %s", want->tag, job.text);
    cr_expect_str_eq(reply_text(&job, "error.code"), want->code, "%s: %s", want->tag, job.text);
    cr_expect_float_eq(reply_number(&job, "credits.charged"), want->charged, 1e-9, "%s: %s", want->tag, job.text);
    cr_expect_eq(reply_int(&job, "attempts"), want->attempts, "%s: %s", want->tag, job.text);
    (void)snprintf(path, sizeof(path), "artifacts.%d.width", want->count - 1);
    cr_expect(!want->count || reply_int(&job, path) > 0, "%s: %s", want->tag, job.text);
    (void)snprintf(path, sizeof(path), "artifacts.%d.width", want->count);
    cr_expect_eq(reply_int(&job, path), -1, "%s: %s", want->tag, job.text);
    cr_expect_eq(house_counter(h, want->tag, "paid"), want->paid, "%s was paid %lld times", want->tag,
                 (long long)house_counter(h, want->tag, "paid"));
    reply_done(&job);
}

/* A customer names the job before by what its attempt shows. */
static void takes_a_step(struct house *h, const char *id, const char *action, double charged)
{
    char path[100], params[200];
    struct reply job;

    (void)snprintf(path, sizeof(path), "/v1/jobs/%s?expand=attempts", id);
    job = house_call(h, "GET", path, NULL, NULL);
    (void)snprintf(params, sizeof(params), "{\"jobId\":\"%s\",\"action\":\"%s\"}",
                   reply_text(&job, "attempts.0.request_id"), action);
    reply_done(&job);
    job = house_run(h, "midjourney.action", params, LIMIT_MS);
    cr_expect_str_eq(reply_text(&job, "state"), "succeeded", "%s: %s", action, job.text);
    cr_expect_float_eq(reply_number(&job, "credits.charged"), charged, 1e-9, "%s: %s", action, job.text);
    reply_done(&job);
}

Test(midjourney, imagines_and_takes_further_steps)
{
    enum { ROWS = sizeof(table) / sizeof(table[0]) };
    struct house *h = house_open(&options);
    char ids[ROWS][40], params[500];
    struct reply job;

    for (size_t i = 0; i < ROWS; i++) {
        (void)snprintf(params, sizeof(params), "{\"prompt\":\"a heron [[job:%s]] %s\"%s}", table[i].tag, table[i].words,
                       table[i].more);
        house_submit(h, ids[i], "midjourney.imagine", params);
    }
    for (size_t i = 0; i < ROWS; i++)
        expect_row(h, &table[i], ids[i]);
    takes_a_step(h, ids[0], "upsample2", 2);
    takes_a_step(h, ids[0], "variation1", 8);
    job = house_run(h, "midjourney.action", "{\"jobId\":\"nobody-s\",\"action\":\"reroll\"}", LIMIT_MS);
    cr_expect_str_eq(reply_text(&job, "error.code"), "invalid_request", "%s", job.text);
    reply_done(&job);
    cr_expect_float_eq(house_held(h, "default"), 0, 1e-9);
    house_close(h);
}
