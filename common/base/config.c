/* config.c - reads the table from the environment, checks all of it, and answers the three flags. */
#include "common/base/config.h"
#include <errno.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "common/base/text.h"

enum { FILE_LINE_MAX = 64 * 1024, EXIT_CONFIG = 78 };

extern char **environ;

struct value {
    char *text; /* NULL: empty */
    int64_t num;
};

struct config {
    const struct config_option *table;
    size_t count;
    struct value *values; /* beside the table's rows */
    struct buf problems;  /* one a line */
    size_t problem_count;
};

/* What the programs of kiln share an environment for: a dispatcher must not stumble over the worker's variables. A name
 * that stands in a program's own table need not be here. */
static const char *const every_name[] = {
    "KILN_ALLOW_PRIVATE_ADDRESSES",
    "KILN_API_KEY",
    "KILN_BLOCKED_TERMS",
    "KILN_CA_FILE",
    "KILN_CATALOG",
    "KILN_CONCURRENCY",
    "KILN_DATABASE_URL",
    "KILN_FAILPOINTS",
    "KILN_LISTEN",
    "KILN_LOG_LEVEL",
    "KILN_MAX_QUEUED",
    "KILN_MAX_WAITING",
    "KILN_MODERATION",
    "KILN_MAX_REQUESTS",
    "KILN_MEMORY_LIMIT",
    "KILN_PUBLIC_URL",
    "KILN_REDIS_URL",
    "KILN_S3_ENDPOINT",
    "KILN_SIGNING_KEY",
    "KILN_STORAGE",
    "KILN_URL",
    "KILN_WORKER_LISTEN",
    NULL,
};

static const char *const type_name[] = { "text",   "secret", "secret, or several", "number",
                                         "yes/no", "URL",    "host:port",          "base64 of 32 bytes" };

static void secret_free(char *s)
{
    if (s)
        sodium_memzero(s, strlen(s));
    free(s);
}

void config_add_problem(struct config *c, const char *name, const char *what)
{
    c->problem_count++;
    (void)buf_printf(&c->problems, "%s: %s\n", name, what); /* a lost text is still counted */
}

size_t config_problems(const struct config *c)
{
    return c->problem_count;
}

void config_report(const struct config *c, FILE *to)
{
    if (c->problems.data)
        (void)fputs(c->problems.data, to); /* nobody is left to tell */
}

/* The first line of a file, without its line end, or all of it. NULL: a problem was added. */
static char *config_read_file(struct config *c, const char *name, const char *path, bool is_whole)
{
    char what[256];
    char *line = calloc(1, FILE_LINE_MAX + 2);
    FILE *f = fopen(path, "re");

    if (!f || !line ||
        (is_whole ? (fread(line, 1, FILE_LINE_MAX + 1, f), ferror(f))
                  : !fgets(line, FILE_LINE_MAX + 2, f) && ferror(f))) {
        (void)snprintf(what, sizeof what, "the file of %s_FILE cannot be read: %s", name, strerror(errno));
        config_add_problem(c, name, what);
        secret_free(line);
        line = NULL;
    } else if (strlen(line) > FILE_LINE_MAX) {
        config_add_problem(
            c, name, is_whole ? "its file is longer than 64 KiB" : "the first line of its file is longer than 64 KiB");
        secret_free(line);
        line = NULL;
    } else if (!is_whole) {
        line[strcspn(line, "\r\n")] = 0;
    }
    if (f)
        (void)fclose(f); /* only read */
    return line;
}

/* What the environment says, malloc'd; NULL: nothing. An empty variable counts as absent, as compose files write it. */
static char *config_raw(struct config *c, const char *name, bool is_whole)
{
    char file_name[128];
    const char *direct = getenv(name), *file;

    (void)snprintf(file_name, sizeof file_name, "%s_FILE", name);
    file = getenv(file_name);
    if (direct && !*direct)
        direct = NULL;
    if (file && !*file)
        file = NULL;
    if (direct && file) {
        config_add_problem(c, name, "given twice, directly and as a file");
        return NULL;
    }
    if (file)
        return config_read_file(c, name, file, is_whole);
    return direct ? strdup(direct) : NULL;
}

static bool parse_bool(const char *s, int64_t *out)
{
    static const char *const yes[] = { "1", "true", "yes", "on" }, *const no[] = { "0", "false", "no", "off" };
    for (size_t i = 0; i < ARRAY_LEN(yes); i++) {
        if (strcasecmp(s, yes[i]) == 0 || strcasecmp(s, no[i]) == 0) {
            *out = strcasecmp(s, yes[i]) == 0;
            return true;
        }
    }
    return false;
}

static bool url_plausible(const char *s)
{
    size_t scheme = strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789+.-");
    if (scheme == 0 || s[scheme] != ':' || s[scheme + 1] == 0)
        return false;
    for (; *s; s++) {
        if ((unsigned char)*s <= 0x20 || *s == 0x7f)
            return false;
    }
    return true;
}

static bool listen_split(const char *s, char *host, size_t host_size, int *port)
{
    const char *colon = strrchr(s, ':'), *first = s, *last = colon;
    int64_t number;

    if (!colon || parse_i64(colon + 1, 0, 65535, &number) != ERR_OK)
        return false;
    if (*first == '[') {
        if (last == first || last[-1] != ']')
            return false;
        first++;
        last--;
    } else if (memchr(first, ':', (size_t)(last - first))) {
        return false; /* IPv6 wants brackets */
    }
    if (last <= first || (size_t)(last - first) >= host_size)
        return false;
    memcpy(host, first, (size_t)(last - first));
    host[last - first] = 0;
    *port = (int)number;
    return true;
}

/* `what` gets the reason. Values are quoted only where they can hold no secret (a URL may carry a password). */
static bool config_check(const struct config_option *o, struct value *v, char *what, size_t size)
{
    unsigned char key[32];
    char host[256];
    size_t len = 0;
    int port;
    bool ok = true;

    switch (o->type) {
    case CONFIG_TEXT:
    case CONFIG_SECRET:
    case CONFIG_SECRETS:
        break;
    case CONFIG_INT:
        ok = parse_i64(v->text, o->min, o->max, &v->num) == ERR_OK;
        (void)snprintf(what, size, "must be a number from %" PRId64 " to %" PRId64 ", got \"%.40s\"", o->min, o->max,
                       v->text);
        break;
    case CONFIG_BOOL:
        ok = parse_bool(v->text, &v->num);
        (void)snprintf(what, size, "must be yes or no, got \"%.40s\"", v->text);
        break;
    case CONFIG_URL:
        ok = url_plausible(v->text);
        (void)snprintf(what, size, "must be a URL");
        break;
    case CONFIG_LISTEN:
        ok = strcmp(v->text, "off") == 0 || listen_split(v->text, host, sizeof host, &port);
        (void)snprintf(what, size, "must be host:port, [IPv6]:port or off, got \"%.60s\"", v->text);
        break;
    case CONFIG_BASE64_32:
        ok = base64_decode(key, sizeof key, &len, v->text, strlen(v->text)) == ERR_OK && len == sizeof key;
        sodium_memzero(key, sizeof key);
        (void)snprintf(what, size, "must be the base64 of exactly 32 bytes");
        break;
    }
    return ok;
}

static void config_read_option(struct config *c, size_t i)
{
    const struct config_option *o = &c->table[i];
    struct value *v = &c->values[i];
    char what[256];

    v->text = config_raw(c, o->name, o->type == CONFIG_SECRETS);
    if (v->text && !*v->text) { /* an empty file */
        free(v->text);
        v->text = NULL;
    }
    if (!v->text && o->fallback && *o->fallback)
        v->text = strdup(o->fallback);
    if (v->text && !config_check(o, v, what, sizeof what))
        config_add_problem(c, o->name, what);
    if (!v->text && o->is_required)
        config_add_problem(c, o->name, "is required");
}

static bool name_listed(const struct config *c, const char *const *known, const char *name, size_t len)
{
    for (size_t i = 0; i < c->count; i++) {
        if (strlen(c->table[i].name) == len && memcmp(c->table[i].name, name, len) == 0)
            return true;
    }
    for (; known && *known; known++) {
        if (strlen(*known) == len && memcmp(*known, name, len) == 0)
            return true;
    }
    return false;
}

static void config_check_unknown(struct config *c, const char *const *known)
{
    static const char file[] = "_FILE";
    char name[128];

    for (char **e = environ; e && *e; e++) {
        size_t len = strcspn(*e, "=");
        if (strncmp(*e, "KILN_", 5) != 0 || name_listed(c, known, *e, len))
            continue;
        if (len > sizeof file - 1 && memcmp(*e + len - (sizeof file - 1), file, sizeof file - 1) == 0 &&
            name_listed(c, known, *e, len - (sizeof file - 1)))
            continue;
        (void)snprintf(name, sizeof name, "%.*s", (int)len, *e);
        config_add_problem(c, name, "is not a variable of kiln");
    }
}

struct config *config_read(const struct config_option *table, size_t count, const char *const *known)
{
    struct config *c = calloc(1, sizeof *c);

    if (!c || !(c->values = calloc(count ? count : 1, sizeof *c->values))) {
        free(c);
        return NULL;
    }
    c->table = table;
    c->count = count;
    for (size_t i = 0; i < count; i++)
        config_read_option(c, i);
    config_check_unknown(c, known);
    return c;
}

void config_free(struct config *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < c->count; i++)
        secret_free(c->values[i].text); /* URLs carry passwords too, so all of them are wiped */
    free(c->values);
    buf_done(&c->problems);
    free(c);
}

static const struct value *config_value(const struct config *c, const char *name)
{
    static const struct value none;
    for (size_t i = 0; i < c->count; i++) {
        if (strcmp(c->table[i].name, name) == 0)
            return &c->values[i];
    }
    return &none;
}

const char *config_text(const struct config *c, const char *name)
{
    return config_value(c, name)->text;
}

char *config_stray(struct config *c, const char *name)
{
    for (size_t i = 0; i < c->count; i++) {
        if (strcmp(c->table[i].name, name) == 0)
            return NULL;
    }
    return config_raw(c, name, true);
}

int64_t config_int(const struct config *c, const char *name)
{
    return config_value(c, name)->num;
}

bool config_bool(const struct config *c, const char *name)
{
    return config_value(c, name)->num != 0;
}

bool config_listen(const struct config *c, const char *name, char *host, size_t host_size, int *port)
{
    const char *text = config_text(c, name);
    return text && strcmp(text, "off") != 0 && listen_split(text, host, host_size, port);
}

/* Words of `text` in lines of at most 100 columns, indented by six. */
static void print_wrapped(const char *text, FILE *to)
{
    size_t column = 0;

    while (*text) {
        size_t word = strcspn(text, " ");
        if (column == 0 || column + 1 + word > 100) {
            (void)fprintf(to, "%s      ", column ? "\n" : ""); /* like all help output: nobody to tell */
            column = 6;
        } else {
            (void)fputc(' ', to);
            column++;
        }
        (void)fprintf(to, "%.*s", (int)word, text);
        column += word;
        text += word;
        text += strspn(text, " ");
    }
    (void)fputc('\n', to);
}

void config_help(const struct config_option *table, size_t count, FILE *to)
{
    for (size_t i = 0; i < count; i++) {
        const struct config_option *o = &table[i];
        (void)fprintf(to, "  %s (%s", o->name, type_name[o->type]);
        if (o->type == CONFIG_INT)
            (void)fprintf(to, " from %" PRId64 " to %" PRId64, o->min, o->max);
        if (o->is_required)
            (void)fprintf(to, ", required");
        else if (o->fallback && *o->fallback)
            (void)fprintf(to, ", default %s", o->fallback);
        (void)fprintf(to, ")\n");
        print_wrapped(o->help ? o->help : "", to);
    }
}

static void config_print_help(const char *program, const char *usage, const struct config_option *table, size_t count)
{
    printf("%s\n\nFlags\n  --help          this text\n  --version       the version\n"
           "  --check-config  checks the environment, lists every problem, exits 78 if there is one\n\n"
           "Environment of %s (any NAME may be given as NAME_FILE, a path whose first line is the value)\n",
           usage, program);
    config_help(table, count, stdout);
}

int config_main(int argc, char **argv, const char *program, const char *usage, const struct config_option *table,
                size_t count, void (*extra_check)(struct config *), struct config **out)
{
    bool is_check = false;
    struct config *c;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            config_print_help(program, usage, table, count);
            return 0;
        }
        if (strcmp(argv[i], "--version") == 0) {
            printf("%s %s\n", program, KILN_VERSION);
            return 0;
        }
        if (strcmp(argv[i], "--check-config") != 0) {
            (void)fprintf(stderr, "%s: unknown argument %s; --help shows what there is\n", program, argv[i]);
            return 2;
        }
        is_check = true;
    }
    c = config_read(table, count, every_name);
    if (!c) {
        (void)fprintf(stderr, "%s: out of memory\n", program);
        return EXIT_CONFIG;
    }
    if (extra_check)
        extra_check(c);
    if (c->problem_count > 0) {
        config_report(c, stderr);
        config_free(c);
        return EXIT_CONFIG;
    }
    if (is_check) {
        printf("configuration is fine\n");
        config_free(c);
        return 0;
    }
    *out = c;
    return -1;
}
