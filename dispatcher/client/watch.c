/* watch.c - long polls with a spinner. The dispatcher answers at once when the job ends; phases have no version to wait
 * for, so the polls are short at first and longer later. */
#include "dispatcher/client/watch.h"
#include <stdio.h>
#include <string.h>
#include "common/base/clock.h"
#include "common/base/json.h"
#include "common/core/job.h"
#include "dispatcher/client/api.h"
#include "dispatcher/client/show.h"

enum { PATIENCE_MS = 120000, REMIND_MS = 30000, SEEN_BYTES = 256 };

struct watch {
    FILE *to; /* NULL: nobody looks */
    bool is_live, is_drawn;
    int64_t began_ms, said_ms;
    unsigned frame;
    char now[96];          /* "running: waiting" */
    char state[16];        /* of the last answer */
    char seen[SEEN_BYTES]; /* ",waiting,polling,": what a pipe was told since the state last changed */
};

static char *watch_elapsed(const struct watch *w, char *out, size_t size)
{
    int64_t ms = clock_mono_ms() - w->began_ms;

    if (ms < 120000)
        (void)snprintf(out, size, "%lld s", (long long)ms / 1000);
    else
        (void)snprintf(out, size, "%lld min %lld s", (long long)ms / 60000, (long long)ms / 1000 % 60);
    return out;
}

static void watch_on_tick(void *ctx)
{
    static const char *const fine[] = { "⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏" };
    static const char *const plain[] = { "|", "/", "-", "\\" };
    struct watch *w = ctx;
    char time[32];
    const char *mark;

    if (!w->is_live)
        return;
    mark = show_is_utf8() ? fine[w->frame % ARRAY_LEN(fine)] : plain[w->frame % ARRAY_LEN(plain)];
    w->frame++;
    (void)fprintf(w->to, "\r%s%s%s %s  %s\x1b[K", show_style(w->to, STYLE_DIM), mark, show_style(w->to, STYLE_PLAIN),
                  w->now, watch_elapsed(w, time, sizeof time));
    (void)fflush(w->to);
    w->is_drawn = true;
}

static void watch_clear(struct watch *w)
{
    if (w->is_drawn)
        (void)fputs("\r\x1b[K", w->to);
    if (w->to)
        (void)fflush(w->to);
    w->is_drawn = false;
}

/* True the first time. */
static bool watch_is_news(struct watch *w, const char *word)
{
    char needle[80];

    (void)snprintf(needle, sizeof needle, ",%s,", word);
    if (strstr(w->seen, needle))
        return false;
    if (strlen(w->seen) + strlen(needle) < sizeof w->seen)
        (void)strncat(w->seen, needle, sizeof w->seen - strlen(w->seen) - 1);
    return true;
}

/* To a poller's eye `polling` and `waiting` are one. */
static const char *watch_phase(const json_t *job)
{
    const char *phase = json_text(json_object_get(job, "progress"), "phase");
    return phase && strcmp(phase, "polling") == 0 ? "waiting" : phase;
}

static void watch_look(struct watch *w, const json_t *job)
{
    const char *state = json_text(job, "state"), *phase = watch_phase(job);
    char word[64], time[32];
    struct buf text = { 0 };
    bool is_news;

    (void)snprintf(word, sizeof word, "%.15s%s%.40s", state ? state : "?", phase ? ": " : "", phase ? phase : "");
    if (strncmp(w->state, word, strlen(w->state)) != 0 || !w->state[0]) {
        w->seen[0] = '\0';
        (void)snprintf(w->state, sizeof w->state, "%.15s", state ? state : "?");
    }
    (void)show_clean(&text, word);
    (void)snprintf(w->now, sizeof w->now, "%.95s", text.data ? text.data : "");
    buf_done(&text);
    is_news = watch_is_news(w, word);
    if (!w->to || w->is_live || (!is_news && clock_mono_ms() - w->said_ms < REMIND_MS))
        return;
    w->said_ms = clock_mono_ms();
    (void)fprintf(w->to, "%s  %s\n", w->now, watch_elapsed(w, time, sizeof time));
    (void)fflush(w->to);
}

static int watch_interrupted(struct client *c, const char *id)
{
    show_note("left running: job %s", id);
    show_note("  kiln get %s --wait%s%s   follows it again", id, c->opts[OPT_OUT] ? " -o " : "",
              c->opts[OPT_OUT] ? c->opts[OPT_OUT] : "");
    show_note("  kiln cancel %s   ends it", id);
    return 128 + api_signal();
}

static int watch_wait_s(const struct watch *w)
{
    int64_t ms = clock_mono_ms() - w->began_ms;
    return !w->to ? 60 : ms < 20000 ? 1 : ms < 120000 ? 2 : 5;
}

int watch_job(struct client *c, const char *id, json_t **job)
{
    struct watch w = { .began_ms = clock_mono_ms(), .said_ms = clock_mono_ms() };
    struct api_call call = { .method = "GET", .patience_ms = PATIENCE_MS };
    struct api_reply r;
    char path[64];
    int status, wait_s = 0; /* first a look */

    (void)snprintf(path, sizeof path, "/v1/jobs/%.36s", id);
    call.path = path;
    if (!c->is_json) {
        w.to = stdout;
    } else if (show_is_terminal(stderr)) {
        w.to = stderr;
    }
    w.is_live = w.to && show_is_terminal(w.to);
    (void)snprintf(w.now, sizeof w.now, "asking");
    api_catch_signals();
    if (w.is_live)
        api_on_tick(c->api, watch_on_tick, &w);
    for (;;) {
        call.wait_s = wait_s;
        r = api_ask(c->api, &call);
        if (api_signal())
            r.err = ERR_CANCELED;
        if (r.err != ERR_OK || r.status != 200 || !r.json)
            break;
        if (job_state_is_final(json_text(r.json, "state")))
            break;
        watch_look(&w, r.json);
        api_reply_done(&r);
        wait_s = watch_wait_s(&w);
    }
    api_on_tick(c->api, NULL, NULL);
    watch_clear(&w);
    status = r.err == ERR_CANCELED ? watch_interrupted(c, id) : api_refused(c->api, &r, c->is_json);
    if (status == CLIENT_DONE) {
        *job = json_incref(r.json);
    } else if (status == CLIENT_UNREACHABLE) {
        show_note("  job %s goes on without us: kiln get %s --wait", id, id);
    }
    api_reply_done(&r);
    return status;
}
