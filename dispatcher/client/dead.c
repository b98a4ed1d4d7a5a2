/* dead.c - kiln jobs list, show and retry: an operator's look at failed jobs of all apps, and what puts them right.
 *
 * A retry by filter is many short requests, one page each, at the pace of --rate; the dispatcher keeps nothing between
 * them. A job has one retry, so whatever was cut off is done by saying the same again. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "common/base/clock.h"
#include "common/base/json.h"
#include "dispatcher/client/api.h"
#include "dispatcher/client/client.h"
#include "dispatcher/client/pages.h"
#include "dispatcher/client/show.h"

enum { RATE = 50, RATE_MOST = 10000, PAGE = 100, NAP_MS = 50 };

static const struct {
    enum client_opt opt;
    const char *name;
} filters[] = {
    { OPT_STATE, "state" },         { OPT_APP, "app" },           { OPT_ACCOUNT, "account" }, { OPT_CODE, "code" },
    { OPT_OPERATION, "operation" }, { OPT_PROVIDER, "provider" }, { OPT_SINCE, "since" },     { OPT_UNTIL, "until" },
};

static void dead_row(struct table *t, const json_t *job)
{
    char when[32];

    table_add(t, json_text(job, "id"));
    table_add(t, json_text(json_object_get(job, "app"), "name"));
    table_add(t, json_text(job, "account"));
    table_add(t, json_text(job, "operation"));
    table_add(t, json_text(json_object_get(job, "error"), "code"));
    table_add(t, show_time(when, sizeof when, json_text(job, "finished_at")));
    table_add(t, json_text(job, "retried_by"));
}

int dead_list(struct client *c)
{
    struct table t = { .heads = { "JOB", "APP", "ACCOUNT", "OPERATION", "ERROR", "ENDED", "RETRIED BY" } };
    struct pages_filter asked[ARRAY_LEN(filters)];

    for (size_t i = 0; i < ARRAY_LEN(filters); i++)
        asked[i] = (struct pages_filter){ filters[i].name, c->opts[filters[i].opt] };
    return pages_table(c, "/v1/admin/jobs", asked, ARRAY_LEN(asked), &t, dead_row, "no failed jobs");
}

static void attempt_row(struct table *t, const json_t *a)
{
    char text[32];
    int64_t n = 0;

    (void)json_int(a, "no", &n);
    (void)snprintf(text, sizeof text, "%" PRId64, n);
    table_add(t, text);
    table_add(t, json_text(a, "provider"));
    table_add(t, json_text(a, "class"));
    table_add(t, json_text(a, "error_code"));
    if (json_is_number(json_object_get(a, "cost_usd")))
        (void)snprintf(text, sizeof text, "%.4f", json_number_value(json_object_get(a, "cost_usd")));
    else
        (void)snprintf(text, sizeof text, "-");
    table_add(t, text);
    table_add(t, show_time(text, sizeof text, json_text(a, "opened_at")));
    table_add(t, json_text(a, "request_id"));
    table_add(t, json_text(a, "message"));
}

static bool dead_path(const char *word, const char *behind, char *path, size_t size)
{
    char id[UUID_TEXT];

    if (!uuid_lower(id, word)) {
        show_error("%s: a job's id looks like 0193a0b1-2c3d-7e4f-8a9b-0c1d2e3f4a5b; `kiln jobs list` shows them", word);
        return false;
    }
    (void)snprintf(path, size, "/v1/admin/jobs/%s%s", id, behind);
    return true;
}

int dead_show(struct client *c)
{
    struct table t = { .heads = { "NO", "PROVIDER", "CLASS", "ERROR", "USD", "OPENED", "REQUEST", "MESSAGE" },
                       .right = 1u << 4 };
    char path[80];
    struct api_call call = { .method = "GET", .path = path };
    struct api_reply r;
    json_t *one;
    size_t i;
    int status;

    if (!dead_path(c->words[0], "", path, sizeof path))
        return CLIENT_REFUSED;
    r = api_ask(c->api, &call);
    status = api_refused(c->api, &r, c->is_json);
    if (status == CLIENT_DONE && c->is_json) {
        show_json(r.json);
    } else if (status == CLIENT_DONE) {
        show_job(r.json);
        printf("  app       ");
        show_text(stdout, json_text(json_object_get(r.json, "app"), "name"));
        printf("\n");
        if (json_text(r.json, "retry_of"))
            printf("  retry of  %s\n", json_text(r.json, "retry_of"));
        if (json_text(r.json, "retried_by"))
            printf("  retried by %s\n", json_text(r.json, "retried_by"));
        json_array_foreach(json_object_get(r.json, "attempts"), i, one)
        {
            attempt_row(&t, one);
        }
        table_print(&t, stdout);
    }
    api_reply_done(&r);
    return status;
}

/* ---- retry */

struct pace {
    int64_t rate, began_ms, done;
};

/* Until as many jobs as were asked for may have been. False: a signal came. */
static bool pace_wait(const struct pace *p)
{
    int64_t due = p->began_ms + p->done * 1000 / p->rate, left;

    while (!api_signal() && (left = due - clock_mono_ms()) > 0) {
        struct timespec nap = { 0, (left < NAP_MS ? left : NAP_MS) * 1000000 };
        (void)nanosleep(&nap, NULL);
    }
    return !api_signal();
}

static int retry_ids(struct client *c, struct pace *pace)
{
    json_t *all = json_array();
    int status = CLIENT_DONE;

    for (size_t i = 0; i < c->word_count && pace_wait(pace); i++, pace->done++) {
        char path[96];
        struct api_call call = { .method = "POST", .path = path };
        struct api_reply r;
        int one = CLIENT_REFUSED;

        if (dead_path(c->words[i], "/retry", path, sizeof path)) {
            r = api_ask(c->api, &call);
            one = api_refused(c->api, &r, c->is_json);
            if (one == CLIENT_DONE && c->is_json)
                (void)json_array_append(all, r.json);
            else if (one == CLIENT_DONE)
                printf("%s %s %s\n", c->words[i], r.is_replayed ? "has its retry:" : "is retried as",
                       json_text(r.json, "id") ? json_text(r.json, "id") : "?");
            api_reply_done(&r);
        }
        if (one != CLIENT_DONE)
            status = one;
        if (one == CLIENT_UNREACHABLE)
            break;
    }
    if (c->is_json)
        show_json(all);
    json_decref(all);
    return api_signal() ? 128 + api_signal() : status;
}

static char *retry_body(const struct client *c, const char *cursor, int64_t limit)
{
    json_t *body = json_pack("{s:I, s:s*}", "limit", (json_int_t)limit, "cursor", cursor);
    char *text;

    for (size_t i = 0; i < ARRAY_LEN(filters); i++) {
        if (c->opts[filters[i].opt])
            (void)json_object_set_new(body, filters[i].name, json_string(c->opts[filters[i].opt]));
    }
    text = json_dumps(body, JSON_COMPACT);
    json_decref(body);
    return text;
}

static void retry_tell(const json_t *page)
{
    json_t *one;
    size_t i;

    json_array_foreach(json_object_get(page, "refused"), i, one)
    {
        printf("%s is not retried: ", json_text(one, "id") ? json_text(one, "id") : "?");
        show_text(stdout, json_text(one, "message"));
        printf(" (");
        show_text(stdout, json_text(one, "code"));
        printf(")\n");
    }
    (void)fflush(stdout);
}

static void retry_hint(const struct client *c, const char *began)
{
    struct buf line = { 0 };

    for (size_t i = 0; i < ARRAY_LEN(filters); i++) {
        if (c->opts[filters[i].opt])
            (void)buf_printf(&line, " --%s %s", filters[i].name, c->opts[filters[i].opt]);
    }
    show_note("to go on: kiln jobs retry%s%s%s", line.data ? line.data : "", c->opts[OPT_UNTIL] ? "" : " --until ",
              c->opts[OPT_UNTIL] ? "" : began);
    buf_done(&line);
}

/* Page after page. `out`: {retried, refused} of all of them. */
static int retry_pages(struct client *c, struct pace *pace, json_t *out)
{
    char *cursor = NULL;
    bool has_more = true;
    int status = CLIENT_DONE;

    while (status == CLIENT_DONE && has_more && pace_wait(pace)) {
        char *body = retry_body(c, cursor, pace->rate < PAGE ? pace->rate : PAGE);
        struct api_call call = { .method = "POST",
                                 .path = "/v1/admin/jobs/retry",
                                 .type = "application/json",
                                 .body = body,
                                 .body_len = body ? strlen(body) : 0 };
        struct api_reply r = api_ask(c->api, &call);

        free(body);
        status = api_refused(c->api, &r, c->is_json);
        if (status == CLIENT_DONE) {
            const json_t *retried = json_object_get(r.json, "retried");

            (void)json_array_extend(json_object_get(out, "retried"), (json_t *)(uintptr_t)retried);
            (void)json_array_extend(json_object_get(out, "refused"), json_object_get(r.json, "refused"));
            pace->done += (int64_t)json_array_size(retried);
            if (!c->is_json)
                retry_tell(r.json);
            free(cursor);
            cursor = json_text(r.json, "next") ? strdup(json_text(r.json, "next")) : NULL;
            has_more = cursor != NULL;
        }
        api_reply_done(&r);
    }
    free(cursor);
    return api_signal() ? 128 + api_signal() : status;
}

int dead_retry(struct client *c)
{
    struct pace pace = { .rate = RATE, .began_ms = clock_mono_ms() };
    char began[RFC3339_TEXT];
    json_t *out;
    size_t refused;
    int status;

    if (!args_int(c, OPT_RATE, 1, RATE_MOST, &pace.rate))
        return CLIENT_REFUSED;
    if ((c->word_count > 0) == (c->opts[OPT_STATE] != NULL)) {
        show_error("jobs retry takes ids, or --state failed and what else shall be true of the jobs");
        return CLIENT_REFUSED;
    }
    api_catch_signals();
    if (c->word_count > 0)
        return retry_ids(c, &pace);
    rfc3339_ms(began, clock_wall_ms());
    out = json_pack("{s:[], s:[]}", "retried", "refused");
    status = retry_pages(c, &pace, out);
    refused = json_array_size(json_object_get(out, "refused"));
    if (c->is_json)
        show_json(out);
    else
        printf("%zu retried, %zu refused\n", json_array_size(json_object_get(out, "retried")), refused);
    if (status > 128 || status == CLIENT_UNREACHABLE)
        retry_hint(c, began);
    json_decref(out);
    return status == CLIENT_DONE && refused > 0 ? CLIENT_REFUSED : status;
}
