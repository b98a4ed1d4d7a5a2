/* counters.h - what the sandbox was asked and what it was paid: by tag, by key, in all; and the last requests. */
#ifndef SANDBOX_COUNTERS_H
#define SANDBOX_COUNTERS_H
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#define COUNTER_LIST(X)                                                                                                \
    X(REQUESTS, "requests")                                                                                            \
    X(PAID, "paid")                                                                                                    \
    X(IMAGES, "images")                                                                                                \
    X(COST, "cost_millicents")                                                                                         \
    X(REFUNDED, "refunded")                                                                                            \
    X(POLLS, "polls")                                                                                                  \
    X(DOWNLOADS, "downloads")                                                                                          \
    X(REFUSED, "refused")                                                                                              \
    X(CUT, "cut")                                                                                                      \
    X(CANCELED, "canceled")                                                                                            \
    X(LIMITED, "rate_limited")                                                                                         \
    X(CANCELS, "cancels")

enum counter {
#define X(member, name) COUNT_##member,
    COUNTER_LIST(X)
#undef X
        COUNT_KINDS
};

struct counters;
struct counters *counters_new(void);
void counters_free(struct counters *c);
void counters_reset(struct counters *c);

/* tag and key may be NULL; the total is always counted. key is the account: "provider:fingerprint". */
void counters_add(struct counters *c, const char *tag, const char *key, enum counter kind, int64_t n);
int64_t counters_cost(const struct counters *c, const char *key);
json_t *counters_tag_json(const struct counters *c, const char *tag); /* zeroes when never seen */
json_t *counters_json(const struct counters *c);                      /* {"totals","tags","keys"} */

struct request_note {
    int64_t at_ms;
    int status;             /* 0: cut by a fault; -1: the client went away */
    unsigned on_connection; /* first request on its connection is 1 */
    char method[8], path[120], phase[10], tag[65], key[32], idempotency_key[80];
};
void counters_note(struct counters *c, const struct request_note *note);
json_t *counters_notes_json(const struct counters *c, const char *tag); /* oldest first, at most 100; NULL: any tag */
#endif
