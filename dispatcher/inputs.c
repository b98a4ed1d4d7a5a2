/* inputs.c - the files that a job brings.
 *
 * A set has one item for each file value. All start together: ids in a gathered look-up, `data:` URIs on the thread
 * pool (decode, sniff, hash, write) followed by the row of their upload. When the last has reported, the set extends
 * the life of the uploads it names to the job's deadline, and answers. */
#include "dispatcher/inputs.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>
#include "common/base/log.h"
#include "dispatcher/dispatcher.h"
#include "dispatcher/problem.h"
#include "dispatcher/uploads.h"

enum { INPUTS_MAX = 32 };

struct inputs {
    struct dispatcher *d;
    struct db_gather *find, *keep, *undo;
};

struct inputs_item {
    struct inputs_set *set;
    const char *field; /* "image" */
    size_t index;      /* in a list; SIZE_MAX: the value itself */
    const char *value; /* as given; borrowed from params */
    json_t *found;     /* {object, mime, bytes, …} or {url} */
    char id[UUID_TEXT];
    struct catalog_file judged; /* field NULL: a URL, whose file the worker judges */
    struct upload_file file;    /* of a data: URI */
    uv_work_t work;
    bool is_made; /* an upload of this request: undone when the job is refused */
};

struct inputs_set {
    struct inputs *in;
    struct arena *arena;
    const struct operation *op;
    const char *app, *account;
    json_t *params;
    int64_t keep_s;
    inputs_fn *fn;
    void *ctx;
    struct inputs_item *items;
    size_t count, open, room;
    struct catalog_faults faults;
    enum err err;
};

/* Uploads that expire within the minute count as gone: a sweep may have named them already. */
static const struct db_call find_call = {
    .name = "inputs",
    .sql =
        "select u.ord::int as ord, x.* from unnest($1::uuid[], $2::uuid[]) with ordinality u(app, id, ord) "
        "left join lateral ("
        "  select true as is_upload, p.object, p.mime, p.bytes, p.width, p.height, p.sha256 from uploads p "
        "  where p.id = u.id and p.app_id = u.app and p.expires_at > kiln_now() + interval '1 minute' "
        "  union all "
        "  select false, a.object, a.mime, a.bytes, a.width, a.height, a.sha256 from artifacts a join jobs j on j.id = a.job_id "
        "  where a.id = u.id and j.app_id = u.app and j.state in ('succeeded', 'failed') "
        "  limit 1) x on true order by u.ord",
    .columns = 2,
    .patience_ms = 3000,
};

static const struct db_call keep_call = {
    .name = "inputs_keep",
    .sql = "with u as (select id, secs, ord from unnest($1::uuid[], $2::bigint[]) with ordinality u(id, secs, ord)), "
           "m as (select id, max(secs) as secs from u group by id), "
           "x as (update uploads p set expires_at = greatest(p.expires_at, kiln_now() + make_interval(secs => m.secs)) "
           "from m where p.id = m.id) select u.ord::int as ord from u order by u.ord",
    .columns = 2,
    .patience_ms = 3000,
};

static const struct db_call undo_call = {
    .name = "inputs_undo",
    .sql = "with u as (select id, ord from unnest($1::uuid[]) with ordinality u(id, ord)), "
           "x as (delete from uploads p using u where p.id = u.id) select u.ord::int as ord from u order by u.ord",
    .columns = 1,
    .patience_ms = 60000,
};

struct inputs *inputs_new(struct dispatcher *d)
{
    struct inputs *in = calloc(1, sizeof(*in));

    if (in == NULL)
        return NULL;
    in->d = d;
    in->find = db_gather_new(d->read, &find_call, NULL, 0);
    in->keep = db_gather_new(d->read, &keep_call, NULL, 0);
    in->undo = db_gather_new(d->read, &undo_call, NULL, 0);
    if (in->find == NULL || in->keep == NULL || in->undo == NULL) {
        inputs_free(in);
        return NULL;
    }
    return in;
}

void inputs_free(struct inputs *in)
{
    if (in == NULL)
        return;
    if (in->find != NULL)
        db_gather_free(in->find);
    if (in->keep != NULL)
        db_gather_free(in->keep);
    if (in->undo != NULL)
        db_gather_free(in->undo);
    free(in);
}

static void item_fault(struct inputs_item *it, const char *message)
{
    char field[96];

    if (it->index == SIZE_MAX)
        snprintf(field, sizeof(field), "params.%s", it->field);
    else
        snprintf(field, sizeof(field), "params.%s[%zu]", it->field, it->index);
    faults_add(&it->set->faults, field, "%s", message);
}

/* ---- the end ---- */

static json_t *set_inputs(struct inputs_set *set)
{
    json_t *inputs = json_object();

    for (size_t i = 0; i < set->count; i++) {
        json_t *list = json_object_get(inputs, set->items[i].field);

        if (list == NULL) {
            list = json_array();
            (void)json_object_set_new(inputs, set->items[i].field, list);
        }
        (void)json_array_append(list, set->items[i].found);
    }
    return inputs;
}

static void set_release(struct inputs_set *set)
{
    for (size_t i = 0; i < set->count; i++) {
        json_decref(set->items[i].found);
        set->items[i].found = NULL;
    }
}

static void set_answer(struct inputs_set *set)
{
    json_t *inputs = NULL;
    enum err e = set->err;

    if (e == ERR_OK && set->faults.count > 0)
        e = ERR_INVALID_REQUEST;
    if (e == ERR_OK && set->count > 0)
        inputs = set_inputs(set);
    set_release(set);
    if (e != ERR_OK)
        inputs_undo(set);
    set->fn(set->ctx, e, &set->faults, inputs);
}

static void keep_on_row(void *ctx, enum err err, const struct db_result *result, int row)
{
    struct inputs_set *set = ctx;

    (void)result;
    (void)row;
    if (err != ERR_OK)
        set->err = err;
    if (--set->open == 0)
        set_answer(set);
}

/* What can only be said with all files at hand: one file's size against another's, limits of a model. */
static void set_judge(struct inputs_set *set)
{
    struct catalog_file files[INPUTS_MAX];
    size_t count = 0;

    if (set->err != ERR_OK || set->faults.count > 0)
        return;
    for (size_t i = 0; i < set->count; i++)
        if (set->items[i].judged.field != NULL)
            files[count++] = set->items[i].judged;
    (void)catalog_files_fit(set->op, set->params, files, count, &set->faults); /* the faults say it */
}

static void set_keep(struct inputs_set *set)
{
    set_judge(set);
    set->open = 1; /* ourselves */
    for (size_t i = 0; i < set->count && set->err == ERR_OK && set->faults.count == 0; i++) {
        struct db_value values[] = { db_text(set->items[i].id), db_int(set->keep_s) };

        if (set->items[i].id[0] == '\0')
            continue;
        if (db_gather_add(set->in->keep, values, keep_on_row, set) == ERR_OK)
            set->open++;
        else
            set->err = ERR_NOMEM;
    }
    if (--set->open == 0)
        set_answer(set);
}

static void item_over(struct inputs_item *it, enum err err)
{
    struct inputs_set *set = it->set;

    if (err != ERR_OK && set->err == ERR_OK)
        set->err = err;
    if (--set->open == 0)
        set_keep(set);
}

static void undo_on_row(void *ctx, enum err err, const struct db_result *result, int row)
{
    (void)ctx;
    (void)err; /* lost: the row expires in a day, and a missing object is fine for the sweep */
    (void)result;
    (void)row;
}

bool inputs_made(const struct inputs_set *set)
{
    for (size_t i = 0; set != NULL && i < set->count; i++) {
        if (set->items[i].is_made)
            return true;
    }
    return false;
}

void inputs_undo(struct inputs_set *set)
{
    for (size_t i = 0; set != NULL && i < set->count; i++) {
        struct inputs_item *it = &set->items[i];
        struct db_value value = db_text(it->id);

        if (!it->is_made)
            continue;
        it->is_made = false;
        uploads_discard(set->in->d, it->file.object);
        (void)db_gather_add(set->in->undo, &value, undo_on_row, set->in);
    }
}

/* ---- ids ---- */

static void find_on_row(void *ctx, enum err err, const struct db_result *result, int row)
{
    struct inputs_item *it = ctx;
    struct media_head head = { 0 };
    char message[256];

    if (err != ERR_OK) {
        item_over(it, err);
        return;
    }
    if (db_is_null(result, row, "object")) {
        item_fault(it, "is neither an upload nor an artifact of this app");
        item_over(it, ERR_OK);
        return;
    }
    head.kind = media_kind_of_mime(db_col(result, row, "mime"));
    head.width = db_col_int(result, row, "width");
    head.height = db_col_int(result, row, "height");
    if (!catalog_input_fits(it->set->op, it->field, &head, db_col_int(result, row, "bytes"), message, sizeof(message)))
        item_fault(it, message);
    it->judged = (struct catalog_file){ it->field, it->index, head, db_col_int(result, row, "bytes"), false };
    it->found = json_pack("{s:s, s:s, s:I, s:I, s:I}", "object", db_col(result, row, "object"), "mime",
                          db_col(result, row, "mime"), "bytes", (json_int_t)db_col_int(result, row, "bytes"), "width",
                          (json_int_t)head.width, "height", (json_int_t)head.height);
    if (!db_is_null(result, row, "sha256"))
        (void)json_set_text(it->found, "sha256", db_col(result, row, "sha256"));
    if (!db_col_bool(result, row, "is_upload"))
        it->id[0] = '\0'; /* artifacts do not expire */
    item_over(it, it->found != NULL ? ERR_OK : ERR_NOMEM);
}

static enum err item_find(struct inputs_item *it)
{
    struct db_value values[] = { db_text(it->set->app), db_text(it->id) };

    return db_gather_add(it->set->in->find, values, find_on_row, it);
}

/* ---- data: URIs ---- */

/* "data:image/png;base64,…": the text after the comma; NULL when it is not base64. */
static const char *data_payload(const char *value)
{
    const char *comma = strchr(value, ',');

    if (comma == NULL || comma - value < 12 || strncasecmp(comma - 7, ";base64", 7) != 0)
        return NULL;
    return comma + 1;
}

static void data_on_stored(void *ctx, enum err err)
{
    struct inputs_item *it = ctx;

    if (err == ERR_OK && it->index == SIZE_MAX) {
        (void)json_object_set_new(it->set->params, it->field, json_string(it->id));
    } else if (err == ERR_OK) {
        (void)json_array_set_new(json_object_get(it->set->params, it->field), it->index, json_string(it->id));
    }
    item_over(it, err);
}

static void data_work(uv_work_t *work)
{
    struct inputs_item *it = container_of(work, struct inputs_item, work);
    const char *payload = data_payload(it->value);
    size_t len = strlen(payload), got = 0, cap = base64_decoded_max(len);
    unsigned char *bytes = malloc(cap + 1);

    it->file.err = bytes == NULL ? ERR_NOMEM : base64_decode(bytes, cap, &got, payload, len);
    if (it->file.err == ERR_OK)
        upload_file_write(&it->file, bytes, got);
    free(bytes);
}

static void data_on_work(uv_work_t *work, int status)
{
    struct inputs_item *it = container_of(work, struct inputs_item, work);
    struct inputs_set *set = it->set;
    char message[256];

    (void)status; /* never canceled */
    if (it->file.err == ERR_ARGUMENT) {
        item_fault(it, "is no valid base64");
        item_over(it, ERR_OK);
        return;
    }
    if (it->file.err != ERR_OK) {
        item_over(it, ERR_UNAVAILABLE);
        return;
    }
    it->is_made = true; /* the object is there, so that undo takes it away */
    if (!catalog_input_fits(set->op, it->field, &it->file.head, it->file.bytes, message, sizeof(message))) {
        item_fault(it, message);
        item_over(it, ERR_OK);
        return;
    }
    it->judged = (struct catalog_file){ it->field, it->index, it->file.head, it->file.bytes, true };
    it->found = json_pack("{s:s, s:s, s:I, s:I, s:I}", "object", it->file.object, "mime",
                          media_mime(it->file.head.kind), "bytes", (json_int_t)it->file.bytes, "width",
                          (json_int_t)it->file.head.width, "height", (json_int_t)it->file.head.height);
    (void)json_set_text(it->found, "sha256", it->file.sha256);
    if (it->found == NULL ||
        uploads_insert(set->in->d, it->id, set->app, set->account, &it->file, data_on_stored, it) != ERR_OK)
        item_over(it, ERR_NOMEM);
}

static enum err item_decode(struct inputs_item *it)
{
    struct dispatcher *d = it->set->in->d;

    if (data_payload(it->value) == NULL) {
        item_fault(it, "must be a base64 data: URI (data:image/png;base64,…)");
        return ERR_ARGUMENT;
    }
    upload_file_name(&it->file, d->store, it->id);
    if (uv_queue_work(d->loop, &it->work, data_work, data_on_work) != 0)
        return ERR_UNAVAILABLE;
    return ERR_OK;
}

/* ---- start ---- */

static void set_add(struct inputs_set *set, const char *field, size_t index, const json_t *value)
{
    struct inputs_item *it;

    if (!json_is_string(value))
        return; /* the catalogue has checked the shape */
    if (set->count == set->room) {
        faults_add(&set->faults, field, "too many files: at most %d", INPUTS_MAX);
        return;
    }
    it = &set->items[set->count++];
    it->set = set;
    it->field = arena_strdup(set->arena, field);
    it->index = index;
    it->value = json_string_value(value);
}

static void item_start(struct inputs_item *it)
{
    struct inputs_set *set = it->set;
    enum err e = ERR_OK;

    if (uuid_lower(it->id, it->value)) {
        e = item_find(it);
    } else if (strncasecmp(it->value, "data:", 5) == 0) {
        uuid_v7(it->id);
        e = item_decode(it);
    } else {
        it->id[0] = '\0';
        it->found = json_pack("{s:s}", "url", it->value);
        set->open--;
        return;
    }
    if (e != ERR_OK) {
        set->open--;
        if (e != ERR_ARGUMENT)
            set->err = e;
    }
}

/* How many places its files need: few, so that a set of a batch of 10,000 is small. */
static size_t files_in(const json_t *params, const struct catalog_input *fields, size_t count)
{
    size_t found = 0;

    for (size_t i = 0; i < count; i++) {
        const json_t *value = json_object_get(params, fields[i].name);

        found += json_is_array(value) ? json_array_size(value) : json_is_string(value);
    }
    return found < INPUTS_MAX ? found : INPUTS_MAX;
}

struct inputs_set *inputs_resolve(struct inputs *in, struct arena *a, const struct operation *op, const char *app,
                                  const char *account, json_t *params, int64_t keep_s, inputs_fn *fn, void *ctx)
{
    struct inputs_set *set = arena_alloc(a, sizeof(*set));
    struct catalog_input fields[16];
    size_t count = catalog_inputs(op, fields, ARRAY_LEN(fields));

    if (set == NULL)
        return NULL;
    set->in = in; /* member by member: zeroed once, and it is large */
    set->arena = a;
    set->op = op;
    set->app = app;
    set->account = account;
    set->params = params;
    set->keep_s = keep_s;
    set->fn = fn;
    set->ctx = ctx;
    if (count > ARRAY_LEN(fields))
        count = ARRAY_LEN(fields);
    set->room = files_in(params, fields, count);
    set->items = set->room > 0 ? arena_alloc(a, set->room * sizeof(*set->items)) : NULL;
    if (set->room > 0 && set->items == NULL)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        const json_t *value = json_object_get(params, fields[i].name), *one;
        size_t k;

        if (!json_is_array(value))
            set_add(set, fields[i].name, SIZE_MAX, value);
        json_array_foreach((json_t *)(uintptr_t)value, k, one)
        {
            set_add(set, fields[i].name, k, one);
        }
    }
    set->open = set->count + 1; /* and ourselves, so that nothing ends before all have started */
    for (size_t i = 0; i < set->count; i++)
        item_start(&set->items[i]);
    if (--set->open == 0)
        set_keep(set);
    return set;
}
