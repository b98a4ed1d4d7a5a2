/* load.h - how much one dispatcher takes on at once, and the refusal of what is more: 503 with Retry-After, decided
 * when the headers are here, before the body is read and before PostgreSQL is asked anything.
 *
 * Three ceilings: connections (what files allow; past it a connection is answered once and closed), requests at work
 * (KILN_MAX_REQUESTS; those that wait for a job's end cost nothing and do not count), bytes of bodies
 * (KILN_MEMORY_LIMIT; what the headers announce is set aside until the request is over). Operators' routes have some
 * places of their own; what is open to everybody (health, metrics) is never refused: who is in trouble wants to look.
 */
#ifndef KILN_LOAD_H
#define KILN_LOAD_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "dispatcher/httpd.h"

struct dispatcher;

enum load_reason { LOAD_CONNECTIONS, LOAD_REQUESTS, LOAD_MEMORY, LOAD_REASONS };

struct load {
    size_t max_connections, max_requests, max_bytes;
    size_t at_work;                   /* requests whose handler was called and that are not over */
    size_t bytes;                     /* set aside for bodies */
    int64_t refused_ms[LOAD_REASONS]; /* when last; 0: never */
    struct metric *shed[LOAD_REASONS];
};

void load_init(struct dispatcher *d, size_t max_connections, int64_t max_requests, int64_t max_bytes);
/* The headers are here. False: answered. */
bool load_admits(struct request *r);
/* Of these bytes the body will take so and so many in memory. False: answered. */
bool load_admits_body(struct request *r, size_t bytes);
bool load_begins(struct request *r);         /* the body is here, too: to work. False: answered */
void load_ends(struct request *r);           /* it is over, however far it came */
const char *load_word(struct dispatcher *d); /* what was refused for in the last seconds: "ok", "connections", … */
void load_metrics(struct dispatcher *d);     /* before they are printed */
#endif
