/* catalog_params.c - what can be known of an operation's parameters before a job comes: their names as complaints call
 * them, and their defaults, typed. Each job would find out anew otherwise (measured: a third of accepting it). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/core/catalog_parts.h"

/* The rules that have a say in what this parameter is when it is not given. */
static bool late_fill(struct catalog_param *p, const json_t *rules)
{
    for (size_t i = 0; i < json_array_size(rules); i++) {
        const json_t *rule = json_array_get(rules, i), *c = json_object_get(json_object_get(rule, "then"), p->name);
        const json_t *fallback = json_object_get(c, "default");
        struct catalog_late *more;

        if (fallback == NULL && !json_bool(c, "absent", false))
            continue;
        more = realloc(p->late, (p->late_count + 1) * sizeof *more);
        if (more == NULL)
            return false;
        more[p->late_count++] =
            (struct catalog_late){ json_object_get(rule, "when"), json_is_null(fallback) ? NULL : fallback };
        p->late = more;
    }
    return true;
}

static bool param_fill(struct catalog_param *p, const char *name, const json_t *spec, const json_t *rules)
{
    struct catalog_faults faults;

    p->name = name;
    p->spec = spec;
    p->is_required = json_bool(spec, "required", false);
    p->is_file = catalog_is_file(spec);
    (void)snprintf(p->field, sizeof p->field, "params.%.80s", name);
    p->fallback = json_object_get(spec, "default");
    faults.count = 0;
    if (p->fallback != NULL)
        p->typed = catalog_value(spec, p->fallback, p->field, &faults); /* typed like a given one; NULL: each anew */
    if (p->is_file)
        p->input = (struct catalog_input){ .name = name,
                                           .is_required = p->is_required,
                                           .is_list = json_bool(spec, "list", false) };
    (void)json_int(spec, "max_bytes", &p->input.max_bytes); /* catalog_check.c saw to it */
    return late_fill(p, rules);
}

struct catalog_params *catalog_params_new(const json_t *doc)
{
    const json_t *specs = json_object_get(doc, "params"), *rules = json_object_get(doc, "rules");
    struct catalog_params *all = calloc(1, sizeof *all + json_object_size(specs) * sizeof all->items[0]);
    const char *name;
    json_t *spec;

    if (all == NULL)
        return NULL;
    all->rules = calloc(json_array_size(rules) + 1, sizeof all->rules[0]);
    if (all->rules == NULL) {
        catalog_params_free(all);
        return NULL;
    }
    for (; all->rule_count < json_array_size(rules); all->rule_count++) {
        const json_t *rule = json_array_get(rules, all->rule_count);

        all->rules[all->rule_count] =
            (struct catalog_rule){ json_object_get(rule, "when"), json_object_get(rule, "then"),
                                   json_object_get(rule, "any_of"), json_object_get(rule, "above") };
    }
    json_object_foreach((json_t *)specs, name, spec)
    {
        if (!param_fill(&all->items[all->count++], name, spec, rules)) {
            catalog_params_free(all);
            return NULL;
        }
    }
    return all;
}

void catalog_params_free(const struct catalog_params *all)
{
    for (size_t i = 0; all != NULL && i < all->count; i++) {
        json_decref(all->items[i].typed);
        free(all->items[i].late);
    }
    if (all != NULL)
        free(all->rules);
    free((struct catalog_params *)(uintptr_t)all);
}

const json_t *catalog_default(const struct catalog_param *p, const json_t *others)
{
    for (size_t i = 0; i < p->late_count; i++) {
        if (catalog_matches(p->late[i].when, others))
            return p->late[i].fallback;
    }
    return p->fallback;
}

/* Numbers and texts never change, and their counts are atomic, so that many jobs may have the same one. */
json_t *catalog_copy(const json_t *value)
{
    return json_is_object(value) || json_is_array(value) ? json_deep_copy(value)
                                                         : json_incref((json_t *)(uintptr_t)value);
}
