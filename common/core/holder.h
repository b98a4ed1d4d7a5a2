/* holder.h - start, checkpoint, hand back, beat: who may write a job. The only caller of those schema functions.
 *
 * Gathered like the ledger's calls; the beat goes over a connection of its own. Callbacks come once, from the loop;
 * `err` as in ledger.h. */
#ifndef KILN_HOLDER_H
#define KILN_HOLDER_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/io/db.h"

struct holder;
struct holder *holder_new(struct db *db, const char *worker);
void holder_free(struct holder *h); /* before its db closes */

enum start_verdict {
    START_GO,
    START_RESUME,
    START_SETTLE,
    START_UNKNOWN,
    START_BUSY,
    START_LATER,
    START_FINISHED,
    START_DEAD
};
extern const char *const start_verdict_name[];
struct holder_started {
    enum start_verdict verdict;
    int64_t fence, attempt;
    const char *ref;      /* of resume; borrowed */
    int64_t remaining_ms; /* until the deadline; of `later`: until run_at */
    int64_t unknowns, tries;
    const char *provider;   /* the attempt's, or the job's; borrowed */
    int64_t attempt_age_ms; /* since the attempt was opened: the poll schedule goes on from there */
};
typedef void holder_start_fn(void *ctx, enum err err, const struct holder_started *started);
/* note: JSON about attempt note_attempt, NULL none. unsent: I know that I sent nothing. ERR_LOST: it may have been
 * done; ask again with unsent. */
enum err holder_start(struct holder *h, const char *job, bool unsent, int64_t note_attempt, const char *note,
                      holder_start_fn *fn, void *ctx);

enum holder_verdict { HOLDER_DONE, HOLDER_STALE, HOLDER_FINISHED, HOLDER_OPEN };
typedef void holder_fn(void *ctx, enum err err, enum holder_verdict verdict);
enum err holder_checkpoint(struct holder *h, const char *job, int64_t fence, int64_t attempt, const char *ref,
                           const char *request_id, holder_fn *fn, void *ctx);
enum err holder_handback(struct holder *h, const char *job, int64_t fence, bool unsent, holder_fn *fn, void *ctx);
enum err holder_lost(struct holder *h, const char *job, int64_t fence, holder_fn *fn,
                     void *ctx); /* HOLDER_FINISHED: it was the third, worker_lost */

/* Jobs that PostgreSQL says I hold: one callback a job, then one with job NULL. Asked over `db`, over which jobs are
 * settled, too: then none is named whose settle was heard before. (One handed back meanwhile may be.) */
typedef void holder_mine_fn(void *ctx, enum err err, const char *job, int64_t fence);
enum err holder_mine(struct holder *h, struct db *db, holder_mine_fn *fn, void *ctx);

/* Beats each second until freed, on `db` (a connection of its own). worker NULL: a dispatcher, which only looks.
 * Give that connection an answer_ms of about 2000: a hung one has to be replaced before others take me for dead.
 * on_beat: after each accepted one, with the monotonic time at which it began (rule 7 asks how long ago that was);
 * on_dead: workers dead in the last ten minutes, whenever there are any. */
struct beat;
struct beat_config {
    struct db *db;
    uv_loop_t *loop;
    const char *worker, *info; /* info: JSON {host, pid, version}; may be NULL */
    void (*on_beat)(void *ctx, int64_t began_ms);
    void (*on_dead)(void *ctx, const char *const *workers, size_t count);
    void *ctx;
};
struct beat *beat_new(const struct beat_config *config);
void beat_leave(struct beat *b, void (*fn)(void *ctx),
                void *ctx); /* marks me dead at once: the last thing a drain does */
void beat_free(struct beat *b, void (*on_closed)(void *ctx), void *ctx);
#endif
