/* operations.c - the catalogue as customers see it. */
#include "dispatcher/operations.h"
#include "dispatcher/accept.h"
#include "dispatcher/dispatcher.h"
#include "dispatcher/problem.h"
#include "dispatcher/reply.h"

static json_t *view(const struct operation *op)
{
    json_t *one = catalog_describe(op);

    if (one != NULL)
        (void)json_object_set_new(one, "configured", json_boolean(op->provider->key != NULL));
    return one;
}

static json_t *view_route(const struct dispatcher *d, const struct catalog_route *route)
{
    json_t *one = catalog_describe_route(d->catalog, route), *leg;
    bool configured = false;
    size_t i;

    json_array_foreach(json_object_get(one, "legs"), i, leg)
    {
        configured = configured || json_is_true(json_object_get(leg, "configured"));
    }
    if (one != NULL)
        (void)json_object_set_new(one, "configured", json_boolean(configured));
    return one;
}

void operations_list(struct request *r)
{
    struct dispatcher *d = dispatcher_of(r);
    json_t *data = json_array();

    for (size_t i = 0; i < catalog_count(d->catalog); i++)
        (void)json_array_append_new(data, view(catalog_at(d->catalog, i)));
    for (size_t i = 0; i < catalog_route_count(d->catalog); i++)
        (void)json_array_append_new(data, view_route(d, catalog_route_at(d->catalog, i)));
    reply_list(r, data, NULL);
}

void operations_get(struct request *r)
{
    const struct dispatcher *d = dispatcher_of(r);
    const struct operation *op = catalog_find(d->catalog, r->args[0]);
    const struct catalog_route *route = catalog_route_find(d->catalog, r->args[0]);

    if (route != NULL)
        reply_json(r, 200, view_route(d, route));
    else if (op == NULL)
        problem_reply(r, ERR_NOT_FOUND, "no such operation");
    else
        reply_json(r, 200, view(op));
}

/* What would be held: the dearest of those who can serve it. */
static void estimate_route(struct request *r, const struct accept_order *o)
{
    struct catalog_faults faults = { 0 };
    struct catalog_plan plan;

    if (!catalog_plan_make(dispatcher_of(r)->catalog, o->route, o->checked, NULL, o->providers, &plan, &faults)) {
        problem_faults(r, ERR_INVALID_REQUEST, &faults);
    } else {
        json_t *providers = json_array();

        for (size_t i = 0; i < plan.count; i++)
            (void)json_array_append_new(providers, json_string(plan.legs[i].op->provider->name));
        reply_json(r, 200,
                   json_pack("{s:o, s:s, s:s, s:o}", "credits",
                             json_credits(plan.legs[0].price.units * catalog_plan_dearest_mc(&plan)), "provider",
                             plan.legs[0].op->provider->name, "price_version", plan.legs[0].price.version, "providers",
                             providers));
    }
    catalog_plan_done(&plan);
}

void operations_estimate(struct request *r)
{
    struct accept_order o;
    struct catalog_price price;

    if (accept_order_read(r, ACCEPT_ESTIMATE, &o)) {
        if (o.route != NULL)
            estimate_route(r, &o);
        else if (catalog_price(o.op, o.checked, &price) != ERR_OK)
            problem_field(r, ERR_INVALID_REQUEST, "params", "these parameters have no price, so they are refused");
        else
            reply_json(r, 200,
                       json_pack("{s:o, s:s, s:s}", "credits", json_credits(price.units * price.unit_mc), "provider",
                                 o.op->provider->name, "price_version", price.version));
    }
    accept_order_done(&o);
}
