/* hooks.h - see criterion.h: functions that run before the first test. */
#ifndef KILN_PLAIN_HOOKS_H
#define KILN_PLAIN_HOOKS_H
#pragma GCC system_header

struct criterion_test_set;
typedef void plain_hook_fn(struct criterion_test_set *set);
void plain_hook_PRE_ALL(plain_hook_fn *fn); /* the only kind there is */

#define PLAIN_HOOK(kind, line)                                                                                         \
    static plain_hook_fn plain_hook_at_##line;                                                                         \
    __attribute__((constructor)) static void plain_hook_add_##line(void)                                               \
    {                                                                                                                  \
        plain_hook_##kind(plain_hook_at_##line);                                                                       \
    }                                                                                                                  \
    static void plain_hook_at_##line
#define PLAIN_HOOK_AT(kind, line) PLAIN_HOOK(kind, line)
#define ReportHook(kind)          PLAIN_HOOK_AT(kind, __LINE__)
#endif
