/* test_route.c - plans of routes: which providers can serve a job, in which order, with which parameters and price; and
 * what is wrong with a route's file. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "common/base/text.h"
#include "common/core/catalog_route.h"
#include "common/core/job.h"

static const char *with_keys = "OPENAI_API_KEY STABILITY_API_KEY LEONARDO_API_KEY";

static bool everybody;

static const char *environment(const char *name)
{
    if (everybody)
        return strstr(name, "_BASE_URL") != NULL ? "http://127.0.0.1:1" : "test-key";
    return strstr(with_keys, name) != NULL ? "test-key" : NULL;
}

static struct catalog *load(const char *overlay, char *problem, size_t size)
{
    struct catalog *c = NULL;

    (void)catalog_load(overlay, environment, &c, problem, size);
    return c;
}

static json_t *parse(const char *text)
{
    json_t *v = text != NULL ? json_parse(text, strlen(text), NULL) : NULL;

    cr_assert(v != NULL || text == NULL, "%s", text);
    return v;
}

/* "leonardo stability openai", or the faults' first message after a '!'. */
static const char *planned(const char *params, const char *inputs, const char *providers, json_t **legs)
{
    static char out[400];
    char problem[300] = "";
    struct catalog *c = load(NULL, problem, sizeof problem);
    const struct catalog_route *route = c != NULL ? catalog_route_find(c, "image.generate") : NULL;
    struct catalog_faults faults = { 0 };
    struct catalog_plan plan;
    json_t *given = parse(params), *in = parse(inputs), *who = parse(providers), *checked;

    cr_assert_not_null(route, "%s", problem);
    checked = catalog_validate(&route->vocabulary, given, &faults);
    cr_assert_not_null(checked, "%s: %s", params, faults.items[0].message);
    out[0] = '\0';
    if (catalog_plan_make(c, route, checked, in, who, &plan, &faults)) {
        for (size_t i = 0; i < plan.count; i++)
            (void)snprintf(out + strlen(out), sizeof out - strlen(out), "%s%s", i > 0 ? " " : "",
                           plan.legs[i].op->provider->name);
        if (legs != NULL)
            *legs = catalog_plan_json(&plan);
    } else {
        (void)snprintf(out, sizeof out, "!%s", faults.items[0].message);
    }
    catalog_plan_done(&plan);
    json_decref(given);
    json_decref(in);
    json_decref(who);
    json_decref(checked);
    catalog_free(c);
    return out;
}

Test(route, the_cheapest_comes_first_among_those_who_can)
{
    cr_expect_str_eq(planned("{\"prompt\":\"x\"}", NULL, NULL, NULL), "leonardo stability openai");
    cr_expect_str_eq(planned("{\"prompt\":\"x\",\"aspect_ratio\":\"21:9\"}", NULL, NULL, NULL), "leonardo stability");
    cr_expect_str_eq(planned("{\"prompt\":\"x\",\"size\":\"1000x800\"}", NULL, NULL, NULL), "leonardo");
    cr_expect_str_eq(planned("{\"prompt\":\"x\",\"n\":3}", NULL, NULL, NULL), "leonardo openai");
    cr_expect_str_eq(planned("{\"prompt\":\"x\"}", NULL, "[\"openai\",\"leonardo\"]", NULL), "openai leonardo");
}

Test(route, a_provider_without_a_key_is_not_asked)
{
    with_keys = "OPENAI_API_KEY";
    cr_expect_str_eq(planned("{\"prompt\":\"x\"}", NULL, NULL, NULL), "openai");
    cr_expect_str_eq(planned("{\"prompt\":\"x\"}", NULL, "[\"stability\"]", NULL), "!stability has no key here");
    with_keys = "";
    cr_expect_str_eq(planned("{\"prompt\":\"x\"}", NULL, NULL, NULL), "!none of its providers has a key here");
}

Test(route, each_leg_has_its_providers_own_parameters_and_price)
{
    json_t *legs = NULL;

    (void)planned("{\"prompt\":\"x\",\"aspect_ratio\":\"3:2\",\"seed\":7,\"output_format\":\"webp\"}", NULL, NULL,
                  &legs);
    cr_assert_eq(json_array_size(legs), 3);
    cr_expect_eq(json_integer_value(json_object_get(json_object_get(json_array_get(legs, 0), "params"), "width")),
                 1008);
    cr_expect_eq(json_integer_value(json_object_get(json_object_get(json_array_get(legs, 0), "params"), "height")),
                 672);
    cr_expect_str_eq(json_text(json_object_get(json_array_get(legs, 1), "params"), "aspect_ratio"), "3:2");
    cr_expect_str_eq(json_text(json_object_get(json_array_get(legs, 2), "params"), "size"), "1536x1024");
    cr_expect_null(json_object_get(json_object_get(json_array_get(legs, 2), "params"), "seed"), "dropped");
    cr_expect_gt(json_integer_value(json_object_get(json_array_get(legs, 2), "unit_mc")),
                 json_integer_value(json_object_get(json_array_get(legs, 0), "unit_mc")));
    json_decref(legs);
}

Test(route, a_file_that_does_not_fit_rules_its_provider_out)
{
    static const char params[] = "{\"prompt\":\"x\",\"image\":\"https://example.org/a.png\"}";

    cr_expect_str_eq(planned(params, "{\"image\":[{\"url\":\"https://example.org/a.png\"}]}", NULL, NULL), "stability");
    cr_expect_str_eq(planned(params,
                             "{\"image\":[{\"object\":\"o\",\"mime\":\"image/png\",\"bytes\":1000,\"width\":512,"
                             "\"height\":512}]}",
                             NULL, NULL),
                     "stability");
    cr_expect_eq(
        strncmp(planned(params,
                        "{\"image\":[{\"object\":\"o\",\"mime\":\"image/png\",\"bytes\":40000000,\"width\":512,"
                        "\"height\":512}]}",
                        NULL, NULL),
                "!", 1),
        0);
}

/* What every route can do with as little as it takes, by each of its providers alone. */
Test(route, every_leg_of_every_route_serves_some_job_at_a_price)
{
    static const struct {
        const char *route, *params;
    } jobs[] = {
        { "image.generate", "{\"prompt\":\"x\"}" },
        { "image.generate", "{\"prompt\":\"x\",\"size\":\"1024x1024\"}" },
        { "image.generate", "{\"prompt\":\"x\",\"image\":\"https://example.org/a.png\"}" },
        { "image.edit", "{\"prompt\":\"x\",\"image\":\"https://example.org/a.png\"}" },
        { "image.edit",
          "{\"prompt\":\"x\",\"image\":\"https://example.org/a.png\",\"mask\":\"https://example.org/b.png\"}" },
        { "image.upscale", "{\"image\":\"https://example.org/a.png\"}" },
        { "image.upscale", "{\"image\":\"https://example.org/a.png\",\"mode\":\"faithful\",\"prompt\":\"x\"}" },
        { "image.upscale", "{\"image\":\"https://example.org/a.png\",\"mode\":\"creative\",\"prompt\":\"x\"}" },
        { "image.remove_background", "{\"image\":\"https://example.org/a.png\"}" },
        { "audio.generate", "{\"prompt\":\"x\"}" },
        { "audio.generate", "{\"prompt\":\"x\",\"audio\":\"https://example.org/a.mp3\"}" },
        { "3d.generate", "{\"image\":\"https://example.org/a.png\"}" },
        { "3d.generate", "{\"image\":\"https://example.org/a.png\",\"quality\":\"fine\"}" },
    };
    char problem[300] = "";
    struct catalog *c;
    json_t *seen = json_object();

    everybody = true;
    c = load(NULL, problem, sizeof problem);
    cr_assert_not_null(c, "%s", problem);
    for (size_t i = 0; i < ARRAY_LEN(jobs); i++) {
        const struct catalog_route *route = catalog_route_find(c, jobs[i].route);
        json_t *given = parse(jobs[i].params), *checked;

        cr_assert_not_null(route, "%s", jobs[i].route);
        for (size_t p = 0; p < catalog_provider_count(c); p++) {
            struct catalog_faults faults = { 0 };
            struct catalog_plan plan;
            json_t *who = json_pack("[s]", catalog_provider_at(c, p)->name);

            checked = catalog_validate(&route->vocabulary, given, &faults);
            cr_assert_not_null(checked, "%s %s: %s", jobs[i].route, jobs[i].params, faults.items[0].message);
            if (catalog_plan_make(c, route, checked, NULL, who, &plan, &faults)) {
                (void)json_object_set_new(seen, plan.legs[0].op->name, json_true());
                cr_expect_gt(plan.legs[0].price.unit_mc, 0, "%s", plan.legs[0].op->name);
            }
            catalog_plan_done(&plan);
            json_decref(checked);
            json_decref(who);
        }
        json_decref(given);
    }
    for (size_t i = 0; i < catalog_route_count(c); i++) {
        const json_t *legs = json_object_get(catalog_route_at(c, i)->doc, "legs");

        for (size_t l = 0; l < json_array_size(legs); l++) {
            const char *name = json_text(json_array_get(legs, l), "operation");

            cr_expect_not_null(catalog_find(c, name), "%s is in the catalogue", name);
            cr_expect_not_null(json_object_get(seen, name), "%s serves a job of %s", name,
                               catalog_route_at(c, i)->vocabulary.name);
        }
    }
    json_decref(seen);
    catalog_free(c);
}

Test(route, an_envelope_shows_one_leg_at_a_time)
{
    static const char text[] =
        "{\"id\":\"01a1fb67-8e3e-7001-9343-2384f4ebb9e0\",\"app\":\"a\",\"account\":\"b\",\"operation\":\"image.edit\","
        "\"provider\":\"one\",\"params\":{\"image\":\"u\"},\"units\":1,\"inputs\":{\"image\":[{\"url\":\"u\"}]},"
        "\"route\":[{\"provider\":\"one\",\"operation\":\"one.x\",\"params\":{\"a\":1},\"files\":{\"init\":\"image\"}},"
        "{\"provider\":\"two\",\"operation\":\"two.x\",\"params\":{\"b\":2},\"files\":{}}]}";
    struct arena *a = arena_new(65536);
    struct job_envelope e;

    cr_assert(job_envelope_parse(a, text, &e));
    cr_expect_str_eq(job_route_next(e.route, "one"), "two");
    cr_expect_null(job_route_next(e.route, "two"));
    cr_expect_null(job_route_next(e.route, "three"));
    cr_expect_not(job_envelope_leg(a, &e, "three"));
    cr_expect_str_eq(e.operation, "image.edit");
    cr_assert(job_envelope_leg(a, &e, "one"));
    cr_expect_str_eq(e.operation, "one.x");
    cr_expect_eq(json_array_size(json_object_get(e.inputs, "init")), 1, "under the leg's own name");
    cr_expect_null(json_object_get(e.inputs, "image"));
    job_envelope_done(&e);
    arena_free(a);
}

Test(route, a_wrong_file_is_refused_by_name)
{
    static const struct {
        const char *doc, *problem;
    } cases[] = {
        { "{\"routes\":{\"image.generate\":{\"legs\":[]}}}", "not empty" },
        { "{\"routes\":{\"r\":{\"description\":\"d\",\"output\":\"image\",\"params\":{},\"legs\":[]}}}", "not empty" },
        { "{\"routes\":{\"openai.images.generate\":{\"description\":\"d\",\"output\":\"image\",\"params\":{},\"legs\":[{\"operation\":\"x\"}]}}}",
          "operation's name" },
        { "{\"routes\":{\"r\":{\"description\":\"d\",\"output\":\"image\",\"params\":{},\"legs\":[{\"operation\":\"leonardo.generate\",\"params\":{\"prompt\":"
          "\"$words\"}}]}}}",
          "made from words" },
        { "{\"routes\":{\"r\":{\"description\":\"d\",\"output\":\"image\",\"params\":{},\"legs\":[{\"operation\":\"leonardo.generate\",\"params\":{\"no\":1}}]}}}",
          "no parameter no" },
        { "{\"routes\":{\"r\":{\"description\":\"d\",\"output\":\"image\",\"params\":{},\"legs\":[{\"operation\":\"leonardo.generate\",\"drops\":[\"a\"]}]}}}",
          "drops" },
        { "{\"routes\":[]}", "must be an object" },
        { "{\"routes\":{},\"operations\":{}}", "no member of such a file" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char dir[] = "/tmp/kiln-route-XXXXXX", path[64], problem[300] = "";
        struct catalog *c;
        FILE *f;

        cr_assert_not_null(mkdtemp(dir));
        (void)snprintf(path, sizeof path, "%s/r.json", dir);
        f = fopen(path, "we");
        (void)fputs(cases[i].doc, f);
        (void)fclose(f);
        c = load(dir, problem, sizeof problem);
        cr_expect_null(c, "%s", cases[i].doc);
        cr_expect_not_null(strstr(problem, cases[i].problem), "%s: %s", cases[i].doc, problem);
        cr_expect_eq(strncmp(problem, "r.json: ", 8), 0, "%s", problem);
        catalog_free(c);
        (void)unlink(path);
        (void)rmdir(dir);
    }
}
