/* script.c - a provider that nobody knows: tests say by POST /_sandbox/script what it answers, request by request.
 *
 * {"routes":[{"method":"POST","path":"/two/jobs","answers":[{"status":202,"headers":{"x":"y"},"json":{…}}]}]} replaces
 * all routes; they are served below /script. Each request takes the route's next answer, the last one stays.
 * "png":[w,h] instead of json answers with a picture's bytes, "file":[type,text] with any other; in json the text
 * "$png" stands for a picture in base64,
 * "$url" for the address of one. GET /_sandbox/script shows the requests that came. */
#include "sandbox.h"

#include <stdlib.h>
#include <string.h>

static struct blob *script_png(int width, int height, uint64_t seed)
{
    struct pixels px = { .width = width, .height = height };
    scene_draw(&px, "a lighthouse at dawn", seed);
    struct blob *file = codec_encode(&px, PICTURE_PNG, 90);
    free(px.data);
    return file;
}

static json_t *script_text(const struct sandbox *box, const char *text, uint64_t seed)
{
    struct buf b = { 0 };
    if (strcmp(text, "$png") == 0) {
        struct blob *file = script_png(64, 64, seed);
        buf_base64(&b, file->data, file->len);
        blob_drop(file);
    } else if (strcmp(text, "$url") == 0) {
        buf_fmt(&b, "http://127.0.0.1:%u/script/picture.png?seed=%llu", server_port(box->main_server),
                (unsigned long long)seed);
    } else {
        buf_str(&b, text);
    }
    json_t *out = json_string(b.data == NULL ? "" : b.data);
    buf_done(&b);
    return out;
}

/* A copy with the marks filled in; each picture is another. */
static json_t *script_fill(const struct sandbox *box, const json_t *from, uint64_t *seed)
{
    const char *name;
    json_t *one, *out;
    if (json_is_string(from))
        return script_text(box, json_string_value(from), ++*seed);
    if (json_is_array(from)) {
        out = json_array();
        for (size_t i = 0; i < json_array_size(from); i++)
            (void)json_array_append_new(out, script_fill(box, json_array_get(from, i), seed));
        return out;
    }
    if (!json_is_object(from))
        return json_incref((json_t *)from);
    out = json_object();
    json_object_foreach((json_t *)from, name, one)(void) json_object_set_new(out, name, script_fill(box, one, seed));
    return out;
}

static void script_file(struct exchange *ex, int code, const json_t *file)
{
    const char *text = json_string_value(json_array_get(file, 1));
    exchange_send_blob(ex, code, json_string_value(json_array_get(file, 0)), blob_new(text, strlen(text)));
}

static void script_answer(struct exchange *ex, const json_t *answer)
{
    const json_t *png = json_object_get(answer, "png"), *status = json_object_get(answer, "status");
    int code = status == NULL ? 200 : (int)json_integer_value(status);
    uint64_t seed = 0;
    const char *name;
    json_t *value;
    json_object_foreach(json_object_get(answer, "headers"), name, value)
        exchange_header(ex, name, "%s", json_string_value(value));
    if (json_is_array(json_object_get(answer, "file")))
        script_file(ex, code, json_object_get(answer, "file"));
    else if (png != NULL)
        exchange_send_blob(ex, code, "image/png",
                           script_png((int)json_integer_value(json_array_get(png, 0)),
                                      (int)json_integer_value(json_array_get(png, 1)), 7));
    else
        exchange_send_json(ex, code, script_fill(ex->box, json_object_get(answer, "json"), &seed));
}

static void script_note(struct exchange *ex, const char *path)
{
    const char *key = exchange_request_header(ex, "Authorization"), *own = exchange_request_header(ex, "X-Key");
    const char *type = exchange_request_header(ex, "Content-Type");
    json_t *body =
        json_stringn(ex->body.data == NULL ? "" : ex->body.data, ex->body.len < 20000 ? ex->body.len : 20000);
    (void)json_array_append_new(json_object_get(ex->box->script, "requests"),
                                json_pack("{s:s,s:s,s:s?,s:s?,s:s?,s:s?,s:o}", "method", ex->method, "path", path,
                                          "query", ex->query, "authorization", key, "x-key", own, "content_type", type,
                                          "body", body != NULL ? body : json_string("(binary)")));
}

void script_on_request(struct exchange *ex, const char *path)
{
    json_t *routes = json_object_get(ex->box->script, "routes");
    if (strcmp(path, "/picture.png") == 0) {
        exchange_send_blob(ex, 200, "image/png", script_png(64, 64, text_hash(ex->query, strlen(ex->query))));
        return;
    }
    script_note(ex, path);
    for (size_t i = 0; i < json_array_size(routes); i++) {
        json_t *r = json_array_get(routes, i), *answers = json_object_get(r, "answers");
        const char *method = json_string_value(json_object_get(r, "method"));
        const char *where = json_string_value(json_object_get(r, "path"));
        if (method == NULL || where == NULL || strcmp(method, ex->method) != 0 || strcmp(where, path) != 0)
            continue;
        script_answer(ex, json_array_get(answers, 0));
        if (json_array_size(answers) > 1)
            (void)json_array_remove(answers, 0);
        return;
    }
    exchange_send_json(ex, 404, json_pack("{s:s}", "error", "the script has no such route"));
}

void script_on_admin(struct exchange *ex, json_t *body)
{
    if (body == NULL) {
        exchange_send_json(ex, 200, json_pack("{s:O}", "requests", json_object_get(ex->box->script, "requests")));
        return;
    }
    json_decref(ex->box->script);
    ex->box->script = json_pack("{s:O?,s:[]}", "routes", json_object_get(body, "routes"), "requests");
    exchange_send_json(ex, 200, json_pack("{s:b}", "set", 1));
}
