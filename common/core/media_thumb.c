/* media_thumb.c - what a picture looks like from afar: its blurhash and the colour that most of it has.
 *
 * Pixels come line by line from the decoders, in any order. At most 256 of a line and 256 lines are looked at; they are
 * averaged into 32x32 cells (for the blurhash) and counted by colour, four bits a channel. Transparent pixels lie on
 * white in the one and do not count in the other. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/core/blurhash.h"
#include "common/core/media_parts.h"

enum { CELLS = 32, SAMPLES = 256, COLORS = 4096, ACROSS = 4, DOWN = 3 };

struct media_thumb {
    int64_t width, height, every_x, every_y;
    struct bin {
        uint32_t count, sum[3];
    } cells[CELLS * CELLS], colors[COLORS];
};

struct media_thumb *media_thumb_new(int64_t width, int64_t height)
{
    struct media_thumb *t = width > 0 && height > 0 ? calloc(1, sizeof *t) : NULL;

    if (t == NULL)
        return NULL;
    t->width = width;
    t->height = height;
    t->every_x = (width + SAMPLES - 1) / SAMPLES;
    t->every_y = (height + SAMPLES - 1) / SAMPLES;
    return t;
}

static void count(struct bin *b, const unsigned char rgb[3])
{
    b->count++;
    for (int c = 0; c < 3; c++)
        b->sum[c] += rgb[c];
}

void media_thumb_line(struct media_thumb *t, int64_t y, int64_t first_x, int64_t step, const unsigned char *rgba,
                      size_t pixels)
{
    if (t == NULL || y < 0 || y >= t->height || y % t->every_y != 0)
        return;
    for (size_t i = 0; i < pixels; i++) {
        const unsigned char *p = rgba + 4 * i;
        int64_t x = first_x + (int64_t)i * step;
        unsigned char on_white[3];

        if (x >= t->width)
            return;
        if (x % t->every_x != 0)
            continue;
        for (int c = 0; c < 3; c++)
            on_white[c] = (unsigned char)((p[c] * p[3] + 255 * (255 - p[3]) + 127) / 255);
        count(&t->cells[y * CELLS / t->height * CELLS + x * CELLS / t->width], on_white);
        if (p[3] >= 128)
            count(&t->colors[p[0] >> 4 << 8 | p[1] >> 4 << 4 | p[2] >> 4], p);
    }
}

static int mean(const struct bin *b, int c)
{
    return (int)((b->sum[c] + b->count / 2) / b->count);
}

/* Small pictures leave cells empty: then the picture has as many columns and rows as it has pixels. */
static void shrink(const struct media_thumb *t, unsigned char *rgb, int *width, int *height)
{
    *width = t->width < CELLS ? (int)t->width : CELLS;
    *height = t->height < CELLS ? (int)t->height : CELLS;
    for (int y = 0; y < *height; y++) {
        for (int x = 0; x < *width; x++) {
            int row = t->height < CELLS ? (int)(y * CELLS / t->height) : y;
            int column = t->width < CELLS ? (int)(x * CELLS / t->width) : x;
            const struct bin *b = &t->cells[row * CELLS + column];

            for (int c = 0; c < 3; c++)
                rgb[3 * (y * *width + x) + c] = b->count > 0 ? (unsigned char)mean(b, c) : 255;
        }
    }
}

void media_thumb_end(struct media_thumb *t, struct media_look *out)
{
    unsigned char rgb[CELLS * CELLS * 3];
    char hash[BLURHASH_TEXT];
    const struct bin *most = NULL;
    int width, height;
    bool is_tall;

    if (out != NULL)
        *out = (struct media_look){ .blurhash = "" };
    if (t == NULL || out == NULL)
        goto out;
    shrink(t, rgb, &width, &height);
    is_tall = t->height > t->width;
    if (blurhash_encode(hash, rgb, width, height, is_tall ? DOWN : ACROSS, is_tall ? ACROSS : DOWN))
        (void)snprintf(out->blurhash, sizeof out->blurhash, "%.*s", MEDIA_BLURHASH_TEXT - 1, hash); /* 28 characters */
    for (size_t i = 0; i < COLORS; i++) {
        if (most == NULL || t->colors[i].count > most->count)
            most = &t->colors[i];
    }
    if (most->count > 0)
        (void)snprintf(out->color, sizeof out->color, "#%02x%02x%02x", (unsigned)mean(most, 0) & 255U,
                       (unsigned)mean(most, 1) & 255U, (unsigned)mean(most, 2) & 255U);
out:
    free(t);
}
