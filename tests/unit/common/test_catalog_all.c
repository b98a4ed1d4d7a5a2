/* test_catalog_all.c - what must hold for every operation of the whole catalogue, whichever there are: with random
 * valid parameters there is a price, it is positive, and no part of a delivery captures more than was held; the
 * description is complete; a call is of the form that its operation says. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/text.h"
#include "common/core/catalog.h"

enum { ROUNDS = 60, REPAIRS = 40 };

static uint64_t seed = 88172645463325252ULL;

static uint64_t next(uint64_t below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % below;
}

static const char *environment(const char *name)
{
    return strstr(name, "_BASE_URL") != NULL ? "http://127.0.0.1:9" : "test-key";
}

static struct catalog *load(void)
{
    struct catalog *c = NULL;
    char problem[300];

    cr_assert_eq(catalog_load(NULL, environment, &c, problem, sizeof problem), ERR_OK, "%s", problem);
    return c;
}

static json_t *random_value(const json_t *spec);

static json_t *random_number(const json_t *spec, bool is_whole)
{
    static const double shares[] = { 0, 0.25, 0.5, 1 };
    double min = 0, max = 100, step = 1, v;

    (void)json_number(spec, "min", &min);
    (void)json_number(spec, "max", &max);
    (void)json_number(spec, "multiple_of", &step);
    v = min + (max - min) * shares[next(4)];
    return is_whole ? json_integer((json_int_t)(v / step) * (json_int_t)step) : json_real(v);
}

static json_t *random_text(const json_t *spec)
{
    int64_t min = 0, max = 40;
    char text[64];
    size_t len;

    (void)json_int(spec, "min_length", &min);
    (void)json_int(spec, "max_length", &max);
    len = (size_t)(max < 40 ? max : 40);
    len = (size_t)min + (len > (size_t)min ? next(len - (size_t)min) : 0);
    memset(text, 'a', sizeof text);
    return json_stringn(text, len < sizeof text ? len : sizeof text);
}

static json_t *random_object(const json_t *fields)
{
    json_t *out = json_object(), *field;
    const char *name;

    json_object_foreach((json_t *)fields, name, field)
    {
        if (json_bool(field, "required", false) || next(2))
            (void)json_object_set_new(out, name, random_value(field));
    }
    return out;
}

static json_t *random_value(const json_t *spec)
{
    const json_t *values = json_object_get(spec, "values"), *items = json_object_get(spec, "items");
    const char *type = json_text(spec, "type");
    bool is_file = strcmp(type, "file") == 0;

    if (values != NULL)
        return json_deep_copy(json_array_get(values, next(json_array_size(values))));
    if (is_file && json_bool(spec, "list", false))
        return json_pack("[s]", "https://example.org/a.png");
    if (is_file)
        return json_string("https://example.org/a.png");
    if (strcmp(type, "uuid") == 0)
        return json_string("0198d4c2-0000-7000-8000-000000000001");
    if (strcmp(type, "integer") == 0 || strcmp(type, "number") == 0)
        return random_number(spec, type[0] == 'i');
    if (strcmp(type, "boolean") == 0)
        return json_boolean(next(2));
    if (strcmp(type, "array") == 0)
        return items != NULL ? json_pack("[o]", random_value(items)) : json_array();
    if (strcmp(type, "object") == 0)
        return random_object(json_object_get(spec, "fields"));
    return random_text(spec);
}

/* Rules between parameters are met by trying: a field that is wrong is left out or drawn anew. NULL: not found. */
static json_t *random_params(const struct operation *op)
{
    const json_t *specs = json_object_get(op->doc, "params");
    json_t *given = random_object(specs), *fine = NULL;
    struct catalog_faults faults;

    for (int i = 0; i < REPAIRS && fine == NULL; i++) {
        fine = catalog_validate(op, given, &faults);
        for (size_t k = 0; fine == NULL && k < faults.count && k < ARRAY_LEN(faults.items); k++) {
            char name[80];
            const char *at = faults.items[k].field, *key;
            json_t *spec, *one;

            (void)snprintf(name, sizeof name, "%s", strncmp(at, "params.", 7) == 0 ? at + 7 : "");
            name[strcspn(name, ".[")] = '\0';
            spec = json_object_get(specs, name);
            if (spec != NULL && next(2)) {
                (void)json_object_del(given, name);
            } else if (spec != NULL) {
                (void)json_object_set_new(given, name, random_value(spec));
            } else { /* "at least one of": draw them all again */
                json_object_foreach((json_t *)specs, key, one)
                {
                    if (next(2))
                        (void)json_object_set_new(given, key, random_value(one));
                }
            }
        }
    }
    json_decref(given);
    return fine;
}

Test(catalog_all, every_operation_has_a_positive_price_for_random_valid_parameters)
{
    struct catalog *c = load();

    for (size_t i = 0; i < catalog_count(c); i++) {
        const struct operation *op = catalog_at(c, i);
        int found = 0;

        for (int round = 0; round < ROUNDS; round++) {
            json_t *params = random_params(op);
            char *text = json_print(params);
            struct catalog_price p;

            if (params != NULL) {
                found++;
                cr_assert_eq(catalog_price(op, params, &p), ERR_OK, "%s: no price for %s", op->name, text);
                cr_expect_gt(p.unit_mc, 0, "%s: free: %s", op->name, text);
                cr_expect_geq(p.units, 1, "%s: %s", op->name, text);
                cr_expect(p.unit_cost_microusd > 0 || json_object_get(op->provider->doc, "key_env") == NULL,
                          "%s: costs the house nothing, and is not its own machine: %s", op->name, text);
                cr_expect_neq(p.version[0], '\0', "%s", op->name);
                for (int64_t made = 0; made <= p.units; made++)
                    cr_expect_leq(made * p.unit_mc, p.units * p.unit_mc, "%s: %s", op->name, text);
            }
            free(text);
            json_decref(params);
        }
        cr_expect_gt(found, ROUNDS / 6, "%s: only %d of %d draws were valid", op->name, found, ROUNDS);
    }
    catalog_free(c);
}

Test(catalog_all, every_operation_makes_a_whole_call_and_describes_itself)
{
    struct catalog *c = load();

    for (size_t i = 0; i < catalog_count(c); i++) {
        const struct operation *op = catalog_at(c, i);
        json_t *shown = catalog_describe(op);
        const json_t *price = json_object_get(shown, "price");

        cr_expect_not_null(json_object_get(json_object_get(shown, "params"), "properties"), "%s", op->name);
        cr_expect_not_null(json_text(price, "text"), "%s", op->name);
        cr_expect_not_null(json_text(price, "formula"), "%s", op->name);
        cr_expect_not_null(json_object_get(shown, "typical_s"), "%s", op->name);
        json_decref(shown);
        for (int round = 0; round < 10; round++) {
            json_t *params = random_params(op);
            struct catalog_call call = catalog_call(op, params);

            cr_expect_eq(call.path[0], '/', "%s", op->name);
            cr_expect(op->is_async || !call.is_async, "%s: a poll that the operation does not have", op->name);
            cr_expect(!call.is_async || strstr(call.poll_path, "{ref}") != NULL, "%s", op->name);
            json_decref(params);
        }
    }
    catalog_free(c);
}

Test(catalog_all, a_price_may_depend_on_steps)
{
    static const struct {
        const char *operation, *params;
        int64_t mc;
    } table[] = {
        { "stability.audio.text_to_audio", "{\"prompt\":\"a\"}", 20000 },
        { "stability.audio.text_to_audio", "{\"prompt\":\"a\",\"steps\":100}", 23000 },
        { "stability.audio.text_to_audio", "{\"prompt\":\"a\",\"steps\":33}", 18980 },
        { "stability.audio.text_to_audio", "{\"prompt\":\"a\",\"model\":\"stable-audio-2.5\"}", 20000 },
        { "stability.audio.text_to_audio", "{\"prompt\":\"a\",\"model\":\"stable-audio-3\"}", 26000 },
        { "stability.generate.sd3", "{\"prompt\":\"a\",\"model\":\"sd3-medium\"}", 3500 },
    };
    struct catalog *c = load();

    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        const struct operation *op = catalog_find(c, table[i].operation);
        json_t *given = json_parse(table[i].params, strlen(table[i].params), NULL), *params;
        struct catalog_faults faults;
        struct catalog_price p;

        params = catalog_validate(op, given, &faults);
        cr_assert_not_null(params, "%s", faults.items[0].message);
        cr_assert_eq(catalog_price(op, params, &p), ERR_OK);
        cr_expect_eq(p.unit_mc, table[i].mc, "%s: %lld", table[i].params, (long long)p.unit_mc);
        json_decref(given);
        json_decref(params);
    }
    catalog_free(c);
}

Test(catalog_all, stability_s_rules_are_refused_in_words)
{
    static const struct {
        const char *operation, *params, *field, *message;
    } table[] = {
        { "edit.outpaint", "{\"image\":\"https://x.org/a\"}", "params",
          "needs at least one of left, right, up, down above 0" },
        { "edit.outpaint", "{\"image\":\"https://x.org/a\",\"up\":2001}", "params.up",
          "must be between 0 and 2000, got 2001" },
        { "edit.erase", "{\"image\":\"https://x.org/a\",\"grow_mask\":21}", "params.grow_mask",
          "must be between 0 and 20, got 21" },
        { "edit.remove_background", "{\"image\":\"https://x.org/a\",\"output_format\":\"jpeg\"}",
          "params.output_format", "must be one of png, webp, got \"jpeg\"" },
        { "edit.replace_background_and_relight", "{\"subject_image\":\"https://x.org/a\"}", "params",
          "needs at least one of background_prompt, background_reference" },
        { "edit.replace_background_and_relight",
          "{\"subject_image\":\"https://x.org/a\",\"background_prompt\":\"sea\",\"light_source_strength\":0.5}",
          "params.light_source_strength", "is not taken with no light_reference and no light_source_direction" },
        { "generate.ultra", "{\"prompt\":\"a\",\"image\":\"https://x.org/a\"}", "params.strength",
          "is required with image" },
        { "upscale.conservative", "{\"image\":\"https://x.org/a\"}", "params.prompt", "is required" },
        { "control.style_transfer", "{\"init_image\":\"https://x.org/a\"}", "params.style_image", "is required" },
        { "3d.fast", "{\"image\":\"https://x.org/a\",\"texture_resolution\":1024}", "params.texture_resolution",
          "must be a text, got 1024" },
        { "audio.text_to_audio", "{\"prompt\":\"a\",\"duration\":191}", "params.duration",
          "must be at most 190 with model \"stable-audio-2\", got 191.0" },
        { "audio.text_to_audio", "{\"prompt\":\"a\",\"model\":\"stable-audio-3\",\"steps\":9}", "params.steps",
          "must be at most 8 with model \"stable-audio-3\", got 9" },
        { "audio.inpaint", "{\"prompt\":\"a\",\"audio\":\"https://x.org/a\",\"cfg_scale\":2}", "params.cfg_scale",
          "is not taken with model \"stable-audio-2\"" },
        { "v1.text_to_image", "{}", "params", "needs at least one of text_prompts, prompt" },
        { "v1.text_to_image", "{\"prompt\":\"a\",\"width\":1152,\"height\":1024}", "params.height",
          "must be 896 with engine_id \"stable-diffusion-xl-1024-v1-0\" and width 1152, got 1024" },
        { "v1.image_to_image", "{\"prompt\":\"a\",\"init_image\":\"https://x.org/a\",\"step_schedule_start\":0.5}",
          "params.step_schedule_start", "is not taken with init_image_mode \"IMAGE_STRENGTH\"" },
        { "v1.masking", "{\"prompt\":\"a\",\"init_image\":\"https://x.org/a\",\"mask_source\":\"MASK_IMAGE_BLACK\"}",
          "params.mask_image", "is required with mask_source \"MASK_IMAGE_BLACK\"" },
    };
    struct catalog *c = load();

    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        char name[80];
        json_t *given = json_parse(table[i].params, strlen(table[i].params), NULL);
        struct catalog_faults faults;

        (void)snprintf(name, sizeof name, "stability.%s", table[i].operation);
        cr_assert_null(catalog_validate(catalog_find(c, name), given, &faults), "%s took %s", name, table[i].params);
        cr_expect_str_eq(faults.items[0].field, table[i].field, "%s: %s", name, faults.items[0].message);
        cr_expect_str_eq(faults.items[0].message, table[i].message, "%s", name);
        json_decref(given);
    }
    catalog_free(c);
}

Test(catalog_all, a_sound_s_length_is_a_limit_like_a_picture_s_size)
{
    struct catalog *c = load();
    const struct operation *op = catalog_find(c, "stability.audio.audio_to_audio");
    struct media_head head = { .kind = MEDIA_WAV, .bytes_per_s = 8000, .sound_at = 44 };
    char message[160];

    cr_expect(catalog_input_fits(op, "audio", &head, 44 + 6 * 8000, message, sizeof message), "%s", message);
    cr_expect_not(catalog_input_fits(op, "audio", &head, 44 + 5 * 8000, message, sizeof message));
    cr_expect_str_eq(message, "must last at least 6 seconds, got 5.0");
    cr_expect_not(catalog_input_fits(op, "audio", &head, 44 + 400 * 8000, message, sizeof message));
    head.bytes_per_s = 0;
    cr_expect(catalog_input_fits(op, "audio", &head, 100, message, sizeof message), "not told: the provider judges");
    catalog_free(c);
}

Test(catalog_all, openai_s_rules_for_edits_are_refused_in_words)
{
#define IMG "\"prompt\":\"a\",\"image\":[\"https://x.org/a\"]"
    static const struct {
        const char *operation, *params, *field, *message;
    } table[] = {
        { "edit", "{\"prompt\":\"a\"}", "params.image", "is required" },
        { "edit", "{\"prompt\":\"a\",\"image\":[]}", "params.image", "must have at least 1 item, got 0" },
        { "edit", "{\"prompt\":\"a\",\"image\":7}", "params.image", "must be a list, got 7" },
        { "edit", "{\"prompt\":\"a\",\"image\":\"nowhere\"}", "params.image", NULL },
        { "edit", "{" IMG ",\"model\":\"dall-e-3\"}", "params.model", NULL },
        { "edit", "{\"prompt\":\"a\",\"model\":\"dall-e-2\",\"image\":[\"https://x.org/a\",\"https://x.org/b\"]}",
          "params.image", "must have at most 1 item with model \"dall-e-2\", got 2" },
        { "edit", "{" IMG ",\"model\":\"dall-e-2\",\"input_fidelity\":\"high\"}", "params.input_fidelity",
          "is not taken with model \"dall-e-2\"" },
        { "edit", "{" IMG ",\"model\":\"gpt-image-1-mini\",\"input_fidelity\":\"high\"}", "params.input_fidelity",
          "is not taken with model \"gpt-image-1-mini\"" },
        { "edit", "{" IMG ",\"response_format\":\"url\"}", "params.response_format", NULL },
        { "edit", "{" IMG ",\"style\":\"vivid\"}", "params.style", NULL },
        { "edit", "{" IMG ",\"model\":\"gpt-image-2\",\"size\":\"2048x1024\",\"moderation\":\"low\"}", "params.size",
          NULL },
        { "edit", "{" IMG ",\"output_compression\":7}", "params.output_compression", NULL },
        { "variation", "{\"image\":\"https://x.org/a\",\"prompt\":\"a\"}", "params.prompt",
          "is not a parameter of this operation" },
        { "variation", "{\"image\":\"https://x.org/a\",\"model\":\"gpt-image-1\"}", "params.model",
          "must be dall-e-2, got \"gpt-image-1\"" },
        { "variation", "{\"image\":\"https://x.org/a\",\"size\":\"auto\"}", "params.size",
          "must be one of 256x256, 512x512, 1024x1024, got \"auto\"" },
    };
    struct catalog *c = load();

    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        char name[80];
        json_t *given = json_parse(table[i].params, strlen(table[i].params), NULL);
        struct catalog_faults faults;

        (void)snprintf(name, sizeof name, "openai.images.%s", table[i].operation);
        cr_assert_null(catalog_validate(catalog_find(c, name), given, &faults), "%s took %s", name, table[i].params);
        cr_expect_str_eq(faults.items[0].field, table[i].field, "%s: %s", table[i].params, faults.items[0].message);
        if (table[i].message != NULL)
            cr_expect_str_eq(faults.items[0].message, table[i].message, "%s", name);
        json_decref(given);
    }
    catalog_free(c);
}

static void expect_files(const struct operation *op, const char *params, const struct catalog_file *files, size_t count,
                         const char *field, const char *message)
{
    json_t *given = json_parse(params, strlen(params), NULL), *fine;
    struct catalog_faults faults;

    fine = catalog_validate(op, given, &faults);
    cr_assert_not_null(fine, "%s: %s", params, faults.items[0].message);
    faults.count = 0;
    cr_expect_eq(catalog_files_fit(op, fine, files, count, &faults), message == NULL, "%s: %s", params, message);
    if (message != NULL && faults.count > 0) {
        cr_expect_str_eq(faults.items[0].field, field);
        cr_expect_str_eq(faults.items[0].message, message);
    }
    json_decref(given);
    json_decref(fine);
}

Test(catalog_all, files_are_judged_together_and_by_the_model)
{
    struct catalog *c = load();
    const struct operation *op = catalog_find(c, "openai.images.edit");
    struct catalog_file files[] = {
        { "image", 0, { .kind = MEDIA_PNG, .width = 64, .height = 64, .has_alpha = true }, 100, true },
        { "mask", SIZE_MAX, { .kind = MEDIA_PNG, .width = 64, .height = 64 }, 100, true },
    };

    expect_files(op, "{" IMG "}", files, 2, NULL, NULL);
    expect_files(op, "{" IMG ",\"model\":\"dall-e-2\"}", files, 1, NULL, NULL);
    files[1].head.width = 65;
    expect_files(op, "{" IMG "}", files, 2, "params.mask", "must be as large as image, 64x64, got 65x64");
    files[0].head.has_alpha = false;
    expect_files(op, "{" IMG ",\"model\":\"dall-e-2\"}", files, 1, "params.image[0]",
                 "must have an alpha channel with model \"dall-e-2\" and no mask");
    expect_files(op, "{" IMG ",\"model\":\"dall-e-2\",\"mask\":\"https://x.org/m\"}", files, 1, NULL, NULL);
    files[0].is_head_read = false;
    expect_files(op, "{" IMG ",\"model\":\"dall-e-2\"}", files, 1, NULL, NULL);
    files[0].head.height = 32;
    expect_files(op, "{" IMG ",\"model\":\"dall-e-2\"}", files, 1, "params.image[0]",
                 "must have a ratio between 1:1 and 1:1, got 64x32 with model \"dall-e-2\"");
    files[0].head.kind = MEDIA_JPEG;
    expect_files(op, "{" IMG "}", files, 1, NULL, NULL);
    expect_files(op, "{" IMG ",\"model\":\"dall-e-2\"}", files, 1, "params.image[0]",
                 "must be one of png, got jpg with model \"dall-e-2\"");
    files[0].bytes = 5000001;
    expect_files(op, "{" IMG ",\"moderation\":\"auto\"}", files, 1, "params.image[0]",
                 "must have at most 5000000 bytes, got 5000001 with moderation");
    catalog_free(c);
}
