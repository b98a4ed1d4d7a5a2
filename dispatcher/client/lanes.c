/* lanes.c - kiln lanes, lane set, pause and resume; kiln exposure. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/arena.h"
#include "common/base/json.h"
#include "dispatcher/client/api.h"
#include "dispatcher/client/client.h"
#include "dispatcher/client/pages.h"
#include "dispatcher/client/show.h"

enum { LIMIT_MOST = 1000000, WINDOW_MOST_S = 86400, PAUSE_MOST_S = 30 * 86400 };

static const char *number(char *out, size_t size, const json_t *value, const char *none)
{
    if (json_is_number(value))
        (void)snprintf(out, size, "%.10g", json_number_value(value));
    else
        (void)snprintf(out, size, "%s", none);
    return out;
}

static void lane_row(struct table *t, const json_t *lane)
{
    const json_t *budget = json_object_get(lane, "budget");
    char text[64], count[24];

    table_add(t, json_text(lane, "lane"));
    table_add(t, json_bool(lane, "configured", false) ? "yes" : "no");
    table_add(t, number(text, sizeof text, json_object_get(lane, "concurrency"), "no limit"));
    if (json_is_object(budget))
        (void)snprintf(text, sizeof text, "%s in %.10g s",
                       number(count, sizeof count, json_object_get(budget, "count"), "-"),
                       json_number_value(json_object_get(budget, "window_ms")) / 1000);
    else
        (void)snprintf(text, sizeof text, "none");
    table_add(t, text);
    table_add(t, number(text, sizeof text, json_object_get(lane, "ready"), "?"));
    table_add(t, number(text, sizeof text, json_object_get(lane, "delayed"), "?"));
    table_add(t, number(text, sizeof text, json_object_get(lane, "claimed"), "?"));
    if (json_bool(lane, "paused", false))
        table_add(t, json_text(lane, "paused_until") ? show_time(text, sizeof text, json_text(lane, "paused_until"))
                                                     : "until it is resumed");
    else if (json_number_value(json_object_get(lane, "paused_s")) > 0)
        table_add(t, "by the provider");
    else
        table_add(t, "-");
}

static void lane_table(const json_t *lanes)
{
    struct table t = { .heads = { "LANE", "KEY", "AT ONCE", "REQUESTS", "READY", "DELAYED", "CLAIMED", "PAUSED" },
                       .right = 1u << 2 | 1u << 4 | 1u << 5 | 1u << 6 };
    json_t *one;
    size_t i;

    json_array_foreach((json_t *)(uintptr_t)lanes, i, one)
    {
        lane_row(&t, one);
    }
    table_print(&t, stdout);
}

int lanes_show(struct client *c)
{
    struct api_call call = { .method = "GET", .path = "/v1/admin/lanes" };
    struct api_reply r = api_ask(c->api, &call);
    int status = api_refused(c->api, &r, c->is_json);

    if (status == CLIENT_DONE && c->is_json)
        show_json(r.json);
    else if (status == CLIENT_DONE)
        lane_table(json_object_get(r.json, "data"));
    api_reply_done(&r);
    return status;
}

/* Asks for the change and shows the lane. body NULL: none; consumed. */
static int lane_change(struct client *c, const char *method, const char *verb, json_t *body)
{
    struct arena *arena = arena_new(4096);
    struct api_call call = { .method = method };
    struct api_reply r = { .err = ERR_NOMEM };
    char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    json_t *lanes;
    int status = CLIENT_UNREACHABLE;

    call.path = arena ? arena_printf(arena, "/v1/admin/lanes/%s%s", url_segment(arena, c->words[0]), verb) : NULL;
    if (text) {
        call.type = "application/json";
        call.body = text;
        call.body_len = strlen(text);
    }
    if (call.path) {
        r = api_ask(c->api, &call);
        status = api_refused(c->api, &r, c->is_json);
    }
    if (status == CLIENT_DONE && c->is_json) {
        show_json(r.json);
    } else if (status == CLIENT_DONE) {
        lanes = json_pack("[O]", r.json);
        lane_table(lanes);
        json_decref(lanes);
    }
    api_reply_done(&r);
    free(text);
    json_decref(body);
    arena_free(arena);
    return status;
}

/* "150/10": requests in seconds. */
static json_t *budget_of(const char *text)
{
    char count[24];
    size_t len = strcspn(text, "/");
    int64_t n, seconds;

    if (len >= sizeof count || text[len] != '/')
        return NULL;
    (void)snprintf(count, sizeof count, "%.*s", (int)len, text);
    if (parse_i64(count, 1, LIMIT_MOST, &n) != ERR_OK ||
        parse_i64(text + len + 1, 1, WINDOW_MOST_S, &seconds) != ERR_OK)
        return NULL;
    return json_pack("{s:I, s:I}", "count", (json_int_t)n, "window_ms", (json_int_t)seconds * 1000);
}

int lanes_set(struct client *c)
{
    const char *concurrency = c->opts[OPT_CONCURRENCY], *budget = c->opts[OPT_BUDGET];
    json_t *body = json_object(), *value;
    int64_t n = 0;

    if (!concurrency && !budget) {
        show_error("lane set: --concurrency or --budget says what to set");
        goto refused;
    }
    if (concurrency && strcmp(concurrency, "default") == 0) {
        (void)json_object_set_new(body, "concurrency", json_null());
    } else if (concurrency) {
        if (!args_int(c, OPT_CONCURRENCY, 0, LIMIT_MOST, &n))
            goto refused;
        (void)json_object_set_new(body, "concurrency", json_integer(n));
    }
    if (budget) {
        value = strcmp(budget, "default") == 0 ? json_null() : budget_of(budget);
        if (!value) {
            show_error("--budget: is requests/seconds, such as 150/10, or default; got \"%s\"", budget);
            goto refused;
        }
        (void)json_object_set_new(body, "budget", value);
    }
    return lane_change(c, "PATCH", "", body);
refused:
    json_decref(body);
    return CLIENT_REFUSED;
}

int lanes_pause(struct client *c)
{
    json_t *body;
    int64_t seconds = 0;

    if (!args_int(c, OPT_FOR, 1, PAUSE_MOST_S, &seconds))
        return CLIENT_REFUSED;
    body = json_object();
    if (seconds > 0)
        (void)json_object_set_new(body, "for_s", json_integer(seconds));
    return lane_change(c, "POST", "/pause", body);
}

int lanes_resume(struct client *c)
{
    return lane_change(c, "POST", "/resume", NULL);
}

/* ---- exposure */

static void exposure_totals(const json_t *totals)
{
    struct table t = { .heads = { "PROVIDER", "REASON", "ATTEMPTS", "USD", "COST UNKNOWN" },
                       .right = 1u << 2 | 1u << 3 | 1u << 4 };
    char text[32];
    json_t *one;
    size_t i;

    json_array_foreach((json_t *)(uintptr_t)totals, i, one)
    {
        table_add(&t, json_text(one, "provider"));
        table_add(&t, json_text(one, "reason"));
        table_add(&t, number(text, sizeof text, json_object_get(one, "attempts"), "-"));
        (void)snprintf(text, sizeof text, "%.4f", json_number_value(json_object_get(one, "cost_usd")));
        table_add(&t, text);
        table_add(&t, number(text, sizeof text, json_object_get(one, "without_cost"), "-"));
    }
    table_print(&t, stdout);
}

int exposure_show(struct client *c)
{
    struct table t = { .heads = { "CLOSED", "PROVIDER", "REASON", "ERROR", "USD", "JOB", "REQUEST" },
                       .right = 1u << 4 };
    const struct pages_filter filters[] = { { "provider", c->opts[OPT_PROVIDER] },
                                            { "since", c->opts[OPT_SINCE] },
                                            { "until", c->opts[OPT_UNTIL] } };
    json_t *list = NULL, *one;
    char text[32];
    size_t i;
    int status = pages_read(c, "/v1/admin/exposure", filters, ARRAY_LEN(filters), &list);

    if (status != CLIENT_DONE)
        return status;
    if (c->is_json) {
        show_json(list);
        json_decref(list);
        return status;
    }
    json_array_foreach(json_object_get(list, "data"), i, one)
    {
        table_add(&t, show_time(text, sizeof text, json_text(one, "closed_at")));
        table_add(&t, json_text(one, "provider"));
        table_add(&t, json_text(one, "reason"));
        table_add(&t, json_text(one, "error_code"));
        table_add(&t, number(text, sizeof text, json_object_get(one, "cost_usd"), "?"));
        table_add(&t, json_text(one, "job"));
        table_add(&t, json_text(one, "request_id"));
    }
    if (i == 0)
        show_note("nothing since %s", json_text(list, "since") ? json_text(list, "since") : "then");
    table_print(&t, stdout);
    if (i > 0) {
        printf("\n");
        exposure_totals(json_object_get(list, "totals"));
    }
    if (json_bool(list, "has_more", false))
        show_note("there are more: --limit N shows them; the totals are of all");
    json_decref(list);
    return status;
}
