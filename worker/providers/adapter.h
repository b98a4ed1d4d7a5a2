/* adapter.h - what the adapters share beyond provider.h: small readers and builders, nothing with a memory.
 *
 * Every function is pure; texts land in the arena or are borrowed from the answer. A failed allocation shows as NULL
 * and makes the request or the answer incomplete, which the flight refuses. */
#ifndef KILN_ADAPTER_H
#define KILN_ADAPTER_H
#include "worker/provider.h"

enum { REF_BYTES = 128, MESSAGE_BYTES = 1000, REVISED_BYTES = 16384 };

/* request.c: whole requests from the catalogue's entry of the operation */
struct http_req request_submit(struct arena *a, const struct job_spec *spec); /* JSON, multipart or form, as it says */
struct http_req request_poll(struct arena *a, const struct job_spec *spec, const char *ref); /* {ref} filled in */
struct http_req request_cancel(struct arena *a, const struct job_spec *spec,
                               const char *ref); /* the catalogue's "cancel"; path NULL: there is none */
/* New: the parameters as a JSON body, each where its "to" says; files by their texts. For adapters whose body has a
 * shape of its own and that then add to it. NULL: out of memory, or a file is missing. */
json_t *request_body(const struct job_spec *spec);
/* The path of a call: {name} and {+name} from the parameters, {ref}; NULL: one is missing or no segment. */
char *request_path(struct arena *a, const struct job_spec *spec, const char *path, const char *ref);
bool request_is_async(const struct job_spec *spec); /* this very job; operation.is_async says only that some are */

/* reads.c: values out of a JSON answer by the catalogue's "reads" and "errors" */
const json_t *read_value(const struct job_spec *spec, const json_t *json, const char *name); /* "status"; NULL */
const char *read_ref(struct arena *a, const struct job_spec *spec, const json_t *json);      /* checked; NULL: none */
void read_outputs(struct arena *a, const struct job_spec *spec, const json_t *json,
                  struct answer *out); /* URLs, data: URIs and base64 at "outputs" become outputs */
void read_outputs_at(struct arena *a, const struct job_spec *spec, const json_t *json, const json_t *pointers,
                     struct answer *out);            /* the same from other places */
bool text_holds(const char *text, const char *part); /* in any case; NULL holds nothing */
bool read_error(struct arena *a, const struct job_spec *spec, const struct http_answer *in,
                struct answer *out); /* the first row of "errors" that fits; false: none */
struct answer read_failure(struct arena *a, const struct job_spec *spec,
                           const struct http_answer *in); /* or by status */
/* "words": pending, done, or a failure with its code. False: nobody documented it. */
bool read_word(const struct job_spec *spec, const char *word, enum outcome *outcome, enum err *code);
const json_t *pointer_find(const json_t *json, const json_t *pointers); /* the first that is there; NULL */

/* answer.c */
struct answer answer_of(enum outcome outcome, enum err code);                        /* nothing told but that */
struct answer answer_for_status(long status);                                        /* rule 5, no body, no hints */
struct answer answer_unreadable(struct arena *a, bool is_poll, const char *message); /* rule 4 */
char *answer_text(struct arena *a, const json_t *text, size_t max_bytes); /* cleaned; NULL when it is no string */
char *answer_number(struct arena *a, const json_t *value); /* a seed: decimal text, from a number or a string */
bool answer_is_2xx(const struct http_answer *in);
bool answer_says_json(const struct http_answer *in);              /* by content-type */
bool url_is_usable(const struct job_spec *spec, const char *url); /* https; http only where the base URL is http too */
bool base64_is_media(const char *text, size_t len); /* by its first bytes; whether it is whole is seen later */
bool ref_is_segment(const char *ref);               /* [A-Za-z0-9_-], at most REF_BYTES */
#endif
