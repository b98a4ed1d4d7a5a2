/* test_routes.c - the table of routes against the contract: every one has its class, openapi.json lists exactly them.
 */
#include "tests/integration/dispatcher/front.h"
#include <stdio.h>
#include <string.h>
#include "common/base/text.h"
#include "dispatcher/routes.h"

SUPPORT_SERVICES();

static void fill(char *out, size_t size, const char *pattern)
{
    size_t n = 0;

    for (const char *p = pattern; *p != '\0' && n + 40 < size; p++) {
        if (*p == '{') {
            n += (size_t)snprintf(out + n, size - n, "01a1fb42-f5ec-7001-bb2e-6cbfb859717b");
            p += strcspn(p, "}");
        } else {
            out[n++] = *p;
        }
    }
    out[n] = '\0';
}

Test(routes, every_one_has_an_auth_class_and_refuses_strangers)
{
    struct front f;

    front_open(&f, NULL);
    for (size_t i = 0; i < routes_count; i++) {
        char path[200];
        struct reply r;
        bool is_open = routes[i].auth == ROUTE_OPEN;

        cr_expect_neq(routes[i].auth, ROUTE_AUTH_NONE_SET, "%s", routes[i].pattern);
        cr_expect_eq(is_open, routes[i].scopes == 0, "%s", routes[i].pattern);
        fill(path, sizeof(path), routes[i].pattern);
        r = front_ask(&f, &(struct request_spec){ .method = routes[i].method, .path = path, .key = "" });
        if (is_open)
            cr_expect_eq(r.status, 200, "%s: %ld", path, r.status);
        else
            cr_expect_eq(r.status, 401, "%s: %ld", path, r.status);
        if (!is_open)
            cr_expect_str_eq(reply_header(&r, "Cache-Control"), "private, no-store", "%s", path);
        reply_done(&r);
    }
    front_close(&f);
}

Test(routes, openapi_lists_exactly_what_exists)
{
    struct front f;
    struct reply r;
    size_t listed = 0;
    const char *path, *method;
    json_t *item, *op;

    front_open(&f, NULL);
    r = front_ask(&f, &(struct request_spec){ .method = "GET", .path = "/openapi.json", .key = "" });
    cr_assert_eq(r.status, 200);
    cr_assert_not_null(r.json);
    json_object_foreach(json_object_get(r.json, "paths"), path, item)
    {
        json_object_foreach(item, method, op)
        {
            bool found = false;

            for (size_t i = 0; i < routes_count; i++) {
                char lower[8] = "";

                for (size_t k = 0; k < 7 && routes[i].method[k] != '\0'; k++)
                    lower[k] = (char)(routes[i].method[k] + ('a' - 'A'));
                found = found || (strcmp(routes[i].pattern, path) == 0 && strcmp(lower, method) == 0);
            }
            cr_expect(found, "%s %s is in openapi.json only", method, path);
            listed++;
        }
    }
    cr_expect_eq(listed, routes_count, "%zu listed, %zu exist", listed, routes_count);
    reply_done(&r);
    front_close(&f);
}

Test(operations, the_catalogue_is_shown_with_what_is_configured)
{
    struct front f;
    struct reply r;

    front_open(&f, NULL);
    r = front_get(&f, "/v1/operations");
    cr_expect_eq(r.status, 200);
    cr_expect_gt(json_array_size(json_object_get(r.json, "data")), 3);
    reply_done(&r);
    r = front_get(&f, "/v1/operations/openai.images.generate");
    cr_expect_eq(r.status, 200);
    cr_expect(json_is_true(json_object_get(r.json, "configured")));
    reply_done(&r);
    r = front_get(&f, "/v1/operations/leonardo.generate");
    cr_expect(json_is_false(json_object_get(r.json, "configured")));
    reply_done(&r);
    r = front_get(&f, "/v1/operations/none");
    cr_expect_eq(r.status, 404);
    reply_done(&r);
    front_close(&f);
}

Test(routes, a_query_parameter_that_does_not_exist_is_refused_by_name)
{
    static const char *const wrong[][2] = {
        { "/v1/jobs?stat=failed", "stat" },
        { "/v1/jobs?state=failed&Limit=3", "Limit" },
        { "/v1/accounts/default/ledger?offset=3", "offset" },
        { "/v1/operations?x", "x" },
        { "/v1/operations?%00=1", "%00" },
    };
    struct front f;

    front_open(&f, NULL);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct reply r = front_ask(&f, &(struct request_spec){ .method = "GET", .path = wrong[i][0] });

        cr_expect_eq(r.status, 422, "%s: %ld", wrong[i][0], r.status);
        cr_expect_str_eq(
            json_string_value(json_object_get(json_array_get(json_object_get(r.json, "errors"), 0), "field")),
            wrong[i][1]);
        reply_done(&r);
    }
    front_close(&f);
}
