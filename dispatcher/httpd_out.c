/* httpd_out.c - connections that wait long have left libmicrohttpd: event streams, and long-polls once they park.
 *
 * There each of ten thousand would keep a pool of 11 KiB for headers that are read and gone, and each answer of any of
 * them costs 0.9.75 a walk through all that are suspended (half a millisecond and more). So the socket gets another
 * number, a blank takes the place of the old one, and libmicrohttpd is told that the connection has failed: what it
 * shuts down and closes is the blank. It does not know of the socket by then, since a suspended connection is out of
 * its epoll set, and one just resumed is not back in it.
 *
 * Here a connection is its request and an entry in an epoll set of our own. What is to be sent lies in request.stream,
 * head first, and goes out once a turn of the loop. It ends with the answer (Connection: close): bytes of a next
 * request, which libmicrohttpd may have read already, cannot be handed back. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include "common/base/clock.h"
#include "dispatcher/httpd_inner.h"

enum {
    EVENTS_MAX = 256,
    FRAME_BYTES = 1024, /* of a stream: what its head and the frames of its chunks may take beyond its limit */
};

void conn_free(struct httpd_conn *c)
{
    if (!c->is_gone || c->is_todo || c->is_theirs)
        return;
    free(c->uri);
    free(c);
}

static void conn_gone(struct httpd_conn *c) /* frees it, at once or when it comes up in the list of writes */
{
    conn_set_deadline(c, 0);
    (void)close(c->fd); /* leaves the epoll set by itself */
    c->fd = -1;
    c->httpd->connections--;
    c->is_gone = true;
    conn_free(c);
}

static void conn_wait(struct httpd_conn *c, unsigned events) /* errors and hang-ups come anyhow */
{
    struct epoll_event e = { .events = events, .data.ptr = c };

    if (events != c->events && epoll_ctl(c->httpd->out.epoll_fd, EPOLL_CTL_MOD, c->fd, &e) == 0)
        c->events = events;
}

static void conn_end_request(struct httpd_conn *c)
{
    struct request *r = c->request;

    c->request = NULL;
    c->httpd->is_dirty = true; /* a drain may wait for it */
    request_finish(r);
}

/* The peer is gone. A stream is over; who waits for an answer is told by giving it: its request must stay until then.
 */
static void conn_broken(struct httpd_conn *c)
{
    struct request *r = c->request;

    if (r != NULL && r->status == 0) {
        (void)shutdown(c->fd, SHUT_RDWR);
        (void)epoll_ctl(c->httpd->out.epoll_fd, EPOLL_CTL_DEL, c->fd, NULL); /* or it would say so again and again */
        return;
    }
    if (r != NULL)
        conn_end_request(c);
    conn_gone(c);
}

/* All is sent. Closing now, with bytes of the client unread, could cost it the answer: it closes first, or is cut off.
 */
static void conn_linger(struct httpd_conn *c)
{
    conn_end_request(c);
    (void)shutdown(c->fd, SHUT_WR);
    conn_set_deadline(c, clock_mono_ms() + HTTPD_DISCARD_MS);
    conn_wait(c, EPOLLIN);
}

static void conn_flush(struct httpd_conn *c)
{
    struct request *r = c->request;

    while (r->stream_at < r->stream.len) {
        ssize_t n =
            send(c->fd, r->stream.data + r->stream_at, r->stream.len - r->stream_at, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            conn_wait(c, EPOLLOUT);
            return;
        }
        if (n < 0) {
            conn_broken(c);
            return;
        }
        r->stream_at += (size_t)n;
    }
    buf_done(&r->stream); /* a quiet stream keeps no buffer */
    r->stream_at = 0;
    if (r->is_stream_over)
        conn_linger(c);
    else
        conn_wait(c, 0);
}

void conn_write(struct httpd_conn *c)
{
    if (c->is_todo)
        return;
    c->is_todo = true;
    c->todo_next = c->httpd->out.todo;
    c->httpd->out.todo = c;
}

void httpd_out_flush(struct httpd *h)
{
    struct httpd_conn *c;

    while ((c = h->out.todo) != NULL) { /* whoever ends may make others write */
        h->out.todo = c->todo_next;
        c->is_todo = false;
        if (c->is_gone)
            conn_free(c);
        else if (c->request != NULL)
            conn_flush(c);
    }
}

static void conn_discard(struct httpd_conn *c)
{
    char waste[4096];
    ssize_t n = recv(c->fd, waste, sizeof(waste), MSG_DONTWAIT);

    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
        conn_gone(c);
}

static void out_on_poll(uv_poll_t *p, int status, int events)
{
    struct httpd *h = container_of(p, struct httpd, out.poll);
    struct epoll_event list[EVENTS_MAX];
    int n = epoll_wait(h->out.epoll_fd, list, EVENTS_MAX, 0);

    (void)status; /* an error of the epoll descriptor shows in epoll_wait as well */
    (void)events;
    for (int i = 0; i < n; i++) {
        struct httpd_conn *c = list[i].data.ptr;

        if (list[i].events & (EPOLLERR | EPOLLHUP))
            conn_broken(c);
        else if (c->request != NULL)
            conn_flush(c);
        else
            conn_discard(c);
    }
}

bool conn_leave(struct httpd_conn *c, struct request *r)
{
    struct httpd *h = c->httpd;
    struct epoll_event e = { .data.ptr = c };
    int fd = fcntl(c->fd, F_DUPFD_CLOEXEC, 0), on = 1;

    if (fd < 0)
        return false;
    if (epoll_ctl(h->out.epoll_fd, EPOLL_CTL_ADD, fd, &e) != 0 || dup2(h->out.blank_fd, c->fd) < 0) {
        close(fd);
        return false;
    }
    (void)fcntl(c->fd, F_SETFD, FD_CLOEXEC);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)); /* else an event waits for the last one's ACK */
    c->fd = fd;
    c->is_out = true;
    c->request = r;
    free(c->uri);
    c->uri = NULL;
    if (r->status != 0)
        conn_write(c);
    return true;
}

/* ---- what goes out */

/* length < 0: chunked, or up to the end of the connection */
static bool request_write_head(struct request *r, int64_t length)
{
    struct buf *to = &r->stream;
    time_t now = (time_t)(clock_wall_ms() / 1000);
    struct tm tm;
    char date[40];
    bool ok;

    gmtime_r(&now, &tm);
    strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", &tm); /* the programs never leave the C locale */
    ok = buf_printf(to, "HTTP/1.1 %d %s\r\nDate: %s\r\nConnection: close\r\n", r->status,
                    MHD_get_reason_phrase_for((unsigned)r->status), date);
    for (size_t i = 0; i < r->header_count; i++) {
        const struct request_header *one = &r->headers[i];

        if (strpbrk(one->value, "\r\n") == NULL) /* as libmicrohttpd, which refuses it */
            ok = ok && buf_printf(to, "%s: %s\r\n", one->name, one->value);
    }
    if (length >= 0 && r->status != 204 && r->status != 304)
        ok = ok && buf_printf(to, "Content-Length: %lld\r\n", (long long)length);
    else if (length < 0 && !r->is_plain)
        ok = ok && buf_str(to, "Transfer-Encoding: chunked\r\n");
    return ok && buf_str(to, "\r\n");
}

/* The answer of one that has left: a stream that is over. */
void request_answer_out(struct request *r, int status, const char *mime, const struct buf *body)
{
    size_t len = body != NULL ? body->len : 0;

    request_set_answer(r, status, mime);
    r->is_stream = r->is_stream_over = true;
    if (!request_write_head(r, (int64_t)len) ||
        (len > 0 && !request_is_head(r) && !buf_add(&r->stream, body->data, len)))
        buf_done(&r->stream); /* out of memory: closed without an answer */
    conn_set_deadline(r->conn, clock_mono_ms() + httpd_answer_ms((int64_t)len));
    conn_write(r->conn);
}

/* Its head waits in memory as what follows does, until the connection has left. */
void request_stream(struct request *r)
{
    r->is_stream = r->is_leaving = true;
    r->stream.ceiling = HTTPD_STREAM_BYTES + FRAME_BYTES;
    request_set_answer(r, 200, "text/event-stream");
    r->is_stream_over = !request_write_head(r, -1);
    if (r->connection != NULL)
        request_wake(r);
    else
        conn_write(r->conn);
}

static void stream_compact(struct request *r) /* what has gone out makes room */
{
    if (r->stream_at == 0)
        return;
    r->stream.len -= r->stream_at;
    memmove(r->stream.data, r->stream.data + r->stream_at, r->stream.len);
    r->stream_at = 0;
}

bool request_stream_write(struct request *r, const char *data, size_t len)
{
    size_t before;
    bool ok;

    if (r->is_stream_over)
        return false;
    stream_compact(r);
    before = r->stream.len;
    r->stream.ceiling = HTTPD_STREAM_BYTES + FRAME_BYTES;
    ok = r->is_plain
             ? buf_add(&r->stream, data, len)
             : buf_printf(&r->stream, "%zx\r\n", len) && buf_add(&r->stream, data, len) && buf_str(&r->stream, "\r\n");
    if (!ok) {
        r->stream.len = before; /* a chunk is in it whole or not at all */
        return false;
    }
    if (r->connection == NULL)
        conn_write(r->conn);
    return true;
}

void request_stream_end(struct request *r)
{
    if (r->is_stream_over)
        return;
    r->is_stream_over = true;
    if (!r->is_plain)
        (void)buf_str(&r->stream, "0\r\n\r\n"); /* no room: the client sees that it was cut */
    conn_set_deadline(r->conn, clock_mono_ms() + HTTPD_DISCARD_MS);
    if (r->connection == NULL)
        conn_write(r->conn);
}

/* ---- start and stop */

bool httpd_out_open(struct httpd *h)
{
    h->out.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    h->out.blank_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    return h->out.epoll_fd >= 0 && h->out.blank_fd >= 0;
}

void httpd_out_start(struct httpd *h)
{
    uv_poll_init(h->config.loop, &h->out.poll, h->out.epoll_fd);
    uv_poll_start(&h->out.poll, UV_READABLE, out_on_poll);
}

void httpd_out_done(struct httpd *h)
{
    if (h->out.epoll_fd >= 0)
        close(h->out.epoll_fd);
    if (h->out.blank_fd >= 0)
        close(h->out.blank_fd);
}

void httpd_out_stop(struct httpd *h)
{
    uv_poll_stop(&h->out.poll);
    for (struct httpd_conn *c = h->conns.next, *next; c != &h->conns; c = next) { /* they linger: each has a deadline */
        next = c->next;
        if (c->is_out && c->request == NULL)
            conn_gone(c);
    }
    httpd_out_flush(h);
}
