/* load.c - many small requests from few connections, at little cost: the load shares two cores with what it measures.
 *
 *   bench_load [OPTION...] URL [BODY]      (KILN_API_KEY in the environment)
 *     -c CONNECTIONS  keep-alive connections (64)
 *     -s SECONDS      how long requests are sent (5)
 *     -m COUNT        no more than so many requests
 *     -r RATE         open loop: so many a second by a constant schedule; latency counts from when one was due, and
 * what finds no free connection waits for one. Else closed: each connection sends when it was answered -j JOBS BODY is
 * one job; so many of them in a request: {"jobs":[...]} -a ACCOUNTS     `{a}` runs through so many numbers (1) -k an
 * Idempotency-Key of its own for each request
 *
 * POST of BODY, or GET without one. `{n}` in BODY is a number that no request before had, also of an earlier run; all
 * numbers have ten digits, so that a request is made once a connection, and later only digits are written in place.
 * One thread, one epoll, one send and one recv a request. Answers need a Content-Length. Prints one line of NAME=VALUE,
 * times in microseconds; exit 1 when a connection failed or an answer was not 200 or 202. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include "common/base/clock.h"
#include "common/base/text.h"

enum {
    DIGITS = 10,
    EVENTS = 64,
    BUCKET_US = 10,
    BUCKETS = 1000000,
    SHOWN_MAX = 3,
    DRAIN_US = 60000000,
    IN_BYTES = 4096
};

struct mark { /* digits in the request */
    size_t at;
    bool is_account;
};

struct line {
    int fd;
    char *out, *in;
    size_t out_at, in_len, in_cap;
    int64_t due_us;
    struct line *next; /* idle */
};

struct load {
    long connections, seconds, most, rate, jobs, accounts;
    bool is_keyed;
    struct sockaddr_in to;
    struct buf request;
    struct mark *marks;
    size_t mark_count;
    int64_t number, began_us, ended_us;
    struct line *lines, *idle;
    long sent, active, answers, refused, failed;
    int64_t bytes_in, late_us; /* the latest send of an open loop */
    uint32_t *buckets;
    int epoll;
};

/* ---- the request ---- */

/* Adds `text` with ten zeroes for each placeholder. */
static void request_add(struct load *l, const char *text)
{
    const char *at;

    while ((at = strchr(text, '{')) != NULL) {
        bool is_mark = (at[1] == 'n' || at[1] == 'a') && at[2] == '}';

        (void)buf_add(&l->request, text, (size_t)(at - text) + !is_mark);
        if (is_mark) {
            l->marks = realloc(l->marks, (l->mark_count + 1) * sizeof(*l->marks));
            if (l->marks == NULL)
                exit(2);
            l->marks[l->mark_count++] = (struct mark){ l->request.len, at[1] == 'a' };
            (void)buf_str(&l->request, "0000000000");
        }
        text = at + (is_mark ? 3 : 1);
    }
    (void)buf_str(&l->request, text);
}

static size_t body_length(const struct load *l, const char *body)
{
    size_t one = strlen(body);

    for (const char *at = body; (at = strchr(at, '{')) != NULL; at++) {
        if ((at[1] == 'n' || at[1] == 'a') && at[2] == '}')
            one += DIGITS - 3;
    }
    return l->jobs > 0 ? one * (size_t)l->jobs + (size_t)l->jobs - 1 + strlen("{\"jobs\":[]}") : one;
}

static void request_make(struct load *l, const char *host, const char *path, const char *body)
{
    const char *key = getenv("KILN_API_KEY");

    (void)buf_printf(&l->request, "%s %s HTTP/1.1\r\nHost: %s\r\n", body != NULL ? "POST" : "GET", path, host);
    if (key != NULL)
        (void)buf_printf(&l->request, "Authorization: Bearer %s\r\n", key);
    if (l->is_keyed)
        request_add(l, "Idempotency-Key: bench-{n}\r\n");
    if (body != NULL)
        (void)buf_printf(&l->request, "Content-Type: application/json\r\nContent-Length: %zu\r\n",
                         body_length(l, body));
    (void)buf_str(&l->request, "\r\n");
    if (body == NULL)
        return;
    if (l->jobs == 0)
        request_add(l, body);
    for (long i = 0; i < l->jobs; i++) {
        (void)buf_str(&l->request, i == 0 ? "{\"jobs\":[" : ",");
        request_add(l, body);
    }
    if (l->jobs > 0)
        (void)buf_str(&l->request, "]}");
}

static void digits_put(char *at, int64_t n)
{
    for (int i = DIGITS - 1; i >= 0; i--, n /= 10)
        at[i] = (char)('0' + n % 10);
}

/* ---- a connection ---- */

static void line_watch(struct load *l, struct line *line, int how, uint32_t events)
{
    struct epoll_event e = { .events = events, .data.ptr = line };

    (void)epoll_ctl(l->epoll, how, line->fd, &e);
}

static void line_open(struct load *l, struct line *line)
{
    int one = 1;

    line->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (line->fd < 0 || connect(line->fd, (const struct sockaddr *)&l->to, sizeof(l->to)) != 0) {
        perror("bench_load: connect");
        exit(2);
    }
    (void)setsockopt(line->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    line_watch(l, line, EPOLL_CTL_ADD, EPOLLIN);
}

/* What the socket takes; the rest when it takes more. */
static bool line_write(struct load *l, struct line *line)
{
    size_t left = l->request.len - line->out_at;
    ssize_t n = send(line->fd, line->out + line->out_at, left, MSG_DONTWAIT | MSG_NOSIGNAL);

    if (n < 0 && errno != EAGAIN)
        return false;
    if (n == (ssize_t)left) {
        if (line->out_at > 0)
            line_watch(l, line, EPOLL_CTL_MOD, EPOLLIN);
        line->out_at = l->request.len;
    } else {
        line->out_at += n > 0 ? (size_t)n : 0;
        line_watch(l, line, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
    }
    return true;
}

static void line_end(struct load *l, struct line *line)
{
    line->next = l->idle;
    l->idle = line;
    l->active--;
}

static void line_failed(struct load *l, struct line *line)
{
    l->failed++;
    (void)close(line->fd);
    line_open(l, line);
    line_end(l, line);
}

static void line_send(struct load *l, int64_t due_us)
{
    struct line *line = l->idle;

    l->idle = line->next;
    l->active++;
    l->sent++;
    for (size_t i = 0; i < l->mark_count; i++) {
        if (!l->marks[i].is_account)
            l->number++;
        digits_put(line->out + l->marks[i].at, l->marks[i].is_account ? l->number % l->accounts : l->number);
    }
    line->due_us = due_us;
    line->out_at = line->in_len = 0;
    if (!line_write(l, line))
        line_failed(l, line);
}

/* The whole answer's length; 0: not known yet; -1: none that we can read. */
static long answer_length(const struct line *line)
{
    const char *head = strstr(line->in, "\r\n\r\n"), *length;

    if (head == NULL)
        return 0;
    length = strstr(line->in, "Content-Length: ");
    if (length == NULL || length > head)
        return -1;
    return head + 4 - line->in + strtol(length + 16, NULL, 10);
}

static void line_answered(struct load *l, struct line *line, int64_t now_us)
{
    int64_t bucket = (now_us - line->due_us) / BUCKET_US;
    bool ok = strncmp(line->in, "HTTP/1.1 20", 11) == 0 && (line->in[11] == '0' || line->in[11] == '2');

    l->buckets[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
    l->bytes_in += (int64_t)line->in_len;
    l->ended_us = now_us;
    if (ok)
        l->answers++;
    else if (l->refused++ < SHOWN_MAX)
        (void)fprintf(stderr, "%.600s\n", line->in);
    line_end(l, line);
}

static void line_read(struct load *l, struct line *line, int64_t now_us)
{
    ssize_t n;
    long length;

    if (line->in_cap - line->in_len < IN_BYTES / 2) {
        line->in_cap = line->in_cap == 0 ? IN_BYTES : line->in_cap * 2;
        line->in = realloc(line->in, line->in_cap);
        if (line->in == NULL)
            exit(2);
    }
    n = recv(line->fd, line->in + line->in_len, line->in_cap - line->in_len - 1, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        line_failed(l, line);
        return;
    }
    line->in_len += (size_t)n;
    line->in[line->in_len] = '\0';
    length = answer_length(line);
    if (length < 0)
        line_failed(l, line);
    else if (length > 0 && line->in_len >= (size_t)length)
        line_answered(l, line, now_us);
}

/* ---- the load ---- */

static int64_t due_of(const struct load *l, long request)
{
    return l->began_us + request * 1000000 / l->rate;
}

static bool is_over(const struct load *l, int64_t now_us)
{
    if (l->most > 0 && l->sent >= l->most)
        return true;
    return l->rate > 0 ? l->sent >= l->rate * l->seconds : now_us >= l->began_us + l->seconds * 1000000;
}

static void load_send(struct load *l, int64_t now_us)
{
    while (l->idle != NULL && !is_over(l, now_us)) {
        int64_t due = l->rate > 0 ? due_of(l, l->sent) : now_us;

        if (due > now_us)
            return;
        if (now_us - due > l->late_us)
            l->late_us = now_us - due;
        line_send(l, due);
    }
}

static void load_run(struct load *l)
{
    struct epoll_event events[EVENTS];
    int64_t now = clock_mono_us();

    l->began_us = l->ended_us = now;
    while ((l->active > 0 || !is_over(l, now)) && now < l->began_us + l->seconds * 1000000 + DRAIN_US) {
        struct timespec wait = { .tv_nsec = 100000000 };
        int count;

        load_send(l, now);
        if (l->rate > 0 && l->idle != NULL && !is_over(l, now)) {
            int64_t us = due_of(l, l->sent) - clock_mono_us();

            us = us < 0 ? 0 : us > 100000 ? 100000 : us;
            wait.tv_nsec = us * 1000;
        }
        count = epoll_pwait2(l->epoll, events, EVENTS, &wait, NULL);
        now = clock_mono_us();
        for (int i = 0; i < count; i++) {
            struct line *line = events[i].data.ptr;

            if ((events[i].events & EPOLLOUT) != 0 && !line_write(l, line))
                line_failed(l, line);
            else if ((events[i].events & ~(uint32_t)EPOLLOUT) != 0)
                line_read(l, line, now);
        }
    }
}

static long quantile(const struct load *l, double share)
{
    long total = l->answers + l->refused, seen = 0;

    for (long i = 0; i < BUCKETS && total > 0; i++) {
        seen += l->buckets[i];
        if ((double)seen >= share * (double)total)
            return (i + 1) * BUCKET_US;
    }
    return -1;
}

static long cpu_ms(void)
{
    struct rusage use;

    (void)getrusage(RUSAGE_SELF, &use);
    return (use.ru_utime.tv_sec + use.ru_stime.tv_sec) * 1000 + (use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1000;
}

static void print(const struct load *l)
{
    int64_t us = l->ended_us - l->began_us;
    long jobs = l->answers * (l->jobs > 0 ? l->jobs : 1), requests = l->answers > 0 ? l->answers : 1;

    (void)printf("sent=%ld answers=%ld refused=%ld failed=%ld unanswered=%ld jobs=%ld us=%lld rate=%lld p50_us=%ld "
                 "p99_us=%ld p999_us=%ld max_us=%ld late_us=%lld cpu_ms=%ld bytes_out=%zu bytes_in=%lld\n",
                 l->sent, l->answers, l->refused, l->failed, l->active, jobs, (long long)us,
                 (long long)(us > 0 ? jobs * 1000000LL / us : 0), quantile(l, 0.5), quantile(l, 0.99),
                 quantile(l, 0.999), quantile(l, 1), (long long)l->late_us, cpu_ms(), l->request.len,
                 (long long)l->bytes_in / requests);
}

static bool options_read(struct load *l, int argc, char **argv)
{
    int option;

    while ((option = getopt(argc, argv, "c:s:m:r:j:a:k")) != -1) {
        long value = option == 'k' || option == '?' ? 1 : strtol(optarg, NULL, 10);

        if (value < 1 || value > 10000000 || option == '?')
            return false;
        *(option == 'c'   ? &l->connections
          : option == 's' ? &l->seconds
          : option == 'm' ? &l->most
          : option == 'r' ? &l->rate
          : option == 'j' ? &l->jobs
          : option == 'a' ? &l->accounts
                          : &value) = value;
        l->is_keyed = l->is_keyed || option == 'k';
    }
    return optind < argc && argc - optind <= 2;
}

/* http://A.B.C.D:PORT/PATH */
static bool url_read(struct load *l, const char *url, char host[64], char path[256])
{
    char address[32];
    unsigned port;

    if (sscanf(url, "http://%31[0-9.]:%u%255s", address, &port, path) != 3 || port > 65535)
        return false;
    (void)snprintf(host, 64, "%s:%u", address, port);
    l->to = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    return inet_pton(AF_INET, address, &l->to.sin_addr) == 1;
}

int main(int argc, char **argv)
{
    static struct load l = { .connections = 64, .seconds = 5, .accounts = 1 };
    char host[64], path[256];

    if (!options_read(&l, argc, argv) || !url_read(&l, argv[optind], host, path)) {
        (void)fprintf(stderr, "usage: KILN_API_KEY=... bench_load [-c CONNECTIONS] [-s SECONDS] [-m COUNT] [-r RATE] "
                              "[-j JOBS] [-a ACCOUNTS] [-k] http://ADDRESS:PORT/PATH [BODY]\n");
        return 2;
    }
    l.number = clock_wall_ms() / 1000 % 8000 * 1000000; /* a run takes less than a million a second */
    request_make(&l, host, path, argv[optind + 1]);
    l.lines = calloc((size_t)l.connections, sizeof(*l.lines));
    l.buckets = calloc(BUCKETS, sizeof(*l.buckets));
    l.epoll = epoll_create1(0);
    if (l.lines == NULL || l.buckets == NULL || l.epoll < 0 || l.request.is_full)
        return 2;
    (void)prctl(PR_SET_TIMERSLACK, 1);
    for (long i = 0; i < l.connections; i++) {
        struct line *line = &l.lines[i];

        line->out = malloc(l.request.len);
        if (line->out == NULL)
            return 2;
        memcpy(line->out, l.request.data, l.request.len);
        line_open(&l, line);
        line->next = l.idle;
        l.idle = line;
    }
    load_run(&l);
    print(&l);
    return l.refused + l.failed + l.active == 0 ? 0 : 1;
}
