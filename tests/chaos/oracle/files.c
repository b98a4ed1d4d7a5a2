/* files.c - the storage folder as it lies on disk: obj/job/ab/ID.FENCE.INDEX is the object job/ab/ID/FENCE/INDEX, and
 * line N of obj/pack/HOUR/NAME, "+ job/ab/ID/FENCE/INDEX OFFSET BYTES", is job/ab/ID/FENCE/INDEX/pack/HOUR/NAME/N. */
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <openssl/evp.h>
#include "tests/chaos/oracle/oracle.h"

enum { PATH_BYTES = 1024, DEPTH_MAX = 6 };

/* Of `bytes` from `at` on; false: it cannot be read, or ends before. */
static bool sha256_of(const char *path, long long at, long long bytes, char hex[65])
{
    FILE *file = fopen(path, "rb");
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    unsigned char chunk[65536], raw[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    size_t got;
    bool is_read = file && md && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1 && fseeko(file, at, SEEK_SET) == 0;

    while (is_read && bytes > 0) {
        got = fread(chunk, 1, bytes < (long long)sizeof(chunk) ? (size_t)bytes : sizeof(chunk), file);
        bytes -= (long long)got;
        is_read = got > 0 && EVP_DigestUpdate(md, chunk, got) == 1;
    }
    is_read = is_read && EVP_DigestFinal_ex(md, raw, &n) == 1;
    for (unsigned i = 0; is_read && i < n && i < 32; i++)
        (void)snprintf(hex + (size_t)2 * i, 3, "%02x", raw[i]);
    EVP_MD_CTX_free(md);
    if (file)
        (void)fclose(file);
    return is_read;
}

static void add_file(json_t *list, const char *path, const char *name, const struct stat *st, bool is_object)
{
    double age_s = (double)(time(NULL) - st->st_mtime);
    char object[PATH_BYTES], hex[65] = "";

    (void)snprintf(object, sizeof(object), "%s", name);
    if (!is_object) {
        (void)json_array_append_new(list, json_pack("{ss sf}", "name", object, "age_s", age_s));
        return;
    }
    for (char *dot = object; (dot = strchr(dot, '.'));)
        *dot = '/';
    if (sha256_of(path, 0, st->st_size, hex)) /* else it went meanwhile */
        (void)json_array_append_new(list, json_pack("{ss sI ss sf}", "object", object, "bytes", (json_int_t)st->st_size,
                                                    "sha256", hex, "age_s", age_s));
}

/* The first line says how many follow, each of 128 bytes. Anything else there belongs to nobody. */
static void add_pack(json_t *list, const char *path, const char *name, const struct stat *st)
{
    FILE *file = fopen(path, "rb");
    double age_s = (double)(time(NULL) - st->st_mtime);
    char line[129], object[128], full[PATH_BYTES], hex[65];
    long long at, bytes;
    int count = 0;
    char mark;

    if (!file)
        return; /* it went meanwhile */
    if (fread(line, 128, 1, file) != 1 || sscanf(line, "kiln pack 1 of %d objects", &count) != 1)
        (void)json_array_append_new(list, json_pack("{ss sI ss sf}", "object", name, "bytes", (json_int_t)st->st_size,
                                                    "sha256", "no pack", "age_s", age_s));
    for (int i = 1; i <= count && fread(line, 128, 1, file) == 1; i++) {
        line[128] = '\0';
        if (sscanf(line, "%c %127s %lld %lld", &mark, object, &at, &bytes) != 4 || (mark != '+' && mark != '-'))
            mark = '?';
        if (mark == '-')
            continue;
        (void)snprintf(full, sizeof(full), "%s/%s/%d", mark == '+' ? object : "broken line", name, i);
        if (mark != '+' || !sha256_of(path, at, bytes, hex))
            (void)snprintf(hex, sizeof(hex), "unreadable");
        (void)json_array_append_new(list,
                                    json_pack("{ss sI ss sf}", "object", full, "bytes",
                                              (json_int_t)(mark == '+' ? bytes : 0), "sha256", hex, "age_s", age_s));
    }
    (void)fclose(file);
}

static bool walk(json_t *list, const char *folder, size_t base, bool is_object, int depth)
{
    DIR *dir = opendir(folder);
    struct dirent *entry;

    if (!dir)
        return false;
    while ((entry = readdir(dir))) {
        char path[PATH_BYTES];
        struct stat st;
        int n = snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);

        if (entry->d_name[0] == '.' || n < 0 || (size_t)n >= sizeof(path) || lstat(path, &st) != 0)
            continue;
        if (S_ISDIR(st.st_mode) && depth < DEPTH_MAX)
            (void)walk(list, path, base, is_object, depth + 1);
        else if (S_ISREG(st.st_mode) && is_object && !strncmp(path + base, "pack/", 5))
            add_pack(list, path, path + base, &st);
        else if (S_ISREG(st.st_mode))
            add_file(list, path, path + base, &st, is_object);
    }
    (void)closedir(dir);
    return true;
}

json_t *oracle_files(const char *dir)
{
    json_t *objects = json_array(), *temps = json_array();
    char path[PATH_BYTES];
    bool is_read;

    (void)snprintf(path, sizeof(path), "%s/obj", dir);
    is_read = walk(objects, path, strlen(path) + 1, true, 0);
    (void)snprintf(path, sizeof(path), "%s/tmp", dir);
    is_read = walk(temps, path, strlen(path) + 1, false, 0) && is_read;
    if (!is_read) {
        (void)fprintf(stderr, "oracle: %s is no storage folder\n", dir);
        json_decref(objects);
        json_decref(temps);
        return NULL;
    }
    return json_pack("{so so}", "objects", objects, "temps", temps);
}
