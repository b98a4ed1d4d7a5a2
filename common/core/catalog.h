/* catalog.h - the operations: parameters, limits, prices, schedules, outputs; the single source for all of them.
 *
 * schema/catalog/<provider>.json, embedded, with the files of an operator's folder laid over them (KILN_CATALOG: same
 * provider -> members replaced operation by operation, "lane", "base_url" and prices too). Read once at start;
 * immutable afterwards, so threads may read it. Everything returned is borrowed unless it says "new". */
#ifndef KILN_CATALOG_H
#define KILN_CATALOG_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/base/err.h"
#include "common/base/json.h"
#include "common/core/media.h"

struct catalog;

enum { CATALOG_KEYS_MAX = 32, KEY_PRINT = 9 };
struct catalog_key {       /* one key of a provider */
    char print[KEY_PRINT]; /* its fingerprint: eight hex digits of its SHA-256; may be shown, logged and stored */
    const char *text;      /* secret */
};

struct catalog_provider { /* a lane */
    const char *name;     /* "stability" */
    const char *adapter;  /* in worker/providers; mostly the name, "generic" where the catalogue is all there is */
    const char *base_url; /* after *_BASE_URL; no trailing slash */
    const char *base_url_env, *key_env;
    const char *auth_header;                /* "Authorization" */
    const char *auth_prefix;                /* "Bearer " */
    const char *key;                        /* secret, the first of keys; NULL: not configured; "": it takes none */
    const struct catalog_key *keys;         /* STABILITY_API_KEY=a,b or lines of a file; each once */
    size_t key_count;                       /* 0: not configured, or it takes none */
    int64_t concurrency;                    /* of the lane; 0: no limit */
    int64_t budget_count, budget_window_ms; /* requests per window, polls included; 0: none */
    const json_t *doc;                      /* its whole document: "check" */
};

const struct catalog_key *catalog_key_find(const struct catalog_provider *p, const char *print); /* NULL: none such */
/* A provider's reference is bound to the key that brought it, so it is written down with that key's fingerprint. New:
 * "key:3fa1b2c3:REF"; the reference as it is when there is no key. */
char *catalog_key_bind(const struct catalog_key *key, const char *ref);
/* The provider's part of what catalog_key_bind made; `print` gets the fingerprint, "" when there is none. */
const char *catalog_key_unbind(const char *bound, char print[KEY_PRINT]);

enum operation_unknown { UNKNOWN_RETRY, UNKNOWN_FAIL };

/* The call that these parameters make: "submit" and "poll", with the first of "calls" that fits laid over them. */
struct catalog_call {
    const char *method, *path, *body, *accept; /* body: "json" "multipart" "form" "none"; accept NULL: none */
    const json_t *headers, *constants, *omit;  /* NULL: none */
    const json_t *params; /* "to", "append" and "as" that only this call has; NULL: none. catalog_way reads them */
    bool is_async;        /* below: only then */
    const char *poll_method, *poll_path, *poll_accept;
    const json_t *poll_headers;
};

struct catalog_params; /* what catalog_validate knows of the parameters beforehand */
struct operation {
    const char *name; /* "stability.upscale.creative" */
    const struct catalog_provider *provider;
    const char *method, *path; /* of the submit, below base_url; catalog_call says those of one job */
    bool is_async;             /* may answer a reference that is polled; catalog_call says it of one job */
    bool answers_bytes;        /* a 2xx to the submit (or, for polled ones, to the poll) is the file itself */
    bool failed_is_free; /* a failure reported by the provider may be tried afresh (design.md, unknown outcomes) */
    enum operation_unknown on_unknown; /* default by cost: above 0.10 USD a call -> fail */
    bool has_one_call;                 /* for all parameters: `call` */
    struct catalog_call call;
    int64_t submit_timeout_ms, poll_timeout_ms, poll_first_ms, poll_every_ms,
        poll_grow_to_ms, /* above every: polls come each quarter of the job's age, up to this; 0: they do not grow */
        deadline_s;      /* from start; the job's own adds 24 h in the queue */
    const char *output;  /* "image" "audio" "model" "file"; "file": kept as it comes, not decoded */
    int64_t max_result_bytes, max_result_pixels;
    const json_t *doc; /* the operation's whole entry */
    const struct catalog_params *params;
};

/* Reads the embedded files and the overlay. Keys and base URLs come from `env` (getenv in the programs). On failure
 * `problem` names file, operation and field. */
enum err catalog_load(const char *overlay_dir, const char *(*env)(const char *name), struct catalog **out,
                      char *problem, size_t problem_size);
void catalog_free(struct catalog *c);

size_t catalog_count(const struct catalog *c);
const struct operation *catalog_at(const struct catalog *c, size_t i);           /* sorted by name */
const struct operation *catalog_find(const struct catalog *c, const char *name); /* NULL */
size_t catalog_provider_count(const struct catalog *c);
const struct catalog_provider *catalog_provider_at(const struct catalog *c, size_t i);
const struct catalog_provider *catalog_provider_find(const struct catalog *c, const char *name);

/* Prompt templates (template.h): name -> checked template; never NULL. */
const json_t *catalog_templates(const struct catalog *c);

struct catalog_fault {
    char field[96];    /* "params.aspect_ratio" */
    char message[256]; /* must be one of 1:1, 3:2, …, got "7:1" */
};
struct catalog_faults {
    struct catalog_fault items[16];
    size_t count; /* may exceed 16: the rest was not kept */
};

void faults_add(struct catalog_faults *faults, const char *field, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* New: the parameters normalised (defaults filled in, numbers as the catalogue types them); NULL when faults were
 * found. File fields are checked for shape only (UUID, data:, http:, https:). Unknown names are faults. */
json_t *catalog_validate(const struct operation *op, const json_t *params, struct catalog_faults *faults);

struct catalog_price {
    int64_t unit_mc;            /* for one unit (image); > 0 unless the catalogue says free */
    int64_t units;              /* how many the job asks for */
    int64_t unit_cost_microusd; /* what the provider charges us for one */
    int64_t cache_mc;           /* for one unit of an earlier result; at most unit_mc */
    const char *version;
};
enum err catalog_price(const struct operation *op, const json_t *params,
                       struct catalog_price *out); /* ERR_ARGUMENT: no price, so refused */

struct catalog_call catalog_call(const struct operation *op, const json_t *params);
/* "to", "append" or "as" of a parameter in this call; NULL: it has none. */
const json_t *catalog_way(const struct catalog_call *call, const struct operation *op, const char *name,
                          const char *member);

/* File fields of an operation, and whether a file fits one. */
struct catalog_input {
    const char *name; /* "image" */
    bool is_required, is_list;
    int64_t max_bytes;
};
size_t catalog_inputs(const struct operation *op, struct catalog_input *out, size_t max);
bool catalog_input_fits(const struct operation *op, const char *field, const struct media_head *head, int64_t bytes,
                        char *message, size_t message_size); /* false: message says the limit */
/* What the rules say of files, with all of them at hand: limits that depend on parameters, and one file's size against
 * another's. Heads without a size are judged by nobody; alpha only where is_head_read. */
struct catalog_file {
    const char *field;
    size_t index; /* in a list; SIZE_MAX: the value itself */
    struct media_head head;
    int64_t bytes;
    bool is_head_read; /* false: kind and size are as recorded */
};
bool catalog_files_fit(const struct operation *op, const json_t *params, const struct catalog_file *files, size_t count,
                       struct catalog_faults *faults); /* false: there are faults */
/* What an unknown outcome of this very job becomes: the catalogue's word, else by what the call costs (above 0.10 USD:
 * fail). operation.on_unknown is the same for the dearest call that the operation allows. */
enum operation_unknown catalog_unknown(const struct operation *op, const struct catalog_price *price);

int64_t catalog_cost_microusd(const struct operation *op, const json_t *params,
                              const json_t *usage); /* from the answer's `usage`; -1: the page gives no token price */

/* Why this result is one of the pictures that the provider shows instead of a result ("placeholders"); NULL: it is not
 * known as one. */
const char *catalog_placeholder(const struct operation *op, const char *sha256, const char *blurhash);

json_t *catalog_describe(const struct operation *op); /* new: what GET /v1/operations/{name} shows: JSON Schema of
                                                         params, price, limits, typical time */
#endif
