/* sortie.c - makes and unmakes the active part of a flight. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "worker/sortie.h"

enum { RESTING_MAX = 8192, RESTING_BYTES = 8 * 1024, RESTING_TEXT = 4 * 1024 };

static void sortie_unlink(const char *path)
{
    if (path && path[0])
        (void)unlink(path); /* ours and perhaps renamed into the store already */
}

struct sortie *sortie_of(struct flight *f)
{
    struct sortie *s = f->sortie;

    if (!s) {
        s = calloc(1, sizeof(*s));
        if (!s)
            return NULL;
        s->flight = f;
        s->arena = arena_new(SORTIE_ARENA);
        f->sortie = s;
    }
    if (s->is_resting)
        f->env->resting--;
    s->is_resting = false;
    if (!s->is_parsed && f->envelope && s->arena)
        s->is_parsed = job_envelope_parse(s->arena, f->envelope, &s->envelope);
    if (s->is_parsed && s->envelope.route && !s->has_leg)
        s->has_leg = job_envelope_leg(s->arena, &s->envelope, f->lane[0] ? f->lane : s->envelope.provider);
    if (!s->is_parsed)
        return NULL;
    s->spec = (struct job_spec){
        .job_id = f->job.id,
        .op = f->op,
        .params = s->envelope.params,
        .units = f->units,
        .inputs = s->inputs,
        .input_count = s->input_count,
        .kept = s->kept,
        .blanks = f->blanks,
    };
    return s;
}

/* A JSON answer is there twice: as it came, and parsed. */
void sortie_weigh(struct sortie *s)
{
    struct flight_env *env = s->flight->env;

    env->held_bytes -= s->held;
    s->held = (s->body ? strlen(s->body) : 0) + (s->in_data ? 2 * s->in.len : s->in_body ? s->in.len : 0);
    env->held_bytes += s->held;
}

void sortie_drop_bodies(struct sortie *s)
{
    struct httpc *h = s->flight->env->httpc;

    for (size_t i = 0; i < s->output_count; i++) {
        httpc_give_body(h, s->outputs[i].body);
        s->outputs[i].body = NULL;
        s->outputs[i].data = NULL;
    }
    if (s->in_body) {
        httpc_give_body(h, s->in_body);
        s->in_body = NULL;
        s->in.data = NULL;
    }
}

bool sortie_set_temp(struct sortie *s, const char *path)
{
    free(s->in_temp);
    s->in_temp = path ? strdup(path) : NULL;
    return s->in_temp || !path;
}

/* Lets go of all that is not its job's envelope. */
static void sortie_clear(struct flight *f, struct sortie *s)
{
    f->env->held_bytes -= s->held;
    for (size_t i = 0; i < s->input_count; i++) {
        sortie_unlink(s->input_temps[i]);
        free(s->input_temps[i]);
        free((char *)s->inputs[i].text); /* inputs.c made it */
    }
    for (size_t i = 0; i < s->output_count; i++)
        sortie_unlink(s->outputs[i].temp);
    sortie_unlink(s->fetch_temp);
    free(s->fetch_temp);
    sortie_unlink(s->in_temp);
    free(s->in_temp);
    sortie_drop_bodies(s);
    free(s->outputs);
    free(s->body);
    json_decref(s->request);
    json_decref(s->kept);
    free(s->in_data);
    json_decref(s->in_json);
}

void sortie_free(struct flight *f)
{
    struct sortie *s = f->sortie;

    if (!s)
        return;
    f->sortie = NULL;
    if (s->is_resting)
        f->env->resting--;
    sortie_clear(f, s);
    if (s->is_parsed)
        job_envelope_done(&s->envelope);
    arena_free(s->arena);
    free(s);
}

void sortie_rest(struct flight *f)
{
    struct sortie *s = f->sortie;

    if (!s || !s->is_parsed || s->input_count || s->kept || arena_used(s->arena) > RESTING_BYTES ||
        strlen(f->envelope) > RESTING_TEXT || (!s->is_resting && f->env->resting >= RESTING_MAX)) {
        sortie_free(f);
        return;
    }
    f->env->resting += !s->is_resting;
    sortie_clear(f, s);
    *s = (struct sortie){
        .flight = f,
        .arena = s->arena,
        .envelope = s->envelope,
        .is_parsed = true,
        .has_leg = s->has_leg,
        .is_resting = true,
    };
}
