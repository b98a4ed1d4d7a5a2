/* watch.h - who waits for which job.
 *
 * `Prefer: wait=N` parks the request here. An event of the queue wakes the waiters of that job; all that woke in one
 * turn of the loop are read from PostgreSQL by one gathered call. Events may be lost, so each waiter's job is also
 * asked for its version every WATCH_REREAD_MS (all that are due by one question), and read at the end. Nothing spins
 * and no thread is held. */
#ifndef KILN_WATCH_H
#define KILN_WATCH_H
#include <uv.h>
#include "dispatcher/jobs.h"

enum { WATCH_REREAD_MS = 5000 };

struct watch;
struct watch *watch_new(uv_loop_t *loop, struct jobs *jobs, struct db *read);
void watch_close(struct watch *w, void (*on_closed)(void *ctx), void *ctx); /* nobody may wait any more */

/* Calls fn once: when the job is final, when its version is another than `version` (0: only the end counts), or when
 * wait_ms are over, always with the job as it is then. read_now: look before waiting. */
enum err watch_wait(struct watch *w, struct request *r, const char *job, int64_t version, int64_t wait_ms,
                    bool read_now, jobs_read_fn *fn, void *ctx);
/* The same without the document, a third of the work; looks before waiting. */
enum err watch_look(struct watch *w, struct request *r, const char *job, int64_t version, int64_t wait_ms,
                    job_look_fn *fn, void *ctx);
void watch_event(struct watch *w, const char *job, const char *state); /* state NULL: only progress */
void watch_release(struct watch *w);                                   /* drain: everybody gets what is there now */
size_t watch_count(const struct watch *w);
#endif
