/* leonardo_images.c - Leonardo's other calls: POST /init-image and the presigned form behind it (on the second
 * listener, where no key may be sent), POST /variations/KIND and GET /variations/ID.
 *
 * An upload and a variation are jobs whose facts are one word: "init:SIGNATURE", "UPSCALE". */
#include "leonardo.h"
#include "multipart.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUCKET     "image-generation-bucket"
#define PRESIGN_MS 120000

/* ---- uploads ---- */

static bool is_upload(const struct job *job)
{
    return job != NULL && job->facts != NULL && strncmp(job->facts, "init:", 5) == 0;
}

static const struct job *mine(const struct exchange *ex, const char *id)
{
    const struct job *job = jobs_find(ex->box->jobs, id);
    return job != NULL && strcmp(job->account, ex->account) == 0 ? job : NULL;
}

const struct job *leonardo_uploaded(const struct exchange *ex, const char *id)
{
    const struct job *job = mine(ex, id);
    return is_upload(job) && job->input != NULL ? job : NULL;
}

/* An image's id is its generation's with the image's number as last digit (leonardo.c). */
const struct job *leonardo_generated(const struct exchange *ex, const char *id, int *index)
{
    char parent[40];
    if (strlen(id) != 36 || id[35] < '0' || id[35] > '9')
        return NULL;
    *index = id[35] - '0';
    (void)snprintf(parent, sizeof parent, "%s", id);
    for (const char *c = "0123456789abcdef"; *c != '\0'; c++) {
        parent[35] = *c;
        const struct job *job = mine(ex, parent);
        if (job != NULL && job->facts != NULL && job->facts[0] == '{' && *index < job->count)
            return job;
    }
    return NULL;
}

/* What the form has to carry, name by name. */
static json_t *upload_fields(const struct job *job)
{
    char key[128];
    const char *type = picture_mime(job->format);
    (void)snprintf(key, sizeof key, "uploads/%s.%s", job->id, picture_extension(job->format));
    return json_pack("{s:s,s:s,s:s,s:s,s:s,s:s,s:s}", "Content-Type", type, "bucket", BUCKET, "X-Amz-Algorithm",
                     "AWS4-HMAC-SHA256", "X-Amz-Credential", "sandbox/20260302/us-east-1/s3/aws4_request", "key", key,
                     "Policy", "eyJzYW5kYm94Ijp0cnVlfQ==", "X-Amz-Signature", job->facts + 5);
}

void leonardo_init_image(struct exchange *ex, enum key_mood mood, const char *key)
{
    static const struct {
        const char *extension;
        enum picture_format format;
    } known[] = { { "png", PICTURE_PNG }, { "jpg", PICTURE_JPEG }, { "jpeg", PICTURE_JPEG }, { "webp", PICTURE_WEBP } };
    struct sandbox *box = ex->box;
    json_t *body = json_loadb(ex->body.data == NULL ? "" : ex->body.data, ex->body.len, 0, NULL);
    const char *extension = json_string_value(json_object_get(body, "extension"));
    char url[160], signature[33], facts[48];
    size_t i = 0;

    if (!leonardo_admit(ex, mood, key) || desk_fault(ex, leonardo_refuse))
        goto out;
    while (extension != NULL && i < ARRAY_LEN(known) && strcmp(known[i].extension, extension) != 0)
        i++;
    if (extension == NULL || i == ARRAY_LEN(known) || json_object_size(body) != 1) {
        (void)leonardo_unexpected(ex, "invalid file extension"); /* answered */
        goto out;
    }
    text_random_hex(signature, 32);
    (void)snprintf(facts, sizeof facts, "init:%s", signature);
    struct job job = { .prompt = text_dup(""),
                       .facts = text_dup(facts),
                       .created_ms = sandbox_now_ms(box),
                       .done_ms = INT64_MAX,
                       .expires_ms = sandbox_now_ms(box) + PRESIGN_MS,
                       .format = known[i].format };
    text_uuid(job.id);
    memcpy(job.account, ex->account, sizeof job.account);
    const struct job *kept = jobs_add(box->jobs, &job, (size_t)sandbox_setting(box, CFG_MAX_JOBS));
    json_t *fields = upload_fields(kept);
    char *text = json_dumps(fields, JSON_COMPACT);
    (void)snprintf(url, sizeof url, "%s/%s/%s", box->images_base, BUCKET, kept->id);
    exchange_send_json(ex, 200,
                       json_pack("{s:{s:s,s:O,s:s,s:s}}", "uploadInitImage", "id", kept->id, "key",
                                 json_object_get(fields, "key"), "url", url, "fields", text));
    free(text);
    json_decref(fields);
out:
    json_decref(body);
}

static void upload_refuse(struct exchange *ex, int status, const char *code)
{
    char text[256];
    (void)snprintf(text, sizeof text, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>%s</Code></Error>",
                   code[0] == '\0' ? "SlowDown" : code);
    exchange_send(ex, status, "application/xml", text);
}

/* NULL: fine; else S3's word. Every field as it was handed out, then the file and nothing behind it. */
static const char *upload_problem(const struct exchange *ex, const struct job *job, const struct form *form)
{
    json_t *fields = upload_fields(job), *value;
    const struct part *last = form->count > 0 ? &form->parts[form->count - 1] : NULL;
    const char *name, *problem = NULL;

    json_object_foreach(fields, name, value)
    {
        const struct part *p = form_find(form, name);
        if (p == NULL || p->len != json_string_length(value) || memcmp(p->data, json_string_value(value), p->len) != 0)
            problem = "AccessDenied";
    }
    if (last == NULL || strcmp(last->name, "file") != 0 || !last->is_file ||
        form->count != json_object_size(fields) + 1)
        problem = "InvalidArgument";
    else if (last->len == 0)
        problem = "EntityTooSmall";
    if (sandbox_now_ms(ex->box) >= job->expires_ms)
        problem = "AccessDenied";
    json_decref(fields);
    return problem;
}

void leonardo_on_upload(struct exchange *ex)
{
    const char *id = ex->path + strlen("/" BUCKET "/"), *why = "", *problem;
    struct job *job = jobs_find(ex->box->jobs, id);
    struct form *form = text_alloc(sizeof *form);

    ex->provider = "leonardo";
    if (exchange_request_header(ex, "Authorization") != NULL || !is_upload(job)) { /* a key has no business here */
        upload_refuse(ex, 403, "AccessDenied");
        goto out;
    }
    memcpy(ex->account, job->account, sizeof ex->account);
    if (desk_fault(ex, upload_refuse))
        goto out;
    if (strcmp(ex->method, "POST") != 0 ||
        !multipart_parse(exchange_request_header(ex, "Content-Type"), ex->body.data, ex->body.len, form, &why)) {
        upload_refuse(ex, 400, "MalformedPOSTRequest");
        goto out;
    }
    problem = upload_problem(ex, job, form);
    if (problem != NULL) {
        upload_refuse(ex, strcmp(problem, "AccessDenied") == 0 ? 403 : 400, problem);
        goto out;
    }
    const struct part *file = &form->parts[form->count - 1];
    blob_drop(job->input);
    job->input = jobs_share_input(ex->box->jobs, blob_new(file->data, file->len));
    exchange_send(ex, 204, "application/xml", "");
out:
    free(form);
}

/* ---- variations ---- */

static const struct variation {
    const char *kind, *key, *type;
    int factor;
} kinds[] = {
    { "upscale", "sdUpscaleJob", "UPSCALE", 2 },
    { "unzoom", "sdUnzoomJob", "UNZOOM", 1 },
    { "nobg", "sdNobgJob", "NOBG", 1 },
    { "universal-upscaler", "universalUpscaler", "UPSCALE", 2 },
};

static const char *text_of(const json_t *body, const char *name)
{
    return json_string_value(json_object_get(body, name));
}

/* Where the picture comes from; false means answered. */
static bool vary_from(struct exchange *ex, const struct variation *v, const json_t *body, double factor,
                      struct job *out)
{
    bool is_universal = strcmp(v->kind, "universal-upscaler") == 0;
    const char *id = text_of(body, is_universal ? "generatedImageId" : "id"), *init = text_of(body, "initImageId");
    const char *older = text_of(body, "variationId");
    const struct job *from = NULL;
    struct picture_info info;
    int index = 0;

    if (id != NULL && json_is_true(json_object_get(body, "isVariation")))
        from = mine(ex, id);
    else if (id != NULL)
        from = leonardo_generated(ex, id, &index);
    else if (is_universal && init != NULL)
        from = leonardo_uploaded(ex, init);
    else if (is_universal && older != NULL)
        from = mine(ex, older);
    if (from == NULL)
        return leonardo_unexpected(ex, init != NULL ? "invalid init image id" : "failed to find init variation");
    out->prompt = faults_plain_prompt(from->prompt);
    out->seed = from->seed + (uint64_t)index;
    out->width = from->width;
    out->height = from->height;
    if (from->input != NULL) {
        if (!codec_info((const unsigned char *)from->input->data, from->input->len, &info)) {
            free(out->prompt);
            return leonardo_unexpected(ex, "couldn't access image");
        }
        out->kind = PICTURE_UPSCALED;
        out->input = blob_hold(from->input);
        out->width = info.width;
        out->height = info.height;
    }
    out->width = (int)(out->width * factor);
    out->height = (int)(out->height * factor);
    return true;
}

/* The members that the page lists for the call; false means answered. */
static bool vary_check(struct exchange *ex, const struct variation *v, const json_t *body)
{
    static const char *const universal[] = { "generatedImageId",
                                             "initImageId",
                                             "variationId",
                                             "upscalerStyle",
                                             "ultraUpscaleStyle",
                                             "upscaleMultiplier",
                                             "similarity",
                                             "detailContrast",
                                             "creativityStrength",
                                             "prompt",
                                             NULL };
    static const char *const plain[] = { "id", NULL }, *const nobg[] = { "id", "isVariation", NULL };
    const char *const *known = v->kind[0] == 'u' && v->kind[2] == 'i' ? universal : v->kind[0] == 'n' ? nobg : plain;
    double factor = json_number_value(json_object_get(body, "upscaleMultiplier"));
    const char *name;
    json_t *value;

    json_object_foreach((json_t *)body, name, value)
    {
        size_t i = 0;
        while (known[i] != NULL && strcmp(known[i], name) != 0)
            i++;
        if (known[i] == NULL) {
            char text[160];
            (void)snprintf(text, sizeof text, "Unexpected variable %.100s", name);
            leonardo_error(ex, 400, "$", "bad-request", text);
            return false;
        }
    }
    if (known == universal && json_object_get(body, "upscaleMultiplier") != NULL && (factor < 1 || factor > 2))
        return leonardo_unexpected(ex, "upscaleMultiplier must be between 1 and 2");
    if (known != universal && text_of(body, "id") == NULL) {
        leonardo_error(ex, 400, "$", "validation-failed", "expecting a value for non-nullable variable: \"id\"");
        return false;
    }
    return true;
}

static void vary_accept(struct exchange *ex, const struct variation *v, struct job *job)
{
    struct sandbox *box = ex->box;
    int64_t now = sandbox_now_ms(box);

    job->facts = text_dup(v->type);
    job->created_ms = now;
    job->done_ms = fault_has(&ex->fault, FW_STUCK) ? INT64_MAX : now + desk_delay(ex, CFG_DELAY_LEONARDO_MIN);
    job->expires_ms = INT64_MAX;
    job->count = desk_count(&ex->fault, 1);
    job->shaped = desk_shape(&ex->fault);
    job->format = PICTURE_PNG;
    text_uuid(job->id);
    memcpy(job->account, ex->account, sizeof job->account);
    const struct job *kept = jobs_add(box->jobs, job, (size_t)sandbox_setting(box, CFG_MAX_JOBS));
    if (fault_has(&ex->fault, FW_NULL_JOB))
        exchange_send_json(ex, 200, json_pack("{s:n}", v->key));
    else
        exchange_send_json(ex, 200,
                           json_pack("{s:{s:s,s:i,s:{s:s,s:s}}}", v->key, "id", kept->id, "apiCreditCost", 5, "cost",
                                     "amount", "5", "unit", "CREDITS"));
}

void leonardo_vary(struct exchange *ex, const char *kind, enum key_mood mood, const char *key)
{
    json_t *body =
        ex->is_too_large ? NULL : json_loadb(ex->body.data == NULL ? "" : ex->body.data, ex->body.len, 0, NULL);
    const json_t *multiplier = json_object_get(body, "upscaleMultiplier");
    const struct variation *v = NULL;
    struct job job = { .kind = PICTURE_DRAWN };

    desk_open(ex, PHASE_SUBMIT, text_of(body, "prompt"));
    if (!leonardo_admit(ex, mood, key))
        goto out;
    for (size_t i = 0; i < ARRAY_LEN(kinds) && v == NULL; i++)
        if (strcmp(kinds[i].kind, kind) == 0)
            v = &kinds[i];
    if (v == NULL) {
        leonardo_error(ex, 404, "$", "not-found", "Endpoint not found");
        goto out;
    }
    if (!json_is_object(body)) {
        leonardo_error(ex, 400, "$", "validation-failed", "expecting a value for non-nullable variable: \"id\"");
        goto out;
    }
    if (!vary_check(ex, v, body))
        goto out;
    ex->images = 1;
    ex->cost = 1350;
    if (desk_fault(ex, leonardo_refuse) || !leonardo_has_room(ex, mood) ||
        !vary_from(ex, v, body, multiplier != NULL ? json_number_value(multiplier) : v->factor, &job))
        goto out;
    desk_pay(ex);
    if (desk_taken(ex)) {
        free(job.prompt);
        blob_drop(job.input);
    } else {
        if (ex->prompt != NULL && ex->prompt[0] != '\0') { /* with its magic words, for polls and downloads */
            free(job.prompt);
            job.prompt = text_dup(ex->prompt);
        }
        vary_accept(ex, v, &job);
    }
out:
    json_decref(body);
}

void leonardo_variation(struct exchange *ex, const char *id, enum key_mood mood, const char *key)
{
    const struct job *job = mine(ex, id);
    bool is_one = job != NULL && job->facts != NULL && job->facts[0] != '{' && !is_upload(job);
    char url[256];
    const char *word = "PENDING";

    desk_open(ex, PHASE_POLL, is_one ? job->prompt : NULL);
    if (!leonardo_admit(ex, mood, key) || desk_fault(ex, leonardo_refuse))
        return;
    if (!is_one || fault_has(&ex->fault, FW_NULL_JOB)) {
        exchange_send_json(ex, 200, json_pack("{s:[]}", "generated_image_variation_generic"));
        return;
    }
    if (fault_has(&ex->fault, FW_UNKNOWN_STATUS))
        word = "MARINATING";
    else if (sandbox_now_ms(ex->box) >= job->done_ms)
        word = (job->shaped >> FW_FAIL & 1) != 0 ? "FAILED" : "COMPLETE";
    (void)snprintf(url, sizeof url, "%s/users/11111111-2222-4333-8444-555555555555/generations/%s/Sandbox_0.png",
                   ex->box->images_base, job->id);
    exchange_send_json(ex, 200,
                       json_pack("{s:[{s:s,s:s,s:s,s:o,s:s}]}", "generated_image_variation_generic", "id", job->id,
                                 "status", word, "transformType", job->facts, "url",
                                 strcmp(word, "COMPLETE") == 0 && job->count > 0 ? json_string(url) : json_null(),
                                 "createdAt", "2026-03-02T10:11:12.345"));
}
