/* redis_server.h - a Redis server of a test's own, on a unix socket, so that it can be killed, emptied and counted.
 *
 * It dies with the test's process (PR_SET_PDEATHSIG), whatever happens to that. */
#ifndef KILN_TEST_REDIS_SERVER_H
#define KILN_TEST_REDIS_SERVER_H
#include <criterion/criterion.h>
#include <hiredis/hiredis.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct server {
    char dir[32], path[64], url[80];
    pid_t pid;
    redisContext *admin; /* blocking */
};

static inline void server_start(struct server *s, const char *password)
{
    if (!s->dir[0]) {
        (void)snprintf(s->dir, sizeof(s->dir), "/tmp/kiln-redis.XXXXXX");
        cr_assert_not_null(mkdtemp(s->dir));
        (void)snprintf(s->path, sizeof(s->path), "%s/redis.sock", s->dir);
        (void)snprintf(s->url, sizeof(s->url), "unix:%s", s->path);
    }
    s->pid = fork();
    cr_assert_geq(s->pid, 0);
    if (s->pid == 0) {
        char log[64];
        (void)snprintf(log, sizeof(log), "%s/log", s->dir);
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        execlp("redis-server", "redis-server", "--port", "0", "--unixsocket", s->path, "--dir", s->dir, "--logfile",
               log, "--save", "", "--appendonly", "no", "--requirepass", password ? password : "", (char *)NULL);
        _exit(127);
    }
    for (int i = 0; i < 1000; i++) { /* blocking: nothing else runs yet */
        s->admin = redisConnectUnix(s->path);
        if (s->admin && !s->admin->err)
            break;
        redisFree(s->admin);
        s->admin = NULL;
        (void)nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
    }
    cr_assert_not_null(s->admin, "redis-server did not start");
    if (password)
        freeReplyObject(redisCommand(s->admin, "AUTH %s", password));
}

static inline void server_kill(struct server *s)
{
    redisFree(s->admin);
    s->admin = NULL;
    (void)kill(s->pid, SIGKILL);
    (void)waitpid(s->pid, NULL, 0);
    (void)unlink(s->path);
    s->pid = 0;
}

static inline void server_stop(struct server *s)
{
    char log[64];
    if (s->pid)
        server_kill(s);
    (void)snprintf(log, sizeof(log), "%.31s/log", s->dir);
    (void)unlink(log);
    (void)rmdir(s->dir);
}

/* Runs a command, blocking; returns its integer, or the length of its array or text. */
static inline long long server_do(struct server *s, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    redisReply *r = redisvCommand(s->admin, format, ap);
    va_end(ap);
    cr_assert_not_null(r, "%s", s->admin->errstr);
    cr_assert_neq(r->type, REDIS_REPLY_ERROR, "%s", r->str);
    long long n = r->type == REDIS_REPLY_INTEGER ? r->integer
                  : r->type == REDIS_REPLY_ARRAY ? (long long)r->elements
                                                 : (long long)r->len;
    freeReplyObject(r);
    return n;
}

static inline long long server_commands(struct server *s) /* processed so far, as INFO counts */
{
    redisReply *r = redisCommand(s->admin, "INFO stats");
    cr_assert(r && r->str);
    const char *found = strstr(r->str, "total_commands_processed:");
    long long n = found ? atoll(found + strlen("total_commands_processed:")) : -1;
    freeReplyObject(r);
    return n;
}
#endif
