/* queue_repair.c - resync ("here is all I hold") and bury (claims of the dead), in bounded steps.
 *
 * A worker may hold a hundred thousand jobs, and a script blocks Redis for everybody: so Redis' list is read in pages,
 * compared here, and the differences sent in chunks. Two things may happen meanwhile. A claim whose answer the caller
 * had not seen when it made its list: each claim carries the number of its claim call, later ones are left alone. A job
 * that is forgotten or put back while we look: it is noted (touched) and not added again. */
#include "common/core/queue.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/core/queue_internal.h"

enum { JOBS_A_CALL = 200, BURY_A_CALL = 500 };

struct held { /* of the caller's list */
    char job[UUID_TEXT];
    bool is_known;
    size_t index; /* of its lane */
};

struct resync {
    struct resync *next;
    struct ask *ask;
    int64_t last_seq; /* claim calls up to this one had been answered when the list was made */
    char key[96];
    struct held *held; /* sorted */
    size_t count;
    char **lanes;
    struct buf extra; /* ids of UUID_TEXT bytes each: claims that are not in the list */
};

static void *must_alloc(size_t size)
{
    void *p = calloc(1, size);
    if (!p)
        abort();
    return p;
}

static int held_compare(const void *a, const void *b)
{
    return strcmp(((const struct held *)a)->job, ((const struct held *)b)->job);
}

static struct held *held_find(struct resync *s, const char *job)
{
    struct held wanted;
    if (!uuid_lower(wanted.job, job))
        return NULL;
    return bsearch(&wanted, s->held, s->count, sizeof(wanted), held_compare);
}

void resync_touch(struct queue *q, const char *job)
{
    for (struct resync *s = q->resyncs; s; s = s->next) {
        struct held *h = held_find(s, job);
        if (h)
            h->is_known = true;
    }
}

static void resync_end(struct resync *s)
{
    for (struct resync **p = &s->ask->q->resyncs; *p; p = &(*p)->next) {
        if (*p == s) {
            *p = s->next;
            break;
        }
    }
    for (size_t i = 0; i < s->count; i++)
        free(s->lanes[i]);
    free(s->lanes);
    free(s->held);
    buf_done(&s->extra);
    free(s);
}

static void resync_give_back(struct resync *s)
{
    struct ask *a = s->ask;
    size_t count = s->extra.len / UUID_TEXT;

    for (size_t i = 0; i < count;) {
        struct args args;
        args_init(&args, JOBS_A_CALL + 3);
        args_text(&args, a->q->worker);
        args_int(&args, s->last_seq);
        args_int(&args, a->q->claim_seq);
        for (size_t n = 0; n < JOBS_A_CALL && i < count; n++, i++)
            args_text(&args, s->extra.data + i * UUID_TEXT);
        a->left++;
        queue_run(a->q, QUEUE_GIVE_BACK, &args, ask_on_done, a);
    }
}

static void resync_adopt(struct resync *s)
{
    struct ask *a = s->ask;
    struct held *h = s->held, *end = s->held + s->count;

    for (;;) {
        struct args args;
        size_t n = 0;
        args_init(&args, (size_t)JOBS_A_CALL * 2 + 1);
        args_text(&args, a->q->worker);
        for (; h < end && n < JOBS_A_CALL; h++) {
            if (h->is_known)
                continue;
            args_text(&args, h->job);
            args_text(&args, s->lanes[h->index]);
            n++;
        }
        if (n == 0) {
            args_done(&args);
            break;
        }
        a->left++;
        queue_run(a->q, QUEUE_ADOPT, &args, ask_on_done, a);
    }
}

static bool is_settled(const struct resync *s, long long seq) /* a call that was never made is garbage */
{
    return seq <= s->last_seq || seq > s->ask->q->claim_seq;
}

static void resync_compare(struct resync *s, const redisReply *page) /* job, "seq:lane", … */
{
    for (size_t i = 0; i + 1 < page->elements; i += 2) {
        const redisReply *job = page->element[i], *value = page->element[i + 1];
        if (job->type != REDIS_REPLY_STRING || value->type != REDIS_REPLY_STRING)
            continue;
        struct held *h = held_find(s, job->str);
        if (h)
            h->is_known = true;
        else if (is_settled(s, strtoll(value->str, NULL, 10)) && uuid_valid(job->str))
            (void)buf_add(&s->extra, job->str, UUID_TEXT); /* full: the rest is the next resync's */
    }
}

static void resync_ask(struct resync *s, const char *cursor);

static void resync_on_page(void *ctx, enum err err, const redisReply *reply)
{
    struct resync *s = ctx;
    struct ask *a = s->ask;
    struct queue *q = a->q;

    if (err == ERR_OK && reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 && reply->element[0]->str) {
        resync_compare(s, reply->element[1]);
        if (strcmp(reply->element[0]->str, "0") != 0) {
            resync_ask(s, reply->element[0]->str);
            return;
        }
    }
    if (err == ERR_OK || err == ERR_REFUSED) { /* refused: no hash, so nothing is known; adopting makes it one */
        resync_give_back(s);
        resync_adopt(s);
        err = ERR_OK;
    }
    resync_end(s);
    ask_part_done(a, queue_err(q, err, reply));
}

static void resync_ask(struct resync *s, const char *cursor)
{
    const char *argv[] = { "HSCAN", s->key, cursor, "COUNT", "1000" };
    redis_command(s->ask->q->commands, resync_on_page, s, 5, argv, NULL);
}

void queue_resync(struct queue *q, const char *const *jobs, const char *const *lanes, size_t count, queue_done_fn *fn,
                  void *ctx)
{
    struct resync *s = must_alloc(sizeof(*s));
    s->ask = ask_new(q, ctx);
    s->ask->fn.done = fn;
    s->last_seq = q->claims ? q->claims->seq - 1 : q->claim_seq;
    s->held = must_alloc((count + 1) * sizeof(*s->held));
    s->lanes = must_alloc((count + 1) * sizeof(*s->lanes));
    for (size_t i = 0; i < count; i++) {
        struct held *h = &s->held[s->count];
        if (!uuid_lower(h->job, jobs[i]))
            continue; /* could not be a job */
        s->lanes[s->count] = must_alloc(strlen(lanes[i]) + 1);
        memcpy(s->lanes[s->count], lanes[i], strlen(lanes[i]));
        h->index = s->count++;
    }
    qsort(s->held, s->count, sizeof(*s->held), held_compare);
    (void)snprintf(s->key, sizeof(s->key), QUEUE_PREFIX "worker:%s", q->worker);
    s->next = q->resyncs;
    q->resyncs = s;
    queue_flush(q); /* what was forgotten before is not to be found again */
    resync_ask(s, "0");
}

/* --- bury --------------------------------------------------------------------------------------------------------- */

struct burial { /* of one worker */
    struct ask *ask;
    char worker[UUID_TEXT];
};

static void burial_on_reply(void *ctx, enum err err, const redisReply *reply);

static void burial_go_on(struct burial *b)
{
    struct args args;
    args_init(&args, 2);
    args_text(&args, b->worker);
    args_int(&args, BURY_A_CALL);
    queue_run(b->ask->q, QUEUE_BURY, &args, burial_on_reply, b);
}

static void burial_on_reply(void *ctx, enum err err, const redisReply *reply)
{
    struct burial *b = ctx;
    struct ask *a = b->ask;
    int64_t left = 0;

    err = queue_err(a->q, err, reply);
    if (err == ERR_OK && reply->type == REDIS_REPLY_ARRAY && reply->elements == 2) {
        a->count += (size_t)reply->element[0]->integer;
        left = reply->element[1]->integer;
    }
    if (left > 0) {
        burial_go_on(b);
        return;
    }
    free(b);
    ask_part_done(a, err);
}

void queue_bury(struct queue *q, const char *const *workers, size_t count, queue_done_fn *fn, void *ctx)
{
    struct ask *a = ask_new(q, ctx);
    const char *ping[] = { "PING" };

    a->fn.done = fn;
    for (size_t i = 0; i < count; i++) {
        struct burial *b = must_alloc(sizeof(*b));
        b->ask = a;
        if (!uuid_lower(b->worker, workers[i])) {
            free(b);
            continue;
        }
        a->left++;
        burial_go_on(b);
    }
    redis_command(q->commands, ask_on_done, a, 1, ping, NULL); /* the part that a list of none has as well */
}
