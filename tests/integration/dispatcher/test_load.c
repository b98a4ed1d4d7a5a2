/* test_load.c - too much of everything: the refusal comes with the headers, says when to come back, and costs nothing
 * behind it. */
#include "tests/integration/dispatcher/front.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include "common/base/clock.h"
#include "common/base/text.h"

SUPPORT_SERVICES();

static const char job[] = "{\"operation\":\"openai.images.generate\",\"params\":{\"prompt\":\"" FRONT_PROMPT "\"}}";

/* Sends a POST's head that announces `length` bytes, and the first `len` of them. The socket. */
static int begin_post(struct front *f, const char *path, const char *type, size_t length, const char *body, size_t len)
{
    char head[512];
    int fd = front_connect(f);

    (void)snprintf(head, sizeof(head),
                   "POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: %s\r\nContent-Length: "
                   "%zu\r\n\r\n",
                   path, f->key, type, length);
    cr_assert_geq(fd, 0);
    cr_assert_eq(send(fd, head, strlen(head), 0), (ssize_t)strlen(head));
    cr_assert_eq(send(fd, body, len, 0), (ssize_t)len);
    return fd;
}

/* What comes within the limit, up to the end of the headers; "" nothing. */
static const char *hear(int fd, int limit_ms)
{
    static char text[4096];
    size_t len = 0;
    int64_t until = clock_mono_ms() + limit_ms;

    text[0] = '\0';
    while (!strstr(text, "\r\n\r\n") && clock_mono_ms() < until) {
        ssize_t n;
        struct timeval wait = { .tv_usec = 50000 };

        (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
        n = recv(fd, text + len, sizeof(text) - 1 - len, 0);
        if (n == 0)
            break;
        len += n > 0 ? (size_t)n : 0;
        text[len] = '\0';
    }
    return text;
}

static void expect_refused(const char *answer, const char *what)
{
    cr_expect_eq(strncmp(answer, "HTTP/1.1 503", 12), 0, "%s: %.80s", what, answer);
    cr_expect_not_null(strstr(answer, "Retry-After: "), "%s: %s", what, answer);
}

static bool becomes(struct front *f, const char *path, const char *part)
{
    int64_t until = clock_mono_ms() + 10000;
    bool is = false;

    while (!is && clock_mono_ms() < until) {
        struct reply r = front_get(f, path);

        is = r.body && strstr(r.body, part) != NULL;
        reply_done(&r);
    }
    return is;
}

static double metric(struct front *f, const char *name)
{
    struct reply r = front_get(f, "/metrics");
    const char *at = strstr(r.body, name);
    double value = 0;

    if (at)
        (void)sscanf(at + strlen(name), " %lf", &value);
    reply_done(&r);
    return value;
}

static void *hold_jobs(void *ctx)
{
    free(support_sql(ctx, "with l as materialized (select kiln_test_lock()) select pg_sleep(2.5) from l"));
    return NULL;
}

Test(load, more_requests_than_it_may_work_on_are_refused_before_their_body_is_here)
{
    static const char *const env[] = { "KILN_MAX_REQUESTS=4", NULL };
    struct front f;
    struct reply r;
    pthread_t thread;
    int at_work[4], more;

    front_open(&f, env);
    front_grant(&f, "default", "1000");
    free(support_sql(f.db, "create function kiln_test_lock() returns int language plpgsql as "
                           "'begin lock table jobs in exclusive mode; return 1; end'"));
    cr_assert_eq(pthread_create(&thread, NULL, hold_jobs, f.db), 0);
    while (front_count(&f, "select count(*) from pg_locks where relation = 'jobs'::regclass and granted and mode = "
                           "'ExclusiveLock'") == 0)
        ;
    for (int i = 0; i < 4; i++)
        at_work[i] = begin_post(&f, "/v1/jobs", "application/json", strlen(job), job, strlen(job));
    cr_assert(becomes(&f, "/metrics", "kiln_requests_at_work 5\n"), "four, and this look");
    more = begin_post(&f, "/v1/jobs", "application/json", 100000, "", 0);
    expect_refused(hear(more, 1000), "at its headers");
    (void)close(more);
    r = front_get(&f, "/v1/operations");
    cr_expect_eq(r.status, 503, "whatever it wants");
    reply_done(&r);
    r = front_ask(&f, &(struct request_spec){ .method = "GET", .path = "/v1/admin/lanes", .key = f.admin_key });
    cr_expect_eq(r.status, 200, "but an operator gets in: %ld", r.status);
    reply_done(&r);
    r = front_get(&f, "/readyz");
    cr_expect_eq(r.status, 200, "but health is told: %ld", r.status);
    cr_expect_str_eq(reply_text(&r, "load"), "requests");
    reply_done(&r);
    cr_expect_geq(metric(&f, "kiln_shed_total{reason=\"requests\"}"), 2);
    (void)pthread_join(thread, NULL);
    for (int i = 0; i < 4; i++) {
        const char *got = hear(at_work[i], 5000);

        cr_expect_eq(strncmp(got, "HTTP/1.1 202", 12), 0, "%.60s", got);
        (void)close(at_work[i]);
    }
    r = front_post(&f, "/v1/jobs", job);
    cr_expect_eq(r.status, 202, "%ld %s", r.status, r.body);
    reply_done(&r);
    front_close(&f);
}

Test(load, who_only_waits_for_a_job_takes_nobodys_place)
{
    enum { WAITERS = 8 };
    static const char *const env[] = { "KILN_MAX_REQUESTS=2", NULL };
    struct front f;
    struct reply r;
    int fds[WAITERS];
    char *id;

    front_open(&f, env);
    front_grant(&f, "default", "1000");
    id = front_job(&f, NULL);
    for (int i = 0; i < WAITERS; i++) {
        char head[400];

        (void)snprintf(head, sizeof(head),
                       "GET /v1/jobs/%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nPrefer: wait=20\r\n\r\n", id,
                       f.key);
        fds[i] = front_connect(&f);
        cr_assert_eq(send(fds[i], head, strlen(head), 0), (ssize_t)strlen(head));
        (void)snprintf(head, sizeof(head), "kiln_waiters %d\n", i + 1);
        cr_assert(becomes(&f, "/metrics", head), "%d wait", i + 1);
    }
    r = front_post(&f, "/v1/jobs", job);
    cr_expect_eq(r.status, 202, "%ld %s", r.status, r.body);
    reply_done(&r);
    free(front_finish(&f, id, front_png, front_png_len, "image/png"));
    for (int i = 0; i < WAITERS; i++)
        (void)close(fds[i]);
    free(id);
    front_close(&f);
}

Test(load, more_bytes_than_it_may_hold_are_refused_before_they_come)
{
    static const char *const env[] = { "KILN_MEMORY_LIMIT=1", NULL };
    struct front f;
    struct reply r;
    int first, second;

    front_open(&f, env);
    front_grant(&f, "default", "1000");
    first = begin_post(&f, "/v1/jobs", "application/json", 700000, "{", 1);
    cr_assert(becomes(&f, "/metrics", "kiln_body_bytes 700000\n"));
    second = begin_post(&f, "/v1/jobs", "application/json", 700000, "", 0);
    expect_refused(hear(second, 2000), "a second large one");
    (void)close(second);
    second = begin_post(&f, "/v1/uploads", "image/png", 40000000, "", 0);
    expect_refused(hear(second, 2000), "an upload takes its buffers");
    (void)close(second);
    r = front_post(&f, "/v1/jobs", job);
    cr_expect_eq(r.status, 202, "a small one has room: %ld", r.status);
    reply_done(&r);
    (void)close(first); /* gone in the middle: what was set aside is free again */
    cr_expect(becomes(&f, "/metrics", "kiln_body_bytes 0\n"));
    cr_expect_eq(metric(&f, "kiln_shed_total{reason=\"memory\"}"), 2);
    front_close(&f);
}

Test(load, a_connection_too_many_is_answered_once_and_closed)
{
    enum { FILES = 1100, CONNECTIONS = 588, ANSWERED = CONNECTIONS / 16 };
    struct front f;
    int fds[CONNECTIONS - ANSWERED], more;
    struct rlimit limit = { FILES, FILES };
    const char *got;

    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    front_open(&f, NULL);
    for (size_t i = 0; i < ARRAY_LEN(fds); i++)
        cr_assert_geq(fds[i] = front_connect(&f), 0);
    more = begin_post(&f, "/v1/jobs", "application/json", 100000, "", 0);
    got = hear(more, 3000);
    expect_refused(got, "one too many");
    cr_expect_not_null(strstr(got, "Connection: close"), "%s", got);
    (void)close(more);
    for (size_t i = 0; i < ARRAY_LEN(fds); i++)
        (void)close(fds[i]);
    cr_expect(becomes(&f, "/readyz", "\"load\":\"connections\""));
    cr_expect(becomes(&f, "/v1/operations", "\"data\""), "and on it goes");
    front_close(&f);
}

Test(load, a_full_queue_is_refused_again_and_again_at_the_cost_of_few_questions)
{
    enum { POSTS = 40 };
    static const char *const env[] = { "KILN_MAX_QUEUED=2", NULL };
    struct request_spec keyed = { .method = "POST",
                                  .path = "/v1/jobs",
                                  .body = job,
                                  .type = "application/json",
                                  .headers = { "Idempotency-Key: first" } };
    struct front f;
    struct reply r;
    double asked;
    int64_t began;

    front_open(&f, env);
    front_grant(&f, "default", "1000");
    r = front_ask(&f, &keyed);
    cr_expect_eq(r.status, 202);
    reply_done(&r);
    r = front_post(&f, "/v1/jobs", job);
    cr_expect_eq(r.status, 202);
    reply_done(&r);
    asked = metric(&f, "kiln_db_rows_sum{call=\"accept\"}");
    began = clock_mono_ms();
    for (int i = 0; i < POSTS; i++) {
        r = front_post(&f, "/v1/jobs", job);
        cr_expect_eq(r.status, 429, "%ld", r.status);
        cr_expect_str_neq(reply_header(&r, "retry-after"), "");
        reply_done(&r);
    }
    asked = metric(&f, "kiln_db_rows_sum{call=\"accept\"}") - asked;
    cr_expect_leq(asked, (double)(clock_mono_ms() - began) / 500 + 2, "%g questions for %d refusals", asked, POSTS);
    r = front_ask(&f, &keyed);
    cr_expect_eq(r.status, 202, "a replay is no new job: %ld", r.status);
    reply_done(&r);
    front_close(&f);
}
