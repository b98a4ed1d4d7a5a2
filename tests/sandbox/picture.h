/* picture.h - the sandbox's pictures: what to draw, and drawing it. Pure and slow: call it on the thread pool.
 *
 * The same spec gives the same bytes; another prompt or seed gives another picture. */
#ifndef SANDBOX_PICTURE_H
#define SANDBOX_PICTURE_H
#include "text.h"

enum picture_format { PICTURE_PNG, PICTURE_JPEG, PICTURE_WEBP };
enum picture_kind { PICTURE_DRAWN, PICTURE_UPSCALED };

/* RGB or RGBA, 8 bit, rows without gaps. */
struct pixels {
    int width, height, channels;
    unsigned char *data;
};

struct picture_spec {
    enum picture_kind kind;
    char *prompt; /* owned by whoever owns the spec */
    uint64_t seed;
    int width, height; /* of the result, for upscales too */
    enum picture_format format;
    int quality; /* jpeg, webp: 1..100 */
    bool transparent;
    int64_t flaws;      /* bits 1 << FW_x: blank, wrong_size, wrong_format, filtered, cut_image */
    struct blob *input; /* upscales: the file that was sent; owned like prompt */
};

void picture_spec_done(struct picture_spec *s);
struct blob *picture_make(const struct picture_spec *s); /* the encoded file; NULL: the input cannot be decoded */
const char *picture_mime(enum picture_format f);
const char *picture_extension(enum picture_format f);

/* scene.c */
void scene_draw(struct pixels *out, const char *prompt, uint64_t seed); /* width, height set; data allocated here */

/* codec.c */
struct picture_info {
    enum picture_format format;
    int width, height;
    bool has_alpha;
};
bool codec_info(const unsigned char *data, size_t len, struct picture_info *out); /* header only */
bool codec_decode(const unsigned char *data, size_t len, struct pixels *out);     /* to RGB; checks the whole file */
struct blob *codec_encode(const struct pixels *px, enum picture_format format, int quality);
void codec_resize(const struct pixels *from, struct pixels *to); /* bicubic; to->width and height set, data allocated */
#endif
