/* media_image.c - decodes an image to its last pixel, to know that it is whole and shows something.
 *
 * The decoders get limits and stop at the first doubt (dependencies.md, section 8). Memory stays small where the format
 * allows: PNG is decoded line by line; large JPEG and WebP are decoded at a fraction of their size, which still reads
 * every bit of the stream; only if that looks flat are they decoded in full. */
#include <stdlib.h>
#include <string.h>

#include <spng.h>
#include <turbojpeg.h>
#include <webp/decode.h>

#include "common/core/media_parts.h"

enum {
    LOSSLESS_SPREAD = 2,
    LOSSY_SPREAD = 8,
    FULL_PIXELS = 1 << 20,
    PNG_CHUNK_BYTES = 16 << 20,
    PNG_CACHE_BYTES = 32 << 20
};

/* How far apart the pixels are, channel by channel. Fully transparent ones are all the same colour: none. */
struct flatness {
    unsigned char least[4], most[4];
    int tolerance; /* lossy encoders dither a flat picture a little */
    bool has_first, is_varied;
    bool is_opaque; /* the fourth byte is no alpha */
};

static void look(struct flatness *f, const unsigned char *rgba, size_t pixels)
{
    static const unsigned char nothing[4] = { 0, 0, 0, 0 };

    for (size_t i = 0; i < pixels && !f->is_varied; i++) {
        const unsigned char *p = !f->is_opaque && rgba[4 * i + 3] == 0 ? nothing : rgba + 4 * i;

        if (!f->has_first) {
            memcpy(f->least, p, 4);
            memcpy(f->most, p, 4);
            f->has_first = true;
        }
        for (int c = 0; c < 4; c++) {
            f->least[c] = p[c] < f->least[c] ? p[c] : f->least[c];
            f->most[c] = p[c] > f->most[c] ? p[c] : f->most[c];
            f->is_varied |= f->most[c] - f->least[c] > f->tolerance;
        }
    }
}

static enum err verdict(const struct flatness *f, const char **reason)
{
    if (f->is_varied)
        return ERR_OK;
    *reason = "one flat colour";
    return ERR_BAD_RESULT;
}

/* Which pixels a line of one of the seven passes of an interlaced PNG holds. */
struct pass {
    unsigned start, step;
    size_t pixels;
};

static struct pass pass_of(const struct spng_ihdr *ihdr, int pass)
{
    static const unsigned start[7] = { 0, 4, 0, 2, 0, 1, 0 }, step[7] = { 8, 8, 4, 4, 2, 2, 1 };
    struct pass out = { .start = 0, .step = 1, .pixels = ihdr->width };

    if (ihdr->interlace_method == SPNG_INTERLACE_NONE || pass < 0 || pass > 6)
        return out;
    out.start = start[pass];
    out.step = step[pass];
    out.pixels = ihdr->width > out.start ? (ihdr->width - out.start + out.step - 1) / out.step : 0;
    return out;
}

static int png_lines(spng_ctx *png, const struct spng_ihdr *ihdr, unsigned char *line, size_t line_bytes,
                     struct flatness *f, struct media_thumb *thumb)
{
    struct spng_row_info row = { .pass = 0 };
    int rc = spng_decode_image(png, NULL, 0, SPNG_FMT_RGBA8, SPNG_DECODE_TRNS | SPNG_DECODE_PROGRESSIVE);

    while (rc == 0) {
        rc = spng_get_row_info(png, &row);
        if (rc != 0)
            break;
        rc = spng_decode_scanline(png, line, line_bytes);
        if (rc == 0 || rc == SPNG_EOI) {
            struct pass p = pass_of(ihdr, row.pass);

            look(f, line, p.pixels);
            media_thumb_line(thumb, row.row_num, p.start, p.step, line, p.pixels);
        }
    }
    return rc == SPNG_EOI ? spng_decode_chunks(png) : rc;
}

enum err media_decode_png(struct media_bytes b, const struct media_head *head, struct media_look *seen,
                          const char **reason)
{
    enum err e = ERR_BAD_RESPONSE;
    struct flatness f = { .tolerance = LOSSLESS_SPREAD };
    struct spng_ihdr ihdr;
    size_t line_bytes = (size_t)head->width * 4;
    struct media_thumb *thumb = seen != NULL ? media_thumb_new(head->width, head->height) : NULL;
    unsigned char *line = malloc(line_bytes);
    spng_ctx *png = spng_ctx_new(0);
    int rc = SPNG_EMEM;

    if (png == NULL || line == NULL)
        goto out;
    rc = spng_set_image_limits(png, (uint32_t)head->width, (uint32_t)head->height);
    if (rc == 0)
        rc = spng_set_chunk_limits(png, PNG_CHUNK_BYTES, PNG_CACHE_BYTES); /* text chunks may be bombs */
    if (rc == 0)
        rc = spng_set_crc_action(png, SPNG_CRC_ERROR, SPNG_CRC_DISCARD); /* a broken tEXt costs no image */
    if (rc == 0)
        rc = spng_set_png_buffer(png, b.at, b.len);
    if (rc == 0)
        rc = spng_get_ihdr(png, &ihdr);
    if (rc == 0)
        rc = png_lines(png, &ihdr, line, line_bytes, &f, thumb);
    if (rc == 0)
        e = verdict(&f, reason);
out:
    if (rc != 0) {
        *reason = spng_strerror(rc);
        e = rc == SPNG_EMEM ? ERR_NOMEM : ERR_BAD_RESPONSE;
    }
    media_thumb_end(thumb, seen);
    spng_ctx_free(png);
    free(line);
    return e;
}

static enum err jpeg_decode(tjhandle jpeg, struct media_bytes b, int width, int height, int format, struct flatness *f,
                            struct media_look *seen)
{
    enum err e = ERR_BAD_RESPONSE;
    unsigned char *pixels = malloc((size_t)width * (size_t)height * 4);
    struct media_thumb *thumb;

    if (pixels == NULL)
        return ERR_NOMEM;
    if (tjDecompress2(jpeg, b.at, b.len, pixels, width, 0, height, format, TJFLAG_STOPONWARNING | TJFLAG_LIMITSCANS) ==
        0) {
        look(f, pixels, (size_t)width * (size_t)height);
        thumb =
            seen != NULL && format == TJPF_RGBA ? media_thumb_new(width, height) : NULL; /* CMYK: no colours to tell */
        for (int y = 0; y < height; y++)
            media_thumb_line(thumb, y, 0, 1, pixels + (size_t)y * (size_t)width * 4, (size_t)width);
        media_thumb_end(thumb, seen);
        e = ERR_OK;
    }
    free(pixels);
    return e;
}

enum err media_decode_jpeg(struct media_bytes b, const struct media_head *head, struct media_look *seen,
                           const char **reason)
{
    static const tjscalingfactor eighth = { 1, 8 };
    enum err e = ERR_NOMEM;
    struct flatness f = { .is_opaque = true, .tolerance = LOSSY_SPREAD };
    tjhandle jpeg = tjInitDecompress();
    int width = 0, height = 0, sampling, colours, format;

    if (jpeg == NULL)
        goto out;
    e = ERR_BAD_RESPONSE;
    if (tjDecompressHeader3(jpeg, b.at, b.len, &width, &height, &sampling, &colours) != 0 || width != head->width ||
        height != head->height)
        goto out;
    format = colours == TJCS_CMYK || colours == TJCS_YCCK ? TJPF_CMYK : TJPF_RGBA;
    if ((int64_t)width * height > FULL_PIXELS)
        e = jpeg_decode(jpeg, b, TJSCALED(width, eighth), TJSCALED(height, eighth), format, &f, seen);
    if ((int64_t)width * height <= FULL_PIXELS || (e == ERR_OK && !f.is_varied)) {
        f = (struct flatness){ .is_opaque = true, .tolerance = LOSSY_SPREAD };
        e = jpeg_decode(jpeg, b, width, height, format, &f, seen);
    }
    if (e == ERR_OK)
        e = verdict(&f, reason);
out:
    if (e != ERR_OK && *reason == NULL)
        *reason = "the JPEG cannot be decoded";
    if (jpeg != NULL)
        (void)tjDestroy(jpeg); /* fails only for a handle that is none */
    return e;
}

static enum err webp_decode(struct media_bytes b, int width, int height, bool is_scaled, struct flatness *f,
                            struct media_look *seen)
{
    enum err e = ERR_BAD_RESPONSE;
    WebPDecoderConfig config;

    if (!WebPInitDecoderConfig(&config))
        return ERR_NOMEM;
    config.output.colorspace = MODE_RGBA;
    config.options.use_scaling = is_scaled;
    config.options.scaled_width = width;
    config.options.scaled_height = height;
    if (WebPDecode(b.at, b.len, &config) == VP8_STATUS_OK) {
        struct media_thumb *thumb = seen != NULL ? media_thumb_new(config.output.width, config.output.height) : NULL;

        for (int y = 0; y < config.output.height; y++) {
            const unsigned char *line = config.output.u.RGBA.rgba + (size_t)y * (size_t)config.output.u.RGBA.stride;

            look(f, line, (size_t)config.output.width);
            media_thumb_line(thumb, y, 0, 1, line, (size_t)config.output.width);
        }
        media_thumb_end(thumb, seen);
        e = ERR_OK;
    }
    WebPFreeDecBuffer(&config.output);
    return e;
}

enum err media_decode_webp(struct media_bytes b, const struct media_head *head, struct media_look *seen,
                           const char **reason)
{
    enum err e = ERR_OK;
    struct flatness f = { .tolerance = LOSSY_SPREAD };
    int width = 0, height = 0;

    if (!WebPGetInfo(b.at, b.len, &width, &height) || width != head->width || height != head->height) {
        *reason = "the WebP cannot be decoded";
        return ERR_BAD_RESPONSE;
    }
    if ((int64_t)width * height > FULL_PIXELS)
        e = webp_decode(b, (width + 7) / 8, (height + 7) / 8, true, &f, seen);
    if (e == ERR_OK && !f.is_varied)
        e = webp_decode(b, width, height, false, &f, seen);
    if (e == ERR_OK)
        return verdict(&f, reason);
    *reason = e == ERR_NOMEM ? "out of memory" : "the WebP cannot be decoded";
    return e;
}
