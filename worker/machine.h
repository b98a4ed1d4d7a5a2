/* machine.h - the rules of a job in a worker's hands: state x event -> next state, what to do.
 *
 * States are named for what we are waiting for, events for what happened. Pure: no I/O, no clock, not even a log line.
 * It is the only writer of job->state. JOB_CLOSED has one way in (PostgreSQL said that the job is over by our settle,
 * or was over); a job that is somebody else's now, or goes back to the queue, is JOB_RETURNED. Steps: protocol.md. */
#ifndef KILN_MACHINE_H
#define KILN_MACHINE_H
#include <stdbool.h>
#include "common/base/text.h"

#define JOB_STATES(X)                                                                                                  \
    X(JOB_CLAIMED, "claimed")         /* fetching and checking inputs; free of charge */                               \
    X(JOB_STARTING, "starting")       /* kiln_start decides */                                                         \
    X(JOB_SUBMITTING, "submitting")   /* the paid request is about to leave, or has left */                            \
    X(JOB_RECONCILING, "reconciling") /* its answer is lost: the provider is asked whether it arrived */               \
    X(JOB_NOTING, "noting")           /* the reference is on its way to disk; no poll before that */                   \
    X(JOB_WAITING, "waiting")         /* for the next poll: no socket, no buffer */                                    \
    X(JOB_POLLING, "polling")                                                                                          \
    X(JOB_COLLECTING, "collecting") /* downloading, decoding, verifying, storing */                                    \
    X(JOB_SETTLING, "settling")     /* kiln_settle is asked until it answers */                                        \
    X(JOB_RETURNING, "returning")   /* kiln_handback is asked */                                                       \
    X(JOB_CLOSED, "closed")                                                                                            \
    X(JOB_RETURNED, "returned")

#define JOB_EVENTS(X)                                                                                                  \
    X(EV_READY)     /* inputs are here, or a final reason why they will not be */                                      \
    X(EV_GO)        /* start: the attempt is on disk, send it */                                                       \
    X(EV_DOOMED)    /* start: mine, but it cannot be sent (input, configuration) */                                    \
    X(EV_RESUME)    /* start: a reference is on disk */                                                                \
    X(EV_PARKED)    /* start: its outcome was noted by who had it before */                                            \
    X(EV_UNKNOWN)   /* start: sent by somebody who died; nobody knows */                                               \
    X(EV_LOST)      /* the same, or EV_CUT, and the provider can be asked what became of it */                         \
    X(EV_BUSY)      /* start: its holder lives; or it is not due yet */                                                \
    X(EV_FINISHED)  /* PostgreSQL: over */                                                                             \
    X(EV_ASK_AGAIN) /* start unanswered, or I was marked dead, or my heartbeat had a gap: beat, then ask */            \
    X(EV_PENDING)   /* the provider took it and gave a reference */                                                    \
    X(EV_DONE)      /* the provider has the result */                                                                  \
    X(EV_FAILED)    /* final: the provider says no, or there is no sense in asking again */                            \
    X(EV_REFUSED)   /* not sent, or refused: free to repeat */                                                         \
    X(EV_CUT)       /* sent, and nobody knows */                                                                       \
    X(EV_SAVED)     /* the reference is on disk */                                                                     \
    X(EV_STALE)     /* somebody else has it now */                                                                     \
    X(EV_TICK)                                                                                                         \
    X(EV_GARBLED) /* a poll without a readable answer: asking again is free */                                         \
    X(EV_STORED)                                                                                                       \
    X(EV_AGAIN) /* the result could not be fetched whole: poll again */                                                \
    X(EV_COMMITTED)                                                                                                    \
    X(EV_REQUEUED)                                                                                                     \
    X(EV_DB_DOWN)                                                                                                      \
    X(EV_DRAIN) /* it must not stay: this worker is leaving, or has not what the job needs */                          \
    X(EV_HANDED_BACK)

#define JOB_ACTIONS(X)                                                                                                 \
    X(DO_REPORT) /* no rule fits: our bug */                                                                           \
    X(DO_START)                                                                                                        \
    X(DO_START_AGAIN) /* after the next accepted heartbeat, with `unsent` */                                           \
    X(DO_SUBMIT)                                                                                                       \
    X(DO_RECONCILE) /* ask; a yes is EV_PENDING, anything else EV_CUT */                                               \
    X(DO_CHECKPOINT)                                                                                                   \
    X(DO_ARM) /* the timer for the next poll */                                                                        \
    X(DO_POLL)                                                                                                         \
    X(DO_COLLECT)                                                                                                      \
    X(DO_SETTLE)                                                                                                       \
    X(DO_PARK) /* note the outcome in Redis, settle again later */                                                     \
    X(DO_FORGET)                                                                                                       \
    X(DO_PUT_BACK)  /* Redis only: the claim returns to the queue */                                                   \
    X(DO_HAND_BACK) /* PostgreSQL first */                                                                             \
    X(DO_REQUEUE)   /* settled as a retry: back to the queue for later */                                              \
    X(DO_DROP)

enum job_state {
#define X(name, word) name,
    JOB_STATES(X)
#undef X
        JOB_STATE_COUNT
};
enum job_event {
#define X(name) name,
    JOB_EVENTS(X)
#undef X
        EV_COUNT
};
enum job_action {
#define X(name) name,
    JOB_ACTIONS(X)
#undef X
        DO_COUNT
};
extern const char *const job_state_name[JOB_STATE_COUNT];
extern const char *const job_event_name[EV_COUNT];
extern const char *const job_action_name[DO_COUNT];

struct job {
    char id[UUID_TEXT];
    enum job_state state; /* written by job_on only */
};

enum job_action job_on(struct job *job, enum job_event event);
bool job_is_over(const struct job *job);  /* closed or returned: nothing more will be asked of it */
bool job_is_unsent(enum job_state state); /* before the send: no request has left for the present attempt */
#endif
