/* httpc_wire.c - from a request to a set-up easy handle, and curl's callbacks while it flies.
 *
 * Rule 8 of protocol.md lives here. curl repeats a request by itself when a reused connection dies without an answer.
 * What stands against it for a paid one is the prereq callback, which curl asks before a request goes out on a
 * connection: it lets a paid call pass once. Besides, a large body comes from a read function without a seek function
 * (a copy cannot be rewound), and a request without a body gets a fresh connection. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>
#include "common/base/clock.h"
#include "common/io/httpc_inside.h"
#include "common/io/netguard.h"
#include <openssl/ssl.h>

enum {
    KNOWN_MS = 55 * 1000,      /* curl keeps a resolved name for 60 s */
    AT_ONCE_BYTES = 60 * 1024, /* curl sends so much with the headers, and needs no buffer of 16 KiB for it */
    PAID_IDLE_S = 30,          /* a paid request does not go out on a connection that was idle longer */
    IDLE_S = 118,              /* curl's own for all others */
    HEADERS_OF_OURS = 3,
};

static size_t wire_on_read(char *out, size_t size, size_t count, void *ctx)
{
    struct httpc_call *call = ctx;
    size_t n = call->body_len - call->body_at;

    if (n > size * count)
        n = size * count;
    memcpy(out, call->body + call->body_at, n);
    call->body_at += n;
    return n;
}

static size_t mime_on_read(char *out, size_t size, size_t count, void *ctx)
{
    struct mime_source *s = ctx;
    size_t want = size * count;
    ssize_t n;

    if ((int64_t)want > s->size - s->at)
        want = (size_t)(s->size - s->at);
    if (want == 0)
        return 0;
    if (s->fd < 0) {
        memcpy(out, s->data + s->at, want);
        n = (ssize_t)want;
    } else {
        n = pread(s->fd, out, want, s->at); /* at most 64 KiB, from the page cache as a rule */
        if (n <= 0) {                       /* shorter than when it was measured */
            s->call->fault = ERR_IO;
            return CURL_READFUNC_ABORT;
        }
    }
    s->at += n;
    return (size_t)n;
}

static int mime_on_seek(void *ctx, curl_off_t offset, int origin)
{
    struct mime_source *s = ctx;
    if (origin != SEEK_SET || offset < 0 || offset > s->size)
        return CURL_SEEKFUNC_FAIL;
    s->at = offset;
    return CURL_SEEKFUNC_OK;
}

/* Names in lower case, blanks around the value taken off; each ends with a NUL. A new status line starts afresh. */
static size_t wire_on_header(char *line, size_t size, size_t count, void *ctx)
{
    struct httpc_call *call = ctx;
    size_t len = size * count, name, from;

    if (len >= 5 && memcmp(line, "HTTP/", 5) == 0) {
        call->headers.len = 0;
        call->header_count = 0;
        call->is_headed = false;
        return len;
    }
    for (name = 0; name < len && line[name] != ':';)
        name++;
    if (line[0] == '\n' || line[0] == '\r')
        call->is_headed = true; /* the blank line: curl takes an answer cut within its headers for a whole one */
    if (name == len || name == 0)
        return len;
    from = name + 1;
    while (from < len && (line[from] == ' ' || line[from] == '\t'))
        from++;
    for (; len > from && strchr(" \t\r\n", line[len - 1]);)
        len--;
    if (!buf_add(&call->headers, line, name) || !buf_add(&call->headers, ": ", 2) ||
        !buf_add(&call->headers, line + from, len - from) || !buf_add(&call->headers, "", 1)) {
        call->fault = ERR_TOO_LARGE;
        return 0;
    }
    for (char *p = call->headers.data + call->headers.len - (len - from) - 3 - name; *p != ':'; p++) {
        if (*p >= 'A' && *p <= 'Z')
            *p = (char)(*p - 'A' + 'a');
    }
    call->header_count++;
    return size * count;
}

/* ---- a body that goes to a file. curl hands it over in pieces of 16 KiB and less, not at the borders of pages; what
 * comes is gathered so that the file is written in few large pieces (measured for 50 KB: 20 us in one, 40 in four), or
 * by the caller's thread when all of it found room. At most SPOOLS_MAX bodies are gathered at once. The answers of
 * others stay in their sockets until one is free (httpc_multi.c); only where that helps nobody (HTTP/2, and when no
 * spool comes back) they are written and hashed on the loop as they come. */

bool wire_wants_spool(const struct httpc_call *call)
{
    return call->to_file && !call->spool && !call->hash && !call->is_let_through && call->h->spools_out >= SPOOLS_MAX;
}

static void spool_take(struct httpc_call *call)
{
    struct httpc *h = call->h;

    if (call->spool || h->spools_out >= SPOOLS_MAX)
        return;
    call->spool = h->spare_count > 0 ? h->spares[--h->spare_count] : malloc(SPOOL_BYTES);
    call->spool_len = 0;
    h->spools_out += call->spool != NULL;
}

void wire_give_spool(struct httpc *h, char *spool)
{
    if (!spool)
        return;
    if (h->waiting) {
        multi_give_spool(h, spool);
        return;
    }
    h->spools_out--;
    if (h->spare_count < SPARES_MAX && !h->is_closing)
        h->spares[h->spare_count++] = spool;
    else
        free(spool);
}

static bool wire_hash(struct httpc_call *call, const char *data, size_t len)
{
    if (!call->hash) {
        call->hash = EVP_MD_CTX_new();
        if (!call->hash || EVP_DigestInit_ex(call->hash, call->h->sha256, NULL) != 1)
            return false;
    }
    return EVP_DigestUpdate(call->hash, data, len) == 1;
}

static bool wire_write(struct httpc_call *call, const char *data, size_t len)
{
    if (!wire_hash(call, data, len))
        return false;
    if (call->fd < 0)
        call->fd = open(call->to_file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (call->fd < 0)
        return false;
    for (size_t at = 0; at < len;) {
        ssize_t n = write(call->fd, data + at, len - at);
        if (n <= 0)
            return false;
        at += (size_t)n;
    }
    return true;
}

bool wire_finish_file(struct httpc_call *call)
{
    bool ok;

    if (call->may_keep && call->fd < 0 && call->spool_len > 0 && call->spool_len < SPOOL_BYTES) {
        call->spool[call->spool_len] = '\0';
        call->is_kept = true;
        return true;
    }
    ok = wire_write(call, call->spool ? call->spool : "", call->spool ? call->spool_len : 0);
    wire_give_spool(call->h, call->spool);
    call->spool = NULL;
    return ok;
}

static bool wire_gather(struct httpc_call *call, const char *data, size_t len)
{
    spool_take(call);
    if (!call->spool)
        return wire_write(call, data, len);
    while (len > 0) {
        size_t n = SPOOL_BYTES - call->spool_len < len ? SPOOL_BYTES - call->spool_len : len;

        memcpy(call->spool + call->spool_len, data, n);
        call->spool_len += n;
        data += n;
        len -= n;
        if (call->spool_len < SPOOL_BYTES)
            break;
        if (!wire_write(call, call->spool, SPOOL_BYTES))
            return false;
        call->spool_len = 0;
    }
    return true;
}

static bool wire_to_file(struct httpc_call *call, const char *data, size_t len)
{
    if ((uint64_t)call->file_bytes + len > call->max_bytes) {
        call->fault = ERR_TOO_LARGE;
        return false;
    }
    if (!wire_gather(call, data, len)) {
        call->fault = ERR_IO;
        return false;
    }
    call->file_bytes += (int64_t)len;
    return true;
}

static size_t wire_on_body(char *data, size_t size, size_t count, void *ctx)
{
    struct httpc_call *call = ctx;
    size_t len = size * count;
    long status = 0;

    call->heard_ms = clock_mono_ms();
    if (!call->is_receiving) {
        call->is_receiving = true;
        call->receiving_next = call->h->receiving;
        if (call->receiving_next)
            call->receiving_next->receiving_prev = call;
        call->h->receiving = call;
    }
    if (call->to_file)
        (void)curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status);
    if (status / 100 == 2)
        return wire_to_file(call, data, len) ? len : 0;
    if (!buf_add(&call->in, data, len)) {
        call->fault = ERR_TOO_LARGE;
        return 0;
    }
    call->h->body_bytes += len;
    return len;
}

static curl_socket_t wire_on_open_socket(void *ctx, curlsocktype purpose, struct curl_sockaddr *address)
{
    struct httpc_call *call = ctx;

    (void)purpose;
    if (call->is_guarded && !call->h->config.allow_private && !netguard_allows(&address->addr)) {
        call->is_blocked = true;
        return CURL_SOCKET_BAD;
    }
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

static bool is_on_h2(const struct httpc_call *call)
{
    struct curl_tlssessioninfo *tls = NULL;
    const unsigned char *protocol = NULL;
    unsigned len = 0;

    if (curl_easy_getinfo(call->easy, CURLINFO_TLS_SSL_PTR, &tls) == CURLE_OK && tls && tls->internals &&
        tls->backend == CURLSSLBACKEND_OPENSSL)
        SSL_get0_alpn_selected(tls->internals, &protocol, &len);
    return len == 2 && memcmp(protocol, "h2", 2) == 0;
}

/* curl holds a connection, new or reused, and is about to send the request on it. */
static int wire_on_prereq(void *ctx, char *peer, char *local, int peer_port, int local_port)
{
    struct httpc_call *call = ctx;

    (void)local, (void)peer_port, (void)local_port;
    if (call->is_guarded && !call->h->config.allow_private && !netguard_allows_text(peer)) {
        call->is_blocked = true; /* a reused connection: wire_on_open_socket was not asked */
        return CURL_PREREQFUNC_ABORT;
    }
    if (call->is_asked && call->is_paid)
        return CURL_PREREQFUNC_ABORT; /* curl's own second try */
    if (call->has_shared && is_on_h2(call))
        return CURL_PREREQFUNC_ABORT; /* a connection left from before the host spoke HTTP/1.1 (httpc_buffer.c) */
    call->is_again = call->is_asked;
    call->is_asked = true;
    if (call->host->probe == call) {
        call->host->speaks_h2 = is_on_h2(call);
        call->host->probe = NULL;
        call->host->is_open = call->h->hosts_opened = true;
        call->host->known_until_ms = clock_mono_ms() + KNOWN_MS;
    }
    return CURL_PREREQFUNC_OK;
}

static bool wire_has_body(const struct httpc_call *call)
{
    return call->mime || call->body_len > 0;
}

/* Only asked for when somebody wants to know that the request has left, or what it was sent from is to be freed. */
static int wire_on_progress(void *ctx, curl_off_t dltotal, curl_off_t dlnow, curl_off_t ultotal, curl_off_t ulnow)
{
    struct httpc_call *call = ctx;
    bool has_body = wire_has_body(call);
    long request_bytes = 0;

    (void)dltotal, (void)dlnow;
    if (call->is_sent || !call->is_asked)
        return 0;
    if (!has_body)
        (void)curl_easy_getinfo(call->easy, CURLINFO_REQUEST_SIZE, &request_bytes);
    if (has_body ? ultotal > 0 && ulnow >= ultotal : request_bytes > 0) {
        call->is_sent = true;
        call->sent_next = NULL;
        if (call->h->sent.last)
            call->h->sent.last->sent_next = call;
        else
            call->h->sent.first = call;
        call->h->sent.last = call;
    }
    return 0;
}

static enum err wire_add_part(struct httpc_call *call, const struct httpc_part *part)
{
    struct mime_source *s = calloc(1, sizeof *s);
    curl_mimepart *p = s ? curl_mime_addpart(call->mime) : NULL;
    struct stat st;
    bool ok;

    if (!p) {
        free(s);
        return ERR_NOMEM;
    }
    s->call = call;
    s->fd = -1;
    s->data = part->data;
    s->size = (int64_t)part->len;
    s->next = call->sources;
    call->sources = s;
    if (part->path) {
        s->fd = open(part->path, O_RDONLY | O_CLOEXEC);
        if (s->fd < 0 || fstat(s->fd, &st) != 0 || !S_ISREG(st.st_mode))
            return ERR_IO;
        s->size = st.st_size;
    }
    ok = curl_mime_name(p, part->name) == CURLE_OK &&
         (!part->filename || curl_mime_filename(p, part->filename) == CURLE_OK) &&
         (!part->mime || curl_mime_type(p, part->mime) == CURLE_OK) &&
         curl_mime_data_cb(p, s->size, mime_on_read, call->is_paid ? NULL : mime_on_seek, NULL, s) == CURLE_OK;
    return ok ? ERR_OK : ERR_NOMEM;
}

/* One block: the list's nodes, then copies of all lines, ours and the caller's. */
static enum err wire_headers(struct httpc_call *call, const struct httpc_request *r)
{
    const char *agent = call->h->config.user_agent, *lines[HEADERS_OF_OURS];
    size_t ours = 0, bytes = 0;
    bool has_type = r->parts != NULL; /* curl says it, with its boundary */
    struct curl_slist *nodes;
    char *text;

    for (size_t i = 0; i < r->header_count; i++) {
        if (strpbrk(r->headers[i], "\r\n") || !strchr(r->headers[i], ':'))
            return ERR_ARGUMENT; /* would become two headers, or none */
        has_type = has_type || strncasecmp(r->headers[i], "Content-Type:", 13) == 0;
        if (strncasecmp(r->headers[i], "User-Agent:", 11) == 0)
            agent = NULL;
        bytes += strlen(r->headers[i]) + 1;
    }
    lines[ours++] = "Expect:";
    if (!has_type)
        lines[ours++] = "Content-Type:"; /* curl's form type would be a lie */
    if (agent)
        lines[ours++] = agent; /* curl, told by its option, would print it twice */
    for (size_t i = 0; i < ours; i++)
        bytes += strlen(lines[i]) + 1;
    nodes = malloc((ours + r->header_count) * sizeof(*nodes) + bytes);
    if (!nodes)
        return ERR_NOMEM;
    text = (char *)(nodes + ours + r->header_count);
    for (size_t i = 0; i < ours + r->header_count; i++) {
        const char *line = i < ours ? lines[i] : r->headers[i - ours];
        size_t len = strlen(line) + 1;

        nodes[i].data = memcpy(text, line, len);
        nodes[i].next = i + 1 < ours + r->header_count ? &nodes[i + 1] : NULL;
        text += len;
    }
    call->header_lines = nodes;
    (void)curl_easy_setopt(call->easy, CURLOPT_HTTPHEADER, nodes);
    return ERR_OK;
}

static enum err wire_body(struct httpc_call *call, const struct httpc_request *r)
{
    CURL *e = call->easy;
    enum err err = ERR_OK;

    if (r->part_count > 0) {
        call->mime = curl_mime_init(e);
        if (!call->mime)
            return ERR_NOMEM;
        for (size_t i = 0; i < r->part_count && !err; i++)
            err = wire_add_part(call, &r->parts[i]);
        if (!err && curl_easy_setopt(e, CURLOPT_MIMEPOST, call->mime) != CURLE_OK)
            err = ERR_NOMEM;
        return err;
    }
    (void)curl_easy_setopt(e, CURLOPT_POST, 1L);
    (void)curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)call->body_len);
    if (call->is_paid && call->body_len > AT_ONCE_BYTES) {
        (void)curl_easy_setopt(e, CURLOPT_READFUNCTION, wire_on_read); /* and no SEEKFUNCTION */
        (void)curl_easy_setopt(e, CURLOPT_READDATA, call);
    } else {
        (void)curl_easy_setopt(e, CURLOPT_POSTFIELDS, call->body_len ? call->body : "");
    }
    return err;
}

static enum err wire_method(struct httpc_call *call, const struct httpc_request *r)
{
    CURL *e = call->easy;
    bool has_body = r->part_count > 0 || r->body_len > 0, is_post = strcmp(r->method, "POST") == 0;
    enum err err = ERR_OK;

    if (call->is_paid && !has_body)
        (void)curl_easy_setopt(e, CURLOPT_FRESH_CONNECT, 1L);
    if (has_body || is_post)
        err = wire_body(call, r);
    else if (strcmp(r->method, "HEAD") == 0)
        (void)curl_easy_setopt(e, CURLOPT_NOBODY, 1L);
    else
        (void)curl_easy_setopt(e, CURLOPT_HTTPGET, 1L);
    if (!err && !is_post && strcmp(r->method, "HEAD") != 0 && (has_body || strcmp(r->method, "GET") != 0) &&
        curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, r->method) != CURLE_OK)
        err = ERR_NOMEM;
    return err;
}

/* The probe has seen what an https host speaks; until the next probe its HTTP/1.1 is taken as such, and reads into the
 * buffer that is shared. */
static bool may_speak_h2(const struct httpc_call *call)
{
    const struct host *host = call->host;

    return !call->is_guarded && (host->speaks_h2 || clock_mono_ms() >= host->known_until_ms);
}

/* curl keeps the parsed certificates for all connections of a multi only when they come from one file. Debian's has a
 * folder set too: every connection then parses 140 certificates for itself, 0.9 MiB and milliseconds each (measured).
 */
static bool wire_trust(const struct httpc *h, CURL *e)
{
    const char *ca_file = h->config.ca_file;

    if (ca_file || curl_version_info(CURLVERSION_NOW)->cainfo)
        (void)curl_easy_setopt(e, CURLOPT_CAPATH, NULL);
    return !ca_file || curl_easy_setopt(e, CURLOPT_CAINFO, ca_file) == CURLE_OK;
}

/* What is the same for every call, set once: an easy handle made or reset. */
static bool wire_constants(struct httpc *h, CURL *e)
{
    bool ok =
        curl_easy_setopt(e, CURLOPT_PROXY, "") == CURLE_OK && curl_easy_setopt(e, CURLOPT_NOPROXY, "") == CURLE_OK;

    (void)curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    (void)curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
    (void)curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0L);
    (void)curl_easy_setopt(e, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    (void)curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1L); /* a call may be silent for minutes */
    (void)curl_easy_setopt(e, CURLOPT_TCP_KEEPIDLE, 45L);
    (void)curl_easy_setopt(e, CURLOPT_TCP_KEEPINTVL, 15L);
    (void)curl_easy_setopt(e, CURLOPT_SHARE, h->share);
    (void)curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, wire_on_header);
    (void)curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, wire_on_body);
    (void)curl_easy_setopt(e, CURLOPT_CLOSESOCKETFUNCTION, multi_on_close_socket);
    (void)curl_easy_setopt(e, CURLOPT_CLOSESOCKETDATA, h); /* a connection outlives the call that opened it */
    (void)curl_easy_setopt(e, CURLOPT_PREREQFUNCTION, wire_on_prereq);
    (void)curl_easy_setopt(e, CURLOPT_OPENSOCKETFUNCTION, wire_on_open_socket);
    (void)curl_easy_setopt(e, CURLOPT_XFERINFOFUNCTION, wire_on_progress);
    return ok && wire_trust(h, e);
}

static void wire_limits(struct httpc_call *call, const struct httpc_request *r, bool is_https)
{
    CURL *e = call->easy;
    bool is_h2_welcome = is_https && may_speak_h2(call);

    (void)curl_easy_setopt(e, CURLOPT_DISALLOW_USERNAME_IN_URL, call->is_guarded ? 1L : 0L);
    (void)curl_easy_setopt(e, CURLOPT_HTTP_VERSION, is_h2_welcome ? CURL_HTTP_VERSION_2TLS : CURL_HTTP_VERSION_1_1);
    (void)curl_easy_setopt(e, CURLOPT_PIPEWAIT, is_h2_welcome ? 1L : 0L);
    (void)curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, r->timeout_ms > 0 ? (long)r->timeout_ms : 60000L);
    (void)curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS,
                           r->connect_timeout_ms > 0 ? (long)r->connect_timeout_ms : 10000L);
    call->has_shared = buffer_set(e, is_h2_welcome);
    (void)curl_easy_setopt(e, CURLOPT_MAXAGE_CONN, (long)(call->is_paid ? PAID_IDLE_S : IDLE_S));
    /* a length declared too large is refused before a byte is read; what is not declared is counted as it comes */
    (void)curl_easy_setopt(e, CURLOPT_MAXFILESIZE_LARGE,
                           (curl_off_t)(strcmp(r->method, "HEAD") != 0 ? call->max_bytes : 0));
}

static void wire_callbacks(struct httpc_call *call)
{
    CURL *e = call->easy;

    (void)curl_easy_setopt(e, CURLOPT_PRIVATE, (char *)call);
    (void)curl_easy_setopt(e, CURLOPT_ERRORBUFFER, call->detail);
    (void)curl_easy_setopt(e, CURLOPT_HEADERDATA, call);
    (void)curl_easy_setopt(e, CURLOPT_WRITEDATA, call);
    (void)curl_easy_setopt(e, CURLOPT_PREREQDATA, call);
    (void)curl_easy_setopt(e, CURLOPT_OPENSOCKETDATA, call);
    (void)curl_easy_setopt(e, CURLOPT_XFERINFODATA, call);
}

void wire_forget_host(struct host *host)
{
    curl_url_cleanup(host->parsed);
    free(host);
}

/* curl takes a URL apart, puts it together, and takes it apart: a fifth of what it does for a call. Where host and path
 * are plain it gets the parts of the host, and the path that is this call's. */
static bool is_plain_path(const char *path)
{
    for (const char *c = path; *c; c++) {
        bool is_plain = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= ':') || *c == '/' ||
                        *c == '-' || *c == '_' || (*c == '.' && c[-1] != '/');
        if (!is_plain)
            return false;
    }
    return path[0] == '/';
}

static enum err wire_url(struct httpc_call *call, const char *url)
{
    const struct host *host = call->host;
    size_t front = strlen(host->front);
    const char *path = url + front;

    if (curl_easy_setopt(call->easy, CURLOPT_URL, url) != CURLE_OK)
        return ERR_NOMEM;
    if (call->is_guarded || front == 0 || strncmp(url, host->front, front) != 0 || !is_plain_path(path))
        return ERR_OK;
    call->url = curl_url_dup(host->parsed);
    if (!call->url || curl_url_set(call->url, CURLUPART_PATH, path, 0) != CURLUE_OK)
        return ERR_NOMEM;
    return curl_easy_setopt(call->easy, CURLOPT_CURLU, call->url) == CURLE_OK ? ERR_OK : ERR_NOMEM;
}

static CURL *wire_handle(struct httpc *h)
{
    CURL *easy;

    if (h->pool_count > 0)
        return h->pool[--h->pool_count];
    easy = curl_easy_init();
    if (easy && !wire_constants(h, easy)) {
        curl_easy_cleanup(easy);
        return NULL;
    }
    return easy;
}

/* Options that only take a number or a pointer cannot fail; those that copy text are checked. */
enum err wire_set_up(struct httpc_call *call, const struct httpc_request *request, bool is_https)
{
    bool is_watched;
    enum err err;

    call->easy = wire_handle(call->h);
    if (!call->easy)
        return ERR_NOMEM;
    wire_limits(call, request, is_https);
    wire_callbacks(call);
    err = wire_url(call, request->url);
    if (!err)
        err = wire_method(call, request);
    is_watched =
        call->on_sent || (is_https && wire_has_body(call)); /* over TLS curl sends from a buffer (buffer_sent) */
    (void)curl_easy_setopt(call->easy, CURLOPT_NOPROGRESS, is_watched ? 0L : 1L);
    return err ? err : wire_headers(call, request);
}

/* What differs from call to call is set by each of them or undone here, so that the handle stays as it is. It is set
 * anew after a call that ended badly or twice went for a connection: curl counts its own second tries as long as a
 * handle lives, and refuses the sixth. False: it cannot be used again (httpc_buffer.c). */
static bool wire_undo(struct httpc_call *call)
{
    CURL *e = call->easy;

    if (call->fate == HTTPC_ANSWERED && !call->is_again && !call->is_guarded) {
        (void)curl_easy_setopt(e, CURLOPT_CURLU, NULL);
        (void)curl_easy_setopt(e, CURLOPT_HTTPHEADER, NULL);
        if (call->mime)
            (void)curl_easy_setopt(e, CURLOPT_MIMEPOST, NULL);
        (void)curl_easy_setopt(e, CURLOPT_POSTFIELDS, NULL);
        (void)curl_easy_setopt(e, CURLOPT_READFUNCTION, NULL);
        (void)curl_easy_setopt(e, CURLOPT_READDATA, NULL);
        (void)curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, NULL);
        (void)curl_easy_setopt(e, CURLOPT_FRESH_CONNECT, 0L);
        (void)curl_easy_setopt(e, CURLOPT_ERRORBUFFER, NULL);
        (void)curl_easy_setopt(e, CURLOPT_PRIVATE, NULL);
        return !(call->has_shared && buffer_is_left(e));
    }
    if (buffer_is_left(e))
        return false;
    curl_easy_reset(e);
    return wire_constants(call->h, e);
}

void wire_done(struct httpc_call *call)
{
    struct httpc *h = call->h;

    if (call->easy && h->pool_count < POOL_MAX && !h->is_closing && wire_undo(call))
        h->pool[h->pool_count++] = call->easy;
    else if (call->easy)
        curl_easy_cleanup(call->easy);
    call->easy = NULL;
    curl_url_cleanup(call->url);
    call->url = NULL;
    curl_mime_free(call->mime);
    call->mime = NULL;
    free(call->header_lines);
    call->header_lines = NULL;
    while (call->sources) {
        struct mime_source *next = call->sources->next;
        if (call->sources->fd >= 0)
            (void)close(call->sources->fd); /* only read */
        free(call->sources);
        call->sources = next;
    }
}
