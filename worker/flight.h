/* flight.h - one job in the air: does what the machine says.
 *
 * A flight is made from a claim and lives until the job is over for this worker. It turns facts (answers of PostgreSQL,
 * Redis and the provider, timers, finished threads) into events, hands them to the machine and carries out the action.
 * While it waits for its next poll it is this struct, its envelope and its reference: no socket, no arena. The active
 * part is the `sortie`, made when needed. Everything asynchronous holds the flight (`holds`), so nothing dangles: it is
 * freed when the job is over and the last callback came. The runner owns the list; flights know it only as `struct
 * flight_env`. */
#ifndef KILN_FLIGHT_H
#define KILN_FLIGHT_H
#include <uv.h>
#include "common/core/decoder.h"
#include "common/core/holder.h"
#include "common/core/job.h"
#include "common/core/ledger.h"
#include "common/core/queue.h"
#include "common/core/store.h"
#include "common/io/httpc.h"
#include "worker/machine.h"
#include "worker/provider.h"

struct flight;
struct sortie;
struct worker_stats;

struct flight_line { /* a first-in first-out line of flights that wait for something of the worker's */
    struct flight *first, *last;
};

enum { STOW_GROUPS = 3 };

struct stow_group { /* at work on a thread; first NULL: not */
    struct sortie *first;
    struct flight_env *env;
    uv_work_t work;
    bool may_pack;
    enum err packed; /* ERR_OK: as far as tried */
};

struct stow {                    /* stow.c: results on their way to storage */
    struct sortie *first, *last; /* gathering */
    size_t count;                /* of those */
    int64_t packs_again_ms;      /* monotonic: after one failed none are made until then */
    struct stow_group groups[STOW_GROUPS];
};

struct flight_phases { /* phase.c: flights whose phase is not told yet, by when that is due */
    struct flight *first, *last;
    uv_timer_t timer;
};

struct flight_env {
    uv_loop_t *loop;
    const struct catalog *catalog;
    struct store *store;
    struct decoder *decoder; /* looks at results, in processes of its own */
    struct httpc *httpc;
    struct queue *queue;
    struct db *db;        /* of starts and checkpoints, and of envelopes that were too large for Redis */
    struct db *settle_db; /* of ends; without it nothing is started */
    struct holder *holder;
    struct ledger *ledger;
    struct worker_stats *stats;
    bool allow_private;

    int64_t beat_began_ms; /* the runner's: when the last accepted heartbeat began (monotonic) */
    uint64_t gap;          /* rises whenever heartbeats had a gap (protocol.md, rule 7) */
    bool is_draining;
    size_t parked;           /* outcomes that PostgreSQL has not taken yet: claim nothing meanwhile */
    uint64_t resync;         /* the runner's: rises with each look at what PostgreSQL says is mine */
    bool is_storage_failing; /* set by a flight that could not store, cleared by the runner: claim nothing */
    size_t concurrency;      /* KILN_CONCURRENCY */
    size_t polls_active;     /* polls on the wire */
    size_t resting;          /* sorties of waiting flights; sortie.c */
    size_t may_wait;         /* flights that wait for polls, or may come to it */
    bool is_feeding_polls;
    size_t memory_limit;   /* KILN_MEMORY_LIMIT, in bytes; 0: none */
    size_t held_bytes;     /* of requests and answers in memory, written by sorties */
    size_t received_bytes; /* of answers that are still coming; the runner asks httpc */
    struct flight_line for_poll, for_beat;
    struct flight_line for_settle; /* outcomes on their way to PostgreSQL, the oldest first */
    struct stow stow;
    struct flight_phases phases;
    struct flight_line for_store; /* results that wait for a thread, and some that have one, the oldest first */
    size_t in_state[JOB_STATE_COUNT];

    void (*on_change)(struct flight_env *env);                 /* a state changed: room may have come */
    void (*on_over)(struct flight_env *env, struct flight *f); /* forget it: memory goes after this */
};

struct settlement { /* what settle will be told; text is malloc'd */
    enum ledger_outcome outcome;
    enum err code;
    enum attempt_class klass;
    char *message, *request_id, *artifacts, *evidence;
    int64_t provider_status, units, cost_microusd, delay_ms;
    bool counts, is_exposed; /* is_exposed: refused, but perhaps paid for: no page calls it free */
    char next[32];           /* the provider that a retry moves on to; "": it stays */
};

struct flight {
    struct job job;
    struct flight_env *env;
    struct flight *prev, *next;           /* the runner's list */
    struct flight *line_prev, *line_next; /* for_poll, for_beat */
    struct flight_line *line;             /* the one it stands in */
    char lane[32], back_lane[32];         /* back_lane: where Redis should have it, if not where it was claimed */
    char *envelope, *note, *ref;
    const struct operation *op; /* NULL: not in this catalogue */
    const struct provider *adapter;
    const struct catalog_key *key; /* that submits, or submitted; NULL: not known yet, or the provider takes none */
    int64_t note_attempt, fence, attempt, units, tries;
    int64_t deadline_ms, give_up_ms; /* monotonic: the job's end; the end of this attempt's patience */
    int64_t attempt_began_ms, back_delay_ms, settle_began_ms;
    uint64_t gap; /* env->gap when start was asked */
    uint64_t taken_resync,
        seen_resync; /* env->resync when start gave it to me; when PostgreSQL last said that it is mine */
    uv_timer_t timer;
    void (*timer_fn)(struct flight *f);
    void *timer_data; /* of the one who set it */
    unsigned holds;
    enum job_event after_lost; /* what to go on with once the loss is counted */
    int64_t cost_microusd;     /* as told with the reference; -1 */
    unsigned asks; /* reconcile.c: how often the provider was asked; blanks: polls in a row without a trace of it */
    unsigned blanks;
    int retry_after_s, spoiled; /* the provider's hint; how often a result came broken */
    enum err doom;              /* why it can never be sent; ERR_OK */
    char *doom_text;
    bool is_doom_passing; /* not now, but perhaps later: back to the queue after retry_after_s or more */
    bool is_prepared, is_lost, is_unsent, is_parked, keep_note, is_poll_out, is_closing, is_canceled, was_plain,
        may_wait, is_routed, is_key_probe, is_key_guessed,
        is_marked,      /* is_marked: Redis knows that it is being collected */
        is_cancel_sent; /* the provider was told to stop, or never can be */
    const char *phase;  /* what it is at, for who watches; static */
    struct flight *phase_prev, *phase_next;
    uint64_t phase_due_ms; /* when it is told, by uv_now; 0: it was, or never will be */
    int64_t final_version;
    char final_state[16];
    struct settlement out;
    struct sortie *sortie;
};

struct flight *flight_new(struct flight_env *env,
                          const struct queue_claim *claim); /* NULL: out of memory; starts at once */
void flight_drain(struct flight *f);                        /* give it back if it may go; else it runs to its end */
void flight_lost(struct flight *f);                         /* PostgreSQL says that it is not mine any more */
void flight_canceled(struct flight *f);                     /* its owner canceled it */
void flight_beat(struct flight_env *env);       /* a heartbeat was accepted: those who waited for it ask now */
bool flight_is_at_rest(const struct flight *f); /* holds neither request nor thread: counts as waiting */
enum pressure { PRESSURE_POSTGRES, PRESSURE_STORAGE, PRESSURE_MEMORY, PRESSURE_COUNT };
extern const char *const pressure_name[PRESSURE_COUNT];
/* Why to claim less, in percent of the concurrency: 0 no reason, 100 claim nothing. */
unsigned flight_env_pressure(struct flight_env *env, enum pressure cause, int64_t now_ms);
size_t flight_env_calls(const struct flight_env *env);   /* jobs on their way to, in or behind a paid request */
size_t flight_env_results(const struct flight_env *env); /* polls on the wire and results being collected */
size_t flight_env_quarter(const struct flight_env *env); /* at least one */
size_t flight_env_reserve(const struct flight_env *env); /* how much of the concurrency calls leave to results */

/* For inputs.c and collect.c: they report by these. */
void flight_prepared(struct flight *f); /* inputs are here, or a doom is */
void flight_put_off(struct flight *f);  /* of a claimed one: not here, not now */
void flight_storage_failed(struct flight *f);
void flight_mark_collecting(struct flight *f); /* collect_marked follows */
void flight_unmark_collecting(struct flight *f);
int64_t flight_poll_delay_ms(const struct operation *op, int64_t age_ms, int64_t retry_after_s, int64_t left_ms);
void flight_hold(struct flight *f);
void flight_release(struct flight *f);
void flight_feed(struct flight *f, enum job_event event);
void flight_doom(struct flight *f, enum err code, const char *text); /* the first reason stays */
/* A final no of this provider: a routed job moves on, when another provider could cure it (design.md, Providers). */
void flight_refuse(struct flight *f, enum err code, enum attempt_class klass, const char *message);
void flight_fail(struct flight *f, enum err code, enum attempt_class klass, const char *message);
void flight_after(struct flight *f, int64_t delay_ms, void (*fn)(struct flight *f)); /* one at a time */
#endif
