/* test_job.c - the envelope goes there and back, and what is not one is refused. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include "common/core/job.h"

#define ID "01930000-0000-7000-8000-000000000001"

Test(job, an_envelope_goes_there_and_back)
{
    struct arena *a = arena_new(1 << 16);
    struct job_envelope e = { .id = ID,
                              .app = "app-1",
                              .account = "acc",
                              .operation = "openai.images.generate",
                              .provider = "openai",
                              .params = json_pack("{s:s}", "prompt", "a \"fox\"\n"),
                              .inputs = json_pack("{s:[{s:s}]}", "image", "url", "https://x/"),
                              .units = 4 },
                        back = { 0 };
    char *text = job_envelope_print(&e);

    cr_assert(job_envelope_parse(a, text, &back));
    cr_expect_str_eq(back.id, e.id);
    cr_expect_str_eq(back.app, e.app);
    cr_expect_str_eq(back.account, e.account);
    cr_expect_str_eq(back.operation, e.operation);
    cr_expect_str_eq(back.provider, e.provider);
    cr_expect(json_equal(back.params, e.params) && json_equal(back.inputs, e.inputs));
    cr_expect_eq(back.units, 4);
    free(text);
    job_envelope_done(&back);
    job_envelope_done(&back);
    job_envelope_done(&e);
    job_envelope_done(NULL);
    arena_free(a);
}

Test(job, inputs_may_be_absent_but_nothing_else)
{
    static const char whole[] = "{\"id\":\"" ID "\",\"app\":\"a\",\"account\":\"b\",\"operation\":\"o\","
                                "\"provider\":\"p\",\"params\":{},\"units\":1}";
    static const char *const keys[] = { "id", "app", "account", "operation", "provider", "params", "units" };
    static const char *const bad[] = { "", "{", "[]", "1", "null" };
    struct arena *a = arena_new(1 << 16);
    struct job_envelope e = { 0 };

    cr_assert(job_envelope_parse(a, whole, &e));
    cr_expect_null(e.inputs);
    job_envelope_done(&e);
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        json_t *o = json_parse(whole, strlen(whole), NULL);
        json_object_del(o, keys[i]);
        char *text = json_print(o);
        cr_expect(!job_envelope_parse(a, text, &e), "%s", keys[i]);
        free(text);
        json_decref(o);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        cr_expect(!job_envelope_parse(a, bad[i], &e), "%s", bad[i]);
    cr_expect(!job_envelope_parse(a, NULL, &e));
    arena_free(a);
}

Test(job, three_states_are_final)
{
    cr_expect(job_state_is_final("succeeded") && job_state_is_final("failed") && job_state_is_final("canceled"));
    cr_expect(!job_state_is_final("running") && !job_state_is_final("queued") && !job_state_is_final(NULL));
}
