/* problem.h - every refusal as RFC 9457 application/problem+json: {type, title, status, code, detail, request_id} and,
 * where they help, errors[{field, message}] and members of its own. One call is the request's one answer. 429 and 503
 * carry Retry-After. Never echo a key or a prompt in `detail`. */
#ifndef KILN_PROBLEM_H
#define KILN_PROBLEM_H
#include "common/base/err.h"
#include "common/base/json.h"
#include "common/core/catalog.h"
#include "dispatcher/httpd.h"

void problem_reply(struct request *r, enum err code, const char *detail); /* detail NULL: the code's own text */
void problem_field(struct request *r, enum err code, const char *field, const char *message);
void problem_faults(struct request *r, enum err code, const struct catalog_faults *faults);
/* `extra`: an object whose members join the problem's; taken over. */
void problem_extra(struct request *r, enum err code, const char *detail, json_t *extra);
/* For errors that came up from PostgreSQL: the client learns 503 (or 500 when a row was refused), never details. */
void problem_backend(struct request *r, enum err e);
#endif
