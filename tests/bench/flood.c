/* flood.c - an open load: so many requests a second, whether the last ones were answered or not.
 *
 *   bench_flood URL SECONDS RATE PARALLEL BODY [WAIT]      (KILN_API_KEY in the environment)
 *
 * Each request is a POST of BODY; with WAIT it says `Prefer: wait=WAIT`, so that its latency is the job's. Latency is
 * counted from when the request was due, so that a server which makes everybody wait cannot look fast. More than
 * PARALLEL at once are not sent, but counted as unsent. Prints a line for each second, by when requests were due, and
 * one for all. Neither refusals nor errors end it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <curl/curl.h>
#include "common/base/clock.h"
#include "common/base/text.h"

enum { PARALLEL_MAX = 20000, SECONDS_MAX = 3600, BUCKETS = 2000, BUCKET_MS = 1, DRAIN_MS = 60000 };

struct second { /* by the time that a request was due */
    long sent, accepted, busy, full, other, failed, unsent,
        unhinted;                                /* busy: 503, full: 429; unhinted: no Retry-After */
    int done[BUCKETS + 1], refused[BUCKETS + 1]; /* latencies; the last one: longer */
};

struct line {
    CURL *easy;
    int64_t due_ms;
    struct line *next; /* idle */
    bool has_hint;
};

struct flood {
    const char *body;
    long seconds, rate, active;
    int64_t began_ms;
    CURLM *multi;
    struct line *lines, *idle;
    struct second *each, all;
};

static size_t line_on_body(char *data, size_t size, size_t count, void *ctx)
{
    (void)data;
    (void)ctx;
    return size * count;
}

static size_t line_on_header(char *data, size_t size, size_t count, void *ctx)
{
    struct line *line = ctx;

    if (size * count > 12 && strncasecmp(data, "retry-after:", 12) == 0)
        line->has_hint = true;
    return size * count;
}

static void line_open(struct line *line, const char *url, const char *body, struct curl_slist *headers)
{
    line->easy = curl_easy_init();
    (void)curl_easy_setopt(line->easy, CURLOPT_URL, url);
    (void)curl_easy_setopt(line->easy, CURLOPT_PROXY, "");
    (void)curl_easy_setopt(line->easy, CURLOPT_NOSIGNAL, 1L);
    (void)curl_easy_setopt(line->easy, CURLOPT_TIMEOUT, 90L);
    (void)curl_easy_setopt(line->easy, CURLOPT_HTTPHEADER, headers);
    (void)curl_easy_setopt(line->easy, CURLOPT_POSTFIELDS, body);
    (void)curl_easy_setopt(line->easy, CURLOPT_WRITEFUNCTION, line_on_body);
    (void)curl_easy_setopt(line->easy, CURLOPT_HEADERFUNCTION, line_on_header);
    (void)curl_easy_setopt(line->easy, CURLOPT_HEADERDATA, line);
    (void)curl_easy_setopt(line->easy, CURLOPT_PRIVATE, line);
}

static struct second *second_of(struct flood *f, int64_t due_ms)
{
    int64_t n = (due_ms - f->began_ms) / 1000;

    return &f->each[n < f->seconds ? n : f->seconds - 1];
}

static void count_one(struct second *s, CURLcode code, long status, bool has_hint, int64_t ms)
{
    int64_t bucket = ms / BUCKET_MS;
    bool is_refusal = code == CURLE_OK && (status == 503 || status == 429);

    bucket = bucket < 0 ? 0 : bucket > BUCKETS ? BUCKETS : bucket;
    if (code == CURLE_OK && (status == 202 || status == 200)) {
        s->accepted++;
        s->done[bucket]++;
    } else if (is_refusal) {
        s->busy += status == 503;
        s->full += status == 429;
        s->unhinted += !has_hint;
        s->refused[bucket]++;
    } else if (code == CURLE_OK) {
        s->other++;
    } else {
        s->failed++;
    }
}

static void flood_take(struct flood *f, struct line *line, CURLcode code)
{
    int64_t ms = clock_mono_ms() - line->due_ms;
    long status = 0;

    (void)curl_easy_getinfo(line->easy, CURLINFO_RESPONSE_CODE, &status);
    count_one(second_of(f, line->due_ms), code, status, line->has_hint, ms);
    count_one(&f->all, code, status, line->has_hint, ms);
    (void)curl_multi_remove_handle(f->multi, line->easy);
    line->next = f->idle;
    f->idle = line;
    f->active--;
}

static void flood_send(struct flood *f, int64_t due_ms)
{
    struct line *line = f->idle;

    if (!line) {
        second_of(f, due_ms)->unsent++;
        f->all.unsent++;
        return;
    }
    f->idle = line->next;
    line->due_ms = due_ms;
    line->has_hint = false;
    f->active++;
    second_of(f, due_ms)->sent++;
    f->all.sent++;
    (void)curl_multi_add_handle(f->multi, line->easy);
}

static void flood_run(struct flood *f)
{
    int64_t sent = 0, total = (int64_t)f->seconds * f->rate, until = f->began_ms + f->seconds * 1000 + DRAIN_MS;

    while ((sent < total || f->active > 0) && clock_mono_ms() < until) {
        int64_t due = (clock_mono_ms() - f->began_ms) * f->rate / 1000;
        int running, left;
        CURLMsg *message;

        for (; sent < total && sent <= due; sent++)
            flood_send(f, f->began_ms + sent * 1000 / f->rate);
        if (curl_multi_perform(f->multi, &running) != CURLM_OK)
            return;
        while ((message = curl_multi_info_read(f->multi, &left))) {
            CURLcode code = message->data.result;
            struct line *line = NULL;

            (void)curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&line);
            flood_take(f, line, code);
        }
        (void)curl_multi_poll(f->multi, NULL, 0, 2, NULL);
    }
}

/* The latency that `share` of the requests do not exceed; -1: there were none. */
static int quantile(const int *buckets, double share)
{
    long total = 0, seen = 0;

    for (int i = 0; i <= BUCKETS; i++)
        total += buckets[i];
    for (int i = 0; total > 0 && i <= BUCKETS; i++) {
        seen += buckets[i];
        if ((double)seen >= share * (double)total)
            return (i + 1) * BUCKET_MS;
    }
    return -1;
}

static void print(const char *what, long number, const struct second *s)
{
    (void)printf("%s=%ld sent=%ld accepted=%ld busy=%ld full=%ld other=%ld failed=%ld unsent=%ld unhinted=%ld p50=%d "
                 "p99=%d refused_p99=%d\n",
                 what, number, s->sent, s->accepted, s->busy, s->full, s->other, s->failed, s->unsent, s->unhinted,
                 quantile(s->done, 0.5), quantile(s->done, 0.99), quantile(s->refused, 0.99));
}

int main(int argc, char **argv)
{
    static struct flood f;
    struct curl_slist *headers = NULL;
    const char *key = getenv("KILN_API_KEY");
    struct buf text = { 0 };
    long parallel = argc >= 6 ? strtol(argv[4], NULL, 10) : 0;

    if (argc >= 6) {
        f.seconds = strtol(argv[2], NULL, 10);
        f.rate = strtol(argv[3], NULL, 10);
        f.body = argv[5];
    }
    if (!key || parallel < 1 || parallel > PARALLEL_MAX || f.seconds < 1 || f.seconds > SECONDS_MAX || f.rate < 1) {
        (void)fprintf(stderr, "usage: KILN_API_KEY=... bench_flood URL SECONDS RATE PARALLEL BODY [WAIT]\n");
        return 2;
    }
    f.lines = calloc((size_t)parallel, sizeof(*f.lines));
    f.each = calloc((size_t)f.seconds, sizeof(*f.each));
    if (!f.lines || !f.each)
        return 2;
    (void)curl_global_init(CURL_GLOBAL_DEFAULT);
    f.multi = curl_multi_init();
    (void)buf_printf(&text, "Authorization: Bearer %s", key);
    headers = curl_slist_append(headers, text.data);
    headers = curl_slist_append(headers, "Content-Type: application/json");
    if (argc > 6) {
        text.len = 0;
        (void)buf_printf(&text, "Prefer: wait=%s", argv[6]);
        headers = curl_slist_append(headers, text.data);
    }
    for (long i = 0; i < parallel; i++) {
        line_open(&f.lines[i], argv[1], f.body, headers);
        f.lines[i].next = f.idle;
        f.idle = &f.lines[i];
    }
    f.began_ms = clock_mono_ms();
    flood_run(&f);
    for (long i = 0; i < f.seconds; i++)
        print("second", i, &f.each[i]);
    print("all", f.active, &f.all); /* of active ones nobody knows what became */
    return 0;
}
