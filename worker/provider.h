/* provider.h - what an adapter is: a table of pure functions, request out, answer in.
 *
 * No sockets, clocks, retries, logging, credentials or database: the flight has those, once, for everybody. What a
 * function returns lives in the arena it was given or is a json_t that the caller then owns. Adapters may be called on
 * any thread, with an arena of that thread's own. Answers are judged by the normalised results of providers/README.md.
 * A slot left out means: the operation has no such step. */
#ifndef KILN_PROVIDER_H
#define KILN_PROVIDER_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/base/arena.h"
#include "common/base/err.h"
#include "common/base/json.h"
#include "common/core/catalog.h"

enum { PROVIDER_PARTS = 40, PROVIDER_OUTPUTS = 10 };

struct job_input {     /* a file parameter, fetched and checked */
    const char *field; /* "image" */
    const char *path;  /* its bytes on disk */
    const char *mime;
    int64_t bytes;
    const char *text; /* base64 or a data: URI, where the catalogue says "as"; else NULL */
};

struct job_spec { /* all borrowed */
    const char *job_id;
    const struct operation *op;
    const json_t *params; /* normalised */
    int64_t units;
    const struct job_input *inputs;
    size_t input_count;
    unsigned blanks;    /* of a poll: how many before it, in a row, showed no trace of the job (answer.is_blank) */
    const json_t *kept; /* an object: what the answers to `prepare` left; NULL: nothing yet */
};

struct http_part { /* of a form; path: a file's bytes */
    const char *name, *value, *path, *filename, *mime;
};

struct http_req {       /* path NULL: incomplete, refused by the flight (out of memory or a bad reference) */
    const char *method; /* NULL: GET */
    const char *path;   /* below the provider's base URL; begins with '/' */
    const char *url;    /* of `prepare` only, instead of it: another host, that an answer named; never gets the key */
    const char *accept; /* NULL: none sent */
    const json_t *headers;         /* more of them, name -> text; borrowed; NULL: none */
    json_t *body;                  /* owned by the caller then; NULL: none */
    const char *form;              /* instead of it: application/x-www-form-urlencoded */
    const struct http_part *parts; /* instead of it: multipart/form-data; their texts may be borrowed from body */
    size_t part_count;
};

struct http_answer { /* all borrowed */
    long status;
    const char *const *headers; /* "name: value", names in lower case */
    size_t header_count;
    const char *data; /* the body; NULL when it went to a file */
    size_t len;
    const char *file;   /* path of the body, when it is the artifact itself */
    const json_t *json; /* NULL: the body is not JSON */
    int64_t wall_ms;    /* local clock, for Retry-After without a Date header */
};
const char *http_answer_header(const struct http_answer *in, const char *name); /* lower case; NULL */

enum outcome { OUT_DONE, OUT_PENDING, OUT_RETRY, OUT_FAIL };

struct output {         /* one artifact of an answer; the first that is set: */
    const char *url;    /* to be downloaded, without the key */
    const char *base64; /* borrowed from the answer */
    size_t base64_len;
    bool is_body;                      /* the answer's body (data or file) is the artifact */
    const char *seed, *revised_prompt; /* NULL */
    bool is_flagged;                   /* nsfw, says the provider */
};

struct answer {
    enum outcome outcome;
    enum err code;          /* ERR_OK for done and pending */
    const char *message;    /* the provider's words, for people; NULL */
    int retry_after_s;      /* 0: no hint */
    const char *ref;        /* needed to poll; from the body alone */
    const char *request_id; /* x-request-id and the like */
    int percent;            /* -1: not told */
    bool is_unknown_word;   /* a status nobody documented: log it */
    bool leaves_open;       /* of a submit: the page says that work may have begun, so on_unknown decides */
    bool is_once;           /* of a submit: worth one more try, not five */
    bool is_free;           /* of a submit: the page says that this error is not charged */
    bool is_blank;          /* of a poll: pending, but the answer shows no trace of the job */
    bool is_terminal;       /* of a poll: the provider itself says that the job failed (not: the poll failed) */
    struct output outputs[PROVIDER_OUTPUTS];
    size_t output_count;
    const json_t *usage;   /* borrowed; NULL */
    int64_t cost_microusd; /* -1: not told */
};

struct provider_health { /* what a check says: request out, answer in, nothing spent */
    enum err code;       /* ERR_OK: reachable and the key is good; ERR_AUTH and so on */
    const char *message; /* the provider's words; NULL */
    bool has_balance;
    double balance;
    const char *unit; /* of the balance: "credits"; NULL */
};

/* What has to be at the provider before the paid request: an input uploaded, say. Free steps, each a request and its
 * answer, in front of `submit` and of the attempt (protocol.md, step 4): nothing is on record yet, so a death or a
 * failure just does them all again. The flight asks `prepare` for the next request until it says false. Steps have no
 * number: spec->kept is all that an adapter knows of those before, and on_prepare writes there what submit will need
 * ({"image": "id…"}). on_prepare answers OUT_DONE (go on), OUT_RETRY (soon again from what `kept` says then; for good,
 * the job goes back to the queue) or OUT_FAIL (the job fails, uncharged); only outcome, code, message and
 * retry_after_s are read. A request goes to the base URL with the key (path), or guarded and without it (url).
 * At most PROVIDER_STEPS answers a job. */
enum { PROVIDER_STEPS = 48 };

struct provider {
    const char *name; /* as the catalogue's "adapter", or its "provider" */
    bool (*prepare)(struct arena *a, const struct job_spec *spec, struct http_req *out); /* false: nothing more to do */
    struct answer (*on_prepare)(struct arena *a, const struct job_spec *spec, const struct http_answer *in,
                                json_t *kept); /* spec->kept, to be written */
    struct http_req (*submit)(struct arena *a, const struct job_spec *spec);
    struct answer (*on_submit)(struct arena *a, const struct job_spec *spec, const struct http_answer *in);
    struct http_req (*poll)(struct arena *a, const struct job_spec *spec, const char *ref);
    struct answer (*on_poll)(struct arena *a, const struct job_spec *spec, const struct http_answer *in);
    struct answer (*on_download)(struct arena *a, const struct job_spec *spec,
                                 const struct http_answer *in); /* NULL: provider_download */
    /* What became of this job's submit, whose answer is lost? A free request that finds it by what submit sent of ours
     * (job_id). OUT_PENDING with `ref`: it arrived. Everything else proves nothing. NULL: it cannot be asked. */
    struct http_req (*reconcile)(struct arena *a, const struct job_spec *spec);
    struct answer (*on_reconcile)(struct arena *a, const struct job_spec *spec, const struct http_answer *in);
    struct http_req (*cancel)(struct arena *a, const struct job_spec *spec, const char *ref);
    /* NULL: provider_check and provider_on_check, by the catalogue's "check" */
    struct http_req (*check)(struct arena *a, const struct catalog_provider *p);
    struct provider_health (*on_check)(struct arena *a, const struct catalog_provider *p, const struct http_answer *in);
};

const struct provider *provider_find(const char *name); /* providers/all.c; NULL */

/* Shared by the adapters, from providers/README.md. */
struct answer answer_by_status(struct arena *a,
                               const struct http_answer *in); /* rule 5: by status alone, with the wait hint */
struct answer
answer_bad_response(struct arena *a,
                    const char *message); /* OUT_FAIL / bad_response (submit); polls turn it into OUT_RETRY */
int answer_retry_after_s(const struct http_answer *in); /* rule 2, headers only; 0: none */
struct answer provider_download(struct arena *a, const struct job_spec *spec,
                                const struct http_answer *in);                     /* 2xx: done, is_body */
struct http_req provider_check(struct arena *a, const struct catalog_provider *p); /* path NULL: there is no check */
struct provider_health provider_on_check(struct arena *a, const struct catalog_provider *p,
                                         const struct http_answer *in);
struct word {
    const char *word;
    enum outcome outcome;
};
bool word_find(const struct word *words, size_t count, const char *word,
               enum outcome *out); /* false: unknown, rule 6 */
#endif
