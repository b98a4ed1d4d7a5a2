#!/usr/bin/env bash
# A process is known by pid and start time, and ends when it is told to.
. "$(dirname "$0")/claims.sh"
. "$root/scripts/lib.sh"

claim "a daemon starts" daemon_start "$work/a.pid" "$work/log" sleep 300
pid=$(pid_running "$work/a.pid")
its_command() { [ "$(tr '\0' ' ' <"/proc/$pid/cmdline")" = "sleep 300 " ]; }
claim "its pid file names it" wait_until 10 its_command # in the middle of its exec it has none
claim "it is in a session of its own" same "$(ps -o sid= -p "$pid" | tr -d ' ')" "$pid"

read -r _ start <"$work/a.pid"
echo "$pid $((start - 1))" >"$work/reused.pid"
claim "a pid that started at another time is not ours" not pid_running "$work/reused.pid"
claim "and stopping it" daemon_stop "$work/reused.pid" 1
claim "leaves the stranger alone" kill -0 "$pid"

claim "a daemon stops" daemon_stop "$work/a.pid" 10
claim "and is gone" not proc_start "$pid"
claim "and so is its pid file" not test -e "$work/a.pid"

daemon_start "$work/b.pid" "$work/log" bash -c 'trap "" TERM; while :; do sleep 0.1; done'
pid=$(pid_running "$work/b.pid")
wait_until 10 grep -q 'SigIgn:.*[4-7c-f]...$' "/proc/$pid/status" # bit 14: SIGTERM
claim "one that ignores SIGTERM is killed" daemon_stop "$work/b.pid" 1
claim "and is gone too" not proc_start "$pid"

echo nonsense >"$work/c.pid"
claim "nonsense in a pid file is nobody" not pid_running "$work/c.pid"

export OPENAI_API_KEY=x HF_TOKEN_FILE=x LEONARDO_BASE_URL=x KILN_LISTEN=x PGHOST=x AWS_SECRET_ACCESS_KEY=x KILNS=x
forget_settings
claim "settings and keys are forgotten, and nothing else" \
    same "${OPENAI_API_KEY-}${HF_TOKEN_FILE-}${LEONARDO_BASE_URL-}${KILN_LISTEN-}${PGHOST-}${AWS_SECRET_ACCESS_KEY-}$KILNS" x
