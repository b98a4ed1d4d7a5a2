/* replicate.c - Replicate: POST hands out a prediction, GET /predictions/{id} shows the same object until it is over.
 *
 * A submit may be answered by a finished prediction already (Prefer: wait, which an operator may add to the catalogue's
 * headers). While it is `processing` its output may hold URLs: they count only when it has succeeded. The output is a
 * text, a list or an object of texts; after an hour it is gone (data_removed). A wrong token may be a 401 or, as the
 * page has it, a 422 "Invalid version or not permitted", which says nothing about the token: invalid_request.
 * Answers from the page: tests/unit/providers/replicate/. */
#include <string.h>

#include "common/base/text.h"
#include "worker/providers/adapter.h"

static const struct word words[] = {
    { "starting", OUT_PENDING }, { "processing", OUT_PENDING }, { "succeeded", OUT_DONE },
    { "failed", OUT_FAIL },      { "canceled", OUT_FAIL },      { "aborted", OUT_FAIL },
};

static const struct {
    const char *text; /* part of `error`, any case */
    enum err code;
} error_texts[] = {
    { "nsfw", ERR_CONTENT_FILTERED },
    { "flagged as sensitive", ERR_CONTENT_FILTERED },
    { "(E005)", ERR_CONTENT_FILTERED },
    { "(E003)", ERR_PROVIDER_UNAVAILABLE },
    { "high demand", ERR_PROVIDER_UNAVAILABLE },
    { "E6716", ERR_PROVIDER_UNAVAILABLE }, /* start timeout */
    { "E8765", ERR_PROVIDER_UNAVAILABLE }, /* health check */
    { "E8367", ERR_PROVIDER_UNAVAILABLE }, /* stopped */
    { "E1000", ERR_PROVIDER_UNAVAILABLE }, /* unknown */
};

static struct answer replicate_error(struct arena *a, const struct http_answer *in, bool is_poll)
{
    struct answer out = answer_by_status(a, in);

    if (json_object_get(in->json, "detail") == NULL && json_text(in->json, "title") != NULL)
        out.message = answer_text(a, json_object_get(in->json, "title"), MESSAGE_BYTES);
    if (out.code == ERR_BAD_RESPONSE && is_poll)
        out.outcome = OUT_RETRY;                            /* a redirect */
    out.is_terminal = is_poll && out.code == ERR_NOT_FOUND; /* unknown or deleted: it will not come back */
    return out;
}

static const char *text_of(const json_t *json, const char *name)
{
    const char *text = json_text(json, name);

    return text != NULL ? text : "";
}

/* failed, canceled, aborted */
static struct answer ended(struct arena *a, const json_t *json, const char *status)
{
    struct answer out = answer_of(OUT_FAIL, ERR_PROVIDER_ERROR);
    const char *error = text_of(json, "error");
    bool has_deadline = json_text(json, "deadline") != NULL;

    if (strcmp(status, "aborted") == 0 || (strcmp(status, "canceled") == 0 && has_deadline))
        out.code = ERR_TIMEOUT;
    for (size_t i = 0; strcmp(status, "failed") == 0 && i < ARRAY_LEN(error_texts); i++) {
        if (text_holds(error, error_texts[i].text)) {
            out.code = error_texts[i].code;
            break;
        }
    }
    out.message = answer_text(a, json_object_get(json, "error"), MESSAGE_BYTES);
    if (out.message == NULL || out.message[0] == '\0')
        out.message = arena_printf(a, "the provider says %s, without a reason", status);
    return out;
}

/* "Using seed: 51203" in the logs, where the input named none. */
static const char *seed_of(struct arena *a, const json_t *json)
{
    static const char mark[] = "Using seed: ";
    const char *seed = answer_number(a, json_object_get(json_object_get(json, "input"), "seed"));
    const char *at = strstr(text_of(json, "logs"), mark);
    size_t len = at != NULL ? strspn(at + sizeof mark - 1, "0123456789") : 0;

    return seed == NULL && len > 0 && len < 24 ? text_clean(a, at + sizeof mark - 1, len, 24) : seed;
}

static struct answer succeeded(struct arena *a, const struct job_spec *spec, const json_t *json)
{
    const char *seed = seed_of(a, json);
    struct answer out = answer_of(OUT_DONE, ERR_OK);

    read_outputs(a, spec, json, &out);
    for (size_t i = 0; i < out.output_count; i++)
        out.outputs[i].seed = seed;
    if (out.output_count > 0)
        return out;
    if (json_is_true(json_object_get(json, "data_removed"))) {
        out = answer_of(OUT_FAIL, ERR_NOT_FOUND);
        out.message = arena_strdup(a, "the provider has removed the result");
    } else if (text_holds(text_of(json, "logs"), "nsfw") || text_holds(text_of(json, "error"), "nsfw")) {
        out = answer_of(OUT_FAIL, ERR_CONTENT_FILTERED);
        out.message = arena_strdup(a, "the provider's filter left no result: NSFW");
    } else {
        out = answer_bad_response(a, "succeeded, but without a result");
    }
    return out;
}

static struct answer replicate_read(struct arena *a, const struct job_spec *spec, const struct http_answer *in,
                                    bool is_poll)
{
    const char *status = json_text(in->json, "status");
    enum outcome word = OUT_PENDING;
    struct answer out;
    bool is_known;

    if (!answer_is_2xx(in))
        return replicate_error(a, in, is_poll);
    if (status == NULL)
        return answer_unreadable(a, is_poll, "the answer shows no prediction");
    is_known = word_find(words, ARRAY_LEN(words), status, &word);
    if (word != OUT_PENDING) {
        out = word == OUT_DONE ? succeeded(a, spec, in->json) : ended(a, in->json, status);
        out.is_terminal = out.outcome == OUT_FAIL;
        return out;
    }
    out = answer_of(OUT_PENDING, ERR_OK);
    out.ref = read_ref(a, spec, in->json);
    if (out.ref == NULL && !is_poll)
        return answer_bad_response(a, "the answer names no prediction that could be asked for");
    out.is_unknown_word = !is_known;
    out.message = is_known ? NULL : answer_text(a, json_object_get(in->json, "status"), 60);
    return out;
}

static struct answer replicate_on_submit(struct arena *a, const struct job_spec *spec, const struct http_answer *in)
{
    return replicate_read(a, spec, in, false);
}

static struct answer replicate_on_poll(struct arena *a, const struct job_spec *spec, const struct http_answer *in)
{
    return replicate_read(a, spec, in, true);
}

extern const struct provider provider_replicate;
const struct provider provider_replicate = {
    .name = "replicate",
    .submit = request_submit,
    .on_submit = replicate_on_submit,
    .poll = request_poll,
    .on_poll = replicate_on_poll,
    .cancel = request_cancel,
};
