/* test_client_parts.c - what the command line is made of, without a server: arguments, values, names, harmless text. */
#include <stdlib.h>
#include <string.h>
#include <criterion/criterion.h>
#include "common/base/json.h"
#include "common/base/text.h"
#include "dispatcher/client/client.h"
#include "dispatcher/client/params.h"
#include "dispatcher/client/save.h"
#include "dispatcher/client/show.h"

Test(show, foreign_text_cannot_move_the_cursor_or_turn_the_line)
{
    static const struct {
        const char *in, *out;
    } table[] = {
        { "plain, with ü and 漢字", "plain, with ü and 漢字" },
        { "\x1b[31mred\x07", "\\u001b[31mred\\u0007" },
        { "two\nlines\tand\rback", "two\\nlines\\tand\\u000dback" },
        { "\xc2\x9b"
          "2J",
          "\\u009b2J" }, /* CSI in one character */
        { "a\xe2\x80\xae"
          "b",
          "a\\u202eb" },                                    /* right-to-left override */
        { "\xe2\x81\xa6x\xe2\x81\xa9", "\\u2066x\\u2069" }, /* isolates */
        { "\x7f\xef\xbb\xbf", "\\u007f\\ufeff" },           /* DEL, byte order mark */
        { "\xf3\xa0\x81\x81", "\\udb40\\udc41" },           /* a tag nobody sees */
        { "cut \xe6\xbc", "cut \\xe6\\xbc" },
        { "\xff\xc0\x80", "\\xff\\xc0\\x80" },
    };

    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        struct buf out = { 0 };
        cr_assert(show_clean(&out, table[i].in));
        cr_expect_str_eq(out.data, table[i].out);
        buf_done(&out);
    }
}

Test(show, json_is_harmless_and_still_the_same_json)
{
    static const char prompt[] = "\x1b]0;x\x07 \xc2\x9b \xe2\x80\xae \x7f \xf3\xa0\x81\x81 漢";
    json_t *value = json_pack("{s:s, s:f}", "prompt", prompt, "credits", 3.4), *again;
    char *text = show_json_text(value, false);

    cr_assert_not_null(text);
    for (const char *p = text; *p; p++)
        cr_expect((unsigned char)*p >= ' ' && *p != 0x7f, "byte %02x", (unsigned)(unsigned char)*p);
    cr_expect_null(strstr(text, "\xc2\x9b"));
    cr_expect_null(strstr(text, "\xe2\x80\xae"));
    cr_expect_not_null(strstr(text, "漢"));
    cr_expect_not_null(strstr(text, "3.4"), "%s", text);
    cr_expect_null(strstr(text, "3.39"));
    again = json_parse(text, strlen(text), NULL);
    cr_expect(json_equal(value, again), "%s", text);
    json_decref(again);
    free(text);
    json_decref(value);
}

Test(show, columns_stand_under_each_other)
{
    struct table t = { .heads = { "NAME", "N", "REST" }, .right = 1u << 1 };
    static const char *const cells[] = { "käse", "7", "x", "a", "1234", "long" };
    char text[256] = "";
    FILE *to = tmpfile();

    for (size_t i = 0; i < ARRAY_LEN(cells); i++)
        table_add(&t, cells[i]);
    table_print(&t, to);
    rewind(to);
    text[fread(text, 1, sizeof text - 1, to)] = '\0';
    cr_expect_str_eq(text, "NAME     N  REST\nkäse     7  x\na     1234  long\n");
    (void)fclose(to);
}

Test(show, small_values_read_well)
{
    char out[32];
    json_t *amount = json_real(3.4);

    cr_expect_str_eq(show_bytes(out, sizeof out, 999), "999 bytes");
    cr_expect_str_eq(show_bytes(out, sizeof out, 1124616), "1.1 MB");
    cr_expect_str_eq(show_bytes(out, sizeof out, 75974), "76 kB");
    cr_expect_str_eq(show_span(out, sizeof out, 3240), "3.2 s");
    cr_expect_str_eq(show_span(out, sizeof out, 125000), "2 min 5 s");
    cr_expect_str_eq(show_span(out, sizeof out, -1), "-");
    cr_expect_str_eq(show_credits(out, sizeof out, amount), "3.4");
    cr_expect_str_eq(show_credits(out, sizeof out, NULL), "-");
    cr_expect_eq(show_span_ms("2026-11-20T10:11:12.123Z", "2026-11-20T10:11:15.323Z"), 3200);
    cr_expect_eq(show_span_ms("2026-11-20T10:11:12.123Z", NULL), -1);
    json_decref(amount);
}

Test(params, a_word_means_what_the_schema_says)
{
    static const struct {
        const char *schema, *text, *json;
    } table[] = {
        { "{\"type\":\"integer\"}", "12", "12" },
        { "{\"type\":\"integer\"}", "1.5", "1.5" },     /* the dispatcher says what is wrong */
        { "{\"type\":\"integer\"}", "abc", "\"abc\"" }, /* here too */
        { "{\"type\":\"number\"}", "0.35", "0.35" },
        { "{\"type\":\"number\"}", "2", "2" },
        { "{\"type\":\"number\"}", "nan", "\"nan\"" },
        { "{\"type\":\"boolean\"}", "true", "true" },
        { "{\"type\":\"boolean\"}", "No", "false" },
        { "{\"type\":\"boolean\"}", "maybe", "\"maybe\"" },
        { "{\"type\":\"string\"}", "12", "\"12\"" }, /* a prompt of digits stays a prompt */
        { "{\"type\":\"string\"}", "true", "\"true\"" },
        { "{\"type\":\"string\"}", "", "\"\"" },
        { "{\"type\":\"array\",\"items\":{\"type\":\"integer\"}}", "3", "[3]" },
        { "{\"type\":\"array\",\"items\":{\"type\":\"string\"}}", "[\"a\",\"b\"]", "[\"a\",\"b\"]" },
        { "{\"type\":\"object\"}", "{\"a\":1}", "{\"a\":1}" },
        { "{\"type\":\"object\"}", "{", "\"{\"" },
        { "null", "12", "\"12\"" },
    };

    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        json_t *schema = json_loads(table[i].schema, JSON_DECODE_ANY, NULL),
               *value = params_value(schema, table[i].text), *want = json_loads(table[i].json, JSON_DECODE_ANY, NULL);
        cr_expect(json_equal(value, want), "%s as %s", table[i].text, table[i].schema);
        json_decref(schema);
        json_decref(value);
        json_decref(want);
    }
}

Test(save, several_results_are_numbered_before_the_dot)
{
    static const struct {
        const char *out;
        bool is_dir;
        size_t i, count;
        const char *name;
    } table[] = {
        { "a.png", false, 0, 1, "a.png" },
        { "a.png", false, 1, 3, "a-2.png" },
        { "dir.d/a", false, 0, 2, "dir.d/a-1" },
        { "x/.hidden", false, 0, 2, "x/.hidden-1" },
        { "dir", true, 0, 1, "dir/ID.webp" },
        { "dir/", true, 1, 2, "dir/ID-2.webp" },
        { "a.b/c.d.png", false, 2, 3, "a.b/c.d-3.png" },
    };

    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        char *name = save_name(table[i].out, table[i].is_dir, "ID", table[i].i, table[i].count, "webp");
        cr_expect_str_eq(name, table[i].name);
        free(name);
    }
}

static bool parse(struct client *c, const char *line, char message[256])
{
    static char copy[512];
    static char *argv[16];
    int argc = 0;

    *c = (struct client){ 0 };
    (void)snprintf(copy, sizeof copy, "%s", line);
    for (char *word = strtok(copy, " "); word; word = strtok(NULL, " "))
        argv[argc++] = word;
    message[0] = '\0';
    return args_parse(c, argc, argv, message, 256);
}

Test(args, options_stand_anywhere_behind_the_command)
{
    struct client c;
    char message[256];

    cr_assert(parse(&c, "submit --wait op a=1 -o out.png --json --image x.png --priority=-5 -- --b=2", message), "%s",
              message);
    cr_expect_str_eq(c.command->name, "submit");
    cr_expect(c.is_json);
    cr_expect_not_null(c.opts[OPT_WAIT]);
    cr_expect_str_eq(c.opts[OPT_OUT], "out.png");
    cr_expect_str_eq(c.opts[OPT_PRIORITY], "-5");
    cr_assert_eq(c.word_count, (size_t)4);
    cr_expect_str_eq(c.words[0], "op");
    cr_expect_str_eq(c.words[2], "image=@x.png");
    cr_expect_str_eq(c.words[3], "--b=2");
    args_done(&c);
    cr_assert(parse(&c, "key create --app a", message));
    cr_expect_str_eq(c.command->name, "key create");
    args_done(&c);
}

Test(args, wrong_usage_is_named)
{
    static const struct {
        const char *line, *says;
    } table[] = {
        { "sumbit x", "no command \"sumbit\"" },
        { "key", "key create, key list, key revoke" },
        { "get", "get takes JOB" },
        { "get a b", "get takes JOB" },
        { "list extra", "no operands" },
        { "list --wait", "list takes no --wait" },
        { "submit op --wait=1", "--wait takes no value" },
        { "submit op --account", "--account wants a value" },
        { "submit op --account a --account b", "--account is given twice" },
        { "submit op -x", "submit takes no -x" },
        { "submit", "submit takes OPERATION" },
    };
    struct client c;
    char message[256];

    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        cr_expect(!parse(&c, table[i].line, message), "%s", table[i].line);
        cr_expect_not_null(strstr(message, table[i].says), "%s: %s", table[i].line, message);
        args_done(&c);
    }
}
