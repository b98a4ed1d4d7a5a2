/* inputs.c - fetches and checks what a job brings, before anything is paid for. Uploads and artifacts lie in the store
 * and were checked when the job was accepted; URLs are fetched here through the guard, with at most three redirects,
 * each judged anew. What cannot be had or does not fit dooms the job; it is then started and settled as failed,
 * uncharged. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "worker/actions.h"
#include "worker/stats.h"

enum { REDIRECTS_MAX = 3, TRIES_MAX = 3, TRY_AGAIN_MS = 500, HEAD_BYTES = 65536, FETCH_TIMEOUT_MS = 60000 };

struct fetch { /* one URL on its way; lives in the flight's arena */
    struct flight *flight;
    const char *field, *url;
    char *temp;
    int64_t max_bytes;
    int redirects, tries;
    size_t at_field, at_item; /* where to go on */
};

static void inputs_step(struct flight *f, size_t at_field, size_t at_item);
static void fetch_send(struct fetch *x);
static void inputs_done(struct flight *f);

static bool inputs_add(struct sortie *s, const struct catalog_file *file, const char *path, const char *mime,
                       char *temp)
{
    const char *field = file->field;
    size_t index = 0;

    if (s->input_count == SORTIE_INPUTS || !path || !mime)
        return false;
    if (!s->inputs) {
        s->input_temps = arena_alloc(s->arena, SORTIE_INPUTS * sizeof(*s->input_temps));
        s->judged = arena_alloc(s->arena, SORTIE_INPUTS * sizeof(*s->judged));
        if (s->input_temps && s->judged) /* last, since it says that all are there */
            s->inputs = arena_alloc(s->arena, SORTIE_INPUTS * sizeof(*s->inputs));
        if (!s->inputs)
            return false;
        s->spec.inputs = s->inputs;
    }
    for (size_t i = 0; i < s->input_count; i++)
        index += strcmp(s->inputs[i].field, field) == 0;
    s->judged[s->input_count] = *file;
    s->judged[s->input_count].index = json_is_array(json_object_get(s->envelope.params, field)) ? index : SIZE_MAX;
    s->inputs[s->input_count] = (struct job_input){ .field = field, .path = path, .mime = mime, .bytes = file->bytes };
    s->input_temps[s->input_count++] = temp; /* owned from here on */
    s->spec.input_count = s->input_count;
    return true;
}

static void inputs_doom(struct flight *f, enum err code, const char *field, const char *what)
{
    char text[320];

    (void)snprintf(text, sizeof(text), "params.%.90s: %.220s", field, what);
    flight_doom(f, code, text);
}

static bool fetch_check(struct fetch *x, int64_t bytes)
{
    struct flight *f = x->flight;
    struct sortie *s = f->sortie;
    char *head = malloc(HEAD_BYTES), message[256];
    FILE *file = fopen(x->temp, "rb");
    struct media_head media = { 0 };
    struct catalog_file judged;
    bool fits = false;

    if (head && file) {
        size_t got = fread(head, 1, HEAD_BYTES, file); /* just written: it is in the page cache */

        media = media_sniff(head, got);
        fits = catalog_input_fits(f->op, x->field, &media, bytes, message, sizeof(message));
        if (!fits)
            inputs_doom(f, ERR_INPUT_INVALID, x->field, message);
    } else {
        inputs_doom(f, ERR_STORAGE_ERROR, x->field, "no room to keep it");
    }
    if (file)
        (void)fclose(file);
    free(head);
    if (!fits)
        return false;
    judged = (struct catalog_file){ .field = x->field, .head = media, .bytes = bytes, .is_head_read = true };
    if (!inputs_add(s, &judged, arena_strdup(s->arena, x->temp), media_mime(media.kind), x->temp)) {
        inputs_doom(f, ERR_INPUT_INVALID, x->field, "too many files");
        return false;
    }
    s->fetch_temp = NULL; /* an input now */
    return true;
}

static void fetch_resend(struct flight *f)
{
    if (f->env->is_draining)
        flight_put_off(f);
    else
        fetch_send(f->timer_data);
}

static bool fetch_follow(struct fetch *x, const struct httpc_answer *a)
{
    const char *to = httpc_header(a, "location");

    if (a->status / 100 != 3 || !to || x->redirects >= REDIRECTS_MAX)
        return false;
    if (strncmp(to, "http://", 7) && strncmp(to, "https://", 8))
        return false; /* relative ones are rare and not worth a URL parser */
    x->url = arena_strdup(x->flight->sortie->arena, to);
    x->redirects++;
    return x->url != NULL;
}

static void fetch_on_answer(void *ctx, const struct httpc_answer *a)
{
    struct fetch *x = ctx;
    struct flight *f = x->flight;
    bool is_whole = a->fate == HTTPC_ANSWERED && a->status / 100 == 2 && a->in_file;

    f->sortie->fetch_call = NULL;
    if (f->env->is_draining) {
        flight_put_off(f);
    } else if (a->err == ERR_IO) {
        flight_storage_failed(f);
        flight_put_off(f);
    } else if (is_whole) {
        if (fetch_check(x, a->file_bytes))
            inputs_step(f, x->at_field, x->at_item);
        else
            flight_prepared(f);
    } else if (a->fate == HTTPC_ANSWERED && fetch_follow(x, a)) {
        fetch_send(x);
    } else if (a->err == ERR_TOO_LARGE) {
        inputs_doom(f, ERR_INPUT_INVALID, x->field, "the file is larger than the operation takes");
        flight_prepared(f);
    } else if (a->err != ERR_INPUT_UNREACHABLE && (a->fate != HTTPC_ANSWERED || a->status >= 500) &&
               ++x->tries < TRIES_MAX) {
        f->timer_data = x;
        flight_after(f, TRY_AGAIN_MS, fetch_resend);
    } else {
        inputs_doom(f, ERR_INPUT_UNREACHABLE, x->field, "the URL could not be fetched");
        flight_prepared(f);
    }
    flight_release(f);
}

static void fetch_send(struct fetch *x)
{
    struct flight *f = x->flight;
    struct httpc_request request = {
        .method = "GET",
        .url = x->url,
        .is_guarded = true,
        .timeout_ms = FETCH_TIMEOUT_MS,
        .max_bytes = (size_t)x->max_bytes,
        .to_file = x->temp,
    };

    flight_hold(f);
    if (httpc_send(f->env->httpc, &request, fetch_on_answer, x, &f->sortie->fetch_call) != ERR_OK) {
        f->sortie->fetch_call = NULL;
        inputs_doom(f, ERR_INPUT_UNREACHABLE, x->field, "the URL is not one that can be fetched");
        flight_prepared(f);
        flight_release(f);
    }
}

static int64_t inputs_max_bytes(const struct operation *op, const char *field)
{
    struct catalog_input list[SORTIE_INPUTS];
    size_t n = catalog_inputs(op, list, SORTIE_INPUTS);

    for (size_t i = 0; i < n; i++)
        if (!strcmp(list[i].name, field))
            return list[i].max_bytes;
    return 0;
}

static bool inputs_fetch_url(struct flight *f, const char *field, const char *url, size_t at_field, size_t at_item)
{
    struct sortie *s = f->sortie;
    struct fetch *x = arena_alloc(s->arena, sizeof(*x));
    char temp[STORE_PATH];

    if (!x || store_temp(f->env->store, temp, sizeof(temp)) != ERR_OK)
        return false;
    *x = (struct fetch){
        .flight = f, .field = field, .url = url, .temp = strdup(temp), .at_field = at_field, .at_item = at_item
    };
    x->max_bytes = inputs_max_bytes(f->op, field);
    if (!x->temp)
        return false;
    s->fetch_temp = x->temp;
    fetch_send(x);
    return true;
}

/* A packed object as a file of its own, for what reads it wants one; it is small. As with what is fetched, the sortie's
 * fetch_temp until it is an input. (No operation takes files of unknown kinds, which is what packs hold, today.) */
static enum err inputs_unpack(struct flight *f, const char *object)
{
    char temp[STORE_PATH];
    enum err err = store_take_back(f->env->store, object, temp, sizeof(temp));

    if (err != ERR_OK)
        return err;
    f->sortie->fetch_temp = strdup(temp);
    if (f->sortie->fetch_temp)
        return ERR_OK;
    (void)unlink(temp);
    return ERR_NOMEM;
}

/* False: the job is doomed, uncharged. */
static bool inputs_take_object(struct flight *f, const char *field, const json_t *item)
{
    struct sortie *s = f->sortie;
    struct catalog_file file = { .field = field };
    const char *object = json_text(item, "object"), *mime = json_text(item, "mime");
    struct store_at where;
    enum err err = store_find(f->env->store, object, &where);

    if (err == ERR_OK) {
        (void)close(where.fd); /* only looked at */
        err = where.is_packed ? inputs_unpack(f, object) : ERR_OK;
    }
    if (err != ERR_OK) {
        bool is_gone = err == ERR_NOT_FOUND || err == ERR_ARGUMENT;

        inputs_doom(f, is_gone ? ERR_INPUT_UNREACHABLE : ERR_STORAGE_ERROR, field,
                    is_gone ? "the file is no longer here" : "the file cannot be read at the moment");
        return false;
    }
    file.head.kind = media_kind_of_mime(mime);
    (void)json_int(item, "bytes", &file.bytes); /* absent, all three: 0, judged by nobody */
    (void)json_int(item, "width", &file.head.width);
    (void)json_int(item, "height", &file.head.height);
    if (!inputs_add(s, &file, arena_strdup(s->arena, where.is_packed ? s->fetch_temp : where.path), mime,
                    s->fetch_temp)) {
        inputs_doom(f, ERR_INPUT_INVALID, field, "too many files");
        return false;
    }
    s->fetch_temp = NULL; /* an input now, if there was one */
    return true;
}

/* Goes through the fields in order, from (at_field, at_item) on; a URL ends the walk and its answer goes on with it. */
static void inputs_step(struct flight *f, size_t at_field, size_t at_item)
{
    struct sortie *s = f->sortie;
    json_t *list;
    const char *field;
    size_t n = 0;

    json_object_foreach(s->envelope.inputs, field, list)
    {
        size_t items = json_array_size(list);

        if (n++ < at_field)
            continue;
        for (size_t i = n - 1 == at_field ? at_item : 0; i < items; i++) {
            const json_t *item = json_array_get(list, i);
            const char *url = json_text(item, "url");

            if (url) {
                if (inputs_fetch_url(f, field, url, n - 1, i + 1))
                    return;
                inputs_doom(f, ERR_STORAGE_ERROR, field, "no room to keep it");
            } else if (inputs_take_object(f, field, item)) {
                continue;
            }
            flight_prepared(f);
            return;
        }
    }
    inputs_done(f);
}

/* --- files that go into a JSON body as text, made on a thread ---------------------------------------------------- */

static const char *inputs_as(const struct flight *f, const char *field)
{
    const struct catalog_call call = catalog_call(f->op, f->sortie->envelope.params);

    return json_string_value(catalog_way(&call, f->op, field, "as"));
}

static char *inputs_text(const struct job_input *in, bool is_uri)
{
    size_t head = is_uri ? strlen("data:;base64,") + strlen(in->mime) : 0, len = (size_t)in->bytes;
    size_t cap = head + (len + 2) / 3 * 4 + 1;
    char *bytes = malloc(len ? len : 1), *text = malloc(cap);
    FILE *file = fopen(in->path, "rb");
    bool is_read = bytes && text && file && fread(bytes, 1, len, file) == len;

    if (is_read && is_uri)
        (void)snprintf(text, cap, "data:%s;base64,", in->mime);
    if (is_read && !base64_encode(text + head, cap - head, bytes, len))
        is_read = false;
    if (file)
        (void)fclose(file); /* read only */
    free(bytes);
    if (!is_read) {
        free(text);
        return NULL;
    }
    return text;
}

static void inputs_on_thread(uv_work_t *w)
{
    struct sortie *s = container_of(w, struct sortie, work);

    for (size_t i = 0; i < s->input_count; i++) {
        const char *as = inputs_as(s->flight, s->inputs[i].field);

        if (as)
            s->inputs[i].text = inputs_text(&s->inputs[i], !strcmp(as, "data_uri"));
    }
}

static void inputs_on_encoded(uv_work_t *w, int status)
{
    struct sortie *s = container_of(w, struct sortie, work);
    struct flight *f = s->flight;

    (void)status; /* never canceled */
    for (size_t i = 0; i < s->input_count; i++)
        if (inputs_as(f, s->inputs[i].field) && !s->inputs[i].text)
            inputs_doom(f, ERR_INPUT_UNREACHABLE, s->inputs[i].field, "the file cannot be read");
    prepare_start(f);
    flight_release(f);
}

static bool inputs_agree(struct flight *f)
{
    struct sortie *s = f->sortie;
    struct catalog_faults faults = { .count = 0 };

    if (catalog_files_fit(f->op, s->envelope.params, s->judged, s->input_count, &faults))
        return true;
    inputs_doom(f, ERR_INPUT_INVALID, faults.items[0].field + strlen("params."), faults.items[0].message);
    return false;
}

static void inputs_done(struct flight *f)
{
    struct sortie *s = f->sortie;
    bool has_text = false;

    if (!inputs_agree(f)) {
        flight_prepared(f);
        return;
    }
    for (size_t i = 0; i < s->input_count; i++)
        has_text |= inputs_as(f, s->inputs[i].field) != NULL;
    if (!has_text) {
        prepare_start(f);
        return;
    }
    flight_hold(f);
    if (uv_queue_work(f->env->loop, &s->work, inputs_on_thread, inputs_on_encoded) != 0) {
        inputs_doom(f, ERR_STORAGE_ERROR, s->inputs[0].field, "it could not be read");
        flight_prepared(f);
        flight_release(f);
    }
}

void inputs_cancel(struct flight *f)
{
    if (f->sortie && f->sortie->fetch_call)
        httpc_cancel(f->sortie->fetch_call);
    else if (f->sortie && f->sortie->is_waiting)
        flight_after(f, 0, f->timer_fn); /* it sees that the worker leaves */
}

void inputs_fetch(struct flight *f)
{
    if (json_object_size(f->sortie->envelope.inputs) == 0)
        prepare_start(f);
    else
        inputs_step(f, 0, 0);
}
