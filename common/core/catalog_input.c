/* catalog_input.c - which files an operation takes, and whether one fits: format, bytes, sides, pixels, shape.
 *
 * catalog_files_fit judges them together, by the rules between parameters. Judges by the head alone (media_sniff), so
 * that a dispatcher may ask on its loop before any money is held. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/base/text.h"
#include "common/core/catalog_parts.h"

size_t catalog_inputs(const struct operation *op, struct catalog_input *out, size_t max)
{
    size_t count = 0;

    for (size_t i = 0; i < op->params->count; i++) {
        if (!op->params->items[i].is_file)
            continue;
        if (count < max)
            out[count] = op->params->items[i].input;
        count++;
    }
    return count;
}

static bool refuse(char *message, size_t size, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

static bool refuse(char *message, size_t size, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    if (size > 0)
        (void)vsnprintf(message, size, fmt, args); /* fixed texts and numbers: a cut does no harm */
    va_end(args);
    return false;
}

static bool format_fits(const json_t *formats, enum media_kind kind, char *list, size_t list_size)
{
    size_t used = 0;

    list[0] = '\0';
    for (size_t i = 0; i < json_array_size(formats) && used < list_size; i++) {
        const char *name = json_string_value(json_array_get(formats, i));

        if (kind != MEDIA_UNKNOWN &&
            (strcmp(name, media_extension(kind)) == 0 || (kind == MEDIA_JPEG && strcmp(name, "jpeg") == 0)))
            return true;
        used += (size_t)snprintf(list + used, list_size - used, "%s%s", i > 0 ? ", " : "", name);
    }
    return false;
}

static bool sides_fit(const json_t *spec, const struct media_head *head, char *message, size_t size)
{
    long long w = head->width, h = head->height;
    int64_t min_side = 1, max_side = INT64_MAX, min_pixels = 1, max_pixels = INT64_MAX;
    double aspect = 0;

    (void)json_int(spec, "min_side", &min_side); /* absent: no limit, for all of them */
    (void)json_int(spec, "max_side", &max_side);
    (void)json_int(spec, "min_pixels", &min_pixels);
    (void)json_int(spec, "max_pixels", &max_pixels);
    (void)json_number(spec, "max_aspect", &aspect);
    if (w <= 0 || h <= 0)
        return refuse(message, size, "must be an image whose size can be read");
    if (w < min_side || h < min_side)
        return refuse(message, size, "must have sides of at least %lld pixels, got %lldx%lld", (long long)min_side, w,
                      h);
    if (w > max_side || h > max_side)
        return refuse(message, size, "must have sides of at most %lld pixels, got %lldx%lld", (long long)max_side, w,
                      h);
    if (w > INT64_MAX / h || w * h > max_pixels)
        return refuse(message, size, "must have at most %lld pixels, got %lldx%lld", (long long)max_pixels, w, h);
    if (w * h < min_pixels)
        return refuse(message, size, "must have at least %lld pixels, got %lldx%lld", (long long)min_pixels, w, h);
    if (aspect > 0 && ((double)w > aspect * (double)h || (double)h > aspect * (double)w))
        return refuse(message, size, "must have a ratio between 1:%g and %g:1, got %lldx%lld", aspect, aspect, w, h);
    return true;
}

/* A length that the head does not tell (a recorded upload, no head at hand) is the provider's to judge. The estimate
 * from an mp3's first frame is taken with a tenth of doubt. */
static bool lasts_right(const json_t *spec, const struct media_head *head, int64_t bytes, char *message, size_t size)
{
    double min = 0, max = 0, seconds = media_seconds(head, bytes), doubt = head->kind == MEDIA_MP3 ? 1.1 : 1.001;

    (void)json_number(spec, "min_duration_s", &min); /* absent: no limit, both */
    (void)json_number(spec, "max_duration_s", &max);
    if (seconds < 0)
        return true;
    if (seconds * doubt < min)
        return refuse(message, size, "must last at least %g seconds, got %.1f", min, seconds);
    if (max > 0 && seconds > max * doubt)
        return refuse(message, size, "must last at most %g seconds, got %.1f", max, seconds);
    return true;
}

bool catalog_input_fits(const struct operation *op, const char *field, const struct media_head *head, int64_t bytes,
                        char *message, size_t message_size)
{
    const json_t *spec = json_object_get(json_object_get(op->doc, "params"), field);
    int64_t max_bytes = 0;
    char list[96];

    if (!catalog_is_file(spec))
        return refuse(message, message_size, "is not a file parameter of this operation");
    (void)json_int(spec, "max_bytes", &max_bytes); /* catalog_check.c saw to it */
    if (bytes <= 0)
        return refuse(message, message_size, "must not be empty");
    if (bytes > max_bytes)
        return refuse(message, message_size, "must have at most %lld bytes, got %lld", (long long)max_bytes,
                      (long long)bytes);
    if (!format_fits(json_object_get(spec, "formats"), head->kind, list, sizeof list))
        return refuse(message, message_size, "must be one of %s, got %s", list,
                      head->kind == MEDIA_UNKNOWN ? "something else" : media_extension(head->kind));
    if (!media_is_image(head->kind))
        return lasts_right(spec, head, bytes, message, message_size);
    return sides_fit(spec, head, message, message_size);
}

/* ---- what the rules say of files */

static bool alpha_fits(const json_t *c, const struct catalog_file *file, char *message, size_t size)
{
    if (!json_bool(c, "alpha", false) || !file->is_head_read || file->head.has_alpha)
        return true;
    return refuse(message, size, "must have an alpha channel");
}

/* The first file of another parameter; NULL: there is none yet (a URL that the worker fetches). */
static const struct catalog_file *first_of(const struct catalog_file *files, size_t count, const char *field)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(files[i].field, field) == 0 && (files[i].index == 0 || files[i].index == SIZE_MAX))
            return &files[i];
    }
    return NULL;
}

static bool file_obeys(const json_t *c, const struct catalog_file *file, const struct catalog_file *like, char *message,
                       size_t size)
{
    const json_t *formats = json_object_get(c, "formats");
    long long w = file->head.width, h = file->head.height;
    int64_t max_bytes = INT64_MAX;
    double aspect = 0;
    char list[96];

    (void)json_int(c, "max_bytes", &max_bytes); /* absent: no limit, both */
    (void)json_number(c, "max_aspect", &aspect);
    if (file->bytes > max_bytes)
        return refuse(message, size, "must have at most %lld bytes, got %lld", (long long)max_bytes,
                      (long long)file->bytes);
    if (formats != NULL && !format_fits(formats, file->head.kind, list, sizeof list))
        return refuse(message, size, "must be one of %s, got %s", list, media_extension(file->head.kind));
    if (w > 0 && aspect > 0 && ((double)w > aspect * (double)h || (double)h > aspect * (double)w))
        return refuse(message, size, "must have a ratio between 1:%g and %g:1, got %lldx%lld", aspect, aspect, w, h);
    if (w > 0 && like != NULL && like->head.width > 0 && (like->head.width != w || like->head.height != h))
        return refuse(message, size, "must be as large as %s, %lldx%lld, got %lldx%lld", like->field,
                      (long long)like->head.width, (long long)like->head.height, w, h);
    return alpha_fits(c, file, message, size);
}

static void judge_file(const json_t *c, const struct catalog_file *file, const struct catalog_file *like,
                       const char *when, struct catalog_faults *faults)
{
    char message[200], field[96];

    if (file_obeys(c, file, like, message, sizeof message))
        return;
    if (file->index == SIZE_MAX)
        (void)snprintf(field, sizeof field, "params.%.80s", file->field);
    else
        (void)snprintf(field, sizeof field, "params.%.60s[%zu]", file->field, file->index);
    faults_add(faults, field, "%s%s%s", message, when[0] != '\0' ? " with " : "", when);
}

bool catalog_files_fit(const struct operation *op, const json_t *params, const struct catalog_file *files, size_t count,
                       struct catalog_faults *faults)
{
    const json_t *rules = json_object_get(op->doc, "rules");
    size_t before = faults->count;

    for (size_t i = 0; i < json_array_size(rules) && count > 0; i++) {
        const json_t *rule = json_array_get(rules, i), *when = json_object_get(rule, "when");
        char text[200];

        if (!catalog_matches(when, params))
            continue;
        catalog_when_text(text, sizeof text, when, params);
        for (size_t k = 0; k < count; k++) {
            const json_t *c = json_object_get(json_object_get(rule, "then"), files[k].field);
            const char *like = json_text(c, "same_size_as");

            if (c != NULL)
                judge_file(c, &files[k], like != NULL ? first_of(files, count, like) : NULL, text, faults);
        }
    }
    return faults->count == before;
}

/* ---- what comes back */

const char *catalog_placeholder(const struct operation *op, const char *sha256, const char *blurhash)
{
    const json_t *list = json_object_get(op->provider->doc, "placeholders");

    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *one = json_array_get(list, i);
        const char *sum = json_text(one, "sha256"), *hash = json_text(one, "blurhash");

        if ((sum != NULL && strcmp(sum, sha256) == 0) || (hash != NULL && strcmp(hash, blurhash) == 0))
            return json_text(one, "why");
    }
    return NULL;
}
