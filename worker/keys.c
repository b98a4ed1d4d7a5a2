/* keys.c - which of a provider's keys a job uses. Redis knows how they are (schema/redis/key_pick.lua, key_tell.lua):
 * whose turn it is, which rest after a 429, which the provider has refused. A job has its key from before its attempt
 * is opened; what it polls and cancels with is the key that submitted it, whoever holds the job by then: the
 * fingerprint stands with the reference. With one key nobody asks Redis, and all is as if there were no keys to choose
 * from. */
#include <stdlib.h>
#include <string.h>
#include "common/base/clock.h"
#include "common/base/log.h"
#include "worker/actions.h"

enum { OUT_MS = 30000, PUT_OFF_LEAST_MS = 50 };

bool keys_are_several(const struct flight *f)
{
    return f->key && f->op->provider->key_count > 1;
}

static size_t keys_prints(const struct flight *f, const char *out[CATALOG_KEYS_MAX])
{
    const struct catalog_provider *p = f->op->provider;

    for (size_t i = 0; i < p->key_count; i++)
        out[i] = p->keys[i].print;
    return p->key_count;
}

/* --- the key of a submit ------------------------------------------------------------------------------------------ */

static void keys_on_picked(void *ctx, enum err err, int which, int64_t wait_ms, bool is_probe)
{
    struct flight *f = ctx;
    const struct catalog_provider *p = f->op->provider;

    if (err == ERR_OK && which < 0) { /* all rest, or have spent their budget */
        f->back_delay_ms = (wait_ms > PUT_OFF_LEAST_MS ? wait_ms : PUT_OFF_LEAST_MS) + random_u32() % 50;
        f->keep_note = true;
        flight_feed(f, EV_DRAIN);
    } else {
        /* without Redis nobody knows whose turn it is: go on */
        f->key = &p->keys[err == ERR_OK ? (size_t)which : random_u32() % p->key_count];
        f->is_key_probe = is_probe;
        prepare_with_key(f);
    }
    flight_release(f);
}

void keys_pick(struct flight *f)
{
    const char *prints[CATALOG_KEYS_MAX];

    if (f->op->provider->key_count < 2) {
        f->key = f->op->provider->key_count ? f->op->provider->keys : NULL;
        prepare_with_key(f);
        return;
    }
    flight_hold(f);
    queue_key_pick(f->env->queue, f->op->provider->name, prints, keys_prints(f, prints), keys_on_picked, f);
}

/* --- the key of a reference --------------------------------------------------------------------------------------- */

bool keys_resume(struct flight *f, const char *bound)
{
    char print[KEY_PRINT];
    const char *ref = catalog_key_unbind(bound, print);
    const struct catalog_provider *p = f->op ? f->op->provider : NULL;

    free(f->ref);
    f->ref = strdup(ref);
    f->key = NULL;
    if (!p || !p->key_count)
        return true;                                          /* it takes none, or flight.c says what is wrong */
    f->key = print[0] ? catalog_key_find(p, print) : p->keys; /* written before there were fingerprints */
    return f->key != NULL;
}

char *keys_bind(const struct flight *f)
{
    return f->ref ? catalog_key_bind(f->key, f->ref) : NULL;
}

const char *keys_budget_of(const struct flight *f)
{
    return keys_are_several(f) ? f->key->print : NULL;
}

/* --- what the provider said about it ------------------------------------------------------------------------------ */

static void keys_tell(struct flight *f, enum queue_key_fact fact, int64_t ms, enum err code, queue_keys_fn *fn)
{
    const char *prints[CATALOG_KEYS_MAX];
    size_t count = keys_prints(f, prints);

    queue_key_tell(f->env->queue, f->op->provider->name, prints, count, (size_t)(f->key - f->op->provider->keys), fact,
                   ms, code == ERR_OK ? "" : err_word(code), fn, fn ? f : NULL);
}

void keys_pause(struct flight *f, int64_t ms, queue_keys_fn *fn)
{
    keys_tell(f, QUEUE_KEY_PAUSE, ms, ERR_OK, fn);
}

bool keys_can_be_out(const struct flight *f, enum err code)
{
    return keys_are_several(f) && (code == ERR_AUTH || code == ERR_INSUFFICIENT_FUNDS);
}

void keys_out(struct flight *f, enum err code, queue_keys_fn *fn)
{
    log_warn("key_out", log_str("provider", f->lane), log_str("key", f->key->print), log_str("code", err_word(code)));
    keys_tell(f, QUEUE_KEY_OUT, OUT_MS, code, fn);
}

void keys_good(struct flight *f)
{
    if (!f->is_key_probe)
        return;
    f->is_key_probe = false;
    log_info("key_back", log_str("provider", f->lane), log_str("key", f->key->print));
    keys_tell(f, QUEUE_KEY_GOOD, 0, ERR_OK, NULL);
}
