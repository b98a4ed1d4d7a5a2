/* auth.c - Bearer keys against api_keys, with a small cache that forgets quickly. */
#include "dispatcher/auth.h"
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "common/base/clock.h"
#include "dispatcher/problem.h"

enum { AUTH_SLOTS = 1024 };

struct auth_entry {
    char hash[SHA256_HEX]; /* "" empty */
    char app[UUID_TEXT];
    unsigned scopes;
    int64_t until_ms;
};

struct auth_lookup { /* one row under way; requests with the same key wait on it */
    struct auth *auth;
    struct auth_lookup *next;
    char hash[SHA256_HEX];
    struct request *waiting;
};

struct auth {
    struct db *db;
    struct db_gather *gather;
    struct auth_lookup *lookups;
    struct auth_entry entries[AUTH_SLOTS]; /* by the first bits of the hash; a clash replaces */
};

static const struct db_call auth_call = {
    .name = "auth",
    .sql = "select u.ord::int as ord, k.app_id as app, array_to_string(k.scopes, ',') as scopes "
           "from unnest($1::text[]) with ordinality u(hash, ord) "
           "left join api_keys k on k.hash = decode(u.hash, 'hex') and k.revoked_at is null "
           "and not exists (select 1 from apps p where p.id = k.app_id and p.disabled_at is not null) order by u.ord",
    .columns = 1,
    .patience_ms = 3000,
};

struct auth *auth_new(struct db *read)
{
    struct auth *a = calloc(1, sizeof(*a));

    if (a == NULL)
        return NULL;
    a->db = read;
    a->gather = db_gather_new(read, &auth_call, NULL, 0);
    if (a->gather == NULL) {
        free(a);
        return NULL;
    }
    return a;
}

void auth_free(struct auth *a)
{
    if (a == NULL)
        return;
    db_gather_free(a->gather);
    for (struct auth_lookup *l = a->lookups, *next; l != NULL; l = next) {
        next = l->next;
        free(l);
    }
    free(a);
}

unsigned auth_scopes(const char *text)
{
    static const struct {
        const char *name;
        unsigned bit;
    } names[] = { { "jobs", SCOPE_JOBS }, { "credits", SCOPE_CREDITS }, { "admin", SCOPE_ADMIN } };
    unsigned scopes = 0, bit;

    while (*text != '\0') {
        size_t len = strcspn(text, ",");

        bit = 0;
        for (size_t i = 0; i < ARRAY_LEN(names); i++) {
            if (strlen(names[i].name) == len && strncmp(names[i].name, text, len) == 0)
                bit = names[i].bit;
        }
        if (bit == 0)
            return 0;
        scopes |= bit;
        text += len + (text[len] == ',');
    }
    return scopes;
}

void auth_key_make(char key[AUTH_KEY_LENGTH + 1], char hash[SHA256_HEX])
{
    unsigned char secret[32];

    random_bytes(secret, sizeof(secret));
    memcpy(key, "kiln_", 5);
    (void)base64url_encode(key + 5, AUTH_KEY_LENGTH + 1 - 5, secret, sizeof(secret)); /* 43 characters fit */
    sha256_hex(hash, key, AUTH_KEY_LENGTH);
    sodium_memzero(secret, sizeof(secret));
}

/* The key of "Authorization: Bearer KEY", or NULL. */
static const char *bearer(const struct request *r)
{
    const char *h = request_header(r, "Authorization");

    if (h == NULL || strncasecmp(h, "Bearer ", 7) != 0)
        return NULL;
    h += 7;
    h += strspn(h, " ");
    return strlen(h) == AUTH_KEY_LENGTH && strncmp(h, "kiln_", 5) == 0 ? h : NULL;
}

static struct auth_entry *slot_of(struct auth *a, const char *hash)
{
    unsigned char b[2] = { 0 };
    char digits[5] = { hash[0], hash[1], hash[2], hash[3], '\0' };

    (void)hex_decode(b, 2, digits); /* our own hex */
    return &a->entries[((unsigned)b[0] << 8 | b[1]) % AUTH_SLOTS];
}

static void lookup_on_row(void *ctx, enum err err, const struct db_result *result, int row)
{
    struct auth_lookup *l = ctx, **link;
    struct auth *a = l->auth;
    struct auth_entry entry = { .until_ms = clock_mono_ms() + AUTH_TTL_MS };
    struct request *next;

    for (link = &a->lookups; *link != l; link = &(*link)->next)
        ;
    *link = l->next;
    if (err == ERR_OK && !db_is_null(result, row, "app")) {
        memcpy(entry.hash, l->hash, sizeof(entry.hash));
        (void)uuid_lower(entry.app, db_col(result, row, "app"));
        entry.scopes = auth_scopes(db_col(result, row, "scopes"));
        *slot_of(a, l->hash) = entry;
    }
    for (struct request *r = l->waiting; r != NULL; r = next) {
        next = r->auth_next;
        if (err != ERR_OK) {
            problem_reply(r, ERR_UNAVAILABLE, "keys cannot be checked at the moment");
            continue;
        }
        memcpy(r->app, entry.app, sizeof(r->app));
        r->scopes = entry.scopes;
        r->auth_done(r);
    }
    free(l);
}

static void lookup(struct auth *a, struct request *r, const char *hash)
{
    struct auth_lookup *l;
    struct db_value value = db_text(hash);

    if (!db_is_up(a->db)) {
        problem_reply(r, ERR_UNAVAILABLE, "keys cannot be checked at the moment");
        return;
    }
    for (l = a->lookups; l != NULL && strcmp(l->hash, hash) != 0; l = l->next)
        ;
    if (l == NULL) {
        l = calloc(1, sizeof(*l));
        if (l == NULL || db_gather_add(a->gather, &value, lookup_on_row, l) != ERR_OK) {
            free(l);
            problem_reply(r, ERR_UNAVAILABLE, NULL);
            return;
        }
        l->auth = a;
        memcpy(l->hash, hash, SHA256_HEX);
        l->next = a->lookups;
        a->lookups = l;
    }
    r->auth_next = l->waiting;
    l->waiting = r;
}

void auth_check(struct auth *a, struct request *r, void (*done)(struct request *r))
{
    const char *key = bearer(r);
    const struct auth_entry *entry;
    char hash[SHA256_HEX];

    if (key == NULL) {
        done(r);
        return;
    }
    sha256_hex(hash, key, AUTH_KEY_LENGTH);
    entry = slot_of(a, hash);
    if (strcmp(entry->hash, hash) == 0 && clock_mono_ms() < entry->until_ms) {
        memcpy(r->app, entry->app, sizeof(r->app));
        r->scopes = entry->scopes;
        done(r);
        return;
    }
    r->auth_done = done;
    lookup(a, r, hash);
}
