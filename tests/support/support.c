/* support.c - see support.h. Runs in two kinds of process: Criterion's parent, which starts and stops the servers, and
 * the tests, which find them by their environment. */
#include "tests/support/support.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <hiredis/hiredis.h>
#include <netinet/in.h>
#include <sodium.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "common/base/clock.h"
#include "common/base/embedded.h"
#include "common/base/text.h"
#include "common/io/db_inner.h"

enum { URL_MAX = 512, LOOK_MS = 10, LOOP_DONE_MS = 10000 };

static const char services[] = KILN_SOURCE_DIR "/scripts/services";
static const char template[] = "kiln_template";
extern char **environ;

static pid_t guard;
static int guard_pipe = -1;

static void give_up(const char *what)
{
    (void)fprintf(stderr, "support: %s\n", what);
    abort();
}

/* Runs a program to its end; its output goes to `out`, or to standard error. Exit code, -1 when it did not run. */
static int run(const char *const *argv, int out)
{
    posix_spawn_file_actions_t actions;
    pid_t pid;
    int status = -1;

    (void)posix_spawn_file_actions_init(&actions);
    (void)posix_spawn_file_actions_adddup2(&actions, out < 0 ? STDERR_FILENO : out, STDOUT_FILENO);
    int failed = posix_spawn(&pid, argv[0], &actions, NULL, (char *const *)argv, environ);
    (void)posix_spawn_file_actions_destroy(&actions);
    if (failed)
        return -1;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void set_environment(const char *dir)
{
    char line[URL_MAX];
    FILE *out = tmpfile();

    if (!out || run((const char *const[]){ services, "env", "--dir", dir, NULL }, fileno(out)) != 0)
        give_up("scripts/services env failed");
    rewind(out);
    while (fgets(line, sizeof line, out)) {
        char *value = strchr(line, '=');
        line[strcspn(line, "\n")] = '\0';
        if (!value)
            continue;
        *value = '\0';
        (void)setenv(line, value + 1, 1);
    }
    (void)fclose(out);
    if (!getenv("KILN_DATABASE_URL") || !getenv("KILN_REDIS_URL"))
        give_up("scripts/services env printed no URLs");
}

/* A process of its own that deletes the servers when this one is gone, however it goes: the pipe's end tells it. */
static void guard_start(const char *dir)
{
    int ends[2];

    if (pipe(ends) != 0)
        give_up("no pipe");
    (void)fcntl(ends[1], F_SETFD, FD_CLOEXEC);
    guard = fork();
    if (guard == 0) {
        (void)setsid(); /* a Ctrl-C is for the tests */
        (void)close(ends[1]);
        (void)dup2(ends[0], STDIN_FILENO);
        (void)execl("/bin/sh", "sh", "-c", "read -r nothing; \"$0\" remove --dir \"$1\"", services, dir, (char *)NULL);
        _exit(127);
    }
    (void)close(ends[0]);
    guard_pipe = ends[1];
}

/* The database's name stands between /// and ?. */
static char *url_of(const char *database)
{
    const char *base = getenv("KILN_DATABASE_URL");
    const char *from = base ? strstr(base, "///") : NULL, *to = from ? strchr(from, '?') : NULL;
    char url[URL_MAX];

    if (!to)
        give_up("no KILN_DATABASE_URL: is SUPPORT_SERVICES() missing?");
    (void)snprintf(url, sizeof url, "%.*s%s%s", (int)(from + 3 - base), base, database, to);
    return strdup(url);
}

static void template_make(void)
{
    char message[1024] = "", *url = url_of(template);

    free(support_sql(getenv("KILN_DATABASE_URL"), "create database kiln_template"));
    if (db_migrate_embedded(url, NULL, NULL, message, sizeof message) != ERR_OK)
        give_up(message);
    free(url);
}

static void services_stop(void)
{
    (void)close(guard_pipe);
    while (waitpid(guard, NULL, 0) < 0 && errno == EINTR)
        ;
}

void support_services_start(void)
{
    char dir[] = "/tmp/kiln-test.XXXXXX";

    if (!mkdtemp(dir))
        give_up("no folder for the servers");
    guard_start(dir);
    (void)atexit(services_stop);
    if (run((const char *const[]){ services, "start", "--fast", "--dir", dir, NULL }, -1) != 0)
        give_up("scripts/services start failed");
    (void)setenv("KILN_TEST_SERVICES", dir, 1);
    set_environment(dir);
    free(support_sql(getenv("KILN_DATABASE_URL"), "create sequence support_redis"));
    template_make();
}

void support_service(const char *verb)
{
    const char *dir = getenv("KILN_TEST_SERVICES");

    if (!dir || run((const char *const[]){ services, verb, "--fast", "--dir", dir, NULL }, -1) != 0)
        give_up("scripts/services failed");
}

/* --- databases --- */

static char *database(const char *from)
{
    static int serial;
    char name[64], sql[256];

    (void)snprintf(name, sizeof name, "test_%d_%d", (int)getpid(), ++serial);
    (void)snprintf(sql, sizeof sql, "create database %s template %s", name, from);
    free(support_sql(getenv("KILN_DATABASE_URL"), sql));
    return url_of(name);
}

char *support_database(void)
{
    return database(template);
}

char *support_database_empty(void)
{
    return database("template0");
}

char *support_redis(void)
{
    const char *base = getenv("KILN_REDIS_URL");
    char url[URL_MAX];

    if (!base || strncmp(base, "unix:", 5) != 0)
        give_up("no KILN_REDIS_URL: is SUPPORT_SERVICES() missing?");
    int number = (int)(support_sql_int(getenv("KILN_DATABASE_URL"), "select nextval('support_redis')") % 256);
    redisContext *redis = redisConnectUnix(base + 5);
    if (!redis || redis->err)
        give_up("Redis does not answer");
    freeReplyObject(redisCommand(redis, "SELECT %d", number));
    freeReplyObject(redisCommand(redis, "FLUSHDB"));
    redisFree(redis);
    (void)snprintf(url, sizeof url, "%s?db=%d", base, number);
    return strdup(url);
}

static void sql_on_result(void *ctx, const struct db_result *result)
{
    char **out = ctx;
    if (db_rows(result) > 0)
        *out = strdup(PQgetvalue(result->pg, 0, 0));
}

char *support_sql(const char *url, const char *sql)
{
    char message[1024] = "", *value = NULL;

    if (!url)
        give_up("no database: is SUPPORT_SERVICES() missing?");
    if (db_sync(url, sql, 0, NULL, sql_on_result, &value, message, sizeof message) != ERR_OK) {
        (void)fprintf(stderr, "support: %s\n", sql);
        give_up(message);
    }
    return value ? value : strdup("");
}

int64_t support_sql_int(const char *url, const char *sql)
{
    char *value = support_sql(url, sql);
    int64_t n = 0;

    if (parse_i64(value, INT64_MIN, INT64_MAX, &n) != ERR_OK)
        give_up("not a number");
    free(value);
    return n;
}

/* --- sanitizers --- */

void support_log_is_clean(const char *program, const char *log)
{
    static const char *const marks[] = { "Sanitizer", "runtime error:" };

    for (size_t i = 0; log && i < sizeof marks / sizeof marks[0]; i++) {
        const char *at = strstr(log, marks[i]);

        while (at && at > log && at[-1] != '\n')
            at--;
        cr_expect_null(at, "a sanitizer in %s's log:\n%.8000s", program, at);
    }
}

/* --- loops --- */

static void on_look(uv_timer_t *timer)
{
    (void)timer; /* only wakes the loop */
}

static void on_timer_closed(uv_handle_t *handle)
{
    *(bool *)handle->data = true;
}

bool support_run_until(uv_loop_t *loop, bool (*cond)(void *ctx), void *ctx, int limit_ms)
{
    uv_timer_t timer;
    bool is_closed = false, holds;
    int64_t end_us = clock_mono_us() + (int64_t)limit_ms * 1000;

    uv_timer_init(loop, &timer);
    uv_timer_start(&timer, on_look, LOOK_MS, LOOK_MS);
    timer.data = &is_closed;
    while (!(holds = cond(ctx)) && clock_mono_us() < end_us)
        uv_run(loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&timer, on_timer_closed);
    while (!is_closed)
        uv_run(loop, UV_RUN_NOWAIT);
    return holds;
}

struct count {
    const int *have;
    int want;
};

static bool count_holds(void *ctx)
{
    const struct count *c = ctx;
    return *c->have >= c->want;
}

bool support_run_count(uv_loop_t *loop, const int *count, int want, int limit_ms)
{
    return support_run_until(loop, count_holds, &(struct count){ count, want }, limit_ms);
}

void support_loop_done(uv_loop_t *loop)
{
    uv_timer_t timer;
    int64_t end_us = clock_mono_us() + (int64_t)LOOP_DONE_MS * 1000;
    bool is_alive, is_closed = false;

    uv_timer_init(loop, &timer);
    uv_timer_start(&timer, on_look, LOOK_MS, LOOK_MS);
    uv_unref((uv_handle_t *)&timer);
    timer.data = &is_closed;
    while ((is_alive = uv_loop_alive(loop) != 0) && clock_mono_us() < end_us)
        uv_run(loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&timer, on_timer_closed);
    while (!is_closed)
        uv_run(loop, UV_RUN_NOWAIT);
    cr_assert(!is_alive && uv_loop_close(loop) == 0, "a handle of the loop is still open");
}

/* --- ports -------------------------------------------------------------------------------------------------------- */

static bool port_binds(int port)
{
    struct sockaddr_in a = { .sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                             .sin_port = htons((uint16_t)port) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool binds = fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof a) == 0;

    if (fd >= 0)
        (void)close(fd);
    return binds;
}

/* Other test programs pick too: a lock on this port's byte of one file, held until this process ends, keeps them off.
 */
static bool port_locks(int port)
{
    static int locks = -1;
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = port, .l_len = 1 };
    char path[64];

    (void)snprintf(path, sizeof path, "/tmp/kiln-test-ports-%u", (unsigned)getuid());
    if (locks < 0)
        locks = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    return locks >= 0 && fcntl(locks, F_SETLK, &lock) == 0 && port_binds(port);
}

int support_port(void)
{
    enum { LOWEST = 10000, USUAL_OUTGOING = 32768 };
    FILE *file = fopen("/proc/sys/net/ipv4/ip_local_port_range", "r");
    int outgoing = USUAL_OUTGOING;
    unsigned pick;

    if (!file || fscanf(file, "%d", &outgoing) != 1 || outgoing < LOWEST + 1000)
        outgoing = USUAL_OUTGOING;
    if (file)
        (void)fclose(file);
    for (int i = 0; i < 1000; i++) {
        randombytes_buf(&pick, sizeof pick);
        int port = LOWEST + (int)(pick % (unsigned)(outgoing - LOWEST));
        if (port_locks(port))
            return port;
    }
    give_up("found no free port");
    return -1;
}
