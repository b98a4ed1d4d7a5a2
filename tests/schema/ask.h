/* ask.h - a test's database, and how a test asks it.
 *
 * test_db makes a database of this process's own. ANSWER compares the whole result of a statement, cells joined by `|`,
 * rows by a space, null as nothing, with what is expected; the statement's $1, $2… follow it as texts. In threads use
 * `ask`, which asserts nothing: an error comes back as "ERROR 23505" and so on. */
#ifndef KILN_TESTS_SCHEMA_ASK_H
#define KILN_TESTS_SCHEMA_ASK_H
#include <libpq-fe.h>
#include <stddef.h>

PGconn *test_db(void);      /* creates the database and connects */
PGconn *test_connect(void); /* one more connection to it */
void test_done(PGconn *c);  /* asserts that kiln_audit is empty, and disconnects */

char *ask(PGconn *c, const char *const *sql_and_params, size_t n); /* the caller frees it */
void answer(const char *file, int line, PGconn *c, const char *want, const char *const *sql_and_params, size_t n);
long ask_number(PGconn *c, const char *sql);

#define ARGS(...)            (const char *const[]){ __VA_ARGS__ }, sizeof((const char *const[]){ __VA_ARGS__ }) / sizeof(char *)
#define ASK(c, ...)          ask(c, ARGS(__VA_ARGS__))
#define ANSWER(c, want, ...) answer(__FILE__, __LINE__, c, want, ARGS(__VA_ARGS__))
#define DO(c, ...)           answer(__FILE__, __LINE__, c, NULL, ARGS(__VA_ARGS__)) /* only: no error */

#endif
