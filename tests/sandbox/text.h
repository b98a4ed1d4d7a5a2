/* text.h - the small things every file of the sandbox needs: memory that is there or ends the program,
 * a growing buffer, shared bytes, random ids, hashes, base64, percent-decoding.
 *
 * The sandbox is a test program: out of memory is the end of the test, said aloud, never a NULL to carry on with. */
#ifndef SANDBOX_TEXT_H
#define SANDBOX_TEXT_H
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARRAY_LEN(a)                    (sizeof(a) / sizeof((a)[0]))
#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

void *text_alloc(size_t bytes); /* zeroed, never NULL */
void *text_grow(void *p, size_t bytes);
char *text_dup(const char *s); /* NULL gives NULL */
char *text_dup_n(const char *s, size_t len);

/* A string that grows; always NUL-terminated once something was added. Zero-initialise it. */
struct buf {
    char *data;
    size_t len, cap;
};
void buf_add(struct buf *b, const void *data, size_t len);
void buf_str(struct buf *b, const char *s);
void buf_fmt(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_base64(struct buf *b, const unsigned char *data, size_t len);
void buf_done(struct buf *b);

/* Bytes with several holders, on any thread. */
struct blob {
    atomic_int refs;
    size_t len;
    unsigned char data[];
};
struct blob *blob_new(const void *data, size_t len);
struct blob *blob_hold(struct blob *b);
void blob_drop(struct blob *b); /* NULL is fine */

void text_random_hex(char *out, size_t digits); /* writes digits + NUL */
void text_uuid(char out[37]);
bool text_is_uuid(const char *s);
uint64_t text_hash(const void *data, size_t len);
void text_fingerprint(const char *s, char out[17]);                             /* what a key is called in reports */
size_t text_characters(const char *utf8);                                       /* code points, not bytes */
bool text_find_arg(const char *query, const char *name, char *out, size_t cap); /* decoded value of a query member */
int text_casecmp(const char *a, const char *b);
int text_casecmp_n(const char *a, const char *b, size_t n);
#endif
