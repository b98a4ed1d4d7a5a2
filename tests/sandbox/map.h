/* map.h - string to pointer, chained hash table. Keys are copied, values belong to the caller. */
#ifndef SANDBOX_MAP_H
#define SANDBOX_MAP_H
#include <stddef.h>

struct map;
struct map *map_new(void);
void map_free(struct map *m, void (*free_value)(void *)); /* NULL is fine, free_value may be NULL */
void map_clear(struct map *m, void (*free_value)(void *));

void *map_get(const struct map *m, const char *key);
void map_put(struct map *m, const char *key, void *value); /* replaces; the caller frees the old one */
void *map_take(struct map *m, const char *key);            /* removes and returns, NULL when absent */
size_t map_count(const struct map *m);
void map_each(const struct map *m, void (*fn)(void *cls, const char *key, void *value), void *cls);
#endif
