/* test_json.c - what is refused, what providers call a number, and that we read and print what jansson does. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/json.h"
#include "common/base/json_fast.h"

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

/* ---- json_fast.c against jansson. The bytes lie at the end of their memory, so that a look beyond is seen. */

static bool same_value(const json_t *a, const json_t *b) /* in the same order, too */
{
    char *texts[2] = { json_dumps(a, JSON_ENCODE_ANY), json_dumps(b, JSON_ENCODE_ANY) };
    bool ok = a && b && json_equal(a, b) && texts[0] && texts[1] && strcmp(texts[0], texts[1]) == 0;

    free(texts[0]);
    free(texts[1]);
    return ok;
}

static bool agree(const char *text, size_t len)
{
    enum { FLAGS = JSON_REJECT_DUPLICATES | JSON_DECODE_ANY };
    char *exact = malloc(len + 1);
    json_error_t error = { 0 };
    struct json_fault fault = { "" }, expected = { "" };
    json_t *ours, *theirs, *answer, *their_answer;
    bool ok;

    cr_assert_not_null(exact);
    memcpy(exact + 1, text, len);
    ours = json_parse(exact + 1, len, &fault);
    theirs = json_loadb(exact + 1, len, FLAGS, &error);
    answer = json_parse_answer(exact + 1, len);
    their_answer = json_loadb(exact + 1, len, FLAGS | JSON_ALLOW_NUL, NULL);
    if (!theirs) {
        (void)snprintf(expected.message, sizeof expected.message, "line %d, column %d: %.120s", error.line,
                       error.column, error.text);
        text_plain(expected.message);
    }
    ok = theirs ? same_value(ours, theirs) : !ours && strcmp(fault.message, expected.message) == 0;
    ok = ok && (their_answer ? same_value(answer, their_answer) : !answer);
    json_decref(ours);
    json_decref(theirs);
    json_decref(answer);
    json_decref(their_answer);
    free(exact);
    return ok;
}

static const char *const ordinary[] = {
    "{\"account\":\"default\",\"inputs\":null,\"params\":{\"prompt\":\"a red fox, \\\"quick\\\"\",\"n\":1},\"x\":[]}",
    " { \"b\" : [ 1 , -2,\r\n\t0 , -0 ] , \"a\" : { } , \"\" : \"\" }\n",
    "[true,false,null,[[]],{}]",
    "true",
    "\"\"",
    "0",
    "-7",
    "999999999999999999",
    "-999999999999999999",
    "9223372036854775807",
    "-9223372036854775808",
    "[0.1,-0.0,1e5,1E+2,2.50e-7,123456789012345678.5,5e-324,1e-400]",
    "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"",
    "\"\\u4e00\\u53EA and \\ud83d\\uDE00, \\u007f\\u0080\\u07ff\\u0800\\uffff\\u0001\"",
    "\"\xe4\xb8\x80\xe5\x8f\xaa\xe7\xba\xa2\xe8\x89\xb2\xe7\x9a\x84\xf0\x9f\xa6\x8a, \xc3\xbc \x7f\"",
    "{\"\xe4\xb8\x80\":1,\"z\":2,\"a\":3,\"m\":4,\"k1\":5,\"k2\":6,\"k3\":7,\"k4\":8,\"k5\":9,\"k6\":10}",
};

static const char *const unusual[] = {
    /* jansson's: those it takes, then those that it refuses */
    "{\"\\u0061\":1}",
    "{\"a\\n\":1,\"b\":2}",
    "[\"\\u0000\"]",
    "{\"a\":1,\"b\":{\"a\":1},\"a\":2}",
    "{\"a\":1,\"\\u0061\":2}",
    "{\"a\\u0000b\":1}",
    "",
    " ",
    "\xef\xbb\xbf{}",
    "{} x",
    "{}{}",
    "[1,]",
    "{\"a\":1,}",
    "{\"a\"}",
    "{\"a\":}",
    "{a:1}",
    "{1:2}",
    "[1 2]",
    "[,1]",
    "[\"a\"",
    "\"a",
    "\"a\\",
    "\"a\\u12",
    "tru",
    "truex",
    "True",
    "nul",
    "NaN",
    "-",
    "+1",
    "01",
    "-01",
    "00",
    "1.",
    ".5",
    "1e",
    "1e+",
    "1.5.2",
    "1-2",
    "0x10",
    "9223372036854775808",
    "-9223372036854775809",
    "1e400",
    "[1e400]",
    "\"\\x\"",
    "\"\\u12g4\"",
    "\"\\ud800\"",
    "\"\\ud800x\"",
    "\"\\ud800\\n\"",
    "\"\\ud800\\u0041\"",
    "\"\\udc00\\ud800\"",
    "\"a\nb\"",
    "\"a\tb\"",
    "/* */ {}",
    "{]",
    "[}",
};

Test(json, reads_what_jansson_reads_and_refuses_in_its_words)
{
    for (size_t i = 0; i < ARRAY_LEN(ordinary); i++) {
        json_t *fast = json_fast(ordinary[i], strlen(ordinary[i]));

        cr_expect_not_null(fast, "%s: the short way", ordinary[i]);
        cr_expect(agree(ordinary[i], strlen(ordinary[i])), "%s", ordinary[i]);
        json_decref(fast);
    }
    for (size_t i = 0; i < ARRAY_LEN(unusual); i++) {
        cr_expect_null(json_fast(unusual[i], strlen(unusual[i])), "%s: the long way", unusual[i]);
        cr_expect(agree(unusual[i], strlen(unusual[i])), "%s", unusual[i]);
    }
    cr_expect(agree("{}\0", 3) && agree("\0", 1) && agree("[\0]", 3) && agree("\"a\0b\"", 5), "NUL ends nothing");
}

Test(json, agrees_with_jansson_whatever_byte_stands_where_and_wherever_it_is_cut)
{
    char text[400];

    for (size_t i = 0; i < ARRAY_LEN(ordinary); i++) {
        size_t len = strlen(ordinary[i]);

        memcpy(text, ordinary[i], len);
        for (size_t at = 0; at < len; at++) {
            cr_expect(agree(text, at), "the first %zu of %s", at, ordinary[i]);
            for (int byte = 0; byte < 256; byte++) {
                text[at] = (char)byte;
                cr_expect(agree(text, len), "%d at %zu of %s", byte, at, ordinary[i]);
            }
            text[at] = ordinary[i][at];
        }
    }
}

Test(json, agrees_with_jansson_on_each_escape_and_on_where_utf8_ends)
{
    static const unsigned char leads[] = { 0x7f, 0x80, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1,
                                           0xec, 0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5 };
    static const unsigned char rests[] = { '"', 'a', 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0 };
    static const unsigned pairs[] = { 0, 0x41, 0xd7ff, 0xd800, 0xdbff, 0xdc00, 0xdfff, 0xe000, 0xffff };
    char text[40];

    for (unsigned c = 0; c <= 0xffff; c++) {
        (void)snprintf(text, sizeof text, "\"\\u%04x\"", c);
        cr_expect(agree(text, strlen(text)), "%s", text);
    }
    for (size_t i = 0; i < ARRAY_LEN(pairs) * ARRAY_LEN(pairs); i++) {
        (void)snprintf(text, sizeof text, "\"a\\u%04X\\u%04xb\"", pairs[i % ARRAY_LEN(pairs)],
                       pairs[i / ARRAY_LEN(pairs)]);
        cr_expect(agree(text, strlen(text)), "%s", text);
    }
    for (size_t i = 0; i < ARRAY_LEN(leads) * 1000; i++) { /* each lead with each three of the rests */
        char bytes[] = {
            '"', (char)leads[i / 1000], (char)rests[i % 10], (char)rests[i / 10 % 10], (char)rests[i / 100 % 10], '"'
        };
        cr_expect(agree(bytes, sizeof bytes), "%zu", i);
    }
}

Test(json, agrees_with_jansson_on_numbers_of_all_lengths)
{
    static const char digits[] = "9007199254740993182818284590";
    static const char *const signs[] = { "", "-" }, *const ends[] = { "", "e0", "E-3", "e+22", "0", "." };
    char text[80];

    for (size_t i = 0; i < ARRAY_LEN(signs) * ARRAY_LEN(ends) * 26 * 26; i++) {
        const char *sign = signs[i % 2], *end = ends[i / 2 % ARRAY_LEN(ends)];
        int whole = (int)(i / 12 % 26), part = (int)(i / 12 / 26);

        (void)snprintf(text, sizeof text, "[%s%.*s%s%.*s%s]", sign, whole, digits, part ? "." : "", part, digits + 1,
                       end);
        cr_expect(agree(text, strlen(text)), "%s", text);
    }
    for (int i = 0; i < 30000; i++) { /* short reals, which are divided here and not read by strtod() */
        (void)snprintf(text, sizeof text, "%.*f", i % 15, (i % 2 ? -1 : 1) * (double)i * 1.000731 / (1 + i % 977));
        cr_expect(agree(text, strlen(text)), "%s", text);
    }
}

Test(json, the_deepest_is_as_deep_on_either_way)
{
    struct json_fault fault;
    char deep[200];

    for (size_t depth = 1; depth <= 34; depth++) {
        size_t len = 0;

        for (size_t i = 0; i < depth; i++)
            len += (size_t)snprintf(deep + len, 8, i % 2 ? "{\"a\":" : "[");
        deep[len++] = '1';
        for (size_t i = depth; i-- > 0;)
            deep[len++] = i % 2 ? '}' : ']';
        json_t *fast = json_fast(deep, len), *value = json_parse(deep, len, &fault);
        cr_expect((fast != NULL) == (depth <= JSON_MAX_DEPTH) && (value != NULL) == (depth <= JSON_MAX_DEPTH));
        if (!value)
            cr_expect_str_eq(fault.message, "nested deeper than 32");
        json_decref(fast);
        json_decref(value);
    }
}

Test(json, what_does_not_fit_is_refused_wherever_it_ends)
{
    json_t *v = parse(ordinary[0]);
    char *whole = json_print(v);

    for (size_t ceiling = 1; ceiling <= strlen(whole); ceiling++) {
        struct buf b = { .ceiling = ceiling };
        bool fits = ceiling == strlen(whole);

        cr_expect_eq(json_print_to(&b, v), fits, "%zu", ceiling);
        cr_expect(b.len <= ceiling && b.is_full == !fits, "%zu", ceiling);
        buf_done(&b);
    }
    free(whole);
    json_decref(v);
}
