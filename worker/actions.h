/* actions.h - what the machine's actions are called, between the files that carry them out. */
#ifndef KILN_ACTIONS_H
#define KILN_ACTIONS_H
#include "worker/sortie.h"

/* flight.c */
void line_push(struct flight_line *line, struct flight *f);
struct flight *line_pop(struct flight_line *line); /* NULL: empty */
void line_remove(struct flight *f);                /* from the line it stands in, if any */
bool flight_beat_is_fresh(const struct flight_env *env);
uint32_t random_u32(void);

/* phase.c: what a job is at, told to who watches once it has lasted */
void phase_open(struct flight_env *env);             /* of its timer; the runner closes it */
void phase_set(struct flight *f, const char *phase); /* static text */
void phase_over(struct flight *f);                   /* what was not told yet never is */

/* exchange.c: requests to the provider, answers from it */
enum { EXCHANGE_INLINE_BYTES = 16 * 1024 }; /* answers above are read on a thread */
void exchange_submit(struct flight *f);
void exchange_poll(struct flight *f);
void exchange_next_poll(struct flight_env *env);              /* a poll ended: the next in line goes */
char *exchange_url(const struct flight *f, const char *path); /* malloc'd: base URL and path */
/* What every request of an adapter is made of: URL (malloc'd, the caller's), key and headers, body or parts. Owns
 * req->body from here on; the sortie keeps it until the next request. */
enum err exchange_fill(struct flight *f, struct http_req *req, struct httpc_request *out);
/* The answer's copy in the sortie (s->in), parsed when it is JSON. */
bool exchange_keep(struct sortie *s, const struct httpc_answer *a);
void exchange_parse(struct sortie *s);
bool exchange_is_quick(const struct sortie *s); /* nothing long has to be parsed or loaded */
void exchange_read(struct sortie *s); /* by the adapter; on the loop or on a thread: it touches only the sortie */
const char *exchange_plain(struct flight *f, const struct httpc_answer *a); /* for customers: why no answer came */
void exchange_pause(struct flight *f, int64_t ms);                          /* the lane */
/* The settlement of what is free to repeat: at the next leg of its route, later, or failed when its time will be over.
 * False: failed. */
bool exchange_set_retry(struct flight *f, enum err code, enum attempt_class klass, const char *message,
                        int retry_after_s);
bool is_provider_host(const struct flight *f, const char *url); /* collect.c: the operator's own base URL, trusted */

/* reconcile.c: what became of a submit whose answer is lost */
bool reconcile_can(struct flight *f); /* the provider of this very job can be asked */
void reconcile_start(struct flight *f);

/* cancel.c */
void cancel_send(struct flight *f); /* tells the provider, once and if it can be told, that the work is not wanted */

/* keys.c: which of the provider's keys. */
void keys_pick(struct flight *f);                                  /* prepare_with_key follows, or it is put off */
bool keys_are_several(const struct flight *f);                     /* and it has one of them */
bool keys_resume(struct flight *f, const char *bound);             /* of a checkpoint; false: the key is gone */
char *keys_bind(const struct flight *f);                           /* malloc'd: the reference and whose it is */
const char *keys_budget_of(const struct flight *f);                /* whose polls spend; NULL: the lane's */
bool keys_can_be_out(const struct flight *f, enum err code);       /* there are others, and it is the key's fault */
void keys_pause(struct flight *f, int64_t ms, queue_keys_fn *fn);  /* only of several; fn may be NULL */
void keys_out(struct flight *f, enum err code, queue_keys_fn *fn); /* only of several; fn may be NULL */
void keys_good(struct flight *f);                                  /* the provider took it */

/* settle.c: reference and outcome to PostgreSQL */
void settle_checkpoint(struct flight *f);
void settle_send(struct flight *f);
void settle_park(struct flight *f);
bool settle_move_on(struct flight *f); /* a failure of `out` becomes a retry at the next leg; false: there is none */
void settlement_set(struct settlement *s, enum ledger_outcome outcome, enum err code, enum attempt_class klass,
                    const char *message);
void settlement_done(struct settlement *s);
char *settlement_note(const struct settlement *s);                 /* malloc'd JSON {"outcome":{…}} */
bool settlement_from_note(struct settlement *s, const char *note); /* false: not one */
#endif
