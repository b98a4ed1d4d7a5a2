/* job.c - the envelope's text and back. */
#include "common/core/job.h"
#include <stdlib.h>
#include <string.h>
#include "common/base/text.h"

bool job_state_is_final(const char *state)
{
#define X(name, word) word,
    static const char *const final[] = { JOB_FINAL(X) };
#undef X
    for (size_t i = 0; state && i < ARRAY_LEN(final); i++) {
        if (strcmp(state, final[i]) == 0)
            return true;
    }
    return false;
}

char *job_envelope_text(const struct job_envelope *e, const char *params, const char *inputs, const char *route)
{
    struct buf out = { 0 };

    json_put(&out, "account", e->account); /* what is NULL is left out, so that the parser sees it as absent */
    json_put(&out, "app", e->app);
    json_put(&out, "id", e->id);
    json_put_json(&out, "inputs", inputs);
    json_put(&out, "operation", e->operation);
    json_put_json(&out, "params", params);
    json_put(&out, "provider", e->provider);
    json_put_json(&out, "route", route);
    json_put_int(&out, "units", e->units);
    json_put_end(&out);
    return json_put_take(&out);
}

char *job_envelope_print(const struct job_envelope *e)
{
    char *params = json_print(e->params), *inputs = json_print(e->inputs), *route = json_print(e->route), *text = NULL;

    if ((params || !e->params) && (inputs || !e->inputs) && (route || !e->route))
        text = job_envelope_text(e, params, inputs, route);
    free(params);
    free(inputs);
    free(route);
    return text;
}

bool job_envelope_parse(struct arena *a, const char *text, struct job_envelope *out)
{
    json_t *o = text ? json_parse(text, strlen(text), NULL) : NULL, *params = json_object_get(o, "params"),
           *inputs = json_object_get(o, "inputs"), *route = json_object_get(o, "route");
    struct job_envelope e = { 0 };
    bool ok;

    ok = json_is_object(o) && json_is_object(params) && (!inputs || json_is_null(inputs) || json_is_object(inputs)) &&
         uuid_valid(json_text(o, "id")) && json_int(o, "units", &e.units) && e.units > 0;
    e.id = arena_strdup(a, json_text(o, "id"));
    e.app = arena_strdup(a, json_text(o, "app"));
    e.account = arena_strdup(a, json_text(o, "account"));
    e.operation = arena_strdup(a, json_text(o, "operation"));
    e.provider = arena_strdup(a, json_text(o, "provider"));
    ok = ok && e.id && e.app && e.account && e.operation && e.provider;
    if (ok) {
        e.params = json_incref(params);
        e.inputs = json_is_object(inputs) ? json_incref(inputs) : NULL;
        e.route = json_is_array(route) ? json_incref(route) : NULL;
        *out = e;
    }
    json_decref(o);
    return ok;
}

void job_envelope_done(struct job_envelope *e)
{
    if (!e)
        return;
    json_decref(e->params);
    json_decref(e->inputs);
    json_decref(e->route);
    e->params = e->inputs = e->route = NULL;
}

/* {"image": […]} under the names that the leg's operation has for them. */
static json_t *leg_inputs(const json_t *files, const json_t *inputs)
{
    json_t *out = json_object(), *from;
    const char *field;

    json_object_foreach((json_t *)(uintptr_t)files, field, from)
    {
        json_t *list = json_object_get(inputs, json_string_value(from));

        if (list && json_object_set(out, field, list) != 0) {
            json_decref(out);
            return NULL;
        }
    }
    return out;
}

static const json_t *leg_of(const json_t *route, const char *provider, size_t *at)
{
    for (*at = 0; *at < json_array_size(route); (*at)++) {
        const json_t *leg = json_array_get(route, *at);
        const char *name = json_text(leg, "provider");

        if (name && !strcmp(name, provider))
            return leg;
    }
    return NULL;
}

bool job_envelope_leg(struct arena *a, struct job_envelope *e, const char *provider)
{
    size_t at;
    const json_t *leg = leg_of(e->route, provider, &at);
    const char *operation = arena_strdup(a, json_text(leg, "operation")), *name = arena_strdup(a, provider);
    json_t *params = json_object_get(leg, "params"), *inputs;

    if (!operation || !name || !json_is_object(params))
        return false;
    inputs = e->inputs ? leg_inputs(json_object_get(leg, "files"), e->inputs) : NULL;
    if (e->inputs && !inputs)
        return false;
    json_incref(params);
    json_decref(e->params);
    json_decref(e->inputs);
    e->params = params;
    e->inputs = inputs;
    e->operation = operation;
    e->provider = name;
    return true;
}

const char *job_route_next(const json_t *route, const char *provider)
{
    size_t at;

    return leg_of(route, provider, &at) ? json_text(json_array_get(route, at + 1), "provider") : NULL;
}
