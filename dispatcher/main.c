/* main.c - kiln-dispatcher: parses options, opens the dispatcher, runs the loop until SIGTERM. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sodium.h>
#include "common/base/log.h"
#include "common/core/settings.h"
#include "dispatcher/dispatcher.h"

static const char usage[] = "kiln-dispatcher - the HTTP API of kiln: takes jobs in, shows them, gives results back\n\n"
                            "  --migrate       brings the database's schema up to date first (as `kiln migrate`)";

static const struct config_option table[] = {
    SETTINGS_SHARED,
    { .name = "KILN_LISTEN",
      .type = CONFIG_LISTEN,
      .fallback = "127.0.0.1:8080",
      .help = "Where the HTTP API listens." },
    { .name = "KILN_PUBLIC_URL",
      .type = CONFIG_URL,
      .help = "What links in answers begin with; else the Host that the request names." },
    { .name = "KILN_SIGNING_KEY",
      .type = CONFIG_BASE64_32,
      .is_required = true,
      .help = "32 random bytes in base64 that sign links to results; the same for all dispatchers." },
    { .name = "KILN_MAX_QUEUED",
      .type = CONFIG_INT,
      .min = 0,
      .max = INT32_MAX,
      .help = "Jobs that may be queued for each app at each provider; more are refused with 429. 0: no limit." },
    { .name = "KILN_BLOCKED_TERMS",
      .type = CONFIG_TEXT,
      .help = "File of words and phrases, one a line, that no job may hold; read again on SIGHUP." },
    { .name = "KILN_MODERATION",
      .type = CONFIG_TEXT,
      .help = "openai: ask its moderation endpoint about every job's texts first; empty: off." },
    { .name = "KILN_CA_FILE",
      .type = CONFIG_TEXT,
      .help = "Certificates (PEM) trusted at providers instead of the system's." },
    { .name = "KILN_MAX_REQUESTS",
      .type = CONFIG_INT,
      .fallback = "1000",
      .min = 1,
      .max = 1000000,
      .help = "Requests at work at once; more are refused with 503. Those that only wait for a job do not count." },
    { .name = "KILN_MEMORY_LIMIT",
      .type = CONFIG_INT,
      .fallback = "256",
      .min = 1,
      .max = 1 << 20,
      .help = "MiB of requests' bodies at once; more are refused with 503 before they are read." },
};

struct program {
    uv_loop_t loop;
    uv_signal_t term, interrupt, hangup;
    struct dispatcher dispatcher;
};

static void check(struct config *c)
{
    char host[256];
    int port;

    settings_check(c);
    if (!config_listen(c, "KILN_LISTEN", host, sizeof(host), &port))
        config_add_problem(c, "KILN_LISTEN", "must be host:port; a dispatcher has to listen");
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct program *p = handle->data;

    if (p->dispatcher.is_draining) {
        log_warn("stopped", log_int("signal", number));
        exit(1); /* asked twice: at once */
    }
    uv_unref((uv_handle_t *)&p->term);
    uv_unref((uv_handle_t *)&p->interrupt);
    dispatcher_drain(&p->dispatcher);
}

static void on_hangup(uv_signal_t *handle, int number)
{
    struct program *p = handle->data;

    (void)number;
    dispatcher_reload(&p->dispatcher);
}

static void on_migrated(void *ctx, const char *line)
{
    (void)ctx;
    log_info("migration", log_str("what", line));
}

static bool migrate(const struct config *config)
{
    char message[512] = "";

    if (db_migrate_embedded(config_text(config, "KILN_DATABASE_URL"), on_migrated, NULL, message, sizeof(message)) ==
        ERR_OK)
        return true;
    log_error("migration_failed", log_str("why", message));
    return false;
}

static void watch_signal(struct program *p, uv_signal_t *handle, int number, uv_signal_cb fn)
{
    uv_signal_init(&p->loop, handle);
    handle->data = p;
    uv_signal_start(handle, fn, number);
}

static int run(struct program *p, const struct config *config)
{
    char problem[512] = "";

    uv_loop_init(&p->loop);
    if (dispatcher_open(&p->dispatcher, &p->loop, config, problem, sizeof(problem)) != ERR_OK) {
        log_error("cannot_start", log_str("why", problem));
        return 1;
    }
    watch_signal(p, &p->term, SIGTERM, on_signal);
    watch_signal(p, &p->interrupt, SIGINT, on_signal);
    watch_signal(p, &p->hangup, SIGHUP, on_hangup);
    uv_unref((uv_handle_t *)&p->hangup);
    uv_run(&p->loop, UV_RUN_DEFAULT);
    uv_close((uv_handle_t *)&p->term, NULL);
    uv_close((uv_handle_t *)&p->interrupt, NULL);
    uv_close((uv_handle_t *)&p->hangup, NULL);
    uv_run(&p->loop, UV_RUN_DEFAULT);
    dispatcher_free(&p->dispatcher);
    (void)uv_loop_close(&p->loop); /* the process ends */
    log_info("stopped", log_int("signal", SIGTERM));
    return 0;
}

int main(int argc, char **argv)
{
    static struct program program;
    struct config *config = NULL;
    bool is_migrating = false;
    int status;

    settings_memory();
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--migrate") == 0) {
            is_migrating = true;
            memmove(&argv[i], &argv[i + 1], (size_t)(argc - i) * sizeof(*argv));
            argc--;
            i--;
        }
    }
    if (sodium_init() < 0)
        return 1;
    signal(SIGPIPE, SIG_IGN);
    status = config_main(argc, argv, "kiln-dispatcher", usage, table, ARRAY_LEN(table), check, &config);
    if (status >= 0)
        return status;
    settings_log_level(config);
    status = is_migrating && !migrate(config) ? 1 : run(&program, config);
    config_free(config);
    return status;
}
