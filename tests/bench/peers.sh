# shellcheck shell=bash disable=SC2154
# peers - other queues from npm at kiln's work, in turns with kiln on the same machine: how many times as fast
#
# Sourced by scripts/bench, which leaves it out when it is given no name: npm goes to the network. What peers/peer.js does for
# each is less than kiln: no HTTP and no hold before an enqueue is answered; no write-ahead of a call, no hash and no file of its
# answer; and a thousand accounts where kiln has one. Machines differ by factors; a ratio of the same run does so less. The goals are
# those of docs/performance.md as ratios: each over what the best peer made on the machine that they were set by (durable
# enqueue 2,700/s, in bulk 57,000/s; 1,670 jobs/s, 0.66 s of CPU for 1,000, 300 MB; of six peers, not all of these). They are judged
# when all three have run. Versions run with Debian 12's Node.js 18; pg-boss 10 needs 20 and enqueues half as fast. Their HTTP client is
# Node's own. What they depend on may differ from one npm install to the next; all of it lies in .kiln/peers and stays.

# BENCH_ROUNDS of each; BENCH_PARTS (--parts): of accept, through; BENCH_PEERS: of bee-queue, graphile-worker, pg-boss. A peer's CPU and
# memory are of its one process; kiln's CPU is of the worker with its helpers, its RSS of the worker.
. tests/bench/accept.sh
. tests/bench/through.sh
PARTS=${BENCH_PARTS:-accept through}
ALL='bee-queue graphile-worker pg-boss'
PEERS=${BENCH_PEERS:-$ALL}
PEERS=${PEERS//,/ } CALLS=${BENCH_CALLS:-60}
told=$root/.kiln/peers/told # what each round said; open_services empties its own folder

install_peers() {
    command -v npm >/dev/null || scripts/packages peers || exit 2
    rm -rf -- "$told"
    { mkdir -p "$told" && cp tests/bench/peers/package.json tests/bench/peers/peer.js .kiln/peers/; } || exit 2
    (cd .kiln/peers && exec npm install --no-audit --no-fund --no-package-lock --ignore-scripts) >build/npm.log 2>&1 9>&- ||
        { tail -n 5 build/npm.log >&2 && fail "npm could not install the peers"; }
}

# A database of their own beside kiln's, on the same server; Redis they share.
open_peers() {
    export PEER_PG_HOST PEER_REDIS_PATH=${KILN_REDIS_URL#unix:} PEER_PG_PORT PEER_PG_USER=kiln PEER_PG_DATABASE=peers
    PEER_PG_HOST=$(sed -E 's/.*host=([^&]*).*/\1/' <<<"$KILN_DATABASE_URL")
    PEER_PG_PORT=$(sed -E 's/.*port=([0-9]+).*/\1/' <<<"$KILN_DATABASE_URL")
    export PEER_OPEN=$CONCURRENCY PEER_CALL_URL=${LEAN_BASE_URL:-}/lean/call
}
peers_sql() { PGOPTIONS="-c client_min_messages=warning" psql -X -q -v ON_ERROR_STOP=1 -h "$PEER_PG_HOST" -p "$PEER_PG_PORT" -U postgres -d postgres -c "$1"; }
peer() { # PEER ROLE [NUMBER]
    (cd .kiln/peers && NODE_ENV=production exec timeout --foreground 300 node peer.js "$@" 2>>"$home/log/peer.log" 9>&-)
}
turns() { # ROUND: the peers, each round another one first
    local names n
    read -ra names <<<"$PEERS"
    n=$((($1 - 1) % ${#names[@]}))
    echo "${names[@]:n}" "${names[@]:0:n}"
}
judge() { # NAME VALUE at_least|at_most GOAL: a goal when all peers have run
    if [ "$PEERS" = "$ALL" ]; then goal "$1" "$2" times "$3" "$4"; else figure "$1" "$2" times; fi
}
fresh_peer() { # PEER: it has done nothing yet
    redis-cli -s "$PEER_REDIS_PATH" --scan --pattern 'bq:*' | xargs -r redis-cli -s "$PEER_REDIS_PATH" del >/dev/null # what it had not acknowledged
    { peers_sql 'drop database if exists peers' && peers_sql 'create database peers owner kiln' && peer "$1" setup; } ||
        fail "$1 cannot be set up" peer
}
best() { printf '%s\n' "$@" | sort -g | tail -n 1; }
least() { printf '%s\n' "$@" | sort -g | head -n 1; }

load_once() { # FILE PATH OPTION...: one round of kiln's side, on servers that have done nothing yet: a peer's database is new, too
    local file=$1 path=$2
    shift 2
    open_part
    open_peers
    "$programs/tests/bench/bench_load" -s 1 "$@" "$url$path" "$job" >/dev/null || fail "the load failed" dispatcher
    "$programs/tests/bench/bench_load" -s "$EACH" "$@" "$url$path" "$job" >>"$told/$file" 2>>"$home/log/load.log" || fail "the load failed" load
}

enqueue_round() { # ROUND
    local name said
    load_once one /v1/jobs
    load_once many /v1/batches -c 1 -j 1000 -m "$CALLS"
    say "  kiln: $(of rate "$told/one" | tail -n 1)/s, in batches $(of rate "$told/many" | tail -n 1)/s"
    for name in $(turns "$1"); do
        close_house
        open_services
        open_peers
        fresh_peer "$name"
        { said=$(peer "$name" one "$EACH") && echo "$said" >>"$told/one-$name"; } || fail "$name does not enqueue" peer
        { said=$(peer "$name" many "$CALLS") && echo "$said" >>"$told/many-$name"; } || fail "$name does not enqueue in bulk" peer
        say "  $name: $(of rate "$told/one-$name" | tail -n 1)/s, in bulk $(of rate "$told/many-$name" | tail -n 1)/s"
    done
}
bench_accept_part() { # Redis does not sync before it answers: bee-queue is shown, and not compared with
    local i name ones=() manys=()
    say "enqueue"
    for ((i = 1; i <= ROUNDS; i++)); do
        say "round $i of $ROUNDS"
        enqueue_round "$i"
    done
    for name in $PEERS; do
        figure "$name: enqueued one by one, 64 at once" "$(median_of rate "$told/one-$name")" jobs/s
        figure "$name: enqueued in bulk of 1000" "$(median_of rate "$told/many-$name")" jobs/s
        [ "$name" = bee-queue ] || ones+=("$(median_of rate "$told/one-$name")") manys+=("$(median_of rate "$told/many-$name")")
    done
    figure "kiln: accepted one by one, 64 connections" "$(median_of rate "$told/one")" jobs/s
    figure "kiln: accepted in batches of 1000" "$(median_of rate "$told/many")" jobs/s
    [ "${#ones[@]}" -gt 0 ] || return 0
    judge "accept one by one, of the best durable peer" "$(calc "$(median_of rate "$told/one") / $(best "${ones[@]}")" 2)" at_least 3.70
    judge "accept in batches, of the best durable peer in bulk" "$(calc "$(median_of rate "$told/many") / $(best "${manys[@]}")" 2)" at_least 0.70
}

work_round() { # PEER
    local name=$1 began ended cpu rss seen=
    say "$JOBS jobs of $name"
    fresh_peer "$name"
    peer "$name" fill "$JOBS" || fail "$name does not enqueue" peer
    reset_lean
    warm_memory
    read -r began ended cpu rss < <(peer "$name" work "$JOBS" | tr -c '0-9.\n' ' ')
    [ "${rss:-0}" != 0 ] && [ "$(lean_says answers)" -ge "$JOBS" ] && seen=1
    [ "${seen:-}" = 1 ] || fail "$name does not take all jobs through" peer
    echo "rate=$(calc "$JOBS * 1000 / ($ended - $began)") cpu_us=$(calc "$cpu * 1000000 / $JOBS") rss=$(calc "$rss / 1024")" >>"$told/work-$name"
    say "  $(tail -n 1 "$told/work-$name")"
}
bench_through_part() {
    local i name rates=() cpus=() rsses=() postgres redis not_once=0
    [ $((JOBS % 1000)) = 0 ] || fail "BENCH_JOBS is not in thousands: $JOBS"
    open_lean
    open_peers
    postgres=$(server_pid postgres) redis=$(server_pid redis)
    set_lean '{"delay_ms":1000,"bytes":50000,"polls":3}'
    for ((i = 1; i <= ROUNDS; i++)); do
        run_jobs lean.call "$JOBS" "s$i-"
        echo "rate=$(calc "$JOBS * 1000 / $ms") cpu_us=$(calc "$worker_cpu * 1000 / $JOBS") rss=$(calc "$rss / 1024")" >>"$told/work"
        run_jobs lean.wait "$JOBS" "a$i-"
        echo "cpu_us=$(calc "$worker_cpu * 1000 / $JOBS")" >>"$told/work-async"
        sql 'vacuum analyze jobs, attempts, artifacts, ledger' # or it would be done in a peer's turn
        for name in $(turns "$i"); do work_round "$name"; done
    done
    for name in $PEERS; do
        figure "$name: jobs with a call of 1 s and 50 KB" "$(median_of rate "$told/work-$name")" jobs/s
        figure "$name: CPU of the worker for one" "$(median_of cpu_us "$told/work-$name")" us
        figure "$name: highest RSS of the worker" "$(median_of rss "$told/work-$name")" MiB
        rates+=("$(median_of rate "$told/work-$name")") cpus+=("$(median_of cpu_us "$told/work-$name")") rsses+=("$(median_of rss "$told/work-$name")")
    done
    figure "kiln: the same, each hashed, stored and settled" "$(median_of rate "$told/work")" jobs/s
    figure "kiln: CPU of the worker for one" "$(median_of cpu_us "$told/work")" us
    figure "kiln: highest RSS of the worker" "$(median_of rss "$told/work")" MiB
    figure "kiln: CPU of the worker for an asynchronous one" "$(median_of cpu_us "$told/work-async")" us
    judge "through, of the fastest peer" "$(calc "$(median_of rate "$told/work") / $(best "${rates[@]}")" 2)" at_least 2.40
    judge "through: CPU of the worker, of the leanest peer's" "$(calc "$(median_of cpu_us "$told/work") / $(least "${cpus[@]}")" 2)" at_most 0.30
    judge "through: highest RSS, of the smallest peer's" "$(calc "$(median_of rss "$told/work") / $(least "${rsses[@]}")" 2)" at_most 0.83
    judge "asynchronous: CPU of the worker, of the leanest peer's with one call" \
        "$(calc "$(median_of cpu_us "$told/work-async") / $(least "${cpus[@]}")" 2)" at_most 0.53
    goal "kiln's jobs whose submit the provider did not see exactly once" "$not_once" jobs exactly 0
}

bench_peers() {
    local part name
    for name in $PEERS; do
        [[ " $ALL " = *" $name "* ]] || fail "there is no peer $name; there are $ALL"
    done
    figure "load average of the machine before" "$(cut -d ' ' -f 1 /proc/loadavg)" programs
    install_peers
    say "Node.js $(node --version)"
    for part in $PARTS; do
        case $part in
        accept | through) "bench_${part}_part" ;;
        *) fail "there is no part $part" ;;
        esac
        close_house
    done
}
