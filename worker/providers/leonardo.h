/* leonardo.h - what the two halves of the Leonardo adapter share: leonardo.c (generations, variations, errors) and
 * leonardo_upload.c (input files brought there first). */
#ifndef KILN_LEONARDO_H
#define KILN_LEONARDO_H
#include "worker/providers/adapter.h"

struct answer leonardo_error(struct arena *a, const struct http_answer *in, bool is_free_to_repeat);
bool leonardo_is_error(const struct http_answer *in);

bool leonardo_prepare(struct arena *a, const struct job_spec *spec, struct http_req *out);
struct answer leonardo_on_prepare(struct arena *a, const struct job_spec *spec, const struct http_answer *in,
                                  json_t *kept);
bool leonardo_put_uploads(const struct job_spec *spec, json_t *body); /* their ids; false: one is not there */
#endif
