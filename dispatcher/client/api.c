/* api.c - libcurl, one call at a time. The easy handle sits in a multi handle only so that a tick can come ten times a
 * second (curl_easy_perform gives one a second) and a signal is noticed at once. */
#include "dispatcher/client/api.h"
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <curl/curl.h>
#include <sodium.h>
#include "common/base/clock.h"
#include "common/base/config.h"
#include "common/base/json.h"
#include "dispatcher/client/client.h"
#include "dispatcher/client/show.h"

enum {
    CONNECT_MS = 10000,
    ANSWER_MS = 30000, /* beyond what was asked to wait */
    IDLE_S = 60,       /* an upload or a download that moves nothing */
    PATIENCE_MS = 8000,
    PAUSE_FIRST_MS = 250,
    PAUSE_MOST_MS = 5000,
    TICK_MS = 100,
    REDIRECTS = 3
};
#define ANSWER_BYTES ((size_t)256 << 20)

struct api {
    char *url, *bearer; /* without a slash at its end; the whole Authorization line */
    CURLM *multi;
    CURL *easy;
    void (*tick)(void *ctx);
    void *tick_ctx;
    char error[CURL_ERROR_SIZE];
};

struct answer { /* of one exchange */
    struct buf body;
    int64_t retry_after_s;
    bool is_replayed;
};

static volatile sig_atomic_t caught;

static void on_signal(int number)
{
    caught = number;
}

void api_catch_signals(void)
{
    struct sigaction sa = { .sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND };

    (void)sigemptyset(&sa.sa_mask); /* these three fail for a bad signal number only */
    (void)sigaction(SIGINT, &sa, NULL);
    (void)sigaction(SIGTERM, &sa, NULL);
}

int api_signal(void)
{
    return caught;
}

struct api *api_new(const char *url, const char *key)
{
    struct api *a = calloc(1, sizeof *a);
    struct buf line = { 0 };

    if (!a || curl_global_init(CURL_GLOBAL_DEFAULT) != 0) {
        free(a);
        return NULL;
    }
    a->url = strdup(url);
    if (buf_printf(&line, "Authorization: Bearer %s", key))
        a->bearer = buf_take(&line);
    a->multi = curl_multi_init();
    a->easy = curl_easy_init();
    if (!a->url || !a->bearer || !a->multi || !a->easy) {
        api_free(a);
        return NULL;
    }
    for (size_t len = strlen(a->url); len > 0 && a->url[len - 1] == '/'; len--)
        a->url[len - 1] = '\0';
    return a;
}

void api_free(struct api *a)
{
    if (!a)
        return;
    curl_easy_cleanup(a->easy);
    if (a->multi)
        (void)curl_multi_cleanup(a->multi); /* nothing is in it any more */
    if (a->bearer)
        sodium_memzero(a->bearer, strlen(a->bearer));
    free(a->bearer);
    free(a->url);
    free(a);
    curl_global_cleanup();
}

const char *api_url(const struct api *a)
{
    return a->url;
}

void api_on_tick(struct api *a, void (*fn)(void *ctx), void *ctx)
{
    a->tick = fn;
    a->tick_ctx = ctx;
}

/* ---- one exchange */

static size_t answer_on_body(char *data, size_t size, size_t count, void *ctx)
{
    struct answer *in = ctx;
    return buf_add(&in->body, data, size * count) ? size * count : 0;
}

static size_t answer_on_header(char *data, size_t size, size_t count, void *ctx)
{
    static const char retry[] = "Retry-After:", replayed[] = "Idempotent-Replayed:";
    struct answer *in = ctx;
    size_t len = size * count;
    char text[16] = "";

    if (len > sizeof retry && strncasecmp(data, retry, sizeof retry - 1) == 0) {
        size_t from = sizeof retry - 1, n = 0;
        for (; from < len && data[from] == ' '; from++)
            ;
        for (; from < len && data[from] >= '0' && data[from] <= '9' && n + 1 < sizeof text; from++)
            text[n++] = data[from];
        (void)parse_i64(text, 0, 86400, &in->retry_after_s); /* a date: our own pause will do */
    }
    if (len >= sizeof replayed - 1 && strncasecmp(data, replayed, sizeof replayed - 1) == 0)
        in->is_replayed = true;
    return len;
}

/* A proxy of the environment is not for a dispatcher on this machine. */
static bool url_is_local(const char *url)
{
    static const char *const hosts[] = { "127.0.0.1", "localhost", "[::1]" };
    const char *host = strstr(url, "://");

    for (size_t i = 0; host && i < ARRAY_LEN(hosts); i++) {
        size_t len = strlen(hosts[i]);
        if (strncasecmp(host + 3, hosts[i], len) == 0 &&
            (host[3 + len] == ':' || host[3 + len] == '/' || !host[3 + len]))
            return true;
    }
    return false;
}

/* curl_easy_setopt can only fail for want of memory, or for an option this libcurl lacks; both end the call later. */
#define SET(a, option, value) (void)curl_easy_setopt((a)->easy, option, value)

static void api_prepare(struct api *a, const char *url)
{
    curl_easy_reset(a->easy); /* keeps the connections */
    a->error[0] = '\0';
    SET(a, CURLOPT_URL, url);
    SET(a, CURLOPT_ERRORBUFFER, a->error);
    SET(a, CURLOPT_NOSIGNAL, 1L);
    SET(a, CURLOPT_PROTOCOLS_STR, "http,https");
    SET(a, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
    SET(a, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MS);
    SET(a, CURLOPT_USERAGENT, "kiln/" KILN_VERSION);
    if (url_is_local(url))
        SET(a, CURLOPT_PROXY, "");
}

static enum err api_err(struct api *a, CURLcode code, char *message, size_t size)
{
    (void)snprintf(message, size, "%s", a->error[0] ? a->error : curl_easy_strerror(code));
    switch (code) {
    case CURLE_OK:
        return ERR_OK;
    case CURLE_COULDNT_CONNECT:
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_URL_MALFORMAT:
        return ERR_UNAVAILABLE;
    default:
        return ERR_LOST;
    }
}

static enum err api_perform(struct api *a, char *message, size_t size)
{
    int running = 1, left;
    CURLcode code = CURLE_FAILED_INIT;
    CURLMcode mc = curl_multi_add_handle(a->multi, a->easy);
    CURLMsg *msg;

    while (mc == CURLM_OK && running && !caught) {
        mc = curl_multi_perform(a->multi, &running);
        if (a->tick)
            a->tick(a->tick_ctx);
        if (mc == CURLM_OK && running && !caught)
            mc = curl_multi_poll(a->multi, NULL, 0, TICK_MS, NULL);
    }
    while ((msg = curl_multi_info_read(a->multi, &left)) != NULL) {
        if (msg->msg == CURLMSG_DONE)
            code = msg->data.result;
    }
    (void)curl_multi_remove_handle(a->multi, a->easy); /* it may not be in */
    if (running && caught)
        return ERR_CANCELED;
    return api_err(a, code, message, size);
}

static struct curl_slist *header_add(struct curl_slist *list, const char *line)
{
    struct curl_slist *longer = line ? curl_slist_append(list, line) : NULL;
    return longer ? longer : list; /* out of memory: the dispatcher will miss it and say so */
}

static struct curl_slist *headers_of(const struct api *a, const struct api_call *call)
{
    struct curl_slist *list = header_add(NULL, a->bearer);
    struct buf line = { 0 };

    if (call->body && buf_printf(&line, "Content-Type: %s", call->type))
        list = header_add(list, line.data);
    buf_done(&line);
    if (call->idempotency_key && buf_printf(&line, "Idempotency-Key: %s", call->idempotency_key))
        list = header_add(list, line.data);
    buf_done(&line);
    if (call->wait_s > 0 && buf_printf(&line, "Prefer: wait=%d", call->wait_s))
        list = header_add(list, line.data);
    buf_done(&line);
    return header_add(list, "Expect:"); /* its answer is not worth a round trip */
}

static struct api_reply api_exchange(struct api *a, const struct api_call *call, struct answer *in)
{
    struct api_reply out = { .err = ERR_NOMEM };
    struct curl_slist *headers = headers_of(a, call);
    struct buf url = { 0 };

    *in = (struct answer){ .body.ceiling = ANSWER_BYTES };
    if (!buf_printf(&url, "%s%s", a->url, call->path))
        goto out;
    api_prepare(a, url.data);
    SET(a, CURLOPT_HTTPHEADER, headers);
    SET(a, CURLOPT_WRITEFUNCTION, answer_on_body);
    SET(a, CURLOPT_WRITEDATA, in);
    SET(a, CURLOPT_HEADERFUNCTION, answer_on_header);
    SET(a, CURLOPT_HEADERDATA, in);
    if (strcmp(call->method, "GET") != 0) { /* POST, PATCH */
        /* on a reused connection that dies libcurl sends again by itself, and "could not connect" is what is left of
         * it, for a request that was sent */
        SET(a, CURLOPT_FRESH_CONNECT, 1L);
        SET(a, CURLOPT_POST, 1L);
        SET(a, CURLOPT_CUSTOMREQUEST, call->method);
        SET(a, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)call->body_len);
        SET(a, CURLOPT_POSTFIELDS, call->body ? call->body : "");
    }
    if (call->body_len > (size_t)1 << 20) {
        SET(a, CURLOPT_LOW_SPEED_LIMIT, 1L);
        SET(a, CURLOPT_LOW_SPEED_TIME, (long)IDLE_S);
    } else {
        SET(a, CURLOPT_TIMEOUT_MS, (long)ANSWER_MS + call->wait_s * 1000L);
    }
    out.err = api_perform(a, out.message, sizeof out.message);
    if (out.err == ERR_OK) {
        (void)curl_easy_getinfo(a->easy, CURLINFO_RESPONSE_CODE, &out.status);
        out.json = in->body.len > 0 ? json_parse(in->body.data, in->body.len, NULL) : NULL;
        out.is_replayed = in->is_replayed;
    }
out:
    curl_slist_free_all(headers);
    buf_done(&url);
    buf_done(&in->body);
    return out;
}

/* ---- again, while it makes sense */

static void api_pause(struct api *a, int64_t ms)
{
    int64_t until = clock_mono_ms() + ms, left;

    while (!caught && (left = until - clock_mono_ms()) > 0) {
        if (a->tick)
            a->tick(a->tick_ctx);
        (void)curl_multi_poll(a->multi, NULL, 0, left < TICK_MS ? (int)left : TICK_MS, NULL); /* just a sleep */
    }
}

struct api_reply api_ask(struct api *a, const struct api_call *call)
{
    int64_t until = clock_mono_ms() + (call->patience_ms > 0 ? call->patience_ms : PATIENCE_MS), pause = PAUSE_FIRST_MS;
    struct api_reply r;
    struct answer in;
    bool was_lost = false, again; /* once a call was cut, nobody knows what became of it until somebody answers */

    for (;;) {
        r = api_exchange(a, call, &in);
        was_lost = was_lost || r.err == ERR_LOST;
        if (r.err == ERR_UNAVAILABLE && was_lost)
            r.err = ERR_LOST;
        again = r.err == ERR_LOST || (r.err == ERR_UNAVAILABLE && call->patience_ms > 0) ||
                (r.err == ERR_OK && (r.status == 503 || (r.status >= 500 && !r.json)));
        if (in.retry_after_s > 0 && in.retry_after_s * 1000 > pause)
            pause = in.retry_after_s * 1000;
        if (!again || caught || clock_mono_ms() + pause > until)
            return r;
        api_reply_done(&r);
        api_pause(a, pause);
        pause = pause * 2 < PAUSE_MOST_MS ? pause * 2 : PAUSE_MOST_MS;
        if (caught)
            return (struct api_reply){ .err = ERR_CANCELED };
    }
}

void api_reply_done(struct api_reply *r)
{
    json_decref(r->json);
    r->json = NULL;
}

int api_refused(struct api *a, const struct api_reply *r, bool is_json)
{
    char *text;

    if (r->err == ERR_CANCELED)
        return 128 + api_signal();
    if (r->err != ERR_OK) {
        if (r->err == ERR_UNAVAILABLE)
            show_error("no dispatcher answers at %s: %s", a->url, r->message);
        else
            show_error("%s: the connection was lost: %s", a->url, r->message);
        if (r->err == ERR_UNAVAILABLE)
            show_note("  KILN_URL says where it is; `scripts/quickstart` starts one of your own");
        return CLIENT_UNREACHABLE;
    }
    if (r->status / 100 == 2 && r->json)
        return CLIENT_DONE;
    if (is_json && json_text(r->json, "code")) {
        text = show_json_text(r->json, false);
        (void)fprintf(stderr, "%s\n", text ? text : "");
        free(text);
    } else {
        show_problem(a->url, r->status, r->json);
    }
    if (r->status == 402)
        return CLIENT_NO_CREDITS;
    return r->status >= 500 || !json_text(r->json, "code") ? CLIENT_UNREACHABLE : CLIENT_REFUSED;
}

/* ---- results */

struct download {
    FILE *to;
    CURL *easy;
    crypto_hash_sha256_state hash;
    int64_t bytes;
    int write_errno;
};

static size_t download_on_body(char *data, size_t size, size_t count, void *ctx)
{
    struct download *d = ctx;
    size_t len = size * count;
    long status = 0;

    (void)curl_easy_getinfo(d->easy, CURLINFO_RESPONSE_CODE, &status);
    if (status != 200)
        return len; /* a refusal's words are no picture */
    if (fwrite(data, 1, len, d->to) != len) {
        d->write_errno = errno;
        return 0;
    }
    (void)crypto_hash_sha256_update(&d->hash, (const unsigned char *)data, len);
    d->bytes += (int64_t)len;
    return len;
}

enum err api_download(struct api *a, const char *url, FILE *to, int64_t *bytes, char sha256[SHA256_HEX], char *message,
                      size_t size)
{
    struct download d = { .to = to, .easy = a->easy };
    unsigned char digest[crypto_hash_sha256_BYTES];
    long status = 0;
    enum err err;

    (void)crypto_hash_sha256_init(&d.hash);
    api_prepare(a, url);
    SET(a, CURLOPT_WRITEFUNCTION, download_on_body);
    SET(a, CURLOPT_WRITEDATA, &d);
    SET(a, CURLOPT_FOLLOWLOCATION, 1L);
    SET(a, CURLOPT_MAXREDIRS, (long)REDIRECTS);
    SET(a, CURLOPT_LOW_SPEED_LIMIT, 1L);
    SET(a, CURLOPT_LOW_SPEED_TIME, (long)IDLE_S);
    err = api_perform(a, message, size);
    if (d.write_errno) {
        (void)snprintf(message, size, "cannot write: %s", strerror(d.write_errno));
        return ERR_IO;
    }
    if (err != ERR_OK)
        return err;
    (void)curl_easy_getinfo(a->easy, CURLINFO_RESPONSE_CODE, &status);
    if (status != 200) {
        (void)snprintf(message, size, "the link answered with status %ld", status);
        return status >= 500 ? ERR_LOST : ERR_NOT_FOUND;
    }
    (void)crypto_hash_sha256_final(&d.hash, digest);
    hex_encode(sha256, digest, sizeof digest);
    *bytes = d.bytes;
    return ERR_OK;
}
