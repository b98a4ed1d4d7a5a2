# shellcheck shell=bash disable=SC2154
# streams - ten thousand event streams, or long-polls, on one dispatcher: memory each, and how soon an end is seen
#
# Sourced by scripts/bench. bench_streams watches one job by each connection. The jobs end at a rate that their run_at sets,
# through a worker and a provider that refuses each at once, so that no result is stored: its fsync would stand beside
# PostgreSQL's on the same disk. A round with results stands beside that. What is counted is the time from PostgreSQL's
# commit of the end (track_commit_timestamp: taken before the commit is flushed) until the watcher has read the bytes that
# say so: the flush, the worker's answer, Redis, the dispatcher's read of the job, the socket. From finished_at, which
# the statement that ends a batch of jobs sets as it begins, stands beside it.

# BENCH_ROUNDS of BENCH_JOBS at BENCH_RATE a second; BENCH_LEAD: seconds for all to open and be looked at.
# BENCH_PARTS (--parts): of events, poll, stored.
ROUNDS=${BENCH_ROUNDS:-5} JOBS=${BENCH_JOBS:-10000} RATE=${BENCH_RATE:-1000} LEAD=${BENCH_LEAD:-25}
PARTS=${BENCH_PARTS:-events poll stored}

# lean.refuse: the provider knows no such path, and says 404 at once.
add_refusal() {
    printf '{"provider":"lean","operations":{' &&
        lean_operation call file | sed 's,lean\.call,lean.refuse,; s,/lean/call,/lean/refuse,' && printf '}}\n'
}

# Jobs that run one after the other, RATE a second, from FROM_MS (since 1970) on.
accept_timed() { # OPERATION FROM_MS
    local first batch=1000 status
    for ((first = 0; first < JOBS; first += batch)); do
        status=$(awk -v op="$1" -v from="$2" -v first="$first" -v count="$JOBS" -v most="$batch" -v rate="$RATE" 'BEGIN {
            printf "{\"jobs\":["
            for (i = first; i < first + most && i < count; i++) {
                ms = from + int(i * 1000 / rate)
                printf "%s{\"operation\":\"%s\",\"params\":{\"prompt\":\"a bench\"},\"run_at\":\"%s.%03dZ\"}",
                    (i > first ? "," : ""), op, strftime("%Y-%m-%dT%H:%M:%S", int(ms / 1000), 1), ms % 1000
            }
            printf "]}"
        }' | ask -m 60 -o "$home/log/batch.json" -w '%{http_code}' -X POST "$url/v1/batches" --data-binary @- \
            -H "Authorization: Bearer $KILN_API_KEY" -H 'Content-Type: application/json')
        [ "$status" = 202 ] || fail "a batch was answered $status: $(head -c 300 "$home/log/batch.json")" dispatcher
    done
}

# A dispatcher that has done nothing yet, at the place of the last one; sets watched (its name), base (KiB).
fresh_dispatcher() { # NAME
    end "$watched" 30
    watched=$1
    begin "$watched" env KILN_LISTEN="${url#http://}" KILN_SIGNING_KEY="$(head -c 32 /dev/urandom | base64)" \
        "$programs/dispatcher/kiln-dispatcher"
    wait_until 30 answers "$url/readyz" || fail "kiln-dispatcher is not ready" "$watched"
    ask -o /dev/null "$url/metrics"
    sleep 1
    base=$(memory_kib "${pid[$watched]}" VmRSS)
}

gauge() { ask "$url/metrics" | sed -nE "s/^$1 ([0-9]+).*/\1/p"; }
all_watch() { [ "$(gauge "$([ "$kind" = poll ] && echo kiln_waiters || echo kiln_streams)")" = "$JOBS" ]; }
is_open() { grep -q '^open=' "$home/log/watchers-$tag.log"; }

look_at_waiting() { # CPU and memory of the dispatcher while all wait
    local cpu began rss
    sleep 6 # past the first look that each takes by itself
    cpu=$(cpu_ms "${pid[$watched]}") began=$(now_ms)
    sleep 5
    cpu=$(($(cpu_ms "${pid[$watched]}") - cpu))
    rss=$(memory_kib "${pid[$watched]}" VmRSS)
    memories+=("$(calc "($rss - $base) / $JOBS" 2)") idles+=("$(calc "$cpu * 100 / ($(now_ms) - $began)" 1)")
}

run_watchers() { # NAME
    local from cpu began status=0
    tag=$kind-$1
    fresh_dispatcher "dispatcher-$tag"
    from=$(($(now_ms) + LEAD * 1000))
    accept_timed "$operation" "$from"
    fresh_dispatcher "dispatcher-$tag-b"
    sql "copy (select id from jobs where finished_at is null and state = 'queued' order by id) to stdout" >"$home/log/ids"
    begin "watchers-$tag" timeout $((LEAD + 180)) "$programs/tests/bench/bench_streams" "${url##*:}" "$kind" "$home/log/ids" "$home/log/told-$tag"
    wait_until "$LEAD" is_open || fail "the watchers did not open in time" "watchers-$tag"
    wait_until 10 all_watch || fail "the dispatcher does not have all watchers" "watchers-$tag"
    look_at_waiting
    [ "$(now_ms)" -lt "$from" ] || fail "the jobs began before all was looked at: LEAD is too short"
    while [ "$(now_ms)" -lt "$from" ]; do sleep 0.05; done
    cpu=$(cpu_ms "${pid[$watched]}") began=$(now_ms)
    # Not asked ten times a second: the programs which that starts would stand in the way of the ends.
    wait "${pid[watchers-$tag]}" || status=$?
    [ "$status" -le 1 ] || fail "not every watcher saw an end" "watchers-$tag" # 124: timeout's
    errors=$((errors + status))
    cpus+=("$(calc "($(cpu_ms "${pid[$watched]}") - $cpu) * 1000 / $JOBS")")
    rates+=("$(calc "$JOBS * 1000 / ($(now_ms) - $began)")")
    errors=$((errors + $(sed -nE 's/.* errors=([0-9]+) .*/\1/p' "$home/log/watchers-$tag.log")))
    unset "pid[watchers-$tag]"
    judge "$home/log/told-$tag"
    say "  $tag: p50 ${p50s[-1]} ms, p99 ${p99s[-1]} ms, ${memories[-1]} KiB each, idle CPU ${idles[-1]} %, ${cpus[-1]} us an end"
}

judge() { # FILE: when each was told
    local p50 p99 f50 f99 seen
    sql "truncate told"
    sql "copy told from stdin (delimiter ' ')" <"$1" || fail "PostgreSQL does not take $1"
    IFS='|' read -r p50 p99 f50 f99 seen < <(sql "
        with d as (select t.us / 1000.0 - extract(epoch from pg_xact_commit_timestamp(j.xmin)) * 1000 as c,
                          t.us / 1000.0 - extract(epoch from j.finished_at) * 1000 as f
                   from told t join jobs j on j.id = t.id::uuid where j.state in ('succeeded', 'failed'))
        select round(percentile_disc(0.5) within group (order by c), 2), round(percentile_disc(0.99) within group (order by c), 2),
               round(percentile_disc(0.5) within group (order by f), 2), round(percentile_disc(0.99) within group (order by f), 2),
               count(*) from d")
    p50s+=("$p50") p99s+=("$p99") f50s+=("$f50") f99s+=("$f99")
    lost=$((lost + JOBS - seen))
}

watch_ends() { # events|poll OPERATION ROUNDS; fills p50s and the other lists
    local kind=$1 operation=$2 round tag
    p50s=() p99s=() f50s=() f99s=() memories=() idles=() cpus=() rates=()
    for ((round = 1; round <= $3; round++)); do
        say "$JOBS watchers, $kind of $operation, round $round of $3"
        run_watchers "$operation-$round"
    done
}
show_ends() { # NAME
    goal "memory of the dispatcher for each of $JOBS $1" "$(median "${memories[@]}")" KiB at_most 12
    goal "$1: from the commit of an end to its watcher, p99" "$(median "${p99s[@]}")" ms at_most 10
    figure "the same, p50" "$(median "${p50s[@]}")" ms
    figure "from finished_at to the watcher, p50" "$(median "${f50s[@]}")" ms
    figure "the same, p99" "$(median "${f99s[@]}")" ms
    figure "jobs that ended, over the whole run" "$(median "${rates[@]}")" jobs/s
    figure "CPU of the dispatcher while all of them wait" "$(median "${idles[@]}")" %
    figure "CPU of the dispatcher for an end that is told" "$(median "${cpus[@]}")" us
}

bench_streams() {
    local part errors=0 lost=0 watched=dispatcher base p50s p99s f50s f99s memories idles cpus rates
    open_lean
    add_refusal >"$home/catalog/refuse.json"
    # Owner of nothing here: the servers' superuser, by the socket that scripts/services made.
    KILN_DATABASE_URL=${KILN_DATABASE_URL/user=kiln/user=postgres} sql 'alter system set track_commit_timestamp = on' ||
        fail "PostgreSQL does not take the setting"
    scripts/services restart-postgres --dir "$home/services" >>"$home/log/services.log" 2>&1 || fail "PostgreSQL does not start again" services
    wait_until 30 answers "$url/readyz" || fail "kiln-dispatcher is not ready again" dispatcher
    sql 'create table told (id text, us bigint)'
    set_lean '{"delay_ms":0,"bytes":1000,"polls":0}'
    begin_worker worker
    for part in $PARTS; do
        case $part in
        events)
            watch_ends events lean.refuse "$ROUNDS"
            show_ends "event streams"
            ;;
        poll)
            watch_ends poll lean.refuse "$ROUNDS"
            show_ends "long-polls"
            ;;
        stored)
            watch_ends events lean.call 1
            figure "event streams, results stored: from the commit of an end, p50" "${p50s[0]}" ms
            figure "the same, p99" "${p99s[0]}" ms
            ;;
        *) fail "there is no part $part" ;;
        esac
    done
    goal "watchers that were cut off, refused or never told" "$errors" watchers exactly 0
    goal "jobs whose end no watcher saw" "$lost" jobs exactly 0
    end worker 30 || fail "the worker did not end well" worker
    kiln audit >>"$home/log/kiln.log" 2>&1 || fail "the books do not add up" kiln
}
