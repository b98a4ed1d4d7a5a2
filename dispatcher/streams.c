/* streams.c - see streams.h. Streams of jobs lie in buckets by job, those of apps with their app's hub; a hub asks
 * PostgreSQL once for all of its streams. */
#include "dispatcher/streams.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/clock.h"
#include "common/base/json.h"
#include "common/base/log.h"
#include "common/core/job.h"
#include "dispatcher/dispatcher.h"
#include "dispatcher/jobs.h"
#include "dispatcher/moved.h"
#include "dispatcher/problem.h"

enum {
    BUCKETS = 4096,
    ASK_MS = 50,    /* whether jobs have moved is asked so often, for those that an event hints at too, */
    SLICES = 20,    /* and a part of the streams looked over: all at once would take the loop ten milliseconds */
    HUB_SLICES = 5, /* those of apps more often: they catch up by it */
    BEAT_MS = 15000,
    REREAD_MS = 5000,
    LOOK_MS = 2000,        /* a hub looks at least so often, for ends whose event was lost */
    LOOK_GAP_MS = 20,      /* and at most */
    OVERLAP_US = 10000000, /* looked back at on resuming and now and then: who commits late is seen all the same */
    NEAR_US = 1000000,     /* … and when an event says that there is something */
    PAGE = 200,
    RECENT = 1 << 14, /* ids a hub has shown lately; a clash forgets the older: it may be shown twice */
    PATIENCE_MS = 5000,
};

struct stream {
    struct stream *next;
    struct streams *streams;
    struct request *request; /* NULL: gone */
    struct hub *hub;         /* NULL: of a job */
    char job[UUID_TEXT], app[UUID_TEXT];
    int64_t version;          /* of a job: shown last */
    int64_t read_ms, beat_ms; /* when last */
    int64_t cursor_us;        /* of an app, catching up: from here */
    char cursor_id[UUID_TEXT];
    bool is_reading, is_again, is_open;
    enum { LIVE, CATCHING_UP, SEAM } phase; /* of an app */
};

struct hub { /* of an app with open streams */
    struct hub *next;
    struct streams *streams;
    char app[UUID_TEXT];
    struct stream *list;
    int64_t last_us, asked_ms, looked_far_ms;
    int64_t cursor_us; /* of the look under way, with */
    char cursor_id[UUID_TEXT];
    bool is_asking, is_due;
    char (*recent)[UUID_TEXT];
};

struct streams {
    struct dispatcher *d;
    uv_timer_t timer, soon;
    struct moved *moved;
    unsigned ticks;
    size_t count;
    bool is_releasing;
    struct stream *buckets[BUCKETS];
    struct hub *hubs;
    void (*on_closed)(void *ctx);
    void *closed_ctx;
    int handles;
};

static size_t hash_of(const char *id)
{
    size_t h = 5381;

    for (const char *p = id; *p != '\0'; p++)
        h = h * 33 + (unsigned char)*p;
    return h;
}

/* ---- what goes out */

static bool stream_say(struct stream *s, const char *text, size_t len)
{
    static const char last[] = "event: dropped\ndata: {\"reason\":\"slow\"}\n\n";

    if (s->request == NULL || !s->is_open)
        return false;
    s->beat_ms = clock_mono_ms();
    if (s->request->stream.len - s->request->stream_at + len + sizeof(last) <= HTTPD_STREAM_BYTES)
        return request_stream_write(s->request, text, len);
    (void)request_stream_write(s->request, last, sizeof(last) - 1);
    request_stream_end(s->request);
    return false;
}

static void stream_event(struct stream *s, const char *event, const char *id, const char *data)
{
    struct buf b = { 0 };

    if (id != NULL)
        (void)buf_printf(&b, "id: %s\n", id);
    (void)buf_printf(&b, "event: %s\ndata: ", event);
    (void)buf_str(&b, data);
    if (buf_str(&b, "\n\n"))
        (void)stream_say(s, b.data, b.len);
    buf_done(&b);
}

static void stream_begin(struct stream *s)
{
    static const char hello[] = "retry: 2000\n\n";

    request_add_header(s->request, "Cache-Control", "private, no-store");
    request_add_header(s->request, "X-Accel-Buffering", "no");
    s->is_open = true;
    request_stream(s->request);
    (void)stream_say(s, hello, sizeof(hello) - 1);
    if (s->streams->is_releasing)
        request_stream_end(s->request);
}

/* ---- coming and going */

static void hub_leave(struct hub *h, const struct stream *s)
{
    struct hub **link = &h->streams->hubs;

    for (struct stream **one = &h->list; *one != NULL; one = &(*one)->next) {
        if (*one == s) {
            *one = s->next;
            break;
        }
    }
    if (h->list != NULL || h->is_asking)
        return;
    while (*link != h)
        link = &(*link)->next;
    *link = h->next;
    free(h->recent);
    free(h);
}

static void stream_leave(struct stream *s)
{
    struct stream **link = &s->streams->buckets[hash_of(s->job) % BUCKETS];

    if (s->hub != NULL) {
        hub_leave(s->hub, s);
    } else {
        while (*link != NULL && *link != s)
            link = &(*link)->next;
        if (*link == s)
            *link = s->next;
    }
    s->streams->count--;
    if (!s->is_reading)
        free(s);
}

static void stream_on_over(struct request *r)
{
    struct stream *s = r->data;

    s->request = NULL;
    stream_leave(s);
}

static struct stream *stream_new(struct request *r)
{
    struct dispatcher *d = dispatcher_of(r);
    struct stream *s = calloc(1, sizeof(*s));

    if (s == NULL)
        return NULL;
    s->streams = d->streams;
    s->request = r;
    (void)uuid_lower(s->app, r->app);
    s->beat_ms = s->read_ms = clock_mono_ms();
    s->streams->count++;
    r->data = s;
    r->on_over = stream_on_over;
    return s;
}

/* ---- of a job */

static void job_read(struct stream *s);

static void job_on_seen(void *ctx, enum err err, const struct job_seen *seen)
{
    struct stream *s = ctx;
    bool is_final = seen != NULL && job_state_is_final(seen->state);
    int64_t version = seen != NULL ? seen->version : 0;
    struct buf text = { 0 };
    char id[24];

    s->is_reading = false;
    if (s->request == NULL) {
        free(s);
        return;
    }
    if (!s->is_open && (err != ERR_OK || seen == NULL)) {
        if (err != ERR_OK)
            problem_backend(s->request, err);
        else
            problem_reply(s->request, ERR_NOT_FOUND, "no such job");
        return;
    }
    if (!s->is_open && is_final && version <= s->version) {
        request_reply(s->request, 204, NULL, NULL); /* seen to its end: do not come back */
        return;
    }
    if (!s->is_open)
        stream_begin(s);
    if (seen != NULL && version > s->version) {
        snprintf(id, sizeof(id), "%lld", (long long)version);
        if (job_seen_text(s->request, seen, &text, NULL)) {
            s->version = version;
            stream_event(s, "job", id, text.data);
        }
        buf_done(&text);
    }
    if (is_final)
        request_stream_end(s->request);
    else if (s->is_again)
        job_read(s);
}

static void job_read(struct stream *s)
{
    s->is_again = s->is_reading;
    s->read_ms = clock_mono_ms();
    if (s->is_reading)
        return;
    s->is_reading = jobs_look(s->streams->d->jobs, s->job, s->app, job_on_seen, s) == ERR_OK;
}

/* Read it if it has moved: told within ASK_MS. */
static void job_ask(struct stream *s)
{
    if (!s->is_reading && moved_add(s->streams->moved, s->job, s->version))
        s->read_ms = clock_mono_ms();
}

static void job_on_moved(void *ctx, const char *job)
{
    struct streams *all = ctx;
    struct stream *next;

    for (struct stream *s = all->buckets[hash_of(job) % BUCKETS]; s != NULL; s = next) {
        next = s->next;
        if (strcmp(s->job, job) == 0 && !s->is_reading)
            job_read(s);
    }
}

void streams_of_job(struct request *r)
{
    struct dispatcher *d = dispatcher_of(r);
    const char *last = request_header(r, "Last-Event-ID");
    char id[UUID_TEXT];
    struct stream *s, **bucket;

    if (!uuid_lower(id, r->args[0])) {
        problem_reply(r, ERR_NOT_FOUND, "no such job");
        return;
    }
    if (request_is_head(r)) {
        request_reply(r, 200, "text/event-stream", NULL);
        return;
    }
    s = db_is_up(d->read) ? stream_new(r) : NULL;
    if (s == NULL) {
        problem_backend(r, ERR_UNAVAILABLE);
        return;
    }
    memcpy(s->job, id, sizeof(id));
    if (last == NULL || parse_i64(last, 0, INT32_MAX, &s->version) != ERR_OK)
        s->version = 0;
    bucket = &s->streams->buckets[hash_of(s->job) % BUCKETS];
    s->next = *bucket;
    *bucket = s;
    job_read(s);
    if (!s->is_reading)
        problem_backend(r, ERR_UNAVAILABLE);
}

/* ---- of an app */

static void stream_row(struct stream *s, const struct db_result *result, int row)
{
    char id[80];

    snprintf(id, sizeof(id), "%lld-%s", (long long)db_col_int(result, row, "us"), db_col(result, row, "id"));
    stream_event(s, "ended", id, db_col(result, row, "data"));
}

static enum err ask_events(struct streams *all, const char *app, int64_t us, const char *id, db_query_fn *fn, void *ctx)
{
    char from[24], max[12];
    const char *values[] = { app, from, id, max };

    snprintf(from, sizeof(from), "%lld", (long long)us);
    snprintf(max, sizeof(max), "%d", PAGE);
    return db_query(all->d->read, "select id, us, data from kiln_events($1::uuid, $2::bigint, $3::uuid, $4::int)",
                    ARRAY_LEN(values), values, PATIENCE_MS, fn, ctx);
}

static const char nil_id[] = "00000000-0000-0000-0000-000000000000";

static void hub_look(struct hub *h);
static void hub_ask(struct hub *h);

static void hub_on_rows(void *ctx, enum err err, const struct db_result *result)
{
    struct hub *h = ctx;
    int rows = err == ERR_OK ? db_rows(result) : 0;

    h->is_asking = false;
    for (int i = 0; i < rows; i++) {
        const char *id = db_col(result, i, "id");
        char *seen = h->recent[hash_of(id) % RECENT];

        h->cursor_us = db_col_int(result, i, "us");
        snprintf(h->cursor_id, sizeof(h->cursor_id), "%s", id);
        if (h->cursor_us > h->last_us)
            h->last_us = h->cursor_us;
        if (strcmp(seen, id) == 0)
            continue;
        snprintf(seen, UUID_TEXT, "%s", id);
        for (struct stream *s = h->list; s != NULL; s = s->next) {
            if (s->phase != CATCHING_UP)
                stream_row(s, result, i);
        }
    }
    if (h->list == NULL)
        hub_leave(h, NULL);
    else if (rows == PAGE)
        hub_ask(h);
    else if (h->is_due)
        hub_look(h);
}

static void hub_ask(struct hub *h)
{
    h->asked_ms = clock_mono_ms();
    h->is_asking = ask_events(h->streams, h->app, h->cursor_us, h->cursor_id, hub_on_rows, h) == ERR_OK;
}

static void soon_on_timer(uv_timer_t *t);

static void hub_look(struct hub *h)
{
    int64_t now = clock_mono_ms();
    bool is_far = now - h->looked_far_ms >= LOOK_MS;

    h->is_due = true;
    if (h->is_asking)
        return;
    if (now - h->asked_ms < LOOK_GAP_MS) {
        uv_timer_start(&h->streams->soon, soon_on_timer, LOOK_GAP_MS, 0);
        return;
    }
    h->is_due = false;
    if (is_far)
        h->looked_far_ms = now;
    h->cursor_us = h->last_us - (is_far ? OVERLAP_US : NEAR_US);
    snprintf(h->cursor_id, sizeof(h->cursor_id), "%s", nil_id);
    hub_ask(h);
}

static void soon_on_timer(uv_timer_t *t)
{
    struct streams *all = container_of(t, struct streams, soon);

    for (struct hub *h = all->hubs; h != NULL; h = h->next) {
        if (h->is_due)
            hub_look(h);
    }
}

static struct hub *hub_of(struct streams *all, const char *app)
{
    struct hub *h = all->hubs;

    while (h != NULL && strcmp(h->app, app) != 0)
        h = h->next;
    if (h != NULL)
        return h;
    h = calloc(1, sizeof(*h));
    if (h == NULL || (h->recent = calloc(RECENT, sizeof(*h->recent))) == NULL) {
        free(h);
        return NULL;
    }
    h->streams = all;
    snprintf(h->app, sizeof(h->app), "%s", app);
    h->last_us = clock_wall_ms() * 1000;
    h->looked_far_ms = clock_mono_ms(); /* the first look goes back by a second only */
    h->next = all->hubs;
    all->hubs = h;
    return h;
}

/* Page by page from its Last-Event-ID on; then, with the hub's overlap, it is one of the hub's. */
static void stream_catch_up(struct stream *s);

static void catch_on_rows(void *ctx, enum err err, const struct db_result *result)
{
    struct stream *s = ctx;
    int rows = err == ERR_OK ? db_rows(result) : 0;

    s->is_reading = false;
    if (s->request == NULL) {
        free(s);
        return;
    }
    if (err != ERR_OK) {
        request_stream_end(s->request); /* it comes back with what it has seen */
        return;
    }
    for (int i = 0; i < rows; i++) {
        stream_row(s, result, i);
        s->cursor_us = db_col_int(result, i, "us");
        snprintf(s->cursor_id, sizeof(s->cursor_id), "%s", db_col(result, i, "id"));
    }
    if (s->request->is_stream_over)
        return; /* too slow: it comes back */
    if (rows == PAGE) {
        s->is_again = true; /* once these have gone out: tick */
    } else if (s->phase == CATCHING_UP) {
        s->phase = SEAM; /* the hub's from here on; what it showed meanwhile, and who committed late, once more */
        s->cursor_us -= NEAR_US;
        snprintf(s->cursor_id, sizeof(s->cursor_id), "%s", nil_id);
        stream_catch_up(s);
    } else {
        s->phase = LIVE;
    }
}

static void stream_catch_up(struct stream *s)
{
    s->is_again = false;
    s->is_reading = ask_events(s->streams, s->app, s->cursor_us, s->cursor_id, catch_on_rows, s) == ERR_OK;
    if (!s->is_reading)
        request_stream_end(s->request);
}

/* "<microseconds>-<job>" */
static bool read_cursor(struct stream *s, const char *last)
{
    char digits[24];
    size_t len = last != NULL ? strcspn(last, "-") : 0;

    if (len == 0 || len >= sizeof(digits) || last[len] != '-' || !uuid_valid(last + len + 1))
        return false;
    memcpy(digits, last, len);
    digits[len] = '\0';
    if (parse_i64(digits, OVERLAP_US, INT64_MAX / 2, &s->cursor_us) != ERR_OK)
        return false;
    s->cursor_us -= OVERLAP_US;
    snprintf(s->cursor_id, sizeof(s->cursor_id), "%s", nil_id);
    return true;
}

void streams_of_app(struct request *r)
{
    struct dispatcher *d = dispatcher_of(r);
    struct stream *s;
    struct hub *h;

    if (request_is_head(r)) {
        request_reply(r, 200, "text/event-stream", NULL);
        return;
    }
    h = db_is_up(d->read) ? hub_of(d->streams, r->app) : NULL;
    s = h != NULL ? stream_new(r) : NULL;
    if (s == NULL) {
        if (h != NULL && h->list == NULL)
            hub_leave(h, NULL);
        problem_backend(r, ERR_UNAVAILABLE);
        return;
    }
    s->hub = h;
    s->next = h->list;
    h->list = s;
    stream_begin(s);
    if (read_cursor(s, request_header(r, "Last-Event-ID"))) {
        s->phase = CATCHING_UP;
        stream_catch_up(s);
    } else {
        hub_look(h);
    }
}

/* ---- what drives them */

void streams_event(struct streams *all, const char *job, const char *state, const char *phase, int percent)
{
    struct stream *next;
    char data[160];

    for (struct stream *s = all->buckets[hash_of(job) % BUCKETS]; s != NULL; s = next) {
        next = s->next;
        if (strcmp(s->job, job) != 0)
            continue;
        if (state == NULL && phase != NULL && strspn(phase, "abcdefghijklmnopqrstuvwxyz_") == strlen(phase)) {
            snprintf(data, sizeof(data),
                     percent >= 0 ? "{\"phase\":\"%.60s\",\"percent\":%d}" : "{\"phase\":\"%.60s\",\"percent\":null}",
                     phase, percent);
            stream_event(s, "progress", NULL, data);
        }
        if (state != NULL)
            job_read(s);
        else if (clock_mono_ms() - s->read_ms >= 1000)
            job_ask(s); /* it runs, and another version says so; by then it may have ended, and need no look */
    }
    if (state == NULL || !job_state_is_final(state) || all->hubs == NULL)
        return;
    for (struct hub *h = all->hubs; h != NULL; h = h->next)
        hub_look(h);
}

static void tick(struct stream *s, int64_t now)
{
    static const char beat[] = ": beat\n\n";

    if (!s->is_open || s->request->is_stream_over)
        return;
    if (s->streams->is_releasing) {
        request_stream_end(s->request); /* retry says when to come back */
        return;
    }
    if (now - s->beat_ms >= BEAT_MS)
        (void)stream_say(s, beat, sizeof(beat) - 1); /* also how a client that went is found out */
    /* up to a quarter sooner, each job by its own: thousands that were opened together do not all look in one tick */
    if (s->hub == NULL && now - s->read_ms >= REREAD_MS - (int64_t)(hash_of(s->job) % (REREAD_MS / 4)))
        job_ask(s);
    if (s->hub != NULL && s->is_again && !s->is_reading && s->request->stream.len == 0)
        stream_catch_up(s);
}

static void tick_jobs(struct streams *all, int64_t now)
{
    size_t step = all->is_releasing ? 1 : SLICES; /* to a slice belongs each bucket of that remainder */

    for (size_t i = all->is_releasing ? 0 : all->ticks % SLICES; i < BUCKETS; i += step) {
        for (struct stream *s = all->buckets[i]; s != NULL; s = s->next)
            tick(s, now);
    }
}

static void streams_on_timer(uv_timer_t *t)
{
    struct streams *all = container_of(t, struct streams, timer);
    int64_t now = clock_mono_ms();

    if (all->count > 0)
        tick_jobs(all, now);
    moved_ask(all->moved);
    if (all->ticks++ % HUB_SLICES > 0 && !all->is_releasing)
        return;
    for (struct hub *h = all->hubs; h != NULL; h = h->next) {
        for (struct stream *s = h->list; s != NULL; s = s->next)
            tick(s, now);
        if (now - h->asked_ms >= LOOK_MS)
            hub_look(h);
    }
}

/* ---- the room */

struct streams *streams_new(struct dispatcher *d)
{
    struct streams *s = calloc(1, sizeof(*s));

    if (s == NULL || (s->moved = moved_new(d->read, job_on_moved, s)) == NULL) {
        free(s);
        return NULL;
    }
    s->d = d;
    uv_timer_init(d->loop, &s->timer);
    uv_timer_init(d->loop, &s->soon);
    uv_timer_start(&s->timer, streams_on_timer, ASK_MS, ASK_MS);
    return s;
}

static void streams_on_closed(uv_handle_t *handle)
{
    struct streams *s = handle->data;

    if (--s->handles == 0)
        s->on_closed(s->closed_ctx); /* the memory stays for answers of PostgreSQL on their way: streams_free */
}

void streams_close(struct streams *s, void (*on_closed)(void *ctx), void *ctx)
{
    s->on_closed = on_closed;
    s->closed_ctx = ctx;
    s->handles = 2;
    moved_free(s->moved); /* here: the db is gone when streams_free is called */
    s->timer.data = s->soon.data = s;
    uv_close((uv_handle_t *)&s->timer, streams_on_closed);
    uv_close((uv_handle_t *)&s->soon, streams_on_closed);
}

void streams_free(struct streams *s)
{
    free(s);
}

void streams_release(struct streams *s)
{
    s->is_releasing = true;
    streams_on_timer(&s->timer);
}

size_t streams_count(const struct streams *s)
{
    return s != NULL ? s->count : 0;
}
