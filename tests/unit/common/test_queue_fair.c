/* test_queue_fair.c - whose turn it is: one account's mass beside many small ones, weights, and what comes when.
 *
 * Where time is counted it is counted in starts: the eight workers start one job each a step, so a wait does not depend
 * on the machine. */
#include <math.h>
#include <stdlib.h>
#include "common/base/clock.h"
#include "queue_world.h"

enum { WORKERS = 8, SMALL = 99, EACH = 10, MASS = 100000 };

static unsigned dice_state = 20261121;
static unsigned dice(unsigned sides)
{
    dice_state = dice_state * 1664525u + 1013904223u;
    return (dice_state >> 8) % sides;
}

static int by_size(const void *a, const void *b)
{
    int x = *(const int *)a, y = *(const int *)b;
    return (x > y) - (x < y);
}

static const char *small_name(int i)
{
    static char names[SMALL][24];
    (void)snprintf(names[i], sizeof(names[i]), "small-%02d", i);
    return names[i];
}

/* Steps until each job of the small accounts starts, their p99: `spread` is over how many steps the accounts come. */
static int p99_wait(struct world *w, int first_id, int spread)
{
    static int waits[SMALL * EACH];
    int arrival[SMALL], started = 0;

    dice_state = 7;
    for (int i = 0; i < SMALL; i++)
        arrival[i] = spread ? (int)dice((unsigned)spread) : 0;
    for (int step = 0; started < SMALL * EACH; step++) {
        cr_assert_lt(step, 10000, "%d of %d started", started, SMALL * EACH);
        for (int i = 0; i < SMALL; i++)
            if (arrival[i] == step)
                publish_many(w, first_id + i * EACH, EACH, "lane", "app", small_name(i));
        for (int k = 1; k <= WORKERS; k++) {
            if (claim(w, k, 1) == 0)
                continue;
            int n = claimed_number(w, 0) - first_id;
            if (n >= 0 && n < SMALL * EACH)
                waits[started++] = step - arrival[n / EACH];
            char job[UUID_TEXT];
            memcpy(job, w->a.claims[0].job, UUID_TEXT);
            forget(w, k, job);
        }
    }
    qsort(waits, SMALL * EACH, sizeof(waits[0]), by_size);
    return waits[SMALL * EACH * 99 / 100];
}

Test(queue_fair, a_hundred_thousand_jobs_of_one_account_at_most_double_the_wait_of_99_others)
{
    static const int spreads[] = { 0, 60, 120 }; /* all at once; while they come, the workers are about to keep up */
    struct world *w = world_new(WORKERS);
    int idle[ARRAY_LEN(spreads)], beside[ARRAY_LEN(spreads)];

    for (size_t i = 0; i < ARRAY_LEN(spreads); i++)
        idle[i] = p99_wait(w, (int)(1000000 + i * 10000), spreads[i]);
    for (int n = 0; n < MASS; n += 10000)
        publish_many(w, n, 10000, "lane", "app", "mass");
    for (size_t i = 0; i < ARRAY_LEN(spreads); i++)
        beside[i] = p99_wait(w, (int)(2000000 + i * 10000), spreads[i]);
    for (size_t i = 0; i < ARRAY_LEN(spreads); i++) {
        fprintf(stderr,
                "99 accounts with 10 jobs each, come within %d steps: p99 wait %d steps alone, %d beside %d jobs\n",
                spreads[i], idle[i], beside[i], MASS);
        cr_expect_leq(beside[i], 2 * idle[i], "spread %d: %d steps, %d on an idle system", spreads[i], beside[i],
                      idle[i]);
    }
    world_free(w);
}

/* --- a crowd: as many accounts wait as a claim may take ----------------------------------------------------------- */

enum { CROWD = 150, HAVE = 5, THEY_HAVE = CROWD * HAVE };

static int crowd_job(int account, int turn)
{
    return account * 10 + turn;
}

static const char *crowd_name(int i) /* in another order than they came */
{
    static char name[24];
    (void)snprintf(name, sizeof(name), "%03d-crowd", i * 7 % CROWD);
    return name;
}

static void expect_within(const int *got, int count, int most, const char *what)
{
    int low = got[0], high = got[0];
    for (int i = 1; i < count; i++) {
        low = got[i] < low ? got[i] : low;
        high = got[i] > high ? got[i] : high;
    }
    cr_assert_leq(high - low, most, "%s: one had %d turns, another %d", what, high, low);
}

/* Claims of one to `most` jobs; a newcomer in the midst of it. */
static void crowd_is_fair(struct world *w, unsigned seed, int most, bool comes_late, const char *lane)
{
    int got[CROWD] = { 0 }, since[CROWD + 1] = { 0 }, first = (int)seed * 10000;
    bool is_there = false;

    dice_state = seed;
    for (int i = 0; i < CROWD; i++)
        publish_many(w, first + crowd_job(i, 0), HAVE, lane, "app", crowd_name(i));
    for (int left = THEY_HAVE; left > 0;) {
        if (comes_late && !is_there && left < 2 * THEY_HAVE / 3) {
            publish_many(w, first + crowd_job(CROWD, 0), HAVE, lane, "app", "075-newcomer");
            memset(since, 0, sizeof(since));
            is_there = true;
            left += HAVE;
        }
        int ask = 1 + (int)dice((unsigned)most), n = (int)claim(w, 1, (size_t)(ask < left ? ask : left));
        cr_assert_eq(n, ask < left ? ask : left, "claims are full while there are jobs");
        left -= n;
        for (int i = 0; i < n; i++) {
            int account = (claimed_number(w, (size_t)i) - first) / 10;
            since[account]++;
            if (account < CROWD)
                got[account]++;
        }
        expect_within(got, CROWD, 1, lane);
        for (int i = 0; i < CROWD && is_there && since[CROWD] < HAVE && got[i] < HAVE; i++)
            cr_assert_leq(abs(since[i] - since[CROWD]), 1, "%s: a newcomer had %d turns, another since then %d", lane,
                          since[CROWD], since[i]);
    }
}

Test(queue_fair, in_a_crowd_nobody_has_a_second_turn_before_each_has_had_one)
{
    static const int sizes[] = { 2, 7, 60, 100, CROWD };
    struct world *w = world_new(1);
    char lane[24];
    unsigned seed = 1;

    for (size_t k = 0; k < ARRAY_LEN(sizes); k++)
        for (int late = 0; late < 2; late++, seed++) {
            (void)snprintf(lane, sizeof(lane), "crowd-of-%d-%s", sizes[k], late ? "late" : "early");
            crowd_is_fair(w, seed, sizes[k], late, lane);
        }
    world_free(w);
}

/* A crowd of which `few` have `each` jobs, and the others lost theirs: their places stay until a claim comes to them.
 */
static void publish_hollow(struct world *w, const char *lane, int few, int each)
{
    for (int i = 0; i < CROWD; i++)
        publish_many(w, crowd_job(i, 0), i < few ? each : 1, lane, "app", crowd_name(i));
    for (int i = few; i < CROWD; i++)
        ASK(w, queue_cancel(w->at[0].q, job_id(crowd_job(i, 0)), 5, NULL, on_done, &w->a));
}

Test(queue_fair, a_crowd_that_has_lost_its_jobs_holds_up_nobody)
{
    struct world *w = world_new(1);

    publish_hollow(w, "lane", 40, 2);
    cr_expect_eq(claim(w, 1, CROWD), 40);
    cr_expect_eq(w->a.ms, 1, "what is left is asked for at once, not at the next wake");
    cr_expect_eq(claim(w, 1, CROWD), 40, "and those without jobs stand there no more");
    cr_expect_eq(claim(w, 1, CROWD), 0);
    cr_expect_eq(w->a.ms, -1);
    world_free(w);
}

Test(queue_fair, what_a_crowd_leaves_is_the_next_sleepers_when_another_lane_fills_the_claim)
{
    struct world *w = world_new(2);

    publish_hollow(w, "lane-a", 10, 9);
    publish_many(w, 100000, 90, "lane-b", "app", "a");
    freeReplyObject(redisCommand(w->server.admin, "DEL kiln:{0}:wake"));
    cr_expect_eq(claim(w, 1, 100), 100);
    redisReply *r = redisCommand(w->server.admin, "LLEN kiln:{0}:wake");
    cr_expect_gt(r->integer, 0, "80 jobs are left, and nobody was woken");
    freeReplyObject(r);
    cr_expect_eq(claim(w, 2, 100), 80);
    world_free(w);
}

/* Each moves on by its own turn, however many different times there are. */
Test(queue_fair, each_of_a_crowd_moves_on_by_one_turn)
{
    struct world *w = world_new(1);

    for (int i = 0; i < CROWD; i++)
        publish_many(w, crowd_job(i, 0), 3, "lane", i % 3 ? "app" : "other", crowd_name(i));
    for (int i = 0; i < CROWD; i++)
        freeReplyObject(redisCommand(w->server.admin, "ZADD kiln:{0}:accounts:lane:%s %.17g %s",
                                     i % 3 ? "app" : "other", i < 30 ? 7.0 : 7.0 + i / 200.0, crowd_name(i)));
    cr_expect_eq(claim(w, 1, 80), 80); /* of each app 40: fewer than either has accounts for */
    int moved = 0;
    for (int i = 0; i < CROWD; i++) {
        double was = i < 30 ? 7.0 : 7.0 + i / 200.0;
        redisReply *r = redisCommand(w->server.admin, "ZSCORE kiln:{0}:accounts:lane:%s %s", i % 3 ? "app" : "other",
                                     crowd_name(i));
        double is = atof(r->str);
        cr_expect(fabs(is - was) < 1e-9 || fabs(is - was - 1) < 1e-9, "%d: from %g to %g", i, was, is);
        moved += is > was + 0.5;
        freeReplyObject(r);
    }
    cr_expect_eq(moved, 80);
    world_free(w);
}

/* --- weights ------------------------------------------------------------------------------------------------------ */

static const int64_t weight_of[] = { 1, 2, 5 };
static const char *const app_of[] = { "app-one", "app-two", "app-five" }, *const account_of[] = { "a1", "a2", "a5" };
enum { KINDS = 3, SUM = 1 + 2 + 5, QUEUE_JOBS = 10000 };

static void set_weights(struct world *w, bool of_apps, bool of_accounts)
{
    struct queue_weight list[KINDS * (KINDS + 1)];
    size_t n = 0;
    for (size_t a = 0; a < KINDS; a++) {
        if (of_apps)
            list[n++] = (struct queue_weight){ .app = app_of[a], .weight = weight_of[a] };
        for (size_t c = 0; of_accounts && c < KINDS; c++)
            list[n++] = (struct queue_weight){ .app = app_of[a], .account = account_of[c], .weight = weight_of[c] };
    }
    cr_assert_eq(ASK(w, queue_set_weights(w->at[0].q, list, n, on_done, &w->a)), n);
    cr_assert_eq(w->a.err, ERR_OK);
}

/* Eight workers claim `total` jobs, some at a time; how many of each queue. The id's thousands say which queue. */
static void claim_many(struct world *w, int total, size_t most, int got[KINDS * KINDS])
{
    memset(got, 0, KINDS * KINDS * sizeof(got[0]));
    for (int left = total, k = 0; left > 0; k = (k + 1) % WORKERS) {
        size_t ask = 1 + dice((unsigned)most), n = claim(w, k + 1, ask < (size_t)left ? ask : (size_t)left);
        cr_assert_gt(n, 0);
        for (size_t i = 0; i < n; i++)
            got[claimed_number(w, i) / QUEUE_JOBS]++;
        left -= (int)n;
    }
}

static void expect_shares(const int got[KINDS * KINDS], int total, bool of_apps, bool of_accounts, const char *what)
{
    for (size_t q = 0; q < KINDS * KINDS; q++) {
        double share = (of_apps ? (double)weight_of[q / KINDS] / SUM : 1.0 / KINDS) *
                       (of_accounts ? (double)weight_of[q % KINDS] / SUM : 1.0 / KINDS);
        double want = share * total;
        cr_expect(got[q] >= want * 0.95 && got[q] <= want * 1.05, "%s: %s of %s got %d of %d, its share is %.0f", what,
                  account_of[q % KINDS], app_of[q / KINDS], got[q], total, want);
    }
}

Test(queue_fair, backlogged_apps_and_accounts_get_their_weights_within_five_percent)
{
    struct world *w = world_new(WORKERS);
    enum { TOTAL = 6400, TURNS = 4 };
    static const struct {
        bool of_apps, of_accounts;
        size_t most;
        const char *what;
    } turns[TURNS] = { { true, true, 20, "both" },
                       { true, false, 200, "apps" },
                       { false, true, 1, "accounts" },
                       { false, false, 7, "none" } };
    int got[KINDS * KINDS];

    set_weights(w, true, true);
    for (int q = 0; q < KINDS * KINDS; q++)
        publish_many(w, q * QUEUE_JOBS, 900 + (int)(weight_of[q / KINDS] * weight_of[q % KINDS]) * 140 + 2800, "lane",
                     app_of[q / KINDS], account_of[q % KINDS]);
    for (size_t i = 0; i < TURNS; i++) { /* weights change while all wait: the next starts go by the new ones */
        int total = i == 2 ? TOTAL / 4 : TOTAL;
        set_weights(w, turns[i].of_apps, turns[i].of_accounts);
        claim_many(w, 640, turns[i].most, got); /* what virtual times differ by is made up for at once */
        claim_many(w, total, turns[i].most, got);
        expect_shares(got, total, turns[i].of_apps, turns[i].of_accounts, turns[i].what);
    }
    world_free(w);
}

Test(queue_fair, who_was_away_starts_at_the_lanes_present_whatever_its_weight)
{
    struct world *w = world_new(WORKERS);
    int got[KINDS * KINDS], late = 0;

    set_weights(w, false, true); /* a1, a2 and a5 of app-one */
    publish_many(w, 0, 6000, "lane", app_of[0], account_of[0]);
    publish_many(w, 2 * QUEUE_JOBS, 1, "lane", app_of[0], account_of[2]); /* it was there, and had nothing more */
    claim_many(w, 4000, 50, got);
    cr_expect_eq(got[2], 1);
    publish_many(w, QUEUE_JOBS, 2000, "lane", app_of[0], account_of[1]);
    claim_many(w, 9, 9, got); /* 2:1 from the first start on: nothing for the 4,000 before */
    cr_expect(got[1] >= 5 && got[1] <= 7, "%d of the first nine", got[1]);
    publish_many(w, 2 * QUEUE_JOBS + 1, 2000, "lane", app_of[0], account_of[2]);
    claim_many(w, 16, 16, got);
    cr_expect(got[2] >= 8 && got[2] <= 12, "%d of the first sixteen, its share is ten", got[2]);
    for (int i = 0; i < 100; i++) { /* who comes with one job after the other has its share, not more */
        publish(w, item(3 * QUEUE_JOBS + i, "lane", app_of[0], "one-by-one"));
        claim_many(w, 9, 1, got);
        late += got[3];
    }
    cr_expect(late >= 95 && late <= 100, "weight 1 of 9: %d of 900 starts", late);
    world_free(w);
}

/* --- what comes when ---------------------------------------------------------------------------------------------- */

Test(queue_fair, an_accounts_jobs_come_by_priority_then_age_for_eight_workers)
{
    enum { JOBS = 2000 };
    struct world *w = world_new(WORKERS);
    static int64_t prio[JOBS], age[JOBS];
    int last = -1, count = 0;

    for (int i = 0; i < JOBS; i++) {
        struct queue_item it = item(i, "lane", "app", "a");
        prio[i] = it.priority = (int64_t)dice(201) - 100;
        age[i] = it.created_ms = 1790000000000 + (int64_t)dice(100000);
        publish(w, it);
    }
    for (int k = 0; count < JOBS; k++) {
        size_t n = claim(w, k % WORKERS + 1, 1 + dice(30));
        cr_assert_gt(n, 0);
        for (size_t i = 0; i < n; i++, count++) {
            int now = claimed_number(w, i);
            cr_assert(last < 0 || prio[now] < prio[last] || (prio[now] == prio[last] && age[now] >= age[last]),
                      "priority %d, age %d after priority %d, age %d", (int)prio[now], (int)age[now],
                      last < 0 ? 0 : (int)prio[last], last < 0 ? 0 : (int)age[last]);
            last = now;
        }
    }
    world_free(w);
}

Test(queue_fair, delayed_jobs_never_come_early_and_soon_after_their_time)
{
    enum { JOBS = 400 };
    struct world *w = world_new(WORKERS);
    static int64_t due[JOBS];
    static int late[JOBS];
    int count = 0;

    for (int i = 0; i < JOBS; i++) {
        struct queue_item it = item(i, i % 2 ? "one" : "two", "app", i % 3 ? "a" : "b");
        it.delay_ms = 1 + (int64_t)dice(2000);
        due[i] = clock_wall_ms() + it.delay_ms; /* Redis adds it later: never before this */
        publish(w, it);
    }
    for (int k = 0; count < JOBS; k++) {
        size_t n = claim(w, k % WORKERS + 1, 100);
        int64_t now = clock_wall_ms(), next = w->a.ms;
        for (size_t i = 0; i < n; i++) {
            int job = claimed_number(w, i);
            cr_expect_geq(now, due[job]);
            late[count++] = (int)(now - due[job]);
        }
        cr_assert(n > 0 || next > 0, "nothing, and not told when to look again");
        if (n == 0)
            run_ms(w, (int)next); /* as a worker does */
    }
    qsort(late, JOBS, sizeof(late[0]), by_size);
    fprintf(stderr, "delayed jobs: %d ms late at the median, %d ms at p99\n", late[JOBS / 2], late[JOBS * 99 / 100]);
    cr_expect_leq(late[JOBS / 2], 200); /* on a machine that does other things as well */
    world_free(w);
}
