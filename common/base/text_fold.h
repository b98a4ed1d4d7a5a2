/* text_fold.h - texts as people mean them: compared without case, width or typing habits, and found at word boundaries.
 *
 * Unicode's work is libunistring's: NFKC, case folding, and the word boundaries of UAX #29, by which each Chinese or
 * Japanese character is a word of its own and a Latin word is not found inside a longer one. */
#ifndef KILN_TEXT_FOLD_H
#define KILN_TEXT_FOLD_H
#include <stdbool.h>
#include <stddef.h>

/* New (free() it): compatibility-composed and case-folded; blanks, '-' and '_' become one blank, none at the ends; what
 * nobody sees (zero width, soft hyphen, byte order mark) is gone. NULL: out of memory, or no UTF-8. */
char *text_fold(const char *s, size_t len);

/* A set of words and phrases, folded. Immutable once made. */
struct terms;
/* Reads a file: a term a line, '#' begins a comment, empty lines count nothing. NULL with `problem` naming the line. */
struct terms *terms_read(const char *path, char *problem, size_t problem_size);
struct terms *terms_parse(const char *text, size_t len, char *problem, size_t problem_size);
void terms_free(struct terms *t);
size_t terms_count(const struct terms *t);
/* The first term in `text` that stands between word boundaries; borrowed from the set; NULL: none. *failed: out of
 * memory or no UTF-8, so nothing was looked at. */
const char *terms_find(const struct terms *t, const char *text, size_t len, bool *failed);
#endif
