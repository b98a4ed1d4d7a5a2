/* db_result.c - what an answer means, and the values in it. */
#include <string.h>
#include "common/base/text.h"
#include "common/io/db_inner.h"

static bool state_in(const char *sqlstate, const char *list) /* list: "22 23 57P01", classes or whole codes */
{
    for (const char *p = list; *p; p += strspn(p, " ")) {
        size_t n = strcspn(p, " ");
        if (strncmp(sqlstate, p, n) == 0)
            return true;
        p += n;
    }
    return false;
}

enum db_fate db_fate_of(const PGresult *result, bool *is_connection_bad)
{
    ExecStatusType status = result ? PQresultStatus(result) : PGRES_FATAL_ERROR;
    const char *sqlstate = result ? PQresultErrorField(result, PG_DIAG_SQLSTATE) : NULL;

    *is_connection_bad = false;
    if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK || status == PGRES_EMPTY_QUERY)
        return DB_DONE;
    if (!sqlstate || state_in(sqlstate, "08 57P01 57P02 57P03 57P05")) {
        *is_connection_bad = true;
        return DB_GONE;
    }
    /* XX000 is also what our own functions raise when a row makes no sense to them. */
    if (state_in(sqlstate, "21 22 23 44 54 P0 XX000"))
        return DB_ROW;
    /* A standby after a fail-over, a plan or a statement that the session lost: a new connection cures it. */
    *is_connection_bad = state_in(sqlstate, "25006 0A000 26000 25P02");
    if (*is_connection_bad || state_in(sqlstate, "40 53 55P03 57014 58"))
        return DB_REPEAT;
    return DB_BROKEN;
}

static const char *cell(const struct db_result *r, int row, const char *column)
{
    int at = PQfnumber(r->pg, column);
    if (at < 0 || row < 0 || row >= PQntuples(r->pg) || PQgetisnull(r->pg, row, at))
        return NULL;
    return PQgetvalue(r->pg, row, at);
}

int db_rows(const struct db_result *r)
{
    return PQntuples(r->pg);
}

bool db_is_null(const struct db_result *r, int row, const char *column)
{
    return cell(r, row, column) == NULL;
}

const char *db_col(const struct db_result *r, int row, const char *column)
{
    const char *value = cell(r, row, column);
    return value ? value : "";
}

const char *db_at(const struct db_result *r, int row, int column)
{
    if (row < 0 || row >= PQntuples(r->pg) || column < 0 || column >= PQnfields(r->pg) ||
        PQgetisnull(r->pg, row, column))
        return NULL;
    return PQgetvalue(r->pg, row, column);
}

int64_t db_col_int(const struct db_result *r, int row, const char *column)
{
    int64_t n = 0;
    const char *value = cell(r, row, column);
    if (value)
        (void)parse_i64(value, INT64_MIN, INT64_MAX, &n); /* not a number: 0, as for NULL */
    return n;
}

bool db_col_bool(const struct db_result *r, int row, const char *column)
{
    return db_col(r, row, column)[0] == 't';
}

int db_col_word(const struct db_result *r, int row, const char *column, const char *const *words, size_t count)
{
    const char *value = db_col(r, row, column);
    for (size_t i = 0; i < count; i++)
        if (strcmp(words[i], value) == 0)
            return (int)i;
    return -1;
}

const char *db_sqlstate(const struct db_result *r)
{
    const char *code = r ? PQresultErrorField(r->pg, PG_DIAG_SQLSTATE) : NULL;
    return code ? code : "";
}
