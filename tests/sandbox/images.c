/* images.c - the second listener: what the image URLs point at. OpenAI's are signed and expire (XML 403 as Azure
 * writes it), Leonardo's CDN is plain. Neither wants a key. */
#include "sandbox.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void images_xml(struct exchange *ex, int status, const char *code, const char *text)
{
    struct buf b = { 0 };
    buf_fmt(&b,
            "\xEF\xBB\xBF<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>%s</Code><Message>%s</Message></Error>",
            code, text);
    exchange_send_blob(ex, status, "application/xml", blob_new(b.data, b.len));
    buf_done(&b);
}

static void images_refuse(struct exchange *ex, int status, const char *code)
{
    images_xml(ex, status, code[0] == '\0' ? "ServerBusy" : code,
               "The server is currently unable to serve the request.");
}

static void images_on_painted(void *cls, struct paint *p)
{
    struct exchange *ex = cls;
    ex->paint = NULL;
    if (p->failed)
        images_xml(ex, 500, "InternalError", "The picture could not be made.");
    else
        exchange_send_blob(ex, 200, picture_mime(p->specs[0].format), blob_hold(p->file));
}

/* The hosts behind one listener, by their paths: where the id begins, what ends it, what stands before the number. */
struct host {
    const char *prefix, *provider, *before_id, *id_end, *before_number;
};
static const struct host hosts[] = {
    { "/private/", "openai", "/img-", "-", "-" },
    { "/xezq/", "replicate", "/xezq/", "/", "out-" },
    { "/runpod-bucket/", "runpod", "/runpod-bucket/", "/", "out-" },
    { "/ark/", "volcengine", "/ark/", "/", "_" },
    { "/midjourney/", "ttapi", "/midjourney/", "/", "out-" },
    { "/", "leonardo", "/generations/", "/", "_" },
};

static const struct host *images_host(const char *path)
{
    const struct host *h = hosts;
    while (strncmp(path, h->prefix, strlen(h->prefix)) != 0 && h + 1 < hosts + ARRAY_LEN(hosts))
        h++;
    return h;
}

static bool images_parse(const struct host *h, const char *path, char id[68], int *index)
{
    const char *p = strstr(path, h->before_id);
    if (p == NULL)
        return false;
    p += strlen(h->before_id);
    size_t len = strcspn(p, h->id_end);
    if (len == 0 || len >= 68)
        return false;
    memcpy(id, p, len);
    id[len] = '\0';
    const char *number = strstr(p + len, h->before_number);
    if (number == NULL)
        return false;
    *index = (int)strtol(number + strlen(h->before_number), NULL, 10);
    return true;
}

/* Answered: false. Replicate's page has it both ways: files may want the key, or none. */
static bool images_admit(struct exchange *ex, bool replicate)
{
    bool has_key =
        exchange_request_header(ex, "Authorization") != NULL || exchange_request_header(ex, "TT-API-KEY") != NULL;
    bool wants_key = replicate && sandbox_setting(ex->box, CFG_REPLICATE_KEY) != 0;
    if (has_key == wants_key)
        return true;
    images_xml(ex, wants_key ? 401 : 403, "AuthenticationFailed",
               wants_key ? "The key is wanted here." : "A key was sent to the image host.");
    return false;
}

void images_on_request(struct exchange *ex)
{
    char id[68];
    int index = 0;
    if (strncmp(ex->path, "/image-generation-bucket/", 25) == 0) {
        leonardo_on_upload(ex);
        return;
    }
    const struct host *host = images_host(ex->path);
    bool openai = host == &hosts[0], replicate = host == &hosts[1];
    const struct job *job = images_parse(host, ex->path, id, &index) ? jobs_find(ex->box->jobs, id) : NULL;

    ex->provider = host->provider;
    if (job != NULL)
        memcpy(ex->account, job->account, sizeof ex->account);
    desk_open(ex, PHASE_DOWNLOAD, job == NULL ? NULL : job->prompt);
    if (strcmp(ex->method, "GET") != 0) {
        images_xml(ex, 405, "UnsupportedHttpVerb", "The resource doesn't support specified Http Verb.");
        return;
    }
    if (openai && (openai_check_url(ex->box, ex->path, ex->query) != URL_GOOD ||
                   (job != NULL && sandbox_now_ms(ex->box) >= job->expires_ms))) {
        images_xml(ex, 403, "AuthenticationFailed",
                   "Server failed to authenticate the request. Make sure the value of Authorization header is formed "
                   "correctly including the signature.");
        return;
    }
    if (strcmp(host->provider, "volcengine") == 0 && (!volcengine_url_is_good(ex->box, ex->path, ex->query) ||
                                                      (job != NULL && sandbox_now_ms(ex->box) >= job->expires_ms))) {
        images_xml(ex, 403, "AccessDenied", "Request has expired");
        return;
    }
    if (!images_admit(ex, replicate))
        return;
    if (replicate && job != NULL &&
        sandbox_now_ms(ex->box) - job->done_ms >= sandbox_setting(ex->box, CFG_REPLICATE_TTL))
        job = NULL; /* vanished */
    if (job == NULL || index < 0 || index >= job->count) {
        images_xml(ex, 404, "BlobNotFound", "The specified blob does not exist.");
        return;
    }
    if (desk_fault(ex, images_refuse))
        return;
    struct paint *p = paint_new(ex->box->gallery);
    p->specs[0] = job_picture(job, index);
    desk_cap(ex->box, &p->specs[0].width, &p->specs[0].height);
    p->specs[0].flaws |= desk_shape(&ex->fault); /* blank,at=download and the like */
    p->count = 1;
    exchange_paint(ex, p, images_on_painted);
}
