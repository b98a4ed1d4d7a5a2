/* json_fast.h - the part of json_parse that reads ordinary JSON itself; only json.c and the tests call it. */
#ifndef KILN_JSON_FAST_H
#define KILN_JSON_FAST_H
#include <stddef.h>
#include <stdint.h>
#include <jansson.h>

/* New: what jansson makes of the same bytes, in the same order. NULL says nothing about them: ask jansson, whose errors
 * and rare cases (NUL in texts, escapes in keys, duplicates, deeper than JSON_MAX_DEPTH) are not repeated here. */
json_t *json_fast(const char *data, size_t len);

enum { JSON_STRIDE = 8 };

/* Of JSON_STRIDE bytes, the first the lowest: the top bit of each that no JSON text holds as it is, which are control
 * characters, '"' and '\\'. Right up to the first; a borrow may mark later ones. */
static inline uint64_t json_special(uint64_t w)
{
    const uint64_t ones = 0x0101010101010101, quotes = w ^ ones * '"', slashes = w ^ ones * '\\';

    return (((w - ones * ' ') & ~w) | ((quotes - ones) & ~quotes) | ((slashes - ones) & ~slashes)) & ones << 7;
}

static inline uint64_t json_stride(const char *at) /* one load */
{
    const unsigned char *p = (const unsigned char *)at;

    return (uint64_t)p[0] | (uint64_t)p[1] << 8 | (uint64_t)p[2] << 16 | (uint64_t)p[3] << 24 | (uint64_t)p[4] << 32 |
           (uint64_t)p[5] << 40 | (uint64_t)p[6] << 48 | (uint64_t)p[7] << 56;
}
#endif
