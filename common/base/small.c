/* small.c - classes of 16 bytes' distance, each with a stack of free blocks; chunks of one class in one region.
 *
 * Whether a block is one of these, and of which class, is told by its address. The region is address space only until
 * it is used; its beginning may be huge pages, as the heap's is (settings_memory), because where a page fault is dear
 * it is what these blocks cost. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include "common/base/small.h"
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    STEP_BYTES = 16, /* what malloc aligns to */
    CLASSES = SMALL_LARGEST / STEP_BYTES,
    CHUNK_BYTES = 16 * 1024,
    CHUNKS = 64 * 1024, /* a GiB */
    HUGE_BYTES = 256 * 1024 * 1024,
    HUGE_PAGE_BYTES = 2 * 1024 * 1024,
};

struct block { /* a free one */
    struct block *next;
};

static struct class
{
    struct block *free;
    char *fresh; /* of its newest chunk: never given out */
    size_t left; /* blocks from there on */
} classes[CLASSES];

static char *region; /* NULL: there is none */
static size_t region_bytes, chunk_count;
static unsigned char class_of[CHUNKS];            /* of each chunk in use */
static _Atomic(struct block *) returned[CLASSES]; /* freed by other threads */
static _Thread_local bool is_owner;

void small_begin(void)
{
    size_t bytes = (size_t)CHUNKS * CHUNK_BYTES, to_huge;
    void *map;

    if (region)
        return;
    map =
        mmap(NULL, bytes + HUGE_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED)
        return;
    to_huge = (HUGE_PAGE_BYTES - (uintptr_t)map % HUGE_PAGE_BYTES) % HUGE_PAGE_BYTES;
    region = (char *)map + to_huge;
    region_bytes = bytes;
    (void)madvise(region, HUGE_BYTES, MADV_HUGEPAGE); /* refused: there are none */
    is_owner = true;
}

static bool is_small(const void *p)
{
    return (uintptr_t)p - (uintptr_t)region < region_bytes;
}

static size_t class_at(const void *p)
{
    return class_of[((uintptr_t)p - (uintptr_t)region) / CHUNK_BYTES];
}

static void class_push(size_t class, void *p)
{
    struct block *b = p;

    b->next = classes[class].free;
    classes[class].free = b;
}

/* The next one's memory is on its way while this one is put to use: another thread may have touched it last. */
static void *class_pop(struct class *c)
{
    struct block *b = c->free;

    c->free = b->next;
    __builtin_prefetch(c->free, 1);
    return b;
}

/* What other threads gave back, all of it at once and none of it looked at, else a new chunk. */
static void *class_refill(size_t class)
{
    struct class *c = &classes[class];
    size_t bytes = (class + 1) * STEP_BYTES;

    if (atomic_load_explicit(&returned[class], memory_order_relaxed))
        c->free = atomic_exchange_explicit(&returned[class], NULL, memory_order_acquire);
    if (c->free)
        return class_pop(c);
    if (chunk_count == CHUNKS)
        return NULL;
    class_of[chunk_count] = (unsigned char)class;
    c->fresh = region + chunk_count++ * CHUNK_BYTES + bytes;
    c->left = CHUNK_BYTES / bytes - 1;
    return c->fresh - bytes;
}

static void *class_take(size_t class)
{
    struct class *c = &classes[class];
    void *p;

    if (c->free)
        return class_pop(c);
    if (c->left == 0)
        return class_refill(class);
    p = c->fresh;
    c->fresh += (class + 1) * STEP_BYTES;
    c->left--;
    return p;
}

/* NULL: not one of these, or none is left. */
static void *small_take(size_t size)
{
    return is_owner && size <= SMALL_LARGEST ? class_take(size > 0 ? (size - 1) / STEP_BYTES : 0) : NULL;
}

void *small_malloc(size_t size)
{
    void *p = small_take(size);

    return p ? p : malloc(size);
}

void *small_calloc(size_t count, size_t size)
{
    size_t bytes;
    void *p;

    if (__builtin_mul_overflow(count, size, &bytes))
        return NULL;
    p = small_take(bytes);
    return p ? memset(p, 0, bytes) : calloc(1, bytes);
}

void small_free(void *p)
{
    struct block *b = p;

    if (!is_small(p)) {
        free(p);
    } else if (is_owner) {
        class_push(class_at(p), p);
    } else {
        _Atomic(struct block *) *to = &returned[class_at(p)];

        b->next = atomic_load_explicit(to, memory_order_relaxed);
        while (!atomic_compare_exchange_weak_explicit(to, &b->next, b, memory_order_release, memory_order_relaxed))
            ;
    }
}

void *small_realloc(void *p, size_t size)
{
    size_t has;
    void *grown;

    if (!p)
        return small_malloc(size);
    if (!is_small(p))
        return realloc(p, size > 0 ? size : 1);
    has = (class_at(p) + 1) * STEP_BYTES;
    if (size <= has && size >= has / 2)
        return p;
    grown = small_malloc(size);
    if (grown) {
        memcpy(grown, p, size < has ? size : has);
        small_free(p);
    }
    return grown;
}

char *small_strdup(const char *s)
{
    size_t bytes = strlen(s) + 1;
    char *copy = small_malloc(bytes);

    return copy ? memcpy(copy, s, bytes) : NULL;
}
