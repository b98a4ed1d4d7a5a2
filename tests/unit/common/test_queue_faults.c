/* test_queue_faults.c - the queue wakes who should wake, and stays right when Redis is emptied, restarted, full of
 * garbage or away. */
#include "queue_world.h"

/* --- waking ------------------------------------------------------------------------------------------------------- */

static void nobody(void *ctx, enum err err, size_t count)
{
    (void)ctx;
    (void)err;
    (void)count;
}

static void claims_all(struct world *w, int at)
{
    w->at[at].claims_on_wake = true;
    place_claim(&w->at[at]);
}

Test(queue_faults, no_wake_up_is_lost)
{
    struct world *w = world_new(1);
    claims_all(w, 1);
    for (int i = 0; i < 400; i++) {
        struct queue_item it = item(i, "lane", "app", "a");
        queue_publish(w->at[0].q, &it, 1, nobody, NULL);
        if (i % 3 == 0)
            place_claim(&w->at[1]); /* a claim under way, before or after */
        if (i % 5 == 0)
            (void)uv_run(&w->loop, UV_RUN_NOWAIT);
        if (i % 2 == 0)
            cr_assert(support_run_count(&w->loop, &w->at[1].own_claims, i + 1, PROMPT_MS), "%d", i);
    }
    cr_assert(support_run_count(&w->loop, &w->at[1].own_claims, 400, PROMPT_MS));
    world_free(w);
}

Test(queue_faults, a_worker_that_is_full_gives_the_wake_up_to_another)
{
    struct world *w = world_new(3);
    claims_all(w, 1);
    claims_all(w, 2);
    claims_all(w, 3);
    run_ms(w, 100); /* all asleep */
    w->at[1].claims_on_wake = false;
    w->at[3].claims_on_wake = false;
    for (int i = 0; i < 4; i++) {
        publish(w, item(i, "lane", "app", "a"));
        cr_assert(support_run_count(&w->loop, &w->at[2].own_claims, i + 1, PROMPT_MS), "%d", i);
    }
    world_free(w);
}

static bool all_hold_some(void *ctx)
{
    struct world *w = ctx;
    int sum = 0, least = 25;
    for (int i = 1; i <= 3; i++) {
        sum += w->at[i].own_claims;
        least = least < w->at[i].own_claims ? least : w->at[i].own_claims;
    }
    return sum == 25 && least == 5;
}

Test(queue_faults, a_claim_that_leaves_work_wakes_the_next_sleeper)
{
    struct world *w = world_new(3);
    for (int i = 1; i <= 3; i++) {
        w->at[i].claims_once = true;
        claims_all(w, i);
    }
    run_ms(w, 100);
    publish_many(w, 0, 25, "lane", "app", "a"); /* one token */
    cr_assert(support_run_until(&w->loop, all_hold_some, w, PROMPT_MS));
    world_free(w);
}

Test(queue_faults, a_lane_that_was_full_wakes_somebody_when_it_has_room)
{
    struct world *w = world_new(2);
    limits(w, (struct queue_limits){ .lane = "lane", .concurrency = 2 });
    publish_many(w, 0, 3, "lane", "app", "a");
    cr_expect_eq(claim(w, 1, 2), 2);
    claims_all(w, 2);
    run_ms(w, 100);
    cr_expect_eq(w->at[2].own_claims, 0);
    forget(w, 1, job_id(0));
    cr_assert(support_run_count(&w->loop, &w->at[2].own_claims, 1, PROMPT_MS));
    world_free(w);
}

Test(queue_faults, a_full_worker_leaves_the_tokens_alone_and_they_do_not_pile_up)
{
    struct world *w = world_new(1);
    publish_many(w, 0, 20, "lane", "app", "a");
    cr_expect_eq(claim(w, 1, 10), 10);
    int wakes = w->at[1].wakes;
    run_ms(w, 200);
    for (int i = 0; i < 50; i++)
        publish(w, item(100 + i, "lane", "app", "a"));
    run_ms(w, 1000);
    cr_expect_eq(w->at[1].wakes, wakes);
    long long tokens = server_do(&w->server, "LLEN kiln:{0}:wake");
    cr_expect(tokens >= 1 && tokens <= 4, "%lld", tokens);
    world_free(w);
}

Test(queue_faults, an_idle_worker_does_not_spin)
{
    struct world *w = world_new(1);
    limits(w, (struct queue_limits){ .lane = "lane", .concurrency = 1 });
    publish_many(w, 0, 2, "lane", "app", "a"); /* work that nobody may have */
    claims_all(w, 1);
    run_ms(w, 200);
    long long before = server_commands(&w->server);
    int wakes = w->at[1].wakes;
    run_ms(w, 5000);
    long long commands = server_commands(&w->server) - before;
    cr_expect(commands < 80, "%lld commands in 5 s", commands); /* two claims of some twenty commands inside */
    cr_expect(w->at[1].wakes - wakes >= 1 && w->at[1].wakes - wakes <= 3, "the slow safety claim: %d",
              w->at[1].wakes - wakes);
    world_free(w);
}

/* --- Redis goes, empties, restarts -------------------------------------------------------------------------------- */

Test(queue_faults, a_restart_is_seen_as_another_life_and_the_sleeper_sleeps_again)
{
    struct world *w = world_new(1);
    char life[64];
    claims_all(w, 1);
    memcpy(life, w->at[0].run_id, sizeof(life));
    cr_expect_eq(strlen(life), 40);
    run_ms(w, 50);
    server_kill(&w->server);
    cr_assert(support_run_count(&w->loop, &w->at[0].downs, 1, WAIT_MS));
    cr_assert(support_run_count(&w->loop, &w->at[1].downs, 1, WAIT_MS));
    cr_expect_not(queue_is_up(w->at[0].q));
    publish(w, item(1, "lane", "app", "a"));
    cr_expect_eq(w->a.err, ERR_UNAVAILABLE);
    server_start(&w->server, NULL);
    cr_assert(support_run_count(&w->loop, &w->at[0].ups, 2, WAIT_MS));
    cr_assert(support_run_count(&w->loop, &w->at[1].ups, 2, WAIT_MS));
    cr_expect_str_neq(w->at[0].run_id, life);
    for (int i = 1; i <= 3; i++) {
        run_ms(w, 100);
        cr_expect_eq(publish(w, item(i, "lane", "app", "a")), 1);
        cr_assert(support_run_count(&w->loop, &w->at[1].own_claims, i, i == 1 ? WAIT_MS : PROMPT_MS));
    }
    world_free(w);
}

Test(queue_faults, flushed_data_and_scripts_in_mid_flight_cost_no_error)
{
    struct world *w = world_new(1);
    publish_many(w, 0, 50, "lane", "app", "a");
    cr_expect_eq(claim(w, 1, 10), 10);
    for (int round = 0; round < 20; round++) {
        w->a.answers = 0;
        for (int i = 0; i < 10; i++) {
            struct queue_item it = item(i, "lane", "app", "a");
            queue_publish(w->at[0].q, &it, 1, on_done, &w->a);
            queue_note(w->at[1].q, job_id(i), 1, "{}", on_done, &w->a);
            queue_forget(w->at[1].q, job_id(i), 1, "failed", on_done, &w->a);
            queue_claim(w->at[1].q, 1, on_claim, &w->a);
        }
        (void)uv_run(&w->loop, UV_RUN_NOWAIT);
        server_do(&w->server, round % 2 ? "FLUSHALL" : "SCRIPT FLUSH");
        cr_assert(support_run_count(&w->loop, &w->a.answers, 40, WAIT_MS));
        cr_expect_eq(w->a.err, ERR_OK);
    }
    world_free(w);
}

Test(queue_faults, after_a_flush_holders_keep_their_jobs_and_notes)
{
    struct world *w = world_new(2);
    const char *jobs[] = { "01900000-0000-7000-8000-000000000000" }, *lanes[] = { "lane" };
    publish_many(w, 0, 3, "lane", "app", "a");
    cr_expect_eq(claim(w, 1, 1), 1);
    server_do(&w->server, "FLUSHALL");
    cr_expect_eq(ASK(w, queue_resync(w->at[1].q, jobs, lanes, 1, on_done, &w->a)), 1);
    cr_expect_eq(ASK(w, queue_note(w->at[1].q, jobs[0], 1, "{\"outcome\":{}}", on_done, &w->a)), 1);
    queue_progress(w->at[1].q, jobs[0], "waiting", -1);
    cr_assert(support_run_count(&w->loop, &w->at[0].events, 1, 1000));
    cr_expect_eq(publish(w, item(0, "lane", "app", "a")), 0);
    cr_expect_eq(publish(w, item(1, "lane", "app", "a")), 1);
    cr_expect_eq(claim(w, 2, 10), 1);
    ASK(w, queue_bury(w->at[0].q, (const char *[]){ w->at[1].worker }, 1, on_done, &w->a));
    cr_expect_eq(claim(w, 2, 10), 1);
    cr_expect_str_eq(w->a.claims[0].job, jobs[0]);
    cr_expect_str_eq(w->a.claims[0].note, "{\"outcome\":{}}");
    world_free(w);
}

Test(queue_faults, a_full_redis_refuses_without_losing_anything_and_still_forgets)
{
    struct world *w = world_new(1);
    publish_many(w, 0, 5, "lane", "app", "a");
    cr_expect_eq(claim(w, 1, 1), 1);
    server_do(&w->server, "CONFIG SET maxmemory 1");
    publish(w, item(100, "lane", "app", "a"));
    cr_expect_eq(w->a.err, ERR_UNAVAILABLE);
    cr_expect_eq(forget(w, 1, job_id(0)), 1);
    cr_expect_eq(w->a.err, ERR_OK);
    server_do(&w->server, "CONFIG SET maxmemory 0");
    cr_expect_eq(claim(w, 1, 100), 4);
    world_free(w);
}

static int answered;
struct again {
    struct queue *q;
    bool was_asked;
};

static void on_last(void *ctx, enum err err, size_t count)
{
    struct again *again = ctx;
    (void)count;
    cr_expect(err == ERR_CLOSED || err == ERR_OK);
    answered++;
    if (!again->was_asked) { /* a caller that does not know yet that we close */
        again->was_asked = true;
        queue_forget(again->q, job_id(1), 1, NULL, on_last, again);
    }
}

static void on_last_spend(void *ctx, enum err err, int64_t ms)
{
    (void)ctx;
    (void)ms;
    cr_expect(err == ERR_CLOSED || err == ERR_OK);
    answered++;
}

Test(queue_faults, closing_answers_every_call_once)
{
    struct world *w = world_new(1);
    struct queue *q = w->at[1].q;
    struct again ctx = { q, false };
    publish_many(w, 0, 100, "lane", "app", "a");
    answered = 0;
    queue_forget(q, job_id(1), 1, NULL, on_last, &ctx);
    queue_spend(q, "lane", 1, on_last_spend, NULL);
    queue_resync(q, NULL, NULL, 0, on_last, &ctx);
    queue_bury(q, (const char *[]){ w->at[0].worker }, 1, on_last, &ctx);
    queue_close(q, place_on_closed, &w->at[1]);
    queue_spend(q, "lane", 1, on_last_spend, NULL);
    cr_assert(support_run_count(&w->loop, &w->at[1].closed, 1, WAIT_MS));
    cr_expect_eq(answered, 6, "%d", answered);
    w->at[1].q = NULL;
    world_free(w);
}

/* --- garbage ------------------------------------------------------------------------------------------------------ */

static unsigned dice_state;
static unsigned dice(unsigned sides)
{
    dice_state = dice_state * 1664525u + 1013904223u;
    return (dice_state >> 8) % sides;
}

enum { JOBS = 24 };

static void publish_all(struct world *w)
{
    for (int i = 0; i < JOBS; i++) {
        struct queue_item it = item(i, i % 2 ? "one" : "two", i % 3 ? "app" : "other", i % 5 ? "a" : "b");
        it.account_cap = i % 5 ? 0 : 3;
        it.delay_ms = i % 7 == 0 ? 1 : 0;
        publish(w, it);
        cr_assert_eq(w->a.err, ERR_OK);
    }
}

static void everything_once(struct world *w)
{
    struct queue *d = w->at[0].q, *q = w->at[1].q;
    const char *held[] = { job_id(1), job_id(2) }, *lanes[] = { "one", "two" };
    publish_all(w);
    claim(w, 1, 5);
    claim(w, 2, 3);
    ASK(w, queue_note(q, job_id((int)dice(JOBS)), 1, "{}", on_done, &w->a));
    cr_assert_eq(w->a.err, ERR_OK);
    queue_collecting(q, job_id((int)dice(JOBS)), true, NULL, NULL);
    ASK(w, queue_put_back(q, job_id((int)dice(JOBS)), NULL, dice(2), dice(2), on_done, &w->a));
    cr_assert_eq(w->a.err, ERR_OK);
    ASK(w, queue_resync(w->at[2].q, held, lanes, 2, on_done, &w->a));
    cr_assert_eq(w->a.err, ERR_OK);
    ASK(w, queue_cancel(d, job_id((int)dice(JOBS)), 1, w->at[1].worker, on_done, &w->a));
    cr_assert_eq(w->a.err, ERR_OK);
    ASK(w, queue_bury(d, (const char *[]){ w->at[2].worker }, 1, on_done, &w->a));
    cr_assert_eq(w->a.err, ERR_OK);
    ASK(w, queue_pause(d, "two", 1, on_done, &w->a));
    cr_assert_eq(w->a.err, ERR_OK);
    limits(w, (struct queue_limits){ .lane = "one", .concurrency = 6, .budget_count = 1000, .budget_window_ms = 10 });
    cr_assert_eq(w->a.err, ERR_OK);
    limits(w, (struct queue_limits){ .lane = "two" });
    cr_assert_eq(w->a.err, ERR_OK);
    ASK(w, queue_spend(q, "one", 1, on_spend, &w->a));
    cr_assert_eq(w->a.err, ERR_OK);
    queue_progress(q, job_id((int)dice(JOBS)), "waiting", 1);
    ASK(w, queue_progress_of(d, job_id((int)dice(JOBS)), on_progress, &w->a));
    cr_assert_eq(w->a.err, ERR_OK);
    stats(w, "one");
    cr_assert_eq(w->a.err, ERR_OK);
    forget(w, 1, job_id((int)dice(JOBS)));
    cr_assert_eq(w->a.err, ERR_OK);
    ASK(w, queue_marker(d, on_text, &w->a));
    cr_assert_eq(w->a.err, ERR_OK);
}

/* Spoils one key: another kind, other members, half a hash, absurd numbers. */
static void spoil(struct world *w, const char *key)
{
    static const char *const words[] = { "x", "", "-1", "nan", "inf", "1e300", "0x10", "9223372036854775807", "a:b:c" };
    const char *word = words[dice(ARRAY_LEN(words))];
    redisReply *type = redisCommand(w->server.admin, "TYPE %s", key);
    char kind[16];
    (void)snprintf(kind, sizeof(kind), "%s", type->str);
    freeReplyObject(type);
    if (dice(2) == 0) {
        static const char *const others[] = { "SET %s %s",    "RPUSH %s %s",        "SADD %s %s", "HSET %s %s garbage",
                                              "ZADD %s 1 %s", "XADD %s * field %s", "PFADD %s %s" };
        server_do(&w->server, "DEL %s", key);
        server_do(&w->server, others[dice(ARRAY_LEN(others))], key, word);
    } else if (strcmp(kind, "hash") == 0) {
        redisReply *field = redisCommand(w->server.admin, "HRANDFIELD %s", key);
        if (dice(3) == 0)
            server_do(&w->server, "HDEL %s %s", key, field->str);
        else
            server_do(&w->server, "HSET %s %s %s", key, field->str, word);
        server_do(&w->server, "HSET %s %b %s", key, "\0\xff:", (size_t)3, word);
        freeReplyObject(field);
    } else if (strcmp(kind, "zset") == 0) {
        static const char *const scores[] = { "inf", "-inf", "1e300", "-1", "0" };
        redisReply *member = redisCommand(w->server.admin, "ZRANDMEMBER %s", key);
        server_do(&w->server, "ZADD %s %s %s", key, scores[dice(5)], dice(2) ? member->str : word);
        freeReplyObject(member);
    } else if (strcmp(kind, "set") == 0) {
        server_do(&w->server, "SADD %s %s", key, word);
    } else if (strcmp(kind, "string") == 0) {
        server_do(&w->server, "SET %s %s", key, word);
    }
}

static int jobs_to_come(struct world *w) /* how many of all are never claimed, though published again and resynced */
{
    bool seen[JOBS] = { false };
    int missing = JOBS;
    for (int round = 0; round < 60 && missing > 0; round++) {
        publish_all(w);
        ASK(w, queue_resync(w->at[1].q, NULL, NULL, 0, on_done, &w->a));
        ASK(w, queue_bury(w->at[0].q, (const char *[]){ w->at[2].worker }, 1, on_done, &w->a));
        limits(w, (struct queue_limits){ .lane = "one", .paused_ms = -1 });
        limits(w, (struct queue_limits){ .lane = "two", .paused_ms = -1 });
        claim(w, 1, 100);
        for (size_t i = 0; i < w->a.count; i++) {
            int n = claimed_number(w, i);
            cr_assert(n >= 0 && n < JOBS);
            missing -= !seen[n];
            seen[n] = true;
        }
        for (size_t i = 0; i < ARRAY_LEN(seen); i++) /* what was had makes room for the others */
            if (seen[i])
                forget(w, 1, job_id((int)i));
    }
    for (int i = 0; missing > 0 && i < JOBS; i++)
        if (!seen[i])
            fprintf(stderr, "never: %s\n", job_id(i));
    return missing;
}

Test(queue_faults, no_content_of_redis_breaks_a_call_or_hides_a_job)
{
    for (unsigned seed = 1; seed <= 60; seed++) {
        struct world *w = world_new(2);
        dice_state = seed * 7919;
        for (int round = 0; round < 6; round++) {
            everything_once(w);
            redisReply *keys = redisCommand(w->server.admin, "KEYS kiln:*");
            for (size_t i = 0; i < keys->elements; i++)
                if (dice(3) == 0)
                    spoil(w, keys->element[i]->str);
            freeReplyObject(keys);
        }
        everything_once(w);
        int missing = jobs_to_come(w);
        cr_assert_eq(missing, 0, "seed %u: %d jobs never come", seed, missing);
        world_free(w);
    }
}
