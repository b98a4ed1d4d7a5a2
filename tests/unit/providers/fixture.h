/* fixture.h - provider answers from files, and the specs that adapters want, for their tests.
 *
 * A fixture is an answer as it came over the wire: status line, headers, empty line, body. Tests run in the source's
 * root folder (tests/CMakeLists.txt). Every test is a process of its own, so the catalogue is loaded once in each. */
#ifndef KILN_TEST_FIXTURE_H
#define KILN_TEST_FIXTURE_H
#include <criterion/criterion.h>
#include <string.h>

#include "common/base/text.h"
#include "worker/provider.h"

enum { FIXTURE_HEADERS = 16 };

struct fixture {
    struct http_answer answer;
    const char *headers[FIXTURE_HEADERS];
    char *text; /* the whole file */
};
void fixture_open(struct fixture *f, const char *provider, const char *name); /* fails the test when it is not there */
void fixture_done(struct fixture *f);
/* The body instead goes to a file, as the flight does with media: data NULL, `file` set. */
void fixture_to_file(struct fixture *f, const char *path);

struct bench { /* what a test of an adapter stands on */
    struct catalog *catalog;
    struct arena *arena;
    const struct operation *op;
    const struct provider *provider;
    json_t *params;
    struct job_spec spec;
};
/* params: JSON, validated as a customer's would be. base_url NULL: the catalogue's. */
void bench_open(struct bench *b, const char *operation, const char *params, const char *base_url);
void bench_done(struct bench *b);

struct expectation {
    const char *file;
    enum outcome submit;
    enum err submit_code;
    enum outcome poll; /* not looked at where the provider has no poll */
    enum err poll_code;
    int retry_after_s; /* of the submit */
    size_t outputs;
};
void expect_all(struct bench *b, const char *provider, const struct expectation *rows, size_t count);
size_t fixture_count(const char *provider); /* .http files in its folder */
#endif
