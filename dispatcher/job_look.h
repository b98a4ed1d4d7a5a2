/* job_look.h - one job by its id, as GET /v1/jobs/{id} shows it: read as columns, written as text, no document in
 * between.
 *
 * Looks of all requests are one gathered call. What they find is noted in `versions`. */
#ifndef KILN_JOB_LOOK_H
#define KILN_JOB_LOOK_H
#include <stdbool.h>
#include <stdint.h>
#include <jansson.h>
#include "common/io/db.h"
#include "dispatcher/httpd.h"
#include "dispatcher/versions.h"

struct job_looks;
struct job_looks *job_looks_new(struct db *read, struct versions *versions);
void job_looks_free(struct job_looks *l); /* before the db closes */

struct job_seen { /* borrowed, until the callback returns */
    const struct db_result *result;
    int row;
    const char *id, *state;
    int64_t version;
};

/* seen NULL: no such job in that app. */
typedef void job_look_fn(void *ctx, enum err err, const struct job_seen *seen);
enum err job_look(struct job_looks *l, const char *job, const char *app, job_look_fn *fn, void *ctx);

/* The API's job, as jobs_view has it. Its progress is left out: it belongs at *progress_at; NULL: it is the one of a
 * job of which Redis tells nothing. False: out of memory. */
const char *job_seen_progress(const struct job_seen *seen); /* that one */
bool job_seen_text(struct request *r, const struct job_seen *seen, struct buf *out, size_t *progress_at);

struct job_fresh { /* one that was accepted just now: what the columns would say is known */
    const char *id, *operation, *provider, *account, *created_at;
    const json_t *params, *metadata, *notes; /* NULL: none */
    int64_t hold_mc;
};
bool job_fresh_text(const struct job_fresh *job, struct buf *out); /* version 1; false: out of memory */
#endif
