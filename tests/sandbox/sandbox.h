/* sandbox.h - everything the handlers share: settings, clock, faults, counters, jobs. One per process, one loop. */
#ifndef SANDBOX_SANDBOX_H
#define SANDBOX_SANDBOX_H
#include "config.h"
#include "counters.h"
#include "due.h"
#include "faults.h"
#include "gallery.h"
#include "jobs.h"
#include "limits.h"
#include "server.h"

struct sandbox {
    uv_loop_t loop;
    struct config config;
    struct counters *counters;
    struct faults *faults;
    struct limits *limits;
    struct jobs *jobs;
    struct gallery *gallery;
    struct dues *dues;
    struct server *main_server, *image_server;
    char images_base[64]; /* http://host:port of the second listener */
    unsigned char sign_key[32];
    int64_t local_busy_ms; /* when one's own machine has done what it was given (sandbox clock) */
    int64_t comfyui_busy_ms;
    json_t *uploads; /* names that ComfyUI was given; NULL: none yet */
    json_t *script;  /* script.c: routes and the requests that came; NULL: none yet */
};

static inline int64_t sandbox_setting(const struct sandbox *box, enum config_key key)
{
    return box->config.v[key];
}
int64_t sandbox_now_ms(const struct sandbox *box); /* wall clock plus clock_offset_ms */

/* handlers of the path families; each answers or keeps the exchange waiting */
void openai_on_request(struct exchange *ex, const char *path);      /* path after /openai/v1 */
void stability_on_request(struct exchange *ex, const char *path);   /* path after /stability */
void leonardo_on_request(struct exchange *ex, const char *path);    /* path after /leonardo/api/rest/v1 */
void leonardo_on_upload(struct exchange *ex);                       /* the second listener's presigned forms */
void a1111_on_request(struct exchange *ex, const char *path);       /* path after /a1111 */
void comfyui_on_request(struct exchange *ex, const char *path);     /* path after /comfyui */
void huggingface_on_request(struct exchange *ex, const char *path); /* path after /huggingface */
void volcengine_on_request(struct exchange *ex, const char *path);  /* path after /volcengine/api/v3 */
void google_on_request(struct exchange *ex, const char *path);      /* path after /google/v1beta */
void replicate_on_request(struct exchange *ex, const char *path);   /* path after /replicate/v1 */
void runpod_on_request(struct exchange *ex, const char *path);      /* path after /runpod/v2 */
void ttapi_on_request(struct exchange *ex, const char *path);       /* path after /ttapi/midjourney/v1 */
void script_on_request(struct exchange *ex, const char *path);      /* path after /script */
void script_on_admin(struct exchange *ex, json_t *body);            /* /_sandbox/script */
void admin_on_request(struct exchange *ex);                         /* /_sandbox/... */
void images_on_request(struct exchange *ex);                        /* the second listener */

void openai_on_moderation(struct exchange *ex); /* openai_moderations.c */

/* openai_url.c: where a signed image URL points, and whether it may be served */
enum url_check { URL_GOOD, URL_FORGED, URL_EXPIRED };
void openai_image_url(struct sandbox *box, const struct job *job, int index, char *out, size_t cap);
enum url_check openai_check_url(struct sandbox *box, const char *path, const char *query);

bool volcengine_url_is_good(const struct sandbox *box, const char *path, const char *query);

/* desk.c: what every provider's front desk does alike */

enum key_mood { KEY_GOOD, KEY_MISSING, KEY_BAD, KEY_BROKE, KEY_ZERO, KEY_HARD_LIMIT, KEY_UNVERIFIED, KEY_MALFORMED };
enum key_mood desk_key(struct exchange *ex, const char *provider, char *key, size_t key_cap); /* sets ex->account */

/* Knows the prompt from here on: takes the tag out of it and counts the request. prompt may be NULL. */
void desk_open(struct exchange *ex, enum phase phase, const char *prompt);

/* Decides which faults hold, and acts on those that come instead of an answer: drop_before, reuse_close, status, html.
 * refuse writes the provider's own error
 * for ex->status and ex->fault.code. True: the exchange is taken care of. */
bool desk_fault(struct exchange *ex, void (*refuse)(struct exchange *, int status, const char *code));

void desk_pay(struct exchange *ex);
void desk_refund(struct exchange *ex);
bool desk_taken(struct exchange *ex); /* drop_after, hang: true when the exchange is taken care of */

int64_t desk_delay(struct exchange *ex, enum config_key min); /* delay_ms fault, else between min and the next key */
int desk_count(const struct fault *f, int asked);             /* partial=K, empty */
int64_t desk_shape(const struct fault *f);                    /* outcome faults as bits */
bool desk_is_picture(const char *base64, size_t len);         /* by its head */
void desk_cap(const struct sandbox *box, int *width, int *height);
struct picture_spec desk_picture(const struct exchange *ex, int width, int height, enum picture_format format);
#endif
