/* ttapi.c - Midjourney through TTAPI: POST /imagine and /action hand out a jobId, GET /fetch shows it until it is
 * SUCCESS or FAILED.
 *
 * At submit SUCCESS only means accepted, and FAILED under 200 is a failure there too. A failed job says why only in
 * its message, whose beginnings the page lists. 499 means that the account's slots are full. The jobId is shown to
 * customers as the attempt's request_id: midjourney.action wants it. Answers from the page:
 * tests/unit/providers/ttapi/. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/base/text.h"
#include "worker/providers/adapter.h"

static const struct word words[] = {
    /* of a fetch; CANCELLED is of some clients, not of the page */
    { "PENDING_QUEUE", OUT_PENDING }, { "ON_QUEUE", OUT_PENDING }, { "SUCCESS", OUT_DONE },
    { "FAILED", OUT_FAIL },           { "CANCELLED", OUT_FAIL },
};

static const char *const moderation[] = { "banned", "moderat", "nsfw", "violat", "sensitive" }; /* anywhere, at 400 */

static const struct {
    const char *text; /* of a message, any case */
    bool is_prefix;
    enum err code;
} messages[] = {
    { "[Banned prompt detected]", true, ERR_CONTENT_FILTERED },
    { "[Image denied]", true, ERR_CONTENT_FILTERED },
    { "Job Timeout", true, ERR_TIMEOUT },
    { "[Invalid parameter]", true, ERR_INVALID_REQUEST },
    { "[Invalid link!]", true, ERR_INVALID_REQUEST },
    { "[Internal error]", true, ERR_PROVIDER_UNAVAILABLE },
    { "[Internal server error]", true, ERR_PROVIDER_UNAVAILABLE },
    { "Execution error, system exception", true, ERR_PROVIDER_UNAVAILABLE },
    { "Failed to process your command", true, ERR_PROVIDER_UNAVAILABLE },
    { "Unknown Integration", true, ERR_PROVIDER_UNAVAILABLE },
    { "Unknown Message", true, ERR_PROVIDER_UNAVAILABLE },
    { "未知消息", true, ERR_PROVIDER_UNAVAILABLE },
    { "未知集成", true, ERR_PROVIDER_UNAVAILABLE },
    { "moderat", false, ERR_CONTENT_FILTERED },
    { "nsfw", false, ERR_CONTENT_FILTERED },
    { "violation", false, ERR_CONTENT_FILTERED },
    { "insufficient quota", false, ERR_INSUFFICIENT_FUNDS },
    { "balance", false, ERR_INSUFFICIENT_FUNDS },
};

static const char *find_any_case(const char *text, const char *part)
{
    size_t len = strlen(part);

    for (; text != NULL && *text != '\0'; text++) {
        if (strncasecmp(text, part, len) == 0)
            return text;
    }
    return NULL;
}

/* ---- submit */

/* "--v 5.2" or "--version 6" in the prompt: the number's text; NULL: none. Niji has numbers of its own. */
static const char *version_in(const char *prompt)
{
    static const char *const flags[] = { "--v ", "--version ", "--niji" };

    for (size_t i = 0; i < ARRAY_LEN(flags); i++) {
        const char *at = find_any_case(prompt, flags[i]);

        if (at != NULL)
            return i == 2 ? "6" : at + strlen(flags[i]);
    }
    return NULL;
}

static bool is_public_link(const char *url)
{
    return url != NULL && strncasecmp(url, "https://", 8) == 0 && url[8] != '\0' &&
           strpbrk(url, " \t\r\n\v\f\"'<>") == NULL;
}

/* Character references are flags of the prompt, and want version 6.0 or later: what has none gets it. NULL: cannot. */
static const char *with_references(struct arena *a, const char *prompt, const json_t *cref, const json_t *cw)
{
    const char *version = version_in(prompt);
    char *out;

    if (version != NULL && strtol(version, NULL, 10) < 6)
        return NULL;
    out = arena_printf(a, "%s%s --cref", prompt, version == NULL ? " --v 6.0" : "");
    for (size_t i = 0; i < json_array_size(cref) && out != NULL; i++) {
        const char *url = json_string_value(json_array_get(cref, i));

        out = is_public_link(url) ? arena_printf(a, "%s %s", out, url) : NULL;
    }
    if (out != NULL && cw != NULL)
        out = arena_printf(a, "%s --cw %lld", out, (long long)json_integer_value(cw));
    return out;
}

static struct http_req ttapi_submit(struct arena *a, const struct job_spec *spec)
{
    const json_t *cref = json_object_get(spec->params, "cref");
    struct http_req out = request_submit(a, spec);
    const char *prompt;

    if (out.path == NULL || json_array_size(cref) == 0)
        return out;
    prompt = with_references(a, json_text(out.body, "prompt"), cref, json_object_get(spec->params, "cw"));
    if (prompt != NULL && json_object_set_new(out.body, "prompt", json_string(prompt)) == 0)
        return out;
    json_decref(out.body);
    return (struct http_req){ .path = NULL };
}

/* ---- answers */

static enum err code_of(const char *message)
{
    for (size_t i = 0; message != NULL && i < ARRAY_LEN(messages); i++) {
        const char *at = find_any_case(message, messages[i].text);

        if (at != NULL && (!messages[i].is_prefix || at == message))
            return messages[i].code;
    }
    return ERR_PROVIDER_ERROR;
}

static const char *status_of(const json_t *json)
{
    return json_text(json, "status");
}

/* {"status":"FAILED"} under 200: of a submit, or the end of a job. */
static struct answer failed(struct arena *a, const json_t *json, bool is_poll)
{
    struct answer out = answer_of(OUT_FAIL, code_of(json_text(json, "message")));

    out.message = answer_text(a, json_object_get(json, "message"), MESSAGE_BYTES);
    if (out.message == NULL || out.message[0] == '\0')
        out.message = arena_strdup(a, "the provider says that it failed, without a reason");
    out.is_terminal = is_poll;
    return out;
}

static struct answer refused(struct arena *a, const struct http_answer *in, bool is_poll)
{
    const char *message = json_text(in->json, "message");
    struct answer out = answer_by_status(a, in);

    for (size_t i = 0; in->status == 400 && i < ARRAY_LEN(moderation); i++) {
        if (find_any_case(message, moderation[i]) != NULL)
            out.code = ERR_CONTENT_FILTERED;
    }
    if (in->status == 499) { /* "queue slots used up", not "client closed" */
        out.outcome = OUT_RETRY;
        out.code = ERR_RATE_LIMITED;
        out.retry_after_s = answer_retry_after_s(in);
    }
    if (out.code == ERR_BAD_RESPONSE && is_poll) /* a redirect */
        out.outcome = OUT_RETRY;
    out.is_terminal = is_poll && out.code == ERR_NOT_FOUND; /* or 200 FAILED: which of them is unconfirmed */
    return out;
}

/* data.jobId, as clients read it; data.job_id, as the page of the endpoint shows it; jobId beside data. */
static const char *job_id(struct arena *a, const json_t *json)
{
    const json_t *data = json_object_get(json, "data"), *id = json_object_get(data, "jobId");
    const char *text;

    if (id == NULL || json_is_null(id))
        id = json_object_get(data, "job_id");
    if (id == NULL || json_is_null(id))
        id = json_object_get(json, "jobId");
    text = answer_number(a, id);
    return ref_is_segment(text) ? text : NULL;
}

static struct answer ttapi_on_submit(struct arena *a, const struct job_spec *spec, const struct http_answer *in)
{
    const char *status = status_of(in->json);
    struct answer out;

    (void)spec; /* the same for every job */
    if (!answer_is_2xx(in))
        return refused(a, in, false);
    if (status != NULL && strcmp(status, "FAILED") == 0)
        return failed(a, in->json, false);
    out = answer_of(OUT_PENDING, ERR_OK);
    out.ref = out.request_id = job_id(a, in->json);
    return out.ref != NULL ? out : answer_bad_response(a, "the answer names no job");
}

static void add_image(struct arena *a, const struct job_spec *spec, const json_t *url, const char *seed,
                      struct answer *out)
{
    if (out->output_count < PROVIDER_OUTPUTS && url_is_usable(spec, json_string_value(url)))
        out->outputs[out->output_count++] =
            (struct output){ .url = arena_strdup(a, json_string_value(url)), .seed = seed };
}

/* The cut images; else the one grid; else the same at Discord, for a day. */
static struct answer done(struct arena *a, const struct job_spec *spec, const json_t *data)
{
    const json_t *images = json_object_get(data, "images");
    const char *seed = answer_number(a, json_object_get(data, "seed"));
    struct answer out = answer_of(OUT_DONE, ERR_OK);

    for (size_t i = 0; i < json_array_size(images); i++)
        add_image(a, spec, json_array_get(images, i), seed, &out);
    if (out.output_count == 0)
        add_image(a, spec, json_object_get(data, "cdnImage"), seed, &out);
    if (out.output_count == 0)
        add_image(a, spec, json_object_get(data, "discordImage"), seed, &out);
    if (out.output_count > 0)
        return out;
    out = answer_bad_response(a, "SUCCESS, but without an image");
    out.is_terminal = true; /* asking again would say the same */
    return out;
}

static int percent_of(const json_t *data)
{
    double percent;

    if (!json_number(data, "progress", &percent) || !(percent >= 0))
        return -1;
    return percent < 100 ? (int)percent : 100;
}

static struct answer ttapi_on_poll(struct arena *a, const struct job_spec *spec, const struct http_answer *in)
{
    const json_t *data = json_object_get(in->json, "data");
    const char *status = status_of(in->json);
    enum outcome word = OUT_PENDING;
    struct answer out;

    if (!answer_is_2xx(in))
        return refused(a, in, true);
    if (status == NULL)
        return answer_unreadable(a, true, "the answer shows no status");
    if (!word_find(words, ARRAY_LEN(words), status, &word)) {
        out = answer_of(OUT_PENDING, ERR_OK);
        out.is_unknown_word = true;
        out.message = answer_text(a, json_object_get(in->json, "status"), 60);
    } else if (word == OUT_DONE) {
        out = done(a, spec, data);
    } else if (word == OUT_FAIL) {
        out = failed(a, in->json, true);
    } else {
        out = answer_of(OUT_PENDING, ERR_OK);
        out.percent = percent_of(data);
    }
    out.request_id = job_id(a, in->json);
    return out;
}

extern const struct provider provider_ttapi;
const struct provider provider_ttapi = {
    .name = "ttapi",
    .submit = ttapi_submit,
    .on_submit = ttapi_on_submit,
    .poll = request_poll,
    .on_poll = ttapi_on_poll,
};
