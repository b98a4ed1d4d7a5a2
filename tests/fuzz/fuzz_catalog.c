/* fuzz_catalog.c - an operator's overlay file: refused with a complaint, or a catalogue that every reader can live
 * with. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include "tests/fuzz/fuzz.h"

static void check(const struct operation *op)
{
    struct catalog_faults faults = { .count = 0 };
    struct catalog_price price;
    json_t *given = json_pack("{s:s}", "prompt", "a kettle"), *params = catalog_validate(op, given, &faults),
           *shown = catalog_describe(op);

    FUZZ_CLAIM(op->name && op->provider && op->provider->base_url && op->path && op->path[0] == '/');
    FUZZ_CLAIM(op->deadline_s > 0 && op->submit_timeout_ms > 0 && op->max_result_bytes > 0);
    FUZZ_CLAIM(!op->is_async || (op->poll_every_ms > 0 && op->poll_timeout_ms > 0));
    FUZZ_CLAIM(json_is_object(shown));
    if (params && catalog_price(op, params, &price) == ERR_OK) {
        FUZZ_CLAIM(price.unit_mc >= 0 && price.units >= 1 && price.unit_mc <= INT64_MAX / 1000 / price.units);
        (void)catalog_unknown(op, &price);
    }
    json_decref(shown);
    json_decref(params);
    json_decref(given);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char folder[128];
    struct catalog *c = NULL;
    char problem[512] = "";
    enum err e;

    if (!folder[0]) {
        (void)snprintf(folder, sizeof folder, "%s/overlay", fuzz_dir());
        (void)mkdir(folder, 0700);
    }
    (void)fuzz_file("overlay/a.json", data, size);
    e = catalog_load(folder, fuzz_env, &c, problem, sizeof problem);
    if (e != ERR_OK) {
        FUZZ_CLAIM(problem[0] != '\0' && c == NULL);
        return 0;
    }
    for (size_t i = 0; i < catalog_count(c); i++)
        check(catalog_at(c, i));
    catalog_free(c);
    return 0;
}
