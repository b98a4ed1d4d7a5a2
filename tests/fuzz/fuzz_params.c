/* fuzz_params.c - what a customer asks for: JSON of an order (or of parameters alone, for every operation), validated,
 * priced, made a request and an envelope. */
#include <stdlib.h>
#include <string.h>
#include "common/core/job.h"
#include "tests/fuzz/fuzz.h"
#include "worker/provider.h"

static void check_envelope(const struct operation *op, json_t *params, int64_t units)
{
    struct job_envelope e = { .id = "0198d4c2-0000-7000-8000-000000000001",
                              .app = "0198d4c2-0000-7000-8000-000000000002",
                              .account = "default",
                              .operation = op->name,
                              .provider = op->provider->name,
                              .params = params,
                              .units = units },
                        again = { 0 };
    struct arena *a = arena_new(1 << 20);
    char *text = job_envelope_print(&e);

    FUZZ_CLAIM(text != NULL && job_envelope_parse(a, text, &again));
    FUZZ_CLAIM(json_equal(again.params, params) && again.units == units && strcmp(again.operation, op->name) == 0);
    job_envelope_done(&again);
    free(text);
    arena_free(a);
}

static void check_request(const struct operation *op, const json_t *params, int64_t units)
{
    const struct provider *p = provider_find(op->provider->name);
    struct job_input files[4];
    struct catalog_input fields[4];
    struct job_spec spec = { .job_id = "x", .op = op, .params = params, .units = units, .inputs = files };
    struct arena *a = arena_new(8 << 20);
    struct http_req req;
    size_t count = catalog_inputs(op, fields, 4);

    for (size_t i = 0; i < count && i < 4; i++) {
        if (json_object_get(params, fields[i].name))
            files[spec.input_count++] =
                (struct job_input){ .field = fields[i].name, .path = "/x", .mime = "image/png", .bytes = 1 };
    }
    req = p->submit(a, &spec);
    FUZZ_CLAIM(req.path == NULL || req.path[0] == '/');
    FUZZ_CLAIM(req.part_count <= PROVIDER_PARTS);
    for (size_t i = 0; i < req.part_count; i++)
        FUZZ_CLAIM(req.parts[i].name && (req.parts[i].value || req.parts[i].path));
    json_decref(req.body);
    arena_free(a);
}

/* Only a row that says so itself costs the customer ("free") or the house ("cost_usd") nothing. */
static bool may_be_nothing(const struct operation *op, const char *member)
{
    const json_t *rows = json_object_get(json_object_get(op->doc, "price"), "rows");

    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i), *value = json_object_get(row, member);

        if (json_is_true(json_object_get(row, "free")) || (json_is_number(value) && json_number_value(value) <= 0))
            return true;
    }
    return false;
}

static void check_price(const struct operation *op, const struct catalog_price *price)
{
    FUZZ_CLAIM(price->unit_mc > 0 || (price->unit_mc == 0 && may_be_nothing(op, "free")));
    FUZZ_CLAIM(price->unit_cost_microusd > 0 || (price->unit_cost_microusd == 0 && may_be_nothing(op, "cost_usd")));
    FUZZ_CLAIM(price->units >= 1 && price->version != NULL);
    FUZZ_CLAIM(price->unit_mc <= INT64_MAX / 1000 / price->units);
}

static void check(const struct operation *op, const json_t *given)
{
    struct catalog_faults faults = { .count = 0 }, none = { .count = 0 };
    struct catalog_price price;
    json_t *params = catalog_validate(op, given, &faults), *again;

    FUZZ_CLAIM((params == NULL) == (faults.count > 0));
    for (size_t i = 0; i < faults.count && i < 16; i++) {
        FUZZ_CLAIM(faults.items[i].field[0] && faults.items[i].message[0]);
        fuzz_clean_text(faults.items[i].field, sizeof faults.items[i].field);
        fuzz_clean_text(faults.items[i].message, sizeof faults.items[i].message);
    }
    if (!params)
        return;
    again = catalog_validate(op, params, &none);
    FUZZ_CLAIM(again != NULL && json_equal(params, again)); /* normalised once is normalised */
    json_decref(again);
    if (catalog_price(op, params, &price) == ERR_OK) {
        check_price(op, &price);
        check_request(op, params, price.units);
        check_envelope(op, params, price.units);
    }
    json_decref(params);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct catalog *c = fuzz_catalog();
    json_t *given = json_parse((const char *)data, size, NULL);
    const json_t *params = json_object_get(given, "params");
    const struct operation *op = catalog_find(c, json_text(given, "operation"));

    if (op && params) {
        check(op, params);
    } else if (given) {
        for (size_t i = 0; i < catalog_count(c); i++)
            check(catalog_at(c, i), given);
    }
    json_decref(given);
    return 0;
}
