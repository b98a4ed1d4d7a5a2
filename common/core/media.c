/* media.c - names a file by its first bytes, reads its size from the head, and has whole files checked.
 *
 * The head is read by hand: a few comparisons on bytes that are there, no library, so that it may run on the loop on
 * anything a stranger sends. Structure of the containers lies in media_stream.c, decoding in media_image.c. */
#include "common/core/media.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/text.h"
#include "common/core/media_parts.h"

static const struct {
    const char *mime, *extension, *group;
} kinds[] = {
    [MEDIA_UNKNOWN] = { "application/octet-stream", "bin", "file" },
    [MEDIA_PNG] = { "image/png", "png", "image" },
    [MEDIA_JPEG] = { "image/jpeg", "jpg", "image" },
    [MEDIA_WEBP] = { "image/webp", "webp", "image" },
    [MEDIA_GIF] = { "image/gif", "gif", "image" },
    [MEDIA_MP3] = { "audio/mpeg", "mp3", "audio" },
    [MEDIA_WAV] = { "audio/wav", "wav", "audio" },
    [MEDIA_GLB] = { "model/gltf-binary", "glb", "model" },
    [MEDIA_MP4] = { "video/mp4", "mp4", "video" },
};

static size_t row_of(enum media_kind kind)
{
    return (size_t)kind < ARRAY_LEN(kinds) ? (size_t)kind : 0;
}

const char *media_mime(enum media_kind kind)
{
    return kinds[row_of(kind)].mime;
}

const char *media_extension(enum media_kind kind)
{
    return kinds[row_of(kind)].extension;
}

const char *media_group(enum media_kind kind)
{
    return kinds[row_of(kind)].group;
}

bool media_is_image(enum media_kind kind)
{
    return kind >= MEDIA_PNG && kind <= MEDIA_GIF;
}

enum media_kind media_kind_of_mime(const char *mime)
{
    static const struct {
        const char *mime;
        enum media_kind kind;
    } also[] = {
        { "image/jpg", MEDIA_JPEG }, { "audio/mp3", MEDIA_MP3 },      { "audio/x-wav", MEDIA_WAV },
        { "audio/wave", MEDIA_WAV }, { "audio/vnd.wave", MEDIA_WAV },
    };
    size_t len;

    if (mime == NULL)
        return MEDIA_UNKNOWN;
    mime += strspn(mime, " \t");
    len = strcspn(mime, "; \t");
    for (size_t i = 1; i < ARRAY_LEN(kinds); i++) {
        if (strlen(kinds[i].mime) == len && strncasecmp(kinds[i].mime, mime, len) == 0)
            return (enum media_kind)i;
    }
    for (size_t i = 0; i < ARRAY_LEN(also); i++) {
        if (strlen(also[i].mime) == len && strncasecmp(also[i].mime, mime, len) == 0)
            return also[i].kind;
    }
    return MEDIA_UNKNOWN;
}

/* ---- heads */

static void png_head(struct media_bytes b, struct media_head *out)
{
    if (b.len < 26 || memcmp(b.at + 12, "IHDR", 4) != 0)
        return;
    out->width = media_be32(b.at + 16);
    out->height = media_be32(b.at + 20);
    out->has_alpha = (b.at[25] & 4) != 0;
}

/* Walks the segments up to the frame header; each step goes on by at least two bytes, so the walk ends. */
static void jpeg_head(struct media_bytes b, struct media_head *out)
{
    size_t at = 2;

    while (at + 4 <= b.len && b.at[at] == 0xff) {
        unsigned marker = b.at[at + 1];
        size_t size;

        if (marker == 0xff) { /* fill byte */
            at++;
            continue;
        }
        if (marker == 0x01 || (marker >= 0xd0 && marker <= 0xd8)) {
            at += 2;
            continue;
        }
        if (marker == 0xd9 || marker == 0xda)
            return; /* pixels before a frame header: not one that we know */
        size = media_be16(b.at + at + 2);
        if (marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc) {
            if (size < 8 || at + 9 > b.len)
                return;
            out->height = media_be16(b.at + at + 5);
            out->width = media_be16(b.at + at + 7);
            return;
        }
        if (size < 2)
            return;
        at += 2 + size;
    }
}

static void webp_head(struct media_bytes b, struct media_head *out)
{
    const unsigned char *p = b.at;

    if (b.len < 30)
        return;
    if (memcmp(p + 12, "VP8 ", 4) == 0 && p[23] == 0x9d && p[24] == 0x01 && p[25] == 0x2a) {
        out->width = (p[26] | p[27] << 8) & 0x3fff;
        out->height = (p[28] | p[29] << 8) & 0x3fff;
    } else if (memcmp(p + 12, "VP8L", 4) == 0 && p[20] == 0x2f) {
        uint32_t bits = media_le32(p + 21);

        out->width = (int64_t)(bits & 0x3fff) + 1;
        out->height = (int64_t)(bits >> 14 & 0x3fff) + 1;
        out->has_alpha = (bits >> 28 & 1) != 0;
    } else if (memcmp(p + 12, "VP8X", 4) == 0) {
        out->width = (int64_t)(p[24] | p[25] << 8 | p[26] << 16) + 1;
        out->height = (int64_t)(p[27] | p[28] << 8 | p[29] << 16) + 1;
        out->has_alpha = (p[20] & 0x10) != 0;
    }
}

/* The byte rate of "fmt " and where "data" begins, as far as both lie in the bytes given. */
static void wav_head(struct media_bytes b, struct media_head *out)
{
    for (size_t at = 12; b.len - at >= 8;) {
        uint32_t size = media_le32(b.at + at + 4);

        if (memcmp(b.at + at, "fmt ", 4) == 0 && b.len - at >= 20)
            out->bytes_per_s = media_le32(b.at + at + 16);
        if (memcmp(b.at + at, "data", 4) == 0) {
            out->sound_at = (int64_t)at + 8;
            return;
        }
        if (size >= b.len - at - 8)
            return;
        at += 8 + (size_t)size + (size & 1);
    }
}

static void mp3_head(struct media_bytes b, struct media_head *out)
{
    size_t at = media_mp3_sound(b);

    if (at >= b.len)
        return;
    out->sound_at = (int64_t)at;
    out->bytes_per_s = media_mp3_bytes_per_s(b.at + at, b.len - at);
}

double media_seconds(const struct media_head *head, int64_t file_bytes)
{
    if (head->bytes_per_s <= 0 || file_bytes <= head->sound_at)
        return -1;
    return (double)(file_bytes - head->sound_at) / (double)head->bytes_per_s;
}

static enum media_kind kind_of(struct media_bytes b)
{
    const unsigned char *p = b.at;

    if (b.len >= 8 && memcmp(p, "\x89PNG\r\n\x1a\n", 8) == 0)
        return MEDIA_PNG;
    if (b.len >= 3 && memcmp(p, "\xff\xd8\xff", 3) == 0)
        return MEDIA_JPEG;
    if (b.len >= 12 && memcmp(p, "RIFF", 4) == 0 && memcmp(p + 8, "WEBP", 4) == 0)
        return MEDIA_WEBP;
    if (b.len >= 12 && memcmp(p, "RIFF", 4) == 0 && memcmp(p + 8, "WAVE", 4) == 0)
        return MEDIA_WAV;
    if (b.len >= 6 && (memcmp(p, "GIF87a", 6) == 0 || memcmp(p, "GIF89a", 6) == 0))
        return MEDIA_GIF;
    if (b.len >= 12 && memcmp(p, "glTF", 4) == 0)
        return MEDIA_GLB;
    if (b.len >= 12 && memcmp(p + 4, "ftyp", 4) == 0)
        return MEDIA_MP4;
    if ((b.len >= 10 && memcmp(p, "ID3", 3) == 0) || media_mp3_frame(p, b.len) > 0)
        return MEDIA_MP3;
    return MEDIA_UNKNOWN;
}

struct media_head media_sniff(const void *data, size_t len)
{
    struct media_bytes b = { data, data != NULL ? len : 0 };
    struct media_head out = { .kind = kind_of(b) };

    if (out.kind == MEDIA_PNG) {
        png_head(b, &out);
    } else if (out.kind == MEDIA_JPEG) {
        jpeg_head(b, &out);
    } else if (out.kind == MEDIA_WEBP) {
        webp_head(b, &out);
    } else if (out.kind == MEDIA_WAV) {
        wav_head(b, &out);
    } else if (out.kind == MEDIA_MP3) {
        mp3_head(b, &out);
    } else if (out.kind == MEDIA_GIF && b.len >= 10) {
        out.width = b.at[6] | b.at[7] << 8;
        out.height = b.at[8] | b.at[9] << 8;
    }
    return out;
}

/* ---- whole files */

static const char *structure_fault(struct media_bytes b, enum media_kind kind, bool *is_animated)
{
    switch (kind) {
    case MEDIA_PNG:
        return media_png_fault(b);
    case MEDIA_JPEG:
        return media_jpeg_fault(b);
    case MEDIA_WEBP:
        return media_webp_fault(b, is_animated);
    case MEDIA_GIF:
        return media_gif_fault(b);
    case MEDIA_MP3:
        return media_mp3_fault(b);
    case MEDIA_WAV:
        return media_wav_fault(b);
    case MEDIA_GLB:
        return media_glb_fault(b);
    case MEDIA_MP4:
        return media_mp4_fault(b);
    case MEDIA_UNKNOWN:
        break;
    }
    if (b.len > 0 && b.at[0] == '<')
        return "a web page, not media";
    if (b.len > 0 && b.at[0] == '{')
        return "JSON, not media";
    return "not a format that kiln knows";
}

static enum err check_bytes(struct media_bytes b, int64_t max_pixels, struct media_head *head, struct media_look *look,
                            const char **reason)
{
    bool is_animated = false;

    *head = media_sniff(b.at, b.len);
    *reason = structure_fault(b, head->kind, &is_animated);
    if (*reason != NULL)
        return ERR_BAD_RESPONSE;
    if (!media_is_image(head->kind))
        return ERR_OK;
    if (head->width <= 0 || head->height <= 0) {
        *reason = "an image without a size";
        return ERR_BAD_RESPONSE;
    }
    if (head->width > max_pixels / head->height)
        return ERR_OK; /* too large to decode here; what can be seen without is in order */
    if (head->kind == MEDIA_PNG)
        return media_decode_png(b, head, look, reason);
    if (head->kind == MEDIA_JPEG)
        return media_decode_jpeg(b, head, look, reason);
    if (head->kind == MEDIA_WEBP && !is_animated)
        return media_decode_webp(b, head, look, reason);
    return ERR_OK; /* GIF and animations: the walk over their blocks has to do */
}

enum err media_check_fd(int fd, int64_t max_pixels, struct media_head *out, struct media_look *look, char *reason,
                        size_t reason_size)
{
    struct media_head head = { .kind = MEDIA_UNKNOWN };
    const char *why = NULL;
    void *map = MAP_FAILED;
    struct stat st;
    enum err e = ERR_STORAGE_ERROR;

    if (fd < 0 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        why = "the file cannot be opened";
        goto out;
    }
    if (st.st_size == 0) {
        e = ERR_BAD_RESPONSE;
        why = "empty";
        goto out;
    }
    map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0); /* our own file: nobody cuts it under us */
    if (map == MAP_FAILED) {
        why = "the file cannot be read";
        goto out;
    }
    e = check_bytes((struct media_bytes){ map, (size_t)st.st_size }, max_pixels, &head, look, &why);
out:
    if (map != MAP_FAILED)
        (void)munmap(map, (size_t)st.st_size); /* what was mapped can be unmapped */
    if (out != NULL && (e == ERR_OK || e == ERR_BAD_RESULT))
        *out = head;
    if (reason_size > 0)
        (void)snprintf(reason, reason_size, "%s", why != NULL ? why : "");
    return e;
}

enum err media_check(const char *path, int64_t max_pixels, struct media_head *out, char *reason, size_t reason_size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    enum err e = media_check_fd(fd, max_pixels, out, NULL, reason, reason_size);

    if (fd >= 0)
        (void)close(fd); /* read only */
    return e;
}
