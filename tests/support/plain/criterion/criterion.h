/* criterion.h - what our tests use of Criterion, over a plain `main`, for builds in which Criterion does not start
 * (TSan).
 *
 * The same test sources build twice: with Criterion, or, where this folder comes first in the include path, with this
 * and plain.c. As there, every test runs in a process of its own, forked by a main that has no threads. Messages are
 * printed as they come; a program's argument is a substring of the tests to run. What is not here, no test that runs
 * under TSan may use: parameterised tests and theories. */
#ifndef KILN_PLAIN_CRITERION_H
#define KILN_PLAIN_CRITERION_H
#pragma GCC system_header /* as Criterion's own: its macros are not our tests' warnings */
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

struct plain_test { /* also a suite: then run is NULL */
    const char *suite, *name, *file;
    int line;
    void (*run)(void);
    struct plain_test *next; /* plain.c's */
    void (*init)(void), (*fini)(void);
    bool disabled;
    const char *description;
};
void plain_add(struct plain_test *t);
void plain_failed(const char *file, int line, const char *what, const char *format, ...);
void plain_leave(void) __attribute__((noreturn)); /* this test is over */

#define PLAIN_ADD(id)                                                                                                  \
    __attribute__((constructor)) static void plain_add_##id(void)                                                      \
    {                                                                                                                  \
        plain_add(&plain_##id);                                                                                        \
    }
#define PLAIN_TEST(suite_, name_, ...)                                                                                 \
    static void suite_##_##name_##_impl(void);                                                                         \
    static struct plain_test plain_##suite_##_##name_ = {                                                              \
        #suite_, #name_, __FILE__, __LINE__, suite_##_##name_##_impl, NULL, __VA_ARGS__                                \
    };                                                                                                                 \
    PLAIN_ADD(suite_##_##name_)                                                                                        \
    static void suite_##_##name_##_impl(void)
#define PLAIN_SUITE(suite_, ...)                                                                                       \
    static struct plain_test plain_##suite_##_suite = { #suite_, NULL, __FILE__, __LINE__, NULL, NULL, __VA_ARGS__ };  \
    PLAIN_ADD(suite_##_suite)                                                                                          \
    struct plain_semicolon
#define Test(...)      PLAIN_TEST(__VA_ARGS__, .description = NULL)
#define TestSuite(...) PLAIN_SUITE(__VA_ARGS__, .description = NULL)

/* The last "" stands in for the message that need not be there; behind one that is, printf does not look at it. */
#define PLAIN_CHECK(end, condition, what, ...)                                                                         \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            plain_failed(__FILE__, __LINE__, what, __VA_ARGS__);                                                       \
            end;                                                                                                       \
        }                                                                                                              \
    } while (0)
#define PLAIN_ONE(end, a, ...)           PLAIN_CHECK(end, a, #a, __VA_ARGS__)
#define PLAIN_NOT(end, a, ...)           PLAIN_CHECK(end, !(a), "not " #a, __VA_ARGS__)
#define PLAIN_NULL(end, a, ...)          PLAIN_CHECK(end, (a) == NULL, #a " is NULL", __VA_ARGS__)
#define PLAIN_NOT_NULL(end, a, ...)      PLAIN_CHECK(end, (a) != NULL, #a " is not NULL", __VA_ARGS__)
#define PLAIN_TWO(end, op, a, b, ...)    PLAIN_CHECK(end, (a)op(b), #a " " #op " " #b, __VA_ARGS__)
#define PLAIN_STR(end, op, a, b, ...)    PLAIN_CHECK(end, strcmp((a), (b)) op 0, #a " " #op " " #b, __VA_ARGS__)
#define PLAIN_ARR(end, op, a, b, n, ...) PLAIN_CHECK(end, memcmp((a), (b), (n)) op 0, #a " " #op " " #b, __VA_ARGS__)
#define PLAIN_FLOAT(end, a, b, eps, ...)                                                                               \
    PLAIN_CHECK(end, (a) - (b) <= (eps) && (b) - (a) <= (eps), #a " == " #b, __VA_ARGS__)

#define cr_expect(...)          PLAIN_ONE(, __VA_ARGS__, "")
#define cr_expect_not(...)      PLAIN_NOT(, __VA_ARGS__, "")
#define cr_expect_null(...)     PLAIN_NULL(, __VA_ARGS__, "")
#define cr_expect_not_null(...) PLAIN_NOT_NULL(, __VA_ARGS__, "")
#define cr_expect_eq(...)       PLAIN_TWO(, ==, __VA_ARGS__, "")
#define cr_expect_neq(...)      PLAIN_TWO(, !=, __VA_ARGS__, "")
#define cr_expect_lt(...)       PLAIN_TWO(, <, __VA_ARGS__, "")
#define cr_expect_leq(...)      PLAIN_TWO(, <=, __VA_ARGS__, "")
#define cr_expect_gt(...)       PLAIN_TWO(, >, __VA_ARGS__, "")
#define cr_expect_geq(...)      PLAIN_TWO(, >=, __VA_ARGS__, "")
#define cr_expect_str_eq(...)   PLAIN_STR(, ==, __VA_ARGS__, "")
#define cr_expect_str_neq(...)  PLAIN_STR(, !=, __VA_ARGS__, "")
#define cr_expect_arr_eq(...)   PLAIN_ARR(, ==, __VA_ARGS__, "")
#define cr_expect_arr_neq(...)  PLAIN_ARR(, !=, __VA_ARGS__, "")
#define cr_expect_float_eq(...) PLAIN_FLOAT(, __VA_ARGS__, "")
#define cr_expect_fail(...)     PLAIN_CHECK(, 0, "", "" __VA_ARGS__)

#define cr_assert(...)          PLAIN_ONE(plain_leave(), __VA_ARGS__, "")
#define cr_assert_not(...)      PLAIN_NOT(plain_leave(), __VA_ARGS__, "")
#define cr_assert_null(...)     PLAIN_NULL(plain_leave(), __VA_ARGS__, "")
#define cr_assert_not_null(...) PLAIN_NOT_NULL(plain_leave(), __VA_ARGS__, "")
#define cr_assert_eq(...)       PLAIN_TWO(plain_leave(), ==, __VA_ARGS__, "")
#define cr_assert_neq(...)      PLAIN_TWO(plain_leave(), !=, __VA_ARGS__, "")
#define cr_assert_lt(...)       PLAIN_TWO(plain_leave(), <, __VA_ARGS__, "")
#define cr_assert_leq(...)      PLAIN_TWO(plain_leave(), <=, __VA_ARGS__, "")
#define cr_assert_gt(...)       PLAIN_TWO(plain_leave(), >, __VA_ARGS__, "")
#define cr_assert_geq(...)      PLAIN_TWO(plain_leave(), >=, __VA_ARGS__, "")
#define cr_assert_str_eq(...)   PLAIN_STR(plain_leave(), ==, __VA_ARGS__, "")
#define cr_assert_str_neq(...)  PLAIN_STR(plain_leave(), !=, __VA_ARGS__, "")
#define cr_assert_arr_eq(...)   PLAIN_ARR(plain_leave(), ==, __VA_ARGS__, "")
#define cr_assert_arr_neq(...)  PLAIN_ARR(plain_leave(), !=, __VA_ARGS__, "")
#define cr_assert_float_eq(...) PLAIN_FLOAT(plain_leave(), __VA_ARGS__, "")
#define cr_assert_fail(...)     PLAIN_CHECK(plain_leave(), 0, "", "" __VA_ARGS__)
#define cr_skip_test(...)       plain_leave()
#endif
