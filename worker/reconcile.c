/* reconcile.c - asks the provider what became of a submit whose answer is lost, where its adapter can ask (provider.h,
 * `reconcile`): the connection was cut after the request had left, or whoever sent it has died.
 *
 * Asked by the holder only, after the attempt was found unknown and before it is settled so (protocol.md, start, case
 * 5). Asking is free and sends nothing that could be paid for, so a death in the middle leaves what was there before:
 * the next holder finds the same unknown attempt and asks again. Only a yes proves anything: its reference goes through
 * note and checkpoint like one from a submit, guarded by holder and fence. A no (it may be done already, or not be
 * listed yet) and silence leave it to on_unknown, after a few tries within some seconds. */
#include <stdlib.h>
#include <string.h>
#include "common/base/clock.h"
#include "common/base/failpoint.h"
#include "common/base/log.h"
#include "worker/actions.h"
#include "worker/stats.h"

enum { ASKS_MAX = 3, ASK_AGAIN_MS = 1000, ASK_TIMEOUT_MS = 5000, LIST_BYTES = 32 * 1024 * 1024, PATIENCE_MS = 60000 };

static void reconcile_ask(struct flight *f);

bool reconcile_can(struct flight *f)
{
    struct sortie *s;

    if (!f->op || !f->adapter || !f->adapter->reconcile || !f->adapter->on_reconcile || !f->op->provider->key ||
        clock_mono_ms() >= f->deadline_ms)
        return false;
    s = sortie_of(f);
    return s && catalog_call(f->op, s->envelope.params).is_async;
}

static void reconcile_end(struct flight *f, bool is_found)
{
    log_info("reconciled", log_str("job", f->job.id), log_str("provider", f->lane), log_int("attempt", f->attempt),
             log_str("found", is_found ? "yes" : "no"));
    stats_reconciled(f->env->stats, f->lane, is_found);
    flight_feed(f, is_found ? EV_PENDING : EV_CUT);
}

/* Not known to be there, or no answer. */
static void reconcile_again(struct flight *f)
{
    size_t most = ASKS_MAX + (f->is_key_guessed ? f->op->provider->key_count - 1 : 0);

    if (++f->asks < most && clock_mono_ms() + ASK_AGAIN_MS < f->deadline_ms)
        flight_after(f, ASK_AGAIN_MS, reconcile_ask);
    else
        reconcile_end(f, false);
}

static void reconcile_judge(struct flight *f)
{
    const struct answer *a = &f->sortie->answer;
    int64_t now = clock_mono_ms();
    char *ref = a->outcome == OUT_PENDING && a->ref && a->ref[0] ? strdup(a->ref) : NULL;

    if (!ref) {
        reconcile_again(f);
        return;
    }
    free(f->ref);
    f->ref = ref;
    f->cost_microusd = a->cost_microusd;
    f->attempt_began_ms = now; /* for the first poll */
    if (f->give_up_ms < now + PATIENCE_MS)
        f->give_up_ms = f->deadline_ms < now + PATIENCE_MS ? f->deadline_ms : now + PATIENCE_MS;
    f->out.is_exposed = false;
    reconcile_end(f, true);
}

static void reconcile_read(struct sortie *s)
{
    exchange_parse(s);
    s->answer = s->flight->adapter->on_reconcile(s->arena, &s->spec, &s->in);
}

static void reconcile_on_thread(uv_work_t *w)
{
    reconcile_read(container_of(w, struct sortie, work));
}

static void reconcile_on_read(uv_work_t *w, int status)
{
    struct flight *f = container_of(w, struct sortie, work)->flight;

    (void)status; /* never canceled */
    sortie_weigh(f->sortie);
    reconcile_judge(f);
    flight_release(f);
}

static void reconcile_on_answer(void *ctx, const struct httpc_answer *a)
{
    struct flight *f = ctx;
    struct sortie *s = f->sortie;

    (void)FAILPOINT("worker.after_reconcile");
    stats_request(f->env->stats, f->lane, "reconcile", a->fate == HTTPC_ANSWERED ? a->status : 0, a->total_ms);
    if (a->fate != HTTPC_ANSWERED || !exchange_keep(s, a)) {
        reconcile_again(f);
    } else if (a->body_len <= EXCHANGE_INLINE_BYTES) {
        reconcile_read(s);
        reconcile_judge(f);
    } else {
        flight_hold(f);
        if (uv_queue_work(f->env->loop, &s->work, reconcile_on_thread, reconcile_on_read) != 0)
            flight_release(f); /* cannot fail with a callback given */
    }
    flight_release(f);
}

static void reconcile_send(struct flight *f)
{
    struct sortie *s = sortie_of(f);
    struct http_req req = { .path = NULL };
    struct httpc_request out = { .url = NULL };
    enum err err = ERR_NOMEM;

    if (s) {
        (void)sortie_set_temp(s, NULL);
        req = f->adapter->reconcile(s->arena, &s->spec);
        err = exchange_fill(f, &req, &out);
    }
    if (err == ERR_OK) {
        out.timeout_ms = out.stall_ms = ASK_TIMEOUT_MS;
        out.max_bytes = LIST_BYTES;
        (void)FAILPOINT("worker.before_reconcile");
        flight_hold(f);
        err = httpc_send(f->env->httpc, &out, reconcile_on_answer, f, NULL);
        if (err != ERR_OK)
            flight_release(f);
    }
    free((char *)out.url);
    if (err != ERR_OK)
        reconcile_again(f);
}

static void reconcile_on_budget(void *ctx, enum err err, int64_t allowed_after_ms)
{
    struct flight *f = ctx;

    if (err != ERR_OK || allowed_after_ms <= 0) /* without Redis nobody knows the budget */
        reconcile_send(f);
    else if (clock_mono_ms() + allowed_after_ms < f->deadline_ms)
        flight_after(f, allowed_after_ms, reconcile_ask);
    else
        reconcile_end(f, false);
    flight_release(f);
}

/* Whoever sent it may have died with the knowledge of which key it was. A no proves nothing, so each is asked. */
static void reconcile_guess_key(struct flight *f)
{
    const struct catalog_provider *p = f->op->provider;

    if (!f->key && p->key_count)
        f->is_key_guessed = true;
    if (f->is_key_guessed)
        f->key = &p->keys[(size_t)f->asks % p->key_count];
}

static void reconcile_ask(struct flight *f)
{
    reconcile_guess_key(f);
    if (!f->op->provider->budget_count) {
        reconcile_send(f);
        return;
    }
    flight_hold(f);
    queue_spend_key(f->env->queue, f->lane, keys_budget_of(f), 1, reconcile_on_budget, f);
}

void reconcile_start(struct flight *f)
{
    f->asks = 0;
    reconcile_ask(f);
}
