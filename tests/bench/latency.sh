# shellcheck shell=bash disable=SC2154
# latency - what one job waits for on an idle system: from its POST to the provider, from the provider to who waits
#
# Sourced by scripts/bench. tests/bench/latency.c is the web app and the provider at once, so that one clock sees both ends.
# One job at a time, a few a second. The break-down sets its times beside those that PostgreSQL wrote into the job's rows,
# which are of the same machine's clock and from within the transactions, before they commit.

JOBS=${BENCH_JOBS:-300} PAUSE_MS=${BENCH_PAUSE_MS:-150}

provider='{"provider":"bench","adapter":"generic","base_url":"http://127.0.0.1:1","base_url_env":"BENCH_BASE_URL",
    "auth":{"header":"X-Key","prefix":""},"lane":{},"price_version":"bench-1","operations":{"bench.make":{
    "description":"made up","typical_s":1,"deadline_s":60,"failed_is_free":false,"output":"file","answer":"file",
    "max_result_bytes":1000000,"max_result_pixels":1000000,"submit":{"method":"POST","path":"/make","body":"json","timeout_ms":10000},
    "params":{"prompt":{"type":"string","required":true}},"price":{"unit":"image","rows":[{"credits":1}]}}}}'

of() { sed -nE "s/(^|.* )$1=([0-9]+).*/\2/p" "$2"; } # NAME FILE
ms() { calc "$1 / 1000" 2; }

# The spans of the jobs in FILE, in microseconds: a line NAME P50 P99 for each.
spans() { # FILE
    psql -X -q -A -t -F ' ' -v ON_ERROR_STOP=1 -d "$KILN_DATABASE_URL" \
        -c 'create temp table seen (id uuid, posted bigint, accepted bigint, asked bigint, answered bigint, visible bigint)' \
        -c "\\copy seen from '$1'" -c "
        with times as (
            select s.*, us(j.created_at) as created, us(a.opened_at) as started, us(j.finished_at) as finished
            from seen s join jobs j using (id) join attempts a on a.job_id = j.id and a.no = 1)
        select v.name, percentile_disc(0.5) within group (order by v.us), percentile_disc(0.99) within group (order by v.us)
        from times t cross join lateral (values
            ('posted_asked', asked - posted), ('accepted_asked', asked - accepted), ('answered_visible', visible - answered),
            ('posted_accepted', accepted - posted), ('posted_created', created - posted),
            ('created_accepted', accepted - created), ('created_started', started - created),
            ('started_asked', asked - started), ('answered_finished', finished - answered),
            ('finished_visible', visible - finished)) v(name, us)
        group by v.name" || fail "the times could not be read"
}
half() { awk -v name="$1" '$1 == name { print $2 }' "$2"; }  # NAME FILE: the median
worst() { awk -v name="$1" '$1 == name { print $3 }' "$2"; } # the 99th percentile
span() {                                                     # TITLE NAME FILE: figures of both
    figure "$1: median" "$(ms "$(half "$2" "$3")")" ms
    figure "$1: 99th percentile" "$(ms "$(worst "$2" "$3")")" ms
}

take() { # DELAY_MS FILE
    "$programs/tests/bench/bench_latency" "$url" "$port" "$JOBS" "$1" "$PAUSE_MS" "$home/jobs" >"$home/told" 2>>"$home/log/latency.log" ||
        fail "the jobs could not be measured" latency
    bad=$((bad + $(of bad "$home/told")))
    spans "$home/jobs" >"$2"
}

floor() { # TITLE WHAT...
    local title=$1
    shift
    "$programs/tests/bench/bench_floors" "$@" >"$home/floor" || fail "the floor could not be measured"
    figure "floor: $title: median" "$(ms "$(of p50_us "$home/floor")")" ms
    figure "floor: $title: 99th percentile" "$(ms "$(of p99_us "$home/floor")")" ms
}

bench_latency() {
    local port bad=0 jobs now=$home/now later=$home/later
    open_services
    printf '%s\n' "$provider" >"$home/catalog/bench.json"
    port=$(free_port) || fail "found no free port"
    export BENCH_BASE_URL=http://127.0.0.1:$port
    open_dispatcher
    begin_worker worker
    sql "create function us(t timestamptz) returns bigint language sql as \$\$ select (extract(epoch from t) * 1000000)::bigint \$\$"
    say "$JOBS jobs, the provider answers at once"
    "$programs/tests/bench/bench_latency" "$url" "$port" 10 0 50 "$home/warm" >>"$home/log/latency.log" 2>&1 ||
        fail "the first jobs do not end" latency
    take 0 "$now"
    say "$JOBS jobs, the provider answers after 100 ms"
    take 100 "$later"

    goal "from POST to the provider's first byte: median" "$(ms "$(half posted_asked "$now")")" ms at_most 6
    goal "from POST to the provider's first byte: 99th percentile" "$(ms "$(worst posted_asked "$now")")" ms at_most 15
    span "from 202 to the provider's first byte" accepted_asked "$now"
    goal "from its answer to what the long-poll shows: median" "$(ms "$(half answered_visible "$now")")" ms at_most 6
    figure "from its answer to what the long-poll shows: 99th percentile" "$(ms "$(worst answered_visible "$now")")" ms
    goal "the same, answered after 100 ms: median" "$(ms "$(half answered_visible "$later")")" ms at_most 6
    figure "the same, answered after 100 ms: 99th percentile" "$(ms "$(worst answered_visible "$later")")" ms
    figure "from POST to the provider, before those 100 ms: median" "$(ms "$(half posted_asked "$later")")" ms
    figure "from POST to the provider, before those 100 ms: 99th percentile" "$(ms "$(worst posted_asked "$later")")" ms
    span "POST sent to 202 received" posted_accepted "$now"
    span "part: POST sent to kiln_accept at work" posted_created "$now"
    span "part: kiln_accept, its commit, 202 received" created_accepted "$now"
    span "part: kiln_accept to kiln_start at work (publish, claim)" created_started "$now"
    span "part: kiln_start, its commit, the provider's first byte" started_asked "$now"
    span "part: the answer to kiln_settle at work (read, store)" answered_finished "$now"
    span "part: kiln_settle, its commit, the long-poll" finished_visible "$now"
    floor "one fdatasync of 8 KiB" fsync "$JOBS" 20 "$home/services/postgres/data"
    floor "one row committed by PostgreSQL" commit "$JOBS" 20
    floor "one SET by Redis" redis "$JOBS" 20

    jobs=$((2 * JOBS + 10))
    goal "jobs that the long-poll did not show as succeeded" "$bad" jobs exactly 0
    goal "rows other than succeeded, or more or fewer than were posted" \
        "$((jobs - $(sql "select count(*) from jobs where state = 'succeeded' and attempt = 1")))" jobs exactly 0
    goal "differences that kiln audit finds" "$(sql 'select count(*) from kiln_audit()')" rows exactly 0
}
