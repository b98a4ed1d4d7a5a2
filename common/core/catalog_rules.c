/* catalog_rules.c - a customer's parameters against the catalogue: types, ranges, rules between parameters, defaults.
 *
 * Everything here is driven by the operation's "params" (each one's own limits) and "rules" ("when" some parameters
 * have these values, "then" others must be so). A field gets at most one fault, in words a person can act on. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/text.h"
#include "common/core/catalog_parts.h"

static bool has_fault(const struct catalog_faults *faults, const char *field)
{
    for (size_t i = 0; i < faults->count && i < ARRAY_LEN(faults->items); i++) {
        if (strcmp(faults->items[i].field, field) == 0)
            return true;
    }
    return false;
}

static void complain(struct catalog_faults *faults, const char *field, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static void complain(struct catalog_faults *faults, const char *field, const char *fmt, ...)
{
    va_list args;

    if (faults->count < ARRAY_LEN(faults->items)) {
        struct catalog_fault *f = &faults->items[faults->count];
        size_t len;

        (void)snprintf(f->field, sizeof f->field, "%s", field);
        text_plain(f->field); /* the customer's own name, perhaps; and cut */
        va_start(args, fmt);
        (void)vsnprintf(f->message, sizeof f->message, fmt, args);
        va_end(args);
        len = strlen(f->message);
        while (len > 0 && !utf8_valid(f->message, len))
            f->message[--len] = '\0'; /* the cut may have met the middle of a character */
    }
    faults->count++;
}

/* ---- conditions */

static bool same(const json_t *a, const json_t *b)
{
    if (json_is_number(a) && json_is_number(b))
        return fabs(json_number_value(a) - json_number_value(b)) < 1e-9;
    return json_equal(a, b) != 0;
}

static bool in_list(const json_t *list, const json_t *value)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        if (same(json_array_get(list, i), value))
            return true;
    }
    return false;
}

static bool says(const json_t *m, const json_t *v) /* more than which values it may have */
{
    const json_t *present = json_object_get(m, "present"), *above, *not ;

    if (present != NULL)
        return json_is_true(present) == (v != NULL);
    above = json_object_get(m, "above");
    if (above != NULL)
        return json_is_number(v) && json_number_value(v) > json_number_value(above);
    not = json_object_get(m, "not");
    return not != NULL ? v == NULL || !in_list(not, v) : v != NULL && same(m, v);
}

bool catalog_matches(const json_t *when, const json_t *params)
{
    const char *name;
    json_t *m;

    json_object_foreach((json_t *)when, name, m)
    {
        const json_t *v = json_object_get(params, name);
        bool holds;

        if (json_is_object(m))
            holds = says(m, v);
        else
            holds = v != NULL && (json_is_array(m) ? in_list(m, v) : same(m, v));
        if (!holds)
            return false;
    }
    return true;
}

bool catalog_size_parse(const char *text, int64_t *width, int64_t *height)
{
    const char *x = text != NULL ? strchr(text, 'x') : NULL;
    char w[8];

    if (x == NULL || x - text > 6 || text[0] == '0' || x[1] == '0' ||
        strspn(text, "0123456789") != (size_t)(x - text) || strspn(x + 1, "0123456789") != strlen(x + 1))
        return false;
    memcpy(w, text, (size_t)(x - text));
    w[x - text] = '\0';
    return parse_i64(w, 1, 999999, width) == ERR_OK && parse_i64(x + 1, 1, 999999, height) == ERR_OK;
}

bool catalog_is_file(const json_t *spec)
{
    const char *type = json_text(spec, "type");

    return type != NULL && strcmp(type, "file") == 0;
}

/* ---- one value against its own spec */

static bool check_range(const json_t *spec, const json_t *value, const char *field, const char *tail,
                        struct catalog_faults *faults)
{
    const json_t *min = json_object_get(spec, "min"), *max = json_object_get(spec, "max");
    const json_t *step = json_object_get(spec, "multiple_of");
    char low[CATALOG_GOT_BYTES], high[CATALOG_GOT_BYTES], got[CATALOG_GOT_BYTES];
    double v = json_number_value(value);
    bool is_outside = (min != NULL && v < json_number_value(min)) || (max != NULL && v > json_number_value(max));

    if (!is_outside && (step == NULL || json_integer_value(value) % json_integer_value(step) == 0))
        return true;
    catalog_value_text(got, sizeof got, value);
    catalog_value_text(low, sizeof low, min);
    catalog_value_text(high, sizeof high, max);
    if (is_outside) {
        if (min != NULL && max != NULL)
            complain(faults, field, "must be between %s and %s%s, got %s", low, high, tail, got);
        else
            complain(faults, field, "must be at %s %s%s, got %s", min != NULL ? "least" : "most",
                     min != NULL ? low : high, tail, got);
        return false;
    }
    complain(faults, field, "must be a multiple of %lld, got %s", (long long)json_integer_value(step), got);
    return false;
}

static bool check_values(const json_t *spec, const json_t *value, const char *field, const char *tail,
                         struct catalog_faults *faults)
{
    const json_t *values = json_object_get(spec, "values");
    char got[CATALOG_GOT_BYTES], list[CATALOG_LIST_BYTES];

    if (values == NULL || in_list(values, value))
        return true;
    catalog_value_text(got, sizeof got, value);
    catalog_list_text(list, sizeof list, values);
    if (json_array_size(values) == 1)
        complain(faults, field, "must be %s%s, got %s", list, tail, got);
    else
        complain(faults, field, "must be one of %s%s, got %s", list, tail, got);
    return false;
}

static bool check_length(const json_t *spec, const json_t *value, const char *field, const char *tail,
                         struct catalog_faults *faults)
{
    int64_t length = (int64_t)utf8_length(json_string_value(value), json_string_length(value));
    int64_t min = 0, max = INT64_MAX;

    (void)json_int(spec, "min_length", &min); /* absent: no limit */
    (void)json_int(spec, "max_length", &max);
    if (length < min && length == 0)
        complain(faults, field, "must not be empty");
    else if (length < min)
        complain(faults, field, "must have at least %lld characters, got %lld", (long long)min, (long long)length);
    else if (length > max)
        complain(faults, field, "must have at most %lld characters%s, got %lld", (long long)max, tail,
                 (long long)length);
    else
        return true;
    return false;
}

static json_t *wrong(struct catalog_faults *faults, const char *field, const char *what, const json_t *value)
{
    char got[CATALOG_GOT_BYTES];

    catalog_value_text(got, sizeof got, value);
    complain(faults, field, "must be %s, got %s", what, got);
    return NULL;
}

static json_t *number_value(const json_t *spec, const json_t *value, const char *field, bool is_integer,
                            struct catalog_faults *faults)
{
    double v = json_number_value(value);

    if (!json_is_number(value))
        return wrong(faults, field, is_integer ? "an integer" : "a number", value);
    if (is_integer && !json_is_integer(value) && (floor(v) < v || fabs(v) > 9e15))
        return wrong(faults, field, "an integer", value);
    if (!check_range(spec, value, field, "", faults) || !check_values(spec, value, field, "", faults))
        return NULL;
    if (is_integer)
        return json_integer(json_is_integer(value) ? json_integer_value(value) : (json_int_t)v);
    return json_real(v);
}

static json_t *file_text(const json_t *value, const char *field, struct catalog_faults *faults)
{
    const char *s = json_string_value(value);

    if (s != NULL &&
        (uuid_valid(s) || strncmp(s, "data:", 5) == 0 || strncmp(s, "http:", 5) == 0 || strncmp(s, "https:", 6) == 0))
        return json_string(s);
    return wrong(faults, field, "the id of an upload or an artifact, a data: URI, or an http: or https: URL", value);
}

static json_t *list_value(const json_t *spec, const json_t *value, const char *field, struct catalog_faults *faults)
{
    const json_t *items = json_object_get(spec, "items");
    int64_t max = 1000; /* a bound where the page gives none */
    json_t *out;

    (void)json_int(spec, "max_items", &max);              /* absent: the bound */
    if (catalog_is_file(spec) && json_is_string(value)) { /* one file is a list of one */
        json_t *one = file_text(value, field, faults);

        return one != NULL ? json_pack("[o]", one) : NULL;
    }
    if (!json_is_array(value))
        return wrong(faults, field, "a list", value);
    if (json_array_size(value) > (size_t)max) {
        complain(faults, field, "must have at most %lld items, got %zu", (long long)max, json_array_size(value));
        return NULL;
    }
    out = json_array();
    for (size_t i = 0; out != NULL && i < json_array_size(value); i++) {
        const json_t *one = json_array_get(value, i);
        char at[96];
        json_t *fine;

        (void)snprintf(at, sizeof at, "%.70s[%zu]", field, i);
        if (catalog_is_file(spec))
            fine = file_text(one, at, faults);
        else
            fine = items != NULL ? catalog_value(items, one, at, faults) : json_deep_copy(one);
        if (fine == NULL || json_array_append_new(out, fine) != 0) {
            json_decref(out);
            return NULL;
        }
    }
    return out;
}

static bool add_field(json_t *out, const json_t *spec, const json_t *value, const char *name, const char *field,
                      struct catalog_faults *faults)
{
    char at[96];
    json_t *fine;

    (void)snprintf(at, sizeof at, "%.48s.%.40s", field, name);
    if (value == NULL || json_is_null(value)) {
        if (!json_bool(spec, "required", false))
            return true;
        complain(faults, at, "is required");
        return false;
    }
    fine = catalog_value(spec, value, at, faults);
    return fine != NULL && json_object_set_new(out, name, fine) == 0;
}

static bool has_none_of(const json_t *names, const json_t *value, const char *field, struct catalog_faults *faults)
{
    bool is_fine = true;

    for (size_t i = 0; i < json_array_size(names); i++) {
        const char *name = json_string_value(json_array_get(names, i));
        char at[96];

        if (json_object_get(value, name) == NULL)
            continue;
        (void)snprintf(at, sizeof at, "%.48s.%.40s", field, name);
        complain(faults, at, "is a parameter of its own: params.%s", name);
        is_fine = false;
    }
    return is_fine;
}

static json_t *object_value(const json_t *spec, const json_t *value, const char *field, struct catalog_faults *faults)
{
    const json_t *fields = json_object_get(spec, "fields");
    const char *name;
    json_t *out, *one;
    bool is_fine = true;

    if (!json_is_object(value))
        return wrong(faults, field, "an object", value);
    if (fields == NULL)
        return has_none_of(json_object_get(spec, "without"), value, field, faults) ? json_deep_copy(value) : NULL;
    out = json_object();
    if (out == NULL)
        return NULL;
    json_object_foreach((json_t *)value, name, one)
    {
        char at[96];

        (void)snprintf(at, sizeof at, "%.48s.%.40s", field, name);
        if (json_object_get(fields, name) == NULL) {
            complain(faults, at, "is not a member of this parameter");
            is_fine = false;
        }
    }
    json_object_foreach((json_t *)fields, name, one) is_fine &=
        add_field(out, one, json_object_get(value, name), name, field, faults);
    if (is_fine)
        return out;
    json_decref(out);
    return NULL;
}

json_t *catalog_value(const json_t *spec, const json_t *value, const char *field, struct catalog_faults *faults)
{
    const char *type = json_text(spec, "type");

    if (strcmp(type, "integer") == 0 || strcmp(type, "number") == 0)
        return number_value(spec, value, field, type[0] == 'i', faults);
    if (strcmp(type, "boolean") == 0)
        return json_is_boolean(value) ? json_boolean(json_is_true(value))
                                      : wrong(faults, field, "true or false", value);
    if (strcmp(type, "array") == 0 || (catalog_is_file(spec) && json_bool(spec, "list", false)))
        return list_value(spec, value, field, faults);
    if (strcmp(type, "object") == 0)
        return object_value(spec, value, field, faults);
    if (catalog_is_file(spec))
        return file_text(value, field, faults);
    if (!json_is_string(value))
        return wrong(faults, field, "a text", value);
    if (strcmp(type, "uuid") == 0 && !uuid_valid(json_string_value(value)))
        return wrong(faults, field, "a UUID", value);
    if (!check_length(spec, value, field, "", faults) || !check_values(spec, value, field, "", faults))
        return NULL;
    return json_stringn(json_string_value(value), json_string_length(value));
}

/* ---- rules between parameters */

static bool check_dimensions(const json_t *d, const json_t *value, const char *field, const char *tail,
                             struct catalog_faults *faults)
{
    char got[CATALOG_GOT_BYTES], also[CATALOG_LIST_BYTES];
    int64_t w, h, step = 1, side = 0, min = 0, max = 0;
    double ratio = json_number_value(json_object_get(d, "max_ratio"));
    bool is_size;

    if (in_list(json_object_get(d, "or"), value))
        return true;
    (void)json_int(d, "multiple_of", &step); /* catalog_check.c saw to them */
    (void)json_int(d, "max_side", &side);
    (void)json_int(d, "min_pixels", &min);
    (void)json_int(d, "max_pixels", &max);
    is_size = catalog_size_parse(json_string_value(value), &w, &h);
    if (is_size && w % step == 0 && h % step == 0 && w <= side && h <= side && (double)w <= ratio * (double)h &&
        (double)h <= ratio * (double)w && w * h >= min && w * h <= max)
        return true;
    catalog_value_text(got, sizeof got, value);
    catalog_list_text(also, sizeof also, json_object_get(d, "or"));
    if (!is_size)
        complain(faults, field, "must be WIDTHxHEIGHT%s%s%s, got %s", also[0] != '\0' ? " or one of " : "", also, tail,
                 got);
    else if (w % step != 0 || h % step != 0)
        complain(faults, field, "must have sides that are multiples of %lld%s, got %s", (long long)step, tail, got);
    else if (w > side || h > side)
        complain(faults, field, "must have sides of at most %lld pixels%s, got %s", (long long)side, tail, got);
    else if ((double)w > ratio * (double)h || (double)h > ratio * (double)w)
        complain(faults, field, "must have a ratio between 1:%g and %g:1%s, got %s", ratio, ratio, tail, got);
    else
        complain(faults, field, "must have between %lld and %lld pixels%s, got %s", (long long)min, (long long)max,
                 tail, got);
    return false;
}

static bool check_items(const json_t *constraint, const json_t *value, const char *field, const char *tail,
                        struct catalog_faults *faults)
{
    int64_t min = 0, max = INT64_MAX, count = (int64_t)json_array_size(value);

    (void)json_int(constraint, "min_items", &min); /* absent: no limit */
    (void)json_int(constraint, "max_items", &max);
    if (count >= min && count <= max)
        return true;
    complain(faults, field, "must have at %s %lld item%s%s, got %lld", count < min ? "least" : "most",
             (long long)(count < min ? min : max), (count < min ? min : max) == 1 ? "" : "s", tail, (long long)count);
    return false;
}

static void apply_constraint(const json_t *constraint, const json_t *value, bool was_given, const char *field,
                             const char *tail, struct catalog_faults *faults)
{
    const json_t *d = json_object_get(constraint, "dimensions");

    if (value == NULL) {
        if (!was_given && json_bool(constraint, "required", false))
            complain(faults, field, "is required%s", tail);
        return;
    }
    if (json_bool(constraint, "absent", false)) {
        complain(faults, field, "is not taken%s", tail);
        return;
    }
    if (d != NULL && !check_dimensions(d, value, field, tail, faults))
        return;
    if (json_is_array(value) && !check_items(constraint, value, field, tail, faults))
        return;
    if (json_is_number(value) && !check_range(constraint, value, field, tail, faults))
        return;
    if (!check_values(constraint, value, field, tail, faults))
        return;
    if (json_is_string(value))
        (void)check_length(constraint, value, field, tail, faults); /* a fault is in `faults` */
}

static bool has_any_of(const struct catalog_rule *rule, const json_t *params)
{
    for (size_t i = 0; i < json_array_size(rule->any_of); i++) {
        const json_t *v = json_object_get(params, json_string_value(json_array_get(rule->any_of, i)));

        if (v != NULL && (rule->above == NULL || json_number_value(v) > json_number_value(rule->above)))
            return true;
    }
    return json_array_size(rule->any_of) == 0;
}

static void complain_any_of(const struct catalog_rule *rule, const char *tail, struct catalog_faults *faults)
{
    char list[CATALOG_LIST_BYTES], least[CATALOG_GOT_BYTES + 8] = "", number[CATALOG_GOT_BYTES];

    catalog_list_text(list, sizeof list, rule->any_of);
    if (rule->above != NULL) {
        catalog_value_text(number, sizeof number, rule->above);
        (void)snprintf(least, sizeof least, " above %s", number);
    }
    complain(faults, "params", "needs at least one of %s%s%s", list, least, tail);
}

/* " with model \"dall-e-3\"": why a rule holds. */
static void tail_text(char tail[220], const json_t *when, const json_t *out)
{
    char text[200];

    catalog_when_text(text, sizeof text, when, out);
    (void)snprintf(tail, 220, "%s%s", text[0] ? " with " : "", text);
}

/* The words for a fault are made only when there is one: first it is looked whether the constraint holds. */
static void apply_rules(const struct catalog_params *all, const json_t *given, const json_t *out,
                        struct catalog_faults *faults)
{
    for (const struct catalog_rule *rule = all->rules; rule < all->rules + all->rule_count; rule++) {
        const char *name;
        json_t *constraint;
        char field[96], tail[220];

        if (!catalog_matches(rule->when, out))
            continue;
        json_object_foreach((json_t *)(uintptr_t)rule->then, name, constraint)
        {
            const json_t *was = json_object_get(given, name), *value = json_object_get(out, name);
            bool was_given = was != NULL && !json_is_null(was);
            struct catalog_faults found;

            found.count = 0;
            apply_constraint(constraint, value, was_given, "", "", &found);
            if (found.count == 0)
                continue;
            (void)snprintf(field, sizeof field, "params.%.80s", name);
            tail_text(tail, rule->when, out);
            if (!has_fault(faults, field))
                apply_constraint(constraint, value, was_given, field, tail, faults);
        }
        if (!has_any_of(rule, out)) {
            tail_text(tail, rule->when, out);
            complain_any_of(rule, tail, faults);
        }
    }
}

/* ---- all of it */

static const struct catalog_param *param_find(const struct catalog_params *all, const char *name)
{
    for (size_t i = 0; i < all->count; i++) {
        if (strcmp(all->items[i].name, name) == 0)
            return &all->items[i];
    }
    return NULL;
}

/* What was given, by its place in the operation's list: 64 bits for the first of them. */
static bool is_given(uint64_t marks, const json_t *given, const struct catalog_params *all, size_t i)
{
    const json_t *value = i < 64 ? NULL : json_object_get(given, all->items[i].name);

    return i < 64 ? (marks >> i & 1) != 0 : value != NULL && !json_is_null(value);
}

static bool take_given(const struct operation *op, const json_t *given, json_t *out, uint64_t *marks,
                       struct catalog_faults *faults)
{
    const char *name;
    json_t *value;

    json_object_foreach((json_t *)given, name, value)
    {
        const struct catalog_param *param = param_find(op->params, name);
        json_t *fine;

        if (param == NULL) {
            catalog_unknown_param(json_object_get(op->doc, "params"), name, faults);
            continue;
        }
        if (json_is_null(value))
            continue; /* null means: the default */
        if (param - op->params->items < 64)
            *marks |= UINT64_C(1) << (param - op->params->items);
        fine = catalog_value(param->spec, value, param->field, faults);
        if (fine != NULL && json_object_set_new(out, name, fine) != 0)
            return false;
        if (fine == NULL && faults->count == 0)
            return false; /* out of memory */
    }
    return true;
}

static bool fill_defaults(const struct operation *op, const json_t *given, uint64_t marks, json_t *out,
                          struct catalog_faults *faults)
{
    for (size_t i = 0; i < op->params->count; i++) {
        const struct catalog_param *p = &op->params->items[i];
        const json_t *fallback;
        json_t *fine;

        if (is_given(marks, given, op->params, i))
            continue;
        if (p->is_required)
            complain(faults, p->field, "is required");
        fallback = catalog_default(p, out);
        if (fallback == NULL)
            continue;
        if (fallback == p->fallback && p->typed != NULL)
            fine = catalog_copy(p->typed);
        else
            fine = catalog_value(p->spec, fallback, p->field, faults);
        if (fine == NULL || json_object_set_new(out, p->name, fine) != 0)
            return false;
    }
    return true;
}

json_t *catalog_validate(const struct operation *op, const json_t *params, struct catalog_faults *faults)
{
    json_t *out = json_object();
    uint64_t marks = 0;

    faults->count = 0;
    if (params != NULL && !json_is_null(params) && !json_is_object(params)) {
        (void)wrong(faults, "params", "an object", params); /* always NULL */
    } else if (out == NULL || !take_given(op, params, out, &marks, faults) ||
               !fill_defaults(op, params, marks, out, faults)) {
        if (faults->count == 0)
            complain(faults, "params", "could not be checked: out of memory");
    } else {
        apply_rules(op->params, params, out, faults);
    }
    if (faults->count == 0)
        return out;
    json_decref(out);
    return NULL;
}
