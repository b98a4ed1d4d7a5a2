/* db_conn.c - a libpq connection on the loop: look the name up, connect, watch the socket, let go.
 *
 * The order in which things end is what matters here: the uv_poll handle is closed before libpq closes the socket under
 * it, and a handle or look-up that cannot end at once forgets whom it served. */
#include <stdlib.h>
#include "common/base/text.h"
#include "common/io/db_inner.h"

/* libpq may change the socket while it connects; a handle that is closing outlives the change. */
struct db_poll {
    uv_poll_t handle;
    struct db_conn *conn; /* NULL once let go */
    int fd, events;
};

/* A look-up cannot always be taken back; it may answer when nobody waits any more. */
struct db_lookup {
    uv_getaddrinfo_t request;
    struct db_conn *conn; /* NULL once let go */
};

/* --- the socket --- */

static void poll_on_closed(uv_handle_t *handle)
{
    struct db_poll *p = container_of((uv_poll_t *)handle, struct db_poll, handle);
    free(p);
}

static void poll_drop(struct db_conn *c)
{
    if (!c->poll)
        return;
    c->poll->conn = NULL;
    uv_close((uv_handle_t *)&c->poll->handle, poll_on_closed);
    c->poll = NULL;
}

static bool poll_take(struct db_conn *c)
{
    int fd = PQsocket(c->pg);
    if (c->poll && c->poll->fd == fd)
        return true;
    poll_drop(c);
    struct db_poll *p = fd < 0 ? NULL : malloc(sizeof *p);
    if (!p)
        return false;
    *p = (struct db_poll){ .conn = c, .fd = fd };
    if (uv_poll_init(c->loop, &p->handle, fd) != 0) {
        free(p);
        return false;
    }
    c->poll = p;
    return true;
}

static void poll_on_event(uv_poll_t *handle, int status, int events);

static bool poll_watch(struct db_conn *c, int events)
{
    if (c->poll->events == events)
        return true; /* uv_poll_start costs two system calls */
    c->poll->events = events;
    return uv_poll_start(&c->poll->handle, events, poll_on_event) == 0;
}

bool db_conn_flush(struct db_conn *c)
{
    int left = PQflush(c->pg);
    return left >= 0 && poll_watch(c, UV_READABLE | (left == 1 ? UV_WRITABLE : 0));
}

/* --- connecting --- */

static void on_notice(void *arg, const PGresult *result)
{
    (void)arg;
    (void)result; /* NOTICEs are for people at a terminal */
}

static void conn_go_on(struct db_conn *c, PostgresPollingStatusType next)
{
    static const char unwatched[] = "the socket cannot be watched";

    if (next == PGRES_POLLING_FAILED) {
        c->on_lost(c, PQerrorMessage(c->pg));
    } else if (!poll_take(c) || !poll_watch(c, next == PGRES_POLLING_WRITING ? UV_WRITABLE : UV_READABLE)) {
        c->on_lost(c, unwatched);
    } else if (next == PGRES_POLLING_OK) {
        PQsetnonblocking(c->pg, 1);
        PQsetNoticeReceiver(c->pg, on_notice, NULL);
        c->is_up = true;
        c->on_up(c);
    }
}

static void poll_on_event(uv_poll_t *handle, int status, int events)
{
    struct db_conn *c = container_of(handle, struct db_poll, handle)->conn;

    if (!c)
        return;
    if (!c->is_up) {
        /* PQconnectPoll may close the socket and open another under the same number: libuv must not think that it
         * still watches it (it aborts when the kernel knows better). */
        uv_poll_stop(handle);
        c->poll->events = 0;
        conn_go_on(c, PQconnectPoll(c->pg));
    } else if (status < 0) {
        c->on_lost(c, uv_strerror(status));
    } else if ((events & UV_WRITABLE) && !db_conn_flush(c)) {
        c->on_lost(c, PQerrorMessage(c->pg));
    } else if (events & UV_READABLE) {
        c->on_readable(c);
    }
}

static void conn_start(struct db_conn *c)
{
    c->pg = PQconnectStartParams(c->options.keywords, c->options.values, 0);
    if (!c->pg || PQstatus(c->pg) == CONNECTION_BAD) /* a missing unix socket is known at once */
        c->on_lost(c, c->pg ? PQerrorMessage(c->pg) : "out of memory");
    else
        conn_go_on(c, PGRES_POLLING_WRITING);
}

static void lookup_on_answer(uv_getaddrinfo_t *request, int status, struct addrinfo *list)
{
    struct db_lookup *l = container_of(request, struct db_lookup, request);
    struct db_conn *c = l->conn;

    free(l);
    if (c) {
        c->lookup = NULL;
        if (status < 0)
            c->on_lost(c, uv_strerror(status));
        else if (!db_options_set_addresses(&c->options, list))
            c->on_lost(c, "the host has no address");
        else
            conn_start(c);
    }
    uv_freeaddrinfo(list);
}

static bool conn_look_up(struct db_conn *c, const char *host)
{
    struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };

    c->lookup = calloc(1, sizeof *c->lookup);
    if (!c->lookup)
        return false;
    c->lookup->conn = c;
    if (uv_getaddrinfo(c->loop, &c->lookup->request, lookup_on_answer, host, NULL, &hints) == 0)
        return true;
    free(c->lookup);
    c->lookup = NULL;
    return false;
}

void db_conn_open(struct db_conn *c, int statement_timeout_ms)
{
    if (!db_options_read(&c->options, c->url, c->name)) {
        c->on_lost(c, "out of memory");
        return;
    }
    db_options_session(&c->options, statement_timeout_ms);
    const char *host = db_options_host(&c->options);
    if (!host)
        conn_start(c);
    else if (!conn_look_up(c, host))
        c->on_lost(c, "out of memory");
}

void db_conn_drop(struct db_conn *c)
{
    if (c->lookup) {
        c->lookup->conn = NULL;
        (void)uv_cancel((uv_req_t *)&c->lookup->request); /* where that fails it answers to nobody */
        c->lookup = NULL;
    }
    c->is_up = false;
    poll_drop(c);
    PQfinish(c->pg);
    c->pg = NULL;
    db_options_done(&c->options);
}
