/* test_client_admin.c - the operators' commands on a real PostgreSQL, by the real program. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/json.h"
#include "common/base/text.h"
#include "tests/integration/client/run.h"
#include "tests/support/support.h"

SUPPORT_SERVICES();

struct desk {
    char *url, env[512];
    struct run run;
};

static void open_desk(struct desk *d, bool is_empty)
{
    *d = (struct desk){ .url = is_empty ? support_database_empty() : support_database() };
    (void)snprintf(d->env, sizeof d->env, "KILN_DATABASE_URL=%s", d->url);
    d->run.env[0] = d->env;
}

static void close_desk(struct desk *d)
{
    run_done(&d->run);
    free(d->url);
}

#define RUN(d, want, ...)                                                                                              \
    do {                                                                                                               \
        run_kiln(&(d)->run, __VA_ARGS__, NULL);                                                                        \
        cr_assert_eq((d)->run.status, want, "%d: %s%s", (d)->run.status, (d)->run.out, (d)->run.err);                  \
    } while (0)
#define SAYS(text, part) cr_expect(run_says(text, part), "\"%s\" is not in: %s", part, text)

static json_t *answer(const struct desk *d) /* new */
{
    json_t *value = json_parse(d->run.out, strcspn(d->run.out, "\n"), NULL);

    cr_assert_not_null(value, "no JSON: %s", d->run.out);
    return value;
}

Test(admin, migrate_makes_the_tables_once)
{
    struct desk d;

    open_desk(&d, true);
    RUN(&d, 2, "audit");
    SAYS(d.run.err, "kiln migrate");
    RUN(&d, 0, "migrate");
    SAYS(d.run.out, "applied 0001_tables.sql");
    RUN(&d, 0, "migrate");
    SAYS(d.run.out, "nothing to apply");
    RUN(&d, 0, "migrate", "--json");
    cr_expect_str_eq(d.run.out, "{\"applied\":[]}\n");
    RUN(&d, 0, "audit");
    cr_expect_str_eq(d.run.out, "books are right: 0 accounts, 0 jobs, 0 ledger rows\n");
    close_desk(&d);
}

Test(admin, an_app_has_one_name_and_a_name_one_app)
{
    struct desk d;

    open_desk(&d, false);
    RUN(&d, 0, "app", "create", "shop");
    SAYS(d.run.out, "app shop, id ");
    RUN(&d, 2, "app", "create", "shop");
    SAYS(d.run.err, "there is an app shop already");
    RUN(&d, 2, "app", "create", "a b");
    SAYS(d.run.err, "an app's name is");
    RUN(&d, 2, "app", "create", "01a1fb4e-3d28-7000-b72f-dfd01ac5eefd");
    RUN(&d, 0, "app", "list");
    SAYS(d.run.out, "shop");
    cr_expect_eq(support_sql_int(d.url, "select count(*) from apps"), 1);
    close_desk(&d);
}

Test(admin, a_weight_is_a_share_of_an_app_or_an_account)
{
    struct desk d;

    open_desk(&d, false);
    RUN(&d, 0, "app", "create", "shop");
    RUN(&d, 0, "grant", "--app", "shop", "user:1", "5", "--reference", "first");
    RUN(&d, 0, "app", "weight", "shop", "5");
    SAYS(d.run.out, "app shop has weight 5");
    RUN(&d, 0, "account", "weight", "--app", "shop", "user:1", "1000");
    SAYS(d.run.out, "account user:1 of shop has weight 1000");
    RUN(&d, 0, "account", "weight", "--app", "shop", "user:1", "2", "--json");
    SAYS(d.run.out, "\"weight\":2");
    cr_expect_eq(
        support_sql_int(d.url, "select p.weight * 10 + a.weight from apps p join accounts a on a.app_id = p.id "), 52);
    RUN(&d, 0, "app", "list");
    SAYS(d.run.out, "WEIGHT");
    RUN(&d, 2, "app", "weight", "shop", "0");
    SAYS(d.run.err, "1 to 1000");
    RUN(&d, 2, "app", "weight", "shop", "1001");
    RUN(&d, 2, "app", "weight", "shop", "two");
    RUN(&d, 2, "app", "weight", "nobody", "2");
    SAYS(d.run.err, "there is no app nobody");
    RUN(&d, 2, "account", "weight", "--app", "shop", "user:2", "2");
    SAYS(d.run.err, "shop has no account user:2");
    RUN(&d, 2, "account", "weight", "user:1", "2");
    SAYS(d.run.err, "--app NAME is missing");
    cr_expect_eq(
        support_sql_int(d.url, "select p.weight * 10 + a.weight from apps p join accounts a on a.app_id = p.id "), 52);
    close_desk(&d);
}

Test(admin, a_key_is_shown_once_and_kept_as_its_hash)
{
    struct desk d;
    json_t *made;
    const char *key;
    char hash[SHA256_HEX], sql[256], prefix[13];

    open_desk(&d, false);
    RUN(&d, 0, "app", "create", "shop");
    RUN(&d, 0, "key", "create", "--app", "shop", "--scopes", "jobs,credits", "--json");
    made = answer(&d);
    key = json_text(made, "key");
    cr_assert_not_null(key);
    cr_assert_eq(strlen(key), (size_t)48);
    cr_expect_eq(strncmp(key, "kiln_", 5), 0);
    sha256_hex(hash, key, strlen(key));
    (void)snprintf(sql, sizeof sql, "select count(*) from api_keys where hash = decode('%s', 'hex')", hash);
    cr_expect_eq(support_sql_int(d.url, sql), 1);
    (void)snprintf(sql, sizeof sql, "select count(*) from api_keys k where k::text like '%%%s%%'", key + 13);
    cr_expect_eq(support_sql_int(d.url, sql), 0, "the key itself is nowhere");
    cr_expect_eq(support_sql_int(d.url, "select count(*) from api_keys where scopes @> '{jobs,credits}' and not "
                                        "'admin' = any(scopes)"),
                 1);
    (void)snprintf(prefix, sizeof prefix, "%.12s", key);
    RUN(&d, 0, "key", "list", "--app", "shop");
    SAYS(d.run.out, prefix);
    cr_expect(!run_says(d.run.out, key));
    RUN(&d, 2, "key", "revoke", key); /* it would stand in the shell's history */
    RUN(&d, 0, "key", "revoke", prefix);
    cr_expect_eq(support_sql_int(d.url, "select count(*) from api_keys where revoked_at is null"), 0);
    RUN(&d, 0, "key", "revoke", prefix);
    SAYS(d.run.out, "revoked before");
    RUN(&d, 2, "key", "revoke", "kiln_nosuch1");
    RUN(&d, 0, "key", "create", "--app", "shop"); /* a person gets it alone on its line */
    cr_expect_eq(strlen(d.run.out), (size_t)49, "%s", d.run.out);
    SAYS(d.run.err, "scopes jobs");
    RUN(&d, 2, "key", "create", "--app", "shop", "--scopes", "jobs,root");
    RUN(&d, 2, "key", "create", "--app", "nobody");
    RUN(&d, 2, "key", "create");
    SAYS(d.run.err, "--app");
    json_decref(made);
    close_desk(&d);
}

Test(admin, two_keys_of_one_prefix_are_told_apart_by_id)
{
    struct desk d;

    open_desk(&d, false);
    RUN(&d, 0, "app", "create", "shop");
    free(support_sql(d.url, "insert into api_keys (id, app_id, hash, prefix) select gen_random_uuid(), a.id, "
                            "sha256(n::text::bytea), 'kiln_twin000' from apps a, generate_series(1, 2) n"));
    RUN(&d, 2, "key", "revoke", "kiln_twin000");
    SAYS(d.run.err, "name one by its id");
    cr_expect_eq(support_sql_int(d.url, "select count(*) from api_keys where revoked_at is null"), 2);
    char *id = support_sql(d.url, "select id from api_keys limit 1");
    RUN(&d, 0, "key", "revoke", id);
    cr_expect_eq(support_sql_int(d.url, "select count(*) from api_keys where revoked_at is null"), 1);
    free(id);
    close_desk(&d);
}

Test(admin, one_reference_grants_once)
{
    struct desk d;

    open_desk(&d, false);
    RUN(&d, 0, "app", "create", "shop");
    RUN(&d, 0, "grant", "--app", "shop", "default", "1000", "--reference", "first");
    SAYS(d.run.out, "granted 1000 credits");
    RUN(&d, 0, "grant", "--app", "shop", "default", "1000", "--reference", "first");
    SAYS(d.run.out, "nothing to do");
    RUN(&d, 2, "grant", "--app", "shop", "default", "999", "--reference", "first");
    SAYS(d.run.err, "another amount");
    RUN(&d, 0, "grant", "--app", "shop", "default", "0.125", "--reference", "second", "--json");
    SAYS(d.run.out, "\"available\":1000.125");
    cr_expect_eq(support_sql_int(d.url, "select balance from accounts"), 1000125);
    static const char *const wrong[] = { "0", "-1", "1.2345", "x", "1e3", "99999999999" };
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
        RUN(&d, 2, "grant", "--app", "shop", "--reference", "w", "--", "default", wrong[i]);
    RUN(&d, 2, "grant", "--app", "shop", "no blanks", "1", "--reference", "w");
    RUN(&d, 2, "grant", "--app", "shop", "default", "1");
    SAYS(d.run.err, "--reference");
    cr_expect_eq(support_sql_int(d.url, "select count(*) from ledger"), 2);
    close_desk(&d);
}

Test(admin, audit_prints_each_difference_and_fails)
{
    struct desk d;

    open_desk(&d, false);
    RUN(&d, 0, "app", "create", "shop");
    RUN(&d, 0, "grant", "--app", "shop", "default", "10", "--reference", "first");
    RUN(&d, 0, "audit");
    cr_expect_str_eq(d.run.out, "books are right: 1 accounts, 0 jobs, 1 ledger rows\n");
    free(support_sql(d.url, "update accounts set balance = balance + 1"));
    RUN(&d, 1, "audit");
    SAYS(d.run.out, "account.balance");
    SAYS(d.run.out, "(shop/default)");
    SAYS(d.run.out, "10001");
    SAYS(d.run.err, "difference");
    RUN(&d, 1, "audit", "--json");
    SAYS(d.run.out, "\"found\":\"10001\"");
    close_desk(&d);
}

Test(admin, a_foreign_name_is_shown_harmless)
{
    struct desk d;

    open_desk(&d, false);
    free(support_sql(d.url, "insert into apps (id, name) values (gen_random_uuid(), E'evil\\x1b[2J\\u202e')"));
    RUN(&d, 0, "app", "list");
    SAYS(d.run.out, "evil\\u001b[2J\\u202e");
    cr_expect(!run_says(d.run.out, "\x1b"));
    RUN(&d, 0, "app", "list", "--json");
    cr_expect(!run_says(d.run.out, "\x1b") && !run_says(d.run.out, "\xe2\x80\xae"), "%s", d.run.out);
    close_desk(&d);
}

Test(admin, configuration_is_checked_and_said)
{
    struct run r = { 0 };

    run_kiln(&r, "migrate", NULL);
    cr_expect_eq(r.status, 78);
    SAYS(r.err, "KILN_DATABASE_URL is not set");
    run_kiln(&r, "credits", NULL);
    cr_expect_eq(r.status, 78);
    SAYS(r.err, "kiln key create");
    r.env[0] = "KILN_DATABASE_URL=postgresql://127.0.0.1:1/none";
    run_kiln(&r, "audit", NULL);
    cr_expect_eq(r.status, 3, "%d %s", r.status, r.err);
    run_kiln(&r, "--check-config", NULL);
    cr_expect_eq(r.status, 0, "%s", r.err);
    r.env[0] = "KILN_URL=ftp://x";
    r.env[1] = "KILN_API_KEY=sk-other";
    r.env[2] = "KILN_WHAT=1";
    run_kiln(&r, "--check-config", NULL);
    cr_expect_eq(r.status, 78);
    SAYS(r.err, "KILN_URL");
    SAYS(r.err, "KILN_API_KEY");
    SAYS(r.err, "KILN_WHAT");
    cr_expect(!run_says(r.err, "sk-other"), "no key in a message");
    r.env[0] = r.env[1] = r.env[2] = NULL;
    run_kiln(&r, "--help", NULL);
    cr_expect_eq(r.status, 0);
    SAYS(r.out, "KILN_API_KEY");
    SAYS(r.out, "key revoke");
    run_kiln(&r, "grant", "--help", NULL);
    cr_expect_eq(r.status, 0);
    SAYS(r.out, "--reference TEXT");
    run_kiln(&r, "--version", NULL);
    cr_expect_str_eq(r.out, "kiln 0.1.0\n");
    run_kiln(&r, NULL);
    cr_expect_eq(r.status, 2);
    run_done(&r);
}
