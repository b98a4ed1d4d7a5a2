/* redis_url.c - redis://[[user]:password@]host[:port][/db] and unix:/path[?db=n], into parts. */
#include "common/io/redis_url.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/text.h"
#include "common/io/redis.h"

static void *must_alloc(size_t size)
{
    void *p = calloc(1, size);
    if (!p)
        abort(); /* as in redis.c */
    return p;
}

static char *must_copy(const char *s, size_t len)
{
    char *copy = must_alloc(len + 1);
    memcpy(copy, s, len);
    return copy;
}

void redis_url_done(struct redis_url *u)
{
    free(u->user);
    free(u->password);
    free(u->host);
    free(u->path);
    *u = (struct redis_url){ 0 };
}

static enum err url_number(const char *s, int64_t max, int *out)
{
    int64_t n;
    if (parse_i64(s, 0, max, &n) != ERR_OK)
        return ERR_ARGUMENT;
    *out = (int)n;
    return ERR_OK;
}

static char *url_part(const char *s, size_t len) /* NULL: a bad escape */
{
    char *out = must_alloc(len + 1);
    if (url_unescape(out, len + 1, s, len, false) == ERR_OK)
        return out;
    free(out);
    return NULL;
}

static enum err url_parse_unix(struct redis_url *u, const char *s)
{
    const char *query = strchr(s, '?');
    if (*s != '/')
        return ERR_ARGUMENT;
    if (query && (strncmp(query, "?db=", 4) != 0 || url_number(query + 4, 1 << 20, &u->db) != ERR_OK))
        return ERR_ARGUMENT;
    u->path = must_copy(s, query ? (size_t)(query - s) : strlen(s));
    return ERR_OK;
}

static enum err url_parse_login(struct redis_url *u, const char *s, size_t len)
{
    const char *colon = memchr(s, ':', len);
    if (!colon)
        return ERR_ARGUMENT;
    if (colon > s && !(u->user = url_part(s, (size_t)(colon - s))))
        return ERR_ARGUMENT;
    u->password = url_part(colon + 1, len - (size_t)(colon - s) - 1);
    return u->password ? ERR_OK : ERR_ARGUMENT;
}

static enum err url_parse_port(struct redis_url *u, const char *s, const char *end)
{
    char port[8] = "";
    if (s == end)
        return ERR_OK;
    if (*s != ':' || (size_t)(end - s) > sizeof(port))
        return ERR_ARGUMENT;
    memcpy(port, s + 1, (size_t)(end - s - 1));
    return url_number(port, 65535, &u->port);
}

static enum err url_parse_tcp(struct redis_url *u, const char *s)
{
    const char *end = s + strcspn(s, "/"), *at = NULL;

    for (const char *p = s; p < end; p++)
        if (*p == '@')
            at = p;
    if (at && url_parse_login(u, s, (size_t)(at - s)) != ERR_OK)
        return ERR_ARGUMENT;
    s = at ? at + 1 : s;

    const char *host_end = s;
    bool is_bracketed = *s == '[';
    if (is_bracketed) {
        s++;
        host_end = memchr(s, ']', (size_t)(end - s));
    } else {
        while (host_end < end && *host_end != ':')
            host_end++;
    }
    if (!host_end || host_end == s || host_end - s > 253)
        return ERR_ARGUMENT;
    u->host = must_copy(s, (size_t)(host_end - s));
    if (url_parse_port(u, host_end + is_bracketed, end) != ERR_OK)
        return ERR_ARGUMENT;
    return *end && end[1] ? url_number(end + 1, 1 << 20, &u->db) : ERR_OK;
}

enum err redis_url_parse(struct redis_url *u, const char *text)
{
    enum err err = ERR_ARGUMENT;
    *u = (struct redis_url){ .port = 6379 };
    if (text && strncmp(text, "unix:", 5) == 0)
        err = url_parse_unix(u, text + 5);
    else if (text && strncmp(text, "redis://", 8) == 0)
        err = url_parse_tcp(u, text + 8);
    if (err != ERR_OK)
        redis_url_done(u);
    return err;
}

enum err redis_url_check(const char *url)
{
    struct redis_url u;
    enum err err = redis_url_parse(&u, url);
    redis_url_done(&u);
    return err;
}
