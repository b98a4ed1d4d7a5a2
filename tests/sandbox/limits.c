/* limits.c - sliding-window rate limits with a time-out for those who go over (see limits.h). */
#include "limits.h"
#include "map.h"
#include "text.h"

#include <stdlib.h>

struct window {
    int64_t *at_ms; /* ring of the requests inside the window */
    size_t head, count, cap;
    int64_t barred_until_ms;
};

struct limits {
    struct map *windows;
    int64_t peak;
};

static void window_free(void *p)
{
    struct window *w = p;
    free(w->at_ms);
    free(w);
}

struct limits *limits_new(void)
{
    struct limits *l = text_alloc(sizeof *l);
    l->windows = map_new();
    return l;
}

void limits_free(struct limits *l)
{
    if (l == NULL)
        return;
    map_free(l->windows, window_free);
    free(l);
}

void limits_reset(struct limits *l)
{
    map_clear(l->windows, window_free);
    l->peak = 0;
}

int64_t limits_peak(const struct limits *l)
{
    return l->peak;
}

static void window_push(struct window *w, int64_t now_ms)
{
    if (w->count == w->cap) {
        size_t cap = w->cap == 0 ? 64 : w->cap * 2;
        int64_t *wide = text_alloc(cap * sizeof *wide);
        for (size_t i = 0; i < w->count; i++)
            wide[i] = w->at_ms[(w->head + i) % w->cap];
        free(w->at_ms);
        w->at_ms = wide;
        w->head = 0;
        w->cap = cap;
    }
    w->at_ms[(w->head + w->count++) % w->cap] = now_ms;
}

int64_t limits_take(struct limits *l, const struct limit_ask *ask)
{
    if (ask->limit == 0)
        return 0;
    struct window *w = map_get(l->windows, ask->key);
    if (w == NULL) {
        w = text_alloc(sizeof *w);
        map_put(l->windows, ask->key, w);
    }
    if (ask->now_ms < w->barred_until_ms)
        return w->barred_until_ms - ask->now_ms;
    while (w->count > 0 && w->at_ms[w->head] <= ask->now_ms - ask->window_ms) {
        w->head = (w->head + 1) % w->cap;
        w->count--;
    }
    if ((int64_t)w->count + ask->weight > ask->limit) {
        if (ask->timeout_ms > 0) {
            w->barred_until_ms = ask->now_ms + ask->timeout_ms;
            w->count = 0; /* who has sat out the time starts afresh */
            return ask->timeout_ms;
        }
        int64_t wait = w->count == 0 ? ask->window_ms : w->at_ms[w->head] + ask->window_ms - ask->now_ms;
        return wait < 1 ? 1 : wait;
    }
    for (int64_t i = 0; i < ask->weight; i++)
        window_push(w, ask->now_ms);
    if ((int64_t)w->count > l->peak)
        l->peak = (int64_t)w->count;
    return 0;
}
