/* sweep.h - garbage (protocol.md, step G): expired uploads and idempotency keys each minute; once an hour objects that
 * no row names, and temp files of the dead. Rows in PostgreSQL, files on a thread. Settle never deletes anything: this
 * does. */
#ifndef KILN_SWEEP_H
#define KILN_SWEEP_H

struct dispatcher;
struct sweep;
struct sweep *sweep_new(struct dispatcher *d);
void sweep_tick(struct sweep *s); /* each second, by the leader */
void sweep_close(struct sweep *s, void (*on_closed)(void *ctx), void *ctx);
#endif
