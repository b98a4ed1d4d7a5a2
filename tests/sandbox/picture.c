/* picture.c - from a spec to the bytes of a file: draw or enlarge, spoil on request, encode (see picture.h). */
#include "picture.h"
#include "faults.h"

#include <stdlib.h>
#include <string.h>

void picture_spec_done(struct picture_spec *s)
{
    free(s->prompt);
    blob_drop(s->input);
    *s = (struct picture_spec){ 0 };
}

const char *picture_mime(enum picture_format f)
{
    return f == PICTURE_JPEG ? "image/jpeg" : f == PICTURE_WEBP ? "image/webp" : "image/png";
}

const char *picture_extension(enum picture_format f)
{
    return f == PICTURE_JPEG ? "jpg" : f == PICTURE_WEBP ? "webp" : "png";
}

static bool picture_flaw(const struct picture_spec *s, enum fault_word w)
{
    return (s->flaws >> w & 1) != 0;
}

static void picture_blank(struct pixels *px)
{
    size_t bytes = (size_t)px->width * (size_t)px->height * 3;
    px->channels = 3;
    px->data = text_alloc(bytes);
    memset(px->data, 0x80, bytes);
}

/* A picture so small that enlarging it leaves only clouds of colour: what a filtered answer looks like. */
static void picture_blur(struct pixels *px)
{
    struct pixels tiny = { .width = 12, .height = 12 };
    struct pixels wide = { .width = px->width, .height = px->height };
    codec_resize(px, &tiny);
    codec_resize(&tiny, &wide);
    free(tiny.data);
    free(px->data);
    *px = wide;
}

/* Everything outside a soft-edged disc becomes transparent. */
static void picture_cut_out(struct pixels *px)
{
    size_t count = (size_t)px->width * (size_t)px->height;
    unsigned char *rgba = text_alloc(count * 4);
    float rx = (float)px->width * 0.48F, ry = (float)px->height * 0.48F;
    for (size_t i = 0; i < count; i++) {
        float dx = ((float)(i % (size_t)px->width) + 0.5F - (float)px->width / 2) / rx;
        float dy = ((float)(i / (size_t)px->width) + 0.5F - (float)px->height / 2) / ry;
        float edge = (1.0F - dx * dx - dy * dy) * 12.0F;
        memcpy(rgba + i * 4, px->data + i * 3, 3);
        rgba[i * 4 + 3] = (unsigned char)(edge < 0 ? 0 : edge > 1 ? 255 : edge * 255);
    }
    free(px->data);
    px->data = rgba;
    px->channels = 4;
}

static bool picture_paint(const struct picture_spec *s, struct pixels *px)
{
    if (picture_flaw(s, FW_BLANK)) {
        picture_blank(px);
        return true;
    }
    if (s->kind == PICTURE_UPSCALED) {
        struct pixels from;
        if (s->input == NULL || !codec_decode(s->input->data, s->input->len, &from))
            return false;
        codec_resize(&from, px);
        free(from.data);
    } else {
        scene_draw(px, s->prompt, s->seed);
    }
    if (picture_flaw(s, FW_FILTERED))
        picture_blur(px);
    if (s->transparent)
        picture_cut_out(px);
    return true;
}

struct blob *picture_make(const struct picture_spec *s)
{
    struct pixels px = { .width = s->width, .height = s->height };
    enum picture_format format = s->format;

    if (picture_flaw(s, FW_WRONG_SIZE)) {
        px.width = px.width / 2 + 1;
        px.height = px.height / 2 + 3;
    }
    if (picture_flaw(s, FW_WRONG_FORMAT))
        format = format == PICTURE_PNG ? PICTURE_JPEG : PICTURE_PNG;
    if (!picture_paint(s, &px))
        return NULL;
    struct blob *file = codec_encode(&px, format, s->quality);
    free(px.data);
    if (file != NULL && picture_flaw(s, FW_CUT_IMAGE)) {
        struct blob *half = blob_new(file->data, file->len / 2);
        blob_drop(file);
        file = half;
    }
    return file;
}
