/* test_local.c - Stable Diffusion on one's own machine through the whole house: no key, one job at a time a server,
 * nothing paid to anybody, and the same promises as everywhere. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/integration/house/cases.h"

SUPPORT_SERVICES();

#define TXT2IMG "a1111.txt2img"
#define IMG2IMG "a1111.img2img"
#define TINY    ",\"width\":64,\"height\":64"
#define OWN     0.1 /* credits an image, or a workflow */

enum { LIMIT_MS = 60000 };

static const struct house_options quick = { .sandbox_config = "{\"delay_ms\":{\"local\":50}}" };

Test(local, a1111_delivers_and_fails_as_its_page_says)
{
    static const struct want wants[] = {
        { .tag = "plain",
          .operation = TXT2IMG,
          .extra = TINY ",\"seed\":7,\"sampler_name\":\"Euler a\"",
          .charged = OWN,
          .requests = 1,
          .paid = 1,
          .attempts = 1 },
        { .tag = "batch",
          .operation = TXT2IMG,
          .extra = TINY ",\"batch_size\":3",
          .charged = 3 * OWN,
          .requests = 1,
          .paid = 1,
          .attempts = 1 },
        { .tag = "partial",
          .operation = TXT2IMG,
          .extra = TINY ",\"batch_size\":3",
          .fault = "partial=2",
          .charged = 2 * OWN,
          .requests = 1,
          .paid = 1,
          .attempts = 1 },
        { .tag = "larger",
          .operation = TXT2IMG,
          .extra = TINY ",\"enable_hr\":true,\"hr_scale\":2",
          .charged = OWN,
          .requests = 1,
          .paid = 1,
          .attempts = 1 },
        { .tag = "memory",
          .operation = TXT2IMG,
          .extra = TINY,
          .fault = "status=500,times=1",
          .charged = OWN,
          .requests = 2,
          .paid = 1,
          .attempts = 2 },
        { .tag = "memory2",
          .operation = TXT2IMG,
          .extra = TINY,
          .fault = "status=500",
          .code = "provider_error",
          .retryable = true,
          .requests = 2,
          .attempts = 2,
          .status = 500,
          .message = "CUDA out of memory" },
        { .tag = "sampler",
          .operation = TXT2IMG,
          .extra = TINY ",\"sampler_name\":\"Nobody's\"",
          .code = "invalid_request",
          .requests = 1,
          .attempts = 1,
          .status = 404,
          .message = "Sampler not found" },
        { .tag = "auth",
          .operation = TXT2IMG,
          .extra = TINY,
          .fault = "status=401",
          .code = "auth",
          .requests = 1,
          .attempts = 1,
          .status = 401 },
        { .tag = "cut",
          .operation = TXT2IMG,
          .extra = TINY,
          .fault = "drop_after,times=1",
          .charged = OWN,
          .requests = 2,
          .paid = 2,
          .attempts = 2 },
        { .tag = "empty",
          .operation = TXT2IMG,
          .extra = TINY,
          .fault = "empty",
          .code = "bad_response",
          .requests = 1,
          .paid = 1,
          .attempts = 1 },
        { .tag = "blank",
          .operation = TXT2IMG,
          .extra = TINY,
          .fault = "blank",
          .code = "bad_result",
          .requests = 1,
          .paid = 1,
          .attempts = 1 },
    };
    struct house *h = house_open(&quick);

    cases_run(h, wants, sizeof(wants) / sizeof(wants[0]), LIMIT_MS);
    cr_expect_eq(support_sql_int(h->db, "select coalesce(sum(cost_microusd), 0) from attempts"), 0,
                 "one's own machine costs nothing");
    house_close(h);
}

Test(local, a1111_paints_over_an_image_of_ours)
{
    struct house *h = house_open(&quick);
    char *upload = house_upload(h, 64, 64), params[400];
    struct reply job;

    (void)snprintf(
        params, sizeof(params),
        "{\"prompt\":\"moss [[job:over]]\",\"init_images\":[\"%s\"],\"mask\":\"%s\",\"denoising_strength\":0.5,"
        "\"width\":64,\"height\":64,\"seed\":41}",
        upload, upload);
    job = house_run(h, IMG2IMG, params, LIMIT_MS);
    cr_expect_str_eq(reply_text(&job, "state"), "succeeded", "%s", job.text);
    cr_expect_str_eq(reply_text(&job, "artifacts.0.seed"), "41", "%s", job.text);
    cr_expect_float_eq(reply_number(&job, "credits.charged"), OWN, 1e-9, "%s", job.text);
    cr_expect_eq(house_counter(h, "over", "paid"), 1);
    reply_done(&job);
    free(upload);
    house_close(h);
}

/* ---- ComfyUI ---- */

#define COMFY "comfyui.prompt"

static const char workflow[] =
    "{\"4\":{\"class_type\":\"CheckpointLoaderSimple\",\"inputs\":{\"ckpt_name\":\"%s\"}},"
    "\"5\":{\"class_type\":\"EmptyLatentImage\",\"inputs\":{\"width\":64,\"height\":64,\"batch_size\":\"{{batch_size}}\"}},"
    "\"6\":{\"class_type\":\"CLIPTextEncode\",\"inputs\":{\"text\":\"copper, {{prompt}}, {{mood}}\",\"clip\":[\"4\",1]}},"
    "\"7\":{\"class_type\":\"CLIPTextEncode\",\"inputs\":{\"text\":\"{{negative_prompt}}\",\"clip\":[\"4\",1]}},"
    "\"3\":{\"class_type\":\"KSampler\",\"inputs\":{\"seed\":\"{{seed}}\",\"steps\":20,\"cfg\":7.0,\"sampler_name\":\"euler\","
    "\"scheduler\":\"normal\",\"denoise\":1.0,\"model\":[\"4\",0],\"positive\":[\"6\",0],\"negative\":[\"7\",0],"
    "\"latent_image\":[\"5\",0]}},"
    "\"8\":{\"class_type\":\"VAEDecode\",\"inputs\":{\"samples\":[\"3\",0],\"vae\":[\"4\",2]}},%s"
    "\"9\":{\"class_type\":\"SaveImage\",\"inputs\":{\"filename_prefix\":\"job\",\"images\":[\"8\",0]}}}";

enum { CASES = 16, EXTRA_BYTES = 2500 };

#define MODEL "sd_xl_base_1.0.safetensors"
#define SOON  "\"comfyui.prompt\":{\"poll\":{\"first_ms\":100,\"every_ms\":100}}"

static const struct house_options comfy = {
    .sandbox_config = "{\"delay_ms\":{\"local\":300}}",
    .catalog = "{\"provider\":\"comfyui\",\"lane\":{\"concurrency\":1},\"operations\":{" SOON "}}",
};
static const struct house_options comfy_dear = {
    /* slow enough to be listed still when it is asked for */
    .sandbox_config = "{\"delay_ms\":{\"local\":2000}}",
    .catalog =
        "{\"provider\":\"comfyui\",\"operations\":{\"comfyui.prompt\":{\"poll\":{\"first_ms\":100,\"every_ms\":100},"
        "\"on_unknown\":\"fail\"}}}",
};

static char *extra(const char *model, const char *nodes, const char *more)
{
    char *flow = malloc(EXTRA_BYTES), *out = malloc(EXTRA_BYTES);

    (void)snprintf(flow, EXTRA_BYTES, workflow, model, nodes);
    (void)snprintf(out, EXTRA_BYTES, ",\"workflow\":%s%s", flow, more);
    free(flow);
    return out;
}

#define MOOD ",\"values\":{\"mood\":\"quiet\"}"

static void comfy_run(const struct house_options *options, struct want *wants, size_t count)
{
    struct house *h = house_open(options);
    char *made[CASES];

    for (size_t i = 0; i < count; i++)
        wants[i].extra = made[i] =
            extra(wants[i].operation ? MODEL : "nobody's", "", wants[i].extra ? wants[i].extra : MOOD);
    for (size_t i = 0; i < count; i++)
        wants[i].operation = COMFY;
    cases_run(h, wants, count, LIMIT_MS);
    for (size_t i = 0; i < count; i++)
        free(made[i]);
    cr_expect_eq(support_sql_int(h->db, "select coalesce(sum(cost_microusd), 0) from attempts"), 0,
                 "one's own machine costs nothing");
    house_close(h);
}

Test(local, comfyui_delivers_and_fails_as_its_page_says)
{
    struct want wants[] = {
        { .tag = "flow", .operation = COMFY, .charged = OWN, .requests = 1, .paid = 1, .attempts = 1 },
        { .tag = "three",
          .operation = COMFY,
          .extra = MOOD ",\"batch_size\":3,\"seed\":5",
          .charged = 3 * OWN,
          .requests = 1,
          .paid = 1,
          .attempts = 1 },
        { .tag = "model",
          .operation = NULL,
          .code = "invalid_request",
          .requests = 1,
          .attempts = 1,
          .status = 400,
          .message = "Value not in list: ckpt_name" },
        { .tag = "slot",
          .operation = COMFY,
          .extra = ",\"seed\":5",
          .code = "invalid_request",
          .requests = 0,
          .attempts = 1 },
        { .tag = "error",
          .operation = COMFY,
          .fault = "fail",
          .code = "provider_error",
          .retryable = true,
          .requests = 1,
          .paid = 1,
          .attempts = 1,
          .message = "Allocation on device" },
        { .tag = "trouble",
          .operation = COMFY,
          .fault = "status=500,times=1",
          .charged = OWN,
          .requests = 2,
          .paid = 1,
          .attempts = 2 },
        { .tag = "nothing",
          .operation = COMFY,
          .fault = "empty",
          .code = "bad_response",
          .requests = 1,
          .paid = 1,
          .attempts = 1 },
        { .tag = "cleared",
          .operation = COMFY,
          .fault = "null_job,at=poll",
          .code = "not_found",
          .requests = 1,
          .paid = 1,
          .attempts = 1,
          .message = "knows nothing" },
        { .tag = "word",
          .operation = COMFY,
          .fault = "unknown_status=2",
          .charged = OWN,
          .requests = 1,
          .paid = 1,
          .attempts = 1 },
        { .tag = "no-id",
          .operation = COMFY,
          .fault = "missing_id",
          .code = "bad_response",
          .requests = 1,
          .paid = 1,
          .attempts = 1 },
    };

    comfy_run(&comfy, wants, sizeof(wants) / sizeof(wants[0]));
}

/* The prompt is in the queue, its answer is lost: kiln asks the queue for its client_id, and pays nothing twice. */
Test(local, comfyui_is_asked_what_became_of_a_submit_whose_answer_is_lost)
{
    struct want wants[] = {
        { .tag = "taken",
          .operation = COMFY,
          .fault = "drop_after",
          .charged = OWN,
          .requests = 1,
          .paid = 1,
          .attempts = 1 },
        { .tag = "line",
          .operation = COMFY,
          .fault = "drop_at=0",
          .charged = OWN,
          .requests = 1,
          .paid = 1,
          .attempts = 1 },
        { .tag = "half-line",
          .operation = COMFY,
          .fault = "drop_at=16",
          .charged = OWN,
          .requests = 1,
          .paid = 1,
          .attempts = 1 },
        { .tag = "gateway",
          .operation = COMFY,
          .fault = "status=504",
          .code = "outcome_unknown",
          .requests = 1,
          .attempts = 1 },
        { .tag = "never",
          .operation = COMFY,
          .fault = "drop_before",
          .code = "outcome_unknown",
          .requests = 1,
          .attempts = 1 },
    };

    comfy_run(&comfy_dear, wants, sizeof(wants) / sizeof(wants[0]));
}

Test(local, comfyui_a_no_leaves_it_to_on_unknown)
{
    struct want wants[] = {
        { .tag = "never",
          .operation = COMFY,
          .fault = "drop_before,times=1",
          .charged = OWN,
          .requests = 2,
          .paid = 1,
          .attempts = 2 },
        { .tag = "taken",
          .operation = COMFY,
          .fault = "drop_after,times=1",
          .charged = OWN,
          .requests = 1,
          .paid = 1,
          .attempts = 1 },
    };

    comfy_run(&comfy, wants, sizeof(wants) / sizeof(wants[0]));
}

Test(local, comfyui_is_given_the_picture_before_the_workflow)
{
    struct house *h = house_open(&comfy);
    char *upload = house_upload(h, 64, 64), more[200], *fields, *params = malloc(EXTRA_BYTES + 200);
    struct reply job;

    (void)snprintf(more, sizeof(more), MOOD ",\"image\":\"%s\"", upload);
    fields = extra(MODEL, "\"10\":{\"class_type\":\"LoadImage\",\"inputs\":{\"image\":\"{{image}}\"}},", more);
    (void)snprintf(params, EXTRA_BYTES + 200, "{\"prompt\":\"moss [[job:loaded]]\"%s}", fields);
    job = house_run(h, COMFY, params, LIMIT_MS);
    cr_expect_str_eq(reply_text(&job, "state"), "succeeded", "%s", job.text);
    cr_expect_eq(house_counter(h, "loaded", "paid"), 1);
    reply_done(&job);
    free(fields);
    free(params);
    free(upload);
    house_close(h);
}

/* Whoever sent it dies between send and checkpoint: the next worker asks, finds it and waits for it. */
Test(local, comfyui_is_asked_by_whoever_takes_over_from_the_dead)
{
    static const char *const death[] = { "KILN_FAILPOINTS=worker.after_answer=crash@1", NULL };
    static const struct house_options options = {
        .sandbox_config = "{\"delay_ms\":{\"local\":12000}}",
        .catalog = "{\"provider\":\"comfyui\",\"operations\":{\"comfyui.prompt\":{\"poll\":{\"first_ms\":100,"
                   "\"every_ms\":100},\"on_unknown\":\"fail\"}}}",
        .no_worker = true,
    };
    struct house *h = house_open(&options);
    char *fields = extra(MODEL, "", MOOD), *params = malloc(EXTRA_BYTES + 200), id[40];
    struct reply job;
    int first = house_worker_start(h, death);

    (void)snprintf(params, EXTRA_BYTES + 200, "{\"prompt\":\"moss [[job:taken-over]]\"%s}", fields);
    house_submit(h, id, COMFY, params);
    cr_assert_neq(house_wait_exit(&h->workers[first], 20000), -1, "it has died with the answer in its hands");
    (void)house_worker_start(h, NULL);
    job = house_wait(h, id, LIMIT_MS);
    cr_expect_str_eq(reply_text(&job, "state"), "succeeded", "%s", job.text);
    cr_expect_eq(reply_int(&job, "attempts"), 1, "%s", job.text);
    cr_expect_eq(house_counter(h, "taken-over", "requests"), 1);
    cr_expect_eq(house_counter(h, "taken-over", "paid"), 1);
    cr_expect_eq(support_sql_int(h->db, "select count(*) from attempts where class = 'answered' and ref is not null"),
                 1);
    reply_done(&job);
    free(fields);
    free(params);
    house_close(h);
}

/* One that waits there is taken out of the queue; one that runs is left alone: /interrupt would stop anybody's. */
Test(local, comfyui_forgets_what_its_customer_canceled)
{
    static const struct house_options options = {
        .sandbox_config = "{\"delay_ms\":{\"local\":4000}}",
        .catalog = "{\"provider\":\"comfyui\",\"lane\":{},\"operations\":{" SOON "}}",
    };
    struct house *h = house_open(&options);
    char *fields = extra(MODEL, "", MOOD), *params = malloc(EXTRA_BYTES + 200), ids[2][40], path[80];
    struct reply r;

    for (int i = 0; i < 2; i++) {
        (void)snprintf(params, EXTRA_BYTES + 200, "{\"prompt\":\"moss [[job:c%d]]\"%s}", i, fields);
        house_submit(h, ids[i], COMFY, params);
        cr_expect(house_wait_sql(h, "select count(*) from attempts where ref is not null", i + 1, 10000));
    }
    (void)snprintf(path, sizeof(path), "/v1/jobs/%s/cancel", ids[1]);
    r = house_call(h, "POST", path, NULL, NULL);
    cr_expect_str_eq(reply_text(&r, "state"), "canceled", "%s", r.text);
    reply_done(&r);
    r = house_wait(h, ids[0], LIMIT_MS);
    cr_expect_str_eq(reply_text(&r, "state"), "succeeded", "%s", r.text);
    cr_expect_eq(house_counter(h, NULL, "canceled"), 1, "ComfyUI has deleted the one that waited");
    reply_done(&r);
    free(fields);
    free(params);
    house_close(h);
}
