/* server.h - one libmicrohttpd listener inside the libuv loop, and the exchange: one request with its answer.
 *
 * The handler is called once, when the body is complete. It answers with exchange_send, at once or later; until
 * then the connection is suspended and costs a few kilobytes. A waiting exchange can be left alone, woken by
 * exchange_wait, or given to the thread pool by exchange_paint. When the client goes away first, the exchange is
 * counted as canceled and dies; nobody may keep a pointer to one. */
#ifndef SANDBOX_SERVER_H
#define SANDBOX_SERVER_H
#include "counters.h"
#include "due.h"
#include "faults.h"
#include "gallery.h"

#include <jansson.h>
#include <microhttpd.h>
#include <uv.h>

struct sandbox;
struct server;
struct exchange;

#define HEADERS_MAX 12

struct conn {
    int fd;
    struct server *server;
    struct exchange *ex; /* the one under way */
    unsigned requests;   /* ever on this connection */
    bool is_gone;        /* the client has closed its side */
};

enum exchange_state { EX_READING, EX_WAITING, EX_READY, EX_CUT, EX_QUEUED };

struct exchange {
    struct exchange *prev, *next; /* the server's */
    struct server *server;
    struct sandbox *box;
    struct conn *conn;
    struct MHD_Connection *mhd;
    enum exchange_state state;
    bool is_suspended, is_begun, is_too_large, is_counted_gone, is_noted, is_delayed;

    const char *method;      /* libmicrohttpd's, as long as the request */
    char *target;            /* path?query as it was sent */
    char *path, *query;      /* inside target; query may be NULL */
    struct buf body, broken; /* broken: drop_at, the bytes of the answer that leave */

    /* what the handler knows of the request */
    const char *provider;
    enum phase phase;
    char *prompt;                    /* with magic words, NULL when none */
    char tag[TAG_MAX + 1];           /* empty: none */
    char account[32];                /* provider:fingerprint, empty before a key was seen */
    struct fault fault;              /* what holds for this request */
    int images;                      /* what it costs when it is accepted: set by the handler before desk_fault */
    int64_t cost;                    /* millicents: thousandths of 0.01 USD */
    void (*then)(struct exchange *); /* after exchange_wait */
    void *cargo;                     /* handler's, freed with cargo_free */
    void (*cargo_free)(void *);

    struct {
        char name[32], value[160];
    } headers[HEADERS_MAX];
    size_t header_count;
    int status;
    struct MHD_Response *response;
    struct due due;
    struct paint *paint;
};

/* What a listener serves. on_request: the body is complete. */
struct server_config {
    const char *host;
    uint16_t port; /* 0: any free one */
    void (*on_request)(struct exchange *);
};
struct server *server_start(struct sandbox *box, const struct server_config *config);
uint16_t server_port(const struct server *s);
size_t server_connections(const struct server *s);
size_t server_waiting(const struct server *s);
size_t server_take_peak(struct server *s, bool reset); /* most that ever waited at once */
void server_stop(struct server *s); /* every open exchange is cut; memory goes when the loop has closed its handles */

const char *exchange_request_header(const struct exchange *ex, const char *name); /* NULL when absent */
void exchange_header(struct exchange *ex, const char *name, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Each of these ends the handler's work for now; exchange_wait may be followed by another of them. */
void exchange_send(struct exchange *ex, int status, const char *type, const char *body);
void exchange_send_json(struct exchange *ex, int status, json_t *body);                        /* takes the reference */
void exchange_send_blob(struct exchange *ex, int status, const char *type, struct blob *body); /* takes it */
void exchange_wait(struct exchange *ex, int64_t delay_ms, void (*then)(struct exchange *));
void exchange_paint(struct exchange *ex, struct paint *p, void (*done)(void *ex, struct paint *));
void exchange_hang(struct exchange *ex); /* no answer, until the client or the sandbox goes */
void exchange_cut(struct exchange *ex);  /* close the connection without an answer */
#endif
