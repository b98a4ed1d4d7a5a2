/* versions.h - which version a job had a moment ago, so that If-None-Match costs PostgreSQL nothing.
 *
 * What is said is at most VERSIONS_MS old, counted from before the read that found it, and of the app that asks only.
 * An event of the queue forgets the job, and what reads say that were under way then. Bounded: 0.8 MiB, the oldest of a
 * place goes. */
#ifndef KILN_VERSIONS_H
#define KILN_VERSIONS_H
#include <stdint.h>

enum { VERSIONS_MS = 1000 };

struct versions;
struct versions *versions_new(void); /* NULL: out of memory */
void versions_free(struct versions *v);

/* Times are clock_mono_ms. began_ms: when the read was asked for. */
void versions_note(struct versions *v, const char *job, const char *app, int64_t version, int64_t began_ms);
int64_t versions_of(const struct versions *v, const char *job, const char *app, int64_t now_ms); /* 0: ask PostgreSQL */
void versions_forget(struct versions *v, const char *job, int64_t now_ms); /* an event of it came */
#endif
