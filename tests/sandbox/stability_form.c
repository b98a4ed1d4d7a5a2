/* stability_form.c - tables of the Stability calls and their fields, and validation against them (see
 * stability_form.h). */
#include "stability_form.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind { STRING, NUMBER, INTEGER, WORD, IMAGE, AUDIO };

struct image_rule {
    int min_side, max_side;
    int64_t min_pixels, max_pixels;
    double max_ratio; /* 0: any */
};

struct field {
    const char *name;
    enum kind kind;
    bool required;
    double min, max; /* STRING: characters; AUDIO: seconds */
    const char *const *words;
    const struct image_rule *image;
};

static const char *const formats[] = { "png", "jpeg", "webp", NULL };
static const char *const cut_formats[] = { "png", "webp", NULL };
static const char *const sounds[] = { "mp3", "wav", NULL };
static const char *const ratios[] = { "21:9", "16:9", "3:2", "5:4", "1:1", "4:5", "2:3", "9:16", "9:21", NULL };
static const char *const styles[] = { "enhance",           "anime",       "photographic", "digital-art",
                                      "comic-book",        "fantasy-art", "line-art",     "analog-film",
                                      "neon-punk",         "isometric",   "low-poly",     "origami",
                                      "modeling-compound", "cinematic",   "3d-model",     "pixel-art",
                                      "tile-texture",      NULL };
static const char *const sd3_modes[] = { "text-to-image", "image-to-image", NULL };
static const char *const sd3_models[] = { "sd3.5-large", "sd3.5-large-turbo", "sd3.5-medium", "sd3.5-flash",
                                          "sd3-large",   "sd3-large-turbo",   "sd3-medium",   NULL };
static const char *const yes_no[] = { "true", "false", NULL };
static const char *const directions[] = { "left", "right", "above", "below", NULL };
static const char *const textures[] = { "512", "1024", "2048", NULL };
static const char *const remeshes[] = { "none", "triangle", "quad", NULL };
static const char *const targets[] = { "none", "vertex", "face", NULL };
static const char *const audio2_models[] = { "stable-audio-2", "stable-audio-2.5", NULL };
static const char *const audio3_models[] = { "stable-audio-3", NULL };

#define NO_MAX INT64_MAX
static const struct image_rule r_ultra = { 64, 16384, 4096, NO_MAX, 0 }, r_sd3 = { 64, 1 << 20, 0, NO_MAX, 0 };
static const struct image_rule r_edit = { 64, 1 << 20, 4096, 9437184, 0 },
                               r_edit_ar = { 64, 1 << 20, 4096, 9437184, 2.5 };
static const struct image_rule r_4mp = { 64, 1 << 20, 4096, 4194304, 0 }, r_1mp = { 64, 1 << 20, 4096, 1048576, 0 };
static const struct image_rule r_fast = { 32, 1536, 1024, 1048576, 0 }, r_sketch = { 64, 1 << 20, 0, 9437184, 2.5 };
static const struct image_rule r_init = { 64, 16383, 4096, 9437184, 2.5 }, r_style = { 64, 16383, 4096, 9437184, 0 };
static const struct image_rule r_any = { 1, 1 << 20, 0, NO_MAX, 0 }; /* masks are resized to the image */

/* clang-format off */
#define TEXT(field, must, least) { .name = (field), .kind = STRING, .required = (must), .min = (least), .max = 10000 }
#define NUM(field, low, high)    { .name = (field), .kind = NUMBER, .min = (low), .max = (high) }
#define INT(field, low, high)    { .name = (field), .kind = INTEGER, .min = (low), .max = (high) }
#define ONE(field, list)         { .name = (field), .kind = WORD, .words = (list) }
#define PIC(field, must, rule)   { .name = (field), .kind = IMAGE, .required = (must), .image = &(rule) }
#define SOUND(most)              { .name = "audio", .kind = AUDIO, .required = true, .min = 6, .max = (most) }
#define F_PROMPT   TEXT("prompt", true, 1)
#define F_NEGATIVE TEXT("negative_prompt", false, 0)
#define F_SEED     INT("seed", 0, 4294967294.0)
#define F_FORMAT   ONE("output_format", formats)
#define F_RATIO    ONE("aspect_ratio", ratios)
#define F_STYLE    ONE("style_preset", styles)
#define F_MASK     PIC("mask", false, r_any)
#define F_END      { .name = NULL }

static const struct field core_fields[] = { F_PROMPT, F_RATIO, F_NEGATIVE, F_SEED, F_STYLE, F_FORMAT, F_END };
static const struct field ultra_fields[] = { F_PROMPT, F_RATIO, F_NEGATIVE, F_SEED, F_STYLE, F_FORMAT,
    PIC("image", false, r_ultra), NUM("strength", 0, 1), F_END };
static const struct field sd3_fields[] = { F_PROMPT, F_RATIO, F_NEGATIVE, F_SEED, F_STYLE, F_FORMAT, ONE("mode", sd3_modes),
    ONE("model", sd3_models), NUM("cfg_scale", 1, 10), PIC("image", false, r_sd3), NUM("strength", 0, 1), F_END };
static const struct field erase_fields[] = { PIC("image", true, r_edit), F_MASK, INT("grow_mask", 0, 20), F_SEED, F_FORMAT,
    TEXT("prompt", false, 0), F_END }; /* the page's OpenAPI lists a prompt that the server does not ask for */
static const struct field inpaint_fields[] = { PIC("image", true, r_edit), F_PROMPT, F_MASK, INT("grow_mask", 0, 100),
    F_NEGATIVE, F_STYLE, F_SEED, F_FORMAT, F_END };
static const struct field outpaint_fields[] = { PIC("image", true, r_edit_ar), INT("left", 0, 2000), INT("right", 0, 2000),
    INT("up", 0, 2000), INT("down", 0, 2000), NUM("creativity", 0, 1), TEXT("prompt", false, 0), F_STYLE, F_SEED, F_FORMAT,
    F_END };
static const struct field replace_fields[] = { PIC("image", true, r_edit_ar), F_PROMPT, TEXT("search_prompt", true, 0),
    F_NEGATIVE, INT("grow_mask", 0, 20), F_STYLE, F_SEED, F_FORMAT, F_END };
static const struct field recolor_fields[] = { PIC("image", true, r_edit_ar), F_PROMPT, TEXT("select_prompt", true, 0),
    F_NEGATIVE, INT("grow_mask", 0, 20), F_STYLE, F_SEED, F_FORMAT, F_END };
static const struct field remove_fields[] = { PIC("image", true, r_4mp), ONE("output_format", cut_formats), F_END };
static const struct field relight_fields[] = { PIC("subject_image", true, r_edit_ar), TEXT("background_prompt", false, 0),
    PIC("background_reference", false, r_edit), TEXT("foreground_prompt", false, 0), F_NEGATIVE,
    NUM("preserve_original_subject", 0, 1), NUM("original_background_depth", 0, 1), ONE("keep_original_background", yes_no),
    ONE("light_source_direction", directions), PIC("light_reference", false, r_edit), NUM("light_source_strength", 0, 1),
    F_SEED, F_FORMAT, F_END };
static const struct field fast_fields[] = { PIC("image", true, r_fast), F_FORMAT, F_END };
static const struct field conservative_fields[] = { PIC("image", true, r_edit_ar), F_PROMPT, F_NEGATIVE, F_SEED, F_FORMAT,
    NUM("creativity", 0.2, 0.5), F_END };
static const struct field creative_fields[] = { PIC("image", true, r_1mp), F_PROMPT, F_NEGATIVE, F_SEED, F_FORMAT, F_STYLE,
    NUM("creativity", 0.1, 0.5), F_END };
static const struct field sketch_fields[] = { F_PROMPT, PIC("image", true, r_sketch), NUM("control_strength", 0, 1),
    F_NEGATIVE, F_SEED, F_STYLE, F_FORMAT, F_END };
static const struct field structure_fields[] = { F_PROMPT, PIC("image", true, r_edit_ar), NUM("control_strength", 0, 1),
    F_NEGATIVE, F_SEED, F_STYLE, F_FORMAT, F_END };
static const struct field style_fields[] = { F_PROMPT, PIC("image", true, r_edit_ar), NUM("fidelity", 0, 1), F_RATIO,
    F_NEGATIVE, F_SEED, F_STYLE, F_FORMAT, F_END };
static const struct field transfer_fields[] = { PIC("init_image", true, r_init), PIC("style_image", true, r_style),
    TEXT("prompt", false, 0), F_NEGATIVE, F_SEED, NUM("style_strength", 0, 1), NUM("composition_fidelity", 0, 1),
    NUM("change_strength", 0.1, 1), F_FORMAT, F_END };
static const struct field fast3d_fields[] = { PIC("image", true, r_4mp), ONE("texture_resolution", textures),
    NUM("foreground_ratio", 0.1, 1), ONE("remesh", remeshes), INT("vertex_count", -1, 20000), F_END };
static const struct field point3d_fields[] = { PIC("image", true, r_4mp), ONE("texture_resolution", textures),
    NUM("foreground_ratio", 1, 2), ONE("remesh", remeshes), ONE("target_type", targets), INT("target_count", 100, 20000),
    NUM("guidance_scale", 1, 10), F_SEED, F_END };
#define A_PROMPT TEXT("prompt", true, 0)
#define A_FORMAT ONE("output_format", sounds)
static const struct field text2_fields[] = { A_PROMPT, NUM("duration", 1, 190), ONE("model", audio2_models),
    INT("steps", 4, 100), NUM("cfg_scale", 1, 25), F_SEED, A_FORMAT, F_END };
static const struct field audio2_fields[] = { A_PROMPT, SOUND(190), NUM("duration", 1, 190), ONE("model", audio2_models),
    INT("steps", 4, 100), NUM("cfg_scale", 1, 25), NUM("strength", 0, 1), F_SEED, A_FORMAT, F_END };
static const struct field inpaint2_fields[] = { A_PROMPT, SOUND(190), NUM("duration", 1, 190), INT("steps", 4, 8),
    NUM("mask_start", 0, 190), NUM("mask_end", 0, 190), F_SEED, A_FORMAT, F_END };
static const struct field text3_fields[] = { A_PROMPT, NUM("duration", 1, 380), ONE("model", audio3_models),
    INT("steps", 4, 8), NUM("cfg_scale", 1, 25), F_SEED, A_FORMAT, F_END };
static const struct field audio3_fields[] = { A_PROMPT, SOUND(380), NUM("duration", 1, 380), ONE("model", audio3_models),
    INT("steps", 4, 8), NUM("cfg_scale", 1, 25), NUM("strength", 0, 1), F_SEED, A_FORMAT, F_END };
static const struct field inpaint3_fields[] = { A_PROMPT, SOUND(380), NUM("duration", 1, 380), ONE("model", audio3_models),
    INT("steps", 4, 8), NUM("cfg_scale", 1, 25), NUM("mask_start", 0, 380), NUM("mask_end", 0, 380), F_SEED, A_FORMAT, F_END };

#define GENERATE(tail, list, price, mp) \
    { .path = "/v2beta/stable-image/generate/" tail, .fields = (list), .price_millicents = (price), \
      .delay = CFG_DELAY_GENERATE_MIN, .output_pixels = (mp) }
#define EDIT(tail, list, price) \
    { .path = "/v2beta/stable-image/" tail, .fields = (list), .price_millicents = (price), .delay = CFG_DELAY_UPSCALE_MIN, \
      .subject = "image" }
#define UPSCALE(tail, list, price) \
    { .path = "/v2beta/stable-image/upscale/" tail, .fields = (list), .price_millicents = (price), \
      .delay = CFG_DELAY_UPSCALE_MIN, .subject = "image", .is_upscale = true }
#define MODEL(tail, list, price) \
    { .path = "/v2beta/3d/" tail, .fields = (list), .price_millicents = (price), .delay = CFG_DELAY_GENERATE_MIN, \
      .media = OUT_GLB }
#define AUDIO2(tail, list) \
    { .path = "/v2beta/audio/stable-audio-2/" tail, .fields = (list), .price_millicents = 20000, \
      .delay = CFG_DELAY_GENERATE_MIN, .media = OUT_SOUND, .longest_s = 190 }
#define AUDIO3(tail, list) \
    { .path = "/v2beta/audio/stable-audio/" tail, .fields = (list), .price_millicents = 26000, \
      .delay = CFG_DELAY_CREATIVE_MIN, .media = OUT_SOUND, .longest_s = 380, .is_async = true, .accepted = 202 }
static const struct call calls[] = {
    GENERATE("core", core_fields, 3000, 1.5), GENERATE("ultra", ultra_fields, 8000, 1), GENERATE("sd3", sd3_fields, 6500, 1),
    EDIT("edit/erase", erase_fields, 5000), EDIT("edit/inpaint", inpaint_fields, 5000),
    EDIT("edit/outpaint", outpaint_fields, 4000), EDIT("edit/search-and-replace", replace_fields, 5000),
    EDIT("edit/search-and-recolor", recolor_fields, 5000), EDIT("edit/remove-background", remove_fields, 5000),
    { .path = "/v2beta/stable-image/edit/replace-background-and-relight", .fields = relight_fields, .price_millicents = 8000,
      .delay = CFG_DELAY_CREATIVE_MIN, .subject = "subject_image", .is_async = true, .accepted = 200 },
    UPSCALE("fast", fast_fields, 2000), UPSCALE("conservative", conservative_fields, 40000),
    { .path = "/v2beta/stable-image/upscale/creative", .fields = creative_fields, .price_millicents = 60000,
      .delay = CFG_DELAY_CREATIVE_MIN, .subject = "image", .is_upscale = true, .is_async = true, .accepted = 200 },
    EDIT("control/sketch", sketch_fields, 5000), EDIT("control/structure", structure_fields, 5000),
    { .path = "/v2beta/stable-image/control/style", .fields = style_fields, .price_millicents = 5000,
      .delay = CFG_DELAY_UPSCALE_MIN, .output_pixels = 1 },
    { .path = "/v2beta/stable-image/control/style-transfer", .fields = transfer_fields, .price_millicents = 8000,
      .delay = CFG_DELAY_UPSCALE_MIN, .subject = "init_image", .output_pixels = 1 },
    MODEL("stable-fast-3d", fast3d_fields, 10000), MODEL("stable-point-aware-3d", point3d_fields, 4000),
    AUDIO2("text-to-audio", text2_fields), AUDIO2("audio-to-audio", audio2_fields), AUDIO2("inpaint", inpaint2_fields),
    AUDIO3("text-to-audio", text3_fields), AUDIO3("audio-to-audio", audio3_fields), AUDIO3("inpaint", inpaint3_fields),
};
/* clang-format on */

const struct call *stability_call(const char *path)
{
    for (size_t i = 0; i < ARRAY_LEN(calls); i++)
        if (strcmp(calls[i].path, path) == 0)
            return &calls[i];
    return NULL;
}

void problem(json_t *errors, const char *fmt, ...)
{
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap); /* cut is fine */
    va_end(ap);
    json_t *s = json_string(text);
    (void)json_array_append_new(errors,
                                s != NULL ? s : json_string("a field: malformed text")); /* only out of memory */
}

bool part_number(const struct part *p, double *out)
{
    char text[40], *end;
    if (p->len == 0 || p->len >= sizeof text)
        return false;
    memcpy(text, p->data, p->len);
    text[p->len] = '\0';
    errno = 0;
    *out = strtod(text, &end);
    return errno == 0 && *end == '\0' && isfinite(*out) && strpbrk(text, "xXnN ") == NULL;
}

bool part_is(const struct part *p, const char *word)
{
    return p != NULL && p->len == strlen(word) && memcmp(p->data, word, p->len) == 0;
}

static void check_image(const struct field *f, const struct part *p, json_t *errors)
{
    const struct image_rule *rule = f->image;
    struct picture_info info;
    if (!p->is_file && p->type[0] == '\0') {
        problem(errors, "%s: must be a file", f->name);
        return;
    }
    if (!codec_info(p->data, p->len, &info)) {
        problem(errors, "%s: must be a jpeg, png or webp image", f->name);
        return;
    }
    int64_t pixels = (int64_t)info.width * info.height;
    double ratio = info.width > info.height ? (double)info.width / info.height : (double)info.height / info.width;
    if (info.width < rule->min_side || info.height < rule->min_side || info.width > rule->max_side ||
        info.height > rule->max_side)
        problem(errors, "%s: each side must be between %d and %d pixels", f->name, rule->min_side, rule->max_side);
    if (pixels < rule->min_pixels || pixels > rule->max_pixels)
        problem(errors, "%s: total pixel count must be between %lld and %lld", f->name, (long long)rule->min_pixels,
                (long long)rule->max_pixels);
    if (rule->max_ratio > 0 && ratio > rule->max_ratio)
        problem(errors, "%s: aspect ratio must be between 1:2.5 and 2.5:1", f->name);
}

static void check_audio(const struct field *f, const struct part *p, json_t *errors)
{
    double seconds = media_seconds(p->data, p->len);
    if (!p->is_file || seconds < 0)
        problem(errors, "%s: must be an mp3 or wav file", f->name);
    else if (seconds < f->min - 0.1 || seconds > f->max + 0.1)
        problem(errors, "%s: must be between %.0f and %.0f seconds long", f->name, f->min, f->max);
}

static void check_field(const struct field *f, const struct part *p, json_t *errors)
{
    double v;
    switch (f->kind) {
    case IMAGE:
        check_image(f, p, errors);
        break;
    case AUDIO:
        check_audio(f, p, errors);
        break;
    case NUMBER:
    case INTEGER:
        if (!part_number(p, &v))
            problem(errors, "%s: must be a number", f->name);
        else if (v < f->min)
            problem(errors, "%s: must be at least %.10g", f->name, f->min);
        else if (v > f->max)
            problem(errors, "%s: must be at most %.10g", f->name, f->max);
        else if (f->kind == INTEGER && floor(v) < v)
            problem(errors, "%s: must be an integer", f->name);
        break;
    case WORD: {
        bool known = false;
        for (size_t i = 0; f->words[i] != NULL; i++)
            known = known || part_is(p, f->words[i]);
        if (!known)
            problem(errors, "%s: must be one of the listed values", f->name);
        break;
    }
    case STRING: {
        char *text = text_dup_n((const char *)p->data, p->len);
        size_t n = text_characters(text);
        if ((double)n < f->min)
            problem(errors, "%s: cannot be empty", f->name);
        else if ((double)n > f->max)
            problem(errors, "%s: must be at most %.0f characters", f->name, f->max);
        json_t *utf8 = json_stringn((const char *)p->data, p->len);
        if (utf8 == NULL || memchr(p->data, '\0', p->len) != NULL)
            problem(errors, "%s: must be UTF-8 text", f->name);
        json_decref(utf8);
        free(text);
        break;
    }
    }
}

static const struct field *call_field(const struct call *call, const char *name)
{
    for (const struct field *f = call->fields; f->name != NULL; f++)
        if (strcmp(f->name, name) == 0)
            return f;
    return NULL;
}

static double number_of(const struct form *form, const char *name, double fallback)
{
    const struct part *p = form_find(form, name);
    double v;
    return p != NULL && part_number(p, &v) ? v : fallback;
}

static void check_sd3(const struct form *form, json_t *errors)
{
    const struct part *image = form_find(form, "image"), *strength = form_find(form, "strength");
    if (part_is(form_find(form, "mode"), "image-to-image")) {
        if (image == NULL)
            problem(errors, "image: is required in image-to-image mode");
        if (strength == NULL)
            problem(errors, "strength: is required in image-to-image mode");
        if (form_find(form, "aspect_ratio") != NULL)
            problem(errors, "aspect_ratio: is only valid in text-to-image mode");
        return;
    }
    if (image != NULL)
        problem(errors, "image: is only valid in image-to-image mode");
    if (strength != NULL)
        problem(errors, "strength: is only valid in image-to-image mode");
}

static void check_audio2(const struct form *form, json_t *errors)
{
    bool is_newer = part_is(form_find(form, "model"), "stable-audio-2.5");
    double steps = number_of(form, "steps", is_newer ? 8 : 50);
    if (steps < (is_newer ? 4 : 30) || steps > (is_newer ? 8 : 100))
        problem(errors, "steps: must be between %d and %d for this model", is_newer ? 4 : 30, is_newer ? 8 : 100);
    if (is_newer && number_of(form, "strength", 1) < 0.01)
        problem(errors, "strength: must be at least 0.01 for this model");
}

static void check_together(const struct call *call, const struct form *form, json_t *errors)
{
    if (call->fields == ultra_fields && form_find(form, "image") != NULL && form_find(form, "strength") == NULL)
        problem(errors, "strength: is required when image is present");
    if (call->fields == sd3_fields)
        check_sd3(form, errors);
    if (call->fields == text2_fields || call->fields == audio2_fields)
        check_audio2(form, errors);
    if (call->fields == outpaint_fields && number_of(form, "left", 0) + number_of(form, "right", 0) +
                                                   number_of(form, "up", 0) + number_of(form, "down", 0) <=
                                               0)
        problem(errors, "left, right, up, down: at least one must be greater than 0");
    if (call->fields != relight_fields)
        return;
    if (form_find(form, "background_prompt") == NULL && form_find(form, "background_reference") == NULL)
        problem(errors, "background_prompt: it or background_reference is required");
    if (form_find(form, "light_source_strength") != NULL && form_find(form, "light_source_direction") == NULL &&
        form_find(form, "light_reference") == NULL)
        problem(errors, "light_source_strength: needs light_reference or light_source_direction");
}

void stability_check(const struct call *call, const struct form *form, bool is_strict, json_t *errors)
{
    for (const struct field *f = call->fields; f->name != NULL; f++) {
        const struct part *p = form_find(form, f->name);
        if (p != NULL)
            check_field(f, p, errors);
        else if (f->required)
            problem(errors, "%s: is required", f->name);
    }
    for (size_t i = 0; i < form->count; i++) {
        const char *name = form->parts[i].name;
        if (call_field(call, name) == NULL && is_strict)
            problem(errors, "%s: is not a known field", name);
        if (form_find(form, name) != &form->parts[i])
            problem(errors, "%s: must be sent only once", name);
    }
    check_together(call, form, errors);
}

int stability_price(const struct call *call, const struct form *form)
{
    const struct part *m = form_find(form, "model");
    if (call->fields == text2_fields || call->fields == audio2_fields)
        return part_is(m, "stable-audio-2.5") ? 20000 : 17000 + (int)(60 * number_of(form, "steps", 50));
    if (call->fields != sd3_fields || m == NULL)
        return call->price_millicents;
    if (part_is(m, "sd3.5-large-turbo") || part_is(m, "sd3-large-turbo"))
        return 4000;
    if (part_is(m, "sd3.5-medium") || part_is(m, "sd3-medium"))
        return 3500;
    return part_is(m, "sd3.5-flash") ? 2500 : 6500;
}

int64_t stability_output_pixels(const struct call *call)
{
    return call->fields == conservative_fields ? 4194304 : INT64_MAX;
}
