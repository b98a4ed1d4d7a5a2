/* test_http.c - the HTTP that no well-behaved client sends: two readings of one request, drips, floods. */
#include "tests/integration/dispatcher/front.h"
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "common/base/clock.h"
#include "common/base/text.h"

SUPPORT_SERVICES();

#define HEAD "POST /v1/jobs HTTP/1.1\r\nHost: x\r\n"

static const struct {
    const char *what, *bytes;
} smuggling[] = {
    { "two lengths", HEAD "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} " },
    { "two equal lengths", HEAD "Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}" },
    { "length and chunked", HEAD "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n" },
    { "chunked twice", HEAD "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" },
    { "an unknown coding", HEAD "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" },
    { "space before the colon", HEAD "Content-Length : 2\r\n\r\n{}" },
    { "two hosts", HEAD "Host: y\r\n\r\n" },
    { "no host", "GET /healthz HTTP/1.1\r\n\r\n" },
    { "a negative length", HEAD "Content-Length: -2\r\n\r\n{}" },
    { "a length with a sign", HEAD "Content-Length: +2\r\n\r\n{}" },
};

Test(http, what_two_parsers_could_read_in_two_ways_is_400_and_closed)
{
    struct front f;

    front_open(&f, NULL);
    for (size_t i = 0; i < ARRAY_LEN(smuggling); i++) {
        bool closed;
        char *got = front_raw(&f, smuggling[i].bytes, strlen(smuggling[i].bytes), 3000, &closed);

        cr_expect_eq(strncmp(got, "HTTP/1.1 400", 12), 0, "%s: %.60s", smuggling[i].what, got);
        cr_expect(closed, "%s: still open", smuggling[i].what);
        free(got);
    }
    front_close(&f);
}

Test(http, large_headers_are_431_and_large_bodies_413)
{
    struct front f;
    struct reply r;
    char *header = malloc(12000), *body = malloc((1 << 20) + 2), *got, line[200];
    bool closed;

    front_open(&f, NULL);
    memset(header, 'a', 12000);
    memcpy(header, "X-Long: ", 8);
    header[9000] = '\0';
    r = front_ask(&f, &(struct request_spec){ .method = "GET", .path = "/healthz", .headers = { header } });
    cr_expect_eq(r.status, 431);
    cr_expect_str_eq(reply_text(&r, "code"), "headers_too_large");
    reply_done(&r);
    memset(body, ' ', (1 << 20) + 1);
    body[(1 << 20) + 1] = '\0';
    r = front_ask(&f, &(struct request_spec){ .method = "POST",
                                              .path = "/v1/jobs",
                                              .type = "application/json",
                                              .body = body,
                                              .headers = { "Expect: 100-continue" } });
    cr_expect_eq(r.status, 413);
    cr_expect_str_eq(reply_text(&r, "code"), "too_large");
    reply_done(&r);
    r = front_ask(&f, &(struct request_spec){ .method = "POST",
                                              .path = "/v1/jobs",
                                              .type = "application/json",
                                              .body = body,
                                              .headers = { "Transfer-Encoding: chunked" } });
    cr_expect_eq(r.status, 413, "chunked: %ld", r.status);
    reply_done(&r);
    snprintf(line, sizeof(line),
             "POST /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n"
             "Content-Length: 99999999\r\n\r\n",
             f.key);
    got = front_raw(&f, line, strlen(line), 5000, &closed);
    cr_expect_eq(strncmp(got, "HTTP/1.1 413", 12), 0, "answered before the body came: %.40s", got);
    free(got);
    free(header);
    free(body);
    front_close(&f);
}

/* Drips one byte each 300 ms and says after how long the other side closed. */
static int64_t drip(struct front *f, const char *start, const char *more, int limit_ms)
{
    int fd = front_connect(f);
    int64_t began = clock_mono_ms();
    char c[256];

    (void)!send(fd, start, strlen(start), MSG_NOSIGNAL);
    for (size_t i = 0; clock_mono_ms() - began < limit_ms; i++) {
        struct pollfd p = { .fd = fd, .events = POLLIN };

        if (poll(&p, 1, 300) > 0 && recv(fd, c, sizeof(c), 0) <= 0)
            break;
        (void)!send(fd, &more[i % strlen(more)], 1, MSG_NOSIGNAL);
    }
    close(fd);
    return clock_mono_ms() - began;
}

Test(http, who_drips_headers_or_a_body_is_cut_off)
{
    struct front f;
    char start[300];
    int64_t ms;

    front_open(&f, NULL);
    ms = drip(&f, "GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: ", "aaaaaaaa", 30000);
    cr_expect(ms > 8000 && ms < 14000, "headers: closed after %lld ms", (long long)ms);
    snprintf(start, sizeof(start),
             "POST /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n"
             "Content-Length: 1000\r\n\r\n{",
             f.key);
    ms = drip(&f, start, "    ", 40000);
    cr_expect(ms > 15000 && ms < 25000, "body: closed after %lld ms", (long long)ms);
    front_close(&f);
}

Test(http, pipelined_requests_are_answered_in_order)
{
    struct front f;
    bool closed;
    char *got, *second;
    static const char two[] = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /nothing HTTP/1.1\r\nHost: x\r\n"
                              "Connection: close\r\n\r\n";

    front_open(&f, NULL);
    got = front_raw(&f, two, strlen(two), 5000, &closed);
    cr_expect_eq(strncmp(got, "HTTP/1.1 200", 12), 0);
    second = strstr(got + 12, "HTTP/1.1 ");
    cr_assert_not_null(second);
    cr_expect_eq(strncmp(second, "HTTP/1.1 404", 12), 0);
    cr_expect(closed);
    free(got);
    front_close(&f);
}

Test(http, wrong_methods_and_paths_say_so)
{
    struct front f;
    struct reply r;

    front_open(&f, NULL);
    r = front_ask(&f, &(struct request_spec){ .method = "DELETE", .path = "/v1/jobs" });
    cr_expect_eq(r.status, 405);
    cr_expect_str_eq(reply_header(&r, "Allow"), "POST, GET, HEAD");
    reply_done(&r);
    {
        static const char *const absent[] = {
            "/",        "/v1",         "/v1/jobs/", "/v1/workflows", "/v1/usage", "/v1/admin/nothing", "/v1/jobs/a/b",
            "/v2/jobs", "/v1/jobs%00", "//v1/jobs"
        };

        for (size_t i = 0; i < ARRAY_LEN(absent); i++) {
            r = front_get(&f, absent[i]);
            cr_expect_eq(r.status, 404, "%s: %ld", absent[i], r.status);
            cr_expect_str_eq(reply_text(&r, "code"), "not_found");
            reply_done(&r);
        }
    }
    front_close(&f);
}
