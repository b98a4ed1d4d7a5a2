/* audit.c - kiln audit: recomputes the books from the ledger and prints each difference. None is the only pass. */
#include <inttypes.h>
#include <stdio.h>
#include "common/base/json.h"
#include "dispatcher/client/client.h"
#include "dispatcher/client/rows.h"
#include "dispatcher/client/show.h"

static void audit_show(json_t *differences)
{
    struct table t = { .heads = { "CHECK", "SUBJECT", "EXPECTED", "FOUND" } };
    size_t i;
    json_t *one;

    json_array_foreach(differences, i, one)
    {
        const char *account = json_text(one, "account");
        struct buf subject = { 0 };

        (void)buf_printf(&subject, "%s%s%s%s", json_text(one, "subject"), account ? " (" : "", account ? account : "",
                         account ? ")" : "");
        table_add(&t, json_text(one, "check"));
        table_add(&t, subject.data);
        table_add(&t, json_text(one, "expected"));
        table_add(&t, json_text(one, "found"));
        buf_done(&subject);
    }
    table_print(&t, stdout);
}

int audit_run(struct client *c)
{
    static const char *const columns[] = { "check", "subject", "expected", "found", "account", NULL },
                             *const totals[] = { "accounts#", "jobs#", "ledger_rows#", NULL };
    json_t *differences = NULL, *counts = NULL, *out = NULL;
    int64_t accounts = 0, jobs = 0, rows = 0;
    size_t wrong = 0;
    int status = rows_read(c,
                           "select d.\"check\", d.subject, d.expected, d.found, p.name || '/' || a.name as account "
                           "from kiln_audit() d left join accounts a on d.subject = 'account ' || a.id "
                           "left join apps p on p.id = a.app_id order by 1, 2",
                           0, NULL, columns, &differences);

    if (status == CLIENT_DONE)
        status = rows_read(c,
                           "select (select count(*) from accounts) as accounts, (select count(*) from jobs) as jobs, "
                           "(select count(*) from ledger) as ledger_rows",
                           0, NULL, totals, &counts);
    if (status != CLIENT_DONE)
        goto out;
    wrong = json_array_size(differences);
    (void)json_int(json_array_get(counts, 0), "accounts", &accounts);
    (void)json_int(json_array_get(counts, 0), "jobs", &jobs);
    (void)json_int(json_array_get(counts, 0), "ledger_rows", &rows);
    if (c->is_json) {
        out = json_pack("{s:O, s:I, s:I, s:I}", "differences", differences, "accounts", (json_int_t)accounts, "jobs",
                        (json_int_t)jobs, "ledger_rows", (json_int_t)rows);
        show_json(out);
    } else if (wrong > 0) {
        audit_show(differences);
        show_error("%zu difference%s in %" PRId64 " accounts, %" PRId64 " jobs, %" PRId64 " ledger rows", wrong,
                   wrong == 1 ? "" : "s", accounts, jobs, rows);
    } else {
        printf("books are right: %" PRId64 " accounts, %" PRId64 " jobs, %" PRId64 " ledger rows\n", accounts, jobs,
               rows);
    }
    if (wrong > 0)
        status = CLIENT_JOB_FAILED;
out:
    json_decref(out);
    json_decref(counts);
    json_decref(differences);
    return status;
}
