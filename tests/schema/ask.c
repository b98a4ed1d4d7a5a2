/* ask.c - see ask.h. */
#include "tests/schema/ask.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static PGconn *to(const char *dbname)
{
    const char *const keys[] = { "host", "user", "dbname", NULL };
    const char *const values[] = { getenv("KILN_SCHEMA_SERVER"), "kiln", dbname, NULL };

    return PQconnectdbParams(keys, values, 0);
}

static const char *own_name(void)
{
    static _Thread_local char name[32]; /* crowds connect from several threads at once */

    snprintf(name, sizeof name, "t%ld", (long)getpid());
    return name;
}

PGconn *test_connect(void)
{
    PGconn *c = to(own_name());

    if (PQstatus(c) != CONNECTION_OK)
        fprintf(stderr, "%s", PQerrorMessage(c));
    return c;
}

PGconn *test_db(void)
{
    PGconn *c = to("postgres");
    char sql[96];
    PGresult *r;

    cr_assert_eq(PQstatus(c), CONNECTION_OK, "%s", PQerrorMessage(c));
    snprintf(sql, sizeof sql, "create database %s template template1", own_name());
    r = PQexec(c, sql); /* waits by itself until nobody is connected to the template any more */
    cr_assert_eq(PQresultStatus(r), PGRES_COMMAND_OK, "%s", PQerrorMessage(c));
    PQclear(r);
    PQfinish(c);
    return test_connect();
}

char *ask(PGconn *c, const char *const *sql_and_params, size_t n)
{
    PGresult *r = PQexecParams(c, sql_and_params[0], (int)n - 1, NULL, sql_and_params + 1, NULL, NULL, 0);
    ExecStatusType st = PQresultStatus(r);
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);

    if (st == PGRES_TUPLES_OK) {
        for (int row = 0; row < PQntuples(r); row++)
            for (int col = 0; col < PQnfields(r); col++)
                fprintf(out, "%s%s", col > 0 ? "|" : row > 0 ? " " : "", PQgetvalue(r, row, col));
    } else if (st != PGRES_COMMAND_OK) {
        const char *state = PQresultErrorField(r, PG_DIAG_SQLSTATE);

        fprintf(out, "ERROR %s", state != NULL ? state : PQerrorMessage(c));
    }
    fclose(out);
    if (strncmp(text, "ERROR", 5) == 0 && getenv("KILN_SCHEMA_VERBOSE") != NULL)
        fprintf(stderr, "%s\n", PQresultErrorMessage(r));
    PQclear(r);
    return text;
}

void answer(const char *file, int line, PGconn *c, const char *want, const char *const *sql_and_params, size_t n)
{
    char *got = ask(c, sql_and_params, n);

    if (want == NULL)
        cr_assert(strncmp(got, "ERROR", 5) != 0, "%s:%d: %s\n  %s\n  %s", file, line, got, sql_and_params[0],
                  PQerrorMessage(c));
    else
        cr_assert_str_eq(got, want, "%s:%d: %s\n  expected: %s\n  found:    %s", file, line, sql_and_params[0], want,
                         got);
    free(got);
}

long ask_number(PGconn *c, const char *sql)
{
    char *got = ASK(c, sql);
    char *end = NULL;
    long n = strtol(got, &end, 10);

    cr_assert(end != got && *end == '\0', "%s: %s", sql, got);
    free(got);
    return n;
}

void test_done(PGconn *c)
{
    ANSWER(c, "", "select \"check\", subject, expected, found from kiln_audit()");
    PQfinish(c);
}
