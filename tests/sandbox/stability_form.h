/* stability_form.h - which Stability calls there are, what their forms may hold, what they cost; and the check that
 * lists every problem of a form at once. */
#ifndef SANDBOX_STABILITY_FORM_H
#define SANDBOX_STABILITY_FORM_H
#include "multipart.h"
#include "sandbox.h"

struct field;

enum call_media { OUT_PICTURE, OUT_SOUND, OUT_GLB };

struct call {
    const char *path;
    const struct field *fields;
    const char *subject;  /* the file whose size the result has; NULL: by aspect_ratio */
    int price_millicents; /* a credit is a cent; sd3 and audio 2 by their fields */
    enum config_key delay;
    enum call_media media;
    bool is_async, is_upscale;
    int accepted;         /* asynchronous: 200, audio 202 */
    int longest_s;        /* sounds */
    double output_pixels; /* in megapixels; 0: the subject's own */
};

const struct call *stability_call(const char *path); /* NULL: no such endpoint */
void stability_check(const struct call *call, const struct form *form, bool is_strict, json_t *errors);
int stability_price(const struct call *call, const struct form *form); /* millicents */
int64_t stability_output_pixels(const struct call *call);              /* an upscale may not grow beyond */

/* stability_media.c: real sounds and models, small and the same for the same seed */
struct blob *media_sound(bool is_wav, double seconds, uint64_t seed);
struct blob *media_glb(uint64_t seed);
double media_seconds(const unsigned char *data, size_t len); /* of a wav or mp3; below 0: neither */

/* stability_v1.c: the legacy calls; false: not one of them */
bool stability_v1(struct exchange *ex, const char *path, enum key_mood mood);
/* stability.c, for it */
bool stability_limited(struct exchange *ex); /* true: answered with 429 */
int64_t stability_balance(const struct exchange *ex, enum key_mood mood);

void problem(json_t *errors, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool part_number(const struct part *p, double *out);
bool part_is(const struct part *p, const char *word);
#endif
