/* watch.c - a table of waiters by job; wakes become gathered reads, safety looks a question for versions (moved.h). */
#include "dispatcher/watch.h"
#include <stdlib.h>
#include <string.h>
#include "common/base/clock.h"
#include "common/core/job.h"
#include "dispatcher/moved.h"

enum {
    WATCH_BUCKETS = 4096,
    WATCH_TICK_MS = 25,
    WATCH_SLICES = 4, /* a slice of the buckets at each tick */
    PARK_MS = 1000,   /* who is answered sooner keeps its connection */
};

struct waiter {
    struct waiter *next;
    struct watch *watch;
    struct request *request;
    char job[UUID_TEXT], app[UUID_TEXT];
    int64_t version, until_ms, read_ms; /* read_ms: when the next safety look is due */
    int64_t seen;                       /* the version read last; 0: none yet */
    int64_t park_ms;                    /* when its connection parks; 0: has */
    bool is_reading, is_woken;          /* woken while being read: look once more */
    jobs_read_fn *fn;                   /* one of the two: what they want of the job */
    job_look_fn *look;
    void *ctx;
};

struct watch {
    uv_timer_t timer;
    struct jobs *jobs;
    struct moved *moved;
    size_t count, ticks;
    bool is_releasing;
    struct waiter *buckets[WATCH_BUCKETS];
    void (*on_closed)(void *ctx);
    void *closed_ctx;
};

/* UUIDv7s differ at their end. */
static size_t bucket_of(const char *job)
{
    size_t h = 5381;

    for (const char *p = job; *p != '\0'; p++)
        h = h * 33 + (unsigned char)*p;
    return h % WATCH_BUCKETS;
}

/* Up to a quarter sooner, each job by its own: thousands who came together do not all look in the same tick. */
static int64_t look_again(const struct waiter *w, int64_t now)
{
    return now + WATCH_REREAD_MS - (int64_t)(bucket_of(w->job) % (WATCH_REREAD_MS / 4));
}

static void waiter_unlink(struct waiter *w)
{
    struct waiter **link = &w->watch->buckets[bucket_of(w->job)];

    while (*link != w)
        link = &(*link)->next;
    *link = w->next;
    w->watch->count--;
}

static void waiter_read(struct waiter *w);

/* Read. state NULL: there is no such job, or it could not be read. True: that is the end of waiting, and w is out of
 * the table, its caller's to tell and to free. */
static bool waiter_sees(struct waiter *w, enum err err, const char *state, int64_t version)
{
    int64_t now = clock_mono_ms();
    bool is_over = now >= w->until_ms || w->watch->is_releasing;

    w->is_reading = false;
    if (state != NULL) {
        w->seen = version;
        is_over = is_over || job_state_is_final(state) || (w->version > 0 && version != w->version);
    } else if (err == ERR_OK || err == ERR_CLOSED) {
        is_over = true; /* no such job: waiting will not make one */
    }
    if (is_over) {
        waiter_unlink(w);
        return true;
    }
    w->read_ms = look_again(w, now);
    if (w->is_woken)
        waiter_read(w);
    return false;
}

static void waiter_on_read(void *ctx, enum err err, json_t *doc)
{
    struct waiter *w = ctx;
    const char *state = doc != NULL ? json_text(doc, "state") : NULL;
    int64_t version = 0;

    if (doc != NULL)
        (void)json_int(doc, "version", &version);
    if (!waiter_sees(w, err, state, version))
        return;
    w->fn(w->ctx, err, doc);
    free(w);
}

static void waiter_on_look(void *ctx, enum err err, const struct job_seen *seen)
{
    struct waiter *w = ctx;

    if (!waiter_sees(w, err, seen != NULL ? seen->state : NULL, seen != NULL ? seen->version : 0))
        return;
    w->look(w->ctx, err, seen);
    free(w);
}

static void waiter_read(struct waiter *w)
{
    enum err e;

    w->is_woken = false;
    w->is_reading = true;
    e = w->look != NULL ? jobs_look(w->watch->jobs, w->job, w->app, waiter_on_look, w)
                        : jobs_read(w->watch->jobs, w->job, w->app, waiter_on_read, w);
    if (e != ERR_OK) {
        w->is_reading = false;
        w->read_ms = look_again(w, clock_mono_ms());
    }
}

static void watch_on_moved(void *ctx, const char *job)
{
    struct watch *w = ctx;

    for (struct waiter *one = w->buckets[bucket_of(job)]; one != NULL; one = one->next) {
        if (strcmp(one->job, job) == 0 && !one->is_reading)
            waiter_read(one);
    }
}

/* The whole job where its end may be due, else only whether it has moved. */
static void waiter_tick(struct waiter *w, int64_t now)
{
    if (w->park_ms > 0 && now >= w->park_ms) {
        w->park_ms = 0;
        request_park(w->request);
    }
    if (w->is_reading)
        return;
    if (now >= w->until_ms || w->watch->is_releasing)
        waiter_read(w);
    else if (now >= w->read_ms && moved_add(w->watch->moved, w->job, w->seen))
        w->read_ms = look_again(w, now);
}

static void watch_on_timer(uv_timer_t *t)
{
    struct watch *w = container_of(t, struct watch, timer);
    int64_t now = clock_mono_ms();
    size_t step = w->is_releasing ? 1 : WATCH_SLICES;

    if (w->count == 0)
        return;
    for (size_t i = w->is_releasing ? 0 : w->ticks++ % WATCH_SLICES; i < WATCH_BUCKETS; i += step) {
        for (struct waiter *one = w->buckets[i]; one != NULL; one = one->next)
            waiter_tick(one, now);
    }
    moved_ask(w->moved);
}

struct watch *watch_new(uv_loop_t *loop, struct jobs *jobs, struct db *read)
{
    struct watch *w = calloc(1, sizeof(*w));

    if (w == NULL || (w->moved = moved_new(read, watch_on_moved, w)) == NULL) {
        free(w);
        return NULL;
    }
    w->jobs = jobs;
    uv_timer_init(loop, &w->timer);
    uv_timer_start(&w->timer, watch_on_timer, WATCH_TICK_MS, WATCH_TICK_MS);
    return w;
}

static void watch_on_closed(uv_handle_t *handle)
{
    struct watch *w = container_of((uv_timer_t *)handle, struct watch, timer);

    if (w->on_closed != NULL)
        w->on_closed(w->closed_ctx);
    free(w);
}

void watch_close(struct watch *w, void (*on_closed)(void *ctx), void *ctx)
{
    w->on_closed = on_closed;
    w->closed_ctx = ctx;
    moved_free(w->moved);
    uv_close((uv_handle_t *)&w->timer, watch_on_closed);
}

static struct waiter *waiter_new(struct watch *w, struct request *r, const char *job, int64_t version, int64_t wait_ms)
{
    struct waiter *one = calloc(1, sizeof(*one));
    size_t b;

    if (one == NULL)
        return NULL;
    one->watch = w;
    (void)uuid_lower(one->job, job);
    (void)uuid_lower(one->app, r->app);
    one->request = r;
    one->park_ms = clock_mono_ms() + PARK_MS;
    one->version = version;
    one->until_ms = clock_mono_ms() + wait_ms;
    one->read_ms = look_again(one, clock_mono_ms());
    b = bucket_of(one->job);
    one->next = w->buckets[b];
    w->buckets[b] = one;
    w->count++;
    return one;
}

enum err watch_wait(struct watch *w, struct request *r, const char *job, int64_t version, int64_t wait_ms,
                    bool read_now, jobs_read_fn *fn, void *ctx)
{
    struct waiter *one = waiter_new(w, r, job, version, wait_ms);

    if (one == NULL)
        return ERR_NOMEM;
    one->fn = fn;
    one->ctx = ctx;
    if (read_now)
        waiter_read(one);
    return ERR_OK;
}

enum err watch_look(struct watch *w, struct request *r, const char *job, int64_t version, int64_t wait_ms,
                    job_look_fn *fn, void *ctx)
{
    struct waiter *one = waiter_new(w, r, job, version, wait_ms);

    if (one == NULL)
        return ERR_NOMEM;
    one->look = fn;
    one->ctx = ctx;
    waiter_read(one);
    return ERR_OK;
}

void watch_event(struct watch *w, const char *job, const char *state)
{
    int64_t now = clock_mono_ms();

    if (w->count == 0)
        return;
    for (struct waiter *one = w->buckets[bucket_of(job)]; one != NULL; one = one->next) {
        if (strcmp(one->job, job) != 0)
            continue;
        if (state == NULL && (one->version == 0 || one->read_ms - look_again(one, 0) + 1000 > now))
            continue; /* progress changes no version, but tells that the job is running: at most one look a second */
        if (one->is_reading)
            one->is_woken = true;
        else
            waiter_read(one);
    }
}

void watch_release(struct watch *w)
{
    w->is_releasing = true;
    watch_on_timer(&w->timer);
}

size_t watch_count(const struct watch *w)
{
    return w->count;
}
