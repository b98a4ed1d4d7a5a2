# shellcheck shell=bash disable=SC2154
# overload - ten times more jobs than the workers can do, then normal again: what is lost, and how soon it is forgotten
#
# Sourced by scripts/bench. One worker of a known speed (KILN_CONCURRENCY calls at a time, each of a known length), an
# app with a bounded queue (KILN_MAX_QUEUED) that floods, and another that goes on as ever. Latencies count from when
# a request was due. A job is lost if its 202 has no row, or its row no end.

SECONDS_FULL=${BENCH_SECONDS:-60}
job='{"operation":"stability.generate.core","params":{"prompt":"a bench"}}'

flood() { # KEY SECONDS RATE PARALLEL [WAIT]: its lines
    KILN_API_KEY=$1 "$programs/tests/bench/bench_flood" "$url/v1/jobs" "$2" "$3" "$4" "$job" "${@:5}"
}
of() { sed -nE "s/^all=.* $1=(-?[0-9]+).*/\1/p" "$2"; }             # NAME FILE: of the whole run
open_jobs() { sql "select count(*) from jobs where finished_at is null"; }
drained() { [ "$(open_jobs)" = 0 ]; }
ended() { sql "select count(*) from jobs where state = 'succeeded'"; }

# The first second from which on nobody was refused and the 99th percentile is at most LIMIT ms; the length: never.
normal_from() { # FILE LIMIT
    awk -v limit="$2" '/^second=/ {
            n = split($0, part, /[ =]/); for (i = 1; i < n; i += 2) v[part[i]] = part[i + 1]
            if (v["accepted"] < v["sent"] || v["p99"] > limit || v["unsent"] > 0) from = v["second"] + 1
        } END { print from + 0 }' "$1"
}

bench_overload() {
    local capacity normal normal_end rate accepted before limit limit_end calm
    export KILN_MAX_QUEUED=500
    open_house
    set_sandbox '{"delay_ms":{"stability_generate":{"min":180,"max":220}}}'
    begin_worker worker1 KILN_CONCURRENCY=20
    {
        kiln app create calm && kiln grant --app calm default 10000000 --reference calm
    } >>"$home/log/kiln.log" 2>&1 || fail "kiln app create or grant failed" kiln
    calm=$(kiln key create --app calm --scopes jobs --json 2>>"$home/log/kiln.log" | grep -oE 'kiln_[A-Za-z0-9_-]{43}' | head -n 1)

    say "what the worker does in a second"
    flood "$KILN_API_KEY" 2 300 500 >"$home/warm"
    before=$(ended)
    flood "$KILN_API_KEY" 5 300 500 >"$home/capacity"
    capacity=$((($(ended) - before) / 5))
    [ "$capacity" -ge 1 ] || fail "no job ended" worker1
    wait_until 60 drained || fail "jobs do not end" worker1
    rate=$((capacity * 10))

    say "normal: ten jobs a second"
    flood "$calm" 8 10 200 >"$home/normal"
    flood "$calm" 8 10 200 30 >"$home/normal_end"
    normal=$(of p99 "$home/normal") normal_end=$(of p99 "$home/normal_end")
    limit=$((2 * normal > normal + 50 ? 2 * normal : normal + 50))
    limit_end=$((2 * normal_end > normal_end + 100 ? 2 * normal_end : normal_end + 100))
    wait_until 60 drained || fail "jobs do not end" worker1

    say "$rate jobs a second for $SECONDS_FULL s, on a worker that does $capacity"
    before=$(sql 'select count(*) from jobs')
    flood "$calm" "$SECONDS_FULL" 5 500 30 >"$home/calm" &
    flood "$KILN_API_KEY" "$SECONDS_FULL" "$rate" 2000 >"$home/flood"
    wait $!

    say "normal again"
    flood "$KILN_API_KEY" 15 5 500 >"$home/after" &
    flood "$KILN_API_KEY" 15 5 500 40 >"$home/after_end"
    wait $!
    wait_until 120 drained
    accepted=$(($(of accepted "$home/flood") + $(of accepted "$home/calm") + $(of accepted "$home/after") + $(of accepted "$home/after_end")))

    goal "from its end until accepting is as fast as before" "$(normal_from "$home/after" "$limit")" s at_most 10
    goal "from its end until a job is as fast as before" "$(normal_from "$home/after_end" "$limit_end")" s at_most 10
    goal "accepted (202) without a row" "$((accepted > $(sql 'select count(*) from jobs') - before ? accepted - $(sql 'select count(*) from jobs') + before : 0))" jobs exactly 0
    goal "accepted and not ended" "$(open_jobs)" jobs exactly 0
    goal "ended otherwise than well" "$(sql "select count(*) from jobs where state <> 'succeeded'")" jobs exactly 0
    goal "refusals that do not say when to come back" "$(of unhinted "$home/flood")" requests exactly 0
    goal "neither accepted nor refused" "$(($(of failed "$home/flood") + $(of other "$home/flood")))" requests exactly 0
    goal "differences that kiln audit finds" "$(sql 'select count(*) from kiln_audit()')" rows exactly 0
    figure "what the worker does" "$capacity" jobs/s
    figure "what came" "$(($(of sent "$home/flood") / SECONDS_FULL))" jobs/s
    figure "what was accepted of it" "$(($(of accepted "$home/flood") / SECONDS_FULL))" jobs/s
    figure "refused with 429" "$(of full "$home/flood")" requests
    figure "refused with 503" "$(of busy "$home/flood")" requests
    figure "99th percentile of a refusal" "$(of refused_p99 "$home/flood")" ms
    figure "99th percentile of accepting, normal" "$normal" ms
    figure "99th percentile of accepting, in the flood" "$(of p99 "$home/flood")" ms
    figure "99th percentile of a job, normal" "$normal_end" ms
    figure "99th percentile of the other app's jobs, in the flood" "$(of p99 "$home/calm")" ms
    figure "most memory of the dispatcher" "$(calc "$(memory_kib "${pid[dispatcher]}" VmHWM) / 1024" 1)" MiB
}
