/* prepare.c - the free steps in front of a paid request, for adapters that have them (provider.h, `prepare`): an input
 * that has to lie at the provider first, say.
 *
 * They are taken while the job is only claimed: no attempt is on disk, so whoever dies here leaves nothing that is
 * unknown, and the next worker takes them again. What cannot be done now is settled after start as not sent, and free
 * to repeat. */
#include <stdlib.h>
#include <string.h>
#include "common/base/failpoint.h"
#include "worker/actions.h"
#include "worker/stats.h"

enum { STUMBLES_MAX = 3, STUMBLE_MS = 500, ANSWER_BYTES = 64 * 1024 };

static void prepare_step(struct flight *f);
static void prepare_send(struct flight *f);

static void prepare_later(struct flight *f, int64_t delay_ms, void (*fn)(struct flight *f))
{
    f->sortie->is_waiting = true;
    flight_after(f, delay_ms, fn);
}

static void prepare_doom(struct flight *f, enum err code, const char *message)
{
    flight_doom(f, code, message);
    flight_prepared(f);
}

/* Again from what is known now; three times here, then by way of the queue. */
static void prepare_stumble(struct flight *f, enum err code, const char *message, int retry_after_s)
{
    struct sortie *s = f->sortie;

    if (code != ERR_RATE_LIMITED && retry_after_s == 0 && ++s->stumbles < STUMBLES_MAX) {
        prepare_later(f, STUMBLE_MS, prepare_step);
        return;
    }
    f->is_doom_passing = true;
    f->retry_after_s = retry_after_s;
    prepare_doom(f, code, message);
}

static void prepare_judge(struct flight *f, const struct answer *a)
{
    struct sortie *s = f->sortie;

    switch (a->outcome) {
    case OUT_DONE:
        s->stumbles = 0;
        prepare_step(f);
        break;
    case OUT_RETRY:
        prepare_stumble(f, a->code, a->message, a->retry_after_s);
        break;
    case OUT_PENDING: /* a step has nothing to wait for */
    case OUT_FAIL:
    default:
        if (keys_can_be_out(f,
                            a->code)) { /* by way of the queue to another key; a try, so that there is an end to it */
            keys_out(f, a->code, NULL);
            f->is_doom_passing = true;
        }
        prepare_doom(f, a->code != ERR_OK ? a->code : ERR_BAD_RESPONSE, a->message);
    }
}

static void prepare_on_answer(void *ctx, const struct httpc_answer *a)
{
    struct flight *f = ctx;
    struct sortie *s = f->sortie;
    struct answer answer;

    (void)FAILPOINT("worker.after_prepare");
    s->fetch_call = NULL;
    f->out.provider_status = a->status;
    stats_request(f->env->stats, f->lane, "prepare", a->fate == HTTPC_ANSWERED ? a->status : 0, a->total_ms);
    if (f->env->is_draining) {
        flight_put_off(f);
    } else if (a->fate != HTTPC_ANSWERED && a->err == ERR_INPUT_UNREACHABLE) {
        prepare_doom(f, ERR_BAD_RESPONSE, "the provider named an address that is not public");
    } else if (a->fate != HTTPC_ANSWERED) {
        prepare_stumble(f, a->err == ERR_TIMEOUT ? ERR_TIMEOUT : ERR_PROVIDER_UNAVAILABLE, exchange_plain(f, a), 0);
    } else if (!exchange_keep(s, a)) {
        prepare_stumble(f, ERR_STORAGE_ERROR, "no memory for the provider's answer", 0);
    } else {
        exchange_parse(s);
        s->steps++;
        answer = f->adapter->on_prepare(s->arena, &s->spec, &s->in, s->kept);
        prepare_judge(f, &answer);
    }
    flight_release(f);
}

/* --- one step: what, in the lane's budget, out ------------------------------------------------------------------- */

static void prepare_send(struct flight *f)
{
    struct sortie *s = f->sortie;
    struct http_req req = { .path = NULL };
    struct httpc_request out = { .url = NULL };
    enum err err = ERR_NOMEM;

    if (f->env->is_draining) {
        flight_put_off(f);
        return;
    }
    if (!f->adapter->prepare(s->arena, &s->spec, &req)) { /* said otherwise before: it is pure, so this never happens */
        flight_prepared(f);
        return;
    }
    if (exchange_fill(f, &req, &out) == ERR_OK) {
        out.is_guarded = req.url && !is_provider_host(f, req.url);
        out.timeout_ms = out.stall_ms = (int)f->op->submit_timeout_ms;
        out.max_bytes = ANSWER_BYTES;
        (void)FAILPOINT("worker.before_prepare");
        flight_hold(f);
        err = httpc_send(f->env->httpc, &out, prepare_on_answer, f, &s->fetch_call);
        if (err != ERR_OK) {
            s->fetch_call = NULL;
            flight_release(f);
        }
    }
    free((char *)out.url);
    if (err == ERR_IO)
        prepare_doom(f, ERR_INPUT_UNREACHABLE, "an input file is no longer here");
    else if (err != ERR_OK)
        prepare_doom(f, ERR_INVALID_REQUEST, "the request could not be made");
}

static void prepare_budget(struct flight *f);

static void prepare_on_budget(void *ctx, enum err err, int64_t allowed_after_ms)
{
    struct flight *f = ctx;

    if (err != ERR_OK || allowed_after_ms <= 0 || f->env->is_draining) /* without Redis nobody knows the budget */
        prepare_send(f);
    else
        prepare_later(f, allowed_after_ms, prepare_budget);
    flight_release(f);
}

static void prepare_budget(struct flight *f)
{
    f->sortie->is_waiting = false;
    if (!f->op->provider->budget_count || f->env->is_draining) {
        prepare_send(f);
        return;
    }
    flight_hold(f);
    queue_spend_key(f->env->queue, f->lane, keys_budget_of(f), 1, prepare_on_budget, f);
}

static void prepare_step(struct flight *f)
{
    struct sortie *s = f->sortie;
    struct http_req req = { .path = NULL };

    s->is_waiting = false;
    if (!f->adapter->prepare(s->arena, &s->spec, &req)) {
        flight_prepared(f);
        return;
    }
    json_decref(req.body); /* only asked whether there is one; made again when it may go */
    if (s->steps == PROVIDER_STEPS)
        prepare_doom(f, ERR_BAD_RESPONSE, "the provider asks for too many steps");
    else if (req.url) /* another host has no share in the budget */
        prepare_send(f);
    else
        prepare_budget(f);
}

void prepare_start(struct flight *f)
{
    if (f->doom != ERR_OK || f->env->is_draining)
        flight_prepared(f);
    else
        keys_pick(f);
}

void prepare_with_key(struct flight *f)
{
    struct sortie *s = f->sortie;

    if (f->env->is_draining || !f->adapter->prepare) {
        flight_prepared(f);
        return;
    }
    s->kept = json_object();
    if (s->kept && sortie_of(f)) /* the spec anew: the operation was not known when it was made */
        prepare_step(f);
    else
        prepare_doom(f, ERR_STORAGE_ERROR, "no memory");
}
