/* test_store.c - an object is there whole or not at all, alone or packed with others, and no name leads out of the
 * store's folder. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
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

/* Where a lone object lies; ERR_OK says that it is there. */
static enum err path_of(struct store *s, const char *object, char path[1024])
{
    struct store_at at;
    enum err err = store_find(s, object, &at);

    if (err == ERR_OK) {
        (void)close(at.fd);
        cr_expect_not(at.is_packed);
        cr_expect_eq(at.at, 0);
        (void)snprintf(path, 1024, "%.1023s", at.path);
    }
    return err;
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
    cr_assert_eq(path_of(s, "job/ab/0193-x/2/0", path), ERR_OK);
    file = fopen(path, "r");
    cr_assert_not_null(file);
    cr_expect_not_null(fgets(text, sizeof(text), file));
    (void)fclose(file);
    cr_expect_str_eq(text, "hello");
    cr_expect_eq(store_walk(s, "job/", 0, count_object, &found), ERR_OK);
    cr_expect_eq(found, 2, "the walk gives names as they were kept");
    cr_expect_eq(store_remove(s, "job/ab/0193-x/2/0"), ERR_OK);
    cr_expect_eq(store_remove(s, "job/ab/0193-x/2/0"), ERR_OK, "missing is fine");
    cr_expect_eq(path_of(s, "job/ab/0193-x/2/0", path), ERR_NOT_FOUND);
    cr_expect_eq(path_of(s, "job/ab/0193-x/2/1", path), ERR_OK);
    close_store(s);
}

Test(store, keeping_again_replaces_the_bytes)
{
    struct store *s = open_store();
    char path[1024];
    struct stat st;

    keep(s, "job/ab/x/1/0", "first");
    keep(s, "job/ab/x/1/0", "second!");
    cr_assert_eq(path_of(s, "job/ab/x/1/0", path), ERR_OK);
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
        cr_expect_eq(path_of(s, bad[i], path), ERR_ARGUMENT, "%s", bad[i]);
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
    cr_assert_eq(path_of(s, "job/ab/x/1/0", path), ERR_OK);
    cr_assert_eq(unlink(path), 0);
    (void)snprintf(link, sizeof(link), "%s", path);
    cr_assert_eq(symlink("/etc/passwd", link), 0);
    cr_expect_eq(path_of(s, "job/ab/x/1/0", path), ERR_NOT_FOUND);
    close_store(s);
}

static void expect_bytes(struct store *s, const char *object, const char *want)
{
    char path[1024], text[32] = "";
    FILE *file;

    cr_assert_eq(path_of(s, object, path), ERR_OK, "%s", object);
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

enum { PACKED = 20 };
struct packed {
    char names[PACKED][STORE_NAME], texts[PACKED][32];
};

/* Each with its own bytes, the third with none. */
static struct packed pack(struct store *s)
{
    struct packed p = { 0 };
    struct store_piece pieces[PACKED];

    for (int i = 0; i < PACKED; i++) {
        (void)snprintf(p.names[i], STORE_NAME, "job/ab/0193-x/2/%d", i);
        if (i != 3)
            memset(p.texts[i], 'a' + i, (size_t)i + 1);
        pieces[i] = (struct store_piece){ p.names[i], p.texts[i], strlen(p.texts[i]), p.names[i] };
    }
    cr_assert_eq(store_pack(s, pieces, PACKED), ERR_OK);
    return p;
}

/* NULL: it is not there. Static. */
static const char *packed_text(struct store *s, const char *name)
{
    static char text[64];
    struct store_at at;

    if (store_find(s, name, &at) != ERR_OK)
        return NULL;
    cr_expect(at.is_packed);
    cr_assert_lt(at.bytes, (int64_t)sizeof(text));
    cr_expect_eq(pread(at.fd, text, (size_t)at.bytes, (off_t)at.at), at.bytes);
    (void)close(at.fd);
    text[at.bytes] = '\0';
    return text;
}

/* The number of packs and of folders for them. */
static int count_files(const char *kind)
{
    char command[160], text[16] = "";
    FILE *pipe;

    (void)snprintf(command, sizeof(command), "find '%s/a/b/obj/pack' -mindepth 1 -type %s 2>&1 | wc -l", dir, kind);
    pipe = popen(command, "r");
    cr_assert_not_null(pipe);
    cr_expect_not_null(fgets(text, sizeof(text), pipe));
    (void)pclose(pipe);
    return atoi(text);
}

Test(store, many_small_ones_lie_in_one_file_and_are_found_by_their_names)
{
    struct store *s = open_store();
    struct packed p = pack(s), again = pack(s);
    char temp[1024], text[64] = "";
    struct stat st;
    int found = 0;
    FILE *file;

    cr_expect_eq(count_files("f"), 2, "a file each");
    for (int i = 0; i < PACKED; i++) {
        cr_expect(store_object_valid(p.names[i]));
        cr_expect_str_eq(packed_text(s, p.names[i]), p.texts[i], "%s", p.names[i]);
        cr_expect_str_neq(p.names[i], again.names[i]);
    }
    cr_expect_eq(store_walk(s, "job/", 0, count_object, &found), ERR_OK);
    cr_expect_eq(found, 2 * PACKED, "the walk gives names by which they are found");
    cr_expect_eq(store_walk(s, "upload/", 0, count_object, &found), ERR_OK);
    cr_expect_eq(store_walk(s, "job/", 3600, count_object, &found), ERR_OK);
    cr_expect_eq(found, 2 * PACKED, "none of them is an upload, or old");
    cr_assert_eq(store_take_back(s, p.names[12], temp, sizeof(temp)), ERR_OK);
    file = fopen(temp, "r");
    cr_assert_not_null(file);
    cr_expect_not_null(fgets(text, sizeof(text), file));
    (void)fclose(file);
    cr_expect_str_eq(text, p.texts[12], "and nothing of its neighbours");
    cr_expect_eq(store_take_back(s, p.names[3], temp, sizeof(temp)), ERR_OK);
    cr_expect_eq(stat(temp, &st), 0);
    cr_expect_eq(st.st_size, 0);
    close_store(s);
}

Test(store, a_packed_object_goes_alone_and_the_last_one_takes_the_file)
{
    struct store *s = open_store();
    struct packed p = pack(s);
    struct store_at at;
    char bytes[4096] = "";
    struct stat before, after;
    int found = 0;
    ssize_t n;

    cr_assert_eq(store_find(s, p.names[9], &at), ERR_OK);
    cr_expect_eq(fstat(at.fd, &before), 0);
    cr_expect_eq(store_remove(s, p.names[9]), ERR_OK);
    cr_expect_eq(store_remove(s, p.names[9]), ERR_OK, "missing is fine");
    cr_expect_null(packed_text(s, p.names[9]));
    cr_expect_str_eq(packed_text(s, p.names[8]), p.texts[8]);
    cr_expect_str_eq(packed_text(s, p.names[10]), p.texts[10]);
    n = pread(at.fd, bytes, sizeof(bytes), (off_t)at.at);
    cr_expect_eq(fstat(at.fd, &after), 0);
    (void)close(at.fd);
    cr_expect_eq(after.st_mtim.tv_nsec, before.st_mtim.tv_nsec, "the others are as old as they were");
    cr_expect_geq(n, at.bytes);
    for (int64_t i = 0; i < at.bytes; i++)
        cr_expect_eq(bytes[i], 0, "its bytes are gone, too");
    cr_expect_eq(store_walk(s, "job/", 0, count_object, &found), ERR_OK);
    cr_expect_eq(found, PACKED - 1);
    for (int i = 0; i < PACKED; i++)
        cr_expect_eq(store_remove(s, p.names[i]), ERR_OK);
    cr_expect_eq(count_files("f"), 0);
    cr_expect_eq(store_remove(s, p.names[0]), ERR_OK, "with its file");
    cr_expect_eq(count_files("d"), 1);
    cr_expect_eq(store_walk(s, "job/", 0, count_object, &found), ERR_OK);
    cr_expect_eq(count_files("d"), 0, "a walk takes the folder of an hour without packs");
    p = pack(s);
    cr_expect_str_eq(packed_text(s, p.names[0]), p.texts[0], "and it is made again");
    close_store(s);
}

/* Who removed the last object died before the file: every line says "-". */
Test(store, a_pack_of_the_dead_is_taken_by_the_walk_and_what_is_no_pack_is_left_alone)
{
    struct store *s = open_store();
    struct packed p = pack(s);
    struct store_at at;
    char other[PATH_MAX + 8];
    char digits[128];
    int fd, found = 0;

    cr_assert_eq(store_find(s, p.names[0], &at), ERR_OK);
    (void)close(at.fd);
    (void)snprintf(other, sizeof(other), "%s0", at.path);
    fd = open(other, O_WRONLY | O_CREAT, 0600);
    memset(digits, '1', sizeof(digits));
    memcpy(digits, "kiln pack 1 of ", 15);
    cr_expect_eq(write(fd, digits, sizeof(digits)), 128);
    (void)close(fd);
    fd = open(at.path, O_WRONLY);
    for (int i = 1; i <= PACKED; i++)
        cr_expect_eq(pwrite(fd, "-", 1, (off_t)i * 128), 1);
    (void)close(fd);
    cr_expect_eq(store_walk(s, "job/", 0, count_object, &found), ERR_OK);
    cr_expect_eq(found, 0);
    cr_expect_eq(access(at.path, F_OK), -1);
    cr_expect_eq(access(other, F_OK), 0);
    close_store(s);
}

/* Who dies after its bytes are zeros and before its line says so leaves it to the next walk. */
Test(store, a_removal_that_was_cut_short_is_done_again)
{
    struct store *s = open_store();
    struct packed p = pack(s);
    struct store_at at;
    int fd, found = 0;

    cr_assert_eq(store_find(s, p.names[5], &at), ERR_OK);
    (void)close(at.fd);
    fd = open(at.path, O_WRONLY);
    cr_expect_eq(pwrite(fd, "\0\0\0\0\0\0", 6, (off_t)at.at), 6);
    (void)close(fd);
    cr_expect_eq(store_walk(s, "job/", 0, count_object, &found), ERR_OK);
    cr_expect_eq(found, PACKED, "it is still named");
    cr_expect_eq(store_remove(s, p.names[5]), ERR_OK);
    cr_expect_null(packed_text(s, p.names[5]));
    cr_expect_str_eq(packed_text(s, p.names[6]), p.texts[6]);
    close_store(s);
}

/* More than one writev takes, and one that the disk cuts short. */
Test(store, a_large_pack_is_whole_or_not_there)
{
    enum { MANY = STORE_PACK_MAX + 1, EACH = 3000 };
    struct store *s = open_store();
    struct store_piece *pieces = calloc(MANY, sizeof(*pieces));
    char *names = calloc(MANY, STORE_NAME), *bytes = malloc(MANY + EACH), temp[1024];
    const struct rlimit small = { 1 << 20, RLIM_INFINITY }, large = { RLIM_INFINITY, RLIM_INFINITY };
    struct store_at at;

    cr_assert(pieces && names && bytes);
    (void)signal(SIGXFSZ, SIG_IGN);
    for (int i = 0; i < MANY + EACH; i++)
        bytes[i] = (char)(i * 7 + i / 256);
    for (int i = 0; i < MANY; i++) {
        char *name = names + (size_t)i * STORE_NAME;

        (void)snprintf(name, STORE_NAME, "job/ab/many/1/%d", i);
        pieces[i] = (struct store_piece){ name, bytes + i, EACH, name };
    }
    cr_expect_eq(store_pack(s, pieces, MANY), ERR_ARGUMENT);
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
    cr_expect_eq(store_pack(s, pieces, MANY - 1), ERR_IO);
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &large), 0);
    cr_expect_eq(count_files("f"), 0);
    cr_expect_eq(store_sweep_temp(s, -1), 0, "nor in the folder of temp files");
    cr_expect_str_eq(names, "job/ab/many/1/0", "names are as they were");
    cr_assert_eq(store_pack(s, pieces, MANY - 1), ERR_OK);
    cr_assert_eq(store_temp(s, temp, sizeof(temp)), ERR_OK);
    for (int i = 0; i < MANY - 1; i += 11) {
        char got[EACH];

        cr_assert_eq(store_find(s, names + (size_t)i * STORE_NAME, &at), ERR_OK);
        cr_assert_eq(at.bytes, EACH);
        cr_expect_eq(pread(at.fd, got, EACH, (off_t)at.at), EACH);
        cr_expect_eq(memcmp(got, bytes + i, EACH), 0, "%d", i);
        (void)close(at.fd);
    }
    free(pieces);
    free(names);
    free(bytes);
    close_store(s);
}

/* A name from elsewhere, or a file that was cut, never gives another's bytes. */
Test(store, a_name_leads_into_a_pack_to_its_own_bytes_or_to_none)
{
    static const char *const bad[] = { "job/ab/0193-x/2/0/pack/%s/2",  "job/ab/0193-x/2/0/pack/%s/0",
                                       "job/ab/0193-x/2/0/pack/%s/21", "job/ab/0193-x/2/0/pack/%s/1x",
                                       "job/ab/0193-y/2/0/pack/%s/1",  "job/ab/0193-x/2/0/pack/%s/1/1",
                                       "job/ab/0193-x/2/0/pack/%s",    "job/ab/0193-x/2/0/pack/%s/-1",
                                       "job/ab/0193-x/2/0/pack/1",     "upload/ab/0193-x/pack/%s/1" };
    struct store *s = open_store();
    struct packed p = pack(s);
    struct store_piece twice = { p.names[0], "x", 1, p.names[0] };
    char of[64], name[STORE_NAME], path[1024];
    struct store_at at;

    (void)snprintf(of, sizeof(of), "%s", strstr(p.names[0], "/pack/") + 6);
    *strrchr(of, '/') = '\0';
    cr_assert_eq(store_find(s, p.names[0], &at), ERR_OK);
    (void)close(at.fd);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        (void)snprintf(name, sizeof(name), bad[i], of);
#pragma GCC diagnostic pop
        cr_expect_neq(store_find(s, name, &at), ERR_OK, "%s", name);
        (void)store_remove(s, name);
    }
    cr_expect_eq(store_pack(s, &twice, 1), ERR_ARGUMENT, "a packed object is not packed again");
    cr_expect_eq(store_pack(s, &twice, 0), ERR_ARGUMENT);
    for (int i = 0; i < PACKED; i++)
        cr_expect_str_eq(packed_text(s, p.names[i]), p.texts[i], "nothing was removed: %s", p.names[i]);
    (void)snprintf(path, sizeof(path), "%.1000s", at.path);
    cr_expect_eq(truncate(path, 128 * (PACKED + 1) + 5), 0);
    cr_expect_not_null(packed_text(s, p.names[1]));
    cr_expect_null(packed_text(s, p.names[PACKED - 1]), "it is cut");
    close_store(s);
}

Test(store, what_cannot_be_kept_leaves_nothing)
{
    struct store *s = open_store();
    char temp[1024], path[1024];

    cr_assert_eq(store_temp(s, temp, sizeof(temp)), ERR_OK);
    cr_expect_eq(store_keep(s, temp, "job/ab/x/1/0"), ERR_NOT_FOUND, "there is no such temp file");
    cr_expect_eq(path_of(s, "job/ab/x/1/0", path), ERR_NOT_FOUND);
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
