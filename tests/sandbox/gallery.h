/* gallery.h - pictures painted on libuv's thread pool, the encoded files kept in a cache of limited bytes. */
#ifndef SANDBOX_GALLERY_H
#define SANDBOX_GALLERY_H
#include "picture.h"

#include <uv.h>

struct gallery;
struct gallery *gallery_new(void);
void gallery_free(struct gallery *g); /* only when no painting is under way */
void gallery_limit(struct gallery *g, size_t bytes);

/* A painting under way: up to ten pictures, and how the answer is put together round them. The wrapping is done on the
 * thread too: base64 of a picture takes milliseconds. */
#define PAINT_MAX 10
struct paint {
    uv_work_t req;
    struct gallery *gallery;
    struct picture_spec specs[PAINT_MAX];
    size_t count;
    char *head, *between, *tail;               /* NULL head: one picture, its bytes are the answer */
    void *owner;                               /* NULL: nobody waits any more */
    void (*done)(void *owner, struct paint *); /* on the loop; not called without an owner */
    bool failed;                               /* an input could not be decoded */
    struct blob *file;                         /* the answer without head */
    struct buf body;                           /* the answer with head */
};
struct paint *paint_new(struct gallery *g);
void paint_start(struct paint *p, uv_loop_t *loop); /* frees itself after done */
void paint_abandon(struct paint *p);                /* the owner no longer cares: not painted if not begun */
void paint_free(struct paint *p);                   /* one that was never started */
#endif
