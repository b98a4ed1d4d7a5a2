/* runner.h - the worker as a whole: claims, heartbeat, resync, backpressure, drain.
 *
 * Wires database, queue and HTTP client to the flights and decides how many there may be. One per process and loop. */
#ifndef KILN_RUNNER_H
#define KILN_RUNNER_H
#include <uv.h>
#include "common/base/metrics.h"
#include "common/core/catalog.h"
#include "common/core/decoder.h"
#include "common/core/store.h"

struct runner;

struct runner_config {
    const char *database_url, *redis_url; /* borrowed until runner_new returns */
    int64_t concurrency, max_waiting;
    int64_t memory_limit; /* bytes of requests and answers in memory, from which nothing is claimed; 0: none */
    const char *ca_file;  /* outlives the runner; NULL: the certificates that the system trusts */
    bool allow_private;
    const struct catalog *catalog;                 /* outlives the runner */
    struct store *store;                           /* outlives the runner */
    struct decoder *decoder;                       /* outlives the runner */
    struct metrics *metrics;                       /* outlives the runner */
    void (*on_ended)(void *ctx, bool is_complete); /* after a drain: all is closed; or, hurried, calls are open still */
    void *ctx;
};

struct runner *runner_new(uv_loop_t *loop, const struct runner_config *config); /* NULL: out of memory */
void runner_drain(struct runner *r); /* SIGTERM; a second call ends it without waiting for open calls */
void runner_free(struct runner *r);  /* after on_ended, when the loop has run dry */

struct runner_status {
    const char *id;
    bool postgres, redis, storage, is_draining;
    size_t active, waiting, parked;
    const char *claims, *why; /* "all" "less" "none"; what for, "" when all. Static */
};
struct runner_status runner_status(struct runner *r);
void runner_refresh_metrics(struct runner *r); /* before they are printed */
#endif
