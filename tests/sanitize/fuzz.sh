#!/usr/bin/env bash
# Builds preset fuzz and runs every target of tests/fuzz for some seconds, two at a time; 60 unless told.
#   bash tests/sanitize/fuzz.sh [SECONDS [TARGET...]]
#   bash tests/sanitize/fuzz.sh --runs N [TARGET...]
# A target that crashes, hangs, leaks or breaks a claim fails the run, and the input's path is printed. What was found
# on the way is kept in build/fuzz/found/TARGET and is where the next run starts; every run looks elsewhere. With --runs
# each target gets N inputs, or the first of them that 10 s allow, and they are the same each time and on each machine
# (ctest does so: a change is judged by what it changed): one seed, the tree's corpora in one order, fixed addresses.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
runs=
[ "${1:-}" != --runs ] || { runs=${2:-none} && shift; }
seconds=${1:-60}
[ $# -eq 0 ] || shift
case $seconds in '' | *[!0-9]*) echo "usage: tests/sanitize/fuzz.sh [SECONDS | --runs N] [TARGET...]" >&2 && exit 2 ;; esac

log=build/fuzz.log
mkdir -p build
if ! { cmake --preset fuzz && cmake --build --preset fuzz -j 2; } >"$log" 2>&1; then
    grep -E '(error|FAILED|undefined reference|CMake Error)' "$log" | head -n 20
    tail -n 20 "$log"
    exit 1
fi

bin=$PWD/build/fuzz/tests/fuzz found=$PWD/build/fuzz/found
fixed=()
! setarch -R true 2>/dev/null || fixed=(setarch -R)
export ASAN_OPTIONS=allow_addr2line=1:detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1

start() { # TARGET OUT CORPUS-FOLDER...
    local name=$1 out=$2
    local options=(-max_len=16384 -timeout=10 -rss_limit_mb=2048 -artifact_prefix="$out/")
    shift 2
    if [ -z "$runs" ]; then
        timeout $((seconds + 60)) "$bin/fuzz_$name" "${options[@]}" -max_total_time="$seconds" "$out/corpus" "$@"
        return
    fi
    find "$@" -type f | LC_ALL=C sort | tr '\n' ',' | sed 's/,$//' >"$out/seeds"
    "${fixed[@]}" "$bin/fuzz_$name" "${options[@]}" -seed=1 -runs="$runs" -max_total_time=10 -seed_inputs="@$out/seeds"
}

run() { # TARGET CORPUS-FOLDER...
    local name=$1 out=$found/$1
    shift
    mkdir -p "$out/corpus"
    if start "$name" "$out" "$@" >"$out/log" 2>&1 </dev/null; then
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
