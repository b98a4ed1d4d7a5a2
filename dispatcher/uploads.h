/* uploads.h - input files: POST /v1/uploads streams a raw body to a temp file (never whole in memory), sniffs it, and
 * keeps it as an object with a row. Also used for `data:` URIs. Writing and hashing are the thread pool's work. */
#ifndef KILN_UPLOADS_H
#define KILN_UPLOADS_H
#include "common/core/media.h"
#include "common/core/store.h"
#include "dispatcher/httpd.h"

struct dispatcher;

struct upload_file { /* one file on its way into storage */
    struct store *store;
    char object[80], temp[512], sha256[SHA256_HEX];
    int64_t bytes;
    struct media_head head;
    enum err err; /* of the thread's work */
};

void upload_file_name(struct upload_file *f, struct store *store, const char *id);
void upload_file_write(struct upload_file *f, const void *data, size_t len); /* blocking: from a thread; sets err */

/* Writes the row; its callback has ERR_OK when it is there. Text is copied. */
typedef void uploads_fn(void *ctx, enum err err);
enum err uploads_insert(struct dispatcher *d, const char *id, const char *app, const char *account,
                        const struct upload_file *f, uploads_fn *fn, void *ctx);
void uploads_discard(struct dispatcher *d, const char *object); /* removes the object, on a thread */

void uploads_begin(struct request *r);
void uploads_post(struct request *r);
#endif
