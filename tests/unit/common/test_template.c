/* test_template.c - folding, blocked terms and prompt templates: what is found, what is filled in, what is refused. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/text.h"
#include "common/base/text_fold.h"
#include "common/core/template.h"

static void folds_to(const char *text, const char *want)
{
    char *got = text_fold(text, strlen(text));

    cr_expect_str_eq(got, want, "%s", text);
    free(got);
}

Test(fold, forgets_case_width_dashes_and_what_nobody_sees)
{
    folds_to("  Living-Room_Light  ", "living room light");
    folds_to("ＦＵＬＬ　ｗｉｄｔｈ", "full width");
    folds_to("STRASSE", "strasse");
    folds_to("Straße", "strasse");
    folds_to("zero\xe2\x80\x8bwidth\xc2\xad!", "zerowidth!");
    folds_to("caf\x65\xcc\x81", "caf\xc3\xa9");
    folds_to("现代简约", "现代简约");
    folds_to("", "");
    cr_expect_null(text_fold("\xff", 1));
}

static const char *found(const char *terms, const char *text)
{
    static char kept[256];
    char problem[128];
    struct terms *t = terms_parse(terms, strlen(terms), problem, sizeof problem);
    bool failed = false;
    const char *hit;

    cr_assert_not_null(t, "%s", problem);
    hit = terms_find(t, text, strlen(text), &failed);
    cr_expect_not(failed, "%s", text);
    (void)snprintf(kept, sizeof kept, "%s", hit != NULL ? hit : "");
    terms_free(t);
    return kept;
}

Test(terms, stand_between_word_boundaries_in_any_language)
{
    static const char terms[] = "# blocked\nass\nVerboten\n血腥 # in Chinese\nчерный список\nmake a bomb\n";

    cr_expect_str_eq(found(terms, "an ass on a hill"), "ass");
    cr_expect_str_eq(found(terms, "a class of glass passes"), "");
    cr_expect_str_eq(found(terms, "ASS!"), "ass");
    cr_expect_str_eq(found(terms, "a\xef\xbd\x93\xef\xbd\x93"), "ass");
    cr_expect_str_eq(found(terms, "a\xe2\x80\x8bss"), "ass");
    cr_expect_str_eq(found(terms, "das ist VERBOTEN."), "verboten");
    cr_expect_str_eq(found(terms, "unverboten"), "");
    cr_expect_str_eq(found(terms, "一个血腥的场面"), "血腥");
    cr_expect_str_eq(found(terms, "血与腥"), "");
    cr_expect_str_eq(found(terms, "это Чёрный список"), "", "ё and е are two letters");
    cr_expect_str_eq(found(terms, "это ЧЕРНЫЙ   список"), "черный список");
    cr_expect_str_eq(found(terms, "how to make-a_bomb now"), "make a bomb");
    cr_expect_str_eq(found("", "anything"), "");
}

Test(terms, a_bad_line_is_named)
{
    char problem[128], longer[260];

    cr_expect_null(terms_parse("ok\n\xff\n", 5, problem, sizeof problem));
    cr_expect_str_eq(problem, "line 2 is no UTF-8");
    memset(longer, 'x', sizeof longer);
    cr_expect_null(terms_parse(longer, sizeof longer, problem, sizeof problem));
    cr_expect_str_eq(problem, "line 1 is longer than 200 bytes");
    cr_expect_null(terms_read("/nowhere/at/all", problem, sizeof problem));
    cr_expect_str_eq(problem, "cannot be opened");
}

static json_t *parse(const char *text)
{
    struct json_fault fault;
    json_t *v = json_parse(text, strlen(text), &fault);

    cr_assert_not_null(v, "%s: %s", text, fault.message);
    return v;
}

static const char small[] =
    "{\"prompt\":[\"a {room.text} in {colour}\",\"{details}\",\"{{raw}}\"],\"negative_prompt\":\"no {room.bad}\","
    "\"vars\":{\"room\":{\"type\":\"choice\",\"required\":true,\"values\":{"
    "\"bed_room\":{\"names\":[\"卧室\",\"Chambre\"],\"text\":\"bedroom\",\"bad\":\"oven\"},"
    "\"kitchen\":{\"text\":\"kitchen\",\"bad\":\"bed\"}}},"
    "\"colour\":{\"type\":\"text\",\"default\":\"white\",\"max_length\":12},"
    "\"details\":{\"type\":\"text\"}}}";

/* The prompt, or the first fault as "field: message". */
static const char *expanded(const char *template, const char *vars, const char **negative)
{
    static char out[600], no[200];
    struct catalog_faults faults = { 0 };
    json_t *doc = parse(template), *given = parse(vars);
    char *prompt, *minus;

    cr_assert(template_check(doc, &faults), "%s: %s", faults.items[0].field, faults.items[0].message);
    if (template_expand(doc, given, "vars", &faults, &prompt, &minus)) {
        (void)snprintf(out, sizeof out, "%s", prompt);
        (void)snprintf(no, sizeof no, "%s", minus != NULL ? minus : "");
    } else {
        (void)snprintf(out, sizeof out, "%s: %s", faults.items[0].field, faults.items[0].message);
        no[0] = '\0';
    }
    if (negative != NULL)
        *negative = no;
    free(prompt);
    free(minus);
    json_decref(doc);
    json_decref(given);
    return out;
}

Test(template, is_filled_in_one_pass)
{
    const char *no;

    cr_expect_str_eq(expanded(small, "{\"room\":\"kitchen\"}", &no), "a kitchen in white, {raw}");
    cr_expect_str_eq(no, "no bed");
    cr_expect_str_eq(expanded(small, "{\"room\":\"Bed Room\",\"details\":\"{colour} {{x}} {room.bad}\"}", &no),
                     "a bedroom in white, {colour} {{x}} {room.bad}, {raw}", "what a variable brings stays as it is");
}

Test(template, finds_a_choice_by_any_of_its_names)
{
    cr_expect_str_eq(expanded(small, "{\"room\":\"卧室\"}", NULL), "a bedroom in white, {raw}");
    cr_expect_str_eq(expanded(small, "{\"room\":\"CHAMBRE\"}", NULL), "a bedroom in white, {raw}");
    cr_expect_str_eq(expanded(small, "{\"room\":\"bed-room\"}", NULL), "a bedroom in white, {raw}");
}

Test(template, an_unknown_choice_lists_what_exists)
{
    cr_expect_str_eq(expanded(small, "{\"room\":\"cellar\"}", NULL), "vars.room: is none of: bed_room, kitchen");
    cr_expect_str_eq(expanded(small, "{}", NULL), "vars.room: is missing; there are: bed_room, kitchen");
    cr_expect_str_eq(expanded(small, "{\"room\":\"kitchen\",\"colour\":\"ultramarine blue\"}", NULL),
                     "vars.colour: must have at most 12 characters, has 16");
    cr_expect_str_eq(expanded(small, "{\"room\":\"kitchen\",\"size\":\"big\"}", NULL),
                     "vars.size: is no variable of this template");
    cr_expect_str_eq(expanded(small, "{\"room\":7}", NULL), "vars.room: must be a text");
    cr_expect_str_eq(expanded(small, "[]", NULL), "vars: must be an object");
}

Test(template, a_faulty_one_is_refused_by_member)
{
    static const struct {
        const char *doc, *field, *message;
    } cases[] = {
        { "[]", "template", "must be an object" },
        { "{}", "prompt", "must be a text or a list" },
        { "{\"prompt\":\"{a}\"}", "prompt", "no such variable" },
        { "{\"prompt\":\"{a\"}", "prompt", "opens no {variable}" },
        { "{\"prompt\":\"a}\"}", "prompt", "without its '{'" },
        { "{\"prompt\":\"x\",\"size\":1}", "size", "no member of a template" },
        { "{\"prompt\":\"{a.b}\",\"vars\":{\"a\":{\"type\":\"text\"}}}", "prompt", "has no members" },
        { "{\"prompt\":\"{a}\",\"vars\":{\"a\":{\"type\":\"choice\",\"values\":{\"x\":{\"text\":\"y\"}}}}}", "prompt",
          "must say which text" },
        { "{\"prompt\":\"{a.no}\",\"vars\":{\"a\":{\"type\":\"choice\",\"values\":{\"x\":{\"text\":\"y\"}}}}}",
          "prompt", "does not have" },
        { "{\"prompt\":\"x\",\"vars\":{\"a\":{\"type\":\"number\"}}}", "vars.a", "text or choice" },
        { "{\"prompt\":\"x\",\"vars\":{\"a\":{\"type\":\"text\",\"max_length\":0}}}", "vars.a", "max_length" },
        { "{\"prompt\":\"x\",\"vars\":{\"a\":{\"type\":\"choice\",\"values\":{}}}}", "vars.a", "1 to 500" },
        { "{\"prompt\":\"x\",\"vars\":{\"a\":{\"type\":\"choice\",\"values\":{\"x\":{\"names\":[\"Y\"]},"
          "\"y\":{}}}}}",
          "vars.a", "the same name" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct catalog_faults faults = { 0 };
        json_t *doc = parse(cases[i].doc);

        cr_expect_not(template_check(doc, &faults), "%s", cases[i].doc);
        cr_expect_str_eq(faults.items[0].field, cases[i].field, "%s: %s", cases[i].doc, faults.items[0].field);
        cr_expect_not_null(strstr(faults.items[0].message, cases[i].message), "%s: %s", cases[i].doc,
                           faults.items[0].message);
        json_decref(doc);
    }
}

static const char *nothing(const char *name)
{
    (void)name;
    return NULL;
}

static size_t commas(const char *text)
{
    size_t n = 0;

    for (; *text != '\0'; text++)
        n += *text == ',';
    return n;
}

Test(template, the_interior_family_has_every_style_in_every_room)
{
    static const char *const styles[] = { "modern minimalist",   "现代简约", "Scandinavian",  "北欧风",
                                          "Chinese traditional", "中式风格", "Mediterranean", "地中海风格",
                                          "industrial loft",     "Japandi",  "art deco" };
    static const char *const rooms[] = { "living room", "bedroom", "kitchen", "bathroom", "study", "客厅" };
    struct catalog *c = NULL;
    char problem[300];
    const json_t *design, *values, *style;
    const char *key;

    cr_assert_eq(catalog_load(NULL, nothing, &c, problem, sizeof problem), ERR_OK, "%s", problem);
    design = json_object_get(catalog_templates(c), "interior.design");
    for (size_t i = 0; i < ARRAY_LEN(styles) * ARRAY_LEN(rooms); i++) {
        const char *style_name = styles[i % ARRAY_LEN(styles)], *room_name = rooms[i / ARRAY_LEN(styles)];
        json_t *vars = json_pack("{s:s, s:s}", "style", style_name, "room", room_name);
        struct catalog_faults faults = { 0 };
        char *prompt = NULL, *negative = NULL;

        cr_expect(template_expand(design, vars, "vars", &faults, &prompt, &negative), "%s in %s: %s", room_name,
                  style_name, faults.items[0].message);
        cr_expect(prompt != NULL && strlen(prompt) > 200 && negative != NULL && strlen(negative) > 60);
        cr_expect(prompt != NULL && strlen(prompt) < 1500, "it fits wherever prompts go: %zu", strlen(prompt));
        free(prompt);
        free(negative);
        json_decref(vars);
    }
    values = json_object_get(json_object_get(json_object_get(design, "vars"), "style"), "values");
    cr_expect_geq(json_object_size(values), 7);
    json_object_foreach((json_t *)(uintptr_t)values, key, style)
    {
        cr_expect_geq(commas(json_text(style, "elements")) + 1, 6, "%s has six elements to see", key);
        cr_expect_geq(json_array_size(json_object_get(style, "names")), 4, "%s", key);
    }
    catalog_free(c);
}
