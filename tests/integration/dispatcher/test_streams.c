/* test_streams.c - server-sent events: what is seen, what is resumed, who sees nothing. The jobs are ended by SQL, so
 * no event of Redis helps: what is seen here is seen without it. */
#include "tests/integration/dispatcher/front.h"
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "common/base/text.h"

SUPPORT_SERVICES();

/* The body of a chunked answer, in place; what is not chunked stays. */
static void dechunk(char *text)
{
    char *from = strstr(text, "\r\n\r\n"), *to, *end;

    if (strstr(text, "chunked") == NULL || from == NULL)
        return;
    from = to = from + 4;
    for (;;) {
        unsigned long n = strtoul(from, &end, 16);

        if (n == 0 || strncmp(end, "\r\n", 2) != 0 || strlen(end + 2) < n)
            break;
        memmove(to, end + 2, n);
        to += n;
        from = end + 2 + n + 2;
    }
    *to = '\0';
}

static int begin_as(struct front *f, const char *version, const char *path, const char *key, const char *more)
{
    char head[512];
    int fd = front_connect(f);

    snprintf(head, sizeof(head), "GET %s %s\r\nHost: x\r\nAuthorization: Bearer %s\r\n%s\r\n", path, version, key,
             more);
    cr_assert_eq(send(fd, head, strlen(head), 0), (ssize_t)strlen(head));
    return fd;
}

static int begin(struct front *f, const char *path, const char *key, const char *last)
{
    char more[128] = "";

    if (last != NULL)
        snprintf(more, sizeof(more), "Last-Event-ID: %s\r\n", last);
    return begin_as(f, "HTTP/1.1", path, key, more);
}

static void reset(int fd) /* goes without a good-bye */
{
    struct linger at_once = { .l_onoff = 1 };

    cr_assert_eq(setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once)), 0);
    close(fd);
}

static bool shows(struct front *f, const char *line) /* in the metrics, within ten seconds */
{
    for (int i = 0; i < 200; i++) {
        struct reply r = front_get(f, "/metrics");
        bool is_there = strstr(r.body, line) != NULL;

        reply_done(&r);
        if (is_there)
            return true;
        (void)poll(NULL, 0, 50);
    }
    return false;
}

/* What comes until `want` is in it, or it ends, or ten seconds are over. free() it. */
static char *read_until(int fd, const char *want)
{
    struct buf b = { 0 };
    char piece[4096], *copy = NULL;

    for (int i = 0; i < 200; i++) {
        struct pollfd p = { .fd = fd, .events = POLLIN };
        ssize_t n = poll(&p, 1, 50) == 1 ? recv(fd, piece, sizeof(piece), 0) : -1;

        if (n > 0)
            (void)buf_add(&b, piece, (size_t)n);
        free(copy);
        copy = strdup(b.data != NULL ? b.data : "");
        dechunk(copy);
        if (n == 0 || (want != NULL && strstr(copy, want) != NULL))
            break;
    }
    buf_done(&b);
    return copy;
}

static size_t occurrences(const char *text, const char *what)
{
    size_t n = 0;

    for (const char *p = strstr(text, what); p != NULL; p = strstr(p + 1, what))
        n++;
    return n;
}

Test(streams, of_a_job_show_it_until_its_end_and_are_not_needed_after)
{
    struct front f;
    char path[96], *job, *text;
    int fd;

    front_open(&f, NULL);
    front_grant(&f, "default", "100");
    job = front_job(&f, NULL);
    snprintf(path, sizeof(path), "/v1/jobs/%s/events", job);
    fd = begin(&f, path, f.key, NULL);
    text = read_until(fd, "\"state\":\"queued\"");
    cr_expect_not_null(strstr(text, "text/event-stream"), "%s", text);
    cr_expect_not_null(strstr(text, "retry: 2000\n"));
    cr_expect_not_null(strstr(text, "id: 1\nevent: job\n"), "%s", text);
    free(text);
    free(front_finish(&f, job, front_png, front_png_len, "image/png"));
    text = read_until(fd, "\"state\":\"succeeded\"");
    cr_expect_not_null(strstr(text, "\"state\":\"succeeded\""), "%s", text);
    free(text);
    close(fd);

    fd = begin(&f, path, f.key, "1");
    text = read_until(fd, "\"state\":\"succeeded\"");
    cr_expect_eq(occurrences(text, "event: job"), 1, "%s", text);
    free(text);
    close(fd);
    fd = begin(&f, path, f.key, "1000000");
    text = read_until(fd, "\r\n\r\n");
    cr_expect_eq(strncmp(text, "HTTP/1.1 204 ", 13), 0, "%s", text);
    free(text);
    close(fd);
    fd = begin(&f, path, f.other_key, NULL);
    text = read_until(fd, "\r\n\r\n");
    cr_expect_eq(strncmp(text, "HTTP/1.1 404 ", 13), 0, "another app's job: %s", text);
    free(text);
    close(fd);
    free(job);
    front_close(&f);
}

/* kill -9 of the dispatcher: what ended before, while it was away and after is seen by who comes back. */
Test(streams, of_an_app_are_resumed_over_a_death_of_the_dispatcher_without_a_gap)
{
    struct front f;
    char *jobs[30], *text, *at, last[96] = "", want[96];
    int fd, other;

    front_open(&f, NULL);
    front_grant(&f, "default", "1000");
    for (size_t i = 0; i < ARRAY_LEN(jobs); i++)
        jobs[i] = front_job(&f, NULL);
    fd = begin(&f, "/v1/events", f.key, NULL);
    other = begin(&f, "/v1/events", f.other_key, NULL);
    free(read_until(fd, "retry:"));
    free(front_finish(&f, jobs[0], front_png, front_png_len, "image/png"));
    text = read_until(fd, jobs[0]);
    at = strstr(text, "id: ");
    cr_assert_not_null(at, "%s", text);
    cr_expect_not_null(strstr(text, "event: ended\n"), "%s", text);
    snprintf(last, sizeof(last), "%.*s", (int)strcspn(at + 4, "\r\n"), at + 4);
    free(text);
    front_fail(&f, jobs[1], "provider_error", "refused", -1);
    front_kill(&f);
    close(fd);
    text = read_until(other, NULL);
    cr_expect_null(strstr(text, "event: ended"), "another app's events: %s", text);
    free(text);
    close(other);
    for (size_t i = 2; i < ARRAY_LEN(jobs) - 1; i++)
        front_fail(&f, jobs[i], "provider_error", "refused", -1);
    front_start(&f);
    fd = begin(&f, "/v1/events", f.key, last);
    snprintf(want, sizeof(want), "\"job\" : \"%s\"", jobs[ARRAY_LEN(jobs) - 2]);
    text = read_until(fd, want);
    for (size_t i = 1; i < ARRAY_LEN(jobs) - 1; i++)
        cr_expect_not_null(strstr(text, jobs[i]), "job %zu is missing", i);
    free(text);
    front_fail(&f, jobs[ARRAY_LEN(jobs) - 1], "provider_error", "refused", -1);
    text = read_until(fd, jobs[ARRAY_LEN(jobs) - 1]);
    cr_expect_not_null(strstr(text, jobs[ARRAY_LEN(jobs) - 1]), "live after the resumption");
    free(text);
    close(fd);
    for (size_t i = 0; i < ARRAY_LEN(jobs); i++)
        free(jobs[i]);
    front_close(&f);
}

Test(streams, are_ended_politely_when_the_dispatcher_goes)
{
    struct front f;
    char *text;
    int fd;

    front_open(&f, NULL);
    fd = begin(&f, "/v1/events", f.key, NULL);
    free(read_until(fd, "retry:"));
    front_stop(&f);
    text = read_until(fd, NULL);
    cr_expect_not_null(strstr(text, "0\r\n\r\n"), "the last chunk: %s", text);
    free(text);
    close(fd);
    front_start(&f);
    front_close(&f);
}

Test(streams, to_http_1_0_are_plain_and_who_is_cut_off_is_gone_at_once)
{
    struct front f;
    char path[96], *job, *text;
    int fd;

    front_open(&f, NULL);
    front_grant(&f, "default", "100");
    job = front_job(&f, NULL);
    snprintf(path, sizeof(path), "/v1/jobs/%s/events", job);
    fd = begin_as(&f, "HTTP/1.0", path, f.key, "");
    text = read_until(fd, "\"state\":\"queued\"");
    cr_expect_not_null(strstr(text, "\r\n\r\nretry: 2000\n\nid: 1\nevent: job\n"), "no chunks: %s", text);
    cr_expect_null(strstr(text, "chunked"), "%s", text);
    free(text);
    cr_expect(shows(&f, "\nkiln_streams 1\n"));
    reset(fd);
    cr_expect(shows(&f, "\nkiln_streams 0\n"), "its descriptor and memory are free before the next beat");
    free(job);
    front_close(&f);
}

/* A long-poll leaves libmicrohttpd after a second; what it is answered must not show that. */
Test(streams, and_long_polls_that_parked_are_answered_whole_then_closed)
{
    struct front f;
    char path[96], *job, *text, *body;
    int fd, gone;

    front_open(&f, NULL);
    front_grant(&f, "default", "100");
    job = front_job(&f, NULL);
    snprintf(path, sizeof(path), "/v1/jobs/%s", job);
    fd = begin_as(&f, "HTTP/1.1", path, f.key, "Prefer: wait=2\r\nIf-None-Match: \"1\"\r\n");
    text = read_until(fd, NULL);
    cr_expect_eq(strncmp(text, "HTTP/1.1 304 ", 13), 0, "%s", text);
    cr_expect_not_null(strstr(text, "ETag: \"1\"\r\n"), "%s", text);
    cr_expect_str_eq(strstr(text, "\r\n\r\n"), "\r\n\r\n", "no body: %s", text);
    free(text);
    close(fd);
    gone = begin_as(&f, "HTTP/1.1", path, f.key, "Prefer: wait=20\r\n");
    fd = begin_as(&f, "HTTP/1.1", path, f.key, "Prefer: wait=20\r\n");
    cr_expect(shows(&f, "\nkiln_waiters 2\n"));
    (void)poll(NULL, 0, 1500); /* until they have parked: nothing tells when */
    reset(gone);
    free(front_finish(&f, job, front_png, front_png_len, "image/png"));
    text = read_until(fd, NULL);
    cr_expect_eq(strncmp(text, "HTTP/1.1 200 OK\r\n", 17), 0, "%s", text);
    cr_expect_not_null(strstr(text, "\r\nConnection: close\r\n"), "%s", text);
    cr_expect_not_null(strstr(text, "\r\nPreference-Applied: wait=20\r\n"), "%s", text);
    cr_expect_not_null(strstr(text, "\"url\":\"http://x/"), "links name the host that was asked: %s", text);
    body = strstr(text, "\r\n\r\n");
    cr_assert(body != NULL && strstr(text, "Content-Length: ") != NULL);
    cr_expect_eq(strlen(body + 4), strtoul(strstr(text, "Content-Length: ") + 16, NULL, 10), "%s", text);
    free(text);
    close(fd);
    cr_expect(shows(&f, "\nkiln_waiters 0\n"), "who went is forgotten too");
    free(job);
    front_close(&f);
}
