/* text.c - memory, growing strings, shared bytes, ids and hashes for the sandbox (see text.h). */
#include "text.h"

#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static void text_no_memory(void)
{
    (void)fputs("kiln-sandbox: out of memory\n", stderr); /* nothing better can be done about a failed write */
    abort();
}

void *text_alloc(size_t bytes)
{
    void *p = calloc(1, bytes == 0 ? 1 : bytes);
    if (p == NULL)
        text_no_memory();
    return p;
}

void *text_grow(void *p, size_t bytes)
{
    void *q = realloc(p, bytes == 0 ? 1 : bytes);
    if (q == NULL)
        text_no_memory();
    return q;
}

char *text_dup_n(const char *s, size_t len)
{
    char *p = text_alloc(len + 1);
    memcpy(p, s, len);
    return p;
}

char *text_dup(const char *s)
{
    return s == NULL ? NULL : text_dup_n(s, strlen(s));
}

static void buf_reserve(struct buf *b, size_t more)
{
    size_t need = b->len + more + 1;
    if (need <= b->cap)
        return;
    size_t cap = b->cap < 256 ? 256 : b->cap * 2;
    if (cap < need)
        cap = need;
    b->data = text_grow(b->data, cap);
    b->cap = cap;
}

void buf_add(struct buf *b, const void *data, size_t len)
{
    buf_reserve(b, len);
    if (len > 0)
        memcpy(b->data + b->len, data, len);
    b->len += len;
    b->data[b->len] = '\0';
}

void buf_str(struct buf *b, const char *s)
{
    buf_add(b, s, strlen(s));
}

void buf_fmt(struct buf *b, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n > 0) {
        buf_reserve(b, (size_t)n);
        (void)vsnprintf(b->data + b->len, (size_t)n + 1, fmt, again); /* measured just above */
        b->len += (size_t)n;
    }
    va_end(again);
}

void buf_base64(struct buf *b, const unsigned char *data, size_t len)
{
    size_t room = sodium_base64_encoded_len(len, sodium_base64_VARIANT_ORIGINAL);
    buf_reserve(b, room);
    sodium_bin2base64(b->data + b->len, room, data, len, sodium_base64_VARIANT_ORIGINAL);
    b->len += room - 1;
}

void buf_done(struct buf *b)
{
    free(b->data);
    *b = (struct buf){ 0 };
}

struct blob *blob_new(const void *data, size_t len)
{
    struct blob *b = text_alloc(sizeof *b + len);
    atomic_init(&b->refs, 1);
    b->len = len;
    if (len > 0)
        memcpy(b->data, data, len);
    return b;
}

struct blob *blob_hold(struct blob *b)
{
    if (b != NULL)
        atomic_fetch_add(&b->refs, 1);
    return b;
}

void blob_drop(struct blob *b)
{
    if (b != NULL && atomic_fetch_sub(&b->refs, 1) == 1)
        free(b);
}

void text_random_hex(char *out, size_t digits)
{
    static const char hex[] = "0123456789abcdef";
    unsigned char raw[64];
    for (size_t i = 0; i < digits; i++) {
        if (i % sizeof raw == 0)
            randombytes_buf(raw, sizeof raw);
        out[i] = hex[raw[i % sizeof raw] & 15];
    }
    out[digits] = '\0';
}

void text_uuid(char out[37])
{
    char hex[33];
    text_random_hex(hex, 32);
    hex[12] = '4';
    hex[16] = '8';
    (void)snprintf(out, 37, "%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8, hex + 12, hex + 16, hex + 20);
}

bool text_is_uuid(const char *s)
{
    if (strlen(s) != 36)
        return false;
    for (int i = 0; i < 36; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        if (dash ? s[i] != '-' : strchr("0123456789abcdefABCDEF", s[i]) == NULL)
            return false;
    }
    return true;
}

uint64_t text_hash(const void *data, size_t len)
{
    uint64_t h = 0;
    crypto_generichash_state st; /* not a table hash: pictures are drawn from it, so every bit has to be good */
    unsigned char out[crypto_generichash_BYTES_MIN];
    crypto_generichash_init(&st, NULL, 0, sizeof out);
    crypto_generichash_update(&st, data, len);
    crypto_generichash_final(&st, out, sizeof out);
    memcpy(&h, out, sizeof h);
    return h;
}

void text_fingerprint(const char *s, char out[17])
{
    (void)snprintf(out, 17, "%016llx", (unsigned long long)text_hash(s, strlen(s)));
}

size_t text_characters(const char *utf8)
{
    size_t n = 0;
    for (; *utf8 != '\0'; utf8++)
        n += ((unsigned char)*utf8 & 0xC0) != 0x80;
    return n;
}

static int text_hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

bool text_find_arg(const char *query, const char *name, char *out, size_t cap)
{
    size_t name_len = strlen(name);
    for (const char *p = query; p != NULL && *p != '\0';) {
        const char *end = strchr(p, '&');
        size_t len = end == NULL ? strlen(p) : (size_t)(end - p);
        if (len > name_len && strncmp(p, name, name_len) == 0 && p[name_len] == '=') {
            size_t o = 0;
            for (size_t i = name_len + 1; i < len && o + 1 < cap; i++) {
                int hi = -1, lo = -1;
                if (p[i] == '%' && i + 2 < len) {
                    hi = text_hex_digit(p[i + 1]);
                    lo = text_hex_digit(p[i + 2]);
                }
                if (hi >= 0 && lo >= 0) {
                    out[o++] = (char)(hi * 16 + lo);
                    i += 2;
                } else {
                    out[o++] = p[i] == '+' ? ' ' : p[i];
                }
            }
            out[o] = '\0';
            return true;
        }
        p = end == NULL ? NULL : end + 1;
    }
    return false;
}

int text_casecmp(const char *a, const char *b)
{
    return strcasecmp(a, b);
}

int text_casecmp_n(const char *a, const char *b, size_t n)
{
    return strncasecmp(a, b, n);
}
