/* test_httpc.c - what httpc promises: fate is exact, paid requests leave once, limits hold, everybody is called back.
 */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "common/io/httpc.h"
#include "raw_server.h"

static uv_loop_t loop;
static struct httpc *client;
static struct raw_server *server;

struct got {
    int called, sent;
    struct httpc_call *call; /* cancelled when sent */
    enum err err;
    enum httpc_fate fate;
    long status;
    char body[2048], type[64], sha[SHA256_HEX], detail[256];
    size_t body_len;
    int64_t file_bytes;
    bool in_file;
};

static void on_answer(void *ctx, const struct httpc_answer *a)
{
    struct got *g = ctx;
    const char *mixed = httpc_header(a, "x-mixed-case");

    g->called++;
    g->err = a->err;
    g->fate = a->fate;
    g->status = a->status;
    g->body_len = a->body_len;
    snprintf(g->body, sizeof g->body, "%s", a->body);
    snprintf(g->type, sizeof g->type, "%s", mixed ? mixed : "");
    snprintf(g->detail, sizeof g->detail, "%s", a->detail);
    snprintf(g->sha, sizeof g->sha, "%s", a->file_sha256);
    g->in_file = a->in_file;
    g->file_bytes = a->file_bytes;
}

static void on_sent(void *ctx)
{
    struct got *g = ctx;
    g->sent++;
    if (g->call)
        httpc_cancel(g->call);
}

static void start(void)
{
    server = raw_server_start();
    cr_assert_eq(uv_loop_init(&loop), 0);
    client = httpc_new(&loop, &(struct httpc_config){ .user_agent = "User-Agent: kiln-test/1" });
    cr_assert_not_null(client);
}

static void on_closed(void *ctx)
{
    *(bool *)ctx = true;
}

static void stop(void)
{
    bool closed = false;
    httpc_close(client, on_closed, &closed);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_assert(closed);
    cr_assert_eq(uv_loop_close(&loop), 0, "a handle was left open");
    raw_server_stop(server);
}

static const char *url(const char *path)
{
    static char text[8][256];
    static int at;
    at = (at + 1) % 8;
    snprintf(text[at], sizeof text[at], "http://127.0.0.1:%d%s", raw_server_port(server), path);
    return text[at];
}

static struct httpc_request get(const char *path)
{
    return (struct httpc_request){ .method = "GET", .url = url(path), .timeout_ms = 10000 };
}

static struct got ask(struct httpc_request r)
{
    struct got g = { 0 };
    cr_assert_eq(httpc_send(client, &r, on_answer, &g, NULL), ERR_OK);
    cr_assert_eq(g.called, 0, "never from inside httpc_send");
    while (!g.called)
        uv_run(&loop, UV_RUN_ONCE);
    cr_assert_eq(g.called, 1);
    return g;
}

TestSuite(httpc, .init = start, .fini = stop);

Test(httpc, an_answer_comes_whole_with_headers_in_lower_case)
{
    struct got g = ask(get("/ok"));
    cr_expect(g.err == ERR_OK && g.fate == HTTPC_ANSWERED && g.status == 200, "%s", g.detail);
    cr_expect_str_eq(g.body, "{\"ok\":true}");
    cr_expect_str_eq(g.type, "Value");
    g = ask(get("/status?503"));
    cr_expect(g.err == ERR_OK && g.fate == HTTPC_ANSWERED && g.status == 503);
    cr_expect_eq(raw_server_connections(server), 1, "the connection is used again");
    cr_expect_eq(httpc_active(client), 0);
}

Test(httpc, a_request_leaves_as_it_was_given)
{
    static const char *const headers[] = { "Authorization: Bearer x", "Content-Type: application/json" };
    struct httpc_request r = get("/echo");
    char seen[4096];

    r.method = "POST";
    r.headers = headers;
    r.header_count = 2;
    r.body = "{\"a\":1}";
    r.body_len = 7;
    for (int paid = 0; paid < 2; paid++) {
        r.is_paid = paid;
        struct got g = ask(r);
        cr_expect_str_eq(g.body, "{\"a\":1}");
        raw_server_last(server, seen, sizeof seen);
        cr_expect_eq(strncmp(seen, "POST /echo HTTP/1.1\r\n", 21), 0);
        cr_expect_not_null(strstr(seen, "\r\nAuthorization: Bearer x\r\n"));
        cr_expect_not_null(strstr(seen, "\r\nContent-Type: application/json\r\n"));
        cr_expect_not_null(strstr(seen, "\r\nContent-Length: 7\r\n"));
        cr_expect_not_null(strstr(seen, "\r\nUser-Agent: kiln-test/1\r\n"));
        cr_expect_null(strstr(seen, "Expect"));
        cr_expect_null(strstr(seen, "Transfer-Encoding"));
    }
    r.method = "PUT";
    (void)ask(r);
    raw_server_last(server, seen, sizeof seen);
    cr_expect_eq(strncmp(seen, "PUT /echo", 9), 0);
    r = get("/ok");
    r.method = "DELETE";
    (void)ask(r);
    raw_server_last(server, seen, sizeof seen);
    cr_expect_eq(strncmp(seen, "DELETE /ok", 10), 0);
    r.method = "POST";
    (void)ask(r);
    raw_server_last(server, seen, sizeof seen);
    cr_expect_not_null(strstr(seen, "Content-Length: 0"));
    cr_expect_null(strstr(seen, "Content-Type"));
    r.method = "HEAD";
    r.url = url("/cut?39"); /* headers that promise 10 bytes */
    struct got g = ask(r);
    cr_expect(g.err == ERR_OK && g.body_len == 0, "%s", g.detail);
    static const char *const split[] = { "X: a\r\nY: b" };
    r.headers = split;
    r.header_count = 1;
    cr_expect_eq(httpc_send(client, &r, on_answer, &g, NULL), ERR_ARGUMENT, "a header cannot become two");
    r = get("/");
    r.url = "not a url";
    cr_expect_eq(httpc_send(client, &r, on_answer, &g, NULL), ERR_ARGUMENT);
}

static char path_text[] = "/tmp/kiln-httpc-XXXXXX";

static struct httpc_request multipart(bool is_paid)
{
    static struct httpc_part parts[3];
    struct httpc_request r = get("/echo");

    parts[0] = (struct httpc_part){ .name = "prompt", .data = "a fox", .len = 5 };
    parts[1] = (struct httpc_part){ .name = "image", .filename = "i.png", .mime = "image/png", .path = path_text };
    parts[2] = (struct httpc_part){ .name = "empty", .data = "", .len = 0 };
    r.method = "POST";
    r.parts = parts;
    r.part_count = 3;
    r.is_paid = is_paid;
    return r;
}

Test(httpc, multipart_has_a_length_and_all_its_parts)
{
    int fd = mkstemp(path_text);
    cr_assert(fd >= 0 && write(fd, "PNGBYTES", 8) == 8);
    close(fd);
    for (int paid = 0; paid < 2; paid++) {
        struct got g = ask(multipart(paid));
        cr_expect(g.err == ERR_OK && g.status == 200, "%s", g.detail);
        cr_expect_not_null(strstr(g.body, "name=\"prompt\"\r\n\r\na fox\r\n"));
        cr_expect_not_null(
            strstr(g.body, "name=\"image\"; filename=\"i.png\"\r\nContent-Type: image/png\r\n\r\nPNGBYTES\r\n"));
        cr_expect_not_null(strstr(g.body, "name=\"empty\"\r\n\r\n\r\n"));
    }
    unlink(path_text);
    struct got g = { 0 };
    struct httpc_request r = multipart(true);
    cr_expect_eq(httpc_send(client, &r, on_answer, &g, NULL), ERR_IO, "the file is gone");
}

/* The connection answers its first request, takes the second and closes without a word. curl would send that again. */
static struct got ask_on_dying_connection(struct httpc_request r)
{
    struct got g = ask(get("/again"));
    cr_assert_eq(g.err, ERR_OK);
    cr_assert_eq(raw_server_connections(server), 1);
    r.url = url("/again");
    return ask(r);
}

Test(httpc, an_unpaid_request_is_repeated_when_a_reused_connection_dies)
{
    struct got g = ask_on_dying_connection(get(""));
    cr_expect_eq(g.err, ERR_OK);
    cr_expect_eq(raw_server_requests(server), 3, "the control: without is_paid curl does send again");
}

Test(httpc, a_paid_json_body_leaves_once)
{
    struct httpc_request r = get("");
    r.method = "POST";
    r.body = "{}";
    r.body_len = 2;
    r.is_paid = true;
    struct got g = ask_on_dying_connection(r);
    cr_expect(g.fate == HTTPC_CUT && g.err == ERR_LOST, "%s", g.detail);
    cr_expect_eq(raw_server_requests(server), 2);
}

Test(httpc, a_paid_multipart_leaves_once)
{
    int fd = mkstemp(path_text);
    cr_assert(fd >= 0 && write(fd, "PNGBYTES", 8) == 8);
    close(fd);
    struct got g = ask_on_dying_connection(multipart(true));
    cr_expect(g.fate == HTTPC_CUT && g.err == ERR_LOST, "%s", g.detail);
    cr_expect_eq(raw_server_requests(server), 2);
    struct httpc_request r = multipart(true);
    r.part_count = 1; /* one text part alone */
    unlink(path_text);
    g = ask(get("/again"));
    r.url = url("/again");
    g = ask(r);
    cr_expect_eq(g.fate, HTTPC_CUT);
    cr_expect_eq(raw_server_requests(server), 4);
}

Test(httpc, a_paid_request_without_a_body_takes_a_fresh_connection)
{
    struct httpc_request r = get("");
    r.is_paid = true;
    struct got g = ask_on_dying_connection(r);
    cr_expect(g.fate == HTTPC_ANSWERED, "%s", g.detail);
    cr_expect_eq(raw_server_requests(server), 2);
    cr_expect_eq(raw_server_connections(server), 2);
}

Test(httpc, nothing_was_sent_when_the_host_cannot_be_reached)
{
    char text[128];
    struct httpc_request r = get("/ok");

    r.method = "POST";
    r.body = "{}";
    r.body_len = 2;
    r.is_paid = true;
    snprintf(text, sizeof text, "http://127.0.0.1:%d/", raw_server_closed_port());
    r.url = text;
    struct got g = ask(r);
    cr_expect(g.fate == HTTPC_NOT_SENT && g.err == ERR_UNAVAILABLE, "refused: %s", g.detail);
    snprintf(text, sizeof text, "https://127.0.0.1:%d/", raw_server_port(server));
    g = ask(r);
    cr_expect(g.fate == HTTPC_NOT_SENT && g.err == ERR_UNAVAILABLE, "no TLS: %s", g.detail);
    r.url = "http://kiln.invalid/";
    g = ask(r);
    cr_expect(g.fate == HTTPC_NOT_SENT && g.err == ERR_UNAVAILABLE, "no such name: %s", g.detail);
    r.url = "file:///etc/passwd";
    struct got none = { 0 };
    enum err err = httpc_send(client, &r, on_answer, &none, NULL);
    while (!err && !none.called)
        uv_run(&loop, UV_RUN_ONCE);
    cr_expect(err == ERR_ARGUMENT || (none.err == ERR_ARGUMENT && none.fate == HTTPC_NOT_SENT));
    cr_expect_eq(raw_server_requests(server), 0);
}

/* Easy handles keep what is the same for all calls: of what differs nothing may be left for the next. */
Test(httpc, a_request_is_the_same_after_any_other)
{
    static const char *const headers[] = { "Authorization: Bearer x", "Content-Type: application/json" };
    static char large[70000];
    enum { KINDS = 9 };
    struct httpc_part part = { .name = "a", .data = "b", .len = 1 };
    struct httpc_request kinds[KINDS];
    static char alone[KINDS][4096], seen[4096];

    memset(large, 'x', sizeof(large) - 1);
    for (int i = 0; i < KINDS; i++)
        kinds[i] = get("/ok");
    for (int i = 1; i < 4; i++) {
        kinds[i].method = i == 3 ? "PUT" : "POST";
        kinds[i].headers = headers;
        kinds[i].header_count = 2;
        kinds[i].body = "{\"a\":1}";
        kinds[i].body_len = 7;
        kinds[i].is_paid = i == 2;
    }
    kinds[4].method = "DELETE";
    kinds[5].method = "HEAD";
    kinds[6].method = "POST"; /* without a body, on a connection of its own */
    kinds[6].is_paid = true;
    kinds[7].method = "POST"; /* read by a function */
    kinds[7].body = large;
    kinds[7].body_len = sizeof(large) - 1;
    kinds[7].is_paid = true;
    kinds[8].method = "POST";
    kinds[8].parts = &part;
    kinds[8].part_count = 1;
    for (int i = 0; i < KINDS; i++) { /* each from a client that sent nothing before */
        stop();
        start();
        kinds[i].url = url("/ok");
        cr_expect_eq(ask(kinds[i]).err, ERR_OK);
        raw_server_last(server, alone[i], sizeof(alone[i]));
    }
    for (int pair = 0; pair < KINDS * KINDS; pair++) {
        int first = pair / KINDS, then = pair % KINDS;
        size_t host, same;

        kinds[first].url = kinds[then].url = url("/ok");
        cr_expect_eq(ask(kinds[first]).err, ERR_OK);
        cr_expect_eq(ask(kinds[then]).err, ERR_OK);
        raw_server_last(server, seen, sizeof(seen));
        host = strcspn(alone[then], "\n"); /* the next line has the server's port, which differs */
        same = strcspn(alone[then] + host + 1, "\n") + host + 1;
        cr_expect_eq(strncmp(seen, alone[then], host), 0, "%d after %d: %s", then, first, seen);
        if (then != 8) /* whose boundary is another each time */
            cr_expect_str_eq(seen + strcspn(seen + host + 1, "\n") + host + 1, alone[then] + same, "%d after %d", then,
                             first);
    }
}

Test(httpc, a_call_that_never_left_has_no_status)
{
    enum { MANY = 8 };
    struct got g[MANY] = { 0 };
    char text[128];

    for (int round = 0; round < 2; round++) { /* answered; then with the same handles, of which one goes ahead */
        snprintf(text, sizeof text, "http://localhost:%d/ok",
                 round ? raw_server_closed_port() : raw_server_port(server));
        memset(g, 0, sizeof g);
        for (int i = 0; i < MANY; i++) {
            struct httpc_request r = { .method = "GET", .url = text };
            cr_assert_eq(httpc_send(client, &r, on_answer, &g[i], NULL), ERR_OK);
        }
        while (httpc_active(client) > 0)
            uv_run(&loop, UV_RUN_ONCE);
        for (int i = 0; i < MANY; i++)
            cr_expect_eq(g[i].status, round ? 0 : 200, "%ld", (long)g[i].status);
    }
}

/* curl does not free the buffer of such a transfer, and believes that the handle's next one has 16 KiB. */
Test(httpc, a_name_that_does_not_resolve_leaves_no_small_buffer_behind)
{
    struct httpc_request r = get("/ok");
    struct got g;

    r.url = "https://kiln.invalid/";
    g = ask(r);
    cr_expect_eq(g.fate, HTTPC_NOT_SENT);
    g = ask(get("/bytes?40000"));
    cr_expect(g.err == ERR_OK && g.body_len == 40000, "%zu, %s", g.body_len, g.detail);
    r.url = "http://user@127.0.0.1/";
    r.is_guarded = true;
    g = ask(r);
    cr_expect_eq(g.fate, HTTPC_NOT_SENT);
    g = ask(get("/chunked?40000"));
    cr_expect(g.err == ERR_OK && g.body_len == 40000, "%zu, %s", g.body_len, g.detail);
}

Test(httpc, calls_that_wait_for_the_first_to_reach_a_host_share_its_failure_and_its_success)
{
    enum { MANY = 50 };
    struct got g[MANY] = { 0 };
    char text[128];

    for (int round = 0; round < 2; round++) {
        snprintf(text, sizeof text, "http://localhost:%d/ok",
                 round ? raw_server_port(server) : raw_server_closed_port());
        memset(g, 0, sizeof g);
        for (int i = 0; i < MANY; i++) {
            struct httpc_request r = { .method = "GET", .url = text };
            cr_assert_eq(httpc_send(client, &r, on_answer, &g[i], &g[i].call), ERR_OK);
        }
        httpc_cancel(g[0].call); /* the one that went ahead */
        httpc_cancel(g[7].call); /* one that waits */
        while (httpc_active(client) > 0)
            uv_run(&loop, UV_RUN_ONCE);
        for (int i = 0; i < MANY; i++) {
            cr_expect_eq(g[i].called, 1);
            cr_expect_eq(g[i].err,
                         i == 0 || i == 7 ? ERR_CANCELED
                         : round          ? ERR_OK
                                          : ERR_UNAVAILABLE,
                         "%d: %s", i, g[i].detail);
            cr_expect_eq(g[i].fate, round && i != 0 && i != 7 ? HTTPC_ANSWERED : HTTPC_NOT_SENT);
        }
    }
    cr_expect_eq(raw_server_requests(server), MANY - 2);
}

Test(httpc, an_answer_cut_at_any_byte_is_cut)
{
    char path[32];
    for (int n = 0; n <= RAW_SERVER_CUT_TOTAL; n++) {
        struct httpc_request r = get("");
        snprintf(path, sizeof path, "/cut?%d", n);
        r.url = url(path);
        r.method = "POST";
        r.body = "{}";
        r.body_len = 2;
        r.is_paid = true;
        struct got g = ask(r);
        if (n == RAW_SERVER_CUT_TOTAL)
            cr_expect(g.fate == HTTPC_ANSWERED && g.err == ERR_OK, "%d: %s", n, g.detail);
        else
            cr_expect(g.fate == HTTPC_CUT && g.err != ERR_OK, "%d: %s", n, g.detail);
    }
    cr_expect_eq(raw_server_requests(server), RAW_SERVER_CUT_TOTAL + 1);
}

Test(httpc, time_runs_out_on_a_silent_server_and_on_a_body_that_stops)
{
    struct httpc_request r = get("/hang");
    r.timeout_ms = 200;
    struct got g = ask(r);
    cr_expect(g.fate == HTTPC_CUT && g.err == ERR_TIMEOUT, "%s", g.detail);
    r = get("/stall");
    r.stall_ms = 200;
    g = ask(r);
    cr_expect(g.fate == HTTPC_CUT && g.err == ERR_TIMEOUT && g.status == 200);
    cr_expect_str_eq(g.detail, "the answer stopped in the middle");
    r = get("/hang");
    r.stall_ms = 50; /* does not run while the server thinks */
    r.timeout_ms = 400;
    g = ask(r);
    cr_expect_neq(strcmp(g.detail, "the answer stopped in the middle"), 0);
}

Test(httpc, cancel_tells_whether_it_was_sent)
{
    struct got g = { 0 };
    struct httpc_request r = get("/hang");

    cr_assert_eq(httpc_send(client, &r, on_answer, &g, &g.call), ERR_OK);
    httpc_cancel(g.call);
    httpc_cancel(g.call);
    cr_expect_eq(g.called, 0, "never from inside httpc_cancel");
    while (!g.called)
        uv_run(&loop, UV_RUN_ONCE);
    cr_expect(g.err == ERR_CANCELED && g.fate == HTTPC_NOT_SENT);

    static char big[300000];
    memset(big, 'b', sizeof big);
    for (int shape = 0; shape < 3; shape++) { /* no body, read from memory by curl, read by callback */
        memset(&g, 0, sizeof g);
        r = get("/hang");
        r.on_sent = on_sent;
        r.method = shape ? "POST" : "GET";
        r.body = shape ? big : NULL;
        r.body_len = shape ? sizeof big : 0;
        r.is_paid = shape == 2;
        cr_assert_eq(httpc_send(client, &r, on_answer, &g, &g.call), ERR_OK);
        while (!g.called)
            uv_run(&loop, UV_RUN_ONCE);
        cr_expect(g.err == ERR_CANCELED && g.fate == HTTPC_CUT && g.sent == 1 && g.called == 1, "%d: %s", shape,
                  g.detail);
    }
    while (raw_server_requests(server) < 3) /* what was sent does arrive */
        ;
}

Test(httpc, no_answer_grows_beyond_its_limit)
{
    static const char *const paths[] = { "/chunked?1000000", "/length?1000000" };
    for (int i = 0; i < 2; i++) {
        struct httpc_request r = get(paths[i]);
        r.max_bytes = 10000;
        struct got g = ask(r);
        cr_expect(g.fate == HTTPC_CUT && g.err == ERR_TOO_LARGE && g.body_len <= 10000, "%s: %s", paths[i], g.detail);
    }
    struct httpc_request r = get("/chunked?10000");
    r.max_bytes = 10000;
    struct got g = ask(r);
    cr_expect(g.err == ERR_OK && g.body_len == 10000);
}

Test(httpc, a_file_gets_the_bytes_of_a_2xx_only)
{
    char path[] = "/tmp/kiln-httpc-file-XXXXXX", sha[SHA256_HEX];
    struct buf want = { 0 };
    struct stat st;
    int fd = mkstemp(path);

    close(fd);
    unlink(path);
    for (int i = 0; i < 200000; i++) {
        char c = (char)('a' + i % 26);
        buf_add(&want, &c, 1);
    }
    sha256_hex(sha, want.data, want.len);
    buf_done(&want);

    struct httpc_request r = get("/bytes?200000");
    r.to_file = path;
    struct got g = ask(r);
    cr_expect(g.err == ERR_OK && g.in_file && g.file_bytes == 200000 && g.body_len == 0, "%s", g.detail);
    cr_expect_str_eq(g.sha, sha);
    cr_expect(stat(path, &st) == 0 && st.st_size == 200000 && (st.st_mode & 0777) == 0600);
    unlink(path);

    r.url = url("/bytes?0");
    g = ask(r);
    cr_expect(g.err == ERR_OK && g.in_file && g.file_bytes == 0);
    cr_expect_eq(unlink(path), 0);

    r.url = url("/status?404");
    g = ask(r);
    cr_expect(g.err == ERR_OK && !g.in_file && g.status == 404);
    cr_expect_str_eq(g.body, "said so");
    cr_expect_neq(stat(path, &st), 0);

    r.url = url("/chunked?200000");
    r.max_bytes = 50000;
    g = ask(r);
    cr_expect(g.err == ERR_TOO_LARGE && !g.in_file);
    cr_expect_neq(stat(path, &st), 0, "half a file is removed");

    r.url = url("/bytes?10");
    r.max_bytes = 0;
    r.to_file = "/nowhere/at/all";
    g = ask(r);
    cr_expect(g.err == ERR_IO && g.fate == HTTPC_CUT);
}

struct kept {
    int called;
    char *body;
    enum err err;
    bool in_file;
};

static void on_kept(void *ctx, const struct httpc_answer *a)
{
    struct kept *k = ctx;

    k->called++;
    k->err = a->err;
    k->in_file = a->in_file;
    if (a->is_kept)
        k->body = httpc_take_body(a);
}

static struct httpc_call *send_kept(const struct httpc_request *r, struct kept *k)
{
    struct httpc_call *call = NULL;

    cr_assert_eq(httpc_send(client, r, on_kept, k, &call), ERR_OK);
    return call;
}

static void run_until_called(const struct kept *k)
{
    while (!k->called)
        uv_run(&loop, UV_RUN_ONCE);
}

/* Sent, and answered when it has nothing to do but to wait for that. */
static struct httpc_call *send_late(struct httpc_request r, struct kept *k)
{
    int before = raw_server_requests(server);
    struct httpc_call *call;

    r.url = url("/gate?2");
    call = send_kept(&r, k);
    while (raw_server_requests(server) == before)
        uv_run(&loop, UV_RUN_NOWAIT);
    (void)ask(get("/gate?2"));
    return call;
}

Test(httpc, an_answer_waits_in_its_socket_until_there_is_room_for_its_body)
{
    enum { ROOM = 768 };
    static struct kept held[ROOM];
    struct kept late = { 0 }, later = { 0 }, gone = { 0 };
    struct httpc_request r = get("/bytes?100");
    struct httpc_call *call;
    char path[] = "/tmp/kiln-httpc-XXXXXX";
    int fd = mkstemp(path);

    close(fd);
    r.to_file = path;
    r.may_keep = true;
    for (size_t i = 0; i < ROOM; i++) {
        (void)send_kept(&r, &held[i]);
        run_until_called(&held[i]);
        cr_assert(held[i].body && !held[i].in_file, "%zu", i);
    }
    (void)send_late(r, &late);
    while (!httpc_is_full(client))
        uv_run(&loop, UV_RUN_ONCE);
    cr_expect_eq(late.called, 0);
    httpc_give_body(client, held[0].body);
    run_until_called(&late);
    cr_expect(late.err == ERR_OK && late.body && !late.in_file && !httpc_is_full(client));

    call = send_late(r, &gone);
    while (!httpc_is_full(client))
        uv_run(&loop, UV_RUN_ONCE);
    httpc_cancel(call);
    run_until_called(&gone);
    cr_expect(gone.err == ERR_CANCELED && !httpc_is_full(client));

    (void)send_late(r, &later);
    run_until_called(&later); /* nobody gives anything back: it may be waited for */
    cr_expect(later.err == ERR_OK && !later.body && later.in_file);
    cr_expect_eq(unlink(path), 0);
    for (size_t i = 1; i < ROOM; i++)
        httpc_give_body(client, held[i].body);
    httpc_give_body(client, late.body);
}

Test(httpc, guarded_calls_reach_no_private_address)
{
    char text[128];
    struct httpc_request r = get("/ok");
    static const char *const forms[] = { "127.0.0.1", "localhost",          "2130706433", "0x7f.1",
                                         "[::1]",     "[::ffff:127.0.0.1]", "0" };

    r.is_guarded = true;
    r.url = text;
    for (size_t i = 0; i < ARRAY_LEN(forms); i++) {
        snprintf(text, sizeof text, "http://%s:%d/ok", forms[i], raw_server_port(server));
        struct got g = ask(r);
        cr_expect(g.fate == HTTPC_NOT_SENT && g.err == ERR_INPUT_UNREACHABLE, "%s: %s", text, g.detail);
    }
    snprintf(text, sizeof text, "http://user:word@127.0.0.1:%d/ok", raw_server_port(server));
    struct got g = ask(r);
    cr_expect(g.fate == HTTPC_NOT_SENT && g.err == ERR_INPUT_UNREACHABLE);
    setenv("http_proxy", url(""), 1);
    snprintf(text, sizeof text, "http://10.255.255.1/ok");
    g = ask(r);
    cr_expect(g.fate == HTTPC_NOT_SENT && g.err == ERR_INPUT_UNREACHABLE, "a proxy of the environment is not asked");
    (void)ask(get("/ok")); /* the trusted world has a connection now; the guarded one must not use it */
    snprintf(text, sizeof text, "http://127.0.0.1:%d/ok", raw_server_port(server));
    g = ask(r);
    cr_expect(g.fate == HTTPC_NOT_SENT && g.err == ERR_INPUT_UNREACHABLE);
    cr_expect_eq(raw_server_requests(server), 1);
}

Test(httpc, a_guarded_call_may_go_where_the_operator_allows_and_a_reused_connection_is_judged_again)
{
    bool closed = false;
    struct httpc_config config = { .allow_private = true };
    struct httpc_request r = get("/ok");

    httpc_close(client, on_closed, &closed);
    uv_run(&loop, UV_RUN_DEFAULT);
    client = httpc_new(&loop, &config);
    r.is_guarded = true;
    struct got g = ask(r);
    cr_expect_eq(g.err, ERR_OK);
    g = ask(r);
    cr_expect_eq(g.err, ERR_OK);
    cr_expect_eq(raw_server_connections(server), 1);
    httpc_test_forbid_private(client);
    g = ask(r);
    cr_expect(g.fate == HTTPC_NOT_SENT && g.err == ERR_INPUT_UNREACHABLE, "%s", g.detail);
    cr_expect_eq(raw_server_requests(server), 2);
}

static int order[2], order_at;

static void on_first(void *ctx, const struct httpc_answer *a)
{
    (void)a;
    order[order_at++] = 1;
    struct httpc_request r = get("/ok");
    cr_assert_eq(httpc_send(client, &r, on_answer, ctx, NULL), ERR_OK);
}

Test(httpc, a_callback_may_send_and_close)
{
    struct got g = { 0 }, hanging = { 0 };
    struct httpc_request r = get("/ok"), hang = get("/hang");

    cr_assert_eq(httpc_send(client, &r, on_first, &g, NULL), ERR_OK);
    cr_assert_eq(httpc_send(client, &hang, on_answer, &hanging, NULL), ERR_OK);
    while (!g.called)
        uv_run(&loop, UV_RUN_ONCE);
    cr_expect_eq(g.err, ERR_OK);
    bool closed = false;
    httpc_close(client, on_closed, &closed);
    cr_expect_eq(httpc_send(client, &r, on_answer, &g, NULL), ERR_CLOSED);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_expect(closed);
    cr_expect(hanging.called == 1 && hanging.err == ERR_CLOSED && hanging.fate == HTTPC_CUT);
    client = httpc_new(&loop, &(struct httpc_config){ 0 });
}

static void on_own(void *ctx, const struct httpc_answer *a)
{
    const char *byte = httpc_header(a, "x-byte"), *bytes = httpc_header(a, "x-bytes");
    size_t own = 0;

    cr_assert(a->err == ERR_OK && byte && bytes, "%s", a->detail);
    while (own < a->body_len && a->body[own] == byte[0])
        own++;
    cr_assert_eq(own, a->body_len, "byte %zu is another's", own);
    cr_assert_eq(own, strtoul(bytes, NULL, 10));
    ++*(int *)ctx;
}

/* One buffer reads all of them (httpc_buffer.c): nothing of an answer may stay in it. */
Test(httpc, answers_that_come_in_turns_do_not_mix)
{
    enum { MANY = 100 };
    struct httpc_request r = get("/turns?100");
    int called = 0;

    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < MANY; i++)
            cr_assert_eq(httpc_send(client, &r, on_own, &called, NULL), ERR_OK);
        while (httpc_active(client) > 0)
            uv_run(&loop, UV_RUN_ONCE);
    }
    cr_expect_eq(called, 2 * MANY);
    cr_expect_eq(raw_server_connections(server), MANY, "kept ones are heard again");
}

Test(httpc, two_thousand_at_once_all_come_back)
{
    enum { MANY = 2000 };
    static struct got g[MANY];
    struct httpc_request r = get("/gate?2000");
    static const char body[] = "{\"prompt\":\"x\"}";

    r.timeout_ms = 50000;
    r.method = "POST";
    r.body = body;
    r.body_len = sizeof body - 1;
    r.is_paid = true;
    for (int round = 0; round < 2; round++) {
        memset(g, 0, sizeof g);
        for (int i = 0; i < MANY; i++)
            cr_assert_eq(httpc_send(client, &r, on_answer, &g[i], NULL), ERR_OK);
        cr_expect_eq(httpc_active(client), MANY);
        while (httpc_active(client) > 0)
            uv_run(&loop, UV_RUN_ONCE);
        for (int i = 0; i < MANY; i++)
            cr_assert(g[i].called == 1 && g[i].err == ERR_OK && strcmp(g[i].body, "through") == 0, "%s", g[i].detail);
    }
    cr_expect_eq(raw_server_requests(server), 2 * MANY);
    cr_expect_eq(raw_server_connections(server), MANY, "the second wave reuses the first one's connections");
}
