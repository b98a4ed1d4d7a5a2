/* httpc_multi.c - curl's multi handles on libuv: one epoll set of their sockets, one timer a multi.
 *
 * Several multis, because curl walks lists: at 10,000 transfers one multi costs three times the CPU of eight
 * (dependencies.md, section 4). A host's calls stay on the multi of its hash, so that connections are reused, until
 * that one has enough; then they go over to the next.
 *
 * The sockets are in an epoll set of their own, which the loop watches as one handle. uv_poll_t asks the kernel four
 * times a call (each change is a removal and an addition), here it is twice for a new connection and once for a kept
 * one, which stays watched while curl has no use for it. */
#define _GNU_SOURCE
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>
#include "common/base/clock.h"
#include "common/io/httpc_inside.h"

enum {
    CALLS_A_MULTI = 64,
    STREAMS_A_MULTI = 300,
    STREAMS_A_CONNECTION = 100,
    GUARDED_CONNECTIONS = 64,
    EVENTS_AT_ONCE = 256,
    IDLE_MS = 120 * 1000, /* longer than any kept connection is used again (httpc_wire.c) */
    IDLE_LOOKS = 60,      /* in that time */
};

struct socket_wait { /* in httpc's line for a spool, first come first served */
    struct socket_wait *prev, *next;
    bool is_waiting;
};

struct socket_watch {
    struct multi *multi; /* NULL: curl wants nothing of it */
    curl_socket_t fd;
    uint32_t wanted, armed;  /* EPOLLIN, EPOLLOUT: by curl; in the kernel, 0: it is not in the set */
    uint64_t left_round;     /* the round of events in which curl had no use for it any more */
    struct httpc_call *call; /* whose answer comes here; of HTTP/2 the last one, and not used */
    struct socket_wait wait;
};

struct watch_room {
    struct socket_watch *by_fd[WATCHES_A_ROOM]; /* NULL until first used, then for good */
};

/* What `armed` says may be old: curl closes sockets whose connecting failed, and its resolver's, without a word. */
static bool watch_arm(struct httpc *h, struct socket_watch *w, uint32_t events)
{
    struct epoll_event event = { .events = events, .data.ptr = w };
    int what = w->armed ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    bool ok;

    if (events == 0) {
        (void)epoll_ctl(h->epoll, EPOLL_CTL_DEL, w->fd, NULL); /* fails only where it is gone */
        w->armed = 0;
        return true;
    }
    ok = epoll_ctl(h->epoll, what, w->fd, &event) == 0 ||
         (what == EPOLL_CTL_MOD && errno == ENOENT && epoll_ctl(h->epoll, EPOLL_CTL_ADD, w->fd, &event) == 0);
    w->armed = ok ? events : 0;
    return ok;
}

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
    struct socket_watch *w = container_of(h->waiting, struct socket_watch, wait);

    wait_remove(h, &w->wait);
    (void)watch_arm(h, w, w->wanted);
    return w->call;
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

static void watch_on_event(struct httpc *h, struct socket_watch *w, uint32_t events)
{
    int flags = events & EPOLLERR ? CURL_CSELECT_ERR : 0;

    if (!w->multi) { /* a kept connection: its end has come, or what nobody asked for */
        (void)watch_arm(h, w, 0);
        return;
    }
    if (!(events & (EPOLLOUT | EPOLLERR)) && w->multi->is_one_a_socket && w->call && wire_wants_spool(w->call)) {
        if (watch_arm(h, w, 0))
            wait_add(h, &w->wait);
        return;
    }
    if (events & (EPOLLIN | EPOLLHUP))
        flags |= CURL_CSELECT_IN;
    if (events & EPOLLOUT)
        flags |= CURL_CSELECT_OUT;
    multi_act(w->multi, w->fd, flags);
}

static void multi_on_ready(uv_poll_t *poll, int status, int what)
{
    struct httpc *h = container_of(poll, struct httpc, ready);
    struct epoll_event events[EVENTS_AT_ONCE];
    int count = epoll_wait(h->epoll, events, EVENTS_AT_ONCE, 0);

    (void)status, (void)what;
    h->round++;
    for (int i = 0; i < count && !h->is_shut; i++) {
        struct socket_watch *w = events[i].data.ptr;

        if (w->left_round != h->round) /* its number may be another's by now, who is heard in the next round */
            watch_on_event(h, w, events[i].events);
    }
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

/* NULL: no memory. A number's place is kept until httpc_close: numbers come again and again. */
static struct socket_watch *watch_of(struct httpc *h, curl_socket_t fd)
{
    size_t room = (size_t)fd / WATCHES_A_ROOM, place = (size_t)fd % WATCHES_A_ROOM;
    struct socket_watch **w;

    if (room >= WATCH_ROOMS || (!h->watches[room] && !(h->watches[room] = calloc(1, sizeof *h->watches[room]))))
        return NULL;
    w = &h->watches[room]->by_fd[place];
    if (!*w && (*w = calloc(1, sizeof **w)))
        (*w)->fd = fd;
    return *w;
}

static void watch_count(struct httpc *h, size_t more, size_t less)
{
    h->watched = h->watched + more - less;
    if (h->watched > 0)
        uv_ref((uv_handle_t *)&h->ready);
    else
        uv_unref((uv_handle_t *)&h->ready); /* kept connections alone keep no loop running */
}

static int multi_on_socket(CURL *easy, curl_socket_t fd, int what, void *ctx, void *assigned)
{
    struct multi *m = ctx;
    struct httpc *h = m->h;
    struct socket_watch *w = assigned;

    if (what == CURL_POLL_REMOVE) {
        if (w) {
            wait_remove(h, &w->wait);
            (void)curl_multi_assign(m->curl, fd, NULL);
            /* of the resolver, or never connected: closed without a word. Over HTTP/2 `call` may be gone by now */
            if (!m->is_one_a_socket || (w->call && !w->call->is_asked))
                (void)watch_arm(h, w, 0);
            w->multi = NULL;
            w->call = NULL;
            w->wanted = 0;
            w->left_round = h->round;
            watch_count(h, 0, 1);
        }
        return 0;
    }
    if (!w) {
        w = watch_of(h, fd);
        if (!w)
            return -1;
        w->multi = m;
        watch_count(h, 1, 0);
        (void)curl_multi_assign(m->curl, fd, w); /* fails only for sockets that curl does not know */
    }
    w->wanted = (what & CURL_POLL_IN ? EPOLLIN : 0) | (what & CURL_POLL_OUT ? EPOLLOUT : 0);
    (void)curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&w->call);
    wait_remove(h, &w->wait); /* curl wants something else of it */
    return watch_arm(h, w, w->wanted) ? 0 : -1;
}

int multi_on_close_socket(void *ctx, curl_socket_t fd)
{
    struct httpc *h = ctx;
    struct watch_room *room = (size_t)fd / WATCHES_A_ROOM < WATCH_ROOMS ? h->watches[fd / WATCHES_A_ROOM] : NULL;
    struct socket_watch *w = room ? room->by_fd[fd % WATCHES_A_ROOM] : NULL;

    if (w) {
        w->armed = 0; /* it leaves the set by itself: no other process has it (close-on-exec) */
        w->left_round = h->round;
    }
    return close(fd);
}

/* What is kept in a multi is looked at by curl when that one has its next call. After a peak most have none for long,
 * and a connection that the server closed would stay half open. One at a look: closing many takes a while. */
static void multi_on_idle(uv_timer_t *timer)
{
    struct httpc *h = container_of(timer, struct httpc, idle);
    int64_t now = clock_mono_ms();

    for (int set = 0; set < SET_COUNT; set++) {
        for (size_t i = 0; i < h->config.multis; i++) {
            struct multi *m = &h->multis[set][i];

            if (m->curl && m->active == 0 && now - m->idle_from_ms >= h->config.idle_ms) {
                (void)curl_multi_cleanup(m->curl);
                (void)uv_timer_stop(&m->timer);
                m->curl = NULL;
                return;
            }
        }
    }
}

bool multi_init(struct httpc *h)
{
    h->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (h->epoll < 0)
        return false;
    if (uv_poll_init(h->loop, &h->ready, h->epoll) != 0) {
        (void)close(h->epoll);
        return false;
    }
    (void)uv_poll_start(&h->ready, UV_READABLE, multi_on_ready); /* cannot fail: the number is nobody else's */
    uv_unref((uv_handle_t *)&h->ready);
    if (h->config.idle_ms <= 0)
        h->config.idle_ms = IDLE_MS;
    (void)uv_timer_init(h->loop, &h->idle); /* neither can fail */
    (void)uv_timer_start(&h->idle, multi_on_idle, (uint64_t)h->config.idle_ms,
                         (uint64_t)h->config.idle_ms / IDLE_LOOKS + 1);
    uv_unref((uv_handle_t *)&h->idle);
    h->handles += 2;
    return true;
}

static bool multi_open(struct httpc *h, struct multi *m, enum set set)
{
    size_t connections = h->config.max_connections;

    m->curl = curl_multi_init();
    if (!m->curl)
        return false;
    if (!m->is_timed) {
        (void)uv_timer_init(h->loop, &m->timer); /* always 0 */
        h->handles++;
    }
    m->h = h;
    m->is_timed = true;
    m->is_one_a_socket = set != SET_H2;
    if (set == SET_GUARDED && connections > GUARDED_CONNECTIONS)
        connections = GUARDED_CONNECTIONS; /* many hosts, each seen a few times: idle connections only cost */
    (void)curl_multi_setopt(m->curl, CURLMOPT_SOCKETFUNCTION, multi_on_socket);
    (void)curl_multi_setopt(m->curl, CURLMOPT_SOCKETDATA, m);
    (void)curl_multi_setopt(m->curl, CURLMOPT_TIMERFUNCTION, multi_on_timeout_wanted);
    (void)curl_multi_setopt(m->curl, CURLMOPT_TIMERDATA, m);
    (void)curl_multi_setopt(m->curl, CURLMOPT_MAXCONNECTS, (long)connections);
    if (set == SET_H2) /* PIPEWAIT alone opens a connection for every transfer beyond the stream limit */
        (void)curl_multi_setopt(m->curl, CURLMOPT_MAX_HOST_CONNECTIONS,
                                (long)(STREAMS_A_MULTI / STREAMS_A_CONNECTION + 1));
    return true;
}

/* On HTTP/1.1 curl walks past every connection in use to find one that is not: few calls each as long as there are
 * multis, then as many on all of them. */
static struct multi *multi_pick(struct httpc *h, const struct host *host, enum set set)
{
    size_t count = h->config.multis, least = 0, full = set == SET_H2 ? STREAMS_A_MULTI : CALLS_A_MULTI;

    for (size_t i = 0; i < count; i++) {
        size_t at = (size_t)((host->hash + i) % count);
        if (h->multis[set][at].active < full)
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
    if (--call->multi->active == 0)
        call->multi->idle_from_ms = clock_mono_ms();
    call->multi = NULL;
}

static void multi_on_timer_closed(uv_handle_t *handle)
{
    struct multi *m = container_of((uv_timer_t *)handle, struct multi, timer);
    m->h->handles--;
}

static void multi_on_idle_closed(uv_handle_t *handle)
{
    container_of((uv_timer_t *)handle, struct httpc, idle)->handles--;
}

static void multi_on_ready_closed(uv_handle_t *handle)
{
    struct httpc *h = container_of((uv_poll_t *)handle, struct httpc, ready);

    (void)close(h->epoll);
    h->handles--;
}

void multi_shut(struct httpc *h)
{
    for (int set = 0; set < SET_COUNT; set++) {
        for (size_t i = 0; i < h->config.multis; i++) {
            struct multi *m = &h->multis[set][i];
            if (m->curl)
                (void)curl_multi_cleanup(m->curl); /* closes the connections: POLL_REMOVE for each */
            if (m->is_timed)
                uv_close((uv_handle_t *)&m->timer, multi_on_timer_closed);
        }
    }
    for (size_t room = 0; room < WATCH_ROOMS; room++) {
        for (size_t i = 0; h->watches[room] && i < WATCHES_A_ROOM; i++)
            free(h->watches[room]->by_fd[i]);
        free(h->watches[room]);
        h->watches[room] = NULL;
    }
    uv_close((uv_handle_t *)&h->idle, multi_on_idle_closed);
    uv_close((uv_handle_t *)&h->ready, multi_on_ready_closed);
}
