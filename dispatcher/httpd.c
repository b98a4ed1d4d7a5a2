/* httpd.c - the glue between libmicrohttpd's epoll descriptor and the loop, and the hardening that it needs.
 *
 * One uv_poll watches the daemon's epoll descriptor; after each MHD_run one timer is set from MHD_get_timeout. Answers
 * given while a connection is suspended resume it and mark the daemon dirty; a uv_prepare runs it once per turn of the
 * loop, so that a batch of 500 answers costs one MHD_run. What waits long is not here: httpd_out.c. Deadlines lie with
 * the connections: a sweep each second shuts down the sockets of those past theirs (never closes: the descriptor is
 * libmicrohttpd's). */
#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>
#include "common/base/clock.h"
#include "dispatcher/httpd_inner.h"

enum {
    HEAD_MS = 10000,        /* from the first byte that could be sent to the end of the headers */
    IDLE_S = 60,            /* keep-alive without a request */
    POOL_BYTES = 11 * 1024, /* our own limit of headers, and room for the answer's; each connection has one */
    SWEEP_MS = 1000,
    REQUEST_ARENA_BYTES = 8 << 20,
};

/* ---- the loop ---- */

static void httpd_run(struct httpd *h);

static void httpd_on_timer(uv_timer_t *t)
{
    httpd_run(container_of(t, struct httpd, timer));
}

static void httpd_on_poll(uv_poll_t *p, int status, int events)
{
    (void)status; /* an error of the epoll descriptor shows in MHD_run as well */
    (void)events;
    httpd_run(container_of(p, struct httpd, poll));
}

static void httpd_on_prepare(uv_prepare_t *p)
{
    struct httpd *h = container_of(p, struct httpd, prepare);

    if (h->is_dirty)
        httpd_run(h);
    httpd_out_flush(h);
    if (h->is_dirty) /* again: do not sleep on it */
        uv_timer_start(&h->timer, httpd_on_timer, 0, 0);
}

static void httpd_check_idle(struct httpd *h)
{
    if (h->is_draining && h->in_flight == 0 && h->on_idle != NULL) {
        void (*fn)(void *) = h->on_idle;

        h->on_idle = NULL;
        fn(h->idle_ctx);
    }
}

static void httpd_run(struct httpd *h)
{
    MHD_UNSIGNED_LONG_LONG timeout = 0;

    if (h->is_closed)
        return;
    h->is_dirty = false;
    (void)MHD_run(h->daemon); /* fails only for daemons with threads of their own */
    if (MHD_get_timeout(h->daemon, &timeout) == MHD_YES)
        uv_timer_start(&h->timer, httpd_on_timer, timeout > 1000 ? 1000 : timeout, 0);
    else
        uv_timer_stop(&h->timer);
    httpd_check_idle(h);
}

/* Thousands may wait without a deadline; the sweep does not pass them. */
void conn_set_deadline(struct httpd_conn *c, int64_t deadline_ms) /* 0: none */
{
    struct httpd_conn *ring = &c->httpd->conns;

    c->deadline_ms = deadline_ms;
    if (deadline_ms > 0 && c->next == NULL) {
        c->prev = ring->prev;
        c->next = ring;
        c->prev->next = c;
        ring->prev = c;
    } else if (deadline_ms == 0 && c->next != NULL) {
        c->prev->next = c->next;
        c->next->prev = c->prev;
        c->next = c->prev = NULL;
    }
}

static void httpd_on_sweep(uv_timer_t *t)
{
    struct httpd *h = container_of(t, struct httpd, sweep);
    int64_t now = clock_mono_ms();

    for (struct httpd_conn *c = h->conns.next, *next; c != &h->conns; c = next) {
        next = c->next;
        if (now >= c->deadline_ms) {
            conn_set_deadline(c, 0);
            (void)shutdown(c->fd, SHUT_RDWR); /* it may be gone already */
        }
    }
}

/* ---- connections ---- */

static void httpd_on_connection(void *cls, struct MHD_Connection *connection, void **socket_context,
                                enum MHD_ConnectionNotificationCode what)
{
    struct httpd *h = cls;
    struct httpd_conn *c = *socket_context;

    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);

        c = calloc(1, sizeof(*c));
        if (c == NULL)
            return; /* the first call of the handler refuses it */
        c->httpd = h;
        c->fd = info->connect_fd;
        c->is_theirs = true;
        conn_set_deadline(c, clock_mono_ms() + HEAD_MS);
        h->connections++;
        *socket_context = c;
    } else if (c != NULL) {
        *socket_context = NULL;
        c->is_theirs = false;
        if (!c->is_out) { /* else what ends here is the blank in its place */
            conn_set_deadline(c, 0);
            h->connections--;
            c->is_gone = true;
        }
        conn_free(c);
    }
}

static struct httpd_conn *httpd_conn_of(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

    return info != NULL ? info->socket_context : NULL;
}

static void *httpd_on_uri(void *cls, const char *uri, struct MHD_Connection *connection)
{
    struct httpd_conn *c = httpd_conn_of(connection);

    (void)cls;
    if (c != NULL) {
        free(c->uri);
        c->uri = strdup(uri);
    }
    return NULL;
}

/* ---- a request ---- */

struct header_check {
    size_t bytes, hosts, lengths, encodings;
    bool is_bad;
};

static bool has_blank(const char *s, size_t len)
{
    return memchr(s, ' ', len) != NULL || memchr(s, '\t', len) != NULL;
}

static enum MHD_Result httpd_on_header(void *cls, enum MHD_ValueKind kind, const char *key, size_t key_len,
                                       const char *value, size_t value_len)
{
    struct header_check *c = cls;

    (void)kind;
    c->bytes += key_len + value_len + 4;
    if (key_len == 0 || has_blank(key, key_len) || (value != NULL && memchr(value, 0, value_len) != NULL))
        c->is_bad = true;
    if (strcasecmp(key, "Host") == 0) {
        c->hosts++;
    } else if (strcasecmp(key, "Content-Length") == 0) {
        c->lengths++;
        if (value == NULL || value_len == 0 || strspn(value, "0123456789") != value_len)
            c->is_bad = true;
    } else if (strcasecmp(key, "Transfer-Encoding") == 0) {
        c->encodings++;
        if (value == NULL || strcasecmp(value, "chunked") != 0)
            c->is_bad = true;
    }
    return MHD_YES;
}

/* Framing that a proxy in front of us could read differently. ERR_OK: none of it. */
static enum err httpd_check_headers(struct request *r, const char *version)
{
    struct header_check c = { 0 };

    (void)MHD_get_connection_values_n(r->connection, MHD_HEADER_KIND, httpd_on_header, &c);
    if (c.bytes + strlen(r->path) + strlen(r->query) > HTTPD_HEADER_BYTES)
        return ERR_HEADERS_TOO_LARGE;
    if (c.is_bad || c.lengths > 1 || c.encodings > 1 || (c.lengths > 0 && c.encodings > 0) || c.hosts > 1)
        return ERR_INVALID_REQUEST;
    if (c.hosts == 0 && strcmp(version, "HTTP/1.0") != 0)
        return ERR_INVALID_REQUEST;
    return ERR_OK;
}

static struct request *request_new(struct httpd *h, struct MHD_Connection *connection, const char *method,
                                   const char *version)
{
    struct httpd_conn *c = httpd_conn_of(connection);
    struct arena *a = c != NULL && c->uri != NULL ? arena_new(REQUEST_ARENA_BYTES) : NULL;
    struct request *r = a != NULL ? arena_alloc(a, sizeof(*r)) : NULL;
    const char *mark;

    if (r == NULL) {
        arena_free(a);
        return NULL;
    }
    r->arena = a;
    r->httpd = h;
    r->conn = c;
    r->connection = connection;
    r->ctx = h->config.ctx;
    r->is_plain = strcmp(version, "HTTP/1.0") == 0;
    r->began_us = clock_mono_us();
    r->method = arena_strdup(a, method);
    mark = strchr(c->uri, '?');
    r->path = mark != NULL ? arena_strndup(a, c->uri, (size_t)(mark - c->uri)) : arena_strdup(a, c->uri);
    r->query = mark != NULL ? arena_strdup(a, mark + 1) : "";
    uuid_v7(r->id);
    if (r->method == NULL || r->path == NULL || r->query == NULL) {
        arena_free(a);
        return NULL;
    }
    return r;
}

static enum MHD_Result request_queue(struct request *r)
{
    enum MHD_Result ok;

    for (size_t i = 0; i < r->header_count; i++)
        (void)MHD_add_response_header(r->response, r->headers[i].name, r->headers[i].value);
    if (r->is_closing || r->httpd->is_draining)
        (void)MHD_add_response_header(r->response, MHD_HTTP_HEADER_CONNECTION, "close");
    conn_set_deadline(r->conn, clock_mono_ms() + httpd_answer_ms(r->answer_bytes));
    ok = MHD_queue_response(r->connection, (unsigned)r->status, r->response);
    MHD_destroy_response(r->response);
    r->response = NULL;
    return ok;
}

static void request_body(struct request *r, const char *data, size_t len)
{
    if (r->status != 0)
        return; /* answered already; the rest of the body is thrown away until its deadline */
    r->body_bytes += len;
    if (r->body_bytes > r->body_limit) {
        r->is_closing = true;
        r->httpd->config.on_refused(r, ERR_TOO_LARGE, NULL);
    } else if (r->sink != NULL ? !r->sink(r, data, len) : !buf_add(&r->body, data, len)) {
        r->is_closing = true;
        if (r->status == 0)
            r->httpd->config.on_refused(r, ERR_UNAVAILABLE, NULL);
    }
    if (r->status != 0)
        conn_set_deadline(r->conn, clock_mono_ms() + HTTPD_DISCARD_MS);
}

void request_wake(struct request *r)
{
    if (!r->is_suspended)
        return;
    r->is_suspended = false;
    r->is_resumed = true;
    r->httpd->is_dirty = true;
    MHD_resume_connection(r->connection);
}

static void request_keep_headers(struct request *r) /* those that are asked for while it waits */
{
    r->host = arena_strdup(r->arena, request_header(r, "Host"));
    r->if_none_match = arena_strdup(r->arena, request_header(r, "If-None-Match"));
}

/* A stream, or one that parks. It may leave in the turn after it was resumed (httpd_out.c); resumed: this is that turn.
 */
static enum MHD_Result request_leave(struct request *r, bool resumed)
{
    if (!resumed) {
        r->is_suspended = true;
        MHD_suspend_connection(r->connection);
        request_wake(r);
        return MHD_YES;
    }
    r->is_leaving = false;
    request_keep_headers(r);
    if (conn_leave(r->conn, r)) {
        r->connection = NULL;
        return MHD_NO;
    }
    if (r->is_stream)
        return MHD_NO; /* no descriptor left; it may come back */
    r->is_suspended = true;
    MHD_suspend_connection(r->connection);
    return MHD_YES;
}

/* What the present state asks for: queue the answer, leave, receive, or sleep. */
static enum MHD_Result request_step(struct request *r, bool resumed)
{
    if (r->status != 0 && !r->is_stream)
        return request_queue(r);
    if (r->is_leaving && r->stage == REQUEST_RUN)
        return request_leave(r, resumed);
    if (r->stage == REQUEST_BODY) {
        r->is_head_over = true;
        return MHD_YES;
    }
    r->is_suspended = true;
    MHD_suspend_connection(r->connection);
    return MHD_YES;
}

static enum MHD_Result httpd_on_call(void *cls, struct MHD_Connection *connection, const char *url, const char *method,
                                     const char *version, const char *upload_data, size_t *upload_data_size,
                                     void **con_cls)
{
    struct httpd *h = cls;
    struct request *r = *con_cls;
    bool resumed = r != NULL && r->is_resumed;

    (void)url; /* decoded, with NULs and all; we keep the raw one */
    if (r == NULL) {
        enum err e;

        r = request_new(h, connection, method, version);
        if (r == NULL)
            return MHD_NO;
        *con_cls = r;
        h->in_flight++;
        conn_set_deadline(r->conn, 0);
        e = httpd_check_headers(r, version);
        if (e != ERR_OK) {
            r->is_closing = true;
            h->config.on_refused(r, e, "the request's header is ambiguous or malformed");
        } else {
            h->config.on_head(r);
        }
        return request_step(r, false);
    }
    r->is_resumed = false;
    if (!r->is_head_over)
        return request_step(r, false);
    if (*upload_data_size > 0) {
        if (r->is_suspended)
            return MHD_YES; /* 0.9.75 goes on with the chunks it has read; untaken, they come again after the resume */
        request_body(r, upload_data, *upload_data_size);
        *upload_data_size = 0;
        return MHD_YES;
    }
    if (r->stage == REQUEST_BODY) {
        r->stage = REQUEST_RUN;
        conn_set_deadline(r->conn, 0);
        if (r->status == 0)
            h->config.on_request(r);
        resumed = false; /* for the body, that was: it may be in the epoll set again */
    }
    return request_step(r, resumed);
}

void request_finish(struct request *r)
{
    struct httpd *h = r->httpd;

    h->config.on_done(r);
    if (r->on_over != NULL)
        r->on_over(r);
    if (r->response != NULL)
        MHD_destroy_response(r->response);
    buf_done(&r->body);
    buf_done(&r->stream);
    arena_free(r->arena);
    h->in_flight--;
}

static void httpd_on_completed(void *cls, struct MHD_Connection *connection, void **con_cls,
                               enum MHD_RequestTerminationCode why)
{
    struct request *r = *con_cls;

    (void)cls;
    (void)connection;
    (void)why;
    *con_cls = NULL;
    if (r == NULL || r->conn->is_out)
        return;
    conn_set_deadline(r->conn, clock_mono_ms() + IDLE_S * 1000 + HEAD_MS);
    request_finish(r);
}

/* No more than its fair share in descriptors, since libmicrohttpd does not count those that have left. */
static enum MHD_Result httpd_on_accept(void *cls, const struct sockaddr *from, socklen_t from_len)
{
    const struct httpd *h = cls;

    (void)from;
    (void)from_len;
    return h->connections < h->config.max_connections ? MHD_YES : MHD_NO;
}

const char *request_header(const struct request *r, const char *name)
{
    if (r->connection == NULL) /* it has left: these are kept */
        return strcmp(name, "Host") == 0 ? r->host : strcmp(name, "If-None-Match") == 0 ? r->if_none_match : NULL;
    return MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND, name);
}

bool request_is_head(const struct request *r)
{
    return strcmp(r->method, "HEAD") == 0;
}

const char *request_query(struct request *r, const char *name, bool *bad)
{
    size_t name_len = strlen(name);

    if (bad != NULL)
        *bad = false;
    for (const char *p = r->query; *p != '\0';) {
        size_t len = strcspn(p, "&");

        if (len > name_len && p[name_len] == '=' && strncmp(p, name, name_len) == 0) {
            char *value = arena_alloc(r->arena, len - name_len);

            if (value != NULL &&
                url_unescape(value, len - name_len, p + name_len + 1, len - name_len - 1, true) == ERR_OK)
                return value;
            if (bad != NULL)
                *bad = true;
            return "";
        }
        p += len + (p[len] == '&');
    }
    return NULL;
}

static bool name_is_listed(const char *known, const char *name, size_t len)
{
    while (*known != '\0') {
        size_t n = strcspn(known, ",");

        if (n == len && strncmp(known, name, len) == 0)
            return true;
        known += n + (known[n] == ',');
    }
    return false;
}

const char *request_query_unknown(struct request *r, const char *known)
{
    for (const char *p = r->query; *p != '\0';) {
        size_t len = strcspn(p, "&"), name = strcspn(p, "=&");

        if (len > 0 && !name_is_listed(known, p, name)) {
            const char *clean = text_clean(r->arena, p, name, 64);

            return clean != NULL ? clean : "query";
        }
        p += len + (p[len] == '&');
    }
    return NULL;
}

size_t request_content_length(const struct request *r)
{
    const char *text = request_header(r, "Content-Length");
    int64_t n = 0;

    if (text == NULL || parse_i64(text, 0, INT64_MAX, &n) != ERR_OK)
        return 0;
    return (size_t)n;
}

void request_go_on(struct request *r, size_t limit, int64_t body_ms)
{
    assert(r->stage == REQUEST_HEAD && r->status == 0);
    if (request_content_length(r) > limit) {
        r->httpd->config.on_refused(r, ERR_TOO_LARGE, NULL);
        return;
    }
    r->stage = REQUEST_BODY;
    r->body_limit = limit;
    r->body.ceiling = limit + 1;
    conn_set_deadline(r->conn, clock_mono_ms() + body_ms);
    request_wake(r);
}

void request_close(struct request *r)
{
    r->is_closing = true;
}

void request_pause(struct request *r)
{
    if (r->is_suspended)
        return;
    r->is_suspended = true;
    MHD_suspend_connection(r->connection);
}

void request_resume(struct request *r)
{
    request_wake(r);
}

void request_add_header(struct request *r, const char *name, const char *value)
{
    const char *n = arena_strdup(r->arena, name), *v = arena_strdup(r->arena, value);

    assert(r->header_count < REQUEST_ANSWER_HEADERS);
    if (n != NULL && v != NULL)
        r->headers[r->header_count++] = (struct request_header){ n, v };
}

void request_park(struct request *r)
{
    if (r->connection == NULL || r->status != 0)
        return;
    r->is_leaving = true;
    request_wake(r);
}

void request_set_answer(struct request *r, int status, const char *mime)
{
    assert(r->status == 0);
    r->status = status;
    if (mime != NULL)
        request_add_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, mime);
    request_add_header(r, "Request-Id", r->id);
}

static void request_answer(struct request *r, int status, const char *mime, struct MHD_Response *response)
{
    request_set_answer(r, status, mime);
    r->response = response;
    request_wake(r);
}

void request_reply(struct request *r, int status, const char *mime, struct buf *body)
{
    size_t len = body != NULL ? body->len : 0;
    struct MHD_Response *response;
    char *data;

    if (r->connection == NULL) {
        request_answer_out(r, status, mime, body);
        if (body != NULL)
            buf_done(body);
        return;
    }
    data = body != NULL ? buf_take(body) : NULL;
    response = data != NULL ? MHD_create_response_from_buffer(len, data, MHD_RESPMEM_MUST_FREE)
                            : MHD_create_response_from_buffer(0, (void *)(uintptr_t) "", MHD_RESPMEM_PERSISTENT);

    r->answer_bytes = (int64_t)len;
    request_answer(r, status, mime, response);
}

void request_reply_file(struct request *r, int status, const char *mime, int fd, int64_t offset, int64_t length)
{
    assert(r->connection != NULL); /* files are asked for, not waited for */
    r->answer_bytes = length;
    request_answer(r, status, mime, MHD_create_response_from_fd_at_offset64((uint64_t)length, fd, (uint64_t)offset));
}

/* ---- start and stop ---- */

static int httpd_listen(const char *host, int port, int *actual, char *problem, size_t problem_size)
{
    struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE };
    struct addrinfo *found = NULL;
    struct sockaddr_storage bound;
    socklen_t bound_len = sizeof(bound);
    char service[8];
    int fd = -1, on = 1;

    snprintf(service, sizeof(service), "%d", port);
    if (getaddrinfo(host, service, &hints, &found) != 0) {
        snprintf(problem, problem_size, "cannot resolve %s", host);
        return -1;
    }
    fd = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
        bind(fd, found->ai_addr, found->ai_addrlen) != 0 || listen(fd, 1024) != 0 ||
        getsockname(fd, (struct sockaddr *)&bound, &bound_len) != 0) {
        snprintf(problem, problem_size, "cannot listen on %s:%d: %s", host, port, strerror(errno));
        if (fd >= 0)
            close(fd);
        freeaddrinfo(found);
        return -1;
    }
    freeaddrinfo(found);
    *actual = ntohs(bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&bound)->sin6_port
                                                : ((struct sockaddr_in *)&bound)->sin_port);
    return fd;
}

enum err httpd_new(const struct httpd_config *config, struct httpd **out, char *problem, size_t problem_size)
{
    struct httpd *h = calloc(1, sizeof(*h));
    const union MHD_DaemonInfo *info;

    if (h == NULL)
        return ERR_NOMEM;
    h->config = *config;
    h->conns.next = h->conns.prev = &h->conns;
    h->listen_fd = httpd_out_open(h) ? httpd_listen(config->host, config->port, &h->port, problem, problem_size) : -1;
    if (h->listen_fd < 0) {
        httpd_out_done(h);
        free(h);
        return ERR_IO;
    }
    h->daemon = MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, httpd_on_accept, h, httpd_on_call, h,
                                 MHD_OPTION_LISTEN_SOCKET, h->listen_fd, MHD_OPTION_CONNECTION_LIMIT,
                                 (unsigned)config->max_connections, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_S,
                                 MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)POOL_BYTES, MHD_OPTION_STRICT_FOR_CLIENT,
                                 1, MHD_OPTION_NOTIFY_CONNECTION, httpd_on_connection, h, MHD_OPTION_NOTIFY_COMPLETED,
                                 httpd_on_completed, h, MHD_OPTION_URI_LOG_CALLBACK, httpd_on_uri, h, MHD_OPTION_END);
    info = h->daemon != NULL ? MHD_get_daemon_info(h->daemon, MHD_DAEMON_INFO_EPOLL_FD) : NULL;
    if (info == NULL) {
        snprintf(problem, problem_size, "libmicrohttpd does not start");
        if (h->daemon != NULL)
            MHD_stop_daemon(h->daemon);
        close(h->listen_fd);
        httpd_out_done(h);
        free(h);
        return ERR_IO;
    }
    uv_poll_init(config->loop, &h->poll, info->epoll_fd);
    uv_timer_init(config->loop, &h->timer);
    uv_timer_init(config->loop, &h->sweep);
    uv_prepare_init(config->loop, &h->prepare);
    uv_poll_start(&h->poll, UV_READABLE, httpd_on_poll);
    uv_timer_start(&h->sweep, httpd_on_sweep, SWEEP_MS, SWEEP_MS);
    uv_prepare_start(&h->prepare, httpd_on_prepare);
    httpd_out_start(h);
    h->is_dirty = true;
    *out = h;
    return ERR_OK;
}

int httpd_port(const struct httpd *h)
{
    return h->port;
}

size_t httpd_in_flight(const struct httpd *h)
{
    return h->in_flight;
}

size_t httpd_connections(const struct httpd *h)
{
    return h->connections;
}

void httpd_drain(struct httpd *h, void (*on_idle)(void *ctx), void *ctx)
{
    h->is_draining = true;
    h->on_idle = on_idle;
    h->idle_ctx = ctx;
    (void)MHD_quiesce_daemon(h->daemon); /* hands the listening socket back to us */
    close(h->listen_fd);
    h->listen_fd = -1;
    h->is_dirty = true; /* the idle check runs at the next turn */
}

static void httpd_on_handle_closed(uv_handle_t *handle)
{
    struct httpd *h = handle->data;

    if (--h->open_handles > 0)
        return;
    if (h->on_closed != NULL)
        h->on_closed(h->closed_ctx);
    httpd_out_done(h);
    free(h);
}

void httpd_close(struct httpd *h, void (*on_closed)(void *ctx), void *ctx)
{
    uv_handle_t *handles[] = { (uv_handle_t *)&h->poll, (uv_handle_t *)&h->timer, (uv_handle_t *)&h->sweep,
                               (uv_handle_t *)&h->prepare, (uv_handle_t *)&h->out.poll };

    h->is_closed = true;
    h->on_closed = on_closed;
    h->closed_ctx = ctx;
    uv_poll_stop(&h->poll);
    MHD_stop_daemon(h->daemon); /* closes the listening socket too, unless it was quiesced */
    httpd_out_stop(h);
    h->open_handles = (int)ARRAY_LEN(handles);
    for (size_t i = 0; i < ARRAY_LEN(handles); i++) {
        handles[i]->data = h;
        uv_close(handles[i], httpd_on_handle_closed);
    }
}
