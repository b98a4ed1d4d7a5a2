/* test_store.c - an object is there whole or not at all, and no name leads out of the store's folder. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <criterion/criterion.h>
#include "common/core/store.h"

static char dir[64];

static struct store *open_store(void)
{
    struct store *s = NULL;
    char where[80];

    (void)snprintf(dir, sizeof(dir), "/tmp/kiln-store-XXXXXX");
    cr_assert_not_null(mkdtemp(dir));
    (void)snprintf(where, sizeof(where), "file:%s/a/b", dir);
    cr_assert_eq(store_open(where, &s), ERR_OK, "missing folders are made");
    return s;
}

static void close_store(struct store *s)
{
    char command[96];

    store_close(s);
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    (void)!system(command);
}

static void keep(struct store *s, const char *object, const char *text)
{
    char temp[1024];
    FILE *file;

    cr_assert_eq(store_temp(s, temp, sizeof(temp)), ERR_OK);
    file = fopen(temp, "w");
    cr_assert_not_null(file);
    (void)fputs(text, file);
    (void)fclose(file);
    cr_assert_eq(store_keep(s, temp, object), ERR_OK);
    cr_expect_neq(access(temp, F_OK), 0, "the temp file is gone");
}

static bool count_object(void *ctx, const char *object)
{
    cr_expect(store_object_valid(object), "%s", object);
    if (!strncmp(object, "job/ab/0193-x/2/", 16))
        ++*(int *)ctx;
    return true;
}

Test(store, keeps_bytes_under_their_name_and_finds_them_again)
{
    struct store *s = open_store();
    char path[1024], text[16] = "";
    int found = 0;
    FILE *file;

    keep(s, "job/ab/0193-x/2/0", "hello");
    keep(s, "job/ab/0193-x/2/1", "there");
    keep(s, "upload/cd/0193-y", "x");
    cr_assert_eq(store_path(s, "job/ab/0193-x/2/0", path, sizeof(path)), ERR_OK);
    file = fopen(path, "r");
    cr_assert_not_null(file);
    cr_expect_not_null(fgets(text, sizeof(text), file));
    (void)fclose(file);
    cr_expect_str_eq(text, "hello");
    cr_expect_eq(store_walk(s, "job/", 0, count_object, &found), ERR_OK);
    cr_expect_eq(found, 2, "the walk gives names as they were kept");
    cr_expect_eq(store_remove(s, "job/ab/0193-x/2/0"), ERR_OK);
    cr_expect_eq(store_remove(s, "job/ab/0193-x/2/0"), ERR_OK, "missing is fine");
    cr_expect_eq(store_path(s, "job/ab/0193-x/2/0", path, sizeof(path)), ERR_NOT_FOUND);
    cr_expect_eq(store_path(s, "job/ab/0193-x/2/1", path, sizeof(path)), ERR_OK);
    close_store(s);
}

Test(store, keeping_again_replaces_the_bytes)
{
    struct store *s = open_store();
    char path[1024];
    struct stat st;

    keep(s, "job/ab/x/1/0", "first");
    keep(s, "job/ab/x/1/0", "second!");
    cr_assert_eq(store_path(s, "job/ab/x/1/0", path, sizeof(path)), ERR_OK);
    cr_expect_eq(stat(path, &st), 0);
    cr_expect_eq(st.st_size, 7);
    close_store(s);
}

Test(store, refuses_names_that_are_not_of_our_making)
{
    static const char *const bad[] = { "",      "/etc/passwd", "job/../x", "job//x", "job/ab/",
                                       "Job/x", "job/a b",     "job/%2e",  "job/\n", "a.b" };
    struct store *s = open_store();
    char path[1024];

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        cr_expect_not(store_object_valid(bad[i]), "%s", bad[i]);
        cr_expect_eq(store_path(s, bad[i], path, sizeof(path)), ERR_ARGUMENT, "%s", bad[i]);
        cr_expect_eq(store_remove(s, bad[i]), ERR_ARGUMENT, "%s", bad[i]);
    }
    cr_expect_not(store_object_valid(NULL));
    close_store(s);
}

Test(store, a_link_is_not_an_object)
{
    struct store *s = open_store();
    char path[1024], link[2048];

    keep(s, "job/ab/x/1/0", "x");
    cr_assert_eq(store_path(s, "job/ab/x/1/0", path, sizeof(path)), ERR_OK);
    cr_assert_eq(unlink(path), 0);
    (void)snprintf(link, sizeof(link), "%s", path);
    cr_assert_eq(symlink("/etc/passwd", link), 0);
    cr_expect_eq(store_path(s, "job/ab/x/1/0", path, sizeof(path)), ERR_NOT_FOUND);
    close_store(s);
}

static void expect_bytes(struct store *s, const char *object, const char *want)
{
    char path[1024], text[32] = "";
    FILE *file;

    cr_assert_eq(store_path(s, object, path, sizeof(path)), ERR_OK, "%s", object);
    file = fopen(path, "r");
    cr_assert_not_null(file);
    (void)!fgets(text, sizeof(text), file);
    (void)fclose(file);
    cr_expect_str_eq(text, want);
}

Test(store, many_are_placed_first_and_synced_together)
{
    struct store *s = open_store();
    char names[9][40], temp[1024];
    const char *all[9];
    FILE *file;

    for (int i = 0; i < 9; i++) { /* more than are synced one by one */
        (void)snprintf(names[i], sizeof(names[i]), "job/a%d/x/1/0", i);
        all[i] = names[i];
        cr_assert_eq(store_put(s, names[i], "bytes", 5), ERR_OK);
    }
    cr_expect_eq(store_sync(s, all, 9), ERR_OK);
    cr_expect_eq(store_sync(s, all, 1), ERR_OK, "few: each by itself");
    expect_bytes(s, "job/a8/x/1/0", "bytes");
    cr_assert_eq(store_take_back(s, "job/a8/x/1/0", temp, sizeof(temp)), ERR_OK);
    file = fopen(temp, "a");
    (void)fputs(" again", file);
    (void)fclose(file);
    cr_expect_eq(store_place(s, temp, "job/a8/x/1/0"), ERR_OK);
    expect_bytes(s, "job/a8/x/1/0", "bytes again");
    cr_expect_neq(store_take_back(s, "job/zz/x/1/0", temp, sizeof(temp)), ERR_OK, "there is nothing to take");
    all[0] = "job/zz/x/1/0";
    cr_expect_eq(store_sync(s, all, 1), ERR_NOT_FOUND);
    cr_expect_eq(store_put(s, "../x", "b", 1), ERR_ARGUMENT);
    close_store(s);
}

Test(store, what_cannot_be_kept_leaves_nothing)
{
    struct store *s = open_store();
    char temp[1024], path[1024];

    cr_assert_eq(store_temp(s, temp, sizeof(temp)), ERR_OK);
    cr_expect_eq(store_keep(s, temp, "job/ab/x/1/0"), ERR_NOT_FOUND, "there is no such temp file");
    cr_expect_eq(store_path(s, "job/ab/x/1/0", path, sizeof(path)), ERR_NOT_FOUND);
    close_store(s);
}

Test(store, sweeps_temp_files_that_the_dead_left)
{
    struct store *s = open_store();
    char temp[1024];
    FILE *file;

    cr_assert_eq(store_temp(s, temp, sizeof(temp)), ERR_OK);
    file = fopen(temp, "w");
    cr_assert_not_null(file);
    (void)fclose(file);
    cr_expect_eq(store_sweep_temp(s, 3600), 0, "young ones are somebody's");
    cr_expect_eq(store_sweep_temp(s, -1), 1);
    cr_expect_neq(access(temp, F_OK), 0);
    close_store(s);
}

Test(store, says_no_to_what_is_no_folder)
{
    struct store *s = NULL;

    cr_expect_eq(store_open("s3://bucket", &s), ERR_ARGUMENT);
    cr_expect_eq(store_open("file:", &s), ERR_ARGUMENT);
    cr_expect_eq(store_open("file:/proc/nowhere", &s), ERR_IO);
    cr_expect_null(s);
}
