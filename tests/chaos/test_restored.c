/* test_restored.c - Redis comes back with an old file while jobs are under way: what it says of the past is believed by
 * nobody (M12, M13 of the ledger's list; crash matrix, "Redis shows an old state"). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "tests/chaos/judge.h"

SUPPORT_SERVICES_ALONE(); /* Redis is killed here */

enum { EACH = 15 };

static const char lanes[] =
    "{\"provider\":\"leonardo\",\"lane\":{},\"operations\":{\"leonardo.generate\":{\"poll\":{\"first_ms\":300,\"every_ms\":700}}}}";
static const char sandbox[] =
    "{\"delay_ms\":{\"leonardo\":{\"min\":5000,\"max\":7000},\"openai\":{\"min\":1500,\"max\":2500}}}";

static void submit(const struct house *h, const char *prefix, bool is_polled)
{
    char id[40], params[256];

    for (int i = 0; i < EACH; i++) {
        (void)snprintf(params, sizeof(params), "{\"prompt\":\"old [[job:%s%d]]\",%s}", prefix, i,
                       is_polled ? "\"num_images\":1,\"width\":64,\"height\":64,\"alchemy\":false,"
                                   "\"presetStyle\":\"LEONARDO\""
                                 : "\"model\":\"dall-e-2\",\"size\":\"256x256\"");
        house_submit(h, id, is_polled ? "leonardo.generate" : "openai.images.generate", params);
    }
}

/* The append-only file is written at the end of each turn of Redis' loop: a copy has all that was answered. */
static void shell(const char *format, const char *a, const char *b)
{
    char command[512];

    (void)snprintf(command, sizeof(command), format, a, b, a, b);
    cr_assert_eq(system(command), 0, "%s", command);
}

static void expect_ends(const struct house *h, int count)
{
    char *report;
    int code;

    cr_expect(house_wait_sql(h, "select count(*) from jobs where state = 'succeeded'", count, 90000),
              "%lld of %d have succeeded",
              (long long)support_sql_int(h->db, "select count(*) from jobs where state = 'succeeded'"), count);
    cr_expect_eq(support_sql_int(h->db, "select count(*) from ledger where kind = 'capture'"), count);
    cr_expect_eq(support_sql_int(h->db, "select count(*) from attempts"), count, "nobody was asked again");
    cr_expect_eq(house_counter(h, NULL, "paid"), count);
    code = judge(h, "--patience-s 40", &report);
    cr_expect_eq(code, 0, "the oracle says %d:\n%s", code, report);
    free(report);
}

/* The file knows jobs as queued or claimed that are long finished, others as waiting with a note of an attempt that is
 * over, and nothing of those that came later, of which some run and some have not begun. */
Test(restored, redis_from_an_old_file_under_load_loses_nothing_and_pays_nothing_twice)
{
    struct house_options options = {
        .catalog = lanes, .sandbox_config = sandbox, .credits = 100000, .no_worker = true
    };
    struct house *h = house_open(&options);
    const char *services = getenv("KILN_TEST_SERVICES");

    submit(h, "a", true); /* in the file: queued */
    (void)house_worker_start(h, NULL);
    submit(h, "b", false);
    cr_assert(house_wait_sql(h, "select count(*) from attempts", 2 * EACH, 30000));
    shell("cp -a '%s/redis/appendonlydir' '%s/redis/old'", services, services); /* claimed, noted, in flight */
    cr_assert(house_wait_sql(h, "select count(*) from jobs where state = 'succeeded'", 2 * EACH, 60000));
    submit(h, "c", true); /* not in the file: running */
    cr_assert(house_wait_sql(h, "select count(*) from attempts where ref is not null and state = 'open'", EACH, 30000));
    support_service("kill-redis");
    submit(h, "d", false); /* accepted while Redis was away: queued, in no file at all */
    shell("rm -rf '%s/redis/appendonlydir' && mv '%s/redis/old' '%s/redis/appendonlydir'", services, services);
    support_service("start-redis");
    submit(h, "e", false);
    expect_ends(h, 5 * EACH);
    house_close(h);
}

/* The same while the worker that the file knows is dead, and with it whoever could put its claims in order. */
Test(restored, claims_of_a_dead_worker_in_an_old_file_hold_nobody_up)
{
    struct house_options options = { .catalog = lanes, .sandbox_config = sandbox, .credits = 100000 };
    struct house *h = house_open(&options);
    const char *services = getenv("KILN_TEST_SERVICES");

    submit(h, "a", true);
    cr_assert(house_wait_sql(h, "select count(*) from attempts where ref is not null", EACH, 30000));
    shell("cp -a '%s/redis/appendonlydir' '%s/redis/old'", services, services);
    cr_assert(house_wait_sql(h, "select count(*) from jobs where state = 'succeeded'", EACH, 60000));
    submit(h, "b", true);
    cr_assert(house_wait_sql(h, "select count(*) from attempts where ref is not null and state = 'open'", EACH, 30000));
    house_kill(&h->workers[0], 9);
    support_service("kill-redis");
    shell("rm -rf '%s/redis/appendonlydir' && mv '%s/redis/old' '%s/redis/appendonlydir'", services, services);
    support_service("start-redis");
    (void)house_worker_start(h, NULL);
    submit(h, "c", true);
    expect_ends(h, 3 * EACH);
    house_close(h);
}
