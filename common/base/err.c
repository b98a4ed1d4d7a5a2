/* err.c - the words, texts and consequences of the codes, made from the one list in err.h. */
#include "common/base/err.h"
#include <string.h>

struct err_row {
    const char *word, *text;
    int http;
    bool retry, fallback;
};

static const struct err_row rows[] = {
#define X(name, word, http, retry, fallback, text) [name] = { word, text, http, retry, fallback },
    ERR_CODES(X)
#undef X
};

/* A number that is no code of ours (a cast gone wrong) still gets a word: callers print it without asking. */
static const struct err_row *err_row(enum err e)
{
    static const struct err_row none = { "unknown", "unknown error", 500, false, false };
    return (unsigned)e < (unsigned)ERR_COUNT ? &rows[e] : &none;
}

const char *err_word(enum err e)
{
    return err_row(e)->word;
}

const char *err_text(enum err e)
{
    return err_row(e)->text;
}

int err_http(enum err e)
{
    return err_row(e)->http;
}

bool err_retry(enum err e)
{
    return err_row(e)->retry;
}

bool err_fallback(enum err e)
{
    return err_row(e)->fallback;
}

enum err err_from_word(const char *word)
{
    if (!word)
        return ERR_OK;
    for (unsigned i = 0; i < (unsigned)ERR_COUNT; i++) {
        if (strcmp(rows[i].word, word) == 0)
            return (enum err)i;
    }
    return ERR_COUNT;
}
