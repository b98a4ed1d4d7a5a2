/* db_inner.h - what db.c (connection, turns), db_gather.c (rows) and db_query.c (single statements) share.
 *
 * A source is whatever has calls to send over one connection: each gather is one, all queries together are another.
 * The connection knows sources only by their operations; sources know of it that it is there. */
#ifndef KILN_DB_INNER_H
#define KILN_DB_INNER_H
#include <netdb.h>
#include <libpq-fe.h>
#include "common/io/db.h"

enum db_fate {
    DB_DONE,   /* committed; the result has the rows */
    DB_ROW,    /* rolled back because of the data: SQLSTATE 21, 22, 23, 44, 54, P0, XX000 */
    DB_REPEAT, /* rolled back, and again is worth it: 40, 53, 55P03, 57014, … */
    DB_BROKEN, /* rolled back, and nobody knows why: 42, 25, XX001, … */
    DB_GONE,   /* the connection went; whether it took effect is not known */
};

struct db_source;
struct db_source_ops {
    bool (*is_ready)(const struct db_source *s);
    int (*prepare)(struct db_source *s, PGconn *pg); /* NULL: nothing to prepare; else PQsendPrepare's answer */
    int (*send)(struct db_source *s, PGconn *pg);    /* 1 sent, 0 refused by libpq, -1 nothing left to send */
    /* An answer is taken in two steps, so that the next call leaves before the callbacks of this one run: `answered`
     * notes what became of the call and is ready for the next send; `deliver`, always after it, tells who waited. The
     * source may be sent, lost and forgotten from in between, but neither swept nor freed. */
    void (*answered)(struct db_source *s, const struct db_result *result, enum db_fate fate);
    void (*deliver)(struct db_source *s, const struct db_result *result); /* not after DB_GONE, which ends nothing */
    int64_t (*sweep)(struct db_source *s, int64_t now_ms); /* ends what is out of patience; the next such moment */
    void (*forget)(struct db_source *s, const void *ctx);
    void (*fail_all)(struct db_source *s, enum err err);
    void (*free)(struct db_source *s);
};

struct db_source {
    const struct db_source_ops *ops;
    struct db *db;
    const char *name;
    size_t flying;         /* rows in the call under way; written by send */
    uint64_t prepared;     /* the connection that knows the statement */
    int64_t not_before_ms; /* after DB_REPEAT and DB_BROKEN */
    int64_t backoff_ms;
    bool is_closing;
};

struct db_result {
    const PGresult *pg;
};
enum db_fate db_fate_of(const PGresult *result, bool *is_connection_bad);

bool db_source_join(struct db *db, struct db_source *s); /* false: too many */
void db_source_leave(struct db_source *s);               /* freed at the next turn of the loop, its rows ERR_CLOSED */
void db_added(struct db *db, int64_t deadline_ms);       /* something waits (one more); INT64_MAX: for ever */
void db_ended(struct db *db);                            /* one less */
bool db_is_closing(const struct db *db);

struct db_source *db_queries_new(struct db *db);
struct db_source *db_queries_of(struct db *db);

/* libpq's options: the URL's own, with ours where it says nothing. */
enum { DB_OPTIONS_MAX = 64 };
struct db_options {
    PQconninfoOption *parsed;
    const char *keywords[DB_OPTIONS_MAX], *values[DB_OPTIONS_MAX];
    size_t count;
    char hosts[1024], addresses[1024], session[96];
};
bool db_options_read(struct db_options *o, const char *url, const char *name);
bool db_options_add(struct db_options *o, const char *keyword, const char *value); /* unless the URL has it */
const char *db_options_host(const struct db_options *o); /* the one name to look up; NULL: nothing to do */
bool db_options_set_addresses(struct db_options *o, const struct addrinfo *list);
void db_options_session(struct db_options *o, int statement_timeout_ms);
void db_options_done(struct db_options *o);

/* db_conn.c: a libpq connection on the loop. on_up once it stands; on_readable whenever libpq may have something;
 * on_lost at most once until the next open, and the owner drops it then. Timeouts are the owner's. */
struct db_conn {
    uv_loop_t *loop; /* these are the owner's to set */
    char *url;
    const char *name;
    void (*on_up)(struct db_conn *c);
    void (*on_readable)(struct db_conn *c);
    void (*on_lost)(struct db_conn *c, const char *why);

    PGconn *pg;
    bool is_up;
    struct db_poll *poll;
    struct db_lookup *lookup;
    struct db_options options;
};
void db_conn_open(struct db_conn *c, int statement_timeout_ms);
void db_conn_drop(struct db_conn *c);  /* also one that is not open */
bool db_conn_flush(struct db_conn *c); /* after any PQsend; false: lost, on_lost is not called */
#endif
