/* httpc.c - the life of a call: accepted, held or flying, done, called back, freed.
 *
 * Nothing here runs inside a callback of curl's. Whatever ends a call puts it on the `done` list, which is delivered
 * when curl has returned, or at the next turn of the loop for calls that were cancelled or never flew. Fate is told by
 * one fact: the prereq callback was passed (CALL.is_asked) or not. */
#include <arpa/inet.h>
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>
#include "common/base/clock.h"
#include "common/io/httpc_inside.h"

enum { HOSTS_MAX = 256, STALL_EVERY_MS = 100, SPOOL_PATIENCE_MS = 1000 };

static void list_add(struct call_list *list, struct httpc_call *call)
{
    call->queue_next = NULL;
    if (list->last)
        list->last->queue_next = call;
    else
        list->first = call;
    list->last = call;
}

static struct httpc_call *list_take(struct call_list *list)
{
    struct httpc_call *call = list->first;
    if (call) {
        list->first = call->queue_next;
        if (!list->first)
            list->last = NULL;
    }
    return call;
}

static void list_remove(struct call_list *list, struct httpc_call *call)
{
    struct call_list rest = { NULL, NULL };
    struct httpc_call *c;

    while ((c = list_take(list)) != NULL) {
        if (c != call)
            list_add(&rest, c);
    }
    *list = rest;
}

static void httpc_on_turn(uv_idle_t *idle);

static void httpc_wake(struct httpc *h)
{
    if (!uv_is_active((uv_handle_t *)&h->turn))
        (void)uv_idle_start(&h->turn, httpc_on_turn); /* fails only without a callback */
}

/* Ends a call: what it has said by now is its answer. Called once a call. */
static void call_end(struct httpc_call *call, enum err err, enum httpc_fate fate)
{
    struct httpc *h = call->h;

    assert(call->state != CALL_DONE);
    if (call->state == CALL_HELD)
        list_remove(&call->host->held, call);
    if (call->is_receiving) {
        if (call->receiving_prev)
            call->receiving_prev->receiving_next = call->receiving_next;
        else
            h->receiving = call->receiving_next;
        if (call->receiving_next)
            call->receiving_next->receiving_prev = call->receiving_prev;
        call->is_receiving = false;
    }
    call->err = err;
    call->fate = fate;
    call->state = CALL_DONE;
    list_add(&h->done, call);
    httpc_wake(h);
}

static enum err host_start_call(struct httpc_call *call)
{
    enum set set = call->is_guarded ? SET_GUARDED : call->host->speaks_h2 ? SET_H2 : SET_PLAIN;
    return multi_start(call, set);
}

static struct httpc_call *host_take(struct host *host)
{
    struct httpc_call *call = list_take(&host->held);
    if (call)
        call->state = CALL_NEW;
    return call;
}

static void host_start_held(struct host *host)
{
    struct httpc_call *call;

    while ((call = host_take(host)) != NULL) {
        if (host_start_call(call) != ERR_OK)
            call_end(call, ERR_NOMEM, HTTPC_NOT_SENT);
    }
}

/* The probe ended before it got through to the host. When the host cannot be reached, those who waited for the probe
 * learn the same; when the probe was cancelled the next one goes ahead; when its time was up all try for themselves,
 * for their time may be longer. */
static void host_on_probe_lost(struct host *host, const struct httpc_call *probe, bool is_unreachable, bool is_late)
{
    struct httpc_call *call;

    host->probe = NULL;
    if (is_unreachable) {
        while ((call = host_take(host)) != NULL) {
            memcpy(call->detail, probe->detail, sizeof call->detail);
            call_end(call, probe->err, HTTPC_NOT_SENT);
        }
    } else if (is_late) {
        host_start_held(host);
    } else {
        while (!host->probe && (call = host_take(host)) != NULL) {
            host->probe = call;
            if (host_start_call(call) != ERR_OK) {
                host->probe = NULL;
                call_end(call, ERR_NOMEM, HTTPC_NOT_SENT);
            }
        }
    }
}

static enum err result_err(const struct httpc_call *call, CURLcode code)
{
    if (code == CURLE_OK)
        return ERR_OK;
    if (call->is_blocked && !call->is_asked)
        return ERR_INPUT_UNREACHABLE;
    if (call->fault)
        return call->fault;
    switch (code) {
    case CURLE_OPERATION_TIMEDOUT:
        return ERR_TIMEOUT;
    case CURLE_FILESIZE_EXCEEDED:
        return ERR_TOO_LARGE;
    case CURLE_OUT_OF_MEMORY:
        return ERR_NOMEM;
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_URL_MALFORMAT:
    case CURLE_LOGIN_DENIED: /* a user name in a guarded URL */
        return call->is_guarded ? ERR_INPUT_UNREACHABLE : ERR_ARGUMENT;
    default:
        return call->is_asked ? ERR_LOST : ERR_UNAVAILABLE;
    }
}

/* curl has finished with it, well or not. */
void httpc_on_result(struct httpc_call *call, CURLcode result)
{
    CURLcode code = result == CURLE_OK && !call->is_headed ? CURLE_GOT_NOTHING : result;
    enum err err = result_err(call, code);
    enum httpc_fate fate = call->is_asked ? HTTPC_CUT : HTTPC_NOT_SENT;
    long status = 0;

    multi_stop(call);
    if (code == CURLE_OK) {
        fate = HTTPC_ANSWERED;
        (void)curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status);
        if (call->to_file && status / 100 == 2 && !wire_finish_file(call)) {
            err = ERR_IO;
            fate = HTTPC_CUT;
        }
    } else if (!call->detail[0]) {
        const char *text = curl_easy_strerror(code);
        memcpy(call->detail, text, strnlen(text, sizeof call->detail - 1));
    }
    call_end(call, err, fate);
    if (call->host->probe == call)
        host_on_probe_lost(call->host, call, code != CURLE_OPERATION_TIMEDOUT, code == CURLE_OPERATION_TIMEDOUT);
}

/* Stops a call that is not done yet, for a reason of ours. */
static void call_stop(struct httpc_call *call, enum err err)
{
    bool was_probe = call->host && call->host->probe == call;

    if (call->state == CALL_FLYING)
        multi_stop(call);
    call_end(call, err, call->is_asked ? HTTPC_CUT : HTTPC_NOT_SENT);
    if (was_probe)
        host_on_probe_lost(call->host, call, false, false);
}

static void call_free(struct httpc_call *call)
{
    struct httpc *h = call->h;

    if (call->prev)
        call->prev->next = call->next;
    else if (h->calls == call)
        h->calls = call->next;
    if (call->next)
        call->next->prev = call->prev;
    if (call->host)
        call->host->users--;
    wire_done(call);
    wire_give_spool(call->h, call->spool);
    if (call->fd >= 0)
        (void)close(call->fd); /* after an error; the good way has closed it */
    EVP_MD_CTX_free(call->hash);
    call->h->body_bytes -= call->in.len;
    buf_done(&call->in);
    buf_done(&call->headers);
    free(call->to_file);
    free(call);
}

/* Closes the file and takes the hash; on any trouble the file goes. */
static void call_finish_file(struct httpc_call *call, struct httpc_answer *answer)
{
    unsigned char digest[32];
    int fd = call->fd;

    if (fd < 0)
        return;
    call->fd = -1;
    if (close(fd) != 0 && answer->fate == HTTPC_ANSWERED) {
        answer->fate = HTTPC_CUT;
        answer->err = ERR_IO;
    }
    if (answer->fate != HTTPC_ANSWERED) {
        (void)unlink(call->to_file); /* a left-over is swept by the store */
        return;
    }
    if (EVP_DigestFinal_ex(call->hash, digest, NULL) == 1)
        hex_encode(answer->file_sha256, digest, sizeof digest);
    answer->in_file = true;
    answer->file_bytes = call->file_bytes;
}

static void call_deliver(struct httpc_call *call)
{
    struct httpc *h = call->h;
    const char **lines = call->header_count ? malloc(call->header_count * sizeof *lines) : NULL;
    const char *line = call->headers.data;
    struct httpc_answer answer = { .err = call->err, .fate = call->fate, .detail = call->detail };

    if (call->header_count && !lines) {
        answer.err = ERR_NOMEM;
        answer.fate = call->is_asked ? HTTPC_CUT : HTTPC_NOT_SENT;
    } else {
        for (size_t i = 0; i < call->header_count; i++, line += strlen(line) + 1)
            lines[i] = line;
        answer.headers = lines;
        answer.header_count = call->header_count;
    }
    if (call->easy && call->is_asked) /* before that curl still tells of the handle's last call */
        (void)curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &answer.status);
    call_finish_file(call, &answer);
    answer.is_kept = call->is_kept && answer.fate == HTTPC_ANSWERED;
    answer.body = answer.is_kept ? call->spool : call->in.data ? call->in.data : "";
    answer.body_len = answer.is_kept ? call->spool_len : call->in.len;
    answer.call = call;
    answer.total_ms = clock_mono_ms() - call->begun_ms;
    h->active--;
    call->fn(call->ctx, &answer);
    free(lines);
    call_free(call);
}

static void httpc_open_hosts(struct httpc *h)
{
    h->hosts_opened = false;
    for (struct host *host = h->hosts; host; host = host->next) {
        if (host->is_open) {
            host->is_open = false;
            host_start_held(host);
        }
    }
}

static void httpc_shut(struct httpc *h);

void httpc_deliver(struct httpc *h)
{
    struct httpc_call *call;

    if (h->receiving && !uv_is_active((uv_handle_t *)&h->stall) && !h->is_shut)
        (void)uv_timer_again(&h->stall); /* has its period since httpc_new */
    if (h->is_delivering)
        return; /* a callback of ours came back in; the loop below goes on */
    h->is_delivering = true;
    for (;;) {
        if (h->hosts_opened)
            httpc_open_hosts(h);
        if ((call = h->sent.first) != NULL) {
            h->sent.first = call->sent_next;
            if (!h->sent.first)
                h->sent.last = NULL;
            if (call->easy)
                buffer_sent(call->easy);
            if (call->on_sent)
                call->on_sent(call->ctx);
        } else if ((call = list_take(&h->done)) != NULL) {
            call_deliver(call);
        } else {
            break;
        }
    }
    h->is_delivering = false;
    (void)uv_idle_stop(&h->turn);
    if (h->is_closing && !h->is_shut)
        httpc_shut(h);
}

static void httpc_on_turn(uv_idle_t *idle)
{
    httpc_deliver(container_of(idle, struct httpc, turn));
}

/* One sweep for all who are silent in the middle of a body or wait for room; a timer each would cost more than it
 * tells. */
static void httpc_on_stall_tick(uv_timer_t *timer)
{
    struct httpc *h = container_of(timer, struct httpc, stall);
    int64_t now = clock_mono_ms();

    for (struct httpc_call *call = h->receiving; call;) {
        struct httpc_call *next = call->receiving_next;
        if (now - call->heard_ms > call->stall_ms) {
            static const char text[] = "the answer stopped in the middle";
            memcpy(call->detail, text, sizeof text);
            call_stop(call, ERR_TIMEOUT);
        }
        call = next;
    }
    if (h->waiting && now - h->spool_given_ms > SPOOL_PATIENCE_MS)
        multi_let_through(h); /* whoever holds them may be waiting for these answers */
    if (!h->receiving && !h->waiting)
        (void)uv_timer_stop(timer);
    httpc_deliver(h);
}

struct httpc *httpc_new(uv_loop_t *loop, const struct httpc_config *config)
{
    struct httpc *h;

    if (!httpc_init())
        return NULL;
    h = calloc(1, sizeof *h);
    if (!h)
        return NULL;
    h->loop = loop;
    h->config = *config;
    h->config.multis = !config->multis ? 8 : config->multis > MULTIS_MAX ? MULTIS_MAX : config->multis;
    if (!h->config.max_connections)
        h->config.max_connections = 4096;
    h->share = curl_share_init();
    h->sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    if (!h->share || !h->sha256 || !multi_init(h) || uv_idle_init(loop, &h->turn) != 0) /* the last cannot fail */
        goto fail;
    (void)curl_share_setopt(h->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_DNS); /* one thread: no locks */
    (void)uv_timer_init(loop, &h->stall);                                   /* neither can fail */
    (void)uv_timer_start(&h->stall, httpc_on_stall_tick, STALL_EVERY_MS, STALL_EVERY_MS);
    (void)uv_timer_stop(&h->stall);
    h->handles += 2;
    return h;
fail:
    if (h->share)
        curl_share_cleanup(h->share);
    EVP_MD_free(h->sha256);
    free(h);
    return NULL;
}

static uint64_t hash_text(const char *s)
{
    uint64_t hash = UINT64_C(14695981039346656037);
    for (; *s; s++)
        hash = (hash ^ (unsigned char)*s) * UINT64_C(1099511628211);
    return hash ^ hash >> 29;
}

static bool is_numeric_host(const char *host)
{
    unsigned char bytes[16];
    return host[0] == '[' || inet_pton(AF_INET, host, bytes) == 1;
}

/* Forgets hosts that nobody uses, once there are many. */
static void hosts_tidy(struct httpc *h)
{
    struct host **at = &h->hosts;

    if (h->host_count < HOSTS_MAX)
        return;
    while (*at) {
        struct host *host = *at;
        if (host->users == 0) {
            *at = host->next;
            h->host_count--;
            wire_forget_host(host);
        } else {
            at = &host->next;
        }
    }
}

static struct host *host_get(struct httpc *h, const char *key, bool is_gated)
{
    uint64_t hash = hash_text(key);
    struct host *host;

    for (host = h->hosts; host; host = host->next) {
        if (host->hash == hash && strcmp(host->key, key) == 0)
            return host;
    }
    hosts_tidy(h);
    host = calloc(1, sizeof *host);
    if (!host)
        return NULL;
    memcpy(host->key, key, strlen(key) + 1);
    host->hash = hash;
    host->is_gated = is_gated;
    host->next = h->hosts;
    h->hosts = host;
    h->host_count++;
    return host;
}

/* Of "https://api.example.com/v1/x" 23, where there is nothing to understand but letters, digits, and ".:-"; else 0. */
static size_t front_len(const char *url)
{
    const char *name = strncmp(url, "http://", 7) == 0 ? url + 7 : strncmp(url, "https://", 8) == 0 ? url + 8 : NULL;
    size_t len;

    if (!name)
        return 0;
    len = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789.:-");
    return name[len] == '/' && (size_t)(name - url) + len < FRONT_MAX ? (size_t)(name - url) + len : 0;
}

/* Calls to an operator's providers begin alike: those are not taken apart again. */
static struct host *host_by_front(const struct httpc *h, const char *url, size_t len)
{
    for (struct host *host = h->hosts; host && len > 0; host = host->next) {
        if (strncmp(host->front, url, len) == 0 && host->front[len] == '\0')
            return host;
    }
    return NULL;
}

/* ERR_ARGUMENT: not a URL with a host. */
static enum err host_of(struct httpc *h, const char *url, bool is_guarded, struct host **out, bool *is_https)
{
    CURLU *u = curl_url();
    char *scheme = NULL, *name = NULL, *port = NULL, key[HOST_KEY_MAX];
    enum err err = ERR_ARGUMENT;
    int len;

    if (!u)
        return ERR_NOMEM;
    if (curl_url_set(u, CURLUPART_URL, url, CURLU_NON_SUPPORT_SCHEME) != CURLUE_OK ||
        curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) != CURLUE_OK ||
        curl_url_get(u, CURLUPART_HOST, &name, 0) != CURLUE_OK)
        goto out;
    if (curl_url_get(u, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) != CURLUE_OK)
        port = NULL; /* a scheme that curl does not know; refused at the transfer */
    len = snprintf(key, sizeof key, "%s%s://%s:%s", is_guarded ? "g" : "", scheme, name, port ? port : "");
    if (len < 0 || (size_t)len >= sizeof key)
        goto out;
    *is_https = strcasecmp(scheme, "https") == 0;
    *out = host_get(h, key, (*is_https && !is_guarded) || !is_numeric_host(name));
    err = *out ? ERR_OK : ERR_NOMEM;
out:
    curl_free(scheme);
    curl_free(name);
    curl_free(port);
    curl_url_cleanup(u);
    return err;
}

static enum err call_start(struct httpc_call *call)
{
    struct host *host = call->host;
    enum err err;

    if (!host->is_gated || clock_mono_ms() < host->known_until_ms)
        return host_start_call(call);
    if (host->probe) {
        list_add(&host->held, call);
        call->state = CALL_HELD;
        return ERR_OK;
    }
    host->probe = call;
    err = host_start_call(call);
    if (err)
        host->probe = NULL;
    return err;
}

enum err httpc_send(struct httpc *h, const struct httpc_request *request, httpc_fn *fn, void *ctx,
                    struct httpc_call **out)
{
    struct httpc_call *call = NULL;
    struct host *host = NULL;
    bool is_https;
    size_t front;
    enum err err;

    if (h->is_closing)
        return ERR_CLOSED;
    front = request->is_guarded ? 0 : front_len(request->url);
    host = host_by_front(h, request->url, front);
    is_https = strncmp(request->url, "https:", 6) == 0;
    err = host ? ERR_OK : host_of(h, request->url, request->is_guarded, &host, &is_https);
    if (err)
        return err;
    if (front > 0 && !host->parsed && (host->parsed = curl_url()) != NULL) {
        memcpy(host->front, request->url, front);
        if (curl_url_set(host->parsed, CURLUPART_URL, host->front, 0) != CURLUE_OK) /* no memory */
            host->front[0] = '\0';
    }
    call = calloc(1, sizeof *call);
    if (!call)
        return ERR_NOMEM;
    call->h = h;
    call->fd = -1;
    call->fn = fn;
    call->ctx = ctx;
    call->on_sent = request->on_sent;
    call->body = request->body;
    call->body_len = request->body ? request->body_len : 0;
    call->is_paid = request->is_paid;
    call->is_guarded = request->is_guarded;
    call->max_bytes = request->max_bytes ? request->max_bytes : 1024 * 1024;
    call->stall_ms = request->stall_ms > 0 ? request->stall_ms : 30000;
    call->in.ceiling = call->max_bytes;
    call->headers.ceiling = HEADERS_MAX_BYTES;
    call->begun_ms = clock_mono_ms();
    call->host = host;
    host->users++;
    call->may_keep = request->may_keep;
    if (request->to_file && !(call->to_file = strdup(request->to_file)))
        err = ERR_NOMEM;
    if (!err)
        err = wire_set_up(call, request, is_https);
    if (!err)
        err = call_start(call);
    if (err) {
        call_free(call);
        return err;
    }
    call->next = h->calls;
    if (call->next)
        call->next->prev = call;
    h->calls = call;
    h->active++;
    if (out)
        *out = call;
    return ERR_OK;
}

void httpc_cancel(struct httpc_call *call)
{
    if (call->state != CALL_DONE)
        call_stop(call, ERR_CANCELED);
}

size_t httpc_body_bytes(const struct httpc *h)
{
    return h->body_bytes;
}

bool httpc_is_full(const struct httpc *h)
{
    return h->waiting != NULL;
}

size_t httpc_active(const struct httpc *h)
{
    return h->active;
}

void httpc_test_forbid_private(struct httpc *h)
{
    h->config.allow_private = false;
}

char *httpc_take_body(const struct httpc_answer *answer)
{
    char *body = answer->is_kept ? answer->call->spool : NULL;

    if (body)
        answer->call->spool = NULL;
    return body;
}

void httpc_give_body(struct httpc *h, char *body)
{
    wire_give_spool(h, body);
}

const char *httpc_header(const struct httpc_answer *answer, const char *name)
{
    size_t len = strlen(name);

    for (size_t i = 0; i < answer->header_count; i++) {
        const char *line = answer->headers[i];
        if (strncmp(line, name, len) == 0 && line[len] == ':')
            return line + len + 2;
    }
    return NULL;
}

static void httpc_free(struct httpc *h)
{
    curl_share_cleanup(h->share);
    EVP_MD_free(h->sha256);
    for (struct host *host = h->hosts; host;) {
        struct host *next = host->next;
        wire_forget_host(host);
        host = next;
    }
    if (h->on_closed)
        h->on_closed(h->closed_ctx);
    free(h);
}

/* `turn` closes last: it is asked to close again and again until the others, polls among them, are gone. */
static void httpc_on_handles_wait(uv_handle_t *handle)
{
    struct httpc *h = container_of((uv_idle_t *)handle, struct httpc, turn);

    if (h->handles > 1) {
        (void)uv_idle_init(h->loop, &h->turn);
        uv_close((uv_handle_t *)&h->turn, httpc_on_handles_wait);
        return;
    }
    httpc_free(h);
}

static void httpc_on_stall_closed(uv_handle_t *handle)
{
    container_of((uv_timer_t *)handle, struct httpc, stall)->handles--;
}

/* Every call was called back: now curl and the handles go. */
static void httpc_shut(struct httpc *h)
{
    h->is_shut = true;
    for (size_t i = 0; i < h->pool_count; i++)
        curl_easy_cleanup(h->pool[i]);
    while (h->spare_count > 0)
        free(h->spares[--h->spare_count]);
    h->pool_count = 0;
    multi_shut(h);
    uv_close((uv_handle_t *)&h->stall, httpc_on_stall_closed);
    uv_close((uv_handle_t *)&h->turn, httpc_on_handles_wait);
}

void httpc_close(struct httpc *h, void (*on_closed)(void *ctx), void *ctx)
{
    if (!h || h->is_closing)
        return;
    h->is_closing = true;
    h->on_closed = on_closed;
    h->closed_ctx = ctx;
    for (struct httpc_call *call = h->calls; call;) {
        struct httpc_call *next = call->next;
        if (call->state == CALL_HELD)
            call_end(call, ERR_CLOSED, HTTPC_NOT_SENT);
        call = next;
    }
    for (struct httpc_call *call = h->calls; call; call = call->next) {
        if (call->state != CALL_DONE)
            call_stop(call, ERR_CLOSED);
    }
    httpc_wake(h);
}
