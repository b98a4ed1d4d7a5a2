/* oracle.h - the checker's parts. It shares no code with kiln: what kiln believes is what is on trial.
 *
 * Redis, the storage folder and the sandbox are read into one JSON document, the facts; checks.c lays PostgreSQL's
 * tables beside it. A gather function returns false after it said on stderr what it cannot read. */
#ifndef KILN_ORACLE_H
#define KILN_ORACLE_H
#include <stdbool.h>
#include <stddef.h>
#include <jansson.h>
#include <libpq-fe.h>

struct oracle_check {
    const char *name;
    const char *sql; /* one column of text, a row a violation; $1 the facts */
};
extern const struct oracle_check oracle_checks[];
extern const size_t oracle_check_count;

json_t *oracle_redis(const char *url);     /* [{key, id}]: every UUID in a key of kiln's, its members and values */
json_t *oracle_files(const char *dir);     /* {objects:[{object, bytes, sha256, age_s}], temps:[{name, age_s}]} */
json_t *oracle_counters(const char *base); /* {tag: counters} */
#endif
