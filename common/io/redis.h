/* redis.h - hiredis on the loop: one connection that reconnects, scripts by SHA with reload, a blocking sleeper.
 *
 * Adapter of our own (dependencies.md, section 3: the shipped one never reports a refused connection). Reconnects for
 * ever (exponential delay with jitter, 50 ms to 2 s). A command that was not answered when the connection went is
 * answered ERR_LOST; one given while there is no connection ERR_UNAVAILABLE at the next turn of the loop. Each command
 * gets exactly one callback; also at close (ERR_CLOSED). Replies are borrowed and die when the callback returns. */
#ifndef KILN_REDIS_H
#define KILN_REDIS_H
#include <stdbool.h>
#include <stddef.h>
#include <uv.h>
#include <hiredis/hiredis.h>
#include "common/base/err.h"

struct redis;

struct redis_script {
    const char *name, *source; /* static; the SHA-1 comes from SCRIPT LOAD at every connect */
};

struct redis_config {
    const char *url;                    /* redis://[:password@]host[:port][/db] or unix:/path[?db=n]; copied */
    const char *name;                   /* for logs and CLIENT SETNAME; static */
    const struct redis_script *scripts; /* loaded before on_state(true); may be NULL */
    size_t script_count;
    int command_timeout_ms; /* 0: none (the sleeper); else an unanswered command drops the connection */
    void (*on_state)(void *ctx, bool is_up,
                     const char *run_id); /* run_id: of this server process, from INFO; may be NULL */
    const char
        *channel; /* subscribed before on_state(true): then no commands on this connection; may be NULL; copied */
    void (*on_message)(void *ctx, const char *data, size_t len); /* NUL-terminated, borrowed */
    void *ctx;
};

enum err redis_url_check(const char *url); /* ERR_ARGUMENT */
struct redis *redis_new(uv_loop_t *loop, const struct redis_config *config);
void redis_close(struct redis *r, void (*on_closed)(void *ctx), void *ctx);
bool redis_is_up(const struct redis *r);

typedef void redis_fn(void *ctx, enum err err, const redisReply *reply); /* reply of type ERROR: err = ERR_REFUSED */
void redis_command(struct redis *r, redis_fn *fn, void *ctx, int argc, const char *const *argv,
                   const size_t *lens); /* lens NULL: strlen */
/* EVALSHA of scripts[index]; on NOSCRIPT loads again and repeats once. */
void redis_eval(struct redis *r, size_t index, redis_fn *fn, void *ctx, int keys, int argc, const char *const *argv,
                const size_t *lens);
void redis_forget(struct redis *r, void *ctx); /* callbacks with this ctx never come */
#endif
