/* run.h - the long random run: what its files share. Nothing of kiln's is used here, for what kiln believes is on
 * trial.
 *
 *   main.c     arguments, the stage (services, sandbox, catalogue, storage), the plan's execution, the end
 *   plan.c     the events of a run, out of the seed alone
 *   crew.c     kiln's processes: started, killed, frozen, started again; Redis and PostgreSQL through scripts/services
 *   proxy.c    a door of its own for each process to Redis, PostgreSQL and the provider, which can be cut, slow or shut
 *   load.c     the customers, and what they were told
 *   talk.c     HTTP by libcurl
 *   verdict.c  what has to be true in the end, beside the oracle
 *
 * Threads and blocking calls throughout. A function that finds something wrong says `broke` and goes on. */
#ifndef CHAOS_RUN_H
#define CHAOS_RUN_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <jansson.h>
#include <libpq-fe.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

enum { DISPATCHERS_MAX = 4, WORKERS_MAX = 8, CREW_MAX = DISPATCHERS_MAX + WORKERS_MAX, PATH_SIZE = 512 };

/* --- chance: splitmix64 ------------------------------------------------------------------------------------------- */

struct chance {
    uint64_t state;
};
uint64_t chance_next(struct chance *c);
int64_t chance_between(struct chance *c, int64_t from, int64_t to); /* both ends included */
bool chance_of(struct chance *c, int percent);

/* --- the plan ----------------------------------------------------------------------------------------------------- */

enum deed {
    DEED_KILL, /* SIGKILL to a process of kiln; up again after for_ms */
    DEED_DRAIN,
    DEED_FREEZE,
    DEED_FAILPOINT, /* killed, and started with the fail point `text` */
    DEED_KILL_REDIS,
    DEED_STOP_REDIS,
    DEED_FREEZE_REDIS,
    DEED_FLUSH_REDIS,
    DEED_KEEP_REDIS, /* its files are copied … */
    DEED_OLD_REDIS,  /* … and put back */
    DEED_KILL_POSTGRES,
    DEED_STOP_POSTGRES,
    DEED_FILL_DISK,
    DEED_CUT,   /* every connection through the door `door` of `who` */
    DEED_HOLD,  /* nothing passes it for for_ms */
    DEED_DELAY, /* each piece takes `amount` ms more, for for_ms */
    DEED_CLOCK, /* the wall clock of `who` goes wrong by `amount` ms */
    DEED_CLOCK_SQL,
    DEED_PROVIDER, /* the fault rule `text` is laid over the sandbox for for_ms */
    DEEDS
};
enum door { DOOR_REDIS, DOOR_POSTGRES, DOOR_PROVIDER, DOORS };

struct event {
    int64_t at_ms, for_ms, amount;
    enum deed deed;
    enum door door;
    int who; /* place in the crew: dispatchers first */
    char text[192];
};
struct plan {
    struct event *events; /* by time */
    size_t count;
};
struct plan plan_make(uint64_t seed, int64_t run_ms, int dispatchers, int workers);
void plan_print(const struct plan *p, int dispatchers);
void plan_line(const struct event *e, int dispatchers, char *out, size_t size);
extern const char *const deed_name[DEEDS];

/* --- the stage ---------------------------------------------------------------------------------------------------- */

struct stage {
    char dir[PATH_SIZE], build[PATH_SIZE], source[PATH_SIZE], storage[PATH_SIZE], services[PATH_SIZE];
    char sandbox[64];
    char db[PATH_SIZE], redis_socket[128], postgres_folder[128]; /* the real ones */
    uint64_t seed;
    int dispatchers, workers;
    bool is_tmpfs; /* the storage's disk can be filled for real */
};
extern struct stage stage;

int64_t now_ms(void); /* monotonic */
void pause_ms(int64_t ms);
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
void broke(const char *format, ...) __attribute__((format(printf, 1, 2)));
int broken(void);                                      /* how often */
int run_program(const char *const *argv, bool is_bad); /* its exit code; is_bad: other than 0 is broke() */
char *read_file(const char *path);                     /* "" when there is none; free() it */
bool write_file(const char *path, const char *text);
PGconn *sql_open(void); /* NULL: away */
char *sql_text(const char *sql,
               const char *argument); /* first value of a fresh connection; NULL: could not. free() it */

/* --- the proxy ---------------------------------------------------------------------------------------------------- */

void proxy_open(void); /* doors for the whole crew; listens on unix:DIR/doors/NAME/… and on ports for the provider */
void proxy_close(void);
int proxy_port(int who); /* of the provider's door */
void proxy_folder(int who, char *out, size_t size);
void proxy_cut(int who, enum door door);
void proxy_hold(int who, enum door door, int64_t for_ms);
void proxy_delay(int who, enum door door, int64_t delay_ms, int64_t for_ms);
void proxy_heal(void);
int64_t proxy_cuts(void); /* connections closed by cuts */

/* --- the crew ----------------------------------------------------------------------------------------------------- */

void crew_open(void);
void crew_name(int who, char *out, size_t size);
int crew_port(int dispatcher);
void crew_kill(int who, int64_t down_ms);
void crew_drain(int who, int64_t down_ms);
void crew_freeze(int who, int64_t for_ms);
void crew_failpoint(int who, const char *point);
void crew_clock(int who, int64_t shift_ms);
void crew_starve(bool is_on); /* where no disk can be filled: no worker may write a file */
void crew_heal(void);         /* all thawed and up */
bool crew_ready(int64_t limit_ms);
void crew_close(void); /* each has to end with 0 */
void crew_kill_all(void);
struct crew_figures {
    int kills, drains, freezes, failpoints, starts, own_ends;
};
struct crew_figures crew_figures(void);
/* Redis and PostgreSQL: each does one thing after the other. */
void servers_open(void);
void servers_do(const struct event *e);
void servers_rest(void); /* until all that was asked for is done and both run */
void servers_close(void);

/* --- the load ----------------------------------------------------------------------------------------------------- */

enum { APPS = 3 };
void load_open(void); /* apps, keys, accounts, operations; a canary for each operation */
void load_start(int clients, int readers);
bool load_finish(int64_t limit_ms); /* no new jobs; what was asked is asked until it is answered */
bool load_heard(int64_t limit_ms);  /* until the end of every job was read */
void load_after(void);              /* a few jobs on the healed house, all to succeed */
void load_close(void);
struct load_figures {
    int64_t accepted, refused, replays, cancels, finals, calls, unanswered, busy, grants, downloads;
};
struct load_figures load_figures(void);
json_t *load_notes(void); /* what the customers were told: {jobs:[…], refused:[…], grants:[…]} */
extern char load_keys[APPS][64];

/* --- talk --------------------------------------------------------------------------------------------------------- */

struct answer {
    long status; /* 0: none */
    json_t *json;
    char *text;
    size_t len;
    bool is_replayed;
    int retry_after_s;
    int64_t asked_ms;
};
struct talk; /* one connection pool; a thread's own */
struct talk *talk_new(void);
void talk_free(struct talk *t);
struct answer talk_ask(struct talk *t, const char *method, const char *url, const char *body,
                       const char *const *headers, int64_t limit_ms);
void answer_done(struct answer *a);
const char *answer_string(const struct answer *a, const char *name); /* "" when absent */

/* --- the verdict -------------------------------------------------------------------------------------------------- */

void verdict_wait(void); /* every job ends within its bound */
void verdict_books(void);
void verdict_oracle(void);
void verdict_logs(void); /* no sanitizer has spoken */
#endif
