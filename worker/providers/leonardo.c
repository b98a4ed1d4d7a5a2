/* leonardo.c - Leonardo REST v1: POST /generations hands out a generationId, GET /generations/{id} shows it until it is
 * COMPLETE or FAILED; the pictures lie on a CDN. POST /variations/… (upscale, unzoom, nobg, universal-upscaler) hands
 * out an id in an object of its own name, GET /variations/{id} shows a list of one. Input files go there before
 * (leonardo_upload.c).
 *
 * Errors come through a Hasura gateway whose status lies (a broken key is a 500): the text is read before the status
 * (providers/leonardo.md). Answers from the page: tests/unit/providers/leonardo/. */
#include <math.h>
#include <string.h>

#include "common/base/text.h"
#include "worker/providers/leonardo.h"

static const struct word words[] = {
    { "PENDING", OUT_PENDING },
    { "COMPLETE", OUT_DONE },
    { "FAILED", OUT_FAIL },
};

static const struct {
    const char *text; /* part of `error`, any case */
    enum err code;
} error_texts[] = {
    { "invalid response from authorization hook", ERR_AUTH },
    { "authentication hook unauthorized", ERR_AUTH },
    { "not enough api tokens", ERR_INSUFFICIENT_FUNDS },
    { "content moderation filter", ERR_CONTENT_FILTERED },
    { "inappropriate content", ERR_CONTENT_FILTERED },
    { "unexpected variable", ERR_INVALID_REQUEST },
    { "expecting a value for non-nullable variable", ERR_INVALID_REQUEST },
    { "invalid dimensions", ERR_INVALID_REQUEST },
    { "invalid prompt, maximum length", ERR_INVALID_REQUEST },
    { "invalid init image id", ERR_INVALID_REQUEST },
    { "couldn't access image", ERR_INVALID_REQUEST },
    { "failed to find init variation", ERR_INVALID_REQUEST },
    { "invalid file extension", ERR_INVALID_REQUEST },
    { "is not supported within the production api", ERR_INVALID_REQUEST },
};

static const struct {
    const char *word; /* all of `code` */
    enum err code;
} error_codes[] = {
    { "access-denied", ERR_AUTH },
    { "validation-failed", ERR_INVALID_REQUEST },
    { "bad-request", ERR_INVALID_REQUEST },
};

static struct http_req leonardo_submit(struct arena *a, const struct job_spec *spec)
{
    struct http_req out = request_submit(a, spec);

    if (out.path == NULL || leonardo_put_uploads(spec, out.body))
        return out;
    json_decref(out.body);
    return (struct http_req){ .path = NULL };
}

static struct http_req leonardo_poll(struct arena *a, const struct job_spec *spec, const char *ref)
{
    return uuid_valid(ref != NULL ? ref : "") ? request_poll(a, spec, ref) : (struct http_req){ .path = NULL };
}

static enum err error_of(const json_t *json)
{
    const char *text = json_text(json, "error"), *code = json_text(json, "code");

    for (size_t i = 0; i < ARRAY_LEN(error_texts); i++) {
        if (text_holds(text, error_texts[i].text))
            return error_texts[i].code;
    }
    for (size_t i = 0; text != NULL && code != NULL && i < ARRAY_LEN(error_codes); i++) {
        if (strcmp(code, error_codes[i].word) == 0)
            return error_codes[i].code;
    }
    return ERR_OK;
}

bool leonardo_is_error(const struct http_answer *in)
{
    return !answer_is_2xx(in) || json_is_string(json_object_get(in->json, "error"));
}

struct answer leonardo_error(struct arena *a, const struct http_answer *in, bool is_free_to_repeat)
{
    struct answer out = answer_by_status(a, in); /* message, request id and wait hint are its */
    enum err code = error_of(in->json);

    out.leaves_open =
        code == ERR_OK && !is_free_to_repeat && in->status == 500; /* "whether a job was created is unknown" */
    if (code != ERR_OK) {
        out.outcome = OUT_FAIL;
        out.code = code;
        out.retry_after_s = 0;
    } else if (out.code == ERR_BAD_RESPONSE &&
               is_free_to_repeat) { /* a redirect, or an error under 200 that nobody documented */
        out.outcome = OUT_RETRY;
    }
    return out;
}

/* {"amount":"0.0045","unit":"DOLLARS"}; credits of theirs have no fixed price: -1. */
static int64_t cost_of(const json_t *cost)
{
    const char *unit = json_text(cost, "unit");
    double amount;

    if (unit == NULL || strcmp(unit, "DOLLARS") != 0 || !json_number(cost, "amount", &amount) || !(amount >= 0) ||
        amount > 1e6)
        return -1;
    return (int64_t)ceil(amount * 1e6 - 1e-6);
}

static const char *request_id(struct arena *a, const struct http_answer *in)
{
    const char *id = http_answer_header(in, "x-request-id");

    return id != NULL ? text_clean(a, id, strlen(id), REF_BYTES) : NULL;
}

/* {"sdGenerationJob":{"generationId"}}; {"sdUpscaleJob":{"id"}}, "sdNobgJob", "universalUpscaler": of variations the
 * page gives one object each, of unzoom without being sure of its name, so that any is taken. */
static const char *job_of(const struct job_spec *spec, const json_t *json, const json_t **job)
{
    const char *name, *id;
    json_t *one;

    *job = json_object_get(json, "sdGenerationJob");
    if (strcmp(spec->op->path, "/generations") == 0)
        return json_text(*job, "generationId");
    json_object_foreach((json_t *)json, name, one)
    {
        id = json_text(one, "id");
        *job = one;
        if (id != NULL)
            return id;
    }
    return NULL;
}

static struct answer leonardo_on_submit(struct arena *a, const struct job_spec *spec, const struct http_answer *in)
{
    const json_t *job;
    const char *id = job_of(spec, in->json, &job);
    struct answer out;

    if (leonardo_is_error(in))
        return leonardo_error(a, in, false);
    if (id == NULL || !uuid_valid(id)) {
        out = answer_bad_response(a, "the answer names no generation");
    } else {
        out = answer_of(OUT_PENDING, ERR_OK);
        out.ref = arena_strdup(a, id);
        out.cost_microusd = cost_of(json_object_get(job, "cost"));
    }
    out.request_id = request_id(a, in);
    return out;
}

static void add_image(struct arena *a, const struct job_spec *spec, const json_t *image, const char *seed,
                      struct answer *out)
{
    const char *url = json_text(image, "url");

    if (!url_is_usable(spec, url) || out->output_count == PROVIDER_OUTPUTS)
        return;
    out->outputs[out->output_count++] = (struct output){
        .url = arena_strdup(a, url),
        .seed = seed,
        .is_flagged = json_bool(image, "nsfw", false),
    };
}

/* thing: a generation with its images, or a variation, which is one. */
static struct answer complete(struct arena *a, const struct job_spec *spec, const json_t *thing)
{
    const json_t *images = json_object_get(thing, "generated_images");
    const char *seed = answer_number(a, json_object_get(thing, "seed"));
    struct answer out = answer_of(OUT_DONE, ERR_OK);

    for (size_t i = 0; i < json_array_size(images); i++)
        add_image(a, spec, json_array_get(images, i), seed, &out);
    if (images == NULL)
        add_image(a, spec, thing, NULL, &out);
    if (out.output_count > 0)
        return out;
    out = answer_bad_response(a, "COMPLETE, but without an image");
    out.is_terminal = true; /* asking again would say the same */
    return out;
}

/* generations_by_pk null: unknown or deleted. An empty list of variations is not on the page: it may be one that is not
 * there yet, so it keeps waiting. */
static struct answer nothing_there(struct arena *a, bool is_null)
{
    struct answer out = answer_of(OUT_PENDING, ERR_OK);

    out.is_unknown_word = true;
    if (is_null) {
        out = answer_of(OUT_FAIL, ERR_NOT_FOUND);
        out.message = arena_strdup(a, "the provider does not know the generation, or has deleted it");
        out.is_terminal = true;
    }
    return out;
}

static struct answer leonardo_on_poll(struct arena *a, const struct job_spec *spec, const struct http_answer *in)
{
    const json_t *list = json_object_get(in->json, "generated_image_variation_generic");
    const json_t *thing = list != NULL ? json_array_get(list, 0) : json_object_get(in->json, "generations_by_pk");
    const char *status = json_text(thing, "status");
    enum outcome word = OUT_PENDING;
    struct answer out;

    if (leonardo_is_error(in))
        return leonardo_error(a, in, true);
    if (json_is_null(thing) || json_is_null(list) || (json_is_array(list) && json_array_size(list) == 0)) {
        out = nothing_there(a, json_is_null(thing) || json_is_null(list));
    } else if (status == NULL) {
        out = answer_unreadable(a, true, "the answer shows no generation");
    } else if (!word_find(words, ARRAY_LEN(words), status, &word)) {
        out = answer_of(OUT_PENDING, ERR_OK);
        out.is_unknown_word = true;
        out.message = answer_text(a, json_object_get(thing, "status"), 60);
    } else if (word == OUT_DONE) {
        out = complete(a, spec, thing);
    } else {
        out = answer_of(word, word == OUT_FAIL ? ERR_PROVIDER_ERROR : ERR_OK);
        out.is_terminal = word == OUT_FAIL;
        out.message = word == OUT_FAIL ? arena_strdup(a, "the provider says FAILED, without a reason") : NULL;
    }
    out.request_id = request_id(a, in);
    return out;
}

extern const struct provider provider_leonardo;
const struct provider provider_leonardo = {
    .name = "leonardo",
    .prepare = leonardo_prepare,
    .on_prepare = leonardo_on_prepare,
    .submit = leonardo_submit,
    .on_submit = leonardo_on_submit,
    .poll = leonardo_poll,
    .on_poll = leonardo_on_poll,
};
