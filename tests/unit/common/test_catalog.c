/* test_catalog.c - the catalogue as it is shipped: every range, every price, every rule; and what an overlay may do. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/text.h"
#include "common/core/catalog.h"

static const char *base_url, *key = "test-key";

static const char *environment(const char *name)
{
    return strstr(name, "_BASE_URL") != NULL ? base_url : key;
}

static struct catalog *load(const char *overlay)
{
    struct catalog *c = NULL;
    char problem[300];

    cr_assert_eq(catalog_load(overlay, environment, &c, problem, sizeof problem), ERR_OK, "%s", problem);
    return c;
}

static json_t *parse(const char *text)
{
    json_t *v = json_parse(text, strlen(text), NULL);

    cr_assert_not_null(v, "%s", text);
    return v;
}

static json_t *validate(const struct operation *op, const char *params, struct catalog_faults *faults)
{
    json_t *given = parse(params), *out = catalog_validate(op, given, faults);

    cr_expect_eq(out == NULL, faults->count > 0, "%s: a result and faults exclude each other", params);
    json_decref(given);
    return out;
}

/* ---- what is there */

Test(catalog, has_the_operations_of_design_md_in_order)
{
    static const char *const names[] = {
        "leonardo.generate",
        "openai.images.edit",
        "openai.images.generate",
        "openai.images.variation",
        "stability.3d.fast",
        "stability.3d.point_aware",
        "stability.audio.audio_to_audio",
        "stability.audio.inpaint",
        "stability.audio.text_to_audio",
        "stability.control.sketch",
        "stability.control.structure",
        "stability.control.style",
        "stability.control.style_transfer",
        "stability.edit.erase",
        "stability.edit.inpaint",
        "stability.edit.outpaint",
        "stability.edit.remove_background",
        "stability.edit.replace_background_and_relight",
        "stability.edit.search_and_recolor",
        "stability.edit.search_and_replace",
        "stability.generate.core",
        "stability.generate.sd3",
        "stability.generate.ultra",
        "stability.upscale.conservative",
        "stability.upscale.creative",
        "stability.upscale.fast",
        "stability.v1.image_to_image",
        "stability.v1.masking",
        "stability.v1.text_to_image",
    };
    struct catalog *c = load(NULL);

    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        cr_expect_not_null(catalog_find(c, names[i]), "%s", names[i]);
    for (size_t i = 1; i < catalog_count(c); i++)
        cr_expect_lt(strcmp(catalog_at(c, i - 1)->name, catalog_at(c, i)->name), 0);
    cr_expect_null(catalog_find(c, "stability.generate"));
    cr_expect_null(catalog_find(c, NULL));
    cr_expect_null(catalog_at(c, catalog_count(c)));
    cr_expect_not_null(catalog_provider_find(c, "openai"));
    cr_expect_null(catalog_provider_find(c, "nobody"));
    catalog_free(c);
}

Test(catalog, knows_lanes_schedules_and_what_an_unknown_outcome_becomes)
{
    struct catalog *c = load(NULL);
    const struct operation *openai = catalog_find(c, "openai.images.generate");
    const struct operation *core = catalog_find(c, "stability.generate.core");
    const struct operation *creative = catalog_find(c, "stability.upscale.creative");
    const struct operation *leonardo = catalog_find(c, "leonardo.generate");

    cr_expect_eq(core->provider, creative->provider);
    cr_expect_eq(core->provider->budget_count, 150);
    cr_expect_eq(core->provider->budget_window_ms, 10000);
    cr_expect_eq(leonardo->provider->concurrency, 10);
    cr_expect_eq(openai->provider->concurrency, 0);
    cr_expect_not(openai->is_async);
    cr_expect_not(openai->answers_bytes);
    cr_expect_eq(openai->submit_timeout_ms, 600000);
    cr_expect(core->answers_bytes);
    cr_expect_not(core->is_async);
    cr_expect(creative->is_async);
    cr_expect_geq(creative->poll_every_ms, 10000, "the provider forbids more");
    cr_expect_geq(creative->poll_first_ms, 10000);
    cr_expect_eq(leonardo->poll_first_ms, 4000);
    cr_expect_eq(leonardo->poll_every_ms, 3000);
    cr_expect_eq(leonardo->deadline_s, 300);
    cr_expect_eq(core->on_unknown, UNKNOWN_RETRY);
    cr_expect_eq(creative->on_unknown, UNKNOWN_FAIL);
    cr_expect_eq(leonardo->on_unknown, UNKNOWN_RETRY);
    cr_expect_eq(openai->on_unknown, UNKNOWN_FAIL);
    catalog_free(c);
}

Test(catalog, tells_an_unknown_outcome_by_the_cost_of_the_very_call)
{
    struct catalog *c = load(NULL);
    const struct operation *op = catalog_find(c, "openai.images.generate");
    struct catalog_price cheap = { .units = 1, .unit_cost_microusd = 100000 };
    struct catalog_price dear = { .units = 3, .unit_cost_microusd = 34000 };

    cr_expect_eq(catalog_unknown(op, &cheap), UNKNOWN_RETRY, "0.10 USD is not above 0.10 USD");
    cr_expect_eq(catalog_unknown(op, &dear), UNKNOWN_FAIL);
    catalog_free(c);
}

Test(catalog, takes_several_keys_each_once_and_names_them_by_fingerprint)
{
    struct catalog *c;
    const struct catalog_provider *p;
    char print[KEY_PRINT], *bound;

    base_url = "";
    key = " one, two\r\n\n\tthree,one,,\n";
    c = load(NULL);
    p = catalog_provider_find(c, "stability");
    cr_assert_eq(p->key_count, 3, "%zu", p->key_count);
    cr_expect_str_eq(p->key, "one");
    cr_expect_str_eq(p->keys[1].text, "two");
    cr_expect_str_eq(p->keys[2].text, "three");
    cr_expect_str_eq(p->keys[0].print, "7692c3ad", "of sha256sum");
    cr_expect_eq(catalog_key_find(p, p->keys[2].print), &p->keys[2]);
    cr_expect_null(catalog_key_find(p, "00000000"));
    bound = catalog_key_bind(&p->keys[0], "key:00000000:odd");
    cr_expect_str_eq(bound, "key:7692c3ad:key:00000000:odd");
    cr_expect_str_eq(catalog_key_unbind(bound, print), "key:00000000:odd");
    cr_expect_str_eq(print, "7692c3ad");
    free(bound);
    bound = catalog_key_bind(NULL, "plain");
    cr_expect_str_eq(catalog_key_unbind(bound, print), "plain");
    cr_expect_str_eq(print, "");
    cr_expect_str_eq(catalog_key_unbind("key:7692c3ad", print), "key:7692c3ad");
    cr_expect_str_eq(catalog_key_unbind("key:7692C3AD:x", print), "key:7692C3AD:x");
    free(bound);
    catalog_free(c);
    key = ",\n ,";
    c = load(NULL);
    cr_expect_null(catalog_provider_find(c, "stability")->key, "none is none");
    catalog_free(c);
}

Test(catalog, a_key_that_cannot_be_one_is_named_by_its_place_and_not_shown)
{
    struct catalog *c = NULL;
    char problem[300] = "";

    key = "good,canary with blanks";
    cr_expect_neq(catalog_load(NULL, environment, &c, problem, sizeof problem), ERR_OK);
    cr_expect_not_null(strstr(problem, "key 2"), "%s", problem);
    cr_expect_null(strstr(problem, "canary"), "%s", problem);
}

Test(catalog, takes_key_and_base_url_from_the_environment)
{
    struct catalog *c;
    char problem[300] = "";

    base_url = "http://127.0.0.1:8090/x///";
    c = load(NULL);
    cr_expect_str_eq(catalog_provider_find(c, "stability")->base_url, "http://127.0.0.1:8090/x");
    cr_expect_str_eq(catalog_provider_find(c, "stability")->key, "test-key");
    catalog_free(c);
    base_url = "";
    key = "";
    c = load(NULL);
    cr_expect_str_eq(catalog_provider_find(c, "openai")->base_url, "https://api.openai.com/v1");
    cr_expect_str_eq(catalog_provider_find(c, "leonardo")->base_url, "https://cloud.leonardo.ai/api/rest/v1");
    cr_expect_null(catalog_provider_find(c, "openai")->key);
    catalog_free(c);
    base_url = "ftp://x";
    cr_expect_neq(catalog_load(NULL, environment, &c, problem, sizeof problem), ERR_OK);
    cr_expect_not_null(strstr(problem, "_BASE_URL"), "%s", problem);
    base_url = NULL;
    key = "sk-1\r\nx-evil: 1";
    cr_expect_neq(catalog_load(NULL, environment, &c, problem, sizeof problem), ERR_OK);
    cr_expect_null(strstr(problem, "sk-1"), "a complaint must not show the key");
}

/* ---- parameters, exhaustively */

/* For each operation: parameters that stand, to which one is added at a time. */
static const struct {
    const char *op, *params;
} stands[] = {
    { "openai.images.generate", "{\"prompt\":\"a\"}" },
    { "openai.images.generate", "{\"prompt\":\"a\",\"output_format\":\"webp\"}" },
    { "openai.images.generate", "{\"prompt\":\"a\",\"model\":\"dall-e-2\"}" },
    { "openai.images.generate", "{\"prompt\":\"a\",\"model\":\"dall-e-3\"}" },
    { "stability.generate.core", "{\"prompt\":\"a\"}" },
    { "stability.generate.ultra", "{\"prompt\":\"a\",\"image\":\"https://x.org/a\",\"strength\":1}" },
    { "stability.generate.sd3", "{\"prompt\":\"a\"}" },
    { "stability.generate.sd3",
      "{\"prompt\":\"a\",\"mode\":\"image-to-image\",\"image\":\"data:image/png;base64,AA\",\"strength\":0.5}" },
    { "stability.upscale.creative", "{\"prompt\":\"a\",\"image\":\"http://x.org/a\"}" },
    { "leonardo.generate", "{\"prompt\":\"a\",\"width\":512,\"height\":512}" },
    { "leonardo.generate", "{\"prompt\":\"a\",\"width\":512,\"height\":512,\"alchemy\":false}" },
};

static const char *first_message(const struct catalog_faults *f, const char *name)
{
    for (size_t i = 0; i < f->count && i < ARRAY_LEN(f->items); i++) {
        if (strncmp(f->items[i].field, "params.", 7) == 0 && strcmp(f->items[i].field + 7, name) == 0)
            return f->items[i].message;
    }
    return NULL;
}

/* Adds one value and says what the catalogue says about that field; NULL: nothing. */
static const char *verdict(const struct operation *op, const char *stand, const char *name, json_t *value,
                           struct catalog_faults *faults)
{
    json_t *given = parse(stand), *out;

    (void)json_object_set_new(given, name, value);
    out = catalog_validate(op, given, faults);
    json_decref(out);
    json_decref(given);
    return first_message(faults, name);
}

static bool by_rule(const char *message) /* a rule between parameters, not the parameter's own limit */
{
    return message != NULL && strstr(message, " with ") != NULL;
}

static void expect_edges(const struct operation *op, const char *stand, const char *name, const json_t *spec)
{
    const json_t *min = json_object_get(spec, "min"), *max = json_object_get(spec, "max");
    bool is_integer = strcmp(json_text(spec, "type"), "integer") == 0;
    double step = is_integer ? 1 : 0.001;
    struct catalog_faults f;
    const char *m;

    for (int side = 0; side < 2; side++) {
        const json_t *edge = side == 0 ? min : max;
        double inside = json_number_value(edge), outside = side == 0 ? inside - step : inside + step;

        if (edge == NULL)
            continue;
        m = verdict(op, stand, name, json_deep_copy(edge), &f);
        cr_expect(m == NULL || by_rule(m), "%s.%s at its edge %g: %s", op->name, name, inside, m);
        m = verdict(op, stand, name, is_integer ? json_integer((json_int_t)outside) : json_real(outside), &f);
        cr_expect_not_null(m, "%s.%s beyond its edge: %g", op->name, name, outside);
    }
    m = verdict(op, stand, name, json_string("1"), &f);
    cr_expect_not_null(m, "%s.%s takes a text for a number", op->name, name);
    if (is_integer) {
        m = verdict(op, stand, name, json_real(json_number_value(max) - 0.5), &f);
        cr_expect_not_null(m, "%s.%s takes a fraction", op->name, name);
    }
}

static void expect_values(const struct operation *op, const char *stand, const char *name, const json_t *values)
{
    struct catalog_faults f;
    size_t fine = 0;

    for (size_t i = 0; i < json_array_size(values); i++) {
        const char *m = verdict(op, stand, name, json_deep_copy(json_array_get(values, i)), &f);

        fine += m == NULL;
        cr_expect(m == NULL || by_rule(m), "%s.%s value %zu: %s", op->name, name, i, m);
    }
    cr_expect_not_null(verdict(op, stand, name, json_string("7:1"), &f), "%s.%s", op->name, name);
    cr_expect_not_null(verdict(op, stand, name, json_string(""), &f), "%s.%s", op->name, name);
    cr_expect_not_null(verdict(op, stand, name, json_array(), &f), "%s.%s", op->name, name);
}

static json_t *text_of(size_t characters, const char *one)
{
    struct buf b = { .data = NULL };
    json_t *text;

    for (size_t i = 0; i < characters; i++)
        cr_assert(buf_str(&b, one));
    text = json_string(b.data != NULL ? b.data : "");
    buf_done(&b);
    return text;
}

static void expect_length(const struct operation *op, const char *stand, const char *name, size_t max)
{
    struct catalog_faults f;
    const char *m = verdict(op, stand, name, text_of(max, "\xf0\x9f\x8c\x85"), &f); /* four bytes, one character */

    cr_expect(m == NULL || by_rule(m), "%s.%s: %s", op->name, name, m);
    cr_expect_not_null(verdict(op, stand, name, text_of(max + 1, "a"), &f), "%s.%s", op->name, name);
    cr_expect_not_null(verdict(op, stand, name, json_integer(7), &f), "%s.%s", op->name, name);
}

Test(catalog, holds_every_range_and_every_list_of_every_operation)
{
    struct catalog *c = load(NULL);
    size_t looked_at = 0;

    for (size_t i = 0; i < ARRAY_LEN(stands); i++) {
        const struct operation *op = catalog_find(c, stands[i].op);
        struct catalog_faults f;
        json_t *out = validate(op, stands[i].params, &f);
        const char *name;
        json_t *spec;

        cr_expect_not_null(out, "%s: %s: %s", stands[i].op, f.items[0].field, f.items[0].message);
        json_decref(out);
        json_object_foreach(json_object_get(op->doc, "params"), name, spec)
        {
            int64_t length;

            if (json_object_get(spec, "min") != NULL || json_object_get(spec, "max") != NULL)
                expect_edges(op, stands[i].params, name, spec);
            if (json_object_get(spec, "values") != NULL)
                expect_values(op, stands[i].params, name, json_object_get(spec, "values"));
            if (json_int(spec, "max_length", &length))
                expect_length(op, stands[i].params, name, (size_t)length);
            if (json_bool(spec, "required", false))
                cr_expect_not_null(verdict(op, stands[i].params, name, json_null(), &f), "%s.%s", op->name, name);
            else
                cr_expect(verdict(op, stands[i].params, name, json_null(), &f) == NULL || f.count > 0);
            looked_at++;
        }
    }
    cr_expect_gt(looked_at, 100);
    catalog_free(c);
}

Test(catalog, says_what_is_wrong_in_words)
{
    static const struct {
        const char *op, *params, *field, *message;
    } table[] = {
        { "stability.generate.core", "{\"prompt\":\"a\",\"aspect_ratio\":\"7:1\"}", "params.aspect_ratio",
          "must be one of 21:9, 16:9, 3:2, 5:4, 1:1, 4:5, 2:3, 9:16, 9:21, got \"7:1\"" },
        { "openai.images.generate", "{\"prompt\":\"a\",\"n\":12}", "params.n", "must be between 1 and 10, got 12" },
        { "openai.images.generate", "{}", "params.prompt", "is required" },
        { "openai.images.generate", "{\"prompt\":\"\"}", "params.prompt", "must not be empty" },
        { "openai.images.generate", "{\"prompt\":\"a\",\"stream\":true}", "params.stream",
          "is not a parameter of this operation" },
        { "openai.images.generate", "{\"prompt\":\"a\",\"qualty\":\"low\"}", "params.qualty",
          "is not a parameter of this operation; did you mean quality?" },
        { "openai.images.generate", "[]", "params", "must be an object, got []" },
        { "openai.images.generate", "{\"prompt\":\"a\",\"model\":\"dall-e-3\",\"n\":2}", "params.n",
          "must be at most 1 with model \"dall-e-3\", got 2" },
        { "openai.images.generate", "{\"prompt\":\"a\",\"model\":\"dall-e-2\",\"moderation\":\"low\"}",
          "params.moderation", "is not taken with model \"dall-e-2\"" },
        { "openai.images.generate", "{\"prompt\":\"a\",\"response_format\":\"url\"}", "params.response_format",
          "is not taken with model \"gpt-image-1.5\"" },
        { "openai.images.generate", "{\"prompt\":\"a\",\"size\":\"512x512\"}", "params.size",
          "must be one of 1024x1024, 1536x1024, 1024x1536, auto with model \"gpt-image-1.5\", got \"512x512\"" },
        { "openai.images.generate", "{\"prompt\":\"a\",\"background\":\"transparent\",\"output_format\":\"jpeg\"}",
          "params.output_format", "must be one of png, webp with background \"transparent\", got \"jpeg\"" },
        { "openai.images.generate", "{\"prompt\":\"a\",\"output_format\":\"png\",\"output_compression\":5}",
          "params.output_compression", "is not taken with output_format \"png\"" },
        { "stability.generate.ultra", "{\"prompt\":\"a\",\"image\":\"https://x.org/a\"}", "params.strength",
          "is required with image" },
        { "stability.generate.sd3", "{\"prompt\":\"a\",\"mode\":\"image-to-image\",\"strength\":1}", "params.image",
          "is required with mode \"image-to-image\"" },
        { "stability.upscale.creative", "{\"prompt\":\"a\",\"image\":\"file:///etc/passwd\"}", "params.image",
          "must be the id of an upload or an artifact, a data: URI, or an http: or https: URL, got "
          "\"file:///etc/passwd\"" },
        { "leonardo.generate", "{\"prompt\":\"a\",\"num_images\":5}", "params.num_images",
          "must be at most 4 with width above 768, got 5" },
        { "leonardo.generate", "{\"prompt\":\"a\",\"width\":1000,\"height\":513}", "params.height",
          "must be a multiple of 8, got 513" },
        { "leonardo.generate", "{\"prompt\":\"a\",\"width\":1032}", "params.width",
          "must be at most 1024 with alchemy true, got 1032" },
        { "leonardo.generate", "{\"prompt\":\"a\",\"ultra\":true,\"alchemy\":true}", "params.alchemy",
          "must be false with ultra true, got true" },
        { "leonardo.generate",
          "{\"prompt\":\"a\",\"modelId\":\"b24e16ff-06e3-43eb-8d33-4416c2d75876\","
          "\"sd_version\":\"v2\"}",
          "params.modelId", "is not taken with sd_version" },
        { "leonardo.generate", "{\"prompt\":\"a\",\"init_image_id\":\"x\"}", "params.init_image_id",
          "must be a UUID, got \"x\"" },
        { "leonardo.generate", "{\"prompt\":\"a\",\"tiling\":1}", "params.tiling", "must be true or false, got 1" },
        { "leonardo.generate", "{\"prompt\":\"a\",\"elements\":{}}", "params.elements", "must be a list, got {}" },
    };
    struct catalog *c = load(NULL);

    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        struct catalog_faults f;
        json_t *out = validate(catalog_find(c, table[i].op), table[i].params, &f);

        cr_expect_null(out, "%s", table[i].params);
        cr_expect_eq(f.count, 1, "%s: %zu faults", table[i].params, f.count);
        cr_expect_str_eq(f.items[0].field, table[i].field);
        cr_expect_str_eq(f.items[0].message, table[i].message);
        json_decref(out);
    }
    catalog_free(c);
}

Test(catalog, fills_defaults_in_and_types_numbers)
{
    static const struct {
        const char *op, *params, *whole;
    } table[] = {
        { "openai.images.generate", "{\"prompt\":\"a\",\"quality\":null,\"n\":2.0}",
          "{\"model\":\"gpt-image-1.5\",\"n\":2,\"prompt\":\"a\",\"quality\":\"medium\",\"size\":\"1024x1024\"}" },
        { "openai.images.generate", "{\"prompt\":\"a\",\"model\":\"dall-e-3\"}",
          "{\"model\":\"dall-e-3\",\"n\":1,\"prompt\":\"a\",\"quality\":\"standard\",\"size\":\"1024x1024\"}" },
        { "openai.images.generate", "{\"prompt\":\"a\",\"model\":\"dall-e-2\"}",
          "{\"model\":\"dall-e-2\",\"n\":1,\"prompt\":\"a\",\"size\":\"1024x1024\"}" },
        { "stability.generate.sd3", "{\"prompt\":\"a\",\"model\":\"sd3.5-flash\"}",
          "{\"aspect_ratio\":\"1:1\",\"cfg_scale\":1.0,\"mode\":\"text-to-image\",\"model\":\"sd3.5-flash\","
          "\"output_format\":\"png\",\"prompt\":\"a\"}" },
        { "stability.generate.sd3",
          "{\"prompt\":\"a\",\"mode\":\"image-to-image\",\"image\":\"https://x.org/a\",\"strength\":1}",
          "{\"cfg_scale\":4.0,\"image\":\"https://x.org/a\",\"mode\":\"image-to-image\",\"model\":\"sd3.5-large\","
          "\"output_format\":\"png\",\"prompt\":\"a\",\"strength\":1.0}" },
        { "leonardo.generate", "{\"prompt\":\"a\",\"sd_version\":\"v2\",\"ultra\":true}",
          "{\"alchemy\":false,\"height\":768,\"num_images\":1,\"presetStyle\":\"LEONARDO\",\"prompt\":\"a\","
          "\"public\":false,\"sd_version\":\"v2\",\"ultra\":true,\"width\":1024}" },
    };
    struct catalog *c = load(NULL);

    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        struct catalog_faults f;
        json_t *out = validate(catalog_find(c, table[i].op), table[i].params, &f);
        char *text = out != NULL ? json_print(out) : NULL;

        cr_expect_not_null(text, "%s: %s", f.items[0].field, f.items[0].message);
        if (text != NULL)
            cr_expect_str_eq(text, table[i].whole);
        free(text);
        json_decref(out);
    }
    catalog_free(c);
}

Test(catalog, takes_any_size_of_gpt_image_2_that_its_rules_allow)
{
    static const struct {
        const char *size;
        bool is_fine;
    } table[] = {
        { "auto", true },
        { "1024x1024", true },
        { "3840x2160", true },
        { "2160x3840", true },
        { "1024x640", true },
        { "1024x624", false },
        { "3840x2176", false },
        { "3856x1024", false },
        { "1000x1024", false },
        { "3072x1024", true },
        { "3088x1024", false },
        { "1024x3072", true },
        { "1024X1024", false },
        { "01024x1024", false },
        { "1024x", false },
        { "x1024", false },
        { "1024x1024x1", false },
        { "-16x1024", false },
        { "99999999999999999999x16", false },
        { "", false },
    };
    struct catalog *c = load(NULL);
    const struct operation *op = catalog_find(c, "openai.images.generate");

    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        char params[160];
        struct catalog_faults f;
        struct catalog_price p;
        json_t *out;

        (void)snprintf(params, sizeof params, "{\"prompt\":\"a\",\"model\":\"gpt-image-2\",\"size\":\"%s\"}",
                       table[i].size);
        out = validate(op, params, &f);
        cr_expect_eq(out != NULL, table[i].is_fine, "%s: %s", table[i].size, f.count > 0 ? f.items[0].message : "fine");
        if (out != NULL)
            cr_expect_eq(catalog_price(op, out, &p), ERR_OK, "%s has no price", table[i].size);
        json_decref(out);
    }
    catalog_free(c);
}

Test(catalog, keeps_messages_whole_and_short_whatever_was_sent)
{
    struct catalog *c = load(NULL);
    const struct operation *op = catalog_find(c, "openai.images.generate");
    json_t *given = parse("{\"prompt\":7}"), *out;
    struct catalog_faults f;
    char name[400];

    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    memcpy(name + 61, "\xf0\x9f\x8c\x85", 4); /* a character across the place where names are cut */
    (void)json_object_set_new(given, name, json_integer(1));
    (void)json_object_set_new(given, "model", text_of(100000, "\xf0\x9f\x8c\x85"));
    (void)json_object_set_new(given, "user", json_integer(1));
    for (int i = 0; i < 40; i++) {
        (void)snprintf(name, sizeof name, "unknown_%d", i);
        (void)json_object_set_new(given, name, json_null());
    }
    out = catalog_validate(op, given, &f);
    cr_expect_null(out);
    cr_expect_eq(f.count, 44, "all are counted, 16 are kept; got %zu", f.count);
    for (size_t i = 0; i < ARRAY_LEN(f.items); i++) {
        cr_expect(utf8_valid(f.items[i].field, strlen(f.items[i].field)));
        cr_expect(utf8_valid(f.items[i].message, strlen(f.items[i].message)));
    }
    json_decref(given);
    catalog_free(c);
}

/* ---- prices */

static int64_t price_of(const struct operation *op, const char *params, int64_t *units, int64_t *cost)
{
    struct catalog_faults f;
    struct catalog_price p = { .unit_mc = 0 };
    json_t *out = validate(op, params, &f);
    enum err e;

    cr_assert_not_null(out, "%s: %s: %s", params, f.items[0].field, f.items[0].message);
    e = catalog_price(op, out, &p);
    json_decref(out);
    cr_expect_eq(e, ERR_OK, "%s has no price", params);
    cr_expect_not_null(p.version);
    if (units != NULL)
        *units = p.units;
    if (cost != NULL)
        *cost = p.unit_cost_microusd;
    return p.unit_mc;
}

Test(catalog, charges_what_the_pages_list)
{
    static const struct {
        const char *op, *params;
        int64_t mc, units, microusd;
    } table[] = {
        { "stability.generate.core", "{\"prompt\":\"a\"}", 3000, 1, 30000 },
        { "stability.generate.ultra", "{\"prompt\":\"a\"}", 8000, 1, 80000 },
        { "stability.generate.sd3", "{\"prompt\":\"a\"}", 6500, 1, 65000 },
        { "stability.generate.sd3", "{\"prompt\":\"a\",\"model\":\"sd3.5-large-turbo\"}", 4000, 1, 40000 },
        { "stability.generate.sd3", "{\"prompt\":\"a\",\"model\":\"sd3.5-medium\"}", 3500, 1, 35000 },
        { "stability.generate.sd3", "{\"prompt\":\"a\",\"model\":\"sd3.5-flash\"}", 2500, 1, 25000 },
        { "stability.upscale.creative", "{\"prompt\":\"a\",\"image\":\"https://x.org/a\"}", 60000, 1, 600000 },
        { "leonardo.generate", "{\"prompt\":\"a\"}", 200, 1, 1500 },
        { "leonardo.generate", "{\"prompt\":\"a\",\"num_images\":4}", 200, 4, 1500 },
        { "openai.images.generate", "{\"prompt\":\"a\"}", 3400, 1, 34000 },
        { "openai.images.generate", "{\"prompt\":\"a\",\"n\":10,\"quality\":\"high\"}", 13300, 10, 133000 },
        { "openai.images.generate", "{\"prompt\":\"a\",\"quality\":\"low\"}", 900, 1, 9000 },
        { "openai.images.generate", "{\"prompt\":\"a\",\"quality\":\"auto\",\"size\":\"auto\"}", 20000, 1, 200000 },
        { "openai.images.generate", "{\"prompt\":\"a\",\"size\":\"1024x1536\"}", 5100, 1, 51000 },
        { "openai.images.generate", "{\"prompt\":\"a\",\"size\":\"1536x1024\"}", 5100, 1, 51000 },
        { "openai.images.generate", "{\"prompt\":\"a\",\"model\":\"gpt-image-1\",\"quality\":\"high\"}", 16700, 1,
          167000 },
        { "openai.images.generate",
          "{\"prompt\":\"a\",\"model\":\"gpt-image-1\",\"quality\":\"high\",\"size\":\"1024x1536\"}", 25000, 1,
          250000 },
        { "openai.images.generate", "{\"prompt\":\"a\",\"model\":\"gpt-image-1-mini\",\"quality\":\"low\"}", 500, 1,
          5000 },
        { "openai.images.generate",
          "{\"prompt\":\"a\",\"model\":\"gpt-image-1-mini\",\"quality\":\"high\",\"size\":\"1024x1536\"}", 5200, 1,
          52000 },
        { "openai.images.generate", "{\"prompt\":\"a\",\"model\":\"gpt-image-2\",\"quality\":\"high\"}", 21100, 1,
          211000 },
        { "openai.images.generate", "{\"prompt\":\"a\",\"model\":\"gpt-image-2\",\"quality\":\"low\"}", 600, 1, 6000 },
        { "openai.images.generate",
          "{\"prompt\":\"a\",\"model\":\"gpt-image-2\",\"quality\":\"medium\",\"size\":\"2048x1024\"}", 10600, 1,
          106000 },
        { "openai.images.generate", "{\"prompt\":\"a\",\"model\":\"dall-e-3\"}", 4000, 1, 40000 },
        { "openai.images.generate", "{\"prompt\":\"a\",\"model\":\"dall-e-3\",\"quality\":\"auto\"}", 8000, 1, 80000 },
        { "openai.images.generate",
          "{\"prompt\":\"a\",\"model\":\"dall-e-3\",\"quality\":\"hd\",\"size\":\"1792x1024\"}", 12000, 1, 120000 },
        { "openai.images.generate", "{\"prompt\":\"a\",\"model\":\"dall-e-2\",\"size\":\"256x256\"}", 1600, 1, 16000 },
        { "openai.images.generate", "{\"prompt\":\"a\",\"model\":\"dall-e-2\",\"size\":\"512x512\"}", 1800, 1, 18000 },
        { "openai.images.generate", "{\"prompt\":\"a\",\"model\":\"dall-e-2\"}", 2000, 1, 20000 },
    };
    struct catalog *c = load(NULL);

    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        int64_t units, cost, mc = price_of(catalog_find(c, table[i].op), table[i].params, &units, &cost);

        cr_expect_eq(mc, table[i].mc, "%s: %lld mc", table[i].params, (long long)mc);
        cr_expect_eq(units, table[i].units, "%s: %lld units", table[i].params, (long long)units);
        cr_expect_eq(cost, table[i].microusd, "%s: %lld", table[i].params, (long long)cost);
    }
    catalog_free(c);
}

/* Every combination of model, quality and size that the rules let through has a price, in whole tenths of a credit, not
 * below its cost; and auto costs as much as the dearest that it could become. */
Test(catalog, has_a_price_for_every_combination_that_it_accepts)
{
    static const char *const sizes[] = { "256x256",   "512x512",  "1024x1024", "1536x1024", "1024x1536", "1792x1024",
                                         "1024x1792", "1024x640", "2048x2048", "2560x1440", "3840x2160", "auto" };
    struct catalog *c = load(NULL);
    const struct operation *op = catalog_find(c, "openai.images.generate");
    const json_t *params = json_object_get(op->doc, "params");
    const json_t *models = json_object_get(json_object_get(params, "model"), "values");
    const json_t *qualities = json_object_get(json_object_get(params, "quality"), "values");
    size_t accepted = 0;

    for (size_t m = 0; m < json_array_size(models); m++) {
        int64_t dearest = 0, dearest_auto = 0;

        for (size_t q = 0; q < json_array_size(qualities); q++) {
            for (size_t s = 0; s < ARRAY_LEN(sizes); s++) {
                const char *quality = json_string_value(json_array_get(qualities, q));
                json_t *given = json_pack("{s:s, s:O, s:s, s:s}", "prompt", "a", "model", json_array_get(models, m),
                                          "quality", quality, "size", sizes[s]);
                struct catalog_faults f;
                struct catalog_price p = { .unit_mc = 0 };
                json_t *out = catalog_validate(op, given, &f);

                if (out != NULL) {
                    accepted++;
                    cr_expect_eq(catalog_price(op, out, &p), ERR_OK, "%zu %s %s", m, quality, sizes[s]);
                    cr_expect_gt(p.unit_mc, 0);
                    cr_expect_eq(p.unit_mc % 100, 0);
                    cr_expect_geq(p.unit_mc * 10, p.unit_cost_microusd, "sold below its cost");
                    dearest = p.unit_mc > dearest ? p.unit_mc : dearest;
                    if (strcmp(quality, "auto") == 0 && p.unit_mc > dearest_auto)
                        dearest_auto = p.unit_mc;
                }
                json_decref(out);
                json_decref(given);
            }
        }
        cr_expect_eq(dearest_auto, dearest, "model %zu", m);
    }
    cr_expect_gt(accepted, 100, "only %zu combinations were looked at", accepted);
    catalog_free(c);
}

Test(catalog, refuses_what_has_no_price)
{
    struct catalog *c = load(NULL);
    json_t *params = parse("{\"model\":\"gpt-image-9\",\"quality\":\"high\",\"size\":\"1024x1024\",\"n\":1}");
    struct catalog_price p;

    cr_expect_eq(catalog_price(catalog_find(c, "openai.images.generate"), params, &p), ERR_ARGUMENT);
    json_decref(params);
    catalog_free(c);
}

Test(catalog, books_tokens_as_cost_where_the_page_prices_them)
{
    static const struct {
        const char *model, *usage;
        int64_t microusd;
    } table[] = {
        { "gpt-image-1.5",
          "{\"input_tokens\":17,\"input_tokens_details\":{\"text_tokens\":17,\"image_tokens\":0},"
          "\"output_tokens\":1584}",
          17 * 5 + 1584 * 32 },
        { "gpt-image-1",
          "{\"input_tokens\":30,\"input_tokens_details\":{\"text_tokens\":10,\"image_tokens\":20},"
          "\"output_tokens\":4160}",
          10 * 5 + 20 * 10 + 4160 * 40 },
        { "gpt-image-2", "{\"input_tokens\":100,\"output_tokens\":7024}", 100 * 8 + 7024 * 30 },
        { "gpt-image-1-mini", "{\"input_tokens\":17,\"output_tokens\":272}", -1 },
        { "dall-e-3", "{\"input_tokens\":17,\"output_tokens\":272}", -1 },
        { "gpt-image-1", "{}", -1 },
        { "gpt-image-1", "{\"output_tokens\":-5}", -1 },
        { "gpt-image-1", "{\"output_tokens\":9223372036854775807}", -1 },
        { "gpt-image-1", "[]", -1 },
    };
    struct catalog *c = load(NULL);

    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        json_t *params = json_pack("{s:s}", "model", table[i].model), *usage = parse(table[i].usage);
        int64_t got = catalog_cost_microusd(catalog_find(c, "openai.images.generate"), params, usage);

        cr_expect_eq(got, table[i].microusd, "%s %s: %lld", table[i].model, table[i].usage, (long long)got);
        json_decref(params);
        json_decref(usage);
    }
    catalog_free(c);
}

/* ---- files */

Test(catalog, refuses_input_files_outside_the_limits)
{
    static const struct {
        const char *op, *field;
        struct media_head head;
        int64_t bytes;
        const char *message; /* NULL: fits */
    } table[] = {
        { "stability.upscale.creative", "image", { MEDIA_PNG, 64, 64, false, 0, 0 }, 100, NULL },
        { "stability.upscale.creative", "image", { MEDIA_JPEG, 1024, 1024, false, 0, 0 }, 10354688, NULL },
        { "stability.upscale.creative", "image", { MEDIA_WEBP, 64, 16384, false, 0, 0 }, 100, NULL },
        { "stability.upscale.creative",
          "image",
          { MEDIA_PNG, 1024, 1025, false, 0, 0 },
          100,
          "must have at most 1048576 pixels, got 1024x1025" },
        { "stability.upscale.creative",
          "image",
          { MEDIA_PNG, 63, 100, false, 0, 0 },
          100,
          "must have sides of at least 64 pixels, got 63x100" },
        { "stability.upscale.creative",
          "image",
          { MEDIA_GIF, 100, 100, false, 0, 0 },
          100,
          "must be one of jpeg, png, webp, got gif" },
        { "stability.upscale.creative",
          "image",
          { MEDIA_UNKNOWN, 0, 0, false, 0, 0 },
          100,
          "must be one of jpeg, png, webp, got something else" },
        { "stability.upscale.creative",
          "image",
          { MEDIA_PNG, 0, 0, false, 0, 0 },
          100,
          "must be an image whose size can be read" },
        { "stability.upscale.creative",
          "image",
          { MEDIA_PNG, 100, 100, false, 0, 0 },
          10354689,
          "must have at most 10354688 bytes, got 10354689" },
        { "stability.upscale.creative", "image", { MEDIA_PNG, 100, 100, false, 0, 0 }, 0, "must not be empty" },
        { "stability.upscale.creative",
          "prompt",
          { MEDIA_PNG, 100, 100, false, 0, 0 },
          10,
          "is not a file parameter of this operation" },
        { "stability.generate.ultra", "image", { MEDIA_PNG, 16384, 1024, false, 0, 0 }, 10, NULL },
        { "stability.generate.ultra",
          "image",
          { MEDIA_PNG, 16385, 64, false, 0, 0 },
          10,
          "must have sides of at most 16384 pixels, got 16385x64" },
        { "stability.generate.sd3", "image", { MEDIA_PNG, 20000, 64, false, 0, 0 }, 10, NULL },
        { "stability.generate.ultra", "image", { MEDIA_PNG, INT64_MAX, INT64_MAX, false, 0, 0 }, 10, "" },
    };
    struct catalog *c = load(NULL);

    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        char message[200] = "";
        bool fits = catalog_input_fits(catalog_find(c, table[i].op), table[i].field, &table[i].head, table[i].bytes,
                                       message, sizeof message);

        cr_expect_eq(fits, table[i].message == NULL, "row %zu: %s", i, message);
        if (!fits && table[i].message != NULL && table[i].message[0] != '\0')
            cr_expect_str_eq(message, table[i].message);
    }
    catalog_free(c);
}

Test(catalog, lists_the_file_parameters)
{
    struct catalog *c = load(NULL);
    struct catalog_input inputs[4];

    cr_assert_eq(catalog_inputs(catalog_find(c, "stability.upscale.creative"), inputs, 4), 1);
    cr_expect_str_eq(inputs[0].name, "image");
    cr_expect(inputs[0].is_required);
    cr_expect_not(inputs[0].is_list);
    cr_expect_eq(inputs[0].max_bytes, 10354688);
    cr_expect_eq(catalog_inputs(catalog_find(c, "stability.generate.ultra"), NULL, 0), 1);
    cr_expect_eq(catalog_inputs(catalog_find(c, "openai.images.generate"), inputs, 4), 0);
    catalog_free(c);
}

/* ---- descriptions */

Test(catalog, describes_every_operation_from_the_same_data)
{
    struct catalog *c = load(NULL);

    for (size_t i = 0; i < catalog_count(c); i++) {
        const struct operation *op = catalog_at(c, i);
        json_t *d = catalog_describe(op);
        const json_t *params = json_object_get(d, "params"), *price = json_object_get(d, "price");

        cr_expect_str_eq(json_text(d, "name"), op->name);
        cr_expect_str_eq(json_text(d, "provider"), op->provider->name);
        cr_expect_not_null(json_text(d, "price_version"));
        cr_expect_not_null(json_text(price, "text"));
        cr_expect_gt(json_array_size(json_object_get(price, "table")), 0);
        cr_expect_eq(json_object_size(json_object_get(params, "properties")),
                     json_object_size(json_object_get(op->doc, "params")));
        cr_expect_eq(json_array_size(json_object_get(params, "allOf")),
                     json_array_size(json_object_get(op->doc, "rules")));
        cr_expect_eq(json_array_size(json_object_get(d, "inputs")), catalog_inputs(op, NULL, 0));
        cr_expect_gt(json_integer_value(json_object_get(d, "typical_s")), 0);
        cr_expect_null(strstr(json_text(d, "description"), "test-key"));
        json_decref(d);
    }
    catalog_free(c);
}

/* ---- overlays */

static char overlay_dir[] = "/tmp/kiln-catalog-XXXXXX";

static void overlay_write(const char *name, const char *text)
{
    char path[128];
    FILE *f;

    (void)snprintf(path, sizeof path, "%s/%s", overlay_dir, name);
    f = fopen(path, "w");
    cr_assert_not_null(f);
    (void)fputs(text, f);
    (void)fclose(f);
}

static void overlay_begin(void)
{
    cr_assert_not_null(mkdtemp(overlay_dir));
}

static void overlay_end(void)
{
    static const char *const names[] = { "a.json", "b.json", "notes.txt" };
    char path[128];

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        (void)snprintf(path, sizeof path, "%s/%s", overlay_dir, names[i]);
        (void)unlink(path);
    }
    (void)rmdir(overlay_dir);
}

Test(overlay, replaces_only_what_it_names, .init = overlay_begin, .fini = overlay_end)
{
    struct catalog *c;
    const struct operation *op;

    overlay_write("a.json", "{\"provider\":\"stability\",\"lane\":{},\"operations\":{"
                            "\"stability.upscale.creative\":{\"poll\":{\"every_ms\":500},\"deadline_s\":60,"
                            "\"on_unknown\":\"retry\"}}}");
    overlay_write("b.json", "{\"provider\":\"stability\",\"operations\":{\"stability.upscale.creative\":"
                            "{\"price\":{\"unit\":\"image\",\"version\":\"mine\",\"rows\":[{\"credits\":70}]}}}}");
    overlay_write("notes.txt", "not JSON, not read");
    c = load(overlay_dir);
    op = catalog_find(c, "stability.upscale.creative");
    cr_expect_eq(op->poll_every_ms, 500);
    cr_expect_eq(op->poll_first_ms, 10000);
    cr_expect_eq(op->deadline_s, 60);
    cr_expect_eq(op->on_unknown, UNKNOWN_RETRY);
    cr_expect_eq(op->provider->budget_count, 0, "the lane is replaced whole");
    cr_expect_eq(price_of(op, "{\"prompt\":\"a\",\"image\":\"https://x.org/a\"}", NULL, NULL), 70000);
    cr_expect_str_eq(json_text(json_object_get(op->doc, "price"), "version"), "mine");
    cr_expect_not_null(catalog_find(c, "openai.images.generate"), "what it does not name stays");
    catalog_free(c);
}

Test(overlay, adds_a_model_an_operation_and_a_provider_without_code, .init = overlay_begin, .fini = overlay_end)
{
    struct catalog *c;
    struct catalog_faults f;
    json_t *out;

    overlay_write(
        "a.json",
        "{\"provider\":\"stability\",\"operations\":{\"stability.generate.core\":null,"
        "\"stability.upscale.fast\":{\"description\":\"fast\",\"typical_s\":2,\"submit\":{\"method\":\"POST\","
        "\"path\":\"/v2beta/stable-image/upscale/fast\",\"body\":\"multipart\",\"accept\":\"image/*\","
        "\"timeout_ms\":60000},\"answer\":\"file\",\"deadline_s\":60,\"failed_is_free\":true,"
        "\"output\":\"image\",\"max_result_bytes\":1000,\"max_result_pixels\":1000,"
        "\"params\":{\"image\":{\"like\":\"image\",\"required\":true,\"min_side\":32},"
        "\"left\":{\"type\":\"integer\",\"min\":0,\"max\":9},\"up\":{\"type\":\"integer\"}},"
        "\"rules\":[{\"any_of\":[\"left\",\"up\"]}],"
        "\"price\":{\"unit\":\"image\",\"rows\":[{\"credits\":2}]}}}}");
    overlay_write("b.json",
                  "{\"provider\":\"local\",\"base_url\":\"http://127.0.0.1:7860\",\"base_url_env\":\"LOCAL_BASE_URL\","
                  "\"auth\":{\"header\":\"x\",\"prefix\":\"\"},\"lane\":{\"concurrency\":1},"
                  "\"price_version\":\"1\",\"operations\":{}}");
    c = load(overlay_dir);
    cr_expect_null(catalog_find(c, "stability.generate.core"));
    cr_expect_eq(catalog_provider_find(c, "local")->concurrency, 1);
    cr_assert_not_null(catalog_find(c, "stability.upscale.fast"));
    out = validate(catalog_find(c, "stability.upscale.fast"), "{\"image\":\"https://x.org/a\"}", &f);
    cr_expect_null(out);
    cr_expect_str_eq(f.items[0].message, "needs at least one of left, up");
    out = validate(catalog_find(c, "stability.upscale.fast"), "{\"image\":\"https://x.org/a\",\"up\":1}", &f);
    cr_expect_not_null(out);
    json_decref(out);
    catalog_free(c);
}

Test(overlay, is_refused_with_file_operation_and_field, .init = overlay_begin, .fini = overlay_end)
{
    static const struct {
        const char *text, *problem; /* parts of it, one after the other, split at '|' */
    } table[] = {
        { "{", "a.json|JSON" },
        { "[]", "a.json|must be an object" },
        { "{\"operations\":{}}", "a.json|provider" },
        { "{\"provider\":\"stability\",\"lanes\":{}}", "a.json|stability|lanes|is not a member" },
        { "{\"provider\":\"stability\",\"lane\":{\"concurrency\":-1}}", "a.json|lane.concurrency|at least 0" },
        { "{\"provider\":\"stability\",\"lane\":{\"budget\":{\"count\":1}}}", "a.json|lane.budget.window_ms|required" },
        { "{\"provider\":\"stability\",\"base_url\":\"x\"}", "a.json|base_url|http" },
        { "{\"provider\":\"stability\",\"operations\":{\"stability.generate.core\":{\"deadline\":5}}}",
          "a.json|stability.generate.core|deadline|is not a member" },
        { "{\"provider\":\"stability\",\"operations\":{\"stability.generate.core\":{\"deadline_s\":0}}}",
          "a.json|stability.generate.core|deadline_s|positive" },
        { "{\"provider\":\"stability\",\"operations\":{\"stability.generate.core\":{\"submit\":{\"path\":\"x\"}}}}",
          "a.json|submit.path|begin with /" },
        { "{\"provider\":\"stability\",\"operations\":{\"stability.upscale.creative\":{\"poll\":{\"path\":\"/x\"}}}}",
          "poll.path|{ref}" },
        { "{\"provider\":\"stability\",\"operations\":{\"stability.generate.core\":{\"params\":{\"seed\":"
          "{\"like\":\"sead\"}}}}}",
          "a.json|stability.generate.core|seed|like" },
        { "{\"provider\":\"stability\",\"operations\":{\"stability.generate.core\":{\"params\":{\"seed\":"
          "{\"type\":\"integer\",\"maximum\":3}}}}}",
          "params.seed.maximum|is not a member" },
        { "{\"provider\":\"stability\",\"operations\":{\"stability.generate.core\":{\"params\":{\"seed\":"
          "{\"type\":\"integer\",\"max\":3,\"default\":4}}}}}",
          "params.seed|default must be at most 3" },
        { "{\"provider\":\"stability\",\"operations\":{\"stability.generate.core\":{\"rules\":[{\"when\":{\"x\":1},"
          "\"then\":{}}]}}}",
          "rules[0].x|is not a parameter" },
        { "{\"provider\":\"stability\",\"operations\":{\"stability.generate.core\":{\"rules\":[{\"when\":"
          "{\"output_format\":\"png\"},\"then\":{\"aspect_ratio\":{\"default\":\"1:1\"}}}]}}}",
          "must be listed before" },
        { "{\"provider\":\"stability\",\"operations\":{\"stability.generate.core\":{\"price\":{\"unit\":\"image\","
          "\"rows\":[{\"credits\":0}]}}}}",
          "price.rows[0]|above 0" },
        { "{\"provider\":\"stability\",\"operations\":{\"stability.generate.core\":{\"price\":{\"unit\":\"image\","
          "\"units\":\"prompt\",\"rows\":[{\"credits\":1}]}}}}",
          "price.units|integer" },
        { "{\"provider\":\"stability\",\"operations\":{\"stability.generate.core\":{\"price\":null}}}",
          "price|is required" },
        { "{\"provider\":\"stability\",\"operations\":{\"stability.generate.core\":{\"output\":\"video game\"}}}",
          "output|is not a word" },
    };

    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        struct catalog *c = NULL;
        char problem[300] = "", parts[128], *rest = parts, *part;
        enum err e;

        overlay_write("a.json", table[i].text);
        e = catalog_load(overlay_dir, environment, &c, problem, sizeof problem);
        cr_expect_neq(e, ERR_OK, "%s was taken", table[i].text);
        (void)snprintf(parts, sizeof parts, "%s", table[i].problem);
        while ((part = strtok_r(rest, "|", &rest)) != NULL)
            cr_expect_not_null(strstr(problem, part), "no \"%s\" in: %s", part, problem);
        if (e == ERR_OK)
            catalog_free(c);
    }
}

Test(overlay, a_folder_that_is_not_there_is_an_error)
{
    struct catalog *c = NULL;
    char problem[300] = "";

    cr_expect_neq(catalog_load("/nowhere/at/all", environment, &c, problem, sizeof problem), ERR_OK);
    cr_expect_not_null(strstr(problem, "/nowhere/at/all"));
}

/* ---- the schema's description */

static const json_t *definition(const json_t *schema, const char *name)
{
    return json_object_get(json_object_get(json_object_get(schema, "$defs"), name), "properties");
}

static void expect_described(const json_t *object, const json_t *properties, const char *what)
{
    const char *member;
    json_t *value;

    json_object_foreach((json_t *)object, member, value)
        cr_expect_not_null(json_object_get(properties, member), "catalog.schema.json: no \"%s\" in %s", member, what);
}

Test(catalog, its_schema_describes_every_member_that_its_files_use)
{
    json_t *schema = json_load_file("schema/catalog.schema.json", 0, NULL), *value;
    const json_t *then = json_object_get(json_object_get(definition(schema, "rule"), "then"), "additionalProperties");
    struct catalog *c = load(NULL);
    const char *name;

    cr_assert_not_null(schema);
    for (size_t i = 0; i < catalog_count(c); i++) {
        const json_t *doc = catalog_at(c, i)->doc, *rules = json_object_get(doc, "rules");

        expect_described(doc, definition(schema, "operation"), "operation");
        expect_described(json_object_get(doc, "price"), definition(schema, "price"), "price");
        json_object_foreach(json_object_get(doc, "params"), name, value)
            expect_described(value, definition(schema, "spec"), "spec");
        for (size_t r = 0; r < json_array_size(rules); r++) {
            expect_described(json_array_get(rules, r), definition(schema, "rule"), "rule");
            json_object_foreach(json_object_get(json_array_get(rules, r), "then"), name, value)
                expect_described(value, json_object_get(then, "properties"), "then");
        }
    }
    catalog_free(c);
    json_decref(schema);
}
