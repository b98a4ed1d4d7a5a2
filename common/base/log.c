/* log.c - formats one event and writes it with one write(2), so that lines of several threads do not mix. */
#include "common/base/log.h"
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "common/base/clock.h"
#include "common/base/text.h"

enum { LINE_MAX_BYTES = 4096 };

static const char *const level_name[] = { "debug", "info", "warn", "error" };
static _Atomic int lowest = LOG_INFO;

struct line {
    char *out;
    size_t size, len; /* len < size always; a piece that does not fit whole is left out, and everything after it */
    bool is_cut;
};

static void line_add(struct line *l, const char *s, size_t n)
{
    if (l->is_cut || n >= l->size - l->len) {
        l->is_cut = true;
        return;
    }
    memcpy(l->out + l->len, s, n);
    l->len += n;
    l->out[l->len] = 0;
}

static void line_str(struct line *l, const char *s)
{
    line_add(l, s, strlen(s));
}

static bool log_is_plain(const char *s)
{
    const char *from = s;

    while ((*s >= 'a' && *s <= 'z') || (*s >= '-' && *s <= ':') || (*s >= '@' && *s <= 'Z') || *s == '_' ||
           (*s >= '*' && *s <= ','))
        s++;
    return *s == '\0' && s > from; /* letters, digits and _.:/@+-,* */
}

/* Code points that a terminal or an editor acts on instead of showing them. */
static bool log_is_hidden(unsigned cp)
{
    return cp < 0x20 || (cp >= 0x7f && cp < 0xa0) || cp == 0x061c || cp == 0x200e || cp == 0x200f ||
           (cp >= 0x2028 && cp <= 0x202e) || (cp >= 0x2066 && cp <= 0x2069) || cp == 0xfeff;
}

static unsigned log_code_point(const char *s, size_t n)
{
    static const unsigned char first_mask[] = { 0, 0x7f, 0x1f, 0x0f, 0x07 };
    unsigned cp = (unsigned char)s[0] & first_mask[n];
    for (size_t i = 1; i < n; i++)
        cp = cp << 6 | ((unsigned char)s[i] & 0x3fu);
    return cp;
}

static void line_quoted(struct line *l, const char *s)
{
    size_t left = strlen(s);
    char escape[16];

    line_add(l, "\"", 1);
    while (left > 0) {
        size_t n = utf8_step(s, left);
        unsigned cp = n ? log_code_point(s, n) : 0;

        if (n == 0) {
            (void)snprintf(escape, sizeof escape, "\\x%02x", (unsigned)(unsigned char)*s);
            line_str(l, escape);
            n = 1;
        } else if (cp == '\n') {
            line_str(l, "\\n");
        } else if (cp == '"' || cp == '\\') {
            line_add(l, "\\", 1);
            line_add(l, s, 1);
        } else if (log_is_hidden(cp)) {
            (void)snprintf(escape, sizeof escape, "\\u%04x", cp);
            line_str(l, escape);
        } else {
            line_add(l, s, n);
        }
        s += n;
        left -= n;
    }
    line_add(l, "\"", 1);
}

static void line_number(struct line *l, int64_t n)
{
    char digits[I64_TEXT];
    size_t len;
    const char *text = i64_text(digits, n, &len);

    line_add(l, text, len);
}

static void line_value(struct line *l, const char *s)
{
    if (log_is_plain(s))
        line_str(l, s);
    else
        line_quoted(l, s);
}

size_t log_format(char *out, size_t size, enum log_level level, const char *event, const struct log_field *fields,
                  size_t count)
{
    struct line l = { .out = out, .size = size };

    if (size == 0)
        return 0;
    out[0] = 0;
    line_str(&l, "level=");
    line_str(&l, (size_t)level < ARRAY_LEN(level_name) ? level_name[level] : "info");
    line_str(&l, " event=");
    line_value(&l, event ? event : "");
    for (size_t i = 0; i < count; i++) {
        line_add(&l, " ", 1);
        line_str(&l, fields[i].key);
        line_add(&l, "=", 1);
        if (fields[i].str)
            line_value(&l, fields[i].str);
        else
            line_number(&l, fields[i].num);
    }
    return l.len;
}

void log_set_level(enum log_level level)
{
    atomic_store(&lowest, (int)level);
}

void log_event(enum log_level level, const char *event, const struct log_field *fields, size_t count)
{
    char line[LINE_MAX_BYTES];
    size_t len = 5 + RFC3339_TEXT;

    if ((int)level < atomic_load_explicit(&lowest, memory_order_relaxed))
        return;
    memcpy(line, "time=", 5);
    rfc3339_ms(line + 5, clock_wall_ms());
    line[len - 1] = ' '; /* in the place of its NUL */
    len += log_format(line + len, sizeof line - len - 1, level, event, fields, count);
    line[len++] = '\n';
    if (write(STDERR_FILENO, line, len) < 0)
        return; /* nobody is left to tell */
}
