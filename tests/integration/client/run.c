/* run.c - fork, exec, and two pipes or a pseudo-terminal read until both ends are closed. */
#define _XOPEN_SOURCE 700 /* posix_openpt */
#include "tests/integration/client/run.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <criterion/criterion.h>
#include "common/base/text.h"
#include "tests/support/support.h"

enum { ARGS = 32, LIMIT_MS = 60000 };

static void child(const struct run *r, char **argv, const int ends[2])
{
    const char *env[RUN_ENV + 6] = { "PATH=/usr/bin:/bin", "LANG=C.UTF-8", "TERM=xterm", "TZ=UTC",
                                     "ASAN_OPTIONS=detect_leaks=1" };
    size_t n = 5;

    for (size_t i = 0; i < RUN_ENV && r->env[i]; i++)
        env[n++] = r->env[i];
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves nothing behind */
    if (r->on_terminal)
        (void)setsid();
    if (dup2(ends[0], STDOUT_FILENO) < 0 || dup2(ends[1], STDERR_FILENO) < 0 || (r->folder && chdir(r->folder) != 0))
        _exit(126);
    (void)close(STDIN_FILENO);
    (void)open("/dev/null", O_RDONLY);
    (void)execve(KILN_PROGRAM, argv, (char *const *)(uintptr_t)env);
    _exit(127);
}

static void open_terminal(int mine[2], int theirs[2])
{
    int master = posix_openpt(O_RDWR | O_NOCTTY);

    cr_assert(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0, "%s", strerror(errno));
    theirs[0] = open(ptsname(master), O_RDWR | O_NOCTTY);
    theirs[1] = dup(theirs[0]);
    cr_assert_geq(theirs[1], 0);
    mine[0] = master;
    mine[1] = -1;
}

static void open_pipes(int mine[2], int theirs[2])
{
    for (int i = 0; i < 2; i++) {
        int ends[2];
        cr_assert_eq(pipe(ends), 0);
        mine[i] = ends[0];
        theirs[i] = ends[1];
        (void)fcntl(mine[i], F_SETFD, FD_CLOEXEC);
    }
}

static void start(struct run *r, va_list ap)
{
    char *argv[ARGS] = { "kiln" };
    int theirs[2];
    size_t n = 1;

    run_done(r);
    do {
        cr_assert_lt(n, (size_t)ARGS);
        argv[n] = va_arg(ap, char *);
    } while (argv[n++]);
    if (r->on_terminal)
        open_terminal(r->fds, theirs);
    else
        open_pipes(r->fds, theirs);
    r->pid = fork();
    cr_assert_geq(r->pid, 0);
    if (r->pid == 0)
        child(r, argv, theirs);
    (void)close(theirs[0]);
    (void)close(theirs[1]);
}

/* Waits for output of either end. False: both are closed. */
static bool take(struct run *r)
{
    struct pollfd fds[2] = { { r->fds[0], POLLIN, 0 }, { r->fds[1], POLLIN, 0 } };
    char **texts[2] = { &r->out, &r->err };
    char chunk[4096];

    if (r->fds[0] < 0 && r->fds[1] < 0)
        return false;
    cr_assert_gt(poll(fds, 2, LIMIT_MS), 0, "kiln says nothing for a minute; until then: %s", r->out ? r->out : "");
    for (int i = 0; i < 2; i++) {
        size_t have = *texts[i] ? strlen(*texts[i]) : 0;
        ssize_t got;
        if (r->fds[i] < 0 || !fds[i].revents)
            continue;
        got = read(r->fds[i], chunk, sizeof chunk);
        if (got <= 0) { /* of a terminal: EIO */
            (void)close(r->fds[i]);
            r->fds[i] = -1;
            continue;
        }
        *texts[i] = realloc(*texts[i], have + (size_t)got + 1);
        cr_assert_not_null(*texts[i]);
        memcpy(*texts[i] + have, chunk, (size_t)got);
        (*texts[i])[have + (size_t)got] = '\0';
    }
    return true;
}

void run_until(struct run *r, const char *text)
{
    while (!run_says(r->out, text))
        cr_assert(take(r), "kiln ended without \"%s\": %s%s", text, r->out ? r->out : "", r->err ? r->err : "");
}

void run_end(struct run *r)
{
    int status = 0;

    while (take(r))
        ;
    cr_assert_eq(waitpid(r->pid, &status, 0), r->pid);
    r->status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    r->out = r->out ? r->out : calloc(1, 1);
    r->err = r->err ? r->err : calloc(1, 1);
    support_log_is_clean("kiln", r->err);
}

void run_start(struct run *r, ...)
{
    va_list ap;

    va_start(ap, r);
    start(r, ap);
    va_end(ap);
}

void run_kiln(struct run *r, ...)
{
    va_list ap;

    va_start(ap, r);
    start(r, ap);
    va_end(ap);
    run_end(r);
}

void run_done(struct run *r)
{
    free(r->out);
    free(r->err);
    r->out = r->err = NULL;
}

bool run_says(const char *output, const char *text)
{
    return output && strstr(output, text) != NULL;
}
