/* machine.c - the table of machine.h and the one function that applies it. */
#include "worker/machine.h"

const char *const job_state_name[JOB_STATE_COUNT] = {
#define X(name, word) [name] = word,
    JOB_STATES(X)
#undef X
};
const char *const job_event_name[EV_COUNT] = {
#define X(name) [name] = #name,
    JOB_EVENTS(X)
#undef X
};
const char *const job_action_name[DO_COUNT] = {
#define X(name) [name] = #name,
    JOB_ACTIONS(X)
#undef X
};

struct rule {
    enum job_state in;
    enum job_event on;
    enum job_state to;
    enum job_action then;
};

static const struct rule rules[] = {
    { JOB_CLAIMED, EV_READY, JOB_STARTING, DO_START },
    { JOB_CLAIMED, EV_DRAIN, JOB_RETURNED, DO_PUT_BACK },

    { JOB_STARTING, EV_GO, JOB_SUBMITTING, DO_SUBMIT }, /* the attempt is on disk */
    { JOB_STARTING, EV_DOOMED, JOB_SETTLING, DO_SETTLE },
    { JOB_STARTING, EV_RESUME, JOB_WAITING, DO_ARM },
    { JOB_STARTING, EV_PARKED, JOB_SETTLING, DO_SETTLE },
    { JOB_STARTING, EV_UNKNOWN, JOB_SETTLING, DO_SETTLE },
    { JOB_STARTING, EV_LOST, JOB_RECONCILING, DO_RECONCILE },
    { JOB_STARTING, EV_BUSY, JOB_RETURNED, DO_PUT_BACK },
    { JOB_STARTING, EV_FINISHED, JOB_CLOSED, DO_FORGET },
    { JOB_STARTING, EV_ASK_AGAIN, JOB_STARTING, DO_START_AGAIN },
    { JOB_STARTING, EV_DRAIN, JOB_RETURNING, DO_HAND_BACK }, /* mine, never sent */

    { JOB_SUBMITTING, EV_ASK_AGAIN, JOB_STARTING, DO_START_AGAIN }, /* rule 7: beat, ask, send */
    { JOB_SUBMITTING, EV_PENDING, JOB_NOTING, DO_CHECKPOINT },      /* no poll before the reference is on disk */
    { JOB_SUBMITTING, EV_DONE, JOB_COLLECTING, DO_COLLECT },
    { JOB_SUBMITTING, EV_FAILED, JOB_SETTLING, DO_SETTLE },
    { JOB_SUBMITTING, EV_REFUSED, JOB_SETTLING, DO_SETTLE },
    { JOB_SUBMITTING, EV_CUT, JOB_SETTLING, DO_SETTLE }, /* unknown: never repeated blindly */
    { JOB_SUBMITTING, EV_LOST, JOB_RECONCILING, DO_RECONCILE },

    { JOB_RECONCILING, EV_PENDING, JOB_NOTING, DO_CHECKPOINT }, /* it arrived: as if it had been answered */
    { JOB_RECONCILING, EV_CUT, JOB_SETTLING, DO_SETTLE },       /* a no proves nothing: unknown */

    { JOB_NOTING, EV_SAVED, JOB_WAITING, DO_ARM },
    { JOB_NOTING, EV_STALE, JOB_RETURNED, DO_DROP }, /* kiln_checkpoint has kept the reference as evidence */
    { JOB_NOTING, EV_FINISHED, JOB_CLOSED, DO_FORGET },
    { JOB_NOTING, EV_FAILED, JOB_SETTLING, DO_SETTLE },    /* PostgreSQL cannot keep this reference */
    { JOB_NOTING, EV_DB_DOWN, JOB_NOTING, DO_CHECKPOINT }, /* keep asking; the note guards it */

    { JOB_WAITING, EV_TICK, JOB_POLLING, DO_POLL },
    { JOB_WAITING, EV_DRAIN, JOB_RETURNING, DO_HAND_BACK },
    { JOB_WAITING, EV_STALE, JOB_RETURNED, DO_DROP },    /* taken over, or ended, while I was not looking */
    { JOB_WAITING, EV_FINISHED, JOB_CLOSED, DO_FORGET }, /* canceled by its owner */

    { JOB_POLLING, EV_PENDING, JOB_WAITING, DO_ARM },
    { JOB_POLLING, EV_GARBLED, JOB_WAITING, DO_ARM }, /* asking again is free */
    { JOB_POLLING, EV_DONE, JOB_COLLECTING, DO_COLLECT },
    { JOB_POLLING, EV_FAILED, JOB_SETTLING, DO_SETTLE },
    { JOB_POLLING, EV_REFUSED, JOB_SETTLING, DO_SETTLE },   /* it failed there, and failed work is free there */
    { JOB_POLLING, EV_DRAIN, JOB_RETURNING, DO_HAND_BACK }, /* queued for its turn, no request is out */
    { JOB_POLLING, EV_FINISHED, JOB_CLOSED, DO_FORGET },    /* the same, canceled by its owner */
    { JOB_POLLING, EV_STALE, JOB_RETURNED, DO_DROP },       /* the same, taken over or ended */

    { JOB_COLLECTING, EV_STORED, JOB_SETTLING, DO_SETTLE },
    { JOB_COLLECTING, EV_FAILED, JOB_SETTLING, DO_SETTLE },
    { JOB_COLLECTING, EV_AGAIN, JOB_WAITING, DO_ARM },

    { JOB_SETTLING, EV_COMMITTED, JOB_CLOSED, DO_FORGET },
    { JOB_SETTLING, EV_FINISHED, JOB_CLOSED, DO_FORGET },
    { JOB_SETTLING, EV_REQUEUED, JOB_RETURNED, DO_REQUEUE },
    { JOB_SETTLING, EV_STALE, JOB_RETURNED, DO_DROP },
    { JOB_SETTLING, EV_DB_DOWN, JOB_SETTLING, DO_PARK },

    { JOB_RETURNING, EV_HANDED_BACK, JOB_RETURNED, DO_PUT_BACK },
    { JOB_RETURNING, EV_FINISHED, JOB_CLOSED, DO_FORGET },
    { JOB_RETURNING, EV_STALE, JOB_RETURNED, DO_DROP },
    { JOB_RETURNING, EV_DB_DOWN, JOB_RETURNING, DO_HAND_BACK },
};

/* The only place that writes job->state. Returns what the flight has to do next. */
enum job_action job_on(struct job *job, enum job_event event)
{
    for (size_t i = 0; i < ARRAY_LEN(rules); i++) {
        if (rules[i].in == job->state && rules[i].on == event) {
            job->state = rules[i].to;
            return rules[i].then;
        }
    }
    return DO_REPORT;
}

bool job_is_over(const struct job *job)
{
    return job->state == JOB_CLOSED || job->state == JOB_RETURNED;
}

bool job_is_unsent(enum job_state state)
{
    return state == JOB_CLAIMED || state == JOB_STARTING;
}
