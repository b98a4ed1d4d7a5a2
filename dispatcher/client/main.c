/* main.c - kiln, the command line: its configuration, and the one way through a command. */
#include <stdio.h>
#include <string.h>
#include <sodium.h>
#include "common/base/text.h"
#include "common/io/db.h"
#include "dispatcher/client/api.h"
#include "dispatcher/client/client.h"
#include "dispatcher/client/show.h"

static const struct config_option table[] = {
    { .name = "KILN_URL",
      .type = CONFIG_URL,
      .fallback = "http://127.0.0.1:8080",
      .help = "Where the dispatcher answers." },
    { .name = "KILN_API_KEY",
      .type = CONFIG_SECRET,
      .help = "Key of an app, for every command that asks the dispatcher; `kiln key create` makes one." },
    { .name = "KILN_DATABASE_URL",
      .type = CONFIG_TEXT,
      .help =
          "PostgreSQL, as libpq takes it, for migrate, app, key, grant and audit: they work on the database itself." },
};

static bool key_plausible(const char *key)
{
    return strlen(key) == 48 && strncmp(key, "kiln_", 5) == 0 &&
           strspn(key, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == 48;
}

static void main_check(struct config *c)
{
    const char *url = config_text(c, "KILN_URL"), *key = config_text(c, "KILN_API_KEY"),
               *db = config_text(c, "KILN_DATABASE_URL");

    if (url && strncmp(url, "http://", 7) != 0 && strncmp(url, "https://", 8) != 0)
        config_add_problem(c, "KILN_URL", "must begin with http:// or https://");
    if (key && !key_plausible(key))
        config_add_problem(c, "KILN_API_KEY", "is no key of kiln: they are kiln_ and 43 characters");
    if (db && db_url_check(db) != ERR_OK)
        config_add_problem(c, "KILN_DATABASE_URL", "is not an address that libpq understands");
}

static bool main_connect(struct client *c)
{
    const char *key = config_text(c->config, "KILN_API_KEY");

    if (c->command->needs == NEEDS_DATABASE) {
        c->db_url = config_text(c->config, "KILN_DATABASE_URL");
        if (!c->db_url) {
            show_error("KILN_DATABASE_URL is not set");
            show_note("  %s works on the database itself: KILN_DATABASE_URL=postgresql:///kiln for one on this machine",
                      c->command->name);
        }
        return c->db_url != NULL;
    }
    if (!key) {
        show_error("KILN_API_KEY is not set");
        show_note("  it is the key of an app; an operator makes one with `kiln key create --app NAME`, and after "
                  "scripts/quickstart it stands in .kiln/env: . .kiln/env");
        return false;
    }
    c->api = api_new(config_text(c->config, "KILN_URL"), key);
    if (!c->api)
        show_error("out of memory");
    return c->api != NULL;
}

static int main_run(struct client *c)
{
    char *no_flags[] = { "kiln", NULL };
    struct config *config = NULL;
    int status = config_main(1, no_flags, "kiln", "", table, ARRAY_LEN(table), main_check, &config);

    if (status >= 0)
        return status;
    c->config = config;
    status = main_connect(c) ? c->command->run(c) : CLIENT_CONFIG;
    api_free(c->api);
    config_free(config);
    return status;
}

int main(int argc, char **argv)
{
    struct client c = { 0 };
    struct config *config = NULL;
    char message[256] = "";
    int status = CLIENT_REFUSED;

    if (sodium_init() < 0) {
        show_error("no source of randomness");
        return CLIENT_CONFIG;
    }
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        args_help(table, ARRAY_LEN(table));
        return argc < 2 ? CLIENT_REFUSED : CLIENT_DONE;
    }
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "--check-config") == 0)
        return config_main(argc, argv, "kiln", "", table, ARRAY_LEN(table), main_check, &config);
    if (!args_parse(&c, argc - 1, argv + 1, message, sizeof message)) {
        show_error("%s", message);
        if (c.command)
            show_note("  kiln %s --help says more", c.command->name);
    } else if (c.opts[OPT_HELP]) {
        args_help_command(c.command);
        status = CLIENT_DONE;
    } else {
        status = main_run(&c);
    }
    args_done(&c);
    if (fflush(stdout) != 0 && status == CLIENT_DONE) {
        show_error("stdout cannot be written");
        status = CLIENT_REFUSED;
    }
    return status;
}
