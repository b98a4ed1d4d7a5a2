/* a1111.c - AUTOMATIC1111's webui on one's own machine: POST /sdapi/v1/txt2img and img2img stay open until the pictures
 * are there, as base64 without a data: prefix; their seeds stand in `info`, which is JSON in a text.
 *
 * Nothing can be asked afterwards: no reference, and progress and interrupt are of the server, not of a request
 * (providers/local-sd.md, A). Whatever fails costs nothing. UNCONFIRMED, both readings are taken: a 422 with a list or
 * a text as detail; images behind a data: prefix. Answers from the page: tests/unit/providers/a1111/. */
#include <string.h>
#include <strings.h>

#include "common/base/text.h"
#include "worker/providers/adapter.h"

static bool is_not_found(const json_t *json)
{
    const char *detail = json_text(json, "detail");

    return detail == NULL || strcmp(detail, "Not Found") == 0; /* the API is off, or that is another server */
}

/* {"detail":[{"loc":["body","steps"],"msg":"…"}]}; in an error of its own `errors` says more than `detail`. */
static const char *message_of(struct arena *a, const json_t *json)
{
    const json_t *detail = json_object_get(json, "detail"), *first = json_array_get(detail, 0);
    const json_t *errors = json_object_get(json, "errors");

    if (json_is_string(json_object_get(first, "msg")))
        return answer_text(a, json_object_get(first, "msg"), MESSAGE_BYTES);
    if (json_string_length(detail) > 0)
        return answer_text(a, detail, MESSAGE_BYTES);
    if (json_string_length(errors) > 0)
        return answer_text(a, errors, MESSAGE_BYTES);
    return NULL;
}

static struct answer a1111_error(struct arena *a, const struct http_answer *in)
{
    struct answer out = answer_by_status(a, in);
    const char *message = message_of(a, in->json);

    if (in->status == 404) {
        out = answer_of(OUT_FAIL, is_not_found(in->json) ? ERR_NOT_FOUND : ERR_INVALID_REQUEST);
        out.message = arena_strdup(a, "the server does not offer its API (is it started with --api?)");
    }
    if (message != NULL && (in->status != 404 || !is_not_found(in->json)))
        out.message = message;
    out.is_free = true;              /* one's own GPU */
    out.is_once = in->status == 500; /* out of memory, not a number: the page tries it once more */
    return out;
}

static const char *seed_of(struct arena *a, const json_t *info, size_t index)
{
    const json_t *seed = json_array_get(json_object_get(info, "all_seeds"), index);

    if (seed == NULL && index == 0)
        seed = json_object_get(info, "seed");
    return answer_number(a, seed);
}

static struct answer a1111_on_submit(struct arena *a, const struct job_spec *spec, const struct http_answer *in)
{
    const json_t *images = json_object_get(in->json, "images"), *text = json_object_get(in->json, "info");
    struct answer out = answer_of(OUT_DONE, ERR_OK);
    json_t *info;

    (void)spec; /* the same for both */
    if (!answer_is_2xx(in))
        return a1111_error(a, in);
    if (!json_is_object(in->json))
        return answer_bad_response(a, "the answer is not JSON");
    info = json_is_string(text) ? json_parse(json_string_value(text), json_string_length(text), NULL) : NULL;
    for (size_t i = 0; i < json_array_size(images) && out.output_count < PROVIDER_OUTPUTS; i++) {
        const char *data = json_string_value(json_array_get(images, i));
        const char *comma = data != NULL && strncasecmp(data, "data:", 5) == 0 ? strchr(data, ',') : NULL;

        data = comma != NULL ? comma + 1 : data;
        if (data == NULL || !base64_is_media(data, strlen(data)))
            continue;
        out.outputs[out.output_count++] =
            (struct output){ .base64 = data, .base64_len = strlen(data), .seed = seed_of(a, info, i) };
    }
    json_decref(info);
    out.cost_microusd = 0;
    return out.output_count > 0 ? out : answer_bad_response(a, "the answer holds no image");
}

extern const struct provider provider_a1111;
const struct provider provider_a1111 = {
    .name = "a1111",
    .submit = request_submit,
    .on_submit = a1111_on_submit,
};
