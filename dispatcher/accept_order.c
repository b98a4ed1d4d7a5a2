/* accept_order.c - what a body of POST /v1/jobs or /v1/estimate says, checked: shape, operation, provider, parameters.
 * Faults of one stage are collected and answered together, each naming its field. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/clock.h"
#include "dispatcher/accept.h"
#include "dispatcher/dispatcher.h"
#include "dispatcher/jobs.h"
#include "dispatcher/problem.h"
#include "dispatcher/templates.h"

enum {
    METADATA_BYTES = 4096,
    PRIORITY_MAX = 100,
    DEADLINE_MAX_S = 604800,
    RUN_AT_MAX_DAYS = 30,
    CACHE_TTL_S = 86400,
    CACHE_TTL_MAX_S = 2592000,
    CLOCK_SKEW_MS = 60000, /* a run_at that was "now" when the client wrote it */
};

enum { FOR_JOB = 1, FOR_ESTIMATE = 2, FOR_LATER = 4 };
static const struct {
    const char *name;
    int what;
} members[] = {
    { "operation", FOR_JOB | FOR_ESTIMATE },
    { "params", FOR_JOB | FOR_ESTIMATE },
    { "account", FOR_JOB },
    { "priority", FOR_JOB },
    { "run_at", FOR_JOB },
    { "deadline_s", FOR_JOB },
    { "metadata", FOR_JOB },
    { "provider", FOR_JOB | FOR_ESTIMATE },
    { "providers", FOR_JOB | FOR_ESTIMATE },
    { "webhook", FOR_LATER },
    { "cache", FOR_JOB },
    { "cache_ttl_s", FOR_JOB },
};

static void check_members(const json_t *body, int what, struct catalog_faults *faults)
{
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)(uintptr_t)body, key, value)
    {
        int found = 0;

        for (size_t i = 0; i < ARRAY_LEN(members); i++) {
            if (strcmp(members[i].name, key) == 0)
                found = members[i].what;
        }
        if ((found & FOR_LATER) != 0)
            faults_add(faults, key, "is not available yet");
        else if ((found & what) == 0)
            faults_add(faults, key, "is no member of this request");
    }
}

static bool check_int(const json_t *body, const char *key, int64_t min, int64_t max, int64_t *out,
                      struct catalog_faults *faults)
{
    const json_t *value = json_object_get(body, key);

    if (value == NULL || json_is_null(value))
        return false;
    if (!json_is_integer(value) || json_integer_value(value) < min || json_integer_value(value) > max) {
        faults_add(faults, key, "must be an integer from %lld to %lld", (long long)min, (long long)max);
        return false;
    }
    *out = json_integer_value(value);
    return true;
}

const char accept_late[] = "must not lie in the past";

static void check_run_at(const json_t *body, struct accept_order *o, struct catalog_faults *faults)
{
    const json_t *value = json_object_get(body, "run_at");
    int64_t at = 0, now = clock_wall_ms();

    if (value == NULL || json_is_null(value))
        return;
    if (!json_is_string(value) || rfc3339_parse(json_string_value(value), &at) != ERR_OK) {
        faults_add(faults, "run_at", "must be an RFC 3339 time, such as 2026-11-20T10:11:12Z");
    } else if (at < now - CLOCK_SKEW_MS) {
        if (o->has_key)
            o->is_late = true; /* perhaps said again: it was ahead when the job was taken */
        else
            faults_add(faults, "run_at", "%s", accept_late);
    } else if (at > now + (int64_t)RUN_AT_MAX_DAYS * 86400 * 1000) {
        faults_add(faults, "run_at", "must be at most %d days ahead", RUN_AT_MAX_DAYS);
    } else if (at > now) {
        o->run_at = json_string_value(value);
        o->delay_ms = at - now;
    }
}

static void check_metadata(const json_t *body, struct accept_order *o, struct catalog_faults *faults)
{
    const json_t *value = json_object_get(body, "metadata");
    char *text;

    if (value == NULL || json_is_null(value))
        return;
    if (!json_is_object(value)) {
        faults_add(faults, "metadata", "must be an object");
        return;
    }
    text = json_print(value);
    if (text == NULL || strlen(text) > METADATA_BYTES)
        faults_add(faults, "metadata", "must be at most %d bytes of JSON", METADATA_BYTES);
    free(text);
    o->metadata = value;
}

static void check_cache(const json_t *body, struct accept_order *o, struct catalog_faults *faults)
{
    const json_t *value = json_object_get(body, "cache"), *run_at = json_object_get(body, "run_at");
    bool has_ttl = check_int(body, "cache_ttl_s", 1, CACHE_TTL_MAX_S, &o->cache_ttl_s, faults);

    if (value != NULL && !json_is_null(value) && !json_is_boolean(value))
        faults_add(faults, "cache", "must be true or false");
    o->is_cached = json_is_true(value);
    if (!has_ttl)
        o->cache_ttl_s = CACHE_TTL_S;
    else if (!o->is_cached)
        faults_add(faults, "cache_ttl_s", "is for jobs with \"cache\": true");
    if (o->is_cached && run_at != NULL && !json_is_null(run_at)) /* others would wait for it all that time */
        faults_add(faults, "cache", "excludes run_at");
}

static void check_account(const json_t *body, struct accept_order *o, struct catalog_faults *faults)
{
    const json_t *value = json_object_get(body, "account");

    o->account = "default";
    if (value == NULL || json_is_null(value))
        return;
    if (!json_is_string(value) || !jobs_account_valid(json_string_value(value)))
        faults_add(faults, "account", "must be 1 to 128 of A-Z a-z 0-9 . _ : @ -");
    else
        o->account = json_string_value(value);
}

/* Who may serve a route's job: one by `provider`, or several in the order of `providers`. */
static void check_providers(const json_t *body, struct accept_order *o, struct catalog_faults *faults)
{
    json_t *one = json_object_get(body, "provider"), *several = json_object_get(body, "providers");

    if (json_is_string(one) && several == NULL) {
        o->one_provider = json_pack("[O]", one);
        o->providers = o->one_provider;
        return;
    }
    if (one != NULL)
        faults_add(faults, "provider", several != NULL ? "excludes providers" : "must be a provider's name");
    if (several == NULL)
        return;
    if (json_array_size(several) < 1 || json_array_size(several) > ROUTE_LEGS)
        faults_add(faults, "providers", "must be a list of 1 to %d names", ROUTE_LEGS);
    for (size_t i = 0; i < json_array_size(several); i++) {
        if (!json_is_string(json_array_get(several, i)))
            faults_add(faults, "providers", "must hold names only");
    }
    o->providers = several;
}

static void check_shape(struct accept_order *o, enum accept_members what, struct catalog_faults *faults)
{
    const json_t *body = o->body;

    check_members(body, what == ACCEPT_JOB ? FOR_JOB : FOR_ESTIMATE, faults);
    o->operation = json_text(body, "operation");
    if (o->operation == NULL)
        faults_add(faults, "operation", "must be the name of an operation");
    o->params = json_object_get(body, "params");
    if (!json_is_object(o->params))
        faults_add(faults, "params", o->params == NULL ? "is missing" : "must be an object");
    check_providers(body, o, faults);
    if (what == ACCEPT_ESTIMATE)
        return;
    check_account(body, o, faults);
    (void)check_int(body, "priority", -PRIORITY_MAX, PRIORITY_MAX, &o->priority, faults);
    (void)check_int(body, "deadline_s", 1, DEADLINE_MAX_S, &o->deadline_s, faults);
    check_run_at(body, o, faults);
    check_cache(body, o, faults);
    check_metadata(body, o, faults);
}

const char accept_own_key[] = "holds your API key; it belongs into the Authorization header only";

/* S8: a customer who sends the key inside the input would have it stored, logged by providers, shown in histories. */
static bool holds_own_key(const struct request *r)
{
    const char *header = request_header(r, "Authorization");
    const char *key = header != NULL ? strstr(header, "kiln_") : NULL;

    return key != NULL && r->body.data != NULL && strstr(r->body.data, key) != NULL;
}

/* ERR_OK, or the refusal's code with a fault. */
static enum err find_operation(struct request *r, struct accept_order *o, struct catalog_faults *faults)
{

    o->route = catalog_route_find(dispatcher_of(r)->catalog, o->operation);
    if (o->route != NULL) {
        o->op = &o->route->vocabulary;
        return ERR_OK;
    }
    o->op = catalog_find(dispatcher_of(r)->catalog, o->operation);
    if (o->op == NULL) {
        faults_add(faults, "operation", "is no operation of this kiln; see GET /v1/operations");
        return ERR_UNKNOWN_OPERATION;
    }
    if (o->providers != NULL) {
        faults_add(faults, o->one_provider != NULL ? "provider" : "providers",
                   "is for routes; this operation has one provider");
        return ERR_INVALID_REQUEST;
    }
    if (o->op->provider->key == NULL) {
        faults_add(faults, "operation", "%s has no key here: set %s", o->op->provider->name,
                   o->op->provider->key_env != NULL ? o->op->provider->key_env : "its key");
        return ERR_PROVIDER_NOT_CONFIGURED;
    }
    return ERR_OK;
}

static enum accept_verdict check_params(struct request *r, struct accept_order *o, struct catalog_faults *faults)
{
    json_t *filled = NULL;

    if (templates_used(o->params) != NULL) {
        switch (templates_fill(dispatcher_of(r)->templates, r, o->op, o->params, faults, &filled, &o->notes)) {
        case TEMPLATES_WAIT:
            accept_order_done(o);
            return ACCEPT_WAIT;
        case TEMPLATES_FAULTS:
            return ACCEPT_FAULTS;
        case TEMPLATES_DONE:
            break;
        }
    }
    o->checked = catalog_validate(o->op, filled != NULL ? filled : o->params, faults);
    json_decref(filled);
    return o->checked != NULL ? ACCEPT_READ : ACCEPT_FAULTS;
}

enum accept_verdict accept_order_check(struct request *r, json_t *body, enum accept_members what, bool has_key,
                                       struct accept_order *o, struct catalog_faults *faults, enum err *code)
{
    *o = (struct accept_order){ .body = json_incref(body), .has_key = has_key };
    *code = ERR_INVALID_REQUEST;
    if (!json_is_object(body)) {
        faults_add(faults, "body", "must be an object");
        return ACCEPT_FAULTS;
    }
    check_shape(o, what, faults);
    if (faults->count > 0)
        return ACCEPT_FAULTS;
    *code = find_operation(r, o, faults);
    if (*code != ERR_OK)
        return ACCEPT_FAULTS;
    *code = ERR_INVALID_REQUEST;
    return check_params(r, o, faults);
}

bool accept_order_read(struct request *r, enum accept_members what, struct accept_order *o)
{
    struct catalog_faults faults = { 0 };
    struct json_fault fault = { "the body is empty" };
    json_t *body = r->body.len > 0 ? json_parse(r->body.data, r->body.len, &fault) : NULL;
    enum accept_verdict verdict;
    enum err code;

    *o = (struct accept_order){ 0 };
    if (body == NULL) {
        problem_reply(r, ERR_INVALID_JSON, fault.message);
        return false;
    }
    if (holds_own_key(r)) {
        json_decref(body);
        problem_field(r, ERR_INVALID_REQUEST, "body", accept_own_key);
        return false;
    }
    verdict = accept_order_check(r, body, what, request_header(r, "Idempotency-Key") != NULL, o, &faults, &code);
    json_decref(body);
    if (verdict == ACCEPT_FAULTS)
        problem_faults(r, code, &faults);
    return verdict == ACCEPT_READ;
}

void accept_order_done(struct accept_order *o)
{
    json_decref(o->checked);
    json_decref(o->notes);
    json_decref(o->one_provider);
    json_decref(o->body);
    o->checked = NULL;
    o->notes = NULL;
    o->one_provider = NULL;
    o->body = NULL;
}
