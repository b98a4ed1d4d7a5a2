/* status.h - the worker's own small HTTP face (KILN_WORKER_LISTEN): /healthz, /readyz, /metrics. Read only, no keys. */
#ifndef KILN_STATUS_H
#define KILN_STATUS_H
#include <uv.h>
#include "common/base/metrics.h"
#include "worker/runner.h"

struct status;
struct status *status_new(uv_loop_t *loop, const char *host, int port, struct runner *runner,
                          struct metrics *metrics); /* NULL: cannot listen */
void status_close(struct status *s);                /* frees itself when its handles are closed; NULL is fine */
#endif
