/* counters.c - counters by tag, key and in all, and a ring of the last requests (see counters.h). */
#include "counters.h"
#include "map.h"
#include "text.h"

#include <stdlib.h>
#include <string.h>

#define TAGS_MAX    500000
#define NOTES_KEPT  4096
#define NOTES_SHOWN 100

static const char *const counter_name[COUNT_KINDS] = {
#define X(member, name) name,
    COUNTER_LIST(X)
#undef X
};

struct tally {
    int64_t n[COUNT_KINDS];
};

struct counters {
    struct tally total;
    struct map *tags, *keys;
    struct request_note *notes;
    size_t note_count; /* ever */
};

struct counters *counters_new(void)
{
    struct counters *c = text_alloc(sizeof *c);
    c->tags = map_new();
    c->keys = map_new();
    c->notes = text_alloc(NOTES_KEPT * sizeof *c->notes);
    return c;
}

void counters_free(struct counters *c)
{
    if (c == NULL)
        return;
    map_free(c->tags, free);
    map_free(c->keys, free);
    free(c->notes);
    free(c);
}

void counters_reset(struct counters *c)
{
    c->total = (struct tally){ 0 };
    map_clear(c->tags, free);
    map_clear(c->keys, free);
    c->note_count = 0;
}

static struct tally *counters_tally(struct map *m, const char *name)
{
    struct tally *t = name == NULL ? NULL : map_get(m, name);
    if (t == NULL && name != NULL && map_count(m) < TAGS_MAX) {
        t = text_alloc(sizeof *t);
        map_put(m, name, t);
    }
    return t;
}

void counters_add(struct counters *c, const char *tag, const char *key, enum counter kind, int64_t n)
{
    struct tally *by_tag = counters_tally(c->tags, tag);
    struct tally *by_key = counters_tally(c->keys, key);
    c->total.n[kind] += n;
    if (by_tag != NULL)
        by_tag->n[kind] += n;
    if (by_key != NULL)
        by_key->n[kind] += n;
}

static json_t *tally_json(const struct tally *t)
{
    json_t *o = json_object();
    for (int i = 0; i < COUNT_KINDS; i++)
        (void)json_object_set_new(o, counter_name[i], json_integer(t->n[i])); /* a test notices a missing member */
    return o;
}

int64_t counters_cost(const struct counters *c, const char *key)
{
    const struct tally *t = map_get(c->keys, key);
    return t == NULL ? 0 : t->n[COUNT_COST];
}

json_t *counters_tag_json(const struct counters *c, const char *tag)
{
    const struct tally none = { 0 };
    const struct tally *t = map_get(c->tags, tag);
    return tally_json(t == NULL ? &none : t);
}

static void counters_on_each(void *cls, const char *key, void *value)
{
    (void)json_object_set_new(cls, key, tally_json(value)); /* as above */
}

json_t *counters_json(const struct counters *c)
{
    json_t *tags = json_object(), *keys = json_object();
    map_each(c->tags, counters_on_each, tags);
    map_each(c->keys, counters_on_each, keys);
    return json_pack("{s:o,s:o,s:o}", "totals", tally_json(&c->total), "tags", tags, "keys", keys);
}

void counters_note(struct counters *c, const struct request_note *note)
{
    c->notes[c->note_count++ % NOTES_KEPT] = *note;
}

json_t *counters_notes_json(const struct counters *c, const char *tag)
{
    const struct request_note *shown[NOTES_SHOWN];
    size_t count = 0;
    size_t kept = c->note_count < NOTES_KEPT ? c->note_count : NOTES_KEPT;

    for (size_t i = 0; i < kept && count < NOTES_SHOWN; i++) {
        const struct request_note *n = &c->notes[(c->note_count - 1 - i) % NOTES_KEPT];
        if (tag == NULL || strcmp(tag, n->tag) == 0)
            shown[count++] = n;
    }
    json_t *list = json_array();
    while (count > 0) {
        const struct request_note *n = shown[--count];
        json_t *one = json_pack("{s:I,s:s,s:s,s:s,s:i,s:s,s:s,s:i}", "at_ms", (json_int_t)n->at_ms, "method", n->method,
                                "path", n->path, "phase", n->phase, "status", n->status, "tag", n->tag, "key", n->key,
                                "on_connection", (int)n->on_connection);
        if (n->idempotency_key[0] != '\0')
            (void)json_object_set_new(one, "idempotency_key", json_string(n->idempotency_key)); /* a report only */
        (void)json_array_append_new(list, one);                                                 /* a report only */
    }
    return list;
}
