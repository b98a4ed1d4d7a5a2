/* bare.c - bench_bare: what calls, hashes and files cost a program that does nothing else, to compare with.
 *
 *   bench_bare URL COUNT DIR [POLL_MS]
 *
 * POSTs to URL COUNT times, all open at once, with libcurl as its manual has it (multi handles of 64 calls, epoll,
 * nothing set that makes it faster). Each answer goes into memory, through SHA-256 and into a file of its own in one of
 * 256 folders of DIR, with one syncfs for 100 of them. With POLL_MS the answer to a POST names a job ({"id":"7"}),
 * which is asked for at URL/7 each POLL_MS until that answers with a "url", and that is what is stored. One thread. No
 * queue, no ledger, and of JSON only those two members. Prints calls=… ms=… cpu_ms=… rss_kib=…; exit status 1: not
 * every call was answered and stored. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <curl/curl.h>
#include "common/base/clock.h"
#include "common/base/text.h"

enum {
    FOLDERS = 256,
    EACH = 64,
    COUNT_MAX = 60000,
    MULTIS_MAX = COUNT_MAX / EACH + 1,
    FILES_MAX = 1 << 17,
    EVENTS_MAX = 512,
    SYNCED = 100
};

struct call {
    CURL *easy;
    enum { SUBMIT, POLL, DOWNLOAD } step;
    int64_t due_ms; /* of its next poll */
    struct call *next;
    char sent[64], url[128];
    char *body;
    size_t len, size;
    long number;
};

struct multi {
    CURLM *curl;
    int64_t due_ms; /* -1: never */
};

static struct bare {
    int epoll, dir;
    const char *url, *path;
    struct curl_slist *headers;
    struct multi multis[MULTIS_MAX];
    struct multi *of[FILES_MAX]; /* by its file descriptor: whose it is */
    long count, started, ended, stored;
    int64_t poll_ms;           /* 0: an answer is the file */
    struct call *first, *last; /* who waits for a poll, in the order of time */
} bare;

static size_t on_body(char *data, size_t one, size_t len, void *ctx)
{
    struct call *call = ctx;

    if (call->len + len > call->size) {
        char *grown = realloc(call->body, call->size * 2 > call->len + len ? call->size * 2 : call->len + len);

        if (!grown)
            return 0;
        call->size = call->size * 2 > call->len + len ? call->size * 2 : call->len + len;
        call->body = grown;
    }
    memcpy(call->body + call->len, data, len * one);
    call->len += len;
    return len;
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *ctx, void *known)
{
    struct epoll_event ev = { .data.fd = fd };

    (void)easy;
    if (fd < 0 || fd >= FILES_MAX)
        return -1;
    if (what == CURL_POLL_REMOVE) {
        (void)epoll_ctl(bare.epoll, EPOLL_CTL_DEL, fd, NULL);
        return 0;
    }
    ev.events = (what & CURL_POLL_IN ? EPOLLIN : 0u) | (what & CURL_POLL_OUT ? EPOLLOUT : 0u);
    bare.of[fd] = ctx;
    if (!known)
        (void)curl_multi_assign(bare.of[fd]->curl, fd, &bare);
    return epoll_ctl(bare.epoll, known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &ev);
}

static int on_timer(CURLM *curl, long ms, void *ctx)
{
    struct multi *m = ctx;

    (void)curl;
    m->due_ms = ms < 0 ? -1 : clock_mono_ms() + ms;
    return 0;
}

static bool call_start(long number)
{
    struct multi *m = &bare.multis[number / EACH];
    struct call *call = calloc(1, sizeof(*call));

    if (!call || !(call->easy = curl_easy_init()))
        return false;
    call->number = number;
    (void)snprintf(call->sent, sizeof(call->sent), "{\"prompt\":\"bare [[job:bare%ld]]\"}", number);
    (void)curl_easy_setopt(call->easy, CURLOPT_URL, bare.url);
    (void)curl_easy_setopt(call->easy, CURLOPT_POSTFIELDS, call->sent);
    (void)curl_easy_setopt(call->easy, CURLOPT_HTTPHEADER, bare.headers);
    (void)curl_easy_setopt(call->easy, CURLOPT_NOSIGNAL, 1L);
    (void)curl_easy_setopt(call->easy, CURLOPT_FAILONERROR, 1L);
    (void)curl_easy_setopt(call->easy, CURLOPT_TIMEOUT_MS, 120000L);
    (void)curl_easy_setopt(call->easy, CURLOPT_WRITEFUNCTION, on_body);
    (void)curl_easy_setopt(call->easy, CURLOPT_WRITEDATA, call);
    (void)curl_easy_setopt(call->easy, CURLOPT_PRIVATE, call);
    return curl_multi_add_handle(m->curl, call->easy) == CURLM_OK;
}

static bool call_store(const struct call *call)
{
    char hex[SHA256_HEX], name[SHA256_HEX + 32];
    int fd;
    bool is_good;

    sha256_hex(hex, call->body, call->len);
    (void)snprintf(name, sizeof(name), "%.2s/%s-%ld", hex, hex + 2, call->number);
    fd = openat(bare.dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
    if (fd < 0)
        return false;
    is_good = write(fd, call->body, call->len) == (ssize_t)call->len;
    if (close(fd) != 0 || !is_good)
        return false;
    return ++bare.stored % SYNCED != 0 || syncfs(bare.dir) == 0;
}

static bool call_ask(struct call *call)
{
    call->len = 0;
    (void)curl_easy_setopt(call->easy, CURLOPT_HTTPGET, 1L);
    (void)curl_easy_setopt(call->easy, CURLOPT_URL, call->url);
    return curl_multi_add_handle(bare.multis[call->number / EACH].curl, call->easy) == CURLM_OK;
}

static void call_wait(struct call *call)
{
    call->due_ms = clock_mono_ms() + bare.poll_ms;
    call->next = NULL;
    if (bare.last && bare.first)
        bare.last->next = call;
    else
        bare.first = call;
    bare.last = call;
}

/* What stands behind `member` in the answer, without its closing quote. */
static bool call_member(const struct call *call, const char *member, char *out, size_t size)
{
    const char *at = memmem(call->body, call->len, member, strlen(member));
    const char *end =
        at ? memchr(at + strlen(member), '"', (size_t)(call->body + call->len - at) - strlen(member)) : NULL;

    if (!end || (size_t)(end - at) - strlen(member) >= size)
        return false;
    at += strlen(member);
    memcpy(out, at, (size_t)(end - at));
    out[end - at] = '\0';
    return true;
}

/* After a good answer; *is_over: it was the last. */
static bool call_on(struct call *call, bool *is_over)
{
    char id[32];

    *is_over = bare.poll_ms == 0 || call->step == DOWNLOAD;
    if (*is_over)
        return call_store(call);
    if (call->step == SUBMIT) {
        if (!call_member(call, "\"id\":\"", id, sizeof(id)))
            return false;
        (void)snprintf(call->url, sizeof(call->url), "%s/%s", bare.url, id);
        call->step = POLL;
    } else if (call_member(call, "\"url\":\"", call->url, sizeof(call->url))) {
        call->step = DOWNLOAD;
        return call_ask(call);
    }
    call_wait(call);
    return true;
}

static bool polls_start(void)
{
    int64_t now_ms = clock_mono_ms();

    while (bare.first && bare.first->due_ms <= now_ms) {
        struct call *call = bare.first;

        bare.first = call->next;
        if (!call_ask(call))
            return false;
    }
    return true;
}

static bool multi_read(struct multi *m)
{
    CURLMsg *msg;
    int left;
    bool is_good = true;

    while ((msg = curl_multi_info_read(m->curl, &left))) {
        struct call *call = NULL;
        CURL *easy = msg->easy_handle;
        bool is_answered = msg->msg == CURLMSG_DONE && msg->data.result == CURLE_OK, is_over = true;

        (void)curl_easy_getinfo(easy, CURLINFO_PRIVATE, &call);
        (void)curl_multi_remove_handle(m->curl, easy);
        is_good = is_good && is_answered && call->len > 0 && call_on(call, &is_over);
        if (!is_over && is_good)
            continue;
        curl_easy_cleanup(easy);
        free(call->body);
        free(call);
        bare.ended++;
    }
    return is_good;
}

static bool multis_expire(int *wait_ms)
{
    int64_t now_ms = clock_mono_ms();
    int running;
    bool is_good = true;

    *wait_ms = 1000;
    for (long i = 0; i <= (bare.count - 1) / EACH; i++) {
        struct multi *m = &bare.multis[i];

        if (m->due_ms >= 0 && m->due_ms <= now_ms) {
            m->due_ms = -1;
            (void)curl_multi_socket_action(m->curl, CURL_SOCKET_TIMEOUT, 0, &running);
            is_good = multi_read(m) && is_good;
        }
        if (m->due_ms >= 0 && m->due_ms - now_ms < *wait_ms)
            *wait_ms = m->due_ms > now_ms ? (int)(m->due_ms - now_ms) : 0;
    }
    return is_good;
}

static bool bare_run(void)
{
    static struct epoll_event events[EVENTS_MAX];
    int wait_ms, running;
    bool is_good = true;

    while (bare.ended < bare.count && is_good) {
        int n;

        for (int i = 0; i < EACH && bare.started < bare.count && is_good; i++)
            is_good = call_start(bare.started++);
        is_good = is_good && polls_start(); /* first: what they start is due at once */
        is_good = multis_expire(&wait_ms) && is_good;
        if (bare.first && bare.first->due_ms - clock_mono_ms() < wait_ms)
            wait_ms = bare.first->due_ms > clock_mono_ms() ? (int)(bare.first->due_ms - clock_mono_ms()) : 0;
        n = epoll_wait(bare.epoll, events, EVENTS_MAX, bare.started < bare.count ? 0 : wait_ms);
        for (int i = 0; i < n; i++) {
            struct multi *m = bare.of[events[i].data.fd];
            int mask = (events[i].events & EPOLLIN ? CURL_CSELECT_IN : 0) |
                       (events[i].events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
                       (events[i].events & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0);

            (void)curl_multi_socket_action(m->curl, events[i].data.fd, mask, &running);
            is_good = multi_read(m) && is_good;
        }
    }
    return is_good && syncfs(bare.dir) == 0;
}

static bool bare_open(void)
{
    struct rlimit files;
    char name[8];

    if (getrlimit(RLIMIT_NOFILE, &files) != 0 || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return false;
    files.rlim_cur = files.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &files);
    bare.epoll = epoll_create1(EPOLL_CLOEXEC);
    bare.dir = open(bare.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bare.headers = curl_slist_append(NULL, "Content-Type: application/json");
    for (int i = 0; i < FOLDERS; i++) {
        (void)snprintf(name, sizeof(name), "%02x", (unsigned)i);
        if (mkdirat(bare.dir, name, 0750) != 0)
            return false; /* it must be a fresh folder */
    }
    for (long i = 0; i <= (bare.count - 1) / EACH; i++) {
        struct multi *m = &bare.multis[i];

        m->curl = curl_multi_init();
        m->due_ms = -1;
        (void)curl_multi_setopt(m->curl, CURLMOPT_SOCKETFUNCTION, on_socket);
        (void)curl_multi_setopt(m->curl, CURLMOPT_SOCKETDATA, m);
        (void)curl_multi_setopt(m->curl, CURLMOPT_TIMERFUNCTION, on_timer);
        (void)curl_multi_setopt(m->curl, CURLMOPT_TIMERDATA, m);
    }
    return bare.epoll >= 0;
}

int main(int argc, char **argv)
{
    struct rusage used;
    int64_t count = 0, began_ms;
    bool is_good;

    if (argc < 4 || argc > 5 || parse_i64(argv[2], 1, COUNT_MAX, &count) != ERR_OK ||
        (argc == 5 && parse_i64(argv[4], 1, 60000, &bare.poll_ms) != ERR_OK)) {
        (void)fprintf(stderr, "usage: bench_bare URL COUNT DIR [POLL_MS]\n");
        return 2;
    }
    bare.url = argv[1];
    bare.count = (long)count;
    bare.path = argv[3];
    if (!bare_open()) {
        perror(bare.path);
        return 2;
    }
    began_ms = clock_mono_ms();
    is_good = bare_run();
    (void)getrusage(RUSAGE_SELF, &used);
    (void)printf("calls=%ld ms=%lld cpu_ms=%lld rss_kib=%ld\n", bare.stored, (long long)(clock_mono_ms() - began_ms),
                 (long long)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000 +
                     (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1000,
                 used.ru_maxrss);
    return is_good && bare.stored == bare.count ? 0 : 1;
}
