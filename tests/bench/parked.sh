# shellcheck shell=bash disable=SC2154
# parked - what a job costs that only waits: at an asynchronous provider, or in a call that is open
#
# Sourced by scripts/bench. One worker holds them all. What is measured is memory beyond that of the same worker
# with nothing to do, once all of them wait, and the CPU that it takes to wait on.

# BENCH_WAITING jobs and BENCH_CALLS calls; BENCH_PARTS (--parts): of waiting, calls, http2.
WAITING=${BENCH_WAITING:-100000} CALLS=${BENCH_CALLS:-15000} PARTS=${BENCH_PARTS:-waiting calls http2}

mib() { calc "$1 / 1024" 1; }
worker_says() { ask "$worker_url/readyz" | number_in "$1"; }
succeeded() { sql "select count(*) from jobs where state = 'succeeded'"; }
have_succeeded() { [ "$(succeeded)" -ge "$1" ]; }
references() { sql "select count(*) from attempts where ref is not null and state = 'open'"; }
all_wait() { [ "$(worker_says waiting)" = "$WAITING" ] && [ "$(references)" = "$WAITING" ]; }
nearly_all_wait() { [ "$(worker_says waiting)" -ge $((WAITING - WAITING / 100)) ]; } # one in a hundred may be at its poll
are_open() { [ "$(lean_says open)" = "$1" ]; }
count_once() { not_once=$((not_once + $1 - $(lean_says once))); } # COUNT

cpu_percent() { # NAME SECONDS: of one core
    local before
    before=$(cpu_ms "${pid[$1]}")
    sleep "$2"
    calc "($(cpu_ms "${pid[$1]}") - $before) / $2 / 10" 1
}

# Polls of lean.hour come after an hour, so that none falls into what is measured. The next worker takes the same jobs
# over with a schedule of a minute, and then they end.
bench_waiting() {
    local base rss began
    say "$WAITING jobs waiting at an asynchronous provider"
    reset_lean
    set_lean '{"bytes":64,"polls":60000}'
    begin_worker parked
    sleep 3
    base=$(memory_kib "${pid[parked]}" VmRSS)
    began=$(now_ms)
    accept_jobs lean.hour "$WAITING" w
    wait_until 300 all_wait || fail "they do not all wait: $(references) references, $(worker_says waiting) waiting" parked
    figure "accepted, submitted and on disk as waiting" "$(calc "$WAITING * 1000 / ($(now_ms) - $began)")" jobs/s
    sleep 10 # what followed the last submits
    rss=$(memory_kib "${pid[parked]}" VmRSS)
    figure "RSS of the worker with no job" "$(mib "$base")" MiB
    figure "its RSS with $WAITING jobs that wait" "$(mib "$rss")" MiB
    figure "its highest RSS" "$(mib "$(memory_kib "${pid[parked]}" VmHWM)")" MiB
    goal "memory a waiting job" "$(calc "($rss - $base) * 1024 / $WAITING")" bytes at_most 2048
    goal "CPU of that worker, no poll due" "$(cpu_percent parked 20)" % at_most 3
    end parked 60 || fail "the worker did not end well" parked

    sed -i 's/3600000/60000/g' "$home/catalog/lean.json"
    begin_worker minute
    wait_until 120 nearly_all_wait || fail "the next worker does not take over: $(worker_says waiting) wait" minute
    sleep 60
    figure "CPU of a worker that polls each of $WAITING every minute" "$(cpu_percent minute 30)" %
    set_lean '{"polls":0}'
    wait_until 300 have_succeeded "$WAITING" || fail "only $(succeeded) have ended" minute
    count_once "$WAITING"
    end minute 30 || fail "the worker did not end well" minute
}

# What as many calls take in a program that is libcurl and little else.
floor_of_calls() {
    local one
    hold_calls 1
    one=$resident
    hold_calls "$CALLS"
    figure "floor: memory a call of libcurl alone, HTTP/1.1" "$(calc "($resident - $one) / $CALLS" 1)" KiB
}
hold_calls() { # COUNT; sets resident
    begin floor "$programs/tests/bench/bench_submit" "$LEAN_BASE_URL/lean/call" "$1" "$1" '{"prompt":"a floor {}"}'
    wait_until 100 are_open "$1" || fail "only $(lean_says open) calls are open" floor
    resident=$(memory_kib "${pid[floor]}" VmRSS)
    end floor 5
    wait_until 30 are_open 0 || fail "the provider does not notice that they left" lean
}

hold_open() { # NAME PREFIX [SETTING...]; sets each, the KiB of a call that is open
    local name=$1 prefix=$2 base rss before open
    shift 2
    say "$CALLS calls in flight, $name"
    before=$(succeeded)
    reset_lean
    set_lean '{"delay_ms":110000,"bytes":2000}'
    begin_worker "open$prefix" KILN_CONCURRENCY=$((CALLS + 500)) "$@"
    sleep 3
    base=$(memory_kib "${pid["open$prefix"]}" VmRSS)
    accept_jobs lean.call "$CALLS" "$prefix"
    wait_until 60 are_open "$CALLS"
    open=$(lean_says open)
    [ "$open" -gt 0 ] || fail "no call is open" "open$prefix"
    sleep 2
    rss=$(memory_kib "${pid["open$prefix"]}" VmRSS)
    each=$(calc "($rss - $base) / $open" 1)
    say "  $open open, $each KiB each"
    goal "$name: calls open at once (20000 files are the limit)" "$open" calls at_least "$CALLS"
    figure "$name: RSS while they wait" "$(mib "$rss")" MiB
    figure "$name: CPU while they wait" "$(cpu_percent "open$prefix" 10)" %
    set_lean '{"delay_ms":0}' # those who wait are answered
    wait_until 120 have_succeeded $((before + CALLS)) || fail "only $(($(succeeded) - before)) have succeeded" "open$prefix"
    figure "$name: highest RSS, answers of 2 KB at once" "$(mib "$(memory_kib "${pid["open$prefix"]}" VmHWM)")" MiB
    count_once "$CALLS"
    end "open$prefix" 30 || fail "the worker did not end well" "open$prefix"
}

begin_gateway() { # TLS in front of the provider; sets gateway, which speaks HTTP/2, and gateway1, which does not
    local dir=$home/gateway port plain user=''
    mkdir -p "$dir" || exit 2
    port=$(free_port) || fail "found no free port"
    plain=$(free_port) || fail "found no free port"
    [ "$(id -u)" != 0 ] || user='user root;'
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=kiln-bench \
        -addext subjectAltName=IP:127.0.0.1 -keyout "$dir/key.pem" -out "$dir/cert.pem" 2>"$home/log/openssl.log" ||
        fail "openssl made no certificate" openssl
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
    proxy_set_header Connection "";
    proxy_read_timeout 300s;
    upstream lean { server ${LEAN_BASE_URL#http://}; keepalive 100; }
    server { listen 127.0.0.1:$port ssl http2 backlog=4096; location / { proxy_pass http://lean; } }
    server { listen 127.0.0.1:$plain ssl backlog=4096; location / { proxy_pass http://lean; } }
}
END
    begin gateway nginx -p "$dir" -c "$dir/nginx.conf" -e stderr
    gateway=https://127.0.0.1:$port gateway1=https://127.0.0.1:$plain
    wait_until 20 listens "$port" || fail "nginx does not start" gateway
}
listens() { ! port_free "$1"; }

bench_calls() {
    set_lean '{"delay_ms":300000}'
    floor_of_calls
    hold_open "HTTP/1.1" c
    http1_each=$each
    goal "HTTP/1.1: memory a call" "$each" KiB at_most 24
}

bench_http2() { # beside HTTP/1.1 over the same TLS, which no provider speaks HTTP/2 without
    local all=$CALLS
    begin_gateway
    CALLS=$((CALLS < 9000 ? CALLS : 9000)) # two connections of nginx each, which may have 20000 files
    hold_open "HTTP/1.1 with TLS" t LEAN_BASE_URL="$gateway1" KILN_CA_FILE="$home/gateway/cert.pem"
    CALLS=$all
    figure "HTTP/1.1 with TLS: memory a call" "$each" KiB
    tls1_each=$each
    hold_open "HTTP/2" h LEAN_BASE_URL="$gateway" KILN_CA_FILE="$home/gateway/cert.pem"
    goal "HTTP/2: memory a call" "$each" KiB at_most 24
    goal "HTTP/2: memory a call, of one over HTTP/1.1 with TLS" "$(calc "$each / $tls1_each" 2)" ratio at_most 1
    [ -z "$http1_each" ] || figure "HTTP/2: memory a call, of one over HTTP/1.1 without TLS" "$(calc "$each / $http1_each" 2)" ratio
}

bench_parked() {
    local part not_once=0 each http1_each='' tls1_each gateway gateway1
    open_lean
    for part in $PARTS; do
        case $part in
        waiting | calls | http2) "bench_$part" ;;
        *) fail "there is no part $part" ;;
        esac
    done
    goal "jobs whose submit the provider did not see exactly once" "$not_once" jobs exactly 0
    kiln audit >>"$home/log/kiln.log" 2>&1 || fail "the books do not add up" kiln
}
