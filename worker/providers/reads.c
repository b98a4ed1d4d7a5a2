/* reads.c - values out of a JSON answer, by the places and words that the catalogue gives: "reads" and "errors".
 *
 * A place is a JSON pointer; /x/ * /y (without the blanks) goes through every item, /x/ ** through every text below. Of
 * a list of places the first that is there counts. Whatever is found is as hostile as the rest of the answer. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "common/base/text.h"
#include "worker/providers/adapter.h"

enum { WALK_DEPTH = 16 };

/* ---- places */

/* Calls `take` for each value at the pointer until it says that it has enough; true: it did. */
static bool walk(const json_t *at, const char *pointer, int depth, bool (*take)(void *ctx, const json_t *value),
                 void *ctx)
{
    char name[64];
    const char *key;
    json_t *one;
    size_t len;
    bool is_enough = false, is_all, is_deep;

    if (at == NULL || json_is_null(at) || depth > WALK_DEPTH)
        return false;
    if (pointer[0] == '\0' || strcmp(pointer, "/") == 0)
        return take(ctx, at);
    len = strcspn(pointer + 1, "/");
    if (len >= sizeof name)
        return false;
    memcpy(name, pointer + 1, len);
    name[len] = '\0';
    is_deep = strcmp(name, "**") == 0;
    is_all = is_deep || strcmp(name, "*") == 0;
    if (is_deep && !json_is_array(at) && !json_is_object(at))
        return json_is_string(at) && take(ctx, at);
    for (size_t i = 0; i < json_array_size(at) && is_all && !is_enough; i++)
        is_enough = walk(json_array_get(at, i), is_deep ? pointer : pointer + 1 + len, depth + 1, take, ctx);
    if (json_is_object(at) && is_all) {
        json_object_foreach((json_t *)at, key, one)
        {
            if (!is_enough)
                is_enough = walk(one, is_deep ? pointer : pointer + 1 + len, depth + 1, take, ctx);
        }
        return is_enough;
    }
    if (is_all)
        return is_enough;
    if (json_is_array(at)) {
        int64_t index = 0;

        return parse_i64(name, 0, 1000000, &index) == ERR_OK &&
               walk(json_array_get(at, (size_t)index), pointer + 1 + len, depth + 1, take, ctx);
    }
    return walk(json_object_get(at, name), pointer + 1 + len, depth + 1, take, ctx);
}

static bool walk_any(const json_t *json, const json_t *pointers, bool (*take)(void *ctx, const json_t *value),
                     void *ctx)
{
    if (json_is_string(pointers))
        return walk(json, json_string_value(pointers), 0, take, ctx);
    for (size_t i = 0; i < json_array_size(pointers); i++) {
        if (walk(json, json_string_value(json_array_get(pointers, i)), 0, take, ctx))
            return true;
    }
    return false;
}

static bool take_first(void *ctx, const json_t *value)
{
    *(const json_t **)ctx = value;
    return true;
}

const json_t *pointer_find(const json_t *json, const json_t *pointers)
{
    const json_t *found = NULL;

    (void)walk_any(json, pointers, take_first, &found);
    return found;
}

static const json_t *place(const struct job_spec *spec, const char *name)
{
    return json_object_get(json_object_get(spec->op->doc, "reads"), name);
}

const json_t *read_value(const struct job_spec *spec, const json_t *json, const char *name)
{
    return pointer_find(json, place(spec, name));
}

const char *read_ref(struct arena *a, const struct job_spec *spec, const json_t *json)
{
    const char *ref = answer_number(a, read_value(spec, json, "ref"));

    return ref_is_segment(ref) ? ref : NULL;
}

/* ---- outputs */

struct gathering {
    struct arena *a;
    const struct job_spec *spec;
    struct answer *out;
    const char *seed;
};

static bool take_output(void *ctx, const json_t *value)
{
    struct gathering *g = ctx;
    const char *text = json_string_value(value), *comma;
    struct output one = { .seed = g->seed };

    if (text == NULL || g->out->output_count == PROVIDER_OUTPUTS)
        return g->out->output_count == PROVIDER_OUTPUTS;
    if (url_is_usable(g->spec, text)) {
        one.url = arena_strdup(g->a, text); /* byte for byte: its query may be signed */
    } else {
        comma = strncasecmp(text, "data:", 5) == 0 ? strchr(text, ',') : NULL;
        one.base64 = comma != NULL ? comma + 1 : text;
        one.base64_len = strlen(one.base64);
        if (!base64_is_media(one.base64, one.base64_len))
            return false;
    }
    g->out->outputs[g->out->output_count++] = one;
    return false;
}

/* All of the first place that has any. */
void read_outputs_at(struct arena *a, const struct job_spec *spec, const json_t *json, const json_t *pointers,
                     struct answer *out)
{
    struct gathering g = { a, spec, out, answer_number(a, read_value(spec, json, "seed")) };

    if (json_is_string(pointers))
        (void)walk(json, json_string_value(pointers), 0, take_output, &g);
    for (size_t i = 0; i < json_array_size(pointers) && out->output_count == 0; i++)
        (void)walk(json, json_string_value(json_array_get(pointers, i)), 0, take_output, &g);
}

void read_outputs(struct arena *a, const struct job_spec *spec, const json_t *json, struct answer *out)
{
    read_outputs_at(a, spec, json, place(spec, "outputs"), out);
}

/* ---- errors and words */

bool text_holds(const char *text, const char *part)
{
    size_t len = strlen(part);

    for (; text != NULL && *text != '\0'; text++) {
        if (strncasecmp(text, part, len) == 0)
            return true;
    }
    return false;
}

static bool is_one_of(const json_t *list, const json_t *value)
{
    if (!json_is_array(list))
        return json_equal(list, value) != 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        if (json_equal(json_array_get(list, i), value))
            return true;
    }
    return false;
}

/* Under a 2xx only a row that names the status or a code is about it: a prompt may hold any words. */
static bool row_holds(const json_t *row, const struct http_answer *in, const json_t *code, const char *message)
{
    const json_t *status = json_object_get(row, "status"), *codes = json_object_get(row, "code");
    const char *contains = json_text(row, "contains");
    json_t *ours = json_integer(in->status), *text = NULL;
    bool is_it = status != NULL ? is_one_of(status, ours) : codes != NULL || !answer_is_2xx(in);

    if (json_is_integer(code)) {
        char digits[24];

        (void)snprintf(digits, sizeof digits, "%lld", (long long)json_integer_value(code));
        text = json_string(digits); /* a code may come as a number */
    }
    is_it = is_it && (codes == NULL || (code != NULL && is_one_of(codes, text != NULL ? text : code)));
    is_it = is_it && (contains == NULL || text_holds(message, contains));
    json_decref(ours);
    json_decref(text);
    return is_it;
}

static enum err code_of(const char *name)
{
    return strcmp(name, "failed") == 0 ? ERR_PROVIDER_ERROR : err_from_word(name); /* the schema knows no others */
}

static struct answer failure(struct arena *a, const struct job_spec *spec, const struct http_answer *in,
                             struct answer judged)
{
    const json_t *id = read_value(spec, in->json, "request_id");
    struct answer by_status = answer_by_status(a, in); /* message, request id and wait hint, where no place is given */
    const char *message = answer_text(a, read_value(spec, in->json, "message"), MESSAGE_BYTES);

    judged.message = message != NULL ? message : by_status.message;
    judged.request_id = id != NULL ? answer_text(a, id, REF_BYTES) : by_status.request_id;
    if (judged.outcome == OUT_RETRY)
        judged.retry_after_s = by_status.outcome == OUT_RETRY ? by_status.retry_after_s : answer_retry_after_s(in);
    return judged;
}

bool read_error(struct arena *a, const struct job_spec *spec, const struct http_answer *in, struct answer *out)
{
    const json_t *rows = json_object_get(spec->op->doc, "errors"), *code = read_value(spec, in->json, "code");
    const char *message = json_string_value(read_value(spec, in->json, "message"));

    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        enum err e;

        if (!row_holds(row, in, code,
                       message != NULL                        ? message
                       : in->json == NULL && in->file == NULL ? in->data
                                                              : NULL))
            continue;
        e = code_of(json_text(row, "is"));
        *out = failure(a, spec, in, answer_of(json_bool(row, "retry", err_retry(e)) ? OUT_RETRY : OUT_FAIL, e));
        return true;
    }
    return false;
}

struct answer read_failure(struct arena *a, const struct job_spec *spec, const struct http_answer *in)
{
    struct answer out;

    return read_error(a, spec, in, &out) ? out : failure(a, spec, in, answer_for_status(in->status));
}

bool read_word(const struct job_spec *spec, const char *word, enum outcome *outcome, enum err *code)
{
    const char *means = word != NULL ? json_text(place(spec, "words"), word) : NULL;

    if (means == NULL)
        return false;
    *code = ERR_OK;
    if (strcmp(means, "pending") == 0) {
        *outcome = OUT_PENDING;
    } else if (strcmp(means, "done") == 0) {
        *outcome = OUT_DONE;
    } else {
        *outcome = OUT_FAIL;
        *code = code_of(means);
    }
    return true;
}
