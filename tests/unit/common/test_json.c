/* test_json.c - what is refused, and what providers call a number. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/json.h"

static json_t *parse(const char *s)
{
    return json_parse(s, strlen(s), NULL);
}

Test(json, refuses_what_is_ambiguous_or_too_deep)
{
    static const char *const bad[] = { "",        "{",    "{\"a\":1,\"a\":2}", "{\"a\":1,\"\\u0061\":2}",
                                       "{} x",    "[1,]", "\"\\u0000\"",       "NaN",
                                       "\"\xff\"" };
    struct json_fault fault;
    char deep[80];

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        fault.message[0] = 0;
        cr_expect_null(json_parse(bad[i], strlen(bad[i]), &fault), "%s", bad[i]);
        cr_expect(strlen(fault.message) > 0);
    }
    memset(deep, '[', 33);
    memset(deep + 33, ']', 33);
    cr_expect_null(json_parse(deep, 66, &fault));
    cr_expect_str_eq(fault.message, "nested deeper than 32");
    json_t *ok = json_parse(deep + 1, 64, &fault);
    cr_expect_not_null(ok);
    json_decref(ok);
    ok = parse("[\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\\\"{{\"]");
    cr_expect_not_null(ok, "brackets within text are no depth");
    json_decref(ok);
}

Test(json, prints_equal_values_as_equal_text)
{
    json_t *v = parse("{\"b\": 0.1, \"a\": [1, 2.50, true, null, \"\\u00fc\"]}");
    struct buf b = { 0 };
    char *s = json_print(v);

    cr_expect_str_eq(s, "{\"a\":[1,2.5,true,null,\"\xc3\xbc\"],\"b\":0.1}");
    cr_expect(json_print_to(&b, v));
    cr_expect_str_eq(b.data, s);
    buf_done(&b);
    free(s);
    json_decref(v);
}

Test(json, prints_what_jansson_prints)
{
    static const char *const texts[] = {
        "{}",
        "[]",
        "[[],{}]",
        "-9223372036854775808",
        "9223372036854775807",
        "0",
        "-0.0",
        "1e300",
        "0.1",
        "1e-7",
        "\"\\u0001\\u001f\\b\\f\\n\\r\\t\\\"\\\\/\x7f\"",
        "{\"\\n\":\"\xf0\x9f\x98\x80\",\"\":null,\"B\":false,\"a\":true}",
    };
    char many[2000] = "{";

    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        json_t *v = parse(texts[i]);
        char *ours = json_print(v);
        char *theirs = json_dumps(v, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));

        cr_expect_str_eq(ours, theirs, "%s", texts[i]);
        free(ours);
        free(theirs);
        json_decref(v);
    }
    for (int i = 0; i < 100; i++) /* more members than are sorted on the stack */
        (void)snprintf(many + strlen(many), 20, "%s\"k%d\":%d", i ? "," : "", i * 7 % 100, i);
    json_t *v = parse(strcat(many, "}"));
    char *ours = json_print(v), *theirs = json_dumps(v, JSON_COMPACT | JSON_SORT_KEYS);
    struct buf unsorted = { 0 };
    cr_expect_str_eq(ours, theirs);
    cr_expect(json_write_to(&unsorted, v));
    cr_expect_str_eq(unsorted.data, many, "for answers: in the order they were put");
    buf_done(&unsorted);
    free(ours);
    free(theirs);
    json_decref(v);
}

Test(json, reads_numbers_the_way_providers_write_them)
{
    json_t *v = parse("{\"i\":7,\"s\":\"12\",\"r\":12.0,\"h\":1.5,\"hs\":\"1.5\",\"t\":\"x\",\"n\":null,\"b\":true,"
                      "\"big\":1e300}");
    int64_t n = -1;
    double d = 0;

    cr_expect(json_int(v, "i", &n) && n == 7);
    cr_expect(json_int(v, "s", &n) && n == 12);
    n = 0;
    cr_expect(json_int(v, "r", &n) && n == 12);
    cr_expect(json_number(v, "hs", &d) && d == 1.5);
    n = 99;
    static const char *const none[] = { "h", "hs", "t", "n", "b", "big", "absent" };
    for (size_t i = 0; i < ARRAY_LEN(none); i++)
        cr_expect(!json_int(v, none[i], &n) && n == 99, "%s", none[i]);
    cr_expect(json_bool(v, "b", false) && json_bool(v, "n", true) && !json_bool(v, "absent", false));
    cr_expect_str_eq(json_text(v, "t"), "x");
    cr_expect_null(json_text(v, "i"));
    cr_expect_null(json_text(NULL, "i"));
    json_decref(v);
}

Test(json, credits_are_numbers_with_what_decimals_they_need)
{
    static const struct {
        int64_t mc;
        const char *text;
    } table[] = { { 0, "0" },       { 12500, "12.5" },   { 1, "0.001" },
                  { -300, "-0.3" }, { 1000000, "1000" }, { 123456789, "123456.789" } };
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        json_t *v = json_credits(table[i].mc);
        char *s = json_print(v);
        cr_expect_str_eq(s, table[i].text);
        free(s);
        json_decref(v);
    }
}

Test(json, bad_text_is_cleaned_and_no_text_is_null)
{
    json_t *v = json_object();
    cr_expect_eq(json_set_text(v, "a", "x\xffy"), 0);
    cr_expect_eq(json_set_text(v, "b", NULL), 0);
    cr_expect_str_eq(json_text(v, "a"), "x\xef\xbf\xbdy");
    cr_expect(json_is_null(json_object_get(v, "b")));
    json_decref(v);
}
