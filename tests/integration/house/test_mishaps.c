/* test_mishaps.c - what operators, certificates and connections do to jobs that are under way: a provider that is not
 * configured any more, a certificate that nobody trusts, customers whose connection is cut. The job ends or goes on,
 * once, and nobody pays for what they did not get. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "tests/integration/house/cases.h"
#include "tests/support/relay.h"

SUPPORT_SERVICES();

enum { LIMIT_MS = 60000 };

#define INSIDE                                                                                                         \
    ",\"model\":\"dall-e-2\",\"size\":\"256x256\",\"response_format\":\"b64_json\"" /* not by a plain link             \
                                                                                     */
#define TINY ",\"width\":64,\"height\":64,\"alchemy\":false"

static int port_of(const char *url)
{
    return (int)strtol(strrchr(url, ':') + 1, NULL, 10);
}

static void expect_ended(const struct house *h, const char *id, const char *code, const char *klass, int attempts)
{
    struct reply job = house_wait(h, id, LIMIT_MS);
    char sql[256];

    cr_expect_str_eq(reply_text(&job, "error.code"), code, "%s", job.text);
    cr_expect_float_eq(reply_number(&job, "credits.charged"), 0, 1e-9, "%s", job.text);
    (void)snprintf(sql, sizeof(sql),
                   "select count(*) from attempts where job_id = '%s' and state = 'closed' and class = '%s'", id,
                   klass);
    cr_expect_eq(support_sql_int(h->db, sql), attempts, "%s: %s attempts, not %d: %s", id, klass, attempts, job.text);
    reply_done(&job);
}

/* --- M6 ---------------------------------------------------------------------------------------------------------- */

/* One job waits with a reference, one is in the queue; then the provider is gone: no key, or no operation. */
static void unconfigure(struct house *h, const char *const *env, const char *waiting_code, const char *queued_code)
{
    struct want waits = { .tag = "waits", .operation = LEO, .extra = TINY };
    struct want queued = { .tag = "queued", .operation = LEO, .extra = TINY };
    char ids[2][40];

    (void)house_worker_start(h, NULL);
    cases_submit(h, &waits, NULL, ids[0]);
    cr_assert(house_wait_sql(h, "select count(*) from attempts where ref is not null", 1, 20000));
    house_kill(&h->workers[0], SIGKILL);
    cases_submit(h, &queued, NULL, ids[1]);
    (void)house_worker_start(h, env);
    expect_ended(h, ids[0], waiting_code, "accepted", 1);
    expect_ended(h, ids[1], queued_code, "not_sent", 1);
    cr_expect_eq(house_counter(h, NULL, "paid"), 1, "the first was taken, and is listed as accepted and never fetched");
    cr_expect_eq(house_counter(h, NULL, "requests"), 1);
    cr_expect_float_eq(house_held(h, "default"), 0, 1e-9, "no hold stays");
    cr_expect_float_eq(house_balance(h, "default"), 1000, 1e-9, "nobody is charged");
    house_close(h);
}

static const struct house_options slow = {
    .no_worker = true,
    .catalog = CATALOG_LEO(""),
    .sandbox_config = "{\"delay_ms\":{\"leonardo\":{\"min\":60000,\"max\":60000}}}",
};

Test(mishaps, a_provider_whose_key_is_taken_away_while_its_jobs_run_ends_them_all_uncharged)
{
    static const char *const env[] = { "LEONARDO_API_KEY=", NULL };

    unconfigure(house_open(&slow), env, "auth", "auth");
}

Test(mishaps, an_operation_taken_out_of_the_catalogue_while_its_jobs_run_ends_them_all_uncharged)
{
    struct house *h = house_open(&slow);
    char path[128], text[160];
    const char *env[] = { text, NULL };
    FILE *file;

    (void)snprintf(path, sizeof(path), "mkdir '%s/gone'", h->dir);
    cr_assert_eq(system(path), 0);
    (void)snprintf(path, sizeof(path), "%s/gone/overlay.json", h->dir);
    file = fopen(path, "w");
    cr_assert_not_null(file);
    cr_assert_geq(fputs("{\"provider\":\"leonardo\",\"operations\":{\"leonardo.generate\":null}}", file), 0);
    cr_assert_eq(fclose(file), 0);
    (void)snprintf(text, sizeof(text), "KILN_CATALOG=%s/gone", h->dir);
    unconfigure(h, env, "invalid_request", "invalid_request");
}

/* --- M10 --------------------------------------------------------------------------------------------------------- */

Test(mishaps, a_certificate_that_nobody_trusts_sends_nothing_and_costs_nothing_until_it_is_trusted)
{
    static const struct house_options options = { .no_worker = true };
    struct house *h = house_open(&options);
    struct want never = { .tag = "never", .operation = GPT, .extra = INSIDE };
    struct want later = { .tag = "later",
                          .operation = GPT,
                          .extra = INSIDE,
                          .charged = DALLE_SMALL,
                          .requests = 1,
                          .paid = 1,
                          .attempts = 1 };
    char certificate[128], base[128], ca_file[160], id[40];
    const char *distrusts[] = { base, NULL }, *trusts[] = { base, ca_file, NULL };
    struct relay *tls;
    int worker;

    (void)snprintf(certificate, sizeof(certificate), "%s/provider.pem", h->dir);
    tls = relay_start(port_of(h->sandbox), certificate);
    (void)snprintf(base, sizeof(base), "OPENAI_BASE_URL=https://127.0.0.1:%d/openai/v1", relay_port(tls));
    (void)snprintf(ca_file, sizeof(ca_file), "KILN_CA_FILE=%s", certificate);
    worker = house_worker_start(h, distrusts);
    cases_submit(h, &never, NULL, id);
    expect_ended(h, id, "provider_unavailable", "not_sent", 5);
    cr_expect_geq(relay_connections(tls), 1, "it did try");
    cr_expect_eq(relay_handshakes(tls), 0);
    cr_expect_eq(house_counter(h, NULL, "requests"), 0, "nothing left");
    cr_expect_float_eq(house_balance(h, "default"), 1000, 1e-9);
    cr_expect_float_eq(house_held(h, "default"), 0, 1e-9);

    house_kill(&h->workers[worker], SIGTERM);
    cr_expect_eq(house_wait_exit(&h->workers[worker], 20000), 0);
    (void)house_worker_start(h, trusts);
    cases_submit(h, &later, NULL, id);
    cases_expect(h, &later, id, LIMIT_MS);
    cr_expect_geq(relay_handshakes(tls), 1, "KILN_CA_FILE is what is trusted");
    cr_expect_float_eq(house_balance(h, "default"), 1000 - DALLE_SMALL, 1e-9);
    house_close(h);
    relay_stop(tls);
}

/* --- M18 --------------------------------------------------------------------------------------------------------- */

Test(mishaps, a_customer_cut_off_while_waiting_gets_the_same_job_by_the_same_key_and_one_charge)
{
    static const char body[] =
        "{\"operation\":\"openai.images.generate\",\"params\":{\"model\":\"dall-e-2\",\"size\":\"256x256\","
        "\"prompt\":\"cut off [[job:cut]][[fault:delay_ms=2500]]\"}}";
    static const char *const headers[] = { "Idempotency-Key: cut-off", "Prefer: wait=30", NULL };
    struct house *h = house_open(NULL);
    struct sockaddr_in at = { .sin_family = AF_INET,
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                              .sin_port = htons((uint16_t)h->port) };
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    char request[1024], *job;
    struct reply again;

    (void)snprintf(
        request, sizeof(request),
        "POST /v1/jobs HTTP/1.1\r\nHost: kiln\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n"
        "%s\r\n%s\r\nContent-Length: %zu\r\n\r\n%s",
        h->key, headers[0], headers[1], strlen(body), body);
    cr_assert_eq(connect(fd, (struct sockaddr *)&at, sizeof(at)), 0);
    cr_assert_eq(send(fd, request, strlen(request), MSG_NOSIGNAL), (ssize_t)strlen(request));
    cr_assert(house_wait_sql(h, "select count(*) from jobs where state = 'running'", 1, 20000));
    cr_assert_eq(close(fd), 0); /* what a proxy does when it has waited long enough */
    job = support_sql(h->db, "select id from jobs");
    again = house_call(h, "POST", "/v1/jobs", body, headers);
    cr_expect_eq(again.status, 200, "%ld %s", again.status, again.text);
    cr_expect_str_eq(reply_text(&again, "id"), job, "%s", again.text);
    cr_expect_str_eq(reply_text(&again, "state"), "succeeded", "%s", again.text);
    cr_expect_not_null(strstr(again.headers, "Idempotent-Replayed: true"), "%s", again.headers);
    cr_expect_eq(house_counter(h, "cut", "requests"), 1);
    cr_expect_eq(support_sql_int(h->db, "select count(*) from jobs"), 1);
    cr_expect_float_eq(house_balance(h, "default"), 1000 - DALLE_SMALL, 1e-9);
    reply_done(&again);
    free(job);
    house_close(h);
}
