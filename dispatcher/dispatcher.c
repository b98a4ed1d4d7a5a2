/* dispatcher.c - how the rooms are wired, and the order in which they close: no new requests, answers to the open ones,
 * then whoever asks PostgreSQL and Redis, then the connections. Memory that an answer on its way may still touch goes
 * last, after the loop. */
#include "dispatcher/dispatcher.h"
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/log.h"
#include "common/core/settings.h"
#include "dispatcher/accept.h"
#include "dispatcher/artifacts.h"
#include "dispatcher/auth.h"
#include "dispatcher/health.h"
#include "dispatcher/inputs.h"
#include "dispatcher/jobs.h"
#include "dispatcher/moderation.h"
#include "dispatcher/providers.h"
#include "dispatcher/repair.h"
#include "dispatcher/routes.h"
#include "dispatcher/streams.h"
#include "dispatcher/templates.h"
#include "dispatcher/watch.h"

enum {
    DRAIN_MS = 30000, /* then the process goes, whoever still downloads */
    CONNECTIONS_MAX = 16384,
    ANSWERED_PART = 16, /* of the connections: one of so many is kept for those that are too many */
    OTHER_FILES = 512,  /* PostgreSQL, Redis, artifacts being sent, logs */
};

static void on_queue_state(void *ctx, bool is_up, const char *run_id)
{
    struct dispatcher *d = ctx;

    if (d->repair != NULL)
        repair_redis(d->repair, is_up, run_id);
    log_info("redis", log_int("up", is_up));
}

static void on_queue_event(void *ctx, const char *job, int64_t version, const char *state, const char *phase,
                           int percent)
{
    struct dispatcher *d = ctx;

    (void)version;
    if (state != NULL && d->jobs != NULL)
        jobs_event(d->jobs, job);
    if (d->watch != NULL)
        watch_event(d->watch, job, state);
    if (!d->is_streams_closed && d->streams != NULL)
        streams_event(d->streams, job, state, phase, percent);
}

static void on_db_state(void *ctx, bool is_up)
{
    (void)ctx;
    log_info("postgres", log_int("up", is_up));
}

static struct db *open_db(struct dispatcher *d, const char *name)
{
    struct db *db =
        db_new(d->loop, &(struct db_config){ .url = d->database_url, .name = name, .on_state = on_db_state, .ctx = d });

    if (db != NULL)
        db_observe(db, health_on_db_call, d);
    return db;
}

/* As many connections as files allow. */
static size_t max_connections(void)
{
    size_t files = settings_files(CONNECTIONS_MAX + OTHER_FILES);

    if (files < 2 * OTHER_FILES)
        return 256;
    return files - OTHER_FILES < CONNECTIONS_MAX ? files - OTHER_FILES : CONNECTIONS_MAX;
}

static bool read_settings(struct dispatcher *d, const struct config *config)
{
    const char *key = config_text(config, "KILN_SIGNING_KEY"), *url = config_text(config, "KILN_PUBLIC_URL");
    size_t len = 0;

    if (key == NULL || base64_decode(d->signing_key, sizeof(d->signing_key), &len, key, strlen(key)) != ERR_OK)
        return false;
    d->database_url = strdup(config_text(config, "KILN_DATABASE_URL"));
    d->public_url = url != NULL ? strdup(url) : NULL;
    for (len = d->public_url != NULL ? strlen(d->public_url) : 0; len > 0 && d->public_url[len - 1] == '/'; len--)
        d->public_url[len - 1] = '\0';
    return d->database_url != NULL && (url == NULL || d->public_url != NULL);
}

static enum err open_rooms(struct dispatcher *d, const struct config *config)
{
    d->metrics = metrics_new();
    if (d->metrics == NULL)
        return ERR_NOMEM;
    d->write = open_db(d, "dispatcher-write");
    d->batch_db = open_db(d, "dispatcher-batches");
    d->read = open_db(d, "dispatcher-read");
    d->repair_db = open_db(d, "dispatcher-repair");
    d->operators_db = open_db(d, "dispatcher-operators");
    if (d->write == NULL || d->batch_db == NULL || d->read == NULL || d->repair_db == NULL || d->operators_db == NULL)
        return ERR_NOMEM;
    d->queue = queue_new(d->loop, &(struct queue_config){ .redis_url = config_text(config, "KILN_REDIS_URL"),
                                                          .on_state = on_queue_state,
                                                          .on_event = on_queue_event,
                                                          .ctx = d });
    d->ledger = ledger_new(d->write, NULL, config_int(config, "KILN_MAX_QUEUED"));
    d->batch_ledger = ledger_new(d->batch_db, NULL, config_int(config, "KILN_MAX_QUEUED"));
    d->auth = auth_new(d->read);
    d->jobs = jobs_new(d);
    d->inputs = inputs_new(d);
    d->artifacts = artifacts_new(d);
    d->templates = templates_new(d);
    if (d->queue == NULL || d->ledger == NULL || d->batch_ledger == NULL || d->auth == NULL || d->jobs == NULL ||
        d->inputs == NULL || d->artifacts == NULL || d->templates == NULL)
        return ERR_NOMEM;
    d->watch = watch_new(d->loop, d->jobs, d->read);
    d->streams = streams_new(d);
    d->accept = accept_new(d);
    d->health = health_new(d);
    d->repair = repair_new(d);
    return d->watch != NULL && d->streams != NULL && d->accept != NULL && d->health != NULL && d->repair != NULL
               ? ERR_OK
               : ERR_NOMEM;
}

enum err dispatcher_open(struct dispatcher *d, uv_loop_t *loop, const struct config *config, char *problem,
                         size_t problem_size)
{
    size_t connections = max_connections();
    struct httpd_config http = { .loop = loop,
                                 .max_connections = connections,
                                 .on_head = routes_on_head,
                                 .on_request = routes_on_request,
                                 .on_refused = routes_on_refused,
                                 .on_done = routes_on_done,
                                 .ctx = d };
    char host[256] = "";
    enum err e;

    *d = (struct dispatcher){ .loop = loop };
    snprintf(problem, problem_size, "out of memory");
    if (!read_settings(d, config) || !config_listen(config, "KILN_LISTEN", host, sizeof(host), &http.port))
        return ERR_ARGUMENT;
    http.host = host;
    e = settings_catalog(config, &d->catalog, problem, problem_size);
    if (e != ERR_OK)
        return e;
    e = store_open(config_text(config, "KILN_STORAGE"), &d->store);
    if (e != ERR_OK) {
        snprintf(problem, problem_size, "KILN_STORAGE cannot be opened: %s", err_text(e));
        return e;
    }
    e = open_rooms(d, config);
    if (e == ERR_OK)
        e = moderation_new(d, config, &d->moderation, problem, problem_size);
    if (e == ERR_OK && (d->providers = providers_new(d, config)) == NULL)
        e = ERR_NOMEM;
    if (e != ERR_OK)
        return e;
    /* The last of them are for saying no. */
    load_init(d, connections - connections / ANSWERED_PART, config_int(config, "KILN_MAX_REQUESTS"),
              config_int(config, "KILN_MEMORY_LIMIT") << 20);
    e = httpd_new(&http, &d->httpd, problem, problem_size);
    if (e == ERR_OK)
        log_info("listening", log_str("host", host), log_int("port", httpd_port(d->httpd)));
    return e;
}

/* ---- the end ---- */

static void close_connections(void *ctx)
{
    struct dispatcher *d = ctx;

    if (--d->open > 0)
        return;
    uv_close((uv_handle_t *)&d->drain_timer, NULL);
    auth_free(d->auth);
    jobs_free(d->jobs);
    d->jobs = NULL; /* events find nobody any more */
    inputs_free(d->inputs);
    artifacts_free(d->artifacts);
    templates_free(d->templates);
    ledger_free(d->ledger);
    ledger_free(d->batch_ledger);
    db_close(d->write, NULL, NULL);
    db_close(d->batch_db, NULL, NULL);
    db_close(d->read, NULL, NULL);
    db_close(d->repair_db, NULL, NULL);
    db_close(d->operators_db, NULL, NULL);
    queue_close(d->queue, NULL, NULL);
}

static void close_rooms(void *ctx)
{
    struct dispatcher *d = ctx;
    struct watch *watch = d->watch;
    struct streams *streams = d->streams;

    if (d->is_closing)
        return;
    d->is_closing = true;
    d->open = 8;
    d->is_streams_closed = true;
    d->watch = NULL; /* events find nobody any more */
    httpd_close(d->httpd, close_connections, d);
    watch_close(watch, close_connections, d);
    streams_close(streams, close_connections, d);
    accept_close(d->accept, close_connections, d);
    health_close(d->health, close_connections, d);
    moderation_close(d->moderation, close_connections, d);
    providers_close(d->providers, close_connections, d);
    repair_close(d->repair, close_connections, d);
}

static void on_drain_timer(uv_timer_t *timer)
{
    struct dispatcher *d = container_of(timer, struct dispatcher, drain_timer);

    log_warn("drain_cut", log_int("in_flight", d->is_closing ? 0 : (int64_t)httpd_in_flight(d->httpd)));
    exit(0); /* every job is in PostgreSQL; whoever still reads may ask again */
}

void dispatcher_reload(struct dispatcher *d)
{
    moderation_reload(d->moderation);
}

void dispatcher_drain(struct dispatcher *d)
{
    if (d->is_draining)
        return;
    d->is_draining = true;
    log_info("draining", log_int("in_flight", (int64_t)httpd_in_flight(d->httpd)));
    uv_timer_init(d->loop, &d->drain_timer);
    uv_timer_start(&d->drain_timer, on_drain_timer, DRAIN_MS, 0);
    watch_release(d->watch);
    streams_release(d->streams);
    httpd_drain(d->httpd, close_rooms, d);
}

void dispatcher_free(struct dispatcher *d)
{
    repair_free(d->repair);
    accept_free(d->accept);
    streams_free(d->streams);
    moderation_free(d->moderation);
    providers_free(d->providers);
    metrics_free(d->metrics);
    catalog_free(d->catalog);
    store_close(d->store);
    free(d->database_url);
    free(d->public_url);
    sodium_memzero(d->signing_key, sizeof(d->signing_key));
}
