/* google.c - Google's Gemini image (:generateContent) and Imagen (:predict) as their page describes them: key in
 * x-goog-api-key or ?key=, pictures as base64 in JSON, the usual failure a 200 without a picture.
 *
 * Codes for the fault `status`: region, country, expired, limit0, depleted, perday, perminute (with status=400 or 429),
 * wrapped (the error in a list of one). moderated: blocked by promptFeedback, Imagen: no predictions; filtered: the
 * candidate's finishReason, Imagen: raiFilteredReason alone; empty: only text, Imagen: an empty list. */
#include "sandbox.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SIDE = 1024, GEMINI_MILLICENTS = 3900, TOKENS = 1290 };

struct order {
    const char *model; /* our own literal */
    int count, width, height;
    bool is_imagen;
};

static const struct {
    const char *name;
    bool is_imagen;
    int millicents;
} models[] = {
    { "gemini-2.5-flash-image", false, GEMINI_MILLICENTS },
    { "imagen-4.0-generate-001", true, 4000 },
    { "imagen-4.0-fast-generate-001", true, 2000 },
    { "imagen-4.0-ultra-generate-001", true, 6000 },
};

static void google_error(struct exchange *ex, int status, const char *word, json_t *details, bool is_wrapped,
                         const char *message)
{
    json_t *e = json_pack("{s:{s:i,s:s,s:s}}", "error", "code", status, "message", message, "status", word);
    if (details != NULL)
        (void)json_object_set_new(json_object_get(e, "error"), "details", details); /* fails only without memory */
    exchange_send_json(ex, status, is_wrapped ? json_pack("[o]", e) : e);
}

static void google_bad(struct exchange *ex, const char *message)
{
    google_error(ex, 400, "INVALID_ARGUMENT", NULL, false, message);
}

static void google_bad_key(struct exchange *ex, const char *message)
{
    google_error(ex, 400, "INVALID_ARGUMENT",
                 json_pack("[{s:s,s:s,s:s}]", "@type", "type.googleapis.com/google.rpc.ErrorInfo", "reason",
                           "API_KEY_INVALID", "domain", "googleapis.com"),
                 false, message);
}

static void google_quota(struct exchange *ex, const char *quota, const char *delay, const char *message)
{
    json_t *details =
        json_pack("[{s:s,s:[{s:s}]},{s:s,s:s}]", "@type", "type.googleapis.com/google.rpc.QuotaFailure", "violations",
                  "quotaId", quota, "@type", "type.googleapis.com/google.rpc.RetryInfo", "retryDelay", delay);
    google_error(ex, 429, "RESOURCE_EXHAUSTED", details, false, message);
}

/* The page's error for a status that a fault asked for. */
static void google_refuse(struct exchange *ex, int status, const char *code)
{
    static const struct {
        int status;
        const char *word, *message;
    } rows[] = {
        { 400, "INVALID_ARGUMENT", "Request contains an invalid argument." },
        { 403, "PERMISSION_DENIED", "Your API key was reported as leaked. Please use another API key." },
        { 404, "NOT_FOUND", "models/x is not found for API version v1beta, or is not supported for this method." },
        { 429, "RESOURCE_EXHAUSTED", "You exceeded your current quota, please check your plan and billing details." },
        { 499, "CANCELLED", "The operation was cancelled." },
        { 500, "INTERNAL", "An internal error has occurred. Please retry." },
        { 503, "UNAVAILABLE", "The model is overloaded. Please try again later." },
        { 504, "DEADLINE_EXCEEDED", "Deadline expired before operation could complete." },
    };
    const char *word = "UNKNOWN", *message = "An error has occurred.";

    if (strcmp(code, "region") == 0)
        google_error(ex, 400, "FAILED_PRECONDITION", NULL, false, "User location is not supported for the API use.");
    else if (strcmp(code, "country") == 0)
        google_error(ex, 400, "FAILED_PRECONDITION", NULL, false,
                     "Gemini API free tier is not available in your country. Please enable billing.");
    else if (strcmp(code, "expired") == 0)
        google_bad_key(ex, "API key expired. Please renew the API key.");
    else if (strcmp(code, "limit0") == 0)
        google_quota(
            ex, "GenerateRequestsPerMinutePerProjectPerModel-FreeTier", "46s",
            "You exceeded your current quota. * Quota exceeded for metric: free_tier_requests, limit: 0, model: "
            "gemini-2.5-flash-preview-image");
    else if (strcmp(code, "depleted") == 0)
        google_error(ex, 429, "RESOURCE_EXHAUSTED", NULL, false, "Your prepayment credits are depleted.");
    else if (strcmp(code, "perday") == 0)
        google_quota(ex, "GenerateRequestsPerDayPerProjectPerModel-FreeTier", "46s",
                     "You exceeded your current quota.");
    else if (strcmp(code, "perminute") == 0)
        google_quota(ex, "GenerateRequestsPerMinutePerProjectPerModel", "1.2s",
                     "You exceeded your current quota. Please retry in 1.2s.");
    else {
        for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
            if (rows[i].status == status) {
                word = rows[i].word;
                message = rows[i].message;
            }
        }
        google_error(ex, status, word, NULL, strcmp(code, "wrapped") == 0, message);
    }
}

/* ---- the order: false means answered */

static bool google_word(struct exchange *ex, const json_t *from, const char *name, const char *const *words)
{
    const json_t *v = json_object_get(from, name);
    char message[120];

    if (v == NULL)
        return true;
    for (size_t i = 0; json_is_string(v) && words[i] != NULL; i++) {
        if (strcmp(words[i], json_string_value(v)) == 0)
            return true;
    }
    (void)snprintf(message, sizeof message, "Invalid value at '%s'.", name);
    google_bad(ex, message);
    return false;
}

static void google_size(const json_t *aspect, struct order *o)
{
    int w = 1, h = 1;

    if (json_is_string(aspect))
        (void)sscanf(json_string_value(aspect), "%d:%d", &w, &h); /* a word of the list */
    o->width = w >= h ? SIDE : SIDE * w / h;
    o->height = h >= w ? SIDE : SIDE * h / w;
}

static bool gemini_order(struct exchange *ex, const json_t *body, struct order *o)
{
    static const char *const aspects[] = {
        "1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9", NULL
    };
    static const char *const harms[] = { "HARM_CATEGORY_HARASSMENT", "HARM_CATEGORY_HATE_SPEECH",
                                         "HARM_CATEGORY_SEXUALLY_EXPLICIT", "HARM_CATEGORY_DANGEROUS_CONTENT", NULL };
    const json_t *parts = json_object_get(json_array_get(json_object_get(body, "contents"), 0), "parts");
    const json_t *config = json_object_get(body, "generationConfig"), *image = json_object_get(config, "imageConfig");
    const json_t *safety = json_object_get(body, "safetySettings");

    if (json_array_size(parts) == 0) {
        google_bad(ex, "* GenerateContentRequest.contents: contents is not specified");
        return false;
    }
    for (size_t i = 0; i < json_array_size(parts); i++) {
        const json_t *file = json_object_get(json_array_get(parts, i), "inlineData");
        if (file != NULL && (!json_is_string(json_object_get(file, "mimeType")) ||
                             !desk_is_picture(json_string_value(json_object_get(file, "data")),
                                              json_string_length(json_object_get(file, "data"))))) {
            google_bad(ex, "Unable to process input image. Please retry or report.");
            return false;
        }
    }
    for (size_t i = 0; i < json_array_size(safety); i++) {
        if (!google_word(ex, json_array_get(safety, i), "category", harms))
            return false;
    }
    o->count = 1;
    google_size(json_object_get(image, "aspectRatio"), o);
    return google_word(ex, image, "aspectRatio", aspects);
}

static bool imagen_order(struct exchange *ex, const json_t *body, struct order *o)
{
    static const char *const aspects[] = { "1:1", "3:4", "4:3", "9:16", "16:9", NULL };
    static const char *const people[] = { "dont_allow", "allow_adult", "allow_all", NULL };
    static const char *const sizes[] = { "1K", "2K", NULL };
    const json_t *params = json_object_get(body, "parameters"), *count = json_object_get(params, "sampleCount");

    if (json_string_length(json_object_get(json_array_get(json_object_get(body, "instances"), 0), "prompt")) == 0) {
        google_bad(ex, "Text prompt cannot be empty.");
        return false;
    }
    if (count != NULL && (!json_is_integer(count) || json_integer_value(count) < 1 || json_integer_value(count) > 4)) {
        google_bad(ex, "sampleCount must be between 1 and 4, inclusive.");
        return false;
    }
    o->count = count == NULL ? 1 : (int)json_integer_value(count);
    google_size(json_object_get(params, "aspectRatio"), o);
    return google_word(ex, params, "aspectRatio", aspects) && google_word(ex, params, "personGeneration", people) &&
           google_word(ex, params, "sampleImageSize", sizes);
}

/* Key, money and limits; false means answered. */
static bool google_admit(struct exchange *ex, enum key_mood mood)
{
    struct limit_ask ask = { .key = ex->account,
                             .now_ms = sandbox_now_ms(ex->box),
                             .limit = sandbox_setting(ex->box, CFG_SYNC_REQUESTS),
                             .window_ms = sandbox_setting(ex->box, CFG_SYNC_WINDOW),
                             .weight = 1 };
    char delay[32];
    int64_t wait;

    if (mood == KEY_MISSING) {
        google_error(ex, 403, "PERMISSION_DENIED", NULL, false,
                     "Method doesn't allow unregistered callers (callers without established identity).");
        return false;
    }
    if (mood == KEY_BAD || mood == KEY_MALFORMED) {
        google_bad_key(ex, mood == KEY_BAD ? "API key not valid. Please pass a valid API key."
                                           : "API Key not found. Please pass a valid API key.");
        return false;
    }
    if (mood == KEY_UNVERIFIED || mood == KEY_BROKE || mood == KEY_ZERO || mood == KEY_HARD_LIMIT) {
        google_refuse(ex, mood == KEY_UNVERIFIED ? 403 : 429,
                      mood == KEY_BROKE        ? "depleted"
                      : mood == KEY_ZERO       ? "limit0"
                      : mood == KEY_HARD_LIMIT ? "perday"
                                               : "");
        return false;
    }
    wait = limits_take(ex->box->limits, &ask);
    if (wait == 0)
        return true;
    counters_add(ex->box->counters, NULL, ex->account, COUNT_LIMITED, 1);
    (void)snprintf(delay, sizeof delay, "%.3fs", (double)wait / 1000);
    google_quota(ex, "GenerateRequestsPerMinutePerProjectPerModel", delay, "You exceeded your current quota.");
    return false;
}

/* ---- the answers */

static void google_on_painted(void *cls, struct paint *p)
{
    struct exchange *ex = cls;
    struct blob *body = blob_new(p->body.data, p->body.len);

    ex->paint = NULL;
    exchange_send_blob(ex, 200, "application/json; charset=UTF-8", body);
}

static void google_paint(struct exchange *ex, const struct order *o, int count, const char *head, const char *between,
                         const char *tail)
{
    struct paint *p = paint_new(ex->box->gallery);

    p->count = (size_t)count;
    for (int i = 0; i < count; i++) {
        p->specs[i] = desk_picture(ex, o->width, o->height, PICTURE_PNG);
        p->specs[i].seed = (uint64_t)i;
    }
    p->head = text_dup(head);
    p->between = text_dup(between);
    p->tail = text_dup(tail);
    exchange_paint(ex, p, google_on_painted);
}

static void gemini_show(struct exchange *ex, const struct order *o)
{
    static const char usage[] = "\"usageMetadata\":{\"promptTokenCount\":11,\"candidatesTokenCount\":1290,"
                                "\"totalTokenCount\":1301},\"modelVersion\":\"gemini-2.5-flash-image\",\"responseId\":";
    char id[17], tail[400];

    text_random_hex(id, 16);
    (void)snprintf(tail, sizeof tail, "\"}}]},\"finishReason\":\"STOP\",\"index\":0}],%s\"%s\"}", usage, id);
    if (fault_has(&ex->fault, FW_MODERATED))
        exchange_send_json(ex, 200,
                           json_pack("{s:{s:s},s:{s:i,s:i}}", "promptFeedback", "blockReason", "PROHIBITED_CONTENT",
                                     "usageMetadata", "promptTokenCount", 11, "totalTokenCount", 11));
    else if (fault_has(&ex->fault, FW_FILTERED))
        exchange_send_json(ex, 200,
                           json_pack("{s:[{s:s,s:i}]}", "candidates", "finishReason", "IMAGE_SAFETY", "index", 0));
    else if (fault_has(&ex->fault, FW_EMPTY))
        exchange_send_json(ex, 200,
                           json_pack("{s:[{s:{s:s,s:[{s:s}]},s:s,s:i}]}", "candidates", "content", "role", "model",
                                     "parts", "text", "I cannot draw that.", "finishReason", "STOP", "index", 0));
    else
        google_paint(ex, o, 1,
                     "{\"candidates\":[{\"content\":{\"role\":\"model\",\"parts\":[{\"text\":\"Here is the picture.\"},"
                     "{\"inlineData\":{\"mimeType\":\"image/png\",\"data\":\"",
                     NULL, tail);
}

static void imagen_show(struct exchange *ex, const struct order *o)
{
    static const char gone[] = "{\"raiFilteredReason\":\"The generated image was removed. Support codes: 29310472\"}";
    int count = desk_count(&ex->fault, o->count);
    struct buf tail = { 0 };

    if (fault_has(&ex->fault, FW_MODERATED)) {
        exchange_send_json(ex, 200, json_object());
    } else if (fault_has(&ex->fault, FW_FILTERED) || count == 0) {
        exchange_send_json(
            ex, 200,
            json_pack("{s:o}", "predictions", count == 0 ? json_array() : json_pack("[o]", json_loads(gone, 0, NULL))));
    } else {
        buf_str(&tail, "\"}");
        for (int i = count; i < o->count; i++)
            buf_fmt(&tail, ",%s", gone);
        buf_str(&tail, "]}");
        google_paint(ex, o, count, "{\"predictions\":[{\"mimeType\":\"image/png\",\"bytesBase64Encoded\":\"",
                     "\"},{\"mimeType\":\"image/png\",\"bytesBase64Encoded\":\"", tail.data);
        buf_done(&tail);
    }
}

static void google_on_worked(struct exchange *ex)
{
    const struct order *o = ex->cargo;

    if (fault_has(&ex->fault, FW_FAIL))
        google_refuse(ex, 500, "");
    else if (o->is_imagen)
        imagen_show(ex, o);
    else
        gemini_show(ex, o);
}

static const char *prompt_of(const json_t *body, bool is_imagen)
{
    const json_t *parts = json_object_get(json_array_get(json_object_get(body, "contents"), 0), "parts");
    const json_t *instance = json_array_get(json_object_get(body, "instances"), 0);

    if (is_imagen)
        return json_string_value(json_object_get(instance, "prompt"));
    for (size_t i = 0; i < json_array_size(parts); i++) {
        const json_t *text = json_object_get(json_array_get(parts, i), "text");
        if (json_is_string(text))
            return json_string_value(text);
    }
    return NULL;
}

static void google_generate(struct exchange *ex, enum key_mood mood, const char *name, bool is_imagen,
                            const json_t *body)
{
    struct order *o = text_alloc(sizeof *o);
    int millicents = 0;

    ex->cargo = o;
    ex->cargo_free = free;
    desk_open(ex, PHASE_SUBMIT, prompt_of(body, is_imagen));
    o->is_imagen = is_imagen;
    for (size_t i = 0; i < ARRAY_LEN(models); i++) {
        if (strcmp(models[i].name, name) == 0 && models[i].is_imagen == is_imagen &&
            (!is_imagen || sandbox_setting(ex->box, CFG_GOOGLE_IMAGEN) != 0)) {
            o->model = models[i].name;
            millicents = models[i].millicents;
        }
    }
    if (!google_admit(ex, mood))
        return;
    if (o->model == NULL) {
        google_refuse(ex, 404, "");
        return;
    }
    if (!(is_imagen ? imagen_order(ex, body, o) : gemini_order(ex, body, o)))
        return;
    ex->images = o->count;
    ex->cost = (int64_t)millicents * o->count;
    if (desk_fault(ex, google_refuse))
        return;
    if (!fault_has(&ex->fault, FW_FAIL) && !fault_has(&ex->fault, FW_MODERATED))
        desk_pay(ex);
    if (!desk_taken(ex))
        exchange_wait(ex, desk_delay(ex, CFG_DELAY_SYNC_MIN), google_on_worked);
}

void google_on_request(struct exchange *ex, const char *path)
{
    static const char place[] = "/models/";
    char key[256], name[80];
    enum key_mood mood = desk_key(ex, "google", key, sizeof key);
    const char *colon = strrchr(path, ':');
    bool is_imagen = colon != NULL && strcmp(colon, ":predict") == 0;
    json_t *body;

    if (strncmp(path, place, sizeof place - 1) != 0 || strcmp(ex->method, "POST") != 0 || colon == NULL ||
        (!is_imagen && strcmp(colon, ":generateContent") != 0)) {
        google_refuse(ex, 404, "");
        return;
    }
    (void)snprintf(name, sizeof name, "%.*s", (int)(colon - path) - (int)sizeof place + 1, path + sizeof place - 1);
    body = ex->is_too_large || ex->body.data == NULL ? NULL : json_loadb(ex->body.data, ex->body.len, 0, NULL);
    if (json_is_object(body)) {
        google_generate(ex, mood, name, is_imagen, body);
    } else {
        ex->phase = PHASE_SUBMIT;
        google_bad(ex, "Invalid JSON payload received.");
    }
    json_decref(body);
}
