#!/usr/bin/env bash
# Builds preset fuzz and runs every target of tests/fuzz for some seconds, two at a time; 60 unless told.
#   bash tests/sanitize/fuzz.sh [SECONDS [TARGET...]]
# A target that crashes, hangs, leaks or breaks a claim fails the run, and the input's path is printed. What was found
# on the way is kept in build/fuzz/found/TARGET and is where the next run starts. FUZZ_SEED=N makes a run's inputs the same
# each time (ctest does, so that a change is judged by what it changed); without it every run looks elsewhere.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
seconds=${1:-60}
[ $# -eq 0 ] || shift
case $seconds in '' | *[!0-9]*) echo "usage: tests/sanitize/fuzz.sh [SECONDS [TARGET...]]" >&2 && exit 2 ;; esac

log=build/fuzz.log
mkdir -p build
if ! { cmake --preset fuzz && cmake --build --preset fuzz -j 2; } >"$log" 2>&1; then
    grep -E '(error|FAILED|undefined reference|CMake Error)' "$log" | head -n 20
    tail -n 20 "$log"
    exit 1
fi

bin=$PWD/build/fuzz/tests/fuzz found=$PWD/build/fuzz/found
export ASAN_OPTIONS=allow_addr2line=1:detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1

run() { # TARGET CORPUS-FOLDER...
    local name=$1 out=$found/$1
    shift
    mkdir -p "$out/corpus"
    if timeout $((seconds + 60)) "$bin/fuzz_$name" -max_total_time="$seconds" -max_len=16384 -timeout=10 -seed="${FUZZ_SEED:-0}" \
        -rss_limit_mb=2048 -artifact_prefix="$out/" "$out/corpus" "$@" >"$out/log" 2>&1 </dev/null; then
        printf 'fuzz_%-9s %s\n' "$name" "$(grep -E '#[0-9]+.*DONE' "$out/log" | tr '\t' ' ')"
        return
    fi
    printf 'fuzz_%s FAILED; the end of %s:\n' "$name" "$out/log"
    grep -vE '^#[0-9]' "$out/log" | tail -n 50
    sed -nE 's/.*Test unit written to (.*)/the input: \1/p' "$out/log"
    printf 'again: build/fuzz/tests/fuzz/fuzz_%s THE-INPUT\n' "$name"
    touch "$found/failed"
}

rm -f "$found/failed"
count=0
while read -r name corpus; do
    [ $# -eq 0 ] || [[ " $* " == *" $name "* ]] || continue
    count=$((count + 1))
    # shellcheck disable=SC2086 # folders of this repository, without blanks
    run "$name" $corpus &
    while [ "$(jobs -rp | wc -l)" -ge 2 ]; do wait -n; done
done <"$bin/targets"
wait
[ "$count" -gt 0 ] && [ ! -e "$found/failed" ]
