/* jobs.h - reading and canceling jobs: GET /v1/jobs, GET /v1/jobs/{id}, POST /v1/jobs/{id}/cancel.
 *
 * Reads by id of all requests are one gathered call. What PostgreSQL says of a job (kiln_job_doc) becomes the API's
 * shape in jobs_view, for fresh jobs too; GET by id, which is asked most, makes the same of columns (job_look.h).
 * A GET with If-None-Match is answered from what was read within the last second, where it is known (versions.h). */
#ifndef KILN_JOBS_H
#define KILN_JOBS_H
#include "common/base/json.h"
#include "common/io/db.h"
#include "dispatcher/httpd.h"
#include "dispatcher/job_look.h"

struct jobs;
struct dispatcher;
struct jobs *jobs_new(struct dispatcher *d);
void jobs_free(struct jobs *j); /* before the read db closes */

void jobs_event(struct jobs *j, const char *job); /* its version is another now */

/* doc: as kiln_job_doc has it, borrowed; NULL: no such job in that app. */
typedef void jobs_read_fn(void *ctx, enum err err, json_t *doc);
enum err jobs_read(struct jobs *j, const char *job, const char *app, jobs_read_fn *fn, void *ctx);

/* The same without the document: a third of the work. */
enum err jobs_look(struct jobs *j, const char *job, const char *app, job_look_fn *fn, void *ctx);

json_t *jobs_view(struct request *r, const json_t *doc); /* new: the API's job */
/* Answers with the job: ETag, Last progress, 304 when If-None-Match has the version (200 only). */
json_t *jobs_attempts_view(const json_t *list, bool is_operator); /* new: of kiln_attempts_json */
void jobs_reply(struct request *r, int status, const json_t *doc);
void jobs_reply_text(struct request *r, int status, int64_t version, struct buf *text); /* NULL: out of memory */
bool jobs_account_valid(const char *account);

void jobs_list(struct request *r);
void jobs_get(struct request *r);
void jobs_cancel(struct request *r);
#endif
