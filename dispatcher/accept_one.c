/* accept_one.c - see accept_one.h. Nothing here answers a request or writes money. */
#include "dispatcher/accept_one.h"
#include <stdlib.h>
#include <string.h>
#include "dispatcher/dispatcher.h"
#include "dispatcher/moderation.h"

enum {
    DEADLINE_QUEUE_S = 86400, /* on top of the operation's own */
    KEEP_AFTER_S = 600,       /* an input outlives its job's deadline by this */
    BREAKERS_MS = 2000,
};

void accept_one_done(struct accept_one *one)
{
    free(one->params);
    free(one->inputs_text);
    free(one->metadata);
    free(one->extras);
    json_decref(one->inputs);
    json_decref(one->legs);
    if (one->plan != NULL)
        catalog_plan_done(one->plan);
    accept_order_done(&one->order);
    one->params = one->inputs_text = one->metadata = one->extras = NULL;
    one->inputs = one->legs = NULL;
    one->plan = NULL;
}

static void refuse(struct accept_one *one, enum err code, const struct catalog_faults *faults)
{
    inputs_undo(one->set);
    one->refused(one, code, faults, NULL);
}

static void refuse_field(struct accept_one *one, enum err code, const char *field, const char *message)
{
    struct catalog_faults faults = { 0 };

    faults_add(&faults, field, "%s", message);
    refuse(one, code, &faults);
}

/* ---- routes: who can serve it, who is shunned at present, what is held */

static bool is_shunned(void *ctx, const char *provider)
{
    return json_is_true(json_object_get((const json_t *)ctx, provider));
}

static void one_planned(struct accept_one *one, const json_t *open_breakers)
{
    struct catalog_plan *plan = one->plan;

    if (json_object_size(open_breakers) > 0) /* not told: they are tried in their order */
        catalog_plan_shun(plan, is_shunned, (void *)(uintptr_t)open_breakers);
    one->price = catalog_plan_price(plan);
    one->provider = plan->legs[0].op->provider->name;
    one->legs = catalog_plan_json(plan);
    one->on_unknown = catalog_plan_unknown(plan);
    for (size_t i = 0; i < plan->count; i++) {
        if (plan->legs[i].notes == NULL)
            continue;
        if (one->order.notes == NULL)
            one->order.notes = json_array();
        (void)json_array_extend(one->order.notes, plan->legs[i].notes);
    }
    one->ready(one);
}

static void plan_on_breakers(void *ctx, enum err err, const struct db_result *result)
{
    struct accept_one *one = ctx;
    json_t *open = json_object();

    for (int i = 0; err == ERR_OK && i < db_rows(result); i++) {
        if (db_col_bool(result, i, "is_open"))
            (void)json_object_set_new(open, db_col(result, i, "provider"), json_true());
    }
    one_planned(one, open);
    json_decref(open);
}

static void one_plan(struct accept_one *one)
{
    struct catalog_faults faults = { 0 };
    struct buf names = { 0 };
    const char *values[1];
    enum err e;

    one->plan = arena_alloc(one->arena, sizeof(*one->plan));
    if (one->plan == NULL) {
        refuse(one, ERR_NOMEM, NULL);
        return;
    }
    if (!catalog_plan_make(one->d->catalog, one->order.route, one->order.checked, one->inputs, one->order.providers,
                           one->plan, &faults)) {
        refuse(one, ERR_INVALID_REQUEST, &faults);
        return;
    }
    if (one->open_breakers != NULL) {
        one_planned(one, one->open_breakers);
        return;
    }
    for (size_t i = 0; i < one->plan->count; i++)
        (void)buf_printf(&names, "%s\"%s\"", i > 0 ? "," : "{", one->plan->legs[i].op->provider->name);
    (void)buf_str(&names, "}");
    values[0] = names.data;
    e = db_query(one->d->write, "select provider, is_open from kiln_breakers($1::text[])", 1, values, BREAKERS_MS,
                 plan_on_breakers, one);
    buf_done(&names);
    if (e != ERR_OK)
        plan_on_breakers(one, e, NULL);
}

/* ---- files and words */

static void one_on_inputs(void *ctx, enum err err, const struct catalog_faults *faults, json_t *inputs)
{
    struct accept_one *one = ctx;

    one->inputs = inputs;
    if (err != ERR_OK) {
        one->refused(one, err, err == ERR_INVALID_REQUEST ? faults : NULL, NULL);
        return;
    }
    if (one->order.route != NULL) {
        one_plan(one);
        return;
    }
    if (catalog_price(one->order.op, one->order.checked, &one->price) != ERR_OK) {
        refuse_field(one, ERR_INVALID_REQUEST, "params", "these parameters have no price, so they are refused");
        return;
    }
    one->provider = one->order.op->provider->name;
    one->on_unknown = catalog_unknown(one->order.op, &one->price);
    one->ready(one);
}

static void one_on_words(void *ctx, enum err err, const char *field, const char *text)
{
    struct accept_one *one = ctx;

    if (err == ERR_CONTENT_FILTERED) {
        refuse_field(one, err, field, text);
        return;
    }
    if (err != ERR_OK) {
        one->refused(one, err, NULL, text);
        return;
    }
    uuid_v7(one->id);
    one->deadline_s = one->order.deadline_s > 0 ? one->order.deadline_s : one->order.op->deadline_s + DEADLINE_QUEUE_S;
    one->set =
        inputs_resolve(one->d->inputs, one->arena, one->order.op, one->app, one->order.account, one->order.checked,
                       one->deadline_s + one->order.delay_ms / 1000 + KEEP_AFTER_S, one_on_inputs, one);
    if (one->set == NULL)
        one->refused(one, ERR_NOMEM, NULL, NULL);
}

void accept_one_go(struct accept_one *one)
{
    moderation_check(one->d->moderation, one->arena, one->app, &one->order, one_on_words, one);
}

/* ---- what it is written down as */

json_t *accept_one_extras(const struct accept_one *one)
{
    const struct accept_order *o = &one->order;

    return o->notes != NULL || one->legs != NULL ? json_pack("{s:O*, s:O*}", "notes", o->notes, "route", one->legs)
                                                 : NULL;
}

struct job_envelope accept_one_envelope(const struct accept_one *one)
{
    return (struct job_envelope){ .id = one->id,
                                  .app = one->app,
                                  .account = one->order.account,
                                  .operation = one->order.op->name,
                                  .provider = one->provider,
                                  .params = one->order.checked,
                                  .inputs = one->inputs,
                                  .route = one->legs,
                                  .units = one->price.units };
}

char *accept_envelope(const struct job_envelope *e, const char *params, const char *inputs)
{
    char *route = json_print(e->route), *text = NULL;

    if (params == NULL)
        text = job_envelope_print(e);
    else if (route != NULL || e->route == NULL)
        text = job_envelope_text(e, params, inputs, route);
    free(route);
    if (text != NULL && strlen(text) > JOB_ENVELOPE_MAX) {
        free(text);
        return NULL;
    }
    return text;
}

bool accept_hash(const struct request *r, char hash[SHA256_HEX])
{
    struct buf text = { 0 };
    bool ok = buf_printf(&text, "POST %s\n", r->path) && buf_add(&text, r->body.data, r->body.len);

    if (ok)
        sha256_hex(hash, text.data, text.len);
    buf_done(&text);
    return ok;
}
