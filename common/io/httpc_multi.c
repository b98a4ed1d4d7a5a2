/* httpc_multi.c - curl's multi handles on libuv: one uv_poll a socket, one timer a multi.
 *
 * Several multis, because curl walks lists: at 10,000 transfers one multi costs three times the CPU of eight
 * (dependencies.md, section 4). A host's calls stay on the multi of its hash, so that connections are reused, until
 * that one is full; then they go over to the next. */
#include <assert.h>
#include <stdlib.h>
#include "common/base/clock.h"
#include "common/io/httpc_inside.h"

enum { CALLS_A_MULTI = 300, STREAMS_A_CONNECTION = 100, GUARDED_CONNECTIONS = 64 };

struct socket_wait { /* in httpc's line for a spool, first come first served */
    struct socket_wait *prev, *next;
    bool is_waiting;
};

struct socket_poll {
    uv_poll_t poll;
    struct multi *multi;
    curl_socket_t fd;
    int events;
    struct httpc_call *call; /* whose answer comes here; of HTTP/2 the last one, and not used */
    struct socket_wait wait;
};

static void socket_poll_on_ready(uv_poll_t *poll, int status, int events);

/* ---- an answer for which there is no room yet stays in its socket: the network holds it back, and nothing is written
 * or hashed on the loop. */

static void wait_add(struct httpc *h, struct socket_wait *w)
{
    w->is_waiting = true;
    w->next = NULL;
    w->prev = h->waiting_last;
    if (w->prev) {
        w->prev->next = w;
    } else {
        h->waiting = w;
        h->spool_given_ms = clock_mono_ms();
        (void)uv_timer_again(&h->stall); /* has its period since httpc_new */
    }
    h->waiting_last = w;
}

static void wait_remove(struct httpc *h, struct socket_wait *w)
{
    if (!w->is_waiting)
        return;
    w->is_waiting = false;
    if (w->prev)
        w->prev->next = w->next;
    else
        h->waiting = w->next;
    if (w->next)
        w->next->prev = w->prev;
    else
        h->waiting_last = w->prev;
}

/* Takes the first out of the line; its socket is looked at again, now or (no memory for that) at the call's timeout. */
static struct httpc_call *wait_take(struct httpc *h)
{
    struct socket_poll *p = container_of(h->waiting, struct socket_poll, wait);

    wait_remove(h, &p->wait);
    (void)uv_poll_start(&p->poll, p->events, socket_poll_on_ready);
    return p->call;
}

void multi_give_spool(struct httpc *h, char *spool)
{
    struct httpc_call *call = wait_take(h);

    h->spool_given_ms = clock_mono_ms();
    call->spool = spool;
    call->spool_len = 0;
}

void multi_let_through(struct httpc *h)
{
    while (h->waiting)
        wait_take(h)->is_let_through = true;
}

static void socket_poll_on_closed(uv_handle_t *handle)
{
    struct socket_poll *p = container_of((uv_poll_t *)handle, struct socket_poll, poll);
    p->multi->h->handles--;
    free(p);
}

/* curl's messages name finished transfers; they are removed here and judged in httpc.c. */
static void multi_drain(struct multi *m)
{
    CURLMsg *message;
    int left;

    while ((message = curl_multi_info_read(m->curl, &left)) != NULL) {
        struct httpc_call *call = NULL;
        CURLcode code = message->data.result; /* the message is gone once the handle is removed */
        if (message->msg != CURLMSG_DONE)
            continue;
        (void)curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&call);
        httpc_on_result(call, code);
    }
}

static void multi_act(struct multi *m, curl_socket_t fd, int events)
{
    struct httpc *h = m->h;
    int running;
    CURLMcode code = curl_multi_socket_action(m->curl, fd, events, &running);

    assert(code == CURLM_OK); /* anything else is a wrong use of ours */
    multi_drain(m);
    httpc_deliver(h);
}

static void socket_poll_on_ready(uv_poll_t *poll, int status, int events)
{
    struct socket_poll *p = container_of(poll, struct socket_poll, poll);
    int flags = status < 0 ? CURL_CSELECT_ERR : 0;

    if (status == 0 && events == UV_READABLE && p->multi->is_one_a_socket && p->call && wire_wants_spool(p->call)) {
        (void)uv_poll_stop(poll); /* never fails */
        wait_add(p->multi->h, &p->wait);
        return;
    }
    if (events & UV_READABLE)
        flags |= CURL_CSELECT_IN;
    if (events & UV_WRITABLE)
        flags |= CURL_CSELECT_OUT;
    multi_act(p->multi, p->fd, flags);
}

static void multi_on_timer(uv_timer_t *timer)
{
    multi_act(container_of(timer, struct multi, timer), CURL_SOCKET_TIMEOUT, 0);
}

static int multi_on_timeout_wanted(CURLM *curl, long timeout_ms, void *ctx)
{
    struct multi *m = ctx;
    int status = 0;

    (void)curl;
    if (timeout_ms < 0)
        status = uv_timer_stop(&m->timer);
    else if (!uv_is_closing((uv_handle_t *)&m->timer))
        status = uv_timer_start(&m->timer, multi_on_timer, (uint64_t)timeout_ms, 0); /* 0: next turn, never from here */
    return status == 0 ? 0 : -1;
}

static void socket_poll_drop(struct multi *m, struct socket_poll *p, curl_socket_t fd)
{
    wait_remove(m->h, &p->wait);
    (void)uv_poll_stop(&p->poll); /* curl closes the socket right after; never fails */
    (void)curl_multi_assign(m->curl, fd, NULL);
    uv_close((uv_handle_t *)&p->poll, socket_poll_on_closed);
}

static int multi_on_socket(CURL *easy, curl_socket_t fd, int what, void *ctx, void *assigned)
{
    struct multi *m = ctx;
    struct socket_poll *p = assigned;
    int events = 0;

    if (what == CURL_POLL_REMOVE) {
        if (p)
            socket_poll_drop(m, p, fd);
        return 0;
    }
    if (!p) {
        p = calloc(1, sizeof *p);
        if (!p)
            return -1;
        if (uv_poll_init_socket(m->h->loop, &p->poll, fd) != 0) {
            free(p);
            return -1;
        }
        p->multi = m;
        p->fd = fd;
        m->h->handles++;
        (void)curl_multi_assign(m->curl, fd, p); /* fails only for sockets that curl does not know */
    }
    if (what & CURL_POLL_IN)
        events |= UV_READABLE;
    if (what & CURL_POLL_OUT)
        events |= UV_WRITABLE;
    (void)curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&p->call);
    p->events = events;
    wait_remove(m->h, &p->wait); /* curl wants something else of it */
    return (events ? uv_poll_start(&p->poll, events, socket_poll_on_ready) : uv_poll_stop(&p->poll)) == 0 ? 0 : -1;
}

static bool multi_open(struct httpc *h, struct multi *m, enum set set)
{
    size_t connections = h->config.max_connections;

    m->curl = curl_multi_init();
    if (!m->curl)
        return false;
    if (uv_timer_init(h->loop, &m->timer) != 0) {
        curl_multi_cleanup(m->curl);
        m->curl = NULL;
        return false;
    }
    m->h = h;
    m->is_one_a_socket = set != SET_H2;
    h->handles++;
    if (set == SET_GUARDED && connections > GUARDED_CONNECTIONS)
        connections = GUARDED_CONNECTIONS; /* many hosts, each seen a few times: idle connections only cost */
    (void)curl_multi_setopt(m->curl, CURLMOPT_SOCKETFUNCTION, multi_on_socket);
    (void)curl_multi_setopt(m->curl, CURLMOPT_SOCKETDATA, m);
    (void)curl_multi_setopt(m->curl, CURLMOPT_TIMERFUNCTION, multi_on_timeout_wanted);
    (void)curl_multi_setopt(m->curl, CURLMOPT_TIMERDATA, m);
    (void)curl_multi_setopt(m->curl, CURLMOPT_MAXCONNECTS, (long)connections);
    if (set == SET_H2) /* PIPEWAIT alone opens a connection for every transfer beyond the stream limit */
        (void)curl_multi_setopt(m->curl, CURLMOPT_MAX_HOST_CONNECTIONS,
                                (long)(CALLS_A_MULTI / STREAMS_A_CONNECTION + 1));
    return true;
}

static struct multi *multi_pick(struct httpc *h, const struct host *host, enum set set)
{
    size_t count = h->config.multis, least = 0;

    for (size_t i = 0; i < count; i++) {
        size_t at = (size_t)((host->hash + i) % count);
        if (h->multis[set][at].active < CALLS_A_MULTI)
            return &h->multis[set][at];
        if (i == 0 || h->multis[set][at].active < h->multis[set][least].active)
            least = at;
    }
    return &h->multis[set][least];
}

enum err multi_start(struct httpc_call *call, enum set set)
{
    struct multi *m = multi_pick(call->h, call->host, set);

    if (!m->curl && !multi_open(call->h, m, set))
        return ERR_NOMEM;
    if (curl_multi_add_handle(m->curl, call->easy) != CURLM_OK)
        return ERR_NOMEM;
    m->active++;
    call->multi = m;
    call->state = CALL_FLYING;
    return ERR_OK;
}

void multi_stop(struct httpc_call *call)
{
    CURLMcode code = curl_multi_remove_handle(call->multi->curl, call->easy);
    assert(code == CURLM_OK); /* refused only inside curl's callbacks, where we never are */
    call->multi->active--;
    call->multi = NULL;
}

static void multi_on_timer_closed(uv_handle_t *handle)
{
    struct multi *m = container_of((uv_timer_t *)handle, struct multi, timer);
    m->h->handles--;
}

void multi_shut(struct httpc *h)
{
    for (int set = 0; set < SET_COUNT; set++) {
        for (size_t i = 0; i < h->config.multis; i++) {
            struct multi *m = &h->multis[set][i];
            if (!m->curl)
                continue;
            (void)curl_multi_cleanup(m->curl); /* closes the connections: POLL_REMOVE for each */
            uv_close((uv_handle_t *)&m->timer, multi_on_timer_closed);
        }
    }
}
