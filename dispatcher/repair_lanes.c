/* repair_lanes.c - what PostgreSQL says of lanes and weights, told to Redis: when it changed, and now and then anyway.
 */
#include <stdlib.h>
#include <string.h>
#include "common/base/clock.h"
#include "common/base/log.h"
#include "dispatcher/repair.h"
#include "dispatcher/repair_inner.h"

enum {
    LIMITS_EVERY_MS = 10000,
    WEIGHTS_EVERY_MS = 5000,
    WEIGHTS_ANYWAY_MS = 60000, /* told again though nothing changed: Redis may have been restored from a file */
};

static void limits_on_rows(void *ctx, enum err err, const struct db_result *result)
{
    struct repair *r = ctx;
    const struct catalog *c = r->d->catalog;
    struct queue_limits limits[REPAIR_LANES_MAX];
    size_t n = 0;

    if (err != ERR_OK || !repair_can_publish(r))
        return;
    for (size_t i = 0; i < catalog_provider_count(c) && n < ARRAY_LEN(limits); i++) {
        const struct catalog_provider *p = catalog_provider_at(c, i);
        struct queue_limits *l = &limits[n++];

        *l = (struct queue_limits){ .lane = p->name,
                                    .concurrency = p->concurrency,
                                    .budget_count = p->budget_count,
                                    .budget_window_ms = p->budget_window_ms,
                                    .paused_ms = -1,
                                    .keys = (int64_t)p->key_count };
        for (int k = 0; k < db_rows(result); k++) {
            if (strcmp(db_col(result, k, "name"), p->name) != 0)
                continue;
            if (!db_is_null(result, k, "concurrency"))
                l->concurrency = db_col_int(result, k, "concurrency");
            if (!db_is_null(result, k, "budget_count")) {
                l->budget_count = db_col_int(result, k, "budget_count");
                l->budget_window_ms = db_col_int(result, k, "budget_window_ms");
            }
            if (db_col_int(result, k, "paused_ms") > 0)
                l->paused_ms = db_col_int(result, k, "paused_ms");
        }
    }
    if (n == r->limit_count && memcmp(limits, r->limits, n * sizeof(*limits)) == 0 &&
        clock_mono_ms() - r->limits_ms < LIMITS_EVERY_MS)
        return; /* each call wakes a worker */
    memcpy(r->limits, limits, n * sizeof(*limits));
    r->limit_count = n;
    r->limits_ms = clock_mono_ms();
    queue_set_limits(r->d->queue, limits, n, repair_on_hint, r);
}

static uint64_t digest_text(uint64_t digest, const char *s) /* FNV-1a; the NUL counts */
{
    do
        digest = (digest ^ (unsigned char)*s) * UINT64_C(1099511628211);
    while (*s++ != '\0');
    return digest;
}

static void weights_on_rows(void *ctx, enum err err, const struct db_result *result)
{
    struct repair *r = ctx;
    uint64_t digest = UINT64_C(14695981039346656037);
    int rows = err == ERR_OK ? db_rows(result) : 0;
    struct queue_weight *weights;

    if (err != ERR_OK || !repair_can_publish(r))
        return;
    weights = calloc((size_t)rows + 1, sizeof(*weights));
    if (weights == NULL)
        return; /* in five seconds again */
    for (int i = 0; i < rows; i++) {
        weights[i] = (struct queue_weight){ .app = db_col(result, i, "app"),
                                            .account = db_col(result, i, "account"),
                                            .weight = db_col_int(result, i, "weight") };
        digest = digest_text(digest_text(digest, weights[i].app), weights[i].account);
        digest = digest_text(digest, db_col(result, i, "weight"));
    }
    if (digest != r->weights_digest || clock_mono_ms() - r->weights_ms >= WEIGHTS_ANYWAY_MS) {
        r->weights_digest = digest;
        r->weights_ms = clock_mono_ms();
        if (rows == QUEUE_WEIGHTS_MAX)
            log_warn("weights_full", log_int("max", QUEUE_WEIGHTS_MAX)); /* those beyond have weight 1 */
        queue_set_weights(r->d->queue, weights, (size_t)rows, repair_on_hint, r);
    }
    free(weights);
}

static void repair_weights(struct repair *r)
{
    char max[12];
    const char *values[] = { max };

    if (r->limit_count == 0)
        r->weights_digest = 0; /* Redis may know of none */
    else if (clock_mono_ms() - r->weights_asked_ms < WEIGHTS_EVERY_MS)
        return;
    r->weights_asked_ms = clock_mono_ms();
    snprintf(max, sizeof(max), "%d", QUEUE_WEIGHTS_MAX);
    (void)db_query(r->d->repair_db, "select app, account, weight from kiln_weights($1::int)", ARRAY_LEN(values), values,
                   REPAIR_PATIENCE_MS, weights_on_rows, r); /* lost: again in five seconds */
}

/* A pause of 'infinity' is 30 days in Redis, told anew every ten seconds: PostgreSQL does not subtract infinities, and
 * one such row must not keep all lanes from their limits. */
void repair_limits(struct repair *r)
{
    repair_weights(r);
    (void)db_query(
        r->d->repair_db,
        "select name, concurrency, budget_count, budget_window_ms, case when paused_until > kiln_now() then "
        "(extract(epoch from least(paused_until, kiln_now() + interval '30 days') - kiln_now()) * 1000)::bigint "
        "else 0 end as paused_ms from lanes",
        0, NULL, REPAIR_PATIENCE_MS, limits_on_rows, r); /* lost: again in a second */
}

void repair_lanes(struct repair *r)
{
    r->limit_count = 0;
    if (repair_can_publish(r))
        repair_limits(r);
}
