/* cancel.c - tells a provider that nobody wants a job's work any more: after its owner's cancel, and when kiln gives
 * up waiting for it.
 *
 * Best effort: one request at most for a flight, and nobody waits for it. What it is answered is counted
 * (kiln_provider_requests_total, kind cancel) and changes nothing: the job ends as it would have ended. The request
 * outlives its flight. Only a reference that is this worker's own work is ever canceled: after EV_STALE another holder
 * may be polling the very same one. */
#include <stdlib.h>
#include <string.h>
#include "worker/actions.h"
#include "worker/stats.h"

enum { CANCEL_TIMEOUT_MS = 10000, CANCEL_ARENA = 256 * 1024, CANCEL_HEADERS = 3 };

struct cancel { /* from the send to its answer */
    struct worker_stats *stats;
    char lane[32], *body; /* body: NULL: none */
};

static void cancel_free(struct cancel *c)
{
    if (c)
        free(c->body);
    free(c);
}

static void cancel_on_answer(void *ctx, const struct httpc_answer *a)
{
    struct cancel *c = ctx;

    stats_request(c->stats, c->lane, "cancel", a->fate == HTTPC_ANSWERED ? a->status : 0, a->total_ms);
    cancel_free(c);
}

static void cancel_on_spent(void *ctx, enum err err, int64_t allowed_after_ms)
{
    (void)ctx; /* it counts against the lane's budget, but is not put off: later it would save less */
    (void)err;
    (void)allowed_after_ms;
}

static enum err cancel_out(struct flight *f, struct arena *arena, const struct http_req *req, struct cancel *c)
{
    const struct catalog_provider *p = f->op->provider;
    const char *headers[CANCEL_HEADERS];
    char *url = exchange_url(f, req->path);
    size_t n = 0;
    enum err err = ERR_NOMEM;

    if (f->key) /* that submitted it */
        headers[n++] = arena_printf(arena, "%s: %s%s", p->auth_header, p->auth_prefix, f->key->text);
    if (req->accept)
        headers[n++] = arena_printf(arena, "Accept: %s", req->accept);
    if (c->body)
        headers[n++] = "Content-Type: application/json";
    if (url && (n < 1 || headers[0]) && (n < 2 || headers[1])) {
        struct httpc_request out = {
            .method = req->method ? req->method : "POST",
            .url = url,
            .headers = headers,
            .header_count = n,
            .body = c->body,
            .body_len = c->body ? strlen(c->body) : 0,
            .is_paid = true, /* once: libcurl is not to repeat it either */
            .timeout_ms = CANCEL_TIMEOUT_MS,
        };

        err = httpc_send(f->env->httpc, &out, cancel_on_answer, c, NULL);
    }
    free(url);
    return err;
}

static bool cancel_is_possible(const struct flight *f)
{
    return !f->is_cancel_sent && f->ref && f->ref[0] && f->envelope && f->op && f->op->provider->key && f->adapter &&
           f->adapter->cancel && (f->key || !f->op->provider->key_count);
}

/* An arena of its own: an answer to the last poll may be under way on a thread, with the sortie's. */
void cancel_send(struct flight *f)
{
    struct arena *arena = NULL;
    struct job_envelope envelope;
    struct http_req req = { .path = NULL };
    struct cancel *c = NULL;

    if (!cancel_is_possible(f))
        return;
    f->is_cancel_sent = true;
    arena = arena_new(CANCEL_ARENA);
    if (!arena || !job_envelope_parse(arena, f->envelope, &envelope))
        goto out;
    if (envelope.route && !job_envelope_leg(arena, &envelope, f->lane))
        goto done;
    req = f->adapter->cancel(
        arena, &(struct job_spec){ .job_id = f->job.id, .op = f->op, .params = envelope.params, .units = f->units },
        f->ref);
    c = req.path ? calloc(1, sizeof(*c)) : NULL;
    if (c && req.body && !(c->body = json_print(req.body)))
        goto done;
    if (c) {
        c->stats = f->env->stats;
        (void)snprintf(c->lane, sizeof(c->lane), "%s", f->lane);
        if (f->op->provider->budget_count)
            queue_spend_key(f->env->queue, f->lane, keys_budget_of(f), 1, cancel_on_spent, NULL);
        if (cancel_out(f, arena, &req, c) == ERR_OK)
            c = NULL; /* the answer's */
    }
done:
    json_decref(req.body);
    job_envelope_done(&envelope);
out:
    cancel_free(c);
    arena_free(arena);
}
