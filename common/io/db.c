/* db.c - one connection and who may use it: when to connect again, whose turn it is, when an answer is one.
 *
 * One call is under way at a time. A call is over only when libpq has handed out NULL after its results: the answer's
 * rows come before the commit, an error after them wins. Three clocks guard it: the server's statement_timeout (25 s
 * of 30 s; unless the URL brings `options` of its own), ours (`answer_ms`: the connection is taken for dead) and TCP's
 * keepalives. Sending waits for the idle phase of the loop, so that what is added in one turn leaves together. When an
 * answer is there, what waits already leaves before the answer's callbacks run: PostgreSQL does not wait for them. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/failpoint.h"
#include "common/base/text.h"
#include "common/io/db_inner.h"

enum {
    SOURCES_MAX = 32,
    CONNECT_MS = 5000,
    ANSWER_MS = 30000,
    RECONNECT_MIN_MS = 50,
    RECONNECT_MAX_MS = 2000,
    REPEAT_MIN_MS = 4,
    REPEAT_MAX_MS = 1000,
    SWEEP_MS = 20, /* looking for the impatient costs a pass over what waits: not more often */
    STILL_DOWN_MS = 10000,
};

enum db_state { DB_DOWN, DB_CONNECTING, DB_FREE, DB_PREPARING, DB_CALLING, DB_CLOSING };

struct db {
    uv_loop_t *loop;
    struct db_config config;
    enum db_state state;
    struct db_conn conn;
    uint64_t connection; /* counts connections: a prepared statement belongs to one */
    int64_t reconnect_ms, logged_ms;

    struct db_source *sources[SOURCES_MAX];
    size_t source_count, turn;
    struct db_source *queries;
    struct db_source *flying; /* whose call is under way; NULL: nobody waits for it any more */
    PGresult *result;         /* of the call so far: the last one, or the first error */
    int64_t began_us;
    size_t waiting;

    uv_timer_t timer; /* connect, reconnect, answer: what the state waits for */
    uv_timer_t wake;  /* patience and repeats */
    int64_t wake_ms;  /* when it fires; INT64_MAX: not armed */
    uv_idle_t idle;
    int handles; /* open ones; at 0 the memory may go */
    void (*observe)(void *ctx, const char *name, size_t rows, int64_t us);
    void *observe_ctx;
    void (*on_closed)(void *ctx);
    void *closed_ctx;
};

static void db_connect(struct db *db);
static void db_pump(struct db *db);
static void db_lost(struct db *db, const char *why);

static int64_t jitter(int64_t ms)
{
    uint32_t r;
    random_bytes(&r, sizeof r);
    return ms / 2 + (int64_t)(r % (uint32_t)(ms / 2 + 1));
}

static void source_back_off(struct db_source *s)
{
    s->backoff_ms = s->backoff_ms == 0 ? REPEAT_MIN_MS : s->backoff_ms * 2;
    if (s->backoff_ms > REPEAT_MAX_MS)
        s->backoff_ms = REPEAT_MAX_MS;
    s->not_before_ms = clock_mono_ms() + jitter(s->backoff_ms);
}

/* --- the moments at which something has to be looked at --- */

static void db_on_wake(uv_timer_t *t);

static void db_wake_at(struct db *db, int64_t at_ms)
{
    if (at_ms >= db->wake_ms || db->state == DB_CLOSING)
        return;
    int64_t delay = at_ms - clock_mono_ms();
    db->wake_ms = at_ms;
    uv_update_time(db->loop);
    uv_timer_start(&db->wake, db_on_wake, delay > 0 ? (uint64_t)delay : 0, 0);
}

static void db_on_wake(uv_timer_t *t)
{
    struct db *db = container_of(t, struct db, wake);
    int64_t now = clock_mono_ms(), next = INT64_MAX;

    db->wake_ms = INT64_MAX;
    for (size_t i = 0; i < db->source_count; i++) {
        struct db_source *s = db->sources[i];
        int64_t at = s->ops->sweep(s, now);
        next = at < next ? at : next;
    }
    if (next != INT64_MAX)
        db_wake_at(db, next < now + SWEEP_MS ? now + SWEEP_MS : next);
    db_pump(db);
}

static void db_on_idle(uv_idle_t *idle)
{
    struct db *db = container_of(idle, struct db, idle);

    uv_idle_stop(idle);
    for (size_t i = db->source_count; i-- > 0;) {
        struct db_source *s = db->sources[i];
        if (!s->is_closing)
            continue;
        if (db->flying == s)
            db->flying = NULL;
        db->sources[i] = db->sources[--db->source_count];
        s->ops->fail_all(s, ERR_CLOSED);
        s->ops->free(s);
    }
    db_pump(db);
}

static void db_kick(struct db *db)
{
    if (db->state != DB_CLOSING)
        uv_idle_start(&db->idle, db_on_idle);
}

void db_added(struct db *db, int64_t deadline_ms)
{
    db->waiting++;
    if (deadline_ms != INT64_MAX)
        db_wake_at(db, deadline_ms);
    if (db->state == DB_FREE)
        db_kick(db);
}

void db_ended(struct db *db)
{
    assert(db->waiting > 0);
    db->waiting--;
}

bool db_is_closing(const struct db *db)
{
    return db->state == DB_CLOSING;
}

struct db_source *db_queries_of(struct db *db)
{
    return db->queries;
}

bool db_source_join(struct db *db, struct db_source *s)
{
    if (db->source_count == SOURCES_MAX || db->state == DB_CLOSING)
        return false;
    db->sources[db->source_count++] = s;
    return true;
}

void db_source_leave(struct db_source *s)
{
    s->is_closing = true;
    if (!s->db)
        s->ops->free(s); /* its connection has been closed before it */
    else
        db_kick(s->db);
}

/* --- calls --- */

static void db_on_late(uv_timer_t *t)
{
    struct db *db = container_of(t, struct db, timer);
    db_lost(db, db->state == DB_CONNECTING ? "no connection in time" : "no answer in time");
}

static struct db_source *db_next(struct db *db)
{
    int64_t now = clock_mono_ms();

    for (size_t i = 1; i <= db->source_count; i++) {
        size_t at = (db->turn + i) % db->source_count;
        struct db_source *s = db->sources[at];
        if (s->is_closing || !s->ops->is_ready(s))
            continue;
        if (s->not_before_ms > now) {
            db_wake_at(db, s->not_before_ms);
            continue;
        }
        db->turn = at;
        return s;
    }
    return NULL;
}

static int db_send(struct db *db, struct db_source *s)
{
    db->flying = s;
    if (s->ops->prepare && s->prepared != db->connection) {
        db->state = DB_PREPARING;
        return s->ops->prepare(s, db->conn.pg);
    }
    db->state = DB_CALLING;
    (void)FAILPOINT_OF("db", s->name, "before", PQsocket(db->conn.pg));
    return s->ops->send(s, db->conn.pg);
}

static void db_pump(struct db *db)
{
    struct db_source *s;

    while (db->state == DB_FREE && (s = db_next(db)) != NULL) {
        int sent = db_send(db, s);
        if (sent < 0) {
            db->state = DB_FREE;
            db->flying = NULL;
            continue;
        }
        if (sent == 0 || !db_conn_flush(&db->conn)) {
            db_lost(db, PQerrorMessage(db->conn.pg));
            return;
        }
        db->began_us = clock_mono_us();
        uv_timer_start(&db->timer, db_on_late, (uint64_t)db->config.answer_ms, 0);
    }
}

static void db_report(const struct db *db, const struct db_source *s, const PGresult *result, enum db_fate fate)
{
    /* The primary message only: DETAIL and CONTEXT quote rows. */
    log_event(fate == DB_REPEAT ? LOG_INFO : LOG_WARN, fate == DB_REPEAT ? "db_repeats" : "db_refuses",
              (const struct log_field[]){ log_str("db", db->config.name), log_str("call", s->name),
                                          log_str("sqlstate", PQresultErrorField(result, PG_DIAG_SQLSTATE)),
                                          log_str("error", PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY)) },
              4);
}

static void db_answered(struct db *db)
{
    struct db_source *s = db->flying;
    bool was_preparing = db->state == DB_PREPARING, is_bad;
    PGresult *result = db->result;
    enum db_fate fate = db_fate_of(result, &is_bad);

    if (s && !was_preparing && FAILPOINT_OF("db", s->name, "after", PQsocket(db->conn.pg)))
        fate = DB_GONE;
    if (fate == DB_GONE || PQstatus(db->conn.pg) == CONNECTION_BAD) {
        db_lost(db, result ? PQresultErrorMessage(result) : PQerrorMessage(db->conn.pg));
        return;
    }
    uv_timer_stop(&db->timer);
    db->state = DB_FREE;
    db->flying = NULL;
    db->result = NULL;
    if (s && fate != DB_DONE && fate != DB_ROW) /* of bad rows their gather speaks */
        db_report(db, s, result, fate);
    if (s && was_preparing) {
        if (fate == DB_DONE)
            s->prepared = db->connection;
        else
            source_back_off(s);                     /* the schema is not there yet, say; rows go on waiting */
        db->turn = db->turn + db->source_count - 1; /* its turn is still to come */
        s = NULL;
    } else if (s) {
        if (fate == DB_DONE)
            s->backoff_ms = db->reconnect_ms = 0;
        else if (fate != DB_ROW)
            source_back_off(s);
        if (db->observe)
            db->observe(db->observe_ctx, s->name, s->flying, clock_mono_us() - db->began_us);
        s->ops->answered(s, &(struct db_result){ result }, fate);
    }
    if (is_bad)
        db_lost(db, "the session is of no use");
    db_pump(db);
    if (s)
        s->ops->deliver(s, &(struct db_result){ result });
    PQclear(result);
    db_pump(db); /* what the callbacks added */
}

static void db_keep_result(struct db *db, PGresult *result)
{
    bool is_bad;
    if (db->result && db_fate_of(db->result, &is_bad) != DB_DONE) {
        PQclear(result); /* what follows the first error says less */
        return;
    }
    PQclear(db->result);
    db->result = result;
}

static void db_read(struct db *db)
{
    if (!PQconsumeInput(db->conn.pg)) {
        db_lost(db, PQerrorMessage(db->conn.pg));
        return;
    }
    while ((db->state == DB_PREPARING || db->state == DB_CALLING) && !PQisBusy(db->conn.pg)) {
        PGresult *result = PQgetResult(db->conn.pg);
        if (result)
            db_keep_result(db, result);
        else
            db_answered(db); /* may send the next one, or lose the connection */
    }
    for (PGnotify *n; db->conn.pg && (n = PQnotifies(db->conn.pg)) != NULL;)
        PQfreemem(n);
    if (db->conn.pg && PQstatus(db->conn.pg) == CONNECTION_BAD)
        db_lost(db, PQerrorMessage(db->conn.pg));
}

/* --- connecting --- */

static void db_drop(struct db *db)
{
    PQclear(db->result);
    db->result = NULL;
    db->flying = NULL;
    db_conn_drop(&db->conn);
}

static void db_on_reconnect(uv_timer_t *t)
{
    db_connect(container_of(t, struct db, timer));
}

static void db_lost(struct db *db, const char *why)
{
    bool was_up = db->state != DB_CONNECTING && db->state != DB_DOWN;
    struct db_source *s = db->state == DB_CALLING ? db->flying : NULL;
    int64_t now = clock_mono_ms();

    if (was_up || now - db->logged_ms >= STILL_DOWN_MS) {
        db->logged_ms = now;
        char line[256];
        (void)snprintf(line, sizeof line, "%.*s", (int)strcspn(why, "\n"), why); /* what follows quotes SQL */
        log_warn("db_down", log_str("db", db->config.name), log_str("error", line));
    }
    uv_timer_stop(&db->timer);
    db_drop(db);
    db->state = DB_DOWN;
    db->reconnect_ms = db->reconnect_ms == 0 ? RECONNECT_MIN_MS : db->reconnect_ms * 2;
    if (db->reconnect_ms > RECONNECT_MAX_MS)
        db->reconnect_ms = RECONNECT_MAX_MS;
    uv_update_time(db->loop);
    uv_timer_start(&db->timer, db_on_reconnect, (uint64_t)jitter(db->reconnect_ms), 0);
    if (s)
        s->ops->answered(s, NULL, DB_GONE);
    if (was_up && db->config.on_state)
        db->config.on_state(db->config.ctx, false);
}

static void db_conn_on_up(struct db_conn *conn)
{
    struct db *db = container_of(conn, struct db, conn);

    uv_timer_stop(&db->timer);
    db->connection++;
    db->state = DB_FREE;
    db->logged_ms = INT64_MIN / 2;
    log_info("db_up", log_str("db", db->config.name));
    if (db->config.on_state)
        db->config.on_state(db->config.ctx, true);
    if (db->state == DB_FREE)
        db_pump(db);
}

static void db_conn_on_lost(struct db_conn *conn, const char *why)
{
    db_lost(container_of(conn, struct db, conn), why);
}

static void db_conn_on_readable(struct db_conn *conn)
{
    db_read(container_of(conn, struct db, conn));
}

static void db_connect(struct db *db)
{
    db->state = DB_CONNECTING;
    uv_update_time(db->loop);
    uv_timer_start(&db->timer, db_on_late, CONNECT_MS, 0);
    db_conn_open(&db->conn, db->config.answer_ms / 6 * 5);
}

/* --- life --- */

static void db_on_first(uv_timer_t *t)
{
    db_connect(container_of(t, struct db, timer));
}

struct db *db_new(uv_loop_t *loop, const struct db_config *config)
{
    struct db *db = NULL;

    if (db_url_check(config->url) != ERR_OK || !(db = calloc(1, sizeof *db)))
        return NULL;
    db->loop = loop;
    db->config = *config;
    if (db->config.answer_ms <= 0)
        db->config.answer_ms = ANSWER_MS;
    db->wake_ms = INT64_MAX;
    db->logged_ms = INT64_MIN / 2;
    db->conn = (struct db_conn){ .loop = loop,
                                 .url = strdup(config->url),
                                 .name = config->name,
                                 .on_up = db_conn_on_up,
                                 .on_readable = db_conn_on_readable,
                                 .on_lost = db_conn_on_lost };
    db->queries = db_queries_new(db);
    if (!db->conn.url || !db->queries || !db_source_join(db, db->queries)) {
        free(db->conn.url);
        if (db->queries)
            db->queries->ops->free(db->queries);
        free(db);
        return NULL;
    }
    uv_timer_init(loop, &db->timer);
    uv_timer_init(loop, &db->wake);
    uv_idle_init(loop, &db->idle);
    db->handles = 3;
    uv_timer_start(&db->timer, db_on_first, 0, 0); /* on_state never comes from inside db_new */
    return db;
}

static void db_on_handle_closed(uv_handle_t *handle)
{
    struct db *db = handle->data;

    if (--db->handles > 0)
        return;
    for (size_t i = 0; i < db->source_count; i++)
        db->sources[i]->ops->fail_all(db->sources[i], ERR_CLOSED);
    for (size_t i = 0; i < db->source_count; i++) {
        struct db_source *s = db->sources[i];
        s->db = NULL; /* a gather that its owner still holds: adding is refused, freeing works */
        if (s->is_closing || s == db->queries)
            s->ops->free(s);
    }
    assert(db->waiting == 0);
    if (db->on_closed)
        db->on_closed(db->closed_ctx);
    free(db->conn.url);
    free(db);
}

void db_close(struct db *db, void (*on_closed)(void *ctx), void *ctx)
{
    uv_handle_t *handles[] = { (uv_handle_t *)&db->timer, (uv_handle_t *)&db->wake, (uv_handle_t *)&db->idle };

    assert(db->state != DB_CLOSING);
    db->state = DB_CLOSING;
    db->on_closed = on_closed;
    db->closed_ctx = ctx;
    db_drop(db);
    for (size_t i = 0; i < ARRAY_LEN(handles); i++) {
        handles[i]->data = db;
        uv_close(handles[i], db_on_handle_closed);
    }
}

int64_t db_owed_ms(const struct db *db)
{
    if (!db || (db->state != DB_CALLING && db->state != DB_PREPARING))
        return 0;
    return (clock_mono_us() - db->began_us) / 1000;
}

bool db_is_up(const struct db *db)
{
    return db->state == DB_FREE || db->state == DB_PREPARING || db->state == DB_CALLING;
}

size_t db_waiting(const struct db *db)
{
    return db->waiting;
}

void db_forget(struct db *db, void *ctx)
{
    for (size_t i = 0; i < db->source_count; i++)
        db->sources[i]->ops->forget(db->sources[i], ctx);
}

void db_observe(struct db *db, void (*fn)(void *ctx, const char *name, size_t rows, int64_t us), void *ctx)
{
    db->observe = fn;
    db->observe_ctx = ctx;
}
