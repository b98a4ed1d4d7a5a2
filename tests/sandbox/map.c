/* map.c - the sandbox's one table: jobs by id, counters by tag, accounts by key (see map.h). */
#include "map.h"
#include "text.h"

#include <stdlib.h>
#include <string.h>

struct node {
    struct node *next;
    void *value;
    uint64_t hash;
    char key[];
};

struct map {
    struct node **slots;
    size_t slot_count, count;
};

static uint64_t map_hash(const char *key)
{
    uint64_t h = 1469598103934665603ULL; /* FNV-1a: nobody attacks a sandbox */
    for (; *key != '\0'; key++)
        h = (h ^ (unsigned char)*key) * 1099511628211ULL;
    return h ^ (h >> 29);
}

struct map *map_new(void)
{
    struct map *m = text_alloc(sizeof *m);
    m->slot_count = 64;
    m->slots = text_alloc(m->slot_count * sizeof(struct node *));
    return m;
}

void map_clear(struct map *m, void (*free_value)(void *))
{
    for (size_t i = 0; i < m->slot_count; i++) {
        for (struct node *n = m->slots[i]; n != NULL;) {
            struct node *next = n->next;
            if (free_value != NULL)
                free_value(n->value);
            free(n);
            n = next;
        }
        m->slots[i] = NULL;
    }
    m->count = 0;
}

void map_free(struct map *m, void (*free_value)(void *))
{
    if (m == NULL)
        return;
    map_clear(m, free_value);
    free(m->slots);
    free(m);
}

static struct node **map_find(const struct map *m, const char *key, uint64_t hash)
{
    struct node **at = &m->slots[hash & (m->slot_count - 1)];
    while (*at != NULL && ((*at)->hash != hash || strcmp((*at)->key, key) != 0))
        at = &(*at)->next;
    return at;
}

static void map_widen(struct map *m)
{
    size_t wide = m->slot_count * 2;
    struct node **slots = text_alloc(wide * sizeof(struct node *));
    for (size_t i = 0; i < m->slot_count; i++) {
        for (struct node *n = m->slots[i]; n != NULL;) {
            struct node *next = n->next;
            n->next = slots[n->hash & (wide - 1)];
            slots[n->hash & (wide - 1)] = n;
            n = next;
        }
    }
    free(m->slots);
    m->slots = slots;
    m->slot_count = wide;
}

void *map_get(const struct map *m, const char *key)
{
    struct node *n = *map_find(m, key, map_hash(key));
    return n == NULL ? NULL : n->value;
}

void map_put(struct map *m, const char *key, void *value)
{
    uint64_t hash = map_hash(key);
    struct node **at = map_find(m, key, hash);
    if (*at != NULL) {
        (*at)->value = value;
        return;
    }
    size_t len = strlen(key);
    struct node *n = text_alloc(sizeof *n + len + 1);
    memcpy(n->key, key, len + 1);
    n->hash = hash;
    n->value = value;
    *at = n;
    if (++m->count > m->slot_count)
        map_widen(m);
}

void *map_take(struct map *m, const char *key)
{
    struct node **at = map_find(m, key, map_hash(key));
    struct node *n = *at;
    if (n == NULL)
        return NULL;
    void *value = n->value;
    *at = n->next;
    free(n);
    m->count--;
    return value;
}

size_t map_count(const struct map *m)
{
    return m->count;
}

void map_each(const struct map *m, void (*fn)(void *cls, const char *key, void *value), void *cls)
{
    for (size_t i = 0; i < m->slot_count; i++)
        for (struct node *n = m->slots[i]; n != NULL; n = n->next)
            fn(cls, n->key, n->value);
}
