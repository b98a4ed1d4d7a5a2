/* flight.c - a job's life in this worker: claimed, prepared, started, armed, given back, freed. What happens on the
 * wire with the provider is exchange.c, results are collect.c, PostgreSQL's last word is settle.c. */
#include <stdlib.h>
#include <string.h>
#include <assert.h>
#include "common/base/clock.h"
#include "common/base/failpoint.h"
#include "common/base/log.h"
#include "worker/actions.h"
#include "worker/stats.h"

enum { BUSY_AGAIN_MS = 3000, BEAT_FRESH_MS = 3000, RESUME_PATIENCE_MS = 60000 };

static void flight_read_envelope(struct flight *f);
static void flight_start(struct flight *f);

uint32_t random_u32(void)
{
    uint32_t value;

    random_bytes(&value, sizeof(value));
    return value;
}

/* --- life -------------------------------------------------------------------------------------------------------- */

struct flight *flight_new(struct flight_env *env, const struct queue_claim *claim)
{
    struct flight *f = calloc(1, sizeof(*f));

    if (!f)
        return NULL;
    f->env = env;
    if (!uuid_lower(f->job.id, claim->job)) {
        free(f);
        return NULL;
    }
    (void)snprintf(f->lane, sizeof(f->lane), "%s", claim->lane ? claim->lane : "");
    f->envelope = claim->envelope ? strdup(claim->envelope) : NULL;
    f->note = claim->note ? strdup(claim->note) : NULL;
    f->note_attempt = claim->note_attempt;
    f->is_lost = claim->is_lost;
    f->units = 1;
    f->cost_microusd = -1;
    (void)uv_timer_init(env->loop, &f->timer);
    env->in_state[f->job.state]++;
    env->may_wait++;
    f->may_wait = true;
    flight_hold(f); /* until prepared: nothing may free it before the caller has listed it */
    flight_after(f, 0, flight_read_envelope);
    return f;
}

static void flight_on_closed(uv_handle_t *h)
{
    struct flight *f = container_of(h, struct flight, timer);

    free(f->envelope);
    free(f->note);
    free(f->ref);
    free(f->doom_text);
    settlement_done(&f->out);
    free(f);
}

static void flight_never_waits(struct flight *f)
{
    if (f->may_wait)
        f->env->may_wait--;
    f->may_wait = false;
}

static void flight_close_if_over(struct flight *f)
{
    if (f->holds || f->is_closing || !job_is_over(&f->job))
        return;
    f->is_closing = true;
    line_remove(f);
    phase_over(f);
    flight_never_waits(f);
    sortie_free(f);
    f->env->in_state[f->job.state]--;
    f->env->on_over(f->env, f);
    uv_close((uv_handle_t *)&f->timer, flight_on_closed);
}

void flight_hold(struct flight *f)
{
    f->holds++;
}

void flight_release(struct flight *f)
{
    assert(f->holds > 0);
    f->holds--;
    flight_close_if_over(f);
}

static void flight_on_timer(uv_timer_t *t)
{
    struct flight *f = container_of(t, struct flight, timer);
    f->timer_fn(f);
}

void flight_after(struct flight *f, int64_t delay_ms, void (*fn)(struct flight *))
{
    if (f->is_closing)
        return;
    f->timer_fn = fn;
    (void)uv_timer_start(&f->timer, flight_on_timer, delay_ms > 0 ? (uint64_t)delay_ms : 0, 0);
}

/* --- events and actions ------------------------------------------------------------------------------------------ */

static void flight_on_tick(struct flight *f)
{
    flight_feed(f, EV_TICK);
}

static void flight_on_marked(void *ctx, enum err err, size_t count)
{
    struct flight *f = ctx;

    (void)err; /* without Redis nobody counts, and the result is fetched all the same */
    (void)count;
    collect_marked(f);
    flight_release(f);
}

/* Answered before the first byte of the result is touched: else the death that it brings comes before the mark. */
void flight_mark_collecting(struct flight *f)
{
    f->is_marked = true;
    phase_set(f, "collecting");
    flight_hold(f);
    queue_collecting(f->env->queue, f->job.id, true, flight_on_marked, f);
}

void flight_unmark_collecting(struct flight *f)
{
    if (f->is_marked)
        queue_collecting(f->env->queue, f->job.id, false, NULL, NULL);
    f->is_marked = false;
}

void flight_storage_failed(struct flight *f)
{
    if (!f->env->is_storage_failing)
        log_error("storage", log_str("job", f->job.id), log_str("problem", "a file could not be written"));
    f->env->is_storage_failing = true;
}

static void flight_arm(struct flight *f)
{
    int64_t now = clock_mono_ms(), delay;

    sortie_rest(f);
    flight_unmark_collecting(f); /* who dies now is no loss */
    delay = flight_poll_delay_ms(f->op, now - f->attempt_began_ms, f->retry_after_s, f->give_up_ms - now);
    f->retry_after_s = 0;
    phase_set(f, "waiting");
    flight_after(f, delay, flight_on_tick);
    if (f->is_canceled) {
        cancel_send(f);
        flight_feed(f, EV_FINISHED);
    } else if (f->env->is_draining) {
        flight_feed(f, EV_DRAIN);
    }
}

static void flight_put_back(struct flight *f)
{
    queue_put_back(f->env->queue, f->job.id, f->back_lane[0] ? f->back_lane : NULL, f->back_delay_ms, f->keep_note,
                   NULL, NULL);
}

static void flight_on_handed_back(void *ctx, enum err err, enum holder_verdict verdict)
{
    struct flight *f = ctx;

    if (err == ERR_OK && verdict == HOLDER_DONE) {
        f->keep_note = f->ref != NULL; /* else it was never sent: a note can only be of an attempt that is closed */
        flight_feed(f, EV_HANDED_BACK);
    } else if (err == ERR_OK && verdict == HOLDER_FINISHED) {
        cancel_send(f);
        flight_feed(f, EV_FINISHED);
    } else if (err == ERR_OK) {
        flight_feed(f, EV_STALE);
    } else if (err == ERR_CLOSED || err == ERR_REFUSED) {
        flight_feed(f, EV_STALE); /* the process ends, or resync repairs it */
    } else {
        flight_feed(f, EV_DB_DOWN);
    }
    flight_release(f);
}

static void flight_hand_back(struct flight *f)
{
    bool is_unsent = !f->ref;

    line_remove(f);
    (void)uv_timer_stop(&f->timer);
    flight_hold(f);
    if (holder_handback(f->env->holder, f->job.id, f->fence, is_unsent, flight_on_handed_back, f) != ERR_OK) {
        flight_feed(f, EV_STALE);
        flight_release(f);
    }
}

static void flight_act(struct flight *f, enum job_action action)
{
    switch (action) {
    case DO_START:
        flight_start(f);
        break;
    case DO_START_AGAIN:
        f->is_unsent = true;
        line_push(&f->env->for_beat, f);
        break;
    case DO_SUBMIT:
        exchange_submit(f);
        break;
    case DO_RECONCILE:
        reconcile_start(f);
        break;
    case DO_CHECKPOINT:
        settle_checkpoint(f);
        break;
    case DO_ARM:
        flight_arm(f);
        break;
    case DO_POLL:
        exchange_poll(f);
        break;
    case DO_COLLECT:
        collect_start(f);
        break;
    case DO_SETTLE:
        settle_send(f);
        break;
    case DO_PARK:
        settle_park(f);
        break;
    case DO_FORGET:
        queue_forget(f->env->queue, f->job.id, f->final_version, f->final_state[0] ? f->final_state : NULL, NULL, NULL);
        break;
    case DO_PUT_BACK:
        flight_put_back(f);
        break;
    case DO_HAND_BACK:
        flight_hand_back(f);
        break;
    case DO_REQUEUE:
        if (f->out.next[0])
            (void)snprintf(f->back_lane, sizeof(f->back_lane), "%s", f->out.next);
        queue_put_back(f->env->queue, f->job.id, f->back_lane[0] ? f->back_lane : NULL, f->out.delay_ms, false, NULL,
                       NULL);
        break;
    case DO_DROP:
        break;
    case DO_REPORT:
    case DO_COUNT:
    default:
        assert(!"reported before");
    }
}

void flight_feed(struct flight *f, enum job_event event)
{
    enum job_state before = f->job.state;
    enum job_action action = job_on(&f->job, event);

    if (action == DO_REPORT) {
        log_error("no_rule", log_str("job", f->job.id), log_str("state", job_state_name[before]),
                  log_str("on", job_event_name[event]));
        metric_add(f->env->stats->no_rule, 1);
        return;
    }
    log_debug("step", log_str("job", f->job.id), log_str("was", job_state_name[before]),
              log_str("on", job_event_name[event]), log_str("now", job_state_name[f->job.state]));
    f->env->in_state[before]--;
    f->env->in_state[f->job.state]++;
    flight_hold(f);
    flight_act(f, action);
    exchange_next_poll(f->env);
    f->env->on_change(f->env);
    flight_release(f);
}

/* --- claimed: what is it, and can it be sent? -------------------------------------------------------------------- */

void flight_doom(struct flight *f, enum err code, const char *text)
{
    if (f->doom != ERR_OK)
        return;
    f->doom = code;
    f->doom_text = text ? strdup(text) : NULL;
}

void flight_put_off(struct flight *f)
{
    f->back_delay_ms = f->env->is_draining ? 0 : BUSY_AGAIN_MS;
    f->keep_note = true;
    flight_feed(f, EV_DRAIN);
}

void flight_prepared(struct flight *f)
{
    if (f->env->is_draining)
        flight_put_off(f);
    else
        flight_feed(f, EV_READY);
}

static void flight_prepare(struct flight *f)
{
    struct sortie *s = f->env->is_draining ? NULL : sortie_of(f);

    if (f->env->is_draining) {
        flight_put_off(f);
        return;
    }
    if (!s) {
        flight_doom(f, ERR_INVALID_REQUEST, "the job cannot be read");
        flight_prepared(f);
        return;
    }
    f->units = s->envelope.units;
    f->is_routed = s->envelope.route != NULL;
    f->op = catalog_find(f->env->catalog, s->envelope.operation); /* NULL too: a route without this leg */
    f->adapter = f->op ? provider_find(f->op->provider->adapter) : NULL;
    if (!f->lane[0]) /* not from a claim: Redis did not know it */
        (void)snprintf(f->lane, sizeof(f->lane), "%s", s->envelope.provider);
    if (!f->op || !catalog_call(f->op, s->envelope.params).is_async)
        flight_never_waits(f);
    if (!f->adapter) {
        flight_doom(f, ERR_INVALID_REQUEST, "the operation is not offered any more");
    } else if (!f->op->provider->key) {
        flight_doom(f, ERR_AUTH, "the provider is not configured any more");
    } else if (!f->note) { /* a note says that it was sent: inputs are not needed again */
        f->is_prepared = true;
        inputs_fetch(f);
        return;
    }
    flight_prepared(f);
}

static void flight_on_envelope(void *ctx, enum err err, const struct db_result *result)
{
    struct flight *f = ctx;

    if (err == ERR_OK && db_rows(result) == 1) {
        f->envelope = strdup(db_col(result, 0, "envelope"));
        flight_prepare(f);
    } else if (err == ERR_OK) {
        flight_prepared(f); /* start will say finished */
    } else {
        flight_put_off(f);
    }
    flight_release(f);
}

static void flight_read_envelope(struct flight *f)
{
    static const char sql[] =
        "select jsonb_build_object('id', id, 'app', app_id, 'account', account, 'operation', operation, 'provider', "
        "provider, 'params', params, 'inputs', inputs, 'units', units, 'route', extras -> 'route')::text as envelope from jobs where id = $1::uuid";
    const char *values[] = { f->job.id };

    if (f->envelope || f->env->is_draining) {
        flight_prepare(f);
    } else {
        flight_hold(f);
        if (db_query(f->env->db, sql, 1, values, 5000, flight_on_envelope, f) != ERR_OK)
            flight_on_envelope(f, ERR_NOMEM, NULL);
    }
    flight_release(f); /* of flight_new */
}

/* --- starting ---------------------------------------------------------------------------------------------------- */

static void flight_take(struct flight *f, const struct holder_started *st)
{
    int64_t now = clock_mono_ms(), patience = f->op ? f->op->deadline_s * 1000 : 0;

    f->taken_resync = f->env->resync;
    f->fence = st->fence;
    f->attempt = st->attempt;
    f->tries = st->tries;
    f->attempt_began_ms = now - st->attempt_age_ms;
    f->deadline_ms = now + st->remaining_ms;
    f->give_up_ms = f->attempt_began_ms + patience;
    if (!patience || f->give_up_ms > f->deadline_ms)
        f->give_up_ms = f->deadline_ms;
}

static enum job_event flight_go(struct flight *f)
{
    free(f->note); /* about an attempt that is closed */
    f->note = NULL;
    if (f->doom != ERR_OK && f->is_doom_passing) {
        (void)exchange_set_retry(f, f->doom, CLASS_NOT_SENT, f->doom_text, f->retry_after_s); /* settled either way */
        return EV_DOOMED;
    }
    if (f->doom != ERR_OK) {
        settlement_set(&f->out, OUTCOME_FAILED, f->doom, CLASS_NOT_SENT, f->doom_text);
        f->out.cost_microusd = 0;
        (void)settle_move_on(f);
        return EV_DOOMED;
    }
    if (clock_mono_ms() >= f->deadline_ms) { /* queued until its deadline: not worth a request */
        settlement_set(&f->out, OUTCOME_FAILED, ERR_EXPIRED, CLASS_NOT_SENT,
                       "the deadline passed before it could be sent");
        f->out.cost_microusd = 0;
        return EV_DOOMED;
    }
    if (!f->is_prepared || f->env->is_draining) /* not prepared: the note was about an attempt that is closed */
        return EV_DRAIN;
    return EV_GO;
}

static enum job_event flight_resumed(struct flight *f, const struct holder_started *st)
{
    int64_t now = clock_mono_ms();
    bool has_key = keys_resume(f, st->ref ? st->ref : "");

    if (!has_key)
        flight_doom(f, ERR_AUTH, "the key that sent it to the provider is not configured any more");
    /* Nobody may have polled for a long time: what is paid for gets more than one chance to be fetched. */
    if (f->give_up_ms < now + RESUME_PATIENCE_MS)
        f->give_up_ms = f->deadline_ms < now + RESUME_PATIENCE_MS ? f->deadline_ms : now + RESUME_PATIENCE_MS;
    if (f->op && f->adapter && f->op->provider->key && f->adapter->poll && f->ref && has_key)
        return EV_RESUME;
    settlement_set(&f->out, OUTCOME_FAILED, f->doom != ERR_OK ? f->doom : ERR_INVALID_REQUEST, CLASS_ACCEPTED,
                   f->doom_text);
    return EV_DOOMED;
}

/* Redis may have an old idea of where a routed job stands: PostgreSQL's word counts. What is at another provider
 * already is asked about there; what is not is claimed anew in its own lane. True: it has to go back. */
static bool flight_is_astray(struct flight *f, const struct holder_started *st)
{
    if (!f->is_routed || !st->provider || !st->provider[0] || !strcmp(st->provider, f->lane))
        return false;
    (void)snprintf(f->back_lane, sizeof(f->back_lane), "%s", st->provider);
    if (st->verdict == START_GO)
        return true;
    (void)snprintf(f->lane, sizeof(f->lane), "%s", st->provider);
    sortie_free(f);
    if (sortie_of(f)) {
        f->op = catalog_find(f->env->catalog, f->sortie->envelope.operation);
        f->adapter = f->op ? provider_find(f->op->provider->adapter) : NULL;
    }
    return false;
}

static enum job_event flight_judge_start(struct flight *f, const struct holder_started *st)
{
    bool is_astray = flight_is_astray(f, st);

    switch (st->verdict) {
    case START_GO:
        flight_take(f, st);
        return is_astray ? EV_DRAIN : flight_go(f);
    case START_RESUME:
        flight_take(f, st);
        return flight_resumed(f, st);
    case START_SETTLE:
        flight_take(f, st);
        if (settlement_from_note(&f->out, f->note))
            return EV_PARKED;
        settlement_set(&f->out, OUTCOME_UNKNOWN, ERR_OUTCOME_UNKNOWN, CLASS_UNKNOWN,
                       "kiln was interrupted after it had sent the request");
        return reconcile_can(f) ? EV_LOST : EV_UNKNOWN;
    case START_UNKNOWN:
        flight_take(f, st);
        settlement_set(&f->out, OUTCOME_UNKNOWN, ERR_OUTCOME_UNKNOWN, CLASS_UNKNOWN,
                       "kiln was interrupted after it may have sent the request");
        return reconcile_can(f) ? EV_LOST : EV_UNKNOWN;
    case START_BUSY:
        f->back_delay_ms = BUSY_AGAIN_MS;
        f->keep_note = true;
        return EV_BUSY;
    case START_LATER:
        f->back_delay_ms = st->remaining_ms > 0 ? st->remaining_ms : 1000;
        return EV_BUSY;
    case START_FINISHED:
        return EV_FINISHED;
    case START_DEAD:
    default:
        return EV_ASK_AGAIN;
    }
}

static void flight_on_lost(void *ctx, enum err err, enum holder_verdict verdict)
{
    struct flight *f = ctx;

    if (err == ERR_OK && verdict == HOLDER_FINISHED) {
        (void)snprintf(f->final_state, sizeof(f->final_state), "failed");
        flight_feed(f, EV_FINISHED);
    } else {
        flight_feed(f, f->after_lost); /* not counted is better than not done */
    }
    flight_release(f);
}

static void flight_drop_note(struct flight *f)
{
    free(f->note);
    f->note = NULL;
}

static void flight_on_started(void *ctx, enum err err, const struct holder_started *st)
{
    struct flight *f = ctx;
    enum job_event event = EV_ASK_AGAIN;

    (void)FAILPOINT("worker.after_start");
    if (err == ERR_OK) {
        event = flight_judge_start(f, st);
        stats_start(f->env->stats, st->verdict);
    } else if (err == ERR_CLOSED) {
        event = EV_BUSY;
    } else if (err == ERR_REFUSED && f->note) { /* only a note brings foreign text along: ask without it */
        flight_drop_note(f);
    } else if (err == ERR_REFUSED) {
        f->back_delay_ms = BUSY_AGAIN_MS;
        event = EV_BUSY;
    }
    if (event != EV_ASK_AGAIN && event != EV_BUSY)
        flight_drop_note(f); /* it has said what it knew */
    if (f->is_lost && (event == EV_RESUME || event == EV_UNKNOWN || event == EV_LOST || event == EV_PARKED)) {
        f->after_lost = event;
        f->is_lost = false;
        flight_hold(f);
        if (holder_lost(f->env->holder, f->job.id, f->fence, flight_on_lost, f) != ERR_OK)
            flight_on_lost(f, ERR_NOMEM, HOLDER_STALE);
    } else {
        flight_feed(f, event);
    }
    flight_release(f);
}

static void flight_start(struct flight *f)
{
    if (!flight_beat_is_fresh(f->env) || !db_is_up(f->env->settle_db)) { /* what could not be written is not paid for */
        line_push(&f->env->for_beat, f);
        return;
    }
    f->gap = f->env->gap;
    flight_hold(f);
    if (holder_start(f->env->holder, f->job.id, f->is_unsent, f->note ? f->note_attempt : 0, f->note, flight_on_started,
                     f) != ERR_OK) {
        flight_drop_note(f); /* it cannot be said (foreign bytes): ask without */
        flight_on_started(f, ERR_NOMEM, NULL);
    }
}

bool flight_beat_is_fresh(const struct flight_env *env)
{
    return clock_mono_ms() - env->beat_began_ms < BEAT_FRESH_MS;
}

void flight_beat(struct flight_env *env)
{
    struct flight_line waiting = env->for_beat;
    struct flight *f;

    env->for_beat = (struct flight_line){ 0 };
    for (f = waiting.first; f; f = f->line_next)
        f->line = &waiting;
    while ((f = line_pop(&waiting))) {
        if (env->is_draining && !f->is_unsent) {
            f->keep_note = true;
            flight_feed(f, EV_BUSY); /* never asked: only Redis knows that it is mine */
        } else {
            flight_start(f);
        }
    }
}

/* --- from outside ------------------------------------------------------------------------------------------------ */

bool flight_is_at_rest(const struct flight *f)
{
    return f->job.state == JOB_WAITING || (f->job.state == JOB_POLLING && !f->is_poll_out);
}

void flight_drain(struct flight *f)
{
    if (flight_is_at_rest(f)) {
        flight_feed(f, EV_DRAIN);
    } else if (f->line == &f->env->for_beat && !f->is_unsent) {
        line_remove(f);
        f->keep_note = true;
        flight_feed(f, EV_BUSY); /* never asked: only Redis knows that it is mine */
    } else if (f->job.state == JOB_CLAIMED) {
        inputs_cancel(f);
    }
}

void flight_lost(struct flight *f)
{
    if (flight_is_at_rest(f))
        flight_feed(f, EV_STALE); /* else its next write learns it, and what it brings is evidence */
}

void flight_canceled(struct flight *f)
{
    f->is_canceled = true; /* what is on its way comes back and is kept as evidence */
    if (f->job.state == JOB_NOTING || f->job.state == JOB_WAITING || f->job.state == JOB_POLLING)
        cancel_send(f); /* the provider has it, and is not known to be done */
    if (flight_is_at_rest(f))
        flight_feed(f, EV_FINISHED);
}
