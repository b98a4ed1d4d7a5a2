/* test_worker.c - the worker's own promises: limits, backpressure, leaving, taking up what was left, what it books. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include "common/base/text.h"
#include "tests/integration/house/house.h"

SUPPORT_SERVICES();

enum { LIMIT_MS = 60000 };

static const char overlay[] =
    "{\"provider\":\"leonardo\",\"lane\":{},\"operations\":{\"leonardo.generate\":{\"failed_is_free\":true,"
    "\"poll\":{\"first_ms\":300,\"every_ms\":300}}}}";
static const char slow_polls[] =
    "{\"provider\":\"leonardo\",\"lane\":{},\"operations\":{\"leonardo.generate\":{\"poll\":{\"first_ms\":300,"
    "\"every_ms\":2500}}}}";
static const char leonardo[] = "{\"prompt\":\"%s [[job:%s]]\",\"num_images\":1,\"width\":64,\"height\":64,"
                               "\"alchemy\":false,\"presetStyle\":\"LEONARDO\"}";

static void submit(const struct house *h, char id[40], const char *words, const char *tag)
{
    char params[512];

    (void)snprintf(params, sizeof(params), leonardo, words, tag);
    house_submit(h, id, "leonardo.generate", params);
}

static void submit_many(const struct house *h, const char *prefix, int count)
{
    char id[40], tag[32];

    for (int i = 0; i < count; i++) {
        (void)snprintf(tag, sizeof(tag), "%s%d", prefix, i);
        submit(h, id, "many", tag);
    }
}

static void expect_state(const struct house *h, const char *id, const char *state)
{
    struct reply job = house_wait(h, id, LIMIT_MS);

    cr_expect_str_eq(reply_text(&job, "state"), state, "%s", job.text);
    reply_done(&job);
}

static int64_t count_of(const struct house *h, const char *sql, const char *id)
{
    char text[256];

    (void)snprintf(text, sizeof(text), sql, id);
    return support_sql_int(h->db, text);
}

/* Asks, every 100 ms, the dispatcher for a path or anybody for a URL. */
static bool comes_to_say(const struct house *h, const char *where, const char *part, int tries)
{
    struct timespec pause = { 0, 100000000 };
    bool found = false;

    for (int i = 0; i < tries && !found; i++) {
        struct reply r = *where == '/' ? house_call(h, "GET", where, NULL, NULL) : house_url("GET", where, NULL, NULL);

        found = strstr(r.text, part) != NULL;
        reply_done(&r);
        if (!found)
            (void)nanosleep(&pause, NULL);
    }
    return found;
}

static bool worker_says(const struct house *h, int worker, const char *part, int tries)
{
    char url[64];

    (void)snprintf(url, sizeof(url), "http://127.0.0.1:%d/readyz", h->worker_ports[worker]);
    return comes_to_say(h, url, part, tries);
}

Test(worker, a_note_of_an_attempt_that_is_over_does_not_stop_the_next_one)
{
    /* the retry is settled, Redis never hears of it: the claim comes back with the note of the first attempt */
    static const char *const crash[] = { "KILN_FAILPOINTS=worker.after_settle=crash", NULL };
    struct house_options options = { .catalog = overlay, .no_worker = true };
    struct house *h = house_open(&options);
    char id[40];

    (void)house_worker_start(h, crash);
    submit(h, id, "once [[fault:fail,times=1]]", "note");
    cr_expect_eq(house_wait_exit(&h->workers[0], 20000), 128 + SIGKILL);
    (void)house_worker_start(h, NULL);
    expect_state(h, id, "succeeded");
    cr_expect_leq(count_of(h, "select count(*) from attempts where job_id = '%s'", id), 3);
    house_close(h);
}

Test(worker, what_postgresql_says_is_mine_and_i_do_not_know_is_asked_about)
{
    static const char *const crash[] = { "KILN_FAILPOINTS=accept.after_commit=crash", NULL };
    struct house_options options = { .catalog = overlay, .no_dispatcher = true };
    struct house *h = house_open(&options);
    struct reply r;

    house_dispatcher_start(h, crash);
    r = house_call(h, "POST", "/v1/jobs",
                   "{\"operation\":\"leonardo.generate\",\"params\":{\"prompt\":\"stray [[job:stray]]\","
                   "\"num_images\":1,\"width\":64,\"height\":64,\"alchemy\":false,\"presetStyle\":\"LEONARDO\"}}",
                   NULL);
    reply_done(&r);
    cr_expect_eq(house_wait_exit(&h->dispatcher, 5000), 128 + SIGKILL);
    /* as if the worker had been answered `go` and had lost its memory of it */
    free(support_sql(h->db, "select verdict from kiln_start((select id from workers where dead_at is null limit 1), "
                            "array(select id from jobs), array[false], array[null::int], array[null::jsonb])"));
    cr_expect_eq(support_sql_int(h->db, "select count(*) from jobs where state = 'running'"), 1);
    cr_expect(house_wait_sql(h, "select unknowns from jobs", 1, 20000), "it was settled as unknown");
    house_dispatcher_start(h, NULL);
    cr_expect(house_wait_sql(h, "select count(*) from jobs where state = 'succeeded'", 1, 30000));
    cr_expect_eq(house_counter(h, "stray", "paid"), 1);
    house_close(h);
}

Test(worker, lets_go_of_a_job_that_ended_without_a_hint)
{
    struct house_options options = { .catalog = slow_polls,
                                     .sandbox_config = "{\"delay_ms\":{\"leonardo\":{\"min\":60000,\"max\":60000}}}" };
    struct house *h = house_open(&options);
    char id[40], sql[128];

    submit(h, id, "gone", "gone");
    cr_assert(worker_says(h, 0, "\"waiting\":1", 100));
    (void)snprintf(sql, sizeof(sql), "select verdict from kiln_cancel(array['%s'::uuid], array[null::uuid])", id);
    free(support_sql(h->db, sql));
    cr_expect(worker_says(h, 0, "\"active\":0,\"waiting\":0", 150), "the next resync says so");
    house_close(h);
}

static bool shows_phase(const struct house *h, const char *id, const char *phase)
{
    char path[64], part[64];

    (void)snprintf(path, sizeof(path), "/v1/jobs/%s", id);
    (void)snprintf(part, sizeof(part), "\"phase\":\"%s\"", phase);
    return comes_to_say(h, path, part, 100);
}

Test(worker, tells_the_phases_that_last)
{
    struct house_options options = { .catalog = overlay,
                                     .sandbox_config = "{\"delay_ms\":{\"leonardo\":{\"min\":5000,\"max\":5000}}}" };
    struct house *h = house_open(&options);
    char slow[40], later[40];

    house_submit(h, slow, "stability.generate.core", "{\"prompt\":\"slow [[job:slow]] [[fault:delay_ms=4000]]\"}");
    submit(h, later, "later", "later");
    cr_expect(shows_phase(h, slow, "submitting"), "its provider takes four seconds to answer");
    cr_expect(shows_phase(h, later, "waiting"), "its picture is not there before five");
    expect_state(h, slow, "succeeded");
    expect_state(h, later, "succeeded");
    house_close(h);
}

Test(worker, claims_nothing_while_its_storage_takes_nothing)
{
    struct house_options options = { .catalog = overlay };
    struct house *h = house_open(&options);
    char id[40], from[128], to[128];

    (void)snprintf(from, sizeof(from), "%s/storage/tmp", h->dir);
    (void)snprintf(to, sizeof(to), "%s/storage/away", h->dir);
    cr_assert_eq(rename(from, to), 0);
    cr_assert(worker_says(h, 0, "\"storage\":\"failing\"", 150), "it notices by itself");
    submit(h, id, "later", "full");
    cr_expect_not(house_wait_sql(h, "select count(*) from attempts", 1, 3000), "nothing is started");
    cr_assert_eq(rename(to, from), 0);
    expect_state(h, id, "succeeded");
    cr_expect(worker_says(h, 0, "\"storage\":\"ok\"", 10));
    house_close(h);
}

Test(worker, never_has_more_jobs_waiting_than_it_may)
{
    struct house_options options = { .catalog = overlay, .worker_env = { "KILN_MAX_WAITING=5" } };
    struct house *h = house_open(&options);
    int64_t most = 0;

    submit_many(h, "w", 16);
    while (support_sql_int(h->db, "select count(*) from jobs where state = 'succeeded'") < 16) {
        int64_t running = support_sql_int(h->db, "select count(*) from jobs where state = 'running'");

        most = running > most ? running : most;
    }
    cr_expect_leq(most, 5, "%lld", (long long)most);
    cr_expect_geq(most, 4, "and they go side by side: %lld", (long long)most);
    house_close(h);
}

Test(worker, goes_on_sending_while_its_waiting_jobs_are_polled_all_the_time)
{
    struct house_options options = {
        .catalog = overlay,
        .worker_env = { "KILN_CONCURRENCY=4" },
        .sandbox_config = "{\"delay_ms\":{\"leonardo\":{\"min\":12000,\"max\":13000}}}",
    };
    struct house *h = house_open(&options);

    house_fault(
        h, "{\"match\":{\"provider\":\"leonardo\"},\"fault\":{\"delay_ms\":2000,\"at\":\"poll\"},\"times\":100000}");
    submit_many(h, "p", 15);
    cr_assert(house_wait_sql(h, "select count(*) from attempts where ref is not null", 15, 10000));
    cr_assert(worker_says(h, 0, "\"waiting\":0", 100), "all stand in line to be polled");
    submit_many(h, "q", 15);
    cr_expect(house_wait_sql(h, "select count(*) from attempts where ref is not null", 30, 5000), "%lld",
              (long long)support_sql_int(h->db, "select count(*) from attempts where ref is not null"));
    house_sandbox_config(h, "{\"delay_ms\":{\"leonardo\":{\"min\":0,\"max\":0}},\"clock_offset_ms\":20000}");
    cr_expect(house_wait_sql(h, "select count(*) from jobs where state = 'succeeded'", 30, 60000));
    house_close(h);
}

Test(worker, leaves_at_once_though_an_input_is_still_on_its_way)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(a);
    int fd = socket(AF_INET, SOCK_STREAM, 0), asked;
    struct house *h = house_open(NULL);
    char id[40], params[256];

    cr_assert_eq(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    cr_assert_eq(listen(fd, 8), 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    (void)snprintf(params, sizeof(params), "{\"prompt\":\"x [[job:in]]\",\"image\":\"http://127.0.0.1:%d/never.png\"}",
                   ntohs(a.sin_port));
    house_submit(h, id, "stability.upscale.creative", params);
    asked = accept(fd, NULL, NULL); /* the worker is waiting for the file now */
    cr_assert_geq(asked, 0);
    house_kill(&h->workers[0], SIGTERM);
    cr_expect_eq(house_wait_exit(&h->workers[0], 5000), 0, "it does not wait for a file that costs nothing");
    cr_expect_eq(count_of(h, "select count(*) from jobs where id = '%s' and state = 'queued'", id), 1);
    cr_expect_eq(support_sql_int(h->db, "select count(*) from attempts"), 0);
    (void)close(asked);
    (void)close(fd);
    house_close(h);
}

Test(worker, polls_what_it_took_over_no_sooner_than_the_operation_allows)
{
    struct house_options options = { .catalog = slow_polls,
                                     .sandbox_config = "{\"delay_ms\":{\"leonardo\":{\"min\":7000,\"max\":7100}}}" };
    struct house *h = house_open(&options);
    char id[40], url[128];
    int64_t last = 0, polls = 0;
    struct reply r;

    submit(h, id, "spaced", "space");
    while (house_counter(h, "space", "polls") < 1)
        ;
    house_kill(&h->workers[0], SIGTERM);
    cr_expect_eq(house_wait_exit(&h->workers[0], 5000), 0);
    (void)house_worker_start(h, NULL);
    expect_state(h, id, "succeeded");
    (void)snprintf(url, sizeof(url), "%s/_sandbox/requests?tag=space", h->sandbox);
    r = house_url("GET", url, NULL, NULL);
    for (int i = 0; i < 100; i++) {
        char path[40];
        int64_t at;

        (void)snprintf(path, sizeof(path), "requests.%d.phase", i);
        if (strcmp(reply_text(&r, path), "poll") != 0)
            continue;
        (void)snprintf(path, sizeof(path), "requests.%d.at_ms", i);
        at = reply_int(&r, path);
        cr_expect(!last || at - last >= 2400, "%lld ms after the last", (long long)(at - last));
        last = at;
        polls++;
    }
    cr_expect_geq(polls, 3, "%s", r.text);
    reply_done(&r);
    house_close(h);
}

Test(worker, a_key_refused_at_a_poll_loses_no_paid_job)
{
    struct house_options options = { .catalog = overlay };
    struct house *h = house_open(&options);
    char id[40];

    submit(h, id, "rotated [[fault:poll_status=401,times=2]]", "key");
    expect_state(h, id, "succeeded");
    cr_expect_eq(house_counter(h, "key", "paid"), 1);
    house_close(h);
}

struct booked {
    const char *words, *tag;
    bool is_paid;
};

Test(worker, books_what_each_attempt_cost)
{
    static const struct booked table[] = {
        { "good", "good", true },
        { "filtered [[fault:filtered]]", "filtered", true },
        { "refused [[fault:status=400]]", "refused", false },
        { "blank [[fault:blank]]", "blank", true },
    };
    struct house *h = house_open(NULL);

    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        char params[256];
        struct reply job;

        (void)snprintf(params, sizeof(params), "{\"prompt\":\"%s [[job:%s]]\"}", table[i].words, table[i].tag);
        job = house_run(h, "stability.generate.core", params, LIMIT_MS);
        cr_expect_eq(count_of(h, "select coalesce(sum(cost_microusd), -1) from attempts where job_id = '%s'",
                              reply_text(&job, "id")),
                     table[i].is_paid ? 30000 : 0, "%s: %s", table[i].tag, job.text);
        reply_done(&job);
    }
    house_close(h);
}

Test(worker, tells_customers_what_happened_and_nothing_of_the_network)
{
    struct house *h = house_open(NULL);
    struct reply job =
        house_run(h, "stability.generate.core", "{\"prompt\":\"cut [[fault:drop_after]] [[job:cut]]\"}", LIMIT_MS);

    cr_expect_str_eq(reply_text(&job, "error.code"), "outcome_unknown", "%s", job.text);
    cr_expect_str_eq(reply_text(&job, "error.message"),
                     "the connection to the provider broke before its answer was complete", "%s", job.text);
    reply_done(&job);
    house_close(h);
}
