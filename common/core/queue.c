/* queue.c - the queue's connections, sleeping and waking, claims, and the request budget.
 *
 * Three connections: commands; for a worker the sleeper, that waits on the wake list; the listener (events for a
 * dispatcher, hints for a worker). A wake-up is a token in a list: one that nobody waits for stays there, so none is
 * lost between a claim and the next sleep. We sleep only after a claim that came back short (who is full must not eat
 * tokens), and a token that led to no claim is given to the next sleeper. */
#include "common/core/queue.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/json.h"
#include "common/base/log.h"
#include "common/core/queue_internal.h"

enum { COMMAND_MS = 5000, SLEEPER_MS = 10000, TOKEN_MS = 50, SPENDS_A_CALL = 500 };

static void queue_sleep(struct queue *q);
static void queue_on_token_timer(uv_timer_t *t);

/* --- helpers of all three files ----------------------------------------------------------------------------------- */

static void *must_alloc(size_t size)
{
    void *p = calloc(1, size);
    if (!p)
        abort(); /* as in redis.c: no caller could go on without these few bytes */
    return p;
}

struct ask *ask_new(struct queue *q, void *ctx)
{
    struct ask *a = must_alloc(sizeof(*a));
    a->q = q;
    a->ctx = ctx;
    a->left = 1;
    return a;
}

enum err queue_err(struct queue *q, enum err err, const redisReply *reply)
{
    if (err != ERR_REFUSED)
        return err;
    int64_t now_ms = clock_mono_ms();
    if (q->complained_ms == 0 || now_ms - q->complained_ms >= 1000) {
        q->complained_ms = now_ms;
        log_warn("redis_refused", log_str("text", reply && reply->str ? reply->str : ""));
    }
    return ERR_UNAVAILABLE;
}

void ask_part_done(struct ask *a, enum err err)
{
    if (a->err == ERR_OK)
        a->err = err;
    if (--a->left > 0)
        return;
    if (a->fn.done)
        a->fn.done(a->ctx, a->err, a->count);
    free(a);
}

void ask_on_done(void *ctx, enum err err, const redisReply *reply)
{
    struct ask *a = ctx;
    if (err == ERR_OK && reply->type == REDIS_REPLY_INTEGER && reply->integer > 0)
        a->count += (size_t)reply->integer;
    ask_part_done(a, queue_err(a->q, err, reply));
}

void args_init(struct args *a, size_t cap)
{
    a->count = 0;
    a->cap = cap + 1;
    a->v = must_alloc(a->cap * sizeof(*a->v));
    a->numbers = must_alloc(a->cap * sizeof(*a->numbers));
    args_text(a, QUEUE_PREFIX);
}

void args_done(struct args *a)
{
    free(a->v);
    free(a->numbers);
}

void args_text(struct args *a, const char *s)
{
    assert(a->count < a->cap);
    a->v[a->count++] = s ? s : "";
}

void args_int(struct args *a, int64_t n)
{
    char *text = a->numbers[a->count];
    (void)snprintf(text, sizeof(a->numbers[0]), "%lld", (long long)n);
    args_text(a, text);
}

/* What is about jobs, or about the room that they leave, comes after what was asked before. */
static bool keeps_order(enum queue_script script)
{
    return script == QUEUE_CLAIM || script == QUEUE_PUBLISH || script == QUEUE_CANCEL || script == QUEUE_BURY ||
           script == QUEUE_ADOPT || script == QUEUE_GIVE_BACK || script == QUEUE_STATS;
}

void queue_run(struct queue *q, enum queue_script script, struct args *a, redis_fn *fn, void *ctx)
{
    if (keeps_order(script))
        queue_flush(q);
    redis_eval(q->commands, script, fn, ctx, 1, (int)a->count, a->v, NULL);
    args_done(a);
}

/* --- sleeping and waking ------------------------------------------------------------------------------------------ */

static void queue_wake(struct queue *q, bool by_token)
{
    if (!q->worker || q->is_closing)
        return;
    if (by_token) {
        q->holds_token = true;
        (void)uv_timer_start(&q->token_timer, queue_on_token_timer, TOKEN_MS, 0);
    }
    if (q->claims) {
        q->is_dirty = true;
        return;
    }
    q->is_dirty = false;
    q->is_hungry = false; /* until the claim that follows says so */
    if (q->config.on_wake)
        q->config.on_wake(q->config.ctx);
}

static void queue_push_token(struct queue *q)
{
    const char *argv[] = { "LPUSH", QUEUE_PREFIX "wake", "1" };
    redis_command(q->commands, NULL, NULL, 3, argv, NULL);
}

static void queue_on_token_timer(uv_timer_t *t)
{
    struct queue *q = container_of(t, struct queue, token_timer);
    if (q->holds_token && q->claims) {
        (void)uv_timer_start(t, queue_on_token_timer, TOKEN_MS, 0);
    } else if (q->holds_token) { /* full, or on its way out: the work is another's */
        q->holds_token = false;
        queue_push_token(q);
    }
}

static void sleeper_on_reply(void *ctx, enum err err, const redisReply *reply)
{
    struct queue *q = ctx;
    q->is_asleep = false;
    if (err == ERR_REFUSED) { /* the wake list is no list; a time-out of the next sleep is the safe pace */
        const char *argv[] = { "DEL", QUEUE_PREFIX "wake" };
        redis_command(q->commands, NULL, NULL, 2, argv, NULL);
        q->holds_token = false;
    }
    if (err == ERR_OK || err == ERR_REFUSED) /* a time-out wakes as well: tokens may be lost with Redis */
        queue_wake(q, err == ERR_OK && reply->type == REDIS_REPLY_ARRAY);
}

static void queue_sleep(struct queue *q)
{
    char patience[16];
    unsigned char dice;

    if (!q->worker || !q->is_hungry || q->is_asleep || q->claims || q->is_closing || !redis_is_up(q->sleeper))
        return;
    random_bytes(&dice, 1);
    (void)snprintf(patience, sizeof(patience), "%d.%02d", 2, dice * 99 / 255); /* not all at the same time */
    const char *argv[] = { "BLPOP", QUEUE_PREFIX "wake", patience };
    q->is_asleep = true;
    redis_command(q->sleeper, sleeper_on_reply, q, 3, argv, NULL);
}

/* --- connections -------------------------------------------------------------------------------------------------- */

static void queue_look_at_state(struct queue *q) /* up: commands go, and nothing that is published is missed */
{
    bool is_up = redis_is_up(q->commands) && redis_is_up(q->listener);
    if (is_up == q->is_up || q->is_closing)
        return;
    q->is_up = is_up;
    if (q->config.on_state)
        q->config.on_state(q->config.ctx, is_up, is_up ? q->run_id : NULL);
    if (is_up)
        queue_wake(q, false); /* whatever woke us meanwhile is lost */
}

static void commands_on_state(void *ctx, bool is_up, const char *run_id)
{
    struct queue *q = ctx;
    if (is_up)
        (void)snprintf(q->run_id, sizeof(q->run_id), "%s", run_id);
    queue_look_at_state(q);
}

static void listener_on_state(void *ctx, bool is_up, const char *run_id)
{
    (void)is_up;
    (void)run_id;
    queue_look_at_state(ctx);
}

static void sleeper_on_state(void *ctx, bool is_up, const char *run_id)
{
    (void)run_id;
    if (is_up)
        queue_sleep(ctx);
}

static void listener_on_hint(void *ctx, const char *data, size_t len)
{
    struct queue *q = ctx;
    if (len == UUID_TEXT - 1 && uuid_valid(data) && q->config.on_hint)
        q->config.on_hint(q->config.ctx, data);
}

static void listener_on_one(struct queue *q, const json_t *event)
{
    const char *job = json_text(event, "job");
    int64_t version = 0, percent = -1;

    if (!job || !uuid_valid(job) || !q->config.on_event)
        return;
    (void)json_int(event, "version", &version); /* absent in a progress event */
    (void)json_int(event, "percent", &percent);
    if (percent < 0 || percent > 100)
        percent = -1;
    q->config.on_event(q->config.ctx, job, version, json_text(event, "state"), json_text(event, "phase"), (int)percent);
}

static void listener_on_event(void *ctx, const char *data, size_t len) /* one, or a list of them */
{
    json_t *message = json_parse(data, len, NULL), *event;
    size_t i;

    if (json_is_object(message))
        listener_on_one(ctx, message);
    json_array_foreach(message, i, event) /* of what is no array: none */
        if (json_is_object(event)) listener_on_one(ctx, event);
    json_decref(message);
}

/* --- claims ------------------------------------------------------------------------------------------------------- */

static void claim_read_note(struct queue_claim *c, const redisReply *note) /* "attempt\nJSON" */
{
    char *end = NULL;
    if (note->type != REDIS_REPLY_STRING || strlen(note->str) != (size_t)note->len)
        return;
    long long attempt = strtoll(note->str, &end, 10);
    if (end == note->str || *end != '\n' || attempt < 0)
        return;
    c->note_attempt = attempt;
    c->note = end + 1;
}

static bool is_text(const redisReply *r)
{
    return r->type == REDIS_REPLY_STRING && r->len > 0 && strlen(r->str) == (size_t)r->len;
}

static void claim_answer(struct ask *a, enum err err, const redisReply *reply)
{
    struct queue_claim *claims = NULL;
    size_t count = 0, claimed = 0;
    int64_t next_ms = -1;

    if (err == ERR_OK && reply->type == REDIS_REPLY_ARRAY && reply->elements > 0) {
        next_ms = reply->element[0]->type == REDIS_REPLY_INTEGER ? reply->element[0]->integer : -1;
        claimed = (reply->elements - 1) / 5;
        claims = must_alloc((claimed + 1) * sizeof(*claims));
    }
    for (size_t i = 0; i < claimed; i++) {
        redisReply **r = reply->element + 1 + 5 * i;
        struct queue_claim *c = &claims[count];
        if (!is_text(r[0]) || !is_text(r[1]))
            continue;
        *c = (struct queue_claim){ .job = r[0]->str, .lane = r[1]->str };
        c->envelope = is_text(r[2]) ? r[2]->str : NULL;
        claim_read_note(c, r[3]);
        c->is_lost = r[4]->type == REDIS_REPLY_INTEGER && r[4]->integer == 1;
        count++;
    }
    a->q->is_hungry = count < a->n;
    a->fn.claim(a->ctx, err, claims, count, next_ms);
    free(claims);
}

static void claim_on_reply(void *ctx, enum err err, const redisReply *reply)
{
    struct ask *a = ctx;
    struct queue *q = a->q;

    for (struct ask **p = &q->claims; *p; p = &(*p)->next) {
        if (*p == a) {
            *p = a->next;
            break;
        }
    }
    claim_answer(a, queue_err(q, err, reply), reply);
    free(a);
    if (q->is_dirty && !q->claims)
        queue_wake(q, false);
    queue_sleep(q);
}

void queue_claim(struct queue *q, size_t max, queue_claim_fn *fn, void *ctx)
{
    struct args args;
    struct ask *a = ask_new(q, ctx), **end = &q->claims;

    assert(q->worker && max > 0);
    a->fn.claim = fn;
    a->n = max < 1000 ? max : 1000; /* what the script gives at most */
    a->seq = ++q->claim_seq;
    while (*end)
        end = &(*end)->next;
    *end = a;
    q->holds_token = false;
    args_init(&args, 3);
    args_text(&args, q->worker);
    args_int(&args, a->seq);
    args_int(&args, (int64_t)a->n);
    queue_run(q, QUEUE_CLAIM, &args, claim_on_reply, a);
}

/* --- the request budget ------------------------------------------------------------------------------------------- */

static void spend_answer(struct ask *a, enum err err, int64_t wait_ms)
{
    a->fn.spend(a->ctx, err, wait_ms);
    free(a->lane);
    free(a->key);
    free(a);
}

static void spend_on_reply(void *ctx, enum err err, const redisReply *reply)
{
    struct ask *a = ctx; /* the first of those in this call */
    err = queue_err(a->q, err, reply);
    for (size_t i = 0; a; i++) {
        struct ask *next = a->next;
        bool is_answered = err == ERR_OK && reply->type == REDIS_REPLY_ARRAY && i < reply->elements &&
                           reply->element[i]->type == REDIS_REPLY_INTEGER;
        spend_answer(a, err == ERR_OK && !is_answered ? ERR_UNAVAILABLE : err,
                     is_answered ? reply->element[i]->integer : 0);
        a = next;
    }
}

static void queue_send_spends(struct queue *q)
{
    struct ask *first = q->spends;

    q->spends = NULL;
    q->spends_end = &q->spends;
    while (first) {
        struct args args;
        struct ask *a = first, *last = first;
        args_init(&args, (size_t)SPENDS_A_CALL * 3);
        for (size_t n = 0; a && n < SPENDS_A_CALL; n++, a = a->next) {
            args_text(&args, a->lane);
            args_text(&args, a->key);
            args_int(&args, (int64_t)a->n);
            last = a;
        }
        last->next = NULL;
        queue_run(q, QUEUE_SPEND, &args, spend_on_reply, first);
        first = a;
    }
}

static void spend_on_timer(uv_timer_t *t)
{
    queue_send_spends(container_of(t, struct queue, spend_timer));
}

void queue_spend(struct queue *q, const char *lane, size_t n, queue_spend_fn *fn, void *ctx)
{
    queue_spend_key(q, lane, NULL, n, fn, ctx);
}

void queue_spend_key(struct queue *q, const char *lane, const char *key, size_t n, queue_spend_fn *fn, void *ctx)
{
    struct ask *a = ask_new(q, ctx);
    a->fn.spend = fn;
    a->n = n;
    a->lane = must_alloc(strlen(lane) + 1);
    memcpy(a->lane, lane, strlen(lane));
    a->key = must_alloc((key ? strlen(key) : 0) + 1);
    memcpy(a->key, key ? key : "", key ? strlen(key) : 0);
    *q->spends_end = a;
    q->spends_end = &a->next;
    if (q->is_closing)
        queue_send_spends(q);
    else if (!uv_is_active((uv_handle_t *)&q->spend_timer))
        (void)uv_timer_start(&q->spend_timer, spend_on_timer, 0, 0); /* fails only on a closing handle */
}

/* --- the object --------------------------------------------------------------------------------------------------- */

static void queue_on_commands_closed(void *q_)
{
    struct queue *q = q_;
    void (*on_closed)(void *) = q->on_closed;
    void *ctx = q->closed_ctx;
    for (size_t i = 0; i < QUEUE_SCRIPT_COUNT; i++)
        free((void *)(uintptr_t)q->scripts[i].source);
    free(q->worker);
    free(q);
    if (on_closed)
        on_closed(ctx);
}

static void queue_part_closed(struct queue *q) /* commands go last: until then every call is answered */
{
    if (--q->open == 0)
        redis_close(q->commands, queue_on_commands_closed, q);
}

static void queue_on_connection_closed(void *ctx)
{
    queue_part_closed(ctx);
}

static void queue_on_handle_closed(uv_handle_t *h)
{
    queue_part_closed(h->data);
}

struct queue *queue_new(uv_loop_t *loop, const struct queue_config *config)
{
    char channel[80] = QUEUE_PREFIX "events";
    struct queue *q = NULL;

    if (redis_url_check(config->redis_url) != ERR_OK || (config->worker && !uuid_valid(config->worker)))
        return NULL;
    q = must_alloc(sizeof(*q));
    q->loop = loop;
    q->config = *config;
    q->spends_end = &q->spends;
    queue_scripts_load(q->scripts);
    if (config->worker) {
        q->worker = must_alloc(UUID_TEXT);
        (void)uuid_lower(q->worker, config->worker); /* checked above */
        (void)snprintf(channel, sizeof(channel), QUEUE_PREFIX "hint:%s", q->worker);
    }
    (void)uv_timer_init(loop, &q->token_timer); /* always 0 */
    (void)uv_timer_init(loop, &q->spend_timer);
    q->token_timer.data = q->spend_timer.data = q;
    gather_init(q);
    q->open = 5;
    struct redis_config rc = { .url = config->redis_url, .ctx = q, .command_timeout_ms = COMMAND_MS };
    rc.name = "kiln-queue";
    rc.scripts = q->scripts;
    rc.script_count = QUEUE_SCRIPT_COUNT;
    rc.on_state = commands_on_state;
    q->commands = redis_new(loop, &rc);
    rc.name = "kiln-listener";
    rc.scripts = NULL;
    rc.script_count = 0;
    rc.command_timeout_ms = 0;
    rc.on_state = listener_on_state;
    rc.channel = channel;
    rc.on_message = q->worker ? listener_on_hint : listener_on_event;
    q->listener = redis_new(loop, &rc);
    if (q->worker) {
        q->open++;
        rc.name = "kiln-sleeper";
        rc.command_timeout_ms = SLEEPER_MS;
        rc.on_state = sleeper_on_state;
        rc.channel = NULL;
        q->sleeper = redis_new(loop, &rc);
    }
    assert(q->commands && q->listener && (q->sleeper || !q->worker)); /* the URL is good */
    return q;
}

void queue_close(struct queue *q, void (*on_closed)(void *ctx), void *ctx)
{
    assert(!q->is_closing);
    q->is_closing = true;
    q->on_closed = on_closed;
    q->closed_ctx = ctx;
    queue_send_spends(q);
    queue_flush(q);
    uv_close((uv_handle_t *)&q->gather.prepare, queue_on_handle_closed);
    uv_close((uv_handle_t *)&q->gather.check, queue_on_handle_closed);
    uv_close((uv_handle_t *)&q->token_timer, queue_on_handle_closed);
    uv_close((uv_handle_t *)&q->spend_timer, queue_on_handle_closed);
    redis_close(q->listener, queue_on_connection_closed, q);
    if (q->sleeper)
        redis_close(q->sleeper, queue_on_connection_closed, q);
}

bool queue_is_up(const struct queue *q)
{
    return q->is_up;
}
