/* test_files.c - uploads come in streamed and checked; results go out as nothing that a browser would run. */
#include "tests/integration/dispatcher/front.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/clock.h"
#include "common/base/text.h"
#include "dispatcher/artifacts.h"

SUPPORT_SERVICES();

static struct reply upload(struct front *f, const void *bytes, size_t len, const char *type)
{
    return front_ask(
        f, &(struct request_spec){ .method = "POST", .path = "/v1/uploads", .body = bytes, .len = len, .type = type });
}

Test(uploads, a_file_is_what_its_first_bytes_say)
{
    struct front f;
    struct reply r;
    char sha[SHA256_HEX];

    front_open(&f, NULL);
    sha256_hex(sha, front_png, front_png_len);
    r = upload(&f, front_png, front_png_len, "image/jpeg");
    cr_assert_eq(r.status, 201, "%s", r.body);
    cr_expect_str_eq(reply_text(&r, "object"), "upload");
    cr_expect_str_eq(reply_text(&r, "mime"), "image/png", "the bytes decide");
    cr_expect_str_eq(reply_text(&r, "sha256"), sha);
    cr_expect_eq(json_integer_value(json_object_get(r.json, "width")), 2);
    cr_expect_eq(json_integer_value(json_object_get(r.json, "bytes")), (json_int_t)front_png_len);
    cr_expect_neq(reply_text(&r, "expires_at")[0], '\0');
    reply_done(&r);
    cr_expect_eq(front_count(&f, "select count(*) from uploads where mime = 'image/png' and account = 'default'"), 1);
    front_close(&f);
}

Test(uploads, what_is_no_media_is_refused_and_leaves_nothing)
{
    struct front f;
    struct reply r;
    static const char svg[] = "<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>";

    front_open(&f, NULL);
    r = upload(&f, svg, sizeof(svg) - 1, "image/png");
    cr_expect_eq(r.status, 422);
    cr_expect_str_eq(reply_field(&r), "body");
    reply_done(&r);
    r = upload(&f, svg, sizeof(svg) - 1, "image/svg+xml");
    cr_expect_eq(r.status, 415);
    cr_expect_str_eq(reply_field(&r), "Content-Type");
    reply_done(&r);
    r = upload(&f, "", 0, "image/png");
    cr_expect_eq(r.status, 422);
    reply_done(&r);
    r = front_ask(&f, &(struct request_spec){ .method = "POST",
                                              .path = "/v1/uploads?account=a%20b",
                                              .body = (const char *)front_png,
                                              .len = front_png_len,
                                              .type = "image/png" });
    cr_expect_eq(r.status, 422);
    cr_expect_str_eq(reply_field(&r), "account");
    reply_done(&r);
    cr_expect_eq(front_count(&f, "select count(*) from uploads"), 0);
    front_close(&f);
}

Test(uploads, megabytes_arrive_whole_and_too_many_are_413)
{
    enum { BIG = 8 << 20, TOO_BIG = (50 << 20) + 1 };
    struct front f;
    struct reply r;
    unsigned char *bytes = calloc(1, TOO_BIG);
    char sha[SHA256_HEX];

    memcpy(bytes, front_png, front_png_len);
    for (size_t i = front_png_len; i < BIG; i++)
        bytes[i] = (unsigned char)(i * 31 + (i >> 9));
    sha256_hex(sha, bytes, BIG);
    front_open(&f, NULL);
    r = upload(&f, bytes, BIG, "image/png");
    cr_assert_eq(r.status, 201, "%s", r.body);
    cr_expect_str_eq(reply_text(&r, "sha256"), sha, "every byte in its place over the pauses");
    reply_done(&r);
    /* without it the answer races the reset that unread bytes cause */
    r = front_ask(&f, &(struct request_spec){ .method = "POST",
                                              .path = "/v1/uploads",
                                              .body = (const char *)bytes,
                                              .len = TOO_BIG,
                                              .type = "image/png",
                                              .headers = { "Expect: 100-continue" } });
    cr_expect_eq(r.status, 413);
    reply_done(&r);
    r = front_ask(&f, &(struct request_spec){ .method = "POST",
                                              .path = "/v1/uploads",
                                              .body = (const char *)bytes,
                                              .len = TOO_BIG,
                                              .type = "image/png",
                                              .headers = { "Transfer-Encoding: chunked" } });
    cr_expect_eq(r.status, 413, "chunked: counted, not announced (%ld)", r.status);
    reply_done(&r);
    cr_expect_eq(front_count(&f, "select count(*) from uploads"), 1);
    free(bytes);
    front_close(&f);
}

Test(uploads, belong_to_their_app)
{
    struct front f;
    struct reply r;
    char body[400];

    front_open(&f, NULL);
    front_grant(&f, "default", "1000");
    r = front_ask(&f, &(struct request_spec){ .method = "POST",
                                              .path = "/v1/uploads",
                                              .key = f.other_key,
                                              .body = (const char *)front_png,
                                              .len = front_png_len,
                                              .type = "image/png" });
    cr_assert_eq(r.status, 201);
    snprintf(body, sizeof(body),
             "{\"operation\":\"stability.upscale.creative\",\"params\":{\"prompt\":\"x\",\"image\":\"%s\"}}",
             reply_text(&r, "id"));
    reply_done(&r);
    r = front_post(&f, "/v1/jobs", body);
    cr_expect_eq(r.status, 422);
    cr_expect_str_eq(reply_field(&r), "params.image");
    cr_expect_not_null(strstr(r.body, "neither an upload nor an artifact"));
    reply_done(&r);
    front_close(&f);
}

/* ---- results ---- */

static const unsigned char bytes[] = "\x89PNG\r\n\x1a\n0123456789 this stands for a picture of some length";
static const size_t bytes_len = sizeof(bytes) - 1;

struct result {
    char *job, *artifact, content[160], url[512];
};

static void result_make(struct front *f, struct result *x)
{
    char path[120];
    struct reply r;

    front_grant(f, "default", "100");
    x->job = front_job(f, NULL);
    x->artifact = front_finish(f, x->job, bytes, bytes_len, "image/png");
    snprintf(x->content, sizeof(x->content), "/v1/artifacts/%s/content", x->artifact);
    snprintf(path, sizeof(path), "/v1/artifacts/%s", x->artifact);
    r = front_get(f, path);
    cr_assert_eq(r.status, 200, "%s", r.body);
    cr_expect_str_eq(reply_text(&r, "job"), x->job);
    snprintf(x->url, sizeof(x->url), "%s", reply_text(&r, "url"));
    cr_expect_neq(reply_text(&r, "expires_at")[0], '\0');
    reply_done(&r);
}

static void result_done(struct result *x)
{
    free(x->job);
    free(x->artifact);
}

Test(artifacts, a_signed_link_opens_the_bytes_and_no_browser_runs_them)
{
    struct front f;
    struct result x;
    struct reply r;
    char start[64];

    front_open(&f, NULL);
    result_make(&f, &x);
    snprintf(start, sizeof(start), "http://127.0.0.1:%d/v1/artifacts/", f.port);
    cr_expect_eq(strncmp(x.url, start, strlen(start)), 0, "absolute, by the request's Host: %s", x.url);
    r = front_ask(&f, &(struct request_spec){ .method = "GET", .path = x.url, .key = "" });
    cr_assert_eq(r.status, 200);
    cr_expect_eq(r.len, bytes_len);
    cr_expect_arr_eq(r.body, bytes, bytes_len);
    cr_expect_str_eq(reply_header(&r, "Content-Type"), "image/png");
    cr_expect_str_eq(reply_header(&r, "X-Content-Type-Options"), "nosniff");
    cr_expect_str_eq(reply_header(&r, "Content-Security-Policy"), "default-src 'none'; sandbox");
    cr_expect_eq(strncmp(reply_header(&r, "Content-Disposition"), "inline; filename=\"", 18), 0);
    cr_expect_eq(strncmp(reply_header(&r, "Cache-Control"), "private", 7), 0);
    cr_expect_eq(strlen(reply_header(&r, "ETag")), 66);
    reply_done(&r);
    result_done(&x);
    front_close(&f);
}

Test(artifacts, without_key_or_signature_or_with_a_bent_one_nothing_opens)
{
    struct front f;
    struct result x;
    struct reply r;
    char bent[600], *mark;

    front_open(&f, NULL);
    result_make(&f, &x);
    r = front_ask(&f, &(struct request_spec){ .method = "GET", .path = x.content, .key = "" });
    cr_expect_eq(r.status, 401);
    reply_done(&r);
    snprintf(bent, sizeof(bent), "%s", x.url);
    mark = strstr(bent, "signature=") + 10;
    *mark = *mark == 'A' ? 'B' : 'A';
    r = front_ask(&f, &(struct request_spec){ .method = "GET", .path = bent, .key = "" });
    cr_expect_eq(r.status, 403);
    reply_done(&r);
    snprintf(bent, sizeof(bent), "%s", x.url);
    mark = strstr(bent, "expires=") + 8;
    *mark = '9'; /* another expiry under the same signature */
    r = front_ask(&f, &(struct request_spec){ .method = "GET", .path = bent, .key = "" });
    cr_expect_eq(r.status, 403);
    reply_done(&r);
    {
        unsigned char key[32]; /* the one that front.c gives */
        char good[44];

        for (size_t i = 0; i < sizeof(key); i++)
            key[i] = (unsigned char)i;
        artifacts_sign(good, key, x.artifact, clock_wall_ms() / 1000 + 60);
        snprintf(bent, sizeof(bent), "%s?expires=%lld&signature=%s", x.content,
                 (long long)(clock_wall_ms() / 1000 + 60), good);
        r = front_ask(&f, &(struct request_spec){ .method = "GET", .path = bent, .key = "" });
        cr_expect_eq(r.status, 200, "well signed");
        reply_done(&r);
        artifacts_sign(good, key, x.artifact, clock_wall_ms() / 1000 - 1);
        snprintf(bent, sizeof(bent), "%s?expires=%lld&signature=%s", x.content, (long long)(clock_wall_ms() / 1000 - 1),
                 good);
    }
    r = front_ask(&f, &(struct request_spec){ .method = "GET", .path = bent, .key = "" });
    cr_expect_eq(r.status, 403, "well signed, and expired");
    reply_done(&r);
    r = front_ask(&f, &(struct request_spec){ .method = "GET", .path = x.content, .key = f.other_key });
    cr_expect_eq(r.status, 404, "another app's");
    reply_done(&r);
    r = front_get(&f, x.content);
    cr_expect_eq(r.status, 200, "the app's own key");
    reply_done(&r);
    result_done(&x);
    front_close(&f);
}

static const struct {
    const char *range;
    long status;
    size_t from, to;
    const char *content_range;
} ranges[] = {
    { "Range: bytes=0-3", 206, 0, 3, "bytes 0-3/" },
    { "Range: bytes=5-", 206, 5, 0, "bytes 5-" },
    { "Range: bytes=-4", 206, SIZE_MAX, 4, "bytes " },
    { "Range: bytes=2-999999", 206, 2, 0, "bytes 2-" },
    { "Range: bytes=999999-", 416, 0, 0, "bytes */" },
    { "Range: bytes=-0", 416, 0, 0, "bytes */" },
    { "Range: bytes=3-1", 200, 0, 0, "" },
    { "Range: bytes=0-1,3-4", 200, 0, 0, "" },
    { "Range: rows=0-1", 200, 0, 0, "" },
};

Test(artifacts, one_range_is_served_and_an_impossible_one_is_416)
{
    struct front f;
    struct result x;

    front_open(&f, NULL);
    result_make(&f, &x);
    for (size_t i = 0; i < ARRAY_LEN(ranges); i++) {
        struct reply r =
            front_ask(&f, &(struct request_spec){ .method = "GET", .path = x.content, .headers = { ranges[i].range } });
        size_t from = ranges[i].from == SIZE_MAX ? bytes_len - ranges[i].to : ranges[i].from;
        size_t to = ranges[i].from == SIZE_MAX || ranges[i].to == 0 ? bytes_len - 1 : ranges[i].to;

        cr_expect_eq(r.status, ranges[i].status, "%s: %ld", ranges[i].range, r.status);
        if (ranges[i].status != 416) {
            cr_expect_eq(r.len, to - from + 1, "%s", ranges[i].range);
            cr_expect_arr_eq(r.body, bytes + from, r.len);
        }
        cr_expect_eq(
            strncmp(reply_header(&r, "Content-Range"), ranges[i].content_range, strlen(ranges[i].content_range)), 0,
            "%s", ranges[i].range);
        reply_done(&r);
    }
    {
        struct reply r = front_ask(&f, &(struct request_spec){ .method = "HEAD", .path = x.content });
        char length[16], etag[128], line[160];

        snprintf(length, sizeof(length), "%zu", bytes_len);
        cr_expect_eq(r.status, 200);
        cr_expect_eq(r.len, 0);
        cr_expect_str_eq(reply_header(&r, "Content-Length"), length);
        snprintf(etag, sizeof(etag), "%s", reply_header(&r, "ETag"));
        reply_done(&r);
        snprintf(line, sizeof(line), "If-None-Match: %s", etag);
        r = front_ask(&f, &(struct request_spec){ .method = "GET", .path = x.content, .headers = { line } });
        cr_expect_eq(r.status, 304);
        reply_done(&r);
        r = front_ask(&f, &(struct request_spec){ .method = "GET",
                                                  .path = x.content,
                                                  .headers = { "Range: bytes=0-3", "If-Range: \"other\"" } });
        cr_expect_eq(r.status, 200, "If-Range of another version: whole");
        reply_done(&r);
    }
    result_done(&x);
    front_close(&f);
}

Test(artifacts, a_type_that_a_browser_would_run_goes_out_as_plain_bytes)
{
    struct front f;
    struct reply r;
    char *job, *artifact, path[120];
    static const char html[] = "<html><script>alert(1)</script>";

    front_open(&f, NULL);
    front_grant(&f, "default", "100");
    job = front_job(&f, NULL);
    artifact = front_finish(&f, job, html, sizeof(html) - 1, "text/html");
    snprintf(path, sizeof(path), "/v1/artifacts/%s/content", artifact);
    r = front_get(&f, path);
    cr_expect_eq(r.status, 200);
    cr_expect_str_eq(reply_header(&r, "Content-Type"), "application/octet-stream");
    cr_expect_eq(strncmp(reply_header(&r, "Content-Disposition"), "attachment", 10), 0);
    reply_done(&r);
    free(job);
    free(artifact);
    front_close(&f);
}

Test(artifacts, a_result_serves_as_input_of_the_next_job)
{
    struct front f;
    struct result x;
    struct reply r;
    char body[400];

    front_open(&f, NULL);
    result_make(&f, &x); /* 2x1 pixels: found, and too small */
    snprintf(body, sizeof(body),
             "{\"operation\":\"stability.upscale.creative\",\"params\":{\"prompt\":\"x\",\"image\":\"%s\"}}",
             x.artifact);
    r = front_post(&f, "/v1/jobs", body);
    cr_expect_eq(r.status, 422);
    cr_expect_str_eq(reply_field(&r), "params.image");
    cr_expect_null(strstr(r.body, "neither an upload"), "it is found: %s", r.body);
    reply_done(&r);
    free(support_sql(f.db, "update artifacts set width = 512, height = 512 returning 1"));
    front_grant(&f, "default", "100");
    r = front_post(&f, "/v1/jobs", body);
    cr_expect_eq(r.status, 202, "%s", r.body);
    cr_expect_eq(front_count(&f, "select count(*) from jobs where inputs->'image'->0->>'object' like 'job/%'"), 1);
    reply_done(&r);
    result_done(&x);
    front_close(&f);
}

Test(uploads, live_as_long_as_the_job_that_needs_them)
{
    struct front f;
    struct reply r;
    char body[400];

    front_open(&f, NULL);
    front_grant(&f, "default", "1000");
    r = upload(&f, front_png, front_png_len, "image/png");
    cr_assert_eq(r.status, 201);
    free(support_sql(f.db, "update uploads set width = 512, height = 512 returning 1"));
    snprintf(body, sizeof(body),
             "{\"operation\":\"stability.upscale.creative\",\"params\":{\"prompt\":\"x\",\"image\":\"%s\"},"
             "\"deadline_s\":604800}",
             reply_text(&r, "id"));
    reply_done(&r);
    r = front_post(&f, "/v1/jobs", body);
    cr_assert_eq(r.status, 202, "%s", r.body);
    reply_done(&r);
    cr_expect_eq(front_count(&f, "select count(*) from uploads u, jobs j where u.expires_at >= j.deadline_at"), 1);
    free(support_sql(f.db, "update uploads set expires_at = now() returning 1"));
    r = front_post(&f, "/v1/jobs", body);
    cr_expect_eq(r.status, 422, "expired");
    cr_expect_str_eq(reply_field(&r), "params.image");
    reply_done(&r);
    front_close(&f);
}
