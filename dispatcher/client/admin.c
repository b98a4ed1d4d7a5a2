/* admin.c - kiln migrate, app, account, key and grant: an operator's hand on the database itself. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sodium.h>
#include "common/base/json.h"
#include "common/core/ledger.h"
#include "dispatcher/client/client.h"
#include "dispatcher/client/rows.h"
#include "dispatcher/client/show.h"

enum {
    KEY_BYTES = 32,
    KEY_TEXT = 5 + 43 + 1,
    PREFIX_CHARS = 12,
    NAME_MOST = 64,
    REFERENCE_MOST = 200,
    WEIGHT_MOST = 1000
};
#define GRANT_MOST_MC INT64_C(1000000000000) /* 1e9 credits, as the API has it */

static void print_list(json_t *rows) /* consumed */
{
    json_t *list = json_pack("{s:s, s:o, s:b}", "object", "list", "data", rows, "has_more", 0);

    show_json(list);
    json_decref(list);
}

/* ---- migrate */

struct migrated {
    json_t *applied;
    bool is_json;
};

static void migrate_on_line(void *ctx, const char *line)
{
    struct migrated *m = ctx;

    if (!m->is_json) {
        show_text(stdout, line);
        printf("\n");
        (void)fflush(stdout);
    }
    (void)json_array_append_new(m->applied, json_string(line));
}

int admin_migrate(struct client *c)
{
    char message[512] = "";
    struct migrated m = { json_array(), c->is_json };
    enum err err = db_migrate_embedded(c->db_url, migrate_on_line, &m, message, sizeof message);
    json_t *out;

    if (err != ERR_OK) {
        json_decref(m.applied);
        return rows_failed(err, message);
    }
    if (!c->is_json)
        printf(json_array_size(m.applied) > 0 ? "the schema is up to date\n"
                                              : "the schema was up to date: nothing to apply\n");
    out = json_pack("{s:o}", "applied", m.applied);
    if (c->is_json)
        show_json(out);
    json_decref(out);
    return CLIENT_DONE;
}

/* ---- apps */

static bool app_name_valid(const char *name)
{
    size_t len = strlen(name);

    if (len >= 1 && len <= NAME_MOST && !uuid_valid(name) &&
        strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:@-") == len)
        return true;
    show_error("%s: an app's name is 1 to %d of A-Z a-z 0-9 . _ : @ - and no UUID", name, NAME_MOST);
    return false;
}

int admin_app_create(struct client *c)
{
    static const char *const columns[] = { "id", "name", "created_at", "is_new#", NULL };
    char id[UUID_TEXT];
    const char *values[] = { id, c->words[0] };
    json_t *rows = NULL, *app;
    int64_t is_new = 0;
    int status;

    if (!app_name_valid(c->words[0]))
        return CLIENT_REFUSED;
    uuid_v7(id);
    status = rows_read(c,
                       "with made as (insert into apps (id, name) values ($1, $2) on conflict (name) do nothing "
                       "returning id, name, created_at) "
                       "select id, name, kiln_time(created_at) as created_at, 1 as is_new from made "
                       "union all select id, name, kiln_time(created_at), 0 from apps where name = $2",
                       2, values, columns, &rows);
    if (status != CLIENT_DONE)
        return status;
    app = json_array_get(rows, 0);
    (void)json_int(app, "is_new", &is_new);
    if (!is_new) {
        show_error("there is an app %s already, id %s", c->words[0], app ? json_text(app, "id") : "?");
        status = CLIENT_REFUSED;
    } else if (c->is_json) {
        (void)json_object_del(app, "is_new");
        show_json(app);
    } else {
        printf("app %s, id %s\n", c->words[0], id);
        if (show_is_terminal(stdout))
            show_note("next: kiln key create --app %s; kiln grant --app %s default 1000 --reference first", c->words[0],
                      c->words[0]);
    }
    json_decref(rows);
    return status;
}

int admin_app_list(struct client *c)
{
    static const char *const columns[] = { "id", "name", "created_at", "keys#", "accounts#", "weight#", NULL };
    static const char *const numbers[] = { "keys", "accounts", "weight" };
    struct table t = { .heads = { "APP", "ID", "KEYS", "ACCOUNTS", "WEIGHT", "CREATED" },
                       .right = 1u << 2 | 1u << 3 | 1u << 4 };
    json_t *rows = NULL, *one;
    char number[32];
    int64_t n;
    size_t i;
    int status = rows_read(c,
                           "select p.id, p.name, kiln_time(p.created_at) as created_at, "
                           "(select count(*) from api_keys k where k.app_id = p.id and k.revoked_at is null) as keys, "
                           "(select count(*) from accounts a where a.app_id = p.id) as accounts, p.weight "
                           "from apps p order by p.name",
                           0, NULL, columns, &rows);

    if (status != CLIENT_DONE)
        return status;
    if (c->is_json) {
        print_list(rows);
        return status;
    }
    json_array_foreach(rows, i, one)
    {
        table_add(&t, json_text(one, "name"));
        table_add(&t, json_text(one, "id"));
        for (size_t k = 0; k < ARRAY_LEN(numbers); k++) {
            n = 0;
            (void)json_int(one, numbers[k], &n);
            (void)snprintf(number, sizeof number, "%" PRId64, n);
            table_add(&t, number);
        }
        table_add(&t, show_time(number, sizeof number, json_text(one, "created_at")));
    }
    if (i == 0)
        show_note("no apps; `kiln app create NAME` makes one");
    table_print(&t, stdout);
    json_decref(rows);
    return status;
}

/* --app by name or id. CLIENT_DONE: both are filled. */
static int app_find(struct client *c, char id[UUID_TEXT], char name[NAME_MOST + 1])
{
    static const char *const columns[] = { "id", "name", NULL };
    const char *values[] = { c->opts[OPT_APP] };
    json_t *rows = NULL;
    int status;

    if (!c->opts[OPT_APP]) {
        show_error("%s: --app NAME is missing; `kiln app list` shows the apps", c->command->name);
        return CLIENT_REFUSED;
    }
    status =
        rows_read(c, "select id, name from apps where name = $1 or id::text = lower($1)", 1, values, columns, &rows);
    if (status != CLIENT_DONE)
        return status;
    if (json_array_size(rows) != 1) {
        show_error("there is no app %s; `kiln app list` shows them", c->opts[OPT_APP]);
        status = CLIENT_REFUSED;
    } else {
        (void)snprintf(id, UUID_TEXT, "%s", json_text(json_array_get(rows, 0), "id"));
        (void)snprintf(name, NAME_MOST + 1, "%s", json_text(json_array_get(rows, 0), "name"));
    }
    json_decref(rows);
    return status;
}

/* ---- weights */

static bool weight_valid(const char *text)
{
    int64_t n;

    if (parse_i64(text, 1, WEIGHT_MOST, &n) == ERR_OK)
        return true;
    show_error("%s: a weight is a whole number, 1 to %d", text, WEIGHT_MOST);
    return false;
}

int admin_app_weight(struct client *c)
{
    static const char *const columns[] = { "id", "name", "weight#", NULL };
    const char *values[] = { c->words[0], c->words[1] };
    json_t *rows = NULL;
    int status = weight_valid(c->words[1]) ? CLIENT_DONE : CLIENT_REFUSED;

    if (status == CLIENT_DONE)
        status = rows_read(c,
                           "update apps set weight = $2::int where name = $1 or id::text = lower($1) "
                           "returning id, name, weight",
                           ARRAY_LEN(values), values, columns, &rows);
    if (status != CLIENT_DONE)
        return status;
    if (json_array_size(rows) == 0) {
        show_error("there is no app %s; `kiln app list` shows them", c->words[0]);
        status = CLIENT_REFUSED;
    } else if (c->is_json) {
        show_json(json_array_get(rows, 0));
    } else {
        printf("app %s has weight %s\n", c->words[0], c->words[1]);
    }
    json_decref(rows);
    return status;
}

int admin_account_weight(struct client *c)
{
    static const char *const columns[] = { "app", "account", "weight#", NULL };
    char id[UUID_TEXT], name[NAME_MOST + 1];
    const char *values[] = { id, c->words[0], c->words[1], name };
    json_t *rows = NULL;
    int status = weight_valid(c->words[1]) ? app_find(c, id, name) : CLIENT_REFUSED;

    if (status == CLIENT_DONE)
        status = rows_read(c,
                           "update accounts set weight = $3::int where app_id = $1::uuid and name = $2 "
                           "returning $4::text as app, name as account, weight",
                           ARRAY_LEN(values), values, columns, &rows);
    if (status != CLIENT_DONE)
        return status;
    if (json_array_size(rows) == 0) { /* its first grant makes an account */
        show_error("%s has no account %s; its first grant makes it", name, c->words[0]);
        status = CLIENT_REFUSED;
    } else if (c->is_json) {
        show_json(json_array_get(rows, 0));
    } else {
        printf("account %s of %s has weight %s\n", c->words[0], name, c->words[1]);
    }
    json_decref(rows);
    return status;
}

/* ---- keys */

static bool scopes_valid(const char *scopes)
{
    static const char *const known[] = { "jobs", "credits", "admin" };

    for (const char *p = scopes;; p++) {
        size_t len = strcspn(p, ","), i = 0;
        while (i < ARRAY_LEN(known) && !(strlen(known[i]) == len && memcmp(known[i], p, len) == 0))
            i++;
        if (i == ARRAY_LEN(known)) {
            show_error("--scopes: must be of jobs, credits and admin, separated by commas, got \"%s\"", scopes);
            return false;
        }
        p += len;
        if (!*p)
            return true;
    }
}

static void key_make(char key[KEY_TEXT], char hash[SHA256_HEX])
{
    unsigned char secret[KEY_BYTES];

    random_bytes(secret, sizeof secret);
    memcpy(key, "kiln_", 5);
    (void)base64url_encode(key + 5, KEY_TEXT - 5, secret, sizeof secret); /* 43 characters fit */
    sha256_hex(hash, key, strlen(key));
    sodium_memzero(secret, sizeof secret);
}

int admin_key_create(struct client *c)
{
    static const char *const columns[] = { "id", "prefix", "scopes", "created_at", NULL };
    char key[KEY_TEXT], hash[SHA256_HEX], prefix[PREFIX_CHARS + 1], id[UUID_TEXT], app[UUID_TEXT], name[NAME_MOST + 1];
    const char *scopes = c->opts[OPT_SCOPES] ? c->opts[OPT_SCOPES] : "jobs";
    const char *values[] = { id, app, hash, prefix, scopes };
    json_t *rows = NULL, *row;
    int status = scopes_valid(scopes) ? app_find(c, app, name) : CLIENT_REFUSED;

    if (status != CLIENT_DONE)
        return status;
    uuid_v7(id);
    key_make(key, hash);
    (void)snprintf(prefix, sizeof prefix, "%.*s", PREFIX_CHARS, key);
    status = rows_read(c,
                       "insert into api_keys (id, app_id, hash, prefix, scopes) values ($1, $2, decode($3, 'hex'), $4, "
                       "array(select distinct unnest(string_to_array($5, ',')))) returning id, prefix, "
                       "array_to_string(scopes, ',') as scopes, kiln_time(created_at) as created_at",
                       ARRAY_LEN(values), values, columns, &rows);
    if (status == CLIENT_DONE && c->is_json) {
        row = json_array_get(rows, 0);
        (void)json_set_text(row, "key", key);
        (void)json_set_text(row, "app", name);
        show_json(row);
    } else if (status == CLIENT_DONE) {
        printf("%s\n", key);
        show_note("for app %s, scopes %s, id %s; it is shown this once: keep it, as KILN_API_KEY say", name, scopes,
                  id);
    }
    json_decref(rows);
    sodium_memzero(key, sizeof key);
    return status;
}

int admin_key_list(struct client *c)
{
    static const char *const columns[] = { "id", "app", "prefix", "scopes", "created_at", "revoked_at", NULL };
    struct table t = { .heads = { "PREFIX", "APP", "SCOPES", "CREATED", "REVOKED", "ID" } };
    char app[UUID_TEXT] = "", name[NAME_MOST + 1], when[32];
    const char *values[] = { NULL };
    json_t *rows = NULL, *one;
    size_t i;
    int status = c->opts[OPT_APP] ? app_find(c, app, name) : CLIENT_DONE;

    if (status == CLIENT_DONE) {
        values[0] = app[0] ? app : NULL;
        status = rows_read(c,
                           "select k.id, p.name as app, k.prefix, array_to_string(k.scopes, ',') as scopes, "
                           "kiln_time(k.created_at) as created_at, kiln_time(k.revoked_at) as revoked_at "
                           "from api_keys k join apps p on p.id = k.app_id where $1::uuid is null or p.id = $1::uuid "
                           "order by p.name, k.created_at",
                           1, values, columns, &rows);
    }
    if (status != CLIENT_DONE)
        return status;
    if (c->is_json) {
        print_list(rows);
        return status;
    }
    json_array_foreach(rows, i, one)
    {
        table_add(&t, json_text(one, "prefix"));
        table_add(&t, json_text(one, "app"));
        table_add(&t, json_text(one, "scopes"));
        table_add(&t, show_time(when, sizeof when, json_text(one, "created_at")));
        table_add(&t, show_time(when, sizeof when, json_text(one, "revoked_at")));
        table_add(&t, json_text(one, "id"));
    }
    if (i == 0)
        show_note("no keys; `kiln key create --app NAME` makes one");
    table_print(&t, stdout);
    json_decref(rows);
    return status;
}

/* Revokes the one key that PREFIX or ID means; with several of one prefix it does nothing and names them. */
int admin_key_revoke(struct client *c)
{
    static const char *const columns[] = { "id", "app", "prefix", "revoked_at", "was_revoked#", "matches#", NULL };
    const char *values[] = { c->words[0] };
    json_t *rows = NULL, *one;
    int64_t was_revoked = 0;
    size_t i, count;
    int status;

    if (strlen(c->words[0]) > PREFIX_CHARS && strncmp(c->words[0], "kiln_", 5) == 0) {
        show_error("that is a whole key; its first %d characters are enough, and safe in a shell's history",
                   PREFIX_CHARS);
        return CLIENT_REFUSED;
    }
    status = rows_read(c,
                       "with hit as (select id, app_id, prefix, revoked_at from api_keys "
                       "where prefix = $1 or id::text = lower($1)), "
                       "done as (update api_keys k set revoked_at = kiln_now() from hit where k.id = hit.id "
                       "and k.revoked_at is null and (select count(*) from hit) = 1 returning k.id, k.revoked_at) "
                       "select hit.id, p.name as app, hit.prefix, "
                       "kiln_time(coalesce(hit.revoked_at, done.revoked_at)) as revoked_at, "
                       "(hit.revoked_at is not null)::int as was_revoked, (select count(*) from hit) as matches "
                       "from hit join apps p on p.id = hit.app_id left join done on done.id = hit.id order by hit.id",
                       1, values, columns, &rows);
    if (status != CLIENT_DONE)
        return status;
    count = json_array_size(rows);
    one = json_array_get(rows, 0);
    if (count == 0) {
        show_error("there is no key %s; `kiln key list` shows them", c->words[0]);
        status = CLIENT_REFUSED;
    } else if (count > 1) {
        show_error("%zu keys begin like that; name one by its id:", count);
        json_array_foreach(rows, i, one)
        {
            show_note("  %s of app %s", json_text(one, "id"), json_text(one, "app"));
        }
        status = CLIENT_REFUSED;
    } else if (c->is_json) {
        (void)json_object_del(one, "was_revoked");
        (void)json_object_del(one, "matches");
        show_json(one);
    } else {
        (void)json_int(one, "was_revoked", &was_revoked);
        printf("key %s of app ", json_text(one, "prefix"));
        show_text(stdout, json_text(one, "app"));
        printf(was_revoked ? " was revoked before\n" : " is revoked\n");
    }
    json_decref(rows);
    return status;
}

/* ---- grants */

static bool grant_valid(const struct client *c, int64_t *amount_mc)
{
    const char *account = c->words[0], *reference = c->opts[OPT_REFERENCE];
    size_t len = strlen(account);
    bool ok = false;

    *amount_mc = credits_parse_mc(c->words[1], &ok);
    if (len < 1 || len > 128 ||
        strspn(account, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:@-") != len) {
        show_error("%s: an account is 1 to 128 of A-Z a-z 0-9 . _ : @ -", account);
        return false;
    }
    if (!ok || *amount_mc <= 0 || *amount_mc > GRANT_MOST_MC) {
        show_error("%s: credits are a number above 0, at most 1e9, with at most three decimals", c->words[1]);
        return false;
    }
    if (!reference || !*reference || strlen(reference) > REFERENCE_MOST || !utf8_valid(reference, strlen(reference))) {
        show_error("--reference: a grant needs one, 1 to %d bytes that name this payment; one reference grants once",
                   REFERENCE_MOST);
        return false;
    }
    return true;
}

static void grant_show(const struct client *c, const char *app, const struct ledger_granted *granted)
{
    char balance[32], held[32], available[32];
    json_t *out;

    if (c->is_json) {
        out = json_pack("{s:s, s:s, s:o, s:o, s:o, s:b}", "app", app, "account", c->words[0], "balance",
                        json_credits(granted->balance_mc), "held", json_credits(granted->held_mc), "available",
                        json_credits(granted->balance_mc - granted->held_mc), "replayed",
                        granted->verdict == GRANT_REPLAYED);
        show_json(out);
        json_decref(out);
        return;
    }
    credits_format(balance, sizeof balance, granted->balance_mc);
    credits_format(held, sizeof held, granted->held_mc);
    credits_format(available, sizeof available, granted->balance_mc - granted->held_mc);
    if (granted->verdict == GRANT_REPLAYED)
        printf("nothing to do: this reference has granted %s credits before; ", c->words[1]);
    else
        printf("granted %s credits; ", c->words[1]);
    printf("%s of %s has %s available (balance %s, held %s)\n", c->words[0], app, available, balance, held);
}

int admin_grant(struct client *c)
{
    char id[UUID_TEXT], name[NAME_MOST + 1], message[512] = "";
    struct ledger_granted granted = { .verdict = GRANT_MISMATCH };
    int64_t amount_mc = 0;
    enum err err;
    int status = grant_valid(c, &amount_mc) ? app_find(c, id, name) : CLIENT_REFUSED;

    if (status != CLIENT_DONE)
        return status;
    err = ledger_grant_sync(c->db_url, id, c->words[0], amount_mc, c->opts[OPT_REFERENCE], &granted, message,
                            sizeof message);
    if (err != ERR_OK)
        return rows_failed(err, message);
    if (granted.verdict == GRANT_MISMATCH) {
        show_error("--reference %s: has granted another amount, or to another account; nothing was changed",
                   c->opts[OPT_REFERENCE]);
        return CLIENT_REFUSED;
    }
    grant_show(c, name, &granted);
    return CLIENT_DONE;
}
