/* test_oracle.c - every kind of violation is planted by hand after a clean run, and the oracle has to see it. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/text.h"
#include "tests/chaos/judge.h"

SUPPORT_SERVICES();

/* Constraints and triggers refuse most of what is planted here, so they go; `restore` puts every row back. */
static const char open_the_gates[] =
    "do $$ declare c record; begin "
    "for c in select conrelid::regclass::text as t, conname from pg_constraint where contype in ('c', 'f') "
    "and connamespace = 'public'::regnamespace loop execute format('alter table %s drop constraint %I', c.t, c.conname); "
    "end loop; "
    "alter table ledger disable trigger all; "
    "create schema saved; "
    "create table saved.jobs as table jobs; create table saved.attempts as table attempts; "
    "create table saved.artifacts as table artifacts; create table saved.ledger as table ledger; "
    "create table saved.accounts as table accounts; end $$";
static const char restore[] =
    "do $$ declare t text; begin foreach t in array array['jobs', 'attempts', 'artifacts', 'ledger', 'accounts'] loop "
    "execute format('delete from %I', t); execute format('insert into %I overriding system value select * from "
    "saved.%I', t, t); end loop; end $$";

#define OPENAI   "(select id from saved.jobs where provider = 'openai')"
#define LEONARDO "(select id from saved.jobs where provider = 'leonardo' and state = 'succeeded')"

struct plant {
    const char *check; /* the name that has to stand in the report */
    const char *sql;
};

static const struct plant plants[] = {
    { "audit", "update accounts set balance = balance + 1" },
    { "ended", "update jobs set state = 'queued' where id = " OPENAI },
    { "hold", "delete from ledger where kind = 'capture' and job_id = " OPENAI },
    { "hold", "delete from ledger where kind = 'hold' and job_id = " OPENAI },
    { "hold", "delete from ledger where kind = 'release'" },
    { "hold",
      "insert into ledger (account_id, job_id, kind, amount, balance_after, held_after) select account_id, job_id, "
      "'release', amount, 0, 0 from ledger where kind = 'capture' and job_id = " OPENAI },
    { "captured", "update jobs set state = 'failed' where id = " OPENAI },
    { "holder", "update jobs set holder = gen_random_uuid() where id = " OPENAI },
    { "open_attempt", "update attempts set state = 'open' where job_id = " OPENAI },
    { "asked", "delete from attempts where job_id = " OPENAI },
    { "paid", "update attempts set class = 'refused' where job_id = " OPENAI },
    { "paid", "update attempts set class = 'not_sent' where job_id = " LEONARDO },
    { "paid", "delete from jobs where id = " OPENAI },
    { "unpaid", "update jobs set params = replace(params::text, '[[job:o1]]', '[[job:other]]')::jsonb" },
    { "again",
      "insert into attempts (job_id, no, fence, provider, opened_at) select job_id, 2, 2, provider, opened_at from "
      "attempts where job_id = " LEONARDO "; update attempts set class = 'unknown' where no = 1" },
    { "again",
      "insert into attempts (job_id, no, fence, provider, opened_at) select job_id, 2, 2, provider, opened_at from "
      "attempts where job_id = " OPENAI },
    { "unknowns", "insert into attempts (job_id, no, fence, provider, opened_at, class) select job_id, n, n, provider, "
                  "opened_at, 'unknown' from attempts, generate_series(2, 3) n where job_id = " OPENAI
                  "; update jobs set attempt = 4 where id = " OPENAI },
    { "unknowns", "update attempts set class = 'unknown' where job_id = " OPENAI
                  "; update jobs set attempt = 2, on_unknown = 'fail' where id = " OPENAI },
    { "stale", "update attempts set closed_fence = 0 where job_id = " OPENAI },
    { "stale", "update artifacts set fence = 0 where job_id = " OPENAI },
    { "attempt_rows", "update jobs set attempt = 2 where id = " OPENAI },
    { "artifact_file", "update artifacts set bytes = bytes + 1 where job_id = " OPENAI },
    { "artifact_file", "update artifacts set sha256 = repeat('0', 64) where job_id = " OPENAI },
    { "artifact_file", "update artifacts set object = object || '9' where job_id = " OPENAI },
    { "artifact_job", "update artifacts set job_id = gen_random_uuid() where job_id = " OPENAI },
    { "artifact_job", "update jobs set state = 'canceled' where id = " OPENAI },
    { "delivered", "delete from artifacts where job_id = " OPENAI },
};

/* %s: the id of a finished job; the folder is the house's. The second command undoes the first. */
struct shell_plant {
    const char *check, *plant, *undo;
};
#define REDIS "redis-cli -s \"$SOCKET\" -n \"$DB\" "
static const struct shell_plant shell_plants[] = {
    { "redis", REDIS "set 'kiln:{0}:note:'$ID x", REDIS "del 'kiln:{0}:note:'$ID" },
    { "redis", REDIS "sadd 'kiln:{0}:lost' $ID", REDIS "del 'kiln:{0}:lost'" },
    { "redis", REDIS "zadd 'kiln:{0}:jobs:openai:app:c' 1 $ID", REDIS "del 'kiln:{0}:jobs:openai:app:c'" },
    { "redis", REDIS "hset 'kiln:{0}:claims:openai' $ID w", REDIS "del 'kiln:{0}:claims:openai'" },
    { "redis", REDIS "rpush 'kiln:{0}:new' \"x $ID y\"", REDIS "del 'kiln:{0}:new'" },
    { "artifact_file", "cd \"$DIR\"/storage/obj && f=$(find . -name \"$ID*\") && cp $f ../kept && printf x >>$f",
      "cd \"$DIR\"/storage/obj && f=$(find . -name \"$ID*\") && mv ../kept $f" },
    { "artifact_file", "cd \"$DIR\"/storage/obj && f=$(find . -name \"$ID*\") && echo $f >../name && mv $f ../kept",
      "cd \"$DIR\"/storage/obj && mv ../kept $(cat ../name)" },
    { "object", "cd \"$DIR\"/storage/obj && f=$(find . -name \"$ID*\") && touch -d '2 hours ago' ${f%.*}.7",
      "cd \"$DIR\"/storage/obj && rm $(find . -name \"$ID*.7\")" },
    { "object", "cd \"$DIR\"/storage/obj && mkdir -p upload/ab && touch -d '2 hours ago' upload/ab/nobody",
      "rm -r \"$DIR\"/storage/obj/upload" },
    { "temp", "touch -d '2 hours ago' \"$DIR\"/storage/tmp/old", "rm \"$DIR\"/storage/tmp/old" },
};

static bool names(const char *report, const char *check)
{
    size_t n = strlen(check);

    for (const char *line = report; *line; line += strcspn(line, "\n"), line += *line == '\n')
        if (!strncmp(line, check, n) && line[n] == ':')
            return true;
    return false;
}

/* `again`: kiln itself may mend what was planted before the oracle has looked, and then it is planted anew. */
static void expect_seen(const struct house *h, const char *check, const char *planted, void (*again)(const char *))
{
    char *report;
    int code = judge(h, "", &report);

    for (int i = 0; i < 5 && again && code == 0; i++) {
        free(report);
        again(planted);
        code = judge(h, "", &report);
    }
    cr_expect_eq(code, 1, "exit %d after: %s\n%s", code, planted, report);
    cr_expect(names(report, check), "no line of `%s` after: %s\n%s", check, planted, report);
    free(report);
}

static void expect_clean(const struct house *h, const char *when, const char *options)
{
    char *report;
    int code = judge(h, options, &report);

    cr_expect_eq(code, 0, "exit %d %s:\n%s", code, when, report);
    cr_expect_str_eq(report, "", "%s: %s", when, report);
    free(report);
}

static void shell(const char *command)
{
    char all[1024];

    (void)snprintf(all, sizeof(all), "(%s) >/dev/null", command);
    cr_assert_eq(system(all), 0, "%s", command);
}

static struct house *house_with_three_jobs(void) /* delivered, delivered, canceled */
{
    struct house *h = house_open(NULL);
    char path[80], id[40];
    struct reply r;

    r = house_run(h, "openai.images.generate", "{\"prompt\":\"one [[job:o1]]\",\"quality\":\"low\"}", 30000);
    cr_assert_str_eq(reply_text(&r, "state"), "succeeded");
    reply_done(&r);
    r = house_run(h, "leonardo.generate",
                  "{\"prompt\":\"two [[job:l1]]\",\"num_images\":1,\"width\":64,\"height\":64,\"alchemy\":false,"
                  "\"presetStyle\":\"LEONARDO\"}",
                  60000);
    cr_assert_str_eq(reply_text(&r, "state"), "succeeded");
    reply_done(&r);
    house_submit(h, id, "leonardo.generate",
                 "{\"prompt\":\"three [[job:c1]]\",\"num_images\":1,\"width\":64,\"height\":64,\"alchemy\":false,"
                 "\"presetStyle\":\"LEONARDO\"}");
    (void)snprintf(path, sizeof(path), "/v1/jobs/%s/cancel", id);
    r = house_call(h, "POST", path, NULL, NULL);
    cr_assert_eq(r.status, 200);
    reply_done(&r);
    return h;
}

Test(oracle, sees_every_kind_of_violation_and_nothing_where_there_is_none)
{
    struct house *h = house_with_three_jobs();
    char *id = support_sql(h->db, "select id from jobs where provider = 'openai'"), *socket = strdup(h->redis + 5);
    char *db = strstr(socket, "db=");

    expect_clean(h, "after a clean run", "--patience-s 10");
    free(support_sql(h->db, open_the_gates));
    for (size_t i = 0; i < ARRAY_LEN(plants); i++) {
        struct buf sql = { 0 };

        (void)buf_printf(&sql, "do $plant$ begin %s; end $plant$", plants[i].sql);
        free(support_sql(h->db, sql.data));
        buf_done(&sql);
        expect_seen(h, plants[i].check, plants[i].sql, NULL);
        free(support_sql(h->db, restore));
    }
    expect_clean(h, "after all rows were put back", "");
    (void)setenv("ID", id, 1);
    (void)setenv("DIR", h->dir, 1);
    (void)setenv("DB", db ? db + 3 : "0", 1);
    socket[strcspn(socket, "?")] = '\0';
    (void)setenv("SOCKET", socket, 1);
    for (size_t i = 0; i < ARRAY_LEN(shell_plants); i++) {
        shell(shell_plants[i].plant);
        expect_seen(h, shell_plants[i].check, shell_plants[i].plant,
                    strcmp(shell_plants[i].check, "redis") == 0 ? shell : NULL);
        shell(shell_plants[i].undo);
    }
    expect_clean(h, "after all files were put back", "");
    free(socket);
    free(id);
    house_close(h);
}

Test(oracle, asks_no_end_of_a_job_within_its_bound)
{
    struct house_options options = { .no_worker = true };
    struct house *h = house_open(&options);
    char id[40], *report;

    house_submit(h, id, "openai.images.generate", "{\"prompt\":\"waits [[job:w1]]\",\"quality\":\"low\"}");
    expect_clean(h, "of a queued job", "--bound");
    cr_expect_eq(judge(h, "", &report), 1);
    cr_expect(names(report, "ended"), "%s", report);
    free(report);
    house_kill(&h->dispatcher, SIGKILL); /* it would expire the job */
    free(support_sql(h->db, "update jobs set deadline_at = kiln_now() - interval '66 s'"));
    cr_expect_eq(judge(h, "--bound", &report), 1, "past it");
    free(report);
    house_close(h);
}

Test(oracle, says_that_it_cannot_read)
{
    struct house_options options = { .no_worker = true, .no_dispatcher = true };
    struct house *h = house_open(&options);
    char *report;

    cr_expect_eq(judge(h, "--redis unix:/nowhere", &report), 2, "%s", report);
    free(report);
    cr_expect_eq(judge(h, "--storage /nowhere", &report), 2, "%s", report);
    free(report);
    cr_expect_eq(judge(h, "--sandbox http://127.0.0.1:1", &report), 2, "%s", report);
    free(report);
    cr_expect_eq(judge(h, "--database postgresql:///nowhere", &report), 2, "%s", report);
    free(report);
    house_close(h);
}
