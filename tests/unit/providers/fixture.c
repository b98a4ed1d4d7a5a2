/* fixture.c - reads recorded answers (fixture.h). */
#include "tests/unit/providers/fixture.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

static const char *fixture_base_url;

static char *slurp(const char *path, size_t *len)
{
    FILE *f = fopen(path, "rb");
    char *text = malloc(1 << 20);

    cr_assert_not_null(f, "%s is not there", path);
    cr_assert_not_null(text);
    *len = fread(text, 1, (1 << 20) - 1, f);
    text[*len] = '\0';
    (void)fclose(f);
    return text;
}

void fixture_open(struct fixture *f, const char *provider, const char *name)
{
    char path[256];
    size_t len;
    char *at, *end;

    *f = (struct fixture){ .text = NULL };
    (void)snprintf(path, sizeof path, "tests/unit/providers/%s/%s.http", provider, name);
    f->text = slurp(path, &len);
    cr_assert_eq(strncmp(f->text, "HTTP/1.1 ", 9), 0, "%s has no status line", path);
    f->answer.status = strtol(f->text + 9, NULL, 10);
    at = strchr(f->text, '\n') + 1;
    while (*at != '\n') {
        end = strchr(at, '\n');
        cr_assert_not_null(end, "%s has no empty line", path);
        *end = '\0';
        f->headers[f->answer.header_count++] = at;
        at = end + 1;
    }
    f->answer.headers = f->headers;
    f->answer.data = at + 1;
    f->answer.len = len - (size_t)(at + 1 - f->text);
    f->answer.json = json_parse_answer(f->answer.data, f->answer.len);
    f->answer.wall_ms = 1795000000000;
}

void fixture_done(struct fixture *f)
{
    json_decref((json_t *)f->answer.json);
    free(f->text);
}

void fixture_to_file(struct fixture *f, const char *path)
{
    f->answer.data = NULL;
    f->answer.file = path;
}

static const char *environment(const char *name)
{
    return strstr(name, "_BASE_URL") != NULL ? fixture_base_url : "test-key";
}

void bench_open(struct bench *b, const char *operation, const char *params, const char *base_url)
{
    char problem[256];
    json_t *given = json_parse(params, strlen(params), NULL);
    struct catalog_faults faults;

    *b = (struct bench){ .arena = arena_new(1 << 20) };
    fixture_base_url = base_url;
    cr_assert_eq(catalog_load(NULL, environment, &b->catalog, problem, sizeof problem), ERR_OK, "%s", problem);
    b->op = catalog_find(b->catalog, operation);
    cr_assert_not_null(b->op);
    b->provider = provider_find(b->op->provider->adapter);
    cr_assert_not_null(b->provider);
    b->params = catalog_validate(b->op, given, &faults);
    cr_assert_not_null(b->params, "%s: %s", faults.items[0].field, faults.items[0].message);
    b->spec = (struct job_spec){
        .job_id = "0198d4c2-0000-7000-8000-000000000001", .op = b->op, .params = b->params, .units = 1
    };
    json_decref(given);
}

void bench_done(struct bench *b)
{
    json_decref(b->params);
    catalog_free(b->catalog);
    arena_free(b->arena);
}

static void expect_one(const char *file, const char *when, const struct answer *got, enum outcome outcome,
                       enum err code, size_t outputs)
{
    cr_expect_eq(got->outcome, outcome, "%s on %s: outcome %d, not %d", file, when, got->outcome, outcome);
    cr_expect_eq(got->code, code, "%s on %s: %s, not %s", file, when, err_word(got->code), err_word(code));
    cr_expect_eq(got->output_count, outcome == OUT_DONE ? outputs : 0, "%s on %s: %zu outputs", file, when,
                 got->output_count);
    if (outcome == OUT_DONE || outcome == OUT_FAIL)
        cr_expect_eq(got->retry_after_s, 0, "%s on %s: a wait hint where nobody waits", file, when);
    if (outcome == OUT_RETRY || outcome == OUT_FAIL)
        cr_expect_neq(got->code, ERR_OK, "%s on %s: no code", file, when);
}

void expect_all(struct bench *b, const char *provider, const struct expectation *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct expectation *r = &rows[i];
        struct fixture f;
        struct answer got;

        fixture_open(&f, provider, r->file);
        got = b->provider->on_submit(b->arena, &b->spec, &f.answer);
        expect_one(r->file, "submit", &got, r->submit, r->submit_code, r->outputs);
        cr_expect_eq(got.retry_after_s, r->retry_after_s, "%s: wait of %d s, not %d", r->file, got.retry_after_s,
                     r->retry_after_s);
        if (b->provider->on_poll != NULL) {
            got = b->provider->on_poll(b->arena, &b->spec, &f.answer);
            expect_one(r->file, "poll", &got, r->poll, r->poll_code, r->outputs);
        }
        fixture_done(&f);
    }
}

size_t fixture_count(const char *provider)
{
    char path[128];
    size_t count = 0;
    struct dirent *d;
    DIR *dir;

    (void)snprintf(path, sizeof path, "tests/unit/providers/%s", provider);
    dir = opendir(path);
    cr_assert_not_null(dir);
    while ((d = readdir(dir)) != NULL)
        count += strstr(d->d_name, ".http") != NULL;
    (void)closedir(dir);
    return count;
}
