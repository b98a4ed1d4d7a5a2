/* test_cuts.c - the provider's connection dies at every phase of a submit: before the request is read, after its
 * headers, after its body, before the answer, and in the middle of the answer at twenty places. What may be paid is the
 * same everywhere: once where `on_unknown` is `fail`, twice where it is `retry` (none of these can be asked whether
 * a request arrived: docs/providers.md), and never for the customer. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/integration/house/cases.h"

SUPPORT_SERVICES();

enum { LIMIT_MS = 90000, STATUS_LINE = 17, OFFSETS = 20, CASES_MAX = 80 };

#define SMALL      ",\"model\":\"dall-e-2\",\"size\":\"256x256\""
#define CHEAP      SMALL ",\"n\":1"
#define DEAR       SMALL ",\"n\":7" /* 0.112 USD a call: on_unknown is `fail` */
#define LEO_TINY   ",\"width\":64,\"height\":64,\"alchemy\":false"
#define LEO_CHARGE LEO_SMALL

static const struct kind {
    const char *name, *operation, *extra, *path;
    double charge;
    bool is_dear;
} kinds[] = {
    { "asynchronous", LEO, LEO_TINY, "/leonardo/", LEO_CHARGE, false },
    { "cheap", GPT, CHEAP, "/openai/", DALLE_SMALL, false },
    { "dear", GPT, DEAR, "/openai/", 0, true },
};
enum { KINDS = sizeof(kinds) / sizeof(kinds[0]) };

static const struct house_options options = { .catalog = CATALOG_LEO(""), .credits = 10000 };

/* Each payment of a job is accounted for by an attempt that says that something may have been paid. */
static void expect_exposure(const struct house *h, const char *tag, int unknown, int answered)
{
    static const char *const sql =
        "select count(*) from kiln_exposure(10000) e join jobs j on j.id = e.job join attempts a on a.job_id = e.job and a.no "
        "= e.attempt where e.reason = '%s' and a.class = '%s' and a.error_code = '%s' and position('[[job:%s]]' in j.params "
        "->> 'prompt') > 0";
    char text[512];

    (void)snprintf(text, sizeof(text), sql, "unknown", "unknown", "outcome_unknown", tag);
    cr_expect_eq(support_sql_int(h->db, text), unknown, "%s: attempts whose outcome is unknown, not %d", tag, unknown);
    (void)snprintf(text, sizeof(text), sql, "uncharged", "answered", "bad_response", tag);
    cr_expect_eq(support_sql_int(h->db, text), answered, "%s: attempts with a broken answer, not %d", tag, answered);
}

struct cut {
    struct want want;
    char tag[40], fault[64];
    int unknown, answered;
};

static void cut_init(struct cut *c, const struct kind *k, const char *phase)
{
    (void)snprintf(c->tag, sizeof(c->tag), "%s-%s", k->name, phase);
    c->want = (struct want){ .tag = c->tag, .operation = k->operation, .fault = c->fault, .extra = k->extra };
}

/* `paid_each`: of each request that was cut, 0 or 1. Cut for ever, or the first time only. */
static void cut_unknown(struct cut *c, const struct kind *k, int paid_each, bool once)
{
    int asked = k->is_dear ? 1 : 2;

    c->want.code = k->is_dear || !once ? "outcome_unknown" : NULL;
    c->want.charged = c->want.code ? 0 : k->charge;
    c->want.requests = c->want.attempts = asked;
    c->want.paid = once && !k->is_dear ? paid_each + 1 : paid_each * asked;
    c->unknown = once ? 1 : asked;
    if (once)
        (void)snprintf(c->fault + strlen(c->fault), sizeof(c->fault) - strlen(c->fault), ",times=1");
}

static void cut_broken(struct cut *c) /* the answer had begun with 2xx: it is never asked for again */
{
    c->want.code = "bad_response";
    c->want.requests = c->want.attempts = c->want.paid = 1;
    c->answered = 1;
}

static void cuts_run(struct house *h, const struct cut *cuts, size_t count)
{
    struct want wants[CASES_MAX];

    cr_assert_leq(count, (size_t)CASES_MAX);
    for (size_t i = 0; i < count; i++)
        wants[i] = cuts[i].want;
    cases_run(h, wants, count, LIMIT_MS);
    for (size_t i = 0; i < count; i++)
        expect_exposure(h, cuts[i].tag, cuts[i].unknown, cuts[i].answered);
}

Test(cuts, before_the_answer_it_is_asked_again_once_or_not_at_all)
{
    static const struct {
        const char *phase, *fault;
        int paid_each;
    } phases[] = {
        { "after-body", "drop_before", 0 },
        { "taken", "drop_after", 1 },
        { "worked", "drop_after,delay_ms=300", 1 },
    };
    struct house *h = house_open(&options);
    struct cut cuts[CASES_MAX] = { 0 };
    size_t n = 0;

    for (size_t p = 0; p < sizeof(phases) / sizeof(phases[0]); p++) {
        for (size_t k = 0; k < KINDS; k++) {
            for (int once = 0; once < 2; once++) {
                char phase[24];

                (void)snprintf(phase, sizeof(phase), "%s%s", phases[p].phase, once ? "1" : "");
                (void)snprintf(cuts[n].fault, sizeof(cuts[n].fault), "%s", phases[p].fault);
                cut_init(&cuts[n], &kinds[k], phase);
                cut_unknown(&cuts[n++], &kinds[k], phases[p].paid_each, once);
            }
        }
    }
    cuts_run(h, cuts, n);
    house_close(h);
}

/* The sandbox has not read the prompt then, so the fault is a rule, one job after the other. */
Test(cuts, before_the_request_is_read_nothing_is_paid_and_the_same_rule_holds)
{
    static const struct {
        const char *phase, *word;
    } phases[] = { { "line", "drop_line" }, { "headers", "drop_before" } };
    struct house *h = house_open(&options);

    for (size_t p = 0; p < 2; p++) {
        for (size_t k = 0; k < KINDS; k++) {
            struct cut c = { .unknown = 1 };
            char rule[160];

            cut_init(&c, &kinds[k], phases[p].phase);
            c.want.fault = NULL;
            c.want.code = kinds[k].is_dear ? "outcome_unknown" : NULL;
            c.want.charged = kinds[k].charge;
            c.want.requests = c.want.paid = kinds[k].is_dear ? 0 : 1;
            c.want.attempts = kinds[k].is_dear ? 1 : 2;
            (void)snprintf(rule, sizeof(rule),
                           "{\"match\":{\"path_contains\":\"%s\"},\"fault\":{\"%s\":true},\"times\":1}", kinds[k].path,
                           phases[p].word);
            house_fault(h, rule);
            cuts_run(h, &c, 1);
        }
    }
    cr_expect_eq(house_counter(h, NULL, "cut"), 6, "each rule cut one connection");
    house_close(h);
}

Test(cuts, in_mid_answer_at_twenty_offsets_pays_no_oftener_than_the_rule_says)
{
    /* status line, headers, body; from the end where negative */
    static const int offsets[OFFSETS] = { 0,  1,  5,  9,  12, 15, 16,   STATUS_LINE, 18,  30,
                                          41, 45, 57, 63, 75, 90, -100, -50,         -10, -1 };
    struct house *h = house_open(&options);
    struct cut cuts[CASES_MAX] = { 0 };
    size_t n = 0;

    for (size_t i = 0; i < OFFSETS; i++) {
        for (size_t k = 0; k < KINDS; k++) {
            struct cut *c = &cuts[n++];
            char phase[16];

            (void)snprintf(phase, sizeof(phase), "at%d", offsets[i]);
            (void)snprintf(c->fault, sizeof(c->fault), "drop_at=%d", offsets[i]);
            cut_init(c, &kinds[k], phase);
            if (offsets[i] >= 0 && offsets[i] < STATUS_LINE)
                cut_unknown(c, &kinds[k], 1, i % 2 == 1);
            else
                cut_broken(c);
        }
    }
    cuts_run(h, cuts, n);
    house_close(h);
}

/* Its bytes go to a file as they come. */
Test(cuts, of_an_answer_that_is_the_picture_itself)
{
    static const struct kind core = { "bytes", CORE, "", "/stability/", 3, false };
    static const int offsets[] = { 0, 16, STATUS_LINE, 45, -200, -1 };
    static const struct house_options tiny = { .sandbox_config = "{\"image_size_cap\":64}" };
    struct house *h = house_open(&tiny);
    struct cut cuts[CASES_MAX] = { 0 };
    size_t n = 0;

    for (; n < sizeof(offsets) / sizeof(offsets[0]); n++) {
        char phase[16];

        (void)snprintf(phase, sizeof(phase), "at%d", offsets[n]);
        (void)snprintf(cuts[n].fault, sizeof(cuts[n].fault), "drop_at=%d", offsets[n]);
        cut_init(&cuts[n], &core, phase);
        if (offsets[n] >= 0 && offsets[n] < STATUS_LINE)
            cut_unknown(&cuts[n], &core, 1, false);
        else
            cut_broken(&cuts[n]);
    }
    cuts_run(h, cuts, n);
    house_close(h);
}
