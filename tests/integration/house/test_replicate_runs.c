/* test_replicate_runs.c - Replicate through the whole house: by model, version and deployment, whatever shape its
 * output has; failures as its page judges them; a prediction whose owner canceled is canceled there too, once, and
 * whatever comes of that request changes nothing. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/integration/house/cases.h"

SUPPORT_SERVICES();

#define PREDICT       "replicate.predict"
#define SCHNELL       "\"model\":\"black-forest-labs/flux-schnell\",\"megapixels\":\"0.25\",\"output_format\":\"jpg\""
#define HASH          "5c7d5dc6dd8bf75c1acaa8565735e7986bc5b66206b55cca93cb72c9bf15ccaa"
#define SOON          "\"poll\":{\"first_ms\":200,\"every_ms\":200,\"grow_to_ms\":200}"
#define CATALOG(more) "{\"provider\":\"replicate\",\"lane\":{},\"operations\":{\"replicate.predict\":{" SOON more "}}}"
#define SMALL         "{\"image_size_cap\":128}"

enum { LIMIT_MS = 60000 };

static const struct happy {
    const char *name, *params; /* a tag is in the prompt; %s: an upload */
    double charged;
    int count;
    const char *mime;
} happies[] = {
    { "list", "{" SCHNELL ",\"prompt\":\"a kite [[job:list]]\",\"num_outputs\":2,\"aspect_ratio\":\"3:2\"}", 0.4, 2,
      "image/jpeg" },
    { "text", "{\"model\":\"black-forest-labs/flux-pro\",\"prompt\":\"a kite [[job:text]]\"}", 0.3, 1, "image/webp" },
    { "object", "{\"model\":\"acme/layers\",\"input\":{\"prompt\":\"a kite [[job:object]]\"},\"num_outputs\":3}", 0.9,
      3, "image/webp" },
    { "version", "{\"version\":\"" HASH "\",\"prompt\":\"a kite [[job:version]]\",\"output_format\":\"png\"}", 0.3, 1,
      "image/png" },
    { "deployed", "{\"deployment\":\"me/mine\",\"prompt\":\"a kite [[job:deployed]]\"}", 0.3, 1, "image/webp" },
    { "dev",
      "{\"model\":\"black-forest-labs/flux-dev\",\"prompt\":\"a kite [[job:dev]]\",\"image\":\"%s\",\"prompt_strength\":0.5}",
      0.2, 1, "image/webp" },
};

static void expect_happy(const struct house *h, const struct happy *want, const char *id)
{
    struct reply job = house_wait(h, id, LIMIT_MS), file;
    char path[64];

    cr_expect_str_eq(reply_text(&job, "state"), "succeeded", "%s: %s", want->name, job.text);
    cr_expect_float_eq(reply_number(&job, "credits.charged"), want->charged, 1e-9, "%s: %s", want->name, job.text);
    for (int i = 0; i < want->count; i++) {
        (void)snprintf(path, sizeof(path), "artifacts.%d.mime", i);
        cr_expect_str_eq(reply_text(&job, path), want->mime, "%s: %s", want->name, job.text);
    }
    (void)snprintf(path, sizeof(path), "artifacts.%d.id", want->count);
    cr_expect_str_eq(reply_text(&job, path), "", "%s", want->name);
    cr_expect_neq(reply_text(&job, "artifacts.0.seed")[0], '\0', "%s: the seed of the logs", want->name);
    file = house_url("GET", reply_text(&job, "artifacts.0.url"), NULL, NULL);
    cr_expect_eq((int64_t)file.len, reply_int(&job, "artifacts.0.bytes"), "%s", want->name);
    cr_expect_eq(house_counter(h, want->name, "paid"), 1, "%s", want->name);
    cr_expect_eq(house_counter(h, want->name, "cancels"), 0, "%s: nobody canceled it", want->name);
    reply_done(&file);
    reply_done(&job);
}

Test(replicate_runs, every_way_in_and_every_shape_of_output_is_delivered_and_paid_once)
{
    static const struct house_options options = { .catalog = CATALOG(""), .sandbox_config = SMALL };
    struct house *h = house_open(&options);
    char *upload = house_upload(h, 64, 64), ids[sizeof(happies) / sizeof(happies[0])][40], params[400];

    for (size_t i = 0; i < sizeof(happies) / sizeof(happies[0]); i++) {
        (void)snprintf(params, sizeof(params), happies[i].params, upload);
        house_submit(h, ids[i], PREDICT, params);
    }
    for (size_t i = 0; i < sizeof(happies) / sizeof(happies[0]); i++)
        expect_happy(h, &happies[i], ids[i]);
    cr_expect_float_eq(house_held(h, "default"), 0, 1e-9);
    free(upload);
    house_close(h);
}

Test(replicate_runs, failures_are_told_as_the_page_judges_them)
{
    static const struct house_options options = { .catalog = CATALOG(""), .sandbox_config = SMALL };
    static const struct want wants[] = {
        { "nsfw", PREDICT, "moderated", "," SCHNELL, "content_filtered", false, 0, 1, 1, 1, 200, "NSFW" },
        { "filter", PREDICT, "filtered", "," SCHNELL, "content_filtered", false, 0, 1, 1, 1, 200, NULL },
        { "demand", PREDICT, "fail,code=E003", "," SCHNELL, "provider_unavailable", true, 0, 1, 1, 1, 200,
          "high demand" },
        { "memory", PREDICT, "fail", "," SCHNELL, "provider_error", true, 0, 1, 1, 1, 200, "out of memory" },
        { "aborted", PREDICT, "fail,code=aborted", "," SCHNELL, "timeout", true, 0, 1, 1, 1, 200, NULL },
        { "empty", PREDICT, "empty", "," SCHNELL, "bad_response", false, 0, 1, 1, 1, 200, NULL },
        { "noid", PREDICT, "missing_id", "," SCHNELL, "bad_response", false, 0, 1, 1, 1, 201, NULL },
        { "credit", PREDICT, "status=402", "," SCHNELL, "insufficient_funds", false, 0, 1, 0, 1, 402, NULL },
        { "gone", PREDICT, "poll_status=404", "," SCHNELL, "not_found", false, 0, 1, 1, 1, 404, NULL },
        { "limited", PREDICT, "status=429,times=1", "," SCHNELL, NULL, false, 0.2, 2, 1, 2, 0, NULL },
        { "odd", PREDICT, "unknown_status=2", "," SCHNELL, NULL, false, 0.2, 1, 1, 1, 0, NULL },
        { "some", PREDICT, "partial=1", "," SCHNELL ",\"num_outputs\":3", NULL, false, 0.2, 1, 1, 1, 0, NULL },
    };
    struct house *h = house_open(&options);

    cases_run(h, wants, sizeof(wants) / sizeof(wants[0]), LIMIT_MS);
    house_close(h);
}

/* An operator may let the provider hold the submit: then most jobs end without a poll. */
Test(replicate_runs, prefer_wait_in_the_catalogue_saves_the_poll)
{
    static const struct house_options options = { .catalog =
                                                      CATALOG(",\"submit\":{\"headers\":{\"Prefer\":\"wait=20\"}}"),
                                                  .sandbox_config = SMALL };
    struct want want = { "held", PREDICT, NULL, "," SCHNELL, NULL, false, 0.2, 1, 1, 1, 0, NULL };
    struct house *h = house_open(&options);

    cases_run(h, &want, 1, LIMIT_MS);
    cr_expect_eq(house_counter(h, "held", "polls"), 0);
    house_close(h);
}

/* ---- cancel: the provider is told, once */

static bool wait_counter(const struct house *h, const char *tag, const char *name, int64_t at_least)
{
    for (int64_t until = cases_now_ms() + 30000; cases_now_ms() < until; cases_pause_ms(20))
        if (house_counter(h, tag, name) >= at_least)
            return true;
    return false;
}

static double metric(const struct house *h, const char *line)
{
    char url[64];
    struct reply r;
    const char *at;
    double value = 0;

    (void)snprintf(url, sizeof(url), "http://127.0.0.1:%d/metrics", h->worker_ports[0]);
    r = house_url("GET", url, NULL, NULL);
    at = r.text ? strstr(r.text, line) : NULL;
    if (at)
        value = strtod(at + strlen(line), NULL);
    reply_done(&r);
    return value;
}

static void cancel(const struct house *h, const char *tag, const char *id)
{
    char path[80];
    struct reply r;

    (void)snprintf(path, sizeof(path), "/v1/jobs/%s/cancel", id);
    r = house_call(h, "POST", path, NULL, NULL);
    cr_expect_eq(r.status, 200, "%s: %s", tag, r.text);
    cr_expect_str_eq(reply_text(&r, "state"), "canceled", "%s: %s", tag, r.text);
    cr_expect_float_eq(reply_number(&r, "credits.charged"), 0, 1e-9, "%s: %s", tag, r.text);
    reply_done(&r);
}

Test(replicate_runs, a_canceled_prediction_is_canceled_at_the_provider_once_whatever_it_answers)
{
    static const struct {
        const char *tag, *fault, *rule; /* rule: what the sandbox makes of the cancel */
        int status;
    } table[] = {
        { "good", "stuck", NULL, 200 },
        { "error", "stuck", "\"status\":500", 500 },
        { "refused", "stuck", "\"status\":401", 401 },
        { "cut", "stuck", "\"drop_before\":true", 0 },
        { "polled", "stuck]][[fault:delay_ms=1500,at=poll", NULL, 200 }, /* the last poll is out, and comes back */
    };
    static const struct house_options options = { .catalog = CATALOG(""), .sandbox_config = SMALL };
    struct house *h = house_open(&options);

    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct want want = { table[i].tag, PREDICT, table[i].fault, "," SCHNELL, NULL, false, 0, 1, 1, 1, 0, NULL };
        char id[40], rule[200], line[120];
        struct reply job;
        double before;

        if (table[i].rule) {
            (void)snprintf(rule, sizeof(rule),
                           "{\"match\":{\"prompt_contains\":\"job:%s]\"},\"fault\":{%s,\"at\":\"cancel\"}}",
                           table[i].tag, table[i].rule);
            house_fault(h, rule);
        }
        (void)snprintf(line, sizeof(line),
                       "kiln_provider_requests_total{provider=\"replicate\",kind=\"cancel\",status=\"%d\"} ",
                       table[i].status);
        before = metric(h, line);
        cases_submit(h, &want, NULL, id);
        cr_assert(wait_counter(h, table[i].tag, "polls", 1), "%s", table[i].tag);
        cancel(h, table[i].tag, id);
        cr_expect(wait_counter(h, table[i].tag, "cancels", 1), "%s: the provider was not told", table[i].tag);
        cancel(h, table[i].tag, id); /* again: nothing more */
        for (int64_t until = cases_now_ms() + 10000; metric(h, line) <= before && cases_now_ms() < until;)
            cases_pause_ms(20);
        cr_expect_float_eq(metric(h, line), before + 1, 1e-9, "%s: counted: %s", table[i].tag, line);
        cases_pause_ms(1600);
        cr_expect_eq(house_counter(h, table[i].tag, "cancels"), 1, "%s: told once", table[i].tag);
        cr_expect_eq(house_counter(h, table[i].tag, "paid"), 1, "%s", table[i].tag);
        job = house_wait(h, id, LIMIT_MS);
        cr_expect_str_eq(reply_text(&job, "state"), "canceled", "%s: %s", table[i].tag, job.text);
        reply_done(&job);
    }
    cr_expect_float_eq(house_held(h, "default"), 0, 1e-9);
    cr_expect_float_eq(house_balance(h, "default"), 1000, 1e-9);
    house_close(h);
}

/* The reference is not known yet: it is told as soon as the answer has brought it. */
Test(replicate_runs, a_cancel_while_the_submit_is_out_reaches_the_provider_with_the_answer)
{
    static const struct house_options options = { .catalog =
                                                      CATALOG(",\"submit\":{\"headers\":{\"Prefer\":\"wait=1\"}}"),
                                                  .sandbox_config = SMALL };
    struct want want = { "early", PREDICT, "stuck", "," SCHNELL, NULL, false, 0, 1, 1, 1, 0, NULL };
    struct house *h = house_open(&options);
    char id[40];

    cases_submit(h, &want, NULL, id);
    cr_assert(wait_counter(h, "early", "requests", 1));
    cancel(h, "early", id);
    cr_expect_eq(house_counter(h, "early", "cancels"), 0, "there is nothing to name it by yet");
    cr_expect(wait_counter(h, "early", "cancels", 1));
    cases_pause_ms(500);
    cr_expect_eq(house_counter(h, "early", "cancels"), 1);
    cr_expect_eq(house_counter(h, "early", "polls"), 0);
    house_close(h);
}

Test(replicate_runs, what_kiln_gives_up_waiting_for_is_canceled_there)
{
    static const struct house_options options = { .catalog = CATALOG(",\"deadline_s\":3"), .sandbox_config = SMALL };
    struct want want = { "late", PREDICT, "stuck", "," SCHNELL, "timeout", true, 0, 1, 1, 1, 0, NULL };
    struct house *h = house_open(&options);

    cases_run(h, &want, 1, LIMIT_MS);
    cr_expect(wait_counter(h, "late", "cancels", 1));
    cases_pause_ms(300);
    cr_expect_eq(house_counter(h, "late", "cancels"), 1);
    house_close(h);
}
