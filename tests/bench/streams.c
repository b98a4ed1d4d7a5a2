/* streams.c - bench_streams: who watches jobs, thousands at once, and when each was told of its job's end.
 *
 *   bench_streams PORT events|poll IDS OUT      (KILN_API_KEY in the environment; the server is on 127.0.0.1)
 *
 * IDS has one job a line; each gets a connection of its own: `events` opens GET /v1/jobs/{id}/events, `poll` asks GET
 * /v1/jobs/{id} with Prefer: wait=60, and again whenever that is answered before the end. One thread, one epoll; a few
 * hundred connections at a time are being opened. Prints `open=N` when all of them are (a stream: when it has shown the
 * job as it is), then waits for the ends: a line `ID MICROSECONDS` in OUT is the wall clock's time at which the bytes
 * that say `succeeded` or `failed` were read. Then it prints `done=N errors=N bytes=N asked=N`. Exit 1: errors, or not
 * all ended within two minutes after the last that did. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include "common/base/clock.h"
#include "common/base/text.h"

enum {
    WATCHERS_MAX = 60000,
    OPENING_MAX = 256,
    EVENTS_MAX = 512,
    KEPT_MAX = 8192,
    PATIENCE_MS = 120000,
    SHOWN_MAX = 5
};

struct watcher {
    char id[UUID_TEXT];
    int fd;
    bool is_sent, is_told, is_done;
    char *kept; /* of an answer under way; NULL: nothing */
    size_t kept_len;
};

struct watch {
    struct watcher *all;
    size_t count, next, opening, open, done, errors, asked;
    int64_t bytes, last_ms;
    bool is_poll, is_said;
    int port, epoll;
    const char *key;
    FILE *out;
};

static bool says_end(const char *text)
{
    return strstr(text, "\"state\":\"succeeded\"") || strstr(text, "\"state\":\"failed\"");
}

static int64_t wall_us(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void watcher_close(struct watch *w, struct watcher *one, const char *why)
{
    if (why && w->errors++ < SHOWN_MAX)
        (void)fprintf(stderr, "%s: %s: %.*s\n", one->id, why, (int)one->kept_len, one->kept ? one->kept : "");
    if (!one->is_told)
        w->opening--;
    one->is_told = one->is_done = true;
    free(one->kept);
    one->kept = NULL;
    (void)close(one->fd);
    one->fd = -1;
}

/* --- opening ----------------------------------------------------------------------------------------------------- */

static void watcher_told(struct watch *w, struct watcher *one) /* it is open: what comes now comes by itself */
{
    if (one->is_told)
        return;
    one->is_told = true;
    w->opening--;
    w->open++;
}

static void watcher_ask(struct watch *w, struct watcher *one)
{
    char request[512];
    int len = snprintf(request, sizeof(request),
                       "GET /v1/jobs/%s%s HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %s\r\n%s\r\n", one->id,
                       w->is_poll ? "" : "/events", w->key, w->is_poll ? "Prefer: wait=60\r\n" : "");
    struct epoll_event e = { .events = EPOLLIN, .data.ptr = one };

    one->is_sent = true;
    one->kept_len = 0;
    w->asked++;
    if (send(one->fd, request, (size_t)len, MSG_NOSIGNAL) != len) {
        watcher_close(w, one, "not sent");
        return;
    }
    (void)epoll_ctl(w->epoll, EPOLL_CTL_MOD, one->fd, &e);
    if (w->is_poll) /* whether it waits there is the server's to say */
        watcher_told(w, one);
}

static void watcher_open(struct watch *w, struct watcher *one)
{
    struct sockaddr_in to = { .sin_family = AF_INET,
                              .sin_port = htons((uint16_t)w->port),
                              .sin_addr = { htonl(INADDR_LOOPBACK) } };
    struct epoll_event e = { .events = EPOLLOUT, .data.ptr = one };

    w->opening++;
    one->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (one->fd < 0 || (connect(one->fd, (const struct sockaddr *)&to, sizeof(to)) != 0 && errno != EINPROGRESS) ||
        epoll_ctl(w->epoll, EPOLL_CTL_ADD, one->fd, &e) != 0) {
        perror("bench_streams: connect");
        exit(2);
    }
}

/* --- reading ----------------------------------------------------------------------------------------------------- */

static void watcher_ended(struct watch *w, struct watcher *one, int64_t us)
{
    w->done++;
    w->last_ms = clock_mono_ms();
    (void)fprintf(w->out, "%s %lld\n", one->id, (long long)us);
    watcher_close(w, one, NULL);
}

/* Everything up to the last blank line is over; true when the whole answer of a long-poll is here. */
static bool answer_is_whole(const struct watcher *one)
{
    const char *head = strstr(one->kept, "\r\n\r\n"), *length = strstr(one->kept, "Content-Length: ");

    return head && length && length < head &&
           one->kept_len >= (size_t)(head + 4 - one->kept) + strtoul(length + 16, NULL, 10);
}

static void watcher_read(struct watch *w, struct watcher *one)
{
    int64_t us;
    ssize_t n;

    if (!one->kept && !(one->kept = malloc(KEPT_MAX + 1)))
        exit(2);
    n = recv(one->fd, one->kept + one->kept_len, KEPT_MAX - one->kept_len, MSG_DONTWAIT);
    us = wall_us();
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        watcher_close(w, one, n == 0 ? "ended early, or too long" : strerror(errno));
        return;
    }
    w->bytes += n;
    one->kept_len += (size_t)n;
    one->kept[one->kept_len] = '\0';
    if (strncmp(one->kept, "HTTP/1.1 200", one->kept_len < 12 ? one->kept_len : 12) != 0 && one->kept[0] == 'H') {
        watcher_close(w, one, "refused");
        return;
    }
    if (says_end(one->kept)) {
        watcher_ended(w, one, us);
    } else if (w->is_poll && answer_is_whole(one)) {
        watcher_ask(w, one);
    } else if (!w->is_poll && one->kept_len >= 2 && strstr(one->kept, "\"state\":") &&
               strstr(strstr(one->kept, "\"state\":"), "\n\n")) { /* an event is whole, and is not the last */
        watcher_told(w, one);
        free(one->kept); /* ten thousand that wait hold nothing */
        one->kept = NULL;
        one->kept_len = 0;
    }
}

static void watcher_on(struct watch *w, struct watcher *one)
{
    if (one->is_done)
        return;
    if (!one->is_sent)
        watcher_ask(w, one);
    else
        watcher_read(w, one);
}

static bool run(struct watch *w)
{
    struct epoll_event events[EVENTS_MAX];

    w->last_ms = clock_mono_ms();
    while (w->done + w->errors < w->count && clock_mono_ms() - w->last_ms < PATIENCE_MS) {
        while (w->opening < OPENING_MAX && w->next < w->count)
            watcher_open(w, &w->all[w->next++]);
        int n = epoll_wait(w->epoll, events, EVENTS_MAX, 1000);
        for (int i = 0; i < n; i++)
            watcher_on(w, events[i].data.ptr);
        if (!w->is_said && w->open + w->errors >= w->count) {
            w->is_said = true;
            (void)printf("open=%zu\n", w->open);
            (void)fflush(stdout);
        }
    }
    (void)printf("done=%zu errors=%zu bytes=%lld asked=%zu\n", w->done, w->errors, (long long)w->bytes, w->asked);
    return w->done == w->count;
}

static bool ids_read(struct watch *w, const char *path)
{
    FILE *file = fopen(path, "r");
    char line[64];

    w->all = calloc(WATCHERS_MAX, sizeof(*w->all));
    if (!file || !w->all)
        return false;
    while (w->count < WATCHERS_MAX && fgets(line, sizeof(line), file)) {
        line[strcspn(line, "\n")] = '\0';
        if (uuid_lower(w->all[w->count].id, line))
            w->count++;
    }
    (void)fclose(file);
    return w->count > 0;
}

int main(int argc, char **argv)
{
    static struct watch w;
    struct rlimit files;
    bool ok;

    w.key = getenv("KILN_API_KEY");
    w.port = argc == 5 ? (int)strtol(argv[1], NULL, 10) : 0;
    w.is_poll = argc == 5 && !strcmp(argv[2], "poll");
    if (!w.key || w.port <= 0 || (!w.is_poll && strcmp(argv[2], "events") != 0) || !ids_read(&w, argv[3]) ||
        !(w.out = fopen(argv[4], "w"))) {
        (void)fprintf(stderr, "usage: KILN_API_KEY=... bench_streams PORT events|poll IDS OUT\n");
        return 2;
    }
    (void)getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &files);
    w.epoll = epoll_create1(EPOLL_CLOEXEC);
    ok = w.epoll >= 0 && run(&w);
    ok = fclose(w.out) == 0 && ok;
    for (size_t i = 0; i < w.count; i++)
        free(w.all[i].kept);
    free(w.all);
    return ok ? 0 : 1;
}
