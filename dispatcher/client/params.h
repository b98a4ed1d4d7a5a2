/* params.h - KEY=VALUE words become the params of an operation, typed by its JSON Schema; files become uploads. */
#ifndef KILN_PARAMS_H
#define KILN_PARAMS_H
#include <jansson.h>
#include "dispatcher/client/client.h"

/* What a value means for a parameter of this schema (borrowed; NULL: not known). New. A text that does not fit the type
 * stays a text: the dispatcher says what is wrong with it. */
json_t *params_value(const json_t *schema, const char *text);

enum params_for { PARAMS_JOB, PARAMS_ESTIMATE }; /* an estimate uploads nothing */
/* The words from the second on are parameters, the first is the operation. CLIENT_DONE and *out new; else a message was
 * printed, and that is the exit status. */
int params_read(struct client *c, enum params_for what, json_t **out);
#endif
