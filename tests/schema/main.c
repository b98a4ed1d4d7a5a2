/* main.c - one PostgreSQL for the whole program, then Criterion's runner. Each test is a process and has a database of
 * its own, a copy of the template. */
#include "tests/schema/server.h"

#include <criterion/criterion.h>
#include <criterion/internal/test.h>

int main(int argc, char **argv)
{
    struct criterion_test_set *tests = criterion_initialize();
    int rc = 1;
    struct server *s = NULL;

    if (!criterion_handle_args(argc, argv, true)) {
        rc = 0; /* --help, --list */
    } else if ((s = server_start()) != NULL) {
        rc = !criterion_run_all_tests(tests);
    }
    criterion_finalize(tests);
    server_stop(s);
    return rc;
}
