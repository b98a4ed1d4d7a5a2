/* collect.c - from an answer to artifacts: downloads what lies behind URLs, then on a thread decodes, verifies and
 * hands them to stow.c. A download or a store that fails is tried again, the paid request never. What is whole but
 * blank, or not what was promised, is bad_result; what is cut or unreadable is bad_response. Some good outputs make a
 * delivery of that many. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "common/base/clock.h"
#include "common/base/failpoint.h"
#include "common/base/log.h"
#include "worker/actions.h"
#include "worker/stats.h"

enum {
    TRIES_MAX = 6,
    STORE_TRIES_MAX = 11,
    AGAIN_MS = 1000,
    MIN_PATIENCE_MS = 60000,
    POLL_AGAIN_MAX = 3,
    DOWNLOAD_TIMEOUT_MS = 120000
};

static void collect_step(struct flight *f);
static void collect_work(struct flight *f);

/* --- on the thread ----------------------------------------------------------------------------------------------- */

static enum err write_file(const char *path, const void *data, size_t len)
{
    FILE *file = fopen(path, "wb");
    bool is_written;

    if (!file)
        return ERR_STORAGE_ERROR;
    is_written = fwrite(data, 1, len, file) == len;
    if (fclose(file) != 0)
        is_written = false;
    return is_written ? ERR_OK : ERR_STORAGE_ERROR;
}

/* c->bytes says from then on that the temp file is there and whole. */
static enum err collect_write(struct collected *c, const void *data, size_t len)
{
    enum err err = write_file(c->temp, data, len);

    if (err == ERR_OK) {
        sha256_hex(c->sha256, data, len);
        c->bytes = (int64_t)len;
    } else {
        (void)snprintf(c->reason, sizeof(c->reason), "the result could not be stored");
    }
    return err;
}

static enum err collect_base64(struct collected *c)
{
    size_t cap = base64_decoded_max(c->from.base64_len), len = 0;
    unsigned char *bytes = malloc(cap ? cap : 1);
    enum err err = ERR_NOMEM;

    if (!bytes)
        return err;
    err = base64_decode(bytes, cap, &len, c->from.base64, c->from.base64_len);
    if (err != ERR_OK || len == 0) {
        err = ERR_BAD_RESPONSE;
        (void)snprintf(c->reason, sizeof(c->reason), "the result is not whole base64");
    } else {
        err = collect_write(c, bytes, len);
    }
    free(bytes);
    return err;
}

static enum err collect_bytes(struct sortie *s, struct collected *c)
{
    if (c->body || (c->from.is_body && s->in_body))
        return collect_write(c, c->body ? c->body : s->in_body, c->body ? (size_t)c->bytes : s->in.len);
    if (c->bytes > 0)
        return ERR_OK; /* downloaded, or a file already */
    if (c->from.base64)
        return collect_base64(c);
    if (!s->in.data || !s->in.len) {
        (void)snprintf(c->reason, sizeof(c->reason), "the result is empty");
        return ERR_BAD_RESPONSE;
    }
    return collect_write(c, s->in.data, s->in.len);
}

/* A sound of a promised length: half of it is no delivery. The length of an mp3 is an estimate, and providers round. */
static enum err collect_sound(const struct job_spec *spec, struct collected *c)
{
    double asked = 0, seconds = media_seconds(&c->head, c->bytes);

    if (seconds < 0 || !json_number(spec->params, "duration", &asked) || seconds * 2 >= asked)
        return ERR_OK;
    (void)snprintf(c->reason, sizeof(c->reason), "asked for %.1f seconds of sound, got %.1f", asked, seconds);
    return ERR_BAD_RESULT;
}

/* "the promised format and size": what the request said, as far as it said it. */
static enum err collect_promise(const struct job_spec *spec, struct collected *c)
{
    const char *format = json_text(spec->params, "output_format"), *size = json_text(spec->params, "size");
    int64_t width = 0, height = 0;
    int w = 0, h = 0;

    if (format) {
        char mime[32];
        enum media_kind want;

        (void)snprintf(mime, sizeof(mime), "%.10s/%.16s",
                       strcmp(spec->op->output, "media") ? spec->op->output : media_group(c->head.kind),
                       format); /* "audio/mp3" */
        want = media_kind_of_mime(mime);
        if (want != MEDIA_UNKNOWN && want != c->head.kind) {
            (void)snprintf(c->reason, sizeof(c->reason), "asked for %s, got %s", format, media_extension(c->head.kind));
            return ERR_BAD_RESULT;
        }
    }
    if (!media_is_image(c->head.kind))
        return collect_sound(spec, c);
    if (size && sscanf(size, "%dx%d", &w, &h) == 2) {
        if (c->head.width != w || c->head.height != h) {
            (void)snprintf(c->reason, sizeof(c->reason), "asked for %dx%d, got %lldx%lld", w, h,
                           (long long)c->head.width, (long long)c->head.height);
            return ERR_BAD_RESULT;
        }
    } else if (json_int(spec->params, "width", &width) && json_int(spec->params, "height", &height)) {
        /* some models enlarge (Leonardo's alchemy): the shape has to be right, and no pixel missing */
        if (c->head.width < width || c->head.height < height ||
            llabs(c->head.width * height - c->head.height * width) > c->head.height * width / 10) {
            (void)snprintf(c->reason, sizeof(c->reason), "asked for %lldx%lld, got %lldx%lld", (long long)width,
                           (long long)height, (long long)c->head.width, (long long)c->head.height);
            return ERR_BAD_RESULT;
        }
    }
    return ERR_OK;
}

static enum err collect_verify(struct decoder *decoder, const struct job_spec *spec, struct collected *c)
{
    const struct operation *op = spec->op;
    const char *placeholder;
    enum err err;

    if (!strcmp(op->output, "file"))
        return ERR_OK; /* kept as it comes */
    err = decoder_check(decoder, c->temp, op->max_result_pixels, &c->head, &c->look, c->reason, sizeof(c->reason));
    if (err == ERR_NOMEM)
        err = ERR_STORAGE_ERROR; /* no process to look at it in: this machine's trouble, and worth another try */
    if (err == ERR_OK && strcmp(op->output, "media") != 0 && strcmp(media_group(c->head.kind), op->output) != 0) {
        (void)snprintf(c->reason, sizeof(c->reason), "it is no %s", op->output);
        err = ERR_BAD_RESULT;
    }
    if (err == ERR_OK && (placeholder = catalog_placeholder(op, c->sha256, c->look.blurhash))) {
        (void)snprintf(c->reason, sizeof(c->reason), "a placeholder: %.150s", placeholder);
        err = ERR_BAD_RESULT;
    }
    return err == ERR_OK ? collect_promise(spec, c) : err;
}

static void collect_one(struct sortie *s, struct collected *c)
{
    enum err err = collect_bytes(s, c);

    if (err == ERR_OK)
        err = collect_verify(s->flight->env->decoder, &s->spec, c);
    c->code = err;
    c->is_ready = err == ERR_OK;
    c->is_again = err == ERR_STORAGE_ERROR || err == ERR_NOMEM || (err == ERR_BAD_RESPONSE && !c->from.base64);
}

/* Marked in Redis, and about to be touched: who dies now dies of it. */
static void collect_begin(const struct sortie *s)
{
    (void)s;
    (void)FAILPOINT("worker.collecting");
#ifdef KILN_FAILPOINTS /* a poisonous job among others: "worker.core.collecting" */
    (void)failpoint_hit_of("worker", strrchr(s->spec.op->name, '.') + 1, "collecting", -1);
#endif
}

static void collect_on_thread(uv_work_t *w)
{
    struct sortie *s = container_of(w, struct sortie, work);

    atomic_store(&s->has_begun, true);
    collect_begin(s);
    for (size_t i = 0; i < s->output_count; i++)
        if (!s->outputs[i].is_ready && (s->outputs[i].temp[0] || s->outputs[i].from.base64))
            collect_one(s, &s->outputs[i]);
}

/* --- what follows ------------------------------------------------------------------------------------------------ */

static void collect_artifact(struct buf *out, const struct collected *c, size_t index)
{
    (void)buf_add(out, out->len == 0 ? "[" : ",", 1);
    json_put(out, "id", c->id);
    json_put_int(out, "idx", (int64_t)index);
    json_put(out, "kind", media_group(c->head.kind));
    json_put(out, "mime", media_mime(c->head.kind));
    json_put_int(out, "bytes", c->bytes);
    if (c->head.width > 0) {
        json_put_int(out, "width", c->head.width);
        json_put_int(out, "height", c->head.height);
    }
    json_put(out, "sha256", c->sha256);
    json_put(out, "object", c->object);
    json_put(out, "seed", c->from.seed);
    json_put(out, "revised_prompt", c->from.revised_prompt);
    json_put(out, "blurhash", c->look.blurhash[0] ? c->look.blurhash : NULL);
    json_put(out, "color", c->look.color[0] ? c->look.color : NULL);
    json_put_end(out);
}

static int64_t collect_cost(const struct flight *f, int64_t made)
{
    const struct sortie *s = f->sortie;
    struct catalog_price price;
    int64_t cost = s->answer.cost_microusd;

    if (cost < 0 && s->answer.usage)
        cost = catalog_cost_microusd(f->op, s->envelope.params, s->answer.usage);
    if (cost < 0)
        cost = f->cost_microusd;
    if (cost < 0 && catalog_price(f->op, s->envelope.params, &price) == ERR_OK)
        cost = price.unit_cost_microusd * made;
    return cost;
}

static void collect_finish(struct flight *f)
{
    struct sortie *s = f->sortie;
    struct buf artifacts = { 0 };
    const struct collected *bad = NULL;
    int64_t good = 0, cost;

    sortie_drop_bodies(s); /* stored, or given up */
    for (size_t i = 0; i < s->output_count; i++) {
        if (s->outputs[i].is_done) {
            collect_artifact(&artifacts, &s->outputs[i], i);
            good++;
        } else if (!bad) {
            bad = &s->outputs[i];
        }
    }
    cost =
        collect_cost(f, s->answer.output_count ? (int64_t)s->answer.output_count : f->units); /* as many as were made */
    if (good) {
        settlement_set(&f->out, OUTCOME_DELIVERED, ERR_OK, CLASS_ANSWERED, NULL);
        f->out.units = good;
        f->out.cost_microusd = cost;
        (void)buf_add(&artifacts, "]", 1);
        f->out.artifacts = json_put_take(&artifacts);
        flight_feed(f, EV_STORED);
        return;
    }
    settlement_set(&f->out, OUTCOME_FAILED, bad ? bad->code : ERR_BAD_RESPONSE, CLASS_ANSWERED,
                   bad ? bad->reason : "the provider gave no result");
    f->out.cost_microusd = cost;
    flight_feed(f, EV_FAILED);
}

/* The bytes came with the answer to a poll, and were cut: the same poll can be asked again. */
static bool collect_polls_again(struct flight *f)
{
    struct sortie *s = f->sortie;

    return s->is_poll && s->output_count == 1 && s->outputs[0].from.is_body && s->outputs[0].code == ERR_BAD_RESPONSE &&
           f->spoiled++ < POLL_AGAIN_MAX && clock_mono_ms() < f->give_up_ms;
}

static void collect_after_work(struct flight *f)
{
    struct sortie *s = f->sortie;
    bool again = false;

    for (size_t i = 0; i < s->output_count; i++) {
        struct collected *c = &s->outputs[i];

        if (c->code == ERR_STORAGE_ERROR)
            flight_storage_failed(f);
        if (c->is_done || !c->is_again)
            continue;
        if (c->from.is_body && c->code == ERR_BAD_RESPONSE)
            continue; /* the same bytes again would be no better */
        again = true;
        if (c->from.url && c->temp[0] && c->code == ERR_BAD_RESPONSE) {
            (void)unlink(c->temp);
            httpc_give_body(f->env->httpc, c->body);
            c->body = NULL;
            c->temp[0] = '\0';
            c->bytes = 0;
        }
    }
    if (collect_polls_again(f)) {
        flight_feed(f, EV_AGAIN);
    } else if (again && ++s->next < STORE_TRIES_MAX && clock_mono_ms() < s->collect_until_ms) {
        flight_after(f, AGAIN_MS * (int64_t)s->next, collect_step);
    } else {
        collect_finish(f);
    }
}

void collect_stowed(struct flight *f)
{
    line_remove(f);
    (void)FAILPOINT("worker.after_store");
    collect_after_work(f);
    flight_release(f);
}

/* Some output is good and not stored yet. */
static bool collect_has_ready(const struct sortie *s)
{
    for (size_t i = 0; i < s->output_count; i++)
        if (s->outputs[i].is_ready && !s->outputs[i].is_done)
            return true;
    return false;
}

static void collect_on_worked(uv_work_t *w, int status)
{
    struct sortie *s = container_of(w, struct sortie, work);

    (void)status;
    if (collect_has_ready(s))
        stow_add(s->flight);
    else
        collect_stowed(s->flight);
}

/* Where an output's bytes are, or will be written. True: there is something to do on a thread before it can be stowed.
 */
static bool collect_needs_thread(struct flight *f, struct collected *c)
{
    struct sortie *s = f->sortie;

    if (c->is_done || c->is_ready || (c->from.url && !c->temp[0] && !c->body))
        return false;
    if (strcmp(f->op->output, "file") == 0 && (c->body || (c->from.is_body && s->in_body))) {
        c->data = c->body ? c->body : s->in_body; /* stow.c writes and hashes it */
        c->bytes = c->body ? c->bytes : (int64_t)s->in.len;
    } else if (c->temp[0]) {
        /* downloaded, or tried before */
    } else if (c->from.is_body && c->bytes > 0 && s->in_temp) {
        (void)snprintf(c->temp, sizeof(c->temp), "%s", s->in_temp);
        (void)sortie_set_temp(s, NULL); /* the output's now */
        s->in.file = NULL;
    } else if (store_temp(f->env->store, c->temp, sizeof(c->temp)) != ERR_OK) {
        c->temp[0] = '\0';
    }
    if (c->bytes > 0 && strcmp(f->op->output, "file") == 0 && (c->data || c->temp[0])) { /* kept as it comes */
        c->code = ERR_OK;
        c->is_ready = true;
    }
    return !c->is_ready;
}

static void collect_work(struct flight *f)
{
    struct sortie *s = f->sortie;
    bool needs_thread = false;

    for (size_t i = 0; i < s->output_count; i++)
        needs_thread = collect_needs_thread(f, &s->outputs[i]) || needs_thread;
    flight_hold(f);
    if (needs_thread) {
        atomic_store(&s->has_begun, false);
        s->work_queued_ms = clock_mono_ms();
        line_push(&f->env->for_store, f);
        if (uv_queue_work(f->env->loop, &s->work, collect_on_thread, collect_on_worked) != 0)
            flight_release(f);
        return;
    }
    collect_begin(s);
    if (collect_has_ready(s))
        stow_add(f);
    else
        collect_stowed(f);
}

/* --- downloads --------------------------------------------------------------------------------------------------- */

static const char *host_of(const char *url, size_t *len)
{
    const char *at = strstr(url, "://");
    const char *user;

    at = at ? at + 3 : url;
    *len = strcspn(at, "/?#");
    user = memchr(at, '@', *len);
    if (user) { /* credentials in a URL: not a host we know */
        *len = 0;
        return at;
    }
    if (*at == '[')
        *len = strcspn(at, "]") + 1;
    else
        *len = strcspn(at, ":/?#");
    return at;
}

bool is_provider_host(const struct flight *f, const char *url)
{
    size_t a_len, b_len;
    const char *a = host_of(url, &a_len), *b = host_of(f->op->provider->base_url, &b_len);

    return a_len && a_len == b_len && !strncmp(a, b, a_len);
}

static struct collected *collect_to_download(struct sortie *s)
{
    for (size_t i = 0; i < s->output_count; i++) {
        struct collected *c = &s->outputs[i];

        if (c->from.url && !c->is_done && !c->temp[0] && !c->body && !(c->code != ERR_OK && !c->is_again))
            return c;
    }
    return NULL;
}

static void collect_judge_download(struct flight *f, struct collected *c, const struct httpc_answer *a)
{
    struct sortie *s = f->sortie;
    struct http_answer in = {
        .status = a->status,
        .headers = a->headers,
        .header_count = a->header_count,
        .data = a->in_file || a->is_kept ? NULL : a->body,
        .len = a->in_file ? (size_t)a->file_bytes : a->body_len,
        .file = a->in_file   ? c->temp
                : a->is_kept ? "memory"
                             : NULL,
        .wall_ms = clock_wall_ms(),
    };
    struct answer answer = f->adapter->on_download ? f->adapter->on_download(s->arena, &s->spec, &in)
                                                   : provider_download(s->arena, &s->spec, &in);

    if (a->is_kept && answer.outcome == OUT_DONE) {
        c->body = httpc_take_body(a);
        c->bytes = (int64_t)a->body_len;
        c->temp[0] = '\0'; /* no file was made */
        c->code = ERR_OK;
        return;
    }
    if (a->in_file && answer.outcome == OUT_DONE) {
        c->bytes = a->file_bytes;
        c->code = ERR_OK;
        memcpy(c->sha256, a->file_sha256, sizeof(c->sha256));
        return;
    }
    c->temp[0] = '\0';
    c->code = answer.code != ERR_OK ? answer.code : ERR_BAD_RESPONSE;
    c->is_again = answer.outcome == OUT_RETRY || answer.outcome == OUT_DONE;
    (void)snprintf(c->reason, sizeof(c->reason), "the result could not be downloaded (%ld)", a->status);
}

static const char *collect_why(const struct httpc_answer *a)
{
    switch (a->err) {
    case ERR_TOO_LARGE:
        return "the result is larger than the operation's limit";
    case ERR_INPUT_UNREACHABLE:
        return "the result lies at an address that is not fetched from";
    case ERR_TIMEOUT:
        return "the result could not be downloaded in time";
    case ERR_IO:
        return "the result could not be stored";
    default:
        return "the result could not be downloaded";
    }
}

static void collect_on_download(void *ctx, const struct httpc_answer *a)
{
    struct flight *f = ctx;
    struct sortie *s = f->sortie;
    struct collected *c = &s->outputs[s->downloading];
    bool is_again;

    stats_request(f->env->stats, f->lane, "download", a->fate == HTTPC_ANSWERED ? a->status : 0, a->total_ms);
    if (a->fate == HTTPC_ANSWERED) {
        collect_judge_download(f, c, a);
    } else {
        c->temp[0] = '\0';
        c->code = a->err == ERR_IO ? ERR_STORAGE_ERROR : ERR_BAD_RESPONSE;
        c->is_again = a->err != ERR_TOO_LARGE && a->err != ERR_INPUT_UNREACHABLE;
        (void)snprintf(c->reason, sizeof(c->reason), "%s", collect_why(a));
        log_warn("download", log_str("job", f->job.id), log_str("provider", f->lane), log_str("detail", a->detail));
        if (a->err == ERR_IO)
            flight_storage_failed(f);
    }
    is_again = c->code != ERR_OK && c->is_again;
    if (is_again && ++c->tries < TRIES_MAX && clock_mono_ms() < s->collect_until_ms)
        flight_after(f, AGAIN_MS * (int64_t)c->tries, collect_step);
    else {
        if (is_again)
            c->is_again = false;
        collect_step(f);
    }
    flight_release(f);
}

static void collect_download(struct flight *f, struct collected *c)
{
    struct sortie *s = f->sortie;
    struct httpc_request request = {
        .method = "GET",
        .url = c->from.url, /* byte for byte: signed queries break when re-encoded (openai.md, section 4) */
        .is_guarded = !is_provider_host(f, c->from.url),
        .timeout_ms = DOWNLOAD_TIMEOUT_MS,
        .max_bytes = (size_t)f->op->max_result_bytes,
        .to_file = c->temp,
        .may_keep = true,
    };
    enum err err = store_temp(f->env->store, c->temp, sizeof(c->temp));

    s->downloading = (size_t)(c - s->outputs);
    flight_hold(f);
    if (err == ERR_OK)
        err = httpc_send(f->env->httpc, &request, collect_on_download, f, NULL);
    if (err != ERR_OK) {
        c->temp[0] = '\0';
        c->code = ERR_BAD_RESPONSE;
        c->is_again = false;
        (void)snprintf(c->reason, sizeof(c->reason), "the result's URL cannot be fetched");
        collect_step(f);
        flight_release(f);
    }
}

static void collect_step(struct flight *f)
{
    struct collected *c = collect_to_download(f->sortie);

    if (c)
        collect_download(f, c);
    else
        collect_work(f);
}

void collect_start(struct flight *f)
{
    struct sortie *s = f->sortie;
    const struct answer *a = &s->answer;
    size_t n = a->output_count;

    if (n > (size_t)f->units)
        n = (size_t)f->units; /* more than asked for was not paid by anyone */
    s->outputs = n ? calloc(n, sizeof(*s->outputs)) : NULL;
    s->output_count = s->outputs ? n : 0;
    s->next = 0;
    s->collect_until_ms = clock_mono_ms() + MIN_PATIENCE_MS;
    if (s->collect_until_ms < f->give_up_ms)
        s->collect_until_ms = f->give_up_ms;
    for (size_t i = 0; i < s->output_count; i++) {
        struct collected *c = &s->outputs[i];

        c->from = a->outputs[i];
        uuid_v7(c->id);
        (void)snprintf(c->object, sizeof(c->object), "job/%.2s/%s/%lld/%zu", f->job.id + UUID_TEXT - 3, f->job.id,
                       (long long)f->fence, i);
        if (c->from.is_body && s->in.file && !s->in_body) {
            c->bytes = (int64_t)s->in.len;
            memcpy(c->sha256, s->in_sha256, sizeof(c->sha256));
        }
    }
    flight_mark_collecting(f);
}

void collect_marked(struct flight *f)
{
    if (f->job.state != JOB_COLLECTING)
        return;
    if (!f->sortie->output_count)
        collect_finish(f);
    else
        collect_step(f);
}
