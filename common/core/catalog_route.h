/* catalog_route.h - routes: one vocabulary of parameters over operations of several providers.
 *
 * A route ("routes" of a file of the catalogue) has "params", specs as an operation's, and "legs": for each operation
 * how its parameters are made of the vocabulary. A leg's parameter is "$name" (copied, when it was given), {"from":
 * name, "map": {…}} (a value without an entry: the leg cannot serve the job), {"from": name, "part": "width" |
 * "height"} of a size, or a literal. What was given and is neither used nor among the leg's "drops" rules the leg out;
 * what is dropped becomes a note. "when" as in an operation's rules. A plan is the legs that can serve one job, of each
 * provider the first that can, in the order in which they will be tried. */
#ifndef KILN_CATALOG_ROUTE_H
#define KILN_CATALOG_ROUTE_H
#include "common/core/catalog.h"

enum { ROUTE_LEGS = 12 };

struct catalog_route {
    struct operation vocabulary; /* name, params, output; its provider is a stand-in without a name */
    const json_t *doc;
};

size_t catalog_route_count(const struct catalog *c);
const struct catalog_route *catalog_route_at(const struct catalog *c, size_t i);
const struct catalog_route *catalog_route_find(const struct catalog *c, const char *name); /* NULL */

struct catalog_leg {
    const struct operation *op;
    json_t *params, *files, *notes; /* owned: normalised; {leg's field: vocabulary's field}; texts or NULL */
    struct catalog_price price;
};
struct catalog_plan {
    struct catalog_leg legs[ROUTE_LEGS];
    size_t count;
};

/* `params`: normalised by the vocabulary. `inputs`: the envelope's, or NULL (an estimate: files are not judged).
 * `providers`: names in the order wanted, or NULL: all that are configured, the cheapest first. False: no leg can serve
 * it; each fault says why one cannot. catalog_plan_done either way. */
bool catalog_plan_make(const struct catalog *c, const struct catalog_route *route, const json_t *params,
                       const json_t *inputs, const json_t *providers, struct catalog_plan *out,
                       struct catalog_faults *faults);
void catalog_plan_done(struct catalog_plan *plan);
/* Moves those legs for which `is_shunned` says true behind the others; the order is kept otherwise. */
void catalog_plan_shun(struct catalog_plan *plan, bool (*is_shunned)(void *ctx, const char *provider), void *ctx);
/* What the whole plan holds: the dearest leg's price, the first leg's version; and what an unknown outcome becomes. */
struct catalog_price catalog_plan_price(const struct catalog_plan *plan);
enum operation_unknown catalog_plan_unknown(const struct catalog_plan *plan); /* the strictest leg's */
int64_t catalog_plan_dearest_mc(const struct catalog_plan *plan);             /* for one unit */
/* New: what a job carries along: [{operation, provider, params, files, unit_mc, price_version}]. */
json_t *catalog_plan_json(const struct catalog_plan *plan);
/* New: what GET /v1/operations/{name} shows of a route. */
json_t *catalog_describe_route(const struct catalog *c, const struct catalog_route *route);
#endif
