/* small.h - memory for what is small, comes by the thousand and goes soon: JSON values, curl's strings, arenas.
 *
 * A call in flight is some hundred such blocks, allocated among those of ten thousand other calls and freed in another
 * order. malloc then looks for neighbours to join and split; here a block has the size of its class, and the last one
 * freed is the next one taken. What was once taken from the system stays with the process.
 *
 * One thread owns all blocks: the one that called small_begin. It allocates and frees without locks. On every other
 * thread, before small_begin, above SMALL_LARGEST bytes, and when there is no more room these are malloc and its kin.
 * Any thread may free what any other allocated, by small_free; what came from small_… must never meet free(), and
 * reversely what came from malloc may be given to small_free and small_realloc. */
#ifndef KILN_SMALL_H
#define KILN_SMALL_H
#include <stddef.h>

enum { SMALL_LARGEST = 1024 };

/* Once a process, on the thread that will allocate most. Without address space for it all stays with malloc. */
void small_begin(void);

/* As malloc, calloc, realloc, free and strdup: zero bytes are a block, NULL is out of memory, blocks suit any type. */
void *small_malloc(size_t size);
void *small_calloc(size_t count, size_t size);
void *small_realloc(void *p, size_t size);
void small_free(void *p);
char *small_strdup(const char *s);
#endif
