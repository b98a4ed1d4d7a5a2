/* test_small.c - small blocks: nothing overlaps, all comes back, and threads that own none of them may free them. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdalign.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/small.h"

enum { HELD = 4000, STEPS = 200000, THREADS = 2, ROUNDS = 50 };

struct held {
    unsigned char *p;
    size_t size;
    unsigned char fill;
};

static uint32_t random_next(uint32_t *state)
{
    *state = *state * 1664525 + 1013904223;
    return *state >> 8;
}

static void fill(struct held *h, unsigned char with)
{
    h->fill = with;
    if (h->size > 0)
        memset(h->p, with, h->size);
}

static bool is_whole(const struct held *h)
{
    for (size_t i = 0; i < h->size; i++) {
        if (h->p[i] != h->fill)
            return false;
    }
    return true;
}

static void take(struct held *h, uint32_t *state)
{
    h->size = random_next(state) % (SMALL_LARGEST + 200);
    h->p = random_next(state) % 2 ? small_malloc(h->size) : small_calloc(1, h->size);
    cr_assert_not_null(h->p);
    cr_assert_eq((uintptr_t)h->p % alignof(max_align_t), 0, "%zu bytes at %p", h->size, (void *)h->p);
    fill(h, (unsigned char)random_next(state));
}

Test(small, blocks_of_all_sizes_keep_what_is_written_to_them)
{
    static struct held all[HELD];
    uint32_t state = 1;

    small_begin();
    for (int i = 0; i < STEPS; i++) {
        struct held *h = &all[random_next(&state) % HELD];

        cr_assert(is_whole(h), "step %d: %zu bytes were written over", i, h->size);
        if (!h->p) {
            take(h, &state);
        } else if (random_next(&state) % 3 == 0) {
            size_t was = h->size, is = random_next(&state) % (SMALL_LARGEST + 200);
            unsigned char *p = small_realloc(h->p, is);

            cr_assert_not_null(p);
            *h = (struct held){ p, is < was ? is : was, h->fill };
            cr_assert(is_whole(h), "step %d: %zu to %zu bytes lost some", i, was, is);
            h->size = is;
            fill(h, (unsigned char)random_next(&state));
        } else {
            small_free(h->p);
            *h = (struct held){ 0 };
        }
    }
    for (int i = 0; i < HELD; i++)
        small_free(all[i].p);
}

Test(small, a_zeroed_block_is_zeroed_also_when_it_was_used_before)
{
    small_begin();
    for (size_t size = 0; size <= SMALL_LARGEST; size += 7) {
        unsigned char *p = small_malloc(size), *again;

        memset(p, 0xff, size);
        small_free(p);
        again = small_calloc(size, 1);
        for (size_t i = 0; i < size; i++)
            cr_assert_eq(again[i], 0, "byte %zu of %zu", i, size);
        small_free(again);
    }
    cr_expect_null(small_calloc(SIZE_MAX / 2 + 1, 2)); /* 0, if it is not looked at */
    cr_expect_null(small_calloc(2, SIZE_MAX / 2 + 1));
}

Test(small, what_was_freed_is_taken_again_first)
{
    void *first, *second;

    small_begin();
    first = small_malloc(100);
    second = small_malloc(100);
    small_free(first);
    small_free(second);
    cr_expect_eq(small_malloc(97), second);
    cr_expect_eq(small_malloc(112), first);
    cr_expect_neq(small_malloc(113), first);
}

static void *free_all(void *of)
{
    struct held *all = of;

    for (int i = 0; i < HELD; i++) {
        if (all[i].p && !is_whole(&all[i]))
            return NULL;
        small_free(all[i].p);
    }
    return of;
}

/* Rounds of the same number of blocks, each freed elsewhere while the next is taken: were they not taken again, each
 * round had new addresses. */
Test(small, what_other_threads_free_comes_back_to_its_owner)
{
    static struct held all[2][THREADS][HELD];
    uint32_t state = 7;
    uintptr_t lowest = UINTPTR_MAX, highest = 0;
    pthread_t threads[THREADS];

    small_begin();
    for (int round = 0; round <= ROUNDS; round++) {
        for (int t = 0; round < ROUNDS && t < THREADS; t++) {
            for (int i = 0; i < HELD; i++) {
                struct held *h = &all[round % 2][t][i];

                h->size = 1 + (size_t)i % 400;
                h->p = small_malloc(h->size);
                fill(h, (unsigned char)random_next(&state));
                lowest = (uintptr_t)h->p < lowest ? (uintptr_t)h->p : lowest;
                highest = (uintptr_t)h->p > highest ? (uintptr_t)h->p : highest;
            }
        }
        for (int t = 0; t < THREADS; t++) {
            void *ok;

            if (round > 0) {
                cr_assert_eq(pthread_join(threads[t], &ok), 0);
                cr_assert_not_null(ok, "round %d: a block was written over", round);
            }
            if (round < ROUNDS)
                cr_assert_eq(pthread_create(&threads[t], NULL, free_all, all[round % 2][t]), 0);
        }
    }
    cr_expect_leq(highest - lowest, (size_t)4 * THREADS * HELD * 208, "they take %zu bytes", highest - lowest);
}

/* No byte of them is touched: a GiB of address space, not of memory. */
Test(small, when_no_chunk_is_left_it_is_malloc_again)
{
    enum { ALL = 1 << 20 };
    char *first, *last = NULL, *more;

    small_begin();
    first = small_malloc(SMALL_LARGEST);
    for (int i = 1; i < ALL; i++)
        last = small_malloc(SMALL_LARGEST);
    cr_expect_eq(last - first, (ptrdiff_t)(ALL - 1) * SMALL_LARGEST);
    more = small_malloc(SMALL_LARGEST);
    cr_assert_not_null(more);
    free(more); /* ends the program if it is none of malloc's */
    small_free(last);
    cr_expect_eq((void *)small_malloc(SMALL_LARGEST), (void *)last);
}

static void *grow_there(void *p)
{
    char *grown = small_realloc(p, 600), *own = small_malloc(50), *copy = small_strdup("a copy");

    cr_expect_str_eq(copy, "a copy");
    small_free(own);
    small_free(copy);
    return grown;
}

Test(small, another_thread_may_let_a_block_grow)
{
    char *p;
    pthread_t thread;
    void *grown = NULL;

    small_begin();
    p = small_strdup("what was in it");
    cr_assert_eq(pthread_create(&thread, NULL, grow_there, p), 0);
    cr_assert_eq(pthread_join(thread, &grown), 0);
    cr_expect_str_eq(grown, "what was in it");
    small_free(grown);
}

Test(small, before_it_begins_and_for_what_is_large_it_is_malloc)
{
    char *early = small_malloc(40), *large;

    small_begin();
    early = small_realloc(early, 80); /* ASan would end this if it were taken for a small one */
    cr_assert_not_null(early);
    small_free(early);
    large = small_malloc(SMALL_LARGEST + 1);
    free(large);
    large = small_malloc(10);
    large = small_realloc(large, 5000);
    free(large);
    small_free(NULL);
}
