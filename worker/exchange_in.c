/* exchange_in.c - an answer becomes the sortie's: kept as memory or file, parsed when it is JSON, read by the adapter.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/clock.h"
#include "worker/actions.h"

enum { HEADERS_MAX = 64, HEADER_TEXT = 2048, FILE_JSON_MAX = 128 * 1024 * 1024 };

static char *exchange_load(const char *path, size_t *len)
{
    FILE *file = fopen(path, "rb");
    struct buf b = { .ceiling = FILE_JSON_MAX };
    char chunk[16384];
    size_t got;

    while (file && (got = fread(chunk, 1, sizeof(chunk), file)) > 0)
        if (!buf_add(&b, chunk, got))
            break;
    if (file)
        (void)fclose(file);
    *len = b.len;
    return buf_take(&b);
}

static bool exchange_looks_like_json(const char *at)
{
    while (at && (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t'))
        at++;
    return at && (*at == '{' || *at == '[');
}

void exchange_parse(struct sortie *s)
{
    if (exchange_looks_like_json(s->in.data))
        s->in_json = json_parse_answer(s->in.data, s->in.len);
    s->in.json = s->in_json;
}

static bool exchange_is_json_file(const struct sortie *s)
{
    const char *type = http_answer_header(&s->in, "content-type");

    return s->in.file && type && strstr(type, "json");
}

bool exchange_is_quick(const struct sortie *s)
{
    if (s->in.file)
        return !exchange_is_json_file(s) || (s->in_body && s->in.len <= EXCHANGE_INLINE_BYTES);
    return s->in.len <= EXCHANGE_INLINE_BYTES || !exchange_looks_like_json(s->in.data);
}

void exchange_read(struct sortie *s)
{
    const struct provider *adapter = s->flight->adapter;

    if (exchange_is_json_file(s)) { /* not the artifact itself after all */
        if (!s->in_body)
            s->in_data = exchange_load(s->in.file, &s->in.len);
        s->in.data = s->in_body ? s->in_body : s->in_data ? s->in_data : "";
        s->in.file = NULL;
    }
    exchange_parse(s);
    s->answer =
        s->is_poll ? adapter->on_poll(s->arena, &s->spec, &s->in) : adapter->on_submit(s->arena, &s->spec, &s->in);
}

bool exchange_keep(struct sortie *s, const struct httpc_answer *a)
{
    const char **headers = arena_alloc(s->arena, HEADERS_MAX * sizeof(*headers));
    size_t n = 0;

    json_decref(s->in_json);
    free(s->in_data);
    sortie_drop_bodies(s);
    s->in_json = NULL;
    s->in_data = NULL;
    s->in = (struct http_answer){ .status = a->status, .wall_ms = clock_wall_ms() };
    if (!headers)
        return false;
    for (size_t i = 0; i < a->header_count && n < HEADERS_MAX; i++)
        if (strlen(a->headers[i]) < HEADER_TEXT && (headers[n] = arena_strdup(s->arena, a->headers[i])))
            n++;
    s->in.headers = headers;
    s->in.header_count = n;
    if (a->in_file) {
        s->in.file = s->in_temp;
        s->in.len = (size_t)a->file_bytes;
        memcpy(s->in_sha256, a->file_sha256, sizeof(s->in_sha256));
        return true;
    }
    (void)sortie_set_temp(s, NULL);
    s->in.len = a->body_len;
    if (a->is_kept) { /* to adapters it is a file as any other: what they may think of it does not depend on its size */
        s->in_body = httpc_take_body(a);
        s->in.file = "memory";
        sortie_weigh(s);
        return true;
    }
    s->in_data = malloc(a->body_len + 1);
    if (!s->in_data)
        return false;
    if (a->body_len)
        memcpy(s->in_data, a->body, a->body_len);
    s->in_data[a->body_len] = '\0';
    s->in.data = s->in_data;
    sortie_weigh(s);
    return true;
}
