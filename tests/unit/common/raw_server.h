/* raw_server.h - a small HTTP/1.1 server on one thread that misbehaves on demand, for the tests of httpc.
 *
 * What a request gets is in its path: /ok, /echo, /bytes?N, /chunked?N, /length?N (declares N, sends them), /cut?N (the
 * first N bytes of a complete answer, then closed), /again (the connection's first request is answered, its second read
 * and the connection closed), /hang, /stall (half a body, then silence), /gate?N (all are answered when N have come),
 * /status?N, /turns?N (like /gate?N; then each gets bytes of its own, chunked or not, in pieces that take turns over
 * all connections; its own are in X-Byte and X-Bytes). It counts requests and connections and keeps the last request's
 * text. */
#ifndef KILN_TEST_RAW_SERVER_H
#define KILN_TEST_RAW_SERVER_H
#include <stddef.h>

struct raw_server;
struct raw_server *raw_server_start(void);
void raw_server_stop(struct raw_server *s);
int raw_server_port(const struct raw_server *s);
int raw_server_closed_port(void); /* nobody listens there */
int raw_server_requests(struct raw_server *s);
int raw_server_connections(struct raw_server *s);
void raw_server_last(struct raw_server *s, char *out, size_t size); /* the last request, NUL-terminated, cut */
#define RAW_SERVER_CUT_TOTAL 49                                     /* bytes of /cut's complete answer */
#endif
