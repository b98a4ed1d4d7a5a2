/* stability.c - Stability's v2beta generate and upscale calls, results and balance, as its page describes them:
 * rate limit over everything, all problems of the parameters at once, then key, credits, moderation, work. */
#include "stability_form.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REQUEST_MAX (10U << 20)

/* What was ordered; the exchange's cargo. */
struct order {
    const struct call *call;
    uint64_t seed;
    int width, height;
    enum picture_format format;
    double seconds; /* sounds */
    bool wants_json, is_wav;
    struct blob *input;
};

static void order_free(void *p)
{
    struct order *o = p;
    blob_drop(o->input);
    free(o);
}

/* ---- errors ---- */

static void stability_error(struct exchange *ex, int status, const char *name, json_t *errors)
{
    char id[33];
    text_random_hex(id, 32);
    exchange_send_json(ex, status, json_pack("{s:s,s:s,s:o}", "id", id, "name", name, "errors", errors));
}

static void stability_refuse(struct exchange *ex, int status, const char *code)
{
    static const struct {
        int status;
        const char *name, *text;
    } rows[] = {
        { 400, "bad_request", "some-field: is required" },
        { 401, "unauthorized", "authorization: invalid or missing header value" },
        { 402, "payment_required", "You lack sufficient credits to make this request." },
        { 403, "content_moderation",
          "Your request was flagged by our content moderation system, as a result your "
          "request was denied and you were not charged." },
        { 404, "generation_not_found", "id: no generation with this id" },
        { 413, "payload_too_large", "request: must be at most 10MiB" },
        { 422, "invalid_language", "prompt: English is the only supported language for this service." },
        { 429, "rate_limit_exceeded",
          "You have exceeded the rate limit of 150 requests within a 10 second period, and "
          "have been timed out for 60 seconds." },
    };
    const char *name = "internal_error", *text = "An unexpected server error has occurred, please try again later.";
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (rows[i].status == status) {
            name = rows[i].name;
            text = rows[i].text;
        }
    }
    if (code[0] != '\0')
        name = code;
    stability_error(ex, status, name, json_pack("[s]", text));
}

/* image bytes or JSON? An accept value that the page does not list is a problem. */
static bool check_accept(const struct exchange *ex, const char *const *allowed, json_t *errors)
{
    const char *accept = exchange_request_header(ex, "Accept");
    if (accept == NULL || strcmp(accept, "*/*") == 0)
        return false;
    for (size_t i = 0; allowed[i] != NULL; i++)
        if (text_casecmp(accept, allowed[i]) == 0)
            return strcmp(allowed[i], "application/json") == 0;
    if (sandbox_setting(ex->box, CFG_STABILITY_ACCEPT) != 0)
        problem(errors, "accept: must be one of %s, %s", allowed[0], allowed[1]);
    return false;
}

/* ---- reading the order ---- */

static void order_size(struct order *o, const struct form *form, const struct sandbox *box)
{
    const struct part *p = form_find(form, "aspect_ratio");
    const struct part *image = form_find(form, o->call->subject == NULL ? "image" : o->call->subject);
    struct picture_info info = { 0 };
    double a = 1, b = 1;
    if (image != NULL)
        (void)codec_info(image->data, image->len, &info); /* checked before */
    if (o->call->is_upscale) {
        int factor = (int)sandbox_setting(box, CFG_UPSCALE_FACTOR),
            most = (int)sandbox_setting(box, CFG_UPSCALE_MAX_SIDE);
        int longest = info.width > info.height ? info.width : info.height;
        double k = longest * factor > most ? (double)most / longest : factor;
        double area = (double)info.width * info.height, most_area = (double)stability_output_pixels(o->call);
        if (area * k * k > most_area)
            k = sqrt(most_area / area);
        o->width = (int)(info.width * k);
        o->height = (int)(info.height * k);
        return; /* image_size_cap is for drawn pictures: an upscale that shrinks would be a lie */
    }
    if (o->call->subject != NULL && o->call->output_pixels <= 0) { /* edits: the size of what came */
        static const char *const more[] = { "left", "right", "up", "down" };
        double grow[4] = { 0 };
        for (size_t i = 0; i < 4; i++) {
            const struct part *m = form_find(form, more[i]);
            if (m != NULL)
                (void)part_number(m, &grow[i]); /* checked before */
        }
        o->width = info.width + (int)(grow[0] + grow[1]);
        o->height = info.height + (int)(grow[2] + grow[3]);
        return;
    }
    if (p != NULL) {
        char text[16] = { 0 };
        memcpy(text, p->data, p->len < 15 ? p->len : 15);
        if (sscanf(text, "%lf:%lf", &a, &b) != 2)
            a = b = 1;
    } else if (image != NULL) {
        a = info.width;
        b = info.height;
    }
    double pixels = o->call->output_pixels * 1024 * 1024;
    o->width = (int)(sqrt(pixels * a / b) / 16 + 0.5) * 16;
    o->height = (int)(sqrt(pixels * b / a) / 16 + 0.5) * 16;
}

static void order_fill(struct order *o, const struct exchange *ex, const struct form *form)
{
    const struct part *format = form_find(form, "output_format"), *seed = form_find(form, "seed");
    const struct part *image = form_find(form, "image");
    double v = 0;
    o->format = part_is(format, "jpeg") ? PICTURE_JPEG : part_is(format, "webp") ? PICTURE_WEBP : PICTURE_PNG;
    o->is_wav = part_is(format, "wav");
    o->seconds = o->call->longest_s < 190 ? o->call->longest_s : 190;
    if (form_find(form, "duration") != NULL && part_number(form_find(form, "duration"), &v))
        o->seconds = v;
    if (seed != NULL && part_number(seed, &v))
        o->seed = (uint64_t)v;
    if (o->seed == 0) { /* random, yet the same for the same prompt */
        char *plain = faults_plain_prompt(ex->prompt == NULL ? "" : ex->prompt);
        o->seed = text_hash(plain, strlen(plain)) % 4294967294U + 1;
        free(plain);
    }
    if (image != NULL && o->call->is_upscale)
        o->input = jobs_share_input(ex->box->jobs, blob_new(image->data, image->len));
    if (o->call->media == OUT_PICTURE)
        order_size(o, form, ex->box);
}

/* ---- answers ---- */

static void stability_media_headers(struct exchange *ex, bool json, bool filtered, uint64_t seed)
{
    char id[33];
    text_random_hex(id, 32);
    exchange_header(ex, "x-request-id", "%s", id);
    if (!json) {
        exchange_header(ex, "finish-reason", "%s", filtered ? "CONTENT_FILTERED" : "SUCCESS");
        exchange_header(ex, "seed", "%llu", (unsigned long long)seed);
    }
}

static void stability_on_painted(void *cls, struct paint *p)
{
    struct exchange *ex = cls;
    ex->paint = NULL;
    if (p->failed) {
        ex->header_count = 0;
        if (ex->phase == PHASE_SUBMIT)
            desk_refund(ex);
        stability_refuse(ex, 500, "");
        return;
    }
    char type[64];
    const char *mime = picture_mime(p->specs[0].format);
    if (p->head != NULL) {
        (void)snprintf(type, sizeof type, "application/json; type=%s", mime);
        exchange_send_blob(ex, 200, type, blob_new(p->body.data, p->body.len));
    } else {
        exchange_send_blob(ex, 200, mime, blob_hold(p->file));
    }
}

/* One picture as bytes, or as JSON with the picture under `member`. Takes the spec. */
static void stability_show(struct exchange *ex, struct picture_spec spec, uint64_t seed, const char *member)
{
    struct paint *p = paint_new(ex->box->gallery);
    bool filtered = (spec.flaws >> FW_FILTERED & 1) != 0;
    p->specs[0] = spec;
    p->count = 1;
    stability_media_headers(ex, member != NULL, filtered, seed);
    if (member != NULL) {
        struct buf head = { 0 }, tail = { 0 };
        buf_fmt(&head, "{\"%s\":\"", member);
        buf_fmt(&tail, "\",\"seed\":%llu,\"finish_reason\":\"%s\"}", (unsigned long long)seed,
                filtered ? "CONTENT_FILTERED" : "SUCCESS");
        p->head = head.data;
        p->tail = tail.data;
    }
    exchange_paint(ex, p, stability_on_painted);
}

/* A sound, as bytes or as JSON; the same for a submit and for a result. */
static void stability_show_sound(struct exchange *ex, bool is_wav, double seconds, uint64_t seed, int64_t flaws,
                                 bool wants_json)
{
    bool is_other = (flaws >> FW_WRONG_FORMAT & 1) != 0;
    struct blob *file = media_sound(is_wav != is_other, seconds, seed);
    const char *mime = is_wav ? "audio/wav" : "audio/mpeg";
    if ((flaws >> FW_CUT_IMAGE & 1) != 0) {
        struct blob *half = blob_new(file->data, file->len / 2);
        blob_drop(file);
        file = half;
    }
    stability_media_headers(ex, wants_json, false, seed);
    if (wants_json) {
        char type[64];
        struct buf b = { 0 };
        buf_str(&b, "{\"audio\":\"");
        buf_base64(&b, file->data, file->len);
        buf_fmt(&b, "\",\"seed\":%llu,\"finish_reason\":\"SUCCESS\"}", (unsigned long long)seed);
        (void)snprintf(type, sizeof type, "application/json; type=%s", mime);
        blob_drop(file);
        file = blob_new(b.data, b.len);
        buf_done(&b);
        exchange_send_blob(ex, 200, type, file);
        return;
    }
    exchange_send_blob(ex, 200, mime, file);
}

static void stability_on_worked(struct exchange *ex)
{
    const struct order *o = ex->cargo;
    if (fault_has(&ex->fault, FW_FAIL)) {
        stability_refuse(ex, 500, "");
        return;
    }
    if (fault_has(&ex->fault, FW_EMPTY)) { /* a success without media */
        exchange_send_json(ex, 200, json_pack("{s:s}", "finish_reason", "SUCCESS"));
        return;
    }
    if (o->call->media == OUT_GLB) {
        struct blob *file = media_glb(o->seed);
        bool is_cut = fault_has(&ex->fault, FW_CUT_IMAGE);
        exchange_send_blob(ex, 200, "model/gltf-binary",
                           is_cut ? blob_new(file->data, file->len / 2) : blob_hold(file));
        blob_drop(file);
        return;
    }
    if (o->call->media == OUT_SOUND) {
        stability_show_sound(ex, o->is_wav, o->seconds, o->seed, desk_shape(&ex->fault), o->wants_json);
        return;
    }
    struct picture_spec spec = desk_picture(ex, o->width, o->height, o->format);
    spec.transparent = strstr(o->call->path, "remove-background") != NULL;
    if (o->call->is_upscale) {
        spec.kind = PICTURE_UPSCALED;
        spec.input = blob_hold(o->input);
        spec.width = o->width;
        spec.height = o->height;
    }
    spec.seed = o->seed;
    stability_show(ex, spec, o->seed, o->wants_json ? "image" : NULL);
}

static void stability_accept_job(struct exchange *ex, const struct order *o)
{
    struct sandbox *box = ex->box;
    int64_t now = sandbox_now_ms(box);
    int width = o->width, height = o->height;
    if (!o->call->is_upscale)
        desk_cap(box, &width, &height);
    struct job job = { .kind = o->call->is_upscale ? PICTURE_UPSCALED : PICTURE_DRAWN,
                       .is_sound = o->call->media == OUT_SOUND,
                       .is_wav = o->is_wav,
                       .seconds = o->seconds,
                       .price = ex->cost,
                       .prompt = text_dup(ex->prompt),
                       .input = blob_hold(o->input),
                       .created_ms = now,
                       .done_ms = now + desk_delay(ex, o->call->delay),
                       .seed = o->seed,
                       .width = width,
                       .height = height,
                       .count = 1,
                       .shaped = desk_shape(&ex->fault),
                       .format = o->format };
    text_random_hex(job.id, 64);
    memcpy(job.account, ex->account, sizeof job.account);
    job.expires_ms = job.done_ms + sandbox_setting(box, CFG_RESULT_TTL);
    if ((job.shaped >> FW_STUCK & 1) != 0)
        job.done_ms = job.expires_ms = INT64_MAX;
    const struct job *kept = jobs_add(box->jobs, &job, (size_t)sandbox_setting(box, CFG_MAX_JOBS));
    if (fault_has(&ex->fault, FW_MISSING_ID) || fault_has(&ex->fault, FW_NULL_JOB))
        exchange_send_json(ex, o->call->accepted,
                           fault_has(&ex->fault, FW_NULL_JOB) ? json_pack("{s:n}", "id") : json_object());
    else
        exchange_send_json(ex, o->call->accepted, json_pack("{s:s}", "id", kept->id));
}

/* ---- calls ---- */

/* Over the limit? True: answered with 429. */
bool stability_limited(struct exchange *ex)
{
    struct limit_ask ask = { .key = ex->account,
                             .now_ms = sandbox_now_ms(ex->box),
                             .limit = sandbox_setting(ex->box, CFG_STABILITY_REQUESTS),
                             .window_ms = sandbox_setting(ex->box, CFG_STABILITY_WINDOW),
                             .timeout_ms = sandbox_setting(ex->box, CFG_STABILITY_TIMEOUT),
                             .weight = 1 };
    int64_t wait = limits_take(ex->box->limits, &ask);
    if (wait == 0)
        return false;
    int64_t wait_s = (wait + 999) / 1000;
    counters_add(ex->box->counters, ex->tag[0] == '\0' ? NULL : ex->tag, ex->account, COUNT_LIMITED, 1);
    if (sandbox_setting(ex->box, CFG_STABILITY_RETRY_AFTER) == 1)
        exchange_header(ex, "Retry-After", "%lld", (long long)wait_s);
    if (sandbox_setting(ex->box, CFG_STABILITY_RETRY_AFTER) == 2) {
        char date[64];
        struct tm tm;
        time_t at = time(NULL) + (time_t)wait_s;
        (void)strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&at, &tm)); /* fits */
        exchange_header(ex, "Retry-After", "%s", date);
    }
    exchange_send_json(ex, 429,
                       json_pack("{s:s,s:s,s:[s]}", "id", "rate_limit_exceeded", "name", "rate_limit_exceeded",
                                 "errors",
                                 "You have exceeded the rate limit of 150 requests within a 10 second period, and have "
                                 "been timed out for 60 seconds."));
    return true;
}

int64_t stability_balance(const struct exchange *ex, enum key_mood mood)
{
    if (mood == KEY_BROKE)
        return 0;
    return sandbox_setting(ex->box, CFG_STABILITY_BALANCE) * 1000 - counters_cost(ex->box->counters, ex->account);
}

static void stability_work(struct exchange *ex, enum key_mood mood, const struct order *o)
{
    if (mood == KEY_MISSING || mood == KEY_BAD) {
        stability_refuse(ex, 401, "");
        return;
    }
    if (desk_fault(ex, stability_refuse))
        return;
    if (stability_balance(ex, mood) < ex->cost) {
        stability_refuse(ex, 402, "");
        return;
    }
    if (fault_has(&ex->fault, FW_MODERATED)) {
        stability_refuse(ex, 403, "");
        return;
    }
    if (o->call->is_async || !fault_has(&ex->fault, FW_FAIL))
        desk_pay(ex);
    if (desk_taken(ex))
        return;
    if (o->call->is_async)
        stability_accept_job(ex, o);
    else
        exchange_wait(ex, desk_delay(ex, o->call->delay), stability_on_worked);
}

static void stability_submit(struct exchange *ex, const struct call *call, enum key_mood mood)
{
    static const char *const accepts[] = { "image/*", "application/json", NULL };
    static const char *const sounds[] = { "audio/*", "application/json", NULL };
    size_t most = call->media == OUT_SOUND ? (call->is_async ? 100U << 20 : 50000000U) : REQUEST_MAX;
    struct form form;
    const char *why;
    json_t *errors = json_array();
    struct order *o = text_alloc(sizeof *o);

    o->call = call;
    ex->cargo = o;
    ex->cargo_free = order_free;
    bool framed =
        multipart_parse(exchange_request_header(ex, "Content-Type"), ex->body.data == NULL ? "" : ex->body.data,
                        ex->is_too_large ? 0 : ex->body.len, &form, &why);
    const struct part *prompt = framed ? form_find(&form, "prompt") : NULL;
    if (framed && prompt == NULL)
        prompt = form_find(&form, "background_prompt");
    char *text = prompt == NULL ? text_dup("") : text_dup_n((const char *)prompt->data, prompt->len);
    desk_open(ex, PHASE_SUBMIT, text);
    free(text);
    if (stability_limited(ex))
        goto out;
    if (ex->is_too_large || ex->body.len > most) {
        stability_refuse(ex, 413, "");
        goto out;
    }
    if (framed)
        stability_check(call, &form, sandbox_setting(ex->box, CFG_STABILITY_STRICT) != 0, errors);
    else
        problem(errors, "%s", why);
    if (!call->is_async && call->media != OUT_GLB) /* neither declares an accept parameter */
        o->wants_json = check_accept(ex, call->media == OUT_SOUND ? sounds : accepts, errors);
    if (json_array_size(errors) > 0) {
        stability_error(ex, 400, "bad_request", json_incref(errors));
        goto out;
    }
    order_fill(o, ex, &form);
    ex->images = 1;
    ex->cost = stability_price(call, &form);
    stability_work(ex, mood, o);
out:
    json_decref(errors);
}

static void stability_result(struct exchange *ex, const char *id, bool is_sound, enum key_mood mood)
{
    static const char *const accepts[] = { "image/*", "application/json", NULL };
    struct job *job = jobs_find(ex->box->jobs, id);
    if (job != NULL && job->is_sound != is_sound)
        job = NULL; /* audio has results of its own */
    int64_t now = sandbox_now_ms(ex->box);
    bool is_mine = job != NULL && strcmp(job->account, ex->account) == 0;
    json_t *errors = json_array();

    if (is_mine)
        desk_open(ex, PHASE_POLL, job->prompt);
    else
        desk_open(ex, PHASE_POLL, NULL);
    if (stability_limited(ex))
        goto out;
    bool wants_json = check_accept(ex, accepts, errors);
    if (strlen(id) != 64)
        problem(errors, "id: must be exactly 64 characters");
    if (json_array_size(errors) > 0) {
        stability_error(ex, 400, "bad_request", json_incref(errors));
        goto out;
    }
    if (mood == KEY_MISSING || mood == KEY_BAD) {
        stability_refuse(ex, 401, "");
        goto out;
    }
    if (desk_fault(ex, stability_refuse))
        goto out;
    if (!is_mine || now >= job->expires_ms) {
        stability_refuse(ex, 404, "");
    } else if (fault_has(&ex->fault, FW_UNKNOWN_STATUS)) {
        exchange_send_json(ex, 202, json_pack("{s:s,s:s}", "id", id, "status", "marinating"));
    } else if (now < job->done_ms) {
        exchange_send_json(ex, 202, json_pack("{s:s,s:s}", "id", id, "status", "in-progress"));
    } else if ((job->shaped >> FW_FAIL & 1) != 0) {
        if (job->count > 0) { /* failed generations are not charged: give it back, once */
            ex->cost = job->price;
            desk_refund(ex);
            job->count = 0;
        }
        stability_refuse(ex, 500, "");
    } else if (fault_has(&ex->fault, FW_MODERATED)) {
        stability_refuse(ex, 403, "");
    } else if ((job->shaped >> FW_EMPTY & 1) != 0) {
        exchange_send_json(ex, 200, json_pack("{s:s}", "finish_reason", "SUCCESS"));
    } else {
        counters_add(ex->box->counters, ex->tag[0] == '\0' ? NULL : ex->tag, ex->account, COUNT_DOWNLOADS, 1);
        if (job->is_sound)
            stability_show_sound(ex, job->is_wav, job->seconds, job->seed, job->shaped, wants_json);
        else
            stability_show(ex, job_picture(job, 0), job->seed, wants_json ? "result" : NULL);
    }
out:
    json_decref(errors);
}

static void stability_show_balance(struct exchange *ex, enum key_mood mood)
{
    if (stability_limited(ex))
        return;
    if (mood == KEY_MISSING || mood == KEY_BAD) {
        exchange_send_json(ex, 401,
                           json_pack("{s:s,s:s,s:s}", "id", "00000000000000000000000000000000", "name", "unauthorized",
                                     "message", "missing authorization header"));
        return;
    }
    exchange_send_json(ex, 200, json_pack("{s:f}", "credits", (double)stability_balance(ex, mood) / 1000));
}

void stability_on_request(struct exchange *ex, const char *path)
{
    static const char *const results[] = { "/v2beta/results/", "/v2beta/stable-image/upscale/creative/result/",
                                           "/v2beta/audio/results/" };
    char key[256];
    enum key_mood mood = desk_key(ex, "stability", key, sizeof key);

    if (strcmp(ex->method, "POST") == 0) {
        const struct call *call = stability_call(path);
        if (call != NULL) {
            stability_submit(ex, call, mood);
            return;
        }
        if (stability_v1(ex, path, mood))
            return;
    } else if (strcmp(ex->method, "GET") == 0) {
        for (size_t i = 0; i < ARRAY_LEN(results); i++) {
            if (strncmp(path, results[i], strlen(results[i])) == 0) {
                stability_result(ex, path + strlen(results[i]), i == 2, mood);
                return;
            }
        }
        if (strcmp(path, "/v1/user/balance") == 0) {
            stability_show_balance(ex, mood);
            return;
        }
    }
    stability_error(ex, 404, "not_found", json_pack("[s]", "no such endpoint"));
}
