/* openai.c - OpenAI's images/generations, edits and variations as its page describes them: validation per model, then
 * key, access, quota, moderation, work. GPT models answer base64 and usage; DALL-E a signed URL on the second listener,
 * or base64. The files of edits and variations are openai_form.c's. */
#include "openai.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    INPUT_TOKENS = 256,
    INPUT_TOKENS_HIGH = 1024
}; /* of an image: the page has no figure, these are the sandbox's */

struct model {
    const char *name;
    enum openai_family family;
    int text_price, input_price, image_price; /* USD cents for a million tokens; DALL-E: none; 0: nobody knows */
};

static const struct model models[] = {
    { "gpt-image-1", GPT, 500, 1000, 4000 },
    { "gpt-image-1-mini", GPT, 200, 0, 800 },
    { "gpt-image-1.5", GPT, 500, 800, 3200 },
    { "gpt-image-2", GPT, 500, 800, 3000 },
    { "gpt-image-2-2026-04-21", GPT, 500, 800, 3000 },
    { "dall-e-2", DALLE2, 0, 0, 0 },
    { "dall-e-3", DALLE3, 0, 0, 0 },
};

/* What was ordered; the exchange's cargo. */
struct order {
    const struct model *model; /* NULL: nobody knows it */
    enum openai_family family;
    enum openai_kind kind;
    struct openai_files files;
    const char *quality, *background; /* our own literals */
    int n, width, height, compression;
    enum picture_format format;
    bool wants_url;
    int64_t text_tokens, input_tokens, image_tokens; /* input: of all pictures sent; image: of one picture made */
};

void openai_error(struct exchange *ex, int status, const char *type, const char *param, const char *code,
                  const char *fmt, ...)
{
    char message[512];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(message, sizeof message, fmt, ap); /* cut is fine */
    va_end(ap);
    json_t *e =
        json_pack("{s:{s:s,s:s,s:s?,s:s?}}", "error", "message", message, "type", type, "param", param, "code", code);
    if (e == NULL) /* the message quoted half a character */
        e = json_pack("{s:{s:s,s:s,s:s?,s:s?}}", "error", "message", "Invalid request.", "type", type, "param", NULL,
                      "code", code);
    exchange_send_json(ex, status, e);
}

/* The page's error for a status that a fault asked for. */
static void openai_refuse(struct exchange *ex, int status, const char *code)
{
    static const struct {
        int status;
        const char *type, *code, *message;
    } rows[] = {
        { 400, "invalid_request_error", NULL, "Your request was rejected." },
        { 401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided." },
        { 403, "invalid_request_error", NULL, "Your organization must be verified to use the model." },
        { 404, "invalid_request_error", "model_not_found", "The model does not exist or you do not have access." },
        { 429, "requests", "rate_limit_exceeded",
          "Rate limit reached for images per minute in organization org-SANDBOX. Limit 5, Used 5, Requested 1." },
    };
    const char *type = status >= 500 ? "server_error" : "invalid_request_error";
    const char *message = "The server had an error while processing your request.";
    const char *given = code[0] == '\0' ? NULL : code;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (rows[i].status == status) {
            type = rows[i].type;
            message = rows[i].message;
            given = given != NULL ? given : rows[i].code;
        }
    }
    if (given != NULL && strcmp(given, "insufficient_quota") == 0)
        type = "insufficient_quota";
    if (given != NULL && strcmp(given, "moderation_blocked") == 0)
        type = "image_generation_user_error";
    openai_error(ex, status, type, NULL, given, "%s", message);
}

bool openai_bad(struct exchange *ex, const char *param, const char *code, const char *message)
{
    openai_error(ex, 400, "invalid_request_error", param, code, "%s", message);
    return false;
}

/* ---- validation: false means answered ---- */

static bool check_known(struct exchange *ex, const json_t *body, const struct order *o)
{
    enum {
        ALL = OPENAI_GENERATE | OPENAI_EDIT | OPENAI_EDIT_JSON | OPENAI_VARY,
        EDITS = OPENAI_EDIT | OPENAI_EDIT_JSON
    };
    static const struct {
        const char *name;
        unsigned families; /* 1 << family */
        unsigned kinds;
    } params[] = {
        { "prompt", 7, ALL & ~OPENAI_VARY },
        { "model", 7, ALL },
        { "n", 7, ALL },
        { "size", 7, ALL },
        { "quality", 7, ALL & ~OPENAI_VARY },
        { "user", 7, ALL },
        { "response_format", 6, ALL & ~OPENAI_EDIT_JSON },
        { "style", 4, OPENAI_GENERATE },
        { "output_format", 1, OPENAI_GENERATE | EDITS },
        { "output_compression", 1, OPENAI_GENERATE | EDITS },
        { "background", 1, OPENAI_GENERATE | EDITS },
        { "moderation", 1, OPENAI_GENERATE | OPENAI_EDIT_JSON },
        { "stream", 1, OPENAI_GENERATE | EDITS },
        { "partial_images", 1, OPENAI_GENERATE | EDITS },
        { "input_fidelity", 1, EDITS },
        { "images", 1, OPENAI_EDIT_JSON },
        { "mask", 1, OPENAI_EDIT_JSON },
    };
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)body, name, value)
    {
        bool known = false;
        for (size_t i = 0; i < ARRAY_LEN(params); i++)
            known = known || (strcmp(params[i].name, name) == 0 && (params[i].families >> o->family & 1U) != 0 &&
                              (params[i].kinds & o->kind) != 0);
        if (strcmp(name, "input_fidelity") == 0 && o->model != NULL && strcmp(o->model->name, "gpt-image-1-mini") == 0)
            known = false;
        if (!known) {
            openai_error(ex, 400, "invalid_request_error", name, "unknown_parameter", "Unknown parameter: '%s'.", name);
            return false;
        }
    }
    return true;
}

/* One of the words, NULL-terminated; absent or null gives the first. */
static bool check_word(struct exchange *ex, const json_t *body, const char *param, const char *const *words,
                       const char **out)
{
    const json_t *v = json_object_get(body, param);
    *out = words[0];
    if (v == NULL || json_is_null(v))
        return true;
    for (size_t i = 0; json_is_string(v) && words[i] != NULL; i++) {
        if (strcmp(words[i], json_string_value(v)) == 0) {
            *out = words[i];
            return true;
        }
    }
    struct buf list = { 0 };
    for (size_t i = 0; words[i] != NULL; i++)
        buf_fmt(&list, "%s'%s'", i == 0 ? "" : ", ", words[i]);
    openai_error(ex, 400, "invalid_request_error", param, "invalid_value",
                 "Invalid value for '%s'. Supported values are: %s.", param, list.data);
    buf_done(&list);
    return false;
}

static bool check_int(struct exchange *ex, const json_t *body, const char *param, int low, int high, int *out)
{
    const json_t *v = json_object_get(body, param);
    if (v == NULL || json_is_null(v))
        return true;
    if (!json_is_integer(v)) {
        openai_error(ex, 400, "invalid_request_error", param, "invalid_type",
                     "Invalid type for '%s': expected an integer.", param);
        return false;
    }
    if (json_integer_value(v) < low || json_integer_value(v) > high) {
        openai_error(ex, 400, "invalid_request_error", param,
                     json_integer_value(v) < low ? "integer_below_min_value" : "integer_above_max_value",
                     "Invalid '%s': expected a value between %d and %d.", param, low, high);
        return false;
    }
    *out = (int)json_integer_value(v);
    return true;
}

static bool check_prompt(struct exchange *ex, const json_t *body, enum openai_family family)
{
    static const size_t longest[] = { [GPT] = 32000, [DALLE2] = 1000, [DALLE3] = 4000 };
    const json_t *v = json_object_get(body, "prompt");
    if (v == NULL || json_is_null(v))
        return openai_bad(ex, "prompt", "missing_required_parameter", "Missing required parameter: 'prompt'.");
    if (!json_is_string(v))
        return openai_bad(ex, "prompt", "invalid_type", "Invalid type for 'prompt': expected a string.");
    if (json_string_length(v) == 0)
        return openai_bad(ex, "prompt", "invalid_value", "Invalid 'prompt': empty string.");
    if (text_characters(json_string_value(v)) > longest[family])
        return openai_bad(ex, "prompt", "string_above_max_length", "Invalid 'prompt': string too long.");
    return true;
}

static bool size_of_gpt2(const char *text, int *w, int *h)
{
    char *end;
    long width = strtol(text, &end, 10);
    if (end == text || *end != 'x' || text[0] < '1' || text[0] > '9' || end[1] < '1' || end[1] > '9')
        return false;
    char *rest = end + 1;
    long height = strtol(rest, &end, 10);
    if (*end != '\0' || width > 3840 || height > 3840 || width * height > 3840L * 2160)
        return false;
    if (width % 16 != 0 || height % 16 != 0 || width > 3 * height || height > 3 * width)
        return false;
    *w = (int)width;
    *h = (int)height;
    return true;
}

static bool check_size(struct exchange *ex, const json_t *body, struct order *o)
{
    static const char *const dalle2[] = { "1024x1024", "512x512", "256x256", NULL };
    static const char *const dalle3[] = { "1024x1024", "1792x1024", "1024x1792", NULL };
    static const char *const gpt[] = { "auto", "1024x1024", "1536x1024", "1024x1536", NULL };
    const json_t *v = json_object_get(body, "size");
    const char *size;

    if (o->family == GPT && o->kind != OPENAI_EDIT_JSON && o->model != NULL &&
        strncmp(o->model->name, "gpt-image-2", 11) == 0 && json_is_string(v) &&
        strcmp(json_string_value(v), "auto") != 0) {
        if (size_of_gpt2(json_string_value(v), &o->width, &o->height))
            return true;
        return openai_bad(ex, "size", "invalid_value",
                          "Invalid value for 'size': both sides must be divisible by 16, the ratio between 1:3 and "
                          "3:1, and at most 3840x2160.");
    }
    if (!check_word(ex, body, "size", o->family == GPT ? gpt : o->family == DALLE2 ? dalle2 : dalle3, &size))
        return false;
    if (strcmp(size, "auto") == 0)
        size = "1024x1024";
    return sscanf(size, "%dx%d", &o->width, &o->height) == 2;
}

static bool check_gpt(struct exchange *ex, const json_t *body, struct order *o)
{
    static const char *const formats[] = { "png", "jpeg", "webp", NULL };
    static const char *const backgrounds[] = { "auto", "transparent", "opaque", NULL };
    static const char *const moderations[] = { "auto", "low", NULL };
    static const char *const fidelities[] = { "low", "high", NULL };
    const char *format, *moderation, *fidelity;
    int partial = 0;

    if (!check_word(ex, body, "output_format", formats, &format) ||
        !check_word(ex, body, "input_fidelity", fidelities, &fidelity) ||
        !check_word(ex, body, "background", backgrounds, &o->background) ||
        !check_word(ex, body, "moderation", moderations, &moderation) ||
        !check_int(ex, body, "output_compression", 0, 100, &o->compression) ||
        !check_int(ex, body, "partial_images", 0, 3, &partial))
        return false;
    o->input_tokens = (int64_t)o->files.count * (fidelity[0] == 'h' ? INPUT_TOKENS_HIGH : INPUT_TOKENS);
    o->format = format[0] == 'j' ? PICTURE_JPEG : format[0] == 'w' ? PICTURE_WEBP : PICTURE_PNG;
    if (o->format == PICTURE_PNG && json_is_integer(json_object_get(body, "output_compression")) &&
        o->compression != 100)
        return openai_bad(ex, "output_compression", "invalid_value",
                          "Compression less than 100 is only supported with 'jpeg' and 'webp'.");
    if (strcmp(o->background, "transparent") == 0 && o->format == PICTURE_JPEG)
        return openai_bad(ex, "background", "invalid_value",
                          "Transparent background is not supported for JPEG output format.");
    const json_t *stream = json_object_get(body, "stream");
    if (stream != NULL && !json_is_null(stream) && !json_is_boolean(stream))
        return openai_bad(ex, "stream", "invalid_type", "Invalid type for 'stream': expected a boolean.");
    if (json_is_true(stream))
        return openai_bad(ex, "stream", "invalid_value", "kiln-sandbox does not stream.");
    if (partial > 0)
        return openai_bad(ex, "partial_images", "invalid_value", "'partial_images' is only supported with 'stream'.");
    return true;
}

static bool check_order(struct exchange *ex, const json_t *body, struct order *o)
{
    static const char *const qualities[3][5] = {
        [GPT] = { "auto", "low", "medium", "high", NULL },
        [DALLE2] = { "auto", "standard", NULL },
        [DALLE3] = { "auto", "standard", "hd", NULL },
    };
    static const char *const responses[] = { "url", "b64_json", NULL };
    static const char *const styles[] = { "vivid", "natural", NULL };
    const char *response, *style;

    if (!check_known(ex, body, o) || (o->kind != OPENAI_VARY && !check_prompt(ex, body, o->family)) ||
        !check_int(ex, body, "n", 1, o->family == DALLE3 ? 1 : 10, &o->n) || !check_size(ex, body, o) ||
        !check_word(ex, body, "quality", qualities[o->family], &o->quality))
        return false;
    const json_t *user = json_object_get(body, "user");
    if (user != NULL && !json_is_null(user) && !json_is_string(user))
        return openai_bad(ex, "user", "invalid_type", "Invalid type for 'user': expected a string.");
    if (o->kind == OPENAI_EDIT_JSON ? !openai_json_files(ex, body, &o->files)
                                    : o->kind != OPENAI_GENERATE && !openai_form_files(ex, o->family, &o->files))
        return false;
    if (o->family == GPT) {
        if (strcmp(o->quality, "auto") == 0)
            o->quality = "high";
        return check_gpt(ex, body, o);
    }
    o->wants_url = true;
    if (!check_word(ex, body, "response_format", responses, &response) ||
        !check_word(ex, body, "style", styles, &style))
        return false;
    o->wants_url = strcmp(response, "url") == 0;
    return true;
}

/* ---- money ---- */

static int64_t openai_tokens(const struct order *o)
{
    static const int table[3][3] = { { 272, 408, 400 }, { 1056, 1584, 1568 }, { 4160, 6240, 6208 } };
    static const int gpt2[3] = { 200, 1767, 7024 };
    int q = o->quality[0] == 'l' ? 0 : o->quality[0] == 'm' ? 1 : 2;
    int shape = o->width == o->height ? 0 : o->width < o->height ? 1 : 2;
    if (o->model == NULL || strncmp(o->model->name, "gpt-image-2", 11) != 0)
        return table[q][shape];
    if (q == 2 && o->width == 1536 && o->height == 1024)
        return 5488; /* cheaper than the square: the page says so */
    return (int64_t)gpt2[q] * o->width * o->height / (1024 * 1024);
}

static int64_t openai_cost(struct order *o, const char *prompt)
{
    bool hd = strcmp(o->quality, "hd") == 0;
    if (o->family == DALLE2)
        return (int64_t)o->n * (o->width == 256 ? 1600 : o->width == 512 ? 1800 : 2000);
    if (o->family == DALLE3)
        return o->width == o->height ? (hd ? 8000 : 4000) : (hd ? 12000 : 8000);
    o->image_tokens = openai_tokens(o);
    o->text_tokens = 5 + (int64_t)text_characters(prompt) / 4;
    int input = o->model == NULL ? 800 : o->model->input_price;
    int text = o->model == NULL ? 500 : o->model->text_price, image = o->model == NULL ? 3200 : o->model->image_price;
    return (o->text_tokens * text + o->input_tokens * input + o->image_tokens * o->n * image) /
           1000; /* cents per million = 1/1000 millicents */
}

/* ---- the answer ---- */

static void openai_success_headers(struct exchange *ex)
{
    char id[21];
    text_random_hex(id, 20);
    exchange_header(ex, "x-request-id", "req_%s", id);
    exchange_header(ex, "openai-version", "2020-10-01");
    exchange_header(ex, "openai-organization", "org-sandbox");
    exchange_header(ex, "openai-processing-ms", "%d", 1234);
    exchange_header(ex, "server", "cloudflare");
}

static char *openai_revised(const struct exchange *ex)
{
    struct buf b = { 0 };
    char *plain = faults_plain_prompt(ex->prompt);
    buf_fmt(&b, "A carefully composed picture: %s, with soft light and fine detail", plain);
    json_t *s = json_string(b.data);
    char *text = json_dumps(s, JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
    json_decref(s);
    buf_done(&b);
    free(plain);
    return text;
}

static void openai_answer_urls(struct exchange *ex, const struct order *o, int count)
{
    struct sandbox *box = ex->box;
    struct job job = { .created_ms = sandbox_now_ms(box), .prompt = text_dup(ex->prompt), .count = count };
    text_random_hex(job.id, 24);
    memcpy(job.account, ex->account, sizeof job.account);
    job.expires_ms = job.created_ms + sandbox_setting(box, CFG_URL_TTL);
    job.width = o->width;
    job.height = o->height;
    desk_cap(box, &job.width, &job.height);
    job.shaped = desk_shape(&ex->fault);
    const struct job *kept = jobs_add(box->jobs, &job, (size_t)sandbox_setting(box, CFG_MAX_JOBS));

    json_t *data = json_array();
    char *revised = o->family == DALLE3 ? openai_revised(ex) : NULL;
    for (int i = 0; i < count; i++) {
        char url[1024];
        openai_image_url(box, kept, i, url, sizeof url);
        json_t *one = json_pack("{s:s}", "url", url);
        if (revised != NULL) {
            json_t *text = json_loads(revised, JSON_DECODE_ANY, NULL);
            (void)json_object_set_new(one, "revised_prompt", text); /* fails only without memory */
        }
        (void)json_array_append_new(data, one); /* as above */
    }
    free(revised);
    exchange_send_json(ex, 200, json_pack("{s:I,s:o}", "created", (json_int_t)(kept->created_ms / 1000), "data", data));
}

static void openai_on_painted(void *cls, struct paint *p)
{
    struct exchange *ex = cls;
    struct blob *body = blob_new(p->body.data, p->body.len);
    ex->paint = NULL;
    exchange_send_blob(ex, 200, "application/json", body);
}

static void openai_answer_base64(struct exchange *ex, const struct order *o, int count)
{
    static const char *const format_name[] = { "png", "jpeg", "webp" };
    struct paint *p = paint_new(ex->box->gallery);
    struct buf head = { 0 }, between = { 0 }, tail = { 0 };
    char *revised = o->family == DALLE3 ? openai_revised(ex) : NULL;
    const char *open = "{\"b64_json\":\"";

    p->count = (size_t)count;
    for (int i = 0; i < count; i++) {
        p->specs[i] = desk_picture(ex, o->width, o->height, o->format);
        p->specs[i].seed = o->files.seed + (uint64_t)i;
        p->specs[i].quality = o->compression < 5 ? 5 : o->compression > 95 ? 95 : o->compression;
        p->specs[i].transparent = o->background != NULL && strcmp(o->background, "transparent") == 0;
    }
    buf_fmt(&head, "{\"created\":%lld,", (long long)(sandbox_now_ms(ex->box) / 1000));
    if (o->family == GPT)
        buf_fmt(&head, "\"background\":\"%s\",\"output_format\":\"%s\",\"quality\":\"%s\",\"size\":\"%dx%d\",",
                strcmp(o->background, "transparent") == 0 ? "transparent" : "opaque", format_name[o->format],
                o->quality, o->width, o->height);
    buf_fmt(&head, "\"data\":[%s", count > 0 ? open : "");
    buf_fmt(&between, "\"%s%s},%s", revised != NULL ? ",\"revised_prompt\":" : "", revised != NULL ? revised : "",
            open);
    if (count > 0)
        buf_fmt(&tail, "\"%s%s}", revised != NULL ? ",\"revised_prompt\":" : "", revised != NULL ? revised : "");
    buf_str(&tail, "]");
    if (o->family == GPT) {
        int64_t out = o->image_tokens * o->n;
        buf_fmt(
            &tail,
            ",\"usage\":{\"input_tokens\":%lld,\"input_tokens_details\":{\"text_tokens\":%lld,\"image_tokens\":%lld},"
            "\"output_tokens\":%lld,\"total_tokens\":%lld}",
            (long long)(o->text_tokens + o->input_tokens), (long long)o->text_tokens, (long long)o->input_tokens,
            (long long)out, (long long)(out + o->text_tokens + o->input_tokens));
    }
    buf_str(&tail, "}");
    p->head = head.data;
    p->between = between.data;
    p->tail = tail.data;
    free(revised);
    exchange_paint(ex, p, openai_on_painted);
}

static void openai_on_worked(struct exchange *ex)
{
    const struct order *o = ex->cargo;
    int count = desk_count(&ex->fault, o->n);
    openai_success_headers(ex);
    if (fault_has(&ex->fault, FW_FAIL))
        openai_refuse(ex, 500, "");
    else if (o->wants_url)
        openai_answer_urls(ex, o, count);
    else
        openai_answer_base64(ex, o, count);
}

static void openai_moderated(struct exchange *ex, const struct order *o)
{
    if (o->family == GPT)
        openai_error(ex, 400, "image_generation_user_error", NULL, "moderation_blocked",
                     "Your request was rejected by the safety system. If you believe this is an error, contact us at "
                     "help.openai.com and include the request ID req_sandbox. safety_violations=[violence].");
    else
        openai_error(ex, 400, "invalid_request_error", NULL, "content_policy_violation",
                     "Your request was rejected as a result of our safety system. Your prompt may contain text that is "
                     "not allowed by our safety system.");
}

/* Key and access; false means answered. */
static bool openai_admit(struct exchange *ex, enum key_mood mood, const struct order *o, const char *model)
{
    bool retired = o->family != GPT && sandbox_setting(ex->box, CFG_DALLE_RETIRED) != 0;
    if (mood == KEY_MISSING || mood == KEY_BAD) {
        openai_error(ex, 401, "invalid_request_error", NULL, "invalid_api_key",
                     "Incorrect API key provided. You can find your API key at https://platform.openai.com.");
        return false;
    }
    if (o->model == NULL || retired) {
        openai_error(ex, 404, "invalid_request_error", NULL, "model_not_found",
                     "The model '%s' does not exist or you do not have access to it.", model);
        return false;
    }
    if (mood == KEY_UNVERIFIED && o->family == GPT) {
        openai_error(ex, 403, "invalid_request_error", NULL, NULL,
                     "Your organization must be verified to use the model '%s'.", model);
        return false;
    }
    return true;
}

/* Edits of the GPT models count the pictures that come in, too: a bucket of its own. */
static int64_t openai_take_inputs(struct exchange *ex, const struct order *o, struct limit_ask *ask)
{
    static char key[48];
    if (o->family != GPT || o->files.count == 0)
        return 0;
    (void)snprintf(key, sizeof key, "%s/in", ex->account);
    ask->key = key;
    ask->limit = sandbox_setting(ex->box, CFG_OPENAI_INPUTS);
    ask->weight = o->files.count;
    return limits_take(ex->box->limits, ask);
}

/* Money and limits; false means answered. */
static bool openai_afford(struct exchange *ex, enum key_mood mood, const struct order *o)
{
    struct limit_ask ask = { .key = ex->account,
                             .now_ms = sandbox_now_ms(ex->box),
                             .limit = sandbox_setting(ex->box, CFG_OPENAI_REQUESTS),
                             .window_ms = sandbox_setting(ex->box, CFG_OPENAI_WINDOW),
                             .weight = o->n };
    if (mood == KEY_BROKE) {
        openai_error(ex, 429, "insufficient_quota", NULL, "insufficient_quota",
                     "You exceeded your current quota, please check your plan and billing details.");
        return false;
    }
    if (mood == KEY_HARD_LIMIT) {
        openai_error(ex, 400, "invalid_request_error", NULL, "billing_hard_limit_reached",
                     "Billing hard limit has been reached.");
        return false;
    }
    if (mood == KEY_ZERO) {
        openai_error(ex, 429, "requests", NULL, "rate_limit_exceeded",
                     "Rate limit exceeded for images per minute in organization org-SANDBOX. Limit: 0/1min. Current: "
                     "%d/1min.",
                     o->n);
        return false;
    }
    int64_t wait = limits_take(ex->box->limits, &ask);
    if (wait == 0)
        wait = openai_take_inputs(ex, o, &ask);
    if (wait > 0) {
        counters_add(ex->box->counters, NULL, ex->account, COUNT_LIMITED, 1);
        exchange_header(ex, "retry-after", "%lld", (long long)((wait + 999) / 1000));
        exchange_header(ex, "retry-after-ms", "%lld", (long long)wait);
        openai_error(ex, 429, ask.key == ex->account ? "requests" : "input-images", NULL, "rate_limit_exceeded",
                     "Rate limit reached for %s per minute in organization org-SANDBOX. Limit %lld, Used %lld, "
                     "Requested %lld. Please try again in %lldms.",
                     ask.key == ex->account ? "images" : "input-images", (long long)ask.limit, (long long)ask.limit,
                     (long long)ask.weight, (long long)wait);
        return false;
    }
    return true;
}

static const struct model *openai_model(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(models); i++)
        if (strcmp(models[i].name, name) == 0)
            return &models[i];
    return NULL;
}

/* Which models a call knows at all: edits no dall-e-3, their JSON form no DALL-E, variations dall-e-2 alone. */
static bool openai_suits(struct exchange *ex, const struct order *o)
{
    if (o->kind == OPENAI_GENERATE || (o->kind == OPENAI_VARY && o->family == DALLE2) ||
        (o->kind == OPENAI_EDIT && o->family != DALLE3) || (o->kind == OPENAI_EDIT_JSON && o->family == GPT))
        return true;
    return openai_bad(ex, "model", "invalid_value", "Invalid value for 'model': it is not supported by this endpoint.");
}

static void openai_work(struct exchange *ex, const json_t *body, enum openai_kind kind)
{
    char key[256];
    enum key_mood mood = desk_key(ex, "openai", key, sizeof key);
    const json_t *m = json_object_get(body, "model");
    const json_t *prompt = json_object_get(body, "prompt");
    bool is_edit = kind == OPENAI_EDIT || kind == OPENAI_EDIT_JSON;
    const char *model = json_is_string(m) ? json_string_value(m) : is_edit ? "gpt-image-1.5" : "dall-e-2";
    struct order *o = text_alloc(sizeof *o);

    ex->cargo = o;
    ex->cargo_free = free;
    desk_open(ex, PHASE_SUBMIT, json_is_string(prompt) ? json_string_value(prompt) : NULL);
    if (m != NULL && !json_is_string(m) && !json_is_null(m)) {
        (void)openai_bad(ex, "model", "invalid_type", "Invalid type for 'model': expected a string."); /* answered */
        return;
    }
    if (ex->prompt == NULL && kind == OPENAI_VARY)
        ex->prompt = text_dup("a variation"); /* what to draw */
    o->kind = kind;
    o->model = openai_model(model);
    o->family = o->model == NULL ? GPT : o->model->family;
    o->n = 1;
    o->compression = 100;
    if (!openai_suits(ex, o) || !check_order(ex, body, o) || !openai_admit(ex, mood, o, model))
        return;
    ex->images = o->n;
    ex->cost = openai_cost(o, ex->prompt);
    if (desk_fault(ex, openai_refuse) || !openai_afford(ex, mood, o))
        return;
    if (fault_has(&ex->fault, FW_MODERATED)) {
        openai_moderated(ex, o);
        return;
    }
    if (!fault_has(&ex->fault, FW_FAIL))
        desk_pay(ex);
    if (!desk_taken(ex))
        exchange_wait(ex, desk_delay(ex, CFG_DELAY_OPENAI_MIN), openai_on_worked);
}

static void openai_read_json(struct exchange *ex, enum openai_kind kind)
{
    json_t *body =
        ex->is_too_large ? NULL : json_loadb(ex->body.data == NULL ? "" : ex->body.data, ex->body.len, 0, NULL);
    if (!json_is_object(body)) {
        ex->phase = PHASE_SUBMIT;
        openai_error(ex, 400, "invalid_request_error", NULL, NULL,
                     "We could not parse the JSON body of your request. (HINT: the content type must be "
                     "application/json and the body a JSON object.)");
    } else {
        openai_work(ex, body, kind);
    }
    json_decref(body);
}

void openai_on_request(struct exchange *ex, const char *path)
{
    const char *type = exchange_request_header(ex, "Content-Type");
    bool is_json = type != NULL && text_casecmp_n(type, "application/json", 16) == 0;
    bool is_edit = strcmp(path, "/images/edits") == 0, is_vary = strcmp(path, "/images/variations") == 0;

    ex->provider = "openai";
    if (strcmp(path, "/moderations") == 0) {
        openai_on_moderation(ex);
        return;
    }
    if (strcmp(path, "/images/generations") != 0 && !is_edit && !is_vary) {
        openai_error(ex, 404, "invalid_request_error", NULL, NULL, "Invalid URL (%s /v1%s)", ex->method, path);
        return;
    }
    if (strcmp(ex->method, "POST") != 0) {
        openai_error(ex, 405, "invalid_request_error", NULL, NULL, "Not allowed to %s on this URL", ex->method);
        return;
    }
    if (is_vary || (is_edit && !is_json)) {
        ex->phase = PHASE_SUBMIT;
        json_t *form = openai_read_form(ex);
        if (form != NULL)
            openai_work(ex, form, is_vary ? OPENAI_VARY : OPENAI_EDIT);
        json_decref(form);
    } else if (is_json) {
        openai_read_json(ex, is_edit ? OPENAI_EDIT_JSON : OPENAI_GENERATE);
    } else {
        ex->phase = PHASE_SUBMIT;
        openai_error(ex, 400, "invalid_request_error", NULL, NULL,
                     "We could not parse the JSON body of your request. (HINT: the content type must be "
                     "application/json and the body a JSON object.)");
    }
}
