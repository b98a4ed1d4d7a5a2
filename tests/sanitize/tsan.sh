#!/usr/bin/env bash
# Builds preset tsan and runs its tests: unit, queue and io tests, and the whole path, under ThreadSanitizer.
#   bash tests/sanitize/tsan.sh [CTEST-ARGUMENT...]
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
log=build/tsan.log
mkdir -p build
if ! { cmake --preset tsan && cmake --build --preset tsan -j 2; } >"$log" 2>&1; then
    grep -E '(error|FAILED|undefined reference|CMake Error)' "$log" | head -n 20
    tail -n 20 "$log"
    exit 1
fi
# TSan wants its shadow where addresses are not shuffled far (vm.mmap_rnd_bits above 28: "unexpected memory mapping")
calm=()
! setarch -R true 2>/dev/null || calm=(setarch -R)
exec "${calm[@]}" ctest --preset tsan -j 2 --timeout 300 "$@"
