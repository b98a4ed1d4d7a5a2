/* catalog_templates.c - files of the catalogue that hold prompt templates (template.h) or routes (catalog_route.h)
 * instead of a provider: {"templates": {NAME: …}, "routes": {NAME: …}, "shared": {NAME: …}}, where a variable of a
 * template and a parameter of a route may say {"like": NAME}. */
#include <stdio.h>
#include <string.h>
#include "common/base/text.h"
#include "common/core/catalog_parts.h"
#include "common/core/template.h"

enum err catalog_resolve_likes(const struct catalog_complaint *to, const json_t *shared, json_t *params)
{
    const char *name;
    json_t *spec;
    void *next;

    json_object_foreach_safe(params, next, name, spec)
    {
        json_t *like = json_object_get(spec, "like");
        const json_t *base = json_object_get(shared, json_is_string(like) ? json_string_value(like) : "");
        json_t *whole;

        if (like == NULL)
            continue;
        if (!json_is_object(base)) {
            (void)catalog_complain(to, name, "\"like\" must name a member of \"shared\"");
            return ERR_ARGUMENT;
        }
        whole = json_deep_copy(base);
        if (whole == NULL || json_object_update(whole, spec) != 0) {
            json_decref(whole);
            return ERR_NOMEM;
        }
        (void)json_object_del(whole, "like");
        if (json_object_set_new(params, name, whole) != 0)
            return ERR_NOMEM;
    }
    return ERR_OK;
}

static enum err lay_template(struct catalog_complaint *to, const char *name, json_t *template, const json_t *shared,
                             json_t *into)
{
    struct catalog_faults faults = { 0 };
    enum err e;

    to->where = name;
    if (json_is_null(template)) {
        (void)json_object_del(into, name); /* absent already: as wanted */
        return ERR_OK;
    }
    e = catalog_resolve_likes(to, shared, json_object_get(template, "vars"));
    if (e != ERR_OK)
        return e;
    if (!template_check(template, &faults)) {
        (void)catalog_complain(to, faults.items[0].field, "%s", faults.items[0].message);
        return ERR_ARGUMENT;
    }
    return json_object_set(into, name, template) == 0 ? ERR_OK : ERR_NOMEM;
}

static enum err lay_route(struct catalog_complaint *to, const char *name, json_t *route, const json_t *shared,
                          json_t *into)
{
    to->where = name;
    if (json_is_null(route)) {
        (void)json_object_del(into, name); /* absent already: as wanted */
        return ERR_OK;
    }
    if (!json_is_object(route)) {
        (void)catalog_complain(to, "", "must be an object");
        return ERR_ARGUMENT;
    }
    if (catalog_resolve_likes(to, shared, json_object_get(route, "params")) != ERR_OK)
        return ERR_ARGUMENT;
    return json_object_set(into, name, route) == 0 ? ERR_OK : ERR_NOMEM;
}

enum err catalog_lay_shared(struct catalog_complaint *to, json_t *doc, const char *file, json_t *templates,
                            json_t *routes, json_t *origins)
{
    static const char *const members[] = { "templates", "routes", "shared", "source" };
    const json_t *shared = json_object_get(doc, "shared");
    const char *key;
    json_t *value;
    enum err e = ERR_OK;

    to->where = "file";
    json_object_foreach(doc, key, value)
    {
        bool is_known = false;

        for (size_t i = 0; i < ARRAY_LEN(members); i++)
            is_known = is_known || strcmp(key, members[i]) == 0;
        if (!is_known || (strcmp(key, "source") != 0 && !json_is_object(value))) {
            (void)catalog_complain(to, key, is_known ? "must be an object" : "is no member of such a file");
            e = ERR_ARGUMENT;
        }
    }
    json_object_foreach(json_object_get(doc, "templates"), key, value)
    {
        if (e == ERR_OK)
            e = lay_template(to, key, value, shared, templates);
    }
    json_object_foreach(json_object_get(doc, "routes"), key, value)
    {
        if (e == ERR_OK)
            e = lay_route(to, key, value, shared, routes);
        if (e == ERR_OK && json_object_set_new(origins, key, json_string(file)) != 0)
            e = ERR_NOMEM;
    }
    to->where = "file"; /* the name goes now */
    json_decref(doc);
    return e;
}
