/* catalog_describe.c - an operation as GET /v1/operations/{name} shows it: JSON Schema of the parameters, inputs with
 * their limits, price table, typical time. Made from the same document that validates and prices, so it cannot drift.
 */
#include <stdio.h>
#include <string.h>

#include "common/base/text.h"
#include "common/core/catalog_parts.h"
#include "common/core/catalog_route.h"

static void copy_member(json_t *to, const char *as, const json_t *from, const char *key)
{
    json_t *v = json_object_get(from, key);

    if (v != NULL)
        (void)json_object_set_new(to, as, json_deep_copy(v)); /* out of memory: the description is shorter */
}

static json_t *spec_schema(const json_t *spec);

static json_t *fields_schema(json_t *schema, const json_t *fields)
{
    json_t *properties = json_object(), *required = json_array(), *spec;
    const char *name;

    json_object_foreach((json_t *)fields, name, spec)
    {
        (void)json_object_set_new(properties, name, spec_schema(spec));
        if (json_bool(spec, "required", false))
            (void)json_array_append_new(required, json_string(name));
    }
    (void)json_object_set_new(schema, "type", json_string("object"));
    (void)json_object_set_new(schema, "properties", properties);
    (void)json_object_set_new(schema, "required", required);
    (void)json_object_set_new(schema, "additionalProperties", json_false());
    return schema;
}

static json_t *file_schema(const json_t *spec)
{
    json_t *schema = json_object();

    (void)json_object_set_new(schema, "type", json_string(json_bool(spec, "list", false) ? "array" : "string"));
    (void)json_object_set_new(schema, "format", json_string("kiln-file"));
    copy_member(schema, "description", spec, "description");
    return schema;
}

static json_t *spec_schema(const json_t *spec)
{
    static const struct {
        const char *ours, *theirs;
    } names[] = {
        { "description", "description" },
        { "default", "default" },
        { "provider_default", "default" },
        { "values", "enum" },
        { "min", "minimum" },
        { "max", "maximum" },
        { "min_length", "minLength" },
        { "max_length", "maxLength" },
        { "multiple_of", "multipleOf" },
        { "max_items", "maxItems" },
    };
    const char *type = json_text(spec, "type");
    const json_t *items = json_object_get(spec, "items"), *fields = json_object_get(spec, "fields");
    json_t *schema;

    if (catalog_is_file(spec))
        return file_schema(spec);
    schema = json_object();
    (void)json_object_set_new(schema, "type", json_string(strcmp(type, "uuid") == 0 ? "string" : type));
    if (strcmp(type, "uuid") == 0)
        (void)json_object_set_new(schema, "format", json_string("uuid"));
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        copy_member(schema, names[i].theirs, spec, names[i].ours);
    if (items != NULL)
        (void)json_object_set_new(schema, "items", spec_schema(items));
    return fields != NULL ? fields_schema(schema, fields) : schema;
}

/* ---- rules as if/then */

static json_t *matcher_schema(const json_t *m)
{
    const json_t *above = json_object_get(m, "above");
    json_t *not = json_object_get(m, "not");

    if (above != NULL)
        return json_pack("{s:O}", "exclusiveMinimum", above);
    if (not != NULL)
        return json_pack("{s:{s:O}}", "not", "enum", not );
    if (json_is_array(m))
        return json_pack("{s:O}", "enum", m);
    return json_is_object(m) ? json_true() : json_pack("{s:O}", "const", m);
}

static json_t *when_schema(const json_t *when)
{
    json_t *properties = json_object(), *required = json_array(), *m;
    const char *name;

    json_object_foreach((json_t *)when, name, m)
    {
        const json_t *present = json_object_get(m, "present");

        (void)json_object_set_new(properties, name,
                                  present != NULL && !json_is_true(present) ? json_false() : matcher_schema(m));
        if ((present != NULL && json_is_true(present)) || (present == NULL && json_object_get(m, "not") == NULL))
            (void)json_array_append_new(required, json_string(name));
    }
    return json_pack("{s:o, s:o}", "properties", properties, "required", required);
}

static json_t *then_schema(const json_t *then)
{
    static const struct {
        const char *ours, *theirs;
    } names[] = { { "values", "enum" },           { "min", "minimum" },
                  { "max", "maximum" },           { "max_length", "maxLength" },
                  { "min_items", "minItems" },    { "max_items", "maxItems" },
                  { "default", "default" },       { "formats", "x-formats" },
                  { "max_bytes", "x-max-bytes" }, { "max_aspect", "x-max-aspect" },
                  { "alpha", "x-alpha" },         { "same_size_as", "x-same-size-as" } };
    json_t *properties = json_object(), *required = json_array(), *c;
    const char *name;

    json_object_foreach((json_t *)then, name, c)
    {
        json_t *schema = json_object();
        const json_t *d = json_object_get(c, "dimensions");

        for (size_t i = 0; i < ARRAY_LEN(names); i++)
            copy_member(schema, names[i].theirs, c, names[i].ours);
        if (d != NULL) {
            (void)json_object_set_new(schema, "pattern", json_string("^([1-9][0-9]*x[1-9][0-9]*|[a-z]+)$"));
            copy_member(schema, "x-dimensions", c, "dimensions");
        }
        if (json_bool(c, "absent", false)) {
            json_decref(schema);
            schema = json_false();
        }
        (void)json_object_set_new(properties, name, schema);
        if (json_bool(c, "required", false))
            (void)json_array_append_new(required, json_string(name));
    }
    return json_pack("{s:o, s:o}", "properties", properties, "required", required);
}

/* "any_of": at least one of them is there, and above the number where one is said. */
static json_t *any_of_schema(const json_t *rule)
{
    const json_t *names = json_object_get(rule, "any_of"), *above = json_object_get(rule, "above");
    json_t *list = json_array();

    for (size_t i = 0; i < json_array_size(names); i++) {
        json_t *one = json_pack("{s:[O]}", "required", json_array_get(names, i));

        if (above != NULL)
            (void)json_object_set_new(
                one, "properties",
                json_pack("{s:{s:O}}", json_string_value(json_array_get(names, i)), "exclusiveMinimum", above));
        (void)json_array_append_new(list, one);
    }
    return list;
}

static json_t *params_schema(const json_t *doc)
{
    const json_t *rules = json_object_get(doc, "rules");
    json_t *schema = fields_schema(json_object(), json_object_get(doc, "params")), *all = json_array();

    for (size_t i = 0; i < json_array_size(rules); i++) {
        const json_t *rule = json_array_get(rules, i);
        json_t *then = then_schema(json_object_get(rule, "then"));

        if (json_object_get(rule, "any_of") != NULL)
            (void)json_object_set_new(then, "anyOf", any_of_schema(rule));
        (void)json_array_append_new(
            all, json_pack("{s:o, s:o}", "if", when_schema(json_object_get(rule, "when")), "then", then));
    }
    (void)json_object_set_new(schema, "allOf", all);
    return schema;
}

/* ---- inputs and prices */

static json_t *inputs_list(const json_t *params)
{
    static const char *const limits[] = { "max_bytes",  "min_side",  "max_side",       "min_pixels",    "max_pixels",
                                          "max_aspect", "max_items", "min_duration_s", "max_duration_s" };
    json_t *list = json_array(), *spec;
    const char *name;

    json_object_foreach((json_t *)params, name, spec)
    {
        json_t *one;

        if (!catalog_is_file(spec))
            continue;
        one = json_pack("{s:s, s:b, s:b}", "name", name, "required", json_bool(spec, "required", false), "list",
                        json_bool(spec, "list", false));
        copy_member(one, "formats", spec, "formats");
        for (size_t i = 0; i < ARRAY_LEN(limits); i++)
            copy_member(one, limits[i], spec, limits[i]);
        (void)json_array_append_new(list, one);
    }
    return list;
}

static json_t *price_line(const json_t *row, const json_t *specs, int64_t *least, int64_t *most)
{
    json_t *line = json_object(), *flat = json_copy((json_t *)row);
    int64_t mc, microusd;

    copy_member(line, "when", row, "when");
    copy_member(line, "scale", row, "scale");
    copy_member(line, "plus", row, "plus");
    (void)json_object_del(flat, "scale"); /* mostly absent, both */
    (void)json_object_del(flat, "plus");
    if (catalog_row_price(flat, specs, NULL, &mc, &microusd)) {
        (void)json_object_set_new(line, "credits", json_credits(mc));
        *least = mc < *least ? mc : *least;
    }
    if (catalog_row_price(row, specs, NULL, &mc, &microusd)) {
        if (json_object_get(row, "scale") != NULL || json_object_get(row, "plus") != NULL)
            (void)json_object_set_new(line, "credits_at_most", json_credits(mc));
        *most = mc > *most ? mc : *most;
    }
    json_decref(flat);
    return line;
}

/* "17 credits + 0.06 x steps": what the table says, in words. */
static void formula(struct buf *out, const json_t *row)
{
    const json_t *plus = json_object_get(row, "plus"), *scale = json_object_get(row, "scale");
    const char *money = json_object_get(row, "credits") != NULL ? "credits" : "usd";
    double each, per;

    (void)buf_printf(out, "%g %s", json_number_value(json_object_get(row, money)),
                     money[0] == 'u' ? "USD" : "credits"); /* a ceiling far away: cannot fail, but for memory */
    for (size_t i = 0; i < json_array_size(plus); i++) {
        const json_t *one = json_array_get(plus, i);

        each = json_number_value(json_object_get(one, "each"));
        if (json_number(one, "per", &per))
            (void)buf_printf(out, " + %g x every %g of %s begun", each, per, json_text(one, "param"));
        else
            (void)buf_printf(out, " + %g x %s", each, json_text(one, "param"));
    }
    if (scale != NULL)
        (void)buf_printf(out, ", in proportion above %lld pixels of %s",
                         (long long)json_integer_value(json_object_get(scale, "pixels")), json_text(scale, "param"));
}

static json_t *price_formula(const json_t *price)
{
    const json_t *rows = json_object_get(price, "rows");
    const char *units = json_text(price, "units");
    struct buf out = { .ceiling = 16384 };
    json_t *text;

    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        char when[256];

        catalog_when_text(when, sizeof when, json_object_get(row, "when"), NULL);
        (void)buf_str(&out, i > 0 ? "; " : "");
        if (json_bool(row, "free", false))
            (void)buf_str(&out, "free");
        else
            formula(&out, row);
        if (when[0] != '\0')
            (void)buf_printf(&out, " with %s", when);
    }
    if (units != NULL)
        (void)buf_printf(&out, "; times %s", units);
    text = json_string(out.data != NULL ? out.data : "");
    buf_done(&out);
    return text;
}

static json_t *price_table(const json_t *price, const json_t *specs)
{
    const json_t *rows = json_object_get(price, "rows");
    json_t *table = json_array(), *out;
    int64_t least = INT64_MAX, most = 0;
    char text[160], low[32], high[32];

    for (size_t i = 0; i < json_array_size(rows); i++)
        (void)json_array_append_new(table, price_line(json_array_get(rows, i), specs, &least, &most));
    credits_format(low, sizeof low, least);
    credits_format(high, sizeof high, most);
    if (least == most)
        (void)snprintf(text, sizeof text, "%s credits per %s", low, json_text(price, "unit"));
    else
        (void)snprintf(text, sizeof text, "%s to %s credits per %s", low, high, json_text(price, "unit"));
    out = json_pack("{s:s, s:o}", "text", text, "table", table);
    (void)json_object_set_new(out, "formula", price_formula(price));
    copy_member(out, "unit", price, "unit");
    copy_member(out, "units", price, "units");
    copy_member(out, "source", price, "source");
    return out;
}

json_t *catalog_describe(const struct operation *op)
{
    const json_t *params = json_object_get(op->doc, "params");
    json_t *out = json_pack("{s:s, s:s, s:s}", "object", "operation", "name", op->name, "provider", op->provider->name);

    if (out == NULL)
        return NULL;
    copy_member(out, "description", op->doc, "description");
    (void)json_object_set_new(out, "params", params_schema(op->doc));
    (void)json_object_set_new(out, "inputs", inputs_list(params));
    (void)json_object_set_new(out, "output", json_string(op->output));
    (void)json_object_set_new(out, "asynchronous", json_boolean(op->is_async));
    (void)json_object_set_new(out, "price", price_table(json_object_get(op->doc, "price"), params));
    copy_member(out, "price_version", json_object_get(op->doc, "price"), "version");
    copy_member(out, "cache_price", op->doc, "cache_price");
    copy_member(out, "typical_s", op->doc, "typical_s");
    (void)json_object_set_new(out, "deadline_s", json_integer(op->deadline_s));
    return out;
}

static json_t *leg_view(const struct catalog *c, const json_t *leg)
{
    const struct operation *op = catalog_find(c, json_text(leg, "operation"));
    json_t *out = json_pack("{s:s, s:s, s:b}", "operation", op->name, "provider", op->provider->name, "configured",
                            op->provider->key != NULL);

    copy_member(out, "drops", leg, "drops");
    (void)json_object_set_new(out, "price",
                              price_table(json_object_get(op->doc, "price"), json_object_get(op->doc, "params")));
    return out;
}

json_t *catalog_describe_route(const struct catalog *c, const struct catalog_route *route)
{
    const json_t *legs = json_object_get(route->doc, "legs");
    json_t *out = json_pack("{s:s, s:s, s:n}", "object", "route", "name", route->vocabulary.name, "provider");
    json_t *list = json_array();

    copy_member(out, "description", route->doc, "description");
    (void)json_object_set_new(out, "params", params_schema(route->doc));
    (void)json_object_set_new(out, "inputs", inputs_list(json_object_get(route->doc, "params")));
    copy_member(out, "output", route->doc, "output");
    for (size_t i = 0; i < json_array_size(legs); i++) {
        if (catalog_find(c, json_text(json_array_get(legs, i), "operation")) != NULL)
            (void)json_array_append_new(list, leg_view(c, json_array_get(legs, i)));
    }
    (void)json_object_set_new(out, "legs", list);
    (void)json_object_set_new(out, "deadline_s", json_integer(route->vocabulary.deadline_s));
    return out;
}
