/* test_routes.c - one vocabulary over several providers: who is asked, in which order, what is charged, and who is left
 * in peace for a while. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/integration/house/house.h"

SUPPORT_SERVICES();

/* These tests are about three providers; those that came later stay away. */
#define THREE .dispatcher_env = { "REPLICATE_API_TOKEN=", NULL }

enum { LIMIT_MS = 60000 };

static struct reply post(struct house *h, const char *members)
{
    char body[1200];

    (void)snprintf(body, sizeof(body), "{\"operation\":\"image.generate\",%s}", members);
    return house_call(h, "POST", "/v1/jobs", body, NULL);
}

static struct reply run(struct house *h, const char *members)
{
    struct reply r = post(h, members);
    char id[40];

    cr_assert_eq(r.status, 202, "%s: %s", members, r.text);
    (void)snprintf(id, sizeof(id), "%s", reply_text(&r, "id"));
    reply_done(&r);
    return house_wait(h, id, LIMIT_MS);
}

static struct reply attempts_of(struct house *h, const struct reply *job)
{
    char path[120];

    (void)snprintf(path, sizeof(path), "/v1/jobs/%s?expand=attempts", reply_text(job, "id"));
    return house_call(h, "GET", path, NULL, NULL);
}

Test(routes, the_cheapest_that_can_is_asked_and_the_dearest_is_held)
{
    struct house *h = house_open(&(struct house_options){ .no_worker = true, THREE });
    struct reply r = post(h, "\"params\":{\"prompt\":\"a teal kettle\",\"aspect_ratio\":\"1:1\"}");

    cr_expect_eq(r.status, 202, "%s", r.text);
    cr_expect_str_eq(reply_text(&r, "provider"), "leonardo", "%s", r.text);
    cr_expect_str_eq(reply_text(&r, "operation"), "image.generate");
    cr_expect_str_eq(reply_text(&r, "params.aspect_ratio"), "1:1", "the vocabulary's own");
    cr_expect_float_eq(reply_number(&r, "credits.held"), 3.9, 1e-9, "Google would be the dearest: %s", r.text);
    reply_done(&r);
    r = post(h, "\"params\":{\"prompt\":\"a teal kettle\",\"aspect_ratio\":\"9:21\"}");
    cr_expect_float_eq(reply_number(&r, "credits.held"), 3, 1e-9, "OpenAI and Google have no 9:21: %s", r.text);
    reply_done(&r);
    r = post(h, "\"providers\":[\"openai\",\"stability\"],\"params\":{\"prompt\":\"x\",\"seed\":7}");
    cr_expect_str_eq(reply_text(&r, "provider"), "openai", "%s", r.text);
    cr_expect_not_null(strstr(reply_text(&r, "notes.0"), "seed: openai.images.generate takes none"), "%s", r.text);
    reply_done(&r);
    r = post(h, "\"provider\":\"stability\",\"params\":{\"prompt\":\"x\"}");
    cr_expect_str_eq(reply_text(&r, "provider"), "stability");
    cr_expect_float_eq(reply_number(&r, "credits.held"), 3, 1e-9);
    reply_done(&r);
    r = post(h, "\"provider\":\"stability\",\"params\":{\"prompt\":\"x\",\"n\":2}");
    cr_expect_eq(r.status, 422, "%s", r.text);
    cr_expect_not_null(strstr(reply_text(&r, "errors.0.message"), "stability.generate.core cannot serve this"), "%s",
                       r.text);
    reply_done(&r);
    r = post(h, "\"provider\":\"nobody\",\"params\":{\"prompt\":\"x\"}");
    cr_expect_eq(r.status, 422, "%s", r.text);
    reply_done(&r);
    r = house_call(h, "POST", "/v1/jobs",
                   "{\"operation\":\"leonardo.generate\",\"provider\":\"leonardo\",\"params\":{\"prompt\":\"x\"}}",
                   NULL);
    cr_expect_eq(r.status, 422, "%s", r.text);
    cr_expect_str_eq(reply_text(&r, "errors.0.field"), "provider");
    reply_done(&r);
    r = house_call(h, "POST", "/v1/estimate",
                   "{\"operation\":\"image.generate\",\"params\":{\"prompt\":\"x\",\"n\":2}}", NULL);
    cr_expect_float_eq(reply_number(&r, "credits"), 6.8, 1e-9, "%s", r.text);
    cr_expect_str_eq(reply_text(&r, "providers.1"), "openai", "%s", r.text);
    reply_done(&r);
    r = house_call(h, "GET", "/v1/operations/image.generate", NULL, NULL);
    cr_expect_str_eq(reply_text(&r, "object"), "route");
    cr_expect_str_eq(reply_text(&r, "legs.0.provider"), "leonardo");
    reply_done(&r);
    house_close(h);
}

/* The first is blocked in this region, the second is out of funds, the third answers: one charge, at the third's price,
 * three attempts; the next job goes to the third at once. */
Test(routes, moves_on_past_a_blocked_and_an_empty_provider_and_remembers)
{
    struct house *h = house_open(&(struct house_options){ THREE });
    double before = house_balance(h, "default");
    struct reply job, all;

    house_fault(h, "{\"match\":{\"prompt_contains\":\"moveon\",\"provider\":\"leonardo\"},\"fault\":{\"status\":451}}");
    house_fault(h,
                "{\"match\":{\"prompt_contains\":\"moveon\",\"provider\":\"stability\"},\"fault\":{\"status\":402}}");
    job = run(h, "\"params\":{\"prompt\":\"moveon [[job:moveon]]\"}");
    cr_assert_str_eq(reply_text(&job, "state"), "succeeded", "%s", job.text);
    cr_expect_str_eq(reply_text(&job, "provider"), "openai");
    cr_expect_float_eq(reply_number(&job, "credits.charged"), 3.4, 1e-9, "%s", job.text);
    cr_expect_float_eq(house_balance(h, "default"), before - 3.4, 1e-6);
    all = attempts_of(h, &job);
    cr_expect_str_eq(reply_text(&all, "attempts.0.provider"), "leonardo", "%s", all.text);
    cr_expect_str_eq(reply_text(&all, "attempts.0.error_code"), "region_blocked", "%s", all.text);
    cr_expect_str_eq(reply_text(&all, "attempts.1.provider"), "stability");
    cr_expect_str_eq(reply_text(&all, "attempts.1.error_code"), "insufficient_funds", "%s", all.text);
    cr_expect_str_eq(reply_text(&all, "attempts.2.provider"), "openai");
    cr_expect_str_eq(reply_text(&all, "attempts.2.class"), "answered");
    cr_expect_float_eq(reply_number(&all, "attempts.0.cost_usd"), 0, 1e-9, "%s", all.text);
    cr_expect_gt(reply_number(&all, "attempts.2.cost_usd"), 0, "%s", all.text);
    cr_expect_eq(house_counter(h, "moveon", "paid"), 1);
    reply_done(&all);
    reply_done(&job);
    job = run(h, "\"params\":{\"prompt\":\"and the next\"}");
    cr_expect_str_eq(reply_text(&job, "provider"), "openai", "%s", job.text);
    cr_expect_eq(reply_int(&job, "attempts"), 1, "at once: %s", job.text);
    reply_done(&job);
    /* when the time is over one job is the probe; what it brings closes the breaker */
    free(support_sql(h->db, "update breakers set until = kiln_now() - interval '1 s'"));
    job = run(h, "\"params\":{\"prompt\":\"the probe\"}");
    cr_expect_str_eq(reply_text(&job, "provider"), "leonardo", "%s", job.text);
    cr_expect_float_eq(reply_number(&job, "credits.charged"), 0.2, 1e-9, "less than was held: %s", job.text);
    reply_done(&job);
    cr_expect_eq(support_sql_int(h->db, "select count(*) from breakers where provider = 'leonardo'"), 0);
    house_close(h);
}

Test(routes, asks_a_model_of_replicates_under_its_own_names)
{
    struct house *h = house_open(&(struct house_options){ .sandbox_config = "{\"image_size_cap\":96}" });
    struct reply job = run(
        h, "\"provider\":\"replicate\",\"params\":{\"prompt\":\"a kite [[job:kite]]\",\"n\":2,\"aspect_ratio\":\"3:2\","
           "\"output_format\":\"jpeg\",\"negative_prompt\":\"rain\"}");

    cr_expect_str_eq(reply_text(&job, "state"), "succeeded", "%s", job.text);
    cr_expect_str_eq(reply_text(&job, "artifacts.1.mime"), "image/jpeg", "%s", job.text);
    cr_expect_float_eq(reply_number(&job, "credits.charged"), 0.4, 1e-9, "%s", job.text);
    cr_expect_not_null(strstr(reply_text(&job, "notes.0"), "negative_prompt"), "%s", job.text);
    cr_expect_eq(house_counter(h, "kite", "paid"), 1);
    reply_done(&job);
    house_close(h);
}

Test(routes, what_no_other_provider_could_cure_stays)
{
    struct house *h = house_open(NULL);
    struct reply job;

    house_fault(
        h, "{\"match\":{\"prompt_contains\":\"cutoff\",\"provider\":\"leonardo\"},\"fault\":{\"drop_after\":true}}");
    job = run(h, "\"provider\":\"leonardo\",\"params\":{\"prompt\":\"cutoff [[job:cutoff]]\"}");
    cr_expect_str_eq(reply_text(&job, "provider"), "leonardo", "sent and unknown never moves on: %s", job.text);
    reply_done(&job);
    house_fault(
        h, "{\"match\":{\"prompt_contains\":\"badwords\",\"provider\":\"leonardo\"},\"fault\":{\"moderated\":true}}");
    job = run(h, "\"params\":{\"prompt\":\"badwords [[job:badwords]]\"}");
    cr_expect_str_eq(reply_text(&job, "state"), "failed", "%s", job.text);
    cr_expect_str_eq(reply_text(&job, "error.code"), "content_filtered", "%s", job.text);
    cr_expect_eq(reply_int(&job, "attempts"), 1, "%s", job.text);
    reply_done(&job);
    house_close(h);
}

Test(routes, the_last_failure_is_the_jobs_and_all_is_released)
{
    struct house *h = house_open(&(struct house_options){ THREE });
    double before = house_balance(h, "default");
    static const char *const operator[] = { "Authorization: Bearer kiln_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
                                            "Content-Type: application/json", NULL };
    char path[80], id[40], url[160];
    struct reply job, r;

    house_fault(
        h,
        "{\"match\":{\"prompt_contains\":\"nobody\",\"provider\":\"leonardo\"},\"fault\":{\"status\":451},\"times\":1}");
    house_fault(
        h,
        "{\"match\":{\"prompt_contains\":\"nobody\",\"provider\":\"stability\"},\"fault\":{\"status\":402},\"times\":1}");
    house_fault(
        h,
        "{\"match\":{\"prompt_contains\":\"nobody\",\"provider\":\"openai\"},\"fault\":{\"status\":401},\"times\":1}");
    house_fault(
        h,
        "{\"match\":{\"prompt_contains\":\"nobody\",\"provider\":\"google\"},\"fault\":{\"status\":403},\"times\":1}");
    job = run(h, "\"params\":{\"prompt\":\"nobody [[job:nobody]]\"}");
    cr_expect_str_eq(reply_text(&job, "state"), "failed", "%s", job.text);
    cr_expect_str_eq(reply_text(&job, "error.code"), "auth", "%s", job.text);
    cr_expect_eq(reply_int(&job, "attempts"), 4);
    cr_expect_float_eq(house_balance(h, "default"), before, 1e-9);
    cr_expect_float_eq(house_held(h, "default"), 0, 1e-9);
    cr_expect_eq(house_counter(h, "nobody", "paid"), 0);
    /* an operator's retry is planned anew */
    (void)snprintf(path, sizeof(path), "/v1/admin/jobs/%s/retry", reply_text(&job, "id"));
    reply_done(&job);
    free(support_sql(h->db, "delete from breakers"));
    free(support_sql(h->db,
                     "insert into api_keys (id, app_id, hash, prefix, scopes) select gen_random_uuid(), id, "
                     "sha256(('kiln_' || repeat('A', 43))::bytea), 'kiln_AAAAAAA', '{admin}' from apps limit 1"));
    (void)snprintf(url, sizeof(url), "%s%s", h->base, path);
    r = house_url("POST", url, "{}", operator);
    cr_assert_eq(r.status, 202, "%s", r.text);
    (void)snprintf(id, sizeof(id), "%s", reply_text(&r, "id"));
    reply_done(&r);
    job = house_wait(h, id, LIMIT_MS);
    cr_expect_str_eq(reply_text(&job, "state"), "succeeded", "%s", job.text);
    cr_expect_str_eq(reply_text(&job, "provider"), "leonardo", "%s", job.text);
    cr_expect_float_eq(reply_number(&job, "credits.charged"), 0.2, 1e-9, "%s", job.text);
    reply_done(&job);
    house_close(h);
}

Test(routes, an_image_goes_under_the_name_that_the_provider_has_for_it)
{
    struct house *h = house_open(NULL);
    char *upload = house_upload(h, 128, 128), members[300];
    struct reply job;

    (void)snprintf(members, sizeof(members), "\"params\":{\"prompt\":\"warmer light\",\"image\":\"%s\"}", upload);
    job = run(h, members);
    cr_expect_str_eq(reply_text(&job, "state"), "succeeded", "%s", job.text);
    cr_expect_str_eq(reply_text(&job, "provider"), "stability");
    cr_expect_float_eq(reply_number(&job, "credits.charged"), 8, 1e-9, "ultra: %s", job.text);
    reply_done(&job);
    free(upload);
    house_close(h);
}

Test(routes, each_delivers_what_it_promises)
{
    static const struct {
        const char *route, *params, *kind; /* %s is an upload's id */
    } jobs[] = {
        { "image.upscale", "{\"image\":\"%s\"}", "image" },
        { "image.remove_background", "{\"image\":\"%s\"}", "image" },
        { "image.edit", "{\"image\":\"%s\",\"mask\":\"%s\",\"prompt\":\"a door\"}", "image" },
        { "audio.generate", "{\"prompt\":\"rain on a tin roof\",\"duration\":2}", "audio" },
        { "3d.generate", "{\"image\":\"%s\"}", "model" },
    };
    struct house *h = house_open(NULL);
    char *upload = house_upload(h, 128, 128), params[300];

    for (size_t i = 0; i < sizeof(jobs) / sizeof(jobs[0]); i++) {
        struct reply job;

        (void)snprintf(params, sizeof(params), jobs[i].params, upload, upload);
        job = house_run(h, jobs[i].route, params, LIMIT_MS);
        cr_expect_str_eq(reply_text(&job, "state"), "succeeded", "%s: %s", jobs[i].route, job.text);
        cr_expect_str_eq(reply_text(&job, "artifacts.0.kind"), jobs[i].kind, "%s: %s", jobs[i].route, job.text);
        cr_expect_str_eq(reply_text(&job, "operation"), jobs[i].route);
        reply_done(&job);
    }
    free(upload);
    house_close(h);
}

/* Redis has forgotten everything: the legs are PostgreSQL's. */
Test(routes, a_routed_job_survives_flushall_and_a_stale_lane)
{
    struct house *h = house_open(&(struct house_options){ .no_worker = true });
    struct reply r = post(h, "\"params\":{\"prompt\":\"kept\"}"), job;
    char id[40], sql[200];

    (void)snprintf(id, sizeof(id), "%s", reply_text(&r, "id"));
    reply_done(&r);
    /* PostgreSQL moved it on, Redis did not hear of it */
    (void)snprintf(sql, sizeof(sql), "update jobs set provider = 'stability' where id = '%s'", id);
    free(support_sql(h->db, sql));
    (void)house_worker_start(h, NULL);
    job = house_wait(h, id, LIMIT_MS);
    cr_expect_str_eq(reply_text(&job, "state"), "succeeded", "%s", job.text);
    cr_expect_str_eq(reply_text(&job, "provider"), "stability", "%s", job.text);
    cr_expect_float_eq(reply_number(&job, "credits.charged"), 3, 1e-9, "%s", job.text);
    reply_done(&job);
    house_close(h);
}
