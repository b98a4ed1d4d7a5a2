/* probe.c - a steady load: so and so many POSTs a second, whatever the answers, and how long each answer took.
 *
 *   bench_probe URL SECONDS PER_SECOND BODY      (KILN_API_KEY in the environment)
 *
 * A request leaves when its time has come, not when the last one was answered, and its time counts from that moment:
 * who is slow is not asked less. Each `{}` in BODY stands for the number of the request, from 0. Prints one line for
 * each status that came (0: no answer), with the number of answers that had no Retry-After. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <curl/curl.h>
#include "common/base/clock.h"
#include "common/base/text.h"

enum { PARALLEL_MAX = 4000, STATUSES = 600, TIMEOUT_S = 60 };

struct asked { /* one request on its way; free ones are in a list */
    CURL *easy;
    struct buf body;
    int64_t due_us;
    struct asked *next;
};

struct seen {
    double *ms;
    size_t count, cap, unsaid; /* unsaid: without Retry-After */
};

struct probe {
    CURLM *multi;
    struct curl_slist *headers;
    const char *url, *template;
    struct asked *free;
    size_t under_way;
    struct seen seen[STATUSES];
};

static size_t on_body(char *data, size_t size, size_t count, void *ctx)
{
    (void)data;
    (void)ctx;
    return size * count;
}

static void body_fill(struct buf *body, const char *template, long number)
{
    const char *at;

    body->len = 0;
    while ((at = strstr(template, "{}"))) {
        (void)buf_add(body, template, (size_t)(at - template));
        (void)buf_printf(body, "%ld", number);
        template = at + 2;
    }
    (void)buf_add(body, template, strlen(template));
}

static void seen_add(struct seen *s, double ms, bool has_retry_after)
{
    if (s->count == s->cap) {
        size_t cap = s->cap ? s->cap * 2 : 1024;
        double *more = realloc(s->ms, cap * sizeof(*more));

        if (!more)
            return;
        s->ms = more;
        s->cap = cap;
    }
    s->ms[s->count++] = ms;
    s->unsaid += !has_retry_after;
}

static struct asked *asked_new(struct probe *p)
{
    struct asked *a = p->free;

    if (a) {
        p->free = a->next;
        return a;
    }
    if (p->under_way >= PARALLEL_MAX || !(a = calloc(1, sizeof(*a))))
        return NULL;
    a->easy = curl_easy_init();
    (void)curl_easy_setopt(a->easy, CURLOPT_URL, p->url);
    (void)curl_easy_setopt(a->easy, CURLOPT_PROXY, "");
    (void)curl_easy_setopt(a->easy, CURLOPT_NOSIGNAL, 1L);
    (void)curl_easy_setopt(a->easy, CURLOPT_TIMEOUT, (long)TIMEOUT_S);
    (void)curl_easy_setopt(a->easy, CURLOPT_HTTPHEADER, p->headers);
    (void)curl_easy_setopt(a->easy, CURLOPT_WRITEFUNCTION, on_body);
    (void)curl_easy_setopt(a->easy, CURLOPT_PRIVATE, a);
    return a;
}

static void probe_send(struct probe *p, long number, int64_t due_us)
{
    struct asked *a = asked_new(p);

    if (!a) {
        seen_add(&p->seen[0], 0, false); /* more are under way than there may be */
        return;
    }
    a->due_us = due_us;
    body_fill(&a->body, p->template, number);
    (void)curl_easy_setopt(a->easy, CURLOPT_POSTFIELDSIZE, (long)a->body.len);
    (void)curl_easy_setopt(a->easy, CURLOPT_POSTFIELDS, a->body.data);
    p->under_way += curl_multi_add_handle(p->multi, a->easy) == CURLM_OK;
}

static void probe_take(struct probe *p)
{
    CURLMsg *message;
    int left;

    while ((message = curl_multi_info_read(p->multi, &left))) {
        struct asked *a = NULL;
        curl_off_t retry_after = 0;
        long status = 0;

        (void)curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&a);
        if (message->data.result == CURLE_OK)
            (void)curl_easy_getinfo(a->easy, CURLINFO_RESPONSE_CODE, &status);
        (void)curl_easy_getinfo(a->easy, CURLINFO_RETRY_AFTER, &retry_after);
        seen_add(&p->seen[status > 0 && status < STATUSES ? status : 0], (double)(clock_mono_us() - a->due_us) / 1000,
                 retry_after > 0);
        (void)curl_multi_remove_handle(p->multi, a->easy);
        a->next = p->free;
        p->free = a;
        p->under_way--;
    }
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void seen_print(struct seen *s, int status)
{
    if (!s->count)
        return;
    qsort(s->ms, s->count, sizeof(*s->ms), by_size);
    (void)printf("status=%d count=%zu unsaid=%zu p50_ms=%.1f p99_ms=%.1f max_ms=%.1f\n", status, s->count, s->unsaid,
                 s->ms[(s->count - 1) / 2], s->ms[(s->count - 1) * 99 / 100], s->ms[s->count - 1]);
    free(s->ms);
}

int main(int argc, char **argv)
{
    static struct probe p;
    const char *key = getenv("KILN_API_KEY");
    long seconds = argc == 5 ? strtol(argv[2], NULL, 10) : 0, rate = argc == 5 ? strtol(argv[3], NULL, 10) : 0;
    struct buf auth = { 0 };
    int64_t began_us;

    if (!key || seconds < 1 || rate < 1) {
        (void)fprintf(stderr, "usage: KILN_API_KEY=... bench_probe URL SECONDS PER_SECOND BODY\n");
        return 2;
    }
    p.url = argv[1];
    p.template = argv[4];
    (void)curl_global_init(CURL_GLOBAL_DEFAULT);
    p.multi = curl_multi_init();
    (void)buf_printf(&auth, "Authorization: Bearer %s", key);
    p.headers = curl_slist_append(NULL, auth.data);
    p.headers = curl_slist_append(p.headers, "Content-Type: application/json");
    began_us = clock_mono_us();
    for (long sent = 0; sent < seconds * rate || p.under_way > 0;) {
        int running;

        for (; sent < seconds * rate && began_us + sent * 1000000 / rate <= clock_mono_us(); sent++)
            probe_send(&p, sent, began_us + sent * 1000000 / rate);
        (void)curl_multi_perform(p.multi, &running);
        probe_take(&p);
        (void)curl_multi_poll(p.multi, NULL, 0, 2, NULL);
    }
    for (int i = 0; i < STATUSES; i++)
        seen_print(&p.seen[i], i);
    while (p.free) {
        struct asked *a = p.free;

        p.free = a->next;
        curl_easy_cleanup(a->easy);
        buf_done(&a->body);
        free(a);
    }
    (void)curl_multi_cleanup(p.multi);
    curl_slist_free_all(p.headers);
    buf_done(&auth);
    curl_global_cleanup();
    return 0;
}
