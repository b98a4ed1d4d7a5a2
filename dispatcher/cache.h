/* cache.h - jobs with `cache`: their key, whether what would answer them is still there, and those that wait.
 *
 * PostgreSQL decides who is answered, who leads and who waits (schema/postgres/0012_cache.sql). The key is never shown.
 */
#ifndef KILN_CACHE_H
#define KILN_CACHE_H
#include "common/base/text.h"
#include "dispatcher/accept.h"

struct dispatcher;

/* Of app, operation, normalised parameters, files by their content and the providers that may serve a route. False:
 * faults say which file has no known content (a URL). */
bool cache_key(char key[SHA256_HEX], const struct accept_order *o, const char *app, const json_t *inputs,
               struct catalog_faults *faults);

/* Looks whether the objects of earlier results under this key are still in the storage; results without theirs are no
 * entries any more. Then `done`, whatever was found; the request must live until then. */
void cache_look(struct request *r, const char *app, const char *key, void (*done)(void *ctx), void *ctx);

void cache_count(struct dispatcher *d, const char *result, size_t n); /* kiln_cache_total */

/* Once a second, on the reconciler: jobs whose leader has ended are answered, or one of them leads. */
struct cache;
struct cache *cache_new(struct dispatcher *d);
void cache_tick(struct cache *c);
void cache_free(struct cache *c); /* before repair_db closes; NULL is fine */
#endif
