/* health.h - is it alive, is it ready, how is it doing: /healthz, /readyz, /metrics, /openapi.json.
 *
 * Ready means that a job can be accepted: PostgreSQL and storage are there. Redis is named when it is missing, but its
 * absence is no reason for 503: jobs are accepted all the same and published later. */
#ifndef KILN_HEALTH_H
#define KILN_HEALTH_H
#include "dispatcher/httpd.h"

struct dispatcher;
struct health;
struct health *health_new(struct dispatcher *d);
void health_close(struct health *h, void (*on_closed)(void *ctx), void *ctx);
/* db.h's observer: latencies and batch sizes of every call */
void health_on_db_call(void *ctx, const char *name, size_t rows, int64_t us);

void health_live(struct request *r);
void health_ready(struct request *r);
void health_metrics(struct request *r);
void health_openapi(struct request *r);
#endif
