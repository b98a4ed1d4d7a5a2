/* openai.h - what the files of OpenAI's page share: kinds of calls, and edits' and variations' files. */
#ifndef SANDBOX_OPENAI_H
#define SANDBOX_OPENAI_H
#include "sandbox.h"

enum openai_kind { OPENAI_GENERATE = 1, OPENAI_EDIT = 2, OPENAI_EDIT_JSON = 4, OPENAI_VARY = 8 };
enum openai_family { GPT, DALLE2, DALLE3 };

/* The pictures that came along, as far as anybody asks afterwards. */
struct openai_files {
    int count;     /* without the mask */
    uint64_t seed; /* of the first one's bytes: another picture gives another answer */
};

void openai_error(struct exchange *ex, int status, const char *type, const char *param, const char *code,
                  const char *fmt, ...) __attribute__((format(printf, 6, 7)));
bool openai_bad(struct exchange *ex, const char *param, const char *code, const char *message); /* 400; false */

/* openai_form.c. The body as JSON (a form's texts; files left out); NULL: answered. */
json_t *openai_read_form(struct exchange *ex);
/* Files of a form, or `images` and `mask` of a JSON body; false: answered. */
bool openai_form_files(struct exchange *ex, enum openai_family family, struct openai_files *out);
bool openai_json_files(struct exchange *ex, const json_t *body, struct openai_files *out);
#endif
