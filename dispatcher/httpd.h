/* httpd.h - libmicrohttpd on the loop: limits, header check, deadlines, suspended answers, graceful stop.
 *
 * A request walks: on_head (the headers are here; routing, authentication) -> request_go_on -> body -> on_request ->
 * request_reply -> on_done. on_head and on_request may answer at once or later from the loop; between, the connection
 * is suspended and costs nothing, and the request cannot vanish: its pointer is good until it is answered. While a body
 * is being received the client may go; then on_done comes without an answer (status 0).
 *
 * What libmicrohttpd 0.9.75 leaves open is closed here (dependencies.md, section 1): who drips bytes is cut off at a
 * deadline of ours, framing that two parsers could read in two ways is refused with 400, bodies are bounded also when
 * chunked. TLS, HTTP/2 and NUL or bare LF in headers are a proxy's work. */
#ifndef KILN_HTTPD_H
#define KILN_HTTPD_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>
#include "common/base/arena.h"
#include "common/base/err.h"
#include "common/base/text.h"

struct httpd;
struct MHD_Connection;
struct MHD_Response;
struct httpd_conn;
struct route;

enum { REQUEST_ARGS = 2, REQUEST_ANSWER_HEADERS = 16, HTTPD_HEADER_BYTES = 8192 };

enum request_stage {
    REQUEST_HEAD, /* on_head was called, request_go_on not yet */
    REQUEST_BODY, /* being received */
    REQUEST_RUN,  /* on_request was called */
};

struct request {
    struct arena *arena;
    const char *method, *path; /* path: as sent, without the query */
    const char *query;         /* raw; "" */
    char id[UUID_TEXT];        /* Request-Id of the answer */
    int64_t began_us;          /* clock_mono_us */
    struct buf body;           /* whole, unless a sink takes it */
    void *ctx;                 /* the httpd's */

    /* written by load */
    size_t load_bytes; /* set aside for its body */
    bool is_at_work;

    /* written by routes and auth */
    const struct route *route;      /* NULL: none fits */
    const char *args[REQUEST_ARGS]; /* what stood in the pattern's braces, decoded */
    char app[UUID_TEXT];            /* "" without a key */
    unsigned scopes;
    void (*auth_done)(struct request *r); /* auth's continuation while it asks PostgreSQL */
    struct request *auth_next;

    /* written by handlers, between request_go_on and the answer */
    bool (*sink)(struct request *r, const char *data, size_t len); /* instead of `body`; false: stop, answered */
    void (*on_over)(struct request *r); /* the request is over, answered or not: free what `data` holds */
    void *data;

    /* httpd's own */
    struct httpd *httpd;
    struct httpd_conn *conn;
    struct MHD_Connection *connection;
    struct MHD_Response *response;
    enum request_stage stage;
    bool is_head_over, is_suspended, is_resumed, is_counted, is_closing;
    bool is_plain;                    /* HTTP/1.0: no chunks */
    bool is_leaving;                  /* libmicrohttpd, at the next turn */
    const char *host, *if_none_match; /* kept of the headers of one that has left: its connection is NULL */
    size_t body_limit, body_bytes;
    int status; /* of the answer; 0: none yet */
    struct request_header {
        const char *name, *value;
    } headers[REQUEST_ANSWER_HEADERS];
    size_t header_count;
    int64_t answer_bytes;
    struct buf stream; /* written and not yet taken, from stream_at on */
    size_t stream_at;
    bool is_stream, is_stream_over;
};

struct httpd_config {
    uv_loop_t *loop;
    const char *host;       /* numeric address */
    int port;               /* 0: any; see httpd_port */
    size_t max_connections; /* what is more waits in the kernel's queue, or is closed, unanswered */
    void (*on_head)(struct request *r);
    void (*on_request)(struct request *r);
    void (*on_refused)(struct request *r, enum err code, const char *detail); /* answer it: limits, framing */
    void (*on_done)(struct request *r);                                       /* after the answer: count and log */
    void *ctx;
};

enum err httpd_new(const struct httpd_config *config, struct httpd **out, char *problem, size_t problem_size);
int httpd_port(const struct httpd *h);
size_t httpd_in_flight(const struct httpd *h);   /* requests begun and not over */
size_t httpd_connections(const struct httpd *h); /* open ones */
/* Stops listening; what is open is answered with Connection: close. on_idle comes when no request is open. */
void httpd_drain(struct httpd *h, void (*on_idle)(void *ctx), void *ctx);
/* Closes everything; there must be no suspended request (httpd_drain's on_idle came). */
void httpd_close(struct httpd *h, void (*on_closed)(void *ctx), void *ctx);

const char *request_header(const struct request *r, const char *name); /* NULL: absent */
/* Decoded in the arena; NULL: absent. A value that cannot be decoded is "" with *bad set (may be NULL). */
const char *request_query(struct request *r, const char *name, bool *bad);
/* The first name in the query that is not in the comma-separated list, cut and cleaned; NULL: all are known. */
const char *request_query_unknown(struct request *r, const char *known);
bool request_is_head(const struct request *r);

/* The headers are fine: receive up to `limit` bytes of body within `body_ms`, then on_request. */
void request_go_on(struct request *r, size_t limit, int64_t body_ms);
size_t request_content_length(const struct request *r); /* 0: absent or chunked */
void request_close(struct request *r);                  /* the connection ends with the answer */
void request_pause(struct request *r);                  /* from the sink: no more bytes until */
void request_resume(struct request *r);                 /* this */

/* It waits for an answer that may be long in coming: it leaves libmicrohttpd, keeps of its headers Host and
 * If-None-Match only, and is answered with Connection: close. The request stays until it is answered, as before. */
void request_park(struct request *r);

/* Both values are copied into the arena. */
void request_add_header(struct request *r, const char *name, const char *value);
/* The one answer. body NULL: empty; its bytes are taken over. */
void request_reply(struct request *r, int status, const char *mime, struct buf *body);
/* `length` bytes of a file from `offset`; fd is taken over. */
void request_reply_file(struct request *r, int status, const char *mime, int fd, int64_t offset, int64_t length);
/* The one answer, without an end for now: text/event-stream. It may vanish at any time from here on; on_over says so.
 * What is written waits in memory while the client does not read, at most HTTPD_STREAM_BYTES: false, and the stream
 * ends with what has gone out. */
enum { HTTPD_STREAM_BYTES = 256 << 10 };
void request_stream(struct request *r);
bool request_stream_write(struct request *r, const char *data, size_t len);
void request_stream_end(struct request *r); /* after what was written, which has some seconds to go out */
#endif
