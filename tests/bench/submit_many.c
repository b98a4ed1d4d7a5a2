/* submit_many.c - the load of the benchmarks: many requests, so and so many at a time, by libcurl alone.
 *
 *   bench_submit URL COUNT PARALLEL BODY      (KILN_API_KEY in the environment)
 *
 * Each request is a POST of BODY with the key as bearer, in which every `{}` stands for the number of the job, from 0.
 * Each of the PARALLEL connections sends its next job when the last one was answered. Anything but 202 is printed, and
 * exit 1. As it is libcurl and little else, its memory with all requests waiting is also the floor of what calls in
 * flight cost. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <curl/curl.h>
#include "common/base/clock.h"
#include "common/base/text.h"

enum { PARALLEL_MAX = 20000, SHOWN_MAX = 5 };

struct line { /* one connection's turn after turn */
    CURL *easy;
    struct buf body, answer;
};

struct load {
    const char *template;
    long next, count, accepted, refused;
    CURLM *multi;
    struct line *lines;
};

static size_t line_on_body(char *data, size_t size, size_t count, void *ctx)
{
    return buf_add(ctx, data, size * count) ? count : 0;
}

static void line_fill(struct line *line, const char *template, long number)
{
    const char *at;

    line->body.len = line->answer.len = 0;
    while ((at = strstr(template, "{}"))) {
        (void)buf_add(&line->body, template, (size_t)(at - template));
        (void)buf_printf(&line->body, "%ld", number);
        template = at + 2;
    }
    (void)buf_add(&line->body, template, strlen(template));
}

static bool load_send(struct load *l, struct line *line)
{
    if (l->next >= l->count)
        return false;
    line_fill(line, l->template, l->next++);
    (void)curl_easy_setopt(line->easy, CURLOPT_POSTFIELDSIZE, (long)line->body.len);
    (void)curl_easy_setopt(line->easy, CURLOPT_POSTFIELDS, line->body.data);
    return curl_multi_add_handle(l->multi, line->easy) == CURLM_OK;
}

static void load_take(struct load *l, struct line *line, CURLcode code)
{
    long status = 0;

    (void)curl_easy_getinfo(line->easy, CURLINFO_RESPONSE_CODE, &status);
    if (code == CURLE_OK && status == 202)
        l->accepted++;
    else if (l->refused++ < SHOWN_MAX)
        (void)fprintf(stderr, "%s, %ld: %.*s\n", curl_easy_strerror(code), status, (int)line->answer.len,
                      line->answer.data ? line->answer.data : "");
    (void)curl_multi_remove_handle(l->multi, line->easy);
    (void)load_send(l, line);
}

static void load_run(struct load *l)
{
    int running = 1, left;

    while (running || l->accepted + l->refused < l->count) {
        CURLMsg *message;

        if (curl_multi_perform(l->multi, &running) != CURLM_OK)
            return;
        while ((message = curl_multi_info_read(l->multi, &left))) {
            CURLcode code = message->data.result;
            struct line *line = NULL;

            (void)curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&line);
            load_take(l, line, code);
        }
        (void)curl_multi_poll(l->multi, NULL, 0, 100, NULL);
    }
}

static void line_open(struct line *line, const char *url, struct curl_slist *headers)
{
    line->easy = curl_easy_init();
    (void)curl_easy_setopt(line->easy, CURLOPT_URL, url);
    (void)curl_easy_setopt(line->easy, CURLOPT_PROXY, "");
    (void)curl_easy_setopt(line->easy, CURLOPT_NOSIGNAL, 1L);
    (void)curl_easy_setopt(line->easy, CURLOPT_TIMEOUT, 120L);
    (void)curl_easy_setopt(line->easy, CURLOPT_HTTPHEADER, headers);
    (void)curl_easy_setopt(line->easy, CURLOPT_WRITEFUNCTION, line_on_body);
    (void)curl_easy_setopt(line->easy, CURLOPT_WRITEDATA, &line->answer);
    (void)curl_easy_setopt(line->easy, CURLOPT_PRIVATE, line);
}

int main(int argc, char **argv)
{
    static struct load load;
    struct curl_slist *headers = NULL;
    const char *key = getenv("KILN_API_KEY");
    struct buf auth = { 0 };
    int64_t began = clock_mono_ms(), ms;
    long parallel = argc == 5 ? strtol(argv[3], NULL, 10) : 0;

    if (!key || parallel < 1 || parallel > PARALLEL_MAX) {
        (void)fprintf(stderr, "usage: KILN_API_KEY=... bench_submit URL COUNT PARALLEL BODY\n");
        return 2;
    }
    load.count = strtol(argv[2], NULL, 10);
    load.template = argv[4];
    load.lines = calloc((size_t)parallel, sizeof(*load.lines));
    if (!load.lines)
        return 2;
    (void)curl_global_init(CURL_GLOBAL_DEFAULT);
    load.multi = curl_multi_init();
    (void)buf_printf(&auth, "Authorization: Bearer %s", key);
    headers = curl_slist_append(headers, auth.data);
    headers = curl_slist_append(headers, "Content-Type: application/json");
    for (long i = 0; i < parallel; i++) {
        line_open(&load.lines[i], argv[1], headers);
        (void)load_send(&load, &load.lines[i]);
    }
    load_run(&load);
    ms = clock_mono_ms() - began;
    (void)printf("accepted=%ld refused=%ld ms=%lld\n", load.accepted, load.refused, (long long)ms);
    for (long i = 0; i < parallel; i++) {
        curl_easy_cleanup(load.lines[i].easy);
        buf_done(&load.lines[i].body);
        buf_done(&load.lines[i].answer);
    }
    (void)curl_multi_cleanup(load.multi);
    free(load.lines);
    curl_slist_free_all(headers);
    buf_done(&auth);
    curl_global_cleanup();
    return load.accepted == load.count ? 0 : 1;
}
