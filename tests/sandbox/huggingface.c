/* huggingface.c - Hugging Face's router as its page describes it: POST /hf-inference/models/{org}/{model}, one picture
 * as bytes (JPEG, whatever Accept says). Errors have `error` as a text or as a list of texts.
 *
 * Any model is served but FLUX.1-dev (400: only partners have it), SDXL base (410) and everything of the organisation
 * "nobody" (404, not JSON). Codes for the fault `status`: loading (503 with estimated_time), legacy (the same under
 * 200), busy (under the given status). */
#include "sandbox.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SIDE = 1024, SIDE_MAX = 4096, COST_MILLICENTS = 120 }; /* ten seconds of a GPU */

struct order {
    int width, height;
    uint64_t seed;
};

static void hf_error(struct exchange *ex, int status, const char *text)
{
    exchange_send_json(ex, status, json_pack("{s:s}", "error", text));
}

static void hf_loading(struct exchange *ex, int status)
{
    exchange_send_json(ex, status,
                       json_pack("{s:s,s:f}", "error", "Model org/name is currently loading", "estimated_time", 1.5));
}

/* The page's error for a status that a fault asked for. */
static void hf_refuse(struct exchange *ex, int status, const char *code)
{
    static const struct {
        int status;
        const char *text;
    } rows[] = {
        { 401, "Authorization header is correct, but the token seems invalid" },
        { 402,
          "You have exceeded your monthly included credits for Inference Providers. Subscribe to PRO to get 20x more "
          "monthly included credits." },
        { 410, "The requested model is deprecated and no longer supported by provider hf-inference." },
        { 500, "unknown error" },
        { 503, "Service Unavailable" },
    };
    const char *text = "Internal Server Error";

    if (strcmp(code, "loading") == 0 || strcmp(code, "legacy") == 0) {
        hf_loading(ex, code[1] == 'e' ? 200 : status);
    } else if (strcmp(code, "busy") == 0) {
        hf_error(ex, status, "Model too busy, unable to get response in less than 60 second(s)");
    } else if (status == 400) {
        exchange_send_json(
            ex, status,
            json_pack("{s:[s]}", "error", "Input should be greater than 0: received `width` in `parameters`"));
    } else if (status == 422) {
        exchange_send_json(ex, status,
                           json_pack("{s:s,s:s}", "error", "Input validation error: `inputs` cannot be empty",
                                     "error_type", "validation"));
    } else if (status == 404) {
        exchange_send(ex, status, "text/plain", "Not Found");
    } else if (status == 429) {
        exchange_header(ex, "ratelimit", "\"api\";r=0;t=2");
        exchange_header(ex, "ratelimit-policy", "\"fixed window\";\"api\";q=500;w=300");
        hf_error(ex, status, "Rate limit reached. You reached your hourly limit.");
    } else {
        for (size_t i = 0; i < ARRAY_LEN(rows); i++)
            text = rows[i].status == status ? rows[i].text : text;
        hf_error(ex, status, text);
    }
}

/* ---- the order: false means answered */

static bool order_number(struct exchange *ex, const json_t *params, const char *name, bool is_whole)
{
    const json_t *v = json_object_get(params, name);
    char text[160];

    if (v == NULL || json_is_null(v) || (is_whole ? json_is_integer(v) : json_is_number(v)))
        return true;
    (void)snprintf(text, sizeof text, "Input should be a valid %s: received `%s` in `parameters`",
                   is_whole ? "integer" : "number", name);
    exchange_send_json(ex, 400, json_pack("{s:[s]}", "error", text));
    return false;
}

static bool order_side(struct exchange *ex, const json_t *params, const char *name, int *out)
{
    const json_t *v = json_object_get(params, name);

    *out = SIDE;
    if (!order_number(ex, params, name, true))
        return false;
    if (!json_is_integer(v))
        return true;
    if (json_integer_value(v) < 1 || json_integer_value(v) > SIDE_MAX) {
        hf_refuse(ex, 400, "");
        return false;
    }
    *out = (int)json_integer_value(v);
    return true;
}

static bool hf_order(struct exchange *ex, const json_t *body, struct order *o)
{
    const json_t *params = json_object_get(body, "parameters"), *seed = json_object_get(params, "seed");

    if (json_string_length(json_object_get(body, "inputs")) == 0) {
        hf_refuse(ex, 422, "");
        return false;
    }
    if (!order_side(ex, params, "width", &o->width) || !order_side(ex, params, "height", &o->height) ||
        !order_number(ex, params, "guidance_scale", false) || !order_number(ex, params, "num_inference_steps", true) ||
        !order_number(ex, params, "seed", true))
        return false;
    if (json_is_integer(seed)) {
        o->seed = (uint64_t)json_integer_value(seed);
    } else {
        char digits[9];

        text_random_hex(digits, 8);
        o->seed = strtoull(digits, NULL, 16);
    }
    return true;
}

/* Key, model, money and limits; false means answered. */
static bool hf_admit(struct exchange *ex, enum key_mood mood, const char *model)
{
    struct limit_ask ask = { .key = ex->account,
                             .now_ms = sandbox_now_ms(ex->box),
                             .limit = sandbox_setting(ex->box, CFG_SYNC_REQUESTS),
                             .window_ms = sandbox_setting(ex->box, CFG_SYNC_WINDOW),
                             .weight = 1 };
    int64_t wait;

    if (mood == KEY_MISSING)
        hf_error(ex, 401, "Invalid username or password.");
    else if (mood == KEY_BAD)
        hf_error(ex, 400, "Authorization header is correct, but the token seems invalid");
    else if (mood == KEY_UNVERIFIED)
        hf_error(ex, 403,
                 "This authentication method does not have sufficient permissions to call Inference Providers.");
    else if (mood == KEY_BROKE)
        hf_refuse(ex, 402, "");
    else if (strncmp(model, "nobody/", 7) == 0 || strchr(model, '/') == NULL)
        hf_refuse(ex, 404, "");
    else if (strcmp(model, "black-forest-labs/FLUX.1-dev") == 0)
        hf_error(ex, 400, "Model not supported by provider hf-inference");
    else if (strcmp(model, "stabilityai/stable-diffusion-xl-base-1.0") == 0)
        hf_refuse(ex, 410, "");
    else if ((wait = limits_take(ex->box->limits, &ask)) > 0) {
        counters_add(ex->box->counters, NULL, ex->account, COUNT_LIMITED, 1);
        exchange_header(ex, "ratelimit", "\"api\";r=0;t=%lld", (long long)((wait + 999) / 1000));
        exchange_header(ex, "ratelimit-policy", "\"fixed window\";\"api\";q=%lld;w=%lld", (long long)ask.limit,
                        (long long)((ask.window_ms + 999) / 1000));
        hf_error(ex, 429, "Rate limit reached. You reached your hourly limit.");
    } else
        return true;
    return false;
}

/* ---- the answer */

static void hf_on_painted(void *cls, struct paint *p)
{
    struct exchange *ex = cls;

    ex->paint = NULL;
    exchange_send_blob(ex, 200, picture_mime(p->specs[0].format), blob_hold(p->file));
}

static void hf_on_worked(struct exchange *ex)
{
    const struct order *o = ex->cargo;
    struct paint *p;

    if (fault_has(&ex->fault, FW_FAIL)) {
        hf_refuse(ex, 500, "");
        return;
    }
    exchange_header(ex, "x-compute-type", "gpu");
    exchange_header(ex, "x-compute-time", "10.000");
    if (fault_has(&ex->fault, FW_EMPTY)) {
        exchange_send_json(ex, 200, json_object());
        return;
    }
    p = paint_new(ex->box->gallery);
    p->specs[0] = desk_picture(ex, o->width, o->height, PICTURE_JPEG);
    p->specs[0].seed = o->seed;
    if (fault_has(&ex->fault, FW_MODERATED)) /* no words for it: an all black picture */
        p->specs[0].flaws |= (int64_t)1 << FW_BLANK;
    p->count = 1;
    exchange_paint(ex, p, hf_on_painted);
}

static void hf_generate(struct exchange *ex, enum key_mood mood, const char *model, const json_t *body)
{
    struct order *o = text_alloc(sizeof *o);

    ex->cargo = o;
    ex->cargo_free = free;
    desk_open(ex, PHASE_SUBMIT, json_string_value(json_object_get(body, "inputs")));
    if (!hf_admit(ex, mood, model) || !hf_order(ex, body, o))
        return;
    ex->images = 1;
    ex->cost = COST_MILLICENTS;
    if (desk_fault(ex, hf_refuse))
        return;
    if (!fault_has(&ex->fault, FW_FAIL))
        desk_pay(ex);
    if (!desk_taken(ex))
        exchange_wait(ex, desk_delay(ex, CFG_DELAY_SYNC_MIN), hf_on_worked);
}

void huggingface_on_request(struct exchange *ex, const char *path)
{
    static const char models[] = "/hf-inference/models/";
    char key[256], id[33];
    enum key_mood mood = desk_key(ex, "huggingface", key, sizeof key);
    json_t *body;

    text_random_hex(id, 32);
    exchange_header(ex, "x-request-id", "Root=1-%s", id);
    if (strncmp(path, models, sizeof models - 1) != 0 || strcmp(ex->method, "POST") != 0) {
        hf_refuse(ex, 404, "");
        return;
    }
    body = ex->is_too_large || ex->body.data == NULL ? NULL : json_loadb(ex->body.data, ex->body.len, 0, NULL);
    if (json_is_object(body)) {
        hf_generate(ex, mood, path + sizeof models - 1, body);
    } else {
        ex->phase = PHASE_SUBMIT;
        hf_refuse(ex, 422, "");
    }
    json_decref(body);
}
