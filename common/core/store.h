/* store.h - where bytes lie: one interface; store_file is the one behind it now, store_s3 the next room.
 *
 * Objects have names of our own making (`job/ab/<job id>/<fence>/<index>`, `upload/ab/<id>`), never a user's. A write
 * goes to a temp name in the same file system, is fsynced and renamed. Results arrive by httpc or decode into
 * store_temp's path and become objects by store_keep, or store_place and store_sync, on the thread pool. Small ones
 * that come together go into one file, a pack, by store_pack, which says under which names they are then to be found.
 */
#ifndef KILN_STORE_H
#define KILN_STORE_H
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>
#include "common/base/err.h"

struct store;

enum err store_open(const char *where, struct store **out); /* "file:DIR": made if missing; ERR_ARGUMENT, ERR_IO */
void store_close(struct store *s);
bool store_is_writable(struct store *s); /* for /readyz; a cheap blocking check */

enum err store_temp(struct store *s, char *path, size_t size); /* a fresh path for a temp file, not created */
/* Blocking; call from a thread. fsyncs, makes folders, renames. On failure the temp file stays:
 * the caller tries again or removes it. */
enum err store_keep(struct store *s, const char *temp_path, const char *object);
/* The same in two steps, for many at once: each is renamed, then all are made durable by one call. Not before that may
 * a row name them. What a failed sync was about has to be placed anew, from memory or from what store_take_back copies
 * into a temp file. */
enum err store_place(struct store *s, const char *temp_path, const char *object);
/* From memory instead, under the object's name at once; what was written of it goes when it fails. */
enum err store_put(struct store *s, const char *object, const void *data, size_t len);
enum err store_sync(struct store *s, const char *const *objects, size_t count);
enum err store_take_back(struct store *s, const char *object, char *temp_path, size_t size);
enum { STORE_PACK_MAX = 1023, STORE_NAME = 160 };
struct store_piece {
    const char *object; /* what it would be called alone */
    const void *data;
    size_t len;
    char *name; /* STORE_NAME bytes, filled by store_pack when all went well; may be where `object` is */
};
/* Writes up to STORE_PACK_MAX results into one file: all are durable, or there is nothing. ERR_LOST: a sync failed, so
 * that the disk is not to be trusted with them now; anything else: no pack can be made. Blocking. */
enum err store_pack(struct store *s, const struct store_piece *pieces, size_t count);
enum err store_remove(struct store *s, const char *object); /* missing is fine */
/* Where an object's bytes are (file storage), and the file open for reading, which the caller closes. ERR_NOT_FOUND: it
 * is gone; any other error says nothing about that. Blocking, short. */
struct store_at {
    int fd;
    int64_t at, bytes;
    bool is_packed; /* the file holds others, too */
    char path[PATH_MAX];
};
enum err store_find(struct store *s, const char *object, struct store_at *out);
bool store_object_valid(const char *object); /* our alphabet, no dots, no leading slash */
/* Calls fn for each object below the folder `prefix` ("job/", "upload/") older than min_age_s, until it returns false;
 * below "job/" for those in packs, too. Blocking. */
enum err store_walk(struct store *s, const char *prefix, int64_t min_age_s, bool (*fn)(void *ctx, const char *object),
                    void *ctx);
size_t store_sweep_temp(struct store *s, int64_t min_age_s); /* removes temp files left by the dead; blocking */
#endif
