/* google.c - Google's Gemini image models (:generateContent) and Imagen (:predict): one POST, pictures as base64 in
 * JSON.
 *
 * The usual failure is a 200 without a picture: pictures are looked for first, then promptFeedback, then finishReason.
 * A bad key and a blocked region are a 400, a daily quota is a 429 whose short wait misleads: words are read before the
 * status (providers/google.md). Gateways' snake_case is taken too. Answers from the page: tests/unit/providers/google/.
 */
#include <ctype.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "common/base/text.h"
#include "worker/providers/adapter.h"

static const struct {
    const char *text; /* part of the message, any case */
    enum err code;
} error_texts[] = {
    { "user location is not supported", ERR_REGION_BLOCKED },
    { "not available in your country", ERR_REGION_BLOCKED },
    { "api key not valid", ERR_AUTH },
    { "api key expired", ERR_AUTH },
    { "api key not found", ERR_AUTH },
    { "prepayment credits are depleted", ERR_INSUFFICIENT_FUNDS },
};

static const struct {
    const char *word;
    enum err code;
} finish_reasons[] = {
    { "SAFETY", ERR_CONTENT_FILTERED },
    { "IMAGE_SAFETY", ERR_CONTENT_FILTERED },
    { "PROHIBITED_CONTENT", ERR_CONTENT_FILTERED },
    { "IMAGE_PROHIBITED_CONTENT", ERR_CONTENT_FILTERED },
    { "BLOCKLIST", ERR_CONTENT_FILTERED },
    { "SPII", ERR_CONTENT_FILTERED },
    { "RECITATION", ERR_CONTENT_FILTERED },
    { "IMAGE_RECITATION", ERR_CONTENT_FILTERED },
    { "NO_IMAGE", ERR_PROVIDER_ERROR },
    { "IMAGE_OTHER", ERR_PROVIDER_ERROR },
    { "OTHER", ERR_PROVIDER_ERROR },
    { "LANGUAGE", ERR_PROVIDER_ERROR },
    { "MAX_TOKENS", ERR_PROVIDER_ERROR },
    { "MALFORMED_FUNCTION_CALL", ERR_PROVIDER_ERROR },
    { "UNEXPECTED_TOOL_CALL", ERR_PROVIDER_ERROR },
    { "TOO_MANY_TOOL_CALLS", ERR_PROVIDER_ERROR },
};

static const json_t *either(const json_t *from, const char *camel, const char *snake)
{
    const json_t *v = json_object_get(from, camel);

    return v != NULL ? v : json_object_get(from, snake);
}

static bool is_predict(const struct job_spec *spec)
{
    const char *path = catalog_call(spec->op, spec->params).path;

    return path != NULL && strstr(path, ":predict") != NULL;
}

/* ---- out */

/* The prompt, then the pictures: a shape that the catalogue's places cannot make. */
static struct http_req google_submit(struct arena *a, const struct job_spec *spec)
{
    struct http_req out = request_submit(a, spec);
    json_t *parts;

    if (out.path == NULL || is_predict(spec))
        return out;
    parts = json_pack("[{s:O}]", "text", json_object_get(spec->params, "prompt"));
    for (size_t i = 0; parts != NULL && i < spec->input_count; i++) {
        const struct job_input *in = &spec->inputs[i];

        if (in->text == NULL || json_array_append_new(parts, json_pack("{s:{s:s, s:s}}", "inlineData", "mimeType",
                                                                       in->mime, "data", in->text)) != 0) {
            json_decref(parts);
            parts = NULL;
        }
    }
    if (parts == NULL ||
        json_object_set_new(out.body, "contents", json_pack("[{s:s, s:o}]", "role", "user", "parts", parts)) != 0) {
        json_decref(out.body);
        return (struct http_req){ .path = NULL };
    }
    return out;
}

/* ---- errors */

static bool holds(const char *text, const char *part)
{
    size_t len = strlen(part);

    for (; text != NULL && *text != '\0'; text++) {
        if (strncasecmp(text, part, len) == 0)
            return true;
    }
    return false;
}

/* {"error":{…}}, sometimes in a list of one; NULL: none */
static const json_t *error_of(const json_t *json)
{
    const json_t *error = json_object_get(json_is_array(json) ? json_array_get(json, 0) : json, "error");

    return json_is_object(error) ? error : NULL;
}

static bool any_quota(const json_t *error, const char *part)
{
    const json_t *details = json_object_get(error, "details");

    for (size_t i = 0; i < json_array_size(details); i++) {
        const json_t *violations = json_object_get(json_array_get(details, i), "violations");

        for (size_t k = 0; k < json_array_size(violations); k++) {
            if (holds(json_text(json_array_get(violations, k), "quotaId"), part))
                return true;
        }
    }
    return false;
}

/* "limit: 0": the free tier has no pictures at all. Not "limit: 0.5" and not "limit: 05". */
static bool says_limit_zero(const char *text)
{
    const char *at = text != NULL ? strstr(text, "limit: 0") : NULL;

    return at != NULL && !isdigit((unsigned char)at[8]) && !(at[8] == '.' && isdigit((unsigned char)at[9]));
}

static int seconds_of(const char *text) /* "38s", "35.84422229s": rounded up; 0: none */
{
    char number[24] = "";
    double s;

    if (text == NULL)
        return 0;
    (void)snprintf(number, sizeof number, "%.*s", (int)strspn(text, "0123456789."), text);
    if (parse_double(number, &s) != ERR_OK || !(s > 0))
        return 0;
    return s >= INT_MAX ? INT_MAX : (int)ceil(s);
}

static int wait_hint(const struct http_answer *in, const json_t *error)
{
    const json_t *details = json_object_get(error, "details");
    const char *message = json_text(error, "message"),
               *at = message != NULL ? strstr(message, "Please retry in ") : NULL;
    int s = answer_retry_after_s(in);

    for (size_t i = 0; s == 0 && i < json_array_size(details); i++)
        s = seconds_of(json_text(json_array_get(details, i), "retryDelay"));
    return s == 0 && at != NULL ? seconds_of(at + strlen("Please retry in ")) : s;
}

static bool is_bad_key(const json_t *error)
{
    const json_t *details = json_object_get(error, "details");

    for (size_t i = 0; i < json_array_size(details); i++) {
        const char *reason = json_text(json_array_get(details, i), "reason");

        if (reason != NULL && strcmp(reason, "API_KEY_INVALID") == 0)
            return true;
    }
    return false;
}

static struct answer judged(long status, const json_t *error)
{
    const char *message = json_text(error, "message");

    for (size_t i = 0; i < ARRAY_LEN(error_texts); i++) {
        if (holds(message, error_texts[i].text))
            return answer_of(OUT_FAIL, error_texts[i].code);
    }
    if (is_bad_key(error))
        return answer_of(OUT_FAIL, ERR_AUTH);
    if (status == 429 && (any_quota(error, "PerDay") || says_limit_zero(message)))
        return answer_of(OUT_FAIL, ERR_INSUFFICIENT_FUNDS); /* the short wait that it names is misleading */
    if (status == 499)
        return answer_of(OUT_RETRY, ERR_PROVIDER_ERROR);
    return answer_for_status(status);
}

static struct answer google_error(struct arena *a, const struct http_answer *in, const json_t *error)
{
    int64_t code = in->status;
    struct answer out;

    if (answer_is_2xx(in))
        (void)json_int(error, "code", &code); /* a list of one under 200, from streaming paths */
    out = code >= 400 && code <= 599 ? judged((long)code, error) : answer_for_status(in->status);
    if (out.outcome == OUT_RETRY)
        out.retry_after_s = wait_hint(in, error);
    out.message = answer_text(a, json_object_get(error, "message"), MESSAGE_BYTES);
    if (out.message == NULL)
        out.message = arena_printf(a, "HTTP status %ld", in->status);
    return out;
}

/* ---- results */

static bool take_picture(const json_t *base64, struct answer *out)
{
    if (out->output_count == PROVIDER_OUTPUTS || !json_is_string(base64) ||
        !base64_is_media(json_string_value(base64), json_string_length(base64)))
        return false;
    out->outputs[out->output_count++] =
        (struct output){ .base64 = json_string_value(base64), .base64_len = json_string_length(base64) };
    return true;
}

/* Pictures of all candidates; `words` becomes the first text. A thought may hold a draft: skipped. */
static void take_parts(const json_t *candidates, struct answer *out, const json_t **words)
{
    for (size_t i = 0; i < json_array_size(candidates); i++) {
        const json_t *parts = json_object_get(json_object_get(json_array_get(candidates, i), "content"), "parts");

        for (size_t k = 0; k < json_array_size(parts); k++) {
            const json_t *part = json_array_get(parts, k), *text = json_object_get(part, "text");

            if (json_bool(part, "thought", false))
                continue;
            (void)take_picture(json_object_get(either(part, "inlineData", "inline_data"), "data"), out);
            if (*words == NULL && json_string_length(text) > 0)
                *words = text;
        }
    }
}

static struct answer without_picture(struct arena *a, const json_t *json, const json_t *words)
{
    const json_t *feedback = either(json, "promptFeedback", "prompt_feedback");
    const json_t *candidate = json_array_get(json_object_get(json, "candidates"), 0);
    const json_t *blocked = either(feedback, "blockReason", "block_reason");
    const json_t *reason = either(candidate, "finishReason", "finish_reason");
    const json_t *said = either(candidate, "finishMessage", "finish_message");
    const char *word = json_string_value(json_is_string(blocked) ? blocked : reason);
    struct answer out = answer_of(OUT_FAIL, ERR_BAD_RESPONSE);

    if (json_is_string(blocked))
        out.code = ERR_CONTENT_FILTERED;
    for (size_t i = 0; word != NULL && blocked == NULL && i < ARRAY_LEN(finish_reasons); i++) {
        if (strcmp(finish_reasons[i].word, word) == 0)
            out.code = finish_reasons[i].code;
    }
    if (words != NULL) /* often a refusal in words */
        out.message = answer_text(a, words, MESSAGE_BYTES);
    else if (json_is_string(said))
        out.message = answer_text(a, said, MESSAGE_BYTES);
    else if (word != NULL)
        out.message = arena_printf(a, "no image: %s", text_clean(a, word, strlen(word), 60));
    if (out.message == NULL)
        out.message = arena_strdup(a, "the answer holds no image");
    return out;
}

static struct answer gemini_result(struct arena *a, const struct job_spec *spec, const json_t *json)
{
    const json_t *usage = either(json, "usageMetadata", "usage_metadata"), *words = NULL;
    const json_t *made = either(usage, "candidatesTokenCount", "candidates_token_count");
    struct answer out = answer_of(OUT_DONE, ERR_OK);
    json_t *tokens;

    take_parts(json_object_get(json, "candidates"), &out, &words);
    if (out.output_count == 0)
        return without_picture(a, json, words);
    if (json_is_object(usage))
        out.usage = usage;
    if (json_is_integer(made) && (tokens = json_pack("{s:I}", "output_tokens", json_integer_value(made))) != NULL) {
        out.cost_microusd = catalog_cost_microusd(spec->op, spec->params, tokens);
        json_decref(tokens);
    }
    return out;
}

/* Fewer than asked for is normal: what was filtered is left out, or stands there with its reason alone. */
static struct answer imagen_result(struct arena *a, const json_t *json)
{
    const json_t *predictions = json_object_get(json, "predictions"), *why = NULL;
    struct answer out = answer_of(OUT_DONE, ERR_OK);
    bool is_broken = false;

    for (size_t i = 0; i < json_array_size(predictions); i++) {
        const json_t *one = json_array_get(predictions, i);
        const json_t *base64 = either(one, "bytesBase64Encoded", "bytes_base64_encoded");
        const json_t *reason = either(one, "raiFilteredReason", "rai_filtered_reason");

        if (json_string_length(base64) > 0 && !take_picture(base64, &out))
            is_broken = true;
        if (why == NULL && json_is_string(reason))
            why = reason;
    }
    if (out.output_count > 0)
        return out;
    if (is_broken && why == NULL)
        return answer_bad_response(a, "the answer holds no readable image");
    out = answer_of(OUT_FAIL, ERR_CONTENT_FILTERED); /* nothing at all: filtered, too */
    out.message = why != NULL ? answer_text(a, why, MESSAGE_BYTES)
                              : arena_strdup(a, "the provider filtered every image, without a reason");
    return out;
}

static struct answer google_on_submit(struct arena *a, const struct job_spec *spec, const struct http_answer *in)
{
    const json_t *error = error_of(in->json);
    struct answer out;

    if (error != NULL || !answer_is_2xx(in))
        out = google_error(a, in, error);
    else if (!json_is_object(in->json))
        out = answer_bad_response(a, "the answer is not JSON");
    else
        out = is_predict(spec) ? imagen_result(a, in->json) : gemini_result(a, spec, in->json);
    out.request_id = answer_text(a, either(in->json, "responseId", "response_id"), REF_BYTES);
    return out;
}

extern const struct provider provider_google;
const struct provider provider_google = {
    .name = "google",
    .submit = google_submit,
    .on_submit = google_on_submit,
};
