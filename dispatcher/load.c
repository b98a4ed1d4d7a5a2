/* load.c - counts what is open and says no in time. */
#include "dispatcher/load.h"
#include "common/base/clock.h"
#include "dispatcher/auth.h"
#include "dispatcher/dispatcher.h"
#include "dispatcher/problem.h"
#include "dispatcher/routes.h"
#include "dispatcher/streams.h"
#include "dispatcher/watch.h"

enum {
    SHOWN_MS = 5000, /* so long /readyz speaks of a refusal */
    ADMIN_SPARE = 16 /* places beyond the limit: who would pause a lane must get in when all is full */
};

static const struct {
    const char *word, *detail;
} reasons[LOAD_REASONS] = {
    [LOAD_CONNECTIONS] = { "connections", "too many connections are open; nothing was changed" },
    [LOAD_REQUESTS] = { "requests", "too many requests are at work; nothing was changed" },
    [LOAD_MEMORY] = { "memory", "too many bytes are on their way in; nothing was changed" },
};

void load_init(struct dispatcher *d, size_t max_connections, int64_t max_requests, int64_t max_bytes)
{
    d->load = (struct load){ .max_connections = max_connections,
                             .max_requests = (size_t)max_requests,
                             .max_bytes = (size_t)max_bytes };
    for (int i = 0; i < LOAD_REASONS; i++)
        d->load.shed[i] = metrics_counter(d->metrics, "kiln_shed_total", "Requests refused because there are too many.",
                                          "reason", reasons[i].word, NULL);
}

static bool load_refuse(struct request *r, enum load_reason reason)
{
    struct load *l = &dispatcher_of(r)->load;

    l->refused_ms[reason] = clock_mono_ms();
    metric_add(l->shed[reason], 1);
    if (reason == LOAD_CONNECTIONS)
        request_close(r);
    problem_reply(r, ERR_UNAVAILABLE, reasons[reason].detail);
    return false;
}

static bool is_crowded(const struct request *r)
{
    const struct dispatcher *d = dispatcher_of(r);
    size_t spare = r->route->scopes == SCOPE_ADMIN ? ADMIN_SPARE : 0;

    return d->load.at_work >= d->load.max_requests + spare + watch_count(d->watch) + streams_count(d->streams);
}

bool load_admits(struct request *r)
{
    const struct dispatcher *d = dispatcher_of(r);

    if (httpd_connections(d->httpd) > d->load.max_connections)
        return load_refuse(r, LOAD_CONNECTIONS);
    return is_crowded(r) ? load_refuse(r, LOAD_REQUESTS) : true;
}

bool load_admits_body(struct request *r, size_t bytes)
{
    struct load *l = &dispatcher_of(r)->load;

    if (bytes > 0 && l->bytes + bytes > l->max_bytes && l->bytes > 0) /* one alone always may */
        return load_refuse(r, LOAD_MEMORY);
    l->bytes += bytes;
    r->load_bytes = bytes;
    return true;
}

bool load_begins(struct request *r)
{
    struct dispatcher *d = dispatcher_of(r);

    if (r->route->auth != ROUTE_OPEN && is_crowded(r)) /* many bodies came at once */
        return load_refuse(r, LOAD_REQUESTS);
    d->load.at_work++;
    r->is_at_work = true;
    return true;
}

void load_ends(struct request *r)
{
    struct load *l = &dispatcher_of(r)->load;

    l->bytes -= r->load_bytes;
    l->at_work -= r->is_at_work;
    r->load_bytes = 0;
    r->is_at_work = false;
}

const char *load_word(struct dispatcher *d)
{
    int64_t now = clock_mono_ms();

    for (int i = 0; i < LOAD_REASONS; i++)
        if (d->load.refused_ms[i] != 0 && now - d->load.refused_ms[i] < SHOWN_MS)
            return reasons[i].word;
    return "ok";
}

void load_metrics(struct dispatcher *d)
{
    const struct load *l = &d->load;
    size_t waiting = watch_count(d->watch) + streams_count(d->streams);

    metric_set(
        metrics_gauge(d->metrics, "kiln_requests_at_work", "Requests at work, without those that only wait.", NULL),
        l->at_work > waiting ? (double)(l->at_work - waiting) : 0);
    metric_set(metrics_gauge(d->metrics, "kiln_streams", "Event streams that are open.", NULL),
               (double)streams_count(d->streams));
    metric_set(metrics_gauge(d->metrics, "kiln_body_bytes", "Bytes set aside for requests' bodies.", NULL),
               (double)l->bytes);
}
