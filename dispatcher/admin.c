/* admin.c - what the endpoints for operators share. */
#include "dispatcher/admin.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "dispatcher/dispatcher.h"
#include "dispatcher/problem.h"
#include "dispatcher/reply.h"

enum { PATIENCE_MS = 3000, VALUES_MAX = 16 };

json_t *admin_body(struct request *r, const char *const *members)
{
    struct json_fault fault = { "the body is empty" };
    struct catalog_faults faults = { 0 };
    json_t *body = r->body.len > 0 ? json_parse(r->body.data, r->body.len, &fault) : NULL, *value;
    const char *key;

    if (body == NULL) {
        problem_reply(r, ERR_INVALID_JSON, fault.message);
        return NULL;
    }
    if (!json_is_object(body))
        faults_add(&faults, "body", "must be an object");
    json_object_foreach(body, key, value) /* S21: nothing comes in by the side */
    {
        size_t i = 0;

        while (members[i] != NULL && strcmp(members[i], key) != 0)
            i++;
        if (members[i] == NULL)
            faults_add(&faults, key, "is no member of this request");
    }
    return admin_faults(r, body, &faults) ? NULL : body;
}

bool admin_faults(struct request *r, json_t *body, const struct catalog_faults *faults)
{
    if (faults->count == 0)
        return false;
    problem_faults(r, ERR_INVALID_REQUEST, faults);
    json_decref(body);
    return true;
}

void admin_check_time(const char *text, const char *field, struct catalog_faults *faults)
{
    int64_t ms;

    if (text != NULL && rfc3339_parse(text, &ms) != ERR_OK)
        faults_add(faults, field, "must be an RFC 3339 time, such as 2026-11-20T10:11:12Z");
}

bool admin_cursor(struct request *r, const char *cursor, size_t parts, const char *out[3])
{
    const char *p = cursor;
    int64_t n;

    for (size_t i = 0; i < 3; i++)
        out[i] = NULL;
    for (size_t i = 0; p != NULL && i < parts; i++) {
        size_t len = strcspn(p, ".");

        out[i] = arena_strndup(r->arena, p, len);
        if (out[i] == NULL || (p[len] == '.') != (i + 1 < parts))
            return false;
        if (i == 1 ? !uuid_valid(out[i]) : parse_i64(out[i], 0, i == 0 ? INT64_MAX / 1000 : INT32_MAX, &n) != ERR_OK)
            return false;
        p += len + 1;
    }
    return true;
}

bool admin_db(struct request *r)
{
    const struct dispatcher *d = dispatcher_of(r);

    if (db_is_up(d->read) && db_is_up(d->write)) /* the operators' own connection may still be on its way */
        return true;
    problem_backend(r, ERR_UNAVAILABLE);
    return false;
}

static json_t *row_doc(struct request *r, const struct db_result *result, int row, admin_view_fn *view)
{
    const char *text = db_col(result, row, "doc");
    json_t *doc = json_parse(text, strlen(text), NULL), *shown = doc;

    if (doc != NULL && view != NULL) {
        shown = view(r, doc);
        json_decref(doc);
    }
    return shown;
}

/* ---- pages ---- */

struct admin_page {
    struct request *request;
    int64_t limit;
    admin_view_fn *view;
};

static void page_on_rows(void *ctx, enum err err, const struct db_result *result)
{
    struct admin_page *p = ctx;
    const char *cursor = NULL;
    json_t *data;
    int rows;

    if (err != ERR_OK) {
        problem_backend(p->request, err);
        return;
    }
    data = json_array();
    rows = db_rows(result);
    for (int i = 0; i < rows && i < p->limit; i++) {
        (void)json_array_append_new(data, row_doc(p->request, result, i, p->view));
        if (rows > p->limit && i == p->limit - 1)
            cursor = arena_strdup(p->request->arena, db_col(result, i, "cursor"));
    }
    reply_list(p->request, data, cursor);
}

bool admin_page(struct request *r, const char *sql, const char *const *values, size_t count, admin_view_fn *view)
{
    struct admin_page *p = arena_alloc(r->arena, sizeof(*p));
    const char *all[VALUES_MAX];

    if (p == NULL || count >= VALUES_MAX) {
        problem_backend(r, ERR_NOMEM);
        return false;
    }
    *p = (struct admin_page){ .request = r, .view = view };
    if (!reply_limit(r, &p->limit) || !admin_db(r))
        return false;
    for (size_t i = 0; i < count; i++)
        all[i] = values[i];
    all[count] = arena_printf(r->arena, "%lld", (long long)p->limit + 1);
    if (db_query(dispatcher_of(r)->operators_db, sql, count + 1, all, PATIENCE_MS, page_on_rows, p) != ERR_OK) {
        problem_backend(r, ERR_UNAVAILABLE);
        return false;
    }
    return true;
}

/* ---- single answers ---- */

struct admin_answer {
    struct request *request;
    int status;
    const char *missing;
    admin_view_fn *view;
};

static void one_on_row(void *ctx, enum err err, const struct db_result *result)
{
    struct admin_answer *a = ctx;

    if (err != ERR_OK)
        problem_backend(a->request, err);
    else if (db_rows(result) == 0 || db_is_null(result, 0, "doc"))
        problem_reply(a->request, ERR_NOT_FOUND, a->missing);
    else
        reply_json(a->request, a->status, row_doc(a->request, result, 0, a->view));
}

void admin_one(struct request *r, int status, const char *sql, const char *const *values, size_t count,
               const char *missing, admin_view_fn *view)
{
    struct admin_answer *a = arena_alloc(r->arena, sizeof(*a));

    if (a == NULL) {
        problem_backend(r, ERR_NOMEM);
        return;
    }
    *a = (struct admin_answer){ .request = r, .status = status, .missing = missing, .view = view };
    if (admin_db(r) && db_query(dispatcher_of(r)->write, sql, count, values, PATIENCE_MS, one_on_row, a) != ERR_OK)
        problem_backend(r, ERR_UNAVAILABLE);
}
