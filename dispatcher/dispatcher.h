/* dispatcher.h - what the dispatcher's rooms share: one struct, made by main (or a test), alive as long as the loop.
 *
 * Five connections to PostgreSQL, so that what waits for one kind of call never delays another: `write` (accept,
 * cancel, grant), `batches` (one batch can take a second), `read`, and `repair` (reconciler, expire, beat, sweeps,
 * lanes), and `operators` (their lists, which may read far). */
#ifndef KILN_DISPATCHER_H
#define KILN_DISPATCHER_H
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>
#include "common/base/config.h"
#include "common/base/metrics.h"
#include "common/core/catalog.h"
#include "common/core/ledger.h"
#include "common/core/queue.h"
#include "common/core/store.h"
#include "common/io/db.h"
#include "dispatcher/httpd.h"
#include "dispatcher/load.h"

struct auth;
struct accept;
struct inputs;
struct moderation;
struct providers;
struct templates;
struct jobs;
struct watch;
struct streams;
struct repair;
struct artifacts;
struct health;

struct dispatcher {
    uv_loop_t *loop;
    struct metrics *metrics;
    struct catalog *catalog;
    struct store *store;
    struct db *write, *batch_db, *read, *repair_db, *operators_db;
    struct ledger *ledger, *batch_ledger;
    struct queue *queue;
    struct httpd *httpd;
    struct load load;

    struct auth *auth;
    struct accept *accept;
    struct inputs *inputs;
    struct templates *templates;
    struct moderation *moderation;
    struct providers *providers;
    struct jobs *jobs;
    struct watch *watch;
    struct streams *streams;
    struct artifacts *artifacts;
    struct health *health;
    struct repair *repair;

    int64_t exposure_us; /* exposure.c: counted up to here, PostgreSQL's clock */
    char *database_url;  /* for threads that ask on their own (sweep) */
    char *public_url;    /* no trailing slash; NULL: the request's Host */
    unsigned char signing_key[32];
    bool is_draining, is_closing, is_streams_closed;
    size_t open; /* rooms that have still to report that they are closed */
    uv_timer_t drain_timer;
};

static inline struct dispatcher *dispatcher_of(const struct request *r)
{
    return r->ctx;
}

/* Opens everything and starts to listen. `problem` says what is wrong; the process has to end then. */
enum err dispatcher_open(struct dispatcher *d, uv_loop_t *loop, const struct config *config, char *problem,
                         size_t problem_size);
void dispatcher_reload(struct dispatcher *d); /* SIGHUP: reads the files of words again */
void dispatcher_drain(struct dispatcher *d);  /* stops listening, finishes what is open, then closes: the loop ends */
void dispatcher_free(struct dispatcher *d);   /* after the loop */
#endif
