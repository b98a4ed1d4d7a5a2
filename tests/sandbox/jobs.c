/* jobs.c - table of accepted work by id, oldest first out (see jobs.h). */
#include "jobs.h"
#include "map.h"
#include "text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct jobs {
    struct map *by_id;
    struct map *inputs; /* hash of the bytes -> the newest input blob with them, held by the map */
    struct job *oldest, *newest;
};

static void jobs_blob_free(void *p)
{
    blob_drop(p);
}

struct jobs *jobs_new(void)
{
    struct jobs *j = text_alloc(sizeof *j);
    j->by_id = map_new();
    j->inputs = map_new();
    return j;
}

void jobs_reset(struct jobs *j)
{
    while (j->oldest != NULL)
        jobs_drop(j, j->oldest);
    map_clear(j->inputs, jobs_blob_free);
}

void jobs_free(struct jobs *j)
{
    if (j == NULL)
        return;
    jobs_reset(j);
    map_free(j->by_id, NULL);
    map_free(j->inputs, NULL);
    free(j);
}

struct job *jobs_add(struct jobs *j, const struct job *job, size_t max)
{
    while (map_count(j->by_id) >= max && j->oldest != NULL)
        jobs_drop(j, j->oldest);
    struct job *own = text_alloc(sizeof *own);
    *own = *job;
    own->newer = NULL;
    own->older = j->newest;
    if (j->newest != NULL)
        j->newest->newer = own;
    else
        j->oldest = own;
    j->newest = own;
    map_put(j->by_id, own->id, own);
    return own;
}

struct job *jobs_find(const struct jobs *j, const char *id)
{
    return map_get(j->by_id, id);
}

struct job *jobs_newest(const struct jobs *j)
{
    return j->newest;
}

void jobs_drop(struct jobs *j, struct job *job)
{
    (void)map_take(j->by_id, job->id); /* it is the job itself */
    if (job->older != NULL)
        job->older->newer = job->newer;
    else
        j->oldest = job->newer;
    if (job->newer != NULL)
        job->newer->older = job->older;
    else
        j->newest = job->older;
    blob_drop(job->input);
    free(job->prompt);
    free(job->facts);
    free(job);
}

size_t jobs_count(const struct jobs *j)
{
    return map_count(j->by_id);
}

struct blob *jobs_share_input(struct jobs *j, struct blob *input)
{
    char name[40];
    (void)snprintf(name, sizeof name, "%016llx-%zu", (unsigned long long)text_hash(input->data, input->len),
                   input->len);
    struct blob *same = map_get(j->inputs, name);
    if (same != NULL) {
        blob_drop(input);
        return blob_hold(same);
    }
    if (map_count(j->inputs) >= 256) /* jobs keep their own references: forgetting only costs sharing */
        map_clear(j->inputs, jobs_blob_free);
    map_put(j->inputs, name, blob_hold(input));
    return input;
}

struct picture_spec job_picture(const struct job *job, int index)
{
    return (struct picture_spec){
        .kind = job->kind,
        .prompt = faults_plain_prompt(job->prompt),
        .seed = job->seed + (uint64_t)index,
        .width = job->width,
        .height = job->height,
        .format = job->format,
        .quality = 90,
        .flaws = job->shaped,
        .input = blob_hold(job->input),
    };
}
