/* redis.c - one Redis connection on the loop that comes back by itself.
 *
 * A connection has a life: name looked up, connected, set up (AUTH, SELECT, INFO, SCRIPT LOAD, SUBSCRIBE), up. Any
 * failure ends that life and a timer begins the next. Whoever frees the hiredis context marks the state first, since
 * hiredis answers all that is pending from inside (dependencies.md, section 3). Commands live in a list of our own, in
 * the order they were sent: hiredis has no time-outs. What a turn of the loop has issued is written at its end by one
 * call; to wait until the socket takes bytes, which nearly always it does, would be four more and another turn. */
#include "common/io/redis.h"

#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <hiredis/async.h>

#include "common/base/log.h"
#include "common/base/failpoint.h"
#include "common/base/text.h"
#include "common/io/redis_url.h"

enum { CONNECT_MS = 5000, BACKOFF_MIN_MS = 50, BACKOFF_MAX_MS = 2000, ADDRESSES_MAX = 8, SHA1_HEX = 41 };

enum phase { PHASE_WAITING, PHASE_LOOKUP, PHASE_CONNECTING, PHASE_SETUP, PHASE_UP, PHASE_CLOSING };

struct link { /* the adapter between one hiredis context and libuv; freed when its handle has closed */
    uv_poll_t poll;
    struct redis *redis;
    redisAsyncContext *ac; /* NULL: hiredis has let go */
    int events;
};

struct call {
    struct call *prev, *next;
    struct redis *redis;
    redis_fn *fn; /* NULL: nobody wants the answer */
    void *ctx;
    uint64_t sent_ms;
    char *wire; /* the formatted command; kept for scripts, to repeat it */
    size_t wire_len;
    size_t script;
    bool is_script, was_repeated;
};

struct call_list {
    struct call *head, *tail;
};

struct redis {
    uv_loop_t *loop;
    struct redis_config config;
    char *channel;
    struct redis_url url;
    enum phase phase;
    redisAsyncContext *ac;
    unsigned attempts; /* since it was last up */
    size_t setup_left;
    char (*sha)[SHA1_HEX];
    char run_id[64];
    struct call_list sent, refused;
    uv_timer_t timer;   /* by phase: the next attempt, the end of this one's patience, the oldest command's */
    uv_timer_t soon;    /* next turn of the loop: answers for refused commands; closing */
    uv_prepare_t flush; /* before the loop sleeps: writes what this turn has issued */
    bool is_flush_due;
    uv_getaddrinfo_t lookup;
    bool is_looking_up;
    size_t open_handles; /* links, timers, lookup: the memory goes with the last */
    void (*on_closed)(void *ctx);
    void *closed_ctx;
};

static void redis_on_timer(uv_timer_t *t);
static void redis_on_soon(uv_timer_t *t);
static void redis_ended(struct redis *r, const char *why);

/* There is no honest answer to a caller when a few hundred bytes are missing: the process ends, PostgreSQL knows all.
 */
static void *must_alloc(size_t size)
{
    void *p = calloc(1, size);
    if (!p)
        abort();
    return p;
}

static char *must_copy(const char *s, size_t len)
{
    char *copy = must_alloc(len + 1);
    memcpy(copy, s, len);
    return copy;
}

/* --- calls -------------------------------------------------------------------------------------------------------- */

static void list_push(struct call_list *l, struct call *c)
{
    c->prev = l->tail;
    c->next = NULL;
    *(l->tail ? &l->tail->next : &l->head) = c;
    l->tail = c;
}

static void list_remove(struct call_list *l, struct call *c)
{
    *(c->prev ? &c->prev->next : &l->head) = c->next;
    *(c->next ? &c->next->prev : &l->tail) = c->prev;
}

static void call_answer(struct call *c, enum err err, const redisReply *reply) /* once, and it is gone */
{
    redis_fn *fn = c->fn;
    void *ctx = c->ctx;
    if (c->wire)
        redisFreeCommand(c->wire);
    free(c);
    if (fn)
        fn(ctx, err, reply);
}

static void call_refuse(struct call *c)
{
    list_push(&c->redis->refused, c);
    if (!uv_is_active((uv_handle_t *)&c->redis->soon) && c->redis->phase != PHASE_CLOSING)
        (void)uv_timer_start(&c->redis->soon, redis_on_soon, 0, 0); /* fails only on a closing handle */
}

static void redis_on_overdue(struct redis *r) /* arms the timer for the oldest command, or acts on it */
{
    struct call *oldest = r->sent.head;
    uint64_t patience = (uint64_t)r->config.command_timeout_ms, now = uv_now(r->loop);

    if (!oldest || patience == 0)
        return;
    if (now - oldest->sent_ms >= patience)
        redis_ended(r, "a command was not answered in time");
    else
        (void)uv_timer_start(&r->timer, redis_on_timer, patience - (now - oldest->sent_ms), 0);
}

static void call_on_reply(redisAsyncContext *ac, void *reply_, void *data);

static void call_send(struct call *c)
{
    struct redis *r = c->redis;
    if (!r->ac || redisAsyncFormattedCommand(r->ac, call_on_reply, c, c->wire, c->wire_len) != REDIS_OK) {
        call_refuse(c);
        return;
    }
    c->sent_ms = uv_now(r->loop);
    list_push(&r->sent, c);
    if (!c->is_script) {
        redisFreeCommand(c->wire);
        c->wire = NULL;
    }
    if (r->phase == PHASE_UP && r->config.command_timeout_ms > 0 && !uv_is_active((uv_handle_t *)&r->timer))
        redis_on_overdue(r);
}

static struct call *call_new(struct redis *r, redis_fn *fn, void *ctx, int argc, const char *const *argv,
                             const size_t *lens)
{
    struct call *c = must_alloc(sizeof(*c));
    int len = redisFormatCommandArgv(&c->wire, argc, (const char **)(uintptr_t)argv, lens); /* takes no const */
    if (len < 0)
        abort();
    c->wire_len = (size_t)len;
    c->redis = r;
    c->fn = fn;
    c->ctx = ctx;
    return c;
}

static void load_script(struct redis *r, size_t index, redis_fn *fn)
{
    const char *argv[] = { "SCRIPT", "LOAD", r->config.scripts[index].source };
    call_send(call_new(r, fn, r, 3, argv, NULL));
}

static void call_on_reply(redisAsyncContext *ac, void *reply_, void *data)
{
    const redisReply *reply = reply_;
    struct call *c = data;
    struct redis *r = c->redis;

    list_remove(&r->sent, c);
    if (reply && c->is_script && FAILPOINT_OF("redis", r->config.scripts[c->script].name, "after", ac->c.fd))
        reply = NULL; /* done, and nobody is told */
    if (!reply) {
        call_answer(c, r->phase == PHASE_CLOSING ? ERR_CLOSED : ERR_LOST, NULL);
    } else if (reply->type != REDIS_REPLY_ERROR) {
        call_answer(c, ERR_OK, reply);
    } else if (c->is_script && !c->was_repeated && strncmp(reply->str, "NOSCRIPT", 8) == 0 && r->phase == PHASE_UP) {
        c->was_repeated = true; /* somebody flushed the scripts; nothing of this one was done */
        load_script(r, c->script, NULL);
        call_send(c);
    } else {
        call_answer(c, ERR_REFUSED, reply);
    }
}

void redis_command(struct redis *r, redis_fn *fn, void *ctx, int argc, const char *const *argv, const size_t *lens)
{
    struct call *c = call_new(r, fn, ctx, argc, argv, lens);
    if (r->phase == PHASE_UP)
        call_send(c);
    else
        call_refuse(c);
}

void redis_eval(struct redis *r, size_t index, redis_fn *fn, void *ctx, int keys, int argc, const char *const *argv,
                const size_t *lens)
{
    size_t count = (size_t)argc + 3;
    const char **all = must_alloc(count * sizeof(*all));
    size_t *all_lens = must_alloc(count * sizeof(*all_lens));
    char number[16];

    assert(index < r->config.script_count);
    (void)snprintf(number, sizeof(number), "%d", keys);
    all[0] = "EVALSHA";
    all[1] = r->sha[index];
    all[2] = number;
    for (size_t i = 0; i < count; i++) {
        all[i] = i < 3 ? all[i] : argv[i - 3];
        all_lens[i] = i < 3 || !lens ? strlen(all[i]) : lens[i - 3];
    }
    struct call *c = call_new(r, fn, ctx, (int)count, all, all_lens);
    free(all);
    free(all_lens);
    c->is_script = true;
    c->script = index;
    if (r->phase == PHASE_UP && !FAILPOINT_OF("redis", r->config.scripts[index].name, "before", r->ac->c.fd))
        call_send(c);
    else
        call_refuse(c);
}

void redis_forget(struct redis *r, void *ctx)
{
    for (struct call *c = r->sent.head; c; c = c->next)
        c->fn = c->ctx == ctx ? NULL : c->fn;
    for (struct call *c = r->refused.head; c; c = c->next)
        c->fn = c->ctx == ctx ? NULL : c->fn;
}

/* --- the adapter -------------------------------------------------------------------------------------------------- */

static void redis_refuse_all(struct redis *r) /* we close */
{
    for (struct call *c; (c = r->refused.head);) { /* a callback may have added more */
        list_remove(&r->refused, c);
        call_answer(c, ERR_CLOSED, NULL);
    }
}

static void redis_handle_gone(struct redis *r)
{
    if (--r->open_handles > 0)
        return;
    void (*on_closed)(void *) = r->on_closed;
    void *ctx = r->closed_ctx;
    redis_refuse_all(r); /* asked after we had shut */
    redis_url_done(&r->url);
    free(r->channel);
    free(r->sha);
    free(r);
    if (on_closed)
        on_closed(ctx);
}

static void link_on_closed(uv_handle_t *h)
{
    struct link *l = container_of(h, struct link, poll);
    struct redis *r = l->redis;
    free(l);
    redis_handle_gone(r);
}

static void link_on_event(uv_poll_t *h, int status, int events)
{
    struct link *l = container_of(h, struct link, poll);
    if (status < 0) { /* libuv has stopped the handle; hiredis finds out why */
        l->events = 0;
        events = UV_READABLE | UV_WRITABLE;
    }
    if (l->ac && (events & UV_READABLE))
        redisAsyncHandleRead(l->ac);
    if (l->ac && (events & UV_WRITABLE)) /* reading may have ended it */
        redisAsyncHandleWrite(l->ac);
    if (status < 0 && l->ac && l->ac == l->redis->ac)
        redis_ended(l->redis, uv_strerror(status));
}

static void link_want(struct link *l, int events)
{
    if (events == l->events)
        return;
    l->events = events;
    if (events == 0)
        (void)uv_poll_stop(&l->poll); /* always 0 */
    else if (uv_poll_start(&l->poll, events, link_on_event) != 0)
        l->events = 0; /* the connection's patience ends it */
}

static void link_add_read(void *data)
{
    struct link *l = data;
    link_want(l, l->events | UV_READABLE);
}

static void link_del_read(void *data)
{
    struct link *l = data;
    link_want(l, l->events & ~UV_READABLE);
}

static void link_add_write(void *data)
{
    struct link *l = data;
    if (l->ac != l->redis->ac || !(l->ac->c.flags & REDIS_CONNECTED))
        link_want(l, l->events | UV_WRITABLE);
    else if (!(l->events & UV_WRITABLE)) /* else: the socket is full, and hiredis goes on when it has room */
        l->redis->is_flush_due = true;
}

static void link_del_write(void *data)
{
    struct link *l = data;
    link_want(l, l->events & ~UV_WRITABLE);
}

/* Calls nobody back: that would issue more, too late for this turn. hiredis hears of a failure by the socket's event.
 * It runs all the time, because libuv calls what was started last first: who issues commands in a prepare callback of
 * its own (queue_gather.c, httpd.c) was started later. */
static void redis_on_flush(uv_prepare_t *h)
{
    struct redis *r = container_of(h, struct redis, flush);
    int done = 0;

    if (!r->is_flush_due || !r->ac)
        return;
    r->is_flush_due = false;
    bool is_short = redisBufferWrite(&r->ac->c, &done) != REDIS_OK || !done;
    link_want(r->ac->ev.data, is_short ? UV_READABLE | UV_WRITABLE : UV_READABLE); /* an answer comes, or the end */
}

static void link_cleanup(void *data)
{
    struct link *l = data;
    if (!l->ac)
        return;
    l->ac = NULL;
    uv_close((uv_handle_t *)&l->poll, link_on_closed);
}

static bool link_attach(struct redis *r, redisAsyncContext *ac)
{
    struct link *l = must_alloc(sizeof(*l));
    if (uv_poll_init(r->loop, &l->poll, ac->c.fd) != 0) {
        free(l);
        return false;
    }
    l->redis = r;
    l->ac = ac;
    r->open_handles++;
    ac->ev.data = l;
    ac->ev.addRead = link_add_read;
    ac->ev.delRead = link_del_read;
    ac->ev.addWrite = link_add_write;
    ac->ev.delWrite = link_del_write;
    ac->ev.cleanup = link_cleanup;
    return true;
}

/* --- a connection's life ------------------------------------------------------------------------------------------ */

static void redis_ended(struct redis *r, const char *why) /* by us, or by hiredis (then r->ac is NULL already) */
{
    redisAsyncContext *ac = r->ac;
    bool was_up = r->phase == PHASE_UP;
    unsigned char dice;

    if (r->phase == PHASE_CLOSING || r->phase == PHASE_WAITING)
        return;
    r->phase = PHASE_WAITING;
    r->ac = NULL;
    r->is_flush_due = false; /* the next one's socket is not connected yet */
    r->setup_left = 0;
    unsigned doublings = r->attempts < 6 ? r->attempts : 6;
    int delay_ms = BACKOFF_MIN_MS << doublings;
    delay_ms = delay_ms < BACKOFF_MAX_MS ? delay_ms : BACKOFF_MAX_MS;
    random_bytes(&dice, 1);
    delay_ms = delay_ms / 2 + delay_ms * dice / 512;
    if (r->attempts++ == 0 || was_up)
        log_warn("redis_down", log_str("connection", r->config.name), log_str("why", why));
    (void)uv_timer_start(&r->timer, redis_on_timer, (uint64_t)delay_ms, 0);
    if (ac)
        redisAsyncFree(ac); /* answers what is pending; inside a callback of hiredis it does so afterwards */
    if (was_up && r->config.on_state)
        r->config.on_state(r->config.ctx, false, NULL);
}

static void redis_went_up(struct redis *r)
{
    r->phase = PHASE_UP;
    if (r->attempts > 0)
        log_info("redis_up", log_str("connection", r->config.name));
    r->attempts = 0;
    (void)uv_timer_stop(&r->timer); /* always 0 */
    if (r->config.on_state)
        r->config.on_state(r->config.ctx, true, r->run_id);
}

static void setup_on_message(redisAsyncContext *ac, void *reply_, void *data)
{
    const redisReply *reply = reply_;
    struct redis *r = data;

    if (!reply || ac != r->ac)
        return;
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 3 || !reply->element[0]->str) {
        redis_ended(r, "SUBSCRIBE was refused");
    } else if (r->phase == PHASE_SETUP && strcmp(reply->element[0]->str, "subscribe") == 0) {
        redis_went_up(r);
    } else if (r->phase == PHASE_UP && strcmp(reply->element[0]->str, "message") == 0 && reply->element[2]->str) {
        r->config.on_message(r->config.ctx, reply->element[2]->str, (size_t)reply->element[2]->len);
    }
}

static void setup_step_done(struct redis *r)
{
    if (r->phase != PHASE_SETUP || r->setup_left == 0 || --r->setup_left > 0)
        return;
    if (!r->channel) {
        redis_went_up(r);
        return;
    }
    const char *argv[] = { "SUBSCRIBE", r->channel };
    if (redisAsyncCommandArgv(r->ac, setup_on_message, r, 2, (const char **)(uintptr_t)argv, NULL) != REDIS_OK)
        redis_ended(r, "SUBSCRIBE could not be sent");
}

static void setup_on_reply(void *ctx, enum err err, const redisReply *reply)
{
    struct redis *r = ctx;
    if (err == ERR_REFUSED)
        redis_ended(r, reply->str); /* wrong password, no such database, still loading, a script that is not one */
    else if (err == ERR_OK)
        setup_step_done(r);
}

static void setup_on_name(void *ctx, enum err err, const redisReply *reply)
{
    (void)reply; /* a name is only for people who look */
    if (err == ERR_OK || err == ERR_REFUSED)
        setup_step_done(ctx);
}

static void setup_on_info(void *ctx, enum err err, const redisReply *reply)
{
    struct redis *r = ctx;
    const char *found = err == ERR_OK && reply->str ? strstr(reply->str, "run_id:") : NULL;
    r->run_id[0] = '\0';
    if (found)
        (void)snprintf(r->run_id, sizeof(r->run_id), "%.*s", (int)strcspn(found + 7, "\r\n"), found + 7);
    setup_on_reply(r, err, reply);
}

static void setup_on_script(void *ctx, enum err err, const redisReply *reply)
{
    struct redis *r = ctx;
    if (err == ERR_OK && r->phase == PHASE_SETUP) {
        if (reply->type != REDIS_REPLY_STRING || reply->len != SHA1_HEX - 1) {
            redis_ended(r, "SCRIPT LOAD answered no SHA-1");
            return;
        }
        size_t index = r->config.script_count - r->setup_left; /* answers come in order, scripts come last */
        memcpy(r->sha[index], reply->str, SHA1_HEX);
    }
    setup_on_reply(r, err, reply);
}

static void setup_send(struct redis *r, redis_fn *fn, int argc, const char *const *argv)
{
    call_send(call_new(r, fn, r, argc, argv, NULL));
}

static void redis_set_up(struct redis *r)
{
    char db[16];
    const char *auth[] = { "AUTH", r->url.user ? r->url.user : r->url.password, r->url.password };
    const char *choose[] = { "SELECT", db };
    const char *name[] = { "CLIENT", "SETNAME", r->config.name ? r->config.name : "kiln" };
    const char *info[] = { "INFO", "server" };

    r->phase = PHASE_SETUP;
    (void)snprintf(db, sizeof(db), "%d", r->url.db);
    r->setup_left = 2 + r->config.script_count + (r->url.password != NULL) + (r->url.db != 0);
    if (r->url.password)
        setup_send(r, setup_on_reply, r->url.user ? 3 : 2, auth);
    if (r->url.db != 0)
        setup_send(r, setup_on_reply, 2, choose);
    setup_send(r, setup_on_name, 3, name);
    setup_send(r, setup_on_info, 2, info);
    for (size_t i = 0; i < r->config.script_count; i++)
        load_script(r, i, setup_on_script);
}

static void redis_on_connect(const redisAsyncContext *ac, int status)
{
    struct redis *r = ac->data;
    if (ac != r->ac)
        return;
    if (status == REDIS_OK) {
        if (r->url.host)
            (void)redisEnableKeepAlive((redisContext *)(uintptr_t)&ac->c); /* without it only silence is noticed late */
        redis_set_up(r);
    } else {
        r->ac = NULL; /* hiredis frees it when we return */
        redis_ended(r, ac->errstr);
    }
}

static void redis_on_disconnect(const redisAsyncContext *ac, int status)
{
    struct redis *r = ac->data;
    if (ac != r->ac)
        return; /* we let go of it before */
    r->ac = NULL;
    redis_ended(r, status == REDIS_OK ? "closed" : ac->errstr);
}

static void redis_attach(struct redis *r, redisAsyncContext *ac)
{
    if (!ac || ac->err || !link_attach(r, ac)) {
        redis_ended(r, ac && ac->err ? ac->errstr : "no connection could be made");
        if (ac)
            redisAsyncFree(ac);
        return;
    }
    r->phase = PHASE_CONNECTING;
    r->ac = ac;
    ac->data = r;
    (void)redisAsyncSetConnectCallback(ac, redis_on_connect); /* refused only when set twice */
    (void)redisAsyncSetDisconnectCallback(ac, redis_on_disconnect);
}

static void redis_on_lookup(uv_getaddrinfo_t *request, int status, struct addrinfo *found)
{
    struct redis *r = container_of(request, struct redis, lookup);
    char address[64] = "";
    unsigned count = 0;

    r->is_looking_up = false;
    for (struct addrinfo *a = found; a && count < ADDRESSES_MAX; a = a->ai_next)
        count++;
    unsigned choice = count ? r->attempts % count : 0; /* a name with a dead address: the next attempt takes another */
    for (struct addrinfo *a = found; a && choice-- > 0;)
        found = a = a->ai_next;
    if (status == 0 && found && found->ai_family == AF_INET6)
        (void)uv_ip6_name((const struct sockaddr_in6 *)(const void *)found->ai_addr, address, sizeof(address));
    else if (status == 0 && found)
        (void)uv_ip4_name((const struct sockaddr_in *)(const void *)found->ai_addr, address, sizeof(address));
    uv_freeaddrinfo(found);
    if (r->phase == PHASE_LOOKUP && !address[0])
        redis_ended(r, status ? uv_strerror(status) : "the host has no address");
    else if (r->phase == PHASE_LOOKUP)
        redis_attach(r, redisAsyncConnect(address, r->url.port));
    redis_handle_gone(r);
}

static void redis_connect(struct redis *r)
{
    char port[8];
    struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };

    r->phase = PHASE_LOOKUP;
    (void)uv_timer_start(&r->timer, redis_on_timer, CONNECT_MS, 0);
    if (r->url.path) {
        redis_attach(r, redisAsyncConnectUnix(r->url.path));
        return;
    }
    if (r->is_looking_up) /* an earlier one that nobody waits for any more; its answer will do */
        return;
    (void)snprintf(port, sizeof(port), "%d", r->url.port);
    if (uv_getaddrinfo(r->loop, &r->lookup, redis_on_lookup, r->url.host, port, &hints) != 0) {
        redis_ended(r, "the host's name could not be looked up");
        return;
    }
    r->is_looking_up = true;
    r->open_handles++;
}

static void redis_on_timer(uv_timer_t *t)
{
    struct redis *r = container_of(t, struct redis, timer);
    if (r->phase == PHASE_WAITING)
        redis_connect(r);
    else if (r->phase == PHASE_UP)
        redis_on_overdue(r);
    else
        redis_ended(r, "no connection in time");
}

/* --- the object --------------------------------------------------------------------------------------------------- */

static void redis_on_handle_closed(uv_handle_t *h)
{
    redis_handle_gone(h->data);
}

static void redis_shut(struct redis *r)
{
    redisAsyncContext *ac = r->ac;
    r->ac = NULL;
    if (ac)
        redisAsyncFree(ac);
    redis_refuse_all(r);
    if (r->is_looking_up)
        (void)uv_cancel((uv_req_t *)&r->lookup); /* busy: then it ends by itself */
    uv_close((uv_handle_t *)&r->timer, redis_on_handle_closed);
    uv_close((uv_handle_t *)&r->soon, redis_on_handle_closed);
    uv_close((uv_handle_t *)&r->flush, redis_on_handle_closed);
}

static void redis_on_soon(uv_timer_t *t)
{
    struct redis *r = container_of(t, struct redis, soon);
    size_t count = 0;

    if (r->phase == PHASE_CLOSING) {
        redis_shut(r);
        return;
    }
    for (struct call *c = r->refused.head; c; c = c->next)
        count++; /* what a callback adds waits for the next turn */
    for (struct call *c; count > 0 && (c = r->refused.head); count--) {
        list_remove(&r->refused, c);
        call_answer(c, r->phase == PHASE_CLOSING ? ERR_CLOSED : ERR_UNAVAILABLE, NULL);
    }
}

struct redis *redis_new(uv_loop_t *loop, const struct redis_config *config)
{
    struct redis_url url;
    if (redis_url_parse(&url, config->url) != ERR_OK)
        return NULL;

    struct redis *r = must_alloc(sizeof(*r));
    r->loop = loop;
    r->config = *config;
    r->config.url = NULL; /* parsed; it may hold a password */
    r->url = url;
    r->channel = config->channel ? must_copy(config->channel, strlen(config->channel)) : NULL;
    r->sha = must_alloc((config->script_count + 1) * sizeof(*r->sha));
    (void)uv_timer_init(loop, &r->timer); /* always 0 */
    (void)uv_timer_init(loop, &r->soon);
    (void)uv_prepare_init(loop, &r->flush);
    (void)uv_prepare_start(&r->flush, redis_on_flush); /* fails only without a function */
    uv_unref((uv_handle_t *)&r->flush);
    r->timer.data = r->soon.data = r->flush.data = r;
    r->open_handles = 3;
    r->phase = PHASE_WAITING;
    (void)uv_timer_start(&r->timer, redis_on_timer, 0, 0);
    return r;
}

void redis_close(struct redis *r, void (*on_closed)(void *ctx), void *ctx)
{
    assert(r->phase != PHASE_CLOSING);
    r->phase = PHASE_CLOSING;
    r->on_closed = on_closed;
    r->closed_ctx = ctx;
    (void)uv_timer_stop(&r->timer);
    (void)uv_timer_start(&r->soon, redis_on_soon, 0, 0);
}

bool redis_is_up(const struct redis *r)
{
    return r->phase == PHASE_UP;
}
