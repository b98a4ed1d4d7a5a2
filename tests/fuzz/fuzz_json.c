/* fuzz_json.c - any bytes as JSON: what is taken is bounded, and printing and reading again changes nothing. */
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct json_fault fault = { "" };
    json_t *value = json_parse((const char *)data, size, &fault), *again;
    char *text, *text_again, *theirs;
    int64_t whole;
    double number;

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
