/* load.c - the customers. Each client makes jobs of every operation there is, replays, cancels, reads and grants;
 * readers wait for the ends. All of it is noted: which key has which job, and what was said about it. A client that
 * gets no answer asks again with the same key, at another dispatcher, until it has one. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "tests/chaos/run/run.h"

enum {
    OPERATIONS_MAX = 64,
    ACCOUNTS = 5,
    OPEN_MAX = 120, /* jobs under way, of all clients: what a busy machine of two cores gets done in time */
    THREADS_MAX = 32,
    CALL_MS = 6000,
    CANARY_MS = 60000,
};

/* account 0 is rich; 1 may run two at once; the others have little and get more now and then */
static const char *const account_name[ACCOUNTS] = { "rich", "capped", "poor:1", "poor@2", "poor.3" };

struct note { /* a key, and what became of it */
    char key[40], id[40], state[12];
    char *body;
    int app, account;
    bool is_refused, is_canary;
    int64_t charged_mc, heard_ms;
};
static struct note **notes;
static size_t note_count, note_room;
static _Atomic size_t open_count;
static json_t *grants; /* [{app, account, mc, reference}] */
static struct load_figures figures;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct {
    char name[64];
    json_t *params;          /* what is always said */
    char text[32], file[32]; /* the parameter for the prompt, and for a picture; "" none */
} operations[OPERATIONS_MAX];
static size_t operation_count;

char load_keys[APPS][64];
static _Atomic bool is_paused, is_over;
static _Atomic int at_work; /* clients in the middle of something */
static pthread_t threads[THREADS_MAX];
static int thread_count;
static struct client {
    struct talk *talk;
    struct chance chance;
    int number, made;
} clients[THREADS_MAX];

/* A grey picture of 64 x 64 pixels: what upscales accept at least. */
static const char picture[] =
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAAAAACPAi4CAAAAzklEQVR42tWXQRWDUBDEIgEJSEACEioBCZVQCUhAAhIqAQlIQALjIXOA3Bt45f/dGQhDGMMU5vAJS/iGX1jDFvbwD0c4wxVoCN7++0e8gHo+9v0LAvkHYj8A9gM2BO4EYU8g9gRXBOoKYa8g9gp7gZ0h2BmEnWEFgRyi2CGMHeINgdsi2C2E3WIVgVqj2DWMXeNeYHMENodgc0xBIIMUNohhg1xD4JIkNolik2xFoKI0Nopjo7wX2C6B7SLYLlMQyDKFLWPYMtcQuDaJbaM3wwSAasv7wnwAAAAASUVORK5CYII=";

/* What a prompt asks of the sandbox; in turn none, what is survived, what fails the job. */
static const char *const faults[] = {
    "status=503,times=1",
    "status=429,retry_after=1,times=1",
    "status=500,times=2",
    "drop_before,times=1",
    "drop_after,times=1",
    "drop_mid=60,times=1",
    "reuse_close,times=1",
    "slow_body=2048,slow_ms=50",
    "chunked",
    "partial=1",
    "unknown_status=2",
    "poll_status=503,times=2",
    "download_status=503,times=1",
    "drop_mid=200,at=download,times=1",
    "drop_before,at=poll,times=2",
    "delay_ms=4000",
    "drop_after",
    "truncate=50",
    "empty_body",
    "bad_json",
    "html",
    "html,status=200",
    "moderated",
    "fail",
    "empty",
    "null_job",
    "missing_id",
    "stuck",
    "blank",
    "wrong_size",
    "cut_image",
    "status=400",
    "status=503",
    "hang",
};

static void count(int64_t *figure)
{
    (void)pthread_mutex_lock(&lock);
    ++*figure;
    (void)pthread_mutex_unlock(&lock);
}

/* --- asking ------------------------------------------------------------------------------------------------------- */

static void url_of(struct client *c, const char *path, char *out, size_t size)
{
    int64_t d = chance_between(&c->chance, 0, stage.dispatchers - 1);

    (void)snprintf(out, size, "http://127.0.0.1:%d%s", crew_port((int)d), path);
}

static struct answer ask(struct client *c, int app, const char *method, const char *path, const char *body,
                         const char *key, int wait_s)
{
    char url[256], auth[128], idempotency[80], prefer[32];
    const char *headers[4] = { auth };
    struct answer a;
    size_t n = 1;

    url_of(c, path, url, sizeof(url));
    (void)snprintf(auth, sizeof(auth), "Authorization: Bearer %s", load_keys[app]);
    (void)snprintf(idempotency, sizeof(idempotency), "Idempotency-Key: %s", key ? key : "");
    (void)snprintf(prefer, sizeof(prefer), "Prefer: wait=%d", wait_s);
    if (key)
        headers[n++] = idempotency;
    if (wait_s)
        headers[n++] = prefer;
    a = talk_ask(c->talk, method, url, body, headers, CALL_MS + wait_s * 1000);
    (void)pthread_mutex_lock(&lock);
    figures.calls++;
    figures.unanswered += a.status == 0;
    figures.busy += a.status >= 500 || a.status == 429;
    (void)pthread_mutex_unlock(&lock);
    if (a.status >= 500 && a.status != 503)
        broke("%s %s was answered with %ld: %.300s", method, path, a.status, a.text ? a.text : "");
    return a;
}

/* Until there is an answer that is one; is_over ends it with status 0. */
static struct answer insist(struct client *c, int app, const char *method, const char *path, const char *body,
                            const char *key, int wait_s)
{
    struct answer a = { 0 };

    for (int tries = 0; !is_over; tries++) {
        a = ask(c, app, method, path, body, key, wait_s);
        if (a.status != 0 && a.status < 500 && a.status != 429)
            return a;
        answer_done(&a);
        pause_ms(chance_between(&c->chance, 20, tries < 5 ? 300 : 1500));
    }
    return a;
}

/* --- notes -------------------------------------------------------------------------------------------------------- */

static int64_t charged_mc(const json_t *job)
{
    double credits = json_number_value(json_object_get(json_object_get(job, "credits"), "charged"));

    return (int64_t)(credits * 1000 + 0.5);
}

static bool is_final(const char *state)
{
    return !strcmp(state, "succeeded") || !strcmp(state, "failed") || !strcmp(state, "canceled");
}

/* What a dispatcher said of a job: an end that was seen once is the end. */
static void heard(struct note *n, const json_t *job, int64_t asked_ms)
{
    const char *state = json_string_value(json_object_get(job, "state"));
    const char *id = json_string_value(json_object_get(job, "id"));

    (void)pthread_mutex_lock(&lock);
    if (!state || !id || strcmp(id, n->id) != 0) {
        broke("job %s was read as job %s, %s", n->id, id ? id : "?", state ? state : "?");
    } else if (n->state[0] && !is_final(state) && asked_ms <= n->heard_ms) {
        ; /* asked before the end was heard, answered before it came */
    } else if (n->state[0] && (strcmp(n->state, state) != 0 || n->charged_mc != charged_mc(job))) {
        broke("job %s was %s for %lld mc and is %s for %lld mc", n->id, n->state, (long long)n->charged_mc, state,
              (long long)charged_mc(job));
    } else if (!n->state[0] && is_final(state)) {
        (void)snprintf(n->state, sizeof(n->state), "%s", state);
        n->charged_mc = charged_mc(job);
        n->heard_ms = now_ms();
        figures.finals++;
        open_count--;
    }
    (void)pthread_mutex_unlock(&lock);
}

static struct note *new_note(struct client *c, int app, int account, char *body)
{
    struct note *n = calloc(1, sizeof(*n));

    if (!n)
        abort();
    (void)snprintf(n->key, sizeof(n->key), "k%d-%d", c->number, c->made);
    n->app = app;
    n->account = account;
    n->body = body;
    (void)pthread_mutex_lock(&lock);
    if (note_count == note_room) {
        note_room = note_room ? 2 * note_room : 1024;
        notes = realloc(notes, note_room * sizeof(*notes));
        if (!notes)
            abort();
    }
    notes[note_count++] = n;
    (void)pthread_mutex_unlock(&lock);
    return n;
}

/* One that was accepted: open ones while is_open, else any. NULL: there is none. */
static struct note *any_note(struct client *c, bool is_open)
{
    struct note *found = NULL;

    (void)pthread_mutex_lock(&lock);
    for (int tries = 0; tries < 60 && !found && note_count; tries++) {
        size_t back = is_open && note_count > 400 ? 400 : note_count;
        struct note *n = notes[note_count - 1 - (size_t)chance_between(&c->chance, 0, (int64_t)back - 1)];

        if (n->id[0] && (!is_open || !n->state[0]))
            found = n;
    }
    (void)pthread_mutex_unlock(&lock);
    return found;
}

static struct note *oldest_open(size_t skip)
{
    static size_t from;
    struct note *found = NULL;

    (void)pthread_mutex_lock(&lock);
    while (from < note_count && (notes[from]->is_refused || notes[from]->state[0]))
        from++;
    for (size_t i = from; i < note_count && !found; i++)
        if (notes[i]->id[0] && !notes[i]->state[0] && skip-- == 0)
            found = notes[i];
    (void)pthread_mutex_unlock(&lock);
    return found;
}

/* --- what clients do ---------------------------------------------------------------------------------------------- */

static char *make_body(struct client *c, size_t operation, int account, const char *fault, bool is_plain)
{
    json_t *params = json_deep_copy(operations[operation].params), *body;
    char prompt[192];
    char *text;

    (void)snprintf(prompt, sizeof(prompt), "chaos %d of %d, a teal kettle [[job:c%d-%d]]%s%s%s", c->made, c->number,
                   c->number, c->made, fault ? " [[fault:" : "", fault ? fault : "", fault ? "]]" : "");
    if (operations[operation].text[0])
        (void)json_object_set_new(params, operations[operation].text, json_string(prompt));
    if (operations[operation].file[0])
        (void)json_object_set_new(params, operations[operation].file, json_string(picture));
    if (json_object_get(params, "num_images") && chance_of(&c->chance, 30))
        (void)json_object_set_new(params, "num_images", json_integer(3));
    body = json_pack("{ss so ss}", "operation", operations[operation].name, "params", params, "account",
                     account_name[account]);
    /* without one, a job's deadline is a day away: too far for a run to see its end */
    (void)json_object_set_new(
        body, "deadline_s",
        json_integer(!is_plain && chance_of(&c->chance, 8) ? chance_between(&c->chance, 1, 15) : 75));
    if (!is_plain && chance_of(&c->chance, 25))
        (void)json_object_set_new(body, "priority", json_integer(chance_between(&c->chance, -100, 100)));
    if (!is_plain && chance_of(&c->chance, 8)) {
        time_t at = time(NULL) + chance_between(&c->chance, 1, 5);
        struct tm tm;
        char when[32];

        (void)strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&at, &tm));
        (void)json_object_set_new(body, "run_at", json_string(when));
    }
    text = json_dumps(body, 0);
    json_decref(body);
    if (!text)
        abort();
    return text;
}

static void accepted(struct note *n, const struct answer *a)
{
    (void)pthread_mutex_lock(&lock);
    (void)snprintf(n->id, sizeof(n->id), "%s", answer_string(a, "id"));
    figures.accepted++;
    open_count++;
    (void)pthread_mutex_unlock(&lock);
    heard(n, a->json, a->asked_ms);
}

static void submit(struct client *c, struct note *n, int wait_s)
{
    struct answer a = insist(c, n->app, "POST", "/v1/jobs", n->body, n->key, wait_s);

    if (a.status == 202 || a.status == 200) {
        accepted(n, &a);
    } else if (a.status != 0) {
        bool is_poor = a.status == 402 && n->account > 1, is_late = a.status == 422 && strstr(n->body, "run_at");

        (void)pthread_mutex_lock(&lock);
        n->is_refused = true;
        figures.refused++;
        (void)pthread_mutex_unlock(&lock);
        if (!is_poor && !is_late) /* a clock that went wrong may find run_at in the past */
            broke("%s was refused with %ld: %.300s", n->body, a.status, a.text);
    }
    answer_done(&a);
}

static void do_submit(struct client *c)
{
    int app = (int)chance_between(&c->chance, 0, APPS - 1);
    int account = chance_of(&c->chance, 60) ? 0 : (int)chance_between(&c->chance, 1, ACCOUNTS - 1);
    size_t operation = (size_t)chance_between(&c->chance, 0, (int64_t)operation_count - 1);
    const char *fault =
        chance_of(&c->chance, 30) ? faults[chance_between(&c->chance, 0, (int64_t)COUNT(faults) - 1)] : NULL;

    c->made++;
    submit(c, new_note(c, app, account, make_body(c, operation, account, fault, false)),
           chance_of(&c->chance, 10) ? 3 : 0);
}

static void do_replay(struct client *c)
{
    struct note *n = any_note(c, chance_of(&c->chance, 50));
    char other[160];
    bool is_other = chance_of(&c->chance, 25);
    struct answer a;

    if (!n || n->is_canary)
        return;
    (void)snprintf(other, sizeof(other), "{\"operation\":\"%s\",\"params\":{\"prompt\":\"another\"}}",
                   operations[0].name);
    a = insist(c, n->app, "POST", "/v1/jobs", is_other ? other : n->body, n->key, 0);
    if (is_other && a.status != 0 && (a.status != 422 || !strcmp(answer_string(&a, "id"), n->id)))
        broke("key %s with another body was answered with %ld: %.300s", n->key, a.status, a.text);
    if (!is_other && a.status != 0 && (a.status / 100 != 2 || strcmp(answer_string(&a, "id"), n->id) != 0))
        broke("key %s of job %s was replayed with %ld: %.300s", n->key, n->id, a.status, a.text);
    else if (!is_other && a.status != 0)
        heard(n, a.json, a.asked_ms);
    answer_done(&a);
    count(&figures.replays);
}

static void do_cancel(struct client *c)
{
    struct note *n = any_note(c, true);
    char path[80];
    struct answer a;

    if (!n || n->is_canary)
        return;
    (void)snprintf(path, sizeof(path), "/v1/jobs/%s/cancel", n->id);
    a = insist(c, n->app, "POST", path, NULL, NULL, 0);
    if (a.status == 200 && !is_final(answer_string(&a, "state")))
        broke("job %s was canceled and is %s", n->id, answer_string(&a, "state"));
    if (a.status == 200)
        heard(n, a.json, a.asked_ms);
    else if (a.status != 0)
        broke("cancel of job %s was answered with %ld: %.300s", n->id, a.status, a.text);
    answer_done(&a);
    count(&figures.cancels);
}

static void do_read(struct client *c, struct note *n, int wait_s)
{
    char path[80];
    struct answer a;

    (void)snprintf(path, sizeof(path), "/v1/jobs/%s%s", n->id, chance_of(&c->chance, 20) ? "?expand=attempts" : "");
    a = ask(c, n->app, "GET", path, NULL, NULL, wait_s);
    if (a.status == 200)
        heard(n, a.json, a.asked_ms);
    else if (a.status != 0 && a.status < 500 && a.status != 429)
        broke("job %s, once accepted, was read with %ld: %.300s", n->id, a.status, a.text);
    answer_done(&a);
}

/* A result of a job that succeeded is there, as long as it says. */
static void do_download(struct client *c)
{
    struct note *n = any_note(c, false);
    char path[80];
    struct answer a, content = { 0 };
    const json_t *first;
    const char *id;

    if (!n || strcmp(n->state, "succeeded") != 0)
        return;
    (void)snprintf(path, sizeof(path), "/v1/jobs/%s", n->id);
    a = ask(c, n->app, "GET", path, NULL, NULL, 0);
    first = json_array_get(json_object_get(a.json, "artifacts"), 0);
    id = json_string_value(json_object_get(first, "id"));
    if (a.status == 200 && !id)
        broke("job %s succeeded and shows no artifact: %.300s", n->id, a.text);
    if (id) {
        (void)snprintf(path, sizeof(path), "/v1/artifacts/%s/content", id);
        content = ask(c, n->app, "GET", path, NULL, NULL, 0);
    }
    if (content.status != 0 && content.status < 500 &&
        (content.status != 200 || (json_int_t)content.len != json_integer_value(json_object_get(first, "bytes"))))
        broke("artifact %s of job %s was read with %ld and %zu bytes", id, n->id, content.status, content.len);
    if (content.status == 200)
        count(&figures.downloads);
    answer_done(&content);
    answer_done(&a);
}

/* The same payment told twice grants once. */
static void grant(struct client *c, int app, int account, int64_t mc)
{
    char path[96], body[160], reference[40];

    c->made++;
    (void)snprintf(reference, sizeof(reference), "g%d-%d", c->number, c->made);
    (void)snprintf(path, sizeof(path), "/v1/accounts/%s/grants", account_name[account]);
    (void)snprintf(body, sizeof(body), "{\"credits\":%.3f,\"reference\":\"%s\"}", (double)mc / 1000, reference);
    for (int times = chance_of(&c->chance, 40) ? 2 : 1; times > 0; times--) {
        struct answer a = insist(c, app, "POST", path, body, NULL, 0);

        if (a.status / 100 != 2 && a.status != 0)
            broke("a grant was answered with %ld: %.300s", a.status, a.text);
        answer_done(&a);
    }
    (void)pthread_mutex_lock(&lock);
    (void)json_array_append_new(grants, json_pack("{si ss sI ss}", "app", app, "account", account_name[account], "mc",
                                                  (json_int_t)mc, "reference", reference));
    figures.grants++;
    (void)pthread_mutex_unlock(&lock);
}

static void do_list(struct client *c)
{
    struct answer a = ask(c, (int)chance_between(&c->chance, 0, APPS - 1), "GET", "/v1/jobs?limit=50", NULL, NULL, 0);

    if (a.status != 0 && a.status < 500 && a.status != 200)
        broke("the list was answered with %ld: %.300s", a.status, a.text);
    answer_done(&a);
}

static void act(struct client *c)
{
    int64_t die = chance_between(&c->chance, 1, 100);
    struct note *n;

    if (die <= 60 && open_count < OPEN_MAX)
        do_submit(c);
    else if (die <= 70)
        do_replay(c);
    else if (die <= 76)
        do_cancel(c);
    else if (die <= 82)
        do_download(c);
    else if (die <= 85)
        do_list(c);
    else if (die <= 88)
        grant(c, (int)chance_between(&c->chance, 0, APPS - 1), (int)chance_between(&c->chance, 2, ACCOUNTS - 1),
              chance_between(&c->chance, 1, 200) * 100);
    else if ((n = any_note(c, chance_of(&c->chance, 50))))
        do_read(c, n, 0);
}

static void *run_client(void *ctx)
{
    struct client *c = ctx;

    while (!is_over && !is_paused) {
        act(c);
        pause_ms(chance_between(&c->chance, 0, 250));
    }
    at_work--;
    return NULL;
}

static void *run_reader(void *ctx)
{
    struct client *c = ctx;

    while (!is_over) {
        struct note *n = oldest_open((size_t)chance_between(&c->chance, 0, 12));

        n = n ? n : oldest_open(0);
        if (n)
            do_read(c, n, is_paused ? 1 : 6);
        pause_ms(n ? 20 : 200);
    }
    return NULL;
}

/* --- opening ------------------------------------------------------------------------------------------------------ */

/* Pictures of the smallest kind, where we know how to ask for them. */
static const struct {
    const char *operation, *params;
} small[] = {
    { "leonardo.generate",
      "{\"num_images\":1,\"width\":64,\"height\":64,\"alchemy\":false,\"presetStyle\":\"LEONARDO\"}" },
    { "openai.images.generate", "{\"model\":\"dall-e-2\",\"size\":\"256x256\"}" },
};

static void add_operation(struct client *c, const char *name)
{
    char path[128];
    struct answer a;
    const json_t *required, *inputs, *one, *schema;
    size_t i, at = operation_count;
    json_error_t error;

    (void)snprintf(path, sizeof(path), "/v1/operations/%s", name);
    a = insist(c, 0, "GET", path, NULL, NULL, 0);
    required = json_object_get(json_object_get(a.json, "params"), "required");
    schema = json_object_get(json_object_get(a.json, "params"), "properties");
    inputs = json_object_get(a.json, "inputs");
    (void)snprintf(operations[at].name, sizeof(operations[at].name), "%s", name);
    operations[at].params = json_object();
    for (i = 0; i < COUNT(small); i++)
        if (!strcmp(small[i].operation, name)) {
            json_decref(operations[at].params);
            operations[at].params = json_loads(small[i].params, 0, &error);
        }
    operations[at].text[0] = operations[at].file[0] = '\0';
    json_array_foreach(inputs, i, one) if (json_is_true(json_object_get(one, "required")) && !operations[at].file[0])(
        void) snprintf(operations[at].file, sizeof(operations[at].file), "%s",
                       json_string_value(json_object_get(one, "name")));
    json_array_foreach(required, i, one)
    {
        const char *type = json_string_value(json_object_get(json_object_get(schema, json_string_value(one)), "type"));

        if (strcmp(json_string_value(one), operations[at].file) != 0 && type && !strcmp(type, "string") &&
            !operations[at].text[0])
            (void)snprintf(operations[at].text, sizeof(operations[at].text), "%s", json_string_value(one));
    }
    operation_count++;
    answer_done(&a);
}

/* Does the sandbox speak it, and do we know how to ask? */
static bool canary(struct client *c, size_t operation)
{
    int64_t until = now_ms() + CANARY_MS;
    struct note *n;
    struct answer a;
    bool is_good;

    c->made++;
    n = new_note(c, 0, 0, make_body(c, operation, 0, NULL, true));
    n->is_canary = true;
    a = insist(c, 0, "POST", "/v1/jobs", n->body, n->key, 0);
    if (a.status != 202) {
        say("left out: %s, which answers %ld %.200s", operations[operation].name, a.status, a.text ? a.text : "");
        n->is_refused = true;
        answer_done(&a);
        return false;
    }
    accepted(n, &a);
    answer_done(&a);
    while (!n->state[0] && now_ms() < until)
        do_read(c, n, 5);
    is_good = !strcmp(n->state, "succeeded");
    if (!is_good)
        say("left out: %s, whose first job is %s", operations[operation].name, n->state[0] ? n->state : "not done");
    return is_good;
}

static void make_apps(void)
{
    static const char sql[] =
        "with a as (insert into apps (id, name) values (gen_random_uuid(), $1) returning id), "
        "k as (insert into api_keys (id, app_id, hash, prefix, scopes) select gen_random_uuid(), "
        "a.id, sha256(convert_to($2::text, 'UTF8')), left($2::text, 12), '{jobs,credits}' from a) select id from a";
    PGconn *pg = sql_open();

    for (int i = 0; pg && i < APPS; i++) {
        struct chance c = { stage.seed + (uint64_t)i * 31 };
        const char *values[] = { load_keys[i], load_keys[i] };
        char name[24];
        PGresult *r;

        (void)snprintf(load_keys[i], sizeof(load_keys[i]), "kiln_%016llx%016llx%011llx",
                       (unsigned long long)chance_next(&c), (unsigned long long)chance_next(&c),
                       (unsigned long long)(chance_next(&c) >> 20));
        (void)snprintf(name, sizeof(name), "chaos%d", i);
        values[0] = name;
        r = PQexecParams(pg, sql, 2, NULL, values, NULL, NULL, 0);
        if (PQresultStatus(r) != PGRES_TUPLES_OK)
            broke("an app could not be made: %s", PQresultErrorMessage(r));
        PQclear(r);
    }
    PQfinish(pg);
}

void load_open(void)
{
    struct client *c = &clients[0];
    struct answer a;
    const json_t *one;
    size_t i;

    grants = json_array();
    c->talk = talk_new();
    c->chance = (struct chance){ stage.seed };
    c->number = 0;
    make_apps();
    for (int app = 0; app < APPS; app++)
        for (int account = 0; account < ACCOUNTS; account++)
            grant(c, app, account, account < 2 ? INT64_C(1000000000) : 9000);
    free(sql_text("update accounts set max_running = 2 where name = $1 returning name", "capped"));
    a = insist(c, 0, "GET", "/v1/operations", NULL, NULL, 0);
    json_array_foreach(json_object_get(a.json, "data"), i,
                       one) if (operation_count < OPERATIONS_MAX && json_is_true(json_object_get(one, "configured")))
        add_operation(c, json_string_value(json_object_get(one, "name")));
    answer_done(&a);
    for (i = 0; i < operation_count;) {
        if (canary(c, i)) {
            say("operation %s", operations[i++].name);
            continue;
        }
        json_decref(operations[i].params);
        operations[i] = operations[--operation_count];
    }
    if (operation_count == 0)
        broke("there is no operation that works");
}

void load_start(int makers, int readers)
{
    at_work = makers;
    for (thread_count = 0; thread_count < makers + readers; thread_count++) {
        struct client *c = &clients[1 + thread_count];

        c->talk = talk_new();
        c->number = 1 + thread_count;
        c->chance = (struct chance){ stage.seed * 1000003 + (uint64_t)c->number };
        if (pthread_create(&threads[thread_count], NULL, thread_count < makers ? run_client : run_reader, c) != 0)
            abort();
    }
}

bool load_finish(int64_t limit_ms)
{
    int64_t until = now_ms() + limit_ms;

    is_paused = true;
    while (at_work && now_ms() < until)
        pause_ms(100);
    if (at_work)
        broke("%d clients have no answer %lld s after all faults have stopped", (int)at_work,
              (long long)limit_ms / 1000);
    return at_work == 0;
}

bool load_heard(int64_t limit_ms)
{
    int64_t until = now_ms() + limit_ms;

    while (open_count && now_ms() < until)
        pause_ms(100);
    if (open_count)
        broke("the ends of %zu jobs were not heard, though they are final", (size_t)open_count);
    return open_count == 0;
}

void load_after(void)
{
    struct client *c = &clients[0];

    for (size_t i = 0; i < operation_count; i++)
        if (!canary(c, i))
            broke("after all faults have stopped, a job of %s does not succeed", operations[i].name);
}

void load_close(void)
{
    is_over = true;
    for (int i = 0; i < thread_count; i++)
        (void)pthread_join(threads[i], NULL);
    for (int i = 0; i <= thread_count; i++)
        talk_free(clients[i].talk);
    for (size_t i = 0; i < note_count; i++) {
        free(notes[i]->body);
        free(notes[i]);
    }
    free(notes);
    for (size_t i = 0; i < operation_count; i++)
        json_decref(operations[i].params);
    json_decref(grants);
}

struct load_figures load_figures(void)
{
    return figures;
}

json_t *load_notes(void)
{
    json_t *jobs = json_array(), *refused = json_array();

    (void)pthread_mutex_lock(&lock);
    for (size_t i = 0; i < note_count; i++) {
        const struct note *n = notes[i];

        if (n->id[0])
            (void)json_array_append_new(jobs, json_pack("{ss ss ss sI si ss}", "key", n->key, "id", n->id, "state",
                                                        n->state, "charged_mc", (json_int_t)n->charged_mc, "app",
                                                        n->app, "account", account_name[n->account]));
        else
            (void)json_array_append_new(refused, json_pack("{ss si}", "key", n->key, "app", n->app));
    }
    (void)pthread_mutex_unlock(&lock);
    return json_pack("{so so sO}", "jobs", jobs, "refused", refused, "grants", grants);
}
