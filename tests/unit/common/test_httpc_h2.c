/* test_httpc_h2.c - httpc over HTTP/2: many streams on few connections, beside HTTP/1.1, in nginx's TLS; and over TLS
 * with HTTP/1.1. */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "common/io/httpc.h"
#include "raw_server.h"

enum { MANY = 120, BYTES = 40000, ROUNDS = 3 };

static char dir[] = "/tmp/kiln-h2-XXXXXX", ca_file[64], url_h2[64], url_h1[64], echo_h2[64], echo_tls[64];
static pid_t nginx;

static void begin_nginx(int port, int port_tls, int upstream)
{
    char command[512], path[64];
    FILE *f;

    cr_assert_not_null(mkdtemp(dir));
    snprintf(ca_file, sizeof(ca_file), "%s/cert.pem", dir);
    snprintf(command, sizeof(command),
             "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=kiln-test "
             "-addext subjectAltName=IP:127.0.0.1 -keyout %s/key.pem -out %s 2>%s/openssl.log",
             dir, ca_file, dir);
    cr_assert_eq(system(command), 0); /* NOLINT: our own words */
    snprintf(path, sizeof(path), "%s/nginx.conf", dir);
    f = fopen(path, "w");
    cr_assert_not_null(f);
    fprintf(f,
            "%s daemon off; pid %s/pid; error_log stderr error; worker_processes 1;\n"
            "events { worker_connections 900; }\n"
            "http { access_log off; client_body_temp_path %s/a; proxy_temp_path %s/b; fastcgi_temp_path %s/c;\n"
            "uwsgi_temp_path %s/d; scgi_temp_path %s/e; ssl_certificate %s; ssl_certificate_key %s/key.pem;\n"
            "server { listen 127.0.0.1:%d ssl http2; location / { proxy_pass http://127.0.0.1:%d; } }\n"
            "server { listen 127.0.0.1:%d ssl; location / { proxy_pass http://127.0.0.1:%d; } } }\n",
            geteuid() == 0 ? "user root;" : "", dir, dir, dir, dir, dir, dir, ca_file, dir, port, upstream, port_tls,
            upstream);
    fclose(f);
    nginx = fork();
    if (nginx == 0) { /* it goes when the test does, however that ends, and holds none of its pipes */
        snprintf(command, sizeof(command), "%s/nginx.log", dir);
        (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
        (void)!freopen(command, "w", stdout);
        (void)!freopen(command, "w", stderr);
        execlp("nginx", "nginx", "-p", dir, "-c", path, "-e", "stderr", (char *)NULL);
        execl("/usr/sbin/nginx", "nginx", "-p", dir, "-c", path, "-e", "stderr", (char *)NULL);
        _exit(127);
    }
}

static void end_nginx(void)
{
    char command[128];

    kill(nginx, SIGTERM);
    waitpid(nginx, NULL, 0);
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    cr_assert_eq(system(command), 0); /* NOLINT: our own words */
}

struct h2_got {
    int called;
    enum err err;
    bool is_whole;
};

static void on_answer(void *ctx, const struct httpc_answer *a)
{
    struct h2_got *g = ctx;
    size_t i = 0;

    while (i < a->body_len && a->body[i] == (char)('a' + i % 26))
        i++;
    g->called++;
    g->err = a->err;
    g->is_whole = i == BYTES && a->body_len == BYTES;
}

static void on_closed(void *ctx)
{
    *(bool *)ctx = true;
}

static struct httpc *client;
static uv_loop_t loop;

static void wait_until_it_answers(void)
{
    for (int tries = 0; tries < 200; tries++) {
        struct h2_got g = { 0 };
        struct httpc_request r = { .method = "GET", .url = url_h2 };

        cr_assert_eq(httpc_send(client, &r, on_answer, &g, NULL), ERR_OK);
        while (!g.called)
            uv_run(&loop, UV_RUN_ONCE);
        if (g.err == ERR_OK && g.is_whole)
            return;
        uv_sleep(50);
    }
    cr_assert_fail("nginx does not answer");
}

/* Of 120 calls every fourth goes over HTTP/1.1, and every seventh is taken back. */
static void ask_many(void)
{
    static struct h2_got got[MANY];
    static struct httpc_call *calls[MANY];

    memset(got, 0, sizeof(got));
    for (int i = 0; i < MANY; i++) {
        struct httpc_request r = { .method = "GET", .url = i % 4 ? url_h2 : url_h1 };

        cr_assert_eq(httpc_send(client, &r, on_answer, &got[i], &calls[i]), ERR_OK);
    }
    for (int turns = 0; turns < 3; turns++)
        uv_run(&loop, UV_RUN_NOWAIT);
    for (int i = 0; i < MANY; i += 7)
        if (!got[i].called)
            httpc_cancel(calls[i]);
    while (httpc_active(client) > 0)
        uv_run(&loop, UV_RUN_ONCE);
    for (int i = 0; i < MANY; i++)
        cr_assert(got[i].called == 1 && ((got[i].err == ERR_OK && got[i].is_whole) || got[i].err == ERR_CANCELED),
                  "%d: %s", i, err_word(got[i].err));
}

struct echo {
    int called;
    enum err err;
    bool is_same;
    size_t len;
    char *body;
};

static void on_echo(void *ctx, const struct httpc_answer *a)
{
    struct echo *e = ctx;

    e->called++;
    e->err = a->err;
    e->is_same = a->body_len == e->len && memcmp(a->body, e->body, e->len) == 0;
}

/* Less than curl's buffer for what is sent, a little more, and many times as much; some are taken back on the way. */
static void send_many(void)
{
    static const size_t sizes[] = { 200, 9000, 16393, 17000, 70000, 250000 };
    static struct echo echoes[MANY];
    static struct httpc_call *calls[MANY];

    memset(echoes, 0, sizeof(echoes));
    for (int i = 0; i < MANY; i++) {
        struct echo *e = &echoes[i];
        struct httpc_request r = { .method = "POST", .url = i % 3 ? echo_h2 : echo_tls, .is_paid = i % 2 == 0 };

        e->len = sizes[i % 6] + (size_t)i;
        e->body = malloc(e->len);
        cr_assert_not_null(e->body);
        for (size_t at = 0; at < e->len; at++)
            e->body[at] = (char)((size_t)i * 31 + at % 251);
        r.body = e->body;
        r.body_len = e->len;
        cr_assert_eq(httpc_send(client, &r, on_echo, e, &calls[i]), ERR_OK);
    }
    for (int turns = 0; turns < 5; turns++)
        uv_run(&loop, UV_RUN_ONCE);
    for (int i = 0; i < MANY; i += 11)
        if (!echoes[i].called)
            httpc_cancel(calls[i]);
    while (httpc_active(client) > 0)
        uv_run(&loop, UV_RUN_ONCE);
    for (int i = 0; i < MANY; i++) {
        struct echo *e = &echoes[i];

        cr_assert(e->called == 1 && ((e->err == ERR_OK && e->is_same) || (i % 11 == 0 && e->err == ERR_CANCELED)),
                  "%d: %s", i, err_word(e->err));
        free(e->body);
    }
}

static void each_round(void (*round_of)(void))
{
    struct raw_server *server = raw_server_start();
    int port = raw_server_closed_port(), port_tls = raw_server_closed_port(), upstream = raw_server_port(server);
    bool closed = false;

    begin_nginx(port, port_tls, upstream);
    snprintf(url_h2, sizeof(url_h2), "https://127.0.0.1:%d/bytes?%d", port, BYTES);
    snprintf(url_h1, sizeof(url_h1), "http://127.0.0.1:%d/bytes?%d", upstream, BYTES);
    snprintf(echo_h2, sizeof(echo_h2), "https://127.0.0.1:%d/echo", port);
    snprintf(echo_tls, sizeof(echo_tls), "https://127.0.0.1:%d/echo", port_tls);
    cr_assert_eq(uv_loop_init(&loop), 0);
    client = httpc_new(&loop, &(struct httpc_config){ .ca_file = ca_file });
    wait_until_it_answers();
    for (int round = 0; round < ROUNDS; round++)
        round_of();
    httpc_close(client, on_closed, &closed);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_assert(closed && uv_loop_close(&loop) == 0);
    end_nginx();
    raw_server_stop(server);
}

Test(httpc_h2, answers_of_many_streams_stay_apart_and_whole)
{
    each_round(ask_many);
}

Test(httpc_h2, bodies_of_many_requests_arrive_whole)
{
    each_round(send_many);
}
