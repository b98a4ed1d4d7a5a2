/* credits.c - kiln credits and kiln ledger: what an account has, and how it came to that. */
#include <stdio.h>
#include "common/base/json.h"
#include "dispatcher/client/api.h"
#include "dispatcher/client/client.h"
#include "dispatcher/client/pages.h"
#include "dispatcher/client/show.h"

static const char *credits_account(const struct client *c)
{
    return c->word_count > 0 ? c->words[0] : "default";
}

int credits_show(struct client *c)
{
    struct arena *arena = arena_new(4096);
    struct api_call call = { .method = "GET" };
    struct api_reply r = { .err = ERR_NOMEM };
    char available[32], held[32], balance[32];
    int status = CLIENT_UNREACHABLE;

    call.path = arena ? arena_printf(arena, "/v1/accounts/%s", url_segment(arena, credits_account(c))) : NULL;
    if (call.path) {
        r = api_ask(c->api, &call);
        status = api_refused(c->api, &r, c->is_json);
    }
    if (status == CLIENT_DONE && c->is_json) {
        show_json(r.json);
    } else if (status == CLIENT_DONE) {
        show_text(stdout, json_text(r.json, "account"));
        printf(": %s credits available (balance %s, held %s)\n",
               show_credits(available, sizeof available, json_object_get(r.json, "available")),
               show_credits(balance, sizeof balance, json_object_get(r.json, "balance")),
               show_credits(held, sizeof held, json_object_get(r.json, "held")));
    }
    api_reply_done(&r);
    arena_free(arena);
    return status;
}

static void ledger_row(struct table *t, const json_t *entry)
{
    char text[32];
    const char *job = json_text(entry, "job");

    table_add(t, show_time(text, sizeof text, json_text(entry, "created_at")));
    table_add(t, json_text(entry, "kind"));
    table_add(t, show_credits(text, sizeof text, json_object_get(entry, "amount")));
    table_add(t, show_credits(text, sizeof text, json_object_get(entry, "balance")));
    table_add(t, show_credits(text, sizeof text, json_object_get(entry, "held")));
    table_add(t, job ? job : json_text(entry, "reference"));
}

int credits_ledger(struct client *c)
{
    struct table t = { .heads = { "TIME", "KIND", "AMOUNT", "BALANCE", "HELD", "JOB OR REFERENCE" },
                       .right = 1u << 2 | 1u << 3 | 1u << 4 };
    struct arena *arena = arena_new(4096);
    const char *path =
        arena ? arena_printf(arena, "/v1/accounts/%s/ledger", url_segment(arena, credits_account(c))) : NULL;
    json_t *list = NULL, *data;
    int status = path ? pages_read(c, path, NULL, 0, &list) : CLIENT_UNREACHABLE;

    arena_free(arena);
    if (status != CLIENT_DONE)
        return status;
    if (c->is_json) {
        show_json(list);
    } else {
        data = json_object_get(list, "data");
        if (json_array_size(data) == 0)
            show_note("no entries: an account begins with its first grant");
        else if (json_bool(list, "has_more", false))
            show_note("the newest %zu entries; --limit N shows more", json_array_size(data));
        for (size_t i = json_array_size(data);
             i-- > 0;) /* the newest at the bottom, so that balances add up downwards */
            ledger_row(&t, json_array_get(data, i));
        table_print(&t, stdout);
    }
    json_decref(list);
    return CLIENT_DONE;
}
