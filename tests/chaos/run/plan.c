/* plan.c - what happens when and to whom, out of the seed alone. Each deed comes once before any comes twice, in an
 * order of the seed's; so a short run has all of them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/chaos/run/run.h"

enum { FIRST_MS = 4000, KEEP_FIRST_MS = 15000, GAP_MIN_MS = 300, GAP_MAX_MS = 4200 };

const char *const deed_name[DEEDS] = {
    [DEED_KILL] = "kill",
    [DEED_DRAIN] = "drain",
    [DEED_FREEZE] = "freeze",
    [DEED_FAILPOINT] = "fail-point",
    [DEED_KILL_REDIS] = "kill-redis",
    [DEED_STOP_REDIS] = "stop-redis",
    [DEED_FREEZE_REDIS] = "freeze-redis",
    [DEED_FLUSH_REDIS] = "flush-redis",
    [DEED_KEEP_REDIS] = "keep-redis",
    [DEED_OLD_REDIS] = "old-redis",
    [DEED_KILL_POSTGRES] = "kill-postgres",
    [DEED_STOP_POSTGRES] = "stop-postgres",
    [DEED_FILL_DISK] = "fill-disk",
    [DEED_CUT] = "cut",
    [DEED_HOLD] = "hold",
    [DEED_DELAY] = "delay",
    [DEED_CLOCK] = "clock",
    [DEED_CLOCK_SQL] = "clock-sql",
    [DEED_PROVIDER] = "provider",
};
static const char *const door_name[DOORS] = { "redis", "postgres", "provider" };

static const int weight[DEEDS] = {
    [DEED_KILL] = 14,      [DEED_DRAIN] = 6,      [DEED_FREEZE] = 10,       [DEED_FAILPOINT] = 14,
    [DEED_KILL_REDIS] = 4, [DEED_STOP_REDIS] = 2, [DEED_FREEZE_REDIS] = 3,  [DEED_FLUSH_REDIS] = 4,
    [DEED_OLD_REDIS] = 3,  [DEED_FILL_DISK] = 3,  [DEED_KILL_POSTGRES] = 4, [DEED_STOP_POSTGRES] = 2,
    [DEED_CUT] = 10,       [DEED_HOLD] = 7,       [DEED_DELAY] = 6,         [DEED_CLOCK] = 4,
    [DEED_CLOCK_SQL] = 3,  [DEED_PROVIDER] = 8,
};

static const struct {
    const char *name, *actions;
} points[] = {
#include "chaos_points.h"
};

/* Rules for the sandbox: %s is the provider. */
static const char *const rules[] = {
    "{\"match\":{\"provider\":\"%s\"},\"fault\":{\"status\":503},\"times\":30}",
    "{\"match\":{\"provider\":\"%s\"},\"fault\":{\"status\":429,\"retry_after\":2},\"times\":10}",
    "{\"match\":{\"provider\":\"%s\"},\"fault\":{\"status\":500,\"at\":\"poll\"},\"times\":40}",
    "{\"match\":{\"provider\":\"%s\"},\"fault\":{\"drop_before\":true},\"times\":10}",
    "{\"match\":{\"provider\":\"%s\"},\"fault\":{\"drop_after\":true},\"times\":6}",
    "{\"match\":{\"provider\":\"%s\"},\"fault\":{\"drop_mid\":40,\"at\":\"poll\"},\"times\":20}",
    "{\"match\":{\"provider\":\"%s\"},\"fault\":{\"drop_mid\":300,\"at\":\"download\"},\"times\":20}",
    "{\"match\":{\"provider\":\"%s\"},\"fault\":{\"html\":true},\"times\":10}",
    "{\"match\":{\"provider\":\"%s\"},\"fault\":{\"reuse_close\":true},\"times\":10}",
    "{\"match\":{\"provider\":\"%s\"},\"fault\":{\"delay_ms\":3000,\"at\":\"poll\"},\"times\":20}",
    "{\"match\":{\"provider\":\"%s\"},\"fault\":{\"hang\":true},\"times\":4}",
    "{\"match\":{\"provider\":\"%s\"},\"fault\":{\"bad_json\":true,\"at\":\"poll\"},\"times\":20}",
};
static const char *const providers[] = { "openai", "stability", "leonardo" };

uint64_t chance_next(struct chance *c)
{
    uint64_t z = c->state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

int64_t chance_between(struct chance *c, int64_t from, int64_t to)
{
    return from + (int64_t)(chance_next(c) % (uint64_t)(to - from + 1));
}

bool chance_of(struct chance *c, int percent)
{
    return chance_between(c, 1, 100) <= percent;
}

static void pick_point(struct chance *c, struct event *e)
{
    size_t i = (size_t)chance_between(c, 0, (int64_t)COUNT(points) - 1);
    const char *a = points[i].actions;
    int words = 1, word;

    for (const char *p = a; *p; p++)
        words += *p == ' ';
    for (word = (int)chance_between(c, 0, words - 1); word > 0; word--)
        a += strcspn(a, " ") + 1;
    (void)snprintf(e->text, sizeof(e->text), "%s=%.*s%s@%d", points[i].name, (int)strcspn(a, " "), a,
                   strncmp(a, "stall", 5) ? "" : ":5500", (int)chance_between(c, 1, 25));
}

static void fill_in(struct chance *c, struct event *e, int dispatchers, int workers)
{
    bool is_worker = chance_of(c, 70);

    e->who =
        is_worker ? dispatchers + (int)chance_between(c, 0, workers - 1) : (int)chance_between(c, 0, dispatchers - 1);
    e->door = (enum door)chance_between(c, 0, is_worker ? DOOR_PROVIDER : DOOR_POSTGRES);
    switch (e->deed) {
    case DEED_KILL:
    case DEED_DRAIN:
        e->for_ms = chance_of(c, 60) ? 0 : chance_between(c, 500, 7000);
        break;
    case DEED_FREEZE:
        e->for_ms = chance_of(c, 70) ? chance_between(c, 4600, 9000) : chance_between(c, 500, 4400);
        break;
    case DEED_FAILPOINT:
        pick_point(c, e);
        break;
    case DEED_KILL_REDIS:
    case DEED_STOP_REDIS:
    case DEED_KILL_POSTGRES:
    case DEED_STOP_POSTGRES:
        e->for_ms = chance_of(c, 50) ? 0 : chance_between(c, 500, 6000);
        break;
    case DEED_FREEZE_REDIS:
    case DEED_FILL_DISK:
        e->for_ms = chance_between(c, 1000, 8000);
        break;
    case DEED_HOLD:
        e->for_ms = chance_between(c, 500, 9000);
        break;
    case DEED_DELAY:
        e->for_ms = chance_between(c, 2000, 8000);
        e->amount = chance_between(c, 20, 700);
        break;
    case DEED_CLOCK:
        e->amount = chance_between(c, -120000, 120000);
        break;
    case DEED_CLOCK_SQL:
        e->amount = chance_between(c, -15000, 15000);
        break;
    case DEED_PROVIDER:
        e->for_ms = chance_between(c, 2000, 8000);
        /* a literal of ours: the one %s is the provider */
        (void)snprintf(e->text, sizeof(e->text), rules[chance_between(c, 0, (int64_t)COUNT(rules) - 1)],
                       providers[chance_between(c, 0, (int64_t)COUNT(providers) - 1)]);
        break;
    default:
        break;
    }
}

static enum deed pick_deed(struct chance *c)
{
    int64_t all = 0, at;

    for (size_t i = 0; i < DEEDS; i++)
        all += weight[i];
    at = chance_between(c, 0, all - 1);
    for (size_t i = 0; i < DEEDS; i++)
        if ((at -= weight[i]) < 0)
            return (enum deed)i;
    return DEED_KILL;
}

static void shuffle(struct chance *c, enum deed *deck)
{
    for (size_t i = 0; i < DEEDS; i++)
        deck[i] = (enum deed)i;
    for (size_t i = DEEDS - 1; i > 0; i--) {
        size_t k = (size_t)chance_between(c, 0, (int64_t)i);
        enum deed swap = deck[i];

        deck[i] = deck[k];
        deck[k] = swap;
    }
}

static void add(struct plan *p, const struct event *e)
{
    p->events = realloc(p->events, (p->count + 1) * sizeof(*p->events));
    if (!p->events)
        abort();
    p->events[p->count++] = *e;
}

struct plan plan_make(uint64_t seed, int64_t run_ms, int dispatchers, int workers)
{
    struct plan p = { NULL, 0 };
    struct chance c = { seed };
    enum deed deck[DEEDS];
    int64_t at = FIRST_MS, keep = KEEP_FIRST_MS;
    size_t next = 0;

    shuffle(&c, deck);
    while (at < run_ms) {
        struct event e = { .at_ms = at };

        if (at >= keep) { /* the file to go back to gets old before it is replaced */
            e.deed = DEED_KEEP_REDIS;
            add(&p, &e);
            keep += run_ms / 3 > 60000 ? run_ms / 3 : 60000;
            at += GAP_MIN_MS;
            continue;
        }
        while (next < DEEDS && weight[deck[next]] == 0)
            next++;
        if (next < DEEDS && deck[next] == DEED_OLD_REDIS && at < 2 * KEEP_FIRST_MS && next + 1 < DEEDS) {
            deck[next] = deck[next + 1]; /* not yet: there is no old file */
            deck[next + 1] = DEED_OLD_REDIS;
        }
        e.deed = next < DEEDS ? deck[next++] : pick_deed(&c);
        fill_in(&c, &e, dispatchers, workers);
        if (e.deed != DEED_KEEP_REDIS)
            add(&p, &e);
        at += chance_between(&c, GAP_MIN_MS, GAP_MAX_MS);
    }
    return p;
}

void plan_line(const struct event *e, int dispatchers, char *out, size_t size)
{
    char who[32] = "", more[256] = "";

    if (e->deed <= DEED_FAILPOINT || e->deed == DEED_CUT || e->deed == DEED_HOLD || e->deed == DEED_DELAY ||
        e->deed == DEED_CLOCK)
        (void)snprintf(who, sizeof(who), " %s%d", e->who < dispatchers ? "dispatcher" : "worker",
                       e->who < dispatchers ? e->who : e->who - dispatchers);
    if (e->deed == DEED_CUT || e->deed == DEED_HOLD || e->deed == DEED_DELAY)
        (void)snprintf(more, sizeof(more), " from %s", door_name[e->door]);
    if (e->amount)
        (void)snprintf(more + strlen(more), sizeof(more) - strlen(more), " by %lld ms", (long long)e->amount);
    if (e->for_ms)
        (void)snprintf(more + strlen(more), sizeof(more) - strlen(more), " for %lld ms", (long long)e->for_ms);
    if (e->text[0])
        (void)snprintf(more + strlen(more), sizeof(more) - strlen(more), " %s", e->text);
    (void)snprintf(out, size, "%8.1f s  %s%s%s", (double)e->at_ms / 1000, deed_name[e->deed], who, more);
}

void plan_print(const struct plan *p, int dispatchers)
{
    char line[512];

    for (size_t i = 0; i < p->count; i++) {
        plan_line(&p->events[i], dispatchers, line, sizeof(line));
        (void)puts(line);
    }
}
