/* pages.h - a list of the API, page after page until --limit. */
#ifndef KILN_PAGES_H
#define KILN_PAGES_H
#include <jansson.h>
#include "dispatcher/client/client.h"
#include "dispatcher/client/show.h"

struct pages_filter {
    const char *name, *value; /* value NULL: no filter */
};
/* CLIENT_DONE: *out is new, {object, data, has_more, next}. Else a message was printed. */
int pages_read(struct client *c, const char *path, const struct pages_filter *filters, size_t count, json_t **out);
/* The list read and shown: as JSON when that is asked for, else a row each in `t`; `none` when there is nothing. */
int pages_table(struct client *c, const char *path, const struct pages_filter *filters, size_t count, struct table *t,
                void (*row)(struct table *t, const json_t *one), const char *none);
#endif
