/* server.c - libmicrohttpd driven by libuv: its epoll descriptor in a uv_poll, one timer for its time-outs (see
 * server.h).
 *
 * libmicrohttpd does not watch suspended connections. A second epoll set of ours does, for one thing only: the client
 * closed its side. */
#include "server.h"
#include "sandbox.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define BODY_MAX       (11U << 20) /* kept; Stability allows 10 MiB */
#define BODY_READ_MAX  (64U << 20) /* read and thrown away, so that a 413 can be heard */
#define POOL_BYTES     4096U
#define IDLE_TIMEOUT_S 75U
#define SLOW_STEP_MS   100

struct server {
    struct sandbox *box;
    struct MHD_Daemon *daemon;
    struct server_config config;
    uv_poll_t poll, gone_poll;
    uv_timer_t timer;
    int gone_fd;
    int handles_open;
    uint16_t port;
    size_t connections, waiting, peak;
    struct exchange *exchanges;
    bool is_stopping;
};

static void server_run(struct server *s);

static void server_on_timer(uv_timer_t *t)
{
    server_run(container_of(t, struct server, timer));
}

static void server_on_poll(uv_poll_t *p, int status, int events)
{
    (void)status;
    (void)events;
    server_run(container_of(p, struct server, poll));
}

static void server_run(struct server *s)
{
    MHD_UNSIGNED_LONG_LONG wait_ms;
    (void)MHD_run(s->daemon); /* no only when the daemon was started with threads */
    if (MHD_get_timeout(s->daemon, &wait_ms) == MHD_YES)
        (void)uv_timer_start(&s->timer, server_on_timer, wait_ms, 0); /* fails only without a callback */
    else
        (void)uv_timer_stop(&s->timer); /* cannot fail */
}

/* Let the daemon notice what was resumed. A millisecond gathers many: each round walks all suspended connections. */
static void server_kick(struct server *s)
{
    (void)uv_timer_start(&s->timer, server_on_timer, 1, 0); /* fails only without a callback */
}

/* ---- the exchange's ends ---- */

static void exchange_note(struct exchange *ex, int status)
{
    struct request_note n = { .at_ms = sandbox_now_ms(ex->box), .status = status, .on_connection = ex->conn->requests };
    const char *idem = exchange_request_header(ex, "Idempotency-Key");
    if (ex->is_noted)
        return;
    ex->is_noted = true;
    if (ex->phase == PHASE_OTHER && ex->provider == NULL)
        return; /* the sandbox's own endpoints */
    (void)snprintf(n.method, sizeof n.method, "%s", ex->method == NULL ? "" : ex->method);
    (void)snprintf(n.path, sizeof n.path, "%s", ex->path);
    (void)snprintf(n.phase, sizeof n.phase, "%s", phase_name[ex->phase]);
    (void)snprintf(n.tag, sizeof n.tag, "%s", ex->tag);
    (void)snprintf(n.key, sizeof n.key, "%s", ex->account);
    (void)snprintf(n.idempotency_key, sizeof n.idempotency_key, "%s", idem == NULL ? "" : idem);
    counters_note(ex->box->counters, &n);
}

static void exchange_count(struct exchange *ex, enum counter kind)
{
    counters_add(ex->box->counters, ex->tag[0] == '\0' ? NULL : ex->tag, ex->account[0] == '\0' ? NULL : ex->account,
                 kind, 1);
}

static void exchange_orphan(struct exchange *ex)
{
    dues_disarm(ex->box->dues, &ex->due);
    if (ex->paint != NULL)
        paint_abandon(ex->paint);
    ex->paint = NULL;
}

/* The handler has decided: let libmicrohttpd come back for it. */
static void exchange_wake(struct exchange *ex)
{
    if (!ex->is_suspended)
        return;
    ex->is_suspended = false;
    ex->server->waiting--;
    MHD_resume_connection(ex->mhd);
    server_kick(ex->server);
}

static void exchange_sleep(struct exchange *ex)
{
    ex->is_suspended = true;
    if (++ex->server->waiting > ex->server->peak)
        ex->server->peak = ex->server->waiting;
    MHD_suspend_connection(ex->mhd);
}

static void exchange_lost(struct exchange *ex)
{
    if (!ex->is_counted_gone && ex->state != EX_CUT) {
        ex->is_counted_gone = true;
        exchange_count(ex, COUNT_CANCELED);
        exchange_note(ex, -1);
    }
}

void exchange_cut(struct exchange *ex)
{
    if (!ex->server->is_stopping && ex->state != EX_CUT) {
        exchange_count(ex, COUNT_CUT);
        exchange_note(ex, 0);
    }
    ex->state = EX_CUT;
    exchange_orphan(ex);
    exchange_wake(ex);
}

static void exchange_on_due(struct due *d)
{
    struct exchange *ex = container_of(d, struct exchange, due);
    void (*then)(struct exchange *) = ex->then;
    ex->then = NULL;
    then(ex);
}

void exchange_wait(struct exchange *ex, int64_t delay_ms, void (*then)(struct exchange *))
{
    ex->state = EX_WAITING;
    ex->then = then;
    dues_arm(ex->box->dues, &ex->due, delay_ms < 0 ? 0 : (uint64_t)delay_ms, exchange_on_due);
}

void exchange_paint(struct exchange *ex, struct paint *p, void (*done)(void *ex, struct paint *))
{
    ex->state = EX_WAITING;
    ex->paint = p;
    p->owner = ex;
    p->done = done;
    paint_start(p, &ex->box->loop);
}

void exchange_hang(struct exchange *ex)
{
    ex->state = EX_WAITING;
}

const char *exchange_request_header(const struct exchange *ex, const char *name)
{
    return MHD_lookup_connection_value(ex->mhd, MHD_HEADER_KIND, name);
}

void exchange_header(struct exchange *ex, const char *name, const char *fmt, ...)
{
    va_list ap;
    if (ex->header_count == HEADERS_MAX)
        return;
    (void)snprintf(ex->headers[ex->header_count].name, sizeof ex->headers[0].name, "%s", name);
    va_start(ap, fmt);
    (void)vsnprintf(ex->headers[ex->header_count].value, sizeof ex->headers[0].value, fmt, ap); /* cut is fine */
    va_end(ap);
    ex->header_count++;
}

/* ---- bodies that misbehave: slow, or cut in the middle ---- */

struct stream {
    struct exchange *ex;
    struct blob *body;
    size_t end;  /* bytes to hand out */
    bool drops;  /* at end the connection breaks instead of ending well */
    size_t step; /* 0: as fast as it goes */
    int64_t step_ms;
    bool may_step;
};

static void stream_on_due(struct exchange *ex)
{
    struct stream *st = ex->cargo;
    st->may_step = true;
    exchange_wake(ex);
}

static ssize_t stream_read(void *cls, uint64_t pos, char *out, size_t max)
{
    struct stream *st = cls;
    if (st->ex->server->is_stopping)
        return MHD_CONTENT_READER_END_WITH_ERROR; /* it must not fall asleep again */
    if (pos >= st->end) {
        if (!st->drops)
            return MHD_CONTENT_READER_END_OF_STREAM;
        exchange_count(st->ex, COUNT_CUT);
        st->ex->state = EX_CUT;
        return MHD_CONTENT_READER_END_WITH_ERROR;
    }
    size_t n = st->end - (size_t)pos;
    if (st->step > 0) {
        if (!st->may_step) {
            st->ex->then = stream_on_due;
            dues_arm(st->ex->box->dues, &st->ex->due, (uint64_t)st->step_ms, exchange_on_due);
            exchange_sleep(st->ex);
            return 0;
        }
        st->may_step = false;
        n = n < st->step ? n : st->step;
    }
    n = n < max ? n : max;
    memcpy(out, st->body->data + pos, n);
    return (ssize_t)n;
}

static void stream_free(void *cls)
{
    struct stream *st = cls;
    blob_drop(st->body);
    free(st);
}

static struct MHD_Response *exchange_stream(struct exchange *ex, struct blob *body)
{
    const struct fault *f = &ex->fault;
    struct stream *st = text_alloc(sizeof *st);
    st->ex = ex;
    st->body = body;
    st->end = body->len;
    if (fault_has(f, FW_DROP_MID) && (uint64_t)f->v[FW_DROP_MID] < st->end) {
        st->end = (size_t)f->v[FW_DROP_MID];
        st->drops = true;
    }
    if (fault_has(f, FW_SLOW_BODY)) {
        st->step = f->v[FW_SLOW_BODY] > 1 ? (size_t)f->v[FW_SLOW_BODY] : 64;
        st->step_ms = fault_has(f, FW_SLOW_MS) ? f->v[FW_SLOW_MS] : SLOW_STEP_MS;
    }
    if (ex->cargo_free != NULL)
        ex->cargo_free(ex->cargo);
    ex->cargo = st; /* the response owns it and dies before the exchange */
    ex->cargo_free = NULL;
    return MHD_create_response_from_callback(fault_has(f, FW_CHUNKED) ? MHD_SIZE_UNKNOWN : body->len, 4096, stream_read,
                                             st, stream_free);
}

/* The body as a fault wants it: not JSON any more, a gateway's page, cut short but well framed, nothing. */
static struct blob *exchange_spoil(struct exchange *ex, struct blob *body, const char **type)
{
    static const char page[] = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad "
                               "Gateway</h1></center>\r\n<hr><center>cloudflare</center>\r\n</body>\r\n</html>\r\n";
    const struct fault *f = &ex->fault;
    struct blob *other = NULL;

    if (fault_has(f, FW_HTML)) {
        other = blob_new(page, sizeof page - 1);
        *type = "text/html";
    } else if (fault_has(f, FW_EMPTY_BODY)) {
        other = blob_new("", 0);
    } else if (fault_has(f, FW_BAD_JSON)) {
        other = blob_new("{\"id\": \"half an answ", 20);
    } else if (fault_has(f, FW_TRUNCATE) && (uint64_t)f->v[FW_TRUNCATE] < body->len) {
        other = blob_new(body->data, (size_t)f->v[FW_TRUNCATE]);
    }
    if (other == NULL)
        return body;
    blob_drop(body);
    return other;
}

/* The answer as bytes on the wire, of which only the first N will leave (from the end when N is negative). */
static void exchange_break(struct exchange *ex, int status, const char *type, const struct blob *body)
{
    const char *reason = MHD_get_reason_phrase_for((unsigned)status);
    char line[512];
    int64_t at = ex->fault.v[FW_DROP_AT];

    (void)snprintf(line, sizeof line,
                   "HTTP/1.1 %d %s\r\nConnection: Keep-Alive\r\nContent-Length: %zu\r\nContent-Type: %s\r\n", status,
                   reason == NULL ? "Unknown" : reason, body->len, type);
    buf_str(&ex->broken, line);
    for (size_t i = 0; i < ex->header_count; i++) {
        (void)snprintf(line, sizeof line, "%s: %s\r\n", ex->headers[i].name, ex->headers[i].value);
        buf_str(&ex->broken, line);
    }
    buf_str(&ex->broken, "\r\n");
    buf_add(&ex->broken, body->data, body->len);
    at = at < 0 ? (int64_t)ex->broken.len + at : at;
    ex->broken.len = at < 0 ? 0 : (uint64_t)at < ex->broken.len ? (size_t)at : ex->broken.len;
}

/* By hand, behind libmicrohttpd's back, which only knows whole headers. The request has been read to its end, so what
 * is sent arrives before the close. */
static void exchange_send_broken(struct exchange *ex)
{
    struct pollfd ready = { .fd = ex->conn->fd, .events = POLLOUT };
    size_t sent = 0;

    while (sent < ex->broken.len) {
        ssize_t n = send(ex->conn->fd, ex->broken.data + sent, ex->broken.len - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0)
            sent += (size_t)n;
        else if (n == 0 || (errno != EAGAIN && errno != EINTR) || poll(&ready, 1, 1000) <= 0)
            break; /* the client has gone, or does not read */
    }
    exchange_count(ex, COUNT_CUT);
    ex->state = EX_CUT;
}

static void exchange_blob_free(void *cls)
{
    blob_drop(cls);
}

static void exchange_release(struct exchange *ex)
{
    ex->state = EX_READY;
    exchange_wake(ex);
}

void exchange_send_blob(struct exchange *ex, int status, const char *type, struct blob *body)
{
    const struct fault *f = &ex->fault;

    body = exchange_spoil(ex, body, &type);
    if (fault_has(f, FW_DROP_AT))
        exchange_break(ex, status, type, body);
    if (fault_has(f, FW_DROP_MID) || fault_has(f, FW_SLOW_BODY) || fault_has(f, FW_CHUNKED))
        ex->response = exchange_stream(ex, body);
    else
        ex->response =
            MHD_create_response_from_buffer_with_free_callback_cls(body->len, body->data, exchange_blob_free, body);
    if (ex->response == NULL)
        abort(); /* out of memory */
    ex->status = status;
    (void)MHD_add_response_header(ex->response, "Content-Type", type); /* refuses only malformed values */
    for (size_t i = 0; i < ex->header_count; i++)
        (void)MHD_add_response_header(ex->response, ex->headers[i].name, ex->headers[i].value); /* as above */
    if (ex->phase == PHASE_SUBMIT && status >= 400)
        exchange_count(ex, COUNT_REFUSED);
    exchange_note(ex, status);
    if (ex->phase != PHASE_SUBMIT && fault_has(f, FW_DELAY_MS) && !ex->is_delayed) {
        exchange_wait(ex, f->v[FW_DELAY_MS], exchange_release); /* at submit the work itself takes longer */
        return;
    }
    exchange_release(ex);
}

void exchange_send(struct exchange *ex, int status, const char *type, const char *body)
{
    exchange_send_blob(ex, status, type, blob_new(body, strlen(body)));
}

void exchange_send_json(struct exchange *ex, int status, json_t *body)
{
    char *text = body == NULL ? NULL : json_dumps(body, JSON_COMPACT | JSON_REAL_PRECISION(15));
    if (text == NULL)
        abort(); /* out of memory, or we packed something that is no JSON: our own mistake */
    exchange_send(ex, status, "application/json", text);
    free(text);
    json_decref(body);
}

/* ---- libmicrohttpd's callbacks, in the order they come ---- */

static void server_on_connection(void *cls, struct MHD_Connection *c, void **socket_cls,
                                 enum MHD_ConnectionNotificationCode code)
{
    struct server *s = cls;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *info = MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
        struct conn *conn = text_alloc(sizeof *conn);
        conn->fd = info == NULL ? -1 : (int)info->connect_fd;
        conn->server = s;
        struct epoll_event ev = { .events = EPOLLRDHUP | EPOLLONESHOT, .data.ptr = conn };
        (void)epoll_ctl(s->gone_fd, EPOLL_CTL_ADD, conn->fd, &ev); /* unwatched, it is only noticed later */
        s->connections++;
        *socket_cls = conn;
        return;
    }
    struct conn *conn = *socket_cls;
    (void)epoll_ctl(s->gone_fd, EPOLL_CTL_DEL, conn->fd, NULL); /* may not be there */
    s->connections--;
    free(conn);
    *socket_cls = NULL;
}

static const char *server_provider(const char *path)
{
    static const char *const names[] = { "openai",  "stability", "leonardo", "a1111",
                                         "comfyui", "replicate", "runpod",   "ttapi" };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        size_t len = strlen(names[i]);
        if (path[0] == '/' && strncmp(path + 1, names[i], len) == 0 && path[1 + len] == '/')
            return names[i];
    }
    return "";
}

static void *server_on_uri(void *cls, const char *uri, struct MHD_Connection *c)
{
    struct server *s = cls;
    struct exchange *ex = text_alloc(sizeof *ex);
    ex->server = s;
    ex->box = s->box;
    ex->mhd = c;
    ex->target = text_dup(uri);
    ex->path = ex->target;
    ex->query = strchr(ex->target, '?');
    if (ex->query != NULL)
        *ex->query++ = '\0';
    ex->phase = PHASE_OTHER;
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    ex->conn = info->socket_context;
    ex->conn->ex = ex;
    ex->conn->requests++;
    ex->next = s->exchanges;
    if (ex->next != NULL)
        ex->next->prev = ex;
    s->exchanges = ex;
    struct fault_scene scene = { .phase = PHASE_SUBMIT, .provider = server_provider(ex->path), .path = ex->path };
    if (faults_drop_early(ex->box->faults, &scene, FW_DROP_LINE)) {
        exchange_cut(ex);
        (void)shutdown(ex->conn->fd, SHUT_RDWR); /* at once: the rest of the request is not waited for */
    }
    return ex;
}

static enum MHD_Result exchange_flush(struct exchange *ex)
{
    if (ex->state == EX_READY && fault_has(&ex->fault, FW_DROP_AT))
        exchange_send_broken(ex);
    if (ex->state == EX_CUT) {
        (void)shutdown(ex->conn->fd, SHUT_RDWR); /* the client may have been faster */
        return MHD_NO;
    }
    struct MHD_Response *r = ex->response;
    ex->state = EX_QUEUED;
    ex->response = NULL;
    enum MHD_Result queued = MHD_queue_response(ex->mhd, (unsigned)ex->status, r);
    MHD_destroy_response(r); /* the connection holds its own reference */
    return queued;
}

static enum MHD_Result server_on_request(void *cls, struct MHD_Connection *c, const char *url, const char *method,
                                         const char *version, const char *data, size_t *size, void **con_cls)
{
    struct exchange *ex = *con_cls;
    (void)cls;
    (void)c;
    (void)url;
    (void)version;
    if (ex->server->is_stopping)
        return MHD_NO;
    if (ex->state == EX_CUT && !ex->is_begun)
        return exchange_flush(ex);
    if (!ex->is_begun) {
        struct fault_scene scene = {
            .phase = strcmp(method, "POST") == 0 ? PHASE_SUBMIT : PHASE_POLL,
            .provider = server_provider(ex->path),
            .path = ex->path,
        };
        ex->is_begun = true;
        ex->method = method;
        if (faults_drop_early(ex->box->faults, &scene, FW_DROP_BEFORE)) {
            exchange_cut(ex);
            return exchange_flush(ex);
        }
        return MHD_YES;
    }
    if (*size > 0) {
        if (ex->body.len + *size > BODY_READ_MAX)
            return MHD_NO;
        ex->is_too_large = ex->is_too_large || ex->body.len + *size > BODY_MAX;
        if (ex->is_too_large)
            ex->body.len += *size; /* counted, not kept; nobody looks at the body of such a request */
        else
            buf_add(&ex->body, data, *size);
        *size = 0;
        return MHD_YES;
    }
    if (ex->state == EX_READING) {
        ex->server->config.on_request(ex);
        buf_done(&ex->body); /* what the answer needs has been copied */
        if (ex->state == EX_WAITING && ex->conn->is_gone) {
            exchange_lost(ex);
            exchange_orphan(ex);
            ex->state = EX_CUT;
        }
    }
    if (ex->state == EX_READY || ex->state == EX_CUT)
        return exchange_flush(ex);
    if (ex->state == EX_WAITING && !ex->is_suspended)
        exchange_sleep(ex);
    return MHD_YES;
}

static void server_on_completed(void *cls, struct MHD_Connection *c, void **con_cls,
                                enum MHD_RequestTerminationCode code)
{
    struct server *s = cls;
    struct exchange *ex = *con_cls;
    (void)c;
    if (ex == NULL)
        return;
    *con_cls = NULL;
    if (code != MHD_REQUEST_TERMINATED_COMPLETED_OK && !s->is_stopping)
        exchange_lost(ex);
    exchange_orphan(ex);
    if (ex->is_suspended)
        s->waiting--;
    *(ex->prev != NULL ? &ex->prev->next : &s->exchanges) = ex->next;
    if (ex->next != NULL)
        ex->next->prev = ex->prev;
    ex->conn->ex = NULL;
    if (ex->response != NULL)
        MHD_destroy_response(ex->response);
    if (ex->cargo_free != NULL)
        ex->cargo_free(ex->cargo);
    buf_done(&ex->body);
    buf_done(&ex->broken);
    free(ex->prompt);
    free(ex->target);
    free(ex);
}

/* A client closed its side. Whatever waits for it is of no use any more. */
static void server_on_gone(uv_poll_t *p, int status, int events)
{
    struct server *s = container_of(p, struct server, gone_poll);
    struct epoll_event ev[256];
    (void)status;
    (void)events;
    int n = epoll_wait(s->gone_fd, ev, (int)ARRAY_LEN(ev), 0);
    for (int i = 0; i < n; i++) {
        struct conn *conn = ev[i].data.ptr;
        struct exchange *ex = conn->ex;
        conn->is_gone = true;
        if (ex == NULL || !ex->is_suspended)
            continue;
        exchange_lost(ex);
        exchange_orphan(ex);
        if (ex->state != EX_QUEUED)
            ex->state = EX_CUT;
        exchange_wake(ex);
    }
}

/* ---- start and stop ---- */

static struct MHD_Daemon *server_listen(struct server *s)
{
    struct sockaddr_in addr = { .sin_family = AF_INET, .sin_port = htons(s->config.port) };
    if (inet_pton(AF_INET, s->config.host, &addr.sin_addr) != 1) {
        errno = EINVAL;
        return NULL;
    }
    return MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, s->config.port, NULL, NULL, server_on_request, s,
                            MHD_OPTION_SOCK_ADDR, (struct sockaddr *)&addr, MHD_OPTION_CONNECTION_LIMIT, 100000U,
                            MHD_OPTION_CONNECTION_TIMEOUT, IDLE_TIMEOUT_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
                            (size_t)POOL_BYTES, MHD_OPTION_LISTEN_BACKLOG_SIZE, 16384U, MHD_OPTION_URI_LOG_CALLBACK,
                            server_on_uri, s, MHD_OPTION_NOTIFY_CONNECTION, server_on_connection, s,
                            MHD_OPTION_NOTIFY_COMPLETED, server_on_completed, s, MHD_OPTION_END);
}

struct server *server_start(struct sandbox *box, const struct server_config *config)
{
    struct server *s = text_alloc(sizeof *s);
    s->box = box;
    s->config = *config;
    s->gone_fd = epoll_create1(EPOLL_CLOEXEC);
    s->daemon = s->gone_fd < 0 ? NULL : server_listen(s);
    if (s->daemon == NULL) {
        if (s->gone_fd >= 0)
            (void)close(s->gone_fd); /* nothing was written to it */
        free(s);
        return NULL;
    }
    s->config.host = NULL; /* the caller's, and not needed again */
    s->port = MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_BIND_PORT)->port;
    int fd = MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
    if (uv_poll_init(&box->loop, &s->poll, fd) != 0 || uv_poll_init(&box->loop, &s->gone_poll, s->gone_fd) != 0 ||
        uv_timer_init(&box->loop, &s->timer) != 0 || uv_poll_start(&s->poll, UV_READABLE, server_on_poll) != 0 ||
        uv_poll_start(&s->gone_poll, UV_READABLE, server_on_gone) != 0)
        abort(); /* fresh descriptors on a fresh loop */
    s->handles_open = 3;
    return s;
}

uint16_t server_port(const struct server *s)
{
    return s->port;
}

size_t server_connections(const struct server *s)
{
    return s->connections;
}

size_t server_waiting(const struct server *s)
{
    return s->waiting;
}

size_t server_take_peak(struct server *s, bool reset)
{
    size_t peak = s->peak;
    if (reset)
        s->peak = s->waiting;
    return peak;
}

static void server_let_go(struct server *s)
{
    if (--s->handles_open == 0) {
        (void)close(s->gone_fd); /* an epoll set: nothing to lose */
        free(s);
    }
}

static void server_on_poll_closed(uv_handle_t *h)
{
    server_let_go(container_of(h, struct server, poll));
}

static void server_on_gone_closed(uv_handle_t *h)
{
    server_let_go(container_of(h, struct server, gone_poll));
}

static void server_on_timer_closed(uv_handle_t *h)
{
    server_let_go(container_of(h, struct server, timer));
}

void server_stop(struct server *s)
{
    if (s == NULL)
        return;
    s->is_stopping = true;
    for (struct exchange *ex = s->exchanges; ex != NULL; ex = ex->next)
        if (ex->is_suspended)
            exchange_cut(ex); /* libmicrohttpd refuses to stop over suspended connections */
    (void)MHD_run(s->daemon); /* takes up what was resumed */
    uv_close((uv_handle_t *)&s->poll, server_on_poll_closed);
    uv_close((uv_handle_t *)&s->gone_poll, server_on_gone_closed);
    uv_close((uv_handle_t *)&s->timer, server_on_timer_closed);
    MHD_stop_daemon(s->daemon);
}
