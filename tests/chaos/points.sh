#!/usr/bin/env bash
# points.sh - the fail points of kiln, read from its sources, with the actions that each one's form has (failpoint.h):
# lines of `{ "name", "crash stall …" },` for the chaos tests. A new point is covered without being written down here.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

members() { # FAMILY: what its calls are called
    case $1 in
    db) # each struct db_call, and the statements that are not gathered
        grep -rhA1 --include='*.c' -E '\.name = "[a-z_]+"' common worker dispatcher | tr '\n' ' ' | sed 's/ -- /\n/g' |
            grep -oE '\.name = "[a-z_]+", +\.sql' | grep -oE '"[a-z_]+"' | tr -d '"' | sort -u
        echo query
        ;;
    redis)
        for script in schema/redis/*.lua; do basename "$script" .lua; done | grep -v '^common$'
        ;;
    *) echo "points.sh: who is in the family $1?" >&2 && return 1 ;;
    esac
}

sources=$(grep -rn --include='*.c' -E 'FAILPOINT(_OF)?\(' common worker dispatcher | grep -v 'common/base/failpoint')
{
    printf '%s\n' "$sources" | grep -F 'FAILPOINT(' | while read -r line; do
        actions='crash stall error'
        case $line in *'(void)FAILPOINT('*) actions='crash stall' ;; esac
        grep -oE '"[a-z_]+\.[a-z_]+"' <<<"$line" | while read -r name; do printf '%s %s\n' "${name//\"/}" "$actions"; done
    done
    printf '%s\n' "$sources" | grep -F 'FAILPOINT_OF(' | while read -r line; do
        actions='crash stall drop error'
        case $line in *'(void)FAILPOINT_OF('*) actions='crash stall drop' ;; esac
        family=$(sed -E 's/.*FAILPOINT_OF\("([a-z_]+)".*/\1/' <<<"$line")
        when=$(sed -E 's/.*FAILPOINT_OF\([^"]*"[a-z_]+"[^"]*"([a-z_]+)".*/\1/' <<<"$line")
        members "$family" | while read -r what; do printf '%s.%s.%s %s\n' "$family" "$what" "$when" "$actions"; done
    done
} | sort -u | sed -E 's/^([^ ]+) (.*)$/{ "\1", "\2" },/'
