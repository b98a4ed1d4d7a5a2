/* stability_v1.c - Stability's legacy calls: text-to-image in JSON, image-to-image and masking as forms, answers with
 * base64 artifacts, errors with `message` instead of `errors` (the page's section 6). */
#include "stability_form.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum v1_kind { V1_TEXT, V1_IMAGE, V1_MASK };

struct v1_order {
    uint64_t seed;
    int width, height, samples;
};

static void v1_refuse(struct exchange *ex, int status, const char *code)
{
    static const struct {
        int status;
        const char *name, *text;
    } rows[] = {
        { 400, "bad_request", "the request is not valid" },
        { 401, "unauthorized", "missing authorization header" },
        { 402, "insufficient_balance", "Your organization does not have enough balance to request this action" },
        { 403, "permission_denied", "You do not have permission to perform this action" },
        { 404, "not_found", "The requested engine was not found" },
        { 429, "rate_limit_exceeded", "You have exceeded the rate limit" },
    };
    const char *name = "server_error", *text = "An unexpected server error has occurred";
    char id[33];
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (rows[i].status == status) {
            name = rows[i].name;
            text = rows[i].text;
        }
    }
    text_random_hex(id, 32);
    exchange_send_json(ex, status,
                       json_pack("{s:s,s:s,s:s}", "id", id, "name", code[0] != '\0' ? code : name, "message", text));
}

/* A form as the JSON that it stands for: text_prompts[0][text] becomes an item of a list; files become their sizes. */
static json_t *v1_form_json(const struct form *form, json_t *errors)
{
    json_t *out = json_object(), *prompts = json_array();
    for (size_t i = 0; i < form->count; i++) {
        const struct part *p = &form->parts[i];
        unsigned n = 0;
        char member[16] = "";
        double v;
        struct picture_info info;
        if (sscanf(p->name, "text_prompts[%u][%15[a-z]]", &n, member) == 2) {
            while (json_array_size(prompts) <= n && n < 64)
                (void)json_array_append_new(prompts, json_object()); /* out of memory ends the test anyway */
            json_t *one = json_array_get(prompts, n);
            if (strcmp(member, "weight") == 0 && part_number(p, &v))
                (void)json_object_set_new(one, member, json_real(v));
            else
                (void)json_object_set_new(one, member, json_stringn((const char *)p->data, p->len));
        } else if (p->is_file && codec_info(p->data, p->len, &info)) {
            (void)json_object_set_new(out, p->name, json_pack("{s:i,s:i}", "width", info.width, "height", info.height));
        } else if (p->is_file) {
            problem(errors, "%s: must be a jpeg, png or webp image", p->name);
        } else if (part_number(p, &v)) {
            (void)json_object_set_new(out, p->name, json_real(v));
        } else {
            (void)json_object_set_new(out, p->name, json_stringn((const char *)p->data, p->len));
        }
    }
    if (json_array_size(prompts) > 0)
        (void)json_object_set(out, "text_prompts", prompts);
    json_decref(prompts);
    return out;
}

/* ---- validation ---- */

static const char *const v1_presets[] = {
    "FAST_BLUE", "FAST_GREEN", "NONE", "SIMPLE", "SLOW", "SLOWER", "SLOWEST", NULL
};
static const char *const v1_samplers[] = { "DDIM",       "DDPM",
                                           "K_DPMPP_2M", "K_DPMPP_2S_ANCESTRAL",
                                           "K_DPM_2",    "K_DPM_2_ANCESTRAL",
                                           "K_EULER",    "K_EULER_ANCESTRAL",
                                           "K_HEUN",     "K_LMS",
                                           NULL };
static const char *const v1_modes[] = { "IMAGE_STRENGTH", "STEP_SCHEDULE", NULL };
static const char *const v1_masks[] = { "MASK_IMAGE_WHITE", "MASK_IMAGE_BLACK", "INIT_IMAGE_ALPHA", NULL };

static const struct {
    const char *name;
    unsigned kinds; /* 1 << v1_kind */
    double min, max, step;
    const char *const *words;
} v1_fields[] = {
    { "text_prompts", 7, 0, 0, 0, NULL },      { "height", 1, 128, 1536, 64, NULL },
    { "width", 1, 128, 1536, 64, NULL },       { "cfg_scale", 7, 0, 35, 0, NULL },
    { "samples", 7, 1, 10, 1, NULL },          { "seed", 7, 0, 4294967295.0, 1, NULL },
    { "steps", 7, 10, 50, 1, NULL },           { "clip_guidance_preset", 7, 0, 0, 0, v1_presets },
    { "sampler", 7, 0, 0, 0, v1_samplers },    { "init_image_mode", 2, 0, 0, 0, v1_modes },
    { "image_strength", 2, 0, 1, 0, NULL },    { "step_schedule_start", 2, 0, 1, 0, NULL },
    { "step_schedule_end", 2, 0, 1, 0, NULL }, { "mask_source", 4, 0, 0, 0, v1_masks },
    { "init_image", 6, 0, 0, 0, NULL },        { "mask_image", 4, 0, 0, 0, NULL },
    { "style_preset", 7, 0, 0, 0, NULL },      { "extras", 7, 0, 0, 0, NULL },
};

static void v1_check_prompts(const json_t *prompts, json_t *errors)
{
    if (json_array_size(prompts) == 0)
        problem(errors, "text_prompts: at least one is required");
    for (size_t i = 0; i < json_array_size(prompts); i++) {
        const json_t *one = json_array_get(prompts, i), *weight = json_object_get(one, "weight");
        const char *text = json_string_value(json_object_get(one, "text"));
        if (text == NULL || text[0] == '\0' || text_characters(text) > 2000)
            problem(errors, "text_prompts[%zu].text: must have 1 to 2000 characters", i);
        if (weight != NULL && !json_is_number(weight))
            problem(errors, "text_prompts[%zu].weight: must be a number", i);
    }
}

static void v1_check_value(size_t f, const json_t *v, json_t *errors)
{
    double n = json_number_value(v);
    bool known = v1_fields[f].words == NULL;
    for (size_t i = 0; !known && v1_fields[f].words[i] != NULL; i++)
        known = json_is_string(v) && strcmp(json_string_value(v), v1_fields[f].words[i]) == 0;
    if (!known)
        problem(errors, "%s: must be one of the listed values", v1_fields[f].name);
    if (v1_fields[f].max <= 0)
        return;
    if (!json_is_number(v) || n < v1_fields[f].min || n > v1_fields[f].max)
        problem(errors, "%s: must be between %.0f and %.0f", v1_fields[f].name, v1_fields[f].min, v1_fields[f].max);
    else if (v1_fields[f].step > 0 && fabs(fmod(n, v1_fields[f].step)) > 0)
        problem(errors, "%s: must be a multiple of %.0f", v1_fields[f].name, v1_fields[f].step);
}

static void v1_check_size(const json_t *in, const char *engine, json_t *errors)
{
    static const int sizes[][2] = { { 1024, 1024 }, { 1152, 896 }, { 1216, 832 }, { 1344, 768 }, { 1536, 640 },
                                    { 640, 1536 },  { 768, 1344 }, { 832, 1216 }, { 896, 1152 } };
    const json_t *w = json_object_get(in, "width"), *h = json_object_get(in, "height");
    double width = w == NULL ? 1024 : json_number_value(w), height = h == NULL ? 1024 : json_number_value(h);
    if (strstr(engine, "xl") == NULL)
        return;
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
        if (fabs(width - sizes[i][0]) < 1 && fabs(height - sizes[i][1]) < 1)
            return;
    problem(errors, "width, height: not one of the sizes of this engine");
}

static void v1_check(const json_t *in, enum v1_kind kind, const char *engine, json_t *errors)
{
    const char *name, *mask = json_string_value(json_object_get(in, "mask_source"));
    json_t *v;
    json_object_foreach((json_t *)in, name, v)
    {
        size_t f = 0;
        while (f < ARRAY_LEN(v1_fields) && strcmp(v1_fields[f].name, name) != 0)
            f++;
        if (f == ARRAY_LEN(v1_fields) || (v1_fields[f].kinds >> kind & 1) == 0)
            problem(errors, "%.40s: is not a known field", name);
        else
            v1_check_value(f, v, errors);
    }
    v1_check_prompts(json_object_get(in, "text_prompts"), errors);
    if (kind == V1_TEXT)
        v1_check_size(in, engine, errors);
    if (kind != V1_TEXT && json_object_get(in, "init_image") == NULL)
        problem(errors, "init_image: is required");
    if (kind == V1_MASK && mask == NULL)
        problem(errors, "mask_source: is required");
    if (mask == NULL || strncmp(mask, "MASK_IMAGE", 10) != 0)
        return;
    if (!json_equal(json_object_get(in, "mask_image"), json_object_get(in, "init_image")))
        problem(errors, "mask_image: must be there and have the size of init_image");
}

/* ---- answers ---- */

static void v1_on_painted(void *cls, struct paint *p)
{
    struct exchange *ex = cls;
    ex->paint = NULL;
    exchange_send_blob(ex, 200, "application/json", blob_new(p->body.data, p->body.len));
}

static void v1_on_worked(struct exchange *ex)
{
    const struct v1_order *o = ex->cargo;
    int count = desk_count(&ex->fault, o->samples);
    bool is_filtered = fault_has(&ex->fault, FW_FILTERED);
    const char *finish = is_filtered ? "CONTENT_FILTERED" : "SUCCESS";
    struct buf head = { 0 }, between = { 0 }, tail = { 0 };
    if (fault_has(&ex->fault, FW_FAIL)) {
        v1_refuse(ex, 500, "");
        return;
    }
    if (count == 0) {
        exchange_send_json(ex, 200, json_pack("{s:[]}", "artifacts"));
        return;
    }
    struct paint *p = paint_new(ex->box->gallery);
    for (int i = 0; i < count; i++) {
        p->specs[i] = desk_picture(ex, o->width, o->height, PICTURE_PNG);
        p->specs[i].seed = o->seed + (uint64_t)i;
    }
    p->count = (size_t)count;
    buf_str(&head, "{\"artifacts\":[{\"base64\":\"");
    buf_fmt(&between, "\",\"seed\":%llu,\"finishReason\":\"%s\"},{\"base64\":\"", (unsigned long long)o->seed, finish);
    buf_fmt(&tail, "\",\"seed\":%llu,\"finishReason\":\"%s\"}]}", (unsigned long long)o->seed, finish);
    p->head = head.data;
    p->between = between.data;
    p->tail = tail.data;
    exchange_paint(ex, p, v1_on_painted);
}

static void v1_fill(struct v1_order *o, const json_t *in, const char *prompt)
{
    const json_t *init = json_object_get(in, "init_image"), *from = init == NULL ? in : init;
    char *plain = faults_plain_prompt(prompt);
    *o = (struct v1_order){ .width = (int)json_number_value(json_object_get(from, "width")),
                            .height = (int)json_number_value(json_object_get(from, "height")),
                            .samples = (int)json_number_value(json_object_get(in, "samples")),
                            .seed = (uint64_t)json_number_value(json_object_get(in, "seed")) };
    o->width = o->width == 0 ? 1024 : o->width;
    o->height = o->height == 0 ? 1024 : o->height;
    o->samples = o->samples == 0 ? 1 : o->samples;
    if (o->seed == 0)
        o->seed = text_hash(plain, strlen(plain)) % 4294967294U + 1;
    free(plain);
}

static void v1_work(struct exchange *ex, const json_t *in, enum key_mood mood)
{
    struct v1_order *o = text_alloc(sizeof *o);
    v1_fill(o, in, ex->prompt == NULL ? "" : ex->prompt);
    ex->cargo = o;
    ex->cargo_free = free;
    ex->images = o->samples;
    ex->cost = 500 * (int64_t)o->samples; /* 0.005 USD: the dearer figure */
    if (mood == KEY_MISSING || mood == KEY_BAD) {
        v1_refuse(ex, 401, "");
        return;
    }
    if (desk_fault(ex, v1_refuse))
        return;
    if (stability_balance(ex, mood) < ex->cost) {
        v1_refuse(ex, 402, "");
        return;
    }
    if (fault_has(&ex->fault, FW_MODERATED)) {
        v1_refuse(ex, 400, "invalid_prompts");
        return;
    }
    if (!fault_has(&ex->fault, FW_FAIL))
        desk_pay(ex);
    if (!desk_taken(ex))
        exchange_wait(ex, desk_delay(ex, CFG_DELAY_GENERATE_MIN), v1_on_worked);
}

static json_t *v1_read(struct exchange *ex, enum v1_kind kind, json_t *errors)
{
    const char *type = exchange_request_header(ex, "Content-Type"), *why = "body: must be JSON", *data = ex->body.data;
    struct form form;
    json_t *in = NULL;
    if (data == NULL)
        data = "";
    if (kind != V1_TEXT) {
        if (multipart_parse(type, data, ex->body.len, &form, &why))
            return v1_form_json(&form, errors);
    } else if (type != NULL && text_casecmp_n(type, "application/json", 16) == 0) {
        in = json_loadb(data, ex->body.len, 0, NULL);
    }
    if (!json_is_object(in))
        problem(errors, "%s", why);
    return in;
}

bool stability_v1(struct exchange *ex, const char *path, enum key_mood mood)
{
    static const char *const tails[] = { "/text-to-image", "/image-to-image", "/image-to-image/masking" };
    static const char *const engines[] = { "stable-diffusion-xl-1024-v1-0", "stable-diffusion-v1-6" };
    const char *at = strncmp(path, "/v1/generation/", 15) == 0 ? path + 15 : NULL;
    const char *tail = at != NULL ? strchr(at, '/') : NULL, *accept = exchange_request_header(ex, "Accept");
    char engine[64];
    size_t kind = 0;
    while (tail != NULL && kind < ARRAY_LEN(tails) && strcmp(tail, tails[kind]) != 0)
        kind++;
    if (tail == NULL || kind == ARRAY_LEN(tails) || (size_t)(tail - at) >= sizeof engine)
        return false;
    (void)snprintf(engine, sizeof engine, "%.*s", (int)(tail - at), at);
    json_t *errors = json_array(), *in = v1_read(ex, (enum v1_kind)kind, errors);
    const json_t *first = json_array_get(json_object_get(in, "text_prompts"), 0);
    desk_open(ex, PHASE_SUBMIT, json_string_value(json_object_get(first, "text")));
    if (json_is_object(in))
        v1_check(in, (enum v1_kind)kind, engine, errors);
    if (accept != NULL && text_casecmp(accept, "application/json") != 0)
        problem(errors, "accept: this sandbox answers in application/json only");
    if (stability_limited(ex))
        ; /* answered */
    else if (json_array_size(errors) > 0)
        exchange_send_json(ex, 400,
                           json_pack("{s:s,s:s,s:O}", "id", "00000000000000000000000000000000", "name", "bad_request",
                                     "message", json_array_get(errors, 0)));
    else if (strcmp(engine, engines[0]) != 0 && strcmp(engine, engines[1]) != 0)
        v1_refuse(ex, 404, "");
    else
        v1_work(ex, in, mood);
    json_decref(errors);
    json_decref(in);
    return true;
}
