/* batches.h - POST /v1/batches: up to 10,000 jobs, all or none; GET /v1/batches/{id}: what has become of them.
 *
 * A batch is one call of kiln_accept_batch on a connection of its own, so that single jobs are not held up by it. It
 * has no row: its numbers are counted from its jobs. */
#ifndef KILN_BATCHES_H
#define KILN_BATCHES_H
#include "dispatcher/httpd.h"

void batches_post(struct request *r);
void batches_get(struct request *r);
#endif
