/* leonardo.h - what leonardo.c (generations) and leonardo_images.c (uploads, variations) share. */
#ifndef SANDBOX_LEONARDO_H
#define SANDBOX_LEONARDO_H
#include "sandbox.h"

void leonardo_error(struct exchange *ex, int status, const char *path, const char *code, const char *text);
bool leonardo_unexpected(struct exchange *ex, const char *text); /* 400; always false */
void leonardo_refuse(struct exchange *ex, int status, const char *code);
bool leonardo_admit(struct exchange *ex, enum key_mood mood, const char *key); /* false: answered */
bool leonardo_has_room(struct exchange *ex, enum key_mood mood);               /* tokens and rate; false: answered */

void leonardo_init_image(struct exchange *ex, enum key_mood mood, const char *key);
void leonardo_vary(struct exchange *ex, const char *kind, enum key_mood mood, const char *key);
void leonardo_variation(struct exchange *ex, const char *id, enum key_mood mood, const char *key);
/* Both NULL unless it is this account's: an image that was uploaded whole; a generation of which `id` is an image. */
const struct job *leonardo_uploaded(const struct exchange *ex, const char *id);
const struct job *leonardo_generated(const struct exchange *ex, const char *id, int *index);
#endif
