/* fuzz.c - see fuzz.h. */
#include "tests/fuzz/fuzz.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "common/base/text.h"

void fuzz_broken(const char *file, int line, const char *claim)
{
    (void)fprintf(stderr, "%s:%d: not so: %s\n", file, line, claim);
    abort();
}

char *fuzz_text(const uint8_t *data, size_t size)
{
    size_t len = 0;
    char *text = malloc(size + 1);

    if (!text)
        abort();
    while (len < size && data[len] != 0)
        len++;
    if (len)
        memcpy(text, data, len);
    text[len] = '\0';
    return text;
}

const char *fuzz_env(const char *name)
{
    return strstr(name, "_BASE_URL") ? NULL : "test-key";
}

const struct catalog *fuzz_catalog(void)
{
    static struct catalog *catalog;
    char problem[512];

    if (!catalog && catalog_load(NULL, fuzz_env, &catalog, problem, sizeof problem) != ERR_OK)
        abort();
    return catalog;
}

static char dir[64];

static void remove_dir(void)
{
    char command[96];

    (void)snprintf(command, sizeof command, "rm -rf '%s'", dir);
    (void)!system(command);
}

const char *fuzz_dir(void)
{
    if (!dir[0]) {
        (void)snprintf(dir, sizeof dir, "/tmp/kiln-fuzz.XXXXXX");
        if (!mkdtemp(dir))
            abort();
        (void)atexit(remove_dir);
    }
    return dir;
}

const char *fuzz_file(const char *name, const void *data, size_t size)
{
    static char path[128];
    int fd;

    (void)snprintf(path, sizeof path, "%s/%s", fuzz_dir(), name);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || (size && write(fd, data, size) != (ssize_t)size) || close(fd) != 0)
        abort();
    return path;
}

void fuzz_clean_text(const char *text, size_t max_bytes)
{
    size_t len = text ? strlen(text) : 0;

    FUZZ_CLAIM(len <= max_bytes);
    FUZZ_CLAIM(!text || utf8_valid(text, len));
    for (size_t i = 0; i < len; i++)
        FUZZ_CLAIM((unsigned char)text[i] >= 0x20);
}
