/* artifacts.c - results and their bytes: signed links, ranges, sendfile. */
#include "dispatcher/artifacts.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/core/media.h"
#include "dispatcher/dispatcher.h"
#include "dispatcher/problem.h"
#include "dispatcher/reply.h"

enum { LINK_S = 3600 };

struct artifacts {
    struct db_gather *find;
};

static const struct db_call find_call = {
    .name = "artifact",
    .sql = "select u.ord::int as ord, j.app_id as app, j.state, a.id, a.job_id, a.kind, a.mime, a.bytes, a.width, "
           "a.height, a.sha256, a.object, a.seed, a.revised_prompt, a.blurhash, a.color "
           "from unnest($1::uuid[]) with ordinality u(id, ord) "
           "left join (artifacts a join jobs j on j.id = a.job_id) on a.id = u.id order by u.ord",
    .columns = 1,
    .patience_ms = 3000,
};

struct artifacts *artifacts_new(struct dispatcher *d)
{
    struct artifacts *a = calloc(1, sizeof(*a));

    if (a == NULL)
        return NULL;
    a->find = db_gather_new(d->read, &find_call, NULL, 0);
    if (a->find == NULL) {
        free(a);
        return NULL;
    }
    return a;
}

void artifacts_free(struct artifacts *a)
{
    if (a == NULL)
        return;
    db_gather_free(a->find);
    free(a);
}

/* ---- links ---- */

void artifacts_sign(char out[44], const unsigned char key[32], const char *id, int64_t expires_s)
{
    unsigned char mac[32];
    char text[96];

    snprintf(text, sizeof(text), "artifact\n%s\n%lld", id, (long long)expires_s);
    hmac_sha256(mac, key, 32, text, strlen(text));
    (void)base64url_encode(out, 44, mac, sizeof(mac)); /* 43 characters */
}

void artifacts_link(struct request *r, const char *id, struct artifacts_link *link)
{
    int64_t expires_s = clock_wall_ms() / 1000 + LINK_S;
    char signature[44];

    artifacts_sign(signature, dispatcher_of(r)->signing_key, id, expires_s);
    rfc3339_ms(link->expires, expires_s * 1000);
    link->url = arena_printf(r->arena, "%s/v1/artifacts/%s/content?expires=%lld&signature=%s", reply_base_url(r), id,
                             (long long)expires_s, signature);
}

static void add_link(struct request *r, json_t *artifact, const char *id)
{
    struct artifacts_link link;

    artifacts_link(r, id, &link);
    (void)json_set_text(artifact, "url", link.url);
    (void)json_set_text(artifact, "expires_at", link.expires);
}

json_t *artifacts_view(struct request *r, const json_t *doc)
{
    static const char *const keys[] = { "id",     "kind", "mime",           "bytes",    "width", "height",
                                        "sha256", "seed", "revised_prompt", "blurhash", "color" };
    const char *id = json_text(doc, "id");
    json_t *one = json_object();

    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        json_t *value = json_object_get(doc, keys[i]);

        (void)json_object_set_new(one, keys[i], value != NULL ? json_incref(value) : json_null());
    }
    if (id != NULL)
        add_link(r, one, id);
    return one;
}

/* ---- GET /v1/artifacts/{id} ---- */

static json_t *number_or_null(const struct db_result *result, int row, const char *column)
{
    return db_is_null(result, row, column) ? json_null() : json_integer(db_col_int(result, row, column));
}

static void text_or_null(json_t *to, const struct db_result *result, int row, const char *column)
{
    (void)json_set_text(to, column, db_is_null(result, row, column) ? NULL : db_col(result, row, column));
}

/* A canceled job shows nothing: what came after is evidence only (protocol.md, invariant 7). */
static bool is_shown(const struct db_result *result, int row)
{
    return !db_is_null(result, row, "id") && strcmp(db_col(result, row, "state"), "canceled") != 0;
}

static void get_on_row(void *ctx, enum err err, const struct db_result *result, int row)
{
    struct request *r = ctx;
    json_t *one;

    if (err != ERR_OK) {
        problem_backend(r, err);
        return;
    }
    if (!is_shown(result, row) || strcmp(db_col(result, row, "app"), r->app) != 0) {
        problem_reply(r, ERR_NOT_FOUND, "no such artifact");
        return;
    }
    one = json_object();
    (void)json_set_text(one, "id", db_col(result, row, "id"));
    (void)json_set_text(one, "object", "artifact");
    (void)json_set_text(one, "job", db_col(result, row, "job_id"));
    (void)json_set_text(one, "kind", db_col(result, row, "kind"));
    (void)json_set_text(one, "mime", db_col(result, row, "mime"));
    (void)json_object_set_new(one, "bytes", number_or_null(result, row, "bytes"));
    (void)json_object_set_new(one, "width", number_or_null(result, row, "width"));
    (void)json_object_set_new(one, "height", number_or_null(result, row, "height"));
    text_or_null(one, result, row, "sha256");
    text_or_null(one, result, row, "seed");
    text_or_null(one, result, row, "revised_prompt");
    text_or_null(one, result, row, "blurhash");
    text_or_null(one, result, row, "color");
    add_link(r, one, db_col(result, row, "id"));
    reply_json(r, 200, one);
}

static void artifacts_find(struct request *r, db_row_fn *fn)
{
    struct dispatcher *d = dispatcher_of(r);
    struct db_value value;
    char id[UUID_TEXT];
    enum err e;

    if (!uuid_lower(id, r->args[0])) {
        problem_reply(r, ERR_NOT_FOUND, "no such artifact");
        return;
    }
    value = db_text(id);
    e = db_is_up(d->read) ? db_gather_add(d->artifacts->find, &value, fn, r) : ERR_UNAVAILABLE;
    if (e != ERR_OK)
        problem_backend(r, e);
}

void artifacts_get(struct request *r)
{
    artifacts_find(r, get_on_row);
}

/* ---- the bytes ---- */

enum range { RANGE_ALL, RANGE_PART, RANGE_NONE };

/* One range of "bytes=a-b", "bytes=a-", "bytes=-n"; several, or another unit, are served whole. */
static enum range range_of(const char *header, int64_t size, int64_t *first, int64_t *last)
{
    char from[24] = "", to[24] = "";
    const char *dash;
    int64_t n = 0;

    *first = 0;
    *last = size - 1;
    if (header == NULL || strncmp(header, "bytes=", 6) != 0 || strchr(header, ',') != NULL)
        return RANGE_ALL;
    header += 6;
    dash = strchr(header, '-');
    if (dash == NULL || dash - header >= (ptrdiff_t)sizeof(from) || strlen(dash + 1) >= sizeof(to))
        return RANGE_ALL;
    memcpy(from, header, (size_t)(dash - header));
    snprintf(to, sizeof(to), "%s", dash + 1);
    if (from[0] == '\0') {
        if (parse_i64(to, 0, INT64_MAX, &n) != ERR_OK)
            return RANGE_ALL;
        if (n == 0 || size == 0)
            return RANGE_NONE;
        *first = n < size ? size - n : 0;
        return RANGE_PART;
    }
    if (parse_i64(from, 0, INT64_MAX, first) != ERR_OK ||
        (to[0] != '\0' && parse_i64(to, *first, INT64_MAX, last) != ERR_OK)) {
        *first = 0;
        *last = size - 1;
        return RANGE_ALL;
    }
    if (*first >= size)
        return RANGE_NONE;
    if (*last >= size)
        *last = size - 1;
    return RANGE_PART;
}

static void content_headers(struct request *r, enum media_kind kind, const char *id, const char *etag)
{
    char disposition[96];

    snprintf(disposition, sizeof(disposition), "%s; filename=\"%s.%s\"",
             kind == MEDIA_UNKNOWN ? "attachment" : "inline", id, media_extension(kind));
    request_add_header(r, "Content-Disposition", disposition);
    request_add_header(r, "X-Content-Type-Options", "nosniff");
    request_add_header(r, "Content-Security-Policy", "default-src 'none'; sandbox");
    request_add_header(r, "Cross-Origin-Resource-Policy", "cross-origin");
    request_add_header(r, "Cache-Control", "private, max-age=3600, immutable");
    request_add_header(r, "Vary", "Authorization");
    request_add_header(r, "Accept-Ranges", "bytes");
    request_add_header(r, "ETag", etag);
}

static void content_send(struct request *r, const struct db_result *result, int row, const struct store_at *where)
{
    const int64_t size = where->bytes;
    const int fd = where->fd;
    enum media_kind kind = media_kind_of_mime(db_col(result, row, "mime"));
    const char *if_range = request_header(r, "If-Range"), *match = request_header(r, "If-None-Match");
    char etag[SHA256_HEX + 2], text[64];
    int64_t first, last;
    enum range range;

    snprintf(etag, sizeof(etag), "\"%s\"", db_col(result, row, "sha256"));
    range = range_of(if_range == NULL || strcmp(if_range, etag) == 0 ? request_header(r, "Range") : NULL, size, &first,
                     &last);
    content_headers(r, kind, db_col(result, row, "id"), etag);
    if (match != NULL && strstr(match, etag) != NULL) {
        close(fd);
        request_reply(r, 304, NULL, NULL);
    } else if (range == RANGE_NONE) {
        close(fd);
        snprintf(text, sizeof(text), "bytes */%lld", (long long)size);
        request_add_header(r, "Content-Range", text);
        request_reply(r, 416, NULL, NULL);
    } else {
        if (range == RANGE_PART) {
            snprintf(text, sizeof(text), "bytes %lld-%lld/%lld", (long long)first, (long long)last, (long long)size);
            request_add_header(r, "Content-Range", text);
        }
        request_reply_file(r, range == RANGE_PART ? 206 : 200, media_mime(kind), fd, where->at + first,
                           last - first + 1);
    }
}

static void content_on_row(void *ctx, enum err err, const struct db_result *result, int row)
{
    struct request *r = ctx;
    struct store_at where;

    if (err != ERR_OK) {
        problem_backend(r, err);
        return;
    }
    /* a good signature stands for the app; with a key the app has to be the right one */
    if (!is_shown(result, row) || (r->app[0] != '\0' && strcmp(db_col(result, row, "app"), r->app) != 0)) {
        problem_reply(r, ERR_NOT_FOUND, "no such artifact");
        return;
    }
    if (store_find(dispatcher_of(r)->store, db_col(result, row, "object"), &where) != ERR_OK) {
        log_error("object_missing", log_str("object", db_col(result, row, "object")));
        problem_reply(r, ERR_STORAGE_ERROR, "the file is not in storage at the moment");
        return;
    }
    content_send(r, result, row, &where);
}

/* ERR_OK: the link's signature is ours and has not expired. */
static enum err check_signature(struct request *r)
{
    const char *expires = request_query(r, "expires", NULL), *signature = request_query(r, "signature", NULL);
    char id[UUID_TEXT], good[44];
    int64_t expires_s;

    if (expires == NULL || signature == NULL)
        return ERR_UNAUTHORIZED;
    if (parse_i64(expires, 0, INT64_MAX / 1000, &expires_s) != ERR_OK || !uuid_lower(id, r->args[0]))
        return ERR_FORBIDDEN;
    artifacts_sign(good, dispatcher_of(r)->signing_key, id, expires_s);
    if (strlen(signature) != strlen(good) || !bytes_equal(signature, good, strlen(good)))
        return ERR_FORBIDDEN;
    return clock_wall_ms() / 1000 < expires_s ? ERR_OK : ERR_FORBIDDEN;
}

void artifacts_content(struct request *r)
{
    if (r->app[0] == '\0') {
        enum err e = check_signature(r);

        if (e != ERR_OK) {
            problem_reply(r, e, e == ERR_FORBIDDEN ? "the link is not valid, or no longer" : NULL);
            return;
        }
    }
    artifacts_find(r, content_on_row);
}
