/* test_crash.c - workers, dispatchers, Redis and PostgreSQL die in mid-flight: nothing is lost, nothing is paid twice.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "common/base/text.h"
#include "tests/integration/house/house.h"

SUPPORT_SERVICES_ALONE(); /* they are stopped and killed here */

/* No lane limits here (they have tests of their own), a poll each second. */
static const char free_lanes[] =
    "{\"provider\":\"leonardo\",\"lane\":{},\"operations\":{\"leonardo.generate\":{\"poll\":{\"first_ms\":500,\"every_ms\":1000}}}}";
static const char sandbox_free[] =
    "{\"stability_limit\":{\"requests\":0},\"stability_balance\":1000000000,"
    "\"delay_ms\":{\"leonardo\":{\"min\":6000,\"max\":8000},\"openai\":{\"min\":4000,\"max\":5000}}}";
static const char leonardo[] =
    "{\"prompt\":\"crash %s [[job:%s]]\",\"num_images\":1,\"width\":64,\"height\":64,\"alchemy\":false,"
    "\"presetStyle\":\"LEONARDO\"}";
/* small pictures: it is not drawing and decoding that is tested */
static const char openai[] = "{\"prompt\":\"crash %s [[job:%s]]\",\"model\":\"dall-e-2\",\"size\":\"256x256\"}";

static int64_t now_ms(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void submit_many(const struct house *h, const char *operation, const char *params, const char *prefix, int count)
{
    char id[40], tag[32];

    for (int i = 0; i < count; i++) {
        struct buf b = { 0 };

        (void)snprintf(tag, sizeof(tag), "%s%d", prefix, i);
        (void)buf_printf(&b, params == leonardo ? leonardo : openai, tag, tag);
        house_submit(h, id, operation, b.data);
        buf_done(&b);
    }
}

static void expect_each_paid_once(const struct house *h, const char *prefix, int count)
{
    char tag[32];

    for (int i = 0; i < count; i++) {
        (void)snprintf(tag, sizeof(tag), "%s%d", prefix, i);
        cr_expect_eq(house_counter(h, tag, "paid"), 1, "%s was paid %lld times", tag,
                     (long long)house_counter(h, tag, "paid"));
    }
}

static void expect_all_succeeded(const struct house *h, int count, int limit_ms)
{
    int64_t began = now_ms();
    bool done = house_wait_sql(h, "select count(*) from jobs where state = 'succeeded'", count, limit_ms);

    if (!done) {
        char *states = support_sql(
            h->db, "select string_agg(s, ', ') from (select state || ' ' || coalesce(error_code, '') || ' ' || "
                   "count(*) s from jobs group by state, error_code) x");

        cr_expect_fail("after %lld ms: %s", (long long)(now_ms() - began), states);
        free(states);
    }
    cr_expect_eq(support_sql_int(h->db, "select count(*) from ledger where kind = 'capture'"), count);
    cr_expect_eq(support_sql_int(h->db, "select coalesce(sum(held), 0) from accounts"), 0);
}

static struct house *open_house(bool no_worker)
{
    struct house_options options = {
        .catalog = free_lanes, .sandbox_config = sandbox_free, .credits = 100000, .no_worker = no_worker
    };

    return house_open(&options);
}

static const char waiting_200[] = "select count(*) from jobs j join attempts a on a.job_id = j.id and a.no = j.attempt "
                                  "where j.state = 'running' and a.ref is not null";

Test(crash, kill_9_of_a_worker_with_200_waiting_jobs_pays_each_once)
{
    struct house *h = open_house(false);

    submit_many(h, "leonardo.generate", leonardo, "w", 200);
    cr_assert(house_wait_sql(h, waiting_200, 200, 20000), "all are at the provider");
    house_kill(&h->workers[0], SIGKILL);
    (void)house_worker_start(h, NULL);
    expect_all_succeeded(h, 200, 8000 + 7000 + 1000 + 10000); /* their time, the take-over, one poll, a slow machine */
    expect_each_paid_once(h, "w", 200);
    house_close(h);
}

Test(crash, three_kills_over_the_same_waiting_jobs_fail_none_of_them)
{
    struct house *h = open_house(false);

    house_sandbox_config(h, "{\"delay_ms\":{\"leonardo\":{\"min\":30000,\"max\":32000}}}");
    submit_many(h, "leonardo.generate", leonardo, "t", 50);
    for (int kill = 0; kill < 3; kill++) {
        cr_assert(house_wait_sql(h, waiting_200, 50, 20000));
        house_kill(&h->workers[0], SIGKILL);
        (void)house_worker_start(h, NULL); /* takes the same place */
        cr_assert(house_wait_sql(
            h, "select count(distinct holder) from jobs where holder in (select id from workers where dead_at is null)",
            1, 15000));
        cr_assert(house_wait_sql(
            h, "select count(*) from jobs where holder in (select id from workers where dead_at is null)", 50, 15000));
    }
    expect_all_succeeded(h, 50, 60000);
    expect_each_paid_once(h, "t", 50);
    house_close(h);
}

Test(crash, a_drain_hands_waiting_jobs_back_and_nobody_pays_again)
{
    struct house *h = open_house(false);
    int64_t began;
    char *log;

    submit_many(h, "leonardo.generate", leonardo, "d", 100);
    cr_assert(house_wait_sql(h, waiting_200, 100, 20000));
    began = now_ms();
    house_kill(&h->workers[0], SIGTERM);
    cr_expect_eq(house_wait_exit(&h->workers[0], 5000), 0, "it exits clean");
    cr_expect_lt(now_ms() - began, 5000);
    log = house_log(h, "worker0");
    cr_expect_not_null(strstr(log, "event=handed_back"), "%s", log);
    free(log);
    cr_expect_eq(support_sql_int(h->db, "select count(*) from jobs where holder is not null"), 0);
    (void)house_worker_start(h, NULL);
    expect_all_succeeded(h, 100, 30000);
    expect_each_paid_once(h, "d", 100);
    house_close(h);
}

Test(crash, a_dispatcher_killed_between_commit_and_publish_loses_nothing)
{
    static const char *const crash[] = { "KILN_FAILPOINTS=accept.after_commit=crash", NULL };
    struct house_options options = { .catalog = free_lanes, .sandbox_config = sandbox_free, .no_dispatcher = true };
    struct house *h = house_open(&options);
    struct reply r;

    house_dispatcher_start(h, crash);
    r = house_call(
        h, "POST", "/v1/jobs",
        "{\"operation\":\"openai.images.generate\",\"params\":{\"prompt\":\"lost? [[job:p0]]\",\"quality\":\"low\"}}",
        NULL);
    cr_expect_eq(r.status, 0, "no answer came: %ld", r.status);
    reply_done(&r);
    cr_expect_eq(house_wait_exit(&h->dispatcher, 5000), 128 + SIGKILL);
    cr_expect_eq(support_sql_int(h->db, "select count(*) from jobs where state = 'queued'"), 1, "it was accepted");
    house_dispatcher_start(h, NULL);
    expect_all_succeeded(h, 1, 20000);
    expect_each_paid_once(h, "p", 1);
    house_close(h);
}

Test(crash, flushall_with_100_calls_in_flight_pays_100)
{
    struct house *h = open_house(false);
    char command[256], *socket = strdup(h->redis + strlen("unix:"));

    submit_many(h, "openai.images.generate", openai, "f", 100);
    cr_assert(house_wait_sql(h, "select count(*) from attempts", 100, 20000));
    socket[strcspn(socket, "?")] = '\0';
    (void)snprintf(command, sizeof(command), "redis-cli -s %s FLUSHALL >/dev/null", socket);
    cr_assert_eq(system(command), 0);
    free(socket);
    expect_all_succeeded(h, 100, 90000);
    expect_each_paid_once(h, "f", 100);
    cr_expect_eq(support_sql_int(h->db, "select count(*) from attempts"), 100);
    house_close(h);
}

Test(crash, redis_restarted_in_mid_flight_loses_and_doubles_nothing)
{
    struct house *h = open_house(false);

    submit_many(h, "openai.images.generate", openai, "r", 40);
    submit_many(h, "leonardo.generate", leonardo, "s", 40);
    cr_assert(house_wait_sql(h, "select count(*) from attempts", 80, 20000));
    support_service("restart-redis");
    submit_many(h, "openai.images.generate", openai, "u", 10);
    expect_all_succeeded(h, 90, 120000);
    expect_each_paid_once(h, "r", 40);
    expect_each_paid_once(h, "s", 40);
    expect_each_paid_once(h, "u", 10);
    house_close(h);
}

Test(crash, postgresql_away_for_ten_seconds_loses_and_doubles_nothing)
{
    struct house *h = open_house(false);
    struct timespec ten = { 10, 0 };
    struct reply r;

    submit_many(h, "openai.images.generate", openai, "o", 40);
    submit_many(h, "leonardo.generate", leonardo, "l", 40);
    cr_assert(house_wait_sql(h, "select count(*) from attempts", 80, 20000));
    support_service("stop-postgres");
    r = house_call(h, "POST", "/v1/jobs", "{\"operation\":\"openai.images.generate\",\"params\":{\"prompt\":\"no\"}}",
                   NULL);
    cr_expect_eq(r.status, 503, "%ld %s", r.status, r.text);
    cr_expect_not_null(strstr(r.headers, "etry-"), "it says when to come back");
    reply_done(&r);
    (void)nanosleep(&ten, NULL);
    support_service("start-postgres");
    expect_all_succeeded(h, 80, 120000);
    expect_each_paid_once(h, "o", 40);
    expect_each_paid_once(h, "l", 40);
    house_close(h);
}

/* Matrix row 8, parked note: what the provider said while PostgreSQL was away outlives the worker, a refusal too. A
 * dear request that is known to be refused is sent again; one of which nobody knew would have failed. */
Test(crash, what_a_worker_parked_before_it_died_is_settled_by_another)
{
    static const char dear[] =
        "{\"prompt\":\"crash dear [[job:dear]][[fault:status=503,delay_ms=3000,times=1]]\",\"model\":"
        "\"dall-e-2\",\"size\":\"256x256\",\"n\":7}";
    struct house *h = open_house(false);
    char id[40], *log = NULL;
    int64_t until;
    int parked = 0;

    submit_many(h, "openai.images.generate", openai, "o", 3);
    house_submit(h, id, "openai.images.generate", dear);
    for (until = now_ms() + 20000; house_counter(h, NULL, "requests") < 4 && now_ms() < until;)
        (void)nanosleep(&(struct timespec){ 0, 20000000 }, NULL);
    support_service("stop-postgres");
    for (until = now_ms() + 40000; parked < 4 && now_ms() < until;) {
        (void)nanosleep(&(struct timespec){ 0, 100000000 }, NULL);
        free(log);
        log = house_log(h, "worker0");
        parked = 0;
        for (const char *at = log; (at = strstr(at, "parked")) != NULL; at++)
            parked++;
    }
    cr_expect_geq(parked, 4, "%s", log);
    free(log);
    (void)nanosleep(&(struct timespec){ 1, 0 }, NULL); /* the notes are asked for once more each half second */
    house_kill(&h->workers[0], SIGKILL);
    support_service("start-postgres");
    (void)house_worker_start(h, NULL);
    expect_all_succeeded(h, 4, 60000);
    expect_each_paid_once(h, "o", 3);
    cr_expect_eq(house_counter(h, "dear", "requests"), 2);
    cr_expect_eq(house_counter(h, "dear", "paid"), 1);
    cr_expect_eq(support_sql_int(h->db, "select count(*) from attempts where class = 'unknown'"), 0);
    cr_expect_eq(support_sql_int(h->db, "select count(*) from attempts where class = 'refused'"), 1);
    house_close(h);
}

Test(crash, a_worker_stopped_for_ten_seconds_changes_nothing_that_another_took_over)
{
    struct house *h = open_house(false);
    struct timespec ten = { 10, 0 };

    house_sandbox_config(h, "{\"delay_ms\":{\"leonardo\":{\"min\":14000,\"max\":16000}}}");
    submit_many(h, "leonardo.generate", leonardo, "z", 50);
    cr_assert(house_wait_sql(h, waiting_200, 50, 20000));
    (void)house_worker_start(h, NULL);
    house_kill(&h->workers[0], SIGSTOP);
    cr_assert(house_wait_sql(h, "select count(*) from jobs where fence >= 2", 50, 15000), "the other took them over");
    (void)nanosleep(&ten, NULL);
    house_kill(&h->workers[0], SIGCONT);
    expect_all_succeeded(h, 50, 40000);
    expect_each_paid_once(h, "z", 50);
    house_close(h);
}

Test(crash, a_worker_stopped_before_it_sends_asks_again_first)
{
    /* start has answered, then the process sleeps for longer than it takes to be declared dead */
    static const char *const stall[] = { "KILN_FAILPOINTS=worker.after_start=stall:9000@1", NULL };
    struct house_options options = { .catalog = free_lanes, .sandbox_config = sandbox_free, .no_worker = true };
    struct house *h = house_open(&options);

    (void)house_worker_start(h, stall);
    submit_many(h, "leonardo.generate", leonardo, "b", 1);
    cr_assert(house_wait_sql(h, "select count(*) from attempts", 1, 10000));
    expect_all_succeeded(h, 1, 40000);
    expect_each_paid_once(h, "b", 1);
    house_close(h);
}

struct point {
    const char *name;
    int paid_most; /* protocol.md, crash matrix: how often the provider may be paid */
};

Test(crash, a_death_at_each_step_ends_as_the_matrix_says)
{
    static const struct point points[] = {
        { "worker.after_start", 1 },  { "worker.before_send", 1 },   { "worker.after_send", 2 },
        { "worker.after_answer", 2 }, { "worker.after_note", 1 },    { "worker.after_checkpoint", 1 },
        { "worker.before_poll", 1 },  { "worker.after_poll", 1 },    { "worker.collecting", 1 },
        { "worker.after_store", 1 },  { "worker.before_settle", 1 }, { "worker.after_settle", 1 },
    };
    struct house *h = open_house(true);

    house_sandbox_config(h, "{\"delay_ms\":{\"leonardo\":{\"min\":300,\"max\":400}}}");
    for (size_t i = 0; i < ARRAY_LEN(points); i++) {
        char env[96], id[40], tag[32], params[256], prompt[64];
        const char *const crash[] = { env, NULL };
        struct reply job;
        int64_t paid;

        (void)snprintf(env, sizeof(env), "KILN_FAILPOINTS=%s=crash", points[i].name);
        (void)snprintf(tag, sizeof(tag), "m%zu", i);
        (void)snprintf(prompt, sizeof(prompt), "%s", points[i].name);
        (void)snprintf(params, sizeof(params), leonardo, prompt, tag);
        (void)house_worker_start(h, crash);
        house_submit(h, id, "leonardo.generate", params);
        cr_expect_eq(house_wait_exit(&h->workers[0], 20000), 128 + SIGKILL, "%s was reached", points[i].name);
        (void)house_worker_start(h, NULL);
        job = house_wait(h, id, 30000);
        cr_expect_str_eq(reply_text(&job, "state"), "succeeded", "%s: %s", points[i].name, job.text);
        reply_done(&job);
        paid = house_counter(h, tag, "paid");
        cr_expect(paid >= 1 && paid <= points[i].paid_most, "%s: paid %lld times", points[i].name, (long long)paid);
        house_kill(&h->workers[0], SIGTERM);
        cr_expect_eq(house_wait_exit(&h->workers[0], 10000), 0);
    }
    cr_expect_eq(support_sql_int(h->db, "select count(*) from ledger where kind = 'capture'"),
                 (int64_t)ARRAY_LEN(points));
    house_close(h);
}

/* Matrix rows 5 and 6 where on_unknown is `fail`: nobody can know whether it left, so nobody sends it again. The
 * workers die one after the other, each of its own job. */
Test(crash, a_dear_job_whose_worker_dies_around_the_send_is_not_sent_again)
{
    static const struct point points[] = { { "worker.after_start", 0 },
                                           { "worker.before_send", 0 },
                                           { "worker.after_send", 1 },
                                           { "worker.after_answer", 1 } };
    struct house *h = open_house(true);
    char ids[ARRAY_LEN(points)][40];

    for (size_t i = 0; i < ARRAY_LEN(points); i++) {
        char env[96], params[256];
        const char *const crash[] = { env, NULL };
        int worker;

        (void)snprintf(env, sizeof(env), "KILN_FAILPOINTS=%s=crash", points[i].name);
        (void)snprintf(
            params, sizeof(params),
            "{\"prompt\":\"dear %zu [[job:d%zu]][[fault:delay_ms=100]]\",\"model\":\"dall-e-2\",\"size\":\"256x256\","
            "\"n\":7}",
            i, i);
        worker = house_worker_start(h, crash);
        house_submit(h, ids[i], "openai.images.generate", params);
        cr_expect_eq(house_wait_exit(&h->workers[worker], 20000), 128 + SIGKILL, "%s was reached", points[i].name);
    }
    (void)house_worker_start(h, NULL);
    for (size_t i = 0; i < ARRAY_LEN(points); i++) {
        struct reply job = house_wait(h, ids[i], 30000);
        char tag[8];
        int64_t paid;

        (void)snprintf(tag, sizeof(tag), "d%zu", i);
        cr_expect_str_eq(reply_text(&job, "error.code"), "outcome_unknown", "%s: %s", points[i].name, job.text);
        cr_expect_float_eq(reply_number(&job, "credits.charged"), 0, 1e-9, "%s", job.text);
        paid = house_counter(h, tag, "paid");
        cr_expect_leq(paid, points[i].paid_most, "%s: paid %lld times", points[i].name, (long long)paid);
        cr_expect_eq(reply_int(&job, "attempts"), 1, "%s: %s", points[i].name, job.text);
        reply_done(&job);
    }
    cr_expect_eq(support_sql_int(h->db, "select count(*) from kiln_exposure(100) where reason = 'unknown'"),
                 (int64_t)ARRAY_LEN(points));
    cr_expect_eq(support_sql_int(h->db, "select coalesce(sum(held), 0) from accounts"), 0);
    house_close(h);
}

Test(crash, a_job_that_kills_three_workers_while_it_is_collected_ends_as_worker_lost)
{
    static const char *const crash[] = { "KILN_FAILPOINTS=worker.collecting=crash", NULL };
    struct house *h = open_house(true);
    char id[40], params[256];
    struct reply job;

    house_sandbox_config(h, "{\"delay_ms\":{\"leonardo\":{\"min\":300,\"max\":400}}}");
    (void)snprintf(params, sizeof(params), leonardo, "poison", "poison");
    house_submit(h, id, "leonardo.generate", params);
    for (int i = 0; i < 3; i++) {
        (void)house_worker_start(h, crash);
        cr_expect_eq(house_wait_exit(&h->workers[0], 30000), 128 + SIGKILL, "death %d", i);
    }
    (void)house_worker_start(h, NULL);
    job = house_wait(h, id, 30000);
    cr_expect_str_eq(reply_text(&job, "state"), "failed", "%s", job.text);
    cr_expect_str_eq(reply_text(&job, "error.code"), "worker_lost", "%s", job.text);
    cr_expect_float_eq(reply_number(&job, "credits.charged"), 0, 1e-9);
    reply_done(&job);
    cr_expect_eq(house_counter(h, "poison", "paid"), 1);
    house_close(h);
}
