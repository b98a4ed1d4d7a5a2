/* main.c - kiln-chaos: sets the stage, lets the customers in, carries the plan out, and judges what is left.
 *
 *     kiln-chaos --minutes N --seed S [--plan] [--dispatchers N] [--workers N] [--dir DIR] --source DIR --build DIR
 *
 * Exit 0: nothing is wrong; 1: something is, the logs are kept; 2: it could not be tried. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <curl/curl.h>
#include "tests/chaos/run/run.h"

enum { DISK_MIB = 512, DISK_MIB_A_MINUTE = 24, CLIENTS = 10, READERS = 6, READY_MS = 90000, TOLD = 12 };

struct stage stage = { .seed = 1, .dispatchers = 2, .workers = 3 };
static _Atomic int findings;
static char *told[TOLD]; /* the first findings, said again at the end: what stands in mid-log is often cut out */
static int64_t began_ms;
static pid_t sandbox_pid;
static double minutes = 2;

/* --- small things ------------------------------------------------------------------------------------------------- */

int64_t now_ms(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void pause_ms(int64_t ms)
{
    struct timespec t = { (time_t)(ms / 1000), (long)(ms % 1000) * 1000000 };

    (void)nanosleep(&t, NULL);
}

static void print_line(const char *mark, const char *format, va_list args)
{
    char line[2048];

    (void)vsnprintf(line, sizeof(line), format, args);
    (void)printf("%8.1f s  %s%s\n", (double)(now_ms() - began_ms) / 1000, mark, line);
    (void)fflush(stdout);
}

void say(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    print_line("", format, args);
    va_end(args);
}

void broke(const char *format, ...)
{
    va_list args;
    int number = findings++;

    va_start(args, format);
    print_line("BROKEN: ", format, args);
    va_end(args);
    if (number < TOLD) {
        char line[1024];

        va_start(args, format);
        (void)vsnprintf(line, sizeof(line), format, args);
        va_end(args);
        told[number] = strdup(line);
    }
}

int broken(void)
{
    return findings;
}

char *read_file(const char *path)
{
    FILE *file = fopen(path, "r");
    char *text = calloc(1, 65536);

    if (!text)
        abort();
    if (file) {
        (void)!fread(text, 1, 65535, file);
        (void)fclose(file);
    }
    return text;
}

bool write_file(const char *path, const char *text)
{
    char temporary[PATH_SIZE + 80];
    FILE *file;
    bool is_written;

    (void)snprintf(temporary, sizeof(temporary), "%s.new", path);
    file = fopen(temporary, "w");
    is_written = file && fputs(text, file) >= 0;
    is_written = file && fclose(file) == 0 && is_written;
    return is_written && rename(temporary, path) == 0;
}

int run_program(const char *const *argv, bool is_bad)
{
    static _Atomic int number;
    char path[PATH_SIZE + 64], *said;
    pid_t pid;
    int status = 0;

    (void)snprintf(path, sizeof(path), "%s/out.%d", stage.dir, number++);
    pid = fork();
    if (pid < 0)
        abort();
    if (pid == 0) {
        int out = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0600), in = open("/dev/null", O_RDONLY);

        (void)dup2(in, 0);
        (void)dup2(out, 1);
        (void)dup2(out, 2);
        (void)execvp(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    said = read_file(path);
    if (status != 0 && is_bad)
        broke("%s %s ended with %d:\n%.6000s", argv[0], argv[1] ? argv[1] : "", status, said);
    free(said);
    (void)unlink(path);
    return status;
}

PGconn *sql_open(void)
{
    PGconn *pg = PQconnectdb(stage.db);

    if (PQstatus(pg) == CONNECTION_OK)
        return pg;
    PQfinish(pg);
    return NULL;
}

char *sql_text(const char *sql, const char *argument)
{
    PGconn *pg = sql_open();
    const char *values[] = { argument };
    PGresult *r = pg ? PQexecParams(pg, sql, argument ? 1 : 0, NULL, values, NULL, NULL, 0) : NULL;
    char *text = r && PQresultStatus(r) == PGRES_TUPLES_OK && PQntuples(r) > 0 ? strdup(PQgetvalue(r, 0, 0)) : NULL;

    PQclear(r);
    PQfinish(pg);
    return text;
}

/* --- the stage ---------------------------------------------------------------------------------------------------- */

static void service(const char *verb)
{
    char script[PATH_SIZE + 32];
    const char *const argv[] = { script, verb, "--dir", stage.services, NULL };

    (void)snprintf(script, sizeof(script), "%s/scripts/services", stage.source);
    if (stage.services[0])
        (void)run_program(argv, true);
}

static void give_up(const char *why)
{
    (void)fprintf(stderr, "chaos: %s; see %s\n", why, stage.dir);
    crew_kill_all();
    service("stop");
    _exit(2);
}

static void folder(const char *name)
{
    char path[PATH_SIZE + 32];

    (void)snprintf(path, sizeof(path), "%s/%s", stage.dir, name);
    if (mkdir(path, 0700) != 0 && errno != EEXIST)
        give_up("a folder cannot be made");
}

/* A disk of its own that can be full: a tmpfs that only this process and its children see, and that goes with them. */
static void make_disk(void)
{
    char path[PATH_SIZE], size[32];

    folder("disk");
    (void)snprintf(path, sizeof(path), "%.480s/disk", stage.dir);
    (void)snprintf(size, sizeof(size), "size=%dm", DISK_MIB + (int)(minutes * DISK_MIB_A_MINUTE));
    stage.is_tmpfs = geteuid() == 0 && unshare(CLONE_NEWNS) == 0 &&
                     mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
                     mount("tmpfs", path, "tmpfs", 0, size) == 0;
    say(stage.is_tmpfs ? "the storage's disk is a tmpfs, which is filled"
                       : "no tmpfs can be mounted here: instead of a full disk, workers are forbidden to write files");
    folder("disk/storage");
    (void)snprintf(stage.storage, sizeof(stage.storage), "%.480s/disk/storage", stage.dir);
}

static void make_services(void)
{
    char link[PATH_SIZE + 32];
    ssize_t n;

    (void)snprintf(stage.services, sizeof(stage.services), "%.480s/services", stage.dir);
    service("start");
    if (broken())
        give_up("Redis and PostgreSQL do not start");
    (void)snprintf(link, sizeof(link), "%s/sockets", stage.services);
    n = readlink(link, stage.postgres_folder, sizeof(stage.postgres_folder) - 1);
    if (n <= 0)
        give_up("the sockets are not there");
    stage.postgres_folder[n] = '\0';
    (void)snprintf(stage.redis_socket, sizeof(stage.redis_socket), "%.100s/redis.sock", stage.postgres_folder);
    (void)snprintf(stage.db, sizeof(stage.db), "postgresql:///kiln?host=%s&port=25432&user=kiln",
                   stage.postgres_folder);
}

/* Short ways, in time, for every operation of the catalogue as it is in the sources. */
static void make_catalog(void)
{
    static const char *const files[] = { "openai", "stability", "leonardo" };

    folder("catalog");
    for (size_t i = 0; i < COUNT(files); i++) {
        char path[PATH_SIZE + 64];
        json_t *all, *one, *out = json_object(), *overlay;
        const char *name;

        (void)snprintf(path, sizeof(path), "%s/schema/catalog/%s.json", stage.source, files[i]);
        all = json_load_file(path, 0, NULL);
        json_object_foreach(json_object_get(all, "operations"), name, one)
        {
            json_t *change = json_pack("{si s{si}}", "deadline_s", 40, "submit", "timeout_ms", 9000);

            if (json_object_get(one, "poll"))
                (void)json_object_set_new(
                    change, "poll", json_pack("{si si si}", "first_ms", 300, "every_ms", 900, "timeout_ms", 6000));
            (void)json_object_set_new(out, name, change);
        }
        overlay = json_pack("{ss so}", "provider", files[i], "operations", out);
        (void)snprintf(path, sizeof(path), "%s/catalog/%s.json", stage.dir, files[i]);
        if (json_dump_file(overlay, path, 0) != 0)
            give_up("the catalogue's overlay cannot be written");
        json_decref(overlay);
        json_decref(all);
    }
}

static void start_sandbox(void)
{
    static const char config[] =
        "{\"delay_ms\":{\"openai\":{\"min\":200,\"max\":1500},\"stability_generate\":{\"min\":100,\"max\":1000},"
        "\"stability_upscale\":{\"min\":100,\"max\":1000},\"stability_creative\":{\"min\":500,\"max\":3000},"
        "\"leonardo\":{\"min\":500,\"max\":4000}},\"image_size_cap\":256,\"upscale_factor\":2,"
        "\"stability_balance\":1000000000,\"stability_limit\":{\"requests\":150,\"window_ms\":10000,\"timeout_ms\":3000,"
        "\"retry_after\":1}}";
    char program[PATH_SIZE + 32], ready[PATH_SIZE + 32], settings[PATH_SIZE + 32], log[PATH_SIZE + 32];
    int64_t until = now_ms() + READY_MS;

    (void)snprintf(program, sizeof(program), "%s/tests/sandbox/kiln-sandbox", stage.build);
    (void)snprintf(ready, sizeof(ready), "%s/sandbox.ready", stage.dir);
    (void)snprintf(settings, sizeof(settings), "%s/sandbox.json", stage.dir);
    (void)snprintf(log, sizeof(log), "%s/log/sandbox.log", stage.dir);
    (void)write_file(settings, config);
    sandbox_pid = fork();
    if (sandbox_pid == 0) {
        int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);

        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)dup2(fd, 1);
        (void)dup2(fd, 2);
        (void)execl(program, program, "--listen", "127.0.0.1:0", "--images", "127.0.0.1:0", "--config", settings,
                    "--ready-file", ready, (char *)NULL);
        _exit(127);
    }
    while (!stage.sandbox[0] && now_ms() < until) {
        char *text = read_file(ready);

        (void)sscanf(text, "ready main=%63s", stage.sandbox);
        free(text);
        pause_ms(20);
    }
    if (!stage.sandbox[0])
        give_up("the sandbox does not start");
}

static void migrate(void)
{
    char program[PATH_SIZE + 32], database[PATH_SIZE + 32];
    const char *const argv[] = { "/usr/bin/env", database, program, "migrate", NULL };

    (void)snprintf(program, sizeof(program), "%s/dispatcher/client/kiln", stage.build);
    (void)snprintf(database, sizeof(database), "KILN_DATABASE_URL=%s", stage.db);
    if (run_program(argv, true) != 0)
        give_up("the schema cannot be made");
}

/* --- carrying out ------------------------------------------------------------------------------------------------- */

static struct {
    struct talk *talk;
    int64_t full_until, rule_until;
} now_on;

static void filler(char *out, size_t size)
{
    (void)snprintf(out, size, "%.480s/disk/filler", stage.dir);
}

/* All that is left, and what others give back meanwhile: in ever smaller pieces. */
static void fill_disk(void)
{
    char path[PATH_SIZE];
    struct statvfs disk;
    off_t at = 0, piece;
    int fd;

    if (!stage.is_tmpfs) {
        crew_starve(true);
        return;
    }
    filler(path, sizeof(path));
    fd = open(path, O_WRONLY | O_CREAT, 0600);
    if (fd < 0 || fstatvfs(fd, &disk) != 0) {
        say("the disk could not be filled");
    } else {
        for (piece = (off_t)(disk.f_bavail * disk.f_frsize); piece >= 4096; piece /= 2)
            while (posix_fallocate(fd, at, piece) == 0)
                at += piece;
    }
    if (fd >= 0)
        (void)close(fd);
}

static void empty_disk(void)
{
    char path[PATH_SIZE];

    if (!stage.is_tmpfs)
        crew_starve(false);
    filler(path, sizeof(path));
    (void)unlink(path);
}

static void sandbox_ask(const char *method, const char *path, const char *body)
{
    char url[128];
    struct answer a;

    (void)snprintf(url, sizeof(url), "%s%s", stage.sandbox, path);
    a = talk_ask(now_on.talk, method, url, body, NULL, 10000);
    if (a.status / 100 != 2)
        broke("the sandbox answers %s %s with %ld: %.300s", path, body ? body : "", a.status, a.text ? a.text : "");
    answer_done(&a);
}

/* The rules are removed one by one, so that counters stay. */
static void end_rules(void)
{
    sandbox_ask("DELETE", "/_sandbox/faults", NULL);
}

static void carry_out(const struct event *e)
{
    char line[512];

    plan_line(e, stage.dispatchers, line, sizeof(line));
    say("%s", line + 12); /* without the time it was planned for */
    switch (e->deed) {
    case DEED_KILL:
        crew_kill(e->who, e->for_ms);
        break;
    case DEED_DRAIN:
        crew_drain(e->who, e->for_ms);
        break;
    case DEED_FREEZE:
        crew_freeze(e->who, e->for_ms);
        break;
    case DEED_FAILPOINT:
        crew_failpoint(e->who, e->text);
        break;
    case DEED_FILL_DISK:
        fill_disk();
        now_on.full_until = now_ms() + e->for_ms;
        break;
    case DEED_CUT:
        proxy_cut(e->who, e->door);
        break;
    case DEED_HOLD:
        proxy_hold(e->who, e->door, e->for_ms);
        break;
    case DEED_DELAY:
        proxy_delay(e->who, e->door, e->amount, e->for_ms);
        break;
    case DEED_CLOCK:
        crew_clock(e->who, e->amount);
        break;
    case DEED_PROVIDER:
        sandbox_ask("POST", "/_sandbox/faults", e->text);
        now_on.rule_until = now_ms() + e->for_ms;
        break;
    default:
        servers_do(e);
    }
}

static void look_at_ends(void)
{
    if (now_on.full_until && now_ms() >= now_on.full_until) {
        now_on.full_until = 0;
        empty_disk();
    }
    if (now_on.rule_until && now_ms() >= now_on.rule_until) {
        now_on.rule_until = 0;
        end_rules();
    }
}

static void play(const struct plan *plan, int64_t run_ms)
{
    int64_t start = now_ms();

    for (size_t i = 0; i <= plan->count; i++) {
        int64_t at = start + (i < plan->count ? plan->events[i].at_ms : run_ms);

        while (now_ms() < at) {
            look_at_ends();
            pause_ms(20);
        }
        if (i < plan->count)
            carry_out(&plan->events[i]);
    }
}

static void heal(void)
{
    proxy_heal();
    empty_disk();
    end_rules();
    servers_rest();
    crew_heal();
    (void)crew_ready(READY_MS);
}

/* --- the whole ---------------------------------------------------------------------------------------------------- */

static void show_figures(const struct plan *plan, int64_t run_ms)
{
    struct load_figures l = load_figures();
    struct crew_figures c = crew_figures();
    int64_t deeds[DEEDS] = { 0 };
    char *states =
        sql_text("select string_agg(n || ' ' || what, ', ' order by n desc) from (select count(*) as n, state || "
                 "coalesce(' ' || error_code, '') as what from jobs group by 2) s",
                 NULL);
    char *attempts =
        sql_text("select count(*) || ' attempts, ' || count(*) filter (where class = 'unknown') || ' unknown' "
                 "from attempts",
                 NULL);

    for (size_t i = 0; i < plan->count; i++)
        deeds[plan->events[i].deed]++;
    say("%zu events in %.1f min: %d kills, %d drains, %d freezes, %d deaths by fail point, %d starts, %d given up for want of "
        "servers; %lld connections cut",
        plan->count, (double)run_ms / 60000, c.kills, c.drains, c.freezes, c.failpoints, c.starts, c.own_ends,
        (long long)proxy_cuts());
    for (size_t i = DEED_KILL_REDIS; i < DEEDS; i++)
        say("  %s: %lld", deed_name[i], (long long)deeds[i]);
    say("%lld jobs accepted, %lld refused; %lld replays, %lld cancels, %lld grants, %lld results read; %lld calls, of which "
        "%lld had no answer and %lld a 503 or 429",
        (long long)l.accepted, (long long)l.refused, (long long)l.replays, (long long)l.cancels, (long long)l.grants,
        (long long)l.downloads, (long long)l.calls, (long long)l.unanswered, (long long)l.busy);
    say("jobs: %s; %s", states ? states : "?", attempts ? attempts : "?");
    free(states);
    free(attempts);
}

static void set_stage(void)
{
    folder("log");
    make_disk();
    make_services();
    migrate();
    make_catalog();
    start_sandbox();
    proxy_open();
    servers_open();
    crew_open();
    now_on.talk = talk_new();
    if (!crew_ready(READY_MS))
        give_up("kiln does not start");
    load_open();
    if (broken())
        give_up("the load cannot begin");
}

static void strike_stage(void)
{
    load_close();
    crew_close();
    servers_close();
    proxy_close();
    (void)kill(sandbox_pid, SIGTERM);
    (void)waitpid(sandbox_pid, NULL, 0);
    verdict_logs();
    talk_free(now_on.talk);
    service(broken() ? "stop" : "remove");
}

static void how_to_replay(void)
{
    say("seed %llu; again: scripts/chaos --minutes %g --seed %llu --dispatchers %d --workers %d",
        (unsigned long long)stage.seed, minutes, (unsigned long long)stage.seed, stage.dispatchers, stage.workers);
}

static int run(const struct plan *plan, int64_t run_ms)
{
    char command[2 * PATH_SIZE + 64];
    const char *const rm[] = { "/bin/sh", "-c", command, NULL };

    how_to_replay();
    set_stage();
    load_start(CLIENTS, READERS);
    play(plan, run_ms);
    say("the faults stop");
    heal();
    (void)load_finish(60000);
    verdict_wait();
    (void)load_heard(30000);
    load_after();
    verdict_books();
    verdict_oracle();
    show_figures(plan, run_ms);
    strike_stage();
    how_to_replay();
    if (broken()) {
        for (size_t i = 0; i < TOLD; i++)
            if (told[i])
                say("BROKEN: %s", told[i]);
        say("%d findings; logs, Redis and PostgreSQL are in %s", broken(), stage.dir);
        return 1;
    }
    say("nothing is lost, nothing is paid twice");
    (void)snprintf(command, sizeof(command), "umount -l '%s/disk' 2>/dev/null; rm -rf '%s'", stage.dir, stage.dir);
    (void)run_program(rm, false);
    return 0;
}

static void on_signal(int number)
{
    (void)number;
    crew_kill_all();
    _exit(2); /* scripts/chaos stops the servers */
}

static bool read_arguments(int argc, char **argv, bool *is_plan)
{
    static const struct option names[] = {
        { "minutes", required_argument, NULL, 'm' },
        { "seed", required_argument, NULL, 's' },
        { "plan", no_argument, NULL, 'p' },
        { "dir", required_argument, NULL, 'o' },
        { "dispatchers", required_argument, NULL, 'd' },
        { "workers", required_argument, NULL, 'w' },
        { "source", required_argument, NULL, 'x' },
        { "build", required_argument, NULL, 'b' },
        { NULL, 0, NULL, 0 },
    };
    int c;

    while ((c = getopt_long(argc, argv, "", names, NULL)) != -1) {
        if (c == 'm')
            minutes = strtod(optarg, NULL);
        else if (c == 's')
            stage.seed = strtoull(optarg, NULL, 10);
        else if (c == 'p')
            *is_plan = true;
        else if (c == 'd')
            stage.dispatchers = atoi(optarg);
        else if (c == 'w')
            stage.workers = atoi(optarg);
        else if (c == 'o')
            (void)snprintf(stage.dir, sizeof(stage.dir), "%s", optarg);
        else if (c == 'x')
            (void)snprintf(stage.source, sizeof(stage.source), "%s", optarg);
        else if (c == 'b')
            (void)snprintf(stage.build, sizeof(stage.build), "%s", optarg);
        else
            return false;
    }
    return optind == argc && minutes > 0 && minutes < 100000 && stage.dispatchers > 0 &&
           stage.dispatchers <= DISPATCHERS_MAX && stage.workers > 0 && stage.workers <= WORKERS_MAX &&
           (*is_plan || (stage.source[0] && stage.build[0]));
}

int main(int argc, char **argv)
{
    bool is_plan = false;
    int64_t run_ms;
    struct plan plan;
    int status = 0;

    if (!read_arguments(argc, argv, &is_plan)) {
        (void)fprintf(stderr,
                      "usage: %s --minutes N --seed S [--plan] [--dispatchers 1-%d] [--workers 1-%d] [--dir DIR] "
                      "--source DIR --build DIR\n",
                      argv[0], DISPATCHERS_MAX, WORKERS_MAX);
        return 2;
    }
    began_ms = now_ms();
    run_ms = (int64_t)(minutes * 60000);
    plan = plan_make(stage.seed, run_ms, stage.dispatchers, stage.workers);
    if (is_plan) {
        plan_print(&plan, stage.dispatchers);
    } else {
        if (!stage.dir[0])
            (void)snprintf(stage.dir, sizeof(stage.dir), "/tmp/kiln-chaos-XXXXXX");
        if (strstr(stage.dir, "XXXXXX") && !mkdtemp(stage.dir))
            give_up("no folder can be made");
        (void)curl_global_init(CURL_GLOBAL_DEFAULT);
        (void)signal(SIGPIPE, SIG_IGN);
        (void)signal(SIGTERM, on_signal);
        (void)signal(SIGINT, on_signal);
        status = run(&plan, run_ms);
        curl_global_cleanup();
    }
    free(plan.events);
    return status;
}
