/* test_blurhash.c - the encoder against published hashes: those of one colour, and the sample of blurha.sh, which is
 * drawn by a decoder that this test has of its own and must come back the same. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/text.h"
#include "common/core/blurhash.h"

static const char alphabet[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz#$%*+,-.:;=?@[]^_{|}~";

static int digits(const char *text, int count)
{
    int value = 0;

    while (count-- > 0)
        value = value * 83 + (int)(strchr(alphabet, *text++) - alphabet);
    return value;
}

static double to_light(int v)
{
    double x = v / 255.0;

    return x <= 0.04045 ? x / 12.92 : pow((x + 0.055) / 1.055, 2.4);
}

static unsigned char to_srgb(double x)
{
    x = x < 0 ? 0 : x > 1 ? 1 : x;
    return (unsigned char)((x <= 0.0031308 ? x * 12.92 : 1.055 * pow(x, 1 / 2.4) - 0.055) * 255 + 0.5);
}

static unsigned char *draw(const char *hash, int width, int height)
{
    int across = digits(hash, 1) % 9 + 1, down = digits(hash, 1) / 9 + 1, dc = digits(hash + 2, 4);
    double max = (digits(hash + 1, 1) + 1) / 166.0, colors[81][3];
    unsigned char *rgb = malloc((size_t)width * (size_t)height * 3);

    for (int c = 0; c < 3; c++)
        colors[0][c] = to_light(dc >> (16 - 8 * c) & 255);
    for (int k = 1; k < across * down; k++) {
        int value = digits(hash + 4 + 2 * k, 2), q[3] = { value / 361, value / 19 % 19, value % 19 };

        for (int c = 0; c < 3; c++)
            colors[k][c] = copysign(pow((q[c] - 9) / 9.0, 2), q[c] - 9) * max;
    }
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++)
            for (int c = 0; c < 3; c++) {
                double sum = 0;

                for (int k = 0; k < across * down; k++)
                    sum += colors[k][c] * cos(3.14159265358979323846 * x * (k % across) / width) *
                           cos(3.14159265358979323846 * y * (k / across) / height);
                rgb[3 * (y * width + x) + c] = to_srgb(sum);
            }
    return rgb;
}

Test(blurhash, one_colour_is_its_published_hash)
{
    static const struct {
        unsigned char rgb[3];
        const char *hash;
    } table[] = {
        { { 0, 0, 0 }, "000000" },
        { { 255, 255, 255 }, "00TSUA" },
        { { 255, 0, 0 }, "00TI:j" },
        { { 0, 0, 255 }, "000036" },
    };

    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        unsigned char rgb[8 * 5 * 3];
        char hash[BLURHASH_TEXT];

        for (size_t k = 0; k < sizeof rgb; k++)
            rgb[k] = table[i].rgb[k % 3];
        cr_assert(blurhash_encode(hash, rgb, 8, 5, 1, 1));
        cr_expect_str_eq(hash, table[i].hash);
    }
}

/* The light is rounded to eight bits and cut at black and white on the way, so a step of one in nineteen is let pass;
 * the first sample is cut most. */
Test(blurhash, published_samples_come_back)
{
    static const struct {
        const char *hash;
        int off;
    } samples[] = {
        { "LEHV6nWB2yk8pyo0adR*.7kCMdnj", 3 },
        { "LKO2:N%2Tw=w]~RBVZRi};RPxuwH", 0 },
        { "LNAdApj[00aymkj[TKay9}ay-Sj[", 0 },
    };

    for (size_t i = 0; i < ARRAY_LEN(samples); i++) {
        unsigned char *rgb = draw(samples[i].hash, 200, 160);
        char hash[BLURHASH_TEXT];
        int off = 0;

        cr_assert(blurhash_encode(hash, rgb, 200, 160, 4, 3));
        cr_expect_eq(strlen(hash), 28);
        cr_expect_eq(hash[0], samples[i].hash[0]);
        cr_expect_leq(abs(digits(hash + 1, 1) - digits(samples[i].hash + 1, 1)), 2, "%s: %s", samples[i].hash, hash);
        for (int shift = 0; shift <= 16; shift += 8)
            cr_expect_leq(abs((digits(hash + 2, 4) >> shift & 255) - (digits(samples[i].hash + 2, 4) >> shift & 255)),
                          3, "%s: %s", samples[i].hash, hash);
        for (int k = 6; k < 28; k += 2) {
            int a = digits(hash + k, 2), b = digits(samples[i].hash + k, 2);

            for (int div = 361; div > 0; div /= 19)
                off += abs(a / div % 19 - b / div % 19) > 1;
        }
        cr_expect_leq(off, samples[i].off, "%s became %s: %d of 33 waves are off", samples[i].hash, hash, off);
        free(rgb);
    }
}

Test(blurhash, what_cannot_be_encoded_is_refused)
{
    unsigned char rgb[3] = { 1, 2, 3 };
    char hash[BLURHASH_TEXT];

    cr_expect_not(blurhash_encode(hash, rgb, 0, 1, 4, 3));
    cr_expect_not(blurhash_encode(hash, rgb, 1, 1, 0, 3));
    cr_expect_not(blurhash_encode(hash, rgb, 1, 1, 4, 10));
    cr_expect_not(blurhash_encode(hash, NULL, 1, 1, 4, 3));
    cr_expect_str_eq(hash, "");
    cr_assert(blurhash_encode(hash, rgb, 1, 1, 9, 9), "the most that there is");
    cr_expect_eq(strlen(hash), BLURHASH_TEXT - 1);
}
