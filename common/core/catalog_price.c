/* catalog_price.c - what a job costs the customer, and what it costs the house.
 *
 * The price of one unit is the first row of the operation's table whose "when" holds, and what its "plus" adds for
 * steps or seconds. "credits" are kiln's own
 * (Stability sells the same); "usd" becomes credits at 0.01 USD, rounded up to 0.1 credit. No row: no price, so
 * refused. Prices are read as decimals and leave as integers: millicredits for customers, millionths of a dollar for
 * the house. */
#include <math.h>
#include <string.h>

#include "common/base/text.h"
#include "common/core/catalog_parts.h"

enum { MC_PER_CREDIT = 1000, MICROUSD_PER_CREDIT = 10000, MC_STEP = 100, MICROUSD_PER_STEP = 1000 };

static const json_t *row_for(const json_t *rows, const json_t *params)
{
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);

        if (catalog_matches(json_object_get(row, "when"), params))
            return row;
    }
    return NULL;
}

/* "scale": the listed price is for a number of pixels; more pixels cost more in proportion, fewer the same. */
static bool scale_microusd(const json_t *scale, const char *size, int64_t *microusd)
{
    int64_t w, h, pixels = 1;

    if (!catalog_size_parse(size, &w, &h) && !catalog_size_parse(json_text(scale, "auto"), &w, &h))
        return false;
    (void)json_int(scale, "pixels", &pixels); /* catalog_check.c saw to it */
    if (w * h > pixels)
        *microusd = (*microusd * (w * h) + pixels - 1) / pixels;
    return true;
}

/* "plus": so much for each of a number. One that the job does not have counts as its default, else as its greatest. */
static double added(const json_t *row, const json_t *specs, const json_t *params)
{
    const json_t *plus = json_object_get(row, "plus");
    double sum = 0;

    for (size_t i = 0; i < json_array_size(plus); i++) {
        const json_t *one = json_array_get(plus, i);
        const char *name = json_text(one, "param");
        const json_t *spec = json_object_get(specs, name);
        double count = 0, per;

        if (!json_number(params, name, &count) && (params == NULL || !json_number(spec, "default", &count)))
            (void)json_number(spec, "max", &count); /* catalog_check.c saw to it */
        if (json_number(one, "per", &per))
            count = ceil(count / per - 1e-9);
        sum += count * json_number_value(json_object_get(one, "each"));
    }
    return sum;
}

bool catalog_row_price(const json_t *row, const json_t *specs, const json_t *params, int64_t *unit_mc,
                       int64_t *microusd)
{
    double more = added(row, specs, params), cost = 0;
    const json_t *credits = json_object_get(row, "credits"), *scale = json_object_get(row, "scale");

    *unit_mc = *microusd = 0;
    if (json_bool(row, "free", false))
        return true;
    if (credits != NULL) {
        *unit_mc = (int64_t)ceil((json_number_value(credits) + more) * MC_PER_CREDIT - 1e-6);
        *microusd = llround((json_number_value(credits) + more) * MICROUSD_PER_CREDIT);
        if (json_number(row, "cost_usd", &cost))
            *microusd = llround(cost * 1e6);
        return *unit_mc > 0;
    }
    *microusd = llround((json_number_value(json_object_get(row, "usd")) + more) * 1e6);
    if (scale != NULL && !scale_microusd(scale, json_text(params, json_text(scale, "param")), microusd))
        return false;
    *unit_mc = (*microusd + MICROUSD_PER_STEP - 1) / MICROUSD_PER_STEP * MC_STEP;
    return *unit_mc > 0;
}

enum err catalog_price(const struct operation *op, const json_t *params, struct catalog_price *out)
{
    const json_t *price = json_object_get(op->doc, "price");
    const json_t *row = row_for(json_object_get(price, "rows"), params);
    const json_t *specs = json_object_get(op->doc, "params");
    const char *units_param = json_text(price, "units");
    struct catalog_price p = { .units = 1, .version = json_text(price, "version") };
    double cache = 0;

    if (row == NULL || !catalog_row_price(row, specs, params, &p.unit_mc, &p.unit_cost_microusd))
        return ERR_ARGUMENT;
    if (units_param != NULL && (!json_int(params, units_param, &p.units) || p.units < 1 || p.units > 1000))
        return ERR_ARGUMENT; /* one out of range was refused by the rules already */
    (void)json_number(op->doc, "cache_price", &cache);
    p.cache_mc = (int64_t)ceil(cache * MC_PER_CREDIT - 1e-6);
    if (p.cache_mc > p.unit_mc)
        p.cache_mc = p.unit_mc;
    *out = p;
    return ERR_OK;
}

int64_t catalog_dearest_call_microusd(const json_t *doc)
{
    const json_t *price = json_object_get(doc, "price"), *rows = json_object_get(price, "rows");
    const char *units_param = json_text(price, "units");
    int64_t dearest = 0, units = 1;

    for (size_t i = 0; i < json_array_size(rows); i++) {
        int64_t mc, microusd;

        /* without parameters a scaled row is priced at its "auto" size, the dearest */
        if (catalog_row_price(json_array_get(rows, i), json_object_get(doc, "params"), NULL, &mc, &microusd) &&
            microusd > dearest)
            dearest = microusd;
    }
    if (units_param != NULL)
        (void)json_int(json_object_get(json_object_get(doc, "params"), units_param), "max", &units); /* checked */
    return dearest * units;
}

enum operation_unknown catalog_unknown(const struct operation *op, const struct catalog_price *price)
{
    if (json_object_get(op->doc, "on_unknown") != NULL)
        return op->on_unknown;
    return price->unit_cost_microusd * price->units > 10 * MICROUSD_PER_CREDIT ? UNKNOWN_FAIL : UNKNOWN_RETRY;
}

int64_t catalog_cost_microusd(const struct operation *op, const json_t *params, const json_t *usage)
{
    const json_t *row = row_for(json_object_get(json_object_get(op->doc, "price"), "tokens"), params);
    const json_t *details = json_object_get(usage, "input_tokens_details");
    int64_t in = 0, out = 0, text = 0, image = 0;
    double cost;

    if (row == NULL || !json_is_object(usage) || !json_int(usage, "output_tokens", &out))
        return -1;
    (void)json_int(usage, "input_tokens", &in); /* absent: only what was made is booked */
    (void)json_int(details, "text_tokens", &text);
    (void)json_int(details, "image_tokens", &image);
    if (in < 0 || out < 0 || text < 0 || image < 0 || in > INT32_MAX || out > INT32_MAX || text > INT32_MAX ||
        image > INT32_MAX)
        return -1;
    if (in > text + image)
        image += in - text - image; /* not told apart: the dearer of the two */
    cost = (double)text * json_number_value(json_object_get(row, "text_in")) +
           (double)image * json_number_value(json_object_get(row, "image_in")) +
           (double)out * json_number_value(json_object_get(row, "image_out")); /* USD per million = millionths of it */
    return (int64_t)ceil(cost - 1e-6);
}
