/* routes.c - the table of endpoints, and the walk: find the route, authenticate, check scope and media type, receive
 * the body, call the handler, count and log. */
#include "dispatcher/routes.h"
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include "common/base/clock.h"
#include "common/base/log.h"
#include "dispatcher/accept.h"
#include "dispatcher/accounts.h"
#include "dispatcher/admin.h"
#include "dispatcher/artifacts.h"
#include "dispatcher/auth.h"
#include "dispatcher/batches.h"
#include "dispatcher/dispatcher.h"
#include "dispatcher/health.h"
#include "dispatcher/jobs.h"
#include "dispatcher/operations.h"
#include "dispatcher/problem.h"
#include "dispatcher/streams.h"
#include "dispatcher/providers.h"
#include "dispatcher/templates.h"
#include "dispatcher/uploads.h"

enum {
    JSON_BODY_BYTES = 1 << 20,
    JSON_BODY_MS = 20000,
    BATCH_BODY_BYTES = 16 << 20,
    BATCH_BODY_MS = 120000,
    BATCH_WEIGHT = 4,    /* what a batch takes in memory, by the size of its body */
    RAW_BODY_MS = 30000, /* plus the time that the announced bytes take at */
    RAW_BYTES_PER_MS = 32,
};

const struct route routes[] = {
    { "POST", "/v1/jobs", ROUTE_KEY, SCOPE_JOBS, ROUTE_JSON, accept_post, NULL, "" },
    { "GET", "/v1/jobs", ROUTE_KEY, SCOPE_JOBS, ROUTE_NO_BODY, jobs_list, NULL,
      "account,state,operation,batch,limit,cursor" },
    { "GET", "/v1/jobs/{id}", ROUTE_KEY, SCOPE_JOBS, ROUTE_NO_BODY, jobs_get, NULL, "expand" },
    { "POST", "/v1/jobs/{id}/cancel", ROUTE_KEY, SCOPE_JOBS, ROUTE_NO_BODY, jobs_cancel, NULL, "" },
    { "GET", "/v1/jobs/{id}/events", ROUTE_KEY, SCOPE_JOBS, ROUTE_NO_BODY, streams_of_job, NULL, "" },
    { "GET", "/v1/events", ROUTE_KEY, SCOPE_JOBS, ROUTE_NO_BODY, streams_of_app, NULL, "" },
    { "POST", "/v1/batches", ROUTE_KEY, SCOPE_JOBS, ROUTE_JSON_BATCH, batches_post, NULL, "" },
    { "GET", "/v1/batches/{id}", ROUTE_KEY, SCOPE_JOBS, ROUTE_NO_BODY, batches_get, NULL, "" },
    { "POST", "/v1/uploads", ROUTE_KEY, SCOPE_JOBS, ROUTE_RAW, uploads_post, uploads_begin, "account" },
    { "GET", "/v1/artifacts/{id}", ROUTE_KEY, SCOPE_JOBS, ROUTE_NO_BODY, artifacts_get, NULL, "" },
    { "GET", "/v1/artifacts/{id}/content", ROUTE_SIGNED, SCOPE_JOBS, ROUTE_NO_BODY, artifacts_content, NULL,
      "expires,signature" },
    { "GET", "/v1/operations", ROUTE_KEY, SCOPE_JOBS | SCOPE_CREDITS, ROUTE_NO_BODY, operations_list, NULL, "" },
    { "GET", "/v1/operations/{name}", ROUTE_KEY, SCOPE_JOBS | SCOPE_CREDITS, ROUTE_NO_BODY, operations_get, NULL, "" },
    { "POST", "/v1/estimate", ROUTE_KEY, SCOPE_JOBS, ROUTE_JSON, operations_estimate, NULL, "" },
    { "GET", "/v1/templates", ROUTE_KEY, SCOPE_JOBS, ROUTE_NO_BODY, templates_list, NULL, "" },
    { "GET", "/v1/templates/{name}", ROUTE_KEY, SCOPE_JOBS, ROUTE_NO_BODY, templates_get, NULL, "" },
    { "PUT", "/v1/templates/{name}", ROUTE_KEY, SCOPE_JOBS, ROUTE_JSON, templates_put, NULL, "" },
    { "DELETE", "/v1/templates/{name}", ROUTE_KEY, SCOPE_JOBS, ROUTE_NO_BODY, templates_delete, NULL, "" },
    { "GET", "/v1/accounts/{account}", ROUTE_KEY, SCOPE_JOBS | SCOPE_CREDITS, ROUTE_NO_BODY, accounts_get, NULL, "" },
    { "POST", "/v1/accounts/{account}/grants", ROUTE_KEY, SCOPE_CREDITS, ROUTE_JSON, accounts_grant, NULL, "" },
    { "GET", "/v1/accounts/{account}/ledger", ROUTE_KEY, SCOPE_JOBS | SCOPE_CREDITS, ROUTE_NO_BODY, accounts_ledger,
      NULL, "limit,cursor" },
    { "GET", "/v1/admin/jobs", ROUTE_KEY, SCOPE_ADMIN, ROUTE_NO_BODY, admin_jobs_list, NULL,
      "state,app,account,code,operation,provider,since,until,retried,expand,limit,cursor" },
    { "POST", "/v1/admin/jobs/retry", ROUTE_KEY, SCOPE_ADMIN, ROUTE_JSON, retry_many, NULL, "" },
    { "GET", "/v1/admin/jobs/{id}", ROUTE_KEY, SCOPE_ADMIN, ROUTE_NO_BODY, admin_jobs_get, NULL, "" },
    { "POST", "/v1/admin/jobs/{id}/retry", ROUTE_KEY, SCOPE_ADMIN, ROUTE_NO_BODY, retry_one, NULL, "" },
    { "GET", "/v1/admin/exposure", ROUTE_KEY, SCOPE_ADMIN, ROUTE_NO_BODY, exposure_list, NULL,
      "provider,since,until,limit,cursor" },
    { "GET", "/v1/admin/providers", ROUTE_KEY, SCOPE_ADMIN, ROUTE_NO_BODY, providers_list, NULL, "" },
    { "POST", "/v1/admin/providers/check", ROUTE_KEY, SCOPE_ADMIN, ROUTE_NO_BODY, providers_check, NULL, "" },
    { "GET", "/v1/admin/lanes", ROUTE_KEY, SCOPE_ADMIN, ROUTE_NO_BODY, lanes_list, NULL, "" },
    { "GET", "/v1/admin/lanes/{lane}", ROUTE_KEY, SCOPE_ADMIN, ROUTE_NO_BODY, lanes_get, NULL, "" },
    { "PATCH", "/v1/admin/lanes/{lane}", ROUTE_KEY, SCOPE_ADMIN, ROUTE_JSON, lanes_patch, NULL, "" },
    { "POST", "/v1/admin/lanes/{lane}/pause", ROUTE_KEY, SCOPE_ADMIN, ROUTE_JSON, lanes_pause, NULL, "" },
    { "POST", "/v1/admin/lanes/{lane}/resume", ROUTE_KEY, SCOPE_ADMIN, ROUTE_NO_BODY, lanes_resume, NULL, "" },
    { "GET", "/v1/admin/apps", ROUTE_KEY, SCOPE_ADMIN, ROUTE_NO_BODY, apps_list, NULL, "limit,cursor" },
    { "POST", "/v1/admin/apps", ROUTE_KEY, SCOPE_ADMIN, ROUTE_JSON, apps_create, NULL, "" },
    { "PATCH", "/v1/admin/apps/{app}", ROUTE_KEY, SCOPE_ADMIN, ROUTE_JSON, apps_patch, NULL, "" },
    { "GET", "/v1/admin/apps/{app}/keys", ROUTE_KEY, SCOPE_ADMIN, ROUTE_NO_BODY, apps_keys, NULL, "limit,cursor" },
    { "POST", "/v1/admin/apps/{app}/keys", ROUTE_KEY, SCOPE_ADMIN, ROUTE_JSON, apps_key_create, NULL, "" },
    { "POST", "/v1/admin/apps/{app}/keys/{key}/revoke", ROUTE_KEY, SCOPE_ADMIN, ROUTE_NO_BODY, apps_key_revoke, NULL,
      "" },
    { "GET", "/v1/admin/accounts/{app}/{account}", ROUTE_KEY, SCOPE_ADMIN, ROUTE_NO_BODY, apps_account, NULL, "" },
    { "PATCH", "/v1/admin/accounts/{app}/{account}", ROUTE_KEY, SCOPE_ADMIN, ROUTE_JSON, apps_account_patch, NULL, "" },
    { "GET", "/healthz", ROUTE_OPEN, 0, ROUTE_NO_BODY, health_live, NULL, NULL },
    { "GET", "/readyz", ROUTE_OPEN, 0, ROUTE_NO_BODY, health_ready, NULL, NULL },
    { "GET", "/metrics", ROUTE_OPEN, 0, ROUTE_NO_BODY, health_metrics, NULL, NULL },
    { "GET", "/openapi.json", ROUTE_OPEN, 0, ROUTE_NO_BODY, health_openapi, NULL, NULL },
};
const size_t routes_count = ARRAY_LEN(routes);

/* Does the path fit the pattern? Fills `args` with what stands in the braces, decoded; a segment that cannot be decoded
 * fits nothing. */
static bool pattern_fits(struct arena *a, const char *pattern, const char *path, const char **args)
{
    size_t n = 0;

    while (*pattern == '/' && *path == '/') {
        size_t want = strcspn(++pattern, "/"), have = strcspn(++path, "/");

        if (pattern[0] == '{') {
            char *value = have > 0 && n < REQUEST_ARGS ? arena_alloc(a, have + 1) : NULL;

            if (value == NULL || url_unescape(value, have + 1, path, have, false) != ERR_OK)
                return false;
            args[n++] = value;
        } else if (want != have || strncmp(pattern, path, want) != 0) {
            return false;
        }
        pattern += want;
        path += have;
    }
    return *pattern == '\0' && *path == '\0';
}

/* The route, or the reason why there is none: 404, or 405 with Allow. */
static const struct route *route_of(struct request *r)
{
    const char *method = request_is_head(r) ? "GET" : r->method;
    char allow[64] = "";

    for (size_t i = 0; i < routes_count; i++) {
        if (!pattern_fits(r->arena, routes[i].pattern, r->path, r->args))
            continue;
        if (strcmp(routes[i].method, method) == 0)
            return &routes[i];
        snprintf(allow + strlen(allow), sizeof(allow) - strlen(allow), "%s%s", allow[0] != '\0' ? ", " : "",
                 strcmp(routes[i].method, "GET") == 0 ? "GET, HEAD" : routes[i].method);
    }
    if (allow[0] != '\0') {
        request_add_header(r, "Allow", allow);
        problem_reply(r, ERR_METHOD_NOT_ALLOWED, NULL);
    } else {
        problem_reply(r, ERR_NOT_FOUND, "there is nothing at this path");
    }
    return NULL;
}

static bool media_type_is_json(const char *type)
{
    static const char json[] = "application/json";

    return type != NULL && strncasecmp(type, json, sizeof(json) - 1) == 0 &&
           (type[sizeof(json) - 1] == '\0' || type[sizeof(json) - 1] == ';' || type[sizeof(json) - 1] == ' ');
}

static const char *scope_wanted(unsigned scopes)
{
    return scopes == SCOPE_JOBS      ? "the key lacks the scope jobs"
           : scopes == SCOPE_CREDITS ? "the key lacks the scope credits"
           : scopes == SCOPE_ADMIN   ? "the key lacks the scope admin"
                                     : "the key has no scope for this";
}

static size_t body_limit(const struct request *r)
{
    return r->route->body == ROUTE_JSON_BATCH ? BATCH_BODY_BYTES : JSON_BODY_BYTES;
}

/* What its body will take: as announced, or as much as it may if it does not say. One that is too large is refused
 * anyway. */
static size_t body_bytes(const struct request *r)
{
    size_t announced = request_content_length(r), limit = body_limit(r), bytes;

    bytes = announced < limit ? announced : limit;
    if (announced == 0 && request_header(r, "Transfer-Encoding") != NULL)
        bytes = limit;
    return r->route->body == ROUTE_JSON_BATCH ? bytes * BATCH_WEIGHT : bytes;
}

/* After authentication: scope, query, media type, then the body. */
static void routes_on_known(struct request *r)
{
    const struct route *route = r->route;
    const char *unknown;

    if (route->auth == ROUTE_KEY && r->app[0] == '\0') {
        problem_reply(r, ERR_UNAUTHORIZED, NULL);
        return;
    }
    if (r->app[0] != '\0' && (route->scopes & r->scopes) == 0 && route->auth != ROUTE_OPEN) {
        problem_reply(r, ERR_FORBIDDEN, scope_wanted(route->scopes));
        return;
    }
    if (route->query != NULL && (unknown = request_query_unknown(r, route->query)) != NULL) {
        problem_field(r, ERR_INVALID_REQUEST, unknown, "is not a query parameter here");
        return;
    }
    if ((route->body == ROUTE_JSON || route->body == ROUTE_JSON_BATCH) &&
        !media_type_is_json(request_header(r, "Content-Type"))) {
        problem_field(r, ERR_UNSUPPORTED_MEDIA_TYPE, "Content-Type", "must be application/json");
        return;
    }
    if (route->body == ROUTE_RAW) {
        route->begin(r);
        return;
    }
    if (load_admits_body(r, body_bytes(r)))
        request_go_on(r, body_limit(r), route->body == ROUTE_JSON_BATCH ? BATCH_BODY_MS : JSON_BODY_MS);
}

void routes_on_head(struct request *r)
{
    r->route = route_of(r);
    if (r->route == NULL)
        return;
    switch (r->route->auth) {
    case ROUTE_OPEN:
        routes_on_known(r);
        return;
    case ROUTE_KEY:
    case ROUTE_SIGNED:
        if (load_admits(r))
            auth_check(dispatcher_of(r)->auth, r, routes_on_known);
        return;
    case ROUTE_AUTH_NONE_SET:
        break;
    }
    problem_reply(r, ERR_FORBIDDEN, NULL);
}

void routes_on_request(struct request *r)
{
    if (load_begins(r))
        r->route->handler(r);
}

void routes_on_refused(struct request *r, enum err code, const char *detail)
{
    if (code == ERR_INVALID_REQUEST) { /* framing: what parsers could read in two ways is 400, not 422 */
        struct buf body = { 0 };

        (void)buf_printf(&body,
                         "{\"type\":\"urn:kiln:problem:bad_request\",\"title\":\"bad request\",\"status\":400,"
                         "\"code\":\"invalid_request\",\"detail\":\"%s\",\"request_id\":\"%s\"}",
                         detail, r->id);
        request_reply(r, 400, "application/problem+json", &body);
        return;
    }
    problem_reply(r, code, code == ERR_HEADERS_TOO_LARGE ? NULL : detail);
}

void routes_on_done(struct request *r)
{
    struct dispatcher *d = dispatcher_of(r);
    int64_t us = clock_mono_us() - r->began_us;
    const char *route = r->route != NULL ? r->route->pattern : "none";
    char status[8];

    load_ends(r);
    snprintf(status, sizeof(status), "%d", r->status);
    metric_add(metrics_counter(d->metrics, "kiln_http_requests_total", "Requests by route and status.", "route", route,
                               "status", status, NULL),
               1);
    metric_observe(metrics_histogram(d->metrics, "kiln_http_seconds", "Time from the headers to the end of the answer.",
                                     metrics_seconds, metrics_seconds_count, "route", route, NULL),
                   (double)us / 1e6);
    /* the pattern, never the path: ids are harmless, queries carry signatures */
    log_info("request", log_str("method", r->method), log_str("route", route), log_int("status", r->status),
             log_int("ms", us / 1000), log_str("app", r->app), log_str("id", r->id));
}
