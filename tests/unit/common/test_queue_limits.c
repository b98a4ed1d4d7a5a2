/* test_queue_limits.c - concurrency and request budgets with eight workers, each a process of its own that may be
 * killed.
 *
 * A worker tells over a pipe what it got and when: the time it asked and the time it was answered. What the queue did
 * lies between the two, so the bounds below are never wrong on a slow machine: a claim is held for certain from its
 * answer to the question that ended it, and requests whose questions and answers all lie in one window were in it. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/wait.h>
#include "common/base/clock.h"
#include "queue_world.h"

enum { WORKERS = 8, LIMIT = 25, BUDGET = 60, WINDOW_MS = 1000, HELD = 8, EVENTS_MAX = 200000, LIVES_MAX = 100 };

enum kind { GOT, ENDED, SPENT, PAUSED };
struct event { /* smaller than PIPE_BUF: written whole or not at all */
    enum kind kind;
    int worker, n, job; /* n: how many, PAUSED: ms */
    int64_t asked_us, answered_us;
};

static struct event events[EVENTS_MAX];
static size_t event_count;

/* --- a worker ----------------------------------------------------------------------------------------------------- */

struct life {
    struct world w;
    int at, out, jobs[HELD], held;
    unsigned dice;
    bool with_budget;
};

static unsigned life_dice(struct life *l, unsigned sides)
{
    l->dice = l->dice * 1664525u + 1013904223u;
    return (l->dice >> 8) % sides;
}

static void life_tell(struct life *l, enum kind kind, int job, int n, int64_t asked_us)
{
    struct event e = { .kind = kind, .worker = l->at, .n = n, .job = job, .asked_us = asked_us };
    e.answered_us = clock_mono_us();
    if (write(l->out, &e, sizeof(e)) != (ssize_t)sizeof(e))
        _exit(3);
}

static void life_end_one(struct life *l, int which)
{
    int job = l->jobs[which];
    int64_t asked_us = clock_mono_us();

    l->jobs[which] = l->jobs[--l->held];
    /* Said before it is asked: who is killed in between has finished it all the same, and from here on the claim is not
     * held for certain. */
    if (life_dice(l, 3) == 0) {
        life_tell(l, ENDED, job, 0, asked_us);
        ASK(&l->w, queue_put_back(l->w.at[l->at].q, job_id(job), NULL, life_dice(l, 2) * 20, true, on_done, &l->w.a));
    } else {
        life_tell(l, ENDED, job, 1, asked_us);
        forget(&l->w, l->at, job_id(job));
    }
}

/* "Here is all I hold": a claim more or less than that is lost or added on the way. */
static void life_resync(struct life *l)
{
    static char ids[HELD][UUID_TEXT];
    const char *jobs[HELD], *lanes[HELD];

    if (l->held > 0 && life_dice(l, 2) == 0) { /* as if the answer that gave it had been lost */
        int job = l->jobs[--l->held];
        life_tell(l, ENDED, job, 0, clock_mono_us());
    }
    for (int i = 0; i < l->held; i++) {
        memcpy(ids[i], job_id(l->jobs[i]), UUID_TEXT);
        jobs[i] = ids[i];
        lanes[i] = "lane";
    }
    ASK(&l->w, queue_resync(l->w.at[l->at].q, jobs, lanes, (size_t)l->held, on_done, &l->w.a));
}

static void life_claim(struct life *l)
{
    int64_t asked_us = clock_mono_us();
    size_t n = claim(&l->w, l->at, 1 + life_dice(l, (unsigned)(HELD - l->held)));

    for (size_t i = 0; i < n; i++) {
        l->jobs[l->held++] = claimed_number(&l->w, i);
        life_tell(l, GOT, l->jobs[l->held - 1], 1, asked_us);
    }
}

static void life_spend(struct life *l)
{
    int n = 1 + (int)life_dice(l, 3);
    int64_t asked_us = clock_mono_us();

    ASK(&l->w, queue_spend(l->w.at[l->at].q, "lane", (size_t)n, on_spend, &l->w.a));
    if (l->w.a.ms == 0)
        life_tell(l, SPENT, -1, n, asked_us);
}

static void life_pause(struct life *l)
{
    int ms = 50 + (int)life_dice(l, 100);
    int64_t asked_us = clock_mono_us();

    ASK(&l->w, queue_pause(l->w.at[l->at].q, "lane", ms, on_done, &l->w.a));
    life_tell(l, PAUSED, -1, ms, asked_us);
}

static _Noreturn void life_run(struct life *l)
{
    world_add(&l->w, l->at);
    for (;;) {
        unsigned what = life_dice(l, 100);
        if (what < 45 && l->held < HELD)
            life_claim(l);
        else if (what < 80 && l->held > 0)
            life_end_one(l, (int)life_dice(l, (unsigned)l->held));
        else if (what < 95 && l->with_budget)
            life_spend(l);
        else if (what == 95)
            life_resync(l);
        else if (what == 96 && l->with_budget && life_dice(l, 12) == 0)
            life_pause(l);
        else
            run_ms(&l->w, (int)life_dice(l, 3));
    }
}

struct crew {
    struct world *w;
    int in, out;
    pid_t pids[WORKERS];
    char workers[LIVES_MAX][UUID_TEXT]; /* of all lives; a process that starts again is another worker */
    int life[WORKERS], lives;
    bool with_budget;
};

static void crew_start(struct crew *c, int i)
{
    static struct life l;

    cr_assert_lt(c->lives, LIVES_MAX);
    c->life[i] = c->lives;
    uuid_random(c->workers[c->lives++]);
    c->pids[i] = fork();
    cr_assert_geq(c->pids[i], 0);
    if (c->pids[i] == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        l = (struct life){ .at = i + 1, .out = c->out, .with_budget = c->with_budget };
        l.dice = (unsigned)(c->lives * 7919 + 1);
        memcpy(l.w.at[i + 1].worker, c->workers[c->life[i]], UUID_TEXT);
        memcpy(&l.w.server, &c->w->server, sizeof(l.w.server));
        l.w.server.admin = NULL;
        if (uv_loop_init(&l.w.loop) != 0)
            _exit(3);
        life_run(&l);
    }
}

static void crew_read(struct crew *c)
{
    while (event_count < EVENTS_MAX) {
        ssize_t n = read(c->in, &events[event_count], sizeof(events[0]));
        if (n != (ssize_t)sizeof(events[0]))
            break;
        event_count++;
    }
    cr_assert_lt(event_count, EVENTS_MAX);
}

/* Kills a worker wherever it is. What it held is over for certain: nothing of it is answered any more. */
static void crew_kill(struct crew *c, int i)
{
    struct event e = { .kind = ENDED, .worker = i + 1, .job = -1, .asked_us = clock_mono_us() };

    cr_assert_eq(kill(c->pids[i], SIGKILL), 0);
    cr_assert_eq(waitpid(c->pids[i], NULL, 0), c->pids[i]);
    c->pids[i] = 0;
    crew_read(c);
    e.answered_us = clock_mono_us();
    events[event_count++] = e;
}

static void crew_bury(struct crew *c, int life)
{
    const char *dead[] = { c->workers[life] };

    ASK(c->w, queue_bury(c->w->at[0].q, dead, 1, on_done, &c->w->a));
    cr_assert_eq(c->w->a.err, ERR_OK);
}

static void crew_open(struct crew *c, int jobs, const struct queue_limits *l)
{
    int fds[2];

    event_count = 0;
    c->w = world_new(-1); /* nobody yet: the loops of the workers come first */
    cr_assert_eq(pipe(fds), 0);
    c->in = fds[0];
    c->out = fds[1];
    cr_assert_eq(fcntl(c->in, F_SETFL, O_NONBLOCK), 0);
    world_add(c->w, 0);
    limits(c->w, *l);
    for (int n = 0; n < jobs; n += 1000)
        publish_many(c->w, n, 1000, "lane", n % 2000 ? "one" : "two", n % 3000 ? "a" : "b");
    for (int i = 0; i < WORKERS; i++)
        crew_start(c, i);
}

static void crew_close(struct crew *c)
{
    for (int i = 0; i < WORKERS; i++)
        if (c->pids[i] > 0)
            crew_kill(c, i);
    (void)close(c->in);
    (void)close(c->out);
}

/* --- what must be true of the events ------------------------------------------------------------------------------ */

struct edge {
    int64_t us;
    int step;
};

static int by_time(const void *a, const void *b)
{
    const struct edge *x = a, *y = b;
    if (x->us != y->us)
        return x->us < y->us ? -1 : 1;
    return x->step - y->step; /* at the same time: ends first */
}

/* The most claims that were held at once for certain. */
static int most_held(void)
{
    static struct edge edges[2 * EVENTS_MAX];
    static int holds[WORKERS + 1];
    size_t count = 0;
    int held = 0, most = 0;

    memset(holds, 0, sizeof(holds));
    for (size_t i = 0; i < event_count; i++) { /* each worker's own events are in order */
        const struct event *e = &events[i];
        if (e->kind == GOT) {
            edges[count++] = (struct edge){ e->answered_us, 1 };
            holds[e->worker]++;
        } else if (e->kind == ENDED) {
            int n = e->job < 0 ? holds[e->worker] : 1;
            edges[count++] = (struct edge){ e->asked_us, -n };
            holds[e->worker] -= n;
        }
    }
    qsort(edges, count, sizeof(edges[0]), by_time);
    for (size_t i = 0; i < count; i++) {
        held += edges[i].step;
        most = held > most ? held : most;
    }
    return most;
}

static int by_answer(const void *a, const void *b)
{
    const struct event *x = a, *y = b;
    return (x->answered_us > y->answered_us) - (x->answered_us < y->answered_us);
}

/* Requests, in order of their answers; returns how many events there are, *sum how many requests. */
static size_t requests(struct event *out, int *sum)
{
    size_t count = 0;
    *sum = 0;
    for (size_t i = 0; i < event_count; i++)
        if (events[i].kind == GOT || events[i].kind == SPENT) {
            out[count++] = events[i];
            *sum += events[i].n;
        }
    qsort(out, count, sizeof(out[0]), by_answer);
    return count;
}

/* The most requests that were for certain in one window: asked for and answered inside it. */
static int most_in_window(const struct event *list, size_t count, int64_t window_us)
{
    int most = 0;
    for (size_t first = 0; first < count; first++) {
        int64_t from = list[first].asked_us;
        int n = 0;
        for (size_t i = 0; i < count && list[i].answered_us < from + window_us; i++)
            n += list[i].asked_us >= from ? list[i].n : 0;
        most = n > most ? n : most;
    }
    return most;
}

Test(queue_limits, a_budget_holds_in_every_window_with_eight_workers_that_claim_poll_and_pause)
{
    struct crew c = { .with_budget = true };
    static struct event list[EVENTS_MAX];
    int sum, in_pauses = 0, pauses = 0;

    crew_open(&c, 4000,
              &(struct queue_limits){
                  .lane = "lane", .concurrency = LIMIT, .budget_count = BUDGET, .budget_window_ms = WINDOW_MS });
    int64_t began_us = clock_mono_us();
    while (clock_mono_us() - began_us < 8 * 1000000) {
        run_ms(c.w, 10);
        crew_read(&c);
    }
    crew_close(&c);
    size_t count = requests(list, &sum);
    int most = most_in_window(list, count, (int64_t)WINDOW_MS * 1000);
    for (size_t i = 0; i < event_count; i++) {
        const struct event *p = &events[i];
        if (p->kind != PAUSED)
            continue;
        pauses++;
        int64_t until_us = p->asked_us + (int64_t)(p->n - 1) * 1000; /* the queue counts whole milliseconds */
        for (size_t k = 0; k < count; k++)
            in_pauses += list[k].asked_us >= p->answered_us && list[k].answered_us < until_us;
    }
    fprintf(stderr,
            "%d requests in 8 s, at most %d in a window of %d ms (%d are allowed); %d pauses; at most %d claims\n", sum,
            most, WINDOW_MS, BUDGET, pauses, most_held());
    cr_expect_leq(most, BUDGET);
    cr_expect_geq(most, BUDGET * 8 / 10, "the workers did not try");
    cr_expect_gt(pauses, 3);
    cr_expect_eq(in_pauses, 0, "%d requests in the silence that a 429 asked for", in_pauses);
    cr_expect_leq(most_held(), LIMIT);
    cr_expect_gt(sum, 4 * BUDGET, "%d: the budget was there to be used", sum);
    world_free(c.w);
}

Test(queue_limits, concurrency_holds_and_returns_exactly_when_workers_are_killed_anywhere)
{
    enum { JOBS = 6000, KILLS = 60 };
    struct crew c = { .with_budget = false };
    static bool is_done[JOBS], is_back[JOBS];
    int done = 0, back = 0;
    unsigned dice = 99;

    crew_open(&c, JOBS, &(struct queue_limits){ .lane = "lane", .concurrency = LIMIT });
    for (int kills = 0; kills < KILLS; kills++) {
        dice = dice * 1664525u + 1013904223u;
        run_ms(c.w, 20 + (int)(dice >> 8) % 80);
        crew_read(&c);
        int i = (int)(dice >> 16) % WORKERS;
        crew_kill(&c, i);
        crew_bury(&c, c.life[i]);
        crew_start(&c, i);
    }
    run_ms(c.w, 200);
    crew_close(&c);
    int most = most_held();
    for (int i = 0; i < c.lives;
         i++) /* as the dispatcher does: what they had sent may have come after the first time */
        crew_bury(&c, i);
    for (size_t i = 0; i < event_count; i++)
        if (events[i].kind == ENDED && events[i].job >= 0 && events[i].n == 1)
            is_done[events[i].job] = true;
    struct queue_lane_stats s = stats(c.w, "lane");
    cr_expect_eq(s.claimed, 0, "%d claims of nobody", (int)s.claimed);
    redisReply *left = redisCommand(c.w->server.admin, "KEYS kiln:{0}:running:*");
    cr_expect_eq(left->elements, 0, "accounts with claims of nobody");
    freeReplyObject(left);

    world_add(c.w, 1); /* all of the concurrency is there again, no more, and every job once */
    cr_expect_eq(claim(c.w, 1, 1000), LIMIT);
    ASK(c.w, queue_bury(c.w->at[0].q, (const char *[]){ c.w->at[1].worker }, 1, on_done, &c.w->a));
    limits(c.w, (struct queue_limits){ .lane = "lane" });
    for (int i = 0; i < JOBS; i++)
        done += is_done[i];
    run_ms(c.w, 30); /* those that were put back for 20 ms */
    for (size_t n; (n = claim(c.w, 1, 1000)) > 0;)
        for (size_t i = 0; i < n; i++) {
            int job = claimed_number(c.w, i);
            cr_expect(!is_back[job], "job %d came twice", job);
            is_back[job] = true;
            back++;
        }
    for (int i = 0; i < JOBS; i++)
        cr_expect(is_back[i] || is_done[i], "job %d is lost", i);
    fprintf(stderr, "%d kills: at most %d claims (%d are allowed), %d jobs done, %d waiting\n", KILLS, most, LIMIT,
            done, back);
    cr_expect_leq(most, LIMIT);
    cr_expect_geq(most, LIMIT * 8 / 10, "the workers did not try");
    cr_expect_gt(done, 100);
    cr_expect_leq(done + back,
                  JOBS + KILLS + WORKERS); /* who died between telling and forgetting: its job waits again */
    world_free(c.w);
}
