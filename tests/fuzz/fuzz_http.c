/* fuzz_http.c - any request to the whole dispatcher: framing, routes, headers, queries, cursors, signatures, JSON
 * bodies, uploads. The input is a mode, then the request as text: method, target and version, headers, empty line,
 * body.
 *
 * Real: every file of dispatcher/, wired as in production. Not there: sockets (microhttpd.c), Redis (it is down) and
 * PostgreSQL, whose answers the mode chooses: '0' is away, '1' finds everything, '2' lost the connection, '3' finds
 * nothing. Whatever comes, there is one answer, in the API's vocabulary, and nothing in it that must not be. */
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>
#include "common/base/config.h"
#include "common/base/log.h"
#include "common/core/settings.h"
#include "common/io/db_inner.h"
#include "dispatcher/accept.h"
#include "dispatcher/auth.h"
#include "dispatcher/dispatcher.h"
#include "dispatcher/inputs.h"
#include "dispatcher/jobs.h"
#include "dispatcher/watch.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/microhttpd.h"

#define APP "0198d4c2-0000-7000-8000-0000000000aa"
#define JOB "0198d4c2-0000-7000-8000-000000000001"
#define KEY "kiln_0123456789012345678901234567890123456789012"
#define SHA "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

enum { WAITING_MAX = 128, FILE_BYTES = 1000 };

static struct dispatcher d;
static uv_loop_t loop;
static char mode;

/* --- PostgreSQL: asked at once, answered at the next turn of the loop --- */

static struct waiting {
    db_row_fn *row;
    db_adapt_row_fn *adapt_row;
    db_query_fn *query;
    db_adapt_fn *adapt;
    db_plain_fn *user;
    void *ctx;
} waiting[WAITING_MAX];
static size_t waiting_count;

static enum err ask(struct waiting w)
{
    if (waiting_count == WAITING_MAX)
        return ERR_NOMEM;
    waiting[waiting_count++] = w;
    return ERR_OK;
}

/* Every column that some room asks for, so that one row serves all; what a room does not know it never sees. */
static const char *const columns[][2] = {
    { "ord", "1" },
    { "app", APP },
    { "id", JOB },
    { "job_id", JOB },
    { "job", JOB },
    { "state", "succeeded" },
    { "verdict", "accepted" },
    { "created_at", "2026-11-20T10:11:12.123Z" },
    { "kind", "image" },
    { "mime", "image/png" },
    { "bytes", "1000" },
    { "width", "512" },
    { "height", "512" },
    { "sha256", SHA },
    { "object", "out/01/file" },
    { "is_upload", "t" },
    { "version", "3" },
    { "balance", "5000" },
    { "held", "0" },
    { "amount", "-5" },
    { "doc",
      "{\"id\":\"" JOB "\",\"state\":\"succeeded\",\"version\":3,\"operation\":\"openai.images.generate\",\"app\":"
      "\"" APP "\",\"artifacts\":[{\"id\":\"" JOB "\",\"kind\":\"image\"}],\"attempts\":[]}" },
};

static PGresult *result_make(bool is_found)
{
    PGresult *pg = PQmakeEmptyPGresult(NULL, PGRES_TUPLES_OK);
    PGresAttDesc attributes[ARRAY_LEN(columns)] = { 0 };

    for (size_t i = 0; i < ARRAY_LEN(columns); i++) {
        attributes[i].name = (char *)(uintptr_t)columns[i][0];
        attributes[i].typid = 25;
        attributes[i].typlen = -1;
    }
    FUZZ_CLAIM(pg && PQsetResultAttrs(pg, (int)ARRAY_LEN(columns), attributes));
    for (size_t i = 0; i < ARRAY_LEN(columns); i++) {
        const char *value = is_found || i == 0 ? columns[i][1] : NULL;

        FUZZ_CLAIM(PQsetvalue(pg, 0, (int)i, (char *)(uintptr_t)value, value ? (int)strlen(value) : -1));
    }
    return pg;
}

static void answer(const struct waiting *w, enum err err, const struct db_result *result)
{
    if (w->row)
        w->row(w->ctx, err, result, result ? 0 : -1);
    else if (w->adapt_row)
        w->adapt_row(w->user, w->ctx, err, result, result ? 0 : -1);
    else if (w->query)
        w->query(w->ctx, err, result);
    else
        w->adapt(w->user, w->ctx, err, result);
}

/* The thread pool: what it is given is done at once, and heard of at the next turn. */
static struct worked {
    uv_work_t *work;
    uv_after_work_cb after;
} worked[WAITING_MAX];
static size_t worked_count;

static void turn(void)
{
    static PGresult *found, *nothing;
    struct waiting now[WAITING_MAX];
    size_t count = waiting_count;

    if (!found) {
        found = result_make(true);
        nothing = result_make(false);
    }
    struct db_result result = { mode == '1' ? found : nothing };
    enum err err = mode == '0' ? ERR_UNAVAILABLE : mode == '2' ? ERR_LOST : ERR_OK;

    memcpy(now, waiting, count * sizeof *now);
    waiting_count = 0;
    for (size_t i = 0; i < count; i++)
        answer(&now[i], err, err == ERR_OK ? &result : NULL);
    while (worked_count > 0) {
        struct worked w = worked[--worked_count];
        w.after(w.work, 0);
    }
    (void)uv_run(&loop, UV_RUN_NOWAIT);
}

/* Clock, chance and timers of every input are the same, so that a run can be repeated: what answers comes from the
 * input. */
int __wrap_clock_gettime(clockid_t id, struct timespec *at);
int __wrap_clock_gettime(clockid_t id, struct timespec *at)
{
    *at = (struct timespec){ .tv_sec = id == CLOCK_REALTIME ? 1800000000 : 1000000 };
    return 0;
}

void __wrap_randombytes_buf(void *out, size_t len);
void __wrap_randombytes_buf(void *out, size_t len)
{
    memset(out, 0x5a, len);
}

int __wrap_uv_timer_start(uv_timer_t *timer, uv_timer_cb fn, uint64_t after, uint64_t every);
int __wrap_uv_timer_start(uv_timer_t *timer, uv_timer_cb fn, uint64_t after, uint64_t every)
{
    (void)timer, (void)fn, (void)after, (void)every;
    return 0;
}

int __wrap_uv_queue_work(uv_loop_t *on, uv_work_t *work, uv_work_cb run, uv_after_work_cb after);
int __wrap_uv_queue_work(uv_loop_t *on, uv_work_t *work, uv_work_cb run, uv_after_work_cb after)
{
    FUZZ_CLAIM(worked_count < WAITING_MAX);
    work->loop = on;
    run(work);
    worked[worked_count++] = (struct worked){ work, after };
    return 0;
}

/* The linker's --wrap: these stand where the rooms call db.h, auth.h and watch.h. */
bool __wrap_db_is_up(const struct db *db);
bool __wrap_db_is_up(const struct db *db)
{
    (void)db;
    return true;
}

enum err __wrap_db_gather_add(struct db_gather *g, const struct db_value *values, db_row_fn *fn, void *ctx);
enum err __wrap_db_gather_add(struct db_gather *g, const struct db_value *values, db_row_fn *fn, void *ctx)
{
    (void)g;
    (void)values;
    return ask((struct waiting){ .row = fn, .ctx = ctx });
}

enum err __wrap_db_gather_add_as(struct db_gather *g, const struct db_value *values, db_adapt_row_fn *adapt,
                                 db_plain_fn *user, void *ctx);
enum err __wrap_db_gather_add_as(struct db_gather *g, const struct db_value *values, db_adapt_row_fn *adapt,
                                 db_plain_fn *user, void *ctx)
{
    (void)g;
    (void)values;
    return ask((struct waiting){ .adapt_row = adapt, .user = user, .ctx = ctx });
}

enum err __wrap_db_query(struct db *db, const char *sql, size_t count, const char *const *values, int patience_ms,
                         db_query_fn *fn, void *ctx);
enum err __wrap_db_query(struct db *db, const char *sql, size_t count, const char *const *values, int patience_ms,
                         db_query_fn *fn, void *ctx)
{
    (void)db;
    (void)sql;
    (void)patience_ms;
    for (size_t i = 0; i < count; i++)
        FUZZ_CLAIM(!values[i] || utf8_valid(values[i], strlen(values[i])));
    return ask((struct waiting){ .query = fn, .ctx = ctx });
}

enum err __wrap_db_query_as(struct db *db, const char *sql, size_t count, const char *const *values,
                            const size_t *binary, int patience_ms, db_adapt_fn *adapt, db_plain_fn *user, void *ctx);
enum err __wrap_db_query_as(struct db *db, const char *sql, size_t count, const char *const *values,
                            const size_t *binary, int patience_ms, db_adapt_fn *adapt, db_plain_fn *user, void *ctx)
{
    (void)db;
    (void)sql;
    (void)count;
    (void)values;
    (void)binary;
    (void)patience_ms;
    return ask((struct waiting){ .adapt = adapt, .user = user, .ctx = ctx });
}

void __wrap_auth_check(struct auth *a, struct request *r, void (*done)(struct request *r));
void __wrap_auth_check(struct auth *a, struct request *r, void (*done)(struct request *r))
{
    const char *header = request_header(r, "Authorization");

    (void)a;
    if (header && strcmp(header, "Bearer " KEY) == 0) {
        memcpy(r->app, APP, sizeof APP);
        r->scopes = SCOPE_JOBS | SCOPE_CREDITS | SCOPE_ADMIN;
    }
    done(r);
}

enum err __wrap_watch_wait(struct watch *w, const char *job, const char *app, int64_t version, int64_t wait_ms,
                           bool read_now, jobs_read_fn *fn, void *ctx);
enum err __wrap_watch_wait(struct watch *w, const char *job, const char *app, int64_t version, int64_t wait_ms,
                           bool read_now, jobs_read_fn *fn, void *ctx) /* nobody has a minute */
{
    (void)w;
    (void)version;
    (void)read_now;
    FUZZ_CLAIM(wait_ms >= 0 && wait_ms <= 60000);
    return jobs_read(d.jobs, job, app, fn, ctx);
}

enum err __wrap_store_keep(struct store *s, const char *temp, const char *object);
enum err __wrap_store_keep(struct store *s, const char *temp, const char *object) /* no million of files */
{
    (void)s;
    FUZZ_CLAIM(strstr(object, "..") == NULL && object[0] != '/');
    return unlink(temp) == 0 ? ERR_OK : ERR_IO;
}

/* --- the dispatcher --- */

static void open_dispatcher(void)
{
    static const struct config_option table[] = {
        SETTINGS_SHARED,
        { .name = "KILN_LISTEN", .type = CONFIG_LISTEN, .fallback = "127.0.0.1:0", .help = "x." },
        { .name = "KILN_PUBLIC_URL", .type = CONFIG_URL, .help = "x." },
        { .name = "KILN_SIGNING_KEY", .type = CONFIG_BASE64_32, .is_required = true, .help = "x." },
        { .name = "KILN_MAX_QUEUED", .type = CONFIG_INT, .min = 0, .max = 10, .help = "x." },
        { .name = "KILN_MAX_REQUESTS", .type = CONFIG_INT, .fallback = "1000", .min = 1, .max = 1000, .help = "x." },
        { .name = "KILN_MEMORY_LIMIT", .type = CONFIG_INT, .fallback = "256", .min = 1, .max = 256, .help = "x." },
    };
    char storage[128], file[FILE_BYTES] = { 0 }, problem[256];
    struct config *config;

    (void)snprintf(storage, sizeof storage, "mkdir -p %s/obj/out/01", fuzz_dir());
    FUZZ_CLAIM(system(storage) == 0);
    (void)fuzz_file("obj/out/01/file", file, sizeof file);
    (void)snprintf(storage, sizeof storage, "file:%s", fuzz_dir());
    (void)setenv("KILN_STORAGE", storage, 1);
    (void)setenv("KILN_DATABASE_URL", "postgresql:///x?host=/nonexistent", 1);
    (void)setenv("KILN_REDIS_URL", "unix:/nonexistent", 1);
    (void)setenv("KILN_SIGNING_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", 1);
    (void)setenv("OPENAI_API_KEY", "sk-fuzz", 1);
    (void)setenv("STABILITY_API_KEY", "sk-fuzz", 1);
    (void)setenv("LEONARDO_API_KEY", "sk-fuzz", 1);
    log_set_level(LOG_ERROR);
    config = config_read(table, ARRAY_LEN(table), NULL);
    FUZZ_CLAIM(config && uv_loop_init(&loop) == 0);
    if (dispatcher_open(&d, &loop, config, problem, sizeof problem) != ERR_OK)
        fuzz_broken(__FILE__, __LINE__, problem);
    config_free(config);
}

/* --- in and out --- */

static char *word(char **at, const char *ends)
{
    char *from = *at;
    size_t len = strcspn(from, ends);

    *at = from + len + (from[len] != '\0');
    from[len] = '\0';
    return from;
}

static void read_request(struct exchange *e, char *text, size_t size)
{
    char *at = text;

    e->method = word(&at, " \n");
    e->target = word(&at, " \n");
    e->version = word(&at, "\n");
    while (*at && *at != '\n' && e->header_count < EXCHANGE_HEADERS) {
        char *line = word(&at, "\n"), *colon = strchr(line, ':');

        if (!colon)
            continue;
        *colon = '\0';
        e->names[e->header_count] = line;
        e->values[e->header_count++] = colon + 1 + strspn(colon + 1, " ");
    }
    at += *at == '\n';
    e->body = at;
    e->body_len = size - (size_t)(at - text);
}

static void check_range(const struct exchange *e)
{
    const char *range = exchange_header(e, "Content-Range");
    unsigned long long first = 0, last = 0, size = 0;

    FUZZ_CLAIM(e->status == 200 || e->status == 206);
    FUZZ_CLAIM(e->file_offset <= e->file_size && e->file_length <= e->file_size - e->file_offset);
    FUZZ_CLAIM(e->status == 206 || (e->file_offset == 0 && e->file_length == e->file_size));
    FUZZ_CLAIM((range != NULL) == (e->status == 206));
    if (range)
        FUZZ_CLAIM(sscanf(range, "bytes %llu-%llu/%llu", &first, &last, &size) == 3 && first == e->file_offset &&
                   last == first + e->file_length - 1 && size == e->file_size && e->file_length > 0);
}

static void check_problem(const struct exchange *e)
{
    json_t *body = json_parse(e->answer, e->answer_len, NULL);
    int64_t status = 0;

    FUZZ_CLAIM(json_is_object(body) && json_int(body, "status", &status) && status == e->status);
    FUZZ_CLAIM(err_from_word(json_text(body, "code")) < ERR_NOMEM && json_text(body, "request_id"));
    json_decref(body);
}

/* Whether the request holds the key's secret part, or could spell it (%30, \u0030), outside its Authorization: what a
 * client writes elsewhere too, it may read in the answer. */
static bool is_key_elsewhere(const uint8_t *data, size_t size, const char *authorization)
{
    static const char secret[] = KEY;
    const size_t len = sizeof secret - 6;
    const bool in_header = strstr(authorization, &secret[5]) != NULL;
    size_t count = 0;

    for (size_t i = 0; i + len <= size; i++)
        count += memcmp(data + i, secret + 5, len) == 0;
    return count > in_header || memchr(data, '%', size) || memchr(data, '\\', size);
}

static void check_answer(const struct exchange *e, bool has_key)
{
    static const int known[] = { 200, 201, 202, 304, 400, 401, 402, 403, 404, 405, 206,
                                 409, 413, 415, 416, 422, 429, 431, 502, 503, 504 };
    const char *type = exchange_header(e, "Content-Type");
    bool is_known = false, is_problem = type && strcmp(type, "application/problem+json") == 0;

    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        is_known = is_known || known[i] == e->status;
    FUZZ_CLAIM(e->answers == 1 && is_known && exchange_header(e, "Request-Id"));
    if (e->status == 503 && strncmp(e->target, "/readyz", 7) == 0)
        is_problem = true; /* says what is missing in words of its own */
    FUZZ_CLAIM(is_problem == (e->status >= 400 && e->status != 416));
    FUZZ_CLAIM((e->status != 429 && e->status != 503) || exchange_header(e, "Retry-After"));
    FUZZ_CLAIM(mode != '1' || strcmp(e->method, "GET") != 0 ||
               e->status != 503); /* else the dispatcher is not the one that serves */
    if (is_problem && e->answer_len > 0 && strcmp(e->method, "HEAD") != 0 && type &&
        strcmp(type, "application/problem+json") == 0)
        check_problem(e);
    else if (e->answer_len > 0 && type && strcmp(type, "application/json") == 0)
        json_decref(json_parse(e->answer, e->answer_len, NULL));
    if (e->is_file)
        check_range(e);
    if (!has_key && strncmp(e->target, "/v1/", 4) == 0) /* nothing of /v1 without a key or a signature */
        FUZZ_CLAIM(e->status >= 400);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct exchange e = { .answers = 0 };
    const char *key = NULL;
    char *text;

    if (!d.httpd)
        open_dispatcher();
    if (size < 1 || size > 65536)
        return 0;
    text = malloc(size);
    FUZZ_CLAIM(text != NULL);
    memcpy(text, data + 1, size - 1);
    text[size - 1] = '\0';
    mode = (char)data[0];
    read_request(&e, text, size - 1);
    if (*e.method && *e.target) {
        exchange_run(&e, turn);
        for (size_t i = 0; i < e.header_count && !key; i++)
            key = strcasecmp(e.names[i], "Authorization") == 0 ? e.values[i] : NULL;
        check_answer(&e, key && strcmp(key, "Bearer " KEY) == 0);
        FUZZ_CLAIM(!key || !e.answer || is_key_elsewhere(data, size, key) || strstr(e.answer, &KEY[5]) == NULL);
        while (waiting_count + worked_count > 0) /* undone uploads and the like */
            turn();
    }
    exchange_done(&e);
    free(text);
    return 0;
}
