/* judge.c - see judge.h. */
#define _XOPEN_SOURCE 700 /* popen */
#include "tests/chaos/judge.h"
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include "common/base/text.h"

int judge(const struct house *h, const char *options, char **out)
{
    struct buf b = { 0 };
    char command[2048], chunk[1024];
    size_t got;
    FILE *pipe;
    int status;

    (void)snprintf(
        command, sizeof(command),
        "'%s/tests/chaos/kiln-oracle' --database '%s' --redis '%s' --storage '%s/storage' --sandbox '%s' %s 2>&1",
        KILN_BUILD_DIR, h->db, h->redis, h->dir, h->sandbox, options);
    pipe = popen(command, "r");
    cr_assert_not_null(pipe);
    (void)buf_str(&b, "");
    while ((got = fread(chunk, 1, sizeof(chunk), pipe)) > 0)
        (void)buf_add(&b, chunk, got);
    status = pclose(pipe);
    *out = buf_take(&b);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
