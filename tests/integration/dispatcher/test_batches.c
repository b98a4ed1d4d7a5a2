/* test_batches.c - POST /v1/batches: all or none, once per key, and what is shown of it. */
#include "tests/integration/dispatcher/front.h"
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/clock.h"
#include "common/base/text.h"

SUPPORT_SERVICES();

#define JOB "{\"operation\":\"openai.images.generate\",\"params\":{\"prompt\":\"" FRONT_PROMPT "\"}}"

static int64_t rows(struct front *f)
{
    return front_count(f, "select (select count(*) from jobs) + (select count(*) from idempotency) + (select count(*) "
                          "from uploads) + (select count(*) from ledger where kind <> 'grant')");
}

/* {"jobs":[…]} of `count` times `job`. free() it. */
static char *batch_of(size_t count, const char *job)
{
    struct buf b = { 0 };

    (void)buf_str(&b, "{\"jobs\":[");
    for (size_t i = 0; i < count; i++)
        (void)buf_printf(&b, "%s%s", i > 0 ? "," : "", job);
    (void)buf_str(&b, "]}");
    return buf_take(&b);
}

static struct reply post_with_key(struct front *f, const char *path, const char *body, const char *key)
{
    char header[128];
    struct request_spec spec = { .method = "POST", .path = path, .body = body, .type = "application/json" };

    snprintf(header, sizeof(header), "Idempotency-Key: %s", key);
    spec.headers[0] = header;
    return front_ask(f, &spec);
}

static const json_t *at(const struct reply *r, const char *one, const char *two)
{
    const json_t *value = json_object_get(r->json, one);

    return two != NULL ? json_object_get(value, two) : value;
}

Test(batches, are_taken_whole_shown_by_their_numbers_and_listed_by_their_jobs)
{
    struct front f;
    struct reply made, shown, list, job, other;
    char path[96];
    char first[40];

    front_open(&f, NULL);
    front_grant(&f, "default", "100");
    front_grant(&f, "b", "100");
    made = front_post(&f, "/v1/batches",
                      "{\"jobs\":[" JOB "," JOB ",{\"operation\":\"image.generate\",\"params\":{\"prompt\":\"x\"},"
                      "\"account\":\"b\",\"priority\":3,\"metadata\":{\"n\":3}}]}");
    cr_assert_eq(made.status, 202, "%s", made.body);
    cr_expect_eq(json_integer_value(at(&made, "total", NULL)), 3);
    cr_expect_eq(json_integer_value(at(&made, "counts", "queued")), 3);
    cr_expect(json_is_null(at(&made, "account", NULL)), "two accounts: none to name");
    cr_assert_eq(json_array_size(at(&made, "job_ids", NULL)), 3);
    snprintf(first, sizeof(first), "%s", json_string_value(json_array_get(at(&made, "job_ids", NULL), 0)));
    snprintf(path, sizeof(path), "/v1/batches/%s", reply_text(&made, "id"));
    cr_expect_str_eq(reply_header(&made, "Location"), path);

    shown = front_get(&f, path);
    cr_assert_eq(shown.status, 200, "%s", shown.body);
    (void)json_object_del(made.json, "job_ids");
    cr_expect(json_equal(made.json, shown.json), "%s\n%s", made.body, shown.body);
    other = front_ask(&f, &(struct request_spec){ .method = "GET", .path = path, .key = f.other_key });
    cr_expect_eq(other.status, 404, "another app sees nothing");
    reply_done(&other);
    reply_done(&shown);

    snprintf(path, sizeof(path), "/v1/jobs?batch=%s&limit=2", reply_text(&made, "id"));
    list = front_get(&f, path);
    cr_assert_eq(json_array_size(at(&list, "data", NULL)), 2, "%s", list.body);
    cr_expect(json_is_true(at(&list, "has_more", NULL)));
    cr_expect_str_eq(json_text(json_array_get(at(&list, "data", NULL), 0), "account"), "b", "newest first");
    reply_done(&list);
    other = front_ask(&f, &(struct request_spec){ .method = "GET", .path = path, .key = f.other_key });
    cr_expect_eq(json_array_size(at(&other, "data", NULL)), 0);
    reply_done(&other);

    snprintf(path, sizeof(path), "/v1/jobs/%s", first);
    job = front_get(&f, path);
    cr_expect_str_eq(reply_text(&job, "batch"), reply_text(&made, "id"));
    reply_done(&job);
    cr_expect_eq(front_count(&f, "select count(*) from ledger where kind = 'hold'"), 3, "one hold a job");
    cr_expect_eq(front_count(&f, "select sum(held) from accounts"), front_count(&f, "select sum(hold_mc) from jobs"));
    cr_expect_eq(front_count(&f, "select count(*) from jobs where extras ? 'route' and priority = 3"), 1,
                 "a routed job carries its legs");

    free(front_finish(&f, first, front_png, front_png_len, "image/png"));
    snprintf(path, sizeof(path), "/v1/batches/%s", reply_text(&made, "id"));
    shown = front_get(&f, path);
    cr_expect_eq(json_integer_value(at(&shown, "counts", "succeeded")), 1, "%s", shown.body);
    cr_expect_eq(json_integer_value(at(&shown, "counts", "queued")), 2);
    cr_expect_gt(json_number_value(at(&shown, "credits", "charged")), 0);
    reply_done(&shown);
    reply_done(&made);
    front_close(&f);
}

/* What all share goes to PostgreSQL once, until one differs: columns at different jobs, and one only in its last. */
Test(batches, keep_what_each_job_says_whoever_of_them_differs)
{
    struct front f;
    struct reply made;
    struct buf b = { 0 };
    char later[RFC3339_TEXT], sql[900];

    rfc3339_ms(later, clock_wall_ms() + 3600000);
    snprintf(
        sql, sizeof(sql),
        "select count(*) from (select *, (metadata ->> 'n')::int as i, row_number() over (order by id) - 1 as o from "
        "jobs) x where i <> o or operation <> case when i = 39 then 'image.generate' else 'openai.images.generate' end "
        "or units <> case when i between 25 and 38 then 2 else 1 end or account <> case when i >= 1 and i < 30 then "
        "'default' else 'b' end or priority <> case when i < 7 then 2 else i %% 3 end or deadline_at <> "
        "greatest(created_at, run_at) + make_interval(secs => case when i < 20 then 700 else 800 end) or run_at is "
        "distinct from case when i >= 11 then timestamptz '%s' end",
        later);
    front_open(&f, NULL);
    front_grant(&f, "default", "1000");
    front_grant(&f, "b", "1000");
    (void)buf_str(&b, "{\"jobs\":[");
    for (int i = 0; i < 40; i++)
        (void)buf_printf(
            &b,
            "%s{\"operation\":\"%s\",\"params\":{\"prompt\":\"" FRONT_PROMPT "\"%s},\"metadata\":{\"n\":%d},"
            "\"account\":\"%s\",\"priority\":%d,\"deadline_s\":%d%s%s%s}",
            i > 0 ? "," : "", i == 39 ? "image.generate" : "openai.images.generate", i > 24 && i < 39 ? ",\"n\":2" : "",
            i, i >= 1 && i < 30 ? "default" : "b", i < 7 ? 2 : i % 3, i < 20 ? 700 : 800,
            i >= 11 ? ",\"run_at\":\"" : "", i >= 11 ? later : "", i >= 11 ? "\"" : "");
    (void)buf_str(&b, "]}");
    made = front_post(&f, "/v1/batches", b.data);
    buf_done(&b);
    cr_assert_eq(made.status, 202, "%s", made.body);
    cr_expect_eq(front_count(&f, "select count(*) from jobs"), 40);
    cr_expect_eq(front_count(&f, sql), 0);
    cr_expect_eq(front_count(&f, "select sum(held) from accounts"), front_count(&f, "select sum(hold_mc) from jobs"));
    reply_done(&made);
    front_close(&f);
}

Test(batches, that_one_account_cannot_pay_leave_nothing_and_their_key_is_free)
{
    struct front f;
    struct reply r;
    char *body = batch_of(9, JOB);

    front_open(&f, NULL);
    front_grant(&f, "default", "100");
    front_grant(&f, "poor", "1");
    body[strlen(body) - 2] = '\0';
    body = realloc(body, strlen(body) + 300);
    strncat(body, ",{\"operation\":\"openai.images.generate\",\"params\":{\"prompt\":\"x\"},\"account\":\"poor\"}]}",
            200);
    r = post_with_key(&f, "/v1/batches", body, "k1");
    cr_expect_eq(r.status, 402, "%s", r.body);
    cr_expect_gt(json_number_value(at(&r, "credits_needed", NULL)), 1);
    reply_done(&r);
    cr_expect_eq(rows(&f), 0);
    cr_expect_eq(front_count(&f, "select sum(held) from accounts"), 0);
    front_grant(&f, "poor", "1000");
    r = post_with_key(&f, "/v1/batches", body, "k1");
    cr_expect_eq(r.status, 202, "%s", r.body);
    cr_expect_str_eq(reply_header(&r, "Idempotent-Replayed"), "");
    reply_done(&r);
    cr_expect_eq(front_count(&f, "select count(*) from jobs"), 10);
    free(body);
    front_close(&f);
}

static const struct {
    const char *body, *code, *field;
} wrong[] = {
    { "[]", "invalid_request", "body" },
    { "{}", "invalid_request", "jobs" },
    { "{\"jobs\":[]}", "invalid_request", "jobs" },
    { "{\"jobs\":{}}", "invalid_request", "jobs" },
    { "{\"jobs\":[" JOB "],\"account\":\"x\"}", "invalid_request", "account" },
    { "{\"jobs\":[" JOB ",7]}", "invalid_request", "jobs[1]" },
    { "{\"jobs\":[" JOB ",{\"operation\":\"no.such\",\"params\":{}}]}", "unknown_operation", "jobs[1].operation" },
    { "{\"jobs\":[" JOB "," JOB
      ",{\"operation\":\"openai.images.generate\",\"params\":{\"prompt\":\"x\",\"size\":\"1x1\"}}]}",
      "invalid_request", "jobs[2].params.size" },
    { "{\"jobs\":[" JOB ",{\"operation\":\"openai.images.generate\",\"params\":{\"prompt\":\"x\"},\"priority\":101}]}",
      "invalid_request", "jobs[1].priority" },
    { "{\"jobs\":[" JOB ",{\"operation\":\"stability.upscale.creative\",\"params\":{\"prompt\":\"x\",\"image\":"
      "\"01a1fb42-f5ec-7001-bb2e-6cbfb859717b\"}}]}",
      "invalid_request", "jobs[1].params.image" },
    { "{\"jobs\":[" JOB ",{\"operation\":\"openai.images.generate\",\"params\":{\"prompt\":{\"template\":\"none\"}}}]}",
      "invalid_request", "jobs[1].params.prompt.template" },
    { "{\"jobs\":[" JOB ",{\"operation\":\"image.generate\",\"params\":{\"prompt\":\"x\"},\"provider\":\"none\"}]}",
      "invalid_request", "" },
};

Test(batches, name_every_fault_by_its_job_and_leave_no_row)
{
    struct front f;
    struct reply r;
    char *body;

    front_open(&f, NULL);
    front_grant(&f, "default", "100");
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        r = front_post(&f, "/v1/batches", wrong[i].body);
        cr_expect_eq(r.status, 422, "%zu: %ld %s", i, r.status, r.body);
        cr_expect_str_eq(reply_text(&r, "code"), wrong[i].code, "%zu: %s", i, r.body);
        if (wrong[i].field[0] != '\0')
            cr_expect_str_eq(reply_field(&r), wrong[i].field, "%zu: %s", i, r.body);
        else
            cr_expect_eq(strncmp(reply_field(&r), "jobs[1].", 8), 0, "%s", r.body);
        reply_done(&r);
    }
    r = front_post(&f, "/v1/batches", "{\"jobs\":[");
    cr_expect_eq(r.status, 400);
    reply_done(&r);
    body = batch_of(40, "{\"operation\":\"openai.images.generate\",\"params\":{}}");
    r = front_post(&f, "/v1/batches", body);
    cr_expect_eq(r.status, 422);
    cr_expect_eq(json_array_size(at(&r, "errors", NULL)), 16, "many faults, a bounded list: %s", r.body);
    reply_done(&r);
    free(body);
    body = batch_of(10001, JOB);
    r = front_post(&f, "/v1/batches", body);
    cr_expect_eq(r.status, 422);
    cr_expect_str_eq(reply_field(&r), "jobs");
    reply_done(&r);
    free(body);
    cr_expect_eq(rows(&f), 0, "refused batches leave rows");
    front_close(&f);
}

/* A data: URI of a batch that is refused for another job's sake is taken back. */
Test(batches, take_back_the_files_they_brought_when_another_job_is_refused)
{
    struct front f;
    struct reply r;
    struct buf body = { 0 };
    char *text = malloc(4 * front_png_len + 8);

    front_open(&f, (const char *const[]){ "OPENAI_API_KEY=" FRONT_PROVIDER, NULL });
    front_grant(&f, "default", "100");
    cr_assert_not_null(base64_encode(text, 4 * front_png_len + 8, front_png, front_png_len));
    (void)buf_printf(&body,
                     "{\"jobs\":[{\"operation\":\"image.generate\",\"params\":{\"prompt\":\"x\",\"image\":"
                     "\"data:image/png;base64,%s\"}}," JOB
                     ",{\"operation\":\"openai.images.generate\",\"params\":{}}]}",
                     text);
    r = front_post(&f, "/v1/batches", body.data);
    cr_expect_eq(r.status, 422, "%s", r.body);
    reply_done(&r);
    cr_expect_eq(front_count(&f, "select count(*) from jobs"), 0);
    for (int i = 0; i < 100 && front_count(&f, "select count(*) from uploads") > 0; i++)
        (void)poll(NULL, 0, 20);
    cr_expect_eq(front_count(&f, "select count(*) from uploads"), 0);
    buf_done(&body);
    free(text);
    front_close(&f);
}

Test(batches, that_announce_too_much_are_refused_before_their_body_is_read)
{
    struct front f;
    char head[512], *got;
    bool closed;

    front_open(&f, NULL);
    snprintf(head, sizeof(head),
             "POST /v1/batches HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n"
             "Content-Length: %d\r\n\r\n",
             f.key, (16 << 20) + 1);
    got = front_raw(&f, head, strlen(head), 3000, &closed);
    cr_expect_eq(strncmp(got, "HTTP/1.1 413 ", 13), 0, "%.200s", got);
    free(got);
    front_close(&f);
}

Test(batches, are_taken_once_per_key_whatever_else_the_key_is_used_for)
{
    struct front f;
    struct reply first, again;
    char *body = batch_of(5, JOB), *longer = batch_of(6, JOB);

    front_open(&f, NULL);
    front_grant(&f, "default", "1000");
    first = post_with_key(&f, "/v1/batches", body, "k1");
    again = post_with_key(&f, "/v1/batches", body, "k1");
    cr_assert_eq(first.status, 202, "%s", first.body);
    cr_expect_eq(again.status, 202);
    cr_expect_str_eq(reply_header(&again, "Idempotent-Replayed"), "true");
    cr_expect_str_eq(first.body, again.body);
    reply_done(&again);
    again = post_with_key(&f, "/v1/batches", longer, "k1");
    cr_expect_str_eq(reply_text(&again, "code"), "idempotency_mismatch");
    reply_done(&again);
    again = post_with_key(&f, "/v1/jobs", JOB, "k1");
    cr_expect_str_eq(reply_text(&again, "code"), "idempotency_mismatch");
    reply_done(&again);
    again = post_with_key(&f, "/v1/jobs", JOB, "k2");
    cr_expect_eq(again.status, 202);
    reply_done(&again);
    again = post_with_key(&f, "/v1/batches", body, "k2");
    cr_expect_str_eq(reply_text(&again, "code"), "idempotency_mismatch");
    reply_done(&again);
    cr_expect_eq(front_count(&f, "select count(*) from jobs"), 6);
    reply_done(&first);
    free(body);
    free(longer);
    front_close(&f);
}

Test(batches, are_found_again_by_their_key_after_a_death_between_commit_and_answer)
{
    struct front f;
    struct reply r;
    char *body = batch_of(50, JOB);

    front_open(&f, (const char *const[]){ "KILN_FAILPOINTS=batch.after_commit=crash", NULL });
    front_grant(&f, "default", "1000");
    r = post_with_key(&f, "/v1/batches", body, "k1");
    cr_expect_eq(r.status, 0, "no answer: %ld", r.status);
    reply_done(&r);
    cr_assert(front_wait_exit(&f, 5000));
    f.env = NULL;
    front_start(&f);
    cr_expect_eq(front_count(&f, "select count(*) from jobs"), 50, "committed whole");
    r = post_with_key(&f, "/v1/batches", body, "k1");
    cr_expect_eq(r.status, 202, "%s", r.body);
    cr_expect_str_eq(reply_header(&r, "Idempotent-Replayed"), "true");
    cr_expect_eq(json_array_size(at(&r, "job_ids", NULL)), 50);
    reply_done(&r);
    cr_expect_eq(front_count(&f, "select count(*) from jobs"), 50);
    cr_expect_eq(front_count(&f, "select count(*) from ledger where kind = 'hold'"), 50);
    free(body);
    front_close(&f);
}

Test(batches, of_ten_thousand_are_one_transaction)
{
    struct front f;
    struct reply r;
    char *body = batch_of(10000, JOB);

    front_open(&f, NULL);
    front_grant(&f, "default", "1000000");
    r = front_post(&f, "/v1/batches", body);
    cr_assert_eq(r.status, 202, "%s", r.body);
    cr_log_info("10,000 jobs in %.3f s", r.seconds);
    cr_expect_eq(json_array_size(at(&r, "job_ids", NULL)), 10000);
    cr_expect_eq(front_count(&f, "select count(distinct xmin::text) from jobs"), 1, "one transaction");
    cr_expect_eq(front_count(&f, "select count(*) from jobs"), 10000);
    cr_expect_eq(front_count(&f, "select count(*) from kiln_audit()"), 0);
    reply_done(&r);
    free(body);
    front_close(&f);
}
