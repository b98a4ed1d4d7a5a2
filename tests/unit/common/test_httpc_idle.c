/* test_httpc_idle.c - kept connections of a multi that has no calls any more are closed, and a next call opens anew. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <stdio.h>
#include "common/io/httpc.h"
#include "raw_server.h"

enum { MANY = 100, IDLE_MS = 600, PATIENCE_MS = 20000 };

static uv_loop_t loop;
static struct httpc *client;
static int answered;

static void on_answer(void *ctx, const struct httpc_answer *a)
{
    (void)ctx;
    cr_expect_eq(a->err, ERR_OK, "%s", a->detail);
    answered++;
}

static void on_closed(void *ctx)
{
    *(bool *)ctx = true;
}

static int open_files(void) /* the server's side of each connection is one of them, too */
{
    DIR *dir = opendir("/proc/self/fd");
    int count = 0;

    cr_assert_not_null(dir);
    while (readdir(dir))
        count++;
    (void)closedir(dir);
    return count;
}

static void ask_many(const struct raw_server *server)
{
    char url[64];

    snprintf(url, sizeof(url), "http://127.0.0.1:%d/gate?%d", raw_server_port(server), MANY);
    answered = 0;
    for (int i = 0; i < MANY; i++) {
        struct httpc_request r = { .method = "GET", .url = url };
        cr_assert_eq(httpc_send(client, &r, on_answer, NULL, NULL), ERR_OK);
    }
    while (answered < MANY)
        uv_run(&loop, UV_RUN_ONCE);
}

static void on_tick(uv_timer_t *timer)
{
    (void)timer;
}

static bool until_files(int want) /* kept connections alone keep no loop running: a timer does */
{
    uv_timer_t tick;

    (void)uv_timer_init(&loop, &tick);
    (void)uv_timer_start(&tick, on_tick, 0, 50);
    for (uint64_t end = uv_now(&loop) + PATIENCE_MS; uv_now(&loop) < end && open_files() != want;)
        (void)uv_run(&loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&tick, NULL);
    (void)uv_run(&loop, UV_RUN_NOWAIT);
    return open_files() == want;
}

Test(httpc_idle, connections_of_a_peak_are_closed_and_the_next_one_opens_its_own)
{
    struct raw_server *server = raw_server_start();
    bool closed = false;
    int before;

    cr_assert_eq(uv_loop_init(&loop), 0);
    client = httpc_new(&loop, &(struct httpc_config){ .idle_ms = IDLE_MS });
    cr_assert_not_null(client);
    before = open_files();
    for (int peak = 1; peak <= 3; peak++) {
        ask_many(server);
        ask_many(server);
        cr_expect_eq(raw_server_connections(server), peak * MANY, "used again while they are young");
        cr_expect(until_files(before), "%d files more are open", open_files() - before);
    }
    httpc_close(client, on_closed, &closed);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_assert(closed);
    cr_assert_eq(uv_loop_close(&loop), 0, "a handle was left open");
    raw_server_stop(server);
}
