/* moved.c - two array literals that grow until they are sent. */
#include "dispatcher/moved.h"
#include <stdlib.h>
#include "common/base/text.h"

enum { PATIENCE_MS = 3000 };

struct moved {
    struct db *db;
    moved_fn *fn;
    void *ctx;
    struct buf jobs, versions;
    size_t count;
    bool is_asking;
};

struct moved *moved_new(struct db *db, moved_fn *fn, void *ctx)
{
    struct moved *m = calloc(1, sizeof(*m));

    if (m == NULL)
        return NULL;
    m->db = db;
    m->fn = fn;
    m->ctx = ctx;
    m->jobs.ceiling = m->versions.ceiling = (size_t)MOVED_MAX * (UUID_TEXT + 1) + 3;
    return m;
}

void moved_free(struct moved *m)
{
    if (m == NULL)
        return;
    db_forget(m->db, m);
    buf_done(&m->jobs);
    buf_done(&m->versions);
    free(m);
}

bool moved_add(struct moved *m, const char *job, int64_t version)
{
    char digits[I64_TEXT];
    const char *text;
    size_t len, jobs = m->jobs.len, versions = m->versions.len;

    if (m->count == MOVED_MAX)
        return false;
    text = i64_text(digits, version, &len);
    if (!buf_str(&m->jobs, m->count > 0 ? "," : "{") || !buf_str(&m->jobs, job) ||
        !buf_str(&m->versions, m->count > 0 ? "," : "{") || !buf_add(&m->versions, text, len)) {
        m->jobs.len = jobs; /* both or neither; out of memory is as good as full */
        m->versions.len = versions;
        m->jobs.is_full = m->versions.is_full = false;
        return false;
    }
    m->count++;
    return true;
}

static void moved_on_rows(void *ctx, enum err err, const struct db_result *result)
{
    struct moved *m = ctx;
    int rows = err == ERR_OK ? db_rows(result) : 0;

    m->is_asking = false;
    for (int i = 0; i < rows; i++)
        m->fn(m->ctx, db_at(result, i, 0));
}

void moved_ask(struct moved *m)
{
    const char *values[2];

    if (m->is_asking || m->count == 0)
        return;
    if (buf_str(&m->jobs, "}") && buf_str(&m->versions, "}")) {
        values[0] = m->jobs.data;
        values[1] = m->versions.data;
        m->is_asking = db_query(m->db, "select id from kiln_moved($1::uuid[], $2::int[])", 2, values, PATIENCE_MS,
                                moved_on_rows, m) == ERR_OK;
    }
    m->jobs.len = m->versions.len = m->count = 0;
}
