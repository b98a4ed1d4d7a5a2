/* main.c - kiln-worker: reads the environment, opens catalogue and storage, runs the loop until a drain has ended. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <curl/curl.h>
#include <uv.h>
#include "common/base/log.h"
#include "common/core/decoder.h"
#include "common/core/settings.h"
#include "common/io/httpc.h"
#include "worker/runner.h"
#include "worker/status.h"

enum { OTHER_FILES = 512 }; /* beside calls: PostgreSQL, Redis, results, helpers */

static const struct config_option options[] = {
    SETTINGS_SHARED,
    { .name = "KILN_CONCURRENCY",
      .type = CONFIG_INT,
      .fallback = "1000",
      .min = 1,
      .max = 100000,
      .help = "Requests in flight in this worker." },
    { .name = "KILN_MAX_WAITING",
      .type = CONFIG_INT,
      .fallback = "100000",
      .min = 1,
      .max = 10000000,
      .help = "Jobs waiting for their next poll in this worker." },
    { .name = "KILN_MEMORY_LIMIT",
      .type = CONFIG_INT,
      .fallback = "1024",
      .min = 1,
      .max = 1 << 20,
      .help = "MiB of requests and answers in memory from which this worker claims nothing more." },
    { .name = "KILN_CA_FILE",
      .type = CONFIG_TEXT,
      .help = "Certificates (PEM) trusted at providers instead of the system's." },
    { .name = "KILN_WORKER_LISTEN",
      .type = CONFIG_LISTEN,
      .help = "Address of /healthz, /readyz and /metrics; empty: off." },
};

struct program {
    uv_loop_t loop;
    uv_signal_t term, interrupt;
    struct config *config;
    struct catalog *catalog;
    struct store *store;
    struct decoder *decoder;
    struct metrics *metrics;
    struct runner *runner;
    struct status *status;
};

static void main_on_signal(uv_signal_t *s, int signum)
{
    struct program *p = s->data;

    (void)signum;
    runner_drain(p->runner);
}

static void main_on_ended(void *ctx, bool is_complete)
{
    struct program *p = ctx;

    if (!is_complete)
        _exit(1); /* open calls are given up on demand; nothing here is worth a clean unwinding */
    status_close(p->status);
    uv_close((uv_handle_t *)&p->term, NULL);
    uv_close((uv_handle_t *)&p->interrupt, NULL);
}

static void main_check(struct config *c)
{
    const char *ca_file = config_text(c, "KILN_CA_FILE");

    settings_check(c);
    if (ca_file && access(ca_file, R_OK) != 0)
        config_add_problem(c, "KILN_CA_FILE", "cannot be read");
}

static bool main_open(struct program *p)
{
    char problem[512] = "", host[64];
    int port;
    struct runner_config config = {
        .database_url = config_text(p->config, "KILN_DATABASE_URL"),
        .redis_url = config_text(p->config, "KILN_REDIS_URL"),
        .concurrency = config_int(p->config, "KILN_CONCURRENCY"),
        .max_waiting = config_int(p->config, "KILN_MAX_WAITING"),
        .memory_limit = config_int(p->config, "KILN_MEMORY_LIMIT") << 20,
        .ca_file = config_text(p->config, "KILN_CA_FILE"),
        .allow_private = config_bool(p->config, "KILN_ALLOW_PRIVATE_ADDRESSES"),
        .on_ended = main_on_ended,
        .ctx = p,
    };

    if (settings_catalog(p->config, &p->catalog, problem, sizeof(problem)) != ERR_OK) {
        log_error("catalogue", log_str("problem", problem));
        return false;
    }
    if (store_open(config_text(p->config, "KILN_STORAGE"), &p->store) != ERR_OK) {
        log_error("storage", log_str("problem", "KILN_STORAGE cannot be opened"));
        return false;
    }
    p->metrics = metrics_new();
    p->decoder = decoder_new(&(struct decoder_config){ .helpers = 0 });
    config.catalog = p->catalog;
    config.store = p->store;
    config.decoder = p->decoder;
    config.metrics = p->metrics;
    p->runner = p->decoder ? runner_new(&p->loop, &config) : NULL;
    if (!p->runner)
        return false;
    if (config_listen(p->config, "KILN_WORKER_LISTEN", host, sizeof(host), &port)) {
        p->status = status_new(&p->loop, host, port, p->runner, p->metrics);
        if (!p->status) {
            log_error("listen", log_str("problem", "KILN_WORKER_LISTEN cannot be used"));
            _exit(1); /* nothing was claimed yet; the connections just opened end with the process */
        }
    }
    return true;
}

/* Threads wait for the disk and for decoders, so there are more of them than libuv's four; a person's own number holds.
 */
static void main_set_threads(void)
{
    (void)setenv("UV_THREADPOOL_SIZE", "8", 0);
}

int main(int argc, char **argv)
{
    struct program p = { 0 };
    int status;

    if (argc == 2 && strcmp(argv[1], DECODER_ARG) == 0)
        return decoder_child(); /* before anything is opened or read */
    main_set_threads();
    settings_memory();
    status = config_main(argc, argv, "kiln-worker",
                         "kiln-worker - claims jobs, asks the providers, stores results, settles.\n"
                         "Configuration is the environment; any variable may be given as NAME_FILE.",
                         options, ARRAY_LEN(options), main_check, &p.config);

    if (status >= 0)
        return status;
    status = 1;
    settings_log_level(p.config);
    (void)settings_files(2 * (size_t)config_int(p.config, "KILN_CONCURRENCY") +
                         OTHER_FILES); /* each a socket and a file */
    (void)signal(SIGPIPE, SIG_IGN);
    (void)httpc_init(); /* httpc_new says what is wrong */
    (void)uv_loop_init(&p.loop);
    if (main_open(&p)) {
        (void)uv_signal_init(&p.loop, &p.term);
        (void)uv_signal_init(&p.loop, &p.interrupt);
        p.term.data = p.interrupt.data = &p;
        (void)uv_signal_start(&p.term, main_on_signal, SIGTERM);
        (void)uv_signal_start(&p.interrupt, main_on_signal, SIGINT);
        (void)uv_run(&p.loop, UV_RUN_DEFAULT);
        status = 0;
    }
    runner_free(p.runner);
    metrics_free(p.metrics);
    decoder_free(p.decoder);
    store_close(p.store);
    catalog_free(p.catalog);
    config_free(p.config);
    (void)uv_loop_close(&p.loop);
    curl_global_cleanup();
    return status;
}
