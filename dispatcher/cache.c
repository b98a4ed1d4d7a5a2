/* cache.c - keys of cached jobs, a look at the storage before an earlier result answers, and who waits for a leader. */
#include "dispatcher/cache.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "common/base/log.h"
#include "dispatcher/dispatcher.h"

enum { LOOK_MS = 2000, SETTLE_MS = 5000, SETTLE_MAX = 500, OBJECTS_MAX = 64, OBJECT_MAX = 160 };

void cache_count(struct dispatcher *d, const char *result, size_t n)
{
    metric_add(metrics_counter(d->metrics, "kiln_cache_total",
                               "Jobs with cache, by what became of them: hit, wait, lead, answered, promoted, gone.",
                               "result", result, NULL),
               (double)n);
}

/* ---- the key ---- */

/* What stands for a file: its content, or the name of one of our own objects, which never change. NULL: a URL. */
static const char *file_name(const json_t *file)
{
    const char *sha256 = json_text(file, "sha256");

    return sha256 != NULL ? sha256 : json_text(file, "object");
}

static bool key_files(json_t *params, const json_t *inputs, struct catalog_faults *faults)
{
    const char *field;
    json_t *files, *file;
    size_t i, before = faults->count;

    json_object_foreach((json_t *)(uintptr_t)inputs, field, files)
    {
        json_t *names = json_array();
        char where[96];

        json_array_foreach(files, i, file)
        {
            if (file_name(file) != NULL) {
                (void)json_array_append_new(names, json_string(file_name(file)));
                continue;
            }
            snprintf(where, sizeof(where), "params.%s", field);
            faults_add(faults, where,
                       "is a URL, whose content may change: a job with \"cache\" takes uploads, artifacts "
                       "and data: URIs");
        }
        (void)json_object_set_new(params, field, names);
    }
    return faults->count == before;
}

bool cache_key(char key[SHA256_HEX], const struct accept_order *o, const char *app, const json_t *inputs,
               struct catalog_faults *faults)
{
    json_t *params = json_copy(o->checked), *whole = NULL;
    char *text = NULL;
    bool ok = params != NULL && key_files(params, inputs, faults);

    if (ok) {
        whole = json_pack("{s:s, s:s, s:O, s:O*}", "app", app, "operation", o->op->name, "params", params, "providers",
                          o->providers);
        text = whole != NULL ? json_print(whole) : NULL; /* members sorted */
        ok = text != NULL;
        if (ok)
            sha256_hex(key, text, strlen(text));
        else
            faults_add(faults, "cache", "is not possible: no memory");
    }
    free(text);
    json_decref(whole);
    json_decref(params);
    return ok;
}

/* ---- is it still there? ---- */

struct look { /* lives in the request's arena */
    struct request *request;
    void (*done)(void *ctx);
    void *ctx;
    uv_work_t work;
    size_t count;
    struct look_object {
        char job[UUID_TEXT], object[OBJECT_MAX];
        bool is_gone;
    } * objects;
};

static void look_on_dropped(void *ctx, enum err err, const struct db_result *result)
{
    struct look *l = ctx;

    (void)err; /* not told: it answers once more, and its artifact says 404 */
    (void)result;
    l->done(l->ctx);
}

static void look_work(uv_work_t *work)
{
    struct look *l = container_of(work, struct look, work);
    struct store_at where;

    for (size_t i = 0; i < l->count; i++) {
        enum err err = store_find(dispatcher_of(l->request)->store, l->objects[i].object, &where);

        l->objects[i].is_gone = err == ERR_NOT_FOUND;
        if (err == ERR_OK)
            (void)close(where.fd);
    }
}

static void look_on_work(uv_work_t *work, int status)
{
    struct look *l = container_of(work, struct look, work);
    struct dispatcher *d = dispatcher_of(l->request);
    struct buf list = { 0 };
    const char *values[1];
    size_t gone = 0;

    (void)status;
    (void)buf_str(&list, "{");
    for (size_t i = 0; i < l->count; i++) {
        if (l->objects[i].is_gone)
            (void)buf_printf(&list, "%s%s", gone++ > 0 ? "," : "", l->objects[i].job);
    }
    (void)buf_str(&list, "}");
    values[0] = list.data;
    if (gone > 0) {
        cache_count(d, "gone", gone);
        log_info("cache_gone", log_int("objects", (int64_t)gone));
    }
    if (gone == 0 || list.data == NULL ||
        db_query(d->write, "select kiln_cache_drop($1::uuid[])", 1, values, LOOK_MS, look_on_dropped, l) != ERR_OK)
        l->done(l->ctx);
    buf_done(&list);
}

static void look_on_rows(void *ctx, enum err err, const struct db_result *result)
{
    struct look *l = ctx;
    int rows = err == ERR_OK ? db_rows(result) : 0;

    l->objects = rows > 0 ? arena_alloc(l->request->arena, (size_t)rows * sizeof(*l->objects)) : NULL;
    for (int i = 0; i < rows && l->objects != NULL; i++) {
        struct look_object *o = &l->objects[l->count++];

        snprintf(o->job, sizeof(o->job), "%s", db_col(result, i, "job"));
        snprintf(o->object, sizeof(o->object), "%s", db_col(result, i, "object"));
    }
    if (l->count == 0 || uv_queue_work(dispatcher_of(l->request)->loop, &l->work, look_work, look_on_work) != 0)
        l->done(l->ctx);
}

void cache_look(struct request *r, const char *app, const char *key, void (*done)(void *ctx), void *ctx)
{
    struct look *l = arena_alloc(r->arena, sizeof(*l));
    char max[12];
    const char *values[] = { app, key, max };

    snprintf(max, sizeof(max), "%d", OBJECTS_MAX);
    if (l != NULL)
        *l = (struct look){ .request = r, .done = done, .ctx = ctx };
    if (l == NULL ||
        db_query(dispatcher_of(r)->read, "select job, object from kiln_cache_objects($1::uuid, $2, $3::int)",
                 ARRAY_LEN(values), values, LOOK_MS, look_on_rows, l) != ERR_OK)
        done(ctx);
}

/* ---- who waits ---- */

struct cache {
    struct dispatcher *d;
    bool is_asking;
};

static void settle_on_published(void *ctx, enum err err, size_t count)
{
    (void)ctx;
    (void)err; /* lost: the reconciler's slow pass finds it */
    (void)count;
}

static void cache_on_rows(void *ctx, enum err err, const struct db_result *result)
{
    struct cache *c = ctx;
    struct dispatcher *d = c->d;
    struct queue_item items[SETTLE_MAX];
    size_t led = 0, answered = 0;
    int rows = err == ERR_OK ? db_rows(result) : 0;
    bool has_queue = queue_is_up(d->queue);

    c->is_asking = false;
    for (int i = 0; i < rows; i++) {
        const char *job = db_col(result, i, "job"), *state = db_col(result, i, "state");

        if (strcmp(state, "queued") != 0) {
            answered++;
            if (has_queue)
                queue_event(d->queue, job, db_col_int(result, i, "version"), state);
        } else if (led < SETTLE_MAX) {
            items[led++] = (struct queue_item){ .job = job,
                                                .lane = db_col(result, i, "provider"),
                                                .app = db_col(result, i, "app"),
                                                .account = db_col(result, i, "account"),
                                                .envelope = NULL, /* "read it in PostgreSQL" */
                                                .priority = db_col_int(result, i, "priority"),
                                                .created_ms = db_col_int(result, i, "created_at_ms"),
                                                .account_cap = db_col_int(result, i, "max_running") };
        }
    }
    if (led > 0 && has_queue)
        queue_publish(d->queue, items, led, settle_on_published, d);
    if (answered > 0)
        cache_count(d, "answered", answered);
    if (led > 0)
        cache_count(d, "promoted", led);
    if (answered + led >= SETTLE_MAX)
        cache_tick(c); /* there are more */
}

void cache_tick(struct cache *c)
{
    char max[12];
    const char *values[] = { max };

    if (c->is_asking)
        return;
    snprintf(max, sizeof(max), "%d", SETTLE_MAX);
    c->is_asking = db_query(c->d->repair_db,
                            "select job, state, version, app, account, provider, priority, created_at_ms, max_running "
                            "from kiln_cache_settle($1::int)",
                            ARRAY_LEN(values), values, SETTLE_MS, cache_on_rows, c) == ERR_OK;
}

struct cache *cache_new(struct dispatcher *d)
{
    struct cache *c = calloc(1, sizeof(*c));

    if (c != NULL)
        c->d = d;
    return c;
}

void cache_free(struct cache *c)
{
    if (c == NULL)
        return;
    db_forget(c->d->repair_db, c);
    free(c);
}
