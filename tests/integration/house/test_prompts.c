/* test_prompts.c - templates and moderation through the whole house: what reaches the job, what is refused before money
 * moves, and what stays behind of it. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "tests/integration/house/house.h"

SUPPORT_SERVICES();

static struct reply post_job(struct house *h, const char *operation, const char *params)
{
    char body[1200];

    (void)snprintf(body, sizeof(body), "{\"operation\":\"%s\",\"params\":%s}", operation, params);
    return house_call(h, "POST", "/v1/jobs", body, NULL);
}

static void expect_refused(struct house *h, const char *operation, const char *params, const char *code,
                           const char *field, const char *message)
{
    struct reply r = post_job(h, operation, params);

    cr_expect_eq(r.status, 422, "%s: %s", params, r.text);
    cr_expect_str_eq(reply_text(&r, "code"), code, "%s", r.text);
    cr_expect_str_eq(reply_text(&r, "errors.0.field"), field, "%s", r.text);
    cr_expect_not_null(strstr(reply_text(&r, "errors.0.message"), message), "%s", r.text);
    reply_done(&r);
}

Test(prompts, a_template_becomes_the_prompt_and_its_negative_where_there_is_a_place)
{
    struct house *h = house_open(NULL);
    struct reply job;

    job = house_run(h, "stability.generate.core",
                    "{\"prompt\":{\"template\":\"interior.design\",\"vars\":{\"style\":\"北欧风\",\"room\":\"Kitchen\","
                    "\"details\":\"a {style.text} cat\"}},\"negative_prompt\":\"fog\"}",
                    60000);
    cr_expect_str_eq(reply_text(&job, "state"), "succeeded", "%s", job.text);
    cr_expect_not_null(strstr(reply_text(&job, "params.prompt"), "kitchen in Scandinavian style"), "%s", job.text);
    cr_expect_not_null(strstr(reply_text(&job, "params.prompt"), "a {style.text} cat"), "one pass: %s", job.text);
    cr_expect_eq(strncmp(reply_text(&job, "params.negative_prompt"), "fog, dark heavy furniture", 25), 0, "%s",
                 job.text);
    cr_expect_str_eq(reply_text(&job, "notes.0"), "");
    reply_done(&job);
    job = house_run(h, "openai.images.generate",
                    "{\"prompt\":{\"template\":\"interior.design\",\"vars\":{\"style\":\"japandi\",\"room\":\"书房\"}},"
                    "\"model\":\"dall-e-2\",\"size\":\"256x256\"}",
                    60000);
    cr_expect_not_null(strstr(reply_text(&job, "notes.0"), "openai.images.generate takes none"), "%s", job.text);
    reply_done(&job);
    house_close(h);
}

Test(prompts, what_a_template_does_not_know_is_refused_with_what_exists)
{
    struct house *h = house_open(&(struct house_options){ .no_worker = true });

    expect_refused(
        h, "stability.generate.core",
        "{\"prompt\":{\"template\":\"interior.design\",\"vars\":{\"style\":\"brutalist\",\"room\":\"study\"}}}",
        "invalid_request", "params.prompt.vars.style", "is none of: modern_minimalist, scandinavian, ");
    expect_refused(
        h, "stability.generate.core",
        "{\"prompt\":{\"template\":\"interior.design\",\"vars\":{\"style\":\"japandi\",\"room\":\"attic\"}}}",
        "invalid_request", "params.prompt.vars.room", "living_room, bedroom, kitchen, bathroom, study");
    expect_refused(h, "stability.generate.core", "{\"prompt\":{\"template\":\"no.such\"}}", "invalid_request",
                   "params.prompt.template", "is no template");
    expect_refused(h, "stability.generate.core", "{\"prompt\":\"x\",\"negative_prompt\":{\"template\":\"a\"}}",
                   "invalid_request", "negative_prompt", "for the prompt only");
    expect_refused(h, "stability.generate.core", "{\"prompt\":{\"template\":\"interior.design\",\"size\":1}}",
                   "invalid_request", "params.prompt.size", "is no member here");
    cr_expect_eq(support_sql_int(h->db, "select count(*) from jobs"), 0);
    house_close(h);
}

static struct reply put(struct house *h, const char *path, const char *body)
{
    return house_call(h, "PUT", path, body, NULL);
}

Test(prompts, an_app_keeps_templates_of_its_own)
{
    static const char mine[] = "{\"description\":\"Mine\",\"prompt\":\"a {what} [[job:mine]]\",\"vars\":{\"what\":"
                               "{\"type\":\"text\",\"required\":true}}}";
    struct house *h = house_open(&(struct house_options){ .no_worker = true });
    struct reply r = put(h, "/v1/templates/mine", mine);

    cr_expect_eq(r.status, 200, "%s", r.text);
    cr_expect_str_eq(reply_text(&r, "vars.required.0"), "what");
    reply_done(&r);
    r = post_job(h, "stability.generate.core", "{\"prompt\":{\"template\":\"mine\",\"vars\":{\"what\":\"kettle\"}}}");
    cr_expect_eq(r.status, 202, "known at once: %s", r.text);
    cr_expect_str_eq(reply_text(&r, "params.prompt"), "a kettle [[job:mine]]");
    reply_done(&r);
    /* what another dispatcher wrote is found by the first who asks for it */
    free(support_sql(h->db, "insert into templates (app_id, name, doc) select id, 'theirs', '{\"prompt\":\"a gate\"}' "
                            "from apps limit 1"));
    r = post_job(h, "stability.generate.core", "{\"prompt\":{\"template\":\"theirs\"}}");
    cr_expect_eq(r.status, 202, "%s", r.text);
    reply_done(&r);
    r = put(h, "/v1/templates/interior.design", "{\"prompt\":\"plain\"}");
    cr_expect_eq(r.status, 200, "%s", r.text);
    reply_done(&r);
    r = house_call(h, "GET", "/v1/templates", NULL, NULL);
    cr_expect_str_eq(reply_text(&r, "data.0.name"), "interior.design");
    cr_expect_eq(json_is_false(json_object_get(json_array_get(json_object_get(r.json, "data"), 0), "built_in")), 1,
                 "an app's own hides the catalogue's: %s", r.text);
    cr_expect_str_eq(reply_text(&r, "data.2.name"), "mine");
    cr_expect_str_eq(reply_text(&r, "data.3.name"), "theirs");
    reply_done(&r);
    r = house_call(h, "DELETE", "/v1/templates/interior.design", NULL, NULL);
    cr_expect_eq(r.status, 204, "%s", r.text);
    reply_done(&r);
    r = house_call(h, "DELETE", "/v1/templates/interior.design", NULL, NULL);
    cr_expect_eq(r.status, 404, "the catalogue's cannot be deleted: %s", r.text);
    reply_done(&r);
    r = house_call(h, "GET", "/v1/templates/interior.design", NULL, NULL);
    cr_expect_eq(
        json_array_size(json_object_get(
            json_object_get(json_object_get(json_object_get(r.json, "vars"), "properties"), "style"), "choices")),
        7, "%s", r.text);
    reply_done(&r);
    r = put(h, "/v1/templates/BAD", mine);
    cr_expect_eq(r.status, 422);
    cr_expect_str_eq(reply_text(&r, "errors.0.field"), "name");
    reply_done(&r);
    r = put(h, "/v1/templates/bad", "{\"prompt\":\"{nobody}\"}");
    cr_expect_eq(r.status, 422);
    cr_expect_str_eq(reply_text(&r, "errors.0.field"), "prompt", "%s", r.text);
    reply_done(&r);
    free(support_sql(h->db,
                     "insert into templates (app_id, name, doc) select a.id, 't' || n, '{\"prompt\":\"x\"}' from "
                     "apps a, generate_series(1, 198) n"));
    r = put(h, "/v1/templates/one_more", mine);
    cr_expect_eq(r.status, 409, "%s", r.text);
    reply_done(&r);
    house_close(h);
}

static void write_terms(const char *path, const char *text)
{
    FILE *f = fopen(path, "we");

    cr_assert_not_null(f);
    (void)fputs(text, f);
    (void)fclose(f);
}

Test(prompts, blocked_terms_refuse_before_money_moves_and_leave_a_row_without_the_prompt)
{
    struct house_options options = { .no_worker = true };
    char path[] = "/tmp/kiln-terms-XXXXXX", env[80];
    struct house *h;
    struct reply r;
    int fd = mkstemp(path);

    cr_assert_geq(fd, 0);
    (void)close(fd);
    write_terms(path, "# ours\nforbidden thing\n血腥\n");
    (void)snprintf(env, sizeof(env), "KILN_BLOCKED_TERMS=%s", path);
    options.dispatcher_env[0] = env;
    h = house_open(&options);
    expect_refused(h, "stability.generate.core", "{\"prompt\":\"a FORBIDDEN-thing, secret canary\"}",
                   "content_filtered", "params.prompt", "does not take");
    expect_refused(h, "stability.generate.core", "{\"prompt\":\"a door\",\"negative_prompt\":\"一个血腥的场面\"}",
                   "content_filtered", "params.negative_prompt", "does not take");
    expect_refused(h, "stability.generate.core",
                   "{\"prompt\":{\"template\":\"interior.design\",\"vars\":{\"style\":\"japandi\",\"room\":\"study\","
                   "\"details\":\"forbidden thing\"}}}",
                   "content_filtered", "params.prompt", "does not take");
    cr_expect_eq(support_sql_int(h->db, "select count(*) from moderation_refusals where source = 'terms' and reason in "
                                        "('forbidden thing', '血腥') and account = 'default'"),
                 3);
    cr_expect_eq(support_sql_int(h->db, "select count(*) from moderation_refusals m where m::text like '%canary%'"), 0);
    cr_expect_eq(support_sql_int(h->db, "select count(*) from jobs"), 0);
    cr_expect_float_eq(house_held(h, "default"), 0, 1e-9);
    r = post_job(h, "stability.generate.core", "{\"prompt\":\"an unforbidden thing\"}");
    cr_expect_eq(r.status, 202, "whole words only: %s", r.text);
    reply_done(&r);
    write_terms(path, "unforbidden\n");
    (void)kill(h->dispatcher, SIGHUP);
    for (int i = 0; i < 100; i++) { /* until it has read them */
        r = post_job(h, "stability.generate.core", "{\"prompt\":\"an unforbidden thing\"}");
        if (r.status == 422)
            break;
        reply_done(&r);
        r = (struct reply){ 0 };
    }
    cr_expect_eq(r.status, 422, "read again on SIGHUP");
    reply_done(&r);
    write_terms(path, "\xff\n");
    (void)kill(h->dispatcher, SIGHUP);
    expect_refused(h, "stability.generate.core", "{\"prompt\":\"unforbidden\"}", "content_filtered", "params.prompt",
                   "does not take"); /* what cannot be read changes nothing */
    (void)unlink(path);
    house_close(h);
}

Test(prompts, a_moderation_service_is_asked_before_a_job_is_queued)
{
    struct house *h =
        house_open(&(struct house_options){ .no_worker = true, .dispatcher_env = { "KILN_MODERATION=openai" } });
    struct reply r;

    expect_refused(h, "stability.generate.core", "{\"prompt\":\"kiln-flag-violence\"}", "content_filtered", "params",
                   "violence");
    cr_expect_eq(support_sql_int(h->db, "select count(*) from moderation_refusals where source = 'openai' and reason = "
                                        "'violence'"),
                 1);
    r = post_job(h, "stability.generate.core", "{\"prompt\":\"kiln-moderation-down\"}");
    cr_expect_eq(r.status, 503, "nothing passes unseen: %s", r.text);
    cr_expect_not_null(strstr(r.headers, "Retry-After"));
    reply_done(&r);
    cr_expect_eq(support_sql_int(h->db, "select count(*) from jobs"), 0);
    r = post_job(h, "stability.generate.core", "{\"prompt\":\"a quiet lake\"}");
    cr_expect_eq(r.status, 202, "%s", r.text);
    reply_done(&r);
    house_close(h);
}
