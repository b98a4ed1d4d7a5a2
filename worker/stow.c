/* stow.c - results become objects, many at a time: while one group is synced on a thread, the next is hashed, written
 * and renamed on another, and the one after gathers.
 *
 * The file system is asked once for a whole group (store_sync), as PostgreSQL is for a batch of settles; a result that
 * comes alone waits for nobody, and while a group is at work another begins only when it is worth a sync. Only after
 * the sync does collect.c go on to settle, so that what a row names is there whatever happens to the machine. Of
 * results in memory PACK_WORTH and more become one file (store_pack), synced by itself. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/clock.h"
#include "common/base/log.h"
#include "worker/actions.h"

enum { GROUP_MAX = 128, GROUP_WORTH = 64, PACK_WORTH = 8, PACKS_AGAIN_MS = 60000 };

static pthread_mutex_t syncing = PTHREAD_MUTEX_INITIALIZER;
static atomic_uint failed_syncs; /* so far; one storage a process */

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

static bool stow_may_pack(const struct collected *c)
{
    return c->is_ready && !c->is_done && !c->is_placed && c->data;
}

/* All of them or none. What a sync has failed for is tried anew later, as every result is; where no pack could be made
 * they are stored alone in this round. */
static void stow_packed(struct collected *const *all, size_t count, enum err err)
{
    for (size_t i = 0; i < count && (err == ERR_OK || err == ERR_LOST); i++) {
        if (err == ERR_LOST) {
            stow_fail(all[i]);
            continue;
        }
        all[i]->code = ERR_OK;
        all[i]->is_done = true;
    }
}

static void stow_pack(struct stow_group *group, size_t count)
{
    struct store_piece *pieces = calloc(count, sizeof(*pieces));
    struct collected **all = calloc(count, sizeof(struct collected *));
    size_t n = 0;

    for (struct sortie *s = group->first; s && pieces && all; s = s->stow_next) {
        for (size_t i = 0; i < s->output_count && n < count; i++) {
            struct collected *c = &s->outputs[i];

            if (!stow_may_pack(c))
                continue;
            atomic_store(&s->has_begun, true);
            sha256_hex(c->sha256, c->data, (size_t)c->bytes);
            pieces[n] = (struct store_piece){ c->object, c->data, (size_t)c->bytes, c->object };
            all[n++] = c;
        }
    }
    group->packed = pieces && all ? store_pack(group->env->store, pieces, n) : ERR_NOMEM;
    if (pieces && all)
        stow_packed(all, n, group->packed);
    free(pieces);
    free(all);
}

static void stow_place(struct sortie *s)
{
    atomic_store(&s->has_begun, true);
    for (size_t i = 0; i < s->output_count; i++) {
        struct collected *c = &s->outputs[i];

        if (!c->is_ready || c->is_done || c->is_placed || c->is_again) /* the last: in this round, with its pack */
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

/* Linux tells one of those who ask that writing back failed, whosever bytes they were. So groups ask one after the
 * other, and whoever began before a failure takes it for its own. */
static enum err stow_sync(struct store *store, const char *const *objects, size_t count, unsigned failed_before)
{
    enum err err;

    pthread_mutex_lock(&syncing);
    err = store_sync(store, objects, count);
    if (err != ERR_OK)
        atomic_fetch_add(&failed_syncs, 1);
    else if (atomic_load(&failed_syncs) != failed_before)
        err = ERR_IO;
    pthread_mutex_unlock(&syncing);
    return err;
}

static void stow_on_thread(uv_work_t *w)
{
    struct stow_group *group = container_of(w, struct stow_group, work);
    unsigned failed_before = atomic_load(&failed_syncs);
    struct sortie *s;
    const char **objects;
    size_t count = 0, at = 0, small = 0;
    enum err err = ERR_NOMEM;

    for (s = group->first; s; s = s->stow_next) {
        for (size_t i = 0; i < s->output_count; i++) {
            if (s->outputs[i].is_ready)
                s->outputs[i].is_again = false; /* what an earlier round said */
            small += stow_may_pack(&s->outputs[i]);
        }
    }
    if (group->may_pack && small >= PACK_WORTH)
        stow_pack(group, small < STORE_PACK_MAX ? small : STORE_PACK_MAX);
    for (s = group->first; s; s = s->stow_next) {
        stow_place(s);
        count += stow_list(s, NULL);
    }
    objects = malloc((count ? count : 1) * sizeof(*objects));
    if (objects) {
        for (s = group->first; s; s = s->stow_next)
            at += stow_list(s, objects + at);
        err = count ? stow_sync(group->env->store, objects, count, failed_before) : ERR_OK;
    }
    free(objects);
    for (s = group->first; s; s = s->stow_next)
        stow_end(s, err);
}

/* --- on the loop */

static void stow_next(struct flight_env *env);

static void stow_on_worked(uv_work_t *w, int status)
{
    struct stow_group *group = container_of(w, struct stow_group, work);
    struct sortie *s = group->first, *next;

    (void)status; /* never canceled */
    group->first = NULL;
    if (group->packed != ERR_OK) {
        log_error("pack", log_str("problem", group->packed == ERR_LOST ? "sync" : err_word(group->packed)),
                  log_int("again_ms", PACKS_AGAIN_MS));
        group->env->stow.packs_again_ms = clock_mono_ms() + PACKS_AGAIN_MS;
    }
    stow_next(group->env); /* the disk goes on while we look at what came */
    for (; s; s = next) {
        next = s->stow_next;
        s->stow_next = NULL;
        collect_stowed(s->flight);
    }
}

/* NULL: all are at work, or some are and too little has gathered. */
static struct stow_group *stow_idle(struct stow *stow)
{
    struct stow_group *idle = NULL;
    bool is_busy = false;

    for (size_t i = 0; i < STOW_GROUPS; i++) {
        if (stow->groups[i].first)
            is_busy = true;
        else
            idle = &stow->groups[i];
    }
    return is_busy && stow->count < GROUP_WORTH ? NULL : idle;
}

static void stow_next(struct flight_env *env)
{
    struct stow *stow = &env->stow;
    struct sortie **end = &stow->first;
    struct stow_group *group = stow->first ? stow_idle(stow) : NULL;

    if (!group)
        return;
    for (size_t n = 0; *end && n < GROUP_MAX; n++, stow->count--)
        end = &(*end)->stow_next;
    group->env = env;
    group->may_pack = clock_mono_ms() >= stow->packs_again_ms;
    group->packed = ERR_OK;
    group->first = stow->first;
    stow->first = *end;
    *end = NULL;
    if (!stow->first)
        stow->last = NULL;
    (void)uv_queue_work(env->loop, &group->work, stow_on_thread, stow_on_worked); /* fails without a function only */
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
    stow->count++;
    stow_next(f->env);
}
