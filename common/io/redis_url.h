/* redis_url.h - a Redis URL in parts; for redis.c. It may hold a password: never logged. */
#ifndef KILN_REDIS_URL_H
#define KILN_REDIS_URL_H
#include "common/base/err.h"

struct redis_url {
    char *user, *password, *host, *path; /* path: of a unix socket; then host is NULL */
    int port, db;
};

enum err redis_url_parse(struct redis_url *u, const char *text); /* ERR_ARGUMENT; then nothing to free */
void redis_url_done(struct redis_url *u);
#endif
