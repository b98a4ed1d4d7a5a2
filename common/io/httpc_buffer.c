/* httpc_buffer.c - one buffer for what is read from all connections over HTTP/1.1.
 *
 * libcurl 7.88 gives each transfer a buffer of its own, from the start of the connection to the end of the answer. It
 * uses it only while it reads: bytes come from the socket, pass through the callbacks and are done with before
 * curl_multi_socket_action returns (lib/transfer.c, readwrite_data; checked in the sources of 7.88.1). Ten thousand
 * calls that wait need ten thousand such buffers, each touched for the first time and cold when its answer comes. From
 * 8.7 on libcurl itself keeps one for all transfers of a multi handle.
 *
 * So the buffer's allocation, which its size tells, is answered with the same memory each time. The size is curl's
 * largest, 10 MiB; no text that curl takes may be longer than 8,000,000 bytes and no body is copied by it, so that
 * nothing else asks for as much. Only pages that are ever filled are there: a socket's worth.
 *
 * Not for HTTP/2: there a frame for one stream is put into that stream's buffer while another's is read, and stays. Not
 * with a SOCKS proxy, which we never have. And only for 7.88, whose sources were read; other versions have curl's own.
 *
 * HTTP/2's own are untouched until their answers come, two pages each. And over TLS what is sent goes through a buffer
 * of 16 KiB, of which most requests fill a page. On the heap, whose pages may be huge (settings_memory), all of both
 * would be there at once. So both kinds have a place of ordinary pages; the one used last is used next. curl keeps the
 * second until the answer is there; to set its size frees it, as soon as a body is sent (lib/setopt.c; lib/transfer.c,
 * readwrite_upload, asks for it anew if it needs one). Whatever else of curl has its size gets a place as well.
 *
 * Not every end of a transfer frees its buffer (a name that does not resolve, a stream that ends beside others). Then
 * it stays with the easy handle, and curl_easy_reset makes curl believe that it has 16 KiB. So a handle with a buffer
 * is never reset (httpc_wire.c), and one that still has the shared one is not used again. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "common/base/small.h"
#include "common/io/httpc_inside.h"

enum {
    PAGE_BYTES = 4 * 1024,
    OWN_BYTES = 2 * PAGE_BYTES - 9, /* a size that nothing else has; twice as much is 40 MiB of 10,000 (measured) */
    SENT_BYTES = 4 * PAGE_BYTES,    /* curl takes no less; more would be two records of TLS for each */
    PLACES_MAX = 16 * 1024,
    SHARED_BYTES = CURL_MAX_READ_SIZE, /* curl asks for a byte more, for a NUL */
    READ_VERSION = 0x0758,
};

static char *shared;     /* NULL: there is none */
static pthread_t reader; /* the thread whose transfers share it: of the first that asked */
static bool has_reader;

static struct places {
    size_t bytes; /* of each */
    char *first;  /* PLACES_MAX of them; NULL: there are none */
    char *free;   /* the last given back; each begins with the one before */
    size_t left;  /* that were never given out */
} owns = { .bytes = 2 * PAGE_BYTES }, sents = { .bytes = SENT_BYTES };

static bool is_reader(void)
{
    if (!has_reader) {
        reader = pthread_self();
        has_reader = true;
    }
    return pthread_equal(reader, pthread_self());
}

static void *place_take(struct places *of, size_t bytes)
{
    char *place = of->free;

    if (place)
        memcpy(&of->free, place, sizeof(of->free));
    else if (of->left > 0)
        place = of->first + --of->left * of->bytes;
    return place ? place : small_malloc(bytes);
}

static bool place_is_of(const struct places *of, const char *p)
{
    return of->first && p >= of->first && p < of->first + PLACES_MAX * of->bytes;
}

static bool place_free(struct places *of, char *p)
{
    if (!place_is_of(of, p))
        return false;
    memcpy(p, &of->free, sizeof(of->free));
    of->free = p;
    return true;
}

static void *buffer_malloc(size_t size)
{
    if (size == SHARED_BYTES + 1 && is_reader())
        return shared;
    if (size == OWN_BYTES + 1 && is_reader())
        return place_take(&owns, size);
    if (size == SENT_BYTES && is_reader())
        return place_take(&sents, size);
    return small_malloc(size);
}

static void buffer_free(void *p)
{
    if (p && p != shared && !place_free(&owns, p) && !place_free(&sents, p)) /* nine in ten are NULL */
        small_free(p);
}

static void *buffer_realloc(void *p, size_t size) /* of a place: curl does not, and if it did it were right */
{
    const struct places *of = place_is_of(&owns, p) ? &owns : place_is_of(&sents, p) ? &sents : NULL;
    void *grown;

    if (!of)
        return small_realloc(p, size);
    grown = small_malloc(size);
    if (grown) {
        memcpy(grown, p, size < of->bytes ? size : of->bytes);
        buffer_free(p);
    }
    return grown;
}

static char *buffer_map(size_t bytes)
{
    void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return map == MAP_FAILED ? NULL : map;
}

static void places_map(struct places *of)
{
#ifndef __SANITIZE_ADDRESS__ /* there malloc sees what is read past their end */
    of->first = buffer_map(PLACES_MAX * of->bytes);
    if (!of->first)
        return;
    of->left = PLACES_MAX;
    (void)madvise(of->first, PLACES_MAX * of->bytes, MADV_NOHUGEPAGE); /* refused: there are none */
#else
    (void)of;
#endif
}

bool httpc_init(void)
{
    static bool is_done;
    bool is_read = curl_version_info(CURLVERSION_NOW)->version_num >> 8 == READ_VERSION;

    if (is_done)
        return true;
    if (is_read) {
        shared = buffer_map(SHARED_BYTES + 1);
        if (shared) {
            places_map(&owns);
            places_map(&sents);
        }
    }
    is_done = curl_global_init_mem(CURL_GLOBAL_DEFAULT, shared ? buffer_malloc : small_malloc,
                                   shared ? buffer_free : small_free, shared ? buffer_realloc : small_realloc,
                                   small_strdup, small_calloc) == CURLE_OK;
    return is_done;
}

bool buffer_set(CURL *easy, bool is_h2_welcome)
{
    bool is_shared = shared && !is_h2_welcome;
    long bytes = is_shared ? SHARED_BYTES : OWN_BYTES;

    (void)curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, (long)SENT_BYTES); /* frees one that a stream left */
    /* refused: it still has one of OWN_BYTES, which is what curl believes */
    return shared && curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, bytes) == CURLE_OK && is_shared;
}

/* A retry that curl made by itself begins to count at 0 again. */
void buffer_sent(CURL *easy)
{
    curl_off_t size = 0, sent = 0;

    if (shared && curl_easy_getinfo(easy, CURLINFO_CONTENT_LENGTH_UPLOAD_T, &size) == CURLE_OK &&
        curl_easy_getinfo(easy, CURLINFO_SIZE_UPLOAD_T, &sent) == CURLE_OK && size > 0 && sent >= size)
        (void)curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, (long)SENT_BYTES);
}

bool buffer_is_left(CURL *easy)
{
    return curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, (long)OWN_BYTES) != CURLE_OK;
}
