/* files.c - see files.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include "tests/integration/house/files.h"
#include "tests/integration/house/house.h"

enum { BIG = 11 * 1024 * 1024 };

static void send_all(int fd, const void *data, size_t len)
{
    const char *at = data;

    while (len > 0) {
        ssize_t n = send(fd, at, len, MSG_NOSIGNAL);

        if (n <= 0)
            return; /* the client has seen enough */
        at += n;
        len -= (size_t)n;
    }
}

static void send_file(int fd, const char *type, const void *data, size_t len, size_t promised)
{
    char head[256];

    (void)snprintf(head, sizeof(head),
                   "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n", type,
                   promised);
    send_all(fd, head, strlen(head));
    send_all(fd, data, len);
}

static void send_picture(int fd, int width, int height, size_t missing)
{
    size_t len = 0;
    void *png = house_picture(width, height, &len);

    send_file(fd, "image/png", png, len - missing, len);
    free(png);
}

static void send_status(int fd, const char *status, const char *header)
{
    char head[320];

    (void)snprintf(head, sizeof(head), "HTTP/1.1 %s\r\n%sContent-Length: 0\r\nConnection: close\r\n\r\n", status,
                   header);
    send_all(fd, head, strlen(head));
}

static void answer(struct files *s, int fd, const char *path)
{
    char header[128];
    int left = 0;

    if (!strcmp(path, "/ok.png") || (!strcmp(path, "/flaky.png") && s->flaky++)) {
        send_picture(fd, 128, 128, 0);
    } else if (!strcmp(path, "/flaky.png")) {
        send_status(fd, "503 Busy", "");
    } else if (!strcmp(path, "/many.png")) {
        send_picture(fd, 1100, 1000, 0);
    } else if (!strcmp(path, "/cut.png")) {
        send_picture(fd, 128, 128, 100);
    } else if (!strcmp(path, "/page")) {
        send_file(fd, "image/png", "<html>no picture</html>", 23, 23);
    } else if (!strcmp(path, "/big.png")) {
        char *bytes = calloc(1, BIG);

        memcpy(bytes, "\x89PNG\r\n\x1a\n", 8);
        send_file(fd, "image/png", bytes, BIG, BIG);
        free(bytes);
    } else if (sscanf(path, "/redirect/%d", &left) == 1) {
        if (left > 1)
            (void)snprintf(header, sizeof(header), "Location: http://127.0.0.1:%d/redirect/%d\r\n", s->port, left - 1);
        else
            (void)snprintf(header, sizeof(header), "Location: http://127.0.0.1:%d/ok.png\r\n", s->port);
        send_status(fd, "302 Found", header);
    } else {
        send_status(fd, "404 Not Found", "");
    }
}

static void *serve(void *ctx)
{
    struct files *s = ctx;
    int fd;

    while ((fd = accept(s->fd, NULL, NULL)) >= 0) {
        char request[4096] = "", path[256] = "";
        size_t have = 0;
        ssize_t n;

        while (have + 1 < sizeof(request) && !strstr(request, "\r\n\r\n") &&
               (n = recv(fd, request + have, sizeof(request) - 1 - have, 0)) > 0) {
            have += (size_t)n;
            request[have] = '\0';
        }
        s->hits++;
        if (sscanf(request, "GET %255s", path) == 1)
            answer(s, fd, path);
        (void)shutdown(fd, SHUT_WR);
        (void)close(fd);
    }
    return NULL;
}

void files_start(struct files *s)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(a);

    s->fd = socket(AF_INET, SOCK_STREAM, 0);
    s->flaky = 0;
    s->hits = 0;
    cr_assert_eq(bind(s->fd, (struct sockaddr *)&a, sizeof(a)), 0);
    cr_assert_eq(listen(s->fd, 64), 0);
    cr_assert_eq(getsockname(s->fd, (struct sockaddr *)&a, &len), 0);
    s->port = ntohs(a.sin_port);
    cr_assert_eq(pthread_create(&s->thread, NULL, serve, s), 0);
}

void files_stop(struct files *s)
{
    (void)shutdown(s->fd, SHUT_RDWR); /* wakes accept */
    (void)pthread_join(s->thread, NULL);
    (void)close(s->fd);
}
