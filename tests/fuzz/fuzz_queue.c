/* fuzz_queue.c - whatever Redis may hold: replies to a claim, published events and hints, envelopes, notes.
 *
 * queue.c itself is included, so that its readers of replies can be fed without a server: the input is RESP, read by
 * hiredis, and the same bytes are a message and an envelope. */
#include "common/core/queue.c" /* NOLINT: its static readers are what is tested */
#include "common/core/job.h"
#include "tests/fuzz/fuzz.h"

static void claims(void *ctx, enum err err, const struct queue_claim *list, size_t count, int64_t next_ms)
{
    (void)ctx;
    (void)next_ms;
    FUZZ_CLAIM(err == ERR_OK || count == 0);
    for (size_t i = 0; i < count; i++) {
        FUZZ_CLAIM(list[i].job && list[i].lane && *list[i].job && *list[i].lane);
        FUZZ_CLAIM(list[i].note_attempt >= 0 && (!list[i].envelope || *list[i].envelope));
    }
}

static void event(void *ctx, const char *job, int64_t version, const char *state, const char *phase, int percent)
{
    (void)ctx;
    (void)version;
    FUZZ_CLAIM(uuid_valid(job) && percent >= -1 && percent <= 100);
    FUZZ_CLAIM((!state || utf8_valid(state, strlen(state))) && (!phase || utf8_valid(phase, strlen(phase))));
}

static void hint(void *ctx, const char *job)
{
    (void)ctx;
    FUZZ_CLAIM(uuid_valid(job));
}

static void reply_of(struct queue *q, const redisReply *reply)
{
    struct ask a = { .q = q, .fn.claim = claims, .n = 10 };

    claim_answer(&a, queue_err(q, reply->type == REDIS_REPLY_ERROR ? ERR_REFUSED : ERR_OK, reply), reply);
}

/* hiredis 0.14 allocates an array of as many elements as its head says (1.0 has a limit), which a fuzzer takes for a
 * leak of 4.8 GB. Redis is ours and trusted that far, so such heads are not ours to read. */
static bool claims_a_huge_array(const char *text, size_t size)
{
    for (size_t i = 0; i + 7 < size; i++) {
        size_t digits = 0;

        while (text[i] == '*' && i + 1 + digits < size && text[i + 1 + digits] >= '0' && text[i + 1 + digits] <= '9')
            digits++;
        if (digits > 6)
            return true;
    }
    return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct queue q = { .config = { .on_event = event, .on_hint = hint }, .complained_ms = INT64_MAX / 2 };
    redisReader *reader = redisReaderCreate();
    struct arena *a = arena_new(1 << 20);
    struct job_envelope e = { 0 }, again = { 0 };
    char *text = malloc(size + 1), *printed;
    void *reply = NULL;

    FUZZ_CLAIM(reader && a && text);
    if (size)
        memcpy(text, data, size);
    text[size] = '\0';
    if (!claims_a_huge_array(text, size) && redisReaderFeed(reader, text, size) == REDIS_OK &&
        redisReaderGetReply(reader, &reply) == REDIS_OK && reply) {
        reply_of(&q, reply);
        freeReplyObject(reply);
    }
    redisReaderFree(reader);
    listener_on_event(&q, text, size);
    listener_on_hint(&q, text, size);
    if (job_envelope_parse(a, text, &e)) {
        FUZZ_CLAIM(uuid_valid(e.id) && e.units > 0 && json_is_object(e.params));
        printed = job_envelope_print(&e);
        FUZZ_CLAIM(printed && job_envelope_parse(a, printed, &again) && json_equal(e.params, again.params));
        job_envelope_done(&again);
        job_envelope_done(&e);
        free(printed);
    }
    free(text);
    arena_free(a);
    return 0;
}
