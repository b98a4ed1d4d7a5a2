/* fuzz_media.c - any file as image, audio or model: the head alone, the first bytes alone, and the whole check with its
 * decoders, which gives what kiln would store. */
#include <string.h>
#include "common/core/media.h"
#include "tests/fuzz/fuzz.h"

enum { PIXELS_MAX = 1 << 16 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct media_head head = media_sniff(data, size), checked = { 0 };
    char reason[160] = "";
    enum err e;

    FUZZ_CLAIM(head.width >= 0 && head.height >= 0);
    FUZZ_CLAIM(media_is_image(head.kind) || (head.width == 0 && head.height == 0));
    FUZZ_CLAIM(head.kind == MEDIA_UNKNOWN || media_kind_of_mime(media_mime(head.kind)) == head.kind);
    (void)media_sniff(data, size / 2);
    e = media_check(fuzz_file("media", data, size), PIXELS_MAX, &checked, reason, sizeof reason);
    FUZZ_CLAIM(e == ERR_OK || e == ERR_BAD_RESPONSE || e == ERR_BAD_RESULT);
    if (e == ERR_OK)
        FUZZ_CLAIM(checked.kind != MEDIA_UNKNOWN && checked.kind == head.kind);
    else
        FUZZ_CLAIM(reason[0] != '\0');
    if (e == ERR_OK && media_is_image(checked.kind))
        FUZZ_CLAIM(checked.width > 0 && checked.height > 0);
    return 0;
}
