/* crowd.c - see crowd.h. */
#include "tests/schema/crowd.h"
#include "tests/schema/ask.h"

#include <pthread.h>
#include <stdlib.h>

struct member {
    pthread_t thread;
    pthread_barrier_t *start;
    crowd_work *work;
    void *arg;
    int number;
    int wrong;
};

static void *live(void *p)
{
    struct member *m = p;
    PGconn *c = test_connect();

    pthread_barrier_wait(m->start);
    m->wrong = PQstatus(c) == CONNECTION_OK ? m->work(c, m->number, m->arg) : 1;
    PQfinish(c);
    return NULL;
}

int crowd_run(int n, crowd_work *work, void *arg)
{
    struct member *all = calloc((size_t)n, sizeof *all);
    pthread_barrier_t start;
    int wrong = 0;

    pthread_barrier_init(&start, NULL, (unsigned)n);
    for (int i = 0; i < n; i++) {
        all[i] = (struct member){ .start = &start, .work = work, .arg = arg, .number = i };
        if (pthread_create(&all[i].thread, NULL, live, &all[i]) != 0)
            abort();
    }
    for (int i = 0; i < n; i++) {
        pthread_join(all[i].thread, NULL);
        wrong += all[i].wrong;
    }
    pthread_barrier_destroy(&start);
    free(all);
    return wrong;
}

unsigned crowd_random(unsigned *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 17;
    *seed ^= *seed << 5;
    return *seed;
}
