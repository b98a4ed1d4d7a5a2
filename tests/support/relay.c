/* relay.c - see relay.h. A thread accepts, and one thread a connection pumps both ways. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <criterion/criterion.h>
#include "tests/support/relay.h"
#include "tests/support/support.h"

enum { CONNECTIONS_MAX = 256, TURN_MS = 50 };

struct relay {
    int fd, port, server_port;
    SSL_CTX *tls;
    pthread_t thread, threads[CONNECTIONS_MAX];
    size_t thread_count;
    atomic_bool is_stopping;
    atomic_int connections, handshakes, cuts;
    _Atomic int64_t cut_bytes;
};

struct line { /* one connection */
    struct relay *relay;
    int client, server;
    SSL *ssl;
    int64_t answered;
};

/* --- a certificate of its own ------------------------------------------------------------------------------------ */

static SSL_CTX *relay_tls(const char *path)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();
    X509_EXTENSION *name = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, "IP:127.0.0.1");
    FILE *file = fopen(path, "w");

    cr_assert(ctx && key && cert && name && file);
    cr_assert_eq(X509_set_version(cert, X509_VERSION_3), 1);
    cr_assert_eq(ASN1_INTEGER_set(X509_get_serialNumber(cert), 1), 1);
    cr_assert_not_null(X509_gmtime_adj(X509_getm_notBefore(cert), -3600));
    cr_assert_not_null(X509_gmtime_adj(X509_getm_notAfter(cert), 86400));
    cr_assert_eq(X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC,
                                            (const unsigned char *)"127.0.0.1", -1, -1, 0),
                 1);
    cr_assert_eq(X509_set_issuer_name(cert, X509_get_subject_name(cert)), 1);
    cr_assert_eq(X509_set_pubkey(cert, key), 1);
    cr_assert_eq(X509_add_ext(cert, name, -1), 1);
    cr_assert_gt(X509_sign(cert, key, EVP_sha256()), 0);
    cr_assert_eq(SSL_CTX_use_certificate(ctx, cert), 1);
    cr_assert_eq(SSL_CTX_use_PrivateKey(ctx, key), 1);
    cr_assert_eq(PEM_write_X509(file, cert), 1);
    cr_assert_eq(fclose(file), 0);
    X509_EXTENSION_free(name);
    X509_free(cert);
    EVP_PKEY_free(key);
    return ctx;
}

/* --- one connection ---------------------------------------------------------------------------------------------- */

static ssize_t client_read(struct line *l, char *to, size_t size)
{
    return l->ssl ? SSL_read(l->ssl, to, (int)size) : recv(l->client, to, size, 0);
}

static bool client_write(struct line *l, const char *from, size_t len)
{
    for (size_t at = 0; at < len;) {
        ssize_t n =
            l->ssl ? SSL_write(l->ssl, from + at, (int)(len - at)) : send(l->client, from + at, len - at, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        at += (size_t)n;
    }
    return true;
}

static bool server_write(struct line *l, const char *from, size_t len)
{
    for (size_t at = 0; at < len;) {
        ssize_t n = send(l->server, from + at, len - at, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        at += (size_t)n;
    }
    return true;
}

static bool line_take_cut(struct relay *r)
{
    int left = atomic_load(&r->cuts);

    while (left > 0)
        if (atomic_compare_exchange_weak(&r->cuts, &left, left - 1))
            return true;
    return false;
}

/* False: it is over. */
static bool line_answer(struct line *l, const char *data, size_t len)
{
    int64_t left = atomic_load(&l->relay->cut_bytes) - l->answered;

    if (atomic_load(&l->relay->cuts) > 0 && left <= (int64_t)len && line_take_cut(l->relay)) {
        struct linger reset = { .l_onoff = 1 };

        if (left > 0)
            (void)client_write(l, data, (size_t)left);
        if (left > 0)
            (void)poll(NULL, 0, 20); /* a reset throws away what the client has not read yet */
        (void)setsockopt(l->client, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
        return false;
    }
    l->answered += (int64_t)len;
    return client_write(l, data, len);
}

static bool line_turn(struct line *l)
{
    struct pollfd fds[2] = { { .fd = l->client, .events = POLLIN }, { .fd = l->server, .events = POLLIN } };
    char data[16384];
    ssize_t n;

    if (!(l->ssl && SSL_pending(l->ssl) > 0) && poll(fds, 2, TURN_MS) < 0)
        return errno == EINTR;
    if (fds[0].revents || (l->ssl && SSL_pending(l->ssl) > 0)) {
        n = client_read(l, data, sizeof(data));
        if (n <= 0 || !server_write(l, data, (size_t)n))
            return false;
    }
    if (fds[1].revents) {
        n = recv(l->server, data, sizeof(data), 0);
        if (n <= 0 || !line_answer(l, data, (size_t)n))
            return false;
    }
    return true;
}

static void *line_run(void *ctx)
{
    struct line *l = ctx;
    struct relay *r = l->relay;
    struct sockaddr_in to = { .sin_family = AF_INET,
                              .sin_port = htons((uint16_t)r->server_port),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    bool is_open = true;

    if (r->tls) {
        l->ssl = SSL_new(r->tls);
        is_open = l->ssl && SSL_set_fd(l->ssl, l->client) == 1 && SSL_accept(l->ssl) == 1;
        if (is_open)
            (void)atomic_fetch_add(&r->handshakes, 1);
    }
    l->server = socket(AF_INET, SOCK_STREAM, 0);
    is_open = is_open && connect(l->server, (struct sockaddr *)&to, sizeof(to)) == 0;
    while (is_open && !atomic_load(&r->is_stopping))
        is_open = line_turn(l);
    SSL_free(l->ssl);
    (void)close(l->client);
    (void)close(l->server);
    free(l);
    return NULL;
}

/* --- all of them ------------------------------------------------------------------------------------------------- */

static void *relay_run(void *ctx)
{
    struct relay *r = ctx;
    struct pollfd ready = { .fd = r->fd, .events = POLLIN };

    while (!atomic_load(&r->is_stopping)) {
        struct line *l;
        int fd;

        if (poll(&ready, 1, TURN_MS) <= 0 || (fd = accept(r->fd, NULL, NULL)) < 0)
            continue;
        (void)atomic_fetch_add(&r->connections, 1);
        l = calloc(1, sizeof(*l));
        if (l)
            *l = (struct line){ .relay = r, .client = fd, .server = -1 };
        if (!l || r->thread_count == CONNECTIONS_MAX ||
            pthread_create(&r->threads[r->thread_count], NULL, line_run, l) != 0)
            abort(); /* more connections than any test makes */
        r->thread_count++;
    }
    return NULL;
}

struct relay *relay_start(int server_port, const char *certificate)
{
    struct relay *r = calloc(1, sizeof(*r));
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int on = 1;

    cr_assert_not_null(r);
    r->server_port = server_port;
    r->port = support_port();
    r->tls = certificate ? relay_tls(certificate) : NULL;
    r->fd = socket(AF_INET, SOCK_STREAM, 0);
    at.sin_port = htons((uint16_t)r->port);
    (void)setsockopt(r->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    cr_assert_eq(bind(r->fd, (struct sockaddr *)&at, sizeof(at)), 0, "port %d: %s", r->port, strerror(errno));
    cr_assert_eq(listen(r->fd, 64), 0);
    cr_assert_eq(pthread_create(&r->thread, NULL, relay_run, r), 0);
    return r;
}

int relay_port(const struct relay *r)
{
    return r->port;
}

void relay_cut(struct relay *r, int64_t bytes, int times)
{
    atomic_store(&r->cut_bytes, bytes);
    atomic_store(&r->cuts, times);
}

int relay_left(const struct relay *r)
{
    return atomic_load(&r->cuts);
}

int relay_connections(const struct relay *r)
{
    return atomic_load(&r->connections);
}

int relay_handshakes(const struct relay *r)
{
    return atomic_load(&r->handshakes);
}

void relay_stop(struct relay *r)
{
    atomic_store(&r->is_stopping, true);
    (void)pthread_join(r->thread, NULL);
    for (size_t i = 0; i < r->thread_count; i++)
        (void)pthread_join(r->threads[i], NULL);
    SSL_CTX_free(r->tls);
    (void)close(r->fd);
    free(r);
}
