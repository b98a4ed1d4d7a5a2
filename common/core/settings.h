/* settings.h - the rows of the configuration that dispatcher and worker share, and what both make of them. */
#ifndef KILN_SETTINGS_H
#define KILN_SETTINGS_H
#include "common/base/config.h"
#include "common/base/err.h"
#include "common/core/catalog.h"

#define SETTINGS_PROVIDER(key_var, base_var, who)                                                                      \
    { .name = key_var,                                                                                                 \
      .type = CONFIG_SECRETS,                                                                                          \
      .help = "Key of " who ", or several, by commas or lines; without one its operations are refused." },             \
    {                                                                                                                  \
        .name = base_var, .type = CONFIG_URL, .help = "Replaces the base address of " who "."                          \
    }

#define SETTINGS_LOCAL(base_var, who)                                                                                  \
    {                                                                                                                  \
        .name = base_var, .type = CONFIG_URL, .help = "Address of " who "; without it its operations are refused."     \
    }

#define SETTINGS_SHARED                                                                                                \
    { .name = "KILN_DATABASE_URL",                                                                                     \
      .type = CONFIG_TEXT,                                                                                             \
      .is_required = true,                                                                                             \
      .help = "PostgreSQL, as libpq takes it." },                                                                      \
        { .name = "KILN_REDIS_URL",                                                                                    \
          .type = CONFIG_TEXT,                                                                                         \
          .is_required = true,                                                                                         \
          .help = "Redis: redis://… or unix:/path; must run noeviction." },                                            \
        { .name = "KILN_STORAGE",                                                                                      \
          .type = CONFIG_TEXT,                                                                                         \
          .is_required = true,                                                                                         \
          .help = "Where results lie: file:DIR, one folder that every program sees." },                                \
        { .name = "KILN_CATALOG",                                                                                      \
          .type = CONFIG_TEXT,                                                                                         \
          .help = "Folder of JSON files laid over the built-in catalogue." },                                          \
        { .name = "KILN_ALLOW_PRIVATE_ADDRESSES",                                                                      \
          .type = CONFIG_BOOL,                                                                                         \
          .fallback = "false",                                                                                         \
          .help = "Fetch from private addresses too: for tests." },                                                    \
        { .name = "KILN_LOG_LEVEL", .type = CONFIG_TEXT, .fallback = "info", .help = "debug, info, warn or error." },  \
        SETTINGS_PROVIDER("OPENAI_API_KEY", "OPENAI_BASE_URL", "OpenAI"),                                              \
        SETTINGS_PROVIDER("STABILITY_API_KEY", "STABILITY_BASE_URL", "Stability AI"),                                  \
        SETTINGS_PROVIDER("LEONARDO_API_KEY", "LEONARDO_BASE_URL", "Leonardo"),                                        \
        SETTINGS_LOCAL("A1111_BASE_URL", "AUTOMATIC1111's webui"), SETTINGS_LOCAL("COMFYUI_BASE_URL", "ComfyUI"),      \
        SETTINGS_PROVIDER("GEMINI_API_KEY", "GEMINI_BASE_URL", "Google"),                                              \
        SETTINGS_PROVIDER("ARK_API_KEY", "ARK_BASE_URL", "Volcengine Ark"),                                            \
        SETTINGS_PROVIDER("HF_TOKEN", "HF_BASE_URL", "Hugging Face"),                                                  \
        SETTINGS_PROVIDER("REPLICATE_API_TOKEN", "REPLICATE_BASE_URL", "Replicate"),                                   \
        SETTINGS_PROVIDER("RUNPOD_API_KEY", "RUNPOD_BASE_URL", "RunPod"),                                              \
        SETTINGS_PROVIDER("TTAPI_API_KEY", "TTAPI_BASE_URL", "Midjourney through TTAPI")

/* Names of all programs' variables, so that one environment file serves all; NULL-terminated. */
extern const char *const settings_known[];

void settings_check(
    struct config *c); /* what the table cannot say: URLs, storage, log level, catalogue; adds problems */
void settings_log_level(const struct config *c);
void settings_memory(
    void); /* memory for a daemon whose load comes and goes; first thing in main, and on its loop's thread */
/* Raises the soft limit of open files, which is only a default, to the hard one, and makes the kernel's table of them
 * large enough for `expected` at once, while there is no second thread yet. The limit; 0: not known. */
size_t settings_files(size_t expected);
enum err settings_catalog(const struct config *c, struct catalog **out, char *problem, size_t problem_size);
#endif
