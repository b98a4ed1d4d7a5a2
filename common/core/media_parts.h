/* media_parts.h - what media.c and its checkers share; nobody else includes it.
 *
 * A checker gets the whole file in memory and says whether it is whole; the text of a fault is a constant. Reading
 * beyond `len` is the one thing it must never do, whatever the bytes claim. */
#ifndef KILN_MEDIA_PARTS_H
#define KILN_MEDIA_PARTS_H
#include "common/core/media.h"

struct media_bytes {
    const unsigned char *at;
    size_t len;
};

/* NULL: whole. Structure alone, no decode. */
const char *media_png_fault(struct media_bytes b);
const char *media_jpeg_fault(struct media_bytes b);
const char *media_webp_fault(struct media_bytes b, bool *is_animated);
const char *media_gif_fault(struct media_bytes b);
const char *media_wav_fault(struct media_bytes b);
const char *media_mp3_fault(struct media_bytes b);
const char *media_glb_fault(struct media_bytes b);
const char *media_mp4_fault(struct media_bytes b);
size_t media_mp3_sound(struct media_bytes b); /* after tags and padding in front; len: no sound in these bytes */
int64_t media_mp3_bytes_per_s(const unsigned char *p, size_t len); /* of the frame that begins here; 0: none does */
size_t media_mp3_frame(const unsigned char *p, size_t len); /* bytes of the frame that begins here; 0: none does */

/* Decodes all of it. ERR_OK, ERR_BAD_RESPONSE or ERR_BAD_RESULT (one flat colour); `reason` is set when not OK. */
enum err media_decode_png(struct media_bytes b, const struct media_head *head, struct media_look *look,
                          const char **reason);
enum err media_decode_jpeg(struct media_bytes b, const struct media_head *head, struct media_look *look,
                           const char **reason);
enum err media_decode_webp(struct media_bytes b, const struct media_head *head, struct media_look *look,
                           const char **reason);

/* media_thumb.c. NULL everywhere: nothing is looked at. */
struct media_thumb;
struct media_thumb *media_thumb_new(int64_t width, int64_t height);
void media_thumb_line(struct media_thumb *t, int64_t y, int64_t first_x, int64_t step, const unsigned char *rgba,
                      size_t pixels);                                /* pixels at first_x, first_x + step, … */
void media_thumb_end(struct media_thumb *t, struct media_look *out); /* frees it */

static inline uint32_t media_le32(const unsigned char *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
static inline uint32_t media_be32(const unsigned char *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | (uint32_t)p[3];
}
static inline uint32_t media_be16(const unsigned char *p)
{
    return (uint32_t)p[0] << 8 | (uint32_t)p[1];
}

#endif
