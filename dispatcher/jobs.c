/* jobs.c - reading and canceling jobs. */
#include "dispatcher/jobs.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/core/catalog_route.h"
#include "common/core/job.h"
#include "dispatcher/accept.h"
#include "dispatcher/artifacts.h"
#include "dispatcher/dispatcher.h"
#include "dispatcher/job_look.h"
#include "dispatcher/problem.h"
#include "dispatcher/reply.h"
#include "dispatcher/watch.h"

struct jobs {
    struct dispatcher *d;
    struct db_gather *by_id, *attempts;
    struct job_looks *looks;
    struct versions *versions;
};

static const struct db_call by_id_call = {
    .name = "job",
    .sql = "select * from kiln_job_json($1::uuid[])",
    .columns = 1,
    .patience_ms = 3000,
};

static const struct db_call attempts_call = {
    .name = "job_attempts",
    .sql = "select u.ord::int as ord, kiln_attempts_json(u.id) as doc "
           "from unnest($1::uuid[]) with ordinality u(id, ord) order by u.ord",
    .columns = 1,
    .patience_ms = 3000,
};

struct jobs *jobs_new(struct dispatcher *d)
{
    struct jobs *j = calloc(1, sizeof(*j));

    if (j == NULL)
        return NULL;
    j->d = d;
    j->by_id = db_gather_new(d->read, &by_id_call, NULL, 0);
    j->attempts = db_gather_new(d->read, &attempts_call, NULL, 0);
    j->versions = versions_new();
    j->looks = j->versions != NULL ? job_looks_new(d->read, j->versions) : NULL;
    if (j->by_id == NULL || j->attempts == NULL || j->looks == NULL) {
        jobs_free(j);
        return NULL;
    }
    return j;
}

void jobs_free(struct jobs *j)
{
    if (j == NULL)
        return;
    if (j->by_id != NULL)
        db_gather_free(j->by_id);
    if (j->attempts != NULL)
        db_gather_free(j->attempts);
    job_looks_free(j->looks);
    versions_free(j->versions);
    free(j);
}

void jobs_event(struct jobs *j, const char *job)
{
    versions_forget(j->versions, job, clock_mono_ms());
}

/* ---- one read ---- */

struct job_read {
    struct jobs *jobs;
    char app[UUID_TEXT];
    int64_t began_ms;
    jobs_read_fn *fn;
    void *ctx;
};

static void read_on_row(void *ctx, enum err err, const struct db_result *result, int row)
{
    struct job_read *one = ctx;
    json_t *doc = NULL;
    int64_t version;

    if (err == ERR_OK && !db_is_null(result, row, "doc") && strcmp(db_col(result, row, "app"), one->app) == 0) {
        const char *text = db_col(result, row, "doc");

        doc = json_parse(text, strlen(text), NULL);
        if (doc == NULL)
            err = ERR_NOMEM;
        else if (json_int(doc, "version", &version))
            versions_note(one->jobs->versions, json_text(doc, "id"), one->app, version, one->began_ms);
    }
    one->fn(one->ctx, err, doc);
    json_decref(doc);
    free(one);
}

enum err jobs_read(struct jobs *j, const char *job, const char *app, jobs_read_fn *fn, void *ctx)
{
    struct job_read *one = calloc(1, sizeof(*one));
    struct db_value value = db_text(job);
    enum err e;

    if (one == NULL)
        return ERR_NOMEM;
    (void)uuid_lower(one->app, app);
    one->jobs = j;
    one->began_ms = clock_mono_ms();
    one->fn = fn;
    one->ctx = ctx;
    e = db_gather_add(j->by_id, &value, read_on_row, one);
    if (e != ERR_OK)
        free(one);
    return e;
}

/* ---- the API's shape ---- */

static json_t *copy(const json_t *doc, const char *key)
{
    json_t *v = json_object_get(doc, key);

    return v != NULL ? json_incref(v) : json_null();
}

static json_t *view_error(const json_t *doc)
{
    const char *word = json_text(doc, "error_code");
    enum err code;
    json_t *error;

    if (word == NULL)
        return json_null();
    code = err_from_word(word);
    error = json_object();
    (void)json_set_text(error, "code", word);
    (void)json_set_text(error, "message",
                        json_text(doc, "error_message") != NULL ? json_text(doc, "error_message") : err_text(code));
    (void)json_object_set_new(error, "provider_status", copy(doc, "provider_status"));
    (void)json_object_set_new(error, "retryable", json_boolean(code < ERR_COUNT && err_retry(code)));
    return error;
}

json_t *jobs_view(struct request *r, const json_t *doc)
{
    static const char *const same_before[] = { "id", "operation", "provider", "account", "state" };
    static const char *const same_after[] = { "attempts", "created_at", "started_at", "finished_at", "metadata",
                                              "notes",    "retry_of",   "cached_of",  "batch" };
    json_t *job = json_object(), *artifacts = json_array(), *shown = NULL, *credits, *progress;
    const char *state = json_text(doc, "state");
    int64_t hold_mc = 0, captured_mc = 0;
    size_t i;
    json_t *a;

    for (i = 0; i < ARRAY_LEN(same_before); i++)
        (void)json_object_set_new(job, same_before[i], copy(doc, same_before[i]));
    (void)json_set_text(job, "object", "job");
    progress = json_pack("{s:n, s:o}", "phase", "percent",
                         state != NULL && strcmp(state, "succeeded") == 0 ? json_integer(100) : json_null());
    (void)json_object_set_new(job, "progress", progress);
    (void)json_object_set_new(job, "params", copy(doc, "params"));
    if (state == NULL || strcmp(state, "canceled") != 0) /* what comes after a cancel is evidence only */
        shown = json_object_get(doc, "artifacts");
    json_array_foreach(shown, i, a)
    {
        (void)json_array_append_new(artifacts, artifacts_view(r, a));
    }
    (void)json_object_set_new(job, "artifacts", artifacts);
    (void)json_int(doc, "hold_mc", &hold_mc);
    (void)json_int(doc, "captured_mc", &captured_mc);
    if (state != NULL && job_state_is_final(state))
        hold_mc = 0; /* closed: captured and released */
    credits = json_object();
    (void)json_object_set_new(credits, "held", json_credits(hold_mc));
    (void)json_object_set_new(credits, "charged", json_credits(captured_mc));
    (void)json_object_set_new(job, "credits", credits);
    (void)json_object_set_new(job, "error", view_error(doc));
    for (i = 0; i < ARRAY_LEN(same_after); i++)
        (void)json_object_set_new(job, same_after[i], copy(doc, same_after[i]));
    if (!json_is_array(json_object_get(job, "notes")))
        (void)json_object_set_new(job, "notes", json_array());
    return job;
}

json_t *jobs_attempts_view(const json_t *list, bool is_operator)
{
    static const char *const keys[] = { "no",         "state", "provider",        "request_id",
                                        "error_code", "class", "provider_status", "opened_at",
                                        "closed_at",  "ref",   "message" };
    size_t count = is_operator ? ARRAY_LEN(keys) : ARRAY_LEN(keys) - 2, i;
    json_t *shown = json_array(), *a;
    char print[KEY_PRINT];
    int64_t cost;

    json_array_foreach((json_t *)(uintptr_t)list, i, a)
    {
        json_t *one = json_object();

        for (size_t k = 0; k < count; k++)
            (void)json_object_set_new(one, keys[k], copy(a, keys[k]));
        (void)json_object_set_new(one, "cost_usd",
                                  json_int(a, "cost_microusd", &cost) ? json_real((double)cost / 1e6) : json_null());
        if (is_operator && json_text(one, "ref") != NULL) { /* as the provider knows it, and by which key */
            const char *ref = catalog_key_unbind(json_text(a, "ref"), print);

            (void)json_set_text(one, "ref", ref);
            (void)json_set_text(one, "key", print[0] != '\0' ? print : NULL);
        }
        (void)json_array_append_new(shown, one);
    }
    return shown;
}

/* What If-None-Match says about this version: any of its tags, weak or strong, or "*". */
static bool etag_matches(const char *header, const char *etag)
{
    size_t len = strlen(etag);

    for (const char *p = header; p != NULL && *p != '\0'; p += strcspn(p, ","), p += *p == ',') {
        p += strspn(p, " \t");
        if (*p == '*')
            return true;
        if (strncmp(p, "W/", 2) == 0)
            p += 2;
        if (strncmp(p, etag, len) == 0 && (p[len] == '\0' || p[len] == ',' || p[len] == ' '))
            return true;
    }
    return false;
}

/* Answered with 304, if they have this version. */
static bool reply_unchanged(struct request *r, int64_t version)
{
    char etag[32];

    snprintf(etag, sizeof(etag), "\"%lld\"", (long long)version);
    if (!etag_matches(request_header(r, "If-None-Match"), etag))
        return false;
    request_add_header(r, "ETag", etag);
    request_add_header(r, "Cache-Control", "private, no-store");
    request_add_header(r, "Vary", "Authorization");
    request_reply(r, 304, NULL, NULL);
    return true;
}

static void add_etag(struct request *r, int64_t version)
{
    char etag[32];

    snprintf(etag, sizeof(etag), "\"%lld\"", (long long)version);
    request_add_header(r, "ETag", etag);
}

static void reply_view(struct request *r, int status, json_t *view, int64_t version)
{
    if (status == 200 && strcmp(r->method, "POST") != 0 && reply_unchanged(r, version)) {
        json_decref(view);
        return;
    }
    add_etag(r, version);
    reply_json(r, status, view);
}

void jobs_reply(struct request *r, int status, const json_t *doc)
{
    int64_t version = 0;

    (void)json_int(doc, "version", &version);
    reply_view(r, status, jobs_view(r, doc), version);
}

void jobs_reply_text(struct request *r, int status, int64_t version, struct buf *text)
{
    add_etag(r, version);
    reply_body(r, status, "application/json", text);
}

/* ---- GET /v1/jobs/{id} ---- */

struct job_get {
    struct request *request;
    json_t *view;
    int64_t version;
    bool is_running, wants_attempts;
};

static void get_on_progress(void *ctx, enum err err, const char *phase, int percent)
{
    struct job_get *g = ctx;
    json_t *progress = json_object_get(g->view, "progress");

    if (err == ERR_OK && phase != NULL) {
        (void)json_set_text(progress, "phase", phase);
        (void)json_object_set_new(progress, "percent", percent >= 0 ? json_integer(percent) : json_null());
    }
    reply_view(g->request, 200, g->view, g->version);
}

static void get_progress(struct job_get *g)
{
    struct dispatcher *d = dispatcher_of(g->request);

    if (g->is_running && queue_is_up(d->queue))
        queue_progress_of(d->queue, json_text(g->view, "id"), get_on_progress, g);
    else
        reply_view(g->request, 200, g->view, g->version);
}

static void get_on_attempts(void *ctx, enum err err, const struct db_result *result, int row)
{
    struct job_get *g = ctx;
    const char *text = err == ERR_OK ? db_col(result, row, "doc") : "";
    json_t *list = json_parse(text, strlen(text), NULL);

    if (list == NULL) {
        json_decref(g->view);
        problem_backend(g->request, err != ERR_OK ? err : ERR_NOMEM);
        return;
    }
    (void)json_object_set_new(g->view, "attempts", jobs_attempts_view(list, false));
    json_decref(list);
    get_progress(g);
}

static void get_on_doc(void *ctx, enum err err, json_t *doc)
{
    struct job_get *g = ctx;
    struct request *r = g->request;
    const char *state;

    if (err != ERR_OK) {
        problem_backend(r, err);
        return;
    }
    if (doc == NULL) {
        problem_reply(r, ERR_NOT_FOUND, "no such job");
        return;
    }
    state = json_text(doc, "state");
    g->is_running = state != NULL && strcmp(state, "running") == 0;
    (void)json_int(doc, "version", &g->version);
    g->view = jobs_view(r, doc);
    if (g->wants_attempts) {
        struct db_value value = db_text(json_text(doc, "id"));

        if (db_gather_add(dispatcher_of(r)->jobs->attempts, &value, get_on_attempts, g) == ERR_OK)
            return;
    }
    get_progress(g);
}

/* The same without `expand`, which is what is asked most: from columns, as text. */
struct job_show {
    struct request *request;
    struct buf text;
    size_t progress_at;
    int64_t version;
};

static void show_reply(struct job_show *s, const char *progress)
{
    struct request *r = s->request;
    struct buf body = { 0 };
    bool ok = buf_add(&body, s->text.data, s->progress_at) && buf_str(&body, progress) &&
              buf_add(&body, s->text.data + s->progress_at, s->text.len - s->progress_at);

    buf_done(&s->text);
    add_etag(r, s->version);
    reply_body(r, 200, "application/json", ok ? &body : NULL);
    buf_done(&body);
}

static void show_on_progress(void *ctx, enum err err, const char *phase, int percent)
{
    struct buf progress = { 0 };
    bool ok = err == ERR_OK && phase != NULL && buf_str(&progress, "{\"phase\":") && json_quote_to(&progress, phase);

    if (ok && percent >= 0)
        ok = buf_printf(&progress, ",\"percent\":%d}", percent);
    else
        ok = ok && buf_str(&progress, ",\"percent\":null}");
    show_reply(ctx, ok ? progress.data : "{\"phase\":null,\"percent\":null}");
    buf_done(&progress);
}

static void show_on_seen(void *ctx, enum err err, const struct job_seen *seen)
{
    struct job_show *s = ctx;
    struct request *r = s->request;
    struct dispatcher *d = dispatcher_of(r);

    if (err != ERR_OK) {
        problem_backend(r, err);
    } else if (seen == NULL) {
        problem_reply(r, ERR_NOT_FOUND, "no such job");
    } else if (reply_unchanged(r, seen->version)) {
        return;
    } else if (!job_seen_text(r, seen, &s->text, &s->progress_at)) {
        buf_done(&s->text);
        problem_backend(r, ERR_NOMEM);
    } else {
        s->version = seen->version;
        if (strcmp(seen->state, "running") == 0 && queue_is_up(d->queue))
            queue_progress_of(d->queue, seen->id, show_on_progress, s);
        else
            show_reply(s, job_seen_progress(seen));
    }
}

enum err jobs_look(struct jobs *j, const char *job, const char *app, job_look_fn *fn, void *ctx)
{
    return job_look(j->looks, job, app, fn, ctx);
}

static enum err jobs_show(struct request *r, const char *id, int64_t version, int64_t wait_ms)
{
    struct job_show *s = arena_alloc(r->arena, sizeof(*s));
    struct dispatcher *d = dispatcher_of(r);

    if (s == NULL)
        return ERR_NOMEM;
    s->request = r;
    return wait_ms > 0 ? watch_look(d->watch, r, id, version, wait_ms, show_on_seen, s)
                       : job_look(d->jobs->looks, id, r->app, show_on_seen, s);
}

/* Answered with 304 by what was read a moment ago. */
static bool jobs_unchanged(struct request *r, const char *id)
{
    int64_t version = request_header(r, "If-None-Match") == NULL
                          ? 0
                          : versions_of(dispatcher_of(r)->jobs->versions, id, r->app, clock_mono_ms());

    return version > 0 && reply_unchanged(r, version);
}

void jobs_get(struct request *r)
{
    struct dispatcher *d = dispatcher_of(r);
    struct job_get *g = arena_alloc(r->arena, sizeof(*g));
    const char *expand = request_query(r, "expand", NULL), *match = request_header(r, "If-None-Match");
    char id[UUID_TEXT];
    int64_t wait_s, version = 0;
    bool bad;
    enum err e;

    if (g == NULL || !uuid_lower(id, r->args[0])) {
        problem_reply(r, g == NULL ? ERR_UNAVAILABLE : ERR_NOT_FOUND, g == NULL ? NULL : "no such job");
        return;
    }
    if (expand != NULL && strcmp(expand, "attempts") != 0) {
        problem_field(r, ERR_INVALID_REQUEST, "expand", "must be attempts");
        return;
    }
    wait_s = reply_prefer_wait(r, &bad);
    if (bad) {
        problem_field(r, ERR_INVALID_REQUEST, "Prefer", "wait must be a number of seconds");
        return;
    }
    if (wait_s == 0 && jobs_unchanged(r, id))
        return;
    if (!db_is_up(d->read)) {
        problem_backend(r, ERR_UNAVAILABLE);
        return;
    }
    g->request = r;
    g->wants_attempts = expand != NULL;
    if (match != NULL && match[0] == '"') {
        char digits[24];
        size_t len = strcspn(match + 1, "\"");

        if (len < sizeof(digits)) {
            memcpy(digits, match + 1, len);
            digits[len] = '\0';
            if (parse_i64(digits, 1, INT64_MAX, &version) != ERR_OK)
                version = 0;
        }
    }
    if (wait_s > 0) {
        char applied[32];

        snprintf(applied, sizeof(applied), "wait=%lld", (long long)wait_s);
        request_add_header(r, "Preference-Applied", applied);
    }
    if (d->is_draining)
        wait_s = 0;
    if (!g->wants_attempts)
        e = jobs_show(r, id, version, wait_s * 1000);
    else if (wait_s > 0)
        e = watch_wait(d->watch, r, id, version, wait_s * 1000, true, get_on_doc, g);
    else
        e = jobs_read(d->jobs, id, r->app, get_on_doc, g);
    if (e != ERR_OK)
        problem_backend(r, e);
}

/* ---- POST /v1/jobs/{id}/cancel ---- */

static void cancel_on_doc(void *ctx, enum err err, json_t *doc)
{
    struct request *r = ctx;

    if (err != ERR_OK)
        problem_backend(r, err);
    else if (doc == NULL)
        problem_reply(r, ERR_NOT_FOUND, "no such job");
    else
        jobs_reply(r, 200, doc);
}

static void cancel_on_hint(void *ctx, enum err err, size_t count)
{
    (void)ctx;
    (void)err; /* lost: the holder's next write says `finished` */
    (void)count;
}

static void cancel_on_verdict(void *ctx, enum err err, const struct ledger_canceled *canceled)
{
    struct request *r = ctx;
    struct dispatcher *d = dispatcher_of(r);
    char id[UUID_TEXT];
    enum err e;

    if (err != ERR_OK) {
        problem_backend(r, err);
        return;
    }
    if (canceled->verdict == CANCEL_NOT_FOUND) {
        problem_reply(r, ERR_NOT_FOUND, "no such job");
        return;
    }
    (void)uuid_lower(id, r->args[0]);
    if (canceled->verdict == CANCEL_CANCELED) {
        accept_take_back(d->accept, id);
        queue_cancel(d->queue, id, canceled->version, canceled->holder[0] != '\0' ? canceled->holder : NULL,
                     cancel_on_hint, d);
    }
    e = jobs_read(d->jobs, id, r->app, cancel_on_doc, r);
    if (e != ERR_OK)
        problem_backend(r, e);
}

void jobs_cancel(struct request *r)
{
    struct dispatcher *d = dispatcher_of(r);
    char id[UUID_TEXT];
    enum err e;

    if (!uuid_lower(id, r->args[0])) {
        problem_reply(r, ERR_NOT_FOUND, "no such job");
        return;
    }
    e = db_is_up(d->write) ? ledger_cancel(d->ledger, id, r->app, cancel_on_verdict, r) : ERR_UNAVAILABLE;
    if (e != ERR_OK)
        problem_backend(r, e);
}
