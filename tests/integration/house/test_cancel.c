/* test_cancel.c - a cancel ends the job at once and frees all that was held, wherever the job is; what the provider
 * still brings is kept as evidence and never shown. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/integration/house/cases.h"

SUPPORT_SERVICES();

enum { LIMIT_MS = 60000, RACES = 50 };

static struct reply cancel(const struct house *h, const char *id)
{
    char path[80];

    (void)snprintf(path, sizeof(path), "/v1/jobs/%s/cancel", id);
    return house_call(h, "POST", path, NULL, NULL);
}

static void expect_canceled(const struct house *h, const struct reply *r)
{
    cr_expect_eq(r->status, 200, "%ld %s", r->status, r->text);
    cr_expect_str_eq(reply_text(r, "state"), "canceled", "%s", r->text);
    cr_expect_float_eq(reply_number(r, "credits.charged"), 0, 1e-9, "%s", r->text);
    cr_expect_float_eq(reply_number(r, "credits.held"), 0, 1e-9, "%s", r->text);
    cr_expect_str_eq(reply_text(r, "artifacts.0.id"), "", "%s", r->text);
    cr_expect_float_eq(house_held(h, "default"), 0, 1e-9);
    cr_expect_float_eq(house_balance(h, "default"), 1000, 1e-9);
}

static bool wait_counter(const struct house *h, const char *tag, const char *name, int64_t at_least)
{
    for (int64_t until = cases_now_ms() + 30000; cases_now_ms() < until; cases_pause_ms(20))
        if (house_counter(h, tag, name) >= at_least)
            return true;
    return false;
}

static bool wait_evidence(const struct house *h, const char *id)
{
    char sql[256];

    (void)snprintf(sql, sizeof(sql),
                   "select count(*) from attempts where job_id = '%s' and evidence::text like '%%delivered%%'", id);
    return house_wait_sql(h, sql, 1, 30000);
}

Test(cancel, a_queued_job_is_never_sent)
{
    static const struct house_options options = { .no_worker = true };
    struct want want = { "queued", CORE, NULL, NULL, NULL, false, 0, 0, 0, 0, 0, NULL };
    struct house *h = house_open(&options);
    char id[40];
    struct reply r;

    cases_submit(h, &want, NULL, id);
    cr_expect_float_eq(house_held(h, "default"), 3, 1e-9);
    r = cancel(h, id);
    expect_canceled(h, &r);
    cr_expect_str_eq(reply_text(&r, "error.code"), "canceled", "%s", r.text);
    reply_done(&r);
    (void)house_worker_start(h, NULL);
    r = house_run(h, CORE, "{\"prompt\":\"after it [[job:after]]\"}", LIMIT_MS); /* the same lane: its turn has been */
    cr_expect_str_eq(reply_text(&r, "state"), "succeeded", "%s", r.text);
    reply_done(&r);
    cr_expect_eq(house_counter(h, "queued", "requests"), 0);
    house_close(h);
}

Test(cancel, a_waiting_job_ends_at_once_and_is_polled_no_more)
{
    static const struct house_options options = { .catalog = CATALOG_LEO("") };
    struct want want = { "waiting", LEO, "stuck", NULL, NULL, false, 0, 1, 1, 1, 0, NULL };
    struct house *h = house_open(&options);
    char id[40];
    struct reply r;
    int64_t polls;

    cases_submit(h, &want, NULL, id);
    cr_assert(wait_counter(h, "waiting", "polls", 2));
    r = cancel(h, id);
    expect_canceled(h, &r);
    reply_done(&r);
    cases_pause_ms(500); /* a poll that was out; the hint's way */
    polls = house_counter(h, "waiting", "polls");
    cases_pause_ms(1500);
    cr_expect_leq(house_counter(h, "waiting", "polls"), polls, "asked on after the cancel");
    cr_expect_eq(house_counter(h, "waiting", "paid"), 1);
    house_close(h);
}

static void expect_late_result_hidden(const char *operation, const char *tag, const char *fault, const char *extra)
{
    static const struct house_options options = { .catalog = CATALOG_LEO("") };
    struct want want = { tag, operation, fault, extra, NULL, false, 0, 1, 1, 1, 0, NULL };
    struct house *h = house_open(&options);
    char id[40], path[96];
    struct reply r;

    cases_submit(h, &want, NULL, id);
    cr_assert(wait_counter(h, tag, "requests", 1));
    r = cancel(h, id);
    expect_canceled(h, &r);
    reply_done(&r);
    cr_expect(wait_evidence(h, id), "%s: the result came and is on record", tag);
    (void)snprintf(path, sizeof(path), "/v1/jobs/%s?expand=attempts", id);
    r = house_call(h, "GET", path, NULL, NULL);
    expect_canceled(h, &r);
    reply_done(&r);
    cr_expect_eq(support_sql_int(h->db, "select count(*) from artifacts"), 0, "%s", tag);
    cr_expect_eq(house_counter(h, tag, "paid"), 1);
    cr_expect_eq(house_counter(h, tag, "requests"), 1);
    house_close(h);
}

Test(cancel, a_result_that_comes_after_it_is_evidence_only)
{
    expect_late_result_hidden(CORE, "mid", "delay_ms=1500", NULL);
}

Test(cancel, a_result_under_way_in_pieces_is_evidence_only)
{
    expect_late_result_hidden(GPT, "slow", "slow_body=65536,slow_ms=4", ",\"quality\":\"low\"");
}

Test(cancel, what_has_ended_stays_as_it_ended)
{
    struct want fails = { "fails", CORE, "moderated", NULL, "content_filtered", false, 0, 1, 0, 1, 403, NULL };
    struct want goes = { "goes", CORE, NULL, NULL, NULL, false, 3, 1, 1, 1, 0, NULL };
    struct house *h = house_open(NULL);
    char ids[2][40];
    struct reply r;

    cases_submit(h, &fails, NULL, ids[0]);
    cases_submit(h, &goes, NULL, ids[1]);
    cases_expect(h, &fails, ids[0], LIMIT_MS);
    cases_expect(h, &goes, ids[1], LIMIT_MS);
    r = cancel(h, ids[0]);
    cr_expect_eq(r.status, 200);
    reply_done(&r);
    cases_expect(h, &fails, ids[0], LIMIT_MS);
    for (int i = 0; i < 2; i++) {
        r = cancel(h, ids[1]);
        cr_expect_eq(r.status, 200);
        cr_expect_str_eq(reply_text(&r, "id"), ids[1], "with that job: %s", r.text);
        cr_expect_str_eq(reply_text(&r, "state"), "succeeded", "%s", r.text);
        reply_done(&r);
    }
    cases_expect(h, &goes, ids[1], LIMIT_MS);
    r = cancel(h, "01900000-0000-7000-8000-000000000000");
    cr_expect_eq(r.status, 404, "%s", r.text);
    reply_done(&r);
    cr_expect_float_eq(house_balance(h, "default"), 997, 1e-9);
    house_close(h);
}

/* Whoever is first wins, and all of it: a picture for three credits, or nothing for nothing. */
Test(cancel, a_race_with_the_end_has_one_winner)
{
    static const struct house_options options = {
        .sandbox_config = "{\"image_size_cap\":64,\"delay_ms\":{\"stability_generate\":{\"min\":0,\"max\":60}}}"
    };
    struct house *h = house_open(&options);
    int canceled = 0, succeeded = 0;

    for (int i = 0; i < RACES; i++) {
        char tag[16], id[40];
        struct want want = { tag, CORE, NULL, NULL, NULL, false, 0, 1, 1, 1, 0, NULL };
        struct reply r, job;
        const char *state;

        (void)snprintf(tag, sizeof(tag), "race%d", i);
        cases_submit(h, &want, NULL, id);
        cases_pause_ms(i * 5);
        r = cancel(h, id);
        cr_expect_eq(r.status, 200);
        job = house_wait(h, id, LIMIT_MS);
        state = reply_text(&job, "state");
        cr_expect_str_eq(state, reply_text(&r, "state"), "what the cancel said holds: %s", job.text);
        if (!strcmp(state, "succeeded")) {
            succeeded++;
            cr_expect_float_eq(reply_number(&job, "credits.charged"), 3, 1e-9, "%s", job.text);
            cr_expect_neq(reply_text(&job, "artifacts.0.id")[0], '\0');
        } else {
            canceled++;
            cr_expect_str_eq(state, "canceled", "%s", job.text);
            cr_expect_float_eq(reply_number(&job, "credits.charged"), 0, 1e-9, "%s", job.text);
            cr_expect_str_eq(reply_text(&job, "artifacts.0.id"), "", "%s", job.text);
        }
        reply_done(&r);
        reply_done(&job);
    }
    cr_expect_gt(canceled, 0, "%d canceled, %d succeeded", canceled, succeeded);
    cr_expect_gt(succeeded, 0, "%d canceled, %d succeeded", canceled, succeeded);
    cr_expect_float_eq(house_balance(h, "default"), 1000 - 3 * succeeded, 1e-6);
    cr_expect_float_eq(house_held(h, "default"), 0, 1e-9);
    house_close(h);
}
