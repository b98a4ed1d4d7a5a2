/* main.c - kiln-sandbox: the providers' HTTP faces on one loop. Options, wiring, signals; nothing else. */
#include "sandbox.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define EXIT_CONFIG 78

static const char help[] =
    "kiln-sandbox: OpenAI, Stability and Leonardo as HTTP servers that cost nothing.\n"
    "\n"
    "  --listen HOST:PORT     the API (127.0.0.1:0; port 0 takes a free one)\n"
    "  --images HOST:PORT     the host of image URLs (127.0.0.1:0)\n"
    "  --config FILE.json     settings, below; GET and POST /_sandbox/config show and change them\n"
    "  --ready-file PATH      the line printed when listening is also written here, at once as a whole\n"
    "  --help, --version, --check-config\n"
    "\n"
    "Base URLs: OPENAI_BASE_URL=http://HOST:PORT/openai/v1  STABILITY_BASE_URL=http://HOST:PORT/stability\n"
    "           LEONARDO_BASE_URL=http://HOST:PORT/leonardo/api/rest/v1  A1111_BASE_URL=http://HOST:PORT/a1111\n"
    "           COMFYUI_BASE_URL=http://HOST:PORT/comfyui\n"
    "           GEMINI_BASE_URL=http://HOST:PORT/google/v1beta\n"
    "           ARK_BASE_URL=http://HOST:PORT/volcengine/api/v3\n"
    "           HF_BASE_URL=http://HOST:PORT/huggingface\n"
    "           REPLICATE_BASE_URL=http://HOST:PORT/replicate/v1  RUNPOD_BASE_URL=http://HOST:PORT/runpod/v2\n"
    "           TTAPI_BASE_URL=http://HOST:PORT/ttapi/midjourney/v1\n";

struct options {
    const char *listen, *images, *config, *ready_file;
};

struct program {
    struct sandbox box;
    uv_signal_t term, interrupt;
};

static void main_on_request(struct exchange *ex)
{
    static const struct {
        const char *prefix;
        void (*serve)(struct exchange *, const char *path);
    } faces[] = {
        { "/openai/v1", openai_on_request },
        { "/stability", stability_on_request },
        { "/leonardo/api/rest/v1", leonardo_on_request },
        { "/a1111", a1111_on_request },
        { "/comfyui", comfyui_on_request },
        { "/huggingface", huggingface_on_request },
        { "/volcengine/api/v3", volcengine_on_request },
        { "/google/v1beta", google_on_request },
        { "/replicate/v1", replicate_on_request },
        { "/runpod/v2", runpod_on_request },
        { "/ttapi/midjourney/v1", ttapi_on_request },
        { "/script", script_on_request },
    };
    for (size_t i = 0; i < ARRAY_LEN(faces); i++) {
        size_t len = strlen(faces[i].prefix);
        if (strncmp(ex->path, faces[i].prefix, len) == 0 && ex->path[len] == '/') {
            faces[i].serve(ex, ex->path + len);
            return;
        }
    }
    if (strncmp(ex->path, "/_sandbox/", 10) == 0)
        admin_on_request(ex);
    else
        exchange_send_json(ex, 404, json_pack("{s:s}", "error", "no provider has this path"));
}

static void main_on_signal(uv_signal_t *sig, int number)
{
    (void)number;
    uv_stop(sig->loop);
}

static void main_raise_files(void)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur < r.rlim_max) {
        r.rlim_cur = r.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &r); /* then it holds fewer connections */
    }
}

static json_t *main_read_config(const char *path)
{
    json_error_t at;
    json_t *file = json_load_file(path, 0, &at);
    if (file == NULL)
        (void)fprintf(stderr, "kiln-sandbox: %s:%d: %s\n", path, at.line, at.text);
    return file;
}

static bool main_load_config(struct sandbox *box, const char *path)
{
    char why[256];
    json_t *file = main_read_config(path);
    if (file == NULL)
        return false;
    bool fine = config_merge(&box->config, file, why, sizeof why);
    if (!fine)
        (void)fprintf(stderr, "kiln-sandbox: %s: %s\n", path, why);
    json_decref(file);
    return fine;
}

static bool main_address(const char *where, char *host, size_t host_cap, long *port)
{
    const char *colon = strrchr(where, ':');
    char *end = NULL;
    *port = colon == NULL ? -1 : strtol(colon + 1, &end, 10);
    if (colon == NULL || end == colon + 1 || *end != '\0' || *port < 0 || *port > 65535 ||
        (size_t)(colon - where) >= host_cap)
        return false;
    (void)snprintf(host, host_cap, "%.*s", (int)(colon - where), where);
    return true;
}

static struct server *main_listen(struct sandbox *box, const char *where, void (*serve)(struct exchange *))
{
    char host[64];
    long port;
    struct server *s = NULL;
    if (main_address(where, host, sizeof host, &port)) {
        struct server_config config = { .host = host, .port = (uint16_t)port, .on_request = serve };
        s = server_start(box, &config);
    }
    if (s == NULL)
        (void)fprintf(stderr, "kiln-sandbox: cannot listen on %s\n", where);
    return s;
}

static bool main_say_ready(const struct sandbox *box, const struct options *o)
{
    char line[256], temp[4096];
    const char *colon = strrchr(o->listen, ':');
    (void)snprintf(line, sizeof line, "ready main=http://%.*s:%u images=%s\n", (int)(colon - o->listen), o->listen,
                   server_port(box->main_server), box->images_base);
    if (o->ready_file != NULL) {
        (void)snprintf(temp, sizeof temp, "%s.tmp", o->ready_file);
        FILE *f = fopen(temp, "w");
        bool fine = f != NULL && fputs(line, f) >= 0;
        if (f != NULL)
            fine = fclose(f) == 0 && fine;
        if (!fine || rename(temp, o->ready_file) != 0) {
            (void)fprintf(stderr, "kiln-sandbox: cannot write %s: %s\n", o->ready_file, strerror(errno));
            return false;
        }
    }
    (void)fputs(line, stdout);
    (void)fflush(stdout); /* nobody listening is no reason not to serve */
    return true;
}

static void sandbox_init(struct sandbox *box)
{
    config_init(&box->config);
    if (uv_loop_init(&box->loop) != 0)
        abort();
    box->counters = counters_new();
    box->faults = faults_new();
    box->limits = limits_new();
    box->jobs = jobs_new();
    box->gallery = gallery_new();
    box->dues = dues_new(&box->loop);
    randombytes_buf(box->sign_key, sizeof box->sign_key);
}

/* The loop has to run once more: it closes handles and ends paintings that are under way. */
static void sandbox_done(struct sandbox *box)
{
    server_stop(box->main_server);
    server_stop(box->image_server);
    dues_close(box->dues);
    (void)uv_run(&box->loop, UV_RUN_DEFAULT); /* until nothing is left */
    gallery_free(box->gallery);
    jobs_free(box->jobs);
    json_decref(box->script);
    json_decref(box->uploads);
    limits_free(box->limits);
    faults_free(box->faults);
    counters_free(box->counters);
    if (uv_loop_close(&box->loop) != 0)
        (void)fputs("kiln-sandbox: a handle was left open\n", stderr);
}

static int main_serve(const struct options *o)
{
    struct program p = { .box = { .main_server = NULL } };
    struct sandbox *box = &p.box;
    int result = EXIT_CONFIG;

    sandbox_init(box);
    (void)uv_signal_init(&box->loop, &p.term); /* always 0 on a fresh loop */
    (void)uv_signal_init(&box->loop, &p.interrupt);
    if (o->config != NULL && !main_load_config(box, o->config))
        goto out;
    gallery_limit(box->gallery, (size_t)sandbox_setting(box, CFG_CACHE_BYTES));
    result = 1;
    box->main_server = main_listen(box, o->listen, main_on_request);
    box->image_server = main_listen(box, o->images, images_on_request);
    if (box->main_server == NULL || box->image_server == NULL)
        goto out;
    (void)snprintf(box->images_base, sizeof box->images_base, "http://%.*s:%u",
                   (int)(strrchr(o->images, ':') - o->images), o->images, server_port(box->image_server));
    if (uv_signal_start(&p.term, main_on_signal, SIGTERM) != 0 ||
        uv_signal_start(&p.interrupt, main_on_signal, SIGINT) != 0 || !main_say_ready(box, o))
        goto out;
    (void)uv_run(&box->loop, UV_RUN_DEFAULT); /* until a signal stops it */
    result = 0;
out:
    uv_close((uv_handle_t *)&p.term, NULL);
    uv_close((uv_handle_t *)&p.interrupt, NULL);
    sandbox_done(box);
    return result;
}

/* Every problem of the options and of the file, one a line. */
static int main_check(const struct options *o)
{
    char host[64];
    long port;
    size_t problems = 0;
    json_t *file = o->config == NULL ? NULL : main_read_config(o->config);
    if (!main_address(o->listen, host, sizeof host, &port))
        problems += fprintf(stderr, "--listen: must be HOST:PORT, got \"%s\"\n", o->listen) > 0;
    if (!main_address(o->images, host, sizeof host, &port))
        problems += fprintf(stderr, "--images: must be HOST:PORT, got \"%s\"\n", o->images) > 0;
    problems += file == NULL ? o->config != NULL : config_check(file, stderr);
    json_decref(file);
    if (problems == 0)
        (void)puts("configuration is fine");
    return problems == 0 ? 0 : EXIT_CONFIG;
}

int main(int argc, char **argv)
{
    static const struct option longs[] = {
        { "listen", required_argument, NULL, 'l' }, { "images", required_argument, NULL, 'i' },
        { "config", required_argument, NULL, 'c' }, { "ready-file", required_argument, NULL, 'r' },
        { "help", no_argument, NULL, 'h' },         { "version", no_argument, NULL, 'v' },
        { "check-config", no_argument, NULL, 'k' }, { NULL, 0, NULL, 0 },
    };
    struct options o = { .listen = "127.0.0.1:0", .images = "127.0.0.1:0" };
    bool is_check = false;

    for (int c; (c = getopt_long(argc, argv, "", longs, NULL)) != -1;) {
        switch (c) {
        case 'l':
            o.listen = optarg;
            break;
        case 'i':
            o.images = optarg;
            break;
        case 'c':
            o.config = optarg;
            break;
        case 'r':
            o.ready_file = optarg;
            break;
        case 'h':
            (void)fputs(help, stdout);
            (void)fputs("\nSettings of --config (a dot is one object inside another; the default in brackets)\n",
                        stdout);
            config_help(stdout);
            return 0;
        case 'k':
            is_check = true;
            break;
        case 'v':
            (void)puts("kiln-sandbox 0.1.0");
            return 0;
        default:
            return EXIT_CONFIG;
        }
    }
    if (optind != argc || sodium_init() < 0) {
        (void)fputs("kiln-sandbox: see --help\n", stderr);
        return EXIT_CONFIG;
    }
    if (is_check)
        return main_check(&o);
    (void)signal(SIGPIPE, SIG_IGN); /* a client that left is no reason to die */
    main_raise_files();
    return main_serve(&o);
}
