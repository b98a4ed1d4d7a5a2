# shellcheck shell=bash disable=SC2154
# inflight - what one worker holds: jobs waiting, calls in flight, and how fast it lets go of them
#
# Sourced by scripts/bench. Jobs come through POST /v1/jobs; the sandbox takes as long as each part needs, and
# moving its clock completes what waits there. The limits of the lanes are lifted, the poll intervals are the
# catalogue's: what is measured is a worker at work.

# BENCH_WAITING and BENCH_CALLS are the numbers of jobs; 0 leaves that part out. BENCH_DRAINS is how often it drains.
WAITING=${BENCH_WAITING:-10000} CALLS=${BENCH_CALLS:-5000} DRAINS=${BENCH_DRAINS:-3}

leonardo_job='{"operation":"leonardo.generate","params":{"prompt":"a bench [[job:w{}]]","num_images":1,"width":64,"height":64,"alchemy":false,"presetStyle":"LEONARDO"}}'
core_job='{"operation":"stability.generate.core","params":{"prompt":"a bench [[job:@{}]]"}}'

submit_jobs() { # COUNT BODY
    "$programs/tests/bench/bench_submit" "$url/v1/jobs" "$1" 64 "$2" || fail "not every job was accepted" dispatcher
}
mib() { calc "$1 / 1024" 1; }
finished() { sql "select count(*) from jobs where state = 'succeeded'"; }
has_finished() { [ "$(finished)" -ge "$1" ]; }
references() { sql "select count(*) from attempts where ref is not null and state = 'open'"; }
held() { sql "select count(*) from jobs where holder is not null"; }
all_wait() { # of the jobs one in ten may be at its poll
    [ "$(worker_says waiting)" -ge $((WAITING * 9 / 10)) ] && [ "$(held)" = "$WAITING" ] && [ "$(references)" = "$WAITING" ]
}
worker_says() { ask "$worker_url/readyz" | number_in "$1"; }

# Every submit counted by its tag: how many were seen other than once.
not_once() { # COUNT PREFIX
    ask -m 30 "$sandbox/_sandbox/counters" | tr '{' '\n' | awk -v count="$1" -v tag="\"$2[0-9]+\":\$" '
        is_tag { if ($0 ~ /"requests":1,"paid":1,/) once++; is_tag = 0 }
        $0 ~ tag { is_tag = 1 }
        END { print count - once }'
}

drain() { # NAME OF THE WORKER; sets drain_ms, ready_ms, gone_ms, drain_ready, drain_status, drain_left
    local began=$EPOCHREALTIME
    kill -TERM "${pid[$1]}"
    drain_ready=0
    while [ "$drain_ready" != 503 ] && runs "$1"; do
        drain_ready=$(ask -o /dev/null -w '%{http_code}' "$worker_url/readyz" 2>/dev/null)
    done
    ready_ms=$(calc "($EPOCHREALTIME - $began) * 1000")
    wait_until 60 gone "$1" || fail "$1 does not end" "$1"
    gone_ms=$(calc "($EPOCHREALTIME - $began) * 1000")
    wait "${pid[$1]}"
    drain_status=$?
    unset "pid[$1]"
    drain_ms=$(sed -nE 's/.*event=handed_back ms=([0-9]+).*/\1/p' "$home/log/$1.log")
    drain_left=$(sql "select count(*) from jobs where state not in ('succeeded', 'failed', 'canceled') and holder is not null")
}

# What PostgreSQL takes on this machine to give every one of the jobs another holder, with nothing around it.
floor_ms() {
    sql "begin; explain (analyze, timing off) update jobs set holder = gen_random_uuid() where holder is not null; rollback" |
        sed -nE 's/Execution Time: ([0-9]+).*/\1/p'
}

bench_waiting() {
    local base rss cpu began i drains=() readies=() worst_status=0 left=0 unready=0
    say "$WAITING jobs waiting at an asynchronous provider"
    set_sandbox '{"delay_ms":{"leonardo":7200000}}'
    begin_worker worker0
    sleep 2
    base=$(memory_kib "${pid[worker0]}" VmRSS)
    began=$(now_ms)
    submit_jobs "$WAITING" "$leonardo_job"
    wait_until 180 all_wait || fail "they do not all wait: $(references) references, $(worker_says waiting) waiting" worker0
    figure "accepted, submitted and on disk as waiting" "$(calc "$WAITING * 1000 / ($(now_ms) - $began)")" jobs/s
    sleep 10 # past the last submits: polls only
    cpu=$(cpu_ms "${pid[worker0]}")
    sleep 10
    cpu=$(($(cpu_ms "${pid[worker0]}") - cpu))
    rss=$(memory_kib "${pid[worker0]}" VmRSS)
    goal "RSS of a worker with $WAITING jobs waiting" "$(mib "$rss")" MiB at_most 100
    figure "its highest RSS" "$(mib "$(memory_kib "${pid[worker0]}" VmHWM)")" MiB
    figure "its RSS with none" "$(mib "$base")" MiB
    figure "memory a waiting job" "$(calc "($rss - $base) * 1024 / $WAITING")" bytes
    figure "CPU of that worker, polling each every 3 s" "$(calc "$cpu / 100" 1)" %

    for ((i = 0; i < DRAINS; i++)); do
        say "drain $((i + 1)) of $DRAINS"
        drain "worker$i"
        [ -n "$drain_ms" ] || fail "worker$i did not say handed_back" "worker$i"
        drains+=("$drain_ms") readies+=("$ready_ms")
        [ "$drain_status" = 0 ] || worst_status=$drain_status
        [ "$drain_ready" = 503 ] || unready=$((unready + 1))
        left=$((left + drain_left))
        begin_worker "worker$((i + 1))"
        wait_until 180 all_wait || fail "the next worker does not take over" "worker$((i + 1))"
    done
    goal "from SIGTERM to the last of $WAITING jobs handed back, median" "$(median "${drains[@]}")" ms at_most 1000
    figure "the same, slowest of $DRAINS" "$(printf '%s\n' "${drains[@]}" | sort -n | tail -n 1)" ms
    goal "from SIGTERM to /readyz 503, median" "$(median "${readies[@]}")" ms at_most 1000
    goal "drains without /readyz 503" "$unready" drains exactly 0
    goal "exit status of the drained workers" "$worst_status" status exactly 0
    goal "jobs that a drained worker kept" "$left" jobs exactly 0

    figure "floor: the same rows in one plain UPDATE of PostgreSQL" "$(floor_ms)" ms

    say "the last worker finishes them"
    began=$(now_ms)
    set_sandbox '{"clock_offset_ms":7200000}'
    wait_until 300 has_finished "$WAITING" || fail "only $(finished) have finished" "worker$DRAINS"
    figure "polled, downloaded, verified, stored and settled" "$(calc "$WAITING * 1000 / ($(now_ms) - $began)")" jobs/s
    goal "jobs whose submit the sandbox did not see exactly once" "$(not_once "$WAITING" w)" jobs exactly 0
    end "worker$DRAINS" 30 || fail "the last worker did not end well" "worker$DRAINS"
}

# What the same number of calls takes in a program that is libcurl and little else.
floor_of_calls() {
    local one
    hold_calls 1
    one=$resident
    hold_calls "$CALLS"
    figure "floor: memory a call of libcurl alone, plain HTTP" "$(calc "($resident - $one) / $CALLS" 1)" KiB
}
hold_calls() { # COUNT; sets resident
    begin floor "$programs/tests/bench/bench_submit" "$sandbox/openai/v1/images/generations" "$1" "$1" \
        '{"model":"gpt-image-1.5","prompt":"a floor {}"}'
    wait_until 100 waits "$1" || fail "only $(sandbox_now waiting) calls are in flight" floor
    resident=$(memory_kib "${pid[floor]}" VmRSS)
    end floor 5
    wait_until 30 waits 0 || fail "the sandbox does not notice that they left" sandbox
}
waits() { [ "$(sandbox_now waiting)" = "$1" ]; }

bench_calls() { # NAME BASE_URL GOAL [NAME=VALUE...]; GOAL empty: none
    local name=$1 base_url=$2 most=$3 base rss high before
    shift 3
    say "$CALLS calls in flight, $name"
    before=$(finished)
    ask -f -o /dev/null -X POST "$sandbox/_sandbox/reset"
    begin_worker "worker-$tag" KILN_CONCURRENCY=$((CALLS + 500)) STABILITY_BASE_URL="$base_url" "$@"
    sleep 2
    base=$(memory_kib "${pid[worker-$tag]}" VmRSS)
    submit_jobs "$CALLS" "${core_job//@/$tag}"
    wait_until 60 waits "$CALLS" || fail "only $(sandbox_now waiting) calls are in flight" "worker-$tag"
    rss=$(memory_kib "${pid[worker-$tag]}" VmRSS)
    figure "$name: connections for $CALLS calls" "$(connections "${pid[worker-$tag]}" "$base_url")" sockets
    figure "$name: RSS while all wait" "$(mib "$rss")" MiB
    figure "$name: memory a call" "$(calc "($rss - $base) / $CALLS" 1)" KiB
    wait_until 240 has_finished $((before + CALLS)) || fail "only $(($(finished) - before)) have finished" "worker-$tag"
    high=$(memory_kib "${pid[worker-$tag]}" VmHWM)
    if [ -n "$most" ]; then
        goal "$name: highest RSS with $CALLS calls" "$(mib "$high")" MiB at_most "$most"
    else
        figure "$name: highest RSS with $CALLS calls" "$(mib "$high")" MiB
    fi
    goal "$name: submits that the sandbox did not see exactly once" "$(not_once "$CALLS" "$tag")" jobs exactly 0
    end "worker-$tag" 30 || fail "the worker did not end well" "worker-$tag"
}
connections() { # PID BASE_URL: its open sockets to that port
    local port=${2#*://*:}
    port=$(printf '%04X' "${port%%/*}")
    comm -12 <(find "/proc/$1/fd" -lname 'socket:*' -printf '%l\n' 2>/dev/null | tr -dc '0-9\n' | sort) \
        <(awk -v port=":$port" '$3 ~ port "$" && $4 == "01" { print $10 }' /proc/net/tcp | sort) | wc -l
}

# A drain in the middle of calls: they are let finish, then it ends.
bench_open_calls() {
    local before count=500
    say "drain with $count calls in flight"
    before=$(finished)
    set_sandbox '{"delay_ms":{"stability_generate":10000}}'
    begin_worker worker-o
    submit_jobs "$count" "${core_job//@/o}"
    wait_until 60 waits "$count" || fail "only $(sandbox_now waiting) calls are in flight" worker-o
    drain worker-o
    figure "from SIGTERM with $count calls in flight to the end" "$gone_ms" ms
    goal "exit status of that worker" "$drain_status" status exactly 0
    goal "its calls that were not finished and settled" $((before + count - $(finished))) jobs exactly 0
    goal "its submits that the sandbox did not see exactly once" "$(not_once "$count" o)" jobs exactly 0
}

begin_nginx() { # a TLS gateway in front of the sandbox; sets tls_port, h2_port
    local dir=$home/nginx user=''
    mkdir -p "$dir" || exit 2
    tls_port=$(free_port) || fail "found no free port"
    h2_port=$(free_port) || fail "found no free port"
    [ "$(id -u)" != 0 ] || user='user root;'
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=kiln-bench \
        -addext subjectAltName=IP:127.0.0.1 -keyout "$dir/key.pem" -out "$dir/cert.pem" 2>"$home/log/openssl.log" ||
        fail "openssl made no certificate" openssl
    cat /etc/ssl/certs/ca-certificates.crt "$dir/cert.pem" >"$dir/ca.pem" # what a worker with both would load
    cat >"$dir/nginx.conf" <<END
$user
daemon off;
pid $dir/pid;
error_log stderr error;
worker_processes 1;
worker_rlimit_nofile $(ulimit -Hn);
events { worker_connections $(($(ulimit -Hn) - 100)); }
http {
    access_log off;
    client_body_temp_path $dir/body;
    proxy_temp_path $dir/proxy;
    fastcgi_temp_path $dir/fastcgi;
    uwsgi_temp_path $dir/uwsgi;
    scgi_temp_path $dir/scgi;
    ssl_certificate $dir/cert.pem;
    ssl_certificate_key $dir/key.pem;
    proxy_http_version 1.1;
    proxy_read_timeout 300s;
    client_max_body_size 50m;
    server { listen 127.0.0.1:$tls_port ssl; location / { proxy_pass $sandbox; } }
    server { listen 127.0.0.1:$h2_port ssl http2; location / { proxy_pass $sandbox; } }
}
END
    begin nginx nginx -p "$dir" -c "$dir/nginx.conf" -e stderr
    wait_until 20 listens "$tls_port" || fail "nginx does not start" nginx
}
listens() { ! port_free "$1"; }

bench_inflight() {
    local trusted
    open_house '{"provider":"leonardo","operations":{"leonardo.generate":{"deadline_s":7200}}}'
    [ "$WAITING" = 0 ] || bench_waiting
    [ "$CALLS" = 0 ] && return
    set_sandbox '{"clock_offset_ms":0,"delay_ms":{"stability_generate":40000,"openai":120000}}'
    floor_of_calls
    tag=p
    bench_calls "plain HTTP" "$sandbox/stability" 300
    bench_open_calls
    set_sandbox '{"delay_ms":{"stability_generate":40000}}'
    begin_nginx
    trusted=KILN_CA_FILE=$home/nginx/ca.pem
    tag=t
    bench_calls "TLS, HTTP/1.1" "https://127.0.0.1:$tls_port/stability" '' "$trusted"
    tag=h
    bench_calls "TLS, HTTP/2" "https://127.0.0.1:$h2_port/stability" '' "$trusted"
    kiln audit >>"$home/log/kiln.log" 2>&1 || fail "the books do not add up" kiln
}
