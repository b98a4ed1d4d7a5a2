/* config.h - the environment, one table a program.
 *
 * A row names a variable, its type, default, bounds and one sentence; --help, the checks and deploy/kiln.env come from
 * it. Any variable KILN_X (and every secret) may be given as X_FILE, a path whose first line is the value
 * (CONFIG_SECRETS: all of its lines, each a secret). All problems are listed at once; a program that has any exits 78.
 */
#ifndef KILN_CONFIG_H
#define KILN_CONFIG_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum config_type {
    CONFIG_TEXT,
    CONFIG_SECRET,
    CONFIG_SECRETS,
    CONFIG_INT,
    CONFIG_BOOL,
    CONFIG_URL,
    CONFIG_LISTEN,
    CONFIG_BASE64_32
};

struct config_option {
    const char *name; /* "KILN_CONCURRENCY" */
    enum config_type type;
    const char *fallback; /* NULL: empty; for a required one see `is_required` */
    int64_t min, max;     /* CONFIG_INT */
    bool is_required;
    const char *help; /* one sentence */
};

struct config; /* values by name; secrets are wiped when freed */

/* Reads every option from the environment. Always returns a config (NULL only when out of memory); problems are counted
 * in config_problems and printed, one a line, by config_report. Unknown KILN_* variables are problems too, unless some
 * program's table has them (`known`, NULL-terminated list of names, may be NULL). */
struct config *config_read(const struct config_option *table, size_t count, const char *const *known);
void config_free(struct config *c);
size_t config_problems(const struct config *c);
void config_add_problem(struct config *c, const char *name, const char *what); /* a check beyond the table's */
void config_report(const struct config *c, FILE *to);

const char *config_text(const struct config *c, const char *name); /* NULL when empty; borrowed */
/* One that no table names (an operator's own provider in KILN_CATALOG), or all of its X_FILE: malloc'd; NULL: nothing,
 * or it is one of the table's. What is wrong with its file is added to the problems. */
char *config_stray(struct config *c, const char *name);
int64_t config_int(const struct config *c, const char *name);
bool config_bool(const struct config *c, const char *name);
bool config_listen(const struct config *c, const char *name, char *host, size_t host_size, int *port); /* false: off */
void config_help(const struct config_option *table, size_t count, FILE *to);

/* The three flags every program has: handles --help, --version and --check-config. Returns -1 to go on, else the exit
 * status (0, 2 for an unknown flag, 78). `usage` is the text above the table; `extra_check` may add problems.
 * KILN_ variables of the other programs are known here (the list stands in config.c). A program with flags of its own
 * takes them out of argv before. */
int config_main(int argc, char **argv, const char *program, const char *usage, const struct config_option *table,
                size_t count, void (*extra_check)(struct config *), struct config **out);

#define KILN_VERSION "0.1.0"
#endif
