/* httpd.c - the glue between libmicrohttpd's epoll descriptor and the loop, and the hardening that it needs.
 *
 * One uv_poll watches the daemon's epoll descriptor; after each MHD_run one timer is set from MHD_get_timeout. Answers
 * given while a connection is suspended resume it and mark the daemon dirty; a uv_prepare runs it once per turn of the
 * loop, so that a batch of 500 answers costs one MHD_run. Deadlines lie with the connections: a sweep each second shuts
 * down the sockets of those past theirs (never closes: the descriptor is libmicrohttpd's). */
#include "dispatcher/httpd.h"
#include <assert.h>
#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>
#include "common/base/clock.h"

enum {
    HEAD_MS = 10000,          /* from the first byte that could be sent to the end of the headers */
    IDLE_S = 60,              /* keep-alive without a request */
    DISCARD_MS = 5000,        /* a refused body is read and thrown away no longer than this */
    ANSWER_MS = 30000,        /* an answer has this and */
    ANSWER_BYTES_PER_MS = 16, /* goes on at this rate at the least */
    POOL_BYTES = 11 * 1024,   /* our own limit of headers, and room for the answer's; each connection has one */
    SWEEP_MS = 1000,
    REQUEST_ARENA_BYTES = 8 << 20,
    STREAM_BLOCK_BYTES = 512,
};

struct httpd_conn {                 /* from NOTIFY_CONNECTION to its end */
    struct httpd_conn *next, *prev; /* of those that have a deadline; NULL: it has none */
    struct httpd *httpd;
    int fd;
    int64_t deadline_ms; /* 0: none */
    char *uri;           /* of the present request, undecoded */
};

struct httpd {
    struct httpd_config config;
    struct MHD_Daemon *daemon;
    uv_poll_t poll;
    uv_timer_t timer, sweep;
    uv_prepare_t prepare;
    int open_handles;
    int listen_fd; /* ours to close after the quiesce */
    int port;
    bool is_dirty, is_draining, is_closed;
    size_t in_flight, connections;
    struct httpd_conn conns; /* ring */
    void (*on_idle)(void *ctx);
    void *idle_ctx;
    void (*on_closed)(void *ctx);
    void *closed_ctx;
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
static void conn_set_deadline(struct httpd_conn *c, int64_t deadline_ms) /* 0: none */
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
        conn_set_deadline(c, clock_mono_ms() + HEAD_MS);
        h->connections++;
        *socket_context = c;
    } else if (c != NULL) {
        conn_set_deadline(c, 0);
        h->connections--;
        free(c->uri);
        free(c);
        *socket_context = NULL;
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

static struct request *request_new(struct httpd *h, struct MHD_Connection *connection, const char *method)
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
    conn_set_deadline(r->conn, r->is_stream ? 0 : clock_mono_ms() + ANSWER_MS + r->answer_bytes / ANSWER_BYTES_PER_MS);
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
        conn_set_deadline(r->conn, clock_mono_ms() + DISCARD_MS);
}

/* What the present state asks for: queue the answer, receive, or sleep. */
static enum MHD_Result request_step(struct request *r)
{
    if (r->status != 0)
        return request_queue(r);
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

    (void)url; /* decoded, with NULs and all; we keep the raw one */
    if (r == NULL) {
        enum err e;

        r = request_new(h, connection, method);
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
        return request_step(r);
    }
    if (!r->is_head_over)
        return request_step(r);
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
    }
    return request_step(r);
}

static void httpd_on_completed(void *cls, struct MHD_Connection *connection, void **con_cls,
                               enum MHD_RequestTerminationCode why)
{
    struct httpd *h = cls;
    struct request *r = *con_cls;

    (void)connection;
    (void)why;
    if (r == NULL)
        return;
    conn_set_deadline(r->conn, clock_mono_ms() + IDLE_S * 1000 + HEAD_MS);
    h->config.on_done(r);
    if (r->on_over != NULL)
        r->on_over(r);
    if (r->response != NULL)
        MHD_destroy_response(r->response);
    buf_done(&r->body);
    buf_done(&r->stream);
    arena_free(r->arena);
    *con_cls = NULL;
    h->in_flight--;
}

const char *request_header(const struct request *r, const char *name)
{
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

static void request_wake(struct request *r)
{
    if (!r->is_suspended)
        return;
    r->is_suspended = false;
    r->httpd->is_dirty = true;
    MHD_resume_connection(r->connection);
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

static void request_answer(struct request *r, int status, const char *mime, struct MHD_Response *response)
{
    assert(r->status == 0);
    r->status = status;
    r->response = response;
    if (mime != NULL)
        request_add_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, mime);
    request_add_header(r, "Request-Id", r->id);
    request_wake(r);
}

void request_reply(struct request *r, int status, const char *mime, struct buf *body)
{
    size_t len = body != NULL ? body->len : 0;
    char *data = body != NULL ? buf_take(body) : NULL;
    struct MHD_Response *response =
        data != NULL ? MHD_create_response_from_buffer(len, data, MHD_RESPMEM_MUST_FREE)
                     : MHD_create_response_from_buffer(0, (void *)(uintptr_t) "", MHD_RESPMEM_PERSISTENT);

    r->answer_bytes = (int64_t)len;
    request_answer(r, status, mime, response);
}

void request_reply_file(struct request *r, int status, const char *mime, int fd, int64_t offset, int64_t length)
{
    r->answer_bytes = length;
    request_answer(r, status, mime, MHD_create_response_from_fd_at_offset64((uint64_t)length, fd, (uint64_t)offset));
}

/* ---- streams ---- */

static ssize_t stream_on_read(void *cls, uint64_t pos, char *to, size_t max)
{
    struct request *r = cls;
    size_t left = r->stream.len - r->stream_at, n = left < max ? left : max;

    (void)pos;
    if (n > 0) {
        memcpy(to, r->stream.data + r->stream_at, n);
        r->stream_at += n;
        if (r->stream_at == r->stream.len) {
            buf_done(&r->stream); /* a quiet stream keeps no buffer */
            r->stream_at = 0;
        }
        return (ssize_t)n;
    }
    if (r->is_stream_over)
        return MHD_CONTENT_READER_END_OF_STREAM;
    r->is_suspended = true; /* 0 without this would spin */
    MHD_suspend_connection(r->connection);
    return 0;
}

void request_stream(struct request *r)
{
    r->is_stream = true;
    request_answer(r, 200, "text/event-stream",
                   MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK_BYTES, stream_on_read, r, NULL));
}

bool request_stream_write(struct request *r, const char *data, size_t len)
{
    if (r->is_stream_over)
        return false;
    if (r->stream_at > 0) {
        r->stream.len -= r->stream_at;
        memmove(r->stream.data, r->stream.data + r->stream_at, r->stream.len);
        r->stream_at = 0;
    }
    r->stream.ceiling = HTTPD_STREAM_BYTES;
    if (r->stream.len + len > HTTPD_STREAM_BYTES || !buf_add(&r->stream, data, len))
        return false;
    request_wake(r);
    return true;
}

void request_stream_end(struct request *r)
{
    r->is_stream_over = true;
    conn_set_deadline(r->conn, clock_mono_ms() + DISCARD_MS);
    request_wake(r);
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
    h->listen_fd = httpd_listen(config->host, config->port, &h->port, problem, problem_size);
    if (h->listen_fd < 0) {
        free(h);
        return ERR_IO;
    }
    h->daemon = MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, httpd_on_call, h,
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
    free(h);
}

void httpd_close(struct httpd *h, void (*on_closed)(void *ctx), void *ctx)
{
    uv_handle_t *handles[] = { (uv_handle_t *)&h->poll, (uv_handle_t *)&h->timer, (uv_handle_t *)&h->sweep,
                               (uv_handle_t *)&h->prepare };

    h->is_closed = true;
    h->on_closed = on_closed;
    h->closed_ctx = ctx;
    uv_poll_stop(&h->poll);
    MHD_stop_daemon(h->daemon); /* closes the listening socket too, unless it was quiesced */
    h->open_handles = (int)ARRAY_LEN(handles);
    for (size_t i = 0; i < ARRAY_LEN(handles); i++) {
        handles[i]->data = h;
        uv_close(handles[i], httpd_on_handle_closed);
    }
}
