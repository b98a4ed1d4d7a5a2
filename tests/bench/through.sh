# shellcheck shell=bash disable=SC2154
# through - how fast one worker takes queued jobs through, with a second's call and 50 KB each, and what that costs
#
# Sourced by scripts/bench. Jobs are accepted while no worker runs; then one is started, with a concurrency that lets
# all of them be in the air at once. The time runs from its first heartbeat (from then on it claims) until PostgreSQL
# shows the last job succeeded; CPU is that of the whole process, from its start, with its helpers.

# BENCH_ROUNDS of BENCH_JOBS, and BENCH_LONG in one run. BENCH_PARTS (--parts): of floor, sync, long, async, image.
# BENCH_PROFILE=FILE: perf records the whole machine during the long run.
ROUNDS=${BENCH_ROUNDS:-5} JOBS=${BENCH_JOBS:-10000} LONG=${BENCH_LONG:-40000} CONCURRENCY=${BENCH_CONCURRENCY:-10000}
PARTS=${BENCH_PARTS:-floor sync long async image}

# PostgreSQL on a connection that is there before a run begins: a program that starts during it takes part in what is measured.
watch_ends() {
    coproc ends { exec psql -X -q -A -t -v ON_ERROR_STOP=1 -d "$KILN_DATABASE_URL" 9>&-; }
    echo 'select 1;' >&"${ends[1]}" && read -r -t 10 _ <&"${ends[0]}"
}
# Sets ended (ms): when the provider had answered COUNT times and PostgreSQL showed no open job any more.
wait_for_end() { # COUNT
    lean_answers "$1" 300 || return 1
    echo "do \$\$ declare until timestamptz := clock_timestamp() + interval '60 seconds'; begin
        while exists (select from jobs where finished_at is null) loop
            if clock_timestamp() > until then raise 'jobs are open'; end if;
            perform pg_sleep(0.005);
        end loop; end \$\$; select (extract(epoch from clock_timestamp()) * 1000)::bigint;" >&"${ends[1]}"
    read -r -t 70 ended <&"${ends[0]}" && echo '\q' >&"${ends[1]}"
}

server_pid() { # postgres|redis
    case $1 in
    postgres) head -n 1 "$home/services/postgres/data/postmaster.pid" ;;
    redis) redis_says process_id ;;
    esac
}
redis_says() { redis-cli -s "${KILN_REDIS_URL#unix:}" info | tr -d '\r' | sed -nE "s/^$1:([0-9]+).*/\1/p"; }
spent() { # one line: what all of them have used until now
    echo "$(tree_cpu_ms "$postgres") $(tree_cpu_ms "$redis") $(cpu_ms "${pid[lean]}") $(cpu_ms "${pid[dispatcher]}")" \
        "$(sql "select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0'), xact_commit from pg_stat_database where datname = current_database()" | tr '|' ' ')" \
        "$(redis_says total_commands_processed)"
}

# Sets ms (the run's), worker_cpu (ms), rss (KiB), most_open, callers (connections), spent_before, spent_after; adds to not_once.
run_jobs() { # OPERATION COUNT PREFIX [SETTING...]
    local operation=$1 count=$2 prefix=$3 name=worker-$3 began ended done_before
    shift 3
    say "$count $operation"
    done_before=$(sql "select count(*) from jobs where state = 'succeeded'")
    accept_jobs "$operation" "$count" "$prefix"
    reset_lean
    watch_ends || fail "psql does not answer"
    warm_memory
    spent_before=$(spent)
    begin_worker "$name" KILN_CONCURRENCY="$CONCURRENCY" "$@"
    wait_for_end "$count" || fail "not all jobs end, $(lean_says answers) of $count were answered" "$name"
    worker_cpu=$(tree_cpu_ms "${pid[$name]}")
    rss=$(memory_kib "${pid[$name]}" VmHWM)
    spent_after=$(spent)
    began=$(worker_began "$name")
    ms=$((ended - began))
    most_open=$(lean_says most_open)
    callers=$(lean_says callers)
    not_once=$((not_once + count - $(lean_says once)))
    done_before=$(($(sql "select count(*) from jobs where state = 'succeeded'") - done_before))
    [ "$done_before" = "$count" ] || fail "$done_before of $count jobs succeeded" "$name"
    end "$name" 30 || fail "the worker did not end well" "$name"
    say "  $(calc "$count * 1000 / $ms") jobs/s, worker CPU $(per_thousand "$count") s a thousand, $(calc "$rss / 1024") MiB, $most_open open at once"
}
per_thousand() { calc "$worker_cpu / $1" "${2:-3}"; } # CPU seconds of the worker

worker_began() { # when its first heartbeat stood in PostgreSQL
    date -d "$(sed -nE '/event=alive/{s/^time=([^ ]+).*/\1/p;q}' "$home/log/$1.log")" +%s%3N
}

floor_of_calls() { # the provider alone: what this machine answers with nothing of kiln between
    local i answers ms rates=() rounds=4
    for ((i = 0; i < ROUNDS; i++)); do
        say "floor $((i + 1)) of $ROUNDS"
        read -r answers ms < <("$programs/tests/bench/bench_callers" "$lean_port" "$CONCURRENCY" "$rounds" 2>>"$home/log/callers.log" |
            sed -E 's/answers=([0-9]+) .* ms=([0-9]+)/\1 \2/')
        [ "${answers:-0}" = $((CONCURRENCY * rounds)) ] || fail "the floor's calls were not all answered" callers
        rates+=("$(calc "$answers * 1000 / $ms")")
    done
    figure "floor: provider alone, $CONCURRENCY connections, calls of 1 s" "$(median "${rates[@]}")" answers/s
}

floor_of_files() { # results of that size on this disk: each synced, as kiln stores them, and a hundred at a time
    local how made spent_ms name='each with fsync'
    for how in 1 100; do
        mkdir "$storage/floor$how" || exit 2
        warm_memory
        read -r made ms spent_ms < <("$programs/tests/bench/bench_files" "$storage/floor$how" "$JOBS" 50000 8 "$how" 2>>"$home/log/files.log" |
            tr -c '0-9\n' ' ')
        [ "${made:-0}" = "$JOBS" ] || fail "the floor's files were not written" files
        [ "$how" = 1 ] || name="with one syncfs for $how"
        figure "floor: files of 50 KB, $name" "$(calc "$made * 1000 / $ms")" files/s
        figure "floor: CPU for 1000 files, $name" "$(calc "$spent_ms / $made" 3)" s
    done
}

# The same calls, answers hashed and stored, by libcurl as its manual has it in a program that does nothing else.
bare_calls() { # NAME PATH [POLL_MS]
    local name=$1 path=$2 i made ms spent_ms resident rates=() cpus=()
    shift 2
    for ((i = 0; i < ROUNDS; i++)); do
        say "bare $path $((i + 1)) of $ROUNDS"
        mkdir -p "$storage/bare/$path/$i" || exit 2
        warm_memory
        read -r made ms spent_ms resident < <(timeout --foreground 120 "$programs/tests/bench/bench_bare" "$LEAN_BASE_URL/lean/$path" "$JOBS" \
            "$storage/bare/$path/$i" "$@" 2>>"$home/log/bare.log" 9>&- | tr -c '0-9\n' ' ')
        [ "${made:-0}" = "$JOBS" ] || fail "the bare calls were not all answered and stored" bare
        rates+=("$(calc "$made * 1000 / $ms")") cpus+=("$(calc "$spent_ms / $made" 3)")
        say "  ${rates[-1]}/s, CPU ${cpus[-1]} s a thousand, $(calc "$resident / 1024") MiB"
    done
    figure "a plain libcurl program: $JOBS $name, hashed and stored" "$(median "${rates[@]}")" jobs/s
    figure "a plain libcurl program, $name: CPU for 1000" "$(median "${cpus[@]}")" s
}

bench_sync() {
    local i rates=() cpus=() rsses=() opens=() highest
    for ((i = 0; i < ROUNDS; i++)); do
        run_jobs lean.call "$JOBS" "s$i-"
        rates+=("$(calc "$JOBS * 1000 / $ms")") cpus+=("$(per_thousand "$JOBS")") rsses+=("$rss") opens+=("$most_open")
    done
    highest=$(printf '%s\n' "${rsses[@]}" | sort -n | tail -n 1)
    goal "$JOBS jobs, calls of 1 s: from the first claim to the last end" "$(median "${rates[@]}")" jobs/s at_least 4000
    figure "the slowest of $ROUNDS" "$(printf '%s\n' "${rates[@]}" | sort -n | head -n 1)" jobs/s
    goal "CPU of the worker for 1000 jobs" "$(median "${cpus[@]}")" s at_most 0.20
    goal "highest RSS of the worker, most of $ROUNDS" "$(calc "$highest / 1024" 1)" MiB at_most 250
    figure "most calls open at the provider at once" "$(median "${opens[@]}")" calls
}

budget() { # JOBS: what each of them used, all of it
    local before after i name each names=(PostgreSQL Redis 'the lean provider' 'the dispatcher')
    read -ra before <<<"$spent_before"
    read -ra after <<<"$spent_after"
    figure "CPU a job: the worker" "$(calc "$worker_cpu * 1000 / $1")" us
    for i in 0 1 2 3; do
        figure "CPU a job: ${names[i]}" "$(calc "(${after[i]} - ${before[i]}) * 1000 / $1")" us
    done
    while IFS='|' read -r name each; do
        figure "of PostgreSQL, time a job: $name" "$each" us
    done < <(sql "select funcname, round((self_time * 1000 / $1)::numeric, 1) from pg_stat_user_functions
                  where self_time * 1000 / $1 >= 1 order by self_time desc limit 8")
    figure "WAL a job" "$(calc "(${after[4]} - ${before[4]}) / $1")" bytes
    figure "transactions of PostgreSQL for 1000 jobs" "$(calc "(${after[5]} - ${before[5]}) * 1000 / $1")" commits
    figure "commands of Redis a job, those in scripts too" "$(calc "(${after[6]} - ${before[6]}) / $1" 1)" commands
}

track_functions() { # pl|none: PostgreSQL writes down how long each function takes, which takes a little itself
    echo "track_functions = $1" >>"$home/services/postgres/data/postgresql.conf" && kill -HUP "$postgres"
}

bench_long() {
    local recorder=''
    if [ -n "${BENCH_PROFILE:-}" ]; then
        perf record -a -e cpu-clock -F 499 -g -o "$BENCH_PROFILE" >"$home/log/perf.log" 2>&1 &
        recorder=$!
    fi
    track_functions pl
    run_jobs lean.call "$LONG" l
    track_functions none
    [ -z "$recorder" ] || { kill -INT "$recorder" && wait "$recorder"; }
    figure "$LONG jobs, at most $CONCURRENCY calls open" "$(calc "$LONG * 1000 / $ms")" jobs/s
    figure "the same: CPU of the worker for 1000 jobs" "$(per_thousand "$LONG")" s
    figure "the same: highest RSS of the worker" "$(calc "$rss / 1024" 1)" MiB
    figure "the same: connections that the worker opened" "$callers" sockets
    budget "$LONG"
}

bench_async() {
    local i rates=() cpus=() rsses=()
    set_lean '{"polls":3}'
    for ((i = 0; i < ROUNDS; i++)); do
        run_jobs lean.wait "$JOBS" "a$i-"
        rates+=("$(calc "$JOBS * 1000 / $ms")") cpus+=("$(per_thousand "$JOBS")") rsses+=("$rss")
    done
    figure "$JOBS jobs, submit, three polls, download" "$(median "${rates[@]}")" jobs/s
    goal "the same: CPU of the worker for 1000 jobs" "$(median "${cpus[@]}")" s at_most 0.35
    figure "the same: highest RSS of the worker, median" "$(calc "$(median "${rsses[@]}") / 1024" 1)" MiB
}

bench_image() { # the same bytes as a picture: what it takes to look at each
    run_jobs lean.image "$JOBS" i
    figure "$JOBS jobs, each a picture of 512 by 512 that is decoded" "$(calc "$JOBS * 1000 / $ms")" jobs/s
    figure "the same: CPU of the worker and its helpers for 1000 jobs" "$(per_thousand "$JOBS")" s
}

bench_through() {
    local part postgres redis not_once=0
    figure "load average of the machine before" "$(cut -d ' ' -f 1 /proc/loadavg)" programs
    open_lean
    postgres=$(server_pid postgres)
    redis=$(server_pid redis)
    set_lean '{"delay_ms":1000,"bytes":50000}'
    for part in $PARTS; do
        case $part in
        floor)
            floor_of_calls
            floor_of_files
            bare_calls "calls of 1 s" call
            set_lean '{"polls":3}'
            bare_calls "submits, three polls, download" jobs 500
            ;;
        sync | long | async | image) "bench_$part" ;;
        *) fail "there is no part $part" ;;
        esac
    done
    floor_of_memory
    goal "jobs whose submit the provider did not see exactly once" "$not_once" jobs exactly 0
    kiln audit >>"$home/log/kiln.log" 2>&1 || fail "the books do not add up" kiln
}
