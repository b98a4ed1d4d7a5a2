/* db.h - libpq on the loop: one connection, its queue, and gathers that turn single rows into set-based calls.
 *
 * A `struct db` is one connection that reconnects for ever (exponential delay with jitter, 50 ms to 2 s) until closed.
 * Calls are sent one after the other; while one is under way, rows handed to a gather wait and go out together with the
 * next call of that gather (design.md, *Speed*): no added delay, at most `max_rows` a call. Gathers and queries of one
 * connection take turns.
 *
 * A gather calls one function of the schema: every argument is an array, all of one length, and every result row starts
 * with `ord`, the 1-based index of its input row. Errors that the data makes (SQLSTATE 21, 22, 23, 44, 54, P0, XX000)
 * halve the batch until the bad row fails alone (ERR_REFUSED), as does a row for which no result row came. Everything
 * else repeats the whole call, after a growing pause of up to a second: 40, 53, 55P03, 57014 and a lost connection
 * without much ado, what speaks of a wrong schema or right (42, …) with a warning in the log. So every function must be
 * idempotent (protocol.md, rule 3). A row may be repeated until its `patience_ms` is over, then it ends as ERR_LOST (it
 * was sent at least once and its fate is unknown) or ERR_UNAVAILABLE (never sent, or certainly without effect). Every
 * row gets exactly one callback, from the loop, never from inside the call that added it; also when the db closes
 * (ERR_CLOSED). A callback may add rows. */
#ifndef KILN_DB_H
#define KILN_DB_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>
#include "common/base/err.h"
#include "common/base/text.h"

struct db;
struct db_gather;
struct db_result; /* the rows of one answer; borrowed, dies when the callback returns */

struct db_config {
    const char *url;                         /* copied */
    const char *name;                        /* for logs and application_name; static */
    int answer_ms;                           /* 0: 30000. A connection that owes an answer for longer is dead */
    void (*on_state)(void *ctx, bool is_up); /* may be NULL */
    void *ctx;
};

enum err db_url_check(const char *url); /* ERR_ARGUMENT: libpq cannot read it */
struct db *db_new(uv_loop_t *loop,
                  const struct db_config *config); /* starts to connect; NULL: out of memory, bad URL */
void db_close(struct db *db, void (*on_closed)(void *ctx), void *ctx); /* fails what waits, then frees itself */
int64_t db_owed_ms(const struct db *db); /* how long the call under way has had no answer; 0: there is none, or no db */
bool db_is_up(const struct db *db);
size_t db_waiting(const struct db *db); /* rows and queries not answered yet */

/* One value of a row handed to a gather. Text is copied. NULL text is SQL NULL. */
struct db_value {
    const char *text;
    int64_t num;
    enum { DB_TEXT, DB_INT, DB_BOOL, DB_NULL } kind;
};
static inline struct db_value db_text(const char *s) /* also uuid, jsonb, timestamptz: their text form */
{
    return (struct db_value){ .text = s, .kind = s ? DB_TEXT : DB_NULL };
}
static inline struct db_value db_int(int64_t n)
{
    return (struct db_value){ .num = n, .kind = DB_INT };
}
static inline struct db_value db_bool(bool b)
{
    return (struct db_value){ .num = b, .kind = DB_BOOL };
}
static inline struct db_value db_null(void)
{
    return (struct db_value){ .kind = DB_NULL };
}

/* "select * from kiln_start($1::uuid, $2::uuid[], …)": `consts` parameters come first ($1…), then the arrays. */
struct db_call {
    const char *name; /* prepared statement's name, and the metric's label; static */
    const char *sql;  /* static */
    size_t columns;   /* arrays; at most 24 */
    size_t max_rows;  /* 0: 500 */
    int patience_ms;  /* 0: repeats for ever */
    bool is_once;     /* rows whose call was cut off end as ERR_LOST: repeated they would be answered otherwise */
};
struct db_gather *db_gather_new(struct db *db, const struct db_call *call, const char *const *consts,
                                size_t const_count);
void db_gather_free(struct db_gather *g); /* before db_close; waiting rows end as ERR_CLOSED, at the next turn */

/* `result`/`row` are the row's answer when err is ERR_OK, else NULL/-1. Several result rows with one ord: the first. */
typedef void db_row_fn(void *ctx, enum err err, const struct db_result *result, int row);
enum err db_gather_add(struct db_gather *g, const struct db_value *values, db_row_fn *fn,
                       void *ctx); /* ERR_NOMEM; ERR_ARGUMENT: NUL or bad UTF-8 */
/* For typed wrappers: `adapt` reads the answer and calls `user`, cast back to its own type, with the caller's ctx. So a
 * wrapper allocates nothing for a row, and db_forget finds it by that ctx. */
typedef void db_plain_fn(void); /* a function pointer of any type, cast */
typedef void db_adapt_row_fn(db_plain_fn *user, void *ctx, enum err err, const struct db_result *result, int row);
enum err db_gather_add_as(struct db_gather *g, const struct db_value *values, db_adapt_row_fn *adapt, db_plain_fn *user,
                          void *ctx);

/* One statement with text parameters (NULL: SQL NULL). Repeated like a gather's call until patience_ms is over (0: for
 * ever), so it has to be idempotent. One callback. What PostgreSQL refuses for another reason ends as ERR_REFUSED, with
 * a result that knows the sqlstate. */
typedef void db_query_fn(void *ctx, enum err err, const struct db_result *result);
enum err db_query(struct db *db, const char *sql, size_t count, const char *const *values, int patience_ms,
                  db_query_fn *fn, void *ctx);
typedef void db_adapt_fn(db_plain_fn *user, void *ctx, enum err err, const struct db_result *result);
/* `binary` (NULL: nothing is): of each value, how many bytes it has in PostgreSQL's binary format; 0: it is text. */
enum err db_query_as(struct db *db, const char *sql, size_t count, const char *const *values, const size_t *binary,
                     int patience_ms, db_adapt_fn *adapt, db_plain_fn *user, void *ctx);
/* A uuid[] in that format, text's canonical UUIDs one after the other; as text each would cost PostgreSQL half a
 * microsecond. `out` is empty before the first; db_uuids_end once, after the last. False: no memory, or not a UUID. */
bool db_uuids_add(struct buf *out, const char *uuid);
void db_uuids_end(struct buf *out);
void db_forget(struct db *db,
               void *ctx); /* whatever waits with this ctx (rows and queries) is never called back; its effect stays */

int db_rows(const struct db_result *r);
bool db_is_null(const struct db_result *r, int row, const char *column);
const char *db_col(const struct db_result *r, int row,
                   const char *column); /* "" for NULL or no such column; borrowed */
const char *db_at(const struct db_result *r, int row,
                  int column); /* by place, for whoever reads many; NULL for NULL and no such column; borrowed */
int64_t db_col_int(const struct db_result *r, int row, const char *column); /* 0 for NULL */
bool db_col_bool(const struct db_result *r, int row, const char *column);
int db_col_word(const struct db_result *r, int row, const char *column, const char *const *words,
                size_t count);                      /* its index among `words`; -1: none of them */
const char *db_sqlstate(const struct db_result *r); /* of a refused call; "" else */

/* How long calls take and how large they are; called after each round trip. May be NULL. */
void db_observe(struct db *db, void (*fn)(void *ctx, const char *name, size_t rows, int64_t us), void *ctx);

/* Blocking helpers for command lines and start-up only, never on a loop. */
enum err db_sync(const char *url, const char *sql, size_t count, const char *const *values,
                 void (*fn)(void *ctx, const struct db_result *result), void *ctx, char *message, size_t message_size);
/* Applies what is missing of the embedded migrations, under an advisory lock, each in a transaction; refuses when a
 * recorded checksum differs. `report` gets a line for each applied one. */
struct db_migration {
    int version;
    const char *name, *sql;
};
enum err db_migrate(const char *url, const struct db_migration *migrations, size_t count,
                    void (*report)(void *ctx, const char *line), void *ctx, char *message, size_t message_size);
/* The same with the files of schema/postgres; "0001_tables.sql" is version 1. */
enum err db_migrate_embedded(const char *url, void (*report)(void *ctx, const char *line), void *ctx, char *message,
                             size_t message_size);
#endif
