/* operations.c - kiln operations: what can be asked for, at what price, with which parameters. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/json.h"
#include "dispatcher/client/api.h"
#include "dispatcher/client/client.h"
#include "dispatcher/client/show.h"

/* A route costs what the provider costs that serves it. */
static const char *price_of(const json_t *op)
{
    return json_object_get(op, "legs") ? "by provider" : json_text(json_object_get(op, "price"), "text");
}

static void operations_list(const json_t *list)
{
    struct table t = { .heads = { "OPERATION", "PRICE", "", "WHAT IT DOES" } };
    size_t i;
    json_t *one;

    json_array_foreach(json_object_get(list, "data"), i, one)
    {
        table_add(&t, json_text(one, "name"));
        table_add(&t, price_of(one));
        table_add(&t, json_bool(one, "configured", true) ? "" : "no key");
        table_add(&t, json_text(one, "description"));
    }
    table_print(&t, stdout);
}

static void add_value(struct buf *out, const json_t *value)
{
    char *text = json_is_string(value) ? NULL : show_json_text(value, false);

    (void)show_clean(out, json_is_string(value) ? json_string_value(value) : text);
    free(text);
}

/* "high or auto" */
static void add_values(struct buf *out, const json_t *value)
{
    size_t i;
    json_t *one;

    if (!json_is_array(value))
        add_value(out, value);
    json_array_foreach((json_t *)value, i, one)
    {
        (void)buf_str(out, i > 0 ? " or " : "");
        add_value(out, one);
    }
}

/* "one of 1:1, 3:2", "1 to 10", "a file" */
static void operations_choices(struct buf *out, const json_t *schema)
{
    const json_t *choices = json_object_get(schema, "enum"), *min = json_object_get(schema, "minimum"),
                 *max = json_object_get(schema, "maximum"), *length = json_object_get(schema, "maxLength");
    const char *type = json_text(schema, "type"), *format = json_text(schema, "format");
    size_t i;
    json_t *one;

    if (format && strcmp(format, "kiln-file") == 0) {
        (void)buf_str(out, type && strcmp(type, "array") == 0 ? "files" : "file");
        return;
    }
    json_array_foreach((json_t *)choices, i, one)
    {
        (void)buf_str(out, i > 0 ? " | " : "");
        add_value(out, one);
    }
    if (i > 0)
        return;
    (void)show_clean(out, type ? type : "any");
    if (min || max) {
        (void)buf_str(out, " ");
        add_value(out, min);
        (void)buf_str(out, max ? " to " : " or more");
        if (max)
            add_value(out, max);
    }
    if (length) {
        (void)buf_str(out, ", at most ");
        add_value(out, length);
        (void)buf_str(out, " characters");
    }
}

static bool is_required(const json_t *schema, const char *name)
{
    size_t i;
    json_t *one;

    json_array_foreach(json_object_get(schema, "required"), i, one)
    {
        if (json_is_string(one) && strcmp(json_string_value(one), name) == 0)
            return true;
    }
    return false;
}

/* `text` in lines of at most so many columns, broken at blanks, indented. Text is clean already. */
static void print_wrapped(const char *text, int indent, size_t columns)
{
    size_t column = 0;

    while (*text) {
        size_t word = strcspn(text, " ");
        if (column == 0 || column + 1 + word > columns) {
            printf("%s%*s", column ? "\n" : "", indent, "");
            column = 0;
        } else {
            printf(" ");
            column++;
        }
        printf("%.*s", (int)word, text);
        column += word;
        text += word;
        text += strspn(text, " ");
    }
    printf("\n");
}

static void operations_params(const json_t *schema)
{
    const char *name;
    json_t *one;

    printf("\nParameters\n");
    json_object_foreach(json_object_get(schema, "properties"), name, one)
    {
        struct buf line = { 0 };
        const json_t *fallback = json_object_get(one, "default");

        printf("  %s", show_style(stdout, STYLE_BOLD));
        show_text(stdout, name);
        printf("%s%s", show_style(stdout, STYLE_PLAIN), is_required(schema, name) ? "  required" : "");
        if (fallback) {
            add_value(&line, fallback);
            printf("  default %s", line.data ? line.data : "");
            buf_done(&line);
        }
        printf("\n");
        operations_choices(&line, one);
        print_wrapped(line.data ? line.data : "", 6, 90);
        buf_done(&line);
        (void)show_clean(&line, json_text(one, "description"));
        if (line.data && *line.data)
            print_wrapped(line.data, 6, 90);
        buf_done(&line);
    }
}

static void operations_prices(const json_t *price)
{
    struct table t = { .heads = { "   CREDITS", "WHEN" }, .right = 1 };
    size_t i;
    json_t *one;
    char credits[40], most[32];

    json_array_foreach(json_object_get(price, "table"), i, one)
    {
        const json_t *when = json_object_get(one, "when");
        const char *name;
        struct buf line = { 0 };
        json_t *value;

        show_credits(credits, sizeof credits - 1, json_object_get(one, "credits"));
        if (json_object_get(one, "credits_at_most"))
            (void)snprintf(credits, sizeof credits, "up to %s",
                           show_credits(most, sizeof most, json_object_get(one, "credits_at_most")));
        json_object_foreach((json_t *)when, name, value)
        {
            (void)buf_printf(&line, "%s%s = ", line.len > 0 ? ", " : "", name);
            add_values(&line, value);
        }
        table_add(&t, credits);
        table_add(&t, line.data ? line.data : "");
        buf_done(&line);
    }
    if (i > 1) {
        printf("\nPrices\n");
        table_print(&t, stdout);
    }
    buf_done(&t.cells);
}

static void operations_legs(const json_t *legs)
{
    struct table t = { .heads = { "   PROVIDER", "OPERATION", "PRICE", "" } };
    size_t i;
    json_t *one;
    char name[80];

    json_array_foreach(legs, i, one)
    {
        (void)snprintf(name, sizeof name, "   %s", json_text(one, "provider"));
        table_add(&t, name);
        table_add(&t, json_text(one, "operation"));
        table_add(&t, json_text(json_object_get(one, "price"), "text"));
        table_add(&t, json_bool(one, "configured", true) ? "" : "no key");
    }
    if (i > 0) {
        printf("\nProviders\n");
        table_print(&t, stdout);
    }
    buf_done(&t.cells);
}

static void operations_one(const json_t *op)
{
    double typical = 0;
    struct buf line = { 0 };

    printf("%s", show_style(stdout, STYLE_BOLD));
    show_text(stdout, json_text(op, "name"));
    printf("%s%s\n", show_style(stdout, STYLE_PLAIN),
           json_bool(op, "configured", true) ? "" : "  (its provider has no key here, so it is refused)");
    (void)show_clean(&line, json_text(op, "description"));
    if (line.data)
        print_wrapped(line.data, 2, 94);
    buf_done(&line);
    printf("  ");
    show_text(stdout, price_of(op));
    if (json_number(op, "typical_s", &typical))
        printf("; typically %.3g s", typical);
    printf("\n");
    operations_params(json_object_get(op, "params"));
    operations_prices(json_object_get(op, "price"));
    operations_legs(json_object_get(op, "legs"));
}

int operations_show(struct client *c)
{
    struct arena *arena = arena_new(4096);
    struct api_call call = { .method = "GET", .path = "/v1/operations" };
    struct api_reply r = { .err = ERR_NOMEM };
    int status = CLIENT_UNREACHABLE;

    if (arena && c->word_count > 0)
        call.path = arena_printf(arena, "/v1/operations/%s", url_segment(arena, c->words[0]));
    if (arena && call.path) {
        r = api_ask(c->api, &call);
        if (r.err == ERR_OK && r.status == 404 && json_text(r.json, "code") && !c->is_json) {
            show_error("there is no operation %s; `kiln operations` lists them", c->word_count ? c->words[0] : "");
            status = CLIENT_REFUSED;
        } else {
            status = api_refused(c->api, &r, c->is_json);
        }
    }
    if (status == CLIENT_DONE && c->is_json)
        show_json(r.json);
    else if (status == CLIENT_DONE && c->word_count > 0)
        operations_one(r.json);
    else if (status == CLIENT_DONE)
        operations_list(r.json);
    api_reply_done(&r);
    arena_free(arena);
    return status;
}
