/* test_inputs.c - what a job brings: URLs fetched by the worker, `data:` URIs, uploads, artifacts of earlier jobs. What
 * does not fit ends the job before the provider hears of it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/evp.h>
#include "common/base/text.h"
#include "tests/integration/house/cases.h"
#include "tests/integration/house/files.h"

SUPPORT_SERVICES();

enum { LIMIT_MS = 60000 };

#define ULTRA "stability.generate.ultra"

struct url_case {
    const char *tag, *operation, *url, *code, *message; /* url: a path of the server, or whole */
    double charged;
    int requests;
};

static void run_urls(struct house *h, struct files *s, const struct url_case *list, size_t count)
{
    struct want *wants = calloc(count, sizeof(*wants));
    char(*extra)[256] = calloc(count, sizeof(*extra));

    for (size_t i = 0; i < count; i++) {
        char url[160];

        (void)snprintf(url, sizeof(url), list[i].url[0] == '/' ? "http://127.0.0.1:%d%s" : "%.0d%s",
                       list[i].url[0] == '/' ? s->port : 0, list[i].url);
        (void)snprintf(extra[i], sizeof(extra[i]), ",\"image\":\"%s\"%s", url,
                       strcmp(list[i].operation, ULTRA) ? "" : ",\"strength\":0.5");
        wants[i] = (struct want){ .tag = list[i].tag,
                                  .operation = list[i].operation,
                                  .extra = extra[i],
                                  .code = list[i].code,
                                  .charged = list[i].charged,
                                  .requests = list[i].requests,
                                  .paid = list[i].requests,
                                  .attempts = 1,
                                  .message = list[i].message };
    }
    cases_run(h, wants, count, LIMIT_MS);
    free(extra);
    free(wants);
}

Test(inputs, urls_are_fetched_and_judged_before_anything_is_paid)
{
    static const struct url_case list[] = {
        { "ok", ULTRA, "/ok.png", NULL, NULL, 8, 1 },
        { "three", ULTRA, "/redirect/3", NULL, NULL, 8, 1 },
        { "flaky", ULTRA, "/flaky.png", NULL, NULL, 8, 1 },
        { "four", ULTRA, "/redirect/4", "input_unreachable", "params.image", 0, 0 },
        { "missing", ULTRA, "/missing", "input_unreachable", "params.image", 0, 0 },
        { "cut", ULTRA, "/cut.png", "input_unreachable", "params.image", 0, 0 },
        { "closed", ULTRA, "http://127.0.0.1:1/x.png", "input_unreachable", "params.image", 0, 0 },
        { "page", ULTRA, "/page", "input_invalid", "params.image", 0, 0 },
        { "big", CREATIVE, "/big.png", "input_invalid", "params.image", 0, 0 },
        { "many", CREATIVE, "/many.png", "input_invalid", "params.image", 0, 0 },
    };
    static const struct house_options options = { .sandbox_config = "{\"image_size_cap\":64}" };
    struct house *h = house_open(&options);
    struct files s;

    files_start(&s);
    run_urls(h, &s, list, sizeof(list) / sizeof(list[0]));
    cr_expect_eq(house_counter(h, NULL, "requests"), 3, "the provider saw what was good, and no more");
    files_stop(&s);
    house_close(h);
}

Test(inputs, private_addresses_are_not_reached)
{
    static const struct url_case list[] = {
        { "loop", ULTRA, "/ok.png", "input_unreachable", "params.image", 0, 0 },
        { "name", ULTRA, "http://localhost/x.png", "input_unreachable", "params.image", 0, 0 },
        { "six", ULTRA, "http://[::1]/x.png", "input_unreachable", "params.image", 0, 0 },
        { "mapped", ULTRA, "http://[::ffff:127.0.0.1]/x.png", "input_unreachable", "params.image", 0, 0 },
        { "meta", ULTRA, "http://169.254.169.254/latest/meta-data", "input_unreachable", "params.image", 0, 0 },
        { "lan", ULTRA, "http://10.0.0.1/x.png", "input_unreachable", "params.image", 0, 0 },
    };
    static const struct house_options options = { .worker_env = { "KILN_ALLOW_PRIVATE_ADDRESSES=false" } };
    struct house *h = house_open(&options);
    struct files s;
    int64_t began = cases_now_ms();

    files_start(&s);
    run_urls(h, &s, list, sizeof(list) / sizeof(list[0]));
    cr_expect_eq((int)s.hits, 0, "nobody knocked");
    cr_expect_lt(cases_now_ms() - began, 20000, "refused, not timed out");
    cr_expect_eq(house_counter(h, NULL, "requests"), 0);
    files_stop(&s);
    house_close(h);
}

static char *data_uri_params(int width, int height)
{
    size_t len = 0;
    void *png = house_picture(width, height, &len);
    struct buf b = { 0 };
    char *text;

    text = malloc(len / 3 * 4 + 5);
    cr_assert_gt(EVP_EncodeBlock((unsigned char *)text, png, (int)len), 0);
    (void)buf_printf(&b, "{\"prompt\":\"inline [[job:inline]]\",\"strength\":0.5,\"image\":\"data:image/png;base64,");
    (void)buf_add(&b, text, strlen(text));
    (void)buf_add(&b, "\"}", 2);
    free(text);
    free(png);
    return buf_take(&b);
}

Test(inputs, inline_uploaded_and_made_pictures_are_inputs_too)
{
    static const struct house_options options = { .sandbox_config = "{\"image_size_cap\":64}" };
    struct house *h = house_open(&options);
    char params[256], *text = data_uri_params(128, 96), *upload = house_upload(h, 96, 96);
    struct reply job = house_run(h, ULTRA, text, LIMIT_MS);

    cr_expect_str_eq(reply_text(&job, "state"), "succeeded", "%s", job.text);
    (void)snprintf(params, sizeof(params), "{\"prompt\":\"again [[job:again]]\",\"strength\":0.5,\"image\":\"%s\"}",
                   reply_text(&job, "artifacts.0.id"));
    reply_done(&job);
    job = house_run(h, ULTRA, params, LIMIT_MS);
    cr_expect_str_eq(reply_text(&job, "state"), "succeeded", "an artifact: %s", job.text);
    reply_done(&job);
    (void)snprintf(params, sizeof(params), "{\"prompt\":\"up [[job:up]]\",\"strength\":0.5,\"image\":\"%s\"}", upload);
    job = house_run(h, ULTRA, params, LIMIT_MS);
    cr_expect_str_eq(reply_text(&job, "state"), "succeeded", "an upload: %s", job.text);
    reply_done(&job);
    cr_expect_eq(house_counter(h, NULL, "paid"), 3);
    cr_expect_float_eq(house_balance(h, "default"), 1000 - 24, 1e-9);
    cr_expect_float_eq(house_held(h, "default"), 0, 1e-9);
    free(upload);
    free(text);
    house_close(h);
}
