/* oracle.c - the checker that runs after every case of chaos: prints each violation, one a line.
 *
 *     oracle --database URL --redis URL --storage DIR --sandbox URL [--bound] [--grace-s N] [--patience-s N]
 *
 * Exit 0: nothing is wrong; 1: something is; 2: it could not read. --bound: jobs may still be open within their bound.
 * --grace-s: what lies in storage and belongs to nobody counts after this age (default: an hour, as the sweep has it).
 * --patience-s: look again each half second until nothing is wrong or so much time is over. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <curl/curl.h>
#include "tests/chaos/oracle/oracle.h"

struct options {
    const char *database, *redis, *storage, *sandbox;
    bool is_bound;
    double grace_s, patience_s;
};

struct text {
    char *data;
    size_t len;
};

static size_t on_body(char *data, size_t size, size_t count, void *ctx)
{
    struct text *t = ctx;
    char *more = realloc(t->data, t->len + size * count + 1);

    if (!more)
        return 0;
    t->data = more;
    memcpy(t->data + t->len, data, size * count);
    t->len += size * count;
    t->data[t->len] = '\0';
    return size * count;
}

json_t *oracle_counters(const char *base)
{
    CURL *curl = curl_easy_init();
    struct text body = { 0 };
    json_t *all = NULL, *tags;
    char url[256];

    (void)snprintf(url, sizeof(url), "%s/_sandbox/counters", base);
    (void)curl_easy_setopt(curl, CURLOPT_URL, url);
    (void)curl_easy_setopt(curl, CURLOPT_PROXY, "");
    (void)curl_easy_setopt(curl, CURLOPT_TIMEOUT, 20L);
    (void)curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
    (void)curl_easy_setopt(curl, CURLOPT_WRITEDATA, &body);
    if (curl_easy_perform(curl) == CURLE_OK && body.data)
        all = json_loadb(body.data, body.len, 0, NULL);
    curl_easy_cleanup(curl);
    free(body.data);
    tags = json_incref(json_object_get(all, "tags"));
    json_decref(all);
    if (!tags)
        (void)fprintf(stderr, "oracle: the sandbox's counters cannot be read\n");
    return tags;
}

/* The sandbox first: what it was asked has had its row by then. PostgreSQL comes last, with the checks. */
static json_t *gather(const struct options *o)
{
    json_t *counters = oracle_counters(o->sandbox);
    json_t *redis = counters ? oracle_redis(o->redis) : NULL;
    json_t *files = redis ? oracle_files(o->storage) : NULL;

    if (!files) {
        json_decref(counters);
        json_decref(redis);
        return NULL;
    }
    return json_pack("{so so so sb sf}", "counters", counters, "redis", redis, "files", files, "bound", o->is_bound,
                     "grace_s", o->grace_s);
}

static int check(PGconn *pg, const char *facts, bool is_quiet)
{
    int violations = 0;

    for (size_t i = 0; i < oracle_check_count; i++) {
        const char *values[] = { facts };
        PGresult *r = PQexecParams(pg, oracle_checks[i].sql, 1, NULL, values, NULL, NULL, 0);
        int rows = PQresultStatus(r) == PGRES_TUPLES_OK ? PQntuples(r) : -1;

        if (rows < 0)
            (void)fprintf(stderr, "oracle: %s: %s", oracle_checks[i].name, PQerrorMessage(pg));
        for (int row = 0; row < rows && !is_quiet; row++)
            (void)printf("%s: %s\n", oracle_checks[i].name, PQgetvalue(r, row, 0));
        PQclear(r);
        if (rows < 0)
            return -1;
        violations += rows;
    }
    return violations;
}

static int look(const struct options *o, bool is_quiet) /* violations; -1: cannot read */
{
    json_t *facts = gather(o);
    char *text = facts ? json_dumps(facts, 0) : NULL;
    PGconn *pg = text ? PQconnectdb(o->database) : NULL;
    int violations = -1;

    if (pg && PQstatus(pg) == CONNECTION_OK)
        violations = check(pg, text, is_quiet);
    else if (pg)
        (void)fprintf(stderr, "oracle: PostgreSQL cannot be read: %s", PQerrorMessage(pg));
    PQfinish(pg);
    free(text);
    json_decref(facts);
    return violations;
}

static double now_s(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int run(const struct options *o)
{
    const struct timespec half = { 0, 500000000 };
    double until = now_s() + o->patience_s;
    int violations;

    while (now_s() < until) {
        if (look(o, true) == 0)
            return 0;
        (void)nanosleep(&half, NULL);
    }
    violations = look(o, false);
    return violations < 0 ? 2 : violations > 0;
}

int main(int argc, char **argv)
{
    static const struct option names[] = {
        { "database", required_argument, NULL, 'd' },
        { "redis", required_argument, NULL, 'r' },
        { "storage", required_argument, NULL, 's' },
        { "sandbox", required_argument, NULL, 'x' },
        { "bound", no_argument, NULL, 'b' },
        { "grace-s", required_argument, NULL, 'g' },
        { "patience-s", required_argument, NULL, 'p' },
        { NULL, 0, NULL, 0 },
    };
    struct options o = { .grace_s = 3600 };
    int c, code;

    while ((c = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (c) {
        case 'd':
            o.database = optarg;
            break;
        case 'r':
            o.redis = optarg;
            break;
        case 's':
            o.storage = optarg;
            break;
        case 'x':
            o.sandbox = optarg;
            break;
        case 'b':
            o.is_bound = true;
            break;
        case 'g':
            o.grace_s = strtod(optarg, NULL);
            break;
        case 'p':
            o.patience_s = strtod(optarg, NULL);
            break;
        default:
            return 2;
        }
    }
    if (!o.database || !o.redis || !o.storage || !o.sandbox || optind != argc) {
        (void)fprintf(stderr,
                      "usage: %s --database URL --redis URL --storage DIR --sandbox URL [--bound] "
                      "[--grace-s N] [--patience-s N]\n",
                      argv[0]);
        return 2;
    }
    (void)curl_global_init(CURL_GLOBAL_DEFAULT);
    code = run(&o);
    curl_global_cleanup();
    return code;
}
