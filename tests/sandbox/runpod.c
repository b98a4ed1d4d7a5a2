/* runpod.c - RunPod's queue endpoints as its page describes them: run, status, cancel, health. What an endpoint's
 * handler returns is told by the beginning of its id: comfy (output.message), bare (a text), list (objects), bucket (an
 * address on the image listener), else worker-sdxl (images, image_url, seed), which refuses wrong input after it was
 * accepted. nobody: no such endpoint. */
#include "sandbox.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BODY_MAX = 10000000, KEPT_MS = 1800000, MILLICENTS = 50, ID_DIGITS = 24, PROBLEM_BYTES = 120 };

enum kind { TEXT, WHOLE, FLOAT };
static const struct {
    const char *name;
    enum kind kind;
} fields[] = {
    { "prompt", TEXT },           { "negative_prompt", TEXT }, { "height", WHOLE },
    { "width", WHOLE },           { "seed", WHOLE },           { "scheduler", TEXT },
    { "num_images", WHOLE },      { "image_url", TEXT },       { "num_inference_steps", WHOLE },
    { "guidance_scale", FLOAT },  { "strength", FLOAT },       { "refiner_inference_steps", WHOLE },
    { "high_noise_frac", FLOAT },
};

/* ---- errors: their bodies are not on the page */

static void runpod_refuse(struct exchange *ex, int status, const char *code)
{
    if (status == 401)
        exchange_send(ex, status, "text/plain", "");
    else
        exchange_send_json(ex, status, json_pack("{s:s}", "error", code[0] == '\0' ? "sandbox" : code));
}

static bool runpod_admit(struct exchange *ex, enum key_mood mood, const char *endpoint)
{
    if (mood == KEY_MISSING || mood == KEY_BAD)
        runpod_refuse(ex, 401, "");
    else if (strncmp(endpoint, "nobody", 6) == 0)
        runpod_refuse(ex, 404, "endpoint not found");
    else
        return true;
    return false;
}

/* ---- run */

static const char *class_of(const json_t *v)
{
    return json_is_string(v)                     ? "str"
           : json_is_integer(v)                  ? "int"
           : json_is_real(v)                     ? "float"
           : json_is_true(v) || json_is_false(v) ? "bool"
           : json_is_array(v)                    ? "list"
           : json_is_null(v)                     ? "NoneType"
                                                 : "dict";
}

/* worker-sdxl's own check, made when the job has begun. NULL: nothing wrong. */
static json_t *problems_of(const json_t *input)
{
    static const char *const wanted[] = { "str", "int", "float" };
    json_t *list = json_array(), *v;
    char text[PROBLEM_BYTES];
    const char *name;

    json_object_foreach((json_t *)input, name, v)
    {
        size_t i = 0;
        while (i < ARRAY_LEN(fields) && strcmp(fields[i].name, name) != 0)
            i++;
        text[0] = '\0';
        if (i == ARRAY_LEN(fields))
            (void)snprintf(text, sizeof text, "%.40s is not a valid input option.", name);
        else if (strcmp(class_of(v), wanted[fields[i].kind]) != 0)
            (void)snprintf(text, sizeof text, "%s should be <class '%s'> type, not <class '%s'>.", name,
                           wanted[fields[i].kind], class_of(v));
        if (text[0] != '\0')
            (void)json_array_append_new(list, json_string(text)); /* fails only without memory */
    }
    if (json_object_get(input, "prompt") == NULL && json_object_get(input, "image_url") == NULL)
        (void)json_array_append_new(list, json_string("prompt is a required input.")); /* as above */
    if (json_array_size(list) > 0)
        return list;
    json_decref(list);
    return NULL;
}

/* What a poll shows in the end: {"endpoint", "error"?, "output"?}. */
static char *job_facts(const struct exchange *ex, const char *endpoint, const json_t *input)
{
    const struct fault *f = &ex->fault;
    const char *code = f->code[0] != '\0' ? f->code : "CUDA error: device-side assert triggered";
    bool is_sdxl = strncmp(endpoint, "sdxl", 4) == 0;
    json_t *facts = json_pack("{s:s}", "endpoint", endpoint), *error = is_sdxl ? problems_of(input) : NULL;

    if (error == NULL && fault_has(f, FW_FAIL) && strcmp(code, "timeout") == 0)
        error = json_string("job timed out after 1 retries");
    else if (error == NULL && fault_has(f, FW_FAIL))
        error = json_sprintf("{\"error_type\": \"<class 'RuntimeError'>\", \"error_message\": \"%s\", "
                             "\"error_traceback\": \"Traceback\", \"hostname\": \"abc-64410\", \"worker_id\": \"abc\", "
                             "\"runpod_version\": \"1.7.9\"}",
                             code);
    if (error != NULL)
        (void)json_object_set_new(facts, "error", error); /* these fail only without memory */
    else if (fault_has(f, FW_MODERATED))
        (void)json_object_set_new(facts, "output",
                                  json_pack("{s:s}", "error", "The safety checker found NSFW content"));
    else if (fault_has(f, FW_FILTERED))
        (void)json_object_set_new(facts, "output",
                                  json_pack("{s:s,s:s}", "status", "failed", "message", "the handler gave up"));
    else if (fault_has(f, FW_EMPTY))
        (void)json_object_set_new(facts, "output", json_true());
    char *text = json_dumps(facts, JSON_COMPACT);
    json_decref(facts);
    return text;
}

static int64_t number_of(const json_t *o, const char *name, int64_t fallback)
{
    const json_t *v = json_object_get(o, name);
    return json_is_integer(v) ? (int64_t)json_integer_value(v) : fallback;
}

static void runpod_accept(struct exchange *ex, const char *endpoint, const json_t *body)
{
    struct sandbox *box = ex->box;
    const json_t *input = json_object_get(body, "input"), *policy = json_object_get(body, "policy");
    int64_t now = sandbox_now_ms(box), ttl = number_of(policy, "ttl", 86400000);
    int64_t run = number_of(policy, "executionTimeout", 600000);
    char *plain = faults_plain_prompt(ex->prompt == NULL ? "" : ex->prompt);
    struct job job = {
        .kind = PICTURE_DRAWN,
        .prompt = text_dup(ex->prompt == NULL ? "" : ex->prompt),
        .facts = job_facts(ex, endpoint, input),
        .created_ms = now,
        .done_ms = fault_has(&ex->fault, FW_STUCK) ? INT64_MAX : now + desk_delay(ex, CFG_DELAY_RUNPOD_MIN),
        .expires_ms = now + (ttl < run ? ttl : run), /* TIMED_OUT when it is not done by then */
        .seed = (uint64_t)number_of(input, "seed", (int64_t)(text_hash(plain, strlen(plain)) % 65536U)),
        .width = (int)number_of(input, "width", 1024),
        .height = (int)number_of(input, "height", 1024),
        .count = desk_count(&ex->fault, ex->images),
        .shaped = desk_shape(&ex->fault) & ~((int64_t)1 << FW_FILTERED),
        .format = PICTURE_PNG,
    };
    free(plain);
    text_random_hex(job.id, ID_DIGITS);
    (void)snprintf(job.id + ID_DIGITS, sizeof job.id - ID_DIGITS, "-u1");
    memcpy(job.account, ex->account, sizeof job.account);
    const struct job *kept = jobs_add(box->jobs, &job, (size_t)sandbox_setting(box, CFG_MAX_JOBS));
    if (fault_has(&ex->fault, FW_NULL_JOB) || fault_has(&ex->fault, FW_MISSING_ID))
        exchange_send_json(ex, 200, json_pack("{s:s}", "status", "IN_QUEUE"));
    else
        exchange_send_json(ex, 200, json_pack("{s:s,s:s}", "id", kept->id, "status", "IN_QUEUE"));
}

static void runpod_run(struct exchange *ex, const char *endpoint, enum key_mood mood)
{
    json_t *body = ex->is_too_large || ex->body.len > BODY_MAX
                       ? NULL
                       : json_loadb(ex->body.data == NULL ? "" : ex->body.data, ex->body.len, 0, NULL);
    const json_t *input = json_object_get(body, "input"), *prompt = json_object_get(input, "prompt");

    desk_open(ex, PHASE_SUBMIT, json_is_string(prompt) ? json_string_value(prompt) : NULL);
    if (!runpod_admit(ex, mood, endpoint))
        goto out;
    if (!json_is_object(input)) {
        runpod_refuse(ex, 400, "input is required");
        goto out;
    }
    ex->images = (int)number_of(input, "num_images", 1);
    ex->images = ex->images < 1 || ex->images > PAINT_MAX ? 1 : ex->images;
    ex->cost = ex->images * MILLICENTS;
    if (desk_fault(ex, runpod_refuse))
        goto out;
    struct limit_ask ask = { .key = ex->account,
                             .now_ms = sandbox_now_ms(ex->box),
                             .limit = sandbox_setting(ex->box, CFG_RUNPOD_REQUESTS),
                             .window_ms = sandbox_setting(ex->box, CFG_RUNPOD_WINDOW),
                             .weight = 1 };
    if (mood == KEY_BROKE) {
        runpod_refuse(ex, 402, "");
    } else if (limits_take(ex->box->limits, &ask) > 0) {
        counters_add(ex->box->counters, NULL, ex->account, COUNT_LIMITED, 1);
        runpod_refuse(ex, 429, "");
    } else {
        desk_pay(ex);
        if (!desk_taken(ex))
            runpod_accept(ex, endpoint, body);
    }
out:
    json_decref(body);
}

/* ---- status */

struct shown { /* a COMPLETED answer that waits for its pictures */
    char id[68], endpoint[64];
    uint64_t seed;
    int64_t took_ms;
};

static void send_status(struct exchange *ex, const char *id, const char *status, int64_t took_ms, json_t *more)
{
    json_t *o = json_pack("{s:s,s:s,s:I,s:I,s:s}", "id", id, "status", status, "delayTime", (json_int_t)110,
                          "executionTime", (json_int_t)took_ms, "workerId", "sandbox");
    if (more != NULL)
        (void)json_object_update(o, more); /* fails only without memory */
    json_decref(more);
    exchange_send_json(ex, 200, o);
}

static json_t *output_of(const struct shown *s, json_t *list)
{
    json_t *first = json_array_get(list, 0), *out;
    const char *uri = json_string_value(first), *bare = uri != NULL ? strchr(uri, ',') + 1 : "";

    if (strncmp(s->endpoint, "comfy", 5) == 0)
        out = json_pack("{s:s,s:s}", "status", "success", "message", bare);
    else if (strncmp(s->endpoint, "bare", 4) == 0)
        out = json_string(bare);
    else if (strncmp(s->endpoint, "list", 4) == 0)
        out = json_pack("[{s:s,s:s,s:s}]", "image", bare, "type", "base64", "filename", "kiln_00001_.png");
    else
        out = json_pack("{s:O,s:O,s:I}", "images", list, "image_url", first, "seed", (json_int_t)s->seed);
    return out;
}

static void runpod_on_painted(void *cls, struct paint *p)
{
    struct exchange *ex = cls;
    const struct shown *s = ex->cargo;
    json_t *list = p->failed ? NULL : json_loadb(p->body.data, p->body.len, 0, NULL);

    ex->paint = NULL;
    if (list == NULL)
        runpod_refuse(ex, 500, "");
    else
        send_status(ex, s->id, "COMPLETED", s->took_ms, json_pack("{s:o}", "output", output_of(s, list)));
    json_decref(list);
}

static void paint_output(struct exchange *ex, const struct job *job, const char *endpoint)
{
    struct shown *s = text_alloc(sizeof *s);
    struct paint *p = paint_new(ex->box->gallery);

    (void)snprintf(s->id, sizeof s->id, "%s", job->id);
    (void)snprintf(s->endpoint, sizeof s->endpoint, "%s", endpoint);
    s->seed = job->seed;
    s->took_ms = job->done_ms - job->created_ms;
    ex->cargo = s;
    ex->cargo_free = free;
    p->count = (size_t)job->count;
    for (int i = 0; i < job->count; i++) {
        p->specs[i] = job_picture(job, i);
        desk_cap(ex->box, &p->specs[i].width, &p->specs[i].height);
    }
    p->head = text_dup("[\"data:image/png;base64,");
    p->between = text_dup("\",\"data:image/png;base64,");
    p->tail = text_dup("\"]");
    exchange_paint(ex, p, runpod_on_painted);
}

static void send_end(struct exchange *ex, const struct job *job, const json_t *facts)
{
    const char *endpoint = json_string_value(json_object_get(facts, "endpoint"));
    json_t *error = json_object_get(facts, "error"), *output = json_object_get(facts, "output");
    int64_t took = job->done_ms - job->created_ms;

    if (error != NULL) {
        send_status(ex, job->id, "FAILED", took, json_pack("{s:O}", "error", error));
    } else if (output != NULL) {
        send_status(ex, job->id, "COMPLETED", took, json_pack("{s:O}", "output", output));
    } else if (job->count == 0) {
        send_status(ex, job->id, "COMPLETED", took, NULL);
    } else if (strncmp(endpoint, "bucket", 6) == 0) {
        char url[200];
        (void)snprintf(url, sizeof url, "%s/runpod-bucket/%s/out-0.png", ex->box->images_base, job->id);
        send_status(ex, job->id, "COMPLETED", took, json_pack("{s:{s:s}}", "output", "image_url", url));
    } else {
        paint_output(ex, job, endpoint);
    }
}

static void runpod_status(struct exchange *ex, const struct job *job)
{
    int64_t now = sandbox_now_ms(ex->box), ran = now - job->created_ms;
    json_t *facts;

    if (fault_has(&ex->fault, FW_UNKNOWN_STATUS)) {
        send_status(ex, job->id, "THINKING", ran, NULL);
    } else if (job->is_canceled) {
        send_status(ex, job->id, "CANCELLED", ran, NULL);
    } else if (now >= job->expires_ms && job->done_ms > job->expires_ms) {
        send_status(ex, job->id, "TIMED_OUT", ran, NULL);
    } else if (now >= job->done_ms) {
        facts = json_loads(job->facts, 0, NULL);
        send_end(ex, job, facts);
        json_decref(facts);
    } else if (ran < 100) {
        send_status(ex, job->id, "IN_QUEUE", 0, NULL);
    } else {
        send_status(ex, job->id, "IN_PROGRESS", ran, json_pack("{s:s}", "output", "step 3 of 25"));
    }
}

static void runpod_ask(struct exchange *ex, const char *endpoint, const char *id, enum key_mood mood, bool is_cancel)
{
    struct job *job = jobs_find(ex->box->jobs, id);
    int64_t now = sandbox_now_ms(ex->box);

    if (job != NULL && strcmp(job->account, ex->account) != 0)
        job = NULL;
    desk_open(ex, is_cancel ? PHASE_CANCEL : PHASE_POLL, job == NULL ? NULL : job->prompt);
    if (!runpod_admit(ex, mood, endpoint) || desk_fault(ex, runpod_refuse))
        return;
    if (job == NULL || (job->done_ms < now - KEPT_MS) || fault_has(&ex->fault, FW_NULL_JOB)) {
        runpod_refuse(ex, 404, "job not found");
    } else if (!is_cancel) {
        runpod_status(ex, job);
    } else {
        bool is_over = now >= job->done_ms && !job->is_canceled;
        if (!is_over && !job->is_canceled) {
            job->is_canceled = true;
            job->done_ms = now;
        }
        exchange_send_json(ex, 200,
                           json_pack("{s:s,s:s}", "id", job->id, "status", is_over ? "COMPLETED" : "CANCELLED"));
    }
}

void runpod_on_request(struct exchange *ex, const char *path)
{
    char key[256], endpoint[64];
    enum key_mood mood = desk_key(ex, "runpod", key, sizeof key);
    bool is_post = strcmp(ex->method, "POST") == 0, is_get = strcmp(ex->method, "GET") == 0;
    size_t len = strcspn(path + 1, "/");
    const char *rest = path + 1 + len;

    (void)snprintf(endpoint, sizeof endpoint, "%.*s", (int)(len < 63 ? len : 63), path + 1);
    if (is_post && strcmp(rest, "/run") == 0)
        runpod_run(ex, endpoint, mood);
    else if (is_get && strncmp(rest, "/status/", 8) == 0)
        runpod_ask(ex, endpoint, rest + 8, mood, false);
    else if (is_post && strncmp(rest, "/cancel/", 8) == 0)
        runpod_ask(ex, endpoint, rest + 8, mood, true);
    else if (!runpod_admit(ex, mood, endpoint))
        return;
    else if (is_get && strcmp(rest, "/health") == 0)
        exchange_send_json(ex, 200,
                           json_pack("{s:{s:i,s:i,s:i,s:i,s:i},s:{s:i,s:i}}", "jobs", "completed", 0, "failed", 0,
                                     "inProgress", 0, "inQueue", 0, "retried", 0, "workers", "idle", 1, "running", 0));
    else
        runpod_refuse(ex, 404, "not found");
}
