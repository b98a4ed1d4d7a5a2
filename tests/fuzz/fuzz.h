/* fuzz.h - what the fuzz targets share. A target is one file with LLVMFuzzerTestOneInput: parse foreign bytes, then
 * claim what must hold whatever they were.
 *
 * Built twice: with libFuzzer (preset `fuzz`: clang, ASan, UBSan; tests/sanitize/fuzz.sh), and in every other build
 * with replay.c, which feeds the files of its corpus once, as a regression test. A crash or a broken claim aborts. */
#ifndef KILN_FUZZ_H
#define KILN_FUZZ_H
#include <stddef.h>
#include <stdint.h>
#include "common/core/catalog.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_CLAIM(condition) ((condition) ? (void)0 : fuzz_broken(__FILE__, __LINE__, #condition))
void fuzz_broken(const char *file, int line, const char *claim) __attribute__((noreturn));

char *fuzz_text(const uint8_t *data, size_t size); /* NUL-terminated copy up to the first NUL; free() it */
const struct catalog *fuzz_catalog(void);          /* the embedded one, all providers with a key; never freed */
const char *fuzz_env(const char *name);            /* its environment: "test-key" for every key, no base URL */
const char *fuzz_dir(void);                        /* a folder of this process, removed at its end */
/* Writes `data` to `name` in fuzz_dir(); the path is good until the next call. */
const char *fuzz_file(const char *name, const void *data, size_t size);
void fuzz_clean_text(const char *text,
                     size_t max_bytes); /* claims: valid UTF-8, no control characters, not longer; NULL is fine */
#endif
