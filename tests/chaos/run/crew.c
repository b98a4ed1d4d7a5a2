/* crew.c - kiln's processes. One thread looks after them: who is down and due is started, who ended is asked why. An
 * end that neither we nor a fail point brought about is a finding, unless it was a start that found its servers away.
 *
 * Redis and PostgreSQL have a thread and a queue each: what is asked of one happens in order, beside the rest. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "tests/chaos/run/run.h"

enum { LOOK_MS = 50, START_GRACE_MS = 60000, EARLY_MS = 2000, DRAIN_LIMIT_MS = 45000, AGAIN_MS = 700 };

struct member {
    char name[24];
    pid_t pid;
    int port;
    int64_t started_ms, up_at_ms, thaw_at_ms, drain_until_ms;
    bool is_expected; /* its end is our doing */
    bool was_ready;
    char failpoint[96]; /* of the process that runs, or of the next one */
};
static struct member crew[CREW_MAX];
static int crew_count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_t thread;
static bool is_over, is_gone, is_starved; /* over: nobody is started any more; gone: nobody is left */
static struct crew_figures figures;

void crew_name(int who, char *out, size_t size)
{
    (void)snprintf(out, size, "%s", crew[who].name);
}

int crew_port(int dispatcher)
{
    return crew[dispatcher].port;
}

/* --- starting ----------------------------------------------------------------------------------------------------- */

enum { VARS = 24, VAR_BYTES = 768 };
struct vars {
    char text[VARS][VAR_BYTES];
    char *list[VARS + 1];
    int count;
};

static void set(struct vars *v, const char *name, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void set(struct vars *v, const char *name, const char *format, ...)
{
    char *text = v->text[v->count];
    int n = snprintf(text, VAR_BYTES, "%s=", name);
    va_list args;

    va_start(args, format);
    (void)vsnprintf(text + n, (size_t)(VAR_BYTES - n), format, args);
    va_end(args);
    v->list[v->count++] = text;
}

static void environment(struct vars *v, int who)
{
    const struct member *m = &crew[who];
    char folder[128];

    v->count = 0;
    memset(v->list, 0, sizeof(v->list));
    proxy_folder(who, folder, sizeof(folder));
    set(v, "PATH", "/usr/bin:/bin");
    set(v, "ASAN_OPTIONS", "detect_leaks=1");
    set(v, "KILN_DATABASE_URL", "postgresql:///kiln?host=%s&port=25432&user=kiln", folder);
    set(v, "KILN_REDIS_URL", "unix:%s/redis.sock", folder);
    set(v, "KILN_STORAGE", "file:%s", stage.storage);
    set(v, "KILN_CATALOG", "%s/catalog", stage.dir);
    set(v, "OPENAI_API_KEY", "sk-chaos");
    set(v, "STABILITY_API_KEY", "sk-chaos");
    set(v, "LEONARDO_API_KEY", "3f0c2a9e-5b1d-4e77-9a40-1c2d3e4f5a6b");
    set(v, "OPENAI_BASE_URL", "http://127.0.0.1:%d/openai/v1", proxy_port(who));
    set(v, "STABILITY_BASE_URL", "http://127.0.0.1:%d/stability", proxy_port(who));
    set(v, "LEONARDO_BASE_URL", "http://127.0.0.1:%d/leonardo/api/rest/v1", proxy_port(who));
    set(v, "KILN_FAILPOINTS", "clock=%s/%s.clock%s%s", stage.dir, m->name, m->failpoint[0] ? "," : "", m->failpoint);
    if (who < stage.dispatchers) {
        set(v, "KILN_LISTEN", "127.0.0.1:%d", m->port);
        set(v, "KILN_SIGNING_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
    } else {
        set(v, "KILN_WORKER_LISTEN", "127.0.0.1:%d", m->port);
        set(v, "KILN_ALLOW_PRIVATE_ADDRESSES", "true");
    }
}

static void start(int who)
{
    struct member *m = &crew[who];
    struct vars v;
    char path[PATH_SIZE + 64], log[PATH_SIZE + 64];
    pid_t pid;

    environment(&v, who);
    (void)snprintf(path, sizeof(path), "%s/%s", stage.build,
                   who < stage.dispatchers ? "dispatcher/kiln-dispatcher" : "worker/kiln-worker");
    (void)snprintf(log, sizeof(log), "%s/log/%s.log", stage.dir, m->name);
    pid = fork();
    if (pid < 0)
        abort();
    if (pid == 0) {
        char *const argv[] = { path, NULL };
        int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);

        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)signal(SIGXFSZ, SIG_IGN); /* a full disk says no, it does not kill */
        (void)dup2(fd, 1);
        (void)dup2(fd, 2);
        (void)execve(path, argv, v.list);
        _exit(127);
    }
    m->pid = pid;
    m->started_ms = now_ms();
    m->is_expected = m->was_ready = false;
    m->thaw_at_ms = m->drain_until_ms = 0;
    figures.starts++;
}

/* --- looking after ------------------------------------------------------------------------------------------------ */

/* Who was started while its servers were away may give up and is started again. */
static bool could_not_start(const struct member *m, int status)
{
    return WIFEXITED(status) && WEXITSTATUS(status) == 1 && now_ms() - m->started_ms < START_GRACE_MS && !m->was_ready;
}

/* Who is drained before it listens for that is ended by the kernel, as a deployment would end it; seen 0.4 s after a
 * start. */
static bool was_not_there_yet(const struct member *m, int status)
{
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM && m->drain_until_ms > 0 &&
           m->drain_until_ms - DRAIN_LIMIT_MS - m->started_ms < EARLY_MS;
}

static void bury(int who, int status)
{
    struct member *m = &crew[who];
    bool is_killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL,
         is_clean = WIFEXITED(status) && !WEXITSTATUS(status);

    m->pid = 0;
    if (m->up_at_ms < now_ms())
        m->up_at_ms = now_ms();
    if (m->is_expected && (is_killed || is_clean || was_not_there_yet(m, status))) {
        m->failpoint[0] = '\0';
        return;
    }
    if (is_killed && m->failpoint[0]) {
        figures.failpoints++;
        m->failpoint[0] = '\0';
        return;
    }
    m->failpoint[0] = '\0';
    if (could_not_start(m, status)) {
        figures.own_ends++;
        m->up_at_ms = now_ms() + AGAIN_MS;
        return;
    }
    broke("%s ended by itself, %s %d; see %s/log/%s.log", m->name, WIFEXITED(status) ? "status" : "signal",
          WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status), stage.dir, m->name);
}

static bool answers(struct talk *t, const struct member *m, const char *path)
{
    char url[96];
    struct answer a;
    bool is_good;

    (void)snprintf(url, sizeof(url), "http://127.0.0.1:%d%s", m->port, path);
    a = talk_ask(t, "GET", url, NULL, NULL, 1000);
    is_good = a.status == 200;
    answer_done(&a);
    return is_good;
}

static void look(int who)
{
    struct member *m = &crew[who];
    int64_t now = now_ms();
    int status;

    if (m->pid && waitpid(m->pid, &status, WNOHANG) == m->pid)
        bury(who, status);
    if (m->pid && m->thaw_at_ms && now >= m->thaw_at_ms) {
        m->thaw_at_ms = 0;
        (void)kill(m->pid, SIGCONT);
    }
    if (m->pid && m->drain_until_ms && now >= m->drain_until_ms) {
        m->drain_until_ms = 0;
        say("%s drains for longer than %d s and is killed", m->name, DRAIN_LIMIT_MS / 1000);
        (void)kill(m->pid, SIGKILL);
    }
    if (!m->pid && !is_over && now >= m->up_at_ms) {
        start(who);
        if (is_starved && who >= stage.dispatchers)
            (void)prlimit(m->pid, RLIMIT_FSIZE, &(struct rlimit){ 0, RLIM_INFINITY }, NULL);
    }
}

static void *look_after(void *ctx)
{
    (void)ctx;
    for (bool go_on = true; go_on;) {
        (void)pthread_mutex_lock(&lock);
        for (int who = 0; who < crew_count && !is_over; who++)
            look(who);
        go_on = !is_gone; /* while this thread lives, so do its children (PR_SET_PDEATHSIG) */
        (void)pthread_mutex_unlock(&lock);
        pause_ms(LOOK_MS);
    }
    return NULL;
}

/* A port below those that the kernel gives to outgoing connections. */
static int free_port(struct chance *c)
{
    for (int tries = 0; tries < 1000; tries++) {
        struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        int port = (int)chance_between(c, 12000, 29999), fd = socket(AF_INET, SOCK_STREAM, 0);
        bool is_free;

        at.sin_port = htons((uint16_t)port);
        is_free = bind(fd, (struct sockaddr *)&at, sizeof(at)) == 0;
        (void)close(fd);
        if (is_free)
            return port;
    }
    abort();
}

void crew_open(void)
{
    struct chance c = { (uint64_t)getpid() * 7919 + (uint64_t)now_ms() };

    crew_count = stage.dispatchers + stage.workers;
    for (int who = 0; who < crew_count; who++) {
        struct member *m = &crew[who];
        bool is_worker = who >= stage.dispatchers;

        (void)snprintf(m->name, sizeof(m->name), "%s%d", is_worker ? "worker" : "dispatcher",
                       is_worker ? who - stage.dispatchers : who);
        m->port = free_port(&c);
    }
    if (pthread_create(&thread, NULL, look_after, NULL) != 0)
        abort();
}

/* --- what is done to them ----------------------------------------------------------------------------------------- */

static struct member *hold(int who)
{
    (void)pthread_mutex_lock(&lock);
    return &crew[who];
}

static void let_go(void)
{
    (void)pthread_mutex_unlock(&lock);
}

void crew_kill(int who, int64_t down_ms)
{
    struct member *m = hold(who);

    m->up_at_ms = now_ms() + down_ms;
    if (m->pid) {
        m->is_expected = true;
        (void)kill(m->pid, SIGKILL);
        figures.kills++;
    }
    let_go();
}

void crew_drain(int who, int64_t down_ms)
{
    struct member *m = hold(who);

    m->up_at_ms = now_ms() + down_ms;
    if (m->pid && !m->drain_until_ms) {
        m->is_expected = true;
        m->thaw_at_ms = 0;
        m->drain_until_ms = now_ms() + DRAIN_LIMIT_MS;
        (void)kill(m->pid, SIGCONT);
        (void)kill(m->pid, SIGTERM);
        figures.drains++;
    }
    let_go();
}

void crew_freeze(int who, int64_t for_ms)
{
    struct member *m = hold(who);

    if (m->pid && !m->drain_until_ms) {
        m->thaw_at_ms = now_ms() + for_ms;
        (void)kill(m->pid, SIGSTOP);
        figures.freezes++;
    }
    let_go();
}

void crew_failpoint(int who, const char *point)
{
    struct member *m = hold(who);

    m->up_at_ms = now_ms();
    if (m->pid) {
        m->is_expected = true;
        (void)kill(m->pid, SIGKILL);
        figures.kills++;
    }
    for (int i = 0; m->pid && i < 100; i++) { /* its end is ours to see: the point is for the next one */
        int status;

        if (waitpid(m->pid, &status, WNOHANG) == m->pid)
            bury(who, status);
        else
            pause_ms(10);
    }
    (void)snprintf(m->failpoint, sizeof(m->failpoint), "%s", point);
    let_go();
}

void crew_clock(int who, int64_t shift_ms)
{
    char path[PATH_SIZE + 64], text[32];

    (void)snprintf(path, sizeof(path), "%s/%s.clock", stage.dir, crew[who].name);
    (void)snprintf(text, sizeof(text), "%lld\n", (long long)shift_ms);
    (void)write_file(path, text);
}

void crew_starve(bool is_on)
{
    struct rlimit limit = { is_on ? 0 : RLIM_INFINITY, RLIM_INFINITY };

    (void)hold(0);
    is_starved = is_on;
    for (int who = stage.dispatchers; who < crew_count; who++)
        if (crew[who].pid)
            (void)prlimit(crew[who].pid, RLIMIT_FSIZE, &limit, NULL);
    let_go();
}

void crew_heal(void)
{
    for (int who = 0; who < crew_count; who++) {
        struct member *m = hold(who);

        if (m->pid && m->thaw_at_ms)
            (void)kill(m->pid, SIGCONT);
        m->thaw_at_ms = 0;
        m->up_at_ms = 0;
        if (m->pid && m->failpoint[0]) { /* one that has not acted would act later */
            m->is_expected = true;
            (void)kill(m->pid, SIGKILL);
        }
        let_go();
    }
}

bool crew_ready(int64_t limit_ms)
{
    struct talk *t = talk_new();
    int64_t until = now_ms() + limit_ms;
    int ready = 0;

    do {
        ready = 0;
        for (int who = 0; who < crew_count; who++) {
            if (!answers(t, &crew[who], "/readyz"))
                break;
            (void)hold(who);
            crew[who].was_ready = true;
            let_go();
            ready++;
        }
    } while (ready < crew_count && now_ms() < until && (pause_ms(100), true));
    if (ready < crew_count)
        broke("%s is not ready within %lld s", crew[ready].name, (long long)limit_ms / 1000);
    talk_free(t);
    return ready == crew_count;
}

void crew_close(void)
{
    int64_t until = now_ms() + DRAIN_LIMIT_MS;

    (void)hold(0);
    is_over = true;
    let_go();
    for (int who = crew_count - 1; who >= 0; who--)
        if (crew[who].pid)
            (void)kill(crew[who].pid, SIGTERM);
    for (int who = crew_count - 1; who >= 0; who--) {
        struct member *m = &crew[who];
        int status = 0;

        while (m->pid && waitpid(m->pid, &status, WNOHANG) == 0 && now_ms() < until)
            pause_ms(20);
        if (!m->pid)
            continue;
        if (now_ms() >= until) {
            broke("%s does not end when it is told to", m->name);
            (void)kill(m->pid, SIGKILL);
            (void)waitpid(m->pid, &status, 0);
        } else if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
            broke("%s, told to end, ended with %s %d", m->name, WIFEXITED(status) ? "status" : "signal",
                  WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
        }
        m->pid = 0;
    }
    (void)hold(0);
    is_gone = true;
    let_go();
    (void)pthread_join(thread, NULL);
}

void crew_kill_all(void)
{
    for (int who = 0; who < crew_count; who++)
        if (crew[who].pid)
            (void)kill(crew[who].pid, SIGKILL);
}

struct crew_figures crew_figures(void)
{
    return figures;
}
