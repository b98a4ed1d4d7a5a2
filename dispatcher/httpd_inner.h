/* httpd_inner.h - what httpd.c (libmicrohttpd's side) and httpd_out.c (connections that have left it) share. */
#ifndef KILN_HTTPD_INNER_H
#define KILN_HTTPD_INNER_H
#include <microhttpd.h>
#include "dispatcher/httpd.h"

enum {
    HTTPD_DISCARD_MS = 5000, /* a refused body, and what comes after an answer, is read and thrown away so long */
    HTTPD_ANSWER_MS = 30000, /* an answer has this and */
    HTTPD_ANSWER_BYTES_PER_MS = 16, /* goes on at this rate at the least */
};

static inline int64_t httpd_answer_ms(int64_t bytes)
{
    return HTTPD_ANSWER_MS + bytes / HTTPD_ANSWER_BYTES_PER_MS;
}

struct httpd_conn {                 /* from NOTIFY_CONNECTION to its end */
    struct httpd_conn *next, *prev; /* of those that have a deadline; NULL: it has none */
    struct httpd *httpd;
    int fd;
    int64_t deadline_ms; /* 0: none */
    char *uri;           /* of the present request, undecoded */

    /* httpd_out's own */
    struct request *request; /* whose answer goes out here; NULL: it is over, and only the client's end is waited for */
    struct httpd_conn *todo_next; /* of those to be written to in this turn of the loop */
    unsigned events;              /* that epoll waits for */
    bool is_out, is_todo, is_gone;
    bool is_theirs; /* libmicrohttpd still has it as a socket's context */
};

struct httpd_out { /* the connections that have left */
    uv_poll_t poll;
    int epoll_fd, blank_fd; /* blank_fd: stands in where libmicrohttpd still has a number to close */
    struct httpd_conn *todo;
};

struct httpd {
    struct httpd_config config;
    struct MHD_Daemon *daemon;
    uv_poll_t poll;
    uv_timer_t timer, sweep;
    uv_prepare_t prepare;
    struct httpd_out out;
    int open_handles;
    int listen_fd; /* ours to close after the quiesce */
    int port;
    bool is_dirty, is_draining, is_closed;
    size_t in_flight, connections;
    struct httpd_conn conns; /* ring */
    void (*on_idle)(void *ctx);
    void *idle_ctx;
    void (*on_closed)(void *ctx);
    void *closed_ctx;
};

void conn_set_deadline(struct httpd_conn *c, int64_t deadline_ms); /* 0: none */
void conn_free(struct httpd_conn *c);                              /* once nobody has it any more */
void request_finish(struct request *r);                            /* it is over: told, counted, freed */

bool httpd_out_open(struct httpd *h); /* false: no descriptors */
void httpd_out_start(struct httpd *h);
void httpd_out_stop(struct httpd *h); /* closes what has left; the poll handle is httpd_close's */
void httpd_out_done(struct httpd *h); /* after any of them */
void httpd_out_flush(struct httpd *h);

/* From inside the handler, for a connection that was resumed for this: it is out of libmicrohttpd's epoll set. True:
 * the socket is ours, and libmicrohttpd is to be told that its connection has failed. */
bool conn_leave(struct httpd_conn *c, struct request *r);
void conn_write(struct httpd_conn *c); /* soon: what is in its request's stream */
void request_answer_out(struct request *r, int status, const char *mime, const struct buf *body);

void request_wake(struct request *r); /* resume it, if it is suspended */
void request_set_answer(struct request *r, int status, const char *mime);
#endif
