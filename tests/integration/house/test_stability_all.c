/* test_stability_all.c - every Stability operation through the whole house: the right kind of file, paid once, charged
 * as the page prices it. One house, all jobs at once: the order in which they end does not matter. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/integration/house/house.h"

SUPPORT_SERVICES();

#define SOON "\"poll\":{\"first_ms\":200,\"every_ms\":200}"

enum { LIMIT_MS = 60000, SOUND_S = 7, SOUND_HZ = 8000 };

static const struct row {
    const char *name, *operation, *params; /* %s: an upload, as often as it is there; %a: the sound */
    double charged;
    const char *mime;
    int count, paid; /* paid -1: no prompt, so no tag to count by */
} table[] = {
    { "sd3", "generate.sd3", "{\"prompt\":\"a fox [[job:sd3]]\",\"model\":\"sd3.5-flash\",\"seed\":4}", 2.5,
      "image/png", 1, 1 },
    { "sd3i", "generate.sd3",
      "{\"prompt\":\"a fox [[job:sd3i]]\",\"mode\":\"image-to-image\",\"image\":\"%s\",\"strength\":0.4,\"output_format\":\"jpeg\"}",
      6.5, "image/jpeg", 1, 1 },
    { "erase", "edit.erase", "{\"image\":\"%s\",\"mask\":\"%s\",\"output_format\":\"webp\"}", 5, "image/webp", 1, -1 },
    { "inpaint", "edit.inpaint", "{\"image\":\"%s\",\"prompt\":\"a door [[job:inpaint]]\",\"grow_mask\":90}", 5,
      "image/png", 1, 1 },
    { "outpaint", "edit.outpaint", "{\"image\":\"%s\",\"left\":32,\"prompt\":\"sea [[job:outpaint]]\"}", 4, "image/png",
      1, 1 },
    { "replace", "edit.search_and_replace",
      "{\"image\":\"%s\",\"prompt\":\"a cat [[job:replace]]\",\"search_prompt\":\"dog\"}", 5, "image/png", 1, 1 },
    { "recolor", "edit.search_and_recolor",
      "{\"image\":\"%s\",\"prompt\":\"red [[job:recolor]]\",\"select_prompt\":\"car\"}", 5, "image/png", 1, 1 },
    { "remove", "edit.remove_background", "{\"image\":\"%s\",\"output_format\":\"webp\"}", 5, "image/webp", 1, -1 },
    { "relight", "edit.replace_background_and_relight",
      "{\"subject_image\":\"%s\",\"background_prompt\":\"dunes [[job:relight]]\",\"light_source_direction\":\"left\","
      "\"light_source_strength\":0.5}",
      8, "image/png", 1, 1 },
    { "fast", "upscale.fast", "{\"image\":\"%s\"}", 2, "image/png", 1, -1 },
    { "conservative", "upscale.conservative", "{\"image\":\"%s\",\"prompt\":\"sharp [[job:conservative]]\"}", 40,
      "image/png", 1, 1 },
    { "sketch", "control.sketch", "{\"image\":\"%s\",\"prompt\":\"a castle [[job:sketch]]\"}", 5, "image/png", 1, 1 },
    { "structure", "control.structure", "{\"image\":\"%s\",\"prompt\":\"a castle [[job:structure]]\"}", 5, "image/png",
      1, 1 },
    { "style", "control.style", "{\"image\":\"%s\",\"prompt\":\"a castle [[job:style]]\",\"fidelity\":0.2}", 5,
      "image/png", 1, 1 },
    { "transfer", "control.style_transfer",
      "{\"init_image\":\"%s\",\"style_image\":\"%s\",\"prompt\":\"oil [[job:transfer]]\"}", 8, "image/png", 1, 1 },
    { "mesh", "3d.fast", "{\"image\":\"%s\",\"texture_resolution\":\"512\"}", 10, "model/gltf-binary", 1, -1 },
    { "points", "3d.point_aware", "{\"image\":\"%s\",\"target_type\":\"face\",\"seed\":9}", 4, "model/gltf-binary", 1,
      -1 },
    { "tune", "audio.text_to_audio", "{\"prompt\":\"a tune [[job:tune]]\",\"duration\":5,\"steps\":40}", 19.4,
      "audio/mpeg", 1, 1 },
    { "tune25", "audio.text_to_audio",
      "{\"prompt\":\"a tune [[job:tune25]]\",\"model\":\"stable-audio-2.5\",\"duration\":3,\"output_format\":\"wav\"}",
      20, "audio/wav", 1, 1 },
    { "tune3", "audio.text_to_audio",
      "{\"prompt\":\"a tune [[job:tune3]]\",\"model\":\"stable-audio-3\",\"duration\":6}", 26, "audio/mpeg", 1, 1 },
    { "cover", "audio.audio_to_audio",
      "{\"prompt\":\"on a piano [[job:cover]]\",\"audio\":\"%a\",\"duration\":6,\"strength\":0.5}", 20, "audio/mpeg", 1,
      1 },
    { "patch", "audio.inpaint", "{\"prompt\":\"a bell [[job:patch]]\",\"audio\":\"%a\",\"duration\":6}", 20,
      "audio/mpeg", 1, 1 },
    { "patch3", "audio.inpaint",
      "{\"prompt\":\"a bell [[job:patch3]]\",\"audio\":\"%a\",\"duration\":6,\"model\":\"stable-audio-3\",\"output_format\":\"wav\"}",
      26, "audio/wav", 1, 1 },
    { "v1", "v1.text_to_image",
      "{\"prompt\":\"a reading room [[job:v1]]\",\"negative_prompt\":\"people\",\"engine_id\":\"stable-diffusion-v1-6\",\"width\":320,"
      "\"height\":384,\"samples\":2}",
      1, "image/png", 2, 1 },
    { "v1i", "v1.image_to_image",
      "{\"text_prompts\":[{\"text\":\"a red door [[job:v1i]]\",\"weight\":0.5}],\"negative_prompt\":\"rain\",\"init_image\":\"%s\"}",
      0.5, "image/png", 1, 1 },
    { "v1m", "v1.masking",
      "{\"prompt\":\"a window [[job:v1m]]\",\"init_image\":\"%s\",\"mask_source\":\"MASK_IMAGE_WHITE\",\"mask_image\":\"%s\"}",
      0.5, "image/png", 1, 1 },
};

/* A wav as a data: URI: a tone, eight bits a sample. */
static char *sound_uri(void)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t samples = SOUND_S * SOUND_HZ, len = 44 + samples, used;
    unsigned char *wav = calloc(1, len + 3);
    char *uri = malloc(40 + (len + 2) / 3 * 4);
    uint32_t fields[][2] = {
        { 4, (uint32_t)len - 8 }, { 16, 16 }, { 24, SOUND_HZ }, { 28, SOUND_HZ }, { 40, (uint32_t)samples }
    };

    memcpy(wav, "RIFF....WAVEfmt ", 16);
    wav[20] = wav[22] = wav[32] = 1;
    wav[34] = 8;
    memcpy(wav + 36, "data", 4);
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
        for (size_t k = 0; k < 4; k++)
            wav[fields[i][0] + k] = (unsigned char)(fields[i][1] >> 8 * k & 0xff);
    for (size_t i = 0; i < samples; i++)
        wav[44 + i] = (unsigned char)(100 + i / 10 % 2 * 50);
    used = (size_t)sprintf(uri, "data:audio/wav;base64,");
    for (size_t i = 0; i < len / 3 * 3; i += 3) { /* len is cut to whole triples: the last samples do not matter */
        uint32_t v = (uint32_t)wav[i] << 16 | (uint32_t)wav[i + 1] << 8 | wav[i + 2];

        for (int shift = 18; shift >= 0; shift -= 6)
            uri[used++] = digits[v >> shift & 63];
    }
    uri[used] = '\0';
    free(wav);
    return uri;
}

static char *filled(const char *params, const char *upload, const char *sound)
{
    size_t size = strlen(params) + 2 * strlen(upload) + strlen(sound) + 1, used = 0;
    char *out = malloc(size);

    for (const char *p = params; *p; p++) {
        const char *with = p[0] != '%' ? NULL : p[1] == 's' ? upload : sound;

        if (with) {
            used += (size_t)snprintf(out + used, size - used, "%s", with);
            p++;
        } else {
            out[used++] = *p;
        }
    }
    out[used] = '\0';
    return out;
}

static void expect_row(struct house *h, const struct row *want, const char *id)
{
    struct reply job = house_wait(h, id, LIMIT_MS), file;
    char path[64];

    cr_expect_str_eq(reply_text(&job, "state"), "succeeded", "%s: %s", want->name, job.text);
    cr_expect_float_eq(reply_number(&job, "credits.charged"), want->charged, 1e-9, "%s: %s", want->name, job.text);
    for (int i = 0; i < want->count; i++) {
        (void)snprintf(path, sizeof(path), "artifacts.%d.mime", i);
        cr_expect_str_eq(reply_text(&job, path), want->mime, "%s: %s", want->name, job.text);
    }
    file = house_url("GET", reply_text(&job, "artifacts.0.url"), NULL, NULL);
    cr_expect_eq((int64_t)file.len, reply_int(&job, "artifacts.0.bytes"), "%s", want->name);
    reply_done(&file);
    if (want->paid >= 0)
        cr_expect_eq(house_counter(h, want->name, "paid"), want->paid, "%s was paid %lld times", want->name,
                     (long long)house_counter(h, want->name, "paid"));
    reply_done(&job);
}

Test(stability, every_operation_delivers_its_kind_at_the_page_s_price)
{
    static const struct house_options options = {
        .sandbox_config = "{\"delay_ms\":{\"stability_creative\":300}}",
        .catalog =
            "{\"provider\":\"stability\",\"operations\":{\"stability.edit.replace_background_and_relight\":{" SOON
            "},\"stability.audio.text_to_audio\":{" SOON "},\"stability.audio.inpaint\":{" SOON "}}}",
    };
    struct house *h = house_open(&options);
    char *upload = house_upload(h, 256, 256), *sound = sound_uri();
    char ids[sizeof(table) / sizeof(table[0])][40], operation[80];

    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        char *params = filled(table[i].params, upload, sound);

        (void)snprintf(operation, sizeof(operation), "stability.%s", table[i].operation);
        house_submit(h, ids[i], operation, params);
        free(params);
    }
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        expect_row(h, &table[i], ids[i]);
    cr_expect_float_eq(house_held(h, "default"), 0, 1e-9);
    free(upload);
    free(sound);
    house_close(h);
}
