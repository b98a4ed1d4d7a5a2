/* plain.c - main of a test program without Criterion (criterion/criterion.h here): each test in a process of its own.
 *
 * main has no threads, so that a child may have them under TSan. A test fails by a failed claim, a signal, or the
 * sanitizer's exit code; the program then exits 1. */
#include <criterion/criterion.h>
#include <criterion/hooks.h>
#include <criterion/options.h>
#include <criterion/redirect.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { HOOKS = 8 };

struct plain_options criterion_options;
static struct plain_test *tests, **tests_end = &tests;
static plain_hook_fn *hooks[HOOKS];
static size_t hook_count;
static int failures; /* of this test; claims are made on the test's thread */
static const struct plain_test *running, *running_suite;

void plain_add(struct plain_test *t)
{
    *tests_end = t;
    tests_end = &t->next;
}

void plain_hook_PRE_ALL(plain_hook_fn *fn)
{
    if (hook_count == HOOKS)
        abort();
    hooks[hook_count++] = fn;
}

void plain_failed(const char *file, int line, const char *what, const char *format, ...)
{
    va_list ap;

    (void)fprintf(stderr, "%s:%d: %s", file, line, what);
    if (*format) {
        (void)fputs(": ", stderr);
        va_start(ap, format);
        (void)vfprintf(stderr, format, ap);
        va_end(ap);
    }
    (void)fputc('\n', stderr);
    failures++;
}

void plain_leave(void)
{
    if (running->fini)
        running->fini();
    if (running_suite && running_suite->fini)
        running_suite->fini();
    exit(failures != 0);
}

void cr_redirect_stdout(void)
{
    (void)!freopen("/dev/null", "w", stdout);
}

void cr_redirect_stderr(void)
{
    (void)!freopen("/dev/null", "w", stderr);
}

static const struct plain_test *suite_of(const struct plain_test *t)
{
    for (const struct plain_test *s = tests; s; s = s->next) {
        if (!s->run && strcmp(s->suite, t->suite) == 0)
            return s;
    }
    return NULL;
}

static void run(const struct plain_test *t)
{
    running = t;
    running_suite = suite_of(t);
    if (running_suite && running_suite->init)
        running_suite->init();
    if (t->init)
        t->init();
    t->run();
    plain_leave();
}

/* False: it failed. */
static bool fork_and_run(const struct plain_test *t)
{
    int status = -1;
    pid_t child;

    (void)fflush(NULL);
    child = fork();
    if (child == 0)
        run(t);
    if (child < 0 || waitpid(child, &status, 0) != child)
        return false;
    if (status != 0)
        (void)fprintf(stderr, "FAIL %s::%s (%s %d)\n", t->suite, t->name, WIFSIGNALED(status) ? "signal" : "exit code",
                      WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    return status == 0;
}

static bool is_wanted(const struct plain_test *t, const char *only)
{
    char name[256];

    (void)snprintf(name, sizeof name, "%s::%s", t->suite, t->name);
    return t->run && !t->disabled && (!only || strstr(name, only));
}

int main(int argc, char **argv)
{
    size_t count = 0, failed = 0;

    for (size_t i = 0; i < hook_count; i++)
        hooks[i](NULL);
    for (const struct plain_test *t = tests; t; t = t->next) {
        if (!is_wanted(t, argc > 1 ? argv[1] : NULL))
            continue;
        count++;
        failed += !fork_and_run(t);
    }
    (void)printf("%zu tests, %zu failed\n", count, failed);
    return failed > 0 || count == 0;
}
