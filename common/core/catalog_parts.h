/* catalog_parts.h - what the files of the catalogue share among themselves; nobody else includes it.
 *
 * catalog.c loads and lays over, catalog_check.c judges the files (catalog_schema.c by their schema), catalog_rules.c
 * judges customers' parameters (catalog_words.c finds the words), catalog_input.c their files, catalog_price.c what it
 * costs, catalog_describe.c shows all of it; catalog_templates.c reads the files of prompt templates
 * and routes, catalog_route.c says which operations can serve a route's job, catalog_keys.c
 * reads providers' keys. */
#ifndef KILN_CATALOG_PARTS_H
#define KILN_CATALOG_PARTS_H
#include "common/core/catalog.h"

/* Where a complaint about a catalogue file goes; the first one is kept. */
struct catalog_complaint {
    char *text;
    size_t size;
    const char *file, *where; /* "stability.json", operation or provider */
};
bool catalog_complain(const struct catalog_complaint *to, const char *field, const char *fmt, ...)
    __attribute__((format(printf, 3, 4))); /* always false */

/* catalog_schema.c: `doc` against #/$defs/NAME of schema/catalog.schema.json. */
bool catalog_schema_fits(const struct catalog_complaint *to, const json_t *schema, const char *name, const json_t *doc);
bool catalog_check_provider(const struct catalog_complaint *to, const json_t *schema, const json_t *doc);
bool catalog_check_operation(const struct catalog_complaint *to, const json_t *schema, const json_t *doc);

bool catalog_keys_read(struct catalog_provider *p, const char *text, const struct catalog_complaint *to);
void catalog_keys_free(struct catalog_provider *p);

/* {"like": "prompt", …} becomes the spec of `shared` with the rest laid over it. */
enum err catalog_resolve_likes(const struct catalog_complaint *to, const json_t *shared, json_t *params);
/* A file of templates and routes laid over what is there; null removes. Templates are checked now, routes when all
 * operations are known. Takes the document. */
enum err catalog_lay_shared(struct catalog_complaint *to, json_t *doc, const char *file, json_t *templates,
                            json_t *routes, json_t *origins);
struct catalog_route;
bool catalog_check_route(const struct catalog_complaint *to, const struct catalog *c,
                         const struct catalog_route *route);

/* catalog_params.c */
struct catalog_late { /* a rule that gives a parameter another default, or none */
    const json_t *when, *fallback;
};
struct catalog_param {
    const char *name;
    char field[96]; /* "params.seed" */
    const json_t *spec;
    const json_t *fallback; /* its own default; NULL: none */
    json_t *typed;          /* the same as catalog_value makes it */
    struct catalog_late *late;
    size_t late_count;
    struct catalog_input input;
    bool is_required, is_file;
};
struct catalog_rule {
    const json_t *when, *then, *any_of, *above;
};
struct catalog_params {
    struct catalog_rule *rules;
    size_t rule_count, count;
    struct catalog_param items[];
};
struct catalog_params *catalog_params_new(const json_t *doc); /* NULL: out of memory; `doc` was checked and stays */
void catalog_params_free(const struct catalog_params *all);
/* The default that holds beside these other parameters: a rule's before the parameter's own; NULL: none. */
const json_t *catalog_default(const struct catalog_param *p, const json_t *others);
json_t *catalog_copy(const json_t *value); /* new, or the same once more where nothing could change it */

/* One value against one spec: new (normalised), or NULL with a fault at `field`. */
json_t *catalog_value(const json_t *spec, const json_t *value, const char *field, struct catalog_faults *faults);
bool catalog_matches(const json_t *when, const json_t *params); /* all of its conditions hold; NULL: always */
bool catalog_is_file(const json_t *spec);
/* A price row for one unit; params NULL: a row that depends on them at its dearest. False: no price. */
bool catalog_row_price(const json_t *row, const json_t *specs, const json_t *params, int64_t *unit_mc,
                       int64_t *microusd);
bool catalog_size_parse(const char *text, int64_t *width, int64_t *height); /* "1024x768" */
enum { CATALOG_GOT_BYTES = 48, CATALOG_LIST_BYTES = 140 };
void catalog_value_text(char *out, size_t size, const json_t *v); /* JSON, cut; control characters escaped */
void catalog_list_text(char *out, size_t size, const json_t *values);
void catalog_when_text(char *out, size_t size, const json_t *when,
                       const json_t *params); /* `model "dall-e-3"`; params NULL: all values */
void catalog_unknown_param(const json_t *specs, const char *name, struct catalog_faults *faults); /* "did you mean" */
int64_t catalog_dearest_call_microusd(const json_t *doc); /* of one call with as many units as it may have */

#endif
