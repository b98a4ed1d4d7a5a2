# shellcheck shell=bash disable=SC2154,SC2016
# settle - completions a second, each with its ledger, beside the same statements fed straight into PostgreSQL
#
# Sourced by scripts/bench. Jobs are accepted while no worker runs; then one takes them through, at a provider that answers
# at once. The floor is bench_settle_floor: a worker's two statements for each job, start and settle, on one connection
# with nothing in between, in the best of some batch sizes; it works in a database of its own in the same PostgreSQL. Both
# take turns. Files are of 1 KB: what the bytes themselves cost is through's to say, a run with 50 KB stands beside.

# shellcheck source=tests/bench/through.sh
. tests/bench/through.sh # the way of a run, and what it spends

ROUNDS=${BENCH_ROUNDS:-5} JOBS=${BENCH_JOBS:-20000} CONCURRENCY=${BENCH_CONCURRENCY:-2000}
FLOOR_JOBS=${BENCH_FLOOR_JOBS:-20000} BATCHES=${BENCH_BATCHES:-100 200 500 1000} ACCOUNTS=1

floor_rounds=() # "BATCH start_us settle_us start_wal settle_wal cpu_us"
declare -A completions=() # by bytes: jobs a second of each round

run_floor() {
    local size line
    for size in $BATCHES; do
        line=$(KILN_DATABASE_URL=$floor_url "$programs/tests/bench/bench_settle_floor" "$FLOOR_JOBS" "$size" "$ACCOUNTS" \
            2>>"$home/log/floor.log") || fail "the floor's statements failed" floor
        say "  floor: $line"
        floor_rounds+=("$(sed -E 's/.*batch=([0-9]+) start_us=([0-9.]+) settle_us=([0-9.]+) .*cpu_us=([0-9.]+) start_wal=([0-9]+) settle_wal=([0-9]+).*/\1 \2 \3 \5 \6 \4/' <<<"$line")")
    done
}

floor_median() { # BATCH EXPRESSION of the fields, as awk has them
    local values
    mapfile -t values < <(printf '%s\n' "${floor_rounds[@]}" | awk -v size="$1" "\$1 == size { printf \"%.2f\\n\", $2 }")
    median "${values[@]}"
}

run_through() { # ROUND BYTES; sets worker_cpu, spent_before, spent_after
    local name=worker-$2-$1 before ended
    set_lean "{\"delay_ms\":0,\"bytes\":$2,\"polls\":0}"
    before=$(sql "select count(*) from jobs where state = 'succeeded'")
    accept_jobs lean.call "$JOBS" "$name-"
    reset_lean
    watch_ends || fail "psql does not answer"
    warm_memory
    spent_before=$(spent)
    begin_worker "$name" KILN_CONCURRENCY="$CONCURRENCY"
    wait_for_end "$JOBS" || fail "not all jobs end, $(lean_says answers) of $JOBS were answered" "$name"
    worker_cpu=$(tree_cpu_ms "${pid[$name]}")
    spent_after=$(spent)
    ms=$((ended - $(worker_began "$name")))
    not_once=$((not_once + JOBS - $(lean_says once)))
    lost=$((lost + before + JOBS - $(sql "select count(*) from jobs where state = 'succeeded'")))
    end "$name" 30 || fail "the worker did not end well" "$name"
    completions[$2]+=" $(calc "$JOBS * 1000 / $ms")"
    say "  through, $2 bytes: $(calc "$JOBS * 1000 / $ms") jobs/s, worker CPU $(per_thousand "$JOBS") s a thousand"
}

bench_settle() {
    local postgres redis not_once=0 lost=0 round size best=0 best_size rate through
    open_lean
    postgres=$(server_pid postgres)
    redis=$(server_pid redis)
    sql 'create database floor'
    floor_url=${KILN_DATABASE_URL/\/kiln\?/\/floor?}
    KILN_DATABASE_URL=$floor_url kiln migrate >>"$home/log/kiln.log" 2>&1 || fail "kiln migrate failed" kiln
    for ((round = 1; round <= ROUNDS; round++)); do
        say "round $round of $ROUNDS"
        run_floor
        run_through "$round" 50000
        run_through "$round" 1000
    done
    for size in $BATCHES; do
        rate=$(floor_median "$size" '1e6 / ($2 + $3)')
        figure "floor: start and settle in calls of $size, one connection" "$(calc "$rate")" jobs/s
        [ "$(calc "($rate > $best)")" = 0 ] || { best=$rate best_size=$size; }
    done
    figure "floor: settle alone in calls of $best_size" "$(calc "$(floor_median "$best_size" '1e6 / $3')")" jobs/s
    figure "floor: start a job" "$(floor_median "$best_size" '$2')" us
    figure "floor: settle a job" "$(floor_median "$best_size" '$3')" us
    figure "floor: WAL of a start" "$(calc "$(floor_median "$best_size" '$4')")" bytes
    figure "floor: WAL of a settle" "$(calc "$(floor_median "$best_size" '$5')")" bytes
    # shellcheck disable=SC2086 # numbers
    through=$(median ${completions[1000]})
    figure "completions with ledger, files of 1 KB" "$through" jobs/s
    # shellcheck disable=SC2086
    figure "completions with ledger, files of 50 KB" "$(median ${completions[50000]})" jobs/s
    goal "completions, by the floor's start and settle" "$(calc "$through / $best" 2)" ratio at_least 0.60
    budget "$JOBS"
    floor_of_memory
    goal "jobs that did not succeed" "$lost" jobs exactly 0
    goal "jobs whose submit the provider did not see exactly once" "$not_once" jobs exactly 0
    kiln audit >>"$home/log/kiln.log" 2>&1 || fail "the books do not add up" kiln
    KILN_DATABASE_URL=$floor_url kiln audit >>"$home/log/kiln.log" 2>&1 || fail "the floor's books do not add up" kiln
}
