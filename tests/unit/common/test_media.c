/* test_media.c - files that are whole, cut at every byte, blank, lying about their size, or no media at all.
 *
 * The files are made here by the encoders' own libraries, small enough to be cut at every offset. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <spng.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <turbojpeg.h>
#include <unistd.h>
#include <webp/encode.h>

#include "common/base/text.h"
#include "common/core/media_parts.h"

enum { SIDE = 16, PLENTY = 1 << 24 };

struct sample {
    unsigned char *at;
    size_t len;
};

/* ---- making files */

static void paint(unsigned char *rgba, int width, int height, bool is_flat)
{
    for (int i = 0; i < width * height; i++) {
        rgba[4 * i] = (unsigned char)(is_flat ? 120 : (i % width) * 255 / width);
        rgba[4 * i + 1] = (unsigned char)(is_flat ? 30 : (i / width) * 255 / height);
        rgba[4 * i + 2] = 200;
        rgba[4 * i + 3] = 255;
    }
}

static struct sample make_png(int width, int height, bool is_flat, int depth, bool is_interlaced)
{
    size_t bytes = (size_t)width * (size_t)height * 4;
    unsigned char *rgba = malloc(bytes), *deep = malloc(bytes * 2);
    struct spng_ihdr ihdr = { .width = (uint32_t)width,
                              .height = (uint32_t)height,
                              .bit_depth = (uint8_t)depth,
                              .color_type = SPNG_COLOR_TYPE_TRUECOLOR_ALPHA,
                              .interlace_method = is_interlaced };
    struct sample out = { NULL, 0 };
    spng_ctx *png = spng_ctx_new(SPNG_CTX_ENCODER);
    int rc;

    paint(rgba, width, height, is_flat);
    for (size_t i = 0; i < bytes; i++)
        deep[2 * i] = deep[2 * i + 1] = rgba[i];
    (void)spng_set_option(png, SPNG_ENCODE_TO_BUFFER, 1);
    (void)spng_set_ihdr(png, &ihdr);
    rc = spng_encode_image(png, depth == 16 ? deep : rgba, depth == 16 ? bytes * 2 : bytes, SPNG_FMT_PNG,
                           SPNG_ENCODE_FINALIZE);
    cr_assert_eq(rc, 0, "%s", spng_strerror(rc));
    out.at = spng_get_png_buffer(png, &out.len, &rc);
    cr_assert_not_null(out.at);
    spng_ctx_free(png);
    free(rgba);
    free(deep);
    return out;
}

static struct sample make_jpeg(int width, int height, bool is_flat, int flags)
{
    unsigned char *rgba = malloc((size_t)width * (size_t)height * 4), *jpeg = NULL;
    unsigned long len = 0;
    struct sample out;
    tjhandle tj = tjInitCompress();

    paint(rgba, width, height, is_flat);
    cr_assert_eq(tjCompress2(tj, rgba, width, 0, height, TJPF_RGBA, &jpeg, &len, TJSAMP_420, 85, flags), 0);
    out = (struct sample){ malloc(len), len };
    memcpy(out.at, jpeg, len);
    tjFree(jpeg);
    (void)tjDestroy(tj);
    free(rgba);
    return out;
}

static struct sample make_webp(int width, int height, bool is_flat, bool is_lossless)
{
    unsigned char *rgba = malloc((size_t)width * (size_t)height * 4);
    uint8_t *webp = NULL;
    struct sample out;

    paint(rgba, width, height, is_flat);
    out.len = is_lossless ? WebPEncodeLosslessRGBA(rgba, width, height, width * 4, &webp)
                          : WebPEncodeRGBA(rgba, width, height, width * 4, 80, &webp);
    cr_assert_gt(out.len, 0);
    out.at = malloc(out.len);
    memcpy(out.at, webp, out.len);
    WebPFree(webp);
    free(rgba);
    return out;
}

static struct sample copy_of(const void *bytes, size_t len)
{
    struct sample out = { malloc(len), len };

    memcpy(out.at, bytes, len);
    return out;
}

static struct sample make_gif(void)
{
    static const unsigned char gif[] = {
        'G',  'I', 'F',  '8', '9',  'a',  2,    0, 2, 0, 0x80, 0, 0, 0,
        0,    0,   255,  255, 255,  0x21, 0xf9, 4, 0, 0, 0,    0, 0, /* graphic control */
        0x2c, 0,   0,    0,   0,    2,    0,    2, 0, 0,             /* image */
        2,    3,   0x44, 2,   0x05, 0,    0x3b
    };
    return copy_of(gif, sizeof gif);
}

static struct sample make_wav(void)
{
    static const unsigned char wav[] = { 'R',  'I',  'F', 'F', 40,   0,    0, 0, 'W', 'A', 'V', 'E',
                                         'f',  'm',  't', ' ', 16,   0,    0, 0, 1,   0,   1,   0,
                                         0x44, 0xac, 0,   0,   0x88, 0x58, 1, 0, 2,   0,   16,  0,
                                         'd',  'a',  't', 'a', 4,    0,    0, 0, 1,   2,   3,   4 };
    return copy_of(wav, sizeof wav);
}

static struct sample make_mp3(int frames, bool has_xing)
{
    /* MPEG-1 layer III, 32 kbit/s, 44.1 kHz: 104 bytes a frame */
    struct sample out = { calloc((size_t)frames, 104), (size_t)frames * 104 };

    for (int i = 0; i < frames; i++)
        memcpy(out.at + (size_t)i * 104, "\xff\xfb\x10\x00", 4);
    if (has_xing) {
        memcpy(out.at + 36, "Xing\0\0\0\2", 8);
        out.at[36 + 8 + 2] = (unsigned char)(out.len >> 8);
        out.at[36 + 8 + 3] = (unsigned char)out.len;
    }
    return out;
}

static struct sample make_glb(void)
{
    static const unsigned char glb[] = { 'g', 'l', 'T', 'F', 2,   0,   0, 0, 36, 0, 0,   0,   4,   0, 0, 0, 'J', 'S',
                                         'O', 'N', '{', '}', ' ', ' ', 4, 0, 0,  0, 'B', 'I', 'N', 0, 1, 2, 3,   4 };
    return copy_of(glb, sizeof glb);
}

static struct sample make_mp4(void)
{
    static const unsigned char mp4[] = { 0, 0, 0, 16, 'f', 't', 'y', 'p', 'i', 's', 'o', 'm', 0, 0,
                                         2, 0, 0, 0,  0,   12,  'm', 'o', 'o', 'v', 1,   2,   3, 4,
                                         0, 0, 0, 12, 'm', 'd', 'a', 't', 1,   2,   3,   4 };
    return copy_of(mp4, sizeof mp4);
}

static const char *const names[] = {
    "png", "png16", "png_interlaced", "jpeg", "jpeg_progressive", "webp", "webp_lossless", "gif", "wav", "mp3",
    "glb", "mp4"
};

static struct sample make(size_t which)
{
    switch (which) {
    case 0:
        return make_png(SIDE, SIDE, false, 8, false);
    case 1:
        return make_png(SIDE, SIDE, false, 16, false);
    case 2:
        return make_png(SIDE, SIDE, false, 8, true);
    case 3:
        return make_jpeg(SIDE, SIDE, false, 0);
    case 4:
        return make_jpeg(SIDE, SIDE, false, TJFLAG_PROGRESSIVE);
    case 5:
        return make_webp(SIDE, SIDE, false, false);
    case 6:
        return make_webp(SIDE, SIDE, false, true);
    case 7:
        return make_gif();
    case 8:
        return make_wav();
    case 9:
        return make_mp3(4, true);
    case 10:
        return make_glb();
    default:
        return make_mp4();
    }
}

static enum media_kind kind_of(size_t which)
{
    static const enum media_kind kinds[] = { MEDIA_PNG,  MEDIA_PNG, MEDIA_PNG, MEDIA_JPEG, MEDIA_JPEG, MEDIA_WEBP,
                                             MEDIA_WEBP, MEDIA_GIF, MEDIA_WAV, MEDIA_MP3,  MEDIA_GLB,  MEDIA_MP4 };
    return kinds[which];
}

/* ---- asking */

static char path[] = "/tmp/kiln-media-XXXXXX";
static int fd = -1;

static void file_begin(void)
{
    fd = mkstemp(path);
    cr_assert_geq(fd, 0);
}

static void file_end(void)
{
    (void)close(fd);
    (void)unlink(path);
}

static enum err check(const void *bytes, size_t len, int64_t max_pixels, struct media_head *head, char reason[128])
{
    cr_assert_eq(ftruncate(fd, 0), 0);
    cr_assert_eq(pwrite(fd, bytes, len, 0), (ssize_t)len);
    return media_check(path, max_pixels, head, reason, 128);
}

TestSuite(media, .init = file_begin, .fini = file_end);

Test(media, a_whole_file_is_whole)
{
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct sample s = make(i);
        struct media_head head = { .kind = MEDIA_UNKNOWN };
        char reason[128];

        cr_expect_eq(check(s.at, s.len, PLENTY, &head, reason), ERR_OK, "%s: %s", names[i], reason);
        cr_expect_eq(head.kind, kind_of(i), "%s", names[i]);
        if (media_is_image(head.kind)) {
            cr_expect_eq(head.width, head.kind == MEDIA_GIF ? 2 : SIDE, "%s", names[i]);
            cr_expect_eq(head.height, head.kind == MEDIA_GIF ? 2 : SIDE, "%s", names[i]);
        }
        free(s.at);
    }
}

Test(media, a_file_cut_anywhere_is_never_whole)
{
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct sample s = make(i);

        for (size_t len = 0; len < s.len; len++) {
            struct media_head head;
            char reason[128];
            enum err e = check(s.at, len, PLENTY, &head, reason);

            cr_expect_eq(e, ERR_BAD_RESPONSE, "%s cut to %zu of %zu: %s", names[i], len, s.len, err_word(e));
            cr_expect_gt(strlen(reason), 0);
        }
        free(s.at);
    }
}

Test(media, bytes_after_the_end_do_no_harm)
{
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct sample s = make(i);
        unsigned char *more = calloc(s.len + 8, 1);
        char reason[128];

        memcpy(more, s.at, s.len);
        if (kind_of(i) != MEDIA_MP4) /* zeros there would be a box of their own */
            cr_expect_eq(check(more, s.len + 8, PLENTY, NULL, reason), ERR_OK, "%s: %s", names[i], reason);
        free(more);
        free(s.at);
    }
}

/* Whatever bytes are changed: an answer comes, no sanitizer speaks, and a PNG's checksums notice. */
Test(media, a_file_with_any_byte_changed_gets_an_answer)
{
    uint32_t random = 1;

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct sample s = make(i);

        for (int round = 0; round < 200; round++) {
            unsigned char *bytes = malloc(s.len);
            struct media_head head;
            char reason[128];
            int changes;
            enum err e;

            random = random * 1664525 + 1013904223;
            changes = 1 + (int)(random >> 28);
            memcpy(bytes, s.at, s.len);
            for (int n = 0; n < changes; n++) {
                random = random * 1664525 + 1013904223;
                bytes[(random >> 8) % s.len] ^= (unsigned char)(1 + random % 255);
            }
            e = check(bytes, s.len, PLENTY, &head, reason);
            cr_expect(e == ERR_OK || e == ERR_BAD_RESPONSE || e == ERR_BAD_RESULT, "%s: %s", names[i], err_word(e));
            (void)media_sniff(bytes, s.len);
            free(bytes);
        }
        free(s.at);
    }
}

Test(media, one_flat_colour_is_a_bad_result)
{
    struct sample flat[] = {
        make_png(SIDE, SIDE, true, 8, false), make_png(SIDE, SIDE, true, 16, true),
        make_jpeg(SIDE, SIDE, true, 0),       make_webp(SIDE, SIDE, true, true),
        make_webp(SIDE, SIDE, true, false),   make_jpeg(1200, 1000, true, TJFLAG_PROGRESSIVE),
        make_webp(1200, 1000, true, false),   make_png(1200, 1000, true, 8, false),
    };

    for (size_t i = 0; i < ARRAY_LEN(flat); i++) {
        struct media_head head = { .width = 0 };
        char reason[128];

        cr_expect_eq(check(flat[i].at, flat[i].len, PLENTY, &head, reason), ERR_BAD_RESULT, "%zu: %s", i, reason);
        cr_expect_str_eq(reason, "one flat colour");
        cr_expect_gt(head.width, 0, "the head is told all the same");
        free(flat[i].at);
    }
}

Test(media, a_large_picture_is_looked_at_in_a_small_version_first)
{
    struct sample large[] = { make_jpeg(1200, 1000, false, 0), make_jpeg(1201, 1003, false, TJFLAG_PROGRESSIVE),
                              make_webp(1200, 1000, false, false), make_png(1200, 1000, false, 8, true) };

    for (size_t i = 0; i < ARRAY_LEN(large); i++) {
        char reason[128];

        cr_expect_eq(check(large[i].at, large[i].len, PLENTY, NULL, reason), ERR_OK, "%zu: %s", i, reason);
        cr_expect_eq(check(large[i].at, large[i].len / 2, PLENTY, NULL, reason), ERR_BAD_RESPONSE, "%zu", i);
        large[i].at[large[i].len / 2] ^= 0x55; /* a JPEG may well survive that: its stream has no checksums */
        (void)check(large[i].at, large[i].len, PLENTY, NULL, reason);
        free(large[i].at);
    }
}

/* The end is there, the middle is not: what a resumed or badly joined download looks like. */
Test(media, a_file_without_its_middle_is_not_whole)
{
    struct sample all[] = { make_png(200, 200, false, 8, false), make_jpeg(200, 200, false, 0),
                            make_jpeg(1200, 1000, false, 0), make_webp(200, 200, false, false) };

    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        struct sample *s = &all[i];
        size_t gap = s->len / 4;
        char reason[128];

        memmove(s->at + s->len / 2, s->at + s->len / 2 + gap, s->len - s->len / 2 - gap);
        cr_expect_eq(check(s->at, s->len - gap, PLENTY, NULL, reason), ERR_BAD_RESPONSE, "%zu: %s", i, reason);
        free(s->at);
    }
}

Test(media, a_png_notices_every_changed_bit_of_its_pixels)
{
    struct sample s = make_png(SIDE, SIDE, false, 8, false);

    for (size_t at = 41; at + 16 < s.len; at++) { /* inside IDAT's data */
        char reason[128];

        s.at[at] ^= 1;
        cr_expect_eq(check(s.at, s.len, PLENTY, NULL, reason), ERR_BAD_RESPONSE, "byte %zu", at);
        s.at[at] ^= 1;
    }
    free(s.at);
}

Test(media, one_pixel_of_another_colour_is_enough)
{
    struct sample s = make_png(SIDE, SIDE, true, 8, false);
    unsigned char *rgba = malloc(SIDE * SIDE * 4);
    uint8_t *webp = NULL;
    char reason[128];
    size_t len;

    paint(rgba, SIDE, SIDE, true);
    rgba[SIDE * SIDE * 4 - 2] = 0;
    len = WebPEncodeLosslessRGBA(rgba, SIDE, SIDE, SIDE * 4, &webp);
    cr_expect_eq(check(webp, len, PLENTY, NULL, reason), ERR_OK, "%s", reason);
    WebPFree(webp);
    for (int i = 0; i < SIDE * SIDE; i++) { /* colours that nobody can see */
        rgba[4 * i] = (unsigned char)i;
        rgba[4 * i + 3] = 0;
    }
    len = WebPEncodeLosslessRGBA(rgba, SIDE, SIDE, SIDE * 4, &webp);
    cr_expect_eq(check(webp, len, PLENTY, NULL, reason), ERR_BAD_RESULT, "all transparent: %s", reason);
    WebPFree(webp);
    free(rgba);
    free(s.at);
}

static void put_be32(unsigned char *p, uint32_t v)
{
    p[0] = (unsigned char)(v >> 24);
    p[1] = (unsigned char)(v >> 16);
    p[2] = (unsigned char)(v >> 8);
    p[3] = (unsigned char)v;
}

static uint32_t crc(const unsigned char *p, size_t len)
{
    uint32_t c = 0xffffffff;

    for (size_t i = 0; i < len; i++) {
        c ^= p[i];
        for (int k = 0; k < 8; k++)
            c = (c >> 1) ^ ((c & 1) != 0 ? 0xedb88320 : 0);
    }
    return ~c;
}

Test(media, a_bomb_does_not_go_off)
{
    struct sample s = make_png(SIDE, SIDE, false, 16, false);
    struct media_head head;
    char reason[128];

    put_be32(s.at + 16, 100000);
    put_be32(s.at + 20, 100000);
    put_be32(s.at + 29, crc(s.at + 12, 17));
    head = media_sniff(s.at, s.len);
    cr_expect_eq(head.width, 100000);
    cr_expect_eq(check(s.at, s.len, PLENTY, &head, reason), ERR_OK, "too large to decode: %s", reason);
    cr_expect_eq(check(s.at, s.len, INT64_MAX, &head, reason), ERR_BAD_RESPONSE, "decoded line by line: %s", reason);
    put_be32(s.at + 16, 0x7fffffff);
    put_be32(s.at + 20, 0x7fffffff);
    put_be32(s.at + 29, crc(s.at + 12, 17));
    cr_expect_eq(check(s.at, s.len, PLENTY, &head, reason), ERR_OK, "%s", reason);
    free(s.at);
    s = make_jpeg(SIDE, SIDE, false, 0);
    for (size_t i = 0; i + 9 < s.len; i++) {
        if (s.at[i] == 0xff && s.at[i + 1] == 0xc0)
            memcpy(s.at + i + 5, "\xff\xdc\xff\xdc", 4); /* 65500 x 65500 */
    }
    head = media_sniff(s.at, s.len);
    cr_expect_eq(head.width, 65500);
    cr_expect_eq(check(s.at, s.len, PLENTY, &head, reason), ERR_OK, "too large to decode: %s", reason);
    free(s.at);
}

Test(media, what_is_no_media_is_said_to_be_none)
{
    static const struct {
        const char *text, *reason;
    } table[] = {
        { "<html>", "a web page, not media" },
        { "<svg xmlns='http://www.w3.org/2000/svg'/>", "a web page, not media" },
        { "{\"error\":1}", "JSON, not media" },
        { "hello", "not a format that kiln knows" },
        { "\xff\xfe<\0h\0t\0m\0l\0", "not a format that kiln knows" }, /* UTF-16 looks like an MP3 at first */
        { "%PDF-1.7", "not a format that kiln knows" },
        { "", "empty" },
    };

    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        struct media_head head;
        char reason[128];

        cr_expect_eq(check(table[i].text, strlen(table[i].text), PLENTY, &head, reason), ERR_BAD_RESPONSE);
        cr_expect_str_eq(reason, table[i].reason);
        cr_expect_eq(media_sniff(table[i].text, strlen(table[i].text)).kind, MEDIA_UNKNOWN);
    }
    {
        char reason[128];

        cr_expect_eq(media_check("/nowhere/at/all", PLENTY, NULL, reason, sizeof reason), ERR_STORAGE_ERROR);
    }
    cr_expect_eq(media_sniff(NULL, 0).kind, MEDIA_UNKNOWN);
}

Test(media, a_mark_of_an_image_inside_a_page_is_no_image)
{
    static const char page[] = "<!-- \x89PNG\r\n\x1a\n -->";

    cr_expect_eq(media_sniff(page, sizeof page - 1).kind, MEDIA_UNKNOWN);
}

Test(media, reads_heads_from_any_first_bytes_without_reading_further)
{
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct sample s = make(i);

        for (size_t len = 0; len <= s.len; len++) {
            unsigned char *exact = malloc(len > 0 ? len : 1); /* the sanitizer guards its end */
            struct media_head head;

            memcpy(exact, s.at, len);
            head = media_sniff(exact, len);
            cr_expect(head.kind == MEDIA_UNKNOWN || head.kind == kind_of(i), "%s, %zu bytes", names[i], len);
            cr_expect(head.width == 0 || head.width == SIDE || head.kind == MEDIA_GIF, "%s, %zu bytes", names[i], len);
            free(exact);
        }
        free(s.at);
    }
}

Test(media, tells_alpha_from_the_head)
{
    struct sample s = make_png(SIDE, SIDE, false, 8, false);
    struct sample j = make_jpeg(SIDE, SIDE, false, 0);

    cr_expect(media_sniff(s.at, s.len).has_alpha);
    cr_expect_not(media_sniff(j.at, j.len).has_alpha);
    free(s.at);
    free(j.at);
}

Test(media, an_mp3_may_carry_tags_and_must_not_break_in_the_middle)
{
    struct sample plain = make_mp3(3, false);
    unsigned char tagged[10 + 20 + 3 * 104 + 128] = "ID3\4\0\0\0\0\0\x14";
    char reason[128];

    memcpy(tagged + 30, plain.at, plain.len);
    memcpy(tagged + 30 + plain.len, "TAG", 3);
    cr_expect_eq(check(tagged, sizeof tagged, PLENTY, NULL, reason), ERR_OK, "%s", reason);
    tagged[30 + 104] = 0;
    cr_expect_eq(check(tagged, sizeof tagged, PLENTY, NULL, reason), ERR_BAD_RESPONSE);
    cr_expect_eq(check(tagged, 30, PLENTY, NULL, reason), ERR_BAD_RESPONSE, "a tag without sound");
    free(plain.at);
}

Test(media, names_kinds)
{
    static const struct {
        const char *mime;
        enum media_kind kind;
    } table[] = { { "image/png", MEDIA_PNG },
                  { "IMAGE/JPEG; q=1", MEDIA_JPEG },
                  { "image/jpg", MEDIA_JPEG },
                  { " audio/mpeg ", MEDIA_MP3 },
                  { "model/gltf-binary", MEDIA_GLB },
                  { "image/svg+xml", MEDIA_UNKNOWN },
                  { "text/html", MEDIA_UNKNOWN },
                  { "application/octet-stream", MEDIA_UNKNOWN },
                  { "", MEDIA_UNKNOWN },
                  { NULL, MEDIA_UNKNOWN } };

    for (size_t i = 0; i < ARRAY_LEN(table); i++)
        cr_expect_eq(media_kind_of_mime(table[i].mime), table[i].kind, "%s", table[i].mime);
    for (int k = MEDIA_PNG; k <= MEDIA_MP4; k++)
        cr_expect_eq(media_kind_of_mime(media_mime((enum media_kind)k)), (enum media_kind)k);
    cr_expect_str_eq(media_extension(MEDIA_JPEG), "jpg");
    cr_expect_str_eq(media_extension(MEDIA_UNKNOWN), "bin");
    cr_expect_str_eq(media_mime(MEDIA_UNKNOWN), "application/octet-stream");
    cr_expect_str_eq(media_group(MEDIA_GIF), "image");
    cr_expect_str_eq(media_group(MEDIA_WAV), "audio");
    cr_expect_str_eq(media_group(MEDIA_MP4), "video");
    cr_expect_str_eq(media_group(MEDIA_GLB), "model");
    cr_expect_str_eq(media_group(MEDIA_UNKNOWN), "file");
}

static struct media_look look_at(struct sample s, int64_t max_pixels)
{
    struct media_look look;
    char reason[128];

    memset(&look, 'x', sizeof look);
    cr_assert_eq(ftruncate(fd, 0), 0);
    cr_assert_eq(pwrite(fd, s.at, s.len, 0), (ssize_t)s.len);
    look = (struct media_look){ .blurhash = "" };
    cr_expect_eq(media_check_fd(fd, max_pixels, NULL, &look, reason, sizeof reason), ERR_OK, "%s", reason);
    free(s.at);
    return look;
}

static int channel(const struct media_look *look, int c)
{
    char two[3] = { look->color[1 + 2 * c], look->color[2 + 2 * c], '\0' };

    return (int)strtol(two, NULL, 16);
}

Test(media, a_picture_looks_the_same_in_every_format)
{
    struct media_look png = look_at(make_png(640, 400, false, 8, false), PLENTY);
    struct media_look others[] = { look_at(make_png(640, 400, false, 8, true), PLENTY),
                                   look_at(make_png(640, 400, false, 16, false), PLENTY),
                                   look_at(make_webp(640, 400, false, true), PLENTY) };
    struct media_look jpeg = look_at(make_jpeg(640, 400, false, 0), PLENTY);

    cr_expect_eq(strlen(png.blurhash), 28, "4 by 3 components: %s", png.blurhash);
    cr_expect_eq(png.blurhash[0], 'L');
    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        cr_expect_str_eq(others[i].blurhash, png.blurhash, "%zu", i);
        cr_expect_str_eq(others[i].color, png.color, "%zu", i);
    }
    cr_expect_eq(strncmp(jpeg.blurhash, png.blurhash, 2), 0, "%s, %s", jpeg.blurhash, png.blurhash);
    cr_expect_leq(abs(channel(&png, 2) - 200), 8, "all of it has this much blue: %s", png.color);
}

Test(media, a_large_picture_looks_as_a_small_one_and_a_tall_one_has_more_rows)
{
    struct media_look small = look_at(make_jpeg(400, 300, false, 0), PLENTY);
    struct media_look large = look_at(make_jpeg(1600, 1200, false, 0), PLENTY);
    struct media_look tall = look_at(make_png(100, 300, false, 8, false), PLENTY);
    struct media_look tiny = look_at(make_png(3, 2, false, 8, false), PLENTY);
    struct media_look skipped = look_at(make_png(64, 64, false, 8, false), 100);

    cr_expect_eq(strncmp(small.blurhash, large.blurhash, 2), 0, "%s, %s", small.blurhash, large.blurhash);
    cr_expect_leq(abs(channel(&small, 2) - channel(&large, 2)), 8, "%s, %s", small.color, large.color);
    cr_expect_eq(tall.blurhash[0], 'T', "3 by 4 components: %s", tall.blurhash);
    cr_expect_eq(strlen(tiny.blurhash), 28);
    cr_expect_str_eq(skipped.blurhash, "", "too large to be decoded: nobody knows");
    cr_expect_str_eq(skipped.color, "");
}

Test(media, the_colour_is_the_one_that_most_of_it_has)
{
    struct sample s = make_png(64, 64, true, 8, false);
    struct media_look look = { .blurhash = "" };
    char reason[128];

    cr_assert_eq(pwrite(fd, s.at, s.len, 0), (ssize_t)s.len);
    cr_expect_eq(media_check_fd(fd, PLENTY, NULL, &look, reason, sizeof reason), ERR_BAD_RESULT, "flat");
    cr_expect_str_eq(look.color, "#781ec8");
    free(s.at);
}

Test(media, the_dominant_colour_is_not_the_first_nor_the_last_nor_the_mean)
{
    static const unsigned char colors[][4] = { { 10, 20, 30, 255 }, { 130, 90, 200, 255 }, { 250, 250, 240, 255 } };
    struct media_thumb *thumb = media_thumb_new(100, 100);
    struct media_look look;
    unsigned char line[400];

    for (int x = 0; x < 100; x++)
        memcpy(line + 4 * (size_t)x, colors[x < 30 ? 0 : x < 75 ? 1 : 2], 4);
    for (int y = 0; y < 100; y++)
        media_thumb_line(thumb, y, 0, 1, line, 100);
    media_thumb_end(thumb, &look);
    cr_expect_str_eq(look.color, "#825ac8");
    memset(line, 0, sizeof line); /* nothing but transparent: there is no colour */
    thumb = media_thumb_new(100, 1);
    media_thumb_line(thumb, 0, 0, 1, line, 100);
    media_thumb_end(thumb, &look);
    cr_expect_str_eq(look.color, "");
    cr_expect_eq(strlen(look.blurhash), 28, "it lies on white: %s", look.blurhash);
}
