/* openai_form.c - what edits and variations bring: forms with their files, and the JSON form with data: URLs (the
 * page's sections 3.2 and 3.3). File parts need their real media type; sizes are judged per model. */
#include "multipart.h"
#include "openai.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { IMAGES_MAX = 16, GPT_BYTES = 50000000, SMALL_BYTES = 4000000, URL_CHARS = 20971520 };

struct file {
    const char *param, *type; /* type: as declared */
    const unsigned char *data;
    size_t len;
    struct picture_info info;
};

static json_t *form_value(const struct part *p)
{
    static const char *const numbers[] = { "n", "output_compression", "partial_images" };
    char text[24], *end;
    if (strcmp(p->name, "stream") == 0 && p->len == 4 && memcmp(p->data, "true", 4) == 0)
        return json_true();
    if (strcmp(p->name, "stream") == 0 && p->len == 5 && memcmp(p->data, "false", 5) == 0)
        return json_false();
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        if (strcmp(numbers[i], p->name) != 0 || p->len == 0 || p->len >= sizeof text)
            continue;
        memcpy(text, p->data, p->len);
        text[p->len] = '\0';
        long v = strtol(text, &end, 10);
        if (*end == '\0')
            return json_integer(v);
    }
    return json_stringn((const char *)p->data, p->len);
}

static bool is_picture_part(const struct part *p)
{
    return strcmp(p->name, "image") == 0 || strcmp(p->name, "image[]") == 0 || strcmp(p->name, "mask") == 0;
}

json_t *openai_read_form(struct exchange *ex)
{
    const char *why = "body: too large", *type = exchange_request_header(ex, "Content-Type");
    struct form form;
    json_t *out = json_object();
    if (ex->is_too_large ||
        !multipart_parse(type, ex->body.data == NULL ? "" : ex->body.data, ex->body.len, &form, &why)) {
        (void)openai_bad(ex, NULL, NULL, why); /* answered */
        json_decref(out);
        return NULL;
    }
    for (size_t i = 0; i < form.count; i++) {
        const struct part *p = &form.parts[i];
        if (is_picture_part(p))
            continue;
        if (json_object_get(out, p->name) != NULL || json_object_set_new(out, p->name, form_value(p)) != 0) {
            (void)openai_bad(ex, p->name, "invalid_value", "A parameter must be given once, as UTF-8 text.");
            json_decref(out);
            return NULL;
        }
    }
    return out;
}

/* ---- files; false means answered ---- */

static bool file_bad(struct exchange *ex, const struct file *f, const char *message)
{
    return openai_bad(ex, f->param, NULL, message); /* the page: code null */
}

static bool check_gpt_file(struct exchange *ex, struct file *f)
{
    static const char *const types[] = { "image/png", "image/jpeg", "image/webp" };
    bool is_known = false;
    for (size_t i = 0; i < ARRAY_LEN(types); i++)
        is_known = is_known || strcmp(types[i], f->type) == 0;
    if (!is_known)
        return file_bad(ex, f,
                        "Invalid file: unsupported mimetype. Supported file formats are 'image/jpeg', "
                        "'image/png', and 'image/webp'.");
    if (!codec_info(f->data, f->len, &f->info))
        return file_bad(ex, f, "Invalid image file or mode.");
    return f->len < GPT_BYTES || file_bad(ex, f, "Image must be less than 50 MB.");
}

static bool check_png(struct exchange *ex, struct file *f)
{
    if (strcmp(f->type, "image/png") != 0 || !codec_info(f->data, f->len, &f->info) || f->info.format != PICTURE_PNG)
        return file_bad(ex, f, "Invalid input image - format must be PNG.");
    return f->len < SMALL_BYTES || file_bad(ex, f, "Uploaded image must be a PNG and less than 4 MB.");
}

static bool check_mask(struct exchange *ex, struct file *mask, const struct file *image)
{
    if (!check_png(ex, mask))
        return false;
    if (image->info.width == 0 || (mask->info.width == image->info.width && mask->info.height == image->info.height))
        return true; /* an image behind a URL is looked at by nobody here */
    return file_bad(ex, mask, "Invalid mask image - mask size does not match image size.");
}

static bool check_dalle2(struct exchange *ex, struct file *f, bool needs_alpha)
{
    if (!check_png(ex, f))
        return false;
    if (f->info.width != f->info.height)
        return file_bad(ex, f, "Uploaded image must be square.");
    return !needs_alpha || f->info.has_alpha ||
           file_bad(ex, f, "Invalid input image - format must be in ['RGBA', 'LA', 'L'], got RGB.");
}

bool openai_form_files(struct exchange *ex, enum openai_family family, struct openai_files *out)
{
    bool is_vary = strcmp(ex->path, "/openai/v1/images/variations") == 0;
    struct file images[IMAGES_MAX], mask = { .param = "mask" };
    struct form form;
    const char *why;
    size_t count = 0;
    *out = (struct openai_files){ 0 };
    (void)multipart_parse(exchange_request_header(ex, "Content-Type"), ex->body.data, ex->body.len, &form,
                          &why); /* it was read before */
    for (size_t i = 0; i < form.count; i++) {
        const struct part *p = &form.parts[i];
        if (!is_picture_part(p))
            continue;
        struct file one = {
            .param = p->name[0] == 'm' ? "mask" : "image", .type = p->type, .data = p->data, .len = p->len
        };
        if (!p->is_file)
            return openai_bad(ex, one.param, "invalid_type", "Invalid type: expected a file.");
        if (p->name[0] == 'm' && is_vary)
            return openai_bad(ex, "mask", "unknown_parameter", "Unknown parameter: 'mask'.");
        if (p->name[0] == 'm') {
            mask = one;
            continue;
        }
        if (family == DALLE2 && strcmp(p->name, "image[]") == 0)
            return openai_bad(ex, "image[]", "unknown_parameter", "Unknown parameter: 'image[]'.");
        if (count == IMAGES_MAX || (count > 0 && strcmp(p->name, "image") == 0))
            return openai_bad(ex, "image", "invalid_value", "Too many images.");
        images[count++] = one;
    }
    if (count == 0)
        return openai_bad(ex, "image", "missing_required_parameter", "Missing required parameter: 'image'.");
    for (size_t i = 0; i < count; i++) {
        bool needs_alpha = !is_vary && mask.data == NULL;
        if (!(family == DALLE2 ? check_dalle2(ex, &images[i], needs_alpha) : check_gpt_file(ex, &images[i])))
            return false;
    }
    out->count = (int)count;
    out->seed = text_hash(images[0].data, images[0].len);
    return mask.data == NULL || check_mask(ex, &mask, &images[0]);
}

/* {"image_url": …} or {"file_id": …}, exactly one. data: freed by the caller. */
static bool json_file(struct exchange *ex, const json_t *item, const char *param, struct file *f, unsigned char **data)
{
    const char *url = json_string_value(json_object_get(item, "image_url"));
    const char *id = json_string_value(json_object_get(item, "file_id"));
    const char *comma = url == NULL ? NULL : strchr(url, ',');
    static char type[64];
    size_t len = 0;
    *f = (struct file){ .param = param };
    if ((url == NULL) == (id == NULL) || json_object_size(item) != 1)
        return openai_bad(ex, param, "invalid_value",
                          "Expected an object with exactly one of 'image_url' or 'file_id'.");
    if (id != NULL)
        return openai_bad(ex, param, "invalid_value", "kiln-sandbox keeps no files.");
    if (strlen(url) > URL_CHARS)
        return openai_bad(ex, param, "string_above_max_length", "Invalid 'image_url': string too long.");
    if (strncmp(url, "https://", 8) == 0)
        return true;
    if (strncmp(url, "data:", 5) != 0 || comma == NULL || comma - url < 12 || strncmp(comma - 7, ";base64", 7) != 0)
        return openai_bad(ex, param, "invalid_value",
                          "Invalid 'image_url': expected an https URL or a base64 data URL.");
    (void)snprintf(type, sizeof type, "%.*s", (int)(comma - 7 - url - 5), url + 5);
    *data = text_alloc(strlen(comma));
    if (sodium_base642bin(*data, strlen(comma), comma + 1, strlen(comma + 1), NULL, &len, NULL,
                          sodium_base64_VARIANT_ORIGINAL) != 0)
        return openai_bad(ex, param, "invalid_value", "Invalid 'image_url': bad base64.");
    f->type = type;
    f->data = *data;
    f->len = len;
    return true;
}

bool openai_json_files(struct exchange *ex, const json_t *body, struct openai_files *out)
{
    const json_t *images = json_object_get(body, "images"), *mask = json_object_get(body, "mask");
    struct file first = { 0 };
    *out = (struct openai_files){ .count = (int)json_array_size(images) };
    if (images == NULL)
        return openai_bad(ex, "images", "missing_required_parameter", "Missing required parameter: 'images'.");
    if (out->count < 1 || out->count > IMAGES_MAX)
        return openai_bad(ex, "images", "invalid_value", "Invalid 'images': expected 1 to 16 items.");
    for (int i = 0; i <= out->count; i++) {
        bool is_mask = i == out->count;
        const json_t *item = is_mask ? mask : json_array_get(images, (size_t)i);
        unsigned char *data = NULL;
        struct file one;
        if (is_mask && (mask == NULL || json_is_null(mask)))
            break;
        bool fine = json_file(ex, item, is_mask ? "mask" : "images", &one, &data);
        if (fine && data != NULL)
            fine = is_mask ? check_mask(ex, &one, &first) : check_gpt_file(ex, &one);
        if (fine && i == 0) {
            first = one;
            out->seed = one.data == NULL ? 0 : text_hash(one.data, one.len);
        }
        free(data);
        if (!fine)
            return false;
    }
    return true;
}
