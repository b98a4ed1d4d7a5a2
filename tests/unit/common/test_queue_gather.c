/* test_queue_gather.c - calls of one turn of the loop go together, are answered one by one, and keep their order. */
#include "queue_world.h"

static long long script_calls(struct world *w)
{
    redisReply *r = redisCommand(w->server.admin, "INFO commandstats");
    const char *found = strstr(r->str, "cmdstat_evalsha:calls=");
    long long n = found ? atoll(found + strlen("cmdstat_evalsha:calls=")) : 0;
    freeReplyObject(r);
    return n;
}

static bool job_exists(struct world *w, int n) /* anything of it */
{
    return server_do(&w->server, "EXISTS kiln:{0}:job:%s kiln:{0}:env:%s kiln:{0}:note:%s", job_id(n), job_id(n),
                     job_id(n)) != 0;
}

static int counted[3]; /* answers of count 0, 1, others */

static void on_counted(void *ctx, enum err err, size_t count)
{
    struct answer *a = ctx;
    counted[count < 2 ? count : 2]++;
    a->answers++;
    if (err != ERR_OK)
        a->err = err;
}

Test(queue_gather, a_turns_calls_are_few_scripts_and_each_has_its_own_answer)
{
    struct world *w = world_new(1);
    publish_many(w, 0, 450, "lane", "app", "a");
    cr_expect_eq(claim(w, 1, 450), 450);
    long long before = script_calls(w);
    memset(counted, 0, sizeof(counted));
    w->a.answers = 0;
    w->a.err = ERR_OK;
    for (int i = 0; i < 450; i++) {
        queue_progress(w->at[1].q, job_id(i), "waiting", i % 100);
        queue_collecting(w->at[1].q, job_id(i + 100000), true, on_counted, &w->a); /* not its claims */
        queue_forget(w->at[1].q, job_id(i % 2 ? i : i + 1000), 1, "succeeded", on_counted, &w->a);
    }
    cr_assert(support_run_count(&w->loop, &w->a.answers, 900, WAIT_MS));
    cr_expect_eq(w->a.err, ERR_OK);
    cr_expect_eq(counted[0], 450 + 225);
    cr_expect_eq(counted[1], 225);
    long long calls = script_calls(w) - before;
    cr_expect(calls >= 9 && calls < 60, "%lld calls", calls); /* few go early: their jobs' hashes are alike */
    cr_assert(support_run_count(&w->loop, &w->at[0].events, 900, 2000), "%d", w->at[0].events);
    cr_expect_eq(stats(w, "lane").claimed, 225);
    cr_expect_not(job_exists(w, 1));
    cr_expect(job_exists(w, 0));
    world_free(w);
}

Test(queue_gather, calls_about_one_job_keep_their_order)
{
    struct world *w = world_new(1);
    struct queue *q = w->at[1].q;
    publish_many(w, 1, 5, "lane", "app", "a");
    cr_expect_eq(claim(w, 1, 5), 5);
    queue_progress(q, job_id(1), "waiting", 1);
    queue_forget(q, job_id(1), 1, "succeeded", NULL, NULL);
    queue_forget(q, job_id(2), 1, "succeeded", NULL, NULL);
    queue_progress(q, job_id(2), "waiting", 1);
    queue_progress(q, job_id(3), "submitting", -1);
    queue_collecting(q, job_id(3), true, NULL, NULL);
    queue_collecting(q, job_id(4), true, NULL, NULL);
    queue_progress(q, job_id(4), "waiting", 7);
    queue_put_back(q, job_id(5), NULL, 0, false, NULL, NULL);
    queue_note(q, job_id(5), 1, "{}", NULL, NULL);
    queue_claim(q, 1, on_claim, &w->a); /* after all of them: it gets what was put back */
    w->a.answers = 0;
    cr_expect_eq(world_wait(w), 1);
    cr_expect_str_eq(w->a.claims[0].job, job_id(5));
    cr_expect_str_eq(w->a.claims[0].note, "", "it was given back before the note came");
    cr_expect_not(job_exists(w, 1));
    cr_expect_not(job_exists(w, 2));
    ASK(w, queue_progress_of(w->at[0].q, job_id(3), on_progress, &w->a));
    cr_expect_str_eq(w->a.text, "submitting");
    cr_expect_eq(w->a.percent, -1);
    ASK(w, queue_progress_of(w->at[0].q, job_id(4), on_progress, &w->a));
    cr_expect_str_eq(w->a.text, "waiting");
    cr_expect_eq(server_do(&w->server, "SCARD kiln:{0}:collecting:%s", w->at[1].worker), 2);
    world_free(w);
}

Test(queue_gather, a_mark_says_whether_it_is_new_and_only_of_claims)
{
    struct world *w = world_new(1);
    struct queue *q = w->at[1].q;
    publish_many(w, 1, 2, "lane", "app", "a");
    cr_expect_eq(claim(w, 1, 1), 1);
    cr_expect_eq(ASK(w, queue_collecting(q, job_id(1), true, on_done, &w->a)), 1);
    cr_expect_eq(ASK(w, queue_collecting(q, job_id(1), true, on_done, &w->a)), 0);
    cr_expect_eq(ASK(w, queue_collecting(q, job_id(2), true, on_done, &w->a)), 0);
    cr_expect_eq(ASK(w, queue_collecting(q, job_id(1), false, on_done, &w->a)), 1);
    cr_expect_eq(ASK(w, queue_collecting(q, job_id(1), false, on_done, &w->a)), 0);
    cr_expect_eq(server_do(&w->server, "EXISTS kiln:{0}:collecting:%s", w->at[1].worker), 0);
    world_free(w);
}

/* In one call: mine; mine without a record; another's; ready; delayed; claimed in one lane, known in another; unknown;
 * mine twice; marked as lost. */
Test(queue_gather, whatever_is_forgotten_together_leaves_nothing)
{
    struct world *w = world_new(2);
    struct queue_item delayed = item(5, "lane", "app", "a");
    static const int jobs[] = { 1, 2, 3, 4, 5, 6, 7, 1, 8 };
    publish_many(w, 1, 3, "lane", "app", "a");
    cr_expect_eq(claim(w, 1, 2), 2);
    cr_expect_eq(claim(w, 2, 1), 1);
    publish_many(w, 6, 1, "lane", "app", "b");
    publish_many(w, 8, 1, "lane", "other", "b");
    cr_expect_eq(claim(w, 1, 2), 2);
    publish_many(w, 4, 1, "lane", "app", "a");
    delayed.delay_ms = 100000;
    publish(w, delayed);
    server_do(&w->server, "DEL kiln:{0}:job:%s", job_id(2));
    server_do(&w->server, "HSET kiln:{0}:job:%s lane elsewhere", job_id(6));
    server_do(&w->server, "SADD kiln:{0}:lost %s", job_id(8));
    memset(counted, 0, sizeof(counted));
    w->a.answers = 0;
    for (size_t i = 0; i < ARRAY_LEN(jobs); i++)
        queue_forget(w->at[1].q, job_id(jobs[i]), 1, NULL, on_counted, &w->a);
    cr_assert(support_run_count(&w->loop, &w->a.answers, ARRAY_LEN(jobs), WAIT_MS));
    cr_expect_eq(counted[1], 7);
    cr_expect_eq(counted[0], 2, "the unknown one, and the second time of the first");
    server_do(&w->server, "DEL kiln:{0}:wake");
    cr_expect_eq(claim(w, 2, 10), 0);
    for (int i = 1; i <= 8; i++)
        cr_expect_not(job_exists(w, i), "%d", i);
    static const char *const gone[] = { "claims:lane",     "ages:lane",     "delayed:lane",    "apps:lane",
                                        "jobs:lane:app:a", "running:app:b", "running:other:b", "lost" };
    for (size_t i = 0; i < ARRAY_LEN(gone); i++)
        cr_expect_eq(server_do(&w->server, "EXISTS kiln:{0}:%s", gone[i]), 0, "%s", gone[i]);
    cr_expect_eq(server_do(&w->server, "HLEN kiln:{0}:worker:%s", w->at[1].worker), 0);
    world_free(w);
}

Test(queue_gather, jobs_forgotten_together_open_their_accounts_cap_and_a_full_lane)
{
    struct world *w = world_new(2);
    limits(w, (struct queue_limits){ .lane = "lane", .concurrency = 4 });
    for (int i = 0; i < 8; i++) {
        struct queue_item it = item(i, "lane", "app", i % 2 ? "a" : "b");
        it.account_cap = i % 2 ? 1 : 0;
        publish(w, it);
    }
    cr_expect_eq(claim(w, 1, 8), 4);
    cr_expect_eq(claim(w, 1, 8), 0);
    struct claimed held[4];
    memcpy(held, w->a.claims, sizeof(held));
    w->at[2].claims_on_wake = true;
    place_claim(&w->at[2]);
    run_ms(w, 100);
    cr_expect_eq(w->at[2].own_claims, 0);
    for (size_t i = 0; i < 4; i++)
        queue_forget(w->at[1].q, held[i].job, 1, NULL, NULL, NULL);
    cr_assert(support_run_count(&w->loop, &w->at[2].own_claims, 2, 1800)); /* all of b that is left, and one of a */
    run_ms(w, 100);
    cr_expect_eq(stats(w, "lane").claimed, w->at[2].own_claims);
    cr_expect_eq(server_do(&w->server, "HLEN kiln:{0}:running:app:a"), 1);
    world_free(w);
}

static int closed_answers;

static void on_closed_answer(void *ctx, enum err err, size_t count)
{
    (void)ctx;
    (void)count;
    cr_expect(err == ERR_OK || err == ERR_CLOSED);
    closed_answers++;
}

Test(queue_gather, what_was_gathered_is_answered_when_the_queue_closes_or_redis_is_away)
{
    struct world *w = world_new(2);
    struct queue *q = w->at[1].q;
    closed_answers = 0;
    for (int i = 0; i < 300; i++) {
        queue_forget(q, job_id(i), 1, NULL, on_closed_answer, NULL);
        queue_note(q, job_id(i), 1, "{}", on_closed_answer, NULL);
    }
    queue_close(q, place_on_closed, &w->at[1]);
    queue_collecting(q, job_id(1), true, on_closed_answer, NULL);
    cr_assert(support_run_count(&w->loop, &w->at[1].closed, 1, WAIT_MS));
    w->at[1].q = NULL;
    cr_expect_eq(closed_answers, 601, "%d", closed_answers);
    server_kill(&w->server);
    cr_assert(support_run_count(&w->loop, &w->at[2].downs, 1, WAIT_MS));
    ASK(w, queue_forget(w->at[2].q, job_id(1), 1, NULL, on_done, &w->a));
    cr_expect_eq(w->a.err, ERR_UNAVAILABLE);
    cr_expect_eq(w->a.count, 0);
    server_start(&w->server, NULL);
    cr_assert(support_run_count(&w->loop, &w->at[2].ups, 2, WAIT_MS));
    ASK(w, queue_forget(w->at[2].q, job_id(1), 1, NULL, on_done, &w->a));
    cr_expect_eq(w->a.err, ERR_OK);
    world_free(w);
}
