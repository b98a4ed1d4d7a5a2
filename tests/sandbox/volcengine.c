/* volcengine.c - Volcengine Ark's images/generations as its page describes it: SeedEdit 3.0, Seedream 3.0 and 4.x, JPEG
 * behind signed URLs that live a day, or base64; groups in which some pictures may be errors.
 *
 * SeedEdit takes one image, as a text or as a list of one, and the size adaptive alone. Codes for the fault `status`:
 * any of the page's; under200: an `error` under 200. moderated: the prompt is refused; filtered: every picture of the
 * answer is an error; partial=K: the rest are; empty: no data. */
#include "sandbox.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MILLICENTS = 20000, GROUP_MAX = 15, IMAGE_BYTES = 10000000 };

enum family { SEEDEDIT3, SEEDREAM3, SEEDREAM4 };

struct order {
    char model[64];
    enum family family;
    int count, width, height;
    bool wants_base64, is_sized;
};

static void ark_error(struct exchange *ex, int status, const char *code, const char *text)
{
    static const struct {
        int status;
        const char *type;
    } types[] = { { 401, "Unauthorized" },    { 403, "Forbidden" },           { 404, "NotFound" },
                  { 429, "TooManyRequests" }, { 500, "InternalServerError" }, { 503, "ServiceUnavailable" } };
    const char *type = "BadRequest";
    char id[33], message[320];

    for (size_t i = 0; i < ARRAY_LEN(types); i++)
        type = types[i].status == status ? types[i].type : type;
    text_random_hex(id, 32);
    (void)snprintf(message, sizeof message, "%s Request id: 0217%s", text, id);
    exchange_header(ex, "x-error-code", "%s", code);
    exchange_send_json(
        ex, status,
        json_pack("{s:{s:s,s:s,s:s,s:s}}", "error", "code", code, "message", message, "param", "", "type", type));
}

/* The page's error for a status that a fault asked for. */
static void ark_refuse(struct exchange *ex, int status, const char *code)
{
    static const struct {
        int status;
        const char *code;
    } rows[] = {
        { 400, "InvalidParameter" },
        { 401, "AuthenticationError" },
        { 403, "AccountOverdueError" },
        { 404, "InvalidEndpointOrModel.NotFound" },
        { 429, "RateLimitExceeded.EndpointRPMExceeded" },
        { 503, "ServerOverloaded" },
    };
    const char *word = "InternalServiceError";

    if (strcmp(code, "under200") == 0) {
        exchange_send_json(ex, 200,
                           json_pack("{s:{s:s,s:s}}", "error", "code", "InternalServiceError", "message",
                                     "The service encountered an unexpected internal error."));
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        word = rows[i].status == status ? rows[i].code : word;
    ark_error(ex, status, code[0] != '\0' ? code : word, "The request failed.");
}

/* ---- the order: false means answered */

static bool ark_bad(struct exchange *ex, const char *name)
{
    char text[160];

    (void)snprintf(text, sizeof text, "The parameter `%s` specified in the request is not valid.", name);
    ark_error(ex, 400, "InvalidParameter", text);
    return false;
}

static bool is_image(const json_t *one)
{
    const char *text = json_string_value(one), *comma = text != NULL ? strchr(text, ',') : NULL;

    if (text == NULL || strncmp(text, "http://", 7) == 0 || strncmp(text, "https://", 8) == 0)
        return text != NULL;
    return (strncmp(text, "data:image/png;base64,", 22) == 0 || strncmp(text, "data:image/jpeg;base64,", 23) == 0) &&
           comma != NULL && strlen(comma + 1) <= IMAGE_BYTES / 3 * 4 + 4 &&
           desk_is_picture(comma + 1, strlen(comma + 1));
}

static bool ark_images(struct exchange *ex, const json_t *images, enum family family)
{
    bool is_fine = true;

    if (images == NULL)
        return family != SEEDEDIT3 || ark_bad(ex, "image");
    if (family == SEEDREAM3 || (family == SEEDEDIT3 && json_is_array(images) && json_array_size(images) != 1))
        return ark_bad(ex, "image");
    if (!json_is_array(images))
        is_fine = is_image(images);
    for (size_t i = 0; i < json_array_size(images); i++)
        is_fine = is_fine && is_image(json_array_get(images, i));
    return is_fine || ark_bad(ex, "image");
}

static bool ark_size(struct exchange *ex, const json_t *size, struct order *o)
{
    static const char *const fallback[] = { "adaptive", "1024x1024", "2K" };
    const char *text = json_is_string(size) ? json_string_value(size) : fallback[o->family];
    int used = 0;

    if (size != NULL && !json_is_string(size))
        return ark_bad(ex, "size");
    o->width = o->height = 1024;
    if (o->family == SEEDEDIT3)
        return strcmp(text, "adaptive") == 0 || ark_bad(ex, "size");
    o->is_sized = true;
    if (o->family == SEEDREAM4 && strlen(text) == 2 && text[1] == 'K' && strchr("124", text[0]) != NULL) {
        o->width = o->height = 1024 * (text[0] - '0');
        return true;
    }
    if (sscanf(text, "%dx%d%n", &o->width, &o->height, &used) != 2 || text[used] != '\0' || o->width < 1 ||
        o->height < 1 || o->width > 8192 || o->height > 8192)
        return ark_bad(ex, "size");
    if (o->family == SEEDREAM3 && (o->width < 512 || o->height < 512 || o->width > 2048 || o->height > 2048))
        return ark_bad(ex, "size");
    return true;
}

static bool ark_numbers(struct exchange *ex, const json_t *body, enum family family)
{
    const json_t *seed = json_object_get(body, "seed"), *scale = json_object_get(body, "guidance_scale");

    if (seed != NULL && (family == SEEDREAM4 || !json_is_integer(seed) || json_integer_value(seed) < -1 ||
                         json_integer_value(seed) > 2147483647))
        return ark_bad(ex, "seed");
    if (scale != NULL && (family == SEEDREAM4 || !json_is_number(scale) || json_number_value(scale) < 1 ||
                          json_number_value(scale) > 10))
        return ark_bad(ex, "guidance_scale");
    return json_object_get(body, "watermark") == NULL || json_is_boolean(json_object_get(body, "watermark")) ||
           ark_bad(ex, "watermark");
}

static bool ark_group(struct exchange *ex, const json_t *body, struct order *o)
{
    const json_t *group = json_object_get(body, "sequential_image_generation");
    const json_t *max = json_object_get(json_object_get(body, "sequential_image_generation_options"), "max_images");
    const char *word = json_string_value(group);

    o->count = 1;
    if (group == NULL)
        return true;
    if (o->family != SEEDREAM4 || word == NULL || (strcmp(word, "auto") != 0 && strcmp(word, "disabled") != 0))
        return ark_bad(ex, "sequential_image_generation");
    if (max != NULL && (!json_is_integer(max) || json_integer_value(max) < 1 || json_integer_value(max) > GROUP_MAX))
        return ark_bad(ex, "sequential_image_generation_options.max_images");
    if (word[0] == 'a')
        o->count = max != NULL ? (int)json_integer_value(max) : GROUP_MAX;
    return true;
}

static bool ark_order(struct exchange *ex, const json_t *body, struct order *o)
{
    const char *format = json_string_value(json_object_get(body, "response_format"));

    if (json_string_length(json_object_get(body, "prompt")) == 0) {
        ark_error(ex, 400, "MissingParameter", "The request is missing the parameter `prompt`.");
        return false;
    }
    o->wants_base64 = format != NULL && strcmp(format, "b64_json") == 0;
    if (format != NULL && !o->wants_base64 && strcmp(format, "url") != 0)
        return ark_bad(ex, "response_format");
    return ark_images(ex, json_object_get(body, "image"), o->family) &&
           ark_size(ex, json_object_get(body, "size"), o) && ark_numbers(ex, body, o->family) && ark_group(ex, body, o);
}

/* Key, model, money and limits; false means answered. */
static bool ark_admit(struct exchange *ex, enum key_mood mood, const json_t *body, struct order *o)
{
    static const struct {
        const char *part;
        enum family family;
    } families[] = { { "seededit-3", SEEDEDIT3 }, { "seedream-3", SEEDREAM3 }, { "seedream-4", SEEDREAM4 } };
    const char *model = json_string_value(json_object_get(body, "model"));
    struct limit_ask ask = { .key = ex->account,
                             .now_ms = sandbox_now_ms(ex->box),
                             .limit = sandbox_setting(ex->box, CFG_SYNC_REQUESTS),
                             .window_ms = sandbox_setting(ex->box, CFG_SYNC_WINDOW),
                             .weight = 1 };
    bool is_known = false;

    for (size_t i = 0; model != NULL && i < ARRAY_LEN(families); i++) {
        if (strstr(model, families[i].part) != NULL) {
            o->family = families[i].family;
            is_known = true;
        }
    }
    (void)snprintf(o->model, sizeof o->model, "%s", model != NULL ? model : "");
    if (mood == KEY_MISSING)
        ark_error(ex, 401, "AuthenticationError", "The API key or AK/SK in the request is missing or invalid.");
    else if (mood == KEY_BAD || mood == KEY_MALFORMED)
        ark_error(ex, 401, "AuthenticationError", "The API key doesn't exist.");
    else if (mood == KEY_BROKE)
        ark_error(ex, 403, "AccountOverdueError", "The request failed because your account has an overdue balance.");
    else if (mood == KEY_ZERO)
        ark_error(ex, 429, "QuotaExceeded", "You have used up the free trial of this model.");
    else if (mood == KEY_HARD_LIMIT)
        ark_error(ex, 429, "SetLimitExceeded", "You have reached the limit that you set.");
    else if (model == NULL)
        ark_error(ex, 400, "MissingParameter", "The request is missing the parameter `model`.");
    else if (mood == KEY_UNVERIFIED)
        ark_error(ex, 404, "ModelNotOpen", "Your account has not activated the model.");
    else if (!is_known)
        ark_error(ex, 404, "InvalidEndpointOrModel.NotFound",
                  "The model does not exist or you do not have access to it.");
    else if (limits_take(ex->box->limits, &ask) > 0) {
        counters_add(ex->box->counters, NULL, ex->account, COUNT_LIMITED, 1);
        ark_error(ex, 429, "RateLimitExceeded.EndpointIPMExceeded", "The images per minute limit is exceeded.");
    } else
        return true;
    return false;
}

/* ---- the answers */

static void ark_sign(const struct sandbox *box, const char *text, size_t len, char out[65])
{
    unsigned char mac[crypto_auth_BYTES];

    crypto_auth(mac, (const unsigned char *)text, len, box->sign_key);
    (void)sodium_bin2hex(out, 65, mac, sizeof mac);
}

static void ark_url(const struct sandbox *box, const struct job *job, int index, char *out, size_t cap)
{
    char path[256], sig[65];

    (void)snprintf(path, sizeof path, "/ark/%s/picture_%d.jpeg?X-Tos-Algorithm=TOS4-HMAC-SHA256&X-Tos-Expires=86400",
                   job->id, index);
    ark_sign(box, path, strlen(path), sig);
    (void)snprintf(out, cap, "%s%s&X-Tos-Signature=%s", box->images_base, path, sig);
}

bool volcengine_url_is_good(const struct sandbox *box, const char *path, const char *query)
{
    const char *given = query == NULL ? NULL : strstr(query, "&X-Tos-Signature=");
    struct buf signed_part = { 0 };
    char sig[65];

    if (given == NULL)
        return false;
    buf_fmt(&signed_part, "%s?%.*s", path, (int)(given - query), query);
    ark_sign(box, signed_part.data, signed_part.len, sig);
    buf_done(&signed_part);
    return strcmp(sig, given + strlen("&X-Tos-Signature=")) == 0;
}

static json_t *ark_failed_item(void)
{
    return json_pack("{s:{s:s,s:s}}", "error", "code", "OutputImageSensitiveContentDetected", "message",
                     "The request failed because the output image may contain sensitive information.");
}

static void ark_answer_urls(struct exchange *ex, const struct order *o, int count)
{
    struct sandbox *box = ex->box;
    struct job job = { .created_ms = sandbox_now_ms(box), .prompt = text_dup(ex->prompt), .count = count };
    json_t *data = json_array();
    const struct job *kept;

    text_random_hex(job.id, 24);
    memcpy(job.account, ex->account, sizeof job.account);
    job.expires_ms = job.created_ms + 86400000;
    job.width = o->width;
    job.height = o->height;
    job.format = PICTURE_JPEG;
    desk_cap(box, &job.width, &job.height);
    job.shaped = desk_shape(&ex->fault);
    kept = jobs_add(box->jobs, &job, (size_t)sandbox_setting(box, CFG_MAX_JOBS));
    for (int i = 0; i < o->count; i++) {
        char url[400], size[24];
        json_t *one;

        ark_url(box, kept, i, url, sizeof url);
        (void)snprintf(size, sizeof size, "%dx%d", o->width, o->height);
        one = i >= count ? ark_failed_item() : json_pack("{s:s,s:s}", "url", url, "revised_prompt", "NONE");
        if (i < count && o->is_sized)
            (void)json_object_set_new(one, "size", json_string(size)); /* fails only without memory */
        (void)json_array_append_new(data, one);                        /* as above */
    }
    exchange_send_json(ex, 200,
                       json_pack("{s:s,s:I,s:o,s:{s:i,s:i,s:i}}", "model", o->model, "created",
                                 (json_int_t)(kept->created_ms / 1000), "data", data, "usage", "generated_images",
                                 count, "output_tokens", 3772 * count, "total_tokens", 3772 * count));
}

static void ark_on_painted(void *cls, struct paint *p)
{
    struct exchange *ex = cls;
    struct blob *body = blob_new(p->body.data, p->body.len);

    ex->paint = NULL;
    exchange_send_blob(ex, 200, "application/json; charset=utf-8", body);
}

static void ark_answer_base64(struct exchange *ex, const struct order *o, int count)
{
    struct paint *p = paint_new(ex->box->gallery);
    struct buf head = { 0 }, tail = { 0 };
    json_t *item = ark_failed_item();
    char *failed = json_dumps(item, 0);

    p->count = (size_t)(count < PAINT_MAX ? count : PAINT_MAX);
    for (size_t i = 0; i < p->count; i++) {
        p->specs[i] = desk_picture(ex, o->width, o->height, PICTURE_JPEG);
        p->specs[i].seed = i;
    }
    buf_fmt(&head, "{\"model\":\"%s\",\"created\":%lld,\"data\":[{\"b64_json\":\"", o->model,
            (long long)(sandbox_now_ms(ex->box) / 1000));
    buf_str(&tail, "\"}");
    for (int i = count; i < o->count; i++)
        buf_fmt(&tail, ",%s", failed);
    buf_fmt(&tail, "],\"usage\":{\"generated_images\":%d}}", count);
    free(failed);
    json_decref(item);
    p->head = head.data;
    p->between = text_dup("\"},{\"b64_json\":\"");
    p->tail = tail.data;
    exchange_paint(ex, p, ark_on_painted);
}

static int ark_count(const struct exchange *ex, const struct order *o)
{
    return fault_has(&ex->fault, FW_FILTERED) ? 0 : desk_count(&ex->fault, o->count);
}

static void ark_on_worked(struct exchange *ex)
{
    const struct order *o = ex->cargo;
    int count = ark_count(ex, o);

    if (fault_has(&ex->fault, FW_FAIL))
        ark_refuse(ex, 500, "");
    else if (fault_has(&ex->fault, FW_EMPTY))
        exchange_send_json(ex, 200, json_pack("{s:s,s:[]}", "model", o->model, "data"));
    else if (o->wants_base64 && count > 0)
        ark_answer_base64(ex, o, count);
    else
        ark_answer_urls(ex, o, count);
}

static void ark_generate(struct exchange *ex, enum key_mood mood, const json_t *body)
{
    struct order *o = text_alloc(sizeof *o);

    ex->cargo = o;
    ex->cargo_free = free;
    desk_open(ex, PHASE_SUBMIT, json_string_value(json_object_get(body, "prompt")));
    if (!ark_admit(ex, mood, body, o) || !ark_order(ex, body, o))
        return;
    ex->images = o->count;
    ex->cost = (int64_t)MILLICENTS * o->count;
    if (desk_fault(ex, ark_refuse))
        return;
    ex->images = ark_count(ex, o);
    ex->cost = (int64_t)MILLICENTS * ex->images; /* what was produced */
    if (fault_has(&ex->fault, FW_MODERATED)) {
        ark_error(ex, 400, "InputTextSensitiveContentDetected",
                  "The request failed because the input text may contain sensitive information.");
        return;
    }
    if (!fault_has(&ex->fault, FW_FAIL) && ex->images > 0)
        desk_pay(ex);
    if (!desk_taken(ex))
        exchange_wait(ex, desk_delay(ex, CFG_DELAY_SYNC_MIN), ark_on_worked);
}

void volcengine_on_request(struct exchange *ex, const char *path)
{
    char key[256], id[33];
    enum key_mood mood = desk_key(ex, "volcengine", key, sizeof key);
    json_t *body;

    text_random_hex(id, 32);
    exchange_header(ex, "x-request-id", "0217%s", id);
    if (strcmp(path, "/images/generations") != 0 || strcmp(ex->method, "POST") != 0) {
        ark_error(ex, 404, "InvalidEndpointOrModel.NotFound", "There is nothing here.");
        return;
    }
    body = ex->is_too_large || ex->body.data == NULL ? NULL : json_loadb(ex->body.data, ex->body.len, 0, NULL);
    if (json_is_object(body)) {
        ark_generate(ex, mood, body);
    } else {
        ex->phase = PHASE_SUBMIT;
        ark_error(ex, 400, "InvalidParameter", "The body is not a JSON object.");
    }
    json_decref(body);
}
