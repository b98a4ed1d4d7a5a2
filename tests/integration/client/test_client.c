/* test_client.c - kiln against a whole kiln: dispatcher, worker, sandbox, PostgreSQL and Redis are the real ones. */
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "common/base/json.h"
#include "common/base/text.h"
#include "tests/integration/client/run.h"
#include "tests/integration/house/house.h"
#include "tests/support/relay.h"

SUPPORT_SERVICES();

static const char polled_soon[] =
    "{\"provider\":\"stability\",\"operations\":{\"stability.upscale.creative\":{\"poll\":{\"first_ms\":500,\"every_ms\":"
    "500}}}}";

struct desk {
    struct house *house;
    char url[96], key[96], folder[96];
    struct run run;
};

static void open_desk(struct desk *d, const struct house_options *options)
{
    *d = (struct desk){ .house = house_open(options) };
    (void)snprintf(d->url, sizeof d->url, "KILN_URL=http://127.0.0.1:%d/", d->house->port);
    (void)snprintf(d->key, sizeof d->key, "KILN_API_KEY=%s", d->house->key);
    (void)snprintf(d->folder, sizeof d->folder, "%s/out", d->house->dir);
    cr_assert_eq(mkdir(d->folder, 0700), 0);
    d->run.env[0] = d->url;
    d->run.env[1] = d->key;
    d->run.folder = d->folder;
}

static void close_desk(struct desk *d)
{
    run_done(&d->run);
    house_close(d->house);
}

#define RUN(d, want, ...)                                                                                              \
    do {                                                                                                               \
        run_kiln(&(d)->run, __VA_ARGS__, NULL);                                                                        \
        cr_assert_eq((d)->run.status, want, "%d: %s%s", (d)->run.status, (d)->run.out, (d)->run.err);                  \
    } while (0)
#define SAYS(text, part) cr_expect(run_says(text, part), "\"%s\" is not in: %s", part, text)

static bool is_file(const struct desk *d, const char *name, const char *magic)
{
    char path[256], head[16] = "";
    FILE *f;

    (void)snprintf(path, sizeof path, "%s/%s", d->folder, name);
    f = fopen(path, "r");
    if (!f)
        return false;
    (void)fread(head, 1, sizeof head - 1, f);
    (void)fclose(f);
    return memcmp(head, magic, strlen(magic)) == 0;
}

static int count_files(const struct desk *d)
{
    DIR *dir = opendir(d->folder);
    int n = 0;

    cr_assert_not_null(dir);
    for (struct dirent *e; (e = readdir(dir)) != NULL;)
        n += e->d_name[0] != '.';
    (void)closedir(dir);
    return n;
}

static void write_file(const struct desk *d, const char *name, const char *text)
{
    char path[256];
    FILE *f;

    (void)snprintf(path, sizeof path, "%s/%s", d->folder, name);
    f = fopen(path, "w");
    cr_assert_not_null(f);
    (void)fputs(text, f);
    cr_assert_eq(fclose(f), 0);
}

static void id_in(const char *text, char id[UUID_TEXT])
{
    for (const char *p = text; *p; p++) {
        (void)snprintf(id, UUID_TEXT, "%.36s", p);
        if (uuid_valid(id))
            return;
    }
    cr_assert_fail("no id in: %s", text);
}

Test(client, a_picture_in_a_pipe_comes_with_plain_lines_and_the_books_show_it)
{
    struct desk d;
    char id[UUID_TEXT];

    open_desk(&d, NULL);
    RUN(&d, 0, "submit", "openai.images.generate", "prompt=a teapot [[job:pipe]]", "--wait", "-o", "teapot.png");
    SAYS(d.run.out, "3.4 credits held");
    SAYS(d.run.out, "saved teapot.png (image/png, 1024x1024");
    SAYS(d.run.out, "succeeded after");
    SAYS(d.run.out, "3.4 credits charged");
    cr_expect(!run_says(d.run.out, "\x1b") && !run_says(d.run.out, "\r"), "%s", d.run.out);
    cr_expect(is_file(&d, "teapot.png", "\x89PNG"));
    cr_expect_eq(count_files(&d), 1, "no temporary file stays");
    cr_expect_eq(house_counter(d.house, "pipe", "paid"), 1);
    id_in(d.run.out, id);

    RUN(&d, 0, "ledger", "default");
    cr_expect_eq(strncmp(d.run.out, "TIME", 4), 0, "%s", d.run.out);
    SAYS(d.run.out, id);
    SAYS(strchr(d.run.out, '\n'), "capture");
    RUN(&d, 0, "credits", "--json");
    SAYS(d.run.out, "\"available\":996.6");
    RUN(&d, 0, "credits");
    SAYS(d.run.out, "default: 996.6 credits available (balance 996.6, held 0)");
    RUN(&d, 0, "get", id);
    SAYS(d.run.out, "succeeded");
    SAYS(d.run.out, "prompt = a teapot [[job:pipe]]");
    SAYS(d.run.out, "image/png, 1024x1024");
    RUN(&d, 0, "get", id, "-o", "again.png", "--json");
    SAYS(d.run.out, "\"saved\":[\"again.png\"]");
    cr_expect(is_file(&d, "again.png", "\x89PNG"));
    RUN(&d, 0, "list", "--state", "succeeded");
    SAYS(d.run.out, id);
    RUN(&d, 0, "list", "--state", "failed");
    cr_expect(!run_says(d.run.out, id));
    RUN(&d, 2, "cancel", id);
    SAYS(d.run.out, "had ended before: succeeded");
    close_desk(&d);
}

Test(client, files_go_up_by_name_and_several_results_come_down_with_numbers)
{
    static const struct house_options options = { .catalog = polled_soon };
    struct desk d;
    char id[UUID_TEXT], name[64];

    open_desk(&d, &options);
    write_file(&d, "prompt.txt", "a fox in snow [[job:two]]\n");
    RUN(&d, 0, "submit", "leonardo.generate", "prompt=@prompt.txt", "num_images=2", "width=512", "height=512", "-o",
        "fox.jpg");
    cr_expect(is_file(&d, "fox-1.jpg", "\xff\xd8") && is_file(&d, "fox-2.jpg", "\xff\xd8"), "%s", d.run.out);
    cr_expect_eq(house_counter(d.house, "two", "paid"), 1, "the file's text was the prompt");
    RUN(&d, 0, "submit", "stability.upscale.creative", "prompt=@@sharper", "--image", "fox-1.jpg", "-o", ".");
    id_in(d.run.out, id);
    (void)snprintf(name, sizeof name, "%s.png", id);
    cr_expect(is_file(&d, name, "\x89PNG"), "%s", d.run.out);
    RUN(&d, 0, "get", id);
    SAYS(d.run.out, "prompt = @sharper\n");
    RUN(&d, 0, "estimate", "stability.upscale.creative", "prompt=x", "--image", "fox-1.jpg");
    SAYS(d.run.out, "60 credits at stability");
    cr_expect_eq(support_sql_int(d.house->db, "select count(*) from uploads"), 1, "an estimate uploads nothing");
    RUN(&d, 2, "submit", "stability.upscale.creative", "prompt=x", "image=fox-1.jpg");
    SAYS(d.run.err, "write image=@fox-1.jpg");
    RUN(&d, 2, "submit", "stability.upscale.creative", "prompt=x", "--image", "none.png");
    SAYS(d.run.err, "cannot be read");
    RUN(&d, 2, "submit", "openai.images.generate", "prompt=x", "image=@fox-1.jpg");
    SAYS(d.run.err, "has no parameter image");
    RUN(&d, 2, "submit", "openai.images.generate", "prompt=@fox-1.jpg");
    SAYS(d.run.err, "takes no file");
    close_desk(&d);
}

Test(client, refusals_name_the_field_and_have_their_own_status)
{
    static const struct house_options options = { .no_worker = true };
    struct desk d;

    open_desk(&d, &options);
    RUN(&d, 2, "submit", "openai.images.generate", "prompt=x", "n=eleven", "size=7:1");
    SAYS(d.run.err, "params.n: must be an integer");
    SAYS(d.run.err, "params.size: must be one of");
    RUN(&d, 2, "submit", "openai.images.generate", "--json", "prompt=x", "n=99");
    SAYS(d.run.err, "\"code\":\"invalid_request\"");
    RUN(&d, 2, "submit", "openai.images.generate", "prompt");
    SAYS(d.run.err, "KEY=VALUE");
    RUN(&d, 2, "submit", "no.such", "prompt=x");
    SAYS(d.run.err, "no operation no.such");
    RUN(&d, 2, "submit", "openai.images.generate", "prompt=x", "--metadata", "[1]");
    SAYS(d.run.err, "--metadata");
    RUN(&d, 2, "submit", "openai.images.generate", "prompt=x", "--priority", "101");
    SAYS(d.run.err, "--priority");
    RUN(&d, 2, "submit", "openai.images.generate", "prompt=x", "-o", "no/such/folder.png");
    SAYS(d.run.err, "cannot write there");
    RUN(&d, 4, "submit", "openai.images.generate", "prompt=x", "--account", "poor");
    SAYS(d.run.err, "needed 3.4 credits, available 0");
    RUN(&d, 2, "get", "17");
    RUN(&d, 2, "get", "01a1fb4e-3d28-7000-b72f-dfd01ac5eefd");
    SAYS(d.run.err, "not_found");
    cr_expect_eq(support_sql_int(d.house->db, "select count(*) from jobs"), 0, "nothing was taken");
    d.run.env[1] = "KILN_API_KEY=kiln_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    RUN(&d, 2, "credits");
    SAYS(d.run.err, "KILN_API_KEY");
    d.run.env[1] = d.key;
    d.run.env[0] = "KILN_URL=http://127.0.0.1:1";
    RUN(&d, 3, "credits");
    SAYS(d.run.err, "no dispatcher answers at http://127.0.0.1:1");
    close_desk(&d);
}

Test(client, a_failed_job_is_status_1_and_its_words_are_harmless)
{
    struct desk d;
    char id[UUID_TEXT];

    open_desk(&d, NULL);
    house_fault(
        d.house,
        "{\"match\":{\"prompt_contains\":\"job:bad\"},\"fault\":{\"status\":400,\"code\":\"moderation_blocked\"}}");
    RUN(&d, 1, "submit", "openai.images.generate", "prompt=x\x1b[2J [[job:bad]]", "--wait", "-o", "x.png");
    SAYS(d.run.out, "failed after");
    SAYS(d.run.out, "0 credits charged");
    cr_expect_eq(count_files(&d), 0);
    id_in(d.run.out, id);
    RUN(&d, 0, "get", id);
    SAYS(d.run.out, "prompt = x\\u001b[2J");
    cr_expect(!run_says(d.run.out, "\x1b"), "%s", d.run.out);
    RUN(&d, 1, "get", id, "--wait", "--json");
    SAYS(d.run.out, "\"state\":\"failed\"");
    close_desk(&d);
}

Test(client, ctrl_c_leaves_the_job_running_and_says_so)
{
    static const struct house_options options = { .no_worker = true };
    struct desk d;
    char id[UUID_TEXT];

    open_desk(&d, &options);
    run_start(&d.run, "submit", "openai.images.generate", "prompt=x", "-o", "x.png", NULL);
    run_until(&d.run, "queued");
    cr_assert_eq(kill(d.run.pid, SIGINT), 0);
    run_end(&d.run);
    cr_expect_eq(d.run.status, 130, "%d %s", d.run.status, d.run.err);
    id_in(d.run.out, id);
    SAYS(d.run.err, "left running: job ");
    SAYS(d.run.err, id);
    SAYS(d.run.err, "--wait -o x.png");
    cr_expect_eq(support_sql_int(d.house->db, "select count(*) from jobs where state = 'queued'"), 1);
    RUN(&d, 0, "cancel", id);
    SAYS(d.run.out, "canceled");
    cr_expect_eq(support_sql_int(d.house->db, "select count(*) from jobs where state = 'canceled'"), 1);
    RUN(&d, 1, "get", id, "--wait");
    RUN(&d, 0, "submit", "openai.images.generate", "prompt=x"); /* the id alone, for scripts */
    cr_expect_eq(strlen(d.run.out), (size_t)37, "%s", d.run.out);
    close_desk(&d);
}

Test(client, a_dispatcher_that_dies_with_the_answer_is_asked_again_for_the_same_job)
{
    static const char *const crash[] = { "KILN_FAILPOINTS=accept.after_commit=crash", NULL };
    struct house_options options = { .no_dispatcher = true };
    struct desk d;
    pid_t pid;

    open_desk(&d, &options);
    house_dispatcher_start(d.house, crash);
    run_start(&d.run, "submit", "openai.images.generate", "prompt=once [[job:once]]", "--wait", NULL);
    cr_assert_eq(house_wait_exit(&d.house->dispatcher, 20000), 128 + SIGKILL);
    pid = d.run.pid;
    cr_assert_eq(house_wait_exit(&pid, 700), -1, "a closed port is no answer either: it keeps asking");
    house_dispatcher_start(d.house, NULL);
    run_end(&d.run);
    cr_expect_eq(d.run.status, 0, "%s%s", d.run.out, d.run.err);
    SAYS(d.run.out, "was taken before");
    cr_expect_eq(support_sql_int(d.house->db, "select count(*) from jobs"), 1);
    cr_expect_eq(house_counter(d.house, "once", "paid"), 1);
    close_desk(&d);
}

/* M27: a proxy resets the connection when so much of the answer has passed. */
Test(client, an_answer_reset_after_any_byte_is_asked_for_again_and_is_one_job)
{
    static const struct house_options options = { .no_worker = true };
    static const int64_t after[] = { 0, 1, 12, 17, 100, 300, 500 };
    const int count = (int)(sizeof after / sizeof after[0]);
    struct desk d;
    struct relay *proxy;
    char id[UUID_TEXT];

    open_desk(&d, &options);
    proxy = relay_start(d.house->port, NULL);
    (void)snprintf(d.url, sizeof d.url, "KILN_URL=http://127.0.0.1:%d/", relay_port(proxy));
    for (int i = 0; i < count; i++) {
        relay_cut(proxy, after[i], 1);
        RUN(&d, 0, "submit", "openai.images.generate", "prompt=x");
        id_in(d.run.out, id);
        cr_expect_eq(relay_left(proxy), 0, "the answer was not reset after %d bytes", (int)after[i]);
        cr_expect_eq(support_sql_int(d.house->db, "select count(*) from jobs"), i + 1, "after %d bytes", (int)after[i]);
    }
    cr_expect_eq(support_sql_int(d.house->db, "select count(*) from ledger where kind = 'hold'"), count);
    cr_expect_float_eq(house_held(d.house, "default"), 3.4 * count, 1e-6);
    relay_stop(proxy);
    close_desk(&d);
}

Test(client, one_key_one_job_however_often)
{
    static const struct house_options options = { .no_worker = true };
    struct desk d;
    char first[UUID_TEXT], second[UUID_TEXT];

    open_desk(&d, &options);
    RUN(&d, 0, "submit", "openai.images.generate", "prompt=x", "--idempotency-key", "k1", "--metadata",
        "{\"order\":17}", "--priority", "5");
    id_in(d.run.out, first);
    RUN(&d, 0, "submit", "openai.images.generate", "prompt=x", "--idempotency-key", "k1", "--metadata",
        "{\"order\":17}", "--priority", "5");
    id_in(d.run.out, second);
    cr_expect_str_eq(first, second);
    RUN(&d, 2, "submit", "openai.images.generate", "prompt=y", "--idempotency-key", "k1");
    SAYS(d.run.err, "idempotency_mismatch");
    cr_expect_eq(
        support_sql_int(d.house->db, "select count(*) from jobs where metadata->>'order' = '17' and priority = 5"), 1);
    RUN(&d, 0, "submit", "openai.images.generate", "prompt=x");
    RUN(&d, 0, "submit", "openai.images.generate", "prompt=x");
    cr_expect_eq(support_sql_int(d.house->db, "select count(*) from jobs"), 3, "each call without a key is a job");
    RUN(&d, 0, "list", "-n", "2");
    SAYS(d.run.err, "there are more");
    RUN(&d, 0, "operations");
    SAYS(d.run.out, "leonardo.generate");
    RUN(&d, 0, "operations", "stability.upscale.creative");
    SAYS(d.run.out, "creativity");
    SAYS(d.run.out, "number 0.1 to 0.5");
    close_desk(&d);
}

Test(client, the_live_line_ends_clean)
{
    struct desk d;
    const char *last, *next;

    open_desk(&d, NULL);
    d.run.on_terminal = true;
    RUN(&d, 0, "submit", "leonardo.generate", "prompt=x", "num_images=1", "-o", "x.jpg");
    SAYS(d.run.out, "\r");
    SAYS(d.run.out, "running");
    for (last = NULL, next = d.run.out; (next = strstr(next, "\x1b[K")) != NULL; next += 3)
        last = next;
    cr_assert_not_null(last, "%s", d.run.out);
    cr_expect(last - d.run.out >= 1 && last[-1] == '\r', "the line was wiped last, not written");
    SAYS(last, "saved x.jpg");
    SAYS(last, "succeeded after");
    close_desk(&d);
}
