/* test_redis.c - the connection: comes up, comes back, answers each command once, loads scripts again. */
#include <criterion/criterion.h>
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/base/text.h"
#include "common/io/redis.h"
#include "redis_server.h"
#include "tests/support/support.h"

struct seen {
    int answers, ups, downs, closed, messages;
    enum err err;
    char text[128], run_id[64], message[64];
};

static void on_answer(void *ctx, enum err err, const redisReply *reply)
{
    struct seen *s = ctx;
    s->answers++;
    s->err = err;
    s->text[0] = '\0';
    if (reply && reply->str)
        (void)snprintf(s->text, sizeof(s->text), "%s", reply->str);
}

static void on_state(void *ctx, bool is_up, const char *run_id)
{
    struct seen *s = ctx;
    *(is_up ? &s->ups : &s->downs) += 1;
    if (is_up)
        (void)snprintf(s->run_id, sizeof(s->run_id), "%s", run_id);
}

static void on_message(void *ctx, const char *data, size_t len)
{
    struct seen *s = ctx;
    s->messages++;
    (void)snprintf(s->message, sizeof(s->message), "%.*s", (int)len, data);
}

static void on_closed(void *ctx)
{
    ((struct seen *)ctx)->closed++;
}

static const struct redis_script scripts[] = {
    { "one.lua", "return 'one ' .. ARGV[1]" },
    { "two.lua", "return redis.call('INCR', KEYS[1])" },
};

static struct redis *open_redis(uv_loop_t *loop, const char *url, struct seen *seen, int timeout_ms)
{
    return redis_new(loop, &(struct redis_config){ .url = url,
                                                   .name = "test",
                                                   .scripts = scripts,
                                                   .script_count = 2,
                                                   .command_timeout_ms = timeout_ms,
                                                   .on_state = on_state,
                                                   .ctx = seen });
}

static void done(uv_loop_t *loop, struct redis *r, struct seen *seen)
{
    redis_close(r, on_closed, seen);
    cr_assert(support_run_count(loop, &seen->closed, 1, 3000));
    support_loop_done(loop);
}

static void command(struct redis *r, struct seen *seen, const char *a, const char *b, const char *c)
{
    const char *argv[] = { a, b, c };
    redis_command(r, on_answer, seen, c ? 3 : b ? 2 : 1, argv, NULL);
}

Test(redis, urls_are_checked)
{
    static const char *const good[] = { "redis://localhost",    "redis://:secret@127.0.0.1:6380/3",
                                        "redis://h:1/",         "redis://[::1]:6379/0",
                                        "redis://u:p%40x@host", "unix:/tmp/x.sock",
                                        "unix:/tmp/x.sock?db=2" };
    static const char *const bad[] = { "",
                                       "redis://",
                                       "redis://:x@",
                                       "http://x",
                                       "unix:relative",
                                       "unix:/x?db=a",
                                       "redis://h:x",
                                       "redis://h:70000",
                                       "redis://h/x",
                                       "redis://secret@h",
                                       "redis://[::1",
                                       "redis://:%zz@h",
                                       "redis://h:123456789012" };
    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        cr_expect_eq(redis_url_check(good[i]), ERR_OK, "%s", good[i]);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        cr_expect_eq(redis_url_check(bad[i]), ERR_ARGUMENT, "%s", bad[i]);
    cr_expect_eq(redis_url_check(NULL), ERR_ARGUMENT);
}

Test(redis, answers_commands_and_scripts_on_a_chosen_database)
{
    struct server server = { 0 };
    struct seen seen = { 0 };
    uv_loop_t loop;
    char url[128];

    server_start(&server, "open sesame");
    (void)snprintf(url, sizeof(url), "%s?db=3", server.url); /* without the password: never up */
    cr_assert_eq(uv_loop_init(&loop), 0);
    struct redis *r = open_redis(&loop, url, &seen, 1000);
    cr_expect_not(support_run_count(&loop, &seen.ups, 1, 300));
    done(&loop, r, &seen);
    server_do(&server, "CONFIG SET requirepass %s", "");

    seen = (struct seen){ 0 };
    cr_assert_eq(uv_loop_init(&loop), 0);
    r = open_redis(&loop, url, &seen, 1000);
    cr_assert(support_run_count(&loop, &seen.ups, 1, 3000));
    cr_expect(redis_is_up(r));
    cr_expect_eq(strlen(seen.run_id), 40);
    command(r, &seen, "SET", "k", "v");
    cr_assert(support_run_count(&loop, &seen.answers, 1, 3000));
    cr_expect_eq(seen.err, ERR_OK);
    server_do(&server, "SELECT 3");
    cr_expect_eq(server_do(&server, "EXISTS k"), 1);
    redis_eval(r, 0, on_answer, &seen, 1, 2, (const char *[]){ "key", "argument" }, NULL);
    cr_assert(support_run_count(&loop, &seen.answers, 2, 3000));
    cr_expect_str_eq(seen.text, "one argument");
    command(r, &seen, "NOSUCH", NULL, NULL);
    cr_assert(support_run_count(&loop, &seen.answers, 3, 3000));
    cr_expect_eq(seen.err, ERR_REFUSED);
    done(&loop, r, &seen);
    server_stop(&server);
}

Test(redis, loads_scripts_again_after_a_flush)
{
    struct server server = { 0 };
    struct seen seen = { 0 };
    uv_loop_t loop;

    server_start(&server, NULL);
    cr_assert_eq(uv_loop_init(&loop), 0);
    struct redis *r = open_redis(&loop, server.url, &seen, 1000);
    cr_assert(support_run_count(&loop, &seen.ups, 1, 3000));
    for (int i = 1; i <= 3; i++) {
        server_do(&server, "SCRIPT FLUSH");
        for (int k = 0; k < 10; k++)
            redis_eval(r, 1, on_answer, &seen, 1, 1, (const char *[]){ "counter" }, NULL);
        cr_assert(support_run_count(&loop, &seen.answers, 10 * i, 3000));
        cr_expect_eq(seen.err, ERR_OK);
    }
    server_do(&server, "INCR counter");
    cr_expect_eq(server_do(&server, "INCR counter"), 32, "each ran once");
    done(&loop, r, &seen);
    server_stop(&server);
}

Test(redis, answers_each_command_once_when_the_server_dies_and_comes_back_by_itself)
{
    struct server server = { 0 };
    struct seen seen = { 0 };
    char first_life[64];
    uv_loop_t loop;

    server_start(&server, NULL);
    cr_assert_eq(uv_loop_init(&loop), 0);
    struct redis *r = open_redis(&loop, server.url, &seen, 0);
    cr_assert(support_run_count(&loop, &seen.ups, 1, 3000));
    memcpy(first_life, seen.run_id, sizeof(first_life));
    for (int i = 0; i < 100; i++)
        command(r, &seen, "BLPOP", "nothing", "0");
    cr_expect_not(support_run_count(&loop, &seen.answers, 1, 100));
    server_kill(&server);
    cr_assert(support_run_count(&loop, &seen.answers, 100, 3000));
    cr_expect_eq(seen.err, ERR_LOST);
    cr_expect_eq(seen.downs, 1);

    command(r, &seen, "PING", NULL, NULL);
    cr_expect_eq(seen.answers, 100, "never from inside the call");
    cr_assert(support_run_count(&loop, &seen.answers, 101, 3000));
    cr_expect_eq(seen.err, ERR_UNAVAILABLE);

    server_start(&server, NULL);
    cr_assert(support_run_count(&loop, &seen.ups, 2, 5000));
    cr_expect_str_neq(seen.run_id, first_life);
    command(r, &seen, "PING", NULL, NULL);
    cr_assert(support_run_count(&loop, &seen.answers, 102, 3000));
    cr_expect_eq(seen.err, ERR_OK);
    command(r, &seen, "BLPOP", "nothing", "0");
    redis_close(r, on_closed, &seen);
    cr_expect_eq(seen.answers, 102);
    cr_assert(support_run_count(&loop, &seen.closed, 1, 3000));
    cr_expect_eq(seen.answers, 103);
    cr_expect_eq(seen.err, ERR_CLOSED);
    support_loop_done(&loop);
    server_stop(&server);
}

Test(redis, drops_a_connection_that_does_not_answer)
{
    struct server server = { 0 };
    struct seen seen = { 0 };
    uv_loop_t loop;

    server_start(&server, NULL);
    cr_assert_eq(uv_loop_init(&loop), 0);
    struct redis *r = open_redis(&loop, server.url, &seen, 200);
    cr_assert(support_run_count(&loop, &seen.ups, 1, 3000));
    (void)kill(server.pid, SIGSTOP);
    command(r, &seen, "PING", NULL, NULL);
    cr_assert(support_run_count(&loop, &seen.downs, 1, 2000));
    cr_expect_eq(seen.answers, 1);
    cr_expect_eq(seen.err, ERR_LOST);
    (void)kill(server.pid, SIGCONT);
    cr_assert(support_run_count(&loop, &seen.ups, 2, 8000));
    done(&loop, r, &seen);
    server_stop(&server);
}

Test(redis, keeps_trying_where_tcp_is_refused)
{
    struct server server = { 0 };
    struct seen seen = { 0 };
    int port = support_port();
    uv_loop_t loop;
    char url[64];

    server_start(&server, NULL);
    (void)snprintf(url, sizeof(url), "redis://localhost:%d/1", port);
    cr_assert_eq(uv_loop_init(&loop), 0);
    struct redis *r = open_redis(&loop, url, &seen, 1000);
    command(r, &seen, "PING", NULL, NULL);
    cr_assert(support_run_count(&loop, &seen.answers, 1, 1000));
    cr_expect_eq(seen.err, ERR_UNAVAILABLE);
    cr_expect_not(support_run_count(&loop, &seen.ups, 1, 300));
    server_do(&server, "CONFIG SET port %d", port);
    cr_assert(support_run_count(&loop, &seen.ups, 1, 8000));
    done(&loop, r, &seen);
    server_stop(&server);
}

Test(redis, closes_in_any_phase)
{
    struct server server = { 0 };
    server_start(&server, NULL);
    for (int turns = 0; turns < 12; turns++) {
        struct seen seen = { 0 };
        uv_loop_t loop;
        cr_assert_eq(uv_loop_init(&loop), 0);
        struct redis *r = open_redis(&loop, turns % 2 ? "redis://localhost:1" : server.url, &seen, 1000);
        for (int i = 0; i < turns; i++)
            (void)uv_run(&loop, UV_RUN_NOWAIT);
        command(r, &seen, "PING", NULL, NULL);
        redis_close(r, on_closed, &seen);
        cr_assert(support_run_count(&loop, &seen.closed, 1, 3000));
        cr_expect_eq(seen.answers, 1);
        support_loop_done(&loop);
    }
    server_stop(&server);
}

Test(redis, what_is_forgotten_never_calls)
{
    struct server server = { 0 };
    struct seen seen = { 0 }, other = { 0 };
    uv_loop_t loop;

    server_start(&server, NULL);
    cr_assert_eq(uv_loop_init(&loop), 0);
    struct redis *r = open_redis(&loop, server.url, &seen, 1000);
    cr_assert(support_run_count(&loop, &seen.ups, 1, 3000));
    command(r, &other, "PING", NULL, NULL);
    command(r, &seen, "PING", NULL, NULL);
    redis_forget(r, &other);
    cr_assert(support_run_count(&loop, &seen.answers, 1, 3000));
    cr_expect_eq(other.answers, 0);
    done(&loop, r, &seen);
    server_stop(&server);
}

Test(redis, a_subscription_survives_the_server)
{
    struct server server = { 0 };
    struct seen seen = { 0 };
    uv_loop_t loop;

    server_start(&server, NULL);
    cr_assert_eq(uv_loop_init(&loop), 0);
    struct redis *r = redis_new(&loop, &(struct redis_config){ .url = server.url,
                                                               .name = "test",
                                                               .on_state = on_state,
                                                               .channel = "news",
                                                               .on_message = on_message,
                                                               .ctx = &seen });
    cr_assert(support_run_count(&loop, &seen.ups, 1, 3000));
    cr_expect_eq(server_do(&server, "PUBLISH news first"), 1, "up means subscribed");
    cr_assert(support_run_count(&loop, &seen.messages, 1, 3000));
    server_kill(&server);
    cr_assert(support_run_count(&loop, &seen.downs, 1, 3000));
    server_start(&server, NULL);
    cr_assert(support_run_count(&loop, &seen.ups, 2, 5000));
    cr_expect_eq(server_do(&server, "PUBLISH news second"), 1);
    cr_assert(support_run_count(&loop, &seen.messages, 2, 3000));
    cr_expect_str_eq(seen.message, "second");
    done(&loop, r, &seen);
    server_stop(&server);
}
