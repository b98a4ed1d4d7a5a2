# shellcheck shell=bash disable=SC2154
# accept - how fast jobs come in, each on disk with its hold before its answer: one by one, in batches, by a schedule
#
# Sourced by scripts/bench. No worker: jobs stay queued. The load is tests/bench/load.c, on the same two cores as
# dispatcher, PostgreSQL and Redis. Every part has servers of its own, so that none is slower for what came before it.
# Figures are medians of the rounds; what a job costs is the sum over the rounds by their jobs.

ROUNDS=${BENCH_ROUNDS:-5} EACH=${BENCH_SECONDS_EACH:-5} ACCOUNTS=1000 CALLS=${BENCH_CALLS:-20}

# What a web app sends, the rest is the catalogue's defaults; {n} is another number each time.
params='"params":{"prompt":"a lighthouse at dusk, long exposure, storm clouds over the sea, no. {n}","num_images":1,"width":1024,"height":768}'
job="{\"operation\":\"leonardo.generate\",$params}"
job_of_many="{\"operation\":\"leonardo.generate\",\"account\":\"user-{a}\",$params}"

of() { sed -nE "s/(^|.* )$1=(-?[0-9]+).*/\2/p" "$2"; } # NAME FILE: one value a round
median_of() {
    # shellcheck disable=SC2046 # numbers
    median $(of "$1" "$2")
}
sum_of() { of "$1" "$2" | awk '{ s += $1 } END { print s + 0 }'; }
ms() { calc "$1 / 1000" 2; }

# --- what it costs -----------------------------------------------------------------------------------

redis_says() { redis-cli -s "${KILN_REDIS_URL#unix:}" info "$1" | tr -d '\r' | sed -nE "s/^$2:([0-9]+).*/\1/p"; }
postgres_cpu_ms() { # its processes, and those that have ended
    local postmaster process stat sum=0
    postmaster=$(head -n 1 "$home/services/postgres/data/postmaster.pid")
    for process in "$postmaster" $(pgrep -P "$postmaster"); do
        stat=$(<"/proc/$process/stat") || continue
        # shellcheck disable=SC2086 # numbers
        set -- ${stat##*) }
        sum=$((sum + ${12} + ${13}))
        [ "$process" != "$postmaster" ] || sum=$((sum + ${14} + ${15}))
    done 2>/dev/null
    echo $((sum * 1000 / ticks))
}
metric() { ask "$url/metrics" | sed -nE "s/^$1\{.*call=\"accept\".*\} ([0-9.e+]+)$/\1/p" | head -n 1; }
metric_of() { # NAME: 0 as long as there is none
    local value
    value=$(metric "$1")
    echo "${value:-0}"
}
costs() { # in the order of cost_names
    echo "$(cpu_ms "${pid[dispatcher]}") $(postgres_cpu_ms) $(cpu_ms "$(<"$home/services/redis/redis.pid")")" \
        "$(sql "select pg_current_wal_lsn() - '0/0'") $(redis_says stats total_commands_processed)" \
        "$(metric_of kiln_db_rows_sum) $(metric_of kiln_db_rows_count) $(metric_of kiln_db_seconds_sum)" \
        "$(sql 'select wal_records || $$ $$ || wal_fpi || $$ $$ || wal_sync from pg_stat_wal')"
}
cost_names=(dispatcher postgres redis wal commands rows calls seconds records images syncs)
declare -A cost=()
cost_of() { # BEFORE AFTER: the differences
    local i before after
    read -ra before <<<"$1"
    read -ra after <<<"$2"
    for i in "${!cost_names[@]}"; do cost[${cost_names[i]}]=$(calc "${after[i]} - ${before[i]}" 3); done
}
a_thousand() { calc "$1 * 1000 / $jobs" "${2:-0}"; }

print_costs() { # NAME FILE: of the jobs in FILE
    local name=$1 jobs
    jobs=$(sum_of jobs "$2")
    figure "$name: CPU of the dispatcher, 1,000 jobs" "$(a_thousand "${cost[dispatcher]}")" ms
    figure "$name: CPU of PostgreSQL, 1,000 jobs" "$(a_thousand "${cost[postgres]}")" ms
    figure "$name: CPU of Redis, 1,000 jobs" "$(a_thousand "${cost[redis]}")" ms
    figure "$name: CPU of the load, 1,000 jobs" "$(a_thousand "$(sum_of cpu_ms "$2")")" ms
    [ "${cost[calls]}" = 0.000 ] || {
        figure "$name: jobs in one call of kiln_accept" "$(calc "${cost[rows]} / ${cost[calls]}" 1)" jobs
        figure "$name: one call of kiln_accept, commit included" "$(calc "${cost[seconds]} * 1000 / ${cost[calls]}" 2)" ms
    }
    figure "$name: WAL of a job" "$(calc "${cost[wal]} / $jobs")" bytes
    figure "$name: WAL records of a job" "$(calc "${cost[records]} / $jobs" 1)" records
    figure "$name: WAL syncs, 1,000 jobs" "$(a_thousand "${cost[syncs]}" 1)" syncs
    figure "$name: Redis commands of a job, within scripts too" "$(calc "${cost[commands]} / $jobs" 1)" commands
    figure "$name: bytes of a request" "$(median_of bytes_out "$2")" bytes
    figure "$name: bytes of an answer" "$(median_of bytes_in "$2")" bytes
}

# --- the rounds --------------------------------------------------------------------------------------

open_part() { # new servers, an app with a key, ACCOUNTS accounts with credits
    close_house
    open_services
    export LEONARDO_API_KEY=bench LEONARDO_BASE_URL=http://127.0.0.1:1
    open_dispatcher
    sql "select count(*) from kiln_grant(array(select a.id from apps a, generate_series(1, $ACCOUNTS)),
             array(select 'user-' || lpad(i::text, 10, '0') from generate_series(0, $ACCOUNTS - 1) i),
             array(select 1000000000::bigint from generate_series(1, $ACCOUNTS)),
             array(select 'user ' || i from generate_series(1, $ACCOUNTS) i)) where verdict = 'granted'" >/dev/null ||
        fail "kiln_grant failed"
    taken=0 errors=0
}

load() { # FILE OPTION...: rounds of it; one warm-up before, which opens what is opened once
    local file=$home/$1 i before
    shift
    "$programs/tests/bench/bench_load" -s 1 "$@" >"$home/warm" || fail "the load failed" dispatcher
    taken=$((taken + $(of jobs "$home/warm")))
    before=$(costs)
    for ((i = 0; i < ROUNDS; i++)); do
        "$programs/tests/bench/bench_load" -s "$EACH" "$@" >>"$file" 2>>"$home/log/load.log"
    done
    cost_of "$before" "$(costs)"
    taken=$((taken + $(sum_of jobs "$file")))
    errors=$((errors + $(sum_of refused "$file") + $(sum_of failed "$file") + $(sum_of unanswered "$file")))
}

check_part() { # NAME: answered with 202 = rows = holds
    local written
    written=$(sql 'select count(*) from jobs')
    goal "$1: answers without a row, rows without an answer" $((taken > written ? taken - written : written - taken)) jobs exactly 0
    goal "$1: rows without their hold" $((written - $(sql "select count(*) from ledger l join jobs j on j.id = l.job_id
        where l.kind = 'hold' and l.amount = j.hold_mc"))) jobs exactly 0
    goal "$1: requests refused or failed" "$errors" requests exactly 0
    goal "$1: differences that kiln audit finds" "$(sql 'select count(*) from kiln_audit()')" rows exactly 0
}

bench_closed() {
    say "one by one, 64 connections"
    open_part
    load closed "$url/v1/jobs" "$job"
    goal "one by one, 64 connections" "$(median_of rate "$home/closed")" jobs/s at_least 10000
    goal "one by one: 99th percentile" "$(ms "$(median_of p99_us "$home/closed")")" ms at_most 25
    figure "one by one: median" "$(ms "$(median_of p50_us "$home/closed")")" ms
    figure "one by one: slowest answer of all" "$(ms "$(of max_us "$home/closed" | sort -n | tail -n 1)")" ms
    print_costs "one by one" "$home/closed"
    check_part "one by one"
    bench_healthz
    bench_floor
}

# HTTP alone: the smallest answer that a dispatcher gives without asking anybody.
bench_healthz() {
    local i
    for ((i = 0; i < ROUNDS; i++)); do
        wrk -t1 -c64 -d"${EACH}s" "$url/healthz" >>"$home/wrk" 2>&1 || fail "wrk failed"
        env -u KILN_API_KEY "$programs/tests/bench/bench_load" -s "$EACH" "$url/healthz" >>"$home/healthz" || fail "the load failed"
    done
    # shellcheck disable=SC2046 # numbers
    figure "floor: wrk against GET /healthz" "$(median $(sed -nE 's/^Requests\/sec: *([0-9]+).*/\1/p' "$home/wrk"))" answers/s
    figure "floor: our load against GET /healthz" "$(median_of rate "$home/healthz")" answers/s
}

bench_floor() {
    local best size
    end dispatcher 15 # it would publish what it has not accepted
    "$programs/tests/bench/bench_floors" accept "$((EACH > 2 ? 2 : EACH))" >"$home/floor" || fail "the floor could not be measured"
    read -r best size < <(sed -nE 's/size=([0-9]+) jobs_s=([0-9]+) .*/\2 \1/p' "$home/floor" | sort -n | tail -n 1)
    figure "floor: PostgreSQL, kiln_accept fed straight, best batch size" "$best" jobs/s
    figure "floor: that batch size" "$size" jobs
    figure "floor: the same in batches of 50" "$(sed -nE 's/size=50 jobs_s=([0-9]+) .*/\1/p' "$home/floor")" jobs/s
    figure "one by one, of that floor" "$(calc "$(median_of rate "$home/closed") * 100 / $best" 1)" %
}

bench_keyed() {
    say "with an Idempotency-Key each"
    open_part
    load keyed -k "$url/v1/jobs" "$job"
    figure "with an Idempotency-Key each" "$(median_of rate "$home/keyed")" jobs/s
    figure "with an Idempotency-Key each: 99th percentile" "$(ms "$(median_of p99_us "$home/keyed")")" ms
    print_costs "with keys" "$home/keyed"
    check_part "with keys"
}

bench_accounts() {
    say "over $ACCOUNTS accounts"
    open_part
    load accounts -a "$ACCOUNTS" "$url/v1/jobs" "$job_of_many"
    figure "over $ACCOUNTS accounts" "$(median_of rate "$home/accounts")" jobs/s
    figure "over $ACCOUNTS accounts: 99th percentile" "$(ms "$(median_of p99_us "$home/accounts")")" ms
    print_costs "over accounts" "$home/accounts"
    check_part "over accounts"
}

bench_open() {
    say "2,000 a second by a schedule"
    open_part
    load open -c 256 -r 2000 "$url/v1/jobs" "$job"
    goal "2,000/s by a schedule: median" "$(ms "$(median_of p50_us "$home/open")")" ms at_most 3
    goal "2,000/s by a schedule: 99th percentile" "$(ms "$(median_of p99_us "$home/open")")" ms at_most 10
    figure "2,000/s by a schedule: slowest answer of all" "$(ms "$(of max_us "$home/open" | sort -n | tail -n 1)")" ms
    figure "2,000/s by a schedule: answered" "$(median_of rate "$home/open")" jobs/s
    print_costs "by a schedule" "$home/open"
    check_part "by a schedule"
}

bench_batches() {
    say "batches of 1,000, one connection"
    open_part
    load batches -c 1 -j 1000 -m "$CALLS" "$url/v1/batches" "$job"
    goal "batches of 1,000 by one connection" "$(median_of rate "$home/batches")" jobs/s at_least 40000
    figure "batches of 1,000: a call, median" "$(ms "$(median_of p50_us "$home/batches")")" ms
    print_costs "batches" "$home/batches"
    check_part "batches"
}

bench_accept() {
    local part
    for part in ${BENCH_PARTS:-closed keyed accounts open batches}; do "bench_$part"; done
}
