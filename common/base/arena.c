/* arena.c - a list of blocks, newest first; allocation moves a mark in the newest one.
 *
 * Blocks double from 512 bytes to 64 KiB; what does not fit into such a block gets one of its own, put behind the
 * newest so that the space left there is still used. Memory is zeroed when it is handed out, not when the block is
 * made, so pages that nobody asked for are never touched. */
#include "common/base/arena.h"
#include <stdalign.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/small.h"

enum { BLOCK_FIRST = 512, BLOCK_LARGEST = 64 * 1024 };

struct block {
    struct block *next;
    size_t size, used; /* of bytes[] */
    alignas(max_align_t) unsigned char bytes[];
};

struct arena {
    struct block *blocks; /* the first one is carved from */
    size_t ceiling, held; /* held counts this struct and whole blocks */
    size_t next_block;    /* size of the next ordinary block, with its header */
};

struct arena *arena_new(size_t ceiling_bytes)
{
    struct arena *a = small_calloc(1, sizeof *a);
    if (!a)
        return NULL;
    a->ceiling = ceiling_bytes;
    a->held = sizeof *a;
    a->next_block = BLOCK_FIRST;
    return a;
}

void arena_free(struct arena *a)
{
    if (!a)
        return;
    for (struct block *b = a->blocks; b;) {
        struct block *next = b->next;
        small_free(b);
        b = next;
    }
    small_free(a);
}

size_t arena_used(const struct arena *a)
{
    return a ? a->held : 0;
}

static struct block *arena_block(struct arena *a, size_t need)
{
    size_t room = a->ceiling > a->held ? a->ceiling - a->held : 0;
    bool is_own = need + sizeof(struct block) > a->next_block; /* too large for an ordinary block */
    size_t total = is_own ? need + sizeof(struct block) : a->next_block;
    struct block *b;

    if (need + sizeof(struct block) > room)
        return NULL;
    if (total > room)
        total = room;
    b = small_malloc(total);
    if (!b)
        return NULL;
    b->size = total - sizeof *b;
    b->used = 0;
    a->held += total;
    if (a->next_block < BLOCK_LARGEST)
        a->next_block *= 2;
    if (is_own && a->blocks && a->blocks->size - a->blocks->used > b->size - need) {
        b->next = a->blocks->next;
        a->blocks->next = b;
    } else {
        b->next = a->blocks;
        a->blocks = b;
    }
    return b;
}

void *arena_alloc(struct arena *a, size_t size)
{
    const size_t step = alignof(max_align_t);
    struct block *b;
    void *p;

    if (!a || size > SIZE_MAX / 2)
        return NULL;
    size = size ? (size + step - 1) / step * step : step;
    b = a->blocks;
    if (!b || b->size - b->used < size)
        b = arena_block(a, size);
    if (!b)
        return NULL;
    p = b->bytes + b->used;
    b->used += size;
    return memset(p, 0, size);
}

char *arena_strdup(struct arena *a, const char *s)
{
    return s ? arena_memdup(a, s, strlen(s) + 1) : NULL;
}

char *arena_strndup(struct arena *a, const char *s, size_t n)
{
    const char *end;
    size_t len;
    char *copy;

    if (!s)
        return NULL;
    end = memchr(s, 0, n);
    len = end ? (size_t)(end - s) : n;
    copy = len < SIZE_MAX ? arena_alloc(a, len + 1) : NULL;
    if (copy)
        memcpy(copy, s, len);
    return copy;
}

void *arena_memdup(struct arena *a, const void *p, size_t n)
{
    void *copy = p ? arena_alloc(a, n) : NULL;
    if (copy && n)
        memcpy(copy, p, n);
    return copy;
}

char *arena_printf(struct arena *a, const char *fmt, ...)
{
    va_list args;
    char *out;
    int len;

    va_start(args, fmt);
    len = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (len < 0)
        return NULL;
    out = arena_alloc(a, (size_t)len + 1);
    if (!out)
        return NULL;
    va_start(args, fmt);
    (void)vsnprintf(out, (size_t)len + 1, fmt, args); /* measured above */
    va_end(args);
    return out;
}
