/* api.h - one dispatcher, asked over HTTP; blocking, one call at a time.
 *
 * A call that was not answered is repeated while its patience lasts: everything asked here may be asked twice (a GET, a
 * cancel, an upload; a new job carries its Idempotency-Key). Redirects are not followed but for downloads, and the key
 * goes to KILN_URL alone, never to the host of a signed link. */
#ifndef KILN_API_H
#define KILN_API_H
#include <stdio.h>
#include <jansson.h>
#include "common/base/err.h"
#include "common/base/text.h"

struct api;
struct api *api_new(const char *url, const char *key); /* NULL: out of memory */
void api_free(struct api *a);
const char *api_url(const struct api *a);
/* Called about ten times a second while a call waits. */
void api_on_tick(struct api *a, void (*fn)(void *ctx), void *ctx);

/* From now on SIGINT and SIGTERM end a call (ERR_CANCELED) instead of the process; a second one ends it. */
void api_catch_signals(void);
int api_signal(void); /* which came; 0: none */

struct api_call {
    const char *method, *path; /* "GET", "/v1/jobs" */
    const char *body, *type;   /* NULL: none */
    size_t body_len;
    const char *idempotency_key;
    int wait_s;          /* Prefer: wait; 0: none */
    int64_t patience_ms; /* 0: a cut call or a 503 is tried for 8 s, a closed port not again */
};
struct api_reply {
    enum err err; /* ERR_OK: status and json hold; ERR_UNAVAILABLE: never sent; ERR_LOST; ERR_CANCELED: a signal */
    long status;
    json_t *json; /* NULL: none, or not JSON */
    bool is_replayed;
    char message[256]; /* of ERR_UNAVAILABLE and ERR_LOST: what curl says */
};
struct api_reply api_ask(struct api *a, const struct api_call *call);
void api_reply_done(struct api_reply *r);
/* Is it a 2xx with JSON? Else says why on stderr (as JSON where asked for); the exit status to end with. */
int api_refused(struct api *a, const struct api_reply *r, bool is_json); /* CLIENT_DONE: not refused */

/* Streams a result into `to`, and its SHA-256 into hex. */
enum err api_download(struct api *a, const char *url, FILE *to, int64_t *bytes, char sha256[SHA256_HEX], char *message,
                      size_t message_size);
#endif
