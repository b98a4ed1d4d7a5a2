/* a1111.c - AUTOMATIC1111's webui, started with --api: txt2img and img2img stay open until the pictures are there, one
 * request after the other behind one lock; progress is of the server. As providers/local-sd.md, part A, has it: nothing
 * is required but an init image, errors are {"error","detail","body","errors"}, no key, no moderation, no price. */
#include "sandbox.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { A1111_IMAGES_MAX = 10 };

struct a1111_order {
    int width, height, count;
    uint64_t seed;
    bool sends_images;
    json_t *parameters;
};

static void a1111_error(struct exchange *ex, int status, const char *name, const char *detail, const char *errors)
{
    exchange_send_json(ex, status,
                       json_pack("{s:s,s:s,s:s,s:s}", "error", name, "detail", detail, "body", "", "errors", errors));
}

static void a1111_refuse(struct exchange *ex, int status, const char *code)
{
    if (status == 401) {
        exchange_header(ex, "WWW-Authenticate", "Basic");
        exchange_send_json(ex, 401, json_pack("{s:s}", "detail", "Incorrect username or password"));
    } else if (status == 404 && code[0] == '\0') {
        exchange_send_json(ex, 404, json_pack("{s:s}", "detail", "Not Found"));
    } else if (status == 404) {
        a1111_error(ex, 404, "HTTPException", "Sampler not found", "");
    } else if (status == 422) {
        exchange_send_json(ex, 422,
                           json_pack("{s:[{s:[s,s],s:s,s:s}]}", "detail", "loc", "body", "steps", "msg",
                                     "value is not a valid integer", "type", "type_error.integer"));
    } else if (status == 500) {
        a1111_error(ex, 500, code[0] != '\0' ? code : "OutOfMemoryError", "",
                    "CUDA out of memory. Tried to allocate 9.00 GiB");
    } else {
        exchange_send_json(ex, status, json_pack("{s:s}", "detail", "sandbox"));
    }
}

/* ---- validation: false means answered ---- */

static bool a1111_invalid(struct exchange *ex, const char *name, const char *what)
{
    char text[80];

    (void)snprintf(text, sizeof text, "value is not a valid %s", what);
    exchange_send_json(
        ex, 422,
        json_pack("{s:[{s:[s,s],s:s,s:s}]}", "detail", "loc", "body", name, "msg", text, "type", "type_error"));
    return false;
}

static bool a1111_types(struct exchange *ex, const json_t *body)
{
    static const char *const integers[] = {
        "seed",  "subseed", "batch_size",  "n_iter",          "steps",
        "width", "height",  "resize_mode", "inpainting_fill", "hr_second_pass_steps"
    };
    static const char *const numbers[] = { "cfg_scale", "denoising_strength", "subseed_strength", "hr_scale" };
    static const char *const texts[] = { "prompt", "negative_prompt", "sampler_name", "scheduler", "hr_upscaler" };
    static const char *const flags[] = { "enable_hr",          "restore_faces", "tiling",
                                         "send_images",        "save_images",   "inpaint_full_res",
                                         "include_init_images" };
    const json_t *v;

    for (size_t i = 0; i < ARRAY_LEN(integers); i++)
        if ((v = json_object_get(body, integers[i])) != NULL && !json_is_null(v) && !json_is_integer(v))
            return a1111_invalid(ex, integers[i], "integer");
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
        if ((v = json_object_get(body, numbers[i])) != NULL && !json_is_null(v) && !json_is_number(v))
            return a1111_invalid(ex, numbers[i], "float");
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        if ((v = json_object_get(body, texts[i])) != NULL && !json_is_null(v) && !json_is_string(v))
            return a1111_invalid(ex, texts[i], "str");
    for (size_t i = 0; i < ARRAY_LEN(flags); i++)
        if ((v = json_object_get(body, flags[i])) != NULL && !json_is_null(v) && !json_is_boolean(v))
            return a1111_invalid(ex, flags[i], "bool");
    return true;
}

/* Base64, or a data URL. */
static bool a1111_picture(const json_t *value)
{
    const char *text = json_string_value(value), *comma;
    struct picture_info info;
    size_t len = 0;

    if (text == NULL)
        return false;
    comma = strncmp(text, "data:", 5) == 0 ? strchr(text, ',') : NULL;
    text = comma != NULL ? comma + 1 : text;
    size_t cap = strlen(text) / 4 * 3 + 3;
    unsigned char *bytes = text_alloc(cap);
    bool fine =
        sodium_base642bin(bytes, cap, text, strlen(text), NULL, &len, NULL, sodium_base64_VARIANT_ORIGINAL) == 0 &&
        codec_info(bytes, len, &info);
    free(bytes);
    return fine;
}

static bool a1111_inputs(struct exchange *ex, const json_t *body)
{
    const json_t *images = json_object_get(body, "init_images"), *mask = json_object_get(body, "mask");

    if (json_array_size(images) == 0) {
        a1111_error(ex, 404, "HTTPException", "Init image not found", "");
        return false;
    }
    for (size_t i = 0; i < json_array_size(images); i++) {
        if (!a1111_picture(json_array_get(images, i))) {
            a1111_error(ex, 500, "HTTPException", "Invalid encoded image", "");
            return false;
        }
    }
    if (mask != NULL && !json_is_null(mask) && !a1111_picture(mask)) {
        a1111_error(ex, 500, "HTTPException", "Invalid encoded image", "");
        return false;
    }
    return true;
}

static bool a1111_sampler(struct exchange *ex, const json_t *body)
{
    static const char *const known[] = { "Euler", "Euler a", "Heun", "LMS", "DDIM", "UniPC", "DPM++ 2M", "DPM++ SDE" };
    const char *name = json_string_value(json_object_get(body, "sampler_name"));

    for (size_t i = 0; name != NULL && i < ARRAY_LEN(known); i++)
        if (strcmp(known[i], name) == 0)
            return true;
    if (name != NULL)
        a1111_error(ex, 404, "HTTPException", "Sampler not found", "");
    return name == NULL;
}

/* ---- the answer ---- */

static void a1111_order_free(void *p)
{
    struct a1111_order *o = p;

    json_decref(o->parameters);
    free(o);
}

static char *a1111_info(const struct a1111_order *o, const char *prompt)
{
    json_t *seeds = json_array(), *info;
    char *plain = faults_plain_prompt(prompt == NULL ? "" : prompt), *text;

    for (int i = 0; i < o->count; i++)
        (void)json_array_append_new(seeds, json_integer((json_int_t)o->seed + i)); /* fails only without memory */
    info = json_pack("{s:s,s:I,s:o,s:[],s:s,s:i,s:i}", "prompt", plain, "seed", (json_int_t)o->seed, "all_seeds", seeds,
                     "infotexts", "sd_model_hash", "6ce0161689", "width", o->width, "height", o->height);
    text = json_dumps(info, 0);
    json_decref(info);
    free(plain);
    return text;
}

/* Everything behind the pictures: `"],"parameters":{…},"info":"…"}`. */
static char *a1111_tail(const struct a1111_order *o, const char *prompt)
{
    char *info = a1111_info(o, prompt), *parameters = json_dumps(o->parameters, JSON_COMPACT), *quoted;
    json_t *text = json_string(info);
    struct buf b = { 0 };

    quoted = json_dumps(text, JSON_ENCODE_ANY);
    buf_fmt(&b, "],\"parameters\":%s,\"info\":%s}", parameters, quoted);
    json_decref(text);
    free(quoted);
    free(parameters);
    free(info);
    return b.data;
}

static void a1111_on_painted(void *cls, struct paint *p)
{
    struct exchange *ex = cls;
    struct blob *body = blob_new(p->body.data, p->body.len);

    ex->paint = NULL;
    exchange_send_blob(ex, 200, "application/json", body);
}

static void a1111_on_worked(struct exchange *ex)
{
    const struct a1111_order *o = ex->cargo;
    int count = o->sends_images ? desk_count(&ex->fault, o->count) : 0;
    char *tail;

    if (fault_has(&ex->fault, FW_FAIL)) {
        a1111_refuse(ex, 500, "");
        return;
    }
    tail = a1111_tail(o, ex->prompt);
    if (count == 0) {
        struct buf b = { 0 };

        buf_fmt(&b, "{\"images\":%s%s", o->sends_images ? "[" : "null", tail + (o->sends_images ? 0 : 1));
        free(tail);
        exchange_send(ex, 200, "application/json", b.data);
        buf_done(&b);
        return;
    }
    struct paint *p = paint_new(ex->box->gallery);
    for (int i = 0; i < count; i++) {
        p->specs[i] = desk_picture(ex, o->width, o->height, PICTURE_PNG);
        p->specs[i].seed = o->seed + (uint64_t)i;
    }
    struct buf closed = { 0 };
    buf_fmt(&closed, "\"%s", tail);
    free(tail);
    p->count = (size_t)count;
    p->head = text_dup("{\"images\":[\"");
    p->between = text_dup("\",\"");
    p->tail = closed.data;
    exchange_paint(ex, p, a1111_on_painted);
}

static int64_t a1111_number(const json_t *body, const char *name, int64_t otherwise)
{
    const json_t *v = json_object_get(body, name);

    return json_is_integer(v) ? json_integer_value(v) : otherwise;
}

static struct a1111_order *a1111_take(const json_t *body)
{
    struct a1111_order *o = text_alloc(sizeof *o);
    const json_t *scale = json_object_get(body, "hr_scale"), *sends = json_object_get(body, "send_images");
    int64_t seed = a1111_number(body, "seed", -1),
            count = a1111_number(body, "batch_size", 1) * a1111_number(body, "n_iter", 1);
    double times = !json_is_true(json_object_get(body, "enable_hr")) ? 1 : scale == NULL ? 2 : json_number_value(scale);

    o->width = (int)((double)a1111_number(body, "width", 512) * times);
    o->height = (int)((double)a1111_number(body, "height", 512) * times);
    o->count = (int)(count < 0 ? 0 : count > A1111_IMAGES_MAX ? A1111_IMAGES_MAX : count);
    o->seed = seed < 0 ? (uint64_t)randombytes_uniform(4294967295U) : (uint64_t)seed;
    o->sends_images = !json_is_false(sends);
    o->parameters = json_deep_copy(body);
    (void)json_object_del(o->parameters, "init_images"); /* the real ones are null here; may not be there */
    (void)json_object_del(o->parameters, "mask");        /* as above */
    return o;
}

/* All requests queue on one lock. */
static int64_t a1111_wait(struct exchange *ex)
{
    struct sandbox *box = ex->box;
    int64_t now = sandbox_now_ms(box), from = box->local_busy_ms > now ? box->local_busy_ms : now;

    box->local_busy_ms = from + desk_delay(ex, CFG_DELAY_LOCAL_MIN);
    return box->local_busy_ms - now;
}

static void a1111_work(struct exchange *ex, bool has_image)
{
    const char *data = ex->body.data == NULL ? "" : ex->body.data;
    json_t *body = ex->is_too_large ? NULL : json_loadb(data, ex->body.len, 0, NULL);

    desk_open(ex, PHASE_SUBMIT, json_string_value(json_object_get(body, "prompt")));
    if (!json_is_object(body)) {
        (void)a1111_invalid(ex, "body", "dict"); /* answered */
        goto out;
    }
    if (!a1111_types(ex, body) || !a1111_sampler(ex, body) || (has_image && !a1111_inputs(ex, body)))
        goto out;
    struct a1111_order *o = a1111_take(body);
    ex->cargo = o;
    ex->cargo_free = a1111_order_free;
    ex->images = o->count;
    if (desk_fault(ex, a1111_refuse))
        goto out;
    if (!fault_has(&ex->fault, FW_FAIL))
        desk_pay(ex); /* costs nothing, but is counted: how often the machine worked */
    if (!desk_taken(ex))
        exchange_wait(ex, a1111_wait(ex), a1111_on_worked);
out:
    json_decref(body);
}

static void a1111_progress(struct exchange *ex)
{
    int64_t left = ex->box->local_busy_ms - sandbox_now_ms(ex->box);
    bool is_busy = left > 0;

    exchange_send_json(ex, 200,
                       json_pack("{s:f,s:f,s:{s:b,s:b,s:s,s:i,s:i,s:i,s:i},s:n,s:n}", "progress", is_busy ? 0.5 : 0.0,
                                 "eta_relative", is_busy ? (double)left / 1000 : 0.0, "state", "skipped", 0,
                                 "interrupted", 0, "job", is_busy ? "scripts_txt2img" : "", "job_count",
                                 is_busy ? 1 : 0, "job_no", 0, "sampling_step", is_busy ? 10 : 0, "sampling_steps",
                                 is_busy ? 20 : 0, "current_image", "textinfo"));
}

void a1111_on_request(struct exchange *ex, const char *path)
{
    bool is_post = strcmp(ex->method, "POST") == 0;

    ex->provider = "a1111";
    (void)snprintf(ex->account, sizeof ex->account, "a1111:none");
    if (is_post && (strcmp(path, "/sdapi/v1/txt2img") == 0 || strcmp(path, "/sdapi/v1/img2img") == 0))
        a1111_work(ex, strcmp(path, "/sdapi/v1/img2img") == 0);
    else if (!is_post && strcmp(path, "/sdapi/v1/progress") == 0)
        a1111_progress(ex);
    else if (!is_post && strcmp(path, "/sdapi/v1/sd-models") == 0)
        exchange_send_json(
            ex, 200, json_pack("[{s:s,s:s}]", "title", "sandbox.safetensors [6ce0161689]", "model_name", "sandbox"));
    else
        exchange_send_json(ex, 404, json_pack("{s:s}", "detail", "Not Found"));
}
