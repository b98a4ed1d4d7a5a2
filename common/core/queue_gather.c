/* queue_gather.c - calls about one job each that are gathered: those of one turn of the loop are few script calls.
 *
 * A script call costs Redis some ten microseconds before it does anything, and the worker not much less; a worker with
 * a thousand jobs makes several for each. What one turn gathered is sent at its end (before the loop would sleep, after
 * it has heard), by kind, in the order of the kinds below: that is the order in which they come in a job's life. A call
 * about a job that would stand behind a later kind's is not gathered with it: all that was before goes first. A forget
 * is never overtaken by a progress of its job, whose record would come back and stay. */
#include "common/core/queue.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/core/queue_internal.h"

enum { JOBS_A_CALL = 200, BYTES_A_CALL = 256 * 1024, TEXTS_MAX = 4 };

static const struct {
    enum queue_script script;
    size_t texts; /* a job */
} kinds[GATHER_COUNT] = {
    [GATHER_COLLECTING] = { QUEUE_COLLECTING, 2 }, [GATHER_NOTE] = { QUEUE_NOTE, 3 },
    [GATHER_PROGRESS] = { QUEUE_PROGRESS, 3 },     [GATHER_PUT_BACK] = { QUEUE_PUT_BACK, 4 },
    [GATHER_FORGET] = { QUEUE_FORGET, 3 },         [GATHER_EVENT] = { QUEUE_EVENT, 3 },
};

struct gathered { /* one call */
    struct gathered *next;
    queue_done_fn *fn;
    void *ctx;
    size_t place; /* in `last` */
    size_t len;
    char texts[]; /* each with its NUL */
};

struct batch { /* calls that went as one */
    struct queue *q;
    struct gathered *first;
};

static void *must_alloc(size_t size)
{
    void *p = malloc(size);
    if (!p)
        abort();
    return p;
}

static void batch_on_reply(void *ctx, enum err err, const redisReply *reply)
{
    struct batch *b = ctx;
    struct gathered *g = b->first;

    err = queue_err(b->q, err, reply);
    for (size_t i = 0; g; i++) {
        struct gathered *next = g->next;
        bool counts = err == ERR_OK && reply->type == REDIS_REPLY_ARRAY && i < reply->elements &&
                      reply->element[i]->type == REDIS_REPLY_INTEGER && reply->element[i]->integer > 0;
        if (g->fn)
            g->fn(g->ctx, err, counts);
        free(g);
        g = next;
    }
    free(b);
}

static void batch_send(struct queue *q, enum gather kind, struct gathered *first, size_t count)
{
    struct batch *b = must_alloc(sizeof(*b));
    struct args args;

    b->q = q;
    b->first = first;
    args_init(&args, count * kinds[kind].texts + 1);
    args_text(&args, q->worker);
    for (struct gathered *g = first; g; g = g->next) {
        const char *text = g->texts;
        for (size_t i = 0; i < kinds[kind].texts; i++, text += strlen(text) + 1)
            args_text(&args, text);
        q->gather.last[g->place] = 0;
    }
    queue_run(q, kinds[kind].script, &args, batch_on_reply, b);
}

void queue_flush(struct queue *q)
{
    if (!q->gather.is_waiting)
        return;
    q->gather.is_waiting = false;
    (void)uv_prepare_stop(&q->gather.prepare); /* always 0 */
    (void)uv_check_stop(&q->gather.check);
    for (enum gather kind = 0; kind < GATHER_COUNT; kind++) {
        struct gathered *g = q->gather.first[kind];
        q->gather.first[kind] = NULL;
        while (g) {
            struct gathered *first = g, *end = g;
            size_t count = 1, bytes = g->len;
            while (end->next && count < JOBS_A_CALL && bytes + end->next->len <= BYTES_A_CALL) {
                end = end->next;
                bytes += end->len;
                count++;
            }
            g = end->next;
            end->next = NULL;
            batch_send(q, kind, first, count);
        }
    }
}

static void gather_on_prepare(uv_prepare_t *h)
{
    queue_flush(h->data);
}

static void gather_on_check(uv_check_t *h)
{
    queue_flush(h->data);
}

static size_t place_of(const char *job) /* FNV-1a; two jobs at one place cost a call more */
{
    uint32_t hash = 2166136261u;
    for (; *job; job++)
        hash = (hash ^ (unsigned char)*job) * 16777619u;
    return hash % GATHER_PLACES;
}

static void gather(struct queue *q, enum gather kind, const char *const texts[TEXTS_MAX], queue_done_fn *fn, void *ctx)
{
    size_t lens[TEXTS_MAX], len = 0, place = place_of(texts[0]);
    struct gathered *g;
    char *at;

    for (size_t i = 0; i < kinds[kind].texts; i++)
        len += lens[i] = texts[i] ? strlen(texts[i]) + 1 : 1;
    g = must_alloc(sizeof(*g) + len);
    *g = (struct gathered){ .fn = fn, .ctx = ctx, .place = place, .len = len };
    at = g->texts;
    for (size_t i = 0; i < kinds[kind].texts; at += lens[i++])
        memcpy(at, texts[i] ? texts[i] : "", lens[i]);
    if (q->gather.last[place] > kind + 1)
        queue_flush(q);
    q->gather.last[place] = (unsigned char)(kind + 1);
    *(q->gather.first[kind] ? &q->gather.end[kind]->next : &q->gather.first[kind]) = g;
    q->gather.end[kind] = g;
    if (!q->gather.is_waiting && !q->is_closing) { /* fail only without a function */
        (void)uv_prepare_start(&q->gather.prepare, gather_on_prepare);
        (void)uv_check_start(&q->gather.check, gather_on_check);
    }
    q->gather.is_waiting = true;
    if (q->is_closing)
        queue_flush(q);
}

void gather_init(struct queue *q)
{
    (void)uv_prepare_init(q->loop, &q->gather.prepare); /* always 0 */
    (void)uv_check_init(q->loop, &q->gather.check);
    q->gather.prepare.data = q->gather.check.data = q;
}

/* --- the calls ---------------------------------------------------------------------------------------------------- */

struct number {
    char text[24];
};

static const char *number(struct number *n, int64_t value)
{
    (void)snprintf(n->text, sizeof(n->text), "%lld", (long long)value);
    return n->text;
}

void queue_note(struct queue *q, const char *job, int64_t attempt, const char *note, queue_done_fn *fn, void *ctx)
{
    struct number n;
    gather(q, GATHER_NOTE, (const char *[TEXTS_MAX]){ job, number(&n, attempt), note }, fn, ctx);
}

void queue_collecting(struct queue *q, const char *job, bool is_collecting, queue_done_fn *fn, void *ctx)
{
    gather(q, GATHER_COLLECTING, (const char *[TEXTS_MAX]){ job, is_collecting ? "1" : "0" }, fn, ctx);
}

void queue_progress(struct queue *q, const char *job, const char *phase, int percent)
{
    struct number n;
    gather(q, GATHER_PROGRESS, (const char *[TEXTS_MAX]){ job, phase, number(&n, percent) }, NULL, NULL);
}

void queue_put_back(struct queue *q, const char *job, const char *lane, int64_t delay_ms, bool keep_note,
                    queue_done_fn *fn, void *ctx)
{
    struct number n;
    resync_touch(q, job);
    gather(q, GATHER_PUT_BACK, (const char *[TEXTS_MAX]){ job, lane, number(&n, delay_ms), keep_note ? "1" : "0" }, fn,
           ctx);
}

void queue_forget(struct queue *q, const char *job, int64_t version, const char *state, queue_done_fn *fn, void *ctx)
{
    struct number n;
    resync_touch(q, job);
    gather(q, GATHER_FORGET, (const char *[TEXTS_MAX]){ job, number(&n, version), state }, fn, ctx);
}

void queue_event(struct queue *q, const char *job, int64_t version, const char *state)
{
    struct number n;
    gather(q, GATHER_EVENT, (const char *[TEXTS_MAX]){ job, number(&n, version), state }, NULL, NULL);
}
