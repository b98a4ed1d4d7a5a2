/* generic.c - a provider that the catalogue describes whole: "adapter": "generic".
 *
 * Synchronous: the answer is the file, or JSON with URLs or base64 at reads.outputs. Asynchronous: the submit shows
 * reads.ref, polls show reads.status until a word of reads.words ends it. Errors by the table "errors", then by the
 * house's rules. What cannot be said in data gets an adapter of its own (docs/providers.md). */
#include <string.h>
#include <strings.h>

#include "common/base/text.h"
#include "worker/providers/adapter.h"

static struct answer generic_bytes(struct arena *a, const struct job_spec *spec, const struct http_answer *in,
                                   bool is_poll)
{
    const char *type = http_answer_header(in, "content-type");

    if (!spec->op->answers_bytes || is_poll != request_is_async(spec) || in->len == 0 ||
        (type != NULL && strncasecmp(type, "text/", 5) == 0) ||
        (in->file == NULL && media_sniff(in->data, in->len).kind == MEDIA_UNKNOWN && strcmp(spec->op->output, "file")))
        return answer_unreadable(a, is_poll, "the answer is neither JSON nor media");
    return provider_download(a, spec, in);
}

static struct answer generic_pending(struct arena *a, const struct job_spec *spec, const struct http_answer *in,
                                     bool is_poll)
{
    struct answer out = answer_of(OUT_PENDING, ERR_OK);
    double percent;

    out.ref = read_ref(a, spec, in->json);
    if (!is_poll && (out.ref == NULL || !request_is_async(spec)))
        return answer_bad_response(a, "the answer names no job that could be asked for");
    if (json_is_number(read_value(spec, in->json, "percent"))) {
        percent = json_number_value(read_value(spec, in->json, "percent"));
        out.percent = percent > 0 ? (int)(percent < 100 ? percent : 100) : 0;
    }
    out.retry_after_s = answer_retry_after_s(in);
    return out;
}

static struct answer generic_done(struct arena *a, const struct job_spec *spec, const struct http_answer *in,
                                  bool is_poll)
{
    struct answer out = answer_of(OUT_DONE, ERR_OK);

    read_outputs(a, spec, in->json, &out);
    if (out.output_count > 0)
        return out;
    out = answer_bad_response(a, "done, but without a result"); /* asking again would say the same */
    out.is_terminal = is_poll;
    return out;
}

static struct answer generic_failed(struct arena *a, const struct job_spec *spec, const struct http_answer *in,
                                    enum err code)
{
    struct answer out;

    if (!read_error(a, spec, in, &out)) {
        out = answer_of(OUT_FAIL, code);
        out.message = answer_text(a, read_value(spec, in->json, "message"), MESSAGE_BYTES);
    }
    if (out.message == NULL)
        out.message = arena_strdup(a, "the provider says that it failed, without a reason");
    out.outcome = OUT_FAIL;
    out.retry_after_s = 0;
    out.is_terminal = true;
    return out;
}

static struct answer generic_json(struct arena *a, const struct job_spec *spec, const struct http_answer *in,
                                  bool is_poll)
{
    const json_t *status = read_value(spec, in->json, "status");
    bool is_waiting = is_poll || request_is_async(spec), is_known;
    enum outcome word = is_waiting ? OUT_PENDING : OUT_DONE;
    enum err code = ERR_OK;
    struct answer out;

    is_known = read_word(spec, json_string_value(status), &word, &code);
    if (word == OUT_FAIL)
        return generic_failed(a, spec, in, code);
    if (status == NULL && is_poll)
        return answer_unreadable(a, true, "the answer shows no status");
    if (word == OUT_DONE &&
        (is_poll || !is_waiting ||
         pointer_find(in->json, json_object_get(json_object_get(spec->op->doc, "reads"), "outputs")) != NULL))
        return generic_done(a, spec, in, is_poll);
    out = generic_pending(a, spec, in, is_poll);
    if (status != NULL && !is_known && out.outcome == OUT_PENDING) {
        out.is_unknown_word = true;
        out.message = answer_text(a, status, 60);
    }
    return out;
}

static struct answer generic_read(struct arena *a, const struct job_spec *spec, const struct http_answer *in,
                                  bool is_poll)
{
    const char *header = http_answer_header(in, "x-request-id");
    struct answer out;

    if (!answer_is_2xx(in)) {
        out = read_failure(a, spec, in);
        if (is_poll && out.code == ERR_NOT_FOUND)
            out.is_terminal = true; /* unknown or deleted: it will not come back */
        return out;
    }
    if (in->json != NULL && read_value(spec, in->json, "status") == NULL && read_error(a, spec, in, &out))
        return out; /* an error under 200 */
    if (in->json != NULL)
        out = generic_json(a, spec, in, is_poll);
    else
        out = generic_bytes(a, spec, in, is_poll);
    if (out.request_id == NULL)
        out.request_id = header != NULL ? text_clean(a, header, strlen(header), REF_BYTES)
                                        : answer_text(a, read_value(spec, in->json, "request_id"), REF_BYTES);
    return out;
}

static struct answer generic_on_submit(struct arena *a, const struct job_spec *spec, const struct http_answer *in)
{
    return generic_read(a, spec, in, false);
}

static struct answer generic_on_poll(struct arena *a, const struct job_spec *spec, const struct http_answer *in)
{
    return generic_read(a, spec, in, true);
}

extern const struct provider provider_generic;
const struct provider provider_generic = {
    .name = "generic",
    .submit = request_submit,
    .on_submit = generic_on_submit,
    .poll = request_poll,
    .on_poll = generic_on_poll,
    .cancel = request_cancel,
};
