/* queue.h - the queue in Redis: the only one at its keys; runs the scripts of schema/redis.
 *
 * Redis hints, PostgreSQL decides: every call may be lost or repeated, and whatever Redis says costs at most a claim
 * that kiln_start answers `busy` or `finished`. Lanes are providers; in a lane apps, then accounts take weighted fair
 * turns; in an account priority (higher first), then age. A lane's concurrency is the size of its claim set. Callbacks
 * come from the loop, once each; `err` is ERR_OK, ERR_UNAVAILABLE, ERR_LOST or ERR_CLOSED.
 *
 * Who is woken claims, and goes on claiming while claims come back full and there is room: only a claim that comes back
 * short (fewer than `max`) lets the queue sleep on the wake list again. A worker that did not claim when it was woken
 * (full, PostgreSQL away) claims by itself once it can; its wake-up went to another meanwhile. Beside wake-ups, claim
 * when `next_ms` is over. What is published twice in different places (lane, account) goes where the last one says.
 *
 * note, collecting, put_back, forget, progress and event are gathered: those of one turn of the loop are few script
 * calls, sent at its end, or before a call that has to come after them; of one job they keep their order.
 *
 * After queue_close everything asked before or since is answered, then on_closed comes; then the object is gone.
 *
 * One queue object serves one process: a worker (with an id; claims, sleeps on the wake list) or a dispatcher (id NULL;
 * publishes, listens to events). */
#ifndef KILN_QUEUE_H
#define KILN_QUEUE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>
#include "common/base/err.h"

struct queue;

struct queue_config {
    const char *redis_url;
    const char *worker;                                          /* UUID of this process start; NULL: a dispatcher */
    void (*on_state)(void *ctx, bool is_up, const char *run_id); /* run_id: names this life of the Redis server */
    void (*on_wake)(void *ctx);                                  /* worker: work may be there; claim */
    void (*on_hint)(void *ctx, const char *job);                 /* worker: this job of yours was canceled */
    void (*on_event)(void *ctx, const char *job, int64_t version, const char *state, const char *phase,
                     int percent); /* dispatcher; state or phase may be NULL */
    void *ctx;
};

struct queue *queue_new(uv_loop_t *loop, const struct queue_config *config);
void queue_close(struct queue *q, void (*on_closed)(void *ctx), void *ctx);
bool queue_is_up(const struct queue *q);

typedef void queue_done_fn(void *ctx, enum err err, size_t count); /* count: how many were new, moved, … */

struct queue_item { /* all borrowed during the call */
    const char *job, *lane, *app, *account;
    const char *envelope; /* JSON of what never changes; NULL (above 8 KiB): "read it in PostgreSQL" */
    int64_t priority;     /* -100…100 */
    int64_t created_ms;   /* wall; age within the priority */
    int64_t delay_ms;     /* > 0: not before that */
    int64_t account_cap;  /* accounts.max_running; 0: none, -1: not known, leave it as it is */
    bool is_new;          /* accepted just now: nobody can have noted anything about it, and no claim asks */
};
/* Adds jobs that Redis does not know; known ones (also claimed) stay as they are. Wakes one sleeper per call. */
void queue_publish(struct queue *q, const struct queue_item *items, size_t count, queue_done_fn *fn, void *ctx);

struct queue_claim { /* borrowed during the callback */
    const char *job, *lane;
    const char *envelope; /* NULL: read it in PostgreSQL */
    const char *note;     /* JSON of the last note; NULL */
    int64_t note_attempt;
    bool is_lost; /* a worker died while collecting it: count it with kiln_lost after start */
};
/* Up to `max` jobs of any lane that has room, budget (each claim spends one request) and no pause; lanes take turns.
 * next_ms: when a delayed job, a pause or the budget could give more (-1: unknown, sleep until woken). */
typedef void queue_claim_fn(void *ctx, enum err err, const struct queue_claim *claims, size_t count, int64_t next_ms);
void queue_claim(struct queue *q, size_t max, queue_claim_fn *fn, void *ctx);

/* A fact about one attempt, kept with the claim if it is mine: {"ref":…,"request_id":…} or {"outcome":…}. */
void queue_note(struct queue *q, const char *job, int64_t attempt, const char *note, queue_done_fn *fn, void *ctx);
/* The job is being collected or stored (true) or no longer (false): who dies in between counts as a loss. */
void queue_collecting(struct queue *q, const char *job, bool is_collecting, queue_done_fn *fn, void *ctx);
/* Claims of mine back to ready: after `delay_ms` (0: at once, at the account's head). `lane` NULL: stays. Drops the
 * claim's note unless keep_note. */
void queue_put_back(struct queue *q, const char *job, const char *lane, int64_t delay_ms, bool keep_note,
                    queue_done_fn *fn, void *ctx);
/* PostgreSQL said finished: job, claim and note go; publishes the event (version, state; state NULL: no event). */
void queue_forget(struct queue *q, const char *job, int64_t version, const char *state, queue_done_fn *fn, void *ctx);
/* A canceled job: out of ready and delayed; a holder's worker gets on_hint. */
void queue_cancel(struct queue *q, const char *job, int64_t version, const char *holder, queue_done_fn *fn, void *ctx);
/* Claims of dead workers back to ready. What the dead noted as being collected is kept for the next claim (is_lost). */
void queue_bury(struct queue *q, const char *const *workers, size_t count, queue_done_fn *fn, void *ctx);
typedef void queue_text_fn(void *ctx, enum err err, const char *text); /* text NULL: nothing there */
/* "Here is all I hold": claims of mine that are not in the list go back to ready, missing ones are added. */
void queue_resync(struct queue *q, const char *const *jobs, const char *const *lanes, size_t count, queue_done_fn *fn,
                  void *ctx);

/* Polls and other requests to a provider: asks for n of the lane's budget, polls get at most two thirds while submits
 * wait. Gathered: calls of one turn of the loop are one script call. allowed_after_ms: 0 now (spent), else wait that
 * long and ask again. */
typedef void queue_spend_fn(void *ctx, enum err err, int64_t allowed_after_ms);
void queue_spend(struct queue *q, const char *lane, size_t n, queue_spend_fn *fn, void *ctx);
/* The same of one key's budget, where a provider has several: `key` is its fingerprint; NULL: the lane's. */
void queue_spend_key(struct queue *q, const char *lane, const char *key, size_t n, queue_spend_fn *fn, void *ctx);

/* Several keys of one provider, by their fingerprints; each has the lane's budget for itself (limits.keys lets claims
 * know of that), pauses of its own, and is out for a while when the provider refused it. */
enum { QUEUE_KEYS_MAX = 32 };
typedef void queue_key_fn(void *ctx, enum err err, int which, int64_t wait_ms, bool is_probe);
/* The key of the next request, one of its budget spent: those that are not out nor paused take turns. which -1: none
 * for now, ask again after wait_ms. is_probe: it was out, and somebody has to find out: say queue_key_tell. When all
 * are out the one that was to be tried next is given. */
void queue_key_pick(struct queue *q, const char *lane, const char *const *keys, size_t count, queue_key_fn *fn,
                    void *ctx);
enum queue_key_fact {
    QUEUE_KEY_LOOK,  /* nothing new: how are they? */
    QUEUE_KEY_PAUSE, /* 429: not for that long */
    QUEUE_KEY_OUT,   /* refused: not for that long, longer with each time in a row */
    QUEUE_KEY_GOOD   /* a probe went well */
};
struct queue_key_state {
    int64_t paused_ms, out_ms, failures;
    const char *code; /* why it is out; "" */
};
/* next_ms: when one of them may be used (0 now; -1: all are out). states: beside `keys`. */
typedef void queue_keys_fn(void *ctx, enum err err, int64_t next_ms, const struct queue_key_state *states,
                           size_t count);
void queue_key_tell(struct queue *q, const char *lane, const char *const *keys, size_t count, size_t which,
                    enum queue_key_fact fact, int64_t ms, const char *code, queue_keys_fn *fn, void *ctx);
void queue_pause(struct queue *q, const char *lane, int64_t ms, queue_done_fn *fn, void *ctx); /* never shortens */
struct queue_limits {
    const char *lane;
    int64_t concurrency, budget_count, budget_window_ms; /* 0: none */
    int64_t paused_ms; /* > 0 pauses that long, 0 leaves as is, -1 lifts an operator's pause */
    int64_t keys;      /* how many the provider has, each with the budget for itself; 0: one */
};
void queue_set_limits(struct queue *q, const struct queue_limits *limits, size_t count, queue_done_fn *fn, void *ctx);
enum { QUEUE_WEIGHT_MAX = 1000, QUEUE_WEIGHTS_MAX = 10000 };
struct queue_weight {
    const char *app, *account; /* account NULL or "": the app's share among apps, else its share among the app's */
    int64_t weight;            /* 1…QUEUE_WEIGHT_MAX */
};
/* All weights but those that are 1: who is not named has 1 from now on. More than QUEUE_WEIGHTS_MAX: the first. */
void queue_set_weights(struct queue *q, const struct queue_weight *weights, size_t count, queue_done_fn *fn, void *ctx);

void queue_progress(struct queue *q, const char *job, const char *phase,
                    int percent); /* percent -1: unknown; a hint, may be lost */
typedef void queue_progress_fn(void *ctx, enum err err, const char *phase, int percent); /* phase NULL: unknown */
void queue_progress_of(struct queue *q, const char *job, queue_progress_fn *fn, void *ctx);
void queue_event(struct queue *q, const char *job, int64_t version,
                 const char *state); /* dispatcher: finished by cancel or expire */

struct queue_lane_stats {
    const char *lane;
    int64_t ready, delayed, claimed, oldest_ms, paused_ms;
};
typedef void queue_stats_fn(void *ctx, enum err err, const struct queue_lane_stats *lanes, size_t count);
void queue_stats(struct queue *q, queue_stats_fn *fn, void *ctx);

void queue_marker(struct queue *q, queue_text_fn *fn, void *ctx); /* NULL text: Redis lost its data (or is new) */
/* The reconciler's: when a full pass begins (expected NULL), and when it is complete, if Redis still has what it began
 * with. count 0: it has not, it lost its data meanwhile. */
void queue_set_marker(struct queue *q, const char *expected, const char *marker, queue_done_fn *fn, void *ctx);
void queue_check_policy(struct queue *q, queue_text_fn *fn,
                        void *ctx); /* maxmemory-policy; anything but noeviction is a fault */
#endif
