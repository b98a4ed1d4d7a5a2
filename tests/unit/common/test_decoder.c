/* test_decoder.c - whatever happens to a decoder happens to its helper: the caller gets an answer, and so does the next
 * file. The helpers are the real program's. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <turbojpeg.h>
#include <unistd.h>
#include <webp/encode.h>

#include "common/base/clock.h"
#include "common/base/text.h"
#include "common/core/decoder.h"

enum { PLENTY = 1 << 24, SIDE = 64 };

static char dir[] = "/tmp/kiln-decoder-XXXXXX";

struct seen {
    enum err err;
    struct media_head head;
    char reason[160];
    int64_t ms;
};

static void remove_all(void)
{
    DIR *open = opendir(dir);
    const struct dirent *entry;
    char path[512];

    while (open != NULL && (entry = readdir(open)) != NULL) {
        (void)snprintf(path, sizeof(path), "%s/%s", dir, entry->d_name);
        (void)unlink(path);
    }
    if (open != NULL)
        (void)closedir(open);
    (void)rmdir(dir);
}

static void make_dir(void)
{
    cr_assert_not_null(mkdtemp(dir));
    (void)unsetenv("KILN_FAILPOINTS");
}

TestSuite(decoder, .init = make_dir, .fini = remove_all);

/* ---- files ---- */

static const char *keep(const char *name, const void *bytes, size_t len)
{
    static char path[512];
    FILE *file;

    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    file = fopen(path, "wb");
    cr_assert_not_null(file);
    cr_assert_eq(fwrite(bytes, 1, len, file), len);
    cr_assert_eq(fclose(file), 0);
    return path;
}

static unsigned char *paint(int side)
{
    unsigned char *rgba = malloc((size_t)side * (size_t)side * 4);

    for (int i = 0; i < side * side; i++) {
        rgba[4 * i] = (unsigned char)(i % side * 255 / side);
        rgba[4 * i + 1] = (unsigned char)(i / side * 255 / side);
        rgba[4 * i + 2] = 200;
        rgba[4 * i + 3] = 255;
    }
    return rgba;
}

static const char *keep_webp(int side)
{
    unsigned char *rgba = paint(side);
    uint8_t *webp = NULL;
    size_t len = WebPEncodeRGBA(rgba, side, side, side * 4, 80, &webp);
    const char *path = keep("a.webp", webp, len);

    WebPFree(webp);
    free(rgba);
    return path;
}

static const char *keep_jpeg(int side, int flags, size_t cut)
{
    unsigned char *rgba = paint(side), *jpeg = NULL;
    unsigned long len = 0;
    tjhandle tj = tjInitCompress();
    const char *path;

    cr_assert_eq(tjCompress2(tj, rgba, side, 0, side, TJPF_RGBA, &jpeg, &len, TJSAMP_420, 85, flags), 0);
    path = keep("a.jpg", jpeg, (size_t)len - cut);
    tjFree(jpeg);
    (void)tjDestroy(tj);
    free(rgba);
    return path;
}

/* ---- asking ---- */

static struct decoder *open_decoder(struct decoder_config config)
{
    struct decoder *d;

    config.program = KILN_WORKER;
    d = decoder_new(&config);
    cr_assert_not_null(d);
    return d;
}

static struct seen look(struct decoder *d, const char *path)
{
    struct seen s = { .head = { 0 } };
    int64_t began = clock_mono_ms();

    s.err = decoder_check(d, path, PLENTY, &s.head, NULL, s.reason, sizeof(s.reason));
    s.ms = clock_mono_ms() - began;
    return s;
}

static void expect_good(struct decoder *d)
{
    struct seen s = look(d, keep_jpeg(SIDE, 0, 0));

    cr_expect_eq(s.err, ERR_OK, "%s", s.reason);
    cr_expect_eq(s.head.kind, MEDIA_JPEG);
    cr_expect_eq(s.head.width, SIDE);
}

Test(decoder, says_what_media_check_says)
{
    static const char page[] = "<html>no</html>";
    struct decoder *d = open_decoder((struct decoder_config){ .helpers = 1 });
    struct seen s;

    expect_good(d);
    s = look(d, keep_webp(SIDE));
    cr_expect(s.err == ERR_OK && s.head.kind == MEDIA_WEBP && s.head.height == SIDE, "%s", s.reason);
    s = look(d, keep_jpeg(SIDE, 0, 200));
    cr_expect_eq(s.err, ERR_BAD_RESPONSE, "%s", s.reason);
    s = look(d, keep("page", page, sizeof(page) - 1));
    cr_expect_eq(s.err, ERR_BAD_RESPONSE);
    cr_expect_str_eq(s.reason, "a web page, not media");
    s = look(d, "/nowhere/at/all");
    cr_expect_eq(s.err, ERR_STORAGE_ERROR);
    cr_expect_eq(decoder_stats(d).deaths, 0);
    decoder_free(d);
}

Test(decoder, a_crash_is_a_bad_result_and_the_next_file_is_fine)
{
    struct decoder *d;
    struct seen s;

    cr_assert_eq(setenv("KILN_FAILPOINTS", "decoder.webp.before=crash", 1), 0);
    d = open_decoder((struct decoder_config){ .helpers = 1 });
    expect_good(d);
    for (int i = 0; i < 3; i++) {
        s = look(d, keep_webp(SIDE));
        cr_expect_eq(s.err, ERR_BAD_RESULT);
        cr_expect_str_eq(s.reason, "it crashes the decoder");
        expect_good(d);
    }
    cr_expect_eq(decoder_stats(d).deaths, 6, "each file had a second chance");
    decoder_free(d);
}

struct thread {
    struct decoder *d;
    char path[512];
    struct seen seen;
};

static void *look_on_thread(void *ctx)
{
    struct thread *t = ctx;

    t->seen = look(t->d, t->path);
    return NULL;
}

Test(decoder, a_spin_ends_by_its_cpu_time_and_others_go_on_meanwhile)
{
    struct thread t;
    pthread_t thread;
    int done = 0;

    cr_assert_eq(setenv("KILN_FAILPOINTS", "decoder.webp.before=spin", 1), 0);
    t.d = open_decoder((struct decoder_config){ .helpers = 2, .cpu_s = 2 });
    (void)snprintf(t.path, sizeof(t.path), "%s", keep_webp(SIDE));
    expect_good(t.d);
    cr_assert_eq(pthread_create(&thread, NULL, look_on_thread, &t), 0);
    for (; decoder_stats(t.d).timeouts == 0; done++)
        expect_good(t.d);
    (void)pthread_join(thread, NULL);
    cr_expect_gt(done, 5, "%d files while it spun", done);
    cr_expect_eq(t.seen.err, ERR_BAD_RESULT);
    cr_expect_str_eq(t.seen.reason, "decoding it takes too long");
    expect_good(t.d);
    decoder_free(t.d);
}

Test(decoder, what_only_sleeps_ends_by_the_clock)
{
    struct decoder *d;
    struct seen s;

    cr_assert_eq(setenv("KILN_FAILPOINTS", "decoder.webp.before=stall:60000", 1), 0);
    d = open_decoder((struct decoder_config){ .helpers = 1, .limit_ms = 1000 });
    s = look(d, keep_webp(SIDE));
    cr_expect_eq(s.err, ERR_BAD_RESULT);
    cr_expect_lt(s.ms, 20000);
    expect_good(d);
    decoder_free(d);
}

/* ---- the helper ---- */

static pid_t helper_pid(void)
{
    char path[64];
    long pid = 0;
    FILE *file;

    (void)snprintf(path, sizeof(path), "/proc/self/task/%ld/children", (long)getpid());
    file = fopen(path, "r");
    cr_assert(file != NULL && fscanf(file, "%ld", &pid) == 1);
    (void)fclose(file);
    return (pid_t)pid;
}

static bool file_has(const char *path, const char *word)
{
    char text[8192];
    int fd = open(path, O_RDONLY);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;

    if (fd >= 0)
        (void)close(fd);
    for (ssize_t i = 0; i < n; i++)
        text[i] = text[i] == '\0' ? ' ' : text[i];
    text[n > 0 ? n : 0] = '\0';
    return strstr(text, word) != NULL;
}

Test(decoder, a_helper_killed_while_idle_is_replaced)
{
    struct decoder *d = open_decoder((struct decoder_config){ .helpers = 1 });

    expect_good(d);
    cr_assert_eq(kill(helper_pid(), SIGKILL), 0);
    expect_good(d);
    decoder_free(d);
}

Test(decoder, a_helper_is_locked_up_and_knows_no_secret)
{
    struct decoder *d;
    char path[64];

    cr_assert_eq(setenv("OPENAI_API_KEY", "sk-secret", 1), 0);
    d = open_decoder((struct decoder_config){ .helpers = 1 });
    expect_good(d);
    (void)snprintf(path, sizeof(path), "/proc/%ld/status", (long)helper_pid());
    cr_expect(file_has(path, "Seccomp:\t2"), "system calls are filtered");
    cr_expect(file_has(path, "NoNewPrivs:\t1"));
    (void)snprintf(path, sizeof(path), "/proc/%ld/environ", (long)helper_pid());
    cr_expect_not(file_has(path, "sk-secret"));
    (void)snprintf(path, sizeof(path), "/proc/%ld/limits", (long)helper_pid());
    cr_expect(file_has(path, "Max cpu time              1"), "the CPU time has an end");
    decoder_free(d);
    (void)unsetenv("OPENAI_API_KEY");
}

/* ---- hostile files ---- */

/* A frame header that promises far more than there is. */
static void resize_jpeg(const char *path, unsigned width, unsigned height)
{
    unsigned char bytes[4096];
    int fd = open(path, O_RDWR);
    ssize_t n = pread(fd, bytes, sizeof(bytes), 0);

    for (ssize_t i = 0; i + 9 < n; i++) {
        if (bytes[i] == 0xff && (bytes[i + 1] == 0xc0 || bytes[i + 1] == 0xc2)) {
            unsigned char size[4] = { (unsigned char)(height >> 8), (unsigned char)height, (unsigned char)(width >> 8),
                                      (unsigned char)width };

            cr_assert_eq(pwrite(fd, size, 4, i + 5), 4);
            break;
        }
    }
    (void)close(fd);
}

Test(decoder, hostile_files_get_an_answer_and_cost_no_helper)
{
    struct decoder *d = open_decoder((struct decoder_config){ .helpers = 1 });
    const char *path;
    struct seen s;

    path = keep_jpeg(SIDE, TJFLAG_PROGRESSIVE, 0); /* coefficients of 16 million pixels for a kilobyte */
    resize_jpeg(path, 4000, 4000);
    s = look(d, path);
    cr_expect_eq(s.err, ERR_BAD_RESPONSE, "%d %s", s.err, s.reason);
    path = keep_jpeg(SIDE, 0, 0);
    resize_jpeg(path, 65500, 65500); /* beyond the operation's pixels: not decoded at all */
    s = look(d, path);
    cr_expect_eq(s.err, ERR_OK, "%s", s.reason);
    cr_expect_eq(s.head.width, 65500, "and the size is told, for the promise to be judged");
    s = look(d, keep("png", "\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\xff\xff\xff\xff\xff\xff\xff\xff\x08\6\0\0\0", 29));
    cr_expect_eq(s.err, ERR_BAD_RESPONSE);
    s = look(d, keep("webp", "RIFF\xf6\xff\xff\xffWEBPVP8 \xff\xff\xff\x7f", 20));
    cr_expect_eq(s.err, ERR_BAD_RESPONSE);
    expect_good(d);
    cr_expect_eq(decoder_stats(d).deaths + decoder_stats(d).timeouts, 0);
    decoder_free(d);
}
