/* repair.h - what the dispatcher puts right without being asked (protocol.md, steps R, E, G and living and dying).
 *
 * Under a lease row (two at once are harmless): the reconciler publishes what Redis does not know, expire ends what is
 * past its deadline, limits of the catalogue and of operators (table lanes) go to Redis. Every dispatcher looks at the
 * workers' heartbeats, so that the last worker's death is seen, and puts back the claims of the dead. */
#ifndef KILN_REPAIR_H
#define KILN_REPAIR_H
#include <stdbool.h>

struct dispatcher;
struct repair;
struct repair *repair_new(struct dispatcher *d);
void repair_redis(struct repair *r, bool is_up, const char *run_id); /* the queue's on_state */
/* What operators set for lanes has changed: Redis is told now, not at the leader's next look. */
void repair_lanes(struct repair *r);
/* Stops everything, before repair_db and the queue close; the memory stays for answers of the queue on their way. */
void repair_close(struct repair *r, void (*on_closed)(void *ctx), void *ctx);
void repair_free(struct repair *r); /* after the queue closed; NULL is fine */
#endif
