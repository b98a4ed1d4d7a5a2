/* test_err.c - every code has its own word and text, and finds its way back from the word. */
#include <criterion/criterion.h>
#include <string.h>
#include "common/base/err.h"

Test(err, every_word_leads_back_to_its_code)
{
    for (int i = 0; i < ERR_COUNT; i++) {
        enum err e = (enum err)i;
        cr_expect_eq(err_from_word(err_word(e)), e, "%s", err_word(e));
        cr_expect(strlen(err_text(e)) > 0);
        cr_expect(err_http(e) >= 200 && err_http(e) < 600);
    }
}

Test(err, a_foreign_word_is_none_of_ours_and_no_word_is_no_error)
{
    cr_expect_eq(err_from_word("rate_limit"), ERR_COUNT);
    cr_expect_eq(err_from_word(""), ERR_COUNT);
    cr_expect_eq(err_from_word(NULL), ERR_OK);
    cr_expect_str_eq(err_word(ERR_COUNT), "unknown");
}

Test(err, consequences_are_those_of_the_list)
{
    cr_expect(err_retry(ERR_RATE_LIMITED) && err_fallback(ERR_RATE_LIMITED));
    cr_expect(!err_retry(ERR_OUTCOME_UNKNOWN) && !err_fallback(ERR_OUTCOME_UNKNOWN));
    cr_expect(!err_retry(ERR_AUTH) && err_fallback(ERR_AUTH));
    cr_expect_eq(err_http(ERR_INSUFFICIENT_CREDITS), 402);
}
