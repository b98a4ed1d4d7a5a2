/* rows.h - one statement on the database, its rows as JSON objects: what the operator's commands stand on. */
#ifndef KILN_ROWS_H
#define KILN_ROWS_H
#include <jansson.h>
#include "dispatcher/client/client.h"

/* `columns`: names, NULL-terminated; one that ends in # is a number. SQL NULL -> null.
 * CLIENT_DONE: *out is a new array. Else a message was printed. */
int rows_read(struct client *c, const char *sql, size_t count, const char *const *values, const char *const *columns,
              json_t **out);
int rows_failed(enum err err, const char *message); /* says why on stderr; the exit status */
#endif
