/* pack.c - many small results in one file (pack.h). */
#define _GNU_SOURCE /* fallocate */
#include "common/core/pack.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>
#include "common/base/failpoint.h"
#include "common/base/text.h"

enum { NAME_MAX_BYTES = 100, IOV_AT_ONCE = 256 };

static const char title[] = "kiln pack 1 of ";

struct line {
    bool is_there;
    char object[NAME_MAX_BYTES + 1];
    int64_t at, bytes;
};

static enum err pack_errno(void)
{
    return errno == ENOSPC || errno == EDQUOT ? ERR_STORAGE_ERROR : errno == ENOENT ? ERR_NOT_FOUND : ERR_IO;
}

bool pack_takes(const char *object)
{
    return strlen(object) <= NAME_MAX_BYTES;
}

/* --- lines */

/* `text` has PACK_LINE bytes and a NUL's room. */
static void line_pad(char *text, int len)
{
    memset(text + len, ' ', (size_t)(PACK_LINE - 1 - len));
    text[PACK_LINE - 1] = '\n';
}

static bool line_parse(const char text[PACK_LINE], struct line *out)
{
    char line[PACK_LINE], *object, *at, *bytes, *rest = line;

    memcpy(line, text, PACK_LINE);
    if (line[PACK_LINE - 1] != '\n' || (line[0] != '+' && line[0] != '-') || line[1] != ' ')
        return false;
    line[PACK_LINE - 1] = '\0';
    out->is_there = line[0] == '+';
    (void)strtok_r(rest, " ", &rest);
    object = strtok_r(NULL, " ", &rest);
    at = strtok_r(NULL, " ", &rest);
    bytes = strtok_r(NULL, " ", &rest);
    if (!object || !at || !bytes || !store_object_valid(object) || !pack_takes(object))
        return false;
    (void)snprintf(out->object, sizeof(out->object), "%s", object);
    return parse_i64(at, PACK_LINE, INT64_MAX / 2, &out->at) == ERR_OK &&
           parse_i64(bytes, 0, INT64_MAX / 2, &out->bytes) == ERR_OK;
}

static enum err line_read(int fd, unsigned number, struct line *out)
{
    char text[PACK_LINE];
    ssize_t n = pread(fd, text, sizeof(text), (off_t)number * PACK_LINE);

    if (n < 0)
        return pack_errno();
    return n == PACK_LINE && line_parse(text, out) ? ERR_OK : ERR_NOT_FOUND;
}

static unsigned pack_count(int fd) /* 0: no pack */
{
    char text[PACK_LINE + 1];
    int64_t count;

    if (pread(fd, text, PACK_LINE, 0) != PACK_LINE || memcmp(text, title, sizeof(title) - 1) != 0)
        return 0;
    text[sizeof(title) - 1 + strspn(text + sizeof(title) - 1, "0123456789")] = '\0';
    return parse_i64(text + sizeof(title) - 1, 1, PACK_MAX, &count) == ERR_OK ? (unsigned)count : 0;
}

/* --- writing */

static char *pack_lines(const struct store_piece *pieces, size_t count)
{
    char *text = malloc((count + 1) * PACK_LINE), *line = text;
    size_t at = (count + 1) * PACK_LINE;

    if (!text)
        return NULL;
    line_pad(line, snprintf(line, PACK_LINE, "%s%05zu objects", title, count));
    for (size_t i = 0; i < count; i++) {
        line += PACK_LINE;
        line_pad(line,
                 snprintf(line, PACK_LINE, "+ %.*s %010zu %08zu", NAME_MAX_BYTES, pieces[i].object, at, pieces[i].len));
        at += pieces[i].len;
    }
    return text;
}

static enum err write_all(int fd, struct iovec *iov, size_t count)
{
    while (count) {
        ssize_t n = writev(fd, iov, (int)(count < IOV_AT_ONCE ? count : IOV_AT_ONCE));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return pack_errno();
        for (; count && (size_t)n >= iov->iov_len; iov++, count--)
            n -= (ssize_t)iov->iov_len;
        if (count) {
            iov->iov_base = (char *)iov->iov_base + n;
            iov->iov_len -= (size_t)n;
        }
    }
    return ERR_OK;
}

enum err pack_write(const char *path, const struct store_piece *pieces, size_t count)
{
    struct iovec *iov = count && count <= PACK_MAX ? malloc((count + 1) * sizeof(*iov)) : NULL;
    char *lines = iov ? pack_lines(pieces, count) : NULL;
    int fd = lines ? open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600) : -1;
    enum err err = fd >= 0 ? ERR_OK : lines ? pack_errno() : iov ? ERR_NOMEM : ERR_ARGUMENT;

    if (err == ERR_OK) {
        iov[0] = (struct iovec){ .iov_base = lines, .iov_len = (count + 1) * PACK_LINE };
        for (size_t i = 0; i < count; i++)
            iov[i + 1] = (struct iovec){ .iov_base = (void *)(uintptr_t)pieces[i].data, .iov_len = pieces[i].len };
        err = write_all(fd, iov, count + 1);
    }
    if (err == ERR_OK && FAILPOINT("store.sync"))
        err = ERR_IO;
    if (err == ERR_OK && fsync(fd) != 0)
        err = pack_errno();
    if (fd >= 0 && close(fd) != 0 && err == ERR_OK)
        err = pack_errno();
    if (fd >= 0 && err != ERR_OK)
        (void)unlink(path);
    free(lines);
    free(iov);
    return err;
}

/* --- reading and removing */

static enum err pack_line_of(int fd, const char *object, unsigned number, struct line *line)
{
    enum err err = number && number <= pack_count(fd) ? line_read(fd, number, line) : ERR_NOT_FOUND;

    return err == ERR_OK && strcmp(line->object, object) != 0 ? ERR_NOT_FOUND : err;
}

enum err pack_find(const char *path, const char *object, unsigned number, int64_t *at, int64_t *bytes)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    struct line line;
    struct stat st;
    enum err err;

    if (fd < 0)
        return pack_errno();
    err = pack_line_of(fd, object, number, &line);
    if (err == ERR_OK && (!line.is_there || fstat(fd, &st) != 0 || line.at + line.bytes > st.st_size))
        err = ERR_NOT_FOUND;
    (void)close(fd); /* only read */
    if (err == ERR_OK) {
        *at = line.at;
        *bytes = line.bytes;
    }
    return err;
}

static enum err write_zeros(int fd, int64_t at, int64_t bytes)
{
    static const char zeros[4096];

    if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, bytes) == 0)
        return ERR_OK;
    while (bytes > 0) { /* not every file system has holes */
        ssize_t n = pwrite(fd, zeros, bytes < (int64_t)sizeof(zeros) ? (size_t)bytes : sizeof(zeros), at);

        if (n <= 0)
            return n < 0 ? pack_errno() : ERR_IO;
        at += n;
        bytes -= n;
    }
    return ERR_OK;
}

static bool pack_is_empty(int fd)
{
    unsigned count = pack_count(fd);
    struct line line;

    for (unsigned i = 1; i <= count; i++)
        if (line_read(fd, i, &line) != ERR_OK || line.is_there)
            return false;
    return count > 0;
}

enum err pack_remove(const char *path, const char *object, unsigned number)
{
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    struct line line;
    enum err err;

    if (fd < 0)
        return errno == ENOENT ? ERR_OK : pack_errno();
    err = pack_line_of(fd, object, number, &line);
    if (err == ERR_OK && line.is_there) { /* the bytes first: who dies in between is asked again */
        err = line.bytes > 0 ? write_zeros(fd, line.at, line.bytes) : ERR_OK;
        if (err == ERR_OK && pwrite(fd, "-", 1, (off_t)number * PACK_LINE) != 1)
            err = pack_errno();
    }
    if (err == ERR_OK && pack_is_empty(fd) && unlink(path) != 0 && errno != ENOENT)
        err = pack_errno();
    if (close(fd) != 0 && err == ERR_OK)
        err = pack_errno();
    return err == ERR_NOT_FOUND ? ERR_OK : err;
}

bool pack_walk(const char *path, bool (*fn)(void *ctx, const char *object, unsigned line), void *ctx)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    unsigned count = fd >= 0 ? pack_count(fd) : 0;
    struct line line;
    bool go_on = true;

    if (count && pack_is_empty(fd))
        (void)unlink(path);
    for (unsigned i = 1; i <= count && go_on; i++)
        if (line_read(fd, i, &line) == ERR_OK && line.is_there)
            go_on = fn(ctx, line.object, i);
    if (fd >= 0)
        (void)close(fd); /* only read */
    return go_on;
}
