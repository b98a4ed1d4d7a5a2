/* fuzz_json.c - any bytes as JSON: what is taken is bounded, printing and reading again changes nothing, and json_parse
 * takes what jansson takes but for what is too deep, as the same values in the same order, and refuses in its words. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/json.h"
#include "tests/fuzz/fuzz.h"

static int depth_of(const json_t *value)
{
    int deepest = 0, depth;
    const char *key;
    json_t *one;
    size_t i;

    json_array_foreach((json_t *)(uintptr_t)value, i, one)
    {
        depth = depth_of(one);
        deepest = depth > deepest ? depth : deepest;
    }
    json_object_foreach((json_t *)(uintptr_t)value, key, one)
    {
        depth = depth_of(one);
        deepest = depth > deepest ? depth : deepest;
    }
    return deepest + (json_is_array(value) || json_is_object(value));
}

static void same_as_jansson(const char *data, size_t size, const json_t *ours, const char *said, size_t flags)
{
    json_error_t error = { 0 };
    json_t *theirs = json_loadb(data, size, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | flags, &error);
    char expected[sizeof((struct json_fault *)0)->message], *text, *their_text;

    if (ours) {
        FUZZ_CLAIM(theirs != NULL && json_equal(ours, theirs));
        text = json_dumps(ours, JSON_ENCODE_ANY);
        their_text = json_dumps(theirs, JSON_ENCODE_ANY);
        FUZZ_CLAIM(text != NULL && their_text != NULL && strcmp(text, their_text) == 0);
        free(text);
        free(their_text);
    } else {
        FUZZ_CLAIM(theirs == NULL || depth_of(theirs) > JSON_MAX_DEPTH);
        if (!theirs && said && strcmp(said, "nested deeper than 32") != 0) {
            (void)snprintf(expected, sizeof expected, "line %d, column %d: %.120s", error.line, error.column,
                           error.text);
            text_plain(expected);
            FUZZ_CLAIM(strcmp(said, expected) == 0);
        }
    }
    json_decref(theirs);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct json_fault fault = { "" };
    const char *bytes = size ? (const char *)data : "";
    json_t *value = json_parse(bytes, size, &fault), *again = json_parse_answer(bytes, size);
    char *text, *text_again, *theirs;
    int64_t whole;
    double number;

    same_as_jansson(bytes, size, value, fault.message, 0);
    same_as_jansson(bytes, size, again, NULL, JSON_ALLOW_NUL);
    json_decref(again);
    if (!value) {
        FUZZ_CLAIM(fault.message[0] != '\0');
        fuzz_clean_text(fault.message, sizeof fault.message - 1);
        return 0;
    }
    FUZZ_CLAIM(depth_of(value) <= JSON_MAX_DEPTH);
    text = json_print(value);
    FUZZ_CLAIM(text != NULL);
    theirs = json_dumps(value, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));
    FUZZ_CLAIM(theirs != NULL && strcmp(text, theirs) == 0); /* ours is jansson's text, made faster */
    free(theirs);
    again = json_parse(text, strlen(text), NULL);
    FUZZ_CLAIM(again != NULL);
    text_again = json_print(again);
    FUZZ_CLAIM(strcmp(text, text_again) == 0);
    if (json_int(value, "n", &whole) && json_number(value, "n", &number) && whole > -1000000 && whole < 1000000)
        FUZZ_CLAIM(number - (double)whole < 1 && (double)whole - number < 1);
    (void)json_bool(value, "n", false);
    free(text);
    free(text_again);
    json_decref(value);
    json_decref(again);
    return 0;
}
