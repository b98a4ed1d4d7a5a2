/* test_sandbox_hosts.c - the same for Stability and Leonardo. */
#include "test_box.h"

/* ---- Stability ---- */

Test(stability, lists_every_problem_before_it_looks_at_the_key)
{
    static const char *const fields[] = { "aspect_ratio",  "7:1", "seed", "-1", "strange", "1",
                                          "output_format", "gif", NULL };
    static const char *const wants[] = { "prompt: ", "aspect_ratio: ", "seed: ", "strange: ", "output_format: " };
    box_start(FAST);
    struct answer a = perform(CORE, "bad-key", "Accept: image/*", form_of(fields, NULL, 0), NULL);
    cr_expect(a.status == 400 && strcmp(str(a.json, "name", NULL), "bad_request") == 0);
    cr_expect_eq(json_array_size(json_object_get(a.json, "errors")), LEN(wants), "%s", a.body);
    for (size_t i = 0; i < LEN(wants); i++)
        cr_expect(strstr(a.body, wants[i]) != NULL, "%s missing in %s", wants[i], a.body);
    done(&a);
    a = answer_of_post(CORE, "sk", "{\"prompt\":\"x\"}");
    cr_expect(a.status == 400 && strstr(a.body, "multipart/form-data") != NULL);
    done(&a);
    static const char *const good[] = { "prompt", "x", NULL };
    a = perform(CORE, "bad-key", NULL, form_of(good, NULL, 0), NULL);
    cr_expect(a.status == 401 && strcmp(str(a.json, "name", NULL), "unauthorized") == 0);
    done(&a);
    a = perform(CORE, "broke-key", NULL, form_of(good, NULL, 0), NULL);
    cr_expect(a.status == 402 && strcmp(str(a.json, "name", NULL), "payment_required") == 0);
    done(&a);
    box_stop();
}

Test(stability, bytes_carry_headers_and_json_carries_members)
{
    static const char *const fields[] = { "prompt", "a mountain", "seed", "77", "aspect_ratio", "16:9", NULL };
    box_start(FAST);
    configure("{\"image_size_cap\":0}");
    struct answer a = perform(CORE, "sk", "Accept: image/*", form_of(fields, NULL, 0), NULL);
    struct seen s = look(a.body, a.len);
    cr_expect(a.status == 200 && s.kind == 'p');
    cr_expect(s.width > 1.7 * s.height && abs(s.width * s.height - 1572864) < 40000, "%dx%d", s.width, s.height);
    cr_expect_str_eq(a.type, "image/png");
    cr_expect_str_eq(a.finish, "SUCCESS");
    cr_expect_str_eq(a.seed, "77");
    done(&a);
    a = perform(CORE, "sk", "Accept: application/json", form_of(fields, NULL, 0), NULL);
    cr_expect_str_eq(a.type, "application/json; type=image/png");
    cr_expect_str_eq(a.finish, "");
    cr_expect_str_eq(str(a.json, "finish_reason", NULL), "SUCCESS");
    cr_expect_eq(json_integer_value(json_object_get(a.json, "seed")), 77);
    cr_expect_eq(look_base64(str(a.json, "image", NULL)).width, s.width);
    done(&a);
    static const char *const filtered[] = { "prompt", "x [[job:f]] [[fault:filtered]]", NULL };
    a = perform(CORE, "sk", "Accept: image/*", form_of(filtered, NULL, 0), NULL);
    cr_expect_str_eq(a.finish, "CONTENT_FILTERED");
    done(&a);
    cr_expect_eq(counter("f", "paid"), 1);
    a = get("/stability/v1/user/balance", "sk");
    cr_expect_eq((long)json_number_value(json_object_get(a.json, "credits")), 10000 - 3 * 3, "%s", a.body);
    done(&a);
    box_stop();
}

Test(stability, over_150_calls_in_ten_seconds_the_key_sits_out_a_minute)
{
    box_start(FAST);
    long limited = 0;
    for (int i = 0; i < 152; i++) {
        struct answer a = get("/stability/v1/user/balance", "sk-busy");
        limited += a.status == 429;
        done(&a);
    }
    cr_expect_eq(limited, 2);
    struct answer a = get("/stability/v1/user/balance", "sk-calm");
    cr_expect_eq(a.status, 200, "another key must not suffer");
    done(&a);
    configure("{\"clock_offset_ms\":30000}");
    a = get("/stability/v1/user/balance", "sk-busy");
    cr_expect_eq(a.status, 429, "the window is over, the time-out is not");
    cr_expect_str_eq(str(a.json, "name", NULL), "rate_limit_exceeded");
    done(&a);
    configure("{\"clock_offset_ms\":62000}");
    a = get("/stability/v1/user/balance", "sk-busy");
    cr_expect_eq(a.status, 200);
    done(&a);
    box_stop();
}

static void start_upscale(const char *prompt, char id[80])
{
    size_t len;
    unsigned char *png = input_png(&len);
    const char *const fields[] = { "prompt", prompt, "creativity", "0.2", NULL };
    struct answer a = perform(CREATIVE, "sk-up", NULL, form_of(fields, png, len), NULL);
    cr_assert_eq(a.status, 200, "%s", a.body);
    (void)snprintf(id, 80, "%s", str(a.json, "id", NULL));
    cr_expect_eq(strlen(id), 64);
    done(&a);
    free(png);
}

Test(stability, a_creative_upscale_is_pending_then_larger_then_gone)
{
    char id[80], path[160];
    box_start(FAST);
    configure("{\"delay_ms\":{\"stability_creative\":3600000},\"image_size_cap\":128}");
    start_upscale("sharpen [[job:c]]", id);
    (void)snprintf(path, sizeof path, "/stability/v2beta/results/%s", id);
    struct answer a = get(path, "sk-up");
    cr_expect(a.status == 202 && strcmp(str(a.json, "status", NULL), "in-progress") == 0, "%s", a.body);
    done(&a);
    configure("{\"clock_offset_ms\":3600001}");
    a = get(path, "sk-other");
    cr_expect_eq(a.status, 404, "another key must not see it");
    done(&a);
    for (int i = 0; i < 2; i++) { /* repeatable */
        a = get(path, "sk-up");
        struct seen s = look(a.body, a.len);
        cr_expect(a.status == 200 && s.width == 512 && s.height == 512 && s.colors >= 30, "%ld %dx%d %d colours",
                  a.status, s.width, s.height, s.colors);
        done(&a);
    }
    a = perform(path, "sk-up", "Accept: application/json", NULL, NULL);
    cr_expect_eq(look_base64(str(a.json, "result", NULL)).width, 512);
    done(&a);
    configure("{\"clock_offset_ms\":90060000}");
    a = get(path, "sk-up");
    cr_expect(a.status == 404 && strcmp(str(a.json, "name", NULL), "generation_not_found") == 0);
    done(&a);
    cr_expect_eq(counter("c", "paid"), 1);
    cr_expect_eq(counter("c", "cost_millicents"), 60000);
    cr_expect_eq(counter("c", "polls"), 5, "the other key's poll is not this job's");
    box_stop();
}

Test(stability, a_failed_upscale_gives_the_credits_back)
{
    char id[80], path[160];
    box_start(FAST);
    start_upscale("x [[job:f]] [[fault:fail]]", id);
    (void)snprintf(path, sizeof path, "/stability/v2beta/results/%s", id);
    for (int i = 0; i < 2; i++) {
        struct answer a = get(path, "sk-up");
        cr_expect(a.status == 500 && strcmp(str(a.json, "name", NULL), "internal_error") == 0, "%s", a.body);
        done(&a);
    }
    cr_expect_eq(counter("f", "refunded"), 1);
    cr_expect_eq(counter("f", "cost_millicents"), 0);
    box_stop();
}

Test(stability, an_input_outside_the_rules_is_named)
{
    static const char *const fields[] = { "prompt", "x", NULL };
    box_start(FAST);
    struct answer a = perform(CREATIVE, "sk", NULL, form_of(fields, "no picture at all", 17), NULL);
    cr_expect(a.status == 400 && strstr(a.body, "image: must be a jpeg, png or webp") != NULL, "%s", a.body);
    done(&a);
    configure("{\"image_size_cap\":40}");
    size_t len;
    unsigned char *tiny = input_png(&len);
    a = perform(CREATIVE, "sk", NULL, form_of(fields, tiny, len), NULL);
    cr_expect(a.status == 400 && strstr(a.body, "image: each side") != NULL, "%s", a.body);
    done(&a);
    free(tiny);
    char *large = calloc(1, 10U << 20);
    a = perform(CREATIVE, "sk", NULL, form_of(fields, large, 10U << 20), NULL);
    cr_expect(a.status == 413 && strcmp(str(a.json, "name", NULL), "payload_too_large") == 0, "%ld", a.status);
    done(&a);
    free(large);
    box_stop();
}

/* ---- Leonardo ---- */

Test(leonardo, refuses_what_it_does_not_know_in_hasuras_words)
{
    static const struct {
        const char *body, *text, *code;
    } rows[] = {
        { "{\"prompt\":\"x\",\"sd_Version\":\"v2\"}", "Unexpected variable sd_Version", "bad-request" },
        { "{\"num_images\":1}", "expecting a value for non-nullable variable: \"prompt\"", "validation-failed" },
        { "[1", "expecting a value for non-nullable variable: \"prompt\"", "validation-failed" },
        { "{\"prompt\":\"x\",\"photoReal\":\"yes\"}", "expected a boolean for type 'Boolean', but found a string",
          "validation-failed" },
        { "{\"prompt\":\"x\",\"width\":1021}", "invalid dimensions", "unexpected" },
        { "{\"prompt\":\"x\",\"width\":2048}", "invalid dimensions", "unexpected" },
        { "{\"prompt\":\"x\",\"width\":1024,\"num_images\":8}", "too many images", "unexpected" },
    };
    box_start(FAST);
    for (size_t i = 0; i < LEN(rows); i++) {
        struct answer a = answer_of_post(LEO, "key", rows[i].body);
        cr_expect_eq(a.status, 400, "%s", rows[i].body);
        cr_expect(strstr(str(a.json, "error", NULL), rows[i].text) != NULL &&
                      strcmp(str(a.json, "code", NULL), rows[i].code) == 0,
                  "%s: %s", rows[i].body, a.body);
        done(&a);
    }
    struct answer a = answer_of_post(LEO, "broke-key", "{\"prompt\":\"x\"}");
    cr_expect(a.status == 400 && strncmp(str(a.json, "error", NULL), "not enough api tokens userId: ", 30) == 0);
    done(&a);
    a = answer_of_post(LEO, "bad-key", "{\"prompt\":\"x\"}");
    cr_expect(a.status == 401 && strcmp(str(a.json, "code", NULL), "access-denied") == 0);
    done(&a);
    configure("{\"leonardo_uuid_keys\":true}");
    a = answer_of_post(LEO, "no-uuid", "{\"prompt\":\"x\"}");
    cr_expect(a.status == 500 && strcmp(str(a.json, "error", NULL), "Invalid response from authorization hook") == 0);
    done(&a);
    box_stop();
}

Test(leonardo, goes_from_pending_to_four_pictures_on_the_other_host)
{
    char path[160], url[300];
    box_start(FAST);
    configure("{\"delay_ms\":{\"leonardo\":3600000},\"image_size_cap\":0}");
    struct answer a = generate("{\"prompt\":\"kettle [[job:l]]\",\"width\":512,\"height\":384}", path);
    cr_expect(
        json_is_string(json_object_get(json_object_get(json_object_get(a.json, "sdGenerationJob"), "cost"), "amount")),
        "the amount is a string: %s", a.body);
    done(&a);
    a = get(path, "key");
    json_t *job = json_object_get(a.json, "generations_by_pk");
    cr_expect(strcmp(str(job, "status", NULL), "PENDING") == 0 &&
              json_array_size(json_object_get(job, "generated_images")) == 0);
    done(&a);
    configure("{\"clock_offset_ms\":3600001}");
    a = get(path, "key");
    job = json_object_get(a.json, "generations_by_pk");
    json_t *images = json_object_get(job, "generated_images");
    cr_expect_str_eq(str(job, "status", NULL), "COMPLETE");
    cr_assert_eq(json_array_size(images), 4);
    (void)snprintf(url, sizeof url, "%s", str(json_array_get(images, 3), "url", NULL));
    cr_expect(strncmp(url, box.images, strlen(box.images)) == 0);
    done(&a);
    a = get(url, NULL);
    struct seen s = look(a.body, a.len);
    cr_expect(s.kind == 'j' && s.width == 512 && s.height == 384, "%c %dx%d", s.kind, s.width, s.height);
    done(&a);
    a = get(url, "key");
    cr_expect_eq(a.status, 403, "a key must not be sent to the image host");
    done(&a);
    a = get(LEO "/00000000-0000-4000-8000-000000000000", "key");
    cr_expect(a.status == 200 && json_is_null(json_object_get(a.json, "generations_by_pk")));
    done(&a);
    cr_expect_eq(counter("l", "images"), 4);
    box_stop();
}

Test(leonardo, async_faults_hold_where_they_are_asked_for)
{
    static const struct {
        const char *fault, *word;
        size_t images;
    } rows[] = {
        { "", "COMPLETE", 4 },
        { "[[fault:fail]]", "FAILED", 0 },
        { "[[fault:empty]]", "COMPLETE", 0 },
        { "[[fault:partial=3]]", "COMPLETE", 3 },
        { "[[fault:stuck]]", "PENDING", 0 },
    };
    char path[160], body[200];
    box_start(FAST);
    for (size_t i = 0; i < LEN(rows); i++) {
        (void)snprintf(body, sizeof body, "{\"prompt\":\"x %s\"}", rows[i].fault);
        struct answer a = generate(body, path);
        done(&a);
        a = get(path, "key");
        json_t *job = json_object_get(a.json, "generations_by_pk");
        cr_expect_str_eq(str(job, "status", NULL), rows[i].word, "%s", rows[i].fault);
        cr_expect_eq(json_array_size(json_object_get(job, "generated_images")), rows[i].images, "%s", rows[i].fault);
        done(&a);
    }
    struct answer a =
        generate("{\"prompt\":\"x [[job:p]] [[fault:poll_status=500,times=2]] [[fault:unknown_status]]\"}", path);
    done(&a);
    static const char *const polls[] = { "500", "500", "COMPLETE" };
    for (size_t i = 0; i < LEN(polls); i++) {
        a = get(path, "key");
        const char *word = a.status == 500 ? "500" : str(json_object_get(a.json, "generations_by_pk"), "status", NULL);
        cr_expect_str_eq(word, polls[i], "poll %zu: %s", i, a.body);
        done(&a);
    }
    cr_expect_eq(counter("p", "polls"), 3);
    box_stop();
}
