/* microhttpd.h - a stand-in for libmicrohttpd that never opens a socket, so that the dispatcher can be asked from
 * memory.
 *
 * The program defines the functions that dispatcher/httpd.c calls, so these are linked instead of the library's: they
 * keep the callbacks of the one daemon, hand requests to them in the library's order, and take the answer. */
#ifndef KILN_FUZZ_MICROHTTPD_H
#define KILN_FUZZ_MICROHTTPD_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

enum { EXCHANGE_HEADERS = 24 };

struct exchange { /* one request and its answer; text is borrowed, and writable */
    const char *method, *target, *version;
    const char *names[EXCHANGE_HEADERS], *values[EXCHANGE_HEADERS];
    size_t header_count;
    const char *body;
    size_t body_len;

    int answers, status; /* written by exchange_run */
    const char *answer_names[EXCHANGE_HEADERS], *answer_values[EXCHANGE_HEADERS];
    size_t answer_header_count;
    char *answer; /* NULL: none, or a file */
    size_t answer_len;
    bool is_file;
    uint64_t file_size, file_offset, file_length; /* of the file; what is sent of it */
};

/* Runs the loop between calls with `turn`, as long as the connection is suspended. exchange_done frees the answer. */
void exchange_run(struct exchange *e, void (*turn)(void));
void exchange_done(struct exchange *e);
const char *exchange_header(const struct exchange *e, const char *name); /* of the answer; NULL */
#endif
