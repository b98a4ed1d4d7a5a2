/* blurhash.h - a picture in thirty characters: a few cosine waves of its colours, for a page to show until the picture
 * itself is there (blurha.sh). Pure; the colour space is sRGB, eight bits. */
#ifndef KILN_BLURHASH_H
#define KILN_BLURHASH_H
#include <stdbool.h>
#include <stddef.h>

enum { BLURHASH_COMPONENTS = 9, BLURHASH_TEXT = 4 + 2 * 81 + 1 };

/* rgb: rows without gaps. False: there are no pixels, or 1 to 9 components each way were not asked for. */
bool blurhash_encode(char out[BLURHASH_TEXT], const unsigned char *rgb, int width, int height, int across, int down);
#endif
