/* multipart.h - strict reader of multipart/form-data bodies. What it does not understand it refuses: a sandbox that
 * forgives teaches nothing. Slices point into the body. */
#ifndef SANDBOX_MULTIPART_H
#define SANDBOX_MULTIPART_H
#include <stdbool.h>
#include <stddef.h>

#define PARTS_MAX 32

struct part {
    char name[64];
    char type[64]; /* Content-Type of the part, empty when none was sent */
    bool is_file;  /* had a filename */
    const unsigned char *data;
    size_t len;
};

struct form {
    struct part parts[PARTS_MAX];
    size_t count;
};

/* False: `why` says what is wrong with the framing. */
bool multipart_parse(const char *content_type, const void *body, size_t len, struct form *out, const char **why);
const struct part *form_find(const struct form *f, const char *name);
#endif
