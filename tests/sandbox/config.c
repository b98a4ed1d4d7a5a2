/* config.c - the table of settings, merged from JSON and shown as JSON (see config.h). */
#include "config.h"
#include "text.h"

#include <stdio.h>
#include <string.h>

struct key {
    const char *name, *text;
    int64_t fallback, min, max;
    bool is_bool;
};

static const struct key keys[CFG_COUNT] = {
#define X(member, name_, fallback_, min_, max_, is_bool_, text_)                                                       \
    { .name = (name_), .fallback = (fallback_), .min = (min_), .max = (max_), .is_bool = (is_bool_), .text = (text_) },
    CONFIG_KEYS(X)
#undef X
};

void config_init(struct config *c)
{
    for (size_t i = 0; i < CFG_COUNT; i++)
        c->v[i] = keys[i].fallback;
}

static int config_find(const char *name)
{
    for (int i = 0; i < CFG_COUNT; i++)
        if (strcmp(keys[i].name, name) == 0)
            return i;
    return -1;
}

static bool config_set(struct config *c, const char *name, const json_t *value, char *why, size_t why_cap)
{
    int at = config_find(name);
    if (at < 0) {
        (void)snprintf(why, why_cap, "%s: no such setting", name);
        return false;
    }
    if (keys[at].is_bool ? !json_is_boolean(value) : !json_is_integer(value)) {
        (void)snprintf(why, why_cap, "%s: must be %s", name, keys[at].is_bool ? "true or false" : "an integer");
        return false;
    }
    int64_t v = keys[at].is_bool ? (int64_t)json_is_true(value) : (int64_t)json_integer_value(value);
    if (v < keys[at].min || v > keys[at].max) {
        (void)snprintf(why, why_cap, "%s: must lie between %lld and %lld", name, (long long)keys[at].min,
                       (long long)keys[at].max);
        return false;
    }
    c->v[at] = v;
    return true;
}

/* Stops at the first problem, unless `list` is given: then each is written there and counted. */
struct complaints {
    FILE *list;
    size_t count;
};

static bool config_complain(struct complaints *to, const char *why)
{
    to->count++;
    if (to->list == NULL)
        return false;
    (void)fprintf(to->list, "%s\n", why);
    return true;
}

static bool config_walk(struct config *c, const char *prefix, const json_t *node, char *why, size_t why_cap,
                        struct complaints *to)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)node, name, value)
    {
        char path[160];
        (void)snprintf(path, sizeof path, "%s%s%s", prefix, prefix[0] == '\0' ? "" : ".", name);
        if (json_is_object(value)) {
            if (!config_walk(c, path, value, why, why_cap, to))
                return false;
            continue;
        }
        char low[176], high[176];
        (void)snprintf(low, sizeof low, "%s.min", path);
        (void)snprintf(high, sizeof high, "%s.max", path);
        if (config_find(low) >= 0) {
            if ((!config_set(c, low, value, why, why_cap) || !config_set(c, high, value, why, why_cap)) &&
                !config_complain(to, why))
                return false;
        } else if (!config_set(c, path, value, why, why_cap) && !config_complain(to, why)) {
            return false;
        }
    }
    return true;
}

static bool config_apply(struct config *c, const json_t *patch, char *why, size_t why_cap, struct complaints *to)
{
    struct config next = *c;
    if (!json_is_object(patch)) {
        (void)snprintf(why, why_cap, "the configuration must be a JSON object");
        (void)config_complain(to, why);
        return false;
    }
    if (!config_walk(&next, "", patch, why, why_cap, to))
        return false;
    for (size_t i = 0; i + 1 < CFG_COUNT; i++) {
        bool is_pair = strstr(keys[i].name, ".min") != NULL && strstr(keys[i + 1].name, ".max") != NULL;
        if (is_pair && next.v[i] > next.v[i + 1]) {
            (void)snprintf(why, why_cap, "%s: greater than its max", keys[i].name);
            if (!config_complain(to, why))
                return false;
        }
    }
    if (to->count == 0)
        *c = next;
    return to->count == 0;
}

bool config_merge(struct config *c, const json_t *patch, char *why, size_t why_cap)
{
    struct complaints first = { .list = NULL };

    return config_apply(c, patch, why, why_cap, &first);
}

size_t config_check(const json_t *patch, FILE *to)
{
    struct complaints all = { .list = to };
    struct config scratch;
    char why[256];

    config_init(&scratch);
    (void)config_apply(&scratch, patch, why, sizeof why, &all);
    return all.count;
}

void config_help(FILE *to)
{
    for (size_t i = 0; i < CFG_COUNT; i++)
        (void)fprintf(to, "  %-30s %s (%s%lld)\n", keys[i].name, keys[i].text, keys[i].is_bool ? "0 or 1, " : "",
                      (long long)keys[i].fallback);
}

json_t *config_json(const struct config *c)
{
    json_t *root = json_object();
    for (size_t i = 0; i < CFG_COUNT; i++) {
        char path[160];
        (void)snprintf(path, sizeof path, "%s", keys[i].name);
        json_t *at = root;
        char *part = path;
        for (char *dot; (dot = strchr(part, '.')) != NULL; part = dot + 1) {
            *dot = '\0';
            json_t *kid = json_object_get(at, part);
            if (kid == NULL) {
                kid = json_object();
                (void)json_object_set_new(at, part, kid); /* fails only without memory, and then the answer lacks it */
            }
            at = kid;
        }
        json_t *value = keys[i].is_bool ? json_boolean(c->v[i] != 0) : json_integer(c->v[i]);
        (void)json_object_set_new(at, part, value); /* as above */
    }
    return root;
}
