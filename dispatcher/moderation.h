/* moderation.h - what may not be asked for: the operator's blocked terms, and optionally OpenAI's moderation endpoint,
 * before anything is priced, stored or held.
 *
 * KILN_BLOCKED_TERMS names a file (text_fold.h), read again on SIGHUP; a file that cannot be read then changes nothing.
 * KILN_MODERATION=openai asks POST /v1/moderations of OPENAI_BASE_URL with all texts of the job; while it cannot be
 * asked, jobs are refused with 503: nothing passes unseen. Every refusal is a row of moderation_refusals (never the
 * prompt), a 422 content_filtered that names the field, and a count. */
#ifndef KILN_MODERATION_H
#define KILN_MODERATION_H
#include "common/base/config.h"
#include "dispatcher/httpd.h"

struct accept_order;
struct dispatcher;
struct moderation;

enum err moderation_new(struct dispatcher *d, const struct config *config, struct moderation **out, char *problem,
                        size_t problem_size);
void moderation_reload(struct moderation *m);
void moderation_close(struct moderation *m, void (*on_closed)(void *ctx), void *ctx);
void moderation_free(struct moderation *m);

/* fn comes once, now or later: ERR_OK when nothing speaks against the job; ERR_CONTENT_FILTERED with what is wrong with
 * which field; else nobody knows (text: what to say, or NULL). Order, app and arena stay with the caller. */
typedef void moderation_fn(void *ctx, enum err err, const char *field, const char *text);
void moderation_check(struct moderation *m, struct arena *a, const char *app, const struct accept_order *order,
                      moderation_fn *fn, void *ctx);
#endif
