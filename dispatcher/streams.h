/* streams.h - server-sent events: GET /v1/jobs/{id}/events and GET /v1/events.
 *
 * A job's stream shows the job at each new version and ends with its end; an event's id is the version. An app's stream
 * shows each of its jobs that ends; an event's id is "<finished_at, microseconds>-<job>", so that PostgreSQL alone can
 * resume it at any dispatcher. Whoever comes back with Last-Event-ID misses no end; what ended in the ten seconds
 * before it may come again, under the same id. Redis only hastens; every stream is also looked after by PostgreSQL each
 * few seconds. A comment goes out every 15 s; who does not read is dropped with a last event once 256 KiB wait. */
#ifndef KILN_STREAMS_H
#define KILN_STREAMS_H
#include "dispatcher/httpd.h"

struct dispatcher;
struct streams;
struct streams *streams_new(struct dispatcher *d);
void streams_close(struct streams *s, void (*on_closed)(void *ctx), void *ctx); /* no stream is open any more */
void streams_free(struct streams *s);                                           /* after the loop; NULL is fine */
void streams_release(struct streams *s);                                        /* drain: all end politely */
size_t streams_count(const struct streams *s);                                  /* NULL is fine: 0 */
void streams_event(struct streams *s, const char *job, const char *state, const char *phase, int percent);

void streams_of_job(struct request *r);
void streams_of_app(struct request *r);
#endif
