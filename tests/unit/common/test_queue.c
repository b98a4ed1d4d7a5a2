/* test_queue.c - the queue keeps its order, its limits and its claims. */
#include "queue_world.h"

/* --- order -------------------------------------------------------------------------------------------------------- */

Test(queue, a_batch_of_ten_thousand_delays_anothers_single_job_by_one_turn)
{
    struct world *w = world_new(1);
    publish_many(w, 0, 10000, "lane", "app", "many");
    cr_assert_eq(claim(w, 1, 7), 7);
    publish(w, item(50000, "lane", "app", "single"));
    cr_assert_eq(claim(w, 1, 2), 2);
    cr_expect(claimed_number(w, 0) == 50000 || claimed_number(w, 1) == 50000);
    world_free(w);
}

Test(queue, who_returns_with_one_job_at_a_time_gets_no_more_than_its_share)
{
    struct world *w = world_new(1);
    int single = 0, next = 50000;

    publish_many(w, 0, 1000, "lane", "app", "many");
    publish(w, item(next++, "lane", "app", "a-single"));
    for (int i = 0; i < 200; i++) {
        cr_assert_eq(claim(w, 1, 1), 1);
        if (claimed_number(w, 0) >= 50000) {
            single++;
            publish(w, item(next++, "lane", "app", "a-single"));
        }
    }
    cr_expect(single >= 98 && single <= 102, "%d", single);
    world_free(w);
}

Test(queue, apps_take_turns_before_accounts_do)
{
    struct world *w = world_new(1);
    int of_small = 0;

    for (int i = 0; i < 9; i++) {
        char account[16];
        (void)snprintf(account, sizeof(account), "c%d", i);
        publish_many(w, i * 1000, 100, "lane", "big", account);
    }
    publish_many(w, 90000, 100, "lane", "small", "c");
    cr_assert_eq(claim(w, 1, 100), 100);
    for (size_t i = 0; i < 100; i++)
        of_small += claimed_number(w, i) >= 90000;
    cr_expect(of_small >= 49 && of_small <= 51, "%d", of_small);
    world_free(w);
}

Test(queue, accounts_of_an_app_get_equal_parts)
{
    struct world *w = world_new(1);
    int of[4] = { 0 };
    publish_many(w, 0, 500, "lane", "app", "x");
    publish_many(w, 1000, 50, "lane", "app", "y");
    publish_many(w, 2000, 200, "lane", "app", "z");
    cr_assert_eq(claim(w, 1, 120), 120);
    for (size_t i = 0; i < 120; i++)
        of[claimed_number(w, i) / 1000]++;
    for (int i = 0; i < 3; i++)
        cr_expect(of[i] >= 39 && of[i] <= 41, "%d: %d", i, of[i]);
    cr_assert_eq(claim(w, 1, 1000), 630);
    world_free(w);
}

Test(queue, in_an_account_priority_comes_first_then_age_then_the_id)
{
    struct world *w = world_new(1);
    static const struct {
        int n, priority, created_ms;
    } jobs[] = { { 1, 0, 500 }, { 2, 100, 900 }, { 3, 0, 400 }, { 4, -100, 1 }, { 6, 100, 900 }, { 5, 100, 900 } };
    static const int order[] = { 2, 5, 6, 3, 1, 4 };

    for (size_t i = 0; i < ARRAY_LEN(jobs); i++) {
        struct queue_item it = item(jobs[i].n, "lane", "app", "a");
        it.priority = jobs[i].priority;
        it.created_ms = 1790000000000 + jobs[i].created_ms;
        cr_expect_eq(publish(w, it), 1);
    }
    cr_assert_eq(claim(w, 1, 10), ARRAY_LEN(order));
    for (size_t i = 0; i < ARRAY_LEN(order); i++)
        cr_expect_eq(claimed_number(w, i), order[i], "%zu", i);
    world_free(w);
}

Test(queue, lanes_take_turns)
{
    struct world *w = world_new(1);
    int of[3] = { 0 };
    publish_many(w, 0, 100, "one", "app", "a");
    publish_many(w, 1000, 100, "two", "app", "a");
    publish_many(w, 2000, 5, "three", "app", "a");
    for (int i = 0; i < 9; i++) {
        cr_assert_eq(claim(w, 1, 1), 1);
        of[claimed_number(w, 0) / 1000]++;
    }
    for (int i = 0; i < 3; i++)
        cr_expect_eq(of[i], 3, "lane %d: %d", i, of[i]);
    cr_assert_eq(claim(w, 1, 42), 42, "what one lane leaves the others may have");
    world_free(w);
}

/* --- waiting ------------------------------------------------------------------------------------------------------ */

Test(queue, a_delayed_job_comes_when_its_time_has_come)
{
    struct world *w = world_new(1);
    struct queue_item it = item(1, "lane", "app", "a");
    it.delay_ms = 1000;
    cr_expect_eq(publish(w, it), 1);
    cr_expect_eq(claim(w, 1, 10), 0);
    cr_expect(w->a.ms > 0 && w->a.ms <= 1000, "%d", (int)w->a.ms);
    struct queue_lane_stats s = stats(w, "lane");
    cr_expect_eq(s.delayed, 1);
    cr_expect_eq(s.ready, 0);
    run_ms(w, 1010);
    cr_expect_eq(claim(w, 1, 10), 1);
    cr_expect_eq(w->a.ms, -1);
    world_free(w);
}

Test(queue, a_pause_never_shortens_and_an_operators_is_lifted_by_operators)
{
    struct world *w = world_new(1);
    publish_many(w, 0, 5, "lane", "app", "a");
    ASK(w, queue_pause(w->at[1].q, "lane", 60000, on_done, &w->a));
    ASK(w, queue_pause(w->at[1].q, "lane", 10, on_done, &w->a));
    cr_expect_eq(claim(w, 1, 10), 0);
    cr_expect(w->a.ms > 50000 && w->a.ms <= 60000, "%d", (int)w->a.ms);
    cr_expect_gt(stats(w, "lane").paused_ms, 50000);
    limits(w, (struct queue_limits){ .lane = "lane", .paused_ms = -1 });
    cr_expect_eq(claim(w, 1, 10), 0, "the provider's pause stays");

    publish_many(w, 10, 5, "other", "app", "a");
    limits(w, (struct queue_limits){ .lane = "other", .paused_ms = 60000 });
    limits(w, (struct queue_limits){ .lane = "other", .paused_ms = 0 });
    cr_expect_gt(stats(w, "other").paused_ms, 50000);
    cr_expect_eq(claim(w, 1, 10), 0);
    limits(w, (struct queue_limits){ .lane = "other", .paused_ms = 20000 }); /* who set it may shorten it */
    cr_expect_leq(stats(w, "other").paused_ms, 20000);
    limits(w, (struct queue_limits){ .lane = "other", .paused_ms = -1 });
    cr_expect_eq(claim(w, 1, 10), 5);
    world_free(w);
}

/* --- limits ------------------------------------------------------------------------------------------------------- */

Test(queue, a_lanes_concurrency_holds_for_all_workers_together)
{
    struct world *w = world_new(2);
    char first[UUID_TEXT];
    limits(w, (struct queue_limits){ .lane = "lane", .concurrency = 5 });
    publish_many(w, 0, 20, "lane", "app", "a");
    cr_expect_eq(claim(w, 1, 3), 3);
    memcpy(first, w->a.claims[0].job, UUID_TEXT);
    cr_expect_eq(claim(w, 2, 10), 2);
    cr_expect_eq(claim(w, 1, 10), 0);
    cr_expect_eq(w->a.ms, -1, "no time will help");
    cr_expect_eq(forget(w, 1, first), 1);
    cr_expect_eq(claim(w, 2, 10), 1);
    cr_expect_eq(stats(w, "lane").claimed, 5);
    world_free(w);
}

Test(queue, a_request_budget_holds_for_all_workers_and_slides)
{
    struct world *w = world_new(2);
    limits(w, (struct queue_limits){ .lane = "lane", .budget_count = 10, .budget_window_ms = 3000 });
    publish_many(w, 0, 30, "lane", "app", "a");
    cr_expect_eq(claim(w, 1, 4), 4);
    run_ms(w, 500);
    cr_expect_eq(claim(w, 2, 100), 6);
    cr_expect(w->a.ms > 2400 && w->a.ms <= 2850, "%d: up to two slices over", (int)w->a.ms);
    cr_expect_eq(claim(w, 1, 100), 0);
    run_ms(w, (int)w->a.ms + 1);
    cr_expect_eq(claim(w, 1, 100), 4, "only the first four are three seconds ago");
    world_free(w);
}

static size_t spend_many(struct world *w, int worker, int count) /* in one turn of the loop; how many may go */
{
    w->a.answers = 0;
    w->a.count = 0;
    for (int i = 0; i < count; i++)
        queue_spend(w->at[worker].q, "lane", 1, on_spend, &w->a);
    cr_assert(support_run_count(&w->loop, &w->a.answers, count, WAIT_MS));
    return w->a.count;
}

Test(queue, polls_get_two_thirds_of_the_budget_while_submits_wait)
{
    struct world *w = world_new(2);
    cr_expect_eq(spend_many(w, 1, 1000), 1000, "no budget, no limit");
    limits(w, (struct queue_limits){ .lane = "lane", .budget_count = 30, .budget_window_ms = 60000 });
    publish_many(w, 0, 100, "lane", "app", "a");
    cr_expect_eq(spend_many(w, 1, 1000), 20);
    cr_expect(w->a.ms > 60000, "the last of a thousand has a long wait: %d", (int)w->a.ms);
    cr_expect_eq(spend_many(w, 2, 5), 0);
    cr_expect_eq(claim(w, 1, 100), 10, "submits have the rest");
    cr_expect_eq(claim(w, 1, 100), 0);
    world_free(w);
}

Test(queue, polls_rest_while_the_provider_asked_for_silence_but_not_for_an_operators_pause)
{
    struct world *w = world_new(1);
    limits(w,
           (struct queue_limits){ .lane = "lane", .budget_count = 30, .budget_window_ms = 60000, .paused_ms = 60000 });
    cr_expect_eq(spend_many(w, 1, 3), 3, "an operator holds back submits only");
    ASK(w, queue_pause(w->at[1].q, "lane", 400, on_done, &w->a));
    cr_expect_eq(spend_many(w, 1, 3), 0);
    cr_expect(w->a.ms > 0 && w->a.ms <= 400, "%d", (int)w->a.ms);
    run_ms(w, (int)w->a.ms + 1);
    cr_expect_eq(spend_many(w, 1, 3), 3);
    world_free(w);
}

Test(queue, polls_get_all_of_the_budget_while_nothing_waits)
{
    struct world *w = world_new(1);
    limits(w, (struct queue_limits){ .lane = "lane", .budget_count = 30, .budget_window_ms = 60000 });
    cr_expect_eq(spend_many(w, 1, 100), 30);
    publish_many(w, 0, 5, "lane", "app", "a");
    cr_expect_eq(claim(w, 1, 100), 0);
    world_free(w);
}

Test(queue, the_spends_of_one_turn_of_the_loop_are_one_call)
{
    struct world *w = world_new(1);
    run_ms(w, 20);
    long long before = server_do(&w->server, "PING");
    before = server_commands(&w->server);
    cr_expect_eq(spend_many(w, 1, 400), 400);
    long long calls = server_commands(&w->server) - before;
    cr_expect(calls < 20, "%lld", calls); /* EVALSHA, and what it calls inside */
    world_free(w);
}

Test(queue, a_capped_account_steps_aside_and_returns_when_a_claim_goes)
{
    struct world *w = world_new(2);
    char first[UUID_TEXT];
    for (int i = 0; i < 6; i++) {
        struct queue_item it = item(i, i % 2 ? "one" : "two", "app", "capped");
        it.account_cap = 2;
        cr_expect_eq(publish(w, it), 1);
    }
    struct queue_item unknowing = item(6, "one", "app", "capped");
    unknowing.account_cap = -1;
    cr_expect_eq(publish(w, unknowing), 1);
    publish_many(w, 100, 3, "one", "app", "free");
    cr_expect_eq(claim(w, 1, 100), 5, "two of the capped account, three of the other");
    cr_expect_eq(claim(w, 2, 100), 0);
    for (size_t i = 0; i < 5; i++)
        if (claimed_number(w, i) < 100)
            memcpy(first, w->a.claims[i].job, UUID_TEXT);
    w->at[2].claims_on_wake = true; /* and sleeps, once no token is left of what was published */
    place_claim(&w->at[2]);
    run_ms(w, 100);
    cr_expect_eq(w->at[2].own_claims, 0);
    cr_expect_eq(forget(w, 1, first), 1);
    cr_assert(support_run_count(&w->loop, &w->at[2].own_claims, 1, PROMPT_MS), "somebody is woken for it");
    cr_expect_eq(claim(w, 2, 100), 0);
    world_free(w);
}

Test(queue, a_cap_that_is_new_counts_what_runs_already)
{
    struct world *w = world_new(2);
    publish_many(w, 0, 3, "lane", "app", "a");
    publish_many(w, 10, 2, "lane", "app", "b");
    cr_expect_eq(claim(w, 1, 100), 5);
    for (int i = 20; i < 23; i++) {
        struct queue_item it = item(i, "lane", "app", "a");
        it.account_cap = 2;
        cr_expect_eq(publish(w, it), 1);
    }
    cr_expect_eq(claim(w, 2, 100), 0, "three run");
    for (int i = 0; i < 2; i++) {
        cr_expect_eq(claim(w, 2, 100), 0);
        cr_expect_eq(forget(w, 1, job_id(i)), 1);
    }
    cr_expect_eq(claim(w, 2, 100), 1);
    cr_expect_eq(claim(w, 2, 100), 0);
    world_free(w);
}

static bool is_table(struct world *w, const char *key)
{
    return server_do(&w->server, "OBJECT ENCODING %s", key) == (long long)strlen("hashtable");
}

Test(queue, many_claims_are_a_table_not_a_list_that_is_read_through)
{
    struct world *w = world_new(1);
    char worker[96];
    (void)snprintf(worker, sizeof(worker), "kiln:{0}:worker:%s", w->at[1].worker);
    publish_many(w, 0, 130, "lane", "app", "a");
    cr_expect_eq(claim(w, 1, 20), 20);
    cr_expect(!is_table(w, worker), "a few are smaller as a list");
    for (int i = 0; i < 11; i++)
        cr_expect_eq(claim(w, 1, 10), 10);
    cr_expect(is_table(w, worker));
    cr_expect(is_table(w, "kiln:{0}:claims:lane"));
    cr_expect_eq(server_do(&w->server, "HLEN %s", worker), 130, "what made it one is gone");
    cr_expect_eq(server_do(&w->server, "HLEN kiln:{0}:claims:lane"), 130);
    world_free(w);
}

Test(queue, a_jobs_place_without_the_job_is_no_claim_and_hides_nobody)
{
    struct world *w = world_new(1);
    publish_many(w, 0, 6, "lane", "app", "a");
    for (int i = 0; i < 3; i++)
        server_do(&w->server, "DEL kiln:{0}:job:%s kiln:{0}:env:%s", job_id(i), job_id(i));
    server_do(&w->server, "DEL kiln:{0}:env:%s", job_id(3)); /* as one that is too large */
    cr_expect_eq(claim(w, 1, 4), 1);
    cr_expect_eq(claimed_number(w, 0), 3);
    cr_expect_eq(w->a.ms, 1, "at once again");
    cr_expect_eq(claim(w, 1, 4), 2);
    cr_expect_eq(stats(w, "lane").ready, 0);
    cr_expect_eq(stats(w, "lane").claimed, 3);
    world_free(w);
}

/* --- claims ------------------------------------------------------------------------------------------------------- */

Test(queue, a_job_is_published_once_also_while_claimed)
{
    struct world *w = world_new(1);
    cr_expect_eq(publish(w, item(1, "lane", "app", "a")), 1);
    cr_expect_eq(publish(w, item(1, "lane", "app", "a")), 0);
    cr_expect_eq(claim(w, 1, 10), 1);
    cr_expect_str_eq(w->a.claims[0].envelope, "{\"n\":1}");
    cr_expect_eq(publish(w, item(1, "lane", "app", "a")), 0);
    cr_expect_eq(claim(w, 1, 10), 0);
    cr_expect_eq(forget(w, 1, job_id(1)), 1);
    cr_expect_eq(forget(w, 1, job_id(1)), 0);
    cr_expect_eq(server_do(&w->server, "DBSIZE"), server_do(&w->server, "EXISTS kiln:{0}:lanes kiln:{0}:wake"),
                 "nothing is left");
    cr_expect_eq(ASK(w, queue_publish(w->at[0].q, NULL, 0, on_done, &w->a)), 0);
    world_free(w);
}

Test(queue, of_a_job_published_twice_in_one_call_the_last_place_holds)
{
    struct world *w = world_new(1);
    struct queue_item items[] = { item(1, "one", "app", "a"), item(1, "one", "app", "a"), item(1, "two", "app", "b") };
    cr_expect_eq(ASK(w, queue_publish(w->at[0].q, items, ARRAY_LEN(items), on_done, &w->a)), 2);
    cr_expect_eq(stats(w, "one").ready, 0);
    cr_expect_eq(stats(w, "two").ready, 1);
    cr_expect_eq(claim(w, 1, 10), 1);
    cr_expect_str_eq(w->a.claims[0].lane, "two");
    cr_expect_eq(claim(w, 1, 10), 0);
    world_free(w);
}

Test(queue, an_envelope_that_is_too_large_stays_away)
{
    struct world *w = world_new(1);
    char *large = calloc(1, 9000);
    memset(large, 'x', 8999);
    struct queue_item it = item(1, "lane", "app", "a");
    it.envelope = large;
    cr_expect_eq(publish(w, it), 1);
    cr_expect_eq(claim(w, 1, 1), 1);
    cr_expect_not(w->a.claims[0].has_envelope);
    free(large);
    world_free(w);
}

Test(queue, notes_are_taken_from_the_holder_only_and_come_with_their_attempt)
{
    struct world *w = world_new(2);
    publish_many(w, 1, 1, "lane", "app", "a");
    cr_expect_eq(claim(w, 1, 1), 1);
    cr_expect_str_eq(w->a.claims[0].note, "");
    cr_expect_eq(ASK(w, queue_note(w->at[2].q, job_id(1), 1, "{\"ref\":\"evil\"}", on_done, &w->a)), 0);
    cr_expect_eq(ASK(w, queue_note(w->at[1].q, job_id(1), 3, "{\"ref\":\"r\"}", on_done, &w->a)), 1);
    cr_expect_eq(ASK(w, queue_put_back(w->at[2].q, job_id(1), NULL, 0, true, on_done, &w->a)), 0);
    cr_expect_eq(ASK(w, queue_put_back(w->at[1].q, job_id(1), NULL, 0, true, on_done, &w->a)), 1);
    cr_expect_eq(claim(w, 2, 1), 1);
    cr_expect_str_eq(w->a.claims[0].note, "{\"ref\":\"r\"}");
    cr_expect_eq(w->a.claims[0].note_attempt, 3);
    cr_expect_eq(ASK(w, queue_note(w->at[1].q, job_id(1), 4, "{}", on_done, &w->a)), 0);
    cr_expect_eq(ASK(w, queue_put_back(w->at[2].q, job_id(1), NULL, 0, false, on_done, &w->a)), 1);
    cr_expect_eq(claim(w, 1, 1), 1);
    cr_expect_str_eq(w->a.claims[0].note, "");
    world_free(w);
}

Test(queue, what_is_put_back_is_at_its_accounts_head_or_later_or_in_another_lane)
{
    struct world *w = world_new(1);
    struct queue_item low = item(9, "lane", "app", "a");
    low.priority = -100;
    publish(w, low);
    cr_expect_eq(claim(w, 1, 1), 1);
    struct queue_item high = item(1, "lane", "app", "a");
    high.priority = 100;
    publish(w, high);
    ASK(w, queue_put_back(w->at[1].q, job_id(9), NULL, 0, false, on_done, &w->a));
    cr_expect_eq(claim(w, 1, 2), 2);
    cr_expect_eq(claimed_number(w, 0), 9);
    ASK(w, queue_put_back(w->at[1].q, job_id(9), "other", 500, false, on_done, &w->a));
    cr_expect_eq(claim(w, 1, 2), 0);
    run_ms(w, 510);
    cr_expect_eq(claim(w, 1, 2), 1);
    cr_expect_str_eq(w->a.claims[0].lane, "other");
    cr_expect_eq(stats(w, "lane").claimed, 1);
    cr_expect_eq(stats(w, "other").claimed, 1);
    world_free(w);
}

Test(queue, claims_of_the_dead_go_back_and_only_what_was_collected_counts_as_lost)
{
    struct world *w = world_new(2);
    publish_many(w, 0, 1200, "lane", "app", "a");
    for (int i = 0; i < 12; i++)
        cr_expect_eq(claim(w, 1, 100), 100);
    ASK(w, queue_note(w->at[1].q, job_id(5), 1, "{\"ref\":\"five\"}", on_done, &w->a));
    queue_collecting(w->at[1].q, job_id(7), true, NULL, NULL);
    queue_collecting(w->at[1].q, job_id(8), true, NULL, NULL);
    queue_collecting(w->at[1].q, job_id(8), false, NULL, NULL);
    queue_collecting(w->at[2].q, job_id(9), true, NULL, NULL); /* not its claim */
    cr_expect_eq(stats(w, "lane").claimed, 1200);
    const char *dead[] = { w->at[1].worker, w->at[3].worker, "no uuid" };
    dead[1] = "019fffff-0000-7000-8000-00000000dead";
    cr_expect_eq(ASK(w, queue_bury(w->at[0].q, dead, 3, on_done, &w->a)), 1200);
    cr_expect_eq(ASK(w, queue_bury(w->at[0].q, dead, 3, on_done, &w->a)), 0);
    cr_expect_eq(stats(w, "lane").claimed, 0);
    cr_expect_eq(claim(w, 2, 20), 20);
    for (size_t i = 0; i < 20; i++) {
        int n = claimed_number(w, i);
        cr_expect_eq(w->a.claims[i].is_lost, n == 7, "%d", n);
        cr_expect_eq(w->a.claims[i].note[0] != '\0', n == 5, "%d", n);
    }
    ASK(w, queue_bury(w->at[0].q, (const char *[]){ w->at[2].worker }, 1, on_done, &w->a));
    cr_expect_eq(claim(w, 1, 20), 20);
    for (size_t i = 0; i < 20; i++)
        cr_expect_not(w->a.claims[i].is_lost, "told once, and the second one died without collecting");
    world_free(w);
}

Test(queue, resync_gives_back_a_claim_whose_reply_was_lost_and_adds_what_is_missing)
{
    struct world *w = world_new(2);
    const char *held[3], *lanes[] = { "lane", "lane", "lane" };
    publish_many(w, 0, 10, "lane", "app", "a");
    cr_expect_eq(claim(w, 1, 4), 4);
    held[0] = job_id(0);
    held[1] = job_id(77); /* Redis never heard of it */
    held[2] = job_id(8);  /* Redis takes it for ready */
    size_t moved = ASK(w, queue_resync(w->at[1].q, held, lanes, 3, on_done, &w->a));
    cr_expect_eq(moved, 5, "three back, two added: %zu", moved);
    cr_expect_eq(stats(w, "lane").claimed, 3);
    cr_expect_eq(stats(w, "lane").ready, 8);
    cr_expect_eq(publish(w, item(77, "lane", "app", "a")), 0, "it is claimed");
    cr_expect_eq(claim(w, 2, 100), 8);
    cr_expect_eq(claimed_number(w, 0), 1, "given back: first");
    cr_expect_eq(ASK(w, queue_resync(w->at[1].q, held, lanes, 3, on_done, &w->a)), 0);
    cr_expect_eq(forget(w, 1, job_id(77)), 1);
    world_free(w);
}

Test(queue, resync_leaves_a_claim_alone_whose_reply_is_under_way)
{
    struct world *w = world_new(1);
    publish_many(w, 0, 10, "lane", "app", "a");
    w->a.answers = 0;
    queue_claim(w->at[1].q, 4, on_claim, &w->a);
    queue_resync(w->at[1].q, NULL, NULL, 0, on_done, &w->a); /* a list made before that answer */
    cr_assert(support_run_count(&w->loop, &w->a.answers, 2, WAIT_MS));
    cr_expect_eq(w->a.count, 0);
    cr_expect_eq(stats(w, "lane").claimed, 4);
    world_free(w);
}

Test(queue, resync_of_thousands_finds_the_differences)
{
    struct world *w = world_new(1);
    enum { N = 5000 };
    const char **held = calloc(N, sizeof(*held)), **lanes = calloc(N, sizeof(*lanes));
    char(*ids)[UUID_TEXT] = calloc(N, sizeof(*ids));
    publish_many(w, 0, N, "lane", "app", "a");
    for (int i = 0; i < N / 500; i++)
        cr_expect_eq(claim(w, 1, 500), 500);
    for (int i = 0; i < N; i++) { /* the first 700 are unknown to us, 700 more than Redis knows */
        memcpy(ids[i], job_id(i + 700), UUID_TEXT);
        held[i] = ids[i];
        lanes[i] = "lane";
    }
    cr_expect_eq(ASK(w, queue_resync(w->at[1].q, held, lanes, N, on_done, &w->a)), 1400);
    cr_expect_eq(stats(w, "lane").claimed, N);
    cr_expect_eq(stats(w, "lane").ready, 700);
    free(held);
    free(lanes);
    free(ids);
    world_free(w);
}

Test(queue, a_canceled_job_leaves_the_queue_and_its_holder_gets_a_hint)
{
    struct world *w = world_new(2);
    publish_many(w, 1, 2, "lane", "app", "a");
    struct queue_item later = item(3, "lane", "app", "a");
    later.delay_ms = 60000;
    publish(w, later);
    cr_expect_eq(claim(w, 1, 1), 1);
    cr_expect_eq(ASK(w, queue_cancel(w->at[0].q, job_id(2), 5, NULL, on_done, &w->a)), 1);
    cr_expect_eq(ASK(w, queue_cancel(w->at[0].q, job_id(3), 5, NULL, on_done, &w->a)), 1);
    cr_assert(support_run_count(&w->loop, &w->at[0].events, 2, 1000));
    cr_expect_str_eq(w->at[0].event_state, "canceled");
    cr_expect_eq(w->at[0].event_version, 5);
    cr_expect_eq(ASK(w, queue_cancel(w->at[0].q, job_id(1), 6, w->at[1].worker, on_done, &w->a)), 0);
    cr_assert(support_run_count(&w->loop, &w->at[1].hints, 1, 1000));
    cr_expect_str_eq(w->at[1].hint, job_id(1));
    cr_expect_eq(claim(w, 2, 10), 0);
    cr_expect_eq(forget(w, 1, job_id(1)), 1, "the holder forgets it");
    ASK(w, queue_cancel(w->at[0].q, job_id(99), 6, w->at[2].worker, on_done,
                        &w->a)); /* Redis lost it: hint all the same */
    cr_assert(support_run_count(&w->loop, &w->at[2].hints, 1, 1000));
    cr_expect_eq(w->at[1].hints, 1);
    world_free(w);
}

/* Redis was emptied or restored and told of the job anew, its holder has died: nobody is left who would forget it. */
Test(queue, a_canceled_job_whose_claim_redis_lost_leaves_nothing)
{
    struct world *w = world_new(1);
    struct queue_item later = item(2, "lane", "app", "a");
    later.delay_ms = 60000;
    publish_many(w, 1, 1, "lane", "app", "a");
    publish(w, later);
    cr_expect_eq(ASK(w, queue_cancel(w->at[0].q, job_id(1), 5, job_id(77), on_done, &w->a)), 1);
    cr_expect_eq(ASK(w, queue_cancel(w->at[0].q, job_id(2), 5, job_id(77), on_done, &w->a)), 1);
    cr_expect_eq(server_do(&w->server, "EXISTS kiln:{0}:job:%s kiln:{0}:env:%s", job_id(1), job_id(1)), 0);
    cr_expect_eq(server_do(&w->server, "EXISTS kiln:{0}:job:%s kiln:{0}:env:%s", job_id(2), job_id(2)), 0);
    cr_expect_eq(claim(w, 1, 10), 0);
    world_free(w);
}

Test(queue, a_phase_goes_with_the_claim_that_it_was_told_of)
{
    struct world *w = world_new(2);
    publish_many(w, 1, 2, "lane", "app", "a");
    cr_expect_eq(claim(w, 1, 2), 2);
    queue_progress(w->at[1].q, job_id(1), "waiting", 40);
    queue_progress(w->at[1].q, job_id(2), "waiting", 40);
    cr_expect_eq(ASK(w, queue_put_back(w->at[1].q, job_id(1), NULL, 0, true, on_done, &w->a)), 1);
    ASK(w, queue_progress_of(w->at[0].q, job_id(1), on_progress, &w->a));
    cr_expect_str_eq(w->a.text, "(nothing)", "given back");
    ASK(w, queue_progress_of(w->at[0].q, job_id(2), on_progress, &w->a));
    cr_expect_str_eq(w->a.text, "waiting");
    ASK(w, queue_bury(w->at[0].q, (const char *[]){ w->at[1].worker }, 1, on_done, &w->a));
    ASK(w, queue_progress_of(w->at[0].q, job_id(2), on_progress, &w->a));
    cr_expect_str_eq(w->a.text, "(nothing)", "its worker died");
    cr_expect_eq(claim(w, 2, 2), 2);
    world_free(w);
}

Test(queue, events_and_progress_reach_the_dispatcher)
{
    struct world *w = world_new(1);
    publish_many(w, 1, 1, "lane", "app", "a");
    cr_expect_eq(claim(w, 1, 1), 1);
    queue_progress(w->at[1].q, job_id(2), "waiting", 10); /* unknown: nothing */
    queue_progress(w->at[1].q, job_id(1), "waiting", 40);
    cr_assert(support_run_count(&w->loop, &w->at[0].events, 1, 1000));
    cr_expect_str_eq(w->at[0].event_job, job_id(1));
    cr_expect_str_eq(w->at[0].event_phase, "waiting");
    cr_expect_str_eq(w->at[0].event_state, "");
    cr_expect_eq(w->at[0].event_percent, 40);
    ASK(w, queue_progress_of(w->at[0].q, job_id(1), on_progress, &w->a));
    cr_expect_str_eq(w->a.text, "waiting");
    cr_expect_eq(w->a.percent, 40);
    ASK(w, queue_progress_of(w->at[0].q, job_id(2), on_progress, &w->a));
    cr_expect_str_eq(w->a.text, "(nothing)");
    cr_expect_eq(w->a.percent, -1);
    forget(w, 1, job_id(1));
    cr_assert(support_run_count(&w->loop, &w->at[0].events, 2, 1000));
    cr_expect_str_eq(w->at[0].event_state, "succeeded");
    queue_event(w->at[0].q, job_id(4), 9, "failed");
    cr_assert(support_run_count(&w->loop, &w->at[0].events, 3, 1000));
    cr_expect_eq(w->at[0].event_version, 9);
    server_do(&w->server, "PUBLISH kiln:{0}:events %s", "not json");
    server_do(&w->server, "PUBLISH kiln:{0}:events %s", "{\"job\":7}");
    queue_event(w->at[0].q, job_id(5), 9, "failed");
    cr_assert(support_run_count(&w->loop, &w->at[0].events, 4, 1000));
    cr_expect_str_eq(w->at[0].event_job, job_id(5));
    world_free(w);
}

Test(queue, marker_and_policy)
{
    struct world *w = world_new(0);
    struct queue *q = w->at[0].q;
    ASK(w, queue_marker(q, on_text, &w->a));
    cr_expect_str_eq(w->a.text, "(nothing)");
    ASK(w, queue_set_marker(q, NULL, "begun", on_done, &w->a));
    ASK(w, queue_set_marker(q, "begun", "pass 1", on_done, &w->a));
    cr_expect_eq(w->a.count, 1);
    ASK(w, queue_marker(q, on_text, &w->a));
    cr_expect_str_eq(w->a.text, "pass 1");
    ASK(w, queue_check_policy(q, on_text, &w->a));
    cr_expect_str_eq(w->a.text, "noeviction");
    server_do(&w->server, "CONFIG SET maxmemory-policy allkeys-lru");
    ASK(w, queue_check_policy(q, on_text, &w->a));
    cr_expect_str_eq(w->a.text, "allkeys-lru");
    server_do(&w->server, "FLUSHALL");
    ASK(w, queue_marker(q, on_text, &w->a));
    cr_expect_str_eq(w->a.text, "(nothing)");
    ASK(w, queue_set_marker(q, "pass 1", "pass 2", on_done, &w->a));
    cr_expect_eq(w->a.count, 0, "emptied since the pass began");
    server_do(&w->server, "RPUSH kiln:{0}:marker nonsense");
    ASK(w, queue_set_marker(q, "pass 1", "pass 2", on_done, &w->a));
    cr_expect_eq(w->a.count, 0);
    ASK(w, queue_set_marker(q, NULL, "begun", on_done, &w->a));
    cr_expect_eq(w->a.count, 1, "whatever was there");
    world_free(w);
}
