/* failpoint.h - named places where a test build can be made to die, stall or fail (KILN_FAILPOINTS).
 *
 * KILN_FAILPOINTS="accept.after_commit=crash,settle.before=stall:500,store.keep=error": crash is SIGKILL to oneself,
 * stall blocks that many milliseconds, spin burns CPU time until it is killed, drop shuts the point's connection down,
 * error makes the point return 1. `name=crash@3` acts at the third pass only. What acts says so on stderr. Without
 * -DKILN_FAILPOINTS a fail point is the constant 0. A list that begins with `clock=FILE` steps the process's wall clock
 * by as many milliseconds as that file says, whenever it says something else (clock.c).
 *
 * tests/chaos runs every point with every action that its form has, found by reading the sources (points.sh): so write
 * names out, `(void)FAILPOINT("…")` where there is nothing to fail, FAILPOINT("…") as a value where `error` is heard,
 * FAILPOINT_OF(family, what, when, fd) for the connection's fd and a family of calls ("db.settle.after"). What has no
 * connection has no `drop`; the providers' connections are cut by the sandbox's faults. */
#ifndef KILN_FAILPOINT_H
#define KILN_FAILPOINT_H

#ifdef KILN_FAILPOINTS
int failpoint_hit(const char *name, int fd); /* 1: fail here; fd -1: no connection */
/* "family.what.when", `what` up to its first dot */
int failpoint_hit_of(const char *family, const char *what, const char *when, int fd);
#define FAILPOINT(name)                      failpoint_hit(name, -1)
#define FAILPOINT_OF(family, what, when, fd) failpoint_hit_of(family, what, when, fd)
#else
#define FAILPOINT(name)                      0
#define FAILPOINT_OF(family, what, when, fd) ((void)sizeof(what), (void)sizeof(fd), 0)
#endif
#endif
