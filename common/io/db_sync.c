/* db_sync.c - PostgreSQL without a loop: one statement, and the migrations. For command lines and start-up.
 *
 * Two programs that migrate at once are put in line by an advisory lock of the session. Each migration is one
 * transaction together with its row in `migrations`, so that a cut leaves it applied or not. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/embedded.h"
#include "common/base/text.h"
#include "common/io/db_inner.h"

static const char lock_sql[] =
    "select pg_advisory_lock(7017280452245743464)"; /* any number will do, as long as it stays */
static const char table_sql[] = "create table if not exists migrations (version int primary key, name text not null, "
                                "checksum text not null, applied_at timestamptz not null default now())";

/* libpq ends its messages with a newline, and some have several lines. */
static void message_set(char *message, size_t size, const char *text)
{
    size_t len = strlen(text);

    while (len > 0 && (text[len - 1] == '\n' || text[len - 1] == ' '))
        len--;
    if (size == 0)
        return;
    len = len < size ? len : size - 1;
    memcpy(message, text, len);
    message[len] = '\0';
}

static void sync_on_notice(void *arg, const PGresult *result)
{
    (void)arg;
    (void)result; /* "relation already exists, skipping" is no news */
}

static enum err sync_open(const char *url, PGconn **out, char *message, size_t size)
{
    struct db_options options;
    PGconn *pg;

    if (!db_options_read(&options, url, "kiln")) {
        message_set(message, size, "the database URL cannot be read");
        return ERR_ARGUMENT;
    }
    (void)db_options_add(&options, "connect_timeout", "10");
    pg = PQconnectdbParams(options.keywords, options.values, 0);
    db_options_done(&options);
    if (!pg || PQstatus(pg) != CONNECTION_OK) {
        message_set(message, size, pg ? PQerrorMessage(pg) : "out of memory");
        PQfinish(pg);
        return ERR_UNAVAILABLE;
    }
    PQsetNoticeReceiver(pg, sync_on_notice, NULL);
    *out = pg;
    return ERR_OK;
}

/* Consumes the result. */
static enum err sync_result(PGconn *pg, PGresult *result, void (*fn)(void *ctx, const struct db_result *result),
                            void *ctx, char *message, size_t size)
{
    ExecStatusType status = PQresultStatus(result); /* of NULL: fatal */
    enum err err = ERR_OK;

    if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK) {
        err = PQstatus(pg) == CONNECTION_OK ? ERR_REFUSED : ERR_LOST;
        message_set(message, size, result ? PQresultErrorMessage(result) : PQerrorMessage(pg));
    } else if (fn) {
        fn(ctx, &(struct db_result){ result });
    }
    PQclear(result);
    return err;
}

enum err db_sync(const char *url, const char *sql, size_t count, const char *const *values,
                 void (*fn)(void *ctx, const struct db_result *result), void *ctx, char *message, size_t message_size)
{
    PGconn *pg = NULL;
    enum err err = sync_open(url, &pg, message, message_size);

    if (err == ERR_OK)
        err = sync_result(pg, PQexecParams(pg, sql, (int)count, NULL, values, NULL, NULL, 0), fn, ctx, message,
                          message_size);
    PQfinish(pg);
    return err;
}

/* --- migrations --- */

struct migrate {
    PGconn *pg;
    void (*report)(void *ctx, const char *line);
    void *ctx;
    char *message;
    size_t size;
};

static enum err migrate_exec(struct migrate *m, const char *sql) /* may be several statements */
{
    return sync_result(m->pg, PQexec(m->pg, sql), NULL, NULL, m->message, m->size);
}

static void migrate_on_recorded(void *ctx, const struct db_result *result)
{
    if (db_rows(result) == 1)
        (void)snprintf(ctx, SHA256_HEX, "%s", db_col(result, 0, "checksum"));
}

static enum err migrate_record(struct migrate *m, const char *version, const char *name, const char *checksum)
{
    const char *values[] = { version, name, checksum };
    return sync_result(m->pg,
                       PQexecParams(m->pg, "insert into migrations (version, name, checksum) values ($1, $2, $3)", 3,
                                    NULL, values, NULL, NULL, 0),
                       NULL, NULL, m->message, m->size);
}

static enum err migrate_apply(struct migrate *m, const struct db_migration *migration, const char *version,
                              const char *checksum)
{
    enum err err = migrate_exec(m, "begin");
    char cause[512] = "", line[256];

    if (err == ERR_OK)
        err = migrate_exec(m, migration->sql);
    if (err == ERR_OK)
        err = migrate_record(m, version, migration->name, checksum);
    if (err == ERR_OK)
        err = migrate_exec(m, "commit");
    if (err != ERR_OK) {
        message_set(cause, sizeof cause, m->size > 0 ? m->message : "");
        if (m->size > 0)
            (void)snprintf(m->message, m->size, "migration %s: %s", migration->name, cause);
        PQclear(PQexec(m->pg, "rollback")); /* fails only where the connection is gone, which rolls back as well */
        return err;
    }
    (void)snprintf(line, sizeof line, "applied %s", migration->name);
    if (m->report)
        m->report(m->ctx, line);
    return ERR_OK;
}

static enum err migrate_one(struct migrate *m, const struct db_migration *migration)
{
    char recorded[SHA256_HEX] = "", checksum[SHA256_HEX], version[16];
    const char *values[] = { version };
    enum err err;

    sha256_hex(checksum, migration->sql, strlen(migration->sql));
    (void)snprintf(version, sizeof version, "%d", migration->version);
    err = sync_result(
        m->pg,
        PQexecParams(m->pg, "select checksum from migrations where version = $1", 1, NULL, values, NULL, NULL, 0),
        migrate_on_recorded, recorded, m->message, m->size);
    if (err != ERR_OK)
        return err;
    if (recorded[0] == '\0')
        return migrate_apply(m, migration, version, checksum);
    if (strcmp(recorded, checksum) == 0)
        return ERR_OK;
    if (m->size > 0)
        (void)snprintf(m->message, m->size,
                       "migration %s was changed after it had been applied to this database (its checksum there is "
                       "%.12s..., here %.12s...); nothing was done",
                       migration->name, recorded, checksum);
    return ERR_CONFLICT;
}

enum err db_migrate(const char *url, const struct db_migration *migrations, size_t count,
                    void (*report)(void *ctx, const char *line), void *ctx, char *message, size_t message_size)
{
    struct migrate m = { NULL, report, ctx, message, message_size };
    enum err err = sync_open(url, &m.pg, message, message_size);

    if (err == ERR_OK)
        err = migrate_exec(&m, lock_sql); /* held until the session ends */
    if (err == ERR_OK)
        err = migrate_exec(&m, table_sql);
    for (size_t i = 0; i < count && err == ERR_OK; i++)
        err = migrate_one(&m, &migrations[i]);
    PQfinish(m.pg);
    return err;
}

enum err db_migrate_embedded(const char *url, void (*report)(void *ctx, const char *line), void *ctx, char *message,
                             size_t message_size)
{
    struct db_migration *migrations = calloc(embedded_postgres_count + 1, sizeof *migrations);
    enum err err = migrations ? ERR_OK : ERR_NOMEM;

    for (size_t i = 0; i < embedded_postgres_count && err == ERR_OK; i++) {
        const struct embedded *file = &embedded_postgres[i];
        migrations[i] = (struct db_migration){ .version = (int)strtol(file->name, NULL, 10),
                                               .name = file->name,
                                               .sql = file->text };
    }
    if (err == ERR_OK)
        err = db_migrate(url, migrations, embedded_postgres_count, report, ctx, message, message_size);
    else
        message_set(message, message_size, err_text(err));
    free(migrations);
    return err;
}
