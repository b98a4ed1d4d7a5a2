/* openai_url.c - the image URLs of DALL-E answers: where they point, their signature over every byte of the query. */
#include "sandbox.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static void openai_sign(const struct sandbox *box, const char *text, size_t len, char *out, size_t cap)
{
    unsigned char mac[crypto_auth_BYTES];
    char b64[64];
    size_t o = 0;
    crypto_auth(mac, (const unsigned char *)text, len, box->sign_key);
    sodium_bin2base64(b64, sizeof b64, mac, sizeof mac, sodium_base64_VARIANT_ORIGINAL);
    for (const char *p = b64; *p != '\0' && o + 4 < cap; p++) {
        const char *coded = *p == '+' ? "%2B" : *p == '/' ? "%2F" : *p == '=' ? "%3D" : NULL;
        if (coded != NULL) {
            memcpy(out + o, coded, 3);
            o += 3;
        } else {
            out[o++] = *p;
        }
    }
    out[o] = '\0';
}

static void openai_stamp(int64_t at_ms, char out[40])
{
    struct tm tm;
    time_t at = (time_t)(at_ms / 1000);
    (void)strftime(out, 40, "%Y-%m-%dT%H%%3A%M%%3A%SZ", gmtime_r(&at, &tm)); /* fits */
}

void openai_image_url(struct sandbox *box, const struct job *job, int index, char *out, size_t cap)
{
    char path[512], sig[160], from[40], until[40];
    openai_stamp(job->created_ms - 3600000, from);
    openai_stamp(job->expires_ms, until);
    (void)snprintf(path, sizeof path,
                   "/private/org-SANDBOX/user-SANDBOX/img-%s-%d.png?st=%s&se=%s&sp=r&sv=2023-11-03&sr=b&rscd=inline&"
                   "rsct=image/png&skoid=00000000-sandbox&sks=b&skv=2023-11-03",
                   job->id, index, from, until);
    openai_sign(box, path, strlen(path), sig, sizeof sig);
    (void)snprintf(out, cap, "%s%s&sig=%s", box->images_base, path, sig);
}

enum url_check openai_check_url(struct sandbox *box, const char *path, const char *query)
{
    struct buf signed_part = { 0 };
    char sig[160];
    const char *given = query == NULL ? NULL : strstr(query, "&sig=");
    if (given == NULL)
        return URL_FORGED;
    buf_fmt(&signed_part, "%s?%.*s", path, (int)(given - query), query);
    openai_sign(box, signed_part.data, signed_part.len, sig, sizeof sig);
    buf_done(&signed_part);
    return strcmp(sig, given + 5) == 0 ? URL_GOOD : URL_FORGED;
}
