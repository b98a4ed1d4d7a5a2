/* test_generic.c - two providers that kiln has never heard of, added by catalogue files alone: one answers at once, one
 * hands out a number that is polled. The sandbox plays them by a script. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/integration/house/house.h"

SUPPORT_SERVICES();

enum { LIMIT_MS = 30000 };

#define COMMON                                                                                                         \
    "\"deadline_s\":60,\"failed_is_free\":false,\"output\":\"image\",\"max_result_bytes\":1000000,"                    \
    "\"max_result_pixels\":1000000,\"typical_s\":1,\"description\":\"made up\""

/* Synchronous: own key header, nested body, file as data: URI, price by steps, pictures as base64 and URL. */
static const char one[] =
    "{\"provider\":\"one\",\"adapter\":\"generic\",\"base_url\":\"http://127.0.0.1:1\",\"base_url_env\":\"ONE_BASE_URL\","
    "\"key_env\":\"ONE_KEY\",\"auth\":{\"header\":\"X-Key\",\"prefix\":\"\"},\"lane\":{},\"price_version\":\"one-1\","
    "\"reads\":{\"outputs\":\"/images/*/data\",\"message\":\"/fault/text\",\"code\":\"/fault/code\"},"
    "\"errors\":[{\"code\":\"E17\",\"is\":\"content_filtered\"},{\"status\":409,\"contains\":\"wallet\",\"is\":\"insufficient_funds\"}],"
    "\"operations\":{\"one.draw\":{" COMMON
    ",\"answer\":\"json\",\"submit\":{\"method\":\"POST\",\"path\":\"/one/{engine}/draw\","
    "\"body\":\"json\",\"timeout_ms\":10000,\"headers\":{\"X-Flavour\":\"kiln\"},\"constants\":{\"input\":{\"kind\":\"still\"}}},"
    "\"params\":{\"engine\":{\"type\":\"string\",\"default\":\"v 2\",\"to\":\"\"},\"prompt\":{\"type\":\"string\",\"required\":true,"
    "\"to\":\"input.texts\",\"append\":{\"say\":\"$value\"}},\"steps\":{\"type\":\"integer\",\"min\":1,\"max\":50,\"default\":10,"
    "\"to\":\"input.steps\"},\"count\":{\"type\":\"integer\",\"min\":1,\"max\":4,\"default\":1},\"picture\":{\"type\":\"file\","
    "\"formats\":[\"png\"],\"max_bytes\":1000000,\"as\":\"data_uri\",\"to\":\"input.picture\"}},"
    "\"price\":{\"unit\":\"image\",\"units\":\"count\",\"rows\":[{\"credits\":1,\"plus\":[{\"param\":\"steps\",\"each\":0.05}]}]}}}}";

/* Asynchronous: no key at all, a form, a number as reference, status words of its own. */
static const char two[] =
    "{\"provider\":\"two\",\"adapter\":\"generic\",\"base_url\":\"http://127.0.0.1:1\",\"base_url_env\":\"TWO_BASE_URL\","
    "\"auth\":{\"header\":\"X-Key\",\"prefix\":\"\"},\"lane\":{},\"price_version\":\"two-1\","
    "\"reads\":{\"ref\":\"/job/number\",\"status\":\"/job/phase\",\"words\":{\"baking\":\"pending\",\"served\":\"done\","
    "\"burnt\":\"failed\",\"spat out\":\"content_filtered\"},\"outputs\":[\"/job/plates/**\"],\"message\":\"/job/note\"},"
    "\"operations\":{\"two.bake\":{" COMMON
    ",\"answer\":\"json\",\"submit\":{\"method\":\"POST\",\"path\":\"/two/jobs\","
    "\"body\":\"form\",\"timeout_ms\":10000},\"poll\":{\"path\":\"/two/jobs/{ref}?full=1\",\"timeout_ms\":10000,\"first_ms\":100,"
    "\"every_ms\":100},\"params\":{\"prompt\":{\"type\":\"string\",\"required\":true},\"size\":{\"type\":\"integer\",\"min\":1,\"max\":9,"
    "\"default\":3}},\"price\":{\"unit\":\"image\",\"rows\":[{\"usd\":0.02}]}}}}";

/* A file that kiln does not look into, whatever it begins with: the answer itself, or behind a URL. */
#define THREE                                                                                                          \
    "\"deadline_s\":60,\"failed_is_free\":false,\"output\":\"file\",\"max_result_bytes\":1000000,"                     \
    "\"max_result_pixels\":1000000,\"typical_s\":1,\"description\":\"made up\",\"params\":{\"prompt\":{\"type\":"      \
    "\"string\",\"required\":true}},\"price\":{\"unit\":\"file\",\"rows\":[{\"credits\":1}]}"
static const char three[] =
    "{\"provider\":\"three\",\"adapter\":\"generic\",\"base_url\":\"http://127.0.0.1:1\",\"base_url_env\":"
    "\"THREE_BASE_URL\",\"auth\":{\"header\":\"X-Key\",\"prefix\":\"\"},\"lane\":{},\"price_version\":\"three-1\","
    "\"reads\":{\"outputs\":\"/url\"},\"operations\":{\"three.carve\":{" THREE
    ",\"answer\":\"file\",\"submit\":{\"method\":\"POST\",\"path\":\"/three/carve\",\"body\":\"json\",\"timeout_ms\":10000}},"
    "\"three.fetch\":{" THREE ",\"answer\":\"json\",\"submit\":{\"method\":\"POST\",\"path\":\"/three/fetch\","
    "\"body\":\"json\",\"timeout_ms\":10000}}}}";

static void write_file(const char *dir, const char *name, const char *text)
{
    char path[200];
    FILE *f;

    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    f = fopen(path, "w");
    cr_assert_not_null(f);
    (void)fputs(text, f);
    (void)fclose(f);
}

static void script(const struct house *h, const char *routes)
{
    char url[120], body[4000];
    struct reply r;

    (void)snprintf(url, sizeof(url), "%s/_sandbox/script", h->sandbox);
    (void)snprintf(body, sizeof(body), "{\"routes\":[%s]}", routes);
    r = house_url("POST", url, body, NULL);
    cr_assert_eq(r.status, 200, "%s", r.text);
    reply_done(&r);
}

static struct reply script_log(const struct house *h)
{
    char url[120];

    (void)snprintf(url, sizeof(url), "%s/_sandbox/script", h->sandbox);
    return house_url("GET", url, NULL, NULL);
}

static void expect_end(struct reply job, const char *state, const char *code, double charged)
{
    cr_expect_str_eq(reply_text(&job, "state"), state, "%s", job.text);
    cr_expect_str_eq(reply_text(&job, "error.code"), code, "%s", job.text);
    cr_expect_float_eq(reply_number(&job, "credits.charged"), charged, 1e-9, "%s", job.text);
    reply_done(&job);
}

static void draws_at_once(struct house *h)
{
    char *upload = house_upload(h, 32, 32), params[200];
    struct reply log;

    script(h,
           "{\"method\":\"POST\",\"path\":\"/one/v%202/draw\",\"answers\":[{\"json\":{\"images\":[{\"data\":\"$png\"},"
           "{\"data\":\"$url\"}]}},{\"status\":409,\"json\":{\"fault\":{\"text\":\"your Wallet is empty\"}}},"
           "{\"status\":418,\"json\":{\"fault\":{\"code\":\"E17\",\"text\":\"no\"}}},{\"json\":{\"images\":[]}}]}");
    (void)snprintf(params, sizeof(params), "{\"prompt\":\"a kite\",\"count\":2,\"picture\":\"%s\"}", upload);
    expect_end(house_run(h, "one.draw", params, LIMIT_MS), "succeeded", "", 3);
    log = script_log(h);
    cr_expect_str_eq(reply_text(&log, "requests.0.x-key"), "sk-one", "%s", log.text);
    cr_expect_str_eq(reply_text(&log, "requests.0.authorization"), "");
    cr_expect_not_null(strstr(reply_text(&log, "requests.0.body"), "\"texts\":[{\"say\":\"a kite\"}]"), "%s", log.text);
    cr_expect_not_null(strstr(reply_text(&log, "requests.0.body"), "\"kind\":\"still\""), "%s", log.text);
    cr_expect_not_null(strstr(reply_text(&log, "requests.0.body"), "\"picture\":\"data:image/png;base64,iVBOR"), "%s",
                       log.text);
    cr_expect_null(strstr(reply_text(&log, "requests.0.body"), "engine"), "it is in the path alone: %s", log.text);
    reply_done(&log);
    expect_end(house_run(h, "one.draw", "{\"prompt\":\"a\"}", LIMIT_MS), "failed", "insufficient_funds", 0);
    expect_end(house_run(h, "one.draw", "{\"prompt\":\"a\"}", LIMIT_MS), "failed", "content_filtered", 0);
    expect_end(house_run(h, "one.draw", "{\"prompt\":\"a\"}", LIMIT_MS), "failed", "bad_response", 0);
    free(upload);
}

static void bakes_and_is_asked(struct house *h)
{
    struct reply log;

    script(
        h,
        "{\"method\":\"POST\",\"path\":\"/two/jobs\",\"answers\":[{\"status\":201,\"json\":{\"job\":{\"number\":4711,"
        "\"phase\":\"baking\"}}}]},{\"method\":\"GET\",\"path\":\"/two/jobs/4711\",\"answers\":[{\"json\":{\"job\":{"
        "\"phase\":\"kneading\"}}},{\"status\":502,\"json\":{}},{\"json\":{\"job\":{\"phase\":\"served\",\"plates\":{\"left\":["
        "\"$url\"]}}}},{\"json\":{\"job\":{\"phase\":\"spat out\",\"note\":\"not tasty\"}}},{\"json\":{\"job\":{\"phase\":"
        "\"burnt\"}}}]}");
    expect_end(house_run(h, "two.bake", "{\"prompt\":\"a pie & a plum\"}", LIMIT_MS), "succeeded", "", 2);
    log = script_log(h);
    cr_expect_str_eq(reply_text(&log, "requests.0.content_type"), "application/x-www-form-urlencoded");
    cr_expect_str_eq(reply_text(&log, "requests.0.body"), "prompt=a%20pie%20%26%20a%20plum&size=3", "%s", log.text);
    cr_expect_str_eq(reply_text(&log, "requests.0.x-key"), "", "no key is sent where none is wanted");
    cr_expect_str_eq(reply_text(&log, "requests.1.query"), "full=1");
    reply_done(&log);
    expect_end(house_run(h, "two.bake", "{\"prompt\":\"a\"}", LIMIT_MS), "failed", "content_filtered", 0);
    expect_end(house_run(h, "two.bake", "{\"prompt\":\"a\"}", LIMIT_MS), "failed", "provider_error", 0);
}

/* Small files are read from memory, large ones are not; neither is judged by its first letter. */
static void carves_whatever_it_begins_with(struct house *h)
{
    char text[500];

    (void)snprintf(
        text, sizeof(text),
        "{\"method\":\"POST\",\"path\":\"/three/carve\",\"answers\":[{\"file\":[\"image/svg+xml\",\"<svg/>\"]},"
        "{\"file\":[\"application/octet-stream\",\"{\\\"a\\\":1}\"]}]},{\"method\":\"POST\",\"path\":"
        "\"/three/fetch\",\"answers\":[{\"json\":{\"url\":\"%s/script/three/file\"}}]},{\"method\":\"GET\","
        "\"path\":\"/three/file\",\"answers\":[{\"file\":[\"image/svg+xml\",\"<svg/>\"]}]}",
        h->sandbox);
    script(h, text);
    expect_end(house_run(h, "three.carve", "{\"prompt\":\"a\"}", LIMIT_MS), "succeeded", "", 1);
    expect_end(house_run(h, "three.carve", "{\"prompt\":\"b\"}", LIMIT_MS), "succeeded", "", 1);
    expect_end(house_run(h, "three.fetch", "{\"prompt\":\"c\"}", LIMIT_MS), "succeeded", "", 1);
}

Test(generic, a_catalogue_file_alone_adds_a_provider)
{
    char dir[] = "/tmp/kiln-generic-XXXXXX", folder[80], base_one[100], base_two[100], base_three[100];
    const char *env[] = { folder, base_one, base_two, base_three, "ONE_KEY=sk-one", NULL };
    struct house *h;

    cr_assert_not_null(mkdtemp(dir));
    write_file(dir, "one.json", one);
    write_file(dir, "two.json", two);
    write_file(dir, "three.json", three);
    h = house_open(&(struct house_options){ .no_worker = true, .no_dispatcher = true });
    (void)snprintf(folder, sizeof(folder), "KILN_CATALOG=%s", dir);
    (void)snprintf(base_one, sizeof(base_one), "ONE_BASE_URL=%s/script", h->sandbox);
    (void)snprintf(base_two, sizeof(base_two), "TWO_BASE_URL=%s/script", h->sandbox);
    (void)snprintf(base_three, sizeof(base_three), "THREE_BASE_URL=%s/script", h->sandbox);
    house_dispatcher_start(h, env);
    (void)house_worker_start(h, env);
    draws_at_once(h);
    bakes_and_is_asked(h);
    carves_whatever_it_begins_with(h);
    house_close(h);
    (void)snprintf(folder, sizeof(folder), "%s/one.json", dir);
    (void)remove(folder);
    (void)snprintf(folder, sizeof(folder), "%s/two.json", dir);
    (void)remove(folder);
    (void)snprintf(folder, sizeof(folder), "%s/three.json", dir);
    (void)remove(folder);
    (void)remove(dir);
}
