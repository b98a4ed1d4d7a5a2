/* callers.c - bench_callers: calls bench_lean alone, with nothing of kiln between, for the floor of a benchmark.
 *
 *   bench_callers PORT CONNECTIONS ROUNDS
 *
 * Opens that many connections to 127.0.0.1 and calls POST /lean/call on each of them ROUNDS times, the next when the
 * last was read. Prints answers=… bytes=… ms=…, where the time runs from the first call to the end of the last answer.
 */
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include "common/base/clock.h"
#include "common/base/text.h"

enum { ANSWER_BYTES = 1 << 16, EVENTS_MAX = 512, CONNECTIONS_MAX = 60000, ROUNDS_MAX = 1000 };

struct caller { /* found by its file descriptor */
    int64_t rounds;
    long left; /* bytes of the answer that are still to come; -1: its head is not here yet */
};

static struct callers {
    int epoll;
    struct sockaddr_in at;
    struct caller *of;
    int64_t connections, rounds, opened, answers, bytes;
} callers;

static bool caller_send(int fd)
{
    char request[256], body[96];
    int len =
        snprintf(body, sizeof(body), "{\"prompt\":\"a floor [[job:f%d-%lld]]\"}", fd, (long long)callers.of[fd].rounds);
    int n = snprintf(request, sizeof(request),
                     "POST /lean/call HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                     "Content-Length: %d\r\n\r\n%s",
                     len, body);

    callers.of[fd].left = -1;
    return send(fd, request, (size_t)n, MSG_NOSIGNAL) == n;
}

static bool caller_open(void)
{
    struct epoll_event ev = { .events = EPOLLIN };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || connect(fd, (struct sockaddr *)&callers.at, sizeof(callers.at)) != 0)
        return false;
    ev.data.fd = fd;
    callers.of[fd].rounds = callers.rounds;
    callers.opened++;
    return epoll_ctl(callers.epoll, EPOLL_CTL_ADD, fd, &ev) == 0 && caller_send(fd);
}

/* Reads what is there: of a head only the length is looked at, and it comes in one piece. */
static bool caller_read(int fd)
{
    static char data[ANSWER_BYTES + 1];
    struct caller *c = &callers.of[fd];
    ssize_t n = recv(fd, data, ANSWER_BYTES, MSG_DONTWAIT);
    const char *end, *length;

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    if (n <= 0)
        return false;
    callers.bytes += n;
    data[n] = '\0';
    if (c->left < 0) {
        end = strstr(data, "\r\n\r\n");
        length = strstr(data, "Content-Length: ");
        if (strncmp(data, "HTTP/1.1 200", 12) != 0 || !end || !length || length > end)
            return false;
        c->left = strtol(length + strlen("Content-Length: "), NULL, 10) - (long)(data + n - end - 4);
    } else {
        c->left -= n;
    }
    if (c->left > 0)
        return true;
    callers.answers++;
    return --c->rounds == 0 || caller_send(fd);
}

static bool callers_run(void)
{
    static struct epoll_event events[EVENTS_MAX];

    while (callers.answers < callers.connections * callers.rounds) {
        /* a few are opened between looks, so that those who were answered do not wait for the last to come */
        for (int i = 0; i < 64 && callers.opened < callers.connections; i++)
            if (!caller_open())
                return false;
        for (int i = 0,
                 n = epoll_wait(callers.epoll, events, EVENTS_MAX, callers.opened < callers.connections ? 0 : 1000);
             i < n; i++)
            if (!caller_read(events[i].data.fd))
                return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    struct rlimit files;
    int64_t port = 0, began_ms;
    bool is_done;

    if (argc != 4 || parse_i64(argv[1], 1, 65535, &port) != ERR_OK ||
        parse_i64(argv[2], 1, CONNECTIONS_MAX, &callers.connections) != ERR_OK ||
        parse_i64(argv[3], 1, ROUNDS_MAX, &callers.rounds) != ERR_OK) {
        (void)fprintf(stderr, "usage: bench_callers PORT CONNECTIONS ROUNDS\n");
        return 2;
    }
    (void)getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &files);
    callers.of = calloc((size_t)files.rlim_max, sizeof(*callers.of));
    callers.epoll = epoll_create1(EPOLL_CLOEXEC);
    callers.at = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    callers.at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (!callers.of || callers.epoll < 0)
        return 2;
    began_ms = clock_mono_ms();
    is_done = callers_run();
    if (!is_done)
        (void)fprintf(stderr, "a call failed: %s\n", strerror(errno));
    (void)printf("answers=%lld bytes=%lld ms=%lld\n", (long long)callers.answers, (long long)callers.bytes,
                 (long long)(clock_mono_ms() - began_ms));
    return is_done ? 0 : 1;
}
