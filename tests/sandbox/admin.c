/* admin.c - /_sandbox/...: counters, the last requests, settings and faults, for tests. */
#include "sandbox.h"

#include <string.h>

static void admin_bad(struct exchange *ex, const char *why)
{
    exchange_send_json(ex, 400, json_pack("{s:s}", "error", why));
}

static void admin_counters(struct exchange *ex)
{
    char tag[TAG_MAX + 1];
    struct sandbox *box = ex->box;
    if (text_find_arg(ex->query, "tag", tag, sizeof tag)) {
        exchange_send_json(ex, 200, counters_tag_json(box->counters, tag));
        return;
    }
    json_t *all = counters_json(box->counters);
    json_t *now = json_pack("{s:I,s:I,s:I,s:I,s:I,s:I}", "connections",
                            (json_int_t)(server_connections(box->main_server) + server_connections(box->image_server)),
                            "connections_images", (json_int_t)server_connections(box->image_server), "waiting",
                            (json_int_t)(server_waiting(box->main_server) + server_waiting(box->image_server)), "jobs",
                            (json_int_t)jobs_count(box->jobs), "waiting_peak",
                            (json_int_t)server_take_peak(box->main_server, false), "limit_peak",
                            (json_int_t)limits_peak(box->limits));
    (void)json_object_set_new(all, "now", now); /* fails only without memory */
    exchange_send_json(ex, 200, all);
}

static void admin_requests(struct exchange *ex)
{
    char tag[TAG_MAX + 1];
    bool one = text_find_arg(ex->query, "tag", tag, sizeof tag);
    exchange_send_json(ex, 200,
                       json_pack("{s:o}", "requests", counters_notes_json(ex->box->counters, one ? tag : NULL)));
}

static void admin_config(struct exchange *ex, const json_t *body)
{
    char why[256];
    if (body != NULL) {
        if (!config_merge(&ex->box->config, body, why, sizeof why)) {
            admin_bad(ex, why);
            return;
        }
        gallery_limit(ex->box->gallery, (size_t)sandbox_setting(ex->box, CFG_CACHE_BYTES));
    }
    exchange_send_json(ex, 200, config_json(&ex->box->config));
}

static void admin_faults(struct exchange *ex, const json_t *body)
{
    char why[256];
    if (body != NULL && !faults_add_rule(ex->box->faults, body, why, sizeof why)) {
        admin_bad(ex, why);
        return;
    }
    exchange_send_json(ex, 200, json_pack("{s:o}", "faults", faults_json(ex->box->faults)));
}

/* Counters, requests, fault rules and the counts of times=N, rate-limit windows. Jobs and settings stay. */
static void admin_reset(struct exchange *ex)
{
    counters_reset(ex->box->counters);
    faults_reset(ex->box->faults);
    limits_reset(ex->box->limits);
    (void)server_take_peak(ex->box->main_server, true); /* starts afresh */
    exchange_send_json(ex, 200, json_pack("{s:b}", "reset", 1));
}

void admin_on_request(struct exchange *ex)
{
    const char *path = ex->path + strlen("/_sandbox");
    bool get = strcmp(ex->method, "GET") == 0, post = strcmp(ex->method, "POST") == 0;
    json_t *body = NULL;

    if (post && ex->body.len > 0) {
        body = ex->is_too_large ? NULL : json_loadb(ex->body.data, ex->body.len, 0, NULL);
        if (body == NULL) {
            admin_bad(ex, "the body is not JSON");
            return;
        }
    }
    if (get && strcmp(path, "/counters") == 0)
        admin_counters(ex);
    else if (get && strcmp(path, "/requests") == 0)
        admin_requests(ex);
    else if (post && strcmp(path, "/reset") == 0)
        admin_reset(ex);
    else if ((get || body != NULL) && strcmp(path, "/config") == 0)
        admin_config(ex, body);
    else if ((get || body != NULL) && strcmp(path, "/faults") == 0)
        admin_faults(ex, body);
    else if ((get || body != NULL) && strcmp(path, "/script") == 0)
        script_on_admin(ex, body);
    else if (strcmp(ex->method, "DELETE") == 0 && strcmp(path, "/faults") == 0) {
        faults_end_rules(ex->box->faults);
        admin_faults(ex, NULL);
    } else if (get && strcmp(path, "/healthz") == 0)
        exchange_send(ex, 200, "text/plain", "ok\n");
    else
        exchange_send_json(ex, 404, json_pack("{s:s}", "error", "no such endpoint of the sandbox"));
    json_decref(body);
}
