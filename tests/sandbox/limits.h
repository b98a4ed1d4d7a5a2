/* limits.h - sliding windows: how many requests a key made in the last so many milliseconds. */
#ifndef SANDBOX_LIMITS_H
#define SANDBOX_LIMITS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct limits;
struct limits *limits_new(void);
void limits_free(struct limits *l);
void limits_reset(struct limits *l);

struct limit_ask {
    const char *key; /* provider and key */
    int64_t now_ms, limit, window_ms;
    int64_t timeout_ms; /* whoever goes over is refused everything for so long; 0 = only until the window has room */
    int64_t weight;     /* how much this request counts */
};

/* The most requests that one key had in a window, of those it was let have. */
int64_t limits_peak(const struct limits *l);

/* 0: go ahead, and it is counted. Otherwise the milliseconds to wait. A limit of 0 is no limit. */
int64_t limits_take(struct limits *l, const struct limit_ask *ask);
#endif
