/* admin_apps.c - apps, their keys, their accounts' limits. A key is shown in the answer that made it and nowhere else:
 * PostgreSQL has its SHA-256, the log its id. */
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/log.h"
#include "dispatcher/admin.h"
#include "dispatcher/auth.h"
#include "dispatcher/dispatcher.h"
#include "dispatcher/jobs.h"
#include "dispatcher/problem.h"
#include "dispatcher/reply.h"

enum { NAME_MAX_BYTES = 64, PREFIX_CHARS = 12, PATIENCE_MS = 3000, RUNNING_MAX = 1000000, WEIGHT_MAX = 1000 };

#define NO_APP "no such app; GET /v1/admin/apps lists them"
/* {app} is a name or an id. */
#define APP_IS "(p.name = $1 or p.id::text = lower($1))"
#define APP_DOC                                                                                                                   \
    "jsonb_build_object('object', 'app', 'id', p.id, 'name', p.name, 'weight', p.weight, 'disabled', p.disabled_at is not null, " \
    "'disabled_at', kiln_time(p.disabled_at), 'created_at', kiln_time(p.created_at), 'keys', (select count(*) from "              \
    "api_keys k where k.app_id = p.id and k.revoked_at is null), 'accounts', (select count(*) from accounts a where "             \
    "a.app_id = p.id))"
#define KEY_DOC                                                                                                        \
    "jsonb_build_object('object', 'key', 'id', k.id, 'app', k.app_id, 'prefix', k.prefix, 'scopes', k.scopes, "        \
    "'created_at', kiln_time(k.created_at), 'revoked_at', kiln_time(k.revoked_at))"
#define ACCOUNT_DOC                                                                                                    \
    "jsonb_build_object('object', 'account', 'app', p.id, 'account', a.name, 'balance_mc', a.balance, 'held_mc', "     \
    "a.held, 'max_running', a.max_running, 'weight', a.weight, 'created_at', kiln_time(a.created_at))"

static bool uuid_cursor(struct request *r, const char **cursor)
{
    *cursor = request_query(r, "cursor", NULL);
    if (*cursor == NULL || uuid_valid(*cursor))
        return true;
    problem_field(r, ERR_INVALID_REQUEST, "cursor", "is none that a page's `next` had");
    return false;
}

/* ---- apps ---- */

void apps_list(struct request *r)
{
    const char *values[1];

    if (uuid_cursor(r, &values[0]))
        (void)admin_page(r,
                         "select " APP_DOC
                         " as doc, p.id as cursor from apps p where $1::uuid is null or p.id < $1::uuid "
                         "order by p.id desc limit $2::int",
                         values, 1, NULL);
}

static void create_on_row(void *ctx, enum err err, const struct db_result *result)
{
    struct request *r = ctx;
    const char *text;

    if (err != ERR_OK) {
        problem_backend(r, err);
        return;
    }
    if (db_rows(result) == 0) {
        problem_field(r, ERR_CONFLICT, "name", "is an app's already");
        return;
    }
    text = db_col(result, 0, "doc");
    log_info("app_created", log_str("by", r->app));
    reply_json(r, 201, json_parse(text, strlen(text), NULL));
}

void apps_create(struct request *r)
{
    static const char *const members[] = { "name", NULL };
    static const char sql[] =
        "with made as (insert into apps (id, name) values ($1::uuid, $2) on conflict (name) do nothing returning *) "
        "select " APP_DOC " as doc from (select * from made union all select * from apps where id = $1::uuid) p";
    json_t *body = admin_body(r, members);
    const char *name = json_text(body, "name");
    struct catalog_faults faults = { 0 };
    char id[UUID_TEXT];
    const char *values[] = { id, name };

    if (body == NULL)
        return;
    if (name == NULL || !jobs_account_valid(name) || strlen(name) > NAME_MAX_BYTES || uuid_valid(name))
        faults_add(&faults, "name", "must be 1 to %d of A-Z a-z 0-9 . _ : @ - and no UUID", NAME_MAX_BYTES);
    if (admin_faults(r, body, &faults))
        return;
    uuid_v7(id);
    if (admin_db(r) &&
        db_query(dispatcher_of(r)->write, sql, ARRAY_LEN(values), values, PATIENCE_MS, create_on_row, r) != ERR_OK)
        problem_backend(r, ERR_UNAVAILABLE);
    json_decref(body);
}

static json_t *patched_view(struct request *r, json_t *doc)
{
    log_info("app_changed", log_str("changed", json_text(doc, "id")),
             log_int("disabled", json_is_true(json_object_get(doc, "disabled"))), log_str("by", r->app));
    return json_incref(doc);
}

/* Its keys are refused within AUTH_TTL_MS; its jobs run on, and its signed links open. */
void apps_patch(struct request *r)
{
    static const char *const members[] = { "disabled", "weight", NULL };
    static const char sql[] =
        "update apps p set "
        "disabled_at = case when not $2::jsonb ? 'disabled' then p.disabled_at "
        "when ($2::jsonb ->> 'disabled')::boolean then coalesce(p.disabled_at, kiln_now()) end, "
        "weight = case when $2::jsonb ? 'weight' then coalesce(($2::jsonb ->> 'weight')::int, 1) else p.weight end "
        "where " APP_IS " and not (coalesce(($2::jsonb ->> 'disabled')::boolean, false) and p.id = $3::uuid) "
        "returning " APP_DOC " as doc";
    json_t *body = admin_body(r, members), *value;
    struct catalog_faults faults = { 0 };
    const char *values[] = { r->args[0], NULL, r->app };
    char *text;

    if (body == NULL)
        return;
    value = json_object_get(body, "disabled");
    if (value != NULL && !json_is_boolean(value))
        faults_add(&faults, "disabled", "must be true or false");
    value = json_object_get(body, "weight");
    if (value != NULL && !json_is_null(value) &&
        (!json_is_integer(value) || json_integer_value(value) < 1 || json_integer_value(value) > WEIGHT_MAX))
        faults_add(&faults, "weight", "must be null or a number from 1 to %d", WEIGHT_MAX);
    if (json_object_size(body) == 0)
        faults_add(&faults, "body", "names nothing to change");
    if (admin_faults(r, body, &faults))
        return;
    text = json_print(body);
    values[1] = text;
    if (text == NULL)
        problem_backend(r, ERR_NOMEM);
    else
        admin_one(r, 200, sql, values, ARRAY_LEN(values), "no such app, or the app of this very key", patched_view);
    free(text);
    json_decref(body);
}

/* ---- keys ---- */

void apps_keys(struct request *r)
{
    const char *values[] = { r->args[0], NULL };

    if (uuid_cursor(r, &values[1]))
        (void)admin_page(r,
                         "select " KEY_DOC " as doc, k.id as cursor from api_keys k join apps p on p.id = k.app_id "
                         "where " APP_IS " and ($2::uuid is null or k.id < $2::uuid) order by k.id desc limit $3::int",
                         values, ARRAY_LEN(values), NULL);
}

struct key_new {
    struct request *request;
    char key[AUTH_KEY_LENGTH + 1], hash[SHA256_HEX], id[UUID_TEXT], prefix[PREFIX_CHARS + 1];
};

static void key_done(struct request *r)
{
    struct key_new *k = r->data;

    sodium_memzero(k->key, sizeof(k->key));
}

static json_t *key_view(struct request *r, json_t *doc)
{
    const struct key_new *k = r->data;

    log_info("key_created", log_str("key", json_text(doc, "id")), log_str("of", json_text(doc, "app")),
             log_str("by", r->app));
    (void)json_set_text(doc, "key", k->key);
    return json_incref(doc);
}

/* ["jobs", "admin"] -> "jobs,admin"; NULL: not that. */
static const char *scopes_arg(struct request *r, const json_t *value)
{
    const char *text = NULL;
    json_t *one;
    size_t i;

    if (value == NULL)
        return "jobs";
    json_array_foreach((json_t *)(uintptr_t)value, i, one)
    {
        if (!json_is_string(one) || i > 2)
            return NULL;
        text =
            arena_printf(r->arena, "%s%s%s", text != NULL ? text : "", text != NULL ? "," : "", json_string_value(one));
    }
    return text != NULL && auth_scopes(text) != 0 ? text : NULL;
}

void apps_key_create(struct request *r)
{
    static const char *const members[] = { "scopes", NULL };
    /* said again after a lost answer it is the same row */
    static const char sql[] =
        "insert into api_keys as k (id, app_id, hash, prefix, scopes) select $2::uuid, p.id, decode($3, 'hex'), $4, "
        "array(select distinct unnest(string_to_array($5, ','))) from apps p where " APP_IS
        " on conflict (id) do update set prefix = excluded.prefix returning " KEY_DOC " as doc";
    json_t *body = admin_body(r, members);
    struct key_new *k = body != NULL ? arena_alloc(r->arena, sizeof(*k)) : NULL;
    struct catalog_faults faults = { 0 };
    const char *scopes;

    if (body == NULL)
        return;
    scopes = scopes_arg(r, json_object_get(body, "scopes"));
    if (scopes == NULL)
        faults_add(&faults, "scopes", "must be a list of jobs, credits and admin");
    if (admin_faults(r, body, &faults))
        return;
    json_decref(body);
    if (k == NULL) {
        problem_backend(r, ERR_NOMEM);
        return;
    }
    r->data = k;
    r->on_over = key_done;
    uuid_v7(k->id);
    auth_key_make(k->key, k->hash);
    snprintf(k->prefix, sizeof(k->prefix), "%.*s", PREFIX_CHARS, k->key);
    {
        const char *values[] = { r->args[0], k->id, k->hash, k->prefix, scopes };

        admin_one(r, 201, sql, values, ARRAY_LEN(values), NO_APP, key_view);
    }
}

static json_t *revoked_view(struct request *r, json_t *doc)
{
    log_info("key_revoked", log_str("key", json_text(doc, "id")), log_str("by", r->app));
    return json_incref(doc);
}

void apps_key_revoke(struct request *r)
{
    const char *values[] = { r->args[0], r->args[1] };

    admin_one(r, 200,
              "update api_keys k set revoked_at = coalesce(k.revoked_at, kiln_now()) from apps p where p.id = k.app_id "
              "and " APP_IS
              " and (k.id::text = lower($2) or k.prefix = $2 and not exists (select 1 from api_keys o where "
              "o.app_id = k.app_id and o.prefix = $2 and o.id <> k.id)) returning " KEY_DOC " as doc",
              values, ARRAY_LEN(values), "no such key of this app", revoked_view);
}

/* ---- accounts ---- */

/* What PATCH may set; a member more is a row here and a line in apps_account_patch's statement. null: the default. */
static const struct {
    const char *name;
    int64_t min, max;
} account_members[] = {
    { "max_running", 1, RUNNING_MAX },
    { "weight", 1, WEIGHT_MAX },
};

static json_t *account_view(struct request *r, json_t *doc)
{
    int64_t balance = 0, held = 0;

    (void)r;
    (void)json_int(doc, "balance_mc", &balance);
    (void)json_int(doc, "held_mc", &held);
    (void)json_object_del(doc, "balance_mc");
    (void)json_object_del(doc, "held_mc");
    (void)json_object_set_new(doc, "balance", json_credits(balance));
    (void)json_object_set_new(doc, "held", json_credits(held));
    (void)json_object_set_new(doc, "available", json_credits(balance - held));
    return json_incref(doc);
}

#define NO_ACCOUNT "no such account in that app; an account is created by its first grant"

void apps_account(struct request *r)
{
    const char *values[] = { r->args[0], r->args[1] };

    admin_one(r, 200,
              "select " ACCOUNT_DOC " as doc from accounts a join apps p on p.id = a.app_id where " APP_IS
              " and a.name = $2",
              values, ARRAY_LEN(values), NO_ACCOUNT, account_view);
}

void apps_account_patch(struct request *r)
{
    static const char sql[] =
        "update accounts a set "
        "max_running = case when $3::jsonb ? 'max_running' then ($3::jsonb ->> 'max_running')::int else a.max_running end, "
        "weight = case when $3::jsonb ? 'weight' then coalesce(($3::jsonb ->> 'weight')::int, 1) else a.weight end "
        "from apps p where p.id = a.app_id and " APP_IS " and a.name = $2 returning " ACCOUNT_DOC " as doc";
    const char *members[ARRAY_LEN(account_members) + 1] = { NULL };
    const char *values[] = { r->args[0], r->args[1], NULL };
    struct catalog_faults faults = { 0 };
    json_t *body, *value;
    char *text;

    for (size_t i = 0; i < ARRAY_LEN(account_members); i++)
        members[i] = account_members[i].name;
    body = admin_body(r, members);
    if (body == NULL)
        return;
    for (size_t i = 0; i < ARRAY_LEN(account_members); i++) {
        value = json_object_get(body, account_members[i].name);
        if (value != NULL && !json_is_null(value) &&
            (!json_is_integer(value) || json_integer_value(value) < account_members[i].min ||
             json_integer_value(value) > account_members[i].max))
            faults_add(&faults, account_members[i].name, "must be null or a number from %lld to %lld",
                       (long long)account_members[i].min, (long long)account_members[i].max);
    }
    if (json_object_size(body) == 0)
        faults_add(&faults, "body", "names nothing to change");
    if (admin_faults(r, body, &faults))
        return;
    text = json_print(body);
    values[2] = text;
    if (text == NULL)
        problem_backend(r, ERR_NOMEM);
    else
        admin_one(r, 200, sql, values, ARRAY_LEN(values), NO_ACCOUNT, account_view);
    free(text);
    json_decref(body);
}
