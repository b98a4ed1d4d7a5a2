/* stats.c - registers the worker's series and counts into them. */
#include <stdio.h>
#include <string.h>
#include "worker/stats.h"

void stats_init(struct worker_stats *s, struct metrics *m)
{
    *s = (struct worker_stats){ .metrics = m };
    s->claims = metrics_counter(m, "kiln_worker_claims_total", "Jobs claimed", NULL);
    s->stale =
        metrics_counter(m, "kiln_worker_stale_writes_total", "Writes refused because another holds the job", NULL);
    s->gaps = metrics_counter(m, "kiln_worker_heartbeat_gaps_total", "Heartbeats with a gap of 3 s or more", NULL);
    s->no_rule = metrics_counter(m, "kiln_worker_no_rule_total", "Events that no rule fits: a bug", NULL);
    s->settle_lag = metrics_histogram(m, "kiln_worker_settle_seconds", "From an outcome until PostgreSQL has it",
                                      metrics_seconds, metrics_seconds_count, NULL);
    for (int i = 0; i < 8; i++)
        s->start[i] = metrics_counter(m, "kiln_worker_starts_total", "Answers of kiln_start", "verdict",
                                      start_verdict_name[i], NULL);
}

void stats_start(struct worker_stats *s, enum start_verdict verdict)
{
    metric_add(s->start[verdict], 1);
}

static struct stats_requests stats_requests_of(struct worker_stats *s, const char *provider, const char *kind,
                                               long status)
{
    struct stats_requests r = { .kind = kind, .status = status };
    char word[16];

    for (size_t i = 0; i < s->request_count; i++) {
        const struct stats_requests *one = &s->requests[i];

        if (one->status == status && one->kind == kind && strcmp(one->provider, provider) == 0)
            return *one;
    }
    (void)snprintf(word, sizeof(word), "%ld", status);
    r.count = metrics_counter(s->metrics, "kiln_provider_requests_total", "Requests to providers; status 0: no answer",
                              "provider", provider, "kind", kind, "status", status ? word : "0", NULL);
    r.seconds = metrics_histogram(s->metrics, "kiln_provider_request_seconds", "Duration of requests to providers",
                                  metrics_seconds, metrics_seconds_count, "provider", provider, "kind", kind, NULL);
    if (s->request_count < STATS_RECENT && strlen(provider) < sizeof(r.provider)) {
        memcpy(r.provider, provider, strlen(provider) + 1);
        s->requests[s->request_count++] = r;
    }
    return r;
}

void stats_request(struct worker_stats *s, const char *provider, const char *kind, long status, int64_t ms)
{
    const struct stats_requests r = stats_requests_of(s, provider, kind, status);

    metric_add(r.count, 1);
    metric_observe(r.seconds, (double)ms / 1000);
}

void stats_settled(struct worker_stats *s, const char *provider, enum ledger_outcome outcome, enum err code)
{
    metric_add(metrics_counter(s->metrics, "kiln_worker_settled_total", "Attempts settled", "provider", provider,
                               "outcome", ledger_outcome_name[outcome], "code", err_word(code), NULL),
               1);
}

void stats_reconciled(struct worker_stats *s, const char *provider, bool is_found)
{
    metric_add(metrics_counter(s->metrics, "kiln_worker_reconciled_total",
                               "Submits without an answer that the provider was asked for", "provider", provider,
                               "found", is_found ? "yes" : "no", NULL),
               1);
}
