#!/usr/bin/env bash
# The systemd units are what systemd understands, and keep what they promise.
. "$(dirname "$0")/claims.sh"

# systemd-analyze wants the programs to be there; what is checked here is the units.
for unit in kiln-dispatcher.service kiln-worker@.service; do
    sed 's|^ExecStart=/usr/local/bin/kiln-[a-z]*|ExecStart=/bin/true|' "$root/deploy/$unit" >"$work/$unit"
done
cp "$work/kiln-worker@.service" "$work/kiln-worker@1.service"
verify() { # an unknown name is only a warning to systemd; here it is an error
    local said status
    said=$(systemd-analyze verify --man=no "$1" 2>&1)
    status=$?
    ! grep -F "$work/" <<<"$said" >&2 && [ "$status" = 0 ]
}
set_in() { sed -n "s/^$2=//p" "$root/deploy/$1" | paste -sd' '; }

claim "the dispatcher's unit is valid" verify "$work/kiln-dispatcher.service"
claim "the worker's unit is valid, for each instance" verify "$work/kiln-worker@1.service"
sed 's/^Restart=on-failure/Restart=sometimes/' "$work/kiln-dispatcher.service" >"$work/bad.service"
claim "a word that systemd does not know would be found" \
    grep -q sometimes <(systemd-analyze verify --man=no "$work/bad.service" 2>&1)

for unit in kiln-dispatcher.service kiln-worker@.service; do
    claim "$unit is restarted after a failure" same "$(set_in "$unit" Restart)" on-failure
    claim "but not with a wrong configuration" same "$(set_in "$unit" RestartPreventExitStatus)" 78
    claim "$unit is hardened" awk -v seen="$(systemd-analyze security --offline=yes "$work/${unit/@/@1}" 2>&1)" \
        'BEGIN { exit !(match(seen, /exposure level for [^:]*: [0-9.]+/) && substr(seen, RSTART + RLENGTH - 3) + 0 < 2.5) }'
done
claim "only the instance's own settings may be missing" \
    same "$(set_in kiln-worker@.service EnvironmentFile)" "/etc/kiln/kiln.env -/etc/kiln/worker-%i.env"

# A drained worker may have to wait for the longest call that a provider is allowed.
longest_ms=$(grep -rhoE '"submit": *\{[^}]*"timeout_ms": *[0-9]+' "$root"/schema/catalog 2>/dev/null | grep -oE '[0-9]+$' | sort -n | tail -n 1)
claim "a stop gives the longest call its time, and a minute" \
    test "$(set_in kiln-worker@.service TimeoutStopSec)" -ge $((${longest_ms:-0} / 1000 + 60))
