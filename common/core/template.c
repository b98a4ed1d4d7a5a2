/* template.c - see template.h. Checking and filling walk the same texts with the same reader of places, so what passed
 * the check can be filled. */
#include "common/core/template.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/text.h"
#include "common/base/text_fold.h"

enum {
    FIELD_BYTES = 96,
    NAME_BYTES = 48,
    VARS_MAX = 32,
    VALUES_MAX = 500,
    PARTS_MAX = 64,
    TEXT_MAX = 4000, /* characters of a text variable */
    FILLED_BYTES = 64 << 10,
};

struct place { /* {name} or {name.member} */
    char name[NAME_BYTES], member[NAME_BYTES];
};

static bool is_name(const char *s)
{
    size_t len = strlen(s);

    return len > 0 && len < NAME_BYTES && strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789_") == len;
}

/* Reads the place at `*at`, which stands behind its '{'. False: malformed; true: *at stands behind the '}'. */
static bool read_place(const char **at, struct place *out)
{
    size_t len = strcspn(*at, "{}"), dot;

    if ((*at)[len] != '}' || len >= 2 * NAME_BYTES)
        return false;
    dot = (size_t)((const char *)memchr(*at, '.', len) != NULL ? (const char *)memchr(*at, '.', len) - *at
                                                               : (ptrdiff_t)len);
    if (dot >= NAME_BYTES || (dot < len && len - dot - 1 >= NAME_BYTES))
        return false;
    (void)snprintf(out->name, sizeof out->name, "%.*s", (int)dot, *at);
    (void)snprintf(out->member, sizeof out->member, "%.*s", dot < len ? (int)(len - dot - 1) : 0,
                   *at + dot + (dot < len));
    *at += len + 1;
    return is_name(out->name) && (dot == len || is_name(out->member));
}

static bool is_choice(const json_t *spec)
{
    const char *type = json_text(spec, "type");

    return type != NULL && strcmp(type, "choice") == 0;
}

/* ---- checking */

static void check_place(const json_t *vars, const struct place *p, const char *field, struct catalog_faults *faults)
{
    const json_t *spec = json_object_get(vars, p->name);
    const char *key;
    json_t *value;

    if (spec == NULL) {
        faults_add(faults, field, "has a place {%s}, but \"vars\" has no such variable", p->name);
    } else if (is_choice(spec) != (p->member[0] != '\0')) {
        faults_add(faults, field,
                   is_choice(spec) ? "must say which text of the choice it takes, such as {%s.text}"
                                   : "{%s} is a text; it has no members",
                   p->name);
    } else if (is_choice(spec)) {
        json_object_foreach(json_object_get(spec, "values"), key, value)
        {
            if (json_text(value, p->member) == NULL)
                faults_add(faults, field, "takes {%s.%s}, which the choice %s does not have", p->name, p->member, key);
        }
    }
}

static void check_text(const json_t *vars, const char *text, const char *field, struct catalog_faults *faults)
{
    while (*text != '\0') {
        struct place p;

        if ((text[0] == '{' && text[1] == '{') || (text[0] == '}' && text[1] == '}')) {
            text += 2;
        } else if (*text == '{') {
            text++;
            if (!read_place(&text, &p)) {
                faults_add(faults, field, "has a '{' that opens no {variable} or {choice.text}; a brace is written {{");
                return;
            }
            check_place(vars, &p, field, faults);
        } else if (*text == '}') {
            faults_add(faults, field, "has a '}' without its '{'; a brace is written }}");
            return;
        } else {
            text++;
        }
    }
}

static void check_texts(const json_t *doc, const char *field, bool is_required, struct catalog_faults *faults)
{
    const json_t *texts = json_object_get(doc, field), *vars = json_object_get(doc, "vars");

    if (texts == NULL && !is_required)
        return;
    if (json_is_string(texts)) {
        check_text(vars, json_string_value(texts), field, faults);
        return;
    }
    if (json_array_size(texts) < 1 || json_array_size(texts) > PARTS_MAX) {
        faults_add(faults, field, "must be a text or a list of 1 to %d texts", PARTS_MAX);
        return;
    }
    for (size_t i = 0; i < json_array_size(texts); i++) {
        const char *text = json_string_value(json_array_get(texts, i));

        if (text == NULL)
            faults_add(faults, field, "must hold texts only");
        else
            check_text(vars, text, field, faults);
    }
}

/* No name twice in a choice: folded, a key counts as a name too. */
static void check_names(const json_t *values, const char *field, struct catalog_faults *faults)
{
    json_t *seen = json_object();
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)(uintptr_t)values, key, value)
    {
        const json_t *names = json_object_get(value, "names");
        size_t count = json_array_size(names);

        for (size_t i = 0; i <= count; i++) {
            const char *name = i < count ? json_string_value(json_array_get(names, i)) : key;
            char *folded = name != NULL ? text_fold(name, strlen(name)) : NULL;
            const char *owner = folded != NULL ? json_text(seen, folded) : NULL;

            if (folded == NULL || folded[0] == '\0')
                faults_add(faults, field, "%s has a name that is no text", key);
            else if (owner != NULL && strcmp(owner, key) != 0)
                faults_add(faults, field, "%s and %s have the same name \"%s\"", owner, key, name);
            else
                (void)json_object_set_new(seen, folded, json_string(key));
            free(folded);
        }
    }
    json_decref(seen);
}

static void check_choice(const json_t *spec, const char *field, struct catalog_faults *faults)
{
    const json_t *values = json_object_get(spec, "values");
    const char *key, *member;
    json_t *value, *text;

    if (!json_is_object(values) || json_object_size(values) < 1 || json_object_size(values) > VALUES_MAX) {
        faults_add(faults, field, "must have \"values\": an object of 1 to %d choices", VALUES_MAX);
        return;
    }
    json_object_foreach((json_t *)(uintptr_t)values, key, value)
    {
        const json_t *names = json_object_get(value, "names");

        if (!is_name(key) || !json_is_object(value) || (names != NULL && !json_is_array(names))) {
            faults_add(faults, field,
                       "each choice is a name of a-z, 0-9, _ with an object of texts; \"names\" is a list");
            return;
        }
        json_object_foreach(value, member, text)
        {
            if (strcmp(member, "names") != 0 && (!is_name(member) || !json_is_string(text)))
                faults_add(faults, field, "%s.%.40s must be a text", key, member);
        }
    }
    check_names(values, field, faults);
    text = json_object_get(spec, "default");
    if (text != NULL && (!json_is_string(text) || json_object_get(values, json_string_value(text)) == NULL))
        faults_add(faults, field, "\"default\" must be the key of a choice");
}

static void check_var(const char *name, const json_t *spec, struct catalog_faults *faults)
{
    static const char *const known[] = { "type", "description", "required", "default", "max_length", "values" };
    const char *type = json_text(spec, "type"), *key;
    char field[FIELD_BYTES];
    json_t *value;
    int64_t max = TEXT_MAX;

    (void)snprintf(field, sizeof field, "vars.%.60s", name);
    if (!is_name(name) || type == NULL || (strcmp(type, "text") != 0 && strcmp(type, "choice") != 0)) {
        faults_add(faults, field, "must be named by a-z, 0-9, _ and have the \"type\" text or choice");
        return;
    }
    json_object_foreach((json_t *)(uintptr_t)spec, key, value)
    {
        bool found = false;

        for (size_t i = 0; i < ARRAY_LEN(known); i++)
            found = found || strcmp(known[i], key) == 0;
        if (!found)
            faults_add(faults, field, "%.40s is no member of a variable", key);
    }
    if (is_choice(spec)) {
        check_choice(spec, field, faults);
        return;
    }
    if (json_object_get(spec, "max_length") != NULL &&
        (!json_int(spec, "max_length", &max) || max < 1 || max > TEXT_MAX))
        faults_add(faults, field, "max_length must be an integer from 1 to %d", TEXT_MAX);
    value = json_object_get(spec, "default");
    if (value != NULL && !json_is_string(value))
        faults_add(faults, field, "default must be a text");
}

bool template_check(const json_t *doc, struct catalog_faults *faults)
{
    static const char *const known[] = { "description", "prompt", "negative_prompt", "vars" };
    const json_t *vars = json_object_get(doc, "vars"), *description = json_object_get(doc, "description");
    size_t before = faults->count;
    const char *key;
    json_t *value;

    if (!json_is_object(doc)) {
        faults_add(faults, "template", "must be an object");
        return false;
    }
    json_object_foreach((json_t *)(uintptr_t)doc, key, value)
    {
        bool found = false;

        for (size_t i = 0; i < ARRAY_LEN(known); i++)
            found = found || strcmp(known[i], key) == 0;
        if (!found)
            faults_add(faults, key, "is no member of a template");
    }
    if (description != NULL && !json_is_string(description))
        faults_add(faults, "description", "must be a text");
    if (vars != NULL && (!json_is_object(vars) || json_object_size(vars) > VARS_MAX)) {
        faults_add(faults, "vars", "must be an object of at most %d variables", VARS_MAX);
        return false;
    }
    json_object_foreach((json_t *)(uintptr_t)vars, key, value) check_var(key, value, faults);
    if (faults->count == before) { /* the places are judged by variables that are sound */
        check_texts(doc, "prompt", true, faults);
        check_texts(doc, "negative_prompt", false, faults);
    }
    return faults->count == before;
}

/* ---- filling */

/* The choice whose key or name this is; NULL: none. */
static const char *find_choice(const json_t *values, const char *word)
{
    char *wanted = text_fold(word, strlen(word));
    const char *key, *found = NULL;
    json_t *value;

    json_object_foreach((json_t *)(uintptr_t)values, key, value)
    {
        const json_t *names = json_object_get(value, "names");
        size_t count = json_array_size(names);

        for (size_t i = 0; wanted != NULL && found == NULL && i <= count; i++) {
            const char *name = i < count ? json_string_value(json_array_get(names, i)) : key;
            char *folded = text_fold(name, strlen(name));

            if (folded != NULL && strcmp(folded, wanted) == 0)
                found = key;
            free(folded);
        }
    }
    free(wanted);
    return found;
}

static void list_choices(char *out, size_t size, const json_t *values)
{
    size_t used = 0;
    const char *key;
    json_t *value;

    out[0] = '\0';
    json_object_foreach((json_t *)(uintptr_t)values, key, value)
    {
        int n;

        (void)value;
        if (used + strlen(key) + 8 > size) {
            (void)snprintf(out + used, size - used, ", …");
            return;
        }
        n = snprintf(out + used, size - used, "%s%s", used > 0 ? ", " : "", key);
        used += n > 0 ? (size_t)n : 0;
    }
}

/* One variable's value into `bound`: a text, or the object of the choice. */
static void bind(const char *name, const json_t *spec, const json_t *given, const char *at,
                 struct catalog_faults *faults, json_t *bound)
{
    const json_t *values = json_object_get(spec, "values");
    char field[FIELD_BYTES], list[180];
    const char *text, *key;
    int64_t max = TEXT_MAX;

    (void)snprintf(field, sizeof field, "%s.%s", at, name);
    if (json_is_null(given))
        given = NULL;
    if (given == NULL && json_bool(spec, "required", false)) {
        list_choices(list, sizeof list, values);
        faults_add(faults, field, is_choice(spec) ? "is missing; there are: %s" : "is missing%s", list);
        return;
    }
    if (given == NULL)
        given = json_object_get(spec, "default");
    if (given != NULL && !json_is_string(given)) {
        faults_add(faults, field, "must be a text");
        return;
    }
    text = given != NULL ? json_string_value(given) : "";
    if (is_choice(spec)) {
        key = given != NULL ? find_choice(values, text) : NULL;
        if (given != NULL && key == NULL) {
            list_choices(list, sizeof list, values);
            faults_add(faults, field, "is none of: %s", list);
        } else if (key != NULL) {
            (void)json_object_set(bound, name, json_object_get(values, key));
        }
        return;
    }
    (void)json_int(spec, "max_length", &max);
    if (utf8_length(text, strlen(text)) > (size_t)max)
        faults_add(faults, field, "must have at most %lld characters, has %zu", (long long)max,
                   utf8_length(text, strlen(text)));
    else
        (void)json_object_set_new(bound, name, json_string(text));
}

/* One text filled in; *is_empty: it has places, and nothing came for any of them. */
static void fill(struct buf *out, const char *text, const json_t *bound, bool *is_empty)
{
    size_t places = 0, filled = 0;

    while (*text != '\0') {
        struct place p;

        if ((text[0] == '{' && text[1] == '{') || (text[0] == '}' && text[1] == '}')) {
            (void)buf_add(out, text, 1);
            text += 2;
        } else if (*text == '{') {
            const json_t *value;
            const char *got;

            text++;
            if (!read_place(&text, &p))
                break; /* checked: cannot be */
            value = json_object_get(bound, p.name);
            got = p.member[0] != '\0' ? json_text(value, p.member) : json_string_value(value);
            places++;
            filled += got != NULL && got[0] != '\0';
            (void)buf_str(out, got != NULL ? got : "");
        } else {
            (void)buf_add(out, text++, 1);
        }
    }
    *is_empty = places > 0 && filled == 0;
}

/* New text; NULL: out of memory or too long. */
static char *fill_all(const json_t *texts, const json_t *bound)
{
    struct buf out = { .ceiling = FILLED_BYTES };
    size_t count = json_is_string(texts) ? 1 : json_array_size(texts);

    (void)buf_str(&out, "");
    for (size_t i = 0; i < count; i++) {
        const json_t *text = json_is_string(texts) ? texts : json_array_get(texts, i);
        struct buf one = { .ceiling = FILLED_BYTES };
        bool is_empty = false;

        (void)buf_str(&one, "");
        fill(&one, json_string_value(text), bound, &is_empty);
        if (one.is_full)
            out.is_full = true;
        else if (!is_empty && one.len > 0)
            (void)buf_printf(&out, "%s%s", out.len > 0 ? ", " : "", one.data);
        buf_done(&one);
    }
    if (out.is_full) {
        buf_done(&out);
        return NULL;
    }
    return buf_take(&out);
}

bool template_expand(const json_t *doc, const json_t *vars, const char *at, struct catalog_faults *faults,
                     char **prompt, char **negative)
{
    const json_t *specs = json_object_get(doc, "vars");
    size_t before = faults->count;
    json_t *bound = json_object(), *spec;
    char field[FIELD_BYTES];
    const char *name;

    *prompt = *negative = NULL;
    if (vars != NULL && !json_is_object(vars)) {
        faults_add(faults, at, "must be an object");
        goto out;
    }
    json_object_foreach((json_t *)(uintptr_t)vars, name, spec)
    {
        if (json_object_get(specs, name) == NULL) {
            (void)snprintf(field, sizeof field, "%s.%.60s", at, name);
            faults_add(faults, field, "is no variable of this template");
        }
    }
    json_object_foreach((json_t *)(uintptr_t)specs, name, spec)
        bind(name, spec, json_object_get(vars, name), at, faults, bound);
    if (faults->count != before)
        goto out;
    *prompt = fill_all(json_object_get(doc, "prompt"), bound);
    if (json_object_get(doc, "negative_prompt") != NULL)
        *negative = fill_all(json_object_get(doc, "negative_prompt"), bound);
    if (*prompt == NULL || (*negative == NULL && json_object_get(doc, "negative_prompt") != NULL))
        faults_add(faults, at, "make a prompt of more than %d bytes", FILLED_BYTES);
out:
    json_decref(bound);
    if (faults->count == before)
        return true;
    free(*prompt);
    free(*negative);
    *prompt = *negative = NULL;
    return false;
}

/* ---- showing */

static json_t *describe_var(const json_t *spec)
{
    json_t *out = json_pack("{s:s}", "type", "string"), *choices;
    const char *key;
    json_t *value;
    int64_t max = TEXT_MAX;

    if (json_object_get(spec, "description") != NULL)
        (void)json_object_set(out, "description", json_object_get(spec, "description"));
    if (json_object_get(spec, "default") != NULL)
        (void)json_object_set(out, "default", json_object_get(spec, "default"));
    if (!is_choice(spec)) {
        (void)json_int(spec, "max_length", &max);
        (void)json_object_set_new(out, "maxLength", json_integer(max));
        return out;
    }
    choices = json_array();
    json_object_foreach(json_object_get(spec, "values"), key, value)
    {
        json_t *names = json_object_get(value, "names");

        (void)json_array_append_new(
            choices, json_pack("{s:s, s:o}", "name", key, "names", names != NULL ? json_incref(names) : json_array()));
    }
    (void)json_object_set_new(out, "choices", choices);
    return out;
}

json_t *template_describe(const char *name, const json_t *doc)
{
    json_t *properties = json_object(), *required = json_array(), *spec;
    const char *key, *description = json_text(doc, "description");

    json_object_foreach(json_object_get(doc, "vars"), key, spec)
    {
        (void)json_object_set_new(properties, key, describe_var(spec));
        if (json_bool(spec, "required", false))
            (void)json_array_append_new(required, json_string(key));
    }
    return json_pack("{s:s, s:s, s:s, s:b, s:{s:s, s:o, s:o, s:b}}", "name", name, "object", "template", "description",
                     description != NULL ? description : "", "has_negative_prompt",
                     json_object_get(doc, "negative_prompt") != NULL, "vars", "type", "object", "properties",
                     properties, "required", required, "additionalProperties", 0);
}
