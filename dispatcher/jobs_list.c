/* jobs_list.c - GET /v1/jobs: pages of an app's jobs, by filters, newest first. */
#include <string.h>
#include "common/core/catalog_route.h"
#include "common/core/job.h"
#include "dispatcher/dispatcher.h"
#include "dispatcher/jobs.h"
#include "dispatcher/problem.h"
#include "dispatcher/reply.h"

struct job_page {
    struct request *request;
    int64_t limit;
};

static void list_on_rows(void *ctx, enum err err, const struct db_result *result)
{
    struct job_page *p = ctx;
    struct request *r = p->request;
    json_t *data;
    const char *cursor = NULL;
    int rows;

    if (err != ERR_OK) {
        problem_backend(r, err);
        return;
    }
    data = json_array();
    rows = db_rows(result);
    for (int i = 0; i < rows && i < p->limit; i++) {
        const char *text = db_col(result, i, "doc");
        json_t *doc = json_parse(text, strlen(text), NULL);

        (void)json_array_append_new(data, jobs_view(r, doc));
        if (rows > p->limit && i == p->limit - 1)
            cursor = arena_strdup(r->arena, json_text(doc, "id"));
        json_decref(doc);
    }
    reply_list(r, data, cursor);
}

bool jobs_account_valid(const char *account)
{
    size_t len = strspn(account, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:@-");

    return account[len] == '\0' && len >= 1 && len <= 128;
}

static bool state_valid(const char *state)
{
    return strcmp(state, "queued") == 0 || strcmp(state, "running") == 0 || job_state_is_final(state);
}

static const char page[] = "select doc from kiln_jobs_page($1::uuid, $2::text, $3::text, $4::text, $5::uuid, $6::int)";
static const char page_of_batch[] =
    "select doc from kiln_batch_page($1::uuid, $2::text, $3::text, $4::text, $5::uuid, $6::int, $7::uuid)";

void jobs_list(struct request *r)
{
    struct dispatcher *d = dispatcher_of(r);
    struct job_page *p = arena_alloc(r->arena, sizeof(*p));
    const char *account = request_query(r, "account", NULL), *state = request_query(r, "state", NULL);
    const char *operation = request_query(r, "operation", NULL), *cursor = request_query(r, "cursor", NULL);
    const char *batch = request_query(r, "batch", NULL);
    struct catalog_faults faults = { 0 };
    enum err e;

    if (p == NULL) {
        problem_backend(r, ERR_NOMEM);
        return;
    }
    if (!reply_limit(r, &p->limit))
        return;
    if (account != NULL && !jobs_account_valid(account))
        faults_add(&faults, "account", "must be 1 to 128 of A-Z a-z 0-9 . _ : @ -");
    if (state != NULL && !state_valid(state))
        faults_add(&faults, "state", "must be one of queued, running, succeeded, failed, canceled");
    if (operation != NULL && catalog_find(d->catalog, operation) == NULL &&
        catalog_route_find(d->catalog, operation) == NULL)
        faults_add(&faults, "operation", "is no operation of this catalogue");
    if (batch != NULL && !uuid_valid(batch))
        faults_add(&faults, "batch", "must be a batch's id");
    if (cursor != NULL && !uuid_valid(cursor))
        faults_add(&faults, "cursor", "is none that a page's `next` had");
    if (faults.count > 0) {
        problem_faults(r, ERR_INVALID_REQUEST, &faults);
        return;
    }
    p->request = r;
    {
        const char *max = arena_printf(r->arena, "%lld", (long long)p->limit + 1);
        const char *values[] = { r->app, account, state, operation, cursor, max, batch };
        size_t count = ARRAY_LEN(values) - (batch == NULL);

        e = db_is_up(d->read)
                ? db_query(d->read, batch != NULL ? page_of_batch : page, count, values, 3000, list_on_rows, p)
                : ERR_UNAVAILABLE;
    }
    if (e != ERR_OK)
        problem_backend(r, e);
}
