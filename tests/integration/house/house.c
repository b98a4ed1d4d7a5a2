/* house.c - starts and stops the programs of one test, and speaks HTTP with them by libcurl's easy interface. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <curl/curl.h>
#include <spng.h>
#include "common/base/text.h"
#include "tests/integration/house/house.h"

#ifndef KILN_BUILD_DIR
#error "the build says where the programs are"
#endif

static const char sandbox_fast[] =
    "{\"delay_ms\":{\"openai\":{\"min\":50,\"max\":100},\"synchronous\":50,\"stability_generate\":{\"min\":50,\"max\":100},"
    "\"stability_creative\":{\"min\":1500,\"max\":2500},\"leonardo\":{\"min\":1000,\"max\":2000},\"replicate\":{\"min\":500,\"max\":1000},\"runpod\":{\"min\":500,\"max\":1000}},\"upscale_factor\":2}";

static int64_t now_ms(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void pause_ms(int ms)
{
    struct timespec t = { ms / 1000, (long)(ms % 1000) * 1000000 };

    (void)nanosleep(&t, NULL);
}

/* --- programs ---------------------------------------------------------------------------------------------------- */

static void write_text(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");

    cr_assert_not_null(file, "%s", path);
    cr_assert_geq(fputs(text, file), 0);
    cr_assert_eq(fclose(file), 0);
}

static char *read_text(const char *path)
{
    FILE *file = fopen(path, "r");
    struct buf b = { 0 };
    char chunk[4096];
    size_t got;

    (void)buf_add(&b, "", 0);
    while (file && (got = fread(chunk, 1, sizeof(chunk), file)) > 0)
        (void)buf_add(&b, chunk, got);
    if (file)
        (void)fclose(file);
    return b.data ? buf_take(&b) : strdup("");
}

char *house_log(const struct house *h, const char *program)
{
    char path[128];

    (void)snprintf(path, sizeof(path), "%s/%s.log", h->dir, program);
    return read_text(path);
}

struct env {
    const char *vars[HOUSE_ENV + 1];
    char text[HOUSE_ENV][512];
    size_t count;
};

static void env_set(struct env *e, const char *name, const char *value)
{
    cr_assert_lt(e->count, (size_t)HOUSE_ENV);
    (void)snprintf(e->text[e->count], sizeof(e->text[0]), "%s=%s", name, value);
    e->vars[e->count] = e->text[e->count];
    e->count++;
}

static void env_add(struct env *e, const char *const *list) /* the later value of a name is the one that holds */
{
    for (size_t i = 0; list && list[i]; i++) {
        size_t name = strcspn(list[i], "=") + 1, at = 0;

        while (at < e->count && strncmp(e->vars[at], list[i], name) != 0)
            at++;
        cr_assert_lt(at, (size_t)HOUSE_ENV);
        e->vars[at] = list[i];
        e->count += at == e->count;
    }
}

static void env_shared(struct env *e, const struct house *h)
{
    char text[256];

    env_set(e, "PATH", "/usr/bin:/bin");
    env_set(e, "ASAN_OPTIONS", "detect_leaks=1");
    if (getenv("TSAN_OPTIONS"))
        env_set(e, "TSAN_OPTIONS", getenv("TSAN_OPTIONS")); /* of the preset tsan: the suppressions */
    env_set(e, "KILN_DATABASE_URL", h->db);
    env_set(e, "KILN_REDIS_URL", h->redis);
    (void)snprintf(text, sizeof(text), "file:%s/storage", h->dir);
    env_set(e, "KILN_STORAGE", text);
    env_set(e, "OPENAI_API_KEY", "sk-house");
    env_set(e, "STABILITY_API_KEY", "sk-house");
    env_set(e, "LEONARDO_API_KEY", "3f0c2a9e-5b1d-4e77-9a40-1c2d3e4f5a6b");
    (void)snprintf(text, sizeof(text), "%s/openai/v1", h->sandbox);
    env_set(e, "OPENAI_BASE_URL", text);
    (void)snprintf(text, sizeof(text), "%s/stability", h->sandbox);
    env_set(e, "STABILITY_BASE_URL", text);
    (void)snprintf(text, sizeof(text), "%s/leonardo/api/rest/v1", h->sandbox);
    env_set(e, "LEONARDO_BASE_URL", text);
    (void)snprintf(text, sizeof(text), "%s/a1111", h->sandbox);
    env_set(e, "A1111_BASE_URL", text);
    (void)snprintf(text, sizeof(text), "%s/comfyui", h->sandbox);
    env_set(e, "COMFYUI_BASE_URL", text);
    env_set(e, "HF_TOKEN", "hf_house");
    (void)snprintf(text, sizeof(text), "%s/huggingface", h->sandbox);
    env_set(e, "HF_BASE_URL", text);
    env_set(e, "ARK_API_KEY", "ark-house");
    (void)snprintf(text, sizeof(text), "%s/volcengine/api/v3", h->sandbox);
    env_set(e, "ARK_BASE_URL", text);
    env_set(e, "GEMINI_API_KEY", "AIza-house");
    (void)snprintf(text, sizeof(text), "%s/google/v1beta", h->sandbox);
    env_set(e, "GEMINI_BASE_URL", text);
    env_set(e, "RUNPOD_API_KEY", "rpa_house");
    (void)snprintf(text, sizeof(text), "%s/runpod/v2", h->sandbox);
    env_set(e, "RUNPOD_BASE_URL", text);
    env_set(e, "REPLICATE_API_TOKEN", "r8_house");
    (void)snprintf(text, sizeof(text), "%s/replicate/v1", h->sandbox);
    env_set(e, "REPLICATE_BASE_URL", text);
    env_set(e, "TTAPI_API_KEY", "0b2f2a9e-5b1d-4e77-9a40-1c2d3e4f5a6b");
    (void)snprintf(text, sizeof(text), "%s/ttapi/midjourney/v1", h->sandbox);
    env_set(e, "TTAPI_BASE_URL", text);
    if (h->options.catalog) {
        (void)snprintf(text, sizeof(text), "%s/catalog", h->dir);
        env_set(e, "KILN_CATALOG", text);
    }
}

static pid_t program_start(const struct house *h, const char *binary, const char *name, const char *const *argv,
                           const char *const *env)
{
    char path[512], log[128];
    pid_t pid;

    (void)snprintf(path, sizeof(path), "%s/%s", KILN_BUILD_DIR, binary);
    (void)snprintf(log, sizeof(log), "%s/%s.log", h->dir, name);
    pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves nothing behind */
        int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);

        (void)dup2(fd, 1);
        (void)dup2(fd, 2);
        (void)execve(path, (char *const *)(uintptr_t)argv, (char *const *)(uintptr_t)env);
        _exit(127);
    }
    return pid;
}

void house_kill(pid_t *pid, int signal)
{
    if (*pid <= 0)
        return;
    (void)kill(*pid, signal);
    if (signal == SIGKILL) {
        (void)waitpid(*pid, NULL, 0);
        *pid = 0;
    }
}

int house_wait_exit(pid_t *pid, int limit_ms)
{
    int64_t until = now_ms() + limit_ms;
    int status;

    do {
        pid_t got = waitpid(*pid, &status, WNOHANG);

        if (got == *pid) {
            *pid = 0;
            return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        }
        pause_ms(10);
    } while (now_ms() < until);
    return -1;
}

/* --- HTTP -------------------------------------------------------------------------------------------------------- */

static size_t on_body(char *data, size_t size, size_t count, void *ctx)
{
    return buf_add(ctx, data, size * count) ? count : 0;
}

static size_t on_header(char *data, size_t size, size_t count, void *ctx)
{
    struct reply *r = ctx;
    size_t have = strlen(r->headers), n = size * count;

    if (n >= 5 && !strncmp(data, "HTTP/", 5))
        have = 0;
    if (have + n < sizeof(r->headers)) {
        memcpy(r->headers + have, data, n);
        r->headers[have + n] = '\0';
    }
    return n;
}

struct reply house_url(const char *method, const char *url, const char *body, const char *const *headers)
{
    CURL *curl = curl_easy_init();
    struct curl_slist *list = NULL;
    struct buf b = { 0 };
    struct reply r = { 0 };

    (void)buf_add(&b, "", 0);
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, method);
    if (!strcmp(method, "HEAD"))
        curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_PROXY, "");
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, 90L);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &b);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, &r);
    if (body) {
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body);
        list = curl_slist_append(list, "Content-Type: application/json");
    }
    for (size_t i = 0; headers && headers[i]; i++)
        list = curl_slist_append(list, headers[i]);
    list = curl_slist_append(list, "Expect:");
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, list);
    if (curl_easy_perform(curl) == CURLE_OK)
        curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &r.status);
    curl_slist_free_all(list);
    curl_easy_cleanup(curl);
    r.len = b.len;
    r.text = b.data ? buf_take(&b) : strdup("");
    r.json = json_loadb(r.text, r.len, 0, NULL);
    return r;
}

struct reply house_call(const struct house *h, const char *method, const char *path, const char *body,
                        const char *const *headers)
{
    char url[2048], auth[128];
    const char *all[16] = { auth };
    size_t n = 1;

    (void)snprintf(url, sizeof(url), "%s%s", h->base, path);
    (void)snprintf(auth, sizeof(auth), "Authorization: Bearer %s", h->key);
    for (size_t i = 0; headers && headers[i] && n < 15; i++)
        all[n++] = headers[i];
    return house_url(method, url, body, all);
}

void reply_done(struct reply *r)
{
    json_decref(r->json);
    free(r->text);
    *r = (struct reply){ 0 };
}

static const json_t *reply_at(const struct reply *r, const char *path)
{
    const json_t *at = r->json;
    char part[64];

    while (at && *path) {
        size_t n = strcspn(path, ".");

        (void)snprintf(part, sizeof(part), "%.*s", (int)n, path);
        at = json_is_array(at) ? json_array_get(at, (size_t)strtoul(part, NULL, 10)) : json_object_get(at, part);
        path += n + (path[n] == '.');
    }
    return at;
}

const char *reply_text(const struct reply *r, const char *path)
{
    const char *text = json_string_value(reply_at(r, path));

    return text ? text : "";
}

int64_t reply_int(const struct reply *r, const char *path)
{
    const json_t *at = reply_at(r, path);

    return json_is_integer(at) ? (int64_t)json_integer_value(at) : -1;
}

double reply_number(const struct reply *r, const char *path)
{
    const json_t *at = reply_at(r, path);

    return json_is_number(at) ? json_number_value(at) : -1;
}

/* --- the house --------------------------------------------------------------------------------------------------- */

/* False: not in time, or the program has died (then *pid is 0). */
static bool wait_for(const char *url, pid_t *pid, int limit_ms)
{
    int64_t until = now_ms() + limit_ms;

    do {
        struct reply r = house_url("GET", url, NULL, NULL);
        bool is_ready = r.status == 200;

        reply_done(&r);
        if (is_ready)
            return true;
        if (house_wait_exit(pid, 0) != -1)
            return false;
        pause_ms(30);
    } while (now_ms() < until);
    return false;
}

static const char *const programs[] = { "dispatcher", "sandbox", "worker0", "worker1", "worker2",
                                        "worker3",    "worker4", "worker5", "worker6", "worker7" };

void house_show_logs(const struct house *h)
{
    for (size_t i = 0; i < ARRAY_LEN(programs); i++) {
        char *text = house_log(h, programs[i]);
        size_t len = strlen(text);

        if (len)
            (void)fprintf(stderr, "--- %s\n%s\n", programs[i], len > 6000 ? text + len - 6000 : text);
        free(text);
    }
}

static void sandbox_start(struct house *h)
{
    char config[128], ready[128];
    const char *argv[] = { "kiln-sandbox", "--listen", "127.0.0.1:0",  "--images", "127.0.0.1:0",
                           "--config",     config,     "--ready-file", ready,      NULL };
    static const char *const env[] = { "PATH=/usr/bin:/bin", NULL };
    json_t *all = json_loads(sandbox_fast, 0, NULL), *more = NULL;
    char *text;
    int64_t until = now_ms() + 20000;

    if (h->options.sandbox_config) {
        more = json_loads(h->options.sandbox_config, 0, NULL);
        cr_assert_not_null(more, "sandbox_config is JSON");
        cr_assert_eq(json_object_update_recursive(all, more), 0);
        json_decref(more);
    }
    (void)snprintf(config, sizeof(config), "%s/sandbox.json", h->dir);
    (void)snprintf(ready, sizeof(ready), "%s/sandbox.ready", h->dir);
    text = json_dumps(all, 0);
    write_text(config, text);
    free(text);
    json_decref(all);
    h->sandbox_pid = program_start(h, "tests/sandbox/kiln-sandbox", "sandbox", argv, env);
    do {
        text = read_text(ready);
        if (sscanf(text, "ready main=%63s images=%63s", h->sandbox, h->images) == 2)
            until = 0;
        free(text);
        if (until)
            pause_ms(20);
    } while (now_ms() < until);
    cr_assert(h->sandbox[0], "the sandbox did not start");
}

bool house_dispatcher_try(struct house *h, const char *const *extra_env)
{
    const char *argv[] = { "kiln-dispatcher", NULL };
    struct env e = { .count = 0 };
    char text[128];

    env_shared(&e, h);
    (void)snprintf(text, sizeof(text), "127.0.0.1:%d", h->port);
    env_set(&e, "KILN_LISTEN", text);
    env_set(&e, "KILN_SIGNING_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
    env_add(&e, h->options.dispatcher_env);
    env_add(&e, extra_env);
    h->dispatcher = program_start(h, "dispatcher/kiln-dispatcher", "dispatcher", argv, e.vars);
    (void)snprintf(h->base, sizeof(h->base), "http://127.0.0.1:%d", h->port);
    (void)snprintf(text, sizeof(text), "%s/readyz", h->base);
    return wait_for(text, &h->dispatcher, 30000);
}

void house_dispatcher_start(struct house *h, const char *const *extra_env)
{
    if (!house_dispatcher_try(h, extra_env)) {
        house_show_logs(h);
        cr_assert_fail("the dispatcher did not become ready");
    }
}

bool house_worker_try(struct house *h, const char *const *extra_env, int *index)
{
    const char *argv[] = { "kiln-worker", NULL };
    struct env e = { .count = 0 };
    char text[128], name[24];
    int i = 0;

    while (i < HOUSE_WORKERS && h->workers[i])
        i++;
    cr_assert_lt(i, HOUSE_WORKERS);
    h->worker_ports[i] = support_port();
    env_shared(&e, h);
    (void)snprintf(text, sizeof(text), "127.0.0.1:%d", h->worker_ports[i]);
    env_set(&e, "KILN_WORKER_LISTEN", text);
    env_set(&e, "KILN_ALLOW_PRIVATE_ADDRESSES", "true");
    env_add(&e, h->options.worker_env);
    env_add(&e, extra_env);
    (void)snprintf(name, sizeof(name), "worker%d", i);
    h->workers[i] = program_start(h, "worker/kiln-worker", name, argv, e.vars);
    (void)snprintf(text, sizeof(text), "http://127.0.0.1:%d/readyz", h->worker_ports[i]);
    *index = i;
    return wait_for(text, &h->workers[i], 30000);
}

int house_worker_start(struct house *h, const char *const *extra_env)
{
    int i;

    if (!house_worker_try(h, extra_env, &i)) {
        house_show_logs(h);
        cr_assert_fail("the worker did not become ready");
    }
    return i;
}

static void house_make_app(struct house *h)
{
    unsigned char raw[32];
    char text[48], hash[SHA256_HEX], sql[512];

    random_bytes(raw, sizeof(raw));
    cr_assert_not_null(base64url_encode(text, sizeof(text), raw, sizeof(raw)));
    (void)snprintf(h->key, sizeof(h->key), "kiln_%s", text);
    sha256_hex(hash, h->key, strlen(h->key));
    uuid_v7(h->app);
    (void)snprintf(sql, sizeof(sql), "insert into apps (id, name) values ('%s', 'house')", h->app);
    free(support_sql(h->db, sql));
    (void)snprintf(
        sql, sizeof(sql),
        "insert into api_keys (id, app_id, hash, prefix, scopes) values (gen_random_uuid(), '%s', decode('%s', 'hex'), "
        "'%.12s', '{jobs,credits,admin}')",
        h->app, hash, h->key);
    free(support_sql(h->db, sql));
    house_grant(h, "default", h->options.credits > 0 ? h->options.credits : 1000);
}

struct house *house_open(const struct house_options *options)
{
    struct house *h = calloc(1, sizeof(*h));
    char path[128];

    cr_assert_not_null(h);
    if (options)
        h->options = *options;
    (void)snprintf(h->dir, sizeof(h->dir), "/tmp/kiln-house-XXXXXX");
    cr_assert_not_null(mkdtemp(h->dir));
    h->db = support_database();
    h->redis = support_redis();
    h->port = support_port();
    house_make_app(h);
    if (h->options.catalog) {
        (void)snprintf(path, sizeof(path), "%s/catalog", h->dir);
        cr_assert_eq(mkdir(path, 0700), 0);
        (void)snprintf(path, sizeof(path), "%s/catalog/overlay.json", h->dir);
        write_text(path, h->options.catalog);
    }
    sandbox_start(h);
    if (!h->options.no_dispatcher)
        house_dispatcher_start(h, NULL);
    if (!h->options.no_worker)
        (void)house_worker_start(h, NULL);
    return h;
}

static void house_check_logs(const struct house *h)
{
    for (size_t i = 0; i < ARRAY_LEN(programs); i++) {
        char *text = house_log(h, programs[i]);

        support_log_is_clean(programs[i], text);
        free(text);
    }
}

static void house_end_program(struct house *h, pid_t *pid, const char *name, bool must_be_clean)
{
    int status;

    if (*pid <= 0)
        return;
    (void)kill(*pid, SIGCONT);
    (void)kill(*pid, SIGTERM);
    status = house_wait_exit(pid, 30000);
    if (status == -1)
        house_kill(pid, SIGKILL);
    if (must_be_clean && status != 0) {
        house_show_logs(h);
        cr_expect_fail("%s ended with %d", name, status);
    }
}

void house_close(struct house *h)
{
    char name[24], command[128], *found;

    for (int i = 0; i < HOUSE_WORKERS; i++) {
        (void)snprintf(name, sizeof(name), "worker%d", i);
        house_end_program(h, &h->workers[i], name, true);
    }
    house_end_program(h, &h->dispatcher, "dispatcher", true);
    house_end_program(h, &h->sandbox_pid, "sandbox", false);
    house_check_logs(h);
    found = support_sql(h->db, "select coalesce(string_agg(a::text, E'\\n'), '') from kiln_audit() a");
    cr_expect_str_eq(found, "", "kiln_audit: %s", found);
    free(found);
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", h->dir);
    (void)!system(command);
    free(h->db);
    free(h->redis);
    free(h);
}

/* --- jobs -------------------------------------------------------------------------------------------------------- */

void house_submit(const struct house *h, char id[40], const char *operation, const char *params_json)
{
    struct buf b = { 0 };
    struct reply r;

    (void)buf_printf(&b, "{\"operation\":\"%s\",\"params\":%s}", operation, params_json);
    r = house_call(h, "POST", "/v1/jobs", b.data, NULL);
    if (r.status != 202)
        house_show_logs(h);
    cr_assert_eq(r.status, 202, "%ld %s", r.status, r.text);
    (void)snprintf(id, 40, "%s", reply_text(&r, "id"));
    reply_done(&r);
    buf_done(&b);
}

struct reply house_wait(const struct house *h, const char *id, int limit_ms)
{
    static const char *const wait[] = { "Prefer: wait=10", NULL };
    int64_t until = now_ms() + limit_ms;
    char path[80];
    struct reply r;

    (void)snprintf(path, sizeof(path), "/v1/jobs/%s", id);
    for (;;) {
        const char *state;

        r = house_call(h, "GET", path, NULL, wait);
        state = reply_text(&r, "state");
        if (!strcmp(state, "succeeded") || !strcmp(state, "failed") || !strcmp(state, "canceled"))
            return r;
        if (now_ms() >= until)
            break;
        if (r.status != 200)
            pause_ms(100);
        reply_done(&r);
    }
    house_show_logs(h);
    cr_assert_fail("job %s has not ended in %d ms: %s", id, limit_ms, r.text);
    return r;
}

struct reply house_run(const struct house *h, const char *operation, const char *params_json, int limit_ms)
{
    char id[40];

    house_submit(h, id, operation, params_json);
    return house_wait(h, id, limit_ms);
}

bool house_wait_sql(const struct house *h, const char *sql, int64_t want, int limit_ms)
{
    int64_t until = now_ms() + limit_ms;

    do {
        if (support_sql_int(h->db, sql) == want)
            return true;
        pause_ms(50);
    } while (now_ms() < until);
    return support_sql_int(h->db, sql) == want;
}

void *house_picture(int width, int height, size_t *len)
{
    struct spng_ihdr head = {
        .width = (uint32_t)width, .height = (uint32_t)height, .bit_depth = 8, .color_type = SPNG_COLOR_TYPE_TRUECOLOR
    };
    size_t size = (size_t)width * (size_t)height * 3;
    unsigned char *pixels = malloc(size);
    spng_ctx *png = spng_ctx_new(SPNG_CTX_ENCODER);
    void *bytes;
    int err = 0;

    for (size_t i = 0; i < size; i++)
        pixels[i] = (unsigned char)(i / 3 * 7 / (size_t)width + i % 251);
    (void)spng_set_option(png, SPNG_ENCODE_TO_BUFFER, 1);
    (void)spng_set_ihdr(png, &head);
    (void)spng_encode_image(png, pixels, size, SPNG_FMT_PNG, SPNG_ENCODE_FINALIZE);
    bytes = spng_get_png_buffer(png, len, &err);
    spng_ctx_free(png);
    free(pixels);
    return bytes;
}

char *house_upload(const struct house *h, int width, int height)
{
    CURL *curl = curl_easy_init();
    struct curl_slist *list = curl_slist_append(NULL, "Content-Type: image/png");
    char url[128], auth[128], *id;
    struct buf b = { 0 };
    size_t len = 0;
    void *bytes = house_picture(width, height, &len);
    json_t *json;

    (void)buf_add(&b, "", 0);
    (void)snprintf(url, sizeof(url), "%s/v1/uploads", h->base);
    (void)snprintf(auth, sizeof(auth), "Authorization: Bearer %s", h->key);
    list = curl_slist_append(list, auth);
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_PROXY, "");
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, list);
    curl_easy_setopt(curl, CURLOPT_POSTFIELDS, bytes);
    curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE, (long)len);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &b);
    (void)curl_easy_perform(curl);
    curl_easy_cleanup(curl);
    curl_slist_free_all(list);
    free(bytes);
    json = json_loadb(b.data, b.len, 0, NULL);
    cr_assert(json_is_string(json_object_get(json, "id")), "upload: %s", b.data);
    id = strdup(json_string_value(json_object_get(json, "id")));
    json_decref(json);
    buf_done(&b);
    return id;
}

/* --- sandbox and money ------------------------------------------------------------------------------------------- */

static void sandbox_post(const struct house *h, const char *path, const char *json)
{
    char url[128];
    struct reply r;

    (void)snprintf(url, sizeof(url), "%s%s", h->sandbox, path);
    r = house_url("POST", url, json, NULL);
    cr_assert_eq(r.status / 100, 2, "%s: %ld %s", path, r.status, r.text);
    reply_done(&r);
}

void house_sandbox_config(const struct house *h, const char *json)
{
    sandbox_post(h, "/_sandbox/config", json);
}

void house_fault(const struct house *h, const char *json)
{
    sandbox_post(h, "/_sandbox/faults", json);
}

int64_t house_counter(const struct house *h, const char *tag, const char *name)
{
    char url[192], path[160];
    struct reply r;
    int64_t value;

    if (tag) {
        (void)snprintf(url, sizeof(url), "%s/_sandbox/counters?tag=%s", h->sandbox, tag);
        (void)snprintf(path, sizeof(path), "%s", name);
    } else {
        (void)snprintf(url, sizeof(url), "%s/_sandbox/counters", h->sandbox);
        (void)snprintf(path, sizeof(path), "totals.%s", name);
    }
    r = house_url("GET", url, NULL, NULL);
    value = reply_int(&r, path);
    reply_done(&r);
    return value;
}

static double account_number(const struct house *h, const char *account, const char *name)
{
    char path[192];
    struct reply r;
    double value;

    (void)snprintf(path, sizeof(path), "/v1/accounts/%s", account);
    r = house_call(h, "GET", path, NULL, NULL);
    value = reply_number(&r, name);
    reply_done(&r);
    return value;
}

double house_balance(const struct house *h, const char *account)
{
    return account_number(h, account, "balance");
}

double house_held(const struct house *h, const char *account)
{
    return account_number(h, account, "held");
}

void house_grant(const struct house *h, const char *account, double credits)
{
    char sql[512], reference[UUID_TEXT];

    uuid_v7(reference);
    (void)snprintf(
        sql, sizeof(sql),
        "select verdict from kiln_grant(array['%s']::uuid[], array['%s'], array[%lld]::bigint[], array['%s'])", h->app,
        account, (long long)(credits * 1000), reference);
    free(support_sql(h->db, sql));
}
