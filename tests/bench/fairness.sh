# shellcheck shell=bash disable=SC2154
# fairness - what turns, shares and limits cost: the queue's scripts beside bare ones, and beside a whole job
#
# Sourced by scripts/bench. bench_fairness runs the queue's scripts and bare ones without apps, accounts and limits on two
# Redis servers in turns; what a job costs more there is then set against the time a whole job takes of the machine, from
# POST /v1/jobs to its end, as if nothing of it ran beside Redis: more than that it cannot take of the throughput.
JOBS=${BENCH_JOBS:-3000}
core_job='{"operation":"stability.generate.core","params":{"prompt":"a bench [[job:@{}]]"}}'
ended() { [ "$(sql "select count(*) from jobs where state = 'succeeded'")" -ge "$JOBS" ]; }

bench_fairness() {
    local out accounts part real bare more began whole
    say "the scripts alone"
    out=$("$programs/tests/bench/bench_fairness" 2>&1 | grep -E '^[0-9]+ [a-z]+ ') || fail "bench_fairness failed"
    say "the whole path"
    open_house
    begin_worker worker1 KILN_CONCURRENCY=1000
    began=$(now_ms)
    "$programs/tests/bench/bench_submit" "$url/v1/jobs" "$JOBS" 64 "$core_job" || fail "not every job was accepted" dispatcher
    wait_until 300 ended || fail "the jobs do not end" worker1
    whole=$(calc "($(now_ms) - $began) * 1000 / $JOBS" 1)
    figure "a whole job, POST to end, at this load" "$whole" us
    while read -r accounts part real bare; do
        case $part in
        memory) figure "$accounts accounts: memory a queued job" "$real" bytes ;;
        all)
            more=$(calc "$real - $bare" 2)
            figure "$accounts accounts: publish, claim, forget in Redis" "$real" us
            figure "the same, bare" "$bare" us
            goal "$accounts accounts: what fairness and limits take of a whole job" "$(calc "100 * $more / $whole" 1)" % at_most 10
            ;;
        publish | claim | forget) figure "$accounts accounts: $part, of that bare $bare" "$real" us ;;
        esac
    done <<<"$out"
}
