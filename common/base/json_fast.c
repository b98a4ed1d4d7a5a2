/* json_fast.c - ordinary JSON read in one pass over the bytes, into jansson's values.
 *
 * jansson takes each byte through a call, a UTF-8 check, two position counters and a copy (measured: 200 instructions a
 * byte). Here a run of plain text is found eight bytes at a time and copied once. Everything unusual is "no": the
 * caller begins again with jansson, so this has no errors to word and no positions to count. Wherever this says yes it
 * must agree with jansson: fuzz_json holds the two against each other. Numbers that are not short are jansson's
 * to read, one at a time. */
#include "common/base/json_fast.h"
#include <string.h>
#include "common/base/json.h"

enum { INTEGER_DIGITS = 18, REAL_DIGITS = 15 }; /* what always fits 63 bits, and a double's 53 */

struct reader {
    const char *at, *end;
    struct buf text; /* the last text that had escapes, without them */
};

static void skip_blanks(struct reader *r)
{
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\n' || *r->at == '\t' || *r->at == '\r'))
        r->at++;
}

static bool take(struct reader *r, char c)
{
    skip_blanks(r);
    if (r->at == r->end || *r->at != c)
        return false;
    r->at++;
    return true;
}

/* ---- texts */

/* Over ASCII that is no '"', '\\' or control character. */
static const char *skip_plain(const char *at, const char *end)
{
    for (; end - at >= JSON_STRIDE; at += JSON_STRIDE) {
        uint64_t w = json_stride(at), found = json_special(w) | (w & 0x8080808080808080);

        if (found)
            return at + __builtin_ctzll(found) / 8;
    }
    while (at < end && *at >= ' ' && (unsigned char)*at < 0x80 && *at != '"' && *at != '\\')
        at++;
    return at;
}

/* The '"' or '\\' where plain text ends; NULL: a control character, bad UTF-8, or no end. */
static const char *text_end(const char *at, const char *end)
{
    for (;;) {
        at = skip_plain(at, end);
        if (at < end && (*at == '"' || *at == '\\'))
            return at;
        do {
            size_t n = utf8_step(at, (size_t)(end - at));

            if (n == 0 || (n == 1 && (unsigned char)*at < ' '))
                return NULL;
            at += n;
        } while (at < end && (unsigned char)*at >= 0x80);
    }
}

static bool hex4(const char *s, uint32_t *out)
{
    uint32_t value = 0;

    for (int i = 0; i < 4; i++) {
        char c = s[i], letter = (char)(c | 0x20);

        if (c >= '0' && c <= '9')
            value = value << 4 | (uint32_t)(c - '0');
        else if (letter >= 'a' && letter <= 'f')
            value = value << 4 | (uint32_t)(letter - 'a' + 10);
        else
            return false;
    }
    *out = value;
    return true;
}

static bool add_code_point(struct buf *out, uint32_t c)
{
    char utf8[4];

    if (c < 0x80) {
        utf8[0] = (char)c;
        return buf_add(out, utf8, 1);
    }
    if (c < 0x800) {
        utf8[0] = (char)(0xc0 | c >> 6);
        utf8[1] = (char)(0x80 | (c & 0x3f));
        return buf_add(out, utf8, 2);
    }
    if (c < 0x10000) {
        utf8[0] = (char)(0xe0 | c >> 12);
        utf8[1] = (char)(0x80 | (c >> 6 & 0x3f));
        utf8[2] = (char)(0x80 | (c & 0x3f));
        return buf_add(out, utf8, 3);
    }
    utf8[0] = (char)(0xf0 | c >> 18);
    utf8[1] = (char)(0x80 | (c >> 12 & 0x3f));
    utf8[2] = (char)(0x80 | (c >> 6 & 0x3f));
    utf8[3] = (char)(0x80 | (c & 0x3f));
    return buf_add(out, utf8, 4);
}

/* \uXXXX, or the two of them that are a surrogate pair. Many clients write all that is not ASCII so. */
static const char *add_unicode(struct reader *r, const char *at)
{
    uint32_t c, low;

    if (r->end - at < 6 || !hex4(at + 2, &c) || c == 0)
        return NULL;
    at += 6;
    if (c >= 0xd800 && c <= 0xdfff) {
        if (c > 0xdbff || r->end - at < 6 || at[0] != '\\' || at[1] != 'u' || !hex4(at + 2, &low) || low < 0xdc00 ||
            low > 0xdfff)
            return NULL;
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
        at += 6;
    }
    return add_code_point(&r->text, c) ? at : NULL;
}

/* Adds what the escape at `at` stands for. Returns what follows it, NULL: jansson's. */
static const char *add_escape(struct reader *r, const char *at)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *found;

    if (r->end - at < 2)
        return NULL;
    if (at[1] == 'u')
        return add_unicode(r, at);
    found = memchr(from, at[1], sizeof from - 1);
    return found && buf_add(&r->text, to + (found - from), 1) ? at + 2 : NULL;
}

/* From the quote at r->at. What was escaped is in r->text, until the next such text; the rest is where it was. */
static bool read_text(struct reader *r, const char **text, size_t *len)
{
    const char *from = r->at + 1, *stop = text_end(from, r->end);

    *text = from;
    r->text.len = 0;
    while (stop && *stop == '\\') {
        if (!buf_add(&r->text, from, (size_t)(stop - from)))
            return false;
        from = add_escape(r, stop);
        stop = from ? text_end(from, r->end) : NULL;
    }
    if (!stop)
        return false;
    *len = (size_t)(stop - from);
    if (from != *text) {
        if (!buf_add(&r->text, from, *len))
            return false;
        *text = r->text.data;
        *len = r->text.len;
    }
    r->at = stop + 1;
    return true;
}

/* ---- values */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* A number with an exponent or many digits: jansson takes the same characters here as within the whole. */
static json_t *read_long_number(struct reader *r)
{
    const char *from = r->at;

    while (r->at < r->end &&
           (is_digit(*r->at) || *r->at == '.' || *r->at == '-' || *r->at == '+' || *r->at == 'e' || *r->at == 'E'))
        r->at++;
    return json_loadb(from, (size_t)(r->at - from), JSON_DECODE_ANY, NULL);
}

/* Adds digits to *n, until `end`. */
static const char *read_digits(const char *at, const char *end, int64_t *n)
{
    for (; at < end && is_digit(*at); at++)
        *n = *n * 10 + (*at - '0');
    return at;
}

static json_t *read_number(struct reader *r)
{
    static const double powers[] = { 1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14 };
    const char *digits = r->at + (*r->at == '-'), *at, *point = NULL;
    const char *limit = r->end - digits > INTEGER_DIGITS ? digits + INTEGER_DIGITS : r->end;
    int64_t n = 0;
    double real;

    at = read_digits(digits, limit, &n);
    if (at == digits || (*digits == '0' && at - digits > 1))
        return read_long_number(r);
    if (at < limit && *at == '.') {
        point = ++at;
        at = read_digits(at, limit, &n);
    }
    if (at == point || (point && at - digits > REAL_DIGITS + 1) ||
        (at < r->end && (*at == '.' || *at == 'e' || *at == 'E' || is_digit(*at))))
        return read_long_number(r);
    if (!point) {
        n = *r->at == '-' ? -n : n;
        r->at = at;
        return json_integer(n);
    }
    real = (double)n / powers[at - point]; /* both exact: rounded once, as strtod() does */
    real = *r->at == '-' ? -real : real;
    r->at = at;
    return json_real(real);
}

static json_t *read_word(struct reader *r, const char *word, size_t len, json_t *value)
{
    if ((size_t)(r->end - r->at) < len || memcmp(r->at, word, len) != 0)
        return NULL;
    r->at += len;
    return value; /* jansson's constants, which nobody counts */
}

static json_t *read_value(struct reader *r, int depth);

static json_t *read_array(struct reader *r, int depth)
{
    json_t *array = json_array();

    r->at++;
    if (!array || take(r, ']'))
        return array;
    do {
        if (json_array_append_new(array, read_value(r, depth)) != 0) /* of nothing, too */
            goto out;
    } while (take(r, ','));
    if (take(r, ']'))
        return array;
out:
    json_decref(array);
    return NULL;
}

static json_t *read_object(struct reader *r, int depth)
{
    json_t *object = json_object();
    const char *key, *stop;
    size_t len, count = 0;

    r->at++;
    if (!object || take(r, '}'))
        return object;
    do {
        if (!take(r, '"'))
            goto out;
        key = r->at;
        stop = text_end(key, r->end);
        if (!stop || *stop == '\\')
            goto out;
        len = (size_t)(stop - key);
        r->at = stop + 1;
        if (!take(r, ':') || json_object_setn_new_nocheck(object, key, len, read_value(r, depth)) != 0 ||
            json_object_size(object) != ++count) /* else the key was there before */
            goto out;
    } while (take(r, ','));
    if (take(r, '}'))
        return object;
out:
    json_decref(object);
    return NULL;
}

static json_t *read_value(struct reader *r, int depth)
{
    const char *text;
    size_t len;

    skip_blanks(r);
    if (r->at == r->end)
        return NULL;
    switch (*r->at) {
    case '"':
        return read_text(r, &text, &len) ? json_stringn_nocheck(text, len) : NULL;
    case '{':
        return depth < JSON_MAX_DEPTH ? read_object(r, depth + 1) : NULL;
    case '[':
        return depth < JSON_MAX_DEPTH ? read_array(r, depth + 1) : NULL;
    case 't':
        return read_word(r, "true", 4, json_true());
    case 'f':
        return read_word(r, "false", 5, json_false());
    case 'n':
        return read_word(r, "null", 4, json_null());
    default:
        return *r->at == '-' || is_digit(*r->at) ? read_number(r) : NULL;
    }
}

json_t *json_fast(const char *data, size_t len)
{
    struct reader r = { data, data ? data + len : NULL, { .ceiling = SIZE_MAX / 4 } };
    json_t *value = read_value(&r, 0);

    skip_blanks(&r);
    buf_done(&r.text);
    if (!value || r.at == r.end)
        return value;
    json_decref(value);
    return NULL;
}
