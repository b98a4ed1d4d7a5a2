/* show.c - text, tables and small values on their way to a person's eyes. */
#include "dispatcher/client/show.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "common/base/json.h"

/* Code points that a terminal or an editor acts on instead of showing them. */
static bool show_is_hidden(unsigned cp)
{
    return cp < 0x20 || (cp >= 0x7f && cp < 0xa0) || cp == 0x061c || (cp >= 0x200b && cp <= 0x200f) ||
           (cp >= 0x2028 && cp <= 0x202e) || (cp >= 0x2060 && cp <= 0x206f) || cp == 0xfeff ||
           (cp >= 0xe0000 && cp <= 0xe007f);
}

static unsigned show_code_point(const char *s, size_t n)
{
    static const unsigned char first_mask[] = { 0, 0x7f, 0x1f, 0x0f, 0x07 };
    unsigned cp = (unsigned char)s[0] & first_mask[n];

    for (size_t i = 1; i < n; i++)
        cp = cp << 6 | ((unsigned char)s[i] & 0x3fu);
    return cp;
}

/* As JSON writes them: beyond the first plane in two halves. */
static bool show_escape(struct buf *out, unsigned cp)
{
    if (cp > 0xffff)
        return buf_printf(out, "\\u%04x\\u%04x", 0xd800 + ((cp - 0x10000) >> 10), 0xdc00 + ((cp - 0x10000) & 0x3ff));
    return buf_printf(out, "\\u%04x", cp);
}

static bool show_escape_all(struct buf *out, const char *text, bool keep_lines)
{
    size_t left = strlen(text), n;
    bool ok = true;

    for (; left > 0 && ok; text += n, left -= n) {
        unsigned cp;
        n = utf8_step(text, left);
        cp = n > 0 ? show_code_point(text, n) : 0;
        if (n == 0) {
            ok = buf_printf(out, "\\x%02x", (unsigned)(unsigned char)*text);
            n = 1;
        } else if (cp == '\n') {
            ok = buf_str(out, keep_lines ? "\n" : "\\n");
        } else if (cp == '\t' && !keep_lines) {
            ok = buf_str(out, "\\t");
        } else if (show_is_hidden(cp)) {
            ok = show_escape(out, cp);
        } else {
            ok = buf_add(out, text, n);
        }
    }
    return ok;
}

bool show_clean(struct buf *out, const char *text)
{
    return !text || show_escape_all(out, text, false);
}

void show_text(FILE *to, const char *text)
{
    struct buf clean = { 0 };

    if (show_clean(&clean, text) && clean.data)
        (void)fputs(clean.data, to); /* a closed stdout is noticed at the end */
    buf_done(&clean);
}

static void __attribute__((format(printf, 2, 0))) show_message(const char *prefix, const char *fmt, va_list ap)
{
    char line[2048];

    (void)vsnprintf(line, sizeof line, fmt, ap);
    line[utf8_cut(line, strlen(line), sizeof line - 1)] = '\0';
    (void)fputs(prefix, stderr);
    show_text(stderr, line);
    (void)fputc('\n', stderr);
}

void show_error(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    show_message("kiln: ", fmt, ap);
    va_end(ap);
}

void show_note(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    show_message("", fmt, ap);
    va_end(ap);
}

char *show_json_text(const json_t *value, bool is_pretty)
{
    char *raw = json_dumps(value, (is_pretty ? JSON_INDENT(2) : JSON_COMPACT) | JSON_PRESERVE_ORDER | JSON_ENCODE_ANY |
                                      JSON_REAL_PRECISION(15));
    struct buf out = { .ceiling = (size_t)1 << 30 };

    if (!raw || !show_escape_all(&out, raw, true))
        buf_done(&out);
    free(raw);
    return buf_take(&out);
}

void show_json(const json_t *value)
{
    char *text = show_json_text(value, isatty(STDOUT_FILENO));

    (void)puts(text ? text : "null"); /* as above */
    free(text);
}

/* ---- tables */

static size_t table_columns(const struct table *t)
{
    size_t n = 0;

    while (n < TABLE_COLUMNS && t->heads[n])
        n++;
    return n;
}

void table_add(struct table *t, const char *cell)
{
    (void)show_clean(&t->cells, cell); /* out of memory: the table ends early */
    (void)buf_add(&t->cells, "", 1);
    t->count++;
}

static void table_cell(FILE *to, const char *text, size_t width, bool is_right, bool is_last)
{
    size_t have = utf8_length(text, strlen(text));
    int fill = width > have ? (int)(width - have) : 0;

    if (is_right)
        (void)fprintf(to, "%*s%s", fill, "", text);
    else
        (void)fprintf(to, "%s%*s", text, is_last ? 0 : fill, "");
    (void)fputs(is_last ? "\n" : "  ", to);
}

void table_print(struct table *t, FILE *to)
{
    size_t columns = table_columns(t), width[TABLE_COLUMNS] = { 0 };
    const char *cell = t->cells.data;

    for (size_t i = 0; i < columns; i++)
        width[i] = strlen(t->heads[i]);
    for (size_t i = 0; i < t->count && !t->cells.is_full; i++, cell += strlen(cell) + 1) {
        size_t len = utf8_length(cell, strlen(cell));
        if (len > width[i % columns])
            width[i % columns] = len;
    }
    for (size_t i = 0; i < columns && t->count > 0; i++) {
        if (i == 0)
            (void)fputs(show_style(to, STYLE_DIM), to);
        table_cell(to, t->heads[i], width[i], t->right >> i & 1, i + 1 == columns);
    }
    if (t->count > 0)
        (void)fputs(show_style(to, STYLE_PLAIN), to);
    cell = t->cells.data;
    for (size_t i = 0; i < t->count && !t->cells.is_full; i++, cell += strlen(cell) + 1)
        table_cell(to, cell, width[i % columns], t->right >> (i % columns) & 1, i % columns == columns - 1);
    buf_done(&t->cells);
    t->count = 0;
}

/* ---- the terminal */

bool show_is_terminal(FILE *f)
{
    const char *term = getenv("TERM");

    return isatty(fileno(f)) && term && *term && strcmp(term, "dumb") != 0;
}

bool show_is_utf8(void)
{
    static const char *const names[] = { "LC_ALL", "LC_CTYPE", "LANG" };

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        const char *value = getenv(names[i]);
        if (value && *value)
            return strstr(value, "UTF-8") || strstr(value, "utf8") || strstr(value, "utf-8") || strstr(value, "UTF8");
    }
    return false;
}

const char *show_style(FILE *to, enum show_style style)
{
    static const char *const codes[] = { "\x1b[0m", "\x1b[32m", "\x1b[31m", "\x1b[2m", "\x1b[1m" };
    const char *no_color = getenv("NO_COLOR");

    return show_is_terminal(to) && !(no_color && *no_color) ? codes[style] : "";
}

/* ---- small values */

char *show_credits(char *out, size_t size, const json_t *number)
{
    if (!json_is_number(number) || fabs(json_number_value(number)) > 1e12)
        (void)snprintf(out, size, "-");
    else
        credits_format(out, size, llround(json_number_value(number) * 1000));
    return out;
}

char *show_bytes(char *out, size_t size, int64_t bytes)
{
    static const char *const units[] = { "kB", "MB", "GB", "TB" };
    double value = (double)bytes / 1000;
    size_t unit = 0;

    if (bytes < 1000) {
        (void)snprintf(out, size, "%lld bytes", (long long)bytes);
        return out;
    }
    while (value >= 999.5 && unit + 1 < ARRAY_LEN(units)) {
        value /= 1000;
        unit++;
    }
    (void)snprintf(out, size, "%.*f %s", value < 9.95 ? 1 : 0, value, units[unit]);
    return out;
}

char *show_time(char *out, size_t size, const char *rfc3339)
{
    int64_t ms = 0;
    struct tm tm;
    time_t t;

    (void)snprintf(out, size, "-");
    if (rfc3339 && rfc3339_parse(rfc3339, &ms) == ERR_OK) {
        t = (time_t)(ms / 1000);
        if (localtime_r(&t, &tm))
            (void)strftime(out, size, "%Y-%m-%d %H:%M:%S", &tm);
    }
    return out;
}

int64_t show_span_ms(const char *from, const char *to)
{
    int64_t a = 0, b = 0;

    if (!from || !to || rfc3339_parse(from, &a) != ERR_OK || rfc3339_parse(to, &b) != ERR_OK || b < a)
        return -1;
    return b - a;
}

char *show_span(char *out, size_t size, int64_t ms)
{
    if (ms < 0)
        (void)snprintf(out, size, "-");
    else if (ms < 10000)
        (void)snprintf(out, size, "%.1f s", (double)ms / 1000);
    else if (ms < 120000)
        (void)snprintf(out, size, "%lld s", (long long)ms / 1000);
    else if (ms < 7200000)
        (void)snprintf(out, size, "%lld min %lld s", (long long)ms / 60000, (long long)ms / 1000 % 60);
    else
        (void)snprintf(out, size, "%lld h %lld min", (long long)ms / 3600000, (long long)ms / 60000 % 60);
    return out;
}
