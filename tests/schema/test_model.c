/* test_model.c - the functions against a model of them: random calls, right ones and wrong ones, predicted one by one.
 *
 * Each of several connections has an account, two workers and some jobs of its own, so that it can predict every
 * verdict and every balance while the others are at work on the same tables; expired jobs, the audit and the beat are
 * everybody's. A failing run says its seed, the step and what the model knows of the job. KILN_SCHEMA_SEED repeats it.
 */
#include "tests/schema/ask.h"
#include "tests/schema/crowd.h"

#include <criterion/criterion.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 6, STEPS = 1500, SLOTS = 5, ATTEMPTS = 64 };

enum state { NONE, QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELED };
static const char *const state_name[] = { "none", "queued", "running", "succeeded", "failed", "canceled" };

struct attempt {
    int fence; /* of the start that opened it */
    bool open, ref;
    int closed_by, closed_fence; /* 0: nobody who settled it */
};

struct job {
    int id;
    enum state state;
    int units, fence, attempt, tries, unknowns, losses, lost_fence, holder;
    bool on_unknown_retry;
    int64_t price;
    struct attempt attempts[ATTEMPTS];
};

struct model {
    PGconn *c;
    int number, next_id;
    unsigned seed, step;
    int64_t balance, held;
    bool alive[3]; /* by worker, 1 and 2 */
    struct job jobs[SLOTS];
    int wrong;
};

static unsigned pick(struct model *m, unsigned n)
{
    return crowd_random(&m->seed) % n;
}

/* One call, whose first cell has to be `want`. */
static void expect(struct model *m, struct job *j, const char *what, const char *want, const char *sql, const int *args,
                   int n)
{
    const char *all[16] = { sql };
    char texts[15][16];
    char *got;

    for (int i = 0; i < n; i++) {
        snprintf(texts[i], sizeof texts[i], "%d", args[i]);
        all[i + 1] = texts[i];
    }
    got = ask(m->c, all, (size_t)n + 1);
    if (strcmp(got, want) != 0) {
        m->wrong++;
        fprintf(stderr,
                "thread %d step %u: %s of job %d (%s, fence %d, holder %d, attempt %d): expected %s, found %s\n",
                m->number, m->step, what, j->id, state_name[j->state], j->fence, j->holder, j->attempt, want, got);
    }
    free(got);
}

#define EXPECT(m, j, what, want, sql, ...)                                                                             \
    expect(m, j, what, want, sql, (const int[]){ __VA_ARGS__ }, sizeof((const int[]){ __VA_ARGS__ }) / sizeof(int))

static int worker_id(const struct model *m, int w)
{
    return m->number * 2 + w;
}

static bool ended(const struct job *j)
{
    return j->state >= SUCCEEDED;
}

static void finish(struct model *m, struct job *j, enum state state, int delivered)
{
    int paid = delivered < j->units ? delivered : j->units;

    j->state = state;
    j->holder = 0;
    j->attempts[j->attempt].open = false;
    m->held -= j->units * j->price;
    m->balance -= paid * j->price;
}

static void accept(struct model *m, struct job *j)
{
    int64_t need;
    bool fits;

    if (j->state != NONE && !ended(j))
        return;
    memset(j, 0, sizeof *j);
    j->id = m->number * 100000 + ++m->next_id;
    j->units = 1 + (int)pick(m, 4);
    j->price = (int)pick(m, 5) * 37;
    j->on_unknown_retry = pick(m, 2) == 0;
    need = j->units * j->price;
    fits = m->balance - m->held >= need;
    EXPECT(m, j, "accept", fits ? "accepted" : "insufficient",
           "select verdict from t_accept(array[j($1)], 'm' || $2::int, $3, $4, array['k' || $1], "
           "on_unknown => (array['retry','fail'])[2 - $5::int])",
           j->id, m->number, j->units, (int)j->price, j->on_unknown_retry);
    if (fits) {
        j->state = QUEUED;
        m->held += need;
        if (pick(m, 3) == 0) /* the reply was lost, or the client asks again */
            EXPECT(m, j, "accept again", "accepted",
                   "select verdict from t_accept(array[j($1)], 'm' || $2::int, $3, $4, array['k' || $1])", j->id,
                   m->number, j->units, (int)j->price);
        if (pick(m, 3) == 0)
            EXPECT(m, j, "replay", "replayed",
                   "select verdict from t_accept(array[j($1 + 50000)], 'm' || $2::int, $3, $4, array['k' || $1])",
                   j->id, m->number, j->units, (int)j->price);
    }
}

static void start(struct model *m, struct job *j)
{
    int w = 1 + (int)pick(m, 2);
    bool unsent = pick(m, 2) == 0;
    int kind = (int)pick(m, 3); /* of the note: none, a reference, an outcome */
    int note_no = kind == 0 ? 0 : j->attempt - (int)pick(m, 2);
    struct attempt *a = &j->attempts[j->attempt];
    const char *want;

    if (j->attempt + 1 >= ATTEMPTS)
        return;
    if (!m->alive[w]) {
        want = "dead";
    } else if (j->state == NONE || ended(j)) {
        want = "finished";
    } else if (j->state == QUEUED) {
        want = "go";
        j->state = RUNNING;
        j->fence++;
        j->attempt++;
        j->holder = w;
        j->attempts[j->attempt] = (struct attempt){ .fence = j->fence, .open = true };
    } else if (unsent && j->holder == w && a->fence == j->fence && !a->ref) {
        want = "go";
    } else if (j->holder != 0 && j->holder != w && m->alive[j->holder]) {
        want = "busy";
    } else {
        j->fence++;
        j->holder = w;
        want = a->ref ? "resume" : note_no != j->attempt || kind == 0 ? "unknown" : kind == 1 ? "resume" : "settle";
        if (strcmp(want, "resume") == 0)
            a->ref = true;
    }
    EXPECT(m, j, "start", want,
           "select verdict from t_start($1, array[j($2)], $3::int = 1, nullif($4::int, 0), "
           "(array['{\"ref\":\"n\"}', '{\"outcome\":{}}'])[$5::int]::jsonb)",
           worker_id(m, w), j->id, unsent, note_no, kind);
}

/* Who writes: mostly the holder with its fence, sometimes somebody else or with an old one. */
static void speaker(struct model *m, const struct job *j, int *w, int *fence, int *no)
{
    *w = j->holder != 0 && pick(m, 5) != 0 ? j->holder : 1 + (int)pick(m, 2);
    *fence = j->fence - (pick(m, 6) == 0);
    *no = j->attempt - (pick(m, 8) == 0);
}

static void checkpoint(struct model *m, struct job *j)
{
    int w, fence, no;
    const char *want = "stale";

    speaker(m, j, &w, &fence, &no);
    if (j->state == NONE || ended(j)) {
        want = "finished";
    } else if (j->state == RUNNING && w == j->holder && fence == j->fence && no == j->attempt && !j->attempts[no].ref) {
        want = "saved";
        j->attempts[no].ref = true;
    } else if (j->attempts[j->attempt].ref) {
        return; /* which text the reference has is not the model's business */
    }
    EXPECT(m, j, "checkpoint", want, "select t_checkpoint($1, j($2), $3, $4, 'r')", worker_id(m, w), j->id, fence, no);
}

static void settle(struct model *m, struct job *j)
{
    int w, fence, no;
    int outcome = (int)pick(m, 4);
    int units = (int)pick(m, 6);
    bool counts = pick(m, 2) == 0;
    struct attempt *a;
    const char *want = "stale";

    speaker(m, j, &w, &fence, &no);
    if (no < 0)
        return;
    a = &j->attempts[no];
    if (j->state != NONE && no > 0 && a->closed_by == w && a->closed_fence == fence) {
        want = "mine";
    } else if (j->state == NONE || ended(j)) {
        want = "finished";
    } else if (j->state == RUNNING && w == j->holder && fence == j->fence && a->open) {
        bool again = (outcome == 2 && (!counts || j->tries + 1 < 5)) ||
                     (outcome == 3 && j->on_unknown_retry && j->unknowns == 0);

        a->open = false;
        a->closed_by = w;
        a->closed_fence = fence;
        j->tries += outcome == 2 && counts;
        j->unknowns += outcome == 3;
        want = again ? "requeued" : "committed";
        if (again) {
            j->state = QUEUED;
            j->holder = 0;
        } else {
            finish(m, j, outcome == 0 ? SUCCEEDED : FAILED, outcome == 0 ? units : 0);
        }
    }
    EXPECT(
        m, j, "settle", want,
        "select verdict from t_settle($1, array[j($2)], $3, $4, (array['delivered','failed','retry','unknown'])[1 + $5::int], "
        "$6, counts => $7::int = 1)",
        worker_id(m, w), j->id, fence, no, outcome, units, counts);
}

static void handback(struct model *m, struct job *j)
{
    int w, fence, no;
    bool unsent = pick(m, 2) == 0;
    struct attempt *a = &j->attempts[j->attempt];
    const char *want = "stale";

    speaker(m, j, &w, &fence, &no);
    if (j->state == NONE || ended(j)) {
        want = "finished";
    } else if (j->state == RUNNING && j->holder == 0 && fence == j->fence) {
        want = "returned";
    } else if (j->state == QUEUED && j->attempt > 0 && a->closed_by == w && a->closed_fence == fence) {
        want = "returned";
    } else if (j->state == RUNNING && w == j->holder && fence == j->fence) {
        if (a->ref) {
            want = "returned";
            j->holder = 0;
        } else if (unsent) {
            want = "returned";
            *a = (struct attempt){ .fence = a->fence, .closed_by = w, .closed_fence = fence };
            j->state = QUEUED;
            j->holder = 0;
        } else {
            want = "open";
        }
    }
    EXPECT(m, j, "hand back", want, "select t_handback($1, j($2), $3, $4::int = 1)", worker_id(m, w), j->id, fence,
           unsent);
}

static void lost(struct model *m, struct job *j)
{
    int w, fence, no;
    const char *want = "stale";

    speaker(m, j, &w, &fence, &no);
    if (j->losses >= 3 && j->state == FAILED && fence == j->lost_fence) {
        want = "worker_lost";
    } else if (j->state == RUNNING && w == j->holder && fence == j->fence) {
        want = "counted";
        if (j->lost_fence != fence) {
            j->lost_fence = fence;
            if (++j->losses >= 3) {
                want = "worker_lost";
                finish(m, j, FAILED, 0);
            }
        }
    }
    EXPECT(m, j, "loss", want, "select t_lost($1, j($2), $3)", worker_id(m, w), j->id, fence);
}

static void cancel(struct model *m, struct job *j)
{
    const char *want = j->state == NONE ? "not_found" : ended(j) ? "finished" : "canceled";

    if (j->state != NONE && !ended(j))
        finish(m, j, CANCELED, 0);
    EXPECT(m, j, "cancel", want, "select t_cancel(j($1))", j->id);
}

static void compare(struct model *m, struct job *j)
{
    char want[160];

    snprintf(want, sizeof want, "%lld|%lld", (long long)m->balance, (long long)m->held);
    EXPECT(m, j, "account", want, "select balance, held from accounts where name = 'm' || $1::int", m->number);
    if (j->state == NONE)
        return;
    snprintf(want, sizeof want, "%s|%d|%d|%d|%d|%d", state_name[j->state], j->fence, j->attempt, j->tries, j->unknowns,
             j->losses);
    EXPECT(m, j, "row", want, "select state, fence, attempt, tries, unknowns, losses from jobs where id = j($1)",
           j->id);
}

static int live(PGconn *c, int number, void *arg)
{
    struct model m = { .c = c, .number = number + 1, .seed = *(unsigned *)arg * 31u + (unsigned)number + 1u };

    m.balance = 3000;
    EXPECT(&m, &m.jobs[0], "grant", "granted", "select verdict from t_grant('m' || $1::int, 3000)", m.number);
    for (m.step = 0; m.step < STEPS && m.wrong < 5; m.step++) {
        struct job *j = &m.jobs[pick(&m, SLOTS)];
        int w = 1 + (int)pick(&m, 2);

        switch (pick(&m, 20)) {
        case 0:
        case 1:
        case 2:
            accept(&m, j);
            break;
        case 3:
        case 4:
        case 5:
        case 6:
        case 7:
            start(&m, j);
            break;
        case 8:
        case 9:
            checkpoint(&m, j);
            break;
        case 10:
        case 11:
        case 12:
            settle(&m, j);
            break;
        case 13:
            handback(&m, j);
            break;
        case 14:
            lost(&m, j);
            break;
        case 15:
            if (pick(&m, 3) == 0)
                cancel(&m, j);
            break;
        case 16:
            m.balance += 100;
            EXPECT(&m, j, "grant", "granted", "select verdict from t_grant('m' || $1::int, 100)", m.number);
            break;
        case 17:
            m.alive[w] = false;
            EXPECT(&m, j, "death", "", "select t_kill($1)", worker_id(&m, w));
            break;
        default:
            m.alive[w] = true;
            EXPECT(&m, j, "beat", "1", "select least(1, count(*) + 1) from t_beat($1)", worker_id(&m, w));
            break;
        }
        compare(&m, j);
    }
    return m.wrong;
}

Test(model, predicts_every_verdict_and_every_balance)
{
    PGconn *c = test_db();
    const char *given = getenv("KILN_SCHEMA_SEED");
    unsigned seed = given != NULL ? (unsigned)strtoul(given, NULL, 10) : 20261120u;

    for (int round = 0; round < 2; round++, seed++) {
        cr_assert_eq(crowd_run(THREADS, live, &seed), 0, "KILN_SCHEMA_SEED=%u", seed);
        ANSWER(c, "", "select \"check\", subject, expected, found from kiln_audit()");
        DO(c, "truncate jobs, attempts, artifacts, idempotency, workers");
        DO(c, "begin");
        DO(c, "set local session_replication_role = replica");
        DO(c, "delete from ledger");
        DO(c, "delete from accounts");
        DO(c, "commit");
    }
    test_done(c);
}
