/* sweep.c - garbage.
 *
 * Uploads: kiln_sweep_uploads names the expired, a thread removes their objects, the next call deletes the rows: a
 * death in between leaves no orphan. Objects: a thread walks the store and asks PostgreSQL in batches, over a
 * connection of its own (blocking: it is no loop), which of them nobody needs: results of finished jobs that no
 * artifact names, and uploads without a row. Only what is older than a day for uploads, an hour for results, is looked
 * at. */
#include "dispatcher/sweep.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/clock.h"
#include "common/base/log.h"
#include "dispatcher/dispatcher.h"

enum {
    ROWS_EVERY_MS = 60000,
    WALK_EVERY_MS = 3600000,
    WALK_FIRST_MS = 60000,
    BATCH = 200,
    RESULT_AGE_S = 3600,
    UPLOAD_AGE_S = 26 * 3600,
    TEMP_AGE_S = 86400,
    PATIENCE_MS = 10000,
    OBJECT_MAX = 160,
};

struct names {
    char names[BATCH][OBJECT_MAX];
    char ids[BATCH][UUID_TEXT]; /* of uploads */
    size_t count;
};

struct sweep {
    struct dispatcher *d;
    uv_work_t rows_work, walk_work;
    bool is_asking, is_removing, is_walking, is_closing;
    volatile bool is_stopping; /* read by the walking thread */
    int64_t rows_ms, walk_ms;
    struct names expired; /* named by PostgreSQL, then removed by the thread */
    struct names walked;  /* the walking thread's */
    const char *kind_sql;
    size_t removed;
    void (*on_closed)(void *ctx);
    void *closed_ctx;
};

static void sweep_check_closed(struct sweep *s)
{
    if (!s->is_closing || s->is_removing || s->is_walking)
        return;
    s->on_closed(s->closed_ctx);
    free(s);
}

/* ---- expired uploads ---- */

static void rows_ask(struct sweep *s);

static void rows_work(uv_work_t *work)
{
    struct sweep *s = container_of(work, struct sweep, rows_work);

    for (size_t i = 0; i < s->expired.count; i++) {
        if (store_remove(s->d->store, s->expired.names[i]) != ERR_OK)
            s->expired.ids[i][0] = '\0'; /* its row stays until the object is gone */
    }
}

static void rows_on_work(uv_work_t *work, int status)
{
    struct sweep *s = container_of(work, struct sweep, rows_work);

    (void)status;
    s->is_removing = false;
    if (s->is_closing)
        sweep_check_closed(s);
    else
        rows_ask(s);
}

static void rows_on_result(void *ctx, enum err err, const struct db_result *result)
{
    struct sweep *s = ctx;

    s->is_asking = false;
    s->expired.count = 0;
    if (err != ERR_OK || db_rows(result) == 0)
        return;
    for (int i = 0; i < db_rows(result) && i < BATCH; i++) {
        snprintf(s->expired.names[s->expired.count], OBJECT_MAX, "%s", db_col(result, i, "object"));
        snprintf(s->expired.ids[s->expired.count++], UUID_TEXT, "%s", db_col(result, i, "id"));
    }
    log_info("swept_uploads", log_int("count", (int64_t)s->expired.count));
    s->is_removing = uv_queue_work(s->d->loop, &s->rows_work, rows_work, rows_on_work) == 0;
}

static void rows_ask(struct sweep *s)
{
    struct buf done = { 0 };
    char max[12];
    const char *values[2];
    bool has_any = false;

    (void)buf_str(&done, "{");
    for (size_t i = 0; i < s->expired.count; i++) {
        if (s->expired.ids[i][0] != '\0') {
            (void)buf_printf(&done, "%s%s", has_any ? "," : "", s->expired.ids[i]);
            has_any = true;
        }
    }
    (void)buf_str(&done, "}");
    if (s->expired.count > 0 && !has_any) { /* storage refuses: not in a circle */
        buf_done(&done);
        s->expired.count = 0;
        return;
    }
    snprintf(max, sizeof(max), "%d", BATCH);
    values[0] = done.data;
    values[1] = max;
    s->is_asking =
        done.data != NULL && db_query(s->d->repair_db, "select * from kiln_sweep_uploads($1::uuid[], $2::int)", 2,
                                      values, PATIENCE_MS, rows_on_result, s) == ERR_OK;
    buf_done(&done);
}

static void keys_on_result(void *ctx, enum err err, const struct db_result *result)
{
    struct sweep *s = ctx;

    /* full again: there are more; the next tick asks */
    if (err == ERR_OK && db_rows(result) == 1 && db_col_int(result, 0, "n") == 1000)
        s->rows_ms = 0;
}

/* ---- objects that nobody names ---- */

static const char results_sql[] = "select object from kiln_unnamed_results($1::text[])";
static const char uploads_sql[] =
    "select u.o as object from unnest($1::text[]) u(o) "
    "where not exists (select 1 from uploads p where p.id = split_part(u.o, '/', 3)::uuid)";

static void walk_on_rows(void *ctx, const struct db_result *result)
{
    struct sweep *s = ctx;

    for (int i = 0; i < db_rows(result); i++) {
        if (store_remove(s->d->store, db_col(result, i, "object")) == ERR_OK)
            s->removed++;
    }
}

static void walk_flush(struct sweep *s)
{
    struct buf list = { 0 };
    const char *values[1];
    char message[200];

    if (s->walked.count == 0)
        return;
    (void)buf_str(&list, "{");
    for (size_t i = 0; i < s->walked.count; i++) /* our alphabet: nothing to quote */
        (void)buf_printf(&list, "%s%s", i > 0 ? "," : "", s->walked.names[i]);
    (void)buf_str(&list, "}");
    s->walked.count = 0;
    values[0] = list.data;
    if (list.data != NULL &&
        db_sync(s->d->database_url, s->kind_sql, 1, values, walk_on_rows, s, message, sizeof(message)) != ERR_OK)
        s->is_stopping = true; /* not now: in an hour */
    buf_done(&list);
}

/* "job/ab/<id>/…" or "upload/ab/<id>": the third part is a UUID; anything else is not ours to judge. */
static bool is_named_by_id(const char *object)
{
    const char *p = strchr(object, '/');
    char id[UUID_TEXT] = "";

    p = p != NULL ? strchr(p + 1, '/') : NULL;
    if (p == NULL || strlen(p + 1) < UUID_TEXT - 1)
        return false;
    memcpy(id, p + 1, UUID_TEXT - 1);
    return uuid_valid(id) && (p[UUID_TEXT] == '\0' || p[UUID_TEXT] == '/');
}

static bool walk_on_object(void *ctx, const char *object)
{
    struct sweep *s = ctx;

    if (strlen(object) >= OBJECT_MAX || !is_named_by_id(object))
        return !s->is_stopping;
    snprintf(s->walked.names[s->walked.count++], OBJECT_MAX, "%s", object);
    if (s->walked.count == BATCH)
        walk_flush(s);
    return !s->is_stopping;
}

static void walk_work(uv_work_t *work)
{
    struct sweep *s = container_of(work, struct sweep, walk_work);

    s->removed = 0;
    s->kind_sql = results_sql;
    (void)store_walk(s->d->store, "job/", RESULT_AGE_S, walk_on_object, s);
    walk_flush(s);
    s->kind_sql = uploads_sql;
    (void)store_walk(s->d->store, "upload/", UPLOAD_AGE_S, walk_on_object, s);
    walk_flush(s);
    (void)store_sweep_temp(s->d->store, TEMP_AGE_S);
}

static void walk_on_work(uv_work_t *work, int status)
{
    struct sweep *s = container_of(work, struct sweep, walk_work);

    (void)status;
    s->is_walking = false;
    s->is_stopping = false;
    if (s->removed > 0)
        log_info("swept_objects", log_int("count", (int64_t)s->removed));
    sweep_check_closed(s);
}

/* ---- life ---- */

struct sweep *sweep_new(struct dispatcher *d)
{
    struct sweep *s = calloc(1, sizeof(*s));

    if (s == NULL)
        return NULL;
    s->d = d;
    s->walk_ms = clock_mono_ms() + WALK_FIRST_MS;
    return s;
}

void sweep_tick(struct sweep *s)
{
    static const char *const max[] = { "1000" };
    int64_t now = clock_mono_ms();

    if (s->is_closing)
        return;
    if (!s->is_asking && !s->is_removing && now >= s->rows_ms) {
        s->rows_ms = now + ROWS_EVERY_MS;
        rows_ask(s);
        (void)db_query(s->d->repair_db, "select kiln_sweep_keys($1::int) as n", 1, max, PATIENCE_MS, keys_on_result, s);
    }
    if (!s->is_walking && now >= s->walk_ms) {
        s->walk_ms = now + WALK_EVERY_MS;
        s->is_walking = uv_queue_work(s->d->loop, &s->walk_work, walk_work, walk_on_work) == 0;
    }
}

void sweep_close(struct sweep *s, void (*on_closed)(void *ctx), void *ctx)
{
    s->is_closing = true;
    s->is_stopping = true;
    s->on_closed = on_closed;
    s->closed_ctx = ctx;
    db_forget(s->d->repair_db, s);
    sweep_check_closed(s);
}
