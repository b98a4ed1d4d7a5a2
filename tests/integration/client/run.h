/* run.h - the real kiln as a person or a script runs it: arguments, an environment of its own, what it printed. */
#ifndef KILN_CLIENT_RUN_H
#define KILN_CLIENT_RUN_H
#include <stdbool.h>
#include <sys/types.h>

enum { RUN_ENV = 8 };
struct run {
    const char *env[RUN_ENV]; /* "NAME=value"; nothing else of this process's environment is passed on but PATH */
    const char *folder;       /* where it runs; NULL: here */
    bool on_terminal;         /* stdin, stdout and stderr are one pseudo-terminal; all it prints is in `out` */
    int status;               /* exit status, 128+n by signal */
    char *out, *err;          /* what it printed, never NULL after run_end */
    pid_t pid;
    int fds[2];
};

/* Arguments end with NULL. A run may be reused; run_done frees what it printed. */
void run_kiln(struct run *r, ...) __attribute__((sentinel));
void run_start(struct run *r, ...) __attribute__((sentinel)); /* the same, without waiting */
void run_until(struct run *r, const char *text);              /* reads stdout until it holds the text */
void run_end(struct run *r);
void run_done(struct run *r);
bool run_says(const char *output, const char *text); /* strstr, NULL-proof */
#endif
