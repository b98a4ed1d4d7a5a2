/* test_queue_stats.c - how many jobs are ready and how old they are: counted as they come and go (`ages:L`), so that
 * nobody has to keep them in order of their age; and what Redis keeps of an account's turns. */
#include <stdlib.h>
#include "common/base/clock.h"
#include "queue_world.h"

/* What is in the accounts' own sets, and what was counted: the same, whatever happened. */
static const char in_sets[] =
    "local n = 0 for _, k in ipairs(redis.call('KEYS', 'kiln:{0}:jobs:lane:*')) do n = n + redis.call('ZCARD', k) end "
    "return n";
static const char counted[] =
    "local n = 0 for _, v in ipairs(redis.call('HVALS', 'kiln:{0}:ages:lane')) do n = n + v end return n";

static long long script(struct world *w, const char *text)
{
    redisReply *reply = redisCommand(w->server.admin, "EVAL %s 0", text);
    long long n = reply && reply->type == REDIS_REPLY_INTEGER ? reply->integer : -1;

    freeReplyObject(reply);
    return n;
}

static unsigned dice_state;
static unsigned dice(unsigned sides)
{
    dice_state = dice_state * 1664525u + 1013904223u;
    return (dice_state >> 8) % sides;
}

enum { JOBS = 400, HELD = 64 };

static void come_or_go(struct world *w, int held[HELD], size_t *holds)
{
    struct queue *d = w->at[0].q, *q = w->at[1].q;
    struct queue_item it = item((int)dice(JOBS), "lane", dice(2) ? "app" : "other", dice(2) ? "a" : "b");

    it.account_cap = strcmp(it.account, "b") == 0 ? 4 : 0;
    it.priority = (int)dice(3) - 1;
    it.delay_ms = dice(8) == 0 ? 1 : 0;
    it.created_ms = clock_wall_ms() - (int)dice(90000);
    it.is_new = dice(2);
    switch (dice(6)) {
    case 0:
    case 1:
        publish(w, it);
        break;
    case 2:
        for (size_t i = 0, n = *holds < HELD / 2 ? claim(w, 1, 1 + dice(HELD / 2)) : 0; i < n; i++)
            held[(*holds)++] = claimed_number(w, i);
        break;
    case 3:
        ASK(w, queue_cancel(d, it.job, 2, NULL, on_done, &w->a));
        break;
    default:
        if (*holds == 0)
            break;
        (*holds)--;
        if (dice(2))
            forget(w, 1, job_id(held[*holds]));
        else
            ASK(w, queue_put_back(q, job_id(held[*holds]), NULL, dice(2), true, on_done, &w->a));
    }
}

Test(queue_stats, every_move_is_counted)
{
    struct world *w = world_new(1);
    int held[HELD];
    size_t holds = 0;
    long long most = 0;

    for (unsigned seed = 1; seed <= 3; seed++) {
        dice_state = seed;
        for (int i = 0; i < 1500; i++) {
            come_or_go(w, held, &holds);
            long long there = script(w, in_sets);
            cr_assert_eq(script(w, counted), there, "seed %u step %d", seed, i);
            most = there > most ? there : most;
        }
        cr_expect_eq(stats(w, "lane").ready, script(w, in_sets), "and those at their account's cap");
    }
    cr_expect_gt(most, 20);
    world_free(w);
}

Test(queue_stats, what_is_published_while_its_place_is_left_of_another_time_is_counted_once)
{
    struct world *w = world_new(1);
    struct queue_item items[6];

    publish_many(w, 0, 4, "lane", "app", "a");
    for (int i = 0; i < 4; i++)
        server_do(&w->server, "DEL kiln:{0}:job:%s", job_id(i));
    for (int i = 0; i < 6; i++) { /* two of them in the very same place, all in one call */
        items[i] = item(i, "lane", "app", "a");
        items[i].created_ms += i % 2 ? 90000 : 0;
    }
    ASK(w, queue_publish(w->at[0].q, items, ARRAY_LEN(items), on_done, &w->a));
    cr_expect_eq(script(w, counted), 6);
    cr_expect_eq(script(w, "return tonumber(redis.call('HGET', 'kiln:{0}:ages:lane', '0'))"), 5);
    cr_expect_eq(script(w, "return tonumber(redis.call('HGET', 'kiln:{0}:ages:lane', '9'))"), 1);
    cr_expect_eq(claim(w, 1, 10), 6);
    cr_expect_eq(script(w, counted), 0);
    cr_expect_eq(server_do(&w->server, "EXISTS kiln:{0}:ages:lane"), 0);
    world_free(w);
}

Test(queue_stats, what_was_miscounted_is_put_right_where_accounts_are_few)
{
    struct world *w = world_new(1);
    int64_t age_ms = 30000;

    for (int i = 0; i < 40; i++) {
        struct queue_item it = item(i, "lane", "app", i % 2 ? "a" : "b");
        it.created_ms = clock_wall_ms() - age_ms;
        publish(w, it);
    }
    server_do(&w->server, "HSET kiln:{0}:ages:lane 1000 7 nonsense x -5 3"); /* taken, and not counted: the oldest */
    cr_expect_eq(stats(w, "lane").ready, 40);
    cr_expect_geq(w->a.lanes[0].oldest_ms, age_ms - 10000);
    cr_expect_leq(w->a.lanes[0].oldest_ms, age_ms + WAIT_MS);
    cr_expect_eq(script(w, counted), 40);

    server_do(&w->server, "DEL kiln:{0}:ages:lane");
    cr_expect_eq(stats(w, "lane").ready, 40);
    cr_expect_eq(script(w, counted), 40);
    server_do(&w->server, "SET kiln:{0}:ages:lane x");
    cr_expect_eq(stats(w, "lane").ready, 40);
    for (int i = 0; i < 4; i++)
        cr_expect_eq(claim(w, 1, 10), 10);
    cr_expect_eq(stats(w, "lane").ready, 0);
    cr_expect_eq(server_do(&w->server, "EXISTS kiln:{0}:ages:lane"), 0);
    world_free(w);
}

Test(queue_stats, ready_jobs_are_counted_where_accounts_are_many_and_at_their_caps)
{
    struct world *w = world_new(1);
    enum { ACCOUNTS = 1500 };
    char name[24];

    for (int i = 0; i < 6; i++) {
        struct queue_item it = item(i, "lane", "app", "capped");
        it.account_cap = 2;
        publish(w, it);
    }
    cr_expect_eq(claim(w, 1, 10), 2);
    cr_expect_eq(server_do(&w->server, "EXISTS kiln:{0}:apps:lane"), 0, "nobody has a turn");
    cr_expect_eq(stats(w, "lane").ready, 4);
    cr_expect_eq(script(w, counted), 4, "none was taken for miscounted");
    for (int i = 0; i < ACCOUNTS; i++) {
        (void)snprintf(name, sizeof(name), "account-%d", i);
        publish(w, item(100 + i, "lane", "app", name));
    }
    cr_expect_eq(stats(w, "lane").ready, 4 + ACCOUNTS);
    cr_expect_eq(claim(w, 1, 300), 300);
    cr_expect_eq(stats(w, "lane").ready, 4 + ACCOUNTS - 300);
    server_do(&w->server, "DEL kiln:{0}:ages:lane"); /* too many to look at: what is counted is all there is */
    cr_expect_eq(stats(w, "lane").ready, 0);
    publish_many(w, 5000, 3, "first", "app", "a");
    publish_many(w, 6000, 3, "then", "app", "a");
    server_do(&w->server, "ZADD kiln:{0}:lanes -1 first 99 then"); /* on both sides of the large one */
    server_do(&w->server, "DEL kiln:{0}:ages:first kiln:{0}:ages:then");
    cr_expect_eq(stats(w, "first").ready, 3, "a large lane leaves the others theirs");
    cr_expect_eq(stats(w, "then").ready, 3);
    server_do(&w->server, "DEL kiln:{0}:jobs:first:app:a kiln:{0}:jobs:then:app:a");
    for (int i = 0; i < 3; i++)
        cr_expect_eq(claim(w, 1, 400), 400);
    cr_expect_eq(stats(w, "lane").ready, 4, "again few");
    world_free(w);
}

/* --- notes -------------------------------------------------------------------------------------------------------- */

/* Whoever may have a note is known by its place, and only of those it is asked. */
Test(queue_stats, a_note_is_there_whichever_way_its_job_came_back)
{
    struct world *w = world_new(2);
    struct queue *q = w->at[1].q;

    for (int way = 0; way < 5; way++) {
        struct queue_item it = item(way, "lane", "app", "a");
        it.is_new = true;
        publish(w, it);
        cr_assert_eq(claim(w, 1, 1), 1);
        cr_assert_str_eq(w->a.claims[0].note, "");
        cr_assert_eq(ASK(w, queue_note(q, job_id(way), 1, "{\"ref\":\"r\"}", on_done, &w->a)), 1);
        if (way == 0)
            ASK(w, queue_put_back(q, job_id(way), NULL, 0, true, on_done, &w->a));
        if (way == 1)
            ASK(w, queue_put_back(q, job_id(way), NULL, 1, true, on_done, &w->a));
        if (way == 2)
            ASK(w, queue_bury(w->at[0].q, (const char *[]){ w->at[1].worker }, 1, on_done, &w->a));
        if (way == 3) { /* it lost its place, and is published again */
            ASK(w, queue_put_back(q, job_id(way), NULL, 0, true, on_done, &w->a));
            server_do(&w->server, "DEL kiln:{0}:jobs:lane:app:a");
            publish(w, item(way, "lane", "app", "a"));
        }
        if (way == 4) { /* Redis was emptied; its worker held it on, noted it, and died */
            server_do(&w->server, "DEL kiln:{0}:job:%s kiln:{0}:env:%s", job_id(way), job_id(way));
            ASK(w, queue_bury(w->at[0].q, (const char *[]){ w->at[1].worker }, 1, on_done, &w->a));
            publish(w, item(way, "lane", "app", "a"));
        }
        run_ms(w, 5);
        cr_assert_eq(claim(w, 2, 1), 1, "%d", way);
        cr_expect_str_eq(w->a.claims[0].note, "{\"ref\":\"r\"}", "%d", way);
        forget(w, 2, job_id(way));
    }
    world_free(w);
}

/* Scripts from before jobs were counted by age mark nobody as new, and keep whom they place in `ready` as well. */
Test(queue_stats, who_was_placed_by_older_scripts_is_asked_for_a_note_and_leaves_their_set)
{
    struct world *w = world_new(1);
    struct queue_item it = item(1, "lane", "app", "a");

    it.is_new = true;
    publish(w, it);
    cr_assert_eq(claim(w, 1, 1), 1);
    cr_assert_eq(ASK(w, queue_note(w->at[1].q, job_id(1), 1, "{\"ref\":\"r\"}", on_done, &w->a)), 1);
    ASK(w, queue_put_back(w->at[1].q, job_id(1), NULL, 60000, true, on_done, &w->a));
    server_do(&w->server, "ZREM kiln:{0}:delayed:lane %s", job_id(1)); /* promoted by one */
    server_do(&w->server, "ZADD kiln:{0}:jobs:lane:app:a 439804651111401 %s", job_id(1));
    server_do(&w->server, "ZADD kiln:{0}:ready:lane 1001 %s", job_id(1));
    server_do(&w->server, "ZADD kiln:{0}:accounts:lane:app 0 a");
    server_do(&w->server, "ZADD kiln:{0}:apps:lane 0 app");
    cr_assert_eq(claim(w, 1, 1), 1);
    cr_expect_str_eq(w->a.claims[0].note, "{\"ref\":\"r\"}");
    cr_expect_eq(server_do(&w->server, "EXISTS kiln:{0}:ready:lane"), 0);
    world_free(w);
}

/* --- turns -------------------------------------------------------------------------------------------------------- */

static bool is_encoded(struct world *w, const char *key, const char *how)
{
    redisReply *reply = redisCommand(w->server.admin, "OBJECT ENCODING %s", key);
    bool is = reply && reply->type == REDIS_REPLY_STRING && strcmp(reply->str, how) == 0;

    freeReplyObject(reply);
    return is;
}

Test(queue_stats, the_turns_of_many_accounts_are_a_table_not_a_list_that_is_read_through)
{
    struct world *w = world_new(1);
    char name[24];

    for (int i = 0; i < 3 * 40; i++) {
        (void)snprintf(name, sizeof(name), "account-%d", i % 40);
        publish(w, item(i, "lane", "app", name));
    }
    cr_expect_eq(claim(w, 1, 4), 4);
    cr_expect(is_encoded(w, "kiln:{0}:accounts:lane:app", "listpack"), "few turns at a time cost less in a list");
    cr_expect_eq(claim(w, 1, 40), 40);
    cr_expect(is_encoded(w, "kiln:{0}:accounts:lane:app", "skiplist"));
    cr_expect_eq(server_do(&w->server, "ZCARD kiln:{0}:accounts:lane:app"), 40, "what made it one is gone");
    world_free(w);
}
