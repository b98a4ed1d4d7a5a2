/* servers.c - Redis and PostgreSQL, by scripts/services: a thread and a queue for each. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/chaos/run/run.h"

enum { QUEUE_MAX = 256 };

struct server {
    struct event queue[QUEUE_MAX];
    size_t first, last; /* last - first are waiting or under way */
    bool is_over;
    pthread_mutex_t lock;
    pthread_cond_t news;
    pthread_t thread;
};
static struct server redis = { .lock = PTHREAD_MUTEX_INITIALIZER, .news = PTHREAD_COND_INITIALIZER };
static struct server postgres = { .lock = PTHREAD_MUTEX_INITIALIZER, .news = PTHREAD_COND_INITIALIZER };
static bool has_old;

static void service(const char *verb)
{
    char script[PATH_SIZE + 32];
    const char *const argv[] = { script, verb, "--dir", stage.services, NULL };

    (void)snprintf(script, sizeof(script), "%s/scripts/services", stage.source);
    (void)run_program(argv, true);
}

static void shell(const char *command)
{
    const char *const argv[] = { "/bin/sh", "-c", command, NULL };

    (void)run_program(argv, true);
}

static void keep_redis(void)
{
    char command[5 * PATH_SIZE];

    (void)snprintf(command, sizeof(command),
                   "rm -rf '%s/redis.old' && mkdir '%s/redis.old' && cp -a '%s/redis/appendonlydir' '%s/redis.old/'",
                   stage.dir, stage.dir, stage.services, stage.dir);
    shell(command);
    has_old = true;
}

static void old_redis(void)
{
    char command[5 * PATH_SIZE];

    if (!has_old)
        return;
    service("kill-redis");
    (void)snprintf(command, sizeof(command),
                   "rm -rf '%s/redis/appendonlydir' && cp -a '%s/redis.old/appendonlydir' '%s/redis/'", stage.services,
                   stage.dir, stage.services);
    shell(command);
    service("start-redis");
}

static void flush_redis(void)
{
    const char *const argv[] = { "redis-cli", "-s", stage.redis_socket, "flushall", NULL };

    (void)run_program(argv, true);
}

static void freeze_redis(int64_t for_ms)
{
    char path[PATH_SIZE + 32], *text;
    long pid;

    (void)snprintf(path, sizeof(path), "%s/redis/redis.pid", stage.services);
    text = read_file(path);
    pid = strtol(text, NULL, 10);
    free(text);
    if (pid <= 1 || kill((pid_t)pid, SIGSTOP) != 0)
        return;
    pause_ms(for_ms);
    (void)kill((pid_t)pid, SIGCONT);
}

static void clock_sql(int64_t shift_ms)
{
    char text[32], *done;

    (void)snprintf(text, sizeof(text), "%lld", (long long)shift_ms);
    done = sql_text("update clock_shift set shift = make_interval(secs => $1::float8 / 1000) returning shift", text);
    if (!done)
        broke("the database's clock could not be set");
    free(done);
}

static void bounce(const char *down, int64_t for_ms, const char *up)
{
    service(down);
    pause_ms(for_ms);
    service(up);
}

static void carry_out(const struct event *e)
{
    switch (e->deed) {
    case DEED_KILL_REDIS:
        bounce("kill-redis", e->for_ms, "start-redis");
        break;
    case DEED_STOP_REDIS:
        bounce("stop-redis", e->for_ms, "start-redis");
        break;
    case DEED_FREEZE_REDIS:
        freeze_redis(e->for_ms);
        break;
    case DEED_FLUSH_REDIS:
        flush_redis();
        break;
    case DEED_KEEP_REDIS:
        keep_redis();
        break;
    case DEED_OLD_REDIS:
        old_redis();
        break;
    case DEED_KILL_POSTGRES:
        bounce("kill-postgres", e->for_ms, "start-postgres");
        break;
    case DEED_STOP_POSTGRES:
        bounce("stop-postgres", e->for_ms, "start-postgres");
        break;
    case DEED_CLOCK_SQL:
        clock_sql(e->amount);
        break;
    default:
        break;
    }
}

static void *run(void *ctx)
{
    struct server *s = ctx;

    (void)pthread_mutex_lock(&s->lock);
    for (;;) {
        struct event e;

        while (s->first == s->last && !s->is_over)
            (void)pthread_cond_wait(&s->news, &s->lock);
        if (s->first == s->last)
            break;
        e = s->queue[s->first % QUEUE_MAX];
        (void)pthread_mutex_unlock(&s->lock);
        carry_out(&e);
        (void)pthread_mutex_lock(&s->lock);
        s->first++;
        (void)pthread_cond_broadcast(&s->news);
    }
    (void)pthread_mutex_unlock(&s->lock);
    return NULL;
}

void servers_open(void)
{
    if (pthread_create(&redis.thread, NULL, run, &redis) != 0 ||
        pthread_create(&postgres.thread, NULL, run, &postgres) != 0)
        abort();
}

void servers_do(const struct event *e)
{
    bool is_sql = e->deed == DEED_KILL_POSTGRES || e->deed == DEED_STOP_POSTGRES || e->deed == DEED_CLOCK_SQL;
    struct server *s = is_sql ? &postgres : &redis;

    (void)pthread_mutex_lock(&s->lock);
    if (s->last - s->first < QUEUE_MAX)
        s->queue[s->last++ % QUEUE_MAX] = *e;
    (void)pthread_cond_broadcast(&s->news);
    (void)pthread_mutex_unlock(&s->lock);
}

static void rest(struct server *s)
{
    (void)pthread_mutex_lock(&s->lock);
    while (s->first != s->last)
        (void)pthread_cond_wait(&s->news, &s->lock);
    (void)pthread_mutex_unlock(&s->lock);
}

void servers_rest(void)
{
    rest(&redis);
    rest(&postgres);
    service("start-redis");
    service("start-postgres");
}

static void close_one(struct server *s)
{
    (void)pthread_mutex_lock(&s->lock);
    s->is_over = true;
    (void)pthread_cond_broadcast(&s->news);
    (void)pthread_mutex_unlock(&s->lock);
    (void)pthread_join(s->thread, NULL);
}

void servers_close(void)
{
    close_one(&redis);
    close_one(&postgres);
}
