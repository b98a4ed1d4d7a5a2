/* embedded.h - the files of schema/ as they were at build time, sorted by name; a binary is all there is to install. */
#ifndef KILN_EMBEDDED_H
#define KILN_EMBEDDED_H
#include <stddef.h>

struct embedded {
    const char *name, *text; /* file name without folder; NUL-terminated */
    size_t len;
};
extern const struct embedded embedded_postgres[], embedded_redis[], embedded_catalog[], embedded_openapi[],
    embedded_catalog_schema[];
extern const size_t embedded_postgres_count, embedded_redis_count, embedded_catalog_count, embedded_openapi_count,
    embedded_catalog_schema_count;
#endif
