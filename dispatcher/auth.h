/* auth.h - who asks, and what they may.
 *
 * A key is looked up by its SHA-256 only, in gathered reads; what PostgreSQL said is believed for AUTH_TTL_MS, so that
 * a revoked key is dead two seconds later. Unknown keys are not remembered. Absent, malformed, unknown and revoked keys
 * get one and the same answer.
 * The keys of a disabled app are refused like unknown ones. */
#ifndef KILN_AUTH_H
#define KILN_AUTH_H
#include "common/io/db.h"
#include "dispatcher/httpd.h"

enum { AUTH_TTL_MS = 2000, AUTH_KEY_LENGTH = 48 /* kiln_ and 43 base64url characters */ };
enum { SCOPE_JOBS = 1, SCOPE_CREDITS = 2, SCOPE_ADMIN = 4 };

struct auth;
struct auth *auth_new(struct db *read);
void auth_free(struct auth *a); /* before its db closes */

/* A new key and the hash that stands for it. Wipe the key after its one showing (sodium_memzero). */
void auth_key_make(char key[AUTH_KEY_LENGTH + 1], char hash[SHA256_HEX]);
/* "jobs,admin" -> bits; 0: empty, or a word that is no scope. */
unsigned auth_scopes(const char *text);

/* Fills r->app and r->scopes and calls `done`, at once or later; r->app stays "" when there is no good key. When
 * PostgreSQL cannot be asked, answers 503 itself. */
void auth_check(struct auth *a, struct request *r, void (*done)(struct request *r));
#endif
