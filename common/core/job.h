/* job.h - a job as an envelope: what never changes about it, between dispatcher, Redis and worker.
 *
 * The envelope is JSON {id, app, account, operation, provider, params, inputs, units}. `inputs` says where the bytes of
 * file parameters are: {"image":[{"object":"upload/ab/…","mime":…,"bytes":…,"width":…,"height":…}]} or
 * [{"url":"https://…"}]. A routed job has `route` too, its legs (catalog_route.h): `operation` and `params` are then
 * the route's own, until job_envelope_leg puts one leg's in their place. A job's answer for the API is made by
 * PostgreSQL (kiln_job_json) and only completed by the dispatcher. */
#ifndef KILN_JOB_H
#define KILN_JOB_H
#include <stdbool.h>
#include <stdint.h>
#include "common/base/arena.h"
#include "common/base/json.h"

enum { JOB_ENVELOPE_MAX = 8192 };

#define JOB_FINAL(X)                                                                                                   \
    X(JOB_SUCCEEDED, "succeeded")                                                                                      \
    X(JOB_FAILED, "failed")                                                                                            \
    X(JOB_CANCELED, "canceled")
bool job_state_is_final(const char *state); /* "succeeded" "failed" "canceled" */

struct job_envelope { /* text lives in the arena it was parsed into */
    const char *id, *app, *account, *operation, *provider;
    json_t *params, *inputs; /* owned: job_envelope_done; inputs may be NULL */
    json_t *route;           /* owned; NULL: a plain job */
    int64_t units;
};
char *job_envelope_print(const struct job_envelope *e); /* malloc'd */
/* The same when params, inputs and route are JSON text already (NULL: absent); e's own are not looked at. */
char *job_envelope_text(const struct job_envelope *e, const char *params, const char *inputs, const char *route);
bool job_envelope_parse(struct arena *a, const char *text, struct job_envelope *out); /* false: not ours */
void job_envelope_done(struct job_envelope *e);
/* A routed job's envelope as the leg of this provider needs it: operation, provider, params, and inputs under the leg's
 * names. False: no such leg (or out of memory); nothing was changed. */
bool job_envelope_leg(struct arena *a, struct job_envelope *e, const char *provider);
/* The provider of the leg after this one's; borrowed from `route`; NULL: it was the last, or the job has no route. */
const char *job_route_next(const json_t *route, const char *provider);
#endif
