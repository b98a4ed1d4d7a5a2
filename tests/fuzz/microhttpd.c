/* microhttpd.c - see microhttpd.h. */
#include "tests/fuzz/microhttpd.h"
#include <microhttpd.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>
#include "tests/fuzz/fuzz.h"

struct MHD_Daemon {
    MHD_AccessHandlerCallback call;
    void *call_ctx;
    MHD_NotifyConnectionCallback connection;
    void *connection_ctx;
    MHD_RequestCompletedCallback completed;
    void *completed_ctx;
    void *(*uri)(void *cls, const char *uri, struct MHD_Connection *connection);
    void *uri_ctx;
    union MHD_DaemonInfo info;
};

struct MHD_Connection {
    struct exchange *e;
    void *socket_context;
    bool is_suspended;
    union MHD_ConnectionInfo info;
};

struct MHD_Response {
    char *data;
    size_t len;
    bool is_owned;
    int fd;
    uint64_t offset;
    char *names[EXCHANGE_HEADERS], *values[EXCHANGE_HEADERS];
    size_t header_count;
    int references;
};

static struct MHD_Daemon daemon_;

/* --- what httpd.c calls --- */

struct MHD_Daemon *MHD_start_daemon(unsigned int flags, uint16_t port, MHD_AcceptPolicyCallback apc, void *apc_cls,
                                    MHD_AccessHandlerCallback dh, void *dh_cls, ...)
{
    struct MHD_Daemon *d = &daemon_;
    enum MHD_OPTION option;
    va_list ap;

    (void)flags;
    (void)port;
    (void)apc;
    (void)apc_cls;
    d->call = dh;
    d->call_ctx = dh_cls;
    va_start(ap, dh_cls);
    while ((option = va_arg(ap, enum MHD_OPTION)) != MHD_OPTION_END) {
        switch (option) {
        case MHD_OPTION_NOTIFY_CONNECTION:
            d->connection = va_arg(ap, MHD_NotifyConnectionCallback);
            d->connection_ctx = va_arg(ap, void *);
            break;
        case MHD_OPTION_NOTIFY_COMPLETED:
            d->completed = va_arg(ap, MHD_RequestCompletedCallback);
            d->completed_ctx = va_arg(ap, void *);
            break;
        case MHD_OPTION_URI_LOG_CALLBACK:
            d->uri = va_arg(ap, void *(*)(void *, const char *, struct MHD_Connection *));
            d->uri_ctx = va_arg(ap, void *);
            break;
        case MHD_OPTION_CONNECTION_MEMORY_LIMIT:
            (void)va_arg(ap, size_t);
            break;
        default:
            (void)va_arg(ap, unsigned);
        }
    }
    va_end(ap);
    FUZZ_CLAIM(d->call && d->connection && d->completed && d->uri);
    d->info.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    return d;
}

const union MHD_DaemonInfo *MHD_get_daemon_info(struct MHD_Daemon *d, enum MHD_DaemonInfoType type, ...)
{
    (void)type;
    return &d->info;
}

enum MHD_Result MHD_run(struct MHD_Daemon *d)
{
    (void)d;
    return MHD_YES;
}

enum MHD_Result MHD_get_timeout(struct MHD_Daemon *d, MHD_UNSIGNED_LONG_LONG *timeout)
{
    (void)d;
    (void)timeout;
    return MHD_NO;
}

void MHD_stop_daemon(struct MHD_Daemon *d)
{
    (void)d;
}

MHD_socket MHD_quiesce_daemon(struct MHD_Daemon *d)
{
    (void)d;
    return -1;
}

const union MHD_ConnectionInfo *MHD_get_connection_info(struct MHD_Connection *c, enum MHD_ConnectionInfoType type, ...)
{
    if (type == MHD_CONNECTION_INFO_SOCKET_CONTEXT)
        c->info.socket_context = c->socket_context;
    else
        c->info.connect_fd = -1;
    return &c->info;
}

int MHD_get_connection_values_n(struct MHD_Connection *c, enum MHD_ValueKind kind, MHD_KeyValueIteratorN fn, void *cls)
{
    const struct exchange *e = c->e;

    for (size_t i = 0; i < e->header_count; i++)
        (void)fn(cls, kind, e->names[i], strlen(e->names[i]), e->values[i], strlen(e->values[i]));
    return (int)e->header_count;
}

const char *MHD_lookup_connection_value(struct MHD_Connection *c, enum MHD_ValueKind kind, const char *key)
{
    (void)kind;
    for (size_t i = 0; i < c->e->header_count; i++) {
        if (strcasecmp(c->e->names[i], key) == 0)
            return c->e->values[i];
    }
    return NULL;
}

static struct MHD_Response *response_new(void)
{
    struct MHD_Response *r = calloc(1, sizeof *r);

    FUZZ_CLAIM(r != NULL);
    r->fd = -1;
    r->references = 1;
    return r;
}

struct MHD_Response *MHD_create_response_from_buffer(size_t size, void *buffer, enum MHD_ResponseMemoryMode mode)
{
    struct MHD_Response *r = response_new();

    r->data = buffer;
    r->len = size;
    r->is_owned = mode == MHD_RESPMEM_MUST_FREE;
    return r;
}

struct MHD_Response *MHD_create_response_from_fd_at_offset64(uint64_t size, int fd, uint64_t offset)
{
    struct MHD_Response *r = response_new();

    r->fd = fd;
    r->len = size;
    r->offset = offset;
    return r;
}

enum MHD_Result MHD_add_response_header(struct MHD_Response *r, const char *name, const char *value)
{
    FUZZ_CLAIM(r->header_count < EXCHANGE_HEADERS);
    FUZZ_CLAIM(*name && strpbrk(name, "\r\n: ") == NULL); /* the library refuses these, and the header is lost */
    FUZZ_CLAIM(strpbrk(value, "\r\n") == NULL);
    r->names[r->header_count] = strdup(name);
    r->values[r->header_count++] = strdup(value);
    return MHD_YES;
}

void MHD_destroy_response(struct MHD_Response *r)
{
    if (--r->references > 0)
        return;
    for (size_t i = 0; i < r->header_count; i++) {
        free(r->names[i]);
        free(r->values[i]);
    }
    if (r->is_owned)
        free(r->data);
    if (r->fd >= 0)
        (void)close(r->fd);
    free(r);
}

enum MHD_Result MHD_queue_response(struct MHD_Connection *c, unsigned int status, struct MHD_Response *r)
{
    struct exchange *e = c->e;
    struct stat st;

    e->answers++;
    e->status = (int)status;
    for (size_t i = 0; i < r->header_count; i++) {
        e->answer_names[i] = strdup(r->names[i]);
        e->answer_values[i] = strdup(r->values[i]);
    }
    e->answer_header_count = r->header_count;
    e->is_file = r->fd >= 0;
    if (e->is_file) {
        FUZZ_CLAIM(fstat(r->fd, &st) == 0);
        e->file_size = (uint64_t)st.st_size;
        e->file_offset = r->offset;
        e->file_length = r->len;
    } else {
        e->answer = malloc(r->len + 1);
        FUZZ_CLAIM(e->answer != NULL);
        if (r->len)
            memcpy(e->answer, r->data, r->len);
        e->answer[r->len] = '\0';
        e->answer_len = r->len;
    }
    return MHD_YES;
}

void MHD_suspend_connection(struct MHD_Connection *c)
{
    FUZZ_CLAIM(!c->is_suspended);
    c->is_suspended = true;
}

void MHD_resume_connection(struct MHD_Connection *c)
{
    FUZZ_CLAIM(c->is_suspended);
    c->is_suspended = false;
}

/* --- a request, in the library's order --- */

static void wait_resumed(const struct MHD_Connection *c, void (*turn)(void))
{
    for (int i = 0; c->is_suspended; i++) {
        FUZZ_CLAIM(i < 20000); /* nobody will answer */
        turn();
    }
}

static void call(struct MHD_Connection *c, const char *data, size_t *len, void **ctx)
{
    const struct exchange *e = c->e;

    FUZZ_CLAIM(daemon_.call(daemon_.call_ctx, c, e->target, e->method, e->version, data, len, ctx) == MHD_YES);
}

static void give_body(struct MHD_Connection *c, void (*turn)(void), void **ctx)
{
    const struct exchange *e = c->e;

    for (size_t at = 0; at < e->body_len;) {
        size_t chunk = e->body_len - at < 4096 ? e->body_len - at : 4096, left = chunk;

        call(c, e->body + at, &left, ctx);
        at += chunk - left;
        wait_resumed(c, turn);
    }
}

void exchange_run(struct exchange *e, void (*turn)(void))
{
    struct MHD_Connection c = { .e = e };
    void *ctx = NULL;
    size_t none = 0;

    daemon_.connection(daemon_.connection_ctx, &c, &c.socket_context, MHD_CONNECTION_NOTIFY_STARTED);
    (void)daemon_.uri(daemon_.uri_ctx, e->target, &c);
    call(&c, NULL, &none, &ctx);
    wait_resumed(&c, turn);
    for (int i = 0; e->answers == 0; i++) {
        FUZZ_CLAIM(i < 4); /* head, body, after the answer */
        if (i == 1)
            give_body(&c, turn, &ctx);
        none = 0;
        if (e->answers == 0)
            call(&c, NULL, &none, &ctx);
        wait_resumed(&c, turn);
    }
    daemon_.completed(daemon_.completed_ctx, &c, &ctx, MHD_REQUEST_TERMINATED_COMPLETED_OK);
    FUZZ_CLAIM(ctx == NULL);
    daemon_.connection(daemon_.connection_ctx, &c, &c.socket_context, MHD_CONNECTION_NOTIFY_CLOSED);
}

void exchange_done(struct exchange *e)
{
    for (size_t i = 0; i < e->answer_header_count; i++) {
        free((char *)(uintptr_t)e->answer_names[i]);
        free((char *)(uintptr_t)e->answer_values[i]);
    }
    free(e->answer);
}

const char *exchange_header(const struct exchange *e, const char *name)
{
    for (size_t i = 0; i < e->answer_header_count; i++) {
        if (strcasecmp(e->answer_names[i], name) == 0)
            return e->answer_values[i];
    }
    return NULL;
}
