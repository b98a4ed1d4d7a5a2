/* latency.c - one job at a time, seen from both its ends by one clock: who orders it and who is asked for it.
 *
 *   bench_latency URL PORT COUNT DELAY_MS PAUSE_MS FILE      (KILN_API_KEY in the environment)
 *
 * It listens at 127.0.0.1:PORT as the provider of operation bench.make (tests/bench/latency.sh has its catalogue),
 * posts a job to the dispatcher at URL, opens a long-poll as soon as it knows the id, answers the provider's request
 * DELAY_MS after it came (and not before the long-poll was sent), and waits for the long-poll. Then it pauses for
 * PAUSE_MS to twice that, so that jobs meet every phase of whatever happens once a second. FILE gets a line a job: id,
 * and when in microseconds of the wall clock the POST was sent, its answer came, the provider's request began to come,
 * the provider answered, and the long-poll showed the job's end. Prints how many jobs did not end as succeeded. */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include "common/base/clock.h"
#include "common/base/text.h"

enum { CALLERS = 8, IN_BYTES = 65536, JOB_MS = 20000, RESULT_BYTES = 1024 };
enum { POST, LOOK, LISTENER, CALLER, PEERS = CALLER + CALLERS };

struct peer {
    int fd; /* -1: none */
    size_t len;
    char in[IN_BYTES];
};

struct job {
    char id[UUID_TEXT];
    int64_t posted_us, accepted_us, asked_us, ready_us, answered_us, visible_us; /* 0: not yet */
    struct peer *caller;                                                         /* who asked the provider */
    bool is_good;
};

struct bench {
    struct sockaddr_in dispatcher;
    char host[64];
    const char *key;
    long delay_ms;
    struct peer peers[PEERS];
};

static void die(const char *what)
{
    (void)fprintf(stderr, "bench_latency: %s\n", what);
    exit(2);
}

static void no_delay(int fd)
{
    int one = 1;

    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

static void say(const struct peer *p, const char *text, size_t len)
{
    if (send(p->fd, text, len, MSG_NOSIGNAL) != (ssize_t)len)
        die("a peer does not take what it is sent");
}

static void say_request(const struct bench *b, struct peer *p, const char *method, const char *path, const char *more,
                        const char *body)
{
    char text[2048];
    int len = snprintf(text, sizeof(text),
                       "%s %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n%sContent-Length: %zu\r\n\r\n%s",
                       method, path, b->host, b->key, more, strlen(body), body);

    p->len = 0;
    say(p, text, (size_t)len);
}

/* Reads once; true when a whole message (its length in Content-Length) is there. */
static bool peer_read(struct peer *p)
{
    ssize_t n = recv(p->fd, p->in + p->len, sizeof(p->in) - p->len - 1, 0);
    const char *head, *length;

    if (n <= 0) {
        (void)close(p->fd);
        p->fd = -1;
        p->len = 0;
        return false;
    }
    p->len += (size_t)n;
    p->in[p->len] = '\0';
    head = strstr(p->in, "\r\n\r\n");
    if (head == NULL)
        return false;
    length = strstr(p->in, "Content-Length: ");
    if (length == NULL || length > head)
        die("a message without Content-Length");
    return (size_t)(head + 4 - p->in) + strtoul(length + 16, NULL, 10) <= p->len;
}

static void caller_take(struct bench *b)
{
    int fd = accept(b->peers[LISTENER].fd, NULL, NULL);

    for (int i = CALLER; fd >= 0 && i < PEERS; i++) {
        if (b->peers[i].fd < 0) {
            no_delay(fd);
            b->peers[i].fd = fd;
            b->peers[i].len = 0;
            return;
        }
    }
    die("too many connections to the provider");
}

static void job_accepted(struct bench *b, struct job *job)
{
    const char *in = b->peers[POST].in, *id = strstr(in, "\"id\":\"");
    char path[80];

    if (strncmp(in, "HTTP/1.1 202", 12) != 0 || id == NULL) {
        (void)fprintf(stderr, "%s\n", in);
        die("a job was not accepted");
    }
    (void)snprintf(job->id, sizeof(job->id), "%.36s", id + 6);
    (void)snprintf(path, sizeof(path), "/v1/jobs/%s", job->id);
    say_request(b, &b->peers[LOOK], "GET", path, "Prefer: wait=30\r\n", "");
}

static void job_answer(struct job *job)
{
    static char text[RESULT_BYTES + 128];
    int head = snprintf(text, sizeof(text),
                        "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n",
                        RESULT_BYTES);

    random_bytes(text + head, RESULT_BYTES);
    job->caller->len = 0;
    job->answered_us = clock_mono_us();
    say(job->caller, text, (size_t)head + RESULT_BYTES);
}

static void job_on_readable(struct bench *b, struct job *job, int who, int64_t now_us)
{
    struct peer *p = &b->peers[who];

    if (who == LISTENER) {
        caller_take(b);
        return;
    }
    if (who >= CALLER && job->asked_us == 0)
        job->asked_us = now_us;
    if (!peer_read(p)) {
        if (p->fd < 0 && who >= CALLER && job->ready_us == 0)
            job->asked_us = 0; /* an old connection was closed */
        else if (p->fd < 0 && who < CALLER)
            die("the dispatcher closed a connection");
        return;
    }
    if (who == POST) {
        job->accepted_us = now_us;
        job_accepted(b, job);
    } else if (who == LOOK) {
        job->visible_us = now_us;
        job->is_good = strstr(p->in, "\"state\":\"succeeded\"") != NULL;
    } else {
        job->ready_us = now_us;
        job->caller = p;
    }
}

static void job_run(struct bench *b, struct job *job, long number)
{
    char body[128];
    int64_t until_us;

    (void)snprintf(body, sizeof(body), "{\"operation\":\"bench.make\",\"params\":{\"prompt\":\"a bench, no. %ld\"}}",
                   number);
    job->posted_us = clock_mono_us();
    until_us = job->posted_us + JOB_MS * 1000;
    say_request(b, &b->peers[POST], "POST", "/v1/jobs", "Content-Type: application/json\r\n", body);
    while (job->visible_us == 0) {
        struct pollfd fds[PEERS];
        int64_t now = clock_mono_us();
        bool may_answer = job->ready_us > 0 && job->accepted_us > 0 && job->answered_us == 0;
        int wait_ms = 1000;

        if (now > until_us)
            die("a job does not end");
        if (may_answer && now >= job->ready_us + b->delay_ms * 1000)
            job_answer(job);
        else if (may_answer)
            wait_ms = (int)((job->ready_us + b->delay_ms * 1000 - now + 999) / 1000);
        for (int i = 0; i < PEERS; i++)
            fds[i] = (struct pollfd){ .fd = b->peers[i].fd, .events = POLLIN };
        if (poll(fds, PEERS, wait_ms) <= 0)
            continue;
        now = clock_mono_us();
        for (int i = 0; i < PEERS; i++) {
            if (fds[i].revents != 0)
                job_on_readable(b, job, i, now);
        }
    }
}

static void dispatcher_connect(struct bench *b, struct peer *p)
{
    p->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (p->fd < 0 || connect(p->fd, (const struct sockaddr *)&b->dispatcher, sizeof(b->dispatcher)) != 0)
        die("no connection to the dispatcher");
    no_delay(p->fd);
}

static void provider_listen(struct bench *b, long port)
{
    struct sockaddr_in at = { .sin_family = AF_INET,
                              .sin_port = htons((uint16_t)port),
                              .sin_addr = { htonl(INADDR_LOOPBACK) } };
    struct peer *p = &b->peers[LISTENER];
    int one = 1;

    p->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (p->fd >= 0)
        (void)setsockopt(p->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (p->fd < 0 || bind(p->fd, (const struct sockaddr *)&at, sizeof(at)) != 0 || listen(p->fd, CALLERS) != 0)
        die("the provider's port cannot be had");
}

static void job_write(FILE *out, const struct job *job)
{
    struct timespec wall;
    int64_t to_wall;

    (void)clock_gettime(CLOCK_REALTIME, &wall); /* as PostgreSQL reads it: clock_wall_ms has no microseconds */
    to_wall = wall.tv_sec * 1000000 + wall.tv_nsec / 1000 - clock_mono_us();
    (void)fprintf(out, "%s\t%lld\t%lld\t%lld\t%lld\t%lld\n", job->id, (long long)(job->posted_us + to_wall),
                  (long long)(job->accepted_us + to_wall), (long long)(job->asked_us + to_wall),
                  (long long)(job->answered_us + to_wall), (long long)(job->visible_us + to_wall));
}

static void pause_some(long pause_ms)
{
    struct timespec pause;
    uint32_t r;
    long ms;

    random_bytes(&r, sizeof(r));
    ms = pause_ms + (long)(r % (uint32_t)(pause_ms + 1));
    pause = (struct timespec){ ms / 1000, ms % 1000 * 1000000 };
    (void)nanosleep(&pause, NULL);
}

int main(int argc, char **argv)
{
    static struct bench b;
    char address[32];
    unsigned dispatcher_port;
    long count = argc == 7 ? strtol(argv[3], NULL, 10) : 0, pause_ms, bad = 0;
    FILE *out;

    b.key = getenv("KILN_API_KEY");
    if (count < 1 || b.key == NULL || sscanf(argv[1], "http://%31[0-9.]:%u", address, &dispatcher_port) != 2)
        die("usage: KILN_API_KEY=... bench_latency http://ADDRESS:PORT PORT COUNT DELAY_MS PAUSE_MS FILE");
    b.delay_ms = strtol(argv[4], NULL, 10);
    pause_ms = strtol(argv[5], NULL, 10);
    b.dispatcher = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons((uint16_t)dispatcher_port) };
    if (inet_pton(AF_INET, address, &b.dispatcher.sin_addr) != 1)
        die("an address has four numbers");
    (void)snprintf(b.host, sizeof(b.host), "%s:%u", address, dispatcher_port);
    out = fopen(argv[6], "w");
    if (out == NULL)
        die("the file cannot be written");
    for (int i = 0; i < PEERS; i++)
        b.peers[i].fd = -1;
    provider_listen(&b, strtol(argv[2], NULL, 10));
    dispatcher_connect(&b, &b.peers[POST]);
    dispatcher_connect(&b, &b.peers[LOOK]);
    for (long i = 0; i < count; i++) {
        struct job job = { 0 };

        job_run(&b, &job, i);
        bad += !job.is_good;
        job_write(out, &job);
        pause_some(pause_ms);
    }
    (void)fclose(out);
    (void)printf("bad=%ld\n", bad);
    return 0;
}
