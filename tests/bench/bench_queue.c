/* bench_queue.c - what a publish, a claim and a forget cost, with few and with very many jobs queued.
 *
 * One process against one Redis of its own on a unix socket. Lines of JOBS ACCOUNTS PART, then microseconds a job, the
 * median of the rounds: Redis' own CPU time, which a busy machine disturbs less, and wall time. Claims are of a
 * hundred. Beside them, as a floor, the record and the envelope of random jobs of that queue are read by plain
 * commands: what that costs more among many keys is Redis' own (a claim goes roughly in order, so the floor may
 * overstate it). */
#include <limits.h>
#include "common/base/clock.h"
#include "queue_world.h"

enum { CHUNK = 2000, BATCH = 100, PIECE = 500, PIECES = 8, ROUNDS = 5 };

struct cost {
    double wall_us, redis_us;
};

static uint64_t dice = 20261129;

static struct cost now(struct world *w)
{
    struct cost c = { .wall_us = (double)clock_mono_us() };
    redisReply *info = redisCommand(w->server.admin, "INFO cpu");
    c.redis_us = 1e6 * (atof(strstr(info->str, "used_cpu_sys:") + strlen("used_cpu_sys:")) +
                        atof(strstr(info->str, "used_cpu_user:") + strlen("used_cpu_user:")));
    freeReplyObject(info);
    return c;
}

static struct cost since(struct world *w, struct cost start, int jobs)
{
    struct cost end = now(w);
    return (struct cost){ (end.wall_us - start.wall_us) / jobs, (end.redis_us - start.redis_us) / jobs };
}

static struct cost publish_spread(struct world *w, int from, int count, int accounts)
{
    static struct queue_item items[CHUNK];
    static char ids[CHUNK][UUID_TEXT], names[CHUNK][24];
    static char envelope[301];
    struct cost start = now(w);

    memset(envelope, 'e', sizeof(envelope) - 1);
    for (int done = 0; done < count; done += CHUNK) {
        int n = count - done < CHUNK ? count - done : CHUNK;
        for (int i = 0; i < n; i++) {
            int k = from + done + i;
            (void)snprintf(ids[i], UUID_TEXT, "%s", job_id(k));
            (void)snprintf(names[i], sizeof(names[i]), "account-%d", k % accounts);
            items[i] = (struct queue_item){ .job = ids[i],
                                            .lane = "lane",
                                            .app = k % accounts % 2 ? "odd" : "even",
                                            .account = names[i],
                                            .created_ms = 1790000000000 + k,
                                            .envelope = envelope,
                                            .is_new = true };
        }
        ASK(w, queue_publish(w->at[0].q, items, (size_t)n, on_done, &w->a));
    }
    return since(w, start, count);
}

static struct cost claim_batches(struct world *w, char (*ids)[UUID_TEXT])
{
    struct cost start = now(w);
    for (int i = 0; i < PIECE / BATCH; i++) {
        cr_assert_eq(claim(w, 1, BATCH), BATCH);
        for (int k = 0; k < BATCH; k++)
            memcpy(ids[i * BATCH + k], w->a.claims[k].job, UUID_TEXT);
    }
    return since(w, start, PIECE);
}

static struct cost read_some(struct world *w, int from, int count)
{
    static char records[BATCH][80], envelopes[BATCH][80];
    const char *argv[BATCH + 1] = { "MGET" };
    struct cost start = now(w);

    for (int done = 0; done < PIECE; done += BATCH) {
        for (int i = 0; i < BATCH; i++) {
            dice = dice * 6364136223846793005u + 1442695040888963407u;
            const char *id = job_id(from + (int)((dice >> 33) % (unsigned)count));
            (void)snprintf(records[i], sizeof(records[i]), "kiln:{0}:job:%s", id);
            (void)snprintf(envelopes[i], sizeof(envelopes[i]), "kiln:{0}:env:%s", id);
            argv[i + 1] = envelopes[i];
            redisAppendCommand(w->server.admin, "HMGET %s lane app account", records[i]);
        }
        redisAppendCommandArgv(w->server.admin, BATCH + 1, argv, NULL);
        for (int i = 0; i <= BATCH; i++) {
            redisReply *r = NULL;
            cr_assert_eq(redisGetReply(w->server.admin, (void **)&r), REDIS_OK);
            cr_assert(r->elements > 0 && r->element[0]->type == REDIS_REPLY_STRING, "a job that is not there");
            freeReplyObject(r);
        }
    }
    return since(w, start, PIECE);
}

static struct cost forget_all(struct world *w, char (*ids)[UUID_TEXT])
{
    struct cost start = now(w);
    w->a.answers = 0;
    for (int i = 0; i < PIECE; i++)
        queue_forget(w->at[1].q, ids[i], 1, "succeeded", on_done, &w->a);
    cr_assert(support_run_count(&w->loop, &w->a.answers, PIECE, WAIT_MS));
    return since(w, start, PIECE);
}

static long long used_memory(struct world *w)
{
    redisReply *info = redisCommand(w->server.admin, "INFO memory");
    long long bytes = atoll(strstr(info->str, "used_memory:") + strlen("used_memory:"));
    freeReplyObject(info);
    return bytes;
}

enum part { PUBLISH, CLAIM, FORGET, FLOOR, PARTS };

static int by_redis(const void *a, const void *b)
{
    double x = ((const struct cost *)a)->redis_us, y = ((const struct cost *)b)->redis_us;
    return (x > y) - (x < y);
}

struct size {
    int queued, accounts, next;
    long long memory;
    struct world *w;
    struct cost costs[PARTS][ROUNDS];
};

static void size_open(struct size *s)
{
    s->w = world_new(1);
    s->memory = used_memory(s->w);
    (void)publish_spread(s->w, 0, s->queued, s->accounts);
    s->memory = used_memory(s->w) - s->memory;
    s->next = s->queued;
}

/* As many stay queued: what is claimed and forgotten is published anew. */
static void size_turn(struct size *s, int round)
{
    static char ids[PIECE][UUID_TEXT];
    struct cost one[PARTS] = { 0 };

    uv_update_time(&s->w->loop); /* it stood still while the others had their turns: nothing of it is overdue */
    one[CLAIM] = claim_batches(s->w, ids);
    one[FORGET] = forget_all(s->w, ids);
    one[PUBLISH] = publish_spread(s->w, s->next, PIECE, s->accounts);
    s->next += PIECE;
    int aside = s->accounts < s->queued / 4 ? s->accounts : s->queued / 4; /* accounts' order is not that of the jobs */
    one[FLOOR] = read_some(s->w, s->next - s->queued + aside, s->queued - 2 * aside); /* last: it warms caches */
    for (int p = 0; p < PARTS && round >= 0; p++) {
        s->costs[p][round].wall_us += one[p].wall_us / PIECES;
        s->costs[p][round].redis_us += one[p].redis_us / PIECES;
    }
}

static void size_close(struct size *s)
{
    static const char *const names[PARTS] = { "publish", "claim", "forget", "floor" };

    for (int p = 0; p < PARTS; p++) {
        qsort(s->costs[p], ROUNDS, sizeof(s->costs[p][0]), by_redis);
        printf("%d %d %s %.2f %.2f\n", s->queued, s->accounts, names[p], s->costs[p][ROUNDS / 2].redis_us,
               s->costs[p][ROUNDS / 2].wall_us);
    }
    printf("%d %d memory %lld 0\n", s->queued, s->accounts, s->memory / s->queued);
    (void)fflush(stdout);
    world_free(s->w);
}

/* Each size has a server of its own, and they take turns: what else the machine does meets all of them. */
Test(bench_queue, costs_by_size)
{
    static struct size sizes[] = { { .queued = 1000, .accounts = 10 },
                                   { .queued = 100000, .accounts = 10 },
                                   { .queued = 1000000, .accounts = 10 },
                                   { .queued = 100000, .accounts = 10000 },
                                   { .queued = 1000000, .accounts = 10000 } };
    const char *text = getenv("BENCH_QUEUED"); /* for a quick look */
    int most = text ? atoi(text) : INT_MAX;

    for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
        if (sizes[i].queued <= most)
            size_open(&sizes[i]);
    for (int round = -1; round < ROUNDS; round++) /* the first is not counted */
        for (int piece = 0; piece < PIECES; piece++)
            for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
                if (sizes[i].w)
                    size_turn(&sizes[i], round);
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
        if (sizes[i].w)
            size_close(&sizes[i]);
}

Test(bench_queue, a_single_job_at_a_time)
{
    struct world *w = world_new(1);
    struct cost start = now(w);
    for (int i = 0; i < 5000; i++) {
        publish(w, item(i, "lane", "app", "a"));
        cr_assert_eq(claim(w, 1, 1), 1);
        forget(w, 1, w->a.claims[0].job);
    }
    struct cost c = since(w, start, 5000);
    printf("1 1 alone %.2f %.2f\n", c.redis_us, c.wall_us);
    world_free(w);
}
