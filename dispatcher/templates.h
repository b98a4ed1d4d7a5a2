/* templates.h - prompt templates: the catalogue's and each app's own, and the walk from {template, vars} to texts.
 *
 * A dispatcher keeps the apps' templates in memory and asks PostgreSQL for what changed when one is used and the last
 * look is more than a second old (or, for a name it does not know, older than the request). So a template that was put
 * is known at once at this dispatcher, and within a second at all others. An app's template hides the catalogue's of
 * the same name. */
#ifndef KILN_TEMPLATES_H
#define KILN_TEMPLATES_H
#include "common/core/catalog.h"
#include "dispatcher/httpd.h"

struct dispatcher;
struct templates;
struct templates *templates_new(struct dispatcher *d);
void templates_free(struct templates *t); /* before the dbs close */

/* Does a parameter hold {template, vars}? Then its name ("prompt"). */
const char *templates_used(const json_t *params);
/* Fills it in: *out is a new copy of `params` with texts only, *notes a new list of what could not be used, or NULL.
 * TEMPLATES_WAIT: PostgreSQL is being asked; the request's handler is called anew afterwards, with nothing kept.
 * TEMPLATES_FAULTS: faults were added. */
enum templates_verdict { TEMPLATES_DONE, TEMPLATES_FAULTS, TEMPLATES_WAIT };
enum templates_verdict templates_fill(struct templates *t, struct request *r, const struct operation *op,
                                      const json_t *params, struct catalog_faults *faults, json_t **out,
                                      json_t **notes);

void templates_list(struct request *r);
void templates_get(struct request *r);
void templates_put(struct request *r);
void templates_delete(struct request *r);
#endif
