/* fuzz_provider.c - any answer, read by every adapter for every operation of the catalogue, to a submit, a poll and a
 * download. The input looks like the adapters' fixtures (status line, headers, empty line, body), so
 * their files are the corpus, those of a new provider too. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "common/base/text.h"
#include "tests/fuzz/fuzz.h"
#include "worker/providers/adapter.h"

enum { HEADERS = 16 };

struct sheet { /* an answer, torn out of the input */
    char *text;
    const char *headers[HEADERS];
    struct http_answer in;
    json_t *json;
};

static void sheet_open(struct sheet *s, const uint8_t *data, size_t size)
{
    char *at, *end;

    *s = (struct sheet){ .text = malloc(size + 1) };
    FUZZ_CLAIM(s->text != NULL);
    if (size)
        memcpy(s->text, data, size);
    s->text[size] = '\0';
    s->in.status = size > 9 && strncmp(s->text, "HTTP/1.1 ", 9) == 0 ? strtol(s->text + 9, NULL, 10) % 1000 : 200;
    at = strchr(s->text, '\n');
    at = at ? at + 1 : s->text + strlen(s->text);
    while (*at && *at != '\n' && s->in.header_count < HEADERS && (end = strchr(at, '\n'))) {
        *end = '\0';
        s->headers[s->in.header_count++] = at;
        at = end + 1;
    }
    at += *at == '\n';
    s->in.headers = s->headers;
    s->in.data = at;
    s->in.len = size - (size_t)(at - s->text);
    s->in.wall_ms = INT64_C(1795000000000);
    at += strspn(at, " \n\r\t"); /* as worker/exchange.c decides */
    if (*at == '{' || *at == '[')
        s->in.json = s->json = json_parse_answer(s->in.data, s->in.len);
}

static void sheet_done(struct sheet *s)
{
    json_decref(s->json);
    free(s->text);
}

/* Parameters that the operation takes, so that a spec looks as in production: required ones by their kind. */
static const json_t *params_of(size_t i, const struct operation *op)
{
    static json_t *made[256];
    struct catalog_faults faults = { .count = 0 };
    json_t *given;

    if (i >= 256)
        return NULL;
    if (!made[i]) {
        given = json_pack("{s:s}", "prompt", "a kettle");
        made[i] = catalog_validate(op, given, &faults);
        if (!made[i])
            made[i] = json_incref(given);
        json_decref(given);
    }
    return made[i];
}

static void check_output(const struct output *o, const struct http_answer *in)
{
    FUZZ_CLAIM((o->url != NULL) + (o->base64 != NULL) + o->is_body == 1);
    if (o->url)
        FUZZ_CLAIM(strncasecmp(o->url, "https://", 8) == 0 || strncasecmp(o->url, "http://", 7) == 0);
    if (o->base64)
        FUZZ_CLAIM(strlen(o->base64) >= o->base64_len && o->base64_len > 0);
    if (o->is_body)
        FUZZ_CLAIM(in->len > 0);
    fuzz_clean_text(o->seed, 512);
    fuzz_clean_text(o->revised_prompt, REVISED_BYTES);
}

static void check_answer(const struct answer *out, const struct http_answer *in)
{
    FUZZ_CLAIM(out->outcome == OUT_DONE || out->outcome == OUT_PENDING || out->outcome == OUT_RETRY ||
               out->outcome == OUT_FAIL);
    FUZZ_CLAIM(out->code >= ERR_OK && out->code < ERR_UNAUTHORIZED && out->code != ERR_INVALID_JSON);
    FUZZ_CLAIM((out->outcome == OUT_DONE || out->outcome == OUT_PENDING) == (out->code == ERR_OK));
    FUZZ_CLAIM((out->outcome == OUT_DONE) == (out->output_count > 0) && out->output_count <= PROVIDER_OUTPUTS);
    FUZZ_CLAIM(out->outcome != OUT_DONE || answer_is_2xx(in));
    FUZZ_CLAIM(out->retry_after_s >= 0);
    FUZZ_CLAIM(out->outcome == OUT_PENDING || out->outcome == OUT_RETRY || out->retry_after_s == 0);
    FUZZ_CLAIM(out->percent >= -1 && out->percent <= 100 && out->cost_microusd >= -1);
    fuzz_clean_text(out->message, 4 * MESSAGE_BYTES);
    fuzz_clean_text(out->request_id, REF_BYTES);
    fuzz_clean_text(out->ref, REF_BYTES);
    for (size_t i = 0; i < out->output_count; i++)
        check_output(&out->outputs[i], in);
}

static void check_poll(struct arena *a, const struct provider *p, const struct job_spec *spec, const char *ref)
{
    struct http_req req = p->poll(a, spec, ref);

    if (req.path) {
        FUZZ_CLAIM(req.path[0] == '/' && strstr(req.path, "..") == NULL);
        for (const char *c = req.path; *c; c++)
            FUZZ_CLAIM(*c > ' ' && *c < 0x7f && *c != '#');
    }
    json_decref(req.body);
}

/* The same answer to every free step of a job with an input file, until it is sent or refused. */
static void check_prepare(struct arena *a, const struct provider *p, const struct job_spec *job,
                          const struct http_answer *in)
{
    struct catalog_input field;
    struct job_input input = { .path = "/nonexistent", .mime = "image/png", .bytes = 9 };
    struct job_spec spec = *job;
    struct http_req req = { .path = NULL };
    json_t *kept = json_object();

    spec.kept = kept;
    if (catalog_inputs(job->op, &field, 1) > 0) {
        input.field = field.name;
        spec.inputs = &input;
        spec.input_count = 1;
    }
    for (int i = 0; i < 3 && p->prepare(a, &spec, &req); i++) {
        struct answer out;

        FUZZ_CLAIM((req.path != NULL) != (req.url != NULL));
        FUZZ_CLAIM(!req.url || strncasecmp(req.url, "https://", 8) == 0 || strncasecmp(req.url, "http://", 7) == 0);
        FUZZ_CLAIM(req.part_count <= PROVIDER_PARTS);
        json_decref(req.body);
        out = p->on_prepare(a, &spec, in, kept);
        FUZZ_CLAIM(out.outcome != OUT_PENDING && (out.outcome == OUT_DONE) == (out.code == ERR_OK));
        fuzz_clean_text(out.message, 4 * MESSAGE_BYTES);
        req = (struct http_req){ .path = NULL };
    }
    json_decref(kept);
}

static void read_all(struct arena *a, const struct job_spec *spec, const struct http_answer *in)
{
    const struct provider *p = provider_find(spec->op->provider->adapter);
    struct answer out;

    FUZZ_CLAIM(p != NULL && p->on_submit != NULL);
    out = p->on_submit(a, spec, in);
    check_answer(&out, in);
    if (out.outcome == OUT_PENDING) { /* what cannot be asked for is refused here */
        FUZZ_CLAIM(spec->op->is_async && p->poll && ref_is_segment(out.ref));
        check_poll(a, p, spec, out.ref);
    }
    if (p->on_poll) {
        out = p->on_poll(a, spec, in);
        check_answer(&out, in);
        check_poll(a, p, spec, in->data ? in->data : ""); /* a reference as hostile as it comes */
    }
    if (p->prepare)
        check_prepare(a, p, spec, in);
    if (p->on_reconcile) {
        out = p->on_reconcile(a, spec, in);
        FUZZ_CLAIM(out.outcome != OUT_DONE && (out.outcome != OUT_PENDING || ref_is_segment(out.ref)));
    }
    out = (p->on_download ? p->on_download : provider_download)(a, spec, in);
    check_answer(&out, in);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct catalog *c = fuzz_catalog();
    struct sheet s;

    sheet_open(&s, data, size);
    for (size_t i = 0; i < catalog_count(c); i++) {
        const struct operation *op = catalog_at(c, i);
        struct job_spec spec = {
            .job_id = "0198d4c2-0000-7000-8000-000000000001", .op = op, .params = params_of(i, op), .units = 1
        };
        struct arena *a = arena_new(1 << 20);

        read_all(a, &spec, &s.in);
        if (op->answers_bytes && answer_is_2xx(&s.in) && !s.in.json) { /* then the body is a file */
            struct http_answer in = s.in;

            in.data = NULL;
            in.file = "/nonexistent";
            read_all(a, &spec, &in);
        }
        arena_free(a);
    }
    sheet_done(&s);
    return 0;
}
