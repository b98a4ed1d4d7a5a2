/* openai.c - OpenAI Images: generations, edits and variations answer with the pictures themselves, no job, no poll.
 *
 * GPT models send base64, DALL-E a URL that lives an hour on another host. An `error` object is an error under any
 * status, and its code says more than the status: two of their 429 are no rate limits (providers/openai.md, section 9).
 * Answers from the page: tests/unit/providers/openai/. */
#include <ctype.h>
#include <limits.h>
#include <math.h>
#include <string.h>
#include <strings.h>

#include "common/base/text.h"
#include "worker/providers/adapter.h"

static const struct {
    const char *word; /* code or type */
    enum outcome outcome;
    enum err code;
} error_words[] = {
    { "content_policy_violation", OUT_FAIL, ERR_CONTENT_FILTERED },
    { "moderation_blocked", OUT_FAIL, ERR_CONTENT_FILTERED },
    { "insufficient_quota", OUT_FAIL, ERR_INSUFFICIENT_FUNDS },
    { "billing_hard_limit_reached", OUT_FAIL, ERR_INSUFFICIENT_FUNDS },
    { "rate_limit_exceeded", OUT_RETRY, ERR_RATE_LIMITED },
    { "invalid_api_key", OUT_FAIL, ERR_AUTH },
    { "model_not_found", OUT_FAIL, ERR_NOT_FOUND },
    { "server_error", OUT_RETRY, ERR_PROVIDER_ERROR },
};

static struct http_req openai_submit(struct arena *a, const struct job_spec *spec)
{
    struct http_req req = request_submit(a, spec);
    struct http_part *parts = req.part_count > 0 ? arena_alloc(a, req.part_count * sizeof *parts) : NULL;
    size_t images = 0;

    if (parts == NULL)
        return req;
    for (size_t i = 0; i < req.part_count; i++) {
        parts[i] = req.parts[i];
        images += strcmp(parts[i].name, "image[]") == 0;
    }
    for (size_t i = 0; i < req.part_count && images == 1; i++) {
        if (strcmp(parts[i].name, "image[]") == 0)
            parts[i].name = "image"; /* dall-e-2 does not understand the other; the GPT models know both */
    }
    req.parts = parts;
    return req;
}

/* "Limit: 0/1min", "Limit 0, Used 0": the account may not use this model at all; waiting does not help. */
static bool says_limit_zero(const char *text)
{
    for (const char *at = text; at != NULL && *at != '\0'; at++) {
        const char *n;

        if (strncasecmp(at, "limit", 5) != 0 || (at > text && isalnum((unsigned char)at[-1])))
            continue;
        n = at + 5 + strspn(at + 5, ": ");
        if (n > at + 5 && n[0] == '0' && !isdigit((unsigned char)n[1]) &&
            !(n[1] == '.' && isdigit((unsigned char)n[2])))
            return true;
    }
    return false;
}

/* "try again in 467ms", "12s", "1m2s", "1h23m": whole seconds, rounded up; 0: none. */
static int wait_in_text(const char *text)
{
    static const char mark[] = "try again in ";
    static const struct {
        const char *unit;
        double seconds;
    } units[] = { { "ms", 0.001 }, { "s", 1 }, { "m", 60 }, { "h", 3600 }, { "d", 86400 } }; /* ms before m */
    const char *at = text != NULL ? strstr(text, mark) : NULL;
    double total = 0;

    if (at == NULL)
        return 0;
    for (at += sizeof mark - 1; isdigit((unsigned char)*at);) {
        char number[16] = "";
        size_t digits = strspn(at, "0123456789."), u = 0;
        double n;

        if (digits >= sizeof number)
            return 0;
        while (digits > 0 && at[digits - 1] == '.') /* the end of the sentence */
            digits--;
        memcpy(number, at, digits);
        at += digits;
        while (u < ARRAY_LEN(units) && strncmp(at, units[u].unit, strlen(units[u].unit)) != 0)
            u++;
        if (u == ARRAY_LEN(units) || parse_double(number, &n) != ERR_OK)
            return 0;
        total += n * units[u].seconds;
        at += strlen(units[u].unit);
    }
    return total >= INT_MAX ? INT_MAX : (int)ceil(total);
}

static int wait_hint(const struct http_answer *in, const char *message)
{
    const char *ms = http_answer_header(in, "retry-after-ms");
    double n;
    int s;

    if (ms != NULL && parse_double(ms, &n) == ERR_OK && n > 0)
        return n / 1000 >= INT_MAX ? INT_MAX : (int)ceil(n / 1000);
    s = answer_retry_after_s(in);
    return s == 0 && in->status == 429 ? wait_in_text(message) : s;
}

static bool by_word(const char *word, const char *message, struct answer *out)
{
    for (size_t i = 0; word != NULL && i < ARRAY_LEN(error_words); i++) {
        if (strcmp(error_words[i].word, word) != 0)
            continue;
        *out = answer_of(error_words[i].outcome, error_words[i].code);
        if (out->code == ERR_RATE_LIMITED && says_limit_zero(message))
            out->outcome = OUT_FAIL;
        return true;
    }
    return false;
}

static struct answer by_status(const struct http_answer *in)
{
    if (in->status == 409) /* their own client asks again */
        return answer_of(OUT_RETRY, ERR_PROVIDER_ERROR);
    if (in->status == 451) /* not told apart by the page */
        return answer_of(OUT_FAIL, ERR_INVALID_REQUEST);
    return answer_for_status(in->status);
}

static struct answer openai_error(struct arena *a, const struct http_answer *in, const json_t *error)
{
    const char *message = json_text(error, "message");
    const char *steer = http_answer_header(in, "x-should-retry");
    struct answer out;

    if (!by_word(json_text(error, "code"), message, &out) && !by_word(json_text(error, "type"), message, &out))
        out = answer_is_2xx(in) ? answer_of(OUT_FAIL, ERR_BAD_RESPONSE) : by_status(in);
    if (steer != NULL && strcmp(steer, "true") == 0 && out.code != ERR_BAD_RESPONSE)
        out.outcome = OUT_RETRY;
    else if (steer != NULL && strcmp(steer, "false") == 0)
        out.outcome = OUT_FAIL;
    if (out.outcome == OUT_RETRY)
        out.retry_after_s = wait_hint(in, message);
    out.message = answer_text(a, json_object_get(error, "message"), MESSAGE_BYTES);
    if (out.message == NULL)
        out.message = arena_printf(a, "HTTP status %ld", in->status);
    return out;
}

static bool read_item(struct arena *a, const struct job_spec *spec, const json_t *item, struct output *out)
{
    const json_t *base64 = json_object_get(item, "b64_json");
    const char *url = json_text(item, "url");

    *out = (struct output){ .revised_prompt = answer_text(a, json_object_get(item, "revised_prompt"), REVISED_BYTES) };
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

static struct answer openai_result(struct arena *a, const struct job_spec *spec, const struct http_answer *in)
{
    const json_t *data = json_object_get(in->json, "data");
    const json_t *usage = json_object_get(in->json, "usage");
    struct answer out = answer_of(OUT_DONE, ERR_OK);

    for (size_t i = 0; i < json_array_size(data) && out.output_count < PROVIDER_OUTPUTS; i++) {
        if (read_item(a, spec, json_array_get(data, i), &out.outputs[out.output_count]))
            out.output_count++;
    }
    if (out.output_count == 0)
        return answer_bad_response(a, "the answer holds no image");
    if (json_is_object(usage)) {
        out.usage = usage;
        out.cost_microusd = catalog_cost_microusd(spec->op, spec->params, usage);
    }
    return out;
}

static struct answer openai_on_submit(struct arena *a, const struct job_spec *spec, const struct http_answer *in)
{
    const json_t *error = json_object_get(in->json, "error");
    const char *id = http_answer_header(in, "x-request-id");
    struct answer out;

    if (json_is_object(error) || !answer_is_2xx(in))
        out = openai_error(a, in, error);
    else if (!json_is_object(in->json))
        out = answer_bad_response(a, "the answer is not JSON");
    else
        out = openai_result(a, spec, in);
    out.request_id = id != NULL ? text_clean(a, id, strlen(id), REF_BYTES) : NULL;
    return out;
}

static struct answer openai_on_download(struct arena *a, const struct job_spec *spec, const struct http_answer *in)
{
    struct answer out = provider_download(a, spec, in);

    if (in->status == 403) { /* the blob host's word for an expired signature */
        out = answer_of(OUT_FAIL, ERR_NOT_FOUND);
        out.message = arena_strdup(a, "the image's URL has expired");
    }
    return out;
}

extern const struct provider provider_openai;
const struct provider provider_openai = {
    .name = "openai",
    .submit = openai_submit,
    .on_submit = openai_on_submit,
    .on_download = openai_on_download,
};
