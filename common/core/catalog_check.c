/* catalog_check.c - judges catalogue files when they are loaded: first by schema/catalog.schema.json (members, types,
 * words), then what a schema cannot say: references between members, defaults, prices.
 *
 * A wrong file stops the program at start, with file, operation and field named; nothing else may be careful about the
 * shape of a document afterwards. Unknown members are errors: a misspelt limit must not become no limit. */
#include <stdio.h>
#include <string.h>

#include "common/base/text.h"
#include "common/core/catalog_parts.h"

bool catalog_check_provider(const struct catalog_complaint *to, const json_t *schema, const json_t *doc)
{
    json_t *alone = json_copy((json_t *)doc);
    bool is_fine = json_is_object(json_object_get(doc, "operations")) && alone != NULL &&
                   json_object_set_new(alone, "operations", json_object()) == 0; /* they are judged one by one */

    is_fine = catalog_schema_fits(to, schema, "provider", is_fine ? alone : doc) && is_fine;
    json_decref(alone);
    return is_fine;
}

static bool check_spec(const struct catalog_complaint *to, const char *at, const json_t *spec, int depth);

static bool check_specs(const struct catalog_complaint *to, const char *at, const json_t *specs, int depth)
{
    char field[160];
    const char *name;
    json_t *spec;

    json_object_foreach((json_t *)specs, name, spec)
    {
        (void)snprintf(field, sizeof field, "%s.%s", at, name);
        if (!check_spec(to, field, spec, depth))
            return false;
    }
    return true;
}

static bool check_file(const struct catalog_complaint *to, const char *at, const json_t *spec, int depth)
{
    if (depth > 0)
        return catalog_complain(to, at, "a file cannot lie inside another parameter");
    if (json_object_get(spec, "formats") == NULL || json_object_get(spec, "max_bytes") == NULL)
        return catalog_complain(to, at, "needs formats and max_bytes");
    return json_object_get(spec, "default") == NULL || catalog_complain(to, at, "a file has no default");
}

static bool check_spec(const struct catalog_complaint *to, const char *at, const json_t *spec, int depth)
{
    struct catalog_faults faults = { .count = 0 };
    const json_t *fallback = json_object_get(spec, "default"), *items = json_object_get(spec, "items");
    json_t *value;
    char below[160];

    if (json_object_get(spec, "type") == NULL)
        return catalog_complain(to, at, "needs a type");
    if (catalog_is_file(spec))
        return check_file(to, at, spec, depth);
    if (json_object_get(spec, "as") != NULL || json_object_get(spec, "formats") != NULL)
        return catalog_complain(to, at, "has members that only files may have");
    if (depth > 4)
        return catalog_complain(to, at, "is nested too deep");
    if (items != NULL) {
        (void)snprintf(below, sizeof below, "%s.items", at);
        if (!check_spec(to, below, items, depth + 1))
            return false;
    }
    if (!check_specs(to, at, json_object_get(spec, "fields"), depth + 1))
        return false;
    if (fallback == NULL)
        return true;
    value = catalog_value(spec, fallback, "default", &faults);
    json_decref(value);
    return value != NULL || catalog_complain(to, at, "default %s", faults.items[0].message);
}

/* ---- rules and prices */

static bool check_when(const struct catalog_complaint *to, const char *at, const json_t *when, const json_t *params)
{
    char field[160];
    const char *name;
    json_t *matcher;

    json_object_foreach((json_t *)when, name, matcher)
    {
        (void)snprintf(field, sizeof field, "%s.%s", at, name);
        if (json_object_get(params, name) == NULL)
            return catalog_complain(to, field, "is not a parameter of the operation");
    }
    return true;
}

static size_t position_of(const json_t *params, const char *name)
{
    size_t i = 0;
    const char *key;
    json_t *spec;

    json_object_foreach((json_t *)params, key, spec)
    {
        if (strcmp(key, name) == 0)
            return i;
        i++;
    }
    return i;
}

/* Defaults are filled in as the parameters are listed: a rule that decides one may look only at earlier parameters, or
 * at such that never get a default themselves. */
static bool check_order(const struct catalog_complaint *to, const char *at, const json_t *when, const json_t *params,
                        const char *decided)
{
    const char *name;
    json_t *matcher;

    json_object_foreach((json_t *)when, name, matcher)
    {
        const json_t *spec = json_object_get(params, name);

        if (json_object_get(spec, "default") != NULL && position_of(params, name) > position_of(params, decided))
            return catalog_complain(to, at, "\"%s\" must be listed before \"%s\"", name, decided);
    }
    return true;
}

static bool check_file_rule(const struct catalog_complaint *to, const char *at, const json_t *constraint,
                            const json_t *spec, const json_t *params)
{
    static const char *const names[] = { "formats", "max_bytes", "max_aspect", "alpha", "same_size_as" };
    const char *other = json_text(constraint, "same_size_as");

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (json_object_get(constraint, names[i]) != NULL && !catalog_is_file(spec))
            return catalog_complain(to, at, "%s can only be said of a file", names[i]);
    }
    return other == NULL || catalog_is_file(json_object_get(params, other)) ||
           catalog_complain(to, at, "same_size_as must name a file parameter");
}

static bool check_then(const struct catalog_complaint *to, const char *at, const json_t *rule, const json_t *params)
{
    const json_t *then = json_object_get(rule, "then"), *when = json_object_get(rule, "when");
    char field[160];
    const char *name;
    json_t *constraint;

    json_object_foreach((json_t *)then, name, constraint)
    {
        const json_t *fallback = json_object_get(constraint, "default");

        (void)snprintf(field, sizeof field, "%s.then.%s", at, name);
        if (json_object_get(params, name) == NULL)
            return catalog_complain(to, field, "is not a parameter of the operation");
        if ((fallback != NULL || json_object_get(constraint, "absent") != NULL) &&
            !check_order(to, field, when, params, name))
            return false;
        if (!check_file_rule(to, field, constraint, json_object_get(params, name), params))
            return false;
    }
    return true;
}

static bool check_rules(const struct catalog_complaint *to, const json_t *rules, const json_t *params)
{
    char at[32];

    for (size_t i = 0; i < json_array_size(rules); i++) {
        const json_t *rule = json_array_get(rules, i), *any_of = json_object_get(rule, "any_of");

        (void)snprintf(at, sizeof at, "rules[%zu]", i);
        if (!check_when(to, at, json_object_get(rule, "when"), params) || !check_then(to, at, rule, params))
            return false;
        for (size_t k = 0; k < json_array_size(any_of); k++) {
            if (json_object_get(params, json_string_value(json_array_get(any_of, k))) == NULL)
                return catalog_complain(to, at, "any_of names what is not a parameter of the operation");
        }
    }
    return true;
}

static bool check_scale(const struct catalog_complaint *to, const char *at, const json_t *scale, const json_t *params)
{
    int64_t w, h;

    if (json_object_get(params, json_text(scale, "param")) == NULL)
        return catalog_complain(to, at, "scale.param is not a parameter of the operation");
    return catalog_size_parse(json_text(scale, "auto"), &w, &h) ||
           catalog_complain(to, at, "scale.auto must be a size");
}

/* What is added is counted in a number that has an end, so that the dearest call is known. */
static bool check_plus(const struct catalog_complaint *to, const char *at, const json_t *plus, const json_t *params)
{
    for (size_t i = 0; i < json_array_size(plus); i++) {
        const json_t *spec = json_object_get(params, json_text(json_array_get(plus, i), "param"));
        double min = 0, max = 0;

        if (!json_number(spec, "max", &max) || (json_number(spec, "min", &min) && min < 0))
            return catalog_complain(to, at, "plus.param must name a number with a \"max\" that is never negative");
    }
    return true;
}

static bool check_rows(const struct catalog_complaint *to, const json_t *rows, const json_t *params)
{
    char at[40];

    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i), *scale = json_object_get(row, "scale");
        const json_t *plus = json_object_get(row, "plus");
        double usd = json_number_value(json_object_get(row, "usd"));
        double credits = json_number_value(json_object_get(row, "credits"));
        bool is_free = json_is_true(json_object_get(row, "free"));

        (void)snprintf(at, sizeof at, "price.rows[%zu]", i);
        if (!check_when(to, at, json_object_get(row, "when"), params) || !check_plus(to, at, plus, params) ||
            (scale != NULL && !check_scale(to, at, scale, params)))
            return false;
        if ((plus == NULL && (usd > 0) + (credits > 0) + is_free != 1) || (plus != NULL && is_free) || usd < 0 ||
            credits < 0 || usd > 10000 || credits > 1000000)
            return catalog_complain(to, at, "must have one price above 0: \"usd\" or \"credits\"; or be \"free\"");
    }
    return true;
}

static bool check_price(const struct catalog_complaint *to, const json_t *price, const json_t *params)
{
    const json_t *list = json_object_get(price, "tokens");
    const char *units = json_text(price, "units");

    if (!check_rows(to, json_object_get(price, "rows"), params))
        return false;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *row = json_array_get(list, i);

        if (!check_when(to, "price.tokens", json_object_get(row, "when"), params))
            return false;
    }
    if (units != NULL) {
        const json_t *spec = json_object_get(params, units);

        if (spec == NULL || strcmp(json_text(spec, "type"), "integer") != 0 ||
            json_number_value(json_object_get(spec, "min")) < 1 || json_object_get(spec, "max") == NULL)
            return catalog_complain(to, "price.units",
                                    "must name an integer parameter with \"min\" of 1 and a \"max\"");
    }
    return true;
}

/* ---- an operation */

/* Does the condition hold only where the parameter is there? */
static bool when_has(const json_t *when, const char *name)
{
    const json_t *one = json_object_get(when, name);

    return json_is_object(one) ? json_is_true(json_object_get(one, "present")) : one != NULL;
}

/* Every hole of a path is a parameter that is always there, or that the call's "when" asks for; a poll's holds the
 * reference. */
static bool check_path(const struct catalog_complaint *to, const char *field, const char *path, const json_t *params,
                       const json_t *when)
{
    char name[64];

    for (const char *at = strchr(path, '{'); at != NULL; at = strchr(at, '{')) {
        size_t len = strcspn(++at, "}");
        const json_t *spec;

        if (at[len] != '}' || len >= sizeof name)
            return catalog_complain(to, field, "has a { without its }");
        memcpy(name, at, len);
        name[len] = '\0';
        if (strcmp(name, "ref") == 0)
            continue;
        spec = json_object_get(params, name[0] == '+' ? name + 1 : name);
        if (spec != NULL && when_has(when, name[0] == '+' ? name + 1 : name))
            continue;
        if (spec == NULL || (!json_bool(spec, "required", false) && json_object_get(spec, "default") == NULL))
            return catalog_complain(to, field, "{%s} must be a parameter that is required or has a default", name);
    }
    return true;
}

static bool check_call(const struct catalog_complaint *to, const char *at, const json_t *submit, const json_t *poll,
                       const json_t *params, const json_t *when)
{
    const char *path = json_text(submit, "path"), *poll_path = json_text(poll, "path");
    char field[64];

    (void)snprintf(field, sizeof field, "%ssubmit.path", at);
    if (path != NULL && !check_path(to, field, path, params, when))
        return false;
    (void)snprintf(field, sizeof field, "%spoll.path", at);
    if (poll_path == NULL)
        return true;
    if (strstr(poll_path, "{ref}") == NULL)
        return catalog_complain(to, field, "must begin with / and hold {ref}");
    return check_path(to, field, poll_path, params, when);
}

static bool check_cancel(const struct catalog_complaint *to, const char *path, const json_t *doc, const json_t *params)
{
    if (path == NULL)
        return true;
    if (json_object_get(doc, "poll") == NULL || strstr(path, "{ref}") == NULL)
        return catalog_complain(to, "cancel.path", "must hold {ref}, which only an operation with a poll has");
    return check_path(to, "cancel.path", path, params, NULL);
}

static bool check_calls(const struct catalog_complaint *to, const json_t *doc)
{
    const json_t *calls = json_object_get(doc, "calls"), *params = json_object_get(doc, "params");
    char at[40];

    if (!check_call(to, "", json_object_get(doc, "submit"), json_object_get(doc, "poll"), params, NULL) ||
        !check_cancel(to, json_text(json_object_get(doc, "cancel"), "path"), doc, params))
        return false;
    for (size_t i = 0; i < json_array_size(calls); i++) {
        const json_t *call = json_array_get(calls, i), *poll = json_object_get(call, "poll");
        const json_t *when = json_object_get(call, "when");

        (void)snprintf(at, sizeof at, "calls[%zu].", i);
        if (!check_when(to, at, when, params) ||
            !check_when(to, at, json_object_get(call, "params"), params) || /* their names, that is */
            !check_call(to, at, json_object_get(call, "submit"), poll, params, when))
            return false;
        if (json_is_object(poll) && json_object_get(doc, "poll") == NULL)
            return catalog_complain(to, at, "has a poll where the operation has none");
    }
    return true;
}

bool catalog_check_operation(const struct catalog_complaint *to, const json_t *schema, const json_t *doc)
{
    const json_t *params = json_object_get(doc, "params");

    return catalog_schema_fits(to, schema, "operation", doc) && check_specs(to, "params", params, 0) &&
           check_calls(to, doc) && check_rules(to, json_object_get(doc, "rules"), params) &&
           check_price(to, json_object_get(doc, "price"), params);
}
