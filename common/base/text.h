/* text.h - small pure functions on text: hex, base64, URL parts, RFC 3339, UUIDv7, numbers, growing buffers.
 *
 * Nothing here knows kiln. Functions that write take a buffer and its size, and say in bytes how much they wrote. */
#ifndef KILN_TEXT_H
#define KILN_TEXT_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/base/arena.h"
#include "common/base/err.h"

#define ARRAY_LEN(a)                    (sizeof(a) / sizeof((a)[0]))
#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

enum { UUID_TEXT = 37, UUID_BYTES = 16, SHA256_HEX = 65, RFC3339_TEXT = 25 }; /* sizes with the NUL */

/* A growing byte buffer with a ceiling. Zero-initialised but for `ceiling` (0: 64 MiB). Always NUL-terminated once
 * anything was written. After a failed write `is_full` stays set and everything else is refused. */
struct buf {
    char *data;
    size_t len, cap, ceiling;
    bool is_full;
};
void buf_done(struct buf *b);                              /* frees; back to empty */
bool buf_add(struct buf *b, const void *data, size_t len); /* false: ceiling or memory */
bool buf_str(struct buf *b, const char *s);
bool buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
char *buf_take(struct buf *b); /* hands the bytes over (free() them), buffer empty */

void hex_encode(char *out, const void *in, size_t len);      /* 2*len+1 bytes, lower case */
bool hex_decode(void *out, size_t out_len, const char *hex); /* exactly 2*out_len digits */

size_t base64_decoded_max(size_t len);
enum err base64_decode(void *out, size_t cap, size_t *out_len, const char *in, size_t len); /* strict; ERR_ARGUMENT */
char *base64_encode(char *out, size_t cap, const void *in, size_t len);    /* padded; NULL: cap too small */
char *base64url_encode(char *out, size_t cap, const void *in, size_t len); /* no padding; NULL: cap too small */
enum err base64url_decode(void *out, size_t cap, size_t *out_len, const char *in, size_t len);

char *url_segment(struct arena *a, const char *s); /* percent-encoded as one path segment; NULL in, NULL out */
char *url_query_escape(struct arena *a, const char *s);
enum err url_unescape(char *out, size_t cap, const char *in, size_t len, bool plus_is_space); /* refuses NUL, bad % */

void uuid_v7(char out[UUID_TEXT]);                   /* 48-bit ms, a counter that never goes back, 62 random bits */
bool uuid_valid(const char *s);                      /* canonical 8-4-4-4-12 hex, any case */
bool uuid_lower(char out[UUID_TEXT], const char *s); /* canonical lower case; false: not a UUID */
bool uuid_bytes(unsigned char out[UUID_BYTES], const char *s); /* false: not a UUID */
void uuid_random(char out[UUID_TEXT]);                         /* v4 */

void rfc3339_ms(char out[RFC3339_TEXT], int64_t wall_ms); /* 2026-11-20T10:11:12.123Z */
enum err rfc3339_parse(const char *s, int64_t *wall_ms);  /* Z or +hh:mm, optional fraction; ERR_ARGUMENT */
enum err http_date_parse(const char *s, int64_t *wall_s); /* IMF-fixdate, asctime, RFC 850 */

enum { I64_TEXT = 24 };
const char *i64_text(char out[I64_TEXT], int64_t n,
                     size_t *len); /* decimal, no NUL; somewhere in `out`. Not printf: hot */
enum err parse_i64(const char *s, int64_t min, int64_t max, int64_t *out); /* whole text, decimal; ERR_ARGUMENT */
enum err parse_double(const char *s, double *out);                         /* whole text, finite */

size_t utf8_step(const char *s, size_t len); /* bytes of the code point at s; 0: invalid, cut, or len 0 */
bool utf8_valid(const char *s, size_t len);
size_t utf8_length(const char *s, size_t len);                /* code points */
size_t utf8_cut(const char *s, size_t len, size_t max_bytes); /* longest prefix <= max_bytes that ends at a boundary */
/* Copies provider text for storage: invalid UTF-8 and C0 controls (NUL, and its escape \u0000 too) become U+FFFD, but
 * tab and line ends a blank, so that JSON stays JSON; cut to max_bytes at a boundary. */
char *text_clean(struct arena *a, const char *s, size_t len, size_t max_bytes);

void text_plain(char *s); /* in place: control characters, and bytes that are no UTF-8, become '?' */

int64_t credits_parse_mc(const char *s, bool *ok);      /* "12.5" -> 12500; at most three decimals */
void credits_format(char *out, size_t cap, int64_t mc); /* 12500 -> "12.5" */

void sha256_hex(char out[SHA256_HEX], const void *data, size_t len);
void hmac_sha256(unsigned char out[32], const void *key, size_t key_len, const void *data, size_t len);
void random_bytes(void *out, size_t len);
bool bytes_equal(const void *a, const void *b, size_t len); /* constant time */
#endif
