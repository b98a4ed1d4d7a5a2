/* server.c - starts initdb and postgres through the shell, from a guardian process that outlives a killed test program:
 * it waits for the end of a pipe that nobody else holds, then stops the server. */
#include "tests/schema/server.h"

#include <dirent.h>
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <fcntl.h>
#include <signal.h>

struct server {
    pid_t guardian;
    int alive; /* our end of the pipe: closed by our death, if by nothing else */
};

/* $1 the folder, $2 the verb. Settings: nothing here has to survive a crash of the machine. */
static const char script[] =
    "set -eu; dir=$1; as=; [ \"$(id -u)\" != 0 ] || { chown postgres \"$dir\"; as='runuser -u postgres --'; }\n"
    "bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -1); cd \"$dir\"\n"
    "case $2 in\n"
    "start) $as \"$bin/initdb\" -D \"$dir/data\" -A trust -U kiln -E UTF8 --locale=C.UTF-8 --no-sync >\"$dir/initdb.log\" 2>&1\n"
    "  $as \"$bin/pg_ctl\" -D \"$dir/data\" -l \"$dir/data/log\" -w -t 60 -s -o \"-c listen_addresses= "
    "-c unix_socket_directories=$dir -c fsync=${KILN_SCHEMA_DURABLE:-off} -c full_page_writes=${KILN_SCHEMA_DURABLE:-off} -c max_connections=250 "
    "-c shared_buffers=128MB -c deadlock_timeout=200ms -c max_wal_size=2GB -c log_min_messages=fatal\" start;;\n"
    "stop) $as \"$bin/pg_ctl\" -D \"$dir/data\" -m immediate -s stop || true; cd /; rm -rf \"$dir\";;\n"
    "esac\n";

static int run(const char *dir, const char *verb)
{
    pid_t pid = fork();
    int status = -1;

    if (pid == 0) {
        execl("/bin/sh", "sh", "-c", script, "server", dir, verb, (char *)NULL);
        _exit(127);
    }
    if (pid < 0 || waitpid(pid, &status, 0) < 0)
        return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void guard(const char *dir, int ready, int alive)
{
    char c = run(dir, "start") == 0 ? 'y' : 'n';

    (void)!write(ready, &c, 1);
    while (read(alive, &c, 1) > 0) {
    }
    run(dir, "stop");
    _exit(0);
}

static int load_file(PGconn *c, const char *path)
{
    FILE *f = fopen(path, "r");
    char *text = NULL;
    size_t len = 0;
    FILE *mem;
    int ch, rc = -1;
    PGresult *r;

    if (f == NULL || (mem = open_memstream(&text, &len)) == NULL) {
        fprintf(stderr, "cannot read %s\n", path);
        if (f != NULL)
            fclose(f);
        return -1;
    }
    while ((ch = fgetc(f)) != EOF)
        fputc(ch, mem);
    fclose(f);
    fclose(mem);
    r = PQexec(c, text);
    if (PQresultStatus(r) == PGRES_COMMAND_OK || PQresultStatus(r) == PGRES_TUPLES_OK)
        rc = 0;
    else
        fprintf(stderr, "%s: %s", path, PQerrorMessage(c));
    PQclear(r);
    free(text);
    return rc;
}

static int is_sql(const struct dirent *entry)
{
    size_t len = strlen(entry->d_name);

    return len > 4 && strcmp(entry->d_name + len - 4, ".sql") == 0;
}

/* Every migration in order, as the migrator runs them, into the database that the tests' are copies of. */
static int fill(const char *dir)
{
    const char *const keys[] = { "host", "user", "dbname", NULL };
    const char *const values[] = { dir, "kiln", "template1", NULL };
    PGconn *c = PQconnectdbParams(keys, values, 0);
    struct dirent **files = NULL;
    char path[1024];
    int rc = -1, count = 0;

    if (PQstatus(c) != CONNECTION_OK) {
        fprintf(stderr, "%s", PQerrorMessage(c));
        goto out;
    }
    PQclear(PQexec(c, "set client_min_messages = error"));
    count = scandir(KILN_SQL_DIR, &files, is_sql, alphasort);
    for (int i = 0; i < count; i++) {
        snprintf(path, sizeof path, "%s/%s", KILN_SQL_DIR, files[i]->d_name);
        if (load_file(c, path) != 0)
            goto out;
    }
    rc = count > 0 ? load_file(c, KILN_SQL_HELPERS) : -1;
out:
    for (int i = 0; i < count; i++)
        free(files[i]);
    free(files);
    PQfinish(c);
    return rc;
}

struct server *server_start(void)
{
    char dir[] = "/tmp/ks.XXXXXX";
    int ready[2], alive[2];
    struct server *s = NULL;
    char c = 'n';

    signal(SIGPIPE, SIG_IGN);
    if (mkdtemp(dir) == NULL || pipe(ready) != 0 || pipe(alive) != 0 || (s = calloc(1, sizeof *s)) == NULL)
        return NULL;
    for (int i = 0; i < 2; i++) {
        fcntl(ready[i], F_SETFD, FD_CLOEXEC);
        fcntl(alive[i], F_SETFD, FD_CLOEXEC);
    }
    s->guardian = fork();
    if (s->guardian == 0) {
        setsid(); /* a signal to our group is for the tests */
        close(alive[1]);
        close(ready[0]);
        guard(dir, ready[1], alive[0]);
    }
    close(alive[0]);
    close(ready[1]);
    s->alive = alive[1];
    if (s->guardian < 0 || read(ready[0], &c, 1) != 1 || c != 'y' || fill(dir) != 0) {
        fprintf(stderr, "PostgreSQL did not start\n");
        close(ready[0]);
        server_stop(s);
        return NULL;
    }
    close(ready[0]);
    setenv("KILN_SCHEMA_SERVER", dir, 1);
    return s;
}

void server_stop(struct server *s)
{
    if (s == NULL)
        return;
    close(s->alive);
    if (s->guardian > 0)
        waitpid(s->guardian, NULL, 0);
    free(s);
}
