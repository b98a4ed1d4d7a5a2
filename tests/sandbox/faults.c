/* faults.c - reads magic words and admin rules, decides what holds for a request (see faults.h). */
#include "faults.h"
#include "map.h"
#include "text.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RULES_MAX  1000
#define COUNTS_MAX 1000000

const char *const phase_name[] = { "submit", "poll", "download", "cancel", "other" };

static const char *const word_name[FW_COUNT] = {
#define X(member, name) name,
    FAULT_WORDS(X)
#undef X
};

struct group {
    struct fault fault;
    enum phase at;
    int64_t times; /* 0 = always */
};

struct rule {
    struct group group;
    char *provider, *path, *prompt; /* NULL matches everything */
    int64_t hits;
};

struct faults {
    struct map *counts; /* tag and group text -> uint64_t, how often it held */
    struct rule rules[RULES_MAX];
    size_t rule_count;
};

struct faults *faults_new(void)
{
    struct faults *f = text_alloc(sizeof *f);
    f->counts = map_new();
    return f;
}

void faults_end_rules(struct faults *f)
{
    for (size_t i = 0; i < f->rule_count; i++) {
        free(f->rules[i].provider);
        free(f->rules[i].path);
        free(f->rules[i].prompt);
    }
    f->rule_count = 0;
}

void faults_reset(struct faults *f)
{
    faults_end_rules(f);
    map_clear(f->counts, free);
}

void faults_free(struct faults *f)
{
    if (f == NULL)
        return;
    faults_reset(f);
    map_free(f->counts, NULL);
    free(f);
}

static bool group_phase(struct group *g, const char *name)
{
    for (int i = PHASE_SUBMIT; i <= PHASE_OTHER; i++) {
        if (strcmp(phase_name[i], name) == 0) {
            g->at = (enum phase)i;
            return true;
        }
    }
    return false;
}

static void group_word(struct group *g, enum fault_word w, int64_t value, bool has_value)
{
    struct fault *f = &g->fault;
    switch (w) {
    case FW_POLL_STATUS: /* the status of another phase, in one word */
        g->at = PHASE_POLL;
        w = FW_STATUS;
        break;
    case FW_DOWNLOAD_STATUS:
        g->at = PHASE_DOWNLOAD;
        w = FW_STATUS;
        break;
    case FW_UNKNOWN_STATUS: /* unknown_status=3: three times, then the truth */
        g->at = PHASE_POLL;
        g->times = has_value ? value : 1;
        break;
    default:
        break;
    }
    f->set |= 1ULL << w;
    f->v[w] = has_value ? value : 1;
}

/* One "name" or "name=value"; false when nobody knows it. */
static bool group_item(struct group *g, const char *name, const char *value)
{
    int64_t number = 0;
    bool has_number = false;

    if (value != NULL) {
        char *end;
        errno = 0;
        number = strtoll(value, &end, 10);
        has_number = errno == 0 && end != value && *end == '\0';
    }
    if (strcmp(name, "at") == 0)
        return value != NULL && group_phase(g, value);
    if (strcmp(name, "code") == 0) {
        (void)snprintf(g->fault.code, sizeof g->fault.code, "%s", value == NULL ? "" : value);
        return true;
    }
    if (value != NULL && !has_number)
        return false;
    if (strcmp(name, "times") == 0) {
        g->times = number;
        return has_number && number > 0;
    }
    for (int w = 0; w < FW_COUNT; w++) {
        if (strcmp(word_name[w], name) == 0) {
            group_word(g, (enum fault_word)w, number, has_number);
            return true;
        }
    }
    return false;
}

static bool group_parse(struct group *g, const char *text, size_t len, char *why, size_t why_cap)
{
    char copy[512];
    bool fine = len < sizeof copy;

    *g = (struct group){ .at = PHASE_SUBMIT };
    if (fine) {
        memcpy(copy, text, len);
        copy[len] = '\0';
    }
    for (char *item = copy, *next; fine && item != NULL; item = next) {
        next = strchr(item, ',');
        if (next != NULL)
            *next++ = '\0';
        char *value = strchr(item, '=');
        if (value != NULL)
            *value++ = '\0';
        item += strspn(item, " ");
        fine = group_item(g, item, value);
    }
    if (!fine)
        (void)snprintf(why, why_cap, "no such fault: %.*s", (int)(len > 200 ? 200 : len), text);
    return fine;
}

/* Finds the next "[[word:...]]"; returns its inside, and the first byte after it in *after. */
static const char *magic_next(const char *from, const char *word, size_t *len, const char **after)
{
    size_t word_len = strlen(word);
    for (const char *p = from; (p = strstr(p, "[[")) != NULL; p += 2) {
        if (strncmp(p + 2, word, word_len) != 0)
            continue;
        const char *inside = p + 2 + word_len;
        const char *end = strstr(inside, "]]");
        if (end == NULL)
            return NULL;
        *len = (size_t)(end - inside);
        *after = end + 2;
        return inside;
    }
    return NULL;
}

bool faults_tag(const char *prompt, char tag[TAG_MAX + 1])
{
    size_t len;
    const char *after;
    const char *inside = prompt == NULL ? NULL : magic_next(prompt, "job:", &len, &after);
    if (inside == NULL || len == 0 || len > TAG_MAX)
        return false;
    memcpy(tag, inside, len);
    tag[len] = '\0';
    return true;
}

char *faults_plain_prompt(const char *prompt)
{
    struct buf out = { 0 };
    const char *p = prompt;
    buf_str(&out, "");
    while (*p != '\0') {
        const char *open = strstr(p, "[[");
        const char *close = open == NULL ? NULL : strstr(open, "]]");
        if (close == NULL) {
            buf_str(&out, p);
            break;
        }
        buf_add(&out, p, (size_t)(open - p));
        p = close + 2;
    }
    while (out.len > 0 && out.data[out.len - 1] == ' ')
        out.data[--out.len] = '\0';
    return out.data;
}

static void fault_lay_over(struct fault *out, const struct fault *f)
{
    for (int w = 0; w < FW_COUNT; w++)
        if (fault_has(f, (enum fault_word)w))
            out->v[w] = f->v[w];
    out->set |= f->set;
    if (f->code[0] != '\0')
        memcpy(out->code, f->code, sizeof out->code);
}

/* Is this the N-th time, with N beyond the group's limit? Counts it when it holds. */
static bool faults_use(struct faults *f, const struct fault_scene *scene, const char *text, size_t len, int64_t times)
{
    if (times == 0)
        return true;
    struct buf key = { 0 };
    buf_str(&key, scene->tag != NULL ? scene->tag : scene->prompt);
    buf_str(&key, "\n");
    buf_add(&key, text, len);
    uint64_t *count = map_get(f->counts, key.data);
    if (count == NULL) {
        if (map_count(f->counts) >= COUNTS_MAX)
            map_clear(f->counts, free);
        count = text_alloc(sizeof *count);
        map_put(f->counts, key.data, count);
    }
    buf_done(&key);
    if (*count >= (uint64_t)times)
        return false;
    ++*count;
    return true;
}

static bool rule_matches(const struct rule *r, const struct fault_scene *scene)
{
    if (r->group.at != scene->phase || (r->group.times > 0 && r->hits >= r->group.times))
        return false;
    if (r->provider != NULL && strcmp(r->provider, scene->provider) != 0)
        return false;
    if (r->path != NULL && strstr(scene->path, r->path) == NULL)
        return false;
    if (r->prompt != NULL && (scene->prompt == NULL || strstr(scene->prompt, r->prompt) == NULL))
        return false;
    return scene->reused || !fault_has(&r->group.fault, FW_REUSE_CLOSE);
}

/* What only holds before the handler knows the prompt. */
static bool rule_is_early(const struct rule *r)
{
    return r->prompt == NULL && fault_has(&r->group.fault, FW_DROP_LINE);
}

bool faults_pick(struct faults *f, const struct fault_scene *scene, struct fault *out, char *why, size_t why_cap)
{
    size_t len;
    const char *p = scene->prompt;

    *out = (struct fault){ 0 };
    for (size_t i = 0; i < f->rule_count; i++) {
        struct rule *r = &f->rules[i];
        if (!rule_is_early(r) && rule_matches(r, scene)) {
            r->hits++;
            fault_lay_over(out, &r->group.fault);
        }
    }
    for (const char *text; p != NULL && (text = magic_next(p, "fault:", &len, &p)) != NULL;) {
        struct group g;
        if (!group_parse(&g, text, len, why, why_cap))
            return false;
        if (g.at != scene->phase || (fault_has(&g.fault, FW_REUSE_CLOSE) && !scene->reused))
            continue;
        if (faults_use(f, scene, text, len, g.times))
            fault_lay_over(out, &g.fault);
    }
    return true;
}

bool faults_drop_early(struct faults *f, const struct fault_scene *scene, enum fault_word word)
{
    for (size_t i = 0; i < f->rule_count; i++) {
        struct rule *r = &f->rules[i];
        if (r->prompt == NULL && fault_has(&r->group.fault, word) && rule_matches(r, scene)) {
            r->hits++;
            return true;
        }
    }
    return false;
}

static bool rule_fault(struct group *g, const json_t *fault, char *why, size_t why_cap)
{
    const char *name;
    json_t *value;
    if (!json_is_object(fault)) {
        (void)snprintf(why, why_cap, "fault: must be an object");
        return false;
    }
    json_object_foreach((json_t *)fault, name, value)
    {
        char number[32];
        const char *text = NULL;
        if (json_is_false(value))
            continue;
        if (json_is_string(value)) {
            text = json_string_value(value);
        } else if (json_is_integer(value)) {
            (void)snprintf(number, sizeof number, "%lld", (long long)json_integer_value(value));
            text = number;
        } else if (!json_is_true(value)) {
            (void)snprintf(why, why_cap, "fault.%s: must be an integer, a string or true", name);
            return false;
        }
        if (!group_item(g, name, text)) {
            (void)snprintf(why, why_cap, "no such fault: %s", name);
            return false;
        }
    }
    return true;
}

bool faults_add_rule(struct faults *f, const json_t *rule, char *why, size_t why_cap)
{
    const char *provider = NULL, *path = NULL, *prompt = NULL;
    json_t *fault = NULL;
    json_int_t times = 0;
    json_error_t at;

    if (json_unpack_ex((json_t *)rule, &at, JSON_STRICT, "{s?{s?s,s?s,s?s !}, s:o, s?I}", "match", "provider",
                       &provider, "path_contains", &path, "prompt_contains", &prompt, "fault", &fault, "times",
                       &times) != 0) {
        (void)snprintf(why, why_cap, "%s", at.text);
        return false;
    }
    if (f->rule_count == RULES_MAX) {
        (void)snprintf(why, why_cap, "too many rules");
        return false;
    }
    struct rule r = { .group = { .at = PHASE_SUBMIT } };
    if (!rule_fault(&r.group, fault, why, why_cap))
        return false;
    if (times > 0)
        r.group.times = times;
    r.provider = text_dup(provider);
    r.path = text_dup(path);
    r.prompt = text_dup(prompt);
    f->rules[f->rule_count++] = r;
    return true;
}

json_t *faults_json(const struct faults *f)
{
    json_t *list = json_array();
    for (size_t i = 0; i < f->rule_count; i++) {
        const struct rule *r = &f->rules[i];
        json_t *fault = json_object();
        for (int w = 0; w < FW_COUNT; w++)
            if (fault_has(&r->group.fault, (enum fault_word)w))
                (void)json_object_set_new(fault, word_name[w], json_integer(r->group.fault.v[w])); /* a report only */
        json_t *one = json_pack("{s:{s:s?,s:s?,s:s?},s:s,s:o,s:I,s:I}", "match", "provider", r->provider,
                                "path_contains", r->path, "prompt_contains", r->prompt, "at", phase_name[r->group.at],
                                "fault", fault, "times", (json_int_t)r->group.times, "hits", (json_int_t)r->hits);
        (void)json_array_append_new(list, one); /* a report only */
    }
    return list;
}
