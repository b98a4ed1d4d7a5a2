#!/usr/bin/env bash
# The programs that the suites start are themselves built with ASan and UBSan, each with all of its own code.
#   bash tests/sanitize/sanitized.sh BUILD-FOLDER
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/claims.sh"

has() { nm "$1" 2>/dev/null | grep -q "$2"; }

for program in dispatcher/kiln-dispatcher worker/kiln-worker dispatcher/client/kiln tests/sandbox/kiln-sandbox \
    tests/chaos/kiln-oracle; do
    claim "$program has ASan" has "$1/$program" __asan_report_load8
    claim "$program has UBSan" has "$1/$program" __ubsan_handle_type_mismatch_v1_abort
done
