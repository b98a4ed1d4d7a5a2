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

enum { NAME_MAX_BYTES = 90, IOV_AT_ONCE = 256 };

static const char title[] = "kiln pack 1 of ";

struct line {
    bool is_there;
    char object[NAME_MAX_BYTES + 1];
    int64_t at, bytes;
};

bool pack_takes(const char *object)
{
    return strlen(object) <= NAME_MAX_BYTES;
}

/* --- lines */

static void line_pad(char text[PACK_LINE], int len)
{
    memset(text + len, ' ', (size_t)(PACK_LINE - 1 - len));
    text[PACK_LINE - 1] = '\n';
}

static bool line_parse(const char text[PACK_LINE], struct line *out)
{
    char line[PACK_LINE], *object, *at, *bytes, *rest;

    memcpy(line, text, PACK_LINE);
    if (line[PACK_LINE - 1] != '\n' || (line[0] != '+' && line[0] != '-') || line[1] != ' ')
        return false;
    line[PACK_LINE - 1] = '\0';
    out->is_there = line[0] == '+';
    object = strtok_r(line + 1, " ", &rest);
    at = strtok_r(NULL, " ", &rest);
    bytes = strtok_r(NULL, " ", &rest);
    if (!object || !at || !bytes || !store_object_valid(object) || !pack_takes(object))
        return false;
    (void)snprintf(out->object, sizeof(out->object), "%s", object);
    return parse_i64(at, PACK_LINE, INT64_MAX / 2, &out->at) == ERR_OK &&
           parse_i64(bytes, 0, INT64_MAX / 2, &out->bytes) == ERR_OK;
}

/* Bytes read, fewer only at the file's end; -1: errno. */
static ssize_t read_at(int fd, char *to, size_t len, off_t at)
{
    size_t got = 0;

    while (got < len) {
        ssize_t n = pread(fd, to + got, len - got, at + (off_t)got);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        got += (size_t)n;
    }
    return (ssize_t)got;
}

static enum err pack_count(int fd, unsigned *count)
{
    char text[PACK_LINE + 1] = "", *number = text + sizeof(title) - 1;
    ssize_t n = read_at(fd, text, PACK_LINE, 0);
    int64_t value;

    if (n < 0)
        return store_errno();
    if (n != PACK_LINE || memcmp(text, title, sizeof(title) - 1) != 0)
        return ERR_NOT_FOUND;
    number[strspn(number, "0123456789")] = '\0';
    if (parse_i64(number, 1, PACK_MAX, &value) != ERR_OK)
        return ERR_NOT_FOUND;
    *count = (unsigned)value;
    return ERR_OK;
}

/* The pack's lines after its first, `count` of them; NULL and *err: it is none, or cannot be read. free() it. */
static char *pack_read(int fd, unsigned *count, enum err *err)
{
    char *lines = NULL;
    size_t len;
    ssize_t n;

    *err = pack_count(fd, count);
    if (*err != ERR_OK)
        return NULL;
    len = (size_t)*count * PACK_LINE;
    lines = malloc(len);
    n = lines ? read_at(fd, lines, len, PACK_LINE) : 0;
    *err = !lines ? ERR_NOMEM : n < 0 ? store_errno() : (size_t)n != len ? ERR_NOT_FOUND : ERR_OK;
    if (*err != ERR_OK) {
        free(lines);
        return NULL;
    }
    return lines;
}

static enum err pack_line_of(int fd, const char *object, unsigned number, struct line *line)
{
    char text[PACK_LINE];
    unsigned count = 0;
    enum err err = pack_count(fd, &count);
    struct stat st;
    ssize_t n;

    if (err != ERR_OK || !number || number > count)
        return err != ERR_OK ? err : ERR_NOT_FOUND;
    n = read_at(fd, text, sizeof(text), (off_t)number * PACK_LINE);
    if (n < 0)
        return store_errno();
    if (n != PACK_LINE || !line_parse(text, line) || strcmp(line->object, object) != 0)
        return ERR_NOT_FOUND;
    if (fstat(fd, &st) != 0)
        return store_errno();
    return line->at >= ((int64_t)count + 1) * PACK_LINE && line->at + line->bytes <= st.st_size ? ERR_OK
                                                                                                : ERR_NOT_FOUND;
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
            return store_errno();
        for (; count && (size_t)n >= iov->iov_len; iov++, count--)
            n -= (ssize_t)iov->iov_len;
        if (count) {
            iov->iov_base = (char *)iov->iov_base + n;
            iov->iov_len -= (size_t)n;
        }
    }
    return ERR_OK;
}

static enum err write_pieces(int fd, const struct store_piece *pieces, size_t count)
{
    struct iovec *iov = malloc((count + 1) * sizeof(*iov));
    char *lines = pack_lines(pieces, count);
    enum err err = iov && lines ? ERR_OK : ERR_NOMEM;

    if (err == ERR_OK) {
        iov[0] = (struct iovec){ .iov_base = lines, .iov_len = (count + 1) * PACK_LINE };
        for (size_t i = 0; i < count; i++)
            iov[i + 1] = (struct iovec){ .iov_base = (void *)(uintptr_t)pieces[i].data, .iov_len = pieces[i].len };
        err = write_all(fd, iov, count + 1);
    }
    free(lines);
    free(iov);
    return err;
}

enum err pack_write(const char *path, const struct store_piece *pieces, size_t count)
{
    enum err err;
    int fd;

    if (!count || count > PACK_MAX)
        return ERR_ARGUMENT;
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return store_errno();
    err = write_pieces(fd, pieces, count);
    if (err == ERR_OK && (FAILPOINT("pack.sync") || fsync(fd) != 0))
        err = ERR_LOST;
    if (close(fd) != 0 && err == ERR_OK)
        err = store_errno();
    if (err != ERR_OK)
        (void)unlink(path);
    return err;
}

/* --- reading and removing */

enum err pack_find(const char *path, const char *object, unsigned number, struct store_at *out)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    struct line line;
    enum err err;

    if (fd < 0)
        return store_errno();
    err = pack_line_of(fd, object, number, &line);
    if (err == ERR_OK && !line.is_there)
        err = ERR_NOT_FOUND;
    if (err != ERR_OK) {
        (void)close(fd); /* only read */
        return err;
    }
    out->fd = fd;
    out->at = line.at;
    out->bytes = line.bytes;
    return ERR_OK;
}

static enum err write_zeros(int fd, int64_t at, int64_t bytes)
{
    static const char zeros[4096];

    if (bytes == 0 || fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, bytes) == 0)
        return ERR_OK;
    while (bytes > 0) { /* not every file system has holes */
        ssize_t n = pwrite(fd, zeros, bytes < (int64_t)sizeof(zeros) ? (size_t)bytes : sizeof(zeros), at);

        if (n <= 0)
            return n < 0 ? store_errno() : ERR_IO;
        at += n;
        bytes -= n;
    }
    return ERR_OK;
}

static bool is_empty(const char *lines, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (lines[(size_t)i * PACK_LINE] != '-')
            return false;
    return true;
}

/* The bytes first, durably: who dies in between, or loses power, is asked again. The file keeps its time, by which the
 * age of the others is judged. */
static enum err remove_line(int fd, const struct line *line, unsigned number)
{
    struct timespec times[2] = { { .tv_nsec = UTIME_OMIT } };
    struct stat st;
    enum err err = fstat(fd, &st) == 0 ? write_zeros(fd, line->at, line->bytes) : store_errno();

    if (err != ERR_OK)
        return err;
    if (fdatasync(fd) != 0 || pwrite(fd, "-", 1, (off_t)number * PACK_LINE) != 1)
        return store_errno();
    times[1] = st.st_mtim;
    (void)futimens(fd, times);
    return ERR_OK;
}

/* With its last object the file goes. */
static enum err remove_empty(int fd, const char *path)
{
    unsigned count = 0;
    enum err err;
    char *lines = pack_read(fd, &count, &err);

    if (lines && is_empty(lines, count) && unlink(path) != 0 && errno != ENOENT)
        err = store_errno();
    free(lines);
    return err;
}

enum err pack_remove(const char *path, const char *object, unsigned number)
{
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    struct line line;
    enum err err;

    if (fd < 0)
        return errno == ENOENT ? ERR_OK : store_errno();
    err = pack_line_of(fd, object, number, &line);
    if (err == ERR_OK && line.is_there)
        err = remove_line(fd, &line, number);
    if (err == ERR_OK)
        err = remove_empty(fd, path);
    if (close(fd) != 0 && err == ERR_OK)
        err = store_errno();
    return err == ERR_NOT_FOUND ? ERR_OK : err;
}

bool pack_walk(const char *path, bool (*fn)(void *ctx, const char *object, unsigned line), void *ctx)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    enum err err;
    unsigned count = 0;
    char *lines = fd >= 0 ? pack_read(fd, &count, &err) : NULL;
    struct line line;
    bool go_on = true;

    if (lines && is_empty(lines, count))
        (void)unlink(path);
    for (unsigned i = 0; lines && i < count && go_on; i++)
        if (line_parse(lines + (size_t)i * PACK_LINE, &line) && line.is_there)
            go_on = fn(ctx, line.object, i + 1);
    free(lines);
    if (fd >= 0)
        (void)close(fd); /* only read */
    return go_on;
}
