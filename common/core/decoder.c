/* decoder.c - the side that asks: keeps some helpers, hands each file to an idle one, buries those that die. */
#define _GNU_SOURCE /* environ of the helper, MSG_NOSIGNAL */
#include "common/core/decoder.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/text.h"

enum {
    HELPERS = 4,
    LIMIT_MS = 30000,
    CPU_S = 10,
    HELPER_FILES = 1000, /* then it is replaced: a library may leak */
    DEATHS_MAX = 2,      /* one may be the kernel's or an operator's doing, two are the file's */
    IDLE_DEATHS_MAX = 3,
};
#define MEMORY_BYTES (INT64_C(1) << 30)

struct helper {
    pid_t pid; /* 0: none runs */
    int fd;
    unsigned files;
    bool is_taken;
};

struct decoder {
    struct decoder_config config;
    pthread_mutex_t lock;
    pthread_cond_t idle;
    struct decoder_stats stats;
    struct helper *helpers;
};

struct decoder *decoder_new(const struct decoder_config *config)
{
    struct decoder *d = calloc(1, sizeof(*d));

    if (d == NULL)
        return NULL;
    d->config = *config;
    if (d->config.program == NULL)
        d->config.program = "/proc/self/exe";
    if (d->config.helpers == 0)
        d->config.helpers = HELPERS;
    if (d->config.limit_ms == 0)
        d->config.limit_ms = LIMIT_MS;
    if (d->config.cpu_s == 0)
        d->config.cpu_s = CPU_S;
    if (d->config.memory_bytes == 0)
        d->config.memory_bytes = MEMORY_BYTES;
    d->helpers = calloc(d->config.helpers, sizeof(*d->helpers));
    if (d->helpers == NULL) {
        free(d);
        return NULL;
    }
    (void)pthread_mutex_init(&d->lock, NULL); /* with default attributes it cannot fail */
    (void)pthread_cond_init(&d->idle, NULL);
    return d;
}

/* ---- one helper ---- */

/* No environment: keys stand in ours. Test builds hand the fail points on. */
static void helper_environment(char *text, size_t size, char **env)
{
    size_t n = 0;
#ifdef KILN_FAILPOINTS
    const char *points = getenv("KILN_FAILPOINTS");

    if (points != NULL && snprintf(text, size, "KILN_FAILPOINTS=%s", points) < (int)size)
        env[n++] = text;
#else
    (void)text;
    (void)size;
#endif
#ifdef __SANITIZE_ADDRESS__
    static char options[] = "ASAN_OPTIONS=allocator_may_return_null=1:max_allocation_size_mb=1024";

    env[n++] = options;
#endif
    env[n] = NULL;
}

static bool helper_start(struct helper *h, const char *program)
{
    char points[1024], *env[3], *argv[] = { strdup("kiln-decode"), strdup(DECODER_ARG), NULL };
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    int fds[2] = { -1, -1 }, rc = ENOMEM;

    helper_environment(points, sizeof(points), env);
    (void)posix_spawn_file_actions_init(&actions);
    (void)posix_spawnattr_init(&attributes);
    (void)sigemptyset(&none);
    (void)sigfillset(&all);
    (void)posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    (void)posix_spawnattr_setsigmask(&attributes, &none);
    (void)posix_spawnattr_setsigdefault(&attributes, &all);
    if (argv[0] != NULL && argv[1] != NULL && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) == 0 &&
        (fds[1] != DECODER_FD || fcntl(fds[1], F_SETFD, 0) == 0) && /* dup2 onto itself would leave the flag */
        posix_spawn_file_actions_adddup2(&actions, fds[1], DECODER_FD) == 0)
        rc = posix_spawn(&h->pid, program, &actions, &attributes, argv, env);
    (void)posix_spawn_file_actions_destroy(&actions);
    (void)posix_spawnattr_destroy(&attributes);
    free(argv[0]);
    free(argv[1]);
    if (fds[1] >= 0)
        (void)close(fds[1]);
    if (rc != 0) {
        if (fds[0] >= 0)
            (void)close(fds[0]);
        h->pid = 0;
        return false;
    }
    h->fd = fds[0];
    h->files = 0;
    return true;
}

/* Kills it if it lives; its wait status. */
static int helper_end(struct helper *h)
{
    int status = 0;

    (void)close(h->fd);
    (void)kill(h->pid, SIGKILL); /* a zombie is not hurt, and keeps how it really died */
    while (waitpid(h->pid, &status, 0) < 0 && errno == EINTR)
        ;
    h->pid = 0;
    return status;
}

static bool helper_ask(const struct helper *h, const struct decoder_question *question, int file)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = { { 0 } };
    struct iovec part = { .iov_base = (void *)(uintptr_t)question, .iov_len = sizeof(*question) };
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)
    };
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);

    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(head), &file, sizeof(int));
    return sendmsg(h->fd, &message, MSG_NOSIGNAL) == (ssize_t)sizeof(*question);
}

enum told { TOLD_ANSWER, TOLD_NOTHING, TOLD_DEATH };

static enum told helper_hear(const struct helper *h, int64_t until_ms, struct decoder_answer *answer)
{
    struct pollfd p = { .fd = h->fd, .events = POLLIN };

    for (;;) {
        int64_t left = until_ms - clock_mono_ms();
        int rc = poll(&p, 1, left > 0 ? (int)left : 0);

        if (rc < 0 && errno == EINTR)
            continue;
        if (rc <= 0)
            return rc == 0 ? TOLD_NOTHING : TOLD_DEATH;
        return recv(h->fd, answer, sizeof(*answer), 0) == (ssize_t)sizeof(*answer) ? TOLD_ANSWER : TOLD_DEATH;
    }
}

/* ---- a file ---- */

/* One that runs is better than one to be started. */
static struct helper *decoder_take(struct decoder *d)
{
    struct helper *found = NULL;

    (void)pthread_mutex_lock(&d->lock);
    while (found == NULL) {
        for (size_t i = 0; i < d->config.helpers; i++)
            if (!d->helpers[i].is_taken && (found == NULL || (found->pid == 0 && d->helpers[i].pid != 0)))
                found = &d->helpers[i];
        if (found == NULL)
            (void)pthread_cond_wait(&d->idle, &d->lock);
    }
    found->is_taken = true;
    (void)pthread_mutex_unlock(&d->lock);
    return found;
}

static void decoder_give(struct decoder *d, struct helper *h, const struct decoder_stats *more)
{
    (void)pthread_mutex_lock(&d->lock);
    h->is_taken = false;
    d->stats.checks += more->checks;
    d->stats.deaths += more->deaths;
    d->stats.timeouts += more->timeouts;
    (void)pthread_cond_signal(&d->idle);
    (void)pthread_mutex_unlock(&d->lock);
}

/* The helper is not believed: what is no hash of the right letters, no colour, is nothing. */
static void answer_look(const struct decoder_answer *a, struct media_look *out)
{
    static const char letters[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz#$%*+,-.:;=?@[]^_{|}~";
    struct media_look l = { .blurhash = "" };

    memcpy(l.blurhash, a->blurhash, sizeof(l.blurhash) - 1);
    memcpy(l.color, a->color, sizeof(l.color) - 1);
    if (strspn(l.blurhash, letters) != strlen(l.blurhash))
        l.blurhash[0] = '\0';
    if (l.color[0] != '#' || strlen(l.color) != 7 || strspn(l.color + 1, "0123456789abcdef") != 6)
        l.color[0] = '\0';
    *out = l;
}

static enum err answer_read(const struct decoder_answer *a, struct media_head *out, char *reason, size_t reason_size)
{
    enum err e = a->err >= 0 && a->err < ERR_COUNT ? (enum err)a->err : ERR_BAD_RESULT;

    if (out != NULL && (e == ERR_OK || e == ERR_BAD_RESULT))
        *out =
            (struct media_head){ .kind = a->kind > 0 && a->kind <= MEDIA_MP4 ? (enum media_kind)a->kind : MEDIA_UNKNOWN,
                                 .width = a->width,
                                 .height = a->height,
                                 .has_alpha = a->has_alpha != 0,
                                 .bytes_per_s = a->bytes_per_s,
                                 .sound_at = a->sound_at };
    if (e == ERR_NOMEM) { /* there would be no more of it the next time */
        (void)snprintf(reason, reason_size, "decoding it takes more memory than it may");
        return ERR_BAD_RESULT;
    }
    (void)snprintf(reason, reason_size, "%.*s", (int)strnlen(a->reason, sizeof(a->reason)), a->reason);
    return e;
}

static enum err decoder_ask(struct decoder *d, struct helper *h, int file, int64_t max_pixels,
                            struct decoder_answer *answer, struct decoder_stats *count, const char **why)
{
    struct decoder_question question = { .max_pixels = max_pixels,
                                         .cpu_s = d->config.cpu_s,
                                         .memory_bytes = d->config.memory_bytes };
    int idle_deaths = 0;

    for (;;) {
        enum told told;
        int status;

        if (h->pid == 0 && !helper_start(h, d->config.program)) {
            *why = "no process to decode it in could be started";
            return ERR_NOMEM;
        }
        question.deaths = (int64_t)count->deaths;
        if (!helper_ask(h, &question, file)) { /* it died before this file came */
            (void)helper_end(h);
            if (++idle_deaths < IDLE_DEATHS_MAX)
                continue;
            *why = "the process to decode it in does not live";
            return ERR_NOMEM;
        }
        told = helper_hear(h, clock_mono_ms() + d->config.limit_ms, answer);
        if (told == TOLD_ANSWER) {
            if (++h->files >= HELPER_FILES)
                (void)helper_end(h);
            return ERR_OK;
        }
        status = helper_end(h);
        if (told == TOLD_NOTHING || (WIFSIGNALED(status) && WTERMSIG(status) == SIGXCPU)) {
            count->timeouts++;
            *why = "decoding it takes too long";
            return ERR_BAD_RESULT;
        }
        if (++count->deaths >= DEATHS_MAX) {
            *why = "it crashes the decoder";
            return ERR_BAD_RESULT;
        }
    }
}

enum err decoder_check(struct decoder *d, const char *path, int64_t max_pixels, struct media_head *out,
                       struct media_look *look, char *reason, size_t reason_size)
{
    struct decoder_stats count = { .checks = 1 };
    struct decoder_answer answer;
    const char *why = NULL;
    struct helper *h;
    enum err e;
    int file = open(path, O_RDONLY | O_CLOEXEC);

    if (file < 0) {
        (void)snprintf(reason, reason_size, "the file cannot be opened");
        return ERR_STORAGE_ERROR;
    }
    h = decoder_take(d);
    e = decoder_ask(d, h, file, max_pixels, &answer, &count, &why);
    decoder_give(d, h, &count);
    (void)close(file); /* read only */
    if (look != NULL)
        *look = (struct media_look){ .blurhash = "" };
    if (e == ERR_OK && look != NULL)
        answer_look(&answer, look);
    if (e == ERR_OK)
        return answer_read(&answer, out, reason, reason_size);
    (void)snprintf(reason, reason_size, "%s", why);
    return e;
}

struct decoder_stats decoder_stats(struct decoder *d)
{
    struct decoder_stats stats;

    (void)pthread_mutex_lock(&d->lock);
    stats = d->stats;
    (void)pthread_mutex_unlock(&d->lock);
    return stats;
}

void decoder_free(struct decoder *d)
{
    if (d == NULL)
        return;
    for (size_t i = 0; i < d->config.helpers; i++)
        if (d->helpers[i].pid != 0)
            (void)helper_end(&d->helpers[i]);
    (void)pthread_mutex_destroy(&d->lock);
    (void)pthread_cond_destroy(&d->idle);
    free(d->helpers);
    free(d);
}
