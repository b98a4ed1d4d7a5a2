/* versions.c - places of four by the id's random end. */
#include "dispatcher/versions.h"
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/text.h"

enum { PLACES = 1 << 12, WAYS = 4 };

struct entry {
    unsigned char job[UUID_BYTES], app[UUID_BYTES];
    int64_t version; /* 0: free */
    int64_t at_ms;   /* when it was read, or sooner */
};

struct versions {
    struct place {
        struct entry entries[WAYS]; /* the newest first */
        int64_t event_ms;           /* of the last event of any of its jobs */
    } places[PLACES];
};

struct versions *versions_new(void)
{
    return calloc(1, sizeof(struct versions));
}

void versions_free(struct versions *v)
{
    free(v);
}

static size_t place_of(const unsigned char id[UUID_BYTES])
{
    uint32_t end;

    memcpy(&end, id + UUID_BYTES - sizeof(end), sizeof(end));
    return end % PLACES;
}

void versions_note(struct versions *v, const char *job, const char *app, int64_t version, int64_t began_ms)
{
    struct entry e = { .version = version, .at_ms = began_ms };
    struct place *place;
    size_t i = 0;

    if (!uuid_bytes(e.job, job) || !uuid_bytes(e.app, app))
        return;
    place = &v->places[place_of(e.job)];
    while (i < WAYS - 1 && memcmp(place->entries[i].job, e.job, UUID_BYTES) != 0)
        i++;
    if (place->event_ms >= began_ms) { /* the read may have been before what the event tells of */
        if (memcmp(place->entries[i].job, e.job, UUID_BYTES) == 0 && place->entries[i].version < version)
            place->entries[i] = (struct entry){ 0 };
        return;
    }
    memmove(&place->entries[1], &place->entries[0], i * sizeof(e));
    place->entries[0] = e;
}

int64_t versions_of(const struct versions *v, const char *job, const char *app, int64_t now_ms)
{
    unsigned char id[UUID_BYTES], of[UUID_BYTES];
    const struct place *place;

    if (!uuid_bytes(id, job) || !uuid_bytes(of, app))
        return 0;
    place = &v->places[place_of(id)];
    for (size_t i = 0; i < WAYS; i++) {
        const struct entry *e = &place->entries[i];

        if (memcmp(e->job, id, UUID_BYTES) == 0)
            return memcmp(e->app, of, UUID_BYTES) == 0 && now_ms - e->at_ms < VERSIONS_MS ? e->version : 0;
    }
    return 0;
}

void versions_forget(struct versions *v, const char *job, int64_t now_ms)
{
    unsigned char id[UUID_BYTES];
    struct place *place;

    if (!uuid_bytes(id, job))
        return;
    place = &v->places[place_of(id)];
    place->event_ms = now_ms;
    for (size_t i = 0; i < WAYS; i++) {
        if (memcmp(place->entries[i].job, id, UUID_BYTES) == 0)
            place->entries[i] = (struct entry){ 0 };
    }
}
