#!/usr/bin/env bash
# What README and docs/ say about files, routes, metrics and links is so.
. "$(dirname "$0")/claims.sh"

cd "$root" || exit 1
nothing() { ! grep .; } # of what comes in; shows what there is

# --- docs/architecture.md: worker/ file by file ---------------------------------------------------------

listed() { sed -nE '/^## worker\//,/^## [^w]/s/^\| `([^`]+)` \|.*/\1/p' "$1"; }
sources() { # a header beside its .c is the same room
    find worker -name '*.[ch]' | sed 's|^worker/||' | while read -r file; do
        case $file in *.h) [ -e "worker/${file%.h}.c" ] || echo "$file" ;; *) echo "$file" ;; esac
    done | sort
}
listed docs/architecture.md | sort >"$work/listed"
sources >"$work/sources"
claim "architecture.md lists files of worker/" test "$(wc -l <"$work/listed")" -gt 10
claim "none twice" nothing < <(uniq -d "$work/listed")
claim "every file of worker/ has its sentence" nothing < <(comm -13 "$work/listed" "$work/sources")
claim "every file with a sentence is there" nothing < <(comm -23 "$work/listed" "$work/sources")

# --- docs/operations.md: metrics, and functions of the schema -------------------------------------------

claimed() { grep -oE '\bkiln_[a-z_]+[a-z]' docs/operations.md | sort -u; }
known() { grep -rhoE --include='*.[ch]' --include='*.sql' '\bkiln_[a-z_]+[a-z]' worker dispatcher common schema | sort -u; }
series() { # what is registered: the name stands first in a call that makes a series, or in a table of names
    grep -rhoE --include='*.c' '"kiln_[a-z_]+"' worker dispatcher common | tr -d '"' | sort -u
}
claim "operations.md names metrics" test "$(claimed | wc -l)" -gt 20
claim "every name in operations.md is in the code" nothing < <(comm -23 <(claimed) <(known))
claim "every series of the code is in operations.md" nothing < <(comm -13 <(claimed) <(series))

# --- docs/api.md: routes, refusals, errors of jobs ------------------------------------------------------

routes() { perl -MJSON::PP -e 'local $/; print "$_\n" for sort keys %{decode_json(<STDIN>)->{paths}}' <schema/openapi.json; }
unnamed() { # ROUTE...: those that api.md does not name; {account} may be an example
    local route pattern
    while read -r route; do
        pattern=$(sed -E 's|\{account\}|[^/ ]+|; s/[{}.]/\\&/g; s|\\\.$|.|' <<<"$route")
        pattern=${pattern//\[^\/ \]+/[^\/ ]+}
        grep -qE "$pattern([^a-z/{]|\$)" docs/api.md || echo "$route"
    done
}
claim "openapi.json has routes" test "$(routes | wc -l)" -gt 10
claim "a route that api.md does not name would be found" test "$(echo /v1/nothing | unnamed)" = /v1/nothing
claim "every route of openapi.json is in api.md" nothing < <(routes | unnamed)
claim "every route of the dispatcher is in openapi.json" nothing < <(comm -13 <(routes) \
    <(sed -nE 's/^ *\{ "[A-Z]+", "([^"]+)",.*/\1/p' dispatcher/routes.c | sort -u))
words() { # of err.h, from the comment that begins so to the next one
    sed -nE "/\/\* $1/,/\/\* $2/s/^ *X\(ERR_[A-Z_]+, \"([a-z_]+)\".*/\1/p" common/base/err.h
}
words 'outcomes of a job' 'inside one process' >"$work/words"
claim "err.h has codes" test "$(wc -l <"$work/words")" -gt 25
claim "every code of jobs and refusals is in api.md" nothing < <(while read -r word; do
    grep -qF "\`$word\`" docs/api.md || echo "$word"
done <"$work/words")

# --- links ----------------------------------------------------------------------------------------------

links() { # FILE: its relative links, as paths
    grep -oE '\]\([^)#]+' "$1" | sed 's/^](//' | grep -vE '^[a-z]+:' | sed "s|^|$(dirname "$1")/|"
}
for page in README.md CONTRIBUTING.md docs/*.md; do
    claim "the links of $page lead somewhere" nothing < <(links "$page" | while read -r path; do
        [ -e "$path" ] || echo "$path"
    done)
done
# files and folders that the text names, where they can only be ours
claim "paths named in README and docs are there" nothing < <(
    grep -ohE '`(docs|deploy|schema|scripts|tests|worker|dispatcher|common)/[A-Za-z0-9_./@-]+`' README.md CONTRIBUTING.md docs/*.md |
        tr -d '`' | sort -u | while read -r path; do
        [ -e "$path" ] || [ -e "$path.c" ] || [ -e "$path.h" ] || echo "$path"
    done)
