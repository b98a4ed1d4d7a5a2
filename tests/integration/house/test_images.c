/* test_images.c - synchronous picture providers through the whole house: what is delivered, what it costs, what is
 * asked again and what ends the job. One house, all jobs at once. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/integration/house/house.h"

SUPPORT_SERVICES();

enum { LIMIT_MS = 60000, NOT_ASKED = -1 };

static const struct row {
    const char *tag, *operation, *params; /* %s: an upload, as often as it is there */
    const char *code;                     /* NULL: it succeeds */
    double charged;
    const char *mime;
    int count, requests, paid;
} table[] = {
    { "hf", "huggingface.text_to_image",
      "{\"model\":\"org/name\",\"prompt\":\"a sextant [[job:hf]]\",\"width\":128,\"height\":96,\"num_inference_steps\":4}",
      NULL, 0.2, "image/jpeg", 1, 1, 1 },
    { "hfload", "huggingface.text_to_image",
      "{\"model\":\"org/name\",\"inputs\":\"a kite [[job:hfload]][[fault:status=503,code=loading,times=1]]\",\"width\":64,"
      "\"height\":64,\"seed\":3}",
      NULL, 0.2, "image/jpeg", 1, 2, 1 },
    { "hfold", "huggingface.text_to_image",
      "{\"model\":\"org/name\",\"prompt\":\"a kite [[job:hfold]][[fault:status=503,code=legacy,times=1]]\",\"width\":64,"
      "\"height\":64}",
      NULL, 0.2, "image/jpeg", 1, 2, 1 },
    { "hfdev", "huggingface.text_to_image",
      "{\"model\":\"black-forest-labs/FLUX.1-dev\",\"prompt\":\"a kite [[job:hfdev]]\"}", "not_found", 0, NULL, 0, 1,
      0 },
    { "hfgone", "huggingface.text_to_image",
      "{\"model\":\"stabilityai/stable-diffusion-xl-base-1.0\",\"prompt\":\"a kite [[job:hfgone]]\"}", "not_found", 0,
      NULL, 0, 1, 0 },
    { "hfpage", "huggingface.text_to_image",
      "{\"model\":\"org/name\",\"prompt\":\"a kite [[job:hfpage]][[fault:html,status=200]]\"}", "bad_response", 0, NULL,
      0, 1, NOT_ASKED },
    { "hfblack", "huggingface.text_to_image",
      "{\"model\":\"org/name\",\"prompt\":\"a kite [[job:hfblack]][[fault:moderated]]\",\"width\":64,\"height\":64}",
      "bad_result", 0, NULL, 0, 1, 1 },
    { "gem", "google.gemini_image",
      "{\"prompt\":\"a fox [[job:gem]]\",\"aspectRatio\":\"4:3\",\"image\":[\"%s\",\"%s\"]}", NULL, 3.9, "image/png", 1,
      1, 1 },
    { "gemno", "google.gemini_image", "{\"prompt\":\"a fox [[job:gemno]][[fault:moderated]]\"}", "content_filtered", 0,
      NULL, 0, 1, 0 },
    { "gemsafe", "google.gemini_image", "{\"prompt\":\"a fox [[job:gemsafe]][[fault:filtered]]\"}", "content_filtered",
      0, NULL, 0, 1, 1 },
    { "gemtext", "google.gemini_image", "{\"prompt\":\"a fox [[job:gemtext]][[fault:empty]]\"}", "bad_response", 0,
      NULL, 0, 1, 1 },
    { "gemland", "google.gemini_image", "{\"prompt\":\"a fox [[job:gemland]][[fault:status=400,code=region]]\"}",
      "region_blocked", 0, NULL, 0, 1, 0 },
    { "gemday", "google.gemini_image", "{\"prompt\":\"a fox [[job:gemday]][[fault:status=429,code=perday]]\"}",
      "insufficient_funds", 0, NULL, 0, 1, 0 },
    { "gembusy", "google.gemini_image", "{\"prompt\":\"a fox [[job:gembusy]][[fault:status=503,times=1]]\"}", NULL, 3.9,
      "image/png", 1, 2, 1 },
    { "img", "google.imagen", "{\"prompt\":\"a bakery [[job:img]]\",\"sampleCount\":2,\"aspectRatio\":\"16:9\"}", NULL,
      8, "image/png", 2, 1, 1 },
    { "imgsome", "google.imagen",
      "{\"prompt\":\"a bakery [[job:imgsome]][[fault:partial=1]]\",\"sampleCount\":3,\"model\":\"imagen-4.0-fast-generate-001\"}",
      NULL, 2, "image/png", 1, 1, 1 },
    { "imgno", "google.imagen", "{\"prompt\":\"a bakery [[job:imgno]][[fault:moderated]]\"}", "content_filtered", 0,
      NULL, 0, 1, 0 },
    { "edit", "volcengine.images.generate",
      "{\"model\":\"doubao-seededit-3-0-i2i-250628\",\"prompt\":\"a room [[job:edit]]\",\"image\":[\"%s\"],\"watermark\":false}",
      NULL, 20, "image/jpeg", 1, 1, 1 },
    { "sd1k", "volcengine.images.generate",
      "{\"prompt\":\"a room [[job:sd1k]]\",\"size\":\"1K\",\"response_format\":\"b64_json\"}", NULL, 15, "image/jpeg",
      1, 1, 1 },
    { "sdgroup", "volcengine.images.generate",
      "{\"prompt\":\"a room [[job:sdgroup]][[fault:partial=2]]\",\"image\":[\"%s\",\"%s\"],\"sequential_image_generation\":\"auto\",\"max_images\":3}",
      NULL, 50, "image/jpeg", 2, 1, 1 },
    { "sdnone", "volcengine.images.generate",
      "{\"prompt\":\"a room [[job:sdnone]][[fault:filtered]]\",\"sequential_image_generation\":\"auto\",\"max_images\":2}",
      "content_filtered", 0, NULL, 0, 1, 0 },
    { "sdempty", "volcengine.images.generate", "{\"prompt\":\"a room [[job:sdempty]][[fault:empty]]\"}", "bad_response",
      0, NULL, 0, 1, 0 },
    { "sdno", "volcengine.images.generate", "{\"prompt\":\"a room [[job:sdno]][[fault:moderated]]\"}",
      "content_filtered", 0, NULL, 0, 1, 0 },
    { "sdold", "volcengine.images.generate", "{\"prompt\":\"a room [[job:sdold]][[fault:status=403,at=download]]\"}",
      "not_found", 0, NULL, 0, 1, 1 },
    { "sdquota", "volcengine.images.generate",
      "{\"prompt\":\"a room [[job:sdquota]][[fault:status=429,code=SetLimitExceeded]]\"}", "insufficient_funds", 0,
      NULL, 0, 1, 0 },
    { "sdbusy", "volcengine.images.generate",
      "{\"prompt\":\"a room [[job:sdbusy]][[fault:status=429,code=ServerOverloaded,times=1]]\",\"model\":\"doubao-seedream-4-5-251128\",\"size\":\"1K\"}",
      NULL, 15, "image/jpeg", 1, 2, 1 },
};

static char *filled(const char *params, const char *upload)
{
    size_t size = strlen(params) + 8 * strlen(upload) + 1, used = 0;
    char *out = malloc(size);

    for (const char *p = params; *p; p++) {
        if (p[0] == '%' && p[1] == 's') {
            used += (size_t)snprintf(out + used, size - used, "%s", upload);
            p++;
        } else {
            out[used++] = *p;
        }
    }
    out[used] = '\0';
    return out;
}

static void expect_counter(struct house *h, const struct row *want, const char *name, int count)
{
    if (count != NOT_ASKED)
        cr_expect_eq(house_counter(h, want->tag, name), count, "%s: %s is %lld, not %d", want->tag, name,
                     (long long)house_counter(h, want->tag, name), count);
}

static void expect_row(struct house *h, const struct row *want, const char *id)
{
    struct reply job = house_wait(h, id, LIMIT_MS), file;
    char path[64];

    cr_expect_str_eq(reply_text(&job, "state"), want->code ? "failed" : "succeeded", "%s: %s", want->tag, job.text);
    cr_expect_str_eq(reply_text(&job, "error.code"), want->code ? want->code : "", "%s: %s", want->tag, job.text);
    cr_expect_float_eq(reply_number(&job, "credits.charged"), want->charged, 1e-9, "%s: %s", want->tag, job.text);
    for (int i = 0; i < want->count; i++) {
        (void)snprintf(path, sizeof(path), "artifacts.%d.mime", i);
        cr_expect_str_eq(reply_text(&job, path), want->mime, "%s: %s", want->tag, job.text);
        (void)snprintf(path, sizeof(path), "artifacts.%d.url", i);
        file = house_url("GET", reply_text(&job, path), NULL, NULL);
        (void)snprintf(path, sizeof(path), "artifacts.%d.bytes", i);
        cr_expect_eq((int64_t)file.len, reply_int(&job, path), "%s", want->tag);
        reply_done(&file);
    }
    (void)snprintf(path, sizeof(path), "artifacts.%d.mime", want->count);
    cr_expect_str_eq(reply_text(&job, path), "", "%s: more than expected: %s", want->tag, job.text);
    expect_counter(h, want, "requests", want->requests);
    expect_counter(h, want, "paid", want->paid);
    reply_done(&job);
}

Test(images, every_operation_delivers_and_fails_as_its_page_says)
{
    struct house *h = house_open(&(struct house_options){ .sandbox_config = "{\"image_size_cap\":128}" });
    char *upload = house_upload(h, 96, 64);
    char ids[sizeof(table) / sizeof(table[0])][40];

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

/* A key that the provider refuses, and one without money, are the operator's: no job is charged. */
Test(images, the_operator_s_keys_are_told_from_the_customer_s_mistakes)
{
    static const struct {
        const char *operation, *params, *bad, *broke;
    } rows[] = {
        { "huggingface.text_to_image", "{\"model\":\"org/name\",\"prompt\":\"a kite\"}", "HF_TOKEN=bad-key",
          "HF_TOKEN=broke-key" },
        { "google.gemini_image", "{\"prompt\":\"a kite\"}", "GEMINI_API_KEY=bad-key", "GEMINI_API_KEY=broke-key" },
        { "volcengine.images.generate", "{\"prompt\":\"a kite\"}", "ARK_API_KEY=bad-key", "ARK_API_KEY=broke-key" },
    };
    const char *bad[8] = { NULL }, *broke[8] = { NULL };
    size_t count = sizeof(rows) / sizeof(rows[0]);
    struct house *h = house_open(&(struct house_options){ .no_worker = true });

    for (int turn = 0; turn < 2; turn++) {
        int worker;

        for (size_t i = 0; i < count; i++) {
            bad[i] = rows[i].bad;
            broke[i] = rows[i].broke;
        }
        worker = house_worker_start(h, turn == 0 ? bad : broke);
        for (size_t i = 0; i < count; i++) {
            struct reply job = house_run(h, rows[i].operation, rows[i].params, LIMIT_MS);

            cr_expect_str_eq(reply_text(&job, "error.code"), turn == 0 ? "auth" : "insufficient_funds", "%s: %s",
                             rows[i].operation, job.text);
            cr_expect_float_eq(reply_number(&job, "credits.charged"), 0, 1e-9);
            reply_done(&job);
        }
        house_kill(&h->workers[worker], SIGKILL);
    }
    (void)house_worker_start(h, NULL);
    struct reply job =
        house_run(h, "volcengine.images.generate",
                  "{\"prompt\":\"a kite\",\"model\":\"doubao-seedream-3-0-t2i-250415\",\"size\":\"640x512\","
                  "\"seed\":4,\"guidance_scale\":2.5}",
                  LIMIT_MS);

    cr_expect_float_eq(reply_number(&job, "credits.charged"), 20, 1e-9, "%s", job.text);
    cr_expect_eq(reply_int(&job, "artifacts.0.width"), 640, "the size that was promised");
    reply_done(&job);
    house_close(h);
}
