/* failpoint.c - reads KILN_FAILPOINTS at each pass, so that nothing is kept between; test builds only. */
#include "common/base/failpoint.h"

#ifdef KILN_FAILPOINTS
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include "common/base/text.h"

enum { FAILPOINT_PASSES = 64, NAME_MAX_BYTES = 64 };

/* How often each point was passed: the only state, and only for `@n`. Points lie in pool threads, too. */
static struct {
    char name[NAME_MAX_BYTES];
    long count;
} passes[FAILPOINT_PASSES];
static pthread_mutex_t passes_lock = PTHREAD_MUTEX_INITIALIZER;

static long failpoint_count(const char *name)
{
    long count = 0;

    (void)pthread_mutex_lock(&passes_lock);
    for (size_t i = 0; i < ARRAY_LEN(passes) && count == 0; i++) {
        if (passes[i].name[0] == '\0' && strlen(name) < sizeof(passes[i].name))
            memcpy(passes[i].name, name, strlen(name) + 1);
        if (strcmp(passes[i].name, name) == 0)
            count = ++passes[i].count;
    }
    (void)pthread_mutex_unlock(&passes_lock);
    return count;
}

static volatile unsigned long spins; /* so that the loop is one */

static int failpoint_act(const char *what, const char *name, int fd)
{
    char *end, line[2 * NAME_MAX_BYTES];
    size_t len = strcspn(what, ",@");
    int n;

    if (what[len] == '@' && failpoint_count(name) != strtol(what + len + 1, NULL, 10))
        return 0;
    n = snprintf(line, sizeof(line), "failpoint %s=%.*s\n", name, (int)(len < 24 ? len : 24), what);
    (void)!write(STDERR_FILENO, line, n > 0 ? (size_t)n : 0);
    if (len == 5 && strncmp(what, "crash", 5) == 0)
        (void)raise(SIGKILL);
    while (len == 4 && strncmp(what, "spin", 4) == 0)
        spins++;
    if (len == 4 && strncmp(what, "drop", 4) == 0 && fd >= 0)
        (void)shutdown(fd, SHUT_RDWR);
    if (strncmp(what, "stall:", 6) == 0) {
        long ms = strtol(what + 6, &end, 10);
        struct timespec wait = { ms / 1000, ms % 1000 * 1000000 };

        (void)nanosleep(&wait, NULL);
        return 0;
    }
    return len == 5 && strncmp(what, "error", 5) == 0;
}

int failpoint_hit(const char *name, int fd)
{
    const char *p = getenv("KILN_FAILPOINTS");
    size_t len = strlen(name);

    while (p != NULL && *p != '\0') {
        if (strncmp(p, name, len) == 0 && p[len] == '=')
            return failpoint_act(p + len + 1, name, fd);
        p += strcspn(p, ",");
        p += *p == ',';
    }
    return 0;
}

int failpoint_hit_of(const char *family, const char *what, const char *when, int fd)
{
    char name[NAME_MAX_BYTES];

    if (getenv("KILN_FAILPOINTS") == NULL)
        return 0;
    (void)snprintf(name, sizeof(name), "%s.%.*s.%s", family, (int)strcspn(what, "."), what, when);
    return failpoint_hit(name, fd);
}
#else
extern int failpoint_unused; /* a translation unit is never empty */
#endif
