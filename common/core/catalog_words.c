/* catalog_words.c - values, lists and conditions of the catalogue as a person reads them in a message, and the
 * messages. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/base/small.h"
#include "common/base/text.h"
#include "common/core/catalog_parts.h"

/* A value as JSON, short enough for a message and without control characters (JSON escapes those). */
void catalog_value_text(char *out, size_t size, const json_t *v)
{
    char *text = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(15));
    size_t len = text != NULL ? strlen(text) : 0, keep;

    keep = text != NULL ? utf8_cut(text, len, size > 5 ? size - 5 : 0) : 0;
    (void)snprintf(out, size, "%.*s%s", (int)keep, text != NULL ? text : "", keep < len ? "…" : "");
    small_free(text);
}

void catalog_list_text(char *out, size_t size, const json_t *values)
{
    size_t used = 0;

    out[0] = '\0';
    for (size_t i = 0; i < json_array_size(values); i++) {
        const json_t *v = json_array_get(values, i);
        char one[CATALOG_GOT_BYTES];

        if (json_is_string(v))
            (void)snprintf(one, sizeof one, "%s", json_string_value(v));
        else
            catalog_value_text(one, sizeof one, v);
        if (used + strlen(one) + 8 > size) {
            (void)snprintf(out + used, size - used, ", …");
            return;
        }
        used += (size_t)snprintf(out + used, size - used, "%s%s", i > 0 ? ", " : "", one);
    }
}

static void matcher_text(char *out, size_t size, const char *name, const json_t *matcher, const json_t *actual)
{
    const json_t *above = json_object_get(matcher, "above"), *present = json_object_get(matcher, "present");
    const json_t *not = json_object_get(matcher, "not");
    char text[CATALOG_LIST_BYTES];

    if (present != NULL) {
        (void)snprintf(out, size, "%s%s", json_is_true(present) ? "" : "no ", name);
    } else if (above != NULL) {
        catalog_value_text(text, sizeof text, above);
        (void)snprintf(out, size, "%s above %s", name, text);
    } else if (not != NULL && actual == NULL) {
        catalog_list_text(text, sizeof text, not );
        (void)snprintf(out, size, "%s other than %s", name, text);
    } else if (actual != NULL) {
        catalog_value_text(text, sizeof text, actual);
        (void)snprintf(out, size, "%s %s", name, text);
    } else if (json_is_array(matcher)) {
        catalog_list_text(text, sizeof text, matcher);
        (void)snprintf(out, size, "%s %s", name, text);
    } else {
        catalog_value_text(text, sizeof text, matcher);
        (void)snprintf(out, size, "%s %s", name, text);
    }
}

void catalog_when_text(char *out, size_t size, const json_t *when, const json_t *params)
{
    const char *name;
    json_t *matcher;
    size_t used = 0;

    out[0] = '\0';
    json_object_foreach((json_t *)when, name, matcher)
    {
        char one[200];
        int n;

        matcher_text(one, sizeof one, name, matcher, json_object_get(params, name));
        n = snprintf(out + used, size - used, "%s%s", used > 0 ? " and " : "", one);
        if (n < 0 || (size_t)n >= size - used)
            return;
        used += (size_t)n;
    }
}

void faults_add(struct catalog_faults *faults, const char *field, const char *fmt, ...)
{
    struct catalog_fault *f;
    va_list ap;

    if (faults->count < ARRAY_LEN(faults->items)) {
        f = &faults->items[faults->count];
        (void)snprintf(f->field, sizeof(f->field), "%s", field);
        va_start(ap, fmt);
        (void)vsnprintf(f->message, sizeof(f->message), fmt, ap);
        va_end(ap);
        text_plain(f->field); /* a name that the customer made up, cut anywhere */
        text_plain(f->message);
    }
    faults->count++;
}

static size_t distance(const char *a, const char *b) /* Levenshtein, for short names; 99: not alike */
{
    size_t row[41], la = strlen(a), lb = strlen(b);

    if (la > 40 || lb > 40)
        return 99;
    for (size_t j = 0; j <= lb; j++)
        row[j] = j;
    for (size_t i = 1; i <= la; i++) {
        size_t before = row[0];

        row[0] = i;
        for (size_t j = 1; j <= lb; j++) {
            size_t best = before + (a[i - 1] != b[j - 1]);

            before = row[j];
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[lb];
}

void catalog_unknown_param(const json_t *specs, const char *name, struct catalog_faults *faults)
{
    const char *near = NULL, *known;
    size_t best = 3;
    json_t *spec;
    char field[96];
    size_t keep = utf8_cut(name, strlen(name), 64);

    json_object_foreach((json_t *)specs, known, spec)
    {
        size_t d = distance(name, known);

        if (d < best) {
            best = d;
            near = known;
        }
    }
    (void)snprintf(field, sizeof field, "params.%.*s", (int)keep, name);
    if (near != NULL)
        faults_add(faults, field, "is not a parameter of this operation; did you mean %s?", near);
    else
        faults_add(faults, field, "is not a parameter of this operation");
}
