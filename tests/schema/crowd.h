/* crowd.h - many connections doing something at once.
 *
 * crowd_run starts `n` threads with a connection each, lets them go together, joins them, and returns how many times
 * the work function said that something was wrong (each time also told on stderr). The function gets its number and the
 * shared `arg`; it must assert nothing, since Criterion's assertions belong to the main thread. */
#ifndef KILN_TESTS_SCHEMA_CROWD_H
#define KILN_TESTS_SCHEMA_CROWD_H
#include <libpq-fe.h>

typedef int crowd_work(PGconn *c, int number, void *arg); /* 0: fine */

int crowd_run(int n, crowd_work *work, void *arg);
unsigned crowd_random(unsigned *seed); /* xorshift: the same everywhere */

#endif
