/* blurhash.c - the encoder, after the algorithm's description: every component is the picture weighed by one cosine
 * wave in linear light; the first is the mean colour, the others are stored relative to the largest of them. */
#include "common/core/blurhash.h"

#include <math.h>

static const double pi = 3.14159265358979323846;

static double linear_of(unsigned char v)
{
    double x = v / 255.0;

    return x <= 0.04045 ? x / 12.92 : pow((x + 0.055) / 1.055, 2.4);
}

static int srgb_of(double x)
{
    x = x < 0 ? 0 : x > 1 ? 1 : x;
    return (int)((x <= 0.0031308 ? x * 12.92 : 1.055 * pow(x, 1 / 2.4) - 0.055) * 255 + 0.5);
}

static char *base83(char *to, int value, int digits)
{
    static const char alphabet[] =
        "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz#$%*+,-.:;=?@[]^_{|}~";

    for (int i = digits - 1; i >= 0; i--) {
        to[i] = alphabet[value % 83];
        value /= 83;
    }
    return to + digits;
}

static void component(double out[3], const unsigned char *rgb, int width, int height, int i, int j,
                      const double light[256])
{
    double scale = (i == 0 && j == 0 ? 1.0 : 2.0) / ((double)width * height);

    out[0] = out[1] = out[2] = 0;
    for (int y = 0; y < height; y++) {
        double down = cos(pi * j * y / height);

        for (int x = 0; x < width; x++) {
            const unsigned char *p = rgb + 3 * ((size_t)y * (size_t)width + (size_t)x);
            double basis = down * cos(pi * i * x / width);

            for (int c = 0; c < 3; c++)
                out[c] += basis * light[p[c]];
        }
    }
    for (int c = 0; c < 3; c++)
        out[c] *= scale;
}

/* -1 … 1 to 0 … 18, finer around nothing. */
static int quantised(double v)
{
    double q = floor(copysign(sqrt(fabs(v)), v) * 9 + 9.5);

    return q < 0 ? 0 : q > 18 ? 18 : (int)q;
}

bool blurhash_encode(char out[BLURHASH_TEXT], const unsigned char *rgb, int width, int height, int across, int down)
{
    double factors[BLURHASH_COMPONENTS * BLURHASH_COMPONENTS][3], light[256], largest = 0;
    int count = across * down, most = 0;
    char *at = out;

    out[0] = '\0';
    if (rgb == NULL || width < 1 || height < 1 || across < 1 || across > BLURHASH_COMPONENTS || down < 1 ||
        down > BLURHASH_COMPONENTS)
        return false;
    for (int v = 0; v < 256; v++)
        light[v] = linear_of((unsigned char)v);
    for (int k = 0; k < count; k++) {
        component(factors[k], rgb, width, height, k % across, k / across, light);
        for (int c = 0; c < 3 && k > 0; c++)
            largest = fmax(largest, fabs(factors[k][c]));
    }
    if (count > 1) {
        most = (int)fmax(0, fmin(82, floor(largest * 166 - 0.5)));
        largest = (most + 1) / 166.0;
    }
    at = base83(at, across - 1 + (down - 1) * 9, 1);
    at = base83(at, most, 1);
    at = base83(at, srgb_of(factors[0][0]) << 16 | srgb_of(factors[0][1]) << 8 | srgb_of(factors[0][2]), 4);
    for (int k = 1; k < count; k++)
        at = base83(at,
                    (quantised(factors[k][0] / largest) * 19 + quantised(factors[k][1] / largest)) * 19 +
                        quantised(factors[k][2] / largest),
                    2);
    *at = '\0';
    return true;
}
