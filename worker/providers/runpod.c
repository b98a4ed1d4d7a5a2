/* runpod.c - RunPod's queue endpoints: POST /{endpoint}/run hands out an id, GET /{endpoint}/status/{id} shows the job
 * until it is over.
 *
 * The output is whatever the worker's handler returned. Of an object the catalogue's "outputs" say where the pictures
 * lie, everything in a text or a list is looked at; another worker's mapping is an entry in KILN_CATALOG. A handler
 * that fails may still end COMPLETED, with an error in the output (whether it always ends FAILED is UNCONFIRMED: both
 * are read). RUNNING, which some pages show, is IN_PROGRESS. Answers from the page: tests/unit/providers/runpod/. */
#include <string.h>

#include "common/base/text.h"
#include "worker/providers/adapter.h"

enum { PROBLEMS_MAX = 8 };

static const struct word words[] = {
    { "IN_QUEUE", OUT_PENDING }, { "IN_PROGRESS", OUT_PENDING }, { "RUNNING", OUT_PENDING }, { "COMPLETED", OUT_DONE },
    { "FAILED", OUT_FAIL },      { "CANCELLED", OUT_FAIL },      { "TIMED_OUT", OUT_FAIL },
};

static const struct {
    const char *text; /* part of what the job says, any case */
    enum err code;
    bool is_of_failed; /* only of a job that FAILED */
} error_texts[] = {
    { "job timed out", ERR_TIMEOUT, true },
    { "out of memory", ERR_PROVIDER_ERROR, true },
    { "is not a valid input option", ERR_INVALID_REQUEST, true },
    { "is a required input", ERR_INVALID_REQUEST, true },
    { "does not meet the constraints", ERR_INVALID_REQUEST, true },
    { "should be", ERR_INVALID_REQUEST, true },
    { "nsfw", ERR_CONTENT_FILTERED, false },
    { "safety", ERR_CONTENT_FILTERED, false },
};

static struct answer runpod_error(struct arena *a, const struct http_answer *in, bool is_poll)
{
    struct answer out = answer_by_status(a, in);

    if (out.code == ERR_BAD_RESPONSE && is_poll)
        out.outcome = OUT_RETRY;                            /* a redirect */
    out.is_terminal = is_poll && out.code == ERR_NOT_FOUND; /* unknown, or half an hour has passed */
    return out;
}

static const char *joined(struct arena *a, const json_t *list)
{
    const char *text = NULL;

    for (size_t i = 0; i < json_array_size(list) && i < PROBLEMS_MAX; i++) {
        const char *one = answer_text(a, json_array_get(list, i), MESSAGE_BYTES / PROBLEMS_MAX);

        if (one != NULL)
            text = text == NULL ? one : arena_printf(a, "%s; %s", text, one);
    }
    return text;
}

/* A text, a list of texts, {"error_message", …}, or any of these as JSON in a text. Never the traceback. */
static const char *told(struct arena *a, const json_t *error, bool may_hold_json)
{
    const char *text = json_string_value(error), *found;
    json_t *inner = NULL;

    if (may_hold_json && text != NULL && (text[0] == '{' || text[0] == '['))
        inner = json_parse(text, strlen(text), NULL);
    if (inner != NULL)
        found = told(a, inner, false);
    else if (json_is_array(error))
        found = joined(a, error);
    else if (json_is_object(error))
        found = answer_text(a, json_object_get(error, "error_message"), MESSAGE_BYTES);
    else
        found = answer_text(a, error, MESSAGE_BYTES);
    json_decref(inner);
    return found;
}

static struct answer failed(struct arena *a, const json_t *error, bool is_failed)
{
    struct answer out = answer_of(OUT_FAIL, ERR_PROVIDER_ERROR);

    out.message = told(a, error, true);
    for (size_t i = 0; i < ARRAY_LEN(error_texts); i++) {
        if ((is_failed || !error_texts[i].is_of_failed) && text_holds(out.message, error_texts[i].text)) {
            out.code = error_texts[i].code;
            break;
        }
    }
    if (out.message == NULL || out.message[0] == '\0')
        out.message = arena_strdup(a, "the worker says that it failed, without a reason");
    return out;
}

static struct answer ended(struct arena *a, const json_t *json, const char *status)
{
    struct answer out;

    if (strcmp(status, "FAILED") == 0)
        return failed(a, json_object_get(json, "error"), true);
    out = answer_of(OUT_FAIL, strcmp(status, "TIMED_OUT") == 0 ? ERR_TIMEOUT : ERR_PROVIDER_ERROR);
    out.message = told(a, json_object_get(json, "error"), true);
    if (out.message == NULL || out.message[0] == '\0')
        out.message = arena_printf(a, "the provider says %s", status);
    return out;
}

static struct answer completed(struct arena *a, const struct job_spec *spec, const json_t *json)
{
    const json_t *output = json_object_get(json, "output"), *error = json_object_get(output, "error");
    const char *status = json_text(output, "status");
    struct answer out = answer_of(OUT_DONE, ERR_OK);
    json_t *everywhere = json_string("/output/**");

    if (json_is_object(output))
        read_outputs(a, spec, json, &out);
    else
        read_outputs_at(a, spec, json, everywhere, &out);
    json_decref(everywhere);
    if (out.output_count > 0)
        return out;
    if (error == NULL || json_is_null(error))
        error = json_object_get(output, "errors");
    if (error != NULL && !json_is_null(error))
        return failed(a, error, false);
    if (status != NULL && (strcmp(status, "error") == 0 || strcmp(status, "failed") == 0))
        return failed(a, json_object_get(output, "message"), false);
    return answer_bad_response(a, "COMPLETED, but without a result");
}

static struct answer runpod_read(struct arena *a, const struct job_spec *spec, const struct http_answer *in,
                                 bool is_poll)
{
    const char *status = json_text(in->json, "status");
    enum outcome word = OUT_PENDING;
    struct answer out;
    bool is_known;

    if (!answer_is_2xx(in))
        return runpod_error(a, in, is_poll);
    if (status == NULL)
        return answer_unreadable(a, is_poll, "the answer shows no job");
    is_known = word_find(words, ARRAY_LEN(words), status, &word);
    if (word != OUT_PENDING) {
        out = word == OUT_DONE ? completed(a, spec, in->json) : ended(a, in->json, status);
        out.is_terminal = out.outcome == OUT_FAIL;
        return out;
    }
    out = answer_of(OUT_PENDING, ERR_OK);
    out.ref = read_ref(a, spec, in->json);
    if (out.ref == NULL && !is_poll)
        return answer_bad_response(a, "the answer names no job that could be asked for");
    out.is_unknown_word = !is_known;
    out.message = is_known ? NULL : answer_text(a, json_object_get(in->json, "status"), 60);
    return out;
}

static struct answer runpod_on_submit(struct arena *a, const struct job_spec *spec, const struct http_answer *in)
{
    return runpod_read(a, spec, in, false);
}

static struct answer runpod_on_poll(struct arena *a, const struct job_spec *spec, const struct http_answer *in)
{
    return runpod_read(a, spec, in, true);
}

extern const struct provider provider_runpod;
const struct provider provider_runpod = {
    .name = "runpod",
    .submit = request_submit,
    .on_submit = runpod_on_submit,
    .poll = request_poll,
    .on_poll = runpod_on_poll,
    .cancel = request_cancel,
};
