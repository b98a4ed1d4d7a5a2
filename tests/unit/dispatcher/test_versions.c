/* test_versions.c - what the dispatcher remembers for a moment: versions of jobs (versions.c), ids published (known.c).
 */
#include <criterion/criterion.h>
#include "common/base/text.h"
#include "dispatcher/known.h"
#include "dispatcher/versions.h"

static const char app[] = "0193abcd-0000-7000-8000-000000000001", other[] = "0193abcd-0000-7000-8000-000000000002";

Test(versions, are_said_for_a_second_and_to_their_app_alone)
{
    struct versions *v = versions_new();
    char job[UUID_TEXT];

    uuid_v7(job);
    cr_expect_eq(versions_of(v, job, app, 1000), 0);
    versions_note(v, job, app, 3, 1000);
    cr_expect_eq(versions_of(v, job, app, 1000), 3);
    cr_expect_eq(versions_of(v, job, app, 1999), 3);
    cr_expect_eq(versions_of(v, job, app, 2000), 0);
    cr_expect_eq(versions_of(v, job, other, 1000), 0);
    cr_expect_eq(versions_of(v, other, app, 1000), 0);
    cr_expect_eq(versions_of(v, "x", app, 1000), 0);
    versions_note(v, job, app, 4, 1500);
    cr_expect_eq(versions_of(v, job, app, 2400), 4);
    versions_free(v);
}

Test(versions, an_event_forgets_the_job_and_reads_that_were_under_way)
{
    struct versions *v = versions_new();
    char job[UUID_TEXT];

    uuid_v7(job);
    versions_note(v, job, app, 3, 1000);
    versions_forget(v, job, 1100);
    cr_expect_eq(versions_of(v, job, app, 1100), 0);
    versions_note(v, job, app, 3, 1100);
    cr_expect_eq(versions_of(v, job, app, 1101), 0, "it was asked for before the event, or just then");
    versions_note(v, job, app, 4, 1101);
    cr_expect_eq(versions_of(v, job, app, 1101), 4);
    versions_free(v);
}

Test(versions, memory_is_bounded_and_the_newest_stay)
{
    enum { N = 100000, LATE = 1000 };
    static char ids[N][UUID_TEXT];
    struct versions *v = versions_new();
    int late = 0;

    for (int i = 0; i < N; i++) {
        uuid_v7(ids[i]);
        versions_note(v, ids[i], app, i + 1, 1000);
    }
    for (int i = N - LATE; i < N; i++)
        late += versions_of(v, ids[i], app, 1000) == i + 1;
    cr_expect_gt(late, LATE * 9 / 10, "%d", late);
    versions_free(v);
}

Test(known, says_what_was_added_and_forgets_the_oldest)
{
    enum { N = 300000, LATE = 30000 };
    static char ids[N][UUID_TEXT];
    struct known *k = known_new();
    int early = 0, late = 0;

    for (int i = 0; i < N; i++) {
        uuid_v7(ids[i]);
        if (i % 10000 == 0)
            cr_expect(!known_has(k, ids[i]));
        known_add(k, ids[i]);
    }
    for (int i = 0; i < LATE; i++) {
        early += known_has(k, ids[i]);
        late += known_has(k, ids[N - LATE + i]);
    }
    cr_expect_lt(early, LATE / 10, "%d", early);
    cr_expect_gt(late, LATE * 96 / 100, "%d", late);
    known_add(k, "x");
    cr_expect(!known_has(k, "x"));
    known_free(k);
}
