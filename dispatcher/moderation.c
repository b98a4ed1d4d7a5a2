/* moderation.c - see moderation.h. */
#include "dispatcher/moderation.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/log.h"
#include "common/base/text_fold.h"
#include "common/io/httpc.h"
#include "dispatcher/accept.h"
#include "dispatcher/dispatcher.h"

enum { ASK_MS = 10000, WRITE_MS = 3000, FIELD_BYTES = 96, REASON_BYTES = 300 };

struct moderation {
    struct dispatcher *d;
    char *path;          /* of the blocked terms; NULL: none */
    struct terms *terms; /* NULL: none */
    struct httpc *httpc; /* NULL: nobody is asked */
    char *url, *auth;    /* auth is a secret */
    void (*on_closed)(void *ctx);
    void *closed_ctx;
};

struct check { /* one job looked at; lives in its request's arena */
    struct moderation *moderation;
    const char *app, *account, *operation, *source;
    char field[FIELD_BYTES], reason[REASON_BYTES];
    char *body; /* of the question; malloc'd */
    moderation_fn *fn;
    void *ctx;
};

/* ---- opening */

static bool open_remote(struct moderation *m, const struct config *config, char *problem, size_t size)
{
    const char *who = config_text(config, "KILN_MODERATION");
    const struct catalog_provider *p = catalog_provider_find(m->d->catalog, "openai");
    struct buf url = { 0 }, auth = { 0 };

    if (who == NULL)
        return true;
    if (strcmp(who, "openai") != 0) {
        snprintf(problem, size, "KILN_MODERATION must be openai, or empty");
        return false;
    }
    if (p == NULL || p->key == NULL) {
        snprintf(problem, size, "KILN_MODERATION=openai needs OPENAI_API_KEY");
        return false;
    }
    (void)buf_printf(&url, "%s/moderations", p->base_url);
    (void)buf_printf(&auth, "%s: %s%s", p->auth_header, p->auth_prefix, p->key);
    m->url = buf_take(&url);
    m->auth = buf_take(&auth);
    m->httpc =
        httpc_new(m->d->loop, &(struct httpc_config){ .multis = 1,
                                                      .allow_private = true, /* the operator's own address */
                                                      .ca_file = config_text(config, "KILN_CA_FILE"),
                                                      .user_agent = "User-Agent: kiln-dispatcher/" KILN_VERSION });
    snprintf(problem, size, "out of memory");
    return m->url != NULL && m->auth != NULL && m->httpc != NULL;
}

enum err moderation_new(struct dispatcher *d, const struct config *config, struct moderation **out, char *problem,
                        size_t problem_size)
{
    struct moderation *m = calloc(1, sizeof(*m));
    const char *path = config_text(config, "KILN_BLOCKED_TERMS");
    char why[160] = "";

    snprintf(problem, problem_size, "out of memory");
    if (m == NULL)
        return ERR_NOMEM;
    m->d = d;
    *out = m;
    if (path != NULL) {
        m->path = strdup(path);
        m->terms = terms_read(path, why, sizeof(why));
        if (m->terms == NULL) {
            snprintf(problem, problem_size, "KILN_BLOCKED_TERMS %s", why);
            return ERR_ARGUMENT;
        }
        log_info("blocked_terms", log_int("count", (int64_t)terms_count(m->terms)));
    }
    return open_remote(m, config, problem, problem_size) ? ERR_OK : ERR_ARGUMENT;
}

void moderation_reload(struct moderation *m)
{
    char why[160] = "";
    struct terms *terms = m != NULL && m->path != NULL ? terms_read(m->path, why, sizeof(why)) : NULL;

    if (m == NULL || m->path == NULL)
        return;
    if (terms == NULL) {
        log_error("blocked_terms_kept", log_str("why", why));
        return;
    }
    terms_free(m->terms);
    m->terms = terms;
    log_info("blocked_terms", log_int("count", (int64_t)terms_count(terms)));
}

void moderation_close(struct moderation *m, void (*on_closed)(void *ctx), void *ctx)
{
    if (m != NULL && m->httpc != NULL)
        httpc_close(m->httpc, on_closed, ctx);
    else
        on_closed(ctx);
}

void moderation_free(struct moderation *m)
{
    if (m == NULL)
        return;
    for (volatile char *c = m->auth; c != NULL && *c != '\0'; c++)
        *c = '\0';
    terms_free(m->terms);
    free(m->path);
    free(m->url);
    free(m->auth);
    free(m);
}

/* ---- the texts of a job */

typedef bool text_fn(void *ctx, const char *field, const char *text); /* false: stop */

static bool each_text_in(const json_t *value, const char *field, text_fn *fn, void *ctx)
{
    const char *key;
    json_t *member;

    if (json_is_string(value))
        return fn(ctx, field, json_string_value(value));
    for (size_t i = 0; i < json_array_size(value); i++) {
        if (!each_text_in(json_array_get(value, i), field, fn, ctx))
            return false;
    }
    json_object_foreach((json_t *)(uintptr_t)value, key, member)
    {
        if (!each_text_in(member, field, fn, ctx))
            return false;
    }
    return true;
}

/* What customers wrote freely: no files, and no words of the catalogue's own lists. */
static void each_text(const struct accept_order *order, text_fn *fn, void *ctx)
{
    const json_t *specs = json_object_get(order->op->doc, "params");
    const char *name;
    json_t *value;
    char field[FIELD_BYTES];

    json_object_foreach(order->checked, name, value)
    {
        const json_t *spec = json_object_get(specs, name);
        const char *type = json_text(spec, "type");

        if ((type != NULL && strcmp(type, "file") == 0) || json_object_get(spec, "values") != NULL)
            continue;
        snprintf(field, sizeof(field), "params.%.80s", name);
        if (!each_text_in(value, field, fn, ctx))
            return;
    }
}

/* ---- refusing */

static void on_written(void *ctx, enum err err, const struct db_result *result)
{
    struct check *c = ctx;

    (void)result;
    if (err != ERR_OK)
        c->fn(c->ctx, ERR_UNAVAILABLE, NULL, NULL); /* refused or not: nothing without its row */
    else
        c->fn(c->ctx, ERR_CONTENT_FILTERED, c->field, c->reason);
}

/* `reason` goes into the row; the customer reads `c->reason`. */
static void refuse(struct check *c, const char *reason)
{
    static const char sql[] = "insert into moderation_refusals (app_id, account, operation, field, source, reason) "
                              "values ($1::uuid, $2, $3, $4, $5, $6)";
    const char *values[] = { c->app, c->account, c->operation, c->field, c->source, reason };
    struct dispatcher *d = c->moderation->d;

    metric_add(metrics_counter(d->metrics, "kiln_moderation_refused_total", "Jobs refused for their words, by who did.",
                               "source", c->source, NULL),
               1);
    log_info("moderation_refused", log_str("source", c->source), log_str("app", c->app),
             log_str("operation", c->operation), log_str("field", c->field));
    if (!db_is_up(d->write) || db_query(d->write, sql, ARRAY_LEN(values), values, WRITE_MS, on_written, c) != ERR_OK)
        c->fn(c->ctx, ERR_UNAVAILABLE, NULL, NULL);
}

/* ---- blocked terms */

struct look {
    struct check *check;
    const char *term;
    bool failed;
};

static bool look_at(void *ctx, const char *field, const char *text)
{
    struct look *look = ctx;

    look->term = terms_find(look->check->moderation->terms, text, strlen(text), &look->failed);
    if (look->term != NULL)
        snprintf(look->check->field, sizeof(look->check->field), "%s", field);
    return look->term == NULL && !look->failed;
}

/* ---- OpenAI */

static bool collect(void *ctx, const char *field, const char *text)
{
    (void)field;
    return text[0] == '\0' || json_array_append_new(ctx, json_string(text)) == 0;
}

/* The names of the categories that say true, joined. */
static void flagged_categories(const json_t *results, char *out, size_t size)
{
    size_t used = 0;
    const char *name;
    json_t *value;

    out[0] = '\0';
    for (size_t i = 0; i < json_array_size(results); i++) {
        json_object_foreach(json_object_get(json_array_get(results, i), "categories"), name, value)
        {
            int n = json_is_true(value) && strstr(out, name) == NULL
                        ? snprintf(out + used, size - used, "%s%.60s", used > 0 ? ", " : "", name)
                        : 0;

            used = n > 0 && used + (size_t)n < size ? used + (size_t)n : used;
        }
    }
}

static void on_answer(void *ctx, const struct httpc_answer *answer)
{
    struct check *c = ctx;
    json_t *body = answer->fate == HTTPC_ANSWERED && answer->status == 200
                       ? json_parse(answer->body, answer->body_len, NULL)
                       : NULL;
    const json_t *results = json_object_get(body, "results");
    char categories[200] = "", reason[REASON_BYTES];
    bool is_judged = json_array_size(results) > 0, is_flagged = false;

    free(c->body);
    c->body = NULL;
    for (size_t i = 0; i < json_array_size(results); i++) {
        const json_t *flagged = json_object_get(json_array_get(results, i), "flagged");

        is_judged = is_judged && json_is_boolean(flagged);
        is_flagged = is_flagged || json_is_true(flagged);
    }
    if (is_flagged) {
        flagged_categories(results, categories, sizeof(categories));
        json_decref(body);
        c->source = "openai";
        snprintf(c->field, sizeof(c->field), "params");
        snprintf(c->reason, sizeof(c->reason), "OpenAI's moderation refuses these words (%s)",
                 categories[0] != '\0' ? categories : "no category named");
        snprintf(reason, sizeof(reason), "%s", categories[0] != '\0' ? categories : "flagged");
        refuse(c, reason);
        return;
    }
    json_decref(body);
    if (!is_judged) {
        log_warn("moderation_unavailable", log_int("status", answer->status), log_str("why", answer->detail));
        c->fn(c->ctx, ERR_UNAVAILABLE, NULL, "the moderation service does not answer; nothing was accepted");
        return;
    }
    c->fn(c->ctx, ERR_OK, NULL, NULL);
}

static void ask_remote(struct check *c, const struct accept_order *order)
{
    struct moderation *m = c->moderation;
    json_t *texts = json_array(), *question;
    const char *headers[] = { m->auth, "Content-Type: application/json" };
    struct httpc_call *call;
    enum err e = ERR_NOMEM;

    each_text(order, collect, texts);
    if (json_array_size(texts) == 0) {
        json_decref(texts);
        c->fn(c->ctx, ERR_OK, NULL, NULL);
        return;
    }
    question = json_pack("{s:s, s:o}", "model", "omni-moderation-latest", "input", texts);
    c->body = question != NULL ? json_print(question) : NULL;
    json_decref(question);
    if (c->body != NULL)
        e = httpc_send(m->httpc,
                       &(struct httpc_request){ .method = "POST",
                                                .url = m->url,
                                                .headers = headers,
                                                .header_count = ARRAY_LEN(headers),
                                                .body = c->body,
                                                .body_len = strlen(c->body),
                                                .timeout_ms = ASK_MS },
                       on_answer, c, &call);
    if (e != ERR_OK) {
        free(c->body);
        c->fn(c->ctx, ERR_UNAVAILABLE, NULL, NULL);
    }
}

void moderation_check(struct moderation *m, struct arena *a, const char *app, const struct accept_order *order,
                      moderation_fn *fn, void *ctx)
{
    struct check *c;
    struct look look;

    if (m->terms == NULL && m->httpc == NULL) {
        fn(ctx, ERR_OK, NULL, NULL);
        return;
    }
    c = arena_alloc(a, sizeof(*c));
    if (c == NULL) {
        fn(ctx, ERR_NOMEM, NULL, NULL);
        return;
    }
    *c = (struct check){ .moderation = m,
                         .app = app,
                         .account = order->account,
                         .operation = order->op->name,
                         .source = "terms",
                         .fn = fn,
                         .ctx = ctx };
    look = (struct look){ .check = c };
    if (m->terms != NULL)
        each_text(order, look_at, &look);
    if (look.failed) {
        fn(ctx, ERR_NOMEM, NULL, NULL);
    } else if (look.term != NULL) {
        snprintf(c->reason, sizeof(c->reason), "holds words that this service does not take");
        refuse(c, look.term);
    } else if (m->httpc != NULL) {
        ask_remote(c, order);
    } else {
        fn(ctx, ERR_OK, NULL, NULL);
    }
}
