/* replicate.c - Replicate's predictions as its page describes them: by version, by official model, by deployment; poll,
 * cancel, Prefer: wait, outputs that vanish after an hour. The body is closed, FLUX inputs are checked, those of other
 * models are not. */
#include "sandbox.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { HOLD_DEFAULT_S = 60, HOLD_MAX_S = 60, ID_DIGITS = 26 };

static const char *const ratios[] = { "1:1", "16:9", "21:9", "3:2",  "2:3",  "4:5",
                                      "5:4", "3:4",  "4:3",  "9:16", "9:21", NULL };
static const char *const formats[] = { "webp", "jpg", "png", NULL };
static const char *const megapixels[] = { "1", "0.25", NULL };

/* ---- errors ---- */

static void replicate_problem(struct exchange *ex, int status, const char *title, const char *detail)
{
    exchange_send_json(ex, status, json_pack("{s:s,s:s,s:i}", "title", title, "detail", detail, "status", status));
}

static void replicate_throttled(struct exchange *ex, int64_t wait_s)
{
    char detail[96];
    (void)snprintf(detail, sizeof detail, "Request was throttled. Your rate limit resets in ~%llds.",
                   (long long)wait_s);
    exchange_send_json(ex, 429,
                       json_pack("{s:s,s:i,s:I}", "detail", detail, "status", 429, "retry_after", (json_int_t)wait_s));
}

static void replicate_refuse(struct exchange *ex, int status, const char *code)
{
    switch (status) {
    case 401:
        replicate_problem(ex, 401, "Unauthenticated", "You did not pass an authentication token");
        break;
    case 402:
        replicate_problem(ex, 402, "Insufficient credit",
                          "You have insufficient credit to run this model. Go to billing to purchase credit. Once you "
                          "purchase credit, please wait a few minutes before trying again.");
        break;
    case 404:
        replicate_problem(ex, 404, "Not found", "The requested resource could not be found.");
        break;
    case 422:
        replicate_problem(ex, 422, "Invalid version or not permitted",
                          "The specified version does not exist (or perhaps you don't have permission to use it?)");
        break;
    case 429:
        replicate_throttled(ex, 1);
        break;
    default:
        replicate_problem(ex, status, code[0] == '\0' ? "Internal error" : code, "The sandbox was asked to say so.");
    }
}

/* Answered: false. */
static bool replicate_invalid(struct exchange *ex, const char *type, const char *field, const char *text)
{
    char detail[256];
    (void)snprintf(detail, sizeof detail, "- %s: %s\n", field, text);
    exchange_send_json(ex, 422,
                       json_pack("{s:s,s:i,s:s,s:[{s:s,s:s,s:s}]}", "detail", detail, "status", 422, "title",
                                 "Input validation failed", "invalid_fields", "type", type, "field", field,
                                 "description", text));
    return false;
}

/* ---- what is asked for ---- */

struct order { /* texts are the body's or the path's */
    char model[160];
    const char *version, *prompt;
    bool is_flux, is_dev;
    int count;
    const json_t *input;
};

static bool check_word(struct exchange *ex, const json_t *input, const char *name, const char *const *words)
{
    const json_t *v = json_object_get(input, name);
    char field[64];
    if (v == NULL)
        return true;
    for (size_t i = 0; words[i] != NULL && json_is_string(v); i++)
        if (strcmp(words[i], json_string_value(v)) == 0)
            return true;
    (void)snprintf(field, sizeof field, "input.%s", name);
    return replicate_invalid(ex, "enum", field, "must be one of the allowed values");
}

static bool check_number(struct exchange *ex, const json_t *input, const char *name, double min, double max)
{
    const json_t *v = json_object_get(input, name);
    char field[64], text[80];
    if (v == NULL)
        return true;
    (void)snprintf(field, sizeof field, "input.%s", name);
    if (!json_is_number(v))
        return replicate_invalid(ex, "invalid_type", field, "must be a number");
    if (json_number_value(v) >= min && json_number_value(v) <= max)
        return true;
    (void)snprintf(text, sizeof text, "must be less than or equal to %.10g", max);
    return replicate_invalid(ex, json_number_value(v) > max ? "number_lte" : "number_gte", field, text);
}

static bool check_flux(struct exchange *ex, const struct order *o)
{
    const json_t *in = o->input, *prompt = json_object_get(in, "prompt");
    if (!json_is_string(prompt))
        return replicate_invalid(ex, "required", "input", "prompt is required");
    return check_word(ex, in, "aspect_ratio", ratios) && check_word(ex, in, "output_format", formats) &&
           check_word(ex, in, "megapixels", megapixels) && check_number(ex, in, "num_outputs", 1, 4) &&
           check_number(ex, in, "num_inference_steps", 1, o->is_dev ? 50 : 4) &&
           check_number(ex, in, "output_quality", 0, 100) && check_number(ex, in, "seed", -9e18, 9e18) &&
           check_number(ex, in, "prompt_strength", 0, 1) && check_number(ex, in, "guidance", 0, 10);
}

static bool is_version(const char *v)
{
    const char *colon = strchr(v, ':');
    const char *hash = colon != NULL ? colon + 1 : v;
    return strlen(hash) == 64 && strspn(hash, "0123456789abcdef") == 64 && (colon == NULL || strchr(v, '/') != NULL);
}

static bool check_body(struct exchange *ex, const json_t *body, struct order *o)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)body, name, value)
    {
        bool known = strcmp(name, "input") == 0 || strcmp(name, "webhook") == 0 ||
                     strcmp(name, "webhook_events_filter") == 0 || strcmp(name, "stream") == 0 ||
                     (strcmp(name, "version") == 0 && o->model[0] == '\0');
        if (!known)
            return replicate_invalid(ex, "additional_property_not_allowed", name, "is not allowed");
    }
    o->input = json_object_get(body, "input");
    if (!json_is_object(o->input))
        return replicate_invalid(ex, "required", "input", "input is required");
    if (o->model[0] == '\0') {
        o->version = json_string_value(json_object_get(body, "version"));
        if (o->version == NULL)
            return replicate_invalid(ex, "required", "version", "version is required");
        if (!is_version(o->version)) {
            replicate_refuse(ex, 422, "");
            return false;
        }
    }
    o->is_dev = strcmp(o->model, "black-forest-labs/flux-dev") == 0;
    o->is_flux = o->is_dev || strcmp(o->model, "black-forest-labs/flux-schnell") == 0;
    if (o->is_flux && !check_flux(ex, o))
        return false;
    o->count = 1;
    if (json_is_integer(json_object_get(o->input, "num_outputs")))
        o->count = (int)json_integer_value(json_object_get(o->input, "num_outputs"));
    if (o->count < 1 || o->count > PAINT_MAX)
        return replicate_invalid(ex, "number_lte", "input.num_outputs", "must be less than or equal to 10");
    return true;
}

/* ---- the prediction as JSON ---- */

static json_t *stamp(int64_t at_ms)
{
    char text[48];
    struct tm tm;
    time_t at = (time_t)(at_ms / 1000);
    size_t n = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", gmtime_r(&at, &tm));
    (void)snprintf(text + n, sizeof text - n, ".%03dZ", (int)(at_ms % 1000));
    return json_string(text);
}

/* One text, a list, or an object of texts: by the model, as models differ. */
static json_t *output_of(const struct exchange *ex, const struct job *job, const char *model)
{
    static const char *const names[] = { "image", "mask", "depth", "edges" };
    bool is_text = strstr(model, "-pro") != NULL, is_object = strstr(model, "layers") != NULL;
    json_t *out = is_object ? json_object() : json_array();
    for (int i = 0; i < job->count; i++) {
        char url[256];
        (void)snprintf(url, sizeof url, "%s/xezq/%s/out-%d.%s", ex->box->images_base, job->id, i,
                       picture_extension(job->format));
        if (is_text) {
            json_decref(out);
            return json_string(url);
        }
        if (is_object)
            (void)json_object_set_new(out, names[i % 4], json_string(url)); /* fails only without memory */
        else
            (void)json_array_append_new(out, json_string(url)); /* as above */
    }
    return out;
}

static const char *status_of(const struct exchange *ex, const struct job *job, const json_t *facts)
{
    const char *end = json_string_value(json_object_get(facts, "end"));
    int64_t now = sandbox_now_ms(ex->box);
    if (fault_has(&ex->fault, FW_UNKNOWN_STATUS))
        return "percolating";
    if (job->is_canceled)
        return "canceled";
    if (now < job->done_ms)
        return now < job->created_ms + 200 ? "starting" : "processing";
    return end != NULL ? end : "succeeded";
}

static json_t *prediction(const struct exchange *ex, const struct job *job)
{
    json_t *facts = json_loads(job->facts, 0, NULL), *o = json_object();
    const char *status = status_of(ex, job, facts), *model = json_string_value(json_object_get(facts, "model"));
    const char *host = exchange_request_header(ex, "Host");
    int64_t now = sandbox_now_ms(ex->box);
    bool is_good = strcmp(status, "succeeded") == 0, is_over = job->is_canceled || now >= job->done_ms;
    bool is_gone = is_over && now >= job->done_ms + sandbox_setting(ex->box, CFG_REPLICATE_TTL);
    /* as recorded once: all of the output is there while the status still says processing */
    bool is_early = strcmp(status, "processing") == 0 && job->done_ms - now < (job->done_ms - job->created_ms) / 4;
    char url[200];

    (void)snprintf(url, sizeof url, "http://%s/replicate/v1/predictions/%s", host == NULL ? "" : host, job->id);
    json_t *urls = json_pack("{s:s,s:o}", "get", url, "cancel", json_sprintf("%s/cancel", url));
    json_t *more =
        json_pack("{s:s,s:O,s:O,s:O,s:s,s:b,s:s,s:o,s:o,s:o}", "id", job->id, "model", json_object_get(facts, "model"),
                  "version", json_object_get(facts, "version"), "input", json_object_get(facts, "input"), "logs",
                  is_over ? json_string_value(json_object_get(facts, "logs")) : "", "data_removed", is_gone, "status",
                  status, "created_at", stamp(job->created_ms), "urls", urls, "output",
                  (is_good || is_early) && !is_gone ? output_of(ex, job, model == NULL ? "" : model) : json_null());
    json_t *error = strcmp(status, "failed") == 0 ? json_object_get(facts, "error") : NULL;
    (void)json_object_update(o, more); /* these fail only without memory */
    (void)json_object_set(o, "error", error != NULL ? error : json_null());
    if (is_gone)
        (void)json_object_set_new(o, "input", json_object());
    (void)json_object_set_new(o, "metrics", is_over ? json_pack("{s:f}", "predict_time", 1.27) : json_object());
    if (is_over)
        (void)json_object_set_new(o, "completed_at", stamp(job->done_ms));
    json_decref(more);
    json_decref(facts);
    return o;
}

/* ---- submit ---- */

static char *job_facts(const struct exchange *ex, const struct order *o, uint64_t seed)
{
    static const char nsfw[] = "NSFW content detected. Try running it again, or try a different prompt.";
    const struct fault *f = &ex->fault;
    char error[160] = "", logs[80];
    const char *end = NULL;

    if (fault_has(f, FW_MODERATED)) {
        end = "failed";
        (void)snprintf(error, sizeof error, "%s (uIJ6l3ruRD)", nsfw);
    } else if (fault_has(f, FW_FAIL) && (strcmp(f->code, "aborted") == 0 || strcmp(f->code, "canceled") == 0)) {
        end = f->code;
    } else if (fault_has(f, FW_FAIL)) {
        end = "failed";
        if (strcmp(f->code, "E003") == 0)
            (void)snprintf(error, sizeof error,
                           "Service is currently unavailable due to high demand. Please try again later. (E003)");
        else
            (void)snprintf(error, sizeof error, "Prediction failed: %s",
                           f->code[0] == '\0' ? "CUDA out of memory" : f->code);
    }
    (void)snprintf(logs, sizeof logs, "Using seed: %llu\n%s", (unsigned long long)seed,
                   fault_has(f, FW_FILTERED) ? "NSFW content detected in image 0" : "");
    json_t *all = json_pack("{s:s,s:s,s:O,s:s,s:s,s:s*}", "model", o->model, "version",
                            o->version != NULL ? o->version : "hidden", "input", o->input, "error", error, "logs", logs,
                            "end", end);
    char *text = json_dumps(all, JSON_COMPACT);
    json_decref(all);
    return text;
}

static enum picture_format format_of(const json_t *input)
{
    const char *name = json_string_value(json_object_get(input, "output_format"));
    return name == NULL || strcmp(name, "webp") == 0 ? PICTURE_WEBP
           : strcmp(name, "jpg") == 0                ? PICTURE_JPEG
                                                     : PICTURE_PNG;
}

static void size_of(const json_t *input, int *width, int *height)
{
    const char *ratio = json_string_value(json_object_get(input, "aspect_ratio"));
    const char *mega = json_string_value(json_object_get(input, "megapixels"));
    int w = 1, h = 1, side = mega != NULL && strcmp(mega, "0.25") == 0 ? 512 : 1024;
    if (ratio == NULL || sscanf(ratio, "%d:%d", &w, &h) != 2 || w < 1 || h < 1)
        w = h = 1;
    *width = w >= h ? side : side * w / h;
    *height = h >= w ? side : side * h / w;
}

static void replicate_on_held(struct exchange *ex)
{
    const char *id = ex->cargo;
    const struct job *job = jobs_find(ex->box->jobs, id);
    if (job == NULL)
        replicate_refuse(ex, 404, "");
    else
        exchange_send_json(ex, sandbox_now_ms(ex->box) >= job->done_ms ? 201 : 202, prediction(ex, job));
}

/* -1: not asked to wait. Answered when it is not a wait of 1 to 60: -2. */
static int64_t hold_s(struct exchange *ex)
{
    const char *prefer = exchange_request_header(ex, "Prefer");
    long n;
    if (prefer == NULL || strncmp(prefer, "wait", 4) != 0)
        return -1;
    n = prefer[4] == '=' ? strtol(prefer + 5, NULL, 10) : HOLD_DEFAULT_S;
    if (n < 1 || n > HOLD_MAX_S) {
        (void)replicate_invalid(ex, "number_lte", "Prefer", "wait must be between 1 and 60"); /* answered */
        return -2;
    }
    return n;
}

static void replicate_accept(struct exchange *ex, const struct order *o, int64_t hold)
{
    struct sandbox *box = ex->box;
    int64_t now = sandbox_now_ms(box), delay = desk_delay(ex, CFG_DELAY_REPLICATE_MIN);
    char *plain = faults_plain_prompt(ex->prompt == NULL ? "" : ex->prompt);
    const json_t *seed = json_object_get(o->input, "seed");
    struct job job = { .kind = PICTURE_DRAWN,
                       .prompt = text_dup(ex->prompt == NULL ? "" : ex->prompt),
                       .created_ms = now,
                       .done_ms = fault_has(&ex->fault, FW_STUCK) ? INT64_MAX : now + delay,
                       .expires_ms = INT64_MAX,
                       .seed = json_is_integer(seed) ? (uint64_t)json_integer_value(seed)
                                                     : text_hash(plain, strlen(plain)) % 100000U,
                       .count = fault_has(&ex->fault, FW_FILTERED) ? 0 : desk_count(&ex->fault, o->count),
                       .shaped = desk_shape(&ex->fault) & ~((int64_t)1 << FW_FILTERED),
                       .format = format_of(o->input) };
    free(plain);
    job.facts = job_facts(ex, o, job.seed);
    size_of(o->input, &job.width, &job.height);
    text_random_hex(job.id, ID_DIGITS);
    memcpy(job.account, ex->account, sizeof job.account);
    const struct job *kept = jobs_add(box->jobs, &job, (size_t)sandbox_setting(box, CFG_MAX_JOBS));
    exchange_header(ex, "ratelimit-remaining", "599");
    exchange_header(ex, "ratelimit-reset", "1");
    if (fault_has(&ex->fault, FW_NULL_JOB) || fault_has(&ex->fault, FW_MISSING_ID)) {
        exchange_send_json(ex, 201, json_pack("{s:s,s:n}", "status", "starting", "output"));
        return;
    }
    if (hold < 0) {
        exchange_send_json(ex, 201, prediction(ex, kept));
        return;
    }
    exchange_header(ex, "preference-applied", "wait=%lld", (long long)hold);
    ex->cargo = text_dup(kept->id);
    ex->cargo_free = free;
    exchange_wait(ex, delay < hold * 1000 ? delay : hold * 1000, replicate_on_held);
}

static bool replicate_admit(struct exchange *ex, enum key_mood mood)
{
    if (mood == KEY_MISSING || mood == KEY_BAD)
        replicate_refuse(ex, 401, "");
    else if (mood == KEY_MALFORMED) /* also reported for a wrong token */
        replicate_refuse(ex, 422, "");
    else
        return true;
    return false;
}

static void replicate_submit(struct exchange *ex, const char *model, size_t model_len, enum key_mood mood)
{
    json_t *body =
        ex->is_too_large ? NULL : json_loadb(ex->body.data == NULL ? "" : ex->body.data, ex->body.len, 0, NULL);
    const json_t *prompt = json_object_get(json_object_get(body, "input"), "prompt");
    struct order o = { .count = 1 };
    int64_t hold, wait;

    (void)snprintf(o.model, sizeof o.model, "%.*s", (int)(model_len < 159 ? model_len : 159), model);
    desk_open(ex, PHASE_SUBMIT, json_is_string(prompt) ? json_string_value(prompt) : NULL);
    if (!replicate_admit(ex, mood))
        goto out;
    if (strncmp(o.model, "missing/", 8) == 0) {
        replicate_refuse(ex, 404, "");
        goto out;
    }
    if (!json_is_object(body)) {
        (void)replicate_invalid(ex, "required", "input", "input is required"); /* answered */
        goto out;
    }
    if (!check_body(ex, body, &o) || (hold = hold_s(ex)) == -2)
        goto out;
    ex->images = o.count;
    ex->cost = o.count * (o.is_flux ? 200 : 300);
    if (desk_fault(ex, replicate_refuse))
        goto out;
    struct limit_ask ask = { .key = ex->account,
                             .now_ms = sandbox_now_ms(ex->box),
                             .limit = sandbox_setting(ex->box, CFG_REPLICATE_REQUESTS),
                             .window_ms = sandbox_setting(ex->box, CFG_REPLICATE_WINDOW),
                             .weight = 1 };
    if (mood == KEY_BROKE) {
        replicate_refuse(ex, 402, "");
    } else if ((wait = limits_take(ex->box->limits, &ask)) > 0) {
        counters_add(ex->box->counters, NULL, ex->account, COUNT_LIMITED, 1);
        replicate_throttled(ex, (wait + 999) / 1000);
    } else {
        desk_pay(ex);
        if (!desk_taken(ex))
            replicate_accept(ex, &o, hold);
    }
out:
    json_decref(body);
}

/* ---- poll and cancel ---- */

static void replicate_ask(struct exchange *ex, const char *rest, enum key_mood mood, bool is_cancel)
{
    char id[68];
    size_t len = strcspn(rest, "/");
    struct job *job;

    (void)snprintf(id, sizeof id, "%.*s", (int)(len < 67 ? len : 67), rest);
    job = jobs_find(ex->box->jobs, id);
    if (job != NULL && strcmp(job->account, ex->account) != 0)
        job = NULL;
    desk_open(ex, is_cancel ? PHASE_CANCEL : PHASE_POLL, job == NULL ? NULL : job->prompt);
    if (!replicate_admit(ex, mood) || desk_fault(ex, replicate_refuse))
        return;
    if (job == NULL || (!is_cancel && fault_has(&ex->fault, FW_NULL_JOB))) {
        replicate_refuse(ex, 404, "");
        return;
    }
    if (is_cancel && sandbox_now_ms(ex->box) < job->done_ms) { /* a finished one stays as it is */
        job->is_canceled = true;
        job->done_ms = sandbox_now_ms(ex->box);
    }
    exchange_send_json(ex, 200, prediction(ex, job));
}

void replicate_on_request(struct exchange *ex, const char *path)
{
    static const char create[] = "/predictions";
    char key[256];
    enum key_mood mood = desk_key(ex, "replicate", key, sizeof key);
    bool is_post = strcmp(ex->method, "POST") == 0, is_get = strcmp(ex->method, "GET") == 0;
    size_t len = strlen(path), tail = sizeof create - 1;
    const char *name = strncmp(path, "/models/", 8) == 0         ? path + 8
                       : strncmp(path, "/deployments/", 13) == 0 ? path + 13
                                                                 : NULL;

    if (is_post && strcmp(path, create) == 0)
        replicate_submit(ex, "", 0, mood);
    else if (is_post && name != NULL && len > tail && strcmp(path + len - tail, create) == 0)
        replicate_submit(ex, name, (size_t)(path + len - tail - name), mood);
    else if (is_get && strncmp(path, "/predictions/", 13) == 0)
        replicate_ask(ex, path + 13, mood, false);
    else if (is_post && strncmp(path, "/predictions/", 13) == 0 && len > 7 && strcmp(path + len - 7, "/cancel") == 0)
        replicate_ask(ex, path + 13, mood, true);
    else if (is_get && strcmp(path, "/webhooks/default/secret") == 0 && replicate_admit(ex, mood))
        exchange_send_json(ex, 200, json_pack("{s:s}", "key", "whsec_c2FuZGJveA=="));
    else if (ex->state == EX_READING)
        replicate_refuse(ex, 404, "");
}
