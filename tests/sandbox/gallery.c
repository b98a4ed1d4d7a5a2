/* gallery.c - least-recently-used cache of encoded pictures, filled by the thread pool (see gallery.h). */
#include "gallery.h"
#include "map.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

struct entry {
    struct entry *fresher, *staler;
    struct blob *file;
    char name[33];
};

struct gallery {
    uv_mutex_t lock; /* everything below is shared by the pool's threads */
    struct map *by_name;
    struct entry *freshest, *stalest;
    size_t bytes, limit;
};

struct gallery *gallery_new(void)
{
    struct gallery *g = text_alloc(sizeof *g);
    if (uv_mutex_init(&g->lock) != 0)
        abort();
    g->by_name = map_new();
    g->limit = 64U << 20;
    return g;
}

static void gallery_unlink(struct gallery *g, struct entry *e)
{
    *(e->fresher != NULL ? &e->fresher->staler : &g->freshest) = e->staler;
    *(e->staler != NULL ? &e->staler->fresher : &g->stalest) = e->fresher;
}

static void gallery_front(struct gallery *g, struct entry *e)
{
    e->fresher = NULL;
    e->staler = g->freshest;
    *(g->freshest != NULL ? &g->freshest->fresher : &g->stalest) = e;
    g->freshest = e;
}

static void gallery_shrink(struct gallery *g, size_t limit)
{
    while (g->bytes > limit && g->stalest != NULL) {
        struct entry *e = g->stalest;
        gallery_unlink(g, e);
        (void)map_take(g->by_name, e->name); /* it is e */
        g->bytes -= e->file->len;
        blob_drop(e->file);
        free(e);
    }
}

void gallery_free(struct gallery *g)
{
    if (g == NULL)
        return;
    gallery_shrink(g, 0);
    map_free(g->by_name, NULL);
    uv_mutex_destroy(&g->lock);
    free(g);
}

void gallery_limit(struct gallery *g, size_t bytes)
{
    uv_mutex_lock(&g->lock);
    g->limit = bytes;
    gallery_shrink(g, bytes);
    uv_mutex_unlock(&g->lock);
}

static void gallery_name(const struct picture_spec *s, char name[33])
{
    crypto_generichash_state st;
    unsigned char raw[16];
    int64_t facts[] = { s->kind, s->width, s->height, s->format, s->quality, s->transparent, s->flaws };
    crypto_generichash_init(&st, NULL, 0, sizeof raw);
    crypto_generichash_update(&st, (const unsigned char *)facts, sizeof facts);
    crypto_generichash_update(&st, (const unsigned char *)&s->seed, sizeof s->seed);
    crypto_generichash_update(&st, (const unsigned char *)s->prompt, strlen(s->prompt));
    if (s->input != NULL)
        crypto_generichash_update(&st, s->input->data, s->input->len);
    crypto_generichash_final(&st, raw, sizeof raw);
    sodium_bin2hex(name, 33, raw, sizeof raw);
}

static struct blob *gallery_get(struct gallery *g, const struct picture_spec *s)
{
    char name[33];
    struct blob *file = NULL;

    gallery_name(s, name);
    uv_mutex_lock(&g->lock);
    struct entry *e = map_get(g->by_name, name);
    if (e != NULL) {
        gallery_unlink(g, e);
        gallery_front(g, e);
        file = blob_hold(e->file);
    }
    uv_mutex_unlock(&g->lock);
    if (file != NULL)
        return file;

    file = picture_make(s); /* outside the lock; two threads may paint the same, and one copy is kept */
    if (file == NULL)
        return NULL;
    uv_mutex_lock(&g->lock);
    if (file->len <= g->limit && map_get(g->by_name, name) == NULL) {
        e = text_alloc(sizeof *e);
        memcpy(e->name, name, sizeof name);
        e->file = blob_hold(file);
        g->bytes += file->len;
        map_put(g->by_name, name, e);
        gallery_front(g, e);
        gallery_shrink(g, g->limit);
    }
    uv_mutex_unlock(&g->lock);
    return file;
}

struct paint *paint_new(struct gallery *g)
{
    struct paint *p = text_alloc(sizeof *p);
    p->gallery = g;
    return p;
}

void paint_free(struct paint *p)
{
    if (p == NULL)
        return;
    for (size_t i = 0; i < p->count; i++)
        picture_spec_done(&p->specs[i]);
    free(p->head);
    free(p->between);
    free(p->tail);
    blob_drop(p->file);
    buf_done(&p->body);
    free(p);
}

static void paint_on_thread(uv_work_t *req)
{
    struct paint *p = container_of(req, struct paint, req);
    if (p->head != NULL)
        buf_str(&p->body, p->head);
    for (size_t i = 0; i < p->count && !p->failed; i++) {
        struct blob *file = gallery_get(p->gallery, &p->specs[i]);
        if (file == NULL) {
            p->failed = true;
        } else if (p->head == NULL) {
            p->file = file;
            break;
        } else {
            if (i > 0)
                buf_str(&p->body, p->between);
            buf_base64(&p->body, file->data, file->len);
            blob_drop(file);
        }
    }
    if (p->head != NULL)
        buf_str(&p->body, p->tail);
}

static void paint_on_done(uv_work_t *req, int status)
{
    struct paint *p = container_of(req, struct paint, req);
    if (status != 0)
        p->failed = true; /* canceled at shutdown */
    if (p->owner != NULL)
        p->done(p->owner, p);
    paint_free(p);
}

void paint_abandon(struct paint *p)
{
    p->owner = NULL;
    (void)uv_cancel((uv_req_t *)&p->req); /* one under way is finished for the cache */
}

void paint_start(struct paint *p, uv_loop_t *loop)
{
    if (uv_queue_work(loop, &p->req, paint_on_thread, paint_on_done) != 0)
        abort(); /* fails only without a callback */
}
