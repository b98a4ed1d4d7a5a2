/* save.c - a result is written to a temporary name in its folder and renamed when all of it is there and its SHA-256 is
 * right, so that a name never holds half a picture. */
#include "dispatcher/client/save.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>
#include "common/base/json.h"
#include "common/core/media.h"
#include "dispatcher/client/api.h"
#include "dispatcher/client/show.h"

static bool save_is_dir(const char *out)
{
    struct stat st;
    size_t len = strlen(out);

    return (len > 0 && out[len - 1] == '/') || (stat(out, &st) == 0 && S_ISDIR(st.st_mode));
}

/* The folder of a name, "." when it has none. free() it. */
static char *save_folder(const char *name)
{
    const char *slash = strrchr(name, '/');
    char *folder = slash ? strndup(name, (size_t)(slash - name) + 1) : strdup(".");
    return folder;
}

bool save_possible(const struct client *c)
{
    const char *out = c->opts[OPT_OUT];
    char *folder;
    bool ok;

    if (!out)
        return true;
    if (!*out || strcmp(out, "-") == 0) {
        show_error("-o wants the name of a file or a folder");
        return false;
    }
    folder = save_is_dir(out) ? strdup(out) : save_folder(out);
    ok = folder && access(folder, W_OK | X_OK) == 0;
    if (!ok)
        show_error("-o %s: cannot write there: %s", out, strerror(errno));
    free(folder);
    return ok;
}

char *save_name(const char *out, bool is_dir, const char *id, size_t i, size_t count, const char *extension)
{
    struct buf name = { 0 };
    const char *slash = strrchr(out, '/'), *base = slash ? slash + 1 : out, *dot = strrchr(base, '.');
    bool ok;

    if (is_dir) {
        ok = buf_printf(&name, "%s%s%s", out, *base ? "/" : "", id);
        if (ok && count > 1)
            ok = buf_printf(&name, "-%zu", i + 1);
        ok = ok && (!extension || buf_printf(&name, ".%s", extension));
    } else if (count > 1 && dot && dot != base) {
        ok = buf_printf(&name, "%.*s-%zu%s", (int)(dot - out), out, i + 1, dot);
    } else {
        ok = buf_str(&name, out) && (count == 1 || buf_printf(&name, "-%zu", i + 1));
    }
    if (!ok)
        buf_done(&name);
    return buf_take(&name);
}

/* What mkstemp made for us alone becomes what the user's umask says. */
static void save_open_up(int fd)
{
    mode_t mask = umask(0);

    (void)umask(mask);
    (void)fchmod(fd, 0666 & ~mask); /* a file system without modes */
}

static bool save_is_right(const json_t *artifact, int64_t bytes, const char *sha256)
{
    const char *want = json_text(artifact, "sha256");
    int64_t want_bytes = bytes;

    (void)json_int(artifact, "bytes", &want_bytes);
    return bytes == want_bytes && (!want || strcasecmp(want, sha256) == 0);
}

/* One artifact into file `name`. Nothing stays behind when it fails. */
static int save_one(struct client *c, const json_t *artifact, const char *name)
{
    char message[256] = "out of memory", sha256[SHA256_HEX] = "";
    struct buf temp = { 0 };
    FILE *f = NULL;
    int64_t bytes = 0;
    enum err err = ERR_NOMEM;
    int fd = -1, tries = 0;

    if (!buf_printf(&temp, "%s.part-XXXXXX", name))
        goto out;
    fd = mkstemp(temp.data);
    f = fd >= 0 ? fdopen(fd, "w+") : NULL;
    if (!f) {
        (void)snprintf(message, sizeof message, "%s", strerror(errno));
        goto out;
    }
    save_open_up(fd);
    do {
        if (fseek(f, 0, SEEK_SET) != 0 || ftruncate(fd, 0) != 0)
            break;
        err = api_download(c->api, json_text(artifact, "url"), f, &bytes, sha256, message, sizeof message);
    } while ((err == ERR_LOST || err == ERR_UNAVAILABLE) && ++tries < 3);
    if (err == ERR_OK && !save_is_right(artifact, bytes, sha256)) {
        err = ERR_BAD_RESPONSE;
        (void)snprintf(message, sizeof message, "what came is not what was stored");
    }
    if (err == ERR_OK && (fflush(f) != 0 || fsync(fd) != 0 || rename(temp.data, name) != 0)) {
        err = ERR_IO;
        (void)snprintf(message, sizeof message, "%s", strerror(errno));
    }
out:
    if (f)
        (void)fclose(f); /* flushed above, or given up */
    else if (fd >= 0)
        (void)close(fd);
    if (err != ERR_OK && fd >= 0)
        (void)unlink(temp.data);
    buf_done(&temp);
    if (err == ERR_CANCELED)
        return 128 + api_signal();
    if (err != ERR_OK)
        show_error("%s: not saved: %s", name, message);
    return err == ERR_OK ? CLIENT_DONE : CLIENT_UNREACHABLE;
}

int save_results(struct client *c, json_t *job)
{
    const json_t *list = json_object_get(job, "artifacts");
    const char *out = c->opts[OPT_OUT], *id = json_text(job, "id"), *mime;
    bool is_dir = out && save_is_dir(out);
    json_t *one, *saved;
    int status = CLIENT_DONE;
    size_t i;

    if (!out || json_array_size(list) == 0)
        return CLIENT_DONE;
    saved = json_array();
    json_array_foreach((json_t *)list, i, one)
    {
        enum media_kind kind = (mime = json_text(one, "mime")) ? media_kind_of_mime(mime) : MEDIA_UNKNOWN;
        char *name =
            id && uuid_valid(id) ? save_name(out, is_dir, id, i, json_array_size(list), media_extension(kind)) : NULL;

        status = name && json_text(one, "url") ? save_one(c, one, name) : CLIENT_UNREACHABLE;
        if (status == CLIENT_DONE) {
            (void)json_array_append_new(saved, json_string(name));
            if (!c->is_json) {
                printf("saved ");
                show_text(stdout, name);
                printf(" (");
                show_artifact(stdout, one);
                printf(")\n");
            }
        }
        free(name);
        if (status != CLIENT_DONE)
            break;
    }
    (void)json_object_set_new(job, "saved", saved);
    if (status != CLIENT_DONE && id)
        show_note("  the results are kept: kiln get %s -o %s", id, out);
    return status;
}
