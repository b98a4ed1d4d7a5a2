/* arena.h - memory that lives exactly as long as one job or one request.
 *
 * Prompt, ticket, result and error text are carved from the arena and vanish together when it is freed. Nothing is
 * freed piece by piece; what must outlive it is copied out first. An arena has a ceiling: past it every call returns
 * NULL and that one job fails, the process carries on. A fresh arena costs one small allocation (about 100 bytes) until
 * used; blocks grow from 512 bytes. One arena belongs to one loop; there is no locking. */
#ifndef KILN_ARENA_H
#define KILN_ARENA_H
#include <stddef.h>
#include <stdarg.h>

struct arena;

struct arena *arena_new(size_t ceiling_bytes); /* NULL: out of memory */
void arena_free(struct arena *a);              /* NULL is fine */
size_t arena_used(const struct arena *a);      /* bytes held from the system */

void *arena_alloc(struct arena *a, size_t size);    /* zeroed, aligned for any type */
char *arena_strdup(struct arena *a, const char *s); /* NULL in, NULL out */
char *arena_strndup(struct arena *a, const char *s, size_t n);
void *arena_memdup(struct arena *a, const void *p, size_t n);
char *arena_printf(struct arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
#endif
