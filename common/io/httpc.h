/* httpc.h - curl multi on the loop: requests out, answers in; paid ones leave once.
 *
 * The client spreads transfers over several multi handles by host (dependencies.md, section 4), in two sets that never
 * share a connection: trusted hosts (the operator's base URLs) and guarded ones (given by users or providers), where
 * every dialled address is judged by netguard, also for reused connections. It never follows a redirect by itself.
 *
 * A request with `is_paid` is sent at most once (protocol.md, rule 8; httpc_wire.c says how). What the caller learns is
 * `fate`, which says what may have happened. Bytes of the answer go to memory (bounded by max_bytes; decoded size
 * counts) or, when `to_file` is set and the status is 2xx, to that file as they arrive, hashed on the way. Memory of a
 * request is freed after its callback returned. Completions are delivered from the loop, never from inside httpc_send.
 */
#ifndef KILN_HTTPC_H
#define KILN_HTTPC_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>
#include "common/base/err.h"
#include "common/base/text.h"

struct httpc;
struct httpc_call; /* a request under way; valid until its callback starts */

struct httpc_config {
    size_t multis;          /* per set; 0: 8 */
    size_t max_connections; /* kept open per multi; 0: 4096 */
    int64_t idle_ms;        /* a multi without calls for so long closes its connections; 0: 120 s */
    bool allow_private;     /* KILN_ALLOW_PRIVATE_ADDRESSES: the guard lets everything through */
    const char *user_agent; /* the header, "User-Agent: ..."; static */
    const char *ca_file;    /* trusted certificates instead of the system's; static; NULL: the system's */
};

enum httpc_fate {
    HTTPC_NOT_SENT, /* nothing left this machine: name, dial, TLS failed, or canceled before */
    HTTPC_CUT,      /* some of it may have been read; no complete answer came */
    HTTPC_ANSWERED, /* a complete answer is here */
};

struct httpc_part {                     /* of multipart/form-data; bytes are borrowed until the callback */
    const char *name, *filename, *mime; /* filename NULL: a text part */
    const char *data;
    size_t len;
    const char *path; /* instead of data: the file's bytes are streamed */
};

struct httpc_request {
    const char *method, *url;   /* borrowed during httpc_send only, like headers */
    const char *const *headers; /* "Name: value"; may be NULL */
    size_t header_count;
    const char *body; /* borrowed until the callback; NULL: none */
    size_t body_len;
    const struct httpc_part *parts; /* instead of body; borrowed until the callback */
    size_t part_count;
    bool is_paid;           /* sent once, never by curl again */
    bool is_guarded;        /* address checked; only http, https */
    int timeout_ms;         /* whole request; 0: 60 s */
    int connect_timeout_ms; /* 0: 10 s */
    int stall_ms;           /* after the first byte of the body: longest silence; 0: 30 s */
    size_t max_bytes;       /* of the answer's body; 0: 1 MiB */
    const char
        *to_file;  /* NULL: memory. Created 0600; fsync is store_keep's work. On no 2xx or an error it is removed */
    bool may_keep; /* with to_file: a body below 64 KiB may stay in memory instead (is_kept) */
    void (*on_sent)(void *ctx); /* the request left completely; may be NULL */
};

struct httpc_answer {
    enum err err; /* ERR_OK when fate is ANSWERED; ERR_TIMEOUT, ERR_TOO_LARGE, ERR_INPUT_UNREACHABLE (guard), ERR_IO
                     (file), ERR_LOST … */
    enum httpc_fate fate;
    long status;
    const char *body; /* NUL-terminated; borrowed */
    size_t body_len;
    const char *const *headers; /* "name: value", names in lower case, of the last response */
    size_t header_count;
    bool is_kept; /* to_file was not written: the body is `body`, for httpc_take_body */
    bool in_file; /* the body went to to_file */
    int64_t file_bytes;
    char file_sha256[SHA256_HEX];
    int64_t total_ms;
    const char *detail; /* what curl said, for logs and error messages */
    struct httpc_call *call;
};

typedef void httpc_fn(void *ctx, const struct httpc_answer *answer);

/* libcurl for the program: once, before there are threads. All that is sent is sent by the thread that sends first.
 * False: libcurl cannot. */
bool httpc_init(void);
struct httpc *httpc_new(uv_loop_t *loop, const struct httpc_config *config);
void httpc_close(struct httpc *h, void (*on_closed)(void *ctx), void *ctx); /* cancels what is under way: ERR_CLOSED */
enum err httpc_send(struct httpc *h, const struct httpc_request *request, httpc_fn *fn, void *ctx,
                    struct httpc_call **out);
void httpc_cancel(struct httpc_call *call); /* the callback comes at the next turn, with ERR_CANCELED and its fate */
size_t httpc_active(const struct httpc *h);
bool httpc_is_full(
    const struct httpc *h); /* answers wait in their sockets, for more bodies are out than memory is for */
size_t httpc_body_bytes(const struct httpc *h); /* of answers that are in memory */
/* The body of an answer that is_kept becomes the caller's; once. It goes back by httpc_give_body, before httpc_close.
 * 768 are out at most (48 MiB): later answers wait in their sockets for one, and go to their files when none comes back
 * for a second. */
char *httpc_take_body(const struct httpc_answer *answer);
void httpc_give_body(struct httpc *h, char *body);                             /* NULL is fine */
const char *httpc_header(const struct httpc_answer *answer, const char *name); /* lower-case name; NULL: absent */
void httpc_test_forbid_private(struct httpc *h); /* tests only: takes allow_private back while connections are open */
#endif
