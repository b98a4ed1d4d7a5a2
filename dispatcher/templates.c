/* templates.c - see templates.h. */
#include "dispatcher/templates.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/clock.h"
#include "common/core/template.h"
#include "common/io/db.h"
#include "dispatcher/dispatcher.h"
#include "dispatcher/problem.h"
#include "dispatcher/reply.h"
#include "dispatcher/routes.h"

enum { FRESH_US = 1000000, ASK_MS = 3000, TEMPLATE_BYTES = 64 << 10, TEMPLATES_MAX = 200, NAME_BYTES = 64 };

struct waiter { /* lives in its request's arena */
    struct request *request;
    struct waiter *next;
};

struct templates {
    struct dispatcher *d;
    json_t *apps; /* app -> name -> template */
    char since[RFC3339_TEXT];
    int64_t looked_us; /* clock_mono_us at which the last good look began; 0: never */
    int64_t asked_us;
    bool is_asking;
    struct waiter *waiting, *late; /* late: came while the question was under way that may be too old for them */
};

struct templates *templates_new(struct dispatcher *d)
{
    struct templates *t = calloc(1, sizeof(*t));

    if (t == NULL)
        return NULL;
    t->d = d;
    t->apps = json_object();
    snprintf(t->since, sizeof(t->since), "1970-01-01T00:00:00.000Z");
    if (t->apps != NULL)
        return t;
    free(t);
    return NULL;
}

void templates_free(struct templates *t)
{
    if (t == NULL)
        return;
    json_decref(t->apps);
    free(t);
}

/* ---- what apps have */

static void learn(struct templates *t, const char *app, const char *name, const char *text)
{
    json_t *mine = json_object_get(t->apps, app);
    json_t *doc = text[0] != '\0' ? json_parse(text, strlen(text), NULL) : NULL;

    if (mine == NULL && doc != NULL && json_object_set_new(t->apps, app, json_object()) == 0)
        mine = json_object_get(t->apps, app);
    if (doc == NULL)
        (void)json_object_del(mine, name); /* absent already: as wanted */
    else
        (void)json_object_set_new(mine, name, doc);
}

static void ask(struct templates *t);

static void on_changes(void *ctx, enum err err, const struct db_result *result)
{
    struct templates *t = ctx;
    struct waiter *w = t->waiting;

    for (int i = 0; err == ERR_OK && i < db_rows(result); i++) {
        learn(t, db_col(result, i, "app_id"), db_col(result, i, "name"), db_col(result, i, "doc"));
        if (strcmp(db_col(result, i, "at"), t->since) > 0)
            snprintf(t->since, sizeof(t->since), "%s", db_col(result, i, "at"));
    }
    if (err == ERR_OK)
        t->looked_us = t->asked_us;
    t->is_asking = false;
    t->waiting = t->late;
    t->late = NULL;
    if (t->waiting != NULL)
        ask(t);
    while (w != NULL) {
        struct request *r = w->request;

        w = w->next; /* its memory goes with the answer */
        if (err != ERR_OK)
            problem_backend(r, ERR_UNAVAILABLE);
        else
            routes_on_request(r);
    }
}

static void ask(struct templates *t)
{
    /* ten seconds back: a change that began earlier may have been committed later than another */
    static const char sql[] = "select app_id, name, doc, to_char(updated_at at time zone 'utc', "
                              "'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') as at from templates "
                              "where updated_at > $1::timestamptz - interval '10 s'";
    const char *values[] = { t->since };

    t->is_asking = true;
    t->asked_us = clock_mono_us();
    if (!db_is_up(t->d->read) || db_query(t->d->read, sql, ARRAY_LEN(values), values, ASK_MS, on_changes, t) != ERR_OK)
        on_changes(t, ERR_UNAVAILABLE, NULL);
}

static enum templates_verdict wait_for_look(struct templates *t, struct request *r)
{
    struct waiter *w = arena_alloc(r->arena, sizeof(*w)), **list = t->is_asking ? &t->late : &t->waiting;

    if (w == NULL) {
        problem_backend(r, ERR_NOMEM);
        return TEMPLATES_WAIT;
    }
    *w = (struct waiter){ .request = r, .next = *list };
    *list = w;
    if (!t->is_asking)
        ask(t);
    return TEMPLATES_WAIT;
}

static const json_t *find(const struct templates *t, const char *app, const char *name)
{
    const json_t *mine = json_object_get(json_object_get(t->apps, app), name);

    return mine != NULL ? mine : json_object_get(catalog_templates(t->d->catalog), name);
}

/* ---- filling in */

static bool is_use(const json_t *value)
{
    return json_is_object(value) && json_object_get(value, "template") != NULL;
}

const char *templates_used(const json_t *params)
{
    const char *name;
    json_t *value;

    json_object_foreach((json_t *)(uintptr_t)params, name, value)
    {
        if (is_use(value))
            return name;
    }
    return NULL;
}

/* The template's negative prompt goes where the operation has a place for it, after the customer's own words. */
static void put_negative(const struct operation *op, json_t *params, const char *negative, json_t **notes)
{
    const char *own = json_text(params, "negative_prompt");
    struct buf both = { 0 };

    if (negative == NULL || negative[0] == '\0')
        return;
    if (json_object_get(json_object_get(op->doc, "params"), "negative_prompt") == NULL) {
        char note[200];

        snprintf(note, sizeof(note), "negative_prompt: %s takes none; the template's was left out", op->name);
        *notes = json_pack("[s]", note);
        return;
    }
    (void)buf_printf(&both, "%s%s%s", own != NULL ? own : "", own != NULL && own[0] != '\0' ? ", " : "", negative);
    (void)json_set_text(params, "negative_prompt", both.data);
    buf_done(&both);
}

static bool check_use(const json_t *use, const char *field, struct catalog_faults *faults)
{
    size_t before = faults->count;
    const char *key;
    json_t *value;
    char at[96];

    if (strcmp(field, "prompt") != 0)
        faults_add(faults, field, "a template may stand for the prompt only");
    json_object_foreach((json_t *)(uintptr_t)use, key, value)
    {
        if (strcmp(key, "template") != 0 && strcmp(key, "vars") != 0) {
            snprintf(at, sizeof(at), "params.prompt.%.60s", key);
            faults_add(faults, at, "is no member here; there are template and vars");
        }
    }
    if (!json_is_string(json_object_get(use, "template")))
        faults_add(faults, "params.prompt.template", "must be the name of a template; see GET /v1/templates");
    return faults->count == before;
}

enum templates_verdict templates_fill(struct templates *t, struct request *r, const struct operation *op,
                                      const json_t *params, struct catalog_faults *faults, json_t **out, json_t **notes)
{
    const char *field = templates_used(params), *name;
    const json_t *use = json_object_get(params, field), *doc;
    char *prompt = NULL, *negative = NULL;

    *out = *notes = NULL;
    if (!check_use(use, field, faults))
        return TEMPLATES_FAULTS;
    name = json_text(use, "template");
    if (t->looked_us == 0 || t->looked_us < r->began_us - FRESH_US)
        return wait_for_look(t, r);
    doc = find(t, r->app, name);
    if (doc == NULL && t->looked_us < r->began_us)
        return wait_for_look(t, r);
    if (doc == NULL) {
        faults_add(faults, "params.prompt.template", "is no template; see GET /v1/templates");
        return TEMPLATES_FAULTS;
    }
    if (!template_expand(doc, json_object_get(use, "vars"), "params.prompt.vars", faults, &prompt, &negative))
        return TEMPLATES_FAULTS;
    *out = json_copy((json_t *)(uintptr_t)params);
    (void)json_set_text(*out, "prompt", prompt);
    put_negative(op, *out, negative, notes);
    free(prompt);
    free(negative);
    return TEMPLATES_DONE;
}

/* ---- the endpoints */

static bool looked_lately(struct templates *t, struct request *r)
{
    if (t->looked_us >= r->began_us)
        return true;
    (void)wait_for_look(t, r);
    return false;
}

static json_t *view(const char *name, const json_t *doc, bool is_own)
{
    json_t *one = template_describe(name, doc);

    if (one != NULL)
        (void)json_object_set_new(one, "built_in", json_boolean(!is_own));
    return one;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(json_text(*(json_t *const *)a, "name"), json_text(*(json_t *const *)b, "name"));
}

void templates_list(struct request *r)
{
    struct dispatcher *d = dispatcher_of(r);
    const json_t *own = NULL, *shipped = catalog_templates(d->catalog);
    json_t **rows = NULL, *data = json_array(), *doc;
    size_t count = 0;
    const char *name;

    if (!looked_lately(d->templates, r))
        goto out;
    own = json_object_get(d->templates->apps, r->app);
    rows = calloc(json_object_size(own) + json_object_size(shipped) + 1, sizeof(*rows));
    if (rows == NULL) {
        problem_backend(r, ERR_NOMEM);
        goto out;
    }
    json_object_foreach((json_t *)(uintptr_t)own, name, doc) rows[count++] = view(name, doc, true);
    json_object_foreach((json_t *)(uintptr_t)shipped, name, doc)
    {
        if (json_object_get(own, name) == NULL)
            rows[count++] = view(name, doc, false);
    }
    qsort(rows, count, sizeof(*rows), by_name);
    for (size_t i = 0; i < count; i++)
        (void)json_array_append_new(data, rows[i]);
    reply_list(r, json_incref(data), NULL);
out:
    json_decref(data);
    free(rows);
}

static bool name_fits(struct request *r)
{
    size_t len = strlen(r->args[0]);

    if (len >= 1 && len <= NAME_BYTES && strspn(r->args[0], "abcdefghijklmnopqrstuvwxyz0123456789_.-") == len)
        return true;
    problem_field(r, ERR_INVALID_REQUEST, "name", "must be 1 to 64 of a-z 0-9 _ . -");
    return false;
}

/* With the texts too: who may use a template may read it. */
static void reply_whole(struct request *r, const char *name, const json_t *doc, bool is_own)
{
    json_t *one = view(name, doc, is_own);

    (void)json_object_set(one, "template", (json_t *)(uintptr_t)doc);
    reply_json(r, 200, one);
}

void templates_get(struct request *r)
{
    struct templates *t = dispatcher_of(r)->templates;
    const json_t *doc;

    if (!looked_lately(t, r))
        return;
    doc = find(t, r->app, r->args[0]);
    if (doc == NULL)
        problem_reply(r, ERR_NOT_FOUND, "no such template");
    else
        reply_whole(r, r->args[0], doc, json_object_get(json_object_get(t->apps, r->app), r->args[0]) != NULL);
}

static void put_done(struct request *r)
{
    json_decref(r->data);
}

static void on_put(void *ctx, enum err err, const struct db_result *result)
{
    struct request *r = ctx;
    struct templates *t = dispatcher_of(r)->templates;
    char *text;

    if (err != ERR_OK) {
        problem_backend(r, err);
    } else if (db_rows(result) != 1 || !db_col_bool(result, 0, "done")) {
        problem_reply(r, ERR_CONFLICT, "this app has 200 templates, which is as many as it may have");
    } else if (r->data == NULL) {
        learn(t, r->app, r->args[0], "");
        request_reply(r, 204, NULL, NULL);
    } else {
        text = json_print(r->data);
        learn(t, r->app, r->args[0], text != NULL ? text : "");
        free(text);
        reply_whole(r, r->args[0], r->data, true);
    }
}

static void write_template(struct request *r, const char *text)
{
    struct dispatcher *d = dispatcher_of(r);
    char limit[16];
    const char *values[] = { r->app, r->args[0], text, limit };
    enum err e;

    snprintf(limit, sizeof(limit), "%d", TEMPLATES_MAX);
    e = db_is_up(d->write) ? db_query(d->write, "select kiln_template_put($1::uuid, $2, $3::jsonb, $4::int) as done",
                                      ARRAY_LEN(values), values, ASK_MS, on_put, r)
                           : ERR_UNAVAILABLE;
    if (e == ERR_ARGUMENT)
        problem_field(r, ERR_INVALID_REQUEST, "body", "holds a character that cannot be stored");
    else if (e != ERR_OK)
        problem_backend(r, e);
}

void templates_put(struct request *r)
{
    struct catalog_faults faults = { 0 };
    struct json_fault fault = { "the body is empty" };
    json_t *doc;
    char *text;

    if (!name_fits(r))
        return;
    if (r->body.len > TEMPLATE_BYTES) {
        problem_field(r, ERR_TOO_LARGE, "body", "a template may have 65536 bytes");
        return;
    }
    doc = r->body.len > 0 ? json_parse(r->body.data, r->body.len, &fault) : NULL;
    if (doc == NULL) {
        problem_reply(r, ERR_INVALID_JSON, fault.message);
        return;
    }
    r->data = doc;
    r->on_over = put_done;
    if (!template_check(doc, &faults)) {
        problem_faults(r, ERR_INVALID_REQUEST, &faults);
        return;
    }
    text = json_print(doc);
    write_template(r, text);
    free(text);
}

void templates_delete(struct request *r)
{
    struct templates *t = dispatcher_of(r)->templates;

    if (!looked_lately(t, r))
        return;
    if (json_object_get(json_object_get(t->apps, r->app), r->args[0]) == NULL)
        problem_reply(r, ERR_NOT_FOUND, "this app has no such template of its own");
    else
        write_template(r, NULL);
}
