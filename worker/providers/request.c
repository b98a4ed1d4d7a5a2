/* request.c - requests made from the catalogue's entry: path, body, parts and poll path are data, so that another
 * operation of the same shape needs no code.
 *
 * One JSON body is built first: every parameter at the place that its "to" names. JSON calls send it, forms send its
 * leaves (text_prompts[0][weight]) and then the files. */
#include <string.h>

#include "common/base/text.h"
#include "worker/providers/adapter.h"

struct parts {
    struct http_part *at;
    size_t count;
    bool is_full; /* or out of memory */
};

/* ---- the body */

static json_t *text_of_file(const struct job_spec *spec, const char *name, bool is_list)
{
    json_t *list = is_list ? json_array() : NULL;
    size_t count = 0;

    for (size_t i = 0; i < spec->input_count; i++) {
        const struct job_input *in = &spec->inputs[i];

        if (strcmp(in->field, name) != 0 || in->text == NULL)
            continue;
        if (!is_list)
            return json_string(in->text);
        (void)json_array_append_new(list, json_string(in->text)); /* counted below */
        count++;
    }
    if (count > 0 && json_array_size(list) == count)
        return list;
    json_decref(list);
    return NULL;
}

/* A copy of the template with the text "$value" replaced. */
static json_t *wrapped(const json_t *shape, json_t *value)
{
    json_t *out = json_deep_copy(shape), *one;
    const char *name;
    void *next;

    json_object_foreach_safe(out, next, name, one)
    {
        if (json_is_string(one) && strcmp(json_string_value(one), "$value") == 0)
            (void)json_object_set(out, name, value); /* replaces: needs no memory */
    }
    return out;
}

/* "input.prompt": into the object `input`, made when it is not there. Takes the value. */
static bool put_at(json_t *body, const char *to, const json_t *append, json_t *value)
{
    const char *dot = strchr(to, '.');
    json_t *below, *list;

    if (dot != NULL) {
        below = json_object_getn(body, to, (size_t)(dot - to));
        if (!json_is_object(below) && json_object_setn_new(body, to, (size_t)(dot - to), json_object()) == 0)
            below = json_object_getn(body, to, (size_t)(dot - to));
        if (json_is_object(below))
            return put_at(below, dot + 1, append, value);
        json_decref(value);
        return false;
    }
    if (append == NULL)
        return json_object_set_new(body, to, value) == 0;
    list = json_object_get(body, to);
    if (!json_is_array(list) && json_object_set_new(body, to, json_array()) == 0)
        list = json_object_get(body, to);
    below = wrapped(append, value);
    json_decref(value);
    return json_array_append_new(list, below) == 0;
}

static bool is_omitted(const struct catalog_call *call, const char *name)
{
    for (size_t i = 0; i < json_array_size(call->omit); i++) {
        if (strcmp(json_string_value(json_array_get(call->omit, i)), name) == 0)
            return true;
    }
    return false;
}

static const char *place_of(const struct job_spec *spec, const struct catalog_call *call, const char *name)
{
    const char *to = json_string_value(catalog_way(call, spec->op, name, "to"));

    return to != NULL ? to : name;
}

static bool is_file_part(const struct job_spec *spec, const struct catalog_call *call, const json_t *param,
                         const char *name)
{
    const char *type = json_text(param, "type");

    return type != NULL && strcmp(type, "file") == 0 && catalog_way(call, spec->op, name, "as") == NULL;
}

/* A list of files with "append": each of them is an item. */
static bool put_each(json_t *body, const char *to, const json_t *append, json_t *list)
{
    bool is_fine = json_array_size(list) > 0;

    for (size_t i = 0; is_fine && i < json_array_size(list); i++)
        is_fine = put_at(body, to, append, json_incref(json_array_get(list, i)));
    json_decref(list);
    return is_fine;
}

static json_t *body_of(const struct job_spec *spec, const struct catalog_call *call)
{
    json_t *body = call->constants != NULL ? json_deep_copy(call->constants) : json_object(), *one;
    const char *name;

    json_object_foreach(json_object_get(spec->op->doc, "params"), name, one)
    { /* in the catalogue's order */
        json_t *value = json_object_get(spec->params, name);
        const json_t *append = catalog_way(call, spec->op, name, "append");
        const char *to = place_of(spec, call, name);
        bool is_text = catalog_way(call, spec->op, name, "as") != NULL, is_list = json_bool(one, "list", false);

        if (value == NULL || to[0] == '\0' || is_omitted(call, name) || is_file_part(spec, call, one, name))
            continue;
        value = is_text ? text_of_file(spec, name, is_list) : json_deep_copy(value);
        if (value == NULL || !(is_text && is_list && append != NULL ? put_each(body, to, append, value)
                                                                    : put_at(body, to, append, value))) {
            json_decref(body);
            return NULL;
        }
    }
    return body;
}

json_t *request_body(const struct job_spec *spec)
{
    const struct catalog_call call = catalog_call(spec->op, spec->params);

    return body_of(spec, &call);
}

/* ---- forms */

/* A form knows texts only: numbers in the shortest form that reads back the same, 0.3 and not 0.29999999999999999. */
static const char *part_text(struct arena *a, const json_t *value)
{
    if (json_is_string(value))
        return json_string_value(value); /* the body's */
    if (json_is_boolean(value))
        return json_is_true(value) ? "true" : "false";
    if (json_is_integer(value))
        return arena_printf(a, "%lld", (long long)json_integer_value(value));
    return json_is_real(value) ? arena_printf(a, "%.15g", json_real_value(value)) : NULL;
}

static void add_part(struct parts *p, struct http_part part)
{
    if (p->count == PROVIDER_PARTS || part.name == NULL || (part.value == NULL && part.path == NULL))
        p->is_full = true;
    else
        p->at[p->count++] = part;
}

static void add_texts(struct arena *a, struct parts *p, const char *name, const json_t *value)
{
    const char *key;
    json_t *one;

    for (size_t i = 0; i < json_array_size(value) && !p->is_full; i++)
        add_texts(a, p, arena_printf(a, "%s[%zu]", name, i), json_array_get(value, i));
    json_object_foreach((json_t *)value, key, one) add_texts(a, p, arena_printf(a, "%s[%s]", name, key), one);
    if (!json_is_array(value) && !json_is_object(value))
        add_part(p, (struct http_part){ .name = name, .value = part_text(a, value) });
}

static void add_files(struct arena *a, struct parts *p, const struct job_spec *spec, const char *field,
                      const char *name)
{
    size_t before = p->count;

    for (size_t i = 0; i < spec->input_count; i++) {
        const struct job_input *in = &spec->inputs[i];

        if (strcmp(in->field, field) == 0)
            add_part(p, (struct http_part){
                            .name = name,
                            .path = in->path,
                            .filename = arena_printf(a, "%s.%s", field, media_extension(media_kind_of_mime(in->mime))),
                            .mime = in->mime });
    }
    if (p->count == before)
        p->is_full = true; /* asked for and not there */
}

static bool parts_of(struct arena *a, const struct job_spec *spec, const struct catalog_call *call, const json_t *body,
                     struct parts *p)
{
    const char *name;
    json_t *one;

    *p = (struct parts){ .at = arena_alloc(a, PROVIDER_PARTS * sizeof *p->at) };
    if (p->at == NULL || body == NULL)
        return false;
    json_object_foreach((json_t *)body, name, one) add_texts(a, p, name, one);
    json_object_foreach(json_object_get(spec->op->doc, "params"), name, one)
    {
        if (is_file_part(spec, call, one, name) && json_object_get(spec->params, name) != NULL &&
            !is_omitted(call, name))
            add_files(a, p, spec, name, place_of(spec, call, name));
    }
    return !p->is_full;
}

static const char *form_of(struct arena *a, const struct parts *p)
{
    struct buf b = { .ceiling = 1 << 20 };
    char *text = NULL;

    for (size_t i = 0; i < p->count; i++) {
        const char *name = url_query_escape(a, p->at[i].name), *value = url_query_escape(a, p->at[i].value);

        if (name == NULL || value == NULL || !buf_printf(&b, "%s%s=%s", i > 0 ? "&" : "", name, value))
            goto out;
    }
    text = arena_strdup(a, b.data != NULL ? b.data : "");
out:
    buf_done(&b);
    return text;
}

/* ---- paths */

static const char *path_value(struct arena *a, const struct job_spec *spec, const char *name, const char *ref)
{
    bool has_slashes = name[0] == '+';
    const char *text = strcmp(name, "ref") == 0 ? (ref_is_segment(ref) ? ref : NULL)
                                                : part_text(a, json_object_get(spec->params, name + has_slashes));
    char *out = NULL, *part;

    if (text == NULL || text[0] == '\0')
        return NULL;
    if (!has_slashes)
        return url_segment(a, text);
    while (*text != '\0') {
        size_t len = strcspn(text, "/");

        part = url_segment(a, arena_printf(a, "%.*s", (int)len, text));
        if (len == 0 || part == NULL)
            return NULL; /* an empty segment is no name of anything */
        out = out == NULL ? part : arena_printf(a, "%s/%s", out, part);
        text += len + (text[len] == '/');
    }
    return out;
}

char *request_path(struct arena *a, const struct job_spec *spec, const char *path, const char *ref)
{
    char *out = arena_strdup(a, "");

    while (path != NULL && out != NULL && *path != '\0') {
        size_t plain = strcspn(path, "{"), len = path[plain] == '{' ? strcspn(path + plain, "}") : 0;
        const char *value = "";

        if (len > 0) {
            char *name = arena_printf(a, "%.*s", (int)len - 1, path + plain + 1);

            value = name != NULL ? path_value(a, spec, name, ref) : NULL;
        }
        if (value == NULL)
            return NULL;
        out = arena_printf(a, "%s%.*s%s", out, (int)plain, path, value);
        path += plain + len + (len > 0);
    }
    return path != NULL ? out : NULL;
}

bool request_is_async(const struct job_spec *spec)
{
    return catalog_call(spec->op, spec->params).is_async;
}

/* ---- requests */

static struct http_req incomplete(struct http_req req)
{
    json_decref(req.body);
    return (struct http_req){ .path = NULL };
}

struct http_req request_submit(struct arena *a, const struct job_spec *spec)
{
    const struct catalog_call call = catalog_call(spec->op, spec->params);
    struct http_req out = {
        .method = call.method,
        .path = request_path(a, spec, call.path, NULL),
        .accept = call.accept,
        .headers = call.headers,
        .body = strcmp(call.body, "none") != 0 ? body_of(spec, &call) : NULL,
    };
    struct parts parts;

    if (out.path == NULL || (out.body == NULL && strcmp(call.body, "none") != 0))
        return incomplete(out);
    if (out.body == NULL || strcmp(call.body, "json") == 0)
        return out;
    if (!parts_of(a, spec, &call, out.body, &parts))
        return incomplete(out);
    if (strcmp(call.body, "form") == 0) {
        out.form = form_of(a, &parts);
        return out.form != NULL ? out : incomplete(out);
    }
    out.parts = parts.at; /* their texts are the body's */
    out.part_count = parts.count;
    return out;
}

struct http_req request_poll(struct arena *a, const struct job_spec *spec, const char *ref)
{
    const struct catalog_call call = catalog_call(spec->op, spec->params);

    return (struct http_req){
        .method = call.poll_method != NULL ? call.poll_method : "GET",
        .path = call.is_async ? request_path(a, spec, call.poll_path, ref) : NULL,
        .accept = call.poll_accept,
        .headers = call.poll_headers,
    };
}

struct http_req request_cancel(struct arena *a, const struct job_spec *spec, const char *ref)
{
    const json_t *cancel = json_object_get(spec->op->doc, "cancel");
    const char *method = json_text(cancel, "method");

    return (struct http_req){
        .method = method != NULL ? method : "POST",
        .path = request_is_async(spec) ? request_path(a, spec, json_text(cancel, "path"), ref) : NULL,
        .accept = json_text(cancel, "accept"),
    };
}
