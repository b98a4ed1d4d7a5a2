/* volcengine.c - Volcengine Ark: POST /images/generations answers with the pictures' signed URLs, or base64.
 *
 * A group may come back mixed: what failed stands among the pictures as an error; only pictures count. An `error` may
 * also come beside them, or under 200. Its code says more than the status, of which the page knows few for certain
 * (providers/volcengine.md). Answers from the page: tests/unit/providers/volcengine/. */
#include <string.h>

#include "common/base/text.h"
#include "worker/providers/adapter.h"

static const struct {
    const char *word; /* of the code: all of it, or up to a dot */
    enum outcome outcome;
    enum err code;
} error_codes[] = {
    { "MissingParameter", OUT_FAIL, ERR_INVALID_REQUEST },
    { "InvalidParameter", OUT_FAIL, ERR_INVALID_REQUEST },
    { "InvalidArgumentError", OUT_FAIL, ERR_INVALID_REQUEST },
    { "InvalidImageURL", OUT_FAIL, ERR_INVALID_REQUEST },
    { "InputTextSensitiveContentDetected", OUT_FAIL, ERR_CONTENT_FILTERED },
    { "InputImageSensitiveContentDetected", OUT_FAIL, ERR_CONTENT_FILTERED },
    { "OutputImageSensitiveContentDetected", OUT_FAIL, ERR_CONTENT_FILTERED },
    { "SensitiveContentDetected", OUT_FAIL, ERR_CONTENT_FILTERED },
    { "InputTextRiskDetection", OUT_FAIL, ERR_CONTENT_FILTERED },
    { "InputImageRiskDetection", OUT_FAIL, ERR_CONTENT_FILTERED },
    { "OutputImageRiskDetection", OUT_FAIL, ERR_CONTENT_FILTERED },
    { "PolicyViolation", OUT_FAIL, ERR_CONTENT_FILTERED },
    { "PrivacyInformation", OUT_FAIL, ERR_CONTENT_FILTERED },
    { "ContentSecurityDetectionError", OUT_RETRY, ERR_PROVIDER_ERROR },
    { "AuthenticationError", OUT_FAIL, ERR_AUTH },
    { "AccountOverdueError", OUT_FAIL, ERR_INSUFFICIENT_FUNDS },
    { "ServiceOverdue", OUT_FAIL, ERR_INSUFFICIENT_FUNDS },
    { "AccessDenied", OUT_FAIL, ERR_AUTH },
    { "PermissionDenied", OUT_FAIL, ERR_AUTH },
    { "InvalidAccountStatus", OUT_FAIL, ERR_AUTH },
    { "ModelNotOpen", OUT_FAIL, ERR_AUTH }, /* 404, but it is the operator's console that opens it */
    { "ServiceNotOpen", OUT_FAIL, ERR_AUTH },
    { "UnsupportedModel", OUT_FAIL, ERR_AUTH },
    { "InvalidEndpointOrModel.NotFound", OUT_FAIL, ERR_NOT_FOUND },
    { "InvalidEndpoint.ClosedEndpoint", OUT_FAIL, ERR_NOT_FOUND },
    { "QuotaExceeded", OUT_FAIL, ERR_INSUFFICIENT_FUNDS }, /* 429, but waiting does not help */
    { "SetLimitExceeded", OUT_FAIL, ERR_INSUFFICIENT_FUNDS },
    { "RateLimitExceeded", OUT_RETRY, ERR_RATE_LIMITED },
    { "AccountRateLimitExceeded", OUT_RETRY, ERR_RATE_LIMITED },
    { "RequestBurstTooFast", OUT_RETRY, ERR_RATE_LIMITED },
    { "InflightBatchsizeExceeded", OUT_RETRY, ERR_RATE_LIMITED },
    { "ServerOverloaded", OUT_RETRY, ERR_PROVIDER_UNAVAILABLE },
    { "InternalServiceError", OUT_RETRY, ERR_PROVIDER_ERROR },
    { "InternalError", OUT_RETRY, ERR_PROVIDER_ERROR },
    { "UnknownError", OUT_RETRY, ERR_PROVIDER_ERROR },
};

/* One picture goes as a text, several as a list: SeedEdit's page knows the text alone. */
static struct http_req volcengine_submit(struct arena *a, const struct job_spec *spec)
{
    struct http_req out = request_submit(a, spec);
    json_t *images = json_object_get(out.body, "image");

    if (json_array_size(images) != 1 || json_object_set(out.body, "image", json_array_get(images, 0)) == 0)
        return out;
    json_decref(out.body);
    return (struct http_req){ .path = NULL };
}

static bool by_code(const char *code, struct answer *out)
{
    for (size_t i = 0; code != NULL && i < ARRAY_LEN(error_codes); i++) {
        size_t len = strlen(error_codes[i].word);

        if (strncmp(code, error_codes[i].word, len) == 0 && (code[len] == '\0' || code[len] == '.')) {
            *out = answer_of(error_codes[i].outcome, error_codes[i].code);
            return true;
        }
    }
    return false;
}

static struct answer volcengine_error(struct arena *a, const struct http_answer *in, const json_t *error)
{
    const char *code = json_text(error, "code"), *header = http_answer_header(in, "x-error-code");
    struct answer out;

    if (!by_code(code != NULL ? code : header, &out))
        out = answer_is_2xx(in) ? answer_of(OUT_FAIL, ERR_BAD_RESPONSE) : answer_for_status(in->status);
    if (out.outcome == OUT_RETRY)
        out.retry_after_s = answer_retry_after_s(in);
    out.message = answer_text(a, json_object_get(error, "message"), MESSAGE_BYTES);
    if (out.message == NULL)
        out.message = arena_printf(a, "HTTP status %ld", in->status);
    return out;
}

static bool read_item(struct arena *a, const struct job_spec *spec, const json_t *item, struct output *out)
{
    const json_t *base64 = json_object_get(item, "b64_json");
    const char *url = json_text(item, "url"), *revised = json_text(item, "revised_prompt");

    *out = (struct output){ .url = NULL };
    if (revised != NULL && strcmp(revised, "NONE") != 0) /* their word for none */
        out->revised_prompt = answer_text(a, json_object_get(item, "revised_prompt"), REVISED_BYTES);
    if (json_is_string(base64) && base64_is_media(json_string_value(base64), json_string_length(base64))) {
        out->base64 = json_string_value(base64);
        out->base64_len = json_string_length(base64);
        return true;
    }
    if (!url_is_usable(spec, url))
        return false;
    out->url = arena_strdup(a, url); /* byte for byte: its query is signed */
    return true;
}

static struct answer volcengine_result(struct arena *a, const struct job_spec *spec, const struct http_answer *in)
{
    const json_t *data = json_object_get(in->json, "data"), *usage = json_object_get(in->json, "usage");
    const json_t *error = json_object_get(in->json, "error");
    struct answer out = answer_of(OUT_DONE, ERR_OK);

    for (size_t i = 0; i < json_array_size(data) && out.output_count < PROVIDER_OUTPUTS; i++) {
        const json_t *item = json_array_get(data, i);

        if (read_item(a, spec, item, &out.outputs[out.output_count]))
            out.output_count++;
        else if (!json_is_object(error))
            error = json_object_get(item, "error");
    }
    if (out.output_count > 0) {
        out.usage = json_is_object(usage) ? usage : NULL;
        return out;
    }
    return json_is_object(error) ? volcengine_error(a, in, error) : answer_bad_response(a, "the answer holds no image");
}

static struct answer volcengine_on_submit(struct arena *a, const struct job_spec *spec, const struct http_answer *in)
{
    const json_t *error = json_object_get(in->json, "error");
    const char *id = http_answer_header(in, "x-request-id");
    struct answer out;

    if (!answer_is_2xx(in))
        out = volcengine_error(a, in, error);
    else if (!json_is_object(in->json))
        out = answer_bad_response(a, "the answer is not JSON");
    else
        out = volcengine_result(a, spec, in);
    out.request_id = id != NULL ? text_clean(a, id, strlen(id), REF_BYTES) : NULL;
    return out;
}

static struct answer volcengine_on_download(struct arena *a, const struct job_spec *spec, const struct http_answer *in)
{
    struct answer out = provider_download(a, spec, in);

    if (in->status == 403) { /* XML: the signature is older than 24 hours */
        out = answer_of(OUT_FAIL, ERR_NOT_FOUND);
        out.message = arena_strdup(a, "the image's URL has expired");
    }
    return out;
}

extern const struct provider provider_volcengine;
const struct provider provider_volcengine = {
    .name = "volcengine",
    .submit = volcengine_submit,
    .on_submit = volcengine_on_submit,
    .on_download = volcengine_on_download,
};
