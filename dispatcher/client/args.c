/* args.c - the words behind `kiln`: which command, its options, its operands; and the help, printed from the same
 * tables. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/text.h"
#include "dispatcher/client/client.h"
#include "dispatcher/client/show.h"

static const struct {
    const char *name;
    char letter;
    const char *value; /* NULL: a flag */
    const char *help;
} opt_rows[OPT_COUNT] = {
    [OPT_JSON] = { "--json", 0, NULL, "print JSON" },
    [OPT_HELP] = { "--help", 'h', NULL, "this text" },
    [OPT_IMAGE] = { "--image", 0, "FILE", "short for image=@FILE" },
    [OPT_ACCOUNT] = { "--account", 0, "ACCOUNT", "the app's account; default: default" },
    [OPT_PRIORITY] = { "--priority", 0, "N", "-100 to 100, higher first; default 0" },
    [OPT_DEADLINE] = { "--deadline", 0, "SECONDS", "give up when it has not ended by then" },
    [OPT_METADATA] = { "--metadata", 0, "JSON", "an object of your own, kept with the job" },
    [OPT_IDEMPOTENCY_KEY] = { "--idempotency-key", 0, "KEY", "one key, one job, however often it is submitted" },
    [OPT_WAIT] = { "--wait", 'w', NULL, "follow the job to its end" },
    [OPT_OUT] = { "--out", 'o', "FILE|DIR", "wait, and save the results; several get numbers" },
    [OPT_STATE] = { "--state", 0, "STATE", "queued, running, succeeded, failed or canceled" },
    [OPT_OPERATION] = { "--operation", 0, "NAME", "only this operation" },
    [OPT_LIMIT] = { "--limit", 'n', "N", "at most so many, the newest; default 20" },
    [OPT_APP] = { "--app", 0, "NAME|ID", "the app" },
    [OPT_SCOPES] = { "--scopes", 0, "LIST", "of jobs, credits and admin, separated by commas; default jobs" },
    [OPT_CODE] = { "--code", 0, "CODE", "only those that failed by this error code" },
    [OPT_PROVIDER] = { "--provider", 0, "NAME", "only this provider's" },
    [OPT_SINCE] = { "--since", 0, "TIME", "ended then or later: 2026-11-20T10:00:00Z" },
    [OPT_UNTIL] = { "--until", 0, "TIME", "ended before then" },
    [OPT_RATE] = { "--rate", 0, "N", "at most so many jobs a second; default 50" },
    [OPT_CONCURRENCY] = { "--concurrency", 0, "N|default", "jobs of it at once; 0: no limit" },
    [OPT_BUDGET] = { "--budget", 0, "N/S|default", "requests in so many seconds: 150/10" },
    [OPT_FOR] = { "--for", 0, "SECONDS", "how long; default: until it is resumed" },
    [OPT_REFERENCE] = { "--reference", 0, "TEXT", "what this grant is for: one reference grants once" },
};

/* Words of `name` that `argv` begins with, all of them; 0: another command. */
static int args_name_words(const char *name, int argc, char **argv)
{
    int n = 0;

    while (*name) {
        size_t len = strcspn(name, " ");
        if (n >= argc || strlen(argv[n]) != len || memcmp(argv[n], name, len) != 0)
            return 0;
        n++;
        name += len;
        name += strspn(name, " ");
    }
    return n;
}

static int args_find_command(struct client *c, int argc, char **argv, char *message, size_t size)
{
    struct buf list = { 0 };
    size_t len;
    int used;

    for (size_t i = 0; i < commands_count; i++) {
        if ((used = args_name_words(commands[i].name, argc, argv)) > 0) {
            c->command = &commands[i];
            return used;
        }
    }
    len = strlen(argv[0]);
    for (size_t i = 0; i < commands_count; i++) { /* `kiln key`: which are there? */
        if (strncmp(commands[i].name, argv[0], len) == 0 && commands[i].name[len] == ' ')
            (void)buf_printf(&list, "%s%s", list.len > 0 ? ", " : "", commands[i].name);
    }
    if (list.len > 0)
        (void)snprintf(message, size, "%s what? There is: %s", argv[0], list.data);
    else
        (void)snprintf(message, size, "there is no command \"%s\"; kiln --help lists them", argv[0]);
    buf_done(&list);
    return 0;
}

static bool args_add_word(struct client *c, const char *prefix, const char *text)
{
    size_t size = strlen(prefix) + strlen(text) + 1;
    char **grown = realloc(c->words, (c->word_count + 1) * sizeof *grown), *word = malloc(size);

    if (grown)
        c->words = grown;
    if (!grown || !word) {
        free(word);
        return false;
    }
    (void)snprintf(word, size, "%s%s", prefix, text);
    c->words[c->word_count++] = word;
    return true;
}

static enum client_opt args_opt(const char *word, size_t len)
{
    enum client_opt opt = 0;

    for (; opt < OPT_COUNT; opt++) {
        if (strlen(opt_rows[opt].name) == len && memcmp(opt_rows[opt].name, word, len) == 0)
            break;
        if (opt_rows[opt].letter && len == 2 && word[0] == '-' && word[1] == opt_rows[opt].letter)
            break;
    }
    return opt;
}

/* Takes the option at argv[*i], and its value behind `=` or as the next word. */
static bool args_take_opt(struct client *c, int argc, char **argv, int *i, char *message, size_t size)
{
    const char *word = argv[*i], *value = "";
    size_t len = strncmp(word, "--", 2) == 0 ? strcspn(word, "=") : strlen(word);
    enum client_opt opt = args_opt(word, len);
    unsigned allowed = c->command->opts | OPT_BIT(OPT_JSON) | OPT_BIT(OPT_HELP);

    if (opt == OPT_COUNT || !(allowed & OPT_BIT(opt))) {
        (void)snprintf(message, size, "%s takes no %.*s", c->command->name, (int)len, word);
        return false;
    }
    if (!opt_rows[opt].value && word[len] == '=') {
        (void)snprintf(message, size, "%s takes no value", opt_rows[opt].name);
        return false;
    }
    if (opt_rows[opt].value && word[len] == '=') {
        value = word + len + 1;
    } else if (opt_rows[opt].value) {
        if (*i + 1 >= argc) {
            (void)snprintf(message, size, "%s wants a value: %s", opt_rows[opt].name, opt_rows[opt].value);
            return false;
        }
        value = argv[++*i];
    }
    if (opt == OPT_IMAGE)
        return args_add_word(c, "image=@", value);
    if (c->opts[opt] && opt_rows[opt].value) {
        (void)snprintf(message, size, "%s is given twice", opt_rows[opt].name);
        return false;
    }
    c->opts[opt] = value;
    return true;
}

bool args_parse(struct client *c, int argc, char **argv, char *message, size_t size)
{
    int i = argc > 0 ? args_find_command(c, argc, argv, message, size) : 0;
    bool only_words = false;

    if (i == 0)
        return false;
    for (; i < argc; i++) {
        if (!only_words && strcmp(argv[i], "--") == 0) {
            only_words = true;
        } else if (!only_words && argv[i][0] == '-' && argv[i][1] != '\0') {
            if (!args_take_opt(c, argc, argv, &i, message, size))
                return false;
        } else if (!args_add_word(c, "", argv[i])) {
            (void)snprintf(message, size, "out of memory");
            return false;
        }
    }
    c->is_json = c->opts[OPT_JSON] != NULL;
    if (c->opts[OPT_HELP])
        return true;
    if (c->word_count < (size_t)c->command->min || (c->command->max >= 0 && c->word_count > (size_t)c->command->max)) {
        (void)snprintf(message, size, "%s takes %s", c->command->name,
                       *c->command->operands ? c->command->operands : "no operands");
        return false;
    }
    return true;
}

void args_done(struct client *c)
{
    for (size_t i = 0; i < c->word_count; i++)
        free(c->words[i]);
    free(c->words);
    c->words = NULL;
    c->word_count = 0;
}

bool args_int(const struct client *c, enum client_opt opt, int64_t min, int64_t max, int64_t *out)
{
    if (!c->opts[opt] || parse_i64(c->opts[opt], min, max, out) == ERR_OK)
        return true;
    show_error("%s: must be a number from %" PRId64 " to %" PRId64 ", got \"%s\"", opt_rows[opt].name, min, max,
               c->opts[opt]);
    return false;
}

/* ---- help */

void args_help(const struct config_option *table, size_t count)
{
    char line[128];

    printf("kiln - submits generations, follows them to the picture, and keeps the books\n\n"
           "usage: kiln COMMAND [OPTION...]\n");
    for (size_t i = 0; i < commands_count; i++) {
        if (commands[i].group)
            printf("\n%s\n", commands[i].group);
        (void)snprintf(line, sizeof line, "%s %s", commands[i].name, commands[i].operands);
        printf(strlen(line) > 34 ? "  %s\n%37s%s\n" : "  %-34s%s %s\n", line, "", commands[i].summary);
    }
    printf(
        "\nEvery command takes --json, and --help, which says more about it. Also:\n"
        "  kiln --version\n"
        "  kiln --check-config                checks the environment, lists every problem, exits 78 if there is one\n"
        "\nExit status\n"
        "  0 done   1 the job failed or was canceled   2 wrong usage, or refused   3 not reachable\n"
        "  4 not enough credits   78 configuration   128+N ended by signal N; a job goes on by itself\n"
        "\nEnvironment (any NAME may be given as NAME_FILE, a path whose first line is the value)\n");
    config_help(table, count, stdout);
}

void args_help_command(const struct command *command)
{
    unsigned opts = command->opts | OPT_BIT(OPT_JSON) | OPT_BIT(OPT_HELP);
    char line[64];

    printf("kiln %s - %s\n\nusage: kiln %s%s%s [OPTION...]\n", command->name, command->summary, command->name,
           *command->operands ? " " : "", command->operands);
    if (command->more)
        printf("\n%s\n", command->more);
    printf("\n");
    for (enum client_opt i = 0; i < OPT_COUNT; i++) {
        enum client_opt opt = (i + OPT_HELP + 1) % OPT_COUNT; /* its own first, --json and --help last */
        if (!(opts & OPT_BIT(opt)))
            continue;
        if (opt_rows[opt].letter)
            (void)snprintf(line, sizeof line, "-%c, %s %s", opt_rows[opt].letter, opt_rows[opt].name,
                           opt_rows[opt].value ? opt_rows[opt].value : "");
        else
            (void)snprintf(line, sizeof line, "    %s %s", opt_rows[opt].name,
                           opt_rows[opt].value ? opt_rows[opt].value : "");
        printf("  %-30s %s\n", line, opt_rows[opt].help);
    }
}
