/* exchange.c - requests to a provider and its answers: builds what the adapter says, sends it once, reads the answer
 * (exchange_in.c) and judges what follows. Which answers leave a submit open is decided here, once for
 * all providers (design.md, unknown outcomes). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "common/base/clock.h"
#include "common/base/failpoint.h"
#include "common/base/log.h"
#include "worker/actions.h"
#include "worker/stats.h"

enum {
    EXTRA_HEADERS = 8,
    BACKOFF_CAP_MS = 60000,
    LAST_POLL_MS = 30000,         /* a poll may end after the deadline, well before kiln_expire ends the job (60 s) */
    PAUSE_CAP_MS = 15 * 60 * 1000 /* one answer does not shut a lane for longer; the next one may again */
};

static void exchange_on_answer(void *ctx, const struct httpc_answer *a);
static void exchange_judge(struct flight *f);

/* --- out --------------------------------------------------------------------------------------------------------- */

char *exchange_url(const struct flight *f, const char *path)
{
    const char *base = f->op->provider->base_url;
    size_t size = strlen(base) + strlen(path) + 1;
    char *url = malloc(size);

    if (url)
        (void)snprintf(url, size, "%s%s", base, path);
    return url;
}

static int64_t exchange_answer_max(const struct flight *f)
{
    return f->op->max_result_bytes / 3 * 4 * (f->units > 0 ? f->units : 1) + 1024 * 1024;
}

static size_t exchange_parts(struct sortie *s, const struct http_req *req)
{
    size_t n = req->part_count < PROVIDER_PARTS ? req->part_count : PROVIDER_PARTS;

    s->parts = n ? arena_alloc(s->arena, n * sizeof(*s->parts)) : NULL;
    if (!s->parts)
        return 0;
    for (size_t i = 0; i < n; i++)
        s->parts[i] = (struct httpc_part){
            .name = req->parts[i].name,
            .filename = req->parts[i].filename,
            .mime = req->parts[i].mime,
            .data = req->parts[i].value,
            .len = req->parts[i].value ? strlen(req->parts[i].value) : 0,
            .path = req->parts[i].path,
        };
    return n;
}

static enum err exchange_headers(struct flight *f, const struct http_req *req, const char *body,
                                 struct httpc_request *out)
{
    enum { MAX = 4 + EXTRA_HEADERS };
    struct arena *a = f->sortie->arena;
    const struct catalog_provider *p = f->op->provider;
    const char **headers = arena_alloc(a, MAX * sizeof(*headers)), *name;
    json_t *value;
    size_t n = 0;

    if (!headers)
        return ERR_NOMEM;
    if (f->key && !req->url)
        headers[n++] = arena_printf(a, "%s: %s%s", p->auth_header, p->auth_prefix, f->key->text);
    if (req->accept)
        headers[n++] = arena_printf(a, "Accept: %s", req->accept);
    if (body)
        headers[n++] = req->form ? "Content-Type: application/x-www-form-urlencoded" : "Content-Type: application/json";
    json_object_foreach((json_t *)req->headers, name, value)
    {
        if (n < MAX)
            headers[n++] = arena_printf(a, "%s: %s", name, json_string_value(value));
    }
    for (size_t i = 0; i < n; i++)
        if (!headers[i])
            return ERR_NOMEM;
    out->headers = headers;
    out->header_count = n;
    return ERR_OK;
}

enum err exchange_fill(struct flight *f, struct http_req *req, struct httpc_request *out)
{
    struct sortie *s = f->sortie;
    bool has_json = req->body && !req->part_count && !req->form;
    char *url = req->url ? strdup(req->url) : req->path ? exchange_url(f, req->path) : NULL;

    free(s->body);
    json_decref(s->request);
    s->request = req->body; /* the parts' texts are its, and are read until the request is out */
    s->body = req->form ? strdup(req->form) : has_json ? json_print(req->body) : NULL;
    if (!req->part_count) {
        json_decref(s->request); /* printed */
        s->request = NULL;
    }
    sortie_weigh(s);
    if (!url || ((req->form || has_json) && !s->body) || exchange_headers(f, req, s->body, out) != ERR_OK) {
        free(url);
        return ERR_NOMEM;
    }
    out->method = req->method ? req->method : "GET";
    out->url = url;
    out->body = s->body;
    out->body_len = s->body ? strlen(s->body) : 0;
    out->part_count = exchange_parts(s, req);
    out->parts = s->parts;
    if (!s->parts && req->part_count) {
        free(url);
        out->url = NULL;
        return ERR_NOMEM;
    }
    return ERR_OK;
}

static enum err exchange_temp(struct sortie *s, bool wants_file)
{
    char path[STORE_PATH];
    enum err err = wants_file ? store_temp(s->flight->env->store, path, sizeof(path)) : ERR_OK;

    return err == ERR_OK && !sortie_set_temp(s, wants_file ? path : NULL) ? ERR_NOMEM : err;
}

static enum err exchange_send(struct flight *f, struct http_req *req, bool is_poll)
{
    struct sortie *s = f->sortie;
    const struct catalog_call call = catalog_call(f->op, s->envelope.params);
    int64_t left = f->deadline_ms - clock_mono_ms() + (is_poll ? LAST_POLL_MS : 0),
            timeout = is_poll ? f->op->poll_timeout_ms : f->op->submit_timeout_ms;
    bool wants_file = f->op->answers_bytes && is_poll == call.is_async;
    struct httpc_request out = { .url = NULL };
    enum err err;

    s->is_poll = is_poll;
    err = exchange_fill(f, req, &out);
    if (err != ERR_OK)
        return err;
    err = exchange_temp(s, wants_file);
    if (err != ERR_OK)
        goto done;
    if (timeout > left)
        timeout = left > 1000 ? left : 1000;
    out.is_paid = !is_poll;
    out.timeout_ms = out.stall_ms = (int)timeout;
    out.max_bytes = (size_t)exchange_answer_max(f);
    out.to_file = s->in_temp;
    out.may_keep = true;
    (void)FAILPOINT(is_poll ? "worker.before_poll" : "worker.before_send");
    flight_hold(f);
    err = httpc_send(f->env->httpc, &out, exchange_on_answer, f, NULL);
    if (!is_poll)
        (void)FAILPOINT("worker.after_send");
    if (err != ERR_OK)
        flight_release(f);
done:
    free((char *)out.url);
    return err;
}

void exchange_submit(struct flight *f)
{
    struct sortie *s = sortie_of(f);
    struct http_req req;

    enum err err;

    if (!flight_beat_is_fresh(f->env) || f->gap != f->env->gap) { /* rule 7 */
        flight_feed(f, EV_ASK_AGAIN);
        return;
    }
    req = f->adapter->submit(s->arena, &s->spec);
    err = exchange_send(f, &req, false);
    if (err == ERR_OK)
        phase_set(f, "submitting");
    else if (err == ERR_IO)
        flight_fail(f, ERR_INPUT_UNREACHABLE, CLASS_NOT_SENT, "an input file is no longer here");
    else
        flight_fail(f, ERR_INVALID_REQUEST, CLASS_NOT_SENT, "the request could not be made");
}

/* --- polls: in line for a slot, then for the lane's budget ------------------------------------------------------- */

static void exchange_poll_now(struct flight *f)
{
    struct sortie *s = sortie_of(f);
    struct http_req req = { 0 };

    if (s)
        req = f->adapter->poll(s->arena, &s->spec, f->ref);
    f->is_poll_out = true;
    f->env->polls_active++;
    if (!s || exchange_send(f, &req, true) != ERR_OK) {
        f->is_poll_out = false;
        f->env->polls_active--;
        if (s && !req.path) {
            flight_fail(f, ERR_BAD_RESPONSE, CLASS_ACCEPTED, "the provider's reference cannot be polled");
            return;
        }
        flight_feed(f, EV_GARBLED);
    }
}

static void exchange_poll_budget(struct flight *f);

static void exchange_on_budget(void *ctx, enum err err, int64_t allowed_after_ms)
{
    struct flight *f = ctx;

    if (f->job.state == JOB_POLLING) {
        if (err != ERR_OK || allowed_after_ms <= 0) /* without Redis nobody knows the budget: go on */
            exchange_poll_now(f);
        else
            flight_after(f, allowed_after_ms, exchange_poll_budget);
    }
    flight_release(f);
}

static void exchange_poll_budget(struct flight *f)
{
    if (f->job.state != JOB_POLLING)
        return;
    if (!f->op->provider->budget_count) {
        exchange_poll_now(f);
        return;
    }
    flight_hold(f);
    queue_spend_key(f->env->queue, f->lane, keys_budget_of(f), 1, exchange_on_budget, f);
}

/* Results that are being collected count too: else a provider that finishes all at once would be downloaded from at
 * once. */
static bool exchange_has_slot(const struct flight_env *env)
{
    size_t calls = flight_env_calls(env), room = env->concurrency > calls ? env->concurrency - calls : 0;
    size_t quarter = flight_env_quarter(env);

    if (room > env->concurrency - quarter)
        room = env->concurrency - quarter; /* the rest is for calls to come */
    return flight_env_results(env) < (room > quarter ? room : quarter);
}

void exchange_poll(struct flight *f)
{
    line_push(&f->env->for_poll, f); /* flight_feed lets the next in line go */
}

void exchange_next_poll(struct flight_env *env)
{
    struct flight *f;

    if (env->is_feeding_polls || !env->for_poll.first)
        return;
    env->is_feeding_polls = true; /* a poll that cannot be sent feeds its flight, which comes back here */
    while (exchange_has_slot(env) && (f = line_pop(&env->for_poll)))
        exchange_poll_budget(f);
    env->is_feeding_polls = false;
}

/* --- in ---------------------------------------------------------------------------------------------------------- */

static void exchange_on_thread(uv_work_t *w)
{
    exchange_read(container_of(w, struct sortie, work));
}

static void exchange_on_read(uv_work_t *w, int status)
{
    struct sortie *s = container_of(w, struct sortie, work);
    struct flight *f = s->flight;

    (void)status; /* never canceled */
    sortie_weigh(s);
    exchange_judge(f);
    flight_release(f);
}

/* --- what follows ------------------------------------------------------------------------------------------------ */

static int64_t exchange_backoff_ms(int64_t tries)
{
    int64_t cap = tries < 6 ? INT64_C(1000) << tries : BACKOFF_CAP_MS;

    if (cap > BACKOFF_CAP_MS)
        cap = BACKOFF_CAP_MS;
    return (int64_t)(random_u32() % (uint32_t)cap); /* full jitter */
}

void exchange_pause(struct flight *f, int64_t ms)
{
    ms = ms < PAUSE_CAP_MS ? ms : PAUSE_CAP_MS;
    if (keys_are_several(f))
        keys_pause(f, ms, NULL);
    else
        queue_pause(f->env->queue, f->lane, ms, NULL, NULL);
}

/* What an attempt costs that was taken and of which no answer says it. */
static int64_t exchange_cost(const struct flight *f)
{
    struct catalog_price price;
    int64_t cost = f->cost_microusd;

    if (cost < 0 && f->sortie && catalog_price(f->op, f->sortie->envelope.params, &price) == ERR_OK)
        cost = price.unit_cost_microusd * f->units;
    return cost;
}

static int64_t exchange_delay_ms(const struct flight *f, enum err code, int retry_after_s)
{
    int64_t delay = exchange_backoff_ms(f->tries);

    if (delay < retry_after_s * INT64_C(1000))
        delay = retry_after_s * INT64_C(1000);
    return code == ERR_RATE_LIMITED && delay < 500 ? 500 : delay;
}

/* What `out` says, at the next leg or after `delay`; false: failed, there is no time for it. */
static bool exchange_put_off(struct flight *f, int64_t delay)
{
    f->out.cost_microusd = f->out.is_exposed ? -1 : 0;
    if (settle_move_on(f))
        return true;
    if (clock_mono_ms() + delay >= f->deadline_ms) {
        f->out.outcome = OUTCOME_FAILED;
        return false;
    }
    f->out.delay_ms = delay;
    return true;
}

bool exchange_set_retry(struct flight *f, enum err code, enum attempt_class klass, const char *message,
                        int retry_after_s)
{
    int64_t delay = exchange_delay_ms(f, code, retry_after_s);

    if (code == ERR_RATE_LIMITED)
        exchange_pause(f, delay);
    settlement_set(&f->out, OUTCOME_RETRY, code, klass, message);
    f->out.counts = code != ERR_RATE_LIMITED; /* a pause is no try */
    return exchange_put_off(f, delay);
}

/* What the provider says to one key it does not say to the others: while one of them is free the job goes to it, at
 * once and before any other leg. */
static void exchange_on_told(void *ctx, enum err err, int64_t next_ms, const struct queue_key_state *states,
                             size_t count)
{
    struct flight *f = ctx;
    bool is_rate = f->out.code == ERR_RATE_LIMITED, has_other = err == ERR_OK && next_ms >= 0;

    (void)states;
    (void)count;
    if (f->job.state != JOB_SUBMITTING && f->job.state != JOB_POLLING) {
        /* a poll's: handed back meanwhile */
    } else if (has_other && next_ms == 0 && clock_mono_ms() < f->deadline_ms) {
        f->out.cost_microusd = 0;
        f->out.delay_ms = 0;
        flight_feed(f, EV_REFUSED);
    } else if (is_rate || err != ERR_OK || (has_other && !f->is_routed)) {
        if (err != ERR_OK && !is_rate) /* Redis did not hear of it: another may ask, but not for ever */
            f->out.counts = true;
        flight_feed(f, exchange_put_off(f, has_other ? next_ms : f->out.delay_ms) ? EV_REFUSED : EV_FAILED);
    } else {
        char *message = f->out.message;

        f->out.message = NULL;
        flight_refuse(f, f->out.code, f->out.klass, message);
        free(message);
    }
    flight_release(f);
}

static void exchange_key_refused(struct flight *f, enum err code, const char *message, int retry_after_s)
{
    int64_t delay = exchange_delay_ms(f, code, retry_after_s);

    settlement_set(&f->out, OUTCOME_RETRY, code, CLASS_REFUSED, message);
    f->out.counts = false; /* the job has no part in it */
    f->out.delay_ms = delay;
    flight_hold(f);
    if (code == ERR_RATE_LIMITED)
        keys_pause(f, delay < PAUSE_CAP_MS ? delay : PAUSE_CAP_MS, exchange_on_told);
    else
        keys_out(f, code, exchange_on_told);
}

/* A submit that is free to repeat: later, if there is still time for it. */
static void exchange_retry(struct flight *f, enum err code, enum attempt_class klass, const char *message,
                           int retry_after_s)
{
    if (code == ERR_RATE_LIMITED && klass == CLASS_REFUSED && keys_are_several(f))
        exchange_key_refused(f, code, message, retry_after_s);
    else
        flight_feed(f, exchange_set_retry(f, code, klass, message, retry_after_s) ? EV_REFUSED : EV_FAILED);
}

static void settle_failed(struct flight *f, enum err code, enum attempt_class klass, const char *message)
{
    settlement_set(&f->out, OUTCOME_FAILED, code, klass, message);
    if (f->out.is_exposed)
        f->out.cost_microusd = -1; /* nobody knows */
    else
        f->out.cost_microusd = klass == CLASS_NOT_SENT || klass == CLASS_REFUSED ? 0 : exchange_cost(f);
}

void flight_fail(struct flight *f, enum err code, enum attempt_class klass, const char *message)
{
    settle_failed(f, code, klass, message);
    flight_feed(f, EV_FAILED);
}

void flight_refuse(struct flight *f, enum err code, enum attempt_class klass, const char *message)
{
    settle_failed(f, code, klass, message);
    flight_feed(f, settle_move_on(f) ? EV_REFUSED : EV_FAILED);
}

static bool status_is_refused(long status)
{
    return (status >= 400 && status < 500 && status != 408) || status == 500 || status == 502 || status == 503 ||
           (status >= 520 && status <= 523) || status == 529;
}

/* What customers are told of a request without an answer; curl's words, with hosts and ports, are for the log. */
const char *exchange_plain(struct flight *f, const struct httpc_answer *a)
{
    log_warn("no_answer", log_str("job", f->job.id), log_str("provider", f->lane), log_str("detail", a->detail),
             log_int("status", a->status), log_int("ms", a->total_ms));
    if (a->fate == HTTPC_NOT_SENT)
        return "the provider could not be reached";
    if (a->err == ERR_TIMEOUT)
        return "the provider did not answer in time";
    return "the connection to the provider broke before its answer was complete";
}

static void exchange_unknown(struct flight *f, const char *message)
{
    settlement_set(&f->out, OUTCOME_UNKNOWN, ERR_OUTCOME_UNKNOWN, CLASS_UNKNOWN, message);
    flight_feed(f, reconcile_can(f) ? EV_LOST : EV_CUT);
}

static void exchange_judge_submit(struct flight *f, const struct answer *a)
{
    long status = f->sortie->in.status;
    bool is_refused = status_is_refused(status);

    if (a->outcome == OUT_DONE || a->outcome == OUT_PENDING)
        keys_good(f);
    if (a->outcome == OUT_DONE) {
        flight_feed(f, EV_DONE);
    } else if (a->outcome == OUT_PENDING && a->ref && a->ref[0]) {
        free(f->ref);
        f->ref = strdup(a->ref);
        f->cost_microusd = a->cost_microusd;
        f->retry_after_s = a->retry_after_s;
        f->attempt_began_ms = clock_mono_ms();
        flight_feed(f, EV_PENDING);
    } else if (a->outcome == OUT_PENDING) {
        flight_fail(f, ERR_BAD_RESPONSE, CLASS_ANSWERED, "the provider gave no reference");
    } else if (a->leaves_open || (!is_refused && status / 100 != 2)) {
        exchange_unknown(f, a->message); /* 408, 504, 524 and what nobody documented: work may have begun */
    } else if (a->outcome == OUT_RETRY && (is_refused || f->op->failed_is_free) && !(a->is_once && f->tries > 0)) {
        exchange_retry(f, a->code, CLASS_REFUSED, a->message, a->retry_after_s);
    } else if (is_refused && keys_can_be_out(f, a->code)) {
        exchange_key_refused(f, a->code, a->message, 0);
    } else {
        flight_refuse(f, a->code, is_refused ? CLASS_REFUSED : CLASS_ANSWERED, a->message);
    }
}

static void exchange_poll_later(struct flight *f, enum job_event event, const char *message)
{
    if (clock_mono_ms() >= f->give_up_ms) {
        cancel_send(f);
        flight_fail(f, ERR_TIMEOUT, CLASS_ACCEPTED,
                    message ? message : "the provider had no result within the deadline");
        return;
    }
    flight_feed(f, event);
}

/* The poll was refused, not the job: the operator can mend it while the provider works on. */
static bool exchange_is_curable(const struct answer *a)
{
    return !a->is_terminal && (a->code == ERR_AUTH || a->code == ERR_INSUFFICIENT_FUNDS);
}

static void exchange_give_up(struct flight *f, const struct answer *a)
{
    if (exchange_is_curable(a)) /* time is up, and nothing says that the provider has stopped */
        cancel_send(f);
    flight_fail(f, a->code, CLASS_ACCEPTED, a->message);
}

static void exchange_poll_refused(struct flight *f, const struct answer *a)
{
    if (keys_can_be_out(f, a->code)) /* what is new goes to another key; this result is bound to its own */
        keys_out(f, a->code, NULL);
    flight_feed(f, EV_GARBLED);
}

static void exchange_judge_poll(struct flight *f, const struct answer *a)
{
    f->retry_after_s = a->retry_after_s;
    if (a->is_unknown_word)
        log_warn("unknown_status", log_str("job", f->job.id), log_str("provider", f->lane));
    switch (a->outcome) {
    case OUT_DONE:
        flight_feed(f, EV_DONE);
        break;
    case OUT_PENDING:
        f->blanks = a->is_blank ? f->blanks + 1 : 0;
        exchange_poll_later(f, EV_PENDING, NULL);
        break;
    case OUT_RETRY:
        if (a->code == ERR_RATE_LIMITED)
            exchange_pause(f, a->retry_after_s > 0 ? a->retry_after_s * INT64_C(1000) : 1000);
        exchange_poll_later(f, EV_GARBLED, a->message);
        break;
    case OUT_FAIL:
    default:
        if (a->is_terminal && f->op->failed_is_free && err_retry(a->code))
            exchange_retry(f, a->code, CLASS_REFUSED, a->message, a->retry_after_s);
        else if (exchange_is_curable(a) && clock_mono_ms() < f->give_up_ms)
            exchange_poll_refused(f, a);
        else if (a->is_terminal)
            flight_refuse(f, a->code, CLASS_ANSWERED, a->message);
        else
            exchange_give_up(f, a);
    }
}

static void exchange_judge(struct flight *f)
{
    struct sortie *s = f->sortie;
    const struct answer *a = &s->answer;

    f->is_poll_out = false;
    free(f->out.request_id);
    f->out.request_id = a->request_id ? strdup(a->request_id) : NULL;
    f->out.provider_status = s->in.status;
    /* design.md: a server error is free to repeat, but where no page calls it free it may have been paid for */
    f->out.is_exposed =
        !s->is_poll && s->in.status >= 500 && status_is_refused(s->in.status) && !a->is_free && !a->leaves_open;
    if (s->is_poll)
        exchange_judge_poll(f, a);
    else
        exchange_judge_submit(f, a);
}

/* The answer to a submit began with 2xx and did not come whole. */
static void exchange_no_body(struct flight *f, const struct httpc_answer *a)
{
    if (a->err == ERR_TOO_LARGE)
        flight_fail(f, ERR_BAD_RESPONSE, CLASS_ANSWERED, "the provider's answer is larger than the operation's limit");
    else if (a->err == ERR_IO)
        flight_fail(f, ERR_STORAGE_ERROR, CLASS_ANSWERED, "the result could not be stored");
    else
        flight_fail(f, ERR_BAD_RESPONSE, CLASS_ANSWERED, "the provider's answer was cut");
}

static void exchange_no_answer(struct flight *f, const struct httpc_answer *a)
{
    const char *message;

    f->is_poll_out = false;
    f->out.provider_status = a->status;
    message = exchange_plain(f, a);
    if (a->err == ERR_IO)
        flight_storage_failed(f);
    if (f->sortie->is_poll)
        exchange_poll_later(f, EV_GARBLED, message);
    else if (a->fate == HTTPC_NOT_SENT)
        exchange_retry(f, ERR_PROVIDER_UNAVAILABLE, CLASS_NOT_SENT, message, 0);
    else if (a->status / 100 == 2 && a->err != ERR_CLOSED && a->err != ERR_CANCELED)
        exchange_no_body(f, a); /* done and perhaps paid, but not in our hands: never asked for again */
    else
        exchange_unknown(f, message);
}

static void exchange_on_answer(void *ctx, const struct httpc_answer *a)
{
    struct flight *f = ctx;
    struct sortie *s = f->sortie;
    bool is_poll = s->is_poll;

    (void)FAILPOINT(s->is_poll ? "worker.after_poll" : "worker.after_answer");
    stats_request(f->env->stats, f->lane, s->is_poll ? "poll" : "submit", a->fate == HTTPC_ANSWERED ? a->status : 0,
                  a->total_ms);
    if (is_poll)
        f->env->polls_active--;
    if (a->fate != HTTPC_ANSWERED) {
        exchange_no_answer(f, a);
    } else if (!exchange_keep(s, a)) {
        f->is_poll_out = false;
        if (s->is_poll)
            exchange_poll_later(f, EV_GARBLED, NULL);
        else
            flight_fail(f, ERR_BAD_RESPONSE, CLASS_ANSWERED, "no memory for the provider's answer");
    } else if (exchange_is_quick(s)) {
        exchange_read(s);
        exchange_judge(f);
    } else {
        flight_hold(f);
        if (uv_queue_work(f->env->loop, &s->work, exchange_on_thread, exchange_on_read) != 0)
            flight_release(f); /* cannot fail with a callback given */
    }
    if (is_poll) /* the sortie may be gone by now */
        exchange_next_poll(f->env);
    flight_release(f);
}
