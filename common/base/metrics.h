/* metrics.h - counters, gauges and histograms of one process, as Prometheus text.
 *
 * Series are registered by name and up to three label pairs, and found again by the same; the number of series a metric
 * may have is bounded (256), the rest go to a series labelled "other", so that foreign text cannot grow memory.
 * One loop only. */
#ifndef KILN_METRICS_H
#define KILN_METRICS_H
#include <stdint.h>
#include "common/base/text.h"

struct metrics;
struct metric; /* one series; valid as long as the metrics */

struct metrics *metrics_new(void);
void metrics_free(struct metrics *m);

/* labels: "name", "value" pairs, NULL-terminated; help is taken from the first registration. Never NULL. */
struct metric *metrics_counter(struct metrics *m, const char *name, const char *help, ...) __attribute__((sentinel));
struct metric *metrics_gauge(struct metrics *m, const char *name, const char *help, ...) __attribute__((sentinel));
struct metric *metrics_histogram(struct metrics *m, const char *name, const char *help, const double *bounds,
                                 size_t count, ...) __attribute__((sentinel)); /* bounds ascending, static */
void metric_add(struct metric *s, double value);                               /* counter, gauge */
void metric_set(struct metric *s, double value);                               /* gauge */
void metric_observe(struct metric *s, double value);
double metric_value(const struct metric *s);
bool metrics_print(struct metrics *m, struct buf *out); /* text/plain; version=0.0.4 */

extern const double metrics_seconds[]; /* 1 ms … 300 s */
extern const size_t metrics_seconds_count;
extern const double metrics_sizes[]; /* 1 … 1,000 */
extern const size_t metrics_sizes_count;
#endif
