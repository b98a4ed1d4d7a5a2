/* test_sandbox.c - the sandbox keeps what its README and the provider pages say. Every test starts a program of its
 * own, talks to it with libcurl, and wants it to leave with status 0 (a leak would change that). SANDBOX_PROGRAM is its
 * path. */
#include <criterion/criterion.h>
#include <curl/curl.h>
#include <jansson.h>
#include <signal.h>
#include <sodium.h>
#include <spng.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <turbojpeg.h>
#include <unistd.h>
#include <webp/decode.h>

#define LEN(a) (sizeof(a) / sizeof((a)[0]))
#define FAST                                                                                                           \
    "{\"delay_ms\":{\"openai\":0,\"stability_generate\":0,\"stability_upscale\":0,\"stability_creative\":0,"           \
    "\"leonardo\":0},\"image_size_cap\":96}"
#define CORE       "/stability/v2beta/stable-image/generate/core"
#define CREATIVE   "/stability/v2beta/stable-image/upscale/creative"
#define IMAGES     "/openai/v1/images/generations"
#define EDITS      "/openai/v1/images/edits"
#define VARIATIONS "/openai/v1/images/variations"
#define LEO        "/leonardo/api/rest/v1/generations"

static struct {
    pid_t pid;
    char base[64], images[64], ready_file[64];
    CURL *curl; /* one handle: connections are reused as a client would */
} box;

struct answer {
    CURLcode code;
    long status;
    char *body;
    size_t len;
    char type[80], finish[40], seed[24], retry[48], retry_ms[24], should_retry[8], request_id[64];
    json_t *json;
};

/* ---- starting, stopping, asking ---- */

static struct answer answer_of_post(const char *path, const char *key, const char *json);

static void box_start(const char *config)
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

static void box_stop(void)
{
    int status = -1;
    curl_easy_cleanup(box.curl);
    cr_assert_eq(kill(box.pid, SIGTERM), 0);
    cr_assert_eq(waitpid(box.pid, &status, 0), box.pid);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the sandbox left with %#x", (unsigned)status);
    (void)unlink(box.ready_file);
    curl_global_cleanup();
}

static size_t on_body(char *data, size_t one, size_t n, void *cls)
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

static const char *method; /* of the next requests; NULL: GET, or POST with a body */

static struct answer perform(const char *url, const char *key, const char *more, curl_mime *form, const char *json)
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

static struct answer answer_of_post(const char *path, const char *key, const char *json)
{
    return perform(path, key, NULL, NULL, json);
}

static struct answer get(const char *path, const char *key)
{
    return perform(path, key, NULL, NULL, NULL);
}

static void done(struct answer *a)
{
    free(a->body);
    json_decref(a->json);
    *a = (struct answer){ 0 };
}

/* A form from "name", "value" pairs, NULL at the end; the file, when there is one, becomes `image`. */
static curl_mime *form_of(const char *const *pairs, const void *file, size_t len)
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

static const char *str(const json_t *o, const char *a, const char *b)
{
    const json_t *v = json_object_get(o, a);
    if (b != NULL)
        v = json_object_get(v, b);
    return json_is_string(v) ? json_string_value(v) : "";
}

static long counter(const char *tag, const char *name)
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

static void configure(const char *json)
{
    struct answer a = answer_of_post("/_sandbox/config", NULL, json);
    cr_assert_eq(a.status, 200, "%s", a.body);
    done(&a);
}

/* ---- pictures ---- */

struct seen {
    int width, height;
    char kind;  /* p, j, w */
    int colors; /* distinct among a sample, up to 64 */
};

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

static struct seen look(const void *file, size_t len)
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

static struct seen look_base64(const char *text)
{
    size_t len;
    unsigned char *file = unbase64(text, &len);
    struct seen s = look(file, len);
    free(file);
    return s;
}

/* A small PNG of the sandbox's own making, as an input. */
static unsigned char *input_png(size_t *len)
{
    struct answer a =
        answer_of_post(IMAGES, "sk-in", "{\"model\":\"gpt-image-1\",\"prompt\":\"input\",\"size\":\"1024x1024\"}");
    unsigned char *file = unbase64(str(json_array_get(json_object_get(a.json, "data"), 0), "b64_json", NULL), len);
    done(&a);
    return file;
}

/* A client of its own whose request was taken and is not answered in full. */
struct waiter {
    CURLM *multi;
    CURL *curl;
    struct curl_slist *headers;
    char url[128], body[300];
    struct answer answer;
};

static void waiter_start(struct waiter *w, const char *tag, const char *fault)
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

static void waiter_leave(struct waiter *w) /* closes the connection */
{
    curl_multi_remove_handle(w->multi, w->curl);
    curl_easy_cleanup(w->curl);
    curl_multi_cleanup(w->multi);
    curl_slist_free_all(w->headers);
    free(w->answer.body);
}

/* ---- program ---- */

Test(program, says_where_it_listens_and_leaves_cleanly_in_mid_work)
{
    char line[256] = "";
    box_start(FAST);
    FILE *f = fopen(box.ready_file, "r");
    cr_assert_not_null(f);
    cr_expect(fgets(line, sizeof line, f) != NULL && strstr(line, box.base) != NULL &&
              strstr(line, box.images) != NULL);
    (void)fclose(f);

    struct waiter hanging, slow, painting;
    waiter_start(&hanging, "h", "hang");
    waiter_start(&slow, "s", "slow_body=10,slow_ms=20");
    configure("{\"image_size_cap\":0}");
    waiter_start(&painting, "p", "delay_ms=0");
    box_stop();
    waiter_leave(&hanging);
    waiter_leave(&slow);
    waiter_leave(&painting);
}

Test(program, refuses_settings_that_do_not_exist)
{
    box_start(NULL);
    struct answer a = answer_of_post("/_sandbox/config", NULL, "{\"delay_ms\":{\"opanai\":3}}");
    cr_expect_eq(a.status, 400);
    cr_expect(strstr(a.body, "delay_ms.opanai") != NULL, "%s", a.body);
    done(&a);
    a = answer_of_post(IMAGES, "sk", "{\"model\":\"gpt-image-1\",\"prompt\":\"x [[fault:no_such_thing]]\"}");
    cr_expect(a.status == 400 && strstr(a.body, "no_such_thing") != NULL, "a fault that does not exist passed: %s",
              a.body);
    done(&a);
    box_stop();
}

/* ---- OpenAI ---- */

Test(openai, a_gpt_picture_is_base64_of_the_asked_size_and_format_with_its_usage)
{
    static const char *const formats[] = { "png", "jpeg", "webp" };
    box_start(FAST);
    configure("{\"image_size_cap\":0}");
    for (size_t i = 0; i < LEN(formats); i++) {
        char body[256];
        (void)snprintf(
            body, sizeof body,
            "{\"model\":\"gpt-image-1.5\",\"prompt\":\"a kettle\",\"n\":2,\"size\":\"1024x1536\",\"quality\":"
            "\"medium\",\"output_format\":\"%s\"}",
            formats[i]);
        struct answer a = answer_of_post(IMAGES, "sk-test", body);
        const json_t *data = json_object_get(a.json, "data");
        cr_assert(a.status == 200 && json_array_size(data) == 2, "%s: %.200s", formats[i], a.body);
        const char *first = str(json_array_get(data, 0), "b64_json", NULL);
        struct seen s = look_base64(first);
        cr_expect(s.width == 1024 && s.height == 1536 && s.kind == formats[i][0], "%s: %dx%d %c", formats[i], s.width,
                  s.height, s.kind);
        cr_expect_geq(s.colors, 30, "%s: a flat picture", formats[i]);
        cr_expect_str_neq(first, str(json_array_get(data, 1), "b64_json", NULL));
        const json_t *usage = json_object_get(a.json, "usage");
        cr_expect_eq(json_integer_value(json_object_get(usage, "output_tokens")), 2 * 1584);
        cr_expect_str_eq(str(a.json, "output_format", NULL), formats[i]);
        cr_expect(strncmp(a.request_id, "req_", 4) == 0);
        done(&a);
    }
    box_stop();
}

Test(openai, names_the_parameter_that_is_wrong_before_it_looks_at_the_key)
{
    static const struct {
        const char *body, *param, *code;
    } rows[] = {
        { "{\"model\":\"gpt-image-1\"}", "prompt", "missing_required_parameter" },
        { "{\"model\":\"gpt-image-1\",\"prompt\":\"x\",\"response_format\":\"url\"}", "response_format",
          "unknown_parameter" },
        { "{\"model\":\"dall-e-3\",\"prompt\":\"x\",\"moderation\":\"low\"}", "moderation", "unknown_parameter" },
        { "{\"model\":\"dall-e-2\",\"prompt\":\"x\",\"style\":\"vivid\"}", "style", "unknown_parameter" },
        { "{\"model\":\"dall-e-3\",\"prompt\":\"x\",\"n\":2}", "n", "integer_above_max_value" },
        { "{\"model\":\"gpt-image-1\",\"prompt\":\"x\",\"n\":0}", "n", "integer_below_min_value" },
        { "{\"model\":\"gpt-image-1\",\"prompt\":\"x\",\"n\":\"1\"}", "n", "invalid_type" },
        { "{\"model\":\"gpt-image-1\",\"prompt\":\"x\",\"size\":\"512x512\"}", "size", "invalid_value" },
        { "{\"model\":\"gpt-image-2\",\"prompt\":\"x\",\"size\":\"1000x1000\"}", "size", "invalid_value" },
        { "{\"model\":\"gpt-image-1\",\"prompt\":\"x\",\"quality\":\"hd\"}", "quality", "invalid_value" },
        { "{\"model\":\"gpt-image-1\",\"prompt\":\"x\",\"background\":\"transparent\",\"output_format\":\"jpeg\"}",
          "background", "invalid_value" },
    };
    box_start(FAST);
    for (size_t i = 0; i < LEN(rows); i++) {
        struct answer a = answer_of_post(IMAGES, "bad-key", rows[i].body);
        cr_expect_eq(a.status, 400, "%s", rows[i].body);
        cr_expect_str_eq(str(a.json, "error", "param"), rows[i].param, "%s: %s", rows[i].body, a.body);
        cr_expect_str_eq(str(a.json, "error", "code"), rows[i].code, "%s: %s", rows[i].body, a.body);
        done(&a);
    }
    box_stop();
}

Test(openai, keys_have_moods_and_none_of_their_refusals_is_paid)
{
    static const struct {
        const char *key;
        long status;
        const char *code;
    } rows[] = {
        { NULL, 401, "invalid_api_key" },
        { "bad-1", 401, "invalid_api_key" },
        { "broke-1", 429, "insufficient_quota" },
        { "zero-1", 429, "rate_limit_exceeded" },
        { "hardlimit-1", 400, "billing_hard_limit_reached" },
        { "unverified-1", 403, "" },
    };
    box_start(FAST);
    for (size_t i = 0; i < LEN(rows); i++) {
        struct answer a = answer_of_post(IMAGES, rows[i].key, "{\"model\":\"gpt-image-1\",\"prompt\":\"x [[job:k]]\"}");
        cr_expect(a.status == rows[i].status && strcmp(str(a.json, "error", "code"), rows[i].code) == 0, "%s: %s",
                  rows[i].key == NULL ? "no key" : rows[i].key, a.body);
        done(&a);
    }
    cr_expect_eq(counter("k", "requests"), (long)LEN(rows));
    cr_expect_eq(counter("k", "refused"), (long)LEN(rows));
    cr_expect_eq(counter("k", "paid"), 0);
    configure("{\"dalle_retired\":true}");
    struct answer a = answer_of_post(IMAGES, "sk", "{\"model\":\"dall-e-3\",\"prompt\":\"x\"}");
    cr_expect(a.status == 404 && strcmp(str(a.json, "error", "code"), "model_not_found") == 0);
    done(&a);
    box_stop();
}

/* A picture of the sandbox's own, by dall-e-2: a square PNG without alpha. */
static struct answer small_png(const char *size)
{
    char body[160];
    (void)snprintf(body, sizeof body, "{\"model\":\"dall-e-2\",\"prompt\":\"a cup\",\"size\":\"%s\"}", size);
    struct answer a = answer_of_post(IMAGES, "sk", body);
    struct answer png = get(str(json_array_get(json_object_get(a.json, "data"), 0), "url", NULL), NULL);
    done(&a);
    return png;
}

static void add_file(curl_mime *m, const char *name, const char *type, const struct answer *file)
{
    curl_mimepart *p = curl_mime_addpart(m);
    curl_mime_name(p, name);
    curl_mime_filename(p, "in");
    curl_mime_type(p, type);
    curl_mime_data(p, file->body, file->len);
}

Test(openai, edits_take_several_pictures_and_a_mask_and_count_them)
{
    static const char *const texts[] = { "model",          "gpt-image-1", "prompt", "upholster [[job:e]]",
                                         "input_fidelity", "high",        "n",      "2",
                                         "quality",        "low",         NULL };
    box_start(FAST);
    struct answer png = small_png("256x256");
    curl_mime *m = form_of(texts, NULL, 0);
    add_file(m, "image[]", "image/png", &png);
    add_file(m, "image[]", "image/png", &png);
    add_file(m, "mask", "image/png", &png);
    struct answer a = perform(EDITS, "sk", NULL, m, NULL);
    const json_t *usage = json_object_get(a.json, "usage"), *in = json_object_get(usage, "input_tokens_details");
    cr_assert(a.status == 200 && json_array_size(json_object_get(a.json, "data")) == 2, "%.300s", a.body);
    cr_expect_eq(json_integer_value(json_object_get(in, "image_tokens")), 2048);
    cr_expect_eq(json_integer_value(json_object_get(usage, "output_tokens")), 2 * 272);
    cr_expect_eq(counter("e", "paid"), 1);
    done(&a);
    m = form_of((const char *const[]){ "n", "2", "size", "256x256", NULL }, png.body, png.len);
    a = perform(VARIATIONS, "sk", NULL, m, NULL);
    cr_expect(a.status == 200 && json_array_size(json_object_get(a.json, "data")) == 2, "%s", a.body);
    done(&a);
    configure("{\"openai_limit\":{\"input_images\":1}}");
    m = form_of(texts, NULL, 0);
    add_file(m, "image[]", "image/png", &png);
    add_file(m, "image[]", "image/png", &png);
    a = perform(EDITS, "sk", NULL, m, NULL);
    cr_expect(a.status == 429 && strcmp(str(a.json, "error", "type"), "input-images") == 0, "%s", a.body);
    done(&a);
    done(&png);
    box_stop();
}

Test(openai, edits_and_variations_refuse_what_their_page_refuses)
{
    static const struct {
        const char *path, *model, *name, *type, *param, *code;
        int masks; /* 1: of another size; 2: of the same */
    } rows[] = {
        { EDITS, "gpt-image-1", NULL, NULL, "image", "missing_required_parameter", 0 },
        { EDITS, "gpt-image-1", "image", "application/octet-stream", "image", "", 0 },
        { EDITS, "gpt-image-1", "image", "image/png", "mask", "", 1 },
        { EDITS, "dall-e-3", "image", "image/png", "model", "invalid_value", 0 },
        { EDITS, "dall-e-2", "image[]", "image/png", "image[]", "unknown_parameter", 2 },
        { EDITS, "dall-e-2", "image", "image/png", "image", "", 0 }, /* no mask and no alpha */
        { EDITS, "dall-e-2", "image", "image/png", NULL, NULL, 2 },
        { EDITS, "dall-e-2", "image", "image/jpeg", "image", "", 2 },
        { VARIATIONS, "gpt-image-1", "image", "image/png", "model", "invalid_value", 0 },
        { VARIATIONS, "dall-e-2", "image", "image/png", "mask", "unknown_parameter", 2 },
    };
    box_start(FAST);
    configure("{\"image_size_cap\":0}");
    struct answer png = small_png("256x256"), large = small_png("512x512");
    for (size_t i = 0; i < LEN(rows); i++) {
        bool is_edit = strcmp(rows[i].path, EDITS) == 0;
        const char *texts[] = { "model", rows[i].model, is_edit ? "prompt" : NULL, "x", NULL };
        curl_mime *m = form_of(texts, NULL, 0);
        if (rows[i].name != NULL)
            add_file(m, rows[i].name, rows[i].type, &png);
        if (rows[i].masks != 0)
            add_file(m, "mask", "image/png", rows[i].masks == 1 ? &large : &png);
        struct answer a = perform(rows[i].path, "sk", NULL, m, NULL);
        if (rows[i].param == NULL) {
            cr_expect_eq(a.status, 200, "row %zu: %s", i, a.body);
        } else {
            cr_expect_eq(a.status, 400, "row %zu: %s", i, a.body);
            cr_expect_str_eq(str(a.json, "error", "param"), rows[i].param, "row %zu: %s", i, a.body);
            cr_expect_str_eq(str(a.json, "error", "code"), rows[i].code, "row %zu: %s", i, a.body);
        }
        done(&a);
    }
    done(&png);
    done(&large);
    box_stop();
}

Test(openai, the_json_form_of_an_edit_takes_data_urls_and_moderation)
{
    static const struct {
        const char *body, *param;
    } rows[] = {
        { "{\"model\":\"gpt-image-1\",\"prompt\":\"x\"}", "images" },
        { "{\"model\":\"gpt-image-1\",\"prompt\":\"x\",\"images\":[]}", "images" },
        { "{\"model\":\"gpt-image-1\",\"prompt\":\"x\",\"images\":[{\"image_url\":\"https://x\",\"file_id\":\"file-1\"}]}",
          "images" },
        { "{\"model\":\"gpt-image-1\",\"prompt\":\"x\",\"images\":[{\"image_url\":\"http://x\"}]}", "images" },
        { "{\"model\":\"dall-e-2\",\"prompt\":\"x\",\"images\":[{\"image_url\":\"https://x\"}]}", "model" },
        { "{\"model\":\"gpt-image-2\",\"prompt\":\"x\",\"size\":\"2048x1024\",\"images\":[{\"image_url\":\"https://x\"}]}",
          "size" },
        { "{\"model\":\"gpt-image-1\",\"prompt\":\"x\",\"moderation\":\"low\",\"images\":[{\"image_url\":\"https://x\"}]}",
          NULL },
    };
    box_start(FAST);
    for (size_t i = 0; i < LEN(rows); i++) {
        struct answer a = answer_of_post(EDITS, "sk", rows[i].body);
        cr_expect_eq(a.status, rows[i].param == NULL ? 200 : 400, "%s: %.200s", rows[i].body, a.body);
        if (rows[i].param != NULL)
            cr_expect_str_eq(str(a.json, "error", "param"), rows[i].param, "%s: %s", rows[i].body, a.body);
        done(&a);
    }
    box_stop();
}

Test(openai, an_image_url_needs_its_signature_and_dies_after_an_hour)
{
    char url[1024], altered[1040];
    box_start(FAST);
    struct answer a = answer_of_post(IMAGES, "sk", "{\"model\":\"dall-e-3\",\"prompt\":\"harbour [[job:u]]\"}");
    const json_t *first = json_array_get(json_object_get(a.json, "data"), 0);
    (void)snprintf(url, sizeof url, "%s", str(first, "url", NULL));
    cr_expect(strlen(str(first, "revised_prompt", NULL)) > 10);
    cr_expect(strncmp(url, box.images, strlen(box.images)) == 0, "not on the second listener: %s", url);
    done(&a);
    a = get(url, NULL);
    cr_expect(a.status == 200 && look(a.body, a.len).kind == 'p');
    cr_expect_str_eq(a.type, "image/png");
    done(&a);
    cr_expect_eq(counter("u", "downloads"), 1);
    (void)snprintf(altered, sizeof altered, "%s", url);
    altered[strlen(altered) - 6] ^= 1;
    a = get(altered, NULL);
    cr_expect(a.status == 403 && strstr(a.body, "<Code>AuthenticationFailed</Code>") != NULL, "%s", a.body);
    done(&a);
    configure("{\"clock_offset_ms\":3601000}");
    a = get(url, NULL);
    cr_expect(a.status == 403 && strstr(a.body, "AuthenticationFailed") != NULL);
    done(&a);
    box_stop();
}

Test(pictures, are_the_same_for_the_same_prompt_and_differ_for_another)
{
    static const char *const prompts[] = { "red kettle", "red kettle [[job:other]]", "blue kettle" };
    char *text[3];
    box_start(FAST);
    for (size_t i = 0; i < 3; i++) {
        char body[200];
        (void)snprintf(body, sizeof body, "{\"model\":\"gpt-image-1\",\"prompt\":\"%s\"}", prompts[i]);
        struct answer a = answer_of_post(IMAGES, "sk", body);
        text[i] = strdup(str(json_array_get(json_object_get(a.json, "data"), 0), "b64_json", NULL));
        done(&a);
    }
    cr_expect_str_eq(text[0], text[1], "the tag must not change the picture");
    cr_expect_str_neq(text[0], text[2]);
    for (size_t i = 0; i < 3; i++)
        free(text[i]);
    box_stop();
}

/* ---- Stability ---- */

Test(stability, lists_every_problem_before_it_looks_at_the_key)
{
    static const char *const fields[] = { "aspect_ratio",  "7:1", "seed", "-1", "strange", "1",
                                          "output_format", "gif", NULL };
    static const char *const wants[] = { "prompt: ", "aspect_ratio: ", "seed: ", "strange: ", "output_format: " };
    box_start(FAST);
    struct answer a = perform(CORE, "bad-key", "Accept: image/*", form_of(fields, NULL, 0), NULL);
    cr_expect(a.status == 400 && strcmp(str(a.json, "name", NULL), "bad_request") == 0);
    cr_expect_eq(json_array_size(json_object_get(a.json, "errors")), LEN(wants), "%s", a.body);
    for (size_t i = 0; i < LEN(wants); i++)
        cr_expect(strstr(a.body, wants[i]) != NULL, "%s missing in %s", wants[i], a.body);
    done(&a);
    a = answer_of_post(CORE, "sk", "{\"prompt\":\"x\"}");
    cr_expect(a.status == 400 && strstr(a.body, "multipart/form-data") != NULL);
    done(&a);
    static const char *const good[] = { "prompt", "x", NULL };
    a = perform(CORE, "bad-key", NULL, form_of(good, NULL, 0), NULL);
    cr_expect(a.status == 401 && strcmp(str(a.json, "name", NULL), "unauthorized") == 0);
    done(&a);
    a = perform(CORE, "broke-key", NULL, form_of(good, NULL, 0), NULL);
    cr_expect(a.status == 402 && strcmp(str(a.json, "name", NULL), "payment_required") == 0);
    done(&a);
    box_stop();
}

Test(stability, bytes_carry_headers_and_json_carries_members)
{
    static const char *const fields[] = { "prompt", "a mountain", "seed", "77", "aspect_ratio", "16:9", NULL };
    box_start(FAST);
    configure("{\"image_size_cap\":0}");
    struct answer a = perform(CORE, "sk", "Accept: image/*", form_of(fields, NULL, 0), NULL);
    struct seen s = look(a.body, a.len);
    cr_expect(a.status == 200 && s.kind == 'p');
    cr_expect(s.width > 1.7 * s.height && abs(s.width * s.height - 1572864) < 40000, "%dx%d", s.width, s.height);
    cr_expect_str_eq(a.type, "image/png");
    cr_expect_str_eq(a.finish, "SUCCESS");
    cr_expect_str_eq(a.seed, "77");
    done(&a);
    a = perform(CORE, "sk", "Accept: application/json", form_of(fields, NULL, 0), NULL);
    cr_expect_str_eq(a.type, "application/json; type=image/png");
    cr_expect_str_eq(a.finish, "");
    cr_expect_str_eq(str(a.json, "finish_reason", NULL), "SUCCESS");
    cr_expect_eq(json_integer_value(json_object_get(a.json, "seed")), 77);
    cr_expect_eq(look_base64(str(a.json, "image", NULL)).width, s.width);
    done(&a);
    static const char *const filtered[] = { "prompt", "x [[job:f]] [[fault:filtered]]", NULL };
    a = perform(CORE, "sk", "Accept: image/*", form_of(filtered, NULL, 0), NULL);
    cr_expect_str_eq(a.finish, "CONTENT_FILTERED");
    done(&a);
    cr_expect_eq(counter("f", "paid"), 1);
    a = get("/stability/v1/user/balance", "sk");
    cr_expect_eq((long)json_number_value(json_object_get(a.json, "credits")), 10000 - 3 * 3, "%s", a.body);
    done(&a);
    box_stop();
}

Test(stability, over_150_calls_in_ten_seconds_the_key_sits_out_a_minute)
{
    box_start(FAST);
    long limited = 0;
    for (int i = 0; i < 152; i++) {
        struct answer a = get("/stability/v1/user/balance", "sk-busy");
        limited += a.status == 429;
        done(&a);
    }
    cr_expect_eq(limited, 2);
    struct answer a = get("/stability/v1/user/balance", "sk-calm");
    cr_expect_eq(a.status, 200, "another key must not suffer");
    done(&a);
    configure("{\"clock_offset_ms\":30000}");
    a = get("/stability/v1/user/balance", "sk-busy");
    cr_expect_eq(a.status, 429, "the window is over, the time-out is not");
    cr_expect_str_eq(str(a.json, "name", NULL), "rate_limit_exceeded");
    done(&a);
    configure("{\"clock_offset_ms\":62000}");
    a = get("/stability/v1/user/balance", "sk-busy");
    cr_expect_eq(a.status, 200);
    done(&a);
    box_stop();
}

static void start_upscale(const char *prompt, char id[80])
{
    size_t len;
    unsigned char *png = input_png(&len);
    const char *const fields[] = { "prompt", prompt, "creativity", "0.2", NULL };
    struct answer a = perform(CREATIVE, "sk-up", NULL, form_of(fields, png, len), NULL);
    cr_assert_eq(a.status, 200, "%s", a.body);
    (void)snprintf(id, 80, "%s", str(a.json, "id", NULL));
    cr_expect_eq(strlen(id), 64);
    done(&a);
    free(png);
}

Test(stability, a_creative_upscale_is_pending_then_larger_then_gone)
{
    char id[80], path[160];
    box_start(FAST);
    configure("{\"delay_ms\":{\"stability_creative\":3600000},\"image_size_cap\":128}");
    start_upscale("sharpen [[job:c]]", id);
    (void)snprintf(path, sizeof path, "/stability/v2beta/results/%s", id);
    struct answer a = get(path, "sk-up");
    cr_expect(a.status == 202 && strcmp(str(a.json, "status", NULL), "in-progress") == 0, "%s", a.body);
    done(&a);
    configure("{\"clock_offset_ms\":3600001}");
    a = get(path, "sk-other");
    cr_expect_eq(a.status, 404, "another key must not see it");
    done(&a);
    for (int i = 0; i < 2; i++) { /* repeatable */
        a = get(path, "sk-up");
        struct seen s = look(a.body, a.len);
        cr_expect(a.status == 200 && s.width == 512 && s.height == 512 && s.colors >= 30, "%ld %dx%d %d colours",
                  a.status, s.width, s.height, s.colors);
        done(&a);
    }
    a = perform(path, "sk-up", "Accept: application/json", NULL, NULL);
    cr_expect_eq(look_base64(str(a.json, "result", NULL)).width, 512);
    done(&a);
    configure("{\"clock_offset_ms\":90060000}");
    a = get(path, "sk-up");
    cr_expect(a.status == 404 && strcmp(str(a.json, "name", NULL), "generation_not_found") == 0);
    done(&a);
    cr_expect_eq(counter("c", "paid"), 1);
    cr_expect_eq(counter("c", "cost_millicents"), 60000);
    cr_expect_eq(counter("c", "polls"), 5, "the other key's poll is not this job's");
    box_stop();
}

Test(stability, a_failed_upscale_gives_the_credits_back)
{
    char id[80], path[160];
    box_start(FAST);
    start_upscale("x [[job:f]] [[fault:fail]]", id);
    (void)snprintf(path, sizeof path, "/stability/v2beta/results/%s", id);
    for (int i = 0; i < 2; i++) {
        struct answer a = get(path, "sk-up");
        cr_expect(a.status == 500 && strcmp(str(a.json, "name", NULL), "internal_error") == 0, "%s", a.body);
        done(&a);
    }
    cr_expect_eq(counter("f", "refunded"), 1);
    cr_expect_eq(counter("f", "cost_millicents"), 0);
    box_stop();
}

Test(stability, an_input_outside_the_rules_is_named)
{
    static const char *const fields[] = { "prompt", "x", NULL };
    box_start(FAST);
    struct answer a = perform(CREATIVE, "sk", NULL, form_of(fields, "no picture at all", 17), NULL);
    cr_expect(a.status == 400 && strstr(a.body, "image: must be a jpeg, png or webp") != NULL, "%s", a.body);
    done(&a);
    configure("{\"image_size_cap\":40}");
    size_t len;
    unsigned char *tiny = input_png(&len);
    a = perform(CREATIVE, "sk", NULL, form_of(fields, tiny, len), NULL);
    cr_expect(a.status == 400 && strstr(a.body, "image: each side") != NULL, "%s", a.body);
    done(&a);
    free(tiny);
    char *large = calloc(1, 10U << 20);
    a = perform(CREATIVE, "sk", NULL, form_of(fields, large, 10U << 20), NULL);
    cr_expect(a.status == 413 && strcmp(str(a.json, "name", NULL), "payload_too_large") == 0, "%ld", a.status);
    done(&a);
    free(large);
    box_stop();
}

/* ---- Leonardo ---- */

Test(leonardo, refuses_what_it_does_not_know_in_hasuras_words)
{
    static const struct {
        const char *body, *text, *code;
    } rows[] = {
        { "{\"prompt\":\"x\",\"sd_Version\":\"v2\"}", "Unexpected variable sd_Version", "bad-request" },
        { "{\"num_images\":1}", "expecting a value for non-nullable variable: \"prompt\"", "validation-failed" },
        { "[1", "expecting a value for non-nullable variable: \"prompt\"", "validation-failed" },
        { "{\"prompt\":\"x\",\"photoReal\":\"yes\"}", "expected a boolean for type 'Boolean', but found a string",
          "validation-failed" },
        { "{\"prompt\":\"x\",\"width\":1021}", "invalid dimensions", "unexpected" },
        { "{\"prompt\":\"x\",\"width\":2048}", "invalid dimensions", "unexpected" },
        { "{\"prompt\":\"x\",\"width\":1024,\"num_images\":8}", "too many images", "unexpected" },
    };
    box_start(FAST);
    for (size_t i = 0; i < LEN(rows); i++) {
        struct answer a = answer_of_post(LEO, "key", rows[i].body);
        cr_expect_eq(a.status, 400, "%s", rows[i].body);
        cr_expect(strstr(str(a.json, "error", NULL), rows[i].text) != NULL &&
                      strcmp(str(a.json, "code", NULL), rows[i].code) == 0,
                  "%s: %s", rows[i].body, a.body);
        done(&a);
    }
    struct answer a = answer_of_post(LEO, "broke-key", "{\"prompt\":\"x\"}");
    cr_expect(a.status == 400 && strncmp(str(a.json, "error", NULL), "not enough api tokens userId: ", 30) == 0);
    done(&a);
    a = answer_of_post(LEO, "bad-key", "{\"prompt\":\"x\"}");
    cr_expect(a.status == 401 && strcmp(str(a.json, "code", NULL), "access-denied") == 0);
    done(&a);
    configure("{\"leonardo_uuid_keys\":true}");
    a = answer_of_post(LEO, "no-uuid", "{\"prompt\":\"x\"}");
    cr_expect(a.status == 500 && strcmp(str(a.json, "error", NULL), "Invalid response from authorization hook") == 0);
    done(&a);
    box_stop();
}

static struct answer generate(const char *body, char path[160])
{
    struct answer a = answer_of_post(LEO, "key", body);
    json_t *job = json_object_get(a.json, "sdGenerationJob");
    (void)snprintf(path, 160, "%s/%s", LEO, str(job, "generationId", NULL));
    return a;
}

Test(leonardo, goes_from_pending_to_four_pictures_on_the_other_host)
{
    char path[160], url[300];
    box_start(FAST);
    configure("{\"delay_ms\":{\"leonardo\":3600000},\"image_size_cap\":0}");
    struct answer a = generate("{\"prompt\":\"kettle [[job:l]]\",\"width\":512,\"height\":384}", path);
    cr_expect(
        json_is_string(json_object_get(json_object_get(json_object_get(a.json, "sdGenerationJob"), "cost"), "amount")),
        "the amount is a string: %s", a.body);
    done(&a);
    a = get(path, "key");
    json_t *job = json_object_get(a.json, "generations_by_pk");
    cr_expect(strcmp(str(job, "status", NULL), "PENDING") == 0 &&
              json_array_size(json_object_get(job, "generated_images")) == 0);
    done(&a);
    configure("{\"clock_offset_ms\":3600001}");
    a = get(path, "key");
    job = json_object_get(a.json, "generations_by_pk");
    json_t *images = json_object_get(job, "generated_images");
    cr_expect_str_eq(str(job, "status", NULL), "COMPLETE");
    cr_assert_eq(json_array_size(images), 4);
    (void)snprintf(url, sizeof url, "%s", str(json_array_get(images, 3), "url", NULL));
    cr_expect(strncmp(url, box.images, strlen(box.images)) == 0);
    done(&a);
    a = get(url, NULL);
    struct seen s = look(a.body, a.len);
    cr_expect(s.kind == 'j' && s.width == 512 && s.height == 384, "%c %dx%d", s.kind, s.width, s.height);
    done(&a);
    a = get(url, "key");
    cr_expect_eq(a.status, 403, "a key must not be sent to the image host");
    done(&a);
    a = get(LEO "/00000000-0000-4000-8000-000000000000", "key");
    cr_expect(a.status == 200 && json_is_null(json_object_get(a.json, "generations_by_pk")));
    done(&a);
    cr_expect_eq(counter("l", "images"), 4);
    box_stop();
}

Test(leonardo, async_faults_hold_where_they_are_asked_for)
{
    static const struct {
        const char *fault, *word;
        size_t images;
    } rows[] = {
        { "", "COMPLETE", 4 },
        { "[[fault:fail]]", "FAILED", 0 },
        { "[[fault:empty]]", "COMPLETE", 0 },
        { "[[fault:partial=3]]", "COMPLETE", 3 },
        { "[[fault:stuck]]", "PENDING", 0 },
    };
    char path[160], body[200];
    box_start(FAST);
    for (size_t i = 0; i < LEN(rows); i++) {
        (void)snprintf(body, sizeof body, "{\"prompt\":\"x %s\"}", rows[i].fault);
        struct answer a = generate(body, path);
        done(&a);
        a = get(path, "key");
        json_t *job = json_object_get(a.json, "generations_by_pk");
        cr_expect_str_eq(str(job, "status", NULL), rows[i].word, "%s", rows[i].fault);
        cr_expect_eq(json_array_size(json_object_get(job, "generated_images")), rows[i].images, "%s", rows[i].fault);
        done(&a);
    }
    struct answer a =
        generate("{\"prompt\":\"x [[job:p]] [[fault:poll_status=500,times=2]] [[fault:unknown_status]]\"}", path);
    done(&a);
    static const char *const polls[] = { "500", "500", "COMPLETE" };
    for (size_t i = 0; i < LEN(polls); i++) {
        a = get(path, "key");
        const char *word = a.status == 500 ? "500" : str(json_object_get(a.json, "generations_by_pk"), "status", NULL);
        cr_expect_str_eq(word, polls[i], "poll %zu: %s", i, a.body);
        done(&a);
    }
    cr_expect_eq(counter("p", "polls"), 3);
    box_stop();
}

/* ---- faults ---- */

static struct answer ask(const char *tag, const char *fault)
{
    char body[400];
    (void)snprintf(body, sizeof body, "{\"model\":\"gpt-image-1\",\"prompt\":\"x [[job:%s]] [[fault:%s]]\"}", tag,
                   fault);
    return answer_of_post(IMAGES, "sk", body);
}

Test(faults, rules_end_and_what_was_counted_stays)
{
    box_start(FAST);
    struct answer a = answer_of_post("/_sandbox/faults", NULL, "{\"match\":{},\"fault\":{\"status\":503}}");
    done(&a);
    a = ask("e", "chunked");
    cr_expect_eq(a.status, 503);
    done(&a);
    method = "DELETE";
    a = get("/_sandbox/faults", NULL);
    cr_expect_eq(json_array_size(json_object_get(a.json, "faults")), 0);
    done(&a);
    method = NULL;
    a = ask("e", "chunked");
    cr_expect_eq(a.status, 200);
    done(&a);
    cr_expect_eq(counter("e", "requests"), 2);
    box_stop();
}

Test(faults, a_status_holds_so_many_times_for_each_tag)
{
    static const char *const tags[] = { "a", "b" };
    box_start(FAST);
    for (size_t t = 0; t < 2; t++) {
        for (int i = 0; i < 3; i++) {
            struct answer a = ask(tags[t], "status=503,retry_after=2,times=2");
            cr_expect_eq(a.status, i < 2 ? 503 : 200, "tag %s, request %d", tags[t], i);
            cr_expect_str_eq(a.retry, i < 2 ? "2" : "");
            done(&a);
        }
        cr_expect_eq(counter(tags[t], "requests"), 3);
        cr_expect_eq(counter(tags[t], "refused"), 2);
        cr_expect_eq(counter(tags[t], "paid"), 1);
    }
    box_stop();
}

Test(faults, connections_break_before_after_and_in_the_middle)
{
    static const struct {
        const char *tag, *fault;
        CURLcode code;
        long paid;
    } rows[] = {
        { "before", "drop_before", CURLE_GOT_NOTHING, 0 }, { "after", "drop_after", CURLE_GOT_NOTHING, 1 },
        { "mid", "drop_mid=100", CURLE_PARTIAL_FILE, 1 },  { "unpaid", "drop_after,unpaid", CURLE_GOT_NOTHING, 0 },
        { "none", "drop_at=0", CURLE_GOT_NOTHING, 1 },     { "last", "drop_at=-1", CURLE_PARTIAL_FILE, 1 },
    };
    box_start(FAST);
    for (size_t i = 0; i < LEN(rows); i++) {
        curl_easy_cleanup(box.curl); /* a fresh connection: libcurl repeats a POST when a reused one dies */
        box.curl = curl_easy_init();
        struct answer a = ask(rows[i].tag, rows[i].fault);
        cr_expect_eq(a.code, rows[i].code, "%s: %s", rows[i].fault, curl_easy_strerror(a.code));
        cr_expect(strcmp(rows[i].tag, "mid") != 0 || a.len == 100, "%zu bytes", a.len);
        done(&a);
        cr_expect_eq(counter(rows[i].tag, "paid"), rows[i].paid, "%s", rows[i].fault);
        cr_expect_eq(counter(rows[i].tag, "cut"), 1, "%s", rows[i].fault);
        cr_expect_eq(counter(rows[i].tag, "canceled"), 0, "%s", rows[i].fault);
    }
    box_stop();
}

/* What rule 8 of the protocol is about: libcurl sends a POST again, without a word, when a reused connection dies. */
Test(faults, a_reused_connection_that_closes_is_seen_paid_for_twice)
{
    box_start(FAST);
    struct answer a = ask("r1", "reuse_close,times=1");
    cr_expect_eq(a.status, 200, "reset by configure: this is not the first request on the connection");
    done(&a);
    curl_easy_cleanup(box.curl);
    box.curl = curl_easy_init();
    a = ask("r2", "reuse_close,times=1");
    cr_expect_eq(a.status, 200, "the first request on a connection is served");
    done(&a);
    cr_expect_eq(counter("r2", "cut"), 0);
    a = ask("r2", "reuse_close,times=1"); /* the counters came over the same connection: it is a reused one */
    cr_expect_eq(a.status, 200, "libcurl repeats it on a new connection");
    done(&a);
    cr_expect_eq(counter("r2", "cut"), 1);
    cr_expect_eq(counter("r2", "paid"), 3);
    box_stop();
}

Test(faults, bodies_are_spoiled_as_asked)
{
    box_start(FAST);
    struct answer a = ask("t", "truncate=30");
    cr_expect(a.code == CURLE_OK && a.status == 200 && a.len == 30 && a.json == NULL);
    done(&a);
    a = ask("t", "bad_json");
    cr_expect(a.status == 200 && a.len > 0 && a.json == NULL);
    done(&a);
    a = ask("t", "html");
    cr_expect(a.status == 502 && strncmp(a.type, "text/html", 9) == 0 && a.body[0] == '<');
    done(&a);
    a = ask("t", "html,status=200");
    cr_expect(a.status == 200 && a.body[0] == '<');
    done(&a);
    a = ask("t", "empty_body");
    cr_expect(a.status == 200 && a.len == 0);
    done(&a);
    a = ask("t", "slow_body=2000,slow_ms=1");
    cr_expect(a.status == 200 && a.json != NULL, "a slow body arrives whole");
    done(&a);
    a = ask("t", "chunked");
    cr_expect(a.status == 200 && a.json != NULL);
    done(&a);
    a = ask("t", "blank");
    cr_expect_eq(look_base64(str(json_array_get(json_object_get(a.json, "data"), 0), "b64_json", NULL)).colors, 1);
    done(&a);
    a = ask("t", "wrong_format");
    cr_expect_eq(look_base64(str(json_array_get(json_object_get(a.json, "data"), 0), "b64_json", NULL)).kind, 'j');
    done(&a);
    a = ask("t", "wrong_size");
    cr_expect_neq(look_base64(str(json_array_get(json_object_get(a.json, "data"), 0), "b64_json", NULL)).width, 96);
    done(&a);
    box_stop();
}

Test(faults, a_client_that_stops_waiting_is_counted_as_canceled)
{
    static const char *const faults[] = { "hang", "slow_body=10,slow_ms=20" };
    box_start(FAST);
    for (size_t i = 0; i < LEN(faults); i++) {
        const char *tag = i == 0 ? "g0" : "g1";
        struct waiter w;
        waiter_start(&w, tag, faults[i]);
        cr_expect_eq(counter(tag, "canceled"), 0);
        waiter_leave(&w);
        time_t limit = time(NULL) + 10;
        while (counter(tag, "canceled") == 0 && time(NULL) < limit)
            ;
        cr_expect_eq(counter(tag, "canceled"), 1, "%s", faults[i]);
        cr_expect_eq(counter(tag, "paid"), 1);
    }
    box_stop();
}

Test(faults, rules_from_outside_match_by_provider_path_and_prompt)
{
    box_start(FAST);
    struct answer a =
        answer_of_post("/_sandbox/faults", NULL,
                       "{\"match\":{\"provider\":\"openai\",\"prompt_contains\":\"apple\"},\"fault\":{\"status\":"
                       "429,\"retry_after\":7},\"times\":1}");
    cr_assert_eq(a.status, 200, "%s", a.body);
    done(&a);
    static const struct {
        const char *prompt;
        long status;
    } rows[] = { { "pear", 200 }, { "an apple", 429 }, { "an apple", 200 } };
    for (size_t i = 0; i < LEN(rows); i++) {
        char body[120];
        (void)snprintf(body, sizeof body, "{\"model\":\"gpt-image-1\",\"prompt\":\"%s\"}", rows[i].prompt);
        a = answer_of_post(IMAGES, "sk", body);
        cr_expect_eq(a.status, rows[i].status, "%zu: %s", i, rows[i].prompt);
        done(&a);
    }
    a = answer_of_post("/_sandbox/faults", NULL,
                       "{\"match\":{\"path_contains\":\"/generate/core\"},\"fault\":{\"drop_before\":true}}");
    done(&a);
    curl_easy_cleanup(box.curl);
    box.curl = curl_easy_init();
    static const char *const fields[] = { "prompt", "x", NULL };
    a = perform(CORE, "sk", NULL, form_of(fields, NULL, 0), NULL);
    cr_expect(a.code == CURLE_GOT_NOTHING || a.code == CURLE_RECV_ERROR || a.code == CURLE_SEND_ERROR, "%d",
              (int)a.code);
    done(&a);
    a = answer_of_post("/_sandbox/reset", NULL, "{}");
    done(&a);
    a = answer_of_post("/_sandbox/faults", NULL,
                       "{\"match\":{\"path_contains\":\"/generate/core\"},\"fault\":{\"drop_line\":true},\"times\":1}");
    done(&a);
    curl_easy_cleanup(box.curl);
    box.curl = curl_easy_init();
    a = perform(CORE, "sk", NULL, form_of(fields, NULL, 0), NULL);
    cr_expect(a.code == CURLE_GOT_NOTHING || a.code == CURLE_RECV_ERROR || a.code == CURLE_SEND_ERROR, "%d",
              (int)a.code);
    done(&a);
    a = answer_of_post("/_sandbox/faults", NULL, "{\"match\":{},\"fault\":{\"nonsense\":1}}");
    cr_expect_eq(a.status, 400);
    done(&a);
    a = answer_of_post("/_sandbox/reset", NULL, "{}");
    done(&a);
    a = get("/_sandbox/faults", NULL);
    cr_expect_eq(json_array_size(json_object_get(a.json, "faults")), 0);
    done(&a);
    box_stop();
}

/* What each word does where the tests above did not go. */
Test(faults, statuses_speak_each_providers_language)
{
    static const char *const fields[] = { "prompt", "x [[fault:status=429,retry_after_date=5]]", NULL };
    box_start(FAST);
    struct answer a = perform(CORE, "sk", NULL, form_of(fields, NULL, 0), NULL);
    cr_expect(a.status == 429 && strcmp(str(a.json, "name", NULL), "rate_limit_exceeded") == 0, "%s", a.body);
    cr_expect(strstr(a.retry, "GMT") != NULL, "a date: %s", a.retry);
    done(&a);
    a = answer_of_post(LEO, "key", "{\"prompt\":\"x [[fault:status=500]]\"}");
    cr_expect(a.status == 500 && strcmp(str(a.json, "error", NULL), "Service Error") == 0, "%s", a.body);
    done(&a);
    a = ask("s", "status=429,code=insufficient_quota");
    cr_expect(a.status == 429 && strcmp(str(a.json, "error", "type"), "insufficient_quota") == 0, "%s", a.body);
    done(&a);
    a = ask("s", "status=503,retry_after_ms=1500,should_retry=0");
    cr_expect(strcmp(a.retry_ms, "1500") == 0 && strcmp(a.should_retry, "false") == 0);
    done(&a);
    a = ask("s", "status=502,paid");
    done(&a);
    cr_expect_eq(counter("s", "paid"), 1, "paid says so");
    static const char *const moderated[] = { "prompt", "x [[fault:moderated]]", NULL };
    a = perform(CORE, "sk", NULL, form_of(moderated, NULL, 0), NULL);
    cr_expect(a.status == 403 && strcmp(str(a.json, "name", NULL), "content_moderation") == 0, "%s", a.body);
    done(&a);
    a = answer_of_post(LEO, "key", "{\"prompt\":\"x [[fault:moderated]]\"}");
    cr_expect(a.status == 403 && strncmp(str(a.json, "error", NULL), "content moderation filter", 25) == 0, "%s",
              a.body);
    done(&a);
    a = ask("s", "moderated");
    cr_expect(a.status == 400 && strcmp(str(a.json, "error", "code"), "moderation_blocked") == 0, "%s", a.body);
    done(&a);
    box_stop();
}

Test(faults, polls_and_downloads_break_as_submits_do)
{
    char path[160], url[300];
    box_start(FAST);
    struct answer a =
        generate("{\"prompt\":\"x [[job:d]] [[fault:download_status=503,times=1]] [[fault:cut_image]] [[fault:nsfw]] "
                 "[[fault:bad_json,at=poll,times=1]] [[fault:delay_ms=300,at=poll,times=1]]\",\"num_images\":1,"
                 "\"width\":64,\"height\":64}",
                 path);
    done(&a);
    struct timespec from, to;
    (void)clock_gettime(CLOCK_MONOTONIC, &from);
    a = get(path, "key");
    (void)clock_gettime(CLOCK_MONOTONIC, &to);
    cr_expect(a.status == 200 && a.json == NULL, "%s", a.body);
    cr_expect_geq((to.tv_sec - from.tv_sec) * 1000 + (to.tv_nsec - from.tv_nsec) / 1000000, 290);
    done(&a);
    a = get(path, "key");
    json_t *image =
        json_array_get(json_object_get(json_object_get(a.json, "generations_by_pk"), "generated_images"), 0);
    cr_expect(json_is_true(json_object_get(image, "nsfw")));
    (void)snprintf(url, sizeof url, "%s", str(image, "url", NULL));
    done(&a);
    a = get(url, NULL);
    cr_expect_eq(a.status, 503);
    done(&a);
    a = get(url, NULL);
    cr_expect(a.status == 200 && a.len > 4 && (unsigned char)a.body[a.len - 1] != 0xD9, "half a JPEG has no end");
    done(&a);
    cr_expect_eq(counter("d", "downloads"), 2);
    a = generate("{\"prompt\":\"x [[job:e]] [[fault:drop_after,at=poll,times=1]]\"}", path);
    done(&a);
    curl_easy_cleanup(box.curl); /* a fresh connection, or libcurl asks again by itself */
    box.curl = curl_easy_init();
    a = get(path, "key");
    cr_expect_eq(a.code, CURLE_GOT_NOTHING);
    done(&a);
    a = get(path, "key");
    cr_expect_eq(a.status, 200, "asking again is free");
    done(&a);
    cr_expect_eq(counter("e", "paid"), 1);
    a = generate("{\"prompt\":\"x [[fault:null_job]]\"}", path);
    cr_expect(json_is_null(json_object_get(a.json, "sdGenerationJob")));
    done(&a);
    a = generate("{\"prompt\":\"x [[fault:missing_id]]\"}", path);
    cr_expect(a.status == 200 && path[strlen(path) - 1] == '/');
    done(&a);
    box_stop();
}

Test(openai, images_per_window_are_limited_when_asked_and_the_wait_is_told)
{
    box_start(FAST);
    configure("{\"openai_limit\":{\"requests\":3,\"window_ms\":60000}}");
    struct answer a = answer_of_post(IMAGES, "sk", "{\"model\":\"gpt-image-1\",\"prompt\":\"x\",\"n\":3}");
    cr_expect_eq(a.status, 200);
    done(&a);
    a = answer_of_post(IMAGES, "sk", "{\"model\":\"gpt-image-1\",\"prompt\":\"x\"}");
    cr_expect(a.status == 429 && strstr(a.body, "try again in") != NULL, "%s", a.body);
    done(&a);
    configure("{\"clock_offset_ms\":60001}");
    a = answer_of_post(IMAGES, "sk", "{\"model\":\"gpt-image-1\",\"prompt\":\"x\"}");
    cr_expect_eq(a.status, 200);
    done(&a);
    box_stop();
}

Test(counters, requests_are_remembered_with_their_idempotency_key)
{
    box_start(FAST);
    struct answer a =
        perform(IMAGES, "sk", "Idempotency-Key: abc-1", NULL, "{\"model\":\"gpt-image-1\",\"prompt\":\"x [[job:i]]\"}");
    done(&a);
    a = get("/_sandbox/requests?tag=i", NULL);
    const json_t *one = json_array_get(json_object_get(a.json, "requests"), 0);
    cr_expect_str_eq(str(one, "idempotency_key", NULL), "abc-1");
    cr_expect_str_eq(str(one, "path", NULL), IMAGES);
    cr_expect_eq(json_integer_value(json_object_get(one, "status")), 200);
    cr_expect(strstr(a.body, "sk") == NULL || strstr(a.body, "\"sk\"") == NULL, "the key itself must not show");
    done(&a);
    a = get("/_sandbox/counters", NULL);
    cr_expect_eq(json_integer_value(json_object_get(json_object_get(a.json, "totals"), "paid")), 1);
    cr_expect_eq(json_object_size(json_object_get(a.json, "keys")), 1);
    done(&a);
    box_stop();
}

Test(capacity, hundreds_wait_at_once_and_all_are_answered)
{
    enum { COUNT = 400 };
    CURL *c[COUNT];
    char url[128];
    int running = COUNT, left = 0, good = 0;
    struct answer a[COUNT];
    box_start(FAST);
    configure("{\"delay_ms\":{\"openai\":800},\"image_size_cap\":16}");
    CURLM *m = curl_multi_init();
    struct curl_slist *h = curl_slist_append(NULL, "Authorization: Bearer sk-many");
    h = curl_slist_append(h, "Content-Type: application/json");
    (void)snprintf(url, sizeof url, "%s%s", box.base, IMAGES);
    for (int i = 0; i < COUNT; i++) {
        a[i] = (struct answer){ 0 };
        c[i] = curl_easy_init();
        curl_easy_setopt(c[i], CURLOPT_URL, url);
        curl_easy_setopt(c[i], CURLOPT_HTTPHEADER, h);
        curl_easy_setopt(c[i], CURLOPT_POSTFIELDS, "{\"model\":\"gpt-image-1\",\"prompt\":\"[[job:m]]\"}");
        curl_easy_setopt(c[i], CURLOPT_WRITEFUNCTION, on_body);
        curl_easy_setopt(c[i], CURLOPT_WRITEDATA, &a[i]);
        curl_multi_add_handle(m, c[i]);
    }
    while (running > 0) {
        curl_multi_perform(m, &running);
        while (curl_multi_info_read(m, &left) != NULL)
            ;
        curl_multi_poll(m, NULL, 0, 50, NULL);
    }
    for (int i = 0; i < COUNT; i++) {
        long status = 0;
        curl_easy_getinfo(c[i], CURLINFO_RESPONSE_CODE, &status);
        good += status == 200;
        curl_multi_remove_handle(m, c[i]);
        curl_easy_cleanup(c[i]);
        free(a[i].body);
    }
    cr_expect_eq(good, COUNT);
    cr_expect_eq(counter("m", "paid"), COUNT);
    curl_multi_cleanup(m);
    curl_slist_free_all(h);
    box_stop();
}
