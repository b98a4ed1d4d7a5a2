/* routes.h - the table of endpoints: method, path pattern, who may, how much body, handler; and the walk every request
 * takes through it. Whatever is not in the table is 404; openapi.json lists exactly what is. */
#ifndef KILN_ROUTES_H
#define KILN_ROUTES_H
#include <stddef.h>
#include "dispatcher/httpd.h"

enum route_auth {
    ROUTE_AUTH_NONE_SET, /* a route that forgot: no request passes (and a test fails) */
    ROUTE_OPEN,          /* for everybody */
    ROUTE_KEY,           /* an API key with one of the scopes */
    ROUTE_SIGNED,        /* a key, or a signature in the URL that the handler checks */
};
enum route_body { ROUTE_NO_BODY, ROUTE_JSON, ROUTE_JSON_BATCH /* 16 MiB */, ROUTE_RAW };

struct route {
    const char *method, *pattern; /* "/v1/jobs/{id}/cancel"; HEAD follows GET */
    enum route_auth auth;
    unsigned scopes; /* one of these */
    enum route_body body;
    void (*handler)(struct request *r);
    void (*begin)(struct request *r); /* ROUTE_RAW: sets the sink before the body comes, or answers; then goes on */
    const char *query; /* names it knows, "limit,cursor"; any other is refused. NULL: none of our business */
};

extern const struct route routes[];
extern const size_t routes_count;

/* httpd's callbacks */
void routes_on_head(struct request *r);
void routes_on_request(struct request *r);
void routes_on_refused(struct request *r, enum err code, const char *detail);
void routes_on_done(struct request *r);
#endif
