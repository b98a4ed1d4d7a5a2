/* test_chaos.c - every fail point of kiln (points.sh reads them from the sources) with every action it has, each as a
 * case of its own: dispatcher and worker run with it, it acts at its first pass, a small mixed load goes through, what
 * died is started again, and when all jobs are final the oracle has to find nothing.
 *
 * Cases run side by side, KILN_CHAOS_JOBS at once; most of their time they wait for somebody to be declared dead.
 * KILN_CHAOS_ONLY=text runs the cases whose "point=action" has that text in it. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <criterion/parameterized.h>
#include "common/base/text.h"
#include "tests/chaos/judge.h"

ReportHook(PRE_ALL)(struct criterion_test_set *set)
{
    const char *jobs = getenv("KILN_CHAOS_JOBS");

    (void)set;
    criterion_options.jobs = jobs ? (size_t)strtoul(jobs, NULL, 10) : 8;
    support_services_start();
}

static const struct {
    const char *name, *actions;
} points[] = {
#include "chaos_points.h"
};

struct chaos_case { /* no pointers: it travels to another process */
    char point[64], action[16];
};

/* What a point needs beside the common load. */
enum need {
    NEED_DEATH = 1,      /* a worker that died while it was collecting */
    NEED_DRAIN = 2,      /* a worker told to go while a job waits */
    NEED_LOST_CLAIM = 4, /* a claim whose answer was lost */
    NEED_EMPTIED = 8,    /* Redis emptied and its connections cut */
    NEED_EXPIRED = 16,   /* a job that nobody takes until it is too late */
    NEED_FILES = 32,     /* inputs that are kept, used, refused */
    NEED_RETRY = 64,     /* an operator's retry of a failed job */
    NEED_BATCH = 128,    /* several jobs in one transaction */
    NEED_KEYS = 256,     /* a provider with two keys, one of them refused */
    NEED_CACHE = 512,    /* identical jobs with `cache` */
    NEED_ASKED = 1024,   /* a submit whose answer is lost, at a provider that can be asked for it */
    NEED_PACKS = 2048,   /* small files whose storing waits for one before them, so that they gather */
    NEED_LONG = 4096,    /* a job that is at one thing for seconds, however fast the machine is */
};
static const struct {
    const char *prefix;
    int need;
} needs[] = {
    { "db.accept_cached.", NEED_CACHE },
    { "db.retry.", NEED_RETRY },
    { "db.lost.", NEED_DEATH },
    { "redis.bury.", NEED_DEATH },
    { "db.handback.", NEED_DRAIN },
    { "db.inputs", NEED_FILES },
    { "redis.give_back.", NEED_LOST_CLAIM },
    { "redis.adopt.", NEED_EMPTIED },
    { "redis.spend.", NEED_FILES },
    { "redis.event.", NEED_EXPIRED },
    { "redis.progress.", NEED_LONG },
    { "store.", NEED_FILES },
    { "pack.", NEED_PACKS },
    { "worker.before_prepare", NEED_FILES },
    { "worker.before_reconcile", NEED_ASKED },
    { "worker.after_reconcile", NEED_ASKED },
    { "worker.after_prepare", NEED_FILES },
    { "batch.", NEED_BATCH },
    { "redis.key_", NEED_FILES | NEED_KEYS },
};

static const char overlay[] =
    "{\"provider\":\"leonardo\",\"lane\":{},\"operations\":{\"leonardo.generate\":{\"poll\":{\"first_ms\":200,\"every_ms\":500}}}}";
/* The same, kept as they come: what is looked into by nobody is small enough for a pack. */
static const char overlay_of_files[] =
    "{\"provider\":\"leonardo\",\"lane\":{},\"operations\":{\"leonardo.generate\":{\"output\":\"file\",\"poll\":{\"first_ms\":200,"
    "\"every_ms\":500}}}}";
static const char sandbox[] = "{\"delay_ms\":{\"openai\":300,\"leonardo\":600,\"stability_creative\":500}}";

struct scene {
    struct house *h;
    const struct chaos_case *c;
    char name[96], env[160];
    const char *fail[2]; /* the environment of those who meet the fail point */
    int need;
    bool was_hit, has_bystander;
};

static int64_t now_ms(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void pause_ms(int ms)
{
    struct timespec t = { ms / 1000, (long)(ms % 1000) * 1000000 };

    (void)nanosleep(&t, NULL);
}

static bool is_crash(const struct scene *s)
{
    return !strcmp(s->c->action, "crash");
}

static bool is_stall(const struct scene *s)
{
    return !strncmp(s->c->action, "stall", 5);
}

/* --- programs ------------------------------------------------------------------------------------------------------
 */

static void look_for_hit(struct scene *s)
{
    static const char *const programs[] = { "dispatcher", "worker0", "worker1", "worker2" };
    char line[128];

    (void)snprintf(line, sizeof(line), "failpoint %s=%.5s", s->c->point, s->c->action);
    for (size_t i = 0; i < ARRAY_LEN(programs) && !s->was_hit; i++) {
        char *log = house_log(s->h, programs[i]);

        s->was_hit = strstr(log, line) != NULL;
        free(log);
    }
}

static void expect_killed(const struct scene *s, const char *program, int status)
{
    if (is_crash(s) && status == 128 + SIGKILL)
        return;
    house_show_logs(s->h);
    cr_assert_fail("%s: the %s ended with %d", s->name, program, status);
}

static void start_worker(struct scene *s, const char *const *env)
{
    int i;

    if (!house_worker_try(s->h, env, &i)) {
        cr_assert(env && is_crash(s), "%s: worker %d did not start", s->name, i);
        (void)house_worker_start(s->h, NULL);
    }
}

/* Whoever died of the fail point is started again, without it. Who stalls for too long gets a rival. */
static void tend(struct scene *s)
{
    struct house *h = s->h;
    int status;

    if (h->dispatcher && (status = house_wait_exit(&h->dispatcher, 0)) != -1) {
        expect_killed(s, "dispatcher", status);
        house_dispatcher_start(h, NULL);
    }
    for (int i = 0; i < HOUSE_WORKERS; i++) {
        if (h->workers[i] && (status = house_wait_exit(&h->workers[i], 0)) != -1) {
            expect_killed(s, "worker", status);
            start_worker(s, NULL);
        }
    }
    if (!s->was_hit)
        look_for_hit(s);
    if (s->was_hit && (s->need & NEED_LOST_CLAIM) && !s->has_bystander && h->workers[0]) {
        house_kill(&h->workers[0], SIGTERM); /* who loses every claim is of no use */
        (void)house_wait_exit(&h->workers[0], 20000);
        start_worker(s, NULL);
        s->has_bystander = true;
    }
    if (s->was_hit && is_stall(s) && !s->has_bystander) {
        s->has_bystander = true;
        start_worker(s, NULL);
    }
}

static void wait_sql(struct scene *s, const char *sql, int64_t want, int limit_ms, const char *what)
{
    int64_t until = now_ms() + limit_ms;

    while (support_sql_int(s->h->db, sql) != want) {
        if (now_ms() > until) {
            char *jobs =
                support_sql(s->h->db, "select string_agg(concat_ws(' ', operation, state, error_code, 'attempt', "
                                      "attempt, 'holder', holder), E'\\n') from jobs");
            cr_assert_fail("%s: %s took more than %d ms:\n%s", s->name, what, limit_ms, jobs);
        }
        tend(s);
        pause_ms(100);
    }
}

/* --- the load ------------------------------------------------------------------------------------------------------
 */

/* Asks until there is an answer, as a good client does, with the same key. */
static struct reply insist(struct scene *s, const char *method, const char *path, const char *body, const char *key)
{
    int64_t until = now_ms() + 30000;
    char header[80];
    const char *const headers[] = { header, NULL };
    struct reply r;

    (void)snprintf(header, sizeof(header), "Idempotency-Key: %s", key ? key : "");
    for (;;) {
        r = house_call(s->h, method, path, body, key ? headers : NULL);
        tend(s);
        if (r.status != 0 && r.status < 500)
            return r;
        cr_assert_lt(now_ms(), until, "%s: %s %s: %ld %s", s->name, method, path, r.status, r.text);
        reply_done(&r);
        pause_ms(100);
    }
}

static void submit(struct scene *s, char id[40], const char *key, const char *operation, const char *params)
{
    char body[2048];
    struct reply r;

    (void)snprintf(body, sizeof(body), "{\"operation\":\"%s\",\"params\":%s}", operation, params);
    r = insist(s, "POST", "/v1/jobs", body, key);
    cr_assert(r.status == 202 || r.status == 200, "%s: %s: %ld %s", s->name, key, r.status, r.text);
    (void)snprintf(id, 40, "%s", reply_text(&r, "id"));
    reply_done(&r);
}

static void expect_status(struct scene *s, const char *method, const char *path, const char *body, long status)
{
    struct reply r = insist(s, method, path, body, NULL);

    cr_expect_eq(r.status, status, "%s: %s %s: %ld %s", s->name, method, path, r.status, r.text);
    reply_done(&r);
}

#define LEONARDO(text)                                                                                                 \
    "{\"prompt\":\"" text                                                                                              \
    "\",\"num_images\":1,\"width\":64,\"height\":64,\"alchemy\":false,\"presetStyle\":\"LEONARDO\"}"

/* A grey picture of 64 x 64 pixels: what upscales accept at least. */
static const char picture[] =
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAAAAACPAi4CAAAAzklEQVR42tWXQRWDUBDEIgEJSEACEioBCZVQCUhAAhIqAQlIQALjIXOA3Bt45f/dGQhDGMMU5vAJS/iGX1jDFvbwD0c4wxVoCN7++0e8gHo+9v0LAvkHYj8A9gM2BO4EYU8g9gRXBOoKYa8g9gp7gZ0h2BmEnWEFgRyi2CGMHeINgdsi2C2E3WIVgVqj2DWMXeNeYHMENodgc0xBIIMUNohhg1xD4JIkNolik2xFoKI0Nopjo7wX2C6B7SLYLlMQyDKFLWPYMtcQuDaJbaM3wwSAasv7wnwAAAAASUVORK5CYII=";

/* An input in line, the same again by the id that it was stored under, and one of an account that cannot pay. */
static void load_files(struct scene *s)
{
    char id[40], params[1024], *upload;
    struct reply r;

    (void)snprintf(params, sizeof(params), "{\"prompt\":\"more\",\"image\":\"%s\"}", picture);
    submit(s, id, "inline", "stability.upscale.creative", params);
    upload = support_sql(s->h->db, "select id from uploads limit 1");
    (void)snprintf(params, sizeof(params), "{\"prompt\":\"more\",\"image\":\"%s\"}", upload);
    submit(s, id, "upload", "stability.upscale.creative", params);
    (void)snprintf(params, sizeof(params),
                   "{\"prompt\":\"more\",\"width\":64,\"height\":64,\"alchemy\":false,\"init_image\":\"%s\"}", upload);
    submit(s, id, "init", "leonardo.generate", params);
    free(upload);
    (void)snprintf(
        params, sizeof(params),
        "{\"operation\":\"stability.upscale.creative\",\"account\":\"poor\",\"params\":{\"prompt\":\"more\",\"image\":\"%s\"}}",
        picture);
    r = insist(s, "POST", "/v1/jobs", params, "poor");
    cr_expect_eq(r.status, 402, "%s: %ld %s", s->name, r.status, r.text);
    reply_done(&r);
}

/* Three jobs, asked for until they are there: once. */
static void load_batch(struct scene *s)
{
    static const char job[] = "{\"operation\":\"leonardo.generate\",\"params\":" LEONARDO("batch") "}";
    char body[1024];
    struct reply r;

    (void)snprintf(body, sizeof(body), "{\"jobs\":[%s,%s,%s]}", job, job, job);
    r = insist(s, "POST", "/v1/batches", body, "batch");
    cr_expect_eq(r.status, 202, "%s: %ld %s", s->name, r.status, r.text);
    reply_done(&r);
    cr_expect_eq(support_sql_int(s->h->db, "select count(*) from jobs where batch_id is not null"), 3, "%s", s->name);
}

/* Forty pictures that come at about the same time. */
static void load_packs(struct scene *s)
{
    enum { JOBS = 10 };
    static const char job[] =
        "{\"operation\":\"leonardo.generate\",\"params\":{\"prompt\":\"pack\",\"num_images\":4,\"width\":64,"
        "\"height\":64,\"alchemy\":false,\"presetStyle\":\"LEONARDO\"}}";
    struct buf b = { 0 };
    struct reply r;

    for (int i = 0; i < JOBS; i++)
        (void)buf_printf(&b, "%s%s", i ? "," : "{\"jobs\":[", job);
    (void)buf_str(&b, "]}");
    r = insist(s, "POST", "/v1/batches", b.data, "packs");
    cr_expect_eq(r.status, 202, "%s: %ld %s", s->name, r.status, r.text);
    reply_done(&r);
    buf_done(&b);
}

/* A job that its provider refuses once, and an operator's retry of it. */
static void load_retry(struct scene *s)
{
    char id[40], text[128];
    struct reply r;

    submit(s, id, "again", "openai.images.generate",
           "{\"prompt\":\"again [[job:again]] [[fault:status=400,times=1]]\",\"quality\":\"low\"}");
    (void)snprintf(text, sizeof(text), "select count(*) from jobs where state = 'failed' and id = '%s'", id);
    wait_sql(s, text, 1, 20000, "the refusal");
    (void)snprintf(text, sizeof(text), "/v1/admin/jobs/%s/retry", id);
    r = insist(s, "POST", text, NULL, NULL);
    cr_expect(r.status == 202 || r.status == 200, "%s: %ld %s", s->name, r.status, r.text);
    cr_expect_str_eq(reply_text(&r, "retry_of"), id, "%s: %s", s->name, r.text);
    reply_done(&r);
}

/* Three that are asked of the provider once, and one more that is answered at once. */
static void load_cache(struct scene *s)
{
    static const char body[] = "{\"operation\":\"openai.images.generate\",\"cache\":true,\"params\":{\"prompt\":"
                               "\"the same [[job:cached]]\",\"quality\":\"low\"}}";
    static const char *const keys[] = { "cache0", "cache1", "cache2", "cache3" };

    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        struct reply r = insist(s, "POST", "/v1/jobs", body, keys[i]);

        cr_expect(r.status == 202 || r.status == 200, "%s: %ld %s", s->name, r.status, r.text);
        reply_done(&r);
        if (i == 2)
            wait_sql(s, "select count(*) from jobs where params->>'prompt' like 'the same%' and state = 'succeeded'", 3,
                     60000, "those that wait for the first");
    }
    wait_sql(s, "select count(*) from jobs where params->>'prompt' like 'the same%' and attempt > 0", 1, 1000,
             "one job that was asked of the provider");
}

static void load(struct scene *s)
{
    char sync_id[40], again[40], async_id[40], cancel_id[40], other[40], path[96];
    static const char sync_params[] = "{\"prompt\":\"now [[job:sync]]\",\"quality\":\"low\"}";
    static const char slow[] = LEONARDO("slow [[job:cancel]] [[fault:delay_ms=4000]]");

    expect_status(s, "POST", "/v1/accounts/default/grants", "{\"credits\":1,\"reference\":\"chaos\"}", 200);
    submit(s, async_id, "async", "leonardo.generate", LEONARDO("later [[job:async]]"));
    submit(s, sync_id, "sync", "openai.images.generate", sync_params);
    submit(s, again, "sync", "openai.images.generate", sync_params);
    cr_expect_str_eq(sync_id, again, "%s: the key gave another job", s->name);
    submit(s, other, "refused", "openai.images.generate",
           "{\"prompt\":\"busy [[job:refused]] [[fault:status=429,times=1]]\",\"quality\":\"low\"}");
    submit(s, cancel_id, "cancel", "leonardo.generate", slow);
    if (s->need & NEED_LONG)
        submit(s, other, "long", "leonardo.generate", LEONARDO("long [[job:long]] [[fault:delay_ms=3000]]"));
    if (s->need & NEED_FILES)
        load_files(s);
    if (s->need & NEED_ASKED)
        submit(
            s, other, "lost", "comfyui.prompt",
            "{\"prompt\":\"lost [[job:lost]] [[fault:drop_after,times=1]]\",\"workflow\":{\"6\":{\"class_type\":"
            "\"CLIPTextEncode\",\"inputs\":{\"text\":\"{{prompt}}\"}},\"9\":{\"class_type\":\"SaveImage\",\"inputs\":"
            "{\"images\":[\"6\",0]}}}}");
    if (s->need & NEED_RETRY)
        load_retry(s);
    if (s->need & NEED_BATCH)
        load_batch(s);
    if (s->need & NEED_CACHE)
        load_cache(s);
    if (s->need & NEED_PACKS)
        load_packs(s);
    (void)snprintf(path, sizeof(path), "/v1/jobs/%s?expand=attempts", async_id);
    expect_status(s, "GET", path, NULL, 200);
    (void)snprintf(path, sizeof(path), "/v1/jobs/%s/cancel", cancel_id);
    expect_status(s, "POST", path, NULL, 200);
    expect_status(s, "GET", "/metrics", NULL, 200);
}

static void read_results(struct scene *s)
{
    char path[96], *id = support_sql(s->h->db, "select id from artifacts limit 1");

    (void)snprintf(path, sizeof(path), "/v1/artifacts/%s", id);
    expect_status(s, "GET", path, NULL, 200);
    free(id);
    id = support_sql(s->h->db, "select id from jobs limit 1");
    (void)snprintf(path, sizeof(path), "/v1/jobs/%s", id);
    expect_status(s, "GET", path, NULL, 200);
    free(id);
}

/* --- what some points need -----------------------------------------------------------------------------------------
 */

static void redis(const struct house *h, const char *command)
{
    char all[256], path[128] = "";
    int db = 0;

    cr_assert_geq(sscanf(h->redis, "unix:%127[^?]?db=%d", path, &db), 1);
    (void)snprintf(all, sizeof(all), "redis-cli -s '%s' -n %d %s >/dev/null", path, db, command);
    cr_assert_eq(system(all), 0);
}

static void need_death(struct scene *s)
{
    static const char *const die[] = { "KILN_FAILPOINTS=worker.collecting=crash", NULL };
    char id[40];
    int i = house_worker_start(s->h, die);

    house_submit(s->h, id, "leonardo.generate", LEONARDO("dies [[job:death]]"));
    cr_assert_eq(house_wait_exit(&s->h->workers[i], 20000), 128 + SIGKILL);
}

static void need_expired(struct scene *s)
{
    struct reply r =
        house_call(s->h, "POST", "/v1/jobs",
                   "{\"operation\":\"openai.images.generate\",\"deadline_s\":1,\"params\":{\"prompt\":\"late "
                   "[[job:late]]\",\"quality\":\"low\"}}",
                   NULL);
    cr_assert_eq(r.status, 202, "%s", r.text);
    reply_done(&r);
    wait_sql(s, "select count(*) from jobs where error_code = 'expired'", 1, 20000, "expiry");
}

static void need_drain(struct scene *s)
{
    char id[40];
    int status;

    submit(s, id, "drain", "leonardo.generate", LEONARDO("waits [[job:drain]] [[fault:delay_ms=3000]]"));
    wait_sql(s,
             "select count(*) from attempts a join jobs j on j.id = a.job_id where j.params::text like '%job:drain%' "
             "and a.ref is not null",
             1, 20000, "the reference");
    house_kill(&s->h->workers[0], SIGTERM);
    status = house_wait_exit(&s->h->workers[0], 20000);
    cr_expect(status == 0 || (is_crash(s) && status == 128 + SIGKILL), "%s: the drain ended with %d", s->name, status);
    start_worker(s, NULL);
}

static void need_emptied(struct scene *s)
{
    char id[40];

    submit(s, id, "held", "leonardo.generate", LEONARDO("held [[job:held]] [[fault:delay_ms=12000]]"));
    wait_sql(s,
             "select count(*) from attempts a join jobs j on j.id = a.job_id where j.params::text like '%job:held%' "
             "and a.ref is not null",
             1, 20000, "the reference");
    redis(s->h, "FLUSHDB");
}

/* --- a case --------------------------------------------------------------------------------------------------------
 */

static void scene_set(struct scene *s, const struct chaos_case *c)
{
    s->c = c;
    (void)snprintf(s->name, sizeof(s->name), "%s=%s", c->point, c->action);
    for (size_t i = 0; i < ARRAY_LEN(needs); i++)
        if (!strncmp(c->point, needs[i].prefix, strlen(needs[i].prefix)))
            s->need |= needs[i].need;
    (void)snprintf(s->env, sizeof(s->env), "KILN_FAILPOINTS=%s%s=%s@1",
                   s->need & NEED_LOST_CLAIM ? "redis.claim.after=error,"
                   : s->need & NEED_PACKS    ? "store.before_rename=stall:2500@1,"
                                             : "",
                   c->point, c->action);
    s->fail[0] = s->env;
}

static void scene_open(struct scene *s)
{
    struct house_options options = {
        .catalog = overlay, .sandbox_config = sandbox, .no_worker = true, .no_dispatcher = true, .credits = 100000
    };

    if (s->need & NEED_PACKS)
        options.catalog = overlay_of_files;
    if (s->need & NEED_KEYS)
        options.worker_env[0] = options.dispatcher_env[0] = "STABILITY_API_KEY=bad-chaos,sk-chaos";
    s->h = house_open(&options);
    if (s->need & NEED_DEATH) {
        house_dispatcher_start(s->h, NULL);
        need_death(s);
        house_kill(&s->h->dispatcher, SIGKILL);
    }
    if (!house_dispatcher_try(s->h, s->fail)) {
        cr_assert(is_crash(s), "%s: the dispatcher did not start", s->name);
        house_dispatcher_start(s->h, NULL);
    }
    if (s->need & NEED_EXPIRED)
        need_expired(s);
    start_worker(s, s->fail);
}

/* protocol.md, crash matrix: a death or a long stall may cost one payment more where it falls between send and
 * checkpoint or settle; a lost reply or connection to our own stores never does. The first job to pass the points below
 * is `async`, and its row of the matrix says no. */
static bool is_paid_once(const struct scene *s, const char *tag)
{
    static const char *const once[] = {
        "worker.after_start=", "worker.before_send=crash", "worker.after_note=", "worker.after_checkpoint=",
        "worker.before_poll=", "worker.after_poll=",       "worker.collecting=", "worker.after_store=",
    };

    for (size_t i = 0; i < ARRAY_LEN(once); i++)
        if (!strncmp(s->name, once[i], strlen(once[i])))
            return !strcmp(tag, "async");
    return !is_crash(s) && !is_stall(s);
}

static void expect_paid(struct scene *s)
{
    static const char *const tags[] = { "async", "sync",  "refused", "cancel", "drain",
                                        "held",  "death", "again",   "cached" };

    for (size_t i = 0; i < ARRAY_LEN(tags); i++) {
        int64_t paid = house_counter(s->h, tags[i], "paid");

        cr_expect_leq(paid, is_paid_once(s, tags[i]) ? 1 : 2, "%s: %s was paid %lld times", s->name, tags[i],
                      (long long)paid);
    }
}

/* A death in mid-call fails what is too dear to ask for twice, and nothing else. */
static void expect_no_failure(struct scene *s)
{
    static const char failures[] = "select string_agg(concat_ws(' ', operation, error_code, error_message), E'\\n') "
                                   "from jobs where state = 'failed' and error_code <> 'expired' "
                                   "and id not in (select retry_of from jobs where retry_of is not null)";
    static const char but_unknown[] = " and not (on_unknown = 'fail' and error_code = 'outcome_unknown')";
    char sql[512], *failed;

    (void)snprintf(sql, sizeof(sql), "%s%s", failures, is_crash(s) || is_stall(s) ? but_unknown : "");
    failed = support_sql(s->h->db, sql);
    cr_expect_str_eq(failed, "", "%s: a job failed: %s", s->name, failed);
    free(failed);
}

static void scene_close(struct scene *s)
{
    char *url = strdup(s->h->db), *name = strstr(url, "///"), sql[256];

    house_close(s->h);
    name[3 + strcspn(name + 3, "?")] = '\0';
    (void)snprintf(sql, sizeof(sql), "drop database \"%s\" with (force)", name + 3);
    free(support_sql(getenv("KILN_DATABASE_URL"), sql));
    free(url);
}

ParameterizedTestParameters(chaos, point)
{
    static struct chaos_case cases[ARRAY_LEN(points) * 4];
    const char *only = getenv("KILN_CHAOS_ONLY");
    size_t n = 0;

    for (size_t i = 0; i < ARRAY_LEN(points); i++) {
        for (const char *a = points[i].actions; *a; a += strcspn(a, " "), a += *a == ' ') {
            struct chaos_case *c = &cases[n];
            char name[96];

            (void)snprintf(c->point, sizeof(c->point), "%s", points[i].name);
            (void)snprintf(c->action, sizeof(c->action), "%.*s%s", (int)strcspn(a, " "), a,
                           strncmp(a, "stall", 5) ? "" : ":5500");
            (void)snprintf(name, sizeof(name), "%s=%s", c->point, c->action);
            n += !only || strstr(name, only) != NULL;
        }
    }
    return cr_make_param_array(struct chaos_case, cases, n);
}

ParameterizedTest(struct chaos_case *c, chaos, point, .timeout = 200)
{
    struct scene s = { .need = 0 };
    char *report;
    int code;
    int64_t began = now_ms();

    scene_set(&s, c);
    scene_open(&s);
    load(&s);
    if (s.need & NEED_DRAIN)
        need_drain(&s);
    if (s.need & NEED_EMPTIED)
        need_emptied(&s);
    wait_sql(&s, "select count(*) from jobs where state in ('queued', 'running')", 0, 60000, "the end of all jobs");
    read_results(&s);
    for (int64_t until = now_ms() + 12000; !s.was_hit && now_ms() < until; pause_ms(200))
        tend(&s);
    cr_expect(s.was_hit, "%s was not reached: what does it need?", s.name);
    expect_no_failure(&s);
    tend(&s);
    code = judge(s.h, "--patience-s 20", &report);
    cr_expect_eq(code, 0, "%s: the oracle says %d:\n%s", s.name, code, report);
    free(report);
    expect_paid(&s);
    tend(&s);
    scene_close(&s);
    (void)fprintf(stderr, "%s: %lld ms\n", s.name, (long long)(now_ms() - began));
}
