/* stow.c - results become objects, many at a time: while one group is renamed and synced on a thread, the next gathers.
 *
 * The file system is asked once for a whole group (store_sync), as PostgreSQL is for a batch of settles; a result that
 * comes alone waits for nobody. Only after the sync does collect.c go on to settle, so that what a row names is there
 * whatever happens to the machine. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/clock.h"
#include "worker/actions.h"

enum { GROUP_MAX = 256 };

static void stow_fail(struct collected *c)
{
    c->code = ERR_STORAGE_ERROR;
    c->is_again = true;
    (void)snprintf(c->reason, sizeof(c->reason), "the result could not be stored");
}

/* --- on the thread */

static enum err stow_one(struct store *store, struct collected *c)
{
    if (!c->data)
        return store_place(store, c->temp, c->object);
    sha256_hex(c->sha256, c->data, (size_t)c->bytes);
    return store_put(store, c->object, c->data, (size_t)c->bytes);
}

static void stow_place(struct sortie *s)
{
    atomic_store(&s->has_begun, true);
    for (size_t i = 0; i < s->output_count; i++) {
        struct collected *c = &s->outputs[i];

        if (!c->is_ready || c->is_done || c->is_placed)
            continue;
        if (stow_one(s->flight->env->store, c) == ERR_OK)
            c->is_placed = true;
        else
            stow_fail(c); /* the temp file stays for the next try */
    }
}

/* Linux says once that bytes did not reach the disk and takes them for written from then on, so that asking again
 * proves nothing: they have to be written again, from memory or from what can still be read. */
static void stow_undo(struct store *store, struct collected *c)
{
    c->is_placed = false;
    if (!c->data && store_take_back(store, c->object, c->temp, sizeof(c->temp)) != ERR_OK)
        c->temp[0] = '\0'; /* nothing is left of it: the next try cannot place it either */
    stow_fail(c);
}

/* Outputs that are placed and not known to be durable; `objects` NULL: only counts. */
static size_t stow_list(const struct sortie *s, const char **objects)
{
    size_t n = 0;

    for (size_t i = 0; i < s->output_count; i++) {
        if (!s->outputs[i].is_placed || s->outputs[i].is_done)
            continue;
        if (objects)
            objects[n] = s->outputs[i].object;
        n++;
    }
    return n;
}

static void stow_end(struct sortie *s, enum err synced)
{
    for (size_t i = 0; i < s->output_count; i++) {
        struct collected *c = &s->outputs[i];

        if (!c->is_placed || c->is_done)
            continue;
        if (synced != ERR_OK) {
            stow_undo(s->flight->env->store, c);
            continue;
        }
        c->code = ERR_OK;
        c->is_done = true;
        c->temp[0] = '\0';
    }
}

static void stow_on_thread(uv_work_t *w)
{
    struct stow *stow = container_of(w, struct stow, work);
    struct sortie *s;
    const char **objects;
    size_t count = 0, at = 0;
    enum err err = ERR_NOMEM;

    for (s = stow->group; s; s = s->stow_next) {
        stow_place(s);
        count += stow_list(s, NULL);
    }
    objects = malloc((count ? count : 1) * sizeof(*objects));
    if (objects) {
        for (s = stow->group; s; s = s->stow_next)
            at += stow_list(s, objects + at);
        err = count ? store_sync(stow->group->flight->env->store, objects, count) : ERR_OK;
    }
    free(objects);
    for (s = stow->group; s; s = s->stow_next)
        stow_end(s, err);
}

/* --- on the loop */

static void stow_next(struct flight_env *env);

static void stow_on_worked(uv_work_t *w, int status)
{
    struct stow *stow = container_of(w, struct stow, work);
    struct flight_env *env = container_of(stow, struct flight_env, stow);
    struct sortie *s = stow->group, *next;

    (void)status; /* never canceled */
    stow->group = NULL;
    stow_next(env); /* the disk goes on while we look at what came */
    for (; s; s = next) {
        next = s->stow_next;
        s->stow_next = NULL;
        collect_stowed(s->flight);
    }
}

static void stow_next(struct flight_env *env)
{
    struct stow *stow = &env->stow;
    struct sortie **end = &stow->first;

    if (stow->group || !stow->first)
        return;
    for (size_t n = 0; *end && n < GROUP_MAX; n++)
        end = &(*end)->stow_next;
    stow->group = stow->first;
    stow->first = *end;
    *end = NULL;
    if (!stow->first)
        stow->last = NULL;
    (void)uv_queue_work(env->loop, &stow->work, stow_on_thread, stow_on_worked); /* fails without a function only */
}

void stow_add(struct flight *f)
{
    struct stow *stow = &f->env->stow;
    struct sortie *s = f->sortie;

    line_remove(f); /* what it waited for before was a decoder */
    atomic_store(&s->has_begun, false);
    s->work_queued_ms = clock_mono_ms();
    line_push(&f->env->for_store, f);
    s->stow_next = NULL;
    if (stow->last)
        stow->last->stow_next = s;
    else
        stow->first = s;
    stow->last = s;
    stow_next(f->env);
}
