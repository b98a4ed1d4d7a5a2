/* fuzz_text.c - the small parsers of common/base/text: what they take, they give back. The first byte says which. */
#include <stdlib.h>
#include <string.h>
#include "common/base/text.h"
#include "tests/fuzz/fuzz.h"

static void base64(const char *s, size_t len)
{
    size_t cap = base64_decoded_max(len), got = 0;
    unsigned char *out = malloc(cap);
    char *text = malloc(len + 8);

    FUZZ_CLAIM(out && text);
    if (base64_decode(out, cap, &got, s, len) == ERR_OK)
        FUZZ_CLAIM(got <= cap && len % 4 == 0);
    if (base64url_decode(out, cap, &got, s, len) == ERR_OK) {
        FUZZ_CLAIM(base64url_encode(text, len + 8, out, got) != NULL);
        FUZZ_CLAIM(strlen(text) == len && memcmp(text, s, len) == 0);
    }
    free(out);
    free(text);
}

static void urls(struct arena *a, const char *s, size_t len)
{
    char *plain = malloc(len + 1), *again = malloc(3 * len + 1), *segment;

    FUZZ_CLAIM(plain && again);
    if (url_unescape(plain, len + 1, s, len, false) == ERR_OK) {
        segment = url_segment(a, plain);
        FUZZ_CLAIM(segment != NULL && strchr(segment, '/') == NULL && strcmp(segment, "..") != 0);
        FUZZ_CLAIM(url_unescape(again, 3 * len + 1, segment, strlen(segment), false) == ERR_OK);
        FUZZ_CLAIM(strcmp(again, plain) == 0);
    }
    if (url_unescape(plain, len + 1, s, len, true) == ERR_OK) {
        segment = url_query_escape(a, plain);
        FUZZ_CLAIM(segment != NULL && strpbrk(segment, "&=#? ") == NULL);
        FUZZ_CLAIM(url_unescape(again, 3 * len + 1, segment, strlen(segment), true) == ERR_OK);
        FUZZ_CLAIM(strcmp(again, plain) == 0);
    }
    free(plain);
    free(again);
}

static void times(const char *s)
{
    char text[RFC3339_TEXT];
    int64_t ms = 0, again = 0, seconds = 0;

    if (rfc3339_parse(s, &ms) == ERR_OK) {
        rfc3339_ms(text, ms);
        FUZZ_CLAIM(rfc3339_parse(text, &again) == ERR_OK && again == ms);
    }
    (void)http_date_parse(s, &seconds);
}

static void numbers(const char *s)
{
    char text[64];
    int64_t n = 0, mc;
    double d = 0;
    bool ok, again;

    if (parse_i64(s, -1000, 1000, &n) == ERR_OK)
        FUZZ_CLAIM(n >= -1000 && n <= 1000);
    (void)parse_i64(s, INT64_MIN, INT64_MAX, &n);
    if (parse_double(s, &d) == ERR_OK)
        FUZZ_CLAIM(d - d == 0); /* finite */
    mc = credits_parse_mc(s, &ok);
    if (ok) {
        credits_format(text, sizeof text, mc);
        FUZZ_CLAIM(credits_parse_mc(text, &again) == mc && again);
    }
}

static void names(const char *s)
{
    char lower[UUID_TEXT], hex[65];
    unsigned char bytes[32];

    FUZZ_CLAIM(uuid_lower(lower, s) == uuid_valid(s));
    if (uuid_valid(s))
        FUZZ_CLAIM(uuid_valid(lower) && strlen(s) == UUID_TEXT - 1);
    if (hex_decode(bytes, sizeof bytes, s)) {
        hex_encode(hex, bytes, sizeof bytes);
        FUZZ_CLAIM(strlen(s) == 64);
    }
}

static void utf8(struct arena *a, const char *s, size_t len)
{
    size_t max = len / 2 + 1, cut = utf8_cut(s, len, max);

    FUZZ_CLAIM(utf8_length(s, len) <= len && cut <= len && cut <= max);
    if (utf8_valid(s, len))
        FUZZ_CLAIM(utf8_valid(s, cut));
    fuzz_clean_text(text_clean(a, s, len, max), max);
    fuzz_clean_text(text_clean(a, s, len, 3 * len + 1), 3 * len + 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena *a;
    char *s;
    size_t len;

    if (size < 1)
        return 0;
    a = arena_new(1 << 20);
    s = fuzz_text(data + 1, size - 1);
    len = strlen(s);
    switch (data[0]) {
    case 'b':
        base64(s, len);
        break;
    case 'u':
        urls(a, s, len);
        break;
    case 't':
        times(s);
        break;
    case 'n':
        numbers(s);
        break;
    case 'i':
        names(s);
        break;
    default:
        utf8(a, (const char *)data + 1, size - 1);
        break;
    }
    free(s);
    arena_free(a);
    return 0;
}
