/* reply.c - the small words of an answer. */
#include "dispatcher/reply.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "dispatcher/dispatcher.h"
#include "dispatcher/problem.h"

enum { WAIT_MAX_S = 60, LIST_DEFAULT = 20, LIST_MAX = 100 };

void reply_body(struct request *r, int status, const char *mime, struct buf *body)
{
    /* S11: nothing that a key opened may lie in a shared cache */
    request_add_header(r, "Cache-Control", "private, no-store");
    request_add_header(r, "Vary", "Authorization");
    if (body != NULL)
        request_reply(r, status, mime, body);
    else
        request_reply(r, 500, NULL, NULL); /* out of memory: nothing better can be said */
}

void reply_json_as(struct request *r, int status, const char *mime, json_t *body)
{
    struct buf out = { 0 };
    bool ok = body != NULL && json_write_to(&out, body);

    json_decref(body);
    reply_body(r, status, mime, ok ? &out : NULL);
    buf_done(&out);
}

void reply_json(struct request *r, int status, json_t *body)
{
    reply_json_as(r, status, "application/json", body);
}

void reply_retry_after(struct request *r, int seconds)
{
    char text[16];

    snprintf(text, sizeof(text), "%d", seconds);
    request_add_header(r, "Retry-After", text);
}

static bool host_is_plain(const char *host)
{
    return strspn(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:[]") == strlen(host) &&
           host[0] != '\0';
}

const char *reply_base_url(struct request *r)
{
    const struct dispatcher *d = dispatcher_of(r);
    const char *host = request_header(r, "Host");

    if (d->public_url != NULL)
        return d->public_url;
    if (host == NULL || !host_is_plain(host)) /* never let a header write anything but a host into a link */
        host = "localhost";
    return arena_printf(r->arena, "http://%s", host);
}

int64_t reply_prefer_wait(struct request *r, bool *bad)
{
    const char *p = request_header(r, "Prefer");
    int64_t n = 0;

    *bad = false;
    while (p != NULL && *p != '\0') {
        size_t len = strcspn(p, ",;");
        const char *start = p + strspn(p, " \t");

        if (strncasecmp(start, "wait=", 5) == 0 && start < p + len) {
            const char *value = start + 5;
            char text[16];
            size_t value_len = (size_t)(p + len - value);

            while (value_len > 0 && (value[value_len - 1] == ' ' || value[value_len - 1] == '\t'))
                value_len--;
            if (value_len == 0 || value_len >= sizeof(text)) {
                *bad = true;
                return 0;
            }
            memcpy(text, value, value_len);
            text[value_len] = '\0';
            if (parse_i64(text, 0, INT32_MAX, &n) != ERR_OK) {
                *bad = true;
                return 0;
            }
            return n < WAIT_MAX_S ? n : WAIT_MAX_S;
        }
        p += len + (p[len] != '\0');
    }
    return 0;
}

/* The request's own URL with its cursor replaced. */
static char *next_link(struct request *r, const char *cursor)
{
    struct buf b = { .ceiling = 16384 };
    char *link, mark = '?';

    (void)buf_printf(&b, "%s%s", reply_base_url(r), r->path);
    for (const char *p = r->query; *p != '\0';) {
        size_t len = strcspn(p, "&");

        if (len > 0 && strncmp(p, "cursor=", 7) != 0) {
            (void)buf_printf(&b, "%c%.*s", mark, (int)len, p);
            mark = '&';
        }
        p += len + (p[len] == '&');
    }
    (void)buf_printf(&b, "%ccursor=%s", mark, cursor);
    link = b.is_full ? NULL : arena_strdup(r->arena, b.data);
    buf_done(&b);
    return link;
}

json_t *reply_list_body(struct request *r, json_t *data, const char *cursor)
{
    json_t *body = json_object();

    (void)json_set_text(body, "object", "list");
    (void)json_object_set_new(body, "data", data);
    (void)json_object_set_new(body, "has_more", json_boolean(cursor != NULL));
    (void)json_set_text(body, "next", cursor != NULL ? next_link(r, cursor) : NULL);
    return body;
}

void reply_list(struct request *r, json_t *data, const char *cursor)
{
    reply_json(r, 200, reply_list_body(r, data, cursor));
}

bool reply_limit(struct request *r, int64_t *limit)
{
    const char *text = request_query(r, "limit", NULL);

    *limit = LIST_DEFAULT;
    if (text == NULL || parse_i64(text, 1, LIST_MAX, limit) == ERR_OK)
        return true;
    problem_field(r, ERR_INVALID_REQUEST, "limit", "must be a number from 1 to 100");
    return false;
}
