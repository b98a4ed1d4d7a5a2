/* test_providers.c - how providers stand: what an operator is told of keys, breakers and errors, and what a check
 * finds. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/integration/house/house.h"

SUPPORT_SERVICES();

static const char *const operator[] = { "Authorization: Bearer kiln_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
                                        NULL };

static void make_operator(const struct house *h)
{
    free(support_sql(h->db,
                     "insert into api_keys (id, app_id, hash, prefix, scopes) select gen_random_uuid(), id, "
                     "sha256(('kiln_' || repeat('A', 43))::bytea), 'kiln_AAAAAAA', '{admin}' from apps limit 1"));
}

static struct reply ask(const struct house *h, const char *method, const char *path)
{
    char url[160];

    (void)snprintf(url, sizeof(url), "%s%s", h->base, path);
    return house_url(method, url, NULL, operator);
}

/* The provider's entry of a list; borrowed. */
static const json_t *entry(const struct reply *r, const char *name)
{
    const json_t *data = json_object_get(r->json, "data");

    for (size_t i = 0; i < json_array_size(data); i++) {
        if (!strcmp(json_string_value(json_object_get(json_array_get(data, i), "name")), name))
            return json_array_get(data, i);
    }
    cr_assert_fail("%s is not in the list: %s", name, r->text);
    return NULL;
}

static const json_t *key_of(const struct reply *r, const char *name, size_t i)
{
    return json_array_get(json_object_get(entry(r, name), "keys"), i);
}

Test(providers, a_check_tells_which_keys_are_good_what_is_left_and_who_is_away_and_shows_no_key)
{
    struct house *h = house_open(&(struct house_options){
        .no_worker = true, .dispatcher_env = { "STABILITY_API_KEY=canary-good-one,bad-canary-two" } });
    struct reply r;
    char *log;

    make_operator(h);
    r = ask(h, "POST", "/v1/admin/providers/check");
    cr_assert_eq(r.status, 200, "%s", r.text);
    cr_expect(json_is_true(json_object_get(key_of(&r, "stability", 0), "accepted")), "%s", r.text);
    cr_expect(json_is_false(json_object_get(key_of(&r, "stability", 1), "accepted")), "%s", r.text);
    cr_expect_float_eq(json_number_value(json_object_get(key_of(&r, "stability", 0), "balance")), 10000, 1e-9, "%s",
                       r.text);
    cr_expect_str_eq(json_string_value(json_object_get(key_of(&r, "stability", 0), "unit")), "credits");
    cr_expect_str_eq(json_string_value(json_object_get(key_of(&r, "stability", 1), "error")), "auth");
    cr_expect(json_is_true(json_object_get(entry(&r, "openai"), "reachable")), "%s", r.text);
    cr_expect_null(json_object_get(entry(&r, "openai"), "accepted"), "its page names no free request");
    cr_expect_null(strstr(r.text, "canary"), "%s", r.text);
    reply_done(&r);
    house_kill(&h->sandbox_pid, SIGKILL);
    r = ask(h, "POST", "/v1/admin/providers/check");
    cr_expect(json_is_false(json_object_get(key_of(&r, "stability", 0), "reachable")), "%s", r.text);
    cr_expect(json_is_false(json_object_get(entry(&r, "openai"), "reachable")), "%s", r.text);
    reply_done(&r);
    log = house_log(h, "dispatcher");
    cr_expect_null(strstr(log, "canary"), "no key in the log");
    free(log);
    house_close(h);
}

Test(providers, the_list_tells_the_breaker_and_the_last_error_without_asking_anybody)
{
    struct house *h = house_open(NULL);
    int64_t requests;
    struct reply r, job;

    make_operator(h);
    house_fault(h, "{\"match\":{\"provider\":\"stability\"},\"fault\":{\"status\":402}}");
    job = house_run(h, "stability.generate.core", "{\"prompt\":\"a well\"}", 60000);
    cr_expect_str_eq(reply_text(&job, "error.code"), "insufficient_funds", "%s", job.text);
    requests = house_counter(h, NULL, "requests");
    r = ask(h, "GET", "/v1/admin/providers");
    cr_assert_eq(r.status, 200, "%s", r.text);
    cr_expect_str_eq(json_string_value(json_object_get(json_object_get(entry(&r, "stability"), "breaker"), "code")),
                     "insufficient_funds", "%s", r.text);
    cr_expect_str_eq(json_string_value(json_object_get(json_object_get(entry(&r, "stability"), "last_error"), "job")),
                     reply_text(&job, "id"));
    cr_expect(json_is_null(json_object_get(entry(&r, "openai"), "last_error")), "%s", r.text);
    cr_expect_str_eq(json_string_value(json_object_get(key_of(&r, "openai", 0), "state")), "good", "%s", r.text);
    cr_expect_eq(house_counter(h, NULL, "requests"), requests);
    reply_done(&r);
    free(support_sql(h->db, "update api_keys set scopes = '{jobs,credits}' where prefix = 'kiln_AAAAAAA'"));
    house_kill(&h->dispatcher, SIGKILL); /* it remembers keys for a while */
    house_dispatcher_start(h, NULL);
    r = ask(h, "GET", "/v1/admin/providers");
    cr_expect_eq(r.status, 403, "a customer's key: %s", r.text);
    reply_done(&r);
    reply_done(&job);
    house_close(h);
}
