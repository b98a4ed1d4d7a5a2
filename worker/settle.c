/* settle.c - the reference and the outcome of an attempt, brought to PostgreSQL until it has answered. */
#include <stdlib.h>
#include <string.h>
#include "common/base/clock.h"
#include "common/base/failpoint.h"
#include "common/base/log.h"
#include "worker/actions.h"
#include "worker/stats.h"

enum { ASK_AGAIN_MS = 500 };

/* --- what will be settled ---------------------------------------------------------------------------------------- */

void settlement_done(struct settlement *s)
{
    free(s->message);
    free(s->request_id);
    free(s->artifacts);
    free(s->evidence);
    *s = (struct settlement){ 0 };
}

void settlement_set(struct settlement *s, enum ledger_outcome outcome, enum err code, enum attempt_class klass,
                    const char *message)
{
    char *request_id = s->request_id;
    int64_t status = s->provider_status;
    bool is_exposed = s->is_exposed;

    s->request_id = NULL;
    settlement_done(s);
    s->request_id = request_id;
    s->provider_status = status;
    s->is_exposed = is_exposed;
    s->outcome = outcome;
    s->code = code;
    s->klass = klass;
    s->message = message ? strdup(message) : NULL;
    s->cost_microusd = -1;
    s->counts = true;
}

char *settlement_note(const struct settlement *s)
{
    struct buf out = { 0 };

    (void)buf_str(&out, "{\"outcome\":");
    json_put(&out, "outcome", ledger_outcome_name[s->outcome]);
    json_put(&out, "code", err_word(s->code));
    json_put(&out, "class", attempt_class_name[s->klass]);
    json_put(&out, "message", s->message);
    json_put(&out, "request_id", s->request_id);
    json_put(&out, "artifacts", s->artifacts);
    json_put_int(&out, "status", s->provider_status);
    json_put_int(&out, "units", s->units);
    json_put_int(&out, "cost_microusd", s->cost_microusd);
    json_put_bool(&out, "exposed", s->is_exposed);
    if (s->outcome == OUTCOME_RETRY) {
        json_put_int(&out, "delay_ms", s->delay_ms);
        json_put_bool(&out, "counts", s->counts);
        json_put(&out, "next", s->next[0] ? s->next : NULL);
    }
    json_put_end(&out);
    json_put_end(&out);
    return json_put_take(&out);
}

static int word_index(const char *const *words, int count, const char *word)
{
    for (int i = 0; word && i < count; i++)
        if (!strcmp(words[i], word))
            return i;
    return -1;
}

/* Worth carrying over: a result, a final no, or a no that is free to repeat. An unknown is what start says anyway. */
static bool settlement_is_noted(int outcome, enum err code, int klass, const char *artifacts)
{
    switch (outcome) {
    case OUTCOME_DELIVERED:
        return artifacts != NULL;
    case OUTCOME_FAILED:
        return code != ERR_OK;
    case OUTCOME_RETRY:
        return code != ERR_OK && (klass == CLASS_NOT_SENT || klass == CLASS_REFUSED);
    default:
        return false;
    }
}

bool settlement_from_note(struct settlement *s, const char *note)
{
    json_t *root = note ? json_parse(note, strlen(note), NULL) : NULL;
    const json_t *o = root ? json_object_get(root, "outcome") : NULL;
    int outcome = word_index(ledger_outcome_name, 4, json_text(o, "outcome"));
    int klass = word_index(attempt_class_name, 5, json_text(o, "class"));
    enum err code = err_from_word(json_text(o, "code"));
    const char *text;
    bool is_one =
        klass >= 0 && code != ERR_COUNT && settlement_is_noted(outcome, code, klass, json_text(o, "artifacts"));

    if (is_one) {
        settlement_set(s, (enum ledger_outcome)outcome, code, (enum attempt_class)klass, json_text(o, "message"));
        text = json_text(o, "artifacts");
        s->artifacts = text ? strdup(text) : NULL;
        text = json_text(o, "request_id");
        free(s->request_id);
        s->request_id = text ? strdup(text) : NULL;
        (void)json_int(o, "status", &s->provider_status);
        (void)json_int(o, "units", &s->units);
        (void)json_int(o, "cost_microusd", &s->cost_microusd);
        (void)json_int(o, "delay_ms", &s->delay_ms);
        s->is_exposed = json_is_true(json_object_get(o, "exposed"));
        s->counts = !json_is_false(json_object_get(o, "counts"));
        if (json_text(o, "next"))
            (void)snprintf(s->next, sizeof(s->next), "%s", json_text(o, "next"));
    }
    json_decref(root);
    return is_one;
}

bool settle_move_on(struct flight *f)
{
    struct sortie *s = f->is_routed ? sortie_of(f) : NULL;
    const char *next = s ? job_route_next(s->envelope.route, f->lane) : NULL;

    if (!next || !err_fallback(f->out.code) || clock_mono_ms() >= f->deadline_ms)
        return false;
    f->out.outcome = OUTCOME_RETRY;
    f->out.counts = false; /* each leg is left once: legs bound it */
    f->out.delay_ms = 0;
    (void)snprintf(f->out.next, sizeof(f->out.next), "%s", next);
    return true;
}

/* --- the reference ----------------------------------------------------------------------------------------------- */

static void checkpoint_again(struct flight *f)
{
    flight_feed(f, EV_DB_DOWN);
}

static void checkpoint_on_saved(void *ctx, enum err err, enum holder_verdict verdict)
{
    struct flight *f = ctx;

    (void)FAILPOINT("worker.after_checkpoint");
    if (err == ERR_OK && verdict == HOLDER_STALE)
        log_warn("stale_reference", log_str("job", f->job.id), log_int("attempt", f->attempt));
    if (err == ERR_OK && verdict == HOLDER_FINISHED) /* canceled while the submit was out */
        cancel_send(f);
    if (err == ERR_OK)
        flight_feed(f, verdict == HOLDER_DONE ? EV_SAVED : verdict == HOLDER_FINISHED ? EV_FINISHED : EV_STALE);
    else if (err == ERR_REFUSED)
        flight_fail(f, ERR_BAD_RESPONSE, CLASS_ANSWERED, "the provider's reference could not be kept");
    else if (err == ERR_CLOSED)
        flight_feed(f, EV_STALE);
    else
        flight_after(f, ASK_AGAIN_MS, checkpoint_again);
    flight_release(f);
}

static void checkpoint_on_noted(void *ctx, enum err err, size_t count)
{
    (void)ctx; /* it only narrows the window: nobody waits for it */
    (void)err;
    (void)count;
    (void)FAILPOINT("worker.after_note");
}

void settle_checkpoint(struct flight *f)
{
    struct buf out = { 0 };
    char *note, *ref = keys_bind(f);

    json_put(&out, "ref", ref);
    json_put(&out, "request_id", f->out.request_id);
    json_put_end(&out);
    note = json_put_take(&out);
    if (note) /* with every try: Redis may have been away as well, or emptied since */
        queue_note(f->env->queue, f->job.id, f->attempt, note, checkpoint_on_noted, NULL);
    free(note);
    flight_hold(f);
    if (!ref || holder_checkpoint(f->env->holder, f->job.id, f->fence, f->attempt, ref, f->out.request_id,
                                  checkpoint_on_saved, f) != ERR_OK)
        checkpoint_on_saved(f, ERR_UNAVAILABLE, HOLDER_STALE);
    free(ref);
}

/* --- the outcome ------------------------------------------------------------------------------------------------- */

static void settle_unpark(struct flight *f)
{
    if (f->is_parked) {
        f->is_parked = false;
        f->env->parked--;
    }
}

static bool settle_is_plain(struct flight *f) /* once: without any text of the provider's */
{
    int64_t cost_microusd = f->out.cost_microusd;

    if (f->was_plain)
        return false;
    settlement_set(&f->out, OUTCOME_FAILED, ERR_BAD_RESPONSE, CLASS_ANSWERED, "the outcome could not be written down");
    free(f->out.request_id);
    f->out.request_id = NULL;
    f->out.cost_microusd = cost_microusd;
    f->was_plain = true;
    return true;
}

static enum job_event settle_event(struct flight *f, const struct ledger_settled *s)
{
    f->final_version = s->version;
    (void)snprintf(f->final_state, sizeof(f->final_state), "%s", job_state_is_final(s->state) ? s->state : "");
    switch (s->verdict) {
    case SETTLE_COMMITTED:
        return EV_COMMITTED;
    case SETTLE_REQUEUED:
        f->out.delay_ms = s->delay_ms;
        return EV_REQUEUED;
    case SETTLE_MINE:
        f->out.delay_ms = s->delay_ms;
        return f->final_state[0] ? EV_COMMITTED : EV_REQUEUED;
    case SETTLE_FINISHED:
        return EV_FINISHED;
    case SETTLE_STALE:
    default:
        metric_add(f->env->stats->stale, 1);
        return EV_STALE;
    }
}

static void settle_on_settled(void *ctx, enum err err, const struct ledger_settled *settled)
{
    struct flight *f = ctx;

    (void)FAILPOINT("worker.after_settle");
    if (err == ERR_OK) {
        line_remove(f);
        settle_unpark(f);
        metric_observe(f->env->stats->settle_lag, (double)(clock_mono_ms() - f->settle_began_ms) / 1000);
        stats_settled(f->env->stats, f->lane, f->out.outcome, f->out.code);
        flight_feed(f, settle_event(f, settled));
    } else if (err == ERR_REFUSED && settle_is_plain(f)) {
        log_error("settle_refused", log_str("job", f->job.id));
        settle_send(f);
    } else if (err == ERR_CLOSED || err == ERR_REFUSED) {
        line_remove(f);
        settle_unpark(f);
        flight_feed(f, EV_STALE);
    } else {
        flight_feed(f, EV_DB_DOWN);
    }
    flight_release(f);
}

void settle_send(struct flight *f)
{
    struct ledger_settle row = {
        .job = f->job.id,
        .fence = f->fence,
        .attempt = f->attempt,
        .outcome = f->out.outcome,
        .code = f->out.code,
        .klass = f->out.klass,
        .message = f->out.message,
        .provider_status = f->out.provider_status,
        .request_id = f->out.request_id,
        .units = f->out.units,
        .cost_microusd = f->out.cost_microusd,
        .delay_ms = f->out.delay_ms,
        .counts = f->out.counts,
        .artifacts = f->out.artifacts,
        .evidence = f->out.is_exposed ? "{\"exposure\":true}" : f->out.evidence,
        .provider = f->out.next[0] ? f->out.next : NULL,
    };
    enum err err;

    (void)FAILPOINT("worker.before_settle");
    if (!f->settle_began_ms)
        f->settle_began_ms = clock_mono_ms();
    if (!f->line)
        line_push(&f->env->for_settle, f);
    sortie_free(f);
    flight_hold(f);
    err = ledger_settle(f->env->ledger, &row, settle_on_settled, f);
    if (err != ERR_OK)
        settle_on_settled(f, err == ERR_ARGUMENT ? ERR_REFUSED : err, NULL);
}

void settle_park(struct flight *f)
{
    if (!f->is_parked) {
        f->is_parked = true;
        f->env->parked++;
        log_warn("parked", log_str("job", f->job.id), log_str("outcome", ledger_outcome_name[f->out.outcome]));
        flight_unmark_collecting(f); /* stored: who dies now is no loss */
    }
    if (f->out.outcome != OUTCOME_UNKNOWN) {
        char *note = settlement_note(&f->out);

        if (note) /* each time: Redis may have been away as well, or emptied since */
            queue_note(f->env->queue, f->job.id, f->attempt, note, NULL, NULL);
        free(note);
    }
    flight_after(f, ASK_AGAIN_MS, settle_send);
}
