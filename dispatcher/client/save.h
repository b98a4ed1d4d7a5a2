/* save.h - results on disk: downloaded beside their place, checked, and moved there whole. */
#ifndef KILN_SAVE_H
#define KILN_SAVE_H
#include <jansson.h>
#include "dispatcher/client/client.h"

/* Before a job is paid for: can -o be written? False: a message was printed. Without -o: true. */
bool save_possible(const struct client *c);
/* Downloads all artifacts of the job to -o, and adds their names to it as `saved`. Without -o it does nothing. */
int save_results(struct client *c, json_t *job);
/* The name of artifact `i` of `count`: FILE, FILE-2.png, or DIR/ID-2.png. `extension` may be NULL. free() it. */
char *save_name(const char *out, bool is_dir, const char *id, size_t i, size_t count, const char *extension);
#endif
