/* repair_inner.h - what repair.c and repair_lanes.c share. */
#ifndef KILN_REPAIR_INNER_H
#define KILN_REPAIR_INNER_H
#include <uv.h>
#include "dispatcher/dispatcher.h"

enum { REPAIR_PATIENCE_MS = 5000, REPAIR_LANES_MAX = 64 };

enum pass_kind { PASS_FULL, PASS_FRESH, PASS_SLOW, PASS_KINDS };

struct pass {
    struct repair *repair;
    enum pass_kind kind;
    bool is_active;
    char after[UUID_TEXT];  /* "" from the start */
    char before[UUID_TEXT]; /* of the fresh pass: up to here */
    int64_t began_ms;
    size_t rows, missing;
    int publishing; /* pages that Redis has not answered yet */
    bool is_reading, has_more, has_failed;
    bool is_calm; /* its pages keep a distance */
};

struct repair {
    struct dispatcher *d;
    struct ledger *ledger; /* on the repair connection */
    struct beat *beat;
    struct sweep *sweep;
    struct cache *cache;
    uv_timer_t timer;
    uv_timer_t apart; /* to the fresh pass's next page */
    char owner[UUID_TEXT], run_id[64];
    bool is_redis_up, is_leader, is_asking, is_expiring, is_closing;
    struct pass passes[PASS_KINDS];
    char known_run_id[64], known_marker[64];            /* what PostgreSQL has */
    char new_marker[UUID_TEXT], pass_marker[UUID_TEXT]; /* pass_marker: there while a full pass is under way */
    struct queue_limits limits[REPAIR_LANES_MAX];       /* as Redis was told last */
    size_t limit_count;
    uint64_t weights_digest; /* of what Redis was told last; 0: nothing */
    int64_t fresh_done_ms, fresh_late_ms, expire_ms, limits_ms, weights_asked_ms, weights_ms;
    void (*on_closed)(void *ctx);
    void *closed_ctx;
};

bool repair_can_publish(const struct repair *r);
void repair_on_hint(void *ctx, enum err err, size_t count); /* of what is told again anyway */
void repair_limits(struct repair *r);                       /* limits and weights, as PostgreSQL has them, into Redis */
#endif
