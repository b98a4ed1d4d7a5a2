/* queue_internal.h - what the files of the queue share: its object, what was asked, arguments for a script.
 *
 * Nobody else includes this. queue.c has the connections, sleeping and waking, claims and the request budget;
 * queue_scripts.c the scripts' text; queue_calls.c the calls that are one script; queue_gather.c those that are
 * gathered; queue_keys.c those about a provider's keys; queue_repair.c resync and bury, which go through many claims.
 */
#ifndef KILN_QUEUE_INTERNAL_H
#define KILN_QUEUE_INTERNAL_H
#include "common/core/queue.h"
#include "common/base/text.h"
#include "common/io/redis.h"

#define QUEUE_PREFIX "kiln:{0}:" /* the shard's hash tag: all keys lie on one node of a cluster */

#define QUEUE_SCRIPTS(X)                                                                                               \
    X(ADOPT, "adopt.lua")                                                                                              \
    X(BURY, "bury.lua")                                                                                                \
    X(CANCEL, "cancel.lua")                                                                                            \
    X(CLAIM, "claim.lua")                                                                                              \
    X(COLLECTING, "collecting.lua")                                                                                    \
    X(EVENT, "event.lua")                                                                                              \
    X(FORGET, "forget.lua")                                                                                            \
    X(GIVE_BACK, "give_back.lua")                                                                                      \
    X(KEY_PICK, "key_pick.lua")                                                                                        \
    X(KEY_TELL, "key_tell.lua")                                                                                        \
    X(NOTE, "note.lua")                                                                                                \
    X(PAUSE, "pause.lua")                                                                                              \
    X(PROGRESS, "progress.lua")                                                                                        \
    X(PUBLISH, "publish.lua")                                                                                          \
    X(PUT_BACK, "put_back.lua")                                                                                        \
    X(SET_LIMITS, "set_limits.lua")                                                                                    \
    X(SET_WEIGHTS, "set_weights.lua")                                                                                  \
    X(SET_MARKER, "set_marker.lua")                                                                                    \
    X(SPEND, "spend.lua")                                                                                              \
    X(STATS, "stats.lua")

enum queue_script {
#define X(name, file) QUEUE_##name,
    QUEUE_SCRIPTS(X)
#undef X
        QUEUE_SCRIPT_COUNT
};

struct ask { /* somebody's call; goes with its answer */
    struct ask *next;
    struct queue *q;
    union {
        queue_done_fn *done;
        queue_claim_fn *claim;
        queue_text_fn *text;
        queue_spend_fn *spend;
        queue_progress_fn *progress;
        queue_stats_fn *stats;
        queue_key_fn *key;
        queue_keys_fn *keys;
    } fn;
    void *ctx;
    enum err err;       /* of its parts, the first that is not ERR_OK */
    size_t left, count; /* parts not answered yet; the sum of the answers */
    size_t n;           /* claim: max; spend: how many requests */
    int64_t seq;        /* claim: number of the call */
    char *lane, *key;   /* spend; key: "" none */
};

enum gather { /* calls of these kinds are gathered (queue_gather.c); they are sent in this order */
              GATHER_COLLECTING,
              GATHER_NOTE,
              GATHER_PROGRESS,
              GATHER_PUT_BACK,
              GATHER_FORGET,
              GATHER_EVENT,
              GATHER_COUNT
};
enum { GATHER_PLACES = 1 << 14 };

struct gathered;
struct resync;

struct queue {
    uv_loop_t *loop;
    struct queue_config config;
    char *worker; /* NULL: a dispatcher */
    struct redis *commands, *sleeper, *listener;
    struct redis_script scripts[QUEUE_SCRIPT_COUNT];
    size_t open; /* timers, and connections but for `commands`, which closes last */
    bool is_up, is_closing;
    char run_id[64];

    int64_t claim_seq;  /* of the last claim call */
    struct ask *claims; /* not answered yet, oldest first */
    bool is_hungry;     /* the last claim came back short, and nobody was woken since: sleep */
    bool is_asleep;     /* BLPOP is under way */
    bool is_dirty;      /* woken while a claim was under way */
    bool holds_token;   /* woken by a token, and no claim since: it is another's after a moment */
    uv_timer_t token_timer;

    struct ask *spends, **spends_end; /* gathered in this turn of the loop */
    uv_timer_t spend_timer;

    struct {
        struct gathered *first[GATHER_COUNT], *end[GATHER_COUNT];
        unsigned char last[GATHER_PLACES]; /* by the job's hash: the latest kind of those gathered, plus 1 */
        bool is_waiting;                   /* for one of these: */
        uv_prepare_t prepare;
        uv_check_t check;
    } gather;

    struct resync *resyncs;
    int64_t complained_ms; /* the last log line about a refused script */

    void (*on_closed)(void *ctx);
    void *closed_ctx;
};

struct ask *ask_new(struct queue *q, void *ctx);
enum err queue_err(struct queue *q, enum err err, const redisReply *reply); /* what our callers may see */
void ask_part_done(struct ask *a, enum err err);                            /* with the last part it goes */
void ask_on_done(void *ctx, enum err err, const redisReply *reply);         /* a part of a queue_done_fn's */

struct args { /* of one script: text is borrowed, numbers live here */
    size_t count, cap;
    const char **v;
    char (*numbers)[24];
};
void args_init(struct args *a, size_t cap); /* and the key, the prefix, comes first */
void args_done(struct args *a);
void args_text(struct args *a, const char *s); /* NULL: "" */
void args_int(struct args *a, int64_t n);
void queue_run(struct queue *q, enum queue_script script, struct args *a, redis_fn *fn, void *ctx); /* ends the args */

void gather_init(struct queue *q);
void queue_flush(struct queue *q); /* what was gathered goes now */

char *queue_script_source(const char *body);           /* with what it uses of common.lua; the caller's */
void queue_scripts_load(struct redis_script *scripts); /* QUEUE_SCRIPT_COUNT of them */

void resync_touch(struct queue *q, const char *job); /* forgotten or put back while a resync looks */
#endif
