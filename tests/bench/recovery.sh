# shellcheck shell=bash disable=SC2154
# recovery - workers killed and stalled, Redis emptied, PostgreSQL away, drains: how long until all goes on
#
# Sourced by scripts/bench. Five parts, each with services of its own: kills, stalls, flush, outage, drains. In every one
# the sandbox says at the end how often each job was paid.

# shellcheck source=tests/bench/inflight.sh
. tests/bench/inflight.sh # submit_jobs, not_once, drain, worker_says

KILLS=${BENCH_KILLS:-100} MINUTES=${BENCH_MINUTES:-10} PARTS=${BENCH_PARTS:-kills stalls flush outage drains}
JOBS=${BENCH_JOBS:-5000}        # in flight while workers are killed
QUEUED=${BENCH_QUEUED:-100000}  # when Redis is emptied
AWAY=${BENCH_AWAY:-60}          # seconds without PostgreSQL
STALL=${BENCH_STALL:-2}         # seconds of SIGSTOP
WAITING=${BENCH_WAITING:-10000} # of the drains
long_deadline='{"provider":"leonardo","operations":{"leonardo.generate":{"deadline_s":14400}}}'

unfinished() { sql "select count(*) from jobs where captured_mc is null"; }
none_unfinished() { [ "$(unfinished)" = 0 ]; }
in_flight() { [ "$(references)" = "$1" ] && [ "$(held)" = "$1" ]; }

# Tags that were paid more than once, of all jobs of this part.
paid_again() {
    ask -m 60 "$sandbox/_sandbox/counters" | tr '{' '\n' | awk '
        is_tag { if ($0 !~ /"paid":[01],/) n++; is_tag = 0 }
        /"[a-z][0-9]+(-[0-9]+)?":$/ { is_tag = 1 }
        END { print n + 0 }'
}

# Of lines "VALUE COUNT": the value below which lies that part of all.
percentile() { # FILE PART
    sort -n "$1" | awk -v part="$2" '{ v[NR] = $1; n[NR] = $2; all += $2 }
        END { for (i = 1; i <= NR; i++) { sum += n[i]; if (sum >= all * part) { print v[i]; exit } } }'
}

settle_part() { # NAME: everything ends, nobody was paid twice, the books add up; then the next part has the machine
    wait_until 600 none_unfinished || fail "$1: $(unfinished) jobs do not end" dispatcher
    goal "$1: jobs that did not succeed" "$(sql "select count(*) from jobs where state <> 'succeeded'")" jobs exactly 0
    goal "$1: jobs paid more than once" "$(paid_again)" jobs exactly 0
    kiln audit >>"$home/log/kiln.log" 2>&1 || fail "$1: the books do not add up" kiln
    close_house
}

# --- kill -9 of one of three workers, again and again --------------------------------------------------

# The worker that holds the most.
busiest() {
    local most
    most=$(sql "select w.info ->> 'pid' from jobs j join workers w on w.id = j.holder group by 1 order by count(*) desc limit 1")
    for name in "${!pid[@]}"; do [ "${pid[$name]}" = "$most" ] && echo "$name" && return; done
    return 1
}

bench_kills() {
    local i victim seen file=$home/takeovers dead=$home/dead jobs=0 each
    say "$KILLS kills with $JOBS jobs in flight"
    open_house "$long_deadline"
    set_sandbox '{"delay_ms":{"leonardo":14400000}}'
    for i in a b c; do begin_worker "worker-$i"; done
    submit_jobs "$JOBS" "$leonardo_job"
    wait_until 120 in_flight "$JOBS" || fail "only $(references) of $JOBS jobs are in flight" worker-a
    sleep 3
    for ((i = 1; i <= KILLS; i++)); do
        victim=$(busiest) || fail "nobody holds a job" dispatcher
        disown "${pid[$victim]}"
        "$programs/tests/bench/bench_takeover" "${pid[$victim]}" "$file" >"$home/seen" 2>>"$home/log/takeover.log" &
        seen=$!
        begin_worker "worker$i" # somebody starts the next one at once
        wait "$seen" || fail "the jobs of $victim were not taken over" takeover
        unset "pid[$victim]"
        sed -nE 's/.*dead_ms=([0-9]+).*/\1 1/p' "$home/seen" >>"$dead"
        each=$(sed -nE 's/.*jobs=([0-9]+).*/\1/p' "$home/seen")
        jobs=$((jobs + each))
        [ $((i % 10)) != 1 ] || say "kill $i: $(<"$home/seen")"
        wait_until 30 in_flight "$JOBS" || fail "after kill $i only $(references) jobs are in flight, $(held) held" "worker$i"
        sleep 1
    done
    figure "kills: jobs that the dead worker held, mean of $KILLS" "$(calc "$jobs / $KILLS")" jobs
    figure "kills: from SIGKILL to the dead mark, p50" "$(percentile "$dead" 0.5)" ms
    figure "kills: the same, p99" "$(percentile "$dead" 0.99)" ms
    figure "kills: from SIGKILL until a job has a living holder, p50" "$(percentile "$file" 0.5)" ms
    goal "kills: the same, p99 of all jobs" "$(percentile "$file" 0.99)" ms at_most 7000
    figure "kills: the same, the last job of the slowest kill" "$(percentile "$file" 1)" ms
    say "the workers that are left finish them"
    set_sandbox '{"clock_offset_ms":14400000}'
    wait_until 300 none_unfinished || fail "only $(finished) have finished" dispatcher
    goal "kills: jobs whose submit the sandbox did not see exactly once" "$(not_once "$JOBS" w)" jobs exactly 0
    settle_part kills
}

# --- stalls shorter than what counts as dead -----------------------------------------------------------

# A dead mark goes when its worker beats again, so each one is written down as it is set.
note_marks() {
    sql "create table bench_marks (id uuid, at timestamptz default clock_timestamp());
        create function bench_mark() returns trigger language plpgsql as
            \$\$ begin insert into bench_marks (id) values (new.id); return null; end \$\$;
        create trigger bench_mark after update on workers for each row
            when (new.dead_at is not null and old.dead_at is null) execute function bench_mark()" ||
        fail "cannot write down the dead marks"
}

# Keeps some thousand jobs queued until FILE is there.
feed() { # FILE
    local n=0
    until [ -e "$1" ]; do
        if [ "$(sql "select count(*) from jobs where finished_at is null and state = 'queued'")" -lt 2000 ]; then
            "$programs/tests/bench/bench_submit" "$url/v1/jobs" 1000 16 "${core_job//@/f$n-}" >/dev/null || return 1
            "$programs/tests/bench/bench_submit" "$url/v1/jobs" 200 16 "${leonardo_job//:w/:g$n-}" >/dev/null || return 1
            n=$((n + 1))
        else
            sleep 0.2
        fi
    done
}

bench_stalls() {
    local until i=0 names=(worker-a worker-b worker-c) victim feeder began done_before
    say "$MINUTES minutes of full load with stalls of $STALL s"
    open_house
    set_sandbox '{"delay_ms":{"stability_generate":{"min":500,"max":1500},"leonardo":{"min":3000,"max":6000}}}'
    note_marks
    for victim in "${names[@]}"; do begin_worker "$victim"; done
    feed "$home/fed" 2>>"$home/log/feed.log" &
    feeder=$!
    sleep 5
    began=$(now_ms) done_before=$(finished)
    until=$((began + MINUTES * 60000))
    while [ "$(now_ms)" -lt "$until" ]; do
        victim=${names[$((RANDOM % 3))]}
        kill -STOP "${pid[$victim]}"
        sleep "$STALL"
        kill -CONT "${pid[$victim]}"
        i=$((i + 1))
        sleep "0.$((RANDOM % 9 + 1))"
    done
    figure "stalls: of $STALL s, one worker after the other" "$i" stalls
    figure "stalls: jobs finished meanwhile" "$(calc "($(finished) - $done_before) * 1000 / ($(now_ms) - $began)")" jobs/s
    goal "stalls: dead marks" "$(sql "select count(*) from bench_marks")" marks exactly 0
    touch "$home/fed"
    wait "$feeder" || fail "not every job was accepted" feed
    goal "stalls: take-overs of a job" "$(sql "select coalesce(sum(fence - attempt), 0) from jobs")" jobs exactly 0
    settle_part stalls
}

# --- Redis emptied -------------------------------------------------------------------------------------

redis() { redis-cli -s "$redis_socket" "$@"; }
starts() { # jobs that kiln_start let go, of all workers
    local u
    for u in "${urls[@]}"; do ask "$u/metrics"; done | awk '/^kiln_worker_starts_total.*verdict="go"/ { n += $2 } END { print n + 0 }'
}
is_complete() { [ "$(grep -c 'event=redis_complete' "$home/log/dispatcher.log")" -gt "$1" ]; }
ready() { redis --raw --scan --pattern 'kiln:{0}:jobs:stability:*' | while read -r key; do redis --raw zrange "$key" 0 -1; done; }
all_published() { [ "$(ready | wc -l)" -ge "$1" ]; }

# Lines "MS STARTS", four a second, for so many seconds.
sample_starts() { # SECONDS
    local began until
    began=$(now_ms)
    until=$((began + $1 * 1000))
    while [ "$(now_ms)" -lt "$until" ]; do
        echo "$(($(now_ms) - began)) $(starts)"
        sleep 0.2
    done
}

# Rates over two seconds each, RATE being the one before: the lowest that began within ten seconds, and when one of nine
# tenths began after it.
full_again() { # FILE RATE; sets lowest, full
    read -r lowest full < <(awk -v rate="$2" '{ t[NR] = $1; n[NR] = $2 }
        END {
            for (i = 1; i <= NR; i++)
                for (k = i + 1; k <= NR; k++)
                    if (t[k] - t[i] >= 2000) {
                        r[++last] = (n[k] - n[i]) * 1000 / (t[k] - t[i])
                        if (t[i] < 10000 && (!at || r[last] < r[at])) at = last
                        break
                    }
            full = 999999
            for (i = at; i <= last; i++) if (r[i] >= 0.9 * rate) { full = r[at] >= 0.9 * rate ? 0 : t[i]; break }
            printf "%.0f %d\n", r[at], full
        }' "$1")
}

empty_redis() { # sets began
    completes=$(grep -c 'event=redis_complete' "$home/log/dispatcher.log")
    began=$(now_ms)
    redis flushall >/dev/null || fail "Redis does not answer"
}

bench_flush() {
    local urls=() rate began known i completes redis_socket lowest full left
    say "FLUSHALL with $QUEUED jobs queued"
    open_house
    redis_socket=${KILN_REDIS_URL#unix:}
    redis_socket=${redis_socket%%\?*}
    set_sandbox '{"delay_ms":{"stability_generate":500}}'
    submit_jobs $((QUEUED + QUEUED / 5)) "${core_job//@/q}"
    wait_until 60 all_published $((QUEUED + QUEUED / 5)) || fail "they are not all published" dispatcher
    empty_redis
    wait_until 120 is_complete "$completes" || fail "the full pass does not end" dispatcher
    figure "flush: until Redis knows all $((QUEUED + QUEUED / 5)) again, no worker at work" $(($(now_ms) - began)) ms
    for i in a b; do
        begin_worker "worker-$i"
        urls+=("$worker_url")
    done
    sleep 5
    sample_starts 5 >"$home/before"
    rate=$(awk 'NR == 1 { t = $1; n = $2 } { last = $1; m = $2 } END { printf "%.0f", (m - n) * 1000 / (last - t) }' "$home/before")
    left=$(sql "select count(*) from jobs where finished_at is null and state = 'queued'")
    empty_redis
    sample_starts 25 >"$home/after" &
    i=$!
    wait_until 60 is_complete "$completes" || fail "the full pass does not end" dispatcher
    known=$(($(now_ms) - began))
    wait "$i"
    full_again "$home/after" "$rate"
    figure "flush: jobs queued when Redis was emptied" "$left" jobs
    figure "flush: jobs started before, a second" "$rate" jobs/s
    figure "flush: the same afterwards, lowest over two seconds" "$lowest" jobs/s
    goal "flush: until nine tenths as many are started again" "$full" ms at_most 10000
    goal "flush: until Redis knows all of them again" "$known" ms at_most 10000
    for i in a b; do end "worker-$i" 60 || fail "worker-$i did not end well" "worker-$i"; done
    sleep 3 # the last of them are finished, or published again
    goal "flush: queued jobs that Redis does not know" "$(comm -23 <(sql "select id from jobs where finished_at is null and state = 'queued'" | sort) \
        <({ ready && redis --raw zrange 'kiln:{0}:delayed:stability' 0 -1; } | sort) | wc -l)" jobs exactly 0
    goal "flush: jobs paid more than once" "$(paid_again)" jobs exactly 0
    goal "flush: jobs with more than one attempt that may have been sent" \
        "$(sql "select count(*) from (select 1 from attempts where class is distinct from 'not_sent' group by job_id having count(*) > 1) x")" jobs exactly 0
    kiln audit >>"$home/log/kiln.log" 2>&1 || fail "flush: the books do not add up" kiln
    close_house
}

# --- PostgreSQL away -----------------------------------------------------------------------------------

said() { sed -nE "s/^status=$1 .*\b$2=([0-9.]+).*/\1/p" "$home/probe"; } # STATUS NAME
parked() {
    local u
    for u in "${urls[@]}"; do ask "$u/metrics"; done | awk '/^kiln_worker_parked / { n += $2 } END { print n + 0 }'
}

bench_outage() {
    local urls=() i probe most=0 now began accepted back
    say "PostgreSQL away for $AWAY s under load"
    open_house
    set_sandbox '{"delay_ms":{"stability_generate":{"min":500,"max":1500},"leonardo":{"min":3000,"max":6000}}}'
    for i in a b; do
        begin_worker "worker-$i" KILN_CONCURRENCY=500
        urls+=("$worker_url")
    done
    submit_jobs 5000 "${core_job//@/o}" # more than is done before it goes
    "$programs/tests/bench/bench_probe" "$url/v1/jobs" $((AWAY + 20)) 100 "${leonardo_job//:w/:p}" >"$home/probe" &
    probe=$!
    sleep 5
    scripts/services kill-postgres --dir "$home/services" || fail "PostgreSQL is not to be killed"
    began=$(now_ms)
    while [ $(($(now_ms) - began)) -lt $((AWAY * 1000)) ]; do
        now=$(parked)
        [ "$now" -le "$most" ] || most=$now
        sleep 1
    done
    scripts/services start-postgres --dir "$home/services" >/dev/null || fail "PostgreSQL does not come back"
    back=$(now_ms)
    wait "$probe"
    wait_until 300 none_unfinished || fail "outage: $(unfinished) jobs do not end" worker-a
    accepted=$(($(said 202 count) + 5000))
    figure "outage: accepts answered 202 before and after" "$(said 202 count)" accepts
    figure "outage: accepts answered 503" "$(said 503 count)" accepts
    figure "outage: until the answer 503, p50" "$(said 503 p50_ms)" ms
    goal "outage: the same, p99" "$(said 503 p99_ms)" ms at_most 100
    figure "outage: the slowest, whose row was on its way" "$(said 503 max_ms)" ms
    goal "outage: 503 without Retry-After" "$(said 503 unsaid)" answers exactly 0
    goal "outage: other answers or none" "$(awk -F '[= ]' '$2 != 202 && $2 != 503 { n += $4 } END { print n + 0 }' "$home/probe")" answers exactly 0
    figure "outage: most outcomes parked at once" "$most" outcomes
    figure "outage: from PostgreSQL's return to the end of all that was accepted" $(($(now_ms) - back)) ms
    i=$((accepted - $(sql "select count(*) from jobs")))
    goal "outage: jobs that were answered 202 and are gone" $((i > 0 ? i : 0)) jobs exactly 0
    settle_part outage
}

# --- drains --------------------------------------------------------------------------------------------

bench_drains() {
    local i worst=0 status=0 all=()
    say "drains with $WAITING jobs waiting"
    open_house "$long_deadline"
    set_sandbox '{"delay_ms":{"leonardo":14400000}}'
    begin_worker worker0
    submit_jobs "$WAITING" "$leonardo_job"
    for ((i = 0; i < DRAINS; i++)); do
        wait_until 180 all_wait || fail "they do not all wait: $(references) references, $(worker_says waiting) waiting" "worker$i"
        sleep 5
        drain "worker$i"
        all+=("$gone_ms")
        [ "$gone_ms" -le "$worst" ] || worst=$gone_ms
        [ "$drain_status" = 0 ] || status=$drain_status
        begin_worker "worker$((i + 1))"
    done
    figure "drains: from SIGTERM to the end of the process, median of $DRAINS" "$(median "${all[@]}")" ms
    goal "drains: the slowest" "$worst" ms at_most 2000
    goal "drains: worst exit status" "$status" status exactly 0
    wait_until 180 all_wait || fail "the next worker does not take over" "worker$DRAINS"
    set_sandbox '{"clock_offset_ms":14400000}'
    wait_until 300 none_unfinished || fail "only $(finished) have finished" "worker$DRAINS"
    goal "drains: jobs whose submit the sandbox did not see exactly once" "$(not_once "$WAITING" w)" jobs exactly 0
    settle_part drains
}

bench_recovery() {
    local part
    for part in $PARTS; do
        declare -F "bench_$part" >/dev/null || fail "there is no part $part: kills stalls flush outage drains"
        "bench_$part"
    done
}
