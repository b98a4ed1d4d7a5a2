/* test_log.c - one line an event, whatever the values hold. */
#include <criterion/criterion.h>
#include <string.h>
#include "common/base/log.h"

static const char *line_of(const char *value)
{
    static char out[4096];
    const struct log_field f[] = { log_str("v", value) };
    (void)log_format(out, sizeof out, LOG_INFO, "e", f, 1);
    return out + strlen("level=info event=e v=");
}

Test(log, plain_words_stay_plain_and_the_rest_is_quoted)
{
    static const char *const table[][2] = {
        { "word", "word" },
        { "0193-ab/c.d:1@x", "0193-ab/c.d:1@x" },
        { "", "\"\"" },
        { "two words", "\"two words\"" },
        { "a=b", "\"a=b\"" },
        { "say \"hi\" \\", "\"say \\\"hi\\\" \\\\\"" },
        { "x\nlevel=error event=forged", "\"x\\nlevel=error event=forged\"" },
        { "\x1b[31m", "\"\\u001b[31m\"" },
        { "\x7f", "\"\\u007f\"" },
        { "\xc2\x9b"
          "2J",
          "\"\\u009b2J\"" },
        { "\xe2\x80\xae"
          "gnp",
          "\"\\u202egnp\"" },
        { "\xe2\x81\xa6", "\"\\u2066\"" },
        { "\xff", "\"\\xff\"" },
        { "gr\xc3\xbc\xc3\x9f", "\"gr\xc3\xbc\xc3\x9f\"" },
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        cr_expect_str_eq(line_of(table[i][0]), table[i][1]);
}

Test(log, fields_follow_in_the_order_given)
{
    char out[200];
    const struct log_field f[] = { log_str("job", "01"), log_int("ms", -12) };
    size_t n = log_format(out, sizeof out, LOG_WARN, "settled", f, 2);
    cr_expect_str_eq(out, "level=warn event=settled job=01 ms=-12");
    cr_expect_eq(n, strlen(out));
}

Test(log, a_line_too_long_is_cut_and_stays_text)
{
    char out[40], value[100];
    const struct log_field f[] = { log_str("v", value) };

    memset(value, 'x', sizeof value - 1);
    value[sizeof value - 1] = 0;
    for (size_t size = 1; size <= sizeof out; size++) {
        memset(out, 'Q', sizeof out);
        cr_expect(log_format(out, size, LOG_INFO, "e", f, 1) < size);
        cr_expect_not_null(memchr(out, 0, size));
    }
}
