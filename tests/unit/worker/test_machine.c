/* test_machine.c - claims about the rules of a job, checked over every state and every event. */
#include <stdio.h>
#include <string.h>
#include <criterion/criterion.h>
#include "worker/machine.h"

static enum job_action feed(struct job *job, enum job_state in, enum job_event on)
{
    *job = (struct job){ .id = "t", .state = in };
    return job_on(job, on);
}

static bool is_way_in(enum job_state s, enum job_event e)
{
    return (s == JOB_SETTLING && e == EV_COMMITTED) || e == EV_FINISHED;
}

Test(machine, closes_only_when_postgresql_has_said_that_the_job_is_over)
{
    struct job job;

    for (int s = 0; s < JOB_CLOSED; s++)
        for (int e = 0; e < EV_COUNT; e++) {
            enum job_action then = feed(&job, (enum job_state)s, (enum job_event)e);

            if (job.state == JOB_CLOSED) {
                cr_expect(is_way_in((enum job_state)s, (enum job_event)e), "%s on %s", job_state_name[s],
                          job_event_name[e]);
                cr_expect_eq(then, DO_FORGET, "%s on %s", job_state_name[s], job_event_name[e]);
            }
        }
}

Test(machine, nothing_leaves_an_end)
{
    struct job job;

    for (int s = JOB_CLOSED; s <= JOB_RETURNED; s++)
        for (int e = 0; e < EV_COUNT; e++) {
            cr_expect_eq(feed(&job, (enum job_state)s, (enum job_event)e), DO_REPORT);
            cr_expect_eq(job.state, (enum job_state)s);
        }
}

Test(machine, sends_only_after_start_said_go)
{
    struct job job;

    for (int s = 0; s < JOB_STATE_COUNT; s++)
        for (int e = 0; e < EV_COUNT; e++)
            if (feed(&job, (enum job_state)s, (enum job_event)e) == DO_SUBMIT)
                cr_expect(s == JOB_STARTING && e == EV_GO, "%s on %s", job_state_name[s], job_event_name[e]);
}

Test(machine, never_goes_back_to_sending_once_a_request_has_left)
{
    static const enum job_state sent[] = { JOB_RECONCILING, JOB_NOTING,   JOB_WAITING,  JOB_POLLING,
                                           JOB_COLLECTING,  JOB_SETTLING, JOB_RETURNING };
    struct job job;

    for (size_t i = 0; i < ARRAY_LEN(sent); i++)
        for (int e = 0; e < EV_COUNT; e++) {
            (void)feed(&job, sent[i], (enum job_event)e);
            cr_expect(job.state != JOB_CLAIMED && job.state != JOB_STARTING && job.state != JOB_SUBMITTING, "%s on %s",
                      job_state_name[sent[i]], job_event_name[e]);
        }
}

Test(machine, asks_what_became_of_it_only_where_nobody_knows)
{
    struct job job;

    for (int s = 0; s < JOB_STATE_COUNT; s++)
        for (int e = 0; e < EV_COUNT; e++)
            if (feed(&job, (enum job_state)s, (enum job_event)e) == DO_RECONCILE)
                cr_expect((s == JOB_STARTING || s == JOB_SUBMITTING) && e == EV_LOST, "%s on %s", job_state_name[s],
                          job_event_name[e]);
}

Test(machine, a_yes_is_checkpointed_and_everything_else_is_settled_as_unknown)
{
    struct job job;

    for (int e = 0; e < EV_COUNT; e++) {
        enum job_action then = feed(&job, JOB_RECONCILING, (enum job_event)e);

        if (e == EV_PENDING)
            cr_expect(then == DO_CHECKPOINT && job.state == JOB_NOTING, "no poll before the reference is on disk");
        else if (e == EV_CUT)
            cr_expect(then == DO_SETTLE && job.state == JOB_SETTLING);
        else
            cr_expect_eq(then, DO_REPORT, "%s", job_event_name[e]);
    }
}

Test(machine, polls_only_what_is_on_disk)
{
    struct job job;

    for (int e = 0; e < EV_COUNT; e++) {
        enum job_action then = feed(&job, JOB_NOTING, (enum job_event)e);

        cr_expect(then != DO_POLL && (then != DO_ARM || e == EV_SAVED), "%s", job_event_name[e]);
    }
}

Test(machine, an_event_without_a_rule_changes_nothing)
{
    struct job job;

    for (int s = 0; s < JOB_STATE_COUNT; s++)
        for (int e = 0; e < EV_COUNT; e++)
            if (feed(&job, (enum job_state)s, (enum job_event)e) == DO_REPORT)
                cr_expect_eq(job.state, (enum job_state)s);
}

Test(machine, every_state_can_be_left_and_every_event_matters)
{
    struct job job;

    for (int s = 0; s < JOB_CLOSED; s++) {
        int ways = 0;

        for (int e = 0; e < EV_COUNT; e++)
            ways += feed(&job, (enum job_state)s, (enum job_event)e) != DO_REPORT && job.state != (enum job_state)s;
        cr_expect_gt(ways, 0, "%s", job_state_name[s]);
    }
    for (int e = 0; e < EV_COUNT; e++) {
        int uses = 0;

        for (int s = 0; s < JOB_STATE_COUNT; s++)
            uses += feed(&job, (enum job_state)s, (enum job_event)e) != DO_REPORT;
        cr_expect_gt(uses, 0, "%s", job_event_name[e]);
    }
}

Test(machine, is_the_only_writer_of_a_jobs_state)
{
    /* flights count states and name them; they never assign one (style.md) */
    FILE *found = popen(
        "grep -nE '(->|\\.)state = ' worker/*.c worker/providers/*.c 2>/dev/null | grep -E 'job(->|\\.)state = ' |"
        " grep -v '^worker/machine.c:' | wc -l",
        "r");
    char line[32] = "";

    cr_assert_not_null(found);
    cr_expect_not_null(fgets(line, sizeof(line), found));
    cr_expect_eq(pclose(found), 0);
    cr_expect_str_eq(line, "0\n");
    found = popen("grep -c 'job->state = ' worker/machine.c", "r");
    cr_assert_not_null(found);
    cr_expect_not_null(fgets(line, sizeof(line), found));
    (void)pclose(found);
    cr_expect_str_eq(line, "1\n", "machine.c writes it in one place");
}
