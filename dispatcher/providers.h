/* providers.h - /v1/admin/providers: how each provider stands, as far as kiln can tell; and one free request to each on
 * demand.
 *
 * What is known costs no request: whether there are keys (by fingerprint, never by text), which of them rest (Redis),
 * the breaker and the last error (PostgreSQL). A check asks what the catalogue's "check" says, with every key; a
 * provider without one is asked for its base address, without a key: that tells only whether it can be reached. The
 * dispatcher does this by the catalogue alone, because adapters belong to the worker. */
#ifndef KILN_PROVIDERS_H
#define KILN_PROVIDERS_H
#include "common/base/config.h"
#include "dispatcher/httpd.h"

struct dispatcher;
struct providers;
struct providers *providers_new(struct dispatcher *d, const struct config *config);
void providers_close(struct providers *p, void (*on_closed)(void *ctx), void *ctx); /* checks under way end */
void providers_free(struct providers *p);

void providers_list(struct request *r);
void providers_check(struct request *r);
#endif
