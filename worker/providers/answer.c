/* answer.c - the house rules of providers/README.md, once for all adapters: judging by status, wait hints, downloads.
 *
 * Everything in an answer is hostile: texts are cleaned and cut, URLs and references checked, numbers bounded. */
#include <limits.h>
#include <math.h>
#include <string.h>
#include <strings.h>

#include "common/base/text.h"
#include "worker/providers/adapter.h"

const char *http_answer_header(const struct http_answer *in, const char *name)
{
    size_t len = strlen(name);

    for (size_t i = 0; i < in->header_count; i++) {
        const char *h = in->headers[i];

        if (strncasecmp(h, name, len) == 0 && h[len] == ':')
            return h + len + 1 + strspn(h + len + 1, " \t");
    }
    return NULL;
}

bool answer_is_2xx(const struct http_answer *in)
{
    return in->status >= 200 && in->status <= 299;
}

bool answer_says_json(const struct http_answer *in)
{
    const char *type = http_answer_header(in, "content-type");

    return type != NULL && strncasecmp(type, "application/json", 16) == 0;
}

struct answer answer_of(enum outcome outcome, enum err code)
{
    return (struct answer){ .outcome = outcome, .code = code, .percent = -1, .cost_microusd = -1 };
}

/* ---- texts and references */

char *answer_text(struct arena *a, const json_t *text, size_t max_bytes)
{
    return json_is_string(text) ? text_clean(a, json_string_value(text), json_string_length(text), max_bytes) : NULL;
}

char *answer_number(struct arena *a, const json_t *value)
{
    if (json_is_integer(value))
        return arena_printf(a, "%lld", (long long)json_integer_value(value));
    if (json_is_real(value))
        return arena_printf(a, "%.0f", json_real_value(value));
    return json_string_length(value) > 0 ? answer_text(a, value, 40) : NULL;
}

bool ref_is_segment(const char *ref)
{
    size_t len = ref != NULL ? strspn(ref, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-") : 0;

    return len > 0 && len <= REF_BYTES && ref[len] == '\0';
}

bool url_is_usable(const struct job_spec *spec, const char *url)
{
    if (url == NULL)
        return false;
    if (strncasecmp(url, "https://", 8) == 0)
        return url[8] != '\0';
    return strncasecmp(url, "http://", 7) == 0 && url[7] != '\0' &&
           strncasecmp(spec->op->provider->base_url, "http://", 7) == 0; /* a local server or the sandbox */
}

bool base64_is_media(const char *text, size_t len)
{
    unsigned char head[48];
    size_t take = len < 64 ? len : 64, got = 0;

    return len >= 16 && len % 4 == 0 && base64_decode(head, sizeof head, &got, text, take) == ERR_OK &&
           media_sniff(head, got).kind != MEDIA_UNKNOWN;
}

/* ---- wait hints, rule 2 */

static int whole_seconds(double s) /* rounded up; 0 and less: no hint */
{
    if (!(s > 0))
        return 0;
    return s >= (double)INT_MAX ? INT_MAX : (int)ceil(s);
}

int answer_retry_after_s(const struct http_answer *in)
{
    const char *after = http_answer_header(in, "retry-after"), *date = http_answer_header(in, "date");
    int64_t until = 0, now = in->wall_ms / 1000;
    double seconds;

    if (after == NULL)
        return 0;
    if (parse_double(after, &seconds) == ERR_OK)
        return whole_seconds(seconds);
    if (http_date_parse(after, &until) != ERR_OK)
        return 0;
    if (date != NULL)
        (void)http_date_parse(date, &now); /* unreadable: our own clock */
    return whole_seconds((double)(until - now));
}

static int seconds_in_text(const char *text) /* "… resets in ~12s …"; Replicate's older "available in 1 second" */
{
    static const char *const marks[] = { "resets in ~", "available in " };
    const char *at = NULL;
    char digits[12] = "";
    int64_t s = 0;

    for (size_t i = 0; text != NULL && at == NULL && i < ARRAY_LEN(marks); i++) {
        at = strstr(text, marks[i]);
        at = at != NULL ? at + strlen(marks[i]) : NULL;
    }
    if (at == NULL)
        return 0;
    for (size_t i = 0; i + 1 < sizeof digits && (at[i] == '.' || (at[i] >= '0' && at[i] <= '9')); i++)
        digits[i] = at[i];
    digits[strcspn(digits, ".")] = '\0'; /* one more second covers the fraction */
    return parse_i64(digits, 0, 1000000, &s) == ERR_OK ? (int)s + (strchr(at, '.') == at + strlen(digits)) : 0;
}

static int wait_in_body(const json_t *json)
{
    const json_t *error = json_object_get(json, "error");
    const json_t *const places[] = { json, error };
    double s;

    for (size_t i = 0; i < ARRAY_LEN(places); i++) {
        if (!json_is_object(places[i]))
            continue;
        if (json_number(places[i], "retry_after", &s) || json_number(places[i], "estimated_time", &s))
            return whole_seconds(s);
        if (seconds_in_text(json_text(places[i], "message")) > 0)
            return seconds_in_text(json_text(places[i], "message"));
        if (seconds_in_text(json_text(places[i], "detail")) > 0)
            return seconds_in_text(json_text(places[i], "detail"));
    }
    return seconds_in_text(json_string_value(error));
}

/* ---- judging, rules 4 and 5 */

struct answer answer_for_status(long status)
{
    switch (status) {
    case 401:
    case 403:
        return answer_of(OUT_FAIL, ERR_AUTH);
    case 402:
        return answer_of(OUT_FAIL, ERR_INSUFFICIENT_FUNDS);
    case 404:
    case 410:
        return answer_of(OUT_FAIL, ERR_NOT_FOUND);
    case 408:
    case 504:
    case 524:
        return answer_of(OUT_RETRY, ERR_TIMEOUT);
    case 429:
        return answer_of(OUT_RETRY, ERR_RATE_LIMITED);
    case 451:
        return answer_of(OUT_FAIL, ERR_REGION_BLOCKED);
    case 502:
    case 503:
    case 520:
    case 521:
    case 522:
    case 523:
        return answer_of(OUT_RETRY, ERR_PROVIDER_UNAVAILABLE);
    default:
        break;
    }
    if (status >= 400 && status <= 499)
        return answer_of(OUT_FAIL, ERR_INVALID_REQUEST);
    if (status >= 500 && status <= 599)
        return answer_of(OUT_RETRY, ERR_PROVIDER_ERROR);
    return answer_of(OUT_FAIL, ERR_BAD_RESPONSE); /* a redirect, or no HTTP that we know: never followed */
}

/* The provider's words about an error, wherever this kind of body has them. */
static char *message_of(struct arena *a, const struct http_answer *in)
{
    static const char *const keys[] = { "message", "error", "detail" };
    const json_t *error = json_object_get(in->json, "error");
    const json_t *nested = json_object_get(error, "message");

    if (json_is_string(nested))
        return answer_text(a, nested, MESSAGE_BYTES);
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        const json_t *text = json_object_get(in->json, keys[i]);

        if (json_is_string(text))
            return answer_text(a, text, MESSAGE_BYTES);
    }
    return arena_printf(a, "HTTP status %ld", in->status);
}

struct answer answer_by_status(struct arena *a, const struct http_answer *in)
{
    const char *id = http_answer_header(in, "x-request-id");
    struct answer out = answer_for_status(in->status);

    out.message = message_of(a, in);
    out.request_id = id != NULL ? text_clean(a, id, strlen(id), REF_BYTES) : NULL;
    if (out.outcome == OUT_RETRY) {
        out.retry_after_s = answer_retry_after_s(in);
        if (out.retry_after_s == 0)
            out.retry_after_s = wait_in_body(in->json);
    }
    return out;
}

struct answer answer_bad_response(struct arena *a, const char *message)
{
    return answer_unreadable(a, false, message);
}

struct answer answer_unreadable(struct arena *a, bool is_poll, const char *message)
{
    struct answer out = answer_of(is_poll ? OUT_RETRY : OUT_FAIL, ERR_BAD_RESPONSE);

    out.message = arena_strdup(a, message);
    return out;
}

struct answer provider_download(struct arena *a, const struct job_spec *spec, const struct http_answer *in)
{
    const char *type = http_answer_header(in, "content-type");
    struct answer out;

    (void)spec; /* the same for every provider */
    if (!answer_is_2xx(in))
        return answer_by_status(a, in);
    if (type != NULL && (strncasecmp(type, "text/html", 9) == 0 || answer_says_json(in)))
        return answer_unreadable(a, true, "the download is a page or a message, not a file");
    if (in->len == 0 || (in->file == NULL && (in->data[0] == '<' || in->data[0] == '{')))
        return answer_unreadable(a, true, "the download is empty, a page or a message, not a file");
    out = answer_of(OUT_DONE, ERR_OK);
    out.outputs[0].is_body = true;
    out.output_count = 1;
    return out;
}

bool word_find(const struct word *words, size_t count, const char *word, enum outcome *out)
{
    for (size_t i = 0; word != NULL && i < count; i++) {
        if (strcmp(words[i].word, word) == 0) {
            *out = words[i].outcome;
            return true;
        }
    }
    return false;
}

/* ---- checks: is the key good, what is left */

struct http_req provider_check(struct arena *a, const struct catalog_provider *p)
{
    const json_t *check = json_object_get(p->doc, "check");

    (void)a; /* the path is the catalogue's */
    return (struct http_req){
        .method = json_text(check, "method"),
        .path = json_text(check, "path"),
        .accept = json_text(check, "accept"),
    };
}

struct provider_health provider_on_check(struct arena *a, const struct catalog_provider *p,
                                         const struct http_answer *in)
{
    const json_t *check = json_object_get(p->doc, "check");
    const json_t *balance = pointer_find(in->json, json_object_get(check, "balance"));
    struct answer judged = answer_by_status(a, in);
    struct provider_health out = { .code = judged.code, .message = judged.message };

    if (!answer_is_2xx(in))
        return out;
    out = (struct provider_health){ .code = in->json != NULL ? ERR_OK : ERR_BAD_RESPONSE };
    if (json_is_number(balance)) {
        out.has_balance = true;
        out.balance = json_number_value(balance);
        out.unit = json_text(check, "unit");
    }
    return out;
}
