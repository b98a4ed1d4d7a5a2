/* media.h - what is this file: kind, size, whole, blank.
 *
 * Reading the head is cheap and safe on the loop (no decode). media_check decodes with pixel and byte limits; the
 * worker runs it in a process of its own (decoder.h). Types known: png jpeg webp gif mp3 wav glb mp4. SVG and HTML are
 * no media. */
#ifndef KILN_MEDIA_H
#define KILN_MEDIA_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/base/err.h"

enum media_kind {
    MEDIA_UNKNOWN,
    MEDIA_PNG,
    MEDIA_JPEG,
    MEDIA_WEBP,
    MEDIA_GIF,
    MEDIA_MP3,
    MEDIA_WAV,
    MEDIA_GLB,
    MEDIA_MP4
};

struct media_head {
    enum media_kind kind;
    int64_t width, height; /* 0: not an image, or not in the bytes given */
    bool has_alpha;        /* png, webp: as the header says */
    int64_t bytes_per_s;   /* wav, mp3 (of its first frame: an estimate); 0: not told */
    int64_t sound_at;      /* where the sound begins in the file */
};

enum { MEDIA_BLURHASH_TEXT = 32 };
struct media_look { /* of a decoded image; both empty: it was not decoded, or has no colours that can be told */
    char blurhash[MEDIA_BLURHASH_TEXT];
    char color[8]; /* the one that most of it has: "#a0b1c2" */
};

const char *media_mime(enum media_kind kind);         /* "image/png"; unknown: application/octet-stream */
const char *media_extension(enum media_kind kind);    /* "png"; unknown: "bin" */
const char *media_group(enum media_kind kind);        /* "image" "audio" "video" "model" "file": an artifact's `kind` */
enum media_kind media_kind_of_mime(const char *mime); /* parameters ignored; MEDIA_UNKNOWN */
bool media_is_image(enum media_kind kind);
double media_seconds(const struct media_head *head, int64_t file_bytes); /* of a sound; below 0: not known */

struct media_head media_sniff(const void *data, size_t len); /* the first 64 KiB are enough (JPEG sizes lie within) */

/* Whole file on disk: signature, complete (IEND, FF D9, RIFF and GLB lengths), decodes, not one flat colour.
 * ERR_OK; ERR_BAD_RESPONSE: cut, undecodable or not media; ERR_BAD_RESULT: one flat colour. `reason` gets a text.
 * max_pixels bounds the decode: beyond it only structure is checked. */
enum err media_check(const char *path, int64_t max_pixels, struct media_head *out, char *reason, size_t reason_size);
/* look may be NULL, and then is not made. */
enum err media_check_fd(int fd, int64_t max_pixels, struct media_head *out, struct media_look *look, char *reason,
                        size_t reason_size);
#endif
