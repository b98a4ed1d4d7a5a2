/* codec.c - PNG, JPEG and WebP in and out, and bicubic resizing (see picture.h). */
#include "picture.h"

#include <math.h>
#include <spng.h>
#include <stdlib.h>
#include <string.h>
#include <turbojpeg.h>
#include <webp/decode.h>
#include <webp/encode.h>

#define SIDE_MAX   16384
#define PIXELS_MAX 67108864

static bool codec_info_png(const unsigned char *data, size_t len, struct picture_info *out)
{
    struct spng_ihdr ihdr;
    spng_ctx *ctx = spng_ctx_new(0);
    bool fine = ctx != NULL && spng_set_png_buffer(ctx, data, len) == 0 && spng_get_ihdr(ctx, &ihdr) == 0;
    spng_ctx_free(ctx);
    if (fine)
        *out = (struct picture_info){ .format = PICTURE_PNG,
                                      .width = (int)ihdr.width,
                                      .height = (int)ihdr.height,
                                      .has_alpha = (ihdr.color_type & 4) != 0 };
    return fine;
}

static bool codec_info_jpeg(const unsigned char *data, size_t len, struct picture_info *out)
{
    int w, h, sub, space;
    tjhandle tj = tjInitDecompress();
    bool fine = tj != NULL && tjDecompressHeader3(tj, data, (unsigned long)len, &w, &h, &sub, &space) == 0;
    if (tj != NULL)
        (void)tjDestroy(tj); /* nothing to do about it */
    if (fine)
        *out = (struct picture_info){ .format = PICTURE_JPEG, .width = w, .height = h };
    return fine;
}

bool codec_info(const unsigned char *data, size_t len, struct picture_info *out)
{
    WebPBitstreamFeatures f;
    bool fine = false;
    if (len >= 8 && memcmp(data, "\x89PNG\r\n\x1a\n", 8) == 0) {
        fine = codec_info_png(data, len, out);
    } else if (len >= 3 && memcmp(data, "\xFF\xD8\xFF", 3) == 0) {
        fine = codec_info_jpeg(data, len, out);
    } else if (len >= 12 && memcmp(data, "RIFF", 4) == 0 && memcmp(data + 8, "WEBP", 4) == 0 &&
               WebPGetFeatures(data, len, &f) == VP8_STATUS_OK) {
        *out = (struct picture_info){
            .format = PICTURE_WEBP, .width = f.width, .height = f.height, .has_alpha = f.has_alpha != 0
        };
        fine = true;
    }
    return fine && out->width > 0 && out->height > 0;
}

static bool codec_decode_png(const unsigned char *data, size_t len, struct pixels *out)
{
    spng_ctx *ctx = spng_ctx_new(0);
    bool fine =
        ctx != NULL && spng_set_image_limits(ctx, SIDE_MAX, SIDE_MAX) == 0 && spng_set_png_buffer(ctx, data, len) == 0;
    size_t want = (size_t)out->width * (size_t)out->height * 3;
    size_t size = 0;
    fine = fine && spng_decoded_image_size(ctx, SPNG_FMT_RGB8, &size) == 0 && size == want &&
           spng_decode_image(ctx, out->data, want, SPNG_FMT_RGB8, 0) == 0;
    spng_ctx_free(ctx);
    return fine;
}

static bool codec_decode_jpeg(const unsigned char *data, size_t len, struct pixels *out)
{
    tjhandle tj = tjInitDecompress();
    bool fine = tj != NULL && tjDecompress2(tj, data, (unsigned long)len, out->data, out->width, 0, out->height,
                                            TJPF_RGB, TJFLAG_STOPONWARNING) == 0;
    if (tj != NULL)
        (void)tjDestroy(tj); /* nothing to do about it */
    return fine;
}

bool codec_decode(const unsigned char *data, size_t len, struct pixels *out)
{
    struct picture_info info;
    bool fine = false;
    if (!codec_info(data, len, &info) || info.width > SIDE_MAX || info.height > SIDE_MAX ||
        (int64_t)info.width * info.height > PIXELS_MAX)
        return false;
    size_t bytes = (size_t)info.width * (size_t)info.height * 3;
    *out = (struct pixels){ .width = info.width, .height = info.height, .channels = 3, .data = text_alloc(bytes) };
    switch (info.format) {
    case PICTURE_PNG:
        fine = codec_decode_png(data, len, out);
        break;
    case PICTURE_JPEG:
        fine = codec_decode_jpeg(data, len, out);
        break;
    case PICTURE_WEBP:
        fine = WebPDecodeRGBInto(data, len, out->data, bytes, info.width * 3) != NULL;
        break;
    }
    if (!fine) {
        free(out->data);
        out->data = NULL;
    }
    return fine;
}

static struct blob *codec_encode_png(const struct pixels *px)
{
    struct blob *out = NULL;
    spng_ctx *ctx = spng_ctx_new(SPNG_CTX_ENCODER);
    struct spng_ihdr ihdr = { .width = (uint32_t)px->width,
                              .height = (uint32_t)px->height,
                              .bit_depth = 8,
                              .color_type =
                                  px->channels == 4 ? SPNG_COLOR_TYPE_TRUECOLOR_ALPHA : SPNG_COLOR_TYPE_TRUECOLOR };
    size_t bytes = (size_t)px->width * (size_t)px->height * (size_t)px->channels;
    size_t len = 0;
    int err = 0;
    void *file = NULL;

    if (ctx != NULL && spng_set_option(ctx, SPNG_ENCODE_TO_BUFFER, 1) == 0 &&
        spng_set_option(ctx, SPNG_IMG_COMPRESSION_LEVEL, 1) == 0 && spng_set_ihdr(ctx, &ihdr) == 0 &&
        spng_encode_image(ctx, px->data, bytes, SPNG_FMT_PNG, SPNG_ENCODE_FINALIZE) == 0)
        file = spng_get_png_buffer(ctx, &len, &err);
    if (file != NULL)
        out = blob_new(file, len);
    free(file);
    spng_ctx_free(ctx);
    return out;
}

static struct blob *codec_encode_jpeg(const struct pixels *px, int quality)
{
    struct blob *out = NULL;
    unsigned char *file = NULL;
    unsigned long len = 0;
    tjhandle tj = tjInitCompress();
    if (tj != NULL && tjCompress2(tj, px->data, px->width, 0, px->height, px->channels == 4 ? TJPF_RGBA : TJPF_RGB,
                                  &file, &len, TJSAMP_420, quality, 0) == 0)
        out = blob_new(file, len);
    tjFree(file);
    if (tj != NULL)
        (void)tjDestroy(tj); /* nothing to do about it */
    return out;
}

static struct blob *codec_encode_webp(const struct pixels *px, int quality)
{
    struct blob *out = NULL;
    WebPConfig config;
    WebPPicture pic;
    WebPMemoryWriter writer;

    if (!WebPConfigInit(&config) || !WebPPictureInit(&pic))
        return NULL;
    WebPMemoryWriterInit(&writer);
    config.quality = (float)quality;
    config.method = 1; /* speed: somebody waits for it */
    pic.width = px->width;
    pic.height = px->height;
    pic.writer = WebPMemoryWrite;
    pic.custom_ptr = &writer;
    int stride = px->width * px->channels;
    int imported = px->channels == 4 ? WebPPictureImportRGBA(&pic, px->data, stride)
                                     : WebPPictureImportRGB(&pic, px->data, stride);
    if (imported && WebPEncode(&config, &pic))
        out = blob_new(writer.mem, writer.size);
    WebPPictureFree(&pic);
    WebPMemoryWriterClear(&writer);
    return out;
}

struct blob *codec_encode(const struct pixels *px, enum picture_format format, int quality)
{
    if (format == PICTURE_JPEG)
        return codec_encode_jpeg(px, quality < 1 ? 1 : quality);
    if (format == PICTURE_WEBP)
        return codec_encode_webp(px, quality);
    return codec_encode_png(px);
}

/* Four weights and the first of four source columns (or rows) for each target column: Catmull-Rom. */
struct tap {
    int at[4];
    float weight[4];
};

static struct tap *codec_taps(int from, int to)
{
    struct tap *taps = text_alloc((size_t)to * sizeof *taps);
    for (int i = 0; i < to; i++) {
        float pos = ((float)i + 0.5F) * (float)from / (float)to - 0.5F;
        int base = (int)floorf(pos);
        float t = pos - (float)base;
        float w[4] = { -0.5F * t + t * t - 0.5F * t * t * t, 1 - 2.5F * t * t + 1.5F * t * t * t,
                       0.5F * t + 2 * t * t - 1.5F * t * t * t, -0.5F * t * t + 0.5F * t * t * t };
        for (int k = 0; k < 4; k++) {
            int at = base - 1 + k;
            taps[i].at[k] = at < 0 ? 0 : at >= from ? from - 1 : at;
            taps[i].weight[k] = w[k];
        }
    }
    return taps;
}

void codec_resize(const struct pixels *from, struct pixels *to)
{
    struct tap *cols = codec_taps(from->width, to->width);
    struct tap *rows = codec_taps(from->height, to->height);
    size_t row_len = (size_t)to->width * 3;
    float *ring = text_alloc(4 * row_len * sizeof *ring); /* the last four source rows, already widened */
    int held[4] = { -1, -1, -1, -1 };

    to->channels = 3;
    to->data = text_alloc(row_len * (size_t)to->height);
    for (int y = 0; y < to->height; y++) {
        const float *line[4];
        for (int k = 0; k < 4; k++) {
            int sy = rows[y].at[k];
            float *dst = ring + (size_t)(sy & 3) * row_len;
            line[k] = dst;
            if (held[sy & 3] == sy)
                continue;
            held[sy & 3] = sy;
            const unsigned char *src = from->data + (size_t)sy * (size_t)from->width * 3;
            for (int x = 0; x < to->width; x++) {
                const struct tap *t = &cols[x];
                for (int c = 0; c < 3; c++)
                    dst[x * 3 + c] =
                        t->weight[0] * (float)src[t->at[0] * 3 + c] + t->weight[1] * (float)src[t->at[1] * 3 + c] +
                        t->weight[2] * (float)src[t->at[2] * 3 + c] + t->weight[3] * (float)src[t->at[3] * 3 + c];
            }
        }
        unsigned char *out = to->data + (size_t)y * row_len;
        const float *w = rows[y].weight;
        for (size_t i = 0; i < row_len; i++) {
            float v = w[0] * line[0][i] + w[1] * line[1][i] + w[2] * line[2][i] + w[3] * line[3][i] + 0.5F;
            out[i] = (unsigned char)(v < 0 ? 0 : v > 255 ? 255 : v);
        }
    }
    free(ring);
    free(cols);
    free(rows);
}
