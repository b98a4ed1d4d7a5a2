/* template.h - prompts with places to fill in: {template, vars} in, the texts of prompt and negative prompt out.
 *
 * A template is JSON, of the catalogue ("templates" of a file in schema/catalog) or an app's own (PUT /v1/templates):
 *
 *     { "description": "…", "prompt": ["a {room.text} in {style.text} style", "{details}"], "negative_prompt": "…",
 *       "vars": { "style": { "type": "choice", "required": true, "values": { "loft": { "names": ["industrial loft"],
 *                 "text": "loft", "elements": "…" } } }, "details": { "type": "text", "max_length": 200 } } }
 *
 * Texts are filled in one pass: what a variable brings is never looked at again, so that no customer can open a place
 * of his own. A list of texts is joined by ", "; one whose places all came out empty is left out. "{{" and "}}" are
 * braces. A choice is found by its key or any of its names, in any case; what fits none is a fault that lists what
 * exists. */
#ifndef KILN_TEMPLATE_H
#define KILN_TEMPLATE_H
#include <stdbool.h>
#include "common/base/json.h"
#include "common/core/catalog.h"

/* Is this a template? Faults name the member ("vars.style.values.loft.names"). */
bool template_check(const json_t *doc, struct catalog_faults *faults);

/* For a checked template. `at` is where `vars` stand in the request ("params.prompt.vars"). False: faults. The texts
 * are new, free() them; *negative NULL: the template has none. */
bool template_expand(const json_t *doc, const json_t *vars, const char *at, struct catalog_faults *faults,
                     char **prompt, char **negative);

/* New: the template as customers see it: its variables as JSON Schema, the choices with their names. */
json_t *template_describe(const char *name, const json_t *doc);
#endif
