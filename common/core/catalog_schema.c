/* catalog_schema.c - a document against schema/catalog.schema.json: as much of JSON Schema as that file uses.
 *
 * The schema is ours and embedded; what it says is what is checked at start, so that editors, documentation and kiln
 * never differ. Complaints name the field and are in words an operator can act on. $ref, type, enum, const, required,
 * properties, additionalProperties, items, minItems, minProperties, maxProperties, minLength, minimum,
 * exclusiveMinimum, the pattern "^/", and oneOf or anyOf (one that fits is enough) are what is understood. */
#include <stdio.h>
#include <string.h>

#include "common/base/text.h"
#include "common/core/catalog_parts.h"

enum { SCHEMA_FIELD = 160, SCHEMA_DEPTH = 40 };

struct place {
    const struct catalog_complaint *to;
    const json_t *defs;
    int depth;
};

static bool fits(const struct place *p, const char *at, const json_t *schema, const json_t *v);

static bool is_type(const char *name, const json_t *v)
{
    static const struct {
        const char *name;
        json_type type;
    } types[] = {
        { "object", JSON_OBJECT }, { "array", JSON_ARRAY }, { "string", JSON_STRING }, { "null", JSON_NULL }
    };

    if (strcmp(name, "boolean") == 0)
        return json_is_boolean(v);
    if (strcmp(name, "number") == 0)
        return json_is_number(v);
    if (strcmp(name, "integer") == 0)
        return json_is_integer(v);
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        if (strcmp(types[i].name, name) == 0)
            return json_typeof(v) == types[i].type;
    }
    return false;
}

static bool type_fits(const struct place *p, const char *at, const json_t *schema, const json_t *v)
{
    static const char *const words[][2] = { { "object", "an object" },
                                            { "array", "a list" },
                                            { "string", "a text" },
                                            { "number", "a number" },
                                            { "boolean", "true or false" } };
    const json_t *type = json_object_get(schema, "type");
    const char *name = json_string_value(type), *text = "of another type";
    int64_t least = 0;

    for (size_t i = 0; i < json_array_size(type); i++) {
        if (is_type(json_string_value(json_array_get(type, i)), v))
            return true;
    }
    if (type == NULL || (name != NULL && is_type(name, v)))
        return true;
    for (size_t i = 0; name != NULL && i < ARRAY_LEN(words); i++) {
        if (strcmp(words[i][0], name) == 0)
            text = words[i][1];
    }
    if (name != NULL && strcmp(name, "integer") == 0)
        text = json_int(schema, "minimum", &least) && least == 1 ? "a positive integer" : "an integer";
    return catalog_complain(p->to, at, "must be %s", text);
}

static bool number_fits(const struct place *p, const char *at, const json_t *schema, const json_t *v)
{
    const json_t *least = json_object_get(schema, "minimum"), *above = json_object_get(schema, "exclusiveMinimum");
    double n = json_number_value(v);

    if (least != NULL && n < json_number_value(least))
        return json_is_integer(v) && json_integer_value(least) == 1
                   ? catalog_complain(p->to, at, "must be a positive integer")
                   : catalog_complain(p->to, at, "must be at least %g", json_number_value(least));
    return above == NULL || n > json_number_value(above) ||
           catalog_complain(p->to, at, "must be above %g", json_number_value(above));
}

static bool text_fits(const struct place *p, const char *at, const json_t *schema, const json_t *v)
{
    if (json_object_get(schema, "minLength") != NULL && json_string_length(v) == 0)
        return catalog_complain(p->to, at, "must not be empty");
    return json_object_get(schema, "pattern") == NULL || json_string_value(v)[0] == '/' ||
           catalog_complain(p->to, at, "must begin with /");
}

static bool words_fit(const struct place *p, const char *at, const json_t *schema, const json_t *v)
{
    const json_t *words = json_object_get(schema, "enum"), *only = json_object_get(schema, "const");

    if (only != NULL && !json_equal(only, v))
        return catalog_complain(p->to, at, "must be %s", json_is_true(only) ? "true" : "false");
    for (size_t i = 0; i < json_array_size(words); i++) {
        if (json_equal(json_array_get(words, i), v))
            return true;
    }
    return words == NULL || catalog_complain(p->to, at, "\"%s\" is not a word that kiln knows",
                                             json_is_string(v) ? json_string_value(v) : "?");
}

static bool object_fits(const struct place *p, const char *at, const json_t *schema, const json_t *v)
{
    const json_t *known = json_object_get(schema, "properties"),
                 *others = json_object_get(schema, "additionalProperties");
    const json_t *required = json_object_get(schema, "required"), *most = json_object_get(schema, "maxProperties");
    char field[SCHEMA_FIELD];
    const char *name;
    json_t *value;

    json_object_foreach((json_t *)v, name, value)
    {
        const json_t *one = json_object_get(known, name);

        (void)snprintf(field, sizeof field, "%s%s%s", at, at[0] ? "." : "", name);
        if (one == NULL && json_is_false(others))
            return catalog_complain(p->to, field, "is not a member that kiln knows");
        if (!fits(p, field, one != NULL ? one : others, value))
            return false;
    }
    for (size_t i = 0; i < json_array_size(required); i++) {
        name = json_string_value(json_array_get(required, i));
        (void)snprintf(field, sizeof field, "%s%s%s", at, at[0] ? "." : "", name);
        if (json_object_get(v, name) == NULL)
            return catalog_complain(p->to, field, "is required");
    }
    if (json_object_get(schema, "minProperties") != NULL && json_object_size(v) == 0)
        return catalog_complain(p->to, at, "must not be empty");
    return most == NULL || json_object_size(v) <= (size_t)json_integer_value(most) ||
           catalog_complain(p->to, at, "has too many members");
}

static bool list_fits(const struct place *p, const char *at, const json_t *schema, const json_t *v)
{
    const json_t *items = json_object_get(schema, "items");
    char field[SCHEMA_FIELD];

    if (json_object_get(schema, "minItems") != NULL && json_array_size(v) == 0)
        return catalog_complain(p->to, at, "must be a list that is not empty");
    for (size_t i = 0; i < json_array_size(v); i++) {
        (void)snprintf(field, sizeof field, "%s[%zu]", at, i);
        if (!fits(p, field, items, json_array_get(v, i)))
            return false;
    }
    return true;
}

/* One that fits is enough. What is wrong with the one of the value's own type is the complaint. */
static bool choice_fits(const struct place *p, const char *at, const json_t *choices, const json_t *v)
{
    char nowhere[1] = "";
    const struct catalog_complaint silent = { nowhere, 0, "", "" };
    const struct place quiet = { &silent, p->defs, p->depth };
    const json_t *near = NULL;

    for (size_t i = 0; i < json_array_size(choices); i++) {
        const json_t *one = json_array_get(choices, i);
        const char *type = json_text(one, "type");

        if (fits(&quiet, at, one, v))
            return true;
        if (type != NULL && is_type(type, v))
            near = one;
    }
    return choices == NULL ||
           (near != NULL ? fits(p, at, near, v) : catalog_complain(p->to, at, "is not of a shape that kiln knows"));
}

static bool fits(const struct place *p, const char *at, const json_t *schema, const json_t *v)
{
    const char *ref = json_text(schema, "$ref");
    const struct place below = { p->to, p->defs, p->depth + 1 };

    if (!json_is_object(schema))
        return true; /* true, or nothing said */
    if (p->depth > SCHEMA_DEPTH)
        return catalog_complain(p->to, at, "is nested too deep");
    if (ref != NULL)
        return fits(&below, at, json_object_get(p->defs, ref + strlen("#/$defs/")), v);
    if (!type_fits(p, at, schema, v) || !words_fit(p, at, schema, v))
        return false;
    if ((json_is_object(v) && !object_fits(&below, at, schema, v)) ||
        (json_is_array(v) && !list_fits(&below, at, schema, v)) ||
        (json_is_number(v) && !number_fits(p, at, schema, v)) || (json_is_string(v) && !text_fits(p, at, schema, v)))
        return false;
    return choice_fits(&below, at, json_object_get(schema, "oneOf"), v) &&
           choice_fits(&below, at, json_object_get(schema, "anyOf"), v);
}

bool catalog_schema_fits(const struct catalog_complaint *to, const json_t *schema, const char *name, const json_t *doc)
{
    const json_t *defs = json_object_get(schema, "$defs");

    return fits(&(struct place){ to, defs, 0 }, "", json_object_get(defs, name), doc);
}
