# shellcheck shell=bash
# claims.sh - the little that the tests of the scripts share. A test is a row of claims; the first that
# does not hold ends it, with the line that said so.
set -u
# shellcheck disable=SC2034 # for the test that sources this
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P) || exit 1

work=$(mktemp -d) || exit 1
at_end=()
finish() {
    local status=$? command
    trap - EXIT
    for command in "${at_end[@]}"; do eval "$command"; done
    rm -rf -- "$work"
    exit "$status"
}
trap finish EXIT
trap 'exit 1' INT TERM HUP

claim() { # WHAT IS CLAIMED, then the command that has to succeed
    local what=$1
    shift
    if ! "$@"; then
        printf '%s:%s: not so: %s\n' "${BASH_SOURCE[1]##*/}" "${BASH_LINENO[0]}" "$what" >&2
        exit 1
    fi
    printf 'ok: %s\n' "$what"
}
not() { ! "$@"; }
same() { [ "$1" = "$2" ] || { printf 'got "%s", want "%s"\n' "$1" "$2" >&2 && false; }; }
