/* providers.c - see providers.h. One view walks: rows of PostgreSQL -> keys in Redis -> checks, if asked -> the answer.
 */
#include "dispatcher/providers.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/io/httpc.h"
#include "dispatcher/admin.h"
#include "dispatcher/dispatcher.h"
#include "dispatcher/problem.h"
#include "dispatcher/reply.h"

enum { PATIENCE_MS = 3000, CHECK_MS = 10000, ANSWER_BYTES = 65536, HEADER_BYTES = 600 };

struct providers {
    struct dispatcher *d;
    struct httpc *httpc;
};

struct view { /* lives in its request's arena */
    struct request *request;
    json_t *list;
    size_t open; /* answers still awaited, and one for whoever is adding */
    bool is_check;
};

struct probe { /* one request to a provider; lives in the request's arena */
    struct view *view;
    const struct catalog_provider *provider;
    json_t *into;  /* borrowed from the list: the key's entry, or the provider's */
    bool is_check; /* the catalogue's; else only whether somebody answers */
};

struct providers *providers_new(struct dispatcher *d, const struct config *config)
{
    struct providers *p = calloc(1, sizeof(*p));

    if (p == NULL)
        return NULL;
    p->d = d;
    p->httpc = httpc_new(d->loop, &(struct httpc_config){ .multis = 1,
                                                          .allow_private = true, /* the operator's own addresses */
                                                          .ca_file = config_text(config, "KILN_CA_FILE"),
                                                          .user_agent = "User-Agent: kiln-dispatcher/" KILN_VERSION });
    if (p->httpc != NULL)
        return p;
    free(p);
    return NULL;
}

void providers_close(struct providers *p, void (*on_closed)(void *ctx), void *ctx)
{
    httpc_close(p->httpc, on_closed, ctx);
}

void providers_free(struct providers *p)
{
    free(p);
}

/* ---- the answer ---- */

static void view_done(struct request *r)
{
    struct view *v = r->data;

    json_decref(v->list);
}

static void view_over(struct view *v)
{
    if (--v->open == 0)
        reply_list(v->request, json_incref(v->list), NULL);
}

/* ---- checks ---- */

/* The first of the JSON pointers ("/data/balance") that leads to something; NULL: none. */
static const json_t *pointed(const json_t *json, const json_t *pointers)
{
    size_t count = json_is_array(pointers) ? json_array_size(pointers) : pointers != NULL ? 1 : 0;

    for (size_t i = 0; i < count; i++) {
        const char *at = json_string_value(json_is_array(pointers) ? json_array_get(pointers, i) : pointers);
        const json_t *found = json;

        while (found != NULL && at != NULL && *at == '/') {
            size_t len = strcspn(++at, "/");
            char name[64];

            snprintf(name, sizeof(name), "%.*s", (int)len, at);
            found =
                json_is_array(found) ? json_array_get(found, strtoul(name, NULL, 10)) : json_object_get(found, name);
            at += len;
        }
        if (found != NULL)
            return found;
    }
    return NULL;
}

static enum err status_means(long status)
{
    switch (status) {
    case 401:
    case 403:
        return ERR_AUTH;
    case 402:
        return ERR_INSUFFICIENT_FUNDS;
    case 429:
        return ERR_RATE_LIMITED;
    case 451:
        return ERR_REGION_BLOCKED;
    default:
        return status >= 500 ? ERR_PROVIDER_UNAVAILABLE : ERR_BAD_RESPONSE;
    }
}

static void put_balance(const struct probe *x, const struct httpc_answer *a)
{
    const json_t *check = json_object_get(x->provider->doc, "check");
    json_t *body = json_parse(a->body, a->body_len, NULL);
    const json_t *balance = pointed(body, json_object_get(check, "balance"));

    if (json_is_number(balance)) {
        (void)json_object_set(x->into, "balance", (json_t *)(uintptr_t)balance);
        (void)json_set_text(x->into, "unit", json_text(check, "unit"));
    }
    json_decref(body);
}

static void probe_on_answer(void *ctx, const struct httpc_answer *a)
{
    struct probe *x = ctx;
    bool is_reached = a->fate == HTTPC_ANSWERED, is_good = is_reached && a->status / 100 == 2;

    (void)json_object_set_new(x->into, "reachable", json_boolean(is_reached));
    (void)json_object_set_new(x->into, "ms", json_integer(a->total_ms));
    if (!is_reached) /* curl's words name hosts, which the operator knows */
        (void)json_set_text(x->into, "error", a->err == ERR_TIMEOUT ? "no answer within 10 s" : "cannot be reached");
    if (x->is_check && is_reached) {
        enum err means = status_means(a->status);

        (void)json_object_set_new(x->into, "status", json_integer(a->status));
        if (is_good || means == ERR_AUTH)
            (void)json_object_set_new(x->into, "accepted", json_boolean(is_good));
        if (is_good)
            put_balance(x, a);
        else
            (void)json_set_text(x->into, "error", err_word(means));
    }
    view_over(x->view);
}

static void probe_send(struct view *v, const struct catalog_provider *p, const struct catalog_key *key, json_t *into)
{
    struct dispatcher *d = dispatcher_of(v->request);
    struct probe *x = arena_alloc(v->request->arena, sizeof(*x));
    const json_t *check = json_object_get(p->doc, "check");
    char auth[HEADER_BYTES], accept[160];
    const char *headers[2];
    struct buf url = { 0 };
    struct httpc_call *call;
    size_t count = 0;

    if (x == NULL)
        return;
    *x = (struct probe){ .view = v, .provider = p, .into = into, .is_check = check != NULL };
    (void)buf_printf(&url, "%s%s", p->base_url, check != NULL ? json_text(check, "path") : "");
    if (key != NULL && check != NULL) {
        snprintf(auth, sizeof(auth), "%s: %s%s", p->auth_header, p->auth_prefix, key->text);
        headers[count++] = auth;
    }
    if (json_text(check, "accept") != NULL) {
        snprintf(accept, sizeof(accept), "Accept: %s", json_text(check, "accept"));
        headers[count++] = accept;
    }
    v->open++;
    if (httpc_send(
            d->providers->httpc,
            &(struct httpc_request){ .method = json_text(check, "method") != NULL ? json_text(check, "method") : "GET",
                                     .url = url.data,
                                     .headers = headers,
                                     .header_count = count,
                                     .timeout_ms = CHECK_MS,
                                     .max_bytes = ANSWER_BYTES },
            probe_on_answer, x, &call) != ERR_OK)
        view_over(v);
    buf_done(&url);
    for (volatile char *c = auth; count > 0 && key != NULL && *c != '\0'; c++)
        *c = '\0';
}

static void check_all(struct view *v)
{
    struct dispatcher *d = dispatcher_of(v->request);

    for (size_t i = 0; i < catalog_provider_count(d->catalog); i++) {
        const struct catalog_provider *p = catalog_provider_at(d->catalog, i);
        json_t *one = json_array_get(v->list, i), *keys = json_object_get(one, "keys");

        if (p->key == NULL)
            continue;
        if (p->key_count == 0 || json_object_get(p->doc, "check") == NULL)
            probe_send(v, p, NULL, one);
        for (size_t k = 0; k < p->key_count && json_object_get(p->doc, "check") != NULL; k++)
            probe_send(v, p, &p->keys[k], json_array_get(keys, k));
    }
}

/* ---- keys ---- */

struct key_look {
    struct view *view;
    json_t *keys; /* borrowed */
};

static void keys_on_states(void *ctx, enum err err, int64_t next_ms, const struct queue_key_state *states, size_t count)
{
    struct key_look *look = ctx;

    (void)next_ms;
    for (size_t i = 0; err == ERR_OK && i < count && i < json_array_size(look->keys); i++) {
        json_t *key = json_array_get(look->keys, i);
        const char *state = states[i].out_ms > 0 ? "out" : states[i].paused_ms > 0 ? "paused" : "good";

        (void)json_set_text(key, "state", state);
        (void)json_object_set_new(
            key, "for_s",
            json_real((double)(states[i].out_ms > states[i].paused_ms ? states[i].out_ms : states[i].paused_ms) /
                      1000));
        (void)json_set_text(key, "why", states[i].out_ms > 0 && states[i].code[0] != '\0' ? states[i].code : NULL);
    }
    view_over(look->view);
}

static void look_at_keys(struct view *v, const struct catalog_provider *p, json_t *keys)
{
    struct dispatcher *d = dispatcher_of(v->request);
    struct key_look *look = arena_alloc(v->request->arena, sizeof(*look));
    const char *prints[QUEUE_KEYS_MAX];

    if (look == NULL || p->key_count == 0 || !queue_is_up(d->queue))
        return;
    *look = (struct key_look){ v, keys };
    for (size_t i = 0; i < p->key_count; i++)
        prints[i] = p->keys[i].print;
    v->open++;
    queue_key_tell(d->queue, p->name, prints, p->key_count, 0, QUEUE_KEY_LOOK, 0, "", keys_on_states, look);
}

/* ---- what is known ---- */

static json_t *provider_view(const struct catalog_provider *p)
{
    json_t *one = json_object(), *keys = json_array();

    (void)json_set_text(one, "object", "provider");
    (void)json_set_text(one, "name", p->name);
    (void)json_object_set_new(one, "configured", json_boolean(p->key != NULL));
    (void)json_set_text(one, "variable", p->key_env != NULL ? p->key_env : p->base_url_env);
    (void)json_object_set_new(one, "checkable", json_boolean(json_object_get(p->doc, "check") != NULL));
    for (size_t i = 0; i < p->key_count; i++)
        (void)json_array_append_new(keys, json_pack("{s:s, s:n}", "fingerprint", p->keys[i].print, "state"));
    (void)json_object_set_new(one, "keys", keys);
    (void)json_object_set_new(one, "breaker", json_null());
    (void)json_object_set_new(one, "last_error", json_null());
    return one;
}

static void put_row(json_t *one, const struct db_result *result, int row)
{
    json_t *error, *breaker;

    if (!db_is_null(result, row, "code")) {
        error = json_object();
        (void)json_set_text(error, "code", db_col(result, row, "code"));
        (void)json_set_text(error, "message", db_col(result, row, "message"));
        (void)json_object_set_new(error, "provider_status", json_integer(db_col_int(result, row, "provider_status")));
        (void)json_set_text(error, "at", db_col(result, row, "at"));
        (void)json_set_text(error, "job", db_col(result, row, "job"));
        (void)json_object_set_new(one, "last_error", error);
    }
    if (!db_is_null(result, row, "breaker")) {
        breaker = json_object();
        (void)json_set_text(breaker, "code", db_col(result, row, "breaker"));
        (void)json_object_set_new(breaker, "failures", json_integer(db_col_int(result, row, "failures")));
        (void)json_set_text(breaker, "until", db_col(result, row, "until"));
        (void)json_set_text(breaker, "state", db_col_bool(result, row, "is_open") ? "open" : "half-open");
        (void)json_object_set_new(one, "breaker", breaker);
    }
}

static void view_on_rows(void *ctx, enum err err, const struct db_result *result)
{
    struct view *v = ctx;
    struct dispatcher *d = dispatcher_of(v->request);

    if (err != ERR_OK) {
        problem_backend(v->request, err);
        return;
    }
    v->open = 1;
    for (size_t i = 0; i < catalog_provider_count(d->catalog); i++) {
        const struct catalog_provider *p = catalog_provider_at(d->catalog, i);
        json_t *one = provider_view(p);

        (void)json_array_append_new(v->list, one);
        for (int k = 0; k < db_rows(result); k++) {
            if (strcmp(db_col(result, k, "provider"), p->name) == 0)
                put_row(one, result, k);
        }
        look_at_keys(v, p, json_object_get(one, "keys"));
    }
    if (v->is_check)
        check_all(v);
    view_over(v);
}

static void view_show(struct request *r, bool is_check)
{
    /* of the last day only: the index of what went wrong is by time */
    static const char sql[] =
        "select p.name as provider, e.error_code as code, e.message, e.provider_status, kiln_time(e.closed_at) as at, "
        "e.job_id as job, b.code as breaker, b.failures, kiln_time(b.until) as until, b.until > kiln_now() as is_open "
        "from unnest($1::text[]) p(name) left join breakers b on b.provider = p.name left join lateral "
        "(select * from attempts a where a.state = 'closed' and a.error_code is not null and a.provider = p.name and "
        "a.closed_at > kiln_now() - interval '1 day' order by a.closed_at desc limit 1) e on true";
    struct dispatcher *d = dispatcher_of(r);
    struct view *v = arena_alloc(r->arena, sizeof(*v));
    struct buf names = { 0 };
    const char *values[1];
    enum err e;

    if (v == NULL) {
        problem_backend(r, ERR_NOMEM);
        return;
    }
    *v = (struct view){ .request = r, .list = json_array(), .is_check = is_check };
    r->data = v;
    r->on_over = view_done;
    if (!admin_db(r))
        return;
    (void)buf_str(&names, "{");
    for (size_t i = 0; i < catalog_provider_count(d->catalog); i++)
        (void)buf_printf(&names, "%s\"%s\"", i > 0 ? "," : "", catalog_provider_at(d->catalog, i)->name);
    (void)buf_str(&names, "}");
    values[0] = names.data;
    e = db_query(d->read, sql, 1, values, PATIENCE_MS, view_on_rows, v);
    buf_done(&names);
    if (e != ERR_OK)
        problem_backend(r, ERR_UNAVAILABLE);
}

void providers_list(struct request *r)
{
    view_show(r, false);
}

void providers_check(struct request *r)
{
    view_show(r, true);
}
