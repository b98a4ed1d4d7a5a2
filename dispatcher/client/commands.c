/* commands.c - the commands of kiln, one a row: what it takes, what it needs, what it says about itself. */
#include "common/base/text.h"
#include "dispatcher/client/client.h"

#define FOLLOW (OPT_BIT(OPT_WAIT) | OPT_BIT(OPT_OUT))
#define FAILED                                                                                                         \
    (OPT_BIT(OPT_STATE) | OPT_BIT(OPT_APP) | OPT_BIT(OPT_ACCOUNT) | OPT_BIT(OPT_CODE) | OPT_BIT(OPT_OPERATION) |       \
     OPT_BIT(OPT_PROVIDER) | OPT_BIT(OPT_SINCE) | OPT_BIT(OPT_UNTIL))
#define PARAMS_HELP                                                                                                    \
    "A value is a number, a yes/no, a text or a list as the operation's parameter wants it\n"                          \
    "(`kiln operations OPERATION` shows them). KEY=@FILE uploads a file for a parameter that takes one,\n"             \
    "and is the file's text for any other; a value that begins with @@ begins with one @. A file may also\n"           \
    "be given as the id of an upload or of an artifact, as a data: URI or as a URL. Where a parameter is a\n"          \
    "list, give it several times."
#define WEIGHT_HELP                                                                                                    \
    "1 (as they come) to 1000: who has 3 gets three starts for each one of who has 1, as long as both have\n"          \
    "jobs waiting in a provider's lane. The queue follows within seconds."
static const char submit_help[] =
    PARAMS_HELP "\n\n"
                "Prints the job's id. With --wait it shows how the job goes, and how it ends; with -o it saves the\n"
                "results too. Ctrl-C leaves the job running.\n\n"
                "  kiln submit openai.images.generate prompt=\"a teapot on the moon\" -o teapot.png\n"
                "  kiln submit stability.upscale.creative prompt=teapot --image teapot.png -o large.png";

const struct command commands[] = {
    { "Jobs", "submit", "OPERATION KEY=VALUE...", 1, -1,
      FOLLOW | OPT_BIT(OPT_IMAGE) | OPT_BIT(OPT_ACCOUNT) | OPT_BIT(OPT_PRIORITY) | OPT_BIT(OPT_DEADLINE) |
          OPT_BIT(OPT_METADATA) | OPT_BIT(OPT_IDEMPOTENCY_KEY),
      NEEDS_DISPATCHER, "gives a job to the queue; --wait follows it, -o FILE saves what comes", submit_help,
      submit_run },
    { NULL, "get", "JOB", 1, 1, FOLLOW, NEEDS_DISPATCHER, "shows a job; --wait follows it, -o FILE saves what came",
      NULL, jobs_get },
    { NULL, "list", "", 0, 0, OPT_BIT(OPT_STATE) | OPT_BIT(OPT_ACCOUNT) | OPT_BIT(OPT_OPERATION) | OPT_BIT(OPT_LIMIT),
      NEEDS_DISPATCHER, "the app's jobs, newest first", NULL, jobs_list },
    { NULL, "cancel", "JOB", 1, 1, 0, NEEDS_DISPATCHER, "ends a job that is queued or running",
      "Exit status 2 when the job had ended by itself before.", jobs_cancel },
    { NULL, "estimate", "OPERATION KEY=VALUE...", 1, -1, OPT_BIT(OPT_IMAGE), NEEDS_DISPATCHER,
      "what a job would cost; nothing is sent or held", PARAMS_HELP, submit_estimate },
    { NULL, "operations", "[OPERATION]", 0, 1, 0, NEEDS_DISPATCHER,
      "what can be asked for; with a name: its parameters and prices", NULL, operations_show },
    { "Credits", "credits", "[ACCOUNT]", 0, 1, 0, NEEDS_DISPATCHER, "what an account (default: default) has", NULL,
      credits_show },
    { NULL, "ledger", "[ACCOUNT]", 0, 1, OPT_BIT(OPT_LIMIT), NEEDS_DISPATCHER, "how it came to that, entry by entry",
      NULL, credits_ledger },
    { "For operators, with a key of the scope admin", "jobs list", "", 0, 0, FAILED | OPT_BIT(OPT_LIMIT),
      NEEDS_DISPATCHER, "failed jobs of all apps, the last to end first", NULL, dead_list },
    { NULL, "jobs show", "JOB", 1, 1, 0, NEEDS_DISPATCHER, "any job, with its attempts", NULL, dead_show },
    { NULL, "jobs retry", "JOB... | --state failed [...]", 0, -1, FAILED | OPT_BIT(OPT_RATE), NEEDS_DISPATCHER,
      "new jobs in place of failed ones, once for each",
      "Each is checked and priced anew, and has a hold of its own. A job has one retry: said again, nothing is made\n"
      "twice, and what was cut off goes on. Exit status 2 when any was refused; these stay as they were.\n\n"
      "  kiln jobs retry --state failed --code timeout --rate 50",
      dead_retry },
    { NULL, "exposure", "", 0, 0, OPT_BIT(OPT_PROVIDER) | OPT_BIT(OPT_SINCE) | OPT_BIT(OPT_UNTIL) | OPT_BIT(OPT_LIMIT),
      NEEDS_DISPATCHER, "what may have been paid for nothing, and its totals", NULL, exposure_show },
    { NULL, "providers check", "", 0, 0, 0, NEEDS_DISPATCHER, "asks each: reachable, key accepted, balance",
      "Free requests only, one with each key. Exit status 2 when one cannot be reached or refuses a key.",
      providers_check },
    { NULL, "providers", "", 0, 0, 0, NEEDS_DISPATCHER, "every provider's keys, breaker and last error", NULL,
      providers_show },
    { NULL, "lanes", "", 0, 0, 0, NEEDS_DISPATCHER, "every provider's limits, pauses and queue", NULL, lanes_show },
    { NULL, "lane set", "LANE", 1, 1, OPT_BIT(OPT_CONCURRENCY) | OPT_BIT(OPT_BUDGET), NEEDS_DISPATCHER,
      "changes a lane's limits", NULL, lanes_set },
    { NULL, "lane pause", "LANE", 1, 1, OPT_BIT(OPT_FOR), NEEDS_DISPATCHER, "nobody claims from it; running jobs end",
      NULL, lanes_pause },
    { NULL, "lane resume", "LANE", 1, 1, 0, NEEDS_DISPATCHER, "ends an operator's pause", NULL, lanes_resume },
    { "For operators, on the database itself", "migrate", "", 0, 0, 0, NEEDS_DATABASE,
      "makes the tables, or brings them up to date", NULL, admin_migrate },
    { NULL, "app create", "NAME", 1, 1, 0, NEEDS_DATABASE, "a new app", NULL, admin_app_create },
    { NULL, "app list", "", 0, 0, 0, NEEDS_DATABASE, "the apps", NULL, admin_app_list },
    { NULL, "app weight", "APP N", 2, 2, 0, NEEDS_DATABASE, "an app's share of starts while others wait as well",
      WEIGHT_HELP, admin_app_weight },
    { NULL, "account weight", "--app NAME|ID ACCOUNT N", 2, 2, OPT_BIT(OPT_APP), NEEDS_DATABASE,
      "an account's share among the accounts of its app", WEIGHT_HELP, admin_account_weight },
    { NULL, "key create", "--app NAME|ID", 0, 0, OPT_BIT(OPT_APP) | OPT_BIT(OPT_SCOPES), NEEDS_DATABASE,
      "a new API key, shown this once",
      "Only its SHA-256 is kept. Scopes: jobs submits and reads, credits grants, "
      "admin operates.",
      admin_key_create },
    { NULL, "key list", "[--app NAME|ID]", 0, 0, OPT_BIT(OPT_APP), NEEDS_DATABASE,
      "the keys, by their first characters", NULL, admin_key_list },
    { NULL, "key revoke", "PREFIX|ID", 1, 1, 0, NEEDS_DATABASE, "ends a key", NULL, admin_key_revoke },
    { NULL, "grant", "--app NAME|ID ACCOUNT CREDITS --reference TEXT", 2, 2, OPT_BIT(OPT_APP) | OPT_BIT(OPT_REFERENCE),
      NEEDS_DATABASE, "gives an account credits, once for each reference", NULL, admin_grant },
    { NULL, "audit", "", 0, 0, 0, NEEDS_DATABASE, "recomputes the books; exit status 1 when anything differs",
      "Every account and every job is recomputed from the ledger; each difference is printed.", audit_run },
};
const size_t commands_count = ARRAY_LEN(commands);
