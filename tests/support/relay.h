/* relay.h - a small proxy for tests, between a client and a server of 127.0.0.1: passes bytes on, resets connections
 * when it is told to, and can speak TLS towards the client (as a provider with a certificate that nobody signed).
 *
 * It runs on threads of its own. relay_stop ends all connections and joins them. Where a call of the system fails, it
 * says so and ends the test. */
#ifndef KILN_TEST_RELAY_H
#define KILN_TEST_RELAY_H
#include <stdint.h>

struct relay;

/* `certificate`: NULL: plain. Else TLS with a fresh key for 127.0.0.1, signed by itself; the certificate is written to
 * that path, as PEM. */
struct relay *relay_start(int server_port, const char *certificate);
int relay_port(const struct relay *r);
/* The next `times` connections on which the server answers are reset when `bytes` of the answer have been passed on. */
void relay_cut(struct relay *r, int64_t bytes, int times);
int relay_left(const struct relay *r);        /* how many of these cuts are still to come */
int relay_connections(const struct relay *r); /* ever accepted */
int relay_handshakes(const struct relay *r);  /* TLS handshakes that were completed */
void relay_stop(struct relay *r);
#endif
