/* rows.c - db_sync with its answer in JSON. */
#include "dispatcher/client/rows.h"
#include <stdio.h>
#include <string.h>
#include "common/base/json.h"
#include "common/io/db.h"
#include "dispatcher/client/show.h"

struct rows {
    const char *const *columns;
    json_t *list;
};

static void rows_on_result(void *ctx, const struct db_result *result)
{
    struct rows *r = ctx;

    for (int i = 0; i < db_rows(result); i++) {
        json_t *row = json_object();
        for (const char *const *column = r->columns; *column; column++) {
            char name[64];
            size_t len = strlen(*column);
            bool is_number = (*column)[len - 1] == '#';

            (void)snprintf(name, sizeof name, "%.*s", (int)(len - is_number), *column);
            if (db_is_null(result, i, name))
                (void)json_object_set_new(row, name, json_null());
            else if (is_number)
                (void)json_object_set_new(row, name, json_integer(db_col_int(result, i, name)));
            else
                (void)json_set_text(row, name, db_col(result, i, name));
        }
        (void)json_array_append_new(r->list, row);
    }
}

int rows_failed(enum err err, const char *message)
{
    show_error("the database: %.*s", (int)strcspn(*message ? message : err_text(err), "\n"),
               *message ? message : err_text(err)); /* the first line; libpq adds hints for programmers */
    if (strstr(message, "does not exist") && (strstr(message, "relation") || strstr(message, "function")))
        show_note("  its tables are made by `kiln migrate`");
    if (err == ERR_ARGUMENT)
        return CLIENT_CONFIG;
    return err == ERR_UNAVAILABLE || err == ERR_LOST ? CLIENT_UNREACHABLE : CLIENT_REFUSED;
}

int rows_read(struct client *c, const char *sql, size_t count, const char *const *values, const char *const *columns,
              json_t **out)
{
    char message[512] = "";
    struct rows r = { columns, json_array() };
    enum err err = db_sync(c->db_url, sql, count, values, rows_on_result, &r, message, sizeof message);

    if (err != ERR_OK) {
        json_decref(r.list);
        return rows_failed(err, message);
    }
    *out = r.list;
    return CLIENT_DONE;
}
