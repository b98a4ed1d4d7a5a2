/* text_fold.c - see text_fold.h. A set of terms is a sorted array; a text is looked through from every word boundary to
 * every later one within the longest term, each piece by binary search. */
#include "common/base/text_fold.h"
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unicase.h>
#include <unictype.h>
#include <uninorm.h>
#include <unistr.h>
#include <uniwbrk.h>
#include "common/base/text.h"

enum { TERM_BYTES = 200, TERMS_MAX = 100000, TERMS_FILE_BYTES = 8 << 20 };

struct terms {
    char **items; /* folded, sorted, each once */
    size_t count, cap, longest;
};

static bool is_gap(ucs4_t c)
{
    return c == '-' || c == '_' || uc_is_property_white_space(c) || uc_is_property(c, UC_PROPERTY_DASH);
}

static bool is_unseen(ucs4_t c)
{
    return uc_is_property_default_ignorable_code_point(c) || uc_is_property_iso_control(c);
}

char *text_fold(const char *s, size_t len)
{
    size_t folded_len = 0, at = 0;
    uint8_t *folded = NULL;
    struct buf out = { 0 };
    bool gap = false;

    if (!utf8_valid(s, len))
        return NULL;
    if (len == 0)
        return strdup("");
    folded = u8_casefold((const uint8_t *)s, len, NULL, UNINORM_NFKC, NULL, &folded_len);
    if (folded == NULL)
        return NULL;
    (void)buf_str(&out, "");
    while (at < folded_len) {
        ucs4_t c;
        int n = u8_mbtouc(&c, folded + at, folded_len - at);

        if (n <= 0)
            break;
        if (is_gap(c)) {
            gap = true;
        } else if (!is_unseen(c)) {
            if (gap && out.len > 0)
                (void)buf_add(&out, " ", 1);
            (void)buf_add(&out, folded + at, (size_t)n);
            gap = false;
        }
        at += (size_t)n;
    }
    free(folded);
    if (out.is_full) {
        buf_done(&out);
        return NULL;
    }
    return buf_take(&out);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool terms_add(struct terms *t, char *term)
{
    if (t->count == t->cap) {
        size_t cap = t->cap > 0 ? t->cap * 2 : 64;
        char **items = realloc(t->items, cap * sizeof *items);

        if (items == NULL)
            return false;
        t->items = items;
        t->cap = cap;
    }
    t->items[t->count++] = term;
    if (strlen(term) > t->longest)
        t->longest = strlen(term);
    return true;
}

static void terms_sort(struct terms *t)
{
    size_t kept = 0;

    if (t->count > 0)
        qsort(t->items, t->count, sizeof *t->items, by_text);
    for (size_t i = 0; i < t->count; i++) {
        if (kept > 0 && strcmp(t->items[kept - 1], t->items[i]) == 0)
            free(t->items[i]);
        else
            t->items[kept++] = t->items[i];
    }
    t->count = kept;
}

struct terms *terms_parse(const char *text, size_t len, char *problem, size_t problem_size)
{
    struct terms *t = calloc(1, sizeof *t);
    size_t line = 0;

    (void)snprintf(problem, problem_size, "out of memory");
    for (size_t at = 0; t != NULL && at < len;) {
        const char *end = memchr(text + at, '\n', len - at);
        size_t n = end != NULL ? (size_t)(end - text) - at : len - at;
        const char *hash = memchr(text + at, '#', n), *wrong = NULL;
        char *term = text_fold(text + at, hash != NULL ? (size_t)(hash - text) - at : n);

        line++;
        at += n + 1;
        if (term == NULL)
            wrong = "is no UTF-8";
        else if (strlen(term) > TERM_BYTES)
            wrong = "is longer than 200 bytes";
        else if (term[0] == '\0')
            free(term);
        else if (t->count == TERMS_MAX || !terms_add(t, term))
            wrong = "is one more than kiln takes (100000)";
        if (wrong != NULL) {
            (void)snprintf(problem, problem_size, "line %zu %s", line, wrong);
            free(term);
            terms_free(t);
            return NULL;
        }
    }
    if (t != NULL)
        terms_sort(t);
    return t;
}

struct terms *terms_read(const char *path, char *problem, size_t problem_size)
{
    FILE *f = fopen(path, "rbe");
    char *text = f != NULL ? malloc(TERMS_FILE_BYTES) : NULL;
    struct terms *t = NULL;

    (void)snprintf(problem, problem_size, f == NULL ? "cannot be opened" : "cannot be read, or has 8 MiB or more");
    if (text != NULL) {
        size_t len = fread(text, 1, TERMS_FILE_BYTES, f);

        if (!ferror(f) && len < TERMS_FILE_BYTES)
            t = terms_parse(text, len, problem, problem_size);
    }
    if (f != NULL)
        (void)fclose(f); /* read only */
    free(text);
    return t;
}

void terms_free(struct terms *t)
{
    if (t == NULL)
        return;
    for (size_t i = 0; i < t->count; i++)
        free(t->items[i]);
    free(t->items);
    free(t);
}

size_t terms_count(const struct terms *t)
{
    return t->count;
}

static const char *terms_look(const struct terms *t, const char *piece, size_t len)
{
    size_t low = 0, high = t->count;

    while (low < high) {
        size_t middle = (low + high) / 2;
        int order = strncmp(t->items[middle], piece, len);

        if (order == 0 && t->items[middle][len] == '\0')
            return t->items[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle; /* equal so far, but longer: the piece stands before it */
    }
    return NULL;
}

const char *terms_find(const struct terms *t, const char *text, size_t len, bool *failed)
{
    const char *found = NULL;
    char *folded = text_fold(text, len), *breaks = NULL;
    size_t n;

    *failed = folded == NULL;
    if (folded == NULL || t->count == 0 || folded[0] == '\0')
        goto out;
    n = strlen(folded);
    breaks = malloc(n + 1);
    *failed = breaks == NULL;
    if (breaks == NULL)
        goto out;
    u8_wordbreaks((const uint8_t *)folded, n, breaks);
    breaks[0] = breaks[n] = 1;
    for (size_t from = 0; found == NULL && from < n; from++) {
        for (size_t to = from + 1; breaks[from] && found == NULL && to <= n && to - from <= t->longest; to++)
            found = breaks[to] ? terms_look(t, folded + from, to - from) : NULL;
    }
out:
    free(breaks);
    free(folded);
    return found;
}
