/* providers.c - `kiln providers` and `kiln providers check`: a line for each provider, or for each of its keys. Keys
 * are named by their fingerprints; the dispatcher never tells more. */
#include <stdio.h>
#include <string.h>
#include "common/base/json.h"
#include "dispatcher/client/api.h"
#include "dispatcher/client/client.h"
#include "dispatcher/client/show.h"

static void trouble(char *out, size_t size, const json_t *provider, const json_t *key)
{
    const json_t *breaker = json_object_get(provider, "breaker"), *last = json_object_get(provider, "last_error");
    const char *why = json_text(key, "why") != NULL ? json_text(key, "why") : json_text(key, "error");

    if (why == NULL)
        why = json_text(provider, "error");
    snprintf(out, size, "%s%s%s%s", why != NULL ? why : "", why != NULL && json_is_object(breaker) ? ", " : "",
             json_is_object(breaker) ? "breaker " : "", json_is_object(breaker) ? json_text(breaker, "state") : "");
    if (out[0] == '\0' && json_is_object(last))
        snprintf(out, size, "last: %s", json_text(last, "code"));
}

static const char *yes_no(const json_t *v)
{
    return json_is_true(v) ? "yes" : json_is_false(v) ? "no" : "-";
}

static void row(struct table *t, const json_t *provider, const json_t *key, bool is_check)
{
    const json_t *from = json_object_get(key, "reachable") != NULL ? key : provider;
    const json_t *balance = json_object_get(from, "balance");
    char text[160], amount[48] = "";

    table_add(t, json_text(provider, "name"));
    table_add(t, yes_no(json_object_get(provider, "configured")));
    table_add(t, json_text(key, "fingerprint"));
    if (is_check) {
        if (json_is_number(balance))
            snprintf(amount, sizeof amount, "%.10g %s", json_number_value(balance),
                     json_text(from, "unit") != NULL ? json_text(from, "unit") : "");
        table_add(t, yes_no(json_object_get(from, "reachable")));
        table_add(t, yes_no(json_object_get(from, "accepted")));
        table_add(t, amount);
    } else {
        table_add(t, json_text(key, "state"));
    }
    trouble(text, sizeof text, provider, key);
    table_add(t, text);
}

/* Does the answer show one that cannot be reached, or a key that is refused? */
static bool is_bad(const json_t *from)
{
    return json_is_false(json_object_get(from, "reachable")) || json_is_false(json_object_get(from, "accepted"));
}

static int show(struct client *c, const char *method, const char *path, bool is_check)
{
    struct table plain = { .heads = { "PROVIDER", "CONFIGURED", "KEY", "STATE", "TROUBLE" } };
    struct table checked = { .heads = { "PROVIDER", "CONFIGURED", "KEY", "REACHABLE", "ACCEPTED", "BALANCE",
                                        "TROUBLE" } };
    struct table *t = is_check ? &checked : &plain;
    struct api_call call = { .method = method, .path = path };
    struct api_reply r = api_ask(c->api, &call);
    int status = api_refused(c->api, &r, c->is_json);
    json_t *one, *key;
    size_t i, k;

    if (status != CLIENT_DONE) {
        api_reply_done(&r);
        return status;
    }
    json_array_foreach(json_object_get(r.json, "data"), i, one)
    {
        status = is_bad(one) ? CLIENT_REFUSED : status;
        json_array_foreach(json_object_get(one, "keys"), k, key)
        {
            status = is_bad(key) ? CLIENT_REFUSED : status;
            row(t, one, key, is_check);
        }
        if (k == 0)
            row(t, one, NULL, is_check);
    }
    if (c->is_json)
        show_json(r.json);
    else
        table_print(t, stdout);
    api_reply_done(&r);
    return status;
}

int providers_show(struct client *c)
{
    return show(c, "GET", "/v1/admin/providers", false);
}

int providers_check(struct client *c)
{
    return show(c, "POST", "/v1/admin/providers/check", true);
}
