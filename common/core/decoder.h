/* decoder.h - media_check in a process of its own: what crashes, spins or swells there takes nothing with it.
 *
 * The libraries that decode images read bytes of strangers, so they run in helpers: this program started again with
 * DECODER_ARG, which has no environment, no files but the one handed over (by descriptor: no byte is copied), no
 * network, no new processes, and ceilings of memory and CPU time. A helper takes one file after the other; one that
 * died is replaced. Who asks waits, so ask from a thread of the pool. A file over which a helper dies twice, or that
 * takes too long, is ERR_BAD_RESULT; it costs its own time and nothing else. */
#ifndef KILN_DECODER_H
#define KILN_DECODER_H
#include <stddef.h>
#include <stdint.h>
#include "common/core/media.h"

#define DECODER_ARG "--decode"

struct decoder;

struct decoder_config {
    const char *program; /* NULL: this one (/proc/self/exe); its main hands DECODER_ARG to decoder_child */
    size_t helpers;      /* at once; 0: 4. They start when they are needed */
    int64_t limit_ms;    /* of one file, by the clock; 0: 30,000 */
    int64_t cpu_s;       /* of one file, of CPU time; 0: 10 */
    int64_t
        memory_bytes; /* address space of a helper; 0: 1 GiB. Not in builds with ASan or TSan, which need terabytes */
};

struct decoder_stats {
    uint64_t checks, deaths, timeouts;
};

struct decoder *decoder_new(const struct decoder_config *config); /* NULL: out of memory */
void decoder_free(struct decoder *d);                             /* ends the helpers; nobody may be waiting */
/* As media_check (media.h). Any thread. ERR_NOMEM: no helper could be started now. */
enum err decoder_check(struct decoder *d, const char *path, int64_t max_pixels, struct media_head *out,
                       struct media_look *look, char *reason, size_t reason_size);
struct decoder_stats decoder_stats(struct decoder *d);

int decoder_child(void); /* what main returns when its first argument is DECODER_ARG */

/* What travels between the two, as one packet each; the file's descriptor travels with the question. */
struct decoder_question {
    int64_t max_pixels, cpu_s, memory_bytes;
    int64_t deaths; /* of helpers over this file, up to now */
};
struct decoder_answer {
    int32_t err, kind, has_alpha;
    int64_t width, height, bytes_per_s, sound_at;
    char reason[160], blurhash[MEDIA_BLURHASH_TEXT], color[8];
};
enum { DECODER_FD = 3 };
#endif
