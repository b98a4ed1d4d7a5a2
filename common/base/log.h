/* log.h - one line of key=value an event, on standard error.
 *
 *   log_info("settled", log_str("job", id), log_int("ms", ms));
 *   -> time=2026-11-20T10:11:12.123Z level=info event=settled job=0193… ms=12
 *
 * Values that are not plain words are quoted and escaped (C0, C1, ESC, DEL, bidi controls, quotes), so that a
 * provider's text can forge nothing. Never hand it a key, a token, a prompt or a signed URL. Lines longer than 4 KiB
 * are cut. */
#ifndef KILN_LOG_H
#define KILN_LOG_H
#include <stddef.h>
#include <stdint.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

struct log_field {
    const char *key;
    const char *str; /* NULL: the number */
    int64_t num;
};

static inline struct log_field log_str(const char *key, const char *value)
{
    return (struct log_field){ key, value ? value : "", 0 };
}

static inline struct log_field log_int(const char *key, int64_t value)
{
    return (struct log_field){ key, NULL, value };
}

void log_set_level(enum log_level level); /* default LOG_INFO */
void log_event(enum log_level level, const char *event, const struct log_field *fields, size_t count);
/* Formats into `out` (always NUL-terminated, cut at `size`); what log_event writes, without the time. For tests. */
size_t log_format(char *out, size_t size, enum log_level level, const char *event, const struct log_field *fields,
                  size_t count);

#define LOG_AT(level, event, ...)                                                                                      \
    log_event(level, event, (const struct log_field[]){ __VA_ARGS__ },                                                 \
              sizeof((const struct log_field[]){ __VA_ARGS__ }) / sizeof(struct log_field))
#define log_debug(event, ...) LOG_AT(LOG_DEBUG, event, __VA_ARGS__)
#define log_info(event, ...)  LOG_AT(LOG_INFO, event, __VA_ARGS__)
#define log_warn(event, ...)  LOG_AT(LOG_WARN, event, __VA_ARGS__)
#define log_error(event, ...) LOG_AT(LOG_ERROR, event, __VA_ARGS__)
#endif
