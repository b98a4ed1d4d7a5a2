/* uploads.c - input files, streamed.
 *
 * Chunks gather in the request's body up to a block; then the connection is paused while a thread writes and hashes the
 * block. What the file is, its first bytes decide; the Content-Type only has to be one that we take. */
#include "dispatcher/uploads.h"
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "common/base/clock.h"
#include "common/base/log.h"
#include "dispatcher/dispatcher.h"
#include "dispatcher/jobs.h"
#include "dispatcher/problem.h"
#include "dispatcher/reply.h"

enum {
    UPLOAD_BYTES = 50 << 20,
    UPLOAD_BLOCK = 256 << 10,
    UPLOAD_HEAD = 64 << 10,
    UPLOAD_MEMORY = 2 * UPLOAD_BLOCK + UPLOAD_HEAD, /* of one, however large */
    UPLOAD_BODY_MS = 30000,
    UPLOAD_BYTES_PER_MS = 32, /* the slowest client we wait for */
};

struct upload { /* one POST /v1/uploads; freed by on_over */
    struct request *request;
    struct dispatcher *d;
    char id[UUID_TEXT];
    const char *account;
    struct upload_file file;
    EVP_MD_CTX *hash;
    int fd;
    struct buf block; /* being written */
    char head[UPLOAD_HEAD];
    size_t head_len;
    uv_work_t work;
    bool is_working, is_complete, is_kept, is_over;
};

static bool write_all(int fd, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, data, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        data += n;
        len -= (size_t)n;
    }
    return true;
}

void upload_file_name(struct upload_file *f, struct store *store, const char *id)
{
    /* the last two digits are random: UUIDv7s of one time begin alike */
    f->store = store;
    snprintf(f->object, sizeof(f->object), "upload/%s/%s", id + strlen(id) - 2, id);
}

void upload_file_write(struct upload_file *f, const void *data, size_t len)
{
    int fd = -1;

    sha256_hex(f->sha256, data, len);
    f->bytes = (int64_t)len;
    f->head = media_sniff(data, len);
    f->err = store_temp(f->store, f->temp, sizeof(f->temp));
    if (f->err != ERR_OK)
        return;
    fd = open(f->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || !write_all(fd, data, len))
        f->err = ERR_IO;
    if (fd >= 0 && close(fd) != 0)
        f->err = ERR_IO;
    if (f->err == ERR_OK)
        f->err = store_keep(f->store, f->temp, f->object);
    if (f->err != ERR_OK)
        (void)unlink(f->temp); /* a sweep takes what stays */
}

/* ---- the row ---- */

struct insert {
    uploads_fn *fn;
    void *ctx;
};

static void insert_on_result(void *ctx, enum err err, const struct db_result *result)
{
    struct insert *i = ctx;

    (void)result;
    i->fn(i->ctx, err);
    free(i);
}

enum err uploads_insert(struct dispatcher *d, const char *id, const char *app, const char *account,
                        const struct upload_file *f, uploads_fn *fn, void *ctx)
{
    struct insert *i = calloc(1, sizeof(*i));
    char bytes[24], width[24], height[24];
    const char *values[] = { id,
                             app,
                             account,
                             media_mime(f->head.kind),
                             bytes,
                             f->head.width > 0 ? width : NULL,
                             f->head.height > 0 ? height : NULL,
                             f->sha256,
                             f->object };
    enum err e;

    if (i == NULL)
        return ERR_NOMEM;
    snprintf(bytes, sizeof(bytes), "%lld", (long long)f->bytes);
    snprintf(width, sizeof(width), "%lld", (long long)f->head.width);
    snprintf(height, sizeof(height), "%lld", (long long)f->head.height);
    i->fn = fn;
    i->ctx = ctx;
    e = db_query(d->read,
                 "insert into uploads (id, app_id, account, mime, bytes, width, height, sha256, object) values "
                 "($1::uuid, $2::uuid, $3, $4, $5::bigint, $6::int, $7::int, $8, $9) on conflict (id) do nothing",
                 ARRAY_LEN(values), values, 10000, insert_on_result, i);
    if (e != ERR_OK)
        free(i);
    return e;
}

struct discard {
    uv_work_t work;
    struct store *store;
    char object[80];
};

static void discard_work(uv_work_t *work)
{
    struct discard *one = container_of(work, struct discard, work);

    (void)store_remove(one->store, one->object); /* the sweep finds it again */
}

static void discard_on_work(uv_work_t *work, int status)
{
    (void)status;
    free(container_of(work, struct discard, work));
}

void uploads_discard(struct dispatcher *d, const char *object)
{
    struct discard *one = calloc(1, sizeof(*one));

    if (one == NULL)
        return;
    one->store = d->store;
    snprintf(one->object, sizeof(one->object), "%s", object);
    if (uv_queue_work(d->loop, &one->work, discard_work, discard_on_work) != 0)
        free(one);
}

/* ---- POST /v1/uploads ---- */

static void upload_free(struct upload *u)
{
    if (u->fd >= 0) {
        close(u->fd);
        (void)unlink(u->file.temp); /* nobody wants it; a sweep takes what stays */
    }
    EVP_MD_CTX_free(u->hash);
    buf_done(&u->block);
    free(u);
}

static void upload_on_over(struct request *r)
{
    struct upload *u = r->data;

    u->is_over = true;
    if (!u->is_working)
        upload_free(u);
}

static void upload_work(uv_work_t *work)
{
    struct upload *u = container_of(work, struct upload, work);

    if (u->fd < 0) {
        if (store_temp(u->d->store, u->file.temp, sizeof(u->file.temp)) == ERR_OK)
            u->fd = open(u->file.temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        u->hash = EVP_MD_CTX_new();
        if (u->fd < 0 || u->hash == NULL || EVP_DigestInit_ex(u->hash, EVP_sha256(), NULL) != 1) {
            u->file.err = ERR_IO;
            return;
        }
    }
    if (u->block.len > 0 && u->head_len < sizeof(u->head)) {
        size_t n = sizeof(u->head) - u->head_len;

        if (n > u->block.len)
            n = u->block.len;
        memcpy(u->head + u->head_len, u->block.data, n);
        u->head_len += n;
    }
    u->file.bytes += (int64_t)u->block.len;
    if (u->block.len > 0 &&
        (EVP_DigestUpdate(u->hash, u->block.data, u->block.len) != 1 || !write_all(u->fd, u->block.data, u->block.len)))
        u->file.err = ERR_IO;
    if (u->file.err == ERR_OK && u->is_complete) {
        unsigned char digest[32];

        u->file.head = media_sniff(u->head, u->head_len);
        if (EVP_DigestFinal_ex(u->hash, digest, NULL) != 1)
            u->file.err = ERR_IO;
        hex_encode(u->file.sha256, digest, sizeof(digest));
        if (u->file.head.kind == MEDIA_UNKNOWN || u->file.err != ERR_OK)
            return;
        if (close(u->fd) != 0)
            u->file.err = ERR_IO;
        u->fd = -1;
        if (u->file.err == ERR_OK)
            u->file.err = store_keep(u->d->store, u->file.temp, u->file.object);
        u->is_kept = u->file.err == ERR_OK;
        if (!u->is_kept)
            (void)unlink(u->file.temp);
    }
}

static void upload_reply(void *ctx, enum err err)
{
    struct upload *u = ctx;
    struct request *r = u->request;
    char expires[RFC3339_TEXT];
    json_t *body;

    if (err != ERR_OK) {
        if (err != ERR_LOST)
            uploads_discard(u->d, u->file.object);
        problem_backend(r, err);
        return;
    }
    rfc3339_ms(expires, clock_wall_ms() + 24 * 3600 * (int64_t)1000);
    body = json_pack("{s:s, s:s, s:s, s:I, s:o, s:o, s:s, s:s}", "id", u->id, "object", "upload", "mime",
                     media_mime(u->file.head.kind), "bytes", (json_int_t)u->file.bytes, "width",
                     u->file.head.width > 0 ? json_integer(u->file.head.width) : json_null(), "height",
                     u->file.head.height > 0 ? json_integer(u->file.head.height) : json_null(), "sha256",
                     u->file.sha256, "expires_at", expires);
    reply_json(r, 201, body);
}

static void upload_on_complete(struct upload *u)
{
    struct request *r = u->request;
    enum err e;

    if (u->file.bytes == 0 || u->file.head.kind == MEDIA_UNKNOWN) {
        problem_field(r, ERR_INVALID_REQUEST, "body",
                      u->file.bytes == 0 ? "is empty"
                                         : "is none of png, jpeg, webp, gif, mp3, wav, glb, mp4 by its first bytes");
        return;
    }
    e = uploads_insert(u->d, u->id, r->app, u->account, &u->file, upload_reply, u);
    if (e != ERR_OK) {
        uploads_discard(u->d, u->file.object);
        problem_backend(r, e);
    }
}

static void upload_on_work(uv_work_t *work, int status)
{
    struct upload *u = container_of(work, struct upload, work);
    struct request *r = u->request;

    (void)status; /* never canceled */
    u->is_working = false;
    u->block.len = 0;
    if (u->is_over) {
        upload_free(u);
    } else if (u->file.err != ERR_OK) {
        log_warn("upload_failed", log_str("code", err_word(u->file.err)));
        problem_reply(r, ERR_UNAVAILABLE, "the file could not be stored");
    } else if (u->is_complete) {
        upload_on_complete(u);
    } else {
        request_resume(r);
    }
}

static bool upload_flush(struct upload *u)
{
    u->is_working = true;
    if (uv_queue_work(u->d->loop, &u->work, upload_work, upload_on_work) == 0)
        return true;
    u->is_working = false;
    return false;
}

static bool upload_sink(struct request *r, const char *data, size_t len)
{
    struct upload *u = r->data;

    if (!buf_add(&u->block, data, len))
        return false;
    if (u->block.len < UPLOAD_BLOCK)
        return true;
    if (!upload_flush(u))
        return false;
    request_pause(r);
    return true;
}

void uploads_begin(struct request *r)
{
    const char *type = request_header(r, "Content-Type"), *account = request_query(r, "account", NULL);
    struct upload *u;

    if (type == NULL || media_kind_of_mime(type) == MEDIA_UNKNOWN) {
        problem_field(r, ERR_UNSUPPORTED_MEDIA_TYPE, "Content-Type",
                      "must be the type of an image (png, jpeg, webp, gif), a sound (mpeg, wav), a model "
                      "(model/gltf-binary) or a video (mp4)");
        return;
    }
    if (account != NULL && !jobs_account_valid(account)) {
        problem_field(r, ERR_INVALID_REQUEST, "account", "must be 1 to 128 of A-Z a-z 0-9 . _ : @ -");
        return;
    }
    if (!db_is_up(dispatcher_of(r)->read)) {
        problem_backend(r, ERR_UNAVAILABLE); /* before 50 MiB have come for nothing */
        return;
    }
    if (!load_admits_body(r, UPLOAD_MEMORY))
        return;
    u = calloc(1, sizeof(*u));
    if (u == NULL) {
        problem_reply(r, ERR_UNAVAILABLE, NULL);
        return;
    }
    u->request = r;
    u->d = dispatcher_of(r);
    u->fd = -1;
    u->account = account != NULL ? account : "default";
    u->block.ceiling = 2 * UPLOAD_BLOCK;
    uuid_v7(u->id);
    upload_file_name(&u->file, u->d->store, u->id);
    r->data = u;
    r->sink = upload_sink;
    r->on_over = upload_on_over;
    request_go_on(r, UPLOAD_BYTES, UPLOAD_BODY_MS + UPLOAD_BYTES / UPLOAD_BYTES_PER_MS);
}

void uploads_post(struct request *r)
{
    struct upload *u = r->data;

    u->is_complete = true;
    if (!upload_flush(u))
        problem_reply(r, ERR_UNAVAILABLE, NULL);
}
