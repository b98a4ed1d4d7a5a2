/* client.h - what the files of the command line share: a command as a row of a table, its arguments, its exit codes.
 *
 * One process runs one command and ends. A command prints what was asked for on stdout, everything else on stderr, and
 * returns its exit status. Text that came from elsewhere goes through show.h before it reaches a terminal. */
#ifndef KILN_CLIENT_H
#define KILN_CLIENT_H
#include <stdbool.h>
#include <stddef.h>
#include "common/base/config.h"
#include "common/base/err.h"

enum client_exit {
    CLIENT_DONE = 0,
    CLIENT_JOB_FAILED = 1, /* or canceled; kiln audit: differences */
    CLIENT_REFUSED = 2,    /* usage, or the dispatcher says no */
    CLIENT_UNREACHABLE = 3,
    CLIENT_NO_CREDITS = 4,
    CLIENT_CONFIG = 78
};

enum client_opt {
    OPT_JSON,
    OPT_HELP,
    OPT_IMAGE,
    OPT_ACCOUNT,
    OPT_PRIORITY,
    OPT_DEADLINE,
    OPT_METADATA,
    OPT_IDEMPOTENCY_KEY,
    OPT_WAIT,
    OPT_OUT,
    OPT_STATE,
    OPT_OPERATION,
    OPT_LIMIT,
    OPT_APP,
    OPT_SCOPES,
    OPT_REFERENCE,
    OPT_CODE,
    OPT_PROVIDER,
    OPT_SINCE,
    OPT_UNTIL,
    OPT_RATE,
    OPT_CONCURRENCY,
    OPT_BUDGET,
    OPT_FOR,
    OPT_COUNT
};
#define OPT_BIT(opt) (1u << (opt))

struct api;
struct client {
    const struct config *config;
    const struct command *command;
    const char *opts[OPT_COUNT]; /* value, "" for a flag that was given, NULL: not given; borrowed from argv */
    char **words;                /* operands; --image FILE became "image=@FILE" */
    size_t word_count;
    struct api *api;    /* of commands that ask a dispatcher, else NULL */
    const char *db_url; /* of commands that work on the database */
    bool is_json;
};

enum client_needs { NEEDS_DISPATCHER, NEEDS_DATABASE };
struct command {
    const char *group;    /* its heading in --help; NULL: as the row before */
    const char *name;     /* "key create" */
    const char *operands; /* "OPERATION KEY=VALUE..." */
    int min, max;         /* how many operands; max -1: any number */
    unsigned opts;        /* OPT_BITs beyond --json and --help */
    enum client_needs needs;
    const char *summary; /* one line */
    const char *more;    /* for its own --help; NULL */
    int (*run)(struct client *c);
};
extern const struct command commands[];
extern const size_t commands_count;

/* Reads argv behind the program's name. False: `message` says what is wrong; c->command is set when it was found. On
 * success args_done frees what was built. */
bool args_parse(struct client *c, int argc, char **argv, char *message, size_t message_size);
void args_done(struct client *c);
void args_help(const struct config_option *table, size_t count); /* of all commands, on stdout */
void args_help_command(const struct command *command);
/* An option's value as a number; false: message printed, the caller returns CLIENT_REFUSED. Absent: *out stays. */
bool args_int(const struct client *c, enum client_opt opt, int64_t min, int64_t max, int64_t *out);

/* Commands. */
int submit_run(struct client *c);
int submit_estimate(struct client *c);
int jobs_get(struct client *c);
int jobs_list(struct client *c);
int jobs_cancel(struct client *c);
int operations_show(struct client *c);
int credits_show(struct client *c);
int credits_ledger(struct client *c);
int dead_list(struct client *c);
int dead_show(struct client *c);
int dead_retry(struct client *c);
int exposure_show(struct client *c);
int lanes_show(struct client *c);
int providers_show(struct client *c);
int providers_check(struct client *c);
int lanes_set(struct client *c);
int lanes_pause(struct client *c);
int lanes_resume(struct client *c);
int admin_migrate(struct client *c);
int admin_app_create(struct client *c);
int admin_app_list(struct client *c);
int admin_app_weight(struct client *c);
int admin_account_weight(struct client *c);
int admin_key_create(struct client *c);
int admin_key_list(struct client *c);
int admin_key_revoke(struct client *c);
int admin_grant(struct client *c);
int audit_run(struct client *c);
#endif
