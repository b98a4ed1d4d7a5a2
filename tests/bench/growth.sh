# shellcheck shell=bash disable=SC2154
# growth - what becomes dearer with more jobs, more accounts, more workers; and how many reads one dispatcher answers
#
# Sourced by scripts/bench. Three parts. claim: bench_queue's servers with 1,000 to 1,000,000 jobs of 10 or 10,000 accounts
# take turns; what counts is Redis' own CPU for a claimed job, and beside it stands what reading a job by plain commands
# costs in the same queue. workers: the same schedule of jobs, with calls of a second, for one worker and for four, in
# turns; what counts is the CPU of all workers. reads: finished jobs by id, by wrk with 64 connections on the same two
# cores, whole and with the ETag that the reader has.

# BENCH_PARTS (--parts): of claim, workers, reads. BENCH_QUEUED: no more jobs than that in the queue.
ROUNDS=${BENCH_ROUNDS:-5} PARTS=${BENCH_PARTS:-claim workers reads}
RATE=${BENCH_RATE:-500} SECONDS_EACH=${BENCH_SECONDS_EACH:-10} FINISHED=${BENCH_JOBS:-10000} KNOWN=1000

# --- claims ------------------------------------------------------------------------------------------

bench_claims() {
    local out queued accounts part us wall most_bytes=0 by_jobs=() by_accounts=() floors=() largest=0
    say "claims: queues of up to ${BENCH_QUEUED:-1000000} jobs"
    out=$("$programs/tests/bench/bench_queue" 2>>"$home/log/queue.log" | grep -E '^[0-9]+ [0-9]+ [a-z]+ ') || fail "bench_queue failed" queue
    while read -r queued accounts part us wall; do
        case $part in
        floor)
            figure "$queued queued, $accounts accounts: floor, record and envelope read (wall $wall)" "$us" us
            [ "$accounts" != 10 ] || floors+=("$us")
            ;;
        claim | publish | forget)
            figure "$queued queued, $accounts accounts: $part, Redis' CPU (wall $wall)" "$us" us
            [ "$part" = claim ] || continue
            [ "$accounts" != 10 ] || by_jobs+=("$us")
            [ "$queued" -le "$largest" ] || by_accounts=() largest=$queued
            by_accounts+=("$us")
            ;;
        memory)
            figure "$queued queued, $accounts accounts: memory a queued job" "$us" bytes
            [ "$us" -le "$most_bytes" ] || most_bytes=$us
            ;;
        esac
    done < <(sort -n <<<"$out")
    goal "claims, 10 accounts, by jobs queued: dearest to cheapest" "$(spread "${by_jobs[@]}")" ratio at_most 1.2
    figure "the floor, 10 accounts, by jobs queued: dearest to cheapest" "$(spread "${floors[@]}")" ratio
    goal "claims, $largest queued, by accounts: dearest to cheapest" "$(spread "${by_accounts[@]}")" ratio at_most 1.2
    goal "memory of Redis for a queued job, the most" "$most_bytes" bytes at_most 1536
}
spread() { # the largest by the smallest
    printf '%s\n' "$@" | sort -n | awk 'NR == 1 { least = $1 } { most = $1 } END { printf "%.2f", most / least }'
}

# --- workers -----------------------------------------------------------------------------------------

open_jobs() { sql "select count(*) from jobs where finished_at is null"; }
all_ended() { [ "$(open_jobs)" = 0 ]; }
cpu_of_workers() { # COUNT
    local i sum=0
    for ((i = 1; i <= $1; i++)); do sum=$((sum + $(tree_cpu_ms "${pid[worker-$i]}"))); done
    echo "$sum"
}

run_workers() { # COUNT; sets us (CPU of all workers, a job)
    local i cpu before sent
    for ((i = 1; i <= $1; i++)); do begin_worker "worker-$i"; done
    sleep 1
    before=$(sql "select count(*) from jobs where state = 'succeeded'")
    cpu=$(cpu_of_workers "$1")
    sent=$("$programs/tests/bench/bench_load" -c 64 -s "$SECONDS_EACH" -r "$RATE" "$url/v1/jobs" \
        '{"operation":"lean.call","params":{"prompt":"a bench [[job:{n}]]"}}' 2>>"$home/log/load.log" | sed -nE 's/.* jobs=([0-9]+) .*/\1/p')
    [ "${sent:-0}" -gt 0 ] || fail "not every job was accepted" load
    wait_until 60 all_ended || fail "$(open_jobs) jobs do not end" worker-1
    cpu=$(($(cpu_of_workers "$1") - cpu))
    us=$(calc "$cpu * 1000 / $sent" 1)
    lost=$((lost + before + sent - $(sql "select count(*) from jobs where state = 'succeeded'")))
    for ((i = 1; i <= $1; i++)); do end "worker-$i" 30 || fail "a worker did not end well" "worker-$i"; done
    say "  $1 worker(s): $us us of CPU a job"
}

bench_workers() {
    local round us ones=() fours=() ratios=()
    set_lean '{"delay_ms":1000,"bytes":50000,"polls":0}'
    for ((round = 1; round <= ROUNDS; round++)); do
        say "workers, round $round of $ROUNDS: $RATE jobs a second for $SECONDS_EACH s"
        run_workers 1
        ones+=("$us")
        run_workers 4
        fours+=("$us")
        ratios+=("$(calc "${fours[-1]} / ${ones[-1]}" 2)")
    done
    figure "one worker, $RATE jobs/s: CPU a job" "$(median "${ones[@]}")" us
    figure "four workers, $RATE jobs/s: CPU a job, all of them" "$(median "${fours[@]}")" us
    goal "CPU a job, four workers to one" "$(median "${ratios[@]}")" ratio at_most 1.10
}

# --- reads -------------------------------------------------------------------------------------------

reads_asked() { # of PostgreSQL by the dispatcher, so far: statements and, as a statement carries many, rows
    sleep 1.2 # PostgreSQL's statistics come once a second
    echo "$(sql 'select xact_commit from pg_stat_database where datname = current_database()')" \
        "$(ask "$url/metrics" | awk '/^kiln_db_rows_sum/ { sum += $2 } END { printf "%d", sum }')"
}

# Sets rate, statements and asked_rows (a read), bytes (a read), cpu (of the dispatcher, a read in us).
run_reads() { # PATH [NAME=VALUE...]: wrk with the script, or of PATH alone
    local path=$1 out before after took requests us size bad cut script=()
    shift
    [ -n "$path" ] || script=(-s tests/bench/reads.lua)
    read -ra before < <(reads_asked)
    took=$(cpu_ms "${pid[dispatcher]}")
    out=$(env BENCH_IDS="$home/log/ids" "$@" wrk -t 1 -c 64 -d "${BENCH_READ_SECONDS:-5}s" "${script[@]}" "$url$path" 2>&1)
    took=$(($(cpu_ms "${pid[dispatcher]}") - took))
    read -ra after < <(reads_asked)
    if [ -n "$path" ]; then
        rate=$(sed -nE 's/^Requests\/sec: *([0-9.]+)/\1/p' <<<"$out")
        [ -n "$rate" ] || fail "wrk says: $out"
        return
    fi
    read -r requests us size bad cut < <(sed -nE 's/^requests=([0-9]+) us=([0-9]+) bytes=([0-9]+) bad=([0-9]+) cut=([0-9]+)$/\1 \2 \3 \4 \5/p' <<<"$out")
    [ "${requests:-0}" -gt 0 ] || fail "wrk says: $out"
    refused=$((refused + bad + cut))
    rate=$(calc "$requests * 1e6 / $us")
    statements=$(calc "(${after[0]} - ${before[0]}) / $requests" 4)
    asked_rows=$(calc "(${after[1]} - ${before[1]}) / $requests" 4)
    bytes=$(calc "$size / $requests")
    cpu=$(calc "$took * 1000 / $requests" 1)
}

finish_jobs() { # COUNT
    set_lean '{"delay_ms":0,"bytes":1000,"polls":0}'
    begin_worker worker-r
    accept_jobs lean.call "$1" r
    wait_until 120 all_ended || fail "$(open_jobs) jobs do not end" worker-r
    end worker-r 30 || fail "the worker did not end well" worker-r
}

answer_to_match() { # ID VERSION
    ask -o /dev/null -w '%{http_code}' -H "Authorization: Bearer $KILN_API_KEY" -H "If-None-Match: \"$2\"" "$url/v1/jobs/$1"
}

bench_reads() {
    local round rate statements asked_rows bytes cpu id version floors=() wholes=() asked=() sizes=() cpus=() matched=() matched_asked=() matched_rows=()
    local matched_cpus=() not_304=0
    say "reads: $FINISHED finished jobs"
    finish_jobs "$FINISHED"
    sql "copy (select id, version from jobs where state = 'succeeded' order by random() limit $FINISHED) to stdout (delimiter ' ')" >"$home/log/all-ids"
    while read -r id version; do [ "$(answer_to_match "$id" "$version")" = 304 ] || not_304=$((not_304 + 1)); done < <(head -n 20 "$home/log/all-ids")
    for ((round = 1; round <= ROUNDS; round++)); do
        run_reads /healthz
        floors+=("$rate")
        cp "$home/log/all-ids" "$home/log/ids"
        run_reads '' BENCH_MATCH=0
        wholes+=("$rate") asked+=("$statements") sizes+=("$bytes") cpus+=("$cpu")
        head -n "$KNOWN" "$home/log/all-ids" >"$home/log/ids"
        run_reads '' BENCH_MATCH=1
        matched+=("$rate") matched_asked+=("$statements") matched_rows+=("$asked_rows") matched_cpus+=("$cpu")
        say "  round $round of $ROUNDS: whole ${wholes[-1]}/s, 304 ${matched[-1]}/s, ${matched_rows[-1]} rows asked for each of these"
    done
    figure "floor: GET /healthz, 64 connections, wrk on the same cores" "$(calc "$(median "${floors[@]}")")" reads/s
    goal "GET /v1/jobs/{id}, $FINISHED jobs, 64 connections" "$(median "${wholes[@]}")" reads/s at_least 20000
    figure "statements of PostgreSQL for such a read" "$(median "${asked[@]}")" number
    figure "bytes of such an answer" "$(median "${sizes[@]}")" bytes
    figure "CPU of the dispatcher for such a read" "$(median "${cpus[@]}")" us
    figure "the same jobs' ETags ($KNOWN jobs), 304" "$(median "${matched[@]}")" reads/s
    figure "CPU of the dispatcher for a 304" "$(median "${matched_cpus[@]}")" us
    # A version may be known for a second at most: so often each job has to be asked for, whatever the rate.
    goal "jobs asked of PostgreSQL for each 304, beyond one a job and second" "$(beyond "$(median "${matched_rows[@]}")" "$(median "${matched[@]}")")" number at_most 0.01
    figure "jobs asked of PostgreSQL for each 304, all" "$(median "${matched_rows[@]}")" number
    figure "statements of PostgreSQL for a 304" "$(median "${matched_asked[@]}")" number
    goal "If-None-Match with the current ETag not answered by 304" "$not_304" reads exactly 0
    goal "reads refused or cut off" "$refused" reads exactly 0
}
beyond() { calc "($1 > $KNOWN / $2 ? $1 - $KNOWN / $2 : 0)" 4; } # ROWS_A_READ READS_A_SECOND

bench_growth() {
    local part lost=0 refused=0
    open_lean
    for part in $PARTS; do
        case $part in
        claim) bench_claims ;;
        workers) bench_workers ;;
        reads) bench_reads ;;
        *) fail "there is no part $part" ;;
        esac
    done
    goal "jobs that did not succeed" "$lost" jobs exactly 0
    kiln audit >>"$home/log/kiln.log" 2>&1 || fail "the books do not add up" kiln
}
