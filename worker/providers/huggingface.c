/* huggingface.c - Hugging Face's router: POST /hf-inference/models/{model} answers with the picture's bytes.
 *
 * `error` is a text or a list of texts, and its words say more than the status (providers/huggingface.md): a model that
 * is loading has begun nothing, also when an older path says so under 200. JSON with images or data is what partners
 * behind the same host answer (fal-ai, together, nscale); no operation of ours asks them, an operator's may
 * (docs/providers.md). Answers from the page: tests/unit/providers/huggingface/. */
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "common/base/text.h"
#include "worker/providers/adapter.h"

enum { MICROUSD_PER_COMPUTE_S = 120, SHOWN_ERRORS = 8 };

static const struct {
    const char *text; /* part of the error, any case */
    enum outcome outcome;
    enum err code;
} error_texts[] = {
    { "the token seems invalid", OUT_FAIL, ERR_AUTH },
    { "invalid username or password", OUT_FAIL, ERR_AUTH }, /* UNCONFIRMED */
    { "model not supported by provider", OUT_FAIL, ERR_NOT_FOUND },
    { "no longer supported by provider", OUT_FAIL, ERR_NOT_FOUND },
    { "exceeded your monthly included credits", OUT_FAIL, ERR_INSUFFICIENT_FUNDS },
    { "is currently loading", OUT_RETRY, ERR_PROVIDER_UNAVAILABLE },
    { "model too busy", OUT_RETRY, ERR_PROVIDER_UNAVAILABLE }, /* 500 or 503: UNCONFIRMED which */
};

static bool holds(const char *text, const char *part)
{
    size_t len = strlen(part);

    for (; text != NULL && *text != '\0'; text++) {
        if (strncasecmp(text, part, len) == 0)
            return true;
    }
    return false;
}

/* A text, a list of texts, or {"message"} of a partner; NULL: none of these. */
static const char *error_text(struct arena *a, const json_t *error)
{
    const char *text = NULL;

    if (json_is_object(error))
        error = json_object_get(error, "message");
    for (size_t i = 0; i < json_array_size(error) && i < SHOWN_ERRORS; i++) {
        const char *one = answer_text(a, json_array_get(error, i), MESSAGE_BYTES / SHOWN_ERRORS);

        if (one != NULL)
            text = text == NULL ? one : arena_printf(a, "%s; %s", text, one);
    }
    return text != NULL ? text : answer_text(a, error, MESSAGE_BYTES);
}

/* ratelimit: "api";r=0;t=55 - t is the seconds until there is room again; 0: not told. */
static int window_wait_s(const struct http_answer *in)
{
    const char *limit = http_answer_header(in, "ratelimit"), *t = limit != NULL ? strstr(limit, ";t=") : NULL;
    char digits[12] = "";
    int64_t s = 0;

    if (t == NULL)
        return 0;
    t += 3;
    (void)snprintf(digits, sizeof digits, "%.*s", (int)strspn(t, "0123456789"), t);
    return parse_i64(digits, 0, INT_MAX, &s) == ERR_OK ? (int)s : 0;
}

static struct answer huggingface_error(struct arena *a, const struct http_answer *in)
{
    const char *text = error_text(a, json_object_get(in->json, "error"));
    bool is_loading =
        json_is_number(json_object_get(in->json, "estimated_time")) || holds(text, "is currently loading");
    struct http_answer judged = *in; /* as what it means: hints are read of answers that may be asked again only */
    struct answer out;
    size_t i = 0;

    while (i < ARRAY_LEN(error_texts) && !holds(text, error_texts[i].text))
        i++;
    if (is_loading || (i < ARRAY_LEN(error_texts) && error_texts[i].outcome == OUT_RETRY))
        judged.status = 503;
    out = answer_by_status(a, &judged);
    if (answer_is_2xx(&judged)) {
        out = answer_of(OUT_FAIL, ERR_BAD_RESPONSE); /* an error under 200 that nobody documented */
    } else if (i < ARRAY_LEN(error_texts) && !is_loading) {
        out.outcome = error_texts[i].outcome;
        out.code = error_texts[i].code;
    }
    if (out.outcome != OUT_RETRY)
        out.retry_after_s = 0;
    else if (out.retry_after_s == 0 && in->status == 429)
        out.retry_after_s = window_wait_s(in);
    out.is_free = is_loading; /* work has not begun */
    if (text != NULL)
        out.message = text;
    return out;
}

/* Partners: {"images":[{"url"}],"has_nsfw_concepts":[bool]} and {"data":[{"b64_json"}]}. */
static struct answer partner_result(struct arena *a, const struct job_spec *spec, const struct http_answer *in)
{
    const json_t *images = json_object_get(in->json, "images"), *data = json_object_get(in->json, "data");
    const json_t *list = json_array_size(images) > 0 ? images : data;
    const json_t *flags = json_object_get(in->json, "has_nsfw_concepts"); /* UNCONFIRMED: absent counts as fine */
    const char *seed = answer_number(a, json_object_get(in->json, "seed"));
    struct answer out = answer_of(OUT_DONE, ERR_OK);

    for (size_t i = 0; i < json_array_size(list) && out.output_count < PROVIDER_OUTPUTS; i++) {
        const json_t *one = json_array_get(list, i), *base64 = json_object_get(one, "b64_json");
        const char *url = json_text(one, "url");
        struct output o = { .seed = seed, .is_flagged = json_is_true(json_array_get(flags, i)) };

        if (json_is_string(base64) && base64_is_media(json_string_value(base64), json_string_length(base64))) {
            o.base64 = json_string_value(base64);
            o.base64_len = json_string_length(base64);
        } else if (url_is_usable(spec, url)) {
            o.url = arena_strdup(a, url);
        } else {
            continue;
        }
        out.outputs[out.output_count++] = o;
    }
    return out.output_count > 0 ? out : answer_bad_response(a, "the answer is JSON without an image");
}

/* "5.457" seconds of a GPU; -1: not told. */
static int64_t cost_of(const struct http_answer *in)
{
    const char *time = http_answer_header(in, "x-compute-time");
    double s;

    if (time == NULL || parse_double(time, &s) != ERR_OK || !(s >= 0) || s > 86400)
        return -1;
    return (int64_t)ceil(s * MICROUSD_PER_COMPUTE_S - 1e-6);
}

static struct answer picture(struct arena *a, const struct http_answer *in)
{
    const char *type = http_answer_header(in, "content-type");
    struct answer out;

    if (answer_says_json(in) || (type != NULL && strncasecmp(type, "text/", 5) == 0) || in->len == 0 ||
        (in->file == NULL && media_sniff(in->data, in->len).kind == MEDIA_UNKNOWN))
        return answer_bad_response(a, "the answer is not an image");
    out = answer_of(OUT_DONE, ERR_OK);
    out.outputs[0].is_body = true; /* its type is what it is, not what we asked for */
    out.output_count = 1;
    out.cost_microusd = cost_of(in);
    return out;
}

static struct answer huggingface_on_submit(struct arena *a, const struct job_spec *spec, const struct http_answer *in)
{
    const char *id = http_answer_header(in, "x-request-id");
    struct answer out;

    if (!answer_is_2xx(in) || json_object_get(in->json, "error") != NULL)
        out = huggingface_error(a, in);
    else if (json_is_object(in->json))
        out = partner_result(a, spec, in);
    else
        out = picture(a, in);
    out.request_id = id != NULL ? text_clean(a, id, strlen(id), REF_BYTES) : NULL;
    return out;
}

extern const struct provider provider_huggingface;
const struct provider provider_huggingface = {
    .name = "huggingface",
    .submit = request_submit,
    .on_submit = huggingface_on_submit,
};
