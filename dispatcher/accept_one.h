/* accept_one.h - one order between its reading and kiln_accept: its words judged, its files resolved, its price found.
 * The same for a single job and for one of a batch; only what follows differs, and that is the two callbacks. */
#ifndef KILN_ACCEPT_ONE_H
#define KILN_ACCEPT_ONE_H
#include "common/core/job.h"
#include "dispatcher/accept.h"
#include "dispatcher/inputs.h"

struct accept_one { /* zeroed; the first members are the caller's */
    struct dispatcher *d;
    struct request *request; /* accept.c's */
    const char *app;         /* whose it is */
    struct arena *arena;     /* good until ready or refused, and for as long as inputs_made(set) */
    struct accept_order order;
    /* Once: everything below is known, or nothing stays of it. faults NULL: `detail`, or a backend's error. */
    void (*ready)(struct accept_one *one);
    void (*refused)(struct accept_one *one, enum err code, const struct catalog_faults *faults, const char *detail);
    const json_t *open_breakers; /* {provider: true}, known already; NULL: ask PostgreSQL */

    char id[UUID_TEXT];
    struct catalog_price price;
    struct catalog_plan *plan; /* of a route */
    json_t *legs;              /* what the job carries of it */
    const char *provider;      /* the first to be asked */
    enum operation_unknown on_unknown;
    struct inputs_set *set;
    json_t *inputs;
    int64_t deadline_s;

    /* of accept.c alone */
    const char *key;
    char hash[SHA256_HEX], cache_key[SHA256_HEX];
    char *params, *inputs_text, *metadata, *extras; /* malloc'd */
    int64_t wait_s;
    bool is_asked_again, is_hit;
};

void accept_one_go(struct accept_one *one);
void accept_one_done(struct accept_one *one);
json_t *accept_one_extras(const struct accept_one *one); /* new: what it carries beyond its columns; NULL: nothing */
struct job_envelope accept_one_envelope(const struct accept_one *one); /* borrowed */
/* As it goes into Redis; params and inputs as they were printed for PostgreSQL, NULL: print them. NULL: "read it
 * there". */
char *accept_envelope(const struct job_envelope *e, const char *params, const char *inputs);
bool accept_hash(const struct request *r, char hash[SHA256_HEX]); /* of path and body; false: no memory */
#endif
