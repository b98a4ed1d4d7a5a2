/* job_look.c - rows of kiln_jobs_shown, and the answer's text made of them. */
#include "dispatcher/job_look.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/clock.h"
#include "common/base/json.h"
#include "common/core/job.h"
#include "dispatcher/artifacts.h"

/* In the order of kiln_jobs_shown. */
enum column {
    ORD,
    ID,
    APP,
    OPERATION,
    PROVIDER,
    ACCOUNT,
    STATE,
    VERSION,
    PARAMS,
    HOLD_MC,
    CAPTURED_MC,
    ERROR_CODE,
    ERROR_MESSAGE,
    PROVIDER_STATUS,
    ATTEMPTS,
    CREATED_US,
    STARTED_US,
    FINISHED_US,
    METADATA,
    NOTES,
    RETRY_OF,
    CACHED_OF,
    BATCH,
    ARTIFACT,
    KIND,
    MIME,
    BYTES,
    WIDTH,
    HEIGHT,
    SHA256,
    SEED,
    REVISED_PROMPT,
    BLURHASH,
    COLOR,
};

struct job_looks {
    struct db_gather *gather;
    struct versions *versions;
};

struct look {
    struct job_looks *looks;
    char job[UUID_TEXT], app[UUID_TEXT];
    int64_t began_ms;
    job_look_fn *fn;
    void *ctx;
};

static const struct db_call look_call = {
    .name = "job_look",
    .sql = "select * from kiln_jobs_shown($1::uuid[])",
    .columns = 1,
    .patience_ms = 3000,
};

struct job_looks *job_looks_new(struct db *read, struct versions *versions)
{
    struct job_looks *l = calloc(1, sizeof(*l));

    if (l == NULL)
        return NULL;
    l->versions = versions;
    l->gather = db_gather_new(read, &look_call, NULL, 0);
    if (l->gather == NULL) {
        free(l);
        return NULL;
    }
    return l;
}

void job_looks_free(struct job_looks *l)
{
    if (l == NULL)
        return;
    db_gather_free(l->gather);
    free(l);
}

static int64_t number(const struct db_result *result, int row, enum column column)
{
    const char *text = db_at(result, row, column);
    int64_t n = 0;

    if (text != NULL)
        (void)parse_i64(text, INT64_MIN, INT64_MAX, &n); /* PostgreSQL's own */
    return n;
}

static void look_on_row(void *ctx, enum err err, const struct db_result *result, int row)
{
    struct look *l = ctx;
    struct job_seen seen = { .result = result, .row = row };
    const char *app = err == ERR_OK ? db_at(result, row, APP) : NULL;
    bool is_theirs = app != NULL && strcmp(app, l->app) == 0;

    if (is_theirs) {
        seen.id = db_at(result, row, ID);
        seen.state = db_at(result, row, STATE);
        seen.version = number(result, row, VERSION);
        versions_note(l->looks->versions, l->job, l->app, seen.version, l->began_ms);
    }
    l->fn(l->ctx, err, is_theirs ? &seen : NULL);
    free(l);
}

enum err job_look(struct job_looks *looks, const char *job, const char *app, job_look_fn *fn, void *ctx)
{
    struct look *l = calloc(1, sizeof(*l));
    struct db_value value = db_text(job);
    enum err e;

    if (l == NULL)
        return ERR_NOMEM;
    (void)uuid_lower(l->job, job);
    (void)uuid_lower(l->app, app);
    l->looks = looks;
    l->began_ms = clock_mono_ms();
    l->fn = fn;
    l->ctx = ctx;
    e = db_gather_add(looks->gather, &value, look_on_row, l);
    if (e != ERR_OK)
        free(l);
    return e;
}

/* ---- the text ---- */

/* JSON as PostgreSQL writes it, without the blanks after ':' and ','. */
static bool add_json(struct buf *out, const char *text)
{
    bool is_text = false, ok = true;
    const char *from = text, *p = text;

    for (; *p != '\0'; p++) {
        if (*p == '\\' && is_text) {
            p++; /* whatever it escapes, a quote too; there always is something */
        } else if (*p == '"') {
            is_text = !is_text;
        } else if (*p == ' ' && !is_text) {
            ok = ok && buf_add(out, from, (size_t)(p - from));
            from = p + 1;
        }
    }
    return ok && buf_add(out, from, (size_t)(p - from));
}

struct row {
    struct buf *out;
    const struct db_result *result;
    int row;
    bool ok;
};

static void add(struct row *r, const char *text)
{
    r->ok = r->ok && buf_str(r->out, text);
}

static void add_value(struct row *r, const char *name, const json_t *value, const char *fallback)
{
    add(r, name);
    if (value == NULL || json_is_null(value))
        add(r, fallback);
    else
        r->ok = r->ok && json_write_to(r->out, value);
}

static void add_text(struct row *r, const char *name, const char *value) /* name: with all that stands before it */
{
    add(r, name);
    if (value == NULL)
        add(r, "null");
    else
        r->ok = r->ok && json_quote_to(r->out, value);
}

static void text(struct row *r, const char *name, enum column column)
{
    add_text(r, name, db_at(r->result, r->row, column));
}

static void plain(struct row *r, const char *name, enum column column, const char *fallback) /* numbers and JSON */
{
    const char *value = db_at(r->result, r->row, column);

    add(r, name);
    r->ok = r->ok && add_json(r->out, value != NULL ? value : fallback);
}

static void when(struct row *r, const char *name, enum column column)
{
    char time[RFC3339_TEXT];

    if (db_at(r->result, r->row, column) != NULL)
        rfc3339_ms(time, number(r->result, r->row, column) / 1000);
    add_text(r, name, db_at(r->result, r->row, column) != NULL ? time : NULL);
}

static void credits(struct row *r, const char *name, int64_t mc)
{
    char digits[32];
    int n = snprintf(digits, sizeof(digits), "%lld.%03lld", (long long)(mc / 1000), (long long)(mc % 1000));

    while (digits[n - 1] == '0')
        n--;
    digits[digits[n - 1] == '.' ? n - 1 : n] = '\0';
    add(r, name);
    add(r, digits);
}

static void artifact(struct row *r, struct request *request)
{
    const char *id = db_at(r->result, r->row, ARTIFACT);
    struct artifacts_link link;

    artifacts_link(request, id, &link);
    text(r, "{\"id\":", ARTIFACT);
    text(r, ",\"kind\":", KIND);
    text(r, ",\"mime\":", MIME);
    plain(r, ",\"bytes\":", BYTES, "null");
    plain(r, ",\"width\":", WIDTH, "null");
    plain(r, ",\"height\":", HEIGHT, "null");
    text(r, ",\"sha256\":", SHA256);
    text(r, ",\"seed\":", SEED);
    text(r, ",\"revised_prompt\":", REVISED_PROMPT);
    text(r, ",\"blurhash\":", BLURHASH);
    text(r, ",\"color\":", COLOR);
    add_text(r, ",\"url\":", link.url);
    add_text(r, ",\"expires_at\":", link.expires);
    add(r, "}");
}

static void artifacts(struct row *first, struct request *request)
{
    struct row r = *first;
    const char *ord = db_at(r.result, r.row, ORD);

    add(&r, ",\"artifacts\":[");
    /* what comes after a cancel is evidence only */
    if (db_at(r.result, r.row, ARTIFACT) != NULL && strcmp(db_at(r.result, r.row, STATE), "canceled") != 0) {
        for (; r.row < db_rows(r.result) && strcmp(db_at(r.result, r.row, ORD), ord) == 0; r.row++) {
            if (r.row > first->row)
                add(&r, ",");
            artifact(&r, request);
        }
    }
    add(&r, "]");
    first->ok = r.ok;
}

static void error(struct row *r)
{
    const char *word = db_at(r->result, r->row, ERROR_CODE), *message = db_at(r->result, r->row, ERROR_MESSAGE);
    enum err code;

    add(r, ",\"error\":");
    if (word == NULL) {
        add(r, "null");
        return;
    }
    code = err_from_word(word);
    add_text(r, "{\"code\":", word);
    add_text(r, ",\"message\":", message != NULL ? message : err_text(code));
    plain(r, ",\"provider_status\":", PROVIDER_STATUS, "null");
    add(r, code < ERR_COUNT && err_retry(code) ? ",\"retryable\":true}" : ",\"retryable\":false}");
}

const char *job_seen_progress(const struct job_seen *seen)
{
    return strcmp(seen->state, "succeeded") == 0 ? "{\"phase\":null,\"percent\":100}"
                                                 : "{\"phase\":null,\"percent\":null}";
}

bool job_seen_text(struct request *request, const struct job_seen *seen, struct buf *out, size_t *progress_at)
{
    struct row r = { .out = out, .result = seen->result, .row = seen->row, .ok = true };
    const char *notes;

    text(&r, "{\"id\":", ID);
    text(&r, ",\"operation\":", OPERATION);
    text(&r, ",\"provider\":", PROVIDER);
    text(&r, ",\"account\":", ACCOUNT);
    text(&r, ",\"state\":", STATE);
    add(&r, ",\"object\":\"job\",\"progress\":");
    if (progress_at != NULL)
        *progress_at = out->len;
    else
        add(&r, job_seen_progress(seen));
    plain(&r, ",\"params\":", PARAMS, "null");
    artifacts(&r, request);
    /* closed: captured and released */
    credits(&r, ",\"credits\":{\"held\":", job_state_is_final(seen->state) ? 0 : number(r.result, r.row, HOLD_MC));
    credits(&r, ",\"charged\":", number(r.result, r.row, CAPTURED_MC));
    add(&r, "}");
    error(&r);
    plain(&r, ",\"attempts\":", ATTEMPTS, "0");
    when(&r, ",\"created_at\":", CREATED_US);
    when(&r, ",\"started_at\":", STARTED_US);
    when(&r, ",\"finished_at\":", FINISHED_US);
    plain(&r, ",\"metadata\":", METADATA, "null");
    notes = db_at(r.result, r.row, NOTES);
    add(&r, ",\"notes\":");
    r.ok = r.ok && add_json(out, notes != NULL && notes[0] == '[' ? notes : "[]");
    text(&r, ",\"retry_of\":", RETRY_OF);
    text(&r, ",\"cached_of\":", CACHED_OF);
    text(&r, ",\"batch\":", BATCH);
    add(&r, "}");
    return r.ok;
}

bool job_fresh_text(const struct job_fresh *job, struct buf *out)
{
    struct row r = { .out = out, .ok = true };

    add_text(&r, "{\"id\":", job->id);
    add_text(&r, ",\"operation\":", job->operation);
    add_text(&r, ",\"provider\":", job->provider);
    add_text(&r, ",\"account\":", job->account);
    add(&r, ",\"state\":\"queued\",\"object\":\"job\",\"progress\":{\"phase\":null,\"percent\":null}");
    add_value(&r, ",\"params\":", job->params, "null");
    credits(&r, ",\"artifacts\":[],\"credits\":{\"held\":", job->hold_mc);
    credits(&r, ",\"charged\":", 0);
    add(&r, "},\"error\":null,\"attempts\":0");
    add_text(&r, ",\"created_at\":", job->created_at);
    add(&r, ",\"started_at\":null,\"finished_at\":null");
    add_value(&r, ",\"metadata\":", job->metadata, "null");
    add_value(&r, ",\"notes\":", job->notes, "[]");
    add(&r, ",\"retry_of\":null,\"cached_of\":null,\"batch\":null}");
    return r.ok;
}
