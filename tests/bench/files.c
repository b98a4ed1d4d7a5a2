/* files.c - bench_files: what storing results takes on this machine with nothing of kiln around it.
 *
 *   bench_files DIR COUNT BYTES THREADS [BATCH]
 *
 * Each of THREADS writes files the way kiln stores an object: create in DIR/tmp, write, fsync, rename into one of 256
 * folders, fsync that folder. With BATCH a thread stores that many without any fsync, then asks once for all of the
 * file system (syncfs). Prints files=… ms=… cpu_ms=…, CPU being all that the kernel took for this program. */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include "common/base/clock.h"
#include "common/base/text.h"

enum { FOLDERS = 256, THREADS_MAX = 64, BATCH_MAX = 10000, BYTES_MAX = 16 << 20 };

static struct files {
    const char *dir;
    int64_t count, bytes, threads, batch;
    char *data;
    _Atomic int64_t next;
    atomic_bool is_failed;
} files;

static void file_names(int64_t number, char *temp, char *path, size_t size)
{
    (void)snprintf(temp, size, "%s/tmp/%lld", files.dir, (long long)number);
    (void)snprintf(path, size, "%s/obj/%02x/%lld", files.dir, (unsigned)(number * 37 % FOLDERS), (long long)number);
}

static bool folder_sync(const char *folder, int (*sync_it)(int))
{
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool is_good = fd >= 0 && sync_it(fd) == 0;

    if (fd >= 0)
        (void)close(fd);
    return is_good;
}

static bool file_write(int64_t number)
{
    char temp[512], path[512];
    int fd;
    bool is_good;

    file_names(number, temp, path, sizeof(path));
    fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
    if (fd < 0)
        return false;
    is_good = write(fd, files.data, (size_t)files.bytes) == files.bytes && (files.batch > 1 || fsync(fd) == 0);
    if (close(fd) != 0 || !is_good || rename(temp, path) != 0)
        return false;
    *strrchr(path, '/') = '\0';
    return files.batch > 1 || folder_sync(path, fsync);
}

static bool files_write(int64_t first, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        if (!file_write(first + i))
            return false;
    return files.batch == 1 || folder_sync(files.dir, syncfs);
}

static void *files_run(void *unused)
{
    int64_t first;

    (void)unused;
    while ((first = atomic_fetch_add(&files.next, files.batch)) < files.count && !files.is_failed)
        if (!files_write(first, files.count - first < files.batch ? files.count - first : files.batch))
            files.is_failed = true;
    return NULL;
}

static bool files_open(void)
{
    char path[512];

    files.data = malloc((size_t)files.bytes);
    if (!files.data)
        return false;
    memset(files.data, 'k', (size_t)files.bytes);
    (void)snprintf(path, sizeof(path), "%s/tmp", files.dir);
    (void)mkdir(path, 0750);
    (void)snprintf(path, sizeof(path), "%s/obj", files.dir);
    (void)mkdir(path, 0750);
    for (int i = 0; i < FOLDERS; i++) {
        (void)snprintf(path, sizeof(path), "%s/obj/%02x", files.dir, (unsigned)i);
        if (mkdir(path, 0750) != 0)
            return false; /* it must be a fresh folder */
    }
    return true;
}

int main(int argc, char **argv)
{
    pthread_t threads[THREADS_MAX];
    struct rusage used;
    int64_t began_ms;

    files.batch = 1;
    if (argc < 5 || argc > 6 || parse_i64(argv[2], 1, 10000000, &files.count) != ERR_OK ||
        parse_i64(argv[3], 1, BYTES_MAX, &files.bytes) != ERR_OK ||
        parse_i64(argv[4], 1, THREADS_MAX, &files.threads) != ERR_OK ||
        (argc == 6 && parse_i64(argv[5], 1, BATCH_MAX, &files.batch) != ERR_OK)) {
        (void)fprintf(stderr, "usage: bench_files DIR COUNT BYTES THREADS [BATCH]\n");
        return 2;
    }
    files.dir = argv[1];
    if (!files_open()) {
        perror(files.dir);
        return 2;
    }
    began_ms = clock_mono_ms();
    for (int64_t i = 0; i < files.threads; i++)
        if (pthread_create(&threads[i], NULL, files_run, NULL) != 0)
            return 2;
    for (int64_t i = 0; i < files.threads; i++)
        (void)pthread_join(threads[i], NULL);
    (void)getrusage(RUSAGE_SELF, &used);
    (void)printf("files=%lld ms=%lld cpu_ms=%lld\n", (long long)files.count, (long long)(clock_mono_ms() - began_ms),
                 (long long)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000 +
                     (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1000);
    if (files.is_failed)
        perror(files.dir);
    return files.is_failed ? 1 : 0;
}
