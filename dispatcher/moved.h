/* moved.h - which of many jobs have another version than the one known: one cheap question for all of them.
 *
 * Whoever waits for jobs hands in what it knows, and sends the question now and then (its tick). The answer names jobs,
 * not who waits for them: they may have gone meanwhile. A question that fails is not repeated, since the next one comes
 * in some seconds. */
#ifndef KILN_MOVED_H
#define KILN_MOVED_H
#include <stdbool.h>
#include <stdint.h>
#include "common/io/db.h"

enum { MOVED_MAX = 500 }; /* jobs in a question */

struct moved;
typedef void moved_fn(void *ctx, const char *job);
struct moved *moved_new(struct db *db, moved_fn *fn, void *ctx);
void moved_free(struct moved *m); /* before the db closes; NULL is fine. fn is not called any more */

bool moved_add(struct moved *m, const char *job, int64_t version); /* false: full, for now */
void moved_ask(struct moved *m);                                   /* sends what was added, once the last is answered */
#endif
