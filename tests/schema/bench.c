/* bench.c - rows a second of the batched functions as the daemons call them: array literals over libpq, one call a
 * commit, in a database whose plans were made while it was empty. Prints one line each. Run the release build; the test
 * server does not fsync unless KILN_SCHEMA_DURABLE is set. */
#include "tests/schema/ask.h"
#include "tests/schema/crowd.h"
#include "tests/schema/server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CALLS = 40, PARAMS = 20 };

enum kind { ACCEPT, START, CHECKPOINT, SETTLE, READ };

static const char *const calls[] = {
    [ACCEPT] =
        "select count(*) from kiln_accept($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, "
        "$17, $18, $19, null) where verdict = 'accepted'",
    [START] = "select count(*) from kiln_start(w(1), $1, $2, $3, $4) where verdict = 'go'",
    [CHECKPOINT] = "select count(*) from kiln_checkpoint(w(1), $1, $2, $3, $4, $5) where verdict = 'saved'",
    [SETTLE] =
        "select count(*) from kiln_settle(w(1), $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, "
        "$16) where verdict = 'committed'",
    [READ] = "select count(doc) from kiln_job_json($1)",
};

/* Elements of the parameters after the ids; %d is the row's number. */
static const char *const elements[][PARAMS] = {
    [ACCEPT] = { "aaaaaaaa-0000-7000-8000-000000000000", "acc%d", "key-%d", "0123456789abcdef0123456789abcdef",
                 "openai.images.generate", "openai",
                 "\"{\\\"prompt\\\":\\\"a lighthouse at dusk, oil on canvas, row %d, with some more words to be honest\\\"}\"",
                 "null", "4", "40", "v1", "0", "null", "3600", "retry", "\"{}\"", "null", "null" },
    [START] = { "f", "null", "null" },
    [CHECKPOINT] = { "1", "1", "ref-%d", "req-%d" },
    [SETTLE] = { "1", "1", "delivered", "null", "answered", "null", "200", "req-%d", "4", "160000", "null", "null",
                 NULL, "null", "null" },
    [READ] = { 0 },
};

struct bench {
    const char *name;
    enum kind kind;
    int base, rows, clients, accounts;
};

static const struct bench benches[] = {
    { "accept, 100 accounts", ACCEPT, 0, 500, 1, 100 },
    { "accept, 100 accounts", ACCEPT, 20000, 500, 2, 100 },
    { "accept, one account", ACCEPT, 40000, 500, 1, 1 },
    { "accept, one account", ACCEPT, 60000, 500, 2, 1 },
    { "start", START, 0, 500, 1, 0 },
    { "checkpoint", CHECKPOINT, 0, 500, 1, 0 },
    { "read", READ, 0, 500, 1, 0 },
    { "settle", SETTLE, 0, 200, 1, 0 },
    { "start", START, 20000, 200, 2, 0 },
    { "settle", SETTLE, 20000, 200, 2, 0 },
};

static char *literal(const struct bench *b, const char *element, int first)
{
    char *text = NULL, cell[400];
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    const char *spot = element != NULL ? strstr(element, "%d") : NULL;

    for (int i = 0; i < b->rows; i++) {
        int n = b->accounts > 0 && element != NULL && strncmp(element, "acc", 3) == 0 ? i * 7 % b->accounts : first + i;

        if (element == NULL) /* artifacts of a settle: the ids are random */
            snprintf(cell, sizeof cell,
                     "\"[{\\\"id\\\":\\\"cccccccc-0000-7000-8000-%012d\\\",\\\"idx\\\":0,\\\"kind\\\":\\\"image\\\","
                     "\\\"mime\\\":\\\"image/png\\\",\\\"bytes\\\":1000,\\\"width\\\":64,\\\"height\\\":64,"
                     "\\\"sha256\\\":\\\"00\\\",\\\"object\\\":\\\"job/%d/1/0\\\"}]\"",
                     n, n);
        else if (spot != NULL)
            snprintf(cell, sizeof cell, "%.*s%d%s", (int)(spot - element), element, n, spot + 2);
        else
            snprintf(cell, sizeof cell, "%s", element);
        fprintf(out, "%c%s", i == 0 ? '{' : ',', cell);
    }
    fputc('}', out);
    fclose(out);
    return text;
}

static int work(PGconn *c, int number, void *arg)
{
    const struct bench *b = arg;
    const char *params[PARAMS + 2] = { calls[b->kind] };
    char *owned[PARAMS] = { 0 };
    int wrong = 0, count = 0;

    while (count < PARAMS - 2 && (elements[b->kind][count] != NULL || elements[b->kind][count + 1] != NULL))
        count++;
    for (int i = 0; i < CALLS / b->clients; i++) {
        int first = b->base + (number * CALLS / b->clients + i) * b->rows + 1;
        char *text = NULL;
        size_t len = 0;
        FILE *out = open_memstream(&text, &len);

        for (int k = 0; k < b->rows; k++)
            fprintf(out, "%c01900000-0000-7000-8000-%012d", k == 0 ? '{' : ',', first + k);
        fputc('}', out);
        fclose(out);
        params[1] = text;
        for (int p = 0; p < count; p++)
            params[p + 2] = owned[p] = literal(b, elements[b->kind][p], first);
        out = NULL;
        char *got = ask(c, params, (size_t)count + 2);

        if (atoi(got) != b->rows)
            wrong++, fprintf(stderr, "%s: %s\n", b->name, got);
        free(got);
        free(text);
        for (int p = 0; p < count; p++)
            free(owned[p]);
    }
    return wrong;
}

int main(void)
{
    struct server *s = server_start();
    PGconn *c;
    int wrong = 0;

    if (s == NULL)
        return 1;
    c = test_db();
    free(ASK(c, "select t_beat(1), (select count(*) from generate_series(0, 99) i, t_grant('acc' || i, 1000000000))"));
    for (size_t i = 0; i < sizeof benches / sizeof *benches; i++) {
        struct timespec t0, t1;
        double seconds;

        clock_gettime(CLOCK_MONOTONIC, &t0);
        wrong += crowd_run(benches[i].clients, work, (void *)&benches[i]);
        clock_gettime(CLOCK_MONOTONIC, &t1);
        seconds = (double)(t1.tv_sec - t0.tv_sec) + (double)(t1.tv_nsec - t0.tv_nsec) / 1e9;
        printf("%-22s %3d rows a call, %d clients: %7.0f rows/s, %5.1f ms a call\n", benches[i].name, benches[i].rows,
               benches[i].clients, CALLS * benches[i].rows / seconds, seconds * 1000 * benches[i].clients / CALLS);
    }
    char *audit = ASK(c, "select * from kiln_audit() limit 3");

    printf("audit: %s\n", *audit == '\0' ? "empty" : audit);
    wrong += *audit != '\0';
    free(audit);
    PQfinish(c);
    server_stop(s);
    return wrong != 0;
}
