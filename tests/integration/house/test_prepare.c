/* test_prepare.c - what has to lie at the provider before the paid request: Leonardo's input images. The steps are free
 * and taken again after any trouble; the key stays away from the host of the form; the paid request goes out once. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/integration/house/house.h"

SUPPORT_SERVICES();

enum { LIMIT_MS = 60000 };

#define SOON "\"poll\":{\"first_ms\":200,\"every_ms\":200}"

static const struct house_options options = {

    .sandbox_config = "{\"delay_ms\":{\"leonardo\":300}}",
    .catalog = "{\"provider\":\"leonardo\",\"lane\":{},\"operations\":{\"leonardo.generate\":{" SOON
               "},\"leonardo.upscale\":{" SOON "}}}",
};

static void submit(const struct house *h, char id[40], const char *tag, const char *upload)
{
    char params[400];

    (void)snprintf(
        params, sizeof(params),
        "{\"prompt\":\"a kettle [[job:%s]]\",\"width\":64,\"height\":64,\"alchemy\":false,\"init_image\":\"%s\","
        "\"init_strength\":0.5}",
        tag, upload);
    house_submit(h, id, "leonardo.generate", params);
}

static void expect_end(const struct house *h, const char *id, const char *tag, const char *code, int64_t paid,
                       int64_t attempts)
{
    struct reply job = house_wait(h, id, LIMIT_MS);

    cr_expect_str_eq(reply_text(&job, "state"), code[0] ? "failed" : "succeeded", "%s: %s", tag, job.text);
    cr_expect_str_eq(reply_text(&job, "error.code"), code, "%s: %s", tag, job.text);
    cr_expect_eq(reply_int(&job, "attempts"), attempts, "%s: %s", tag, job.text);
    cr_expect_eq(house_counter(h, tag, "paid"), paid, "%s was paid %lld times", tag,
                 (long long)house_counter(h, tag, "paid"));
    reply_done(&job);
}

static void rule(const struct house *h, const char *path, const char *fault, int times)
{
    char text[300];

    (void)snprintf(text, sizeof(text),
                   "{\"match\":{\"provider\":\"leonardo\",\"path_contains\":\"%s\"},\"fault\":{%s,\"at\":\"other\"},"
                   "\"times\":%d}",
                   path, fault, times);
    house_fault(h, text);
}

static void end_rules(const struct house *h)
{
    char url[120];
    struct reply r;

    (void)snprintf(url, sizeof(url), "%s/_sandbox/faults", h->sandbox);
    r = house_url("DELETE", url, NULL, NULL);
    reply_done(&r);
}

static void runs(const struct house *h, const char *tag, const char *upload, const char *code, int64_t paid,
                 int64_t attempts)
{
    char id[40];

    submit(h, id, tag, upload);
    expect_end(h, id, tag, code, paid, attempts);
    end_rules(h);
}

Test(prepare, an_input_file_becomes_an_image_of_the_provider_s_whatever_goes_wrong_on_the_way)
{
    struct house *h = house_open(&options);
    char *upload = house_upload(h, 256, 256), params[200];
    struct reply job;

    runs(h, "plain", upload, "", 1, 1);
    rule(h, "/init-image", "\"status\":500", 2); /* two stumbles are nothing */
    runs(h, "stumbles", upload, "", 1, 1);
    rule(h, "/image-generation-bucket/", "\"status\":403", 1); /* a form that is too old: a new one */
    runs(h, "oldform", upload, "", 1, 1);
    rule(h, "/image-generation-bucket/", "\"drop_before\":true", 1);
    runs(h, "cut", upload, "", 1, 1);
    rule(h, "/init-image", "\"status\":503", 3); /* back to the queue, not sent */
    runs(h, "away", upload, "", 1, 2);
    rule(h, "/image-generation-bucket/", "\"status\":400", 9);
    runs(h, "refused", upload, "invalid_request", 0, 1);
    cr_expect_eq(support_sql_int(h->db, "select count(*) from attempts where class = 'not_sent'"), 2);
    cr_expect_float_eq(house_held(h, "default"), 0, 1e-9);

    (void)snprintf(params, sizeof(params),
                   "{\"init_image\":\"%s\",\"upscaleMultiplier\":1.5,\"prompt\":\"[[job:up]]\"}", upload);
    job = house_run(h, "leonardo.upscale", params, LIMIT_MS);
    cr_expect_str_eq(reply_text(&job, "state"), "succeeded", "%s", job.text);
    cr_expect_eq(reply_int(&job, "artifacts.0.width"), 384, "%s", job.text);
    cr_expect_float_eq(reply_number(&job, "credits.charged"), 1.4, 1e-9, "%s", job.text);
    cr_expect_eq(house_counter(h, "up", "paid"), 1);
    reply_done(&job);
    free(upload);
    house_close(h);
}

Test(prepare, a_worker_that_dies_on_the_way_leaves_nothing_unknown)
{
    static const char *const points[] = { "KILN_FAILPOINTS=worker.before_prepare=crash@2",
                                          "KILN_FAILPOINTS=worker.after_prepare=crash@2" };
    struct house_options no_worker = options;
    char id[40], tag[20], *upload;
    struct house *h;

    no_worker.no_worker = true;
    h = house_open(&no_worker);
    upload = house_upload(h, 256, 256);
    for (size_t i = 0; i < sizeof(points) / sizeof(points[0]); i++) {
        const char *env[] = { points[i], NULL };
        int doomed = house_worker_start(h, env), next;

        (void)snprintf(tag, sizeof(tag), "dies%zu", i);
        submit(h, id, tag, upload);
        cr_assert_neq(house_wait_exit(&h->workers[doomed], 20000), -1, "it does not die");
        next = house_worker_start(h, NULL);
        expect_end(h, id, tag, "", 1, 1);
        house_kill(&h->workers[next], SIGKILL);
    }
    free(upload);
    house_close(h);
}
