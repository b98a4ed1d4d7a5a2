/* submit.c - kiln submit and kiln estimate. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/json.h"
#include "dispatcher/client/api.h"
#include "dispatcher/client/client.h"
#include "dispatcher/client/jobs.h"
#include "dispatcher/client/params.h"
#include "dispatcher/client/save.h"
#include "dispatcher/client/show.h"

enum { DEADLINE_MOST_S = 7 * 86400 };

/* The body but for its params. False: a message was printed. */
static bool submit_options(const struct client *c, json_t *body)
{
    int64_t priority = 0, deadline_s = 0;
    const char *metadata = c->opts[OPT_METADATA];
    struct json_fault fault = { "" };
    json_t *value;

    (void)json_set_text(body, "operation", c->words[0]);
    if (!args_int(c, OPT_PRIORITY, -100, 100, &priority) || !args_int(c, OPT_DEADLINE, 1, DEADLINE_MOST_S, &deadline_s))
        return false;
    if (c->opts[OPT_PRIORITY])
        (void)json_object_set_new(body, "priority", json_integer(priority));
    if (c->opts[OPT_DEADLINE])
        (void)json_object_set_new(body, "deadline_s", json_integer(deadline_s));
    if (c->opts[OPT_ACCOUNT])
        (void)json_set_text(body, "account", c->opts[OPT_ACCOUNT]);
    if (metadata) {
        value = json_parse(metadata, strlen(metadata), &fault);
        if (!json_is_object(value)) {
            show_error("--metadata: must be a JSON object%s%s", fault.message[0] ? ": " : "", fault.message);
            json_decref(value);
            return false;
        }
        (void)json_object_set_new(body, "metadata", value);
    }
    return true;
}

static bool key_valid(const char *key)
{
    size_t len = strlen(key);

    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)key[i] <= ' ' || (unsigned char)key[i] > '~')
            len = 0;
    }
    if (len < 1 || len > 255)
        show_error("--idempotency-key: must be 1 to 255 printable characters without blanks");
    return len >= 1 && len <= 255;
}

/* One POST, safe to repeat. On CLIENT_DONE *job is new. */
static int submit_post(struct client *c, const json_t *body, json_t **job, bool *is_replayed)
{
    char *text = json_print(body), made[UUID_TEXT];
    const char *key = c->opts[OPT_IDEMPOTENCY_KEY] ? c->opts[OPT_IDEMPOTENCY_KEY] : made;
    struct api_call call = { .method = "POST", .path = "/v1/jobs", .body = text, .type = "application/json" };
    struct api_reply r = { .err = ERR_NOMEM };
    int status;

    uuid_random(made);
    call.idempotency_key = key;
    call.body_len = text ? strlen(text) : 0;
    if (text)
        r = api_ask(c->api, &call);
    status = api_refused(c->api, &r, c->is_json);
    if (r.err == ERR_LOST || r.err == ERR_CANCELED || (r.err == ERR_OK && r.status >= 500)) {
        show_note("  whether the job was taken is not known; the same command with --idempotency-key %s finds out, "
                  "and makes no second one",
                  key);
    } else if (status == CLIENT_DONE && !(json_text(r.json, "id") && uuid_valid(json_text(r.json, "id")))) {
        show_error("%s answered with no job", api_url(c->api));
        status = CLIENT_UNREACHABLE;
    } else if (status == CLIENT_DONE) {
        *job = json_incref(r.json);
        *is_replayed = r.is_replayed;
    }
    api_reply_done(&r);
    free(text);
    return status;
}

static void submit_accepted(const struct client *c, const json_t *job, bool is_replayed, bool is_waiting)
{
    const char *id = json_text(job, "id");
    char held[32];

    if (c->is_json)
        return;
    show_credits(held, sizeof held, json_object_get(json_object_get(job, "credits"), "held"));
    if (is_waiting) {
        printf("job %s %s, %s credits held\n", id, is_replayed ? "was taken before" : "accepted", held);
        (void)fflush(stdout); /* the id is what a person needs when all else fails */
        return;
    }
    printf("%s\n", id); /* this alone, for scripts */
    if (show_is_terminal(stdout) && show_is_terminal(stderr))
        show_note("%s, %s credits held; kiln get %s --wait follows it", is_replayed ? "was taken before" : "accepted",
                  held, id);
}

int submit_run(struct client *c)
{
    bool is_waiting = c->opts[OPT_WAIT] || c->opts[OPT_OUT], is_replayed = false;
    json_t *body = json_object(), *params = NULL, *job = NULL;
    int status = CLIENT_REFUSED;

    if (!submit_options(c, body) || !save_possible(c) ||
        (c->opts[OPT_IDEMPOTENCY_KEY] && !key_valid(c->opts[OPT_IDEMPOTENCY_KEY])))
        goto out;
    api_catch_signals();
    status = params_read(c, PARAMS_JOB, &params);
    if (status != CLIENT_DONE)
        goto out;
    (void)json_object_set(body, "params", params);
    status = submit_post(c, body, &job, &is_replayed);
    if (status != CLIENT_DONE)
        goto out;
    submit_accepted(c, job, is_replayed, is_waiting);
    if (is_waiting)
        status = jobs_follow(c, json_text(job, "id"));
    else if (c->is_json)
        show_json(job);
out:
    json_decref(job);
    json_decref(params);
    json_decref(body);
    return status;
}

int submit_estimate(struct client *c)
{
    json_t *body = json_object(), *params = NULL;
    struct api_call call = { .method = "POST", .path = "/v1/estimate", .type = "application/json" };
    struct api_reply r = { .err = ERR_NOMEM };
    char *text = NULL, credits[32];
    int status = params_read(c, PARAMS_ESTIMATE, &params);

    if (status != CLIENT_DONE)
        goto out;
    (void)json_set_text(body, "operation", c->words[0]);
    (void)json_object_set(body, "params", params);
    text = json_print(body);
    call.body = text;
    call.body_len = text ? strlen(text) : 0;
    if (text)
        r = api_ask(c->api, &call);
    status = api_refused(c->api, &r, c->is_json);
    if (status == CLIENT_DONE && c->is_json) {
        show_json(r.json);
    } else if (status == CLIENT_DONE) {
        printf("%s credits at ", show_credits(credits, sizeof credits, json_object_get(r.json, "credits")));
        show_text(stdout, json_text(r.json, "provider"));
        printf(" (prices of ");
        show_text(stdout, json_text(r.json, "price_version"));
        printf(")\n");
    }
out:
    api_reply_done(&r);
    free(text);
    json_decref(params);
    json_decref(body);
    return status;
}
