/* test_flight.c - claims about the sums of a flight: when it is polled next, and how many may be in the air. */
#include <stdlib.h>
#include <criterion/criterion.h>
#include "worker/actions.h"

static const struct operation upscale = { .poll_first_ms = 10000, .poll_every_ms = 10000 };
static const struct operation quick = { .poll_first_ms = 4000, .poll_every_ms = 3000 };

Test(flight, is_polled_first_when_the_operation_says_and_then_at_its_interval)
{
    cr_expect_eq(flight_poll_delay_ms(&upscale, 0, 0, 1800000), 10000);
    cr_expect_eq(flight_poll_delay_ms(&quick, 1500, 0, 300000), 2500);
    cr_expect_eq(flight_poll_delay_ms(&quick, 4000, 0, 300000), 3000);
}

Test(flight, taken_over_late_is_not_polled_sooner_than_an_interval)
{
    for (int64_t age = 10000; age < 60000; age += 777)
        cr_expect_geq(flight_poll_delay_ms(&upscale, age, 0, 1800000), 10000);
}

Test(flight, waits_as_long_as_the_provider_asks_but_not_past_its_patience)
{
    cr_expect_eq(flight_poll_delay_ms(&upscale, 20000, 60, 1800000), 60000);
    cr_expect_eq(flight_poll_delay_ms(&upscale, 20000, 86400, 25000), 25000);
}

Test(flight, is_polled_once_more_at_the_end_of_its_patience_and_never_sooner_than_its_interval)
{
    cr_expect_eq(flight_poll_delay_ms(&upscale, 20000, 0, 1000), 10000);
    cr_expect_eq(flight_poll_delay_ms(&upscale, 20000, 0, -5), 10000);
    cr_expect_eq(flight_poll_delay_ms(&quick, 290000, 30, 2000), 3000);
}

Test(flight, of_an_operation_that_says_so_is_polled_less_often_the_older_it_gets)
{
    static const struct operation op = { .poll_first_ms = 1000, .poll_every_ms = 1000, .poll_grow_to_ms = 5000 };

    cr_expect_eq(flight_poll_delay_ms(&op, 0, 0, 600000), 1000);
    cr_expect_eq(flight_poll_delay_ms(&op, 3000, 0, 600000), 1000);
    cr_expect_eq(flight_poll_delay_ms(&op, 12000, 0, 600000), 3000);
    cr_expect_eq(flight_poll_delay_ms(&op, 500000, 0, 600000), 5000);
    cr_expect_eq(flight_poll_delay_ms(&op, 598000, 0, 2000), 2000, "the last one comes at the end of the patience");
    cr_expect_eq(flight_poll_delay_ms(&quick, 250000, 0, 600000), 3000, "others do not grow");
}

Test(flight, waiting_jobs_take_no_room_but_leave_a_quarter_to_their_polls)
{
    struct flight_env env = { .concurrency = 1000 };

    env.in_state[JOB_SUBMITTING] = 300;
    cr_expect_eq(flight_env_calls(&env), 300);
    cr_expect_eq(flight_env_reserve(&env), 0);
    env.in_state[JOB_WAITING] = 90000;
    env.in_state[JOB_POLLING] = 10000; /* most of them in line */
    env.polls_active = 100;
    cr_expect_eq(flight_env_calls(&env), 300);
    cr_expect_eq(flight_env_reserve(&env), 250);
    env.polls_active = 400;
    env.in_state[JOB_COLLECTING] = 200;
    cr_expect_eq(flight_env_results(&env), 600);
    cr_expect_eq(flight_env_reserve(&env), 600);
    env.in_state[JOB_COLLECTING] = 900;
    cr_expect_eq(flight_env_reserve(&env), 750, "a quarter is for calls, whatever is collected");
}

Test(flight, waiting_jobs_never_stop_a_worker_of_one)
{
    struct flight_env env = { .concurrency = 1, .polls_active = 1 };

    env.in_state[JOB_WAITING] = 50;
    env.in_state[JOB_POLLING] = 1;
    cr_expect_eq(flight_env_calls(&env) + flight_env_reserve(&env), 0);
}

Test(flight, a_line_gives_everybody_once_in_order)
{
    struct flight_line line = { 0 };
    struct flight f[4] = { 0 };

    for (int i = 0; i < 4; i++)
        line_push(&line, &f[i]);
    line_remove(&f[1]);
    line_remove(&f[3]);
    line_remove(&f[3]); /* not in it any more: nothing */
    line_push(&line, &f[1]);
    cr_expect_eq(line_pop(&line), &f[0]);
    cr_expect_eq(line_pop(&line), &f[2]);
    cr_expect_eq(line_pop(&line), &f[1]);
    cr_expect_null(line_pop(&line));
    cr_expect_null(line.last);
}

Test(settlement, a_parked_outcome_comes_back_whole)
{
    struct settlement s = { 0 }, back = { 0 };
    char *note;

    settlement_set(&s, OUTCOME_FAILED, ERR_BAD_RESULT, CLASS_ANSWERED, "it is \"blank\"");
    s.provider_status = 200;
    s.cost_microusd = 40000;
    note = settlement_note(&s);
    cr_assert(settlement_from_note(&back, note), "%s", note);
    cr_expect_eq(back.outcome, OUTCOME_FAILED);
    cr_expect_eq(back.code, ERR_BAD_RESULT);
    cr_expect_eq(back.klass, CLASS_ANSWERED);
    cr_expect_str_eq(back.message, "it is \"blank\"");
    cr_expect_eq(back.provider_status, 200);
    cr_expect_eq(back.cost_microusd, 40000);
    free(note);
    settlement_done(&s);
    settlement_done(&back);
}

Test(settlement, a_parked_refusal_comes_back_with_its_delay_and_an_unknown_does_not)
{
    struct settlement s = { 0 }, back = { 0 };
    char *note;

    settlement_set(&s, OUTCOME_RETRY, ERR_RATE_LIMITED, CLASS_REFUSED, "slower");
    s.delay_ms = 1500;
    s.counts = false;
    s.is_exposed = true;
    note = settlement_note(&s);
    cr_assert(settlement_from_note(&back, note), "%s", note);
    cr_expect_eq(back.outcome, OUTCOME_RETRY);
    cr_expect_eq(back.code, ERR_RATE_LIMITED);
    cr_expect_eq(back.klass, CLASS_REFUSED);
    cr_expect_eq(back.delay_ms, 1500);
    cr_expect_not(back.counts, "a pause is no try");
    cr_expect(back.is_exposed);
    free(note);
    settlement_set(&s, OUTCOME_UNKNOWN, ERR_OUTCOME_UNKNOWN, CLASS_UNKNOWN, "cut");
    note = settlement_note(&s);
    cr_expect_not(settlement_from_note(&back, note), "%s", note);
    free(note);
    settlement_set(&s, OUTCOME_RETRY, ERR_PROVIDER_ERROR, CLASS_ANSWERED, "it is not free to repeat");
    note = settlement_note(&s);
    cr_expect_not(settlement_from_note(&back, note), "%s", note);
    free(note);
    settlement_done(&s);
    settlement_done(&back);
}

Test(settlement, foreign_text_is_no_outcome)
{
    static const char *const texts[] = { "",
                                         "{",
                                         "[]",
                                         "{\"ref\":\"x\"}",
                                         "{\"outcome\":{}}",
                                         "{\"outcome\":{\"outcome\":\"failed\",\"class\":\"answered\"}}",
                                         "{\"outcome\":{\"outcome\":\"delivered\",\"class\":\"answered\"}}",
                                         "{\"outcome\":{\"outcome\":\"delivered\",\"class\":\"x\",\"code\":\"ok\"}}" };
    struct settlement s = { 0 };

    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        cr_expect_not(settlement_from_note(&s, texts[i]), "%s", texts[i]);
    cr_expect_not(settlement_from_note(&s, NULL));
}

Test(flight, claims_less_the_longer_an_outcome_waits_for_postgresql)
{
    struct flight_env env = { .concurrency = 1000 };
    struct flight f = { .settle_began_ms = 10000 };

    cr_expect_eq(flight_env_pressure(&env, PRESSURE_POSTGRES, 99000), 0, "nothing to settle is no reason");
    line_push(&env.for_settle, &f);
    cr_expect_eq(flight_env_pressure(&env, PRESSURE_POSTGRES, 10900), 0);
    cr_expect_eq(flight_env_pressure(&env, PRESSURE_POSTGRES, 13000), 50);
    cr_expect_eq(flight_env_pressure(&env, PRESSURE_POSTGRES, 15000), 100, "down to nothing");
    line_remove(&f);
    cr_expect_eq(flight_env_pressure(&env, PRESSURE_POSTGRES, 15001), 0, "and by itself again");
}

Test(flight, claims_less_while_results_wait_for_a_thread_but_not_for_one_that_has_it)
{
    struct flight_env env = { .concurrency = 1000 };
    struct sortie hostile = { .work_queued_ms = 0 }, late = { .work_queued_ms = 20000 };
    struct flight first = { .sortie = &hostile }, second = { .sortie = &late };

    line_push(&env.for_store, &first);
    line_push(&env.for_store, &second);
    atomic_store(&hostile.has_begun, true);
    cr_expect_eq(flight_env_pressure(&env, PRESSURE_STORAGE, 20500), 0, "one file that takes long is no slow disk");
    cr_expect_eq(flight_env_pressure(&env, PRESSURE_STORAGE, 23000), 50);
    cr_expect_eq(flight_env_pressure(&env, PRESSURE_STORAGE, 29000), 100);
    atomic_store(&late.has_begun, true);
    cr_expect_eq(flight_env_pressure(&env, PRESSURE_STORAGE, 29000), 0);
}

Test(flight, claims_less_from_half_of_the_memory_on_and_nothing_at_all_of_it)
{
    struct flight_env env = { .concurrency = 1000, .memory_limit = 1 << 20 };

    env.held_bytes = 1 << 19;
    cr_expect_eq(flight_env_pressure(&env, PRESSURE_MEMORY, 0), 0);
    env.received_bytes = 1 << 18;
    cr_expect_eq(flight_env_pressure(&env, PRESSURE_MEMORY, 0), 50);
    env.received_bytes = 1 << 19;
    cr_expect_eq(flight_env_pressure(&env, PRESSURE_MEMORY, 0), 100);
    env.memory_limit = 0;
    cr_expect_eq(flight_env_pressure(&env, PRESSURE_MEMORY, 0), 0);
}
