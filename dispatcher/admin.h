/* admin.h - /v1/admin: what an operator sees and sets, across all apps, with a key of the scope admin. The routes see
 * to the scope; no handler here looks at the key's own app. What they share: reading a body, times and cursors, and
 * turning rows that PostgreSQL has made into JSON (`doc`, `cursor`) into a page or an answer. */
#ifndef KILN_ADMIN_H
#define KILN_ADMIN_H
#include "common/base/json.h"
#include "common/core/catalog.h"
#include "common/io/db.h"
#include "dispatcher/httpd.h"

/* The body's object, new, holding only `members` (NULL-terminated); NULL: answered. */
json_t *admin_body(struct request *r, const char *const *members);
/* Answers 422 and releases the body when there are faults. */
bool admin_faults(struct request *r, json_t *body, const struct catalog_faults *faults);
void admin_check_time(const char *text, const char *field, struct catalog_faults *faults); /* NULL is fine */
/* "micros.uuid.n": as many of them as `parts` says, in the arena. False: none of ours. cursor NULL: all NULL. */
bool admin_cursor(struct request *r, const char *cursor, size_t parts, const char *out[3]);

typedef json_t *admin_view_fn(struct request *r, json_t *doc); /* new; NULL function: the doc as it is */
/* One page of rows (doc, cursor); the statement's last value is `limit` + 1, appended here. False: answered. */
bool admin_page(struct request *r, const char *sql, const char *const *values, size_t count, admin_view_fn *view);
/* The first row's doc with `status`; no row, or null: 404 with `missing`. */
void admin_one(struct request *r, int status, const char *sql, const char *const *values, size_t count,
               const char *missing, admin_view_fn *view);
bool admin_db(struct request *r); /* false: PostgreSQL is away, answered */

/* admin_jobs.c: failed jobs */
json_t *admin_job_view(struct request *r, json_t *doc);
void admin_jobs_list(struct request *r);
void admin_jobs_get(struct request *r);
/* retry.c: new jobs in place of failed ones */
void retry_one(struct request *r);
void retry_many(struct request *r);
/* exposure.c */
void exposure_list(struct request *r);
/* Counts what has closed since the last call into the metrics, then goes on with `then`. */
void exposure_count(struct request *r, void (*then)(struct request *r));
/* lanes.c */
void lanes_list(struct request *r);
void lanes_get(struct request *r);
void lanes_patch(struct request *r);
void lanes_pause(struct request *r);
void lanes_resume(struct request *r);
/* admin_apps.c: apps, their keys, their accounts */
void apps_list(struct request *r);
void apps_create(struct request *r);
void apps_patch(struct request *r);
void apps_keys(struct request *r);
void apps_key_create(struct request *r);
void apps_key_revoke(struct request *r);
void apps_account(struct request *r);
void apps_account_patch(struct request *r);
#endif
