#!/usr/bin/env bash
# Each program has --help from its configuration table, --version, and --check-config that lists every problem.
. "$(dirname "$0")/claims.sh"

build=${KILN_BUILD_DIR:?the build says where the programs are}
bad=$work/bad.json
echo '{"bogus": 1, "image_size_cap": 99999}' >"$bad"

run() { # program, then its flags; in an environment with three problems
    env -i PATH=/usr/bin:/bin KILN_DATABASE_URL='x y' KILN_REDIS_URL=http://x KILN_BOGUS=1 "$build/$1" "${@:2}" 2>&1
}
status() {
    run "$@" >/dev/null
    echo $?
}

for program in dispatcher/kiln-dispatcher worker/kiln-worker dispatcher/client/kiln tests/sandbox/kiln-sandbox; do
    name=${program##*/}
    claim "$name has a version" grep -qE "^$name [0-9]+\.[0-9]+\.[0-9]+" <(run $program --version)
    claim "$name --help ends well" same "$(status $program --help)" 0
done
claim "the dispatcher's help is its table" grep -q KILN_SIGNING_KEY <(run dispatcher/kiln-dispatcher --help)
claim "the worker's help is its table" grep -q KILN_MAX_WAITING <(run worker/kiln-worker --help)
claim "the command line's help is its table" grep -q KILN_API_KEY <(run dispatcher/client/kiln --help)
claim "the sandbox's help is its table" grep -q stability_limit.requests <(run tests/sandbox/kiln-sandbox --help)
for program in dispatcher/kiln-dispatcher worker/kiln-worker dispatcher/client/kiln; do
    claim "${program##*/} refuses a bad environment" same "$(status $program --check-config)" 78
    for word in KILN_BOGUS KILN_DATABASE_URL; do
        claim "${program##*/} lists $word" grep -q "$word" <(run $program --check-config)
    done
done
for program in dispatcher/kiln-dispatcher worker/kiln-worker; do
    claim "${program##*/} lists them all" same "$(run $program --check-config | grep -cE '^KILN_(BOGUS|DATABASE_URL|REDIS_URL|STORAGE)')" 4
    claim "${program##*/} does not start with them" same "$(status $program)" 78
done
claim "the sandbox refuses a bad file" same "$(status tests/sandbox/kiln-sandbox --check-config --config "$bad")" 78
claim "and lists it all" same "$(run tests/sandbox/kiln-sandbox --check-config --config "$bad" | grep -cE '^(bogus|image_size_cap)')" 2
claim "without problems it says so" same "$(status tests/sandbox/kiln-sandbox --check-config)" 0
