/* operations.h - the catalogue as customers see it: GET /v1/operations[/{name}], POST /v1/estimate. */
#ifndef KILN_OPERATIONS_H
#define KILN_OPERATIONS_H
#include "dispatcher/httpd.h"

void operations_list(struct request *r);
void operations_get(struct request *r);
void operations_estimate(struct request *r);
#endif
