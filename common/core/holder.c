/* holder.c - rows of kiln_start, kiln_checkpoint, kiln_handback and kiln_lost; what is mine; and the beat.
 *
 * The beat is one query a second on a connection of its own, start to start. Its time is taken before it is handed to
 * the connection: where it then waits or is repeated, it counts as older than it is, never as younger (protocol.md,
 * rule 7). */
#include "common/core/holder.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/clock.h"
#include "common/base/text.h"

enum { PATIENCE_MS = 5000, MINE_PATIENCE_MS = 8000, MINE_PAGE = 1000, BEAT_MS = 1000, BEAT_PATIENCE_MS = 1500 };

enum holder_kind { HOLDER_START, HOLDER_CHECKPOINT, HOLDER_HANDBACK, HOLDER_LOST, HOLDER_KINDS };

static const struct db_call calls[HOLDER_KINDS] = {
    [HOLDER_START] = { .name = "start",
                       .sql =
                           "select ord, verdict, fence, attempt, ref, remaining_ms, unknowns, tries, "
                           "attempt_age_ms, provider from kiln_start($1::uuid, $2::uuid[], $3::boolean[], $4::int[], "
                           "$5::jsonb[])",
                       .columns = 4,
                       .patience_ms = PATIENCE_MS,
                       .is_once = true }, /* a start in doubt is asked again with `unsent` (protocol.md, step 5) */
    [HOLDER_CHECKPOINT] = { .name = "checkpoint",
                            .sql = "select ord, verdict from kiln_checkpoint($1::uuid, $2::uuid[], $3::bigint[], "
                                   "$4::int[], $5::text[], $6::text[])",
                            .columns = 5,
                            .patience_ms = PATIENCE_MS },
    [HOLDER_HANDBACK] = { .name = "handback",
                          .sql = "select ord, verdict from kiln_handback($1::uuid, $2::uuid[], $3::bigint[], "
                                 "$4::boolean[])",
                          .columns = 3,
                          .patience_ms = PATIENCE_MS },
    [HOLDER_LOST] = { .name = "lost",
                      .sql = "select ord, verdict from kiln_lost($1::uuid, $2::uuid[], $3::bigint[])",
                      .columns = 2,
                      .patience_ms = PATIENCE_MS },
};

const char *const start_verdict_name[] = {
    "go", "resume", "settle", "unknown", "busy", "later", "finished", "dead"
}; /* in the order of the enum */

/* What the three small functions say, and what it comes to. */
static const char *const words[] = { "saved", "returned", "counted", "stale", "finished", "worker_lost", "open" };
static const enum holder_verdict meanings[] = { HOLDER_DONE,     HOLDER_DONE,     HOLDER_DONE, HOLDER_STALE,
                                                HOLDER_FINISHED, HOLDER_FINISHED, HOLDER_OPEN };

struct holder {
    char worker[UUID_TEXT];
    struct db_gather *gathers[HOLDER_KINDS];
};

void holder_free(struct holder *h)
{
    if (!h)
        return;
    for (size_t i = 0; i < HOLDER_KINDS; i++)
        db_gather_free(h->gathers[i]);
    free(h);
}

struct holder *holder_new(struct db *db, const char *worker)
{
    struct holder *h = calloc(1, sizeof *h);
    const char *consts[] = { worker };

    if (!h)
        return NULL;
    (void)snprintf(h->worker, sizeof h->worker, "%s", worker);
    for (size_t i = 0; i < HOLDER_KINDS; i++) {
        h->gathers[i] = db_gather_new(db, &calls[i], consts, 1);
        if (!h->gathers[i]) {
            holder_free(h);
            return NULL;
        }
    }
    return h;
}

/* --- start --- */

static void start_adapt(db_plain_fn *user, void *ctx, enum err err, const struct db_result *result, int row)
{
    holder_start_fn *fn = (holder_start_fn *)user;
    int verdict =
        err == ERR_OK ? db_col_word(result, row, "verdict", start_verdict_name, ARRAY_LEN(start_verdict_name)) : -1;

    if (verdict < 0) {
        fn(ctx, err == ERR_OK ? ERR_REFUSED : err, NULL);
        return;
    }
    fn(ctx, ERR_OK,
       &(struct holder_started){
           .verdict = (enum start_verdict)verdict,
           .fence = db_col_int(result, row, "fence"),
           .attempt = db_col_int(result, row, "attempt"),
           .ref = db_col(result, row, "ref"),
           .remaining_ms = db_col_int(result, row, "remaining_ms"),
           .unknowns = db_col_int(result, row, "unknowns"),
           .tries = db_col_int(result, row, "tries"),
           .attempt_age_ms = db_col_int(result, row, "attempt_age_ms"),
           .provider = db_col(result, row, "provider"),
       });
}

enum err holder_start(struct holder *h, const char *job, bool unsent, int64_t note_attempt, const char *note,
                      holder_start_fn *fn, void *ctx)
{
    const struct db_value values[] = { db_text(job), db_bool(unsent), note ? db_int(note_attempt) : db_null(),
                                       db_text(note) };
    return db_gather_add_as(h->gathers[HOLDER_START], values, start_adapt, (db_plain_fn *)fn, ctx);
}

/* --- checkpoint, hand back, lost --- */

static void verdict_adapt(db_plain_fn *user, void *ctx, enum err err, const struct db_result *result, int row)
{
    holder_fn *fn = (holder_fn *)user;
    int word = err == ERR_OK ? db_col_word(result, row, "verdict", words, ARRAY_LEN(words)) : -1;

    if (word < 0)
        fn(ctx, err == ERR_OK ? ERR_REFUSED : err, HOLDER_STALE);
    else
        fn(ctx, ERR_OK, meanings[word]);
}

enum err holder_checkpoint(struct holder *h, const char *job, int64_t fence, int64_t attempt, const char *ref,
                           const char *request_id, holder_fn *fn, void *ctx)
{
    const struct db_value values[] = { db_text(job), db_int(fence), db_int(attempt), db_text(ref),
                                       db_text(request_id) };
    return db_gather_add_as(h->gathers[HOLDER_CHECKPOINT], values, verdict_adapt, (db_plain_fn *)fn, ctx);
}

enum err holder_handback(struct holder *h, const char *job, int64_t fence, bool unsent, holder_fn *fn, void *ctx)
{
    const struct db_value values[] = { db_text(job), db_int(fence), db_bool(unsent) };
    return db_gather_add_as(h->gathers[HOLDER_HANDBACK], values, verdict_adapt, (db_plain_fn *)fn, ctx);
}

enum err holder_lost(struct holder *h, const char *job, int64_t fence, holder_fn *fn, void *ctx)
{
    const struct db_value values[] = { db_text(job), db_int(fence) };
    return db_gather_add_as(h->gathers[HOLDER_LOST], values, verdict_adapt, (db_plain_fn *)fn, ctx);
}

/* --- mine: page by page, so that 100,000 jobs stop no loop --- */

struct mine {
    struct db *db;
    holder_mine_fn *fn;
    void *ctx;
    char worker[UUID_TEXT], after[UUID_TEXT];
};

static enum err mine_ask(struct mine *m);

static void mine_on_page(void *ctx, enum err err, const struct db_result *result)
{
    struct mine *m = ctx;
    int rows = err == ERR_OK ? db_rows(result) : 0;

    for (int i = 0; i < rows; i++)
        m->fn(m->ctx, ERR_OK, db_col(result, i, "id"), db_col_int(result, i, "fence"));
    if (rows == MINE_PAGE) {
        (void)snprintf(m->after, sizeof m->after, "%s", db_col(result, rows - 1, "id"));
        err = mine_ask(m);
        if (err == ERR_OK)
            return;
    }
    m->fn(m->ctx, err, NULL, 0);
    free(m);
}

static enum err mine_ask(struct mine *m)
{
    const char *values[] = { m->worker, m->after[0] ? m->after : NULL };

    static_assert(MINE_PAGE == 1000, "the SQL says it too");
    return db_query(m->db, "select id, fence from kiln_held($1::uuid, $2::uuid, 1000)", 2, values, MINE_PATIENCE_MS,
                    mine_on_page, m);
}

enum err holder_mine(struct holder *h, struct db *db, holder_mine_fn *fn, void *ctx)
{
    struct mine *m = calloc(1, sizeof *m);

    if (!m)
        return ERR_NOMEM;
    *m = (struct mine){ .db = db, .fn = fn, .ctx = ctx };
    memcpy(m->worker, h->worker, sizeof m->worker);
    enum err err = mine_ask(m);
    if (err != ERR_OK)
        free(m);
    return err;
}

/* --- beat --- */

struct beat {
    struct beat_config config;
    char worker[UUID_TEXT]; /* "": a dispatcher */
    char *info;
    uv_timer_t timer;
    int64_t began_ms;
    bool is_asking, is_leaving;
    void (*on_left)(void *ctx);
    void *left_ctx;
    void (*on_closed)(void *ctx);
    void *closed_ctx;
};

static void beat_tell_dead(const struct beat *b, const struct db_result *result)
{
    size_t count = (size_t)db_rows(result);
    const char **dead = count && b->config.on_dead ? calloc(count, sizeof *dead) : NULL;

    if (!dead)
        return; /* nobody; or out of memory, and they are told again in a second */
    for (size_t i = 0; i < count; i++)
        dead[i] = db_col(result, (int)i, "dead");
    b->config.on_dead(b->config.ctx, dead, count);
    free(dead);
}

static void beat_on_answer(void *ctx, enum err err, const struct db_result *result)
{
    struct beat *b = ctx;

    b->is_asking = false;
    if (err != ERR_OK)
        return; /* a beat that failed or came late does not count; the next one comes by the timer */
    if (b->config.on_beat)
        b->config.on_beat(b->config.ctx, b->began_ms);
    beat_tell_dead(b, result);
}

static enum err beat_ask(struct beat *b, bool is_leaving, db_query_fn *fn)
{
    const char *values[] = { b->worker[0] ? b->worker : NULL, b->info, is_leaving ? "t" : "f" };
    return db_query(b->config.db, "select dead from kiln_beat($1::uuid, $2::jsonb, $3::boolean)", 3, values,
                    BEAT_PATIENCE_MS, fn, b);
}

static void beat_on_tick(uv_timer_t *timer)
{
    struct beat *b = container_of(timer, struct beat, timer);

    if (b->is_asking || b->is_leaving)
        return;
    b->began_ms = clock_mono_ms();
    b->is_asking = beat_ask(b, false, beat_on_answer) == ERR_OK;
}

struct beat *beat_new(const struct beat_config *config)
{
    struct beat *b = calloc(1, sizeof *b);

    if (!b)
        return NULL;
    b->config = *config;
    if (config->worker)
        (void)snprintf(b->worker, sizeof b->worker, "%s", config->worker);
    if (config->info && !(b->info = strdup(config->info))) {
        free(b);
        return NULL;
    }
    uv_timer_init(config->loop, &b->timer);
    uv_timer_start(&b->timer, beat_on_tick, 0, BEAT_MS); /* libuv keeps the rhythm start to start */
    return b;
}

static void beat_on_left(void *ctx, enum err err, const struct db_result *result)
{
    struct beat *b = ctx;

    (void)err; /* where it failed, the others find out by the silence */
    (void)result;
    if (b->on_left)
        b->on_left(b->left_ctx);
}

void beat_leave(struct beat *b, void (*fn)(void *ctx), void *ctx)
{
    b->is_leaving = true; /* a beat after it would bring me back to life */
    b->on_left = fn;
    b->left_ctx = ctx;
    uv_timer_stop(&b->timer);
    if (beat_ask(b, true, beat_on_left) != ERR_OK && fn)
        fn(ctx);
}

static void beat_on_timer_closed(uv_handle_t *handle)
{
    struct beat *b = container_of((uv_timer_t *)handle, struct beat, timer);

    if (b->on_closed)
        b->on_closed(b->closed_ctx);
    free(b->info);
    free(b);
}

void beat_free(struct beat *b, void (*on_closed)(void *ctx), void *ctx)
{
    db_forget(b->config.db, b);
    b->on_closed = on_closed;
    b->closed_ctx = ctx;
    uv_close((uv_handle_t *)&b->timer, beat_on_timer_closed);
}
