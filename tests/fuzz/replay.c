/* replay.c - main of a fuzz target without libFuzzer: every file of the folders and files named is one input. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "tests/fuzz/fuzz.h"

enum { INPUT_MAX = 1 << 20 };

static size_t count;

static void feed(const char *path)
{
    FILE *file = fopen(path, "rb");
    uint8_t *data = malloc(INPUT_MAX), *exact;
    size_t size;

    if (!file || !data) {
        (void)fprintf(stderr, "replay: cannot read %s\n", path);
        exit(1);
    }
    size = fread(data, 1, INPUT_MAX, file);
    (void)fclose(file);
    exact = malloc(size ? size : 1); /* so that ASan sees a byte read beyond the input */
    if (!exact)
        exit(1);
    if (size)
        memcpy(exact, data, size);
    free(data);
    (void)LLVMFuzzerTestOneInput(exact, size);
    free(exact);
    count++;
}

static void feed_folder(const char *folder)
{
    DIR *dir = opendir(folder);
    struct dirent *entry;

    while (dir && (entry = readdir(dir)) != NULL) {
        char path[1024];

        if (entry->d_name[0] == '.')
            continue;
        (void)snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        (void)fprintf(stderr, "%s\n", path); /* the last one named is the one that aborts */
        feed(path);
    }
    if (dir)
        (void)closedir(dir);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        struct stat st;

        if (stat(argv[i], &st) != 0)
            (void)fprintf(stderr, "replay: there is no %s\n", argv[i]);
        else if (S_ISDIR(st.st_mode))
            feed_folder(argv[i]);
        else
            feed(argv[i]);
    }
    (void)printf("%zu inputs\n", count);
    return count == 0;
}
