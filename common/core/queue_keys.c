/* queue_keys.c - the calls about a provider's several keys: which one is next, what the provider said about one. */
#include "common/core/queue.h"

#include <stdlib.h>
#include <string.h>

#include "common/core/queue_internal.h"

static int64_t number_at(const redisReply *reply, size_t i, int64_t otherwise)
{
    return i < reply->elements && reply->element[i]->type == REDIS_REPLY_INTEGER ? reply->element[i]->integer
                                                                                 : otherwise;
}

static void pick_on_reply(void *ctx, enum err err, const redisReply *reply)
{
    struct ask *a = ctx;
    int64_t which = -1, wait_ms = 0;
    bool is_probe = false;

    err = queue_err(a->q, err, reply);
    if (err == ERR_OK && reply->type == REDIS_REPLY_ARRAY) {
        which = number_at(reply, 0, -1);
        wait_ms = number_at(reply, 1, 0);
        is_probe = number_at(reply, 2, 0) == 1;
    }
    if (which < -1 || which >= (int64_t)a->n)
        which = -1;
    a->fn.key(a->ctx, err, (int)which, wait_ms, is_probe);
    free(a);
}

void queue_key_pick(struct queue *q, const char *lane, const char *const *keys, size_t count, queue_key_fn *fn,
                    void *ctx)
{
    struct args args;
    struct ask *a = ask_new(q, ctx);

    a->fn.key = fn;
    a->n = count;
    args_init(&args, count + 1);
    args_text(&args, lane);
    for (size_t i = 0; i < count; i++)
        args_text(&args, keys[i]);
    queue_run(q, QUEUE_KEY_PICK, &args, pick_on_reply, a);
}

static void tell_on_reply(void *ctx, enum err err, const redisReply *reply)
{
    struct ask *a = ctx;
    struct queue_key_state states[QUEUE_KEYS_MAX] = { { 0, 0, 0, "" } };
    size_t count = 0;
    int64_t next_ms = -1;

    err = queue_err(a->q, err, reply);
    if (err == ERR_OK && reply->type == REDIS_REPLY_ARRAY) {
        next_ms = number_at(reply, 0, -1);
        for (size_t i = 1; i + 3 < reply->elements && count < QUEUE_KEYS_MAX; i += 4)
            states[count++] = (struct queue_key_state){
                .paused_ms = number_at(reply, i, 0),
                .out_ms = number_at(reply, i + 1, 0),
                .failures = number_at(reply, i + 2, 0),
                .code = reply->element[i + 3]->type == REDIS_REPLY_STRING ? reply->element[i + 3]->str : "",
            };
    }
    if (a->fn.keys)
        a->fn.keys(a->ctx, err, next_ms, states, count);
    free(a);
}

void queue_key_tell(struct queue *q, const char *lane, const char *const *keys, size_t count, size_t which,
                    enum queue_key_fact fact, int64_t ms, const char *code, queue_keys_fn *fn, void *ctx)
{
    static const char *const words[] = { "look", "pause", "out", "good" };
    struct args args;
    struct ask *a = ask_new(q, ctx);

    a->fn.keys = fn;
    args_init(&args, count + 5);
    args_text(&args, lane);
    args_text(&args, words[fact]);
    args_int(&args, ms);
    args_text(&args, code);
    args_text(&args, which < count ? keys[which] : NULL);
    for (size_t i = 0; i < count; i++)
        args_text(&args, keys[i]);
    queue_run(q, QUEUE_KEY_TELL, &args, tell_on_reply, a);
}
