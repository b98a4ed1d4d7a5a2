/* test_openai_all.c - OpenAI's edits and variations through the whole house: files and masks arrive, fewer pictures
 * than ordered are charged as that many, and what does not fit is refused before money moves. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/evp.h>
#include "common/base/text.h"
#include "tests/integration/house/cases.h"

SUPPORT_SERVICES();

enum { LIMIT_MS = 60000 };

#define EDIT      "openai.images.edit"
#define VARIATION "openai.images.variation"
#define SMALL     "\"model\":\"dall-e-2\",\"size\":\"256x256\""

static const struct row {
    const char *name, *operation, *params; /* %s: an upload */
    double charged;
    int count, paid; /* paid -1: no prompt, so no tag to count by */
    const char *mime;
} table[] = {
    { "one", EDIT, "{\"prompt\":\"dusk [[job:one]]\",\"image\":\"%s\",\"quality\":\"low\"}", 0.9, 1, 1, "image/png" },
    { "several", EDIT,
      "{\"prompt\":\"a room [[job:several]]\",\"model\":\"gpt-image-1\",\"image\":[\"%s\",\"%s\"],\"mask\":\"%s\","
      "\"quality\":\"low\",\"input_fidelity\":\"high\",\"output_format\":\"jpeg\"}",
      1.1, 1, 1, "image/jpeg" },
    { "json", EDIT,
      "{\"prompt\":\"dawn [[job:json]]\",\"image\":[\"%s\",\"%s\"],\"mask\":\"%s\",\"moderation\":\"low\",\"quality\":"
      "\"low\"}",
      0.9, 1, 1, "image/png" },
    { "dalle", EDIT, "{" SMALL ",\"prompt\":\"a hat [[job:dalle]]\",\"image\":[\"%s\"],\"mask\":\"%s\",\"n\":3}", 4.8,
      3, 1, "image/png" },
    { "fewer", EDIT,
      "{" SMALL ",\"prompt\":\"a cat [[job:fewer]] [[fault:partial=2]]\",\"image\":\"%s\",\"mask\":\"%s\",\"n\":4}",
      3.2, 2, 1, "image/png" },
    { "base64", EDIT,
      "{" SMALL
      ",\"prompt\":\"a dog [[job:base64]]\",\"image\":\"%s\",\"mask\":\"%s\",\"response_format\":\"b64_json\"}",
      1.6, 1, 1, "image/png" },
    { "routed", "image.edit", "{\"prompt\":\"rain [[job:routed]]\",\"image\":\"%s\"}", 3.4, 1, 1, "image/png" },
    { "variation", VARIATION, "{\"image\":\"%s\",\"size\":\"256x256\",\"n\":2}", 3.2, 2, -1, "image/png" },
    { "variation64", VARIATION, "{\"image\":\"%s\",\"size\":\"256x256\",\"response_format\":\"b64_json\"}", 1.6, 1, -1,
      "image/png" },
};

static char *filled(const char *params, const char *upload)
{
    struct buf b = { 0 };

    for (const char *p = params; *p; p++) {
        bool is_hole = p[0] == '%' && p[1] == 's';

        (void)buf_add(&b, is_hole ? upload : p, is_hole ? strlen(upload) : 1);
        p += is_hole;
    }
    return buf_take(&b);
}

static void expect_row(struct house *h, const struct row *want, const char *id)
{
    struct reply job = house_wait(h, id, LIMIT_MS);
    char path[64], sql[128];

    cr_expect_str_eq(reply_text(&job, "state"), "succeeded", "%s: %s", want->name, job.text);
    cr_expect_float_eq(reply_number(&job, "credits.charged"), want->charged, 1e-9, "%s: %s", want->name, job.text);
    for (int i = 0; i < want->count; i++) {
        (void)snprintf(path, sizeof(path), "artifacts.%d.mime", i);
        cr_expect_str_eq(reply_text(&job, path), want->mime, "%s: %s", want->name, job.text);
    }
    cr_expect_eq(strlen(reply_text(&job, "artifacts.0.blurhash")), 28, "%s", job.text);
    cr_expect_eq(reply_text(&job, "artifacts.0.color")[0], '#', "%s", job.text);
    (void)snprintf(sql, sizeof(sql), "select count(*) from artifacts where job_id = '%s'", id);
    cr_expect_eq(support_sql_int(h->db, sql), want->count, "%s", want->name);
    if (want->paid >= 0)
        cr_expect_eq(house_counter(h, want->name, "paid"), want->paid, "%s", want->name);
    reply_done(&job);
}

Test(openai, edits_and_variations_deliver_at_the_page_s_price)
{
    struct house *h = house_open(NULL);
    char *upload = house_upload(h, 256, 256), ids[sizeof(table) / sizeof(table[0])][40];

    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        char *params = filled(table[i].params, upload);

        house_submit(h, ids[i], table[i].operation, params);
        free(params);
    }
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        expect_row(h, &table[i], ids[i]);
    cr_expect_float_eq(house_held(h, "default"), 0, 1e-9);
    free(upload);
    house_close(h);
}

static void expect_refused(struct house *h, const char *params, const char *field, const char *message)
{
    char *body = malloc(strlen(params) + 64);
    struct reply r;

    (void)sprintf(body, "{\"operation\":\"" EDIT "\",\"params\":%s}", params);
    r = house_call(h, "POST", "/v1/jobs", body, NULL);
    cr_expect_eq(r.status, 422, "%s", r.text);
    cr_expect(strstr(r.text, field) != NULL && strstr(r.text, message) != NULL, "%s: %s", field, r.text);
    reply_done(&r);
    free(body);
}

Test(openai, files_that_do_not_fit_each_other_or_the_model_cost_nothing)
{
    struct house *h = house_open(NULL);
    char *small = house_upload(h, 64, 64), *wide = house_upload(h, 96, 64), params[4096], uri[3072] = "";
    size_t len = 0;
    void *png = house_picture(8, 8, &len);

    (void)snprintf(params, sizeof(params), "{\"prompt\":\"a\",\"image\":\"%s\",\"mask\":\"%s\"}", small, wide);
    expect_refused(h, params, "params.mask", "must be as large as image, 64x64, got 96x64");
    (void)snprintf(params, sizeof(params),
                   "{\"prompt\":\"a\",\"model\":\"dall-e-2\",\"size\":\"256x256\",\"image\":\"%s\"}", wide);
    expect_refused(h, params, "params.image[0]", "must have a ratio between 1:1 and 1:1");
    cr_assert_lt(len, 2048);
    cr_assert_gt(EVP_EncodeBlock((unsigned char *)uri, png, (int)len), 0);
    (void)snprintf(
        params, sizeof(params),
        "{\"prompt\":\"a\",\"model\":\"dall-e-2\",\"size\":\"256x256\",\"image\":\"data:image/png;base64,%s\"}", uri);
    expect_refused(h, params, "params.image[0]", "must have an alpha channel");
    cr_expect_eq(support_sql_int(h->db, "select count(*) from ledger where kind <> 'grant'"), 0);
    cr_expect_eq(house_counter(h, NULL, "requests"), 0);
    free(png);
    free(small);
    free(wide);
    house_close(h);
}

Test(openai, a_dall_e_3_prompt_of_4001_characters_costs_nothing)
{
    struct house *h = house_open(NULL);
    struct buf b = { 0 };
    struct reply r;

    (void)buf_printf(&b, "{\"operation\":\"openai.images.generate\",\"params\":{\"model\":\"dall-e-3\",\"prompt\":\"");
    for (int i = 0; i < 4001; i++)
        (void)buf_add(&b, "\xe9\x87\x91", 3); /* a character of three bytes: characters count, not bytes */
    (void)buf_add(&b, "\"}}", 3);
    r = house_call(h, "POST", "/v1/jobs", b.data, NULL);
    cr_expect_eq(r.status, 422, "%s", r.text);
    cr_expect_not_null(strstr(r.text, "at most 4000 characters"), "%s", r.text);
    cr_expect_eq(support_sql_int(h->db, "select count(*) from ledger where kind <> 'grant'"), 0);
    reply_done(&r);
    buf_done(&b);
    house_close(h);
}

/* The second of the same pictures is known by its look. The promise of a size is broken by a sandbox that draws small.
 */
Test(openai, what_is_no_result_is_paid_and_not_charged)
{
    static const struct house_options options = {
        .catalog = "{\"provider\":\"openai\",\"placeholders\":[{\"why\":\"nothing yet\",\"blurhash\":\"%s\"}]}"
    };
    static const char params[] = "{" SMALL ",\"prompt\":\"a wall [[job:wall]]\",\"image\":\"%s\",\"mask\":\"%s\"}";
    struct house *h = house_open(NULL);
    struct house_options with = options;
    char *upload = house_upload(h, 256, 256), *filled_in = filled(params, upload), *overlay;
    struct reply job = house_run(h, EDIT, filled_in, LIMIT_MS);

    cr_assert_str_eq(reply_text(&job, "state"), "succeeded", "%s", job.text);
    overlay = filled(options.catalog, reply_text(&job, "artifacts.0.blurhash"));
    reply_done(&job);
    house_sandbox_config(h, "{\"image_size_cap\":64}");
    job = house_run(h, EDIT, filled_in, LIMIT_MS);
    cr_expect_str_eq(reply_text(&job, "error.code"), "bad_result", "%s", job.text);
    cr_expect_not_null(strstr(job.text, "asked for 256x256, got 64x64"), "%s", job.text);
    reply_done(&job);
    free(filled_in);
    free(upload);
    house_close(h);
    with.catalog = overlay;
    h = house_open(&with);
    upload = house_upload(h, 256, 256);
    filled_in = filled(params, upload);
    job = house_run(h, EDIT, filled_in, LIMIT_MS);
    cr_expect_str_eq(reply_text(&job, "error.code"), "bad_result", "%s", job.text);
    cr_expect_not_null(strstr(job.text, "a placeholder: nothing yet"), "%s", job.text);
    cr_expect_float_eq(house_balance(h, "default"), 1000, 1e-9);
    cr_expect_eq(house_counter(h, "wall", "paid"), 1);
    reply_done(&job);
    free(overlay);
    free(filled_in);
    free(upload);
    house_close(h);
}
