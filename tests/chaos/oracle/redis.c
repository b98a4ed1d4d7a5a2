/* redis.c - every key below kiln:{0}: is walked, whatever its kind, and each UUID in its name, its members or its
 * values is a fact: the oracle knows nothing of the queue's structures, so that none can be forgotten here. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <hiredis/hiredis.h>
#include "tests/chaos/oracle/oracle.h"

static const char pattern[] = "kiln:{0}:*";

static size_t uuid_at(const char *s, size_t len) /* 36, or 0 */
{
    if (len < 36)
        return 0;
    for (size_t i = 0; i < 36; i++) {
        bool is_dash = i == 8 || i == 13 || i == 18 || i == 23;
        if (is_dash ? s[i] != '-' : !isxdigit((unsigned char)s[i]))
            return 0;
    }
    return 36;
}

static void add_uuids(json_t *list, const char *key, const char *s, size_t len)
{
    for (size_t i = 0; i + 36 <= len; i++) {
        if (uuid_at(s + i, len - i)) {
            (void)json_array_append_new(list, json_pack("{ss so}", "key", key, "id", json_stringn(s + i, 36)));
            i += 35;
        }
    }
}

static void add_reply(json_t *list, const char *key, const redisReply *r)
{
    if (r->type == REDIS_REPLY_STRING)
        add_uuids(list, key, r->str, (size_t)r->len);
    for (size_t i = 0; r->type == REDIS_REPLY_ARRAY && i < r->elements; i++)
        add_reply(list, key, r->element[i]);
}

static bool add_key(json_t *list, redisContext *c, const char *key)
{
    redisReply *type = redisCommand(c, "TYPE %s", key), *all = NULL;
    const char *kind = type && type->type == REDIS_REPLY_STATUS ? type->str : "";

    add_uuids(list, key, key, strlen(key));
    if (!strcmp(kind, "string"))
        all = redisCommand(c, "GET %s", key);
    else if (!strcmp(kind, "hash"))
        all = redisCommand(c, "HGETALL %s", key);
    else if (!strcmp(kind, "set"))
        all = redisCommand(c, "SMEMBERS %s", key);
    else if (!strcmp(kind, "zset"))
        all = redisCommand(c, "ZRANGE %s 0 -1", key);
    else if (!strcmp(kind, "list"))
        all = redisCommand(c, "LRANGE %s 0 -1", key);
    if (all)
        add_reply(list, key, all);
    if (type)
        freeReplyObject(type);
    if (all)
        freeReplyObject(all);
    return c->err == 0;
}

static bool add_all(json_t *list, redisContext *c)
{
    char cursor[32] = "0";
    bool is_read = true;

    do {
        redisReply *page = redisCommand(c, "SCAN %s MATCH %s COUNT 1000", cursor, pattern);

        is_read = page && page->type == REDIS_REPLY_ARRAY && page->elements == 2;
        for (size_t i = 0; is_read && i < page->element[1]->elements; i++)
            is_read = add_key(list, c, page->element[1]->element[i]->str);
        if (is_read)
            (void)snprintf(cursor, sizeof(cursor), "%s", page->element[0]->str);
        if (page)
            freeReplyObject(page);
    } while (is_read && strcmp(cursor, "0") != 0);
    return is_read;
}

/* unix:/path[?db=n] or redis://host:port[/n] */
static redisContext *redis_open(const char *url)
{
    char where[256] = "";
    int port = 6379, db = 0;
    redisContext *c = NULL;
    redisReply *r;

    if (sscanf(url, "unix:%255[^?]?db=%d", where, &db) >= 1)
        c = redisConnectUnix(where);
    else if (sscanf(url, "redis://%255[^:/]:%d/%d", where, &port, &db) >= 1)
        c = redisConnect(where, port);
    if (!c || c->err || !(r = redisCommand(c, "SELECT %d", db))) {
        if (c)
            redisFree(c);
        return NULL;
    }
    freeReplyObject(r);
    return c;
}

json_t *oracle_redis(const char *url)
{
    redisContext *c = redis_open(url);
    json_t *list = json_array();

    if (!c || !add_all(list, c)) {
        (void)fprintf(stderr, "oracle: Redis cannot be read\n");
        json_decref(list);
        list = NULL;
    }
    if (c)
        redisFree(c);
    return list;
}
