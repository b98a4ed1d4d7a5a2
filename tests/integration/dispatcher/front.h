/* front.h - a real kiln-dispatcher for one test, with a database and a Redis of its own, and clients to talk to it: one
 * request at a time (libcurl), many at once (curl multi), and raw sockets for what no client would send.
 *
 * front_close stops it with SIGTERM and checks that it ended well: exit 0, nothing from the sanitizers, and none of the
 * test's secrets in its log. */
#ifndef KILN_TEST_FRONT_H
#define KILN_TEST_FRONT_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "common/base/json.h"
#include "tests/support/support.h"

#define FRONT_PROMPT   "canary-prompt-7f3a"
#define FRONT_PROVIDER "canary-provider-key-91bc"

struct front {
    pid_t pid;
    int port;
    char *db, *redis;
    char dir[64];
    char app[40], other_app[40];
    char key[64], jobs_key[64], credits_key[64], other_key[64]; /* all scopes but admin; one scope; another app's */
    char admin_key[64];                                         /* admin alone, of an app `operators` */
    const char *const *env;
};

void front_open(struct front *f, const char *const *env); /* env: "NAME=value", NULL-terminated; may be NULL */
void front_start(struct front *f);                        /* again, after front_kill or front_stop */
void front_stop(struct front *f);                         /* SIGTERM, and it has to end well */
void front_kill(struct front *f);                         /* SIGKILL */
bool front_wait_exit(struct front *f, int limit_ms);      /* it ends by itself */
void front_close(struct front *f);
char *front_log(const struct front *f); /* free() it */
void front_grant(struct front *f, const char *account, const char *credits);
int64_t front_count(struct front *f, const char *sql);

struct reply {
    long status;
    char *body, *headers;
    size_t len;
    json_t *json; /* NULL: not JSON */
    double seconds;
};
struct request_spec {
    const char *method, *path, *key; /* key NULL: the front's; "": none */
    const char *body;
    size_t len; /* 0: strlen */
    const char *type;
    const char *headers[4];
};
struct reply front_ask(struct front *f, const struct request_spec *spec);
struct reply front_get(struct front *f, const char *path);
struct reply front_post(struct front *f, const char *path, const char *json);
struct reply front_admin(struct front *f, const char *method, const char *path, const char *json /* NULL: none */);
void reply_done(struct reply *r);
const char *reply_header(const struct reply *r, const char *name); /* "" absent; valid until the next call */
const char *reply_text(const struct reply *r, const char *key);    /* "" absent */
const char *reply_field(const struct reply *r);                    /* errors[0].field; "" */

/* `count` times the same request over up to `parallel` connections; statuses go to out. bodies may be NULL. */
void front_storm(struct front *f, const struct request_spec *spec, size_t count, size_t parallel, long *statuses,
                 char **bodies);

/* Connects, sends, reads until the other side closes or limit_ms passed. closed says which. free() the text. */
char *front_raw(struct front *f, const char *bytes, size_t len, int limit_ms, bool *closed);
int front_connect(struct front *f);

char *front_job(struct front *f, const char *extra_members); /* accepted; its id; free() it */
/* Ends a job as a worker would: started and settled by SQL, with one artifact whose bytes are `bytes`. Its id. */
char *front_finish(struct front *f, const char *job, const void *bytes, size_t len, const char *mime);
/* Ends it as failed, by this code and with this class of attempt; cost_microusd -1: not known. */
void front_fail(struct front *f, const char *job, const char *code, const char *attempt_class, int cost_microusd);
extern const unsigned char front_png[]; /* 2x1 pixels, two colours */
extern const size_t front_png_len;
#endif
