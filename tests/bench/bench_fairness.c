/* bench_fairness.c - what turns, shares and limits cost: the queue's scripts beside bare ones without them, in one run.
 *
 * Two Redis servers on unix sockets get the same jobs; one runs schema/redis as it is (weights, a concurrency and a
 * budget set), the other the scripts below: one sorted set of all jobs by priority and age, nothing of apps, accounts,
 * caps or limits; claims, envelopes, events and repair as in the real ones. They take turns, so that a busy machine
 * disturbs both alike. Prints "ACCOUNTS PART REAL BARE" in microseconds of Redis' CPU a job, and "wall" lines, from the
 * client. */
#include <criterion/criterion.h>
#include "common/base/clock.h"
#include "common/base/embedded.h"
#include "common/base/text.h"
#include "common/core/queue_internal.h" /* the scripts as the queue loads them */
#include "redis_server.h"

enum { JOBS = 100000, PUBLISH = 200, CLAIM = 100, SLICE = 2000, ARGS = 11 * PUBLISH + 8 };

static const char bare_publish[] =
    "local fresh = 0\n"
    "for i = 1, #ARGV, 11 do\n"
    "  local J, L, prio, created = ARGV[i + 9], ARGV[i + 1], tonumber(ARGV[i + 4]), tonumber(ARGV[i + 5])\n"
    "  local lane = job_of(J)\n"
    "  if i == 1 then r('ZADD', P .. 'lanes', 'NX', 0, L) end\n"
    "  local is_claimed = r('HEXISTS', P .. 'claims:' .. L, J) == 1\n"
    "  if not lane and not is_claimed then\n"
    "    r('HSET', P .. 'job:' .. J, 'lane', L, 'app', ARGV[i + 2], 'account', ARGV[i + 3], 'prio', prio, 'created', created)\n"
    "    if ARGV[i + 10] ~= '' then redis.call('SET', P .. 'env:' .. J, ARGV[i + 10]) end\n"
    "    r('ZADD', P .. 'jobs:' .. L, score_of(prio, created), J)\n"
    "    fresh = fresh + 1\n"
    "  end\n"
    "end\n"
    "if fresh > 0 then tally(ARGV[2], slot_of(ARGV[6]), fresh) end\n"
    "if fresh > 0 then wake() end\n"
    "return fresh\n";
static const char bare_claim[] =
    "local W, SEQ, MAX = ARGV[1], ARGV[2], tonumber(ARGV[3])\n"
    "local taken, mine, theirs, keys, out, L = {}, {}, {}, {}, { -1 }, r('ZRANGE', P .. 'lanes', 0, 63)[1]\n"
    "r('ZRANGEBYSCORE', P .. 'delayed:' .. L, '-inf', now, 'LIMIT', 0, MAX + 64)\n"
    "local look = r('HRANDFIELD', P .. 'claims:' .. L, 1, 'WITHVALUES')\n"
    "if look[1] then r('HEXISTS', P .. 'worker:' .. look[2], look[1]) end\n"
    "local popped = r('ZPOPMIN', P .. 'jobs:' .. L, MAX)\n"
    "for i = 1, #popped, 2 do\n"
    "  local J = popped[i]\n"
    "  local lane = job_of(J)\n"
    "  if lane == L and #J == 36 and string.find(J, '^[%x-]+$') then\n"
    "    taken[#taken + 1] = J\n"
    "    mine[#mine + 1], mine[#mine + 2] = J, SEQ .. ':' .. L\n"
    "    theirs[#theirs + 1], theirs[#theirs + 2] = J, W\n"
    "    keys[#keys + 1], keys[#keys + 2] = P .. 'env:' .. J, P .. 'note:' .. J\n"
    "  end\n"
    "end\n"
    "if #taken == 0 then return out end\n"
    "tally(L, slot_of(popped[2]), -#taken)\n"
    "r('HSET', P .. 'worker:' .. W, unpack(mine))\n"
    "r('HSET', P .. 'claims:' .. L, unpack(theirs))\n"
    "local texts = redis.call('MGET', unpack(keys))\n"
    "local lost = r('EXISTS', P .. 'lost') == 1\n"
    "for i, J in ipairs(taken) do\n"
    "  local at = #out\n"
    "  out[at + 1], out[at + 2], out[at + 3], out[at + 4], out[at + 5] = J, L, texts[2 * i - 1], texts[2 * i], 0\n"
    "end\n"
    "if #taken == MAX and not lost then wake() end\n"
    "return out\n";
static const char bare_forget[] =
    "local W, ids, events, out, found, keys, theirs = ARGV[1], {}, {}, {}, {}, {}, {}\n"
    "for i = 2, #ARGV, 3 do\n"
    "  ids[#ids + 1] = ARGV[i]\n"
    "  events[#events + 1] = { job = ARGV[i], version = tonumber(ARGV[i + 1]), state = ARGV[i + 2] }\n"
    "end\n"
    "for i, L in ipairs(claims_of(W, ids)) do\n"
    "  local J = ids[i]\n"
    "  if L then\n"
    "    local theirs_of = theirs[L] or {}\n"
    "    theirs[L], theirs_of[#theirs_of + 1], found[#found + 1] = theirs_of, J, J\n"
    "  end\n"
    "  out[i] = L and r('HGET', P .. 'job:' .. J, 'lane') == L and 1 or 0\n"
    "  local n = #keys\n"
    "  keys[n + 1], keys[n + 2], keys[n + 3] = P .. 'job:' .. J, P .. 'env:' .. J, P .. 'note:' .. J\n"
    "end\n"
    "for L, list in pairs(theirs) do\n"
    "  r('HMGET', P .. 'claims:' .. L, unpack(list))\n"
    "  r('HDEL', P .. 'claims:' .. L, unpack(list))\n"
    "end\n"
    "r('HDEL', P .. 'worker:' .. W, unpack(found))\n"
    "r('SREM', P .. 'collecting:' .. W, unpack(found))\n"
    "redis.call('DEL', unpack(keys))\n"
    "if r('EXISTS', P .. 'lost') == 1 then r('SREM', P .. 'lost', unpack(found)) end\n"
    "tell(events)\n"
    "return out\n";

enum script { PUBLISH_JOBS, CLAIM_JOBS, FORGET_JOB, SET_LIMITS, SET_WEIGHTS, SCRIPTS };
static const char *const files[SCRIPTS] = { "publish.lua", "claim.lua", "forget.lua", "set_limits.lua",
                                            "set_weights.lua" };
static const char *const bare[SCRIPTS] = { bare_publish, bare_claim, bare_forget, NULL, NULL };

struct side {
    struct server server;
    char sha[SCRIPTS][48];
    double cpu_us, wall_us, start_cpu_us, start_wall_us;
};

static const struct embedded *embedded_named(const char *name)
{
    for (size_t i = 0; i < embedded_redis_count; i++)
        if (strcmp(embedded_redis[i].name, name) == 0)
            return &embedded_redis[i];
    cr_assert(false, "%s", name);
    return NULL;
}

static void side_start(struct side *s, bool is_bare)
{
    server_start(&s->server, NULL);
    for (size_t i = 0; i < SCRIPTS; i++) {
        const char *body = is_bare && bare[i] ? bare[i] : embedded_named(files[i])->text;
        char *source = queue_script_source(body);
        redisReply *sha = redisCommand(s->server.admin, "SCRIPT LOAD %s", source);
        cr_assert_eq(sha->type, REDIS_REPLY_STRING, "%s: %s", files[i], sha->str);
        (void)snprintf(s->sha[i], sizeof(s->sha[i]), "%s", sha->str);
        freeReplyObject(sha);
        free(source);
    }
}

static void call(struct side *s, enum script script, int argc, const char **argv) /* argv[0…3]: ours */
{
    argv[0] = "EVALSHA";
    argv[1] = s->sha[script];
    argv[2] = "1";
    argv[3] = "kiln:{0}:";
    cr_assert_eq(redisAppendCommandArgv(s->server.admin, argc, argv, NULL), REDIS_OK);
}

static redisReply *answer(struct side *s)
{
    redisReply *reply = NULL;
    cr_assert_eq(redisGetReply(s->server.admin, (void **)&reply), REDIS_OK);
    cr_assert_neq(reply->type, REDIS_REPLY_ERROR, "%s", reply->str);
    return reply;
}

static double cpu_us(struct side *s)
{
    redisReply *info = redisCommand(s->server.admin, "INFO cpu");
    double us = 1e6 * (atof(strstr(info->str, "used_cpu_sys:") + strlen("used_cpu_sys:")) +
                       atof(strstr(info->str, "used_cpu_user:") + strlen("used_cpu_user:")));
    freeReplyObject(info);
    return us;
}

static void begin(struct side *s)
{
    s->start_cpu_us = cpu_us(s);
    s->start_wall_us = (double)clock_mono_us();
}

static void end(struct side *s)
{
    s->wall_us += (double)clock_mono_us() - s->start_wall_us;
    s->cpu_us += cpu_us(s) - s->start_cpu_us;
}

static void publish_some(struct side *s, int from, int accounts)
{
    static char ids[PUBLISH][UUID_TEXT], names[PUBLISH][24], created[PUBLISH][24], envelope[301];
    const char *argv[ARGS];

    memset(envelope, 'e', sizeof(envelope) - 1);
    for (int done = 0; done < SLICE; done += PUBLISH) {
        int n = 4;
        for (int i = 0; i < PUBLISH; i++) {
            int k = from + done + i;
            (void)snprintf(ids[i], UUID_TEXT, "01900000-0000-7000-8000-%012d", k);
            (void)snprintf(names[i], sizeof(names[i]), "account-%d", k % accounts);
            (void)snprintf(created[i], sizeof(created[i]), "%lld", 1790000000000LL + k);
            const char *args[] = { "1",      "lane",  k % accounts % 2 ? "odd" : "even",
                                   names[i], "0",     created[i],
                                   "0",      "-1",    "1",
                                   ids[i],   envelope };
            memcpy(&argv[n], args, sizeof(args));
            n += 11;
        }
        call(s, PUBLISH_JOBS, n, argv);
        freeReplyObject(answer(s));
    }
}

static void claim_some(struct side *s, char (*ids)[UUID_TEXT])
{
    const char *argv[7] = { [4] = "019fffff-0000-7000-8000-000000000001", "1", "100" };
    int got = 0;

    for (int i = 0; i < SLICE / CLAIM; i++) {
        call(s, CLAIM_JOBS, 7, argv);
        redisReply *reply = answer(s);
        cr_assert_eq(reply->elements, 1 + 5 * CLAIM);
        for (size_t k = 1; k < reply->elements; k += 5)
            (void)snprintf(ids[got++], UUID_TEXT, "%s", reply->element[k]->str);
        freeReplyObject(reply);
    }
}

static void forget_some(struct side *s, char (*ids)[UUID_TEXT])
{
    const char *argv[5 + 3 * CLAIM] = { [4] = "019fffff-0000-7000-8000-000000000001" };

    for (int done = 0; done < SLICE; done += CLAIM) {
        for (int i = 0; i < CLAIM; i++) {
            const char *args[] = { ids[done + i], "2", "succeeded" };
            memcpy(&argv[5 + 3 * i], args, sizeof(args));
        }
        call(s, FORGET_JOB, ARRAY_LEN(argv), argv);
        freeReplyObject(answer(s));
    }
}

static void set_limits(struct side *s)
{
    const char *limits[] = { NULL, NULL, NULL, NULL, "lane", "1000000", "100000000", "10000", "1", "0" };
    const char *weights[] = { NULL, NULL, NULL, NULL, "odd", "", "2", "odd", "account-1", "3" };
    call(s, SET_LIMITS, ARRAY_LEN(limits), limits);
    freeReplyObject(answer(s));
    call(s, SET_WEIGHTS, ARRAY_LEN(weights), weights);
    freeReplyObject(answer(s));
}

enum part { PART_PUBLISH, PART_CLAIM, PART_FORGET, PARTS };
static const char *const part_names[PARTS] = { "publish", "claim", "forget" };

static void part(struct side *s, enum part what, int from, int accounts, char (*ids)[UUID_TEXT])
{
    begin(s);
    if (what == PART_PUBLISH)
        publish_some(s, from, accounts);
    else if (what == PART_CLAIM)
        claim_some(s, ids);
    else
        forget_some(s, ids);
    end(s);
}

static void measure(int accounts)
{
    static char ids[2][SLICE][UUID_TEXT];
    struct side *sides = calloc(2, sizeof(*sides));
    double all[2] = { 0 }, wall[2] = { 0 };
    redisReply *info;

    cr_assert_not_null(sides);
    for (int k = 0; k < 2; k++)
        side_start(&sides[k], k == 1);
    set_limits(&sides[0]);
    for (int from = 0; from < JOBS; from += SLICE) /* what waits already */
        for (int k = 0; k < 2; k++)
            publish_some(&sides[k], from, accounts);
    info = redisCommand(sides[0].server.admin, "INFO memory");
    printf("%d memory %lld 0\n", accounts, atoll(strstr(info->str, "used_memory:") + strlen("used_memory:")) / JOBS);
    freeReplyObject(info);
    double cpu[PARTS][2] = { 0 };
    for (int round = 0; round < 20; round++)
        for (enum part what = 0; what < PARTS; what++)
            for (int k = 0; k < 2; k++) {
                struct side *s = &sides[(round + k) % 2];
                int which = s == &sides[1];
                s->cpu_us = s->wall_us = 0;
                part(s, what, JOBS + round * SLICE, accounts, ids[which]);
                cpu[what][which] += s->cpu_us / (20.0 * SLICE);
                wall[which] += s->wall_us / (20.0 * SLICE);
            }
    for (enum part what = 0; what < PARTS; what++) {
        printf("%d %s %.2f %.2f\n", accounts, part_names[what], cpu[what][0], cpu[what][1]);
        all[0] += cpu[what][0];
        all[1] += cpu[what][1];
    }
    printf("%d all %.2f %.2f\n%d wall %.2f %.2f\n", accounts, all[0], all[1], accounts, wall[0], wall[1]);
    (void)fflush(stdout);
    for (int k = 0; k < 2; k++)
        server_stop(&sides[k].server);
    free(sides);
}

Test(bench_fairness, the_cost_of_turns_and_limits)
{
    static const int accounts[] = { 1, 10, 1000, 10000 };
    for (size_t i = 0; i < ARRAY_LEN(accounts); i++)
        measure(accounts[i]);
}
