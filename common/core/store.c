/* store.c - file storage. DIR/tmp holds what is being written, DIR/obj the objects: the first two parts of an object's
 * name are folders, the rest is one file name joined by dots (job/ab/<job>/2/0 -> obj/job/ab/<job>.2.0), so that a job
 * makes no folder of its own. store_keep: fsync of the file, rename, fsync of its folder. Of many files that is one
 * sync of the file system instead (measured, ext4, 50 KB each: 58 us of CPU and 166 us a file in groups of 64, 216 and
 * 526 one by one); an object of which power was cut before the sync may then be half there, but no row names it yet.
 * Small ones that come together lie in packs (pack.h) instead, obj/pack/<hour, UTC>/<id>: job/ab/<job>/2/0 as the 17th
 * of one is the object job/ab/<job>/2/0/pack/20261201-05/<id>/17. Names are ours and checked, so no name leads
 * out of DIR. S3 (store_s3) will stand behind the same functions. */
#define _GNU_SOURCE /* syncfs */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>
#include "common/base/failpoint.h"
#include "common/base/text.h"
#include "common/core/pack.h"
#include "common/core/store.h"

enum { OBJECT_MAX = 200, DEPTH_MAX = 8, SYNC_EACH_MAX = 6 };

struct store {
    int fd;                    /* of dir */
    atomic_llong durable_hour; /* since 1970: that of the last folder of packs which we know to be durable */
    char dir[PATH_MAX - 512];
};

enum err store_errno(void)
{
    return errno == ENOSPC || errno == EDQUOT ? ERR_STORAGE_ERROR : errno == ENOENT ? ERR_NOT_FOUND : ERR_IO;
}

static enum err store_sync_path(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC);
    enum err err = ERR_OK;

    if (fd < 0)
        return store_errno();
    if (fsync(fd) != 0)
        err = store_errno();
    if (close(fd) != 0 && err == ERR_OK)
        err = store_errno();
    return err;
}

/* Makes every folder of `path` above its last part. Another process may be making the same ones. A new folder is
 * durable when the one above it is synced. */
static enum err store_make_folders(const char *path)
{
    char at[PATH_MAX];
    size_t n = strlen(path), above = 0;

    if (n >= sizeof(at))
        return ERR_ARGUMENT;
    memcpy(at, path, n + 1);
    for (size_t i = 1; i < n; i++) {
        if (at[i] != '/')
            continue;
        at[i] = '\0';
        if (mkdir(at, 0750) == 0) { /* rare */
            if (above)
                at[above] = '\0';
            (void)store_sync_path(above ? at : at[0] == '/' ? "/" : ".", O_RDONLY | O_DIRECTORY);
            if (above)
                at[above] = '/';
        } else if (errno != EEXIST) {
            return store_errno();
        }
        at[i] = '/';
        above = i;
    }
    return ERR_OK;
}

enum err store_open(const char *where, struct store **out)
{
    struct store *s;
    char made[PATH_MAX], *real;
    enum err err;

    if (!where || strncmp(where, "file:", 5) != 0 || !where[5] || strlen(where + 5) >= sizeof(s->dir) - 8)
        return ERR_ARGUMENT;
    (void)snprintf(made, sizeof(made), "%s/tmp/x", where + 5);
    err = store_make_folders(made);
    if (err == ERR_OK) {
        (void)snprintf(made, sizeof(made), "%s/obj/x", where + 5);
        err = store_make_folders(made);
    }
    if (err != ERR_OK)
        return ERR_IO;
    real = realpath(where + 5, NULL); /* the programs may change their folder */
    s = calloc(1, sizeof(*s));
    if (!real || !s || strlen(real) >= sizeof(s->dir)) {
        free(real);
        free(s);
        return ERR_IO;
    }
    (void)snprintf(s->dir, sizeof(s->dir), "%s", real);
    free(real);
    s->fd = open(s->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (s->fd < 0) {
        free(s);
        return ERR_IO;
    }
    *out = s;
    return ERR_OK;
}

void store_close(struct store *s)
{
    if (!s)
        return;
    (void)close(s->fd);
    free(s);
}

bool store_is_writable(struct store *s)
{
    char path[PATH_MAX];
    struct statvfs room;
    int fd;

    if (store_temp(s, path, sizeof(path)) != ERR_OK || statvfs(s->dir, &room) != 0 || room.f_bavail == 0)
        return false;
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return false;
    (void)close(fd);
    (void)unlink(path);
    return true;
}

enum err store_temp(struct store *s, char *path, size_t size)
{
    char id[UUID_TEXT];
    int n;

    uuid_random(id);
    n = snprintf(path, size, "%s/tmp/%s", s->dir, id);
    return n > 0 && (size_t)n < size ? ERR_OK : ERR_ARGUMENT;
}

bool store_object_valid(const char *object)
{
    size_t n = object ? strlen(object) : 0;

    if (n == 0 || n > OBJECT_MAX || object[0] == '/' || object[n - 1] == '/' || strstr(object, "//"))
        return false;
    return strspn(object, "abcdefghijklmnopqrstuvwxyz0123456789-/") == n;
}

/* What of a packed object's name says where its pack is ("pack/<hour>/<id>/<line>"); NULL: it lies alone. */
static const char *store_packed(const char *object)
{
    const char *found = strstr(object, "/pack/");

    return found ? found + 1 : NULL;
}

/* The file that has the object's bytes, be it alone or with others. */
static enum err store_where(const struct store *s, const char *object, char *path, size_t size)
{
    const char *packed;
    char *at;
    int n;

    if (!store_object_valid(object))
        return ERR_ARGUMENT;
    packed = store_packed(object);
    n = packed ? snprintf(path, size, "%s/obj/%.*s", s->dir, (int)(strrchr(packed, '/') - packed), packed)
               : snprintf(path, size, "%s/obj/%s", s->dir, object);
    if (n <= 0 || (size_t)n >= size)
        return ERR_ARGUMENT;
    at = packed ? NULL : strchr(path + strlen(s->dir) + 5, '/');
    at = at ? strchr(at + 1, '/') : NULL;
    while (at && (at = strchr(at + 1, '/')))
        *at = '.';
    return ERR_OK;
}

/* A packed object's name, taken apart: what it would be called alone, and its line. ERR_ARGUMENT: no such name. */
static enum err store_line(const char *object, char *alone, size_t size, unsigned *line)
{
    const char *packed = store_packed(object);
    int64_t number;
    size_t n = (size_t)(packed - object) - 1;

    if (n >= size || parse_i64(strrchr(object, '/') + 1, 1, PACK_MAX, &number) != ERR_OK)
        return ERR_ARGUMENT;
    memcpy(alone, object, n);
    alone[n] = '\0';
    *line = (unsigned)number;
    return ERR_OK;
}

static enum err store_rename(const char *temp_path, const char *path)
{
    enum err err;

    if (FAILPOINT("store.before_rename"))
        return ERR_IO;
    if (rename(temp_path, path) != 0) {
        err = errno == ENOENT ? store_make_folders(path) : store_errno(); /* the first of its folder */
        if (err == ERR_OK && rename(temp_path, path) != 0)
            err = store_errno();
        if (err != ERR_OK)
            return err;
    }
    (void)FAILPOINT("store.after_rename");
    return ERR_OK;
}

static enum err store_sync_folder(char *path) /* of the file; cuts the path */
{
    *strrchr(path, '/') = '\0';
    return store_sync_path(path, O_RDONLY | O_DIRECTORY);
}

enum err store_place(struct store *s, const char *temp_path, const char *object)
{
    char path[PATH_MAX];
    enum err err = store_where(s, object, path, sizeof(path));

    return err == ERR_OK ? store_rename(temp_path, path) : err;
}

static enum err store_write(const char *path, const char *data, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    enum err err = ERR_OK;

    if (fd < 0)
        return store_errno();
    for (size_t at = 0; at < len && err == ERR_OK;) {
        ssize_t n = write(fd, data + at, len - at);

        if (n <= 0)
            err = n < 0 ? store_errno() : ERR_IO;
        else
            at += (size_t)n;
    }
    if (close(fd) != 0 && err == ERR_OK)
        err = store_errno();
    if (err != ERR_OK)
        (void)unlink(path);
    return err;
}

enum err store_put(struct store *s, const char *object, const void *data, size_t len)
{
    char path[PATH_MAX];
    enum err err = store_where(s, object, path, sizeof(path));

    if (err == ERR_OK && FAILPOINT("store.before_rename")) /* the same step: the object comes into being */
        err = ERR_IO;
    if (err == ERR_OK)
        err = store_write(path, data, len);
    if (err == ERR_NOT_FOUND && store_make_folders(path) == ERR_OK) /* the first of its folder */
        err = store_write(path, data, len);
    if (err == ERR_OK)
        (void)FAILPOINT("store.after_rename");
    return err;
}

enum err store_sync(struct store *s, const char *const *objects, size_t count)
{
    char path[PATH_MAX];
    enum err err = FAILPOINT("store.sync") ? ERR_IO : ERR_OK;

    if (count > SYNC_EACH_MAX)
        return err != ERR_OK ? err : syncfs(s->fd) == 0 ? ERR_OK : store_errno();
    for (size_t i = 0; i < count && err == ERR_OK; i++) {
        err = store_where(s, objects[i], path, sizeof(path));
        if (err == ERR_OK)
            err = store_sync_path(path, O_RDONLY);
        if (err == ERR_OK)
            err = store_sync_folder(path);
    }
    return err;
}

static enum err store_copy(int from, int64_t at, int64_t bytes, FILE *to)
{
    char piece[16384];

    while (bytes > 0) {
        ssize_t n = pread(from, piece, bytes < (int64_t)sizeof(piece) ? (size_t)bytes : sizeof(piece), (off_t)at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? store_errno() : ERR_IO;
        if (fwrite(piece, 1, (size_t)n, to) != (size_t)n)
            return store_errno();
        at += n;
        bytes -= n;
    }
    return ERR_OK;
}

enum err store_take_back(struct store *s, const char *object, char *temp_path, size_t size)
{
    struct store_at from;
    enum err err = store_find(s, object, &from);
    FILE *to;

    if (err != ERR_OK)
        return err;
    err = store_temp(s, temp_path, size);
    to = err == ERR_OK ? fopen(temp_path, "wb") : NULL;
    if (err == ERR_OK)
        err = to ? store_copy(from.fd, from.at, from.bytes, to) : ERR_IO;
    if (to && fclose(to) != 0 && err == ERR_OK)
        err = store_errno();
    if (to && err != ERR_OK)
        (void)unlink(temp_path);
    (void)close(from.fd); /* only read */
    return err;
}

enum err store_keep(struct store *s, const char *temp_path, const char *object)
{
    char path[PATH_MAX];
    enum err err = store_where(s, object, path, sizeof(path));

    if (err == ERR_OK)
        err = store_sync_path(temp_path, O_RDONLY);
    if (err == ERR_OK)
        err = store_rename(temp_path, path);
    return err == ERR_OK ? store_sync_folder(path) : err;
}

/* --- packs */

/* A pack's folder is that of its hour (UTC): none holds too many, and a backup can take the newest. Before a row names
 * what lies in it the folder's own entry has to be durable, whoever made it. */
static enum err store_hour_folder(struct store *s, long long hour, const char *path)
{
    char folder[PATH_MAX];
    enum err err = store_make_folders(path);

    for (int up = 0; up < 3 && err == ERR_OK; up++) { /* its entry, that of obj/pack, that of obj */
        (void)snprintf(folder, sizeof(folder), "%s/%s", s->dir, up == 0 ? "obj/pack" : up == 1 ? "obj" : "");
        err = store_sync_path(folder, O_RDONLY | O_DIRECTORY);
    }
    atomic_store(&s->durable_hour, err == ERR_OK ? hour : -1);
    return err;
}

/* A name that none has had, and its folder. name: "pack/<hour>/<id>". */
static enum err store_pack_name(struct store *s, char *name, size_t size, char *path, size_t path_size)
{
    time_t now = time(NULL);
    struct tm tm;
    char hour[16], id[UUID_TEXT];
    int n;

    if (!gmtime_r(&now, &tm) || strftime(hour, sizeof(hour), "%Y%m%d-%H", &tm) == 0)
        return ERR_ARGUMENT;
    uuid_random(id);
    (void)snprintf(name, size, "pack/%s/%s", hour, id);
    n = snprintf(path, path_size, "%s/obj/%s", s->dir, name);
    if (n <= 0 || (size_t)n >= path_size)
        return ERR_ARGUMENT;
    return atomic_load(&s->durable_hour) == now / 3600 ? ERR_OK : store_hour_folder(s, now / 3600, path);
}

static enum err store_pack_place(const char *temp, const char *path)
{
    char folder[PATH_MAX];
    enum err err = ERR_OK;

    if (FAILPOINT("pack.before_rename"))
        err = ERR_IO;
    else if (rename(temp, path) != 0)
        err = store_errno();
    if (err != ERR_OK)
        return err;
    (void)FAILPOINT("pack.after_rename");
    (void)snprintf(folder, sizeof(folder), "%s", path);
    if (store_sync_folder(folder) == ERR_OK)
        return ERR_OK;
    (void)unlink(path); /* nobody was told its name; when this fails, too, the sweep finds it */
    return ERR_LOST;
}

enum err store_pack(struct store *s, const struct store_piece *pieces, size_t count)
{
    char name[64], path[PATH_MAX], temp[PATH_MAX];
    enum err err;

    for (size_t i = 0; i < count; i++)
        if (!store_object_valid(pieces[i].object) || !pack_takes(pieces[i].object) ||
            strncmp(pieces[i].object, "job/", 4) != 0 || store_packed(pieces[i].object))
            return ERR_ARGUMENT;
    err = store_pack_name(s, name, sizeof(name), path, sizeof(path));
    if (err == ERR_OK)
        err = store_temp(s, temp, sizeof(temp));
    if (err == ERR_OK)
        err = pack_write(temp, pieces, count);
    if (err != ERR_OK)
        return err;
    err = store_pack_place(temp, path);
    if (err == ERR_NOT_FOUND && (err = store_hour_folder(s, -1, path)) == ERR_OK) /* somebody took its folder */
        err = store_pack_place(temp, path);
    if (err != ERR_OK) {
        (void)unlink(temp);
        return err;
    }
    for (size_t i = 0; i < count; i++) {
        size_t n = strlen(pieces[i].object);

        memmove(pieces[i].name, pieces[i].object, n);
        (void)snprintf(pieces[i].name + n, STORE_NAME - n, "/%s/%zu", name, i + 1);
    }
    return ERR_OK;
}

/* --- whichever way they lie */

enum err store_remove(struct store *s, const char *object)
{
    char path[PATH_MAX], alone[STORE_NAME];
    enum err err = store_where(s, object, path, sizeof(path));
    unsigned line;

    if (err == ERR_OK && store_packed(object)) {
        err = store_line(object, alone, sizeof(alone), &line);
        return err == ERR_OK ? pack_remove(path, alone, line) : err;
    }
    if (err != ERR_OK)
        return err;
    if (unlink(path) != 0 && errno != ENOENT)
        return store_errno();
    return ERR_OK;
}

enum err store_find(struct store *s, const char *object, struct store_at *out)
{
    char alone[STORE_NAME];
    struct stat st;
    enum err err = store_where(s, object, out->path, sizeof(out->path));
    unsigned line;

    if (err != ERR_OK)
        return err;
    out->is_packed = store_packed(object) != NULL;
    if (out->is_packed) {
        err = store_line(object, alone, sizeof(alone), &line);
        return err == ERR_OK ? pack_find(out->path, alone, line, out) : err;
    }
    out->at = 0;
    out->fd = open(out->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (out->fd < 0)
        return errno == ELOOP ? ERR_NOT_FOUND : store_errno(); /* a link is no object */
    if (fstat(out->fd, &st) != 0)
        err = store_errno();
    else if (!S_ISREG(st.st_mode))
        err = ERR_NOT_FOUND;
    if (err != ERR_OK) {
        (void)close(out->fd);
        return err;
    }
    out->bytes = (int64_t)st.st_size;
    return ERR_OK;
}

struct walk {
    const char *base; /* DIR/obj/ */
    bool is_of_packs;
    time_t before;
    bool (*fn)(void *ctx, const char *object);
    void *ctx;
};

/* From the file's name to the object's, in place. */
static const char *store_name(char *name)
{
    for (char *at = name; (at = strchr(at, '.'));)
        *at = '/';
    return name;
}

struct packed {
    const struct walk *w;
    const char *pack; /* pack/<hour>/<id> */
};

static bool store_on_packed(void *ctx, const char *object, unsigned line)
{
    const struct packed *p = ctx;
    char name[OBJECT_MAX];

    (void)snprintf(name, sizeof(name), "%s/%s/%u", object, p->pack, line);
    return p->w->fn(p->w->ctx, name);
}

static bool store_walk_file(const struct walk *w, char *path)
{
    struct packed packed = { .w = w, .pack = path + strlen(w->base) };

    return w->is_of_packs ? pack_walk(path, store_on_packed, &packed)
                          : w->fn(w->ctx, store_name(path + strlen(w->base)));
}

/* True: go on. Entries that vanish meanwhile are somebody else's work. */
static bool store_walk_folder(const struct walk *w, const char *folder, int depth)
{
    DIR *dir = opendir(folder);
    struct dirent *entry;
    bool go_on = true;

    while (dir && go_on && (entry = readdir(dir))) {
        char path[PATH_MAX];
        struct stat st;
        int n;

        if (entry->d_name[0] == '.')
            continue;
        n = snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
        if (n < 0 || (size_t)n >= sizeof(path) || lstat(path, &st) != 0)
            continue;
        if (S_ISDIR(st.st_mode) && depth < DEPTH_MAX) {
            go_on = store_walk_folder(w, path, depth + 1);
            if (w->is_of_packs && st.st_mtime <= w->before)
                (void)rmdir(path); /* of an hour long gone, without packs; with any it stays */
        } else if (S_ISREG(st.st_mode) && st.st_mtime <= w->before)
            go_on = store_walk_file(w, path);
    }
    if (dir)
        (void)closedir(dir);
    return go_on;
}

enum err store_walk(struct store *s, const char *prefix, int64_t min_age_s, bool (*fn)(void *ctx, const char *object),
                    void *ctx)
{
    char base[PATH_MAX], folder[PATH_MAX];
    struct walk w = { .base = base, .before = time(NULL) - (time_t)min_age_s, .fn = fn, .ctx = ctx };
    size_t n = strlen(prefix);

    while (n && prefix[n - 1] == '/')
        n--;
    (void)snprintf(base, sizeof(base), "%s/obj/", s->dir);
    if (n > OBJECT_MAX || strspn(prefix, "abcdefghijklmnopqrstuvwxyz0123456789-/") < n)
        return ERR_ARGUMENT;
    (void)snprintf(folder, sizeof(folder), "%s/obj/%.*s", s->dir, (int)n, prefix);
    if (store_walk_folder(&w, folder, 0) && n == 3 && !strncmp(prefix, "job", n)) {
        w.is_of_packs = true;
        (void)snprintf(folder, sizeof(folder), "%s/obj/pack", s->dir);
        (void)store_walk_folder(&w, folder, 0);
    }
    return ERR_OK;
}

struct sweep {
    char folder[PATH_MAX];
    size_t count;
};

static bool store_on_old_temp(void *ctx, const char *name)
{
    struct sweep *sweep = ctx;
    char path[PATH_MAX + 64];

    (void)snprintf(path, sizeof(path), "%s%s", sweep->folder, name);
    sweep->count += unlink(path) == 0;
    return true;
}

size_t store_sweep_temp(struct store *s, int64_t min_age_s)
{
    struct sweep sweep = { .count = 0 };
    struct walk w = { .before = time(NULL) - (time_t)min_age_s, .fn = store_on_old_temp, .ctx = &sweep };
    char folder[PATH_MAX];

    (void)snprintf(sweep.folder, sizeof(sweep.folder), "%s/tmp/", s->dir);
    (void)snprintf(folder, sizeof(folder), "%s/tmp", s->dir);
    w.base = sweep.folder;
    (void)store_walk_folder(&w, folder, DEPTH_MAX);
    return sweep.count;
}
