/* test_metrics.c - series are found again, bounded, escaped and printed as Prometheus reads them. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include "common/base/metrics.h"

Test(metrics, prints_counters_gauges_and_cumulative_histograms)
{
    static const double bounds[] = { 0.1, 1 };
    struct metrics *m = metrics_new();
    struct buf b = { 0 };

    metric_add(metrics_counter(m, "kiln_requests_total", "Requests.", "code", "ok", NULL), 2);
    metric_add(metrics_counter(m, "kiln_requests_total", "Requests.", "code", "ok", NULL), 1);
    metric_set(metrics_gauge(m, "kiln_depth", "Depth.", NULL), -1.5);
    struct metric *h = metrics_histogram(m, "kiln_seconds", "Time.", bounds, 2, "call", "a", NULL);
    metric_observe(h, 0.1);
    metric_observe(h, 0.5);
    metric_observe(h, 7);
    cr_assert(metrics_print(m, &b));
    cr_expect_str_eq(b.data,
                     "# HELP kiln_requests_total Requests.\n# TYPE kiln_requests_total counter\n"
                     "kiln_requests_total{code=\"ok\"} 3\n"
                     "# HELP kiln_depth Depth.\n# TYPE kiln_depth gauge\nkiln_depth -1.5\n"
                     "# HELP kiln_seconds Time.\n# TYPE kiln_seconds histogram\n"
                     "kiln_seconds_bucket{call=\"a\",le=\"0.1\"} 1\nkiln_seconds_bucket{call=\"a\",le=\"1\"} 2\n"
                     "kiln_seconds_bucket{call=\"a\",le=\"+Inf\"} 3\nkiln_seconds_sum{call=\"a\"} 7.6\n"
                     "kiln_seconds_count{call=\"a\"} 3\n");
    buf_done(&b);
    metrics_free(m);
    metrics_free(NULL);
}

Test(metrics, foreign_text_cannot_break_a_line_or_grow_without_bound)
{
    struct metrics *m = metrics_new();
    struct buf b = { 0 };
    size_t lines = 0;
    char name[32];

    metric_add(metrics_counter(m, "c", "h", "l", "a\"b\\c\nd\xff", NULL), 1);
    for (int i = 0; i < 1000; i++) {
        (void)snprintf(name, sizeof name, "v%d", i);
        metric_add(metrics_counter(m, "c", "h", "l", name, NULL), 1);
    }
    cr_assert(metrics_print(m, &b));
    cr_expect_not_null(strstr(b.data, "c{l=\"a\\\"b\\\\c\\nd?\"} 1\n"));
    cr_expect_not_null(strstr(b.data, "c{l=\"other\"} 745\n"));
    for (const char *p = b.data; *p; p++)
        lines += *p == '\n';
    cr_expect_eq(lines, 2 + 256 + 1);
    cr_expect_eq(metric_value(metrics_counter(m, "c", "h", "l", "v3", NULL)), 1);
    buf_done(&b);
    metrics_free(m);
}
