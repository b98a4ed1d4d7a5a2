/* inputs.h - the files that a job brings: ids are looked up, `data:` URIs become uploads, URLs are kept for the worker.
 *
 * Everything is checked against the operation's limits before any money is held, and nothing of a refused job stays:
 * uploads made from `data:` URIs are deleted again by inputs_undo. Values are replaced in params by the upload's id. */
#ifndef KILN_INPUTS_H
#define KILN_INPUTS_H
#include "common/core/catalog.h"
#include "common/io/db.h"
#include "dispatcher/httpd.h"

struct dispatcher;
struct inputs;
struct inputs_set; /* the inputs of one job; lives in the arena given */

struct inputs *inputs_new(struct dispatcher *d);
void inputs_free(struct inputs *in); /* before the dbs close */

/* done: err ERR_OK, ERR_INVALID_REQUEST with faults, or a backend's. *inputs: the envelope's `inputs`, new; NULL: none.
 * is_dry: only look and check, for estimates of nothing: no upload is made. */
typedef void inputs_fn(void *ctx, enum err err, const struct catalog_faults *faults, json_t *inputs);
struct inputs_set *inputs_resolve(struct inputs *in, struct arena *a, const struct operation *op,
                                  const char *app /* whose files; lives as long as the set */, const char *account,
                                  json_t *params, int64_t keep_s, inputs_fn *fn, void *ctx); /* NULL: out of memory */
bool inputs_made(const struct inputs_set *set); /* there are uploads to undo; NULL is fine */
void inputs_undo(struct inputs_set *set);       /* the job was refused; NULL is fine. Copies what it needs */
#endif
