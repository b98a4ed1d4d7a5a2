/* test_arena.c - an arena gives zeroed, aligned, lasting memory up to its ceiling. */
#include <criterion/criterion.h>
#include <stdalign.h>
#include <stdint.h>
#include <string.h>
#include "common/base/arena.h"

Test(arena, what_it_gives_is_zeroed_aligned_and_stays_as_it_was_written)
{
    struct arena *a = arena_new(1 << 20);
    unsigned char *p[300];

    for (size_t i = 0; i < 300; i++) {
        p[i] = arena_alloc(a, i * 3);
        cr_assert_not_null(p[i]);
        cr_expect_eq((uintptr_t)p[i] % alignof(max_align_t), 0);
        for (size_t k = 0; k < i * 3; k++)
            cr_assert_eq(p[i][k], 0);
        memset(p[i], (int)(i & 0xff), i * 3);
    }
    for (size_t i = 0; i < 300; i++) {
        for (size_t k = 0; k < i * 3; k++)
            cr_assert_eq(p[i][k], i & 0xff);
    }
    arena_free(a);
}

Test(arena, is_small_until_it_is_used)
{
    struct arena *a = arena_new(1 << 20);
    cr_expect(arena_used(a) <= 128);
    cr_assert_not_null(arena_alloc(a, 16));
    cr_expect(arena_used(a) <= 128 + 512);
    arena_free(a);
}

Test(arena, never_holds_more_than_its_ceiling)
{
    struct arena *a = arena_new(10000);
    size_t given = 0;

    while (arena_alloc(a, 96))
        given += 96;
    cr_expect(given > 8000, "only %zu of 10000 usable", given);
    cr_expect(arena_used(a) <= 10000);
    cr_expect_null(arena_alloc(a, SIZE_MAX));
    cr_expect_null(arena_alloc(a, SIZE_MAX / 2));
    arena_free(a);
}

Test(arena, a_large_piece_does_not_waste_the_room_left_in_a_small_block)
{
    struct arena *a = arena_new(1 << 20);
    size_t used;

    cr_assert_not_null(arena_alloc(a, 16));
    cr_assert_not_null(arena_alloc(a, 100000));
    used = arena_used(a);
    cr_assert_not_null(arena_alloc(a, 200));
    cr_expect_eq(arena_used(a), used);
    arena_free(a);
}

Test(arena, copies_text_and_formats_it)
{
    struct arena *a = arena_new(1 << 16);
    cr_expect_str_eq(arena_strdup(a, "one"), "one");
    cr_expect_null(arena_strdup(a, NULL));
    cr_expect_str_eq(arena_strndup(a, "twofold", 3), "two");
    cr_expect_str_eq(arena_strndup(a, "x", 30), "x");
    cr_expect_str_eq(arena_printf(a, "%s-%d", "three", 3), "three-3");
    cr_expect_eq(memcmp(arena_memdup(a, "a\0b", 3), "a\0b", 3), 0);
    arena_free(a);
    arena_free(NULL);
}
