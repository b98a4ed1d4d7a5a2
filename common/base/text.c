/* text.c - growing buffers, hex and base64, URL parts, numbers and UTF-8. Times and UUIDs are in text_time.c, hashes
 * and random bytes in text_crypto.c. */
#include "common/base/text.h"
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BUF_CEILING = 64 * 1024 * 1024, BUF_FIRST = 256 };

void buf_done(struct buf *b)
{
    free(b->data);
    b->data = NULL;
    b->len = b->cap = 0;
    b->is_full = false;
}

/* Room for `more` bytes and the NUL. */
static bool buf_room(struct buf *b, size_t more)
{
    size_t ceiling = b->ceiling ? b->ceiling : BUF_CEILING;
    size_t cap = b->cap ? b->cap : BUF_FIRST;
    char *data;

    if (b->is_full || more > ceiling || b->len > ceiling - more) {
        b->is_full = true;
        return false;
    }
    if (b->cap > b->len + more)
        return true;
    while (cap <= b->len + more)
        cap *= 2;
    if (cap > ceiling + 1)
        cap = ceiling + 1;
    data = realloc(b->data, cap);
    if (!data) {
        b->is_full = true;
        return false;
    }
    b->data = data;
    b->cap = cap;
    return true;
}

bool buf_add(struct buf *b, const void *data, size_t len)
{
    if (!buf_room(b, len))
        return false;
    if (len)
        memcpy(b->data + b->len, data, len);
    b->len += len;
    b->data[b->len] = 0;
    return true;
}

const char *i64_text(char out[I64_TEXT], int64_t n, size_t *len)
{
    size_t at = I64_TEXT;
    uint64_t rest = n < 0 ? 0 - (uint64_t)n : (uint64_t)n;

    do
        out[--at] = (char)('0' + rest % 10);
    while ((rest /= 10) > 0);
    if (n < 0)
        out[--at] = '-';
    *len = I64_TEXT - at;
    return out + at;
}

bool buf_str(struct buf *b, const char *s)
{
    return buf_add(b, s, strlen(s));
}

bool buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list args;
    int len;

    va_start(args, fmt);
    len = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (len < 0 || !buf_room(b, (size_t)len)) {
        b->is_full = true;
        return false;
    }
    va_start(args, fmt);
    (void)vsnprintf(b->data + b->len, (size_t)len + 1, fmt, args); /* measured above */
    va_end(args);
    b->len += (size_t)len;
    return true;
}

char *buf_take(struct buf *b)
{
    char *data = b->data;
    b->data = NULL;
    b->len = b->cap = 0;
    b->is_full = false;
    return data;
}

void hex_encode(char *out, const void *in, size_t len)
{
    (void)sodium_bin2hex(out, len * 2 + 1, in, len);
}

bool hex_decode(void *out, size_t out_len, const char *hex)
{
    size_t len = 0;
    return hex && strlen(hex) == out_len * 2 && sodium_hex2bin(out, out_len, hex, out_len * 2, NULL, &len, NULL) == 0 &&
           len == out_len;
}

size_t base64_decoded_max(size_t len)
{
    return len / 4 * 3 + 3;
}

/* libsodium 1.0.18 takes most bytes above 0x7f for its last two digits ('+' and '/', '-' and '_'). */
static bool is_ascii(const char *s, size_t len)
{
    unsigned char all = 0;

    for (size_t i = 0; i < len; i++)
        all |= (unsigned char)s[i];
    return all < 0x80;
}

static enum err base64_by(int variant, void *out, size_t cap, size_t *out_len, const char *in, size_t len)
{
    size_t n = 0;
    if (!is_ascii(in, len) || sodium_base642bin(out, cap, in, len, NULL, &n, NULL, variant) != 0)
        return ERR_ARGUMENT;
    *out_len = n;
    return ERR_OK;
}

enum err base64_decode(void *out, size_t cap, size_t *out_len, const char *in, size_t len)
{
    return base64_by(sodium_base64_VARIANT_ORIGINAL, out, cap, out_len, in, len);
}

enum err base64url_decode(void *out, size_t cap, size_t *out_len, const char *in, size_t len)
{
    return base64_by(sodium_base64_VARIANT_URLSAFE_NO_PADDING, out, cap, out_len, in, len);
}

char *base64_encode(char *out, size_t cap, const void *in, size_t len)
{
    if (len > SIZE_MAX / 2 || cap < sodium_base64_ENCODED_LEN(len, sodium_base64_VARIANT_ORIGINAL))
        return NULL;
    return sodium_bin2base64(out, cap, in, len, sodium_base64_VARIANT_ORIGINAL);
}

char *base64url_encode(char *out, size_t cap, const void *in, size_t len)
{
    if (len > SIZE_MAX / 2 || cap < sodium_base64_ENCODED_LEN(len, sodium_base64_VARIANT_URLSAFE_NO_PADDING))
        return NULL;
    return sodium_bin2base64(out, cap, in, len, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
}

static bool url_is_unreserved(unsigned char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_' ||
           c == '.' || c == '~';
}

static char *url_encode(struct arena *a, const char *s, bool dots_too)
{
    static const char digit[] = "0123456789ABCDEF";
    size_t n = 0;
    char *out, *p;

    if (!s)
        return NULL;
    n = strlen(s);
    if (n > SIZE_MAX / 4)
        return NULL;
    p = out = arena_alloc(a, n * 3 + 1);
    if (!out)
        return NULL;
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (url_is_unreserved(c) && !(dots_too && c == '.')) {
            *p++ = (char)c;
        } else {
            *p++ = '%';
            *p++ = digit[c >> 4];
            *p++ = digit[c & 15];
        }
    }
    return out;
}

/* "." and ".." would climb when a client tidies the path, so a segment of dots alone is encoded too. */
char *url_segment(struct arena *a, const char *s)
{
    bool only_dots = s && *s && s[strspn(s, ".")] == 0;
    return url_encode(a, s, only_dots);
}

char *url_query_escape(struct arena *a, const char *s)
{
    return url_encode(a, s, false);
}

static int url_hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

enum err url_unescape(char *out, size_t cap, const char *in, size_t len, bool plus_is_space)
{
    size_t n = 0;

    for (size_t i = 0; i < len; i++) {
        int c = (unsigned char)in[i];
        if (c == '%') {
            int high = i + 2 < len || i + 2 == len - 1 ? url_hex(in[i + 1]) : -1;
            int low = high >= 0 ? url_hex(in[i + 2]) : -1;
            if (low < 0)
                return ERR_ARGUMENT;
            c = high * 16 + low;
            i += 2;
        } else if (c == '+' && plus_is_space) {
            c = ' ';
        }
        if (c == 0 || n + 1 >= cap)
            return ERR_ARGUMENT;
        out[n++] = (char)c;
    }
    if (cap == 0)
        return ERR_ARGUMENT;
    out[n] = 0;
    return ERR_OK;
}

enum err parse_i64(const char *s, int64_t min, int64_t max, int64_t *out)
{
    const char *digits = s && *s == '-' ? s + 1 : s;
    long long value;
    char *end;

    if (!s || *digits == 0 || digits[strspn(digits, "0123456789")] != 0)
        return ERR_ARGUMENT;
    errno = 0;
    value = strtoll(s, &end, 10);
    if (errno != 0 || *end != 0 || value < min || value > max)
        return ERR_ARGUMENT;
    *out = value;
    return ERR_OK;
}

enum err parse_double(const char *s, double *out)
{
    double value;
    char *end;

    /* strtod would also take blanks, "inf", "nan" and hex. */
    if (!s || *s == 0 || s[strspn(s, "0123456789.eE+-")] != 0 || *s == '+')
        return ERR_ARGUMENT;
    value = strtod(s, &end);
    if (end == s || *end != 0 || !isfinite(value))
        return ERR_ARGUMENT;
    *out = value;
    return ERR_OK;
}

size_t utf8_step(const char *s, size_t len)
{
    const unsigned char *p = (const unsigned char *)s;
    size_t n;

    if (len == 0)
        return 0;
    if (p[0] < 0x80)
        return 1;
    if (p[0] >= 0xc2 && p[0] <= 0xdf)
        n = 2;
    else if ((p[0] & 0xf0) == 0xe0)
        n = 3;
    else if (p[0] >= 0xf0 && p[0] <= 0xf4)
        n = 4;
    else
        return 0;
    if (n > len)
        return 0;
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    }
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) ||
        (p[0] == 0xf4 && p[1] > 0x8f))
        return 0; /* overlong, surrogate, beyond U+10FFFF */
    return n;
}

bool utf8_valid(const char *s, size_t len)
{
    while (len > 0) {
        size_t n = (unsigned char)*s < 0x80 ? 1 : utf8_step(s, len); /* mostly ASCII, and then no call */
        if (n == 0)
            return false;
        s += n;
        len -= n;
    }
    return true;
}

size_t utf8_length(const char *s, size_t len)
{
    size_t count = 0;
    while (len > 0) {
        size_t n = utf8_step(s, len);
        if (n == 0)
            n = 1;
        s += n;
        len -= n;
        count++;
    }
    return count;
}

size_t utf8_cut(const char *s, size_t len, size_t max_bytes)
{
    size_t at = max_bytes;

    if (len <= max_bytes)
        return len;
    while (at > 0 && max_bytes - at < 4 && ((unsigned char)s[at] & 0xc0) == 0x80)
        at--;
    return ((unsigned char)s[at] & 0xc0) == 0x80 ? max_bytes : at; /* four in a row: not UTF-8 anyway */
}

/* "\u0000" as six characters at s[i], the backslash not itself escaped. jsonb refuses it, so text that is JSON must not
 * carry it into PostgreSQL. */
static bool text_is_nul_escape(const char *s, size_t len, size_t i)
{
    size_t before = 0;
    if (len - i < 6 || memcmp(s + i, "\\u0000", 6) != 0)
        return false;
    while (before < i && s[i - before - 1] == '\\')
        before++;
    return before % 2 == 0;
}

char *text_clean(struct arena *a, const char *s, size_t len, size_t max_bytes)
{
    static const char replacement[] = "\xef\xbf\xbd";
    struct buf b = { .ceiling = max_bytes };
    char *out;
    size_t i = 0;

    if (!s || max_bytes == 0)
        return s ? arena_strdup(a, "") : NULL;
    while (i < len && !b.is_full) {
        size_t n = utf8_step(s + i, len - i);
        char c = s[i];

        if (c == '\n' || c == '\t' || c == '\r') {
            (void)buf_add(&b, " ", 1); /* a full buffer ends the loop, here and below */
        } else if (n == 0 || (n == 1 && (unsigned char)c < 0x20)) {
            (void)buf_add(&b, replacement, 3);
            n = 1;
        } else if (text_is_nul_escape(s, len, i)) {
            (void)buf_add(&b, replacement, 3);
            n = 6;
        } else {
            (void)buf_add(&b, s + i, n);
        }
        i += n;
    }
    out = arena_strndup(a, b.data ? b.data : "", b.len);
    buf_done(&b);
    return out;
}

void text_plain(char *s)
{
    size_t len = strlen(s);

    for (size_t i = 0; i < len;) {
        size_t n = utf8_step(s + i, len - i);

        if (n == 0 || (unsigned char)s[i] < 0x20 || s[i] == 0x7f)
            s[i] = '?';
        i += n > 0 ? n : 1;
    }
}

int64_t credits_parse_mc(const char *s, bool *ok)
{
    bool is_negative = s && *s == '-';
    const char *p = is_negative ? s + 1 : s;
    int64_t mc = 0;
    int decimals = 0;

    *ok = false;
    if (!p || *p < '0' || *p > '9')
        return 0;
    for (; *p >= '0' && *p <= '9'; p++) {
        if (mc > INT64_MAX / 1000 / 10 - 10)
            return 0;
        mc = mc * 10 + (*p - '0');
    }
    if (*p == '.') {
        for (p++; *p >= '0' && *p <= '9' && decimals < 3; p++, decimals++)
            mc = mc * 10 + (*p - '0');
        if (decimals == 0)
            return 0;
    }
    if (*p != 0)
        return 0;
    for (; decimals < 3; decimals++)
        mc *= 10;
    *ok = true;
    return is_negative ? -mc : mc;
}

void credits_format(char *out, size_t cap, int64_t mc)
{
    uint64_t n = mc < 0 ? 0 - (uint64_t)mc : (uint64_t)mc;
    int len = snprintf(out, cap, "%s%" PRIu64 ".%03" PRIu64, mc < 0 ? "-" : "", n / 1000, n % 1000);

    if (len < 0 || (size_t)len >= cap)
        return;
    while (out[len - 1] == '0')
        out[--len] = 0;
    if (out[len - 1] == '.')
        out[--len] = 0;
}
