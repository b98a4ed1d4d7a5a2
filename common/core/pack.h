/* pack.h - many small results in one file. Internal to store.c, which knows where packs lie.
 *
 * A file costs its inode, its folder's entry and a sync of both, whatever is in it (docs/performance.md: a result of 50
 * KB takes 43 us of CPU alone and 14 among 64). A pack opens with lines of PACK_LINE bytes that a person can read:
 *
 *     kiln pack 1 of 00064 objects
 *     + job/ab/<job>/2/0 0000008320 00050000        where its bytes begin in this file, and how many they are
 *     - job/cd/<job>/1/0 0000058320 00050000        removed: its bytes are zeros
 *
 * then the bytes, in that order. Its objects are named by line, <object>/pack/<hour>/<id>/<line>, and each line repeats
 * its object, so that a name leads to its own bytes or to none. A pack appears under its name when it is whole and
 * synced, and is never appended to; the only writes after that make bytes zeros, and a + a -. */
#ifndef KILN_PACK_H
#define KILN_PACK_H
#include "common/core/store.h"

enum { PACK_LINE = 128, PACK_MAX = STORE_PACK_MAX };

enum err store_errno(void);          /* store.c's: what errno comes to */
bool pack_takes(const char *object); /* its name fits into a line */

/* Blocking, all of them. Writes `path`, which must not be there, and syncs it; nothing of it stays when that fails.
 * ERR_ARGUMENT: none or more than PACK_MAX. ERR_LOST: the sync failed. */
enum err pack_write(const char *path, const struct store_piece *pieces, size_t count);
/* Where `object` lies, by its line (from 1), and the file open for reading, which the caller closes. ERR_NOT_FOUND:
 * removed, another's, cut, or no such pack. */
enum err pack_find(const char *path, const char *object, unsigned line, struct store_at *out);
/* The last one takes the file with it. Missing is fine. Only what no row names may be removed: whoever reads it at that
 * moment reads zeros. */
enum err pack_remove(const char *path, const char *object, unsigned line);
/* Calls fn for each object that is there, until it returns false, which is passed on. A pack without any is removed:
 * whoever took the last object died before that. What is no pack, or cannot be read now, is left alone. */
bool pack_walk(const char *path, bool (*fn)(void *ctx, const char *object, unsigned line), void *ctx);
#endif
