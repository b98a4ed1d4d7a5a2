/* faults.h - what is to go wrong, asked for by magic words in a prompt or by POST /_sandbox/faults.
 *
 * A prompt holds groups: [[fault:status=503,retry_after=2,times=1]]. Each group belongs to one phase (submit, poll,
 * download) and may be limited to its first N requests with the same tag. All groups that hold at a phase are laid over
 * each other into one struct fault. An unknown word is an error: a test that asks for a fault which does not exist
 * must not pass quietly. */
#ifndef SANDBOX_FAULTS_H
#define SANDBOX_FAULTS_H
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FAULT_WORDS(X)                                                                                                 \
    X(STATUS, "status")                                                                                                \
    X(RETRY_AFTER, "retry_after")                                                                                      \
    X(RETRY_AFTER_DATE, "retry_after_date")                                                                            \
    X(RETRY_AFTER_MS, "retry_after_ms")                                                                                \
    X(SHOULD_RETRY, "should_retry")                                                                                    \
    X(DELAY_MS, "delay_ms")                                                                                            \
    X(PAID, "paid")                                                                                                    \
    X(UNPAID, "unpaid")                                                                                                \
    X(HANG, "hang")                                                                                                    \
    X(DROP_BEFORE, "drop_before")                                                                                      \
    X(DROP_AFTER, "drop_after")                                                                                        \
    X(DROP_MID, "drop_mid")                                                                                            \
    X(DROP_LINE, "drop_line")                                                                                          \
    X(DROP_AT, "drop_at")                                                                                              \
    X(REUSE_CLOSE, "reuse_close")                                                                                      \
    X(SLOW_BODY, "slow_body")                                                                                          \
    X(SLOW_MS, "slow_ms")                                                                                              \
    X(TRUNCATE, "truncate")                                                                                            \
    X(CHUNKED, "chunked")                                                                                              \
    X(EMPTY_BODY, "empty_body")                                                                                        \
    X(BAD_JSON, "bad_json")                                                                                            \
    X(HTML, "html")                                                                                                    \
    X(MODERATED, "moderated")                                                                                          \
    X(UNKNOWN_STATUS, "unknown_status")                                                                                \
    X(POLL_STATUS, "poll_status")                                                                                      \
    X(DOWNLOAD_STATUS, "download_status")                                                                              \
    X(BLANK, "blank")                                                                                                  \
    X(WRONG_SIZE, "wrong_size")                                                                                        \
    X(WRONG_FORMAT, "wrong_format")                                                                                    \
    X(CUT_IMAGE, "cut_image")                                                                                          \
    X(FILTERED, "filtered")                                                                                            \
    X(NSFW, "nsfw")                                                                                                    \
    X(FAIL, "fail")                                                                                                    \
    X(EMPTY, "empty")                                                                                                  \
    X(PARTIAL, "partial")                                                                                              \
    X(NULL_JOB, "null_job")                                                                                            \
    X(MISSING_ID, "missing_id")                                                                                        \
    X(STUCK, "stuck")

enum fault_word {
#define X(member, name) FW_##member,
    FAULT_WORDS(X)
#undef X
        FW_COUNT
};

enum phase { PHASE_SUBMIT, PHASE_POLL, PHASE_DOWNLOAD, PHASE_CANCEL, PHASE_OTHER };
extern const char *const phase_name[];

struct fault {
    uint64_t set; /* bit per word */
    int64_t v[FW_COUNT];
    char code[48]; /* error name or code to use with status */
};

static inline bool fault_has(const struct fault *f, enum fault_word w)
{
    return (f->set >> w & 1U) != 0;
}

/* What a fault is matched against. Prompt and tag are NULL where nothing is known of them. */
struct fault_scene {
    enum phase phase;
    const char *provider, *path, *prompt, *tag;
    bool reused; /* the connection has carried a request before: reuse_close holds only then */
};

struct faults;
struct faults *faults_new(void);
void faults_free(struct faults *f);
void faults_reset(struct faults *f);     /* rules and counts */
void faults_end_rules(struct faults *f); /* the rules alone */

/* Everything that holds for this request; uses up `times`. False: an unknown word, named in `why`. */
bool faults_pick(struct faults *f, const struct fault_scene *scene, struct fault *out, char *why, size_t why_cap);
/* Before the body is read: does a rule without prompt ask for the connection to be dropped (`word`: FW_DROP_LINE when
 * only the request line is known, FW_DROP_BEFORE with the headers)? Uses up `times`. */
bool faults_drop_early(struct faults *f, const struct fault_scene *scene, enum fault_word word);

/* {"match":{"provider","path_contains","prompt_contains"},"fault":{...},"times":N} */
bool faults_add_rule(struct faults *f, const json_t *rule, char *why, size_t why_cap);
json_t *faults_json(const struct faults *f); /* the rules and how often each held */

/* [[job:TAG]] in a prompt; false when there is none. */
#define TAG_MAX 64
bool faults_tag(const char *prompt, char tag[TAG_MAX + 1]);
char *faults_plain_prompt(const char *prompt); /* without the magic words: what the picture is drawn from */
#endif
