/* all.c - every adapter, by the name that the catalogue gives its provider. */
#include <string.h>

#include "common/base/text.h"
#include "worker/provider.h"

#define ADAPTERS(X)                                                                                                    \
    X(a1111)                                                                                                           \
    X(comfyui)                                                                                                         \
    X(generic)                                                                                                         \
    X(google)                                                                                                          \
    X(huggingface)                                                                                                     \
    X(leonardo)                                                                                                        \
    X(openai)                                                                                                          \
    X(replicate)                                                                                                       \
    X(runpod)                                                                                                          \
    X(stability)                                                                                                       \
    X(ttapi)                                                                                                           \
    X(volcengine)

#define X(name) extern const struct provider provider_##name;
ADAPTERS(X)
#undef X

const struct provider *provider_find(const char *name)
{
#define X(name) &provider_##name,
    static const struct provider *const all[] = { ADAPTERS(X) };
#undef X

    for (size_t i = 0; name != NULL && i < ARRAY_LEN(all); i++) {
        if (strcmp(all[i]->name, name) == 0)
            return all[i];
    }
    return NULL;
}
