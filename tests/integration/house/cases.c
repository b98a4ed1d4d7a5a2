/* cases.c - see cases.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "tests/integration/house/cases.h"

int64_t cases_now_ms(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void cases_pause_ms(int ms)
{
    struct timespec t = { ms / 1000, (long)(ms % 1000) * 1000000 };

    (void)nanosleep(&t, NULL);
}

static const char *default_extra(const char *operation)
{
    if (!strcmp(operation, GPT))
        return ",\"quality\":\"low\"";
    if (!strcmp(operation, LEO))
        return ",\"width\":256,\"height\":256,\"alchemy\":false";
    return "";
}

void cases_submit(const struct house *h, const struct want *want, const char *upload, char id[40])
{
    char params[4096], image[80] = "", fault[200] = "";

    if (upload && !strcmp(want->operation, CREATIVE))
        (void)snprintf(image, sizeof(image), ",\"image\":\"%s\"", upload);
    if (want->fault)
        (void)snprintf(fault, sizeof(fault), "[[fault:%s]]", want->fault);
    (void)snprintf(params, sizeof(params), "{\"prompt\":\"a pear on slate, %s [[job:%s]]%s\"%s%s}", want->tag,
                   want->tag, fault, image, want->extra ? want->extra : default_extra(want->operation));
    house_submit(h, id, want->operation, params);
}

static void expect_count(const struct house *h, const struct want *want, const char *name, int count)
{
    int64_t seen;

    if (count == NOT_ASKED)
        return;
    seen = house_counter(h, want->tag, name);
    cr_expect_eq(seen, count, "%s: %s %lld, not %d", want->tag, name, (long long)seen, count);
}

static void expect_error(const struct want *want, const struct reply *job)
{
    cr_expect_str_eq(reply_text(job, "state"), "failed", "%s: %s", want->tag, job->text);
    cr_expect_str_eq(reply_text(job, "error.code"), want->code, "%s: %s", want->tag, job->text);
    cr_expect_eq(json_is_true(json_object_get(json_object_get(job->json, "error"), "retryable")), want->retryable,
                 "%s: retryable: %s", want->tag, job->text);
    cr_expect_neq(reply_text(job, "error.message")[0], '\0', "%s has a message: %s", want->tag, job->text);
    if (want->message)
        cr_expect_not_null(strstr(reply_text(job, "error.message"), want->message), "%s: no \"%s\" in: %s", want->tag,
                           want->message, job->text);
    cr_expect_null(strstr(reply_text(job, "error.message"), "http://"), "%s: no URLs to customers: %s", want->tag,
                   job->text);
    if (want->status)
        cr_expect_eq(reply_int(job, "error.provider_status"), want->status, "%s: %s", want->tag, job->text);
    cr_expect_str_eq(reply_text(job, "artifacts.0.id"), "", "%s delivered nothing: %s", want->tag, job->text);
}

void cases_expect(const struct house *h, const struct want *want, const char *id, int limit_ms)
{
    struct reply job = house_wait(h, id, limit_ms);

    if (want->code) {
        expect_error(want, &job);
    } else {
        cr_expect_str_eq(reply_text(&job, "state"), "succeeded", "%s: %s", want->tag, job.text);
        cr_expect_neq(reply_text(&job, "artifacts.0.id")[0], '\0', "%s delivered: %s", want->tag, job.text);
    }
    cr_expect_float_eq(reply_number(&job, "credits.charged"), want->charged, 1e-9, "%s: %s", want->tag, job.text);
    cr_expect_float_eq(reply_number(&job, "credits.held"), 0, 1e-9, "%s: %s", want->tag, job.text);
    if (want->attempts != NOT_ASKED)
        cr_expect_eq(reply_int(&job, "attempts"), want->attempts, "%s: %s", want->tag, job.text);
    expect_count(h, want, "requests", want->requests);
    expect_count(h, want, "paid", want->paid);
    reply_done(&job);
}

void cases_run(struct house *h, const struct want *wants, size_t count, int limit_ms)
{
    char(*ids)[40] = calloc(count, sizeof(*ids)), *upload = NULL;
    double before = house_balance(h, "default"), charged = 0;
    int64_t until = cases_now_ms() + limit_ms;

    for (size_t i = 0; i < count; i++) {
        if (!upload && !strcmp(wants[i].operation, CREATIVE) &&
            !(wants[i].extra && strstr(wants[i].extra, "\"image\"")))
            upload = house_upload(h, 128, 128);
        cases_submit(h, &wants[i], wants[i].extra && strstr(wants[i].extra, "\"image\"") ? NULL : upload, ids[i]);
        charged += wants[i].charged;
    }
    for (size_t i = 0; i < count; i++) {
        int64_t left = until - cases_now_ms();

        cases_expect(h, &wants[i], ids[i], left > 1000 ? (int)left : 1000);
    }
    cr_expect_float_eq(house_held(h, "default"), 0, 1e-9, "nothing is held: %f", house_held(h, "default"));
    cr_expect_float_eq(house_balance(h, "default"), before - charged, 1e-6, "%f, not %f less than %f",
                       house_balance(h, "default"), charged, before);
    free(upload);
    free(ids);
}

static json_t *sandbox_requests(const struct house *h, const char *tag, struct reply *r)
{
    char url[192];

    (void)snprintf(url, sizeof(url), "%s/_sandbox/requests%s%s", h->sandbox, tag ? "?tag=" : "", tag ? tag : "");
    *r = house_url("GET", url, NULL, NULL);
    return json_object_get(r->json, "requests");
}

int64_t cases_at_ms(const struct house *h, const char *tag, const char *phase, int nth)
{
    struct reply r;
    const json_t *list = sandbox_requests(h, tag, &r), *one;
    int64_t at = -1;
    size_t i;

    json_array_foreach(list, i, one)
    {
        const char *is = json_string_value(json_object_get(one, "phase"));

        if (is && !strcmp(is, phase) && nth-- == 0)
            at = (int64_t)json_integer_value(json_object_get(one, "at_ms"));
    }
    reply_done(&r);
    return at;
}

int cases_count(const struct house *h, const char *tag, const char *phase)
{
    struct reply r;
    const json_t *list = sandbox_requests(h, tag, &r), *one;
    int n = 0;
    size_t i;

    json_array_foreach(list, i, one)
    {
        const char *is = json_string_value(json_object_get(one, "phase"));

        n += is && !strcmp(is, phase);
    }
    reply_done(&r);
    return n;
}
