/* watch.h - follows one job to its end and shows how it goes: a live line on a terminal, a line for each new thing in a
 * pipe, nothing with --json. A signal ends the watching, never the job. */
#ifndef KILN_CLIENT_WATCH_H
#define KILN_CLIENT_WATCH_H
#include <jansson.h>
#include "dispatcher/client/client.h"

/* CLIENT_DONE: *job is new and final. Else a message was printed; the job goes on. */
int watch_job(struct client *c, const char *id, json_t **job);
#endif
