/* stats.h - what this worker counts: one struct of series, registered once, so that no hot path looks a name up. */
#ifndef KILN_STATS_H
#define KILN_STATS_H
#include "common/base/metrics.h"
#include "common/core/holder.h"
#include "common/core/ledger.h"

enum { STATS_RECENT = 32 };

struct worker_stats {
    struct metrics *metrics;
    struct metric *claims, *settle_lag, *stale, *gaps, *start[8];
    struct metric *no_rule; /* our bug when not 0 */
    struct stats_requests {
        char provider[48];
        const char *kind; /* a literal */
        long status;
        struct metric *count, *seconds;
    } requests[STATS_RECENT]; /* found so far; the rest is looked up each time */
    size_t request_count;
};

void stats_init(struct worker_stats *s, struct metrics *m);
void stats_start(struct worker_stats *s, enum start_verdict verdict);
void stats_request(struct worker_stats *s, const char *provider, const char *kind, long status,
                   int64_t ms); /* status 0: none came */
void stats_settled(struct worker_stats *s, const char *provider, enum ledger_outcome outcome, enum err code);
void stats_reconciled(struct worker_stats *s, const char *provider, bool is_found);
#endif
