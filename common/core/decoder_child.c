/* decoder_child.c - the side that answers: locks itself up, then checks file after file until nobody asks any more.
 *
 * What is left to it after the start: memory, the descriptors it is handed, its one socket, and to end. Everything else
 * (open, connect, clone, execve, ptrace, …) answers EPERM, by a list of what is allowed. Its parent's death is the end
 * of the socket and, should it be busy, a signal. */
#define _GNU_SOURCE /* close_range */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/base/failpoint.h"
#include "common/base/text.h"
#include "common/core/decoder.h"

#if defined(__x86_64__)
#define OUR_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define OUR_ARCH AUDIT_ARCH_AARCH64
#endif

enum { FILES_MAX = 32 };

#ifdef OUR_ARCH
#define FIELD(name) ((uint32_t)offsetof(struct seccomp_data, name))
#define ALLOW(name) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##name, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
#define DENY        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM)

/* Allowed if the argument fits; four steps to look. */
#define ALLOW_IF(name, arg, test, value, yes, no)                                                                      \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##name, 0, 4), BPF_STMT(BPF_LD | BPF_W | BPF_ABS, FIELD(args[arg])),       \
        BPF_JUMP(BPF_JMP | (test) | BPF_K, value, yes, no), DENY, BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
#define ALLOW_DATA(name)       ALLOW_IF(name, 2, BPF_JSET, PROT_EXEC, 0, 1) /* no memory that can be run */
#define ALLOW_FOR(name, value) ALLOW_IF(name, 0, BPF_JEQ, value, 1, 0)      /* on nobody else */

static bool lock_calls(void)
{
    struct sock_filter steps[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, FIELD(arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OUR_ARCH, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, FIELD(nr)),
        ALLOW_DATA(mmap),
        ALLOW_DATA(mprotect),
        ALLOW(recvmsg),
        ALLOW(sendto),
        ALLOW(read),
        ALLOW(pread64),
        ALLOW(write), /* standard error: the fail points, and the sanitizers' reports */
        ALLOW(munmap),
        ALLOW(mremap),
        ALLOW(madvise),
        ALLOW(brk),
        ALLOW(close),
        ALLOW(fstat),
#ifdef SYS_newfstatat
        ALLOW(newfstatat), /* what glibc makes of fstat; an empty path is all that can be seen from here */
#endif
        ALLOW(futex),
        ALLOW(sched_yield),
        ALLOW_FOR(prlimit64, 0), /* the CPU time of the next file */
        ALLOW(getrusage),
        ALLOW(clock_gettime),
        ALLOW(clock_nanosleep),
        ALLOW(nanosleep),
        ALLOW(restart_syscall),
        ALLOW(rt_sigaction),
        ALLOW(rt_sigprocmask),
        ALLOW(rt_sigreturn),
        ALLOW(sigaltstack),
        ALLOW(getpid),
        ALLOW(gettid),
        ALLOW_FOR(tgkill, (uint32_t)getpid()), /* abort, raise */
        ALLOW(exit),
        ALLOW(exit_group),
        DENY,
    };
    struct sock_fprog program = { .len = ARRAY_LEN(steps), .filter = steps };

    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}
#else
static bool lock_calls(void) /* no list for this machine: the limits have to do */
{
    return true;
}
#endif

static bool limit(int what, rlim_t soft, rlim_t hard)
{
    return setrlimit(what, &(struct rlimit){ .rlim_cur = soft, .rlim_max = hard }) == 0;
}

static bool lock_up(void)
{
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)prctl(PR_SET_DUMPABLE, 0);
    (void)close_range(DECODER_FD + 1, ~0U, 0); /* what the parent had open without close-on-exec */
    (void)close(STDIN_FILENO);
    (void)close(STDOUT_FILENO);
#ifndef KILN_FAILPOINTS /* they speak on standard error, which may be a file */
    (void)limit(RLIMIT_FSIZE, 0, RLIM_INFINITY);
#endif
    return limit(RLIMIT_CORE, 0, 0) && limit(RLIMIT_NOFILE, FILES_MAX, FILES_MAX) && lock_calls();
}

/* CPU time is counted from the process's start, and the limit with it. */
static void limit_file(const struct decoder_question *q)
{
    struct rusage used;
    rlim_t seconds = 1;

    if (getrusage(RUSAGE_SELF, &used) == 0)
        seconds += (rlim_t)(used.ru_utime.tv_sec + used.ru_stime.tv_sec);
    (void)limit(RLIMIT_CPU, seconds + (rlim_t)q->cpu_s, RLIM_INFINITY);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    (void)limit(RLIMIT_AS, (rlim_t)q->memory_bytes, RLIM_INFINITY);
#endif
}

/* The question, and the file that came with it; -1: it is over. */
static int next_file(struct decoder_question *q)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec part = { .iov_base = q, .iov_len = sizeof(*q) };
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)
    };
    const struct cmsghdr *head;
    ssize_t got;
    int file = -1;

    do
        got = recvmsg(DECODER_FD, &message, MSG_CMSG_CLOEXEC);
    while (got < 0 && errno == EINTR);
    head = got == (ssize_t)sizeof(*q) ? CMSG_FIRSTHDR(&message) : NULL;
    if (head != NULL && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS)
        memcpy(&file, CMSG_DATA(head), sizeof(file));
    return file;
}

/* Test builds: a point for all files, and one for each kind ("decoder.webp.before"), so that one file of many is
 * hostile.
 */
static void meet_fail_points(const struct decoder_question *q, int file)
{
    if (q->deaths == 0) /* a death that was not the file's doing */
        (void)FAILPOINT("decoder.decode");
#ifdef KILN_FAILPOINTS
    unsigned char head[16];
    ssize_t got = pread(file, head, sizeof(head), 0); /* the offset is shared with whoever gets it next */

    (void)failpoint_hit_of("decoder", media_extension(media_sniff(head, got > 0 ? (size_t)got : 0).kind), "before", -1);
#else
    (void)file;
#endif
}

int decoder_child(void)
{
    struct decoder_question q;
    int file;

    if (!lock_up())
        _exit(1);
    while ((file = next_file(&q)) >= 0) {
        struct decoder_answer a = { 0 };
        struct media_head head = { 0 };
        struct media_look look = { .blurhash = "" };

        limit_file(&q);
        meet_fail_points(&q, file);
        a.err = (int32_t)media_check_fd(file, q.max_pixels, &head, &look, a.reason, sizeof(a.reason));
        (void)close(file); /* read only */
        a.kind = (int32_t)head.kind;
        a.width = head.width;
        a.height = head.height;
        a.has_alpha = head.has_alpha;
        a.bytes_per_s = head.bytes_per_s;
        a.sound_at = head.sound_at;
        memcpy(a.blurhash, look.blurhash, sizeof(a.blurhash));
        memcpy(a.color, look.color, sizeof(a.color));
        if (send(DECODER_FD, &a, sizeof(a), MSG_NOSIGNAL) != (ssize_t)sizeof(a))
            break;
    }
    _exit(0);
}
