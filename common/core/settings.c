/* settings.c - checks and uses of the shared configuration. */
#define _DEFAULT_SOURCE /* sbrk, madvise */
#include <fcntl.h>
#include <limits.h>
#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>
#include <jansson.h>
#include <libpq-fe.h>
#include "common/base/log.h"
#include "common/base/small.h"
#include "common/base/text.h"
#include "common/core/settings.h"
#include "common/io/redis.h"

const char *const settings_known[] = {
    "KILN_DATABASE_URL",
    "KILN_REDIS_URL",
    "KILN_STORAGE",
    "KILN_CATALOG",
    "KILN_ALLOW_PRIVATE_ADDRESSES",
    "KILN_LOG_LEVEL",
    "KILN_LISTEN",
    "KILN_PUBLIC_URL",
    "KILN_SIGNING_KEY",
    "KILN_MAX_QUEUED",
    "KILN_BLOCKED_TERMS",
    "KILN_MODERATION",
    "KILN_CONCURRENCY",
    "KILN_WORKER_LISTEN",
    "KILN_MAX_WAITING",
    "KILN_MAX_REQUESTS",
    "KILN_MEMORY_LIMIT",
    "KILN_CA_FILE",
    "KILN_URL",
    "KILN_API_KEY",
    "KILN_FAILPOINTS",
    "KILN_S3_ENDPOINT",
    NULL,
};

static const struct {
    const char *word;
    enum log_level level;
} levels[] = { { "debug", LOG_DEBUG }, { "info", LOG_INFO }, { "warn", LOG_WARN }, { "error", LOG_ERROR } };

/* catalog_load asks by name only; this is who answers while it runs, at start, on one thread. It copies what it is
 * given, so that what the environment says of providers that no table knows lives only so long. */
enum { STRAYS_MAX = 64 };
static const struct config *asked;
static char *strays[STRAYS_MAX];
static size_t stray_count;

static const char *settings_env(const char *name)
{
    const char *known = config_text(asked, name);
    char *stray = known || stray_count == STRAYS_MAX ? NULL : config_stray((struct config *)asked, name);

    if (stray)
        strays[stray_count++] = stray;
    return known ? known : stray;
}

enum err settings_catalog(const struct config *c, struct catalog **out, char *problem, size_t problem_size)
{
    enum err err;

    asked = c;
    err = catalog_load(config_text(c, "KILN_CATALOG"), settings_env, out, problem, problem_size);
    asked = NULL;
    while (stray_count > 0) {
        char *s = strays[--stray_count];

        for (volatile char *p = s; *p; p++)
            *p = '\0'; /* some are keys */
        free(s);
    }
    return err;
}

void settings_log_level(const struct config *c)
{
    const char *word = config_text(c, "KILN_LOG_LEVEL");

    for (size_t i = 0; word && i < ARRAY_LEN(levels); i++)
        if (!strcmp(word, levels[i].word))
            log_set_level(levels[i].level);
}

static bool settings_level_is_known(const char *word)
{
    for (size_t i = 0; i < ARRAY_LEN(levels); i++)
        if (!strcmp(word, levels[i].word))
            return true;
    return false;
}

static void settings_check_database(struct config *c)
{
    const char *url = config_text(c, "KILN_DATABASE_URL");
    char *message = NULL;
    PQconninfoOption *parsed = url ? PQconninfoParse(url, &message) : NULL;

    if (url && !parsed)
        config_add_problem(c, "KILN_DATABASE_URL", "is not an address that libpq understands");
    PQconninfoFree(parsed);
    PQfreemem(message);
}

void settings_check(struct config *c)
{
    const char *text;
    struct catalog *catalog = NULL;
    char problem[512];

    settings_check_database(c);
    text = config_text(c, "KILN_REDIS_URL");
    if (text && redis_url_check(text) != ERR_OK)
        config_add_problem(c, "KILN_REDIS_URL", "must be redis://[:password@]host[:port][/db] or unix:/path");
    text = config_text(c, "KILN_STORAGE");
    if (text && (strncmp(text, "file:", 5) != 0 || !text[5]))
        config_add_problem(c, "KILN_STORAGE", "must be file:DIR (S3 comes later)");
    text = config_text(c, "KILN_LOG_LEVEL");
    if (text && !settings_level_is_known(text))
        config_add_problem(c, "KILN_LOG_LEVEL", "must be debug, info, warn or error");
    if (settings_catalog(c, &catalog, problem, sizeof(problem)) != ERR_OK)
        config_add_problem(c, "KILN_CATALOG", problem);
    catalog_free(catalog);
}

/* The table doubles as numbers rise, and in a process with threads whoever opens the file that is one too many waits
 * for the kernel's readers of the old one: 4 to 16 ms each time, on the loop (seen by sched_switch, seven times on the
 * way to 10,000 connections). It never shrinks, so one number that is high enough does for all. */
size_t settings_files(size_t expected)
{
    struct rlimit limit;
    int fd, high;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return 0;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit); /* refused: the soft limit stays, and is what counts below */
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return 0;
    if (expected >= limit.rlim_cur)
        expected = (size_t)limit.rlim_cur - 1;
    fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    high = fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, (int)expected) : -1;
    if (high >= 0)
        (void)close(high);
    if (fd >= 0)
        (void)close(fd);
    return (size_t)limit.rlim_cur;
}

/* glibc gives memory back as soon as 128 KiB lie free at the top and fetches it again in steps of as much: under load
 * that is a system call for every fifth job, and page faults for each (measured).
 *
 * A page fault costs 1 to 13 us by the machine's virtualization, and a call that waits touches four pages. So the
 * heap's first HEAP_BYTES are asked for at once, untouched, and may be huge pages where the system leaves that to
 * programs: without it 4.4 faults a job; 0.37 s of CPU for 1,000 jobs became 0.265, for up to a third more memory, with
 * more calls in the air (in turns, docs/performance.md). They are never given back, for what grows anew would be small
 * pages: so the heap is not trimmed, and keeps what a burst took. */
void settings_memory(void)
{
    enum { HEAP_BYTES = 256 << 20, BLOCK_BYTES = 100 << 10, PAGE_BYTES = 4096 };
    uintptr_t from = ((uintptr_t)sbrk(0) + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    void *volatile blocks[2]; /* the heap as it is holds one of them */

#ifndef __SANITIZE_ADDRESS__ /* there malloc sees what is read past a block, or after its end */
    small_begin();
#endif
    json_set_alloc_funcs(small_malloc, small_free);
    (void)mallopt(M_TRIM_THRESHOLD, INT_MAX);
    (void)mallopt(M_TOP_PAD, HEAP_BYTES);
    for (int i = 0; i < 2; i++)
        blocks[i] = malloc(BLOCK_BYTES);
    for (int i = 0; i < 2; i++)
        free(blocks[i]);
    (void)mallopt(M_TOP_PAD, 1 << 20);
    if ((uintptr_t)sbrk(0) >= from + HEAP_BYTES) /* not with another malloc, nor where there is no room for so much */
        (void)madvise((void *)from, HEAP_BYTES, MADV_HUGEPAGE);
}
