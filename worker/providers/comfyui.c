/* comfyui.c - ComfyUI on one's own machine: POST /prompt queues a workflow and answers with its prompt_id,
 * /history/{id} shows it once it is over, the pictures are fetched by /view (providers/local-sd.md, B).
 *
 * A text "{{name}}" in the workflow is a slot: it becomes the parameter of that name, of `values`, or the name of an
 * uploaded file. Our job id travels as client_id, so that GET /queue can say what became of a submit whose answer was
 * lost, and whether an empty history means that it waits. UNCONFIRMED, both readings are taken: status and meta may be
 * absent, error may be a text, node_errors a list. Answers from the page: tests/unit/providers/comfyui/. */
#include <string.h>
#include <strings.h>

#include "common/base/text.h"
#include "worker/providers/adapter.h"

enum { FILL_DEPTH = 32, SLOT_BYTES = 64, LOOK_EVERY = 3, LOST_AFTER = 8, CLIENT_AT = 3 };

/* ---- files: each lies at the server before the workflow is sent */

static bool comfyui_prepare(struct arena *a, const struct job_spec *spec, struct http_req *out)
{
    struct http_part *parts = arena_alloc(a, 3 * sizeof *parts);
    size_t i = 0;

    while (i < spec->input_count && json_object_get(spec->kept, spec->inputs[i].field) != NULL)
        i++;
    if (i == spec->input_count)
        return false;
    *out = (struct http_req){ .path = NULL };
    if (parts == NULL)
        return true;
    parts[0] =
        (struct http_part){ .name = "image",
                            .path = spec->inputs[i].path,
                            .mime = spec->inputs[i].mime,
                            .filename = arena_printf(a, "kiln_%s_%s.%s", spec->job_id, spec->inputs[i].field,
                                                     media_extension(media_kind_of_mime(spec->inputs[i].mime))) };
    parts[1] = (struct http_part){ .name = "type", .value = "input" };
    parts[2] = (struct http_part){ .name = "overwrite", .value = "true" }; /* of our own name: the step is repeatable */
    if (parts[0].filename != NULL)
        *out = (struct http_req){ .method = "POST", .path = "/upload/image", .parts = parts, .part_count = 3 };
    return true;
}

static struct answer comfyui_error(struct arena *a, const struct http_answer *in);

static struct answer comfyui_on_prepare(struct arena *a, const struct job_spec *spec, const struct http_answer *in,
                                        json_t *kept)
{
    const char *name = json_text(in->json, "name"), *folder = json_text(in->json, "subfolder"), *path;
    size_t i = 0;

    if (!answer_is_2xx(in))
        return comfyui_error(a, in);
    while (i < spec->input_count && json_object_get(kept, spec->inputs[i].field) != NULL)
        i++;
    path = name != NULL && folder != NULL && folder[0] != '\0' ? arena_printf(a, "%s/%s", folder, name) : name;
    if (i == spec->input_count || path == NULL || path[0] == '\0' ||
        json_set_text(kept, spec->inputs[i].field, path) != 0)
        return answer_bad_response(a, "the upload's answer shows no name");
    return answer_of(OUT_DONE, ERR_OK);
}

/* ---- slots */

/* Nobody chose one: from the job's id, so that a repeated submit asks for the same picture. */
static json_t *seed_of_job(const char *job_id)
{
    uint64_t seed = 1469598103934665603U;

    for (const char *c = job_id; *c != '\0'; c++)
        seed = (seed ^ (unsigned char)*c) * 1099511628211U;
    return json_integer((json_int_t)(seed >> 16));
}

/* A new reference; NULL: nothing of that name. */
static json_t *slot_value(const struct job_spec *spec, const char *name)
{
    json_t *value = json_object_get(spec->kept, name);

    if (value == NULL)
        value = json_object_get(json_object_get(spec->params, "values"), name);
    if (value == NULL)
        value = json_object_get(spec->params, name);
    if (value == NULL && strcmp(name, "seed") == 0)
        return seed_of_job(spec->job_id);
    return json_is_string(value) || json_is_number(value) || json_is_boolean(value) ? json_deep_copy(value) : NULL;
}

static bool slot_text(struct buf *b, const json_t *value)
{
    if (json_is_string(value))
        return buf_add(b, json_string_value(value), json_string_length(value));
    if (json_is_integer(value))
        return buf_printf(b, "%lld", (long long)json_integer_value(value));
    if (json_is_real(value))
        return buf_printf(b, "%.15g", json_real_value(value));
    return buf_printf(b, "%s", json_is_true(value) ? "true" : "false");
}

/* The text with its slots filled: a slot alone keeps the type of its value. NULL: a slot that nothing fills. */
static json_t *filled(const struct job_spec *spec, const char *text)
{
    struct buf b = { .ceiling = 1 << 20 };
    const char *at = text, *open, *close;
    json_t *out = NULL, *value = NULL;
    char name[SLOT_BYTES];

    for (; (open = strstr(at, "{{")) != NULL && (close = strstr(open, "}}")) != NULL; at = close + 2) {
        size_t len = (size_t)(close - open) - 2;

        if (len == 0 || len >= sizeof name)
            goto out;
        memcpy(name, open + 2, len);
        name[len] = '\0';
        json_decref(value);
        value = slot_value(spec, name);
        if (value == NULL)
            goto out;
        if (open == text && close[2] == '\0') {
            out = json_incref(value);
            goto out;
        }
        if (!buf_add(&b, at, (size_t)(open - at)) || !slot_text(&b, value))
            goto out;
    }
    if (buf_printf(&b, "%s", at))
        out = json_string(b.data);
out:
    json_decref(value);
    buf_done(&b);
    return out;
}

static bool fill(const struct job_spec *spec, json_t *at, int depth)
{
    const char *name;
    void *next;
    json_t *one;

    if (depth > FILL_DEPTH)
        return false;
    json_object_foreach_safe(at, next, name, one)
    {
        json_t *text = json_is_string(one) ? filled(spec, json_string_value(one)) : NULL;

        if (json_is_string(one) ? json_object_set_new(at, name, text) != 0 : !fill(spec, one, depth + 1))
            return false;
    }
    for (size_t i = 0; i < json_array_size(at); i++) {
        json_t *item = json_array_get(at, i);
        json_t *text = json_is_string(item) ? filled(spec, json_string_value(item)) : NULL;

        if (json_is_string(item) ? json_array_set_new(at, i, text) != 0 : !fill(spec, item, depth + 1))
            return false;
    }
    return true;
}

static struct http_req comfyui_submit(struct arena *a, const struct job_spec *spec)
{
    struct http_req out = request_submit(a, spec);

    if (out.path != NULL && fill(spec, json_object_get(out.body, "prompt"), 0) &&
        json_set_text(out.body, "client_id", spec->job_id) == 0)
        return out;
    json_decref(out.body);
    return (struct http_req){ .path = NULL };
}

/* ---- answers */

/* {"error":{"message","details"},"node_errors":{"4":{"errors":[{"message","details"}],"class_type"}}}, or a text. */
static const char *message_of(struct arena *a, const json_t *json)
{
    const json_t *error = json_object_get(json, "error"), *nodes = json_object_get(json, "node_errors"), *node, *first;
    const char *text = json_is_string(error) ? json_string_value(error) : json_text(error, "message"), *key;
    struct buf b = { .ceiling = 4 * MESSAGE_BYTES };
    const char *out = NULL;

    if (text == NULL || !buf_printf(&b, "%s", text))
        goto out;
    json_object_foreach((json_t *)nodes, key, node)
    {
        first = json_array_get(json_object_get(node, "errors"), 0);
        if (first != NULL && json_text(first, "message") != NULL)
            (void)buf_printf(&b, "; node %s: %s: %s", key, json_text(first, "message"),
                             json_text(first, "details") != NULL ? json_text(first, "details") : "");
    }
    out = text_clean(a, b.data, b.len, MESSAGE_BYTES);
out:
    buf_done(&b);
    return out;
}

static struct answer comfyui_error(struct arena *a, const struct http_answer *in)
{
    const char *type = http_answer_header(in, "content-type"), *message = message_of(a, in->json);
    struct answer out = answer_by_status(a, in);

    if (in->status == 500 || (type != NULL && strncasecmp(type, "text/plain", 10) == 0)) {
        out.outcome = OUT_RETRY;
        out.code = ERR_PROVIDER_ERROR;
        out.retry_after_s = answer_retry_after_s(in);
    }
    if (message != NULL)
        out.message = message;
    out.is_free = true; /* one's own GPU */
    return out;
}

static struct answer comfyui_on_submit(struct arena *a, const struct job_spec *spec, const struct http_answer *in)
{
    const char *id = json_text(in->json, "prompt_id");
    struct answer out;

    (void)spec; /* the same for every workflow */
    if (!answer_is_2xx(in))
        return comfyui_error(a, in);
    if (!ref_is_segment(id))
        return answer_bad_response(a, "the answer names no prompt");
    out = answer_of(OUT_PENDING, ERR_OK); /* node_errors beside it: some outputs are dropped, the rest runs */
    out.ref = arena_strdup(a, id);
    out.cost_microusd = 0;
    return out;
}

/* The history is empty for a prompt that waits and for one that is unknown: now and then the queue is asked. */
static struct http_req comfyui_poll(struct arena *a, const struct job_spec *spec, const char *ref)
{
    struct http_req out = request_poll(a, spec, ref);

    if (out.path != NULL && spec->blanks % LOOK_EVERY == LOOK_EVERY - 1)
        out.path = "/queue";
    return out;
}

static bool is_ours(const struct job_spec *spec, const json_t *extra)
{
    const char *client = json_text(extra, "client_id");

    return client != NULL && strcmp(client, spec->job_id) == 0;
}

/* [number, prompt_id, prompt, extra, outputs] with our client_id; NULL: not listed. */
static const char *queued_ref(const struct job_spec *spec, const json_t *listing)
{
    static const char *const lists[] = { "queue_running", "queue_pending" };

    for (size_t l = 0; l < ARRAY_LEN(lists); l++) {
        const json_t *list = json_object_get(listing, lists[l]);

        for (size_t i = 0; i < json_array_size(list); i++) {
            const json_t *one = json_array_get(list, i);
            const char *ref = json_string_value(json_array_get(one, 1));

            if (is_ours(spec, json_array_get(one, CLIENT_AT)) && ref_is_segment(ref))
                return ref;
        }
    }
    return NULL;
}

static bool is_listing(const json_t *json)
{
    return json_is_array(json_object_get(json, "queue_running")) &&
           json_is_array(json_object_get(json, "queue_pending"));
}

static struct answer not_over(struct arena *a, const struct job_spec *spec, bool is_listed, bool is_look)
{
    struct answer out = answer_of(OUT_PENDING, ERR_OK);

    out.is_blank = !is_listed;
    if (is_listed || !is_look || spec->blanks < LOST_AFTER)
        return out;
    out = answer_of(OUT_FAIL, ERR_NOT_FOUND); /* in neither three times */
    out.message = arena_strdup(a, "the server knows nothing of the workflow any more");
    out.is_terminal = true;
    return out;
}

static const char *reason_of(struct arena *a, const json_t *status)
{
    const json_t *messages = json_object_get(status, "messages");

    for (size_t i = json_array_size(messages); i > 0; i--) {
        const json_t *one = json_array_get(messages, i - 1);
        const char *word = json_string_value(json_array_get(one, 0));
        const json_t *said = json_object_get(json_array_get(one, 1), "exception_message");

        if (word != NULL && strcmp(word, "execution_interrupted") == 0)
            return arena_strdup(a, "the workflow was interrupted at the server");
        if (word != NULL && strcmp(word, "execution_error") == 0 && json_is_string(said))
            return answer_text(a, said, MESSAGE_BYTES);
    }
    return arena_strdup(a, "the server says that the workflow failed, without a reason");
}

static void add_image(struct arena *a, const struct job_spec *spec, const json_t *image, struct answer *out)
{
    const char *type = json_text(image, "type"), *name = json_text(image, "filename");
    const char *folder = json_text(image, "subfolder"), *url;

    if (type == NULL || strcmp(type, "output") != 0 || name == NULL || name[0] == '\0' ||
        out->output_count == PROVIDER_OUTPUTS)
        return; /* a preview, or no file */
    url = arena_printf(a, "%s/view?filename=%s&subfolder=%s&type=output", spec->op->provider->base_url,
                       url_query_escape(a, name), url_query_escape(a, folder != NULL ? folder : ""));
    if (url_is_usable(spec, url))
        out->outputs[out->output_count++] = (struct output){ .url = url };
}

static struct answer comfyui_over(struct arena *a, const struct job_spec *spec, const json_t *entry)
{
    const json_t *status = json_object_get(entry, "status"), *word = json_object_get(status, "status_str"), *node;
    const json_t *outputs = json_object_get(entry, "outputs");
    struct answer out = answer_of(OUT_DONE, ERR_OK);
    const char *text = json_string_value(word), *key;

    out.cost_microusd = 0;
    if (text != NULL && strcmp(text, "error") == 0) {
        out = answer_of(OUT_FAIL, ERR_PROVIDER_ERROR);
        out.message = reason_of(a, status);
        out.is_terminal = true;
        out.cost_microusd = 0;
        return out;
    }
    if (text != NULL && strcmp(text, "success") != 0) {
        out = answer_of(OUT_PENDING, ERR_OK);
        out.is_unknown_word = true;
        out.message = answer_text(a, word, 60);
        return out;
    }
    json_object_foreach((json_t *)outputs, key, node)
    {
        const json_t *images = json_object_get(node, "images");

        for (size_t i = 0; i < json_array_size(images); i++)
            add_image(a, spec, json_array_get(images, i), &out);
    }
    if (out.output_count > 0)
        return out;
    out = answer_bad_response(a, "the workflow is done, but has no output image");
    out.is_terminal = true;
    return out;
}

static struct answer comfyui_on_poll(struct arena *a, const struct job_spec *spec, const struct http_answer *in)
{
    void *only;

    if (!answer_is_2xx(in))
        return comfyui_error(a, in);
    if (!json_is_object(in->json))
        return answer_unreadable(a, true, "the answer is not JSON");
    if (is_listing(in->json))
        return not_over(a, spec, queued_ref(spec, in->json) != NULL, true);
    only = json_object_iter((json_t *)in->json);
    if (only == NULL)
        return not_over(a, spec, false, false);
    if (!json_is_object(json_object_get(json_object_iter_value(only), "outputs")))
        return answer_unreadable(a, true, "the answer shows no history");
    return comfyui_over(a, spec, json_object_iter_value(only));
}

/* ---- what became of a lost submit, and no more of it */

static struct http_req comfyui_reconcile(struct arena *a, const struct job_spec *spec)
{
    (void)a;
    (void)spec;
    return (struct http_req){ .path = "/queue", .accept = "application/json" };
}

static struct answer comfyui_on_reconcile(struct arena *a, const struct job_spec *spec, const struct http_answer *in)
{
    const char *ref = answer_is_2xx(in) ? queued_ref(spec, in->json) : NULL;
    struct answer out;

    if (ref == NULL)
        return answer_of(OUT_FAIL, ERR_NOT_FOUND); /* proves nothing: it may be done already */
    out = answer_of(OUT_PENDING, ERR_OK);
    out.ref = arena_strdup(a, ref);
    out.cost_microusd = 0;
    return out;
}

/* Of one that waits. /interrupt stops whatever runs there, perhaps somebody else's, so it is not asked for. */
static struct http_req comfyui_cancel(struct arena *a, const struct job_spec *spec, const char *ref)
{
    struct http_req out = { .method = "POST", .path = "/queue", .body = json_pack("{s:[s]}", "delete", ref) };

    (void)a;
    (void)spec;
    return out.body != NULL ? out : (struct http_req){ .path = NULL };
}

extern const struct provider provider_comfyui;
const struct provider provider_comfyui = {
    .name = "comfyui",
    .prepare = comfyui_prepare,
    .on_prepare = comfyui_on_prepare,
    .submit = comfyui_submit,
    .on_submit = comfyui_on_submit,
    .poll = comfyui_poll,
    .on_poll = comfyui_on_poll,
    .reconcile = comfyui_reconcile,
    .on_reconcile = comfyui_on_reconcile,
    .cancel = comfyui_cancel,
};
