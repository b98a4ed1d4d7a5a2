/* json.c - the limits around jansson and json_fast.c, and the forgiving readers for what providers call a number. */
#include "common/base/json.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/json_fast.h"

/* Counted before jansson parses, so that nesting costs no memory; its own bound is 2,048. */
static bool json_too_deep(const char *data, size_t len)
{
    bool in_string = false;
    int depth = 0;

    for (size_t i = 0; i < len; i++) {
        char c = data[i];
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '[' || c == '{') {
            if (++depth > JSON_MAX_DEPTH)
                return true;
        } else if ((c == ']' || c == '}') && depth > 0) {
            depth--;
        }
    }
    return false;
}

static json_t *parse(const char *data, size_t len, size_t flags, struct json_fault *fault)
{
    json_error_t error = { 0 };
    json_t *value = json_fast(data, len);

    if (value)
        return value;
    if (json_too_deep(data, len)) {
        if (fault)
            (void)snprintf(fault->message, sizeof fault->message, "nested deeper than %d", (int)JSON_MAX_DEPTH);
        return NULL;
    }
    value = json_loadb(data ? data : "", len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | flags, &error);
    if (!value && fault) {
        (void)snprintf(fault->message, sizeof fault->message, "line %d, column %d: %.120s", error.line, error.column,
                       error.text);
        text_plain(fault->message); /* jansson quotes the text near the error, at times cut within a character */
    }
    return value;
}

json_t *json_parse(const char *data, size_t len, struct json_fault *fault)
{
    return parse(data, len, 0, fault);
}

json_t *json_parse_answer(const char *data, size_t len)
{
    return parse(data, len, JSON_ALLOW_NUL, NULL);
}

/* ---- printing. jansson's own dump looks up every member again when it sorts, and asks a hash table at each container
 * whether it is a loop (measured: 67,000 instructions for an answer of 700 bytes; this: a tenth of it). Loops cannot
 * come from a parse; what is deeper than anything of ours is refused. Texts are those of jansson, byte for byte. */

enum { PRINT_DEPTH_MAX = 256, SORTED_MAX = 64 };

/* buf_add() of one character: most of what is written between the texts. */
static bool put(struct buf *out, char c)
{
    if (out->is_full || out->cap <= out->len + 1) /* cap is never more than the ceiling and the NUL */
        return buf_add(out, &c, 1);
    out->data[out->len++] = c;
    out->data[out->len] = '\0';
    return true;
}

static bool print_escape(struct buf *out, unsigned char c)
{
    static const char hex[] = "0123456789ABCDEF", from[] = "\b\f\n\r\t\"\\", to[] = "bfnrt\"\\";
    const char *at = c != '\0' ? strchr(from, c) : NULL;
    char escape[6] = { '\\', 'u', '0', '0', hex[c >> 4], hex[c & 15] };

    if (at)
        escape[1] = to[at - from];
    return buf_add(out, escape, at ? 2 : 6);
}

/* How many bytes of `s` stand in JSON as they are; UTF-8 does. */
static size_t plain_length(const char *s, size_t len)
{
    size_t i = 0;

    for (; len - i >= JSON_STRIDE; i += JSON_STRIDE) {
        uint64_t found = json_special(json_stride(s + i));

        if (found)
            return i + (size_t)__builtin_ctzll(found) / 8;
    }
    while (i < len && (unsigned char)s[i] >= ' ' && s[i] != '"' && s[i] != '\\')
        i++;
    return i;
}

static bool print_text(struct buf *out, const char *s, size_t len)
{
    bool ok = put(out, '"');

    while (ok && len > 0) {
        size_t n = plain_length(s, len);

        ok = buf_add(out, s, n);
        if (ok && n < len)
            ok = print_escape(out, (unsigned char)s[n++]);
        s += n;
        len -= n;
    }
    return ok && put(out, '"');
}

static bool print_integer(struct buf *out, json_int_t n)
{
    char digits[I64_TEXT];
    size_t len;
    const char *text = i64_text(digits, n, &len);

    return buf_add(out, text, len);
}

static bool print_real(struct buf *out, const json_t *value)
{
    char text[64];
    size_t len = json_dumpb(value, text, sizeof text, JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));

    return len > 0 && len <= sizeof text && buf_add(out, text, len);
}

static bool print_value(struct buf *out, const json_t *value, bool is_sorted, int depth);

struct member {
    const char *key;
    const json_t *value;
};

static int by_key(const void *a, const void *b)
{
    return strcmp(((const struct member *)a)->key, ((const struct member *)b)->key);
}

static bool print_member(struct buf *out, const struct member *m, bool is_first, bool is_sorted, int depth)
{
    return (is_first || put(out, ',')) && print_text(out, m->key, strlen(m->key)) && put(out, ':') &&
           print_value(out, m->value, is_sorted, depth + 1);
}

static bool print_object(struct buf *out, const json_t *object, bool is_sorted, int depth)
{
    struct member few[SORTED_MAX], *all = few;
    size_t count = 0, size = json_object_size(object);
    const char *key;
    json_t *value;
    bool ok = put(out, '{');

    if (is_sorted && size > SORTED_MAX)
        all = malloc(size * sizeof *all);
    if (!all)
        return false;
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        struct member m = { key, value };

        if (is_sorted)
            all[count] = m;
        else
            ok = ok && print_member(out, &m, count == 0, false, depth);
        count++;
    }
    if (is_sorted) {
        qsort(all, count, sizeof *all, by_key);
        for (size_t i = 0; i < count && ok; i++)
            ok = print_member(out, &all[i], i == 0, true, depth);
    }
    if (all != few)
        free(all);
    return ok && put(out, '}');
}

static bool print_array(struct buf *out, const json_t *array, bool is_sorted, int depth)
{
    bool ok = put(out, '[');

    for (size_t i = 0; i < json_array_size(array) && ok; i++)
        ok = (i == 0 || put(out, ',')) && print_value(out, json_array_get(array, i), is_sorted, depth + 1);
    return ok && put(out, ']');
}

static bool print_value(struct buf *out, const json_t *value, bool is_sorted, int depth)
{
    if (!value || depth > PRINT_DEPTH_MAX)
        return false;
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return print_object(out, value, is_sorted, depth);
    case JSON_ARRAY:
        return print_array(out, value, is_sorted, depth);
    case JSON_STRING:
        return print_text(out, json_string_value(value), json_string_length(value));
    case JSON_INTEGER:
        return print_integer(out, json_integer_value(value));
    case JSON_REAL:
        return print_real(out, value);
    case JSON_TRUE:
        return buf_add(out, "true", 4);
    case JSON_FALSE:
        return buf_add(out, "false", 5);
    case JSON_NULL:
        return buf_add(out, "null", 4);
    }
    return false;
}

char *json_print(const json_t *value)
{
    struct buf out = { .ceiling = SIZE_MAX / 4 };

    if (print_value(&out, value, true, 0))
        return buf_take(&out);
    buf_done(&out);
    return NULL;
}

bool json_print_to(struct buf *out, const json_t *value)
{
    return print_value(out, value, true, 0);
}

bool json_write_to(struct buf *out, const json_t *value)
{
    return print_value(out, value, false, 0);
}

bool json_quote_to(struct buf *out, const char *text)
{
    struct arena *a;
    const char *clean;
    bool ok;

    if (utf8_valid(text, strlen(text)))
        return print_text(out, text, strlen(text));
    a = arena_new(SIZE_MAX);
    clean = a ? text_clean(a, text, strlen(text), strlen(text) * 3) : NULL;
    ok = clean && print_text(out, clean, strlen(clean));
    arena_free(a);
    return ok;
}

/* Names are ours: nothing in them needs an escape. */
static bool put_is_first(const struct buf *out)
{
    return out->len == 0 || strchr("[,:", out->data[out->len - 1]);
}

static void put_name(struct buf *out, const char *name)
{
    (void)buf_add(out, put_is_first(out) ? "{\"" : ",\"", 2);
    (void)buf_str(out, name);
    (void)buf_add(out, "\":", 2);
}

void json_put_json(struct buf *out, const char *name, const char *json)
{
    if (!json)
        return;
    put_name(out, name);
    (void)buf_str(out, json);
}

void json_put(struct buf *out, const char *name, const char *text)
{
    if (!text)
        return;
    put_name(out, name);
    out->is_full = !json_quote_to(out, text) || out->is_full;
}

void json_put_int(struct buf *out, const char *name, int64_t value)
{
    char digits[I64_TEXT];
    size_t len;
    const char *text = i64_text(digits, value, &len);

    put_name(out, name);
    (void)buf_add(out, text, len);
}

void json_put_bool(struct buf *out, const char *name, bool value)
{
    json_put_json(out, name, value ? "true" : "false");
}

void json_put_end(struct buf *out)
{
    (void)buf_str(out, put_is_first(out) ? "{}" : "}");
}

char *json_put_take(struct buf *out)
{
    if (!out->is_full)
        return buf_take(out);
    buf_done(out);
    return NULL;
}

const char *json_text(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

bool json_int(const json_t *object, const char *key, int64_t *out)
{
    const json_t *value = json_object_get(object, key);
    double real;

    if (!value)
        return false;
    if (json_is_integer(value)) {
        *out = json_integer_value(value);
        return true;
    }
    if (json_is_string(value) && parse_i64(json_string_value(value), INT64_MIN, INT64_MAX, out) == ERR_OK)
        return true;
    if (!json_number(object, key, &real) || real != floor(real) || fabs(real) > 9007199254740992.0)
        return false;
    *out = (int64_t)real;
    return true;
}

bool json_number(const json_t *object, const char *key, double *out)
{
    const json_t *value = json_object_get(object, key);

    if (json_is_number(value)) {
        *out = json_number_value(value);
        return true;
    }
    return json_is_string(value) && parse_double(json_string_value(value), out) == ERR_OK;
}

bool json_bool(const json_t *object, const char *key, bool fallback)
{
    const json_t *value = json_object_get(object, key);
    return json_is_boolean(value) ? json_is_true(value) : fallback;
}

json_t *json_credits(int64_t mc)
{
    return mc % 1000 == 0 ? json_integer(mc / 1000) : json_real((double)mc / 1000.0);
}

int json_set_text(json_t *object, const char *key, const char *value)
{
    struct arena *a = NULL;
    int status = -1;

    if (!value)
        return json_object_set_new(object, key, json_null());
    if (utf8_valid(value, strlen(value)))
        return json_object_set_new(object, key, json_string_nocheck(value));
    a = arena_new(SIZE_MAX);
    if (a) {
        const char *clean = text_clean(a, value, strlen(value), strlen(value) * 3);
        status = clean ? json_object_set_new(object, key, json_string(clean)) : -1;
    }
    arena_free(a);
    return status;
}
