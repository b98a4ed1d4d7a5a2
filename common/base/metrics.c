/* metrics.c - families (one a name) with their series (one a set of label values), printed as Prometheus text.
 *
 * A series is known by its labels as they will be printed, so looking one up is one string comparison a series.
 * Callers with a hot path keep the pointer. */
#include "common/base/metrics.h"
#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { SERIES_MAX = 256, LABELS_MAX = 3, LABEL_BYTES = 120, PLACES = 128 };
enum kind { COUNTER, GAUGE, HISTOGRAM };

const double metrics_seconds[] = { 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
                                   1,     2.5,    5,     10,   30,    60,   120, 300 };
const size_t metrics_seconds_count = ARRAY_LEN(metrics_seconds);
const double metrics_sizes[] = { 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000 };
const size_t metrics_sizes_count = ARRAY_LEN(metrics_sizes);

struct metric {
    const struct family *family;
    struct metric *next;
    char *labels;      /* `a="b",c="d"`; "" for none */
    double value;      /* of a histogram: the sum */
    uint64_t count;    /* of a histogram */
    uint64_t *buckets; /* of a histogram: not cumulative */
};

struct family {
    struct family *next;
    struct metric *series, **last;
    size_t series_count;
    char *name;
    const char *help;
    enum kind kind;
    const double *bounds;
    size_t bound_count;
};

struct metrics {
    struct family *families, **last;
    struct family *places[PLACES]; /* by the address of the name: where it was found last */
    struct family none;            /* where values go when memory is out: counted, never printed */
    struct metric spare;
};

struct metrics *metrics_new(void)
{
    struct metrics *m = calloc(1, sizeof *m);
    if (!m)
        return NULL;
    m->last = &m->families;
    m->spare.family = &m->none;
    return m;
}

static void metric_free(struct metric *s)
{
    free(s->labels);
    free(s->buckets);
    free(s);
}

void metrics_free(struct metrics *m)
{
    if (!m)
        return;
    for (struct family *f = m->families; f;) {
        struct family *next = f->next;
        for (struct metric *s = f->series; s;) {
            struct metric *next_series = s->next;
            metric_free(s);
            s = next_series;
        }
        free(f->name);
        free(f);
        f = next;
    }
    free(m);
}

static struct family *family_get(struct metrics *m, const char *name, const char *help, enum kind kind)
{
    struct family **place = &m->places[((uintptr_t)name >> 3) % PLACES], *f = *place;

    if (!f || strcmp(f->name, name) != 0) {
        for (f = m->families; f && strcmp(f->name, name) != 0;)
            f = f->next;
    }
    if (f) {
        assert(f->kind == kind); /* one name, one kind */
        *place = f;
        return f;
    }
    f = calloc(1, sizeof *f);
    if (!f || !(f->name = strdup(name))) {
        free(f);
        return NULL;
    }
    f->help = help;
    f->kind = kind;
    f->last = &f->series;
    *m->last = f;
    m->last = &f->next;
    return f;
}

/* Backslash, quote and line end are escaped as the format wants; bytes that are no UTF-8 become '?'. */
static void label_value(struct buf *out, const char *s)
{
    size_t left = utf8_cut(s, strlen(s), LABEL_BYTES), plain = 0;

    while (plain < left && s[plain] >= ' ' && s[plain] <= '~' && s[plain] != '"' && s[plain] != '\\')
        plain++;
    (void)buf_add(out, s, plain); /* memory: seen by the caller in is_full, here and below */
    s += plain;
    left -= plain;
    while (left > 0) {
        size_t n = utf8_step(s, left);
        if (n == 0)
            (void)buf_add(out, "?", 1);
        else if (*s == '\n')
            (void)buf_add(out, "\\n", 2);
        else if (*s == '"' || *s == '\\')
            (void)(buf_add(out, "\\", 1) && buf_add(out, s, 1));
        else
            (void)buf_add(out, s, n);
        n = n ? n : 1;
        s += n;
        left -= n;
    }
}

static bool labels_text(struct buf *out, const char *const *pairs, size_t count, bool is_other)
{
    (void)buf_str(out, "");
    for (size_t i = 0; i < count; i++) {
        if (i)
            (void)buf_add(out, ",", 1); /* memory: as above */
        (void)(buf_str(out, pairs[2 * i]) && buf_add(out, "=\"", 2));
        label_value(out, is_other ? "other" : pairs[2 * i + 1] ? pairs[2 * i + 1] : "");
        (void)buf_str(out, "\"");
    }
    return !out->is_full;
}

static struct metric *series_find(const struct family *f, const char *labels)
{
    struct metric *s = f->series;
    while (s && strcmp(s->labels, labels) != 0)
        s = s->next;
    return s;
}

static struct metric *series_get(struct metrics *m, struct family *f, const char *const *pairs, size_t count)
{
    struct buf labels = { 0 };
    struct metric *s = NULL;

    if (!f || !labels_text(&labels, pairs, count, false))
        goto out;
    s = series_find(f, labels.data);
    if (!s && f->series_count >= SERIES_MAX) {
        labels.len = 0;
        if (!labels_text(&labels, pairs, count, true))
            goto out;
        s = series_find(f, labels.data);
    }
    if (s)
        goto out;
    s = calloc(1, sizeof *s);
    if (!s)
        goto out;
    if (f->kind == HISTOGRAM && !(s->buckets = calloc(f->bound_count + 1, sizeof *s->buckets))) {
        free(s);
        s = NULL;
        goto out;
    }
    s->family = f;
    s->labels = buf_take(&labels);
    *f->last = s;
    f->last = &s->next;
    f->series_count++;
out:
    buf_done(&labels);
    return s ? s : &m->spare;
}

static size_t pairs_read(const char **pairs, va_list args)
{
    size_t n = 0;
    const char *name;

    while ((name = va_arg(args, const char *)) != NULL) {
        assert(n < LABELS_MAX);
        pairs[2 * n] = name;
        pairs[2 * n + 1] = va_arg(args, const char *);
        n++;
    }
    return n;
}

struct metric *metrics_counter(struct metrics *m, const char *name, const char *help, ...)
{
    const char *pairs[2 * LABELS_MAX];
    va_list args;
    size_t n;

    va_start(args, help);
    n = pairs_read(pairs, args);
    va_end(args);
    return series_get(m, family_get(m, name, help, COUNTER), pairs, n);
}

struct metric *metrics_gauge(struct metrics *m, const char *name, const char *help, ...)
{
    const char *pairs[2 * LABELS_MAX];
    va_list args;
    size_t n;

    va_start(args, help);
    n = pairs_read(pairs, args);
    va_end(args);
    return series_get(m, family_get(m, name, help, GAUGE), pairs, n);
}

struct metric *metrics_histogram(struct metrics *m, const char *name, const char *help, const double *bounds,
                                 size_t count, ...)
{
    const char *pairs[2 * LABELS_MAX];
    struct family *f = family_get(m, name, help, HISTOGRAM);
    va_list args;
    size_t n;

    if (f && !f->bounds) {
        f->bounds = bounds;
        f->bound_count = count;
    }
    va_start(args, count);
    n = pairs_read(pairs, args);
    va_end(args);
    return series_get(m, f, pairs, n);
}

void metric_add(struct metric *s, double value)
{
    s->value += value;
}

void metric_set(struct metric *s, double value)
{
    s->value = value;
}

void metric_observe(struct metric *s, double value)
{
    size_t i = 0;

    s->value += value;
    s->count++;
    if (!s->buckets)
        return; /* the spare one */
    while (i < s->family->bound_count && value > s->family->bounds[i])
        i++;
    s->buckets[i]++;
}

double metric_value(const struct metric *s)
{
    return s->value;
}

static void print_number(struct buf *out, double v)
{
    if (isnan(v))
        (void)buf_str(out, "NaN"); /* a full buffer is seen at the end, here and below */
    else if (isinf(v))
        (void)buf_str(out, v > 0 ? "+Inf" : "-Inf");
    else if (v == floor(v) && fabs(v) < 1e15)
        (void)buf_printf(out, "%.0f", v);
    else
        (void)buf_printf(out, "%.15g", v);
}

static void print_line(struct buf *out, const struct metric *s, const char *suffix)
{
    (void)buf_printf(out, "%s%s%s%s%s ", s->family->name, suffix, *s->labels ? "{" : "", s->labels,
                     *s->labels ? "}" : "");
}

static void print_histogram(struct buf *out, const struct metric *s)
{
    const struct family *f = s->family;
    uint64_t sum = 0;

    for (size_t i = 0; i <= f->bound_count; i++) {
        sum += s->buckets[i];
        (void)buf_printf(out, "%s_bucket{%s%sle=\"", f->name, s->labels, *s->labels ? "," : "");
        print_number(out, i < f->bound_count ? f->bounds[i] : INFINITY);
        (void)buf_printf(out, "\"} %" PRIu64 "\n", sum);
    }
    print_line(out, s, "_sum");
    print_number(out, s->value);
    (void)buf_str(out, "\n");
    print_line(out, s, "_count");
    (void)buf_printf(out, "%" PRIu64 "\n", s->count);
}

bool metrics_print(struct metrics *m, struct buf *out)
{
    static const char *const kind_name[] = { "counter", "gauge", "histogram" };

    for (const struct family *f = m->families; f; f = f->next) {
        (void)buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", f->name, f->help ? f->help : "", f->name,
                         kind_name[f->kind]);
        for (const struct metric *s = f->series; s; s = s->next) {
            if (f->kind == HISTOGRAM) {
                print_histogram(out, s);
                continue;
            }
            print_line(out, s, "");
            print_number(out, s->value);
            (void)buf_str(out, "\n");
        }
    }
    return !out->is_full;
}
