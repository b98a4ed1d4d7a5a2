/* test_path.c - the whole path of each operation: one POST, one id, one result, paid once. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/integration/house/house.h"

SUPPORT_SERVICES();

enum { LIMIT_MS = 60000 };

struct happy {
    const char *name, *operation, *params; /* params: %s is an upload's id */
    double charged;
    int count, width, height;
    const char *mime;
};

static void expect_happy(struct house *h, const struct happy *want, const char *upload)
{
    char params[1024], path[256], tag[32];
    double before = house_balance(h, "default");
    struct reply job, file;

    (void)snprintf(params, sizeof(params), want->params, upload);
    job = house_run(h, want->operation, params, LIMIT_MS);
    cr_assert_str_eq(reply_text(&job, "state"), "succeeded", "%s: %s", want->name, job.text);
    cr_expect_float_eq(reply_number(&job, "credits.charged"), want->charged, 1e-9, "%s: %s", want->name, job.text);
    for (int i = 0; i < want->count; i++) {
        (void)snprintf(path, sizeof(path), "artifacts.%d.mime", i);
        cr_expect_str_eq(reply_text(&job, path), want->mime, "%s", want->name);
        (void)snprintf(path, sizeof(path), "artifacts.%d.width", i);
        cr_expect_eq(reply_int(&job, path), want->width, "%s: %s", want->name, job.text);
        (void)snprintf(path, sizeof(path), "artifacts.%d.url", i);
        file = house_url("GET", reply_text(&job, path), NULL, NULL); /* signed: no key needed */
        cr_expect_eq(file.status, 200, "%s: %ld", want->name, file.status);
        (void)snprintf(path, sizeof(path), "artifacts.%d.bytes", i);
        cr_expect_eq((int64_t)file.len, reply_int(&job, path), "%s", want->name);
        reply_done(&file);
    }
    (void)snprintf(path, sizeof(path), "artifacts.%d.id", want->count);
    cr_expect_str_eq(reply_text(&job, path), "", "%s: no more than asked for", want->name);
    cr_expect_float_eq(house_balance(h, "default"), before - want->charged, 1e-6, "%s", want->name);
    cr_expect_float_eq(house_held(h, "default"), 0, 1e-9, "%s", want->name);
    (void)snprintf(tag, sizeof(tag), "%s", want->name);
    cr_expect_eq(house_counter(h, tag, "paid"), 1, "%s was paid %lld times", want->name,
                 (long long)house_counter(h, tag, "paid"));
    reply_done(&job);
}

Test(path, every_operation_ends_in_a_picture_paid_once)
{
    static const struct happy table[] = {
        { "gpt", "openai.images.generate", "{\"prompt\":\"a teal kettle [[job:gpt]]\"}", 3.4, 1, 1024, 1024,
          "image/png" },
        { "gptjpeg", "openai.images.generate",
          "{\"prompt\":\"a red boat [[job:gptjpeg]]\",\"n\":2,\"quality\":\"low\",\"output_format\":\"jpeg\"}", 1.8, 2,
          1024, 1024, "image/jpeg" },
        { "dalle", "openai.images.generate", "{\"model\":\"dall-e-3\",\"prompt\":\"a harbour at dawn [[job:dalle]]\"}",
          4, 1, 1024, 1024, "image/png" },
        { "ultra", "stability.generate.ultra", "{\"prompt\":\"a fox in snow [[job:ultra]]\"}", 8, 1, 1024, 1024,
          "image/png" },
        { "sd3", "stability.generate.sd3", "{\"prompt\":\"a glass city [[job:sd3]]\",\"model\":\"sd3.5-medium\"}", 3.5,
          1, 1024, 1024, "image/png" },
        { "creative", "stability.upscale.creative", "{\"prompt\":\"sharper [[job:creative]]\",\"image\":\"%s\"}", 60, 1,
          512, 512, "image/png" },
        { "leonardo", "leonardo.generate",
          "{\"prompt\":\"an oak reading room [[job:leonardo]]\",\"num_images\":2,\"width\":512,\"height\":512,\"alchemy\":false,"
          "\"presetStyle\":\"LEONARDO\"}",
          0.4, 2, 512, 512, "image/jpeg" },
    };
    /* creative upscale is polled each 10 s by its page; here it may be asked sooner */
    static const struct house_options options = {
        .catalog =
            "{\"provider\":\"stability\",\"operations\":{\"stability.upscale.creative\":{\"poll\":{\"first_ms\":500,\"every_ms\":"
            "500}}}}",
    };
    struct house *h = house_open(&options);
    char *upload = house_upload(h, 256, 256);

    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        expect_happy(h, &table[i], upload);
    }
    free(upload);
    house_close(h);
}

Test(path, core_answers_with_the_file_itself)
{
    struct house *h = house_open(NULL);
    struct reply job = house_run(
        h, "stability.generate.core",
        "{\"prompt\":\"a lighthouse [[job:core]]\",\"aspect_ratio\":\"3:2\",\"output_format\":\"webp\"}", LIMIT_MS);

    cr_expect_str_eq(reply_text(&job, "state"), "succeeded", "%s", job.text);
    cr_expect_str_eq(reply_text(&job, "artifacts.0.mime"), "image/webp");
    cr_expect_gt(reply_int(&job, "artifacts.0.width"), reply_int(&job, "artifacts.0.height"));
    cr_expect_float_eq(reply_number(&job, "credits.charged"), 3, 1e-9);
    cr_expect_eq(house_counter(h, "core", "paid"), 1);
    cr_expect_neq(reply_text(&job, "artifacts.0.seed")[0], '\0', "the seed travels along");
    reply_done(&job);
    house_close(h);
}
