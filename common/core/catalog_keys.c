/* catalog_keys.c - a provider's keys: several in one variable or one file, each with a fingerprint that may be shown.
 *
 * Commas and line ends part them, blanks around one do not count, nor does the same key given again. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/text.h"
#include "common/core/catalog_parts.h"

static const char marker[] = "key:";
enum { BOUND_CHARS = sizeof(marker) - 1 + KEY_PRINT }; /* "key:3fa1b2c3:" */

static void wipe(char *s)
{
    for (volatile char *k = s; k != NULL && *k != '\0'; k++)
        *k = '\0'; /* a secret does not stay behind in freed memory */
    free(s);
}

static void key_print(char out[KEY_PRINT], const char *text)
{
    char hex[SHA256_HEX];

    sha256_hex(hex, text, strlen(text));
    memcpy(out, hex, KEY_PRINT - 1);
    out[KEY_PRINT - 1] = '\0';
}

/* One key's text; false: `to` says what is wrong, never the text. */
static bool key_add(struct catalog_provider *p, struct catalog_key *keys, const char *text, size_t len,
                    const struct catalog_complaint *to)
{
    char *copy;

    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)text[i] <= ' ' || (unsigned char)text[i] >= 0x7f) /* it becomes a header line */
            return catalog_complain(to, p->key_env, "key %zu must be printable ASCII without blanks", p->key_count + 1);
    }
    if (p->key_count == CATALOG_KEYS_MAX)
        return catalog_complain(to, p->key_env, "must be at most %d keys", CATALOG_KEYS_MAX);
    copy = strndup(text, len);
    if (copy == NULL)
        return catalog_complain(to, p->key_env, "out of memory");
    key_print(keys[p->key_count].print, copy);
    for (size_t i = 0; i < p->key_count; i++) {
        if (strcmp(keys[i].print, keys[p->key_count].print) == 0) {
            wipe(copy);
            return true;
        }
    }
    keys[p->key_count++].text = copy;
    return true;
}

bool catalog_keys_read(struct catalog_provider *p, const char *text, const struct catalog_complaint *to)
{
    struct catalog_key *keys = calloc(CATALOG_KEYS_MAX + 1, sizeof *keys);
    bool ok = keys != NULL;

    p->keys = keys;
    for (const char *at = text; ok && *at != '\0'; at += strspn(at, ",\r\n")) {
        size_t whole = strcspn(at, ",\r\n"), len = whole, lead = strspn(at, " \t");

        lead = lead < len ? lead : len;
        while (len > lead && (at[len - 1] == ' ' || at[len - 1] == '\t'))
            len--;
        ok = len == lead || key_add(p, keys, at + lead, len - lead, to);
        at += whole;
    }
    if (p->key_count > 0)
        p->key = keys[0].text;
    return ok;
}

void catalog_keys_free(struct catalog_provider *p)
{
    for (size_t i = 0; i < p->key_count; i++)
        wipe((char *)(uintptr_t)p->keys[i].text);
    free((void *)(uintptr_t)p->keys);
}

const struct catalog_key *catalog_key_find(const struct catalog_provider *p, const char *print)
{
    for (size_t i = 0; i < p->key_count; i++) {
        if (strcmp(p->keys[i].print, print) == 0)
            return &p->keys[i];
    }
    return NULL;
}

char *catalog_key_bind(const struct catalog_key *key, const char *ref)
{
    size_t size = strlen(ref) + BOUND_CHARS + 1;
    char *bound = malloc(size);

    if (bound != NULL && key != NULL)
        (void)snprintf(bound, size, "%s%s:%s", marker, key->print, ref);
    else if (bound != NULL)
        memcpy(bound, ref, strlen(ref) + 1);
    return bound;
}

const char *catalog_key_unbind(const char *bound, char print[KEY_PRINT])
{
    const char *hex = bound + sizeof(marker) - 1;

    print[0] = '\0';
    if (strncmp(bound, marker, sizeof(marker) - 1) != 0 || strspn(hex, "0123456789abcdef") != KEY_PRINT - 1 ||
        hex[KEY_PRINT - 1] != ':')
        return bound;
    memcpy(print, hex, KEY_PRINT - 1);
    print[KEY_PRINT - 1] = '\0';
    return hex + KEY_PRINT;
}
