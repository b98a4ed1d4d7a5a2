/* house.h - a whole kiln for one test: its own database, a dispatcher, workers and kiln-sandbox, all the real programs.
 *
 * The test program starts one PostgreSQL and one Redis (support.h); each house takes a database, a Redis number, a
 * folder and free ports of its own, so houses run side by side. Programs are found beside the test's build folder.
 * Everything a house started is killed and reaped by house_close, and house_close runs `kiln_audit`: a difference fails
 * the test. Blocking, for tests only. */
#ifndef KILN_HOUSE_H
#define KILN_HOUSE_H
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <jansson.h>
#include "tests/support/support.h"

enum { HOUSE_WORKERS = 8, HOUSE_ENV = 64 };

struct house_options {
    const char *sandbox_config;                    /* JSON merged over the house's own (fast answers); may be NULL */
    const char *catalog;                           /* JSON text of an overlay file; NULL: none */
    const char *dispatcher_env[8], *worker_env[8]; /* "NAME=value"; NULL-terminated */
    bool no_worker, no_dispatcher;
    double credits; /* of account `default`; 0: 1,000 */
};

struct house {
    char dir[64], base[64], sandbox[64], images[64]; /* base: the dispatcher's URL */
    char *db, *redis;
    pid_t dispatcher, sandbox_pid, workers[HOUSE_WORKERS];
    int worker_ports[HOUSE_WORKERS], port;
    char app[40], key[64];
    struct house_options options;
};

struct house *house_open(const struct house_options *options); /* NULL options: the defaults */
void house_close(struct house *h);                             /* audit included */

/* Programs. */
int house_worker_start(struct house *h,
                       const char *const *extra_env); /* index; extra_env may be NULL. Waits until it is ready */
void house_kill(pid_t *pid, int signal);              /* and reaps when it was SIGKILL; sets *pid 0 then */
int house_wait_exit(pid_t *pid, int limit_ms);        /* exit status; -1: still running; 128+n: by signal */
void house_dispatcher_start(struct house *h, const char *const *extra_env);
/* The same for a program that may die before it is ready: false, and its pid is 0. */
bool house_dispatcher_try(struct house *h, const char *const *extra_env);
bool house_worker_try(struct house *h, const char *const *extra_env, int *index);
char *house_log(const struct house *h, const char *program); /* "dispatcher", "worker0", "sandbox"; free() it */
void house_show_logs(const struct house *h); /* the ends of all of them, to standard error: before a test gives up */

/* HTTP. */
struct reply {
    long status;
    json_t *json; /* NULL: not JSON */
    char *text;
    size_t len;
    char headers[4096]; /* as they came */
};
struct reply house_call(const struct house *h, const char *method, const char *path, const char *body,
                        const char *const *headers);
struct reply house_url(const char *method, const char *url, const char *body, const char *const *headers);
void reply_done(struct reply *r);
const char *reply_text(const struct reply *r,
                       const char *path);                     /* "error.code"; "" when absent; numbers are not text */
int64_t reply_int(const struct reply *r, const char *path);   /* -1 when absent */
double reply_number(const struct reply *r, const char *path); /* -1 when absent */

/* Jobs. */
void house_submit(const struct house *h, char id[40], const char *operation,
                  const char *params_json); /* fails the test unless 202 */
struct reply house_wait(const struct house *h, const char *id,
                        int limit_ms); /* the job at its end; fails the test when it takes longer */
struct reply house_run(const struct house *h, const char *operation, const char *params_json, int limit_ms);
bool house_wait_sql(const struct house *h, const char *sql, int64_t want,
                    int limit_ms);                                /* until the query's number is `want` */
void *house_picture(int width, int height, size_t *len);          /* a PNG's bytes; free() them */
char *house_upload(const struct house *h, int width, int height); /* a PNG of that size; its id; free() it */

/* The sandbox. */
void house_sandbox_config(const struct house *h, const char *json);
void house_fault(const struct house *h, const char *json); /* POST /_sandbox/faults */
int64_t house_counter(const struct house *h, const char *tag,
                      const char *name); /* "paid", "requests", …; totals when tag is NULL */

/* Money. */
double house_balance(const struct house *h, const char *account);
double house_held(const struct house *h, const char *account);
void house_grant(const struct house *h, const char *account, double credits);
#endif
