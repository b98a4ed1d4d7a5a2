/* params.c - reads parameters from the command line. The schema decides what a word means, the dispatcher whether it is
 * right: there is one place that knows the limits, and it is not here. */
#include "dispatcher/client/params.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>
#include "common/base/json.h"
#include "common/core/media.h"
#include "dispatcher/client/api.h"
#include "dispatcher/client/show.h"

#define FILE_BYTES ((size_t)64 << 20) /* the dispatcher's limit for uploads is lower, and its to say */

static bool params_bool(const char *text, bool *out)
{
    static const char *const yes[] = { "true", "yes", "on" }, *const no[] = { "false", "no", "off" };

    for (size_t i = 0; i < ARRAY_LEN(yes); i++) {
        if (strcasecmp(text, yes[i]) == 0 || strcasecmp(text, no[i]) == 0) {
            *out = strcasecmp(text, yes[i]) == 0;
            return true;
        }
    }
    return false;
}

static json_t *params_number(const char *text)
{
    int64_t whole;
    double real;

    if (parse_i64(text, INT64_MIN, INT64_MAX, &whole) == ERR_OK)
        return json_integer(whole);
    return parse_double(text, &real) == ERR_OK ? json_real(real) : NULL;
}

json_t *params_value(const json_t *schema, const char *text)
{
    const char *type = json_text(schema, "type");
    json_t *value = NULL;
    bool flag;

    if (type && (strcmp(type, "integer") == 0 || strcmp(type, "number") == 0))
        value = params_number(text);
    else if (type && strcmp(type, "boolean") == 0 && params_bool(text, &flag))
        value = json_boolean(flag);
    else if (type && strcmp(type, "object") == 0)
        value = json_parse(text, strlen(text), NULL);
    else if (type && strcmp(type, "array") == 0 && text[0] == '[')
        value = json_parse(text, strlen(text), NULL);
    else if (type && strcmp(type, "array") == 0)
        value = json_pack("[o]", params_value(json_object_get(schema, "items"), text));
    return value ? value : json_string(text);
}

/* ---- files */

/* The whole file, free() it. NULL: a message was printed. */
static char *params_file(const char *name, const char *path, size_t *len)
{
    struct buf all = { .ceiling = FILE_BYTES };
    char chunk[16384];
    FILE *f = fopen(path, "re");
    size_t n = 0;
    bool ok = f && buf_add(&all, "", 0);

    while (ok && (n = fread(chunk, 1, sizeof chunk, f)) > 0)
        ok = buf_add(&all, chunk, n);
    if (!f || ferror(f)) {
        show_error("%s=@%s: cannot be read: %s", name, path, strerror(errno));
        if (strcmp(name, "image") != 0)
            show_note("  a value that begins with @ names a file; @@ stands for an @ itself");
        ok = false;
    } else if (!ok) {
        show_error("%s=@%s: is larger than %zu MiB", name, path, FILE_BYTES >> 20);
    }
    if (f)
        (void)fclose(f); /* only read */
    *len = all.len;
    if (!ok)
        buf_done(&all);
    return ok ? buf_take(&all) : NULL;
}

static int params_upload(struct client *c, const char *name, const char *path, json_t **out)
{
    size_t len = 0;
    char *data = params_file(name, path, &len);
    struct arena *arena = arena_new(4096);
    struct buf target = { 0 };
    struct api_call call = { .method = "POST", .body = data, .body_len = len };
    struct api_reply r = { .err = ERR_NOMEM };
    int status = CLIENT_REFUSED;

    if (!data || !arena)
        goto out;
    call.type = media_mime(media_sniff(data, len).kind);
    (void)buf_str(&target, "/v1/uploads");
    if (c->opts[OPT_ACCOUNT])
        (void)buf_printf(&target, "?account=%s", url_query_escape(arena, c->opts[OPT_ACCOUNT]));
    call.path = target.data;
    r = api_ask(c->api, &call);
    status = api_refused(c->api, &r, c->is_json);
    if (status != CLIENT_DONE)
        show_note("  while uploading %s for %s", path, name);
    else
        *out = json_string(json_text(r.json, "id"));
out:
    api_reply_done(&r);
    buf_done(&target);
    arena_free(arena);
    free(data);
    return status;
}

static bool params_is_file(const json_t *schema)
{
    const char *format = json_text(schema, "format");
    return format && strcmp(format, "kiln-file") == 0;
}

/* A file's text for any other parameter: prompt=@prompt.txt. */
static int params_text_file(const char *name, const char *path, const json_t *schema, json_t **out)
{
    size_t len = 0;
    char *data = params_file(name, path, &len);

    if (!data)
        return CLIENT_REFUSED;
    while (len > 0 && (data[len - 1] == '\n' || data[len - 1] == '\r'))
        data[--len] = '\0';
    if (strlen(data) != len || !utf8_valid(data, len)) {
        show_error("%s=@%s: is no text, and %s takes no file", name, path, name);
        free(data);
        return CLIENT_REFUSED;
    }
    *out = params_value(schema, data);
    free(data);
    return CLIENT_DONE;
}

static int params_unknown(const json_t *properties, const char *operation, const char *name)
{
    struct buf list = { 0 };
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)properties, key, value)
    {
        (void)buf_printf(&list, "%s%s", list.len > 0 ? ", " : "", key);
    }
    show_error("%s has no parameter %s; it has: %s", operation, name, list.data ? list.data : "none");
    buf_done(&list);
    return CLIENT_REFUSED;
}

/* ---- one word */

/* "image=cat.png" where image=@cat.png was meant. */
static bool params_forgot_at(const char *value)
{
    return !uuid_valid(value) && strncmp(value, "data:", 5) != 0 && strncmp(value, "http", 4) != 0 &&
           access(value, R_OK) == 0;
}

static int params_one(struct client *c, enum params_for what, const json_t *properties, const char *name,
                      const char *value, json_t **out)
{
    static const char stand_in[] = "00000000-0000-7000-8000-000000000000"; /* an estimate looks at its shape only */
    const json_t *schema = json_object_get(properties, name);

    if (value[0] == '@' && value[1] != '@') {
        if (!schema)
            return params_unknown(properties, c->words[0], name);
        if (!params_is_file(schema))
            return params_text_file(name, value + 1, schema, out);
        if (what == PARAMS_JOB)
            return params_upload(c, name, value + 1, out);
        *out = json_string(stand_in);
        return CLIENT_DONE;
    }
    if (params_is_file(schema) && params_forgot_at(value)) {
        show_error("%s=%s: write %s=@%s to send that file", name, value, name, value);
        return CLIENT_REFUSED;
    }
    *out = params_value(schema, value + (value[0] == '@'));
    return CLIENT_DONE;
}

/* Puts a value in; a list's second value joins the first. */
static int params_put(json_t *params, const json_t *properties, const char *name, json_t *value)
{
    const char *type = json_text(json_object_get(properties, name), "type");
    json_t *list = json_object_get(params, name);

    if (type && strcmp(type, "array") == 0 && !json_is_array(value))
        value = json_pack("[o]", value);
    if (!list) {
        (void)json_object_set_new(params, name, value); /* out of memory: the dispatcher misses it */
        return CLIENT_DONE;
    }
    if (!json_is_array(list) || !json_is_array(value)) {
        show_error("%s is given twice", name);
        json_decref(value);
        return CLIENT_REFUSED;
    }
    (void)json_array_extend(list, value);
    json_decref(value);
    return CLIENT_DONE;
}

/* Before anything is asked: are these KEY=VALUE in UTF-8, and are the files there? */
static bool params_plausible(const struct client *c)
{
    for (size_t i = 1; i < c->word_count; i++) {
        const char *word = c->words[i], *equals = strchr(word, '=');
        if (!equals || equals == word) {
            show_error("%s: a parameter is written KEY=VALUE", word);
            return false;
        }
        if (!utf8_valid(word, strlen(word))) {
            show_error("%s: is not UTF-8", word);
            return false;
        }
        if (equals[1] == '@' && equals[2] != '@' && access(equals + 2, R_OK) != 0) {
            show_error("%s: cannot be read: %s", word, strerror(errno));
            show_note("  a value that begins with @ names a file; @@ stands for an @ itself");
            return false;
        }
    }
    return true;
}

static int params_schema(struct client *c, json_t **properties)
{
    struct arena *arena = arena_new(4096);
    char *path = arena ? arena_printf(arena, "/v1/operations/%s", url_segment(arena, c->words[0])) : NULL;
    struct api_call call = { .method = "GET", .path = path };
    struct api_reply r = { .err = ERR_NOMEM };
    int status = CLIENT_UNREACHABLE;

    if (path) {
        r = api_ask(c->api, &call);
        if (r.err == ERR_OK && r.status == 404 && json_text(r.json, "code")) {
            show_error("there is no operation %s; `kiln operations` lists them", c->words[0]);
            status = CLIENT_REFUSED;
        } else {
            status = api_refused(c->api, &r, c->is_json);
        }
    }
    if (status == CLIENT_DONE)
        *properties = json_incref(json_object_get(json_object_get(r.json, "params"), "properties"));
    api_reply_done(&r);
    arena_free(arena);
    return status;
}

int params_read(struct client *c, enum params_for what, json_t **out)
{
    json_t *properties = NULL, *params = json_object();
    int status = params_plausible(c) ? params_schema(c, &properties) : CLIENT_REFUSED;

    for (size_t i = 1; i < c->word_count && status == CLIENT_DONE; i++) {
        size_t len = strcspn(c->words[i], "=");
        char *name = strdup(c->words[i]);
        json_t *value = NULL;

        if (!name) {
            status = CLIENT_REFUSED;
            break;
        }
        name[len] = '\0';
        status = params_one(c, what, properties, name, c->words[i] + len + 1, &value);
        if (status == CLIENT_DONE)
            status = params_put(params, properties, name, value);
        free(name);
    }
    json_decref(properties);
    if (status != CLIENT_DONE)
        json_decref(params);
    else
        *out = params;
    return status;
}
