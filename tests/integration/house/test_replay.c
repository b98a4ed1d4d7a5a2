/* test_replay.c - one order said twice, money that is held already, and waiting for the end within the POST. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "common/base/text.h"
#include "tests/integration/house/cases.h"

SUPPORT_SERVICES();

#define SLOW                                                                                                           \
    "{\"operation\":\"stability.generate.core\",\"params\":{\"prompt\":\"slow [[job:%s]][[fault:delay_ms=1500]]\"}}"

static struct reply post(const struct house *h, const char *tag, const char *header)
{
    const char *headers[] = { header, NULL };
    char body[256];

    (void)snprintf(body, sizeof(body), SLOW, tag);
    return house_call(h, "POST", "/v1/jobs", body, header ? headers : NULL);
}

Test(replay, the_same_key_is_the_same_job_while_it_runs_and_after_it)
{
    static const char key[] = "Idempotency-Key: order-1";
    struct house *h = house_open(NULL);
    struct reply first = post(h, "one", key), again, job;
    char id[40];

    cr_assert_eq(first.status, 202, "%s", first.text);
    (void)snprintf(id, sizeof(id), "%s", reply_text(&first, "id"));
    cr_assert(house_wait_sql(h, "select count(*) from jobs where state = 'running'", 1, 20000));
    again = post(h, "one", key);
    cr_expect_eq(again.status, 202, "%s", again.text);
    cr_expect_str_eq(reply_text(&again, "id"), id);
    cr_expect_not_null(strstr(again.headers, "Idempotent-Replayed: true"), "%s", again.headers);
    reply_done(&again);
    job = house_wait(h, id, 60000);
    cr_expect_str_eq(reply_text(&job, "state"), "succeeded", "%s", job.text);
    again = post(h, "one", key);
    cr_expect_eq(again.status, 202, "%s", again.text);
    cr_expect_str_eq(reply_text(&again, "id"), id);
    cr_expect_str_eq(reply_text(&again, "state"), "succeeded", "%s", again.text);
    reply_done(&again);
    again = post(h, "another", key);
    cr_expect_eq(again.status, 422, "%s", again.text);
    cr_expect_str_eq(reply_text(&again, "code"), "idempotency_mismatch", "%s", again.text);
    reply_done(&again);
    cr_expect_eq(house_counter(h, "one", "requests"), 1);
    cr_expect_eq(house_counter(h, "another", "requests"), 0);
    cr_expect_float_eq(house_balance(h, "default"), 997, 1e-9);
    reply_done(&first);
    reply_done(&job);
    house_close(h);
}

/* Minutes later run_at is past: refused to whoever comes first, and no reason to deny a job that was taken. */
Test(replay, a_job_with_run_at_is_the_same_job_long_after_its_time)
{
    static const char first[] = "Idempotency-Key: later-1", other[] = "Idempotency-Key: later-2";
    const char *const headers[] = { first, NULL }, *const others[] = { other, NULL };
    char body[256], when[32], shift[64], env[96];
    struct house_options options = { .no_dispatcher = true };
    struct house *h = house_open(&options);
    struct timespec now;
    struct reply a, b;
    FILE *file;

    (void)snprintf(shift, sizeof(shift), "%.48s/clock", h->dir);
    (void)snprintf(env, sizeof(env), "KILN_FAILPOINTS=clock=%s", shift);
    house_dispatcher_start(h, (const char *const[]){ env, NULL });
    (void)clock_gettime(CLOCK_REALTIME, &now);
    rfc3339_ms(when, ((int64_t)now.tv_sec + 2) * 1000);
    (void)snprintf(body, sizeof(body),
                   "{\"operation\":\"stability.generate.core\",\"run_at\":\"%s\",\"params\":{\"prompt\":\"later\"}}",
                   when);
    a = house_call(h, "POST", "/v1/jobs", body, headers);
    cr_assert_eq(a.status, 202, "%s", a.text);
    file = fopen(shift, "w");
    cr_assert_not_null(file);
    (void)fputs("600000\n", file); /* the dispatcher's clock is ten minutes on */
    (void)fclose(file);
    cr_assert(house_wait_sql(h, "select count(*) from jobs where state = 'succeeded'", 1, 30000));
    b = house_call(h, "POST", "/v1/jobs", body, headers);
    cr_expect_eq(b.status, 202, "%s", b.text);
    cr_expect_str_eq(reply_text(&b, "id"), reply_text(&a, "id"));
    reply_done(&b);
    b = house_call(h, "POST", "/v1/jobs", body, others);
    cr_expect_eq(b.status, 422, "a key that has no job: %s", b.text);
    cr_expect_not_null(strstr(b.text, "run_at"), "%s", b.text);
    reply_done(&b);
    b = house_call(h, "POST", "/v1/jobs", body, NULL);
    cr_expect_eq(b.status, 422, "no key: %s", b.text);
    reply_done(&b);
    memcpy(strstr(body, "later\"}"), "elder", 5);
    b = house_call(h, "POST", "/v1/jobs", body, headers);
    cr_expect_str_eq(reply_text(&b, "code"), "idempotency_mismatch", "%s", b.text);
    reply_done(&b);
    cr_expect_eq(support_sql_int(h->db, "select count(*) from jobs"), 1);
    reply_done(&a);
    house_close(h);
}

Test(replay, what_is_held_cannot_be_spent_twice)
{
    static const struct house_options options = { .credits = 5 };
    struct house *h = house_open(&options);
    struct reply first = post(h, "held", NULL), second = post(h, "poor", NULL), job;

    cr_assert_eq(first.status, 202, "%s", first.text);
    cr_expect_eq(second.status, 402, "%s", second.text);
    cr_expect_str_eq(reply_text(&second, "code"), "insufficient_credits", "%s", second.text);
    cr_expect_float_eq(reply_number(&second, "credits_needed"), 3, 1e-9, "%s", second.text);
    cr_expect_float_eq(reply_number(&second, "credits_available"), 2, 1e-9, "%s", second.text);
    cr_expect_eq(support_sql_int(h->db, "select count(*) from jobs"), 1, "402 writes nothing");
    reply_done(&second);
    job = house_wait(h, reply_text(&first, "id"), 60000);
    cr_expect_str_eq(reply_text(&job, "state"), "succeeded", "%s", job.text);
    second = post(h, "poor", NULL);
    cr_expect_eq(second.status, 402, "two credits are left: %s", second.text);
    reply_done(&second);
    house_grant(h, "default", 1);
    second = post(h, "rich", NULL);
    cr_expect_eq(second.status, 202, "%s", second.text);
    reply_done(&job);
    job = house_wait(h, reply_text(&second, "id"), 60000);
    cr_expect_float_eq(house_balance(h, "default"), 0, 1e-9);
    cr_expect_eq(house_counter(h, "poor", "requests"), 0);
    reply_done(&first);
    reply_done(&second);
    reply_done(&job);
    house_close(h);
}

Test(replay, a_post_that_waits_answers_with_the_end)
{
    struct house *h = house_open(NULL);
    struct reply r = post(h, "patient", "Prefer: wait=30");

    cr_expect_eq(r.status, 200, "%ld %s", r.status, r.text);
    cr_expect_str_eq(reply_text(&r, "state"), "succeeded", "%s", r.text);
    cr_expect_neq(reply_text(&r, "artifacts.0.url")[0], '\0');
    reply_done(&r);
    r = post(h, "hasty", "Prefer: wait=1");
    cr_expect_eq(r.status, 202, "%ld %s", r.status, r.text);
    cr_expect_str_eq(reply_text(&r, "state"), "running", "%s", r.text);
    {
        struct reply job = house_wait(h, reply_text(&r, "id"), 60000);

        cr_expect_float_eq(house_balance(h, "default"), 994, 1e-9, "%s", job.text);
        reply_done(&job);
    }
    reply_done(&r);
    house_close(h);
}
