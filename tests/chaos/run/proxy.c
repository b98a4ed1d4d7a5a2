/* proxy.c - the doors. One thread polls all of them; a connection is a pair of sockets with a short queue of pieces in
 * each direction. Others set a door's state, the thread reads it: a cut is a number that rises, shut and slow are times
 * until which they hold. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "tests/chaos/run/run.h"

enum { PAIRS_MAX = 2000, PIECE_BYTES = 16384, QUEUE_MAX = 16, TURN_MS = 20 };

struct piece {
    struct piece *next;
    int64_t due_ms;
    size_t len, sent;
    char data[PIECE_BYTES];
};
struct lane { /* one direction */
    struct piece *first, *last;
    int count;
    bool is_ended; /* its reader saw the end */
};
struct pair {
    int fd[2];           /* 0: kiln's side, 1: the server's */
    struct lane lane[2]; /* lane[i]: read from fd[i] */
    int door, cut_seen;
};
static struct {
    int listener, port;
    struct sockaddr_storage target;
    socklen_t target_len;
    _Atomic int cut;
    _Atomic int64_t held_until, slow_until, delay_ms;
} doors[CREW_MAX * DOORS];
static struct pair *pairs[PAIRS_MAX];
static size_t pair_count;
static _Atomic bool is_over;
static _Atomic int64_t cuts;
static pthread_t thread;

static int door_of(int who, enum door door)
{
    return who * DOORS + (int)door;
}

/* --- connections -------------------------------------------------------------------------------------------------- */

static void pair_free(struct pair *p, bool is_reset)
{
    static const struct linger at_once = { 1, 0 };

    for (int i = 0; i < 2; i++) {
        if (is_reset)
            (void)setsockopt(p->fd[i], SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
        (void)close(p->fd[i]);
        while (p->lane[i].first) {
            struct piece *next = p->lane[i].first->next;

            free(p->lane[i].first);
            p->lane[i].first = next;
        }
    }
    free(p);
}

static void greet(int door)
{
    int in = accept4(doors[door].listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), out, one = 1;
    struct pair *p;

    if (in < 0)
        return;
    out = socket(doors[door].target.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (out < 0 || pair_count == PAIRS_MAX ||
        connect(out, (const struct sockaddr *)&doors[door].target, doors[door].target_len) != 0) {
        (void)close(in); /* the server is away: as if it had refused */
        if (out >= 0)
            (void)close(out);
        return;
    }
    (void)fcntl(out, F_SETFL, O_NONBLOCK);
    (void)setsockopt(in, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    (void)setsockopt(out, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    p = calloc(1, sizeof(*p));
    if (!p)
        abort();
    p->fd[0] = in;
    p->fd[1] = out;
    p->door = door;
    p->cut_seen = doors[door].cut;
    pairs[pair_count++] = p;
}

static bool take_in(struct pair *p, int side, int64_t now) /* false: the connection broke */
{
    struct lane *l = &p->lane[side];
    struct piece *new = malloc(sizeof(*new));
    ssize_t n;

    if (!new)
        abort();
    n = read(p->fd[side], new->data, sizeof(new->data));
    if (n <= 0) {
        free(new);
        l->is_ended = n == 0;
        return n == 0 || errno == EAGAIN;
    }
    new->next = NULL;
    new->len = (size_t)n;
    new->sent = 0;
    new->due_ms = now + (now < doors[p->door].slow_until ? doors[p->door].delay_ms : 0);
    *(l->first ? &l->last->next : &l->first) = new;
    l->last = new;
    l->count++;
    return true;
}

static bool hand_on(struct pair *p, int side, int64_t now)
{
    struct lane *l = &p->lane[side];

    while (l->first && l->first->due_ms <= now) {
        struct piece *it = l->first;
        ssize_t n = send(p->fd[1 - side], it->data + it->sent, it->len - it->sent, MSG_NOSIGNAL);

        if (n < 0)
            return errno == EAGAIN;
        it->sent += (size_t)n;
        if (it->sent < it->len)
            return true;
        l->first = it->next;
        l->count--;
        free(it);
    }
    return !l->is_ended || l->first; /* an end ends both directions: nobody here half-closes */
}

/* --- the thread --------------------------------------------------------------------------------------------------- */

static short wants(const struct pair *p, int side, int64_t now)
{
    const struct lane *in = &p->lane[side], *out = &p->lane[1 - side];
    short events = 0;

    if (now < doors[p->door].held_until)
        return 0;
    if (!in->is_ended && in->count < QUEUE_MAX)
        events |= POLLIN;
    if (out->first && out->first->due_ms <= now)
        events |= POLLOUT;
    return events;
}

static bool step(struct pair *p, const struct pollfd *polled, int64_t now) /* false: close it */
{
    if (now < doors[p->door].held_until)
        return true;
    for (int side = 0; side < 2; side++) {
        if ((polled[side].revents & (POLLIN | POLLHUP | POLLERR)) && !p->lane[side].is_ended &&
            p->lane[side].count < QUEUE_MAX && !take_in(p, side, now))
            return false;
    }
    return hand_on(p, 0, now) && hand_on(p, 1, now);
}

static void turn(struct pollfd *polled, size_t crew)
{
    size_t had = pair_count, kept = 0, listeners = crew * DOORS;
    int64_t now = now_ms();

    for (size_t i = 0; i < listeners; i++)
        polled[i] = (struct pollfd){ doors[i].listener, now < doors[i].held_until ? 0 : POLLIN, 0 };
    for (size_t i = 0; i < had; i++)
        for (int side = 0; side < 2; side++) {
            short events = wants(pairs[i], side, now);
            polled[listeners + 2 * i + (size_t)side] = (struct pollfd){ events ? pairs[i]->fd[side] : -1, events, 0 };
        }
    (void)poll(polled, listeners + 2 * had, TURN_MS);
    now = now_ms();
    for (size_t i = 0; i < had; i++) {
        struct pair *p = pairs[i];
        bool is_cut = p->cut_seen != doors[p->door].cut;

        if (is_cut || !step(p, &polled[listeners + 2 * i], now)) {
            cuts += is_cut;
            pair_free(p, is_cut);
        } else {
            pairs[kept++] = p;
        }
    }
    pair_count = kept;
    for (size_t i = 0; i < listeners; i++)
        if (polled[i].revents & POLLIN)
            greet((int)i);
}

static void *run(void *ctx)
{
    size_t crew = (size_t)(stage.dispatchers + stage.workers);
    struct pollfd *polled = calloc(crew * DOORS + 2 * (size_t)PAIRS_MAX, sizeof(*polled));

    (void)ctx;
    if (!polled)
        abort();
    while (!is_over)
        turn(polled, crew);
    for (size_t i = 0; i < pair_count; i++)
        pair_free(pairs[i], false);
    free(polled);
    return NULL;
}

/* --- opening ------------------------------------------------------------------------------------------------------ */

static socklen_t unix_address(struct sockaddr_storage *out, const char *path)
{
    struct sockaddr_un *a = (struct sockaddr_un *)out;

    memset(out, 0, sizeof(*out));
    a->sun_family = AF_UNIX;
    if (strlen(path) >= sizeof(a->sun_path)) {
        (void)fprintf(stderr, "chaos: too long for a socket: %s\n", path);
        exit(2);
    }
    memcpy(a->sun_path, path, strlen(path) + 1);
    return (socklen_t)sizeof(*a);
}

static void listen_on(int door, struct sockaddr_storage *at, socklen_t len)
{
    int fd = socket(at->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)at, len) != 0 || listen(fd, 256) != 0) {
        perror("chaos: a door of the proxy");
        exit(2);
    }
    if (at->ss_family == AF_INET && getsockname(fd, (struct sockaddr *)at, &len) == 0)
        doors[door].port = ntohs(((struct sockaddr_in *)at)->sin_port);
    doors[door].listener = fd;
}

void proxy_folder(int who, char *out, size_t size)
{
    (void)snprintf(out, size, "%s/%d", stage.postgres_folder, who);
}

static void open_doors(int who)
{
    char folder[128], path[192];
    struct sockaddr_storage at;
    struct sockaddr_in *in = (struct sockaddr_in *)&at;
    int door = door_of(who, DOOR_REDIS), port = 0;

    proxy_folder(who, folder, sizeof(folder));
    (void)mkdir(folder, 0700);
    doors[door].target_len = unix_address(&doors[door].target, stage.redis_socket);
    (void)snprintf(path, sizeof(path), "%s/redis.sock", folder);
    listen_on(door, &at, unix_address(&at, path));
    door = door_of(who, DOOR_POSTGRES);
    (void)snprintf(path, sizeof(path), "%s/.s.PGSQL.25432", stage.postgres_folder);
    doors[door].target_len = unix_address(&doors[door].target, path);
    (void)snprintf(path, sizeof(path), "%s/.s.PGSQL.25432", folder);
    listen_on(door, &at, unix_address(&at, path));
    door = door_of(who, DOOR_PROVIDER);
    (void)sscanf(stage.sandbox, "http://127.0.0.1:%d", &port);
    memset(&at, 0, sizeof(at));
    in->sin_family = AF_INET;
    in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    in->sin_port = htons((uint16_t)port);
    doors[door].target = at;
    doors[door].target_len = sizeof(*in);
    in->sin_port = 0;
    listen_on(door, &at, sizeof(*in));
}

void proxy_open(void)
{
    for (int who = 0; who < stage.dispatchers + stage.workers; who++)
        open_doors(who);
    if (pthread_create(&thread, NULL, run, NULL) != 0)
        abort();
}

void proxy_close(void)
{
    is_over = true;
    (void)pthread_join(thread, NULL);
    for (int i = 0; i < (stage.dispatchers + stage.workers) * DOORS; i++)
        (void)close(doors[i].listener);
}

int proxy_port(int who)
{
    return doors[door_of(who, DOOR_PROVIDER)].port;
}

void proxy_cut(int who, enum door door)
{
    doors[door_of(who, door)].cut++;
}

void proxy_hold(int who, enum door door, int64_t for_ms)
{
    doors[door_of(who, door)].held_until = now_ms() + for_ms;
}

void proxy_delay(int who, enum door door, int64_t delay_ms, int64_t for_ms)
{
    doors[door_of(who, door)].delay_ms = delay_ms;
    doors[door_of(who, door)].slow_until = now_ms() + for_ms;
}

void proxy_heal(void)
{
    for (int i = 0; i < CREW_MAX * DOORS; i++) {
        doors[i].held_until = 0;
        doors[i].slow_until = 0;
    }
}

int64_t proxy_cuts(void)
{
    return cuts;
}
