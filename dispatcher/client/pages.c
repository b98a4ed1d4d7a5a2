/* pages.c - follows `next`, which is an absolute link: its query is asked at KILN_URL, whatever host it names. */
#include "dispatcher/client/pages.h"
#include <stdio.h>
#include <string.h>
#include "common/base/json.h"
#include "common/base/text.h"
#include "dispatcher/client/api.h"

enum { PAGE = 100, LIMIT = 20, LIMIT_MOST = 100000 };

static bool pages_first(struct buf *target, const char *path, const struct pages_filter *filters, size_t count,
                        int64_t limit)
{
    struct arena *arena = arena_new(1 << 16);
    bool ok = arena && buf_printf(target, "%s?limit=%lld", path, (long long)(limit < PAGE ? limit : PAGE));

    for (size_t i = 0; i < count && ok; i++) {
        const char *value = filters[i].value ? url_query_escape(arena, filters[i].value) : NULL;
        if (value)
            ok = buf_printf(target, "&%s=%s", filters[i].name, value);
    }
    arena_free(arena);
    return ok;
}

static bool pages_next(struct buf *target, const char *path, const json_t *page)
{
    const char *next = json_text(page, "next"), *query = next ? strchr(next, '?') : NULL;

    buf_done(target);
    return query && buf_printf(target, "%s%s", path, query);
}

int pages_read(struct client *c, const char *path, const struct pages_filter *filters, size_t count, json_t **out)
{
    struct buf target = { 0 };
    json_t *all = NULL, *data;
    int64_t limit = LIMIT;
    int status = CLIENT_REFUSED;

    if (!args_int(c, OPT_LIMIT, 1, LIMIT_MOST, &limit))
        return status;
    status = pages_first(&target, path, filters, count, limit) ? CLIENT_DONE : CLIENT_UNREACHABLE;
    while (status == CLIENT_DONE) {
        struct api_call call = { .method = "GET", .path = target.data };
        struct api_reply r = api_ask(c->api, &call);
        bool has_more;

        status = api_refused(c->api, &r, c->is_json);
        if (status == CLIENT_DONE && !all)
            all = json_incref(r.json);
        else if (status == CLIENT_DONE)
            (void)json_array_extend(json_object_get(all, "data"), json_object_get(r.json, "data"));
        has_more = status == CLIENT_DONE && json_bool(r.json, "has_more", false);
        if (all && status == CLIENT_DONE && r.json != all) {
            (void)json_object_set_new(all, "has_more", json_boolean(has_more));
            (void)json_object_set(all, "next", json_object_get(r.json, "next"));
        }
        data = json_object_get(all, "data");
        if (!has_more || (int64_t)json_array_size(data) >= limit || !pages_next(&target, path, r.json)) {
            api_reply_done(&r);
            break;
        }
        api_reply_done(&r);
    }
    while (status == CLIENT_DONE && (int64_t)json_array_size(json_object_get(all, "data")) > limit) {
        data = json_object_get(all, "data");
        (void)json_array_remove(data, json_array_size(data) - 1);
        (void)json_object_set_new(all, "has_more", json_true());
    }
    buf_done(&target);
    if (status == CLIENT_DONE)
        *out = all;
    else
        json_decref(all);
    return status;
}

int pages_table(struct client *c, const char *path, const struct pages_filter *filters, size_t count, struct table *t,
                void (*row)(struct table *t, const json_t *one), const char *none)
{
    json_t *list = NULL, *one;
    int status = pages_read(c, path, filters, count, &list);
    size_t i;

    if (status != CLIENT_DONE)
        return status;
    if (c->is_json) {
        show_json(list);
    } else {
        json_array_foreach(json_object_get(list, "data"), i, one)
        {
            row(t, one);
        }
        if (i == 0)
            show_note("%s", none);
        table_print(t, stdout);
        if (json_bool(list, "has_more", false))
            show_note("there are more: --limit N shows them");
    }
    json_decref(list);
    return CLIENT_DONE;
}
