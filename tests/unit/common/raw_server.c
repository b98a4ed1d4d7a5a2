/* raw_server.c - the server of raw_server.h: poll(2) over all connections, answers written at once. */
#include "raw_server.h"
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "common/base/text.h"

enum { CONNECTIONS = 4096, LAST_MAX = 256 * 1024 };

struct connection {
    struct buf in, out;
    size_t written;
    int requests;
    size_t piece;              /* most that is written at a time; 0: all */
    bool is_gated, is_closing; /* closing: when `out` is written */
};

struct raw_server {
    pthread_t thread;
    pthread_mutex_t lock; /* of the four below */
    int requests, connections;
    char *last;
    size_t last_len;
    int listener, stop[2], port;
    struct pollfd polls[CONNECTIONS]; /* 0 the listener, 1 stop */
    struct connection *all[CONNECTIONS];
    nfds_t count;
    int gated;
};

static void answer(struct connection *c, int status, const char *extra, const char *body, size_t len)
{
    buf_printf(&c->out, "HTTP/1.1 %d X\r\nContent-Length: %zu\r\nX-Mixed-Case:  Value \r\n%s\r\n", status, len, extra);
    buf_add(&c->out, body, len);
}

static void filler(struct buf *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char c = (char)('a' + i % 26);
        buf_add(out, &c, 1);
    }
}

static void open_gate(struct raw_server *s)
{
    for (nfds_t i = 2; i < s->count; i++) {
        if (s->all[i]->is_gated)
            answer(s->all[i], 200, "", "through", 7);
        s->all[i]->is_gated = false;
    }
    s->gated = 0;
}

/* Odd pieces cut through headers and chunk sizes. */
static void open_turns(struct raw_server *s)
{
    for (nfds_t i = 2; i < s->count; i++) {
        struct connection *c = s->all[i];
        size_t n = 3000 + 137 * (size_t)i, half = n / 2;
        char *bytes = malloc(n);

        if (c->is_gated) {
            memset(bytes, 'A' + (int)(i % 26), n);
            buf_printf(&c->out, "HTTP/1.1 200 OK\r\nX-Byte: %c\r\nX-Bytes: %zu\r\n", bytes[0], n);
            if (i % 2) {
                buf_printf(&c->out, "Transfer-Encoding: chunked\r\n\r\n%zx\r\n", half);
                buf_add(&c->out, bytes, half);
                buf_printf(&c->out, "\r\n%zx\r\n", n - half);
                buf_add(&c->out, bytes, n - half);
                buf_printf(&c->out, "\r\n0\r\n\r\n");
            } else {
                buf_printf(&c->out, "Content-Length: %zu\r\n\r\n", n);
                buf_add(&c->out, bytes, n);
            }
            c->piece = 61 + (size_t)i % 7;
            c->is_gated = false;
        }
        free(bytes);
    }
    s->gated = 0;
}

static void respond(struct raw_server *s, struct connection *c, const char *path, const char *body, size_t len)
{
    static const char whole[RAW_SERVER_CUT_TOTAL + 1] = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789";
    const char *arg = strchr(path, '?');
    size_t n = arg ? strtoul(arg + 1, NULL, 10) : 0, name = strcspn(path, "? ");
#define IS(p) (name == strlen(p) && memcmp(path, p, name) == 0)

    if (IS("/echo")) {
        answer(c, 200, "", body, len);
    } else if (IS("/bytes") || IS("/length")) {
        buf_printf(&c->out, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", n);
        filler(&c->out, n);
    } else if (IS("/chunked")) {
        buf_printf(&c->out, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        for (; n >= 1000; n -= 1000) {
            buf_printf(&c->out, "3e8\r\n");
            filler(&c->out, 1000);
            buf_printf(&c->out, "\r\n");
        }
        buf_printf(&c->out, "0\r\n\r\n");
    } else if (IS("/cut")) {
        buf_add(&c->out, whole, n);
        c->is_closing = true;
    } else if (IS("/again") && c->requests > 1) {
        c->is_closing = true;
    } else if (IS("/hang")) {
        return;
    } else if (IS("/stall")) {
        buf_printf(&c->out, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf");
    } else if (IS("/gate") || IS("/turns")) {
        c->is_gated = true;
        if ((size_t)++s->gated == n && path[1] == 'g')
            open_gate(s);
        else if ((size_t)s->gated == n)
            open_turns(s);
    } else if (IS("/status")) {
        answer(c, (int)n, "", "said so", 7);
    } else {
        answer(c, 200, "", "{\"ok\":true}", 11);
    }
#undef IS
}

static bool take_request(struct raw_server *s, struct connection *c)
{
    char *end = c->in.data ? strstr(c->in.data, "\r\n\r\n") : NULL, *length;
    size_t head, len = 0;

    if (!end)
        return false;
    head = (size_t)(end + 4 - c->in.data);
    length = strstr(c->in.data, "Content-Length: ");
    if (length && length < end)
        len = strtoul(length + 16, NULL, 10);
    if (c->in.len < head + len)
        return false;
    c->requests++;
    pthread_mutex_lock(&s->lock);
    s->requests++;
    s->last_len = head + len < LAST_MAX ? head + len : LAST_MAX;
    memcpy(s->last, c->in.data, s->last_len);
    pthread_mutex_unlock(&s->lock);
    respond(s, c, strchr(c->in.data, ' ') + 1, c->in.data + head, len);
    memmove(c->in.data, c->in.data + head + len, c->in.len - head - len + 1);
    c->in.len -= head + len;
    return true;
}

/* false: the connection is over */
static bool serve(struct raw_server *s, struct connection *c, int fd, int revents)
{
    static char chunk[65536];
    ssize_t n;

    if (revents & (POLLIN | POLLHUP | POLLERR)) {
        n = recv(fd, chunk, sizeof chunk, 0);
        if (n == 0 || (n < 0 && errno != EAGAIN))
            return false;
        if (n > 0)
            buf_add(&c->in, chunk, (size_t)n);
        if (c->in.len && c->in.data[0] == 0x16) /* TLS is not spoken here */
            return false;
        while (take_request(s, c))
            ;
    }
    return true;
}

static bool flush_out(struct connection *c, int fd)
{
    while (c->written < c->out.len) {
        size_t left = c->out.len - c->written;
        ssize_t n = send(fd, c->out.data + c->written, c->piece && c->piece < left ? c->piece : left, MSG_NOSIGNAL);

        if (n < 0)
            return errno == EAGAIN;
        c->written += (size_t)n;
        if (c->piece && c->written < c->out.len)
            return true; /* the others' turn */
    }
    buf_done(&c->out);
    c->written = 0;
    return !c->is_closing;
}

static void drop(struct raw_server *s, nfds_t i)
{
    close(s->polls[i].fd);
    buf_done(&s->all[i]->in);
    buf_done(&s->all[i]->out);
    free(s->all[i]);
    s->count--;
    s->polls[i] = s->polls[s->count];
    s->all[i] = s->all[s->count];
}

static void accept_all(struct raw_server *s)
{
    int fd;

    while (s->count < CONNECTIONS && (fd = accept(s->listener, NULL, NULL)) >= 0) {
        fcntl(fd, F_SETFL, O_NONBLOCK);
        s->polls[s->count] = (struct pollfd){ .fd = fd };
        s->all[s->count++] = calloc(1, sizeof(struct connection));
        pthread_mutex_lock(&s->lock);
        s->connections++;
        pthread_mutex_unlock(&s->lock);
    }
}

static void *run(void *arg)
{
    struct raw_server *s = arg;

    for (;;) {
        for (nfds_t i = 2; i < s->count; i++)
            s->polls[i].events = (short)(POLLIN | (s->all[i]->out.len > s->all[i]->written ? POLLOUT : 0));
        (void)poll(s->polls, s->count, -1);
        if (s->polls[1].revents)
            break;
        for (nfds_t i = s->count; i-- > 2;) {
            if (s->polls[i].revents && !serve(s, s->all[i], s->polls[i].fd, s->polls[i].revents))
                drop(s, i);
        }
        for (nfds_t i = s->count; i-- > 2;) {
            if ((s->all[i]->out.len || s->all[i]->is_closing) && !flush_out(s->all[i], s->polls[i].fd))
                drop(s, i);
        }
        if (s->polls[0].revents)
            accept_all(s);
    }
    while (s->count > 2)
        drop(s, s->count - 1);
    return NULL;
}

struct raw_server *raw_server_start(void)
{
    struct raw_server *s = calloc(1, sizeof *s);
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof at;

    s->last = calloc(1, LAST_MAX);
    s->listener = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert(bind(s->listener, (struct sockaddr *)&at, sizeof at) == 0 && listen(s->listener, 4096) == 0);
    cr_assert_eq(getsockname(s->listener, (struct sockaddr *)&at, &len), 0);
    cr_assert_eq(pipe(s->stop), 0);
    fcntl(s->listener, F_SETFL, O_NONBLOCK);
    s->port = ntohs(at.sin_port);
    s->polls[0] = (struct pollfd){ .fd = s->listener, .events = POLLIN };
    s->polls[1] = (struct pollfd){ .fd = s->stop[0], .events = POLLIN };
    s->count = 2;
    pthread_mutex_init(&s->lock, NULL);
    cr_assert_eq(pthread_create(&s->thread, NULL, run, s), 0);
    return s;
}

void raw_server_stop(struct raw_server *s)
{
    cr_assert_eq(write(s->stop[1], "x", 1), 1);
    pthread_join(s->thread, NULL);
    close(s->listener);
    close(s->stop[0]);
    close(s->stop[1]);
    free(s->last);
    free(s);
}

int raw_server_port(const struct raw_server *s)
{
    return s->port;
}

int raw_server_requests(struct raw_server *s)
{
    pthread_mutex_lock(&s->lock);
    int n = s->requests;
    pthread_mutex_unlock(&s->lock);
    return n;
}

int raw_server_connections(struct raw_server *s)
{
    pthread_mutex_lock(&s->lock);
    int n = s->connections;
    pthread_mutex_unlock(&s->lock);
    return n;
}

void raw_server_last(struct raw_server *s, char *out, size_t size)
{
    pthread_mutex_lock(&s->lock);
    size_t n = s->last_len < size - 1 ? s->last_len : size - 1;
    memcpy(out, s->last, n);
    out[n] = 0;
    pthread_mutex_unlock(&s->lock);
}

int raw_server_closed_port(void)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&at, &len), 0);
    close(fd);
    return ntohs(at.sin_port);
}
