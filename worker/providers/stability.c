/* stability.c - Stability AI v2beta: every operation is one multipart POST; what differs is the catalogue's.
 *
 * Synchronous operations answer with the media, asynchronous ones with an id that is polled until the same kind of
 * answer comes. 202 means pending, whatever the text. A named error is one under any status, and a filtered picture is
 * never handed out (providers/stability.md, section 8). Answers from the page: tests/unit/providers/stability/. */
#include <string.h>
#include <strings.h>

#include "common/base/text.h"
#include "worker/providers/adapter.h"

enum { PENDING_WAIT_S = 10, LIMITED_WAIT_S = 60 };

static const struct {
    const char *name;
    enum outcome outcome;
    enum err code;
} error_names[] = {
    { "bad_request", OUT_FAIL, ERR_INVALID_REQUEST },
    { "invalid_language", OUT_FAIL, ERR_INVALID_REQUEST },
    { "payload_too_large", OUT_FAIL, ERR_INVALID_REQUEST },
    { "content_moderation", OUT_FAIL, ERR_CONTENT_FILTERED },
    { "public_figure", OUT_FAIL, ERR_CONTENT_FILTERED },
    { "copyrighted_content", OUT_FAIL, ERR_CONTENT_FILTERED },
    { "invalid_prompts", OUT_FAIL, ERR_CONTENT_FILTERED }, /* v1; before the other invalid_* */
    { "unauthorized", OUT_FAIL, ERR_AUTH },
    { "permission_denied", OUT_FAIL, ERR_AUTH },
    { "payment_required", OUT_FAIL, ERR_INSUFFICIENT_FUNDS },
    { "insufficient_balance", OUT_FAIL, ERR_INSUFFICIENT_FUNDS },
    { "generation_not_found", OUT_FAIL, ERR_NOT_FOUND },
    { "not_found", OUT_FAIL, ERR_NOT_FOUND },
    { "rate_limit_exceeded", OUT_RETRY, ERR_RATE_LIMITED },
    { "internal_error", OUT_RETRY, ERR_PROVIDER_ERROR },
    { "server_error", OUT_RETRY, ERR_PROVIDER_ERROR },
};

static struct http_req stability_submit(struct arena *a, const struct job_spec *spec)
{
    return request_submit(a, spec);
}

static struct http_req stability_poll(struct arena *a, const struct job_spec *spec, const char *ref)
{
    return request_poll(a, spec, ref);
}

/* ---- errors */

static bool is_error(const json_t *json)
{
    return json_is_string(json_object_get(json, "name")) &&
           (json_is_array(json_object_get(json, "errors")) || json_is_string(json_object_get(json, "message")));
}

static bool by_name(const char *name, struct answer *out)
{
    for (size_t i = 0; name != NULL && i < ARRAY_LEN(error_names); i++) {
        if (strcmp(error_names[i].name, name) == 0) {
            *out = answer_of(error_names[i].outcome, error_names[i].code);
            return true;
        }
    }
    if (name == NULL || strncmp(name, "invalid_", 8) != 0)
        return false;
    *out = answer_of(OUT_FAIL, ERR_INVALID_REQUEST);
    return true;
}

/* All problems of `errors` in one line, else `message`. */
static const char *error_text(struct arena *a, const struct http_answer *in)
{
    const json_t *errors = json_object_get(in->json, "errors");
    const char *text = NULL;

    for (size_t i = 0; i < json_array_size(errors) && i < 8; i++) {
        const char *one = answer_text(a, json_array_get(errors, i), MESSAGE_BYTES / 4);

        if (one != NULL)
            text = text == NULL ? one : arena_printf(a, "%s; %s", text, one);
    }
    if (text == NULL)
        text = answer_text(a, json_object_get(in->json, "message"), MESSAGE_BYTES);
    return text != NULL ? text : arena_printf(a, "HTTP status %ld", in->status);
}

static struct answer stability_error(struct arena *a, const struct http_answer *in, bool is_poll)
{
    const char *name = json_text(in->json, "name");
    bool is_named;
    struct answer out;

    is_named = by_name(name, &out);
    if (!is_named && answer_is_2xx(in))
        return answer_unreadable(a, is_poll, error_text(a, in));
    if (!is_named)
        out = in->status == 451 ? answer_of(OUT_FAIL, ERR_INVALID_REQUEST) : answer_for_status(in->status);
    if (out.code == ERR_BAD_RESPONSE && is_poll)
        out.outcome = OUT_RETRY;
    if (out.outcome == OUT_RETRY)
        out.retry_after_s = answer_retry_after_s(in);
    if (out.retry_after_s == 0 && out.code == ERR_RATE_LIMITED)
        out.retry_after_s = LIMITED_WAIT_S; /* how long the key is shut out */
    out.is_free = is_named && !is_poll;     /* of each of these errors the page says that it is not charged */
    out.is_terminal = is_poll && is_named && (out.code == ERR_CONTENT_FILTERED || out.code == ERR_NOT_FOUND);
    out.message = error_text(a, in);
    return out;
}

/* ---- results */

static struct answer filtered(struct arena *a, bool is_poll)
{
    struct answer out = answer_of(OUT_FAIL, ERR_CONTENT_FILTERED);

    out.message = arena_strdup(a, "made, then blurred by the provider's content filter");
    out.is_terminal = is_poll;
    return out;
}

static struct answer pending(struct arena *a, const struct job_spec *spec, const struct http_answer *in, bool is_poll)
{
    const json_t *id = json_object_get(in->json, "id");
    struct answer out = answer_of(OUT_PENDING, ERR_OK);

    out.ref = json_is_integer(id) ? answer_number(a, id) : arena_strdup(a, json_string_value(id));
    if (!ref_is_segment(out.ref))
        out.ref = NULL;
    if (!is_poll && (out.ref == NULL || !request_is_async(spec)))
        return answer_bad_response(a, "the answer names no generation that could be asked for");
    out.retry_after_s = answer_retry_after_s(in);
    if (out.retry_after_s == 0)
        out.retry_after_s = PENDING_WAIT_S;
    return out;
}

struct tally { /* of the media in a JSON answer */
    size_t filtered, failed, broken;
};

static void take_media(struct arena *a, const json_t *base64, const json_t *holder, const char *finish,
                       struct answer *out, struct tally *tally)
{
    struct output *o = &out->outputs[out->output_count];

    if (json_string_length(base64) == 0 || out->output_count == PROVIDER_OUTPUTS)
        return;
    if (finish != NULL && strcmp(finish, "CONTENT_FILTERED") == 0) {
        tally->filtered++;
    } else if (finish != NULL && strcmp(finish, "ERROR") == 0) {
        tally->failed++;
    } else if (!base64_is_media(json_string_value(base64), json_string_length(base64))) {
        tally->broken++;
    } else {
        *o = (struct output){ .base64 = json_string_value(base64),
                              .base64_len = json_string_length(base64),
                              .seed = answer_number(a, json_object_get(holder, "seed")) };
        out->output_count++;
    }
}

static struct answer stability_json(struct arena *a, const struct job_spec *spec, const struct http_answer *in,
                                    bool is_poll)
{
    static const char *const media[] = { "image", "result", "audio", "video" };
    const json_t *artifacts = json_object_get(in->json, "artifacts"), *id = json_object_get(in->json, "id");
    const char *finish = json_text(in->json, "finish_reason"), *status = json_text(in->json, "status");
    struct tally tally = { .filtered = 0 };
    struct answer out = answer_of(OUT_DONE, ERR_OK);

    if (finish == NULL)
        finish = json_text(in->json, "finishReason");
    for (size_t i = 0; i < ARRAY_LEN(media); i++)
        take_media(a, json_object_get(in->json, media[i]), in->json, finish, &out, &tally);
    for (size_t i = 0; i < json_array_size(artifacts); i++) {
        const json_t *one = json_array_get(artifacts, i);

        take_media(a, json_object_get(one, "base64"), one, json_text(one, "finishReason"), &out, &tally);
    }
    if (out.output_count > 0)
        return out;
    if (tally.filtered > 0)
        return filtered(a, is_poll);
    if (tally.failed > 0)
        return answer_of(OUT_RETRY, ERR_PROVIDER_ERROR);
    if (tally.broken == 0 && (json_string_length(id) > 0 || json_is_integer(id) ||
                              (status != NULL && strcmp(status, "in-progress") == 0 && finish == NULL)))
        return pending(a, spec, in, is_poll);
    return answer_unreadable(a, is_poll, "the answer holds neither media nor an id");
}

static struct answer stability_bytes(struct arena *a, const struct http_answer *in, bool is_poll)
{
    const char *finish = http_answer_header(in, "finish-reason"), *seed = http_answer_header(in, "seed");
    const char *type = http_answer_header(in, "content-type");
    struct answer out;

    if (answer_says_json(in) || (type != NULL && strncasecmp(type, "text/", 5) == 0) || in->len == 0 ||
        (in->file == NULL && media_sniff(in->data, in->len).kind == MEDIA_UNKNOWN))
        return answer_unreadable(a, is_poll, "the answer is not media");
    if (finish != NULL && strcmp(finish, "CONTENT_FILTERED") == 0)
        return filtered(a, is_poll);
    out = answer_of(OUT_DONE, ERR_OK);
    out.outputs[0].is_body = true;
    out.outputs[0].seed = seed != NULL ? text_clean(a, seed, strlen(seed), 40) : NULL;
    out.output_count = 1;
    return out;
}

/* ---- one reader for both: the same answers come to a submit and to a poll */

static const char *request_id(struct arena *a, const struct http_answer *in)
{
    const char *header = http_answer_header(in, "x-request-id");
    const char *id = json_text(in->json, "id"), *name = json_text(in->json, "name");

    if (header != NULL)
        return text_clean(a, header, strlen(header), REF_BYTES);
    if (name == NULL || id == NULL || strcmp(id, name) == 0)
        return NULL; /* a generation's id is the reference; one that repeats the name is none */
    return text_clean(a, id, strlen(id), REF_BYTES);
}

static struct answer stability_read(struct arena *a, const struct job_spec *spec, const struct http_answer *in,
                                    bool is_poll)
{
    struct answer out;

    if (is_error(in->json) || !answer_is_2xx(in))
        out = stability_error(a, in, is_poll);
    else if (in->status == 202)
        out = pending(a, spec, in, is_poll);
    else if (json_is_object(in->json))
        out = stability_json(a, spec, in, is_poll);
    else
        out = stability_bytes(a, in, is_poll);
    out.request_id = request_id(a, in);
    return out;
}

static struct answer stability_on_submit(struct arena *a, const struct job_spec *spec, const struct http_answer *in)
{
    return stability_read(a, spec, in, false);
}

static struct answer stability_on_poll(struct arena *a, const struct job_spec *spec, const struct http_answer *in)
{
    return stability_read(a, spec, in, true);
}

extern const struct provider provider_stability;
const struct provider provider_stability = {
    .name = "stability",
    .submit = stability_submit,
    .on_submit = stability_on_submit,
    .poll = stability_poll,
    .on_poll = stability_on_poll,
};
