/* accept.h - POST /v1/jobs: validate, resolve inputs, price, accept in batches, publish after the commit, answer.
 *
 * Checks come in this order: authentication (routes), shape, operation known and its provider configured, parameters,
 * inputs, price, money. Until the one call of kiln_accept nothing is written that a refusal would not take back. */
#ifndef KILN_ACCEPT_H
#define KILN_ACCEPT_H
#include <stdbool.h>
#include <uv.h>
#include "common/core/catalog.h"
#include "common/core/catalog_route.h"
#include "dispatcher/httpd.h"

struct dispatcher;
struct accept;
struct accept *accept_new(struct dispatcher *d);
/* Stops; the memory stays for answers of the queue on their way. */
void accept_close(struct accept *a, void (*on_closed)(void *ctx), void *ctx);
void accept_free(struct accept *a); /* after the queue closed; NULL is fine */

/* Redis confirmed it to this process lately: the reconciler need not ask again. "No" may mean forgotten. */
bool accept_was_published(const struct accept *a, const char *job);

struct job_envelope;
/* A job that was just committed: into Redis at the end of this turn of the loop, or within 20 ms where many come. */
void accept_publish(struct accept *a, const struct job_envelope *e, int64_t priority, const char *created_at);

/* The same with an envelope that is printed already (taken over; NULL: read it in PostgreSQL). */
void accept_publish_text(struct accept *a, const char *job, const char *app, const char *account, const char *provider,
                         char *envelope, int64_t priority, int64_t delay_ms, int64_t created_ms);
void accept_take_back(struct accept *a, const char *job); /* if it is not published yet, it will not be */
size_t accept_publish_room(const struct accept *a);       /* more than this at once is a second call of the script */

void accept_post(struct request *r);
/* The request's Idempotency-Key into *key (NULL: none); false: answered. */
bool accept_key(struct request *r, const char **key);
void accept_refuse_mismatch(struct request *r);
void accept_refuse_insufficient(struct request *r, int64_t needed_mc, int64_t available_mc);
extern const char accept_queue_full[];

/* The one reading of a body's {operation, params, …}: used by estimate too. */
struct accept_order {
    json_t *body; /* owned: json_decref */
    const char *operation;
    const char *account;  /* "default" */
    const json_t *params; /* as given */
    const json_t *metadata;
    int64_t priority, deadline_s; /* 0: the operation's */
    const char *run_at;           /* NULL: now */
    int64_t delay_ms;
    bool has_key;                      /* it may have been said before */
    bool is_late;                      /* run_at is long past: good for a replay only */
    const struct operation *op;        /* of a route: its vocabulary */
    const struct catalog_route *route; /* NULL: a plain operation */
    const json_t *providers;           /* of a route: who may serve it, in this order; NULL: all */
    json_t *one_provider;              /* owned: [provider] */
    json_t *checked;                   /* owned: the parameters normalised */
    bool is_cached;                    /* "cache": an earlier result will do, when */
    int64_t cache_ttl_s;               /* it is at most this old */
    json_t *notes;                     /* owned: what was left out, for the job to say; NULL: nothing */
};
extern const char accept_late[];    /* what is wrong with run_at then */
extern const char accept_own_key[]; /* … with a body that holds the key */
enum accept_members { ACCEPT_JOB, ACCEPT_ESTIMATE };
/* What one body says, nothing answered: `code` is the refusal's where there are faults. `r` is whose key and templates
 * count; body is kept by the order. ACCEPT_WAIT: PostgreSQL is asked for a template, and r's handler is called anew. */
enum accept_verdict { ACCEPT_READ, ACCEPT_FAULTS, ACCEPT_WAIT };
enum accept_verdict accept_order_check(struct request *r, json_t *body, enum accept_members members, bool has_key,
                                       struct accept_order *order, struct catalog_faults *faults, enum err *code);
/* False: answered, or PostgreSQL is asked for a template and the handler is called anew. `order` is to be released with
 * accept_order_done either way. */
bool accept_order_read(struct request *r, enum accept_members members, struct accept_order *order);
void accept_order_done(struct accept_order *order);
#endif
