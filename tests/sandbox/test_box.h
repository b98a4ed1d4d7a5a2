/* test_box.h - a sandbox of a test's own, what its tests ask it and see in its answers. SANDBOX_PROGRAM is its path. */
#ifndef SANDBOX_TEST_BOX_H
#define SANDBOX_TEST_BOX_H
#include <criterion/criterion.h>
#include <curl/curl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#define LEN(a) (sizeof(a) / sizeof((a)[0]))
#define FAST                                                                                                           \
    "{\"delay_ms\":{\"openai\":0,\"stability_generate\":0,\"stability_upscale\":0,\"stability_creative\":0,"           \
    "\"leonardo\":0},\"image_size_cap\":96}"
#define CORE       "/stability/v2beta/stable-image/generate/core"
#define CREATIVE   "/stability/v2beta/stable-image/upscale/creative"
#define IMAGES     "/openai/v1/images/generations"
#define EDITS      "/openai/v1/images/edits"
#define VARIATIONS "/openai/v1/images/variations"
#define LEO        "/leonardo/api/rest/v1/generations"

struct box {
    pid_t pid;
    char base[64], images[64], ready_file[64];
    CURL *curl; /* one handle: connections are reused as a client would */
};
extern struct box box;

struct answer {
    CURLcode code;
    long status;
    char *body;
    size_t len;
    char type[80], finish[40], seed[24], retry[48], retry_ms[24], should_retry[8], request_id[64];
    json_t *json;
};

struct seen {
    int width, height;
    char kind;  /* p, j, w */
    int colors; /* distinct among a sample, up to 64 */
};

/* A client of its own whose request was taken and is not answered in full. */
struct waiter {
    CURLM *multi;
    CURL *curl;
    struct curl_slist *headers;
    char url[128], body[300];
    struct answer answer;
};

extern const char *method; /* of the next requests; NULL: GET, or POST with a body */
void box_start(const char *config);
void box_stop(void);
size_t on_body(char *data, size_t one, size_t n, void *cls); /* cls: struct answer */
struct answer perform(const char *url, const char *key, const char *more, curl_mime *form, const char *json);
struct answer answer_of_post(const char *path, const char *key, const char *json);
struct answer get(const char *path, const char *key);
void done(struct answer *a);
curl_mime *form_of(const char *const *pairs, const void *file, size_t len);
const char *str(const json_t *o, const char *a, const char *b);
long counter(const char *tag, const char *name);
void configure(const char *json);
struct seen look(const void *file, size_t len);
struct seen look_base64(const char *text);
unsigned char *input_png(size_t *len);
struct answer generate(const char *body, char path[160]); /* by Leonardo; path: of its job */
void waiter_start(struct waiter *w, const char *tag, const char *fault);
void waiter_leave(struct waiter *w);
#endif
