/* ttapi.c - Midjourney through TTAPI, as its page describes it: /imagine and /action hand out a jobId, /fetch shows it.
 * Failures of a job come under 200 with a message; SUCCESS of a submit only means accepted.
 *
 * Of a job with U images pictures 0 to 3 are the images and 4 is the grid; else 0 is the grid. */
#include "sandbox.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GRID_SIDE = 1024, MILLICENTS = 8000, U_IMAGES = 4 };

static void ttapi_say(struct exchange *ex, int status, const char *word, const char *message, json_t *data)
{
    exchange_send_json(ex, status, json_pack("{s:s,s:s,s:o}", "status", word, "message", message, "data", data));
}

static void ttapi_refuse(struct exchange *ex, int status, const char *code)
{
    const char *text = status == 400   ? "Bad Request"
                       : status == 401 ? "Invalid TT-API-KEY or the email is not activated"
                       : status == 402 ? "The account balance is too low"
                       : status == 403 ? "The account is blocked"
                       : status == 404 ? "Not Found"
                       : status == 429 ? "Too Many Requests"
                       : status == 499 ? "All queue slots are used up"
                       : status == 504 ? "The request timed out"
                                       : "Service exception";
    ttapi_say(ex, status, "FAILED", code[0] == '\0' ? text : code, json_null());
}

static bool ttapi_admit(struct exchange *ex, enum key_mood mood)
{
    if (mood == KEY_MISSING || mood == KEY_BAD)
        ttapi_refuse(ex, 401, "");
    else if (mood == KEY_MALFORMED)
        ttapi_refuse(ex, 403, "");
    else
        return true;
    return false;
}

/* ---- submit: false means answered ---- */

static bool bad(struct exchange *ex, const char *text)
{
    ttapi_refuse(ex, 400, text);
    return false;
}

/* A number or a numeric string. */
static int64_t seconds_of(const json_t *v, int64_t fallback)
{
    if (json_is_string(v))
        return strtoll(json_string_value(v), NULL, 10);
    return json_is_integer(v) ? (int64_t)json_integer_value(v) : v == NULL ? fallback : -1;
}

static bool check_imagine(struct exchange *ex, const json_t *body)
{
    const char *prompt = json_string_value(json_object_get(body, "prompt"));
    const char *mode = json_string_value(json_object_get(body, "mode"));
    const json_t *u = json_object_get(body, "getUImages"), *translation = json_object_get(body, "translation");
    int64_t timeout = seconds_of(json_object_get(body, "timeout"), 600);

    if (prompt == NULL || prompt[0] == '\0')
        return bad(ex, "prompt is required");
    if (mode == NULL || (strcmp(mode, "relax") != 0 && strcmp(mode, "fast") != 0 && strcmp(mode, "turbo") != 0))
        return bad(ex, "mode must be relax, fast or turbo");
    if (timeout < (strcmp(mode, "relax") == 0 ? 600 : 300) || timeout > 1200)
        return bad(ex, "timeout is out of range");
    if ((u != NULL && !json_is_boolean(u)) || (translation != NULL && !json_is_boolean(translation)))
        return bad(ex, "getUImages and translation must be booleans");
    return true;
}

static const char *const steps[] = { "upsample1",  "upsample2",  "upsample3",  "upsample4", "reroll",
                                     "variation1", "variation2", "variation3", "variation4" };

static bool check_action(struct exchange *ex, const json_t *body, const struct job **parent)
{
    const char *id = json_string_value(json_object_get(body, "jobId"));
    const char *action = json_string_value(json_object_get(body, "action"));
    const struct job *job = id != NULL ? jobs_find(ex->box->jobs, id) : NULL;
    int64_t timeout = seconds_of(json_object_get(body, "timeout"), 300);

    if (id == NULL || action == NULL)
        return bad(ex, "jobId and action are required");
    if (timeout < 300 || timeout > 1200)
        return bad(ex, "timeout is out of range");
    if (job == NULL || strcmp(job->account, ex->account) != 0 || sandbox_now_ms(ex->box) < job->done_ms)
        return bad(ex, "the job does not exist or is not finished");
    for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
        if (strcmp(steps[i], action) == 0 && strstr(job->facts, "upsample") == NULL) {
            *parent = job;
            return true;
        }
    }
    return bad(ex, "the action is not available");
}

/* ---- what becomes of it ---- */

/* "--cref" wants public links and version 6.0 or later, else the job fails. NULL: fine. */
static const char *cref_problem(const char *prompt)
{
    const char *cref = strstr(prompt, "--cref "), *version = strstr(prompt, "--v ");
    if (cref == NULL)
        return NULL;
    if (strncmp(cref + 7, "https://", 8) != 0)
        return "[Invalid link!] the reference cannot be fetched";
    if (version == NULL || strtod(version + 4, NULL) < 6)
        return "[Invalid parameter] --cref is not compatible with this version";
    return NULL;
}

static const char *failure_of(const struct exchange *ex, const char *prompt)
{
    static const char *const words[][2] = {
        { "timeout", "Job Timeout" },
        { "quota", "insufficient quota" },
        { "internal", "[Internal server error] try again" },
        { "denied", "[Image denied] by the filter" },
        { "parameter", "[Invalid parameter] unrecognized" },
        { "unknown", "Unknown Integration" },
    };
    const struct fault *f = &ex->fault;

    if (fault_has(f, FW_MODERATED))
        return "[Banned prompt detected] sandbox";
    if (!fault_has(f, FW_FAIL))
        return cref_problem(prompt);
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (strcmp(words[i][0], f->code) == 0)
            return words[i][1];
    return "the sandbox was asked to fail";
}

static void size_of(const char *prompt, int *width, int *height)
{
    const char *ar = strstr(prompt, "--ar ");
    int w = 1, h = 1;
    if (ar == NULL || sscanf(ar + 5, "%d:%d", &w, &h) != 2 || w < 1 || h < 1)
        w = h = 1;
    *width = w >= h ? GRID_SIDE : GRID_SIDE * w / h;
    *height = h >= w ? GRID_SIDE : GRID_SIDE * h / w;
}

static void ttapi_accept(struct exchange *ex, const json_t *body, const char *action, const struct job *parent)
{
    struct sandbox *box = ex->box;
    int64_t now = sandbox_now_ms(box);
    char *plain = faults_plain_prompt(parent != NULL ? parent->prompt : ex->prompt);
    bool cuts = json_is_true(json_object_get(body, "getUImages"));
    json_t *facts = json_pack("{s:s,s:b,s:s*}", "action", action, "u", cuts, "error", failure_of(ex, plain));
    struct job job = { .kind = PICTURE_DRAWN,
                       .prompt = parent != NULL ? text_dup(plain) : text_dup(ex->prompt),
                       .facts = json_dumps(facts, JSON_COMPACT),
                       .created_ms = now,
                       .done_ms =
                           fault_has(&ex->fault, FW_STUCK) ? INT64_MAX : now + desk_delay(ex, CFG_DELAY_TTAPI_MIN),
                       .expires_ms = INT64_MAX,
                       .seed = text_hash(plain, strlen(plain)) % 4294967295U + text_hash(action, strlen(action)) % 999U,
                       .count = desk_count(&ex->fault, cuts ? U_IMAGES + 1 : 1),
                       .shaped = desk_shape(&ex->fault),
                       .format = PICTURE_PNG };
    size_of(plain, &job.width, &job.height);
    if (strncmp(action, "upsample", 8) == 0 || cuts) {
        job.width /= 2;
        job.height /= 2;
    }
    free(plain);
    json_decref(facts);
    text_uuid(job.id);
    memcpy(job.account, ex->account, sizeof job.account);
    const struct job *kept = jobs_add(box->jobs, &job, (size_t)sandbox_setting(box, CFG_MAX_JOBS));
    if (fault_has(&ex->fault, FW_NULL_JOB))
        ttapi_say(ex, 200, "SUCCESS", "success", json_null());
    else /* the endpoint's page shows job_id, everything else jobId */
        ttapi_say(ex, 200, "SUCCESS", "",
                  json_pack("{s:s}", fault_has(&ex->fault, FW_MISSING_ID) ? "job_id" : "jobId", kept->id));
}

static void ttapi_submit(struct exchange *ex, bool is_imagine, enum key_mood mood)
{
    json_t *body =
        ex->is_too_large ? NULL : json_loadb(ex->body.data == NULL ? "" : ex->body.data, ex->body.len, 0, NULL);
    const char *prompt = is_imagine ? json_string_value(json_object_get(body, "prompt")) : NULL;
    const char *action = is_imagine ? "imagine" : json_string_value(json_object_get(body, "action"));
    const struct job *parent = NULL;
    struct limit_ask ask = { .now_ms = sandbox_now_ms(ex->box),
                             .limit = sandbox_setting(ex->box, CFG_SYNC_REQUESTS),
                             .window_ms = sandbox_setting(ex->box, CFG_SYNC_WINDOW),
                             .weight = 1 };

    ask.key = ex->account;
    desk_open(ex, PHASE_SUBMIT, prompt);
    if (!ttapi_admit(ex, mood))
        goto out;
    if (!(is_imagine ? check_imagine(ex, body) : check_action(ex, body, &parent)))
        goto out;
    ex->images = is_imagine || strncmp(action, "upsample", 8) != 0 ? U_IMAGES : 1;
    ex->cost = MILLICENTS * ex->images / U_IMAGES;
    if (desk_fault(ex, ttapi_refuse))
        goto out;
    if (mood == KEY_BROKE) {
        ttapi_refuse(ex, 402, "");
    } else if (limits_take(ex->box->limits, &ask) > 0) {
        counters_add(ex->box->counters, NULL, ex->account, COUNT_LIMITED, 1);
        ttapi_refuse(ex, 429, "");
    } else if (fault_has(&ex->fault, FW_MODERATED) && ex->fault.v[FW_MODERATED] == 400) {
        ttapi_refuse(ex, 400, "Banned word in the prompt: sandbox");
    } else {
        desk_pay(ex);
        if (!desk_taken(ex))
            ttapi_accept(ex, body, action, parent);
    }
out:
    json_decref(body);
}

/* ---- fetch ---- */

static json_t *picture_url(const struct exchange *ex, const struct job *job, int index)
{
    if (index >= job->count)
        return json_null();
    return json_sprintf("%s/midjourney/%s/out-%d.png", ex->box->images_base, job->id, index);
}

static void ttapi_show(struct exchange *ex, const struct job *job, const json_t *facts)
{
    const char *error = json_string_value(json_object_get(facts, "error")), *word = "SUCCESS", *message = "";
    const char *action = json_string_value(json_object_get(facts, "action"));
    int64_t now = sandbox_now_ms(ex->box), ran = now - job->created_ms;
    bool cuts = json_is_true(json_object_get(facts, "u")), is_over = now >= job->done_ms;
    json_t *images = json_null(), *components = json_array(), *data = json_null();

    if (fault_has(&ex->fault, FW_UNKNOWN_STATUS))
        word = "SKETCHING";
    else if (!is_over)
        word = ran < 100 ? "PENDING_QUEUE" : "ON_QUEUE";
    else if (error != NULL) {
        word = "FAILED";
        message = error;
    }
    if (is_over && cuts) {
        images = json_array();
        for (int i = 0; i < U_IMAGES && i < job->count; i++)
            (void)json_array_append_new(images, picture_url(ex, job, i)); /* fails only without memory */
    }
    for (size_t i = 0; is_over && strncmp(action, "upsample", 8) != 0 && i < ARRAY_LEN(steps); i++)
        (void)json_array_append_new(components, json_string(steps[i])); /* as above */
    if (strcmp(word, "FAILED") != 0) {
        json_t *grid = is_over ? picture_url(ex, job, cuts ? U_IMAGES : 0) : json_null();
        char *plain = faults_plain_prompt(job->prompt);
        data = json_pack("{s:s,s:s,s:s,s:s,s:s,s:O,s:O,s:i,s:i,s:n,s:O,s:n,s:O}", "action", action, "jobId", job->id,
                         "progress", is_over ? "100" : "30", "prompt", plain, "quota", "2", "discordImage", grid,
                         "cdnImage", grid, "width", job->width, "height", job->height, "hookUrl", "components",
                         components, "seed", "images", images);
        free(plain);
        json_decref(grid);
    }
    json_decref(images);
    json_decref(components);
    exchange_send_json(
        ex, 200, json_pack("{s:s,s:s,s:s,s:o}", "status", word, "message", message, "jobId", job->id, "data", data));
}

static void ttapi_fetch(struct exchange *ex, const char *id, enum key_mood mood)
{
    const struct job *job = jobs_find(ex->box->jobs, id);

    if (job != NULL && strcmp(job->account, ex->account) != 0)
        job = NULL;
    desk_open(ex, PHASE_POLL, job == NULL ? NULL : job->prompt);
    if (!ttapi_admit(ex, mood) || desk_fault(ex, ttapi_refuse))
        return;
    if (job == NULL || fault_has(&ex->fault, FW_NULL_JOB)) {
        ttapi_refuse(ex, 404, "");
        return;
    }
    json_t *facts = json_loads(job->facts, 0, NULL);
    ttapi_show(ex, job, facts);
    json_decref(facts);
}

void ttapi_on_request(struct exchange *ex, const char *path)
{
    char key[256], id[80] = "";
    enum key_mood mood = desk_key(ex, "ttapi", key, sizeof key);
    bool is_post = strcmp(ex->method, "POST") == 0;
    json_t *body;

    if (is_post && (strcmp(path, "/imagine") == 0 || strcmp(path, "/action") == 0)) {
        ttapi_submit(ex, path[1] == 'i', mood);
    } else if (!is_post && strcmp(path, "/fetch") == 0) {
        (void)(ex->query != NULL && text_find_arg(ex->query, "jobId", id, sizeof id)); /* "": nobody's */
        ttapi_fetch(ex, id, mood);
    } else if (strcmp(path, "/fetch") == 0) {
        body = json_loadb(ex->body.data == NULL ? "" : ex->body.data, ex->body.len, 0, NULL);
        (void)snprintf(
            id, sizeof id, "%s",
            json_is_string(json_object_get(body, "jobId")) ? json_string_value(json_object_get(body, "jobId")) : "");
        json_decref(body);
        ttapi_fetch(ex, id, mood);
    } else {
        ttapi_refuse(ex, 404, "");
    }
}
