/* files.c - the storage folder as it lies on disk: obj/job/ab/ID.FENCE.INDEX is the object job/ab/ID/FENCE/INDEX. */
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <openssl/evp.h>
#include "tests/chaos/oracle/oracle.h"

enum { PATH_BYTES = 1024, DEPTH_MAX = 6 };

static bool sha256_of(const char *path, char hex[65])
{
    FILE *file = fopen(path, "rb");
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    unsigned char chunk[65536], raw[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    size_t got;
    bool is_read = file && md && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1;

    while (is_read && (got = fread(chunk, 1, sizeof(chunk), file)) > 0)
        is_read = EVP_DigestUpdate(md, chunk, got) == 1;
    is_read = is_read && !ferror(file) && EVP_DigestFinal_ex(md, raw, &n) == 1;
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
    if (sha256_of(path, hex)) /* else it went meanwhile */
        (void)json_array_append_new(list, json_pack("{ss sI ss sf}", "object", object, "bytes", (json_int_t)st->st_size,
                                                    "sha256", hex, "age_s", age_s));
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
