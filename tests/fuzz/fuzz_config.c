/* fuzz_config.c - the environment as an operator may write it: lines of NAME=VALUE, read by a table with every type,
 * and the URLs of PostgreSQL and Redis. A refused value is named, a secret one never shown. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/config.h"
#include "common/base/text.h"
#include "common/io/db.h"
#include "common/io/redis_url.h"
#include "tests/fuzz/fuzz.h"

static const struct config_option table[] = {
    { .name = "KILN_T_TEXT", .type = CONFIG_TEXT, .help = "x." },
    { .name = "KILN_T_SECRET", .type = CONFIG_SECRET, .is_required = true, .help = "x." },
    { .name = "KILN_T_INT", .type = CONFIG_INT, .fallback = "3", .min = -5, .max = 5000, .help = "x." },
    { .name = "KILN_T_BOOL", .type = CONFIG_BOOL, .help = "x." },
    { .name = "KILN_T_URL", .type = CONFIG_URL, .help = "x." },
    { .name = "KILN_T_LISTEN", .type = CONFIG_LISTEN, .help = "x." },
    { .name = "KILN_T_KEY", .type = CONFIG_BASE64_32, .help = "x." },
};

/* Another value may be quoted, and what an operator writes into it too is shown. */
static bool is_elsewhere(const char *secret)
{
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        const char *value = table[i].type != CONFIG_SECRET ? getenv(table[i].name) : NULL;

        if (value && strstr(value, secret))
            return true;
    }
    return false;
}

static void read_environment(void)
{
    struct config *c = config_read(table, ARRAY_LEN(table), NULL);
    const char *secret = getenv("KILN_T_SECRET");
    char *shown = NULL, host[256];
    size_t len = 0;
    FILE *to = open_memstream(&shown, &len);
    int port = -1;

    FUZZ_CLAIM(c != NULL && to != NULL);
    config_report(c, to);
    FUZZ_CLAIM(fclose(to) == 0);
    FUZZ_CLAIM((config_problems(c) > 0) == (len > 0));
    if (secret && strlen(secret) > 8 && strchr(secret, '#') &&
        !is_elsewhere(secret)) /* no complaint has a # of its own */
        FUZZ_CLAIM(strstr(shown, secret) == NULL);
    if (config_problems(c) == 0) {
        FUZZ_CLAIM(config_text(c, "KILN_T_SECRET") != NULL);
        FUZZ_CLAIM(config_int(c, "KILN_T_INT") >= -5 && config_int(c, "KILN_T_INT") <= 5000);
        if (config_listen(c, "KILN_T_LISTEN", host, sizeof host, &port))
            FUZZ_CLAIM(host[0] && port >= 0 && port <= 65535);
    }
    free(shown);
    config_free(c);
}

static void read_urls(const char *text)
{
    struct redis_url u;

    if (redis_url_parse(&u, text) == ERR_OK) {
        FUZZ_CLAIM((u.host != NULL) != (u.path != NULL));
        FUZZ_CLAIM(u.port >= 0 && u.port <= 65535 && u.db >= 0);
        redis_url_done(&u);
    }
    (void)db_url_check(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = fuzz_text(data, size), *rest = text, *line;

    for (size_t i = 0; i < ARRAY_LEN(table); i++)
        (void)unsetenv(table[i].name);
    while ((line = strtok_r(rest, "\n", &rest)) != NULL) {
        char *value = strchr(line, '=');

        read_urls(value ? value + 1 : line);
        if (!value)
            continue;
        *value = '\0';
        for (size_t i = 0; i < ARRAY_LEN(table); i++) {
            if (strcmp(table[i].name, line) == 0)
                (void)setenv(line, value + 1, 1);
        }
    }
    read_environment();
    free(text);
    return 0;
}
