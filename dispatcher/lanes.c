/* lanes.c - a provider's limits and pauses, as operators see and set them.
 *
 * What is set lies in PostgreSQL (`lanes`), beside the catalogue's own limits; Redis holds a copy, which repair makes:
 * at once after a change here, and again and again. How much waits and what a 429 has paused only Redis knows, so these
 * members are null while it is away. */
#include <string.h>
#include "common/base/log.h"
#include "common/base/small.h"
#include "dispatcher/admin.h"
#include "dispatcher/dispatcher.h"
#include "dispatcher/problem.h"
#include "dispatcher/repair.h"
#include "dispatcher/reply.h"

enum { PATIENCE_MS = 3000, LIMIT_MAX = 1000000, WINDOW_MAX_MS = 86400000, PAUSE_MAX_S = 30 * 86400 };

struct lanes_view {
    struct request *request;
    const char *only; /* NULL: a list of all */
    json_t *lanes;    /* array */
};

static void view_done(struct request *r)
{
    struct lanes_view *v = r->data;

    json_decref(v->lanes);
}

static json_t *limit_or_null(int64_t n)
{
    return n > 0 ? json_integer(n) : json_null();
}

static json_t *budget_or_null(int64_t n, int64_t window_ms)
{
    return n > 0 ? json_pack("{s:I, s:I}", "count", (json_int_t)n, "window_ms", (json_int_t)window_ms) : json_null();
}

/* One lane: what holds, and beside it what the catalogue says and what an operator has set. `row` < 0: nothing set. */
static json_t *lane_view(const struct catalog_provider *p, const struct db_result *result, int row)
{
    bool has_limit = row >= 0 && !db_is_null(result, row, "concurrency");
    bool has_budget = row >= 0 && !db_is_null(result, row, "budget_count"), is_paused = false;
    int64_t concurrency = has_limit ? db_col_int(result, row, "concurrency") : p->concurrency;
    int64_t n = has_budget ? db_col_int(result, row, "budget_count") : p->budget_count;
    int64_t window_ms = has_budget ? db_col_int(result, row, "budget_window_ms") : p->budget_window_ms;
    json_t *lane = json_object(), *set = json_object(), *catalog = json_object();

    (void)json_set_text(lane, "object", "lane");
    (void)json_set_text(lane, "lane", p->name);
    (void)json_object_set_new(lane, "configured", json_boolean(p->key != NULL));
    (void)json_object_set_new(lane, "concurrency", limit_or_null(concurrency));
    (void)json_object_set_new(lane, "budget", budget_or_null(n, window_ms));
    (void)json_object_set_new(catalog, "concurrency", limit_or_null(p->concurrency));
    (void)json_object_set_new(catalog, "budget", budget_or_null(p->budget_count, p->budget_window_ms));
    (void)json_object_set_new(lane, "catalog", catalog);
    (void)json_object_set_new(set, "concurrency", has_limit ? json_integer(concurrency) : json_null());
    (void)json_object_set_new(set, "budget", has_budget ? budget_or_null(n, window_ms) : json_null());
    (void)json_object_set_new(lane, "set", set);
    is_paused = row >= 0 && db_col_bool(result, row, "is_paused");
    (void)json_object_set_new(lane, "paused", json_boolean(is_paused));
    (void)json_set_text(lane, "paused_until",
                        is_paused && !db_is_null(result, row, "until") ? db_col(result, row, "until") : NULL);
    return lane;
}

static void stats_set(json_t *lane, const struct queue_lane_stats *s) /* NULL: nobody knows */
{
    (void)json_object_set_new(lane, "ready", s != NULL ? json_integer(s->ready) : json_null());
    (void)json_object_set_new(lane, "delayed", s != NULL ? json_integer(s->delayed) : json_null());
    (void)json_object_set_new(lane, "claimed", s != NULL ? json_integer(s->claimed) : json_null());
    (void)json_object_set_new(lane, "oldest_s", s != NULL ? json_real((double)s->oldest_ms / 1000) : json_null());
    (void)json_object_set_new(lane, "paused_s", s != NULL ? json_real((double)s->paused_ms / 1000) : json_null());
}

static void view_reply(struct lanes_view *v)
{
    if (v->only != NULL)
        reply_json(v->request, 200, json_incref(json_array_get(v->lanes, 0)));
    else
        reply_list(v->request, json_incref(v->lanes), NULL);
}

static void view_on_stats(void *ctx, enum err err, const struct queue_lane_stats *stats, size_t count)
{
    static const struct queue_lane_stats nothing;
    struct lanes_view *v = ctx;
    json_t *lane;
    size_t i;

    json_array_foreach(v->lanes, i, lane)
    {
        const struct queue_lane_stats *s = err == ERR_OK ? &nothing : NULL;

        for (size_t k = 0; err == ERR_OK && k < count; k++) {
            if (strcmp(stats[k].lane, json_text(lane, "lane")) == 0)
                s = &stats[k];
        }
        stats_set(lane, s);
    }
    view_reply(v);
}

static void view_on_rows(void *ctx, enum err err, const struct db_result *result)
{
    struct lanes_view *v = ctx;
    struct dispatcher *d = dispatcher_of(v->request);

    if (err != ERR_OK) {
        problem_backend(v->request, err);
        return;
    }
    v->lanes = json_array();
    for (size_t i = 0; i < catalog_provider_count(d->catalog); i++) {
        const struct catalog_provider *p = catalog_provider_at(d->catalog, i);
        int row = -1;

        for (int k = 0; k < db_rows(result); k++) {
            if (strcmp(db_col(result, k, "name"), p->name) == 0)
                row = k;
        }
        if (v->only == NULL || strcmp(v->only, p->name) == 0)
            (void)json_array_append_new(v->lanes, lane_view(p, result, row));
    }
    if (queue_is_up(d->queue))
        queue_stats(d->queue, view_on_stats, v);
    else
        view_on_stats(v, ERR_UNAVAILABLE, NULL, 0);
}

/* Read on the connection that a change went over, so that it sees the change. */
static void view_show(struct request *r, const char *only)
{
    struct lanes_view *v = arena_alloc(r->arena, sizeof(*v));

    if (v == NULL) {
        problem_backend(r, ERR_NOMEM);
        return;
    }
    v->request = r;
    v->only = only;
    r->data = v;
    r->on_over = view_done;
    if (admin_db(r) &&
        db_query(
            dispatcher_of(r)->write,
            "select name, concurrency, budget_count, budget_window_ms, coalesce(paused_until > kiln_now(), false) "
            "as is_paused, case when paused_until < 'infinity' then kiln_time(paused_until) end as until from lanes",
            0, NULL, PATIENCE_MS, view_on_rows, v) != ERR_OK)
        problem_backend(r, ERR_UNAVAILABLE);
}

static bool lane_arg(struct request *r)
{
    if (catalog_provider_find(dispatcher_of(r)->catalog, r->args[0]) != NULL)
        return true;
    problem_reply(r, ERR_NOT_FOUND, "no such lane; GET /v1/admin/lanes lists them");
    return false;
}

void lanes_list(struct request *r)
{
    view_show(r, NULL);
}

void lanes_get(struct request *r)
{
    if (lane_arg(r))
        view_show(r, r->args[0]);
}

/* ---- changes ---- */

static void set_on_done(void *ctx, enum err err, const struct db_result *result)
{
    struct request *r = ctx;

    (void)result;
    if (err != ERR_OK) {
        problem_backend(r, err);
        return;
    }
    log_info("lane_set", log_str("lane", r->args[0]), log_str("by", r->app));
    repair_lanes(dispatcher_of(r)->repair);
    view_show(r, r->args[0]);
}

static void lane_set(struct request *r, const char *body)
{
    const char *values[] = { r->args[0], body };

    if (body == NULL)
        problem_backend(r, ERR_NOMEM);
    else if (admin_db(r) && db_query(dispatcher_of(r)->write, "select kiln_lane_set($1, $2::jsonb)", ARRAY_LEN(values),
                                     values, PATIENCE_MS, set_on_done, r) != ERR_OK)
        problem_backend(r, ERR_UNAVAILABLE);
}

static bool int_in(const json_t *value, int64_t min, int64_t max)
{
    return json_is_integer(value) && json_integer_value(value) >= min && json_integer_value(value) <= max;
}

static void check_budget(const json_t *budget, struct catalog_faults *faults)
{
    if (budget == NULL || json_is_null(budget))
        return;
    if (!json_is_object(budget) || json_object_size(budget) != 2 ||
        !int_in(json_object_get(budget, "count"), 1, LIMIT_MAX) ||
        !int_in(json_object_get(budget, "window_ms"), 1, WINDOW_MAX_MS))
        faults_add(faults, "budget", "must be null or {count: 1 to %d, window_ms: 1 to %d}", LIMIT_MAX, WINDOW_MAX_MS);
}

static char *body_text(struct request *r, json_t *body)
{
    char *text = json_dumps(body, JSON_COMPACT), *kept = arena_strdup(r->arena, text);

    small_free(text);
    json_decref(body);
    return kept;
}

void lanes_patch(struct request *r)
{
    static const char *const members[] = { "concurrency", "budget", "paused_until", NULL };
    struct catalog_faults faults = { 0 };
    json_t *body = lane_arg(r) ? admin_body(r, members) : NULL, *value;

    if (body == NULL)
        return;
    value = json_object_get(body, "concurrency");
    if (value != NULL && !json_is_null(value) && !int_in(value, 0, LIMIT_MAX))
        faults_add(&faults, "concurrency", "must be null (the catalogue's) or a number from 0 (no limit) to %d",
                   LIMIT_MAX);
    check_budget(json_object_get(body, "budget"), &faults);
    value = json_object_get(body, "paused_until");
    if (value != NULL && !json_is_null(value) && !json_is_string(value))
        faults_add(&faults, "paused_until", "must be null or an RFC 3339 time");
    else
        admin_check_time(json_text(body, "paused_until"), "paused_until", &faults);
    if (json_object_size(body) == 0)
        faults_add(&faults, "body", "names nothing to change");
    if (!admin_faults(r, body, &faults))
        lane_set(r, body_text(r, body));
}

void lanes_pause(struct request *r)
{
    static const char *const members[] = { "for_s", NULL };
    struct catalog_faults faults = { 0 };
    json_t *body = lane_arg(r) ? admin_body(r, members) : NULL, *value;

    if (body == NULL)
        return;
    value = json_object_get(body, "for_s");
    if (value != NULL && !int_in(value, 1, PAUSE_MAX_S))
        faults_add(&faults, "for_s", "must be a number of seconds from 1 to %d; without it the pause has no end",
                   PAUSE_MAX_S);
    if (admin_faults(r, body, &faults))
        return;
    lane_set(r, value != NULL ? arena_printf(r->arena, "{\"pause_s\":%lld}", (long long)json_integer_value(value))
                              : "{\"paused_until\":\"infinity\"}");
    json_decref(body);
}

void lanes_resume(struct request *r)
{
    if (lane_arg(r))
        lane_set(r, "{\"paused_until\":null}");
}
