/* artifacts.h - results: GET /v1/artifacts/{id} and its bytes.
 *
 * Links in answers are absolute and signed (HMAC-SHA256 over id and expiry with KILN_SIGNING_KEY), good for an hour;
 * the app's key opens the bytes too. They are always served as something that no browser runs (security.md, S12). */
#ifndef KILN_ARTIFACTS_H
#define KILN_ARTIFACTS_H
#include "common/base/json.h"
#include "dispatcher/httpd.h"

struct dispatcher;
struct artifacts;
struct artifacts *artifacts_new(struct dispatcher *d);
void artifacts_free(struct artifacts *a); /* before the read db closes */

struct artifacts_link {
    const char *url; /* in the request's arena; NULL: out of memory */
    char expires[RFC3339_TEXT];
};
void artifacts_link(struct request *r, const char *id, struct artifacts_link *link); /* signed, from now on */
json_t *artifacts_view(struct request *r, const json_t *doc); /* new: one of kiln_job_doc's artifacts, with its link */
void artifacts_sign(char out[44], const unsigned char key[32], const char *id, int64_t expires_s);

void artifacts_get(struct request *r);
void artifacts_content(struct request *r);
#endif
