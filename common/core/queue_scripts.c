/* queue_scripts.c - what of common.lua stands before a script: the parts it uses.
 *
 * Redis runs a script's text from its first line at every call: a function that nobody uses there costs as much to make
 * as one that somebody does, and TIME is a command. A part begins with a line `--: NAMES` of what it defines, and is
 * taken when the script, or a part taken after it, has one of these names. */
#include "common/core/queue.h"

#include <assert.h>
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/embedded.h"
#include "common/core/queue_internal.h"

enum { PARTS_MAX = 64 };
static const char mark[] = "\n--: ";

struct text {
    const char *at;
    size_t len;
};

static const struct embedded *embedded_find(const char *name)
{
    for (size_t i = 0; i < embedded_redis_count; i++)
        if (strcmp(embedded_redis[i].name, name) == 0)
            return &embedded_redis[i];
    return NULL;
}

static bool is_word(char c)
{
    return isalnum((unsigned char)c) || c == '_';
}

static bool is_comment(struct text t, const char *at) /* whether it follows -- in its line */
{
    while (at > t.at && at[-1] != '\n')
        if (*--at == '-' && at > t.at && at[-1] == '-')
            return true;
    return false;
}

static bool uses(struct text t, struct text name)
{
    const char *end = t.at + t.len;
    for (const char *p = t.at; p + name.len <= end; p++) {
        p = memchr(p, *name.at, (size_t)(end - p));
        if (!p || p + name.len > end)
            return false;
        bool is_whole = memcmp(p, name.at, name.len) == 0 && (p == t.at || !is_word(p[-1])) &&
                        (p + name.len == end || !is_word(p[name.len]));
        if (is_whole && !is_comment(t, p))
            return true;
    }
    return false;
}

static bool uses_part(struct text t, struct text part) /* one of the names in its first line */
{
    const char *p = part.at + strlen(mark), *end = memchr(p, '\n', part.len - strlen(mark));
    while (end && p < end) {
        struct text name = { p, strcspn(p, " \n") };
        if (name.len && uses(t, name))
            return true;
        p += name.len + 1;
    }
    return false;
}

static size_t split(const struct embedded *file, struct text *parts) /* the first is what comes before all marks */
{
    const char *at = file->text;
    size_t count = 0;
    while (at && count < PARTS_MAX) {
        const char *next = strstr(at + 1, mark);
        parts[count++] = (struct text){ at, next ? (size_t)(next - at) : strlen(at) };
        at = next;
    }
    assert(!at); /* built in: no more of them than that */
    return count;
}

char *queue_script_source(const char *body)
{
    const struct embedded *common = embedded_find("common.lua");
    struct text parts[PARTS_MAX], source = { 0 };
    size_t count;

    assert(common); /* built in */
    count = split(common, parts);
    char *text = calloc(1, common->len + strlen(body) + 2);
    if (!text)
        abort();
    char *at = text + common->len + 1; /* from its end on, since what is used stands before who uses it */
    memcpy(at, body, strlen(body));
    *--at = '\n';
    for (size_t i = count; i-- > 0;) {
        source = (struct text){ at, strlen(at) };
        if (i > 0 && !uses_part(source, parts[i]))
            continue;
        at -= parts[i].len;
        memcpy(at, parts[i].at, parts[i].len);
    }
    memmove(text, at, strlen(at) + 1);
    return text;
}

void queue_scripts_load(struct redis_script *scripts)
{
    static const char *const files[QUEUE_SCRIPT_COUNT] = {
#define X(name, file) file,
        QUEUE_SCRIPTS(X)
#undef X
    };
    for (size_t i = 0; i < QUEUE_SCRIPT_COUNT; i++) {
        const struct embedded *file = embedded_find(files[i]);
        assert(file); /* built in */
        scripts[i] = (struct redis_script){ .name = file->name, .source = queue_script_source(file->text) };
    }
}
