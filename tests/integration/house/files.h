/* files.h - a tiny HTTP server inside a test: what a user's URL may lead to. One thread, one request a connection.
 *
 *   /ok.png        a PNG of 128x128         /redirect/N   N redirects, then /ok.png
 *   /many.png      a PNG of 1100x1000       /big.png      11 MiB that begin like a PNG
 *   /page          HTML                     /missing      404
 *   /flaky.png     503, at the second request /ok.png     /cut.png    breaks off */
#ifndef KILN_FILES_H
#define KILN_FILES_H
#include <pthread.h>
#include <stdatomic.h>

struct files {
    int fd, port;
    pthread_t thread;
    atomic_int hits;
    int flaky;
};

void files_start(struct files *s);
void files_stop(struct files *s);
#endif
