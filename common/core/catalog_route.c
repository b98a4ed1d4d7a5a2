/* catalog_route.c - see catalog_route.h: which legs can serve a job, with which parameters, at which price. */
#include "common/core/catalog_route.h"
#include <stdio.h>
#include <string.h>
#include "common/base/text.h"
#include "common/core/catalog_parts.h"

/* ---- one leg's parameters */

static const char *reference_of(const json_t *source) /* "$image" -> "image" */
{
    const char *text = json_string_value(source);

    return text != NULL && text[0] == '$' ? text + 1 : json_text(source, "from");
}

static bool leg_uses(const json_t *leg, const char *name)
{
    const char *target;
    json_t *source;

    json_object_foreach(json_object_get(leg, "params"), target, source)
    {
        const char *from = reference_of(source);

        if (from != NULL && strcmp(from, name) == 0)
            return true;
    }
    return json_object_get(json_object_get(leg, "when"), name) != NULL;
}

static bool leg_drops(const json_t *leg, const char *name)
{
    const json_t *drops = json_object_get(leg, "drops");

    for (size_t i = 0; i < json_array_size(drops); i++) {
        const char *one = json_string_value(json_array_get(drops, i));

        if (one != NULL && strcmp(one, name) == 0)
            return true;
    }
    return false;
}

/* New: the value of one parameter; NULL with *is_fit: not given, so left out. */
static json_t *value_of(const json_t *source, const json_t *params, bool *is_fit)
{
    const char *from = reference_of(source);
    json_t *given = from != NULL ? json_object_get(params, from) : NULL, *mapped;
    const json_t *map = json_object_get(source, "map");
    const char *part = json_text(source, "part");
    int64_t width = 0, height = 0;
    char key[64];

    *is_fit = true;
    if (from == NULL)
        return json_incref((json_t *)(uintptr_t)source);
    if (given == NULL || json_is_null(given))
        return NULL;
    if (part != NULL) {
        *is_fit = catalog_size_parse(json_string_value(given), &width, &height);
        return *is_fit ? json_integer(strcmp(part, "width") == 0 ? width : height) : NULL;
    }
    if (map == NULL)
        return json_incref(given);
    if (json_is_string(given))
        (void)snprintf(key, sizeof key, "%s", json_string_value(given));
    else
        catalog_value_text(key, sizeof key, given);
    mapped = json_object_get(map, key);
    *is_fit = mapped != NULL;
    return json_is_null(mapped) ? NULL : json_incref(mapped);
}

static void why_not(struct catalog_faults *faults, const struct operation *op, const char *fmt, const char *a,
                    const char *b)
{
    char text[512]; /* faults_add cuts it */

    (void)snprintf(text, sizeof text, fmt, a, b);
    faults_add(faults, "params", "%s cannot serve this: %s", op->name, text);
}

static bool map_params(const json_t *leg, const struct operation *op, const struct catalog_route *route,
                       const json_t *params, struct catalog_leg *out, struct catalog_faults *faults)
{
    const json_t *specs = json_object_get(route->doc, "params");
    json_t *made = json_object(), *source;
    const char *target;
    bool is_fit = made != NULL;
    struct catalog_faults own = { 0 };

    json_object_foreach(json_object_get(leg, "params"), target, source)
    {
        const char *from = reference_of(source);
        json_t *value = value_of(source, params, &is_fit);

        if (!is_fit) {
            why_not(faults, op, "it has nothing for this %s%s", from, "");
            break;
        }
        if (value == NULL)
            continue;
        if (from != NULL && catalog_is_file(json_object_get(specs, from)))
            (void)json_object_set_new(out->files, target, json_string(from));
        (void)json_object_set_new(made, target, value);
    }
    out->params = is_fit ? catalog_validate(op, made, &own) : NULL;
    json_decref(made);
    if (is_fit && out->params == NULL)
        why_not(faults, op, "%s %s", own.items[0].field, own.items[0].message);
    return out->params != NULL;
}

/* What was given has a place in the leg, or is told to be dropped. */
static bool keep_all(const json_t *leg, const struct operation *op, const json_t *params, struct catalog_leg *out,
                     struct catalog_faults *faults)
{
    const char *name;
    json_t *value;
    char note[200];

    json_object_foreach((json_t *)(uintptr_t)params, name, value)
    {
        if (json_is_null(value) || leg_uses(leg, name))
            continue;
        if (!leg_drops(leg, name)) {
            why_not(faults, op, "it takes no %s%s", name, "");
            return false;
        }
        (void)snprintf(note, sizeof note, "%s: %s takes none; it was left out", name, op->name);
        if (out->notes == NULL)
            out->notes = json_array();
        (void)json_array_append_new(out->notes, json_string(note));
    }
    return true;
}

enum { FILES_MAX = 32 };

static bool files_fit(const struct operation *op, const struct catalog_leg *leg, const json_t *inputs,
                      struct catalog_faults *faults)
{
    struct catalog_faults together = { .count = 0 };
    struct catalog_file files[FILES_MAX];
    const char *field, *from;
    json_t *source;
    char message[160];
    size_t count = 0;

    json_object_foreach(leg->files, field, source)
    {
        const json_t *list = json_object_get(inputs, from = json_string_value(source));

        for (size_t i = 0; i < json_array_size(list); i++) {
            const json_t *one = json_array_get(list, i);
            struct media_head head = { 0 };
            int64_t bytes = 0;

            if (json_text(one, "mime") == NULL)
                continue; /* a URL: the worker sees it first */
            head.kind = media_kind_of_mime(json_text(one, "mime"));
            (void)json_int(one, "width", &head.width);
            (void)json_int(one, "height", &head.height);
            (void)json_int(one, "bytes", &bytes);
            if (!catalog_input_fits(op, field, &head, bytes, message, sizeof message)) {
                why_not(faults, op, "%s %s", from, message);
                return false;
            }
            if (count < FILES_MAX)
                files[count++] =
                    (struct catalog_file){ field, json_is_array(json_object_get(leg->params, field)) ? i : SIZE_MAX,
                                           head, bytes, false };
        }
    }
    if (catalog_files_fit(op, leg->params, files, count, &together))
        return true;
    why_not(faults, op, "%s %s", together.items[0].field, together.items[0].message);
    return false;
}

static void leg_done(struct catalog_leg *leg)
{
    json_decref(leg->params);
    json_decref(leg->files);
    json_decref(leg->notes);
    *leg = (struct catalog_leg){ 0 };
}

static bool leg_make(const struct catalog *c, const struct catalog_route *route, const json_t *leg,
                     const json_t *params, const json_t *inputs, struct catalog_leg *out, struct catalog_faults *faults)
{
    const struct operation *op = catalog_find(c, json_text(leg, "operation"));
    char when[160];

    *out = (struct catalog_leg){ .op = op, .files = json_object() };
    catalog_when_text(when, sizeof when, json_object_get(leg, "when"), NULL);
    if (!catalog_matches(json_object_get(leg, "when"), params))
        why_not(faults, op, "it is for %s%s", when, "");
    else if (keep_all(leg, op, params, out, faults) && map_params(leg, op, route, params, out, faults) &&
             files_fit(op, out, inputs, faults)) {
        if (catalog_price(op, out->params, &out->price) == ERR_OK)
            return true;
        why_not(faults, op, "these parameters have no price%s%s", "", "");
    }
    leg_done(out);
    return false;
}

/* ---- plans */

static bool plan_has(const struct catalog_plan *plan, const struct catalog_provider *provider)
{
    for (size_t i = 0; i < plan->count; i++) {
        if (plan->legs[i].op->provider == provider)
            return true;
    }
    return false;
}

static void plan_add(const struct catalog *c, const struct catalog_route *route, const json_t *leg,
                     const json_t *params, const json_t *inputs, struct catalog_plan *out,
                     struct catalog_faults *faults)
{
    const struct operation *op = catalog_find(c, json_text(leg, "operation"));
    struct catalog_leg *made = &out->legs[out->count];

    if (op == NULL || out->count == ROUTE_LEGS || plan_has(out, op->provider) ||
        !leg_make(c, route, leg, params, inputs, made, faults))
        return;
    if (out->count > 0 && made->price.units != out->legs[0].price.units) { /* one hold, one count of units */
        why_not(faults, made->op, "it would make another number of results%s%s", "", "");
        leg_done(made);
        return;
    }
    out->count++;
}

static void plan_add_named(const struct catalog *c, const struct catalog_route *route, const json_t *params,
                           const json_t *inputs, const json_t *providers, struct catalog_plan *out,
                           struct catalog_faults *faults)
{
    const json_t *legs = json_object_get(route->doc, "legs");

    for (size_t i = 0; i < json_array_size(providers); i++) {
        const char *name = json_string_value(json_array_get(providers, i));
        const struct catalog_provider *p = catalog_provider_find(c, name);
        bool serves = false;

        for (size_t l = 0; p != NULL && l < json_array_size(legs); l++) {
            const struct operation *op = catalog_find(c, json_text(json_array_get(legs, l), "operation"));

            if (op == NULL || op->provider != p)
                continue;
            serves = true;
            if (p->key != NULL)
                plan_add(c, route, json_array_get(legs, l), params, inputs, out, faults);
        }
        if (!serves)
            faults_add(faults, "providers", "%.60s does not serve %s", name, route->vocabulary.name);
        else if (p->key == NULL)
            faults_add(faults, "providers", "%s has no key here", name);
    }
}

static void plan_sort(struct catalog_plan *plan) /* stable, the cheapest first */
{
    for (size_t i = 1; i < plan->count; i++) {
        struct catalog_leg leg = plan->legs[i];
        size_t at = i;

        for (; at > 0 && plan->legs[at - 1].price.unit_mc > leg.price.unit_mc; at--)
            plan->legs[at] = plan->legs[at - 1];
        plan->legs[at] = leg;
    }
}

bool catalog_plan_make(const struct catalog *c, const struct catalog_route *route, const json_t *params,
                       const json_t *inputs, const json_t *providers, struct catalog_plan *out,
                       struct catalog_faults *faults)
{
    const json_t *legs = json_object_get(route->doc, "legs");

    *out = (struct catalog_plan){ .count = 0 };
    if (providers != NULL) {
        plan_add_named(c, route, params, inputs, providers, out, faults);
        return out->count > 0;
    }
    for (size_t i = 0; i < json_array_size(legs); i++) {
        const json_t *leg = json_array_get(legs, i);
        const struct operation *op = catalog_find(c, json_text(leg, "operation"));

        if (op != NULL && op->provider->key != NULL)
            plan_add(c, route, leg, params, inputs, out, faults);
    }
    plan_sort(out);
    if (out->count == 0 && faults->count == 0)
        faults_add(faults, "operation", "none of its providers has a key here");
    return out->count > 0;
}

void catalog_plan_done(struct catalog_plan *plan)
{
    for (size_t i = 0; i < plan->count; i++)
        leg_done(&plan->legs[i]);
    plan->count = 0;
}

void catalog_plan_shun(struct catalog_plan *plan, bool (*is_shunned)(void *ctx, const char *provider), void *ctx)
{
    struct catalog_leg kept[ROUTE_LEGS], shunned[ROUTE_LEGS];
    size_t good = 0, bad = 0;

    for (size_t i = 0; i < plan->count; i++) {
        if (is_shunned(ctx, plan->legs[i].op->provider->name))
            shunned[bad++] = plan->legs[i];
        else
            kept[good++] = plan->legs[i];
    }
    for (size_t i = 0; i < plan->count; i++)
        plan->legs[i] = i < good ? kept[i] : shunned[i - good];
}

int64_t catalog_plan_dearest_mc(const struct catalog_plan *plan)
{
    int64_t most = 0;

    for (size_t i = 0; i < plan->count; i++)
        most = plan->legs[i].price.unit_mc > most ? plan->legs[i].price.unit_mc : most;
    return most;
}

struct catalog_price catalog_plan_price(const struct catalog_plan *plan)
{
    struct catalog_price price = plan->legs[0].price;

    price.unit_mc = catalog_plan_dearest_mc(plan);
    for (size_t i = 1; i < plan->count; i++) {
        if (plan->legs[i].price.cache_mc > price.cache_mc)
            price.cache_mc = plan->legs[i].price.cache_mc;
    }
    return price;
}

enum operation_unknown catalog_plan_unknown(const struct catalog_plan *plan)
{
    for (size_t i = 0; i < plan->count; i++) {
        if (catalog_unknown(plan->legs[i].op, &plan->legs[i].price) == UNKNOWN_FAIL)
            return UNKNOWN_FAIL;
    }
    return UNKNOWN_RETRY;
}

json_t *catalog_plan_json(const struct catalog_plan *plan)
{
    json_t *all = json_array();

    for (size_t i = 0; i < plan->count; i++) {
        const struct catalog_leg *leg = &plan->legs[i];

        (void)json_array_append_new(all, json_pack("{s:s, s:s, s:O, s:O, s:I, s:s}", "operation", leg->op->name,
                                                   "provider", leg->op->provider->name, "params", leg->params, "files",
                                                   leg->files, "unit_mc", (json_int_t)leg->price.unit_mc,
                                                   "price_version", leg->price.version));
    }
    return all;
}

/* ---- files of the catalogue */

static bool check_leg(const struct catalog_complaint *to, const struct catalog *c, const struct catalog_route *route,
                      size_t i, const json_t *leg)
{
    const json_t *words = json_object_get(route->doc, "params"), *drops = json_object_get(leg, "drops");
    const char *name = json_text(leg, "operation"), *target;
    const struct operation *op = name != NULL ? catalog_find(c, name) : NULL;
    json_t *source;
    char at[40];

    (void)snprintf(at, sizeof at, "legs[%zu]", i);
    if (name == NULL)
        return catalog_complain(to, at, "\"operation\" must name an operation of the catalogue");
    if (op == NULL) /* an overlay took it out: the leg goes with it */
        return true;
    json_object_foreach(json_object_get(leg, "params"), target, source)
    {
        const char *from = reference_of(source);

        if (json_object_get(json_object_get(op->doc, "params"), target) == NULL)
            return catalog_complain(to, at, "%s has no parameter %s", name, target);
        if (from != NULL && json_object_get(words, from) == NULL)
            return catalog_complain(to, at, "%s is made from %s, which the route does not have", target, from);
    }
    for (size_t d = 0; d < json_array_size(drops); d++) {
        const char *dropped = json_string_value(json_array_get(drops, d));

        if (dropped == NULL || json_object_get(words, dropped) == NULL)
            return catalog_complain(to, at, "drops what the route does not have");
    }
    return true;
}

bool catalog_check_route(const struct catalog_complaint *to, const struct catalog *c, const struct catalog_route *route)
{
    const json_t *legs = json_object_get(route->doc, "legs");

    if (!json_is_object(json_object_get(route->doc, "params")))
        return catalog_complain(to, "params", "must be an object of specs");
    if (json_array_size(legs) < 1 || json_array_size(legs) > ROUTE_LEGS)
        return catalog_complain(to, "legs", "must be a list of 1 to %d legs", ROUTE_LEGS);
    for (size_t i = 0; i < json_array_size(legs); i++) {
        if (!check_leg(to, c, route, i, json_array_get(legs, i)))
            return false;
    }
    return true;
}
