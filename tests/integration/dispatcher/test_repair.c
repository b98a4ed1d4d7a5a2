/* test_repair.c - what goes missing is found again: Redis away, Redis emptied, a dispatcher killed between commit and
 * publish, PostgreSQL away, SIGTERM with people waiting. Servers stop here, so the tests of this program run one by
 * one. */
#include "tests/integration/dispatcher/front.h"
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <hiredis/hiredis.h>
#include "common/base/clock.h"
#include "common/base/text.h"

SUPPORT_SERVICES_ALONE();

/* The value of a series in /metrics; -1: not there. */
static double metric(struct front *f, const char *series)
{
    struct reply r = front_ask(f, &(struct request_spec){ .method = "GET", .path = "/metrics", .key = "" });
    const char *at = r.body;
    double value = -1;

    while ((at = strstr(at, series)) != NULL && at != r.body && at[-1] != '\n')
        at++;
    if (at != NULL)
        value = strtod(at + strlen(series), NULL);
    reply_done(&r);
    return value;
}

static bool metric_becomes(struct front *f, const char *series, double want, int limit_ms)
{
    int64_t until = clock_mono_ms() + limit_ms;
    struct timespec nap = { 0, 50000000 };
    double got;

    while ((got = metric(f, series)) != want && clock_mono_ms() < until) /* small whole numbers */
        (void)nanosleep(&nap, NULL);
    return got == want;
}

static bool ready_says(struct front *f, long status, const char *text, int limit_ms)
{
    int64_t until = clock_mono_ms() + limit_ms;
    struct timespec nap = { 0, 50000000 };
    bool ok = false;

    while (!ok && clock_mono_ms() < until) {
        struct reply r = front_ask(f, &(struct request_spec){ .method = "GET", .path = "/readyz", .key = "" });

        ok = r.status == status && strstr(r.body, text) != NULL;
        reply_done(&r);
        if (!ok)
            (void)nanosleep(&nap, NULL);
    }
    return ok;
}

#define READY_OPENAI "kiln_queue_ready{lane=\"openai\"}"

Test(repair, without_redis_jobs_are_accepted_and_published_when_it_is_back)
{
    struct front f;

    front_open(&f, NULL);
    front_grant(&f, "default", "100");
    support_service("stop-redis");
    cr_expect(ready_says(&f, 200, "\"redis\":\"missing\"", 10000), "ready, and says what is missing");
    for (int i = 0; i < 5; i++)
        free(front_job(&f, NULL));
    support_service("start-redis");
    cr_expect(ready_says(&f, 200, "\"redis\":\"ok\"", 10000));
    cr_expect(metric_becomes(&f, READY_OPENAI, 5, 20000), "%f", metric(&f, READY_OPENAI));
    front_close(&f);
}

Test(repair, an_emptied_redis_is_filled_again)
{
    struct front f;
    redisContext *redis;
    redisReply *reply;
    const char *url;

    front_open(&f, NULL);
    front_grant(&f, "default", "100");
    for (int i = 0; i < 5; i++)
        free(front_job(&f, NULL));
    cr_expect(metric_becomes(&f, READY_OPENAI, 5, 10000));
    url = getenv("KILN_REDIS_URL");
    redis = redisConnectUnix(url + 5);
    reply = redisCommand(redis, "FLUSHALL"); /* it may be full again before anybody has looked */
    cr_expect(reply && reply->type == REDIS_REPLY_STATUS);
    freeReplyObject(reply);
    redisFree(redis);
    cr_expect(metric_becomes(&f, READY_OPENAI, 5, 15000), "%f", metric(&f, READY_OPENAI));
    cr_expect_geq(metric(&f, "kiln_republished_total{pass=\"full\"}"), 0);
    front_close(&f);
}

/* Two whole pages of kiln_unpublished, in one call; `id`: one of them, in SQL. */
static void accept_1000(struct front *f, const char *id)
{
    char sql[1600];

    (void)snprintf(
        sql, sizeof(sql),
        "select count(*) from kiln_accept(array(select %s from generate_series(1, 1000)), "
        "array_fill('%s'::uuid, array[1000]), array_fill('default'::text, array[1000]), "
        "array_fill(null::text, array[1000]), array_fill(null::text, array[1000]), "
        "array_fill('openai.images.generate'::text, array[1000]), array_fill('openai'::text, array[1000]), "
        "array_fill('{\"prompt\":\"x\"}'::jsonb, array[1000]), array_fill(null::jsonb, array[1000]), "
        "array_fill(1, array[1000]), array_fill(100::bigint, array[1000]), array_fill('v'::text, array[1000]), "
        "array_fill(0, array[1000]), array_fill(null::timestamptz, array[1000]), array_fill(600, array[1000]), "
        "array_fill('retry'::text, array[1000]), array_fill(null::jsonb, array[1000]), "
        "array_fill(null::uuid, array[1000]), array_fill(null::uuid, array[1000]), null)",
        id, f->app);
    cr_assert_eq(support_sql_int(f->db, sql), 1000);
}

/* Noted after a complete full pass, and after nothing else; another one each time. */
static char *marker_other_than(struct front *f, const char *last)
{
    int64_t until = clock_mono_ms() + 15000;
    struct timespec nap = { 0, 50000000 };
    char *marker = NULL;

    do {
        free(marker);
        (void)nanosleep(&nap, NULL);
        marker = support_sql(f->db, "select redis_marker from leases where name = 'reconciler'");
    } while (strcmp(marker, last) == 0 && clock_mono_ms() < until);
    return marker;
}

Test(repair, whole_pages_are_published_once_and_the_pass_ends)
{
    struct front f;
    redisContext *redis;
    char *first, *second;

    front_open(&f, NULL);
    front_grant(&f, "default", "1000");
    accept_1000(&f, "gen_random_uuid()");
    first = marker_other_than(&f, "");
    redis = redisConnectUnix(getenv("KILN_REDIS_URL") + 5);
    freeReplyObject(redisCommand(redis, "FLUSHALL"));
    redisFree(redis);
    second = marker_other_than(&f, first);
    cr_expect_str_neq(second, first, "the pass over two whole pages ends");
    cr_expect_eq(metric(&f, READY_OPENAI), 1000);
    free(first);
    free(second);
    front_close(&f);
}

/* As by another dispatcher that died in between: this one knows nothing of them, and has its own beside. */
Test(repair, what_another_accepted_is_published_within_seconds)
{
    struct front f;

    front_open(&f, NULL);
    front_grant(&f, "default", "1000");
    free(front_job(&f, NULL));
    free(marker_other_than(&f, ""));
    accept_1000(&f, "overlay(overlay(gen_random_uuid()::text placing '7' from 15) placing overlay(lpad(to_hex("
                    "(extract(epoch from clock_timestamp()) * 1000)::bigint), 12, '0') placing '-' from 9 for 0) "
                    "from 1 for 13)::uuid");
    free(front_job(&f, NULL));
    cr_expect(metric_becomes(&f, READY_OPENAI, 1002, 8000), "%f", metric(&f, READY_OPENAI));
    front_close(&f);
}

static void nap_ms(int ms)
{
    struct timespec nap = { 0, ms * 1000000L };

    (void)nanosleep(&nap, NULL);
}

static bool log_has(const struct front *f, const char *text, int times)
{
    char *log = front_log(f);
    const char *at = log;

    while (times > 0 && (at = strstr(at, text)) != NULL) {
        at += strlen(text);
        times--;
    }
    free(log);
    return times == 0;
}

static void flushall(void)
{
    redisContext *redis = redisConnectUnix(getenv("KILN_REDIS_URL") + 5);

    freeReplyObject(redisCommand(redis, "FLUSHALL"));
    redisFree(redis);
}

/* The pass stands still just before it would call itself complete. */
Test(repair, a_redis_emptied_again_while_it_is_filled_is_filled_again)
{
    static const char *const env[] = { "KILN_FAILPOINTS=redis.set_marker.before=stall:2500@2", NULL };
    struct front f;

    front_open(&f, NULL);
    front_grant(&f, "default", "100");
    free(front_job(&f, NULL));
    free(marker_other_than(&f, ""));
    front_stop(&f);
    f.env = env;
    front_start(&f);
    flushall();
    for (int i = 0; i < 300 && !log_has(&f, "failpoint redis.set_marker.before", 1); i++)
        nap_ms(50);
    cr_assert(log_has(&f, "failpoint redis.set_marker.before", 1));
    flushall();
    for (int i = 0; i < 300 && !log_has(&f, "redis_lost_data", 2); i++)
        nap_ms(50);
    cr_expect(log_has(&f, "redis_lost_data", 2), "seen as a second loss");
    cr_expect(metric_becomes(&f, READY_OPENAI, 1, 10000));
    front_close(&f);
}

Test(repair, a_death_between_commit_and_publish_loses_nothing)
{
    static const char *const env[] = { "KILN_FAILPOINTS=accept.after_commit=crash@3", NULL };
    struct front f;
    struct reply r;
    char *last;
    struct request_spec spec = { .method = "POST",
                                 .path = "/v1/jobs",
                                 .type = "application/json",
                                 .body = "{\"operation\":\"openai.images.generate\",\"params\":{\"prompt\":\"x\"}}",
                                 .headers = { "Idempotency-Key: the-third" } };

    front_open(&f, env);
    front_grant(&f, "default", "100");
    free(front_job(&f, NULL));
    free(front_job(&f, NULL));
    r = front_ask(&f, &spec);
    cr_expect_eq(r.status, 0, "no answer came");
    reply_done(&r);
    cr_expect(front_wait_exit(&f, 5000), "the fail point killed it");
    cr_expect_eq(front_count(&f, "select count(*) from jobs"), 3, "committed");
    f.env = NULL;
    front_start(&f);
    cr_expect(metric_becomes(&f, READY_OPENAI, 3, 15000), "%f", metric(&f, READY_OPENAI));
    last = support_sql(f.db, "select id from jobs order by id desc limit 1");
    r = front_ask(&f, &spec); /* the client asks again, as it should */
    cr_expect_eq(r.status, 202);
    cr_expect_str_eq(reply_text(&r, "id"), last);
    cr_expect_str_eq(reply_header(&r, "Idempotent-Replayed"), "true");
    reply_done(&r);
    free(last);
    cr_expect_eq(front_count(&f, "select count(*) from kiln_audit()"), 0);
    front_close(&f);
}

Test(repair, without_postgresql_it_says_503_at_once_and_comes_back)
{
    struct front f;
    struct reply r;
    char *id;

    front_open(&f, NULL);
    front_grant(&f, "default", "100");
    id = front_job(&f, NULL); /* the key is known now */
    free(id);
    support_service("stop-postgres");
    cr_expect(ready_says(&f, 503, "\"postgres\":\"missing\"", 10000));
    r = front_post(&f, "/v1/jobs", "{\"operation\":\"openai.images.generate\",\"params\":{\"prompt\":\"x\"}}");
    cr_expect_eq(r.status, 503);
    cr_expect_str_eq(reply_text(&r, "code"), "unavailable");
    cr_expect_str_neq(reply_header(&r, "Retry-After"), "");
    cr_expect_lt(r.seconds, 1);
    reply_done(&r);
    support_service("start-postgres");
    cr_expect(ready_says(&f, 200, "\"postgres\":\"ok\"", 15000));
    id = front_job(&f, NULL);
    free(id);
    front_close(&f);
}

Test(repair, what_operators_set_in_lanes_reaches_redis)
{
    struct front f;
    double paused = 0;
    int64_t until = clock_mono_ms() + 15000;

    front_open(&f, NULL);
    free(support_sql(f.db, "insert into lanes (name, paused_until) values ('openai', now() + interval '1 hour') "
                           "returning 1"));
    while ((paused = metric(&f, "kiln_queue_paused_seconds{lane=\"openai\"}")) < 3000 && clock_mono_ms() < until)
        ;
    cr_expect(paused > 3000 && paused <= 3600, "%f", paused);
    free(support_sql(f.db, "update lanes set paused_until = null returning 1"));
    cr_expect(metric_becomes(&f, "kiln_queue_paused_seconds{lane=\"openai\"}", 0, 15000), "lifted");
    free(support_sql(f.db, "update lanes set paused_until = 'infinity' returning 1"));
    until = clock_mono_ms() + 15000;
    while ((paused = metric(&f, "kiln_queue_paused_seconds{lane=\"openai\"}")) < 3600 && clock_mono_ms() < until)
        ;
    cr_expect(paused > 86400, "for ever: %f", paused);
    free(support_sql(f.db, "update lanes set paused_until = '-infinity' returning 1"));
    cr_expect(metric_becomes(&f, "kiln_queue_paused_seconds{lane=\"openai\"}", 0, 15000), "lifted again");
    front_close(&f);
}

static redisContext *redis_of(const struct front *f)
{
    redisContext *redis = redisConnectUnix(getenv("KILN_REDIS_URL") + 5);
    const char *number = strstr(f->redis, "?db=");

    freeReplyObject(redisCommand(redis, "SELECT %s", number ? number + 4 : "0"));
    return redis;
}

static bool weights_become(struct front *f, int count, const char *id, const char *want)
{
    redisContext *redis = redis_of(f);
    int64_t until = clock_mono_ms() + 15000;
    struct timespec nap = { 0, 50000000 };
    bool ok = false;

    while (!ok && clock_mono_ms() < until) {
        redisReply *n = redisCommand(redis, "HLEN kiln:{0}:weights");
        redisReply *one = redisCommand(redis, "HGET kiln:{0}:weights %s", id);

        ok = n->integer == count && (want == NULL ? one->str == NULL : one->str != NULL && strcmp(one->str, want) == 0);
        freeReplyObject(n);
        freeReplyObject(one);
        if (!ok)
            (void)nanosleep(&nap, NULL);
    }
    redisFree(redis);
    return ok;
}

Test(repair, weights_reach_redis_and_survive_its_loss)
{
    struct front f;
    char id[100];
    char *app;
    redisContext *redis;

    front_open(&f, NULL);
    front_grant(&f, "default", "100");
    free(support_sql(f.db,
                     "update apps set weight = 5 where id = (select id from apps order by id limit 1) returning 1"));
    free(support_sql(f.db, "update accounts set weight = 7 returning 1"));
    app = support_sql(f.db, "select app_id from accounts limit 1");
    snprintf(id, sizeof(id), "%s:default", app);
    cr_expect(weights_become(&f, 2, id, "7"), "what PostgreSQL has");
    redis = redisConnectUnix(getenv("KILN_REDIS_URL") + 5);
    freeReplyObject(redisCommand(redis, "FLUSHALL"));
    redisFree(redis);
    cr_expect(weights_become(&f, 2, id, "7"), "again, after Redis lost it");
    free(support_sql(f.db, "update accounts set weight = 1 returning 1"));
    cr_expect(weights_become(&f, 1, id, NULL), "who has 1 again is not there");
    free(app);
    front_close(&f);
}

static int upload_objects(struct front *f)
{
    char command[160];
    int n = -1;
    FILE *p;

    snprintf(command, sizeof(command), "find '%s/store/obj/upload' -type f | wc -l", f->dir);
    p = popen(command, "r");
    cr_assert_not_null(p);
    cr_expect_eq(fscanf(p, "%d", &n), 1);
    pclose(p);
    return n;
}

Test(repair, expired_uploads_are_swept_object_first)
{
    struct front f;
    struct reply r;
    int64_t until = clock_mono_ms() + 10000;

    front_open(&f, NULL);
    r = front_ask(&f, &(struct request_spec){ .method = "POST",
                                              .path = "/v1/uploads",
                                              .body = (const char *)front_png,
                                              .len = front_png_len,
                                              .type = "image/png" });
    cr_assert_eq(r.status, 201);
    reply_done(&r);
    cr_expect_eq(upload_objects(&f), 1);
    free(support_sql(f.db, "update uploads set expires_at = now() - interval '1 minute' returning 1"));
    front_stop(&f);
    front_start(&f); /* the first sweep comes when leading begins */
    while (front_count(&f, "select count(*) from uploads") > 0 && clock_mono_ms() < until)
        ;
    cr_expect_eq(front_count(&f, "select count(*) from uploads"), 0);
    cr_expect_eq(upload_objects(&f), 0);
    front_close(&f);
}

static void *wait_long(void *arg)
{
    struct front *f = arg;
    char *id = support_sql(f->db, "select id from jobs"), path[80];
    struct reply *r = malloc(sizeof(*r));

    snprintf(path, sizeof(path), "/v1/jobs/%s", id);
    *r = front_ask(f, &(struct request_spec){ .method = "GET", .path = path, .headers = { "Prefer: wait=50" } });
    free(id);
    return r;
}

Test(repair, sigterm_answers_who_waits_and_ends)
{
    struct front f;
    pthread_t thread;
    void *result;
    struct reply *r;
    int64_t began;

    front_open(&f, NULL);
    front_grant(&f, "default", "100");
    free(front_job(&f, NULL));
    pthread_create(&thread, NULL, wait_long, &f);
    cr_assert(metric_becomes(&f, "kiln_waiters", 1, 10000));
    began = clock_mono_ms();
    front_stop(&f);
    cr_expect_lt(clock_mono_ms() - began, 10000);
    pthread_join(thread, &result);
    r = result;
    cr_expect_eq(r->status, 200, "%ld", r->status);
    cr_expect_str_eq(reply_text(r, "state"), "queued");
    cr_expect_str_eq(reply_header(r, "Connection"), "close");
    reply_done(r);
    free(r);
    front_close(&f);
}

/* They come faster than they are published one by one; and nobody is left who would repair it. */
Test(repair, sigterm_publishes_what_was_accepted)
{
    enum { COUNT = 5 };
    struct front f;
    char *ids[COUNT];
    redisContext *redis;

    front_open(&f, NULL);
    front_grant(&f, "default", "100");
    for (int i = 0; i < COUNT; i++)
        ids[i] = front_job(&f, NULL);
    front_stop(&f);
    redis = redis_of(&f);
    for (int i = 0; i < COUNT; i++) {
        redisReply *reply = redisCommand(redis, "EXISTS kiln:{0}:job:%s", ids[i]);

        cr_expect_eq(reply->integer, 1, "the %d. job", i + 1);
        freeReplyObject(reply);
        free(ids[i]);
    }
    redisFree(redis);
    front_close(&f);
}

Test(repair, what_is_canceled_before_it_was_published_is_not_published)
{
    struct front f;
    char *first, *second, path[80];
    redisContext *redis;
    redisReply *reply;
    struct reply canceled;

    front_open(&f, NULL);
    front_grant(&f, "default", "100");
    first = front_job(&f, NULL);
    second = front_job(&f, NULL); /* so soon that it waits for others */
    (void)snprintf(path, sizeof(path), "/v1/jobs/%s/cancel", second);
    canceled = front_post(&f, path, "");
    cr_expect_str_eq(reply_text(&canceled, "state"), "canceled");
    reply_done(&canceled);
    front_stop(&f);
    redis = redis_of(&f);
    reply = redisCommand(redis, "EXISTS kiln:{0}:job:%s kiln:{0}:env:%s", second, second);
    cr_expect_eq(reply->integer, 0);
    freeReplyObject(reply);
    reply = redisCommand(redis, "EXISTS kiln:{0}:job:%s", first);
    cr_expect_eq(reply->integer, 1);
    freeReplyObject(reply);
    redisFree(redis);
    free(first);
    free(second);
    front_close(&f);
}
