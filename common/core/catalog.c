/* catalog.c - reads schema/catalog/<provider>.json (embedded), lays the operator's files over it, and hands the result
 * out as immutable structs.
 *
 * An overlay file has the same shape and may hold only what changes. Members of the provider are replaced one by one
 * ("lane" whole), operations too, save that "submit", "poll" and "params" of an operation are themselves replaced
 * member by member; null removes. What results is checked as if it had been written in one piece. */
#include "common/core/catalog.h"

#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/embedded.h"
#include "common/base/text.h"
#include "common/core/catalog_parts.h"
#include "common/core/catalog_route.h"

enum { CATALOG_FILE_BYTES = 4 << 20, UNKNOWN_RETRY_MICROUSD = 100000 };

struct catalog {
    json_t *schema;     /* schema/catalog.schema.json */
    json_t *docs;       /* provider -> its whole document, overlays applied */
    json_t *templates;  /* name -> checked template */
    json_t *route_docs; /* name -> route */
    json_t *origins;    /* provider, operation or template -> the file that spoke last about it */
    struct catalog_provider *providers;
    size_t provider_count;
    struct operation *operations;
    size_t operation_count;
    struct catalog_route *routes;
    size_t route_count;
};

bool catalog_complain(const struct catalog_complaint *to, const char *field, const char *fmt, ...)
{
    char what[256];
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(what, sizeof what, fmt, args); /* a cut complaint still names the place */
    va_end(args);
    if (to->size > 0 && to->text[0] == '\0')
        (void)snprintf(to->text, to->size, "%s: %s%s%s: %s", to->file, to->where, field[0] ? ": " : "", field, what);
    return false;
}

/* ---- files -> documents */

static const char *origin_of(const struct catalog *c, const char *name)
{
    const char *file = json_string_value(json_object_get(c->origins, name));

    return file != NULL ? file : "catalog";
}

static int put(json_t *object, const char *key, json_t *value) /* null removes; borrows the value */
{
    if (!json_is_null(value))
        return json_object_set(object, key, value);
    (void)json_object_del(object, key); /* absent already: as wanted */
    return 0;
}

static int put_members(json_t *object, json_t *members)
{
    const char *key;
    json_t *value;
    int rc = 0;

    json_object_foreach(members, key, value) rc |= put(object, key, value);
    return rc;
}

static int lay_operation(json_t *into, json_t *from)
{
    const char *key;
    json_t *value;
    int rc = 0;

    json_object_foreach(from, key, value)
    {
        json_t *old = json_object_get(into, key);
        bool by_member = strcmp(key, "submit") == 0 || strcmp(key, "poll") == 0 || strcmp(key, "params") == 0;

        if (by_member && json_is_object(old) && json_is_object(value))
            rc |= put_members(old, value);
        else
            rc |= put(into, key, value);
    }
    return rc;
}

static int lay_operations(struct catalog *c, json_t *into, json_t *from, const char *file)
{
    const char *name;
    json_t *value;
    int rc = 0;

    json_object_foreach(from, name, value)
    {
        json_t *old = json_object_get(into, name);

        rc |= json_object_set_new(c->origins, name, json_string(file));
        if (json_is_object(old) && json_is_object(value))
            rc |= lay_operation(old, value);
        else
            rc |= put(into, name, value);
    }
    return rc;
}

/* Lays one document over what is there; takes the reference. */
static enum err lay(struct catalog *c, json_t *doc, const char *file, struct catalog_complaint *to)
{
    const char *provider = json_string_value(json_object_get(doc, "provider"));
    const char *key;
    json_t *old, *value;
    int rc = 0;

    to->file = file;
    to->where = "provider";
    if (provider == NULL || provider[0] == '\0') {
        json_decref(doc);
        (void)catalog_complain(to, "", "must be a string: which provider the file is about");
        return ERR_ARGUMENT;
    }
    rc |= json_object_set_new(c->origins, provider, json_string(file));
    old = json_object_get(c->docs, provider);
    if (old == NULL) {
        rc |= json_object_set_new(c->docs, provider, json_object());
        old = json_object_get(c->docs, provider);
    }
    json_object_foreach(doc, key, value)
    {
        json_t *was = json_object_get(old, key);

        if (strcmp(key, "operations") == 0 && json_is_object(value)) {
            if (!json_is_object(was)) {
                rc |= json_object_set_new(old, key, json_object());
                was = json_object_get(old, key);
            }
            rc |= lay_operations(c, was, value, file);
        } else if (strcmp(key, "shared") == 0 && json_is_object(was) && json_is_object(value)) {
            rc |= put_members(was, value);
        } else {
            rc |= put(old, key, value);
        }
    }
    json_decref(doc);
    return rc == 0 ? ERR_OK : ERR_NOMEM;
}

static enum err lay_text(struct catalog *c, const char *file, const char *text, size_t len,
                         struct catalog_complaint *to)
{
    struct json_fault fault = { "" };
    json_t *doc = json_parse(text, len, &fault);

    to->file = file;
    to->where = "JSON";
    if (!json_is_object(doc)) {
        (void)catalog_complain(to, "", "%s", doc != NULL ? "must be an object" : fault.message);
        json_decref(doc);
        return ERR_ARGUMENT;
    }
    if (json_object_get(doc, "provider") == NULL &&
        (json_object_get(doc, "templates") != NULL || json_object_get(doc, "routes") != NULL))
        return catalog_lay_shared(to, doc, file, c->templates, c->route_docs, c->origins);
    return lay(c, doc, file, to);
}

static enum err lay_file(struct catalog *c, const char *path, const char *name, struct catalog_complaint *to)
{
    enum err e = ERR_NOMEM;
    char *text = malloc(CATALOG_FILE_BYTES);
    FILE *f = NULL;
    size_t len;

    if (text == NULL)
        goto out;
    e = ERR_IO;
    to->file = name;
    to->where = "file";
    f = fopen(path, "rbe");
    if (f == NULL) {
        (void)catalog_complain(to, "", "cannot be opened");
        goto out;
    }
    len = fread(text, 1, CATALOG_FILE_BYTES, f);
    if (ferror(f) || len == CATALOG_FILE_BYTES) {
        (void)catalog_complain(to, "", "cannot be read, or has 4 MiB or more");
        goto out;
    }
    e = lay_text(c, name, text, len, to);
out:
    if (f != NULL)
        (void)fclose(f); /* read only: nothing can be lost */
    free(text);
    return e;
}

static int is_json_name(const struct dirent *d)
{
    size_t len = strlen(d->d_name);

    return len > 5 && d->d_name[0] != '.' && strcmp(d->d_name + len - 5, ".json") == 0;
}

static int by_dirent_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name); /* not alphasort: the locale must not decide what wins */
}

static enum err lay_folder(struct catalog *c, const char *dir, struct catalog_complaint *to)
{
    struct dirent **names = NULL;
    enum err e = ERR_OK;
    int count = scandir(dir, &names, is_json_name, by_dirent_name);

    to->file = dir;
    to->where = "folder";
    if (count < 0) {
        (void)catalog_complain(to, "", "cannot be read");
        return ERR_IO;
    }
    for (int i = 0; i < count; i++) {
        size_t size = strlen(dir) + strlen(names[i]->d_name) + 2;
        char *path = malloc(size);

        if (path == NULL) {
            e = e == ERR_OK ? ERR_NOMEM : e;
        } else if (e == ERR_OK) {
            (void)snprintf(path, size, "%s/%s", dir, names[i]->d_name);
            e = lay_file(c, path, names[i]->d_name, to);
            to->file = dir; /* the name goes now */
        }
        free(path);
        free(names[i]);
    }
    free(names);
    return e;
}

/* ---- documents -> structs */

static int64_t whole(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key)); /* 0 when absent; catalog_check.c saw to the type */
}

static const char *words(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

static void fill_operation(struct operation *op, const char *name, const struct catalog_provider *provider,
                           const json_t *doc)
{
    const json_t *submit = json_object_get(doc, "submit"), *poll = json_object_get(doc, "poll");
    const char *unknown = words(doc, "on_unknown");

    *op = (struct operation){
        .name = name,
        .provider = provider,
        .method = words(submit, "method"),
        .path = words(submit, "path"),
        .is_async = poll != NULL,
        .answers_bytes = strcmp(words(doc, "answer"), "file") == 0,
        .failed_is_free = json_is_true(json_object_get(doc, "failed_is_free")),
        .submit_timeout_ms = whole(submit, "timeout_ms"),
        .poll_timeout_ms = whole(poll, "timeout_ms"),
        .poll_first_ms = whole(poll, "first_ms"),
        .poll_every_ms = whole(poll, "every_ms"),
        .poll_grow_to_ms = whole(poll, "grow_to_ms"),
        .deadline_s = whole(doc, "deadline_s"),
        .output = words(doc, "output"),
        .max_result_bytes = whole(doc, "max_result_bytes"),
        .max_result_pixels = whole(doc, "max_result_pixels"),
        .doc = doc,
        .params = catalog_params_new(doc),
    };
    op->call = catalog_call(op, NULL); /* asked of every request several times */
    op->has_one_call = json_object_get(doc, "calls") == NULL;
    if (unknown != NULL)
        op->on_unknown = strcmp(unknown, "retry") == 0 ? UNKNOWN_RETRY : UNKNOWN_FAIL;
    else
        op->on_unknown = catalog_dearest_call_microusd(doc) > UNKNOWN_RETRY_MICROUSD ? UNKNOWN_FAIL : UNKNOWN_RETRY;
}

/* New copies: what the environment says may change under us. */
static enum err read_environment(struct catalog_provider *p, const json_t *doc, const char *(*env)(const char *name),
                                 const struct catalog_complaint *to)
{
    const char *key = env != NULL && p->key_env != NULL ? env(p->key_env) : NULL;
    const char *url = env != NULL && p->base_url_env != NULL ? env(p->base_url_env) : NULL;
    const char *named = url != NULL && url[0] != '\0' ? p->base_url_env : "base_url";
    bool is_keyless = p->key_env == NULL && url != NULL && url[0] != '\0'; /* switched on by its address */
    char *copy;
    size_t len;

    if (url == NULL || url[0] == '\0')
        url = words(doc, "base_url");
    if (strncmp(url, "http://", 7) != 0 && strncmp(url, "https://", 8) != 0) {
        (void)catalog_complain(to, named, "must begin with http:// or https://");
        return ERR_ARGUMENT;
    }
    len = strcspn(url, "\r\n"); /* a file's first line */
    while (len > 8 && url[len - 1] == '/')
        len--;
    copy = malloc(len + 1);
    if (copy == NULL)
        return ERR_NOMEM;
    memcpy(copy, url, len);
    copy[len] = '\0';
    p->base_url = copy;
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)copy[i] <= ' ' || copy[i] == 0x7f || copy[i] == '?' || copy[i] == '#') {
            (void)catalog_complain(to, named, "must be a URL without blanks, query or fragment");
            return ERR_ARGUMENT;
        }
    }
    if (is_keyless)
        p->key = "";
    else if (key != NULL && !catalog_keys_read(p, key, to))
        return ERR_ARGUMENT;
    return ERR_OK;
}

/* What the provider says for all of its operations, where an operation does not say it itself. */
static int inherit(json_t *op, const json_t *doc)
{
    static const char *const names[] = { "reads", "errors" };
    int rc = 0;

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        json_t *value = json_object_get(doc, names[i]);

        if (value != NULL && json_object_get(op, names[i]) == NULL)
            rc |= json_object_set(op, names[i], value);
    }
    return rc;
}

static enum err fill_provider(struct catalog *c, const char *name, json_t *doc, const char *(*env)(const char *name),
                              struct catalog_complaint *to)
{
    struct catalog_provider *p = &c->providers[c->provider_count];
    const json_t *auth, *lane, *budget, *operations, *shared = json_object_get(doc, "shared");
    const char *op_name;
    json_t *op;
    enum err e;

    to->file = origin_of(c, name);
    to->where = name;
    if (!catalog_check_provider(to, c->schema, doc))
        return ERR_ARGUMENT;
    auth = json_object_get(doc, "auth");
    lane = json_object_get(doc, "lane");
    budget = json_object_get(lane, "budget");
    operations = json_object_get(doc, "operations");
    *p = (struct catalog_provider){
        .name = name,
        .adapter = words(doc, "adapter") != NULL ? words(doc, "adapter") : name,
        .doc = doc,
        .base_url_env = words(doc, "base_url_env"),
        .key_env = words(doc, "key_env"),
        .auth_header = words(auth, "header"),
        .auth_prefix = words(auth, "prefix"),
        .concurrency = whole(lane, "concurrency"),
        .budget_count = whole(budget, "count"),
        .budget_window_ms = whole(budget, "window_ms"),
    };
    c->provider_count++;
    e = read_environment(p, doc, env, to);
    if (e != ERR_OK)
        return e;
    json_object_foreach((json_t *)operations, op_name, op)
    {
        json_t *price = json_object_get(op, "price");

        to->file = origin_of(c, op_name);
        to->where = op_name;
        if (!json_is_object(op)) {
            (void)catalog_complain(to, "", "must be an object");
            return ERR_ARGUMENT;
        }
        e = catalog_resolve_likes(to, shared, json_object_get(op, "params"));
        if (e != ERR_OK)
            return e;
        if (!catalog_check_operation(to, c->schema, op))
            return ERR_ARGUMENT;
        if (inherit(op, doc) != 0)
            return ERR_NOMEM;
        if (json_object_get(price, "version") == NULL &&
            json_object_set(price, "version", json_object_get(doc, "price_version")) != 0)
            return ERR_NOMEM;
        fill_operation(&c->operations[c->operation_count++], op_name, p, op);
        if (c->operations[c->operation_count - 1].params == NULL)
            return ERR_NOMEM;
    }
    return ERR_OK;
}

static int by_operation_name(const void *a, const void *b)
{
    return strcmp(((const struct operation *)a)->name, ((const struct operation *)b)->name);
}

static enum err fill(struct catalog *c, const char *(*env)(const char *name), struct catalog_complaint *to)
{
    size_t operations = 0;
    const char *name;
    json_t *doc;

    json_object_foreach(c->docs, name, doc) operations += json_object_size(json_object_get(doc, "operations"));
    c->providers = calloc(json_object_size(c->docs) + 1, sizeof *c->providers);
    c->operations = calloc(operations + 1, sizeof *c->operations);
    if (c->providers == NULL || c->operations == NULL)
        return ERR_NOMEM;
    json_object_foreach(c->docs, name, doc)
    {
        enum err e = fill_provider(c, name, doc, env, to);

        if (e != ERR_OK)
            return e;
    }
    qsort(c->operations, c->operation_count, sizeof *c->operations, by_operation_name);
    for (size_t i = 1; i < c->operation_count; i++) {
        if (strcmp(c->operations[i - 1].name, c->operations[i].name) == 0) {
            to->where = c->operations[i].name;
            to->file = origin_of(c, to->where);
            (void)catalog_complain(to, "", "two providers have an operation of this name");
            return ERR_ARGUMENT;
        }
    }
    return ERR_OK;
}

static int64_t deadlines_of(const struct catalog *c, const json_t *legs)
{
    int64_t sum_s = 0;

    for (size_t i = 0; i < json_array_size(legs); i++) {
        const struct operation *op = catalog_find(c, json_text(json_array_get(legs, i), "operation"));

        sum_s += op != NULL ? op->deadline_s : 0; /* one may have to be waited for after the other */
    }
    return sum_s;
}

static enum err fill_routes(struct catalog *c, struct catalog_complaint *to)
{
    static const struct catalog_provider stand_in = { .name = "", .adapter = "" };
    struct catalog_route *route;
    const char *name;
    json_t *doc;

    c->routes = calloc(json_object_size(c->route_docs) + 1, sizeof *c->routes);
    if (c->routes == NULL)
        return ERR_NOMEM;
    json_object_foreach(c->route_docs, name, doc)
    {
        to->file = origin_of(c, name);
        to->where = name;
        if (catalog_find(c, name) != NULL) {
            (void)catalog_complain(to, "", "is an operation's name already");
            return ERR_ARGUMENT;
        }
        route = &c->routes[c->route_count++];
        *route = (struct catalog_route){
            .vocabulary = { .name = name,
                            .provider = &stand_in,
                            .output = words(doc, "output"),
                            .deadline_s = deadlines_of(c, json_object_get(doc, "legs")),
                            .doc = doc },
            .doc = doc,
        };
        if (!catalog_schema_fits(to, c->schema, "route", doc) || !catalog_check_route(to, c, route))
            return ERR_ARGUMENT;
        route->vocabulary.params = catalog_params_new(doc);
        if (route->vocabulary.params == NULL)
            return ERR_NOMEM;
    }
    return ERR_OK;
}

enum err catalog_load(const char *overlay_dir, const char *(*env)(const char *name), struct catalog **out,
                      char *problem, size_t problem_size)
{
    char nowhere[1];
    struct catalog_complaint to = { problem_size > 0 ? problem : nowhere, problem_size, "catalog", "" };
    struct catalog *c = calloc(1, sizeof *c);
    enum err e = ERR_NOMEM;

    to.text[0] = '\0';
    if (c == NULL)
        goto out;
    c->schema = json_parse(embedded_catalog_schema[0].text, embedded_catalog_schema[0].len, NULL);
    c->docs = json_object();
    c->origins = json_object();
    c->templates = json_object();
    c->route_docs = json_object();
    if (c->schema == NULL || c->docs == NULL || c->origins == NULL || c->templates == NULL || c->route_docs == NULL)
        goto out;
    e = ERR_OK;
    for (size_t i = 0; e == ERR_OK && i < embedded_catalog_count; i++)
        e = lay_text(c, embedded_catalog[i].name, embedded_catalog[i].text, embedded_catalog[i].len, &to);
    if (e == ERR_OK && overlay_dir != NULL && overlay_dir[0] != '\0')
        e = lay_folder(c, overlay_dir, &to);
    if (e == ERR_OK)
        e = fill(c, env, &to);
    if (e == ERR_OK)
        e = fill_routes(c, &to);
out:
    if (e == ERR_OK) {
        *out = c;
        return ERR_OK;
    }
    if (to.text[0] == '\0')
        (void)catalog_complain(&to, "", "%s", err_text(e));
    catalog_free(c);
    return e;
}

void catalog_free(struct catalog *c)
{
    if (c == NULL)
        return;
    for (size_t i = 0; i < c->provider_count; i++) {
        catalog_keys_free(&c->providers[i]);
        free((char *)c->providers[i].base_url);
    }
    for (size_t i = 0; i < c->operation_count; i++)
        catalog_params_free(c->operations[i].params);
    for (size_t i = 0; i < c->route_count; i++)
        catalog_params_free(c->routes[i].vocabulary.params);
    free(c->providers);
    free(c->operations);
    json_decref(c->schema);
    json_decref(c->docs);
    json_decref(c->origins);
    json_decref(c->templates);
    json_decref(c->route_docs);
    free(c->routes);
    free(c);
}

/* ---- looking things up */

size_t catalog_count(const struct catalog *c)
{
    return c->operation_count;
}

const struct operation *catalog_at(const struct catalog *c, size_t i)
{
    return i < c->operation_count ? &c->operations[i] : NULL;
}

const struct operation *catalog_find(const struct catalog *c, const char *name)
{
    struct operation key = { .name = name };

    if (name == NULL || c->operation_count == 0)
        return NULL;
    return bsearch(&key, c->operations, c->operation_count, sizeof key, by_operation_name);
}

size_t catalog_provider_count(const struct catalog *c)
{
    return c->provider_count;
}

const struct catalog_provider *catalog_provider_at(const struct catalog *c, size_t i)
{
    return i < c->provider_count ? &c->providers[i] : NULL;
}

size_t catalog_route_count(const struct catalog *c)
{
    return c->route_count;
}

const struct catalog_route *catalog_route_at(const struct catalog *c, size_t i)
{
    return i < c->route_count ? &c->routes[i] : NULL;
}

const struct catalog_route *catalog_route_find(const struct catalog *c, const char *name)
{
    for (size_t i = 0; name != NULL && i < c->route_count; i++) {
        if (strcmp(c->routes[i].vocabulary.name, name) == 0)
            return &c->routes[i];
    }
    return NULL;
}

const json_t *catalog_templates(const struct catalog *c)
{
    return c->templates;
}

const struct catalog_provider *catalog_provider_find(const struct catalog *c, const char *name)
{
    for (size_t i = 0; name != NULL && i < c->provider_count; i++) {
        if (strcmp(c->providers[i].name, name) == 0)
            return &c->providers[i];
    }
    return NULL;
}
