/* batch_rows.c - see batch_rows.h. JSON columns are JSON arrays, the others PostgreSQL's array literals, but for the
 * ids. */
#include "dispatcher/batch_rows.h"
#include <stdlib.h>
#include <string.h>

enum column {
    ID,
    ACCOUNT,
    OPERATION,
    PROVIDER,
    PARAMS,
    INPUTS,
    UNITS,
    UNIT_MC,
    PRICE_VERSION,
    PRIORITY,
    RUN_AT,
    DEADLINE_S,
    ON_UNKNOWN,
    METADATA,
    EXTRAS
};

static const size_t column_bytes = 256 << 20; /* of a body of 16 MiB, each default printed */

static bool is_json(enum column c)
{
    return c == PARAMS || c == INPUTS || c == METADATA || c == EXTRAS;
}

static struct buf *next(struct batch_rows *rows, enum column c) /* what follows is the row's value there */
{
    struct buf *out = &rows->columns[c];

    out->ceiling = column_bytes;
    (void)buf_add(out, out->len > 0 ? "," : is_json(c) ? "[" : "{", 1); /* a full buffer refuses the rest as well */
    rows->from = out->len;
    return out;
}

/* One value for all rows becomes one for each of those before this row. */
static bool spell_out(struct batch_rows *rows, enum column c)
{
    struct buf *out = &rows->columns[c], last = { .ceiling = column_bytes }, shared = { .ceiling = column_bytes };
    bool ok = buf_add(&last, out->data + rows->from, out->len - rows->from) && buf_add(&shared, ",", 1) &&
              buf_add(&shared, out->data + 1, rows->shared[c]);

    out->len = rows->from - 1;
    for (size_t i = 1; i < rows->count && ok; i++)
        ok = buf_add(out, shared.data, shared.len);
    ok = ok && buf_add(out, ",", 1) && buf_add(out, last.data, last.len);
    rows->shared[c] = 0;
    buf_done(&last);
    buf_done(&shared);
    return ok;
}

/* The row's value is written: once for all rows, as long as they have the same (kiln_each in 0025_leaner_batches.sql).
 */
static bool value_end(struct batch_rows *rows, enum column c)
{
    struct buf *out = &rows->columns[c];
    size_t len = out->len - rows->from, shared = rows->shared[c];

    if (out->is_full)
        return false;
    if (rows->count == 0)
        rows->shared[c] = len;
    if (rows->count == 0 || shared == 0)
        return true;
    if (len != shared || memcmp(out->data + 1, out->data + rows->from, len) != 0)
        return spell_out(rows, c);
    out->len = rows->from - 1;
    return true;
}

static bool add_text(struct batch_rows *rows, enum column c, const char *text)
{
    struct buf *out = next(rows, c);
    bool ok = buf_add(out, "\"", 1);

    for (const char *at = text; ok && *at != '\0';) {
        size_t plain = strcspn(at, "\"\\");

        ok = buf_add(out, at, plain) && (at[plain] == '\0' || (buf_add(out, "\\", 1) && buf_add(out, at + plain, 1)));
        at += at[plain] == '\0' ? plain : plain + 1;
    }
    rows->has[c] = true;
    return ok && buf_add(out, "\"", 1) && value_end(rows, c);
}

static bool add_word(struct batch_rows *rows, enum column c, const char *text) /* text or NULL */
{
    return text != NULL ? add_text(rows, c, text) : buf_str(next(rows, c), "NULL") && value_end(rows, c);
}

static bool add_json(struct batch_rows *rows, enum column c, const char *json)
{
    rows->has[c] = rows->has[c] || json != NULL;
    return buf_str(next(rows, c), json != NULL ? json : "null");
}

static bool add_number(struct batch_rows *rows, enum column c, int64_t n)
{
    char digits[I64_TEXT];
    size_t len;
    const char *text = i64_text(digits, n, &len);

    rows->has[c] = true;
    return buf_add(next(rows, c), text, len) && value_end(rows, c);
}

static bool add_columns(struct batch_rows *rows, const struct accept_one *one)
{
    const struct accept_order *o = &one->order;

    return db_uuids_add(&rows->columns[ID], one->id) && add_text(rows, ACCOUNT, o->account) &&
           add_text(rows, OPERATION, o->op->name) && add_text(rows, PROVIDER, one->provider) &&
           add_number(rows, UNITS, one->price.units) && add_number(rows, UNIT_MC, one->price.unit_mc) &&
           add_text(rows, PRICE_VERSION, one->price.version) && add_number(rows, PRIORITY, o->priority) &&
           add_word(rows, RUN_AT, o->run_at) && add_number(rows, DEADLINE_S, one->deadline_s) &&
           add_text(rows, ON_UNKNOWN, one->on_unknown == UNKNOWN_RETRY ? "retry" : "fail");
}

bool batch_rows_add(struct batch_rows *rows, const struct accept_one *one, char **envelope)
{
    const struct accept_order *o = &one->order;
    struct job_envelope e = accept_one_envelope(one);
    json_t *extras = accept_one_extras(one);
    char *params = json_print(o->checked), *inputs = json_print(one->inputs), *metadata = json_print(o->metadata);
    char *extras_text = json_print(extras);
    bool ok = params != NULL && (inputs != NULL || one->inputs == NULL) && (metadata != NULL || o->metadata == NULL) &&
              (extras_text != NULL || extras == NULL);

    ok = ok && add_columns(rows, one) && add_json(rows, PARAMS, params) && add_json(rows, INPUTS, inputs) &&
         add_json(rows, METADATA, metadata) && add_json(rows, EXTRAS, extras_text);
    if (ok) {
        rows->count++;
        *envelope = accept_envelope(&e, params, inputs);
    }
    free(params);
    free(inputs);
    free(metadata);
    free(extras_text);
    json_decref(extras);
    return ok;
}

bool batch_rows_end(struct batch_rows *rows)
{
    bool ok = rows->count > 0;

    db_uuids_end(&rows->columns[ID]);
    for (size_t i = ID + 1; i < BATCH_COLUMNS && ok; i++)
        ok = buf_add(&rows->columns[i], is_json((enum column)i) ? "]" : "}", 1);
    return ok;
}

static const char *column(const struct batch_rows *rows, enum column c)
{
    return rows->has[c] ? rows->columns[c].data : NULL;
}

void batch_rows_fill(const struct batch_rows *rows, struct ledger_batch *out)
{
    out->ids.data = rows->columns[ID].data;
    out->ids.len = rows->columns[ID].len;
    out->accounts = column(rows, ACCOUNT);
    out->operations = column(rows, OPERATION);
    out->providers = column(rows, PROVIDER);
    out->params = column(rows, PARAMS);
    out->inputs = column(rows, INPUTS);
    out->units = column(rows, UNITS);
    out->unit_mcs = column(rows, UNIT_MC);
    out->price_versions = column(rows, PRICE_VERSION);
    out->priorities = column(rows, PRIORITY);
    out->run_ats = column(rows, RUN_AT);
    out->deadlines_s = column(rows, DEADLINE_S);
    out->on_unknowns = column(rows, ON_UNKNOWN);
    out->metadata = column(rows, METADATA);
    out->extras = column(rows, EXTRAS);
}

void batch_rows_done(struct batch_rows *rows)
{
    for (size_t i = 0; i < BATCH_COLUMNS; i++)
        buf_done(&rows->columns[i]);
}
