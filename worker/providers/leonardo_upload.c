/* leonardo_upload.c - an input file becomes an image of Leonardo's: POST /init-image hands out an id and a presigned
 * form, the file goes to that form's host without the key, and the id into the submit.
 *
 * kept is {"0": {"id", "url", "fields"}} while input 0 still has to be sent, {"0": {"id"}} when it lies there. The
 * form lives two minutes: after any trouble a new one is asked for, which costs nothing. */
#include <string.h>

#include "common/base/text.h"
#include "worker/providers/leonardo.h"

enum { FORM_FIELDS = PROVIDER_PARTS - 1, FIELD_BYTES = 8192 };

static const char *key_of(struct arena *a, size_t i)
{
    return arena_printf(a, "%zu", i);
}

/* The first input that is not there yet; its entry is NULL before it has a form. False: all are there. */
static bool next_upload(struct arena *a, const struct job_spec *spec, size_t *i, const json_t **entry)
{
    for (*i = 0; *i < spec->input_count; ++*i) {
        *entry = json_object_get(spec->kept, key_of(a, *i));
        if (*entry == NULL || json_object_get(*entry, "url") != NULL)
            return true;
    }
    return false;
}

static struct http_req ask_for_form(const struct job_input *in)
{
    const char *extension = media_extension(media_kind_of_mime(in->mime));

    return (struct http_req){
        .method = "POST",
        .path = "/init-image",
        .accept = "application/json",
        .body = json_pack("{s:s}", "extension", extension),
    };
}

/* Every field first, the file last. */
static struct http_req send_file(struct arena *a, const struct job_input *in, const json_t *form)
{
    struct http_part *parts = arena_alloc(a, PROVIDER_PARTS * sizeof *parts);
    const char *name;
    json_t *value;
    size_t n = 0;

    if (parts == NULL)
        return (struct http_req){ .path = NULL };
    json_object_foreach(json_object_get(form, "fields"), name, value)
    {
        parts[n++] = (struct http_part){ .name = name, .value = json_string_value(value) }; /* kept's: it outlives us */
    }
    parts[n++] = (struct http_part){
        .name = "file",
        .path = in->path,
        .filename = arena_printf(a, "image.%s", media_extension(media_kind_of_mime(in->mime))),
        .mime = in->mime,
    };
    return (struct http_req){ .method = "POST", .url = json_text(form, "url"), .parts = parts, .part_count = n };
}

bool leonardo_prepare(struct arena *a, const struct job_spec *spec, struct http_req *out)
{
    const json_t *entry;
    size_t i;

    if (!next_upload(a, spec, &i, &entry))
        return false;
    *out = entry == NULL ? ask_for_form(&spec->inputs[i]) : send_file(a, &spec->inputs[i], entry);
    return true;
}

/* `fields` is JSON inside a string (an object is taken too). New; NULL: not a form that could be sent. */
static json_t *fields_of(const json_t *value)
{
    json_t *fields = json_is_string(value) ? json_parse(json_string_value(value), json_string_length(value), NULL)
                                           : json_deep_copy(value),
           *one;
    bool is_fine = json_is_object(fields) && json_object_size(fields) <= FORM_FIELDS;
    const char *name;

    json_object_foreach(fields, name, one)
    {
        is_fine &= json_is_string(one) && json_string_length(one) <= FIELD_BYTES && name[0] != '\0' &&
                   strpbrk(name, "\"\\\r\n") == NULL;
    }
    if (is_fine)
        return fields;
    json_decref(fields);
    return NULL;
}

static struct answer take_form(struct arena *a, const struct job_spec *spec, const struct http_answer *in,
                               const char *key, json_t *kept)
{
    const json_t *form = json_object_get(in->json, "uploadInitImage");
    const char *id = json_text(form, "id"), *url = json_text(form, "url");
    json_t *fields, *entry = NULL;

    if (leonardo_is_error(in))
        return leonardo_error(a, in, true);
    fields = fields_of(json_object_get(form, "fields"));
    if (id != NULL && uuid_valid(id) && url_is_usable(spec, url) && fields != NULL)
        entry = json_pack("{s:s, s:s, s:O}", "id", id, "url", url, "fields", fields);
    json_decref(fields);
    if (entry == NULL || json_object_set_new(kept, key, entry) != 0)
        return answer_unreadable(a, true, "the answer shows no place to upload to"); /* free: asked again */
    return answer_of(OUT_DONE, ERR_OK);
}

static struct answer sent(struct arena *a, const struct http_answer *in, const char *key, json_t *kept)
{
    json_t *entry = json_object_get(kept, key);
    struct answer out;

    if (answer_is_2xx(in)) { /* 204, says the page */
        (void)json_object_del(entry, "url");
        (void)json_object_del(entry, "fields");
        return answer_of(OUT_DONE, ERR_OK);
    }
    (void)json_object_del(kept, key);
    out = answer_for_status(in->status);
    if (in->status == 401 || in->status == 403 || in->status == 404 || in->status == 410 || in->status / 100 == 3)
        out = answer_of(OUT_RETRY, ERR_PROVIDER_ERROR); /* the form is too old, or moved: the next one may be good */
    out.message = arena_printf(a, "the provider's store refused the input file: HTTP status %ld", in->status);
    return out;
}

struct answer leonardo_on_prepare(struct arena *a, const struct job_spec *spec, const struct http_answer *in,
                                  json_t *kept)
{
    const json_t *entry;
    const char *key;
    size_t i;

    if (!next_upload(a, spec, &i, &entry) || (key = key_of(a, i)) == NULL)
        return answer_of(OUT_DONE, ERR_OK);
    return entry == NULL ? take_form(a, spec, in, key, kept) : sent(a, in, key, kept);
}

bool leonardo_put_uploads(const struct job_spec *spec, json_t *body)
{
    char key[24];

    for (size_t i = 0; i < spec->input_count; i++) {
        const json_t *param = json_object_get(json_object_get(spec->op->doc, "params"), spec->inputs[i].field), *entry;
        const char *to = json_text(param, "to"), *id;

        (void)snprintf(key, sizeof key, "%zu", i);
        entry = json_object_get(spec->kept, key);
        id = json_text(entry, "id");
        if (to == NULL || id == NULL || json_object_get(entry, "url") != NULL ||
            json_object_set_new(body, to, json_string(id)) != 0)
            return false;
    }
    return true;
}
