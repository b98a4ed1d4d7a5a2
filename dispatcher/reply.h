/* reply.h - the small words of an answer: JSON with the headers that every API answer carries. */
#ifndef KILN_REPLY_H
#define KILN_REPLY_H
#include "common/base/json.h"
#include "dispatcher/httpd.h"

void reply_json(struct request *r, int status, json_t *body); /* body is taken over */
/* `body` is taken over; NULL: 500, for want of memory. */
void reply_body(struct request *r, int status, const char *mime, struct buf *body);
void reply_json_as(struct request *r, int status, const char *mime, json_t *body);
void reply_retry_after(struct request *r, int seconds);
/* "https://kiln.example" of KILN_PUBLIC_URL, else http:// and the request's Host; in the arena. */
const char *reply_base_url(struct request *r);
/* RFC 7240: the N of `Prefer: wait=N`, bounded by 60; 0: none. *bad: it is there and no number. */
int64_t reply_prefer_wait(struct request *r, bool *bad);
/* One page of a list: {object, data, has_more, next}; `cursor` NULL: no more. data is taken over. */
void reply_list(struct request *r, json_t *data, const char *cursor);
json_t *reply_list_body(struct request *r, json_t *data, const char *cursor); /* new: the same, for more members */
/* limit=1…100 (20). False: answered 422. */
bool reply_limit(struct request *r, int64_t *limit);
#endif
