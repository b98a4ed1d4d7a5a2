/* jobs.h - what submit and get share: a job followed to its end, its results saved, its end said. */
#ifndef KILN_CLIENT_JOBS_H
#define KILN_CLIENT_JOBS_H
#include "dispatcher/client/client.h"

int jobs_follow(struct client *c, const char *id); /* the exit status */
#endif
