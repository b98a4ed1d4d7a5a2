#!/usr/bin/env bash
# Every test that docs/reliability.md leans on exists.
. "$(dirname "$0")/claims.sh"

page=$root/docs/reliability.md
grep -rhoE '^(Parameterized)?Test\(.*' --include='*.c' "$root/tests" |
    sed -E 's/^ParameterizedTest\([^,]*, */Test(/; s/^Test\(([a-z_0-9]+), *([a-z_0-9]+).*/\1::\2/' | sort -u >"$work/have"
grep -oE '`[a-z_]+::[a-z_0-9]+`' "$page" | tr -d '`' | sort -u >"$work/named"
claim "the page names tests" test "$(wc -l <"$work/named")" -gt 40
claim "each of them exists" same "$(comm -23 "$work/named" "$work/have")" ""
