/* test_box.c - starts and stops a sandbox, asks it with libcurl, and looks into the pictures that come. */
#include <signal.h>
#include <sodium.h>
#include <spng.h>
#include <sys/wait.h>
#include <turbojpeg.h>
#include <unistd.h>
#include <webp/decode.h>
#include "test_box.h"

struct box box;

/* ---- starting, stopping, asking ---- */

void box_start(const char *config)
{
    int out[2];
    char line[256] = "";
    cr_assert(curl_global_init(CURL_GLOBAL_DEFAULT) == 0 && sodium_init() >= 0 && pipe(out) == 0);
    (void)snprintf(box.ready_file, sizeof box.ready_file, "/tmp/kiln-sandbox-test-%d", (int)getpid());
    box.pid = fork();
    if (box.pid == 0) {
        (void)dup2(out[1], STDOUT_FILENO);
        (void)execl(SANDBOX_PROGRAM, SANDBOX_PROGRAM, "--ready-file", box.ready_file, (char *)NULL);
        _exit(127);
    }
    (void)close(out[1]);
    FILE *f = fdopen(out[0], "r");
    cr_assert(f != NULL && fgets(line, sizeof line, f) != NULL, "the sandbox did not say it is ready");
    (void)fclose(f);
    cr_assert_eq(sscanf(line, "ready main=%63s images=%63s", box.base, box.images), 2, "%s", line);
    box.curl = curl_easy_init();
    if (config != NULL) {
        struct answer a = answer_of_post("/_sandbox/config", NULL, config);
        cr_assert_eq(a.status, 200, "%s", a.body);
        free(a.body);
        json_decref(a.json);
    }
}

void box_stop(void)
{
    int status = -1;
    curl_easy_cleanup(box.curl);
    cr_assert_eq(kill(box.pid, SIGTERM), 0);
    cr_assert_eq(waitpid(box.pid, &status, 0), box.pid);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the sandbox left with %#x", (unsigned)status);
    (void)unlink(box.ready_file);
    curl_global_cleanup();
}

size_t on_body(char *data, size_t one, size_t n, void *cls)
{
    struct answer *a = cls;
    a->body = realloc(a->body, a->len + one * n + 1);
    memcpy(a->body + a->len, data, one * n);
    a->len += one * n;
    a->body[a->len] = '\0';
    return one * n;
}

static void keep(char *out, size_t cap, const char *line, const char *name)
{
    size_t n = strlen(name);
    if (strncmp(line, name, n) == 0)
        (void)snprintf(out, cap, "%.*s", (int)strcspn(line + n, "\r\n"), line + n);
}

static size_t on_header(char *data, size_t one, size_t n, void *cls)
{
    struct answer *a = cls;
    char line[256];
    (void)snprintf(line, sizeof line, "%.*s", (int)(one * n), data);
    keep(a->type, sizeof a->type, line, "Content-Type: ");
    keep(a->finish, sizeof a->finish, line, "finish-reason: ");
    keep(a->seed, sizeof a->seed, line, "seed: ");
    keep(a->retry, sizeof a->retry, line, "Retry-After: ");
    keep(a->retry_ms, sizeof a->retry_ms, line, "retry-after-ms: ");
    keep(a->should_retry, sizeof a->should_retry, line, "x-should-retry: ");
    keep(a->request_id, sizeof a->request_id, line, "x-request-id: ");
    return one * n;
}

const char *method; /* of the next requests; NULL: GET, or POST with a body */

struct answer perform(const char *url, const char *key, const char *more, curl_mime *form, const char *json)
{
    struct answer a = { 0 };
    char whole[1200], auth[160];
    struct curl_slist *h = NULL;
    CURL *c = box.curl;

    (void)snprintf(whole, sizeof whole, "%s%s", strncmp(url, "http", 4) == 0 ? "" : box.base, url);
    (void)snprintf(auth, sizeof auth, "Authorization: Bearer %s", key == NULL ? "" : key);
    if (key != NULL)
        h = curl_slist_append(h, auth);
    if (more != NULL)
        h = curl_slist_append(h, more);
    if (json != NULL)
        h = curl_slist_append(h, "Content-Type: application/json");
    a.body = calloc(1, 1);
    curl_easy_reset(c); /* keeps the connections */
    curl_easy_setopt(c, CURLOPT_URL, whole);
    curl_easy_setopt(c, CURLOPT_HTTPHEADER, h);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, &a);
    curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(c, CURLOPT_HEADERDATA, &a);
    curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, 20000L);
    if (form != NULL)
        curl_easy_setopt(c, CURLOPT_MIMEPOST, form);
    if (json != NULL)
        curl_easy_setopt(c, CURLOPT_POSTFIELDS, json);
    if (method != NULL)
        curl_easy_setopt(c, CURLOPT_CUSTOMREQUEST, method);
    a.code = curl_easy_perform(c);
    curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &a.status);
    a.json = json_loadb(a.body, a.len, 0, NULL);
    curl_slist_free_all(h);
    curl_mime_free(form);
    return a;
}

struct answer answer_of_post(const char *path, const char *key, const char *json)
{
    return perform(path, key, NULL, NULL, json);
}

struct answer get(const char *path, const char *key)
{
    return perform(path, key, NULL, NULL, NULL);
}

void done(struct answer *a)
{
    free(a->body);
    json_decref(a->json);
    *a = (struct answer){ 0 };
}

/* A form from "name", "value" pairs, NULL at the end; the file, when there is one, becomes `image`. */
curl_mime *form_of(const char *const *pairs, const void *file, size_t len)
{
    curl_mime *m = curl_mime_init(box.curl);
    for (; pairs != NULL && pairs[0] != NULL; pairs += 2) {
        curl_mimepart *p = curl_mime_addpart(m);
        curl_mime_name(p, pairs[0]);
        curl_mime_data(p, pairs[1], CURL_ZERO_TERMINATED);
    }
    if (file != NULL) {
        curl_mimepart *p = curl_mime_addpart(m);
        curl_mime_name(p, "image");
        curl_mime_filename(p, "in.png");
        curl_mime_type(p, "image/png");
        curl_mime_data(p, file, len);
    }
    return m;
}

const char *str(const json_t *o, const char *a, const char *b)
{
    const json_t *v = json_object_get(o, a);
    if (b != NULL)
        v = json_object_get(v, b);
    return json_is_string(v) ? json_string_value(v) : "";
}

long counter(const char *tag, const char *name)
{
    char path[160];
    (void)snprintf(path, sizeof path, "/_sandbox/counters?tag=%s", tag);
    struct answer a = get(path, NULL);
    const json_t *v = json_object_get(a.json, name);
    cr_assert(json_is_integer(v), "no counter %s in %s", name, a.body);
    long n = (long)json_integer_value(v);
    done(&a);
    return n;
}

void configure(const char *json)
{
    struct answer a = answer_of_post("/_sandbox/config", NULL, json);
    cr_assert_eq(a.status, 200, "%s", a.body);
    done(&a);
}

/* ---- pictures ---- */

static int count_colors(const unsigned char *rgb, size_t pixels)
{
    unsigned seen[64];
    int n = 0;
    for (size_t i = 0; i < pixels && n < 64; i += 7) {
        unsigned c = (unsigned)(rgb[i * 3] >> 3 << 10 | rgb[i * 3 + 1] >> 3 << 5 | rgb[i * 3 + 2] >> 3);
        bool known = false;
        for (int k = 0; k < n; k++)
            known = known || seen[k] == c;
        if (!known)
            seen[n++] = c;
    }
    return n;
}

struct seen look(const void *file, size_t len)
{
    struct seen s = { 0 };
    const unsigned char *d = file;
    unsigned char *rgb = NULL;
    int sub, space;
    if (len > 24 && memcmp(d, "\x89PNG", 4) == 0) {
        s.kind = 'p';
        s.width = d[16] << 24 | d[17] << 16 | d[18] << 8 | d[19];
        s.height = d[20] << 24 | d[21] << 16 | d[22] << 8 | d[23];
        size_t size = (size_t)s.width * (size_t)s.height * 3;
        spng_ctx *c = spng_ctx_new(0);
        rgb = malloc(size);
        cr_assert_eq(spng_set_png_buffer(c, d, len), 0);
        cr_assert_eq(spng_decode_image(c, rgb, size, SPNG_FMT_RGB8, 0), 0, "the PNG is damaged");
        spng_ctx_free(c);
    } else if (len > 3 && memcmp(d, "\xFF\xD8\xFF", 3) == 0) {
        tjhandle t = tjInitDecompress();
        s.kind = 'j';
        cr_assert_eq(tjDecompressHeader3(t, d, len, &s.width, &s.height, &sub, &space), 0);
        rgb = malloc((size_t)s.width * (size_t)s.height * 3);
        cr_assert_eq(tjDecompress2(t, d, len, rgb, s.width, 0, s.height, TJPF_RGB, TJFLAG_STOPONWARNING), 0);
        tjDestroy(t);
    } else if (len > 12 && memcmp(d + 8, "WEBP", 4) == 0) {
        s.kind = 'w';
        uint8_t *own = WebPDecodeRGB(d, len, &s.width, &s.height);
        cr_assert_not_null(own);
        s.colors = count_colors(own, (size_t)s.width * (size_t)s.height);
        WebPFree(own);
    }
    if (rgb != NULL)
        s.colors = count_colors(rgb, (size_t)s.width * (size_t)s.height);
    free(rgb);
    return s;
}

static unsigned char *unbase64(const char *text, size_t *len)
{
    size_t n = strlen(text);
    unsigned char *out = malloc(n + 1);
    cr_assert_eq(sodium_base642bin(out, n, text, n, NULL, len, NULL, sodium_base64_VARIANT_ORIGINAL), 0);
    return out;
}

struct seen look_base64(const char *text)
{
    size_t len;
    unsigned char *file = unbase64(text, &len);
    struct seen s = look(file, len);
    free(file);
    return s;
}

/* A small PNG of the sandbox's own making, as an input. */
unsigned char *input_png(size_t *len)
{
    struct answer a =
        answer_of_post(IMAGES, "sk-in", "{\"model\":\"gpt-image-1\",\"prompt\":\"input\",\"size\":\"1024x1024\"}");
    unsigned char *file = unbase64(str(json_array_get(json_object_get(a.json, "data"), 0), "b64_json", NULL), len);
    done(&a);
    return file;
}

struct answer generate(const char *body, char path[160])
{
    struct answer a = answer_of_post(LEO, "key", body);
    json_t *job = json_object_get(a.json, "sdGenerationJob");
    (void)snprintf(path, 160, "%s/%s", LEO, str(job, "generationId", NULL));
    return a;
}

void waiter_start(struct waiter *w, const char *tag, const char *fault)
{
    int running = 1;
    *w = (struct waiter){ .multi = curl_multi_init(), .curl = curl_easy_init() };
    w->headers = curl_slist_append(NULL, "Authorization: Bearer sk-wait");
    w->headers = curl_slist_append(w->headers, "Content-Type: application/json");
    (void)snprintf(w->url, sizeof w->url, "%s%s", box.base, IMAGES);
    (void)snprintf(w->body, sizeof w->body, "{\"model\":\"gpt-image-1\",\"prompt\":\"[[job:%s]] [[fault:%s]]\"}", tag,
                   fault);
    curl_easy_setopt(w->curl, CURLOPT_URL, w->url);
    curl_easy_setopt(w->curl, CURLOPT_HTTPHEADER, w->headers);
    curl_easy_setopt(w->curl, CURLOPT_POSTFIELDS, w->body);
    curl_easy_setopt(w->curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(w->curl, CURLOPT_WRITEDATA, &w->answer);
    curl_multi_add_handle(w->multi, w->curl);
    while (counter(tag, "paid") == 0) {
        curl_multi_perform(w->multi, &running);
        curl_multi_poll(w->multi, NULL, 0, 10, NULL);
    }
    cr_expect_eq(running, 1, "answered already");
}

void waiter_leave(struct waiter *w) /* closes the connection */
{
    curl_multi_remove_handle(w->multi, w->curl);
    curl_easy_cleanup(w->curl);
    curl_multi_cleanup(w->multi);
    curl_slist_free_all(w->headers);
    free(w->answer.body);
}
