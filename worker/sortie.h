/* sortie.h - the active part of a flight: arena, parsed envelope, inputs, request, outputs. Made before a job is
 * prepared, submitted, polled or collected; while it waits it is gone, or rests with nothing but the envelope. */
#ifndef KILN_SORTIE_H
#define KILN_SORTIE_H
#include <stdatomic.h>
#include "worker/flight.h"

enum { SORTIE_INPUTS = 20, SORTIE_ARENA = 256 * 1024, STORE_PATH = 1024 };

struct collected { /* one output on its way to an artifact; written by the thread, read by the loop afterwards */
    struct output from;
    char temp[STORE_PATH]; /* its bytes on disk; "" not yet */
    int tries;
    char *body;             /* httpc's: what was downloaded, instead of a file */
    const char *data;       /* the bytes in memory, when no file has to be looked at; not owned */
    bool is_ready;          /* whole and verified, in temp or data: may be stowed */
    bool is_placed;         /* under its object's name, perhaps not durable yet; temp still says where it was */
    bool is_done, is_again; /* stored; or worth another try */
    enum err code;          /* ERR_OK: a good artifact */
    char reason[200];
    struct media_head head;
    struct media_look look;
    int64_t bytes;
    char sha256[SHA256_HEX], id[UUID_TEXT], object[STORE_NAME];
};

struct sortie {
    struct arena *arena;
    struct job_envelope envelope;
    bool is_parsed, has_leg;     /* has_leg: a routed job, and the envelope shows the leg of f->lane */
    bool is_resting;             /* counted in env->resting */
    struct job_input *inputs;    /* SORTIE_INPUTS each, in the arena, when there are any */
    char **input_temps;          /* files of ours to be removed; NULL: an object of the store */
    struct catalog_file *judged; /* the same files as the catalogue's rules see them */
    size_t input_count;
    json_t *kept;             /* of prepare.c; NULL: no step was answered */
    unsigned steps, stumbles; /* prepare.c: answers so far; tries of the present one that failed */
    bool is_waiting;          /* prepare.c: for its timer */
    struct job_spec spec;
    char *body;      /* malloc'd JSON of the request under way */
    json_t *request; /* what the parts borrow from */
    struct httpc_part *parts;
    /* the answer being read */
    struct http_answer in;
    size_t held;   /* bytes that env->held_bytes has for it */
    char *in_data; /* malloc'd copy of the body */
    char *in_body; /* httpc's, instead of a copy or a file */
    json_t *in_json;
    char in_sha256[SHA256_HEX];
    char *fetch_temp;              /* an input on its way; inputs.c */
    struct httpc_call *fetch_call; /* inputs.c's or prepare.c's */
    char *in_temp;                 /* malloc'd: where a body that is a file went; NULL: it is none */
    struct answer answer;
    bool is_poll;
    uv_work_t work;
    atomic_bool has_begun;  /* the thread: collecting got its turn */
    int64_t work_queued_ms; /* when it was asked for one */
    struct flight *flight;
    struct sortie *stow_next; /* stow.c: in the group that gathers, or in one at work */
    /* outputs */
    struct collected *outputs;
    size_t output_count, next, downloading; /* next: how often collecting was tried */
    int64_t collect_until_ms;
};

struct sortie *sortie_of(struct flight *f);               /* made and the envelope parsed; NULL: cannot */
void sortie_weigh(struct sortie *s);                      /* after body or answer changed: how much memory they take */
void sortie_drop_bodies(struct sortie *s);                /* answers in memory go back to httpc */
bool sortie_set_temp(struct sortie *s, const char *path); /* in_temp; false: no memory */
void sortie_free(struct flight *f);                       /* NULL is fine; removes its temp files */
/* Until the next poll: keeps what the envelope says, for so many jobs that 100,000 waiting ones hardly notice (1,407
 * bytes each instead of 1,233); frees it otherwise, and where more than an ordinary order hangs on it. */
void sortie_rest(struct flight *f);

void inputs_fetch(struct flight *f);  /* inputs.c: ends in prepare_start, in flight_prepared with a doom, or in
                                         flight_put_off */
void inputs_cancel(struct flight *f); /* a download or a free step under way ends now */
void prepare_start(
    struct flight *f); /* prepare.c: ends in flight_prepared, perhaps with a doom, or in flight_put_off */
void prepare_with_key(struct flight *f); /* keys.c goes on with it when the key is known */
void collect_marked(struct flight *f);   /* collect.c: Redis knows now that it is being collected */
void collect_start(struct flight *f);    /* collect.c: ends in EV_STORED, EV_AGAIN or EV_FAILED */
void collect_stowed(struct flight *f);   /* collect.c: stow.c is through with its outputs */
void stow_add(struct flight *f); /* stow.c: outputs that are ready become objects; held meanwhile by the caller */
#endif
