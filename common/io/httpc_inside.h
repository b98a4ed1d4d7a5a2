/* httpc_inside.h - what the four files of httpc share; nobody else includes it.
 *
 * httpc.c owns calls from send to callback, httpc_wire.c turns a request into a set-up easy handle and hears what curl
 * says about it, httpc_multi.c keeps the multi handles on the loop. curl's callbacks only write facts into the call;
 * decisions are taken in httpc.c, after curl returned. */
#ifndef KILN_HTTPC_INSIDE_H
#define KILN_HTTPC_INSIDE_H
#include <curl/curl.h>
#include <openssl/evp.h>
#include "common/io/httpc.h"

/* Rooms for the sockets that are watched, by number: up to a million descriptors. */
enum { WATCH_ROOMS = 1024, WATCHES_A_ROOM = 1024 };
enum { MULTIS_MAX = 256, HOST_KEY_MAX = 300, FRONT_MAX = 80, HEADERS_MAX_BYTES = 64 * 1024 };
/* Easy handles that wait to be used again. As many as were in flight at once: giving them back to malloc and making
 * them anew splinters the heap, 5,000 calls then grow from 20 to 30 KiB each in five rounds (measured). */
enum { POOL_MAX = 16384 };
/* Spares: whoever gives malloc 64 KiB back makes it tidy up, each time. */
enum { SPOOL_BYTES = 64 * 1024, SPOOLS_MAX = 768, SPARES_MAX = 512 };

/* Connections are never shared between sets. H2: hosts known to speak HTTP/2, on few connections with many streams;
 * the limit of connections a host that keeps them few would strangle HTTP/1.1 hosts. */
enum set { SET_PLAIN, SET_H2, SET_GUARDED, SET_COUNT };

struct multi {
    struct httpc *h;
    CURLM *curl;      /* NULL until first used */
    uv_timer_t timer; /* there while `curl` is, or was: is_timed */
    bool is_timed;
    size_t active;        /* calls on it */
    int64_t idle_from_ms; /* monotonic: since when there are none */
    bool is_one_a_socket; /* HTTP/1.1: a socket belongs to one call at a time */
};

struct call_list {
    struct httpc_call *first, *last; /* by `queue_next` */
};

/* A host of the trusted or guarded world. While nothing is known about it one call, the probe, goes ahead and the
 * others are held: a name is then resolved by one thread instead of a thousand (curl starts one a lookup), and the
 * first connection shows whether it speaks HTTP/2. */
struct host {
    struct host *next;
    uint64_t hash;
    bool is_gated;          /* a name, or https: the above applies */
    bool speaks_h2;         /* written by the prereq callback */
    bool is_open;           /* the probe got through: held calls may start; written by the prereq callback */
    int64_t known_until_ms; /* monotonic; 0: unknown */
    size_t users;           /* calls that point here */
    struct httpc_call *probe;
    struct call_list held;
    CURLU *parsed;          /* `front`, taken apart; NULL while that is "" */
    char front[FRONT_MAX];  /* what the URLs of its trusted calls begin with, up to the path; "": longer or odd */
    char key[HOST_KEY_MAX]; /* "https://host:port", with a "g" before it in the guarded world */
};

struct httpc {
    uv_loop_t *loop;
    struct httpc_config config;
    struct multi multis[SET_COUNT][MULTIS_MAX];
    int epoll;                               /* all their sockets */
    uv_poll_t ready;                         /* on epoll */
    struct watch_room *watches[WATCH_ROOMS]; /* NULL until first used */
    uv_timer_t idle;                         /* looks for multis that nobody uses any more */
    size_t watched;                          /* sockets that curl waits for */
    uint64_t round;                          /* of events; see httpc_multi.c */
    CURLSH *share;                           /* one DNS cache for all multis of the loop */
    EVP_MD *sha256;
    CURL *pool[POOL_MAX]; /* with all that is the same for every call (httpc_wire.c) */
    size_t pool_count;
    char *spares[SPARES_MAX]; /* spools that wait for their next body */
    size_t spare_count, spools_out;
    struct socket_wait *waiting, *waiting_last; /* answers left in their sockets until a spool is free */
    int64_t spool_given_ms;                     /* when one was given back last, or the first began to wait */
    struct host *hosts;
    size_t host_count;
    struct httpc_call *calls;     /* all that were not called back, by `next` */
    struct httpc_call *receiving; /* those whose body has begun, by `receiving_next` */
    struct call_list done, sent;  /* to be called back */
    size_t body_bytes;            /* of answers in memory */
    size_t active, handles;       /* handles: libuv's, not closed yet */
    uv_idle_t turn;               /* runs while something is to be called back and no curl event is at hand */
    uv_timer_t stall;
    bool is_delivering, is_closing, is_shut, hosts_opened;
    void (*on_closed)(void *ctx);
    void *closed_ctx;
};

enum call_state { CALL_NEW, CALL_HELD, CALL_FLYING, CALL_DONE };

struct mime_source {
    struct httpc_call *call;
    const char *data;
    int64_t at, size;
    int fd; /* -1: data */
    struct mime_source *next;
};

struct httpc_call {
    struct httpc *h;
    struct multi *multi;
    struct host *host;
    CURL *easy;
    struct curl_slist *header_lines; /* one block, with their text */
    CURLU *url;                      /* NULL: curl takes it apart itself */
    curl_mime *mime;
    struct mime_source *sources;
    struct httpc_call *prev, *next, *queue_next, *sent_next, *receiving_prev, *receiving_next;
    httpc_fn *fn;
    void (*on_sent)(void *ctx);
    void *ctx;
    enum call_state state;
    const char *body;
    size_t body_len, body_at;
    int64_t begun_ms, heard_ms; /* heard_ms: last byte of the body */
    int stall_ms;
    size_t max_bytes;
    /* written by curl's callbacks */
    bool is_asked; /* a connection stands and the request goes out on it: from here on it may have been read */
    bool is_again; /* and went out a second time: curl's own try, after a kept connection had died */
    bool is_sent, is_receiving, is_blocked;
    bool is_headed; /* the headers of the last response are complete */
    enum err fault; /* what made us stop curl; ERR_OK: nothing */
    struct buf in, headers;
    size_t header_count;
    int fd; /* of to_file; -1: nothing was written yet */
    char *to_file;
    char *spool; /* SPOOL_BYTES; what is not written yet; NULL: nothing */
    size_t spool_len;
    bool may_keep, is_kept, is_let_through; /* is_let_through: waited for a spool long enough */
    EVP_MD_CTX *hash;
    int64_t file_bytes;
    /* request */
    bool is_paid, is_guarded, has_shared; /* has_shared: see httpc_buffer.c */
    /* written when done */
    enum err err;
    enum httpc_fate fate;
    char detail[CURL_ERROR_SIZE];
};

/* httpc_wire.c */
bool wire_wants_spool(const struct httpc_call *call); /* a body may come for which no spool is free */
enum err wire_set_up(struct httpc_call *call, const struct httpc_request *request, bool is_https);
void wire_done(struct httpc_call *call);        /* gives the easy handle back and frees what hung on it */
bool wire_finish_file(struct httpc_call *call); /* what was gathered is written; an empty body makes an empty file */
void wire_give_spool(struct httpc *h, char *spool);
/* httpc_multi.c */
bool multi_init(struct httpc *h);
int multi_on_close_socket(void *ctx, curl_socket_t fd);      /* ctx: struct httpc */
enum err multi_start(struct httpc_call *call, enum set set); /* puts the call on a multi */
void multi_stop(struct httpc_call *call);
void multi_shut(struct httpc *h);
void multi_give_spool(struct httpc *h, char *spool); /* to the answer that waits longest; `waiting` is not empty */
void multi_let_through(struct httpc *h);             /* those who wait go on without a spool */
void wire_forget_host(struct host *host);            /* frees it */
/* httpc_buffer.c */
bool buffer_set(CURL *easy, bool is_h2_welcome); /* before its transfer; true: it will use the one that is shared */
void buffer_sent(CURL *easy);    /* not from a callback of curl's: what it sent from is free, if all is sent */
bool buffer_is_left(CURL *easy); /* it still has the buffer of its last transfer */
/* httpc.c */
void httpc_on_result(struct httpc_call *call, CURLcode code);
void httpc_deliver(struct httpc *h);
#endif
