/* test_config.c - the environment is read whole, every problem named, no secret shown. */
#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "common/base/config.h"
#include "common/base/text.h"

static const struct config_option table[] = {
    { .name = "KILN_T_URL", .type = CONFIG_URL, .is_required = true, .help = "Where the database is." },
    { .name = "KILN_T_COUNT", .type = CONFIG_INT, .fallback = "1000", .min = 1, .max = 5000, .help = "How many." },
    { .name = "KILN_T_FLAG", .type = CONFIG_BOOL, .fallback = "no", .help = "Whether." },
    { .name = "KILN_T_LISTEN", .type = CONFIG_LISTEN, .fallback = "127.0.0.1:8080", .help = "Address." },
    { .name = "KILN_T_KEY", .type = CONFIG_BASE64_32, .help = "Signs." },
    { .name = "OTHER_T_SECRET", .type = CONFIG_SECRET, .help = "A provider's key." },
};

static char *report_of(const struct config *c)
{
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    config_report(c, f);
    (void)fclose(f);
    return text;
}

static void clear(void)
{
    for (size_t i = 0; i < ARRAY_LEN(table); i++)
        unsetenv(table[i].name);
}

Test(config, defaults_hold_and_given_values_win, .init = clear)
{
    char host[64];
    int port = 0;

    setenv("KILN_T_URL", "postgresql:///kiln?host=/run/x", 1);
    setenv("KILN_T_FLAG", "yes", 1);
    setenv("KILN_T_COUNT", "", 1);
    struct config *c = config_read(table, ARRAY_LEN(table), NULL);
    cr_expect_eq(config_problems(c), 0);
    cr_expect_eq(config_int(c, "KILN_T_COUNT"), 1000);
    cr_expect(config_bool(c, "KILN_T_FLAG"));
    cr_expect_null(config_text(c, "OTHER_T_SECRET"));
    cr_expect(config_listen(c, "KILN_T_LISTEN", host, sizeof host, &port));
    cr_expect_str_eq(host, "127.0.0.1");
    cr_expect_eq(port, 8080);
    config_free(c);
    config_free(NULL);
}

Test(config, all_problems_are_listed_at_once_without_secrets, .init = clear)
{
    setenv("KILN_T_COUNT", "5001", 1);
    setenv("KILN_T_FLAG", "perhaps", 1);
    setenv("KILN_T_LISTEN", "8080", 1);
    setenv("KILN_T_KEY", "c2VjcmV0c2VjcmV0", 1);
    setenv("KILN_T_TYPO", "1", 1);
    struct config *c = config_read(table, ARRAY_LEN(table), NULL);
    char *text = report_of(c);
    cr_expect_eq(config_problems(c), 6, "%s", text);
    cr_expect_not_null(strstr(text, "KILN_T_URL: is required\n"));
    cr_expect_not_null(strstr(text, "KILN_T_COUNT: must be a number from 1 to 5000, got \"5001\"\n"));
    cr_expect_not_null(strstr(text, "KILN_T_TYPO: is not a variable of kiln\n"));
    cr_expect_not_null(strstr(text, "KILN_T_KEY: "));
    cr_expect_null(strstr(text, "c2Vj"));
    free(text);
    config_free(c);
}

Test(config, names_of_other_programs_are_known_also_as_files, .init = clear)
{
    static const char *const known[] = { "KILN_T_OTHER", NULL };
    setenv("KILN_T_URL", "unix:/x", 1);
    setenv("KILN_T_OTHER", "1", 1);
    setenv("KILN_T_OTHER_FILE", "/x", 1);
    struct config *c = config_read(table, ARRAY_LEN(table), known);
    cr_expect_eq(config_problems(c), 0);
    config_free(c);
}

Test(config, a_file_gives_its_first_line, .init = clear)
{
    char path[] = "/tmp/kiln-config-XXXXXX";
    int fd = mkstemp(path);

    cr_assert(fd >= 0 && write(fd, "hush hush\r\nmore\n", 16) == 16);
    close(fd);
    setenv("KILN_T_URL", "unix:/x", 1);
    setenv("OTHER_T_SECRET_FILE", path, 1);
    struct config *c = config_read(table, ARRAY_LEN(table), NULL);
    cr_expect_eq(config_problems(c), 0);
    cr_expect_str_eq(config_text(c, "OTHER_T_SECRET"), "hush hush");
    config_free(c);

    setenv("OTHER_T_SECRET", "too", 1);
    c = config_read(table, ARRAY_LEN(table), NULL);
    cr_expect_eq(config_problems(c), 1, "given twice");
    config_free(c);

    unsetenv("OTHER_T_SECRET");
    unlink(path);
    c = config_read(table, ARRAY_LEN(table), NULL);
    cr_expect_eq(config_problems(c), 1, "a file that is not there");
    config_free(c);
}

Test(config, a_file_of_secrets_gives_all_of_its_lines, .init = clear)
{
    static const struct config_option several[] = {
        { .name = "OTHER_T_SECRET", .type = CONFIG_SECRETS, .help = "x." }
    };
    char path[] = "/tmp/kiln-config-XXXXXX";
    int fd = mkstemp(path);
    struct config *c;
    char *stray;

    cr_assert(fd >= 0 && write(fd, "one\r\ntwo\n", 9) == 9);
    close(fd);
    setenv("OTHER_T_SECRET_FILE", path, 1);
    c = config_read(several, ARRAY_LEN(several), NULL);
    cr_expect_eq(config_problems(c), 0);
    cr_expect_str_eq(config_text(c, "OTHER_T_SECRET"), "one\r\ntwo\n");
    config_free(c);
    c = config_read(several, 0, NULL);
    stray = config_stray(c, "OTHER_T_SECRET");
    cr_expect_str_eq(stray, "one\r\ntwo\n", "a provider that only the catalogue knows");
    free(stray);
    config_free(c);
    unlink(path);
    unsetenv("OTHER_T_SECRET_FILE");
}

Test(config, listen_takes_hosts_ports_brackets_and_off, .init = clear)
{
    static const struct {
        const char *text, *host;
        int port;
    } ok[] = { { "0.0.0.0:0", "0.0.0.0", 0 }, { "[::1]:81", "::1", 81 }, { "name:65535", "name", 65535 } };
    static const char *const bad[] = { ":80", "h:", "h:65536", "::1:80", "[::1]80", "[]:1", "h:-1", "80" };
    char host[64];
    int port;

    setenv("KILN_T_URL", "unix:/x", 1);
    for (size_t i = 0; i < ARRAY_LEN(ok); i++) {
        setenv("KILN_T_LISTEN", ok[i].text, 1);
        struct config *c = config_read(table, ARRAY_LEN(table), NULL);
        cr_expect_eq(config_problems(c), 0, "%s", ok[i].text);
        cr_expect(config_listen(c, "KILN_T_LISTEN", host, sizeof host, &port), "%s", ok[i].text);
        cr_expect_str_eq(host, ok[i].host);
        cr_expect_eq(port, ok[i].port);
        config_free(c);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        setenv("KILN_T_LISTEN", bad[i], 1);
        struct config *c = config_read(table, ARRAY_LEN(table), NULL);
        cr_expect_eq(config_problems(c), 1, "%s", bad[i]);
        config_free(c);
    }
    setenv("KILN_T_LISTEN", "off", 1);
    struct config *c = config_read(table, ARRAY_LEN(table), NULL);
    cr_expect_eq(config_problems(c), 0);
    cr_expect(!config_listen(c, "KILN_T_LISTEN", host, sizeof host, &port));
    config_free(c);
}

static void refuse(struct config *c)
{
    config_add_problem(c, "KILN_T_URL", "is not to my taste");
}

static int run(const char *flag, void (*extra)(struct config *))
{
    char program[] = "t", arg[32];
    char *argv[] = { program, arg, NULL };
    struct config *c = NULL;
    (void)snprintf(arg, sizeof arg, "%s", flag ? flag : "");
    int status = config_main(flag ? 2 : 1, argv, "t", "t does things.", table, ARRAY_LEN(table), extra, &c);
    cr_expect_eq(c != NULL, status == -1);
    config_free(c);
    return status;
}

Test(config, the_three_flags_answer_and_problems_exit_78, .init = clear)
{
    cr_redirect_stdout();
    cr_redirect_stderr();
    cr_expect_eq(run("--help", NULL), 0);
    cr_expect_eq(run("--version", NULL), 0);
    cr_expect_eq(run("--nonsense", NULL), 2);
    cr_expect_eq(run(NULL, NULL), 78);
    cr_expect_eq(run("--check-config", NULL), 78);
    setenv("KILN_T_URL", "unix:/x", 1);
    setenv("KILN_MAX_QUEUED", "the dispatcher's", 1);
    cr_expect_eq(run("--check-config", NULL), 0);
    cr_expect_eq(run("--check-config", refuse), 78);
    cr_expect_eq(run(NULL, NULL), -1);
}
