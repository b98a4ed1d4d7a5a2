/* test_sandbox.c - the sandbox keeps what its README and the provider pages say: the program, OpenAI. Every test starts
 * a program of its own, talks to it with libcurl, and wants it to leave with status 0 (a leak would change that). */
#include "test_box.h"

/* ---- program ---- */

Test(program, says_where_it_listens_and_leaves_cleanly_in_mid_work)
{
    char line[256] = "";
    box_start(FAST);
    FILE *f = fopen(box.ready_file, "r");
    cr_assert_not_null(f);
    cr_expect(fgets(line, sizeof line, f) != NULL && strstr(line, box.base) != NULL &&
              strstr(line, box.images) != NULL);
    (void)fclose(f);

    struct waiter hanging, slow, painting;
    waiter_start(&hanging, "h", "hang");
    waiter_start(&slow, "s", "slow_body=10,slow_ms=20");
    configure("{\"image_size_cap\":0}");
    waiter_start(&painting, "p", "delay_ms=0");
    box_stop();
    waiter_leave(&hanging);
    waiter_leave(&slow);
    waiter_leave(&painting);
}

Test(program, refuses_settings_that_do_not_exist)
{
    box_start(NULL);
    struct answer a = answer_of_post("/_sandbox/config", NULL, "{\"delay_ms\":{\"opanai\":3}}");
    cr_expect_eq(a.status, 400);
    cr_expect(strstr(a.body, "delay_ms.opanai") != NULL, "%s", a.body);
    done(&a);
    a = answer_of_post(IMAGES, "sk", "{\"model\":\"gpt-image-1\",\"prompt\":\"x [[fault:no_such_thing]]\"}");
    cr_expect(a.status == 400 && strstr(a.body, "no_such_thing") != NULL, "a fault that does not exist passed: %s",
              a.body);
    done(&a);
    box_stop();
}

/* ---- OpenAI ---- */

Test(openai, a_gpt_picture_is_base64_of_the_asked_size_and_format_with_its_usage)
{
    static const char *const formats[] = { "png", "jpeg", "webp" };
    box_start(FAST);
    configure("{\"image_size_cap\":0}");
    for (size_t i = 0; i < LEN(formats); i++) {
        char body[256];
        (void)snprintf(
            body, sizeof body,
            "{\"model\":\"gpt-image-1.5\",\"prompt\":\"a kettle\",\"n\":2,\"size\":\"1024x1536\",\"quality\":"
            "\"medium\",\"output_format\":\"%s\"}",
            formats[i]);
        struct answer a = answer_of_post(IMAGES, "sk-test", body);
        const json_t *data = json_object_get(a.json, "data");
        cr_assert(a.status == 200 && json_array_size(data) == 2, "%s: %.200s", formats[i], a.body);
        const char *first = str(json_array_get(data, 0), "b64_json", NULL);
        struct seen s = look_base64(first);
        cr_expect(s.width == 1024 && s.height == 1536 && s.kind == formats[i][0], "%s: %dx%d %c", formats[i], s.width,
                  s.height, s.kind);
        cr_expect_geq(s.colors, 30, "%s: a flat picture", formats[i]);
        cr_expect_str_neq(first, str(json_array_get(data, 1), "b64_json", NULL));
        const json_t *usage = json_object_get(a.json, "usage");
        cr_expect_eq(json_integer_value(json_object_get(usage, "output_tokens")), 2 * 1584);
        cr_expect_str_eq(str(a.json, "output_format", NULL), formats[i]);
        cr_expect(strncmp(a.request_id, "req_", 4) == 0);
        done(&a);
    }
    box_stop();
}

Test(openai, names_the_parameter_that_is_wrong_before_it_looks_at_the_key)
{
    static const struct {
        const char *body, *param, *code;
    } rows[] = {
        { "{\"model\":\"gpt-image-1\"}", "prompt", "missing_required_parameter" },
        { "{\"model\":\"gpt-image-1\",\"prompt\":\"x\",\"response_format\":\"url\"}", "response_format",
          "unknown_parameter" },
        { "{\"model\":\"dall-e-3\",\"prompt\":\"x\",\"moderation\":\"low\"}", "moderation", "unknown_parameter" },
        { "{\"model\":\"dall-e-2\",\"prompt\":\"x\",\"style\":\"vivid\"}", "style", "unknown_parameter" },
        { "{\"model\":\"dall-e-3\",\"prompt\":\"x\",\"n\":2}", "n", "integer_above_max_value" },
        { "{\"model\":\"gpt-image-1\",\"prompt\":\"x\",\"n\":0}", "n", "integer_below_min_value" },
        { "{\"model\":\"gpt-image-1\",\"prompt\":\"x\",\"n\":\"1\"}", "n", "invalid_type" },
        { "{\"model\":\"gpt-image-1\",\"prompt\":\"x\",\"size\":\"512x512\"}", "size", "invalid_value" },
        { "{\"model\":\"gpt-image-2\",\"prompt\":\"x\",\"size\":\"1000x1000\"}", "size", "invalid_value" },
        { "{\"model\":\"gpt-image-1\",\"prompt\":\"x\",\"quality\":\"hd\"}", "quality", "invalid_value" },
        { "{\"model\":\"gpt-image-1\",\"prompt\":\"x\",\"background\":\"transparent\",\"output_format\":\"jpeg\"}",
          "background", "invalid_value" },
    };
    box_start(FAST);
    for (size_t i = 0; i < LEN(rows); i++) {
        struct answer a = answer_of_post(IMAGES, "bad-key", rows[i].body);
        cr_expect_eq(a.status, 400, "%s", rows[i].body);
        cr_expect_str_eq(str(a.json, "error", "param"), rows[i].param, "%s: %s", rows[i].body, a.body);
        cr_expect_str_eq(str(a.json, "error", "code"), rows[i].code, "%s: %s", rows[i].body, a.body);
        done(&a);
    }
    box_stop();
}

Test(openai, keys_have_moods_and_none_of_their_refusals_is_paid)
{
    static const struct {
        const char *key;
        long status;
        const char *code;
    } rows[] = {
        { NULL, 401, "invalid_api_key" },
        { "bad-1", 401, "invalid_api_key" },
        { "broke-1", 429, "insufficient_quota" },
        { "zero-1", 429, "rate_limit_exceeded" },
        { "hardlimit-1", 400, "billing_hard_limit_reached" },
        { "unverified-1", 403, "" },
    };
    box_start(FAST);
    for (size_t i = 0; i < LEN(rows); i++) {
        struct answer a = answer_of_post(IMAGES, rows[i].key, "{\"model\":\"gpt-image-1\",\"prompt\":\"x [[job:k]]\"}");
        cr_expect(a.status == rows[i].status && strcmp(str(a.json, "error", "code"), rows[i].code) == 0, "%s: %s",
                  rows[i].key == NULL ? "no key" : rows[i].key, a.body);
        done(&a);
    }
    cr_expect_eq(counter("k", "requests"), (long)LEN(rows));
    cr_expect_eq(counter("k", "refused"), (long)LEN(rows));
    cr_expect_eq(counter("k", "paid"), 0);
    configure("{\"dalle_retired\":true}");
    struct answer a = answer_of_post(IMAGES, "sk", "{\"model\":\"dall-e-3\",\"prompt\":\"x\"}");
    cr_expect(a.status == 404 && strcmp(str(a.json, "error", "code"), "model_not_found") == 0);
    done(&a);
    box_stop();
}

/* A picture of the sandbox's own, by dall-e-2: a square PNG without alpha. */
static struct answer small_png(const char *size)
{
    char body[160];
    (void)snprintf(body, sizeof body, "{\"model\":\"dall-e-2\",\"prompt\":\"a cup\",\"size\":\"%s\"}", size);
    struct answer a = answer_of_post(IMAGES, "sk", body);
    struct answer png = get(str(json_array_get(json_object_get(a.json, "data"), 0), "url", NULL), NULL);
    done(&a);
    return png;
}

static void add_file(curl_mime *m, const char *name, const char *type, const struct answer *file)
{
    curl_mimepart *p = curl_mime_addpart(m);
    curl_mime_name(p, name);
    curl_mime_filename(p, "in");
    curl_mime_type(p, type);
    curl_mime_data(p, file->body, file->len);
}

Test(openai, edits_take_several_pictures_and_a_mask_and_count_them)
{
    static const char *const texts[] = { "model",          "gpt-image-1", "prompt", "upholster [[job:e]]",
                                         "input_fidelity", "high",        "n",      "2",
                                         "quality",        "low",         NULL };
    box_start(FAST);
    struct answer png = small_png("256x256");
    curl_mime *m = form_of(texts, NULL, 0);
    add_file(m, "image[]", "image/png", &png);
    add_file(m, "image[]", "image/png", &png);
    add_file(m, "mask", "image/png", &png);
    struct answer a = perform(EDITS, "sk", NULL, m, NULL);
    const json_t *usage = json_object_get(a.json, "usage"), *in = json_object_get(usage, "input_tokens_details");
    cr_assert(a.status == 200 && json_array_size(json_object_get(a.json, "data")) == 2, "%.300s", a.body);
    cr_expect_eq(json_integer_value(json_object_get(in, "image_tokens")), 2048);
    cr_expect_eq(json_integer_value(json_object_get(usage, "output_tokens")), 2 * 272);
    cr_expect_eq(counter("e", "paid"), 1);
    done(&a);
    m = form_of((const char *const[]){ "n", "2", "size", "256x256", NULL }, png.body, png.len);
    a = perform(VARIATIONS, "sk", NULL, m, NULL);
    cr_expect(a.status == 200 && json_array_size(json_object_get(a.json, "data")) == 2, "%s", a.body);
    done(&a);
    configure("{\"openai_limit\":{\"input_images\":1}}");
    m = form_of(texts, NULL, 0);
    add_file(m, "image[]", "image/png", &png);
    add_file(m, "image[]", "image/png", &png);
    a = perform(EDITS, "sk", NULL, m, NULL);
    cr_expect(a.status == 429 && strcmp(str(a.json, "error", "type"), "input-images") == 0, "%s", a.body);
    done(&a);
    done(&png);
    box_stop();
}

Test(openai, edits_and_variations_refuse_what_their_page_refuses)
{
    static const struct {
        const char *path, *model, *name, *type, *param, *code;
        int masks; /* 1: of another size; 2: of the same */
    } rows[] = {
        { EDITS, "gpt-image-1", NULL, NULL, "image", "missing_required_parameter", 0 },
        { EDITS, "gpt-image-1", "image", "application/octet-stream", "image", "", 0 },
        { EDITS, "gpt-image-1", "image", "image/png", "mask", "", 1 },
        { EDITS, "dall-e-3", "image", "image/png", "model", "invalid_value", 0 },
        { EDITS, "dall-e-2", "image[]", "image/png", "image[]", "unknown_parameter", 2 },
        { EDITS, "dall-e-2", "image", "image/png", "image", "", 0 }, /* no mask and no alpha */
        { EDITS, "dall-e-2", "image", "image/png", NULL, NULL, 2 },
        { EDITS, "dall-e-2", "image", "image/jpeg", "image", "", 2 },
        { VARIATIONS, "gpt-image-1", "image", "image/png", "model", "invalid_value", 0 },
        { VARIATIONS, "dall-e-2", "image", "image/png", "mask", "unknown_parameter", 2 },
    };
    box_start(FAST);
    configure("{\"image_size_cap\":0}");
    struct answer png = small_png("256x256"), large = small_png("512x512");
    for (size_t i = 0; i < LEN(rows); i++) {
        bool is_edit = strcmp(rows[i].path, EDITS) == 0;
        const char *texts[] = { "model", rows[i].model, is_edit ? "prompt" : NULL, "x", NULL };
        curl_mime *m = form_of(texts, NULL, 0);
        if (rows[i].name != NULL)
            add_file(m, rows[i].name, rows[i].type, &png);
        if (rows[i].masks != 0)
            add_file(m, "mask", "image/png", rows[i].masks == 1 ? &large : &png);
        struct answer a = perform(rows[i].path, "sk", NULL, m, NULL);
        if (rows[i].param == NULL) {
            cr_expect_eq(a.status, 200, "row %zu: %s", i, a.body);
        } else {
            cr_expect_eq(a.status, 400, "row %zu: %s", i, a.body);
            cr_expect_str_eq(str(a.json, "error", "param"), rows[i].param, "row %zu: %s", i, a.body);
            cr_expect_str_eq(str(a.json, "error", "code"), rows[i].code, "row %zu: %s", i, a.body);
        }
        done(&a);
    }
    done(&png);
    done(&large);
    box_stop();
}

Test(openai, the_json_form_of_an_edit_takes_data_urls_and_moderation)
{
    static const struct {
        const char *body, *param;
    } rows[] = {
        { "{\"model\":\"gpt-image-1\",\"prompt\":\"x\"}", "images" },
        { "{\"model\":\"gpt-image-1\",\"prompt\":\"x\",\"images\":[]}", "images" },
        { "{\"model\":\"gpt-image-1\",\"prompt\":\"x\",\"images\":[{\"image_url\":\"https://x\",\"file_id\":\"file-1\"}]}",
          "images" },
        { "{\"model\":\"gpt-image-1\",\"prompt\":\"x\",\"images\":[{\"image_url\":\"http://x\"}]}", "images" },
        { "{\"model\":\"dall-e-2\",\"prompt\":\"x\",\"images\":[{\"image_url\":\"https://x\"}]}", "model" },
        { "{\"model\":\"gpt-image-2\",\"prompt\":\"x\",\"size\":\"2048x1024\",\"images\":[{\"image_url\":\"https://x\"}]}",
          "size" },
        { "{\"model\":\"gpt-image-1\",\"prompt\":\"x\",\"moderation\":\"low\",\"images\":[{\"image_url\":\"https://x\"}]}",
          NULL },
    };
    box_start(FAST);
    for (size_t i = 0; i < LEN(rows); i++) {
        struct answer a = answer_of_post(EDITS, "sk", rows[i].body);
        cr_expect_eq(a.status, rows[i].param == NULL ? 200 : 400, "%s: %.200s", rows[i].body, a.body);
        if (rows[i].param != NULL)
            cr_expect_str_eq(str(a.json, "error", "param"), rows[i].param, "%s: %s", rows[i].body, a.body);
        done(&a);
    }
    box_stop();
}

Test(openai, an_image_url_needs_its_signature_and_dies_after_an_hour)
{
    char url[1024], altered[1040];
    box_start(FAST);
    struct answer a = answer_of_post(IMAGES, "sk", "{\"model\":\"dall-e-3\",\"prompt\":\"harbour [[job:u]]\"}");
    const json_t *first = json_array_get(json_object_get(a.json, "data"), 0);
    (void)snprintf(url, sizeof url, "%s", str(first, "url", NULL));
    cr_expect(strlen(str(first, "revised_prompt", NULL)) > 10);
    cr_expect(strncmp(url, box.images, strlen(box.images)) == 0, "not on the second listener: %s", url);
    done(&a);
    a = get(url, NULL);
    cr_expect(a.status == 200 && look(a.body, a.len).kind == 'p');
    cr_expect_str_eq(a.type, "image/png");
    done(&a);
    cr_expect_eq(counter("u", "downloads"), 1);
    (void)snprintf(altered, sizeof altered, "%s", url);
    altered[strlen(altered) - 6] ^= 1;
    a = get(altered, NULL);
    cr_expect(a.status == 403 && strstr(a.body, "<Code>AuthenticationFailed</Code>") != NULL, "%s", a.body);
    done(&a);
    configure("{\"clock_offset_ms\":3601000}");
    a = get(url, NULL);
    cr_expect(a.status == 403 && strstr(a.body, "AuthenticationFailed") != NULL);
    done(&a);
    box_stop();
}

Test(pictures, are_the_same_for_the_same_prompt_and_differ_for_another)
{
    static const char *const prompts[] = { "red kettle", "red kettle [[job:other]]", "blue kettle" };
    char *text[3];
    box_start(FAST);
    for (size_t i = 0; i < 3; i++) {
        char body[200];
        (void)snprintf(body, sizeof body, "{\"model\":\"gpt-image-1\",\"prompt\":\"%s\"}", prompts[i]);
        struct answer a = answer_of_post(IMAGES, "sk", body);
        text[i] = strdup(str(json_array_get(json_object_get(a.json, "data"), 0), "b64_json", NULL));
        done(&a);
    }
    cr_expect_str_eq(text[0], text[1], "the tag must not change the picture");
    cr_expect_str_neq(text[0], text[2]);
    for (size_t i = 0; i < 3; i++)
        free(text[i]);
    box_stop();
}

Test(openai, images_per_window_are_limited_when_asked_and_the_wait_is_told)
{
    box_start(FAST);
    configure("{\"openai_limit\":{\"requests\":3,\"window_ms\":60000}}");
    struct answer a = answer_of_post(IMAGES, "sk", "{\"model\":\"gpt-image-1\",\"prompt\":\"x\",\"n\":3}");
    cr_expect_eq(a.status, 200);
    done(&a);
    a = answer_of_post(IMAGES, "sk", "{\"model\":\"gpt-image-1\",\"prompt\":\"x\"}");
    cr_expect(a.status == 429 && strstr(a.body, "try again in") != NULL, "%s", a.body);
    done(&a);
    configure("{\"clock_offset_ms\":60001}");
    a = answer_of_post(IMAGES, "sk", "{\"model\":\"gpt-image-1\",\"prompt\":\"x\"}");
    cr_expect_eq(a.status, 200);
    done(&a);
    box_stop();
}
