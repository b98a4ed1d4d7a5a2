/* comfyui.c - ComfyUI: /prompt queues a workflow, /queue lists what waits and runs, /history shows what is over, /view
 * hands out files, /upload/image takes them (providers/local-sd.md, part B). One workflow after the other, no key.
 *
 * The workflow is looked at as far as the page tells: nodes with class_type and inputs, links to nodes that are there,
 * an output node, known checkpoints, uploaded pictures, KSampler's inputs. UNCONFIRMED and chosen here: the error types
 * invalid_prompt and invalid_input_type, the upload's answer, 400 for `..`. */
#include "multipart.h"
#include "sandbox.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SCAN_MAX = 10000, IMAGES_MAX = 10, FILE_TAIL = 11 }; /* FILE_TAIL: "_00001_.png" */

/* ---- errors ---- */

static void comfyui_error(struct exchange *ex, const char *type, const char *message, const char *details,
                          json_t *node_errors)
{
    exchange_send_json(ex, 400,
                       json_pack("{s:{s:s,s:s,s:s,s:{}},s:o}", "error", "type", type, "message", message, "details",
                                 details, "extra_info", "node_errors",
                                 node_errors != NULL ? node_errors : json_object()));
}

static void comfyui_refuse(struct exchange *ex, int status, const char *code)
{
    if (status == 400 && code[0] == '\0')
        exchange_send_json(ex, 400, json_pack("{s:s,s:[]}", "error", "no prompt", "node_errors"));
    else if (status == 400)
        comfyui_error(ex, code, code, "", NULL);
    else if (status == 404 && ex->phase == PHASE_DOWNLOAD)
        exchange_send(ex, 404, "application/octet-stream", "");
    else
        exchange_send(ex, status, "text/plain; charset=utf-8",
                      "500 Internal Server Error\n\nServer got itself in trouble");
}

/* ---- validation: false means answered ---- */

static bool node_error(struct exchange *ex, const char *id, const json_t *node, const char *type, const char *message,
                       const char *details)
{
    json_t *errors =
        json_pack("{s:{s:[{s:s,s:s,s:s,s:{}}],s:[],s:O}}", id, "errors", "type", type, "message", message, "details",
                  details, "extra_info", "dependent_outputs", "class_type", json_object_get(node, "class_type"));
    comfyui_error(ex, "prompt_outputs_failed_validation", "Prompt outputs failed validation", "", errors);
    return false;
}

static bool is_class(const json_t *node, const char *name)
{
    const char *class = json_string_value(json_object_get(node, "class_type"));
    return class != NULL && strcmp(class, name) == 0;
}

static bool check_links(struct exchange *ex, const json_t *workflow, const char *id, const json_t *node)
{
    const char *name, *to;
    json_t *v;
    json_object_foreach(json_object_get(node, "inputs"), name, v)
    {
        to = json_string_value(json_array_get(v, 0));
        if (json_array_size(v) == 2 && to != NULL && json_object_get(workflow, to) == NULL)
            return node_error(ex, id, node, "required_input_missing", "Required input is missing", name);
    }
    return true;
}

static bool check_sampler(struct exchange *ex, const char *id, const json_t *node)
{
    static const char *const needed[] = { "seed",    "steps", "cfg",      "sampler_name", "scheduler",
                                          "denoise", "model", "positive", "negative",     "latent_image" };
    const json_t *inputs = json_object_get(node, "inputs");
    if (!is_class(node, "KSampler"))
        return true;
    for (size_t i = 0; i < ARRAY_LEN(needed); i++)
        if (json_object_get(inputs, needed[i]) == NULL)
            return node_error(ex, id, node, "required_input_missing", "Required input is missing", needed[i]);
    if (!json_is_integer(json_object_get(inputs, "seed")))
        return node_error(ex, id, node, "invalid_input_type", "Failed to convert an input value to a INT value",
                          "seed");
    return true;
}

static bool check_values(struct exchange *ex, const char *id, const json_t *node)
{
    const json_t *inputs = json_object_get(node, "inputs");
    const char *model = json_string_value(json_object_get(inputs, "ckpt_name"));
    const char *image = json_string_value(json_object_get(inputs, "image"));
    char details[200];
    if (is_class(node, "CheckpointLoaderSimple") &&
        (model == NULL || strcmp(model, "sd_xl_base_1.0.safetensors") != 0)) {
        (void)snprintf(details, sizeof details, "ckpt_name: '%.80s' not in ['sd_xl_base_1.0.safetensors']",
                       model == NULL ? "" : model);
        return node_error(ex, id, node, "value_not_in_list", "Value not in list", details);
    }
    if (is_class(node, "LoadImage") && (image == NULL || json_object_get(ex->box->uploads, image) == NULL))
        return node_error(ex, id, node, "value_not_in_list", "Value not in list", "image");
    return true;
}

static bool check_workflow(struct exchange *ex, const json_t *workflow)
{
    const char *id;
    json_t *node;
    int outputs = 0;
    json_object_foreach((json_t *)workflow, id, node)
    {
        if (!json_is_string(json_object_get(node, "class_type")) || !json_is_object(json_object_get(node, "inputs"))) {
            comfyui_error(ex, "invalid_prompt", "Cannot execute because a node is missing the class_type property.", id,
                          NULL);
            return false;
        }
        outputs += is_class(node, "SaveImage") || is_class(node, "PreviewImage");
    }
    if (outputs == 0) {
        comfyui_error(ex, "prompt_no_outputs", "Prompt has no outputs", "", NULL);
        return false;
    }
    json_object_foreach((json_t *)workflow, id, node)
    {
        if (!check_links(ex, workflow, id, node) || !check_sampler(ex, id, node) || !check_values(ex, id, node))
            return false;
    }
    return true;
}

/* ---- the queue ---- */

/* Every text that CLIPTextEncode is given: what the picture is drawn from, and where magic words stand. */
static char *workflow_text(const json_t *workflow)
{
    struct buf b = { 0 };
    const char *id;
    json_t *node;
    buf_str(&b, "");
    json_object_foreach((json_t *)workflow, id, node)
    {
        const char *text = json_string_value(json_object_get(json_object_get(node, "inputs"), "text"));
        if (is_class(node, "CLIPTextEncode") && text != NULL)
            buf_fmt(&b, "%s%s", b.len > 0 ? " " : "", text);
    }
    return b.data;
}

static int64_t workflow_number(const json_t *workflow, const char *class, const char *name, int64_t otherwise)
{
    const char *id;
    json_t *node;
    json_object_foreach((json_t *)workflow, id, node)
    {
        const json_t *v = json_object_get(json_object_get(node, "inputs"), name);
        if (is_class(node, class) && json_is_integer(v))
            return json_integer_value(v);
    }
    return otherwise;
}

static const struct job *comfyui_accept(struct exchange *ex, const json_t *body)
{
    struct sandbox *box = ex->box;
    const json_t *workflow = json_object_get(body, "prompt"), *client = json_object_get(body, "client_id");
    json_t *facts = json_pack("{s:O,s:o}", "prompt", workflow, "extra", json_object());
    int64_t now = sandbox_now_ms(box), from = box->comfyui_busy_ms > now ? box->comfyui_busy_ms : now;
    int count = (int)workflow_number(workflow, "EmptyLatentImage", "batch_size", 1);
    struct job job = { .kind = PICTURE_DRAWN,
                       .prompt = text_dup(ex->prompt),
                       .created_ms = from, /* when its turn comes */
                       .done_ms = from + desk_delay(ex, CFG_DELAY_LOCAL_MIN),
                       .expires_ms = INT64_MAX,
                       .seed = (uint64_t)workflow_number(workflow, "KSampler", "seed", 0),
                       .width = (int)workflow_number(workflow, "EmptyLatentImage", "width", 64),
                       .height = (int)workflow_number(workflow, "EmptyLatentImage", "height", 64),
                       .count = desk_count(&ex->fault, count < 1            ? 1
                                                       : count > IMAGES_MAX ? IMAGES_MAX
                                                                            : count),
                       .shaped = desk_shape(&ex->fault),
                       .format = PICTURE_PNG };
    if (client != NULL)
        (void)json_object_set(json_object_get(facts, "extra"), "client_id", (json_t *)client); /* only without memory */
    job.facts = json_dumps(facts, JSON_COMPACT);
    json_decref(facts);
    text_uuid(job.id);
    memcpy(job.account, ex->account, sizeof job.account);
    if (fault_has(&ex->fault, FW_STUCK))
        job.done_ms = INT64_MAX;
    else
        box->comfyui_busy_ms = job.done_ms;
    return jobs_add(box->jobs, &job, (size_t)sandbox_setting(box, CFG_MAX_JOBS));
}

static void comfyui_prompt(struct exchange *ex)
{
    const char *data = ex->body.data == NULL ? "" : ex->body.data;
    json_t *body = ex->is_too_large ? NULL : json_loadb(data, ex->body.len, 0, NULL);
    const json_t *workflow = json_object_get(body, "prompt");
    char *text = workflow_text(workflow);
    const struct job *job;

    desk_open(ex, PHASE_SUBMIT, text);
    free(text);
    if (!json_is_object(workflow)) {
        comfyui_refuse(ex, 400, "");
        goto out;
    }
    if (!check_workflow(ex, workflow))
        goto out;
    ex->images = (int)workflow_number(workflow, "EmptyLatentImage", "batch_size", 1);
    if (desk_fault(ex, comfyui_refuse))
        goto out;
    desk_pay(ex); /* costs nothing, but is counted: how often the machine worked */
    job = comfyui_accept(ex, body);
    if (desk_taken(ex))
        goto out;
    if (fault_has(&ex->fault, FW_MISSING_ID))
        exchange_send_json(ex, 200, json_pack("{s:i,s:{}}", "number", 1, "node_errors"));
    else
        exchange_send_json(ex, 200, json_pack("{s:s,s:i,s:{}}", "prompt_id", job->id, "number", 1, "node_errors"));
out:
    json_decref(body);
}

static bool is_forgotten(const struct job *job)
{
    return job->count < 0;
}

/* [number, prompt_id, prompt, extra, outputs] */
static json_t *queue_entry(const struct job *job, int number)
{
    json_t *facts = json_loads(job->facts, 0, NULL);
    json_t *entry =
        json_pack("[i,s,O,O,[]]", number, job->id, json_object_get(facts, "prompt"), json_object_get(facts, "extra"));
    json_decref(facts);
    return entry;
}

static void comfyui_queue(struct exchange *ex)
{
    int64_t now = sandbox_now_ms(ex->box);
    json_t *running = json_array(), *pending = json_array();
    int seen = 0;

    desk_open(ex, PHASE_POLL, NULL);
    if (desk_fault(ex, comfyui_refuse)) {
        json_decref(running);
        json_decref(pending);
        return;
    }
    for (const struct job *job = jobs_newest(ex->box->jobs); job != NULL && seen < SCAN_MAX; job = job->older, seen++) {
        if (strcmp(job->account, ex->account) != 0 || job->done_ms <= now || is_forgotten(job))
            continue;
        (void)json_array_append_new(job->created_ms <= now ? running : pending, queue_entry(job, seen)); /* memory */
    }
    exchange_send_json(ex, 200, json_pack("{s:o,s:o}", "queue_running", running, "queue_pending", pending));
}

/* {"delete":["<id>"]}: of those that wait. */
static void comfyui_delete(struct exchange *ex)
{
    const char *data = ex->body.data == NULL ? "" : ex->body.data;
    json_t *body = json_loadb(data, ex->body.len, 0, NULL);
    const json_t *ids = json_object_get(body, "delete");

    for (size_t i = 0; i < json_array_size(ids); i++) {
        const char *id = json_string_value(json_array_get(ids, i));
        struct job *job = id == NULL ? NULL : jobs_find(ex->box->jobs, id);
        if (job != NULL && strcmp(job->account, ex->account) == 0 && job->created_ms > sandbox_now_ms(ex->box)) {
            counters_add(ex->box->counters, NULL, ex->account, COUNT_CANCELED, 1);
            jobs_drop(ex->box->jobs, job);
        }
    }
    json_decref(body);
    exchange_send(ex, 200, "application/octet-stream", "");
}

/* ---- history ---- */

static json_t *history_images(const struct job *job, const json_t *node, int *index)
{
    const char *prefix = json_string_value(json_object_get(json_object_get(node, "inputs"), "filename_prefix"));
    bool is_preview = is_class(node, "PreviewImage");
    json_t *images = json_array();
    char name[200];

    for (int i = 0; i < job->count; i++) {
        (void)snprintf(name, sizeof name, "%.60s_%s_%05d_.png", prefix == NULL ? "ComfyUI" : prefix, job->id, ++*index);
        (void)json_array_append_new(images, json_pack("{s:s,s:s,s:s}", "filename", name, "subfolder", "", "type",
                                                      is_preview ? "temp" : "output")); /* only without memory */
    }
    return images;
}

static json_t *history_outputs(const struct job *job, const json_t *workflow)
{
    json_t *outputs = json_object(), *node;
    const char *id;
    int index = 0;

    json_object_foreach((json_t *)workflow, id, node)
    {
        if (is_class(node, "SaveImage") || is_class(node, "PreviewImage"))
            (void)json_object_set_new(outputs, id, json_pack("{s:o}", "images", history_images(job, node, &index)));
    }
    return outputs;
}

static json_t *history_status(const struct exchange *ex, const struct job *job, bool failed)
{
    json_t *last =
        failed ? json_pack("[s,{s:s,s:s,s:s,s:s,s:s,s:[]}]", "execution_error", "prompt_id", job->id, "node_id", "3",
                           "node_type", "KSampler", "exception_type", "torch.cuda.OutOfMemoryError",
                           "exception_message", "Allocation on device 0 would exceed allowed memory.", "traceback")
               : json_pack("[s,{s:s}]", "execution_success", "prompt_id", job->id);
    const char *word = fault_has(&ex->fault, FW_UNKNOWN_STATUS) ? "marinating" : failed ? "error" : "success";

    return json_pack("{s:s,s:b,s:[[s,{s:s}],o]}", "status_str", word, "completed", !failed, "messages",
                     "execution_start", "prompt_id", job->id, last);
}

static void comfyui_history(struct exchange *ex, const char *id)
{
    struct job *job = jobs_find(ex->box->jobs, id);
    json_t *facts, *entry;
    bool failed;

    if (job != NULL && strcmp(job->account, ex->account) != 0)
        job = NULL;
    desk_open(ex, PHASE_POLL, job == NULL ? NULL : job->prompt);
    if (desk_fault(ex, comfyui_refuse))
        return;
    if (job != NULL && fault_has(&ex->fault, FW_NULL_JOB))
        job->count = -1; /* cleared: in neither from now on */
    if (job == NULL || is_forgotten(job) || job->done_ms > sandbox_now_ms(ex->box)) {
        exchange_send_json(ex, 200, json_object());
        return;
    }
    failed = (job->shaped >> FW_FAIL & 1) != 0;
    facts = json_loads(job->facts, 0, NULL);
    entry = json_pack("{s:o,s:o,s:o}", "prompt", queue_entry(job, 1), "outputs",
                      failed ? json_object() : history_outputs(job, json_object_get(facts, "prompt")), "status",
                      history_status(ex, job, failed));
    json_decref(facts);
    exchange_send_json(ex, 200, json_pack("{s:o}", job->id, entry));
}

/* ---- files ---- */

static void comfyui_on_painted(void *cls, struct paint *p)
{
    struct exchange *ex = cls;
    ex->paint = NULL;
    exchange_send_blob(ex, 200, "image/png", blob_hold(p->file));
}

static void comfyui_view(struct exchange *ex)
{
    char name[256] = "", id[37] = "", type[16] = "";
    const char *query = ex->query == NULL ? "" : ex->query;
    struct job *job = NULL;
    size_t len;

    if (!text_find_arg(query, "filename", name, sizeof name) || strstr(name, "..") != NULL) {
        exchange_send(ex, 400, "application/octet-stream", "");
        return;
    }
    (void)text_find_arg(query, "type", type, sizeof type); /* output when it is not there */
    len = strlen(name);
    if (len > FILE_TAIL + 36) {
        memcpy(id, name + len - FILE_TAIL - 36, 36);
        job = jobs_find(ex->box->jobs, id);
    }
    desk_open(ex, PHASE_DOWNLOAD, job == NULL ? NULL : job->prompt);
    if (desk_fault(ex, comfyui_refuse))
        return;
    if (job == NULL) {
        comfyui_refuse(ex, 404, "");
        return;
    }
    struct paint *p = paint_new(ex->box->gallery);
    p->count = 1;
    p->specs[0] = job_picture(job, (int)strtol(name + len - FILE_TAIL + 1, NULL, 10));
    exchange_paint(ex, p, comfyui_on_painted);
}

static void comfyui_upload(struct exchange *ex)
{
    const char *type = exchange_request_header(ex, "Content-Type"), *why = "";
    struct form form;
    struct picture_info info;
    const struct part *image;
    char name[80];

    if (!multipart_parse(type, ex->body.data == NULL ? "" : ex->body.data, ex->body.len, &form, &why) ||
        (image = form_find(&form, "image")) == NULL || !image->is_file || !codec_info(image->data, image->len, &info)) {
        exchange_send(ex, 400, "application/octet-stream", "");
        return;
    }
    (void)snprintf(name, sizeof name, "upload_%016llx.png", (unsigned long long)text_hash(image->data, image->len));
    if (ex->box->uploads == NULL)
        ex->box->uploads = json_object();
    (void)json_object_set_new(ex->box->uploads, name, json_true()); /* fails only without memory */
    exchange_send_json(ex, 200, json_pack("{s:s,s:s,s:s}", "name", name, "subfolder", "", "type", "input"));
}

void comfyui_on_request(struct exchange *ex, const char *path)
{
    bool is_post = strcmp(ex->method, "POST") == 0;

    ex->provider = "comfyui";
    (void)snprintf(ex->account, sizeof ex->account, "comfyui:none");
    if (is_post && strcmp(path, "/prompt") == 0)
        comfyui_prompt(ex);
    else if (is_post && strcmp(path, "/upload/image") == 0)
        comfyui_upload(ex);
    else if (is_post && strcmp(path, "/queue") == 0)
        comfyui_delete(ex);
    else if (is_post && strcmp(path, "/interrupt") == 0)
        exchange_send(ex, 200, "application/octet-stream", "");
    else if (!is_post && strcmp(path, "/queue") == 0)
        comfyui_queue(ex);
    else if (!is_post && strncmp(path, "/history/", 9) == 0)
        comfyui_history(ex, path + 9);
    else if (!is_post && strcmp(path, "/view") == 0)
        comfyui_view(ex);
    else
        exchange_send(ex, 404, "text/plain; charset=utf-8", "404: Not Found");
}
