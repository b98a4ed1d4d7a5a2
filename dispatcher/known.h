/* known.h - ids seen lately, in 2 MiB: exact about what it says it knows, but it forgets. */
#ifndef KILN_KNOWN_H
#define KILN_KNOWN_H
#include <stdbool.h>

struct known;
struct known *known_new(void); /* NULL: out of memory */
void known_free(struct known *k);

void known_add(struct known *k, const char *id); /* a UUID, else nothing happens */
bool known_has(const struct known *k, const char *id);
#endif
