/* talk.c - one HTTP call at a time by libcurl's easy interface. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <curl/curl.h>
#include "tests/chaos/run/run.h"

struct talk {
    CURL *curl;
};

struct talk *talk_new(void)
{
    struct talk *t = calloc(1, sizeof(*t));

    if (t)
        t->curl = curl_easy_init();
    if (!t || !t->curl)
        abort();
    return t;
}

void talk_free(struct talk *t)
{
    if (t)
        curl_easy_cleanup(t->curl);
    free(t);
}

static size_t on_body(char *data, size_t size, size_t count, void *ctx)
{
    struct answer *a = ctx;
    char *more = realloc(a->text, a->len + size * count + 1);

    if (!more)
        return 0;
    a->text = more;
    memcpy(a->text + a->len, data, size * count);
    a->len += size * count;
    a->text[a->len] = '\0';
    return size * count;
}

static size_t on_header(char *data, size_t size, size_t count, void *ctx)
{
    static const char replayed[] = "Idempotent-Replayed:", retry[] = "Retry-After:";
    struct answer *a = ctx;
    size_t n = size * count;

    if (n > sizeof(replayed) && !strncasecmp(data, replayed, sizeof(replayed) - 1))
        a->is_replayed = true;
    if (n > sizeof(retry) && !strncasecmp(data, retry, sizeof(retry) - 1))
        a->retry_after_s = (int)strtol(data + sizeof(retry) - 1, NULL, 10);
    return n;
}

struct answer talk_ask(struct talk *t, const char *method, const char *url, const char *body,
                       const char *const *headers, int64_t limit_ms)
{
    struct answer a = { .retry_after_s = -1, .asked_ms = now_ms() };
    struct curl_slist *list = curl_slist_append(NULL, "Expect:");

    curl_easy_reset(t->curl);
    curl_easy_setopt(t->curl, CURLOPT_URL, url);
    curl_easy_setopt(t->curl, CURLOPT_CUSTOMREQUEST, method);
    curl_easy_setopt(t->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(t->curl, CURLOPT_PROXY, "");
    curl_easy_setopt(t->curl, CURLOPT_TIMEOUT_MS, (long)limit_ms);
    curl_easy_setopt(t->curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(t->curl, CURLOPT_WRITEDATA, &a);
    curl_easy_setopt(t->curl, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(t->curl, CURLOPT_HEADERDATA, &a);
    if (body) {
        curl_easy_setopt(t->curl, CURLOPT_POSTFIELDS, body);
        list = curl_slist_append(list, "Content-Type: application/json");
    }
    for (size_t i = 0; headers && headers[i]; i++)
        list = curl_slist_append(list, headers[i]);
    curl_easy_setopt(t->curl, CURLOPT_HTTPHEADER, list);
    if (curl_easy_perform(t->curl) == CURLE_OK)
        curl_easy_getinfo(t->curl, CURLINFO_RESPONSE_CODE, &a.status);
    curl_slist_free_all(list);
    if (a.status && a.text)
        a.json = json_loadb(a.text, a.len, 0, NULL);
    return a;
}

void answer_done(struct answer *a)
{
    json_decref(a->json);
    free(a->text);
    *a = (struct answer){ 0 };
}

const char *answer_string(const struct answer *a, const char *name)
{
    const char *text = json_string_value(json_object_get(a->json, name));

    return text ? text : "";
}
