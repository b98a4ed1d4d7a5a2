/* test_queue_keys.c - several keys of one provider in Redis: turns, budgets, pauses, refusals and probes. */
#include "queue_world.h"

struct told {
    int answers, which;
    enum err err;
    int64_t ms;
    bool is_probe;
    struct queue_key_state states[QUEUE_KEYS_MAX];
    size_t count;
};

static const char *const three[] = { "aaaaaaaa", "bbbbbbbb", "cccccccc" };

static void on_key(void *ctx, enum err err, int which, int64_t wait_ms, bool is_probe)
{
    struct told *t = ctx;

    *t = (struct told){ .answers = 1, .err = err, .which = which, .ms = wait_ms, .is_probe = is_probe };
}

static void on_keys(void *ctx, enum err err, int64_t next_ms, const struct queue_key_state *states, size_t count)
{
    struct told *t = ctx;

    *t = (struct told){ .answers = 1, .err = err, .ms = next_ms, .count = count };
    for (size_t i = 0; i < count; i++) {
        t->states[i] = states[i];
        t->states[i].code = states[i].code[0] ? "some" : "";
    }
}

static struct told pick(struct world *w, int worker, size_t count)
{
    struct told t = { 0 };

    queue_key_pick(w->at[worker].q, "lane", three, count, on_key, &t);
    cr_assert(support_run_count(&w->loop, &t.answers, 1, WAIT_MS));
    cr_assert_eq(t.err, ERR_OK);
    return t;
}

static struct told tell(struct world *w, size_t count, size_t which, enum queue_key_fact fact, int64_t ms)
{
    struct told t = { 0 };

    queue_key_tell(w->at[1].q, "lane", three, count, which, fact, ms, "auth", on_keys, &t);
    cr_assert(support_run_count(&w->loop, &t.answers, 1, WAIT_MS));
    cr_assert_eq(t.err, ERR_OK);
    return t;
}

Test(queue_keys, take_turns_whoever_asks)
{
    struct world *w = world_new(2);
    int times[3] = { 0 };

    for (int i = 0; i < 30; i++)
        times[pick(w, 1 + i % 2, 3).which]++;
    cr_expect(times[0] == 10 && times[1] == 10 && times[2] == 10, "%d %d %d", times[0], times[1], times[2]);
    world_free(w);
}

Test(queue_keys, each_has_the_budget_for_itself_and_the_lane_as_often_as_there_are_keys)
{
    struct world *w = world_new(2);
    struct told t;
    int times[2] = { 0 };

    limits(w, (struct queue_limits){ .lane = "lane", .budget_count = 5, .budget_window_ms = 60000, .keys = 2 });
    publish_many(w, 0, 30, "lane", "app", "a");
    cr_expect_eq(claim(w, 1, 100), 10, "twice five");
    for (int i = 0; i < 10; i++)
        times[pick(w, 1 + i % 2, 2).which]++;
    cr_expect(times[0] == 5 && times[1] == 5, "%d %d", times[0], times[1]);
    t = pick(w, 1, 2);
    cr_expect_eq(t.which, -1);
    cr_expect(t.ms > 50000 && t.ms <= 66000, "%d", (int)t.ms);
    world_free(w);
}

Test(queue_keys, polls_spend_of_the_key_they_are_bound_to)
{
    struct world *w = world_new(1);

    limits(w, (struct queue_limits){ .lane = "lane", .budget_count = 4, .budget_window_ms = 60000, .keys = 2 });
    for (int i = 0; i < 4; i++) {
        ASK(w, queue_spend_key(w->at[1].q, "lane", three[0], 1, on_spend, &w->a));
        cr_expect_eq(w->a.ms, 0);
    }
    ASK(w, queue_spend_key(w->at[1].q, "lane", three[0], 1, on_spend, &w->a));
    cr_expect_gt(w->a.ms, 0, "it has none left");
    for (int i = 0; i < 4; i++)
        cr_expect_eq(pick(w, 1, 2).which, 1, "the other has all of its own");
    cr_expect_eq(pick(w, 1, 2).which, -1);
    publish_many(w, 0, 5, "lane", "app", "a");
    cr_expect_eq(claim(w, 1, 100), 0, "no key could send it");
    cr_expect_gt(w->a.ms, 0);
    world_free(w);
}

Test(queue_keys, a_pause_is_one_keys_until_all_have_one)
{
    struct world *w = world_new(1);
    struct told t = tell(w, 2, 0, QUEUE_KEY_PAUSE, 60000);

    cr_expect_eq(t.ms, 0, "the other is free");
    cr_expect(t.states[0].paused_ms > 59000 && t.states[1].paused_ms == 0);
    for (int i = 0; i < 4; i++)
        cr_expect_eq(pick(w, 1, 2).which, 1);
    ASK(w, queue_spend_key(w->at[1].q, "lane", three[0], 1, on_spend, &w->a));
    cr_expect_gt(w->a.ms, 59000, "nor may it poll");
    ASK(w, queue_spend_key(w->at[1].q, "lane", three[1], 1, on_spend, &w->a));
    cr_expect_eq(w->a.ms, 0);
    publish_many(w, 0, 5, "lane", "app", "a");
    cr_expect_eq(claim(w, 1, 2), 2);
    t = tell(w, 2, 1, QUEUE_KEY_PAUSE, 500);
    cr_expect(t.ms > 0 && t.ms <= 500, "%d", (int)t.ms);
    cr_expect_eq(claim(w, 1, 2), 0, "the lane waits for the first that wakes");
    cr_expect_eq(pick(w, 1, 2).which, -1);
    run_ms(w, (int)t.ms + 1);
    cr_expect_eq(pick(w, 1, 2).which, 1);
    cr_expect_eq(claim(w, 1, 2), 2);
    world_free(w);
}

Test(queue_keys, a_refused_one_is_out_and_comes_back_by_one_probe)
{
    struct world *w = world_new(2);
    struct told t = tell(w, 2, 0, QUEUE_KEY_OUT, 15200);

    cr_expect_eq(t.ms, 0);
    cr_expect(t.states[0].out_ms > 15000 && t.states[0].failures == 1);
    cr_expect_str_eq(t.states[0].code, "some");
    t = tell(w, 2, 0, QUEUE_KEY_OUT, 15200);
    cr_expect_eq(t.states[0].failures, 1, "what was on its way counts once");
    for (int i = 0; i < 4; i++)
        cr_expect_eq(pick(w, 1, 2).which, 1);
    (void)server_do(&w->server, "HSET %s %s %s", "kiln:{0}:key:lane#aaaaaaaa", "out", "1"); /* its time is over */
    for (int i = 0, probes = 0; i < 6; i++) {
        t = pick(w, 1 + i % 2, 2);
        cr_expect_eq(t.is_probe, t.which == 0);
        probes += t.is_probe;
        cr_expect_leq(probes, 1, "one at a time");
    }
    t = tell(w, 2, 0, QUEUE_KEY_OUT, 15200);
    cr_expect(t.states[0].failures == 2 && t.states[0].out_ms > 30000, "twice as long: %d", (int)t.states[0].out_ms);
    t = tell(w, 2, 0, QUEUE_KEY_GOOD, 0);
    cr_expect(t.states[0].failures == 0 && t.states[0].out_ms == 0);
    cr_expect_str_eq(t.states[0].code, "");
    world_free(w);
}

Test(queue_keys, when_all_are_out_the_next_to_be_tried_is_given)
{
    struct world *w = world_new(1);

    (void)tell(w, 2, 0, QUEUE_KEY_OUT, 40000);
    cr_expect_eq(tell(w, 2, 1, QUEUE_KEY_OUT, 30000).ms, -1);
    cr_expect_eq(pick(w, 1, 2).which, 1);
    world_free(w);
}

Test(queue_keys, what_is_garbage_in_redis_costs_nothing)
{
    struct world *w = world_new(1);

    (void)server_do(&w->server, "SET %s %s", "kiln:{0}:key:lane#aaaaaaaa", "x");
    (void)server_do(&w->server, "HSET %s %s %s", "kiln:{0}:key:lane#bbbbbbbb", "out", "1e300");
    (void)server_do(&w->server, "HSET %s %s %s", "kiln:{0}:key:lane#bbbbbbbb", "paused", "nan");
    (void)server_do(&w->server, "HSET %s %s %s", "kiln:{0}:lane:lane", "turn", "9007199254740993");
    for (int i = 0; i < 4; i++)
        cr_expect_geq(pick(w, 1, 2).which, 0);
    world_free(w);
}
