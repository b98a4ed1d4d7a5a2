/* queue_calls.c - the calls of the queue that are one script, or one command. */
#include "common/core/queue.h"

#include <stdlib.h>
#include <string.h>

#include "common/core/queue_internal.h"

enum { ITEMS_A_CALL = 200, ENVELOPE_MAX_BYTES = 8192, LANES_MAX = 256 };

static struct ask *ask_done_new(struct queue *q, queue_done_fn *fn, void *ctx)
{
    struct ask *a = ask_new(q, ctx);
    a->fn.done = fn;
    return a;
}

static void run_nothing(struct queue *q, struct ask *a) /* the answer comes from the loop all the same */
{
    const char *argv[] = { "PING" };
    redis_command(q->commands, ask_on_done, a, 1, argv, NULL);
}

static bool is_same(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

static bool are_alike(const struct queue_item *a, const struct queue_item *b) /* but for job and envelope */
{
    return a->priority == b->priority && a->created_ms == b->created_ms && a->delay_ms == b->delay_ms &&
           a->account_cap == b->account_cap && a->is_new == b->is_new && is_same(a->lane, b->lane) &&
           is_same(a->app, b->app) && is_same(a->account, b->account);
}

static void publish_chunk(struct queue *q, const struct queue_item *items, size_t count, struct ask *a)
{
    const struct queue_item *end = items + count;
    struct args args;

    args_init(&args, count * 11); /* none like the next */
    for (const struct queue_item *item = items, *next; item < end; item = next) {
        for (next = item + 1; next < end && are_alike(item, next);)
            next++;
        args_int(&args, next - item);
        args_text(&args, item->lane);
        args_text(&args, item->app);
        args_text(&args, item->account);
        args_int(&args, item->priority);
        args_int(&args, item->created_ms);
        args_int(&args, item->delay_ms);
        args_int(&args, item->account_cap);
        args_int(&args, item->is_new);
        for (const struct queue_item *one = item; one < next; one++) {
            bool fits = one->envelope && strlen(one->envelope) <= ENVELOPE_MAX_BYTES;

            args_text(&args, one->job);
            args_text(&args, fits ? one->envelope : NULL);
        }
    }
    queue_run(q, QUEUE_PUBLISH, &args, ask_on_done, a);
}

void queue_publish(struct queue *q, const struct queue_item *items, size_t count, queue_done_fn *fn, void *ctx)
{
    struct ask *a = ask_done_new(q, fn, ctx);
    if (count == 0) {
        run_nothing(q, a);
        return;
    }
    a->left = (count + ITEMS_A_CALL - 1) / ITEMS_A_CALL;
    for (size_t i = 0; i < count; i += ITEMS_A_CALL)
        publish_chunk(q, items + i, count - i < ITEMS_A_CALL ? count - i : ITEMS_A_CALL, a);
}

void queue_cancel(struct queue *q, const char *job, int64_t version, const char *holder, queue_done_fn *fn, void *ctx)
{
    struct args args;
    args_init(&args, 3);
    args_text(&args, job);
    args_int(&args, version);
    args_text(&args, holder);
    queue_run(q, QUEUE_CANCEL, &args, ask_on_done, ask_done_new(q, fn, ctx));
}

void queue_pause(struct queue *q, const char *lane, int64_t ms, queue_done_fn *fn, void *ctx)
{
    struct args args;
    args_init(&args, 2);
    args_text(&args, lane);
    args_int(&args, ms);
    queue_run(q, QUEUE_PAUSE, &args, ask_on_done, ask_done_new(q, fn, ctx));
}

void queue_set_limits(struct queue *q, const struct queue_limits *limits, size_t count, queue_done_fn *fn, void *ctx)
{
    struct args args;
    args_init(&args, count * 6);
    for (size_t i = 0; i < count; i++) {
        args_text(&args, limits[i].lane);
        args_int(&args, limits[i].concurrency);
        args_int(&args, limits[i].budget_count);
        args_int(&args, limits[i].budget_window_ms);
        args_int(&args, limits[i].keys > 0 ? limits[i].keys : 1);
        args_int(&args, limits[i].paused_ms);
    }
    queue_run(q, QUEUE_SET_LIMITS, &args, ask_on_done, ask_done_new(q, fn, ctx));
}

void queue_set_weights(struct queue *q, const struct queue_weight *weights, size_t count, queue_done_fn *fn, void *ctx)
{
    struct args args;
    if (count > QUEUE_WEIGHTS_MAX)
        count = QUEUE_WEIGHTS_MAX; /* one script call, and none may hold Redis up for long */
    args_init(&args, count * 3);
    for (size_t i = 0; i < count; i++) {
        args_text(&args, weights[i].app);
        args_text(&args, weights[i].account);
        args_int(&args, weights[i].weight);
    }
    queue_run(q, QUEUE_SET_WEIGHTS, &args, ask_on_done, ask_done_new(q, fn, ctx));
}

static void progress_on_reply(void *ctx, enum err err, const redisReply *reply)
{
    struct ask *a = ctx;
    const char *phase = NULL;
    int64_t percent = -1;

    if (err == ERR_REFUSED)
        err = ERR_OK; /* what is not a hash has no phase */
    else if (err == ERR_OK && reply->type == REDIS_REPLY_ARRAY && reply->elements == 2) {
        phase = reply->element[0]->type == REDIS_REPLY_STRING ? reply->element[0]->str : NULL;
        if (!phase || reply->element[1]->type != REDIS_REPLY_STRING ||
            parse_i64(reply->element[1]->str, -1, 100, &percent) != ERR_OK)
            percent = -1;
    }
    a->fn.progress(a->ctx, err, phase, (int)percent);
    free(a);
}

void queue_progress_of(struct queue *q, const char *job, queue_progress_fn *fn, void *ctx)
{
    char key[128] = QUEUE_PREFIX "job:";
    const char *argv[] = { "HMGET", key, "phase", "percent" };
    struct ask *a = ask_new(q, ctx);
    a->fn.progress = fn;
    strncat(key, job, sizeof(key) - strlen(key) - 1);
    queue_flush(q);
    redis_command(q->commands, progress_on_reply, a, 4, argv, NULL);
}

static int64_t reply_int(const redisReply *r)
{
    return r->type == REDIS_REPLY_INTEGER ? r->integer : 0;
}

static void stats_on_reply(void *ctx, enum err err, const redisReply *reply)
{
    struct ask *a = ctx;
    struct queue_lane_stats lanes[LANES_MAX];
    size_t count = 0;

    err = queue_err(a->q, err, reply);
    if (err == ERR_OK && reply->type == REDIS_REPLY_ARRAY) {
        for (size_t i = 0; i + 5 < reply->elements && count < LANES_MAX; i += 6) {
            redisReply **r = reply->element + i;
            if (r[0]->type != REDIS_REPLY_STRING)
                continue;
            lanes[count++] = (struct queue_lane_stats){
                .lane = r[0]->str,
                .ready = reply_int(r[1]),
                .delayed = reply_int(r[2]),
                .claimed = reply_int(r[3]),
                .oldest_ms = reply_int(r[4]),
                .paused_ms = reply_int(r[5]),
            };
        }
    }
    a->fn.stats(a->ctx, err, lanes, count);
    free(a);
}

void queue_stats(struct queue *q, queue_stats_fn *fn, void *ctx)
{
    struct args args;
    struct ask *a = ask_new(q, ctx);
    a->fn.stats = fn;
    args_init(&args, 0);
    queue_run(q, QUEUE_STATS, &args, stats_on_reply, a);
}

static void marker_on_reply(void *ctx, enum err err, const redisReply *reply)
{
    struct ask *a = ctx;
    const char *text = err == ERR_OK && reply->type == REDIS_REPLY_STRING ? reply->str : NULL;
    a->fn.text(a->ctx, err == ERR_REFUSED ? ERR_OK : err, text); /* refused: it is no string, so it is not there */
    free(a);
}

void queue_marker(struct queue *q, queue_text_fn *fn, void *ctx)
{
    const char *argv[] = { "GET", QUEUE_PREFIX "marker" };
    struct ask *a = ask_new(q, ctx);
    a->fn.text = fn;
    redis_command(q->commands, marker_on_reply, a, 2, argv, NULL);
}

void queue_set_marker(struct queue *q, const char *expected, const char *marker, queue_done_fn *fn, void *ctx)
{
    struct args args;
    args_init(&args, 2);
    args_text(&args, expected);
    args_text(&args, marker);
    queue_run(q, QUEUE_SET_MARKER, &args, ask_on_done, ask_done_new(q, fn, ctx));
}

static void policy_on_reply(void *ctx, enum err err, const redisReply *reply)
{
    struct ask *a = ctx;
    char policy[64] = "";
    const char *found = err == ERR_OK && reply->str ? strstr(reply->str, "maxmemory_policy:") : NULL;

    if (found) {
        found += strlen("maxmemory_policy:");
        strncat(policy, found, strcspn(found, "\r\n") < sizeof(policy) ? strcspn(found, "\r\n") : sizeof(policy) - 1);
    }
    a->fn.text(a->ctx, err == ERR_REFUSED ? ERR_OK : err, policy[0] ? policy : NULL);
    free(a);
}

void queue_check_policy(struct queue *q, queue_text_fn *fn, void *ctx)
{
    const char *argv[] = { "INFO", "memory" }; /* not CONFIG GET: hosted servers refuse that */
    struct ask *a = ask_new(q, ctx);
    a->fn.text = fn;
    redis_command(q->commands, policy_on_reply, a, 2, argv, NULL);
}
