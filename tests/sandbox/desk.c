/* desk.c - what every provider's front desk does alike: keys, tags, faults that come instead of an answer, payment. */
#include "sandbox.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int64_t sandbox_now_ms(const struct sandbox *box)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_REALTIME, &t); /* cannot fail for this clock */
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000 + sandbox_setting(box, CFG_CLOCK_OFFSET);
}

enum key_mood desk_key(struct exchange *ex, const char *provider, char *key, size_t key_cap)
{
    static const struct {
        const char *prefix;
        enum key_mood mood;
    } moods[] = {
        { "bad-", KEY_BAD },
        { "broke-", KEY_BROKE },
        { "zero-", KEY_ZERO },
        { "hardlimit-", KEY_HARD_LIMIT },
        { "unverified-", KEY_UNVERIFIED },
        { "malformed-", KEY_MALFORMED },
    };
    char from_query[256];
    const char *auth = exchange_request_header(ex, "Authorization"), *secret = NULL;

    ex->provider = provider;
    key[0] = '\0';
    if (strcmp(provider, "ttapi") == 0)
        secret = exchange_request_header(ex, "TT-API-KEY");
    else if (strcmp(provider, "google") != 0)
        secret = auth != NULL && text_casecmp_n(auth, "Bearer ", 7) == 0 ? auth + 7 : NULL;
    else if ((secret = exchange_request_header(ex, "x-goog-api-key")) == NULL && ex->query != NULL &&
             text_find_arg(ex->query, "key", from_query, sizeof from_query))
        secret = from_query;
    if (secret == NULL || secret[0] == '\0') {
        (void)snprintf(ex->account, sizeof ex->account, "%s:none", provider);
        return KEY_MISSING;
    }
    char print[17];
    text_fingerprint(secret, print);
    (void)snprintf(ex->account, sizeof ex->account, "%s:%s", provider, print);
    (void)snprintf(key, key_cap, "%s", secret);
    for (size_t i = 0; i < ARRAY_LEN(moods); i++)
        if (strncmp(key, moods[i].prefix, strlen(moods[i].prefix)) == 0)
            return moods[i].mood;
    return KEY_GOOD;
}

static void desk_count_one(struct exchange *ex, enum counter kind, int64_t n)
{
    counters_add(ex->box->counters, ex->tag[0] == '\0' ? NULL : ex->tag, ex->account[0] == '\0' ? NULL : ex->account,
                 kind, n);
}

void desk_open(struct exchange *ex, enum phase phase, const char *prompt)
{
    static const enum counter counts[] = { COUNT_REQUESTS, COUNT_POLLS, COUNT_DOWNLOADS, COUNT_CANCELS };
    ex->phase = phase;
    free(ex->prompt);
    ex->prompt = text_dup(prompt);
    if (!faults_tag(prompt, ex->tag))
        ex->tag[0] = '\0';
    desk_count_one(ex, counts[phase], 1);
}

/* A refusal that waits for its delay. */
struct refusal {
    void (*refuse)(struct exchange *, int status, const char *code);
    int status;
};

static void desk_on_refusal(struct exchange *ex)
{
    struct refusal *r = ex->cargo;
    r->refuse(ex, r->status, ex->fault.code);
}

static void desk_refusal_headers(struct exchange *ex)
{
    const struct fault *f = &ex->fault;
    if (fault_has(f, FW_RETRY_AFTER))
        exchange_header(ex, "Retry-After", "%lld", (long long)f->v[FW_RETRY_AFTER]);
    if (fault_has(f, FW_RETRY_AFTER_DATE)) {
        char date[64];
        struct tm tm;
        time_t at = time(NULL) + (time_t)f->v[FW_RETRY_AFTER_DATE];
        (void)strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&at, &tm)); /* fits */
        exchange_header(ex, "Retry-After", "%s", date);
    }
    if (fault_has(f, FW_RETRY_AFTER_MS))
        exchange_header(ex, "retry-after-ms", "%lld", (long long)f->v[FW_RETRY_AFTER_MS]);
    if (fault_has(f, FW_SHOULD_RETRY))
        exchange_header(ex, "x-should-retry", "%s", f->v[FW_SHOULD_RETRY] != 0 ? "true" : "false");
}

static void desk_refuse(struct exchange *ex, int status, void (*refuse)(struct exchange *, int, const char *))
{
    struct refusal *r = text_alloc(sizeof *r);
    if (ex->cargo_free != NULL)
        ex->cargo_free(ex->cargo);
    *r = (struct refusal){ .refuse = refuse, .status = status };
    ex->cargo = r;
    ex->cargo_free = free;
    ex->is_delayed = true; /* here, not again when it is sent */
    desk_refusal_headers(ex);
    if (fault_has(&ex->fault, FW_PAID))
        desk_pay(ex);
    exchange_wait(ex, fault_has(&ex->fault, FW_DELAY_MS) ? ex->fault.v[FW_DELAY_MS] : 0, desk_on_refusal);
}

bool desk_fault(struct exchange *ex, void (*refuse)(struct exchange *, int status, const char *code))
{
    char why[256];
    struct fault *f = &ex->fault;
    struct fault_scene scene = {
        .phase = ex->phase,
        .provider = ex->provider,
        .path = ex->path,
        .prompt = ex->prompt,
        .tag = ex->tag[0] == '\0' ? NULL : ex->tag,
        .reused = ex->conn->requests > 1,
    };
    if (!faults_pick(ex->box->faults, &scene, f, why, sizeof why)) {
        exchange_send_json(ex, 400, json_pack("{s:s}", "sandbox_error", why));
        return true;
    }
    if (fault_has(f, FW_DROP_BEFORE)) {
        exchange_cut(ex);
        return true;
    }
    if (fault_has(f, FW_REUSE_CLOSE)) { /* picked only on a reused connection */
        if (ex->phase == PHASE_SUBMIT)
            desk_pay(ex);
        exchange_cut(ex);
        return true;
    }
    int status = fault_has(f, FW_STATUS) ? (int)f->v[FW_STATUS] : 0;
    if (fault_has(f, FW_HTML) && status == 0)
        status = 502;
    if (status >= 300 && status <= 599) {
        desk_refuse(ex, status, refuse);
        return true;
    }
    return ex->phase != PHASE_SUBMIT && desk_taken(ex);
}

void desk_pay(struct exchange *ex)
{
    if (fault_has(&ex->fault, FW_UNPAID))
        return;
    desk_count_one(ex, COUNT_PAID, 1);
    desk_count_one(ex, COUNT_IMAGES, ex->images);
    desk_count_one(ex, COUNT_COST, ex->cost);
}

void desk_refund(struct exchange *ex)
{
    desk_count_one(ex, COUNT_REFUNDED, 1);
    desk_count_one(ex, COUNT_COST, -ex->cost);
}

bool desk_taken(struct exchange *ex)
{
    const struct fault *f = &ex->fault;
    if (fault_has(f, FW_HANG)) {
        exchange_hang(ex);
        return true;
    }
    if (!fault_has(f, FW_DROP_AFTER))
        return false;
    if (fault_has(f, FW_DELAY_MS))
        exchange_wait(ex, f->v[FW_DELAY_MS], exchange_cut);
    else
        exchange_cut(ex);
    return true;
}

int64_t desk_delay(struct exchange *ex, enum config_key min)
{
    if (fault_has(&ex->fault, FW_DELAY_MS))
        return ex->fault.v[FW_DELAY_MS];
    int64_t low = sandbox_setting(ex->box, min), high = sandbox_setting(ex->box, min + 1);
    return high <= low ? low : low + (int64_t)randombytes_uniform((uint32_t)(high - low + 1));
}

int desk_count(const struct fault *f, int asked)
{
    if (fault_has(f, FW_EMPTY))
        return 0;
    if (fault_has(f, FW_PARTIAL) && f->v[FW_PARTIAL] < asked)
        return f->v[FW_PARTIAL] < 0 ? 0 : (int)f->v[FW_PARTIAL];
    return asked;
}

int64_t desk_shape(const struct fault *f)
{
    static const enum fault_word shaping[] = { FW_BLANK, FW_WRONG_SIZE, FW_WRONG_FORMAT, FW_CUT_IMAGE, FW_FILTERED,
                                               FW_NSFW,  FW_FAIL,       FW_EMPTY,        FW_STUCK };
    int64_t bits = 0;
    for (size_t i = 0; i < ARRAY_LEN(shaping); i++)
        if (fault_has(f, shaping[i]))
            bits |= (int64_t)1 << shaping[i];
    return bits;
}

bool desk_is_picture(const char *base64, size_t len)
{
    size_t got = 0;
    unsigned char *bytes = text_alloc(len + 1);
    struct picture_info info;
    bool is_it = len > 0 &&
                 sodium_base642bin(bytes, len, base64, len, NULL, &got, NULL, sodium_base64_VARIANT_ORIGINAL) == 0 &&
                 codec_info(bytes, got, &info);

    free(bytes);
    return is_it;
}

void desk_cap(const struct sandbox *box, int *width, int *height)
{
    int cap = (int)sandbox_setting(box, CFG_IMAGE_SIZE_CAP);
    int longest = *width > *height ? *width : *height;
    if (cap == 0 || longest <= cap)
        return;
    *width = *width * cap / longest < 1 ? 1 : *width * cap / longest;
    *height = *height * cap / longest < 1 ? 1 : *height * cap / longest;
}

struct picture_spec desk_picture(const struct exchange *ex, int width, int height, enum picture_format format)
{
    desk_cap(ex->box, &width, &height);
    return (struct picture_spec){
        .prompt = faults_plain_prompt(ex->prompt == NULL ? "" : ex->prompt),
        .width = width,
        .height = height,
        .format = format,
        .quality = 90,
        .flaws = desk_shape(&ex->fault),
    };
}
