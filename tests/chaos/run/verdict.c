/* verdict.c - what the customers were told, laid beside PostgreSQL; kiln audit; the oracle; the programs' logs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/chaos/run/run.h"

enum { SLACK_MS = 15000, TOLD_MAX = 20 };

/* Invariant 5: with everything back, every job ends at the latest 65 s after its deadline. */
void verdict_wait(void)
{
    static const char open_jobs[] = "select count(*) from jobs where state not in ('succeeded', 'failed', 'canceled')";
    static const char bound[] =
        "select ceil(1000 * extract(epoch from coalesce(max(deadline_at), kiln_now()) - kiln_now()) "
        "+ 65000)::bigint from jobs where state not in ('succeeded', 'failed', 'canceled')";
    char *text = sql_text(bound, NULL);
    int64_t began = now_ms(), until = began + (text ? strtoll(text, NULL, 10) : 65000) + SLACK_MS, left = -1;

    free(text);
    while (left != 0 && now_ms() < until) {
        text = sql_text(open_jobs, NULL);
        left = text ? strtoll(text, NULL, 10) : -1;
        free(text);
        pause_ms(300);
    }
    if (left != 0)
        broke("%lld jobs are open past their bound", (long long)left);
    say("every job has ended, %.1f s after the last fault", (double)(now_ms() - began) / 1000);
}

/* $1: what load_notes gives. One text column, a row a finding. */
static const struct {
    const char *name, *sql;
} checks[] = {
#define TOLD                                                                                                           \
    "with told as (select t->>'key' as key, (t->>'id')::uuid as id, t->>'state' as state, "                            \
    "(t->>'charged_mc')::bigint as charged, 'chaos' || (t->>'app') as app, t->>'account' as account "                  \
    "from jsonb_array_elements($1::jsonb->'jobs') t), "                                                                \
    "mine as (select j.*, a.name as app from jobs j join apps a on a.id = j.app_id where a.name like 'chaos_') "
    { "accepted and gone",
      TOLD "select 'job ' || t.id || ' of key ' || t.key from told t left join mine j on j.id = t.id "
           "and j.app = t.app and j.account = t.account where j.id is null" },
    { "a job of no key", TOLD "select 'job ' || j.id || ' ' || j.state from mine j left join told t on t.id = j.id "
                              "where t.id is null" },
    { "a key with two jobs", TOLD "select 'key ' || key || ': ' || count(*) || ' jobs' from told group by app, key "
                                  "having count(distinct id) > 1" },
    { "two keys with one job", TOLD "select 'job ' || id from told group by id having count(*) > 1" },
    { "its key",
      TOLD "select 'job ' || t.id || ' of key ' || t.key || ', in the table ' || coalesce(i.job_id::text, 'none') "
           "from told t left join (idempotency i join apps a on a.id = i.app_id) on a.name = t.app "
           "and i.key = t.key where i.job_id is distinct from t.id" },
    { "another end",
      TOLD "select 'job ' || t.id || ' was ' || t.state || ' for ' || t.charged || ' mc and is ' || j.state "
           "|| ' for ' || coalesce(j.captured_mc, 0) from told t join mine j on j.id = t.id "
           "where t.state <> '' and (t.state <> j.state or t.charged <> coalesce(j.captured_mc, 0))" },
    { "refused and there", "select 'key ' || (r->>'key') || ' has job ' || i.job_id "
                           "from jsonb_array_elements($1::jsonb->'refused') r "
                           "join apps a on a.name = 'chaos' || (r->>'app') "
                           "join idempotency i on i.app_id = a.id and i.key = r->>'key'" },
    { "grants",
      "with told as (select 'chaos' || (g->>'app') as app, g->>'account' as account, "
      "sum((g->>'mc')::bigint) as mc from jsonb_array_elements($1::jsonb->'grants') g group by 1, 2), "
      "has as (select p.name as app, a.name as account, a.balance, a.held, "
      "(select coalesce(sum(amount), 0) from ledger l where l.account_id = a.id and l.kind = 'grant') as granted, "
      "(select coalesce(sum(captured_mc), 0) from jobs j where j.account_id = a.id) as paid "
      "from accounts a join apps p on p.id = a.app_id where p.name like 'chaos_') "
      "select 'account ' || account || ' of ' || app || ': told ' || coalesce(t.mc, 0) || ', granted ' || "
      "h.granted || ', paid ' || h.paid || ', balance ' || h.balance || ', held ' || h.held "
      "from has h full join told t using (app, account) where t.mc is distinct from h.granted "
      "or h.balance is distinct from h.granted - h.paid or h.held <> 0" },
};

void verdict_books(void)
{
    const char *const audit[] = { "kiln-audit", NULL };
    json_t *notes = load_notes();
    char *text = json_dumps(notes, 0), program[PATH_SIZE + 32], database[PATH_SIZE + 32];
    const char *const argv[] = { "/usr/bin/env", database, program, "audit", NULL };
    PGconn *pg = sql_open();

    (void)audit;
    for (size_t i = 0; pg && i < COUNT(checks); i++) {
        const char *values[] = { text };
        PGresult *r = PQexecParams(pg, checks[i].sql, 1, NULL, values, NULL, NULL, 0);

        if (PQresultStatus(r) != PGRES_TUPLES_OK)
            broke("%s: %s", checks[i].name, PQresultErrorMessage(r));
        for (int row = 0; row < PQntuples(r) && row < TOLD_MAX; row++)
            broke("%s: %s", checks[i].name, PQgetvalue(r, row, 0));
        PQclear(r);
    }
    if (!pg)
        broke("PostgreSQL cannot be read");
    PQfinish(pg);
    free(text);
    json_decref(notes);
    (void)snprintf(program, sizeof(program), "%s/dispatcher/client/kiln", stage.build);
    (void)snprintf(database, sizeof(database), "KILN_DATABASE_URL=%s", stage.db);
    (void)run_program(argv, true);
}

void verdict_oracle(void)
{
    char program[PATH_SIZE + 32], redis[160];
    const char *const argv[] = { program,       "--database", stage.db,      "--redis",      redis, "--storage",
                                 stage.storage, "--sandbox",  stage.sandbox, "--patience-s", "60",  NULL };

    (void)snprintf(program, sizeof(program), "%s/tests/chaos/kiln-oracle", stage.build);
    (void)snprintf(redis, sizeof(redis), "unix:%s?db=0", stage.redis_socket);
    (void)run_program(argv, true);
}

void verdict_logs(void)
{
    char command[PATH_SIZE + 128];
    const char *const argv[] = { "/bin/sh", "-c", command, NULL };

    (void)snprintf(command, sizeof(command),
                   "! grep -lE 'AddressSanitizer|LeakSanitizer|runtime error:|Assertion' '%s'/log/*.log", stage.dir);
    (void)run_program(argv, true);
}
