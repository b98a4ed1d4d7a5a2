/* queue_world.h - a server, a loop and queues on it, and every call of the queue as one that waits for its answer. */
#ifndef KILN_TEST_QUEUE_WORLD_H
#define KILN_TEST_QUEUE_WORLD_H
#include "common/base/text.h"
#include "common/core/queue.h"
#include "redis_server.h"
#include "tests/support/support.h"

enum { WORLD_CLAIMS = 1000, WORLD_QUEUES = 9, WAIT_MS = 20000 };
enum { PROMPT_MS = 1800 }; /* the sleeper's own time-out is 2 s: what comes sooner was woken */

struct claimed {
    char job[UUID_TEXT], lane[32], note[128], envelope[128];
    int64_t note_attempt;
    bool has_envelope, is_lost;
};

struct answer { /* of the last call */
    int answers;
    enum err err;
    size_t count;
    int64_t ms;
    char text[128];
    int percent;
    struct claimed claims[WORLD_CLAIMS];
    struct queue_lane_stats lanes[16];
    char lane_names[16][32];
};

struct place { /* one queue object */
    struct queue *q;
    char worker[UUID_TEXT];
    int ups, downs, wakes, hints, events, closed;
    char run_id[64], hint[UUID_TEXT], event_job[UUID_TEXT], event_state[32], event_phase[32];
    int64_t event_version;
    int event_percent;
    bool claims_on_wake; /* as a worker does: claims until a claim comes back short */
    bool claims_once;    /* as one does that is full after ten */
    int own_claims;
    int64_t own_next_ms;
};

struct world {
    struct server server;
    uv_loop_t loop;
    struct place at[WORLD_QUEUES]; /* 0: a dispatcher; others: workers */
    struct answer a;
};

static inline const char *job_id(int n)
{
    static char ids[16][UUID_TEXT];
    static unsigned turn;
    char *id = ids[turn++ % 16];
    (void)snprintf(id, UUID_TEXT, "01900000-0000-7000-8000-%012d", n);
    return id;
}

static inline void place_on_state(void *ctx, bool is_up, const char *run_id)
{
    struct place *p = ctx;
    *(is_up ? &p->ups : &p->downs) += 1;
    if (is_up)
        (void)snprintf(p->run_id, sizeof(p->run_id), "%s", run_id);
}

static inline void place_claim(struct place *p);

static inline void place_on_claim(void *ctx, enum err err, const struct queue_claim *claims, size_t count,
                                  int64_t next_ms)
{
    struct place *p = ctx;
    (void)claims;
    p->own_claims += (int)count;
    p->own_next_ms = next_ms;
    if (err == ERR_OK && count == 10 && !p->claims_once)
        place_claim(p);
}

static inline void place_claim(struct place *p)
{
    queue_claim(p->q, 10, place_on_claim, p);
}

static inline void place_on_wake(void *ctx)
{
    struct place *p = ctx;
    p->wakes++;
    if (p->claims_on_wake)
        place_claim(p);
}

static inline void place_on_hint(void *ctx, const char *job)
{
    struct place *p = ctx;
    p->hints++;
    (void)snprintf(p->hint, sizeof(p->hint), "%s", job);
}

static inline void place_on_event(void *ctx, const char *job, int64_t version, const char *state, const char *phase,
                                  int percent)
{
    struct place *p = ctx;
    p->events++;
    p->event_version = version;
    p->event_percent = percent;
    (void)snprintf(p->event_job, sizeof(p->event_job), "%s", job);
    (void)snprintf(p->event_state, sizeof(p->event_state), "%s", state ? state : "");
    (void)snprintf(p->event_phase, sizeof(p->event_phase), "%s", phase ? phase : "");
}

static inline void place_on_closed(void *ctx)
{
    ((struct place *)ctx)->closed++;
}

static inline void world_add(struct world *w, int i)
{
    struct place *p = &w->at[i];
    if (!p->worker[0])
        (void)snprintf(p->worker, sizeof(p->worker), "019fffff-0000-7000-8000-%012d", i);
    p->q = queue_new(&w->loop, &(struct queue_config){ .redis_url = w->server.url,
                                                       .worker = i == 0 ? NULL : p->worker,
                                                       .on_state = place_on_state,
                                                       .on_wake = place_on_wake,
                                                       .on_hint = place_on_hint,
                                                       .on_event = place_on_event,
                                                       .ctx = p });
    cr_assert_not_null(p->q);
    cr_assert(support_run_count(&w->loop, &p->ups, 1, WAIT_MS));
    cr_expect(queue_is_up(p->q));
}

static inline struct world *world_new(int workers)
{
    struct world *w = calloc(1, sizeof(*w));
    cr_assert_not_null(w);
    server_start(&w->server, NULL);
    cr_assert_eq(uv_loop_init(&w->loop), 0);
    for (int i = 0; i <= workers; i++)
        world_add(w, i);
    return w;
}

static inline void world_close_queue(struct world *w, int i)
{
    struct place *p = &w->at[i];
    queue_close(p->q, place_on_closed, p);
    cr_assert(support_run_count(&w->loop, &p->closed, 1, WAIT_MS));
    p->q = NULL;
}

static inline void world_free(struct world *w)
{
    for (int i = 0; i < WORLD_QUEUES; i++)
        if (w->at[i].q)
            world_close_queue(w, i);
    support_loop_done(&w->loop);
    server_stop(&w->server);
    free(w);
}

/* --- callbacks and calls that wait -------------------------------------------------------------------------------- */

static inline void on_done(void *ctx, enum err err, size_t count)
{
    struct answer *a = ctx;
    a->answers++;
    a->err = err;
    a->count = count;
}

static inline void on_claim(void *ctx, enum err err, const struct queue_claim *claims, size_t count, int64_t next_ms)
{
    struct answer *a = ctx;
    a->answers++;
    a->err = err;
    a->count = count;
    a->ms = next_ms;
    for (size_t i = 0; i < count && i < WORLD_CLAIMS; i++) {
        struct claimed *c = &a->claims[i];
        (void)snprintf(c->job, sizeof(c->job), "%s", claims[i].job);
        (void)snprintf(c->lane, sizeof(c->lane), "%s", claims[i].lane);
        (void)snprintf(c->note, sizeof(c->note), "%s", claims[i].note ? claims[i].note : "");
        (void)snprintf(c->envelope, sizeof(c->envelope), "%s", claims[i].envelope ? claims[i].envelope : "");
        c->note_attempt = claims[i].note_attempt;
        c->has_envelope = claims[i].envelope != NULL;
        c->is_lost = claims[i].is_lost;
    }
}

static inline void on_text(void *ctx, enum err err, const char *text)
{
    struct answer *a = ctx;
    a->answers++;
    a->err = err;
    (void)snprintf(a->text, sizeof(a->text), "%s", text ? text : "(nothing)");
}

static inline void on_spend(void *ctx, enum err err, int64_t ms)
{
    struct answer *a = ctx;
    a->answers++;
    a->err = err;
    a->ms = ms;
    a->count += err == ERR_OK && ms == 0;
}

static inline void on_progress(void *ctx, enum err err, const char *phase, int percent)
{
    on_text(ctx, err, phase);
    ((struct answer *)ctx)->percent = percent;
}

static inline void on_stats(void *ctx, enum err err, const struct queue_lane_stats *lanes, size_t count)
{
    struct answer *a = ctx;
    a->answers++;
    a->err = err;
    a->count = count;
    for (size_t i = 0; i < count && i < 16; i++) {
        a->lanes[i] = lanes[i];
        (void)snprintf(a->lane_names[i], sizeof(a->lane_names[i]), "%s", lanes[i].lane);
        a->lanes[i].lane = a->lane_names[i];
    }
}

static inline size_t world_wait(struct world *w)
{
    cr_assert(support_run_count(&w->loop, &w->a.answers, 1, WAIT_MS), "no answer");
    cr_expect_eq(w->a.answers, 1, "exactly one answer");
    return w->a.count;
}

#define ASK(w, call) ((w)->a.answers = 0, (w)->a.count = 0, (call), world_wait(w))

static inline struct queue_item item(int n, const char *lane, const char *app, const char *account)
{
    static char ids[8][UUID_TEXT];
    static unsigned turn;
    char *id = ids[turn++ % 8];
    (void)snprintf(id, UUID_TEXT, "%s", job_id(n));
    return (struct queue_item){
        .job = id, .lane = lane, .app = app, .account = account, .created_ms = 1000 + n, .envelope = "{\"n\":1}"
    };
}

static inline size_t publish(struct world *w, struct queue_item one)
{
    return ASK(w, queue_publish(w->at[0].q, &one, 1, on_done, &w->a));
}

static inline void publish_many(struct world *w, int from, int count, const char *lane, const char *app,
                                const char *account)
{
    struct queue_item *items = calloc((size_t)count, sizeof(*items));
    char(*ids)[UUID_TEXT] = calloc((size_t)count, sizeof(*ids));
    cr_assert(items && ids);
    for (int i = 0; i < count; i++) {
        items[i] = item(from + i, lane, app, account);
        memcpy(ids[i], items[i].job, UUID_TEXT);
        items[i].job = ids[i];
    }
    cr_expect_eq(ASK(w, queue_publish(w->at[0].q, items, (size_t)count, on_done, &w->a)), (size_t)count);
    cr_expect_eq(w->a.err, ERR_OK);
    free(items);
    free(ids);
}

static inline size_t claim(struct world *w, int worker, size_t max)
{
    size_t n = ASK(w, queue_claim(w->at[worker].q, max, on_claim, &w->a));
    cr_expect_eq(w->a.err, ERR_OK);
    return n;
}

static inline int claimed_number(struct world *w, size_t i) /* of job_id */
{
    return atoi(w->a.claims[i].job + 24);
}

static inline size_t forget(struct world *w, int at, const char *job)
{
    return ASK(w, queue_forget(w->at[at].q, job, 2, "succeeded", on_done, &w->a));
}

static inline size_t limits(struct world *w, struct queue_limits l)
{
    return ASK(w, queue_set_limits(w->at[0].q, &l, 1, on_done, &w->a));
}

static inline struct queue_lane_stats stats(struct world *w, const char *lane)
{
    size_t n = ASK(w, queue_stats(w->at[0].q, on_stats, &w->a));
    for (size_t i = 0; i < n; i++)
        if (strcmp(w->a.lanes[i].lane, lane) == 0)
            return w->a.lanes[i];
    return (struct queue_lane_stats){ .lane = NULL, .ready = -1 };
}

static inline bool nothing(void *ctx)
{
    (void)ctx;
    return false;
}
static inline void run_ms(struct world *w, int ms) /* for claims about what does not happen */
{
    (void)support_run_until(&w->loop, nothing, NULL, ms);
}
#endif
