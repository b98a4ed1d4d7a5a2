/* status.c - libmicrohttpd's epoll descriptor watched by the loop; every answer is made at once. */
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <netdb.h>
#include <microhttpd.h>
#include "worker/status.h"

struct status {
    struct MHD_Daemon *daemon;
    struct runner *runner;
    struct metrics *metrics;
    uv_poll_t poll;
    uv_timer_t timer;
    int open_handles;
};

static void status_on_timer(uv_timer_t *t);

static void status_run(struct status *s)
{
    MHD_UNSIGNED_LONG_LONG wait = 0;

    (void)MHD_run(s->daemon);
    if (MHD_get_timeout(s->daemon, &wait) == MHD_YES)
        (void)uv_timer_start(&s->timer, status_on_timer, wait, 0);
    else
        (void)uv_timer_stop(&s->timer);
}

static void status_on_timer(uv_timer_t *t)
{
    status_run(container_of(t, struct status, timer));
}

static void status_on_ready(uv_poll_t *p, int status, int events)
{
    (void)status;
    (void)events;
    status_run(container_of(p, struct status, poll));
}

static enum MHD_Result status_answer(struct MHD_Connection *c, unsigned code, const char *type, const char *text,
                                     size_t len)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(len, (void *)(uintptr_t)text, MHD_RESPMEM_MUST_COPY);
    enum MHD_Result result;

    if (!response)
        return MHD_NO;
    (void)MHD_add_response_header(response, "Content-Type", type);
    (void)MHD_add_response_header(response, "Cache-Control", "no-store");
    result = MHD_queue_response(c, code, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result status_ready(struct status *s, struct MHD_Connection *c)
{
    struct runner_status st = runner_status(s->runner);
    bool is_ready = st.postgres && st.redis && st.storage && !st.is_draining;
    struct buf b = { 0 };
    enum MHD_Result result;

    (void)buf_printf(
        &b,
        "{\"worker\":\"%s\",\"ready\":%s,\"postgres\":\"%s\",\"redis\":\"%s\",\"storage\":\"%s\",\"draining\":%s,"
        "\"active\":%zu,\"waiting\":%zu,\"parked\":%zu,\"claims\":\"%s\",\"why\":\"%s\"}\n",
        st.id, is_ready ? "true" : "false", st.postgres ? "ok" : "missing", st.redis ? "ok" : "missing",
        st.storage ? "ok" : "failing", st.is_draining ? "true" : "false", st.active, st.waiting, st.parked, st.claims,
        st.why);
    result = status_answer(c, is_ready ? 200 : 503, "application/json", b.data ? b.data : "", b.len);
    buf_done(&b);
    return result;
}

static enum MHD_Result status_on_request(void *cls, struct MHD_Connection *c, const char *url, const char *method,
                                         const char *version, const char *data, size_t *size, void **ctx)
{
    struct status *s = cls;
    struct buf b = { 0 };
    enum MHD_Result result;
    static int seen;

    (void)version;
    (void)data;
    if (!*ctx) { /* the first call has no body yet */
        *ctx = &seen;
        return MHD_YES;
    }
    if (*size) {
        *size = 0;
        return MHD_YES;
    }
    if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0)
        return status_answer(c, 405, "text/plain", "only GET\n", 9);
    if (!strcmp(url, "/healthz"))
        return status_answer(c, 200, "text/plain", "ok\n", 3);
    if (!strcmp(url, "/readyz"))
        return status_ready(s, c);
    if (strcmp(url, "/metrics") != 0)
        return status_answer(c, 404, "text/plain", "/healthz /readyz /metrics\n", 26);
    runner_refresh_metrics(s->runner);
    (void)metrics_print(s->metrics, &b);
    result = status_answer(c, 200, "text/plain; version=0.0.4", b.data ? b.data : "", b.len);
    buf_done(&b);
    return result;
}

static void status_on_closed(uv_handle_t *h)
{
    struct status *s = h->data;

    if (--s->open_handles == 0)
        free(s);
}

struct status *status_new(uv_loop_t *loop, const char *host, int port, struct runner *runner, struct metrics *metrics)
{
    struct status *s = calloc(1, sizeof(*s));
    struct addrinfo hints = { .ai_flags = AI_PASSIVE | AI_NUMERICHOST, .ai_socktype = SOCK_STREAM }, *found = NULL;
    const union MHD_DaemonInfo *info;
    unsigned flags = MHD_USE_EPOLL;
    char service[8];

    (void)snprintf(service, sizeof(service), "%d", port);
    if (s && getaddrinfo(host, service, &hints, &found) == 0) {
        if (found->ai_family == AF_INET6)
            flags |= MHD_USE_IPv6;
        s->daemon = MHD_start_daemon(flags, (uint16_t)port, NULL, NULL, status_on_request, s, MHD_OPTION_SOCK_ADDR,
                                     found->ai_addr, MHD_OPTION_CONNECTION_LIMIT, 64U, MHD_OPTION_CONNECTION_TIMEOUT,
                                     10U, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)8192, MHD_OPTION_END);
        freeaddrinfo(found);
    }
    if (!s || !s->daemon) {
        free(s);
        return NULL;
    }
    s->runner = runner;
    s->metrics = metrics;
    info = MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    (void)uv_poll_init(loop, &s->poll, info->epoll_fd);
    (void)uv_timer_init(loop, &s->timer);
    (void)uv_poll_start(&s->poll, UV_READABLE, status_on_ready);
    s->open_handles = 2;
    return s;
}

void status_close(struct status *s)
{
    if (!s)
        return;
    (void)uv_poll_stop(&s->poll);
    MHD_stop_daemon(s->daemon);
    s->poll.data = s->timer.data = s;
    uv_close((uv_handle_t *)&s->poll, status_on_closed);
    uv_close((uv_handle_t *)&s->timer, status_on_closed);
}
