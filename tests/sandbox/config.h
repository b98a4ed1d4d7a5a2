/* config.h - every setting of the sandbox: name, default, bounds, one sentence. Read from --config at start
 * and merged at run time by POST /_sandbox/config; an unknown name is an error, never ignored. */
#ifndef SANDBOX_CONFIG_H
#define SANDBOX_CONFIG_H
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define CONFIG_DAY_MS 86400000LL

/* X(member, "dotted.name", default, min, max, is_bool, sentence) */
#define CONFIG_KEYS(X)                                                                                                 \
    X(DELAY_OPENAI_MIN, "delay_ms.openai.min", 2000, 0, CONFIG_DAY_MS, 0, "images/generations answers after")          \
    X(DELAY_OPENAI_MAX, "delay_ms.openai.max", 4000, 0, CONFIG_DAY_MS, 0, "at most")                                   \
    X(DELAY_GENERATE_MIN, "delay_ms.stability_generate.min", 1000, 0, CONFIG_DAY_MS, 0, "core, ultra, sd3")            \
    X(DELAY_GENERATE_MAX, "delay_ms.stability_generate.max", 3000, 0, CONFIG_DAY_MS, 0, "at most")                     \
    X(DELAY_UPSCALE_MIN, "delay_ms.stability_upscale.min", 1000, 0, CONFIG_DAY_MS, 0, "fast and conservative")         \
    X(DELAY_UPSCALE_MAX, "delay_ms.stability_upscale.max", 3000, 0, CONFIG_DAY_MS, 0, "at most")                       \
    X(DELAY_CREATIVE_MIN, "delay_ms.stability_creative.min", 6000, 0, CONFIG_DAY_MS, 0, "202 until then")              \
    X(DELAY_CREATIVE_MAX, "delay_ms.stability_creative.max", 10000, 0, CONFIG_DAY_MS, 0, "at most")                    \
    X(DELAY_SYNC_MIN, "delay_ms.synchronous.min", 1000, 0, CONFIG_DAY_MS, 0, "Hugging Face, Google, Volcengine")       \
    X(DELAY_SYNC_MAX, "delay_ms.synchronous.max", 3000, 0, CONFIG_DAY_MS, 0, "at most")                                \
    X(DELAY_LEONARDO_MIN, "delay_ms.leonardo.min", 5000, 0, CONFIG_DAY_MS, 0, "PENDING until then")                    \
    X(DELAY_LEONARDO_MAX, "delay_ms.leonardo.max", 8000, 0, CONFIG_DAY_MS, 0, "at most")                               \
    X(DELAY_LOCAL_MIN, "delay_ms.local.min", 2000, 0, CONFIG_DAY_MS, 0, "a1111: one after the other")                  \
    X(DELAY_LOCAL_MAX, "delay_ms.local.max", 4000, 0, CONFIG_DAY_MS, 0, "at most")                                     \
    X(DELAY_REPLICATE_MIN, "delay_ms.replicate.min", 1500, 0, CONFIG_DAY_MS, 0, "starting, processing until then")     \
    X(DELAY_REPLICATE_MAX, "delay_ms.replicate.max", 4000, 0, CONFIG_DAY_MS, 0, "at most")                             \
    X(DELAY_RUNPOD_MIN, "delay_ms.runpod.min", 2000, 0, CONFIG_DAY_MS, 0, "IN_QUEUE, IN_PROGRESS until then")          \
    X(DELAY_RUNPOD_MAX, "delay_ms.runpod.max", 5000, 0, CONFIG_DAY_MS, 0, "at most")                                   \
    X(DELAY_TTAPI_MIN, "delay_ms.ttapi.min", 4000, 0, CONFIG_DAY_MS, 0, "PENDING_QUEUE, ON_QUEUE until then")          \
    X(DELAY_TTAPI_MAX, "delay_ms.ttapi.max", 8000, 0, CONFIG_DAY_MS, 0, "at most")                                     \
    X(IMAGE_SIZE_CAP, "image_size_cap", 0, 0, 16384, 0, "longest side of any generated picture; 0 = as asked")         \
    X(UPSCALE_FACTOR, "upscale_factor", 4, 1, 8, 0, "how many times an upscale enlarges each side")                    \
    X(UPSCALE_MAX_SIDE, "upscale_max_side", 4096, 64, 8192, 0, "longest side of an upscale")                           \
    X(CACHE_BYTES, "picture_cache_bytes", 67108864, 0, 4294967296LL, 0, "encoded pictures kept (least recently used)") \
    X(MAX_JOBS, "max_jobs", 200000, 100, 5000000, 0, "asynchronous jobs and image URLs kept; beyond, the oldest go")   \
    X(CLOCK_OFFSET, "clock_offset_ms", 0, -1000 * CONFIG_DAY_MS, 1000 * CONFIG_DAY_MS, 0, "added to the wall clock")   \
    X(RESULT_TTL, "result_ttl_ms", CONFIG_DAY_MS, 0, 1000 * CONFIG_DAY_MS, 0, "Stability results, then 404")           \
    X(URL_TTL, "url_ttl_ms", 3600000, 0, 1000 * CONFIG_DAY_MS, 0, "OpenAI image URLs, then 403 in XML")                \
    X(STABILITY_REQUESTS, "stability_limit.requests", 150, 0, 10000000, 0, "calls a key and window; 0 = no limit")     \
    X(STABILITY_WINDOW, "stability_limit.window_ms", 10000, 1, CONFIG_DAY_MS, 0, "sliding")                            \
    X(STABILITY_TIMEOUT, "stability_limit.timeout_ms", 60000, 0, CONFIG_DAY_MS, 0, "429 to everything for so long")    \
    X(STABILITY_RETRY_AFTER, "stability_limit.retry_after", 0, 0, 2, 0, "429 carries it: 0 no, 1 seconds, 2 a date")   \
    X(STABILITY_BALANCE, "stability_balance", 10000, 0, 1000000000000LL, 0, "credits of a key seen the first time")    \
    X(STABILITY_STRICT, "stability_strict_fields", 1, 0, 1, 1, "a field the page does not list is a 400")              \
    X(STABILITY_ACCEPT, "stability_strict_accept", 1, 0, 1, 1, "an accept value the page does not list is a 400")      \
    X(OPENAI_REQUESTS, "openai_limit.requests", 0, 0, 10000000, 0, "images a key and window; 0 = no limit")            \
    X(OPENAI_INPUTS, "openai_limit.input_images", 0, 0, 10000000, 0, "pictures sent to edits; 0 = no limit")           \
    X(OPENAI_WINDOW, "openai_limit.window_ms", 60000, 1, CONFIG_DAY_MS, 0, "sliding")                                  \
    X(LEONARDO_REQUESTS, "leonardo_limit.requests", 0, 0, 10000000, 0, "creates a key and window; 0 = no limit")       \
    X(LEONARDO_WINDOW, "leonardo_limit.window_ms", 60000, 1, CONFIG_DAY_MS, 0, "sliding")                              \
    X(SYNC_REQUESTS, "synchronous_limit.requests", 0, 0, 10000000, 0, "calls a key and window; 0 = no limit")          \
    X(SYNC_WINDOW, "synchronous_limit.window_ms", 60000, 1, CONFIG_DAY_MS, 0, "sliding")                               \
    X(RUNPOD_REQUESTS, "runpod_limit.requests", 1000, 0, 10000000, 0, "runs a key and window; 0 = no limit")           \
    X(RUNPOD_WINDOW, "runpod_limit.window_ms", 10000, 1, CONFIG_DAY_MS, 0, "sliding")                                  \
    X(REPLICATE_REQUESTS, "replicate_limit.requests", 600, 0, 10000000, 0, "creates a key and window; 0 = no limit")   \
    X(REPLICATE_WINDOW, "replicate_limit.window_ms", 60000, 1, CONFIG_DAY_MS, 0, "sliding")                            \
    X(REPLICATE_TTL, "replicate_ttl_ms", 3600000, 0, 1000 * CONFIG_DAY_MS, 0, "outputs after completion, then gone")   \
    X(REPLICATE_KEY, "replicate_download_key", 0, 0, 1, 1, "outputs are 401 without the key (else 403 with one)")      \
    X(GOOGLE_IMAGEN, "google_imagen", 1, 0, 1, 1, "the key-based API has Imagen; else 404")                            \
    X(DALLE_RETIRED, "dalle_retired", 0, 0, 1, 1, "dall-e-2 and dall-e-3 answer model_not_found")                      \
    X(LEONARDO_UUID, "leonardo_uuid_keys", 0, 0, 1, 1, "a Leonardo key that is no UUID answers 500, as the real one")

enum config_key {
#define X(member, ...) CFG_##member,
    CONFIG_KEYS(X)
#undef X
        CFG_COUNT
};

struct config {
    int64_t v[CFG_COUNT];
};

void config_init(struct config *c);
/* Applies all of it or nothing; on false `why` names the member. A delay may be one number instead of {min,max}. */
bool config_merge(struct config *c, const json_t *patch, char *why, size_t why_cap);
/* Every problem of a patch, one a line; how many. */
size_t config_check(const json_t *patch, FILE *to);
void config_help(FILE *to);                  /* the table, for people */
json_t *config_json(const struct config *c); /* new reference */
#endif
