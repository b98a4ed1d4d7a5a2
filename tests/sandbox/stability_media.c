/* stability_media.c - sounds and models as small real files: a wav with a tone, an mp3 of whole frames, a GLB with one
 * coloured triangle. The same seed gives the same bytes. */
#include "stability_form.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WAV_HZ = 8000, MP3_FRAME = 104, MP3_HZ = 44100, MP3_SAMPLES = 1152 }; /* 32 kbit/s, MPEG-1 layer III, mono */

static void put32(unsigned char *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (unsigned char)(v >> 8 * i & 0xff);
}

static uint32_t get32(const unsigned char *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static struct blob *sound_wav(double seconds, uint64_t seed)
{
    uint32_t samples = (uint32_t)(seconds * WAV_HZ);
    size_t len = 44 + (size_t)samples;
    unsigned char *w = text_alloc(len);
    double step = 6.283185307179586 * (double)(200 + seed % 400) / WAV_HZ;
    memcpy(w, "RIFF....WAVEfmt ", 16);
    put32(w + 4, (uint32_t)len - 8);
    put32(w + 16, 16);
    w[20] = w[22] = 1; /* PCM, mono */
    put32(w + 24, WAV_HZ);
    put32(w + 28, WAV_HZ);
    w[32] = 1;
    w[34] = 8;
    memcpy(w + 36, "data", 4);
    put32(w + 40, samples);
    for (uint32_t i = 0; i < samples; i++)
        w[44 + i] = (unsigned char)(128 + 60 * sin(step * i));
    struct blob *b = blob_new(w, len);
    free(w);
    return b;
}

/* Frames whose side information says: nothing but silence; the seed lies in the ancillary bytes. */
static struct blob *sound_mp3(double seconds, uint64_t seed)
{
    size_t frames = (size_t)(seconds * MP3_HZ / MP3_SAMPLES + 0.999);
    unsigned char *m = text_alloc(frames * MP3_FRAME);
    for (size_t i = 0; i < frames; i++) {
        unsigned char *f = m + i * MP3_FRAME;
        f[0] = 0xff;
        f[1] = 0xfb;
        f[2] = 0x10;
        f[3] = 0xc0;
        put32(f + 60, (uint32_t)(seed & 0x7f7f7f7f));
    }
    struct blob *b = blob_new(m, frames * MP3_FRAME);
    free(m);
    return b;
}

struct blob *media_sound(bool is_wav, double seconds, uint64_t seed)
{
    return is_wav ? sound_wav(seconds, seed) : sound_mp3(seconds, seed);
}

struct blob *media_glb(uint64_t seed)
{
    struct buf json = { 0 };
    float corners[9] = { 0, 0, 0, 1, 0, 0, 0, 1, (float)(seed % 100) / 100 };
    buf_fmt(
        &json,
        "{\"asset\":{\"version\":\"2.0\",\"generator\":\"sandbox\"},\"scene\":0,\"scenes\":[{\"nodes\":[0]}],"
        "\"nodes\":[{\"mesh\":0}],\"meshes\":[{\"primitives\":[{\"attributes\":{\"POSITION\":0}}]}],"
        "\"accessors\":[{\"bufferView\":0,\"componentType\":5126,\"count\":3,\"type\":\"VEC3\",\"min\":[0,0,0],"
        "\"max\":[1,1,%.2f]}],\"bufferViews\":[{\"buffer\":0,\"byteLength\":36}],\"buffers\":[{\"byteLength\":36}]}",
        (double)corners[8]);
    while (json.len % 4 != 0)
        buf_str(&json, " ");
    size_t len = 12 + 8 + json.len + 8 + sizeof corners;
    unsigned char *g = text_alloc(len);
    memcpy(g, "glTF", 4);
    put32(g + 4, 2);
    put32(g + 8, (uint32_t)len);
    put32(g + 12, (uint32_t)json.len);
    memcpy(g + 16, "JSON", 4);
    memcpy(g + 20, json.data, json.len);
    put32(g + 20 + json.len, sizeof corners);
    memcpy(g + 24 + json.len, "BIN\0", 4);
    memcpy(g + 28 + json.len, corners, sizeof corners);
    struct blob *b = blob_new(g, len);
    free(g);
    buf_done(&json);
    return b;
}

static double wav_seconds(const unsigned char *data, size_t len)
{
    uint32_t rate = 0;
    for (size_t at = 12; at + 8 <= len;) {
        uint32_t size = get32(data + at + 4);
        if (memcmp(data + at, "fmt ", 4) == 0 && at + 20 <= len)
            rate = get32(data + at + 16);
        if (memcmp(data + at, "data", 4) == 0)
            return rate == 0 ? -1 : (double)size / rate;
        at += 8 + (size_t)size + (size & 1);
    }
    return -1;
}

double media_seconds(const unsigned char *data, size_t len)
{
    static const int kbit[] = { 0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0 };
    size_t at = 0;
    if (len >= 12 && memcmp(data, "RIFF", 4) == 0 && memcmp(data + 8, "WAVE", 4) == 0)
        return wav_seconds(data, len);
    if (len >= 10 && memcmp(data, "ID3", 3) == 0)
        at = 10 + ((size_t)data[6] << 21 | (size_t)data[7] << 14 | (size_t)data[8] << 7 | data[9]);
    if (at + 4 > len || data[at] != 0xff || (data[at + 1] & 0xfe) != 0xfa || kbit[data[at + 2] >> 4] == 0)
        return -1;
    return (double)(len - at) * 8 / (kbit[data[at + 2] >> 4] * 1000.0);
}
