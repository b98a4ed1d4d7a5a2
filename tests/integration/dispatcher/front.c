/* front.c - see front.h. */
#include "tests/integration/dispatcher/front.h"
#include <arpa/inet.h>
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "common/base/clock.h"
#include "common/base/text.h"
#include "common/core/store.h"

enum { READY_MS = 30000, STOP_MS = 40000, ENV_MAX = 40 };
static const char signing_key[] = "KILN_SIGNING_KEY=AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

const unsigned char front_png[] = {
    0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0x00, 0x00, 0x00, 0x0d, 0x49, 0x48, 0x44, 0x52, 0x00, 0x00,
    0x00, 0x02, 0x00, 0x00, 0x00, 0x01, 0x08, 0x02, 0x00, 0x00, 0x00, 0x7b, 0x40, 0xe8, 0xdd, 0x00, 0x00, 0x00,
    0x0d, 0x49, 0x44, 0x41, 0x54, 0x78, 0x9c, 0x63, 0xf8, 0xcf, 0x00, 0x04, 0xff, 0x01, 0x07, 0x00, 0x01, 0xff,
    0xe2, 0x23, 0x9e, 0x59, 0x00, 0x00, 0x00, 0x00, 0x49, 0x45, 0x4e, 0x44, 0xae, 0x42, 0x60, 0x82
};
const size_t front_png_len = sizeof(front_png);

static void nap(int ms)
{
    struct timespec t = { ms / 1000, (long)(ms % 1000) * 1000000 };

    (void)nanosleep(&t, NULL);
}

/* ---- the program ---- */

static void child(struct front *f)
{
    char listen[64], db[600], redis[600], storage[128], log[128];
    char *env[ENV_MAX] = { 0 };
    char *argv[] = { (char *)(uintptr_t) "kiln-dispatcher", NULL };
    size_t n = 0;
    int fd;

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    snprintf(log, sizeof(log), "%s/log", f->dir);
    fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    (void)dup2(fd, STDERR_FILENO);
    (void)dup2(fd, STDOUT_FILENO);
    snprintf(listen, sizeof(listen), "KILN_LISTEN=127.0.0.1:%d", f->port);
    snprintf(db, sizeof(db), "KILN_DATABASE_URL=%s", f->db);
    snprintf(redis, sizeof(redis), "KILN_REDIS_URL=%s", f->redis);
    snprintf(storage, sizeof(storage), "KILN_STORAGE=file:%s/store", f->dir);
    env[n++] = listen;
    env[n++] = db;
    env[n++] = redis;
    env[n++] = storage;
    env[n++] = (char *)(uintptr_t)signing_key;
    env[n++] = (char *)(uintptr_t) "OPENAI_API_KEY=" FRONT_PROVIDER;
    env[n++] = (char *)(uintptr_t) "STABILITY_API_KEY=" FRONT_PROVIDER;
    env[n++] = (char *)(uintptr_t) "PATH=/usr/bin:/bin";
    for (size_t i = 0; f->env != NULL && f->env[i] != NULL && n < ENV_MAX - 1; i++)
        env[n++] = (char *)(uintptr_t)f->env[i];
    (void)execve(KILN_DISPATCHER, argv, env);
    _exit(127);
}

void front_start(struct front *f)
{
    int64_t until = clock_mono_ms() + READY_MS;
    bool is_ready = false;

    f->pid = fork();
    cr_assert_geq(f->pid, 0);
    if (f->pid == 0)
        child(f);
    while (!is_ready && clock_mono_ms() < until) {
        struct reply r = front_ask(f, &(struct request_spec){ .method = "GET", .path = "/readyz", .key = "" });

        is_ready = r.status == 200;
        reply_done(&r);
        if (waitpid(f->pid, NULL, WNOHANG) == f->pid)
            break;
        if (!is_ready)
            nap(20);
    }
    if (!is_ready) {
        char *log = front_log(f);

        cr_assert_fail("the dispatcher did not become ready:\n%s", log);
    }
}

bool front_wait_exit(struct front *f, int limit_ms)
{
    int64_t until = clock_mono_ms() + limit_ms;

    while (clock_mono_ms() < until) {
        if (waitpid(f->pid, NULL, WNOHANG) == f->pid) {
            f->pid = 0;
            return true;
        }
        nap(10);
    }
    return false;
}

void front_stop(struct front *f)
{
    int64_t until = clock_mono_ms() + STOP_MS;
    int status = 0;
    pid_t got = 0;

    if (f->pid <= 0)
        return;
    (void)kill(f->pid, SIGTERM);
    while ((got = waitpid(f->pid, &status, WNOHANG)) == 0 && clock_mono_ms() < until)
        nap(10);
    if (got == 0)
        (void)kill(f->pid, SIGKILL);
    f->pid = 0;
    if (got == 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        char *log = front_log(f);

        cr_assert_fail("the dispatcher did not end well (status %d):\n%s", status, log);
    }
}

void front_kill(struct front *f)
{
    (void)kill(f->pid, SIGKILL);
    (void)waitpid(f->pid, NULL, 0);
    f->pid = 0;
}

char *front_log(const struct front *f)
{
    char path[128], *text;
    struct stat st;
    int fd;
    ssize_t n;

    snprintf(path, sizeof(path), "%s/log", f->dir);
    fd = open(path, O_RDONLY);
    if (fd < 0 || fstat(fd, &st) != 0)
        return strdup("");
    text = malloc((size_t)st.st_size + 1);
    n = read(fd, text, (size_t)st.st_size);
    text[n > 0 ? n : 0] = '\0';
    close(fd);
    return text;
}

/* ---- apps and keys ---- */

static void key_make(struct front *f, char out[64], const char *app, const char *scopes)
{
    unsigned char random[32];
    char sql[512], body[48];

    random_bytes(random, sizeof(random));
    (void)base64url_encode(body, sizeof(body), random, sizeof(random));
    snprintf(out, 64, "kiln_%s", body);
    snprintf(sql, sizeof(sql),
             "insert into api_keys (id, app_id, hash, prefix, scopes) values (gen_random_uuid(), '%s', "
             "sha256('%s'::bytea), left('%s', 12), '{%s}') returning 1",
             app, out, out, scopes);
    free(support_sql(f->db, sql));
}

static void app_make(struct front *f, char out[40], const char *name)
{
    char sql[256];

    uuid_v7(out);
    snprintf(sql, sizeof(sql), "insert into apps (id, name) values ('%s', '%s') returning 1", out, name);
    free(support_sql(f->db, sql));
}

void front_open(struct front *f, const char *const *env)
{
    char operators[40];

    *f = (struct front){ .env = env };
    f->db = support_database();
    f->redis = support_redis();
    snprintf(f->dir, sizeof(f->dir), "/tmp/kiln-front.XXXXXX");
    cr_assert_not_null(mkdtemp(f->dir));
    app_make(f, f->app, "mine");
    app_make(f, f->other_app, "theirs");
    key_make(f, f->key, f->app, "jobs,credits");
    key_make(f, f->jobs_key, f->app, "jobs");
    key_make(f, f->credits_key, f->app, "credits");
    key_make(f, f->other_key, f->other_app, "jobs,credits");
    app_make(f, operators, "operators");
    key_make(f, f->admin_key, operators, "admin");
    f->port = support_port();
    front_start(f);
}

void front_close(struct front *f)
{
    char command[160], *log;

    front_stop(f);
    log = front_log(f);
    support_log_is_clean("dispatcher", log);
    cr_expect_null(strstr(log, f->key), "the key is in the log");
    cr_expect_null(strstr(log, f->key + 12), "a part of the key is in the log");
    cr_expect_null(strstr(log, f->admin_key + 12), "a part of the admin key is in the log");
    cr_expect_null(strstr(log, FRONT_PROVIDER), "the provider's key is in the log");
    cr_expect_null(strstr(log, FRONT_PROMPT), "the prompt is in the log");
    cr_expect_null(strstr(log, "signature="), "a signed link is in the log");
    free(log);
    snprintf(command, sizeof(command), "rm -rf '%s'", f->dir);
    cr_expect_eq(system(command), 0);
    free(f->db);
    free(f->redis);
}

void front_grant(struct front *f, const char *account, const char *credits)
{
    static int serial;
    char path[200], body[128];
    struct reply r;

    snprintf(path, sizeof(path), "/v1/accounts/%s/grants", account);
    snprintf(body, sizeof(body), "{\"credits\":%s,\"reference\":\"grant-%d\"}", credits, ++serial);
    r = front_post(f, path, body);
    cr_assert_eq(r.status, 200, "%s", r.body);
    reply_done(&r);
}

int64_t front_count(struct front *f, const char *sql)
{
    return support_sql_int(f->db, sql);
}

/* ---- asking ---- */

static size_t on_bytes(char *data, size_t size, size_t n, void *ctx)
{
    struct buf *b = ctx;

    return buf_add(b, data, size * n) ? size * n : 0;
}

struct transfer {
    CURL *curl;
    struct curl_slist *headers;
    struct buf body, head;
    size_t index;
};

static void transfer_start(struct transfer *t, struct front *f, const struct request_spec *spec)
{
    char url[2048], line[512];

    t->curl = curl_easy_init();
    if (strncmp(spec->path, "http", 4) == 0)
        snprintf(url, sizeof(url), "%s", spec->path);
    else
        snprintf(url, sizeof(url), "http://127.0.0.1:%d%s", f->port, spec->path);
    curl_easy_setopt(t->curl, CURLOPT_URL, url);
    curl_easy_setopt(t->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(t->curl, CURLOPT_PROXY, "");
    curl_easy_setopt(t->curl, CURLOPT_TIMEOUT, 90L);
    if (strcmp(spec->method, "HEAD") == 0)
        curl_easy_setopt(t->curl, CURLOPT_NOBODY, 1L);
    else
        curl_easy_setopt(t->curl, CURLOPT_CUSTOMREQUEST, spec->method);
    if (spec->body != NULL) {
        curl_easy_setopt(t->curl, CURLOPT_POSTFIELDSIZE, (long)(spec->len > 0 ? spec->len : strlen(spec->body)));
        curl_easy_setopt(t->curl, CURLOPT_POSTFIELDS, spec->body);
    }
    if (spec->key == NULL || spec->key[0] != '\0') {
        snprintf(line, sizeof(line), "Authorization: Bearer %s", spec->key != NULL ? spec->key : f->key);
        t->headers = curl_slist_append(t->headers, line);
    }
    snprintf(line, sizeof(line), "Content-Type:%s%s", spec->type != NULL ? " " : "",
             spec->type != NULL ? spec->type : "");
    t->headers = curl_slist_append(t->headers, line);
    if (spec->headers[0] == NULL || strncmp(spec->headers[0], "Expect:", 7) != 0)
        t->headers = curl_slist_append(t->headers, "Expect:");
    for (size_t i = 0; i < ARRAY_LEN(spec->headers) && spec->headers[i] != NULL; i++)
        t->headers = curl_slist_append(t->headers, spec->headers[i]);
    curl_easy_setopt(t->curl, CURLOPT_HTTPHEADER, t->headers);
    curl_easy_setopt(t->curl, CURLOPT_WRITEFUNCTION, on_bytes);
    curl_easy_setopt(t->curl, CURLOPT_WRITEDATA, &t->body);
    curl_easy_setopt(t->curl, CURLOPT_HEADERFUNCTION, on_bytes);
    curl_easy_setopt(t->curl, CURLOPT_HEADERDATA, &t->head);
    curl_easy_setopt(t->curl, CURLOPT_PRIVATE, t);
}

static struct reply transfer_end(struct transfer *t)
{
    struct reply r = { 0 };

    curl_easy_getinfo(t->curl, CURLINFO_RESPONSE_CODE, &r.status);
    curl_easy_getinfo(t->curl, CURLINFO_TOTAL_TIME, &r.seconds);
    r.len = t->body.len;
    r.body = t->body.data != NULL ? buf_take(&t->body) : strdup("");
    r.headers = t->head.data != NULL ? buf_take(&t->head) : strdup("");
    r.json = r.len > 0 ? json_loadb(r.body, r.len, 0, NULL) : NULL;
    curl_slist_free_all(t->headers);
    curl_easy_cleanup(t->curl);
    return r;
}

struct reply front_ask(struct front *f, const struct request_spec *spec)
{
    struct transfer t = { 0 };

    transfer_start(&t, f, spec);
    (void)curl_easy_perform(t.curl); /* a failure shows as status 0 */
    return transfer_end(&t);
}

struct reply front_get(struct front *f, const char *path)
{
    return front_ask(f, &(struct request_spec){ .method = "GET", .path = path });
}

struct reply front_admin(struct front *f, const char *method, const char *path, const char *json)
{
    return front_ask(f, &(struct request_spec){ .method = method,
                                                .path = path,
                                                .key = f->admin_key,
                                                .body = json,
                                                .type = json != NULL ? "application/json" : NULL });
}

struct reply front_post(struct front *f, const char *path, const char *json)
{
    return front_ask(
        f, &(struct request_spec){ .method = "POST", .path = path, .body = json, .type = "application/json" });
}

void reply_done(struct reply *r)
{
    free(r->body);
    free(r->headers);
    json_decref(r->json);
    *r = (struct reply){ 0 };
}

const char *reply_header(const struct reply *r, const char *name)
{
    static char value[1024];
    size_t len = strlen(name);

    value[0] = '\0';
    for (const char *p = r->headers; *p != '\0';) {
        size_t line = strcspn(p, "\r\n");

        if (line > len && strncasecmp(p, name, len) == 0 && p[len] == ':')
            snprintf(value, sizeof(value), "%.*s", (int)(line - len - 2), p + len + 2);
        p += line;
        p += strspn(p, "\r\n");
    }
    return value;
}

const char *reply_text(const struct reply *r, const char *key)
{
    const char *text = json_string_value(json_object_get(r->json, key));

    return text != NULL ? text : "";
}

const char *reply_field(const struct reply *r)
{
    const char *text =
        json_string_value(json_object_get(json_array_get(json_object_get(r->json, "errors"), 0), "field"));

    return text != NULL ? text : "";
}

void front_storm(struct front *f, const struct request_spec *spec, size_t count, size_t parallel, long *statuses,
                 char **bodies)
{
    CURLM *multi = curl_multi_init();
    struct transfer *all = calloc(count, sizeof(*all));
    size_t started = 0, done = 0;
    int running, left;
    CURLMsg *message;

    curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, (long)parallel);
    while (done < count) {
        while (started < count && started - done < parallel) {
            all[started].index = started;
            transfer_start(&all[started], f, spec);
            curl_multi_add_handle(multi, all[started++].curl);
        }
        curl_multi_perform(multi, &running);
        while ((message = curl_multi_info_read(multi, &left)) != NULL) {
            struct transfer *t = NULL;
            struct reply r;
            size_t index;

            if (message->msg != CURLMSG_DONE)
                continue;
            curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&t);
            curl_multi_remove_handle(multi, message->easy_handle);
            index = t->index;
            r = transfer_end(t);
            statuses[index] = r.status;
            if (bodies != NULL) {
                bodies[index] = r.body;
                r.body = NULL;
            }
            reply_done(&r);
            done++;
        }
        curl_multi_poll(multi, NULL, 0, 100, NULL);
    }
    curl_multi_cleanup(multi);
    free(all);
}

/* ---- raw ---- */

int front_connect(struct front *f)
{
    struct sockaddr_in a = { .sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                             .sin_port = htons((uint16_t)f->port) };
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    cr_assert_eq(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    return fd;
}

char *front_raw(struct front *f, const char *bytes, size_t len, int limit_ms, bool *closed)
{
    int fd = front_connect(f);
    int64_t until = clock_mono_ms() + limit_ms;
    struct buf got = { 0 };
    char chunk[4096];

    (void)!send(fd, bytes, len, MSG_NOSIGNAL);
    *closed = false;
    while (clock_mono_ms() < until && !*closed) {
        struct pollfd p = { .fd = fd, .events = POLLIN };

        if (poll(&p, 1, 50) > 0) {
            ssize_t n = recv(fd, chunk, sizeof(chunk), 0);

            if (n <= 0)
                *closed = true;
            else
                (void)buf_add(&got, chunk, (size_t)n);
        }
    }
    close(fd);
    return got.data != NULL ? buf_take(&got) : strdup("");
}

/* ---- jobs ---- */

char *front_job(struct front *f, const char *extra)
{
    char body[1024], *id;
    struct reply r;

    snprintf(body, sizeof(body), "{\"operation\":\"openai.images.generate\",\"params\":{\"prompt\":\"%s\"}%s%s}",
             FRONT_PROMPT, extra != NULL ? "," : "", extra != NULL ? extra : "");
    r = front_post(f, "/v1/jobs", body);
    cr_assert_eq(r.status, 202, "%s", r.body);
    id = strdup(reply_text(&r, "id"));
    reply_done(&r);
    return id;
}

void front_fail(struct front *f, const char *job, const char *code, const char *attempt_class, int cost)
{
    char sql[1024], worker[UUID_TEXT], price[24] = "null", *got;

    uuid_random(worker);
    if (cost >= 0)
        snprintf(price, sizeof(price), "%d", cost);
    snprintf(sql, sizeof(sql), "select count(*) from kiln_beat('%s', null, false)", worker);
    free(support_sql(f->db, sql));
    snprintf(sql, sizeof(sql),
             "select fence from kiln_start('%s', array['%s']::uuid[], array[false], array[null]::int[], "
             "array[null]::jsonb[])",
             worker, job);
    got = support_sql(f->db, sql);
    snprintf(sql, sizeof(sql),
             "select verdict from kiln_settle('%s', array['%s']::uuid[], array[%s]::bigint[], array[1], "
             "array['failed'], array['%s'], array['%s'], array['it said so'], array[503], "
             "array['rq-1'], array[0], array[%s]::bigint[], array[0]::bigint[], array[false], "
             "array[null]::jsonb[], array[null]::jsonb[], array[null]::text[])",
             worker, job, got, code, attempt_class, price);
    free(got);
    got = support_sql(f->db, sql);
    cr_assert_str_eq(got, "committed");
    free(got);
}

char *front_finish(struct front *f, const char *job, const void *bytes, size_t len, const char *mime)
{
    struct store *store = NULL;
    char where[128], temp[512], object[128], sql[2048], artifact[UUID_TEXT], sha[SHA256_HEX], worker[UUID_TEXT];
    char *fence;
    FILE *file;

    uuid_v7(artifact);
    uuid_random(worker);
    sha256_hex(sha, bytes, len);
    snprintf(where, sizeof(where), "file:%s/store", f->dir);
    cr_assert_eq(store_open(where, &store), ERR_OK);
    cr_assert_eq(store_temp(store, temp, sizeof(temp)), ERR_OK);
    file = fopen(temp, "wb");
    cr_assert_not_null(file);
    cr_assert_eq(fwrite(bytes, 1, len, file), len);
    cr_assert_eq(fclose(file), 0);
    snprintf(object, sizeof(object), "job/%s/%s/1/0", job + 34, job);
    cr_assert_eq(store_keep(store, temp, object), ERR_OK);
    store_close(store);
    snprintf(sql, sizeof(sql), "select count(*) from kiln_beat('%s', null, false)", worker);
    free(support_sql(f->db, sql));
    snprintf(sql, sizeof(sql),
             "select fence from kiln_start('%s', array['%s']::uuid[], array[false], array[null]::int[], "
             "array[null]::jsonb[])",
             worker, job);
    fence = support_sql(f->db, sql);
    snprintf(sql, sizeof(sql),
             "select verdict from kiln_settle('%s', array['%s']::uuid[], array[%s]::bigint[], array[1], "
             "array['delivered'], array[null]::text[], array['answered'], array[null]::text[], array[200], "
             "array[null]::text[], array[1], array[null]::bigint[], array[0]::bigint[], array[false], "
             "array['[{\"id\":\"%s\",\"idx\":0,\"kind\":\"image\",\"mime\":\"%s\",\"bytes\":%zu,\"width\":2,"
             "\"height\":1,\"sha256\":\"%s\",\"object\":\"%s\"}]']::jsonb[], array[null]::jsonb[], "
             "array[null]::text[])",
             worker, job, fence, artifact, mime, len, sha, object);
    free(fence);
    fence = support_sql(f->db, sql);
    cr_assert_str_eq(fence, "committed");
    free(fence);
    return strdup(artifact);
}
