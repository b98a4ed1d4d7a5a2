/* leonardo.c - Leonardo's REST v1 generations, poll, delete and /me behind its Hasura gateway, as its page describes
 * them: unknown names are rejected, types are named, everything else is "unexpected". */
#include "leonardo.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ARGS "$.selectionSet.sdGenerationJob.args.arg1"

enum kind { TEXT, UUID, INT, NUMBER, BOOL, WORD, LIST };

struct field {
    const char *name;
    enum kind kind;
    double min, max;
    const char *const *words;
};

static const char *const presets[] = { "ANIME",        "BOKEH",       "CINEMATIC",     "CINEMATIC_CLOSEUP",
                                       "CREATIVE",     "DYNAMIC",     "ENVIRONMENT",   "FASHION",
                                       "FILM",         "FOOD",        "GENERAL",       "HDR",
                                       "ILLUSTRATION", "LEONARDO",    "LONG_EXPOSURE", "MACRO",
                                       "MINIMALISTIC", "MONOCHROME",  "MOODY",         "NONE",
                                       "NEUTRAL",      "PHOTOGRAPHY", "PORTRAIT",      "RAYTRACED",
                                       "RENDER_3D",    "RETRO",       "SKETCH_BW",     "SKETCH_COLOR",
                                       "STOCK_PHOTO",  "VIBRANT",     "UNPROCESSED",   NULL };
static const char *const schedulers[] = {
    "KLMS", "EULER_ANCESTRAL_DISCRETE", "EULER_DISCRETE", "DDIM", "DPM_SOLVER", "PNDM", "LEONARDO", NULL
};
static const char *const versions[] = { "v1_5",           "v2",      "v3",   "SDXL_0_8", "SDXL_0_9", "SDXL_1_0",
                                        "SDXL_LIGHTNING", "PHOENIX", "FLUX", "FLUX_DEV", "KINO_2_0", NULL };
static const char *const transparencies[] = { "disabled", "foreground_only", NULL };
static const char *const photo_versions[] = { "v1", "v2", NULL };
static const char *const magic_versions[] = { "v2", "v3", NULL };

static const struct field fields[] = {
    { "prompt", TEXT, 0, 0, NULL },
    { "negative_prompt", TEXT, 0, 0, NULL },
    { "modelId", UUID, 0, 0, NULL },
    { "num_images", INT, 1, 8, NULL },
    { "width", INT, 32, 1536, NULL },
    { "height", INT, 32, 1536, NULL },
    { "alchemy", BOOL, 0, 0, NULL },
    { "ultra", BOOL, 0, 0, NULL },
    { "guidance_scale", NUMBER, 1, 20, NULL },
    { "num_inference_steps", INT, 10, 60, NULL },
    { "presetStyle", WORD, 0, 0, presets },
    { "scheduler", WORD, 0, 0, schedulers },
    { "sd_version", WORD, 0, 0, versions },
    { "seed", INT, 0, 9999999998.0, NULL },
    { "init_image_id", UUID, 0, 0, NULL },
    { "init_generation_image_id", UUID, 0, 0, NULL },
    { "init_strength", NUMBER, 0.1, 0.9, NULL },
    { "contrast", NUMBER, 1, 4.5, NULL },
    { "contrastRatio", NUMBER, 0, 1, NULL },
    { "tiling", BOOL, 0, 0, NULL },
    { "public", BOOL, 0, 0, NULL },
    { "photoReal", BOOL, 0, 0, NULL },
    { "photoRealVersion", WORD, 0, 0, photo_versions },
    { "photoRealStrength", NUMBER, 0.45, 0.55, NULL },
    { "promptMagic", BOOL, 0, 0, NULL },
    { "promptMagicVersion", WORD, 0, 0, magic_versions },
    { "promptMagicStrength", NUMBER, 0.1, 1, NULL },
    { "highResolution", BOOL, 0, 0, NULL },
    { "highContrast", BOOL, 0, 0, NULL },
    { "expandedDomain", BOOL, 0, 0, NULL },
    { "fantasyAvatar", BOOL, 0, 0, NULL },
    { "transparency", WORD, 0, 0, transparencies },
    { "unzoom", BOOL, 0, 0, NULL },
    { "unzoomAmount", NUMBER, 0, 100, NULL },
    { "upscaleRatio", NUMBER, 0, 100, NULL },
    { "enhancePrompt", BOOL, 0, 0, NULL },
    { "enhancePromptInstruction", TEXT, 0, 0, NULL },
    { "imagePrompts", LIST, 0, 0, NULL },
    { "imagePromptWeight", NUMBER, 0, 1, NULL },
    { "elements", LIST, 0, 0, NULL },
    { "userElements", LIST, 0, 0, NULL },
    { "controlnets", LIST, 0, 0, NULL },
};

static const char *const kind_name[] = { "String", "uuid", "Int", "Float", "Boolean", "String", "list" };

/* ---- errors ---- */

void leonardo_error(struct exchange *ex, int status, const char *path, const char *code, const char *text)
{
    json_t *e = json_pack("{s:s,s:s,s:s}", "error", text, "path", path, "code", code);
    exchange_send_json(ex, status,
                       e != NULL ? e : json_pack("{s:s,s:s,s:s}", "error", "invalid", "path", "$", "code", code));
}

void leonardo_refuse(struct exchange *ex, int status, const char *code)
{
    const char *text = status == 400   ? "Invalid request"
                       : status == 401 ? "Authentication hook unauthorized this request"
                       : status == 403 ? "content moderation filter: sandbox"
                       : status == 404 ? "resource does not exist"
                       : status == 429 ? "Too many requests"
                                       : "Service Error";
    if (code[0] == '\0')
        code = status == 401 ? "access-denied" : status == 404 ? "not-found" : "unexpected";
    leonardo_error(ex, status, "$", code, text);
}

/* ---- validation: false means answered ---- */

bool leonardo_unexpected(struct exchange *ex, const char *text)
{
    leonardo_error(ex, 400, "$", "unexpected", text);
    return false;
}

static const char *json_kind(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_STRING:
        return "string";
    case JSON_TRUE:
    case JSON_FALSE:
        return "boolean";
    case JSON_INTEGER:
    case JSON_REAL:
        return "number";
    case JSON_ARRAY:
        return "list";
    case JSON_OBJECT:
        return "object";
    case JSON_NULL:
        break;
    }
    return "null";
}

static bool field_type_fits(const struct field *f, const json_t *v)
{
    switch (f->kind) {
    case TEXT:
    case UUID:
    case WORD:
        return json_is_string(v);
    case INT:
        return json_is_integer(v);
    case NUMBER:
        return json_is_number(v);
    case BOOL:
        return json_is_boolean(v);
    case LIST:
        return json_is_array(v);
    }
    return false;
}

static bool check_field(struct exchange *ex, const struct field *f, const json_t *v)
{
    char text[256], path[160];
    if (json_is_null(v))
        return true;
    (void)snprintf(path, sizeof path, "%s.%s", ARGS, f->name);
    if (!field_type_fits(f, v)) {
        const char *type = kind_name[f->kind];
        (void)snprintf(text, sizeof text, "expected a%s %s for type '%s', but found a %s", type[0] == 'I' ? "n" : "",
                       f->kind == BOOL     ? "boolean"
                       : f->kind == INT    ? "32-bit integer"
                       : f->kind == NUMBER ? "float"
                                           : "string",
                       type, json_kind(v));
        leonardo_error(ex, 400, path, "validation-failed", text);
        return false;
    }
    if (f->kind == UUID && !text_is_uuid(json_string_value(v))) {
        (void)snprintf(text, sizeof text, "invalid input syntax for type uuid: %s", f->name);
        leonardo_error(ex, 400, path, "validation-failed", text);
        return false;
    }
    if ((f->kind == INT || f->kind == NUMBER) && (json_number_value(v) < f->min || json_number_value(v) > f->max)) {
        bool is_side = strcmp(f->name, "width") == 0 || strcmp(f->name, "height") == 0;
        (void)snprintf(text, sizeof text, "%s must be between %.10g and %.10g", f->name, f->min, f->max);
        return leonardo_unexpected(ex, is_side ? "invalid dimensions" : text);
    }
    if (f->kind == WORD) {
        for (size_t i = 0; f->words[i] != NULL; i++)
            if (strcmp(f->words[i], json_string_value(v)) == 0)
                return true;
        (void)snprintf(text, sizeof text, "expected one of the values of the enum for '%s', but found '%.60s'", f->name,
                       json_string_value(v));
        leonardo_error(ex, 400, path, "validation-failed", text);
        return false;
    }
    return true;
}

static int64_t number_or(const json_t *body, const char *name, int64_t fallback)
{
    const json_t *v = json_object_get(body, name);
    return json_is_integer(v) ? (int64_t)json_integer_value(v) : fallback;
}

static bool check_contrast(const json_t *v)
{
    static const double allowed[] = { 1.0, 1.3, 1.8, 2.5, 3, 3.5, 4, 4.5 };
    for (size_t i = 0; i < ARRAY_LEN(allowed); i++)
        if (fabs(json_number_value(v) - allowed[i]) < 1e-9)
            return true;
    return false;
}

static bool check_together(struct exchange *ex, const json_t *body)
{
    int64_t w = number_or(body, "width", 1024), h = number_or(body, "height", 768);
    const json_t *alchemy = json_object_get(body, "alchemy"), *preset = json_object_get(body, "presetStyle");
    const json_t *contrast = json_object_get(body, "contrast");
    const char *init = json_string_value(json_object_get(body, "init_image_id"));
    const char *made = json_string_value(json_object_get(body, "init_generation_image_id"));
    int index;

    if (w % 8 != 0 || h % 8 != 0)
        return leonardo_unexpected(ex, "invalid dimensions");
    if ((w > 768 || h > 768) && number_or(body, "num_images", 4) > 4)
        return leonardo_unexpected(ex, "too many images: at most 4 when width or height is above 768");
    if (text_characters(json_string_value(json_object_get(body, "prompt"))) > 1500)
        return leonardo_unexpected(ex, "Invalid prompt, maximum length of 1500 characters exceeded.");
    if (json_is_true(alchemy) && json_is_true(json_object_get(body, "ultra")))
        return leonardo_unexpected(ex, "ultra cannot be used together with alchemy");
    if (json_is_false(alchemy) && json_is_string(preset) && strcmp(json_string_value(preset), "LEONARDO") != 0 &&
        strcmp(json_string_value(preset), "NONE") != 0)
        return leonardo_unexpected(ex, "presetStyle must be LEONARDO or NONE when alchemy is false");
    if (json_is_string(json_object_get(body, "sd_version")) && json_is_string(json_object_get(body, "modelId")))
        return leonardo_unexpected(ex, "sd_version can only be used without modelId");
    if (json_is_number(contrast) && !check_contrast(contrast))
        return leonardo_unexpected(ex, "contrast must be one of 1.0, 1.3, 1.8, 2.5, 3, 3.5, 4, 4.5");
    if (init != NULL && leonardo_uploaded(ex, init) == NULL)
        return leonardo_unexpected(ex, "invalid init image id");
    if (made != NULL && leonardo_generated(ex, made, &index) == NULL)
        return leonardo_unexpected(ex, "failed to find init variation");
    return true;
}

static bool check_body(struct exchange *ex, const json_t *body)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)body, name, value)
    {
        const struct field *f = NULL;
        for (size_t i = 0; i < ARRAY_LEN(fields) && f == NULL; i++)
            if (strcmp(fields[i].name, name) == 0)
                f = &fields[i];
        if (f == NULL) {
            char text[160];
            (void)snprintf(text, sizeof text, "Unexpected variable %.100s", name);
            leonardo_error(ex, 400, "$", "bad-request", text);
            return false;
        }
        if (!check_field(ex, f, value))
            return false;
    }
    const json_t *prompt = json_object_get(body, "prompt");
    if (!json_is_string(prompt) || json_string_length(prompt) == 0) {
        leonardo_error(ex, 400, "$", "validation-failed", "expecting a value for non-nullable variable: \"prompt\"");
        return false;
    }
    return check_together(ex, body);
}

/* ---- key ---- */

bool leonardo_admit(struct exchange *ex, enum key_mood mood, const char *key)
{
    const char *bare = key;
    static const char *const prefixes[] = { "bad-", "broke-", "zero-" };
    for (size_t i = 0; i < ARRAY_LEN(prefixes); i++)
        if (strncmp(key, prefixes[i], strlen(prefixes[i])) == 0)
            bare = key + strlen(prefixes[i]);
    bool strict = sandbox_setting(ex->box, CFG_LEONARDO_UUID) != 0;
    if (mood == KEY_MALFORMED || (strict && (mood == KEY_MISSING || !text_is_uuid(bare)))) {
        leonardo_error(ex, 500, "$", "unexpected", "Invalid response from authorization hook");
        return false;
    }
    if (mood == KEY_MISSING || mood == KEY_BAD) {
        leonardo_refuse(ex, 401, "");
        return false;
    }
    return true;
}

/* ---- submit ---- */

static json_t *copy_or(const json_t *body, const char *name, json_t *fallback)
{
    json_t *v = json_object_get(body, name);
    if (v == NULL)
        return fallback;
    json_decref(fallback);
    return json_incref(v);
}

/* The members that a poll repeats. Kept as text: a waiting job should cost a few hundred bytes. */
static char *job_facts(const json_t *body)
{
    json_t *o =
        json_pack("{s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "modelId",
                  copy_or(body, "modelId", json_string("b24e16ff-06e3-43eb-8d33-4416c2d75876")), "negativePrompt",
                  copy_or(body, "negative_prompt", json_null()), "inferenceSteps",
                  copy_or(body, "num_inference_steps", json_integer(15)), "guidanceScale",
                  copy_or(body, "guidance_scale", json_integer(7)), "scheduler",
                  copy_or(body, "scheduler", json_string("EULER_DISCRETE")), "presetStyle",
                  copy_or(body, "presetStyle", json_string("DYNAMIC")), "public", copy_or(body, "public", json_false()),
                  "sdVersion", copy_or(body, "sd_version", json_string("v1_5")));
    char *text = json_dumps(o, JSON_COMPACT);
    json_decref(o);
    return text;
}

static void leonardo_accept(struct exchange *ex, const json_t *body)
{
    struct sandbox *box = ex->box;
    int64_t now = sandbox_now_ms(box);
    char amount[32];
    char *plain = faults_plain_prompt(ex->prompt);
    struct job job = { .kind = PICTURE_DRAWN,
                       .prompt = text_dup(ex->prompt),
                       .facts = job_facts(body),
                       .created_ms = now,
                       .done_ms = now + desk_delay(ex, CFG_DELAY_LEONARDO_MIN),
                       .expires_ms = INT64_MAX,
                       .seed =
                           (uint64_t)number_or(body, "seed", (int64_t)(text_hash(plain, strlen(plain)) % 9999999998U)),
                       .width = (int)number_or(body, "width", 1024),
                       .height = (int)number_or(body, "height", 768),
                       .count = desk_count(&ex->fault, ex->images),
                       .shaped = desk_shape(&ex->fault),
                       .format = PICTURE_JPEG };
    free(plain);
    text_uuid(job.id);
    memcpy(job.account, ex->account, sizeof job.account);
    if (fault_has(&ex->fault, FW_STUCK))
        job.done_ms = INT64_MAX;
    const struct job *kept = jobs_add(box->jobs, &job, (size_t)sandbox_setting(box, CFG_MAX_JOBS));
    int64_t credits = (ex->cost * 7 + 149) / 150; /* the page's example: 7 a megapixel */
    (void)snprintf(amount, sizeof amount, "%lld", (long long)credits);
    if (fault_has(&ex->fault, FW_NULL_JOB))
        exchange_send_json(ex, 200, json_pack("{s:n}", "sdGenerationJob"));
    else if (fault_has(&ex->fault, FW_MISSING_ID))
        exchange_send_json(ex, 200, json_pack("{s:{s:I}}", "sdGenerationJob", "apiCreditCost", (json_int_t)credits));
    else
        exchange_send_json(ex, 200,
                           json_pack("{s:{s:s,s:I,s:{s:s,s:s}}}", "sdGenerationJob", "generationId", kept->id,
                                     "apiCreditCost", (json_int_t)credits, "cost", "amount", amount, "unit",
                                     "CREDITS"));
}

bool leonardo_has_room(struct exchange *ex, enum key_mood mood)
{
    struct limit_ask ask = { .key = ex->account,
                             .now_ms = sandbox_now_ms(ex->box),
                             .limit = sandbox_setting(ex->box, CFG_LEONARDO_REQUESTS),
                             .window_ms = sandbox_setting(ex->box, CFG_LEONARDO_WINDOW),
                             .weight = 1 };
    if (mood == KEY_BROKE)
        return leonardo_unexpected(ex, "not enough api tokens userId: 00000000-0000-4000-8000-000000000001");
    if (limits_take(ex->box->limits, &ask) <= 0)
        return true;
    counters_add(ex->box->counters, NULL, ex->account, COUNT_LIMITED, 1);
    leonardo_refuse(ex, 429, "");
    return false;
}

static void leonardo_submit(struct exchange *ex, enum key_mood mood, const char *key)
{
    json_t *body =
        ex->is_too_large ? NULL : json_loadb(ex->body.data == NULL ? "" : ex->body.data, ex->body.len, 0, NULL);
    const json_t *prompt = json_object_get(body, "prompt");
    desk_open(ex, PHASE_SUBMIT, json_is_string(prompt) ? json_string_value(prompt) : NULL);
    if (!leonardo_admit(ex, mood, key)) /* the gateway asks its hook before it looks at the body */
        goto out;
    if (!json_is_object(body)) {
        leonardo_error(ex, 400, "$", "validation-failed", "expecting a value for non-nullable variable: \"prompt\"");
        goto out;
    }
    if (!check_body(ex, body))
        goto out;
    ex->images = (int)number_or(body, "num_images", 4);
    ex->cost = ex->images * 150 * number_or(body, "width", 1024) * number_or(body, "height", 768) / (1024 * 1024);
    if (desk_fault(ex, leonardo_refuse))
        goto out;
    if (!leonardo_has_room(ex, mood))
        goto out;
    if (fault_has(&ex->fault, FW_MODERATED)) {
        leonardo_error(ex, ex->fault.v[FW_MODERATED] == 400 ? 400 : 403, "$", "unexpected",
                       "content moderation filter: sandbox");
    } else {
        desk_pay(ex);
        if (!desk_taken(ex))
            leonardo_accept(ex, body);
    }
out:
    json_decref(body);
}

/* ---- poll ---- */

static const char *job_word(const struct exchange *ex, const struct job *job)
{
    if (fault_has(&ex->fault, FW_UNKNOWN_STATUS))
        return "MARINATING";
    if (sandbox_now_ms(ex->box) < job->done_ms)
        return "PENDING";
    return (job->shaped >> FW_FAIL & 1) != 0 ? "FAILED" : "COMPLETE";
}

static json_t *job_images(const struct exchange *ex, const struct job *job)
{
    json_t *list = json_array();
    for (int i = 0; i < job->count; i++) {
        char url[256], id[48];
        bool nsfw = (job->shaped >> FW_NSFW & 1) != 0;
        (void)snprintf(id, sizeof id, "%.35s%d", job->id, i); /* a UUID of its own, near the job's */
        (void)snprintf(url, sizeof url, "%s/users/11111111-2222-4333-8444-555555555555/generations/%s/Sandbox_%d.jpg",
                       ex->box->images_base, job->id, i);
        json_t *one =
            json_pack("{s:s,s:s,s:b,s:i,s:b,s:b,s:n,s:[]}", "id", id, "url", url, "nsfw", nsfw, "likeCount", 0,
                      "fantasyAvatar", 0, "imageToVideo", 0, "motionMP4URL", "generated_image_variation_generics");
        (void)json_array_append_new(list, one); /* fails only without memory */
    }
    return list;
}

static void leonardo_poll(struct exchange *ex, const char *id, enum key_mood mood, const char *key)
{
    struct job *job = jobs_find(ex->box->jobs, id);
    if (job != NULL &&
        (strcmp(job->account, ex->account) != 0 || job->facts[0] != '{')) /* not an upload, a variation */
        job = NULL;
    desk_open(ex, PHASE_POLL, job == NULL ? NULL : job->prompt);
    if (!leonardo_admit(ex, mood, key) || desk_fault(ex, leonardo_refuse))
        return;
    if (job == NULL || fault_has(&ex->fault, FW_NULL_JOB)) {
        exchange_send_json(ex, 200, json_pack("{s:n}", "generations_by_pk"));
        return;
    }
    const char *word = job_word(ex, job);
    char created[64];
    struct tm tm;
    time_t at = (time_t)(job->created_ms / 1000);
    size_t n = strftime(created, sizeof created, "%Y-%m-%dT%H:%M:%S", gmtime_r(&at, &tm));
    (void)snprintf(created + n, sizeof created - n, ".%03d", (int)(job->created_ms % 1000));
    json_t *o = json_loads(job->facts, 0, NULL);
    json_t *more = json_pack("{s:s,s:s,s:s,s:s,s:i,s:i,s:I,s:o,s:[]}", "id", job->id, "status", word, "createdAt",
                             created, "prompt", job->prompt, "imageWidth", job->width, "imageHeight", job->height,
                             "seed", (json_int_t)job->seed, "generated_images",
                             strcmp(word, "COMPLETE") == 0 ? job_images(ex, job) : json_array(), "generation_elements");
    (void)json_object_update(o, more); /* fails only without memory */
    json_decref(more);
    exchange_send_json(ex, 200, json_pack("{s:o}", "generations_by_pk", o));
}

static void leonardo_me(struct exchange *ex, enum key_mood mood, const char *key)
{
    if (!leonardo_admit(ex, mood, key))
        return;
    int tokens = mood == KEY_BROKE ? 0 : 100000;
    exchange_send_json(ex, 200,
                       json_pack("{s:[{s:{s:s,s:s},s:i,s:i,s:i,s:n}]}", "user_details", "user", "id",
                                 "00000000-0000-4000-8000-000000000001", "username", "sandbox", "apiConcurrencySlots",
                                 10, "apiPaidTokens", tokens, "apiSubscriptionTokens", tokens,
                                 "apiPlanTokenRenewalDate"));
}

static void leonardo_delete(struct exchange *ex, const char *id, enum key_mood mood, const char *key)
{
    struct job *job = jobs_find(ex->box->jobs, id);
    if (!leonardo_admit(ex, mood, key))
        return;
    if (job != NULL && strcmp(job->account, ex->account) == 0) {
        exchange_send_json(ex, 200, json_pack("{s:{s:s}}", "delete_generations_by_pk", "id", id));
        jobs_drop(ex->box->jobs, job);
    } else {
        exchange_send_json(ex, 200, json_pack("{s:n}", "delete_generations_by_pk"));
    }
}

void leonardo_on_request(struct exchange *ex, const char *path)
{
    char key[256], id[33];
    enum key_mood mood = desk_key(ex, "leonardo", key, sizeof key);
    bool get = strcmp(ex->method, "GET") == 0;

    text_random_hex(id, 32);
    exchange_header(ex, "x-request-id", "%s", id);
    if (strcmp(ex->method, "POST") == 0 && strcmp(path, "/generations") == 0)
        leonardo_submit(ex, mood, key);
    else if (strcmp(ex->method, "POST") == 0 && strcmp(path, "/init-image") == 0)
        leonardo_init_image(ex, mood, key);
    else if (strcmp(ex->method, "POST") == 0 && strncmp(path, "/variations/", 12) == 0)
        leonardo_vary(ex, path + 12, mood, key);
    else if (get && strncmp(path, "/variations/", 12) == 0)
        leonardo_variation(ex, path + 12, mood, key);
    else if (get && strncmp(path, "/generations/", 13) == 0)
        leonardo_poll(ex, path + 13, mood, key);
    else if (strcmp(ex->method, "DELETE") == 0 && strncmp(path, "/generations/", 13) == 0)
        leonardo_delete(ex, path + 13, mood, key);
    else if (get && strcmp(path, "/me") == 0)
        leonardo_me(ex, mood, key);
    else
        leonardo_error(ex, 404, "$", "not-found", "Endpoint not found");
}
