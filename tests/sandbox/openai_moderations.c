/* openai_moderations.c - POST /moderations as OpenAI's public reference describes it: free, one result for each text,
 * `flagged` and its `categories`. A text with "kiln-flag-violence" is flagged; one with "kiln-moderation-down" is
 * answered with 503. */
#include "sandbox.h"

#include <string.h>

static json_t *one_result(const char *text)
{
    bool violent = strstr(text, "kiln-flag-violence") != NULL;

    return json_pack("{s:b, s:{s:b, s:b, s:b}, s:{s:f, s:f, s:f}}", "flagged", violent, "categories", "violence",
                     violent, "sexual", 0, "self-harm", 0, "category_scores", "violence", violent ? 0.98 : 0.001,
                     "sexual", 0.001, "self-harm", 0.001);
}

void openai_on_moderation(struct exchange *ex)
{
    char key[128];
    json_t *body = json_loadb(ex->body.data == NULL ? "" : ex->body.data, ex->body.len, 0, NULL),
           *results = json_array();
    json_t *input = json_object_get(body, "input"),
           *list = json_is_array(input) ? json_incref(input) : json_pack("[O]", input);
    bool is_down = false, is_good = body != NULL && input != NULL;

    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *text = json_string_value(json_array_get(list, i));

        is_good = is_good && text != NULL;
        is_down = is_down || (text != NULL && strstr(text, "kiln-moderation-down") != NULL);
        (void)json_array_append_new(results, one_result(text != NULL ? text : ""));
    }
    if (desk_key(ex, "openai", key, sizeof key) != KEY_GOOD)
        exchange_send_json(ex, 401,
                           json_pack("{s:{s:s,s:s,s:n,s:s}}", "error", "message", "Incorrect API key provided.", "type",
                                     "invalid_request_error", "param", "code", "invalid_api_key"));
    else if (is_down)
        exchange_send_json(ex, 503,
                           json_pack("{s:{s:s,s:s,s:n,s:n}}", "error", "message", "The engine is overloaded.", "type",
                                     "server_error", "param", "code"));
    else if (!is_good)
        exchange_send_json(ex, 400,
                           json_pack("{s:{s:s,s:s,s:s,s:n}}", "error", "message", "Invalid input.", "type",
                                     "invalid_request_error", "param", "input", "code"));
    else
        exchange_send_json(
            ex, 200,
            json_pack("{s:s, s:s, s:O}", "id", "modr-sandbox", "model", "omni-moderation-latest", "results", results));
    json_decref(results);
    json_decref(list);
    json_decref(body);
}
