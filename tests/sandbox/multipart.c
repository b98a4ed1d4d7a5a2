/* multipart.c - reads multipart/form-data (see multipart.h). RFC 7578 as clients really send it: CRLF everywhere, a
 * quoted or bare boundary, Content-Disposition with name and perhaps filename. */
#include "multipart.h"
#include "text.h"

#include <stdio.h>
#include <string.h>

static bool multipart_boundary(const char *type, char out[80])
{
    const char *p;
    if (type == NULL || text_casecmp_n(type, "multipart/form-data", 19) != 0)
        return false;
    for (p = strchr(type, ';'); p != NULL; p = strchr(p, ';')) {
        p++;
        p += strspn(p, " \t");
        if (text_casecmp_n(p, "boundary=", 9) == 0)
            break;
    }
    if (p == NULL)
        return false;
    p += 9;
    size_t len = *p == '"' ? strcspn(++p, "\"") : strcspn(p, "; \t");
    if (len == 0 || len > 70)
        return false;
    out[0] = out[1] = '-';
    memcpy(out + 2, p, len);
    out[len + 2] = '\0';
    return true;
}

static const char *find(const char *from, const char *end, const char *what, size_t len)
{
    for (const char *p = from; (size_t)(end - p) >= len; p++) {
        p = memchr(p, what[0], (size_t)(end - p) - len + 1);
        if (p == NULL)
            return NULL;
        if (memcmp(p, what, len) == 0)
            return p;
    }
    return NULL;
}

/* name="value" in a header line; false when absent. */
static bool disposition_word(const char *line, const char *word, char *out, size_t cap)
{
    char lead[24];
    (void)snprintf(lead, sizeof lead, "; %s=\"", word);
    const char *p = strstr(line, lead);
    if (p == NULL)
        return false;
    p += strlen(lead);
    size_t len = strcspn(p, "\"");
    if (p[len] != '"' || len >= cap)
        return false;
    memcpy(out, p, len);
    out[len] = '\0';
    return true;
}

static bool part_headers(struct part *part, const char *from, const char *end)
{
    bool named = false;
    while (from < end) {
        char line[512], filename[256];
        const char *eol = find(from, end, "\r\n", 2);
        size_t len = (size_t)((eol == NULL ? end : eol) - from);
        if (len >= sizeof line)
            return false;
        memcpy(line, from, len);
        line[len] = '\0';
        if (text_casecmp_n(line, "content-disposition: form-data", 30) == 0) {
            named = disposition_word(line, "name", part->name, sizeof part->name);
            part->is_file = disposition_word(line, "filename", filename, sizeof filename);
        } else if (text_casecmp_n(line, "content-type:", 13) == 0) {
            (void)snprintf(part->type, sizeof part->type, "%s", line + 13 + strspn(line + 13, " "));
        }
        from = eol == NULL ? end : eol + 2;
    }
    return named;
}

bool multipart_parse(const char *content_type, const void *body, size_t len, struct form *out, const char **why)
{
    char mark[80];
    const char *p = body, *end = p + len;

    *out = (struct form){ 0 };
    *why = "content-type: must be multipart/form-data with a boundary";
    if (!multipart_boundary(content_type, mark))
        return false;
    size_t mark_len = strlen(mark);
    *why = "body: malformed multipart/form-data";
    if (len < mark_len || memcmp(p, mark, mark_len) != 0)
        return false;
    p += mark_len;
    for (;;) {
        if (end - p >= 2 && memcmp(p, "--", 2) == 0)
            return true; /* an epilogue is nobody's business */
        if (end - p < 2 || memcmp(p, "\r\n", 2) != 0 || out->count == PARTS_MAX)
            return false;
        p += 2;
        const char *head_end = find(p, end, "\r\n\r\n", 4);
        if (head_end == NULL || !part_headers(&out->parts[out->count], p, head_end))
            return false;
        p = head_end + 4;
        const char *next = p - 2; /* an empty part ends right at its head */
        do {
            next = find(next, end, "\r\n--", 4);
            if (next == NULL)
                return false;
            next += 2;
        } while ((size_t)(end - next) < mark_len || memcmp(next, mark, mark_len) != 0);
        out->parts[out->count].data = (const unsigned char *)p;
        out->parts[out->count].len = next - 2 < p ? 0 : (size_t)(next - 2 - p);
        out->count++;
        p = next + mark_len;
    }
}

const struct part *form_find(const struct form *f, const char *name)
{
    for (size_t i = 0; i < f->count; i++)
        if (strcmp(f->parts[i].name, name) == 0)
            return &f->parts[i];
    return NULL;
}
