/* lean.c - bench_lean: a provider that costs next to nothing, so that it is not what a benchmark measures.
 *
 *   bench_lean PORT      on 127.0.0.1
 *
 * One thread, one epoll, HTTP/1.1 with keep-alive, read and written by hand; it shares nothing with kiln's adapters.
 *
 *   POST /lean/call           answers after delay_ms with a file of `bytes` bytes
 *   POST /lean/image          the same, with a JPEG of 512 by 512, 50 KB at most
 *   POST /lean/jobs           answers at once: {"id":"7"}
 *   GET  /lean/jobs/7         {"status":"pending"}, and from poll number `polls` on {"status":"done","url":…}
 *   GET  /lean/result/7       the file
 *   POST /_lean/config        {"delay_ms":…,"bytes":…,"polls":…}, each as far as it is named; also for those who wait
 *   GET  /_lean/counters      {"requests":…,"answers":…,"open":…,"most_open":…,"jobs":…,"once":…,…}
 *   GET  /_lean/answered/7    the same, once seven files were answered; one asks at a time
 *   POST /_lean/reset         all counters at 0 (who waits goes on waiting)
 *
 * A submit carries a tag like [[job:t17]] in its body: `jobs` counts the tags that came, `once` those that came exactly
 * once. All answers of one kind have the same bytes but for a first line of 64 that names the answer, so an answer
 * needs no memory of its own. Delays are one queue: whoever came first is answered first. */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <turbojpeg.h>
#include <unistd.h>
#include "common/base/clock.h"
#include "common/base/text.h"

enum {
    REQUEST_MAX = 1 << 16,
    BODY_MAX = 16 << 20,
    NAME_BYTES = 64, /* what differs between two answers */
    HEAD_BYTES = 512,
    WAITING_MAX = 1 << 17, /* a power of two, above the number of files */
    TAGS_MAX = 1 << 20,    /* a power of two; no more than half of it is used */
    REFS_MAX = 4 << 20,
    EVENTS_MAX = 512,
    IMAGE_SIDE = 512,
};

enum kind { KIND_BYTES, KIND_IMAGE };

struct conn {        /* found by its file descriptor */
    uint32_t serial; /* goes up when it is closed: who waits for it knows that it is gone */
    bool is_open, is_waiting, is_blocked, is_caller; /* the last: more than counters were asked for */
    enum kind kind;
    uint64_t tag;
    struct buf kept; /* the beginning of a request whose end is not here yet */
    char head[HEAD_BYTES];
    size_t head_len, sent;
    const char *tail;
    size_t tail_len;
};

struct wait {
    int fd;
    uint32_t serial;
    int64_t came_us;
};

struct tag {
    uint64_t hash; /* 0: free */
    uint32_t count;
};

struct request {
    const char *method, *path, *body;
    size_t path_len, body_len;
};

static struct lean {
    int epoll, listener, port;
    struct conn *conns;
    size_t conn_max;
    int64_t delay_us, polls, bytes;
    char *filler, *image;
    size_t image_len;
    struct wait *waiting; /* a ring */
    size_t wait_head, wait_tail;
    struct tag *tags;
    uint16_t *refs; /* how often each was polled */
    size_t ref_count;
    int64_t requests, answers, open, most_open, conns_open, callers, jobs, once, submits, poll_count;
    int64_t first_us, last_us; /* of calls and submits: the first that came, the last answer that went */
    struct {
        int fd;
        uint32_t serial;
        int64_t answers; /* so many does it wait for; 0: nobody does */
    } watcher;
} lean = { .delay_us = 1000000, .polls = 3, .bytes = 50000 };

static void conn_close(int fd)
{
    struct conn *c = &lean.conns[fd];

    if (!c->is_open)
        return;
    if (c->is_waiting)
        lean.open--;
    buf_done(&c->kept);
    c->is_open = c->is_waiting = c->is_blocked = false;
    c->serial++;
    lean.conns_open--;
    (void)close(fd); /* epoll forgets it by itself */
}

static void conn_watch(int fd, int op, uint32_t events)
{
    struct epoll_event ev = { .events = events, .data.fd = fd };

    (void)epoll_ctl(lean.epoll, op, fd, &ev);
}

/* --- answers ----------------------------------------------------------------------------------------------------- */

/* Writes what is left of head and tail; what the socket does not take goes when it does. */
static void conn_flush(int fd)
{
    struct conn *c = &lean.conns[fd];
    size_t total = c->head_len + c->tail_len, in_head = c->sent < c->head_len ? c->head_len - c->sent : 0;
    size_t in_tail = c->sent > c->head_len ? c->sent - c->head_len : 0;
    struct iovec iov[2] = {
        { c->head + (c->head_len - in_head), in_head },
        { (char *)(uintptr_t)c->tail + in_tail, c->tail_len - in_tail }, /* writev does not write to it */
    };
    ssize_t n = writev(fd, iov, c->tail_len ? 2 : 1);

    if (n < 0 && errno != EAGAIN) {
        conn_close(fd);
        return;
    }
    c->sent += n > 0 ? (size_t)n : 0;
    if ((c->sent < total) != c->is_blocked) {
        c->is_blocked = !c->is_blocked;
        conn_watch(fd, EPOLL_CTL_MOD, c->is_blocked ? EPOLLIN | EPOLLOUT : EPOLLIN);
    }
}

static void conn_answer(int fd, const char *status, const char *json)
{
    struct conn *c = &lean.conns[fd];
    int n = snprintf(c->head, sizeof(c->head),
                     "HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s", status,
                     strlen(json), json);

    c->head_len = n < HEAD_BYTES ? (size_t)n : HEAD_BYTES - 1;
    c->tail_len = c->sent = 0;
    conn_flush(fd);
}

static void counters_show(int fd)
{
    char json[HEAD_BYTES];

    (void)snprintf(json, sizeof(json),
                   "{\"requests\":%" PRId64 ",\"answers\":%" PRId64 ",\"open\":%" PRId64 ",\"most_open\":%" PRId64
                   ",\"connections\":%" PRId64 ",\"callers\":%" PRId64 ",\"submits\":%" PRId64 ",\"jobs\":%" PRId64
                   ",\"once\":%" PRId64 ",\"polls\":%" PRId64 ",\"span_ms\":%" PRId64 "}",
                   lean.requests, lean.answers, lean.open, lean.most_open, lean.conns_open, lean.callers, lean.submits,
                   lean.jobs, lean.once, lean.poll_count, lean.submits ? (lean.last_us - lean.first_us) / 1000 : 0);
    conn_answer(fd, "200 OK", json);
}

/* Who waits for the end of a run is told here: asking again and again would take the time of what is measured. */
static void watcher_tell(void)
{
    if (lean.watcher.answers == 0 || lean.answers < lean.watcher.answers)
        return;
    lean.watcher.answers = 0;
    if (lean.conns[lean.watcher.fd].is_open && lean.conns[lean.watcher.fd].serial == lean.watcher.serial)
        counters_show(lean.watcher.fd);
}

/* A file: its first bytes name it, in a JPEG as a comment behind the first marker. */
static void conn_answer_file(int fd, enum kind kind, uint64_t name)
{
    static const char comment[] = { '\xff', '\xd8', '\xff', '\xfe', 0, NAME_BYTES - 4 }; /* its length counts itself */
    struct conn *c = &lean.conns[fd];
    size_t rest = kind == KIND_IMAGE ? lean.image_len - 2 : (size_t)lean.bytes - NAME_BYTES;
    int n = snprintf(c->head, sizeof(c->head), "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %zu\r\n\r\n",
                     kind == KIND_IMAGE ? "image/jpeg" : "application/octet-stream", NAME_BYTES + rest);
    char *body = c->head + n;

    (void)snprintf(body, sizeof(c->head) - (size_t)n, "%-47s %016" PRIx64, "what the lean provider made of", name);
    if (kind == KIND_IMAGE)
        memcpy(body, comment, sizeof(comment));
    c->head_len = (size_t)n + NAME_BYTES;
    c->tail = kind == KIND_IMAGE ? lean.image + 2 : lean.filler;
    c->tail_len = rest;
    c->sent = 0;
    lean.last_us = clock_mono_us();
    lean.answers++;
    conn_flush(fd);
    watcher_tell();
}

/* --- calls, jobs and their tags ---------------------------------------------------------------------------------- */

/* Counts the submit under its tag; 0: it has none. */
static uint64_t submit_note(const struct request *r)
{
    static const char mark[] = "[[job:";
    const char *at = memmem(r->body, r->body_len, mark, sizeof(mark) - 1), *end = r->body + r->body_len;
    uint64_t hash = 14695981039346656037u; /* FNV-1a */
    size_t i;

    if (lean.submits++ == 0)
        lean.first_us = clock_mono_us();
    if (!at)
        return 0;
    for (at += sizeof(mark) - 1; at < end && *at != ']'; at++)
        hash = (hash ^ (unsigned char)*at) * 1099511628211u;
    hash += hash == 0;
    for (i = hash & (TAGS_MAX - 1); lean.tags[i].hash && lean.tags[i].hash != hash;)
        i = (i + 1) & (TAGS_MAX - 1);
    if (!lean.tags[i].hash && lean.jobs >= TAGS_MAX / 2) {
        (void)fprintf(stderr, "more jobs than can be counted\n");
        exit(1);
    }
    lean.tags[i].hash = hash;
    lean.tags[i].count++;
    lean.jobs += lean.tags[i].count == 1;
    lean.once += lean.tags[i].count == 1 ? 1 : lean.tags[i].count == 2 ? -1 : 0;
    return hash;
}

static void call_begin(int fd, const struct request *r, enum kind kind)
{
    struct conn *c = &lean.conns[fd];

    c->tag = submit_note(r);
    c->kind = kind;
    if (lean.delay_us == 0) {
        conn_answer_file(fd, kind, c->tag);
        return;
    }
    if (lean.wait_tail - lean.wait_head == WAITING_MAX) {
        conn_answer(fd, "503 Service Unavailable", "{\"message\":\"too many wait\"}");
        return;
    }
    lean.waiting[lean.wait_tail++ & (WAITING_MAX - 1)] = (struct wait){ fd, c->serial, clock_mono_us() };
    c->is_waiting = true;
    if (++lean.open > lean.most_open)
        lean.most_open = lean.open;
}

/* Answers those whose time has come; milliseconds until the next one, -1: none waits. */
static int calls_end(void)
{
    int64_t now_us = clock_mono_us();

    while (lean.wait_head != lean.wait_tail) {
        const struct wait *w = &lean.waiting[lean.wait_head & (WAITING_MAX - 1)];
        int64_t left_us = w->came_us + lean.delay_us - now_us;
        struct conn *c = &lean.conns[w->fd];
        bool is_there = c->is_open && c->serial == w->serial;

        if (is_there && left_us > 0)
            return (int)(left_us / 1000 + 1);
        lean.wait_head++;
        if (is_there) {
            c->is_waiting = false;
            lean.open--;
            conn_answer_file(w->fd, c->kind, c->tag);
        }
    }
    return -1;
}

static void job_begin(int fd, const struct request *r)
{
    char json[64];

    (void)submit_note(r);
    if (lean.ref_count == REFS_MAX) {
        conn_answer(fd, "503 Service Unavailable", "{\"message\":\"too many jobs\"}");
        return;
    }
    lean.refs[lean.ref_count++] = 0;
    (void)snprintf(json, sizeof(json), "{\"id\":\"%zu\"}", lean.ref_count);
    conn_answer(fd, "200 OK", json);
}

static void job_show(int fd, size_t ref)
{
    char json[128] = "{\"status\":\"pending\"}";

    lean.poll_count++;
    if (lean.refs[ref - 1] < UINT16_MAX)
        lean.refs[ref - 1]++;
    if (lean.refs[ref - 1] >= lean.polls)
        (void)snprintf(json, sizeof(json), "{\"status\":\"done\",\"url\":\"http://127.0.0.1:%d/lean/result/%zu\"}",
                       lean.port, ref);
    conn_answer(fd, "200 OK", json);
}

/* --- steering ---------------------------------------------------------------------------------------------------- */

static bool config_number(const struct request *r, const char *name, int64_t max, int64_t *out)
{
    const char *at = memmem(r->body, r->body_len, name, strlen(name)), *end = r->body + r->body_len;
    int64_t n = 0;

    if (!at)
        return false;
    for (at += strlen(name); at < end && (*at == ' ' || *at == ':'); at++)
        ;
    for (; at < end && isdigit((unsigned char)*at) && n <= max; at++)
        n = n * 10 + (*at - '0');
    *out = n > max ? max : n;
    return true;
}

static void config_set(int fd, const struct request *r)
{
    int64_t ms;

    if (config_number(r, "\"delay_ms\"", INT64_C(86400000), &ms))
        lean.delay_us = ms * 1000;
    (void)config_number(r, "\"polls\"", INT64_C(1000000), &lean.polls);
    if (config_number(r, "\"bytes\"", BODY_MAX, &lean.bytes) && lean.bytes < NAME_BYTES)
        lean.bytes = NAME_BYTES;
    conn_answer(fd, "200 OK", "{}");
}

static void watcher_set(int fd, int64_t answers)
{
    lean.watcher.fd = fd;
    lean.watcher.serial = lean.conns[fd].serial;
    lean.watcher.answers = answers;
    watcher_tell();
}

static void counters_reset(int fd)
{
    lean.requests = lean.answers = lean.callers = lean.submits = lean.jobs = lean.once = lean.poll_count = 0;
    lean.first_us = lean.last_us = 0;
    lean.most_open = lean.open;
    memset(lean.tags, 0, TAGS_MAX * sizeof(*lean.tags));
    conn_answer(fd, "200 OK", "{}");
}

/* --- requests ---------------------------------------------------------------------------------------------------- */

static bool request_is(const struct request *r, const char *line) /* "POST /path", up to where a query may begin */
{
    const char *space = strchr(line, ' ');
    size_t len = strlen(space + 1);

    return !memcmp(r->method, line, (size_t)(space + 1 - line)) && r->path_len >= len &&
           !memcmp(r->path, space + 1, len) && (r->path_len == len || r->path[len] == '?');
}

static size_t request_number(const struct request *r, const char *prefix) /* after GET PREFIX; 0: not that path */
{
    size_t len = strlen(prefix), n = 0;

    if (memcmp(r->method, "GET ", 4) != 0 || r->path_len <= len || memcmp(r->path, prefix, len) != 0)
        return 0;
    for (; len < r->path_len && isdigit((unsigned char)r->path[len]) && n < REFS_MAX; len++)
        n = n * 10 + (size_t)(r->path[len] - '0');
    return n <= lean.ref_count ? n : 0;
}

static void request_serve(int fd, const struct request *r)
{
    static const char answered[] = "GET /_lean/answered/";
    size_t ref;

    lean.requests++;
    if (!lean.conns[fd].is_caller && r->path_len > 6 && !memcmp(r->path, "/lean/", 6)) {
        lean.conns[fd].is_caller = true;
        lean.callers++;
    }
    if (request_is(r, "POST /lean/call"))
        call_begin(fd, r, KIND_BYTES);
    else if (request_is(r, "POST /lean/image"))
        call_begin(fd, r, KIND_IMAGE);
    else if (request_is(r, "POST /lean/jobs"))
        job_begin(fd, r);
    else if ((ref = request_number(r, "/lean/jobs/")))
        job_show(fd, ref);
    else if ((ref = request_number(r, "/lean/result/")))
        conn_answer_file(fd, KIND_BYTES, ref);
    else if (request_is(r, "POST /_lean/config"))
        config_set(fd, r);
    else if (request_is(r, "GET /_lean/counters"))
        counters_show(fd);
    else if (!strncmp(r->method, answered, sizeof(answered) - 1) &&
             isdigit((unsigned char)r->method[sizeof(answered) - 1]))
        watcher_set(fd, strtol(r->method + sizeof(answered) - 1, NULL, 10));
    else if (request_is(r, "POST /_lean/reset"))
        counters_reset(fd);
    else
        conn_answer(fd, "404 Not Found", "{\"message\":\"no such thing\"}");
}

/* Bytes of the request at data; 0: its end is not here yet, -1: this is none. */
static ssize_t request_parse(const char *data, size_t len, struct request *r)
{
    static const char length[] = "\r\ncontent-length:";
    const char *end = memmem(data, len, "\r\n\r\n", 4), *at = data, *space;
    long bytes = 0;

    if (!end)
        return 0;
    for (; (at = memchr(at, '\r', (size_t)(end - at))); at++)
        if (!strncasecmp(at, length, sizeof(length) - 1)) /* the blank line at the end stops the comparison */
            bytes = strtol(at + sizeof(length) - 1, NULL, 10);
    end += 4;
    if (bytes < 0 || bytes > REQUEST_MAX || len < 14)
        return -1;
    if ((size_t)(data + len - end) < (size_t)bytes)
        return 0;
    r->method = data;
    r->path = memchr(data, ' ', (size_t)(end - data));
    space = r->path ? memchr(r->path + 1, ' ', (size_t)(end - r->path - 1)) : NULL;
    if (!space)
        return -1;
    r->path++;
    r->path_len = (size_t)(space - r->path);
    r->body = end;
    r->body_len = (size_t)bytes;
    return end + bytes - data;
}

/* Takes what came. One request at a time: who sends the next before the answer to the last is not a client of ours. */
static void conn_read(int fd)
{
    static char fresh[REQUEST_MAX + 1];
    struct conn *c = &lean.conns[fd];
    ssize_t n = recv(fd, fresh, REQUEST_MAX, 0), used;
    struct request r;
    const char *data = fresh;
    size_t len;

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0 || c->is_waiting || c->is_blocked) {
        conn_close(fd);
        return;
    }
    len = (size_t)n;
    fresh[len] = '\0';
    if (c->kept.len > 0) {
        (void)buf_add(&c->kept, fresh, len);
        data = c->kept.data;
        len = c->kept.len;
    }
    used = request_parse(data, len, &r);
    if (used == 0 && len <= REQUEST_MAX) {
        if (c->kept.len == 0)
            (void)buf_add(&c->kept, fresh, len);
    } else if (used < 0 || (size_t)used != len) {
        conn_close(fd);
    } else {
        request_serve(fd, &r);
        buf_done(&c->kept);
    }
}

static void lean_accept(void)
{
    int fd;

    while ((fd = accept4(lean.listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        if ((size_t)fd >= lean.conn_max) {
            (void)close(fd);
            continue;
        }
        lean.conns[fd].is_open = true;
        lean.conns_open++;
        lean.conns[fd].is_caller = false;
        conn_watch(fd, EPOLL_CTL_ADD, EPOLLIN);
    }
}

/* --- the program ------------------------------------------------------------------------------------------------- */

static bool lean_listen(void)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons((uint16_t)lean.port) };
    int on = 1;

    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    lean.epoll = epoll_create1(EPOLL_CLOEXEC);
    lean.listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    (void)setsockopt(lean.listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    (void)setsockopt(lean.listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)); /* accepted sockets inherit it */
    if (bind(lean.listener, (struct sockaddr *)&at, sizeof(at)) != 0 || listen(lean.listener, REQUEST_MAX) != 0)
        return false;
    conn_watch(lean.listener, EPOLL_CTL_ADD, EPOLLIN);
    return true;
}

/* A picture that has something to it: a slope under noise, as large a JPEG as `bytes` allows. */
static bool lean_draw(void)
{
    static unsigned char pixels[IMAGE_SIDE * IMAGE_SIDE * 3];
    tjhandle tj = tjInitCompress();
    unsigned char *jpeg = NULL;
    unsigned long len = 0;
    int err = tj ? 0 : -1;

    for (unsigned i = 0; i < sizeof(pixels); i++)
        pixels[i] = (unsigned char)(i / 3 % IMAGE_SIDE / 4 + i / 3 / IMAGE_SIDE / 4 + (i * 2654435761u >> 27));
    for (int quality = 95; quality >= 5 && !err; quality -= 5) {
        err = tjCompress2(tj, pixels, IMAGE_SIDE, 0, IMAGE_SIDE, TJPF_RGB, &jpeg, &len, TJSAMP_420, quality, 0);
        if (!err && (int64_t)len <= lean.bytes)
            break;
    }
    if (!err && len <= BODY_MAX) {
        memcpy(lean.image, jpeg, len);
        lean.image_len = len;
    }
    tjFree(jpeg);
    if (tj)
        (void)tjDestroy(tj);
    return !err;
}

static bool lean_open(void)
{
    struct rlimit files;

    if (getrlimit(RLIMIT_NOFILE, &files) != 0)
        return false;
    files.rlim_cur = files.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &files);
    lean.conn_max = files.rlim_max < WAITING_MAX ? (size_t)files.rlim_max : WAITING_MAX;
    lean.conns = calloc(lean.conn_max, sizeof(*lean.conns));
    lean.waiting = calloc(WAITING_MAX, sizeof(*lean.waiting));
    lean.tags = calloc(TAGS_MAX, sizeof(*lean.tags));
    lean.refs = calloc(REFS_MAX, sizeof(*lean.refs)); /* untouched pages cost nothing */
    lean.filler = malloc(BODY_MAX);
    lean.image = malloc(BODY_MAX);
    if (!lean.conns || !lean.waiting || !lean.tags || !lean.refs || !lean.filler || !lean.image)
        return false;
    for (size_t i = 0; i < BODY_MAX; i++)
        lean.filler[i] = (char)(i * 2654435761u >> 13);
    (void)signal(SIGPIPE, SIG_IGN);
    return lean_draw() && lean_listen();
}

int main(int argc, char **argv)
{
    static struct epoll_event events[EVENTS_MAX];
    int64_t port = 0;

    if (argc != 2 || parse_i64(argv[1], 1, 65535, &port) != ERR_OK) {
        (void)fprintf(stderr, "usage: bench_lean PORT\n");
        return 2;
    }
    lean.port = (int)port;
    if (!lean_open()) {
        (void)fprintf(stderr, "bench_lean: cannot start: %s\n", strerror(errno));
        return 2;
    }
    for (;;) {
        int n = epoll_wait(lean.epoll, events, EVENTS_MAX, calls_end());

        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;

            if (fd == lean.listener)
                lean_accept();
            else if (lean.conns[fd].is_blocked && events[i].events & EPOLLOUT)
                conn_flush(fd);
            else if (lean.conns[fd].is_open)
                conn_read(fd);
        }
    }
}
