# shellcheck shell=bash
# lib.sh - what the scripts here share: how they speak, and how they know that a process is theirs.
# Sourced, never run. A pid file holds "PID START"; START is the process's start time in clock ticks
# (field 22 of /proc/PID/stat), so that a pid which the kernel has given to somebody else is never taken
# for ours, let alone killed.

say() { printf '%s\n' "$*"; }
warn() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() {
    warn "$@"
    exit 1
}

# Start time of process $1; fails when there is none, or only its zombie.
proc_start() {
    local stat
    { stat=$(<"/proc/$1/stat"); } 2>/dev/null || return 1
    stat=${stat##*) } # the command's name may hold blanks and brackets
    # shellcheck disable=SC2086 # the fields are numbers, but for the letter of the state
    set -- $stat
    [ "$1" != Z ] && printf '%s\n' "${20}"
}

# Is $2 one of the words that process $1 was started with?
proc_has_word() {
    [ -r "/proc/$1/cmdline" ] && tr '\0' '\n' <"/proc/$1/cmdline" 2>/dev/null | grep -qxF -- "$2"
}

# Prints the pid of pid file $1 when that very process still runs.
pid_running() {
    local pid start
    { read -r pid start <"$1"; } 2>/dev/null || return 1
    case $pid in '' | *[!0-9]*) return 1 ;; esac
    [ -n "$start" ] && [ "$(proc_start "$pid")" = "$start" ] && printf '%s\n' "$pid"
}

pid_record() { # FILE PID
    local start
    start=$(proc_start "$2") || return 1
    printf '%s %s\n' "$2" "$start" >"$1.new" && mv -f "$1.new" "$1"
}

# Waits until command "$@" succeeds, looking ten times a second, at most $1 seconds.
wait_until() {
    local tries=$(($1 * 10))
    shift
    until "$@"; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || return 1
        sleep 0.1
    done
}

# Runs "$@" as a daemon of its own session, with log $2 and pid file $1. Fails when it is gone at once.
daemon_start() { # PIDFILE LOG COMMAND...
    local pidfile=$1 log=$2
    shift 2
    setsid -- "$@" </dev/null >>"$log" 2>&1 9>&- &
    disown
    pid_record "$pidfile" $!
}

pid_gone() { ! pid_running "$1" >/dev/null; }

# Ends the process of pid file $1: SIGTERM, at most $2 seconds of patience, then SIGKILL.
daemon_stop() { # PIDFILE SECONDS
    local pid
    if pid=$(pid_running "$1"); then
        kill -TERM "$pid" 2>/dev/null
        if ! wait_until "$2" pid_gone "$1"; then
            kill -KILL "$pid" 2>/dev/null
            wait_until 10 pid_gone "$1" || return 1
        fi
    fi
    rm -f "$1"
}

# Takes out of the environment all that would steer kiln: its own settings, every provider's key and
# address, S3 credentials, and the PG* variables that libpq reads by itself.
forget_settings() {
    local name
    while read -r name; do
        case $name in
        KILN_* | *_BASE_URL | PG[A-Z]*) unset "$name" ;;
        AWS_ACCESS_KEY_ID* | AWS_SECRET_ACCESS_KEY* | AWS_SESSION_TOKEN* | AWS_PROFILE | AWS_REGION | AWS_DEFAULT_REGION) unset "$name" ;;
        OPENAI_API_KEY* | STABILITY_API_KEY* | LEONARDO_API_KEY* | REPLICATE_API_TOKEN* | HF_TOKEN*) unset "$name" ;;
        GEMINI_API_KEY* | ARK_API_KEY* | TTAPI_API_KEY* | RUNPOD_API_KEY*) unset "$name" ;; # and their _FILE
        esac
    done < <(compgen -e)
}
