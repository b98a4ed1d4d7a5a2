/* media_stream.c - is the file complete: walks chunks, segments, blocks, frames and boxes to the end they promise.
 *
 * Cheap and without a decode; what lies inside the chunks is the decoders' business. Bytes after the proper end are
 * tolerated (encoders pad), missing ones never. Each walk goes forward by at least one byte a step. */
#include <string.h>

#include "common/core/media_parts.h"

static const char cut[] = "cut: the file ends before its end";

const char *media_png_fault(struct media_bytes b)
{
    size_t at = 8;
    bool has_data = false;

    while (b.len - at >= 12) {
        uint32_t size = media_be32(b.at + at);
        const unsigned char *type = b.at + at + 4;

        if (size > INT32_MAX || size > b.len - at - 12)
            return cut;
        if (at == 8 && (size != 13 || memcmp(type, "IHDR", 4) != 0))
            return "a PNG without its header";
        if (memcmp(type, "IDAT", 4) == 0)
            has_data = true;
        if (memcmp(type, "IEND", 4) == 0)
            return has_data ? NULL : "a PNG without pixels";
        at += 12 + (size_t)size;
    }
    return cut;
}

const char *media_jpeg_fault(struct media_bytes b)
{
    size_t from = b.len > 1024 ? b.len - 1024 : 2;

    for (size_t at = b.len; at >= from + 2; at--) {
        if (b.at[at - 2] == 0xff && b.at[at - 1] == 0xd9)
            return NULL; /* whether the scans before it are whole is for the decoder to say */
    }
    return cut;
}

/* The RIFF length, without what follows it; 0: it does not fit. */
static size_t riff_end(struct media_bytes b)
{
    uint32_t size = b.len >= 12 ? media_le32(b.at + 4) : 0;

    return size >= 4 && size <= b.len - 8 ? (size_t)size + 8 : 0;
}

const char *media_webp_fault(struct media_bytes b, bool *is_animated)
{
    size_t end = riff_end(b), at = 12;
    bool has_image = false;

    if (end == 0)
        return cut;
    while (end - at >= 8) {
        uint32_t size = media_le32(b.at + at + 4);
        const unsigned char *type = b.at + at;

        if (size > end - at - 8)
            return cut;
        if (memcmp(type, "ANMF", 4) == 0)
            *is_animated = true;
        if (memcmp(type, "VP8 ", 4) == 0 || memcmp(type, "VP8L", 4) == 0 || memcmp(type, "ANMF", 4) == 0)
            has_image = true;
        at += 8 + (size_t)size;
        if ((size & 1) != 0 && at < end)
            at++;
    }
    return has_image ? NULL : "a WebP without an image";
}

const char *media_wav_fault(struct media_bytes b)
{
    size_t end = riff_end(b), at = 12;
    bool has_format = false, has_data = false;

    if (end == 0)
        return cut;
    while (end - at >= 8) {
        uint32_t size = media_le32(b.at + at + 4);

        if (size > end - at - 8)
            return cut;
        if (memcmp(b.at + at, "fmt ", 4) == 0 && size >= 16)
            has_format = true;
        if (memcmp(b.at + at, "data", 4) == 0 && size > 0)
            has_data = true;
        at += 8 + (size_t)size;
        if ((size & 1) != 0 && at < end)
            at++;
    }
    return has_format && has_data ? NULL : "a WAV without sound";
}

/* Sub-blocks: a length byte and so many bytes, until a length of 0. Returns the position after; 0: cut. */
static size_t gif_skip_blocks(struct media_bytes b, size_t at)
{
    while (at < b.len) {
        size_t size = b.at[at];

        if (size == 0)
            return at + 1;
        if (size >= b.len - at)
            return 0;
        at += 1 + size;
    }
    return 0;
}

static size_t gif_palette(unsigned flags)
{
    return (flags & 0x80) != 0 ? (size_t)3 << ((flags & 7) + 1) : 0;
}

const char *media_gif_fault(struct media_bytes b)
{
    size_t at = 13;
    bool has_image = false;

    if (b.len < 13)
        return cut;
    at += gif_palette(b.at[10]);
    while (at < b.len) {
        unsigned block = b.at[at];

        if (block == 0x3b)
            return has_image ? NULL : "a GIF without an image";
        if (block == 0x21 && b.len - at >= 2) {
            at = gif_skip_blocks(b, at + 2);
        } else if (block == 0x2c && b.len - at >= 10) {
            size_t data = at + 10 + gif_palette(b.at[at + 9]) + 1; /* after the code size */

            has_image = true;
            at = data < b.len ? gif_skip_blocks(b, data) : 0;
        } else {
            return b.len - at < 10 ? cut : "a GIF with a block that nobody knows";
        }
        if (at == 0)
            return cut;
    }
    return cut;
}

/* ---- MP3 */

size_t media_mp3_frame(const unsigned char *p, size_t len)
{
    /* kbit/s by [MPEG-1 or not][layer III, II, I][index] */
    static const short rates[2][3][16] = {
        { { 0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, -1 },
          { 0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, -1 },
          { 0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256, -1 } },
        { { 0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, -1 },
          { 0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, -1 },
          { 0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448, -1 } },
    };
    static const int hertz[3] = { 44100, 48000, 32000 };
    unsigned version, layer, rate, hz, padding;
    int kbit, samples_hz;

    if (len < 4 || p[0] != 0xff || (p[1] & 0xe0) != 0xe0)
        return 0;
    version = p[1] >> 3 & 3; /* 3: MPEG-1, 2: MPEG-2, 0: 2.5 */
    layer = p[1] >> 1 & 3;   /* 1: III, 2: II, 3: I */
    rate = p[2] >> 4;
    hz = p[2] >> 2 & 3;
    padding = p[2] >> 1 & 1;
    if (version == 1 || layer == 0 || rate == 15 || rate == 0 || hz == 3)
        return 0;
    kbit = rates[version == 3][layer - 1][rate];
    samples_hz = hertz[hz] / (version == 3 ? 1 : version == 2 ? 2 : 4);
    if (layer == 3)
        return (size_t)(12000 * kbit / samples_hz + (int)padding) * 4;
    return (size_t)((layer == 1 && version != 3 ? 72000 : 144000) * kbit / samples_hz + (int)padding);
}

static size_t mp3_tag_end(struct media_bytes b) /* after an ID3v2 tag in front; beyond len: cut */
{
    const unsigned char *p = b.at;

    if (b.len < 10 || memcmp(p, "ID3", 3) != 0)
        return 0;
    return 10 +
           ((size_t)(p[6] & 0x7f) << 21 | (size_t)(p[7] & 0x7f) << 14 | (size_t)(p[8] & 0x7f) << 7 | (p[9] & 0x7f)) +
           ((p[5] & 0x10) != 0 ? 10 : 0);
}

size_t media_mp3_sound(struct media_bytes b)
{
    size_t at = mp3_tag_end(b);

    while (at + 4 <= b.len && b.at[at] == 0) /* padding of the tag */
        at++;
    return at < b.len ? at : b.len;
}

int64_t media_mp3_bytes_per_s(const unsigned char *p, size_t len)
{
    static const int hertz[3] = { 44100, 48000, 32000 };
    size_t size = media_mp3_frame(p, len);
    unsigned version, layer;
    int64_t samples, hz;

    if (size == 0)
        return 0;
    version = p[1] >> 3 & 3;
    layer = p[1] >> 1 & 3;
    samples = layer == 3 ? 384 : layer == 1 && version != 3 ? 576 : 1152;
    hz = hertz[p[2] >> 2 & 3] / (version == 3 ? 1 : version == 2 ? 2 : 4);
    return (int64_t)size * hz / samples;
}

/* A Xing or Info header in the first frame tells how many bytes the whole has; 0: it does not. */
static size_t mp3_promised(const unsigned char *p, size_t len)
{
    for (size_t at = 4; at + 16 <= len && at <= 40; at++) {
        if (memcmp(p + at, "Xing", 4) != 0 && memcmp(p + at, "Info", 4) != 0)
            continue;
        if ((p[at + 7] & 2) == 0)
            return 0;
        at += (p[at + 7] & 1) != 0 ? 12 : 8;
        return at + 4 <= len ? media_be32(p + at) : 0;
    }
    return 0;
}

static bool mp3_is_tail(const unsigned char *p, size_t len) /* padding, or a tag behind the sound */
{
    size_t zeros = 0;

    if ((len == 128 && memcmp(p, "TAG", 3) == 0) || (len >= 32 && memcmp(p, "APETAGEX", 8) == 0))
        return true;
    while (zeros < len && p[zeros] == 0)
        zeros++;
    return zeros == len;
}

const char *media_mp3_fault(struct media_bytes b)
{
    size_t at = media_mp3_sound(b), frames = 0, promised;

    if (at >= b.len)
        return cut;
    promised = mp3_promised(b.at + at, b.len - at);
    if (promised > b.len - at)
        return cut;
    while (at < b.len) {
        size_t size = media_mp3_frame(b.at + at, b.len - at);

        if (size == 0)
            return frames > 0 && mp3_is_tail(b.at + at, b.len - at) ? NULL
                   : frames == 0                                    ? "an MP3 without sound"
                                                                    : "an MP3 with a broken frame";
        if (size > b.len - at)
            return cut;
        at += size;
        frames++;
    }
    return NULL;
}

/* ---- GLB and MP4 */

const char *media_glb_fault(struct media_bytes b)
{
    size_t end, at = 12;

    if (b.len < 20)
        return cut;
    if (media_le32(b.at + 4) != 2)
        return "a GLB of another version than 2";
    end = media_le32(b.at + 8);
    if (end > b.len || end < 20)
        return cut;
    if (memcmp(b.at + 16, "JSON", 4) != 0 || media_le32(b.at + 12) < 2)
        return "a GLB without its JSON";
    while (end - at >= 8) {
        uint32_t size = media_le32(b.at + at);

        if (size > end - at - 8)
            return cut;
        at += 8 + (size_t)size;
    }
    return at == end ? NULL : "a GLB whose chunks do not fill it";
}

const char *media_mp4_fault(struct media_bytes b)
{
    size_t at = 0;
    bool has_movie = false, has_data = false;

    while (b.len - at >= 8) {
        uint64_t size = media_be32(b.at + at), head = 8;
        const unsigned char *type = b.at + at + 4;

        if (size == 1) {
            if (b.len - at < 16)
                return cut;
            size = (uint64_t)media_be32(b.at + at + 8) << 32 | media_be32(b.at + at + 12);
            head = 16;
        } else if (size == 0) { /* to the end of the file */
            size = b.len - at;
        }
        if (size < head)
            return "an MP4 with a broken box";
        if (size > b.len - at)
            return cut;
        has_movie |= memcmp(type, "moov", 4) == 0;
        has_data |= memcmp(type, "mdat", 4) == 0 && size > head;
        at += (size_t)size;
    }
    if (at != b.len || !has_movie || !has_data)
        return cut;
    return NULL;
}
