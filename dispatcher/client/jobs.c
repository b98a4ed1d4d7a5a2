/* jobs.c - kiln get, list and cancel. */
#include "dispatcher/client/jobs.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/json.h"
#include "common/core/job.h"
#include "dispatcher/client/api.h"
#include "dispatcher/client/pages.h"
#include "dispatcher/client/save.h"
#include "dispatcher/client/show.h"
#include "dispatcher/client/watch.h"

static bool is_state(const json_t *job, const char *want)
{
    const char *state = json_text(job, "state");
    return state && strcmp(state, want) == 0;
}

/* A final job: its one line (or the whole of it), and its results. */
static int jobs_end(struct client *c, json_t *job)
{
    bool is_good = is_state(job, "succeeded");
    const json_t *list = json_object_get(job, "artifacts");
    int status = save_results(c, job);
    size_t i;
    json_t *one;

    if (c->is_json) {
        show_json(job);
    } else {
        if (!c->opts[OPT_OUT] && is_good) {
            json_array_foreach((json_t *)list, i, one)
            {
                show_artifact(stdout, one);
                printf("  ");
                show_text(stdout, json_text(one, "url"));
                printf("\n");
            }
        }
        if (show_is_terminal(stdout))
            printf("%s%s%s ", show_style(stdout, is_good ? STYLE_GOOD : STYLE_BAD),
                   !show_is_utf8() ? is_good ? "ok" : "!!"
                   : is_good       ? "✓"
                                   : "✗",
                   show_style(stdout, STYLE_PLAIN));
        show_job_end(stdout, job);
    }
    return !is_good ? CLIENT_JOB_FAILED : status;
}

int jobs_follow(struct client *c, const char *id)
{
    json_t *job = NULL;
    int status = watch_job(c, id, &job);

    if (status == CLIENT_DONE)
        status = jobs_end(c, job);
    json_decref(job);
    return status;
}

/* The job's id from the first operand. False: a message was printed. */
static bool jobs_id(const struct client *c, char id[UUID_TEXT])
{
    if (uuid_lower(id, c->words[0]))
        return true;
    show_error("%s: a job's id looks like 0193a0b1-2c3d-7e4f-8a9b-0c1d2e3f4a5b; `kiln list` shows them", c->words[0]);
    return false;
}

int jobs_get(struct client *c)
{
    struct api_call call = { .method = "GET" };
    char id[UUID_TEXT], path[80];
    struct api_reply r;
    int status;

    if (!jobs_id(c, id) || !save_possible(c))
        return CLIENT_REFUSED;
    if (c->opts[OPT_WAIT] || c->opts[OPT_OUT])
        return jobs_follow(c, id);
    (void)snprintf(path, sizeof path, "/v1/jobs/%s", id);
    call.path = path;
    r = api_ask(c->api, &call);
    status = api_refused(c->api, &r, c->is_json);
    if (status == CLIENT_DONE && c->is_json)
        show_json(r.json);
    else if (status == CLIENT_DONE)
        show_job(r.json);
    api_reply_done(&r);
    return status;
}

int jobs_cancel(struct client *c)
{
    struct api_call call = { .method = "POST" };
    char id[UUID_TEXT], path[80];
    struct api_reply r;
    int status;

    if (!jobs_id(c, id))
        return CLIENT_REFUSED;
    (void)snprintf(path, sizeof path, "/v1/jobs/%s/cancel", id);
    call.path = path;
    r = api_ask(c->api, &call);
    status = api_refused(c->api, &r, c->is_json);
    if (status != CLIENT_DONE)
        goto out;
    if (c->is_json) {
        show_json(r.json);
    } else {
        printf("job %s ", id);
        if (!is_state(r.json, "canceled"))
            printf("had ended before: ");
        show_job_end(stdout, r.json);
    }
    if (!is_state(r.json, "canceled"))
        status = CLIENT_REFUSED;
out:
    api_reply_done(&r);
    return status;
}

static void list_row(struct table *t, const json_t *job)
{
    const json_t *credits = json_object_get(job, "credits");
    const char *state = json_text(job, "state"), *created = json_text(job, "created_at");
    char amount[32], when[32], span[32];
    bool is_final = state && job_state_is_final(state);

    table_add(t, json_text(job, "id"));
    table_add(t, state);
    table_add(t, json_text(job, "operation"));
    table_add(t, json_text(job, "account"));
    table_add(t, show_credits(amount, sizeof amount, json_object_get(credits, is_final ? "charged" : "held")));
    table_add(t, show_time(when, sizeof when, created));
    table_add(t, show_span(span, sizeof span, show_span_ms(created, json_text(job, "finished_at"))));
    table_add(t, json_text(json_object_get(job, "error"), "code"));
}

int jobs_list(struct client *c)
{
    struct table t = { .heads = { "JOB", "STATE", "OPERATION", "ACCOUNT", "CREDITS", "CREATED", "TOOK", "ERROR" },
                       .right = 1u << 4 | 1u << 6 };
    const struct pages_filter filters[] = { { "state", c->opts[OPT_STATE] },
                                            { "account", c->opts[OPT_ACCOUNT] },
                                            { "operation", c->opts[OPT_OPERATION] } };

    return pages_table(c, "/v1/jobs", filters, ARRAY_LEN(filters), &t, list_row, "no jobs");
}
