/* admin_jobs.c - dead letters: failed jobs of all apps, the last to end first, and any job by its id. */
#include <string.h>
#include "dispatcher/admin.h"
#include "dispatcher/dispatcher.h"
#include "dispatcher/jobs.h"
#include "dispatcher/problem.h"

/* The API's job, and beside it whose it is and what became of its retry. */
json_t *admin_job_view(struct request *r, json_t *doc)
{
    json_t *job = jobs_view(r, doc), *attempts = json_object_get(doc, "attempt_list");

    (void)json_object_set_new(
        job, "app", json_pack("{s:s?, s:s?}", "id", json_text(doc, "app"), "name", json_text(doc, "app_name")));
    (void)json_set_text(job, "retried_by", json_text(doc, "retried_by"));
    if (json_is_array(attempts))
        (void)json_object_set_new(job, "attempts", jobs_attempts_view(attempts, true));
    return job;
}

void admin_jobs_list(struct request *r)
{
    static const char sql[] =
        "select doc, cursor from kiln_failed_page($1::text, $2::text, $3::text, $4::text, $5::text, "
        "$6::timestamptz, $7::timestamptz, $8::boolean, $9::bigint, $10::uuid, $11::boolean, "
        "$12::int)";
    const char *state = request_query(r, "state", NULL), *code = request_query(r, "code", NULL);
    const char *since = request_query(r, "since", NULL), *until = request_query(r, "until", NULL);
    const char *retried = request_query(r, "retried", NULL), *expand = request_query(r, "expand", NULL);
    const char *at[3];
    struct catalog_faults faults = { 0 };

    if (state != NULL && strcmp(state, "failed") != 0)
        faults_add(&faults, "state", "must be failed; GET /v1/admin/jobs/{id} shows any job");
    if (code != NULL && err_from_word(code) == ERR_COUNT)
        faults_add(&faults, "code", "is no error code");
    admin_check_time(since, "since", &faults);
    admin_check_time(until, "until", &faults);
    if (retried != NULL && strcmp(retried, "true") != 0 && strcmp(retried, "false") != 0)
        faults_add(&faults, "retried", "must be true or false");
    if (expand != NULL && strcmp(expand, "attempts") != 0)
        faults_add(&faults, "expand", "must be attempts");
    if (!admin_cursor(r, request_query(r, "cursor", NULL), 2, at))
        faults_add(&faults, "cursor", "is none that a page's `next` had");
    if (faults.count > 0) {
        problem_faults(r, ERR_INVALID_REQUEST, &faults);
        return;
    }
    {
        const char *values[] = { request_query(r, "app", NULL),
                                 request_query(r, "account", NULL),
                                 code,
                                 request_query(r, "operation", NULL),
                                 request_query(r, "provider", NULL),
                                 since,
                                 until,
                                 retried,
                                 at[0],
                                 at[1],
                                 expand != NULL ? "true" : "false" };

        (void)admin_page(r, sql, values, ARRAY_LEN(values), admin_job_view);
    }
}

void admin_jobs_get(struct request *r)
{
    char id[UUID_TEXT];
    const char *values[] = { id };

    if (!uuid_lower(id, r->args[0])) {
        problem_reply(r, ERR_NOT_FOUND, "no such job");
        return;
    }
    admin_one(r, 200, "select kiln_admin_doc(j, true) as doc from jobs j where j.id = $1::uuid", values, 1,
              "no such job", admin_job_view);
}
