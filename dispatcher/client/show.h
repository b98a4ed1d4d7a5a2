/* show.h - what a person sees: text made harmless, tables, JSON, jobs, problems.
 *
 * Everything that was written elsewhere (a prompt, a provider's message, a database's) is foreign: show_clean writes
 * its control characters, C1, DEL, bidi controls and broken UTF-8 as escapes, so that it can neither move the cursor
 * nor turn a line round. JSON is printed with the same characters as \u escapes. */
#ifndef KILN_SHOW_H
#define KILN_SHOW_H
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <jansson.h>
#include "common/base/text.h"

bool show_clean(struct buf *out, const char *text); /* NULL: nothing is added */
void show_text(FILE *to, const char *text);         /* the same, printed */
/* "kiln: …" on stderr; whatever the format lets in is cleaned. */
void show_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void show_note(const char *fmt, ...) __attribute__((format(printf, 1, 2))); /* stderr, without the name */

char *show_json_text(const json_t *value, bool is_pretty); /* malloc'd, escapes as said above; NULL: out of memory */
void show_json(const json_t *value);                       /* stdout and a line end; indented on a terminal */

/* Columns as wide as what stands in them. Cells are cleaned and copied. Zero-initialise but for these two. */
enum { TABLE_COLUMNS = 8 };
struct table {
    const char *heads[TABLE_COLUMNS]; /* NULL after the last */
    unsigned right;                   /* bit i: column i is set to the right */
    struct buf cells;                 /* NUL-terminated, row by row */
    size_t count;
};
void table_add(struct table *t, const char *cell); /* the next cell; rows fill up by themselves */
void table_print(struct table *t, FILE *to);       /* heads only when there are rows; empties it */

bool show_is_terminal(FILE *f); /* a terminal that understands more than lines */
bool show_is_utf8(void);
enum show_style { STYLE_PLAIN, STYLE_GOOD, STYLE_BAD, STYLE_DIM, STYLE_BOLD };
const char *show_style(FILE *to, enum show_style style); /* the escape sequence, or "" where there are no colours */

char *show_credits(char *out, size_t size, const json_t *number); /* "3.4"; "-" when there is none */
char *show_bytes(char *out, size_t size, int64_t bytes);          /* "1.2 MB" */
char *show_time(char *out, size_t size, const char *rfc3339);     /* local time to the second; "-" */
int64_t show_span_ms(const char *from, const char *to);           /* of two RFC 3339 times; -1: not both there */
char *show_span(char *out, size_t size, int64_t ms);              /* "3.2 s", "2 min 5 s" */

void show_job(const json_t *job);                                   /* the whole of it, on stdout */
void show_artifact(FILE *to, const json_t *artifact);               /* "image/png, 1024x1024, 1.2 MB" */
void show_job_end(FILE *to, const json_t *job);                     /* one line: how it ended, what it cost */
void show_problem(const char *url, long status, const json_t *doc); /* a refusal of the dispatcher, field by field */
#endif
