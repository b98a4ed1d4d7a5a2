/* db_query.c - single statements of a connection, in the order given. */
#include <stdlib.h>
#include <string.h>
#include "common/base/clock.h"
#include "common/base/text.h"
#include "common/io/db_inner.h"

enum { PARAMS_MAX = 64, QUERIES_MAX = 100000, BINARY_MAX = 1 << 30 };

struct query {
    struct query *next;
    db_adapt_fn *adapt; /* NULL: forgotten */
    db_plain_fn *user;
    void *ctx;
    int64_t deadline_ms;
    bool is_ended;  /* has had its callback */
    bool is_unsure; /* was under way when a connection went */
    enum err told_as;
    const char *sql;
    size_t count;
    const int *lengths, *formats; /* NULL: all values are text */
    const char *values[];
};

struct queries {
    struct db_source source;
    struct query *head, *tail;
    struct query *told; /* answered, out of the list, not told yet */
    size_t live;
};

static struct queries *queries_of(struct db_source *s)
{
    return container_of(s, struct queries, source);
}

static void query_tell(struct queries *all, struct query *q, enum err err, const struct db_result *result)
{
    db_ended(all->source.db);
    if (q->adapt)
        q->adapt(q->user, q->ctx, err, result);
}

static void query_end(struct queries *all, struct query *q, enum err err)
{
    q->is_ended = true;
    all->live--;
    query_tell(all, q, err, NULL);
}

static void queries_unlink_head(struct queries *all)
{
    all->head = all->head->next;
    if (!all->head)
        all->tail = NULL;
}

static void queries_drop_head(struct queries *all)
{
    struct query *q = all->head;
    queries_unlink_head(all);
    free(q);
}

/* One block: the struct, the pointers, lengths and formats, the SQL and the values. */
static struct query *query_new(const char *sql, size_t count, const char *const *values, const size_t *binary)
{
    size_t at = sizeof(struct query) + count * sizeof(char *), sizes[PARAMS_MAX];
    size_t size = at + (binary ? 2 * count * sizeof(int) : 0) + strlen(sql) + 1;

    for (size_t i = 0; i < count; i++) {
        sizes[i] = !values[i] ? 0 : binary && binary[i] ? binary[i] : strlen(values[i]) + 1;
        size += sizes[i];
    }
    struct query *q = calloc(1, size);
    if (!q)
        return NULL;
    char *p = (char *)q + at;
    q->count = count;
    if (binary) {
        int *lengths = (int *)(void *)p, *formats = lengths + count;

        for (size_t i = 0; i < count; i++) {
            lengths[i] = (int)binary[i];
            formats[i] = binary[i] > 0;
        }
        q->lengths = lengths;
        q->formats = formats;
        p += 2 * count * sizeof(int);
    }
    q->sql = memcpy(p, sql, strlen(sql) + 1);
    p += strlen(sql) + 1;
    for (size_t i = 0; i < count; i++) {
        if (!values[i])
            continue;
        q->values[i] = memcpy(p, values[i], sizes[i]);
        p += sizes[i];
    }
    return q;
}

static bool values_fit(size_t count, const char *const *values, const size_t *binary)
{
    for (size_t i = 0; i < count; i++) {
        if (binary && binary[i] > 0 ? !values[i] || binary[i] > BINARY_MAX
                                    : values[i] && !utf8_valid(values[i], strlen(values[i])))
            return false;
    }
    return count <= PARAMS_MAX;
}

enum err db_query_as(struct db *db, const char *sql, size_t count, const char *const *values, const size_t *binary,
                     int patience_ms, db_adapt_fn *adapt, db_plain_fn *user, void *ctx)
{
    struct queries *all = queries_of(db_queries_of(db));

    if (db_is_closing(db))
        return ERR_CLOSED;
    if (!values_fit(count, values, binary))
        return ERR_ARGUMENT;
    if (all->live >= QUERIES_MAX)
        return ERR_NOMEM;
    struct query *q = query_new(sql, count, values, binary);
    if (!q)
        return ERR_NOMEM;
    q->adapt = adapt;
    q->user = user;
    q->ctx = ctx;
    q->deadline_ms = patience_ms ? clock_mono_ms() + patience_ms : INT64_MAX;
    if (all->tail)
        all->tail->next = q;
    else
        all->head = q;
    all->tail = q;
    all->live++;
    db_added(db, q->deadline_ms);
    return ERR_OK;
}

static void query_plain(db_plain_fn *user, void *ctx, enum err err, const struct db_result *result)
{
    if (user)
        ((db_query_fn *)user)(ctx, err, result);
}

enum err db_query(struct db *db, const char *sql, size_t count, const char *const *values, int patience_ms,
                  db_query_fn *fn, void *ctx)
{
    return db_query_as(db, sql, count, values, NULL, patience_ms, query_plain, (db_plain_fn *)fn, ctx);
}

static bool queries_is_ready(const struct db_source *s)
{
    return container_of(s, const struct queries, source)->live > 0;
}

static int queries_send(struct db_source *s, PGconn *pg)
{
    struct queries *all = queries_of(s);

    while (all->head && all->head->is_ended)
        queries_drop_head(all);
    struct query *q = all->head;
    if (!q)
        return -1;
    s->flying = 1;
    return PQsendQueryParams(pg, q->sql, (int)q->count, NULL, q->values, q->lengths, q->formats, 0);
}

static void queries_answered(struct db_source *s, const struct db_result *result, enum db_fate fate)
{
    (void)result;
    struct queries *all = queries_of(s);
    struct query *q = all->head;
    bool was_sent = s->flying > 0;

    s->flying = 0;
    if (fate == DB_GONE) {
        q->is_unsure = q->is_unsure || was_sent;
        return;
    }
    if (fate == DB_REPEAT)
        return;
    if (q->is_ended) {
        queries_drop_head(all);
        return;
    }
    q->told_as = fate == DB_DONE ? ERR_OK : ERR_REFUSED;
    q->is_ended = true;
    all->live--;
    queries_unlink_head(all);
    all->told = q;
}

static void queries_deliver(struct db_source *s, const struct db_result *result)
{
    struct queries *all = queries_of(s);
    struct query *q = all->told;

    if (!q)
        return;
    query_tell(all, q, q->told_as, result);
    all->told = NULL; /* until here, so that it can be forgotten */
    free(q);
}

static int64_t queries_sweep(struct db_source *s, int64_t now_ms)
{
    struct queries *all = queries_of(s);
    int64_t next = INT64_MAX;

    for (struct query *q = all->head; q; q = q->next) {
        if (q->is_ended)
            continue;
        bool is_flying = s->flying > 0 && q == all->head;
        if (q->deadline_ms <= now_ms)
            query_end(all, q, is_flying || q->is_unsure ? ERR_LOST : ERR_UNAVAILABLE);
        else if (q->deadline_ms < next)
            next = q->deadline_ms;
    }
    return next;
}

static void queries_forget(struct db_source *s, const void *ctx)
{
    struct queries *all = queries_of(s);

    for (struct query *q = all->head; q; q = q->next)
        if (q->ctx == ctx)
            q->adapt = NULL;
    if (all->told && all->told->ctx == ctx)
        all->told->adapt = NULL;
}

static void queries_fail_all(struct db_source *s, enum err err)
{
    struct queries *all = queries_of(s);

    for (struct query *q = all->head; q; q = q->next)
        if (!q->is_ended)
            query_end(all, q, err);
}

static void queries_free(struct db_source *s)
{
    struct queries *all = queries_of(s);

    while (all->head)
        queries_drop_head(all);
    free(all);
}

static const struct db_source_ops queries_ops = {
    .is_ready = queries_is_ready,
    .send = queries_send,
    .answered = queries_answered,
    .deliver = queries_deliver,
    .sweep = queries_sweep,
    .forget = queries_forget,
    .fail_all = queries_fail_all,
    .free = queries_free,
};

struct db_source *db_queries_new(struct db *db)
{
    struct queries *all = calloc(1, sizeof *all);
    if (!all)
        return NULL;
    all->source = (struct db_source){ .ops = &queries_ops, .db = db, .name = "query" };
    return &all->source;
}

/* --- parameters in binary: array_recv and uuid_recv of PostgreSQL read them --- */

enum { UUID_OID = 2950, ARRAY_HEAD = 20, UUID_WIRE = 4 + UUID_BYTES };

static void put_be32(char *at, uint32_t n)
{
    for (int i = 0; i < 4; i++)
        at[i] = (char)(n >> (24 - 8 * i) & 0xff);
}

bool db_uuids_add(struct buf *out, const char *uuid)
{
    unsigned char bytes[UUID_BYTES];
    char wire[UUID_WIRE];

    if (!uuid_bytes(bytes, uuid))
        return false;
    if (out->len == 0) { /* dimensions, no NULL among them, of what, how many (db_uuids_end), from 1 on */
        char head[ARRAY_HEAD] = { 0 };
        put_be32(head, 1);
        put_be32(head + 8, UUID_OID);
        put_be32(head + 16, 1);
        if (!buf_add(out, head, ARRAY_HEAD))
            return false;
    }
    put_be32(wire, UUID_BYTES);
    memcpy(wire + 4, bytes, UUID_BYTES);
    return buf_add(out, wire, UUID_WIRE);
}

void db_uuids_end(struct buf *out)
{
    if (out->len >= ARRAY_HEAD)
        put_be32(out->data + 12, (uint32_t)((out->len - ARRAY_HEAD) / UUID_WIRE));
}
