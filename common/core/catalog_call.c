/* catalog_call.c - which call a job makes: most operations have one, some have another path for some parameters, and
 * then perhaps another way of answering (stable-audio-2 answers with the sound, stable-audio-3 with an id). */
#include <string.h>

#include "common/core/catalog_parts.h"

/* The member of the call that holds for these parameters, else of the operation itself. */
static const json_t *member(const json_t *over, const json_t *base, const char *name)
{
    const json_t *own = json_object_get(over, name);

    return own != NULL ? own : json_object_get(base, name);
}

static const char *text(const json_t *over, const json_t *base, const char *name)
{
    return json_string_value(member(over, base, name));
}

struct catalog_call catalog_call(const struct operation *op, const json_t *params)
{
    const json_t *calls = json_object_get(op->doc, "calls"), *call = NULL;
    const json_t *submit, *poll, *over, *asks;

    if (op->has_one_call)
        return op->call;
    submit = json_object_get(op->doc, "submit");
    poll = json_object_get(op->doc, "poll");
    for (size_t i = 0; call == NULL && i < json_array_size(calls); i++) {
        if (catalog_matches(json_object_get(json_array_get(calls, i), "when"), params))
            call = json_array_get(calls, i);
    }
    over = json_object_get(call, "submit");
    asks = json_object_get(call, "poll");
    return (struct catalog_call){
        .method = text(over, submit, "method"),
        .path = text(over, submit, "path"),
        .body = text(over, submit, "body"),
        .accept = text(over, submit, "accept"),
        .headers = member(over, submit, "headers"),
        .constants = member(over, submit, "constants"),
        .omit = json_object_get(call, "omit"),
        .params = json_object_get(call, "params"),
        .is_async = poll != NULL && !json_is_false(asks),
        .poll_method = text(asks, poll, "method"),
        .poll_path = text(asks, poll, "path"),
        .poll_accept = text(asks, poll, "accept"),
        .poll_headers = member(asks, poll, "headers"),
    };
}

const json_t *catalog_way(const struct catalog_call *call, const struct operation *op, const char *name,
                          const char *member_name)
{
    return member(json_object_get(call->params, name), json_object_get(json_object_get(op->doc, "params"), name),
                  member_name);
}
