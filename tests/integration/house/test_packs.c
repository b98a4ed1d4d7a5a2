/* test_packs.c - small results that come together lie in one file, and nobody but an operator notices. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/text.h"
#include "tests/chaos/judge.h"
#include "tests/integration/house/house.h"

SUPPORT_SERVICES();

enum { LIMIT_MS = 20000, JOBS = 100 };

#define COMMON                                                                                                         \
    "\"answer\":\"file\",\"deadline_s\":60,\"failed_is_free\":false,\"output\":\"file\",\"max_result_bytes\":100000,"  \
    "\"max_result_pixels\":100000,\"typical_s\":1,\"description\":\"made up\",\"price\":{\"unit\":\"file\",\"rows\":[" \
    "{\"credits\":1}]}"

static const char catalog[] =
    "{\"provider\":\"carver\",\"adapter\":\"generic\",\"base_url\":\"http://127.0.0.1:1\",\"base_url_env\":"
    "\"CARVER_BASE_URL\",\"auth\":{\"header\":\"X-Key\",\"prefix\":\"\"},\"lane\":{},\"price_version\":\"carver-1\","
    "\"reads\":{\"outputs\":\"/url\"},\"operations\":{\"carver.carve\":{" COMMON
    ",\"submit\":{\"method\":\"POST\",\"path\":\"/carve\",\"body\":\"json\",\"timeout_ms\":30000},\"params\":{"
    "\"prompt\":{\"type\":\"string\",\"required\":true}}},\"carver.polish\":{" COMMON
    ",\"submit\":{\"method\":\"POST\",\"path\":\"/polish\",\"body\":\"json\",\"timeout_ms\":30000},\"params\":{"
    "\"thing\":{\"type\":\"file\",\"required\":true,\"formats\":[\"png\"],\"max_bytes\":100000,\"as\":\"data_uri\"}}}}}";

/* Every answer is another, so that bytes which belong to another job are seen. */
static void script_answers(const struct house *h)
{
    struct buf b = { 0 };
    char url[120];
    struct reply r;

    (void)buf_str(
        &b,
        "{\"routes\":[{\"method\":\"POST\",\"path\":\"/polish\",\"answers\":[{\"file\":[\"application/octet-stream\",\"shiny\"]}]},"
        "{\"method\":\"POST\",\"path\":\"/carve\",\"answers\":[");
    for (int i = 0; i < JOBS; i++)
        (void)buf_printf(&b, "%s{\"file\":[\"application/octet-stream\",\"carving %0*d\"]}", i ? "," : "",
                         1 + i * 37 % 500, i);
    (void)buf_str(&b, "]}]}");
    (void)snprintf(url, sizeof(url), "%s/_sandbox/script", h->sandbox);
    r = house_url("POST", url, b.data, NULL);
    cr_assert_eq(r.status, 200, "%s", r.text);
    reply_done(&r);
    buf_done(&b);
}

static struct house *carver_open(const char *fail)
{
    struct house *h =
        house_open(&(struct house_options){ .catalog = catalog, .no_worker = true, .no_dispatcher = true });
    char base[100];
    const char *const env[] = { base, fail, NULL };
    struct buf b = { 0 };
    struct reply r;

    (void)snprintf(base, sizeof(base), "CARVER_BASE_URL=%s/script", h->sandbox);
    house_dispatcher_start(h, env);
    script_answers(h);
    (void)buf_str(&b, "{\"jobs\":[");
    for (int i = 0; i < JOBS; i++)
        (void)buf_printf(&b, "%s{\"operation\":\"carver.carve\",\"params\":{\"prompt\":\"a horse\"}}", i ? "," : "");
    (void)buf_str(&b, "]}");
    r = house_call(h, "POST", "/v1/batches", b.data, NULL);
    cr_assert_eq(r.status, 202, "%ld %s", r.status, r.text);
    reply_done(&r);
    buf_done(&b);
    (void)house_worker_start(h, env); /* finds all of them, so that their answers come together */
    if (!house_wait_sql(h, "select count(*) from jobs where state = 'succeeded'", JOBS, LIMIT_MS)) {
        house_show_logs(h);
        cr_assert_fail("%s",
                       support_sql(h->db, "select json_agg(j) from (select state, error_code, error_message, count(*) "
                                          "from jobs group by 1, 2, 3) j"));
    }
    return h;
}

static int64_t number(const struct house *h, const char *sql)
{
    char *text = support_sql(h->db, sql);
    int64_t n = strtoll(text, NULL, 10);

    free(text);
    return n;
}

static void expect_content(const struct house *h, const char *id, const char *sha256)
{
    static const char *const range[] = { "Range: bytes=3-8", NULL };
    char path[100], hex[SHA256_HEX];
    struct reply r, part;

    (void)snprintf(path, sizeof(path), "/v1/artifacts/%s/content", id);
    r = house_call(h, "GET", path, NULL, NULL);
    cr_assert_eq(r.status, 200, "%s", r.text);
    sha256_hex(hex, r.text, r.len);
    cr_expect_str_eq(hex, sha256, "%s", r.text);
    cr_expect_eq(strncmp(r.text, "carving ", 8), 0, "%s", r.text);
    part = house_call(h, "GET", path, NULL, range);
    cr_expect_eq(part.status, 206);
    cr_expect_eq(part.len, 6);
    cr_expect_eq(memcmp(part.text, r.text + 3, 6), 0, "%s", part.text);
    reply_done(&part);
    reply_done(&r);
}

static void expect_all_readable(const struct house *h)
{
    char *list = support_sql(h->db, "select string_agg(id || ' ' || sha256, ' ') from artifacts"), *rest = list;
    int n = 0;

    for (char *id = strtok_r(list, " ", &rest); id; id = strtok_r(NULL, " ", &rest), n++)
        expect_content(h, id, strtok_r(NULL, " ", &rest));
    cr_expect_eq(n, JOBS);
    cr_expect_eq(number(h, "select count(distinct sha256) from artifacts"), JOBS);
    free(list);
}

static void expect_judged_well(const struct house *h)
{
    char *report;

    cr_expect_eq(judge(h, "--grace-s -1", &report), 0, "%s", report); /* nothing lies about, not even for a moment */
    free(report);
}

#define PACKED "from artifacts where object like '%/pack/%'"

Test(packs, small_results_that_come_together_lie_in_few_files_and_are_read_as_ever)
{
    struct house *h = carver_open(NULL);
    char *id, *report, params[80], url[120], command[200];
    struct reply r;

    cr_expect_geq(number(h, "select count(*) " PACKED), 64);
    cr_expect_leq(number(h, "select count(distinct split_part(object, '/', 8)) " PACKED), 8);
    expect_all_readable(h);
    expect_judged_well(h);

    /* No operation takes a file of no known kind yet: for this it poses as a picture. */
    id = support_sql(h->db, "update artifacts set kind = 'image', mime = 'image/png', width = 8, height = 8 where id = "
                            "(select id " PACKED " order by object desc limit 1) returning id");
    (void)snprintf(params, sizeof(params), "{\"thing\":\"%s\"}", id);
    r = house_run(h, "carver.polish", params, LIMIT_MS);
    cr_expect_str_eq(reply_text(&r, "state"), "succeeded", "%s", r.text);
    reply_done(&r);
    (void)snprintf(url, sizeof(url), "%s/_sandbox/script", h->sandbox);
    r = house_url("GET", url, NULL, NULL);
    cr_expect_not_null(strstr(r.text, "base64,Y2FydmluZy"), "the file itself, from where it begins: %s", r.text);
    reply_done(&r);
    free(id);
    expect_judged_well(h);
    (void)snprintf(command, sizeof(command), "cd '%s/storage/obj/pack' && truncate -s -1 $(find . -type f | head -n 1)",
                   h->dir);
    cr_assert_eq(system(command), 0);
    cr_expect_neq(judge(h, "", &report), 0);
    cr_expect_not_null(strstr(report, "artifact_file:"), "who judges reads what lies there: %s", report);
    free(report);
    house_close(h);
}

/* The first result, alone, is held up until the others have gathered: the first sync is a pack's. */
Test(packs, one_that_cannot_be_synced_leaves_nothing_and_its_results_are_stored_alone)
{
    struct house *h = carver_open("KILN_FAILPOINTS=store.before_rename=stall:4000@1,pack.sync=error@1");
    char *log = house_log(h, "worker0");

    cr_expect_not_null(strstr(log, "event=pack problem=sync"), "it acted");
    cr_expect_gt(number(h, "select count(*) from artifacts where object not like '%/pack/%'"), 60);
    cr_expect_eq(number(h, "select count(*) from jobs where attempt <> 1"), 0);
    expect_all_readable(h);
    expect_judged_well(h);
    free(log);
    house_close(h);
}
