/* problem.c - errors as problem+json: one shape, one place. */
#include "dispatcher/problem.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "dispatcher/dispatcher.h"
#include "dispatcher/reply.h"

enum { RETRY_UNAVAILABLE_S = 2, RETRY_FULL_S = 5 };

void problem_extra(struct request *r, enum err code, const char *detail, json_t *extra)
{
    json_t *body = json_object();
    int status = err_http(code);
    char type[64];

    snprintf(type, sizeof(type), "urn:kiln:problem:%s", err_word(code));
    (void)json_set_text(body, "type", type);
    (void)json_set_text(body, "title", err_text(code));
    (void)json_object_set_new(body, "status", json_integer(status));
    (void)json_set_text(body, "code", err_word(code));
    (void)json_set_text(body, "detail", detail != NULL ? detail : err_text(code));
    (void)json_set_text(body, "request_id", r->id);
    if (extra != NULL)
        (void)json_object_update(body, extra);
    json_decref(extra);
    if (status == 503)
        reply_retry_after(r, RETRY_UNAVAILABLE_S);
    if (status == 429)
        reply_retry_after(r, RETRY_FULL_S);
    if (status == 401)
        request_add_header(r, "WWW-Authenticate", "Bearer realm=\"kiln\"");
    metric_add(metrics_counter(dispatcher_of(r)->metrics, "kiln_refusals_total", "Requests refused, by code.", "code",
                               err_word(code), NULL),
               1);
    reply_json_as(r, status, "application/problem+json", body);
}

void problem_reply(struct request *r, enum err code, const char *detail)
{
    problem_extra(r, code, detail, NULL);
}

void problem_faults(struct request *r, enum err code, const struct catalog_faults *faults)
{
    json_t *errors = json_array();
    size_t kept = faults->count < ARRAY_LEN(faults->items) ? faults->count : ARRAY_LEN(faults->items);
    char detail[400];

    for (size_t i = 0; i < kept; i++) {
        json_t *one = json_object();

        (void)json_set_text(one, "field", faults->items[i].field);
        (void)json_set_text(one, "message", faults->items[i].message);
        (void)json_array_append_new(errors, one);
    }
    if (kept > 0)
        snprintf(detail, sizeof(detail), "%s: %s", faults->items[0].field, faults->items[0].message);
    problem_extra(r, code, kept > 0 ? detail : NULL, json_pack("{s:o}", "errors", errors));
}

void problem_field(struct request *r, enum err code, const char *field, const char *message)
{
    struct catalog_faults faults = { 0 };

    faults_add(&faults, field, "%s", message);
    problem_faults(r, code, &faults);
}

void problem_backend(struct request *r, enum err e)
{
    problem_reply(r, e == ERR_TOO_LARGE ? e : ERR_UNAVAILABLE,
                  e == ERR_LOST ? "whether it took effect is not known; ask again with the same Idempotency-Key"
                                : "the database is not available; nothing was changed");
}
