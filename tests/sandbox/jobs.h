/* jobs.h - what was accepted and can be asked for later: Stability generations, Leonardo generations, and the
 * pictures behind OpenAI's URLs. A few hundred bytes each, at most max_jobs of them; beyond, the oldest go. */
#ifndef SANDBOX_JOBS_H
#define SANDBOX_JOBS_H
#include "faults.h"
#include "picture.h"

struct job {
    struct job *older, *newer; /* the table's */
    char id[68];
    char account[32];                        /* "provider:fingerprint" of the key that made it */
    char *prompt;                            /* with its magic words: polls and downloads obey them too */
    char *facts;                             /* provider's own JSON members to repeat on polls, may be NULL */
    struct blob *input;                      /* upscales */
    int64_t created_ms, done_ms, expires_ms; /* sandbox clock; done_ms = INT64_MAX never completes */
    uint64_t seed;
    int width, height, count;
    int64_t shaped; /* bits of the outcome faults that held at submit, 1 << FW_x */
    enum picture_format format;
    enum picture_kind kind;
    bool is_canceled;      /* by its owner, before it was done; done_ms says when */
    bool is_sound, is_wav; /* Stability's audio */
    double seconds;
    int64_t price; /* millicents, to be given back when it fails */
};

struct jobs;
struct jobs *jobs_new(void);
void jobs_free(struct jobs *j);
void jobs_reset(struct jobs *j);
struct job *jobs_add(struct jobs *j, const struct job *job, size_t max); /* takes what the pointers own */
struct job *jobs_find(const struct jobs *j, const char *id);
struct job *jobs_newest(const struct jobs *j); /* then by job->older; NULL: none */
void jobs_drop(struct jobs *j, struct job *job);
size_t jobs_count(const struct jobs *j);

/* Input files by content: 10,000 upscales of one file hold it once. Takes the reference, returns one. */
struct blob *jobs_share_input(struct jobs *j, struct blob *input);

/* What to paint for picture number `index` of the job; the caller owns prompt and input in it. */
struct picture_spec job_picture(const struct job *job, int index);
#endif
