/* db_gather.c - rows that wait, as the array literals they will be sent as.
 *
 * A row is encoded into its batch's columns when it is added: one growing text per column, `{"a","b",NULL`, and the
 * place where each row ends in it, so that a part of a batch can be sent again. A batch is sealed when it is first
 * sent; later rows go into the next one. What is left of a batch to send is a stack of ranges: one at first, halved
 * while PostgreSQL refuses it. An answered range is off the stack, and its rows are ended, before the next call is
 * sent; only then are its callbacks run, so its batch is kept until they are over (`told`). */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/text.h"
#include "common/io/db_inner.h"

enum {
    COLUMNS_MAX = 24,
    CONSTS_MAX = 8,
    ROWS_DEFAULT = 500,
    ROWS_MAX = 10000,
    RANGES_MAX = 32,
    KEPT_BYTES = 256 << 10, /* a column's memory that a spare batch may keep */
    NAME_MAX_BYTES = 64,
};
#define NOBODY UINT32_MAX
static const size_t batch_bytes_max = 4 << 20;     /* a batch past it takes no further row */
static const size_t row_bytes_max = 64 << 20;      /* of one value */
static const size_t waiting_bytes_max = 256 << 20; /* of one gather */
static const size_t waiting_rows_max = 400000;

struct column {
    char *data;
    size_t len, cap;
};

struct row {
    db_adapt_row_fn *adapt; /* NULL: forgotten */
    db_plain_fn *user;
    void *ctx;
    int64_t deadline_ms;
    bool is_ended;  /* has had its callback; is not sent (again) */
    bool is_flying; /* in the call under way */
    bool is_unsure; /* was in a call whose answer never came */
};

struct range {
    size_t from, to;
};

struct batch {
    struct batch *next;
    struct row *rows;
    uint32_t *ends; /* [row * columns + column]: the length of the column's text after that row */
    size_t count, cap, bytes;
    struct range ranges[RANGES_MAX];
    size_t range_count;
    bool is_sealed, is_told, is_dropped; /* is_told: of gather.told; is_dropped: to be recycled once that is over */
    struct column columns[];
};

struct db_gather {
    struct db_source source;
    struct db_call call;
    char statement[NAME_MAX_BYTES];
    char *consts[CONSTS_MAX];
    size_t const_count;
    struct batch *head, *tail, *spare;
    size_t live, bytes;      /* rows that still want an answer; of the batches */
    uint32_t *order;         /* row numbers of the call under way, by ord - 1 */
    struct told {            /* answered, and not told yet */
        struct batch *batch; /* NULL: nothing to tell */
        uint32_t *order;     /* as above; NOBODY: that row had ended before */
        size_t count;
        enum err err; /* ERR_OK: each has its row of the result */
    } told;
    int *answer_of;                  /* scratch: result row by ord - 1 */
    struct column part[COLUMNS_MAX]; /* scratch: columns of a part of a batch */
};

/* --- encoding --- */

static bool column_grow(struct column *c, size_t more)
{
    if (c->len + more + 2 <= c->cap)
        return true;
    size_t cap = c->cap ? c->cap : 256;
    while (cap < c->len + more + 2)
        cap *= 2;
    char *data = realloc(c->data, cap);
    if (!data)
        return false;
    c->data = data;
    c->cap = cap;
    return true;
}

static void column_add(struct column *c, const char *data, size_t len) /* the room is there */
{
    memcpy(c->data + c->len, data, len);
    c->len += len;
}

static void column_quote(struct column *c, const char *s, size_t len)
{
    char *out = c->data + c->len;
    *out++ = '"';
    for (size_t i = 0; i < len; i++) {
        if (s[i] == '"' || s[i] == '\\')
            *out++ = '\\';
        *out++ = s[i];
    }
    *out++ = '"';
    c->len = (size_t)(out - c->data);
}

static void column_int(struct column *c, int64_t n)
{
    char digits[I64_TEXT];
    size_t len;
    const char *text = i64_text(digits, n, &len);

    column_add(c, text, len);
}

static bool column_encode(struct column *c, const struct db_value *v, size_t len, bool is_first)
{
    if (!column_grow(c, v->kind == DB_TEXT ? 2 * len + 4 : 32))
        return false;
    column_add(c, is_first ? "{" : ",", 1);
    switch (v->kind) {
    case DB_TEXT:
        column_quote(c, v->text, len);
        break;
    case DB_INT:
        column_int(c, v->num);
        break;
    case DB_BOOL:
        column_add(c, v->num ? "t" : "f", 1);
        break;
    case DB_NULL:
        column_add(c, "NULL", 4);
        break;
    }
    return true;
}

static void column_close(struct column *c) /* two bytes are always left for this */
{
    c->data[c->len] = '}';
    c->data[c->len + 1] = '\0';
}

/* --- batches --- */

static void batch_free(struct batch *b, size_t columns)
{
    if (!b)
        return;
    for (size_t i = 0; i < columns; i++)
        free(b->columns[i].data);
    free(b->rows);
    free(b->ends);
    free(b);
}

static struct batch *batch_new(struct db_gather *g)
{
    struct batch *b = g->spare;

    g->spare = NULL;
    if (!b)
        b = calloc(1, sizeof *b + g->call.columns * sizeof b->columns[0]);
    return b;
}

static void batch_recycle(struct db_gather *g, struct batch *b)
{
    g->bytes -= b->bytes;
    if (g->spare) {
        batch_free(b, g->call.columns);
        return;
    }
    for (size_t i = 0; i < g->call.columns; i++) {
        b->columns[i].len = 0;
        if (b->columns[i].cap > KEPT_BYTES) {
            free(b->columns[i].data);
            b->columns[i] = (struct column){ 0 };
        }
    }
    b->next = NULL;
    b->count = b->bytes = b->range_count = 0;
    b->is_sealed = b->is_dropped = false;
    g->spare = b;
}

static void gather_drop_head(struct db_gather *g)
{
    struct batch *b = g->head;
    g->head = b->next;
    if (!g->head)
        g->tail = NULL;
    b->is_dropped = true;
    if (!b->is_told)
        batch_recycle(g, b);
}

static struct batch *gather_open_batch(struct db_gather *g)
{
    struct batch *b = g->tail;

    if (b && !b->is_sealed && b->count < g->call.max_rows && b->bytes < batch_bytes_max)
        return b;
    b = batch_new(g);
    if (!b)
        return NULL;
    if (g->tail)
        g->tail->next = b;
    else
        g->head = b;
    g->tail = b;
    return b;
}

static bool batch_has_room(struct batch *b, size_t columns)
{
    if (b->count < b->cap)
        return true;
    size_t cap = b->cap ? b->cap * 2 : 16;
    struct row *rows = realloc(b->rows, cap * sizeof *rows);
    if (!rows)
        return false;
    b->rows = rows;
    uint32_t *ends = realloc(b->ends, cap * columns * sizeof *ends);
    if (!ends)
        return false;
    b->ends = ends;
    b->cap = cap;
    return true;
}

static void row_tell(struct db_gather *g, const struct row *row, enum err err, const struct db_result *result, int at)
{
    struct row r = *row; /* the callback may add rows, and move this one */

    db_ended(g->source.db);
    if (r.adapt)
        r.adapt(r.user, r.ctx, err, result, at);
}

static void row_end(struct db_gather *g, struct row *row, enum err err)
{
    row->is_ended = true;
    g->live--;
    row_tell(g, row, err, NULL, -1);
}

/* --- adding --- */

enum err db_gather_add_as(struct db_gather *g, const struct db_value *values, db_adapt_row_fn *adapt, db_plain_fn *user,
                          void *ctx)
{
    size_t lens[COLUMNS_MAX] = { 0 }, columns = g->call.columns, bytes = 0;
    struct batch *b;

    if (!g->source.db || g->source.is_closing || db_is_closing(g->source.db))
        return ERR_CLOSED;
    for (size_t i = 0; i < columns; i++) {
        if (values[i].kind != DB_TEXT)
            continue;
        lens[i] = strlen(values[i].text);
        if (lens[i] > row_bytes_max || !utf8_valid(values[i].text, lens[i]))
            return ERR_ARGUMENT;
        bytes += lens[i];
    }
    if (g->live >= waiting_rows_max || g->bytes + bytes > waiting_bytes_max)
        return ERR_NOMEM;
    b = gather_open_batch(g);
    if (!b || !batch_has_room(b, columns))
        return ERR_NOMEM;
    for (size_t i = 0; i < columns; i++) {
        if (!column_encode(&b->columns[i], &values[i], lens[i], b->count == 0)) {
            while (i-- > 0) /* the row is in all columns or in none */
                b->columns[i].len = b->count ? b->ends[(b->count - 1) * columns + i] : 0;
            return ERR_NOMEM;
        }
    }
    for (size_t i = 0; i < columns; i++)
        b->ends[b->count * columns + i] = (uint32_t)b->columns[i].len;
    int patience_ms = g->call.patience_ms;
    int64_t deadline_ms = patience_ms ? clock_mono_ms() + patience_ms : INT64_MAX;
    b->rows[b->count++] = (struct row){ .adapt = adapt, .user = user, .ctx = ctx, .deadline_ms = deadline_ms };
    b->bytes += bytes;
    g->bytes += bytes;
    g->live++;
    db_added(g->source.db, deadline_ms);
    return ERR_OK;
}

static void row_plain(db_plain_fn *user, void *ctx, enum err err, const struct db_result *result, int row)
{
    if (user)
        ((db_row_fn *)user)(ctx, err, result, row);
}

enum err db_gather_add(struct db_gather *g, const struct db_value *values, db_row_fn *fn, void *ctx)
{
    return db_gather_add_as(g, values, row_plain, (db_plain_fn *)fn, ctx);
}

/* --- a source's operations --- */

static struct db_gather *gather_of(struct db_source *s)
{
    return container_of(s, struct db_gather, source);
}

static bool gather_is_ready(const struct db_source *s)
{
    const struct db_gather *g = container_of(s, const struct db_gather, source);
    return g->live > 0;
}

static int gather_prepare(struct db_source *s, PGconn *pg)
{
    struct db_gather *g = gather_of(s);
    return PQsendPrepare(pg, g->statement, g->call.sql, 0, NULL);
}

/* The columns of the rows in g->order, cut out of the batch. */
static bool gather_cut(struct db_gather *g, const struct batch *b, size_t count)
{
    for (size_t c = 0; c < g->call.columns; c++) {
        struct column *part = &g->part[c];
        part->len = 0;
        for (size_t i = 0; i < count; i++) {
            size_t row = g->order[i], columns = g->call.columns;
            size_t from = row ? b->ends[(row - 1) * columns + c] + 1 : 1; /* past the brace or the comma */
            size_t len = b->ends[row * columns + c] - from;
            if (!column_grow(part, len + 1))
                return false;
            column_add(part, i ? "," : "{", 1);
            column_add(part, b->columns[c].data + from, len);
        }
        column_close(part);
    }
    return true;
}

static void gather_release_part(struct db_gather *g)
{
    for (size_t c = 0; c < g->call.columns; c++) {
        if (g->part[c].cap > KEPT_BYTES) {
            free(g->part[c].data);
            g->part[c] = (struct column){ 0 };
        }
    }
}

/* Numbers the rows of the head's next range that still want an answer; drops ranges and batches without any. */
static size_t gather_next_range(struct db_gather *g)
{
    while (g->head) {
        struct batch *b = g->head;
        if (!b->is_sealed) {
            b->is_sealed = true;
            b->ranges[0] = (struct range){ 0, b->count };
            b->range_count = 1;
        }
        while (b->range_count > 0) {
            struct range r = b->ranges[b->range_count - 1];
            size_t count = 0;
            for (size_t i = r.from; i < r.to; i++)
                if (!b->rows[i].is_ended)
                    g->order[count++] = (uint32_t)i;
            if (count > 0)
                return count;
            b->range_count--;
        }
        gather_drop_head(g);
    }
    return 0;
}

static int gather_send(struct db_source *s, PGconn *pg)
{
    struct db_gather *g = gather_of(s);
    const char *params[CONSTS_MAX + COLUMNS_MAX];
    size_t count = gather_next_range(g), consts = g->const_count;

    if (count == 0)
        return -1;
    struct batch *b = g->head;
    bool is_whole = count == b->count;
    if (!is_whole && !gather_cut(g, b, count))
        return 0;
    for (size_t i = 0; i < consts; i++)
        params[i] = g->consts[i];
    for (size_t c = 0; c < g->call.columns; c++) {
        if (is_whole)
            column_close(&b->columns[c]);
        params[consts + c] = is_whole ? b->columns[c].data : g->part[c].data;
    }
    for (size_t i = 0; i < count; i++)
        b->rows[g->order[i]].is_flying = true;
    s->flying = count;
    int sent = PQsendQueryPrepared(pg, g->statement, (int)(consts + g->call.columns), params, NULL, NULL, 0);
    gather_release_part(g);
    return sent;
}

/* The rows of the call that was answered end here; `order` is free for the next one. */
static void gather_note(struct db_gather *g, struct batch *b, enum err err, size_t count)
{
    uint32_t *order = g->order;

    g->order = g->told.order;
    g->told = (struct told){ .batch = b, .order = order, .count = count, .err = err };
    b->is_told = true;
    for (size_t i = 0; i < count; i++) {
        struct row *row = &b->rows[order[i]];
        if (row->is_ended)
            order[i] = NOBODY; /* its patience was over before */
        else
            g->live--;
        row->is_ended = true;
    }
}

static void gather_find_answers(struct db_gather *g, const PGresult *pg, size_t count)
{
    int ord = PQfnumber(pg, "ord"), rows = PQntuples(pg);

    for (size_t i = 0; i < count; i++)
        g->answer_of[i] = -1;
    for (int i = 0; i < rows && ord >= 0; i++) {
        int64_t n;
        if (parse_i64(PQgetvalue(pg, i, ord), 1, (int64_t)count, &n) == ERR_OK && g->answer_of[n - 1] < 0)
            g->answer_of[n - 1] = i;
    }
}

static void gather_deliver(struct db_source *s, const struct db_result *result)
{
    struct db_gather *g = gather_of(s);
    struct batch *b = g->told.batch;

    if (!b)
        return;
    if (g->told.err == ERR_OK)
        gather_find_answers(g, result->pg, g->told.count);
    for (size_t i = 0; i < g->told.count; i++) {
        int at = g->told.err == ERR_OK ? g->answer_of[i] : -1;
        if (g->told.order[i] == NOBODY)
            continue;
        if (at < 0 && g->told.err == ERR_OK)
            log_warn("db_row_without_answer", log_str("call", g->call.name));
        row_tell(g, &b->rows[g->told.order[i]], at < 0 ? ERR_REFUSED : ERR_OK, at < 0 ? NULL : result, at);
    }
    g->told.batch = NULL;
    b->is_told = false;
    if (b->is_dropped)
        batch_recycle(g, b);
}

static void gather_halve(struct db_gather *g, struct batch *b, const struct db_result *result, size_t count)
{
    struct range r = b->ranges[--b->range_count];

    if (count > 1) { /* halves by living rows, so that each step makes progress */
        size_t middle = g->order[count / 2];
        assert(b->range_count + 2 <= RANGES_MAX);
        b->ranges[b->range_count++] = (struct range){ middle, r.to };
        b->ranges[b->range_count++] = (struct range){ r.from, middle };
        return;
    }
    /* Not the message: of a data error it quotes the data. */
    log_warn("db_row_refused", log_str("call", g->call.name), log_str("sqlstate", db_sqlstate(result)));
    gather_note(g, b, ERR_REFUSED, count);
}

static void gather_answered(struct db_source *s, const struct db_result *result, enum db_fate fate)
{
    struct db_gather *g = gather_of(s);
    struct batch *b = g->head;
    size_t count = s->flying;

    s->flying = 0;
    for (size_t i = 0; i < count; i++) {
        struct row *row = &b->rows[g->order[i]];
        row->is_flying = false;
        row->is_unsure = row->is_unsure || fate == DB_GONE;
    }
    if (fate == DB_DONE) {
        b->range_count--;
        gather_note(g, b, ERR_OK, count);
    } else if (fate == DB_GONE && g->call.is_once) {
        b->range_count--;
        for (size_t i = 0; i < count; i++)
            if (!b->rows[g->order[i]].is_ended)
                row_end(g, &b->rows[g->order[i]], ERR_LOST);
    } else if (fate == DB_ROW) {
        gather_halve(g, b, result, count);
    }
    if (b->range_count == 0)
        gather_drop_head(g);
}

static enum err row_lost(const struct row *row)
{
    return row->is_flying || row->is_unsure ? ERR_LOST : ERR_UNAVAILABLE;
}

static int64_t gather_sweep(struct db_source *s, int64_t now_ms)
{
    struct db_gather *g = gather_of(s);
    int64_t next = INT64_MAX;

    if (g->call.patience_ms == 0 || g->live == 0)
        return next;
    for (struct batch *b = g->head; b; b = b->next) {
        for (size_t i = 0, count = b->count; i < count; i++) {
            struct row *row = &b->rows[i];
            if (row->is_ended)
                continue;
            if (row->deadline_ms <= now_ms)
                row_end(g, row, row_lost(row));
            else if (row->deadline_ms < next)
                next = row->deadline_ms;
        }
    }
    while (g->live == 0 && s->flying == 0 && g->head)
        gather_drop_head(g);
    return next;
}

static void batch_forget(struct batch *b, const void *ctx)
{
    for (size_t i = 0; i < b->count; i++)
        if (b->rows[i].ctx == ctx)
            b->rows[i].adapt = NULL;
}

static void gather_forget(struct db_source *s, const void *ctx)
{
    struct db_gather *g = gather_of(s);

    for (struct batch *b = g->head; b; b = b->next)
        batch_forget(b, ctx);
    if (g->told.batch)
        batch_forget(g->told.batch, ctx);
}

static void gather_fail_all(struct db_source *s, enum err err)
{
    struct db_gather *g = gather_of(s);

    for (struct batch *b = g->head; b; b = b->next)
        for (size_t i = 0; i < b->count; i++)
            if (!b->rows[i].is_ended)
                row_end(g, &b->rows[i], err);
}

static void gather_free(struct db_source *s)
{
    struct db_gather *g = gather_of(s);

    for (struct batch *b = g->head, *next; b; b = next) {
        next = b->next;
        batch_free(b, g->call.columns);
    }
    batch_free(g->spare, g->call.columns);
    for (size_t i = 0; i < CONSTS_MAX; i++)
        free(g->consts[i]);
    for (size_t i = 0; i < COLUMNS_MAX; i++)
        free(g->part[i].data);
    free(g->order);
    free(g->told.order);
    free(g->answer_of);
    free(g);
}

static const struct db_source_ops gather_ops = {
    .is_ready = gather_is_ready,
    .prepare = gather_prepare,
    .send = gather_send,
    .answered = gather_answered,
    .deliver = gather_deliver,
    .sweep = gather_sweep,
    .forget = gather_forget,
    .fail_all = gather_fail_all,
    .free = gather_free,
};

struct db_gather *db_gather_new(struct db *db, const struct db_call *call, const char *const *consts,
                                size_t const_count)
{
    static unsigned serial; /* two gathers of one connection may share a name, but not a statement */
    struct db_gather *g;

    assert(call->columns >= 1 && call->columns <= COLUMNS_MAX && const_count <= CONSTS_MAX);
    assert(call->max_rows <= ROWS_MAX);
    if (!(g = calloc(1, sizeof *g)))
        return NULL;
    g->source = (struct db_source){ .ops = &gather_ops, .db = db, .name = call->name };
    g->call = *call;
    if (g->call.max_rows == 0)
        g->call.max_rows = ROWS_DEFAULT;
    (void)snprintf(g->statement, sizeof g->statement, "%.40s_%u", call->name, ++serial);
    g->order = calloc(g->call.max_rows, sizeof *g->order);
    g->told.order = calloc(g->call.max_rows, sizeof *g->told.order);
    g->answer_of = calloc(g->call.max_rows, sizeof *g->answer_of);
    bool ok = g->order && g->told.order && g->answer_of;
    for (size_t i = 0; i < const_count && ok; i++)
        ok = !consts[i] || (g->consts[i] = strdup(consts[i])) != NULL;
    g->const_count = const_count;
    if (!ok || !db_source_join(db, &g->source)) {
        gather_free(&g->source);
        return NULL;
    }
    return g;
}

void db_gather_free(struct db_gather *g)
{
    if (g)
        db_source_leave(&g->source);
}
