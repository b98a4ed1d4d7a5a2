/* json.h - jansson with our limits: duplicates rejected, depth and size bounded, numbers printed as they came.
 *
 * json_t values have one owner; what a function returns is owned by the caller (json_decref) where it says "new". */
#ifndef KILN_JSON_H
#define KILN_JSON_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <jansson.h>
#include "common/base/text.h"

enum { JSON_MAX_DEPTH = 32 };

struct json_fault {
    char message[160]; /* "line 3, column 7: duplicate object key" */
};

/* New, or NULL with `fault` filled (may be NULL). Rejects duplicates, trailing text, depth > JSON_MAX_DEPTH. */
json_t *json_parse(const char *data, size_t len, struct json_fault *fault);
/* The same for what a provider says: texts may hold an escaped NUL (what was paid for must not be lost over one), so
 * read those that go on by their length (answer_text). */
json_t *json_parse_answer(const char *data, size_t len);
char *json_print(const json_t *value); /* malloc'd compact text, sorted keys: equal values, equal text. 15 digits give
                                          0.1 back as 0.1 (17 would not) */
bool json_print_to(struct buf *out, const json_t *value);
bool json_write_to(struct buf *out, const json_t *value); /* members in the order they were put: for answers */
bool json_quote_to(struct buf *out, const char *text);    /* as a JSON string; bad UTF-8 is cleaned */
/* Members of an object that is written as text: the first begins it with '{', json_put_end ends it. What found no room
 * shows in out->is_full. */
void json_put(struct buf *out, const char *name, const char *text);      /* NULL: left out */
void json_put_json(struct buf *out, const char *name, const char *json); /* as it is; NULL: left out */
void json_put_int(struct buf *out, const char *name, int64_t value);
void json_put_bool(struct buf *out, const char *name, bool value);
void json_put_end(struct buf *out);
char *json_put_take(struct buf *out); /* malloc'd, and `out` is empty; NULL: not all of it found room */
const char *json_text(const json_t *object, const char *key);         /* NULL: absent, null or no string */
bool json_int(const json_t *object, const char *key, int64_t *out);   /* also "12" and 12.0: providers do that */
bool json_number(const json_t *object, const char *key, double *out); /* also "1.5" */
bool json_bool(const json_t *object, const char *key, bool fallback);
json_t *json_credits(int64_t mc); /* new: a JSON number with at most three decimals */
int json_set_text(json_t *object, const char *key, const char *value); /* NULL value -> null; bad UTF-8 is cleaned */
#endif
