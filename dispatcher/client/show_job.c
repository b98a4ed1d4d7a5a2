/* show_job.c - jobs, results and refusals as a person reads them. */
#include <stdlib.h>
#include <string.h>
#include "common/base/json.h"
#include "dispatcher/client/show.h"

enum { VALUE_COLUMNS = 400 }; /* a data: URI need not scroll by */

void show_artifact(FILE *to, const json_t *artifact)
{
    int64_t width = 0, height = 0, bytes = 0;
    char size[32];

    (void)json_int(artifact, "bytes", &bytes);
    show_text(to, json_text(artifact, "mime"));
    if (json_int(artifact, "width", &width) && json_int(artifact, "height", &height) && width > 0)
        (void)fprintf(to, ", %lldx%lld", (long long)width, (long long)height);
    (void)fprintf(to, ", %s", show_bytes(size, sizeof size, bytes));
}

static void show_error_of(FILE *to, const json_t *error)
{
    int64_t status = 0;

    show_text(to, json_text(error, "code"));
    (void)fputs(": ", to);
    show_text(to, json_text(error, "message"));
    if (json_int(error, "provider_status", &status))
        (void)fprintf(to, " (the provider answered %lld)", (long long)status);
    if (json_bool(error, "retryable", false))
        (void)fputs("; the same job could succeed another time", to);
}

void show_job_end(FILE *to, const json_t *job)
{
    const char *state = json_text(job, "state");
    const json_t *error = json_object_get(job, "error");
    char credits[32], span[32];
    int64_t ms = show_span_ms(json_text(job, "created_at"), json_text(job, "finished_at"));

    show_text(to, state);
    if (ms >= 0)
        (void)fprintf(to, " after %s", show_span(span, sizeof span, ms));
    (void)fprintf(to, ", %s credits charged",
                  show_credits(credits, sizeof credits, json_object_get(json_object_get(job, "credits"), "charged")));
    if (json_is_object(error) && !(state && strcmp(state, "canceled") == 0)) {
        (void)fputs("; ", to);
        show_error_of(to, error);
    }
    (void)fputc('\n', to);
}

/* A value on one line: text as it is, anything else as JSON; cut where it is long. */
static void show_value(FILE *to, const json_t *value)
{
    char *text = json_is_string(value) ? NULL : show_json_text(value, false);
    const char *shown = json_is_string(value) ? json_string_value(value) : text ? text : "";
    size_t len = strlen(shown), cut = utf8_cut(shown, len, VALUE_COLUMNS);
    char *head = malloc(cut + 1);

    if (head) {
        memcpy(head, shown, cut);
        head[cut] = '\0';
        show_text(to, head);
        if (cut < len)
            (void)fprintf(to, "… (%zu bytes)", len);
    }
    free(head);
    free(text);
}

static void show_head(const char *name)
{
    printf("  %s%-10s%s", show_style(stdout, STYLE_DIM), name, show_style(stdout, STYLE_PLAIN));
}

static void show_map(const char *name, const json_t *map)
{
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)map, key, value)
    {
        show_head(name);
        show_text(stdout, key);
        (void)fputs(" = ", stdout);
        show_value(stdout, value);
        (void)fputc('\n', stdout);
        name = "";
    }
}

static void show_times(const json_t *job)
{
    const char *created = json_text(job, "created_at"), *started = json_text(job, "started_at"),
               *finished = json_text(job, "finished_at");
    char when[32], span[32];

    show_head("created");
    printf("%s", show_time(when, sizeof when, created));
    if (started)
        printf(", queued for %s", show_span(span, sizeof span, show_span_ms(created, started)));
    if (started && finished)
        printf(", ran for %s", show_span(span, sizeof span, show_span_ms(started, finished)));
    printf("\n");
}

static void show_results(const json_t *job)
{
    const json_t *list = json_object_get(job, "artifacts");
    size_t i;
    json_t *one;

    json_array_foreach((json_t *)list, i, one)
    {
        show_head(i == 0 ? "results" : "");
        show_artifact(stdout, one);
        if (json_text(one, "url")) {
            (void)fputc('\n', stdout);
            show_head("");
            show_text(stdout, json_text(one, "url"));
        }
        (void)fputc('\n', stdout);
    }
}

void show_job(const json_t *job)
{
    const char *state = json_text(job, "state"), *phase = json_text(json_object_get(job, "progress"), "phase");
    const json_t *credits = json_object_get(job, "credits"), *error = json_object_get(job, "error");
    enum show_style style = !state                            ? STYLE_PLAIN
                            : strcmp(state, "succeeded") == 0 ? STYLE_GOOD
                            : strcmp(state, "failed") == 0    ? STYLE_BAD
                                                              : STYLE_BOLD;
    char held[32], charged[32];
    int64_t attempts = 0;

    show_text(stdout, json_text(job, "id"));
    printf("  %s", show_style(stdout, style));
    show_text(stdout, state);
    printf("%s", show_style(stdout, STYLE_PLAIN));
    if (phase) {
        (void)fputs(": ", stdout);
        show_text(stdout, phase);
    }
    (void)fputc('\n', stdout);
    show_head("operation");
    show_text(stdout, json_text(job, "operation"));
    (void)fputc('\n', stdout);
    show_head("account");
    show_text(stdout, json_text(job, "account"));
    (void)fputc('\n', stdout);
    show_times(job);
    show_head("credits");
    printf("%s charged, %s held\n", show_credits(charged, sizeof charged, json_object_get(credits, "charged")),
           show_credits(held, sizeof held, json_object_get(credits, "held")));
    if (json_int(job, "attempts", &attempts) && attempts > 1) {
        show_head("attempts");
        printf("%lld\n", (long long)attempts);
    }
    if (json_is_object(error)) {
        show_head("error");
        show_error_of(stdout, error);
        (void)fputc('\n', stdout);
    }
    show_map("params", json_object_get(job, "params"));
    show_map("metadata", json_object_get(job, "metadata"));
    show_results(job);
}

/* ---- refusals */

static void show_faults(const json_t *errors)
{
    size_t i;
    json_t *one;

    json_array_foreach((json_t *)errors, i, one)
    {
        (void)fputs("  ", stderr);
        show_text(stderr, json_text(one, "field"));
        (void)fputs(": ", stderr);
        show_text(stderr, json_text(one, "message"));
        (void)fputc('\n', stderr);
    }
}

void show_problem(const char *url, long status, const json_t *doc)
{
    const char *code = json_text(doc, "code"), *detail = json_text(doc, "detail"), *title = json_text(doc, "title");
    const json_t *errors = json_object_get(doc, "errors");
    bool has_fields = json_array_size(errors) > 0;
    char needed[32], available[32];

    if (!code) {
        show_error("%s answered with status %ld, but not as kiln does; is KILN_URL right?", url, status);
        return;
    }
    show_error("%s (%s)", has_fields && title ? title : detail ? detail : title ? title : "refused", code);
    show_faults(errors);
    if (json_object_get(doc, "credits_needed"))
        show_note("  needed %s credits, available %s; `kiln grant` adds some",
                  show_credits(needed, sizeof needed, json_object_get(doc, "credits_needed")),
                  show_credits(available, sizeof available, json_object_get(doc, "credits_available")));
    if (status == 401)
        show_note("  %s does not take the key in KILN_API_KEY; `kiln key create` makes one", url);
    if (status == 403 && detail && strstr(detail, "scope admin"))
        show_note("  `kiln key create --app APP --scopes admin` makes a key for operators");
    else if (status == 403)
        show_note("  `kiln key create --scopes jobs,credits` makes a key that may do both");
}
